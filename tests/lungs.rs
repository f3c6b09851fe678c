//! Right and left, against masks in which they are known: drawn ones in every orientation of the stack, and the silver masks of real chests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::Read;
use std::path::{Path, PathBuf};

use hilum::lungs::{CleanUp, MaskLimits, Sides, Told, clean, judge_mask, measure, sides};
use hilum::series::Code;
use hilum::volume::{Grid, Mask, Volume, Voxels};

/// Lungs of a small chest in 3 x 2 x 2 mm voxels (slices from the feet up): two half ellipsoids, the right one larger, that touch in front if asked to.
fn drawn(touching: bool) -> (Mask, Grid) {
    let shape = [60usize, 80, 130];
    let grid = Grid {
        rows: shape[1],
        columns: shape[2],
        origins: (0..shape[0]).map(|slice| [-129.0, -80.0, 3.0 * slice as f64]).collect(),
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        normal: [0.0, 0.0, 1.0],
        spacing_mm: [2.0, 2.0],
    };
    let mut labels = vec![0; shape.iter().product()];
    for (at, label) in labels.iter_mut().enumerate() {
        let (z, y, x) = (at / shape[2] / shape[1], at / shape[2] % shape[1], at % shape[2]);
        let (z, y, x) = (3.0 * z as f64 - 90.0, 2.0 * y as f64 - 80.0, 2.0 * x as f64 - 129.0);
        let inside =
            |centre: f64, width: f64| ((x - centre) / width).powi(2) + (y / 60.0).powi(2) + (z / 80.0).powi(2) < 1.0;
        // The mediastinum, a slab which the junction line of touching lungs pierces in front.
        let junction = touching && (-45.0..-20.0).contains(&y) && (-30.0..40.0).contains(&z);
        let mediastinum = (x - 4.0).abs() < if junction { 0.0 } else { 22.0 };
        if !mediastinum && x < 4.0 && inside(-52.0, 62.0) {
            *label = 1;
        } else if !mediastinum && x >= 4.0 && inside(56.0, 56.0) {
            *label = 2;
        }
    }
    (Mask { shape, labels }, grid)
}

