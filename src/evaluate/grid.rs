//! Two label images in, both on one grid out.
//!
//! Images are first brought into one order (columns to the left, rows to the back, slices upwards, as far as their axes allow), so that the same voxels stored in
//! another order compare exactly. Slices that one side lacks (a sparse segmentation) are added empty. Grids that differ otherwise are judged on the reference's:
//! each of its voxels takes the predicted label at its centre.

use super::EvaluateError;
use crate::series::vector::{cross, difference, dot, length};
use crate::volume::Grid;

/// Voxels of a block that is compared, however few voxels an image has.
const LEAST_ROOM: usize = 1 << 24;

/// Labels with their place in the patient.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelImage {
    /// Where the voxels are; slices ascend along the normal. There may be no slice at all.
    pub grid: Grid,
    /// One label a voxel, `[slice][row][column]`: 0 is background.
    pub labels: Vec<u8>,
    /// What the labels say of right and left.
    pub sides: SideLabels,
    /// Thickness of a slice that stands alone.
    pub(super) lone_thickness_mm: f64,
}

/// What the labels of an image say of right and left. Every label but 0 is lung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideLabels {
    /// 1 is the right lung and 2 the left one; a lung whose label does not occur is not there.
    Apart,
    /// Nothing.
    Undivided,
    /// 1 alone, or no label at all: the right lung without the left one, or both undivided.
    Unknown,
}

/// How two images came onto one grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grids {
    /// They have the same voxels.
    Same,
    /// They have the same voxels, but slices that one of them leaves out.
    SlicesAdded,
    /// The predicted labels were looked up at the centres of the reference's voxels.
    Resampled,
    /// There is no prediction; an empty mask on the reference's grid stands for it.
    NoPrediction,
}

/// Both on one grid.
pub(super) struct Paired {
    pub(super) grid: Grid,
    pub(super) predicted: Vec<u8>,
    pub(super) reference: Vec<u8>,
    pub(super) grids: Grids,
    /// Predicted foreground that the reference's grid does not reach, millilitres.
    pub(super) outside_ml: f64,
    pub(super) lone_thickness_mm: f64,
}

impl LabelImage {
    /// An image in canonical order, the meaning of its labels told by which of them occur.
    pub(super) fn new(grid: Grid, labels: Vec<u8>) -> Result<Self, EvaluateError> {
        if labels.len() != grid.origins.len() * grid.rows * grid.columns {
            return Err(EvaluateError::Damaged(
                "the number of voxels does not fit the grid".to_owned(),
            ));
        }
        let mut seen = [false; 256];
        for label in &labels {
            seen[usize::from(*label)] = true;
        }
        let sides = match (seen[2], seen[3..].contains(&true)) {
            (_, true) => SideLabels::Undivided,
            (true, false) => SideLabels::Apart,
            (false, false) => SideLabels::Unknown,
        };
        let mut image = Self {
            grid,
            labels,
            sides,
            lone_thickness_mm: 1.0,
        };
        image.reorder();
        // Far from the origin of the patient, slices fall together where a number has no room for their distance.
        let ascending = positions(&image.grid).windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || image.sheared_voxels() > (8 * image.labels.len()).max(LEAST_ROOM) as f64 {
            return Err(EvaluateError::Damaged(
                "its slices do not lie one behind the other".to_owned(),
            ));
        }
        Ok(image)
    }

    /// Voxels of the block in which every slice has room where it lies, shifted in its plane against the first one: what a comparison allocates.
    fn sheared_voxels(&self) -> f64 {
        let grid = &self.grid;
        let mut bounds = [[0.0_f64; 2]; 2];
        for shift in shifts(grid) {
            if !shift.iter().all(|voxels| voxels.is_finite()) {
                return f64::INFINITY;
            }
            for ([low, high], voxels) in bounds.iter_mut().zip(shift) {
                *low = low.min(voxels);
                *high = high.max(voxels);
            }
        }
        let [down, along] = bounds.map(|[low, high]| high - low);
        grid.origins.len() as f64 * (grid.rows as f64 + down) * (grid.columns as f64 + along)
    }

    /// Millimetres to the next slice along the storage axis, if all steps are the same.
    fn step(&self) -> Option<[f64; 3]> {
        let origins = &self.grid.origins;
        let count = origins.len();
        if count < 2 {
            return None;
        }
        let step = difference(origins[count - 1], origins[0]).map(|d| d / (count - 1) as f64);
        let even = origins.iter().enumerate().all(|(k, origin)| {
            let expected = [0, 1, 2].map(|axis| origins[0][axis] + k as f64 * step[axis]);
            length(difference(*origin, expected)) < 2e-3
        });
        (even && length(step) > 1e-6).then_some(step)
    }

