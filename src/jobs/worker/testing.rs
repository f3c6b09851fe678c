//! What the tests of the worker begin with.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Core, JobSettings, Worker};
use crate::database::testing::scratch;
use crate::database::{Claim, Database};
use crate::dicom::{DecodeOptions, FrameReader};
use crate::lungs::MaskLimits;
use crate::model::{Device, Manifest, Session, SessionOptions, find_library};
use crate::segment::{OutputSettings, Settings};
use crate::series::SeriesLimits;

/// A worker whose network is never asked. `None`, and said: ONNX Runtime's library is missing.
pub(super) fn worker(database: &Database, data: &Path) -> Option<Worker> {
    let library = match find_library(None) {
        Ok(library) => library,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("skipped: {error}");
            return None;
        }
    };
    let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/networks/position.toml");
    let manifest = Manifest::load(&network).unwrap();
    let options = SessionOptions {
        device: Device::Cpu,
        runtime_library: Some(library),
        threads: Some(1),
        ..SessionOptions::default()
    };
    let session = Session::open(&manifest, &options).unwrap();
    let settings = Settings {
        series: SeriesLimits::default(),
        mask: MaskLimits::default(),
        output: OutputSettings::default(),
        further_profiles: Vec::new(),
    };
    let reader = FrameReader::new(DecodeOptions::default());
    let core = Core::new(manifest, session, reader, settings, data.to_owned(), data.join("inbox"));
    let (core, name) = (Arc::new(core), "w".to_owned());
    Some(Worker::new(database.clone(), core, JobSettings::defaults(), name))
}

/// Runs a test with a worker over a database of its own, and its data folder.
pub(super) async fn with_worker<F: Future<Output = ()>>(test: impl FnOnce(Worker, PathBuf) -> F) {
    scratch(|database, _| async move {
        let data = tempfile::tempdir().unwrap();
        if let Some(worker) = worker(&database, data.path()) {
            test(worker, data.path().to_owned()).await;
        }
    })
    .await;
}

/// A claimed job of a series without slices.
pub(super) async fn claimed(worker: &Worker) -> Claim {
    let database = &worker.database;
    sqlx::query("insert into series (study_uid, series_uid, state, revision, settled_at) values ('1.2', '1.3', 'settled', 'a', now())")
        .execute(database.pool())
        .await
        .unwrap();
    database.make_job(&worker.core.specification()).await.unwrap().unwrap();
    database.claim_job(&worker.name, 60.0, true).await.unwrap().unwrap()
}
