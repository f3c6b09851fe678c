//! Two masks on one grid in, the distances between their surfaces out.
//!
//! A surface voxel is a voxel of the mask with a background voxel among its six neighbours (the mask minus its erosion by one, as MONAI's `get_mask_edges`; what
//! lies outside the grid is background). Distances run between voxel centres in millimetres and come from an exact Euclidean distance transform, one axis after the
//! other (Felzenszwalb and Huttenlocher 2012), with the true place of every slice. Sheared slices (gantry tilt) are shifted by whole voxels first.

use rayon::prelude::*;

use super::grid::{positions, shifts};
use crate::volume::Grid;

/// Distances from each surface voxel of one mask to the nearest of the other, both ways.
pub(super) struct Surfaces {
    forth: Vec<f32>,
    back: Vec<f32>,
}

impl Surfaces {
    /// `None` when a mask is empty.
    pub(super) fn between(grid: &Grid, a: impl Fn(usize) -> bool, b: impl Fn(usize) -> bool) -> Option<Self> {
        let block = Block::new(grid, &a, &b)?;
        let (edges_a, edges_b) = (edges(&block.a, block.shape), edges(&block.b, block.shape));
        let forth = block.distances(&edges_a, &edges_b);
        let back = block.distances(&edges_b, &edges_a);
        (!forth.is_empty() && !back.is_empty()).then_some(Self { forth, back })
    }

    /// The larger of the two directed percentiles (100 is the Hausdorff distance itself), with linear interpolation between ranks as `torch.quantile`.
    pub(super) fn hausdorff(&self, percentile: f64) -> f64 {
        percentile_of(&self.forth, percentile).max(percentile_of(&self.back, percentile))
    }

    /// Mean over the surface voxels of both (MONAI's average surface distance, symmetric).
    pub(super) fn mean(&self) -> f64 {
        let sum: f64 = self.forth.iter().chain(&self.back).map(|d| f64::from(*d)).sum();
        sum / (self.forth.len() + self.back.len()) as f64
    }
}

fn percentile_of(distances: &[f32], percentile: f64) -> f64 {
    let mut sorted = distances.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let rank = (sorted.len() - 1) as f64 * percentile / 100.0;
    let (low, share) = (rank.floor() as usize, rank.fract());
    let high = (low + 1).min(sorted.len() - 1);
    f64::from(sorted[low]) + share * (f64::from(sorted[high]) - f64::from(sorted[low]))
}

/// Both masks cut to what they cover together.
struct Block {
    shape: [usize; 3],
    a: Vec<bool>,
    b: Vec<bool>,
    slices: Vec<f64>,
    spacing: [f64; 2],
}

impl Block {
    fn new(grid: &Grid, a: &impl Fn(usize) -> bool, b: &impl Fn(usize) -> bool) -> Option<Self> {
        // As far as `LabelImage` bounds them.
        let shifts: Vec<[i64; 2]> = shifts(grid).map(|shift| shift.map(|voxels| voxels as i64)).collect();
        let area = grid.rows * grid.columns;
        let mut low = [i64::MAX; 3];
        let mut high = [i64::MIN; 3];
        let place = |index: usize| {
            let slice = index / area;
            let [down, along] = shifts[slice];
            [
                slice as i64,
                (index % area / grid.columns) as i64 + down,
                (index % grid.columns) as i64 + along,
            ]
        };
        for index in (0..area * grid.origins.len()).filter(|index| a(*index) || b(*index)) {
            let p = place(index);
            for axis in 0..3 {
                low[axis] = low[axis].min(p[axis]);
                high[axis] = high[axis].max(p[axis]);
            }
        }
        if low[0] > high[0] {
            return None;
        }
        let shape = [0, 1, 2].map(|axis| (high[axis] - low[axis] + 1) as usize);
        let mut block = Self {
            shape,
            a: vec![false; shape.iter().product()],
            b: vec![false; shape.iter().product()],
            slices: positions(grid)[low[0] as usize..=high[0] as usize].to_vec(),
            spacing: grid.spacing_mm,
        };
        for index in (low[0] as usize * area)..((high[0] as usize + 1) * area) {
            let (in_a, in_b) = (a(index), b(index));
            if in_a || in_b {
                let p = place(index);
                let [z, y, x] = [0, 1, 2].map(|axis| (p[axis] - low[axis]) as usize);
                let at = (z * shape[1] + y) * shape[2] + x;
                block.a[at] = in_a;
                block.b[at] = in_b;
            }
        }
        Some(block)
    }

