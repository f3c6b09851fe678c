//! Signs of life and metrics: `/healthz`, `/readyz`, `/metrics`.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::AppState;
use super::problem::Problem;
use crate::database::{JOB_STATES, SERIES_STATES};
use crate::inbox::Disk;

/// The database is asked for figures at most so often.
const ASKED: Duration = Duration::from_secs(5);
/// A database that does not answer for so long is not ready.
const PATIENCE: Duration = Duration::from_secs(3);
const DELIVERY_STATES: [&str; 5] = ["pending", "sending", "delivered", "given_up", "withdrawn"];

/// Collects the metrics of this process and renders them. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    handle: PrometheusHandle,
    asked: Arc<Mutex<Option<Instant>>>,
}

static RECORDER: OnceLock<Option<Recorder>> = OnceLock::new();

/// Begins to record metrics; a second call in the same process answers the same recorder. `None`: another recorder was installed before.
#[must_use]
pub fn record() -> Option<Recorder> {
    RECORDER
        .get_or_init(|| {
            let seconds = [
                0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
            ];
            let handle = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)
                .ok()?
                .install_recorder()
                .ok()?;
            describe();
            Some(Recorder {
                handle,
                asked: Arc::new(Mutex::new(None)),
            })
        })
        .clone()
}

fn describe() {
    describe_counter!("hilum_http_requests_total", "Requests by route, method and status.");
    describe_histogram!(
        "hilum_http_request_seconds",
        "Seconds until the answer began, by route."
    );
    describe_counter!("hilum_instances_total", "Instances received, by what became of them.");
    describe_counter!(
        "hilum_unknown_sources_total",
        "Requests whose X-Hilum-Source no [[pacs]] block has as its name."
    );
    describe_counter!(
        "hilum_series_passed_over_total",
        "Series that polling passed over for a round, since their PACS could not be asked about them, by PACS."
    );
    describe_histogram!("hilum_stage_seconds", "Seconds of each stage of a series, by stage.");
    describe_counter!("hilum_windows_total", "Windows that the network saw.");
    describe_gauge!("hilum_series", "Series by state.");
    describe_gauge!("hilum_jobs", "Jobs by state.");
    describe_gauge!("hilum_deliveries", "Deliveries by state.");
    describe_gauge!("hilum_queue_age_seconds", "For how long the oldest job waits.");
    describe_gauge!("hilum_queue_paused", "1: no job is begun.");
    describe_gauge!(
        "hilum_oldest_open_series_seconds",
        "For how long the oldest series has been arriving."
    );
    describe_gauge!("hilum_event_streams", "Streams of events that are open.");
    describe_gauge!("hilum_disk_free_bytes", "Free on the disk of the data folder.");
    describe_gauge!("hilum_disk_used_ratio", "Share of that disk that is used, 0 to 1.");
}

/// Counts every request by its route, never by its path.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let method = request.method().as_str();
    let method = if ["GET", "POST", "HEAD", "OPTIONS"].contains(&method) {
        method.to_owned()
    } else {
        "other".to_owned()
    };
    let begun = Instant::now();
    let response = next.run(request).await;
    histogram!("hilum_http_request_seconds", "route" => route.clone()).record(begun.elapsed().as_secs_f64());
    counter!("hilum_http_requests_total", "route" => route, "method" => method, "status" => response.status().as_u16().to_string())
        .increment(1);
    response
}

/// The disk of the data folder; `None`: it does not answer.
async fn disk(state: &AppState) -> Option<Disk> {
    let folder = state.data_folder.clone();
    tokio::task::spawn_blocking(move || Disk::of(&folder).ok()).await.ok()?
}

/// How it stands with the network of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// This process does not segment (`--roles` without `work`): nobody needs it here.
    NotAsked,
    /// It is being loaded, and empty windows are sent through it.
    Loading,
    /// Empty windows went through it: jobs are worked on.
    Ready,
    /// It could not be loaded, and why. It is tried again.
    Failed(String),
}

impl ModelState {
    /// As an answer names it.
    fn name(&self) -> &'static str {
        match self {
            ModelState::NotAsked => "not_asked",
            ModelState::Loading => "loading",
            ModelState::Ready => "ready",
            ModelState::Failed(_) => "failed",
        }
    }
}

/// Whether each part is ready.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    database: bool,
    /// The data folder is there, and its disk has room for uploads.
    disk: bool,
    /// Windows went through the network, or this process needs none (`model_state` tells).
    model: bool,
    /// not_asked (this process does not segment), loading, ready or failed.
    model_state: &'static str,
    /// Why the network could not be loaded; it is tried again.
    model_error: Option<String>,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "healthz", responses((status = 200, body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can do its work; the PACS is not asked.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub(crate) async fn readyz(State(state): State<AppState>) -> (StatusCode, Json<Readiness>) {
    let answered = tokio::time::timeout(PATIENCE, state.database.ping()).await;
    let model = state.model.borrow().clone();
    let ready = Readiness {
        database: matches!(answered, Ok(Ok(()))),
        disk: disk(&state).await.is_some_and(|disk| disk.has_room(&state.disk_limits)),
        model: matches!(model, ModelState::Ready | ModelState::NotAsked),
        model_state: model.name(),
        model_error: match model {
            ModelState::Failed(why) => Some(why),
            _ => None,
        },
    };
    let status = if ready.database && ready.disk && ready.model {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(ready))
}

/// A gauge for every state, 0 where no row is in it.
fn by_state(name: &'static str, states: &[&str], counts: &[(String, i64)]) {
    for state in states {
        let count = counts.iter().find(|(of, _)| of == state).map_or(0, |(_, count)| *count);
        gauge!(name, "state" => (*state).to_owned()).set(count as f64);
    }
}

/// The metrics, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "health", operation_id = "metrics", responses((status = 200, content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<Response, Problem> {
    let mut asked = state.recorder.asked.lock().await;
    if asked.is_none_or(|at| at.elapsed() > ASKED) {
        // A database that is away leaves the last figures; /readyz tells of it.
        if let Ok(Ok(figures)) = tokio::time::timeout(PATIENCE, state.database.figures()).await {
            by_state("hilum_series", &SERIES_STATES, &figures.series);
            by_state("hilum_jobs", &JOB_STATES, &figures.jobs);
            by_state("hilum_deliveries", &DELIVERY_STATES, &figures.deliveries);
            gauge!("hilum_queue_age_seconds").set(figures.queue.oldest_seconds);
            gauge!("hilum_queue_paused").set(f64::from(u8::from(figures.queue.paused)));
            gauge!("hilum_oldest_open_series_seconds").set(figures.oldest_open_series_seconds);
        }
        if let Some(disk) = disk(&state).await {
            gauge!("hilum_disk_free_bytes").set(disk.free_bytes as f64);
            gauge!("hilum_disk_used_ratio").set(disk.used_share);
        }
        *asked = Some(Instant::now());
    }
    drop(asked);
    let open = (state.settings.max_event_streams).saturating_sub(state.event_streams.available_permits());
    gauge!("hilum_event_streams").set(open as f64);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    state.recorder.handle.run_upkeep();
    Ok((headers, state.recorder.handle.render()).into_response())
}
