//! How much memory a series will need, from its headers.

use super::plane::{Placed, Plane};
use super::vector::{Vector, dot, scaled};
use super::{Slice, Stack};

/// The reference network's grid (0.8 x 0.8 x 5 mm), for the estimate that is made before a model is known.
pub const REFERENCE_GRID_MM: [f64; 3] = [0.8, 0.8, 5.0];

/// The patient's axes, along which the grid of an oblique stack lies.
const PATIENT: [Vector; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
/// Bytes per voxel of the network's grid: the input, two foreground channels' sums and the weights, four bytes each.
const GRID_BYTES: f64 = 16.0;
/// Bytes per voxel of the source beside its HU: the mask, and labels while it is cleaned (four bytes for the number of a component).
const MASK_BYTES: u64 = 1 + 4;

/// An estimate of the bytes that a series of this shape needs at once: the volume in HU (2 bytes a voxel where every rescale is whole, else 4), the mask
/// and its components on the source slices, and the network's grid over a box around all slices with its input, sums and weights. The network's own memory is not
/// in it. Saturates instead of overflowing.
pub fn estimated_memory_bytes(stack: &Stack, grid_spacing_mm: [f64; 3]) -> u64 {
    estimate(
        &stack.slices.iter().collect::<Vec<_>>(),
        [stack.rows, stack.columns],
        stack.pixel_spacing_mm,
        [stack.row_direction, stack.column_direction, stack.normal],
        grid_spacing_mm,
    )
}

pub(super) fn of_slices(slices: &[Placed<'_>], plane: &Plane) -> u64 {
    let slices: Vec<&Slice> = slices.iter().map(|p| &p.slice).collect();
    estimate(
        &slices,
        [plane.rows, plane.columns],
        plane.pixel_spacing_mm,
        [plane.row, plane.column, plane.normal],
        REFERENCE_GRID_MM,
    )
}

fn estimate(
    slices: &[&Slice],
    [rows, columns]: [usize; 2],
    spacing_mm: [f64; 2],
    own: [Vector; 3],
    mut grid_mm: [f64; 3],
) -> u64 {
    let whole = slices
        .iter()
        .all(|s| s.rescale.slope.fract() == 0.0 && s.rescale.intercept.fract() == 0.0);
    let voxels = (slices.len() as u64)
        .saturating_mul(rows as u64)
        .saturating_mul(columns as u64);
    let source = voxels.saturating_mul(if whole { 2 } else { 4 } + MASK_BYTES);
    let across = scaled(own[0], columns as f64 * spacing_mm[1]);
    let down = scaled(own[1], rows as f64 * spacing_mm[0]);
    let side = |axis: Vector| {
        let places = slices.iter().map(|slice| dot(slice.origin, axis));
        let (low, high) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| {
            (low.min(place), high.max(place))
        });
        (high - low).max(0.0) + dot(across, axis).abs() + dot(down, axis).abs()
    };
    // The manifest says along whose axes the grid lies and which of its steps goes along which: the larger box, with the finest step along its longest side.
    grid_mm.sort_by(f64::total_cmp);
    let grid = [own, PATIENT]
        .map(|axes| {
            let mut sides = axes.map(side);
            sides.sort_by(|a, b| b.total_cmp(a));
            let sizes = sides.iter().zip(grid_mm);
            sizes.map(|(mm, step)| (mm / step.max(1e-3)).ceil() + 1.0).product()
        })
        .into_iter()
        .fold(0.0, f64::max);
    // A float beyond u64 becomes its maximum.
    source.saturating_add((grid * GRID_BYTES) as u64)
}
