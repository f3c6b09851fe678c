//! A mask with doubtful voxels in, the aerated ones of them taken for lung, and the others not, out.
//!
//! A network is least sure where a slice holds a part of a dome, in the first and the last slice, and at a noisy edge; and there the Hounsfield units often say it: what is
//! neither tissue nor free gas, beside what is lung, is lung. The threshold for that is lower than for tissue, of which only the network can tell. What comes in and hangs
//! together with no lung is left to [`clean`](super::clean).

use rayon::prelude::*;

use super::{LungsError, check_shape, slabs};
use crate::volume::{DOUBTFUL, Mask, Volume, Voxels};

/// What is below this is as likely gas of the bowel or a windpipe as lung, and stays out where the network doubts.
const ABOVE_GAS_HU: f32 = -900.0;

/// Gives label 1 to doubtful voxels between free gas and `aerated_below_hu`, and 0 to the others; padding is not aerated. The volume of the former, in millilitres.
///
/// All cores, one pass, no memory of its own.
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
    let area = volume.grid.rows * volume.grid.columns;
    if area == 0 {
        return Ok(0.0);
    }
    let slices = mask
        .labels
        .par_chunks_exact_mut(area)
        .zip(values.par_chunks_exact(area));
    let added: Vec<usize> = slices
        .enumerate()
        .map(|(slice, (labels, values))| {
            let is_padding = volume.is_padding(slice);
            let mut added = 0;
            for (label, &value) in labels.iter_mut().zip(values).filter(|(label, _)| **label == DOUBTFUL) {
                let hu: f32 = value.into();
                let lung = (ABOVE_GAS_HU..aerated_below_hu).contains(&hu) && !is_padding(hu);
                *label = u8::from(lung);
                added += usize::from(lung);
            }
            added
        })
        .collect();
    let voxel_ml = slabs::voxel_ml(&volume.grid);
    Ok(added.iter().zip(&voxel_ml).map(|(&count, ml)| count as f64 * ml).sum())
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
            labels: vec![2, 2, 2, 2, 1, 2, 0, 1, 2, 2],
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
            assert_eq!(mask.labels, [0, 1, 1, 0, 1, 1, 0, 1, 0, 0]);
            assert!((ml - 3.0 * 0.002).abs() < 1e-12, "{ml}");
            assert_eq!(settle_doubt(&mut mask, &volume, -400.0).unwrap(), 0.0);
        }
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
