//! Headers of one series in, a stack of sorted slices and the verdict out.

mod acquisitions;
mod codes;
mod findings;
mod group;
mod identity;
mod judge;
mod kernel;
mod limits;
mod members;
mod memory;
mod notes;
mod plane;
mod steps;
mod unreadable;
mod values;
pub(crate) mod vector;
mod wording;
#[cfg(test)]
mod tests;

pub use codes::{Code, Kind};
pub use findings::{Finding, MAX_CONCERNS, Outcome, Verdict};
pub use group::group;
pub use judge::{Candidate, Judgement, Settled, Usable, judge};
pub use limits::SeriesLimits;
pub use members::Names;
pub use memory::{REFERENCE_GRID_MM, estimated_memory_bytes};
pub use unreadable::put_down_unreadable;
pub use values::{corrupt_pixels, not_hu};

use crate::dicom::{Instance, Rescale};

/// The instances that share a study and a series, in the order in which they were found.
#[derive(Clone, Debug)]
pub struct Series {
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// The instances.
    pub instances: Vec<Instance>,
    /// Files beside them that could not be read, as far as these can only belong here.
    pub unreadable: Vec<Unreadable>,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name in its folder.
    pub name: String,
    /// Why, in a few words.
    pub why: String,
}

/// One slice of a stack: a frame of an instance, and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Index into `Series::instances`.
    pub instance: usize,
    /// Index of the frame in that instance, from 0.
    pub frame: usize,
    /// Centre of the first voxel, LPS millimetres.
    pub origin: [f64; 3],
    /// Distance along the stack's normal, millimetres.
    pub position_mm: f64,
    /// HU = stored * slope + intercept.
    pub rescale: Rescale,
}

/// Parallel slices of one matrix, ascending along their normal. Every slice keeps its own origin, so that gantry tilt and uneven spacing are exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// At least two slices, ascending by `position_mm`.
    pub slices: Vec<Slice>,
    /// Rows of every slice.
    pub rows: usize,
    /// Columns of every slice.
    pub columns: usize,
    /// Millimetres between rows, between columns.
    pub pixel_spacing_mm: [f64; 2],
    /// Unit direction along a row (to the next column), LPS.
    pub row_direction: [f64; 3],
    /// Unit direction down a column (to the next row), LPS.
    pub column_direction: [f64; 3],
    /// `row_direction` x `column_direction`.
    pub normal: [f64; 3],
}
