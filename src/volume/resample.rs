//! A volume on its slices in, values on a regular grid out: trilinear by true slice positions, on all cores.
//!
//! Where the grid runs along the stack's axes (flips and permutations included) interpolation is separable: for each output row two source rows are blended
//! across two slices and then across rows, and the row is read along columns. Only the slices next to an output plane are touched, and no copy of the volume
//! is made. Everything else (gantry tilt, straightened stacks) goes point by point in `general`.

use rayon::prelude::*;

use super::general;
use super::separable::{Parallel, Tap, nearest, permute, taps};
use super::{AIR_HU, Grid, GridSpecification, Image, Mask, RegularGrid, Volume, Voxels};

/// A voxel value as it is held in memory.
pub(super) trait Sample: Copy + Send + Sync {
    /// The value in HU.
    fn hu(self) -> f32;
}

impl Sample for i16 {
    fn hu(self) -> f32 {
        f32::from(self)
    }
}

impl Sample for f32 {
    fn hu(self) -> f32 {
        self
    }
}

/// The range of HU that stands for padding in one slice.
pub(super) type Padding = Option<(f32, f32)>;

/// A voxel's HU with padding as air.
pub(super) fn air_for_padding(hu: f32, (low, high): (f32, f32)) -> f32 {
    if hu >= low && hu <= high { AIR_HU } else { hu }
}

/// What becomes of an interpolated HU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    factor: f32,
    shift: f32,
    low: f32,
    high: f32,
}

impl Scale {
    const NONE: Scale = Scale {
        factor: 1.0,
        shift: 0.0,
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    };

    /// MONAI's `ScaleIntensityRange` with `clip=True`.
    pub(super) fn window(specification: &GridSpecification) -> Scale {
        let ([from, upto], [first, last]) = (specification.window_hu, specification.window_to);
        let factor = (f64::from(last) - f64::from(first)) / (f64::from(upto) - f64::from(from));
        Scale {
            factor: factor as f32,
            shift: (f64::from(first) - f64::from(from) * factor) as f32,
            low: first.min(last),
            high: first.max(last),
        }
    }

    /// The value for the network.
    pub(super) fn apply(self, hu: f32) -> f32 {
        (hu * self.factor + self.shift).max(self.low).min(self.high)
    }
}

/// A volume on the network's grid: trilinear by true slice positions, clamped at the stack's border, clipped and scaled by the specification's window.
/// Padding counts as -1000 HU.
///
/// On regular stacks these are the numbers of MONAI's `Orientation`, `Spacing(mode="bilinear", padding_mode="border")` and `ScaleIntensityRange`, within 1e-6
/// of the window. On a grid that is not the stack's own axes, voxels outside the stack by more than the reach of linear interpolation on that grid are -1000 HU,
/// so that every network voxel that the way back reads for a source voxel is the stack's or its border's.
pub fn resample(volume: &Volume, to: &RegularGrid, specification: &GridSpecification) -> Image {
    sampled(volume, to, &volume.padding_hu, Scale::window(specification))
}

/// A volume in HU on another grid, for exports: as [`resample`], but neither clipped nor scaled, and padding keeps its values.
pub fn resample_hu(volume: &Volume, to: &RegularGrid) -> Image {
    sampled(volume, to, &[], Scale::NONE)
}

fn sampled(volume: &Volume, to: &RegularGrid, padding: &[Padding], scale: Scale) -> Image {
    let values = match &volume.voxels {
        Voxels::I16(voxels) => values(voxels, &volume.grid, padding, to, scale),
        Voxels::F32(voxels) => values(voxels, &volume.grid, padding, to, scale),
    };
    Image {
        grid: to.clone(),
        values,
    }
}

fn values<S: Sample>(voxels: &[S], grid: &Grid, padding: &[Padding], to: &RegularGrid, scale: Scale) -> Vec<f32> {
    match Parallel::of(grid, to) {
        Some(parallel) => {
            let values = separable(voxels, grid, padding, to, &parallel, scale);
            if parallel.same_order() {
                values
            } else {
                permute(&values, parallel.sizes(to), parallel.order_back())
            }
        }
        None => general::values(voxels, grid, padding, to, scale),
    }
}

/// Values in the stack's axis order.
fn separable<S: Sample>(
    voxels: &[S],
    grid: &Grid,
    padding: &[Padding],
    to: &RegularGrid,
    parallel: &Parallel,
    scale: Scale,
) -> Vec<f32> {
    let [slices, rows, columns] = grid.shape();
    let [_, out_rows, out_columns] = parallel.sizes(to);
    let [across, down, along] = parallel.source_indices(grid, to);
    let (across, down) = (taps(&across, slices), taps(&down, rows));
    let along: Vec<(u32, f32)> = taps(&along, columns)
        .iter()
        .map(|tap| (tap.low as u32, tap.weight))
        .collect();

    let mut out = vec![0.0; across.len() * out_rows * out_columns];
    out.par_chunks_mut((out_rows * out_columns).max(1))
        .zip(&across)
        .for_each_init(
            || Blender::new(columns),
            |blender, (plane, tap)| {
                let source = SlicePair::new(voxels, rows * columns, padding, *tap);
                blender.held = [usize::MAX; 2];
                for (row, tap) in plane.chunks_exact_mut(out_columns).zip(&down) {
                    let blended = blender.row(&source, *tap);
                    for (value, (low, weight)) in row.iter_mut().zip(&along) {
                        let (a, step) = blended[*low as usize];
                        *value = a + weight * step;
                    }
                    // In a loop of its own, which runs on several values at once.
                    for value in row {
                        *value = scale.apply(*value);
                    }
                }
            },
        );
    out
}

