//! A mask with doubtful voxels in, the aerated ones of them that lie against lung taken for lung, and the others not, out.
//!
//! A network is least sure where a slice holds a part of a dome, in the first and the last slice, and at a noisy edge; and there the Hounsfield units often say it: what is
//! neither tissue nor free gas, beside what is lung, is lung. The threshold for that is lower than for tissue, of which only the network can tell. The rim of gas in a bowel
//! or a windpipe is as grey, so that a doubtful piece with more free gas around it than lung is none. What comes in and hangs together with no lung is left to
//! [`clean`](super::clean).

use rayon::prelude::*;

use super::components::{Components, Connectivity};
use super::runs::{Runs, stretches};
use super::{LungsError, check_shape, slabs};
use crate::volume::{DOUBTFUL, Mask, Volume, Voxels};

/// What is below this is as likely gas of the bowel or a windpipe as lung, and stays out where the network doubts.
pub(super) const ABOVE_GAS_HU: f32 = -900.0;

/// Gives label 1 to doubtful voxels between free gas and `aerated_below_hu`, if what hangs together of them (6 neighbours) touches as many voxels of lung as of free gas,
/// and 0 to the others; padding is neither aerated nor gas. The volume of the former, in millilitres.
///
/// All cores; memory for the runs of what is doubtful.
///
/// # Errors
/// If mask and volume do not have one shape.
pub fn settle_doubt(mask: &mut Mask, volume: &Volume, aerated_below_hu: f32) -> Result<f64, LungsError> {
    match &volume.voxels {
        Voxels::I16(values) => settle(mask, volume, values, aerated_below_hu),
        Voxels::F32(values) => settle(mask, volume, values, aerated_below_hu),
    }
}

fn settle<T: Copy + Into<f32> + Sync>(
    mask: &mut Mask,
    volume: &Volume,
    values: &[T],
    aerated_below_hu: f32,
) -> Result<f64, LungsError> {
    check_shape(mask, &volume.grid, Some(values.len()))?;
    let [_, rows, columns] = mask.shape;
    let area = rows * columns;
    if area == 0 {
        return Ok(0.0);
    }
    let slices = mask
        .labels
        .par_chunks_exact_mut(area)
        .zip(values.par_chunks_exact(area));
    slices.enumerate().for_each(|(slice, (labels, values))| {
        let is_padding = volume.is_padding(slice);
        for (label, &value) in labels.iter_mut().zip(values).filter(|(label, _)| **label == DOUBTFUL) {
            let hu: f32 = value.into();
            if !(ABOVE_GAS_HU..aerated_below_hu).contains(&hu) || is_padding(hu) {
                *label = 0;
            }
        }
    });
    let aerated = Runs::by_slice(mask.shape, |slice, found| {
        for row in 0..rows {
            let labels = &mask.labels[slice * area + row * columns..][..columns];
            stretches(columns, |column| labels[column] == DOUBTFUL, &mut found.runs);
            found.end_row();
        }
    })?;
    if aerated.runs.is_empty() {
        return Ok(0.0);
    }
    let pieces = Components::of(&aerated, Connectivity::Faces);
    let mut balance = vec![0; pieces.count];
    for (piece, of_run) in pieces
        .of_run
        .iter()
        .zip(more_lung_than_gas(&aerated, mask, volume, values))
    {
        balance[*piece as usize] += of_run;
    }
    let is_lung = |index: usize| balance[pieces.of_run[index] as usize] >= 0;
    aerated.rewrite(mask, is_lung, |row, run| row[run.columns()].fill(1));
    aerated.rewrite(mask, |index| !is_lung(index), |row, run| row[run.columns()].fill(0));
    let voxel_ml = slabs::voxel_ml(&volume.grid);
    let volumes = pieces.sums(&aerated, |slice, run| run.len() as f64 * voxel_ml[slice]);
    Ok(volumes
        .iter()
        .zip(&balance)
        .filter(|(_, balance)| **balance >= 0)
        .map(|(ml, _)| ml)
        .sum())
}

