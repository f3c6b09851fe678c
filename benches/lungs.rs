//! What is done to a mask after the network, on 512 x 512 x 300 voxels: cleaning, sides, figures, judgement, one by one and all together.
//!
//! `cargo bench --bench lungs`. The mask is drawn: two lungs of 5 L with an uneven surface, vessels left out, that touch over some 15 cm2 in front, and crumbs beside
//! them. Peak memory beside mask and volume, and the CPU time of each step (all threads), are printed first.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rayon::prelude::*;

use hilum::lungs::{Boundary, CleanUp, MaskLimits, clean, follow_boundary, judge_mask, measure, sides};
use hilum::volume::{Grid, Mask, Volume, Voxels};

const SHAPE: [usize; 3] = [300, 512, 512];
const SPACING_MM: [f64; 3] = [1.1, 0.75, 0.75];

/// Thorax, lungs and vessels in millimetres from the middle.
fn chest() -> (Mask, Volume) {
    let place = |at: usize| {
        let index = [at / SHAPE[2] / SHAPE[1], at / SHAPE[2] % SHAPE[1], at % SHAPE[2]];
        [0, 1, 2].map(|axis| (index[axis] as f64 - SHAPE[axis] as f64 / 2.0) * SPACING_MM[axis])
    };
    let uneven = |a: f64, b: f64| (a / 7.0).sin() * (b / 5.0).cos() + 0.5 * (a / 2.3 + b / 3.1).sin();
    let label = |at: usize| {
        let [z, y, x] = place(at);
        let junction = (-50.0..-35.0).contains(&y) && (-40.0..60.0).contains(&z);
        let mediastinum = x.abs() < if junction { 0.0 } else { 28.0 + 2.0 * uneven(y, z) };
        let inside = (1.0 + 0.02 * uneven(x + y, z)) * ((x.abs() - 62.0) / 80.0).powi(2)
            + (y / 85.0).powi(2)
            + (z / 140.0).powi(2);
        let vessel = [x, y, z]
            .iter()
            .zip([17.0, 19.0, 23.0])
            .filter(|(place, period)| (*place / period).sin() > 0.97)
            .count()
            >= 2;
        let nodule = (x / 17.0).sin() * (y / 19.0).sin() * (z / 23.0).sin() > 0.97;
        let crumb = x.abs() > 150.0 && (x / 9.0).sin() * (y / 9.0).sin() * (z / 9.0).sin() > 0.9;
        u8::from((inside < 1.0 && !mediastinum && !vessel && !nodule) || crumb)
    };
    let count = SHAPE.iter().product::<usize>();
    let labels: Vec<u8> = (0..count).into_par_iter().map(label).collect();
    let hu = |at: usize| {
        let [_, y, x] = place(at);
        // A noise that needs no state.
        let noise = ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as i16;
        match labels[at] {
            1 => -900 + noise,
            _ if x.hypot(y) > 190.0 => -2000,
            _ => noise,
        }
    };
    let voxels = Voxels::I16((0..count).into_par_iter().map(hu).collect());
    let grid = Grid {
        rows: SHAPE[1],
        columns: SHAPE[2],
        origins: (0..SHAPE[0])
            .map(|slice| [-192.0, -192.0, slice as f64 * SPACING_MM[0]])
            .collect(),
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        normal: [0.0, 0.0, 1.0],
        spacing_mm: [SPACING_MM[1], SPACING_MM[2]],
    };
    let padding_hu = vec![Some((-2000.0, -2000.0)); SHAPE[0]];
    let volume = Volume {
        grid,
        voxels,
        padding_hu,
    };
    (Mask { shape: SHAPE, labels }, volume)
}

