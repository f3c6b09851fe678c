//! Limits and times of the inbox.

use serde::Deserialize;

use super::disk::DiskLimits;
use crate::database::Backoff;

/// The `[inbox]` section.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxSettings {
    /// A series is whole when no slice came for so long, and no upload that brings slices of it is under way.
    pub quiet_seconds: f64,
    /// The source is asked for its count so often; two equal answers settle a series.
    pub count_interval_seconds: f64,
    /// Most bytes of one request.
    pub max_request_bytes: u64,
    /// Most bytes of one instance.
    pub max_instance_bytes: u64,
    /// Most instances of one request.
    pub max_parts: usize,
    /// Most uploads at once; others get 503.
    pub max_uploads: usize,
    /// An upload that sends nothing for so long is ended.
    pub idle_seconds: f64,
    /// An upload that takes longer in all is ended, however steadily it comes.
    pub longest_upload_seconds: f64,
    /// Uploads are refused (503) while less than this is free on the disk of the data folder.
    pub disk_reserve_bytes: u64,
    /// While a greater share of that disk is used, 0 to 1, the slices of finished jobs go at once.
    pub disk_watermark: f64,
    /// Attempts to fetch a series from a PACS where the fault may pass.
    pub fetch_attempts: u32,
    /// Attempts where what answers has not what is asked for: it is not there, or the answer is no PACS's.
    pub fetch_absent_attempts: u32,
    /// Attempts where what comes cannot be taken.
    pub fetch_hopeless_attempts: u32,
    /// Wait before the second attempt to fetch; it doubles with each one.
    pub fetch_backoff_seconds: f64,
    /// Longest wait between two attempts to fetch.
    pub fetch_longest_backoff_seconds: f64,
    /// Wait before the second attempt where what answers has not what is asked for; it doubles with each one.
    pub fetch_absent_backoff_seconds: f64,
    /// Longest wait between two such attempts.
    pub fetch_absent_longest_backoff_seconds: f64,
    /// The slices of a finished job go so long after its result is stored.
    pub keep_ct_hours: f64,
    /// The slices of refused, ignored, failed and canceled series go after so many days.
    pub keep_refused_days: f64,
}

impl InboxSettings {
    /// From when on room is made, and from when on uploads are refused.
    #[must_use]
    pub fn disk_limits(&self) -> DiskLimits {
        DiskLimits {
            reserve_bytes: self.disk_reserve_bytes,
            watermark: self.disk_watermark,
        }
    }

    /// Between two attempts to fetch.
    pub(super) fn fetch_backoff(&self) -> Backoff {
        Backoff {
            first_seconds: self.fetch_backoff_seconds,
            longest_seconds: self.fetch_longest_backoff_seconds,
        }
    }

    /// Between two attempts to fetch what is not there.
    pub(super) fn fetch_absent_backoff(&self) -> Backoff {
        Backoff {
            first_seconds: self.fetch_absent_backoff_seconds,
            longest_seconds: self.fetch_absent_longest_backoff_seconds,
        }
    }
}
