//! What the tests of `output` share: real series with their masks, and other people's programs.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use hilum::dicom::{DecodeOptions, FrameReader, Limits, discover};
use hilum::output::{Frames, ModelIdentity, SegmentDescription, SegmentationRequest, read_back};
use hilum::series::{Judgement, Series, SeriesLimits, Stack, group, judge};
use hilum::volume::{Grid, Mask, SeriesFrames, Volume, load};

/// The real series, or `None` with a line that says so.
pub fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("HILUM_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        missing("skipped: HILUM_TEST_DATA does not name the folder of real series");
    }
    folder
}

/// Whether a program can be run; if not, a line that says so, and in CI a failure: `scripts/setup.sh tests` brings them all.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        missing(&format!("not checked with {program}: it is not installed"));
    }
    found
}

/// The Python that has highdicom, SimpleITK and dcmqi, or `None` with a line that says so, and in CI a failure.
pub fn python() -> Option<PathBuf> {
    let python = std::env::var_os("HILUM_TEST_PYTHON").map(PathBuf::from);
    if python.is_none() {
        missing("not checked with highdicom and dcmqi: HILUM_TEST_PYTHON does not name a Python that has them");
    }
    python
}

fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what}");
    println!("{what}");
}

/// The one series in a folder, and its stack.
pub fn series(folder: &Path) -> (Series, Stack) {
    let found = discover(&[folder.to_owned()], &Limits::default()).expect("the folder can be read");
    let mut series = group(found.instances);
    assert_eq!(series.len(), 1, "{}", folder.display());
    let series = series.remove(0);
    let stack = match judge(&series, &SeriesLimits::default()) {
        Judgement::Usable(candidate) => candidate.stack().clone(),
        Judgement::Refused(verdict) => panic!("{}: {verdict:?}", folder.display()),
    };
    (series, stack)
}

/// A mask from a NIfTI-1 file of bytes, whose slices stand in the order of the stack.
pub fn mask(path: &Path, stack: &Stack) -> Mask {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).expect("mask"))
        .read_to_end(&mut bytes)
        .expect("gzip");
    let short = |at: usize| i16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let shape = [short(46), short(44), short(42)].map(|n| n as usize);
    assert_eq!(
        shape,
        [stack.slices.len(), stack.rows, stack.columns],
        "{}",
        path.display()
    );
    assert_eq!(short(70), 2, "unsigned bytes");
    let offset = f32::from_le_bytes(bytes[108..112].try_into().unwrap()) as usize;
    Mask {
        shape,
        labels: bytes[offset..].to_vec(),
    }
}

/// The grid of a stack.
pub fn grid(stack: &Stack) -> Grid {
    Grid::from_stack(stack)
}

/// Right and left lung, full frames, not deflated.
pub fn request<'a>(series: &'a Series, stack: &'a Stack, mask: &'a Mask) -> SegmentationRequest<'a> {
    SegmentationRequest {
        series,
        stack,
        mask,
        segments: vec![SegmentDescription::right_lung(1), SegmentDescription::left_lung(2)],
        frames: Frames::Full,
        deflated: false,
        series_number: 366,
        series_description: "Hilum lungs".to_owned(),
        content_description: hilum::output::segmentation::content_description(&[]),
        model: ModelIdentity {
            name: "silver".to_owned(),
            version: "1".to_owned(),
            digest: "0123456789abcdef".repeat(4),
            parameters: "threshold 0.5".to_owned(),
        },
    }
}

/// Lines of a validator that begin with one of the words, without what names the file.
pub fn complaints(program: &str, files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(files).output().expect("it is installed");
    let all = [output.stdout, output.stderr].concat();
    let mut lines: Vec<String> = String::from_utf8_lossy(&all)
        .lines()
        .filter(|line| words.iter().any(|word| line.starts_with(word)))
        .map(|line| line.split(" for file ").next().unwrap_or(line).to_owned())
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

/// All files in a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// The volume of a stack in HU.
pub fn volume(series: &Series, stack: &Stack) -> Volume {
    let options = DecodeOptions {
        trust_input: true,
        ..DecodeOptions::default()
    };
    let frames = SeriesFrames {
        reader: &FrameReader::new(options),
        instances: &series.instances,
    };
    load(stack, &series.instances, &frames).expect("a volume").volume
}

/// Writes the object and holds it against the validators and readers that are installed.
pub fn hold(bytes: &[u8], request: &SegmentationRequest, ct: &Path, name: &str) {
    read_back::verify(bytes, request, &grid(request.stack)).expect("reads back");
    let folder = tempfile::tempdir().expect("a folder");
    let mut path = folder.path().join(format!("{name}.dcm"));
    std::fs::write(&path, bytes).expect("written");
    if request.deflated {
        // dicom3tools cannot inflate.
        if !has("dcmconv") {
            return;
        }
        let inflated = folder.path().join("inflated.dcm");
        assert!(
            Command::new("dcmconv")
                .arg("+te")
                .args([&path, &inflated])
                .status()
                .expect("dcmconv")
                .success()
        );
        path = inflated;
    }
    if has("dciodvfy") {
        // What the source says of patient and study is copied as it is, with its faults.
        let source = complaints("dciodvfy", &files(ct)[..1], &["Error", "Warning"]);
        // Real series have no such errors, so that none is forgiven there.
        let of_a_patient = std::env::var_os("HILUM_TEST_DATA").is_some_and(|data| ct.starts_with(data));
        let copied = |line: &str| {
            if of_a_patient {
                return line.starts_with("Warning");
            }
            line.starts_with("Warning")
                || line.contains("Value invalid for this VR")
                || line.contains("invalid data values for Value Representations")
                || ["Patient", "PatientStudy", "GeneralStudy"]
                    .iter()
                    .any(|module| line.contains(&format!("Module=<{module}>")))
        };
        let found = complaints("dciodvfy", std::slice::from_ref(&path), &["Error", "Warning"]);
        let ours: Vec<&String> = found
            .iter()
            .filter(|line| !(line.contains("to build DICOMDIR") || source.contains(line) && copied(line)))
            .collect();
        assert_eq!(ours, Vec::<&String>::new(), "dciodvfy, {name}");
    }
    if has("dcentvfy") {
        let alone = complaints("dcentvfy", &files(ct), &["Error", "Warning"]);
        let mut both = files(ct);
        both.push(path.clone());
        let with = complaints("dcentvfy", &both, &["Error", "Warning"]);
        // A trial whose subject the source does not tell is left out, and is then in the source alone.
        let left_out = |line: &str| {
            let trial = "Warning - Attribute present in one instance but not the other - Element=<ClinicalTrial";
            let first = &request.series.instances[request.stack.slices[0].instance];
            line.starts_with(trial) && !first.header.identity.iter().any(|element| element.tag == (0x12, 0x10))
        };
        let new: Vec<&String> = with
            .iter()
            .filter(|line| !alone.contains(line) && !left_out(line))
            .collect();
        assert_eq!(new, Vec::<&String>::new(), "dcentvfy, {name}");
    }
    if let Some(python) = python() {
        let labels = folder.path().join("labels.raw");
        std::fs::write(&labels, &request.mask.labels).expect("written");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/check_seg.py");
        let covered: Vec<String> = request
            .segments
            .iter()
            .map(|s| s.mask_labels.iter().map(u8::to_string).collect::<Vec<_>>().join("+"))
            .collect();
        let output = Command::new(python)
            .arg(script)
            .args([ct, &labels, &path])
            .args(["--strict", "--segments", &covered.join(",")])
            .output()
            .expect("python");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{name}\n{said}");
        assert!(
            output.status.success(),
            "{name}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
