//! Series that are to be retrieved from a PACS: found by asking it, or wished for by a user.

use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Database, DatabaseError, NewEvent, append};

/// Every state of a retrieval.
pub const RETRIEVAL_STATES: [&str; 5] = ["seen", "pending", "running", "done", "failed"];

/// Where a retrieval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "retrieval_state", rename_all = "snake_case")]
pub enum RetrievalState {
    /// It waits until its count is the same in two answers.
    Seen,
    /// It waits for its turn.
    Pending,
    /// It is being fetched.
    Running,
    /// It was fetched, or need not be.
    Done,
    /// It cannot be fetched.
    Failed,
}

/// A retrieval in somebody's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedRetrieval {
    /// Its row.
    pub id: i64,
    /// Name of the `[[pacs]]` block.
    pub pacs: String,
    /// StudyInstanceUID; empty: the PACS is to be asked for it.
    pub study_uid: String,
    /// SeriesInstanceUID; empty: every CT series of the study.
    pub series_uid: String,
    /// Higher goes first.
    pub priority: i16,
    /// Instances that it had when it was asked for; `None`: not known.
    pub count: Option<i32>,
    /// The fencing token.
    pub token: i64,
    /// Attempts, this one included.
    pub attempts: i32,
    /// Attempts in a row before this one in which what answered had not what was asked for.
    pub absent: i32,
}

/// A retrieval, as it is shown.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the columns of the table `retrieval`, explained in the migration"
)]
pub struct RetrievalRow {
    pub id: i64,
    pub pacs: String,
    pub study_uid: String,
    pub series_uid: String,
    pub state: RetrievalState,
    pub count: Option<i32>,
    pub priority: i16,
    pub attempts: i32,
    pub not_before: OffsetDateTime,
    pub error: Option<String>,
    pub actor: String,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

impl RetrievalState {
    /// As it stands in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RetrievalState::Seen => "seen",
            RetrievalState::Pending => "pending",
            RetrievalState::Running => "running",
            RetrievalState::Done => "done",
            RetrievalState::Failed => "failed",
        }
    }
}

/// How an attempt to retrieve failed.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrievalFault<'a> {
    /// Why, without secrets.
    pub error: &'a str,
    /// What answered had not what was asked for.
    pub absent: bool,
    /// Seconds until the next attempt; `None`: there is none.
    pub wait_seconds: Option<f64>,
}

/// The columns of `RetrievalRow`, and what a statement does with them.
macro_rules! retrievals {
    ($tail:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            RetrievalRow,
            r#"select id, pacs, study_uid, series_uid, state as "state: RetrievalState", count, priority, attempts, not_before, error, actor,
                   created_at, finished_at
               from retrieval "#
                + $tail,
            $($argument),+
        )
    };
}

