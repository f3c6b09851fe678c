//! The picture of real series: with `HILUM_TEST_PICTURES` naming a folder, they are left there to be looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod output_support;

use std::path::{Path, PathBuf};

use hilum::output::overlay::{Caption, Lungs, draw};
use hilum::volume::{Mask, Volume};
use output_support::{data, mask, series, volume};

fn millilitres(mask: &Mask, volume: &Volume, label: u8) -> f64 {
    let voxels = volume.grid.voxel_volumes_mm3();
    let size = volume.grid.rows * volume.grid.columns;
    let slices = mask.labels.chunks_exact(size).zip(voxels);
    slices
        .map(|(slice, voxel)| slice.iter().filter(|l| **l == label).count() as f64 * voxel / 1000.0)
        .sum()
}

fn keep(bytes: &[u8], name: &str) {
    if let Some(folder) = std::env::var_os("HILUM_TEST_PICTURES").map(PathBuf::from) {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Width, height and RGB pixels.
fn decode(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    (info.width as usize, info.height as usize, pixels)
}

fn picture(folder: &Path, with_mask: bool) -> Vec<u8> {
    let (series, stack) = series(&folder.join("ct"));
    let volume = volume(&series, &stack);
    let mut mask = mask(&folder.join("mask.nii.gz"), &stack);
    if !with_mask {
        mask.labels.fill(0);
    }
    let [right_ml, left_ml] = [1, 2].map(|label| millilitres(&mask, &volume, label));
    let header = &series.instances[0].header;
    let caption = Caption {
        modality: header.modality.clone(),
        kernel: header.convolution_kernel.clone(),
        slice_thickness_mm: header.slice_thickness_mm,
        model: "silver masks of the test data".to_owned(),
        lungs: if with_mask {
            Lungs::Apart { right_ml, left_ml }
        } else {
            Lungs::NotFound
        },
        findings: vec!["contrast".to_owned()],
    };
    let begun = std::time::Instant::now();
    let bytes = draw(&volume, &mask, &caption).expect("drawn");
    println!(
        "{}: {:.0} ms, {} bytes",
        folder.display(),
        begun.elapsed().as_secs_f64() * 1e3,
        bytes.len()
    );
    bytes
}

fn count(pixels: &[u8], wanted: impl Fn([i16; 3]) -> bool) -> usize {
    pixels
        .chunks_exact(3)
        .filter(|p| wanted([i16::from(p[0]), i16::from(p[1]), i16::from(p[2])]))
        .count()
}

#[test]
fn real_series_are_drawn_with_both_lungs_in_their_colours() {
    let Some(data) = data() else { return };
    for case in [
        "whole/lidc_idri_0001_ge_std_2p5mm",
        "whole/lung_pet_ct_dx_a0002_siemens_b70f_8mm",
        "whole/tcga_de_a4ma_siemens_petct_5mm",
        "partial/acrin_flt_breast_013_siemens_5mm",
        "train/lidc_idri_0314_philips_d_1mm",
    ] {
        let bytes = picture(&data.join(case), true);
        keep(&bytes, &format!("{}.png", case.replace('/', "_")));
        let (width, height, pixels) = decode(&bytes);
        assert!((1200..=1600).contains(&width) && height < 1700, "{width} x {height}");
        assert!(count(&pixels, |[r, _, b]| r - b > 30) > 5000, "no right lung in {case}");
        assert!(count(&pixels, |[r, _, b]| b - r > 30) > 5000, "no left lung in {case}");
    }
}

#[test]
fn a_series_without_lungs_is_drawn_without_a_mask() {
    let Some(data) = data() else { return };
    let bytes = picture(&data.join("whole/lung_pet_ct_dx_a0002_siemens_b40f_8mm"), false);
    keep(&bytes, "not_found.png");
    let (_, _, pixels) = decode(&bytes);
    assert_eq!(count(&pixels, |[r, _, b]| b - r > 30), 0);
}
