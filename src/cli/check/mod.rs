//! `hilum check`: what is installed, what runs, and what to do about the rest.
//!
//! First the network and the library that runs it, then a small phantom the whole way (`end_to_end.rs`), then what the service would lean on (`surroundings.rs`).

mod end_to_end;
mod surroundings;

use super::{End, models, say, told};
use crate::config::Settings;
use crate::model::{self, Check, CheckOptions, Checks, Device, Health};

/// What `hilum check` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The network: a name in the folder of models, or the path of a manifest.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Where it should run: auto, cpu, cuda or tensorrt.
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, mut settings: Settings) -> anyhow::Result<End> {
    if let Some(name) = &arguments.model {
        settings.model.name = name.clone();
    }
    settings.model.device = arguments.device.unwrap_or(settings.model.device);
    let mut checks = Checks::new(|check| {
        if !arguments.json {
            tell(check);
        }
    });
    match models::manifest_path(&settings.model.name, &settings.model.folder) {
        Ok(manifest) => {
            let options = CheckOptions {
                manifest: manifest.clone(),
                session: settings.model.session_options(),
            };
            model::check(&options, &mut checks);
            end_to_end::check(&settings, &manifest, &mut checks);
        }
        Err(error) => {
            let to_do = "name a network that is there by --model, or in [model] of the configuration: docs/models.md";
            checks.push(Check::problem("manifest", told(&error), to_do));
        }
    }
    surroundings::check(&settings, &mut checks)?;
    if arguments.json {
        say(serde_json::to_string_pretty(checks.all())?);
    }
    Ok(if checks.has_problem() { End::Failed } else { End::Done })
}

/// Two lines for a person: how it stands, and what to do where it does not.
fn tell(check: &Check) {
    let word = match check.health {
        Health::Ok => "ok     ",
        Health::Absent => "absent ",
        Health::Problem => "PROBLEM",
    };
    // What was there at once needs no time beside it.
    let time = if check.seconds < 0.05 {
        String::new()
    } else {
        format!(" ({:.1} s)", check.seconds)
    };
    say(format!("{word}  {}: {}{time}", check.what, check.seen));
    if !check.to_do.is_empty() {
        say(format!("         {}", check.to_do));
    }
}
