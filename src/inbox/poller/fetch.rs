//! A retrieval in, its series in the inbox: streamed, counted, and settled where it is whole.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::look::is_away;
use super::{ACTOR, LOOK_AGAIN, PollError, Source, Wanted, request, wait};
use crate::database::{Backoff, ClaimedRetrieval, Counted, DatabaseError, Failures, RetrievalFault};
use crate::dicomweb::ClientError;
use crate::dicomweb::multipart::Boundary;
use crate::inbox::{InboxSettings, IngestError, Origin, Outcome, Receipt};

/// A worker that has not renewed its lease for so long has lost its retrieval.
const LEASE_SECONDS: f64 = 60.0;

pub(super) async fn fetch_loop(source: Arc<Source>, end: CancellationToken) {
    let mut failures = Failures::new(Backoff::DATABASE);
    while !end.is_cancelled() {
        let claimed = source
            .database
            .claim_retrieval(&source.pacs.name, LEASE_SECONDS, ACTOR)
            .await;
        let pause = match claimed {
            Ok(Some(claimed)) => {
                failures.over();
                if let Err(error) = retrieve(&source, &claimed, &end).await {
                    tracing::warn!(retrieval = claimed.id, %error, "the fate of a retrieval cannot be noted");
                }
                continue;
            }
            Ok(None) => {
                failures.over();
                LOOK_AGAIN
            }
            Err(error) => {
                tracing::warn!(%error, "retrievals cannot be claimed now");
                failures.wait()
            }
        };
        if !wait(&end, pause).await {
            return;
        }
    }
}

/// One attempt, and its outcome noted; nothing where the lease was lost.
async fn retrieve(source: &Source, claimed: &ClaimedRetrieval, end: &CancellationToken) -> Result<(), DatabaseError> {
    let outcome = tokio::select! {
        outcome = fetch(source, claimed) => outcome,
        () = lost_lease(source, claimed) => {
            tracing::warn!(retrieval = claimed.id, "the lease of a retrieval was lost");
            return Ok(());
        }
        () = end.cancelled() => Err(PollError::Ingest(IngestError::Ending)),
    };
    let noted = match outcome {
        // Put off until its count has stood for long enough, or in other hands by now: noted already.
        Ok(None) => return Ok(()),
        Ok(Some(count)) => {
            metrics::counter!("hilum_retrievals_total", "outcome" => "done").increment(1);
            source.database.retrieved(claimed, count, ACTOR).await?
        }
        Err(error) => {
            let text = error.to_string();
            tracing::warn!(
                retrieval = claimed.id,
                pacs = claimed.pacs,
                error = text,
                "a series could not be retrieved"
            );
            metrics::counter!("hilum_retrievals_total", "outcome" => "failed").increment(1);
            let fault = RetrievalFault {
                error: &text,
                absent: matches!(hope(&error), Hope::Later),
                wait_seconds: next_wait(&error, claimed, source.ingest.settings()),
            };
            source.database.retrieval_failed(claimed, &fault, ACTOR).await?
        }
    };
    if !noted {
        tracing::warn!(retrieval = claimed.id, "the lease of a retrieval was lost");
    }
    Ok(())
}

/// Seconds until the next attempt; `None`: there is none.
fn next_wait(error: &PollError, claimed: &ClaimedRetrieval, settings: &InboxSettings) -> Option<f64> {
    if matches!(error, PollError::Ingest(IngestError::Ending)) {
        return Some(0.0);
    }
    let (attempts, most, backoff) = match hope(error) {
        Hope::Soon => (claimed.attempts, settings.fetch_attempts, settings.fetch_backoff()),
        // Counted by themselves: after an outage of hours, one such answer is no reason to give up.
        Hope::Later => (
            claimed.absent.saturating_add(1),
            settings.fetch_absent_attempts,
            settings.fetch_absent_backoff(),
        ),
        Hope::None => (
            claimed.attempts,
            settings.fetch_hopeless_attempts,
            settings.fetch_backoff(),
        ),
    };
    let attempts = u32::try_from(attempts).unwrap_or_default();
    (attempts < most).then(|| backoff.seconds(attempts))
}

