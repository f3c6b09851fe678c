//! `GET /api/v1/events` and `/api/v1/jobs/{id}/events`: what happens, as server-sent events that can be taken up again (Last-Event-ID).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;
use uuid::Uuid;

use super::AppState;
use super::problem::{Path, Problem, Query};
use super::shapes::Happened;
use crate::database::{Change, Database, Event, Place, Progress};

/// A comment is sent so often while nothing happens, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventQuery {
    /// As the header Last-Event-ID: the events after this one; 0: all of them.
    pub(crate) last_event_id: Option<i64>,
}

/// Events as they happen, and the progress of running jobs (`progress`, without an id).
#[utoipa::path(get, path = "/api/v1/events", tag = "events", operation_id = "all_events", params(EventQuery),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "As many streams are open as may be", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn all(
    State(state): State<AppState>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Problem> {
    let permit = permit(&state)?;
    // Before the place is looked up, so that nothing falls between.
    let live = state.watcher.listen();
    let place = match last_event_id(&query, &headers)? {
        Some(id) => state.database.place_of_event(id).await?,
        None => state.database.last_place().await?,
    };
    Ok(stream(&state, live, place, None, permit))
}

/// The events of one job, from its first or after Last-Event-ID, and its progress.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", tag = "events", operation_id = "job_events",
    params(("id" = Uuid, Path), EventQuery),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "As many streams are open as may be", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn of_job(
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Problem> {
    let permit = permit(&state)?;
    let live = state.watcher.listen();
    if state.database.job(id).await?.is_none() {
        return Err(Problem::not_found("job_not_found", "There is no such job."));
    }
    let place = match last_event_id(&query, &headers)? {
        Some(id) => state.database.place_of_event(id).await?,
        None => Place::default(),
    };
    Ok(stream(&state, live, place, Some(id), permit))
}

/// The permit of one more stream: each holds a connection, and looks at the database after a pause of its reader.
fn permit(state: &AppState) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&state.event_streams).try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            format!(
                "As many streams of events are open as may be at once ({}, service.max_event_streams).",
                state.settings.max_event_streams
            ),
        )
    })
}

fn last_event_id(query: &EventQuery, headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    match headers.get("last-event-id") {
        None => Ok(query.last_event_id),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|value| value.trim().parse().ok())
            .map(Some)
            .ok_or_else(|| Problem::bad_request("bad_last_event_id", "Last-Event-ID is the id of an event.")),
    }
}

/// What a connection has sent and has still to send.
struct Follower {
    database: Database,
    live: Receiver<Change>,
    job: Option<Uuid>,
    place: Place,
    waiting: VecDeque<Event>,
    /// The database is read until it has nothing more; only then what is live.
    catching_up: bool,
    /// Given back when the connection ends.
    _permit: OwnedSemaphorePermit,
}

enum Next {
    Event(Arc<Event>),
    Progress(Arc<Progress>),
}

impl Follower {
    async fn next(&mut self) -> Option<Next> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.place = event.place;
                return Some(Next::Event(Arc::new(event)));
            }
            if self.catching_up {
                match self.database.events_after(self.place, self.job).await {
                    Ok(events) if events.is_empty() => self.catching_up = false,
                    Ok(events) => self.waiting = events.into(),
                    Err(error) => {
                        // The client comes again with its last id.
                        tracing::warn!(%error, "a stream of events ends");
                        return None;
                    }
                }
                continue;
            }
            match self.live.recv().await {
                Ok(Change::Event(event)) => {
                    if event.place > self.place && self.job.is_none_or(|job| event.job_id == Some(job)) {
                        self.place = event.place;
                        return Some(Next::Event(event));
                    }
                }
                Ok(Change::Progress(progress)) => {
                    if self.job.is_none_or(|job| progress.job_id == job) {
                        return Some(Next::Progress(progress));
                    }
                }
                Err(RecvError::Lagged(_)) => self.catching_up = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn stream(
    state: &AppState,
    live: Receiver<Change>,
    place: Place,
    job: Option<Uuid>,
    permit: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Message, Infallible>> + use<>> {
    let follower = Follower {
        database: state.database.clone(),
        live,
        job,
        place,
        waiting: VecDeque::new(),
        catching_up: true,
        _permit: permit,
    };
    let messages = futures_util::stream::unfold(follower, |mut follower| async {
        let next = follower.next().await?;
        Some((Ok(message(&next)), follower))
    });
    let end = state.watcher.end().clone();
    Sse::new(messages.take_until(end.cancelled_owned())).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn message(next: &Next) -> Message {
    match next {
        Next::Event(event) => Message::default()
            .id(event.place.id.to_string())
            .event("event")
            .data(serde_json::to_string(&Happened::from(event.as_ref())).unwrap_or_default()),
        Next::Progress(progress) => Message::default().event("progress").data(
            json!({
                "job_id": progress.job_id,
                "stage": progress.stage,
                "windows_done": progress.windows_done,
                "windows_total": progress.windows_total,
            })
            .to_string(),
        ),
    }
}
