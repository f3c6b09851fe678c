//! The grid of a stack: where its voxels are, how large they are, and whether their steps are even.

use super::{Grid, RegularGrid};
use crate::series::Stack;
use crate::series::vector::{difference, dot};

/// Slices further than this from the even, unsheared grid make a stack irregular; the same limit as the reference pipeline's.
pub(super) const GRID_TOLERANCE_MM: f64 = 0.01;

impl Grid {
    /// The grid of a stack.
    pub fn from_stack(stack: &Stack) -> Grid {
        Grid {
            rows: stack.rows,
            columns: stack.columns,
            origins: stack.slices.iter().map(|slice| slice.origin).collect(),
            row_direction: stack.row_direction,
            column_direction: stack.column_direction,
            normal: stack.normal,
            spacing_mm: stack.pixel_spacing_mm,
        }
    }

    /// Slices, rows, columns.
    pub fn shape(&self) -> [usize; 3] {
        [self.origins.len(), self.rows, self.columns]
    }

    /// Number of voxels.
    pub fn voxel_count(&self) -> usize {
        self.origins.len() * self.rows * self.columns
    }

    /// Centre of voxel `[slice][row][column]`, LPS millimetres. The slice must exist; rows and columns may be fractions.
    pub fn centre(&self, slice: usize, row: f64, column: f64) -> [f64; 3] {
        let (along_row, down_column) = (column * self.spacing_mm[1], row * self.spacing_mm[0]);
        let origin = self.origins[slice];
        std::array::from_fn(|i| origin[i] + along_row * self.row_direction[i] + down_column * self.column_direction[i])
    }

    /// Distance of every slice from the first along the normal, millimetres, ascending.
    pub fn positions_mm(&self) -> Vec<f64> {
        self.origins
            .iter()
            .map(|origin| dot(difference(*origin, self.origins[0]), self.normal))
            .collect()
    }

    /// Thickness of every slice's slab by the Voronoi rule: from half way to the slice before to half way to the slice after. An end slice is as thick as
    /// its inner half doubled. A lone slice has no neighbour and no thickness: 0.
    pub fn slab_thickness_mm(&self) -> Vec<f64> {
        let positions = self.positions_mm();
        let last = positions.len().saturating_sub(1);
        (0..positions.len())
            .map(|k| match k {
                _ if last == 0 => 0.0,
                0 => positions[1] - positions[0],
                k if k == last => positions[last] - positions[last - 1],
                k => 0.5 * (positions[k + 1] - positions[k - 1]),
            })
            .collect()
    }

    /// Volume of one voxel of every slice, cubic millimetres.
    pub fn voxel_volumes_mm3(&self) -> Vec<f64> {
        let area = self.spacing_mm[0] * self.spacing_mm[1];
        self.slab_thickness_mm()
            .into_iter()
            .map(|thickness| area * thickness)
            .collect()
    }

    /// Distances between neighbouring slices, millimetres.
    pub fn steps_mm(&self) -> Vec<f64> {
        self.positions_mm().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The median of the distances between neighbouring slices, millimetres; 0 for a lone slice.
    pub fn median_step_mm(&self) -> f64 {
        let mut steps = self.steps_mm();
        steps.sort_by(f64::total_cmp);
        match steps.len() {
            0 => 0.0,
            n if n % 2 == 1 => steps[n / 2],
            n => 0.5 * (steps[n / 2 - 1] + steps[n / 2]),
        }
    }

    /// The largest distance in the plane between a slice's first voxel and the line along the normal through the first slice's: 0 without gantry tilt.
    pub fn shear_mm(&self) -> f64 {
        self.origins
            .iter()
            .map(|origin| {
                let offset = difference(*origin, self.origins[0]);
                dot(offset, self.row_direction).hypot(dot(offset, self.column_direction))
            })
            .fold(0.0, f64::max)
    }

    /// Whether slices lie exactly behind each other (within 0.01 mm), their steps even or not.
    pub fn is_straight(&self) -> bool {
        self.shear_mm() <= GRID_TOLERANCE_MM
    }

    /// Whether every slice lies within 0.01 mm of a grid with one step.
    pub fn is_even(&self) -> bool {
        let positions = self.positions_mm();
        let Some(last) = positions.last() else {
            return true;
        };
        let step = last / (positions.len().max(2) - 1) as f64;
        positions
            .iter()
            .enumerate()
            .all(|(k, position)| (position - k as f64 * step).abs() <= GRID_TOLERANCE_MM)
    }

    /// Whether one affine describes the stack as it is: even steps and no shear.
    pub fn is_regular(&self) -> bool {
        self.is_straight() && self.is_even()
    }
}

impl RegularGrid {
    /// Number of voxels.
    pub fn voxel_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Centre of voxel `[z][y][x]`, LPS millimetres.
    pub fn centre(&self, z: f64, y: f64, x: f64) -> [f64; 3] {
        let steps = [x, y, z];
        std::array::from_fn(|i| {
            self.origin[i]
                + (0..3)
                    .map(|axis| steps[axis] * self.spacing_mm[axis] * self.axes[axis][i])
                    .sum::<f64>()
        })
    }

    /// Where a point lies, as fractional `[z, y, x]`.
    pub fn index_of(&self, point: [f64; 3]) -> [f64; 3] {
        let offset = difference(point, self.origin);
        [2, 1, 0].map(|axis| dot(offset, self.axes[axis]) / self.spacing_mm[axis])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn upright(positions: &[f64]) -> Grid {
        Grid {
            rows: 4,
            columns: 5,
            origins: positions.iter().map(|z| [-10.0, 20.0, *z]).collect(),
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            normal: [0.0, 0.0, 1.0],
            spacing_mm: [0.5, 0.25],
        }
    }

    #[test]
    fn slabs_reach_half_way_to_the_neighbours() {
        let grid = upright(&[0.0, 1.0, 3.0, 7.0]);
        assert_eq!(grid.slab_thickness_mm(), [1.0, 1.5, 3.0, 4.0]);
        assert_eq!(grid.voxel_volumes_mm3(), [0.125, 0.1875, 0.375, 0.5]);
        assert_eq!(grid.median_step_mm(), 2.0);
        assert!(grid.is_straight() && !grid.is_even() && !grid.is_regular());
    }

    #[test]
    fn a_stack_within_a_hundredth_of_a_millimetre_is_regular() {
        assert!(upright(&[0.0, 1.009, 2.0, 3.0]).is_regular());
        assert!(!upright(&[0.0, 1.02, 2.0, 3.0]).is_regular());
        let mut tilted = upright(&[0.0, 1.0, 2.0]);
        tilted.origins[2][1] += 0.02;
        assert!(tilted.is_even() && !tilted.is_regular());
    }

    #[test]
    fn a_voxel_centre_follows_both_directions() {
        let grid = upright(&[5.0, 6.0]);
        assert_eq!(grid.centre(1, 2.0, 3.0), [-9.25, 21.0, 6.0]);
    }
}
