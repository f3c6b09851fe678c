//! Voxel values in, the suspicion out that they are not Hounsfield units.
//!
//! A header can claim HU and be wrong: stored values passed off as HU (slope 1, intercept 0, everything from 0 up), an intercept applied twice, an 8 bit
//! picture. What every patient has, whichever part is shown and whatever the scanner, is fat or air around -100 or -1000 HU, and soft tissue around 0.

/// Fat, lung or air is any value here. Below it lie the values with which scanners fill what they did not see (-2000, -2048, -3024), which prove nothing.
const AIR_OR_FAT_HU: (f32, f32) = (-1200.0, -50.0);
/// Fat, water, blood and soft tissue.
const TISSUE_HU: (f32, f32) = (-200.0, 300.0);
/// The part of all voxels that must be air or fat: noise alone does not reach it.
const LEAST_AIR_OR_FAT: f64 = 1e-4;
/// The part of all voxels that must be tissue. Of real chests and bellies it is 9 % and more, of an intercept applied twice, which puts bone and contrast there, up to 0.2 %.
const LEAST_TISSUE: f64 = 5e-3;
/// Every so many voxels one is counted; prime, so that no row or column length divides it.
const STRIDE: usize = 13;
/// Accumulators of the extremes.
const LANES: usize = 16;

/// What the voxels of a volume or a slice look like, padding left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueSummary {
    /// Lowest HU of all voxels; infinite if there are none.
    pub lowest_hu: f32,
    /// Highest HU of all voxels; negative infinite if there are none.
    pub highest_hu: f32,
    /// Voxels that were counted (every thirteenth).
    pub counted: u64,
    /// Counted voxels from -1200 to -50 HU.
    pub air_or_fat: u64,
    /// Counted voxels from -200 to 300 HU.
    pub tissue: u64,
    /// Counted voxels that are no numbers.
    pub not_finite: u64,
}

/// Why values cannot be Hounsfield units.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NotHu {
    /// There is no voxel that is not padding.
    #[error("every voxel is padding")]
    Nothing,
    /// Infinite values or none at all.
    #[error("some values are not finite")]
    NotFinite,
    /// Nothing is as light as air, lung or fat.
    #[error(
        "no air, lung or fat: values run from {lowest_hu} to {highest_hu}, fewer than 1 in 10,000 from -1200 to -50 HU; stored values were not rescaled"
    )]
    NoAirOrFat {
        /// Lowest value.
        lowest_hu: f32,
        /// Highest value.
        highest_hu: f32,
    },
    /// Nothing is as dense as the body.
    #[error(
        "no soft tissue: values run from {lowest_hu} to {highest_hu}, fewer than 5 in 1,000 from -200 to 300 HU; the rescale is wrong"
    )]
    NoTissue {
        /// Lowest value.
        lowest_hu: f32,
        /// Highest value.
        highest_hu: f32,
    },
}

