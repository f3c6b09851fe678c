//! How much memory a series will need, from its headers.

use super::plane::{Placed, Plane};
use super::vector::{Vector, dot, spread};
use super::{Slice, Stack};
use crate::dicom::PixelData;

/// The reference network's grid (0.8 x 0.8 x 5 mm), for the estimate that is made before a model is known.
pub const REFERENCE_GRID_MM: [f64; 3] = [0.8, 0.8, 5.0];

/// Bytes per voxel of the network's grid: the input, two foreground channels' sums and the weights, four bytes each.
const GRID_BYTES: f64 = 16.0;
/// Bytes per voxel of the source beside its HU: the mask, and labels while it is cleaned (four bytes for the number of a component).
const MASK_BYTES: u64 = 1 + 4;
/// Bytes per voxel of the even grid: the labels, and HU as floats, as NIfTI images.
const EVEN_BYTES: f64 = 1.0 + 4.0;
/// An even grid has at most so many slices for each of the source's, and never more than NIfTI-1 can say (`volume::even_grid`).
const MOST_EVEN_SLICES: [usize; 2] = [4, 32_767];
/// A stack is regular within 0.01 mm (`volume::Grid`); half of it, so that no rounding makes one regular here that is none there.
const REGULAR_WITHIN_MM: f64 = 0.005;

/// An estimate of the bytes that a series of this shape needs at once: the volume in HU (2 bytes a voxel where every rescale is whole, else 4), the mask
/// and its components on the source slices, and the network's grid with its input, sums and weights. That grid lies along the slices' own axes or, where
/// they are turned far, along the patient's; the larger of the two counts. Or, where that is more, the volume, the mask and their NIfTI images on an even grid, which stacks that
/// are uneven or sheared are resampled to at the end. The network's own memory is not in it. Saturates instead of overflowing.
pub fn estimated_memory_bytes(stack: &Stack, grid_spacing_mm: [f64; 3]) -> u64 {
    let frame = Frame {
        rows: stack.rows,
        columns: stack.columns,
        spacing_mm: stack.pixel_spacing_mm,
        axes: [stack.row_direction, stack.column_direction, stack.normal],
    };
    estimate(&stack.slices.iter().collect::<Vec<_>>(), &frame, grid_spacing_mm)
}

