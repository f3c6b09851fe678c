//! What a network made on its grid in, a mask on the source slices out: the inverse of MONAI's `Spacing` and `Orientation`.
//!
//! A source voxel at `i * s / t` in the network's grid takes the interpolated value there, clamped at the border, and is foreground where that reaches the
//! threshold. Beyond half a network voxel outside (a grid cropped to the body) is background. Interpolation cannot exceed its neighbours, so only where one of
//! the eight reaches the threshold is there anything to do.

use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

use super::nearest::nearest_indices;
use super::resample::inside;
use super::separable::{Parallel, Tap, nearest, permute, taps};
use super::{Grid, Image, Mask};
use crate::series::vector::dot;

/// How a source voxel gets its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Way {
    /// The network's values are interpolated, and cut at the threshold.
    #[default]
    Linear,
    /// The network's values are cut, and the nearest voxel decides as in the reference pipeline: where two are equally near, the one that MONAI takes (on a
    /// cropped grid the even index).
    Nearest,
}

/// The label of a voxel of which the network is not sure.
pub const DOUBTFUL: u8 = 2;

/// Which values are foreground. A bare threshold leaves no doubt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// From here on a voxel has label 1.
    pub threshold: f32,
    /// From here on, and below the threshold, it is [`DOUBTFUL`].
    pub doubtful_from: f32,
}

impl From<f32> for Cut {
    fn from(threshold: f32) -> Cut {
        Cut {
            threshold,
            doubtful_from: threshold,
        }
    }
}

impl Cut {
    /// Below this everything is background.
    fn lowest(self) -> f32 {
        self.doubtful_from.min(self.threshold)
    }

    fn label(self, value: f32) -> u8 {
        DOUBTFUL * u8::from(value >= self.lowest()) - u8::from(value >= self.threshold)
    }
}

/// The mask on the source slices of activated values (probabilities) on the network's grid, cropped or not: 1 where the value reaches the threshold, [`DOUBTFUL`] where
/// the cut says so, else 0.
pub fn mask_back(image: &Image, cut: impl Into<Cut>, way: Way, grid: &Grid) -> Mask {
    let cut = cut.into();
    let labels = match Parallel::of(grid, &image.grid) {
        Some(parallel) => separable(image, cut, way, grid, &parallel),
        None => general(image, cut, way, grid),
    };
    Mask {
        shape: grid.shape(),
        labels,
    }
}

/// First and last index along a row where a value reaches the threshold; `EMPTY` where none does.
type Support = (u32, u32);
const EMPTY: Support = (u32::MAX, 0);

fn union(a: Support, b: Support) -> Support {
    (a.0.min(b.0), a.1.max(b.1))
}

/// The supports of all rows of values in rows of `n`.
fn supports(values: &[f32], n: usize, threshold: f32) -> Vec<Support> {
    let of = |row: &[f32]| {
        let first = row.iter().position(|value| *value >= threshold)?;
        let last = row.iter().rposition(|value| *value >= threshold)?;
        Some((first as u32, last as u32))
    };
    values
        .par_chunks(n)
        .with_min_len(64)
        .map(|row| of(row).unwrap_or(EMPTY))
        .collect()
}

/// The union of each row's support with those of the rows `distance` before and after it, within groups of `group` rows.
fn widened(supports: &[Support], distance: usize, group: usize) -> Vec<Support> {
    (0..supports.len())
        .map(|i| {
            let mut wide = supports[i];
            if i % group >= distance {
                wide = union(wide, supports[i - distance]);
            }
            if i % group + distance < group && i + distance < supports.len() {
                wide = union(wide, supports[i + distance]);
            }
            wide
        })
        .collect()
}

/// Source indices whose places, ascending or descending, lie within one voxel of a support.
fn span(places: &[f64], support: Support) -> Range<usize> {
    if support.0 > support.1 {
        return 0..0;
    }
    let (low, high) = (f64::from(support.0) - 1.0, f64::from(support.1) + 1.0);
    if places.first() <= places.last() {
        places.partition_point(|p| *p <= low)..places.partition_point(|p| *p < high)
    } else {
        places.partition_point(|p| *p >= high)..places.partition_point(|p| *p > low)
    }
}

/// The places that lie on the grid, which are contiguous.
fn on_grid(places: &[f64], n: usize) -> Range<usize> {
    let first = places.iter().position(|p| inside(*p, n)).unwrap_or(0);
    let after = places
        .iter()
        .rposition(|p| inside(*p, n))
        .map_or(first, |last| last + 1);
    first..after
}

