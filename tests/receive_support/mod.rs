//! An inbox over a database of a test, and small instances to send to it.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::PathBuf;

use bytes::Bytes;
use hilum::database::Database;
use hilum::dicom::Limits;
use hilum::dicomweb::multipart::{Boundary, Writer};
use hilum::inbox::{InboxSettings, Ingest, IngestError, Origin, Receipt, batch_path};
use sqlx::PgPool;

use crate::ct_file::{EXPLICIT, element, little_endian, meta, picture};

const BOUNDARY: &str = "0a2b5e3c-4d6f-4a8b-9c0d-1e2f3a4b5c6d-0a2b5e3c-4d6f-4a8b-9c0d-1e2f3a4b5c6d";

/// A small object of any modality; the seed changes its pixels.
pub(crate) fn object(study: &str, series: &str, sop: &str, modality: &str, class: &str, seed: i16) -> Vec<u8> {
    let mut pixels = picture(16, 16);
    pixels[0] = seed;
    with_pixels([study, series, sop, modality, class], 16, &pixels)
}

/// A CT slice of half a megabyte.
pub(crate) fn large_ct(study: &str, series: &str, sop: &str) -> Vec<u8> {
    let uids = [study, series, sop, "CT", "1.2.840.10008.5.1.4.1.1.2"];
    with_pixels(uids, 512, &picture(512, 512))
}

fn with_pixels([study, series, sop, modality, class]: [&str; 5], side: u16, pixels: &[i16]) -> Vec<u8> {
    let short = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
    [
        meta(EXPLICIT),
        element((8, 0x16), "UI", class.as_bytes()),
        element((8, 0x18), "UI", sop.as_bytes()),
        element((8, 0x50), "SH", b"A1"),
        element((8, 0x60), "CS", modality.as_bytes()),
        element((0x10, 0x10), "PN", b"Phantom"),
        element((0x10, 0x20), "LO", b"P1"),
        element((0x20, 0x0D), "UI", study.as_bytes()),
        element((0x20, 0x0E), "UI", series.as_bytes()),
        short((0x28, 0x10), side),
        short((0x28, 0x11), side),
        short((0x28, 0x100), 16),
        element((0x7FE0, 0x10), "OW", &little_endian(pixels)),
    ]
    .concat()
}

/// A small CT slice.
pub(crate) fn ct(study: &str, series: &str, sop: &str, seed: i16) -> Vec<u8> {
    object(study, series, sop, "CT", "1.2.840.10008.5.1.4.1.1.2", seed)
}

/// A body as Orthanc sends it.
pub(crate) fn multipart<P: AsRef<[u8]>>(parts: &[P]) -> Bytes {
    let mut body = Vec::new();
    for part in parts {
        let part = part.as_ref();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Type: application/dicom\r\nContent-Length: {}\r\n\r\n",
            part.len()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--").as_bytes());
    body.into()
}

/// The Content-Type of such a body.
pub(crate) fn content_type() -> String {
    format!("multipart/related; type=\"application/dicom\"; boundary={BOUNDARY}")
}

/// Settings for small inboxes.
pub(crate) fn settings() -> InboxSettings {
    let mut settings = hilum::config::Settings::load(None).unwrap().inbox;
    (settings.disk_reserve_bytes, settings.disk_watermark) = (0, 1.0);
    settings
}

/// A sender that says that its series are whole.
pub(crate) fn whole() -> Origin {
    Origin {
        actor: "test".into(),
        complete: true,
        ..Origin::default()
    }
}

/// An inbox in a folder of its own.
pub(crate) struct Place {
    pub(crate) ingest: Ingest,
    pub(crate) database: Database,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) pool: PgPool,
}

impl Place {
    pub(crate) async fn new(database: Database, url: &str) -> Place {
        Place::with(database, url, settings()).await
    }

    pub(crate) async fn with(database: Database, url: &str, settings: InboxSettings) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let inbox = folder.path().join("inbox");
        let ingest = Ingest::open(database.clone(), &inbox, settings, Limits::default()).unwrap();
        Place {
            ingest,
            database,
            folder,
            pool: PgPool::connect_lazy(url).unwrap(),
        }
    }

    pub(crate) fn boundary(&self) -> Boundary {
        Boundary::of_content_type(&content_type()).unwrap()
    }

    pub(crate) async fn receive<P: AsRef<[u8]>>(&self, parts: &[P]) -> Result<Receipt, IngestError> {
        let origin = Origin {
            actor: "test".into(),
            ..Origin::default()
        };
        self.receive_from(parts, &origin).await
    }

    pub(crate) async fn receive_from<P: AsRef<[u8]>>(
        &self,
        parts: &[P],
        origin: &Origin,
    ) -> Result<Receipt, IngestError> {
        let body = multipart(parts);
        let chunks: Vec<Result<Bytes, String>> = (0..body.len())
            .step_by(777)
            .map(|at| Ok(body.slice(at..body.len().min(at + 777))))
            .collect();
        self.ingest
            .receive(&self.boundary(), futures_util::stream::iter(chunks), origin)
            .await
    }

    pub(crate) async fn receive_body(&self, body: &[u8]) -> Result<Receipt, IngestError> {
        let body = futures_util::stream::iter([Ok::<_, String>(Bytes::copy_from_slice(body))]);
        self.ingest.receive(&self.boundary(), body, &Origin::default()).await
    }

    /// The bytes of the newest instances of a series, by UID, as they lie in the inbox.
    pub(crate) async fn bytes_of(&self, series_id: i64) -> Vec<Vec<u8>> {
        let held = self.database.held_instances(series_id).await.unwrap();
        held.iter()
            .map(|one| {
                let file = std::fs::read(batch_path(self.ingest.folder(), one.file.as_ref().unwrap())).unwrap();
                let offset = one.offset as usize;
                file[offset..offset + one.length as usize].to_vec()
            })
            .collect()
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.ingest.folder()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn text(&self, sql: &'static str) -> String {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn events(&self, kind: &str) -> i64 {
        sqlx::query_scalar("select count(*) from event where kind = $1")
            .bind(kind)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// A body by the writer of the crate.
pub(crate) fn written<P: AsRef<[u8]>>(parts: &[P]) -> (String, Bytes) {
    let writer = Writer::new();
    (writer.content_type(), writer.whole(parts))
}
