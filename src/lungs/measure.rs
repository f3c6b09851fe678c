//! A labelled mask and its volume in, the figures of each lung and of both out. Every definition, with its source, stands in `docs/measurements.md`.
//!
//! One pass on all cores counts voxels by HU, each with the thickness of its slice in whole nanometres; all figures are read off that histogram. Whole numbers add up to
//! the same sum in any order, so the figures are the same on every machine.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::runs::Runs;
use super::{LungsError, check_shape, slabs};
use crate::series::{Code, Verdict};
use crate::volume::{Mask, Volume, Voxels};

/// Of the lungs of a mask. Volumes are true ones, with the thickness of every slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// Both lungs together.
    pub total: LungMeasurements,
    /// The right lung, if it was told from the left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<LungMeasurements>,
    /// The left lung, if it was told from the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LungMeasurements>,
    /// Findings on the series that distort its densities.
    #[serde(default)]
    pub density_notes: Vec<Code>,
}

/// The findings on a series that make its density figures incomparable; `docs/measurements.md` says which figures, and how.
const DISTORT_DENSITY: [Code; 3] = [Code::SharpKernel, Code::Contrast, Code::ThickSlices];

impl Measurements {
    /// The same, with what the verdict on the series says of the densities beside them.
    #[must_use]
    pub fn noting(self, verdict: &Verdict) -> Measurements {
        Measurements {
            density_notes: DISTORT_DENSITY.into_iter().filter(|code| verdict.has(*code)).collect(),
            ..self
        }
    }

    /// The total alone: for a mask whose sides are uncertain.
    pub fn without_sides(self) -> Measurements {
        Measurements {
            right: None,
            left: None,
            ..self
        }
    }
}

/// Figures of one lung, or of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LungMeasurements {
    /// Volume of the mask in millilitres.
    pub volume_ml: f64,
    /// Of it, voxels that hold padding instead of a value, in millilitres; the densities leave them out.
    pub padding_ml: f64,
    /// Densities; none if no voxel has a value.
    pub density: Option<Density>,
}

/// Densities of the voxels that have a value, weighted by their volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// Mean in HU.
    pub mean_hu: f64,
    /// Standard deviation in HU, of the voxels as a whole population.
    pub sd_hu: f64,
    /// Percentiles in HU.
    pub percentiles_hu: PercentilesHu,
    /// Share of the volume below -950 HU, 0 to 1: the emphysema index (LAA-950), after Gevenois et al. 1995.
    pub fraction_below_minus_950_hu: f64,
    /// Share of the volume from -700 to -300 HU, both included: ground glass.
    pub fraction_minus_700_to_minus_300_hu: f64,
    /// Share of the volume above -300 HU: dense lung.
    pub fraction_above_minus_300_hu: f64,
    /// 15th percentile density (PD15, Perc15) in g/L: the 15th percentile in HU + 1000, after Dirksen et al. 1999.
    pub pd15_g_per_l: f64,
    /// Mass of tissue and blood in grams: the sum over voxels of volume x (HU + 1000) / 1000 g/mL, nothing counting below 0.
    pub mass_g: f64,
}

/// Percentile p: the lowest HU that, with all lower ones, makes up p percent of the volume or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PercentilesHu {
    /// 5th percentile.
    pub p5: f64,
    /// 10th percentile.
    pub p10: f64,
    /// 15th percentile.
    pub p15: f64,
    /// 25th percentile.
    pub p25: f64,
    /// Median.
    pub p50: f64,
    /// 75th percentile.
    pub p75: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
}

