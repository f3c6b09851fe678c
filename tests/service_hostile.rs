//! Clients that mean no good at the door of the real program. After each of them it answers everybody else, its memory stayed bounded, and nothing of theirs
//! lies in its inbox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ct_file;
mod receive_support;
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
use service_support::{Service, eventually, ready_without_pacs};
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
        let log = self.service.log();
        assert!(!log.contains("panicked"), "{log}");
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

#[tokio::test]
async fn heads_that_never_end_are_closed_and_others_are_served_meanwhile() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[("HILUM_SERVICE__HEAD_SECONDS", "2.0")]).await;
        let mut dripping = Vec::new();
        for number in 0..200 {
            let mut stream = target.connect().await;
            // Every fourth one says nothing at all.
            let slow = number % 4 > 0;
            if slow {
                let head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
                stream.write_all(head).await.unwrap();
            }
            let drop: &[u8] = if slow { b"a" } else { b"" };
            dripping.push(tokio::spawn(drip(stream, drop, Duration::from_millis(200))));
        }
        for _ in 0..5 {
            target.lives().await;
            sleep(Duration::from_millis(200)).await;
        }
        for ended in join_all(dripping).await {
            let (_, after) = ended.unwrap();
            assert!(after < Duration::from_secs(15), "{after:?}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn uploads_that_drip_lose_their_places_with_408() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let settings = [
            ("HILUM_INBOX__MAX_UPLOADS", "2"),
            ("HILUM_INBOX__LONGEST_UPLOAD_SECONDS", "4.0"),
        ];
        let target = Target::up(&url, &settings).await;
        let mut dripping = Vec::new();
        for _ in 0..2 {
            let mut stream = target.connect().await;
            let head = target.head("Content-Length: 1000000000\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let first = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.9", 0)]);
            stream.write_all(&first[..first.len() - 40]).await.unwrap();
            // Enough in a minute not to be taken for one that sleeps.
            dripping.push(tokio::spawn(drip(stream, &[0; 200], Duration::from_millis(100))));
        }
        sleep(Duration::from_secs(1)).await;
        let refused = target.good_upload().await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        for ended in join_all(dripping).await {
            let (answer, after) = ended.unwrap();
            assert_eq!(status(&answer), 408, "{answer}");
            assert!(answer.contains("too_slow"), "{answer}");
            assert!(after < Duration::from_secs(15), "{after:?}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn bodies_without_their_closing_boundary_are_400_and_leave_nothing() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let whole = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.9", 0), vec![7; 500_000]]);
        for length in [whole.len() - 2, whole.len() - 40, whole.len() / 2, 900, 60, 1, 0] {
            let answer = target.upload(&whole[..length]).await;
            assert_eq!(status(&answer), 400, "{length}: {answer}");
        }
        // The same in chunks, which end well, end in nonsense, or do not end.
        let part = &whole[..2000];
        for (end, wanted) in [
            ("0\r\n\r\n", Some(400)),
            ("FFFFFFFFFFFFFFFFF\r\n", None),
            ("zz\r\n", None),
        ] {
            let head = target.head("Transfer-Encoding: chunked\r\nConnection: close\r\n");
            let bytes = [head.as_bytes(), b"7D0\r\n", part, b"\r\n", end.as_bytes()].concat();
            let answer = target.answer(&bytes).await;
            if wanted.is_some() || !answer.is_empty() {
                assert_eq!(status(&answer), 400, "{end:?}: {answer}");
            }
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_hundred_thousand_tiny_parts_are_answered_one_by_one_in_little_memory() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let tiny = |parts: usize| {
            let boundary = content_type().split_once("boundary=").unwrap().1.to_owned();
            let part = format!("--{boundary}\r\n\r\nx\r\n");
            format!("{}--{boundary}--", part.repeat(parts)).into_bytes()
        };
        let answer = target.upload(&tiny(100_000)).await;
        assert_eq!(status(&answer), 409);
        assert_eq!(answer.matches("00081197").count(), 100_000);
        let answer = target.upload(&tiny(100_001)).await;
        assert_eq!(status(&answer), 413, "{answer}");
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn absurd_heads_of_requests_are_refused() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let long = "a".repeat(1 << 20);
        let many = (0..5000).fold(String::new(), |lines, number| lines + &format!("X-{number}: 1\r\n"));
        let tls = "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".repeat(50);
        for (bytes, wanted) in [
            (target.head(&format!("X-Long: {long}\r\n")), [431, 400]),
            (target.head(&many), [431, 400]),
            (format!("GET /{long} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), [414, 431]),
            (target.head("Content-Length: 99999999999999999999\r\n"), [400, 400]),
            (target.head("Content-Length: 5\r\nContent-Length: 6\r\n"), [400, 400]),
            (target.head("Content-Length: -1\r\n"), [400, 400]),
            (target.head("Content-Length: 18446744073709551615\r\n"), [431, 413]),
            (target.head("Content-Length: 17179869185\r\n"), [413, 413]),
            // Nothing is inflated for anybody.
            (
                target.head("Content-Encoding: gzip\r\nContent-Length: 1048576\r\n"),
                [415, 415],
            ),
            (tls, [400, 400]),
        ] {
            let answer = target.answer(bytes.as_bytes()).await;
            assert!(wanted.contains(&status(&answer)), "{answer}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn heads_of_parts_are_bounded() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let boundary = content_type().split_once("boundary=").unwrap().1.to_owned();
        let endless = format!("--{boundary}\r\nX-Long: {}", "a".repeat(8 << 20));
        let answer = target.upload(endless.as_bytes()).await;
        assert_eq!(status(&answer), 413, "{answer}");
        let lines = format!("--{boundary}\r\n{}", "X: y\r\n".repeat(1 << 20));
        let answer = target.upload(lines.as_bytes()).await;
        assert_eq!(status(&answer), 413, "{answer}");
        // Many that are just short enough: 60 MB in all.
        let part = format!("--{boundary}\r\nX-Long: {}\r\n\r\nx\r\n", "a".repeat(15_000));
        let body = format!("{}--{boundary}--", part.repeat(4000));
        let answer = target.upload(body.as_bytes()).await;
        assert_eq!(status(&answer), 409);
        // A part's own word on its length is not believed.
        let lying = format!("--{boundary}\r\nContent-Length: 4294967295\r\n\r\nx\r\n--{boundary}--");
        assert_eq!(status(&target.upload(lying.as_bytes()).await), 409);
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn deep_sequences_and_lengths_of_4_gb_are_no_instances() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let level = [header((0x12, 0x64), "SQ", u32::MAX), item(0xE000, u32::MAX)].concat();
        let data = data_set(20, 30, true);
        let mut parts = headers_that_lie();
        parts.push([meta(EXPLICIT), level.repeat(100_000)].concat());
        parts.push([meta(EXPLICIT), level.repeat(100_000), data.clone()].concat());
        for (number, part) in parts.iter().enumerate() {
            let answer = target.upload(&multipart(&[part])).await;
            assert_eq!(status(&answer), 409, "{number}: {answer}");
        }
        let answer = target.upload(&multipart(&parts)).await;
        assert_eq!(answer.matches("00081197").count(), parts.len(), "{answer}");
        // What only its pixels belie may be taken: the job that reads them refuses it.
        let rows = element((0x28, 8), "IS", b"2147483647");
        let pixels = [
            [meta(EXPLICIT), data.clone(), header((0x7FE0, 0x10), "OW", HUGE)].concat(),
            [meta(EXPLICIT), rows, data.clone(), header((0x7FE0, 0x10), "OW", HUGE)].concat(),
            [
                meta(RLE),
                data.clone(),
                header((0x7FE0, 0x10), "OB", u32::MAX),
                item(0xE000, HUGE),
            ]
            .concat(),
            [meta(RLE), data, encapsulated(&[&[0xFF; 64]])].concat(),
        ];
        for (number, part) in pixels.iter().enumerate() {
            let answer = target.upload(&multipart(&[part])).await;
            assert!([200, 409].contains(&status(&answer)), "{number}: {answer}");
        }
        assert_eq!(status(&target.upload(&multipart(&[native(20, 30)])).await), 200);
        let files = target.service.inbox_files().len() + 1;
        target.ends_unharmed(files).await;
    })
    .await;
}

#[tokio::test]
async fn bombs_and_uids_like_paths_are_no_instances() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[]).await;
        let bomb = |inflated: &[&[u8]]| {
            let mut encoder = DeflateEncoder::new(meta(DEFLATED), Compression::best());
            inflated.iter().for_each(|piece| encoder.write_all(piece).unwrap());
            encoder.finish().unwrap()
        };
        let zeros = vec![0; 1 << 20];
        let (long, many) = (header((9, 0x1010), "OB", 256 << 20), element((9, 0x1010), "SH", b""));
        let pieces: Vec<&[u8]> = [&long[..]].into_iter().chain([&zeros[..]; 256]).collect();
        let uid = "1.2.3";
        let many = many.repeat(1 << 17);
        for part in [
            bomb(&pieces),
            bomb(&[&many[..]; 128]),
            ct("../../../../tmp/x", uid, uid, 0),
            ct(uid, "/etc/passwd", uid, 0),
            ct(uid, uid, "..", 0),
            ct(uid, uid, "1.2/../../3", 0),
        ] {
            assert!(part.len() < 4 << 20, "{}", part.len());
            let answer = target.upload(&multipart(&[part])).await;
            assert_eq!(status(&answer), 409, "{answer}");
        }
        target.ends_unharmed(1).await;
    })
    .await;
}

