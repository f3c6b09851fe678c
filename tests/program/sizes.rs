//! Thin and thick slices, small and large matrices, the whole way with the small network.

use std::fs;

use serde_json::Value;

use super::{TINY, ends_with, hilum, phantom, result, segment, text};

#[test]
fn slices_of_half_a_millimetre_and_of_ten_and_matrices_of_256_and_1024_go_the_whole_way() {
    for (spacing, matrix, slices, dice_over) in [
        (["1.4", "1.4", "0.5"], 256, 120, 0.9),
        (["0.36", "0.36", "10"], 1024, 12, 0.8),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (rows, count) = (matrix.to_string(), slices.to_string());
        let size = [
            "--matrix",
            &rows,
            &rows,
            "--slices",
            &count,
            "--spacing",
            spacing[0],
            spacing[1],
            spacing[2],
        ];
        let series = phantom(folder.path(), &size);
        let out = folder.path().join("out");
        ends_with(
            &segment(&series, &out, &["--json", "--segments", "left-right", "--model", TINY]),
            0,
        );
        let made = result(&out);
        let report: Value = serde_json::from_slice(&fs::read(made.join("report.json")).unwrap()).unwrap();
        assert_eq!(report["volume"]["shape"], serde_json::json!([slices, matrix, matrix]));
        assert_eq!(
            report["volume"]["slice_spacing_mm"].to_string().parse::<f64>().unwrap(),
            spacing[2].parse::<f64>().unwrap()
        );
        let truth = folder.path().join("phantom/mask.nii.gz");
        for mask in ["segmentation.dcm", "mask.nii.gz"] {
            let evaluated = hilum(&[
                "evaluate",
                made.join(mask).to_str().unwrap(),
                truth.to_str().unwrap(),
                "--form",
                "json",
            ]);
            ends_with(&evaluated, 0);
            let scores: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
            let dice = scores["cases"][0]["lungs"]["dice"].as_f64().unwrap();
            assert!(
                dice > dice_over,
                "{mask} of {matrix} x {matrix} x {slices}: Dice {dice}\n{}",
                text(&evaluated.stdout)
            );
        }
    }
}
