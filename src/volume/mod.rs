//! A stack and a frame reader in, a volume in Hounsfield units on its grid out; from there to the network's grid and back.

mod back;
mod crop;
mod frames;
mod general;
mod grid;
mod load;
mod nearest;
mod network;
mod resample;
mod separable;
mod values;

use serde::{Deserialize, Serialize};

pub use back::{Cut, DOUBTFUL, Way, mask_back};
pub use crop::{VoxelBox, crop_to_body};
pub use frames::SeriesFrames;
pub use load::{LoadError, Loaded, SliceError, StoredFrames, load};
pub use network::{GridError, even_grid, network_grid};
pub use resample::{resample, resample_hu, resample_labels};
pub use values::{NotHu, ValueSummary};

/// What padding becomes for the network, and what lies outside the stack: air.
pub const AIR_HU: f32 = -1000.0;

/// The grid of a stack of slices: parallel slices of one matrix, every slice with an origin of its own. LPS millimetres, voxel centres.
///
/// The centre of voxel `[slice][row][column]` is `origins[slice] + column * spacing_mm[1] * row_direction + row * spacing_mm[0] * column_direction`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Rows of every slice.
    pub rows: usize,
    /// Columns of every slice.
    pub columns: usize,
    /// Centre of the first voxel of every slice, ascending along `normal`.
    pub origins: Vec<[f64; 3]>,
    /// Unit direction along a row, to the next column.
    pub row_direction: [f64; 3],
    /// Unit direction down a column, to the next row.
    pub column_direction: [f64; 3],
    /// `row_direction` x `column_direction`.
    pub normal: [f64; 3],
    /// Millimetres between rows, between columns.
    pub spacing_mm: [f64; 2],
}

/// Voxel values in Hounsfield units, `[slice][row][column]`: whole numbers that fit are held as `i16`, others as `f32`.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Every value is exact.
    I16(Vec<i16>),
    /// Some value is not whole, or does not fit.
    F32(Vec<f32>),
}

/// A CT volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Where the voxels are.
    pub grid: Grid,
    /// Their values; padding is kept as it was stored.
    pub voxels: Voxels,
    /// Per slice, the lowest and highest HU that stand for padding (PixelPaddingValue after the slice's rescale), if there is padding. Such voxels count as -1000 HU
    /// for the network and are left out of measurements.
    pub padding_hu: Vec<Option<(f32, f32)>>,
}

impl Volume {
    /// Whether a value of this slice stands for padding.
    pub fn is_padding(&self, slice: usize) -> impl Fn(f32) -> bool + Copy + use<> {
        let range = self.padding_hu.get(slice).copied().flatten();
        move |hu| range.is_some_and(|(low, high)| (low..=high).contains(&hu))
    }
}

/// Labels on the grid of a volume, `[slice][row][column]`: 0 background, 1 right lung (or both, where they are not told apart), 2 left lung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Slices, rows, columns.
    pub shape: [usize; 3],
    /// One label a voxel.
    pub labels: Vec<u8>,
}

/// A regular, orthogonal grid, as a network wants it. The centre of voxel `[z][y][x]` is `origin + x * spacing_mm[0] * axes[0] + y * spacing_mm[1] * axes[1] + z *
/// spacing_mm[2] * axes[2]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegularGrid {
    /// Number of voxels along z, y, x: the order in memory, slowest first.
    pub shape: [usize; 3],
    /// Centre of voxel `[0][0][0]`, LPS millimetres.
    pub origin: [f64; 3],
    /// Unit directions of x, y, z, LPS.
    pub axes: [[f64; 3]; 3],
    /// Millimetres along x, y, z.
    pub spacing_mm: [f64; 3],
}

/// Values on a regular grid, `[z][y][x]`: the network's input, or what it made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Where the values are.
    pub grid: RegularGrid,
    /// One value a voxel.
    pub values: Vec<f32>,
}

/// What a network wants to be given: the `[grid]` table of its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GridSpecification {
    /// Millimetres along x, y, z.
    pub spacing_mm: [f64; 3],
    /// Where x, y and z point: three letters of L/R, P/A, S/I, as in `LPS` or `RAS`.
    pub orientation: String,
    /// HU are clipped to this range,
    pub window_hu: [f32; 2],
    /// and scaled to this.
    pub window_to: [f32; 2],
    /// A stack whose axes are turned against the patient's by more than this many degrees is resampled along the patient's axes; others keep their own axes, as
    /// MONAI's `Spacing` does. 180 never straightens.
    pub straighten_over_degrees: f64,
}
