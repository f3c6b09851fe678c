//! The HTTP surface over a real database: lists and their cursors, results, events, operations, access, pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt;
use hilum::database::testing::scratch;
use hilum::database::{Database, Watcher};
use hilum::http::{Access, AppState, Role, ServiceSettings, User, Users, record, router, table};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

struct Service {
    router: Router,
    pool: PgPool,
    folder: tempfile::TempDir,
    end: CancellationToken,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    fn code(&self) -> String {
        assert_eq!(
            self.headers["content-type"],
            "application/problem+json",
            "{}",
            self.text()
        );
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

impl Service {
    async fn start(database: Database, url: &str, users: Vec<User>) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let end = CancellationToken::new();
        let state = AppState {
            watcher: Watcher::start(database.clone(), end.clone()),
            database,
            settings: Arc::new(ServiceSettings {
                listen: "127.0.0.1:8043".parse().unwrap(),
                data_folder: folder.path().to_owned(),
                database_url: String::new(),
                postgres_folder: "".into(),
                database_connections: 4,
                hosts: vec!["hilum.example".to_owned()],
                insecure: false,
                head_seconds: 75.0,
                drain_seconds: 1.0,
            }),
            data_folder: folder.path().to_owned(),
            users: Users::new(users).unwrap(),
            pacs: Arc::new(vec!["orthanc".to_owned()]),
            disk_reserve_bytes: 1,
            model_ready: Arc::new(|| true),
            recorder: record().expect("the only recorder of this process"),
        };
        let stow = Router::new()
            .route("/dicom-web/studies", post(|| async { "stored" }))
            .route("/dicom-web/studies/{study}", post(|| async { "stored" }));
        Service {
            router: router(state, stow),
            pool: PgPool::connect(url).await.unwrap(),
            folder,
            end,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8043");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], &body.to_string())
            .await
    }

    async fn sql(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Series and jobs 1 to `count`, job `n` with the UUID that ends in `n`; three share each moment of their making.
    async fn seed(&self, count: usize) {
        self.sql(&format!(
            "insert into series (study_uid, series_uid, state, revision, modality, accession_number, received_at)
             select '1.2.' || n / 4, '1.3.' || n, 'taken', '\\x01', 'CT', 'A' || n % 10, now() - n * interval '1 minute'
             from generate_series(1, {count}) n;
             insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, created_at)
             select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, s.id, '\\x01', 'tiny', 'd', 'p', 1,
                (array['queued', 'done', 'failed', 'refused'])[1 + n % 4]::job_state, now() - n / 3 * interval '1 second'
             from generate_series(1, {count}) n join series s on s.series_uid = '1.3.' || n;"
        ))
        .await;
    }

    async fn stop(self) {
        self.end.cancel();
        self.pool.close().await;
    }
}

fn job(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

fn user(name: &str, password: &str, roles: &[Role]) -> User {
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).unwrap();
    User {
        name: name.to_owned(),
        hash: hash.to_string(),
        roles: roles.to_vec(),
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_and_filters_hold() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(100).await;
        for (list, field, filter, expected) in [
            ("jobs", "jobs", "", 100),
            ("jobs", "jobs", "&state=done", 25),
            ("jobs", "jobs", "&study=1.2.3", 4),
            ("jobs", "jobs", "&study=1.2.3&state=failed", 1),
            ("jobs", "jobs", "&series=1.3.7", 1),
            ("jobs", "jobs", "&study=1.2.9&series=1.3.7", 0),
            ("jobs", "jobs", "&accession=A3", 10),
            ("series", "series", "", 100),
            ("series", "series", "&state=taken", 100),
            ("series", "series", "&state=receiving", 0),
            ("series", "series", "&study=1.2.3", 4),
            ("series", "series", "&series=1.3.7", 1),
            ("series", "series", "&study=1.2.1&series=1.3.7", 1),
            ("series", "series", "&accession=A3&state=taken", 10),
        ] {
            let mut seen = HashSet::new();
            let mut times: Vec<String> = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = service.get(&format!("/api/v1/{list}?limit=7{filter}{cursor}")).await;
                assert_eq!(page.status, 200, "{}", page.text());
                let page = page.json();
                for row in page[field].as_array().unwrap() {
                    assert!(seen.insert(row["id"].to_string()), "{list}{filter}: {row} came twice");
                    times.push(row["series"]["received_at"].to_string());
                }
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(seen.len(), expected, "{list}{filter}");
        }
        let since = time::OffsetDateTime::now_utc() - time::Duration::minutes(10);
        let since = since.format(&time::format_description::well_known::Rfc3339).unwrap();
        let recent = service
            .get(&format!("/api/v1/jobs?received_since={since}"))
            .await
            .json();
        let count = recent["jobs"].as_array().unwrap().len();
        assert!((8..=10).contains(&count), "{count} jobs of the last ten minutes");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_has_a_stable_code() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        for (method, path, body, status, code) in [
            ("GET", "/nowhere", "", 404, "no_such_path"),
            ("DELETE", "/api/v1/jobs", "", 405, "method_not_allowed"),
            ("GET", "/api/v1/jobs/7", "", 400, "bad_path"),
            ("GET", "/api/v1/series/x", "", 400, "bad_path"),
            ("GET", "/api/v1/jobs?limit=x", "", 400, "bad_query"),
            ("GET", "/api/v1/jobs?limit=201", "", 400, "bad_query"),
            ("GET", "/api/v1/jobs?stat=done", "", 400, "bad_query"),
            ("GET", "/api/v1/jobs?state=finished", "", 400, "unknown_state"),
            ("GET", "/api/v1/jobs?cursor=%00", "", 400, "bad_cursor"),
            ("GET", "/api/v1/jobs?study=%00", "", 400, "bad_query"),
            (
                "GET",
                "/api/v1/jobs?study=1&accession=1",
                "",
                400,
                "filters_exclude_each_other",
            ),
            ("GET", "/api/v1/jobs?received_since=yesterday", "", 400, "bad_query"),
            ("GET", &format!("/api/v1/jobs/{}", job(1)), "", 404, "job_not_found"),
            ("GET", "/api/v1/series/1", "", 404, "series_not_found"),
            ("POST", "/api/v1/jobs", "{", 400, "bad_json"),
            ("POST", "/api/v1/jobs", "{\"study_uid\": \"../..\"}", 400, "bad_uid"),
            (
                "POST",
                "/api/v1/jobs",
                "{\"study_uid\": \"1.2\"}",
                404,
                "series_not_found",
            ),
            (
                "POST",
                "/api/v1/jobs",
                "{\"study_uid\": \"1.2\", \"pacs\": \"x\"}",
                400,
                "unknown_pacs",
            ),
            (
                "POST",
                &format!("/api/v1/jobs/{}/cancel", job(1)),
                "",
                404,
                "job_not_found",
            ),
        ] {
            let answer = service
                .ask(method, path, &[("content-type", "application/json")], body)
                .await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (status, code),
                "{method} {path}"
            );
            if status == 405 {
                assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
            }
        }
        let answer = service
            .ask("POST", "/api/v1/jobs", &[("content-type", "text/plain")], "{}")
            .await;
        assert_eq!(answer.code(), "not_json");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn jobs_are_canceled_and_retried_as_their_state_allows() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        let act = async |n: usize, what: &str| {
            service
                .post(&format!("/api/v1/jobs/{}/{what}", job(n)), &json!({}))
                .await
        };
        // 4 is queued, 1 done, 2 failed, 3 refused; 8 will run.
        let canceled = act(4, "cancel").await;
        assert_eq!(
            (canceled.status.as_u16(), canceled.json()["state"].clone()),
            (200, json!("canceled"))
        );
        assert_eq!(act(4, "cancel").await.code(), "wrong_state");
        service
            .sql("update job set state = 'running', started_at = now() where state = 'queued'")
            .await;
        let asked = act(8, "cancel").await;
        assert_eq!(asked.status, 202);
        assert_eq!(
            (&asked.json()["state"], &asked.json()["cancel_requested"]),
            (&json!("running"), &json!(true))
        );
        for n in [1, 3, 8] {
            let answer = act(n, "retry").await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "wrong_state"));
        }
        service
            .sql("update job set attempts = 5, error_code = 'x', error_sentence = 'y' where state = 'failed'")
            .await;
        let again = act(2, "retry").await.json();
        assert_eq!(
            (&again["state"], &again["attempts"], &again["error"]),
            (&json!("queued"), &json!(0), &Value::Null)
        );
        assert_eq!(act(4, "retry").await.json()["state"], "queued");
        service.sql("update series set revision = '\\x02'").await;
        assert_eq!(act(6, "retry").await.code(), "series_changed");
        service.sql("update series set revision = '\\x01', folded = '[]'").await;
        assert_eq!(act(6, "retry").await.code(), "slices_removed");
        let kinds: Vec<(String, String)> = sqlx::query_as("select kind, actor from event order by id")
            .fetch_all(&service.pool)
            .await
            .unwrap();
        let kinds: Vec<&str> = kinds.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(
            kinds,
            ["job_canceled", "job_cancel_requested", "job_retried", "job_retried"]
        );
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn results_are_delivered_again_the_queue_pauses_and_wishes_are_kept() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        let redeliver = format!("/api/v1/jobs/{}/redeliver", job(1));
        assert_eq!(service.post(&redeliver, &json!({})).await.code(), "nothing_to_deliver");
        service
            .sql(&format!(
                "insert into delivery (job_id, destination, state, file, sop_class_uid, sop_instance_uid, attempts, error)
                 values ('{}', 'orthanc', 'given_up', 'segmentation.dcm', '1', '2', 9, 'away')",
                job(1)
            ))
            .await;
        let again = service.post(&redeliver, &json!({})).await;
        assert_eq!(again.status, 202);
        assert_eq!(again.json()["deliveries"][0]["state"], "pending");
        assert_eq!(again.json()["deliveries"][0]["attempts"], 0);
        let not_done = service.post(&format!("/api/v1/jobs/{}/redeliver", job(2)), &json!({})).await;
        assert_eq!(not_done.code(), "wrong_state");

