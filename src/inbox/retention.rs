//! Bytes that have done their work leave the disk: those of finished jobs after hours, those of refused, failed, canceled and ignored series after days.
//!
//! Rows go first, then files: what is left between the two is garbage that the sweep takes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::batch::batch_path;
use super::disk::Disk;
use super::error::IngestError;
use super::ingest::Ingest;
use crate::database::Keep;

/// Who removes, in the events.
const ACTOR: &str = "retention";
/// The table is looked at so often.
const ROUND: Duration = Duration::from_secs(60);
/// The folder is swept once in so many rounds.
const ROUNDS_BETWEEN_SWEEPS: u32 = 60;
/// Series of one look at the table.
const MOST: i64 = 100;

/// Removes until it is told to end.
pub(super) async fn retain(ingest: Ingest, ends: CancellationToken) {
    let mut round: u32 = 0;
    loop {
        if round.is_multiple_of(ROUNDS_BETWEEN_SWEEPS) {
            match ingest.sweep().await {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "batch files without rows were removed"),
                Err(error) => tracing::warn!(%error, "the inbox could not be swept"),
            }
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = ends.cancelled() => return,
            released = ingest.release() => {
                if let Err(error) = released {
                    tracing::warn!(%error, "slices could not be removed");
                }
            }
        }
        tokio::select! {
            () = ends.cancelled() => return,
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

impl Ingest {
    /// Removes the bytes whose time is over; those of finished jobs at once where the disk is scarce. Returns the number of series that lost theirs.
    ///
    /// # Errors
    /// Those of the disk and of the database.
    pub async fn release(&self) -> Result<usize, IngestError> {
        let folder = self.folder().to_owned();
        let disk = tokio::task::spawn_blocking(move || Disk::of(&folder))
            .await
            .map_err(|_| IngestError::Ending)??;
        let scarce = disk.is_scarce(&self.settings().disk_limits());
        let keep = Keep {
            done_hours: if scarce { 0.0 } else { self.settings().keep_ct_hours },
            other_days: self.settings().keep_refused_days,
        };
        let mut released = 0;
        loop {
            let due = self.database().series_to_release(keep, MOST).await?;
            if due.is_empty() {
                return Ok(released);
            }
            let before = released;
            for series in due {
                let Some(files) = self.database().release_series(series, keep, ACTOR).await? else {
                    continue;
                };
                released += 1;
                let folder = self.folder().to_owned();
                let removal = move || {
                    for file in files {
                        if let Err(error) = std::fs::remove_file(batch_path(&folder, &file)) {
                            tracing::warn!(file, %error, "a batch file could not be removed");
                        }
                    }
                };
                tokio::task::spawn_blocking(removal)
                    .await
                    .map_err(|_| IngestError::Ending)?;
            }
            if released == before {
                // Others are at the same series.
                return Ok(released);
            }
        }
    }
}