    /// No lung, on the same planes.
    pub(super) fn emptied(&self) -> Self {
        Self {
            grid: Grid {
                origins: Vec::new(),
                ..self.grid.clone()
            },
            labels: Vec::new(),
            ..*self
        }
    }

    fn reorder(&mut self) {
        let Some(through) = self.step() else {
            return self.sort_slices();
        };
        let grid = &self.grid;
        let scaled = |v: [f64; 3], s: f64| v.map(|c| c * s);
        let steps = [
            through,
            scaled(grid.column_direction, grid.spacing_mm[0]),
            scaled(grid.row_direction, grid.spacing_mm[1]),
        ];
        let sizes = [grid.origins.len(), grid.rows, grid.columns];
        // Which storage axis goes up, to the back, to the left: the assignment with the best agreement.
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let agreement = |order: &[usize; 3]| {
            (0..3)
                .map(|to| (steps[order[to]][2 - to] / length(steps[order[to]])).abs())
                .sum::<f64>()
        };
        let order = orders
            .into_iter()
            .max_by(|a, b| agreement(a).total_cmp(&agreement(b)))
            .unwrap_or(orders[0]);
        let flipped = [0, 1, 2].map(|to| steps[order[to]][2 - to] < 0.0);
        let mut origin = grid.origins[0];
        let mut new_steps = [[0.0; 3]; 3];
        for to in 0..3 {
            let from = order[to];
            new_steps[to] = steps[from];
            if flipped[to] {
                let last = (sizes[from] - 1) as f64;
                origin = [0, 1, 2].map(|axis| origin[axis] + last * steps[from][axis]);
                new_steps[to] = steps[from].map(|c| -c);
            }
        }
        let new_sizes = order.map(|from| sizes[from]);
        if order != [0, 1, 2] || flipped != [false; 3] {
            let strides = [sizes[1] * sizes[2], sizes[2], 1];
            let mut labels = Vec::with_capacity(self.labels.len());
            let at = |to: usize, index: usize| {
                (if flipped[to] { new_sizes[to] - 1 - index } else { index }) * strides[order[to]]
            };
            for slice in 0..new_sizes[0] {
                for row in 0..new_sizes[1] {
                    let start = at(0, slice) + at(1, row);
                    labels.extend((0..new_sizes[2]).map(|column| self.labels[start + at(2, column)]));
                }
            }
            self.labels = labels;
        }
        let unit = |v: [f64; 3]| v.map(|c| c / length(v));
        let (row_direction, column_direction) = (unit(new_steps[2]), unit(new_steps[1]));
        self.grid = Grid {
            rows: new_sizes[1],
            columns: new_sizes[2],
            origins: (0..new_sizes[0])
                .map(|k| [0, 1, 2].map(|axis| origin[axis] + k as f64 * new_steps[0][axis]))
                .collect(),
            row_direction,
            column_direction,
            normal: unit(cross(row_direction, column_direction)),
            spacing_mm: [length(new_steps[1]), length(new_steps[2])],
        };
    }

    /// Uneven slices keep their axes; they are put in ascending order.
    fn sort_slices(&mut self) {
        let normal = self.grid.normal;
        let mut order: Vec<usize> = (0..self.grid.origins.len()).collect();
        order.sort_by(|a, b| dot(self.grid.origins[*a], normal).total_cmp(&dot(self.grid.origins[*b], normal)));
        if order.is_sorted() {
            return;
        }
        let area = self.grid.rows * self.grid.columns;
        self.labels = order
            .iter()
            .flat_map(|slice| &self.labels[slice * area..(slice + 1) * area])
            .copied()
            .collect();
        self.grid.origins = order.iter().map(|slice| self.grid.origins[*slice]).collect();
    }
}

/// By how many whole voxels every slice is shifted in its plane against the first one (gantry tilt): down, along.
pub(super) fn shifts(grid: &Grid) -> impl Iterator<Item = [f64; 2]> {
    let first = grid.origins.first().copied().unwrap_or_default();
    grid.origins.iter().map(move |origin| {
        let d = difference(*origin, first);
        [
            (dot(d, grid.column_direction) / grid.spacing_mm[0]).round(),
            (dot(d, grid.row_direction) / grid.spacing_mm[1]).round(),
        ]
    })
}

