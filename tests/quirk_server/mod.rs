//! A small PACS that answers as the odd ones do: told beforehand what to do with the next requests, it counts what it was asked.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

const DICOM_JSON: &str = "application/dicom+json";

/// What the next STOW-RS request meets.
#[derive(Clone, Copy, Debug)]
pub enum Stow {
    /// 200, listed; kept or not.
    Listed { kept: bool },
    /// 200 with a body that lists nothing.
    Silent { kept: bool },
    /// 409 with this failure reason.
    Conflict { reason: u16, kept: bool },
    /// 204 without a body.
    NoContent { kept: bool },
    /// A status alone.
    Status(u16),
    /// Kept, and answered with this status alone.
    KeptThen(u16),
    /// Kept and listed, in an answer that breaks off in its middle.
    BrokenOff,
    /// Kept and listed, in the first half of an answer, which HTTP calls whole.
    Half,
    /// Kept and listed; the next answer about instances breaks off in its middle.
    AskedInVain,
}

/// What the next WADO-RS request for a series meets.
#[derive(Clone, Copy, Debug)]
pub enum Wado {
    /// Everything but the closing boundary.
    Unclosed,
    /// One instance less, well closed.
    Short,
    /// Breaks off inside its last instance.
    BrokenOff,
    /// The beginning of its first instance, and nothing more for a minute.
    Silent,
    /// A status alone.
    Status(u16),
    /// 200 with a page, as a proxy shows one.
    Page,
}

/// A series that it has.
#[derive(Clone, Debug)]
pub struct Served {
    pub study: String,
    pub series: String,
    pub modality: &'static str,
    pub manufacturer: Option<&'static str>,
    /// SOP Instance UIDs and bytes.
    pub instances: Vec<(String, Vec<u8>)>,
    /// NumberOfSeriesRelatedInstances is told.
    pub tells_count: bool,
    /// What its metadata says of its first instance.
    pub metadata: Value,
}

#[derive(Debug, Default)]
pub struct Inside {
    pub stow: VecDeque<Stow>,
    /// Between keeping an object and answering.
    pub stow_wait: Duration,
    pub wado: VecDeque<Wado>,
    /// Status and body that are answered about a series: `SERIES/metadata`, `SERIES/instances`.
    pub odd: HashMap<String, (u16, String)>,
    pub series: Vec<Served>,
    /// Most rows of one answer.
    pub page: usize,
    /// So many questions for series are answered, the others with 503; `None`: all.
    pub series_answers: Option<usize>,
    /// So many of the next answers about instances break off in their middle.
    pub broken_instances: usize,
    pub stow_requests: usize,
    pub wado_requests: usize,
    pub series_queries: usize,
    pub metadata_requests: usize,
    /// What came: method, path with its query, and Authorization header.
    pub asked: Vec<(String, String, Option<String>)>,
}

pub struct QuirkServer {
    pub address: SocketAddr,
    inside: Shared,
    task: tokio::task::JoinHandle<()>,
}

type Shared = Arc<Mutex<Inside>>;

impl QuirkServer {
    pub async fn start() -> QuirkServer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        QuirkServer::on(listener)
    }

    /// At an address where one may have been before.
    pub async fn start_at(address: SocketAddr) -> QuirkServer {
        QuirkServer::on(tokio::net::TcpListener::bind(address).await.unwrap())
    }

    fn on(listener: tokio::net::TcpListener) -> QuirkServer {
        let inside = Shared::default();
        inside.lock().unwrap().page = 100;
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/dicom-web/series", get(all_series))
            .route("/dicom-web/studies/{study}", axum::routing::post(store))
            .route("/dicom-web/studies/{study}/series", get(study_series))
            .route("/dicom-web/studies/{study}/series/{series}", get(retrieve))
            .route("/dicom-web/studies/{study}/series/{series}/instances", get(instances))
            .route("/dicom-web/studies/{study}/series/{series}/metadata", get(metadata))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&inside), note))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&inside));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        QuirkServer { address, inside, task }
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}/dicom-web", self.address)
    }
}

impl Drop for QuirkServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn note(State(inside): State<Shared>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    let asked = (request.method().to_string(), request.uri().to_string(), authorization);
    inside.lock().unwrap().asked.push(asked);
    next.run(request).await
}

async fn store(State(inside): State<Shared>, Path(study): Path<String>, body: Bytes) -> Response {
    let (answer, wait) = {
        let mut inside = inside.lock().unwrap();
        (stored(&mut inside, study, &body), inside.stow_wait)
    };
    tokio::time::sleep(wait).await;
    answer
}

