//! Masks compared as MONAI and SimpleITK compare them, and read as highdicom and nibabel write them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;

use hilum::evaluate::{
    CaseScores, Grids, LabelImage, SideLabels, Unpaired, compare, hausdorff_mm, read_mask, summarise,
    without_prediction,
};
use proptest::prelude::*;
use serde::Deserialize;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/goldens/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A small NIfTI-1 writer: voxels x fastest, rows of the affine to RAS+.
fn nifti(shape: [usize; 3], affine: [[f32; 4]; 3], voxels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0_u8; 352];
    bytes[0..4].copy_from_slice(&348_i32.to_le_bytes());
    for (k, n) in [3, shape[0], shape[1], shape[2], 1, 1, 1, 1].into_iter().enumerate() {
        bytes[40 + 2 * k..42 + 2 * k].copy_from_slice(&(n as i16).to_le_bytes());
    }
    bytes[70..72].copy_from_slice(&2_i16.to_le_bytes());
    bytes[72..74].copy_from_slice(&8_i16.to_le_bytes());
    bytes[108..112].copy_from_slice(&352_f32.to_le_bytes());
    bytes[254..256].copy_from_slice(&1_i16.to_le_bytes());
    for (row, values) in affine.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            let at = 280 + 16 * row + 4 * column;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes[344..348].copy_from_slice(b"n+1\0");
    bytes.extend_from_slice(voxels);
    bytes
}

/// An image with x, y, z spacing whose voxels come `[z][y][x]`, stored as LPS.
fn image(shape: [usize; 3], spacing: [f64; 3], voxels: &[u8]) -> LabelImage {
    let [z, y, x] = spacing.map(|s| s as f32);
    let affine = [[-x, 0.0, 0.0, 0.0], [0.0, -y, 0.0, 0.0], [0.0, 0.0, z, 0.0]];
    read_mask(&nifti([shape[2], shape[1], shape[0]], affine, voxels)).unwrap()
}

type Ellipsoid = ([f64; 3], [f64; 3]);

#[derive(Deserialize)]
struct Case {
    name: String,
    shape: [usize; 3],
    spacing: [f64; 3],
    predicted: Vec<Ellipsoid>,
    reference: Vec<Ellipsoid>,
    roughness: u64,
    voxels: [usize; 2],
    monai_dice: f64,
    monai_hd95: f64,
    monai_hd100: f64,
    monai_mean_surface_distance: f64,
    simpleitk_dice: f64,
    simpleitk_hausdorff: f64,
}

/// The mask that `evaluate_reference.py` makes of the same numbers.
fn mask(shape: [usize; 3], ellipsoids: &[Ellipsoid], roughness: u64, salt: u64) -> Vec<u8> {
    let mut voxels = Vec::new();
    for z in 0..shape[0] {
        for y in 0..shape[1] {
            for x in 0..shape[2] {
                let part = |v: usize, c: f64, r: f64| ((v as f64 - c) / r).powi(2);
                let inside = ellipsoids
                    .iter()
                    .any(|(c, r)| part(z, c[0], r[0]) + part(y, c[1], r[1]) + part(x, c[2], r[2]) <= 1.0);
                let h = (voxels.len() as u64).wrapping_mul(2_654_435_761).wrapping_add(salt) & 0xffff_ffff;
                let h = (h ^ (h >> 16)).wrapping_mul(2_246_822_519) & 0xffff_ffff;
                let turned = (h >> 24) < roughness && h & 7 == 0;
                voxels.push(u8::from(inside != turned));
            }
        }
    }
    voxels
}

