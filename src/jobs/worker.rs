//! The worker: makes jobs of settled series, claims them, and sees each through. One attempt at a job is [`attempt`], its lease [`lease`], its end [`ending`].

mod attempt;
mod ending;
mod lease;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub(super) use self::attempt::on_thread;
use super::core::Core;
use super::error::NetworkLost;
use super::names::host_name;
use super::settings::JobSettings;
use super::sweep::sweep;
use crate::database::{Backoff, Claim, Database, DatabaseError, Failures};

/// Memory is counted in permits of so many bytes.
const PERMIT_BYTES: u64 = 1 << 20;
/// What killed workers left is looked for so often, beside when one was found dead.
const SWEEP: Duration = Duration::from_secs(3600);

/// A worker of this process. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    database: Database,
    core: Arc<Core>,
    settings: JobSettings,
    name: String,
    host: String,
    memory: Arc<Semaphore>,
    permits: u32,
    /// Held while a job is claimed, so that one which must run alone never has another beside it.
    in_hand: Arc<tokio::sync::Mutex<InHand>>,
    found_dead: Arc<Notify>,
}

/// The jobs that a worker holds.
#[derive(Debug, Default)]
struct InHand {
    jobs: usize,
    /// The only one must run alone.
    alone: bool,
}

impl Worker {
    /// A worker that does nothing yet.
    #[must_use]
    pub fn new(database: Database, core: Arc<Core>, settings: JobSettings, name: String) -> Worker {
        let permits = u32::try_from(settings.memory_bytes / PERMIT_BYTES)
            .unwrap_or(u32::MAX)
            .max(1);
        Worker {
            database,
            core,
            name,
            host: host_name(),
            memory: Arc::new(Semaphore::new(permits as usize)),
            permits,
            in_hand: Arc::default(),
            found_dead: Arc::new(Notify::new()),
            settings,
        }
    }

