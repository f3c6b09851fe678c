//! The report of one series: what was read, what was found, what was made and how, without anything that names a person.
//!
//! `docs/report.schema.json` is its schema, `docs/report.md` explains it. A field is added under the same schema version; a field that changes its meaning or goes raises
//! the version.

use serde::Serialize;

use super::OutputError;
use crate::lungs::{CleanReport, Measurements, Sides};
use crate::model::{Parameters, Provider};
use crate::series::{Finding, Verdict};

/// The version of the schema.
pub const SCHEMA: u32 = 1;

/// What there is to say of one series.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the schema: 1.
    pub schema: u32,
    /// Version of Hilum.
    pub hilum_version: &'static str,
    /// Goes up with every change to Hilum that can change a mask.
    pub pipeline_revision: u32,
    /// Which series it is.
    pub series: SeriesIdentity,
    /// The verdict on the series.
    pub verdict: Verdict,
    /// The verdict on the mask; empty in a series without remarks, and in a refused one.
    pub mask_findings: Vec<Finding>,
    /// Figures of the lungs; absent where no lungs were found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measurements: Option<Measurements>,
    /// How right and left were told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sides: Option<Sides>,
    /// What clean-up did to the mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_up: Option<CleanReport>,
    /// The volume; absent in a refused series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeFacts>,
    /// The network; absent in a refused series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelFacts>,
    /// What ran the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Windows of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowFacts>,
    /// Seconds of each stage, in their order. Stages that run beside others are counted from their begin to their end.
    pub timings: Vec<StageSeconds>,
    /// The files that were made beside this report.
    pub files: Vec<FileFacts>,
    /// Research use only.
    pub notice: &'static str,
}

/// Which series a report is about.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SeriesIdentity {
    /// StudyInstanceUID, as stored.
    pub study_instance_uid: String,
    /// SeriesInstanceUID, as stored.
    pub series_instance_uid: String,
    /// Modality.
    pub modality: String,
    /// Instances that were found.
    pub instances: usize,
    /// Manufacturer of the scanner.
    pub manufacturer: String,
    /// Its model.
    pub manufacturer_model_name: String,
    /// ConvolutionKernel.
    pub convolution_kernel: String,
    /// SliceThickness in millimetres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice_thickness_mm: Option<f64>,
}

/// The volume that was segmented.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeFacts {
    /// Slices, rows, columns.
    pub shape: [usize; 3],
    /// Millimetres between rows, between columns.
    pub pixel_spacing_mm: [f64; 2],
    /// Usual distance between slices in millimetres.
    pub slice_spacing_mm: f64,
    /// Slices are straight and evenly spaced, so that one affine places them.
    pub regular: bool,
    /// The network's grid before it was cropped: voxels along z, y, x.
    pub network_shape: [usize; 3],
    /// The network's grid as it ran: voxels along z, y, x.
    pub network_shape_run: [usize; 3],
}

/// The network.
#[derive(Clone, Debug, Serialize)]
pub struct ModelFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 over its weights.
    pub weights_sha256: String,
    /// Everything else that can change a mask.
    pub parameters: Parameters,
    /// SHA-256 of the parameters.
    pub parameters_sha256: String,
}

/// Windows of the network.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WindowFacts {
    /// Windows that cover the grid.
    pub total: usize,
    /// Windows that the network saw.
    pub run: usize,
    /// Windows without body, which it did not see.
    pub skipped: usize,
}

/// How long a stage took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StageSeconds {
    /// Its name.
    pub stage: &'static str,
    /// Seconds.
    pub seconds: f64,
}

/// A file that was made.
#[derive(Clone, Debug, Serialize)]
pub struct FileFacts {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub bytes: usize,
    /// What has to be known of it; empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Report {
    /// The report as JSON text.
    ///
    /// # Errors
    /// A number that JSON does not have.
    pub fn to_json(&self) -> Result<Vec<u8>, OutputError> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}
