//! What users do over REST: submit, cancel, try again, deliver again, close a series, pause the queue.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::AppState;
use super::access::Caller;
use super::jobs::{whole, with_deliveries};
use super::problem::{self, Path, Problem};
use super::retrievals::{self, Retrieval};
use super::series;
use super::shapes::{Job, Series};
use crate::database::{Operated, Wish};

/// What is to be segmented: a study, a series of it, or a series alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    /// StudyInstanceUID; absent: that of the series, as it is known here or at the PACS.
    #[schema(pattern = r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$", min_length = 1, max_length = 64)]
    study_uid: Option<String>,
    /// SeriesInstanceUID; absent: every CT series of the study. One of the two must be there.
    #[schema(pattern = r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$", min_length = 1, max_length = 64)]
    series_uid: Option<String>,
    /// Name of the PACS to fetch it from; absent: it was received already.
    pacs: Option<String>,
    /// Name of the network, where it must be a certain one (`name` or `name version`): any other than the one that this service segments with is refused.
    model: Option<String>,
    /// Greater goes first; 0 if absent.
    #[serde(default)]
    priority: i16,
}

/// What became of a submission.
#[derive(Serialize, ToSchema)]
pub(crate) struct Submitted {
    /// Jobs that exist already.
    jobs: Vec<Job>,
    /// Series that will get a job.
    series: Vec<Series>,
    /// What will be fetched; its link tells how far it is.
    retrieval: Option<Retrieval>,
}

/// How the queue stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueState {
    paused: bool,
    queued: i64,
    running: i64,
    /// For how many seconds the job waits that was made, or wished for again, the longest ago.
    oldest_seconds: f64,
    /// Workers seen lately.
    workers: i64,
}

/// The problem that an operation ended in, if it did.
fn problem_of(operated: Operated, what: &str) -> Result<StatusCode, Problem> {
    match operated {
        Operated::Done => Ok(StatusCode::OK),
        Operated::Asked => Ok(StatusCode::ACCEPTED),
        Operated::Unknown => Err(Problem::not_found("job_not_found", "There is no such job.")),
        Operated::WrongState(state) => Err(Problem::conflict(
            "wrong_state",
            format!("A job that is {state} cannot be {what}."),
        )),
        Operated::SeriesChanged => Err(Problem::conflict(
            "series_changed",
            "More slices came since, and make another job.",
        )),
        Operated::Removed => Err(Problem::conflict(
            "slices_removed",
            "Its slices were removed by retention: send the series again.",
        )),
        Operated::NoDeliveries => Err(Problem::conflict(
            "nothing_to_deliver",
            "The job made no segmentation, so that there is nothing to deliver; its report says why.",
        )),
    }
}

fn uid(text: &str) -> Result<(), Problem> {
    let right = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if right {
        Ok(())
    } else {
        Err(Problem::bad_request(
            "bad_uid",
            "A UID is digits and full stops, at most 64.",
        ))
    }
}

/// Whether a network that is asked for is the one that jobs are made with.
fn is_ours(state: &AppState, model: &str) -> Result<(), Problem> {
    let ours = state
        .specification
        .as_ref()
        .map(|specification| specification.model.as_str());
    let named = |ours: &str| ours == model || ours.rsplit_once(' ').is_some_and(|(name, _)| name == model);
    match ours {
        Some(ours) if named(ours) => Ok(()),
        Some(ours) => Err(Problem::bad_request(
            "unknown_model",
            format!("This service segments with {ours}, and with no other network."),
        )),
        None => Err(Problem::bad_request(
            "unknown_model",
            "It is not known here with which network jobs are made: name none.",
        )),
    }
}

fn unknown_series() -> Problem {
    Problem::not_found(
        "series_not_found",
        "No such series was received; name a PACS to fetch it from.",
    )
}

/// The study of a submission: the one that it names, or that of its series where that is known here; `None`: it is not.
async fn study_of(state: &AppState, submission: &Submission) -> Result<Option<String>, Problem> {
    let series = match submission {
        Submission {
            study_uid: Some(study), ..
        } => return Ok(Some(study.clone())),
        Submission {
            series_uid: Some(series),
            ..
        } => series,
        _ => {
            return Err(Problem::bad_request(
                "no_uid",
                "Name a study_uid, a series_uid or both.",
            ));
        }
    };
    let mut studies = state.database.studies_of_series(series, 2).await?;
    if studies.len() > 1 {
        return Err(Problem::conflict(
            "ambiguous_series",
            "Several studies have a series of this UID: name the study_uid as well.",
        ));
    }
    Ok(studies.pop())
}

