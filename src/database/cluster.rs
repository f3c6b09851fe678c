//! The private cluster: a PostgreSQL server of our own in the data folder, for the demo, tests and a single box.
//!
//! It listens on a socket in a folder of our own and nowhere else. Run as root, Hilum starts it as the user `postgres`, since PostgreSQL refuses root. A server that survived
//! a killed Hilum is adopted, and one that dies is started again; a lock on the data folder keeps two Hilums from sharing one cluster. A cluster of another major version is an error that says how to move it.

mod programs;

use std::fs::File;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Failures};
use programs::{
    ServerUser, check_version, find_programs, io_error, last_lines, launch, lock, make_cluster, make_folder,
    make_socket_folder, permit, running, server_user, socket_folder,
};

/// The role and the database.
const NAME: &str = "hilum";
/// The port is only a part of the socket's name.
const PORT: u16 = 5432;
/// How long a server may take to start: it may have to recover.
const START_SECONDS: u64 = 120;
/// So often it is looked whether the server lives.
const LOOK: Duration = Duration::from_millis(250);
/// So long the server may take to end in order ("fast": what is under way is rolled back), and so long once it is to end at once, after which it has to recover at its next start.
const STOP: [(Signal, Duration); 2] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::QUIT, Duration::from_secs(3)),
];
/// Seconds that both take together at most.
pub const LONGEST_STOP_SECONDS: u64 = STOP[0].1.as_secs() + STOP[1].1.as_secs();
/// So often it is looked whether it has ended.
const LOOK_FOR_END: Duration = Duration::from_millis(20);
/// Between two attempts to start it again.
const START_AGAIN: Backoff = Backoff {
    first_seconds: 0.5,
    longest_seconds: 10.0,
};

/// A cluster of another major version than that of the programs.
#[derive(Debug, thiserror::Error)]
#[error(
    "the private database in {} was made by PostgreSQL {made_by}, but the programs in {} are of {installed}. Install PostgreSQL {made_by} beside it (Debian: apt-get install postgresql-{made_by}) and name its folder, {}, in service.postgres_folder; or move the data, with Hilum stopped (systemctl stop hilum), by these lines in one shell of {by}:\n{lines}\nThen start Hilum. {}.{made_by} is what the data were before; remove it when all is well",
    .data.display(), .programs.display(), .old_programs.display(), .data.display()
)]
pub struct OtherVersion {
    /// The cluster.
    pub data: PathBuf,
    /// Its version.
    pub made_by: String,
    /// Where PostgreSQL is installed.
    pub programs: PathBuf,
    /// Its version.
    pub installed: String,
    /// Where Debian puts the old server.
    pub old_programs: PathBuf,
    /// Whose shell.
    pub by: &'static str,
    /// What to type.
    pub lines: String,
}

/// Why there is no private cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No PostgreSQL is installed.
    #[error(
        "no PostgreSQL programs were found ({0}): install them (Debian: apt-get install postgresql), name their folder in service.postgres_folder, or name a server in DATABASE_URL"
    )]
    NoPrograms(String),
    /// The cluster was made by another major version.
    #[error(transparent)]
    OtherVersion(Box<OtherVersion>),
    /// Another Hilum uses the data folder.
    #[error("another Hilum uses the private database in {0}: for several processes name one server in DATABASE_URL")]
    InUse(PathBuf),
    /// A program failed.
    #[error("{program} failed: {why}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        why: String,
    },
    /// The user under which the server runs cannot enter the folder.
    #[error(
        "PostgreSQL does not run as root, and the user `postgres` under which it would run cannot enter {0}: choose another service.data_folder, such as /var/lib/hilum"
    )]
    NoEntry(PathBuf),
    /// Hilum runs as root, and there is no user for the server.
    #[error("PostgreSQL does not run as root, and there is no user `postgres` here")]
    NoUser,
    /// Where the folder of the socket is to be there is a link, a file, or somebody else's folder.
    #[error("{0} is not a folder of Hilum's own: the socket of the private database does not go there; remove it")]
    Foreign(PathBuf),
    /// The file system.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        error: io::Error,
    },
    /// The server does not answer.
    #[error("the private database did not start within {START_SECONDS} seconds; its log is {}", .0.display())]
    Silent(PathBuf),
    /// The server answers with an error.
    #[error("the private database: {0}")]
    Sql(#[from] sqlx::Error),
}

/// A running server of our own.
#[derive(Debug)]
pub struct PrivateCluster {
    socket_folder: PathBuf,
    data: PathBuf,
    log: PathBuf,
    programs: PathBuf,
    user: Option<ServerUser>,
    server: Server,
    _lock: File,
}

#[derive(Debug)]
enum Server {
    Child(Child),
    Adopted,
    Gone,
}

