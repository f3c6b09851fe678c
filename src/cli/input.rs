//! Paths in, series out, with what lay beside them.

use std::path::PathBuf;

use serde::Serialize;

use crate::dicom::{Limits, Skipped, discover};
use crate::series::{Outcome, Series, SeriesLimits, group, put_down_unreadable};

/// What lies under some paths.
pub(super) struct Input {
    /// The series, each with its instances.
    pub(super) series: Vec<Series>,
    /// What else lay there.
    pub(super) others: Others,
}

/// What gave no instance, as it stands in JSON beside the series.
#[derive(Debug, Serialize)]
pub(super) struct Others {
    /// How many files are not DICOM.
    pub(super) passed_over: usize,
    /// DICOM that is damaged or over a limit, and what the system did not let be read.
    pub(super) unreadable: Vec<UnreadableFile>,
}

/// A file that may hold a slice and could not be read.
#[derive(Debug, Serialize)]
pub(super) struct UnreadableFile {
    path: String,
    why: String,
}

/// Reads the headers of everything under `paths`. What could not be read is named on standard error, since slices may be lost with it; with `verbose` also
/// what is passed over. `limits` tell which series such a file may belong to.
///
/// # Errors
/// A path that does not exist.
#[expect(
    clippy::print_stderr,
    reason = "a person should know although standard output may be JSON"
)]
pub(super) fn read(paths: &[PathBuf], limits: &SeriesLimits, verbose: u8) -> anyhow::Result<Input> {
    let discovery = discover(paths, &Limits::default())?;
    for Skipped { path, why } in &discovery.unreadable {
        eprintln!("hilum: cannot read {}: {why}", path.display());
    }
    if verbose > 0 {
        for Skipped { path, why } in &discovery.skipped {
            eprintln!("passed over {}: {why}", path.display());
        }
    }
    let mut series = group(discovery.instances);
    put_down_unreadable(&mut series, &discovery.unreadable, limits);
    let unreadable = discovery.unreadable.into_iter().map(|skipped| UnreadableFile {
        path: skipped.path.display().to_string(),
        why: skipped.why,
    });
    Ok(Input {
        series,
        others: Others {
            passed_over: discovery.skipped.len(),
            unreadable: unreadable.collect(),
        },
    })
}

impl Others {
    /// How many files were passed over, in a sentence; `None` where there are none.
    pub(super) fn told(&self) -> Option<String> {
        match self.passed_over {
            0 => None,
            1 => Some("One other file was passed over (-v names it).".into()),
            n => Some(format!("{n} other files were passed over (-v names them).")),
        }
    }
}

/// The outcome as people read it.
pub(super) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Repaired => "repaired",
        Outcome::Refused => "refused",
    }
}
