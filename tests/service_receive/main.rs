//! Instances come in by STOW-RS: what is answered, which rows there are, and which bytes lie in the inbox, against a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod holding;
mod room;
mod settling;
mod walks;
#[path = "../ct_file/mod.rs"]
mod ct_file;
#[path = "../receive_support/mod.rs"]
mod receive_support;

use hilum::database::testing::scratch;
use hilum::database::{PlannedDelivery, SeriesState, Stored};
use hilum::dicom::Limits;
use hilum::inbox::{Ingest, IngestError, Origin, Outcome};
use receive_support::{Place, ct, large_ct, multipart, object, settings, whole};

const STUDY: &str = "1.2.3";
const SERIES: &str = "1.2.3.5";

fn slices(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| ct(STUDY, SERIES, &format!("1.2.4.{n}"), 0))
        .collect()
}
