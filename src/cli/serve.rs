//! `hilum serve`: the service in one process, and `hilum migrate`, which brings its database up to this version.

mod network;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::network::Network;
use super::{End, say};
use crate::config::Settings;
use crate::database::{Database, LONGEST_STOP_SECONDS, PrivateCluster, Watcher};
use crate::delivery;
use crate::dicom::Limits;
use crate::http::{self, AppState, ServiceSettings, Users, may_listen, record};
use crate::inbox::{self, Ingest};
use crate::jobs::{Worker, worker_name};

/// Once `service.drain_seconds` are over, what is broken off has so long to come to its end.
const BROKEN_OFF: Duration = Duration::from_secs(10);
/// So long connections to the database are waited for that are still in somebody's hands.
const CONNECTIONS: Duration = Duration::from_secs(2);
/// So long threads are waited for that are still busy at the very end. They are left then.
const THREADS: Duration = Duration::from_secs(5);
/// The service has ended so many seconds after `service.drain_seconds` at the latest, a private database included. Who ends it by force waits longer.
pub const LONGEST_END_SECONDS: u64 =
    BROKEN_OFF.as_secs() + CONNECTIONS.as_secs() + LONGEST_STOP_SECONDS + THREADS.as_secs();

/// What `hilum serve` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What this process does; several processes over one database may share the work.
    #[arg(long, value_delimiter = ',', value_name = "ROLE,...", default_values_t = [ProcessRole::Receive, ProcessRole::Work, ProcessRole::Deliver])]
    roles: Vec<ProcessRole>,
    /// Listen off loopback without credentials.
    #[arg(long)]
    insecure: bool,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProcessRole {
    /// Takes uploads, settles series, asks PACS for series.
    Receive,
    /// Segments.
    Work,
    /// Sends results.
    Deliver,
}

impl std::fmt::Display for ProcessRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ProcessRole::Receive => "receive",
            ProcessRole::Work => "work",
            ProcessRole::Deliver => "deliver",
        })
    }
}

/// The database, and the server of our own where it is one.
struct State {
    database: Database,
    cluster: Option<PrivateCluster>,
}

pub(super) fn run(arguments: &Arguments, mut settings: Settings) -> anyhow::Result<End> {
    settings.service.insecure |= arguments.insecure;
    may_listen(&settings.service, &settings.user)?;
    if arguments.roles.contains(&ProcessRole::Work) {
        memory_holds_a_series(&settings)?;
    }
    let data = data_folder(&settings.service.data_folder)?;
    to_its_end(serve(arguments, &settings, &data))
}

/// A series that is taken has to fit into the memory that the jobs share: there is no smaller share for it, so that it would run and go beyond it.
pub(super) fn memory_holds_a_series(settings: &Settings) -> anyhow::Result<()> {
    let (jobs, series) = (settings.jobs.memory_bytes, settings.series.max_memory_bytes);
    anyhow::ensure!(
        jobs >= series,
        "jobs.memory_bytes is {jobs}, and one series may need {series} (series.max_memory_bytes): raise the one or lower the other"
    );
    Ok(())
}

pub(super) fn migrate(settings: &Settings) -> anyhow::Result<End> {
    let data = data_folder(&settings.service.data_folder)?;
    to_its_end(async {
        let mut signals = Signals::new()?;
        match signals.before(open(settings, &data)).await? {
            Ok(state) => {
                say("the database is of this version");
                drop(state);
                Ok(End::Done)
            }
            Err(signal) => anyhow::bail!("{signal}: the database may not be of this version yet"),
        }
    })
}

/// Runs something to its end. Threads that are busy then, which nobody can break off, hold the process up for [`THREADS`] at most.
fn to_its_end<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // A client of TLS may be made by several parts; the first one chooses the implementation for all.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(THREADS);
    ended
}

