//! The events as they happen: one watcher a process reads them and tells all who listen.
//!
//! Rows may commit in another order than their ids, so events are read in the order of (transaction, id), and never past the oldest transaction that still runs
//! (`pg_snapshot_xmin`): below it nothing is added any more, so that a reader who goes on from a place misses nothing. Notifications only wake the watcher; it also looks by itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::PgListener;
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Backoff, Database, DatabaseError, Failures};

/// The channel on which `append` notifies.
const CHANNEL: &str = "hilum_event";
/// Without a notification it looks so often.
const POLL: Duration = Duration::from_secs(1);
/// While events wait for an older transaction to end, it looks so often at first, and then less.
const POLL_BUSY: Duration = Duration::from_millis(50);
/// Events read at once.
const PAGE: i64 = 500;
/// What a listener may lag behind before it reads from the database again.
const BACKLOG: usize = 1024;

/// A place in the stream of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The transaction that appended it.
    pub transaction: u64,
    /// Its id.
    pub id: i64,
}

/// An event at its place.
#[derive(Clone, Debug)]
pub struct Event {
    /// Where it stands.
    pub place: Place,
    /// When its transaction began.
    pub at: OffsetDateTime,
    /// What happened.
    pub kind: String,
    /// The series concerned.
    pub series_id: Option<i64>,
    /// The job concerned.
    pub job_id: Option<Uuid>,
    /// The delivery concerned.
    pub delivery_id: Option<i64>,
    /// Who did it.
    pub actor: String,
    /// Why, and with what.
    pub detail: Value,
}

/// How far a running job is. It is no event: it is not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The job.
    pub job_id: Uuid,
    /// Its stage.
    pub stage: Option<String>,
    /// Windows of the network done.
    pub windows_done: i32,
    /// Windows of the network in all.
    pub windows_total: i32,
}

/// What a listener hears.
#[derive(Clone, Debug)]
pub enum Change {
    /// Something happened.
    Event(Arc<Event>),
    /// A running job is further on.
    Progress(Arc<Progress>),
}

struct Row {
    id: i64,
    transaction: String,
    at: OffsetDateTime,
    kind: String,
    series_id: Option<i64>,
    job_id: Option<Uuid>,
    delivery_id: Option<i64>,
    actor: String,
    detail: Value,
}

impl From<Row> for Event {
    fn from(row: Row) -> Event {
        Event {
            place: Place {
                // PostgreSQL prints an xid8 as a decimal number of 64 bits.
                transaction: row.transaction.parse().unwrap_or(0),
                id: row.id,
            },
            at: row.at,
            kind: row.kind,
            series_id: row.series_id,
            job_id: row.job_id,
            delivery_id: row.delivery_id,
            actor: row.actor,
            detail: row.detail,
        }
    }
}