/// The same on the reference grid, or, where that is more, what the series needs while its pixels are read.
pub(super) fn of_slices(slices: &[Placed<'_>], plane: &Plane) -> u64 {
    let inflated = inflated(slices);
    let slices: Vec<&Slice> = slices.iter().map(|p| &p.slice).collect();
    let frame = Frame {
        rows: plane.rows,
        columns: plane.columns,
        spacing_mm: plane.pixel_spacing_mm,
        axes: [plane.row, plane.column, plane.normal],
    };
    let voxels = frame.voxels(slices.len());
    let reading = voxels.saturating_mul(hu_bytes(&slices)).saturating_add(inflated);
    estimate(&slices, &frame, REFERENCE_GRID_MM).max(reading)
}

/// Bytes of the largest deflated multi-frame instance of these: it is inflated as a whole while the volume is filled (`FrameReader`).
fn inflated(slices: &[Placed<'_>]) -> u64 {
    let headers = slices.iter().map(|p| p.member.header);
    let deflated =
        headers.filter(|header| header.frames.len() > 1 && matches!(header.pixel_data, PixelData::Deflated { .. }));
    let bytes = deflated.map(|header| {
        let pixels = &header.pixels;
        let samples = u64::from(pixels.rows) * u64::from(pixels.columns);
        samples
            .saturating_mul(u64::from(pixels.bits_allocated / 8))
            .saturating_mul(header.frames.len() as u64)
    });
    bytes.max().unwrap_or(0)
}

/// Bytes of a voxel in HU.
fn hu_bytes(slices: &[&Slice]) -> u64 {
    let whole = |slice: &&Slice| slice.rescale.slope.fract() == 0.0 && slice.rescale.intercept.fract() == 0.0;
    if slices.iter().all(whole) { 2 } else { 4 }
}

/// What all slices share.
struct Frame {
    rows: usize,
    columns: usize,
    spacing_mm: [f64; 2],
    /// Along a row, down a column, along the normal.
    axes: [Vector; 3],
}

impl Frame {
    /// Voxels of so many slices.
    fn voxels(&self, slices: usize) -> u64 {
        let rows = (slices as u64).saturating_mul(self.rows as u64);
        rows.saturating_mul(self.columns as u64)
    }

    /// How far the voxel centres of all slices reach along each of three axes, wherever the slices lie.
    fn extents_mm(&self, slices: &[&Slice], axes: [Vector; 3]) -> [f64; 3] {
        let [row, column, _] = self.axes;
        let width = self.columns.saturating_sub(1) as f64 * self.spacing_mm[1];
        let height = self.rows.saturating_sub(1) as f64 * self.spacing_mm[0];
        axes.map(|axis| {
            spread(slices.iter().map(|slice| dot(slice.origin, axis)))
                + dot(row, axis).abs() * width
                + dot(column, axis).abs() * height
        })
    }
}

fn estimate(slices: &[&Slice], frame: &Frame, grid_mm: [f64; 3]) -> u64 {
    let voxels = frame.voxels(slices.len());
    let hu_bytes = hu_bytes(slices);
    let grid = [frame.axes, PATIENT_AXES]
        .into_iter()
        .map(|axes| most_voxels(frame.extents_mm(slices, axes), grid_mm))
        .fold(0.0, f64::max);
    // A float beyond u64 becomes its maximum.
    let network = voxels
        .saturating_mul(hu_bytes + MASK_BYTES)
        .saturating_add((grid * GRID_BYTES) as u64);
    let images = voxels
        .saturating_mul(hu_bytes + 1)
        .saturating_add((even_voxels(slices, frame) * EVEN_BYTES) as u64);
    network.max(images)
}

/// Voxels of the even grid of a stack; 0 where its own is even.
fn even_voxels(slices: &[&Slice], frame: &Frame) -> f64 {
    let [row, column, normal] = frame.axes;
    let along = |axis: Vector| slices.iter().map(move |slice| dot(slice.origin, axis));
    let mut positions: Vec<f64> = along(normal).collect();
    positions.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (positions.first(), positions.last()) else {
        return 0.0;
    };
    let height = last - first;
    let mean = height / (positions.len().max(2) - 1) as f64;
    let places = positions.iter().enumerate();
    let even = places
        .map(|(k, position)| (position - first - k as f64 * mean).abs())
        .all(|off| off <= REGULAR_WITHIN_MM);
    if even && spread(along(row)).hypot(spread(along(column))) <= REGULAR_WITHIN_MM {
        return 0.0;
    }
    let smallest = positions.windows(2).map(|pair| pair[1] - pair[0]).fold(mean, f64::min);
    let [each, at_all] = MOST_EVEN_SLICES;
    let most = slices.len().saturating_mul(each).min(at_all);
    let step = smallest.max(height / (most - 1) as f64);
    let [width_mm, height_mm, _] = frame.extents_mm(slices, frame.axes);
    let steps = [
        (width_mm, frame.spacing_mm[1]),
        (height_mm, frame.spacing_mm[0]),
        (height, step),
    ];
    steps
        .map(|(mm, step)| (mm / step.max(1e-3)).ceil() + 1.0)
        .into_iter()
        .product()
}

const PATIENT_AXES: [Vector; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// Voxels over a box, whichever spacing each of its sides gets: that depends on the pose and on the network's orientation.
fn most_voxels(extents_mm: [f64; 3], [a, b, c]: [f64; 3]) -> f64 {
    let orders = [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]];
    let voxels = |steps: [f64; 3]| -> f64 {
        extents_mm
            .iter()
            .zip(steps)
            .map(|(mm, step)| (mm / step.max(1e-3)).ceil() + 1.0)
            .product()
    };
    orders.into_iter().map(voxels).fold(0.0, f64::max)
}