        assert_eq!(service.post("/api/v1/queue/pause", &json!({})).await.json()["paused"], true);
        assert_eq!(service.get("/api/v1/queue").await.json()["paused"], true);
        assert_eq!(service.post("/api/v1/queue/resume", &json!({})).await.json()["paused"], false);

        let known = service.post("/api/v1/jobs", &json!({"study_uid": "1.2.0", "series_uid": "1.3.1"})).await;
        assert_eq!((known.status.as_u16(), &known.json()["jobs"][0]["id"]), (200, &json!(job(1))));
        service.sql("update series set state = 'ignored', revision = '\\x02', finding_code = 'x' where series_uid = '1.3.1'").await;
        let wished = service.post("/api/v1/jobs", &json!({"study_uid": "1.2.0", "series_uid": "1.3.1", "priority": 5})).await;
        assert_eq!(wished.status, 202);
        assert_eq!(wished.json()["series"][0]["state"], "settled");
        assert_eq!(wished.json()["series"][0]["priority"], 5);
        for _ in 0..2 {
            let fetched = service.post("/api/v1/jobs", &json!({"study_uid": "9.9", "pacs": "orthanc"})).await;
            assert_eq!((fetched.status.as_u16(), &fetched.json()["retrieval"]["state"]), (202, &json!("pending")));
        }
        let retrievals: i64 = sqlx::query_scalar("select count(*) from retrieval").fetch_one(&service.pool).await.unwrap();
        assert_eq!(retrievals, 1);