fn stored(inside: &mut Inside, study: String, body: &[u8]) -> Response {
    inside.stow_requests += 1;
    let part = only_part(body);
    let (series, sop) = uids_of(part);
    let quirk = inside.stow.pop_front().unwrap_or(Stow::Listed { kept: true });
    let kept = match quirk {
        Stow::Listed { kept } | Stow::Silent { kept } | Stow::Conflict { kept, .. } | Stow::NoContent { kept } => kept,
        Stow::Status(_) => false,
        Stow::KeptThen(_) | Stow::BrokenOff | Stow::Half | Stow::AskedInVain => true,
    };
    let there = inside.series.iter().flat_map(|series| &series.instances);
    let there = there
        .filter(|(uid, _)| *uid == sop)
        .map(|(_, bytes)| bytes == part)
        .next();
    assert_ne!(there, Some(false), "other bytes under the UID of what is there: {sop}");
    if kept && there.is_none() {
        inside.series.push(Served {
            study,
            series,
            modality: "SEG",
            manufacturer: Some("Hilum"),
            instances: vec![(sop.clone(), part.to_vec())],
            tells_count: true,
            metadata: json!({}),
        });
    }
    let item = json!({"00081155": {"vr": "UI", "Value": [sop]}});
    let listed = || json!({"00081199": {"vr": "SQ", "Value": [item]}});
    match quirk {
        Stow::Listed { .. } => dicom_json(StatusCode::OK, &listed()),
        Stow::AskedInVain => {
            inside.broken_instances += 1;
            dicom_json(StatusCode::OK, &listed())
        }
        Stow::BrokenOff => {
            let body = listed().to_string();
            broken_off(DICOM_JSON, body.as_bytes(), body.len() / 2)
        }
        Stow::Half => {
            let body = listed().to_string();
            let half = body[..body.len() / 2].to_owned();
            ([(header::CONTENT_TYPE, DICOM_JSON)], half).into_response()
        }
        Stow::Silent { .. } => dicom_json(StatusCode::OK, &json!({})),
        Stow::Conflict { reason, .. } => {
            let mut item = item.clone();
            item["00081197"] = json!({"vr": "US", "Value": [reason]});
            dicom_json(
                StatusCode::CONFLICT,
                &json!({"00081198": {"vr": "SQ", "Value": [item]}}),
            )
        }
        Stow::NoContent { .. } => StatusCode::NO_CONTENT.into_response(),
        Stow::Status(status) | Stow::KeptThen(status) => StatusCode::from_u16(status).unwrap().into_response(),
    }
}

/// An answer that says how long it is, and whose connection is closed after `length` bytes.
fn broken_off(kind: &str, body: &[u8], length: usize) -> Response {
    let first = Bytes::copy_from_slice(&body[..length]);
    let first = stream::once(async { Ok(first) });
    let end = stream::once(async {
        // What came before is on its way by then.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("broken off"))
    });
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, body.len().to_string()),
    ];
    (headers, Body::from_stream(first.chain(end))).into_response()
}

/// The instance in a body of one part.
fn only_part(body: &[u8]) -> &[u8] {
    let start = find(body, b"\r\n\r\n").unwrap() + 4;
    let length = find(&body[start..], b"\r\n--hilum-").unwrap();
    &body[start..start + length]
}

/// Series and SOP Instance UID of an instance.
fn uids_of(instance: &[u8]) -> (String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), instance).unwrap();
    let source = hilum::dicom::Source::of_file(file.path()).unwrap();
    let header = hilum::dicom::read_header(&source, &hilum::dicom::Limits::default())
        .unwrap()
        .header;
    (header.series_instance_uid, header.sop_instance_uid)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

type Asked = Query<HashMap<String, String>>;

async fn all_series(State(inside): State<Shared>, uri: axum::http::Uri) -> Response {
    list(&inside, None, &uri)
}

async fn study_series(State(inside): State<Shared>, Path(study): Path<String>, uri: axum::http::Uri) -> Response {
    list(&inside, Some(&study), &uri)
}

