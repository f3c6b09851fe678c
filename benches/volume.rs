//! Resampling to the network's grid and the way back, 512 x 512 x 300 synthetic voxels: `cargo bench --bench volume`.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use hilum::volume::{
    Grid, GridSpecification, Image, Volume, Voxels, Way, crop_to_body, mask_back, network_grid, resample,
};
use std::hint::black_box;

/// Two ellipsoids of lung in an ellipse of tissue in air, with noise from a linear congruential generator.
fn chest(degrees: f64) -> Volume {
    let (slices, rows, columns) = (300, 512, 512);
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let grid = Grid {
        rows,
        columns,
        origins: (0..slices).map(|k| [-179.0, -179.0, -150.0 + k as f64]).collect(),
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, cosine, sine],
        normal: [0.0, -sine, cosine],
        spacing_mm: [0.7, 0.7],
    };
    let mut voxels = Vec::with_capacity(grid.voxel_count());
    let mut state = 1_u32;
    for k in 0..slices {
        for r in 0..rows {
            for c in 0..columns {
                let [x, y, z] = [c as f64 * 0.7 - 179.0, r as f64 * 0.7 - 179.0, k as f64 - 150.0];
                let lung = ((x.abs() - 75.0) / 55.0).powi(2) + (y / 85.0).powi(2) + (z / 130.0).powi(2) < 1.0;
                let body = (x / 165.0).powi(2) + (y / 110.0).powi(2) < 1.0;
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (state >> 26) as i16 - 32;
                voxels.push(
                    noise
                        + if lung {
                            -850
                        } else if body {
                            40
                        } else {
                            -1000
                        },
                );
            }
        }
    }
    Volume {
        grid,
        voxels: Voxels::I16(voxels),
        padding_hu: vec![None; slices],
    }
}

fn specification() -> GridSpecification {
    GridSpecification {
        spacing_mm: [0.8, 0.8, 5.0],
        orientation: "LPS".into(),
        window_hu: [-1500.0, 500.0],
        window_to: [0.0, 1.0],
        straighten_over_degrees: 20.0,
    }
}

/// What a network might say of the image: near 1 in lung, near 0 elsewhere.
fn probability(image: &Image) -> Image {
    let [_, rows, columns] = image.grid.shape;
    let values = (0..image.values.len())
        .map(|i| {
            let index = [i / (rows * columns), i / columns % rows, i % columns].map(|n| n as f64);
            let [x, y, z] = image.grid.centre(index[0], index[1], index[2]);
            let inside = 1.0 - ((x.abs() - 75.0) / 55.0).powi(2) - (y / 85.0).powi(2) - (z / 130.0).powi(2);
            (1.0 / (1.0 + (-40.0 * inside).exp())) as f32
        })
        .collect();
    Image {
        grid: image.grid.clone(),
        values,
    }
}

fn benches(criterion: &mut Criterion) {
    let specification = specification();
    for (name, degrees) in [("upright", 0.0), ("tilted", 15.0)] {
        let volume = chest(degrees);
        let grid = network_grid(&volume.grid, &specification).unwrap();
        let image = resample(&volume, &grid, &specification);
        let lungs = probability(&image);
        let mut group = criterion.benchmark_group(format!("{name} 512x512x300, network {:?}", grid.shape));
        group.sample_size(10);
        group.bench_function("resample", |b| {
            b.iter(|| resample(black_box(&volume), &grid, &specification))
        });
        group.bench_function("crop to body", |b| {
            b.iter(|| {
                let found = crop_to_body(black_box(&image), &specification, -500.0, 20.0).unwrap();
                image.cropped(&found)
            })
        });
        for (name, way) in [("mask back, linear", Way::Linear), ("mask back, nearest", Way::Nearest)] {
            group.bench_function(name, |b| {
                b.iter(|| mask_back(black_box(&lungs), 0.5, way, &volume.grid))
            });
        }
        group.finish();
    }
}

criterion_group!(volume, benches);
criterion_main!(volume);
