//! The protocol alone, both directions: multipart/related, DICOM JSON, STOW-RS answers, and a client for QIDO-RS, WADO-RS and STOW-RS (PS3.18).
//!
//! Nothing here knows of the database, of files or of jobs.

pub mod multipart;
mod pacs;
mod stow;

pub use pacs::{Deliver, Pacs};
pub use stow::{Failure, Reference, StowAnswer, StowAnswerError, Warning};
