//! `GET /api/v1/measurements.csv`: one row per series that a job was made for, refused and failed ones too, by the job that stands for it (`newest`).

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::AppState;
use super::jobs::ListQuery;
use super::problem::{Problem, Query};
use super::shapes::Job;
use crate::database::{Filter, JOB_STATES};

/// Jobs read at once.
const PAGE: i64 = 500;

const COLUMNS: [&str; 31] = [
    "study_instance_uid",
    "series_instance_uid",
    "accession_number",
    "patient_id",
    "study_date",
    "study_description",
    "series_description",
    "source",
    "instances",
    "received_at",
    "job",
    "state",
    "outcome",
    "findings",
    "mask_findings",
    "error_code",
    "total_ml",
    "right_ml",
    "left_ml",
    "mean_hu",
    "sd_hu",
    "median_hu",
    "pd15_g_per_l",
    "fraction_below_minus_950_hu",
    "fraction_minus_700_to_minus_300_hu",
    "fraction_above_minus_300_hu",
    "mass_g",
    "model",
    "model_digest",
    "pipeline_revision",
    "finished_at",
];

/// Text of strangers, so that no spreadsheet takes it for a formula.
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

fn codes(findings: Option<&Value>) -> String {
    let codes: Vec<&str> = findings
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|finding| finding.get("code")?.as_str())
        .collect();
    codes.join(" ")
}

fn row(job: &Job) -> [String; 31] {
    let number = |pointer: &str| job.figure(pointer).map(|value| value.to_string()).unwrap_or_default();
    let density = |name: &str| number(&format!("/total/density/{name}"));
    let series = &job.series;
    let verdict = job.verdict.as_ref();
    [
        plain(&series.study_uid),
        plain(&series.series_uid),
        plain(&series.accession_number),
        plain(&series.patient_id),
        plain(&series.study_date),
        plain(&series.study_description),
        plain(&series.series_description),
        plain(series.source.as_deref().unwrap_or_default()),
        series.instances.to_string(),
        series.received_at.format(&Rfc3339).unwrap_or_default(),
        job.id.to_string(),
        job.state.clone(),
        verdict
            .and_then(|verdict| verdict.get("outcome")?.as_str())
            .unwrap_or_default()
            .to_owned(),
        codes(verdict.and_then(|verdict| verdict.get("findings"))),
        codes(job.mask_findings.as_ref()),
        job.error.as_ref().map(|error| error.code.clone()).unwrap_or_default(),
        number("/total/volume_ml"),
        number("/right/volume_ml"),
        number("/left/volume_ml"),
        density("mean_hu"),
        density("sd_hu"),
        density("percentiles_hu/p50"),
        density("pd15_g_per_l"),
        density("fraction_below_minus_950_hu"),
        density("fraction_minus_700_to_minus_300_hu"),
        density("fraction_above_minus_300_hu"),
        density("mass_g"),
        plain(&job.model.name),
        job.model.digest.clone(),
        job.model.pipeline_revision.to_string(),
        job.finished_at
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_default(),
    ]
}

fn lines(rows: impl IntoIterator<Item = [String; 31]>) -> Result<Bytes, std::io::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(&row)?;
    }
    writer.into_inner().map(Bytes::from).map_err(|error| error.into_error())
}

/// A table of all measurements, newest first, with the filters of the list of jobs (`cursor` and `limit` do not apply).
#[utoipa::path(get, path = "/api/v1/measurements.csv", tag = "jobs", operation_id = "measurements", params(ListQuery),
    responses((status = 200, content_type = "text/csv", body = String), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn table(
    State(state): State<AppState>,
    Query(mut query): Query<ListQuery>,
) -> Result<Response, Problem> {
    (query.cursor, query.limit) = (None, None);
    let mut filter: Filter<Uuid> = query.filter(&JOB_STATES, |id| Uuid::parse_str(id).ok())?;
    filter.limit = PAGE;
    let head = lines([COLUMNS.map(str::to_owned)]).map_err(|_| Problem::internal())?;
    let rest = futures_util::stream::try_unfold(Some(filter), move |filter| {
        let database = state.database.clone();
        async move {
            let Some(mut filter) = filter else {
                return Ok::<_, std::io::Error>(None);
            };
            let rows = database.jobs(&filter).await.map_err(std::io::Error::other)?;
            let next = match rows.last() {
                Some(last) if rows.len() as i64 == PAGE => {
                    filter.after = Some((last.created_at, last.id));
                    Some(filter)
                }
                _ => None,
            };
            let newest = rows.into_iter().filter(|job| job.newest);
            let text = lines(newest.map(|job| row(&Job::new(job, Vec::new()))))?;
            Ok(Some((text, next)))
        }
    });
    let whole = futures_util::StreamExt::chain(futures_util::stream::iter([Ok(head)]), rest);
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"measurements.csv\""),
    ];
    Ok((headers, Body::from_stream(whole)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_is_no_formula() {
        assert_eq!(plain("=HYPERLINK(\"x\")"), "'=HYPERLINK(\"x\")");
        assert_eq!(plain("-1"), "'-1");
        assert_eq!(plain("THORAX"), "THORAX");
    }
}
