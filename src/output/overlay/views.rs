//! A volume and its mask in, the three planes that show the lungs out.

use rayon::prelude::*;

use super::Lungs;
use super::planes::{Plane, bounds};
use crate::volume::{Volume, Voxels};

/// Taller pictures are cut to this much around the lungs, so that a whole body does not shrink them.
const MOST_MM: f64 = 480.0;

/// The three views of the picture, and the part of the patient that they show.
pub(super) struct Views {
    /// Where the three planes cut: x of the sagittal, y of the coronal, z of the axial one. LPS millimetres.
    pub(super) cuts: [f64; 3],
    /// What is shown along x, y, z.
    pub(super) shown: [[f64; 2]; 3],
    /// What the sagittal plane goes through; empty where right and left are not told apart.
    pub(super) sagittal_side: &'static str,
    /// Number of the slice that the axial plane shows, from 1, where the stack is axial.
    pub(super) slice: Option<usize>,
}

/// Axial, coronal, sagittal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Axial,
    Coronal,
    Sagittal,
}

impl View {
    pub(super) const ALL: [View; 3] = [View::Axial, View::Coronal, View::Sagittal];

    /// The axis along the columns and the axis down the rows, and whether the latter is turned: feet and back are at the bottom, the patient's right is at the
    /// left, as radiologists look at images.
    pub(super) fn axes(self) -> (usize, usize, bool) {
        match self {
            View::Axial => (0, 1, false),
            View::Coronal => (0, 2, true),
            View::Sagittal => (1, 2, true),
        }
    }

    /// The axis that the plane cuts.
    pub(super) fn normal(self) -> usize {
        match self {
            View::Axial => 2,
            View::Coronal => 1,
            View::Sagittal => 0,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            View::Axial => "Axial",
            View::Coronal => "Coronal",
            View::Sagittal => "Sagittal",
        }
    }

    /// Letters at the left, the right, the top and the bottom.
    pub(super) fn letters(self) -> [&'static str; 4] {
        match self {
            View::Axial => ["R", "L", "A", "P"],
            View::Coronal => ["R", "L", "H", "F"],
            View::Sagittal => ["A", "P", "H", "F"],
        }
    }
}

impl Views {
    /// Planes through the middle of the lungs; where there are none, through the middle of the body. `labels`: one for each voxel, or none at all.
    pub(super) fn through(volume: &Volume, labels: &[u8], lungs: Lungs) -> Views {
        let all = bounds(&volume.grid);
        let [right, left] = Sums::of(volume, labels);
        let body = body(volume, all);
        let middle = body.map(|[low, high]| 0.5 * (low + high));
        let apart = matches!(lungs, Lungs::Apart { .. });
        let (centre, side) = match (right.join(left).centre(), right.centre()) {
            (Some(both), Some(right)) if apart => ([right[0], both[1], both[2]], "right lung"),
            (Some(left), None) if apart => (left, "left lung"),
            // The middle of both lies between them, where there is no lung to be seen.
            (Some(both), _) => ([fullest_x(volume, labels, all[0]), both[1], both[2]], ""),
            // Beside the spine, where a lung should be.
            (None, _) => ([0.7 * body[0][0] + 0.3 * body[0][1], middle[1], middle[2]], ""),
        };
        let mut cuts = centre;
        let slice = axial_slice(volume, centre);
        if let Some(slice) = slice {
            // On a slice itself, not between two.
            cuts[2] = volume.grid.origins[slice][2];
        }
        let mut shown = body;
        for axis in 0..3 {
            shown[axis][0] = shown[axis][0].min(cuts[axis]);
            shown[axis][1] = shown[axis][1].max(cuts[axis]);
        }
        // Along the body everything that was scanned is shown: what the mask misses there must be seen.
        shown[2] = all[2];
        if shown[2][1] - shown[2][0] > MOST_MM {
            let low = (centre[2] - 0.5 * MOST_MM).clamp(shown[2][0], shown[2][1] - MOST_MM);
            shown[2] = [low, low + MOST_MM];
        }
        Views {
            cuts,
            shown,
            sagittal_side: side,
            slice: slice.map(|slice| slice + 1),
        }
    }

    /// Width and height of a view in millimetres.
    pub(super) fn extent_mm(&self, view: View) -> [f64; 2] {
        let (across, down, _) = view.axes();
        [across, down].map(|axis| (self.shown[axis][1] - self.shown[axis][0]).max(1.0))
    }

