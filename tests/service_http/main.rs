//! The HTTP surface over a real database: lists and their cursors, results, events, operations, access, pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod access;
mod events;
mod lists;
mod operations;
mod pages;

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
use hilum::config::Settings;
use hilum::database::testing::scratch;
use hilum::database::{Database, JobSpecification, RetrievalFault, Watcher};
use hilum::http::{Access, AppState, ModelState, Role, ServiceSettings, User, Users, record, router, table};
use hilum::inbox::DiskLimits;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

struct Service {
    router: Router,
    pool: PgPool,
    folder: tempfile::TempDir,
    end: CancellationToken,
    model: watch::Sender<ModelState>,
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
        let (model, told_of_model) = watch::channel(ModelState::Ready);
        let state = AppState {
            watcher: Watcher::start(database.clone(), end.clone()),
            event_streams: Arc::new(Semaphore::new(2)),
            database,
            settings: Arc::new(ServiceSettings {
                data_folder: folder.path().to_owned(),
                hosts: vec!["hilum.example".to_owned()],
                max_event_streams: 2,
                ..Settings::load(None).unwrap().service
            }),
            data_folder: folder.path().to_owned(),
            users: Users::new(users).unwrap(),
            specification: Some(Arc::new(specification())),
            pacs: Arc::new(vec!["orthanc".to_owned()]),
            disk_limits: DiskLimits {
                reserve_bytes: 1,
                watermark: 1.0,
            },
            model: told_of_model,
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
            model,
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
        // A stream of events has no end.
        let endless = head
            .headers
            .get("content-type")
            .is_some_and(|kind| kind == "text/event-stream");
        Answer {
            status: head.status,
            headers: head.headers,
            body: if endless {
                Bytes::new()
            } else {
                body.collect().await.unwrap().to_bytes()
            },
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

/// What the seeded jobs were made with.
fn specification() -> JobSpecification {
    JobSpecification {
        model: "tiny".into(),
        model_digest: "d".into(),
        parameters_digest: "p".into(),
        pipeline_revision: 1,
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
        pacs: None,
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}
