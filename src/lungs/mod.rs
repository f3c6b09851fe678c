//! A mask in, the cleaned mask with right and left told apart out; measured, and judged a second time.
//!
//! The steps are functions of their own, in this order: [`settle_doubt`], [`drop_fat`], [`clean`], [`fill_end_holes`], [`follow_boundary`], [`sides`], [`measure()`],
//! [`judge_mask`]. Most work on the runs of a mask (stretches of lung in a row), not on its voxels, so that a volume of 512 x 512 x 300 needs a few megabytes beside the
//! mask itself; doubt, fat, the end slices' holes and the boundary ask the voxels too. What each figure means, and where it comes from, stands in `docs/measurements.md`.

mod bits;
mod boundary;
mod bridge;
mod cells;
mod clean;
mod components;
mod doubt;
mod edge;
mod fat;
mod holes;
mod judge;
mod measure;
mod midline;
mod min_cut;
mod pieces;
mod runs;
mod sides;
mod slabs;

pub use boundary::{Boundary, BoundaryReport, follow_boundary};
pub use clean::{CleanReport, clean};
pub use doubt::settle_doubt;
pub use fat::{Fat, drop_fat};
pub use holes::fill_end_holes;
pub use judge::{MaskLimits, judge_mask};
pub use measure::{Density, LungMeasurements, Measurements, PercentilesHu, measure};
pub use sides::{Sides, Told, join_sides, sides};

use serde::{Deserialize, Serialize};

use crate::volume::{Grid, Mask};

/// What is done to a mask on the source slices: part of a manifest's `[post]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanUp {
    /// So many largest components are kept (full connectivity, by volume); 0 keeps all.
    pub keep_components: usize,
    /// Components below this volume are dropped even so, in millilitres.
    pub min_component_ml: f64,
    /// Holes enclosed by lung up to this volume are filled, in millilitres; 0 fills none.
    pub fill_holes_ml: f64,
}

impl CleanUp {
    /// Nothing is changed.
    pub const OFF: CleanUp = CleanUp {
        keep_components: 0,
        min_component_ml: 0.0,
        fill_holes_ml: 0.0,
    };
}

/// Why a mask could not be worked on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LungsError {
    /// The mask, its labels or the voxels do not have the grid's number of voxels.
    #[error(
        "the mask is {mask:?} with {labels} labels, the grid is {grid:?} with {voxels} voxels (slices, rows, columns)"
    )]
    Shape {
        /// Slices, rows, columns of the mask.
        mask: [usize; 3],
        /// Labels in the mask.
        labels: usize,
        /// Slices, rows, columns of the grid.
        grid: [usize; 3],
        /// Voxel values of the volume, or of the grid where no volume is concerned.
        voxels: usize,
    },
    /// More runs than can be numbered: no mask of lungs has them.
    #[error("the mask is in {0} pieces of rows: more than can be counted")]
    TooManyRuns(usize),
}

/// The mask stands on this grid, and has a label for each of its voxels.
fn check_shape(mask: &Mask, grid: &Grid, voxels: Option<usize>) -> Result<(), LungsError> {
    let shape = [grid.origins.len(), grid.rows, grid.columns];
    let count = shape.iter().product::<usize>();
    if mask.shape == shape && mask.labels.len() == count && voxels.unwrap_or(count) == count {
        return Ok(());
    }
    Err(LungsError::Shape {
        mask: mask.shape,
        labels: mask.labels.len(),
        grid: shape,
        voxels: voxels.unwrap_or(count),
    })
}
