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
    /// Most memory that the jobs in hand may need together, in bytes, by the estimate made before decoding; not less than one series may need (`series.max_memory_bytes`).
    pub memory_bytes: u64,
    /// Attempts for the world's faults (disk full, database away) before a job is failed.
    pub max_attempts: u32,
    /// Wait before the second attempt; it doubles with each one.
    pub backoff_seconds: f64,
    /// Longest wait between two attempts.
    pub longest_backoff_seconds: f64,
    /// The queue is looked at so often, beside being told.
    pub poll_seconds: f64,
}

impl JobSettings {
    /// Seconds to wait after attempt number `attempt` (from 1) met a fault of the world; `None`: the attempts are used up.
    pub(super) fn next_wait(&self, attempt: u32) -> Option<f64> {
        let backoff = Backoff {
            first_seconds: self.backoff_seconds,
            longest_seconds: self.longest_backoff_seconds,
        };
        (attempt < self.max_attempts).then(|| backoff.seconds(attempt))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_world_is_waited_for_three_days_before_a_job_is_failed() {
        let settings = JobSettings::defaults();
        let waits: Vec<f64> = (1..).map_while(|attempt| settings.next_wait(attempt)).collect();
        assert_eq!(waits.len() + 1, settings.max_attempts as usize);
        let days = waits.iter().sum::<f64>() / 86_400.0;
        // As a delivery is; every wait is between half of its full length and that.
        assert!((3.0..6.1).contains(&days), "{days}");
        assert!(waits.iter().any(|wait| *wait > settings.longest_backoff_seconds / 2.0));
    }
}