fn separable(image: &Image, cut: Cut, way: Way, grid: &Grid, parallel: &Parallel) -> Vec<u8> {
    let values = if parallel.same_order() {
        Cow::from(&image.values)
    } else {
        Cow::from(permute(&image.values, image.grid.shape, parallel.order()))
    };
    let sizes = parallel.sizes(&image.grid);
    let places = parallel.regular_indices(grid);
    let within: [Range<usize>; 3] = std::array::from_fn(|b| on_grid(&places[b], sizes[b]));
    let touched = supports(&values, sizes[2], cut.lowest());
    let area = grid.rows * grid.columns;
    let mut labels = vec![0; grid.voxel_count()];
    if within.iter().any(Range::is_empty) {
        return labels;
    }
    let source = &mut labels[within[0].start * area..within[0].end * area];
    match way {
        Way::Linear => {
            let expander = Expander {
                values: &values,
                sizes,
                columns: grid.columns,
                down: taps(&places[1], sizes[1]),
                along: taps(&places[2], sizes[2])
                    .iter()
                    .map(|tap| (tap.low as u32, tap.weight))
                    .collect(),
                places: &places[2],
                within: within[2].clone(),
                beside: widened(&touched, sizes[1], touched.len()),
                touched: &touched,
            };
            let around = widened(&expander.beside, 1, sizes[1]);
            let further = widened(&around, 1, sizes[1]);
            let across = taps(&places[0][within[0].clone()], sizes[0]);
            let chunk = across.len().div_ceil(4 * rayon::current_num_threads()).max(1);
            source
                .par_chunks_mut(chunk * area)
                .zip(across.par_chunks(chunk))
                .for_each(|(slices, taps)| {
                    let mut planes = Planes::new(&expander, &around, &further, area);
                    for (slice, tap) in slices.chunks_exact_mut(area).zip(taps) {
                        planes.cut(slice, *tap, within[1].clone(), cut);
                    }
                });
        }
        Way::Nearest => {
            let [across, rows, columns] = nearest_indices(grid, &image.grid, parallel, &places);
            let columns: Vec<u32> = columns.into_iter().map(|column| column as u32).collect();
            let across = &across[within[0].clone()];
            source.par_chunks_mut(area).zip(across).for_each(|(slice, k)| {
                for r in within[1].clone() {
                    let row = k * sizes[1] + rows[r];
                    let columns_on_row = clip(span(&places[2], touched[row]), &within[2]);
                    let network = &values[row * sizes[2]..(row + 1) * sizes[2]];
                    let out = &mut slice[r * grid.columns..(r + 1) * grid.columns];
                    for (label, column) in out[columns_on_row.clone()].iter_mut().zip(&columns[columns_on_row]) {
                        *label = cut.label(network[*column as usize]);
                    }
                }
            });
        }
    }
    labels
}

fn clip(range: Range<usize>, to: &Range<usize>) -> Range<usize> {
    let start = range.start.max(to.start);
    start..range.end.min(to.end).max(start)
}

/// Network planes widened to the source's rows and columns.
struct Expander<'a> {
    values: &'a [f32],
    sizes: [usize; 3],
    columns: usize,
    down: Vec<Tap>,
    along: Vec<(u32, f32)>,
    places: &'a [f64],
    within: Range<usize>,
    touched: &'a [Support],
    /// Supports united with those of the planes before and behind.
    beside: Vec<Support>,
}

/// The two network planes in work, at the source's rows and columns. Neighbouring planes differ in their last bit, which says where each is held.
struct Planes<'a> {
    expander: &'a Expander<'a>,
    around: &'a [Support],
    further: &'a [Support],
    held: [usize; 2],
    planes: [Vec<f32>; 2],
    rows: [Vec<f32>; 2],
}

impl<'a> Planes<'a> {
    fn new(expander: &'a Expander<'a>, around: &'a [Support], further: &'a [Support], area: usize) -> Self {
        let columns = expander.columns;
        let (planes, rows) = (
            std::array::from_fn(|_| vec![0.0; area]),
            std::array::from_fn(|_| vec![0.0; columns]),
        );
        Planes {
            expander,
            around,
            further,
            held: [usize::MAX; 2],
            planes,
            rows,
        }
    }

    /// Widens network plane `k` where it can matter.
    fn hold(&mut self, k: usize) {
        let (e, slot) = (self.expander, k & 1);
        if self.held[slot] == k {
            return;
        }
        self.held[slot] = k;
        let mut held_rows = [usize::MAX; 2];
        for (r, tap) in e.down.iter().enumerate() {
            let columns = clip(span(e.places, self.around[k * e.sizes[1] + tap.low]), &e.within);
            if columns.is_empty() {
                continue;
            }
            for j in [tap.low, tap.high] {
                if held_rows[j & 1] != j {
                    held_rows[j & 1] = j;
                    let row = k * e.sizes[1] + j;
                    let network = &e.values[row * e.sizes[2]..(row + 1) * e.sizes[2]];
                    let last = network.len() - 1;
                    let wide = clip(span(e.places, self.further[row]), &e.within);
                    for (value, (low, weight)) in self.rows[j & 1][wide.clone()].iter_mut().zip(&e.along[wide]) {
                        let low = *low as usize;
                        let (a, b) = (network[low], network[(low + 1).min(last)]);
                        *value = a + weight * (b - a);
                    }
                }
            }
            let out = &mut self.planes[slot][r * e.columns..(r + 1) * e.columns][columns.clone()];
            let (first, second) = (
                &self.rows[tap.low & 1][columns.clone()],
                &self.rows[tap.high & 1][columns],
            );
            for ((value, a), b) in out.iter_mut().zip(first).zip(second) {
                *value = a + tap.weight * (b - a);
            }
        }
    }

