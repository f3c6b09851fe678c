//! The second way in: every PACS that is to be asked, asked for CT series that nobody forwarded; and what is wished for, fetched.
//!
//! `poll` lists (QIDO-RS) and notes what is worth a retrieval once its count is the same in two answers; `fetch` retrieves (WADO-RS) into the same ingest that
//! uploads take. Both are taken up again at the next round whatever went wrong.

mod fetch;
mod look;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Ingest, IngestError};
use crate::database::{Database, DatabaseError};
use crate::dicomweb::{Client, ClientError, Pacs, SeriesFilters};

pub use look::{Looked, look};

/// Who does it, in the events.
const ACTOR: &str = "poller";
/// How often the table is looked at for something to fetch.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a PACS could not be asked or fetched from.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// A `[[pacs]]` block cannot be used, or its PACS could not be asked.
    #[error("[[pacs]] {name}: {error}")]
    Pacs {
        /// Its name.
        name: String,
        /// Why.
        error: ClientError,
    },
    /// What came could not be taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The database refused.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The PACS has no CT series of a study, or no CT series of this UID, that a user wished for.
    #[error("[[pacs]] {0} has no such CT series")]
    NoSeries(String),
    /// Fewer instances came than the PACS says it has.
    #[error("{came} of {count} instances came")]
    Short {
        /// Distinct instances that came.
        came: usize,
        /// Its count.
        count: u32,
    },
    /// As many parts came as the PACS says it has, and some of them cannot be taken. The others are held.
    #[error(
        "{} of {parts} instances cannot be taken: {unreadable} cannot be read, {failed} are of another study or name no series; the others are held",
        unreadable + failed
    )]
    NotTaken {
        /// Parts that are no instance that can be read.
        unreadable: usize,
        /// Instances that do not belong where the PACS lists them.
        failed: usize,
        /// All that came.
        parts: usize,
    },
}

/// One PACS and what it is asked with.
pub(super) struct Source {
    database: Database,
    ingest: Ingest,
    pacs: Pacs,
    client: Client,
}

/// Asks and fetches until it is told to end. Every PACS has its own two loops, so that one that is slow or away stops no other; those that are not polled are
/// fetched from all the same, where a user wishes it.
///
/// # Errors
/// A block that cannot be used. What happens later is retried and logged.
pub async fn run(database: Database, ingest: Ingest, pacs: Vec<Pacs>, end: CancellationToken) -> Result<(), PollError> {
    let mut loops = JoinSet::new();
    let mut sources = Vec::new();
    for pacs in pacs {
        let client = Client::new(&pacs).map_err(|error| PollError::Pacs {
            name: pacs.name.clone(),
            error,
        })?;
        sources.push(Arc::new(Source {
            database: database.clone(),
            ingest: ingest.clone(),
            pacs,
            client,
        }));
    }
    for source in sources {
        if source.pacs.poll {
            loops.spawn(look_loop(Arc::clone(&source), end.clone()));
        }
        loops.spawn(fetch::fetch_loop(source, end.clone()));
    }
    while loops.join_next().await.is_some() {}
    Ok(())
}

async fn look_loop(source: Arc<Source>, end: CancellationToken) {
    let interval = Duration::from_secs(source.pacs.poll_interval_seconds.max(1));
    loop {
        // Replicas that ask at the same time must not count as two answers; half an interval parts one round from the next.
        match look(
            &source.database,
            &source.client,
            &source.pacs,
            interval.as_secs_f64() / 2.0,
        )
        .await
        {
            Ok(looked) => tracing::debug!(pacs = source.pacs.name, ?looked, "asked a PACS for series"),
            Err(error) => tracing::warn!(pacs = source.pacs.name, %error, "a PACS cannot be asked now"),
        }
        if !wait(&end, interval).await {
            return;
        }
    }
}

/// What a user may wish for without naming it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Every CT series of the study of this UID.
    Study(&'a str),
    /// The CT series of this UID, in whichever study it is.
    Series(&'a str),
}

/// A user's wish: the CT series that a PACS has of it are retrieved as soon as may be. The rows of their retrievals; none: the PACS has no such series.
///
/// # Errors
/// A PACS that cannot be asked, or the database.
pub async fn request(
    database: &Database,
    client: &Client,
    wanted: Wanted<'_>,
    priority: i16,
    actor: &str,
) -> Result<Vec<i64>, PollError> {
    let (study_uid, series_uid) = match wanted {
        Wanted::Study(uid) => (Some(uid.to_owned()), None),
        Wanted::Series(uid) => (None, Some(uid.to_owned())),
    };
    let filters = SeriesFilters {
        study_uid,
        series_uid,
        modality: Some("CT".into()),
        ..SeriesFilters::default()
    };
    let listed = look::all_series(client, &filters)
        .await
        .map_err(|error| PollError::Pacs {
            name: client.name().to_owned(),
            error,
        })?;
    let mut rows = Vec::new();
    for one in listed {
        let id = database
            .request_retrieval(client.name(), &one.study_uid, &one.series_uid, priority, actor)
            .await?;
        rows.push(id);
    }
    Ok(rows)
}

/// Waits; false when it is time to end.
async fn wait(end: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        () = end.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}
