//! The protocol alone, both directions: multipart/related, DICOM JSON, STOW-RS answers, and a client for QIDO-RS, WADO-RS and STOW-RS (PS3.18).
//!
//! Nothing here knows of the database, of files or of jobs.

mod client;
pub mod dicom_json;
pub mod multipart;
mod orthanc;
mod pacs;
mod query;
mod stow;

pub use client::{Client, ClientError, Retrieved, Stored};
pub use orthanc::FATE_METADATA;
pub use pacs::{Deliver, Pacs};
pub use query::{InstanceRow, SeriesFilters, SeriesRow};
pub use stow::{Failure, Reference, StowAnswer, StowAnswerError, Warning};
