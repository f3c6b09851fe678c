//! The series of an upload that is under way: while their bytes come, none of them settles because nothing came.
//!
//! What an upload brings has no rows before the upload is over, so a series of which slices are held already would look quiet meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::database::Database;

/// The quiet time is put off so many times while it lasts.
const TIMES: f64 = 4.0;
/// Most series of one upload that are looked after.
const MOST: usize = 1000;

/// The study and series UIDs that an upload brought, or is bringing. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<Mutex<BTreeSet<(String, String)>>>);

impl UnderWay {
    /// Bytes of this series come.
    pub(super) fn add(&self, study_uid: &str, series_uid: &str) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if series.len() < MOST {
            series.insert((study_uid.to_owned(), series_uid.to_owned()));
        }
    }

    /// Puts the quiet time of its series off until the guard is dropped.
    pub(super) fn keep_open(&self, database: Database, quiet_seconds: f64) -> KeptOpen {
        let (of, interval) = (self.clone(), interval(quiet_seconds));
        KeptOpen(tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let (studies, series) = of.uids();
                if series.is_empty() {
                    continue;
                }
                if let Err(error) = database.still_coming(&studies, &series).await {
                    tracing::debug!(%error, "it cannot be noted that a series is still coming");
                }
            }
        }))
    }

    fn uids(&self) -> (Vec<String>, Vec<String>) {
        let series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        series.iter().cloned().unzip()
    }
}

/// How long the quiet time may be left alone.
pub(super) fn interval(quiet_seconds: f64) -> Duration {
    Duration::try_from_secs_f64(quiet_seconds / TIMES)
        .unwrap_or(Duration::MAX)
        .max(Duration::from_millis(10))
}

/// Ends with the upload.
pub(super) struct KeptOpen(JoinHandle<()>);

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.0.abort();
    }
}
