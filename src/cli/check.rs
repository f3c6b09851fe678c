//! `hilum check`: what is installed, what runs, and what to do about the rest.

use super::{End, models, say};
use crate::config::Settings;
use crate::model::{self, CheckOptions, Device, Health};

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

pub(super) fn run(arguments: &Arguments, settings: &Settings) -> anyhow::Result<End> {
    let name = arguments.model.as_deref().unwrap_or(&settings.model.name);
    let manifest = models::manifest_path(name, &settings.model.folder)?;
    let mut session = settings.model.session_options();
    session.device = arguments.device.unwrap_or(session.device);
    let checks = model::check(&CheckOptions { manifest, session });
    if arguments.json {
        say(serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            let word = match check.health {
                Health::Ok => "ok     ",
                Health::Absent => "absent ",
                Health::Problem => "PROBLEM",
            };
            say(format!("{word}  {}: {}", check.what, check.seen));
            if !check.to_do.is_empty() {
                say(format!("         {}", check.to_do));
            }
        }
    }
    Ok(if checks.iter().any(|check| check.health == Health::Problem) {
        End::Failed
    } else {
        End::Done
    })
}
