//! The program as people run it: phantoms go in, files and exit codes come out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../ct_file/mod.rs"]
mod ct_file;
mod decoders;
mod options;
mod progress;
mod reports;
mod sizes;
mod verdicts;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ct_file::{encapsulated, meta};
use serde_json::Value;

/// The network of these tests, where the default one would take longer and prove no more.
const TINY: &str = "hilum-ahnet-lung-tiny";

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

/// `hilum segment` of series into `out` on the CPU, to be run or started.
fn segmenting(series: &[&Path], out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
    command
        .arg("segment")
        .args(series)
        .arg("--out")
        .arg(out)
        .args(["--device", "cpu"])
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn segment(series: &Path, out: &Path, more: &[&str]) -> Output {
    segmenting(&[series], out, more).output().unwrap()
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
fn the_same_slices_under_other_names_give_the_same_bytes() {
    const SERIES_NUMBER: (u16, u16) = (0x0020, 0x0011);
    const ORIENTATION: (u16, u16) = (0x0020, 0x0037);
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &["--slices", "30", "--spacing", "1.8", "1.8", "10"]);
    let slices = files(&series);
    // Cosines rounded in another way, within the tolerance, in every second slice; and a number of its own in the last.
    for slice in slices.iter().step_by(2) {
        rewrite(slice, ORIENTATION, "1\\0.0004\\0\\0\\1\\0");
    }
    rewrite(&slices[29], SERIES_NUMBER, "9");
    let renamed = folder.path().join("renamed");
    fs::create_dir(&renamed).unwrap();
    for (number, slice) in slices.iter().rev().enumerate() {
        fs::copy(slice, renamed.join(format!("{number:02}.dcm"))).unwrap();
    }
    let made = [&series, &renamed].map(|series| {
        let out = series.with_extension("out");
        ends_with(&segment(series, &out, &["--model", TINY]), 0);
        result(&out)
    });
    for name in ["mask.nii.gz", "overlay.png", "segmentation.dcm"] {
        let [first, second] = [0, 1].map(|which| fs::read(made[which].join(name)).unwrap());
        assert!(first == second, "{name}");
    }
}

#[test]
fn the_picture_shows_nothing_that_names_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let picture = |name: &str, changes: &[((u16, u16), &str)]| {
        let here = folder.path().join(name);
        let series = phantom(&here, &["--slices", "30", "--spacing", "1.8", "1.8", "10"]);
        for slice in files(&series) {
            changes.iter().for_each(|(tag, value)| rewrite(&slice, *tag, value));
        }
        let out = here.join("out");
        ends_with(&segment(&series, &out, &["--format", "png", "--model", TINY]), 0);
        fs::read(result(&out).join("overlay.png")).unwrap()
    };
    let plain = picture("plain", &[]);
    let personal = [
        ((0x0008, 0x0020), "19991231"),
        ((0x0008, 0x0050), "ACC-7"),
        ((0x0008, 0x0090), "Referrer^Robin"),
        ((0x0008, 0x1030), "Chest of Somebody"),
        ((0x0008, 0x103E), "Somebody, at night"),
        ((0x0010, 0x0010), "Other^Person"),
        ((0x0010, 0x0020), "OTHER-1"),
        ((0x0010, 0x0030), "19331231"),
        ((0x0010, 0x0040), "F"),
        ((0x0020, 0x0010), "STUDY-7"),
    ];
    assert!(
        picture("personal", &personal) == plain,
        "the picture shows the patient or the study"
    );
    let kernel = picture("kernel", &[((0x0018, 0x1210), "B31f")]);
    assert!(kernel != plain, "the picture shows what the header says of the scan");
}

#[test]
fn what_distorts_densities_stands_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(
        folder.path(),
        &["--kernel", "sharp", "--flavour", "siemens", "--contrast"],
    );
    let out = folder.path().join("out");
    let output = segment(&series, &out, &["--format", "json"]);
    ends_with(&output, 0);
    let printed = text(&output.stdout);
    assert!(
        printed.contains("  densities are distorted by: sharp_kernel, contrast, thick_slices\n"),
        "{printed}"
    );
    let report: Value = serde_json::from_slice(&fs::read(result(&out).join("report.json")).unwrap()).unwrap();
    assert_eq!(
        report["measurements"]["density_notes"],
        serde_json::json!(["sharp_kernel", "contrast", "thick_slices"])
    );
}