/// Asks for a study or series to be segmented: fetched from a PACS, or as it was received. A job that exists for the series as it stands, with the
/// network and parameters of now, is answered (200); else 202.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", operation_id = "submit", request_body = Submission,
    responses((status = 200, body = Submitted), (status = 202, body = Submitted),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn submit(
    State(state): State<AppState>,
    Extension(Caller(caller)): Extension<Caller>,
    problem::Json(submission): problem::Json<Submission>,
) -> Result<(StatusCode, Json<Submitted>), Problem> {
    submission.study_uid.as_deref().map_or(Ok(()), uid)?;
    submission.series_uid.as_deref().map_or(Ok(()), uid)?;
    submission
        .model
        .as_deref()
        .map_or(Ok(()), |model| is_ours(&state, model))?;
    let wish = Wish {
        study_uid: study_of(&state, &submission).await?.unwrap_or_default(),
        series_uid: submission.series_uid,
        priority: submission.priority,
    };
    let mut submitted = Submitted {
        jobs: Vec::new(),
        series: Vec::new(),
        retrieval: None,
    };
    if let Some(pacs) = submission.pacs {
        if !state.pacs.contains(&pacs) {
            return Err(Problem::bad_request("unknown_pacs", "No [[pacs]] block has this name."));
        }
        let series_uid = wish.series_uid.as_deref().unwrap_or_default();
        let id = state
            .database
            .request_retrieval(&pacs, &wish.study_uid, series_uid, wish.priority, &caller)
            .await?;
        submitted.retrieval = Some(retrievals::find(&state.database, id).await?);
        return Ok((StatusCode::ACCEPTED, Json(submitted)));
    }
    if wish.study_uid.is_empty() {
        return Err(unknown_series());
    }
    let wished = state
        .database
        .wish_for_received(&wish, state.specification.as_deref(), &caller)
        .await?;
    if wished.jobs.is_empty() && wished.series.is_empty() {
        return Err(if !wished.removed.is_empty() {
            Problem::conflict(
                "slices_removed",
                "Its slices were removed by retention: send the series again, or name a PACS to fetch it from.",
            )
        } else if !wished.ignored.is_empty() {
            Problem::conflict("not_ct", "What was received of it is no CT, and was not kept.")
        } else {
            unknown_series()
        });
    }
    let mut rows = Vec::new();
    for id in &wished.jobs {
        rows.extend(state.database.job(*id).await?);
    }
    submitted.jobs = with_deliveries(&state.database, rows).await?;
    for id in &wished.series {
        submitted
            .series
            .extend(state.database.one_series(*id).await?.map(Series::from));
    }
    let status = if wished.series.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(submitted)))
}

/// Cancels a job: at once where it waits (200), within one window of the network where it runs (202).
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job", params(("id" = Uuid, Path)),
    responses((status = 200, body = Job), (status = 202, body = Job), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    let status = problem_of(state.database.cancel_job(id, &caller).await?, "canceled")?;
    Ok((status, Json(whole(&state.database, id).await?)))
}

/// Puts a failed, refused or canceled job back into the queue. It runs with the network and parameters of now; where its slices have a job of these that waits, runs or has a result, that
/// one stands, and this one is superseded.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job", params(("id" = Uuid, Path)),
    responses((status = 200, body = Job), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn retry(
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    let status = problem_of(state.database.retry_job(id, &caller).await?, "tried again")?;
    Ok((status, Json(whole(&state.database, id).await?)))
}

/// Sends the results of a finished job once more, whatever became of its deliveries, and to destinations that were configured since.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/redeliver", tag = "jobs", operation_id = "redeliver_job", params(("id" = Uuid, Path)),
    responses((status = 202, body = Job), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn redeliver(
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    let status = problem_of(state.database.redeliver_job(id, &caller).await?, "delivered again")?;
    Ok((status, Json(whole(&state.database, id).await?)))
}

/// Says that a series is whole, so that it is not waited for more slices. It is named by our id, or by its SeriesInstanceUID; where several studies have a series of this UID,
/// the answer is 409 (`ambiguous_series`) with the candidates.
#[utoipa::path(post, path = "/api/v1/series/{id}/finalize", tag = "series", operation_id = "finalize_series",
    params(("id" = String, Path, description = "Our id, or the SeriesInstanceUID.", pattern = r"^[0-9.]+$", min_length = 1, max_length = 64)),
    responses((status = 200, body = Series), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn finalize(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<Json<Series>, Problem> {
    let before = series::named(&state.database, &name).await?;
    if before.state == "ignored" || before.state == "taken" {
        return Err(Problem::conflict(
            "wrong_state",
            format!("A series that is {} is not waited for.", before.state),
        ));
    }
    state.database.finalize_series(before.id, &caller).await?;
    let after = series::named(&state.database, &before.id.to_string()).await?;
    Ok(Json(after.into()))
}

async fn queue_state(state: &AppState) -> Result<Json<QueueState>, Problem> {
    let queue = state.database.queue().await?;
    Ok(Json(QueueState {
        paused: queue.paused,
        queued: queue.queued,
        running: queue.running,
        oldest_seconds: queue.oldest_seconds,
        workers: queue.workers,
    }))
}

/// How the queue stands.
#[utoipa::path(get, path = "/api/v1/queue", tag = "queue", operation_id = "get_queue", responses((status = 200, body = QueueState)))]
pub(crate) async fn queue(State(state): State<AppState>) -> Result<Json<QueueState>, Problem> {
    queue_state(&state).await
}

/// Begins no more jobs; those that run go on.
#[utoipa::path(post, path = "/api/v1/queue/pause", tag = "queue", operation_id = "pause_queue", responses((status = 200, body = QueueState)))]
pub(crate) async fn pause(
    State(state): State<AppState>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<Json<QueueState>, Problem> {
    state.database.set_paused(true, &caller).await?;
    queue_state(&state).await
}

/// Begins jobs again.
#[utoipa::path(post, path = "/api/v1/queue/resume", tag = "queue", operation_id = "resume_queue", responses((status = 200, body = QueueState)))]
pub(crate) async fn resume(
    State(state): State<AppState>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Result<Json<QueueState>, Problem> {
    state.database.set_paused(false, &caller).await?;
    queue_state(&state).await
}
