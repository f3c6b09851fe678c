//! What is asked of series: pages of them, newest first, and one of them with its events.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::listing::{Filter, SERIES_STATES, Whose};
use super::{Database, DatabaseError};

/// A series, as a list shows it.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the columns of the table `series`, explained in the migration"
)]
pub struct SeriesRow {
    pub id: i64,
    pub study_uid: String,
    pub series_uid: String,
    pub source: Option<String>,
    pub state: String,
    pub settled_by: Option<String>,
    pub modality: String,
    pub accession_number: String,
    pub patient_id: String,
    pub study_date: String,
    pub study_description: String,
    pub series_description: String,
    pub instances: i32,
    pub bytes: i64,
    pub priority: i16,
    pub finding_code: Option<String>,
    pub finding_sentence: Option<String>,
    pub source_count: Option<i32>,
    pub received_at: OffsetDateTime,
    pub last_instance_at: OffsetDateTime,
    pub settled_at: Option<OffsetDateTime>,
}

/// An event, as histories show it.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the columns of the table `event`, explained in the migration"
)]
pub struct EventRow {
    pub id: i64,
    pub at: OffsetDateTime,
    pub kind: String,
    pub series_id: Option<i64>,
    pub job_id: Option<Uuid>,
    pub delivery_id: Option<i64>,
    pub actor: String,
    pub detail: Value,
}

/// The columns of `SeriesRow`, and what a statement does with them.
macro_rules! series {
    ($tail:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            SeriesRow,
            r#"select id, study_uid, series_uid, source, state::text as "state!", settled_by, modality, accession_number, patient_id,
                study_date, study_description, series_description, instances, bytes, priority, finding_code, finding_sentence,
                source_count, received_at, last_instance_at, settled_at from series "#
                + $tail,
            $($argument),+
        )
    };
}

impl Database {
    /// A page of series, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn series(&self, filter: &Filter<i64>) -> Result<Vec<SeriesRow>, DatabaseError> {
        let (time, id) = filter.after.unwrap_or((super::listing::FIRST, i64::MAX));
        let (since, limit) = (filter.since(), filter.limit);
        let states = filter.states(&SERIES_STATES);
        let rows = match (&filter.whose, &filter.state) {
            (Whose::Everyone, None) => {
                series!(
                    "where (received_at, id) < ($1, $2) and received_at >= $3 order by received_at desc, id desc limit $4",
                    time,
                    id,
                    since,
                    limit
                )
                .fetch_all(self.pool())
                .await?
            }
            (Whose::Everyone, Some(state)) => {
                series!(
                    "where state = $5::text::series_state and (received_at, id) < ($1, $2) and received_at >= $3
                    order by received_at desc, id desc limit $4",
                    time,
                    id,
                    since,
                    limit,
                    state
                )
                .fetch_all(self.pool())
                .await?
            }
            (Whose::Study(study), _) => {
                series!(
                    "where study_uid = $5 and state::text = any($6) and (received_at, id) < ($1, $2) and received_at >= $3
                    order by received_at desc, id desc limit $4",
                    time,
                    id,
                    since,
                    limit,
                    study,
                    &states
                )
                .fetch_all(self.pool())
                .await?
            }
            (Whose::Series(series), _) => {
                series!(
                    "where series_uid = $5 and state::text = any($6) and (received_at, id) < ($1, $2) and received_at >= $3
                    order by received_at desc, id desc limit $4",
                    time,
                    id,
                    since,
                    limit,
                    series,
                    &states
                )
                .fetch_all(self.pool())
                .await?
            }
            (Whose::StudyAndSeries(study, series), _) => {
                series!(
                    "where study_uid = $5 and series_uid = $7 and state::text = any($6) and (received_at, id) < ($1, $2) and received_at >= $3
                    order by received_at desc, id desc limit $4",
                    time,
                    id,
                    since,
                    limit,
                    study,
                    &states,
                    series
                )
                .fetch_all(self.pool())
                .await?
            }
            (Whose::Accession(accession), _) => {
                series!(
                    "where accession_number = $5 and state::text = any($6) and (received_at, id) < ($1, $2) and received_at >= $3
                    order by received_at desc, id desc limit $4",
                    time,
                    id,
                    since,
                    limit,
                    accession,
                    &states
                )
                .fetch_all(self.pool())
                .await?
            }
        };
        Ok(rows)
    }

    /// One series.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn one_series(&self, id: i64) -> Result<Option<SeriesRow>, DatabaseError> {
        Ok(series!("where id = $1", id).fetch_optional(self.pool()).await?)
    }

    /// The last events of a series, in the order in which they happened.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_of_series(&self, series_id: i64, limit: i64) -> Result<Vec<EventRow>, DatabaseError> {
        let mut events = sqlx::query_as!(
            EventRow,
            "select id, at, kind, series_id, job_id, delivery_id, actor, detail from event
            where series_id = $1 and transaction < pg_snapshot_xmin(pg_current_snapshot()) order by id desc limit $2",
            series_id,
            limit
        )
        .fetch_all(self.pool())
        .await?;
        events.reverse();
        Ok(events)
    }

    /// The last events of a job, in the order in which they happened.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_of_job(&self, job_id: Uuid, limit: i64) -> Result<Vec<EventRow>, DatabaseError> {
        let mut events = sqlx::query_as!(
            EventRow,
            "select id, at, kind, series_id, job_id, delivery_id, actor, detail from event
            where job_id = $1 and transaction < pg_snapshot_xmin(pg_current_snapshot()) order by id desc limit $2",
            job_id,
            limit
        )
        .fetch_all(self.pool())
        .await?;
        events.reverse();
        Ok(events)
    }
}
