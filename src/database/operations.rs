//! What users do: cancel, try again, deliver again, close a series, pause, submit. Each is one transaction that also says who did it.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::delivery::tell_deliverers;
use super::jobs::tell_workers;
use super::{Database, DatabaseError, JobSpecification, NewEvent, append};

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operated {
    /// It is done.
    Done,
    /// It is asked for and will be done: a running job ends within one window of the network.
    Asked,
    /// There is no such job or series.
    Unknown,
    /// Its state, which is named, does not allow it.
    WrongState(String),
    /// The series has changed since: other slices make another job.
    SeriesChanged,
    /// Retention removed what it needs.
    Removed,
    /// The job has nothing that could be delivered.
    NoDeliveries,
}

/// What is asked to be segmented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The study.
    pub study_uid: String,
    /// One series of it; none: all of it.
    pub series_uid: Option<String>,
    /// Greater goes first.
    pub priority: i16,
}

/// What became of a wish for what was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wished {
    /// Jobs that exist already.
    pub jobs: Vec<Uuid>,
    /// Series that will get a job.
    pub series: Vec<i64>,
    /// Series whose slices retention removed.
    pub removed: Vec<i64>,
    /// Series that are no CT, and of which nothing was kept.
    pub ignored: Vec<i64>,
}

/// A job under lock, its series locked before it, as everyone locks them.
struct Locked {
    series_id: i64,
    state: String,
    current: bool,
}

async fn lock_job(connection: &mut PgConnection, id: Uuid) -> Result<Option<Locked>, DatabaseError> {
    let Some(series_id) = sqlx::query_scalar!("select series_id from job where id = $1", id)
        .fetch_optional(&mut *connection)
        .await?
    else {
        return Ok(None);
    };
    sqlx::query_scalar!("select id from series where id = $1 for update", series_id)
        .fetch_optional(&mut *connection)
        .await?;
    Ok(sqlx::query_as!(
        Locked,
        r#"select j.series_id, j.state::text as "state!",
            coalesce(s.revision = j.series_revision and s.state <> 'receiving', false) as "current!"
        from job j join series s on s.id = j.series_id where j.id = $1 for update of j"#,
        id
    )
    .fetch_optional(connection)
    .await?)
}

/// Whether bytes of a series are gone: folded, or taken from their batch.
async fn slices_removed(connection: &mut PgConnection, series_id: i64) -> Result<bool, DatabaseError> {
    Ok(sqlx::query_scalar!(
        r#"select (s.folded is not null
            or exists (select 1 from instance i where i.series_id = s.id and i.newest and i.batch_id is null)) as "removed!"
        from series s where s.id = $1"#,
        series_id
    )
    .fetch_optional(connection)
    .await?
    .unwrap_or(true))
}

fn of_job<'a>(kind: &'a str, job: &Locked, id: Uuid, actor: &'a str) -> NewEvent<'a> {
    NewEvent {
        kind,
        series_id: Some(job.series_id),
        job_id: Some(id),
        actor,
        detail: json!({ "from": job.state }),
        ..NewEvent::default()
    }
}