#[test]
fn dice_and_surface_distances_agree_with_monai_and_simpleitk() {
    let cases: Vec<Case> = serde_json::from_slice(&golden("evaluate.json")).unwrap();
    for case in cases {
        let masks = [(&case.predicted, 17), (&case.reference, 91)]
            .map(|(ellipsoids, salt)| mask(case.shape, ellipsoids, case.roughness, salt));
        assert_eq!(
            masks.each_ref().map(|mask| mask.iter().filter(|v| **v > 0).count()),
            case.voxels,
            "{}: not the same masks",
            case.name
        );
        let [predicted, reference] = masks.map(|mask| image(case.shape, case.spacing, &mask));
        let scores = compare(&case.name, &predicted, &reference);
        // MONAI and we compute distances in 32 bits, and spacings went through the 32-bit affine of NIfTI: six figures agree.
        let near = |ours: f64, theirs: f64, what: &str| {
            assert!(
                (ours - theirs).abs() <= 2e-6 * theirs.abs().max(1.0),
                "{}, {what}: {ours} here, {theirs} there",
                case.name
            );
        };
        near(scores.lungs.dice, case.monai_dice, "Dice, MONAI");
        near(scores.lungs.dice, case.simpleitk_dice, "Dice, SimpleITK");
        near(scores.lungs.hd95_mm.unwrap(), case.monai_hd95, "HD95, MONAI");
        near(
            scores.lungs.mean_surface_distance_mm.unwrap(),
            case.monai_mean_surface_distance,
            "mean surface distance, MONAI",
        );
        let hausdorff = hausdorff_mm(&predicted, &reference, 100.0).unwrap();
        near(hausdorff, case.monai_hd100, "Hausdorff distance, MONAI");
        near(hausdorff, case.simpleitk_hausdorff, "Hausdorff distance, SimpleITK");
        let voxel_ml = case.spacing.iter().product::<f64>() / 1000.0;
        let volumes = case.voxels.map(|count| count as f64 * voxel_ml);
        near(scores.lungs.predicted_ml, volumes[0], "predicted volume");
        near(scores.lungs.volume_error_ml, volumes[0] - volumes[1], "volume error");
    }
}

#[test]
fn segmentations_by_highdicom_and_a_nifti_by_nibabel_hold_the_same_lungs() {
    let nifti = read_mask(&golden("evaluate_mask.nii.gz")).unwrap();
    assert_eq!(nifti.sides, SideLabels::Apart);
    for name in [
        "evaluate_binary.dcm",
        "evaluate_deflated.dcm",
        "evaluate_labelmap.dcm",
        "evaluate_fractional.dcm",
    ] {
        let segmentation = read_mask(&golden(name)).unwrap();
        for (predicted, reference) in [(&segmentation, &nifti), (&nifti, &segmentation)] {
            let scores = compare(name, predicted, reference);
            assert_ne!(scores.grids, Grids::Resampled, "{name}");
            assert_eq!(scores.lungs.dice, 1.0, "{name}");
            assert_eq!(scores.lungs.hd95_mm, Some(0.0), "{name}");
            assert_eq!(scores.right.unwrap().dice, 1.0, "{name}");
            let left = scores.left.unwrap();
            assert_eq!(left.dice, 1.0, "{name}");
            assert!(
                (left.reference_ml - LEFT_VOXELS * 2.5 * 0.75 * 0.75 / 1000.0).abs() < 1e-6,
                "{name}: {}",
                left.reference_ml
            );
        }
    }
}

/// As `evaluate_files.py` prints.
const LEFT_VOXELS: f64 = 421.0;

#[test]
fn a_mask_shifted_by_one_slice_is_told_from_the_right_one() {
    let nifti = read_mask(&golden("evaluate_mask.nii.gz")).unwrap();
    let mut shifted = nifti.clone();
    for origin in &mut shifted.grid.origins {
        origin[2] += 2.5;
    }
    let scores = compare("shifted", &shifted, &nifti);
    assert_eq!(scores.grids, Grids::SlicesAdded);
    assert!(scores.lungs.dice < 0.9);
    assert!(scores.lungs.hd95_mm.unwrap() >= 2.4);
}

#[test]
fn another_grid_is_resampled_onto_the_references_and_what_lies_outside_is_said() {
    let shape = [20, 30, 30];
    let ball = mask(shape, &[([9.0, 14.0, 14.0], [8.0, 12.0, 12.0])], 0, 0);
    let fine = image(shape, [2.0, 1.0, 1.0], &ball);
    let half: Vec<u8> = (0..10 * 15 * 15)
        .map(|k| ball[(2 * (k / 225) * 30 + 2 * (k % 225 / 15)) * 30 + 2 * (k % 15)])
        .collect();
    let coarse = image([10, 15, 15], [4.0, 2.0, 2.0], &half);
    let scores = compare("coarse", &coarse, &fine);
    assert_eq!(scores.grids, Grids::Resampled);
    assert!(scores.lungs.dice > 0.9, "{}", scores.lungs.dice);
    let cut = image([10, 30, 30], [2.0, 1.0, 1.0], &ball[..9000]);
    let part = compare("cut", &image([10, 15, 15], [4.0, 2.0, 2.0], &half), &cut);
    assert!(part.outside_reference_ml > 1.0);
}

