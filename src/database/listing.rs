//! What is asked of jobs: pages of them, newest first, one of them whole, their deliveries and events.
//!
//! Which filter is given decides which statement runs, so that each has its index; a page begins after a key (time and id), never after a number of rows.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Database, DatabaseError};

/// Every state of a job.
pub const JOB_STATES: [&str; 7] = [
    "queued",
    "running",
    "done",
    "refused",
    "failed",
    "canceled",
    "superseded",
];

/// Every state of a series.
pub const SERIES_STATES: [&str; 4] = ["receiving", "settled", "taken", "ignored"];

/// Whose rows are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// Everyone's.
    #[default]
    Everyone,
    /// Of one study.
    Study(String),
    /// Of one series, wherever it is.
    Series(String),
    /// Of one series of one study.
    StudyAndSeries(String, String),
    /// Of one accession number.
    Accession(String),
}

/// Which rows are asked for, and where the page begins.
#[derive(Clone, Debug)]
pub struct Filter<K> {
    /// Whose.
    pub whose: Whose,
    /// Only those in this state.
    pub state: Option<String>,
    /// Only those whose series began to arrive then or later.
    pub received_since: Option<OffsetDateTime>,
    /// The last row of the page before: its time and its id.
    pub after: Option<(OffsetDateTime, K)>,
    /// At most so many.
    pub limit: i64,
}

/// Before every row.
pub(super) const FIRST: OffsetDateTime = time::macros::datetime!(9999-12-31 00:00 UTC);

impl<K> Filter<K> {
    pub(super) fn since(&self) -> OffsetDateTime {
        self.received_since.unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    pub(super) fn states(&self, all: &[&str]) -> Vec<String> {
        match &self.state {
            Some(state) => vec![state.clone()],
            None => all.iter().map(|state| (*state).to_owned()).collect(),
        }
    }
}

/// A job with its series, as a list shows it.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the columns of the tables `job` and `series`, explained in the migration"
)]
pub struct JobRow {
    pub id: Uuid,
    pub series_id: i64,
    pub state: String,
    pub priority: i16,
    pub token: i64,
    pub attempts: i32,
    pub deaths: i32,
    pub cancel_requested: bool,
    pub stage: Option<String>,
    pub windows_done: i32,
    pub windows_total: i32,
    /// Seconds until it is done, by the pace of this attempt so far; null where nothing is known yet.
    pub seconds_left: Option<f64>,
    pub model: String,
    pub model_digest: String,
    pub parameters_digest: String,
    pub pipeline_revision: i32,
    pub predecessor: Option<Uuid>,
    pub error_code: Option<String>,
    pub error_sentence: Option<String>,
    pub segmentation_uid: Option<String>,
    pub result_folder: Option<String>,
    pub removed: Option<Value>,
    pub withheld: Option<Value>,
    pub created_at: OffsetDateTime,
    /// When its latest attempt began.
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    /// It stands for its series: no other was made or wished for later, but for such as were superseded.
    pub newest: bool,
    /// From the report: the verdict on the series.
    pub verdict: Option<Value>,
    /// From the report: the verdict on the mask.
    pub mask_findings: Option<Value>,
    /// From the report: the figures of the lungs.
    pub measurements: Option<Value>,
    /// From the report: the files that were made.
    pub files: Option<Value>,
    pub study_uid: String,
    pub series_uid: String,
    pub source: Option<String>,
    pub accession_number: String,
    pub patient_id: String,
    pub study_date: String,
    pub study_description: String,
    pub series_description: String,
    pub instances: i32,
    pub received_at: OffsetDateTime,
}

/// A delivery of a job.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the columns of the table `delivery`, explained in the migration"
)]
pub struct DeliveryRow {
    pub id: i64,
    pub job_id: Uuid,
    pub destination: String,
    pub state: String,
    pub file: String,
    pub sop_instance_uid: String,
    pub attempts: i32,
    pub error: Option<String>,
    pub created_at: OffsetDateTime,
    pub not_before: OffsetDateTime,
    pub delivered_at: Option<OffsetDateTime>,
}

