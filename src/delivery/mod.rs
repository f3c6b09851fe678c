//! From a result to the PACS that shows it: destinations, verification, retries.
//!
//! A finished job comes in; its deliveries are decided on (`plan`), sent (`send`) and called delivered only after the PACS was seen to list the object.

mod marks;
mod plan;
mod send;
mod settings;
mod wake;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::{Database, DatabaseError};
use crate::dicomweb::{Client, ClientError, Pacs};

pub use settings::DeliverySettings;
use wake::Bell;

/// After an error of the database.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Why deliveries cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A `[[pacs]]` block cannot be used.
    #[error("[[pacs]] {name}: {error}")]
    Pacs {
        /// Its name.
        name: String,
        /// Why.
        error: ClientError,
    },
    /// `always_to` names a PACS that no block has.
    #[error("[delivery] always_to: there is no [[pacs]] block named {0}")]
    Unknown(String),
    /// The database refused.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What the loops share.
struct Shared {
    database: Database,
    data_folder: PathBuf,
    settings: DeliverySettings,
    pacs: Vec<Pacs>,
    clients: HashMap<String, Client>,
    worker: String,
    bell: Bell,
}

/// Decides on deliveries and makes them until it is told to end; a delivery that is being sent is ended first, within its own time limit.
///
/// # Errors
/// Blocks or settings that cannot be used. What happens later is retried and logged.
pub async fn run(
    database: Database,
    data_folder: PathBuf,
    settings: DeliverySettings,
    pacs: Vec<Pacs>,
    worker_id: String,
    end: CancellationToken,
) -> Result<(), DeliveryError> {
    let mut clients = HashMap::new();
    for block in &pacs {
        let client = Client::new(block).map_err(|error| DeliveryError::Pacs {
            name: block.name.clone(),
            error,
        })?;
        clients.insert(block.name.clone(), client);
    }
    if let Some(name) = settings.always_to.iter().find(|name| !clients.contains_key(*name)) {
        return Err(DeliveryError::Unknown(name.clone()));
    }
    let at_once = settings.at_once.max(1);
    let bell = Bell::new(settings.poll_seconds);
    let shared = Arc::new(Shared {
        bell: bell.clone(),
        database,
        data_folder,
        settings,
        pacs,
        clients,
        worker: worker_id,
    });
    let mut loops = JoinSet::new();
    loops.spawn(bell.listen(shared.database.clone(), end.clone()));
    loops.spawn(plan::plan_loop(Arc::clone(&shared), end.clone()));
    for _ in 0..at_once {
        loops.spawn(send::send_loop(Arc::clone(&shared), end.clone()));
    }
    if shared.pacs.iter().any(|block| block.orthanc_url.is_some()) {
        loops.spawn(marks::marks_loop(Arc::clone(&shared), end));
    }
    while loops.join_next().await.is_some() {}
    Ok(())
}

/// Waits; false when it is time to end.
async fn wait(end: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        () = end.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

/// Seconds until the next attempt after `attempts`: doubled with each, bounded, and between half and one and a half of that, so that senders do not march in step.
fn backoff_seconds(settings: &DeliverySettings, attempts: i32) -> f64 {
    let doubled = settings.backoff_seconds * 2f64.powi((attempts - 1).clamp(0, 30));
    doubled.min(settings.longest_backoff_seconds) * rand::rng().random_range(0.5..1.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_is_bounded() {
        let settings = DeliverySettings {
            at_once: 1,
            backoff_seconds: 4.0,
            longest_backoff_seconds: 100.0,
            give_up_hours: 1.0,
            lease_seconds: 1.0,
            poll_seconds: 1.0,
            always_to: Vec::new(),
        };
        for (attempts, wait) in [(0, 4.0), (1, 4.0), (2, 8.0), (3, 16.0), (6, 100.0), (i32::MAX, 100.0)] {
            for _ in 0..50 {
                let seconds = backoff_seconds(&settings, attempts);
                assert!((wait * 0.5..wait * 1.5).contains(&seconds), "{attempts}: {seconds}");
            }
        }
    }
}
