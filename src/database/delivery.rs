//! Deliveries: which results go where, who is sending one, and what became of it.
//!
//! Every write of a sender names its fencing token: one that lost its lease changes nothing.

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Database, DatabaseError, NewEvent, append};

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "delivery_state", rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its turn.
    Pending,
    /// Somebody sends it.
    Sending,
    /// It was seen at its destination.
    Delivered,
    /// It failed for too long.
    GivenUp,
    /// It is no longer wanted.
    Withdrawn,
}

/// A finished job whose deliveries are to be decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct UnplannedJob {
    /// The job.
    pub id: Uuid,
    /// Its series.
    pub series_id: i64,
    /// The PACS that the series came from.
    pub source: Option<String>,
    /// Its report.
    pub report: Option<Value>,
    /// The folder of its results under the data folder.
    pub result_folder: Option<String>,
    /// SOP Instance UID of its segmentation.
    pub segmentation_uid: Option<String>,
}

/// An object that is to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDelivery {
    /// Name of the `[[pacs]]` block.
    pub destination: String,
    /// The file under the data folder.
    pub file: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
}

/// A delivery in somebody's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedDelivery {
    /// Its row.
    pub id: i64,
    /// Its job.
    pub job_id: Uuid,
    /// The series of the job.
    pub series_id: i64,
    /// The study that it belongs to.
    pub study_uid: String,
    /// Name of the `[[pacs]]` block.
    pub destination: String,
    /// The file under the data folder.
    pub file: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// The fencing token.
    pub token: i64,
    /// Attempts, this one included.
    pub attempts: i32,
}

