//! Decoders that die while a series is segmented: they cost that series a finding where it is to blame, else an error, and never the process or the next series.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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
fn decoders_that_abort_refuse_their_series_and_the_next_is_segmented() {
    let folder = tempfile::tempdir().unwrap();
    let [coded, plain] = two(folder.path());
    let configuration = folder.path().join("hilum.toml");
    // Less than the program takes by itself: the first memory that the decoder asks for is refused, and it aborts.
    fs::write(&configuration, "[decoder]\nmemory_bytes = 1048576\n").unwrap();
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
    assert_eq!(refused["outcome"], "refused", "{refused:#}");
    let finding = &refused["findings"][0];
    assert_eq!(finding["code"], "corrupt_pixels", "{finding:#}");
    let sentence = finding["sentence"].as_str().unwrap();
    assert!(sentence.contains(&format!("{SLICES} of {SLICES} slices")), "{sentence}");
    let told = "the decoder ended without an answer (signal 6)";
    let about = finding["concerns"].as_array().unwrap();
    assert!(
        about.iter().all(|line| line.as_str().unwrap().contains(told)),
        "{about:?}"
    );
    assert_ne!(of(&printed, 30)["verdict"]["outcome"], "refused");
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
        sentence.contains("1 of 60 slices") && sentence.contains("(the first: IM0020.dcm: "),
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

/// Segments two chests, the first of which needs decoders; `meanwhile` is given the program as soon as one is at work.
fn with_decoders_at_work(folder: &Path, more: &[&str], meanwhile: impl FnOnce(&Child)) -> Output {
    let [coded, plain] = two(folder);
    let out = folder.join("out");
    let more = [&["--format", "json", "--json"][..], more].concat();
    let child = segmenting(&[&coded, &plain], &out, &more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The moment that it starts, a decoder has its first frame before it: one that is seen is at work.
    let begun = Instant::now();
    while decoders(&child).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no decoders were seen");
    }
    meanwhile(&child);
    child.wait_with_output().unwrap()
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "{name} {pid}");
}

#[test]
fn decoders_that_somebody_kills_refuse_nothing_and_the_next_series_is_segmented() {
    let folder = tempfile::tempdir().unwrap();
    let output = with_decoders_at_work(folder.path(), &[], |child| {
        // Those that take their places as well.
        let (mut killed, begun) = (Vec::new(), Instant::now());
        while killed.len() < 4 && begun.elapsed() < Duration::from_secs(20) {
            for pid in decoders(child) {
                if !killed.contains(&pid) {
                    signal("-KILL", pid);
                    killed.push(pid);
                }
            }
        }
    });
    ends_with(&output, 1);
    let said = text(&output.stderr);
    assert!(
        said.contains("ended from outside (signal 9)") && said.contains("try again"),
        "{said}"
    );
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = printed["series"].as_array().unwrap();
    assert!(
        all.iter().all(|one| one["verdict"]["outcome"] != "refused"),
        "{printed:#}"
    );
    assert_ne!(of(&printed, 30)["verdict"]["outcome"], "refused", "{said}");
}

#[test]
fn a_program_that_is_paused_for_longer_than_a_frame_may_take_goes_on_with_its_series() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("hilum.toml");
    // One second of processor time, eight by the clock.
    fs::write(&configuration, "[decoder]\nseconds_per_frame = 1.0\n").unwrap();
    let more = ["--config", configuration.to_str().unwrap()];
    let output = with_decoders_at_work(folder.path(), &more, |child| {
        signal("-STOP", child.id());
        let stopped = decoders(child);
        stopped.iter().for_each(|pid| signal("-STOP", *pid));
        std::thread::sleep(Duration::from_secs(12));
        // The decoders last: all the time until then they are late.
        signal("-CONT", child.id());
        std::thread::sleep(Duration::from_secs(1));
        // One that was about to end when it was seen is gone by now.
        for pid in stopped {
            let _ = Command::new("kill").args(["-CONT", &pid.to_string()]).status();
        }
    });
    ends_with(&output, 0);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    for instances in [SLICES, 30] {
        let verdict = &of(&printed, instances)["verdict"];
        assert_ne!(verdict["outcome"], "refused", "{verdict:#}");
    }
}
