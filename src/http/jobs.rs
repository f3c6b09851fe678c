//! `GET /api/v1/jobs` and `/api/v1/jobs/{id}`.

use std::collections::HashMap;

use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AppState;
use super::problem::{Path, Problem, Query};
use super::shapes::{Delivery, Details, Job};
use crate::database::{Database, Filter, JOB_STATES, JobRow, Whose};

/// Rows of a page where nothing else is said.
const USUAL_LIMIT: i64 = 50;
/// Most rows of a page.
const LARGEST_LIMIT: i64 = 200;
/// Longest value of a filter.
const LONGEST_VALUE: usize = 128;

/// What a list is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only those in this state.
    pub(crate) state: Option<String>,
    /// Only those of this Study Instance UID.
    pub(crate) study: Option<String>,
    /// Only those of this Series Instance UID.
    pub(crate) series: Option<String>,
    /// Only those of this accession number; not together with study or series.
    pub(crate) accession: Option<String>,
    /// Only those received then or later (RFC 3339).
    pub(crate) received_since: Option<String>,
    /// Goes on where the page before ended: its `next`.
    pub(crate) cursor: Option<String>,
    /// Most rows, 1 to 200; 50 if absent.
    pub(crate) limit: Option<i64>,
}

/// A page of jobs.
#[derive(Serialize, ToSchema)]
pub(crate) struct JobPage {
    pub(crate) jobs: Vec<Job>,
    /// The cursor of the next page; null: this is the last one.
    pub(crate) next: Option<String>,
}

impl ListQuery {
    /// The filter, with the key of the page before read from the cursor by `key`.
    pub(crate) fn filter<K>(self, states: &[&str], key: impl FnOnce(&str) -> Option<K>) -> Result<Filter<K>, Problem> {
        for value in [&self.study, &self.series, &self.accession].into_iter().flatten() {
            if value.len() > LONGEST_VALUE || value.contains('\0') {
                return Err(Problem::bad_request(
                    "bad_query",
                    format!("A filter has at most {LONGEST_VALUE} characters."),
                ));
            }
        }
        let whose = match (self.study, self.series, self.accession) {
            (None, None, None) => Whose::Everyone,
            (Some(study), None, None) => Whose::Study(study),
            (None, Some(series), None) => Whose::Series(series),
            (Some(study), Some(series), None) => Whose::StudyAndSeries(study, series),
            (None, None, Some(accession)) => Whose::Accession(accession),
            _ => {
                return Err(Problem::bad_request(
                    "filters_exclude_each_other",
                    "Give an accession number, or a study and series, not both.",
                ));
            }
        };
        check_state(self.state.as_deref(), states)?;
        let received_since = match self.received_since {
            None => None,
            Some(text) => Some(OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| {
                Problem::bad_request("bad_query", "received_since is a time like 2026-01-31T00:00:00Z.")
            })?),
        };
        Ok(Filter {
            whose,
            state: self.state,
            received_since,
            after: after(self.cursor.as_deref(), key)?,
            limit: rows_of_a_page(self.limit)?,
        })
    }
}

/// A state that is asked for is one of `states`.
pub(crate) fn check_state(state: Option<&str>, states: &[&str]) -> Result<(), Problem> {
    match state {
        Some(state) if !states.contains(&state) => Err(Problem::bad_request(
            "unknown_state",
            format!("A state is one of {}.", states.join(", ")),
        )),
        _ => Ok(()),
    }
}

/// Most rows of a page.
pub(crate) fn rows_of_a_page(limit: Option<i64>) -> Result<i64, Problem> {
    let limit = limit.unwrap_or(USUAL_LIMIT);
    if (1..=LARGEST_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::bad_request("bad_query", "limit is 1 to 200."))
    }
}

/// Time and key of the last row of the page before.
pub(crate) fn after<K>(
    cursor: Option<&str>,
    key: impl FnOnce(&str) -> Option<K>,
) -> Result<Option<(OffsetDateTime, K)>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let sentence = "The cursor is not one that a page of this list ended with.";
    let place = read_cursor(cursor, key).ok_or_else(|| Problem::bad_request("bad_cursor", sentence))?;
    Ok(Some(place))
}

