//! `GET /api/v1/jobs/{id}/result/{name}`: a file of the results, as a stream.

use std::path::{Component, Path as FilePath};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::AppState;
use super::problem::{Path, Problem};
use crate::database::JobRow;
use crate::segment::{ARTIFACT_NAMES, artifact_name};

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("dcm") => "application/dicom",
        Some("png") => "image/png",
        Some("json") => "application/json",
        _ => "application/gzip",
    }
}

/// Why a result is not there.
fn absent(job: &JobRow, name: &str) -> Problem {
    if job.result_folder.is_none() {
        return Problem::not_found("job_not_done", format!("The job is {}; it has no results.", job.state));
    }
    let made = job
        .files
        .as_ref()
        .and_then(|files| files.as_array())
        .is_some_and(|files| files.iter().any(|file| file.get("name").is_some_and(|n| n == name)));
    if name != "report.json" && !made {
        return Problem::not_found(
            "result_not_made",
            format!("The job made no {name}; its report says why."),
        );
    }
    tracing::error!(job = %job.id, name, "a result is gone from the data folder");
    Problem::not_found("result_missing", format!("{name} is gone from the data folder."))
}

/// A file of the results: segmentation.dcm, report.json, overlay.png, mask.nii.gz, ct.nii.gz, and the segmentations of other profiles that the links of the job name.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/result/{name}", tag = "jobs", operation_id = "get_result",
    params(("id" = Uuid, Path), ("name" = String, Path)),
    responses((status = 200, description = "The file"), (status = 304, description = "It is the one that If-None-Match names"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn result(
    State(state): State<AppState>,
    Path((id, name)): Path<(Uuid, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(name) = artifact_name(&name) else {
        return Err(Problem::not_found(
            "no_such_result",
            format!(
                "A result is one of {}, or a segmentation of another profile that the links of the job name.",
                ARTIFACT_NAMES.join(", ")
            ),
        ));
    };
    let job = state
        .database
        .job(id)
        .await?
        .ok_or_else(|| Problem::not_found("job_not_found", "There is no such job."))?;
    let Some(folder) = &job.result_folder else {
        return Err(absent(&job, name));
    };
    let inside = FilePath::new(folder)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        tracing::error!(job = %id, "the folder of its results is not within the data folder");
        return Err(Problem::internal());
    }
    let path = state.data_folder.join(folder).join(name);
    let Ok(file) = tokio::fs::File::open(&path).await else {
        return Err(absent(&job, name));
    };
    let length = file.metadata().await.map_err(|_| Problem::internal())?.len();
    // A folder belongs to one attempt of one job and is never written again.
    let digest = Sha256::digest(format!("{folder}/{name}/{length}"));
    let tag: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim() == "*" || value.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Body::from_stream(ReaderStream::with_capacity(file, 256 * 1024)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    // Quotes around hexadecimal digits are a header value.
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}
