//! Being told: PostgreSQL's notifications, which are hints. Who waits for one also looks by itself, since a notification is lost while the connection is.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::{Database, DatabaseError};

/// Waits for something to happen.
#[derive(Debug)]
pub struct Waiter {
    listener: PgListener,
}

impl Database {
    /// Listens on channels: `hilum_event`, `hilum_job`, `hilum_delivery`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn listen(&self, channels: &[&str]) -> Result<Waiter, DatabaseError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(Waiter { listener })
    }
}

impl Waiter {
    /// Returns when something happened or `longest` has passed, whichever is first; true if something happened. What comes in a burst wakes once.
    pub async fn wait(&mut self, longest: Duration) -> bool {
        match tokio::time::timeout(longest, self.listener.recv()).await {
            Ok(Ok(_)) => {
                while self.listener.next_buffered().is_some() {}
                true
            }
            // The listener connects again by itself at the next call; until then we look by ourselves.
            Ok(Err(_)) => {
                tokio::time::sleep(longest.min(Duration::from_secs(1))).await;
                false
            }
            Err(_) => false,
        }
    }
}
