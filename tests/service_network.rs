//! The service and its network: it listens before the network is loaded, says how it stands with it, and goes on where it cannot be loaded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hilum::database::testing::scratch;
use reqwest::Method;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use service_support::{Service, eventually, ready_without_pacs, thin_phantom};

const COMPLETE: [(&str, &str); 1] = [("X-Hilum-Series-Complete", "true")];
const NETWORK: &str = "hilum-ahnet-lung-tiny";

fn networks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx")
}

/// The small network, whose weights are read from a pipe: loading waits until somebody writes them.
fn network_behind_a_pipe(service: &mut Service) -> PathBuf {
    let manifest = service.folder.path().join(format!("{NETWORK}.toml"));
    std::fs::copy(networks().join(format!("{NETWORK}.toml")), &manifest).unwrap();
    let pipe = service.folder.path().join(format!("{NETWORK}.onnx"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    service.with("HILUM_MODEL__NAME", manifest.to_str().unwrap());
    pipe
}

/// Writes to a pipe as soon as somebody reads it.
async fn write(pipe: &Path, bytes: Vec<u8>) {
    let pipe = pipe.to_owned();
    let written = tokio::task::spawn_blocking(move || std::fs::write(pipe, bytes));
    tokio::time::timeout(Duration::from_secs(60), written)
        .await
        .expect("the network is read")
        .unwrap()
        .unwrap();
}

/// What `/readyz` says.
struct Readiness {
    status: u16,
    model: bool,
    state: String,
    error: Option<String>,
}

async fn readiness(service: &Service) -> Readiness {
    let answer = service.ask(Method::GET, "/readyz").send().await.unwrap();
    let status = answer.status().as_u16();
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["database"], true, "{said}");
    assert_eq!(said["disk"], true, "{said}");
    Readiness {
        status,
        model: said["model"].as_bool().unwrap(),
        state: said["model_state"].as_str().unwrap().to_owned(),
        error: said["model_error"].as_str().map(str::to_owned),
    }
}

/// Waits for a state of the network.
async fn becomes(service: &Service, state: &str) -> Readiness {
    eventually(state, || async {
        let told = readiness(service).await;
        (told.state == state).then_some(told)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_until_its_network_is_loaded_says_why_not_and_takes_series_in_meanwhile() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        let pipe = network_behind_a_pipe(&mut service);
        service.up().await;
        let told = readiness(&service).await;
        assert_eq!((told.status, told.model), (503, false));
        assert_eq!((told.state.as_str(), told.error), ("loading", None));
        let folder = tempfile::tempdir().unwrap();
        let stored = service.stow(&thin_phantom(folder.path(), 71), &COMPLETE).await.unwrap();
        assert_eq!(stored.status(), 200);

        write(&pipe, b"another file".to_vec()).await;
        let told = becomes(&service, "failed").await;
        assert_eq!((told.status, told.model), (503, false));
        let why = told.error.unwrap();
        assert!(why.contains(NETWORK) && why.contains("sha256"), "{why}");
        let log = service.log();
        assert!(log.contains("the network cannot be loaded"), "{log}");
        assert_eq!(service.jobs().await, Vec::<Value>::new());
        let series = service.json("/api/v1/series").await.unwrap();
        assert_eq!(series["series"][0]["state"], "settled", "{series}");

        // It is tried again by itself.
        let weights = std::fs::read(networks().join(format!("{NETWORK}.onnx"))).unwrap();
        write(&pipe, weights).await;
        let told = becomes(&service, "ready").await;
        assert_eq!((told.status, told.model, told.error), (200, true, None));
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs[0]["state"], "done", "{}", jobs[0]);
        assert!(service.end(), "{}", service.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_soon_while_its_network_is_loaded() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        network_behind_a_pipe(&mut service);
        service.up().await;
        let told = Instant::now();
        assert!(service.end(), "{}", service.log());
        // A thread that reads cannot be broken off; it is left behind after five seconds.
        assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_process_that_does_not_work_needs_no_network_and_says_so() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.only("receive,deliver");
        network_behind_a_pipe(&mut service);
        service.up().await;
        let told = readiness(&service).await;
        assert_eq!((told.status, told.model), (200, true));
        assert_eq!((told.state.as_str(), told.error), ("not_asked", None));
        assert!(service.end());
    })
    .await;
}

#[tokio::test]
async fn a_manifest_that_is_not_there_ends_the_start() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.with("HILUM_MODEL__NAME", "nowhere/network.toml");
        service.launch();
        assert!(!service.ends_by_itself());
        assert!(service.log().contains("nowhere/network.toml"), "{}", service.log());
    })
    .await;
}
