//! One attempt at a job, from its claim to its end: its slices are read, memory is waited for, and the core works on a thread while the lease is kept beside it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::lease::Watched;
use super::{PERMIT_BYTES, Worker};
use crate::database::{Claim, JobEnd, JobSlices, failpoint};
use crate::jobs::error::JobError;
use crate::model::CancelFlag;

impl Worker {
    /// One job from its claim to its end.
    pub(super) async fn one(&self, claim: Claim, stops: &watch::Sender<()>, end: &CancellationToken) {
        info!(
            "job {} attempt {}: series {}",
            claim.id, claim.attempt, claim.series_uid
        );
        let (progress, cancel, stop) = (Watched::default(), CancelFlag::default(), CancellationToken::new());
        let work = self.work(&claim, &progress, &cancel, &stop);
        let keep = self.keep(&claim, &progress, stops.subscribe(), end);
        tokio::pin!(work, keep);
        let (worked, stopped) = tokio::select! {
            worked = &mut work => (worked, None),
            stopped = &mut keep => {
                cancel.cancel();
                stop.cancel();
                (work.await, Some(stopped))
            }
        };
        self.settle(&claim, worked, stopped).await;
    }

    /// Reads, waits for its share of memory, and runs the core on a thread. `cancel` tells the thread to stop, `stop` whoever waits here.
    async fn work(
        &self,
        claim: &Claim,
        progress: &Watched,
        cancel: &CancelFlag,
        stop: &CancellationToken,
    ) -> Result<JobEnd, JobError> {
        failpoint("job_claimed");
        let slices = match self.database.slices_of(claim.id).await? {
            JobSlices::Held(slices) => slices,
            JobSlices::Removed { removed, of } => {
                return Err(JobError::Ours {
                    code: "slices_removed",
                    sentence: format!(
                        "{removed} of {of} slices were removed by retention: send the series again, or fetch it from its PACS"
                    ),
                });
            }
            // Whoever looks after the queue supersedes it, and its result would be of other slices than its row says.
            JobSlices::Changed => return Err(JobError::World("its series has other slices by now".to_owned())),
        };
        let (core, of) = (Arc::clone(&self.core), claim.clone());
        let (series, bytes) = on_thread(move || {
            let series = core.series(&of, &slices)?;
            let bytes = core.memory_bytes(&series);
            Ok((series, bytes))
        })
        .await?;
        // A series that is taken fits (`series.max_memory_bytes` is not more); only where the network's grid is finer than the one that it was judged by may it need more, and then
        // it runs with nothing beside it.
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES))
            .unwrap_or(u32::MAX)
            .clamp(1, self.permits);
        let wanted = if claim.alone { self.permits } else { permits };
        let share = tokio::select! {
            share = Arc::clone(&self.memory).acquire_many_owned(wanted) => share.map_err(|_| JobError::Stopped)?,
            () = stop.cancelled() => return Err(JobError::Stopped),
        };
        let (core, claim, progress, cancel) = (Arc::clone(&self.core), claim.clone(), progress.clone(), cancel.clone());
        on_thread(move || {
            let _share = share;
            core.work(&claim, &series, &progress, &cancel)
        })
        .await
    }
}

/// Runs on a thread that may block; a panic there is ours, and does not take the worker along.
pub(in crate::jobs) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
) -> Result<T, JobError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|failure| {
        Err(JobError::Ours {
            code: "internal",
            sentence: format!("a fault in Hilum: {failure}"),
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::testing::{claimed, phantom_queued, with_worker};
    use super::*;

    #[tokio::test]
    async fn a_job_that_waits_for_memory_is_canceled_at_once() {
        with_worker(|worker, _| async move {
            let claim = claimed(&worker).await;
            let id = claim.id;
            // Another job has all of it.
            let _all = Arc::clone(&worker.memory)
                .acquire_many_owned(worker.permits)
                .await
                .unwrap();
            let stops = watch::Sender::new(());
            let end = CancellationToken::new();
            let canceled = async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                worker.database.cancel_job(id, "test").await.unwrap();
            };
            let both = async { tokio::join!(worker.one(claim, &stops, &end), canceled) };
            timeout(Duration::from_secs(20), both).await.unwrap();
            assert_eq!(worker.database.job(id).await.unwrap().unwrap().state, "canceled");
        })
        .await;
    }

    #[tokio::test]
    async fn a_job_that_waits_for_the_network_stops_at_once() {
        with_worker(|worker, _| async move {
            let cancel = CancelFlag::default();
            let others = worker.core.session(&cancel).unwrap();
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| worker.core.session(&cancel).is_some());
                std::thread::sleep(Duration::from_millis(50));
                assert!(!waiting.is_finished());
                cancel.cancel();
                assert!(!waiting.join().unwrap(), "it was stopped");
            });
            drop(others);
            assert!(worker.core.session(&CancelFlag::default()).is_some());
        })
        .await;
    }

    #[tokio::test]
    async fn a_slice_that_comes_to_a_claimed_job_removes_none_and_one_without_bytes_is_removed() {
        with_worker(|worker, data| async move {
            let id = phantom_queued(&worker, &data, 1).await;
            let (stops, end) = (watch::Sender::new(()), CancellationToken::new());
            let pool = worker.database.pool();
            let execute = async |statement: &'static str| {
                sqlx::query(statement).execute(pool).await.unwrap();
            };
            let claim = worker.claim().await.unwrap().unwrap();
            worker.let_go().await;
            let of = match worker.database.slices_of(id).await.unwrap() {
                JobSlices::Held(slices) => slices.len(),
                other => panic!("{other:?}"),
            };
            execute(
                "insert into instance (series_id, sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, file_offset, file_length)
                 select id, '1.2.3', '', '', '', 0, 0 from series",
            )
            .await;
            worker.one(claim, &stops, &end).await;
            let job = worker.database.job(id).await.unwrap().unwrap();
            assert_eq!((job.state.as_str(), job.error_code), ("queued", None), "it waits to be superseded");

            execute("delete from instance where sop_instance_uid = '1.2.3'").await;
            execute("update instance set batch_id = null where batch_id = (select min(batch_id) from instance)").await;
            execute("update job set not_before = now()").await;
            let claim = worker.claim().await.unwrap().unwrap();
            worker.one(claim, &stops, &end).await;
            let job = worker.database.job(id).await.unwrap().unwrap();
            assert_eq!((job.state.as_str(), job.error_code.as_deref()), ("failed", Some("slices_removed")));
            let sentence = job.error_sentence.unwrap();
            assert!(sentence.starts_with(&format!("1 of {of} slices")), "{sentence}");
        })
        .await;
    }
}
