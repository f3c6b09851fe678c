//! Every route in one list, with what it needs, and the layers around them all.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::access::{Access, Guard, Table, guard};
use super::problem::Problem;
use super::{
    AppState, Role, body, description, events, health, jobs, measurements, operations, pages, results, retrievals,
    series, stow,
};

/// Where the description of the interface stands.
const OPENAPI: &str = "/api/v1/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hilum",
        description = "Lung segmentation of chest CT beside a PACS. Research use only. Errors are application/problem+json with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    // The inbox answers these two; the other routes describe themselves where they are added.
    paths(stow::store, stow::store_in_study),
    components(schemas(Problem))
)]
struct Description;

/// A route: what it needs, and what answers.
enum Route {
    /// Described in the OpenAPI document.
    Described(Access, UtoipaMethodRouter<AppState>),
    /// A page or a file, by GET.
    Plain(Access, &'static str, MethodRouter<AppState>),
}

const READ: Access = Access::Needs(Role::Read);
const OPERATE: Access = Access::Needs(Role::Operate);
const INGEST: Access = Access::Needs(Role::Ingest);

/// The routes of STOW-RS, which the inbox answers.
const STOW: [&str; 2] = ["/dicom-web/studies", "/dicom-web/studies/{study}"];
/// The routes of the documentation page.
const DOCS: [&str; 4] = ["/docs", "/docs/", "/docs/{*rest}", OPENAPI];

fn list() -> Vec<Route> {
    use Route::{Described, Plain};
    vec![
        Described(READ, routes!(jobs::list)),
        Described(OPERATE, routes!(operations::submit)),
        Described(READ, routes!(jobs::one)),
        Described(READ, routes!(events::of_job)),
        Described(READ, routes!(results::result)),
        Described(OPERATE, routes!(operations::cancel)),
        Described(OPERATE, routes!(operations::retry)),
        Described(OPERATE, routes!(operations::redeliver)),
        Described(READ, routes!(retrievals::list)),
        Described(READ, routes!(retrievals::one)),
        Described(READ, routes!(series::list)),
        Described(READ, routes!(series::one)),
        Described(OPERATE, routes!(operations::finalize)),
        Described(READ, routes!(measurements::table)),
        Described(READ, routes!(events::all)),
        Described(READ, routes!(operations::queue)),
        Described(OPERATE, routes!(operations::pause)),
        Described(OPERATE, routes!(operations::resume)),
        Described(Access::Open, routes!(health::healthz)),
        Described(Access::Open, routes!(health::readyz)),
        Described(READ, routes!(health::metrics)),
        Plain(READ, "/", get(pages::first)),
        Plain(READ, "/jobs/{id}", get(pages::job)),
        Plain(READ, "/jobs/{id}/card", get(pages::card)),
        Plain(READ, "/static/{name}", get(pages::file)),
    ]
}

/// Every route with its method and what it needs: the list that the router is built from.
#[must_use]
pub fn table() -> Vec<(String, Method, Access)> {
    let mut table: Vec<(String, Method, Access)> = Vec::new();
    for route in list() {
        match route {
            Route::Plain(access, path, _) => table.push((path.to_owned(), Method::GET, access)),
            Route::Described(access, (_, paths, _)) => {
                for (path, item) in paths.paths {
                    let methods = [
                        (item.get.is_some(), Method::GET),
                        (item.post.is_some(), Method::POST),
                        (item.put.is_some(), Method::PUT),
                        (item.delete.is_some(), Method::DELETE),
                    ];
                    for (_, method) in methods.into_iter().filter(|(there, _)| *there) {
                        table.push((path.clone(), method, access));
                    }
                }
            }
        }
    }
    table.extend(STOW.map(|path| (path.to_owned(), Method::POST, INGEST)));
    table.extend(DOCS.map(|path| (path.to_owned(), Method::GET, READ)));
    table
}

/// The whole service; `stow` answers the routes below `/dicom-web`.
pub fn router(state: AppState, stow: Router) -> Router {
    let mut known = Table::new();
    for (path, method, access) in table() {
        known.entry(path).or_default().push((method, access));
    }
    let mut described = OpenApiRouter::with_openapi(Description::openapi());
    let mut plain: Router<AppState> = Router::new();
    for route in list() {
        match route {
            Route::Described(_, route) => described = described.routes(route),
            Route::Plain(_, path, route) => plain = plain.route(path, route),
        }
    }
    let (api, document) = described.split_for_parts();
    let document = description::completed(document, &known);
    // The page would show this document to a validator elsewhere.
    let documentation = SwaggerUi::new("/docs")
        .url(OPENAPI, document)
        .config(Config::default().validator_url("none"));
    let longest = Duration::from_secs_f64(state.settings.head_seconds);
    let guarding = Guard::new(state.users.clone(), &state.settings, known);
    api.merge(plain)
        .merge(documentation)
        .with_state(state)
        .layer(from_fn_with_state(longest, body::whole))
        .merge(stow)
        .fallback(nowhere)
        .layer(from_fn_with_state(guarding, guard))
        .layer(from_fn(safe_headers))
        .layer(from_fn(health::count))
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send>| -> Response<Body> { Problem::internal().into_response() },
        ))
        .layer(TraceLayer::new_for_http().make_span_with(|request: &Request| {
            // The matched route and not the path or the query: those may hold what identifies a person.
            let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
            tracing::debug_span!("request", method = %request.method(), route)
        }))
}

async fn nowhere() -> Problem {
    Problem::not_found(
        "no_such_path",
        "Nothing stands at this path; /docs/ lists what there is.",
    )
}

/// Headers that keep a browser from doing what these pages never ask for.
async fn safe_headers(request: Request, next: Next) -> Response {
    let docs = request.uri().path().starts_with("/docs");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // The vendored documentation page brings styles and pictures within itself.
    let policy = if docs {
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    } else {
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    response
}
