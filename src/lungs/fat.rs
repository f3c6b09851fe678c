//! A mask that holds fat in, the mask without it out.
//!
//! A network that is to keep airless lung now and then takes other soft tissue for it, and most often fat: under the diaphragm, around the bowel. Fat is told by its Hounsfield
//! units, and by being even: ground glass and consolidation that average out to the same values are not, nor is the edge of a lung.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::components::{Components, Connectivity};
use super::runs::{Runs, stretches};
use super::{LungsError, check_shape, slabs};
use crate::volume::{Mask, Volume, Voxels};

/// How far around a voxel is looked, in plane.
const REACH_MM: f64 = 2.0;
/// Greatest mean deviation from the mean there, in Hounsfield units: noise, not structure.
const MOST_DEVIATION_HU: f32 = 45.0;
/// A single voxel of fat lies so far outside its range at most.
const NOISE_HU: f32 = 60.0;
/// Around fat, what lies between these goes with it: its border to lung and to soft tissue.
const BORDER_HU: std::ops::Range<f32> = -250.0..0.0;
/// Smaller pieces of fat stay: a network errs by lumps, and a lung may hold a little.
const LEAST_ML: f64 = 1.0;

/// What counts as fat: part of a manifest's `[post]` table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fat {
    /// The mean around a voxel of fat lies above this, in Hounsfield units.
    pub above_hu: f32,
    /// And below this.
    pub below_hu: f32,
}

/// Takes even fat out of a mask, where a millilitre of it or more hangs together. Returns the volume taken, in millilitres.
///
/// All cores; two bytes for every pixel of the slices in hand, and eight for every run of fat.
///
/// # Errors
/// If mask and volume do not have one shape.
pub fn drop_fat(mask: &mut Mask, volume: &Volume, fat: &Fat) -> Result<f64, LungsError> {
    match &volume.voxels {
        Voxels::I16(values) => drop_from(mask, volume, values, fat),
        Voxels::F32(values) => drop_from(mask, volume, values, fat),
    }
}

fn drop_from<T: Copy + Into<f32> + Sync>(
    mask: &mut Mask,
    volume: &Volume,
    values: &[T],
    fat: &Fat,
) -> Result<f64, LungsError> {
    check_shape(mask, &volume.grid, Some(values.len()))?;
    let [_, rows, columns] = mask.shape;
    let area = rows * columns;
    if area == 0 {
        return Ok(0.0);
    }
    let reach = volume
        .grid
        .spacing_mm
        .map(|spacing| (REACH_MM / spacing).round().max(1.0) as usize);
    let found = Runs::by_slice(mask.shape, |slice, found| {
        let labels = &mask.labels[slice * area..][..area];
        let plane = Plane {
            values: &values[slice * area..][..area],
            rows,
            columns,
            reach,
        };
        for row in 0..rows {
            let is_fat = |column: usize| labels[row * columns + column] != 0 && plane.is_fat(row, column, fat);
            stretches(columns, is_fat, &mut found.runs);
            found.end_row();
        }
    })?;
    if found.runs.is_empty() {
        return Ok(0.0);
    }
    let voxel_ml = slabs::voxel_ml(&volume.grid);
    let pieces = Components::of(&found, Connectivity::Full);
    let volumes = pieces.sums(&found, |slice, run| run.len() as f64 * voxel_ml[slice]);
    let lumps = found.filtered(|index| volumes[pieces.of_run[index] as usize] >= LEAST_ML)?;
    let slices = mask
        .labels
        .par_chunks_exact_mut(area)
        .zip(values.par_chunks_exact(area))
        .enumerate();
    let taken: Vec<usize> = slices
        .map(|(slice, (labels, values))| {
            if lumps.slice(slice).is_empty() {
                return 0;
            }
            let near = near(&lumps, slice, reach);
            let mut taken = 0;
            for ((label, &value), near) in labels.iter_mut().zip(values).zip(near) {
                if *label != 0 && near && BORDER_HU.contains(&value.into()) {
                    *label = 0;
                    taken += 1;
                }
            }
            taken
        })
        .collect();
    Ok(taken.iter().zip(&voxel_ml).map(|(&count, ml)| count as f64 * ml).sum())
}

/// One slice of the CT.
struct Plane<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    /// Rows and columns on either side that are looked at.
    reach: [usize; 2],
}

impl<T: Copy + Into<f32>> Plane<'_, T> {
    fn is_fat(&self, row: usize, column: usize, fat: &Fat) -> bool {
        let value: f32 = self.values[row * self.columns + column].into();
        if value <= fat.above_hu - NOISE_HU || value >= fat.below_hu + NOISE_HU {
            return false;
        }
        let [up, aside] = self.reach;
        let rows = row.saturating_sub(up)..(row + up + 1).min(self.rows);
        let columns = column.saturating_sub(aside)..(column + aside + 1).min(self.columns);
        let count = (rows.len() * columns.len()) as f32;
        let around = || {
            rows.clone()
                .flat_map(|row| &self.values[row * self.columns..][columns.clone()])
                .map(|&value| -> f32 { value.into() })
        };
        let mean = around().sum::<f32>() / count;
        mean > fat.above_hu
            && mean < fat.below_hu
            && around().map(|value| (value - mean).abs()).sum::<f32>() <= MOST_DEVIATION_HU * count
    }
}

