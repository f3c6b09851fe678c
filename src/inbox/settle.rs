//! Series that wait, settled: by a quiet time, or because the PACS that they came from says twice that it has as many instances as are held.
//!
//! (Their sender and a user settle them too: where instances come in, and in the HTTP interface.)

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::settings::InboxSettings;
use crate::database::{Backoff, Database, DatabaseError, Failures, ToBeCounted};
use crate::dicomweb::{Client, Pacs};

/// Who settles, in the events.
const ACTOR: &str = "settling";
/// The table is looked at so often.
const ROUND: Duration = Duration::from_millis(500);
/// Longest wait for the answer of a PACS.
const LONGEST_ANSWER: Duration = Duration::from_secs(20);
/// Series of one round.
const MOST: i64 = 200;
/// Questions to one PACS at once.
const QUESTIONS_AT_ONCE: usize = 4;

/// Settles series until it is told to end.
pub(super) async fn settle(database: Database, settings: InboxSettings, pacs: Vec<Pacs>, ends: CancellationToken) {
    let quiet = rounds(&ends, || quiet_round(&database, settings.quiet_seconds));
    let mut clients = Vec::new();
    for block in pacs.iter().filter(|block| block.count) {
        match Client::new(block) {
            Ok(client) => clients.push((block.name.clone(), client)),
            Err(error) => tracing::warn!(pacs = block.name, %error, "this PACS cannot be asked for counts"),
        }
    }
    let (database, settings, ends) = (&database, &settings, &ends);
    let counts = clients.iter().map(|(name, client)| {
        let round = move || count_round(database, settings, name, client);
        rounds(ends, round)
    });
    tokio::join!(quiet, join_all(counts));
}

/// Runs a round again and again.
async fn rounds<F: Future<Output = Result<(), DatabaseError>>>(ends: &CancellationToken, mut round: impl FnMut() -> F) {
    let mut failures = Failures::new(Backoff::DATABASE);
    loop {
        let done = tokio::select! {
            () = ends.cancelled() => return,
            done = round() => done,
        };
        let wait = match done {
            Ok(()) => {
                failures.over();
                ROUND
            }
            Err(error) => {
                tracing::warn!(%error, "series cannot be settled");
                failures.wait()
            }
        };
        tokio::select! {
            () = ends.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn quiet_round(database: &Database, quiet_seconds: f64) -> Result<(), DatabaseError> {
    for series in database.quiet_series(quiet_seconds, MOST).await? {
        database.settle_quiet(series, quiet_seconds, ACTOR).await?;
    }
    Ok(())
}

async fn count_round(
    database: &Database,
    settings: &InboxSettings,
    name: &str,
    client: &Client,
) -> Result<(), DatabaseError> {
    let interval = settings.count_interval_seconds;
    let due = database.series_to_count(&[name.to_owned()], interval, MOST).await?;
    let asked = due.into_iter().map(|series| async move {
        let count = ask(client, &series).await;
        database.count_answered(series.id, count, interval, ACTOR).await
    });
    let answers: Vec<Result<bool, DatabaseError>> = futures_util::stream::iter(asked)
        .buffer_unordered(QUESTIONS_AT_ONCE)
        .collect()
        .await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}

/// The count of a series at its source; `None`: it gives none now.
async fn ask(client: &Client, series: &ToBeCounted) -> Option<u32> {
    let question = client.series_count(&series.study_uid, &series.series_uid);
    match tokio::time::timeout(LONGEST_ANSWER, question).await {
        Ok(Ok(count)) => count,
        Ok(Err(error)) => {
            tracing::debug!(pacs = series.source, %error, "no count");
            None
        }
        Err(_) => None,
    }
}
