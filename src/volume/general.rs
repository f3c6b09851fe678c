//! Sampling point by point, where the axes of grid and stack are not parallel or the slices are sheared: gantry tilt, straightened oblique stacks.
//!
//! A point is projected along the normal onto the slices before and behind it, each with its own origin; there it is interpolated in the plane, and then
//! between the two by its distances. A field that is linear in space is reproduced exactly.

use rayon::prelude::*;

use super::resample::{Padding, Sample, Scale, air_for_padding};
use super::{AIR_HU, Grid, RegularGrid};
use crate::series::vector::{difference, dot};

/// A point in the stack's own axes: millimetres from the first voxel of the first slice along normal, column direction, row direction.
type Own = [f64; 3];

/// What sampling needs to know of a stack, worked out once.
struct Places<'a> {
    grid: &'a Grid,
    /// Origin of every slice in the stack's own axes.
    origins: Vec<Own>,
}

/// The place of a point: the slice before it, how far it is to the next (clamped), and its row and column in each of the two.
struct Place {
    slice: usize,
    weight: f64,
    row: [f64; 2],
    column: [f64; 2],
}

impl Places<'_> {
    fn new(grid: &Grid) -> Places<'_> {
        let origins = grid
            .origins
            .iter()
            .map(|origin| to_own(grid, difference(*origin, grid.origins[0])))
            .collect();
        Places { grid, origins }
    }

    /// The place of a point, or `None` where it lies outside the stack by more than `reach` (along normal, column direction, row direction). `hint` is a slice
    /// near which the search begins, and becomes the one found.
    fn find(&self, point: Own, reach: Own, hint: &mut usize) -> Option<Place> {
        let last = self.origins.len() - 1;
        let mut slice = *hint;
        while slice + 1 < last && point[0] >= self.origins[slice + 1][0] {
            slice += 1;
        }
        while slice > 0 && point[0] < self.origins[slice][0] {
            slice -= 1;
        }
        *hint = slice;
        let (before, behind) = (self.origins[slice], self.origins[(slice + 1).min(last)]);
        let step = behind[0] - before[0];
        let weight = if step > 0.0 {
            ((point[0] - before[0]) / step).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let [rows, columns] = [self.grid.rows, self.grid.columns].map(|n| (n - 1) as f64);
        let [row_mm, column_mm] = self.grid.spacing_mm;
        // Inside is meant of the sheared block that the slices make, so the origin between two slices lies between theirs.
        let within = |axis: usize, extent: f64| {
            let along = point[axis] - (before[axis] + weight * (behind[axis] - before[axis]));
            along >= -reach[axis] && along <= extent + reach[axis]
        };
        let within_slices = point[0] >= -reach[0] && point[0] <= self.origins[last][0] + reach[0];
        (within_slices && within(1, rows * row_mm) && within(2, columns * column_mm)).then(|| Place {
            slice,
            weight,
            row: [before, behind].map(|origin| ((point[1] - origin[1]) / row_mm).clamp(0.0, rows)),
            column: [before, behind].map(|origin| ((point[2] - origin[2]) / column_mm).clamp(0.0, columns)),
        })
    }

    /// One value a voxel of a regular grid, row by row on all cores: `at` of its place, or `outside` where it has none.
    fn sample<T: Copy + Send + Sync>(
        &self,
        to: &RegularGrid,
        reach: Own,
        outside: T,
        at: impl Fn(&Place) -> T + Sync,
    ) -> Vec<T> {
        let mut out = vec![outside; to.voxel_count()];
        out.par_chunks_mut(to.shape[2].max(1))
            .enumerate()
            .for_each(|(row, values)| {
                let (start, step) = row_start(self.grid, to, row);
                let mut hint = 0;
                for (x, value) in values.iter_mut().enumerate() {
                    let point = std::array::from_fn(|i| start[i] + x as f64 * step[i]);
                    if let Some(place) = self.find(point, reach, &mut hint) {
                        *value = at(&place);
                    }
                }
            });
        out
    }

    /// Bilinear value in one slice at a row and column inside it.
    fn bilinear<S: Sample>(&self, voxels: &[S], padding: Padding, slice: usize, row: f64, column: f64) -> f32 {
        let (rows, columns) = (self.grid.rows, self.grid.columns);
        let (upper, left) = (row as usize, column as usize);
        let (lower, right) = ((upper + 1).min(rows - 1), (left + 1).min(columns - 1));
        let (down, along) = ((row - upper as f64) as f32, (column - left as f64) as f32);
        let start = slice * rows * columns;
        let at = |r: usize, c: usize| {
            let hu = voxels[start + r * columns + c].hu();
            padding.map_or(hu, |range| air_for_padding(hu, range))
        };
        let (a, b) = (at(upper, left), at(upper, right));
        let (c, d) = (at(lower, left), at(lower, right));
        let (first, second) = (a + along * (b - a), c + along * (d - c));
        first + down * (second - first)
    }
}

/// A direction or an offset in the stack's own axes.
fn to_own(grid: &Grid, vector: [f64; 3]) -> Own {
    [
        dot(vector, grid.normal),
        dot(vector, grid.column_direction),
        dot(vector, grid.row_direction),
    ]
}

/// The first point of each row of a regular grid and the step along it, both in the stack's own axes.
fn row_start(grid: &Grid, to: &RegularGrid, row: usize) -> (Own, Own) {
    let (z, y) = (row / to.shape[1], row % to.shape[1]);
    let start = difference(to.centre(z as f64, y as f64, 0.0), grid.origins[0]);
    (
        to_own(grid, start),
        to_own(grid, to.axes[0].map(|component| component * to.spacing_mm[0])),
    )
}

/// Values on a regular grid. Points further outside the stack than linear interpolation on that grid reaches are air.
pub(super) fn values<S: Sample>(
    voxels: &[S],
    grid: &Grid,
    padding: &[Padding],
    to: &RegularGrid,
    scale: Scale,
) -> Vec<f32> {
    let places = Places::new(grid);
    let reach: Own = [grid.normal, grid.column_direction, grid.row_direction].map(|direction| {
        (0..3)
            .map(|axis| dot(to.axes[axis], direction).abs() * to.spacing_mm[axis])
            .sum()
    });
    places.sample(to, reach, scale.apply(AIR_HU), |place| {
        let at = |side: usize, slice: usize| {
            let padding = padding.get(slice).copied().flatten();
            places.bilinear(voxels, padding, slice, place.row[side], place.column[side])
        };
        let before = at(0, place.slice);
        let hu = if place.weight == 0.0 {
            before
        } else {
            before + place.weight as f32 * (at(1, place.slice + 1) - before)
        };
        scale.apply(hu)
    })
}

/// The nearest voxel's label on a regular grid; 0 outside the stack by more than half a voxel.
pub(super) fn labels(labels: &[u8], grid: &Grid, to: &RegularGrid) -> Vec<u8> {
    let places = Places::new(grid);
    let steps = grid.steps_mm();
    let end = |step: Option<&f64>| 0.5 * step.copied().unwrap_or(0.0);
    let reach = [
        end(steps.first()).max(end(steps.last())),
        0.5 * grid.spacing_mm[0],
        0.5 * grid.spacing_mm[1],
    ];
    places.sample(to, reach, 0, |place| {
        let side = usize::from(place.weight > 0.5);
        let (r, c) = (
            place.row[side].round_ties_even() as usize,
            place.column[side].round_ties_even() as usize,
        );
        labels[((place.slice + side) * grid.rows + r) * grid.columns + c]
    })
}