#[test]
fn masks_without_a_partner_are_named_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    phantom(folder.path(), &[]);
    let truth = folder.path().join("phantom/mask.nii.gz");
    let [predicted, reference] = ["predicted", "reference"].map(|name| folder.path().join(name));
    for path in [&predicted, &reference] {
        fs::create_dir(path).unwrap();
    }
    for path in ["predicted/a", "predicted/x", "reference/a", "reference/b"] {
        fs::copy(&truth, folder.path().join(format!("{path}.nii.gz"))).unwrap();
    }
    let evaluate = |more: &[&str]| {
        let mut arguments = vec!["evaluate", predicted.to_str().unwrap(), reference.to_str().unwrap()];
        arguments.extend(more);
        let output = hilum(&arguments);
        ends_with(&output, 0);
        let named = text(&output.stderr);
        assert!(named.contains("references without a prediction: b\n"), "{named}");
        assert!(named.contains("predictions without a reference: x\n"), "{named}");
        text(&output.stdout)
    };
    let table = evaluate(&[]);
    assert!(table.contains("Dice 0.50 (0.00-1.00"), "{table}");
    assert!(table.contains("  no prediction\n"), "{table}");
    let table = evaluate(&["--skip-missing"]);
    assert!(table.contains("Dice 1.00 (1.00-1.00"), "{table}");
    assert!(table.contains("  no prediction\n"), "{table}");
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
fn where_no_series_lies_the_end_is_3_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("words.txt"), "No CT here.").unwrap();
    let out = folder.path().join("out");
    let segmented = segment(&empty, &out, &["--json"]);
    let said = text(&segmented.stderr);
    assert!(
        said.contains("no DICOM series was found (1 files passed over"),
        "{said}"
    );
    for output in [segmented, hilum(&["inspect", empty.to_str().unwrap(), "--json"])] {
        ends_with(&output, 3);
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["series"], serde_json::json!([]));
    }
    assert!(!out.exists());
}

