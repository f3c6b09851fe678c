//! What the options of `hilum segment` do: the reference's way, segments and frames, decoders in place, and files that appear whole or not at all.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use serde_json::Value;

use super::{TINY, ends_with, hilum, names, phantom, result, segment, segmenting, text};

/// Thick slices: windows are few.
const THICK: [&str; 6] = ["--slices", "30", "--spacing", "1.8", "1.8", "10"];

/// The report of a run, with the small network if no other is named, and the file of its mask.
fn run(series: &Path, out: &Path, more: &[&str]) -> (Value, PathBuf) {
    let model: &[&str] = if more.contains(&"--model") {
        &[]
    } else {
        &["--model", TINY]
    };
    ends_with(&segment(series, out, &[model, more].concat()), 0);
    let report = fs::read(result(out).join("report.json")).unwrap();
    (
        serde_json::from_slice(&report).unwrap(),
        result(out).join("mask.nii.gz"),
    )
}

#[test]
fn windows_without_body_are_left_out_and_counted_unless_skipping_is_off() {
    let folder = tempfile::tempdir().unwrap();
    // A table of 77 cm: half of it is air beside the patient.
    let series = phantom(folder.path(), &["--slices", "30", "--spacing", "4", "4", "10"]);
    let run = |name: &str, more: &[&str]| {
        let more = [&["--format", "nifti,json", "--crop", "off", "--overlap", "0"], more].concat();
        let (report, mask) = run(&series, &folder.path().join(name), &more);
        let count = |what: &str| report["windows"][what].as_u64().unwrap();
        (
            [count("total"), count("run"), count("skipped")],
            fs::read(mask).unwrap(),
        )
    };
    let ([total, some, skipped], mask) = run("on", &[]);
    assert!(some > 0 && skipped > 0, "{some} of {total} were run");
    let ([all, every, none], of_all) = run("off", &["--skip", "off"]);
    assert_eq!([all, every, none], [total, total, 0]);
    assert!(mask == of_all, "what was left out has no lung");
}

/// The options of the command line that take one deviation back to what MONAI does, and thresholds of the manifest's own, end in the parameters of the report and in the mask.
#[test]
fn each_option_of_the_reference_stands_in_the_report_and_changes_the_mask() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &THICK);
    // The same network by manifests of its own.
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx");
    let own = |name: &str, line: &str, instead: &str| {
        let own = folder.path().join(format!("{name} model"));
        fs::create_dir(&own).unwrap();
        for name in names(&models).iter().filter(|name| name.starts_with(TINY)) {
            fs::copy(models.join(name), own.join(name)).unwrap();
        }
        let path = own.join(format!("{TINY}.toml"));
        let manifest = fs::read_to_string(&path).unwrap();
        assert_eq!(manifest.matches(line).count(), 1);
        fs::write(&path, manifest.replace(line, instead)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let strict = own("strict", "\nthreshold = 0.5\n", "\nthreshold = 0.9\n");
    let aerated = own("aerated", "\n[post]\n", "\n[post]\naerated_threshold = 0.05\n");

    let mut masks = BTreeSet::new();
    let mut run = |name: &str, more: &[&str], key: &str, expected: Value| {
        let (report, mask) = run(
            &series,
            &folder.path().join(name),
            &[&["--format", "nifti,json"], more].concat(),
        );
        let parameters = &report["model"]["parameters"];
        assert_eq!(parameters.pointer(key), Some(&expected), "{name}: {parameters:#}");
        assert!(masks.insert(fs::read(mask).unwrap()), "{name}: the same mask");
        report["boundary"]["doubtful_ml"].as_f64().unwrap()
    };
    let off = |option| [option, "off"];
    let without = run("default", &[], "/post/mask_back", "probability".into());
    run("label", &["--mask-back", "label"], "/post/mask_back", "label".into());
    run("blend", &["--blend", "gaussian"], "/blend", "gaussian".into());
    run("crop", &off("--crop"), "/crop_to_body", false.into());
    run("clean", &off("--clean"), "/post/keep_components", 0.into());
    run("boundary", &off("--boundary"), "/post/boundary_mm", 0.0.into());
    run("threshold", &["--model", &strict], "/threshold", 0.9.into());
    let with = run(
        "aerated",
        &["--model", &aerated],
        "/post/aerated_threshold",
        0.05.into(),
    );
    assert!(without == 0.0 && with > 1.0, "{without} mL, {with} mL");
}

/// A decoder of its own that may take no memory refuses every slice; in place there is none that could.
#[test]
fn trusted_input_is_decoded_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[&THICK[..], &["--transfer-syntax", "jpeg_ls"]].concat());
    let configuration = |name: &str, more: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("[decoder]\nmemory_bytes = 1048576\n{more}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (tight, trusting) = (
        configuration("tight.toml", ""),
        configuration("trusting.toml", "trust_input = true\n"),
    );
    for (file, more, code) in [
        (&tight, &[][..], 3),
        (&tight, &["--trust-input"], 0),
        (&trusting, &[], 0),
    ] {
        let fixed = ["--format", "json", "--model", TINY, "--overlap", "0", "--config", file];
        let output = segment(&series, &folder.path().join("out"), &[&fixed, more].concat());
        ends_with(&output, code);
    }
}

fn segmentation(out: &Path) -> DefaultDicomObject {
    dicom_object::open_file(result(out).join("segmentation.dcm")).unwrap()
}

