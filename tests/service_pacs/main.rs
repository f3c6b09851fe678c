//! What Hilum does with a PACS: results delivered and believed only when they are seen, series found and fetched. Against a server with the quirks of others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificates;
mod delivering;
mod fetching;
mod marks;
#[path = "../quirk_server/mod.rs"]
mod quirk_server;
mod wished;
mod slow;

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hilum::config::Settings;
use hilum::database::testing::scratch;
use hilum::database::{
    Claim, Database, JobEnd, JobSpecification, ListedSeries, Operated, PlannedDelivery, withdraw_deliveries,
};
use hilum::delivery::{self, DeliveryError, DeliverySettings};
use hilum::dicom::Limits;
use hilum::dicom::write_ct::{CtAttribute, CtCoding, CtImage, CtValue, write_ct};
use hilum::dicomweb::{Client, Pacs, SeriesFilters};
use hilum::inbox::{InboxSettings, Ingest, poller};
use quirk_server::{QuirkServer, Served, Stow, Wado};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const STUDY: &str = "1.2.3";
const SERIES: &str = "1.2.3.4";
const RESULT_SERIES: &str = "2.25.8";
const RESULT: &str = "2.25.9";

fn instance(study: &str, series: &str, sop: &str) -> Vec<u8> {
    let text = |group, element, vr: &[u8; 2], value: &str| -> CtAttribute {
        ((group, element), *vr, CtValue::Text(value.into()))
    };
    let attributes = [
        text(0x0008, 0x0016, b"UI", "1.2.840.10008.5.1.4.1.1.2"),
        text(0x0008, 0x0018, b"UI", sop),
        text(0x0008, 0x0060, b"CS", "CT"),
        text(0x0020, 0x000D, b"UI", study),
        text(0x0020, 0x000E, b"UI", series),
    ];
    let image = CtImage {
        attributes: &attributes,
        sop_instance_uid: sop,
        rows: 2,
        columns: 2,
        bits_stored: 16,
        signed: true,
        stored: &[0; 4],
    };
    write_ct(&image, CtCoding::ExplicitLittleEndian).unwrap()
}

fn served(study: &str, series: &str, count: usize) -> Served {
    let instances = (0..count).map(|at| {
        let sop = format!("{series}.{}", at + 1);
        let bytes = instance(study, series, &sop);
        (sop, bytes)
    });
    Served {
        study: study.into(),
        series: series.into(),
        modality: "CT",
        manufacturer: None,
        instances: instances.collect(),
        tells_count: true,
        metadata: json!({}),
    }
}

fn pacs(url: &str, more: &str) -> Pacs {
    toml::from_str(&format!(
        "name = \"one\"\nurl = {url:?}\npoll_interval_seconds = 1\ntimeout_seconds = 20\n{more}"
    ))
    .unwrap()
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

async fn text(pool: &PgPool, sql: &str) -> String {
    let found: Option<Option<String>> = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_optional(pool)
        .await
        .unwrap();
    found.flatten().unwrap_or_default()
}

async fn number(pool: &PgPool, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(pool)
        .await
        .unwrap()
}
