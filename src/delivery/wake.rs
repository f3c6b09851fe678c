//! When the loops look again: when PostgreSQL tells that there is something to plan or to send, when the next delivery is due, and by themselves after `poll_seconds`, since a
//! notification is lost while the connection is.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::database::Database;

/// The channel on which finished jobs and planned deliveries are told.
const CHANNEL: &str = "hilum_delivery";
/// What is due and held by somebody else at this moment is looked at again after so long.
const SHORTEST: Duration = Duration::from_millis(200);

/// Wakes every loop that waits. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bell {
    sender: watch::Sender<()>,
    poll: Duration,
}

impl Bell {
    pub(super) fn new(poll_seconds: f64) -> Bell {
        Bell {
            sender: watch::Sender::new(()),
            poll: Duration::try_from_secs_f64(poll_seconds)
                .unwrap_or(Duration::MAX)
                .max(SHORTEST),
        }
    }

    /// Passes on what the database tells, until the end.
    pub(super) async fn listen(self, database: Database, end: CancellationToken) {
        database.ring(&[(CHANNEL, &self.sender)], &end).await;
    }

    /// Wakes all who wait in this process.
    pub(super) fn ring(&self) {
        self.sender.send_replace(());
    }

    /// For one loop, before it looks for the first time.
    pub(super) fn wake(&self, end: CancellationToken) -> Wake {
        Wake {
            told: self.sender.subscribe(),
            poll: self.poll,
            end,
        }
    }
}

/// What one loop waits by.
pub(super) struct Wake {
    told: watch::Receiver<()>,
    poll: Duration,
    end: CancellationToken,
}

impl Wake {
    /// Waits until something is told, until what is due next is due, or for the poll's time; false when it is time to end.
    pub(super) async fn wait(&mut self, due: Option<Duration>) -> bool {
        let longest = due.map_or(self.poll, |due| due.clamp(SHORTEST, self.poll));
        tokio::select! {
            biased;
            () = self.end.cancelled() => false,
            _ = tokio::time::timeout(longest, self.told.changed()) => true,
        }
    }

    /// Whether it is time to end.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_wakes_when_it_is_told_when_something_is_due_and_at_the_end() {
        let (bell, end) = (Bell::new(1.5), CancellationToken::new());
        let mut wake = bell.wake(end.clone());
        let mut last = std::time::Instant::now();
        let mut took = || {
            std::mem::replace(&mut last, std::time::Instant::now())
                .elapsed()
                .as_secs_f64()
        };
        bell.ring();
        assert!(wake.wait(None).await && took() < 0.2, "told before it waited");
        assert!(wake.wait(Some(Duration::from_millis(500))).await);
        assert!((0.5..1.5).contains(&took()), "it is due");
        assert!(wake.wait(Some(Duration::from_secs(500))).await);
        assert!((1.5..10.0).contains(&took()), "it looks by itself");
        assert!(wake.wait(Some(Duration::ZERO)).await && took() > 0.19, "no loop spins");
        end.cancel();
        assert!(!wake.wait(None).await && wake.is_over());
    }
}