#[test]
fn empty_masks_have_no_distances_and_their_dice_is_one_only_if_both_are_empty() {
    let shape = [4, 5, 6];
    let nothing = image(shape, [1.0; 3], &[0; 120]);
    let something = image(
        shape,
        [1.0; 3],
        &mask(shape, &[([2.0, 2.0, 2.0], [1.5, 1.5, 1.5])], 0, 0),
    );
    let both = compare("both", &nothing, &nothing).lungs;
    assert_eq!((both.dice, both.hd95_mm, both.volume_error_relative), (1.0, None, None));
    let one = compare("one", &nothing, &something).lungs;
    assert_eq!(
        (one.dice, one.mean_surface_distance_mm, one.volume_error_relative),
        (0.0, None, Some(-1.0))
    );
}

#[test]
fn the_summary_reads_as_on_the_reference_card() {
    let shape = [4, 8, 8];
    let reference = image(
        shape,
        [1.0; 3],
        &mask(shape, &[([2.0, 4.0, 4.0], [1.5, 3.0, 3.0])], 0, 0),
    );
    let cases: Vec<CaseScores> = (0..3)
        .map(|k| {
            let predicted = mask(shape, &[([2.0, 4.0, 4.0 + f64::from(k) * 0.7], [1.5, 3.0, 3.0])], 0, 0);
            compare(&format!("case {k}"), &image(shape, [1.0; 3], &predicted), &reference)
        })
        .collect();
    let dice: Vec<f64> = cases.iter().map(|case| case.lungs.dice).collect();
    let mean = dice.iter().sum::<f64>() / 3.0;
    let sd = (dice.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let summary = summarise(cases, Unpaired::default());
    let expected = format!("Dice {mean:.2} ({:.2}-1.00, sd {sd:.2})", dice[2]);
    assert!(summary.table().contains(&expected), "{}", summary.table());
    assert_eq!(summary.csv().unwrap().lines().count(), 4);
    let json: serde_json::Value = serde_json::from_str(&summary.json().unwrap()).unwrap();
    assert_eq!(json["dice"]["cases"], 3);
}

/// A right and a left lung with these labels.
fn lungs(right: u8, left: u8) -> LabelImage {
    let shape = [6, 10, 20];
    let of = |centre: f64| mask(shape, &[([2.5, 4.5, centre], [2.5, 4.0, 4.0])], 0, 0);
    let voxels: Vec<u8> = of(4.5)
        .iter()
        .zip(of(14.5))
        .map(|(r, l)| r * right + l * left)
        .collect();
    image(shape, [2.0, 1.0, 1.0], &voxels)
}

#[test]
fn a_lung_that_the_prediction_lacks_has_dice_0() {
    let reference = lungs(1, 2);
    let sides = |predicted: &LabelImage| {
        let scores = compare("case", predicted, &reference);
        [scores.right, scores.left].map(|side| side.map(|side| side.dice))
    };
    assert_eq!(sides(&lungs(1, 2)), [Some(1.0), Some(1.0)]);
    assert_eq!(sides(&lungs(0, 2)), [Some(0.0), Some(1.0)]);
    assert_eq!(sides(&lungs(2, 0)), [Some(0.0), Some(0.0)], "label 2 is the left lung");
    assert_eq!(sides(&lungs(1, 0)), [Some(1.0), Some(0.0)]);
    assert_eq!(sides(&lungs(0, 0)), [Some(0.0), Some(0.0)]);
    assert_eq!(sides(&lungs(1, 1)), [None, None], "undivided lung is of neither side");
    assert_eq!(sides(&lungs(255, 255)), [None, None]);
    let undivided = compare("case", &lungs(1, 2), &lungs(1, 1));
    assert_eq!((undivided.right, undivided.left), (None, None));
}

#[test]
fn a_lung_that_neither_has_is_not_scored() {
    let scores = compare("case", &lungs(0, 2), &lungs(0, 2));
    assert_eq!((scores.right, scores.left.unwrap().dice), (None, 1.0));
}

#[test]
fn a_reference_without_a_prediction_counts_as_an_empty_mask_unless_such_are_skipped() {
    let reference = lungs(1, 2);
    let of = |skip_missing| {
        let cases = vec![compare("b", &reference, &reference)];
        let no_prediction = [("a", &reference), ("c", &lungs(0, 0))]
            .map(|(case, reference)| without_prediction(case, reference))
            .to_vec();
        let no_reference = vec!["x".to_owned()];
        summarise(
            cases,
            Unpaired {
                no_prediction,
                no_reference,
                skip_missing,
            },
        )
    };
    let counted = of(false);
    for (dice, name) in [
        (counted.dice, "both"),
        (counted.dice_right, "right"),
        (counted.dice_left, "left"),
    ] {
        let dice = dice.unwrap();
        assert_eq!((dice.cases, dice.mean, dice.min), (2, 0.5, 0.0), "{name}");
    }
    assert_eq!(counted.hd95_mm.unwrap().cases, 1);
    let table = counted.table();
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].starts_with("a  ") && lines[1].contains(" 0.000 ") && lines[1].ends_with("-100.0  no prediction"),
        "{table}"
    );
    assert!(lines[2].starts_with("b  "), "{table}");
    assert!(
        lines[3].starts_with("c  ") && lines[3].ends_with("-  no prediction"),
        "{table}"
    );
    for line in [
        "HD95 in mm 0.0 (0.0-0.0, sd 0.0), 1 of 2 cases",
        "No prediction for 2 of 3 references; counted as empty masks (Dice 0): 1",
        "Predictions without a reference, not counted: x",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{table}");
    }
    let csv = counted.csv().unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 24), "{csv}");
    assert_eq!((rows[1][0], rows[1][1], rows[1][22]), ("a", "0", "no_prediction"));
    assert_eq!((rows[3][0], rows[3][1], rows[3][22]), ("c", "", "no_prediction"));
    let json: serde_json::Value = serde_json::from_str(&counted.json().unwrap()).unwrap();
    assert_eq!(json["cases"][0]["grids"], "no_prediction");
    assert_eq!(
        json["no_prediction"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["counted"].clone())
            .collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(json["no_reference"][0], "x");

    let undivided = summarise(
        vec![compare("b", &lungs(1, 1), &reference)],
        Unpaired {
            no_prediction: vec![without_prediction("a", &reference)],
            ..Unpaired::default()
        },
    );
    assert_eq!(undivided.dice.unwrap().cases, 2);
    assert_eq!((undivided.dice_right, undivided.dice_left), (None, None));

    let skipped = of(true);
    let dice = skipped.dice.unwrap();
    assert_eq!((dice.cases, dice.mean), (1, 1.0));
    assert!(
        skipped
            .table()
            .contains("No prediction for 2 of 3 references; counted as empty masks (Dice 0): 0"),
        "{}",
        skipped.table()
    );
    assert_eq!(skipped.csv().unwrap().matches("no_prediction").count(), 2);
}

