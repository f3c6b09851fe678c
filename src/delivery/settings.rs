//! How results are delivered.

use serde::Deserialize;

use crate::database::Backoff;

/// The `[delivery]` section.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverySettings {
    /// Deliveries in hand at once; of several destinations each gets a share.
    pub at_once: usize,
    /// Wait before the second attempt; it doubles with each one.
    pub backoff_seconds: f64,
    /// Longest wait between two attempts.
    pub longest_backoff_seconds: f64,
    /// A delivery that failed for so long is given up; `redeliver` takes it up again.
    pub give_up_hours: f64,
    /// A worker that has not renewed its lease for so long has lost its delivery.
    pub lease_seconds: f64,
    /// The tables are looked at so often, beside being told.
    pub poll_seconds: f64,
    /// Where results go beside the PACS that a series came from, by the names of `[[pacs]]` blocks.
    pub always_to: Vec<String>,
}

impl DeliverySettings {
    /// Between two attempts at a delivery.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff {
            first_seconds: self.backoff_seconds,
            longest_seconds: self.longest_backoff_seconds,
        }
    }
}
