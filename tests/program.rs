//! The program as people run it: phantoms go in, files and exit codes come out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn hilum(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ends_with(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// A small phantom in `folder`, its series folder.
fn phantom(folder: &Path, more: &[&str]) -> PathBuf {
    let out = folder.join("phantom");
    let mut arguments = vec!["phantom", "--small", "--seed", "3", "--out", out.to_str().unwrap()];
    arguments.extend(more);
    ends_with(&hilum(&arguments), 0);
    out.join("ct")
}

fn segment(series: &Path, out: &Path, more: &[&str]) -> Output {
    let mut arguments = vec![
        "segment",
        series.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--device",
        "cpu",
    ];
    arguments.extend(more);
    hilum(&arguments)
}

/// The one folder of results.
fn result(out: &Path) -> PathBuf {
    let folders: Vec<_> = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_phantom_becomes_a_segmentation_an_image_a_picture_and_a_report_and_twice_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let output = segment(&series, &first, &["--json"]);
    ends_with(&output, 0);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let report: Value = serde_json::from_slice(&fs::read(result(&first).join("report.json")).unwrap()).unwrap();
    assert_eq!(printed["series"][0], report);
    assert_eq!(report["schema"], 1);
    assert_eq!(report["verdict"]["outcome"], "accepted");
    let total = &report["measurements"]["total"]["volume_ml"];
    assert!((1500.0..9000.0).contains(&total.as_f64().unwrap()), "{total}");
    let windows = &report["windows"];
    assert_eq!(
        windows["total"].as_u64().unwrap(),
        windows["run"].as_u64().unwrap() + windows["skipped"].as_u64().unwrap()
    );
    assert_eq!(
        names(&result(&first)),
        ["mask.nii.gz", "overlay.png", "report.json", "segmentation.dcm"]
    );

    ends_with(&segment(&series, &second, &["--json"]), 0);
    for name in ["mask.nii.gz", "overlay.png", "segmentation.dcm"] {
        assert_eq!(
            fs::read(result(&first).join(name)).unwrap(),
            fs::read(result(&second).join(name)).unwrap(),
            "{name}"
        );
    }

    let truth = folder.path().join("phantom/mask.nii.gz");
    let segmentation = result(&first).join("segmentation.dcm");
    let output = hilum(&[
        "evaluate",
        segmentation.to_str().unwrap(),
        truth.to_str().unwrap(),
        "--form",
        "json",
    ]);
    ends_with(&output, 0);
    let scores: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dice = scores["cases"][0]["lungs"]["dice"].as_f64().unwrap();
    assert!(
        dice > 0.8,
        "the segmentation lies elsewhere than the phantom's lungs: Dice {dice}"
    );
}

#[test]
fn the_formats_that_are_asked_for_are_made_and_what_an_earlier_run_left_goes() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let out = folder.path().join("out");
    ends_with(
        &segment(
            &series,
            &out,
            &[
                "--format",
                "seg,nifti,png,json,ct",
                "--segments",
                "left-right",
                "--frames",
                "sparse",
            ],
        ),
        0,
    );
    assert_eq!(
        names(&result(&out)),
        [
            "ct.nii.gz",
            "mask.nii.gz",
            "overlay.png",
            "report.json",
            "segmentation.dcm"
        ]
    );
    let full = fs::metadata(result(&out).join("segmentation.dcm")).unwrap().len();
    ends_with(
        &segment(
            &series,
            &out,
            &["--format", "seg,json", "--transfer-syntax", "deflated"],
        ),
        0,
    );
    assert_eq!(names(&result(&out)), ["report.json", "segmentation.dcm"]);
    assert!(
        fs::metadata(result(&out).join("segmentation.dcm")).unwrap().len() < full / 4,
        "deflated is small"
    );
}

#[test]
fn every_transfer_syntax_of_the_phantom_gives_the_same_mask() {
    let folder = tempfile::tempdir().unwrap();
    let mut masks = Vec::new();
    for syntax in [
        "explicit_little_endian",
        "implicit_little_endian",
        "deflated",
        "rle",
        "jpeg_ls",
    ] {
        let here = folder.path().join(syntax);
        let series = phantom(&here, &["--transfer-syntax", syntax]);
        let out = here.join("out");
        ends_with(&segment(&series, &out, &["--format", "nifti"]), 0);
        masks.push(fs::read(result(&out).join("mask.nii.gz")).unwrap());
    }
    assert!(masks.iter().all(|mask| *mask == masks[0]));
}

