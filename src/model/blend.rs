//! Windows out of an image in the network's axis order, and the network's raw answers into the sums from which the probability is made.

use rayon::prelude::*;

use super::manifest::{Activation, Axes};
use super::positions::{Axis, Place, Span, Weights};
use super::windows::WindowOptions;

/// A window that is not run counts as if the network had been this sure that there is no lung: a probability of 1e-7.
pub(super) const BACKGROUND_LOGIT: f32 = -16.0;
/// Planes of x copied together, so that a cache line read from the image is used whole.
const BLOCK: usize = 16;
/// Slices summed up together when the answer has to be turned.
const SLAB: usize = 4;

/// Copies the part of the image under a window into `window`, which has `roi` = x, y, z voxels in the order of `axes`; what lies beyond the image is zero, as
/// MONAI's padding of the scaled image. `shape` is z, y, x.
pub(super) fn fill(window: &mut [f32], image: &[f32], shape: [usize; 3], place: &Place, roi: [usize; 3], axes: Axes) {
    let [rx, ry, rz] = roi;
    let [sz, sy, sx] = *place;
    if [sz.count, sy.count, sx.count] != [rz, ry, rx] {
        window.fill(0.0);
    }
    let row = |z: usize, y: usize| ((sz.image + z) * shape[1] + sy.image + y) * shape[2] + sx.image;
    match axes {
        Axes::Zyx => {
            let slices = &mut window[sz.window * ry * rx..(sz.window + sz.count) * ry * rx];
            slices.par_chunks_mut(ry * rx).enumerate().for_each(|(z, slice)| {
                for y in 0..sy.count {
                    let at = (sy.window + y) * rx + sx.window;
                    slice[at..at + sx.count].copy_from_slice(&image[row(z, y)..][..sx.count]);
                }
            });
        }
        Axes::Xyz => {
            let planes = &mut window[sx.window * ry * rz..(sx.window + sx.count) * ry * rz];
            planes
                .par_chunks_mut(BLOCK * ry * rz)
                .enumerate()
                .for_each(|(block, planes)| {
                    let width = planes.len() / (ry * rz);
                    for y in 0..sy.count {
                        for z in 0..sz.count {
                            let from = &image[row(z, y) + block * BLOCK..][..width];
                            let at = (sy.window + y) * rz + sz.window + z;
                            for (x, value) in from.iter().enumerate() {
                                planes[x * ry * rz + at] = *value;
                            }
                        }
                    }
                });
        }
    }
}

/// What is summed up of a network's channels: the least from which the probability can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// One channel.
    Channel(usize),
    /// One channel less the other: softmax of two channels is the sigmoid of their difference, and blending is linear.
    Difference(usize, usize),
    /// Every channel.
    All(usize),
}

impl Kept {
    fn of(options: &WindowOptions) -> Kept {
        let foreground = options.foreground_channel;
        match (options.activation, options.channels) {
            (Activation::Softmax, 2) => Kept::Difference(foreground, 1 - foreground),
            (Activation::Softmax, channels) => Kept::All(channels),
            (Activation::Sigmoid | Activation::None, _) => Kept::Channel(foreground),
        }
    }

    /// For each kept sum, the channel added and the one subtracted.
    fn sums(self) -> Vec<(usize, Option<usize>)> {
        match self {
            Kept::Channel(channel) => vec![(channel, None)],
            Kept::Difference(foreground, background) => vec![(foreground, Some(background))],
            Kept::All(channels) => (0..channels).map(|channel| (channel, None)).collect(),
        }
    }
}

/// Zeros that were written. Memory that the system hands out as zeros would be read by the first sum, page by page, and then copied by its writing.
fn zeros(voxels: usize) -> Vec<f32> {
    rayon::iter::repeat_n(0.0, voxels).collect()
}