/// Measures the lungs: label 1 as right, 2 as left (see [`Measurements::without_sides`] if they are not told apart). Values that are not whole HU are rounded to a sixteenth, and
/// cut off at 8192 HU either way.
///
/// # Errors
/// If mask and volume do not have one shape.
pub fn measure(mask: &Mask, volume: &Volume) -> Result<Measurements, LungsError> {
    let (count, scale) = match &volume.voxels {
        Voxels::I16(values) => (values.len(), Scale::WHOLE),
        Voxels::F32(values) => (values.len(), Scale::SIXTEENTHS),
    };
    check_shape(mask, &volume.grid, Some(count))?;
    let runs = Runs::of(mask)?;
    let thickness_nm: Vec<u64> = slabs::thickness_mm(&volume.grid)
        .iter()
        .map(|mm| (mm * 1e6).round() as u64)
        .collect();
    let lungs = (0..mask.shape[0])
        .into_par_iter()
        .fold(
            || None,
            |so_far: Option<Counts>, slice| {
                let mut counts = so_far.unwrap_or_else(|| Counts::new(scale));
                counts.add_slice(mask, volume, &runs, slice);
                counts.weigh(thickness_nm[slice]);
                Some(counts)
            },
        )
        .map(|counts| counts.map(|counts| counts.lungs))
        .reduce(
            || None,
            |one, other| match (one, other) {
                (Some([mut right, mut left]), Some(other)) => {
                    right.add(&other[0]);
                    left.add(&other[1]);
                    Some([right, left])
                }
                (one, other) => one.or(other),
            },
        );
    let [right, left] = lungs.unwrap_or_else(|| [Histogram::new(scale), Histogram::new(scale)]);
    let area_mm2 = volume.grid.spacing_mm[0] * volume.grid.spacing_mm[1];
    let ml_per_nm = area_mm2 / 1e6 / 1e3;
    let mut total = right.clone();
    total.add(&left);
    let of = |histogram: &Histogram| histogram.measured(ml_per_nm, scale);
    Ok(Measurements {
        total: of(&total),
        right: Some(of(&right)),
        left: Some(of(&left)),
        density_notes: Vec::new(),
    })
}

/// How HU become bins: bin = HU * per_hu + zero.
#[derive(Clone, Copy)]
struct Scale {
    per_hu: i32,
    zero: i32,
    bins: usize,
}

impl Scale {
    /// Every value of an `i16`.
    const WHOLE: Scale = Scale {
        per_hu: 1,
        zero: 1 << 15,
        bins: 1 << 16,
    };
    /// Sixteenths of a HU from -8192 to 8192.
    const SIXTEENTHS: Scale = Scale {
        per_hu: 16,
        zero: 8192 * 16,
        bins: 2 * 8192 * 16 + 1,
    };

    fn hu(self, bin: usize) -> f64 {
        f64::from(bin as i32 - self.zero) / f64::from(self.per_hu)
    }

    fn bin(self, hu: i32) -> usize {
        (hu * self.per_hu + self.zero) as usize
    }
}

/// Thickness in nanometres, summed over the voxels of each bin and over padding.
#[derive(Clone)]
struct Histogram {
    bins: Vec<u64>,
    padding: u64,
}

/// Voxels of one slice, not yet weighed, and the sums so far: right and left.
struct Counts {
    slice: [Vec<u32>; 2],
    padding: [u32; 2],
    /// First and last bin that may hold something.
    touched: (usize, usize),
    lungs: [Histogram; 2],
}

impl Counts {
    fn new(scale: Scale) -> Counts {
        Counts {
            slice: [vec![0; scale.bins], vec![0; scale.bins]],
            padding: [0; 2],
            touched: (usize::MAX, 0),
            lungs: [Histogram::new(scale), Histogram::new(scale)],
        }
    }