impl Database {
    /// The events after a place, in their order, at most a page of them; of one job, or of all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_after(&self, place: Place, job: Option<Uuid>) -> Result<Vec<Event>, DatabaseError> {
        let transaction = place.transaction.to_string();
        let rows = match job {
            None => {
                sqlx::query_as!(
                    Row,
                    r#"select id, transaction::text as "transaction!", at, kind, series_id, job_id, delivery_id, actor, detail from event
                    where (transaction, id) > ($1::text::xid8, $2) and transaction < pg_snapshot_xmin(pg_current_snapshot())
                    order by transaction, id limit $3"#,
                    transaction,
                    place.id,
                    PAGE
                )
                .fetch_all(self.pool())
                .await?
            }
            Some(job) => {
                sqlx::query_as!(
                    Row,
                    r#"select id, transaction::text as "transaction!", at, kind, series_id, job_id, delivery_id, actor, detail from event
                    where job_id = $4 and (transaction, id) > ($1::text::xid8, $2) and transaction < pg_snapshot_xmin(pg_current_snapshot())
                    order by transaction, id limit $3"#,
                    transaction,
                    place.id,
                    PAGE,
                    job
                )
                .fetch_all(self.pool())
                .await?
            }
        };
        Ok(rows.into_iter().map(Event::from).collect())
    }

    /// The place of an event by its id; of the last event before it where that one is gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn place_of_event(&self, id: i64) -> Result<Place, DatabaseError> {
        let row = sqlx::query!(
            r#"select id, transaction::text as "transaction!" from event where id <= $1 order by id desc limit 1"#,
            id
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map_or_else(Place::default, |row| Place {
            transaction: row.transaction.parse().unwrap_or(0),
            id: row.id,
        }))
    }

    /// The place of the last event that may be shown.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn last_place(&self) -> Result<Place, DatabaseError> {
        let row = sqlx::query!(
            r#"select id, transaction::text as "transaction!" from event where transaction < pg_snapshot_xmin(pg_current_snapshot())
            order by transaction desc, id desc limit 1"#
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map_or_else(Place::default, |row| Place {
            transaction: row.transaction.parse().unwrap_or(0),
            id: row.id,
        }))
    }

    /// Whether events wait for an older transaction to end.
    async fn events_wait(&self) -> Result<bool, DatabaseError> {
        Ok(sqlx::query_scalar!(
            r#"select exists (select 1 from event where transaction >= pg_snapshot_xmin(pg_current_snapshot())) as "wait!""#
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// How far the running jobs are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn progress(&self) -> Result<Vec<Progress>, DatabaseError> {
        Ok(sqlx::query_as!(
            Progress,
            "select id as job_id, stage, windows_done, windows_total from job where state = 'running'"
        )
        .fetch_all(self.pool())
        .await?)
    }
}

/// Tells all who listen in this process what happens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watcher {
    sender: broadcast::Sender<Change>,
    end: CancellationToken,
}

impl Watcher {
    /// Begins to watch, until `end`. To be called within tokio.
    #[must_use]
    pub fn start(database: Database, end: CancellationToken) -> Watcher {
        let (sender, _) = broadcast::channel(BACKLOG);
        let watcher = Watcher {
            sender: sender.clone(),
            end: end.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = watch(&database, &sender) => {}
            }
        });
        watcher
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }

    /// Is cancelled when the process ends.
    #[must_use]
    pub fn end(&self) -> &CancellationToken {
        &self.end
    }
}

/// Watches for ever; after an error it begins again where it was.
async fn watch(database: &Database, sender: &broadcast::Sender<Change>) {
    let (mut place, mut failures) = (None, Failures::new(Backoff::DATABASE));
    loop {
        let Err(error) = watch_once(database, sender, &mut place, &mut failures).await;
        tracing::warn!(%error, "events are not watched for a moment");
        tokio::time::sleep(failures.wait()).await;
    }
}

async fn watch_once(
    database: &Database,
    sender: &broadcast::Sender<Change>,
    place: &mut Option<Place>,
    failures: &mut Failures,
) -> Result<std::convert::Infallible, DatabaseError> {
    let mut listener = PgListener::connect_with(database.pool()).await?;
    listener.listen(CHANNEL).await?;
    let mut here = match *place {
        Some(place) => place,
        None => database.last_place().await?,
    };
    failures.over();
    let mut shown: Vec<Progress> = Vec::new();
    let mut pause = POLL_BUSY;
    loop {
        *place = Some(here);
        loop {
            let events = database.events_after(here, None).await?;
            let Some(last) = events.last() else { break };
            pause = POLL_BUSY / 2;
            here = last.place;
            *place = Some(here);
            for event in events {
                // Nobody listens: that is no error.
                let _ = sender.send(Change::Event(Arc::new(event)));
            }
        }
        if sender.receiver_count() > 0 {
            let progress = database.progress().await?;
            for one in progress.iter().filter(|one| !shown.contains(one)) {
                let _ = sender.send(Change::Progress(Arc::new(one.clone())));
            }
            shown = progress;
        }
        pause = if database.events_wait().await? {
            (pause * 2).clamp(POLL_BUSY, POLL)
        } else {
            POLL
        };
        // What wakes it does not matter: a notification, a connection that was lost and is made again, or the time.
        if let Ok(notified) = tokio::time::timeout(pause, listener.recv()).await {
            notified?;
            pause = POLL_BUSY / 2;
            while listener.next_buffered().is_some() {}
        }
    }
}
