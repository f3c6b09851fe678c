//! The way of a series in three steps: `prepare` reads it and brings it onto the network's grid, `predict` runs the network, `finish` brings the mask back, measures and
//! judges it, and makes what a user keeps. `segment` chains them. The command line calls only this.
//!
//! The steps are apart so that the next series can be prepared while the network works on the present one. Nothing here opens or writes a file: frames come from the reader that is
//! handed in, and results are bytes.

mod finish;
mod kept;
mod prepare;
mod settings;

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::dicom::{FrameReader, PixelError};
use crate::lungs::LungsError;
use crate::model::{CancelFlag, Manifest, ModelError, Predictor, Provider, slide};
use crate::output::report::StageSeconds;
use crate::output::{OutputError, Report};
use crate::series::{Series, Verdict};
use crate::volume::{GridError, Image};

pub use finish::finish;
pub use kept::{PredictionKey, resume};
pub use prepare::{Preparation, Prepared, prepare};
pub use settings::{Format, FrameChoice, OutputSettings, Profile, Segments, Settings, TransferSyntax};

/// Goes up with every change to this program that can change a mask.
pub const PIPELINE_REVISION: u32 = 5;

/// Where a series is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Frames are decoded into the volume.
    Read,
    /// The volume is brought onto the network's grid.
    Resample,
    /// The body is found in it, and the rest cut off.
    Crop,
    /// The network works, window by window.
    Windows,
    /// The mask is brought back to the slices.
    MaskBack,
    /// Pieces and holes are cleaned, the surface moved to the CT's edge, right and left told apart.
    CleanUp,
    /// The lungs are measured and judged.
    Measure,
    /// Segmentation, image, picture and report are made.
    Outputs,
}

impl Stage {
    /// Its name, as in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Resample => "resample",
            Stage::Crop => "crop",
            Stage::Windows => "windows",
            Stage::MaskBack => "mask_back",
            Stage::CleanUp => "clean_up",
            Stage::Measure => "measure",
            Stage::Outputs => "outputs",
        }
    }

    /// What a person reads while it lasts.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Stage::Read => "reading slices",
            Stage::Resample => "resampling",
            Stage::Crop => "finding the body",
            Stage::Windows => "segmenting",
            Stage::MaskBack => "bringing the mask back",
            Stage::CleanUp => "cleaning up",
            Stage::Measure => "measuring",
            Stage::Outputs => "making the results",
        }
    }
}

/// Told how far a series is; called from the thread that segments.
pub trait Observer {
    /// A stage begins.
    fn stage(&self, stage: Stage);
    /// Windows of the network done, of all.
    fn windows(&self, done: usize, total: usize);
}

/// Nobody watches.
impl Observer for () {
    fn stage(&self, _: Stage) {}
    fn windows(&self, _: usize, _: usize) {}
}

/// What a series is segmented with.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    /// Decodes frames.
    pub reader: &'a FrameReader,
    /// Says what the network is.
    pub manifest: &'a Manifest,
    /// Limits, and what to make.
    pub settings: &'a Settings,
    /// Told how far it is.
    pub observer: &'a dyn Observer,
    /// Ends it within one window.
    pub cancel: &'a CancelFlag,
}

/// Why a series could not be segmented although it was not refused.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Somebody asked to stop.
    #[error("canceled")]
    Canceled,
    /// Frames could not be read for a reason that is not theirs.
    #[error(transparent)]
    Pixels(#[from] PixelError),
    /// The stack does not make a volume, although its headers passed.
    #[error("the stack does not make a volume")]
    Stack,
    /// The network's grid cannot be laid over the stack.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// The network.
    #[error(transparent)]
    Model(ModelError),
    /// The mask and the volume do not fit each other.
    #[error(transparent)]
    Lungs(#[from] LungsError),
    /// A result could not be made.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl From<ModelError> for SegmentError {
    fn from(error: ModelError) -> SegmentError {
        match error {
            ModelError::Canceled => SegmentError::Canceled,
            other => SegmentError::Model(other),
        }
    }
}

/// What each stage took, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timings(Vec<StageSeconds>);

impl Timings {
    fn measure<T>(&mut self, stage: Stage, observer: &dyn Observer, work: impl FnOnce() -> T) -> T {
        observer.stage(stage);
        let (begun, spent) = (Instant::now(), processor_seconds());
        let result = work();
        self.0.push(StageSeconds {
            stage: stage.name(),
            seconds: begun.elapsed().as_secs_f64(),
            processor_seconds: processor_seconds() - spent,
        });
        result
    }
}

/// Processor time that all threads of this process have spent so far, in seconds.
fn processor_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9
}

