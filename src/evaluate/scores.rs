//! Two label images in, the figures of one case out.

use serde::{Deserialize, Serialize};

use super::distance::Surfaces;
use super::grid::{Grids, LabelImage, Paired, pair, positions, thicknesses};

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
    /// The right lung, where both sides tell right from left.
    pub right: Option<Scores>,
    /// The left lung, where both sides tell right from left.
    pub left: Option<Scores>,
    /// How the two came onto one grid.
    pub grids: Grids,
    /// Predicted lung that the reference's grid does not reach; it counts nowhere else.
    pub outside_reference_ml: f64,
}

/// Compares a predicted mask with the reference.
#[must_use]
pub fn compare(case: &str, predicted: &LabelImage, reference: &LabelImage) -> CaseScores {
    let both = pair(predicted, reference);
    let lungs = scores(&both, |label| label > 0);
    let sides = predicted.sided && reference.sided;
    let side = |wanted: u8| sides.then(|| scores(&both, |label| label == wanted));
    CaseScores {
        case: case.to_owned(),
        lungs,
        right: side(1),
        left: side(2),
        grids: both.grids,
        outside_reference_ml: both.outside_ml,
    }
}

/// The Hausdorff distance at a percentile between all that is not background (100 is the plain one); `None` when a mask is empty.
#[must_use]
pub fn hausdorff_mm(predicted: &LabelImage, reference: &LabelImage, percentile: f64) -> Option<f64> {
    let both = pair(predicted, reference);
    Surfaces::between(&both.grid, |k| both.predicted[k] > 0, |k| both.reference[k] > 0)
        .map(|surfaces| surfaces.hausdorff(percentile.clamp(0.0, 100.0)))
}

fn scores(both: &Paired, counts: impl Fn(u8) -> bool) -> Scores {
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
            let (p, r) = (counts(*p), counts(*r));
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
    let surfaces = Surfaces::between(grid, |k| counts(both.predicted[k]), |k| counts(both.reference[k]));
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