/// The place after a row: microseconds and id.
pub(crate) fn cursor(time: OffsetDateTime, id: impl std::fmt::Display) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{id}", time.unix_timestamp_nanos() / 1000))
}

fn read_cursor<K>(cursor: &str, key: impl FnOnce(&str) -> Option<K>) -> Option<(OffsetDateTime, K)> {
    if cursor.len() > 128 {
        return None;
    }
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (microseconds, id) = text.split_once('.')?;
    let microseconds: i64 = microseconds.parse().ok()?;
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1000).ok()?;
    // PostgreSQL has no times before 4713 BC; none of ours is before 1970.
    (time >= OffsetDateTime::UNIX_EPOCH).then_some(())?;
    Some((time, key(id)?))
}

/// Rows as JSON, with their deliveries.
pub(crate) async fn with_deliveries(database: &Database, rows: Vec<JobRow>) -> Result<Vec<Job>, Problem> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut deliveries: HashMap<Uuid, Vec<Delivery>> = HashMap::new();
    for row in database.deliveries_of(&ids).await? {
        deliveries.entry(row.job_id).or_default().push(row.into());
    }
    Ok(rows
        .into_iter()
        .map(|row| {
            let deliveries = deliveries.remove(&row.id).unwrap_or_default();
            Job::new(row, deliveries)
        })
        .collect())
}

/// One more row than asked for tells whether there is a next page.
pub(crate) async fn page(database: &Database, mut filter: Filter<Uuid>) -> Result<JobPage, Problem> {
    let limit = usize::try_from(filter.limit).unwrap_or_default();
    filter.limit += 1;
    let mut rows = database.jobs(&filter).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| cursor(row.created_at, row.id.simple()));
    Ok(JobPage {
        jobs: with_deliveries(database, rows).await?,
        next,
    })
}

/// One job with everything.
pub(crate) async fn whole(database: &Database, id: Uuid) -> Result<Job, Problem> {
    let row = database
        .job(id)
        .await?
        .ok_or_else(|| Problem::not_found("job_not_found", "There is no such job."))?;
    let mut jobs = with_deliveries(database, vec![row]).await?;
    let mut job = jobs.pop().ok_or_else(Problem::internal)?;
    job.details = database.job_report(id).await?.as_ref().map(Details::of);
    Ok(job)
}

/// The jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", operation_id = "list_jobs", params(ListQuery),
    responses((status = 200, body = JobPage), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(state): State<AppState>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<JobPage>, Problem> {
    let filter = query.filter(&JOB_STATES, |id| Uuid::parse_str(id).ok())?;
    Ok(axum::Json(page(&state.database, filter).await?))
}

/// One job: verdicts, stage, measurements, timings, deliveries, links.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", operation_id = "get_job", params(("id" = Uuid, Path)),
    responses((status = 200, body = Job), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn one(State(state): State<AppState>, Path(id): Path<Uuid>) -> Result<axum::Json<Job>, Problem> {
    Ok(axum::Json(whole(&state.database, id).await?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let time = time::macros::datetime!(2026-03-04 05:06:07.123456 UTC);
        let id = Uuid::from_u128(7);
        let read = read_cursor(&cursor(time, id.simple()), |id| Uuid::parse_str(id).ok());
        assert_eq!(read, Some((time, id)));
    }

    #[test]
    fn strange_cursors_are_none() {
        let hostile = [
            "",
            "a",
            "\u{fc}",
            "LTEuMQ",
            &BASE64_URL_SAFE_NO_PAD.encode("9223372036854775807.1"),
            &"A".repeat(5000),
        ];
        for cursor in hostile {
            assert_eq!(read_cursor(cursor, |id| id.parse::<i64>().ok()), None, "{cursor}");
        }
    }
}