impl Database {
    /// The studies that hold a series of this UID here, newest first; more than one where a UID was used twice. At most `most`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn studies_of_series(&self, series_uid: &str, most: i64) -> Result<Vec<String>, DatabaseError> {
        Ok(sqlx::query_scalar!(
            "select study_uid from series where series_uid = $1 order by id desc limit $2",
            series_uid,
            most
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Cancels a job: at once where it waits; where it runs, its worker is asked to stop.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn cancel_job(&self, id: Uuid, actor: &str) -> Result<Operated, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let Some(job) = lock_job(&mut transaction, id).await? else {
            return Ok(Operated::Unknown);
        };
        let operated = match job.state.as_str() {
            "queued" => {
                sqlx::query!(
                    "update job set state = 'canceled', cancel_requested = true, finished_at = now() where id = $1",
                    id
                )
                .execute(&mut *transaction)
                .await?;
                append(&mut transaction, of_job("job_canceled", &job, id, actor)).await?;
                Operated::Done
            }
            "running" => {
                sqlx::query!("update job set cancel_requested = true where id = $1", id)
                    .execute(&mut *transaction)
                    .await?;
                append(&mut transaction, of_job("job_cancel_requested", &job, id, actor)).await?;
                tell_workers(&mut transaction).await?;
                Operated::Asked
            }
            other => return Ok(Operated::WrongState(other.to_owned())),
        };
        transaction.commit().await?;
        Ok(operated)
    }

    /// Puts a failed, refused or canceled job back into the queue, with all its attempts before it: what a limit refused may be taken after that limit was raised.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retry_job(&self, id: Uuid, actor: &str) -> Result<Operated, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let Some(job) = lock_job(&mut transaction, id).await? else {
            return Ok(Operated::Unknown);
        };
        if !["failed", "refused", "canceled"].contains(&job.state.as_str()) {
            return Ok(Operated::WrongState(job.state));
        }
        if !job.current {
            return Ok(Operated::SeriesChanged);
        }
        if slices_removed(&mut transaction, job.series_id).await? {
            return Ok(Operated::Removed);
        }
        sqlx::query!(
            "update job set state = 'queued', queued_again_at = now(), attempts = 0, deaths = 0, alone = false, cancel_requested = false, not_before = now(),
                stage = null, windows_done = 0, windows_total = 0, progress_at = null, worker = null, lease_until = null,
                error_code = null, error_sentence = null, started_at = null, finished_at = null where id = $1",
            id
        )
        .execute(&mut *transaction)
        .await?;
        append(&mut transaction, of_job("job_retried", &job, id, actor)).await?;
        transaction.commit().await?;
        Ok(Operated::Done)
    }

    /// Sends the results of a finished job once more. Every delivery that nobody is sending at this moment waits for its turn from now on, whether it was made, given up,
    /// withdrawn, or waited for its next attempt; the time after which it is given up begins anew. Destinations are decided on anew as well, so that a PACS which was configured
    /// since gets the results too.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn redeliver_job(&self, id: Uuid, actor: &str) -> Result<Operated, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let Some(job) = lock_job(&mut transaction, id).await? else {
            return Ok(Operated::Unknown);
        };
        if job.state != "done" {
            return Ok(Operated::WrongState(job.state));
        }
        let something = sqlx::query_scalar!(
            r#"select (segmentation_uid is not null or exists (select from delivery where job_id = $1)) as "something!" from job where id = $1"#,
            id
        )
        .fetch_one(&mut *transaction)
        .await?;
        if !something {
            return Ok(Operated::NoDeliveries);
        }
        sqlx::query!("update job set deliveries_planned = false where id = $1", id)
            .execute(&mut *transaction)
            .await?;
        // One that is being sent keeps its sender; where that fails, it has all its time before it.
        sqlx::query!(
            "update delivery set wanted_at = now() where job_id = $1 and state = 'sending'",
            id
        )
        .execute(&mut *transaction)
        .await?;
        let again = sqlx::query!(
            r#"update delivery set state = 'pending', attempts = 0, not_before = now(), wanted_at = now(), delivered_at = null, error = null,
                   worker = null, lease_until = null
               from (select id, state::text as state from delivery where job_id = $1 and state <> 'sending' for update) as before
               where delivery.id = before.id returning delivery.id, destination, before.state as "before!""#,
            id
        )
        .fetch_all(&mut *transaction)
        .await?;
        let requested = NewEvent {
            detail: json!({ "deliveries": again.len() }),
            ..of_job("delivery_requested", &job, id, actor)
        };
        append(&mut transaction, requested).await?;
        for delivery in again {
            let event = NewEvent {
                delivery_id: Some(delivery.id),
                detail: json!({ "destination": delivery.destination, "from": delivery.before }),
                ..of_job("delivery_redelivered", &job, id, actor)
            };
            append(&mut transaction, event).await?;
        }
        tell_deliverers(&mut transaction).await?;
        transaction.commit().await?;
        Ok(Operated::Asked)
    }

    /// Stops or goes on to begin jobs, in every process on this database.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_paused(&self, paused: bool, actor: &str) -> Result<(), DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let changed = sqlx::query!("update service set paused = $1 where paused <> $1", paused)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if changed > 0 {
            let event = NewEvent {
                kind: if paused { "queue_paused" } else { "queue_resumed" },
                actor,
                ..NewEvent::default()
            };
            append(&mut transaction, event).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Wishes for what was received: a job that exists for the series as it stands with this specification (`None`: with any) is named, every other series is settled again, so
    /// that it gets one; but for those of which nothing was kept, as of our own segmentations that a PACS forwarded.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn wish_for_received(
        &self,
        wish: &Wish,
        specification: Option<&JobSpecification>,
        actor: &str,
    ) -> Result<Wished, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let rows = match &wish.series_uid {
            Some(series_uid) => {
                sqlx::query_scalar!(
                    "select id from series where study_uid = $1 and series_uid = $2 for update",
                    wish.study_uid,
                    series_uid
                )
                .fetch_all(&mut *transaction)
                .await?
            }
            None => {
                sqlx::query_scalar!(
                    "select id from series where study_uid = $1 order by id for update",
                    wish.study_uid
                )
                .fetch_all(&mut *transaction)
                .await?
            }
        };
        let mut wished = Wished::default();
        for id in rows {
            let jobs = sqlx::query!(
                "select j.id, j.model_digest, j.parameters_digest, j.pipeline_revision from job j join series s on s.id = j.series_id
                where s.id = $1 and j.series_revision = s.revision and s.state <> 'receiving' and j.state <> 'superseded'
                order by coalesce(j.queued_again_at, j.created_at) desc, j.id desc",
                id
            )
            .fetch_all(&mut *transaction)
            .await?;
            let job = jobs.into_iter().find(|job| {
                specification.is_none_or(|present| {
                    present.model_digest == job.model_digest
                        && present.parameters_digest == job.parameters_digest
                        && present.pipeline_revision == job.pipeline_revision
                })
            });
            if let Some(job) = job {
                wished.jobs.push(job.id);
                continue;
            }
            let series = sqlx::query!(
                r#"select state in ('receiving', 'settled') as "open!", state = 'ignored' and instances = 0 as "nothing_kept!" from series where id = $1"#,
                id
            )
            .fetch_one(&mut *transaction)
            .await?;
            if series.nothing_kept {
                wished.ignored.push(id);
                continue;
            }
            if !series.open && slices_removed(&mut transaction, id).await? {
                wished.removed.push(id);
                continue;
            }
            sqlx::query!(
                "update series set priority = $2, state = case when state = 'receiving' then state else 'settled' end,
                    settled_at = case when state = 'receiving' then settled_at else now() end,
                    finding_code = null, finding_sentence = null where id = $1",
                id,
                wish.priority
            )
            .execute(&mut *transaction)
            .await?;
            let event = NewEvent {
                kind: "series_submitted",
                series_id: Some(id),
                actor,
                detail: json!({ "priority": wish.priority }),
                ..NewEvent::default()
            };
            append(&mut transaction, event).await?;
            wished.series.push(id);
        }
        transaction.commit().await?;
        Ok(wished)
    }
}
