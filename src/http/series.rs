//! `GET /api/v1/series` and `/api/v1/series/{id}`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::jobs::{ListQuery, cursor, with_deliveries};
use super::problem::{Path, Problem, Query};
use super::shapes::{Series, SeriesWithEvents};
use crate::database::SERIES_STATES;

/// Events shown with a series.
const EVENTS: i64 = 500;

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

/// One series, by our id, with its jobs and what happened to it.
#[utoipa::path(get, path = "/api/v1/series/{id}", tag = "series", operation_id = "get_series", params(("id" = i64, Path)),
    responses((status = 200, body = SeriesWithEvents), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn one(State(state): State<AppState>, Path(id): Path<i64>) -> Result<Json<SeriesWithEvents>, Problem> {
    let row = state
        .database
        .one_series(id)
        .await?
        .ok_or_else(|| Problem::not_found("series_not_found", "There is no such series."))?;
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
