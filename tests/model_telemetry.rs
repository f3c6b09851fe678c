//! Nothing leaves the machine: ONNX Runtime 1.29 and later record and send usage unless told not to before they are loaded.
//!
//! Each case is a process of its own with its own home and cache folders, in which those libraries leave an identity and a database
//! (`.cache/Microsoft/DeveloperTools/.onnxruntime`) as soon as an environment is made. That they do without the variable is not tried here: it would be usage of
//! this machine, recorded. `make test` brings such a library (`.runtime/recording`). The library that Hilum runs with by default is older and has no telemetry in
//! it: of that one the test can only say that it leaves no file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hilum::model::{Device, Manifest, Session, SessionOptions, find_library, inspect_library};

const CHILD: &str = "HILUM_TEST_TELEMETRY_CHILD";
const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Opens a network with the library in HILUM_TEST_TELEMETRY_CHILD, in the environment that the parent made.
#[test]
fn child() {
    let Some(library) = std::env::var_os(CHILD) else { return };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/networks/position.toml");
    let options = SessionOptions {
        device: Device::Cpu,
        runtime_library: Some(library.into()),
        ..SessionOptions::default()
    };
    let session = Session::open(&Manifest::load(&manifest).unwrap(), &options);
    match session {
        Ok(session) => println!("RAN ON {}", session.provider().runtime_version),
        Err(error) => println!("REFUSED {error}"),
    }
}

/// Runs `child` with a library, and gives its output and the files that it left.
fn run(library: &Path, off: bool) -> (String, Vec<PathBuf>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, library);
    if off {
        command.env(VARIABLE, "1");
    }
    at_home(command, off)
}

/// Runs a command in a home of its own, with the variable only if it `keeps` it; gives its output and the files that it left.
fn at_home(mut command: Command, keeps: bool) -> (String, Vec<PathBuf>) {
    let home = tempfile::tempdir().unwrap();
    command.current_dir(home.path());
    for variable in [
        "HOME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "TMPDIR",
    ] {
        command.env(variable, home.path());
    }
    if !keeps {
        command.env_remove(VARIABLE);
    }
    command.env_remove("ORT_DYLIB_PATH");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let output = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{output}{}", String::from_utf8_lossy(&stderr));
    let entries = walkdir::WalkDir::new(home.path())
        .into_iter()
        .map(|entry| entry.unwrap().into_path());
    (output, entries.filter(|path| path.is_file()).collect())
}

/// An ONNX Runtime of 1.29 or later, as `scripts/setup.sh tests` brings it.
fn recording_library() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/recording");
    match find_library(Some(&folder)) {
        Ok(library) => Some(library),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("SKIPPED: no library that records usage is at hand: {error}");
            None
        }
    }
}

#[test]
fn the_default_library_leaves_nothing_behind() {
    let named = std::env::var_os("HILUM_ORT").map(PathBuf::from);
    let library = match find_library(named.as_deref()) {
        Ok(library) => library,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("SKIPPED: {error}");
            return;
        }
    };
    let found = inspect_library(&library).unwrap();
    if !found.records_usage {
        eprintln!(
            "ONNX Runtime {:?} has no telemetry: nothing has to be switched off, and nothing is",
            found.version
        );
    }
    let (output, files) = run(&library, found.records_usage);
    assert!(output.contains("RAN ON"), "{output}");
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn a_library_that_records_usage_is_refused_unless_it_is_told_not_to() {
    let Some(library) = recording_library() else { return };
    assert!(inspect_library(&library).unwrap().records_usage);
    let (output, files) = run(&library, false);
    assert!(
        output.contains("REFUSED") && output.contains("ORT_DISABLE_TELEMETRY=1"),
        "{output}"
    );
    assert!(files.is_empty(), "it was not even loaded: {files:?}");
    let (output, files) = run(&library, true);
    assert!(output.contains("RAN ON 1.32"), "{output}");
    assert!(files.is_empty(), "{files:?}");
}

/// `hilum segment` of a small phantom in `folder`, without the variable.
fn segment(folder: &Path) -> Command {
    let series = folder.join("phantom");
    let made = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(["phantom", "--small", "--out"])
        .arg(&series)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
    command
        .arg("segment")
        .arg(series.join("ct"))
        .arg("--out")
        .arg(folder.join("out"))
        .args(["--json", "--device", "cpu", "--model"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/hilum-ahnet-lung-tiny.toml"))
        .env_remove(VARIABLE);
    command
}

#[test]
fn the_program_runs_such_a_library_without_being_told_to_and_leaves_nothing_behind() {
    let Some(library) = recording_library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut command = segment(folder.path());
    command.env("HILUM_MODEL__RUNTIME_LIBRARY", &library);
    let (output, files) = at_home(command, false);
    let printed: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        printed["series"][0]["provider"]["runtime_version"], "1.32.0",
        "{printed:#}"
    );
    assert!(files.is_empty(), "{files:?}");
}

/// `/proc/PID/environ` is what a program was executed with: what stands there stood there before its first thread.
#[test]
fn the_program_starts_itself_again_without_telemetry_before_it_has_a_second_thread() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = segment(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let mut told = || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the program has ended: {ended:?}");
        // Empty for as long as the kernel puts the second program in the place of the first.
        let environment = std::fs::read(process.join("environ")).unwrap();
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == b"ORT_DISABLE_TELEMETRY=1")
    };
    while !told() {
        let threads = std::fs::read_dir(process.join("task")).unwrap().count();
        // Looked at once more: then the threads are those of the program that was not told yet.
        assert!(told() || threads == 1, "{threads} threads before telemetry is off");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