    /// Works until `drain` is canceled; then takes nothing new, and hands back what is not finished when `end` is canceled.
    ///
    /// # Errors
    /// The network is lost: it works on nothing more.
    pub async fn run(self, drain: CancellationToken, end: CancellationToken) -> Result<(), NetworkLost> {
        // Of this worker alone.
        let drain = drain.child_token();
        self.register(&drain).await;
        // What there may be to do, and what there may be to stop: no other change in the database is looked at by who keeps a job.
        let (wake, stop) = (watch::Sender::new(()), watch::Sender::new(()));
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().listen(wake.clone(), stop.clone(), drain.clone()));
        tasks.spawn(self.clone().sweep(drain.clone()));
        tasks.spawn(self.clone().drain_when_lost(drain.clone()));
        for _ in 0..self.settings.at_once.max(1) {
            tasks.spawn(
                self.clone()
                    .slot(wake.clone(), stop.clone(), drain.clone(), end.clone()),
            );
        }
        tasks.spawn(self.clone().housekeeping(wake.clone(), drain.clone(), end.clone()));
        while let Some(ended) = tasks.join_next().await {
            if let Err(failure) = ended {
                error!("a task of the worker ended: {failure}");
            }
        }
        if self.core.lost().is_cancelled() {
            return Err(NetworkLost);
        }
        Ok(())
    }

    /// Says on which host this worker is, before it claims: what must run alone is alone on its host.
    async fn register(&self, drain: &CancellationToken) {
        tokio::select! {
            told = self.database.worker_lives(&self.name, &self.host) => {
                // It is said again and again.
                if let Err(failure) = told {
                    warn!("the queue cannot be told of this worker yet: {failure}");
                }
            }
            () = drain.cancelled() => {}
        }
    }

    /// Takes nothing more once the network is lost, which would fail one job after another.
    async fn drain_when_lost(self, drain: CancellationToken) {
        tokio::select! {
            () = self.core.lost().cancelled() => drain.cancel(),
            () = drain.cancelled() => {}
        }
    }

    /// Rings the two bells of this worker.
    async fn listen(self, wake: watch::Sender<()>, stop: watch::Sender<()>, drain: CancellationToken) {
        let bells = [("hilum_event", &wake), ("hilum_job", &wake), ("hilum_stop", &stop)];
        self.database.ring(&bells, &drain).await;
    }

    /// Says that this worker lives, takes back what dead ones left, makes jobs of settled series.
    async fn housekeeping(self, wake: watch::Sender<()>, drain: CancellationToken, end: CancellationToken) {
        let mut told = wake.subscribe();
        let longest = Duration::from_secs_f64(self.settings.poll_seconds);
        let specification = self.core.specification();
        let (mut heard, mut failures) = (None::<Instant>, Failures::new(Backoff::DATABASE));
        while !drain.is_cancelled() {
            let round = async {
                if heard.is_none_or(|at| at.elapsed().as_secs_f64() > self.settings.lease_seconds / 4.0) {
                    self.database.worker_lives(&self.name, &self.host).await?;
                    self.database.forget_workers().await?;
                    heard = Some(Instant::now());
                }
                if self.database.reap_jobs(&self.name).await? > 0 {
                    info!("took back jobs of workers that are gone");
                    self.found_dead.notify_one();
                }
                self.database.supersede_reopened().await?;
                while self.database.make_job(&specification).await?.is_some() {}
                Ok::<(), DatabaseError>(())
            };
            if let Err(failure) = round.await {
                warn!("the queue cannot be looked after: {failure}");
                pause(failures.wait(), &drain).await;
                continue;
            }
            failures.over();
            tokio::select! {
                _ = timeout(longest, told.changed()) => {}
                () = drain.cancelled() => {}
            }
        }
        // While it drains, it still says that it lives.
        while self.in_hand.lock().await.jobs > 0 && !end.is_cancelled() {
            let _ = self.database.worker_lives(&self.name, &self.host).await;
            pause(longest, &end).await;
        }
    }

    /// Removes what killed workers left among the results: at the start, where one was found dead, and now and then.
    async fn sweep(self, drain: CancellationToken) {
        loop {
            match sweep(&self.database, self.core.data()).await {
                Ok(0) => {}
                Ok(folders) => info!("removed {folders} folders of results that no job has"),
                Err(failure) => warn!("the results cannot be swept: {failure}"),
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = self.found_dead.notified() => {}
                () = drain.cancelled() => return,
            }
        }
    }

    /// One place for a job: claims, works, claims again.
    async fn slot(
        self,
        wake: watch::Sender<()>,
        stop: watch::Sender<()>,
        drain: CancellationToken,
        end: CancellationToken,
    ) {
        let mut told = wake.subscribe();
        let longest = Duration::from_secs_f64(self.settings.poll_seconds);
        let mut failures = Failures::new(Backoff::DATABASE);
        while !drain.is_cancelled() {
            match self.claim().await {
                Ok(Some(claim)) => {
                    failures.over();
                    self.one(claim, &stop, &end).await;
                    self.let_go().await;
                }
                Ok(None) => {
                    failures.over();
                    tokio::select! {
                        _ = timeout(longest, told.changed()) => {}
                        () = drain.cancelled() => {}
                    }
                }
                Err(failure) => {
                    warn!("cannot claim a job: {failure}");
                    pause(failures.wait(), &drain).await;
                }
            }
        }
    }

    /// The next job for one place; none while a job that must run alone is in hand, or is the next and waits for those in hand.
    async fn claim(&self) -> Result<Option<Claim>, DatabaseError> {
        let mut in_hand = self.in_hand.lock().await;
        if in_hand.alone {
            return Ok(None);
        }
        let idle = in_hand.jobs == 0;
        let lease_seconds = self.settings.lease_seconds;
        let specification = self.core.specification();
        while let Some(claimed) = self.database.claim_job(&self.name, lease_seconds, idle).await? {
            if let Some(claim) = self.database.run_with(claimed, &self.name, &specification).await? {
                in_hand.jobs += 1;
                in_hand.alone = claim.alone;
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// A job is over here.
    async fn let_go(&self) {
        let mut in_hand = self.in_hand.lock().await;
        in_hand.jobs -= 1;
        in_hand.alone = false;
    }
}

async fn pause(longest: Duration, end: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(longest) => {}
        () = end.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::testing::{phantom_queued, with_worker, worker};
    use super::*;
    use crate::database::JobSpecification;
    use crate::database::testing::scratch;
    use crate::model::CancelFlag;

    #[tokio::test]
    async fn a_job_that_must_run_alone_is_next_although_jobs_keep_coming() {
        scratch(|database, _| async move {
            let data = tempfile::tempdir().unwrap();
            let Some(worker) = worker(&database, data.path()) else {
                return;
            };
            for series in ["first", "alone", "younger"] {
                sqlx::query("insert into series (study_uid, series_uid, state, revision, settled_at) values ('1.2', $1, 'settled', 'a', now())")
                    .bind(series)
                    .execute(database.pool())
                    .await
                    .unwrap();
                let made = database.make_job(&worker.core.specification()).await.unwrap().unwrap();
                sqlx::query("update job set alone = true where id = $1 and $2 = 'alone'")
                    .bind(made.id)
                    .bind(series)
                    .execute(database.pool())
                    .await
                    .unwrap();
            }
            let claimed = async || worker.claim().await.unwrap().map(|claim| claim.series_uid);
            assert_eq!(claimed().await.as_deref(), Some("first"));
            assert_eq!(claimed().await, None, "the next one waits for the first, and nobody passes it");
            worker.let_go().await;
            assert_eq!(claimed().await.as_deref(), Some("alone"));
            assert_eq!(claimed().await, None, "nothing starts beside it");
            worker.let_go().await;
            assert_eq!(claimed().await.as_deref(), Some("younger"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_job_that_waited_for_another_network_is_worked_on_as_one_of_this() {
        with_worker(|worker, _| async move {
            let ours = worker.core.specification();
            let before = JobSpecification {
                model_digest: "before".into(),
                ..ours.clone()
            };
            let series = "insert into series (study_uid, series_uid, state, revision, settled_at) values ('1.2', '1.3', 'settled', 'a', now())";
            sqlx::query(series).execute(worker.database.pool()).await.unwrap();
            let made = worker.database.make_job(&before).await.unwrap().unwrap();
            let claim = worker.claim().await.unwrap().unwrap();
            assert_eq!((claim.id, &claim.specification), (made.id, &ours));
            let row = worker.database.job(made.id).await.unwrap().unwrap();
            assert_eq!(row.model_digest, ours.model_digest);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_network_ends_the_worker_and_not_the_queue() {
        with_worker(|worker, data| async move {
            let jobs = [
                phantom_queued(&worker, &data, 1).await,
                phantom_queued(&worker, &data, 2).await,
            ];
            worker.core.session(&CancelFlag::default()).unwrap().lose();
            let (database, end) = (worker.database.clone(), CancellationToken::new());
            let running = worker.run(end.clone(), end.clone());
            let ended = tokio::time::timeout(Duration::from_secs(120), running).await.unwrap();
            assert!(ended.is_err() && !end.is_cancelled());
            let mut attempts = 0;
            for id in jobs {
                let job = database.job(id).await.unwrap().unwrap();
                assert_eq!(job.state, "queued", "it waits for a worker that has a network");
                attempts += job.attempts;
            }
            assert!((1..=2).contains(&attempts), "what was in hand alone: {attempts}");
            let why: String =
                sqlx::query_scalar("select detail ->> 'why' from event where kind = 'job_handed_back' limit 1")
                    .fetch_one(database.pool())
                    .await
                    .unwrap();
            assert!(why.contains("the thread that runs the network has ended"), "{why}");
        })
        .await;
    }
}
