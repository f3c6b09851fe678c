//! A volume and the labels of its mask in, what a plane along the patient's axes shows of them out.
//!
//! Every pixel is a point in the patient and is sampled there, so an oblique, coronal or tilted stack is shown like any other, in true proportions.

use rayon::prelude::*;

use crate::series::vector::dot;
use crate::volume::{Grid, Volume, Voxels};

/// A plane through the patient: the point of its top left pixel, and the steps to the next column and the next row. LPS millimetres.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) corner: [f64; 3],
    pub(super) across: [f64; 3],
    pub(super) down: [f64; 3],
    pub(super) width: usize,
    pub(super) height: usize,
}

/// What one pixel shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// HU, interpolated; `None` outside the stack.
    pub(super) hu: Option<f32>,
    /// How much of label 1 and of label 2 there is, 0 to 1, interpolated.
    pub(super) labels: [f32; 2],
}

/// Samples a volume and its labels on planes.
pub(super) struct Sampler<'a> {
    volume: &'a Volume,
    labels: &'a [u8],
    positions_mm: Vec<f64>,
}

impl<'a> Sampler<'a> {
    /// `labels`: one for each voxel, or none at all.
    pub(super) fn new(volume: &'a Volume, labels: &'a [u8]) -> Self {
        let grid = &volume.grid;
        let positions_mm = grid.origins.iter().map(|origin| dot(*origin, grid.normal)).collect();
        Self {
            volume,
            labels,
            positions_mm,
        }
    }

    /// All pixels of a plane, row by row.
    pub(super) fn plane(&self, plane: &Plane) -> Vec<Sample> {
        let pixels = (0..plane.width * plane.height)
            .into_par_iter()
            .with_min_len(plane.width.max(1));
        pixels
            .map(|pixel| {
                let (row, column) = ((pixel / plane.width) as f64, (pixel % plane.width) as f64);
                self.at(std::array::from_fn(|axis| {
                    plane.corner[axis] + column * plane.across[axis] + row * plane.down[axis]
                }))
            })
            .collect()
    }

    /// Trilinear between the slices on both sides, each with its own origin. Half a voxel beyond the outermost centres still belongs to the stack.
    fn at(&self, point: [f64; 3]) -> Sample {
        let grid = &self.volume.grid;
        let Some((slice, between)) = self.slice(dot(point, grid.normal)) else {
            return Sample::default();
        };
        let next = (slice + 1).min(grid.origins.len() - 1);
        let offset: [f64; 3] = std::array::from_fn(|axis| {
            let origin = grid.origins[slice][axis] + between * (grid.origins[next][axis] - grid.origins[slice][axis]);
            point[axis] - origin
        });
        let column = axis(dot(offset, grid.row_direction) / grid.spacing_mm[1], grid.columns);
        let row = axis(dot(offset, grid.column_direction) / grid.spacing_mm[0], grid.rows);
        let (Some(column), Some(row)) = (column, row) else {
            return Sample::default();
        };
        let mut sample = Sample {
            hu: Some(0.0),
            labels: [0.0; 2],
        };
        let mut hu = 0.0;
        for (slice, weight_slice) in [(slice, 1.0 - between), (next, between)] {
            for (row, weight_row) in row {
                for (column, weight_column) in column {
                    let weight = (weight_slice * weight_row * weight_column) as f32;
                    if weight == 0.0 {
                        continue;
                    }
                    let index = (slice * grid.rows + row) * grid.columns + column;
                    hu += weight
                        * match &self.volume.voxels {
                            Voxels::I16(values) => f32::from(values[index]),
                            Voxels::F32(values) => values[index],
                        };
                    if let Some(label @ (1 | 2)) = self.labels.get(index) {
                        sample.labels[usize::from(*label) - 1] += weight;
                    }
                }
            }
        }
        sample.hu = Some(hu);
        sample
    }

    /// The slice below a position and how far it is to the next, 0 to 1.
    fn slice(&self, position: f64) -> Option<(usize, f64)> {
        let positions = &self.positions_mm;
        let [first, .., last] = positions.as_slice() else {
            return None;
        };
        let half = 0.5 * (last - first) / (positions.len() - 1) as f64;
        if position < first - half || position > last + half {
            return None;
        }
        let below = positions
            .partition_point(|p| *p <= position)
            .clamp(1, positions.len() - 1)
            - 1;
        let between = (position - positions[below]) / (positions[below + 1] - positions[below]);
        Some((below, between.clamp(0.0, 1.0)))
    }
}