/// Positions of slices along the normal.
pub(super) fn positions(grid: &Grid) -> Vec<f64> {
    grid.origins.iter().map(|origin| dot(*origin, grid.normal)).collect()
}

/// Thickness of every slice: half way to its neighbours on both sides.
pub(super) fn thicknesses(positions: &[f64], lone: f64) -> Vec<f64> {
    let last = positions.len().saturating_sub(1);
    (0..positions.len())
        .map(|k| match (k > 0, k < last) {
            (true, true) => 0.5 * (positions[k + 1] - positions[k - 1]),
            (false, true) => positions[1] - positions[0],
            (true, false) => positions[last] - positions[last - 1],
            (false, false) => lone,
        })
        .collect()
}

/// Brings both onto one grid.
pub(super) fn pair(predicted: &LabelImage, reference: &LabelImage) -> Paired {
    let (p, r) = (&predicted.grid, &reference.grid);
    let paired = |grid: Grid, predicted: Vec<u8>, labels: Vec<u8>, grids, outside_ml| Paired {
        grid,
        predicted,
        reference: labels,
        grids,
        outside_ml,
        lone_thickness_mm: reference.lone_thickness_mm,
    };
    if p.origins.is_empty() {
        return paired(
            r.clone(),
            vec![0; reference.labels.len()],
            reference.labels.clone(),
            Grids::SlicesAdded,
            0.0,
        );
    }
    if r.origins.is_empty() {
        return paired(
            p.clone(),
            predicted.labels.clone(),
            vec![0; predicted.labels.len()],
            Grids::SlicesAdded,
            0.0,
        );
    }
    if let Some(union) = union(p, r) {
        let area = r.rows * r.columns;
        let same = union.len() == p.origins.len() && union.len() == r.origins.len();
        let fill = |labels: &[u8], pick: fn(&Slot) -> Option<usize>| {
            let mut out = Vec::with_capacity(union.len() * area);
            for slots in &union {
                match pick(slots) {
                    Some(slice) => out.extend_from_slice(&labels[slice * area..(slice + 1) * area]),
                    None => out.resize(out.len() + area, 0),
                }
            }
            out
        };
        let origins = union
            .iter()
            .filter_map(|(of_predicted, of_reference)| {
                of_reference
                    .map(|k| r.origins[k])
                    .or_else(|| of_predicted.map(|k| p.origins[k]))
            })
            .collect();
        let grid = Grid { origins, ..r.clone() };
        let grids = if same { Grids::Same } else { Grids::SlicesAdded };
        return paired(
            grid,
            fill(&predicted.labels, |slots| slots.0),
            fill(&reference.labels, |slots| slots.1),
            grids,
            0.0,
        );
    }
    let resampled = Finder::new(predicted).labels_at(r);
    let outside = Finder::new(reference);
    let thick = thicknesses(&positions(p), predicted.lone_thickness_mm);
    let area = p.rows * p.columns;
    let mut outside_ml = 0.0;
    for (index, _) in predicted.labels.iter().enumerate().filter(|(_, label)| **label > 0) {
        let (slice, row, column) = (index / area, index % area / p.columns, index % p.columns);
        if outside.index(centre(p, slice, row, column)).is_none() {
            outside_ml += thick[slice] * p.spacing_mm[0] * p.spacing_mm[1] / 1000.0;
        }
    }
    paired(
        r.clone(),
        resampled,
        reference.labels.clone(),
        Grids::Resampled,
        outside_ml,
    )
}

fn centre(grid: &Grid, slice: usize, row: usize, column: usize) -> [f64; 3] {
    let (down, along) = (row as f64 * grid.spacing_mm[0], column as f64 * grid.spacing_mm[1]);
    [0, 1, 2]
        .map(|axis| grid.origins[slice][axis] + along * grid.row_direction[axis] + down * grid.column_direction[axis])
}

/// A slice of the union: its index in the prediction and in the reference.
type Slot = (Option<usize>, Option<usize>);
type Slots = Vec<Slot>;