/// The data folder, made where it is missing, which nobody else can enter.
fn data_folder(path: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the data folder {}", path.display()))?;
    let path = path
        .canonicalize()
        .with_context(|| format!("cannot enter {}", path.display()))?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    // 0710 is what a private cluster needs under root: its user passes through.
    if mode & 0o067 != 0 {
        fs::set_permissions(&path, Permissions::from_mode(0o700))
            .with_context(|| format!("cannot keep others out of {}", path.display()))?;
    }
    Ok(path)
}

/// The URL of the database that the settings or the environment name.
pub(super) fn named_database(service: &ServiceSettings) -> Option<String> {
    Some(service.database_url.clone())
        .filter(|url| !url.is_empty())
        .or_else(|| std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()))
}

/// Connects to the database that the settings or the environment name, or starts the private one; brings its schema up to this version.
async fn open(settings: &Settings, data: &Path) -> anyhow::Result<State> {
    let service = &settings.service;
    let (url, cluster) = match named_database(service) {
        Some(url) => (url, None),
        None => {
            let cluster = PrivateCluster::start(data, &service.postgres_folder).await?;
            (cluster.url(), Some(cluster))
        }
    };
    let database = Database::connect(&url, service.database_connections)
        .await
        .context("cannot reach the database (service.database_url, DATABASE_URL)")?;
    database.migrate().await?;
    Ok(State { database, cluster })
}

async fn serve(arguments: &Arguments, settings: &Settings, data: &Path) -> anyhow::Result<End> {
    // Before anything else: a signal that came earlier would end this process and leave a database of its own running.
    let mut signals = Signals::new()?;
    let works = arguments.roles.contains(&ProcessRole::Work);
    let network = Network::named(settings, works)?;
    let State { database, cluster } = match signals.before(open(settings, data)).await? {
        Ok(opened) => opened,
        Err(signal) => {
            info!("{signal}: it ends before it has started");
            return Ok(End::Done);
        }
    };
    let without_database = CancellationToken::new();
    let cluster = cluster.map(|cluster| tokio::spawn(cluster.keep(without_database.clone())));
    let ended = work(arguments, settings, data, network, &database, &mut signals).await;
    if tokio::time::timeout(CONNECTIONS, database.close()).await.is_err() {
        warn!("not every connection to the database could be closed");
    }
    without_database.cancel();
    if let Some(cluster) = cluster {
        let mut cluster = cluster.await?;
        tokio::task::spawn_blocking(move || cluster.stop()).await?;
    }
    ended
}

