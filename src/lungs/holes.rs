//! Runs of lung in, what they enclose filled.
//!
//! A hole is background that cannot leave the volume by faces (6 neighbours), as in scipy's `binary_fill_holes`: a vessel that runs out at the hilum is none, and the
//! mediastinum between two lungs that touch in front and behind never becomes one, as it would slice by slice. In the first and the last slice nothing is enclosed
//! that way, wherever the scan ended; there a hole is what cannot leave the slice, and only what is aerated: a dome that the lung surrounds stays.

use rayon::prelude::*;

use super::components::{Components, Connectivity};
use super::doubt::ABOVE_GAS_HU;
use super::runs::{Run, Runs};
use super::{LungsError, check_shape, slabs};
use crate::volume::{Mask, Volume, Voxels};

/// Fills what the runs of a mask enclose, up to this volume a hole. How many holes, and their millilitres.
pub(super) fn fill_holes(
    mask: &mut Mask,
    lung: &Runs,
    voxel_ml: &[f64],
    up_to_ml: f64,
) -> Result<(usize, f64), LungsError> {
    let gaps = Gaps::of(lung, Leave::Volume)?;
    let volumes = gaps
        .components
        .sums(&gaps.runs, |slice, run| run.len() as f64 * voxel_ml[slice]);
    let filled: Vec<bool> = volumes
        .iter()
        .zip(&gaps.open)
        .map(|(&volume, &open)| !open && volume <= up_to_ml)
        .collect();
    gaps.fill(mask, &filled);
    Ok(total(&volumes, &filled))
}

/// Fills holes of the first and the last slice that lung encloses in plane and that are aerated on average, between free gas and `aerated_below_hu`, up to `up_to_ml`
/// each. How many holes, and their millilitres.
///
/// Where a series ends over a dome, its last slice shows the rest of the dome in the middle of the lung, and a network without a slice beyond leaves it out.
///
/// # Errors
/// If mask and volume do not have one shape.
pub fn fill_end_holes(
    mask: &mut Mask,
    volume: &Volume,
    up_to_ml: f64,
    aerated_below_hu: f32,
) -> Result<(usize, f64), LungsError> {
    match &volume.voxels {
        Voxels::I16(values) => fill_ends(mask, volume, values, up_to_ml, aerated_below_hu),
        Voxels::F32(values) => fill_ends(mask, volume, values, up_to_ml, aerated_below_hu),
    }
}

fn fill_ends<T: Copy + Into<f32>>(
    mask: &mut Mask,
    volume: &Volume,
    values: &[T],
    up_to_ml: f64,
    aerated_below_hu: f32,
) -> Result<(usize, f64), LungsError> {
    check_shape(mask, &volume.grid, Some(values.len()))?;
    let [slices, rows, columns] = mask.shape;
    let area = rows * columns;
    let mut ends = vec![0, slices.saturating_sub(1)];
    ends.dedup();
    if area == 0 || slices == 0 || up_to_ml <= 0.0 {
        return Ok((0, 0.0));
    }
    let voxel_ml = slabs::voxel_ml(&volume.grid);
    let (mut holes, mut filled_ml) = (0, 0.0);
    for slice in ends {
        let of_slice = slice * area..(slice + 1) * area;
        let mut flat = Mask {
            shape: [1, rows, columns],
            labels: mask.labels[of_slice.clone()].to_vec(),
        };
        let gaps = Gaps::of(&Runs::of(&flat)?, Leave::Slice)?;
        let volumes = gaps
            .components
            .sums(&gaps.runs, |_, run| run.len() as f64 * voxel_ml[slice]);
        let means = gaps.means(&values[of_slice.clone()]);
        let filled: Vec<bool> = (0..gaps.open.len())
            .map(|hole| {
                !gaps.open[hole] && volumes[hole] <= up_to_ml && (ABOVE_GAS_HU..aerated_below_hu).contains(&means[hole])
            })
            .collect();
        gaps.fill(&mut flat, &filled);
        mask.labels[of_slice].copy_from_slice(&flat.labels);
        let (count, ml) = total(&volumes, &filled);
        holes += count;
        filled_ml += ml;
    }
    Ok((holes, filled_ml))
}