    fn add_slice(&mut self, mask: &Mask, volume: &Volume, runs: &Runs, slice: usize) {
        let padding = volume.padding_hu.get(slice).copied().flatten();
        let [_, rows, columns] = mask.shape;
        for row in 0..rows {
            let start = (slice * rows + row) * columns;
            for run in &runs.runs[runs.row(slice, row)] {
                let voxels = start + run.start as usize..start + run.end as usize;
                let labels = &mask.labels[voxels.clone()];
                match &volume.voxels {
                    Voxels::I16(values) => {
                        let padding = padding.map(|(low, high)| (low.ceil() as i32, high.floor() as i32));
                        let bins = values[voxels].iter().map(|&hu| {
                            let hu = i32::from(hu);
                            let padded = padding.is_some_and(|(low, high)| (low..=high).contains(&hu));
                            (!padded).then_some((hu + Scale::WHOLE.zero) as usize)
                        });
                        self.add(labels, bins);
                    }
                    Voxels::F32(values) => {
                        let scale = Scale::SIXTEENTHS;
                        let bins = values[voxels].iter().map(|&hu| {
                            let padded = padding.is_some_and(|(low, high)| (low..=high).contains(&hu));
                            let sixteenths = (hu * scale.per_hu as f32)
                                .round()
                                .clamp(-(scale.zero as f32), scale.zero as f32);
                            (!padded).then_some((sixteenths as i32 + scale.zero) as usize)
                        });
                        self.add(labels, bins);
                    }
                }
            }
        }
    }

    fn add(&mut self, labels: &[u8], bins: impl Iterator<Item = Option<usize>>) {
        let (mut least, mut most) = self.touched;
        for (&label, bin) in labels.iter().zip(bins) {
            let lung = usize::from(label == 2);
            match bin {
                Some(bin) => {
                    self.slice[lung][bin] += 1;
                    least = least.min(bin);
                    most = most.max(bin);
                }
                None => self.padding[lung] += 1,
            }
        }
        self.touched = (least, most);
    }

    /// Adds the slice's voxels to the sums, and forgets them.
    fn weigh(&mut self, thickness_nm: u64) {
        for (lung, histogram) in self.lungs.iter_mut().enumerate() {
            histogram.padding += u64::from(self.padding[lung]) * thickness_nm;
            if self.touched.0 <= self.touched.1 {
                let touched = self.touched.0..=self.touched.1;
                for (sum, count) in histogram.bins[touched.clone()]
                    .iter_mut()
                    .zip(&mut self.slice[lung][touched])
                {
                    *sum += u64::from(*count) * thickness_nm;
                    *count = 0;
                }
            }
        }
        self.padding = [0; 2];
        self.touched = (usize::MAX, 0);
    }
}

impl Histogram {
    fn new(scale: Scale) -> Histogram {
        Histogram {
            bins: vec![0; scale.bins],
            padding: 0,
        }
    }

    fn add(&mut self, other: &Histogram) {
        self.padding += other.padding;
        for (sum, bin) in self.bins.iter_mut().zip(&other.bins) {
            *sum += bin;
        }
    }

    fn measured(&self, ml_per_nm: f64, scale: Scale) -> LungMeasurements {
        let total: u64 = self.bins.iter().sum();
        LungMeasurements {
            volume_ml: (total + self.padding) as f64 * ml_per_nm,
            padding_ml: self.padding as f64 * ml_per_nm,
            density: (total > 0).then(|| self.density(total, ml_per_nm, scale)),
        }
    }