#[test]
fn a_bomb_and_headers_that_lie_are_errors() {
    // A header that asks for 2^29 voxels, and a few compressed zeros.
    let mut liar = nifti(
        [1, 1, 1],
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        &[0],
    );
    for (k, n) in [3_i16, 1024, 1024, 512].into_iter().enumerate() {
        liar[40 + 2 * k..42 + 2 * k].copy_from_slice(&n.to_le_bytes());
    }
    assert!(read_mask(&liar).is_err());
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&liar).unwrap();
    assert!(read_mask(&packed.finish().unwrap()).is_err());
    assert!(read_mask(b"").is_err());
    assert!(read_mask(&[0x1f, 0x8b]).is_err());
}

/// The binary segmentation with other text in place of some, of the same length, wherever it stands.
fn altered(from: &str, to: &str) -> (usize, Vec<u8>) {
    assert_eq!(from.len(), to.len());
    let mut bytes = golden("evaluate_binary.dcm");
    let places: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(from.as_bytes()))
        .collect();
    for at in &places {
        bytes[*at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    (places.len(), bytes)
}

#[test]
fn slices_that_lie_far_aside_are_refused_before_a_block_is_made_that_holds_them() {
    // Ten thousand kilometres: both frames of a plane, and a frame that is alone on its.
    for (plane, frames) in [("-20.25\\-110.5\\-277.5", 2), ("-20.25\\-110.5\\-272.5", 1)] {
        let (found, bytes) = altered(plane, &plane.replace("-110.5", "9999e6"));
        assert_eq!(found, frames);
        let error = read_mask(&bytes).unwrap_err().to_string();
        assert!(error.contains("one behind the other"), "{error}");
    }
}

#[test]
fn slices_so_far_away_that_they_fall_together_are_refused() {
    let affine = |z| [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.5, z]];
    assert!(read_mask(&nifti([1, 1, 2], affine(-1000.0), &[1, 1])).is_ok());
    let error = read_mask(&nifti([1, 1, 2], affine(-1.7e38), &[1, 1]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("one behind the other"), "{error}");
}

#[test]
fn a_mask_lies_on_its_own_grid_however_far_its_slices_are_apart() {
    let affine = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1e17, 0.0]];
    let mask = read_mask(&nifti([1, 1, 3], affine, &[1, 0, 2])).unwrap();
    assert_eq!(compare("itself", &mask, &mask).grids, Grids::Same);
}

