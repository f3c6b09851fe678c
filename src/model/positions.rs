//! The size of an image and of a window in, the places of the windows and their weights out, as MONAI's `sliding_window_inference` has them.

use super::manifest::Blend;

/// Gaussian weights have this part of the window as sigma (MONAI's `sigma_scale`).
const SIGMA_SCALE: f64 = 0.125;
/// No gaussian weight is below this (MONAI's `compute_importance_map`).
const LEAST_WEIGHT: f32 = 1e-3;

/// Where windows start along one axis of `length` voxels, at least `roi` (shorter ones are padded before).
///
/// The step is `roi * (1 - overlap)` in double precision, cut to a whole number and at least 1: for 10 voxels and an overlap of 0.8 that is 1, not 2. The last window
/// ends with the image. MONAI's `_get_scan_interval` and `dense_patch_slices`.
#[must_use]
pub fn starts(length: usize, roi: usize, overlap: f64) -> Vec<usize> {
    let Some(last) = length.checked_sub(roi).filter(|last| *last > 0) else {
        return vec![0];
    };
    // Truncation is what is wanted; the product is at most `roi`.
    let step = ((roi as f64 * (1.0 - overlap)) as usize).max(1);
    (0..=last.div_ceil(step)).map(|k| (k * step).min(last)).collect()
}

/// The weights of a gaussian window, `[z][y][x]` for a window of `roi` = x, y, z: MONAI's `compute_importance_map`, single precision.
#[must_use]
pub fn importance_map(roi: [usize; 3]) -> Vec<f32> {
    let [x, y, z] = roi.map(gaussian);
    let mut map = Vec::with_capacity(x.len() * y.len() * z.len());
    for wz in &z {
        for wy in &y {
            // The order of the two products is MONAI's: x times y, then z.
            map.extend(x.iter().map(|wx| wx * wy * wz));
        }
    }
    let least = map.iter().copied().fold(f32::INFINITY, f32::min).max(LEAST_WEIGHT);
    map.iter_mut().for_each(|weight| *weight = weight.max(least));
    map
}

/// `exp(-d^2 / (2 sigma^2))`, d from the middle of `n` voxels.
fn gaussian(n: usize) -> Vec<f32> {
    let sigma = SIGMA_SCALE * n as f64;
    let scale = (-2.0 * sigma * sigma) as f32;
    (0..n)
        .map(|i| i as f32 - (n as f32 - 1.0) / 2.0)
        .map(|d| (d * d / scale).exp())
        .collect()
}

/// The weights by which windows are blended.
pub(super) enum Weights {
    /// All one: the sum of the weights at a voxel is the number of windows over it, a product of counts along the axes.
    Constant,
    /// One weight a voxel of the window, `[z][y][x]`.
    Map(Vec<f32>),
}

impl Weights {
    pub(super) fn new(blend: Blend, roi: [usize; 3]) -> Weights {
        match blend {
            Blend::Constant => Weights::Constant,
            Blend::Gaussian => Weights::Map(importance_map(roi)),
        }
    }
}

/// The windows along one axis of an image.
pub(super) struct Axis {
    /// Voxels of the image.
    length: usize,
    /// Voxels of a window.
    roi: usize,
    /// Zeros put before an image that is shorter than a window: half of what lacks, rounded down.
    before: usize,
    /// Where windows start, counted in the padded image.
    starts: Vec<usize>,
}

/// The part of a window that lies in the image, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First voxel of that part in the window.
    pub(super) window: usize,
    /// The same voxel in the image.
    pub(super) image: usize,
    /// Number of voxels, at least 1.
    pub(super) count: usize,
}

impl Axis {
    pub(super) fn new(length: usize, roi: usize, overlap: f64) -> Axis {
        let padded = length.max(roi);
        Axis {
            length,
            roi,
            before: (padded - length) / 2,
            starts: starts(padded, roi, overlap),
        }
    }

    /// The window that starts at `start` of the padded image.
    fn span(&self, start: usize) -> Span {
        let window = self.before.saturating_sub(start);
        let image = start + window - self.before;
        Span {
            window,
            image,
            count: (self.roi - window).min(self.length - image),
        }
    }

    /// How many windows cover each voxel of the image.
    pub(super) fn counts(&self) -> Vec<f32> {
        let mut counts = vec![0.0; self.length];
        for Span { image, count, .. } in self.starts.iter().map(|start| self.span(*start)) {
            counts[image..image + count].iter_mut().for_each(|n| *n += 1.0);
        }
        counts
    }
}

/// A window: its parts in the image along z, y, x.
pub(super) type Place = [Span; 3];

/// All windows over an image with `axes` z, y, x, in MONAI's order: along x slowest, along z fastest.
pub(super) fn places(axes: &[Axis; 3]) -> Vec<Place> {
    let [z, y, x] = axes;
    let mut places = Vec::with_capacity(z.starts.len() * y.starts.len() * x.starts.len());
    for sx in x.starts.iter().map(|start| x.span(*start)) {
        for sy in y.starts.iter().map(|start| y.span(*start)) {
            places.extend(z.starts.iter().map(|start| [z.span(*start), sy, sx]));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_step_is_cut_in_double_precision() {
        assert_eq!(starts(15, 10, 0.8), [0, 1, 2, 3, 4, 5]);
        assert_eq!(starts(60, 32, 0.5), [0, 16, 28]);
        assert_eq!(starts(32, 32, 0.25), [0]);
    }

    proptest! {
        #[test]
        fn windows_cover_every_voxel_in_order(length in 1usize..600, roi in 1usize..300, overlap in 0.0f64..0.99) {
            let axis = Axis::new(length, roi, overlap);
            prop_assert!(axis.starts.windows(2).all(|pair| pair[0] < pair[1]), "starts ascend");
            prop_assert_eq!(axis.starts.last().copied(), Some(length.max(roi) - roi), "the last window ends with the image");
            prop_assert!(axis.counts().iter().all(|n| *n >= 1.0), "every voxel is covered");
            for span in axis.starts.iter().map(|start| axis.span(*start)) {
                prop_assert!(span.count >= 1 && span.window + span.count <= roi && span.image + span.count <= length);
            }
        }

        #[test]
        fn a_window_is_never_a_whole_step_from_the_one_before(length in 1usize..600, roi in 1usize..300, overlap in 0.0f64..0.99) {
            let axis = Axis::new(length, roi, overlap);
            prop_assert!(axis.starts.windows(2).all(|pair| pair[1] - pair[0] <= roi), "no gap between windows");
        }

        #[test]
        fn windows_of_three_axes_cover_every_voxel_as_often_as_the_counts_say(
            lengths in [1usize..12, 1usize..12, 1usize..12], roi in [1usize..8, 1usize..8, 1usize..8], overlap in 0.0f64..0.9,
        ) {
            let axes: [Axis; 3] = std::array::from_fn(|i| Axis::new(lengths[i], roi[i], overlap));
            let mut seen = vec![0.0f32; lengths.iter().product()];
            for [z, y, x] in places(&axes) {
                for k in z.image..z.image + z.count {
                    for j in y.image..y.image + y.count {
                        for i in x.image..x.image + x.count {
                            seen[(k * lengths[1] + j) * lengths[2] + i] += 1.0;
                        }
                    }
                }
            }
            let [cz, cy, cx] = std::array::from_fn(|i| axes[i].counts());
            let expected: Vec<f32> = cz.iter()
                .flat_map(|z| cy.iter().map(move |y| z * y))
                .flat_map(|zy| cx.iter().map(move |x| zy * x))
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
