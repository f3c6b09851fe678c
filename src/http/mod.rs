//! The HTTP surface: STOW-RS in, the REST interface, events, results, health, metrics and the first page.

mod access;
mod body;
mod description;
mod events;
mod health;
mod jobs;
mod listen;
mod measurements;
mod operations;
mod pages;
mod problem;
mod results;
mod retrievals;
mod routes;
mod series;
mod settings;
pub mod stow;
mod shapes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::database::{Database, JobSpecification, Watcher};
use crate::inbox::DiskLimits;

pub use access::{Access, Users, may_listen};
pub use health::{ModelState, Recorder, record};
pub use listen::listen;
pub use problem::Problem;
pub use routes::{router, table};
pub use settings::{Role, ServiceSettings, User};

/// What every request may reach. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The database.
    pub database: Database,
    /// Where the service listens.
    pub settings: Arc<ServiceSettings>,
    /// Where results lie.
    pub data_folder: PathBuf,
    /// Who may ask.
    pub users: Users,
    /// Tells what happens.
    pub watcher: Watcher,
    /// A permit for each stream of events that may be open.
    pub event_streams: Arc<Semaphore>,
    /// What jobs are made with now; `None`: not known in this process.
    pub specification: Option<Arc<JobSpecification>>,
    /// Names of the `[[pacs]]` blocks.
    pub pacs: Arc<Vec<String>>,
    /// From when on the disk of the data folder is too full for uploads.
    pub disk_limits: DiskLimits,
    /// How it stands with the network of this process.
    pub model: watch::Receiver<ModelState>,
    /// Renders the metrics.
    pub recorder: Recorder,
}

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Off loopback, and nobody is asked who they are.
    #[error(
        "{0} is not a loopback address, and no user is configured: make one with `hilum user add NAME --role read`, or give --insecure"
    )]
    Unprotected(SocketAddr),
    /// A `[[user]]` block without a hash.
    #[error("the hash of user {0} is not one that `hilum user add` makes")]
    Hash(String),
    /// Two `[[user]]` blocks of one name.
    #[error("user {0} is configured twice")]
    Twice(String),
}
