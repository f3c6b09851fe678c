//! Runs on a grid in, where they lie from right to left out: volume and middle of every piece, and the profile of the whole across the patient.

use rayon::prelude::*;

use super::components::Components;
use super::runs::{Run, Runs};
use super::slabs;
use crate::volume::Grid;

/// Width of a bin of the profile.
pub(super) const BIN_MM: f64 = 2.0;

/// The patient's x (LPS, growing to the left) of voxels, and their volumes.
pub(super) struct Across {
    origins_mm: Vec<f64>,
    row_step_mm: f64,
    column_step_mm: f64,
    pub(super) voxel_ml: Vec<f64>,
}

/// Volume and place of a piece of lung.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Piece {
    pub(super) volume_ml: f64,
    /// Mean of x over the volume, in millimetres.
    pub(super) x_mm: f64,
}

/// Volume per bin along x.
pub(super) struct Profile {
    /// x where the first bin begins, in millimetres.
    pub(super) begin_mm: f64,
    pub(super) bins_ml: Vec<f64>,
}

impl Across {
    pub(super) fn of(grid: &Grid) -> Across {
        Across {
            origins_mm: grid.origins.iter().map(|origin| origin[0]).collect(),
            row_step_mm: grid.spacing_mm[0] * grid.column_direction[0],
            column_step_mm: grid.spacing_mm[1] * grid.row_direction[0],
            voxel_ml: slabs::voxel_ml(grid),
        }
    }

    /// x of the centre of a column, which need not be whole.
    fn x_mm(&self, slice: usize, row: usize, column: f64) -> f64 {
        self.origins_mm[slice] + row as f64 * self.row_step_mm + column * self.column_step_mm
    }

    fn middle_mm(&self, slice: usize, row: usize, run: Run) -> f64 {
        self.x_mm(slice, row, f64::from(run.start + run.end - 1) / 2.0)
    }

    /// Volume and middle of each component.
    pub(super) fn pieces(&self, runs: &Runs, components: &Components) -> Vec<Piece> {
        let mut pieces = vec![Piece::default(); components.count];
        for slice in 0..runs.shape[0] {
            for row in 0..runs.shape[1] {
                for index in runs.row(slice, row) {
                    let run = runs.runs[index];
                    let volume = run.len() as f64 * self.voxel_ml[slice];
                    let piece = &mut pieces[components.of_run[index] as usize];
                    piece.volume_ml += volume;
                    piece.x_mm += volume * self.middle_mm(slice, row, run);
                }
            }
        }
        for piece in &mut pieces {
            piece.x_mm /= piece.volume_ml;
        }
        pieces
    }

    /// Volume and middle of all runs together.
    pub(super) fn piece(&self, runs: &Runs) -> Piece {
        let one = Components {
            of_run: vec![0; runs.runs.len()],
            count: 1,
        };
        self.pieces(runs, &one)[0]
    }

    /// Of each component, the volume to the right of x: where voxel centres have a smaller x.
    pub(super) fn right_of(&self, runs: &Runs, components: &Components, x_mm: f64) -> Vec<f64> {
        let mut volumes = vec![0.0; components.count];
        for slice in 0..runs.shape[0] {
            for row in 0..runs.shape[1] {
                for index in runs.row(slice, row) {
                    let (right, _) = self.part(slice, row, runs.runs[index], x_mm);
                    volumes[components.of_run[index] as usize] += right.len() as f64 * self.voxel_ml[slice];
                }
            }
        }
        volumes
    }

    /// A run in two: what lies to the right of x, and the rest; either may be empty.
    pub(super) fn part(&self, slice: usize, row: usize, run: Run, x_mm: f64) -> (Run, Run) {
        let rising = self.column_step_mm >= 0.0;
        let count = if self.column_step_mm.abs() < 1e-9 {
            if self.middle_mm(slice, row, run) < x_mm {
                run.len()
            } else {
                0
            }
        } else {
            let first = if rising { run.start } else { run.end - 1 };
            let to_go = (x_mm - self.x_mm(slice, row, f64::from(first))) / self.column_step_mm.abs();
            (to_go.ceil().max(0.0) as usize).min(run.len())
        };
        let middle = if rising {
            run.start + count as u32
        } else {
            run.end - count as u32
        };
        let (low, high) = (Run { end: middle, ..run }, Run { start: middle, ..run });
        if rising { (low, high) } else { (high, low) }
    }

