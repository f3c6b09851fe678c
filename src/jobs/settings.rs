//! How jobs are worked on.

use serde::Deserialize;

use crate::database::Backoff;

/// The `[jobs]` section.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSettings {
    /// Jobs in hand at once in this process: while the network works on one, the next is read and resampled.
    pub at_once: usize,
    /// A worker that has not renewed its lease for so long has lost its job.
    pub lease_seconds: f64,
    /// Most memory that the jobs in hand may need together, in bytes, by the estimate made before decoding.
    pub memory_bytes: u64,
    /// Attempts for the world's faults before a job is failed.
    pub max_attempts: u32,
    /// Wait before the second attempt; it doubles with each one.
    pub backoff_seconds: f64,
    /// Longest wait between two attempts.
    pub longest_backoff_seconds: f64,
    /// The queue is looked at so often, beside being told.
    pub poll_seconds: f64,
}

impl JobSettings {
    /// Between two attempts at a job.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff {
            first_seconds: self.backoff_seconds,
            longest_seconds: self.longest_backoff_seconds,
        }
    }
}

#[cfg(test)]
impl JobSettings {
    /// Those of the file of defaults.
    #[allow(clippy::unwrap_used)]
    pub(super) fn defaults() -> JobSettings {
        let defaults: toml::Table = toml::from_str(include_str!("../../config/default.toml")).unwrap();
        defaults["jobs"].clone().try_into().unwrap()
    }
}
