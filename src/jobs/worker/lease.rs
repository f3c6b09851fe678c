//! Keeping a job: the lease is renewed while the core works, and the worker learns what there is to stop for.
//!
//! A renewal is a write, so there is one in each period and no more, whatever happens in the database meanwhile; it also says how far the job is. Between two of them the row
//! is only read, when the bell tells that some job is to be stopped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Worker;
use crate::database::{Claim, JobProgress, Renewal, failpoint};
use crate::segment::{Observer, Stage};

/// Progress is written at most so often.
const PROGRESS_SECONDS: f64 = 1.0;

/// How far a job is, told by the thread that works and read by the task that keeps the lease.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<JobProgress>>);

impl Watched {
    fn read(&self) -> JobProgress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Watched {
    fn stage(&self, stage: Stage) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.stage = Some(stage.name());
        if stage == Stage::Windows {
            failpoint("job_windows");
        }
    }

    fn windows(&self, done: usize, total: usize) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.windows_done = i32::try_from(done).unwrap_or(i32::MAX);
        progress.windows_total = i32::try_from(total).unwrap_or(i32::MAX);
    }
}

/// Why a job in hand is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    Canceled,
    Lost,
    Draining,
}

impl Worker {
    /// Keeps the lease until there is a reason to stop. `stops` changes where a job may have to be stopped; a reason that it does not tell is seen at the next renewal.
    pub(super) async fn keep(
        &self,
        claim: &Claim,
        progress: &Watched,
        mut stops: watch::Receiver<()>,
        end: &CancellationToken,
    ) -> Stopped {
        let lease = Duration::from_secs_f64(self.settings.lease_seconds);
        let period = lease.div_f64(3.0).min(Duration::from_secs_f64(PROGRESS_SECONDS));
        let mut held_until = Instant::now() + lease;
        let mut renewal = Instant::now() + period;
        loop {
            let renews = tokio::select! {
                () = sleep_until(renewal) => true,
                Ok(()) = stops.changed() => false,
                () = end.cancelled() => return Stopped::Draining,
                () = sleep_until(held_until) => return Stopped::Lost,
            };
            let told = if renews {
                renewal = Instant::now() + period;
                self.database
                    .renew_job(claim, self.settings.lease_seconds, &progress.read())
                    .await
            } else {
                self.database.look_at_claim(claim).await
            };
            match told {
                Ok(Renewal::Held) if renews => held_until = Instant::now() + lease,
                Ok(Renewal::Held) => {}
                Ok(Renewal::CancelRequested) => return Stopped::Canceled,
                Ok(Renewal::Lost) => return Stopped::Lost,
                Err(failure) => warn!(
                    "job {}: it is not known yet whether it is still ours: {failure}",
                    claim.id
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sqlx::PgPool;

    use super::super::testing::{claimed, with_worker};
    use super::*;

    /// Counts the statements that update the table of jobs from now on.
    async fn count_updates(pool: &PgPool) {
        sqlx::raw_sql(
            "create sequence updates;
             create function count_update() returns trigger language plpgsql as $$ begin perform nextval('updates'); return null; end $$;
             create trigger count_update after update on job for each statement execute function count_update()",
        )
        .execute(pool)
        .await
        .unwrap();
    }

    /// How many there were.
    async fn updates(pool: &PgPool) -> i64 {
        sqlx::query_scalar("select case when is_called then last_value else 0 end from updates")
            .fetch_one(pool)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_lease_is_renewed_once_a_period_however_often_something_happens() {
        const RINGS: u32 = 150;
        const BETWEEN: Duration = Duration::from_millis(20);
        with_worker(|worker, _| async move {
            let (claim, pool) = (claimed(&worker).await, worker.database.pool().clone());
            count_updates(&pool).await;
            let (stops, end) = (watch::Sender::new(()), CancellationToken::new());
            let progress = Watched::default();
            let keep = worker.keep(&claim, &progress, stops.subscribe(), &end);
            let listening = worker
                .clone()
                .listen(watch::Sender::new(()), stops.clone(), end.clone());
            let mut heard = stops.subscribe();
            let begun = Instant::now();
            let happening = async {
                // It listens now.
                heard.changed().await.unwrap();
                for ring in 0..RINGS {
                    // What happens to other series, and now and then a job of another worker that is to be stopped.
                    let channel = if ring % 10 == 0 { "hilum_stop" } else { "hilum_event" };
                    sqlx::query("select pg_notify($1, '')")
                        .bind(channel)
                        .execute(&pool)
                        .await
                        .unwrap();
                    tokio::time::sleep(BETWEEN).await;
                }
                end.cancel();
            };
            let (stopped, (), ()) = tokio::join!(keep, listening, happening);
            assert_eq!(stopped, Stopped::Draining, "its lease was kept all the time");
            let periods = begun.elapsed().as_secs_f64() / PROGRESS_SECONDS;
            let updates = updates(&pool).await;
            println!("{RINGS} rings in {periods:.1} periods: {updates} updates");
            assert!(
                (1.0..=periods).contains(&f64::from(i32::try_from(updates).unwrap())),
                "{updates} in {periods:.1}"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn a_job_that_somebody_wants_stopped_is_seen_at_the_bell_and_nothing_is_written() {
        with_worker(|worker, _| async move {
            let (claim, pool) = (claimed(&worker).await, worker.database.pool().clone());
            let (stops, end) = (watch::Sender::new(()), CancellationToken::new());
            let mut heard = stops.subscribe();
            let listening = worker
                .clone()
                .listen(watch::Sender::new(()), stops.clone(), end.clone());
            let rung = async {
                heard.changed().await.unwrap();
                for wish in ["cancel", "supersede"] {
                    match wish {
                        "cancel" => drop(worker.database.cancel_job(claim.id, "test").await.unwrap()),
                        _ => {
                            let reopened = "update series set state = 'receiving'";
                            sqlx::query(reopened).execute(&pool).await.unwrap();
                            assert_eq!(worker.database.supersede_reopened().await.unwrap(), 1);
                        }
                    }
                    let told = tokio::time::timeout(Duration::from_secs(20), heard.changed()).await;
                    told.unwrap_or_else(|_| panic!("nobody rings for {wish}")).unwrap();
                    if wish == "cancel" {
                        count_updates(&pool).await;
                    }
                    let mut bell = stops.subscribe();
                    bell.mark_changed();
                    let before = updates(&pool).await;
                    let stopped = worker.keep(&claim, &Watched::default(), bell, &end).await;
                    let wanted = if wish == "cancel" {
                        Stopped::Canceled
                    } else {
                        Stopped::Lost
                    };
                    assert_eq!((stopped, updates(&pool).await - before), (wanted, 0));
                }
                end.cancel();
            };
            tokio::join!(listening, rung);
        })
        .await;
    }
}
