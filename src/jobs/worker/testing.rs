//! What the tests of the worker begin with.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Core, JobSettings, Worker};
use crate::database::testing::scratch;
use crate::database::{Claim, Database};
use crate::dicom::{DecodeOptions, FrameReader, Limits, Source, read_header};
use crate::lungs::MaskLimits;
use crate::model::{Device, Manifest, Session, SessionOptions, find_library};
use crate::phantom::{Specification, chest, dicom_series};
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
    // The digest of nothing.
    sqlx::query("insert into series (study_uid, series_uid, state, revision, settled_at) values ('1.2', '1.3', 'settled', sha256(''), now())")
        .execute(database.pool())
        .await
        .unwrap();
    database.make_job(&worker.core.specification()).await.unwrap().unwrap();
    database.claim_job(&worker.name, 60.0, true).await.unwrap().unwrap()
}

/// The queued job of a small chest, whose slices lie in the inbox.
pub(super) async fn phantom_queued(worker: &Worker, data: &Path, seed: u64) -> Uuid {
    let specification = Specification::small(seed);
    let files = dicom_series(&chest(&specification).unwrap(), &specification).unwrap();
    let inbox = data.join("inbox");
    std::fs::create_dir_all(&inbox).unwrap();
    let mut slices = Vec::new();
    for (name, bytes) in files {
        let file = format!("{seed}-{name}");
        let path = inbox.join(&file);
        std::fs::write(&path, &bytes).unwrap();
        let (offset, length) = (0, bytes.len() as u64);
        let source = Source {
            path: path.as_path().into(),
            offset,
            length,
        };
        let header = read_header(&source, &Limits::default()).unwrap().header;
        slices.push((
            header.sop_instance_uid.clone(),
            Sha256::digest(&bytes).to_vec(),
            (file, length),
            header,
        ));
    }
    slices.sort_by(|one, other| one.0.cmp(&other.0));
    let mut revision = Sha256::new();
    for (uid, digest, ..) in &slices {
        revision.update(uid);
        revision.update([0]);
        revision.update(digest);
    }
    let pool = worker.database.pool();
    let header = &slices[0].3;
    let series: i64 = sqlx::query_scalar(
        "insert into series (study_uid, series_uid, state, revision, settled_at) values ($1, $2, 'settled', $3, now()) returning id",
    )
    .bind(&header.study_instance_uid)
    .bind(&header.series_instance_uid)
    .bind(revision.finalize().to_vec())
    .fetch_one(pool)
    .await
    .unwrap();
    for (uid, digest, (file, length), _) in &slices {
        sqlx::query(
            "with made as (insert into batch (file, bytes) values ($1, $2) returning id)
             insert into instance (series_id, sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, batch_id, file_offset, file_length)
             select $3, $4, $5, '', '', id, 0, $2 from made",
        )
        .bind(file)
        .bind(i64::try_from(*length).unwrap())
        .bind(series)
        .bind(uid)
        .bind(digest)
        .execute(pool)
        .await
        .unwrap();
    }
    let made = worker.database.make_job(&worker.core.specification()).await.unwrap();
    made.unwrap().id
}