impl PrivateCluster {
    /// Starts the cluster in `postgres` under the data folder, made at its first use, or adopts the server that runs there already. `programs` is the folder of `postgres` and
    /// `initdb`; empty: it is looked for in PATH and where Debian, Fedora and Homebrew put it.
    ///
    /// # Errors
    /// What keeps it from running, with what to do.
    pub async fn start(data_folder: &Path, programs: &Path) -> Result<PrivateCluster, ClusterError> {
        let programs = find_programs(programs)?;
        let user = server_user()?;
        let lock = lock(data_folder)?;
        let home = data_folder.join("postgres");
        make_folder(&home, user)?;
        if let Some(user) = user {
            // The server's user may pass through our folder and see nothing in it.
            chown(data_folder, None, Some(user.gid)).map_err(|error| io_error(data_folder, error))?;
            permit(data_folder, 0o710)?;
        }
        let data = home.join("data");
        let sockets = socket_folder(&home);
        make_socket_folder(&sockets, user)?;
        check_version(&data, &programs, &sockets, user)?;
        if !data.join("PG_VERSION").is_file() {
            make_cluster(&data, &programs, user)?;
        }
        let log = home.join("log");
        let mut cluster = PrivateCluster {
            socket_folder: sockets,
            data,
            log,
            programs,
            user,
            server: Server::Gone,
            _lock: lock,
        };
        if let Err(error) = cluster.start_again().await {
            cluster.stop();
            return Err(error);
        }
        Ok(cluster)
    }

    /// The URL of Hilum's database.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    fn url_of(&self, database: &str) -> String {
        let folder = self
            .socket_folder
            .display()
            .to_string()
            .replace('/', "%2F")
            .replace(' ', "%20");
        format!("postgres://{NAME}@{folder}:{PORT}/{database}")
    }

    /// Waits until the server answers, and makes the database where there is none yet.
    async fn ready(&mut self) -> Result<(), ClusterError> {
        for _ in 0..START_SECONDS * 20 {
            if let Ok(mut connection) = PgConnection::connect(&self.url_of("postgres")).await {
                let exists = sqlx::query_scalar!("select 1 as one from pg_database where datname = $1", NAME)
                    .fetch_optional(&mut connection)
                    .await?;
                if exists.is_none() {
                    sqlx::query("create database hilum").execute(&mut connection).await?;
                }
                let _ = connection.close().await;
                return Ok(());
            }
            match &mut self.server {
                Server::Child(child) => {
                    if let Ok(Some(status)) = child.try_wait() {
                        return Err(ClusterError::Program {
                            program: "postgres",
                            why: format!("{status}; {}", last_lines(&self.log)),
                        });
                    }
                }
                // It was about to end when it was found.
                Server::Adopted if running(&self.data).is_none() => self.server = self.launched()?,
                Server::Adopted | Server::Gone => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(ClusterError::Silent(self.log.clone()))
    }

    /// Looks after the server until `ends`: where it died it is started again. What its own processes hold of a server that was killed they let go of soon, so a
    /// start that fails is tried again. Gives the cluster back, to be stopped.
    pub async fn keep(mut self, ends: CancellationToken) -> PrivateCluster {
        let (mut wait, mut failures) = (LOOK, Failures::new(START_AGAIN));
        loop {
            tokio::select! {
                () = ends.cancelled() => return self,
                () = tokio::time::sleep(wait) => {}
            }
            wait = LOOK;
            if self.lives() {
                failures.over();
                continue;
            }
            tracing::error!("the private database died; it is started again");
            let started = tokio::select! {
                () = ends.cancelled() => return self,
                started = self.start_again() => started,
            };
            match started {
                Ok(()) => tracing::info!("the private database is back"),
                Err(error) => {
                    tracing::error!(%error, "the private database could not be started again yet");
                    wait = failures.wait();
                }
            }
        }
    }

    fn lives(&mut self) -> bool {
        self.pid().is_some()
    }

    /// The server, while it lives. Asked anew each time: of one that died the number may be another's.
    fn pid(&mut self) -> Option<Pid> {
        match &mut self.server {
            Server::Child(child) => match child.try_wait() {
                Ok(None) => Pid::from_raw(i32::try_from(child.id()).ok()?),
                _ => None,
            },
            Server::Adopted => running(&self.data),
            Server::Gone => None,
        }
    }

    async fn start_again(&mut self) -> Result<(), ClusterError> {
        self.server = match running(&self.data) {
            Some(_) => Server::Adopted,
            None => self.launched()?,
        };
        self.ready().await
    }

    /// A server that is started now.
    fn launched(&self) -> Result<Server, ClusterError> {
        let child = launch(&self.data, &self.socket_folder, &self.programs, &self.log, self.user)?;
        Ok(Server::Child(child))
    }

    /// Leaves the server running and lets go of it, as a process that is killed does. For tests.
    #[doc(hidden)]
    pub fn abandon(mut self) {
        let nothing = Server::Gone;
        if let Server::Child(mut child) = std::mem::replace(&mut self.server, nothing) {
            // Somebody has to see it end; of a process that was killed that is init.
            std::thread::spawn(move || child.wait());
        }
    }

    /// Stops the server and waits for its end, for 13 seconds at most.
    pub fn stop(&mut self) {
        for (signal, longest) in STOP {
            let Some(pid) = self.pid() else { return };
            let _ = kill_process(pid, signal);
            let told = Instant::now();
            while told.elapsed() < longest {
                if !self.lives() {
                    return;
                }
                std::thread::sleep(LOOK_FOR_END);
            }
        }
        tracing::error!("the private database does not end");
    }
}

impl Drop for PrivateCluster {
    fn drop(&mut self) {
        self.stop();
    }
}
