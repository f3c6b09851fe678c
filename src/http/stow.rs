//! STOW-RS in (PS3.18 section 10.5): `POST /dicom-web/studies` and `/dicom-web/studies/{study}`.
//!
//! What can be refused by its head is refused before the body is read. The limits on the body are the inbox's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use utoipa::IntoResponses;
use utoipa::openapi::{self, RefOr};

use super::access::StoresFor;
use super::problem::{Path, Problem};
use crate::dicomweb::multipart::{Boundary, MultipartError};
use crate::inbox::{Ingest, IngestError, Origin};

/// Names the `[[pacs]]` block that the sender is.
pub const SOURCE_HEADER: &str = "x-hilum-source";
/// `true`: the series in the request are whole.
pub const COMPLETE_HEADER: &str = "x-hilum-series-complete";

/// Seconds after which a sender that was refused for want of room may try again.
const RETRY_AFTER: &str = "30";
/// Longest name that is kept of a sender whom we do not know.
const LONGEST_NAME: usize = 64;

/// Where requests go, and who may send them.
#[derive(Clone)]
pub(super) struct Door {
    ingest: Ingest,
    /// Names of the `[[pacs]]` blocks.
    pacs: Arc<Vec<String>>,
}

/// The two routes. No layer limits their bodies. `pacs`: the names of the `[[pacs]]` blocks.
pub fn routes(ingest: Ingest, pacs: Arc<Vec<String>>) -> Router {
    Router::new()
        .route("/dicom-web/studies", post(store))
        .route("/dicom-web/studies/{study}", post(store_in_study))
        .with_state(Door { ingest, pacs })
}

/// Stores instances (STOW-RS).
#[utoipa::path(post, path = "/dicom-web/studies", tag = "dicomweb", operation_id = "store", params(SenderHeaders), responses(Answers),
    request_body(content = String, content_type = "multipart/related; type=\"application/dicom\"", description = BODY))]
pub(super) async fn store(
    State(door): State<Door>,
    user: Option<Extension<StoresFor>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&door, user, &headers, body, None).await
}

/// Stores instances of one study (STOW-RS); others fail with a reason.
#[utoipa::path(post, path = "/dicom-web/studies/{study}", tag = "dicomweb", operation_id = "store_in_study",
    params(("study" = String, Path, description = "StudyInstanceUID."), SenderHeaders), responses(Answers),
    request_body(content = String, content_type = "multipart/related; type=\"application/dicom\"", description = BODY))]
pub(super) async fn store_in_study(
    State(door): State<Door>,
    Path(study): Path<String>,
    user: Option<Extension<StoresFor>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(&door, user, &headers, body, Some(study)).await
}

/// What the OpenAPI document says of the body.
const BODY: &str =
    "One part of application/dicom for each instance; its length does not matter, it is read as a stream.";

/// What the OpenAPI document says of the headers.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "a description; the headers are read by name")]
struct SenderHeaders {
    /// Name of the [[pacs]] block that the sender is; results go back there. Without it, the block that `pacs` of the user's block names, if any; nothing is guessed.
    #[param(rename = "x-hilum-source")]
    source: Option<String>,
    /// `true`: the series in the request are whole, and nobody waits for more slices.
    #[param(rename = "x-hilum-series-complete")]
    complete: Option<String>,
}

/// What the OpenAPI document says of the answers.
struct Answers;

impl IntoResponses for Answers {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        const DICOM: &str = "application/dicom+json";
        const PROBLEM: &str = "application/problem+json";
        let answers = [
            (
                "200",
                DICOM,
                "All is on disk. PS3.18 10.5.3: one item of ReferencedSOPSequence for each stored instance.",
            ),
            ("202", DICOM, "Some parts were dropped with a warning, or failed."),
            ("409", DICOM, "No part could be taken."),
            ("4XX", PROBLEM, "Not multipart, no part, too large, too slow."),
            (
                "503",
                PROBLEM,
                "No room, or ending; Retry-After says when to come again.",
            ),
        ];
        let described = answers.into_iter().map(|(status, kind, sentence)| {
            let schema = if kind == PROBLEM {
                RefOr::Ref(openapi::Ref::from_schema_name("Problem"))
            } else {
                RefOr::T(openapi::Schema::Object(openapi::Object::new()))
            };
            let content = openapi::ContentBuilder::new().schema(Some(schema)).build();
            let response = openapi::ResponseBuilder::new()
                .description(sentence)
                .content(kind, content);
            (status.to_owned(), RefOr::T(response.build()))
        });
        described.collect()
    }
}

