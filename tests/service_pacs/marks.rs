//! What became of a series, written in its Orthanc: by each Orthanc for itself, and nothing is forgotten.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::extract::{Path as AxumPath, State};
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};

use super::*;

/// As much of an Orthanc as a mark needs; its own name of a series is the hexadecimal form of its UID.
struct FewPaths {
    address: SocketAddr,
    marks: Marks,
    /// Writes at these series are answered 500.
    breaks_at: Arc<Mutex<Option<String>>>,
    running: JoinHandle<()>,
}

type Marks = Arc<Mutex<BTreeMap<String, String>>>;

fn own_name(uid: &str) -> String {
    uid.bytes().map(|byte| format!("{byte:02x}")).collect()
}

impl FewPaths {
    async fn start() -> FewPaths {
        FewPaths::start_at(([127, 0, 0, 1], 0).into()).await
    }

    async fn start_at(address: SocketAddr) -> FewPaths {
        let marks = Marks::default();
        let breaks_at = Arc::<Mutex<Option<String>>>::default();
        let write = |State((marks, breaks_at)): State<(Marks, Arc<Mutex<Option<String>>>)>,
                     AxumPath(id): AxumPath<String>,
                     fate: String| async move {
            if breaks_at.lock().unwrap().as_ref() == Some(&id) {
                return StatusCode::INTERNAL_SERVER_ERROR;
            }
            marks.lock().unwrap().insert(id, fate);
            StatusCode::OK
        };
        let router = Router::new()
            .route(
                "/tools/lookup",
                post(|uid: String| async move { Json(json!([{"ID": own_name(&uid), "Type": "Series"}])) }),
            )
            .route(
                "/series/{id}/study",
                get(|| async { Json(json!({"MainDicomTags": {"StudyInstanceUID": STUDY}})) }),
            )
            .route("/series/{id}/metadata/9101", put(write))
            .with_state((Arc::clone(&marks), Arc::clone(&breaks_at)))
            // So that nothing of it is left once it is stopped.
            .layer(map_response(|response: Response| async {
                ([(CONNECTION, "close")], response)
            }));
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        FewPaths {
            address,
            marks,
            breaks_at,
            running,
        }
    }

    fn mark(&self, series: &str) -> Option<String> {
        self.marks.lock().unwrap().get(&own_name(series)).cloned()
    }

    /// Its port refuses connections from now on.
    async fn stop(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

fn orthanc(name: &str, address: SocketAddr) -> Pacs {
    Pacs {
        name: name.into(),
        ..pacs(
            &format!("http://{address}/dicom-web"),
            &format!("orthanc_url = \"http://{address}\"\ndeliver = \"nothing\""),
        )
    }
}

/// A series of a PACS that is not taken, and the event which says so.
async fn ignored(pool: &PgPool, source: &str, series: &str) {
    sqlx::query(
        "with made as (insert into series (study_uid, series_uid, source, state, finding_code) values ($1, $2, $3, 'ignored', 'not_ct') returning id)
         insert into event (kind, series_id, actor) select 'series_ignored', id, 'test' from made",
    )
    .bind(STUDY)
    .bind(series)
    .bind(source)
    .execute(pool)
    .await
    .unwrap();
}

fn begin(database: &Database, folder: &Path, blocks: Vec<Pacs>) -> (CancellationToken, JoinHandle<()>) {
    let end = CancellationToken::new();
    let settings = Settings::load(None).unwrap().delivery;
    let running = delivery::run(
        database.clone(),
        folder.to_owned(),
        settings,
        blocks,
        "worker".into(),
        end.clone(),
    );
    (end, tokio::spawn(async move { running.await.unwrap() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orthanc_that_hangs_holds_neither_the_marks_of_another_nor_the_end() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Connections stand, and nobody answers.
        let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = FewPaths::start().await;
        for (source, series) in [("one", "1.2.1"), ("two", "1.2.2")] {
            ignored(&pool, source, series).await;
        }
        let one = Pacs {
            timeout_seconds: 600,
            ..orthanc("one", hanging.local_addr().unwrap())
        };
        let (end, running) = begin(&database, folder.path(), vec![one, orthanc("two", other.address)]);
        until("the mark at the other", || async { other.mark("1.2.2").is_some() }).await;
        assert_eq!(other.mark("1.2.2").as_deref(), Some("ignored:not_ct"));
        end.cancel();
        tokio::time::timeout(Duration::from_secs(10), running)
            .await
            .expect("it ends at once")
            .unwrap();
        other.stop().await;
        pool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_orthanc_is_owed_is_written_after_it_was_away_and_hilum_stopped_for_days() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let first = FewPaths::start().await;
        let address = first.address;
        let blocks = || vec![orthanc("one", address)];
        ignored(&pool, "one", "1.2.1").await;
        let (end, running) = begin(&database, folder.path(), blocks());
        until("the first mark", || async { first.mark("1.2.1").is_some() }).await;
        until("its place", || async {
            number(&pool, "select count(*) from marked").await == 1
        })
        .await;
        // It goes away, and Hilum is stopped before it is back.
        first.stop().await;
        ignored(&pool, "one", "1.2.2").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        end.cancel();
        running.await.unwrap();
        ignored(&pool, "one", "1.2.3").await;
        sqlx::query("update event set at = at - interval '5 days'")
            .execute(&pool)
            .await
            .unwrap();
        let back = FewPaths::start_at(address).await;
        // One that it cannot write holds no other up.
        *back.breaks_at.lock().unwrap() = Some(own_name("1.2.2"));
        let (end, running) = begin(&database, folder.path(), blocks());
        until("what happened while Hilum was stopped", || async {
            back.mark("1.2.3").is_some()
        })
        .await;
        *back.breaks_at.lock().unwrap() = None;
        until("what it was owed", || async { back.mark("1.2.2").is_some() }).await;
        assert_eq!(back.mark("1.2.1"), None, "what is written is not written again");
        end.cancel();
        running.await.unwrap();
        // A place of another server, as in a database that was restored from a dump, is no place here.
        sqlx::query("update marked set transaction = '9000000000'")
            .execute(&pool)
            .await
            .unwrap();
        ignored(&pool, "one", "1.2.4").await;
        let (end, running) = begin(&database, folder.path(), blocks());
        until("the mark after the restore", || async { back.mark("1.2.4").is_some() }).await;
        until("a place of this server", || async {
            number(&pool, "select count(*) from marked where transaction < '9000000000'").await == 1
        })
        .await;
        end.cancel();
        running.await.unwrap();
        back.stop().await;
        pool.close().await;
    })
    .await;
}