#[test]
fn one_of_several_that_fails_makes_the_end_1_and_the_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let thin = ["--slices", "30", "--spacing", "1.8", "1.8", "10"];
    let good = phantom(&folder.path().join("good"), &thin);
    let bad = phantom(
        &folder.path().join("bad"),
        &["--slices", "32", "--spacing", "1.8", "1.8", "10"],
    );
    let uids = [&bad, &good].map(|series| {
        let inspected = hilum(&["inspect", "--json", series.to_str().unwrap()]);
        ends_with(&inspected, 0);
        let seen: Value = serde_json::from_slice(&inspected.stdout).unwrap();
        seen["series"][0]["series_instance_uid"].as_str().unwrap().to_owned()
    });
    // A file stands where the folder of one series should.
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join(&uids[0]), "in the way").unwrap();
    let output = segmenting(&[&bad, &good], &out, &["--format", "json", "--json"])
        .output()
        .unwrap();
    ends_with(&output, 1);
    assert!(text(&output.stderr).contains(&uids[0]), "{}", text(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<&Value> = printed["series"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["error"].is_string())
        .collect();
    assert_eq!(failed.len(), 1, "{printed:#}");
    assert_eq!(failed[0]["series_instance_uid"], *uids[0]);
    assert_eq!(names(&out.join(&uids[1])), ["report.json"]);
}

#[test]
fn sets_that_share_a_series_uid_or_have_none_do_not_write_over_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let whole = phantom(folder.path(), &["--slices", "30", "--spacing", "1.8", "1.8", "10"]);
    // A slice whose study has another UID is a set of its own, under the same series' UID, and refused.
    let stray = files(&whole)[0].clone();
    rewrite(&stray, (0x0020, 0x000d), "9.9.9");
    let nameless = ["one", "two"].map(|name| {
        let copy = folder.path().join(name);
        fs::create_dir(&copy).unwrap();
        for (number, file) in files(&whole)[1..6].iter().enumerate() {
            let to = copy.join(number.to_string());
            fs::copy(file, &to).unwrap();
            rewrite(&to, (0x0020, 0x000e), "");
        }
        copy
    });
    let out = folder.path().join("out");
    let output = segment(
        &whole,
        &out,
        &[
            "--format",
            "seg,json",
            nameless[0].to_str().unwrap(),
            nameless[1].to_str().unwrap(),
        ],
    );
    ends_with(&output, 0);
    let folders = files(&out);
    assert_eq!(folders.len(), 4, "{folders:?}");
    let segmented: Vec<_> = folders
        .iter()
        .filter(|of| of.join("segmentation.dcm").exists())
        .collect();
    assert_eq!(segmented.len(), 1);
    let report: Value = serde_json::from_slice(&fs::read(segmented[0].join("report.json")).unwrap()).unwrap();
    let uid = segmented[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(
        report["series"]["series_instance_uid"], uid,
        "the larger set has the plain name"
    );
}

#[test]
fn one_series_is_chosen_by_its_uid() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let thin = ["--slices", "30", "--spacing", "1.8", "1.8", "10"];
    let wanted = phantom(&first, &thin);
    phantom(&second, &["--slices", "32", "--spacing", "1.8", "1.8", "10"]);
    let seen: Value = {
        let inspected = hilum(&["inspect", "--json", wanted.to_str().unwrap()]);
        ends_with(&inspected, 0);
        serde_json::from_slice(&inspected.stdout).unwrap()
    };
    let uid = seen["series"][0]["series_instance_uid"].as_str().unwrap();
    let out = folder.path().join("out");
    let both = folder.path();
    let chosen = segment(both, &out, &["--series", uid, "--format", "json"]);
    ends_with(&chosen, 0);
    assert_eq!(names(&out), [uid]);
    // Each phantom has its mask and its settings beside it.
    let told = text(&chosen.stdout);
    assert!(
        told.contains("4 other files were passed over (-v names them)."),
        "{told}"
    );

    let none = segment(both, &out, &["--series", "1.2.3"]);
    ends_with(&none, 1);
    assert!(text(&none.stderr).contains("no series 1.2.3"), "{}", text(&none.stderr));
}

/// Writes another text into an element of a file in explicit little endian whose value representation has a short length.
fn rewrite(file: &Path, tag: (u16, u16), value: &str) {
    let bytes = fs::read(file).unwrap();
    let pattern = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    let at = bytes.windows(4).position(|window| window == pattern).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
    let value = format!("{value}{}", if value.len() % 2 == 1 { " " } else { "" });
    let new = [
        &bytes[..at + 6],
        &(value.len() as u16).to_le_bytes(),
        value.as_bytes(),
        &bytes[at + 8 + length..],
    ];
    fs::write(file, new.concat()).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    names(folder).into_iter().map(|name| folder.join(name)).collect()
}

/// The first finding of a refused series.
fn decisive(series: &Path, out: &Path) -> Value {
    let output = segment(series, out, &["--json"]);
    ends_with(&output, 3);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    printed["series"][0]["verdict"]["findings"][0].clone()
}