    /// From every voxel of `from` the distance to the nearest of `to`.
    fn distances(&self, from: &[bool], to: &[bool]) -> Vec<f32> {
        let [depth, rows, columns] = self.shape;
        let area = rows * columns;
        if !to.contains(&true) {
            return Vec::new();
        }
        let mut squares = vec![f32::INFINITY; to.len()];
        squares
            .par_chunks_exact_mut(area)
            .zip(to.par_chunks_exact(area))
            .for_each(|(plane, to)| {
                for (line, to) in plane.chunks_exact_mut(columns).zip(to.chunks_exact(columns)) {
                    along_row(to, self.spacing[1], line);
                }
                let places: Vec<f64> = (0..rows).map(|row| row as f64 * self.spacing[0]).collect();
                let mut envelope = Envelope::default();
                for column in 0..columns {
                    envelope.build(&places, |row| plane[row * columns + column]);
                    envelope.walk(&places, |row, square| plane[row * columns + column] = square);
                }
            });
        (0..rows)
            .into_par_iter()
            .flat_map_iter(|row| {
                let mut envelope = Envelope::default();
                let mut found = Vec::new();
                for column in 0..columns {
                    let at = |slice: usize| slice * area + row * columns + column;
                    if (0..depth).any(|slice| from[at(slice)]) {
                        envelope.build(&self.slices, |slice| squares[at(slice)]);
                        envelope.walk(&self.slices, |slice, square| {
                            if from[at(slice)] {
                                found.push(square.sqrt());
                            }
                        });
                    }
                }
                found
            })
            .collect()
    }
}

fn edges(mask: &[bool], [depth, rows, columns]: [usize; 3]) -> Vec<bool> {
    let area = rows * columns;
    let mut edges = vec![false; mask.len()];
    edges.par_chunks_exact_mut(area).enumerate().for_each(|(slice, out)| {
        for row in 0..rows {
            for column in 0..columns {
                let at = slice * area + row * columns + column;
                if !mask[at] {
                    continue;
                }
                let within =
                    slice > 0 && slice + 1 < depth && row > 0 && row + 1 < rows && column > 0 && column + 1 < columns;
                let inner = within
                    && [at - area, at + area, at - columns, at + columns, at - 1, at + 1]
                        .into_iter()
                        .all(|near| mask[near]);
                out[row * columns + column] = !inner;
            }
        }
    });
    edges
}

/// Squared distance to the nearest marked voxel of a row.
fn along_row(marked: &[bool], spacing: f64, out: &mut [f32]) {
    let mut last = None;
    for (k, marked) in marked.iter().enumerate() {
        if *marked {
            last = Some(k);
        }
        out[k] = last.map_or(f32::INFINITY, |last| (((k - last) as f64 * spacing).powi(2)) as f32);
    }
    last = None;
    for k in (0..marked.len()).rev() {
        if marked[k] {
            last = Some(k);
        }
        if let Some(last) = last {
            out[k] = out[k].min((((last - k) as f64 * spacing).powi(2)) as f32);
        }
    }
}

/// The lower envelope of parabolas that stand at given places.
#[derive(Default)]
struct Envelope {
    /// Where a parabola stands, its height, and from where on it is the lowest.
    parts: Vec<(f64, f64, f64)>,
}

