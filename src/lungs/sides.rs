//! A mask in, right and left told apart out, in the patient's space: whatever the orientation of the slices, separate lungs by their components, touching ones by the
//! thinnest bridge.
//!
//! 1. The profile of the mask across the patient (LPS x grows to the left) has a valley where the mediastinum is: the midline.
//! 2. A component that lies on both sides of it is cut, see `bridge`; one that cannot be cut is one lung.
//! 3. The largest piece on each side is that lung. Other pieces go to the lung on whose side they lie, small ones and those near the midline to the nearest.
//!
//! Limits. Right and left are those of the image's header: a wrong PatientPosition, mirrored images, or a situs inversus cannot be seen in a mask. A lone lung is named by
//! the side of the field of view's middle on which it lies, which a small field of view around one lung may get wrong. A lung that reaches far across the midline (after
//! removal of the other one) can be taken for two. `Sides::confidence` says how far each of these is in play.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bridge::{self, Bridge};
use super::cells::Cells;
use super::components::{Components, Connectivity};
use super::midline::Midline;
use super::pieces::{Across, Piece};
use super::runs::Runs;
use super::{LungsError, check_shape};
use crate::volume::{Grid, Mask};

const RIGHT: u8 = 1;
const LEFT: u8 = 2;

/// A piece with less than this share of the mask is small: it is not asked on which side it lies, but which lung is near.
const SMALL_SHARE: f64 = 0.02;

/// Pieces whose middle is nearer than this to the midline go to the nearest lung too.
const NEAR_MIDLINE_MM: f64 = 15.0;

/// Further from both lungs than this, nearness says little, and a piece goes by its side of the midline.
const FAR_MM: f64 = 40.0;

/// If the two lungs are nearly as far from a piece, its side is doubtful.
const DOUBTFUL_MM: f64 = 8.0;

/// A component is looked at as a pair of lungs if at least this share of it lies on either side of the midline,
const LEAST_ACROSS: f64 = 0.03;
/// and cut if the smaller part has this share of the larger,
const LEAST_PART: f64 = 0.04;
/// or this one, if another large piece lies on that side: then the component is rather one lung that reaches across.
const LEAST_PART_BESIDE_ANOTHER: f64 = 0.25;

/// Narrower than this, from the 5th to the 95th percentile of the profile, one blob is one lung. A grown chest is wider, one lung is not.
const ONE_LUNG_WIDTH_MM: f64 = 180.0;

/// A lone lung is surely on a side if its middle is so far from that of the field of view.
const SURELY_ASIDE_MM: f64 = 60.0;

/// How right and left were told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// There is nothing to tell apart.
    NoLung,
    /// One lung, named by its place in the field of view.
    OneLung,
    /// The lungs do not touch.
    Separate,
    /// The lungs touch, and were cut at the thinnest bridge.
    Cut,
    /// One blob without a bridge, cut at the middle of its width: not to be trusted.
    Halved,
}

/// Which lung is which, and how far that can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sides {
    /// How they were told apart.
    pub told: Told,
    /// Volume of the right lung in millilitres.
    pub right_ml: f64,
    /// Volume of the left lung in millilitres.
    pub left_ml: f64,
    /// Patient's x (LPS) of the midline in millimetres.
    pub midline_x_mm: f64,
    /// Distance between the middles of the two lungs across the patient in millimetres; 0 if there is only one.
    pub apart_mm: f64,
    /// Area of the bridge that was cut, in square centimetres, summed over voxel faces; 0 if none was.
    pub bridge_cm2: f64,
    /// Volume of pieces that lie about as near to one lung as to the other, in millilitres.
    pub doubtful_ml: f64,
    /// From 0, not to be trusted, to 1. Starts at 1 and is lowered: for a cut, by its area over that of a cube with the smaller lung's volume; by five times the
    /// doubtful share of the volume; to at most 0.4 if the lungs' middles are nearer to each other than 0.6 edges of a cube with the larger lung's volume. A lone lung has
    /// at most 0.8, at 60 mm from the middle of the field of view, and less when nearer; a halved blob 0.1.
    pub confidence: f64,
}

