//! The queue of jobs: claims with a lease and a fencing token, progress, ends. A worker whose token is no longer the row's can change nothing.

use serde_json::{Value, json};
use uuid::Uuid;

use super::delivery::tell_deliverers;
use super::events::{NewEvent, append};
use super::inbox::revision;
use super::{Database, DatabaseError, JobSpecification};

/// A job that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The job.
    pub id: Uuid,
    /// Its series.
    pub series_id: i64,
    /// StudyInstanceUID.
    pub study_uid: String,
    /// SeriesInstanceUID.
    pub series_uid: String,
    /// The fencing token of this claim.
    pub token: i64,
    /// Which attempt this is, from 1.
    pub attempt: i32,
    /// It must run with no other job beside it.
    pub alone: bool,
    /// The job that this one follows, since other slices came or the network changed.
    pub predecessor: Option<Uuid>,
    /// What it was made with, as its row says it. [`Database::run_with`] makes it what it runs with.
    pub specification: JobSpecification,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// The stage, as in the report.
    pub stage: Option<&'static str>,
    /// Windows of the network done.
    pub windows_done: i32,
    /// Windows of the network in all.
    pub windows_total: i32,
}

/// What a worker is told of the job that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Go on.
    Held,
    /// Somebody asked to cancel.
    CancelRequested,
    /// The job is somebody else's, superseded or gone.
    Lost,
}

impl Renewal {
    /// `cancel_requested` of the row of a claim; `None`: no row is of that claim any more.
    fn of(cancel_requested: Option<bool>) -> Renewal {
        match cancel_requested {
            None => Renewal::Lost,
            Some(true) => Renewal::CancelRequested,
            Some(false) => Renewal::Held,
        }
    }
}

/// How a job ends.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEnd {
    /// Its results are stored.
    Done {
        /// The report.
        report: Value,
        /// The folder of its results, under the data folder.
        result_folder: String,
        /// SOP Instance UID of its segmentation, where there is one.
        segmentation_uid: Option<String>,
    },
    /// The input is not taken.
    Refused {
        /// The report.
        report: Value,
        /// The folder of its results, under the data folder.
        result_folder: String,
        /// The finding that decided.
        code: String,
        /// Its sentence.
        sentence: String,
    },
    /// Hilum could not do it.
    Failed {
        /// A stable code.
        code: String,
        /// What happened.
        sentence: String,
    },
    /// Somebody asked to stop.
    Canceled,
}

impl JobEnd {
    fn state(&self) -> &'static str {
        match self {
            JobEnd::Done { .. } => "done",
            JobEnd::Refused { .. } => "refused",
            JobEnd::Failed { .. } => "failed",
            JobEnd::Canceled => "canceled",
        }
    }
}

/// Deaths of workers over one job after which it runs once more alone; one more and it is failed.
const DEATHS_BEFORE_ALONE: i32 = 2;