/// What the network made of a prepared series.
pub struct Predicted {
    prepared: Prepared,
    probability: Image,
    windows_run: usize,
    windows_skipped: usize,
    /// Windows that the network saw in an earlier attempt, whose answer was kept.
    windows_reused: usize,
}

/// A file that a user keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name in the folder of the series.
    pub name: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// How a series ended: with a report in any case, and with what could be made of it.
#[derive(Clone, Debug)]
pub struct Segmented {
    /// What there is to say.
    pub report: Report,
    /// What there is to keep, the report last.
    pub artifacts: Vec<Artifact>,
}

impl Segmented {
    /// Writes into the report which job of the service this one follows. Nothing else that was made depends on it.
    ///
    /// # Errors
    /// None that a report can have, but for memory.
    pub fn name_predecessor(&mut self, job: String) -> Result<(), OutputError> {
        self.report.predecessor = Some(job);
        if let Some(artifact) = self.artifacts.iter_mut().find(|artifact| artifact.name == REPORT) {
            artifact.bytes = self.report.to_json()?;
        }
        Ok(())
    }

    /// SOPInstanceUID of `segmentation.dcm`, where there is one.
    #[must_use]
    pub fn segmentation_uid(&self) -> Option<&str> {
        let file = self.report.files.iter().find(|file| file.name == SEGMENTATION)?;
        Some(&file.segmentation.as_ref()?.sop_instance_uid)
    }
}

/// The names of everything that `finish` can make of one profile.
pub const ARTIFACT_NAMES: [&str; 5] = [SEGMENTATION, MASK, CT, OVERLAY, REPORT];

/// The name of a result, if it is one: segmentations of further profiles have names of their own.
#[must_use]
pub fn artifact_name(name: &str) -> Option<&'static str> {
    let mut known = ARTIFACT_NAMES.into_iter().chain(settings::profile_names());
    known.find(|known| *known == name)
}

/// The name of the DICOM Segmentation among the results.
pub const SEGMENTATION: &str = "segmentation.dcm";
pub(crate) const MASK: &str = "mask.nii.gz";
pub(crate) const CT: &str = "ct.nii.gz";
pub(crate) const OVERLAY: &str = "overlay.png";
pub(crate) const REPORT: &str = "report.json";

/// Runs the network over a prepared series. Its input is given back to memory as soon as it is used.
///
/// # Errors
/// Those of the network, or `Canceled`.
pub fn predict(
    mut prepared: Prepared,
    predictor: &mut dyn Predictor,
    tools: &Tools,
) -> Result<Predicted, SegmentError> {
    let input = prepared.take_input();
    let options = tools.manifest.window_options();
    let mut progress = |done, total| tools.observer.windows(done, total);
    let slid = prepared.timings.measure(Stage::Windows, tools.observer, || {
        slide(&input, &options, predictor, &mut progress, tools.cancel)
    })?;
    Ok(Predicted {
        prepared,
        probability: slid.probability,
        windows_run: slid.windows_run,
        windows_skipped: slid.windows_skipped,
        windows_reused: 0,
    })
}

/// The whole way of one series. A refused series is no error: its report says why.
///
/// # Errors
/// What is not the input's fault, or `Canceled`.
pub fn segment(
    series: &Series,
    predictor: &mut dyn Predictor,
    provider: &Provider,
    tools: &Tools,
) -> Result<Segmented, SegmentError> {
    match prepare(series, tools)? {
        Preparation::Refused(verdict) => refused(series, verdict, tools),
        Preparation::Ready(prepared) => finish(series, predict(*prepared, predictor, tools)?, provider, tools),
    }
}

/// The report of a series that is not taken.
///
/// # Errors
/// None that a report can have, but for memory.
pub fn refused(series: &Series, verdict: Verdict, tools: &Tools) -> Result<Segmented, SegmentError> {
    finish::refused(series, verdict, tools)
}
