//! From outside to a settled series: ingest, batch files, settling, the poller, retention.
//!
//! One request is one batch: its instances are appended to one file. An answer comes after the file is synced and its rows are committed, in that order.

mod batch;
mod disk;
mod error;
mod ingest;
mod intake;
pub mod poller;
mod receipt;
mod retention;
mod settings;
mod settle;
mod under_way;

pub use batch::batch_path;
pub use disk::{Disk, DiskLimits};
pub use error::IngestError;
pub use ingest::{Ingest, Origin};
pub use receipt::{Outcome, Receipt, Received, TouchedSeries};
pub use settings::InboxSettings;

use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::dicomweb::Pacs;

/// What the inbox does by itself until it is told to end: it sweeps what a killed process left, settles series, and removes bytes whose time is over.
pub async fn run(
    database: Database,
    ingest: Ingest,
    settings: InboxSettings,
    pacs: Vec<Pacs>,
    ends: CancellationToken,
) {
    tokio::join!(
        settle::settle(database, settings, pacs, ends.clone()),
        retention::retain(ingest, ends)
    );
}