impl Database {
    /// A user's wish: a series (of a study that is not known, where `study_uid` is empty), or all CT series of a study (an empty `series_uid`), is retrieved as soon as may be, whatever is held of it. Its row.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn request_retrieval(
        &self,
        pacs: &str,
        study_uid: &str,
        series_uid: &str,
        priority: i16,
        actor: &str,
    ) -> Result<i64, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let id = sqlx::query_scalar!(
            "insert into retrieval (pacs, study_uid, series_uid, state, priority, actor) values ($1, $2, $3, 'pending', $4, $5)
             on conflict (pacs, study_uid, series_uid) do update set priority = greatest(retrieval.priority, excluded.priority),
                 state = case when retrieval.state = 'running' then 'running' else 'pending' end::retrieval_state,
                 not_before = now(), actor = excluded.actor, finished_at = null,
                 attempts = case when retrieval.state = 'running' then retrieval.attempts else 0 end, absent = 0,
                 error = case when retrieval.state = 'running' then retrieval.error end
             returning id",
            pacs,
            study_uid,
            series_uid,
            priority,
            actor
        )
        .fetch_one(&mut *transaction)
        .await?;
        let detail = json!({"retrieval": id, "priority": priority});
        tell(
            &mut transaction,
            "retrieval_requested",
            &place(pacs, study_uid, series_uid),
            actor,
            detail,
        )
        .await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// One retrieval, as it stands.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retrieval(&self, id: i64) -> Result<Option<RetrievalRow>, DatabaseError> {
        Ok(retrievals!("where id = $1", id).fetch_optional(self.pool()).await?)
    }

    /// A page of retrievals, newest first: those whose id is below `before`, of one state where one is given, at most `limit`.
    ///
    /// # Errors
    /// Those of the database; a state that is none of [`RETRIEVAL_STATES`].
    pub async fn retrievals(
        &self,
        state: Option<&str>,
        before: i64,
        limit: i64,
    ) -> Result<Vec<RetrievalRow>, DatabaseError> {
        let rows = match state {
            None => {
                retrievals!("where id < $1 order by id desc limit $2", before, limit)
                    .fetch_all(self.pool())
                    .await?
            }
            Some(state) => {
                // Of a state that is equal to one, the planner would walk the primary key, and look for the few that failed among all.
                retrievals!(
                    "where state between $3::text::retrieval_state and $3::text::retrieval_state and id < $1
                    order by state, id desc limit $2",
                    before,
                    limit,
                    state
                )
                .fetch_all(self.pool())
                .await?
            }
        };
        Ok(rows)
    }

    /// Takes a retrieval from this PACS that is due, or whose worker lost its lease, into somebody's hands.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn claim_retrieval(
        &self,
        pacs: &str,
        lease_seconds: f64,
        actor: &str,
    ) -> Result<Option<ClaimedRetrieval>, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let lapsed = sqlx::query!(
            "update retrieval set state = 'pending', token = token + 1, lease_until = null, not_before = now()
             where id in (select id from retrieval where state = 'running' and lease_until < now() and pacs = $1
                          order by id limit 8 for update skip locked)
             returning study_uid, series_uid",
            pacs
        )
        .fetch_all(&mut *transaction)
        .await?;
        for row in lapsed {
            let place = place(pacs, &row.study_uid, &row.series_uid);
            tell(&mut transaction, "retrieval_lease_lost", &place, actor, json!({})).await?;
        }
        let claimed = sqlx::query_as!(
            ClaimedRetrieval,
            "update retrieval set state = 'running', token = token + 1, attempts = attempts + 1,
                 lease_until = now() + make_interval(secs => $2)
             where id = (select id from retrieval where state = 'pending' and not_before <= now() and pacs = $1
                         order by priority desc, not_before limit 1 for update skip locked)
             returning id, pacs, study_uid, series_uid, count, priority, token, attempts, absent",
            pacs,
            lease_seconds
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(one) = &claimed {
            let detail = json!({"count": one.count, "attempt": one.attempts});
            tell(&mut transaction, "retrieval_running", &of(one), actor, detail).await?;
        }
        transaction.commit().await?;
        Ok(claimed)
    }

    /// Renews the lease of a retrieval. False: it was lost.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn renew_retrieval(&self, claimed: &ClaimedRetrieval, lease_seconds: f64) -> Result<bool, DatabaseError> {
        let renewed = sqlx::query!(
            "update retrieval set lease_until = now() + make_interval(secs => $3) where id = $1 and token = $2 and state = 'running'",
            claimed.id,
            claimed.token,
            lease_seconds
        )
        .execute(self.pool())
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Hands the priority of a retrieval on to its series, whose jobs begin with it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn pass_priority_on(&self, claimed: &ClaimedRetrieval, series_id: i64) -> Result<(), DatabaseError> {
        sqlx::query!(
            "update series set priority = greatest(series.priority, retrieval.priority) from retrieval
             where series.id = $1 and retrieval.id = $2 and series.priority < retrieval.priority",
            series_id,
            claimed.id
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Settles a series again that had its job before and was fetched whole: where the network changed since, it gets a new job, else it keeps the one that it has.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn settle_fetched(&self, series_id: i64, actor: &str) -> Result<(), DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let settled = sqlx::query!(
            "update series set state = 'settled', settled_at = now() where id = $1 and state = 'taken'
                 and not exists (select from instance where series_id = $1 and newest and batch_id is null)",
            series_id
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if settled > 0 {
            let event = NewEvent {
                kind: "series_submitted",
                series_id: Some(series_id),
                actor,
                detail: json!({ "by": "retrieval" }),
                ..NewEvent::default()
            };
            append(&mut transaction, event).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Notes that a series was retrieved whole. False: the lease was lost, nothing is changed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retrieved(&self, claimed: &ClaimedRetrieval, count: u32, actor: &str) -> Result<bool, DatabaseError> {
        let count = clamped(count);
        let mut transaction = self.pool().begin().await?;
        let done = sqlx::query!(
            "update retrieval set state = 'done', count = $3, count_since = case when count = $3 then coalesce(count_since, now()) else now() end,
                 error = null, lease_until = null, finished_at = now()
             where id = $1 and token = $2 and state = 'running'",
            claimed.id,
            claimed.token,
            count
        )
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        tell(
            &mut transaction,
            "retrieval_done",
            &of(claimed),
            actor,
            json!({"count": count}),
        )
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes that an attempt failed. False: the lease was lost, nothing is changed.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retrieval_failed(
        &self,
        claimed: &ClaimedRetrieval,
        fault: &RetrievalFault<'_>,
        actor: &str,
    ) -> Result<bool, DatabaseError> {
        let again = fault.wait_seconds.is_some();
        let mut transaction = self.pool().begin().await?;
        let noted = sqlx::query!(
            "update retrieval set state = case when $5 then 'pending' else 'failed' end::retrieval_state, error = $3, lease_until = null,
                 not_before = now() + make_interval(secs => $4), finished_at = case when $5 then null else now() end,
                 absent = case when $6 then absent + 1 else 0 end
             where id = $1 and token = $2 and state = 'running'",
            claimed.id,
            claimed.token,
            fault.error,
            fault.wait_seconds.unwrap_or(0.0),
            again,
            fault.absent
        )
        .execute(&mut *transaction)
        .await?;
        if noted.rows_affected() == 0 {
            return Ok(false);
        }
        let kind = if again { "retrieval_put_off" } else { "retrieval_failed" };
        let detail = json!({"attempt": claimed.attempts, "error": fault.error});
        tell(&mut transaction, kind, &of(claimed), actor, detail).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// PACS, study and series.
pub(super) type Place<'a> = [&'a str; 3];

/// Where a retrieval takes place.
pub(super) fn place<'a>(pacs: &'a str, study_uid: &'a str, series_uid: &'a str) -> Place<'a> {
    [pacs, study_uid, series_uid]
}

/// Where it takes place.
pub(super) fn of(claimed: &ClaimedRetrieval) -> Place<'_> {
    [&claimed.pacs, &claimed.study_uid, &claimed.series_uid]
}

/// An event of a retrieval, at its series where there is one by now.
pub(super) async fn tell(
    connection: &mut PgConnection,
    kind: &str,
    [pacs, study_uid, series_uid]: &Place<'_>,
    actor: &str,
    detail: Value,
) -> Result<(), DatabaseError> {
    let series_id = sqlx::query_scalar!(
        "select id from series where study_uid = $1 and series_uid = $2",
        study_uid,
        series_uid
    )
    .fetch_optional(&mut *connection)
    .await?;
    let mut whole = json!({"pacs": pacs, "study_uid": study_uid, "series_uid": series_uid});
    if let (Some(whole), Value::Object(detail)) = (whole.as_object_mut(), detail) {
        whole.extend(detail);
    }
    let event = NewEvent {
        kind,
        series_id,
        actor,
        detail: whole,
        ..NewEvent::default()
    };
    append(connection, event).await
}

/// As PostgreSQL counts: it has no unsigned numbers.
pub(super) fn clamped(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
