//! Jobs that wait while the network or its parameters change: whoever claims one makes it a job of what it runs with, so that its row never says that another network made
//! its result.

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::jobs::supersede;
use super::{Claim, Database, DatabaseError, JobSpecification, NewEvent, append};

/// Another job of the same slices, which has the specification that a claimed one would get.
struct Other {
    id: Uuid,
    /// It waits, runs or has a result. Otherwise it failed, was canceled or was superseded.
    stands: bool,
}

impl Database {
    /// The claim to work on where the worker runs with `specification`. Where its job was made with another one, by an older version or under other settings, the job becomes
    /// one of this specification, and its event `job_network_changed` names both. Where its slices have a job of this specification already, the claimed one is superseded by
    /// it: if it failed, was canceled or had been superseded, it is claimed in its place; if it waits, runs or has a result, there is nothing to do.
    ///
    /// Workers of several versions beside each other undo nothing of each other's: every call ends in work, or in one job less that waits.
    ///
    /// `None`: there is nothing to do, or the claim was lost meanwhile.
    ///
    /// # Errors
    /// Those of the database. The claim then runs out.
    pub async fn run_with(
        &self,
        claim: Claim,
        worker: &str,
        specification: &JobSpecification,
    ) -> Result<Option<Claim>, DatabaseError> {
        if claim.specification == *specification {
            return Ok(Some(claim));
        }
        let mut transaction = self.pool().begin().await?;
        // Locked before its jobs, as everyone locks them, so that no other job of it is made meanwhile.
        sqlx::query_scalar!("select id from series where id = $1 for update", claim.series_id)
            .fetch_optional(&mut *transaction)
            .await?;
        let held = sqlx::query_scalar!(
            "select series_revision from job where id = $1 and token = $2 and state = 'running' for update",
            claim.id,
            claim.token
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(revision) = held else {
            return Ok(None);
        };
        let other = sqlx::query_as!(
            Other,
            r#"select id, state not in ('failed', 'canceled', 'superseded') as "stands!" from job
               where series_id = $1 and series_revision = $2 and model_digest = $3 and parameters_digest = $4 and pipeline_revision = $5 and id <> $6
               for update"#,
            claim.series_id,
            revision,
            specification.model_digest,
            specification.parameters_digest,
            specification.pipeline_revision,
            claim.id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let now = match other {
            None => Some(change(&mut transaction, claim, worker, specification).await?),
            Some(Other { id, stands: true }) => {
                supersede(&mut transaction, claim.series_id, Some(id)).await?;
                None
            }
            Some(Other { id, stands: false }) => {
                Some(take_instead(&mut transaction, claim, id, worker, specification).await?)
            }
        };
        transaction.commit().await?;
        Ok(now)
    }
}

/// Makes the job of a claim, whose row is locked, one of this specification.
async fn change(
    connection: &mut PgConnection,
    claim: Claim,
    worker: &str,
    specification: &JobSpecification,
) -> Result<Claim, DatabaseError> {
    sqlx::query!(
        "update job set model = $2, model_digest = $3, parameters_digest = $4, pipeline_revision = $5 where id = $1",
        claim.id,
        specification.model,
        specification.model_digest,
        specification.parameters_digest,
        specification.pipeline_revision
    )
    .execute(&mut *connection)
    .await?;
    let event = NewEvent {
        kind: "job_network_changed",
        series_id: Some(claim.series_id),
        job_id: Some(claim.id),
        actor: worker,
        detail: json!({ "from": told(&claim.specification), "to": told(specification) }),
        ..NewEvent::default()
    };
    append(connection, event).await?;
    Ok(Claim {
        specification: specification.clone(),
        ..claim
    })
}

/// Claims another job of the same slices, whose row is locked, in place of this one, with its lease, its attempts and its deaths; this one is superseded.
async fn take_instead(
    connection: &mut PgConnection,
    claim: Claim,
    other: Uuid,
    worker: &str,
    specification: &JobSpecification,
) -> Result<Claim, DatabaseError> {
    let taken = sqlx::query!(
        "update job set state = 'running', token = job.token + 1, worker = $3, lease_until = claimed.lease_until, attempts = claimed.attempts,
                        deaths = claimed.deaths, alone = claimed.alone, priority = claimed.priority, queued_again_at = now(), started_at = now(),
                        progress_at = now(), finished_at = null, cancel_requested = claimed.cancel_requested, stage = null, windows_done = 0,
                        windows_total = 0, error_code = null, error_sentence = null
         from job claimed where job.id = $2 and claimed.id = $1
         returning job.token, job.predecessor",
        claim.id,
        other,
        worker
    )
    .fetch_one(&mut *connection)
    .await?;
    let event = NewEvent {
        kind: "job_started",
        series_id: Some(claim.series_id),
        job_id: Some(other),
        actor: worker,
        detail: json!({ "attempt": claim.attempt, "token": taken.token, "instead_of": claim.id }),
        ..NewEvent::default()
    };
    append(&mut *connection, event).await?;
    supersede(connection, claim.series_id, Some(other)).await?;
    Ok(Claim {
        id: other,
        token: taken.token,
        predecessor: taken.predecessor,
        specification: specification.clone(),
        ..claim
    })
}

fn told(specification: &JobSpecification) -> Value {
    json!({
        "model": specification.model,
        "model_digest": specification.model_digest,
        "parameters_digest": specification.parameters_digest,
        "pipeline_revision": specification.pipeline_revision,
    })
}