/// The slices of both in order, where the planes are the same and at least one slice is common.
fn union(p: &Grid, r: &Grid) -> Option<Slots> {
    let finest = p
        .spacing_mm
        .iter()
        .chain(&r.spacing_mm)
        .copied()
        .fold(f64::MAX, f64::min);
    // A hundredth of a voxel, but never finer than decimal strings and 32-bit affines allow.
    let tolerance = (0.02 * finest).max(0.01);
    let far = p.rows.max(p.columns) as f64;
    let planes = p.rows == r.rows
        && p.columns == r.columns
        && (0..2).all(|axis| (p.spacing_mm[axis] - r.spacing_mm[axis]).abs() * far < tolerance)
        && length(difference(p.row_direction, r.row_direction)) * far * finest < tolerance
        && length(difference(p.column_direction, r.column_direction)) * far * finest < tolerance;
    if !planes {
        return None;
    }
    let place = |origin: &[f64; 3]| dot(*origin, r.normal);
    let (mut i, mut j) = (0, 0);
    let mut slots: Slots = Vec::new();
    let mut common = 0;
    while i < p.origins.len() || j < r.origins.len() {
        match (p.origins.get(i), r.origins.get(j)) {
            (Some(a), Some(b)) if (place(a) - place(b)).abs() < tolerance => {
                if length(difference(*a, *b)) > tolerance {
                    return None;
                }
                common += 1;
                slots.push((Some(i), Some(j)));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), Some(b)) if place(a) < place(b) => {
                slots.push((Some(i), None));
                i += 1;
            }
            (Some(_), None) => {
                slots.push((Some(i), None));
                i += 1;
            }
            _ => {
                slots.push((None, Some(j)));
                j += 1;
            }
        }
    }
    // Slices of one side between the slices of the other are another grid, not left-out slices: every step must be one that a side has itself.
    (common > 0 && steps_are_kept(p, r, &slots, tolerance)).then_some(slots)
}

fn steps_are_kept(p: &Grid, r: &Grid, slots: &Slots, tolerance: f64) -> bool {
    let smallest = |grid: &Grid| {
        positions(grid)
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .fold(f64::MAX, f64::min)
    };
    let least = smallest(p).min(smallest(r));
    let places: Vec<f64> = slots
        .iter()
        .filter_map(|(i, j)| {
            j.map(|j| dot(r.origins[j], r.normal))
                .or_else(|| i.map(|i| dot(p.origins[i], r.normal)))
        })
        .collect();
    places.windows(2).all(|pair| pair[1] - pair[0] >= least - tolerance)
}

/// Finds the voxel of an image in which a point lies.
struct Finder<'a> {
    image: &'a LabelImage,
    positions: Vec<f64>,
    thick: Vec<f64>,
}

impl<'a> Finder<'a> {
    fn new(image: &'a LabelImage) -> Self {
        let positions = positions(&image.grid);
        let thick = thicknesses(&positions, image.lone_thickness_mm);
        Self {
            image,
            positions,
            thick,
        }
    }

    fn index(&self, p: [f64; 3]) -> Option<usize> {
        let grid = &self.image.grid;
        let place = dot(p, grid.normal);
        let after = self.positions.partition_point(|position| *position < place);
        let near = |k: &usize| (self.positions[*k] - place).abs();
        let slice = [after.checked_sub(1), (after < self.positions.len()).then_some(after)]
            .into_iter()
            .flatten()
            .min_by(|a, b| near(a).total_cmp(&near(b)))?;
        if near(&slice) > 0.5 * self.thick[slice] + 1e-6 {
            let inner = slice > 0 && slice + 1 < self.positions.len();
            if !inner {
                return None;
            }
        }
        let d = difference(p, grid.origins[slice]);
        let row = (dot(d, grid.column_direction) / grid.spacing_mm[0]).round();
        let column = (dot(d, grid.row_direction) / grid.spacing_mm[1]).round();
        if row < 0.0 || column < 0.0 || row >= grid.rows as f64 || column >= grid.columns as f64 {
            return None;
        }
        Some((slice * grid.rows + row as usize) * grid.columns + column as usize)
    }

    fn labels_at(&self, grid: &Grid) -> Vec<u8> {
        use rayon::prelude::*;
        let area = grid.rows * grid.columns;
        let mut labels = vec![0; grid.origins.len() * area];
        labels
            .par_chunks_exact_mut(area.max(1))
            .enumerate()
            .for_each(|(slice, out)| {
                for (k, label) in out.iter_mut().enumerate() {
                    let p = centre(grid, slice, k / grid.columns, k % grid.columns);
                    *label = self.index(p).map_or(0, |index| self.image.labels[index]);
                }
            });
        labels
    }
}