async fn answer(
    door: &Door,
    user: Option<Extension<StoresFor>>,
    headers: &HeaderMap,
    body: Body,
    study: Option<String>,
) -> Response {
    let Door { ingest, pacs } = door;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        let sentence = "the body has a Content-Encoding; send it plain";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", sentence);
    }
    let boundary = match Boundary::of_content_type(text("content-type").unwrap_or_default()) {
        Ok(boundary) => boundary,
        Err(error) => return refused(&error.into()),
    };
    let declared = text("content-length").and_then(|length| length.parse::<u64>().ok());
    let most = ingest.settings().max_request_bytes;
    if declared.is_some_and(|declared| declared > most) {
        return refused(&IngestError::TooLarge(most));
    }
    let (pacs, unknown_source) = match headers.get(SOURCE_HEADER).map(|value| source(value, pacs)) {
        None => (user.map(|Extension(StoresFor(pacs))| pacs), None),
        Some(Source::Known(name)) => (Some(name), None),
        Some(Source::Unknown(name)) => {
            tracing::warn!(source = name, "a sender names a source that no [[pacs]] block has");
            metrics::counter!("hilum_unknown_sources_total").increment(1);
            (None, Some(name))
        }
    };
    let origin = Origin {
        actor: pacs.clone().unwrap_or_else(|| "stow".to_owned()),
        pacs,
        unknown_source,
        study,
        complete: text(COMPLETE_HEADER).is_some_and(|value| value.trim().eq_ignore_ascii_case("true")),
    };
    match ingest.receive(&boundary, body.into_data_stream(), &origin).await {
        Ok(receipt) => {
            let answer = receipt.answer();
            let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::OK);
            let kind = [(header::CONTENT_TYPE, "application/dicom+json")];
            (status, kind, answer.to_body()).into_response()
        }
        Err(error) => refused(&error),
    }
}

/// Who sends.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// A PACS of ours.
    Known(String),
    /// Somebody else; what it calls itself, as far as a table can hold it.
    Unknown(String),
}

/// A wrong name costs nobody their upload: it is kept as an unknown one.
fn source(value: &HeaderValue, pacs: &[String]) -> Source {
    let given = String::from_utf8_lossy(value.as_bytes());
    let given = given.trim();
    if pacs.iter().any(|name| name == given) {
        return Source::Known(given.to_owned());
    }
    Source::Unknown(given.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect())
}

fn refused(error: &IngestError) -> Response {
    let sentence = error.to_string();
    let (status, code) = match error {
        IngestError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
        IngestError::DiskFull => (StatusCode::SERVICE_UNAVAILABLE, "disk_full"),
        IngestError::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
        IngestError::Multipart(MultipartError::UnsupportedType(_)) => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
        }
        IngestError::Multipart(limit) if limit.is_limit() => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        IngestError::Multipart(_) => (StatusCode::BAD_REQUEST, "bad_multipart"),
        IngestError::NoPart => (StatusCode::BAD_REQUEST, "no_part"),
        IngestError::BadStudy => (StatusCode::BAD_REQUEST, "bad_study"),
        IngestError::Body(_) => (StatusCode::BAD_REQUEST, "broken_body"),
        IngestError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        IngestError::Idle(_) => (StatusCode::REQUEST_TIMEOUT, "idle"),
        IngestError::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
        IngestError::Database(error) if error.is_transient() => {
            tracing::error!(%error, "instances could not be recorded");
            return problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "database",
                "the database does not answer",
            );
        }
        IngestError::Database(_) | IngestError::Io(_) => {
            tracing::error!(%error, "instances could not be taken in");
            return problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the instances could not be taken in",
            );
        }
    };
    tracing::info!(code, sentence, "an upload was refused");
    problem(status, code, &sentence)
}

/// The problem; where there is no room, when to come again; and where the rest of the body is not waited for, that.
fn problem(status: StatusCode, code: &'static str, sentence: &str) -> Response {
    let mut response = Problem::new(status, code, sentence).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::REQUEST_TIMEOUT].contains(&status) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_source_is_known_by_its_name_alone_and_no_name_is_an_error() {
        let pacs = ["orthanc".to_owned(), "röntgen".to_owned()];
        for (given, known) in [
            ("orthanc", true),
            (" orthanc ", true),
            ("röntgen", true),
            ("Orthanc", false),
            ("", false),
        ] {
            let value = HeaderValue::from_bytes(given.as_bytes()).unwrap();
            let name = given.trim().to_owned();
            let wanted = if known {
                Source::Known(name)
            } else {
                Source::Unknown(name)
            };
            assert_eq!(source(&value, &pacs), wanted);
        }
        let long = HeaderValue::from_bytes(&[0xFF; 500]).unwrap();
        let Source::Unknown(kept) = source(&long, &pacs) else {
            panic!("nobody is called so");
        };
        assert_eq!(kept.chars().count(), LONGEST_NAME);
    }
}
