//! Who may do what.

use super::*;

/// What a route must ask for, by a rule and not by the list that the service is built from: signs of life are open, senders send, operators change, readers read.
fn wanted(path: &str, method: &Method) -> Access {
    match path {
        "/healthz" | "/readyz" => Access::Open,
        _ if path.starts_with("/dicom-web/") => Access::Needs(Role::Ingest),
        _ if *method == Method::GET => Access::Needs(Role::Read),
        _ => Access::Needs(Role::Operate),
    }
}

#[tokio::test]
async fn every_route_asks_for_its_role() {
    scratch(|database, url| async move {
        let roles = [Role::Ingest, Role::Read, Role::Operate];
        let users = roles.map(|role| user(role.name(), "a password", &[role])).to_vec();
        let service = Service::start(database, &url, users).await;
        let table = table();
        assert!(table.len() > 25, "{} routes", table.len());
        for (path, method, _) in &table {
            let access = wanted(path, method);
            let path = path
                .replace("{id}", &job(1))
                .replace("{*rest}", "index.css")
                .replace("{name}", "hilum.css")
                .replace("{study}", "1.2");
            let nobody = service.ask(method.as_str(), &path, &[], "").await;
            match access {
                Access::Open => assert!(nobody.status != 401 && nobody.status != 403, "{method} {path}"),
                Access::Needs(_) => assert_eq!(nobody.code(), "unauthorized", "{method} {path}"),
            }
            for role in roles {
                let credential = basic(role.name(), "a password");
                let answer = service
                    .ask(method.as_str(), &path, &[("authorization", &credential)], "")
                    .await;
                let may = access == Access::Open || access == Access::Needs(role);
                assert_eq!(
                    answer.status != 403,
                    may,
                    "{method} {path} as {}: {}",
                    role.name(),
                    answer.status
                );
                assert_ne!(answer.status, 401, "{method} {path} as {}", role.name());
                assert!(answer.status.as_u16() < 500, "{method} {path}: {}", answer.text());
            }
        }
        for wrong in [
            basic("read", "another"),
            basic("nobody", "a password"),
            "Bearer read.x".to_owned(),
            "Basic %".to_owned(),
        ] {
            let answer = service
                .ask("GET", "/api/v1/jobs", &[("authorization", &wrong)], "")
                .await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "unauthorized"));
            assert!(
                answer.headers["www-authenticate"]
                    .to_str()
                    .unwrap()
                    .starts_with("Basic")
            );
        }
        assert_eq!(service.get("/nowhere").await.code(), "unauthorized");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_bearer_token_names_its_user() {
    scratch(|database, url| async move {
        let token = "viewer.c2VjcmV0";
        let service = Service::start(database, &url, vec![user("viewer", token, &[Role::Read])]).await;
        let bearer = format!("Bearer {token}");
        for _ in 0..2 {
            assert_eq!(
                service
                    .ask("GET", "/api/v1/queue", &[("authorization", &bearer)], "")
                    .await
                    .status,
                200
            );
        }
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        let foreign = service
            .ask("GET", "/api/v1/queue", &[("host", "evil.example")], "")
            .await;
        assert_eq!(
            (foreign.status.as_u16(), foreign.code().as_str()),
            (421, "unknown_host")
        );
        assert_eq!(
            service
                .ask("GET", "/api/v1/queue", &[("host", "HILUM.example:1")], "")
                .await
                .status,
            200
        );
        assert_eq!(
            service.ask("GET", "/healthz", &[("host", "10.1.2.3")], "").await.status,
            200
        );
        for origin in ["https://evil.example", "null", "http://localhost:9999"] {
            let answer = service
                .ask("POST", "/api/v1/queue/pause", &[("origin", origin)], "")
                .await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (403, "foreign_origin"),
                "{origin}"
            );
        }
        // Where a browser tells no origin it may still tell how the asking page is related.
        for (site, status) in [
            ("cross-site", 403),
            ("same-site", 403),
            ("same-origin", 200),
            ("none", 200),
        ] {
            let answer = service
                .ask("POST", "/api/v1/queue/pause", &[("sec-fetch-site", site)], "")
                .await;
            assert_eq!(answer.status, status, "{site}");
        }
        let own = service
            .ask(
                "POST",
                "/api/v1/queue/pause",
                &[("origin", "http://localhost:8043")],
                "",
            )
            .await;
        assert_eq!(own.status, 200);
        for header in ["content-security-policy", "x-content-type-options", "referrer-policy"] {
            assert!(own.headers.contains_key(header), "{header}");
        }
        service.stop().await;
    })
    .await;
}