fn list(inside: &Shared, study: Option<&str>, uri: &axum::http::Uri) -> Response {
    let mut inside = inside.lock().unwrap();
    inside.series_queries += 1;
    if let Some(left) = &mut inside.series_answers {
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
    let asked: HashMap<&str, &str> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let number = |name: &str| asked.get(name).and_then(|value| value.parse::<usize>().ok());
    let rows: Vec<Value> = inside
        .series
        .iter()
        .filter(|one| study.is_none_or(|study| study == one.study))
        .filter(|one| asked.get("Modality").is_none_or(|modality| *modality == one.modality))
        .filter(|one| {
            asked
                .get("SeriesInstanceUID")
                .is_none_or(|series| *series == one.series)
        })
        .skip(number("offset").unwrap_or(0))
        .take(number("limit").unwrap_or(usize::MAX).min(inside.page))
        .map(row)
        .collect();
    dicom_json(StatusCode::OK, &Value::Array(rows))
}

fn row(one: &Served) -> Value {
    let mut row = json!({
        "0020000D": {"vr": "UI", "Value": [one.study]}, "0020000E": {"vr": "UI", "Value": [one.series]},
        "00080060": {"vr": "CS", "Value": [one.modality]},
    });
    if one.tells_count {
        // As text, as some do.
        row["00201209"] = json!({"vr": "IS", "Value": [one.instances.len().to_string()]});
    }
    if let Some(manufacturer) = one.manufacturer {
        row["00080070"] = json!({"vr": "LO", "Value": [manufacturer]});
    }
    row
}

async fn instances(
    State(inside): State<Shared>,
    Path((study, series)): Path<(String, String)>,
    Query(asked): Asked,
) -> Response {
    let mut inside = inside.lock().unwrap();
    if let Some(answer) = odd(&inside, &series, "instances") {
        return answer;
    }
    let number = |name: &str| asked.get(name).and_then(|value| value.parse::<usize>().ok());
    let rows: Vec<Value> = inside
        .series
        .iter()
        .filter(|one| one.study == study && one.series == series)
        .flat_map(|one| &one.instances)
        .filter(|(sop, _)| asked.get("SOPInstanceUID").is_none_or(|wanted| wanted == sop))
        .skip(number("offset").unwrap_or(0))
        .take(number("limit").unwrap_or(usize::MAX).min(inside.page))
        .map(|(sop, _)| json!({"00080018": {"vr": "UI", "Value": [sop]}}))
        .collect();
    if rows.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    let rows = Value::Array(rows);
    if inside.broken_instances > 0 {
        inside.broken_instances -= 1;
        let body = rows.to_string();
        return broken_off(DICOM_JSON, body.as_bytes(), body.len() / 2);
    }
    dicom_json(StatusCode::OK, &rows)
}

/// What is answered where a test wants something odd.
fn odd(inside: &Inside, series: &str, what: &str) -> Option<Response> {
    let (status, body) = inside.odd.get(&format!("{series}/{what}"))?;
    Some((StatusCode::from_u16(*status).unwrap(), body.clone()).into_response())
}

async fn metadata(State(inside): State<Shared>, Path((study, series)): Path<(String, String)>) -> Response {
    let mut inside = inside.lock().unwrap();
    inside.metadata_requests += 1;
    if let Some(answer) = odd(&inside, &series, "metadata") {
        return answer;
    }
    let found = inside
        .series
        .iter()
        .find(|one| one.study == study && one.series == series);
    match found {
        Some(one) => dicom_json(StatusCode::OK, &json!([one.metadata])),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn retrieve(State(inside): State<Shared>, Path((study, series)): Path<(String, String)>) -> Response {
    let mut inside = inside.lock().unwrap();
    inside.wado_requests += 1;
    let quirk = inside.wado.pop_front();
    if let Some(Wado::Status(status)) = quirk {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    if let Some(Wado::Page) = quirk {
        return ([(header::CONTENT_TYPE, "text/html")], "<p>Log in</p>").into_response();
    }
    let Some(one) = inside
        .series
        .iter()
        .find(|one| one.study == study && one.series == series)
    else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let boundary = "0123456789012345678901234567890123456-0123456789012345678901234567890123456";
    let short = usize::from(matches!(quirk, Some(Wado::Short)));
    let mut body = Vec::new();
    for (_, bytes) in &one.instances[short..] {
        body.extend_from_slice(format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    if !matches!(quirk, Some(Wado::Unclosed)) {
        body.extend_from_slice(format!("--{boundary}--").as_bytes());
    }
    let kind = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
    if matches!(quirk, Some(Wado::BrokenOff)) {
        return broken_off(&kind, &body, body.len() - boundary.len() - 100);
    }
    if matches!(quirk, Some(Wado::Silent)) {
        let first = Bytes::copy_from_slice(&body[..300]);
        let first = stream::once(async { Ok(first) });
        let silence = stream::once(async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Err(std::io::Error::other("silent"))
        });
        return ([(header::CONTENT_TYPE, kind)], Body::from_stream(first.chain(silence))).into_response();
    }
    ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response()
}

fn dicom_json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, DICOM_JSON)], value.to_string()).into_response()
}
