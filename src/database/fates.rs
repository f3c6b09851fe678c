//! What became of the series of a PACS, as far as it is decided.

use super::{Database, DatabaseError, Place};

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
    /// The fates of series of these PACS that events after `after` (`None`: of the last hour) touched, and the place of the last event that was looked at.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn series_fates(
        &self,
        sources: &[String],
        after: Option<Place>,
    ) -> Result<(Vec<SeriesFate>, Place), DatabaseError> {
        let after = match after {
            Some(after) => after,
            None => self.before_the_last_hour().await?,
        };
        // Up to this place nothing is added any more, as it may be in the order of ids: an event that got its number first may commit last.
        let last = self.last_place().await?.max(after);
        let fates = sqlx::query_as!(
            SeriesFate,
            r#"select series.id as series_id, study_uid, series_uid, source as "source!",
                   case when series.state = 'ignored' then 'ignored' else job.state::text end as "outcome!",
                   case when series.state = 'ignored' then finding_code when job.state = 'done' then null else job.error_code end as code
               from series left join lateral (select state, error_code from job where series_id = series.id order by created_at desc limit 1) job on true
               where source = any($1)
                   and series.id in (select coalesce(event.series_id, touched.series_id) from event
                                     left join job touched on touched.id = event.job_id
                                     where (event.transaction, event.id) > ($2::text::xid8, $3) and (event.transaction, event.id) <= ($4::text::xid8, $5))
                   and (series.state = 'ignored' or series.state = 'taken' and job.state in ('done', 'refused', 'failed', 'canceled'))"#,
            sources,
            after.transaction.to_string(),
            after.id,
            last.transaction.to_string(),
            last.id
        )
        .fetch_all(self.pool())
        .await?;
        Ok((fates, last))
    }

    /// The place before the first event of the last hour; where there is none, of the last event.
    async fn before_the_last_hour(&self) -> Result<Place, DatabaseError> {
        let first = sqlx::query!(
            r#"select id, transaction::text as "transaction!" from event where at > now() - interval '1 hour' order by transaction, id limit 1"#
        )
        .fetch_optional(self.pool())
        .await?;
        match first {
            Some(first) => Ok(Place {
                transaction: first.transaction.parse().unwrap_or(0),
                id: first.id - 1,
            }),
            None => self.last_place().await,
        }
    }
}