/// Runs the parts of this process until a signal comes, or one of them cannot go on, and drains.
async fn work(
    arguments: &Arguments,
    settings: &Settings,
    data: &Path,
    network: Network,
    database: &Database,
    signals: &mut Signals,
) -> anyhow::Result<End> {
    let has = |role| arguments.roles.contains(&role);
    let (tell, model) = watch::channel(network.state());
    let Network { to_load, specification } = network;
    let name = worker_name();
    let (drain, end) = (CancellationToken::new(), CancellationToken::new());
    // Also where the rest cannot be started.
    let _over = (drain.clone().drop_guard(), end.clone().drop_guard());
    let tasks = TaskTracker::new();

    let ingest = Ingest::open(
        database.clone(),
        &data.join("inbox"),
        settings.inbox.clone(),
        Limits::default(),
    )?;
    if has(ProcessRole::Receive) {
        tasks.spawn(inbox::run(
            database.clone(),
            ingest.clone(),
            settings.inbox.clone(),
            settings.pacs.clone(),
            drain.clone(),
        ));
        let poller = inbox::poller::run(database.clone(), ingest.clone(), settings.pacs.clone(), drain.clone());
        tasks.spawn(or_end(poller, drain.clone()));
    }
    if let Some(manifest) = to_load {
        let (settings, data, database, name) = (settings.clone(), data.to_owned(), database.clone(), name.clone());
        let (drain, end) = (drain.clone(), end.clone());
        tasks.spawn(async move {
            if let Some(core) = network::load(manifest, &settings, &data, &tell, &drain).await {
                let worker = Worker::new(database, core, settings.jobs, name);
                or_end(worker.run(drain.clone(), end), drain).await;
            }
        });
    }
    if has(ProcessRole::Deliver) {
        let deliveries = delivery::run(
            database.clone(),
            data.to_owned(),
            settings.delivery.clone(),
            settings.pacs.clone(),
            name,
            drain.clone(),
        );
        tasks.spawn(or_end(deliveries, drain.clone()));
    }
    let receiving = has(ProcessRole::Receive).then_some(ingest);
    let pacs = Arc::new(settings.pacs_names());
    let app = AppState {
        watcher: Watcher::start(database.clone(), drain.clone()),
        event_streams: Arc::new(Semaphore::new(
            settings.service.max_event_streams.min(Semaphore::MAX_PERMITS),
        )),
        database: database.clone(),
        settings: Arc::new(settings.service.clone()),
        data_folder: data.to_owned(),
        users: Users::new(settings.user.clone())?,
        specification,
        pacs: Arc::clone(&pacs),
        disk_limits: settings.inbox.disk_limits(),
        model,
        recorder: record().context("another recorder of metrics is installed")?,
    };
    let stow = receiving.map(|ingest| http::stow::routes(ingest, pacs));
    let router = http::router(app, stow.unwrap_or_default());
    let listener = tokio::net::TcpListener::bind(settings.service.listen)
        .await
        .with_context(|| format!("cannot listen on {} (service.listen)", settings.service.listen))?;
    let address = listener.local_addr()?;
    say(format!("hilum listens on http://{address}/"));
    let head = Duration::try_from_secs_f64(settings.service.head_seconds).context("service.head_seconds")?;
    // Uploads that are under way are waited for, as jobs in hand are.
    tasks.spawn(http::listen(listener, router, head, drain.clone(), end.clone()));

    let (stopped, ended) = tokio::select! {
        signal = signals.next() => (signal, End::Done),
        () = drain.cancelled() => ("a part cannot run", End::Failed),
    };
    info!("{stopped}: draining");
    drain.cancel();
    tasks.close();
    let longest = Duration::from_secs_f64(settings.service.drain_seconds);
    if tokio::time::timeout(longest, tasks.wait()).await.is_err() {
        warn!(
            "not everything ended within {} s: jobs are handed back, uploads are broken off",
            settings.service.drain_seconds
        );
        end.cancel();
        let _ = tokio::time::timeout(BROKEN_OFF, tasks.wait()).await;
    }
    Ok(ended)
}

/// A part that cannot run at all ends the whole, with its reason; the exit code says so, so that who looks after the process starts it again.
async fn or_end<E: std::fmt::Display>(part: impl Future<Output = Result<(), E>>, drain: CancellationToken) {
    if let Err(error) = part.await {
        error!("{error}");
        drain.cancel();
    }
}

/// The signals that tell this process to end. From when it is made they do nothing else.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one; its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// What comes of a work, or the name of a signal that came before its end: then the work was given up, and a private database that it had started is stopped.
    async fn before<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<Result<T, &'static str>> {
        tokio::select! {
            done = work => Ok(Ok(done?)),
            signal = self.next() => Ok(Err(signal)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_nobody_can_break_off_holds_the_end_up_for_the_stated_time() {
        let begun = Instant::now();
        let ended = to_its_end(async {
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(120)));
            Ok(7)
        });
        assert_eq!(ended.unwrap(), 7);
        let held_up = begun.elapsed();
        assert!((THREADS..THREADS * 4).contains(&held_up), "{held_up:?}");
    }

    #[test]
    fn jobs_that_share_less_memory_than_one_series_may_need_are_refused_at_the_start() {
        let mut settings = Settings::load(None).unwrap();
        assert!(memory_holds_a_series(&settings).is_ok());
        settings.jobs.memory_bytes = 1 << 30;
        let roles = vec![ProcessRole::Work];
        let insecure = false;
        let refused = run(&Arguments { roles, insecure }, settings.clone())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("jobs.memory_bytes") && refused.contains("series.max_memory_bytes"),
            "{refused}"
        );
        settings.series.max_memory_bytes = 1 << 30;
        assert!(memory_holds_a_series(&settings).is_ok());
    }
}
