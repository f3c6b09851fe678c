//! A mask and what is known of it in; the bytes of a DICOM Segmentation, a NIfTI image, a picture and a report out.
//!
//! Nothing here opens a file: every function returns bytes, and the caller writes them. Before a DICOM Segmentation leaves, it is read back by code that shares
//! nothing with the writer (`read_back`) and compared with the mask in patient space.

mod deflate;
pub mod nifti;
pub mod overlay;
pub mod read_back;
pub mod report;
pub mod segmentation;

pub use report::Report;
pub use segmentation::{Concept, Frames, ModelIdentity, SegmentDescription, SegmentationRequest};

/// Why an output could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// No voxel of the mask belongs to a segment: there is nothing to write.
    #[error("the mask is empty: no segmentation is written")]
    EmptyMask,
    /// The source cannot be named, so nothing can refer to it.
    #[error("the source series cannot be referred to: {0}")]
    UnnamedSource(String),
    /// Two inputs do not fit each other; the caller's mistake.
    #[error("{0}")]
    Disagreement(String),
    /// More pixels than one DICOM object can hold (the length of a value has 32 bits).
    #[error("{frames} frames of {rows} x {columns} do not fit into one DICOM object")]
    TooLarge {
        /// Frames that would be written.
        frames: usize,
        /// Rows of a frame.
        rows: usize,
        /// Columns of a frame.
        columns: usize,
    },
    /// More voxels along an axis than a NIfTI-1 header can say.
    #[error(
        "{columns} x {rows} x {slices} voxels are more than NIfTI-1 can say, which has at most 32767 along an axis"
    )]
    ImageTooLarge {
        /// Columns.
        columns: usize,
        /// Rows.
        rows: usize,
        /// Slices.
        slices: usize,
    },
    /// What was written does not say what the mask says, or cannot be read.
    #[error("the segmentation read back is not the mask: {0}")]
    ReadBack(String),
    /// The picture could not be encoded.
    #[error("the picture cannot be encoded")]
    Picture(#[from] png::EncodingError),
    /// A stream could not be compressed.
    #[error("the data cannot be compressed")]
    Compression(#[from] flate2::CompressError),
    /// The report could not be serialised.
    #[error("the report cannot be serialised")]
    Report(#[from] serde_json::Error),
}