/// How many more voxels with a face to a run are lung than free gas that is none, by run.
fn more_lung_than_gas<T: Copy + Into<f32> + Sync>(runs: &Runs, mask: &Mask, volume: &Volume, values: &[T]) -> Vec<i64> {
    let [slices, rows, columns] = mask.shape;
    let of_slice = |slice: usize| -> Vec<i64> {
        let mut balance = Vec::with_capacity(runs.slice(slice).len());
        for row in 0..rows {
            for index in runs.row(slice, row) {
                let run = runs.runs[index].columns();
                let among = |slice: usize, row: usize, columns_of: std::ops::Range<usize>| -> i64 {
                    let is_padding = volume.is_padding(slice);
                    let at = (slice * rows + row) * columns;
                    let seen = at + columns_of.start..at + columns_of.end;
                    let voxels = mask.labels[seen.clone()].iter().zip(&values[seen]);
                    voxels
                        .map(|(&label, &value)| {
                            let hu: f32 = value.into();
                            let gas = label == 0 && hu < ABOVE_GAS_HU && !is_padding(hu);
                            i64::from(label == 1) - i64::from(gas)
                        })
                        .sum()
                };
                let mut sum = among(slice, row, run.start.saturating_sub(1)..run.start)
                    + among(slice, row, run.end..(run.end + 1).min(columns));
                for (near, inside) in [(row.wrapping_sub(1), row > 0), (row + 1, row + 1 < rows)] {
                    sum += if inside { among(slice, near, run.clone()) } else { 0 };
                }
                for (near, inside) in [(slice.wrapping_sub(1), slice > 0), (slice + 1, slice + 1 < slices)] {
                    sum += if inside { among(near, row, run.clone()) } else { 0 };
                }
                balance.push(sum);
            }
        }
        balance
    };
    (0..slices).into_par_iter().flat_map_iter(of_slice).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::lungs::pieces::tests::grid;

    /// Two slices of one row: HU and labels.
    fn scene(voxels: Voxels) -> (Mask, Volume) {
        let mask = Mask {
            shape: [2, 1, 5],
            labels: vec![2, 2, 2, 2, 1, 2, 1, 1, 2, 2],
        };
        let volume = Volume {
            grid: grid(mask.shape, [2.0, 1.0, 1.0]),
            voxels,
            padding_hu: vec![None, Some((-720.0, -700.0))],
        };
        (mask, volume)
    }

    const HU: [i16; 10] = [-901, -900, -401, -400, 40, -850, -850, -1000, -710, 30];

    #[test]
    fn aerated_doubt_is_lung_and_gas_tissue_and_padding_are_not() {
        for voxels in [
            Voxels::I16(HU.to_vec()),
            Voxels::F32(HU.iter().map(|&hu| f32::from(hu)).collect()),
        ] {
            let (mut mask, volume) = scene(voxels);
            let ml = settle_doubt(&mut mask, &volume, -400.0).unwrap();
            // What the network was sure of stays, whatever the CT says.
            assert_eq!(mask.labels, [0, 1, 1, 0, 1, 1, 1, 1, 0, 0]);
            assert!((ml - 3.0 * 0.002).abs() < 1e-12, "{ml}");
            assert_eq!(settle_doubt(&mut mask, &volume, -400.0).unwrap(), 0.0);
        }
    }

    #[test]
    fn the_rim_of_free_gas_is_no_lung() {
        // Three slices of one row; in the middle one gas, its rim and lung side by side, in the last gas under the rim.
        let settled = |labels: [u8; 12], hu: [i16; 12], padding: Option<(f32, f32)>| {
            let mut mask = Mask {
                shape: [3, 1, 4],
                labels: labels.to_vec(),
            };
            let volume = Volume {
                grid: grid(mask.shape, [1.0; 3]),
                voxels: Voxels::I16(hu.to_vec()),
                padding_hu: vec![padding; 3],
            };
            let ml = settle_doubt(&mut mask, &volume, -400.0).unwrap();
            (mask.labels, ml)
        };
        let hu = [-1000, 40, 40, 40, -1000, -700, -700, -850, -1000, -1000, 40, 40];
        let rim = [0, 0, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0];
        assert_eq!(
            settled(rim, hu, None),
            ([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0].to_vec(), 0.0)
        );
        // As much lung as gas: two voxels each.
        let even = [0, 0, 1, 0, 0, 2, 2, 1, 0, 0, 0, 0];
        let (labels, ml) = settled(even, hu, None);
        assert_eq!(labels, [0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0]);
        assert!((ml - 0.002).abs() < 1e-12, "{ml}");
        // Padding is no gas.
        let (labels, _) = settled(rim, hu, Some((-1000.0, -1000.0)));
        assert_eq!(labels, [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn another_shape_is_an_error() {
        let (mut mask, volume) = scene(Voxels::I16(HU.to_vec()));
        mask.labels.pop();
        assert!(matches!(
            settle_doubt(&mut mask, &volume, -400.0),
            Err(LungsError::Shape { .. })
        ));
    }
}