#[tokio::test]
async fn connections_that_are_closed_by_half_hold_no_place() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let target = Target::up(&url, &[("HILUM_INBOX__MAX_UPLOADS", "4")]).await;
        let body = multipart(&[ct("1.2.3", "1.2.3.5", "1.2.4.1", 0)]);
        let head = target.head(&format!("Content-Length: {}\r\n", body.len()));
        let whole = [head.as_bytes(), &body[..]].concat();
        let head = head.len();
        for length in [0, 20, head, head + 100, whole.len() - 1, whole.len()] {
            for _ in 0..4 {
                let ended = (0..4).map(|_| async {
                    let mut stream = target.connect().await;
                    stream.write_all(&whole[..length]).await.unwrap();
                    stream.shutdown().await.unwrap();
                    timeout(SOON, read_to_end(&mut stream))
                        .await
                        .expect("the connection is closed")
                });
                for answer in join_all(ended).await {
                    let fits = [200, 400, 503];
                    assert!(
                        answer.is_empty() || fits.contains(&status(&answer)),
                        "{length}: {answer}"
                    );
                }
            }
        }
        // And some that are cut off hard, their answers unread.
        for _ in 0..20 {
            let mut stream = target.connect().await;
            stream.write_all(&whole[..head + 100]).await.unwrap();
            stream.set_zero_linger().unwrap();
        }
        eventually("the places to be free", || async {
            (target.good_upload().await.status() == 200).then_some(())
        })
        .await;
        target.ends_unharmed(1).await;
    })
    .await;
}

