//! From outside to a settled series: ingest, batch files, settling, the poller, retention.
//!
//! One request is one batch: its instances are appended to one file. An answer comes after the file is synced and its rows are committed, in that order.

mod settings;

pub use settings::InboxSettings;
