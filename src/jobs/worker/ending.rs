//! How an attempt ends: what its row says afterwards, and what of its files stays.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Worker;
use super::lease::Stopped;
use crate::database::{Backoff, Claim, DatabaseError, Failures, JobEnd, failpoint};
use crate::jobs::error::JobError;

impl Worker {
    /// Writes how a job ended, again and again while the database is away for less than the lease.
    pub(super) async fn settle(&self, claim: &Claim, worked: Result<JobEnd, JobError>, stopped: Option<Stopped>) {
        let until = Instant::now() + Duration::from_secs_f64(self.settings.lease_seconds);
        let mut failures = Failures::new(Backoff::DATABASE);
        loop {
            match self.try_settle(claim, &worked, stopped).await {
                Ok(()) => return,
                Err(failure) if failure.is_transient() && Instant::now() < until => {
                    warn!("job {}: its end cannot be written yet: {failure}", claim.id);
                    tokio::time::sleep(failures.wait()).await;
                }
                Err(failure) => {
                    error!("job {}: its end cannot be written: {failure}", claim.id);
                    return;
                }
            }
        }
    }

    async fn try_settle(
        &self,
        claim: &Claim,
        worked: &Result<JobEnd, JobError>,
        stopped: Option<Stopped>,
    ) -> Result<(), DatabaseError> {
        let name = self.name.as_str();
        match (worked, stopped) {
            (_, Some(Stopped::Lost)) => info!("job {}: it is no longer ours", claim.id),
            // What was finished before the wish to cancel came through is kept.
            (Ok(end), _) => {
                self.database.end_job(claim, name, end).await?;
            }
            (Err(_), Some(Stopped::Canceled)) => {
                self.database.end_job(claim, name, &JobEnd::Canceled).await?;
            }
            (Err(_), Some(Stopped::Draining)) => {
                self.database
                    .hand_back_job(claim, name, "this worker ends", 0.0, false)
                    .await?;
            }
            (Err(JobError::Ours { code, sentence }), None) => {
                error!("job {}: {code}: {sentence}", claim.id);
                let end = JobEnd::Failed {
                    code: (*code).to_owned(),
                    sentence: sentence.clone(),
                };
                self.database.end_job(claim, name, &end).await?;
            }
            (Err(failure), None) => {
                self.again_or_fail(claim, failure).await?;
            }
        }
        failpoint("job_ended");
        // Whether the row was written by us just now does not tell: a write before it may have come through although its answer was lost. The row itself tells.
        let row = self.database.result_claims(&[claim.id]).await?.pop();
        let (folder, over) = row.map_or((None, true), |row| (row.result_folder, row.over));
        let (core, claim) = (Arc::clone(&self.core), claim.clone());
        let _ = tokio::task::spawn_blocking(move || core.forget(&claim, folder.as_deref(), over)).await;
        Ok(())
    }

    /// The world's fault: again later, with a wait that doubles and is spread, until the attempts are used up.
    async fn again_or_fail(&self, claim: &Claim, failure: &JobError) -> Result<bool, DatabaseError> {
        let attempt = u32::try_from(claim.attempt).unwrap_or(u32::MAX);
        let Some(wait) = self.settings.next_wait(attempt) else {
            let end = JobEnd::Failed {
                code: "attempts_used_up".to_owned(),
                sentence: format!("{failure} (after {attempt} attempts)"),
            };
            error!("job {}: given up: {failure}", claim.id);
            return self.database.end_job(claim, &self.name, &end).await;
        };
        warn!("job {}: again in {wait:.0} s: {failure}", claim.id);
        let why = failure.to_string();
        self.database.hand_back_job(claim, &self.name, &why, wait, true).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::testing::{claimed, with_worker};
    use super::*;

    #[tokio::test]
    async fn a_job_whose_end_was_written_but_not_acknowledged_keeps_its_results() {
        with_worker(|worker, data| async move {
            let claim = claimed(&worker).await;
            let folder = |token| format!("results/{}/{token}", claim.id);
            // What an earlier claim left, and the result.
            for token in [claim.token - 1, claim.token] {
                std::fs::create_dir_all(data.join(folder(token))).unwrap();
            }
            let end = JobEnd::Done {
                report: serde_json::json!({}),
                result_folder: folder(claim.token),
                segmentation_uid: None,
            };
            // The connection died before this was answered, so that the worker tries again.
            assert!(worker.database.end_job(&claim, &worker.name, &end).await.unwrap());
            worker.settle(&claim, Ok(end), None).await;
            assert!(data.join(folder(claim.token)).is_dir(), "the row names it");
            assert!(!data.join(folder(claim.token - 1)).exists());
        })
        .await;
    }
}