    /// The labels of one source slice between two planes.
    fn cut(&mut self, slice: &mut [u8], tap: Tap, rows: Range<usize>, cut: Cut) {
        self.hold(tap.low);
        self.hold(tap.high);
        let e = self.expander;
        let (first, second) = (&self.planes[tap.low & 1], &self.planes[tap.high & 1]);
        for r in rows {
            let support = [tap.low, tap.high]
                .into_iter()
                .flat_map(|k| [e.down[r].low, e.down[r].high].map(|j| e.touched[k * e.sizes[1] + j]))
                .fold(EMPTY, union);
            let columns = clip(span(e.places, support), &e.within);
            let columns = r * e.columns + columns.start..r * e.columns + columns.end;
            for ((label, a), b) in slice[columns.clone()]
                .iter_mut()
                .zip(&first[columns.clone()])
                .zip(&second[columns])
            {
                *label = cut.label(a + tap.weight * (b - a));
            }
        }
    }
}

/// Point by point, for tilted and straightened stacks.
fn general(image: &Image, cut: Cut, way: Way, grid: &Grid) -> Vec<u8> {
    let network = &image.grid;
    let sizes = network.shape;
    let mut labels = vec![0; grid.voxel_count()];
    // The box that holds all foreground, and one voxel around it.
    let touched = supports(&image.values, sizes[2], cut.lowest());
    let mut low = [f64::INFINITY; 3];
    let mut high = [f64::NEG_INFINITY; 3];
    for (row, support) in touched.iter().enumerate().filter(|(_, support)| support.0 <= support.1) {
        let (z, y) = ((row / sizes[1]) as f64, (row % sizes[1]) as f64);
        for (i, (first, last)) in [(z, z), (y, y), (f64::from(support.0), f64::from(support.1))]
            .into_iter()
            .enumerate()
        {
            low[i] = low[i].min(first - 1.0);
            high[i] = high[i].max(last + 1.0);
        }
    }
    if low[0] > high[0] {
        return labels;
    }
    let step: [f64; 3] = [2, 1, 0]
        .map(|axis| dot(grid.row_direction, network.axes[axis]) * grid.spacing_mm[1] / network.spacing_mm[axis]);
    labels
        .par_chunks_mut(grid.columns)
        .enumerate()
        .for_each(|(row, labels)| {
            let start = network.index_of(grid.centre(row / grid.rows, (row % grid.rows) as f64, 0.0));
            // The columns whose places lie in the box.
            let (mut from, mut upto) = (0.0_f64, (grid.columns - 1) as f64);
            for i in 0..3 {
                if step[i].abs() > 1e-12 {
                    let ends = [(low[i] - start[i]) / step[i], (high[i] - start[i]) / step[i]];
                    from = from.max(ends[0].min(ends[1]));
                    upto = upto.min(ends[0].max(ends[1]));
                } else if start[i] < low[i] || start[i] > high[i] {
                    return;
                }
            }
            if from > upto {
                return;
            }
            let first = from.ceil() as usize;
            let after = (upto.floor() as usize + 1).max(first);
            for (column, label) in (first..after).zip(&mut labels[first..after]) {
                let place = std::array::from_fn(|i| start[i] + column as f64 * step[i]);
                if (0..3).all(|i| inside(place[i], sizes[i])) {
                    let value = match way {
                        Way::Linear => trilinear(image, place),
                        Way::Nearest => {
                            let [z, y, x] = std::array::from_fn(|i| nearest(place[i], sizes[i]));
                            image.values[(z * sizes[1] + y) * sizes[2] + x]
                        }
                    };
                    *label = cut.label(value);
                }
            }
        });
    labels
}

/// The interpolated value at a place `[z, y, x]`, clamped at the border.
fn trilinear(image: &Image, place: [f64; 3]) -> f32 {
    let sizes = image.grid.shape;
    let [z, y, x] = std::array::from_fn(|i| super::separable::tap(place[i], sizes[i]));
    let along = |z: usize, y: usize| {
        let row = &image.values[(z * sizes[1] + y) * sizes[2]..][..sizes[2]];
        row[x.low] + x.weight * (row[x.high] - row[x.low])
    };
    let in_plane = |z: usize| {
        let (a, b) = (along(z, y.low), along(z, y.high));
        a + y.weight * (b - a)
    };
    let (a, b) = (in_plane(z.low), in_plane(z.high));
    a + z.weight * (b - a)
}
