//! Paths in, series out, with what lay beside them.

use std::path::PathBuf;

use crate::dicom::{Limits, discover};
use crate::series::{Outcome, Series, group};

/// What lies under some paths.
pub(super) struct Input {
    /// The series, each with its instances.
    pub(super) series: Vec<Series>,
    /// How many files are not DICOM or cannot be read.
    pub(super) skipped: usize,
}

/// Reads the headers of everything under `paths`; with `verbose` what is passed over is named on standard error.
///
/// # Errors
/// A path that does not exist.
#[expect(
    clippy::print_stderr,
    reason = "what was passed over is for the person who asked with -v"
)]
pub(super) fn read(paths: &[PathBuf], verbose: u8) -> anyhow::Result<Input> {
    let discovery = discover(paths, &Limits::default())?;
    if verbose > 0 {
        for skipped in &discovery.skipped {
            eprintln!("passed over {}: {}", skipped.path.display(), skipped.why);
        }
    }
    Ok(Input {
        series: group(discovery.instances),
        skipped: discovery.skipped.len(),
    })
}

/// The outcome as people read it.
pub(super) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Repaired => "repaired",
        Outcome::Refused => "refused",
    }
}
