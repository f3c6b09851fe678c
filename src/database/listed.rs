//! Series that a PACS lists: which of them are worth a retrieval, and from when on.

use serde_json::json;

use super::retrieval::{ClaimedRetrieval, RetrievalState, clamped, of, place, tell};
use super::{Database, DatabaseError};

/// A series that a PACS lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSeries {
    /// StudyInstanceUID.
    pub study_uid: String,
    /// SeriesInstanceUID.
    pub series_uid: String,
    /// Instances that it has there.
    pub count: u32,
}

/// What the answer of a PACS to the question for the count of a retrieval comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It has said so for so long, in two answers: it is to be fetched.
    Stands,
    /// It was put off until it has.
    Waits,
    /// The lease was lost, nothing is changed.
    LeaseLost,
}

impl Database {
    /// Of the series that a PACS lists, those that are worth a look: not held with as many instances, and not retrieved, under way or failed with this count. So are those
    /// whose slices retention took before a late one came, since they were retrieved last: the PACS has them all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn not_yet_held(&self, pacs: &str, listed: &[ListedSeries]) -> Result<Vec<ListedSeries>, DatabaseError> {
        let (studies, series, counts) = columns(listed);
        let rows = sqlx::query_scalar!(
            r#"select listed.place as "place!" from unnest($2::text[], $3::text[], $4::integer[])
                   with ordinality as listed (study_uid, series_uid, count, place)
               left join series held on held.study_uid = listed.study_uid and held.series_uid = listed.series_uid
               left join retrieval on pacs = $1 and retrieval.study_uid = listed.study_uid and retrieval.series_uid = listed.series_uid
               cross join lateral (select coalesce(held.state = 'ignored' and held.finding_code = 'slices_removed', false) as removed) as slices
               where (coalesce(held.instances, -1) < listed.count or slices.removed)
                   and not coalesce(retrieval.state in ('pending', 'running')
                       or retrieval.state in ('done', 'failed') and retrieval.count >= listed.count
                           and not (retrieval.state = 'done' and slices.removed and held.last_instance_at > retrieval.finished_at), false)
               order by listed.place"#,
            pacs,
            &studies,
            &series,
            &counts
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows
            .into_iter()
            .filter_map(|place| listed.get(usize::try_from(place).ok()?.checked_sub(1)?).cloned())
            .collect())
    }

    /// Of these series, those whose instances are held, whatever their number.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn is_held(&self, study_uid: &str, series_uid: &str) -> Result<bool, DatabaseError> {
        Ok(sqlx::query_scalar!(
            r#"select exists (select from series where study_uid = $1 and series_uid = $2 and instances > 0) as "held!""#,
            study_uid,
            series_uid
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// Notes that a PACS lists a series with so many instances. Once it did so for `apart_seconds`, in two answers, the series is to be retrieved.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn series_seen(
        &self,
        pacs: &str,
        listed: &ListedSeries,
        apart_seconds: f64,
        actor: &str,
    ) -> Result<RetrievalState, DatabaseError> {
        let count = clamped(listed.count);
        let mut transaction = self.pool().begin().await?;
        let fresh = sqlx::query_scalar!(
            "insert into retrieval (pacs, study_uid, series_uid, count, count_since, actor) values ($1, $2, $3, $4, now(), $5)
             on conflict (pacs, study_uid, series_uid) do nothing returning id",
            pacs,
            listed.study_uid,
            listed.series_uid,
            count,
            actor
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let row = sqlx::query!(
            r#"select id, state as "state: RetrievalState", count,
                   coalesce(count_since <= now() - make_interval(secs => $4), false) as "long!",
                   exists (select from series where series.study_uid = $2 and series.series_uid = $3 and series.state = 'ignored'
                           and series.finding_code = 'slices_removed' and series.last_instance_at > retrieval.finished_at) as "lacks!"
               from retrieval where pacs = $1 and study_uid = $2 and series_uid = $3 for update"#,
            pacs,
            listed.study_uid,
            listed.series_uid,
            apart_seconds
        )
        .fetch_one(&mut *transaction)
        .await?;
        let grown = row.count.is_none_or(|known| known < count);
        let (state, kind) = match row.state {
            RetrievalState::Seen if fresh.is_some() => (RetrievalState::Seen, "retrieval_seen"),
            RetrievalState::Seen if row.count == Some(count) && row.long => {
                (RetrievalState::Pending, "retrieval_pending")
            }
            RetrievalState::Seen if row.count == Some(count) => return Ok(RetrievalState::Seen),
            RetrievalState::Seen => (RetrievalState::Seen, "retrieval_count_changed"),
            RetrievalState::Done | RetrievalState::Failed if grown => (RetrievalState::Seen, "retrieval_seen"),
            RetrievalState::Done if row.lacks => (RetrievalState::Seen, "retrieval_seen"),
            state => return Ok(state),
        };
        sqlx::query!(
            "update retrieval set state = $2, count = $3, count_since = case when count = $3 then count_since else now() end,
                 attempts = 0, absent = 0, not_before = now(), error = null, finished_at = null
             where id = $1",
            row.id,
            state as RetrievalState,
            count
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({"count": count, "before": row.count});
        tell(
            &mut transaction,
            kind,
            &place(pacs, &listed.study_uid, &listed.series_uid),
            actor,
            detail,
        )
        .await?;
        transaction.commit().await?;
        Ok(state)
    }

    /// Notes how many instances a PACS says that a claimed series has. Where it has not said so for `apart_seconds`, in two answers, the retrieval is put off until it may
    /// have, which is no attempt.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retrieval_counted(
        &self,
        claimed: &ClaimedRetrieval,
        count: u32,
        apart_seconds: f64,
        actor: &str,
    ) -> Result<Counted, DatabaseError> {
        let count = clamped(count);
        let mut transaction = self.pool().begin().await?;
        let stands = sqlx::query_scalar!(
            r#"update retrieval set count = $3, count_since = case when count = $3 then coalesce(count_since, now()) else now() end
               where id = $1 and token = $2 and state = 'running'
               returning count_since <= now() - make_interval(secs => $4) as "stands!""#,
            claimed.id,
            claimed.token,
            count,
            apart_seconds
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let counted = match stands {
            None => Counted::LeaseLost,
            Some(true) => Counted::Stands,
            Some(false) => {
                sqlx::query!(
                    "update retrieval set state = 'pending', lease_until = null, attempts = attempts - 1, error = null,
                         not_before = count_since + make_interval(secs => $2)
                     where id = $1",
                    claimed.id,
                    apart_seconds
                )
                .execute(&mut *transaction)
                .await?;
                let detail = json!({"count": count, "before": claimed.count});
                tell(&mut transaction, "retrieval_counted", &of(claimed), actor, detail).await?;
                Counted::Waits
            }
        };
        transaction.commit().await?;
        Ok(counted)
    }

    /// Notes that a listed series need not be retrieved with this count, and why.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn not_to_retrieve(
        &self,
        pacs: &str,
        listed: &ListedSeries,
        why: &str,
        actor: &str,
    ) -> Result<(), DatabaseError> {
        let count = clamped(listed.count);
        let mut transaction = self.pool().begin().await?;
        let changed = sqlx::query!(
            "insert into retrieval (pacs, study_uid, series_uid, state, count, count_since, actor, finished_at)
             values ($1, $2, $3, 'done', $4, now(), $5, now())
             on conflict (pacs, study_uid, series_uid) do update
                 set state = 'done', count = excluded.count, count_since = now(), error = null, finished_at = now()
                 where retrieval.state in ('seen', 'done', 'failed')",
            pacs,
            listed.study_uid,
            listed.series_uid,
            count,
            actor
        )
        .execute(&mut *transaction)
        .await?;
        if changed.rows_affected() == 1 {
            let detail = json!({"count": count, "why": why});
            tell(
                &mut transaction,
                "retrieval_not_needed",
                &place(pacs, &listed.study_uid, &listed.series_uid),
                actor,
                detail,
            )
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

fn columns(listed: &[ListedSeries]) -> (Vec<String>, Vec<String>, Vec<i32>) {
    (
        listed.iter().map(|one| one.study_uid.clone()).collect(),
        listed.iter().map(|one| one.series_uid.clone()).collect(),
        listed.iter().map(|one| clamped(one.count)).collect(),
    )
}