/// Lowest and highest HU of a slice, what lies from `low` to `high` and what is no number left out. Neighbours go to accumulators of their own, which the
/// processor compares at once.
fn extremes<S: super::resample::Sample>(slice: &[S], low: f32, high: f32) -> (f32, f32) {
    let mut lowest = [f32::INFINITY; LANES];
    let mut highest = [f32::NEG_INFINITY; LANES];
    for part in slice.chunks(LANES) {
        for ((value, lowest), highest) in part.iter().zip(&mut lowest).zip(&mut highest) {
            let hu = value.hu();
            let padded = hu >= low && hu <= high;
            let (below, above) = if padded {
                (f32::INFINITY, f32::NEG_INFINITY)
            } else {
                (hu, hu)
            };
            *lowest = if below < *lowest { below } else { *lowest };
            *highest = if above > *highest { above } else { *highest };
        }
    }
    (
        lowest.into_iter().fold(f32::INFINITY, f32::min),
        highest.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
}

impl ValueSummary {
    /// Of no voxels.
    pub const EMPTY: ValueSummary = ValueSummary {
        lowest_hu: f32::INFINITY,
        highest_hu: f32::NEG_INFINITY,
        counted: 0,
        air_or_fat: 0,
        tissue: 0,
        not_finite: 0,
    };

    /// Of one slice. `padding` is its range of padding HU.
    pub(super) fn of<S: super::resample::Sample>(slice: &[S], padding: Option<(f32, f32)>) -> ValueSummary {
        // An empty range where there is no padding.
        let (low, high) = padding.unwrap_or((f32::INFINITY, f32::NEG_INFINITY));
        let (lowest_hu, highest_hu) = extremes(slice, low, high);
        let mut summary = ValueSummary {
            lowest_hu,
            highest_hu,
            ..ValueSummary::EMPTY
        };
        for hu in slice
            .iter()
            .step_by(STRIDE)
            .map(|value| value.hu())
            .filter(|hu| !(*hu >= low && *hu <= high))
        {
            summary.counted += 1;
            summary.air_or_fat += u64::from(hu >= AIR_OR_FAT_HU.0 && hu <= AIR_OR_FAT_HU.1);
            summary.tissue += u64::from(hu >= TISSUE_HU.0 && hu <= TISSUE_HU.1);
            summary.not_finite += u64::from(!hu.is_finite());
        }
        summary
    }

    /// Of two parts together.
    pub(super) fn join(self, other: ValueSummary) -> ValueSummary {
        ValueSummary {
            lowest_hu: self.lowest_hu.min(other.lowest_hu),
            highest_hu: self.highest_hu.max(other.highest_hu),
            counted: self.counted + other.counted,
            air_or_fat: self.air_or_fat + other.air_or_fat,
            tissue: self.tissue + other.tissue,
            not_finite: self.not_finite + other.not_finite,
        }
    }

    /// Why these values cannot be HU, if they cannot.
    ///
    /// The rule: at least 1 voxel in 10,000 is air, lung or fat (-1200 to -50 HU), and at least 5 in 1,000 soft tissue (-200 to 300 HU). Padding does not
    /// count, nor do the lower values with which scanners fill what lies outside their field of view.
    pub fn not_hu(&self) -> Option<NotHu> {
        let (lowest_hu, highest_hu) = (self.lowest_hu, self.highest_hu);
        let counted = self.counted as f64;
        if self.counted == 0 {
            Some(NotHu::Nothing)
        } else if self.not_finite > 0 || !lowest_hu.is_finite() || !highest_hu.is_finite() {
            Some(NotHu::NotFinite)
        } else if (self.air_or_fat as f64) < LEAST_AIR_OR_FAT * counted {
            Some(NotHu::NoAirOrFat { lowest_hu, highest_hu })
        } else if (self.tissue as f64) < LEAST_TISSUE * counted {
            Some(NotHu::NoTissue { lowest_hu, highest_hu })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Air, lung, fat, tissue and bone in turn, as HU plus `shift`.
    fn chest(shift: i16) -> Vec<i16> {
        (0..26_000)
            .map(|i| [-1000, -850, -100, 40, 60, 700][(i / 13) % 6] + (i % 7) as i16 + shift)
            .collect()
    }

    #[test]
    fn hounsfield_units_pass() {
        assert_eq!(ValueSummary::of(&chest(0), None).not_hu(), None);
    }

    #[test]
    fn stored_values_that_were_not_rescaled_do_not() {
        assert!(matches!(
            ValueSummary::of(&chest(1024), None).not_hu(),
            Some(NotHu::NoAirOrFat { .. })
        ));
        let mut filled = chest(1024);
        for value in filled.iter_mut().step_by(3) {
            *value = -2000;
        }
        assert!(matches!(
            ValueSummary::of(&filled, None).not_hu(),
            Some(NotHu::NoAirOrFat { .. })
        ));
        assert!(matches!(
            ValueSummary::of(&chest(-1024), None).not_hu(),
            Some(NotHu::NoTissue { .. })
        ));
    }

    #[test]
    fn padding_counts_for_nothing() {
        let summary = ValueSummary::of(&[-2000_i16; 100], Some((-2000.0, -2000.0)));
        assert_eq!(summary.not_hu(), Some(NotHu::Nothing));
        let summary = ValueSummary::of(&[-2000_i16, -1000, 40, 50], Some((-2000.0, -2000.0)));
        assert_eq!((summary.lowest_hu, summary.highest_hu), (-1000.0, 50.0));
    }

    #[test]
    fn infinite_values_are_no_hounsfield_units() {
        let mut values: Vec<f32> = chest(0).into_iter().map(f32::from).collect();
        values[7] = f32::INFINITY;
        assert_eq!(ValueSummary::of(&values, None).not_hu(), Some(NotHu::NotFinite));
    }
}
