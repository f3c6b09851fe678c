//! What a user can choose about reading, judging and results.

use serde::Deserialize;

use crate::lungs::MaskLimits;
use crate::output::Frames;
use crate::series::SeriesLimits;

/// Limits of both verdicts, and what to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// When a series is refused or remarked upon.
    pub series: SeriesLimits,
    /// When a mask is remarked upon.
    pub mask: MaskLimits,
    /// What to make.
    pub output: OutputSettings,
}

/// What to make of a mask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputSettings {
    /// The results to make.
    pub formats: Vec<Format>,
    /// One segment for both lungs, or one each.
    pub segments: Segments,
    /// Which frames the DICOM Segmentation holds.
    pub frames: FrameChoice,
    /// How the DICOM Segmentation is coded.
    pub transfer_syntax: TransferSyntax,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self {
            formats: vec![Format::Seg, Format::Nifti, Format::Png, Format::Json],
            segments: Segments::default(),
            frames: FrameChoice::default(),
            transfer_syntax: TransferSyntax::default(),
        }
    }
}

impl OutputSettings {
    /// Whether a result is wanted.
    #[must_use]
    pub fn wants(&self, format: Format) -> bool {
        self.formats.contains(&format)
    }
}

/// A kind of result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `segmentation.dcm`, a DICOM Segmentation.
    Seg,
    /// `mask.nii.gz`.
    Nifti,
    /// `overlay.png`.
    Png,
    /// `report.json`.
    Json,
    /// `ct.nii.gz`, the volume in Hounsfield units.
    Ct,
}

/// The segments of the DICOM Segmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Segments {
    /// One: Lung.
    #[default]
    Lung,
    /// Two: Right lung, Left lung.
    LeftRight,
}

/// Which frames the DICOM Segmentation holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum FrameChoice {
    /// One for every slice, as most viewers want them.
    #[default]
    Full,
    /// Those alone that show lung.
    Sparse,
}

impl From<FrameChoice> for Frames {
    fn from(choice: FrameChoice) -> Frames {
        match choice {
            FrameChoice::Full => Frames::Full,
            FrameChoice::Sparse => Frames::Sparse,
        }
    }
}

/// How the DICOM Segmentation is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TransferSyntax {
    /// Explicit VR little endian, which everything reads.
    #[default]
    Explicit,
    /// Deflated explicit VR little endian: a hundredth of the size, and some readers know it not.
    Deflated,
}
