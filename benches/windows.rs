//! Sliding windows against the same windows in one bare loop through ONNX Runtime: same network, threads and options.
//!
//!     cargo bench --bench windows
//!
//! First both run in turn five times, and their medians are printed as wall and CPU seconds; then criterion measures each. HILUM_BENCH_MODEL names another manifest
//! than that of the default network, HILUM_ORT another library than the one that Hilum finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use criterion::Criterion;
use hilum::model::{
    CancelFlag, Device, Manifest, ModelError, Overrides, Prediction, Predictor, Session, SessionOptions, Windows,
    bare_session, slide,
};
use hilum::volume::{Image, RegularGrid};

/// Keeps the windows and answers nothing.
#[derive(Default)]
struct Collector {
    waiting: VecDeque<Windows>,
    windows: Vec<Vec<f32>>,
}

impl Predictor for Collector {
    fn batch(&self) -> usize {
        1
    }

    fn submit(&mut self, windows: Windows) -> Result<(), ModelError> {
        self.windows.push(windows.values.clone());
        self.waiting.push_back(windows);
        Ok(())
    }

    fn receive(&mut self, _: &CancelFlag) -> Result<Prediction, ModelError> {
        let windows = self.waiting.pop_front().unwrap();
        let values = Box::new(windows.values.clone());
        Ok(Prediction { windows, values })
    }

    fn abandon(&mut self) {}
}

/// Seconds of all threads of this process, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<f64>().unwrap() / 100.0)
        .sum()
}

fn seconds(work: impl FnOnce()) -> (f64, f64) {
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    work();
    (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let path = std::env::var_os("HILUM_BENCH_MODEL").map(PathBuf::from);
    let path = path.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/hilum-ahnet-lung.toml"));
    let manifest = Manifest::load(&path).expect("a manifest");
    // Every window is run: the loop knows nothing of skipping.
    let manifest = manifest
        .with(&Overrides {
            skip_empty: Some(false),
            ..Overrides::default()
        })
        .unwrap();
    let options = SessionOptions {
        device: Device::Cpu,
        runtime_library: std::env::var_os("HILUM_ORT").map(PathBuf::from),
        ..SessionOptions::default()
    };
    let mut session = Session::open(&manifest, &options).unwrap_or_else(|error| panic!("{error}"));
    let mut bare = bare_session(&manifest, &options).unwrap();

    // 240 x 240 x 280 mm at 0.8 x 0.8 x 5 mm: the bounds of a small body.
    let shape = [56, 300, 300];
    let axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let values = (0..shape.iter().product::<usize>())
        .map(|at| (at * 7919 % 1009) as f32 / 1009.0)
        .collect();
    let image = Image {
        grid: RegularGrid {
            shape,
            origin: [0.0; 3],
            axes,
            spacing_mm: [0.8, 0.8, 5.0],
        },
        values,
    };
    let window_options = manifest.window_options();
    let mut collector = Collector::default();
    slide(
        &image,
        &window_options,
        &mut collector,
        &mut |_, _| {},
        &CancelFlag::default(),
    )
    .unwrap();
    let (windows, tensor) = (collector.windows, manifest.tensor_shape(1, 1));
    println!(
        "{} {}, {} windows, {} threads",
        manifest.name,
        manifest.version,
        windows.len(),
        session.provider().threads
    );

    let mut slides = || {
        slide(
            &image,
            &window_options,
            &mut session,
            &mut |_, _| {},
            &CancelFlag::default(),
        )
        .unwrap();
    };
    let mut loops = || {
        for window in &windows {
            let input = ort::value::TensorRef::from_array_view((tensor, window.as_slice())).unwrap();
            let outputs = bare.run(ort::inputs![manifest.input.name.as_str() => input]).unwrap();
            std::hint::black_box(
                outputs[manifest.output.name.as_str()]
                    .try_extract_tensor::<f32>()
                    .unwrap()
                    .1[0],
            );
        }
    };
    let pairs: Vec<_> = (0..5).map(|_| (seconds(&mut slides), seconds(&mut loops))).collect();
    let slide_wall = median(pairs.iter().map(|(slide, _)| slide.0).collect());
    let slide_cpu = median(pairs.iter().map(|(slide, _)| slide.1).collect());
    let loop_wall = median(pairs.iter().map(|(_, bare)| bare.0).collect());
    let loop_cpu = median(pairs.iter().map(|(_, bare)| bare.1).collect());
    println!(
        "slide: {slide_wall:.3} s wall, {slide_cpu:.2} s CPU; bare loop: {loop_wall:.3} s wall, {loop_cpu:.2} s CPU; medians of 5 in turn"
    );
    println!(
        "slide / loop: wall {:.3}, CPU {:.3}",
        slide_wall / loop_wall,
        slide_cpu / loop_cpu
    );

    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("windows");
    group.bench_function("slide", |bencher| bencher.iter(&mut slides));
    group.bench_function("bare loop", |bencher| bencher.iter(&mut loops));
    group.finish();
    criterion.final_summary();
}