        service.sql("update series set state = 'receiving', revision = null where series_uid = '1.3.2'").await;
        let id: i64 = sqlx::query_scalar("select id from series where series_uid = '1.3.2'").fetch_one(&service.pool).await.unwrap();
        let closed = service.post(&format!("/api/v1/series/{id}/finalize"), &json!({})).await.json();
        assert_eq!((&closed["state"], &closed["settled_by"]), (&json!("settled"), &json!("finalize")));
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_result_comes_with_its_type_and_tag_or_says_why_it_does_not() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(4).await;
        let folder = service.folder.path().join("results/a/1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("overlay.png"), b"picture").unwrap();
        let report = json!({"files": [{"name": "overlay.png"}, {"name": "mask.nii.gz"}], "timings": [{"stage": "read", "seconds": 0.5}]});
        service
            .sql(&format!("update job set result_folder = 'results/a/1', report = '{report}' where id = '{}'", job(1)))
            .await;
        let path = |n: usize, name: &str| format!("/api/v1/jobs/{}/result/{name}", job(n));
        let picture = service.get(&path(1, "overlay.png")).await;
        assert_eq!((picture.status.as_u16(), &picture.body[..]), (200, &b"picture"[..]));
        assert_eq!(picture.headers["content-type"], "image/png");
        let tag = picture.headers["etag"].to_str().unwrap();
        let same = service.ask("GET", &path(1, "overlay.png"), &[("if-none-match", tag)], "").await;
        assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
        let other = service.ask("GET", &path(1, "overlay.png"), &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.status, 200);
        assert_eq!(service.get(&path(2, "overlay.png")).await.code(), "job_not_done");
        assert_eq!(service.get(&path(1, "segmentation.dcm")).await.code(), "result_not_made");
        assert_eq!(service.get(&path(1, "mask.nii.gz")).await.code(), "result_missing");
        assert_eq!(service.get(&path(1, "..%2f..%2fsecret")).await.code(), "no_such_result");
        service.sql("update job set removed = '{\"results\": true}'").await;
        assert_eq!(service.get(&path(1, "mask.nii.gz")).await.code(), "result_removed");
        let whole = service.get(&format!("/api/v1/jobs/{}", job(1))).await.json();
        assert_eq!(whole["details"]["timings"][0]["stage"], "read");
        service.stop().await;
    })
    .await;
}

