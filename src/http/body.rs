//! Bodies of requests to the REST interface: small, and taken whole before a route sees them.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::problem::Problem;

/// Most bytes: a submission has some hundred.
const MOST_BYTES: usize = 64 << 10;

/// Takes the body within `longest`, so that nobody holds a place by never ending one.
pub(super) async fn whole(State(longest): State<Duration>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let problem = match timeout(longest, to_bytes(body, MOST_BYTES)).await {
        Ok(Ok(bytes)) => return next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(error)) if is_too_long(&error) => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("The body has more than {MOST_BYTES} bytes."),
        ),
        Ok(Err(_)) => Problem::bad_request("broken_body", "The body broke off."),
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "The body did not end in time (`head_seconds` in [service]).",
        ),
    };
    let mut response = problem.into_response();
    // The rest of the body is not waited for.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
