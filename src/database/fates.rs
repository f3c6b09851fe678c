//! What became of the series of a PACS, as far as it is decided.

use super::{Database, DatabaseError};

/// What became of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesFate {
    /// Its row.
    pub series_id: i64,
    /// StudyInstanceUID.
    pub study_uid: String,
    /// SeriesInstanceUID.
    pub series_uid: String,
    /// Name of the PACS that it came from.
    pub source: String,
    /// `done`, `refused`, `failed`, `canceled` or `ignored`.
    pub outcome: String,
    /// Why, where there is a code.
    pub code: Option<String>,
}

impl SeriesFate {
    /// In one word: `done`, `refused:too_few_slices`.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.code {
            Some(code) => format!("{}:{code}", self.outcome),
            None => self.outcome.clone(),
        }
    }
}

impl Database {
    /// The fates of series of these PACS that events after `after` (`None`: of the last hour) touched, and the number of the last event that was looked at.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn series_fates(
        &self,
        sources: &[String],
        after: Option<i64>,
    ) -> Result<(Vec<SeriesFate>, i64), DatabaseError> {
        let after = match after {
            Some(after) => after,
            None => sqlx::query_scalar!(
                r#"select coalesce((select min(id) - 1 from event where at > now() - interval '1 hour'), (select max(id) from event), 0) as "id!""#
            )
            .fetch_one(self.pool())
            .await?,
        };
        // Rows may commit out of order: none is looked at that an open transaction may still stand before.
        let last = sqlx::query_scalar!(
            r#"select coalesce(max(id), $1) as "last!" from event
               where id > $1 and transaction < pg_snapshot_xmin(pg_current_snapshot())"#,
            after
        )
        .fetch_one(self.pool())
        .await?;
        let fates = sqlx::query_as!(
            SeriesFate,
            r#"select series.id as series_id, study_uid, series_uid, source as "source!",
                   case when series.state = 'ignored' then 'ignored' else job.state::text end as "outcome!",
                   case when series.state = 'ignored' then finding_code when job.state = 'done' then null else job.error_code end as code
               from series left join lateral (select state, error_code from job where series_id = series.id order by created_at desc limit 1) job on true
               where source = any($1)
                   and series.id in (select coalesce(event.series_id, touched.series_id) from event
                                     left join job touched on touched.id = event.job_id where event.id > $2 and event.id <= $3)
                   and (series.state = 'ignored' or series.state = 'taken' and job.state in ('done', 'refused', 'failed', 'canceled'))"#,
            sources,
            after,
            last
        )
        .fetch_all(self.pool())
        .await?;
        Ok((fates, last))
    }
}
