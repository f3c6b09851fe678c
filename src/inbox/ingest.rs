//! A body of DICOM instances in, rows and one batch file out: the one way into the inbox, for STOW-RS and for what is fetched from a PACS.
//!
//! The body streams through a bounded channel to a thread that writes; memory does not grow with it. The answer comes after the file is synced and its rows
//! are committed, in that order.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::batch::{abandoned, batch_files};
use super::disk::Disk;
use super::error::IngestError;
use super::intake::{Gathered, Intake, IntakeOptions, is_usable_uid};
use super::receipt::Receipt;
use super::settings::InboxSettings;
use super::under_way::{UnderWay, interval};
use crate::database::{Database, failpoint};
use crate::dicom::Limits;
use crate::dicomweb::multipart::{Boundary, PartLimits};

/// Chunks between the socket and the thread that writes.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Bytes of the head of a part.
const PART_HEADER_BYTES: usize = 16 << 10;
/// A sender must bring so many bytes in the time after which it counts as idle.
const LEAST_BYTES: u64 = 1024;

/// Where instances come from, and what is said about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Name of the `[[pacs]]` block of the sender.
    pub pacs: Option<String>,
    /// What the sender calls itself, where no block has this name: told by an event of each series.
    pub unknown_source: Option<String>,
    /// Who brings them, for the events.
    pub actor: String,
    /// The study of the URL: instances of another one fail.
    pub study: Option<String>,
    /// The sender says that the series in the request are whole: they settle at once.
    pub complete: bool,
}

/// The way into the inbox. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    folder: PathBuf,
    settings: InboxSettings,
    headers: Limits,
    uploads: Arc<Semaphore>,
}

/// What goes to the thread that writes. A channel that closes without an end was given up by its sender.
enum Feed {
    Chunk(Bytes),
    End,
}

