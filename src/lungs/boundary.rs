//! A mask that stands a few millimetres beside the CT's own edge in, the mask on that edge out.
//!
//! A network that answers on a coarser grid than the CT's cannot follow its edge. Where the mask's surface lies between aerated lung and soft tissue, the CT says itself where
//! that edge is, at half the way from the one's Hounsfield units to the other's. What moves and what may not is decided slice by slice, in plane, where a CT is sharp: see
//! [`edge`](super::edge). Disease that is dense is the network's to find, and stays.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bits::Bits;
use super::edge::Edge;
use super::{LungsError, check_shape, slabs};
use crate::volume::{Mask, Volume, Voxels};

/// A disc that is all below this is no lung but free gas, or lung so emphysematous that its edge is left where it is.
const GAS_BELOW_HU: f32 = -930.0;

/// How far the mask follows the CT's edge: part of a manifest's `[post]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boundary {
    /// Millimetres in plane that the surface may move; 0 leaves the mask as it is.
    pub band_mm: f64,
    /// What is below this is aerated, in Hounsfield units.
    pub aerated_below_hu: f32,
}

impl Boundary {
    /// Nothing is changed.
    pub const OFF: Boundary = Boundary {
        band_mm: 0.0,
        aerated_below_hu: Self::ABOVE_LUNG_HU,
    };
    /// The band where a manifest does not say otherwise: two to three pixels of half the usual network's resolution.
    pub const BAND_MM: f64 = 4.0;
    /// Half the way from lung (-850 HU) to soft tissue (40 HU).
    pub const ABOVE_LUNG_HU: f32 = -400.0;
}

/// What the step changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoundaryReport {
    /// Aerated voxels that came in before, though the network was not sure of them, in millilitres.
    #[serde(default)]
    pub doubtful_ml: f64,
    /// Aerated voxels that came in, in millilitres.
    pub added_ml: f64,
    /// Dense voxels at the surface that went, in millilitres.
    pub removed_ml: f64,
}

/// Lets the surface of a mask follow the CT's edge, in plane. It runs before right and left are told apart: what comes in gets label 1. Padding is not aerated. Pixels
/// larger than half the band are too coarse to say more than the network, and nothing changes.
///
/// All cores; some 300 kB a core.
///
/// # Errors
/// If mask and volume do not have one shape.
pub fn follow_boundary(mask: &mut Mask, volume: &Volume, settings: &Boundary) -> Result<BoundaryReport, LungsError> {
    match &volume.voxels {
        Voxels::I16(values) => follow(mask, volume, values, settings),
        Voxels::F32(values) => follow(mask, volume, values, settings),
    }
}

fn follow<T: Copy + Into<f32> + Sync>(
    mask: &mut Mask,
    volume: &Volume,
    values: &[T],
    settings: &Boundary,
) -> Result<BoundaryReport, LungsError> {
    check_shape(mask, &volume.grid, Some(values.len()))?;
    let area = volume.grid.rows * volume.grid.columns;
    if settings.band_mm.is_nan() || settings.band_mm <= 0.0 || area == 0 {
        return Ok(BoundaryReport::default());
    }
    let edge = Edge::new(settings.band_mm, volume.grid.spacing_mm);
    let slices = mask
        .labels
        .par_chunks_exact_mut(area)
        .zip(values.par_chunks_exact(area));
    let changed: Vec<[usize; 2]> = slices
        .enumerate()
        .map(|(slice, (labels, values))| {
            let is_padding = volume.is_padding(slice);
            let aerated = |value: T| {
                let hu: f32 = value.into();
                hu < settings.aerated_below_hu && !is_padding(hu)
            };
            let gas = |value: T| aerated(value) && value.into() < GAS_BELOW_HU;
            follow_slice(labels, values, volume.grid.columns, aerated, gas, &edge)
        })
        .collect();
    let mut report = BoundaryReport::default();
    for ([added, removed], voxel_ml) in changed.into_iter().zip(slabs::voxel_ml(&volume.grid)) {
        report.added_ml += added as f64 * voxel_ml;
        report.removed_ml += removed as f64 * voxel_ml;
    }
    Ok(report)
}