/// The weighted sums of all windows over an image.
pub(super) struct Sums<'a> {
    options: &'a WindowOptions,
    shape: [usize; 3],
    kept: Kept,
    /// `[z][y][x]`, one for each kept sum.
    sums: Vec<Vec<f32>>,
    weights: Weights,
    /// The sum of the weights where it is no product of counts.
    weight_sum: Vec<f32>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(options: &'a WindowOptions, shape: [usize; 3]) -> Sums<'a> {
        let voxels = shape.iter().product();
        let kept = Kept::of(options);
        let weights = Weights::new(options.blend, options.roi);
        let weight_sum = if matches!(weights, Weights::Map(_)) {
            zeros(voxels)
        } else {
            Vec::new()
        };
        Sums {
            options,
            shape,
            kept,
            sums: kept.sums().iter().map(|_| zeros(voxels)).collect(),
            weights,
            weight_sum,
        }
    }

    /// Adds the raw answer of the network for one window, `[channel][..roi]` in the network's axis order.
    pub(super) fn add(&mut self, answer: &[f32], place: &Place) {
        let voxels: usize = self.options.roi.iter().product();
        for (sum, (plus, minus)) in self.sums.iter_mut().zip(self.kept.sums()) {
            let channel = |index: usize| &answer[index * voxels..(index + 1) * voxels];
            let target = Target {
                sum,
                shape: self.shape,
                place,
                roi: self.options.roi,
                weights: &self.weights,
            };
            let plus = channel(plus);
            match (minus.map(channel), self.options.axes) {
                (None, axes) => target.add(axes, |at| plus[at]),
                (Some(minus), axes) => target.add(axes, |at| plus[at] - minus[at]),
            }
        }
        self.add_weight(place);
    }

    /// Counts a window that was not run as certain background.
    pub(super) fn add_background(&mut self, place: &Place) {
        let foreground = self.options.foreground_channel;
        for (index, sum) in self.sums.iter_mut().enumerate() {
            let value = match (self.options.activation, self.kept) {
                (Activation::None, _) => 0.0,
                (_, Kept::All(_)) if index != foreground => 0.0,
                _ => BACKGROUND_LOGIT,
            };
            let target = Target {
                sum,
                shape: self.shape,
                place,
                roi: self.options.roi,
                weights: &self.weights,
            };
            target.add(Axes::Zyx, |_| value);
        }
        self.add_weight(place);
    }

    fn add_weight(&mut self, place: &Place) {
        if !self.weight_sum.is_empty() {
            let (shape, roi) = (self.shape, self.options.roi);
            Target {
                sum: &mut self.weight_sum,
                shape,
                place,
                roi,
                weights: &self.weights,
            }
            .add(Axes::Zyx, |_| 1.0);
        }
    }

    /// The blended answer, activated: the foreground probability (or, without activation, the blended raw value), and how many values are not finite.
    pub(super) fn finish(self, axes: &[Axis; 3]) -> (Vec<f32>, usize) {
        let Sums {
            options,
            shape,
            kept,
            mut sums,
            weight_sum,
            ..
        } = self;
        let plane = shape[1] * shape[2];
        let [cz, cy, cx] = [axes[0].counts(), axes[1].counts(), axes[2].counts()];
        for sum in &mut sums {
            sum.par_chunks_mut(plane).enumerate().for_each(|(z, slice)| {
                if weight_sum.is_empty() {
                    for (y, row) in slice.chunks_mut(shape[2]).enumerate() {
                        let count = cz[z] * cy[y];
                        row.iter_mut().zip(&cx).for_each(|(value, cx)| *value /= count * cx);
                    }
                } else {
                    let weights = &weight_sum[z * plane..(z + 1) * plane];
                    slice
                        .iter_mut()
                        .zip(weights)
                        .for_each(|(value, weight)| *value /= weight);
                }
            });
        }
        let mut result = match kept {
            Kept::All(_) => softmax(sums, options.foreground_channel),
            Kept::Channel(_) | Kept::Difference(..) => sums.swap_remove(0),
        };
        let logistic = options.activation == Activation::Sigmoid || matches!(kept, Kept::Difference(..));
        let odd = result
            .par_chunks_mut(plane)
            .map(|slice| {
                let odd = slice.iter().filter(|value| !value.is_finite()).count();
                if logistic {
                    slice
                        .iter_mut()
                        .for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
                }
                odd
            })
            .sum();
        (result, odd)
    }
}

/// One channel of the softmax over all.
fn softmax(mut sums: Vec<Vec<f32>>, foreground: usize) -> Vec<f32> {
    let mut result = sums.swap_remove(foreground);
    // With d = other - foreground, the probability is 1 / (1 + sum of exp(d)).
    result.par_iter_mut().enumerate().for_each(|(at, value)| {
        let others: f32 = sums.iter().map(|sum| (sum[at] - *value).exp()).sum();
        *value = if value.is_finite() {
            1.0 / (1.0 + others)
        } else {
            f32::NAN
        };
    });
    result
}

/// A sum and the window that is added to it.
struct Target<'t> {
    sum: &'t mut [f32],
    shape: [usize; 3],
    place: &'t Place,
    roi: [usize; 3],
    weights: &'t Weights,
}

