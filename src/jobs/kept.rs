//! Where a job keeps what the network made of its series until the job ends: `results/JOB/prediction`, so that a worker that dies afterwards does not cost the network's
//! work again. Written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::database::Claim;

/// The name of the file among the folders of a job's claims.
pub(super) const PREDICTION: &str = "prediction";

/// The folder of a job, which holds one folder for each claim that stored something.
pub(super) fn job_folder(data: &Path, job: Uuid) -> PathBuf {
    data.join("results").join(job.to_string())
}

/// What was kept for a job, if it has this length.
pub(super) fn read(data: &Path, job: Uuid, length: usize) -> Option<Vec<u8>> {
    let file = File::open(job_folder(data, job).join(PREDICTION)).ok()?;
    if file.metadata().ok()?.len() != length as u64 {
        return None;
    }
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Keeps it. It is written in the folder of the claim, which is swept as that is, and moved when it is synced.
///
/// # Errors
/// Those of the file system; nothing is left then.
pub(super) fn write(data: &Path, claim: &Claim, bytes: &[u8]) -> io::Result<()> {
    let job = job_folder(data, claim.id);
    let folder = job.join(claim.token.to_string());
    let path = folder.join(PREDICTION);
    let write = || {
        fs::create_dir_all(&folder)?;
        let mut file = File::create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&path, job.join(PREDICTION))?;
        File::open(&job)?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&path);
    })
}

/// Removes it, if there is one.
pub(super) fn remove(data: &Path, job: Uuid) {
    let _ = fs::remove_file(job_folder(data, job).join(PREDICTION));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::database::JobSpecification;

    #[test]
    fn what_is_kept_is_read_by_its_length_until_it_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let claim = Claim {
            id: Uuid::from_u128(3),
            series_id: 1,
            study_uid: "1.2".into(),
            series_uid: "1.3".into(),
            token: 4,
            attempt: 1,
            alone: false,
            predecessor: None,
            specification: JobSpecification {
                model: "net 1".into(),
                model_digest: "abc".into(),
                parameters_digest: "def".into(),
                pipeline_revision: 1,
            },
        };
        assert_eq!(read(data.path(), claim.id, 3), None);
        write(data.path(), &claim, b"one").unwrap();
        write(data.path(), &claim, b"two").unwrap();
        assert_eq!(read(data.path(), claim.id, 3).as_deref(), Some(&b"two"[..]));
        assert_eq!(read(data.path(), claim.id, 4), None);
        let left: Vec<_> = fs::read_dir(job_folder(data.path(), claim.id).join("4"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "nothing half written is left");
        remove(data.path(), claim.id);
        assert_eq!(read(data.path(), claim.id, 3), None);
    }
}