/// A field of this process's status in kilobytes, on Linux.
fn status_kb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// Milliseconds of CPU time of all threads that one run takes, over several.
fn print_cpu_time(name: &str, mut run: impl FnMut()) {
    const RUNS: u32 = 10;
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<u64> = stat
            .split_whitespace()
            .skip(13)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        fields.iter().sum::<u64>()
    };
    let before = ticks();
    (0..RUNS).for_each(|_| run());
    // A tick is a hundredth of a second.
    println!(
        "{name}: {:.0} ms of CPU time",
        (ticks() - before) as f64 * 10.0 / f64::from(RUNS)
    );
}

fn lungs(criterion: &mut Criterion) {
    let options = CleanUp {
        keep_components: 2,
        min_component_ml: 5.0,
        fill_holes_ml: 5.0,
    };
    let limits = MaskLimits::default();
    let (drawn, volume) = chest();
    let mut told = drawn.clone();

    let before = status_kb("VmRSS:");
    let cleaned = clean(&mut told, &volume.grid, &options).unwrap();
    let sided = sides(&mut told, &volume.grid).unwrap();
    let measured = measure(&told, &volume).unwrap();
    let findings = judge_mask(&told, &volume, &cleaned, &sided, &measured, &limits).unwrap();
    println!(
        "{cleaned:?}\n{sided:?}\n{findings:?}\npeak memory beside mask and volume: {:.1} MB",
        status_kb("VmHWM:").saturating_sub(before) as f64 / 1024.0
    );

    let mut cleanable = drawn.clone();
    print_cpu_time("copying the mask", || cleanable.labels.copy_from_slice(&drawn.labels));
    print_cpu_time("copying the mask and clean", || {
        cleanable.labels.copy_from_slice(&drawn.labels);
        clean(&mut cleanable, &volume.grid, &options).unwrap();
    });
    let boundary = Boundary {
        band_mm: Boundary::BAND_MM,
        aerated_below_hu: Boundary::ABOVE_LUNG_HU,
    };
    print_cpu_time("copying the mask and follow_boundary", || {
        cleanable.labels.copy_from_slice(&drawn.labels);
        follow_boundary(&mut cleanable, &volume, &boundary).unwrap();
    });
    cleanable.labels.copy_from_slice(&drawn.labels);
    clean(&mut cleanable, &volume.grid, &options).unwrap();
    print_cpu_time("sides", || {
        sides(&mut cleanable, &volume.grid).unwrap();
    });
    print_cpu_time("measure", || {
        measure(&told, &volume).unwrap();
    });
    print_cpu_time("judge_mask", || {
        judge_mask(&told, &volume, &cleaned, &sided, &measured, &limits).unwrap();
    });

    let mut group = criterion.benchmark_group("lungs_512x512x300");
    group.sample_size(20);
    group.bench_function("clean", |bencher| {
        bencher.iter_batched(
            || drawn.clone(),
            |mut mask| (clean(&mut mask, &volume.grid, &options).unwrap(), mask),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("follow_boundary", |bencher| {
        bencher.iter_batched(
            || drawn.clone(),
            |mut mask| (follow_boundary(&mut mask, &volume, &boundary).unwrap(), mask),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("sides", |bencher| {
        bencher.iter_batched(
            || told.clone(),
            |mut mask| (sides(&mut mask, &volume.grid).unwrap(), mask),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("measure", |bencher| {
        bencher.iter(|| measure(&told, &volume).unwrap());
    });
    group.bench_function("judge_mask", |bencher| {
        bencher.iter(|| judge_mask(&told, &volume, &cleaned, &sided, &measured, &limits).unwrap());
    });
    group.bench_function("all", |bencher| {
        bencher.iter_batched(
            || drawn.clone(),
            |mut mask| {
                let cleaned = clean(&mut mask, &volume.grid, &options).unwrap();
                let sided = sides(&mut mask, &volume.grid).unwrap();
                let measured = measure(&mask, &volume).unwrap();
                let findings = judge_mask(&mask, &volume, &cleaned, &sided, &measured, &limits).unwrap();
                (findings, mask)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, lungs);
criterion_main!(benches);
