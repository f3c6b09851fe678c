//! One series through the core: the slices of a claim in, a folder of results out. No database, no clock; runs on a thread of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::error::JobError;
use super::{figures, kept};
use crate::database::{Claim, JobEnd, JobSpecification, StoredSlice, failpoint};
use crate::dicom::{FrameReader, Limits, Source, read_header};
use crate::inbox::batch_path;
use crate::lungs::MaskLimits;
use crate::model::{CancelFlag, Manifest, ModelError, Predictor as _, Provider, Session, Windows, hex};
use crate::segment::{
    self, Observer, PIPELINE_REVISION, Predicted, PredictionKey, Preparation, Prepared, SegmentError, Segmented, Tools,
};
use crate::series::{Judgement, Outcome, Series, SeriesLimits, estimated_memory_bytes, judge};

/// While another job has the session, a waiting one looks so often whether it has it still, and whether it was stopped itself.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What every job is worked on with. The session is one; everything else may be used by several jobs at once.
pub struct Core {
    manifest: Manifest,
    session: Mutex<Session>,
    provider: Provider,
    reader: FrameReader,
    settings: segment::Settings,
    limits: Limits,
    inbox: PathBuf,
    data: PathBuf,
    /// Canceled when the session is found to answer nothing any more.
    lost: CancellationToken,
}

impl Core {
    /// `data` is the data folder, `inbox` the folder of batch files.
    #[must_use]
    pub fn new(
        manifest: Manifest,
        session: Session,
        reader: FrameReader,
        settings: segment::Settings,
        data: PathBuf,
        inbox: PathBuf,
    ) -> Core {
        let provider = session.provider();
        Core {
            manifest,
            session: Mutex::new(session),
            provider,
            reader,
            settings,
            limits: Limits::default(),
            inbox,
            data,
            lost: CancellationToken::new(),
        }
    }

    /// Canceled once the session answers nothing any more: no job can be worked on with this value.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The data folder.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// What makes a job of this process the same as another.
    #[must_use]
    pub fn specification(&self) -> JobSpecification {
        specification(&self.manifest, &self.settings.series, &self.settings.mask)
    }