/// The two indices around a place along an axis, with their weights; `None` beyond half a voxel outside.
fn axis(at: f64, length: usize) -> Option<[(usize, f64); 2]> {
    let last = length.saturating_sub(1) as f64;
    if !(-0.5..=last + 0.5).contains(&at) {
        return None;
    }
    let at = at.clamp(0.0, last);
    let below = at.floor();
    let next = (below as usize + 1).min(length - 1);
    Some([(below as usize, 1.0 - (at - below)), (next, at - below)])
}

/// The smallest and largest LPS coordinates of all voxel centres.
pub(super) fn bounds(grid: &Grid) -> [[f64; 2]; 3] {
    let (rows, columns) = (
        grid.rows.saturating_sub(1) as f64,
        grid.columns.saturating_sub(1) as f64,
    );
    let mut bounds = [[f64::INFINITY, f64::NEG_INFINITY]; 3];
    for slice in [0, grid.origins.len().saturating_sub(1)] {
        for (row, column) in [(0.0, 0.0), (0.0, columns), (rows, 0.0), (rows, columns)] {
            let corner = grid.centre(slice, row, column);
            for (bound, coordinate) in bounds.iter_mut().zip(corner) {
                *bound = [bound[0].min(coordinate), bound[1].max(coordinate)];
            }
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Mask;

    /// HU = 2 x + 3 y - z in the patient, on an oblique stack with sheared, uneven slices; label 1 where x < 0, label 2 where x > 0.
    fn sloped() -> (Volume, Mask) {
        let (c, s) = (30_f64.to_radians().cos(), 30_f64.to_radians().sin());
        let grid = Grid {
            rows: 40,
            columns: 50,
            origins: [0.0, 3.0, 7.0, 9.0, 14.0]
                .iter()
                .map(|p| [-30.0 + 0.1 * p, -20.0 - s * p, c * p + 0.2 * p])
                .collect(),
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, c, s],
            normal: [0.0, -s, c],
            spacing_mm: [1.1, 1.2],
        };
        let centres = (0..5).flat_map(|slice| {
            (0..40).flat_map(move |row| (0..50).map(move |column| (slice, f64::from(row), f64::from(column))))
        });
        let points: Vec<[f64; 3]> = centres
            .map(|(slice, row, column)| grid.centre(slice, row, column))
            .collect();
        let values = points.iter().map(|[x, y, z]| (2.0 * x + 3.0 * y - z) as f32).collect();
        let labels = points.iter().map(|[x, ..]| if *x < 0.0 { 1 } else { 2 }).collect();
        let mask = Mask {
            shape: [5, 40, 50],
            labels,
        };
        (
            Volume {
                grid,
                voxels: Voxels::F32(values),
                padding_hu: vec![None; 5],
            },
            mask,
        )
    }

    #[test]
    fn a_linear_ramp_is_met_wherever_a_plane_cuts_an_oblique_sheared_stack() {
        let (volume, mask) = sloped();
        let sampler = Sampler::new(&volume, &mask.labels);
        let grid = &volume.grid;
        for (slice, row, column, between) in [
            (0, 10.3, 7.9, 0.0),
            (1, 20.0, 33.2, 0.5),
            (3, 1.5, 40.0, 0.9),
            (2, 38.9, 0.1, 0.25),
        ] {
            let (a, b) = (grid.centre(slice, row, column), grid.centre(slice + 1, row, column));
            let point: [f64; 3] = std::array::from_fn(|axis| a[axis] + between * (b[axis] - a[axis]));
            let plane = Plane {
                corner: point,
                across: [1.0, 0.0, 0.0],
                down: [0.0, 0.0, 1.0],
                width: 1,
                height: 1,
            };
            let sample = sampler.plane(&plane)[0];
            let expected = 2.0 * point[0] + 3.0 * point[1] - point[2];
            assert!(
                (f64::from(sample.hu.unwrap_or(f32::NAN)) - expected).abs() < 1e-3,
                "{sample:?} at {point:?}, expected {expected}"
            );
            assert!((sample.labels[0] + sample.labels[1] - 1.0).abs() < 1e-6);
            assert_eq!(sample.labels[0] > 0.5, point[0] < 0.0);
        }
        assert_eq!(sampler.at([500.0, 0.0, 0.0]), Sample::default());
    }
}