/// Whether another attempt is worth it.
enum Hope {
    /// The PACS is away, or the answer broke off: it may be mended in a moment.
    Soon,
    /// What answers has not what is asked for. It may not be the PACS: a proxy whose PACS is away says 404, sends elsewhere, or shows a page.
    Later,
    /// The same bytes would come again.
    None,
}

fn hope(error: &PollError) -> Hope {
    match error {
        PollError::Pacs { error, .. } => match error {
            // Refused credentials are the configuration's fault and are mended there.
            ClientError::Status(401 | 403) => Hope::Soon,
            error if error.is_transient() => Hope::Soon,
            ClientError::Settings(_) | ClientError::Uid(_) | ClientError::TooLarge(_) => Hope::None,
            _ => Hope::Later,
        },
        PollError::Ingest(error) => match error {
            IngestError::Multipart(error) if error.is_limit() => Hope::None,
            IngestError::TooLarge(_) | IngestError::BadStudy => Hope::None,
            IngestError::NoPart => Hope::Later,
            _ => Hope::Soon,
        },
        PollError::Database(_) | PollError::Short { .. } => Hope::Soon,
        PollError::NoSeries(_) => Hope::Later,
        PollError::NotTaken { .. } => Hope::None,
    }
}

/// Renews the lease; ends when it is lost.
async fn lost_lease(source: &Source, claimed: &ClaimedRetrieval) {
    loop {
        tokio::time::sleep(Duration::from_secs_f64(LEASE_SECONDS / 3.0)).await;
        match source.database.renew_retrieval(claimed, LEASE_SECONDS).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "a lease cannot be renewed now"),
        }
    }
}

/// Fetches the series; how many instances it has, or `None` where its count has not stood for long enough, and where it is in other hands. A wish for a whole study becomes one
/// for each of its CT series, and one for a series whose study is not known becomes one that names it; how many these are.
async fn fetch(source: &Source, claimed: &ClaimedRetrieval) -> Result<Option<u32>, PollError> {
    let failed = |error| PollError::Pacs {
        name: claimed.pacs.clone(),
        error,
    };
    let (study, series) = (claimed.study_uid.as_str(), claimed.series_uid.as_str());
    let part = match (study, series) {
        (study, "") => Some(Wanted::Study(study)),
        ("", series) => Some(Wanted::Series(series)),
        _ => None,
    };
    if let Some(wanted) = part {
        let rows = request(&source.database, &source.client, wanted, claimed.priority, ACTOR).await?;
        return match u32::try_from(rows.len()) {
            Ok(0) => Err(PollError::NoSeries(claimed.pacs.clone())),
            series => Ok(Some(series.unwrap_or(u32::MAX))),
        };
    }
    let apart_seconds = source.ingest.settings().count_interval_seconds;
    let asked = count(source, study, series).await.map_err(failed)?;
    if let Some(count) = asked {
        let counted = source.database.retrieval_counted(claimed, count, apart_seconds, ACTOR);
        if counted.await? != Counted::Stands {
            return Ok(None);
        }
    }
    let known = claimed.count.and_then(|count| u32::try_from(count).ok());
    let retrieved = source.client.retrieve_series(study, series).await.map_err(failed)?;
    let boundary = Boundary::of_content_type(&retrieved.content_type).map_err(IngestError::from)?;
    let origin = Origin {
        pacs: Some(claimed.pacs.clone()),
        actor: ACTOR.into(),
        study: Some(study.to_owned()),
        // Whether it is whole is known only after it was counted.
        complete: false,
        ..Origin::default()
    };
    let receipt = source.ingest.receive(&boundary, retrieved.stream, &origin).await?;
    let touched = receipt
        .series
        .iter()
        .find(|one| one.study_uid == study && one.series_uid == series);
    if let Some(touched) = touched {
        source.database.pass_priority_on(claimed, touched.id).await?;
    }
    let came = came_whole(&receipt, asked.or(known))?;
    if let Some(touched) = touched {
        // It settles at once where as many came as the PACS said twice, and as are held. Where more came than it said, it is to say so once more; where it says nothing, or late
        // slices were sent besides, the quiet time settles it.
        let apart_seconds = if asked == Some(came) { 0.0 } else { apart_seconds };
        if asked.is_some() {
            source
                .database
                .count_answered(touched.id, Some(came), apart_seconds, ACTOR)
                .await?;
        }
        source.database.settle_fetched(touched.id, ACTOR).await?;
    }
    Ok(Some(came))
}

