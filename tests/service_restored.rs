//! A database that was dumped and is restored into another server: what happened before is told there, once and at once; with the data folder beside it, the service goes on there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hilum::database::testing::scratch;
use hilum::database::{Change, Database, JobSpecification, Place, PrivateCluster, Watcher};
use serde_json::Value;
use service_support::{Service, both, eventually, ready, segmentations, thin_phantom};
use sqlx::PgPool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A program of PostgreSQL, of the newest version that is installed.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let mut programs: Vec<PathBuf> = versions
        .map(|version| version.unwrap().path().join("bin").join(name))
        .collect();
    programs.retain(|program| program.is_file());
    programs.sort_by_key(|program| fs::canonicalize(program).unwrap());
    programs.pop().expect("its programs are there")
}

fn run(name: &str, arguments: &[&str]) {
    let done = Command::new(program(name)).args(arguments).output().unwrap();
    assert!(
        done.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// What a database holds, dumped, and loaded by a server of its own under this folder.
async fn put_into_another_server(url: &str, folder: &Path) -> PrivateCluster {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
    let (data, dump) = (folder.join("data"), folder.join("dump.sql"));
    fs::create_dir(&data).unwrap();
    let dump = dump.to_str().unwrap();
    run("pg_dump", &["--no-owner", "--file", dump, "--dbname", url]);
    let cluster = PrivateCluster::start(&data, Path::new("")).await.unwrap();
    run(
        "psql",
        &[
            "--quiet",
            "-v",
            "ON_ERROR_STOP=1",
            "--dbname",
            &cluster.url(),
            "--file",
            dump,
        ],
    );
    cluster
}

/// Lets the server count its transactions up to this number.
async fn count_up_to(url: &str, number: u32) {
    let pool = PgPool::connect(url).await.unwrap();
    let counts =
        format!("do $$ begin while pg_current_xact_id()::text::bigint < {number} loop commit; end loop; end $$");
    sqlx::raw_sql(sqlx::AssertSqlSafe(counts)).execute(&pool).await.unwrap();
    pool.close().await;
}

/// The ids of the events after a place.
async fn ids_after(database: &Database, place: Place) -> Vec<i64> {
    let events = database.events_after(place, None).await.unwrap();
    events.iter().map(|event| event.place.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_before_a_dump_is_told_at_once_by_the_server_that_it_is_restored_into() {
    scratch(|database, url| async move {
        // The old server has counted far.
        count_up_to(&url, 5000).await;
        let pool = PgPool::connect(&url).await.unwrap();
        let settled = "insert into series (study_uid, series_uid, state, revision, settled_at) values ('1.2', '1.3', 'settled', 'a', now())";
        sqlx::query(settled).execute(&pool).await.unwrap();
        pool.close().await;
        let specification = JobSpecification {
            model: "m".into(),
            model_digest: "d".into(),
            parameters_digest: "p".into(),
            pipeline_revision: 1,
        };
        let job = database.make_job(&specification).await.unwrap().unwrap();
        database.claim_job("w", 60.0, true).await.unwrap().unwrap();
        database.cancel_job(job.id, "somebody").await.unwrap();
        let kinds = async |database: &Database| {
            let events = database.events_of_job(job.id, 100).await.unwrap();
            events.into_iter().map(|event| event.kind).collect::<Vec<_>>()
        };
        // Other tests on this server may hold the last ones back for a moment.
        for _ in 0..400 {
            if kinds(&database).await.len() > 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let before = kinds(&database).await;
        assert_eq!(before, ["job_queued", "job_started", "job_cancel_requested"]);
        let told = ids_after(&database, Place::default()).await;

        let folder = tempfile::tempdir().unwrap();
        let mut cluster = put_into_another_server(&url, folder.path()).await;
        let new_url = cluster.url();

        let restored = Database::connect(&new_url, 6).await.unwrap();
        assert!(kinds(&restored).await.is_empty(), "the new server has not counted as far");
        restored.migrate().await.unwrap();
        assert_eq!(kinds(&restored).await, before);
        assert_eq!(ids_after(&restored, Place::default()).await, told);

        // Who listens hears what is new, and who comes back with the id of an event of before hears the same.
        let end = CancellationToken::new();
        let mut listener = Watcher::start(restored.clone(), end.clone()).listen();
        tokio::time::sleep(Duration::from_secs(1)).await;
        restored.set_paused(true, "somebody").await.unwrap();
        let mut heard = async || loop {
            match timeout(Duration::from_secs(20), listener.recv()).await.expect("it is told").unwrap() {
                Change::Event(event) => return event,
                Change::Progress(_) => {}
            }
        };
        let new = heard().await;
        assert_eq!(new.kind, "queue_paused");
        let last = restored.place_of_event(*told.last().unwrap()).await.unwrap();
        assert_eq!(ids_after(&restored, last).await, [new.place.id]);

        // When the new server has counted as far as the old one, nothing of before comes again.
        count_up_to(&new_url, 7000).await;
        assert!(ids_after(&restored, new.place).await.is_empty());
        end.cancel();
        restored.close().await;
        cluster.stop();
    })
    .await;
}

/// Sends a part of a chest; the job of its series, as soon as it is there.
async fn sent(service: &Service, seed: u32, jobs_before: usize) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let stored = service
        .stow(&thin_phantom(folder.path(), seed), &service_support::WHOLE)
        .await;
    assert!(stored.unwrap().status().is_success());
    eventually("its job", || async {
        let jobs = service.jobs().await;
        (jobs.len() > jobs_before).then(|| jobs[0].clone())
    })
    .await
}

fn id(job: &Value) -> &str {
    job["id"].as_str().unwrap()
}

/// The files of a job's results.
async fn results(service: &Service, id: &str) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for name in ["segmentation.dcm", "report.json", "overlay.png", "mask.nii.gz"] {
        let answer = service
            .get(&format!("/api/v1/jobs/{id}/result/{name}"))
            .await
            .expect(name);
        files.push(answer.bytes().await.unwrap().to_vec());
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_database_and_data_folder_goes_on_in_another_server_and_another_folder() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, mut orthanc) = both(&url, false, "").await;
        // One is delivered, one waits for a PACS that is away, one waits in a paused queue.
        let delivered = sent(&service, 71, 0).await;
        service.delivered(id(&delivered)).await;
        let before = results(&service, id(&delivered)).await;
        orthanc.down();
        let undelivered = sent(&service, 72, 1).await;
        service.jobs_over(2).await;
        assert_eq!(service.post("/api/v1/queue/pause").await.status(), 200);
        let queued = sent(&service, 73, 2).await;
        let path = format!("/api/v1/jobs/{}", id(&delivered));
        let told = service.json(&path).await;
        assert!(service.end(), "{}", service.log());

        let folder = tempfile::tempdir().unwrap();
        let mut cluster = put_into_another_server(&url, folder.path()).await;
        let new_url = cluster.url();
        let mut restored = Service::new(Some(&new_url));
        restored.beside(&orthanc, "");
        let copied = Command::new("cp")
            .arg("-a")
            .args([service.data(), restored.data()])
            .status();
        assert!(copied.unwrap().success());
        // Nothing is read where it lay.
        fs::remove_dir_all(service.data()).unwrap();

        restored.up().await;
        assert!(told.is_some());
        assert_eq!(restored.json(&path).await, told);
        assert_eq!(results(&restored, id(&delivered)).await, before);
        orthanc.up().await;
        restored.delivered(id(&undelivered)).await;
        let waiting = restored.json(&format!("/api/v1/jobs/{}", id(&queued))).await.unwrap();
        assert_eq!(waiting["state"], "queued", "the queue is paused still: {waiting}");
        assert_eq!(restored.post("/api/v1/queue/resume").await.status(), 200);
        let last = restored.delivered(id(&queued)).await;
        assert_eq!(last["state"], "done", "{last}");
        assert_eq!(segmentations(&orthanc, 3).await.len(), 3);
        // What is known stays known.
        let again = tempfile::tempdir().unwrap();
        let stored = restored
            .stow(&thin_phantom(again.path(), 71), &service_support::WHOLE)
            .await;
        assert!(stored.unwrap().status().is_success());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(restored.jobs().await.len(), 3);
        assert!(restored.end(), "{}", restored.log());
        cluster.stop();
    })
    .await;
}