impl Database {
    /// Claims the next job: by priority, then by age. `idle` says that the worker holds no other. A job that must run alone is given out where nothing runs on the worker's host,
    /// and nothing is while it runs there: replicas on one host share its memory. While such a one is the next, a host that is not idle gets none, so that it becomes idle. A
    /// host is that of [`worker_lives`](Self::worker_lives); of a worker that never said it, only its own jobs count. The job counts as started now, since what an earlier attempt took says nothing about the time that is left.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn claim_job(
        &self,
        worker: &str,
        lease_seconds: f64,
        idle: bool,
    ) -> Result<Option<Claim>, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        // Two replicas of a host claim one after the other, so that each sees what the other took.
        sqlx::query!(
            "select pg_advisory_xact_lock(hashtextextended(host, 0)) from worker where id = $1",
            worker
        )
        .execute(&mut *transaction)
        .await?;
        let claimed = sqlx::query!(
            r#"with here as materialized (
                   select not $3 or count(*) > 0 as busy, coalesce(bool_or(beside.alone), false) as alone
                   from job beside join worker on worker.id = beside.worker
                   where beside.state = 'running' and worker.host = (select host from worker where id = $1))
               update job set state = 'running', token = token + 1, worker = $1, lease_until = now() + make_interval(secs => $2), attempts = attempts + 1,
                              started_at = now(), stage = null, windows_done = 0, windows_total = 0, progress_at = now()
               from series
               where series.id = job.series_id and job.id = (
                   select id from job
                   where state = 'queued' and not_before <= now() and not (select paused from service)
                       and not (select here.alone from here) and (not job.alone or not (select busy from here))
                       and (not (select busy from here) or not coalesce((select next.alone from job next where next.state = 'queued' and next.not_before <= now()
                                                order by next.priority desc, next.created_at, next.id limit 1), false))
                   order by priority desc, created_at, id
                   for update skip locked
                   limit 1)
               returning job.id, job.series_id, job.token, job.attempts, job.alone, job.predecessor, job.model, job.model_digest,
                   job.parameters_digest, job.pipeline_revision, series.study_uid, series.series_uid"#,
            worker,
            lease_seconds,
            idle
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = claimed else {
            return Ok(None);
        };
        let event = NewEvent {
            kind: "job_started",
            series_id: Some(row.series_id),
            job_id: Some(row.id),
            actor: worker,
            detail: json!({ "attempt": row.attempts, "token": row.token }),
            ..NewEvent::default()
        };
        append(&mut transaction, event).await?;
        transaction.commit().await?;
        Ok(Some(Claim {
            id: row.id,
            series_id: row.series_id,
            study_uid: row.study_uid,
            series_uid: row.series_uid,
            token: row.token,
            attempt: row.attempts,
            alone: row.alone,
            predecessor: row.predecessor,
            specification: JobSpecification {
                model: row.model,
                model_digest: row.model_digest,
                parameters_digest: row.parameters_digest,
                pipeline_revision: row.pipeline_revision,
            },
        }))
    }

    /// Renews a lease and writes how far the job is.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn renew_job(
        &self,
        claim: &Claim,
        lease_seconds: f64,
        progress: &JobProgress,
    ) -> Result<Renewal, DatabaseError> {
        let canceled = sqlx::query_scalar!(
            "update job set lease_until = now() + make_interval(secs => $3), stage = $4, windows_done = $5, windows_total = $6, progress_at = now(),
                 windows_begun_at = case when $5 > 0 then coalesce(windows_begun_at, now()) end,
                 windows_begun = case when $5 > 0 then coalesce(windows_begun, $5) end
             where id = $1 and token = $2 and state = 'running'
             returning cancel_requested",
            claim.id,
            claim.token,
            lease_seconds,
            progress.stage,
            progress.windows_done,
            progress.windows_total
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(Renewal::of(canceled))
    }

    /// Whether a claim stands, without renewing its lease: for who is told that there may be a reason to stop.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn look_at_claim(&self, claim: &Claim) -> Result<Renewal, DatabaseError> {
        let canceled = sqlx::query_scalar!(
            "select cancel_requested from job where id = $1 and token = $2 and state = 'running'",
            claim.id,
            claim.token
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(Renewal::of(canceled))
    }

    /// Ends a job. Returns false where nothing changed: the claim had been lost, or it had ended the job already, as where the answer to an earlier call was lost.
    /// `result_folder` tells whether what the worker stored is garbage.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn end_job(&self, claim: &Claim, worker: &str, end: &JobEnd) -> Result<bool, DatabaseError> {
        let (mut report, mut folder, mut uid, mut code, mut sentence) = (None, None, None, None, None);
        match end {
            JobEnd::Done {
                report: r,
                result_folder,
                segmentation_uid,
            } => (report, folder, uid) = (Some(r), Some(result_folder), segmentation_uid.as_ref()),
            JobEnd::Refused {
                report: r,
                result_folder,
                code: c,
                sentence: s,
            } => (report, folder, code, sentence) = (Some(r), Some(result_folder), Some(c), Some(s)),
            JobEnd::Failed { code: c, sentence: s } => (code, sentence) = (Some(c), Some(s)),
            JobEnd::Canceled => {}
        }
        let mut transaction = self.pool().begin().await?;
        let ended = sqlx::query!(
            "update job set state = $3::text::job_state, report = $4, result_folder = $5, segmentation_uid = $6, error_code = $7, error_sentence = $8,
                            lease_until = null, finished_at = now(), stage = null
             where id = $1 and token = $2 and state = 'running'",
            claim.id,
            claim.token,
            end.state(),
            report,
            folder,
            uid,
            code,
            sentence
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if ended == 0 {
            return Ok(false);
        }
        let kind = format!("job_{}", end.state());
        let event = NewEvent {
            kind: &kind,
            series_id: Some(claim.series_id),
            job_id: Some(claim.id),
            actor: worker,
            detail: json!({ "code": code, "sentence": sentence }),
            ..NewEvent::default()
        };
        append(&mut transaction, event).await?;
        tell_deliverers(&mut transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Gives a job back to the queue, to be taken up again after `wait_seconds`. `counts` says whether the attempt counts; one that was only interrupted does not.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn hand_back_job(
        &self,
        claim: &Claim,
        worker: &str,
        why: &str,
        wait_seconds: f64,
        counts: bool,
    ) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let given = sqlx::query!(
            "update job set state = 'queued', token = token + 1, lease_until = null, not_before = now() + make_interval(secs => $3),
                            attempts = attempts - $4, stage = null
             where id = $1 and token = $2 and state = 'running'",
            claim.id,
            claim.token,
            wait_seconds,
            i32::from(!counts)
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if given == 0 {
            return Ok(false);
        }
        let event = NewEvent {
            kind: "job_handed_back",
            series_id: Some(claim.series_id),
            job_id: Some(claim.id),
            actor: worker,
            detail: json!({ "why": why, "wait_seconds": wait_seconds, "counts": counts }),
            ..NewEvent::default()
        };
        append(&mut transaction, event).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Takes the jobs back whose lease is over: their workers died, froze or cannot be heard.
    ///
    /// A death counts against a job only where a worker of the same host and boot has been heard of since, so that a host that went down is not blamed on what ran on it.
    /// After two such the job runs once more alone, and then it is failed with `worker_lost`. Returns how many jobs there were.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn reap_jobs(&self, actor: &str) -> Result<usize, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let dead = sqlx::query!(
            r#"select job.id, job.series_id, job.worker, job.deaths, job.alone,
                      exists (select 1 from worker dead join worker living on living.host = dead.host
                              where dead.id = job.worker and living.id <> dead.id and living.seen_at > job.progress_at) as "host_lives!"
               from job where state = 'running' and lease_until < now()
               order by job.id
               for update of job skip locked"#
        )
        .fetch_all(&mut *transaction)
        .await?;
        for job in &dead {
            let deaths = job.deaths + i32::from(job.host_lives);
            let lost = deaths > DEATHS_BEFORE_ALONE && job.alone;
            let (code, sentence) = if lost {
                let sentence =
                    format!("The worker died {deaths} times over this series, the last time with nothing beside it.");
                (Some("worker_lost"), Some(sentence))
            } else {
                (None, None)
            };
            sqlx::query!(
                "update job set state = case when $2 then 'failed' else 'queued' end::job_state, token = token + 1, lease_until = null, deaths = $3,
                                alone = $4, not_before = now(), error_code = $5, error_sentence = $6, stage = null,
                                finished_at = case when $2 then now() end
                 where id = $1",
                job.id,
                lost,
                deaths,
                deaths >= DEATHS_BEFORE_ALONE,
                code,
                sentence
            )
            .execute(&mut *transaction)
            .await?;
            let event = NewEvent {
                kind: if lost { "job_failed" } else { "job_worker_lost" },
                series_id: Some(job.series_id),
                job_id: Some(job.id),
                actor,
                detail: json!({ "worker": job.worker, "deaths": deaths, "counted": job.host_lives, "code": code }),
                ..NewEvent::default()
            };
            append(&mut transaction, event).await?;
        }
        if !dead.is_empty() {
            sqlx::query!("select pg_notify('hilum_job', '')")
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(dead.len())
    }

    /// The slices that a job is for, in the order of their UIDs, as one statement sees them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn slices_of(&self, job: Uuid) -> Result<JobSlices, DatabaseError> {
        // A row without an instance says that there is none.
        let rows = sqlx::query!(
            r#"select job.series_revision, series.folded is not null as "folded!", instance.sop_instance_uid as "sop_instance_uid?", instance.digest as "digest?",
                   instance.file_offset as "file_offset?", instance.file_length as "file_length?", batch.file as "file?"
               from job join series on series.id = job.series_id
                   left join instance on instance.series_id = job.series_id and instance.newest
                   left join batch on batch.id = instance.batch_id
               where job.id = $1
               order by instance.sop_instance_uid collate "C""#,
            job
        )
        .fetch_all(self.pool())
        .await?;
        let Some(first) = rows.first() else {
            return Ok(JobSlices::Changed);
        };
        let of = rows
            .iter()
            .filter_map(|row| Some((row.sop_instance_uid.as_deref()?, row.digest.as_deref()?)));
        if !first.folded && revision(of.clone()).as_slice() != first.series_revision {
            return Ok(JobSlices::Changed);
        }
        let (of, folded) = (of.count(), first.folded);
        let held: Vec<StoredSlice> = rows
            .into_iter()
            .filter_map(|row| {
                Some(StoredSlice {
                    file: row.file?,
                    file_offset: row.file_offset?,
                    file_length: row.file_length?,
                })
            })
            .collect();
        if held.len() < of || folded {
            let removed = of - held.len();
            return Ok(JobSlices::Removed { removed, of });
        }
        Ok(JobSlices::Held(held))
    }

    /// What the rows of jobs say of their folders of results; nothing of ids that are no job's.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn result_claims(&self, jobs: &[Uuid]) -> Result<Vec<ResultClaim>, DatabaseError> {
        Ok(sqlx::query_as!(
            ResultClaim,
            r#"select id as job, token, state = 'running' as "running!", state not in ('queued', 'running') as "over!", result_folder
               from job where id = any($1)"#,
            jobs
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Whether a job is in a worker's hands at this moment.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn is_running(&self, job: Uuid) -> Result<bool, DatabaseError> {
        Ok(
            sqlx::query_scalar!("select 1 as one from job where id = $1 and state = 'running'", job)
                .fetch_optional(self.pool())
                .await?
                .is_some(),
        )
    }
}

/// What the row of a job says of its folders of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultClaim {
    /// The job.
    pub job: Uuid,
    /// The token of its latest claim.
    pub token: i64,
    /// Whether that claim works.
    pub running: bool,
    /// Whether the job has ended, in any state.
    pub over: bool,
    /// The folder that is its result, under the data folder.
    pub result_folder: Option<String>,
}

/// What there is of the slices that a job is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSlices {
    /// All of them.
    Held(Vec<StoredSlice>),
    /// The bytes of so many of them were removed.
    Removed {
        /// Without bytes.
        removed: usize,
        /// All; 0 where the series is folded.
        of: usize,
    },
    /// The series has others by now: the job is superseded, or will be.
    Changed,
}

/// Where a slice lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSlice {
    /// The batch file.
    pub file: String,
    /// First byte.
    pub file_offset: i64,
    /// Bytes.
    pub file_length: i64,
}