impl Database {
    /// Finished jobs whose deliveries nobody has decided on, the oldest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unplanned_jobs(&self, most: i64) -> Result<Vec<UnplannedJob>, DatabaseError> {
        Ok(sqlx::query_as!(
            UnplannedJob,
            "select job.id, series_id, source, report, result_folder, segmentation_uid
             from job join series on series.id = series_id
             where job.state = 'done' and not deliveries_planned order by finished_at limit $1",
            most
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Makes the deliveries of a finished job, and says where nothing goes and why (`withheld`: destination, or null, to reason). What an earlier job of the series has not
    /// delivered to the same destination yet is withdrawn, so that nothing outdated follows. Where slices came to the series since, nothing goes of what is decided on for the
    /// first time: its mask is of a part of the series. False: somebody else did.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn plan_deliveries(
        &self,
        job: &UnplannedJob,
        planned: &[PlannedDelivery],
        withheld: &[Value],
        actor: &str,
    ) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        // Held, so that no slice comes to the series meanwhile. A user who wishes for the results of an older job gets them: that is not the first time.
        let outdated = sqlx::query_scalar!(
            r#"select job.withheld is null
                   and (series.state in ('receiving', 'ignored') or coalesce(series.revision <> job.series_revision, false)) as "outdated!"
               from series join job on job.series_id = series.id where job.id = $1 for share of series"#,
            job.id
        )
        .fetch_optional(&mut *transaction)
        .await?
        .unwrap_or(false);
        let late = |one: &PlannedDelivery| json!({"destination": one.destination, "why": MORE_SLICES_CODE});
        let (planned, withheld) = if outdated {
            let withheld = withheld.iter().cloned().chain(planned.iter().map(late)).collect();
            (&[][..], withheld)
        } else {
            (planned, withheld.to_vec())
        };
        let ours = sqlx::query!(
            "update job set deliveries_planned = true, withheld = $2 where id = $1 and state = 'done' and not deliveries_planned",
            job.id,
            Value::from(withheld.as_slice())
        )
        .execute(&mut *transaction)
        .await?;
        if ours.rows_affected() == 0 {
            return Ok(false);
        }
        let event = |kind: &'static str, delivery_id: Option<i64>, detail: Value| NewEvent {
            kind,
            series_id: Some(job.series_id),
            job_id: Some(job.id),
            delivery_id,
            actor,
            detail,
        };
        for one in planned {
            let id = sqlx::query_scalar!(
                "insert into delivery (job_id, destination, file, sop_class_uid, sop_instance_uid) values ($1, $2, $3, $4, $5)
                 on conflict (job_id, destination) do nothing returning id",
                job.id,
                one.destination,
                one.file,
                one.sop_class_uid,
                one.sop_instance_uid
            )
            .fetch_optional(&mut *transaction)
            .await?;
            if id.is_some() {
                let detail = json!({"destination": one.destination, "sop_instance_uid": one.sop_instance_uid});
                append(&mut transaction, event("delivery_planned", id, detail)).await?;
            }
        }
        if !planned.is_empty() {
            withdraw_outdated(&mut transaction, job.id, planned, actor).await?;
            tell_deliverers(&mut transaction).await?;
        }
        for detail in withheld {
            append(&mut transaction, event("delivery_withheld", None, detail)).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Takes a delivery that is due, or whose sender lost its lease, into the hands of a worker; none that goes to one of the destinations `but`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn claim_delivery(
        &self,
        worker: &str,
        lease_seconds: f64,
        but: &[String],
    ) -> Result<Option<ClaimedDelivery>, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let lapsed = sqlx::query!(
            "select delivery.id, job_id, series_id, delivery.worker from delivery join job on job.id = job_id
             where delivery.state = 'sending' and delivery.lease_until < now()
             order by delivery.id limit 8 for update of delivery skip locked"
        )
        .fetch_all(&mut *transaction)
        .await?;
        for one in lapsed {
            sqlx::query!(
                "update delivery set state = 'pending', token = token + 1, worker = null, lease_until = null, not_before = now() where id = $1",
                one.id
            )
            .execute(&mut *transaction)
            .await?;
            let event = NewEvent {
                kind: "delivery_lease_lost",
                series_id: Some(one.series_id),
                job_id: Some(one.job_id),
                delivery_id: Some(one.id),
                actor: worker,
                detail: json!({"worker": one.worker}),
            };
            append(&mut transaction, event).await?;
        }
        let claimed = sqlx::query_as!(
            ClaimedDelivery,
            "update delivery set state = 'sending', token = delivery.token + 1, worker = $1, attempts = delivery.attempts + 1,
                 lease_until = now() + make_interval(secs => $2)
             from job, series
             where delivery.id = (select id from delivery where state = 'pending' and not_before <= now() and destination <> all($3)
                                  order by not_before limit 1 for update skip locked)
                 and job.id = delivery.job_id and series.id = job.series_id
             returning delivery.id, delivery.job_id, job.series_id, series.study_uid, delivery.destination, delivery.file,
                 delivery.sop_instance_uid, delivery.token, delivery.attempts",
            worker,
            lease_seconds,
            but
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(one) = &claimed {
            let detail = json!({"destination": one.destination, "attempt": one.attempts});
            append(&mut transaction, of_claim("delivery_sending", one, worker, detail)).await?;
        }
        transaction.commit().await?;
        Ok(claimed)
    }

    /// Seconds until the next delivery that goes to none of the destinations `but` is due, or the lease of one that is being sent ends; less than 0 where that was already. `None`: there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn seconds_to_next_delivery(&self, but: &[String]) -> Result<Option<f64>, DatabaseError> {
        Ok(sqlx::query_scalar!(
            r#"select extract(epoch from least((select min(not_before) from delivery where state = 'pending' and destination <> all($1)),
                                               (select min(lease_until) from delivery where state = 'sending')) - now())::float8"#,
            but
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// Renews the lease of a delivery. False: it was lost.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn renew_delivery(&self, claimed: &ClaimedDelivery, lease_seconds: f64) -> Result<bool, DatabaseError> {
        let renewed = sqlx::query!(
            "update delivery set lease_until = now() + make_interval(secs => $3) where id = $1 and token = $2 and state = 'sending'",
            claimed.id,
            claimed.token,
            lease_seconds
        )
        .execute(self.pool())
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Notes that a delivery was seen at its destination. False: the lease was lost, nothing is changed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delivered(
        &self,
        claimed: &ClaimedDelivery,
        actor: &str,
        detail: Value,
    ) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let done = sqlx::query!(
            "update delivery set state = 'delivered', delivered_at = now(), error = null, worker = null, lease_until = null
             where id = $1 and token = $2 and state = 'sending'",
            claimed.id,
            claimed.token
        )
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut transaction, of_claim("delivery_delivered", claimed, actor, detail)).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes that an attempt failed: it is tried again after `wait_seconds`, or given up where it was tried for `give_up_hours`. `None`: the lease was lost.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delivery_failed(
        &self,
        claimed: &ClaimedDelivery,
        actor: &str,
        error: &str,
        wait_seconds: f64,
        give_up_hours: f64,
    ) -> Result<Option<DeliveryState>, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let state = sqlx::query_scalar!(
            r#"update delivery set error = $3, worker = null, lease_until = null, not_before = now() + make_interval(secs => $4),
                   state = case when wanted_at <= now() - make_interval(secs => $5) then 'given_up' else 'pending' end::delivery_state
               where id = $1 and token = $2 and state = 'sending' returning state as "state: DeliveryState""#,
            claimed.id,
            claimed.token,
            error,
            wait_seconds,
            give_up_hours * 3600.0
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(state) = state else {
            return Ok(None);
        };
        let kind = if state == DeliveryState::GivenUp {
            "delivery_given_up"
        } else {
            "delivery_failed"
        };
        let detail = json!({"destination": claimed.destination, "attempt": claimed.attempts, "error": error});
        append(&mut transaction, of_claim(kind, claimed, actor, detail)).await?;
        transaction.commit().await?;
        Ok(Some(state))
    }
}

