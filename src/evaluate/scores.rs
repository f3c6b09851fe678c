//! Two label images in, the figures of one case out.

use serde::{Deserialize, Serialize};

use super::distance::Surfaces;
use super::grid::{Grids, LabelImage, Paired, SideLabels, pair, positions, thicknesses};

/// How well one mask agrees with another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// 2 |P and R| / (|P| + |R|) in voxels (weighted by their volume where slices are uneven); 1 when both are empty.
    pub dice: f64,
    /// The larger of the two 95th percentiles of surface distances; `None` when a mask is empty.
    pub hd95_mm: Option<f64>,
    /// Mean distance over the surface voxels of both masks; `None` when a mask is empty.
    pub mean_surface_distance_mm: Option<f64>,
    /// Volume of the predicted mask.
    pub predicted_ml: f64,
    /// Volume of the reference mask.
    pub reference_ml: f64,
    /// Predicted minus reference.
    pub volume_error_ml: f64,
    /// The same as a share of the reference; `None` when that is empty.
    pub volume_error_relative: Option<f64>,
}

/// The figures of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseScores {
    /// Its name.
    pub case: String,
    /// All lung together.
    pub lungs: Scores,
    /// The right lung, where the reference tells right from left and it is known which lung the prediction means; `None` also where neither has it.
    pub right: Option<Scores>,
    /// The left lung, likewise.
    pub left: Option<Scores>,
    /// How the two came onto one grid.
    pub grids: Grids,
    /// Predicted lung that the reference's grid does not reach; it counts nowhere else.
    pub outside_reference_ml: f64,
}

/// A prediction that covers less than this share of a lung does not mean that lung.
const LEAST_COVERED: f64 = 0.05;

/// Compares a predicted mask with the reference. A lung of the reference that the prediction lacks has Dice 0.
#[must_use]
pub fn compare(case: &str, predicted: &LabelImage, reference: &LabelImage) -> CaseScores {
    let both = pair(predicted, reference);
    let lungs = scores(&both, |label| label > 0, |label| label > 0);
    let [right, left] = match (reference.sides, predicted.sides) {
        (SideLabels::Apart, SideLabels::Apart) => [1, 2].map(|side| side_scores(&both, |label| label == side, side)),
        (SideLabels::Apart, SideLabels::Unknown) => of_unknown_side(&both),
        _ => [None, None],
    };
    CaseScores {
        case: case.to_owned(),
        lungs,
        right,
        left,
        grids: both.grids,
        outside_reference_ml: both.outside_ml,
    }
}

/// The figures of a reference for which there is no prediction: those of an empty mask.
#[must_use]
pub fn without_prediction(case: &str, reference: &LabelImage) -> CaseScores {
    CaseScores {
        grids: Grids::NoPrediction,
        ..compare(case, &reference.emptied(), reference)
    }
}

/// The right and the left lung where the prediction does not say which it means. Where it covers both it is undivided, and nothing can be said of either; where it covers
/// one at most, all of it is that one and the other is missing.
fn of_unknown_side(both: &Paired) -> [Option<Scores>; 2] {
    let covered = [1, 2].map(|side| covered(both, side) >= LEAST_COVERED);
    if covered == [true; 2] {
        return [None, None];
    }
    [1, 2].map(|side| side_scores(both, |label| label > 0 && covered[usize::from(side) - 1], side))
}

/// The figures of one lung, unless neither has it.
fn side_scores(both: &Paired, means: impl Fn(u8) -> bool, side: u8) -> Option<Scores> {
    let scores = scores(both, means, |label| label == side);
    (scores.predicted_ml + scores.reference_ml > 0.0).then_some(scores)
}

/// The share of a lung of the reference, in voxels, that the prediction covers with whatever label.
fn covered(both: &Paired, side: u8) -> f64 {
    let [mut of, mut covered] = [0_u64; 2];
    for (p, _) in both.predicted.iter().zip(&both.reference).filter(|(_, r)| **r == side) {
        of += 1;
        covered += u64::from(*p > 0);
    }
    covered as f64 / of.max(1) as f64
}

/// The Hausdorff distance at a percentile between all that is not background (100 is the plain one); `None` when a mask is empty.
#[must_use]
pub fn hausdorff_mm(predicted: &LabelImage, reference: &LabelImage, percentile: f64) -> Option<f64> {
    let both = pair(predicted, reference);
    Surfaces::between(&both.grid, |k| both.predicted[k] > 0, |k| both.reference[k] > 0)
        .map(|surfaces| surfaces.hausdorff(percentile.clamp(0.0, 100.0)))
}

/// The figures of what counts in the prediction against what counts in the reference.
fn scores(both: &Paired, in_predicted: impl Fn(u8) -> bool, in_reference: impl Fn(u8) -> bool) -> Scores {
    let grid = &both.grid;
    let area = grid.rows * grid.columns;
    let [mut common, mut predicted_ml, mut reference_ml] = [0.0; 3];
    let voxel_ml = grid.spacing_mm[0] * grid.spacing_mm[1] / 1000.0;
    for (slice, thickness) in thicknesses(&positions(grid), both.lone_thickness_mm)
        .into_iter()
        .enumerate()
    {
        let range = slice * area..(slice + 1) * area;
        let mut found = [0_u64; 3];
        for (p, r) in both.predicted[range.clone()].iter().zip(&both.reference[range]) {
            let (p, r) = (in_predicted(*p), in_reference(*r));
            found[0] += u64::from(p && r);
            found[1] += u64::from(p);
            found[2] += u64::from(r);
        }
        let [c, p, r] = found.map(|count| count as f64 * thickness * voxel_ml);
        common += c;
        predicted_ml += p;
        reference_ml += r;
    }
    let total = predicted_ml + reference_ml;
    let surfaces = Surfaces::between(
        grid,
        |k| in_predicted(both.predicted[k]),
        |k| in_reference(both.reference[k]),
    );
    Scores {
        dice: if total > 0.0 { 2.0 * common / total } else { 1.0 },
        hd95_mm: surfaces.as_ref().map(|surfaces| surfaces.hausdorff(95.0)),
        mean_surface_distance_mm: surfaces.as_ref().map(Surfaces::mean),
        predicted_ml,
        reference_ml,
        volume_error_ml: predicted_ml - reference_ml,
        volume_error_relative: (reference_ml > 0.0).then(|| (predicted_ml - reference_ml) / reference_ml),
    }
}
