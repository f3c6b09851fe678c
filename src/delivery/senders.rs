//! How many senders of this process are at each destination, so that a PACS that hangs holds no more than its share of them and the others' deliveries go on.

use std::collections::HashMap;

use tokio::sync::{Mutex, MutexGuard};

/// Who is where.
pub(super) struct Senders {
    /// Most senders at one destination.
    share: usize,
    at: Mutex<HashMap<String, usize>>,
}

impl Senders {
    /// `at_once` senders in all, for so many destinations.
    pub(super) fn new(at_once: usize, destinations: usize) -> Senders {
        Senders {
            share: share(at_once, destinations),
            at: Mutex::default(),
        }
    }

    /// Holds all others off while one chooses where to go.
    pub(super) async fn choose(&self) -> Choice<'_> {
        Choice {
            share: self.share,
            at: self.at.lock().await,
        }
    }

    /// A sender is done at a destination. True: others may have waited for its place.
    pub(super) async fn leave(&self, destination: &str) -> bool {
        let mut at = self.at.lock().await;
        let Some(there) = at.get_mut(destination) else {
            return false;
        };
        let was_full = *there >= self.share;
        *there = there.saturating_sub(1);
        was_full
    }
}

/// The choice of a sender.
pub(super) struct Choice<'a> {
    share: usize,
    at: MutexGuard<'a, HashMap<String, usize>>,
}

impl Choice<'_> {
    /// The destinations that have their share.
    pub(super) fn full(&self) -> Vec<String> {
        let full = self.at.iter().filter(|(_, there)| **there >= self.share);
        full.map(|(destination, _)| destination.clone()).collect()
    }

    /// It goes there.
    pub(super) fn go(mut self, destination: &str) {
        *self.at.entry(destination.to_owned()).or_default() += 1;
    }
}

/// Most senders at one destination: so many that one is left where all other destinations hang, as long as there are as many senders as destinations; at least one.
fn share(at_once: usize, destinations: usize) -> usize {
    match destinations {
        0 | 1 => at_once,
        more => (at_once.saturating_sub(1) / (more - 1)).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_that_hang_leave_a_sender_for_another() {
        assert_eq!(share(4, 1), 4);
        assert_eq!(share(4, 2), 3);
        assert_eq!(share(1, 3), 1);
        for at_once in 2..20 {
            for destinations in 2..=at_once {
                let share = share(at_once, destinations);
                assert!(
                    share >= 1 && share * (destinations - 1) < at_once,
                    "{at_once} {destinations}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_destination_is_full_until_a_sender_leaves_it() {
        let senders = Senders::new(2, 2);
        assert!(senders.choose().await.full().is_empty());
        senders.choose().await.go("a");
        assert_eq!(senders.choose().await.full(), ["a"]);
        assert!(senders.leave("a").await, "others waited");
        assert!(senders.choose().await.full().is_empty());
        assert!(!senders.leave("b").await);
    }
}