/// How many are filled, and their volume.
fn total(volumes: &[f64], filled: &[bool]) -> (usize, f64) {
    let of = volumes.iter().zip(filled).filter(|(_, fill)| **fill);
    of.fold((0, 0.0), |(count, sum), (volume, _)| (count + 1, sum + volume))
}

/// What a hole must not be able to leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    Volume,
    Slice,
}

/// The gaps between two runs of a row, and what hangs together of them. The first and the last gap of a row reach the border of the slice, so they, and whatever touches
/// them, are outside.
struct Gaps {
    runs: Runs,
    components: Components,
    /// By component: whether it is outside.
    open: Vec<bool>,
}

impl Gaps {
    fn of(lung: &Runs, leave: Leave) -> Result<Gaps, LungsError> {
        let [slices, rows, _] = lung.shape;
        let runs = Runs::by_slice(lung.shape, |slice, found| {
            for row in 0..rows {
                let between = lung.runs[lung.row(slice, row)].windows(2);
                found.runs.extend(between.map(|pair| Run {
                    start: pair[0].end,
                    end: pair[1].start,
                }));
                found.end_row();
            }
        })?;
        let components = Components::of(&runs, Connectivity::Faces);
        let open_runs: Vec<Vec<u32>> = (0..slices)
            .into_par_iter()
            .map(|slice| {
                let mut open = Vec::new();
                let end_slice = slice == 0 || slice + 1 == slices;
                for row in 0..rows {
                    let border = row == 0 || row + 1 == rows || (leave == Leave::Volume && end_slice);
                    for index in runs.row(slice, row) {
                        if border || reaches_out(lung, slice, row, runs.runs[index], leave) {
                            open.push(components.of_run[index]);
                        }
                    }
                }
                open
            })
            .collect();
        let mut open = vec![false; components.count];
        for component in open_runs.into_iter().flatten() {
            open[component as usize] = true;
        }
        Ok(Gaps { runs, components, open })
    }

    /// By component: the mean of the values of one slice's voxels, where these gaps are of one slice.
    fn means<T: Copy + Into<f32>>(&self, values: &[T]) -> Vec<f32> {
        let [_, rows, columns] = self.runs.shape;
        let mut sums = vec![(0.0, 0); self.components.count];
        for row in 0..rows {
            for index in self.runs.row(0, row) {
                let run = self.runs.runs[index];
                let (sum, count) = &mut sums[self.components.of_run[index] as usize];
                for &value in &values[row * columns..][run.columns()] {
                    let value: f32 = value.into();
                    *sum += f64::from(value);
                    *count += 1;
                }
            }
        }
        sums.into_iter()
            .map(|(sum, count)| (sum / f64::from(count)) as f32)
            .collect()
    }

    /// Gives the voxels of these components the label before them.
    fn fill(&self, mask: &mut Mask, filled: &[bool]) {
        if !filled.contains(&true) {
            return;
        }
        let is_filled = |index: usize| filled[self.components.of_run[index] as usize];
        self.runs.rewrite(mask, is_filled, |row, run| {
            // A gap begins after a run, so a label stands before it.
            let label = row[run.start as usize - 1];
            row[run.columns()].fill(label);
        });
    }
}