/// The same voxels stored otherwise: `axes[i]` of the old mask becomes axis i, reversed where `flips` says.
fn stored(mask: &Mask, grid: &Grid, axes: [usize; 3], flips: [bool; 3]) -> (Mask, Grid) {
    let old_steps = [
        [0.0, 0.0, grid.origins[1][2] - grid.origins[0][2]],
        grid.column_direction.map(|component| component * grid.spacing_mm[0]),
        grid.row_direction.map(|component| component * grid.spacing_mm[1]),
    ];
    let shape = axes.map(|axis| mask.shape[axis]);
    let steps: Vec<[f64; 3]> = (0..3)
        .map(|axis| old_steps[axes[axis]].map(|component| if flips[axis] { -component } else { component }))
        .collect();
    let mut origin = grid.origins[0];
    for axis in 0..3 {
        if flips[axis] {
            for k in 0..3 {
                origin[k] += old_steps[axes[axis]][k] * (shape[axis] - 1) as f64;
            }
        }
    }
    let mut labels = Vec::with_capacity(mask.labels.len());
    for at in 0..mask.labels.len() {
        let place = [at / shape[2] / shape[1], at / shape[2] % shape[1], at % shape[2]];
        let mut old = [0; 3];
        for axis in 0..3 {
            old[axes[axis]] = if flips[axis] {
                shape[axis] - 1 - place[axis]
            } else {
                place[axis]
            };
        }
        labels.push(mask.labels[(old[0] * mask.shape[1] + old[1]) * mask.shape[2] + old[2]]);
    }
    let length = |v: [f64; 3]| v.iter().map(|c| c * c).sum::<f64>().sqrt();
    let unit = |v: [f64; 3]| v.map(|c| c / length(v));
    let (row_direction, column_direction) = (unit(steps[2]), unit(steps[1]));
    let origins = (0..shape[0])
        .map(|slice| [0, 1, 2].map(|k| origin[k] + steps[0][k] * slice as f64))
        .collect();
    let stored = Grid {
        rows: shape[1],
        columns: shape[2],
        origins,
        row_direction,
        column_direction,
        normal: cross(row_direction, column_direction),
        spacing_mm: [length(steps[1]), length(steps[2])],
    };
    ascending(Mask { shape, labels }, stored)
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// Slices of a grid ascend along its normal.
fn ascending(mut mask: Mask, mut grid: Grid) -> (Mask, Grid) {
    let position = |origin: &[f64; 3]| (0..3).map(|k| origin[k] * grid.normal[k]).sum::<f64>();
    if grid.origins.len() > 1 && position(&grid.origins[1]) < position(&grid.origins[0]) {
        grid.origins.reverse();
        let slice = mask.shape[1] * mask.shape[2];
        mask.labels = mask.labels.chunks_exact(slice).rev().flatten().copied().collect();
    }
    (mask, grid)
}

/// Forgets the sides, has them told, and returns the share of voxels that got the right one.
fn told(known: &Mask, grid: &Grid) -> (f64, Sides) {
    let mut mask = known.clone();
    mask.labels.iter_mut().for_each(|label| *label = u8::from(*label != 0));
    let sides = sides(&mut mask, grid).unwrap();
    let lung = known.labels.iter().filter(|&&label| label != 0).count();
    let pairs = || known.labels.iter().zip(&mask.labels);
    assert!(
        pairs().all(|(known, told)| (*known == 0) == (*told == 0)),
        "the lungs are not what they were"
    );
    let same = pairs().filter(|(known, told)| **known != 0 && known == told).count();
    (same as f64 / lung.max(1) as f64, sides)
}

#[test]
fn sides_are_told_in_every_orientation_of_the_stack() {
    for touching in [false, true] {
        let (mask, grid) = drawn(touching);
        for axes in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for flips in 0..8 {
                let flips = [flips & 1 == 1, flips & 2 == 2, flips & 4 == 4];
                let (mask, grid) = stored(&mask, &grid, axes, flips);
                let (right_ones, sides) = told(&mask, &grid);
                assert_eq!(sides.told, if touching { Told::Cut } else { Told::Separate });
                assert!(
                    right_ones > if touching { 0.999 } else { 0.999_999 },
                    "{axes:?} {flips:?}: {right_ones} {sides:?}"
                );
                assert!(sides.right_ml > sides.left_ml && sides.confidence > 0.7, "{sides:?}");
            }
        }
    }
}

#[test]
fn slices_turned_by_any_angle_tell_the_same_sides() {
    let (mask, grid) = drawn(true);
    for degrees in [10f64, 25.0, -30.0] {
        // The stack is turned about the patient's long axis; the patient stays.
        let (sin, cos) = degrees.to_radians().sin_cos();
        let turned = Grid {
            row_direction: [cos, sin, 0.0],
            column_direction: [-sin, cos, 0.0],
            origins: grid
                .origins
                .iter()
                .map(|[x, y, z]| [x * cos - y * sin, x * sin + y * cos, *z])
                .collect(),
            ..grid.clone()
        };
        let (right_ones, sides) = told(&mask, &turned);
        assert!(right_ones > 0.999, "{degrees}: {right_ones} {sides:?}");
    }
}

#[test]
fn pieces_go_to_the_lung_that_is_near() {
    let (mut mask, grid) = drawn(false);
    let mut paint = |z: std::ops::Range<usize>, y: std::ops::Range<usize>, x: std::ops::Range<usize>, label: u8| {
        for z in z {
            for y in y.clone() {
                mask.labels[(z * 80 + y) * 130..][x.clone()].fill(label);
            }
        }
    };
    // A tongue of the right lung in front, across the midline, parted from it by 4 mm; a crumb above the left one.
    paint(28..31, 20..24, 58..60, 0);
    paint(28..31, 20..24, 60..68, 1);
    paint(55..58, 40..44, 90..94, 2);
    let (right_ones, sides) = told(&mask, &grid);
    assert!(right_ones > 0.999_999, "{right_ones} {sides:?}");
}

