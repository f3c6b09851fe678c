//! What was sent, and whether the inbox holds it: the rows, and the bytes in the files which they name; and whether there are other files.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use hilum::dicom::{Limits, Source, read_header};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::{Service, eventually, rows};

/// What is known of a slice: SeriesInstanceUID, SOPInstanceUID, digest of its bytes.
pub type Known = (String, String, Vec<u8>);

/// What is known of the slices in these files.
pub fn known(files: &[PathBuf]) -> BTreeSet<Known> {
    let of = |path: &PathBuf| {
        let header = read_header(&Source::of_file(path).unwrap(), &Limits::default());
        let header = header.unwrap().header;
        let digest = Sha256::digest(std::fs::read(path).unwrap()).to_vec();
        (header.series_instance_uid, header.sop_instance_uid, digest)
    };
    files.iter().map(of).collect()
}

/// Every slice that was acknowledged lies in the inbox as it was sent, once, and nothing else is held.
pub async fn nothing_is_lost(url: &str, inbox: &Path, sent: &BTreeSet<Known>) {
    let held = rows(
        url,
        "select series_uid, sop_instance_uid, digest, file, file_offset, file_length
         from instance join series on series.id = series_id join batch on batch.id = batch_id where newest",
    )
    .await;
    let mut found = BTreeSet::new();
    for row in &held {
        let file = File::open(inbox.join(row.get::<String, _>("file"))).unwrap();
        let mut bytes = vec![0; row.get::<i64, _>("file_length") as usize];
        file.read_exact_at(&mut bytes, row.get::<i64, _>("file_offset") as u64)
            .unwrap();
        assert_eq!(Sha256::digest(&bytes).to_vec(), row.get::<Vec<u8>, _>("digest"));
        found.insert((
            row.get::<String, _>("series_uid"),
            row.get::<String, _>("sop_instance_uid"),
            row.get::<Vec<u8>, _>("digest"),
        ));
    }
    assert_eq!(found.len(), held.len(), "nothing is held twice");
    assert!(
        found == *sent,
        "{} are held, {} were acknowledged",
        found.len(),
        sent.len()
    );
}

/// The files are those that the rows name, once a new start has swept.
pub async fn no_file_is_nobodys(url: &str, service: &Service) {
    eventually("no file to be nobody's", || async {
        // What is listed may be swept meanwhile.
        let listed = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
        let jobs = listed(&service.data().join("results"));
        let results: BTreeSet<PathBuf> = jobs
            .flat_map(|job| listed(&job.path()))
            .map(|entry| entry.path())
            .collect();
        let named = rows(
            url,
            "select result_folder from job where result_folder is not null order by 1",
        )
        .await;
        let named: BTreeSet<PathBuf> = named
            .iter()
            .map(|row| service.data().join(row.get::<String, _>(0)))
            .collect();
        let batches = rows(url, "select file from batch").await;
        let batches: BTreeSet<PathBuf> = batches
            .iter()
            .map(|row| service.data().join("inbox").join(row.get::<String, _>(0)))
            .collect();
        let inbox: BTreeSet<PathBuf> = service.inbox_files().into_iter().collect();
        (results == named && inbox == batches).then_some(())
    })
    .await;
}