    /// The series of a claim, from the headers of its slices.
    ///
    /// # Errors
    /// A slice that is not where it should be, or cannot be read.
    pub fn series(&self, claim: &Claim, slices: &[StoredSlice]) -> Result<Series, JobError> {
        let instances = slices
            .iter()
            .map(|slice| {
                let path = batch_path(&self.inbox, &slice.file);
                let source = Source {
                    path: path.as_path().into(),
                    offset: u64::try_from(slice.file_offset).unwrap_or_default(),
                    length: u64::try_from(slice.file_length).unwrap_or_default(),
                };
                read_header(&source, &self.limits).map_err(|error| JobError::World(error.to_string()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Series {
            study_instance_uid: claim.study_uid.clone(),
            series_instance_uid: claim.series_uid.clone(),
            instances,
            unreadable: Vec::new(),
        })
    }

    /// Bytes that a series will need, by its headers; 0 for one that will be refused by them.
    #[must_use]
    pub fn memory_bytes(&self, series: &Series) -> u64 {
        match judge(series, &self.settings.series) {
            Judgement::Refused(_) => 0,
            Judgement::Usable(candidate) => estimated_memory_bytes(candidate.stack(), self.manifest.grid.spacing_mm),
        }
    }

    /// Reads, segments and stores. While the network works for one job, another may read and resample.
    ///
    /// # Errors
    /// As [`JobError`] tells them apart.
    pub fn work(
        &self,
        claim: &Claim,
        series: &Series,
        observer: &dyn Observer,
        cancel: &CancelFlag,
    ) -> Result<JobEnd, JobError> {
        let tools = Tools {
            reader: &self.reader,
            manifest: &self.manifest,
            settings: &self.settings,
            observer,
            cancel,
        };
        let segmented = match segment::prepare(series, &tools)? {
            Preparation::Refused(verdict) => segment::refused(series, verdict, &tools)?,
            Preparation::Ready(prepared) => {
                failpoint("job_prepared");
                let predicted = self.predicted(claim, prepared, &tools)?;
                failpoint("job_predicted");
                segment::finish(series, predicted, &self.provider, &tools)?
            }
        };
        failpoint("job_finished");
        figures::record(&segmented.report.timings, segmented.report.windows);
        let segmented = with_predecessor(segmented, claim)?;
        let folder = self.store(claim, &segmented)?;
        failpoint("job_stored");
        end(&segmented, folder)
    }

    /// What the network makes of a series: what an earlier attempt kept, where that is sound and of the same input and network; else the network runs, and it is kept.
    fn predicted(&self, claim: &Claim, mut prepared: Box<Prepared>, tools: &Tools) -> Result<Predicted, JobError> {
        let key = PredictionKey::of(&prepared, &self.provider, tools);
        if let Some(key) = &key
            && let Some(bytes) = kept::read(&self.data, claim.id, key.kept_bytes())
        {
            match segment::resume(prepared, key, &bytes, tools) {
                Ok(predicted) => {
                    info!("job {}: the network had run in an earlier attempt", claim.id);
                    return Ok(predicted);
                }
                Err(unused) => prepared = unused,
            }
        }
        let predicted = {
            let mut session = self.session(tools.cancel).ok_or(JobError::Stopped)?;
            segment::predict(*prepared, &mut *session, tools).inspect_err(|failure| {
                if is_of_the_session(failure) && !self.answers(&mut session, tools.cancel) {
                    self.lost.cancel();
                }
            })?
        };
        // Without it only another attempt takes longer.
        if let Some(key) = &key
            && let Err(error) = kept::write(&self.data, claim, &predicted.to_bytes(key))
        {
            warn!("job {}: what the network made cannot be kept: {error}", claim.id);
        }
        Ok(predicted)
    }

    /// Whether the session still answers an empty window, after an error that may have been its end: a lost GPU fails at this as at everything.
    fn answers(&self, session: &mut Session, cancel: &CancelFlag) -> bool {
        let values = vec![0.0; self.manifest.windows.roi.iter().product()];
        let asked = session.submit(Windows { values, count: 1 });
        let answered = asked.and_then(|()| session.receive(cancel)).map_err(SegmentError::from);
        session.abandon();
        !answered.is_err_and(|failure| is_of_the_session(&failure))
    }

    /// The session, once no other job has it; `None`: this one was stopped while it waited.
    pub(super) fn session(&self, cancel: &CancelFlag) -> Option<MutexGuard<'_, Session>> {
        loop {
            if cancel.is_canceled() {
                return None;
            }
            match self.session.try_lock() {
                Ok(session) => return Some(session),
                // A session that a panic left behind answers with an error of its own if it is not whole.
                Err(TryLockError::Poisoned(left)) => return Some(left.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Writes the results under (job, token), synced, and returns the folder relative to the data folder.
    fn store(&self, claim: &Claim, segmented: &Segmented) -> Result<String, JobError> {
        let name = format!("results/{}/{}", claim.id, claim.token);
        let folder = self.data.join(&name);
        fs::create_dir_all(&folder).map_err(|error| JobError::file(&folder, &error))?;
        for artifact in &segmented.artifacts {
            let path = folder.join(artifact.name);
            let write = || -> std::io::Result<()> {
                let mut file = File::create(&path)?;
                file.write_all(&artifact.bytes)?;
                file.sync_all()
            };
            write().map_err(|error| JobError::file(&path, &error))?;
        }
        for made in [
            Some(folder.as_path()),
            folder.parent(),
            folder.parent().and_then(Path::parent),
        ]
        .into_iter()
        .flatten()
        {
            File::open(made)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| JobError::file(made, &error))?;
        }
        Ok(name)
    }

    /// Removes what this claim and the ones before it stored for a job, but for the folder that its row names; and what the network made of it, where the job is `over`.
    pub fn forget(&self, claim: &Claim, but: Option<&str>, over: bool) {
        if over {
            kept::remove(&self.data, claim.id);
        }
        let job = kept::job_folder(&self.data, claim.id);
        let Ok(entries) = fs::read_dir(&job) else { return };
        for entry in entries.flatten() {
            let Some(token) = entry.file_name().to_str().and_then(|name| name.parse::<i64>().ok()) else {
                continue;
            };
            let name = format!("results/{}/{token}", claim.id);
            if token <= claim.token && but != Some(name.as_str()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        // Only where nothing is left in it.
        let _ = fs::remove_dir(&job);
    }
}

/// Whether the session itself may be at its end.
fn is_of_the_session(failure: &SegmentError) -> bool {
    matches!(
        failure,
        SegmentError::Model(ModelError::Runtime(_) | ModelError::SessionLost)
    )
}

/// What makes a job with this network and these limits the same as another. The manifest tells the network, so a process that does not load it knows it as well. How much
/// memory there is changes no result, and differs from machine to machine: it does not count.
#[must_use]
pub fn specification(manifest: &Manifest, series: &SeriesLimits, mask: &MaskLimits) -> JobSpecification {
    let series = SeriesLimits {
        max_memory_bytes: 0,
        ..series.clone()
    };
    // Only a map with keys that are not text could fail: there is none. An empty text would still be a fixed value.
    let parameters = serde_json::to_vec(&(manifest.parameters(), series, mask)).unwrap_or_default();
    JobSpecification {
        model: format!("{} {}", manifest.name, manifest.version),
        model_digest: manifest.weights_sha256.clone(),
        parameters_digest: hex(&Sha256::digest(&parameters)),
        pipeline_revision: i32::try_from(PIPELINE_REVISION).unwrap_or(i32::MAX),
    }
}

/// The same, its report naming the job that this one follows.
fn with_predecessor(mut segmented: Segmented, claim: &Claim) -> Result<Segmented, JobError> {
    if let Some(predecessor) = claim.predecessor {
        segmented
            .name_predecessor(predecessor.to_string())
            .map_err(SegmentError::from)?;
    }
    Ok(segmented)
}

/// What the row of the job says in the end.
fn end(segmented: &Segmented, result_folder: String) -> Result<JobEnd, JobError> {
    let report = serde_json::to_value(&segmented.report).map_err(|error| JobError::Ours {
        code: "internal",
        sentence: error.to_string(),
    })?;
    if segmented.report.verdict.outcome == Outcome::Refused {
        let finding = segmented.report.verdict.findings.first();
        return Ok(JobEnd::Refused {
            report,
            result_folder,
            code: finding.map_or_else(|| "refused".to_owned(), |finding| finding.code.to_string()),
            sentence: finding.map_or_else(String::new, |finding| finding.sentence.clone()),
        });
    }
    Ok(JobEnd::Done {
        segmentation_uid: segmented.segmentation_uid().map(str::to_owned),
        report,
        result_folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_result_makes_another_job_and_what_a_machine_has_does_not() {
        let text = include_str!("../../onnx/hilum-ahnet-lung-tiny.toml");
        let manifest: Manifest = toml::from_str(text).unwrap();
        let (series, mask) = (SeriesLimits::default(), MaskLimits::default());
        let usual = specification(&manifest, &series, &mask);
        assert_eq!(usual, specification(&manifest, &series, &mask));
        let more_memory = SeriesLimits {
            max_memory_bytes: 2 * series.max_memory_bytes,
            ..series.clone()
        };
        assert_eq!(usual, specification(&manifest, &more_memory, &mask));
        let wider = SeriesLimits {
            max_hole_mm: 20.0,
            ..series.clone()
        };
        let surer = MaskLimits {
            sides_confidence: 0.9,
            ..mask.clone()
        };
        let mut higher = manifest.clone();
        higher.output.threshold += 0.1;
        let others = [
            specification(&manifest, &wider, &mask),
            specification(&manifest, &series, &surer),
            specification(&higher, &series, &mask),
        ];
        for other in others {
            assert_eq!(other.model_digest, usual.model_digest);
            assert_ne!(other.parameters_digest, usual.parameters_digest);
        }
    }
}
