//! From outside to a settled series: ingest, batch files, settling, the poller, retention.
//!
//! One request is one batch: its instances are appended to one file. An answer comes after the file is synced and its rows are committed, in that order.

mod batch;
mod error;
mod ingest;
mod intake;
pub mod poller;
mod receipt;
mod settings;

pub use batch::batch_path;
pub use error::IngestError;
pub use ingest::{Ingest, Origin};
pub use receipt::{Outcome, Receipt, Received, TouchedSeries};
pub use settings::InboxSettings;
