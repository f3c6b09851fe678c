//! The service is told to end, or cannot go on: what is under way comes to its end within the stated time, and the exit code says how it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ct_file;
mod receive_support;
mod service_support;

use std::time::{Duration, Instant};

use hilum::database::testing::scratch;
use receive_support::{content_type, ct, multipart};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use service_support::{
    Orthanc, Service, WHOLE, apart, column, eventually, ready, ready_without_pacs, segmentations, thin_phantom,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Time that an answer may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

async fn receiving(url: &str, drain_seconds: &str) -> Service {
    let mut service = Service::new(Some(url));
    service.only("receive");
    service.with("HILUM_SERVICE__DRAIN_SECONDS", drain_seconds);
    service.up().await;
    service
}

/// A connection on which the head of an upload and the first `first` bytes of its body were sent.
async fn begun(service: &Service, body: &[u8], first: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        service.port,
        content_type(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..first]).await.unwrap();
    stream
}

/// SIGTERM, and how it ended after how long, while the test goes on.
fn ending(mut service: Service) -> tokio::task::JoinHandle<(Service, bool, Duration)> {
    tokio::task::spawn_blocking(move || {
        let told = Instant::now();
        let well = service.end();
        (service, well, told.elapsed())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_under_way_is_answered_before_the_service_ends() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let service = receiving(&url, "30.0").await;
        let body = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.1", 0)]);
        let half = body.len() / 2;
        let mut stream = begun(&service, &body, half).await;
        // Nobody waits for one that says nothing.
        let silent = TcpStream::connect(("127.0.0.1", service.port)).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        let port = service.port;
        let ended = ending(service);
        for (at, piece) in body[half..].chunks((body.len() - half).div_ceil(6)).enumerate() {
            sleep(Duration::from_millis(500)).await;
            if at == 4 {
                let anew = TcpStream::connect(("127.0.0.1", port)).await;
                let refused = anew
                    .map_err(|error| error.kind())
                    .expect_err("while it drains nobody new comes in");
                assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
            }
            stream.write_all(piece).await.expect("the upload is not cut");
        }
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
        read.expect("the connection is closed").unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (_, well, after) = ended.await.unwrap();
        assert!(well);
        assert!(after < Duration::from_secs(20), "it ends with the upload: {after:?}");
        drop(silent);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_does_not_end_holds_the_service_for_the_stated_time() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let service = receiving(&url, "2.0").await;
        let body = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.1", 0)]);
        let stream = begun(&service, &body, body.len() / 2).await;
        sleep(Duration::from_millis(500)).await;
        let (_, well, after) = ending(service).await.unwrap();
        assert!(well);
        let wanted = Duration::from_secs(2)..Duration::from_secs(8);
        assert!(wanted.contains(&after), "{after:?}");
        drop(stream);
    })
    .await;
}

/// A service beside an Orthanc that was told to end while a job was in its network, and had these seconds for it: how it ended after how long.
async fn ended_in_the_network(url: &str, drain_seconds: &str) -> (Service, Orthanc, Duration) {
    let (mut service, orthanc) = apart(url, false, "").await;
    service.with_slow_network();
    service.with("HILUM_SERVICE__DRAIN_SECONDS", drain_seconds);
    service.up().await;
    let folder = tempfile::tempdir().unwrap();
    let slices = thin_phantom(folder.path(), 61);
    assert_eq!(service.stow(&slices, &WHOLE).await.unwrap().status(), 200);
    service.in_its_network().await;
    let (service, well, after) = ending(service).await.unwrap();
    assert!(well, "{}", service.log());
    assert!(
        orthanc.segmentations().await.is_empty(),
        "nothing is delivered any more"
    );
    (service, orthanc, after)
}

/// Starts it again: the job comes to its end, its first attempt the only one that counts, and one segmentation lies in Orthanc.
async fn goes_on(service: &mut Service, orthanc: &Orthanc) -> Value {
    service.up().await;
    let jobs = service.jobs_over(1).await;
    let job = service.delivered(jobs[0]["id"].as_str().unwrap()).await;
    assert_eq!(
        (&job["state"], &job["attempts"]),
        (&Value::from("done"), &Value::from(1)),
        "{job}"
    );
    assert_eq!(
        (service.jobs().await.len(), segmentations(orthanc, 1).await.len()),
        (1, 1)
    );
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_its_network_is_finished_within_the_stated_time_and_delivered_after_the_next_start() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc, after) = ended_in_the_network(&url, "120.0").await;
        assert!(after < Duration::from_secs(100), "it ends with the job: {after:?}");
        assert_eq!(column(&url, "select state::text from job").await, ["done"]);
        goes_on(&mut service, &orthanc).await;
        let kinds = "select kind from event where kind in ('job_started', 'job_handed_back', 'job_done') order by id";
        assert_eq!(column(&url, kinds).await, ["job_started", "job_done"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_finished_by_then_is_handed_back_and_taken_up_after_the_next_start() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc, after) = ended_in_the_network(&url, "0.2").await;
        // One window more, and what is written then.
        assert!(after < Duration::from_secs(10), "{after:?}");
        assert_eq!(column(&url, "select state::text from job").await, ["queued"]);
        let job = goes_on(&mut service, &orthanc).await;
        let told = column(
            &url,
            "select concat_ws(' ', kind, detail ->> 'why') from event where kind in ('job_started', 'job_handed_back', 'job_done') order by id",
        )
        .await;
        assert_eq!(told, ["job_started", "job_handed_back this worker ends", "job_started", "job_done"]);
        let results = service_support::files(&service.data().join("results").join(job["id"].as_str().unwrap()));
        assert_eq!(results.len(), 1, "{results:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_told_to_end_while_it_starts_ends_soon_and_its_database_with_it() {
    if !ready_without_pacs() {
        return;
    }
    for interrupted in [false, true] {
        let mut service = Service::new(None);
        service.only("receive");
        let pid_file = service.data().join("postgres/data/postmaster.pid");
        service.launch();
        // From here on its server runs; it has yet to recover, to be connected to, and to get its tables.
        let server = eventually("the server of its own", || async {
            let text = std::fs::read_to_string(&pid_file).ok()?;
            Pid::from_raw(text.lines().next()?.parse().ok()?)
        })
        .await;
        if interrupted {
            kill_process(service.pid(), Signal::INT).unwrap();
            let begun = Instant::now();
            assert!(service.ends_by_itself(), "{}", service.log());
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        } else {
            let (ended, well, after) = ending(service).await.unwrap();
            let survived = test_kill_process(server).is_ok();
            if survived {
                let _ = kill_process(server, Signal::INT);
            }
            service = ended;
            assert!(!survived, "its database goes on without it");
            assert!(well, "{}", service.log());
            assert!(after < SOON, "{after:?}");
        }
        assert!(!service.log().contains("listens on"), "{}", service.log());
        assert!(!pid_file.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_run_ends_the_service_with_a_failure() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.only("deliver");
        service.with("HILUM_DELIVERY__ALWAYS_TO", "[\"nowhere\"]");
        service.launch();
        let (well, log) = tokio::task::spawn_blocking(move || (service.ends_by_itself(), service.log()))
            .await
            .unwrap();
        assert!(!well, "who looks after it starts it again");
        assert!(log.contains("nowhere"), "{log}");
    })
    .await;
}