/// Changes the labels of one slice; the number of pixels added and removed. Looks at the rows of lung alone, and at those beside them that decide.
fn follow_slice<T: Copy>(
    labels: &mut [u8],
    values: &[T],
    columns: usize,
    aerated: impl Fn(T) -> bool,
    gas: impl Fn(T) -> bool,
    edge: &Edge,
) -> [usize; 2] {
    let lung_in = |row: &[u8]| row.iter().any(|&label| label != 0);
    let Some(first) = labels.chunks_exact(columns).position(lung_in) else {
        return [0, 0];
    };
    let rows = labels.len() / columns;
    let last = rows - 1 - labels.chunks_exact(columns).rev().position(lung_in).unwrap_or(0);
    let first = first.saturating_sub(edge.rows_beside());
    let last = (last + edge.rows_beside()).min(rows - 1);

    let mut lung = Bits::empty(last - first + 1, columns);
    let (mut air, mut free_gas) = (lung.clone(), lung.clone());
    let labels = &mut labels[first * columns..(last + 1) * columns];
    let values = &values[first * columns..(last + 1) * columns];
    for (row, (labels, values)) in labels
        .chunks_exact(columns)
        .zip(values.chunks_exact(columns))
        .enumerate()
    {
        lung.set_row(row, labels, |label| label != 0);
        air.set_row(row, values, &aerated);
        free_gas.set_row(row, values, &gas);
    }
    let followed = edge.follow(&lung, &air, &free_gas);
    for (row, labels) in labels.chunks_exact_mut(columns).enumerate() {
        followed.added.each_in_row(row, |column| labels[column] = 1);
        followed.removed.each_in_row(row, |column| labels[column] = 0);
    }
    [followed.added.count(), followed.removed.count()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::lungs::pieces::tests::grid;

    const TISSUE: i16 = 40;
    const LUNG: i16 = -850;
    const GAS: i16 = -1000;
    const USUAL: Boundary = Boundary {
        band_mm: Boundary::BAND_MM,
        aerated_below_hu: Boundary::ABOVE_LUNG_HU,
    };

    /// One slice of 90 rows and 120 columns: HU and labels, soft tissue without lung at first.
    #[derive(Clone, Debug, PartialEq)]
    struct Scene {
        hu: Vec<i16>,
        labels: Vec<u8>,
        spacing_mm: [f64; 2],
        padding_hu: Option<(f32, f32)>,
    }

    const ROWS: usize = 90;
    const COLUMNS: usize = 120;

    impl Scene {
        fn new() -> Scene {
            Scene {
                hu: vec![TISSUE; ROWS * COLUMNS],
                labels: vec![0; ROWS * COLUMNS],
                spacing_mm: [0.8, 0.8],
                padding_hu: None,
            }
        }

        fn hu(mut self, rows: Range<usize>, columns: Range<usize>, hu: i16) -> Scene {
            rows.for_each(|row| self.hu[row * COLUMNS..][columns.clone()].fill(hu));
            self
        }

        fn round(mut self, row: usize, column: usize, radius: f64, hu: i16) -> Scene {
            for at in 0..self.hu.len() {
                let (down, across) = (at / COLUMNS, at % COLUMNS);
                if (down as f64 - row as f64).hypot(across as f64 - column as f64) <= radius {
                    self.hu[at] = hu;
                }
            }
            self
        }

        fn lung(mut self, rows: Range<usize>, columns: Range<usize>) -> Scene {
            rows.for_each(|row| self.labels[row * COLUMNS..][columns.clone()].fill(1));
            self
        }

        fn volume(&self) -> Volume {
            Volume {
                grid: grid([1, ROWS, COLUMNS], [1.0, self.spacing_mm[0], self.spacing_mm[1]]),
                voxels: Voxels::I16(self.hu.clone()),
                padding_hu: vec![self.padding_hu],
            }
        }

        fn mask(&self) -> Mask {
            Mask {
                shape: [1, ROWS, COLUMNS],
                labels: self.labels.clone(),
            }
        }

        /// The labels after the step.
        fn followed(&self) -> Vec<u8> {
            let mut mask = self.mask();
            let report = follow_boundary(&mut mask, &self.volume(), &USUAL).unwrap();
            let ml = |from: u8, to: u8| -> f64 {
                let changed = self
                    .labels
                    .iter()
                    .zip(&mask.labels)
                    .filter(|pair| pair == &(&from, &to))
                    .count();
                changed as f64 * self.spacing_mm[0] * self.spacing_mm[1] / 1000.0
            };
            assert!((report.added_ml - ml(0, 1)).abs() < 1e-9 && (report.removed_ml - ml(1, 0)).abs() < 1e-9);
            mask.labels
        }

        /// Columns and rows of what is lung where this says lung, and is not where it does not.
        fn wrong(&self, labels: &[u8], lung: &Scene) -> usize {
            labels.iter().zip(&lung.labels).filter(|(a, b)| a != b).count()
        }
    }

    fn count(labels: &[u8], rows: Range<usize>, columns: Range<usize>) -> usize {
        rows.map(|row| {
            labels[row * COLUMNS..][columns.clone()]
                .iter()
                .filter(|&&label| label != 0)
                .count()
        })
        .sum()
    }

    #[test]
    fn a_mask_that_stands_beside_the_edge_comes_to_stand_on_it() {
        let scene = Scene::new().hu(20..70, 20..70, LUNG);
        let truth = scene.clone().lung(20..70, 20..70);
        for (rows, columns) in [(23..73, 17..67), (22..68, 22..68), (17..73, 18..72), (20..70, 20..70)] {
            let beside = scene.clone().lung(rows.clone(), columns.clone());
            assert_eq!(truth.wrong(&beside.followed(), &truth), 0, "{rows:?} {columns:?}");
        }
    }

    #[test]
    fn the_edge_is_followed_where_pixels_are_not_square() {
        let mut scene = Scene::new().hu(20..70, 20..70, LUNG);
        scene.spacing_mm = [0.5, 1.0];
        let truth = scene.clone().lung(20..70, 20..70);
        let beside = scene.lung(23..73, 18..68);
        assert_eq!(truth.wrong(&beside.followed(), &truth), 0);
    }

    #[test]
    fn a_thick_consolidation_at_the_wall_stays() {
        let scene = Scene::new()
            .hu(20..70, 20..70, LUNG)
            .hu(40..60, 20..35, TISSUE)
            .lung(20..70, 20..70);
        let labels = scene.followed();
        // Two corners, where the disc cannot go and the wall is near, are all that may go.
        assert!(
            count(&labels, 40..60, 20..35) >= 20 * 15 - 4,
            "{}",
            count(&labels, 40..60, 20..35)
        );
        assert_eq!(count(&labels, 20..70, 20..70), count(&labels, 0..ROWS, 0..COLUMNS));
        assert!(count(&labels, 20..70, 20..70) >= 50 * 50 - 4);
    }

    #[test]
    fn a_lung_that_is_dense_as_a_whole_stays() {
        let scene = Scene::new().lung(20..70, 20..70);
        // Four rounded corners.
        assert!(count(&scene.followed(), 20..70, 20..70) >= 50 * 50 - 4 * 3);
    }

    #[test]
    fn a_mass_stays_at_the_wall_and_in_the_lung() {
        for column in [26, 45] {
            let scene = Scene::new()
                .hu(20..70, 20..70, LUNG)
                .round(45, column, 6.5, TISSUE)
                .lung(20..70, 20..70);
            assert!(count(&scene.followed(), 20..70, 20..70) >= 50 * 50 - 6);
        }
    }

    #[test]
    fn vessels_stay_and_so_does_the_notch_where_one_leaves_the_lung() {
        let scene = Scene::new()
            .hu(20..70, 20..70, LUNG)
            .hu(44..47, 20..60, TISSUE)
            .lung(20..70, 20..70);
        let labels = scene.followed();
        assert_eq!(count(&labels, 44..47, 22..60), 3 * 38);
        assert_eq!(count(&labels, 20..44, 20..70), 24 * 50);
    }

    #[test]
    fn a_rim_of_chest_wall_goes_and_one_wider_than_the_band_stays() {
        let scene = Scene::new().hu(20..70, 20..70, LUNG);
        assert_eq!(count(&scene.clone().lung(20..70, 16..70).followed(), 25..65, 0..20), 0);
        assert_eq!(count(&scene.lung(20..70, 10..70).followed(), 25..65, 0..20), 40 * 10);
    }

    #[test]
    fn the_windpipe_beside_the_lung_is_not_taken_and_its_wall_goes() {
        let scene = Scene::new().hu(20..70, 20..70, LUNG).round(45, 84, 11.0, GAS);
        let truth = scene.clone().lung(20..70, 20..70);
        // Lumen from column 73 on. The mask holds the wall, and nothing of the lumen.
        let touches = scene.clone().lung(20..70, 20..73);
        assert_eq!(truth.wrong(&touches.followed(), &truth), 0);
        // Most of the lumen is in the mask: the narrow rest stays out, as the lung's would not.
        let most = scene.clone().lung(20..70, 20..70).lung(30..60, 70..93);
        assert_eq!(count(&most.followed(), 30..60, 93..96), 0);
        // The mask leaks into the lumen by up to four columns: no more of it comes in than what is left in the corners.
        let leaks = scene.lung(20..70, 20..70).lung(38..52, 70..77);
        let lumen = |labels: &[u8]| count(labels, 30..60, 73..96);
        let leaked = lumen(&leaks.labels);
        assert!(
            lumen(&leaks.followed()) <= leaked,
            "{} {leaked}",
            lumen(&leaks.followed())
        );
    }

    #[test]
    fn gas_in_the_bowel_below_the_lung_is_not_taken() {
        let scene = Scene::new().hu(20..50, 20..70, LUNG).hu(53..80, 20..70, GAS);
        let truth = scene.clone().lung(20..50, 20..70);
        let beside = scene.lung(20..53, 20..70);
        assert_eq!(truth.wrong(&beside.followed(), &truth), 0);
    }

    #[test]
    fn air_outside_the_body_is_not_taken() {
        let scene = Scene::new().hu(20..70, 20..70, LUNG).hu(0..ROWS, 74..COLUMNS, GAS);
        let touches = scene.clone().lung(20..70, 20..74);
        assert_eq!(count(&touches.followed(), 0..ROWS, 70..COLUMNS), 0);
        let leaks = scene.lung(20..70, 20..76);
        assert!(count(&leaks.followed(), 0..ROWS, 74..COLUMNS) <= 50 * 2 + 6);
    }

    #[test]
    fn a_wide_aerated_part_that_the_network_refused_stays_out() {
        let scene = Scene::new().hu(20..70, 20..70, LUNG).lung(20..70, 20..60);
        assert!(count(&scene.followed(), 20..70, 60..70) <= 6);
    }

    #[test]
    fn a_narrow_leak_that_leads_away_stays_out_as_a_whole() {
        let scene = Scene::new()
            .hu(20..70, 20..70, LUNG)
            .hu(44..46, 70..110, GAS)
            .lung(20..70, 20..70);
        assert_eq!(scene.followed(), scene.labels);
    }

    #[test]
    fn padding_does_not_come_in() {
        let mut scene = Scene::new()
            .hu(20..70, 20..70, LUNG)
            .hu(20..70, 67..70, -900)
            .lung(20..70, 20..67);
        assert_eq!(
            count(&scene.followed(), 20..70, 67..70),
            150,
            "without the mark it is air like any other"
        );
        scene.padding_hu = Some((-900.0, -900.0));
        assert_eq!(scene.followed(), scene.labels);
    }

    #[test]
    fn whole_and_broken_hounsfield_units_are_the_same() {
        let scene = Scene::new()
            .hu(20..70, 20..70, -401)
            .hu(20..70, 20..22, -400)
            .lung(22..72, 20..67);
        let mut volume = scene.volume();
        volume.voxels = Voxels::F32(scene.hu.iter().map(|&hu| f32::from(hu)).collect());
        let mut mask = scene.mask();
        follow_boundary(&mut mask, &volume, &USUAL).unwrap();
        assert_eq!(mask.labels, scene.followed());
        assert_eq!(
            count(&mask.labels, 25..65, 20..22),
            0,
            "what is not below the limit is not aerated"
        );
        // NaN is not aerated, and no error.
        volume.voxels = Voxels::F32(vec![f32::NAN; ROWS * COLUMNS]);
        let mut mask = scene.mask();
        assert_eq!(follow_boundary(&mut mask, &volume, &USUAL).unwrap().added_ml, 0.0);
    }

    #[test]
    fn off_and_pixels_coarser_than_half_the_band_change_nothing() {
        let mut scene = Scene::new().hu(20..70, 20..70, LUNG).lung(23..73, 17..67);
        let mut mask = scene.mask();
        let report = follow_boundary(&mut mask, &scene.volume(), &Boundary::OFF).unwrap();
        assert_eq!((report, &mask), (BoundaryReport::default(), &scene.mask()));
        scene.spacing_mm = [2.5, 2.5];
        assert_eq!(scene.followed(), scene.labels);
    }

    #[test]
    fn the_millilitres_are_those_of_uneven_slices() {
        let one = Scene::new().hu(20..70, 20..70, LUNG).lung(20..70, 20..69);
        let mut volume = one.volume();
        volume.grid = grid([2, ROWS, COLUMNS], [3.0, 0.8, 0.8]);
        volume.voxels = Voxels::I16([one.hu.clone(), one.hu.clone()].concat());
        volume.padding_hu = vec![None; 2];
        let mut mask = Mask {
            shape: [2, ROWS, COLUMNS],
            labels: [one.labels.clone(), vec![0; ROWS * COLUMNS]].concat(),
        };
        let report = follow_boundary(&mut mask, &volume, &USUAL).unwrap();
        assert!(
            (report.added_ml - 50.0 * 0.64 * 3.0 / 1000.0).abs() < 1e-9,
            "{report:?}"
        );
        assert!(
            mask.labels[ROWS * COLUMNS..].iter().all(|&label| label == 0),
            "a slice without lung gets none"
        );
    }

    #[test]
    fn a_mask_of_another_shape_is_an_error() {
        let scene = Scene::new();
        let mut mask = Mask {
            shape: [1, COLUMNS, ROWS],
            labels: scene.labels.clone(),
        };
        assert!(follow_boundary(&mut mask, &scene.volume(), &USUAL).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_moves_further_than_the_band_and_twice_is_once(
            boxes in proptest::collection::vec((0usize..80, 1usize..40, 0usize..110, 1usize..50, 0u8..4), 1..14),
            spacing_mm in prop_oneof![Just([0.8, 0.8]), Just([0.6, 1.1]), Just([1.4, 0.5])],
        ) {
            let mut scene = Scene::new();
            scene.spacing_mm = spacing_mm;
            for (row, height, column, width, what) in boxes {
                let (rows, columns) = (row..(row + height).min(ROWS), column..(column + width).min(COLUMNS));
                scene = match what {
                    0 => scene.hu(rows, columns, TISSUE),
                    1 => scene.hu(rows, columns, LUNG),
                    _ => scene.lung(rows, columns),
                };
            }
            let labels = scene.followed();
            let coarsest = spacing_mm[0].max(spacing_mm[1]);
            for at in (0..labels.len()).filter(|&at| labels[at] != scene.labels[at]) {
                let aerated = scene.hu[at] == LUNG;
                prop_assert_eq!(aerated, labels[at] != 0, "aerated comes in, dense goes");
                let near = (0..labels.len()).any(|other| {
                    let down = ((at / COLUMNS) as f64 - (other / COLUMNS) as f64) * spacing_mm[0];
                    let across = ((at % COLUMNS) as f64 - (other % COLUMNS) as f64) * spacing_mm[1];
                    scene.labels[other] == labels[at] && down.hypot(across) <= USUAL.band_mm + coarsest + 1e-9
                });
                prop_assert!(near, "changed far from the surface");
            }
            let again = Scene { labels: labels.clone(), ..scene };
            prop_assert_eq!(again.followed(), labels);
        }
    }
}