#[test]
fn one_blob_is_halved_and_not_trusted() {
    let (mut mask, grid) = drawn(false);
    for (at, label) in mask.labels.iter_mut().enumerate() {
        let (z, y, x) = (at / 130 / 80, at / 130 % 80, at % 130);
        *label = u8::from((5..55).contains(&z) && (15..65).contains(&y) && (5..125).contains(&x));
    }
    let sides = sides(&mut mask, &grid).unwrap();
    assert_eq!(sides.told, Told::Halved);
    assert!(
        sides.confidence < 0.2 && (sides.right_ml / sides.left_ml - 1.0).abs() < 0.05,
        "{sides:?}"
    );
}

#[test]
fn an_empty_mask_has_no_sides() {
    let (mut mask, grid) = drawn(false);
    mask.labels.fill(0);
    assert_eq!(sides(&mut mask, &grid).unwrap().told, Told::NoLung);
}

/// A label image: just as much of NIfTI-1 as these masks use (gzip, little endian, uint8, sform).
fn read_nifti(path: &Path) -> (Mask, Grid) {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    let short = |at: usize| i16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let float = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    assert_eq!((short(70), short(40)), (2, 3), "uint8, three axes");
    assert!(short(254) > 0, "has an sform");
    let [columns, rows, slices] = [42, 44, 46].map(|at| short(at) as usize);
    // Columns of the affine, from RAS to LPS.
    let column = |k: usize| {
        [-1.0, -1.0, 1.0]
            .iter()
            .enumerate()
            .map(|(row, sign)| sign * f64::from(float(280 + 16 * row + 4 * k)))
            .collect::<Vec<f64>>()
    };
    let length = |v: &[f64]| v.iter().map(|c| c * c).sum::<f64>().sqrt();
    let unit = |v: Vec<f64>| {
        let length = length(&v);
        [v[0] / length, v[1] / length, v[2] / length]
    };
    let (x, y, z, origin) = (column(0), column(1), column(2), column(3));
    let spacing_mm = [length(&y), length(&x)];
    let (row_direction, column_direction) = (unit(x), unit(y));
    let origins = (0..slices)
        .map(|slice| [0, 1, 2].map(|k| origin[k] + z[k] * slice as f64))
        .collect();
    let labels = bytes[float(108) as usize..][..columns * rows * slices].to_vec();
    let grid = Grid {
        rows,
        columns,
        origins,
        row_direction,
        column_direction,
        normal: cross(row_direction, column_direction),
        spacing_mm,
    };
    ascending(
        Mask {
            shape: [slices, rows, columns],
            labels,
        },
        grid,
    )
}

/// Folders with a silver mask, of all real chests at hand.
fn silver_cases() -> Vec<PathBuf> {
    let Some(root) = std::env::var_os("HILUM_TEST_DATA") else {
        assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_DATA is not set");
        println!("skipped: HILUM_TEST_DATA is not set, so there are no real chests to test with");
        return Vec::new();
    };
    let mut cases = Vec::new();
    for group in ["whole", "partial", "train"] {
        let folder = Path::new(&root).join(group);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        cases.extend(
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.join("mask.nii.gz").is_file()),
        );
    }
    assert!(cases.len() >= 20, "{} cases", cases.len());
    cases.sort();
    cases
}

