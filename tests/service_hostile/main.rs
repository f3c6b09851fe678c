//! Clients that mean no good at the door of the real program. After each of them it answers everybody else, its memory stayed bounded, and nothing of theirs
//! lies in its inbox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod bodies;
mod connections;
#[path = "../ct_file/mod.rs"]
mod ct_file;
mod instances;
#[path = "../receive_support/mod.rs"]
mod receive_support;
#[path = "../service_support/mod.rs"]
mod service_support;

use std::io::Write as _;
use std::time::{Duration, Instant};

use ct_file::{
    DEFLATED, EXPLICIT, HUGE, RLE, data_set, element, encapsulated, header, headers_that_lie, item, meta, native,
};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use futures_util::future::join_all;
use hilum::database::testing::scratch;
use receive_support::{content_type, ct, multipart};
use reqwest::Method;
use serde_json::Value;
use service_support::{Service, WHOLE, eventually, ready_without_pacs, thin_phantom};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// What an attack may add to the most memory that the service held.
const MOST_ADDED_KIB: u64 = 48 << 10;
/// What others wait for their answer at most.
const SOON: Duration = Duration::from_secs(5);

/// A service that receives.
struct Target {
    service: Service,
    before_kib: u64,
}

impl Target {
    async fn up(url: &str, settings: &[(&str, &str)]) -> Target {
        let mut service = Service::new(Some(url));
        service.only("receive");
        for (name, value) in settings {
            service.with(name, value);
        }
        service.up().await;
        let before_kib = service.memory_kib("VmHWM");
        Target { service, before_kib }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.service.port)).await.unwrap()
    }

    /// The head of an upload with further lines.
    fn head(&self, lines: &str) -> String {
        let kind = content_type();
        let port = self.service.port;
        format!("POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n{lines}\r\n")
    }

    /// What is answered to these bytes until the connection is closed; not all of them may be taken.
    async fn answer(&self, bytes: &[u8]) -> String {
        let answer = self.answer_to([bytes]);
        timeout(Duration::from_secs(60), answer).await.expect("an answer")
    }

    /// The same, to bytes that come piece by piece.
    async fn answer_to<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut from, mut to) = self.connect().await.into_split();
        let sending = async {
            for piece in pieces {
                if to.write_all(piece).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(read_to_end(&mut from), sending).0
    }

    /// The answer to a body that is sent whole.
    async fn upload(&self, body: &[u8]) -> String {
        let lines = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
        self.answer(&[self.head(&lines).as_bytes(), body].concat()).await
    }

    async fn good_upload(&self) -> reqwest::Response {
        let request = self.service.ask(Method::POST, "/dicom-web/studies");
        let body = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.1", 0)]);
        let sent = request.header("Content-Type", content_type()).body(body).send();
        timeout(SOON, sent).await.expect("an answer soon").unwrap()
    }

    async fn lives(&self) {
        let answer = timeout(SOON, self.service.get("/healthz")).await;
        assert!(answer.expect("an answer soon").is_some());
    }

    /// Others are served, memory stayed bounded, no panic, and in the inbox lie so many files, with that of a good upload.
    async fn ends_unharmed(mut self, files: usize) {
        self.lives().await;
        assert_eq!(self.good_upload().await.status(), 200);
        let added = self.service.memory_kib("VmHWM") - self.before_kib;
        println!(
            "{} KiB before, {added} KiB more at the most, {} KiB held now",
            self.before_kib,
            self.service.memory_kib("VmRSS")
        );
        assert!(added < MOST_ADDED_KIB, "{added} KiB");
        eventually("the inbox to be clean", || async {
            (self.service.inbox_files().len() == files).then_some(())
        })
        .await;
        self.service.has_not_panicked();
        assert!(self.service.end());
    }
}

/// What comes until the connection is closed, well or not.
async fn read_to_end(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let _ = from.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status: {answer:?}"))
}

/// Sends the same again and again until the connection is closed: what was answered, and after how long.
async fn drip(stream: TcpStream, drop: &[u8], every: Duration) -> (String, Duration) {
    let (mut from, mut to) = stream.into_split();
    let begun = Instant::now();
    let dripping = async {
        while to.write_all(drop).await.is_ok() {
            sleep(every).await;
        }
        // What was answered is still read.
        std::future::pending::<()>().await;
    };
    let answer = async {
        tokio::select! {
            answer = read_to_end(&mut from) => answer,
            () = dripping => String::new(),
        }
    };
    let answer = timeout(Duration::from_secs(30), answer).await;
    (answer.expect("the connection is closed"), begun.elapsed())
}
