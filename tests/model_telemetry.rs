//! Nothing leaves the machine: ONNX Runtime 1.29 and later record and send usage unless told not to before they are loaded.
//!
//! Each case is a process of its own with its own home and cache folders, in which those libraries leave an identity and a database
//! (`.cache/Microsoft/DeveloperTools/.onnxruntime`) as soon as an environment is made. HILUM_TEST_ORT_TELEMETRY names such a library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    missing_docs
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hilum::model::{Device, Manifest, Session, SessionOptions, find_library, inspect_library};

const CHILD: &str = "HILUM_TEST_TELEMETRY_CHILD";

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
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, library)
        .current_dir(home.path());
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
    command.env_remove("ORT_DISABLE_TELEMETRY").env_remove("ORT_DYLIB_PATH");
    if off {
        command.env("ORT_DISABLE_TELEMETRY", "1");
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let output = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{output}{}", String::from_utf8_lossy(&stderr));
    let entries = walkdir::WalkDir::new(home.path())
        .into_iter()
        .map(|entry| entry.unwrap().into_path());
    (output, entries.filter(|path| path.is_file()).collect())
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
    let off = inspect_library(&library).unwrap().records_usage;
    let (output, files) = run(&library, off);
    assert!(output.contains("RAN ON"), "{output}");
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn a_library_that_records_usage_is_refused_unless_it_is_told_not_to() {
    let Some(library) = std::env::var_os("HILUM_TEST_ORT_TELEMETRY").map(PathBuf::from) else {
        eprintln!("SKIPPED: HILUM_TEST_ORT_TELEMETRY names no ONNX Runtime of 1.29 or later");
        return;
    };
    assert!(inspect_library(&library).unwrap().records_usage);
    let (output, files) = run(&library, false);
    assert!(
        output.contains("REFUSED") && output.contains("ORT_DISABLE_TELEMETRY=1"),
        "{output}"
    );
    assert!(files.is_empty(), "it was not even loaded: {files:?}");
    let (output, files) = run(&library, true);
    assert!(output.contains("RAN ON"), "{output}");
    assert!(files.is_empty(), "{files:?}");
}
