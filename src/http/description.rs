//! What the OpenAPI document says of every operation alike: who may ask, and what any of them may be answered.

use axum::http::Method;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use super::access::{Access, Table};

const BASIC: &str = "basic";
const BEARER: &str = "bearer";

/// The document, completed by the table of routes.
pub(super) fn completed(mut document: OpenApi, table: &Table) -> OpenApi {
    let components = document.components.get_or_insert_with(Components::new);
    let mut basic = Http::new(HttpAuthScheme::Basic);
    basic.description = Some("Name and password of a `[[user]]` block.".to_owned());
    components.add_security_scheme(BASIC, SecurityScheme::Http(basic));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token that `hilum user add --token` printed."))
        .build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        for (method, access) in table.get(path).into_iter().flatten() {
            let operation = if *method == Method::GET {
                &mut item.get
            } else {
                &mut item.post
            };
            if let Some(operation) = operation {
                complete(operation, *access, path);
            }
        }
    }
    document
}

fn complete(operation: &mut Operation, access: Access, path: &str) {
    // A description is not optional (OpenAPI 3.1.1, Response Object).
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let plainly = if status.starts_with('2') {
                "What was asked for."
            } else {
                "What is wrong with the request."
            };
            response.description = plainly.to_owned();
        }
    }
    let mut say = |status: &str, sentence: String| {
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(problem(sentence)));
    };
    let Access::Needs(role) = access else {
        operation.security = Some(Vec::new());
        return;
    };
    say(
        "401",
        "Users are configured, and the request names none of them.".to_owned(),
    );
    say(
        "403",
        format!(
            "The user has not the role `{}`, or a page of another origin would change something.",
            role.name()
        ),
    );
    say(
        "421",
        "The service is not known under the Host that was asked for.".to_owned(),
    );
    if path.starts_with("/api/") {
        say(
            "503",
            "The database does not answer; Retry-After says when to ask again.".to_owned(),
        );
    }
    // The last one: where no users are configured, nobody is asked who they are.
    operation.security = Some(vec![
        SecurityRequirement::new(BASIC, [""; 0]),
        SecurityRequirement::new(BEARER, [""; 0]),
        SecurityRequirement::default(),
    ]);
}

fn problem(sentence: String) -> Response {
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    ResponseBuilder::new()
        .description(sentence)
        .content("application/problem+json", content.build())
        .build()
}
