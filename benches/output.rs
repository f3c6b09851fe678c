//! What is made of a mask, on 512 x 512 x 300 voxels: the DICOM Segmentation of two lungs, its reading back, NIfTI images, the picture.
//!
//! `cargo bench --bench output`. Two ellipsoids of some 2 L with an uneven surface stand for lungs; the CT is noise about their values. Sizes are printed first.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use rayon::prelude::*;

use hilum::dicom::{FrameHeader, GeometryText, Header, Instance, Rescale, Source};
use hilum::output::overlay::{Caption, Lungs, draw};
use hilum::output::segmentation::build;
use hilum::output::{Frames, ModelIdentity, SegmentDescription, SegmentationRequest, nifti, read_back};
use hilum::series::{Series, Slice, Stack};
use hilum::volume::{Grid, Mask, Volume, Voxels};

const SHAPE: [usize; 3] = [300, 512, 512];
const SPACING_MM: [f64; 3] = [1.1, 0.75, 0.75];

fn series() -> (Series, Stack) {
    let origin = |slice: usize| [-192.0, -192.0, slice as f64 * SPACING_MM[0] - 165.0];
    let instance = |slice: usize| {
        let [x, y, z] = origin(slice);
        let text = GeometryText {
            position: format!("{x}\\{y}\\{z:.3}"),
            orientation: "1\\0\\0\\0\\1\\0".into(),
            pixel_spacing: "0.75\\0.75".into(),
        };
        let header = Header {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            sop_instance_uid: format!("1.2.826.0.1.3680043.9.1.{slice}"),
            study_instance_uid: "1.2.826.0.1.3680043.9.2".into(),
            series_instance_uid: "1.2.826.0.1.3680043.9.3".into(),
            frame_of_reference_uid: "1.2.826.0.1.3680043.9.4".into(),
            content_date: "20010203".into(),
            frames: vec![FrameHeader {
                text,
                ..FrameHeader::default()
            }],
            ..Header::default()
        };
        Instance {
            source: Source {
                path: Arc::from(Path::new("")),
                offset: 0,
                length: 0,
            },
            header,
        }
    };
    let slice = |index: usize| Slice {
        instance: index,
        frame: 0,
        origin: origin(index),
        position_mm: origin(index)[2],
        rescale: Rescale {
            slope: 1.0,
            intercept: -1024.0,
        },
    };
    let stack = Stack {
        slices: (0..SHAPE[0]).map(slice).collect(),
        rows: SHAPE[1],
        columns: SHAPE[2],
        pixel_spacing_mm: [SPACING_MM[1], SPACING_MM[2]],
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        normal: [0.0, 0.0, 1.0],
    };
    let series = Series {
        study_instance_uid: "1.2.826.0.1.3680043.9.2".into(),
        series_instance_uid: "1.2.826.0.1.3680043.9.3".into(),
        instances: (0..SHAPE[0]).map(instance).collect(),
        unreadable: Vec::new(),
    };
    (series, stack)
}

fn lungs(stack: &Stack) -> (Mask, Volume) {
    let uneven = |a: f64, b: f64| (a / 7.0).sin() * (b / 5.0).cos() + 0.5 * (a / 2.3 + b / 3.1).sin();
    let label = |at: usize| {
        let index = [at / SHAPE[2] / SHAPE[1], at / SHAPE[2] % SHAPE[1], at % SHAPE[2]];
        let [z, y, x] = [0, 1, 2].map(|axis| (index[axis] as f64 - SHAPE[axis] as f64 / 2.0) * SPACING_MM[axis]);
        let far = (1.0 + 0.03 * uneven(x + y, z)) * ((x.abs() - 75.0) / 60.0).powi(2)
            + (y / 85.0).powi(2)
            + (z / 130.0).powi(2);
        if far > 1.0 { 0 } else { 1 + u8::from(x > 0.0) }
    };
    let labels: Vec<u8> = (0..SHAPE.iter().product()).into_par_iter().map(label).collect();
    let noise = |at: usize| (((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 80) as i16 - 40;
    let values = labels
        .par_iter()
        .enumerate()
        .map(|(at, label)| if *label > 0 { -850 + noise(at) } else { 40 + noise(at) })
        .collect();
    let grid = Grid::from_stack(stack);
    (
        Mask { shape: SHAPE, labels },
        Volume {
            grid,
            voxels: Voxels::I16(values),
            padding_hu: vec![None; SHAPE[0]],
        },
    )
}

fn outputs(criterion: &mut Criterion) {
    let (series, stack) = series();
    let (mask, volume) = lungs(&stack);
    let full = SegmentationRequest {
        series: &series,
        stack: &stack,
        mask: &mask,
        segments: vec![SegmentDescription::right_lung(1), SegmentDescription::left_lung(2)],
        frames: Frames::Full,
        deflated: false,
        series_number: 366,
        series_description: "Hilum lungs".into(),
        content_description: String::new(),
        model: ModelIdentity::default(),
    };
    let sparse = SegmentationRequest {
        frames: Frames::Sparse,
        ..full.clone()
    };
    let deflated = SegmentationRequest {
        deflated: true,
        ..full.clone()
    };
    let caption = Caption {
        modality: "CT".into(),
        lungs: Lungs::Apart {
            right_ml: 2000.0,
            left_ml: 2000.0,
        },
        ..Caption::default()
    };
    let bytes = build(&full).expect("built");
    println!("segmentation, full frames: {} bytes", bytes.len());
    println!(
        "segmentation, sparse frames: {} bytes",
        build(&sparse).expect("built").len()
    );
    println!(
        "segmentation, full frames, deflated: {} bytes",
        build(&deflated).expect("built").len()
    );
    println!(
        "mask.nii.gz: {} bytes",
        nifti::mask(&mask, &volume.grid).expect("written").bytes.len()
    );
    println!("ct.nii.gz: {} bytes", nifti::ct(&volume).expect("written").bytes.len());
    println!(
        "overlay.png: {} bytes",
        draw(&volume, &mask, &caption).expect("drawn").len()
    );

    let mut group = criterion.benchmark_group("output");
    group.sample_size(10);
    group.bench_function("segmentation_full", |b| b.iter(|| build(&full).expect("built")));
    let folder = tempfile::tempdir().expect("a folder");
    group.bench_function("segmentation_full_written", |b| {
        b.iter(|| {
            std::fs::write(folder.path().join("segmentation.dcm"), build(&full).expect("built")).expect("written")
        })
    });
    group.bench_function("segmentation_sparse", |b| b.iter(|| build(&sparse).expect("built")));
    group.bench_function("segmentation_deflated", |b| b.iter(|| build(&deflated).expect("built")));
    group.bench_function("read_back", |b| {
        b.iter(|| read_back::verify(&bytes, &full, &volume.grid).expect("the mask"))
    });
    group.bench_function("nifti_mask", |b| {
        b.iter(|| nifti::mask(&mask, &volume.grid).expect("written"))
    });
    group.bench_function("nifti_ct", |b| b.iter(|| nifti::ct(&volume).expect("written")));
    group.bench_function("overlay", |b| b.iter(|| draw(&volume, &mask, &caption).expect("drawn")));
    group.finish();
}

criterion_group!(benches, outputs);
criterion_main!(benches);
