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
    /// Why, where there is a code; of a `done` one, why its source has no segmentation.
    pub code: Option<String>,
}

impl SeriesFate {
    /// In one word: `done`, `done:lungs_not_found`, `refused:too_few_slices`.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.code {
            Some(code) => format!("{}:{code}", self.outcome),
            None => self.outcome.clone(),
        }
    }
}

impl Database {
    /// The fates of series of these PACS that the next events after `after` (`None`: those of the last hour) touched, and the place of the last event that was looked at. What
    /// becomes of a finished job is decided once its deliveries are.
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
        let Some(last) = self.some_events_on(after).await? else {
            return Ok((Vec::new(), after));
        };
        let fates = sqlx::query_as!(
            SeriesFate,
            r#"select series.id as series_id, study_uid, series_uid, source as "source!",
                   case when series.state = 'ignored' then 'ignored' else job.state::text end as "outcome!",
                   case when series.state = 'ignored' then finding_code
                        when job.state = 'done' then coalesce(
                            (select reason ->> 'why' from jsonb_array_elements(job.withheld) as reason
                             where coalesce(reason ->> 'destination', source) = source limit 1),
                            (select 'given_up' from delivery where job_id = job.id and destination = source and delivery.state = 'given_up'))
                        else job.error_code end as code
               from series left join lateral (select id, state, error_code, withheld, deliveries_planned from job where series_id = series.id
                                              order by state <> 'superseded' desc, coalesce(queued_again_at, created_at) desc, id desc limit 1) job on true
               where source = any($1)
                   and series.id in (select coalesce(event.series_id, touched.series_id) from event
                                     left join job touched on touched.id = event.job_id
                                     where (event.transaction, event.id) > ($2::text::xid8, $3) and (event.transaction, event.id) <= ($4::text::xid8, $5))
                   and (series.state = 'ignored' or series.state = 'taken' and (job.deliveries_planned and job.state = 'done' or job.state in ('refused', 'failed', 'canceled')))"#,
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

    /// The place of the last of the next events after a place; `None`: there is none. Up to there nothing is added any more, as it may be in the order of ids: an event that got
    /// its number first may commit last.
    async fn some_events_on(&self, after: Place) -> Result<Option<Place>, DatabaseError> {
        let last = sqlx::query!(
            r#"select id as "id!", transaction::text as "transaction!" from (
                   select id, transaction from event where (transaction, id) > ($1::text::xid8, $2) and transaction < pg_snapshot_xmin(pg_current_snapshot())
                   order by transaction, id limit 10000) as next
               order by next.transaction desc, next.id desc limit 1"#,
            after.transaction.to_string(),
            after.id
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(last.map(|last| Place {
            transaction: last.transaction.parse().unwrap_or(0),
            id: last.id,
        }))
    }

    /// Up to which event the fates of a PACS's series are written there; `None`: it is not known. A place beyond the present transactions is of the server that this database was
    /// dumped from, and says nothing.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn marked_up_to(&self, pacs: &str) -> Result<Option<Place>, DatabaseError> {
        let row = sqlx::query!(
            r#"select transaction::text as "transaction!", event_id from marked
               where pacs = $1 and transaction < pg_snapshot_xmin(pg_current_snapshot())"#,
            pacs
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row.map(|row| Place {
            transaction: row.transaction.parse().unwrap_or(0),
            id: row.event_id,
        }))
    }

    /// Notes that all fates up to an event are written at a PACS. It goes on only: where another process is further, nothing changes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn marked(&self, pacs: &str, up_to: Place) -> Result<(), DatabaseError> {
        sqlx::query!(
            "insert into marked (pacs, transaction, event_id) values ($1, $2::text::xid8, $3)
             on conflict (pacs) do update set transaction = excluded.transaction, event_id = excluded.event_id
                 where (marked.transaction, marked.event_id) < (excluded.transaction, excluded.event_id)
                     or marked.transaction >= pg_snapshot_xmin(pg_current_snapshot())",
            pacs,
            up_to.transaction.to_string(),
            up_to.id
        )
        .execute(self.pool())
        .await?;
        Ok(())
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
