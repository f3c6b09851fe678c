//! A segmentation in a real Orthanc: stored by STOW-RS, listed by QIDO-RS, and given back as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::process::Command;

fn run(command: &mut Command) -> (bool, String) {
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    (
        output.status.success(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    )
}

#[test]
fn orthanc_stores_the_segmentation_and_lists_it() {
    let Ok(python) = std::env::var("HILUM_TEST_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_PYTHON is not set");
        println!("skipped: HILUM_TEST_PYTHON names no Python (make test makes one)");
        return;
    };
    if !["/usr/sbin/Orthanc", "/usr/bin/Orthanc"]
        .iter()
        .any(|path| Path::new(path).exists())
    {
        assert!(std::env::var_os("CI").is_none(), "Orthanc is not installed");
        println!("skipped: Orthanc is not installed (make setup-tests installs it)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (phantom, out) = (folder.path().join("phantom"), folder.path().join("out"));
    let hilum = env!("CARGO_BIN_EXE_hilum");
    let (made, said) = run(Command::new(hilum)
        .args(["phantom", "--small", "--seed", "5", "--out"])
        .arg(&phantom));
    assert!(made, "{said}");
    let (segmented, said) = run(Command::new(hilum)
        .arg("segment")
        .arg(phantom.join("ct"))
        .arg("--out")
        .arg(&out)
        .args(["--device", "cpu", "--format", "seg"]));
    assert!(segmented, "{said}");
    let result = fs::read_dir(&out)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("segmentation.dcm");
    let (holds, said) = run(Command::new(python)
        .arg("tests/goldens/orthanc_check.py")
        .arg(phantom.join("ct"))
        .arg(result));
    assert!(holds && said.contains("1 of 1 hold"), "{said}");
}