    /// The profile of all runs along x.
    pub(super) fn profile(&self, runs: &Runs) -> Profile {
        let reach = (
            self.row_step_mm.abs() * runs.shape[1] as f64,
            self.column_step_mm.abs() * runs.shape[2] as f64,
        );
        let (least, most) = self
            .origins_mm
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &x| {
                (least.min(x), most.max(x))
            });
        let begin_mm = least - reach.0 - reach.1 - BIN_MM;
        // Grids reach a metre or two; the bound keeps a nonsensical one from asking for memory.
        let count = (((most + reach.0 + reach.1 - begin_mm) / BIN_MM).ceil() as usize + 2).min(1 << 16);
        let bins_ml = (0..runs.shape[0])
            .into_par_iter()
            .fold(
                || vec![0.0; count],
                |mut bins, slice| {
                    for row in 0..runs.shape[1] {
                        for run in &runs.runs[runs.row(slice, row)] {
                            let ends = [-0.5, run.len() as f64 - 0.5]
                                .map(|column| self.x_mm(slice, row, f64::from(run.start) + column));
                            let (from, to) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
                            add(
                                &mut bins,
                                (from - begin_mm) / BIN_MM,
                                (to - begin_mm) / BIN_MM,
                                run.len() as f64 * self.voxel_ml[slice],
                            );
                        }
                    }
                    bins
                },
            )
            .reduce(
                || vec![0.0; count],
                |mut sum, bins| {
                    for (sum, bin) in sum.iter_mut().zip(bins) {
                        *sum += bin;
                    }
                    sum
                },
            );
        Profile { begin_mm, bins_ml }
    }
}

/// Spreads a volume evenly over the bins from `from` to `to`.
fn add(bins: &mut [f64], from: f64, to: f64, volume: f64) {
    let last = bins.len() - 1;
    if to - from < 1e-6 {
        bins[(from.max(0.0) as usize).min(last)] += volume;
        return;
    }
    let per_bin = volume / (to - from);
    let mut at = from;
    while at < to {
        let bin = (at.max(0.0) as usize).min(last);
        let end = ((bin + 1) as f64).min(to);
        if end <= at {
            return;
        }
        bins[bin] += (end - at) * per_bin;
        at = end;
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::ops::Range;

    use super::*;
    use crate::lungs::components::Connectivity;
    use crate::volume::Mask;

    /// Axial slices from the feet up, `spacing_mm` along slices, rows and columns.
    pub(in crate::lungs) fn grid(shape: [usize; 3], spacing_mm: [f64; 3]) -> Grid {
        Grid {
            rows: shape[1],
            columns: shape[2],
            origins: (0..shape[0])
                .map(|slice| [0.0, 0.0, slice as f64 * spacing_mm[0]])
                .collect(),
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            normal: [0.0, 0.0, 1.0],
            spacing_mm: [spacing_mm[1], spacing_mm[2]],
        }
    }

    pub(in crate::lungs) fn box_of(mask: &mut Mask, bounds: [Range<usize>; 3], label: u8) {
        for slice in bounds[0].clone() {
            for row in bounds[1].clone() {
                let start = (slice * mask.shape[1] + row) * mask.shape[2];
                mask.labels[start..][bounds[2].clone()].fill(label);
            }
        }
    }

    #[test]
    fn pieces_profile_and_parts_agree_in_either_direction_of_the_rows() {
        let shape = [3, 6, 40];
        for step in [1.0, -1.0] {
            let mut grid = grid(shape, [2.0, 1.5, 1.0]);
            grid.row_direction = [step, 0.0, 0.0];
            let mut mask = Mask {
                shape,
                labels: vec![0; shape.iter().product()],
            };
            box_of(&mut mask, [0..2, 1..3, 4..14], 1);
            box_of(&mut mask, [1..3, 4..6, 20..40], 1);
            let runs = Runs::of(&mask).unwrap();
            let components = Components::of(&runs, Connectivity::Full);
            let across = Across::of(&grid);
            let pieces = across.pieces(&runs, &components);
            assert!((pieces[0].volume_ml - 0.12).abs() < 1e-9 && (pieces[0].x_mm - step * 8.5).abs() < 1e-9);
            assert!((pieces[1].volume_ml - 0.24).abs() < 1e-9 && (pieces[1].x_mm - step * 29.5).abs() < 1e-9);
            let right = across.right_of(&runs, &components, step * 29.5);
            assert!((right[1] - 0.12).abs() < 1e-9, "{right:?}");
            assert!(
                (right[0] - if step > 0.0 { 0.12 } else { 0.0 }).abs() < 1e-9,
                "{right:?}"
            );
            let profile = across.profile(&runs);
            let mean = profile
                .bins_ml
                .iter()
                .enumerate()
                .map(|(bin, volume)| volume * (profile.begin_mm + (bin as f64 + 0.5) * BIN_MM))
                .sum::<f64>()
                / 0.36;
            assert!((profile.bins_ml.iter().sum::<f64>() - 0.36).abs() < 1e-9);
            assert!((mean - step * (8.5 * 0.12 + 29.5 * 0.24) / 0.36).abs() < 0.5);
        }
    }
}
