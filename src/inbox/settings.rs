//! Limits and times of the inbox.

use serde::Deserialize;

/// The `[inbox]` section.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxSettings {
    /// A series is whole when no slice came for so long.
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
    /// The slices of a finished job go so long after its result is stored.
    pub keep_ct_hours: f64,
    /// The slices of refused, ignored, failed and canceled series go after so many days.
    pub keep_refused_days: f64,
}
