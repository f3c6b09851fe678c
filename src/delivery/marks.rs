//! What became of a series, written at it in the Orthanc that it came from, so that its administrator sees it there.
//!
//! Best effort: an Orthanc that is away is tried again for a while, and nothing else waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Shared, wait};
use crate::database::{Backoff, SeriesFate};

const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// Most series that wait for an Orthanc to come back; the oldest are dropped.
const MOST_WAITING: usize = 10_000;
/// Attempts at one series: some three hours.
const MOST_ATTEMPTS: u32 = 200;
/// Between two attempts at one series.
const BACKOFF: Backoff = Backoff {
    first_seconds: 3.0,
    longest_seconds: 60.0,
};

/// A mark that is to be written.
struct Waiting {
    fate: SeriesFate,
    attempts: u32,
    not_before: Instant,
}

pub(super) async fn marks_loop(shared: Arc<Shared>, end: CancellationToken) {
    let sources: Vec<String> = shared
        .pacs
        .iter()
        .filter(|block| block.orthanc_url.is_some())
        .map(|block| block.name.clone())
        .collect();
    // What happened in the hour before is written again: the same mark, or one that a killed process owed.
    let mut after = None;
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    loop {
        match shared.database.series_fates(&sources, after).await {
            Ok((fates, last)) => {
                after = Some(last);
                for fate in fates {
                    waiting.retain(|older| older.fate.series_id != fate.series_id);
                    waiting.push_back(Waiting {
                        fate,
                        attempts: 0,
                        not_before: Instant::now(),
                    });
                }
                while waiting.len() > MOST_WAITING {
                    waiting.pop_front();
                }
            }
            Err(error) => tracing::warn!(%error, "the fates of series cannot be read now"),
        }
        for _ in 0..waiting.len() {
            let Some(mut one) = waiting.pop_front() else {
                break;
            };
            if end.is_cancelled() {
                return;
            }
            if one.not_before > Instant::now() {
                waiting.push_back(one);
            } else if !mark(&shared, &one.fate).await && one.attempts < MOST_ATTEMPTS {
                one.attempts += 1;
                one.not_before = Instant::now() + Duration::from_secs_f64(BACKOFF.seconds(one.attempts));
                waiting.push_back(one);
            }
        }
        if !wait(&end, LOOK_AGAIN).await {
            return;
        }
    }
}

/// False: it may be tried again.
async fn mark(shared: &Shared, fate: &SeriesFate) -> bool {
    let Some(client) = shared.clients.get(&fate.source) else {
        return true;
    };
    match client
        .mark_series(&fate.study_uid, &fate.series_uid, &fate.text())
        .await
    {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(pacs = fate.source, %error, "the fate of a series was not written");
            !error.is_transient()
        }
    }
}
