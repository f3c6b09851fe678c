//! What the tests of the whole service share: a real Orthanc, the real program, and questions to both. Everything listens on loopback and is ended by its process id.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

pub mod held;
pub mod orthanc;
pub mod service;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use orthanc::Orthanc;
pub use service::Service;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};

/// A port that was free a moment ago, and that nobody gets by chance until the server which it is for listens: the system takes the ports of outgoing
/// connections, and of those who ask it for any port, from a range of its own, so one outside of it is chosen, at random, since other tests choose as well.
pub fn free_port() -> u16 {
    static CHOSEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let range: Vec<u16> = range.split_whitespace().map(|port| port.parse().unwrap()).collect();
    let outside: Vec<u16> = (10_000..=u16::MAX)
        .filter(|port| !(range[0]..=range[1]).contains(port))
        .collect();
    assert!(
        outside.len() > 1000,
        "ip_local_port_range {range:?} leaves too few ports"
    );
    loop {
        let port = outside[rand::random_range(0..outside.len())];
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && CHOSEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// A random word for a password.
pub fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A small phantom chest as DICOM slices; another seed is another patient.
pub fn phantom(folder: &Path, seed: u32, more: &[&str]) -> Vec<PathBuf> {
    let done = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(["phantom", "--small", "--seed", &seed.to_string(), "--out"])
        .arg(folder)
        .args(more)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    files(&folder.join("ct"))
}

/// A part of a chest of 12 slices, for tests that need many jobs: each is over in a second or two.
pub fn thin_phantom(folder: &Path, seed: u32) -> Vec<PathBuf> {
    phantom(folder, seed, &["--slices", "12"])
}

/// The files of a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Asks again and again until there is an answer; fails, with what was waited for, when it takes too long.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the tests with a PACS need of the machine; says so where it is missing.
pub fn ready() -> bool {
    ready_without_pacs() && ready_pacs()
}

/// What the tests of an Orthanc alone need.
pub fn ready_pacs() -> bool {
    let _ = rustls::crypto::ring::default_provider().install_default();
    is_there(orthanc::program().is_some(), "Orthanc is not installed")
        && is_there(orthanc::loopback().is_file(), ".runtime/loopback.so is not built")
}

/// What the others need.
pub fn ready_without_pacs() -> bool {
    // The clients of the tests speak no TLS, and still want to be told whose it would be.
    let _ = rustls::crypto::ring::default_provider().install_default();
    is_there(
        std::env::var_os("HILUM_TEST_DATABASE_URL").is_some(),
        "HILUM_TEST_DATABASE_URL is not set",
    )
}

/// Whether what a test needs is there; says so where it is missing.
///
/// # Panics
/// Where it is missing and `CI` is set: there a test is not skipped.
pub fn is_there(there: bool, missing: &str) -> bool {
    if !there {
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        println!("skipped: {missing} (make test sets up what is missing)");
    }
    there
}

/// What Orthanc's rule says with a series: who sends, and that it is whole.
pub const WHOLE: [(&str, &str); 2] = [("X-Hilum-Series-Complete", "true"), ("X-Hilum-Source", "orthanc")];

/// A service over this database beside an Orthanc, both up. With `forwards`, our rule sends every stable CT series to it; `more` is added to the `[[pacs]]` block.
pub async fn both(database_url: &str, forwards: bool, more: &str) -> (Service, Orthanc) {
    let (mut service, orthanc) = apart(database_url, forwards, more).await;
    service.up().await;
    (service, orthanc)
}

/// The same, of which Orthanc alone is up.
pub async fn apart(database_url: &str, forwards: bool, more: &str) -> (Service, Orthanc) {
    let service = Service::new(Some(database_url));
    let forward = orthanc::Forward {
        port: service.port,
        user: "orthanc".into(),
        password: "unused on loopback".into(),
    };
    let orthanc = Orthanc::start(forwards.then_some(&forward)).await;
    service.beside(&orthanc, more);
    (service, orthanc)
}

/// What a database answers.
pub async fn rows(database_url: &str, statement: &'static str) -> Vec<PgRow> {
    let mut connection = PgConnection::connect(database_url).await.unwrap();
    sqlx::query(statement).fetch_all(&mut connection).await.unwrap()
}

/// The number in its only row.
pub async fn count(database_url: &str, statement: &'static str) -> i64 {
    rows(database_url, statement).await[0].get(0)
}

/// The texts in the first column of its rows.
pub async fn column(database_url: &str, statement: &'static str) -> Vec<String> {
    let rows = rows(database_url, statement).await;
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits for so many segmentations in an Orthanc: their studies and SOP Instance UIDs.
pub async fn segmentations(orthanc: &Orthanc, number: usize) -> Vec<(String, String)> {
    eventually(&format!("{number} segmentations in Orthanc"), || async {
        let found = orthanc.segmentations().await;
        (found.len() >= number).then_some(found)
    })
    .await
}
