//! A mask as the network left it in, the same mask without crumbs and holes out, and a report of what was there.
//!
//! A component is what hangs together by faces, edges or corners (26 neighbours, MONAI's default in `KeepLargestConnectedComponent`).

use serde::{Deserialize, Serialize};

use super::components::{Components, Connectivity};
use super::holes::fill_holes;
use super::runs::Runs;
use super::{CleanUp, LungsError, check_shape, slabs};
use crate::volume::{Grid, Mask};

/// A component that holds less than this share of the largest is no second lung, whatever `keep_components` asks for. When the lungs touch they are one component,
/// and what comes second is bowel gas or a crumb; the smaller of two separate lungs has about 45 % of both, and even when collapsed more than this.
const SMALLEST_SHARE_OF_LARGEST: f64 = 0.02;

/// So many volumes of components are listed.
const LISTED: usize = 32;

/// What a report lists of the volumes.
fn first_ones<S: serde::Serializer>(volumes: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    volumes[..volumes.len().min(LISTED)].serialize(serializer)
}

/// What was found in a mask, and what was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CleanReport {
    /// Connected components found.
    pub components: usize,
    /// Their volumes in millilitres, largest first; a report lists the first 32.
    #[serde(serialize_with = "first_ones")]
    pub component_ml: Vec<f64>,
    /// Volume of all components before anything was dropped, in millilitres.
    pub found_ml: f64,
    /// Volume of fat that was taken out before, in millilitres.
    pub fat_ml: f64,
    /// Components dropped.
    pub dropped: usize,
    /// Volume dropped, in millilitres.
    pub dropped_ml: f64,
    /// Holes filled.
    pub holes_filled: usize,
    /// Volume filled, in millilitres.
    pub filled_ml: f64,
}

/// Keeps the largest components and fills the holes in them, as `options` say; [`CleanUp::OFF`] changes nothing, and still reports what is there.
///
/// Of the components, `keep_components` are kept, largest first, of those that reach `min_component_ml` and a fiftieth of the largest. A filled hole takes the label
/// that stands before it in its row. All cores; beside the mask some 12 bytes for every run.
///
/// # Errors
/// If the mask does not have the shape of the grid.
pub fn clean(mask: &mut Mask, grid: &Grid, options: &CleanUp) -> Result<CleanReport, LungsError> {
    check_shape(mask, grid, None)?;
    let voxel_ml = slabs::voxel_ml(grid);
    let runs = Runs::of(mask)?;
    let components = Components::of(&runs, Connectivity::Full);
    let volumes = components.sums(&runs, |slice, run| run.len() as f64 * voxel_ml[slice]);
    let kept = kept(&volumes, options);

    let mut largest_first = volumes.clone();
    largest_first.sort_by(|a, b| b.total_cmp(a));
    let mut report = CleanReport {
        components: components.count,
        component_ml: largest_first,
        found_ml: volumes.iter().fold(0.0, |sum, volume| sum + volume),
        fat_ml: 0.0,
        dropped: kept.iter().filter(|&&keep| !keep).count(),
        dropped_ml: volumes
            .iter()
            .zip(&kept)
            .filter(|(_, keep)| !**keep)
            .fold(0.0, |sum, (volume, _)| sum + volume),
        holes_filled: 0,
        filled_ml: 0.0,
    };
    let is_kept = |index: usize| kept[components.of_run[index] as usize];
    if report.dropped > 0 {
        runs.rewrite(mask, |index| !is_kept(index), |row, run| row[run.columns()].fill(0));
    }
    if options.fill_holes_ml > 0.0 {
        let remaining = runs.filtered(is_kept)?;
        (report.holes_filled, report.filled_ml) = fill_holes(mask, &remaining, &voxel_ml, options.fill_holes_ml)?;
    }
    Ok(report)
}

