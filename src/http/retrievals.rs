//! `GET /api/v1/retrievals` and `/api/v1/retrievals/{id}`: how far it is with what a PACS was asked for.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::jobs::{after, check_state, cursor, rows_of_a_page};
use super::problem::{Path, Problem, Query};
use crate::database::{Database, RETRIEVAL_STATES, RetrievalRow, RetrievalState};

/// What the list is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetrievalQuery {
    /// Only those in this state: seen, pending, running, done or failed.
    state: Option<String>,
    /// Goes on where the page before ended: its `next`.
    cursor: Option<String>,
    /// Most rows, 1 to 200; 50 if absent.
    limit: Option<i64>,
}

/// A page of retrievals.
#[derive(Serialize, ToSchema)]
pub(crate) struct RetrievalPage {
    retrievals: Vec<Retrieval>,
    /// The cursor of the next page; null: this is the last one.
    next: Option<String>,
}

/// A series, or all CT series of a study, that is fetched from a PACS.
#[derive(Serialize, ToSchema)]
pub(crate) struct Retrieval {
    id: i64,
    /// seen (it waits until its count is the same in two answers), pending, running, done or failed.
    state: &'static str,
    /// Name of its `[[pacs]]` block.
    pacs: String,
    /// Null: the PACS is asked for the study of the series, which becomes a retrieval of its own.
    study_uid: Option<String>,
    /// Null: every CT series of the study; each becomes a retrieval of its own.
    series_uid: Option<String>,
    /// Instances; of a whole study its CT series, and of a series without its study the series of that UID; as far as they were counted.
    count: Option<i32>,
    priority: i16,
    attempts: i32,
    /// Why the last attempt failed.
    error: Option<String>,
    /// When it is tried again, where it waits for that.
    #[serde(with = "time::serde::rfc3339::option")]
    next_attempt_at: Option<OffsetDateTime>,
    /// Who asked for it.
    actor: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    links: RetrievalLinks,
}

/// Where to go on.
#[derive(Serialize, ToSchema)]
pub(crate) struct RetrievalLinks {
    #[serde(rename = "self")]
    itself: String,
    /// What was received of it.
    series: String,
    /// The jobs that came of it.
    jobs: String,
}

impl From<RetrievalRow> for Retrieval {
    fn from(row: RetrievalRow) -> Retrieval {
        let named = [("study", &row.study_uid), ("series", &row.series_uid)];
        let named = named.iter().filter(|(_, uid)| !uid.is_empty());
        let filter = named
            .map(|(name, uid)| format!("{name}={uid}"))
            .collect::<Vec<_>>()
            .join("&");
        Retrieval {
            id: row.id,
            state: row.state.name(),
            next_attempt_at: (row.state == RetrievalState::Pending).then_some(row.not_before),
            pacs: row.pacs,
            study_uid: Some(row.study_uid).filter(|uid| !uid.is_empty()),
            series_uid: Some(row.series_uid).filter(|uid| !uid.is_empty()),
            count: row.count,
            priority: row.priority,
            attempts: row.attempts,
            error: row.error,
            actor: row.actor,
            created_at: row.created_at,
            finished_at: row.finished_at,
            links: RetrievalLinks {
                itself: format!("/api/v1/retrievals/{}", row.id),
                series: format!("/api/v1/series?{filter}"),
                jobs: format!("/api/v1/jobs?{filter}"),
            },
        }
    }
}

/// One retrieval, by its id.
pub(super) async fn find(database: &Database, id: i64) -> Result<Retrieval, Problem> {
    let row = database.retrieval(id).await?;
    row.map(Retrieval::from)
        .ok_or_else(|| Problem::not_found("retrieval_not_found", "There is no such retrieval."))
}

/// What is, was or is to be fetched from a PACS, what was asked for last first: wished for by a user, or found by polling. Those that cannot be fetched are in the state `failed`, with
/// the reason in `error`.
#[utoipa::path(get, path = "/api/v1/retrievals", tag = "jobs", operation_id = "list_retrievals", params(RetrievalQuery),
    responses((status = 200, body = RetrievalPage), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Query(query): Query<RetrievalQuery>,
) -> Result<Json<RetrievalPage>, Problem> {
    check_state(query.state.as_deref(), &RETRIEVAL_STATES)?;
    let limit = rows_of_a_page(query.limit)?;
    // Ids only grow, so the id alone tells the order.
    let before = after(query.cursor.as_deref(), |id| id.parse::<i64>().ok())?.map_or(i64::MAX, |(_, id)| id);
    let state_asked = query.state.as_deref();
    let mut rows = state.database.retrievals(state_asked, before, limit + 1).await?;
    let page = usize::try_from(limit).unwrap_or_default();
    let more = rows.len() > page;
    rows.truncate(page);
    let next = rows.last().filter(|_| more).map(|row| cursor(row.created_at, row.id));
    Ok(Json(RetrievalPage {
        retrievals: rows.into_iter().map(Retrieval::from).collect(),
        next,
    }))
}

/// How far it is with a series or study that is fetched from a PACS, as the answer to a submission names it.
#[utoipa::path(get, path = "/api/v1/retrievals/{id}", tag = "jobs", operation_id = "get_retrieval", params(("id" = i64, Path)),
    responses((status = 200, body = Retrieval), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn one(State(state): State<AppState>, Path(id): Path<i64>) -> Result<Json<Retrieval>, Problem> {
    Ok(Json(find(&state.database, id).await?))
}
