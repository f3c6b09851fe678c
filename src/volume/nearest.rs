//! Which voxels of a network's grid are nearest to those of a stack, axis by axis, as MONAI's inverse of `Spacing` with `mode="nearest"` chooses.
//!
//! Slices 2.5 mm apart on a grid of 5 mm: every second one lies exactly halfway between two voxels, and what its label is depends on how the place was
//! computed. So it is computed here as MONAI does (`spatial_resample`, `to_norm_affine`, torch's `affine_grid` and `grid_sample`): the same operations on
//! 64 bits in the same order, each rounded as there. With axes along the patient's and MONAI's affine matrix free of noise, so is the choice.

use super::separable::{Parallel, nearest};
use super::{Grid, RegularGrid};

/// An axis that begins further than this from where MONAI's grid begins is of a grid cropped to the body, mm.
const ANCHOR_MM: f64 = 1e-6;
/// A slice further than this from its place at even steps is taken where it is, mm.
const EVEN_MM: f64 = 1e-3;

/// For slices, rows and columns of the stack, the nearest index along the axis of the regular grid that runs along them. `places` are their fractional ones.
///
/// An axis that is cropped, or uneven, has no counterpart in MONAI: halves go to the even index there.
pub(super) fn nearest_indices(
    grid: &Grid,
    regular: &RegularGrid,
    parallel: &Parallel,
    places: &[Vec<f64>; 3],
) -> [Vec<usize>; 3] {
    let sizes = parallel.sizes(regular);
    let positions = grid.positions_mm();
    let step_mm = positions.last().copied().unwrap_or(0.0) / (positions.len().max(2) - 1) as f64;
    let even = (0_u32..)
        .zip(&positions)
        .all(|(k, position)| (position - f64::from(k) * step_mm).abs() <= EVEN_MM);
    let spacings = [step_mm, grid.spacing_mm[0], grid.spacing_mm[1]];
    std::array::from_fn(|b| {
        let (voxels, size, spacing) = (places[b].len(), sizes[b], spacings[b]);
        let extent = (voxels - 1) as f64 * spacing;
        let step = parallel.step_mm[b];
        let start = if step < 0.0 { extent } else { 0.0 };
        let whole = (parallel.offset_mm[b] - start).abs() <= ANCHOR_MM
            && (extent / step.abs() + 1.0 - size as f64).abs() <= 0.5 + 1e-6;
        if !whole || (b == 0 && !even) || voxels < 2 {
            return places[b].iter().map(|place| nearest(*place, size)).collect();
        }
        let axis = Axis::new(voxels, spacing, size, step.abs());
        let mut indices: Vec<usize> = (0..voxels).map(|i| axis.nearest(i)).collect();
        // MONAI's `Orientation` has turned the axis before.
        if step < 0.0 {
            indices.reverse();
        }
        indices
    })
}

/// MONAI's transform along one axis, from -1..1 over the source's voxels to -1..1 over the network's.
struct Axis {
    voxels: usize,
    size: f64,
    scale: f64,
    shift: f64,
}

impl Axis {
    /// `voxels` of `spacing` mm onto `size` voxels of `target` mm, both from the same first centre.
    fn new(voxels: usize, spacing: f64, size: usize, target: f64) -> Axis {
        let (n, size) = (voxels as f64, size as f64);
        // `zoom_affine`, and the affine matrix after `Spacing`: LAPACK divides by multiplying with the inverse of the diagonal.
        let along = spacing * (1.0 / (spacing * spacing).sqrt());
        let target = spacing * ((along * target) * (1.0 / spacing));
        // `to_norm_affine` of the inverse's own matrix.
        let ratio = spacing * (1.0 / target);
        let unit = 1.0 / (2.0 / n);
        let origin = -(1.0 / n - 1.0) * unit;
        let narrowed = (2.0 / size) * ratio;
        Axis {
            voxels,
            size,
            scale: narrowed * unit,
            shift: narrowed * origin + (1.0 / size - 1.0),
        }
    }

    /// The network's voxel that is nearest to a voxel of the source.
    fn nearest(&self, index: usize) -> usize {
        let n = self.voxels;
        let step = 2.0 / (n - 1) as f64;
        // `linspace` from both ends, with fused multiplication.
        let even = if index < n / 2 {
            step.mul_add(index as f64, -1.0)
        } else {
            (-step).mul_add((n - 1 - index) as f64, 1.0)
        };
        let centre = even * (n - 1) as f64 / n as f64;
        let place = (centre * self.scale + self.shift + 1.0) * self.size - 1.0;
        nearest(place / 2.0, self.size as usize)
    }
}