impl Envelope {
    fn build(&mut self, places: &[f64], height: impl Fn(usize) -> f32) {
        self.parts.clear();
        for (k, place) in places.iter().enumerate() {
            let height = f64::from(height(k));
            if height.is_infinite() {
                continue;
            }
            let mut from = f64::NEG_INFINITY;
            while let Some((other, other_height, since)) = self.parts.last() {
                // Not by the squares of the places: far from the origin nothing would be left of their difference.
                from = (height - other_height) / (2.0 * (place - other)) + (place + other) / 2.0;
                if from > *since {
                    break;
                }
                self.parts.pop();
                from = f64::NEG_INFINITY;
            }
            self.parts.push((*place, height, from));
        }
    }

    fn walk(&self, places: &[f64], mut set: impl FnMut(usize, f32)) {
        let mut part = 0;
        for (k, place) in places.iter().enumerate() {
            while self.parts.get(part + 1).is_some_and(|next| next.2 < *place) {
                part += 1;
            }
            if let Some((at, height, _)) = self.parts.get(part) {
                set(k, ((place - at) * (place - at) + height) as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(shape: [usize; 3], spacing: [f64; 3]) -> Grid {
        Grid {
            rows: shape[1],
            columns: shape[2],
            origins: (0..shape[0]).map(|k| [0.0, 0.0, spacing[0] * k as f64]).collect(),
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            normal: [0.0, 0.0, 1.0],
            spacing_mm: [spacing[1], spacing[2]],
        }
    }

    /// All pairs of surface voxels, one by one.
    fn slowly(mask: [&[bool]; 2], shape: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
        let [a, b] = mask.map(|mask| edges(mask, shape));
        let place = |k: usize| {
            [
                (k / (shape[1] * shape[2])) as f64 * spacing[0],
                (k / shape[2] % shape[1]) as f64 * spacing[1],
                (k % shape[2]) as f64 * spacing[2],
            ]
        };
        let near = |p: [f64; 3], to: &[bool]| {
            (0..to.len())
                .filter(|k| to[*k])
                .map(|k| {
                    (0..3)
                        .map(|axis| (p[axis] - place(k)[axis]).powi(2))
                        .sum::<f64>()
                        .sqrt()
                })
                .fold(f64::MAX, f64::min)
        };
        (0..a.len()).filter(|k| a[*k]).map(|k| near(place(k), &b)).collect()
    }

    #[test]
    fn distances_are_the_same_a_thousand_kilometres_away() {
        let near = grid([6, 1, 1], [1.0; 3]);
        let mut far = near.clone();
        far.origins.iter_mut().for_each(|origin| origin[2] += 1e9);
        for grid in [near, far] {
            let found = Surfaces::between(&grid, |k| k < 3, |k| k < 5).map(|surfaces| (surfaces.forth, surfaces.back));
            assert_eq!(found, Some((vec![0.0; 3], vec![0.0, 0.0, 0.0, 1.0, 2.0])));
        }
    }

    proptest::proptest! {
        #[test]
        fn distances_agree_with_all_pairs(
            bits in proptest::collection::vec(0_u8..10, 2 * 4 * 5 * 6),
            spacing in (0.3_f64..4.0, 0.3_f64..2.0, 0.3_f64..2.0),
        ) {
            let shape = [4, 5, 6];
            let spacing = [spacing.0, spacing.1, spacing.2];
            let (a, b) = bits.split_at(120);
            let (a, b): (Vec<bool>, Vec<bool>) = (a.iter().map(|v| *v > 5).collect(), b.iter().map(|v| *v > 6).collect());
            let found = Surfaces::between(&grid(shape, spacing), |k| a[k], |k| b[k]);
            if let Some(found) = found {
                let mut fast: Vec<f64> = found.forth.iter().map(|d| f64::from(*d)).collect();
                let mut slow = slowly([&a, &b], shape, spacing);
                fast.sort_by(f64::total_cmp);
                slow.sort_by(f64::total_cmp);
                proptest::prop_assert_eq!(fast.len(), slow.len());
                for (fast, slow) in fast.iter().zip(&slow) {
                    proptest::prop_assert!((fast - slow).abs() < 1e-4);
                }
            }
        }
    }
}