#[test]
fn frames_of_one_plane_at_different_places_are_refused() {
    let mut bytes = golden("evaluate_binary.dcm");
    let plane = b"-20.25\\-110.5\\-277.5";
    let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(plane)).unwrap();
    bytes[at + 7..at + 13].copy_from_slice(b"-100.5");
    let error = read_mask(&bytes).unwrap_err().to_string();
    assert!(error.contains("different places"), "{error}");
}

proptest! {
    #[test]
    fn voxels_stored_in_another_order_compare_as_the_same(
        bits in proptest::collection::vec(0_u8..3, 3 * 4 * 5),
        order in Just([0_usize, 1, 2]).prop_shuffle(),
        flips in proptest::array::uniform3(any::<bool>()),
    ) {
        // Axes x, y, z of the plain image (x fastest), RAS+.
        let size = [5_usize, 4, 3];
        let spacing = [0.7_f32, 0.9, 2.0];
        let plain = nifti(size, [[0.7, 0.0, 0.0, 10.0], [0.0, 0.9, 0.0, -20.0], [0.0, 0.0, 2.0, 30.0]], &bits);
        let stored = order.map(|axis| size[axis]);
        let mut affine = [[10.0, -20.0, 30.0].map(|t| [0.0, 0.0, 0.0, t]), [[0.0; 4]; 3]][0];
        for (to, axis) in order.into_iter().enumerate() {
            affine[axis][to] = if flips[to] { -spacing[axis] } else { spacing[axis] };
            if flips[to] {
                affine[axis][3] += spacing[axis] * (size[axis] - 1) as f32;
            }
        }
        let mut voxels = Vec::new();
        for c in 0..stored[2] {
            for b in 0..stored[1] {
                for a in 0..stored[0] {
                    let mut at = [0; 3];
                    for (to, index) in [a, b, c].into_iter().enumerate() {
                        at[order[to]] = if flips[to] { stored[to] - 1 - index } else { index };
                    }
                    voxels.push(bits[(at[2] * size[1] + at[1]) * size[0] + at[0]]);
                }
            }
        }
        let plain = read_mask(&plain).unwrap();
        let other = read_mask(&nifti(stored, affine, &voxels)).unwrap();
        let scores = compare("order", &other, &plain);
        prop_assert_eq!(scores.grids, Grids::Same);
        prop_assert_eq!(scores.lungs.dice, 1.0);
        prop_assert_eq!(&other.labels, &plain.labels);
    }

    #[test]
    fn damaged_files_never_panic(cut in 0_usize..4000, place in 0_usize..4000, value in any::<u8>(), which in 0_usize..5) {
        let names = ["evaluate_binary.dcm", "evaluate_deflated.dcm", "evaluate_labelmap.dcm", "evaluate_fractional.dcm", "evaluate_mask.nii.gz"];
        let mut bytes = golden(names[which]);
        let place = place % bytes.len();
        bytes[place] = value;
        let _ = read_mask(&bytes);
        bytes.truncate(cut);
        let _ = read_mask(&bytes);
    }
}