/// The ids of the next `count` events of a stream.
async fn ids(service: &Service, path: &str, last: Option<&str>, count: usize) -> Vec<i64> {
    let mut request = Request::builder().uri(path).header("host", "localhost");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = service
        .router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    let read = async {
        loop {
            let found: Vec<i64> = text
                .lines()
                .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
                .collect();
            if found.len() >= count && text.ends_with("\n\n") {
                return found;
            }
            text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    };
    // Long: other databases of the server hold back what may be shown.
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("the events come")
}

#[tokio::test]
async fn a_stream_of_events_goes_on_where_it_was_left_and_misses_nothing() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(4).await;
        for _ in 0..6 {
            service
                .sql(&format!(
                    "insert into event (kind, job_id, actor) values ('a', '{}', 'test')",
                    job(1)
                ))
                .await;
        }
        let all = ids(&service, "/api/v1/events", Some("0"), 6).await;
        assert_eq!(all, [1, 2, 3, 4, 5, 6]);
        assert_eq!(ids(&service, "/api/v1/events", Some("4"), 2).await, [5, 6]);
        assert_eq!(
            ids(&service, &format!("/api/v1/jobs/{}/events", job(1)), None, 6).await,
            all
        );

        // An event with a smaller id that is committed later stands later, and is not missed.
        let (mut early, mut late) = (service.pool.begin().await.unwrap(), service.pool.begin().await.unwrap());
        let insert = "insert into event (kind, actor) values ('b', 'test')";
        sqlx::query("select pg_current_xact_id()::text")
            .execute(&mut *early)
            .await
            .unwrap();
        sqlx::query(insert).execute(&mut *late).await.unwrap();
        sqlx::query(insert).execute(&mut *early).await.unwrap();
        early.commit().await.unwrap();
        assert_eq!(ids(&service, "/api/v1/events", Some("6"), 1).await, [8]);
        late.commit().await.unwrap();
        assert_eq!(ids(&service, "/api/v1/events", Some("6"), 2).await, [8, 7]);
        assert_eq!(ids(&service, "/api/v1/events", Some("8"), 1).await, [7]);

        // Live: what happens after the stream began.
        let live = ids(&service, "/api/v1/events", Some("7"), 1);
        let happens = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            service.post("/api/v1/queue/pause", &json!({})).await
        };
        let (live, paused) = tokio::join!(live, happens);
        assert_eq!((live, paused.status.as_u16()), (vec![9], 200));
        let bad = service
            .ask("GET", "/api/v1/events", &[("last-event-id", "x")], "")
            .await;
        assert_eq!(bad.code(), "bad_last_event_id");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn every_route_asks_for_its_role() {
    scratch(|database, url| async move {
        let roles = [Role::Ingest, Role::Read, Role::Operate];
        let users = roles.map(|role| user(role.name(), "a password", &[role])).to_vec();
        let service = Service::start(database, &url, users).await;
        let table = table();
        assert!(table.len() > 25, "{} routes", table.len());
        for (path, method, access) in &table {
            let path = path
                .replace("{id}", &job(1))
                .replace("{*rest}", "index.css")
                .replace("{name}", "hilum.css")
                .replace("{study}", "1.2");
            if path.ends_with("/events") {
                // Ends with the first answer only; the other routes show how access is asked for.
                continue;
            }
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
                let may = *access == Access::Open || *access == Access::Needs(role);
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

#[tokio::test]
async fn pages_show_hostile_text_as_text_and_the_table_has_every_series() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        let hostile = "=<script>alert(1)</script>\"''";
        let report = json!({
            "verdict": {"outcome": "refused", "findings": [{"code": "too_few_slices", "sentence": hostile}]},
            "measurements": {"total": {"volume_ml": 4321.6}, "right": {"volume_ml": 2200.0}, "left": {"volume_ml": 2121.6}},
        });
        sqlx::query("update series set study_description = $1, accession_number = $1, study_date = '20260102'").bind(hostile).execute(&service.pool).await.unwrap();
        sqlx::query("update job set report = $1").bind(&report).execute(&service.pool).await.unwrap();
        for path in ["/".to_owned(), format!("/jobs/{}", job(1)), format!("/jobs/{}/card", job(1))] {
            let page = service.get(&path).await;
            assert_eq!(page.status, 200);
            let text = page.text();
            assert!(!text.contains("<script>alert") && text.contains("&lt;script&gt;alert(1)"), "{path}");
            for part in ["4322 ml", "2026-01-02"] {
                assert!(text.contains(part), "{path}: {part}");
            }
        }
        assert!(service.get("/").await.text().contains("Research use only"));
        let table = service.get("/api/v1/measurements.csv").await.text();
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 8);
        let mut column = |name: &str| reader.headers().unwrap().iter().position(|n| n == name).unwrap();
        let (total, description) = (column("total_ml"), column("study_description"));
        assert_eq!((&rows[0][total], &rows[0][description]), ("4321.6", format!("'{hostile}").as_str()));
        let failed = service.get("/api/v1/measurements.csv?state=failed").await.text();
        assert_eq!(failed.lines().count(), 3);
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn health_metrics_and_documentation_are_there() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        assert_eq!(service.get("/healthz").await.status, 200);
        let ready = service.get("/readyz").await;
        assert_eq!(
            (ready.status.as_u16(), ready.json()),
            (200, json!({"database": true, "disk": true, "model": true}))
        );
        let metrics = service.get("/metrics").await.text();
        for line in [
            "hilum_disk_free_bytes",
            "hilum_jobs{state=",
            "hilum_http_requests_total{route=\"/readyz\"",
            "hilum_queue_age_seconds",
        ] {
            assert!(metrics.contains(line), "{line} in\n{metrics}");
        }
        let document = service.get("/api/v1/openapi.json").await.json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for (path, method, _) in table()
            .iter()
            .filter(|(path, ..)| path.starts_with("/api/") && !path.ends_with("openapi.json"))
        {
            let method = if *method == Method::GET { "get" } else { "post" };
            assert!(document["paths"][path][method].is_object(), "{method} {path}");
        }
        let docs = service.get("/docs/").await;
        assert_eq!(docs.status, 200);
        for text in [docs.text(), service.get("/docs/swagger-initializer.js").await.text()] {
            assert!(
                !text.contains("https://") && !text.contains("http://"),
                "loads from another host: {text}"
            );
        }
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn lists_use_their_indexes_under_generic_plans() {
    scratch(|_, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        sqlx::raw_sql(
            "insert into series (study_uid, series_uid, state, revision, accession_number, received_at)
             select '1.2.' || n / 2, '1.3.' || n, 'taken', '\\x01', 'A' || n / 2, now() - n * interval '1 minute' from generate_series(1, 100000) n;
             insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, created_at)
             select gen_random_uuid(), id, '\\x01', 'm', 'd', 'p', 1, (array['done', 'done', 'done', 'failed', 'refused'])[1 + id % 5]::job_state, received_at from series;
             insert into event (kind, actor) select 'a', 'b' from generate_series(1, 1000);
             analyze",
        )
        .execute(&pool)
        .await
        .unwrap();
        let mut connection = pool.acquire().await.unwrap();
        sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
        // The very statements that the library was compiled with.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
        let mut looked_at = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let statement: Value = serde_json::from_str(&text).unwrap();
            let sql = statement["query"].as_str().unwrap();
            let list = sql.contains("limit $4") && (sql.contains("from job j join series s") || sql.contains("source_count, received_at"));
            let events = sql.contains("from event") && sql.contains("order by transaction, id limit");
            if !list && !events {
                continue;
            }
            looked_at += 1;
            let parameters = statement["describe"]["parameters"]["Left"].as_array().unwrap().len();
            let nulls = vec!["null"; parameters].join(", ");
            sqlx::raw_sql(AssertSqlSafe(format!("deallocate all; prepare looked_at as {sql}")))
                .execute(&mut *connection)
                .await
                .unwrap();
            let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("explain execute looked_at({nulls})")))
                .persistent(false)
                .fetch_all(&mut *connection)
                .await
                .unwrap();
            let plan = plan.join("\n");
            assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
            assert!(events || !plan.contains("Hash Join"), "{sql}\n{plan}");
        }
        drop(connection);
        pool.close().await;
        assert!(looked_at >= 13, "{looked_at} statements");
    })
    .await;
}
