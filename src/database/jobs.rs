//! Jobs come into being: settled series become queued jobs, and jobs of series that grew are superseded.

use serde_json::json;
use uuid::Uuid;

use super::delivery::{MORE_SLICES, withdraw_deliveries};
use super::events::{NewEvent, append};
use super::{Database, DatabaseError};

/// What a job is made with: the same series revision with the same specification is the same job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpecification {
    /// Name of the network.
    pub model: String,
    /// Digest of its weights.
    pub model_digest: String,
    /// Digest of everything else that can change a mask.
    pub parameters_digest: String,
    /// Goes up with every change to Hilum that can change a mask.
    pub pipeline_revision: i32,
}

/// A job that was made, or found, for a settled series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeJob {
    /// The job.
    pub id: Uuid,
    /// The series.
    pub series_id: i64,
    /// Whether it is new; otherwise the same had been asked for before.
    pub new: bool,
}

/// Who makes jobs, in events.
const ACTOR: &str = "jobs";
/// Why a job whose slices are the present ones is superseded.
const OTHER_NETWORK: &str = "another network or other parameters were wished for";

impl Database {
    /// Takes the series that has been settled for longest and makes its job, or finds the one that it has. A new job supersedes what is queued or running for the
    /// series, and names the latest job of the series as its predecessor, whether that had other slices or another specification.
    ///
    /// Returns `None` when no series is settled.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn make_job(&self, specification: &JobSpecification) -> Result<Option<MadeJob>, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let Some(series) = sqlx::query!(
            r#"update series set state = 'taken'
               where id = (select id from series where state = 'settled' order by settled_at, id for update skip locked limit 1)
               returning id, priority, coalesce(revision, ''::bytea) as "revision!""#
        )
        .fetch_optional(&mut *transaction)
        .await?
        else {
            return Ok(None);
        };
        let predecessor = sqlx::query_scalar!(
            "select id from job where series_id = $1 order by coalesce(queued_again_at, created_at) desc, id desc limit 1",
            series.id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let id = Uuid::now_v7();
        let new = sqlx::query_scalar!(
            "insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, priority, predecessor)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (series_id, series_revision, model_digest, parameters_digest, pipeline_revision) do nothing
             returning id",
            id,
            series.id,
            series.revision,
            specification.model,
            specification.model_digest,
            specification.parameters_digest,
            specification.pipeline_revision,
            series.priority,
            predecessor
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let made = match new {
            Some(id) => MadeJob {
                id,
                series_id: series.id,
                new: true,
            },
            None => MadeJob {
                id: wake_existing(&mut transaction, series.id, &series.revision, specification).await?,
                series_id: series.id,
                new: false,
            },
        };
        if made.new {
            let event = NewEvent {
                kind: "job_queued",
                series_id: Some(series.id),
                job_id: Some(made.id),
                actor: ACTOR,
                detail: json!({ "model": specification.model, "predecessor": predecessor }),
                ..NewEvent::default()
            };
            append(&mut transaction, event).await?;
        }
        supersede(&mut transaction, series.id, Some(made.id)).await?;
        sqlx::query!("select pg_notify('hilum_job', '')")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Some(made))
    }

    /// Supersedes queued and running jobs whose series receives slices again. Returns how many there were.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn supersede_reopened(&self) -> Result<usize, DatabaseError> {
        let reopened = sqlx::query_scalar!(
            "select distinct job.series_id from job join series on series.id = job.series_id
             where job.state in ('queued', 'running') and series.state = 'receiving'"
        )
        .fetch_all(self.pool())
        .await?;
        let mut superseded = 0;
        for series_id in reopened {
            let mut transaction = self.pool().begin().await?;
            // The row is held so that the series cannot settle in between.
            let state = sqlx::query_scalar!(
                r#"select state::text as "state!" from series where id = $1 for update"#,
                series_id
            )
            .fetch_optional(&mut *transaction)
            .await?;
            if state.as_deref() == Some("receiving") {
                superseded += supersede(&mut transaction, series_id, None).await?;
            }
            transaction.commit().await?;
        }
        Ok(superseded)
    }
}

/// The job that the same series revision and specification have already; one that was superseded is queued again, since its revision is the present one.
async fn wake_existing(
    transaction: &mut sqlx::PgConnection,
    series_id: i64,
    revision: &[u8],
    specification: &JobSpecification,
) -> Result<Uuid, DatabaseError> {
    let existing = sqlx::query!(
        r#"select id, state::text as "state!" from job
           where series_id = $1 and series_revision = $2 and model_digest = $3 and parameters_digest = $4 and pipeline_revision = $5
           for update"#,
        series_id,
        revision,
        specification.model_digest,
        specification.parameters_digest,
        specification.pipeline_revision
    )
    .fetch_one(&mut *transaction)
    .await?;
    let superseded = existing.state == "superseded";
    if superseded {
        sqlx::query!(
            "update job set state = 'queued', queued_again_at = now(), token = token + 1, attempts = 0, not_before = now(), finished_at = null,
                            cancel_requested = false, stage = null, windows_done = 0, windows_total = 0, error_code = null, error_sentence = null
             where id = $1",
            existing.id
        )
        .execute(&mut *transaction)
        .await?;
    }
    let (kind, detail) = if superseded {
        (
            "job_queued",
            json!({ "again": "its slices are the present ones again" }),
        )
    } else {
        ("job_found", json!({ "state": existing.state }))
    };
    let event = NewEvent {
        kind,
        series_id: Some(series_id),
        job_id: Some(existing.id),
        actor: ACTOR,
        detail,
        ..NewEvent::default()
    };
    append(transaction, event).await?;
    Ok(existing.id)
}

/// Supersedes the queued and running jobs of a series but for one, and withdraws their deliveries; each event names the successor where there is one by now.
pub(super) async fn supersede(
    transaction: &mut sqlx::PgConnection,
    series_id: i64,
    but: Option<Uuid>,
) -> Result<usize, DatabaseError> {
    let gone = sqlx::query!(
        r#"update job set state = 'superseded', token = token + 1, lease_until = null, finished_at = now()
         where series_id = $1 and state in ('queued', 'running') and id is distinct from $2
         returning id, coalesce(series_revision = (select revision from series where series.id = $1), false) as "same_slices!""#,
        series_id,
        but
    )
    .fetch_all(&mut *transaction)
    .await?;
    for job in &gone {
        withdraw_deliveries(&mut *transaction, job.id, but, ACTOR).await?;
        // A series that was opened again gets its new revision only when it settles.
        let why = if but.is_some() && job.same_slices {
            OTHER_NETWORK
        } else {
            MORE_SLICES
        };
        let event = NewEvent {
            kind: "job_superseded",
            series_id: Some(series_id),
            job_id: Some(job.id),
            actor: ACTOR,
            detail: json!({ "successor": but, "why": why }),
            ..NewEvent::default()
        };
        append(transaction, event).await?;
    }
    if !gone.is_empty() {
        tell_workers(transaction).await?;
    }
    Ok(gone.len())
}

/// Tells the workers that a job which one of them may hold is to be stopped, once this transaction is through.
pub(super) async fn tell_workers(connection: &mut sqlx::PgConnection) -> Result<(), DatabaseError> {
    sqlx::query!("select pg_notify('hilum_stop', '')")
        .execute(connection)
        .await?;
    Ok(())
}
