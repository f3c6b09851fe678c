//! The STOW-RS routes over a socket: statuses, headers, and senders that do not behave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ct_file;
mod receive_support;

use hilum::database::testing::scratch;
use hilum::dicomweb::StowAnswer;
use hilum::inbox::InboxSettings;
use receive_support::{Place, content_type, ct, multipart, object, settings, written};
use reqwest::{Client, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const STUDY: &str = "1.2.3";

/// The routes on a port of loopback.
struct Served {
    place: Place,
    address: std::net::SocketAddr,
    client: Client,
}

impl Served {
    async fn new(place: Place) -> Served {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pacs = std::sync::Arc::new(vec!["orthanc".to_owned()]);
        let routes = hilum::http::stow::routes(place.ingest.clone(), pacs);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Served {
            place,
            address,
            client: Client::new(),
        }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Response {
        let mut request = self.client.post(format!("http://{}{path}", self.address)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn stow(&self, parts: &[Vec<u8>]) -> Response {
        self.post(
            "/dicom-web/studies",
            &[("Content-Type", &content_type())],
            multipart(parts),
        )
        .await
    }
}

async fn served(database: hilum::database::Database, url: &str, change: impl FnOnce(&mut InboxSettings)) -> Served {
    let mut settings = settings();
    change(&mut settings);
    Served::new(Place::with(database, url, settings).await).await
}

async fn answer(response: Response) -> StowAnswer {
    assert_eq!(response.headers()["content-type"], "application/dicom+json");
    StowAnswer::parse(&response.bytes().await.unwrap()).unwrap()
}

async fn code(response: Response) -> String {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    body["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn statuses_are_those_of_the_standard() {
    scratch(|database, url| async move {
        let served = served(database, &url, |_| {}).await;
        let good = ct(STUDY, "1.2.3.5", "1.2.4.1", 0);
        let seg = object(STUDY, "1.2.3.9", "1.2.4.9", "SEG", "1.2.840.10008.5.1.4.1.1.66.4", 0);
        let response = served.stow(std::slice::from_ref(&good)).await;
        assert_eq!(response.status(), 200);
        assert!(answer(response).await.refers_to("1.2.4.1"));
        let response = served.stow(&[good.clone(), seg]).await;
        assert_eq!(response.status(), 202);
        assert_eq!(answer(response).await.referenced.len(), 2);
        let response = served.stow(&[good.clone(), b"garbage".to_vec()]).await;
        assert_eq!(response.status(), 202);
        let response = served.stow(&[b"garbage".to_vec()]).await;
        assert_eq!(response.status(), 409);
        assert_eq!(answer(response).await.other_failures.len(), 1);

        let path = "/dicom-web/studies";
        let typed = content_type();
        for (headers, body, status, wanted) in [
            (
                vec![("Content-Type", typed.as_str())],
                multipart::<Vec<u8>>(&[]),
                400,
                "no_part",
            ),
            (
                vec![("Content-Type", typed.as_str())],
                multipart(std::slice::from_ref(&good)).slice(..900),
                400,
                "bad_multipart",
            ),
            (
                vec![("Content-Type", "application/dicom")],
                good.clone().into(),
                400,
                "bad_multipart",
            ),
            (vec![], good.clone().into(), 400, "bad_multipart"),
            (
                vec![(
                    "Content-Type",
                    "multipart/related; type=\"application/dicom+json\"; boundary=x",
                )],
                good.clone().into(),
                415,
                "unsupported_media_type",
            ),
            (
                vec![("Content-Type", "multipart/form-data; boundary=x")],
                good.clone().into(),
                415,
                "unsupported_media_type",
            ),
        ] {
            let response = served.post(path, &headers, body).await;
            assert_eq!(response.status(), status, "{headers:?}");
            assert_eq!(code(response).await, wanted);
        }
        let (typed, body) = written(std::slice::from_ref(&good));
        let response = served
            .post("/dicom-web/studies/1.2.99", &[("Content-Type", &typed)], body.clone())
            .await;
        assert_eq!(response.status(), 409);
        assert_eq!(answer(response).await.failed[0].reason, Some(0x0110));
        let response = served
            .post("/dicom-web/studies/1.2.3", &[("Content-Type", &typed)], body.clone())
            .await;
        assert_eq!(response.status(), 200);
        let response = served
            .post("/dicom-web/studies/..%2Fx", &[("Content-Type", &typed)], body.clone())
            .await;
        assert_eq!(code(response).await, "bad_study");
        let response = served
            .post("/dicom-web/studies/%FF", &[("Content-Type", &typed)], body)
            .await;
        assert_eq!(code(response).await, "bad_path");
        assert_eq!(served.place.number("select count(*) from instance").await, 1);
        assert_eq!(served.place.files().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn headers_say_where_it_comes_from_and_that_it_is_whole() {
    scratch(|database, url| async move {
        let served = served(database, &url, |_| {}).await;
        let (typed, body) = written(&[ct(STUDY, "1.2.3.5", "1.2.4.1", 0)]);
        let headers = [("Content-Type", typed.as_str()), ("X-Hilum-Source", "orthanc"), ("X-Hilum-Series-Complete", "true")];
        assert_eq!(served.post("/dicom-web/studies", &headers, body).await.status(), 200);
        assert_eq!(served.place.text("select source || ' ' || state::text || ' ' || settled_by || ' ' || accession_number || ' ' || patient_id from series").await, "orthanc settled sender A1 P1");
        assert_eq!(served.place.text("select actor from event where kind = 'series_settled'").await, "orthanc");
    })
    .await;
}

#[tokio::test]
async fn a_source_that_nobody_knows_is_told_once_a_series_and_costs_no_upload() {
    scratch(|database, url| async move {
        let served = served(database, &url, |_| {}).await;
        let seg = object(STUDY, "1.2.3.9", "1.2.4.9", "SEG", "1.2.840.10008.5.1.4.1.1.66.4", 0);
        let long = "x".repeat(300);
        for (number, source) in ["orthnac", "orthnac", "", long.as_str(), "orthanc"].into_iter().enumerate() {
            let (typed, body) = written(&[ct(STUDY, "1.2.3.5", &format!("1.2.4.{number}"), 0), seg.clone()]);
            let headers = [("Content-Type", typed.as_str()), ("X-Hilum-Source", source)];
            let response = served.post("/dicom-web/studies", &headers, body).await;
            assert_eq!(response.status(), 202, "{source:?}");
            assert_eq!(answer(response).await.referenced.len(), 2);
        }
        let told = served
            .place
            .text(
                "select string_agg(series_uid || ' ' || left(detail ->> 'source', 8) || ' ' || actor, ', ' order by event.id)
                 from event join series on series.id = series_id where kind = 'source_unknown'",
            )
            .await;
        let of_both = |source: &str| format!("1.2.3.5 {source} stow, 1.2.3.9 {source} stow");
        assert_eq!(told, ["orthnac", "", "xxxxxxxx"].map(of_both).join(", "));
        // The name that is known in the end is the series' source.
        assert_eq!(served.place.text("select string_agg(distinct source, ' ') from series").await, "orthanc");
    })
    .await;
}

#[tokio::test]
async fn limits_answer_413_and_no_room_503_with_retry_after() {
    scratch(|database, url| async move {
        let parts: Vec<Vec<u8>> = (0..4).map(|n| ct(STUDY, "1.2.3.5", &format!("1.2.4.{n}"), 0)).collect();
        let limited = served(database.clone(), &url, |settings| settings.max_parts = 3).await;
        assert_eq!(limited.stow(&parts[..3]).await.status(), 200);
        let response = limited.stow(&parts).await;
        assert_eq!(
            (response.status().as_u16(), code(response).await.as_str()),
            (413, "too_large")
        );
        let limited = served(database.clone(), &url, |settings| settings.max_instance_bytes = 100).await;
        assert_eq!(limited.stow(&parts).await.status(), 413);
        let limited = served(database.clone(), &url, |settings| settings.max_request_bytes = 1000).await;
        assert_eq!(limited.stow(&parts).await.status(), 413, "by Content-Length");
        let chunks: Vec<Result<bytes::Bytes, std::io::Error>> = vec![Ok(multipart(&parts))];
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let response = limited
            .post("/dicom-web/studies", &[("Content-Type", &content_type())], chunked)
            .await;
        assert_eq!(response.status(), 413, "by what came");
        assert!(limited.place.files().is_empty());
        let full = served(database.clone(), &url, |settings| {
            settings.disk_reserve_bytes = u64::MAX
        })
        .await;
        // The answer comes although no byte of the body does.
        let mut sender = TcpStream::connect(full.address).await.unwrap();
        let head = format!(
            "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: 1000000\r\n\r\n",
            content_type()
        );
        sender.write_all(head.as_bytes()).await.unwrap();
        let mut told = vec![0; 12];
        sender.read_exact(&mut told).await.unwrap();
        assert_eq!(told, b"HTTP/1.1 503");
        let response = full.stow(&parts).await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(code(response).await, "disk_full");
    })
    .await;
}

#[tokio::test]
async fn a_sender_that_falls_silent_or_goes_away_leaves_nothing_and_gives_its_place_back() {
    scratch(|database, url| async move {
        let served = served(database, &url, |settings| {
            settings.idle_seconds = 0.3;
            settings.max_uploads = 1;
        })
        .await;
        let body = multipart(&[ct(STUDY, "1.2.3.5", "1.2.4.1", 0)]);
        let head = format!(
            "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
            content_type(),
            body.len()
        );
        let mut silent = TcpStream::connect(served.address).await.unwrap();
        silent.write_all(head.as_bytes()).await.unwrap();
        silent.write_all(&body[..500]).await.unwrap();
        let mut told = String::new();
        silent.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 408"), "{told}");

        let mut gone = TcpStream::connect(served.address).await.unwrap();
        gone.write_all(head.as_bytes()).await.unwrap();
        gone.write_all(&body[..700]).await.unwrap();
        drop(gone);
        // Its place is free again once the broken connection is noticed.
        let mut status = 503;
        for _ in 0..100 {
            status = served
                .stow(&[ct(STUDY, "1.2.3.5", "1.2.4.1", 0)])
                .await
                .status()
                .as_u16();
            if status != 503 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(status, 200);
        assert_eq!(served.place.files().len(), 1);
        assert_eq!(served.place.number("select count(*) from instance").await, 1);
    })
    .await;
}