#[test]
fn a_rescale_that_is_no_number_is_refused_as_not_hu() {
    const SLOPE: (u16, u16) = (0x0028, 0x1053);
    const INTERCEPT: (u16, u16) = (0x0028, 0x1052);
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let out = folder.path().join("out");
    for (tag, good, wrong, told) in [
        (SLOPE, "1", "1e999", "RescaleSlope is no finite number"),
        (SLOPE, "1", "-inf", "RescaleSlope is no finite number"),
        (SLOPE, "1", "NaN", "RescaleSlope is no finite number"),
        (SLOPE, "1", "one", "RescaleSlope is no finite number"),
        (SLOPE, "1", "0.0", "RescaleSlope is 0"),
        (INTERCEPT, "-1024", "-1e999", "RescaleIntercept is no finite number"),
    ] {
        let all = files(&series);
        // In every slice, and then in one alone.
        for some in [&all[..], &all[30..31]] {
            some.iter().for_each(|file| rewrite(file, tag, wrong));
            let finding = decisive(&series, &out);
            assert_eq!(finding["code"], "not_hu", "{wrong}: {finding}");
            assert!(
                finding["sentence"].as_str().unwrap().contains(told),
                "{wrong}: {finding}"
            );
            some.iter().for_each(|file| rewrite(file, tag, good));
        }
    }
    let inspected = hilum(&["inspect", series.to_str().unwrap()]);
    ends_with(&inspected, 0);
}

#[test]
fn jpeg_extended_is_refused_by_name_and_says_what_to_send() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    for file in files(&series) {
        let bytes = fs::read(&file).unwrap();
        let at = |tag: [u8; 4]| bytes.windows(4).position(|window| window == tag).unwrap();
        // The meta group ends where its length says; the pixels become a fragment with the first bytes of a JPEG (SOI, SOF1 of 12 bits).
        let group = 144 + u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        let pixels = at([0xE0, 0x7F, 0x10, 0x00]);
        let jpeg: [u8; 17] = [
            0xFF, 0xD8, 0xFF, 0xC1, 0, 11, 12, 0, 192, 0, 192, 1, 1, 0x11, 0, 0xFF, 0xD9,
        ];
        let new = [
            meta("1.2.840.10008.1.2.4.51"),
            bytes[group..pixels].to_vec(),
            encapsulated(&[&jpeg]),
        ];
        fs::write(&file, new.concat()).unwrap();
    }
    let finding = decisive(&series, &folder.path().join("out"));
    assert_eq!(finding["code"], "unsupported_transfer_syntax", "{finding}");
    let sentence = finding["sentence"].as_str().unwrap();
    for part in [
        "60 slices in JPEG Extended",
        "1.2.840.10008.1.2.4.51",
        "Send the series uncompressed",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
    let inspected = hilum(&["inspect", series.to_str().unwrap()]);
    ends_with(&inspected, 3);
    assert!(text(&inspected.stdout).contains("unsupported_transfer_syntax"));
}

#[test]
fn what_only_looks_like_dicom_is_counted_and_named_and_makes_no_series() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    // A preamble, and then a first element that stands behind all pixel data.
    let look_alike = [&[0; 128][..], b"DICM", &[0xF1; 400]].concat();
    fs::write(series.join("look_alike.dcm"), look_alike).unwrap();
    fs::write(series.join("words.txt"), "This folder holds one CT series.").unwrap();
    let output = hilum(&["inspect", series.to_str().unwrap(), "--json", "-v"]);
    ends_with(&output, 0);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["series"].as_array().unwrap().len(), 1, "{printed:#}");
    assert_eq!(printed["passed_over"], 2);
    for name in ["look_alike.dcm: not DICOM", "words.txt: not DICOM"] {
        assert!(text(&output.stderr).contains(name), "{name}: {}", text(&output.stderr));
    }
}

#[test]
fn a_slice_cut_inside_its_header_is_named_and_noted_without_being_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let last = names(&series).pop().unwrap();
    let bytes = fs::read(series.join(&last)).unwrap();
    fs::write(series.join(&last), &bytes[..500]).unwrap();
    fs::write(series.join("words.txt"), "This folder holds one CT series.").unwrap();
    let out = folder.path().join("out");
    for output in [
        hilum(&["inspect", series.to_str().unwrap(), "--json"]),
        segment(&series, &out, &["--json", "--quiet"]),
    ] {
        ends_with(&output, 0);
        let error = text(&output.stderr);
        assert!(error.contains(&format!("{last}: damaged header (")), "{error}");
        assert!(!error.contains("words.txt"), "{error}");
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["passed_over"], 1);
        let unreadable = printed["unreadable"].as_array().unwrap();
        assert_eq!(unreadable.len(), 1, "{printed:#}");
        assert!(unreadable[0]["path"].as_str().unwrap().ends_with(&last));
        let verdict = &printed["series"][0]["verdict"];
        assert_eq!(verdict["outcome"], "accepted");
        assert_eq!(verdict["findings"][0]["code"], "files_unreadable", "{verdict:#}");
    }
}