#[test]
fn sides_of_real_chests_are_those_of_their_silver_masks() {
    for case in silver_cases() {
        let (mask, grid) = read_nifti(&case.join("mask.nii.gz"));
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let (right_ones, sides) = told(&mask, &grid);
        println!(
            "{name}: {:.3} % right, {:?}, {:.0} + {:.0} mL, bridge {:.1} cm2, {:.0} mm apart, {:.1} mL doubtful, confidence {:.2}",
            right_ones * 100.0,
            sides.told,
            sides.right_ml,
            sides.left_ml,
            sides.bridge_cm2,
            sides.apart_mm,
            sides.doubtful_ml,
            sides.confidence
        );
        if name.ends_with("no_lung") {
            assert_eq!(sides.told, Told::NoLung);
        } else {
            assert!(right_ones > 0.995, "{name}: {right_ones} {sides:?}");
            assert!(sides.confidence > 0.5, "{name}: {sides:?}");
        }
    }
}

#[test]
fn keeping_two_components_keeps_both_lungs_of_every_real_chest() {
    let options = CleanUp {
        keep_components: 2,
        min_component_ml: 5.0,
        fill_holes_ml: 5.0,
    };
    for case in silver_cases() {
        let (known, grid) = read_nifti(&case.join("mask.nii.gz"));
        let mut mask = known.clone();
        let report = clean(&mut mask, &grid, &options).unwrap();
        let lost = known
            .labels
            .iter()
            .zip(&mask.labels)
            .filter(|(known, cleaned)| **known != 0 && **cleaned == 0)
            .count();
        let lung = known.labels.iter().filter(|&&label| label != 0).count();
        println!("{}: {report:?}", case.display());
        for side in [1, 2] {
            let count = |mask: &Mask| mask.labels.iter().filter(|&&label| label == side).count() as f64;
            assert!(
                count(&mask) >= 0.9 * count(&known),
                "{}: side {side} lost, {lost} of {lung} voxels: {report:?}",
                case.display()
            );
        }
    }
}

#[test]
fn partial_real_chests_are_cut_at_their_ends_and_whole_ones_leave_nothing_to_say() {
    let upper = "series' upper end";
    let lower = "series' lower end";
    let cut_at = |name: &str| match name {
        "acrin_flt_breast_013_siemens_5mm"
        | "cptac_c3l_00189_ge_lung_bases_5mm"
        | "acrin_flt_breast_001_ge_soft_5mm_abdomen_to_bases"
        | "pancreas_ct_cb_001_philips_b_3mm_bases" => vec![upper],
        "acrin_flt_breast_001_ge_soft_5mm_hilum_to_head" => vec![lower],
        "acrin_flt_breast_001_ge_soft_5mm"
        | "c4kc_kits_00072_siemens_b30s_3mm_bases"
        | "rider_pilot_0117_ge_std_1p25mm_bases" => vec![lower, upper],
        _ => vec![],
    };
    for case in silver_cases() {
        let (mut mask, grid) = read_nifti(&case.join("mask.nii.gz"));
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let volume = Volume {
            padding_hu: vec![None; grid.origins.len()],
            voxels: Voxels::I16(vec![-800; mask.labels.len()]),
            grid,
        };
        let cleaned = clean(&mut mask, &volume.grid, &CleanUp::OFF).unwrap();
        let told = sides(&mut mask, &volume.grid).unwrap();
        let measured = measure(&mask, &volume).unwrap();
        let findings = judge_mask(&mask, &volume, &cleaned, &told, &measured, &MaskLimits::default()).unwrap();
        println!("{name}: {findings:?}");
        let codes: Vec<Code> = findings.iter().map(|finding| finding.code).collect();
        let ends = cut_at(&name);
        if name.ends_with("no_lung") {
            assert_eq!(codes, vec![Code::LungsNotFound], "{name}");
        } else if ends.is_empty() {
            assert_eq!(codes, vec![], "{name}: {findings:?}");
        } else {
            assert_eq!(codes, vec![Code::LungsCut], "{name}: {findings:?}");
            assert!(
                [upper, lower]
                    .iter()
                    .all(|end| findings[0].sentence.contains(end) == ends.contains(end)),
                "{name}: {findings:?}"
            );
        }
    }
}
