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
fn orthanc_stores_full_sparse_and_deflated_segmentations_and_lists_them() {
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
    let hilum = env!("CARGO_BIN_EXE_hilum");
    let mut checking = Command::new(python);
    checking.arg("tests/goldens/orthanc_check.py");
    // Each form, of another patient each: Orthanc keeps all three.
    for (seed, form) in [
        ("5", &[][..]),
        ("6", &["--frames", "sparse", "--segments", "left-right"]),
        ("7", &["--frames", "sparse", "--transfer-syntax", "deflated"]),
    ] {
        let (phantom, out) = (folder.path().join(seed), folder.path().join(seed).join("out"));
        let (made, said) = run(Command::new(hilum)
            .args(["phantom", "--small", "--seed", seed, "--out"])
            .arg(&phantom));
        assert!(made, "{said}");
        let (segmented, said) = run(Command::new(hilum)
            .arg("segment")
            .arg(phantom.join("ct"))
            .arg("--out")
            .arg(&out)
            .args(["--device", "cpu", "--format", "seg", "--model", "hilum-ahnet-lung-tiny"])
            .args(form));
        assert!(segmented, "{said}");
        let result = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
        checking.arg(phantom.join("ct")).arg(result.join("segmentation.dcm"));
    }
    let (holds, said) = run(&mut checking);
    assert!(holds && said.contains("3 of 3 hold"), "{said}");
}
