//! The first page: the jobs, newest first, and a page for each. Made here as HTML, so that it is read without a script; a small script keeps it up to date.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::AppState;
use super::jobs::{ListQuery, page, whole};
use super::problem::{Path, Problem, Query};
use super::shapes::{Happened, Job};
use crate::database::JOB_STATES;

const STYLE: &str = include_str!("static/hilum.css");
const SCRIPT: &str = include_str!("static/hilum.js");
const ICON: &str = include_str!("static/hilum.svg");
/// Jobs on the first page.
const JOBS: i64 = 25;
/// Events on the page of a job.
const EVENTS: i64 = 200;

/// What the first page may be asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct PageQuery {
    state: Option<String>,
    cursor: Option<String>,
}

fn frame(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href="/static/hilum.svg";
                link rel="stylesheet" href="/static/hilum.css";
                script src="/static/hilum.js" defer {}
            }
            body {
                header { a.name href="/" { "Hilum" } span.notice { "Research use only" } }
                main { (content) }
                footer {
                    a href="/docs/" { "REST interface" } " · " a href="/api/v1/measurements.csv" { "Measurements (CSV)" }
                }
            }
        }
    }
}

/// 20260102 as 2026-01-02; anything else as it is.
fn date(text: &str) -> String {
    match (text.get(0..4), text.get(4..6), text.get(6..8)) {
        (Some(year), Some(month), Some(day)) if text.len() == 8 => format!("{year}-{month}-{day}"),
        _ => text.to_owned(),
    }
}

fn moment(at: OffsetDateTime) -> Markup {
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    let text = format!("{date} {hour:02}:{minute:02}:{second:02} UTC");
    html! { time { (text) } }
}

/// The stage as the command line names it.
fn stage_title(stage: &str) -> String {
    use crate::segment::Stage;
    let stages = [
        Stage::Read,
        Stage::Resample,
        Stage::Crop,
        Stage::Windows,
        Stage::MaskBack,
        Stage::CleanUp,
        Stage::Measure,
        Stage::Outputs,
    ];
    stages
        .into_iter()
        .find(|known| known.name() == stage)
        .map_or_else(|| stage.to_owned(), |known| known.title().to_owned())
}

fn left(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("about {seconds:.0} s left")
    } else {
        format!("about {:.0} min left", seconds / 60.0)
    }
}

fn volumes(job: &Job) -> Markup {
    let figures = [("Both", "/total"), ("Right", "/right"), ("Left", "/left")];
    html! {
        @if job.measurements.is_some() {
            dl.volumes {
                @for (name, pointer) in figures {
                    @if let Some(ml) = job.figure(&format!("{pointer}/volume_ml")) {
                        div { dt { (name) } dd { (format!("{ml:.0}")) " ml" } }
                    }
                }
            }
        }
    }
}

/// What becomes of its results at every PACS.
fn delivered(job: &Job) -> Markup {
    html! {
        @if !job.deliveries.is_empty() || !job.withheld.is_empty() {
            ul.deliveries {
                @for delivery in &job.deliveries {
                    li.(delivery.state) {
                        (delivery.destination) ": " (delivery.state.replace('_', " "))
                        @if let Some(error) = &delivery.error { " – " (error) }
                    }
                }
                @for withheld in &job.withheld {
                    li.withheld {
                        "not sent to " (withheld.destination.as_deref().unwrap_or("any PACS")) ": " (withheld.why.replace('_', " "))
                    }
                }
            }
        }
    }
}

fn progress(job: &Job) -> Markup {
    html! {
        @if job.state == "running" {
            p.progress {
                progress max=(job.windows_total.max(1)) value=(job.windows_done) {}
                span.stage { (job.stage.as_deref().map(stage_title).unwrap_or_default()) }
                @if let Some(seconds) = job.seconds_left { span.left { (left(seconds)) } }
                @if job.cancel_requested { span { "to be canceled" } }
            }
        }
    }
}

fn heading(job: &Job) -> String {
    let parts = [
        job.series.study_description.as_str(),
        job.series.series_description.as_str(),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.trim().is_empty()).collect();
    if parts.is_empty() {
        "CT series without a description".to_owned()
    } else {
        parts.join(" · ")
    }
}

/// One job in the list.
fn job_card(job: &Job) -> Markup {
    let address = format!("/jobs/{}", job.id);
    html! {
        article.job data-job=(job.id) {
            @if job.has_result("overlay.png") {
                a.picture href=(address) {
                    img src=(format!("/api/v1/jobs/{}/result/overlay.png", job.id)) alt="The mask over the CT" loading="lazy" width="240" height="180";
                }
            }
            div.words {
                h2 { a href=(address) { (heading(job)) } }
                p.facts {
                    span.state.(job.state) { (job.state) }
                    span { (date(&job.series.study_date)) }
                    span { (job.series.instances) " slices" }
                    @if !job.series.accession_number.is_empty() { span { "accession " (job.series.accession_number) } }
                }
                (progress(job))
                (volumes(job))
                @for sentence in job.sentences() { p.finding { (sentence) } }
                (delivered(job))
            }
        }
    }
}

