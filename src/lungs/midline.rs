//! The profile of a mask across the patient in, the midline out: where the valley of the mediastinum parts two lungs.

use super::pieces::{BIN_MM, Profile};

/// The profile is smoothed over so many bins to either side before its valley is looked for: 8 mm.
const SMOOTH_BINS: usize = 4;

/// The valley may reach up to this share of the lower of the two peaks beside it; else there is one lung.
const DEEPEST_VALLEY: f64 = 0.6;

/// No midline leaves less than this share of the volume on one side.
const LEAST_SHARE: f64 = 0.02;

/// Where the profile is parted.
pub(super) struct Midline {
    pub(super) x_mm: f64,
    /// Whether there is a valley that parts two lungs.
    pub(super) two_lungs: bool,
}

impl Midline {
    /// The place that parts the profile best: a deep valley beside a good share of the volume. None if the profile is empty.
    pub(super) fn of(profile: &Profile) -> Option<Midline> {
        let bins = smoothed(&profile.bins_ml);
        let total: f64 = bins.iter().sum();
        if total <= 0.0 {
            return None;
        }
        let mut peaks_after = bins.clone();
        for bin in (1..bins.len()).rev() {
            peaks_after[bin - 1] = peaks_after[bin - 1].max(peaks_after[bin]);
        }
        let (mut peak_before, mut sum) = (0f64, 0.0);
        let mut best: Vec<usize> = Vec::new();
        let (mut best_score, mut best_valley) = (0.0, 1.0);
        for bin in 0..bins.len() {
            peak_before = peak_before.max(bins[bin]);
            let smaller = (sum + bins[bin] / 2.0).min(total - sum - bins[bin] / 2.0) / total;
            sum += bins[bin];
            let valley = bins[bin] / peak_before.min(peaks_after[bin]).max(f64::MIN_POSITIVE);
            let score = if smaller < LEAST_SHARE {
                0.0
            } else {
                smaller.sqrt() * (1.0 - valley)
            };
            if score > best_score + 1e-9 {
                (best_score, best_valley) = (score, valley);
                best.clear();
            }
            if score > 0.0 && score >= best_score - 1e-9 {
                best.push(bin);
            }
        }
        let centre = |bin: f64| profile.begin_mm + (bin + 0.5) * BIN_MM;
        Some(match (best.first(), best.last()) {
            // A gap without lung scores the same all along: its middle.
            (Some(&first), Some(&last)) if best_valley <= DEEPEST_VALLEY => Midline {
                x_mm: centre((first + last) as f64 / 2.0),
                two_lungs: true,
            },
            _ => Midline {
                x_mm: (profile.quantile_mm(0.05) + profile.quantile_mm(0.95)) / 2.0,
                two_lungs: false,
            },
        })
    }
}

/// Means over neighbouring bins.
fn smoothed(bins: &[f64]) -> Vec<f64> {
    (0..bins.len())
        .map(|bin| {
            let near = &bins[bin.saturating_sub(SMOOTH_BINS)..(bin + SMOOTH_BINS + 1).min(bins.len())];
            near.iter().sum::<f64>() / (2 * SMOOTH_BINS + 1) as f64
        })
        .collect()
}

impl Profile {
    /// The x below which this share of the volume lies.
    fn quantile_mm(&self, share: f64) -> f64 {
        let wanted = self.bins_ml.iter().sum::<f64>() * share;
        let mut sum = 0.0;
        for (bin, volume) in self.bins_ml.iter().enumerate() {
            if sum + volume >= wanted && *volume > 0.0 {
                return self.begin_mm + (bin as f64 + (wanted - sum) / volume) * BIN_MM;
            }
            sum += volume;
        }
        self.begin_mm
    }

    pub(super) fn width_mm(&self, from: f64, to: f64) -> f64 {
        self.quantile_mm(to) - self.quantile_mm(from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn of(humps: &[(f64, f64, f64)]) -> Midline {
        let bins_ml = (0..200).map(|bin| {
            let x = f64::from(bin) * BIN_MM;
            humps
                .iter()
                .map(|&(centre, half_width, height)| height * (1.0 - ((x - centre) / half_width).powi(2)).max(0.0))
                .sum()
        });
        let profile = Profile {
            begin_mm: 0.0,
            bins_ml: bins_ml.collect(),
        };
        Midline::of(&profile).unwrap()
    }

    #[test]
    fn the_midline_lies_in_the_valley_or_in_the_middle_of_the_gap() {
        let touching = of(&[(100.0, 70.0, 20.0), (240.0, 80.0, 24.0)]);
        assert!(
            touching.two_lungs && (touching.x_mm - 166.0).abs() < 6.0,
            "{}",
            touching.x_mm
        );
        let apart = of(&[(100.0, 50.0, 20.0), (240.0, 50.0, 20.0)]);
        assert!(apart.two_lungs && (apart.x_mm - 170.0).abs() < 3.0, "{}", apart.x_mm);
        let collapsed = of(&[(120.0, 90.0, 30.0), (280.0, 20.0, 5.0)]);
        assert!(
            collapsed.two_lungs && (210.0..262.0).contains(&collapsed.x_mm),
            "{}",
            collapsed.x_mm
        );
    }

    #[test]
    fn one_hump_has_no_valley() {
        let lone = of(&[(150.0, 70.0, 20.0)]);
        assert!(!lone.two_lungs && (lone.x_mm - 150.0).abs() < 3.0);
    }

    #[test]
    fn nothing_has_no_midline() {
        let nothing = Profile {
            begin_mm: 0.0,
            bins_ml: vec![0.0; 9],
        };
        assert!(Midline::of(&nothing).is_none());
    }
}