    fn density(&self, total: u64, ml_per_nm: f64, scale: Scale) -> Density {
        let filled = || {
            self.bins
                .iter()
                .enumerate()
                .filter(|(_, weight)| **weight > 0)
                .map(|(bin, &weight)| (scale.hu(bin), weight as f64))
        };
        let mean_hu = filled().map(|(hu, weight)| hu * weight).sum::<f64>() / total as f64;
        let variance = filled()
            .map(|(hu, weight)| (hu - mean_hu) * (hu - mean_hu) * weight)
            .sum::<f64>()
            / total as f64;
        let share = |bins: &[u64]| bins.iter().sum::<u64>() as f64 / total as f64;
        let percentile = |percent: u64| {
            let mut sum = 0;
            let bin = self.bins.iter().position(|&weight| {
                sum += weight;
                weight > 0 && u128::from(sum) * 100 >= u128::from(total) * u128::from(percent)
            });
            scale.hu(bin.unwrap_or(self.bins.len() - 1))
        };
        Density {
            mean_hu,
            sd_hu: variance.sqrt(),
            percentiles_hu: PercentilesHu {
                p5: percentile(5),
                p10: percentile(10),
                p15: percentile(15),
                p25: percentile(25),
                p50: percentile(50),
                p75: percentile(75),
                p90: percentile(90),
                p95: percentile(95),
            },
            fraction_below_minus_950_hu: share(&self.bins[..scale.bin(-950)]),
            fraction_minus_700_to_minus_300_hu: share(&self.bins[scale.bin(-700)..=scale.bin(-300)]),
            fraction_above_minus_300_hu: share(&self.bins[scale.bin(-300) + 1..]),
            pd15_g_per_l: percentile(15) + 1000.0,
            mass_g: filled()
                .map(|(hu, weight)| (hu + 1000.0).max(0.0) / 1000.0 * weight * ml_per_nm)
                .sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::lungs::pieces::tests::grid;

    const SHAPE: [usize; 3] = [5, 4, 9];
    const COUNT: usize = 5 * 4 * 9;

    fn volume(values: Vec<i16>, thickness: &[f64]) -> Volume {
        let mut grid = grid(SHAPE, [1.0, 0.5, 0.8]);
        for (slice, thick) in thickness.iter().enumerate().skip(1) {
            grid.origins[slice][2] = grid.origins[slice - 1][2] + thick;
        }
        Volume {
            grid,
            voxels: Voxels::I16(values),
            padding_hu: vec![None; SHAPE[0]],
        }
    }

    /// The figures by sorting (value, volume) pairs.
    fn sorted(mut voxels: Vec<(f64, f64)>) -> Density {
        voxels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = voxels.iter().map(|voxel| voxel.1).sum();
        let mean = voxels.iter().map(|(hu, ml)| hu * ml).sum::<f64>() / total;
        let share = |inside: &dyn Fn(f64) -> bool| {
            voxels
                .iter()
                .filter(|(hu, _)| inside(*hu))
                .map(|(_, ml)| ml)
                .sum::<f64>()
                / total
        };
        let percentile = |percent: f64| {
            let mut sum = 0.0;
            voxels
                .iter()
                .find(|(_, ml)| {
                    sum += ml;
                    sum >= total * percent / 100.0 - 1e-9
                })
                .unwrap()
                .0
        };
        Density {
            mean_hu: mean,
            sd_hu: (voxels.iter().map(|(hu, ml)| (hu - mean).powi(2) * ml).sum::<f64>() / total).sqrt(),
            percentiles_hu: PercentilesHu {
                p5: percentile(5.0),
                p10: percentile(10.0),
                p15: percentile(15.0),
                p25: percentile(25.0),
                p50: percentile(50.0),
                p75: percentile(75.0),
                p90: percentile(90.0),
                p95: percentile(95.0),
            },
            fraction_below_minus_950_hu: share(&|hu| hu < -950.0),
            fraction_minus_700_to_minus_300_hu: share(&|hu| (-700.0..=-300.0).contains(&hu)),
            fraction_above_minus_300_hu: share(&|hu| hu > -300.0),
            pd15_g_per_l: percentile(15.0) + 1000.0,
            mass_g: voxels.iter().map(|(hu, ml)| (hu + 1000.0).max(0.0) / 1000.0 * ml).sum(),
        }
    }

    fn close(one: &Density, other: &Density) -> bool {
        let numbers = |density: &Density| -> Vec<f64> {
            let p = &density.percentiles_hu;
            vec![
                density.mean_hu,
                density.sd_hu,
                density.fraction_below_minus_950_hu,
                density.fraction_minus_700_to_minus_300_hu,
                density.fraction_above_minus_300_hu,
                density.pd15_g_per_l,
                density.mass_g,
                p.p5,
                p.p10,
                p.p15,
                p.p25,
                p.p50,
                p.p75,
                p.p90,
                p.p95,
            ]
        };
        numbers(one)
            .iter()
            .zip(numbers(other))
            .all(|(a, b)| (a - b).abs() < 1e-6 * (1.0 + b.abs()))
    }

    proptest! {
        #[test]
        fn figures_are_those_of_sorted_voxels_with_their_true_volumes(
            values in proptest::collection::vec(prop_oneof![-1100i16..200, Just(-950), Just(-700), Just(-300), any::<i16>()], COUNT),
            labels in proptest::collection::vec(0u8..3, COUNT),
            thickness in proptest::collection::vec(0.5f64..6.0, 5),
            whole in any::<bool>(),
        ) {
            // Whole nanometres even when halved.
            let thickness: Vec<f64> = thickness.iter().map(|mm| (mm * 32.0).round() / 32.0).collect();
            let mut volume = volume(values.clone(), &thickness);
            volume.padding_hu[2] = Some((-900.0, -500.0));
            let mut numbers: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            if !whole {
                numbers.iter_mut().for_each(|value| *value = value.clamp(-8000.0, 8000.0) + 0.25);
                volume.voxels = Voxels::F32(numbers.iter().map(|&value| value as f32).collect());
            }
            let voxel_ml = slabs::voxel_ml(&volume.grid);
            let mask = Mask { shape: SHAPE, labels };
            let measured = measure(&mask, &volume).unwrap();
            let cases = [(&measured.total, 0), (measured.right.as_ref().unwrap(), 1), (measured.left.as_ref().unwrap(), 2)];
            for (lung, wanted) in cases {
                let inside: Vec<usize> = (0..COUNT).filter(|&at| mask.labels[at] != 0 && (wanted == 0 || mask.labels[at] == wanted)).collect();
                let ml = |at: usize| voxel_ml[at / 36];
                let padded = |at: usize| at / 36 == 2 && (-900.0..=-500.0).contains(&numbers[at]);
                prop_assert!((lung.volume_ml - inside.iter().map(|&at| ml(at)).sum::<f64>()).abs() < 1e-9);
                prop_assert!((lung.padding_ml - inside.iter().filter(|&&at| padded(at)).map(|&at| ml(at)).sum::<f64>()).abs() < 1e-9);
                let valued: Vec<(f64, f64)> = inside.iter().filter(|&&at| !padded(at)).map(|&at| (numbers[at], ml(at))).collect();
                match &lung.density {
                    Some(density) => {
                        let expected = sorted(valued);
                        prop_assert!(close(density, &expected), "{density:?} {expected:?}");
                    }
                    None => prop_assert!(valued.is_empty()),
                }
            }
        }
    }

    #[test]
    fn an_empty_mask_has_no_densities() {
        let mask = Mask {
            shape: SHAPE,
            labels: vec![0; COUNT],
        };
        let measured = measure(&mask, &volume(vec![-800; COUNT], &[1.0; 5])).unwrap();
        assert_eq!((measured.total.volume_ml, measured.total.density), (0.0, None));
    }

    #[test]
    fn water_weighs_its_volume_and_air_nothing() {
        let mask = Mask {
            shape: SHAPE,
            labels: vec![1; COUNT],
        };
        let water = measure(&mask, &volume(vec![0; COUNT], &[2.0; 5])).unwrap().total;
        assert!((water.volume_ml - 0.144).abs() < 1e-12);
        assert!((water.density.unwrap().mass_g - 0.144).abs() < 1e-12);
        let air = measure(&mask, &volume(vec![-1024; COUNT], &[2.0; 5]))
            .unwrap()
            .total
            .density
            .unwrap();
        assert_eq!(
            (air.mass_g, air.fraction_below_minus_950_hu, air.pd15_g_per_l),
            (0.0, 1.0, -24.0)
        );
    }
}