/// The jobs, newest first.
pub(crate) async fn first(State(state): State<AppState>, Query(query): Query<PageQuery>) -> Result<Markup, Problem> {
    let newest = query.cursor.is_none();
    let asked = ListQuery {
        state: query.state.filter(|state| !state.is_empty()),
        cursor: query.cursor,
        limit: Some(JOBS),
        ..ListQuery::default()
    };
    let chosen = asked.state.clone();
    let filter = asked.filter(&JOB_STATES, |id| Uuid::parse_str(id).ok())?;
    let found = page(&state.database, filter).await?;
    let queue = state.database.queue().await?;
    let only = chosen
        .as_deref()
        .map(|state| format!("&state={state}"))
        .unwrap_or_default();
    let content = html! {
        @if queue.paused { p.paused { "The queue is paused: no job is begun." } }
        nav {
            a.here[chosen.is_none()] href="/" { "all" }
            @for state in JOB_STATES {
                " " a.here[chosen.as_deref() == Some(state)] href=(format!("/?state={state}")) { (state) }
            }
        }
        p.queue { (queue.queued) " waiting, " (queue.running) " running" }
        div #jobs data-live[newest && chosen.is_none()] {
            @for job in &found.jobs { (job_card(job)) }
        }
        @if found.jobs.is_empty() { p.empty { "No jobs yet. Send a chest CT to " code { "/dicom-web/studies" } "." } }
        @if let Some(next) = found.next { p.more { a href=(format!("/?cursor={next}{only}")) { "Older" } } }
    };
    Ok(frame("Hilum: jobs", &content))
}

/// One job as the list shows it: what the script puts in place of the old one.
pub(crate) async fn card(State(state): State<AppState>, Path(id): Path<Uuid>) -> Result<Markup, Problem> {
    Ok(job_card(&whole(&state.database, id).await?))
}

fn facts(job: &Job) -> Markup {
    let series = &job.series;
    let rows: [(&str, &str); 8] = [
        ("Study UID", &series.study_uid),
        ("Series UID", &series.series_uid),
        ("Accession number", &series.accession_number),
        ("Patient ID", &series.patient_id),
        ("From", series.source.as_deref().unwrap_or("an unnamed sender")),
        ("Segmentation UID", job.segmentation_uid.as_deref().unwrap_or_default()),
        ("Model", &job.model.name),
        ("Model digest", &job.model.digest),
    ];
    html! {
        dl.facts {
            @for (name, value) in rows { @if !value.is_empty() { div { dt { (name) } dd { (value) } } } }
            div { dt { "Attempts" } dd { (job.attempts) @if job.deaths > 0 { ", workers lost: " (job.deaths) } } }
            @if let Some(before) = job.predecessor {
                div { dt { "Follows" } dd { a href=(format!("/jobs/{before}")) { (before) } } }
            }
        }
    }
}

fn timings(job: &Job) -> Markup {
    let stages = job.details.as_ref().and_then(|details| details.timings.as_array());
    html! {
        @if let Some(stages) = stages.filter(|stages| !stages.is_empty()) {
            h2 { "Time" }
            table {
                @for stage in stages {
                    tr {
                        td { (stage_title(stage.get("stage").and_then(Value::as_str).unwrap_or_default())) }
                        td.number { (format!("{:.2} s", stage.get("seconds").and_then(Value::as_f64).unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

fn history(events: &[Happened]) -> Markup {
    html! {
        h2 { "History" }
        ol.history {
            @for event in events {
                li {
                    (moment(event.at)) " " b { (event.kind.replace('_', " ")) } " by " (event.actor)
                    @for (name, value) in event.detail.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
                        " " code { (name.replace('_', " ")) ": " (value.as_str().map_or_else(|| value.to_string(), str::to_owned)) }
                    }
                }
            }
        }
    }
}

/// Everything about one job.
pub(crate) async fn job(State(state): State<AppState>, Path(id): Path<Uuid>) -> Result<Markup, Problem> {
    let job = whole(&state.database, id).await?;
    let events: Vec<Happened> = state
        .database
        .events_of_job(id, EVENTS)
        .await?
        .into_iter()
        .map(Happened::from)
        .collect();
    let content = html! {
        article.whole data-page-of=(job.id) {
            h1 { (heading(&job)) }
            p.facts {
                span.state.(job.state) { (job.state) }
                span { (date(&job.series.study_date)) }
                span { (job.series.instances) " slices" }
            }
            (progress(&job))
            @for sentence in job.sentences() { p.finding { (sentence) } }
            (volumes(&job))
            @if job.has_result("overlay.png") {
                img.overlay src=(format!("/api/v1/jobs/{id}/result/overlay.png")) alt="The mask over the CT";
            }
            @if !job.links.results.is_empty() {
                p.results { "Results: "
                    @for link in &job.links.results {
                        a href=(link) { (link.rsplit('/').next().unwrap_or_default()) } " "
                    }
                }
            }
            (delivered(&job))
            (facts(&job))
            (timings(&job))
            (history(&events))
        }
    };
    Ok(frame(&format!("Hilum: {}", heading(&job)), &content))
}

/// The style, the script and the icon.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, Problem> {
    let (kind, text) = match name.as_str() {
        "hilum.css" => ("text/css; charset=utf-8", STYLE),
        "hilum.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "hilum.svg" => ("image/svg+xml", ICON),
        _ => return Err(Problem::not_found("no_such_file", "There is no such file.")),
    };
    let mut response = text.into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
