//! The service is told to end, or cannot go on: what is under way comes to its end within the stated time, and the exit code says how it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ct_file;
mod receive_support;
mod service_support;

use std::time::{Duration, Instant};

use hilum::database::testing::scratch;
use receive_support::{content_type, ct, multipart};
use service_support::{Service, ready_without_pacs};
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
fn ending(mut service: Service) -> tokio::task::JoinHandle<(bool, Duration)> {
    tokio::task::spawn_blocking(move || {
        let told = Instant::now();
        (service.end(), told.elapsed())
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
        let ended = ending(service);
        for piece in body[half..].chunks((body.len() - half).div_ceil(6)) {
            sleep(Duration::from_millis(500)).await;
            stream.write_all(piece).await.expect("the upload is not cut");
        }
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
        read.expect("the connection is closed").unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (well, after) = ended.await.unwrap();
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
        let (well, after) = ending(service).await.unwrap();
        assert!(well);
        let wanted = Duration::from_secs(2)..Duration::from_secs(8);
        assert!(wanted.contains(&after), "{after:?}");
        drop(stream);
    })
    .await;
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