/// The columns of `JobRow`, and what a statement does with them.
macro_rules! jobs {
    ($tail:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            JobRow,
            r#"select j.id, j.series_id, j.state::text as "state!", j.priority, j.token, j.attempts, j.deaths, j.cancel_requested, j.stage,
                j.windows_done, j.windows_total,
                case when j.state = 'running' and j.windows_done > j.windows_begun and j.windows_begun_at > j.started_at then
                    greatest(0, extract(epoch from (j.progress_at - j.windows_begun_at)) / (j.windows_done - j.windows_begun) * (j.windows_total - j.windows_done)
                        - extract(epoch from (now() - j.progress_at)))::float8
                end as seconds_left,
                j.model, j.model_digest, j.parameters_digest, j.pipeline_revision, j.predecessor, j.error_code, j.error_sentence,
                j.segmentation_uid, j.result_folder, j.removed, j.withheld, j.created_at, j.started_at, j.finished_at,
                not exists (select 1 from job n where n.series_id = j.series_id
                    and (n.state <> 'superseded', coalesce(n.queued_again_at, n.created_at), n.id)
                        > (j.state <> 'superseded', coalesce(j.queued_again_at, j.created_at), j.id)) as "newest!",
                j.report->'verdict' as verdict, j.report->'mask_findings' as mask_findings, j.report->'measurements' as measurements,
                j.report->'files' as files,
                s.study_uid, s.series_uid, s.source, s.accession_number, s.patient_id, s.study_date, s.study_description,
                s.series_description, s.instances, s.received_at
            from job j join series s on s.id = j.series_id "#
                + $tail,
            $($argument),+
        )
    };
}

impl Database {
    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn jobs(&self, filter: &Filter<Uuid>) -> Result<Vec<JobRow>, DatabaseError> {
        let (time, id) = filter.after.unwrap_or((FIRST, Uuid::max()));
        let (since, limit) = (filter.since(), filter.limit);
        let states = filter.states(&JOB_STATES);
        let rows = match (&filter.whose, &filter.state) {
            (Whose::Everyone, None) => {
                jobs!(
                    "where (j.created_at, j.id) < ($1, $2) and j.created_at >= $3 and s.received_at >= $3
                    order by j.created_at desc, j.id desc limit $4",
                    time,
                    id,
                    since,
                    limit
                )
                .fetch_all(self.pool())
                .await?
            }
            (Whose::Everyone, Some(state)) => {
                jobs!(
                    "where j.state = $5::text::job_state and (j.created_at, j.id) < ($1, $2) and j.created_at >= $3 and s.received_at >= $3
                    order by j.created_at desc, j.id desc limit $4",
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
                jobs!(
                    "where s.study_uid = $5 and j.state::text = any($6) and (j.created_at, j.id) < ($1, $2) and s.received_at >= $3
                    order by j.created_at desc, j.id desc limit $4",
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
                jobs!(
                    "where s.series_uid = $5 and j.state::text = any($6) and (j.created_at, j.id) < ($1, $2) and s.received_at >= $3
                    order by j.created_at desc, j.id desc limit $4",
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
                jobs!(
                    "where s.study_uid = $5 and s.series_uid = $7 and j.state::text = any($6) and (j.created_at, j.id) < ($1, $2)
                    and s.received_at >= $3 order by j.created_at desc, j.id desc limit $4",
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
                jobs!(
                    "where s.accession_number = $5 and j.state::text = any($6) and (j.created_at, j.id) < ($1, $2) and s.received_at >= $3
                    order by j.created_at desc, j.id desc limit $4",
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

    /// One job.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn job(&self, id: Uuid) -> Result<Option<JobRow>, DatabaseError> {
        Ok(jobs!("where j.id = $1", id).fetch_optional(self.pool()).await?)
    }

    /// The jobs of a series, newest first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn jobs_of_series(&self, series_id: i64) -> Result<Vec<JobRow>, DatabaseError> {
        Ok(jobs!(
            "where j.series_id = $1 order by j.created_at desc, j.id desc limit 200",
            series_id
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// The whole report of a job, where it has one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn job_report(&self, id: Uuid) -> Result<Option<Value>, DatabaseError> {
        Ok(sqlx::query_scalar!("select report from job where id = $1", id)
            .fetch_optional(self.pool())
            .await?
            .flatten())
    }

    /// The deliveries of some jobs, in the order in which they were made.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deliveries_of(&self, jobs: &[Uuid]) -> Result<Vec<DeliveryRow>, DatabaseError> {
        Ok(sqlx::query_as!(
            DeliveryRow,
            r#"select id, job_id, destination, state::text as "state!", file, sop_instance_uid, attempts, error, created_at, not_before,
                delivered_at from delivery where job_id = any($1) order by id"#,
            jobs
        )
        .fetch_all(self.pool())
        .await?)
    }
}
