//! What goes wrong, as problem+json (RFC 9457) with a stable `code`; and extractors whose rejections are such problems.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::database::DatabaseError;

/// An answer that says what is wrong.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says more.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// Stable: what a program decides by.
    code: &'static str,
    /// A sentence for people.
    detail: String,
    /// Of `ambiguous_series` where a path named a series: those that it may mean, at most 20, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<Candidate>,
    /// Of 405: what the Allow header says.
    #[serde(skip)]
    allowed: Option<Box<str>>,
}

/// A series that a UID may mean.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Candidate {
    /// Our id, which means it alone.
    pub(crate) id: i64,
    /// StudyInstanceUID.
    pub(crate) study_uid: String,
    /// The PACS that it came from; null: a sender that no `[[pacs]]` block knows.
    pub(crate) source: Option<String>,
}

impl Problem {
    /// A problem with its status, its code and its sentence.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Problem"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            candidates: Vec::new(),
            allowed: None,
        }
    }

    /// The same, with the series that may be meant.
    pub(crate) fn of(self, candidates: Vec<Candidate>) -> Problem {
        Problem { candidates, ..self }
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, code, detail)
    }

    /// The path knows other methods than the one that was asked for.
    pub(crate) fn wrong_method<'a>(known: impl Iterator<Item = &'a Method>) -> Problem {
        // Whoever may GET may HEAD.
        let known = known.flat_map(|method| {
            if method == Method::GET {
                vec!["GET", "HEAD"]
            } else {
                vec![method.as_str()]
            }
        });
        Problem {
            allowed: Some(known.collect::<Vec<_>>().join(",").into()),
            ..Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This path does not know this method.",
            )
        }
    }

    /// Ours: what happened stands in the log, not in the answer.
    pub(crate) fn internal() -> Problem {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong in Hilum; its log says what.",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"Hilum\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(allowed) = self
            .allowed
            .as_deref()
            .and_then(|allowed| HeaderValue::from_str(allowed).ok())
        {
            headers.insert(header::ALLOW, allowed);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Problem {
        tracing::warn!(%error, "a request failed on the database");
        if error.is_transient() {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database_away",
                "The database does not answer; try again in a moment.",
            )
        } else {
            Problem::internal()
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::bad_request("bad_path", rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::bad_request("bad_query", rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        let code = match rejection.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "not_json",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            _ => "bad_json",
        };
        Problem::new(rejection.status(), code, rejection.body_text())
    }
}

/// What stands in the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(pub(crate) T);

/// What stands in the query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(pub(crate) T);

/// A JSON body.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(crate) struct Json<T>(pub(crate) T);