/// Labels the right lung 1 and the left lung 2; what was labelled stays labelled, nothing else becomes so.
///
/// # Errors
/// If the mask does not have the shape of the grid.
pub fn sides(mask: &mut Mask, grid: &Grid) -> Result<Sides, LungsError> {
    check_shape(mask, grid, None)?;
    let runs = Runs::of(mask)?;
    let across = Across::of(grid);
    let profile = across.profile(&runs);
    let Some(midline) = Midline::of(&profile) else {
        return Ok(Sides::none());
    };
    if !midline.two_lungs && profile.width_mm(0.05, 0.95) < ONE_LUNG_WIDTH_MM {
        return Ok(one_lung(mask, grid, &runs, &across));
    }
    let pieces = Pieces::of(&runs, grid, &across, midline.x_mm)?;
    let mut labels = pieces.named(midline.x_mm);
    let doubtful_ml = pieces.place_small(&mut labels, grid, midline.x_mm);
    pieces.write(mask, &labels);
    Ok(pieces.summary(&labels, &midline, doubtful_ml))
}

/// Labels both lungs 1: for a mask whose sides are uncertain, so that nothing made of it claims a side.
pub fn join_sides(mask: &mut Mask) {
    mask.labels
        .par_iter_mut()
        .for_each(|label| *label = (*label).min(RIGHT));
}

impl Sides {
    fn none() -> Sides {
        Sides {
            told: Told::NoLung,
            right_ml: 0.0,
            left_ml: 0.0,
            midline_x_mm: 0.0,
            apart_mm: 0.0,
            bridge_cm2: 0.0,
            doubtful_ml: 0.0,
            confidence: 0.0,
        }
    }
}

/// Everything is one lung, named by its side of the middle of the field of view.
fn one_lung(mask: &mut Mask, grid: &Grid, runs: &Runs, across: &Across) -> Sides {
    let lung = across.piece(runs);
    let slices = grid.origins.len() as f64;
    let corner = grid.origins.iter().map(|origin| origin[0]).sum::<f64>() / slices;
    let middle = corner
        + (grid.columns - 1) as f64 / 2.0 * grid.spacing_mm[1] * grid.row_direction[0]
        + (grid.rows - 1) as f64 / 2.0 * grid.spacing_mm[0] * grid.column_direction[0];
    let aside = lung.x_mm - middle;
    let label = if aside < 0.0 { RIGHT } else { LEFT };
    relabel(mask, runs, |_| label);
    Sides {
        told: Told::OneLung,
        right_ml: if label == RIGHT { lung.volume_ml } else { 0.0 },
        left_ml: if label == LEFT { lung.volume_ml } else { 0.0 },
        midline_x_mm: middle,
        confidence: (aside.abs() / SURELY_ASIDE_MM).min(1.0) * 0.8,
        ..Sides::none()
    }
}

/// The components of the mask, those that hold both lungs in two.
struct Pieces<'a> {
    runs: &'a Runs,
    components: Components,
    /// For each component, itself or its two parts.
    parts: Vec<Parts>,
    halved: bool,
    bridge_cm2: f64,
}

enum Parts {
    Whole(Piece),
    Two { right: (Piece, Runs), left: (Piece, Runs) },
}

/// Labels of each component: one, or right and left of a cut one.
type Labels = Vec<Option<u8>>;