    /// The plane of a view at so many pixels a millimetre.
    pub(super) fn plane(&self, view: View, pixels_per_mm: f64) -> Plane {
        let (across, down, turned) = view.axes();
        let [width, height] = self
            .extent_mm(view)
            .map(|mm| (mm * pixels_per_mm).round().max(1.0) as usize);
        let step = 1.0 / pixels_per_mm;
        let mut plane = Plane {
            corner: self.cuts,
            across: [0.0; 3],
            down: [0.0; 3],
            width,
            height,
        };
        plane.across[across] = step;
        plane.corner[across] = self.shown[across][0] + 0.5 * step;
        plane.down[down] = if turned { -step } else { step };
        plane.corner[down] = if turned {
            self.shown[down][1] - 0.5 * step
        } else {
            self.shown[down][0] + 0.5 * step
        };
        plane
    }
}

/// The slice nearest to the point, if slices are axial.
fn axial_slice(volume: &Volume, point: [f64; 3]) -> Option<usize> {
    let grid = &volume.grid;
    if grid.normal[2].abs() < 0.9999 {
        return None;
    }
    let distance = |slice: &usize| (grid.origins[*slice][2] - point[2]).abs();
    (0..grid.origins.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// The x within `range` at which a sagittal plane holds the most of the mask, to 5 mm.
fn fullest_x(volume: &Volume, labels: &[u8], range: [f64; 2]) -> f64 {
    const BIN_MM: f64 = 5.0;
    let grid = &volume.grid;
    let mut counts = vec![0_u64; ((range[1] - range[0]) / BIN_MM) as usize + 1];
    let last = counts.len() - 1;
    for (line, labels) in labels.chunks_exact(grid.columns).enumerate().step_by(2) {
        let (slice, row) = (line / grid.rows, line % grid.rows);
        for column in (0..grid.columns).step_by(2).filter(|column| labels[*column] > 0) {
            let x = grid.centre(slice, row as f64, column as f64)[0];
            counts[(((x - range[0]) / BIN_MM) as usize).min(last)] += 1;
        }
    }
    let fullest = (0..counts.len()).max_by_key(|bin| counts[*bin]).unwrap_or(0);
    (range[0] + (fullest as f64 + 0.5) * BIN_MM).min(range[1])
}

/// Sums over the voxels of one label.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    voxels: f64,
    point: [f64; 3],
}

impl Sums {
    /// Of label 1 and label 2. Every second row and column is enough for a middle.
    fn of(volume: &Volume, labels: &[u8]) -> [Sums; 2] {
        let grid = &volume.grid;
        let size = grid.rows * grid.columns;
        let slices = labels.par_chunks_exact(size.max(1)).enumerate().map(|(slice, labels)| {
            let mut sums = [Sums::default(); 2];
            for row in (0..grid.rows).step_by(2) {
                // Count and sum of columns, for each label.
                let mut line = [(0_u32, 0_u64); 2];
                for (column, label) in labels[row * grid.columns..][..grid.columns]
                    .iter()
                    .enumerate()
                    .step_by(2)
                {
                    if let 1 | 2 = label {
                        let (count, columns) = &mut line[usize::from(*label) - 1];
                        *count += 1;
                        *columns += column as u64;
                    }
                }
                for (sums, (count, columns)) in sums.iter_mut().zip(line) {
                    if count > 0 {
                        let count = f64::from(count);
                        let centre = grid.centre(slice, row as f64, columns as f64 / count);
                        *sums = sums.join(Sums {
                            voxels: count,
                            point: centre.map(|coordinate| coordinate * count),
                        });
                    }
                }
            }
            sums
        });
        slices.reduce(|| [Sums::default(); 2], |a, b| [a[0].join(b[0]), a[1].join(b[1])])
    }

    fn join(self, other: Sums) -> Sums {
        Sums {
            voxels: self.voxels + other.voxels,
            point: std::array::from_fn(|axis| self.point[axis] + other.point[axis]),
        }
    }

    fn centre(self) -> Option<[f64; 3]> {
        (self.voxels > 0.0).then(|| self.point.map(|coordinate| coordinate / self.voxels))
    }
}

/// What the body takes up of the field of view, with a margin; all of it where no body is seen. Thin things (a wire, a streak, the rim of the table) do not count.
fn body(volume: &Volume, all: [[f64; 2]; 3]) -> [[f64; 2]; 3] {
    const ABOVE_HU: f32 = -300.0;
    const BIN_MM: f64 = 5.0;
    const MARGIN_MM: f64 = 8.0;
    const STRIDE: usize = 4;
    let grid = &volume.grid;
    let bins = all.map(|[low, high]| ((high - low) / BIN_MM) as usize + 1);
    let mut counts = bins.map(|bins| vec![0_u32; bins]);
    let hu = |index: usize| match &volume.voxels {
        Voxels::I16(values) => f32::from(values[index]),
        Voxels::F32(values) => values[index],
    };
    let stride = |length: usize| STRIDE.min(length.div_ceil(16)).max(1);
    for slice in (0..grid.origins.len()).step_by(stride(grid.origins.len())) {
        for row in (0..grid.rows).step_by(stride(grid.rows)) {
            for column in (0..grid.columns).step_by(stride(grid.columns)) {
                if hu((slice * grid.rows + row) * grid.columns + column) > ABOVE_HU {
                    let centre = grid.centre(slice, row as f64, column as f64);
                    for axis in 0..3 {
                        let bin = ((centre[axis] - all[axis][0]) / BIN_MM) as usize;
                        counts[axis][bin.min(bins[axis] - 1)] += 1;
                    }
                }
            }
        }
    }
    std::array::from_fn(|axis| {
        let most = counts[axis].iter().max().copied().unwrap_or(0);
        let solid = |count: &u32| *count > 0 && *count >= most / 25;
        let (Some(first), Some(last)) = (
            counts[axis].iter().position(solid),
            counts[axis].iter().rposition(solid),
        ) else {
            return all[axis];
        };
        let low = all[axis][0] + first as f64 * BIN_MM - MARGIN_MM;
        let high = all[axis][0] + (last + 1) as f64 * BIN_MM + MARGIN_MM;
        [low.max(all[axis][0]), high.min(all[axis][1])]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Grid, Mask};

    /// Two blocks of air in water, 100 mm apart; the one at the patient's right has `labels[0]`, the other `labels[1]`.
    fn chest(labels: [u8; 2]) -> (Volume, Mask) {
        const SHAPE: [usize; 3] = [10, 20, 50];
        let grid = Grid {
            rows: SHAPE[1],
            columns: SHAPE[2],
            origins: (0..SHAPE[0]).map(|k| [-125.0, -50.0, 5.0 * k as f64]).collect(),
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            normal: [0.0, 0.0, 1.0],
            spacing_mm: [5.0; 2],
        };
        let label = |index: usize| match index % SHAPE[2] {
            8..18 => labels[0],
            30..40 => labels[1],
            _ => 0,
        };
        let mask = Mask {
            shape: SHAPE,
            labels: (0..grid.voxel_count()).map(label).collect(),
        };
        let hu = |label: &u8| if *label > 0 { -850 } else { 40 };
        let volume = Volume {
            voxels: Voxels::I16(mask.labels.iter().map(hu).collect()),
            padding_hu: vec![None; SHAPE[0]],
            grid,
        };
        (volume, mask)
    }

    /// Whether the sagittal plane goes through the block at the right, the one at the left.
    fn cut(views: &Views) -> [bool; 2] {
        [8, 30].map(|first| {
            let [low, high] = [first, first + 10].map(|column| -127.5 + 5.0 * f64::from(column));
            (low..high).contains(&views.cuts[0])
        })
    }

    #[test]
    fn the_sagittal_plane_of_lungs_told_apart_is_named() {
        let lungs = Lungs::Apart {
            right_ml: 1.0,
            left_ml: 1.0,
        };
        for (labels, name, through) in [
            ([1, 2], "right lung", [true, false]),
            ([1, 0], "right lung", [true, false]),
            ([0, 2], "left lung", [false, true]),
        ] {
            let (volume, mask) = chest(labels);
            let views = Views::through(&volume, &mask.labels, lungs);
            assert_eq!((views.sagittal_side, cut(&views)), (name, through));
        }
    }

    #[test]
    fn the_sagittal_plane_of_lungs_not_told_apart_goes_through_lung_and_has_no_name() {
        for labels in [[1, 1], [1, 2]] {
            let (volume, mask) = chest(labels);
            let views = Views::through(&volume, &mask.labels, Lungs::Together(2.0));
            assert_eq!(views.sagittal_side, "");
            assert!(cut(&views).contains(&true), "x {} mm", views.cuts[0]);
        }
    }
}
