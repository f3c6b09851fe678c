//! One PACS, one block of the configuration: where it is, how one speaks to it, and what it is used for.

use std::path::PathBuf;

use serde::Deserialize;

use crate::segment::{FrameChoice, Profile, Segments, TransferSyntax};

/// A `[[pacs]]` block.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pacs {
    /// Its name: deliveries, series and senders refer to it.
    pub name: String,
    /// Root of its DICOMweb service, as `http://127.0.0.1:8042/dicom-web`.
    pub url: String,
    /// User name for Basic authentication; empty: none.
    #[serde(default)]
    pub username: String,
    /// Its password.
    #[serde(default)]
    pub password: String,
    /// Bearer token, instead of user name and password.
    #[serde(default)]
    pub token: String,
    /// PEM file with client certificate and private key.
    #[serde(default)]
    pub client_certificate: Option<PathBuf>,
    /// PEM file with the certificates that its server may be signed by, beside the system's.
    #[serde(default)]
    pub certificate_authority: Option<PathBuf>,
    /// Seconds that one exchange may take in all; of a series that is fetched, seconds in which nothing of it comes.
    #[serde(default = "ten_minutes")]
    pub timeout_seconds: u64,
    /// It is asked how many instances a series has that came from it, so that a series settles as soon as it is whole.
    #[serde(default = "yes")]
    pub count: bool,
    /// It is asked for series that nobody forwarded.
    #[serde(default)]
    pub poll: bool,
    /// Seconds between two rounds of asking.
    #[serde(default = "one_minute")]
    pub poll_interval_seconds: u64,
    /// Studies of the last so many days are looked at.
    #[serde(default = "a_week")]
    pub look_back_days: u32,
    /// More QIDO-RS filters, as `{ BodyPartExamined = "CHEST" }`.
    #[serde(default)]
    pub filters: std::collections::BTreeMap<String, String>,
    /// Which results go back to it.
    #[serde(default)]
    pub deliver: Deliver,
    /// Segments of the segmentations that go to it; absent, as for the two after it: as `[output]` says.
    #[serde(default)]
    pub segments: Option<Segments>,
    /// Frames of the segmentations that go to it.
    #[serde(default)]
    pub frames: Option<FrameChoice>,
    /// Coding of the segmentations that go to it.
    #[serde(default)]
    pub transfer_syntax: Option<TransferSyntax>,
    /// Its server is an Orthanc: the fate of each series is written to it as metadata, by its native REST interface below `orthanc_url`.
    #[serde(default)]
    pub orthanc_url: Option<String>,
}

impl Pacs {
    /// Whether it says anything of the profile of the segmentations that go to it.
    #[must_use]
    pub fn has_profile(&self) -> bool {
        self.segments.is_some() || self.frames.is_some() || self.transfer_syntax.is_some()
    }

    /// The profile of the segmentations that go to it: what it says, over the usual one.
    #[must_use]
    pub fn profile(&self, usual: Profile) -> Profile {
        Profile {
            segments: self.segments.unwrap_or(usual.segments),
            frames: self.frames.unwrap_or(usual.frames),
            transfer_syntax: self.transfer_syntax.unwrap_or(usual.transfer_syntax),
        }
    }
}

/// Which results go to a PACS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deliver {
    /// Those whose mask is plausible: not `implausible_volume`, not `sides_uncertain`.
    #[default]
    Plausible,
    /// Every segmentation.
    All,
    /// None.
    Nothing,
}

fn yes() -> bool {
    true
}

fn ten_minutes() -> u64 {
    600
}

fn one_minute() -> u64 {
    60
}

fn a_week() -> u32 {
    7
}

/// Without what is secret.
impl std::fmt::Debug for Pacs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pacs")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("poll", &self.poll)
            .finish_non_exhaustive()
    }
}
