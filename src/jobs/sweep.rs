//! Folders of results that no job has or can get any more, removed: what workers left that were killed, or froze, between storing results and saying so; and what the network
//! made for jobs that are over.
//!
//! Folders of jobs that the database does not know are left alone: they may be another database's.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::JobError;
use super::kept::PREDICTION;
use super::worker::on_thread;
use crate::database::{Database, ResultClaim};

/// Jobs of one question to the database.
const AT_ONCE: usize = 1000;

/// The folder that one claim of a job stored its results in, or the file that the job keeps the network's answer in.
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    job: Uuid,
    /// The claim's; `None`: the file.
    token: Option<i64>,
    path: PathBuf,
}

/// Removes them, and returns how many there were. What a claim stores while this runs is not touched: a row that is read after a folder was seen tells whether
/// its claim was over by then.
///
/// # Errors
/// Those of the database and of the folder.
pub(super) async fn sweep(database: &Database, data: &Path) -> Result<usize, JobError> {
    let results = data.join("results");
    let mut seen = on_thread(move || stored_under(&results)).await?;
    let mut removed = 0;
    while !seen.is_empty() {
        let some: Vec<Stored> = seen.split_off(seen.len().saturating_sub(AT_ONCE));
        let jobs: Vec<Uuid> = some.iter().map(|stored| stored.job).collect();
        let claims = database.result_claims(&jobs).await?;
        removed += on_thread(move || Ok(remove(&garbage(some, claims)))).await?;
    }
    Ok(removed)
}

/// `results/JOB/TOKEN` for every claim that stored something, and `results/JOB/prediction`.
fn stored_under(results: &Path) -> Result<Vec<Stored>, JobError> {
    let failed = |path: &Path, error| JobError::file(path, &error);
    let mut found = Vec::new();
    let jobs = match fs::read_dir(results) {
        Ok(jobs) => jobs,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(results, error)),
    };
    for job in jobs {
        let job = job.map_err(|error| failed(results, error))?;
        let Some(id) = job.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that is gone by now was removed by its worker.
        let Ok(claims) = fs::read_dir(job.path()) else { continue };
        for claim in claims.flatten() {
            let name = claim.file_name();
            let token = name.to_str().and_then(|name| name.parse().ok());
            if token.is_some() || name == PREDICTION {
                found.push(Stored {
                    job: id,
                    token,
                    path: claim.path(),
                });
            }
        }
    }
    Ok(found)
}

/// Those that are of no use to their jobs.
fn garbage(stored: Vec<Stored>, claims: Vec<ResultClaim>) -> Vec<PathBuf> {
    let claims: HashMap<Uuid, ResultClaim> = claims.into_iter().map(|claim| (claim.job, claim)).collect();
    stored
        .into_iter()
        .filter(|stored| claims.get(&stored.job).is_some_and(|claim| is_over(claim, stored)))
        .map(|stored| stored.path)
        .collect()
}

/// Whether this folder is not the job's and never will be: tokens only grow, and a job ends with the token of the claim that ended it. The network's answer is for the attempts
/// that may come; should a job that is over be tried again meanwhile, the network runs again.
fn is_over(claim: &ResultClaim, stored: &Stored) -> bool {
    let Some(token) = stored.token else {
        return claim.over;
    };
    let is_result = claim
        .result_folder
        .as_deref()
        .is_some_and(|folder| stored.path.ends_with(folder));
    let may_become = claim.running && token == claim.token || token > claim.token;
    !is_result && !may_become
}

fn remove(folders: &[PathBuf]) -> usize {
    let mut removed = 0;
    for folder in folders {
        let gone = if folder.ends_with(PREDICTION) {
            fs::remove_file(folder)
        } else {
            fs::remove_dir_all(folder)
        };
        match gone {
            Ok(()) => removed += 1,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "results that no job has could not be removed")
            }
        }
        if let Some(job) = folder.parent() {
            // Only where nothing is left in it.
            let _ = fs::remove_dir(job);
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn kept(claim: &ResultClaim, tokens: std::ops::RangeInclusive<i64>) -> Vec<i64> {
        let stored = |token| Stored {
            job: claim.job,
            token: Some(token),
            path: format!("/data/results/{}/{token}", claim.job).into(),
        };
        tokens.filter(|token| !is_over(claim, &stored(*token))).collect()
    }

    #[test]
    fn a_job_keeps_its_result_and_what_its_present_claim_may_bring() {
        let job = Uuid::from_u128(7);
        let mut claim = ResultClaim {
            job,
            token: 3,
            running: true,
            over: false,
            result_folder: None,
        };
        assert_eq!(
            kept(&claim, 1..=5),
            [3, 4, 5],
            "a folder newer than the row is not judged by it"
        );
        claim.running = false;
        assert_eq!(
            kept(&claim, 1..=3),
            [0_i64; 0],
            "failed, canceled, queued or superseded"
        );
        claim.result_folder = Some(format!("results/{job}/3"));
        assert_eq!(kept(&claim, 1..=3), [3]);
    }

    #[test]
    fn the_answer_of_the_network_is_kept_until_the_job_is_over() {
        let data = tempfile::tempdir().unwrap();
        let job = Uuid::from_u128(9);
        let path = data.path().join(format!("results/{job}/{PREDICTION}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "kept").unwrap();
        let seen = || stored_under(&data.path().join("results")).unwrap();
        let mut claim = ResultClaim {
            job,
            token: 3,
            running: false,
            over: false,
            result_folder: None,
        };
        assert!(garbage(seen(), vec![claim.clone()]).is_empty(), "it is queued again");
        claim.over = true;
        assert_eq!(remove(&garbage(seen(), vec![claim])), 1);
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn only_folders_of_claims_are_seen_and_unknown_jobs_are_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let results = data.path().join("results");
        assert!(stored_under(&results).unwrap().is_empty());
        let (known, unknown) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for folder in [
            format!("{known}/1"),
            format!("{known}/x"),
            format!("{unknown}/1"),
            "no job/1".into(),
        ] {
            fs::create_dir_all(results.join(folder)).unwrap();
        }
        let stored = stored_under(&results).unwrap();
        assert_eq!(stored.len(), 2, "{stored:?}");
        let claim = ResultClaim {
            job: known,
            token: 2,
            running: true,
            over: false,
            result_folder: None,
        };
        let garbage = garbage(stored, vec![claim]);
        assert_eq!(garbage, [results.join(format!("{known}/1"))]);
        assert_eq!(remove(&garbage), 1);
        assert!(!garbage[0].exists() && results.join(format!("{known}/x")).exists());
    }
}
