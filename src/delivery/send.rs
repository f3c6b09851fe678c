//! A delivery in, an object at its PACS out: stored by STOW-RS, believed only after QIDO-RS lists it.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::database::{Backoff, ClaimedDelivery, DatabaseError, DeliveryState, Failures, failpoint};
use crate::dicom::{Limits, Source, read_header};
use crate::dicomweb::{Client, ClientError, Stored, StowAnswer};

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("there is no [[pacs]] block named {0}")]
    Unknown(String),
    #[error("the segmentation cannot be read: {0}")]
    File(String),
    #[error("storing: {0}")]
    Store(ClientError),
    #[error("{said}, and it cannot be asked whether it is there: {error}")]
    Ask { said: String, error: ClientError },
    #[error("{0}, and it is not found there")]
    NotThere(String),
}

/// The object to send.
struct Object {
    bytes: Bytes,
    study_uid: String,
    series_uid: String,
}

pub(super) async fn send_loop(shared: Arc<Shared>, end: CancellationToken) {
    let mut wake = shared.bell.wake(end);
    let mut failures = Failures::new(Backoff::DATABASE);
    while !wake.is_over() {
        match next(&shared).await {
            Ok(Next::Claimed(claimed)) => {
                failures.over();
                failpoint("delivery_claimed");
                if let Err(error) = deliver(&shared, &claimed).await {
                    tracing::warn!(delivery = claimed.id, %error, "the fate of a delivery cannot be noted");
                }
                if shared.senders.leave(&claimed.destination).await {
                    shared.bell.ring();
                }
            }
            Ok(Next::Due(due)) => {
                failures.over();
                wake.wait(due).await;
            }
            Err(error) => {
                tracing::warn!(%error, "deliveries cannot be claimed now");
                wake.wait(Some(failures.wait())).await;
            }
        }
    }
}

/// What a sender does next.
enum Next {
    /// This delivery.
    Claimed(ClaimedDelivery),
    /// Nothing; the next one is due after so long, if there is one.
    Due(Option<Duration>),
}

async fn next(shared: &Shared) -> Result<Next, DatabaseError> {
    let choice = shared.senders.choose().await;
    let full = choice.full();
    let claimed = shared
        .database
        .claim_delivery(&shared.worker, shared.settings.lease_seconds, &full)
        .await?;
    if let Some(claimed) = claimed {
        choice.go(&claimed.destination);
        return Ok(Next::Claimed(claimed));
    }
    drop(choice);
    let seconds = shared.database.seconds_to_next_delivery(&full).await?;
    Ok(Next::Due(seconds.map(|seconds| {
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
    })))
}

/// One attempt, and its outcome noted. Where the lease is lost the attempt is dropped and nothing is noted: the delivery is somebody else's.
async fn deliver(shared: &Shared, claimed: &ClaimedDelivery) -> Result<(), DatabaseError> {
    let outcome = tokio::select! {
        outcome = attempt(shared, claimed) => outcome,
        () = lost_lease(shared, claimed) => {
            tracing::warn!(delivery = claimed.id, "the lease of a delivery was lost");
            return Ok(());
        }
    };
    let ours = match outcome {
        Ok(how) => {
            failpoint("delivery_sent");
            let detail = json!({
                "destination": claimed.destination, "sop_instance_uid": claimed.sop_instance_uid, "attempt": claimed.attempts, "how": how,
            });
            metrics::counter!("hilum_deliveries_total", "outcome" => "delivered").increment(1);
            shared.database.delivered(claimed, &shared.worker, detail).await?
        }
        Err(error) => {
            let error = error.to_string();
            tracing::warn!(
                delivery = claimed.id,
                destination = claimed.destination,
                error,
                "a delivery failed"
            );
            let attempts = u32::try_from(claimed.attempts).unwrap_or_default();
            let seconds = shared.settings.backoff().seconds(attempts);
            let state = shared
                .database
                .delivery_failed(claimed, &shared.worker, &error, seconds, shared.settings.give_up_hours)
                .await?;
            let outcome = if state == Some(DeliveryState::GivenUp) {
                "given_up"
            } else {
                "failed"
            };
            metrics::counter!("hilum_deliveries_total", "outcome" => outcome).increment(1);
            // Those who wait learn when it is due, also where this sender takes another one first.
            shared.bell.ring();
            state.is_some()
        }
    };
    if !ours {
        tracing::warn!(delivery = claimed.id, "the lease of a delivery was lost");
    }
    Ok(())
}

/// Renews the lease; ends when it is lost.
async fn lost_lease(shared: &Shared, claimed: &ClaimedDelivery) {
    let lease = shared.settings.lease_seconds;
    let third = Duration::try_from_secs_f64(lease / 3.0).unwrap_or(Duration::MAX);
    loop {
        tokio::time::sleep(third).await;
        match shared.database.renew_delivery(claimed, lease).await {
            Ok(true) => {}
            Ok(false) => return,
            // The write at the end names the token, so a lease that ran out meanwhile does no harm.
            Err(error) => tracing::warn!(%error, "a lease cannot be renewed now"),
        }
    }
}