impl<'a> Pieces<'a> {
    fn of(runs: &'a Runs, grid: &Grid, across: &Across, midline_mm: f64) -> Result<Pieces<'a>, LungsError> {
        let components = Components::of(runs, Connectivity::Full);
        let whole = across.pieces(runs, &components);
        let right_ml = across.right_of(runs, &components, midline_mm);
        let total: f64 = whole.iter().map(|piece| piece.volume_ml).sum();
        let mut pieces = Pieces {
            runs,
            components,
            parts: Vec::with_capacity(whole.len()),
            halved: false,
            bridge_cm2: 0.0,
        };
        for (index, &piece) in whole.iter().enumerate() {
            let smaller = right_ml[index].min(piece.volume_ml - right_ml[index]) / piece.volume_ml;
            if piece.volume_ml < SMALL_SHARE * total || smaller < LEAST_ACROSS {
                pieces.parts.push(Parts::Whole(piece));
                continue;
            }
            // Does another large piece lie on the side of which this one has less?
            let less_on_right = right_ml[index] * 2.0 < piece.volume_ml;
            let other = whole.iter().enumerate().any(|(other, beside)| {
                other != index
                    && (beside.x_mm < midline_mm) == less_on_right
                    && beside.volume_ml >= 0.2 * piece.volume_ml
            });
            let component = runs.filtered(|run| pieces.components.of_run[run] as usize == index)?;
            let least = if other { LEAST_PART_BESIDE_ANOTHER } else { LEAST_PART };
            pieces
                .parts
                .push(match bridge::cut(&component, grid, midline_mm, least)? {
                    Some(Bridge { right, left, area_cm2 }) => {
                        pieces.bridge_cm2 += area_cm2;
                        Parts::two(across, right, left)
                    }
                    None if !other && smaller >= LEAST_PART_BESIDE_ANOTHER => {
                        pieces.halved = true;
                        let (right, left) = halves(&component, across, midline_mm)?;
                        Parts::two(across, right, left)
                    }
                    None => Parts::Whole(piece),
                });
        }
        Ok(pieces)
    }

    /// Labels of what needs no look around: cut components, and large pieces off the midline. At least the largest piece is among them.
    fn named(&self, midline_mm: f64) -> Labels {
        let total: f64 = self.whole().map(|(_, piece)| piece.volume_ml).sum::<f64>() + self.cut_ml();
        let largest = self.whole().map(|(_, piece)| piece.volume_ml).fold(0.0, f64::max);
        let mut labels = vec![None; self.parts.len()];
        for (index, piece) in self.whole() {
            let large = piece.volume_ml >= SMALL_SHARE * total && (piece.x_mm - midline_mm).abs() >= NEAR_MIDLINE_MM;
            if large || (piece.volume_ml == largest && largest >= self.cut_ml()) {
                labels[index] = Some(side_of(piece.x_mm, midline_mm));
            }
        }
        labels
    }

    /// Labels the other pieces by the nearest lung. Returns the volume in doubt.
    fn place_small(&self, labels: &mut Labels, grid: &Grid, midline_mm: f64) -> f64 {
        let open: Vec<(usize, Piece)> = self.whole().filter(|&(index, _)| labels[index].is_none()).collect();
        let Some(bounds) = self.runs.bounds().filter(|_| !open.is_empty()) else {
            return 0.0;
        };
        let cells = Cells::around(&bounds, grid);
        let mut targets = [vec![false; cells.count()], vec![false; cells.count()]];
        for parts in &self.parts {
            if let Parts::Two { right, left } = parts {
                each_cell(&cells, &right.1, |_, cell| targets[0][cell] = true);
                each_cell(&cells, &left.1, |_, cell| targets[1][cell] = true);
            }
        }
        each_cell(&cells, self.runs, |run, cell| {
            if let Some(label) = labels[self.components.of_run[run] as usize] {
                targets[usize::from(label) - 1][cell] = true;
            }
        });
        let squared: Vec<Vec<f64>> = targets
            .par_iter()
            .map(|targets| cells.squared_distances(targets))
            .collect();
        let mut nearest = vec![[f64::INFINITY; 2]; self.parts.len()];
        each_cell(&cells, self.runs, |run, cell| {
            let nearest = &mut nearest[self.components.of_run[run] as usize];
            for lung in 0..2 {
                nearest[lung] = nearest[lung].min(squared[lung][cell].sqrt());
            }
        });
        let mut doubtful_ml = 0.0;
        for (index, piece) in open {
            let [right, left] = nearest[index];
            let far = right.min(left) > FAR_MM;
            labels[index] = Some(match right < left {
                _ if far => side_of(piece.x_mm, midline_mm),
                true => RIGHT,
                false => LEFT,
            });
            if (right - left).abs() < DOUBTFUL_MM || (far && (piece.x_mm - midline_mm).abs() < NEAR_MIDLINE_MM) {
                doubtful_ml += piece.volume_ml;
            }
        }
        doubtful_ml
    }

    fn write(&self, mask: &mut Mask, labels: &Labels) {
        // A cut component is written by its parts.
        relabel(mask, self.runs, |run| {
            labels[self.components.of_run[run] as usize].unwrap_or(RIGHT)
        });
        for parts in &self.parts {
            if let Parts::Two { left, .. } = parts {
                relabel(mask, &left.1, |_| LEFT);
            }
        }
    }

    fn summary(&self, labels: &Labels, midline: &Midline, doubtful_ml: f64) -> Sides {
        let mut lungs = [Piece::default(); 2];
        let mut add = |label: u8, piece: &Piece| {
            let lung = &mut lungs[usize::from(label) - 1];
            lung.volume_ml += piece.volume_ml;
            lung.x_mm += piece.volume_ml * piece.x_mm;
        };
        for (parts, label) in self.parts.iter().zip(labels) {
            match parts {
                Parts::Whole(piece) => add(label.unwrap_or(RIGHT), piece),
                Parts::Two { right, left } => {
                    add(RIGHT, &right.0);
                    add(LEFT, &left.0);
                }
            }
        }
        let volumes = lungs.map(|lung| lung.volume_ml);
        let (smaller, larger) = (volumes[0].min(volumes[1]), volumes[0].max(volumes[1]));
        let apart_mm = if smaller > 0.0 {
            lungs[1].x_mm / volumes[1] - lungs[0].x_mm / volumes[0]
        } else {
            0.0
        };
        let mut confidence = 1.0 - self.bridge_cm2 / smaller.max(1e-9).powf(2.0 / 3.0).max(1e-9);
        confidence -= 5.0 * doubtful_ml / (smaller + larger);
        if apart_mm < 0.6 * larger.cbrt() * 10.0 {
            confidence = confidence.min(0.4);
        }
        if self.halved {
            confidence = confidence.min(0.1);
        }
        Sides {
            told: match (
                self.halved,
                self.parts.iter().any(|parts| matches!(parts, Parts::Two { .. })),
            ) {
                (true, _) => Told::Halved,
                (_, true) => Told::Cut,
                _ if smaller > 0.0 => Told::Separate,
                _ => Told::OneLung,
            },
            right_ml: volumes[0],
            left_ml: volumes[1],
            midline_x_mm: midline.x_mm,
            apart_mm,
            bridge_cm2: self.bridge_cm2,
            doubtful_ml,
            confidence: confidence.clamp(0.0, 1.0),
        }
    }

    fn whole(&self) -> impl Iterator<Item = (usize, Piece)> {
        self.parts.iter().enumerate().filter_map(|(index, parts)| match parts {
            Parts::Whole(piece) => Some((index, *piece)),
            Parts::Two { .. } => None,
        })
    }

    fn cut_ml(&self) -> f64 {
        let cut = self.parts.iter().map(|parts| match parts {
            Parts::Two { right, left } => right.0.volume_ml + left.0.volume_ml,
            Parts::Whole(_) => 0.0,
        });
        cut.sum()
    }
}

impl Parts {
    fn two(across: &Across, right: Runs, left: Runs) -> Parts {
        Parts::Two {
            right: (across.piece(&right), right),
            left: (across.piece(&left), left),
        }
    }
}

fn side_of(x_mm: f64, midline_mm: f64) -> u8 {
    if x_mm < midline_mm { RIGHT } else { LEFT }
}

/// A component in two at a plane.
fn halves(component: &Runs, across: &Across, x_mm: f64) -> Result<(Runs, Runs), LungsError> {
    let half = |right: bool| {
        Runs::by_slice(component.shape, |slice, found| {
            for row in 0..component.shape[1] {
                for &run in &component.runs[component.row(slice, row)] {
                    let (on_right, on_left) = across.part(slice, row, run, x_mm);
                    let part = if right { on_right } else { on_left };
                    if part.len() > 0 {
                        found.runs.push(part);
                    }
                }
                found.end_row();
            }
        })
    };
    Ok((half(true)?, half(false)?))
}

/// Calls `found` with the index of each run and each cell that it runs through.
fn each_cell(cells: &Cells, runs: &Runs, mut found: impl FnMut(usize, usize)) {
    for slice in 0..runs.shape[0] {
        for row in 0..runs.shape[1] {
            let Some(first) = cells.row(slice, row) else {
                continue;
            };
            for index in runs.row(slice, row) {
                for (cell, _) in cells.stretches(runs.runs[index].columns()) {
                    found(index, first + cell);
                }
            }
        }
    }
}

/// Writes a label to every run.
fn relabel(mask: &mut Mask, runs: &Runs, label: impl Fn(usize) -> u8 + Sync) {
    let [_, rows, columns] = runs.shape;
    let slices = mask.labels.par_chunks_mut((rows * columns).max(1)).enumerate();
    slices.for_each(|(slice, labels)| {
        for row in 0..rows {
            for index in runs.row(slice, row) {
                labels[row * columns..][runs.runs[index].columns()].fill(label(index));
            }
        }
    });
}