/// Wakes those who plan and send, once this transaction is through.
pub(super) async fn tell_deliverers(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    sqlx::query!("select pg_notify('hilum_delivery', '')")
        .execute(connection)
        .await?;
    Ok(())
}

/// Why a job is superseded, and its deliveries are withdrawn.
pub(super) const MORE_SLICES: &str = "more slices came";
/// Why nothing of a job goes anywhere that ended before slices came, and was decided on after them.
const MORE_SLICES_CODE: &str = "more_slices_came";
/// Why the deliveries of a finished job are withdrawn.
const NEWER_RESULT: &str = "a later job of the series has a result for this destination";

/// Takes back the deliveries of a job that are not over, within the transaction that supersedes it. A sender at work loses its token. Each is told by an event of the job and
/// its series, which names the job that follows where there is one by now. How many there were.
///
/// # Errors
/// Those of the database.
pub async fn withdraw_deliveries(
    connection: &mut PgConnection,
    job_id: Uuid,
    successor: Option<Uuid>,
    actor: &str,
) -> Result<usize, DatabaseError> {
    let rows = sqlx::query!(
        "update delivery set state = 'withdrawn', token = delivery.token + 1, worker = null, lease_until = null
         from job where job.id = job_id and job_id = $1 and delivery.state in ('pending', 'sending')
         returning delivery.id, job.series_id, destination",
        job_id
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let event = NewEvent {
            kind: "delivery_withdrawn",
            series_id: Some(row.series_id),
            job_id: Some(job_id),
            delivery_id: Some(row.id),
            actor,
            detail: json!({"destination": row.destination, "successor": successor, "why": MORE_SLICES}),
        };
        append(&mut *connection, event).await?;
    }
    Ok(rows.len())
}

/// Takes back what the finished jobs of a series have not delivered yet, within the transaction that opens the series again: their masks are of a part of it, and what follows may be
/// refused or withheld. A sender at work loses its token.
pub(super) async fn withdraw_partial(
    connection: &mut PgConnection,
    series_id: i64,
    actor: &str,
) -> Result<(), DatabaseError> {
    let rows = sqlx::query!(
        "update delivery set state = 'withdrawn', token = delivery.token + 1, worker = null, lease_until = null
         from job where job.id = delivery.job_id and job.series_id = $1 and delivery.state in ('pending', 'sending')
         returning delivery.id, delivery.job_id, delivery.destination",
        series_id
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let event = NewEvent {
            kind: "delivery_withdrawn",
            series_id: Some(series_id),
            job_id: Some(row.job_id),
            delivery_id: Some(row.id),
            actor,
            detail: json!({"destination": row.destination, "successor": null, "why": MORE_SLICES}),
        };
        append(&mut *connection, event).await?;
    }
    Ok(())
}

/// Takes back the deliveries to these destinations, not over yet, of jobs of the same series before this one, within the transaction that makes those of this one.
async fn withdraw_outdated(
    connection: &mut PgConnection,
    job_id: Uuid,
    planned: &[PlannedDelivery],
    actor: &str,
) -> Result<(), DatabaseError> {
    let destinations: Vec<String> = planned.iter().map(|one| one.destination.clone()).collect();
    let rows = sqlx::query!(
        "update delivery set state = 'withdrawn', token = delivery.token + 1, worker = null, lease_until = null
         from job before, job present
         where present.id = $1 and before.series_id = present.series_id and before.id = delivery.job_id
             and (coalesce(before.queued_again_at, before.created_at), before.id) < (coalesce(present.queued_again_at, present.created_at), present.id)
             and delivery.state in ('pending', 'sending') and delivery.destination = any($2)
         returning delivery.id, delivery.job_id, before.series_id, delivery.destination",
        job_id,
        &destinations
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let event = NewEvent {
            kind: "delivery_withdrawn",
            series_id: Some(row.series_id),
            job_id: Some(row.job_id),
            delivery_id: Some(row.id),
            actor,
            detail: json!({"destination": row.destination, "successor": job_id, "why": NEWER_RESULT}),
        };
        append(&mut *connection, event).await?;
    }
    Ok(())
}

fn of_claim<'a>(kind: &'a str, claimed: &ClaimedDelivery, actor: &'a str, detail: Value) -> NewEvent<'a> {
    NewEvent {
        kind,
        series_id: Some(claimed.series_id),
        job_id: Some(claimed.job_id),
        delivery_id: Some(claimed.id),
        actor,
        detail,
    }
}