/// Which components stay.
fn kept(volumes: &[f64], options: &CleanUp) -> Vec<bool> {
    let mut order: Vec<usize> = (0..volumes.len()).collect();
    order.sort_by(|&a, &b| volumes[b].total_cmp(&volumes[a]));
    let mut least = options.min_component_ml;
    if options.keep_components > 0 {
        order.truncate(options.keep_components);
        least = least.max(
            order
                .first()
                .map_or(0.0, |&largest| volumes[largest] * SMALLEST_SHARE_OF_LARGEST),
        );
    }
    let mut kept = vec![false; volumes.len()];
    for component in order {
        kept[component] = volumes[component] >= least;
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::lungs::pieces::tests::{box_of, grid};

    const SHAPE: [usize; 3] = [20, 30, 40];

    fn boxes(boxes: &[[std::ops::Range<usize>; 3]]) -> Mask {
        let mut mask = Mask {
            shape: SHAPE,
            labels: vec![0; SHAPE.iter().product()],
        };
        for bounds in boxes {
            box_of(&mut mask, bounds.clone(), 1);
        }
        mask
    }

    fn two_lungs() -> CleanUp {
        CleanUp {
            keep_components: 2,
            min_component_ml: 0.05,
            fill_holes_ml: 0.1,
        }
    }

    #[test]
    fn off_changes_nothing_and_still_counts() {
        let before = boxes(&[[2..8, 2..8, 2..8], [12..13, 12..13, 12..13]]);
        let mut mask = before.clone();
        let report = clean(&mut mask, &grid(SHAPE, [1.0; 3]), &CleanUp::OFF).unwrap();
        assert_eq!(mask, before);
        assert_eq!((report.components, report.dropped, report.holes_filled), (2, 0, 0));
        let volumes = report.component_ml.iter().zip([0.216, 0.001]);
        assert!(
            volumes.into_iter().all(|(ml, expected)| (ml - expected).abs() < 1e-12),
            "{report:?}"
        );
    }

    #[test]
    fn every_piece_counts_and_the_largest_are_listed() {
        let places = (0..5usize).flat_map(|z| (0..8usize).map(move |y| [4 * z..4 * z + 2, 3 * y..3 * y + 2, 5..7]));
        let mut mask = boxes(&places.collect::<Vec<_>>());
        let report = clean(&mut mask, &grid(SHAPE, [1.0; 3]), &CleanUp::OFF).unwrap();
        assert_eq!((report.components, report.component_ml.len()), (40, 40));
        let written = serde_json::to_value(&report).unwrap();
        assert_eq!(written["component_ml"].as_array().unwrap().len(), LISTED);
    }

    #[test]
    fn two_separate_lungs_stay_and_a_third_piece_goes() {
        let lungs = boxes(&[[2..18, 2..28, 2..16], [2..18, 2..28, 20..32]]);
        let mut mask = lungs.clone();
        box_of(&mut mask, [2..8, 2..8, 34..39], 1);
        let report = clean(&mut mask, &grid(SHAPE, [1.0; 3]), &two_lungs()).unwrap();
        assert_eq!(mask, lungs);
        assert_eq!((report.components, report.dropped), (3, 1));
        assert!((report.dropped_ml - 0.18).abs() < 1e-12);
    }

    #[test]
    fn beside_two_lungs_that_touch_a_small_piece_is_no_lung() {
        let lungs = boxes(&[[2..18, 2..28, 2..16], [2..18, 2..28, 20..32], [9..11, 10..12, 16..20]]);
        let mut mask = lungs.clone();
        // 0.125 mL: over the smallest volume, under a fiftieth of the lungs' 10.8 mL.
        box_of(&mut mask, [2..7, 2..7, 34..39], 1);
        let report = clean(&mut mask, &grid(SHAPE, [1.0; 3]), &two_lungs()).unwrap();
        assert_eq!(mask, lungs);
        assert_eq!((report.components, report.dropped), (2, 1));
    }

    #[test]
    fn volumes_not_voxels_decide_where_slices_are_uneven() {
        let mut uneven = grid(SHAPE, [1.0; 3]);
        for (slice, origin) in uneven.origins.iter_mut().enumerate() {
            origin[2] = if slice < 10 {
                slice as f64
            } else {
                10.0 + 5.0 * (slice as f64 - 10.0)
            };
        }
        let mut mask = boxes(&[[1..8, 2..8, 2..8], [14..17, 2..8, 2..8]]);
        let options = CleanUp {
            keep_components: 1,
            ..CleanUp::OFF
        };
        let report = clean(&mut mask, &uneven, &options).unwrap();
        assert_eq!(mask, boxes(&[[14..17, 2..8, 2..8]]));
        assert!((report.component_ml[0] - 0.54).abs() < 1e-12 && (report.component_ml[1] - 0.252).abs() < 1e-12);
    }

    #[test]
    fn a_hole_takes_the_label_beside_it_and_a_large_one_stays() {
        let mut mask = boxes(&[[1..19, 1..29, 1..39]]);
        let whole = {
            let mut whole = mask.clone();
            whole.labels.iter_mut().for_each(|label| *label *= 2);
            whole
        };
        mask.labels.iter_mut().for_each(|label| *label *= 2);
        box_of(&mut mask, [4..6, 4..6, 4..6], 0);
        let report = clean(&mut mask, &grid(SHAPE, [1.0; 3]), &two_lungs()).unwrap();
        assert_eq!((report.holes_filled, report.filled_ml), (1, 0.008));
        assert_eq!(mask, whole);
        box_of(&mut mask, [4..10, 4..10, 4..10], 0);
        let before = mask.clone();
        let report = clean(&mut mask, &grid(SHAPE, [1.0; 3]), &two_lungs()).unwrap();
        assert_eq!(report.holes_filled, 0);
        assert_eq!(mask, before);
    }

    #[test]
    fn a_mask_of_another_shape_is_an_error() {
        let mut mask = boxes(&[]);
        let error = clean(&mut mask, &grid([20, 40, 30], [1.0; 3]), &CleanUp::OFF).unwrap_err();
        assert!(error.to_string().contains("[20, 30, 40]"));
    }

    /// Background that a flood from outside the volume does not reach.
    fn enclosed(mask: &Mask) -> Vec<bool> {
        let [slices, rows, columns] = mask.shape.map(|n| n as i64);
        let at = |z: i64, y: i64, x: i64| ((z * rows + y) * columns + x) as usize;
        let mut enclosed: Vec<bool> = mask.labels.iter().map(|&label| label == 0).collect();
        let mut open = Vec::new();
        for z in 0..slices {
            for y in 0..rows {
                for x in 0..columns {
                    if z == 0 || y == 0 || x == 0 || z == slices - 1 || y == rows - 1 || x == columns - 1 {
                        open.push((z, y, x));
                    }
                }
            }
        }
        while let Some((z, y, x)) = open.pop() {
            let inside = (0..slices).contains(&z) && (0..rows).contains(&y) && (0..columns).contains(&x);
            if inside && enclosed[at(z, y, x)] {
                enclosed[at(z, y, x)] = false;
                open.extend([
                    (z - 1, y, x),
                    (z + 1, y, x),
                    (z, y - 1, x),
                    (z, y + 1, x),
                    (z, y, x - 1),
                    (z, y, x + 1),
                ]);
            }
        }
        enclosed
    }

    proptest! {
        #[test]
        fn holes_are_what_a_flood_from_outside_does_not_reach(
            shape in [1usize..8, 1usize..8, 1usize..14],
            seed in proptest::collection::vec(0u8..100, 8 * 8 * 14),
            density in 40u8..95,
        ) {
            let labels = seed[..shape.iter().product()].iter().map(|&value| u8::from(value < density)).collect();
            let mut mask = Mask { shape, labels };
            let enclosed = enclosed(&mask);
            let expected: Vec<u8> = mask.labels.iter().zip(&enclosed).map(|(&label, &hole)| label.max(u8::from(hole))).collect();
            let options = CleanUp { fill_holes_ml: 1e9, ..CleanUp::OFF };
            let report = clean(&mut mask, &grid(shape, [1.0; 3]), &options).unwrap();
            prop_assert_eq!(&mask.labels, &expected);
            let filled = enclosed.iter().filter(|&&hole| hole).count() as f64 / 1000.0;
            prop_assert!((report.filled_ml - filled).abs() < 1e-9);
        }
    }
}
