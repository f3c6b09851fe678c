//! Where the axes of two grids are parallel, interpolation is done axis by axis. Here: how they are parallel, and what each voxel of the one takes of the other.

use super::{Grid, RegularGrid};
use crate::series::vector::{difference, dot};

/// Axes turned by less than this against each other (as 1 - cosine) count as parallel: 0.001 mm over half a metre.
const PARALLEL: f64 = 2e-12;

/// What linear interpolation takes at one place: `low` and the next voxel, which counts `weight`. A clamped place has weight 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    /// The lower voxel.
    pub(super) low: usize,
    /// The upper voxel: `low + 1`, or `low` where there is one voxel only.
    pub(super) high: usize,
    /// Weight of the upper voxel.
    pub(super) weight: f32,
}

/// How the axes of a regular grid run along those of a stack without shear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parallel {
    /// For slice, row, column index of the stack: the axis of the regular grid (0 x, 1 y, 2 z) that runs along it.
    pub(super) axis: [usize; 3],
    /// For slice, row, column: millimetres from the stack's first voxel to the regular grid's along the stack's axis.
    pub(super) offset_mm: [f64; 3],
    /// For slice, row, column: the regular grid's step along the stack's axis, negative where they run against each other.
    pub(super) step_mm: [f64; 3],
}

impl Parallel {
    /// `None` if the stack is sheared, or the axes are not parallel.
    pub(super) fn of(grid: &Grid, regular: &RegularGrid) -> Option<Parallel> {
        if !grid.is_straight() {
            return None;
        }
        let own = [grid.normal, grid.column_direction, grid.row_direction];
        let start = difference(regular.origin, grid.origins[0]);
        let mut made = Parallel {
            axis: [3; 3],
            offset_mm: [0.0; 3],
            step_mm: [0.0; 3],
        };
        for (b, direction) in own.iter().enumerate() {
            let a =
                (0..3).find(|a| dot(regular.axes[*a], *direction).abs() > 1.0 - PARALLEL && !made.axis.contains(a))?;
            made.axis[b] = a;
            made.offset_mm[b] = dot(start, *direction);
            made.step_mm[b] = regular.spacing_mm[a] * dot(regular.axes[a], *direction).signum();
        }
        Some(made)
    }

    /// Size of the regular grid along the stack's slice, row and column index.
    pub(super) fn sizes(&self, regular: &RegularGrid) -> [usize; 3] {
        self.axis.map(|a| regular.shape[2 - a])
    }

    /// Whether the regular grid's memory order is the stack's.
    pub(super) fn same_order(&self) -> bool {
        self.axis == [2, 1, 0]
    }

    /// For [`permute`]: the stack's axis order of the regular grid's memory axes.
    pub(super) fn order(&self) -> [usize; 3] {
        self.axis.map(|a| 2 - a)
    }

    /// For [`permute`]: the regular grid's memory order of the stack's axes.
    pub(super) fn order_back(&self) -> [usize; 3] {
        let mut back = [0; 3];
        for (b, memory) in self.order().into_iter().enumerate() {
            back[memory] = b;
        }
        back
    }

    /// Fractional source indices (slice, row, column) of the regular grid's voxels along each of the stack's axes.
    pub(super) fn source_indices(&self, grid: &Grid, regular: &RegularGrid) -> [Vec<f64>; 3] {
        let sizes = self.sizes(regular);
        let place = |b: usize| (0..sizes[b]).map(move |i| self.offset_mm[b] + i as f64 * self.step_mm[b]);
        let positions = grid.positions_mm();
        [
            place(0).map(|mm| slice_index(&positions, mm)).collect(),
            place(1).map(|mm| mm / grid.spacing_mm[0]).collect(),
            place(2).map(|mm| mm / grid.spacing_mm[1]).collect(),
        ]
    }

    /// Fractional regular indices of the stack's voxels along each of the stack's axes (slice, row, column).
    pub(super) fn regular_indices(&self, grid: &Grid) -> [Vec<f64>; 3] {
        let index = |b: usize, mm: f64| (mm - self.offset_mm[b]) / self.step_mm[b];
        [
            grid.positions_mm().into_iter().map(|mm| index(0, mm)).collect(),
            (0..grid.rows)
                .map(|r| index(1, r as f64 * grid.spacing_mm[0]))
                .collect(),
            (0..grid.columns)
                .map(|c| index(2, c as f64 * grid.spacing_mm[1]))
                .collect(),
        ]
    }
}

