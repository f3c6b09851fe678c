//! Being told: PostgreSQL's notifications, which are hints. Who waits for one also looks by itself, since a notification is lost while the connection is.

use std::convert::Infallible;

use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Backoff, Database, DatabaseError, Failures};

impl Database {
    /// Rings the bell whenever something is told on one of these channels (`hilum_event`, `hilum_job`, `hilum_delivery`), and whenever it begins to listen, since what was told
    /// before was not heard. What comes in a burst may ring once. Until `end`.
    pub async fn ring(&self, channels: &[&str], bell: &watch::Sender<()>, end: &CancellationToken) {
        let ringing = async {
            let mut failures = Failures::new(Backoff::DATABASE);
            loop {
                let Err(error) = self.ring_once(channels, bell, &mut failures).await;
                tracing::warn!(%error, "the database is not listened to for a moment");
                tokio::time::sleep(failures.wait()).await;
            }
        };
        tokio::select! {
            () = end.cancelled() => {}
            () = ringing => {}
        }
    }

    async fn ring_once(
        &self,
        channels: &[&str],
        bell: &watch::Sender<()>,
        failures: &mut Failures,
    ) -> Result<Infallible, DatabaseError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen_all(channels.iter().copied()).await?;
        failures.over();
        loop {
            bell.send_replace(());
            // Nothing: the connection was lost, and is there again.
            listener.try_recv().await?;
            while listener.next_buffered().is_some() {}
        }
    }
}
