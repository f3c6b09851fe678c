//! The bytes of two masks in, Dice and surface distances out; of several cases, their mean and spread.
//!
//! Either side may be a DICOM Segmentation or a NIfTI file: what counts is where its voxels are in the patient.

mod distance;
mod grid;
mod mask_file;
mod nifti;
mod scores;
mod summary;

pub use grid::{Grids, LabelImage, SideLabels};
pub use mask_file::read_mask;
pub use scores::{CaseScores, Scores, compare, hausdorff_mm, without_prediction};
pub use summary::{NoPrediction, Spread, Summary, Unpaired, summarise};

/// Why masks could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Not a mask, or one that contradicts itself.
    #[error("the mask cannot be read: {0}")]
    Damaged(String),
    /// More voxels than are read.
    #[error("the mask has more than 2^30 voxels")]
    TooLarge,
    /// A segmentation that cannot be read.
    #[error(transparent)]
    Segmentation(#[from] crate::dicom::segmentation_reader::SegmentationError),
    /// The summary could not be written.
    #[error("the summary cannot be written: {0}")]
    Write(String),
}