/// Stores the object; how it came to be there.
async fn attempt(shared: &Shared, claimed: &ClaimedDelivery) -> Result<&'static str, SendError> {
    let client = shared
        .clients
        .get(&claimed.destination)
        .ok_or_else(|| SendError::Unknown(claimed.destination.clone()))?;
    let object = read(&shared.data_folder, claimed).await?;
    // An earlier attempt may have come through although its answer did not.
    if claimed.attempts > 1 && is_there(client, claimed, &object, "before storing it again").await? {
        return Ok("was_there");
    }
    let stored = client
        .store(&object.study_uid, &object.bytes, &claimed.sop_instance_uid)
        .await
        .map_err(SendError::Store)?;
    let (listed, said) = read_answer(&stored, &claimed.sop_instance_uid);
    if is_there(client, claimed, &object, &said).await? {
        Ok(if listed { "stored" } else { "found" })
    } else {
        Err(SendError::NotThere(said))
    }
}

async fn is_there(client: &Client, claimed: &ClaimedDelivery, object: &Object, said: &str) -> Result<bool, SendError> {
    client
        .has_instance(&object.study_uid, &object.series_uid, &claimed.sop_instance_uid)
        .await
        .map_err(|error| SendError::Ask {
            said: said.to_owned(),
            error,
        })
}

/// Whether the answer lists the instance as stored, and what it said in a few words.
fn read_answer(stored: &Stored, sop_instance_uid: &str) -> (bool, String) {
    let status = stored.status;
    let Ok(answer) = StowAnswer::parse(&stored.body) else {
        return (false, format!("answered {status} without saying what was stored"));
    };
    if answer.refers_to(sop_instance_uid) {
        return (true, format!("answered {status} and lists it as stored"));
    }
    let failure = answer
        .failed
        .iter()
        .find(|failure| failure.sop_instance_uid == sop_instance_uid)
        .map(|failure| failure.reason)
        .or_else(|| answer.other_failures.first().copied());
    match failure {
        Some(Some(reason)) => (false, format!("answered {status} with failure {reason} ({reason:04X})")),
        Some(None) => (false, format!("answered {status} with a failure")),
        None => (false, format!("answered {status} and does not list it")),
    }
}

/// The object as it lies among the results.
async fn read(data_folder: &Path, claimed: &ClaimedDelivery) -> Result<Object, SendError> {
    let path =
        inside(data_folder, &claimed.file).ok_or_else(|| SendError::File("its path leaves the data folder".into()))?;
    let sop_instance_uid = claimed.sop_instance_uid.clone();
    let reading = tokio::task::spawn_blocking(move || read_blocking(&path, &sop_instance_uid));
    reading.await.map_err(|_| SendError::File("the reader ended".into()))?
}

fn read_blocking(path: &Path, sop_instance_uid: &str) -> Result<Object, SendError> {
    let bytes = std::fs::read(path).map_err(|error| SendError::File(error.to_string()))?;
    let source = Source {
        path: Arc::from(path),
        offset: 0,
        length: bytes.len() as u64,
    };
    let header = read_header(&source, &Limits::default())
        .map_err(|error| SendError::File(error.to_string()))?
        .header;
    if header.sop_instance_uid != sop_instance_uid {
        return Err(SendError::File("it is another object than was planned".into()));
    }
    Ok(Object {
        bytes: bytes.into(),
        study_uid: header.study_instance_uid,
        series_uid: header.series_instance_uid,
    })
}

fn inside(folder: &Path, file: &str) -> Option<PathBuf> {
    let file = Path::new(file);
    let plain = file.components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| folder.join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_for_the_instance_and_not_for_its_status() {
        let listed = r#"{"00081199":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["2.25.1"]}}]}}"#;
        let failed = r#"{"00081198":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["2.25.1"]},"00081197":{"vr":"US","Value":[45070]}}]}}"#;
        for (status, body, is_listed, words) in [
            (200, listed, true, "lists it"),
            (409, listed, true, "lists it"),
            (200, "{}", false, "does not list it"),
            (409, failed, false, "45070 (B00E)"),
            (204, "", false, "without saying"),
            (200, "<html>", false, "without saying"),
        ] {
            let stored = Stored {
                status,
                body: body.into(),
            };
            let (found, said) = read_answer(&stored, "2.25.1");
            assert_eq!(found, is_listed, "{said}");
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_file_outside_the_data_folder_is_never_sent() {
        let folder = Path::new("data");
        assert_eq!(inside(folder, "results/a/b.dcm"), Some(folder.join("results/a/b.dcm")));
        for bad in ["../x", "/x", "a/../../x"] {
            assert_eq!(inside(folder, bad), None, "{bad}");
        }
    }
}
