//! NIfTI images of real series, read by nibabel and SimpleITK; and of a tilted one, which no single affine describes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod output_support;

use std::io::Read;
use std::path::Path;
use std::process::Command;

use hilum::output::nifti;
use hilum::volume::{Mask, Voxels};
use output_support::{data, grid, mask, python, series, volume};

fn check(ct: &Path, image: &[u8], labels: Option<&[u8]>) {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii.gz");
    std::fs::write(&path, image).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/check_nifti.py");
    let mut command = Command::new(python);
    command.arg(script).args([ct, &path]);
    if let Some(labels) = labels {
        let file = folder.path().join("labels.raw");
        std::fs::write(&file, labels).unwrap();
        command.arg("--labels").arg(file);
    }
    let output = command.output().expect("python");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{}\n{said}", ct.display());
    assert!(
        output.status.success(),
        "{}: {said}{}",
        ct.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn other_readers_see_the_same_voxels_at_the_same_places() {
    let Some(data) = data() else { return };
    for case in [
        "whole/lung_pet_ct_dx_a0002_siemens_b40f_8mm",
        "train/rider_pilot_0117_ge_std_1p25mm_bases",
        "train/acrin_flt_breast_001_ge_soft_5mm",
    ] {
        let ct = data.join(case).join("ct");
        let (series, stack) = series(&ct);
        let mask = mask(&data.join(case).join("mask.nii.gz"), &stack);
        let image = nifti::mask(&mask, &grid(&stack)).expect("written");
        assert_eq!(image.resampled, !grid(&stack).is_regular());
        if image.resampled {
            println!("{case}: resampled");
            continue;
        }
        check(&ct, &image.bytes, Some(&mask.labels));
        let volume = volume(&series, &stack);
        assert!(matches!(volume.voxels, Voxels::I16(_)));
        check(&ct, &nifti::ct(&volume).expect("written").bytes, None);
    }
}

#[test]
fn a_tilted_stack_is_resampled_and_says_so() {
    let Some(data) = data() else { return };
    let (_, stack) = series(&data.join("odd/head_phantom_philips_tilt"));
    let grid = grid(&stack);
    let mask = Mask {
        shape: grid.shape(),
        labels: vec![1; grid.voxel_count()],
    };
    let image = nifti::mask(&mask, &grid).expect("written");
    assert!(image.resampled);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(image.bytes.as_slice())
        .read_to_end(&mut bytes)
        .unwrap();
    let length = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    assert_eq!(length(42), grid.columns);
    assert!(length(44) > grid.rows, "the shear needs more rows");
    let ours = bytes[352..].iter().filter(|label| **label == 1).count() as f64;
    assert!(
        (ours / grid.voxel_count() as f64 - 1.0).abs() < 0.25,
        "the volume of the mask is kept"
    );
}