/// Index of a position among ascending ones, with the fraction between its neighbours; below 0 and beyond the last it goes on with the step at that end.
pub(super) fn slice_index(positions: &[f64], mm: f64) -> f64 {
    let last = positions.len() - 1;
    if last == 0 {
        return 0.0;
    }
    let low = positions.partition_point(|p| *p <= mm).saturating_sub(1).min(last - 1);
    let step = positions[low + 1] - positions[low];
    if step > 0.0 {
        low as f64 + (mm - positions[low]) / step
    } else {
        low as f64
    }
}

/// The tap at a fractional index into `n` voxels, clamped to the border as MONAI's `padding_mode="border"`.
pub(super) fn tap(index: f64, n: usize) -> Tap {
    let last = n - 1;
    if index.is_nan() || index <= 0.0 || last == 0 {
        return Tap {
            low: 0,
            high: last.min(1),
            weight: 0.0,
        };
    }
    let low = (index as usize).min(last - 1);
    Tap {
        low,
        high: low + 1,
        weight: (index - low as f64).min(1.0) as f32,
    }
}

/// The nearest voxel at a fractional index into `n`, halves to the even one, clamped to the border.
pub(super) fn nearest(index: f64, n: usize) -> usize {
    (index.round_ties_even().max(0.0) as usize).min(n - 1)
}

/// Taps of all indices.
pub(super) fn taps(indices: &[f64], n: usize) -> Vec<Tap> {
    indices.iter().map(|index| tap(*index, n)).collect()
}

/// Copies values that lie in the memory order of `from` (sizes of its three axes, slowest first) into the order in which axis `order[i]` of `from` is axis
/// `i`.
pub(super) fn permute<T: Copy + Send + Sync + Default>(values: &[T], from: [usize; 3], order: [usize; 3]) -> Vec<T> {
    use rayon::prelude::*;
    let strides = [from[1] * from[2], from[2], 1];
    let to = order.map(|axis| from[axis]);
    let step = order.map(|axis| strides[axis]);
    let mut out = vec![T::default(); values.len()];
    if out.is_empty() {
        return out;
    }
    out.par_chunks_mut(to[1] * to[2]).enumerate().for_each(|(i, plane)| {
        for (j, row) in plane.chunks_exact_mut(to[2]).enumerate() {
            let start = i * step[0] + j * step[1];
            for (k, value) in row.iter_mut().enumerate() {
                *value = values[start + k * step[2]];
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_tap_is_clamped_to_the_border() {
        assert_eq!(
            tap(-3.0, 5),
            Tap {
                low: 0,
                high: 1,
                weight: 0.0
            }
        );
        assert_eq!(
            tap(1.25, 5),
            Tap {
                low: 1,
                high: 2,
                weight: 0.25
            }
        );
        assert_eq!(
            tap(4.0, 5),
            Tap {
                low: 3,
                high: 4,
                weight: 1.0
            }
        );
        assert_eq!(
            tap(9.0, 5),
            Tap {
                low: 3,
                high: 4,
                weight: 1.0
            }
        );
        assert_eq!(
            tap(2.0, 1),
            Tap {
                low: 0,
                high: 0,
                weight: 0.0
            }
        );
        assert_eq!(
            tap(f64::NAN, 5),
            Tap {
                low: 0,
                high: 1,
                weight: 0.0
            }
        );
    }

    #[test]
    fn a_position_between_uneven_slices_is_a_fraction_of_their_gap() {
        let positions = [0.0, 1.0, 4.0];
        assert_eq!(slice_index(&positions, 2.5), 1.5);
        assert_eq!(slice_index(&positions, -0.5), -0.5);
        assert_eq!(slice_index(&positions, 7.0), 3.0);
    }

    #[test]
    fn permuting_there_and_back_changes_nothing() {
        let values: Vec<u32> = (0..24).collect();
        let there = permute(&values, [2, 3, 4], [2, 0, 1]);
        assert_eq!(there[1], 4);
        assert_eq!(permute(&there, [4, 2, 3], [1, 2, 0]), values);
    }
}