/// Pixels of a slice within reach of a run, row by row.
fn near(runs: &Runs, slice: usize, reach: [usize; 2]) -> Vec<bool> {
    let [_, rows, columns] = runs.shape;
    let mut near = vec![false; rows * columns];
    for row in 0..rows {
        for run in &runs.runs[runs.row(slice, row)] {
            let across = (run.start as usize).saturating_sub(reach[1])..(run.end as usize + reach[1]).min(columns);
            for row in row.saturating_sub(reach[0])..(row + reach[0] + 1).min(rows) {
                near[row * columns..][across.clone()].fill(true);
            }
        }
    }
    near
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::lungs::pieces::tests::grid;

    const FAT: Fat = Fat {
        above_hu: -140.0,
        below_hu: -40.0,
    };
    const SHAPE: [usize; 3] = [6, 40, 60];

    /// Lung in columns 5 to 24, `beside` in columns 25 to 54, soft tissue around; all of both labelled. Voxels of 1 x 1 x 2 mm.
    fn chest(beside: impl Fn([usize; 3]) -> f32) -> (Mask, Volume) {
        let [slices, rows, columns] = SHAPE;
        let mut values = Vec::new();
        let mut labels = Vec::new();
        for at in (0..slices * rows * columns).map(|i| [i / (rows * columns), i / columns % rows, i % columns]) {
            let inside = (5..35).contains(&at[1]);
            values.push(match at[2] {
                5..25 if inside => -850.0,
                25..55 if inside => beside(at),
                _ => 45.0,
            });
            labels.push(u8::from(inside && (5..55).contains(&at[2])));
        }
        let volume = Volume {
            grid: grid(SHAPE, [2.0, 1.0, 1.0]),
            voxels: Voxels::F32(values),
            padding_hu: vec![None; slices],
        };
        let mask = Mask { shape: SHAPE, labels };
        (mask, volume)
    }

    /// Between -1 and 1, uneven from voxel to voxel.
    fn noise([slice, row, column]: [usize; 3]) -> f32 {
        let mixed = (slice * 7919 + row * 104_729 + column * 1_299_709) % 1013;
        mixed as f32 / 506.0 - 1.0
    }

    fn labelled(mask: &Mask, columns: std::ops::Range<usize>) -> usize {
        let in_columns = |&(index, &label): &(usize, &u8)| label != 0 && columns.contains(&(index % SHAPE[2]));
        mask.labels.iter().enumerate().filter(in_columns).count()
    }

    #[test]
    fn noisy_fat_goes_and_the_lung_beside_it_stays() {
        let (mut mask, volume) = chest(|at| -100.0 + 55.0 * noise(at));
        let ml = drop_fat(&mut mask, &volume, &FAT).unwrap();
        assert_eq!(labelled(&mask, 5..25), 6 * 30 * 20);
        // What touches lung or muscle within the reach is neither fat nor its border everywhere.
        assert!(
            labelled(&mask, 27..53) < 6 * 30 * 26 / 50,
            "{}",
            labelled(&mask, 27..53)
        );
        assert!((ml - (6 * 30 * 50 - labelled(&mask, 5..55)) as f64 * 0.002).abs() < 1e-9);
    }

    #[test]
    fn airless_hazy_and_mottled_lung_stay() {
        let kinds: [fn([usize; 3]) -> f32; 4] = [
            |at| 35.0 + 40.0 * noise(at),
            |at| -450.0 + 60.0 * noise(at),
            // Half air, half soft tissue, in grains of a millimetre: as dense as fat on average.
            |at| -100.0 + if noise(at) > 0.0 { 180.0 } else { -180.0 },
            // From lung to soft tissue within twelve millimetres: the edge of a dome in thick slices.
            |at| -850.0 + 75.0 * (at[2] - 25).min(12) as f32,
        ];
        for kind in kinds {
            let (mut mask, volume) = chest(kind);
            let before = mask.clone();
            assert_eq!(drop_fat(&mut mask, &volume, &FAT).unwrap(), 0.0);
            assert!(mask == before);
        }
    }

    #[test]
    fn a_little_fat_stays_and_voxels_of_two_kinds_agree() {
        let spot = |at: [usize; 3]| if at[1] < 15 && at[2] < 35 { -100.0 } else { 40.0 };
        let (mut mask, volume) = chest(spot);
        assert_eq!(
            drop_fat(&mut mask, &volume, &FAT).unwrap(),
            0.0,
            "0.6 mL less its border"
        );
        let (mut mask, mut volume) = chest(|_| -100.0);
        let mut other = mask.clone();
        let ml = drop_fat(&mut mask, &volume, &FAT).unwrap();
        assert!(ml > 8.0, "{ml}");
        if let Voxels::F32(values) = &volume.voxels {
            volume.voxels = Voxels::I16(values.iter().map(|&value| value as i16).collect());
        }
        assert_eq!(drop_fat(&mut other, &volume, &FAT).unwrap(), ml);
        assert!(mask == other);
    }

    #[test]
    fn another_shape_is_an_error() {
        let (mut mask, volume) = chest(|_| 0.0);
        mask.labels.pop();
        assert!(matches!(
            drop_fat(&mut mask, &volume, &FAT),
            Err(LungsError::Shape { .. })
        ));
    }
}