/// Whether a gap touches the first or last gap, or the emptiness, of one of the rows around it. Not called on the border of what it could leave.
fn reaches_out(lung: &Runs, slice: usize, row: usize, gap: Run, leave: Leave) -> bool {
    let outside = |slice: usize, row: usize| {
        let runs = &lung.runs[lung.row(slice, row)];
        match (runs.first(), runs.last()) {
            (Some(first), Some(last)) => gap.start < first.start || gap.end > last.end,
            _ => true,
        }
    };
    outside(slice, row - 1)
        || outside(slice, row + 1)
        || (leave == Leave::Volume && (outside(slice - 1, row) || outside(slice + 1, row)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::lungs::pieces::tests::{box_of, grid};

    const SHAPE: [usize; 3] = [3, 12, 20];

    /// Lung of -850 HU in tissue of 40 HU, through all slices, with a hole of 3 x 4 voxels of the second label in each.
    fn scene(hole_hu: i16) -> (Mask, Volume) {
        let mut mask = Mask {
            shape: SHAPE,
            labels: vec![0; SHAPE.iter().product()],
        };
        box_of(&mut mask, [0..3, 1..11, 2..18], 2);
        let mut values: Vec<i16> = mask
            .labels
            .iter()
            .map(|&label| if label == 2 { -850 } else { 40 })
            .collect();
        let before = mask.labels.clone();
        box_of(&mut mask, [0..3, 4..7, 6..10], 0);
        for (value, _) in values
            .iter_mut()
            .zip(before.iter().zip(&mask.labels))
            .filter(|(_, (before, now))| before != now)
        {
            *value = hole_hu;
        }
        let volume = Volume {
            grid: grid(SHAPE, [5.0, 1.0, 1.0]),
            voxels: Voxels::I16(values),
            padding_hu: Vec::new(),
        };
        (mask, volume)
    }

    #[test]
    fn an_aerated_hole_of_an_end_slice_is_filled_and_tissue_and_gas_are_not() {
        for (hu, ends) in [
            (-899, true),
            (-600, true),
            (-401, true),
            (-400, false),
            (40, false),
            (-950, false),
        ] {
            let (mut mask, volume) = scene(hu);
            let mut expected = mask.clone();
            if ends {
                box_of(&mut expected, [0..1, 4..7, 6..10], 2);
                box_of(&mut expected, [2..3, 4..7, 6..10], 2);
            }
            let (holes, ml) = fill_end_holes(&mut mask, &volume, 0.06, -400.0).unwrap();
            assert_eq!(mask, expected, "{hu}");
            assert_eq!(holes, if ends { 2 } else { 0 });
            assert!((ml - if ends { 0.12 } else { 0.0 }).abs() < 1e-12, "{ml}");
        }
    }

    #[test]
    fn what_is_open_in_plane_or_too_large_or_not_wanted_stays() {
        let unchanged = |mask: &Mask, volume: &Volume, up_to_ml: f64| {
            let mut after = mask.clone();
            assert_eq!(fill_end_holes(&mut after, volume, up_to_ml, -400.0).unwrap(), (0, 0.0));
            assert_eq!(&after, mask);
        };
        let (mask, volume) = scene(-600);
        unchanged(&mask, &volume, 0.059);
        unchanged(&mask, &volume, 0.0);
        let mut open = mask.clone();
        box_of(&mut open, [0..3, 1..5, 7..8], 0);
        unchanged(&open, &volume, 1.0);
        let mut beside = mask.clone();
        box_of(&mut beside, [0..3, 5..6, 2..7], 0);
        unchanged(&beside, &volume, 1.0);
    }

    #[test]
    fn a_lone_slice_is_looked_at_once() {
        let (mask, volume) = scene(-600);
        let area = SHAPE[1] * SHAPE[2];
        let Voxels::I16(values) = volume.voxels else { panic!() };
        let mut mask = Mask {
            shape: [1, SHAPE[1], SHAPE[2]],
            labels: mask.labels[..area].to_vec(),
        };
        let volume = Volume {
            grid: grid(mask.shape, [5.0, 1.0, 1.0]),
            voxels: Voxels::I16(values[..area].to_vec()),
            padding_hu: Vec::new(),
        };
        let (holes, _) = fill_end_holes(&mut mask, &volume, 1.0, -400.0).unwrap();
        assert_eq!(holes, 1);
        mask.labels.pop();
        assert!(matches!(
            fill_end_holes(&mut mask, &volume, 1.0, -400.0),
            Err(LungsError::Shape { .. })
        ));
    }
}
