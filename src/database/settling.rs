//! Series that are whole: who said so, and the revision that a job is made for.

use serde_json::json;
use sqlx::PgConnection;

use super::inbox::{SeriesState, SettledBy, revision, tell};
use super::{Database, DatabaseError};

/// A series that waits, and whose source can be asked for its count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToBeCounted {
    /// Its row.
    pub id: i64,
    /// StudyInstanceUID.
    pub study_uid: String,
    /// SeriesInstanceUID.
    pub series_uid: String,
    /// Name of the PACS.
    pub source: String,
}

impl Database {
    /// The series for which nothing came for so long, longest waiting first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn quiet_series(&self, quiet_seconds: f64, most: i64) -> Result<Vec<i64>, DatabaseError> {
        Ok(sqlx::query_scalar!(
            "select id from series where state = 'receiving' and last_instance_at < now() - make_interval(secs => $1)
             order by last_instance_at limit $2",
            quiet_seconds,
            most
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Notes that bytes of these series (study and series UID) are coming, so that those that wait do not settle by a quiet time. A row that somebody else has locked is passed
    /// over, since who waited for one while holding another could block an upload that is being recorded.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn still_coming(&self, studies: &[String], series: &[String]) -> Result<(), DatabaseError> {
        sqlx::query!(
            "update series set last_instance_at = now()
             where id in (select series.id from series
                          join unnest($1::text[], $2::text[]) as coming (study_uid, series_uid)
                              on coming.study_uid = series.study_uid and coming.series_uid = series.series_uid
                          where series.state = 'receiving' for update of series skip locked)",
            studies,
            series
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Settles a series if it still waits, and if nothing came for so long.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn settle_quiet(&self, series_id: i64, quiet_seconds: f64, actor: &str) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let waits = sqlx::query_scalar!(
            "select id from series where id = $1 and state = 'receiving' and last_instance_at < now() - make_interval(secs => $2) for update",
            series_id,
            quiet_seconds
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if waits.is_some() {
            settle_in(&mut transaction, series_id, SettledBy::Quiet, actor).await?;
        }
        transaction.commit().await?;
        Ok(waits.is_some())
    }

    /// The series that wait, came from one of these PACS, and were not asked for since so long.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn series_to_count(
        &self,
        sources: &[String],
        interval_seconds: f64,
        most: i64,
    ) -> Result<Vec<ToBeCounted>, DatabaseError> {
        Ok(sqlx::query_as!(
            ToBeCounted,
            r#"select id, study_uid, series_uid, source as "source!" from series
               where state = 'receiving' and source = any($1)
                   and (source_asked_at is null or source_asked_at <= now() - make_interval(secs => $2))
               order by source_asked_at nulls first limit $3"#,
            sources,
            interval_seconds,
            most
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Notes the answer of a source, `None` where it gave none, and settles the series if it has said for so long what is held.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count_answered(
        &self,
        series_id: i64,
        count: Option<u32>,
        interval_seconds: f64,
        actor: &str,
    ) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let count = count.map(|count| i32::try_from(count).unwrap_or(i32::MAX));
        let whole = sqlx::query_scalar!(
            r#"update series set source_asked_at = now(), source_count = coalesce($2, source_count),
                   source_count_since = case when $2 is null then source_count_since when source_count = $2 then source_count_since else now() end
               where id = $1 and state = 'receiving'
               returning coalesce($2 = instances and source_count_since <= now() - make_interval(secs => $3), false) as "whole!""#,
            series_id,
            count,
            interval_seconds
        )
        .fetch_optional(&mut *transaction)
        .await?
        .unwrap_or(false);
        if whole {
            settle_in(&mut transaction, series_id, SettledBy::Count, actor).await?;
        }
        transaction.commit().await?;
        Ok(whole)
    }

    /// Settles a series because a user says that it is whole. False: it does not wait.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn finalize_series(&self, series_id: i64, actor: &str) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let waits = sqlx::query_scalar!(
            "select id from series where id = $1 and state = 'receiving' for update",
            series_id
        )
        .fetch_optional(&mut *transaction)
        .await?
        .is_some();
        if waits {
            settle_in(&mut transaction, series_id, SettledBy::Finalize, actor).await?;
        }
        transaction.commit().await?;
        Ok(waits)
    }
}

/// Settles a series whose row is locked and receiving: its revision is that of its newest instances. A series of which bytes were removed cannot be worked
/// on; it is ignored with a finding until they come again.
pub(super) async fn settle_in(
    connection: &mut PgConnection,
    series_id: i64,
    by: SettledBy,
    actor: &str,
) -> Result<SeriesState, DatabaseError> {
    let rows = sqlx::query!(
        r#"select sop_instance_uid, digest, batch_id is null as "removed!" from instance
           where series_id = $1 and newest order by sop_instance_uid collate "C""#,
        series_id
    )
    .fetch_all(&mut *connection)
    .await?;
    let removed = rows.iter().filter(|row| row.removed).count();
    if removed > 0 {
        let sentence = format!(
            "{removed} of its {} slices were removed after an earlier job: send the whole series again.",
            rows.len()
        );
        sqlx::query!(
            "update series set state = 'ignored', finding_code = 'slices_removed', finding_sentence = $2 where id = $1",
            series_id,
            sentence
        )
        .execute(&mut *connection)
        .await?;
        let detail = json!({"code": "slices_removed", "removed": removed, "instances": rows.len()});
        tell(connection, "series_ignored", series_id, actor, detail).await?;
        return Ok(SeriesState::Ignored);
    }
    let revision = revision(
        rows.iter()
            .map(|row| (row.sop_instance_uid.as_str(), row.digest.as_slice())),
    );
    sqlx::query!(
        "update series set state = 'settled', settled_by = $2, revision = $3, settled_at = now() where id = $1",
        series_id,
        by.name(),
        revision.as_slice()
    )
    .execute(&mut *connection)
    .await?;
    let detail = json!({"by": by.name(), "instances": rows.len()});
    tell(connection, "series_settled", series_id, actor, detail).await?;
    Ok(SeriesState::Settled)
}