/// The series of an abdomen, 300 mm below the lungs.
fn abdomen(folder: &Path) -> PathBuf {
    let specification = r#"{"seed": 3, "spacing_mm": [2.0, 2.0, 5.0], "matrix": [192, 192], "slices": 12, "centre_mm": [0.0, 0.0, -330.0]}"#;
    let file = folder.join("abdomen.json");
    fs::write(&file, specification).unwrap();
    let made = folder.join("abdomen");
    let arguments = [
        "phantom",
        "--specification",
        file.to_str().unwrap(),
        "--out",
        made.to_str().unwrap(),
    ];
    ends_with(&hilum(&arguments), 0);
    made.join("ct")
}

#[test]
fn air_without_lungs_gives_no_segmentation_but_a_picture_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let series = abdomen(folder.path());
    let out = folder.path().join("out");
    let output = segment(&series, &out, &["--json"]);
    ends_with(&output, 0);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        printed["series"][0]["mask_findings"][0]["code"], "lungs_not_found",
        "{printed:#}"
    );
    assert_eq!(names(&result(&out)), ["overlay.png", "report.json"]);
}

#[test]
fn in_real_heads_and_necks_the_default_network_finds_no_lungs() {
    let Some(data) = std::env::var_os("HILUM_TEST_DATA").map(PathBuf::from) else {
        assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_DATA is not set");
        println!("skipped: HILUM_TEST_DATA is not set, so there are no heads");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "odd/head_ct_ge_tilt_uneven",
        "odd/head_phantom_philips_tilt",
        "odd/neck_no_lungs",
        "train/lungfcp_01_0006_b50f_2mm_neck_no_lung/ct",
    ] {
        let out = folder.path().join(name);
        let more = ["--json", "--format", "seg,json", "--model", "hilum-ahnet-lung"];
        let output = segment(&data.join(name), &out, &more);
        ends_with(&output, 0);
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let series = &printed["series"][0];
        assert_ne!(series["verdict"]["outcome"], "refused", "{name}");
        assert_eq!(
            series["mask_findings"][0]["code"], "lungs_not_found",
            "{name}: {:#}",
            series["mask_findings"]
        );
        assert_eq!(names(&result(&out)), ["report.json"], "{name}");
    }
}

#[test]
fn usage_is_2_and_a_model_that_is_not_there_is_1_and_named() {
    ends_with(&hilum(&["segment"]), 2);
    ends_with(&hilum(&["segment", ".", "--out", "x", "--device", "abacus"]), 2);
    ends_with(&hilum(&["segment", ".", "--out", "x", "--overlap", "1.5"]), 2);
    ends_with(&hilum(&["evaluate", "a.nii", "b.nii", "c.nii"]), 2);
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let output = segment(&series, &folder.path().join("out"), &["--model", "nobody"]);
    ends_with(&output, 1);
    assert!(
        text(&output.stderr).contains("hilum-ahnet-lung"),
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
    let mut child = segmenting(&[&series], &out, &["--overlap", "0.9", "--crop", "off"])
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

/// As a terminal does it: the signal reaches every process of the group.
#[test]
fn a_ctrl_c_while_compressed_pixels_are_read_is_not_taken_for_broken_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &["--transfer-syntax", "jpeg_ls"]);
    let out = folder.path().join("out");
    for milliseconds in [20, 60, 100, 140, 180, 220, 260, 300] {
        let child = segmenting(&[&series], &out, &["--format", "json"])
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        Command::new("kill")
            .args(["-INT", "--", &format!("-{}", child.id())])
            .status()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        // Before the handler stands the signal ends the process; afterwards it is a cancel.
        assert!(
            matches!(output.status.code(), None | Some(1)),
            "{:?}: {}",
            output.status,
            text(&output.stderr)
        );
        assert!(!out.exists(), "nothing is refused, nothing written");
    }
}