fn labels(object: &DefaultDicomObject) -> Vec<String> {
    let segments = object.element(tags::SEGMENT_SEQUENCE).unwrap().items().unwrap();
    let label = |segment: &dicom_object::InMemDicomObject| {
        let element = segment.element(tags::SEGMENT_LABEL).unwrap();
        element.to_str().unwrap().trim().to_owned()
    };
    segments.iter().map(label).collect()
}

fn frames(object: &DefaultDicomObject) -> usize {
    object.element(tags::NUMBER_OF_FRAMES).unwrap().to_int().unwrap()
}

#[test]
fn segments_and_frames_are_those_that_were_asked_for() {
    const SLICES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    // Higher than the lungs: the outermost slices hold none.
    let series = phantom(folder.path(), &["--slices", "40", "--spacing", "1.8", "1.8", "12"]);
    let made = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let fixed = ["--format", "seg", "--model", TINY, "--overlap", "0"];
        ends_with(&segment(&series, &out, &[&fixed, more].concat()), 0);
        segmentation(&out)
    };
    let whole = made("default", &[]);
    assert_eq!((labels(&whole), frames(&whole)), (vec!["Lung".to_owned()], SLICES));
    let apart = made("apart", &["--segments", "left-right"]);
    assert_eq!(labels(&apart), ["Right lung", "Left lung"]);
    assert_eq!(frames(&apart), 2 * SLICES);
    let sparse = made("sparse", &["--frames", "sparse"]);
    assert_eq!(labels(&sparse), ["Lung"]);
    assert!((1..SLICES).contains(&frames(&sparse)), "{} frames", frames(&sparse));
}

#[test]
fn a_path_that_is_not_there_is_told_once() {
    let output = hilum(&["inspect", "/nonexistent/ct"]);
    ends_with(&output, 1);
    assert_eq!(
        text(&output.stderr),
        "hilum: /nonexistent/ct: No such file or directory (os error 2)\n"
    );
}

/// `hilum segment` that may write no file of more than so many bytes, as on a full disk.
fn limited(bytes: usize, series: &Path, out: &Path, more: &[&str]) -> std::process::Output {
    let mut segmenting = segmenting(&[series], out, more);
    let program = std::mem::replace(&mut segmenting, Command::new("sh"));
    segmenting
        .args(["-c", "trap '' XFSZ; exec prlimit --fsize=\"$0\" \"$@\""])
        .arg(bytes.to_string())
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

#[test]
fn a_result_that_cannot_be_written_to_its_end_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &THICK);
    let out = folder.path().join("out");
    let more = ["--format", "ct,json", "--model", TINY, "--overlap", "0"];
    ends_with(&segment(&series, &out, &more), 0);
    let large = result(&out).join("ct.nii.gz");
    assert!(fs::metadata(&large).unwrap().len() > 1_000_000);
    fs::write(&large, "of an earlier run").unwrap();
    let output = limited(900_000, &series, &out, &more);
    ends_with(&output, 1);
    let said = text(&output.stderr);
    assert!(said.contains("ct.nii.gz: File too large"), "{said}");
    assert_eq!(fs::read_to_string(&large).unwrap(), "of an earlier run");
    assert_eq!(
        names(&result(&out)),
        ["ct.nii.gz"],
        "no report stands beside what it does not name"
    );

    // Not even ONNX Runtime's own notes fit: that is no lack of ONNX Runtime.
    let output = limited(3_000, &series, &out, &more);
    ends_with(&output, 1);
    let said = text(&output.stderr);
    assert!(said.contains("free some space there"), "{said}");
    assert!(!said.contains("make setup"), "{said}");
}

/// Whether a result is what its name says, to its end.
fn is_whole(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    match path.file_name().unwrap().to_str().unwrap() {
        "report.json" => serde_json::from_slice::<Value>(&bytes).is_ok(),
        "segmentation.dcm" => dicom_object::from_reader(bytes.as_slice()).is_ok(),
        "overlay.png" => bytes.starts_with(b"\x89PNG") && bytes.ends_with(b"IEND\xAE\x42\x60\x82"),
        name if name.ends_with(".nii.gz") => flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_end(&mut Vec::new())
            .is_ok(),
        name => panic!("{name} is no result"),
    }
}

#[test]
fn a_ctrl_c_while_results_are_made_or_written_leaves_whole_files_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &THICK);
    let results = [
        "ct.nii.gz",
        "mask.nii.gz",
        "overlay.png",
        "report.json",
        "segmentation.dcm",
    ];
    for (number, (stage, milliseconds)) in [
        ("cleaning up", 0),
        ("making the results", 0),
        ("making the results", 150),
        ("making the results", 600),
        ("making the results", 1200),
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(number.to_string());
        let more = [
            "-v",
            "--format",
            "seg,nifti,png,json,ct",
            "--model",
            TINY,
            "--overlap",
            "0",
        ];
        let mut child = segmenting(&[&series], &out, &more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(stage)), "{stage}");
        std::thread::sleep(Duration::from_millis(milliseconds));
        // It may be done already: then there is nothing that the signal could reach.
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).output();
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        let status = child.wait().unwrap();
        let there = if out.exists() { names(&result(&out)) } else { Vec::new() };
        match status.code() {
            Some(0) => assert_eq!(there, results, "{stage}, {milliseconds} ms"),
            Some(1) => assert!(said.iter().any(|line| line.contains("canceled")), "{said:?}"),
            code => panic!("{stage}, {milliseconds} ms: {code:?}, {said:?}"),
        }
        for name in &there {
            assert!(results.contains(&name.as_str()), "{name} is no result");
            assert!(is_whole(&result(&out).join(name)), "{name}");
        }
    }
}
