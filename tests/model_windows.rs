//! Sliding windows against MONAI's `sliding_window_inference`, by the goldens that `tests/goldens/monai_reference.py --goldens` makes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::VecDeque;
use std::path::Path;

use hilum::model::{
    Activation, Axes, Blend, CancelFlag, ModelError, Prediction, Predictor, WindowOptions, Windows, importance_map,
    slide, starts,
};
use hilum::volume::{Image, RegularGrid};
use proptest::prelude::*;
use serde_json::Value;

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/monai");

fn cases(kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(Path::new(GOLDENS).join("index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let cases: Vec<_> = index["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["kind"] == kind)
        .cloned()
        .collect();
    assert!(!cases.is_empty(), "no golden of kind {kind}");
    cases
}

/// An array of the goldens, and its shape.
fn array(case: &Value, key: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(Path::new(GOLDENS).join(case["files"][key].as_str().unwrap())).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(
        header.contains("'<f4'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values: Vec<f32> = bytes[10 + length..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    (shape, values)
}

/// Goldens lie `[x][y][z]`, images `[z][y][x]`.
fn turned(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let [nx, ny, nz] = [shape[0], shape[1], shape[2]];
    let at = |z: usize, y: usize, x: usize| values[(x * ny + y) * nz + z];
    (0..nz)
        .flat_map(|z| (0..ny).flat_map(move |y| (0..nx).map(move |x| at(z, y, x))))
        .collect()
}

fn image(shape_zyx: [usize; 3], values: Vec<f32>) -> Image {
    let axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    Image {
        grid: RegularGrid {
            shape: shape_zyx,
            origin: [0.0; 3],
            axes,
            spacing_mm: [1.0; 3],
        },
        values,
    }
}

fn sizes(value: &Value) -> [usize; 3] {
    let sizes: Vec<usize> = value
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap() as usize)
        .collect();
    sizes.try_into().unwrap()
}

fn blend(case: &Value) -> Blend {
    if case["blend"] == "gaussian" {
        Blend::Gaussian
    } else {
        Blend::Constant
    }
}

fn options(roi: [usize; 3], overlap: f64, blend: Blend, axes: Axes) -> WindowOptions {
    let (activation, foreground_channel) = (Activation::None, 0);
    WindowOptions {
        roi,
        overlap,
        blend,
        axes,
        channels: 1,
        activation,
        foreground_channel,
        skip_below: None,
    }
}

/// A network as a function of the window's values and of the place `[x, y, z]` in the window; one value a channel.
struct Function<F> {
    roi: [usize; 3],
    axes: Axes,
    channels: usize,
    batch: usize,
    function: F,
    answers: VecDeque<Prediction>,
    seen: usize,
}

impl<F: Fn(usize, f32, [usize; 3]) -> f32> Function<F> {
    fn new(options: &WindowOptions, batch: usize, function: F) -> Function<F> {
        let WindowOptions {
            roi, axes, channels, ..
        } = *options;
        Function {
            roi,
            axes,
            channels,
            batch,
            function,
            answers: VecDeque::new(),
            seen: 0,
        }
    }

    /// The place of a voxel of the tensor.
    fn place(&self, at: usize) -> [usize; 3] {
        let [rx, ry, rz] = self.roi;
        match self.axes {
            Axes::Zyx => [at % rx, at / rx % ry, at / rx / ry],
            Axes::Xyz => [at / rz / ry, at / rz % ry, at % rz],
        }
    }
}

impl<F: Fn(usize, f32, [usize; 3]) -> f32> Predictor for Function<F> {
    fn batch(&self) -> usize {
        self.batch
    }

    fn submit(&mut self, windows: Windows) -> Result<(), ModelError> {
        assert!(windows.count >= 1 && windows.count <= self.batch);
        self.seen += windows.count;
        let voxels: usize = self.roi.iter().product();
        let mut values = Vec::new();
        for window in windows.values.chunks_exact(voxels) {
            for channel in 0..self.channels {
                values.extend(
                    window
                        .iter()
                        .enumerate()
                        .map(|(at, value)| (self.function)(channel, *value, self.place(at))),
                );
            }
        }
        self.answers.push_back(Prediction {
            windows,
            values: Box::new(values),
        });
        Ok(())
    }

    fn receive(&mut self, _: &CancelFlag) -> Result<Prediction, ModelError> {
        self.answers.pop_front().ok_or(ModelError::SessionLost)
    }

    fn abandon(&mut self) {
        self.answers.clear();
    }
}

/// The predictor of the goldens.
fn ramp(value: f32, [i, j, k]: [usize; 3]) -> f32 {
    0.5 * value + (i + 2 * j + 4 * k) as f32 / 64.0
}

fn run<F: Fn(usize, f32, [usize; 3]) -> f32>(
    image: &Image,
    options: &WindowOptions,
    batch: usize,
    function: F,
) -> (Vec<f32>, usize, usize) {
    let mut predictor = Function::new(options, batch, function);
    let slid = slide(image, options, &mut predictor, &mut |_, _| {}, &CancelFlag::default()).unwrap();
    assert_eq!(predictor.seen, slid.windows_run);
    assert_eq!(slid.probability.grid, image.grid);
    (slid.probability.values, slid.windows_run, slid.windows_skipped)
}

/// The largest distance in units of the last place of the larger value.
fn largest_ulps(have: &[f32], want: &[f32]) -> f32 {
    assert_eq!(have.len(), want.len());
    let ulps = |(a, b): (&f32, &f32)| (a - b).abs() / (a.abs().max(b.abs()).max(f32::MIN_POSITIVE) * f32::EPSILON);
    have.iter().zip(want).map(ulps).fold(0.0, f32::max)
}

#[test]
fn windows_start_where_monai_starts_them() {
    for case in cases("starts") {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let expected: Vec<usize> = case["starts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap() as usize)
            .collect();
        // MONAI pads a shorter image to the window.
        let length = number("length").max(number("roi"));
        assert_eq!(
            starts(length, number("roi"), case["overlap"].as_f64().unwrap()),
            expected,
            "{case}"
        );
    }
}

#[test]
fn gaussian_weights_are_monais_within_four_ulps() {
    for case in cases("gaussian") {
        let (shape, expected) = array(&case, "output");
        let map = importance_map(sizes(&case["roi"]));
        // exp of two libraries differs in the last place, and three are multiplied.
        assert!(largest_ulps(&map, &turned(&shape, &expected)) <= 4.0);
    }
    let case = &cases("gaussian_summary")[0];
    let map = importance_map(sizes(&case["roi"]));
    let least = map.iter().copied().fold(f32::INFINITY, f32::min);
    assert_eq!(f64::from(least), case["min"].as_f64().unwrap());
    assert_eq!(
        map.iter().filter(|weight| **weight == least).count() as u64,
        case["at_min"].as_u64().unwrap()
    );
    let (most, sum) = (
        map.iter().copied().fold(0.0, f32::max),
        map.iter().map(|weight| f64::from(*weight)).sum::<f64>(),
    );
    assert!((f64::from(most) - case["max"].as_f64().unwrap()).abs() < 1e-6);
    assert!((sum / case["sum"].as_f64().unwrap() - 1.0).abs() < 1e-6);
}

/// Constant blending is the same bit for bit; gaussian weights differ from MONAI's in the last place, and the quotient of two sums of them by a few.
#[test]
fn blending_is_monais_for_a_network_that_depends_on_the_place_in_the_window() {
    for case in cases("sliding_window") {
        let (shape, input) = array(&case, "input");
        let (_, expected) = array(&case, "output");
        let (input, expected) = (turned(&shape, &input), turned(&shape, &expected));
        let image = image([shape[2], shape[1], shape[0]], input);
        for (axes, batch) in [(Axes::Zyx, 1), (Axes::Xyz, 1), (Axes::Zyx, 4), (Axes::Xyz, 7)] {
            let options = options(
                sizes(&case["roi"]),
                case["overlap"].as_f64().unwrap(),
                blend(&case),
                axes,
            );
            let (values, windows, skipped) = run(&image, &options, batch, |_, value, place| ramp(value, place));
            assert_eq!((windows, skipped), (case["starts"].as_array().unwrap().len(), 0));
            let off = largest_ulps(&values, &expected);
            let allowed = if options.blend == Blend::Constant { 0.0 } else { 8.0 };
            assert!(off <= allowed, "{axes:?}, batches of {batch}: {off} ulps off in {case}");
        }
    }
}

#[test]
fn the_windows_of_a_whole_pipeline_are_monais() {
    for case in cases("pipeline") {
        let (shape, input) = array(&case, "network_input");
        let (_, expected) = array(&case, "network_output");
        let image = image([shape[2], shape[1], shape[0]], turned(&shape, &input));
        let options = options(
            sizes(&case["roi"]),
            case["overlap"].as_f64().unwrap(),
            blend(&case),
            Axes::Xyz,
        );
        let (values, windows, _) = run(&image, &options, 2, |_, value, place| 4.0 * (ramp(value, place) - 1.0));
        assert_eq!(windows, case["starts"].as_array().unwrap().len());
        // Values of either sign are summed, so that ulps of the result say nothing: the scale is 4.
        let off = values
            .iter()
            .zip(turned(&shape, &expected))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(off <= 2e-6, "off by {off}");
    }
}

/// A block of body in air.
fn body_in_air(shape: [usize; 3]) -> Image {
    let inside = |at: usize, n: usize| at >= n / 3 && at < n / 2;
    let values = (0..shape.iter().product::<usize>()).map(|at| {
        let [z, y, x] = [at / shape[2] / shape[1], at / shape[2] % shape[1], at % shape[2]];
        let body = inside(z, shape[0]) && inside(y, shape[1]) && inside(x, shape[2]);
        if body {
            0.7 + (at % 7) as f32 / 100.0
        } else {
            (at % 5) as f32 / 100.0
        }
    });
    image(shape, values.collect())
}

#[test]
fn windows_without_body_are_not_run_and_count_as_certain_background() {
    let image = body_in_air([24, 40, 40]);
    let mut options = options([8, 8, 4], 0.25, Blend::Constant, Axes::Zyx);
    options.activation = Activation::Sigmoid;
    options.skip_below = Some(0.5);
    let (values, windows, skipped) = run(&image, &options, 3, |_, _, _| 2.0);
    assert!(windows > 0 && skipped > windows);
    // The same by MONAI's rule: a network that answers 2 where there is body in the window, and -16 where there is none.
    let reference = {
        let starts = [starts(24, 4, 0.25), starts(40, 8, 0.25), starts(40, 8, 0.25)];
        let (mut sum, mut count) = (vec![0.0f32; 24 * 40 * 40], vec![0.0f32; 24 * 40 * 40]);
        for (sx, sy, sz) in starts[2]
            .iter()
            .flat_map(|x| starts[1].iter().flat_map(|y| starts[0].iter().map(|z| (*x, *y, *z))))
        {
            let voxels = || {
                (sz..sz + 4)
                    .flat_map(move |z| (sy..sy + 8).flat_map(move |y| (sx..sx + 8).map(move |x| (z * 40 + y) * 40 + x)))
            };
            let answer = if voxels().any(|at| image.values[at] >= 0.5) {
                2.0
            } else {
                -16.0
            };
            for at in voxels() {
                sum[at] += answer;
                count[at] += 1.0;
            }
        }
        sum.iter()
            .zip(&count)
            .map(|(sum, count)| 1.0 / (1.0 + (-(sum / count)).exp()))
            .collect::<Vec<f32>>()
    };
    assert_eq!(values, reference);
    assert!(values[0] < 1e-6, "air far from the body is background");
}

#[test]
fn skipping_off_runs_every_window() {
    let image = body_in_air([24, 40, 40]);
    let options = options([8, 8, 4], 0.25, Blend::Constant, Axes::Zyx);
    let (_, windows, skipped) = run(&image, &options, 3, |_, value, place| ramp(value, place));
    assert_eq!((windows, skipped), (8 * 7 * 7, 0));
}

#[test]
fn an_image_without_any_body_is_background_and_needs_no_window() {
    let empty = image([5, 9, 9], vec![0.1; 405]);
    for (activation, channels) in [
        (Activation::Sigmoid, 1),
        (Activation::Softmax, 2),
        (Activation::Softmax, 3),
        (Activation::None, 1),
    ] {
        let mut options = options([8, 8, 4], 0.25, Blend::Gaussian, Axes::Zyx);
        (options.activation, options.channels, options.skip_below) = (activation, channels, Some(0.5));
        let (values, windows, _) = run(&empty, &options, 3, |_, _, _| 100.0);
        assert_eq!(windows, 0);
        assert!(values.iter().all(|value| (0.0..1e-6).contains(value)), "{activation:?}");
    }
}

#[test]
fn softmax_of_two_channels_is_that_of_the_blended_channels() {
    let image = body_in_air([9, 20, 17]);
    for axes in [Axes::Zyx, Axes::Xyz] {
        let mut two = options([8, 8, 4], 0.5, Blend::Gaussian, axes);
        (two.channels, two.activation, two.foreground_channel) = (2, Activation::Softmax, 1);
        let channel = |index: usize, value: f32, place: [usize; 3]| {
            if index == 1 {
                3.0 * ramp(value, place)
            } else {
                1.0 - value
            }
        };
        let (probability, ..) = run(&image, &two, 2, channel);
        let one = options([8, 8, 4], 0.5, Blend::Gaussian, axes);
        let blended = |index| run(&image, &one, 2, |_, value, place| channel(index, value, place)).0;
        for ((have, background), foreground) in probability.iter().zip(blended(0)).zip(blended(1)) {
            let want = foreground.exp() / (foreground.exp() + background.exp());
            assert!((have - want).abs() < 1e-6, "{have} {want}");
        }
    }
}

#[test]
fn only_the_foreground_channel_counts_for_sigmoid() {
    let image = body_in_air([6, 12, 12]);
    let mut options = options([8, 8, 4], 0.25, Blend::Constant, Axes::Zyx);
    (options.channels, options.activation, options.foreground_channel) = (3, Activation::Sigmoid, 2);
    let (values, ..) = run(
        &image,
        &options,
        2,
        |channel, _, _| if channel == 2 { 1.0 } else { f32::NAN },
    );
    let expected = 1.0 / (1.0 + (-1.0f32).exp());
    assert!(values.iter().all(|value| *value == expected));
}

#[test]
fn an_answer_that_is_no_number_is_an_error() {
    let image = body_in_air([6, 12, 12]);
    let mut options = options([8, 8, 4], 0.25, Blend::Constant, Axes::Zyx);
    options.activation = Activation::Sigmoid;
    let mut predictor = Function::new(&options, 2, |_, value: f32, _| if value > 0.7 { f32::NAN } else { 0.0 });
    let result = slide(&image, &options, &mut predictor, &mut |_, _| {}, &CancelFlag::default());
    assert!(matches!(result, Err(ModelError::NotFinite(n)) if n > 0));
}

#[test]
fn an_answer_of_another_size_is_an_error() {
    let image = body_in_air([6, 12, 12]);
    let options = options([8, 8, 4], 0.25, Blend::Constant, Axes::Zyx);
    let mut predictor = Function::new(&options, 2, |_, value: f32, _| value);
    predictor.channels = 2;
    let result = slide(&image, &options, &mut predictor, &mut |_, _| {}, &CancelFlag::default());
    assert!(matches!(
        result,
        Err(ModelError::AnswerSize {
            found: 1024,
            expected: 512
        })
    ));
}

#[test]
fn an_image_that_does_not_hold_what_its_grid_says_is_an_error() {
    let options = options([8, 8, 4], 0.25, Blend::Constant, Axes::Zyx);
    for (shape, values) in [
        ([2, 2, 2], vec![0.0; 7]),
        ([0, 2, 2], vec![]),
        ([usize::MAX, 2, 2], vec![0.0; 4]),
    ] {
        let mut predictor = Function::new(&options, 1, |_, value: f32, _| value);
        let result = slide(
            &image(shape, values),
            &options,
            &mut predictor,
            &mut |_, _| {},
            &CancelFlag::default(),
        );
        assert!(matches!(result, Err(ModelError::ImageSize { .. })));
    }
}

#[test]
fn progress_ascends_to_the_total_and_cancel_ends_it() {
    let image = body_in_air([24, 40, 40]);
    let mut options = options([8, 8, 4], 0.25, Blend::Constant, Axes::Zyx);
    options.skip_below = Some(0.5);
    let mut seen = Vec::new();
    let mut predictor = Function::new(&options, 3, |_, value: f32, _| value);
    let slid = slide(
        &image,
        &options,
        &mut predictor,
        &mut |done, total| seen.push((done, total)),
        &CancelFlag::default(),
    )
    .unwrap();
    let total = slid.windows_run + slid.windows_skipped;
    assert_eq!((seen.first(), seen.last()), (Some(&(0, total)), Some(&(total, total))));
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[1].1 == total));

    let cancel = CancelFlag::default();
    let mut calls = 0;
    let result = slide(
        &image,
        &options,
        &mut predictor,
        &mut |_, _| {
            calls += 1;
            if calls == 3 {
                cancel.cancel()
            }
        },
        &cancel,
    );
    assert!(matches!(result, Err(ModelError::Canceled)));
    assert_eq!(calls, 3, "nothing is summed up after the cancel");
    assert!(predictor.answers.is_empty(), "what was submitted is abandoned");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A network that gives its input back gives the image, whatever the sizes, weights, axes and batches: every voxel is covered and put where it came from.
    #[test]
    fn a_network_that_changes_nothing_gives_the_image(
        shape in [1usize..14, 1usize..20, 1usize..40], roi in [1usize..24, 1usize..12, 1usize..9],
        overlap in 0.0f64..0.8, gaussian: bool, xyz: bool, batch in 1usize..5,
    ) {
        let voxels = shape.iter().product::<usize>();
        let image = image(shape, (0..voxels).map(|at| at as f32).collect());
        let blend = if gaussian { Blend::Gaussian } else { Blend::Constant };
        let options = options(roi, overlap, blend, if xyz { Axes::Xyz } else { Axes::Zyx });
        let (values, ..) = run(&image, &options, batch, |_, value, _| value);
        // Sums of up to some hundred products in single precision.
        for (have, want) in values.iter().zip(&image.values) {
            prop_assert!((have - want).abs() <= 1e-4 * want.max(1.0), "{} {}", have, want);
        }
    }
}