/// How many instances a series has at its PACS: as that says, or as many as it lists. `None`: it tells neither.
async fn count(source: &Source, study: &str, series: &str) -> Result<Option<u32>, ClientError> {
    if let Some(count) = source.client.series_count(study, series).await? {
        return Ok(Some(count));
    }
    match source.client.search_instances(study, series).await {
        Ok(instances) => Ok(u32::try_from(instances.len()).ok().filter(|count| *count > 0)),
        Err(error) if is_away(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// How many distinct instances came, where these are all that the PACS has (`count`, where it tells). Where they are not, what came is held all the same, and its series settles
/// as one does of which a sender brought a part.
fn came_whole(receipt: &Receipt, count: Option<u32>) -> Result<u32, PollError> {
    let came: HashSet<&str> = receipt
        .instances
        .iter()
        .filter(|one| matches!(one.outcome, Outcome::Stored(_) | Outcome::Dropped))
        .map(|one| one.sop_instance_uid.as_str())
        .collect();
    let came = came.len();
    let unreadable = receipt.how_many(&Outcome::Unreadable);
    let failed = receipt
        .instances
        .iter()
        .filter(|one| matches!(one.outcome, Outcome::Failed(_)))
        .count();
    let count = count.unwrap_or(0);
    // Of a PACS that tells no count, what came are all that it has.
    let lack = came < count as usize || count == 0 && unreadable + failed > 0 || came == 0;
    if lack && unreadable + failed > 0 && came + unreadable + failed >= count as usize {
        return Err(PollError::NotTaken {
            unreadable,
            failed,
            parts: receipt.instances.len(),
        });
    }
    if lack {
        return Err(PollError::Short { came, count });
    }
    Ok(u32::try_from(came).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::dicomweb::multipart::MultipartError;

    #[test]
    fn what_may_pass_is_tried_for_days_what_is_not_there_too_with_hours_between_and_what_cannot_be_taken_three_times() {
        let defaults: toml::Table = toml::from_str(include_str!("../../../config/default.toml")).unwrap();
        let settings: InboxSettings = defaults["inbox"].clone().try_into().unwrap();
        let most = i32::try_from(settings.fetch_attempts).unwrap();
        let claimed = |attempts, absent| ClaimedRetrieval {
            id: 1,
            pacs: "a".into(),
            study_uid: "1".into(),
            series_uid: "2".into(),
            priority: 0,
            count: None,
            token: 1,
            attempts,
            absent,
        };
        let next = |error: &PollError, attempts| next_wait(error, &claimed(attempts, 0), &settings);
        let pacs = |error| PollError::Pacs {
            name: "a".into(),
            error,
        };
        for error in [
            pacs(ClientError::Status(503)),
            pacs(ClientError::Status(401)),
            pacs(ClientError::Timeout),
            PollError::Ingest(MultipartError::Unclosed.into()),
            PollError::Short { came: 1, count: 2 },
        ] {
            assert!(next(&error, 100).is_some_and(|wait| wait > 60.0), "{error}");
            assert!(next(&error, most).is_none(), "{error}");
        }
        for error in [
            pacs(ClientError::Status(404)),
            pacs(ClientError::Status(302)),
            pacs(ClientError::Status(400)),
            pacs(ClientError::Answer("a page".into())),
            PollError::NoSeries("a".into()),
        ] {
            let (mut seconds, mut attempts) = (0.0, 0);
            // After an outage that took nearly all other attempts, too.
            while let Some(wait) = next_wait(&error, &claimed(500 + attempts, attempts), &settings) {
                attempts += 1;
                assert!(wait >= 30.0 && (attempts < 8 || wait >= 3600.0), "{error}: {wait}");
                seconds += wait;
            }
            let days = seconds / 86_400.0;
            assert!(
                (3.0..10.0).contains(&days) && attempts < 100,
                "{error}: {attempts} in {days} days"
            );
        }
        for error in [
            PollError::Ingest(IngestError::TooLarge(1)),
            PollError::NotTaken {
                unreadable: 1,
                failed: 0,
                parts: 4,
            },
        ] {
            assert!(next(&error, 2).is_some(), "{error}");
            assert!(next(&error, 3).is_none(), "{error}");
        }
    }
}
