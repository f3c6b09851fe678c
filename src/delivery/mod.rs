//! From a result to the PACS that shows it: destinations, verification, retries.
//!
//! A finished job comes in; its deliveries are decided on (`plan`), sent (`send`) and called delivered only after the PACS was seen to list the object.

mod marks;
mod plan;
mod send;
mod senders;
mod settings;
mod wake;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::{Database, DatabaseError};
use crate::dicomweb::{Client, ClientError, Deliver, Pacs};

use senders::Senders;
pub use settings::DeliverySettings;
use wake::Bell;

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
    senders: Senders,
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
    let destinations = pacs.iter().filter(|block| block.deliver != Deliver::Nothing).count();
    let shared = Arc::new(Shared {
        senders: Senders::new(at_once, destinations),
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
