//! The subcommands of the `hilum` program: arguments in, files and an exit code out.
//!
//! Exit codes: 0 done, 1 failure, 2 usage, 3 all input refused.

mod check;
mod evaluate;
mod files;
mod input;
mod inspect;
mod models;
mod phantom;
mod progress;
mod segment;
mod serve;
mod submit;
mod user;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

pub use self::serve::LONGEST_END_SECONDS;
use crate::config::Settings;
use crate::{dicom, telemetry};

/// The environment variable that keeps ONNX Runtime (1.29 and later) from reporting usage to its maker.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// Lung segmentation of chest CT: DICOM in, DICOM Segmentation out. Research use only.
#[derive(Debug, Parser)]
#[command(name = "hilum", version, about, propagate_version = true)]
struct Arguments {
    /// A configuration file over the built-in settings (`config/default.toml` shows them all).
    #[arg(long, global = true, value_name = "FILE", env = "HILUM_CONFIG")]
    config: Option<PathBuf>,
    /// Say more: -v names what was skipped and why, -vv is for developers.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Segment the lungs of every chest CT series among files and folders.
    Segment(Box<segment::Arguments>),
    /// Say which series would be taken, repaired or refused, from their headers alone.
    Inspect(inspect::Arguments),
    /// Make a synthetic chest as a DICOM CT series with its true mask.
    Phantom(Box<phantom::Arguments>),
    /// Compare predicted masks with reference masks.
    Evaluate(evaluate::Arguments),
    /// Run the service: series in by STOW-RS or polling, segmentations back to the PACS, REST.
    Serve(serve::Arguments),
    /// Bring the service's database up to this version, and end.
    Migrate,
    /// Ask a running service to fetch a study or series and to segment it.
    Submit(submit::Arguments),
    /// Look whether everything that Hilum needs is there, and run a small phantom through it.
    Check(check::Arguments),
    /// Who may use the service.
    User(user::Arguments),
}

/// How a subcommand ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    AllRefused,
}

/// What was asked for cannot be: the program ends as where its arguments cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

impl From<End> for ExitCode {
    fn from(end: End) -> ExitCode {
        ExitCode::from(match end {
            End::Done => 0,
            End::Failed => 1,
            End::AllRefused => 3,
        })
    }
}

/// The whole program: reads the arguments of the process, runs the subcommand, says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let [_, first, rest @ ..] = arguments.as_slice()
        && first == dicom::DECODER_SUBCOMMAND
    {
        // The parent reads why from the exit status; nobody reads words.
        return if dicom::run_decoder(rest).is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let parsed = Arguments::parse_from(&arguments);
    if let Some(failure) = without_telemetry(&arguments) {
        return report_failure(&failure);
    }
    telemetry::start(parsed.verbose);
    match run(parsed) {
        Ok(end) => end.into(),
        Err(error) => report_failure(&error),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<End> {
    let settings = Settings::load(arguments.config.as_deref())?;
    match arguments.command {
        Subcommands::Segment(a) => segment::run(&a, settings, arguments.verbose),
        Subcommands::Inspect(a) => inspect::run(&a, &settings, arguments.verbose),
        Subcommands::Phantom(a) => phantom::run(&a),
        Subcommands::Evaluate(a) => evaluate::run(&a),
        Subcommands::Serve(a) => serve::run(&a, settings),
        Subcommands::Migrate => serve::migrate(&settings),
        Subcommands::Submit(a) => submit::run(&a),
        Subcommands::Check(a) => check::run(&a, settings),
        Subcommands::User(a) => user::run(&a, &settings.pacs_names()),
    }
}

/// Executes this program once more with ONNX Runtime's telemetry switched off in the environment, which has to be so before the library is loaded and cannot be done
/// safely once threads run. Returns only where it stands there already, or where that failed.
fn without_telemetry(arguments: &[OsString]) -> Option<anyhow::Error> {
    use std::os::unix::process::CommandExt;
    if std::env::var_os(NO_TELEMETRY).is_some_and(|v| v == "1") {
        return None;
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            return Some(anyhow::Error::new(error).context("cannot find this program to start it without telemetry"));
        }
    };
    let error = Command::new(&program)
        .args(arguments.iter().skip(1))
        .env(NO_TELEMETRY, "1")
        .exec();
    let context = format!(
        "cannot start {} again without telemetry; set {NO_TELEMETRY}=1 in the environment",
        program.display()
    );
    Some(anyhow::Error::new(error).context(context))
}

#[expect(clippy::print_stderr, reason = "the last word of a program that failed")]
fn report_failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("hilum: {}", told(error));
    match error.is::<Usage>() {
        true => ExitCode::from(2),
        false => End::Failed.into(),
    }
}

/// An error and its causes in one line, but none that is said already: many messages end with their cause.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.as_str() {
            "" => cause,
            _ if said.contains(&cause) => said,
            _ => format!("{said}: {cause}"),
        }
    })
}

/// Prints a line to standard output; a reader that went away (`| head`) is no error.
fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stdout().lock(), "{}", line.as_ref());
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_that_its_message_ends_with_is_told_once() {
        let path = PathBuf::from("ct");
        let error = io::Error::new(io::ErrorKind::NotFound, "No such file");
        let failure = anyhow::Error::new(dicom::DicomError::Io { path, error });
        assert_eq!(told(&failure), "ct: No such file");
        let failure = Err::<(), _>(failure).context("cannot read the series").unwrap_err();
        assert_eq!(told(&failure), "cannot read the series: ct: No such file");
    }
}