/// Two neighbouring slices, and the weight of the second.
struct SlicePair<'a, S> {
    slices: [&'a [S]; 2],
    padding: [Padding; 2],
    weight: f32,
}

impl<'a, S: Sample> SlicePair<'a, S> {
    fn new(voxels: &'a [S], area: usize, padding: &[Padding], tap: Tap) -> Self {
        let slice = |k: usize| &voxels[k * area..(k + 1) * area];
        let of = |k: usize| padding.get(k).copied().flatten();
        SlicePair {
            slices: [slice(tap.low), slice(tap.high)],
            padding: [of(tap.low), of(tap.high)],
            weight: tap.weight,
        }
    }

    /// One row, blended across the two slices.
    fn blend(&self, row: usize, out: &mut [f32]) {
        let span = row * out.len()..(row + 1) * out.len();
        let (first, second) = (&self.slices[0][span.clone()], &self.slices[1][span]);
        let weight = self.weight;
        match self.padding {
            [None, None] => {
                for ((value, a), b) in out.iter_mut().zip(first).zip(second) {
                    let (a, b) = (a.hu(), b.hu());
                    *value = a + weight * (b - a);
                }
            }
            padding => {
                // An empty range where a slice has no padding.
                let [pad_a, pad_b] = padding.map(|range| range.unwrap_or((f32::INFINITY, f32::NEG_INFINITY)));
                for ((value, a), b) in out.iter_mut().zip(first).zip(second) {
                    let (a, b) = (air_for_padding(a.hu(), pad_a), air_for_padding(b.hu(), pad_b));
                    *value = a + weight * (b - a);
                }
            }
        }
    }
}

/// The rows that are in work: the last two blended across slices, and their blend.
struct Blender {
    held: [usize; 2],
    rows: [Vec<f32>; 2],
    blended: Vec<f32>,
    steps: Vec<(f32, f32)>,
}

impl Blender {
    fn new(columns: usize) -> Blender {
        Blender {
            held: [usize::MAX; 2],
            rows: [vec![0.0; columns], vec![0.0; columns]],
            // One value more than columns, so that the neighbour of the last column exists.
            blended: vec![0.0; columns + 1],
            steps: vec![(0.0, 0.0); columns],
        }
    }

    /// A row between two source rows: each value, and the step to its neighbour (0 from the last one). Neighbouring rows differ in their last bit, which says where each
    /// is held.
    fn row<S: Sample>(&mut self, source: &SlicePair<S>, tap: Tap) -> &[(f32, f32)] {
        for row in [tap.low, tap.high] {
            if self.held[row & 1] != row {
                source.blend(row, &mut self.rows[row & 1]);
                self.held[row & 1] = row;
            }
        }
        let (first, second) = (&self.rows[tap.low & 1], &self.rows[tap.high & 1]);
        for ((value, a), b) in self.blended.iter_mut().zip(first).zip(second) {
            *value = a + tap.weight * (b - a);
        }
        let columns = first.len();
        self.blended[columns] = self.blended[columns - 1];
        for ((step, a), b) in self.steps.iter_mut().zip(&self.blended).zip(&self.blended[1..]) {
            *step = (*a, b - a);
        }
        &self.steps
    }
}

/// Labels on another grid, for exports: the nearest source voxel's, background outside the stack. A place half way takes the even index.
pub fn resample_labels(mask: &Mask, grid: &Grid, to: &RegularGrid) -> Mask {
    let labels = match Parallel::of(grid, to) {
        Some(parallel) => {
            let [slices, rows, columns] = grid.shape();
            let [across, down, along] = parallel.source_indices(grid, to);
            let find = |indices: Vec<f64>, n: usize| -> Vec<Option<usize>> {
                indices
                    .into_iter()
                    .map(|i| inside(i, n).then(|| nearest(i, n)))
                    .collect()
            };
            let (across, down, along) = (find(across, slices), find(down, rows), find(along, columns));
            let mut out = vec![0; across.len() * down.len() * along.len()];
            out.par_chunks_mut((down.len() * along.len()).max(1))
                .zip(&across)
                .for_each(|(plane, slice)| {
                    let Some(slice) = slice else { return };
                    for (labels, row) in plane.chunks_exact_mut(along.len()).zip(&down) {
                        let Some(row) = row else { continue };
                        let start = (slice * rows + row) * columns;
                        let source = &mask.labels[start..start + columns];
                        for (label, column) in labels.iter_mut().zip(&along) {
                            *label = column.map_or(0, |column| source[column]);
                        }
                    }
                });
            if parallel.same_order() {
                out
            } else {
                permute(&out, parallel.sizes(to), parallel.order_back())
            }
        }
        None => general::labels(&mask.labels, grid, to),
    };
    Mask {
        shape: to.shape,
        labels,
    }
}

/// Whether an index lies within half a voxel of `n` voxels.
pub(super) fn inside(index: f64, n: usize) -> bool {
    const HALF: f64 = 0.5 + 1e-3;
    index >= -HALF && index <= n as f64 - 1.0 + HALF
}
