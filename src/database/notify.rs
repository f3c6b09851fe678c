//! Being told: PostgreSQL's notifications, which are hints. Who waits for one also looks by itself, since a notification is lost while the connection is.

use std::convert::Infallible;

use sqlx::postgres::{PgListener, PgNotification};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Backoff, Database, DatabaseError, Failures};

impl Database {
    /// Rings the bell of a channel whenever something is told on it, and every bell whenever it begins to listen, since what was told before was not heard. What comes in a
    /// burst may ring once. Until `end`. The channels:
    ///
    /// - `hilum_event`: something happened, whatever it is;
    /// - `hilum_job`: a job waits in the queue;
    /// - `hilum_stop`: somebody wants a job stopped that may be running, or it is no longer its worker's;
    /// - `hilum_delivery`: there may be something to plan or to send.
    pub async fn ring(&self, bells: &[(&str, &watch::Sender<()>)], end: &CancellationToken) {
        let ringing = async {
            let mut failures = Failures::new(Backoff::DATABASE);
            loop {
                let Err(error) = self.ring_once(bells, &mut failures).await;
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
        bells: &[(&str, &watch::Sender<()>)],
        failures: &mut Failures,
    ) -> Result<Infallible, DatabaseError> {
        let mut listener = PgListener::connect_with(self.pool()).await?;
        listener.listen_all(bells.iter().map(|(channel, _)| *channel)).await?;
        failures.over();
        // Nothing: the connection was lost, and is there again.
        let mut told = None;
        loop {
            ring(bells, told.as_ref());
            told = listener.try_recv().await?;
        }
    }
}

/// Rings the bells of the channel of a notification; without one, all.
fn ring(bells: &[(&str, &watch::Sender<()>)], told: Option<&PgNotification>) {
    for (channel, bell) in bells {
        if told.is_none_or(|told| told.channel() == *channel) {
            bell.send_replace(());
        }
    }
}
