//! DICOM Segmentations of real series, held against other people's programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod output_support;

use hilum::output::segmentation::build;
use hilum::output::{Frames, OutputError, SegmentDescription, SegmentationRequest, read_back};
use hilum::volume::Mask;
use output_support::{data, files, grid, hold, mask, request, series};

fn every_form(case: &str) {
    let Some(data) = data() else { return };
    let folder = data.join(case);
    let ct = folder.join("ct");
    let (series, stack) = series(&ct);
    let mask = mask(&folder.join("mask.nii.gz"), &stack);
    for frames in [Frames::Full, Frames::Sparse] {
        for deflated in [false, true] {
            for segments in [
                vec![SegmentDescription::lung(1)],
                vec![SegmentDescription::right_lung(1), SegmentDescription::left_lung(2)],
            ] {
                let name = format!("{frames:?}_{deflated}_{}", segments.len());
                let request = SegmentationRequest {
                    frames,
                    deflated,
                    segments,
                    ..request(&series, &stack, &mask)
                };
                hold(&build(&request).expect("built"), &request, &ct, &name);
            }
        }
    }
}

#[test]
fn every_form_of_a_regular_series_is_valid_and_exact() {
    every_form("whole/lung_pet_ct_dx_a0002_siemens_b40f_8mm");
}

#[test]
fn every_real_series_with_a_mask_is_valid_and_exact() {
    let Some(data) = data() else { return };
    for kind in ["whole", "partial", "train"] {
        for folder in files(&data.join(kind)) {
            if !folder.join("mask.nii.gz").exists() {
                continue;
            }
            let ct = folder.join("ct");
            let (series, stack) = series(&ct);
            let mask = mask(&folder.join("mask.nii.gz"), &stack);
            let request = SegmentationRequest {
                frames: Frames::Sparse,
                ..request(&series, &stack, &mask)
            };
            match build(&request) {
                Ok(bytes) => hold(&bytes, &request, &ct, &folder.file_name().unwrap().to_string_lossy()),
                Err(OutputError::EmptyMask) => assert!(mask.labels.iter().all(|label| *label == 0)),
                Err(error) => panic!("{}: {error}", folder.display()),
            }
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_and_another_profile_another_object() {
    let Some(data) = data() else { return };
    let folder = data.join("train/rider_pilot_0117_ge_std_1p25mm_bases");
    let (series, stack) = series(&folder.join("ct"));
    let mut mask = mask(&folder.join("mask.nii.gz"), &stack);
    mask.labels[..stack.rows * stack.columns].fill(0);
    let uid = |request: &SegmentationRequest| {
        let bytes = build(request).expect("built");
        assert!(
            bytes == build(request).expect("built"),
            "two different objects of one input"
        );
        let object = dicom_object::from_reader(bytes.as_slice()).expect("parsed");
        object.meta().media_storage_sop_instance_uid().to_owned()
    };
    let base = request(&series, &stack, &mask);
    let mended = Mask {
        labels: mask
            .labels
            .iter()
            .enumerate()
            .map(|(i, l)| if i == 0 { 1 } else { *l })
            .collect(),
        ..mask.clone()
    };
    let mut copy = series.clone();
    copy.instances[3].header.sop_instance_uid.push_str(".1");
    let mut other_model = base.clone();
    other_model.model.digest = "f".repeat(64);
    let variants = [
        base.clone(),
        SegmentationRequest {
            frames: Frames::Sparse,
            ..base.clone()
        },
        SegmentationRequest {
            deflated: true,
            ..base.clone()
        },
        SegmentationRequest {
            segments: vec![SegmentDescription::lung(1)],
            ..base.clone()
        },
        SegmentationRequest {
            mask: &mended,
            ..base.clone()
        },
        SegmentationRequest {
            series: &copy,
            ..base.clone()
        },
        SegmentationRequest {
            series_number: 5,
            ..base.clone()
        },
        other_model,
    ];
    let uids: std::collections::HashSet<String> = variants.iter().map(uid).collect();
    assert_eq!(uids.len(), variants.len());
}

#[test]
fn a_flipped_bit_a_moved_frame_and_a_lost_frame_are_found() {
    let Some(data) = data() else { return };
    let folder = data.join("train/rider_pilot_0117_ge_std_1p25mm_bases");
    let (series, stack) = series(&folder.join("ct"));
    let mask = mask(&folder.join("mask.nii.gz"), &stack);
    let request = SegmentationRequest {
        frames: Frames::Sparse,
        ..request(&series, &stack, &mask)
    };
    let good = build(&request).expect("built");
    let verify = |bytes: &[u8]| read_back::verify(bytes, &request, &grid(&stack));
    verify(&good).expect("good");

    let mut flipped = good.clone();
    let at = flipped.len() - 1000;
    flipped[at] ^= 4;
    assert!(
        verify(&flipped)
            .unwrap_err()
            .to_string()
            .contains("differs from the mask")
    );

    // The first digit of the z coordinate of one frame.
    let z = series.instances[stack.slices[7].instance].header.frames[0]
        .text
        .position
        .clone();
    let mut moved = good.clone();
    let start = moved
        .windows(z.len())
        .position(|window| window == z.as_bytes())
        .expect("the position stands there as written");
    let digit = start + z.rfind('\\').unwrap() + 1 + usize::from(z.contains("\\-"));
    moved[digit] = if moved[digit] == b'9' { b'1' } else { b'9' };
    verify(&moved).unwrap_err();

    verify(&good[..good.len() / 2]).unwrap_err();

    let mut more = mask.clone();
    let empty = (0..more.shape[0]).find(|slice| !more.labels[slice * 512 * 512..][..512 * 512].contains(&2));
    more.labels[empty.unwrap_or(0) * 512 * 512 + 77] = 2;
    let request = SegmentationRequest { mask: &more, ..request };
    read_back::verify(&good, &request, &grid(&stack)).unwrap_err();
}
