//! `GET /api/v1/series` and `/api/v1/series/{id}`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::jobs::{ListQuery, cursor, with_deliveries};
use super::problem::{Candidate, Path, Problem, Query};
use super::shapes::{Series, SeriesWithEvents};
use crate::database::{Database, Filter, SERIES_STATES, SeriesRow, Whose};

/// Events shown with a series.
const EVENTS: i64 = 500;
/// Most series that are named where a UID may mean several.
const MOST_CANDIDATES: i64 = 20;

/// A page of series.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesPage {
    pub(crate) series: Vec<Series>,
    /// The cursor of the next page; null: this is the last one.
    pub(crate) next: Option<String>,
}

/// The series, newest first.
#[utoipa::path(get, path = "/api/v1/series", tag = "series", operation_id = "list_series", params(ListQuery),
    responses((status = 200, body = SeriesPage), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<SeriesPage>, Problem> {
    let mut filter = query.filter(&SERIES_STATES, |id| id.parse::<i64>().ok())?;
    let limit = usize::try_from(filter.limit).unwrap_or_default();
    filter.limit += 1;
    let mut rows = state.database.series(&filter).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| cursor(row.received_at, row.id));
    Ok(Json(SeriesPage {
        series: rows.into_iter().map(Series::from).collect(),
        next,
    }))
}

/// The series that a path names: by our id, which is a number, or by its SeriesInstanceUID, which has full stops.
pub(super) async fn named(database: &Database, name: &str) -> Result<SeriesRow, Problem> {
    let unknown = || Problem::not_found("series_not_found", "There is no such series.");
    if name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let sentence = "A series is named by its id here, which is a number, or by its SeriesInstanceUID.";
        return Err(Problem::bad_request("bad_path", sentence));
    }
    if !name.contains('.') {
        // A number that is none of ours may also be too great for one.
        let id = name.parse().map_err(|_| unknown())?;
        return database.one_series(id).await?.ok_or_else(unknown);
    }
    let filter = Filter {
        whose: Whose::Series(name.to_owned()),
        state: None,
        received_since: None,
        after: None,
        limit: MOST_CANDIDATES,
    };
    let mut found = database.series(&filter).await?;
    if found.len() > 1 {
        let sentence = "Several studies have a series of this UID: name one of the candidates by its id.";
        let candidates = found.into_iter().map(|row| Candidate {
            id: row.id,
            study_uid: row.study_uid,
            source: row.source,
        });
        return Err(Problem::conflict("ambiguous_series", sentence).of(candidates.collect()));
    }
    found.pop().ok_or_else(unknown)
}

/// One series with its jobs and what happened to it, by our id or by its SeriesInstanceUID. Where several studies have a series of this UID, the answer is 409
/// (`ambiguous_series`) with the candidates.
#[utoipa::path(get, path = "/api/v1/series/{id}", tag = "series", operation_id = "get_series",
    params(("id" = String, Path, description = "Our id, or the SeriesInstanceUID.", pattern = r"^[0-9.]+$", min_length = 1, max_length = 64)),
    responses((status = 200, body = SeriesWithEvents), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn one(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<SeriesWithEvents>, Problem> {
    let row = named(&state.database, &name).await?;
    let id = row.id;
    let jobs = state.database.jobs_of_series(id).await?;
    Ok(Json(SeriesWithEvents {
        series: row.into(),
        jobs: with_deliveries(&state.database, jobs).await?,
        events: state
            .database
            .events_of_series(id, EVENTS)
            .await?
            .into_iter()
            .map(Into::into)
            .collect(),
    }))
}