/// Bytes of the bodies of the test below.
const LARGE_BODY: usize = 5 << 30;
/// What the service may hold at the most while it takes them.
const MOST_HELD_KIB: u64 = 100_000;

#[tokio::test]
async fn bodies_of_gigabytes_are_taken_or_refused_in_little_memory() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let limit = (32usize << 20).to_string();
        let target = Target::up(&url, &[("HILUM_INBOX__MAX_INSTANCE_BYTES", &limit)]).await;
        let boundary = content_type().split_once("boundary=").unwrap().1.to_owned();
        let before = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
        // An instance of a megabyte: what follows the pixels is padding (PS3.10 section 7.2).
        let mut part = ct("1.2.3", "1.2.3.5", "1.2.4.7", 0);
        part.extend(element((0xFFFC, 0xFFFC), "OB", &vec![7; 1 << 20]));
        let (part, end) = (
            [&before, &part, &b"\r\n"[..]].concat(),
            format!("--{boundary}--").into_bytes(),
        );
        let parts = LARGE_BODY / part.len();
        let begun = Instant::now();
        for (name, head_of_part, piece, pieces, wanted) in [
            ("many parts", &b""[..], &part, parts, 200),
            ("one part", &before, &vec![7; 1 << 20], LARGE_BODY >> 20, 413),
        ] {
            let length = head_of_part.len() + pieces * piece.len() + end.len();
            let head = target.head(&format!("Content-Length: {length}\r\nConnection: close\r\n"));
            let body = std::iter::repeat_n(piece.as_slice(), pieces);
            let all = [head.as_bytes(), head_of_part]
                .into_iter()
                .chain(body)
                .chain([end.as_slice()]);
            let answer = target.answer_to(all).await;
            assert_eq!(status(&answer), wanted, "{name}");
            if wanted == 200 {
                assert_eq!(answer.matches("1.2.4.7").count(), parts, "every part is referenced");
            }
            let held = target.service.memory_kib("VmHWM");
            println!(
                "{name}: {length} bytes, {held} KiB held at the most, {:?} in all",
                begun.elapsed()
            );
            assert!(held < MOST_HELD_KIB, "{held} KiB");
        }
        target.ends_unharmed(2).await;
    })
    .await;
}