/// `hilum check --json` with a configuration; its points by name.
fn check(folder: &Path, configuration: &str) -> (Output, serde_json::Map<String, Value>) {
    let file = folder.join("hilum.toml");
    fs::write(&file, configuration).unwrap();
    let output = hilum(&["--config", file.to_str().unwrap(), "check", "--device", "cpu", "--json"]);
    let printed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}\n{}", text(&output.stdout), text(&output.stderr));
    });
    let points = printed
        .into_iter()
        .map(|point| (point["what"].as_str().unwrap().to_owned(), point));
    (output, points.collect())
}

/// A port of this machine on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A PACS that lists nothing and answers one question.
fn empty_pacs() -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut block = [0; 4096];
        while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut block).unwrap();
            assert!(read > 0, "the question breaks off");
            asked.extend_from_slice(&block[..read]);
        }
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/dicom+json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
        stream.write_all(answer.as_bytes()).unwrap();
        text(&asked)
    });
    (port, answering)
}

#[test]
fn check_takes_a_phantom_the_whole_way_and_says_how_long_each_part_took() {
    let folder = tempfile::tempdir().unwrap();
    let (pacs, answering) = empty_pacs();
    let configuration = format!(
        "[service]\nlisten = \"127.0.0.1:{}\"\n[[pacs]]\nname = \"archive\"\nurl = \"http://127.0.0.1:{pacs}/dicom-web\"\n",
        free_port()
    );
    let (output, points) = check(folder.path(), &configuration);
    ends_with(&output, 0);
    let phantom = &points["a phantom end to end"];
    assert_eq!(phantom["health"], "ok", "{phantom}");
    let seen = phantom["seen"].as_str().unwrap();
    for part in [
        "60 compressed slices",
        "segmentation.dcm",
        "ct.nii.gz",
        "Dice 0.",
        "CPUExecutionProvider",
        "windows",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(phantom["seconds"].as_f64().unwrap() > 0.0, "{phantom}");
    assert!(
        points
            .iter()
            .any(|(what, point)| what.starts_with("service at") && point["health"] == "absent"),
        "{points:?}"
    );
    let archive = &points["PACS archive"];
    assert_eq!(archive["health"], "ok", "{archive}");
    let asked = answering.join().unwrap();
    assert!(
        asked.starts_with("GET /dicom-web/series?") && asked.contains("Modality=CT"),
        "{asked}"
    );
}

#[test]
fn check_without_its_network_names_those_that_are_there_and_looks_at_the_rest() {
    let output = hilum(&["check", "--model", "nobody", "--json"]);
    ends_with(&output, 1);
    let printed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed[0]["what"], "manifest");
    assert_eq!(printed[0]["health"], "problem");
    assert!(
        printed[0]["seen"].as_str().unwrap().contains("hilum-ahnet-lung-tiny"),
        "{}",
        printed[0]
    );
    assert!(printed.iter().any(|point| point["what"] == "database"), "{printed:?}");
}

#[test]
fn check_fails_with_what_to_do_where_the_phantom_is_refused_or_a_pacs_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[series]\nmin_slices = 100\n[service]\nlisten = \"127.0.0.1:{}\"\n[[pacs]]\nname = \"archive\"\nurl = \"http://127.0.0.1:{}/dicom-web\"\n",
        free_port(),
        free_port()
    );
    let (output, points) = check(folder.path(), &configuration);
    ends_with(&output, 1);
    for (what, seen, to_do) in [
        ("a phantom end to end", "too_few_slices", "[series]"),
        ("PACS archive", "no connection", "start it"),
    ] {
        let point = &points[what];
        assert_eq!(point["health"], "problem", "{point}");
        assert!(point["seen"].as_str().unwrap().contains(seen), "{point}");
        assert!(point["to_do"].as_str().unwrap().contains(to_do), "{point}");
    }
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