impl Target<'_> {
    /// Adds `value(index in the window's tensor)` times the weight there, to the part of the window that lies in the image.
    fn add(self, axes: Axes, value: impl Fn(usize) -> f32 + Sync) {
        let Target {
            sum,
            shape,
            place,
            roi,
            weights,
        } = self;
        let [rx, ry, rz] = roi;
        let [sz, sy, sx] = *place;
        let plane = shape[1] * shape[2];
        let slices = &mut sum[sz.image * plane..(sz.image + sz.count) * plane];
        let slab = if axes == Axes::Xyz { SLAB } else { 1 };
        slices
            .par_chunks_mut(slab * plane)
            .enumerate()
            .for_each(|(block, slices)| {
                let first = sz.window + block * slab;
                for y in 0..sy.count {
                    for (z, slice) in slices.chunks_mut(plane).enumerate() {
                        let (z, y_window) = (first + z, sy.window + y);
                        let row = &mut slice[(sy.image + y) * shape[2] + sx.image..][..sx.count];
                        let weights = match weights {
                            Weights::Constant => None,
                            Weights::Map(map) => Some(&map[(z * ry + y_window) * rx + sx.window..][..sx.count]),
                        };
                        // The answer at voxel i of this row.
                        match axes {
                            Axes::Zyx => {
                                let at = (z * ry + y_window) * rx + sx.window;
                                add_row(row, weights, |i| value(at + i));
                            }
                            Axes::Xyz => {
                                let at = (sx.window * ry + y_window) * rz + z;
                                add_row(row, weights, |i| value(at + i * ry * rz));
                            }
                        }
                    }
                }
            });
    }
}

/// The product and the sum are rounded each, as MONAI's are.
#[inline]
fn add_row(row: &mut [f32], weights: Option<&[f32]>, value: impl Fn(usize) -> f32) {
    match weights {
        None => row.iter_mut().enumerate().for_each(|(i, sum)| *sum += value(i)),
        Some(weights) => row
            .iter_mut()
            .zip(weights)
            .enumerate()
            .for_each(|(i, (sum, weight))| *sum += weight * value(i)),
    }
}

/// True when every voxel of the image under a window is below `limit`. The first voxel that is not ends the search.
pub(super) fn is_empty(image: &[f32], shape: [usize; 3], place: &Place, limit: f32) -> bool {
    let [sz, sy, sx] = *place;
    let rows = |Span { image, count, .. }: Span| image..image + count;
    rows(sz).into_par_iter().all(|z| {
        rows(sy).all(|y| {
            let row = &image[(z * shape[1] + y) * shape[2] + sx.image..][..sx.count];
            row.iter().all(|value| *value < limit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both axis orders fill a window with the same voxels and add it to the same place.
    #[test]
    fn xyz_is_zyx_turned() {
        let (shape, roi) = ([7, 9, 40], [35, 8, 6]);
        let image: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        let axes = [Axis::new(7, 6, 0.25), Axis::new(9, 8, 0.25), Axis::new(40, 35, 0.25)];
        let options = |axes| WindowOptions {
            roi,
            overlap: 0.25,
            blend: super::super::manifest::Blend::Gaussian,
            axes,
            channels: 1,
            activation: Activation::None,
            foreground_channel: 0,
            skip_below: None,
        };
        let [mut straight, mut turned] = [vec![0.0f32; 35 * 8 * 6], vec![0.0f32; 35 * 8 * 6]];
        let [zyx, xyz] = [options(Axes::Zyx), options(Axes::Xyz)];
        let (mut a, mut b) = (Sums::new(&zyx, shape), Sums::new(&xyz, shape));
        for place in super::super::positions::places(&axes) {
            fill(&mut straight, &image, shape, &place, roi, Axes::Zyx);
            fill(&mut turned, &image, shape, &place, roi, Axes::Xyz);
            for z in 0..6 {
                for y in 0..8 {
                    for x in 0..35 {
                        assert_eq!(straight[(z * 8 + y) * 35 + x], turned[(x * 8 + y) * 6 + z]);
                    }
                }
            }
            a.add(&straight, &place);
            b.add(&turned, &place);
        }
        let ((a, _), (b, _)) = (a.finish(&axes), b.finish(&axes));
        assert_eq!(a, b);
        let off = a
            .iter()
            .zip(&image)
            .map(|(have, want)| (have - want).abs())
            .fold(0.0, f32::max);
        assert!(
            off < 1e-3,
            "blending a window with itself gives the image, off by {off}"
        );
    }

    #[test]
    fn softmax_of_three_channels_is_the_share_of_one() {
        let sums = vec![vec![0.0f32, 1.0], vec![2.0, 1.0], vec![-1.0, 1.0]];
        let share = 2f32.exp() / (1.0 + 2f32.exp() + (-1f32).exp());
        let result = softmax(sums, 1);
        assert!((result[0] - share).abs() < 1e-6 && (result[1] - 1.0 / 3.0).abs() < 1e-6);
    }
}
