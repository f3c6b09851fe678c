//! The worker: makes jobs of settled series, claims them, keeps their leases while the core works, and ends them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::core::Core;
use super::error::JobError;
use super::names::host_name;
use super::settings::JobSettings;
use super::sweep::sweep;
use crate::database::{Backoff, Claim, Database, DatabaseError, Failures, JobEnd, JobProgress, Renewal, failpoint};
use crate::model::CancelFlag;
use crate::segment::{Observer, Stage};

/// Memory is counted in permits of so many bytes.
const PERMIT_BYTES: u64 = 1 << 20;
/// Progress is written at most so often.
const PROGRESS_SECONDS: f64 = 1.0;
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

/// How far a job is, told by the thread that works and read by the task that keeps the lease.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<JobProgress>>);

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
enum Stopped {
    Canceled,
    Lost,
    Draining,
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
    pub async fn run(self, drain: CancellationToken, end: CancellationToken) {
        let (wake, _) = watch::channel(());
        let mut tasks = JoinSet::new();
        let (database, bell, over) = (self.database.clone(), wake.clone(), drain.clone());
        tasks.spawn(async move { database.ring(&["hilum_event", "hilum_job"], &bell, &over).await });
        tasks.spawn(self.clone().sweep(drain.clone()));
        for _ in 0..self.settings.at_once.max(1) {
            tasks.spawn(self.clone().slot(wake.clone(), drain.clone(), end.clone()));
        }
        tasks.spawn(self.clone().housekeeping(wake.clone(), drain.clone(), end.clone()));
        while let Some(ended) = tasks.join_next().await {
            if let Err(failure) = ended {
                error!("a task of the worker ended: {failure}");
            }
        }
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
    async fn slot(self, wake: watch::Sender<()>, drain: CancellationToken, end: CancellationToken) {
        let mut told = wake.subscribe();
        let longest = Duration::from_secs_f64(self.settings.poll_seconds);
        let mut failures = Failures::new(Backoff::DATABASE);
        while !drain.is_cancelled() {
            match self.claim().await {
                Ok(Some(claim)) => {
                    failures.over();
                    self.one(claim, &wake, &end).await;
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

    /// One job from its claim to its end.
    async fn one(&self, claim: Claim, wake: &watch::Sender<()>, end: &CancellationToken) {
        info!(
            "job {} attempt {}: series {}",
            claim.id, claim.attempt, claim.series_uid
        );
        let (progress, cancel, stop) = (Watched::default(), CancelFlag::default(), CancellationToken::new());
        let work = self.work(&claim, &progress, &cancel, &stop);
        let keep = self.keep(&claim, &progress, &cancel, wake.subscribe(), end);
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

    /// Writes how a job ended, again and again while the database is away for less than the lease.
    async fn settle(&self, claim: &Claim, worked: Result<JobEnd, JobError>, stopped: Option<Stopped>) {
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

    /// Reads, waits for its share of memory, and runs the core on a thread. `cancel` tells the thread to stop, `stop` whoever waits here.
    async fn work(
        &self,
        claim: &Claim,
        progress: &Watched,
        cancel: &CancelFlag,
        stop: &CancellationToken,
    ) -> Result<JobEnd, JobError> {
        failpoint("job_claimed");
        let slices = self.database.slices_of(claim.series_id).await?;
        let held = self.database.instances_held(claim.series_id).await?;
        if i64::try_from(slices.len()).ok() != Some(held) {
            return Err(JobError::Ours {
                code: "slices_removed",
                sentence: format!(
                    "{} of {held} slices were removed by retention: send the series again, or fetch it from its PACS",
                    held - i64::try_from(slices.len()).unwrap_or(i64::MAX)
                ),
            });
        }
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

    /// Keeps the lease until there is a reason to stop.
    async fn keep(
        &self,
        claim: &Claim,
        progress: &Watched,
        cancel: &CancelFlag,
        mut told: watch::Receiver<()>,
        end: &CancellationToken,
    ) -> Stopped {
        let lease = Duration::from_secs_f64(self.settings.lease_seconds);
        let interval = lease.div_f64(3.0).min(Duration::from_secs_f64(PROGRESS_SECONDS));
        let mut held_until = Instant::now() + lease;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = told.changed() => {}
                () = end.cancelled() => return Stopped::Draining,
                () = sleep_until(held_until) => return Stopped::Lost,
            }
            if cancel.is_canceled() {
                continue;
            }
            match self
                .database
                .renew_job(claim, self.settings.lease_seconds, &progress.read())
                .await
            {
                Ok(Renewal::Held) => held_until = Instant::now() + lease,
                Ok(Renewal::CancelRequested) => return Stopped::Canceled,
                Ok(Renewal::Lost) => return Stopped::Lost,
                Err(failure) => warn!("job {}: the lease cannot be renewed yet: {failure}", claim.id),
            }
        }
    }
}

/// Runs on a thread that may block; a panic there is ours, and does not take the worker along.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
) -> Result<T, JobError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|failure| {
        Err(JobError::Ours {
            code: "internal",
            sentence: format!("a fault in Hilum: {failure}"),
        })
    })
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

    use std::path::{Path, PathBuf};

    use super::*;
    use crate::database::JobSpecification;
    use crate::database::testing::scratch;
    use crate::dicom::{DecodeOptions, FrameReader};
    use crate::lungs::MaskLimits;
    use crate::model::{Device, Manifest, Session, SessionOptions, find_library};
    use crate::segment::{OutputSettings, Settings};
    use crate::series::SeriesLimits;

    /// A worker whose network is never asked. `None`, and said: ONNX Runtime's library is missing.
    fn worker(database: &Database, data: &Path) -> Option<Worker> {
        let library = match find_library(None) {
            Ok(library) => library,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                println!("skipped: {error}");
                return None;
            }
        };
        let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/networks/position.toml");
        let manifest = Manifest::load(&network).unwrap();
        let options = SessionOptions {
            device: Device::Cpu,
            runtime_library: Some(library),
            threads: Some(1),
            ..SessionOptions::default()
        };
        let session = Session::open(&manifest, &options).unwrap();
        let settings = Settings {
            series: SeriesLimits::default(),
            mask: MaskLimits::default(),
            output: OutputSettings::default(),
            further_profiles: Vec::new(),
        };
        let reader = FrameReader::new(DecodeOptions::default());
        let core = Core::new(manifest, session, reader, settings, data.to_owned(), data.join("inbox"));
        let (core, name) = (Arc::new(core), "w".to_owned());
        Some(Worker::new(database.clone(), core, JobSettings::defaults(), name))
    }

    /// Runs a test with a worker over a database of its own, and its data folder.
    async fn with_worker<F: Future<Output = ()>>(test: impl FnOnce(Worker, PathBuf) -> F) {
        scratch(|database, _| async move {
            let data = tempfile::tempdir().unwrap();
            if let Some(worker) = worker(&database, data.path()) {
                test(worker, data.path().to_owned()).await;
            }
        })
        .await;
    }

    /// A claimed job of a series without slices.
    async fn claimed(worker: &Worker) -> Claim {
        let database = &worker.database;
        sqlx::query("insert into series (study_uid, series_uid, state, revision, settled_at) values ('1.2', '1.3', 'settled', 'a', now())")
            .execute(database.pool())
            .await
            .unwrap();
        database.make_job(&worker.core.specification()).await.unwrap().unwrap();
        database.claim_job(&worker.name, 60.0, true).await.unwrap().unwrap()
    }

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
            let (wake, _) = watch::channel(());
            let end = CancellationToken::new();
            let canceled = async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                worker.database.cancel_job(id, "test").await.unwrap();
            };
            let both = async { tokio::join!(worker.one(claim, &wake, &end), canceled) };
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
}