#[test]
fn input_decoded_in_place_gives_the_same_mask() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &["--transfer-syntax", "jpeg_ls"]);
    let (child, place) = (folder.path().join("child"), folder.path().join("place"));
    ends_with(&segment(&series, &child, &["--format", "nifti"]), 0);
    ends_with(&segment(&series, &place, &["--format", "nifti", "--trust-input"]), 0);
    assert_eq!(
        fs::read(result(&child).join("mask.nii.gz")).unwrap(),
        fs::read(result(&place).join("mask.nii.gz")).unwrap()
    );
}

#[test]
fn refused_input_ends_with_3_and_a_report_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let one = fs::read_dir(&series).unwrap().next().unwrap().unwrap().path();
    let out = folder.path().join("out");
    let output = segment(&one, &out, &["--json"]);
    ends_with(&output, 3);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["series"][0]["verdict"]["findings"][0]["code"], "too_few_slices");
    assert_eq!(names(&result(&out)), ["report.json"]);

    let inspected = hilum(&["inspect", one.to_str().unwrap()]);
    ends_with(&inspected, 3);
    assert!(text(&inspected.stdout).contains("too_few_slices"));
}

#[test]
fn air_without_lungs_gives_no_segmentation_but_a_picture_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    // 300 mm below the lungs: an abdomen.
    let specification = r#"{"seed": 3, "spacing_mm": [2.0, 2.0, 5.0], "matrix": [192, 192], "slices": 12, "centre_mm": [0.0, 0.0, -330.0]}"#;
    let file = folder.path().join("abdomen.json");
    fs::write(&file, specification).unwrap();
    let made = folder.path().join("abdomen");
    ends_with(
        &hilum(&[
            "phantom",
            "--specification",
            file.to_str().unwrap(),
            "--out",
            made.to_str().unwrap(),
        ]),
        0,
    );
    let out = folder.path().join("out");
    let output = segment(&made.join("ct"), &out, &["--json"]);
    ends_with(&output, 0);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        printed["series"][0]["mask_findings"][0]["code"], "lungs_not_found",
        "{printed:#}"
    );
    assert_eq!(names(&result(&out)), ["overlay.png", "report.json"]);
}

#[test]
fn usage_is_2_and_a_model_that_is_not_there_is_1_and_named() {
    ends_with(&hilum(&["segment"]), 2);
    ends_with(&hilum(&["segment", ".", "--out", "x", "--device", "abacus"]), 2);
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let output = segment(&series, &folder.path().join("out"), &["--model", "nobody"]);
    ends_with(&output, 1);
    assert!(
        text(&output.stderr).contains("hilum-ahnet-lung-tiny"),
        "it names what there is: {}",
        text(&output.stderr)
    );
}

#[test]
fn an_explicit_device_that_cannot_be_had_is_an_error_that_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let mut arguments = vec!["segment", series.to_str().unwrap(), "--device", "cuda"];
    let out = folder.path().join("out");
    arguments.extend(["--out", out.to_str().unwrap()]);
    let output = hilum(&arguments);
    // On a machine with a GPU and its libraries the device can be had.
    if output.status.code() == Some(0) {
        return;
    }
    ends_with(&output, 1);
    assert!(text(&output.stderr).contains("CUDA 13"), "{}", text(&output.stderr));
}

#[test]
fn a_canceled_run_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let out = folder.path().join("out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args([
            "segment",
            series.to_str().unwrap(),
            "--device",
            "cpu",
            "--overlap",
            "0.9",
            "--crop",
            "off",
            "--out",
            out.to_str().unwrap(),
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let still = child.try_wait().unwrap().is_none();
    assert!(still, "the run is long enough to be interrupted");
    let begun = Instant::now();
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("canceled"), "{}", text(&output.stderr));
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "it ends within a window, not at the end"
    );
    let left: Vec<_> = if out.exists() { walk(&out) } else { Vec::new() };
    assert!(left.is_empty(), "{left:?}");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path))
        } else {
            found.push(path)
        }
    }
    found
}
