//! What became of a series, written at it in the Orthanc that it came from, so that its administrator sees it there.
//!
//! One loop for each Orthanc, so that one which hangs holds no other up. The place of the last event whose fates are all written is kept in the database: what an Orthanc that is
//! away, or a process that is not there, owes is written later, however long that takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Shared, wait};
use crate::database::{Backoff, DatabaseError, Failures, Place, SeriesFate};
use crate::dicomweb::{Client, ClientError};

const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// While so many series wait for an Orthanc, no more are looked for.
const MOST_WAITING: usize = 10_000;
/// Attempts at a series which an Orthanc that is there answers with an error: some half an hour.
const MOST_ATTEMPTS: u32 = 40;
/// Between two attempts.
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

/// The marks of one Orthanc.
struct Marks<'a> {
    shared: &'a Shared,
    client: &'a Client,
    pacs: &'a str,
    /// The last event that was looked at.
    looked_at: Option<Place>,
    /// The place that the database has.
    written: Option<Place>,
    waiting: VecDeque<Waiting>,
    /// How often it was away without a break.
    away: Failures,
    /// The log says that it is away.
    told: bool,
}

pub(super) async fn marks_loop(shared: Arc<Shared>, end: CancellationToken) {
    let orthancs = shared.pacs.iter().filter(|block| block.orthanc_url.is_some());
    let marks = orthancs.filter_map(|block| {
        Some(Marks {
            shared: &shared,
            client: shared.clients.get(&block.name)?,
            pacs: &block.name,
            looked_at: None,
            written: None,
            waiting: VecDeque::new(),
            away: Failures::new(BACKOFF),
            told: false,
        })
    });
    join_all(marks.map(|marks| marks.run(&end))).await;
}

impl Marks<'_> {
    /// Writes what there is to write until `end`; an exchange that hangs is broken off then.
    async fn run(mut self, end: &CancellationToken) {
        loop {
            let pause = tokio::select! {
                () = end.cancelled() => return,
                pause = self.round() => pause,
            };
            if !wait(end, pause).await {
                return;
            }
        }
    }

    /// Looks, writes, and keeps the place. Returns how long to wait.
    async fn round(&mut self) -> Duration {
        let looked = self.look().await;
        let pause = self.write().await;
        if let Err(error) = looked.and(self.keep_place().await) {
            tracing::warn!(pacs = self.pacs, %error, "the fates of series cannot be read now");
        }
        pause
    }

    /// Keeps the place where nothing is owed.
    async fn keep_place(&mut self) -> Result<(), DatabaseError> {
        if let Some(place) = self.looked_at
            && self.waiting.is_empty()
            && self.looked_at != self.written
        {
            self.shared.database.marked(self.pacs, place).await?;
            self.written = self.looked_at;
        }
        Ok(())
    }

    /// Reads what is to be written.
    async fn look(&mut self) -> Result<(), DatabaseError> {
        let database = &self.shared.database;
        if self.waiting.len() >= MOST_WAITING {
            return Ok(());
        }
        if self.looked_at.is_none() {
            self.looked_at = database.marked_up_to(self.pacs).await?;
            self.written = self.looked_at;
        }
        let (fates, last) = database.series_fates(&[self.pacs.to_owned()], self.looked_at).await?;
        self.looked_at = Some(last);
        for fate in fates {
            self.waiting.retain(|older| older.fate.series_id != fate.series_id);
            self.waiting.push_back(Waiting {
                fate,
                attempts: 0,
                not_before: Instant::now(),
            });
        }
        Ok(())
    }

    /// Writes what is due. Returns how long to wait.
    async fn write(&mut self) -> Duration {
        for _ in 0..self.waiting.len() {
            let Some(mut one) = self.waiting.pop_front() else {
                break;
            };
            if one.not_before > Instant::now() {
                self.waiting.push_back(one);
                continue;
            }
            let fate = &one.fate;
            let Err(error) = self
                .client
                .mark_series(&fate.study_uid, &fate.series_uid, &fate.text())
                .await
            else {
                self.is_there();
                continue;
            };
            if is_away(&error) {
                if !self.told {
                    tracing::warn!(pacs = self.pacs, %error, "the fates of series cannot be written now");
                    self.told = true;
                }
                // The others go first: it may be this one on which it hangs.
                self.waiting.push_back(one);
                return self.away.wait();
            }
            self.is_there();
            one.attempts += 1;
            if one.attempts < MOST_ATTEMPTS {
                one.not_before = Instant::now() + Duration::from_secs_f64(BACKOFF.seconds(one.attempts));
                self.waiting.push_back(one);
            } else {
                tracing::warn!(pacs = self.pacs, series = fate.series_uid, %error, "the fate of a series is not written");
            }
        }
        LOOK_AGAIN
    }

    fn is_there(&mut self) {
        self.away.over();
        self.told = false;
    }
}

/// Whether it says nothing about the series: no Orthanc can be reached, or it does not let us in.
fn is_away(error: &ClientError) -> bool {
    match error {
        ClientError::Connection(_) | ClientError::Timeout | ClientError::Settings(_) => true,
        ClientError::Status(status) => matches!(status, 401 | 403 | 408 | 425 | 429 | 502..=504),
        ClientError::Uid(_) | ClientError::TooLarge(_) | ClientError::Answer(_) => false,
    }
}
