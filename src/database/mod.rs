//! PostgreSQL: every SQL statement of Hilum, one file a table family, and the private cluster that stands in where no server is named.
//!
//! A state changes in one transaction that also appends to `event`. Times are the database's clock.

mod adopted;
mod backoff;
mod cluster;
mod delivery;
mod events;
mod failpoint;
mod fates;
mod figures;
mod fold;
mod inbox;
mod instances;
mod jobs;
mod listed;
mod listing;
mod notify;
mod operations;
mod queue;
mod restored;
mod retention;
mod retrieval;
mod series_listing;
mod settling;
#[doc(hidden)]
pub mod testing;
mod watch;
mod workers;

use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

pub use backoff::{Backoff, Failures};
pub use cluster::{ClusterError, LONGEST_STOP_SECONDS, OtherVersion, PrivateCluster};
pub use delivery::{ClaimedDelivery, DeliveryState, PlannedDelivery, UnplannedJob, withdraw_deliveries};
pub use events::{NewEvent, append};
pub use failpoint::failpoint;
pub use fates::SeriesFate;
pub use figures::{Figures, Queue};
pub use inbox::{
    ArrivedInstance, ArrivedSeries, IgnoredBecause, InstanceDigest, SeriesState, SettledBy, Stored, StoredBatch,
    StoredSeries,
};
pub use instances::HeldInstance;
pub use jobs::{JobSpecification, MadeJob};
pub use listed::{Counted, ListedSeries};
pub use listing::{DeliveryRow, Filter, JOB_STATES, JobRow, SERIES_STATES, Whose};
pub use operations::{Operated, Wish, Wished};
pub use queue::{Claim, JobEnd, JobProgress, JobSlices, Renewal, ResultClaim, StoredSlice};
pub use retention::Keep;
pub use retrieval::{ClaimedRetrieval, RETRIEVAL_STATES, RetrievalFault, RetrievalRow, RetrievalState};
pub use series_listing::{EventRow, SeriesRow};
pub use settling::ToBeCounted;
pub use watch::{Change, Event, Place, Progress, Watcher};

/// A connection is waited for so long; then the database counts as away, and whoever asked is told so.
const PATIENCE: Duration = Duration::from_secs(4);
/// At the start a server that does not listen yet is waited for so long.
const PATIENCE_AT_START: Duration = Duration::from_secs(30);

/// The pool of connections to Hilum's database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// PostgreSQL answered with an error, or not at all.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// A migration failed, or is not what the database was made with.
    #[error("database migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl DatabaseError {
    /// Whether the same may well succeed a little later: the server is away, or transactions met.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            DatabaseError::Sql(error) => match error {
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_)
                | sqlx::Error::Tls(_) => true,
                // Classes 08 (connection), 40 (serialisation, deadlock), 53 (resources), 57 (shutdown), 58 (system).
                sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                    ["08", "40", "53", "57", "58"]
                        .iter()
                        .any(|class| code.starts_with(class))
                }),
                _ => false,
            },
            DatabaseError::Migration(_) => false,
        }
    }
}

impl Database {
    /// Connects, with at most `connections` at once. A server that does not listen yet is waited for.
    ///
    /// # Errors
    /// A URL that is none, or a server that does not answer.
    pub async fn connect(url: &str, connections: u32) -> Result<Database, DatabaseError> {
        let options = PgPoolOptions::new().max_connections(connections);
        let pool = options.acquire_timeout(PATIENCE).connect_lazy(url)?;
        let begun = Instant::now();
        loop {
            match pool.acquire().await {
                Ok(_) => return Ok(Database { pool }),
                Err(sqlx::Error::PoolTimedOut) if begun.elapsed() < PATIENCE_AT_START => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Brings the schema up to this version. Safe beside other processes that do the same, and while an older version runs; on a schema of a newer version, which leaves
    /// to older ones what they need, it does nothing. Of a database that was restored from another server's dump it takes over the events, so that they are seen at once.
    ///
    /// # Errors
    /// A migration that fails, or one that is not what the database was made with.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        let mut migrations = sqlx::migrate!("./migrations");
        migrations.set_ignore_missing(true);
        migrations.run(&self.pool).await?;
        let adopted = self.adopt_events().await?;
        if adopted > 0 {
            tracing::info!(
                "{adopted} events are of another server, as after a restore: they stand before those of this one now"
            );
        }
        Ok(())
    }

    /// Closes the connections, after what they do now.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The pool, for the statements of this room.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}