impl Ingest {
    /// The inbox in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn open(
        database: Database,
        folder: &Path,
        settings: InboxSettings,
        headers: Limits,
    ) -> Result<Ingest, IngestError> {
        std::fs::create_dir_all(folder)?;
        let uploads = Arc::new(Semaphore::new(settings.max_uploads.min(Semaphore::MAX_PERMITS)));
        Ok(Ingest {
            shared: Arc::new(Shared {
                database,
                folder: folder.to_owned(),
                settings,
                headers,
                uploads,
            }),
        })
    }

    /// Its limits and times.
    #[must_use]
    pub fn settings(&self) -> &InboxSettings {
        &self.shared.settings
    }

    /// The folder of the batch files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.shared.database
    }

    /// Takes in a body. An error means that nothing of it is kept, but for one: after an error of the database the rows may be there.
    ///
    /// # Errors
    /// Those of [`IngestError`]; `Busy` and `DiskFull` before the body is read where they are known by then.
    pub async fn receive<S, E>(&self, boundary: &Boundary, body: S, origin: &Origin) -> Result<Receipt, IngestError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Display,
    {
        if origin.study.as_deref().is_some_and(|study| !is_usable_uid(study)) {
            return Err(IngestError::BadStudy);
        }
        let permit = self.admit().await?;
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let under_way = UnderWay::default();
        let _open = under_way.keep_open(self.shared.database.clone(), self.shared.settings.quiet_seconds);
        let intake = self.intake(boundary, origin, under_way);
        let writer = tokio::task::spawn_blocking(move || write(intake, receiver));
        let fed = self.feed(body, &sender).await;
        drop(sender);
        let gathered = writer.await.map_err(|_| IngestError::Ending)?;
        fed?;
        let gathered = gathered?.ok_or(IngestError::Ending)?;
        // A task of its own: a sender that goes away now must not part the rows from the file.
        let (ingest, origin) = (self.clone(), origin.clone());
        let commit = tokio::spawn(async move { ingest.commit(gathered, &origin, permit).await });
        commit.await.map_err(|_| IngestError::Ending)?
    }

    /// Removes the batch files that no row refers to and nobody is writing: what a killed process left. Their number is returned.
    ///
    /// # Errors
    /// Those of the folder and of the database.
    pub async fn sweep(&self) -> Result<usize, IngestError> {
        let folder = self.shared.folder.clone();
        let names = blocking(move || batch_files(&folder)).await??;
        let mut removed = 0;
        for name in self.shared.database.files_without_rows(&names).await? {
            let folder = self.shared.folder.clone();
            let Some(left) = blocking(move || abandoned(&folder, &name)).await?? else {
                continue;
            };
            let name = left.name.clone();
            let garbage = self.shared.database.if_garbage(&name, || left.remove()).await?;
            removed += usize::from(garbage);
        }
        Ok(removed)
    }

    /// A place among the uploads, if there is one and the disk has room.
    async fn admit(&self) -> Result<OwnedSemaphorePermit, IngestError> {
        let uploads = Arc::clone(&self.shared.uploads);
        let permit = uploads.try_acquire_owned().map_err(|_| IngestError::Busy)?;
        let folder = self.shared.folder.clone();
        let disk = blocking(move || Disk::of(&folder)).await??;
        if !disk.has_room(&self.shared.settings.disk_limits()) {
            return Err(IngestError::DiskFull);
        }
        Ok(permit)
    }

    fn intake(&self, boundary: &Boundary, origin: &Origin, under_way: UnderWay) -> Intake {
        let settings = &self.shared.settings;
        let options = IntakeOptions {
            folder: self.shared.folder.clone(),
            parts: PartLimits {
                header_bytes: PART_HEADER_BYTES,
                part_bytes: settings.max_instance_bytes,
                parts: settings.max_parts,
            },
            headers: self.shared.headers.clone(),
            disk_reserve_bytes: settings.disk_reserve_bytes,
            study: origin.study.clone(),
            pacs: origin.pacs.clone(),
            unknown_source: origin.unknown_source.clone(),
            under_way,
            slow_part: interval(settings.quiet_seconds),
        };
        let (database, runtime) = (self.shared.database.clone(), tokio::runtime::Handle::current());
        // The intake runs on a thread for blocking work, so it may wait for an answer there.
        let held = move |study: &str, series: &str| runtime.block_on(database.held_digests(study, series));
        Intake::new(boundary, options, Box::new(held))
    }

    /// Hands the body over chunk by chunk. Where the thread that writes has ended, it tells why itself.
    async fn feed<S, E>(&self, body: S, sender: &mpsc::Sender<Feed>) -> Result<(), IngestError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Display,
    {
        let settings = &self.shared.settings;
        let idle = Duration::try_from_secs_f64(settings.idle_seconds).unwrap_or(Duration::MAX);
        let longest = Duration::try_from_secs_f64(settings.longest_upload_seconds).unwrap_or(Duration::MAX);
        let last = Instant::now().checked_add(longest);
        let mut body = pin!(body);
        let (mut total, mut in_window) = (0_u64, 0_u64);
        let mut window_end = Instant::now().checked_add(idle);
        loop {
            let too_slow = last.is_some_and(|last| window_end.is_none_or(|end| last < end));
            let until = if too_slow { last } else { window_end };
            let next = body.next();
            let chunk = match until {
                Some(until) => tokio::time::timeout_at(until, next).await.map_err(|_| {
                    if too_slow {
                        IngestError::TooSlow(settings.longest_upload_seconds)
                    } else {
                        IngestError::Idle(settings.idle_seconds)
                    }
                })?,
                None => next.await,
            };
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|error| IngestError::Body(error.to_string()))?;
            total = total.saturating_add(chunk.len() as u64);
            in_window += chunk.len() as u64;
            if total > settings.max_request_bytes {
                return Err(IngestError::TooLarge(settings.max_request_bytes));
            }
            let handed_over = Instant::now();
            if sender.send(Feed::Chunk(chunk)).await.is_err() {
                return Ok(());
            }
            // While the disk is slow the sender is not idle: it is we who do not read.
            window_end = window_end.and_then(|end| end.checked_add(handed_over.elapsed()));
            if in_window >= LEAST_BYTES {
                in_window = 0;
                window_end = Instant::now().checked_add(idle);
            }
        }
        let _ = sender.send(Feed::End).await;
        metrics::counter!("hilum_received_bytes_total").increment(total);
        Ok(())
    }

    /// Makes the rows, and keeps the file if one refers to it.
    async fn commit(
        &self,
        gathered: Gathered,
        origin: &Origin,
        _permit: OwnedSemaphorePermit,
    ) -> Result<Receipt, IngestError> {
        let Gathered { batch, series, parts } = gathered;
        let file = batch.as_ref().map(|batch| (batch.name(), batch.length()));
        let stored = self
            .shared
            .database
            .store_batch(file, &series, &origin.actor, origin.complete)
            .await;
        match stored {
            Ok(Some(stored)) => {
                failpoint("ingest_committed");
                if let Some(batch) = batch {
                    if stored.file_needed {
                        batch.keep();
                    } else {
                        blocking(move || drop(batch)).await?;
                    }
                }
                let receipt = Receipt::new(&series, &parts, &stored);
                receipt.count();
                Ok(receipt)
            }
            Ok(None) => {
                blocking(move || drop(batch)).await?;
                Err(IngestError::Busy)
            }
            Err(error) => {
                // Whether the transaction came through is not known; a sweep will tell.
                if let Some(batch) = batch {
                    batch.leave();
                }
                Err(error.into())
            }
        }
    }
}

/// Runs on the thread that writes. `None`: the sender gave up.
fn write(mut intake: Intake, mut feed: mpsc::Receiver<Feed>) -> Result<Option<Gathered>, IngestError> {
    while let Some(next) = feed.blocking_recv() {
        match next {
            Feed::Chunk(chunk) => intake.push(chunk)?,
            Feed::End => return intake.finish().map(Some),
        }
    }
    Ok(None)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, IngestError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| IngestError::Ending)
}
