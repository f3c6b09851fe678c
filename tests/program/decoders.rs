//! Decoders that die while a series is segmented: they cost that series a finding, never the process, and never the next series.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ends_with, files, phantom, result, segment, segmenting, text};

const SLICES: usize = 60;

/// Two chests: one whose pixels a decoder has to read, and one without need of any.
fn two(folder: &Path) -> [PathBuf; 2] {
    let coded = phantom(&folder.join("coded"), &["--transfer-syntax", "jpeg_ls"]);
    let plain = phantom(
        &folder.join("plain"),
        &["--slices", "30", "--spacing", "1.8", "1.8", "10"],
    );
    [coded, plain]
}

/// What `inspect` and `segment` print of the series with this many instances.
fn of(printed: &Value, instances: usize) -> &Value {
    let all = printed["series"].as_array().unwrap();
    let found = all.iter().find(|one| one["series"]["instances"] == instances);
    found.unwrap_or_else(|| panic!("no series of {instances}: {printed:#}"))
}

#[test]
fn decoders_that_abort_or_run_out_of_time_refuse_their_series_and_the_next_is_segmented() {
    let folder = tempfile::tempdir().unwrap();
    let [coded, plain] = two(folder.path());
    for (limit, told) in [
        // Less than the program takes by itself: the first memory that the decoder asks for is refused, and it aborts.
        (
            "memory_bytes = 1048576",
            "the decoder ended without an answer (signal 6)",
        ),
        ("seconds_per_frame = 0.000001", "decoding took longer than 0.000001 s"),
    ] {
        let configuration = folder.path().join("hilum.toml");
        fs::write(&configuration, format!("[decoder]\n{limit}\n")).unwrap();
        let out = folder.path().join("out");
        let more = [
            "--format",
            "json",
            "--json",
            "--config",
            configuration.to_str().unwrap(),
        ];
        let output = segmenting(&[&coded, &plain], &out, &more).output().unwrap();
        ends_with(&output, 0);
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let refused = &of(&printed, SLICES)["verdict"];
        assert_eq!(refused["outcome"], "refused", "{limit}: {refused:#}");
        let finding = &refused["findings"][0];
        assert_eq!(finding["code"], "corrupt_pixels", "{limit}: {finding:#}");
        let about = finding["concerns"].as_array().unwrap();
        // "The pixels of 58 of 60 files ...": a decoder may answer before anybody looks at the clock.
        let sentence = finding["sentence"].as_str().unwrap();
        assert!(sentence.contains(&format!("of {SLICES} files")), "{limit}: {sentence}");
        let failed: usize = sentence.split(' ').nth(3).unwrap().parse().unwrap();
        assert!(2 * failed > SLICES, "{limit}: {sentence}");
        assert!(
            about.iter().all(|line| line.as_str().unwrap().contains(told)),
            "{limit}: {about:?}"
        );
        assert_ne!(of(&printed, 30)["verdict"]["outcome"], "refused", "{limit}");
    }
}

/// Takes the beginning off the compressed image of a slice in JPEG-LS.
fn break_pixels(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    // Start of image, then the next marker.
    let at = bytes.windows(3).position(|three| three == [0xFF, 0xD8, 0xFF]).unwrap();
    bytes[at + 1] = 0;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_broken_slice_is_named_by_its_file_and_no_folder_above_it_stands_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(&folder.path().join("DOE_JOHN"), &["--transfer-syntax", "jpeg_ls"]);
    let broken = files(&series)[19].clone();
    break_pixels(&broken);
    let out = folder.path().join("out");
    let told = || {
        let output = segment(&series, &out, &["--json"]);
        ends_with(&output, 3);
        let report = fs::read_to_string(result(&out).join("report.json")).unwrap();
        for said in [&report, &text(&output.stdout)] {
            assert!(!said.contains("DOE_JOHN"), "{said}");
        }
        let report: Value = serde_json::from_str(&report).unwrap();
        report["verdict"]["findings"][0].clone()
    };
    let finding = told();
    assert_eq!(finding["code"], "corrupt_pixels", "{finding:#}");
    let concerns = finding["concerns"].as_array().unwrap();
    assert_eq!(concerns.len(), 1, "{finding:#}");
    assert!(
        concerns[0]
            .as_str()
            .unwrap()
            .starts_with("IM0020.dcm: corrupt pixel data ("),
        "{finding:#}"
    );
    let sentence = finding["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("1 of 60 files") && sentence.contains("(the first: IM0020.dcm: "),
        "{sentence}"
    );

    // Two slices at one place are read to be compared, before the others.
    fs::copy(&broken, series.join("copy.dcm")).unwrap();
    let finding = told();
    assert_eq!(finding["code"], "corrupt_pixels", "{finding:#}");
    let concerns = finding["concerns"].as_array().unwrap().iter();
    let named: Vec<&str> = concerns
        .map(|one| one.as_str().unwrap().split(": ").next().unwrap())
        .collect();
    assert_eq!(named, ["IM0020.dcm", "copy.dcm"], "{finding:#}");
}

/// The decoders that a process has started and that live.
fn decoders(parent: &Child) -> Vec<u32> {
    let of_ours = |pid: &u32| {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // After the name in brackets: the state, then the parent.
        let parents = read("stat")
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        parents == Some(parent.id()) && read("cmdline").split('\0').any(|word| word == "decode-frames")
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(of_ours)
        .collect()
}

#[test]
fn decoders_that_somebody_kills_refuse_their_series_and_the_next_is_segmented() {
    let folder = tempfile::tempdir().unwrap();
    let [coded, plain] = two(folder.path());
    let out = folder.path().join("out");
    let begun = Instant::now();
    let child = segmenting(&[&coded, &plain], &out, &["--format", "json", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The moment that it starts, a decoder has its first frame before it: one that is seen is at work.
    let mut killed = HashSet::new();
    while killed.len() < 3 && begun.elapsed() < Duration::from_secs(60) {
        for pid in decoders(&child) {
            if killed.insert(pid) {
                let ended = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
                assert!(ended.success());
            }
        }
    }
    assert!(killed.len() >= 3, "no decoders were seen");
    let output = child.wait_with_output().unwrap();
    ends_with(&output, 0);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &of(&printed, SLICES)["verdict"]["findings"][0];
    assert_eq!(finding["code"], "corrupt_pixels", "{printed:#}");
    let about = finding["concerns"].as_array().unwrap();
    assert!(
        (1..SLICES).contains(&about.len()),
        "those alone that were killed: {about:?}"
    );
    assert!(
        about.iter().all(|line| line.as_str().unwrap().contains("signal 9")),
        "{about:?}"
    );
    assert_ne!(
        of(&printed, 30)["verdict"]["outcome"],
        "refused",
        "{}",
        text(&output.stderr)
    );
}
