//! The volume's way held against MONAI's own numbers: `tests/goldens/monai`, made by `tests/goldens/monai_reference.py --goldens`.
//!
//! MONAI interpolates in f64 and Hilum in f32: for HU of up to 1500 the two differ by at most 1e-3 HU, for probabilities and on the network's range by 1e-6.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use hilum::volume::{
    Grid, GridSpecification, Image, RegularGrid, Volume, Voxels, Way, mask_back, network_grid, resample, resample_hu,
};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/monai")
}

fn cases(kind: &str) -> Vec<Value> {
    let index: Value = serde_json::from_slice(&std::fs::read(folder().join("index.json")).unwrap()).unwrap();
    let cases: Vec<Value> = index["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["kind"] == kind)
        .cloned()
        .collect();
    assert!(!cases.is_empty(), "no case of {kind}");
    cases
}

/// A little-endian float32 array in C order, `[x][y][z]`, and its shape.
fn array(case: &Value, name: &str) -> (Vec<f32>, [usize; 3]) {
    let bytes = std::fs::read(folder().join(case["files"][name].as_str().unwrap())).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let head = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(
        head.contains("'<f4'") && head.contains("'fortran_order': False"),
        "{head}"
    );
    let inside = head.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let shape: Vec<usize> = inside.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let values: Vec<f32> = bytes[10 + length..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    (values, shape.try_into().unwrap())
}

/// `[x][y][z]` to `[z][y][x]`.
fn slowest_last(values: &[f32], [nx, ny, nz]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for z in 0..nz {
        for y in 0..ny {
            out.extend((0..nx).map(|x| values[(x * ny + y) * nz + z]));
        }
    }
    out
}

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    let found: Vec<f64> = value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    found.try_into().unwrap()
}

/// Origin, unit axes and spacing in LPS of a RAS affine.
fn affine(value: &Value) -> ([f64; 3], [[f64; 3]; 3], [f64; 3]) {
    let rows: Vec<[f64; 4]> = value.as_array().unwrap().iter().map(numbers).collect();
    let column = |j: usize| [-rows[0][j], -rows[1][j], rows[2][j]];
    let spacing = [0, 1, 2].map(|j| column(j).iter().map(|v| v * v).sum::<f64>().sqrt());
    (column(3), [0, 1, 2].map(|j| column(j).map(|v| v / spacing[j])), spacing)
}

/// The stack whose columns, rows and slices are the golden's x, y and z.
fn grid(value: &Value, [nx, ny, nz]: [usize; 3]) -> Grid {
    let (origin, axes, spacing) = affine(value);
    Grid {
        rows: ny,
        columns: nx,
        origins: (0..nz)
            .map(|k| std::array::from_fn(|i| origin[i] + k as f64 * spacing[2] * axes[2][i]))
            .collect(),
        row_direction: axes[0],
        column_direction: axes[1],
        normal: axes[2],
        spacing_mm: [spacing[1], spacing[0]],
    }
}

fn volume(grid: &Grid, hu: &[f32], whole: bool) -> Volume {
    let voxels = if whole {
        Voxels::I16(hu.iter().map(|v| *v as i16).collect())
    } else {
        Voxels::F32(hu.to_vec())
    };
    Volume {
        grid: grid.clone(),
        voxels,
        padding_hu: vec![None; grid.origins.len()],
    }
}

/// The orientation that leaves a stack's axes as they are: its own letters.
fn own_letters(grid: &Grid) -> String {
    [grid.row_direction, grid.column_direction, grid.normal]
        .iter()
        .map(|direction| {
            let axis = (0..3)
                .max_by(|a, b| direction[*a].abs().total_cmp(&direction[*b].abs()))
                .unwrap();
            [['L', 'R'], ['P', 'A'], ['S', 'I']][axis][usize::from(direction[axis] < 0.0)]
        })
        .collect()
}

fn specification(grid: &Grid, spacing: &Value) -> GridSpecification {
    GridSpecification {
        spacing_mm: numbers(spacing),
        orientation: own_letters(grid),
        window_hu: [-1500.0, 500.0],
        window_to: [0.0, 1.0],
        straighten_over_degrees: 180.0,
    }
}

fn assert_same_grid(made: &RegularGrid, shape_xyz: &Value, affine_ras: &Value) {
    let shape: [f64; 3] = numbers(shape_xyz);
    assert_eq!(made.shape.map(|n| n as f64), [shape[2], shape[1], shape[0]]);
    let (origin, axes, spacing) = affine(affine_ras);
    for i in 0..3 {
        assert!(
            (made.origin[i] - origin[i]).abs() < 1e-9,
            "{:?} {origin:?}",
            made.origin
        );
        assert!(
            (made.spacing_mm[i] - spacing[i]).abs() < 1e-9,
            "{:?} {spacing:?}",
            made.spacing_mm
        );
        for j in 0..3 {
            assert!((made.axes[i][j] - axes[i][j]).abs() < 1e-9, "{:?} {axes:?}", made.axes);
        }
    }
}

fn assert_near(made: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(made.len(), wanted.len());
    let worst = made.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "up to {worst} apart");
}

#[test]
fn resampling_gives_the_numbers_of_monai_spacing() {
    for case in cases("spacing") {
        let (input, shape) = array(&case, "input");
        let (output, out_shape) = array(&case, "output");
        let grid = grid(&case["source_affine_ras"], shape);
        let to = network_grid(&grid, &specification(&grid, &case["target_spacing_mm"])).unwrap();
        assert_same_grid(&to, &case["target_shape"], &case["target_affine_ras"]);
        for whole in [true, false] {
            let made = resample_hu(&volume(&grid, &slowest_last(&input, shape), whole), &to);
            assert_near(&made.values, &slowest_last(&output, out_shape), 1e-3);
        }
    }
}

#[test]
fn the_way_back_by_probability_gives_the_mask_of_monai() {
    for case in cases("inverse_linear") {
        let (input, network_shape) = array(&case, "input");
        let (output, shape) = array(&case, "output");
        let grid = grid(&case["source_affine_ras"], shape);
        let network = network_grid(&grid, &specification(&grid, &case["target_spacing_mm"])).unwrap();
        let image = Image {
            grid: network,
            values: slowest_last(&input, network_shape),
        };
        let probability = slowest_last(&output, shape);
        for threshold in [0.05, 0.3, 0.5, 0.77, 0.95] {
            let mask = mask_back(&image, threshold, Way::Linear, &grid);
            for (label, probability) in mask.labels.iter().zip(&probability) {
                assert!(
                    (*label == 1) == (*probability >= threshold) || (probability - threshold).abs() < 1e-6,
                    "{label} at {probability}"
                );
            }
        }
    }
}

#[test]
fn the_way_back_by_nearest_label_gives_the_mask_of_monai() {
    for case in cases("inverse_nearest") {
        let (input, network_shape) = array(&case, "input");
        let (output, shape) = array(&case, "output");
        let grid = grid(&case["source_affine_ras"], shape);
        let network = network_grid(&grid, &specification(&grid, &case["target_spacing_mm"])).unwrap();
        let image = Image {
            grid: network,
            values: slowest_last(&input, network_shape),
        };
        let mask = mask_back(&image, 0.5, Way::Nearest, &grid);
        let wanted: Vec<u8> = slowest_last(&output, shape)
            .iter()
            .map(|v| u8::from(*v > 0.5))
            .collect();
        assert_eq!(mask.labels, wanted);
    }
}

/// Every second slice lies halfway between two voxels of the network's grid, and rows and columns do: the last bit of MONAI's arithmetic decides.
#[test]
fn halfway_between_two_voxels_the_nearest_label_is_the_one_that_monai_takes() {
    for case in cases("inverse_nearest_ties") {
        let (input, network_shape) = array(&case, "input");
        let (output, shape) = array(&case, "output");
        let grid = grid(&case["source_affine_ras"], shape);
        let specification = GridSpecification {
            orientation: case["orientation"].as_str().unwrap().into(),
            ..specification(&grid, &case["target_spacing_mm"])
        };
        let image = Image {
            grid: network_grid(&grid, &specification).unwrap(),
            values: slowest_last(&input, network_shape),
        };
        assert_eq!(image.grid.shape, [network_shape[2], network_shape[1], network_shape[0]]);
        let mask = mask_back(&image, 0.5, Way::Nearest, &grid);
        let wanted: Vec<u8> = slowest_last(&output, shape)
            .iter()
            .map(|v| u8::from(*v > 0.5))
            .collect();
        let differ = mask.labels.iter().zip(&wanted).filter(|(ours, theirs)| ours != theirs);
        assert_eq!(differ.count(), 0, "{}", case["source_affine_ras"]);
    }
}

#[test]
fn the_whole_way_on_an_oblique_stack_whose_axes_are_turned_is_that_of_monai() {
    for case in cases("pipeline") {
        let (input, shape) = array(&case, "input");
        let grid = grid(&case["affine_ras"], shape);
        let window: [f64; 2] = numbers(&case["window_hu"]);
        let specification = GridSpecification {
            spacing_mm: numbers(&case["spacing_mm"]),
            orientation: case["orientation"].as_str().unwrap().into(),
            window_hu: window.map(|hu| hu as f32),
            window_to: [0.0, 1.0],
            straighten_over_degrees: 180.0,
        };
        let to = network_grid(&grid, &specification).unwrap();
        let (network_input, network_shape) = array(&case, "network_input");
        assert_same_grid(&to, &serde_json::json!(network_shape), &case["network_affine_ras"]);
        let made = resample(&volume(&grid, &slowest_last(&input, shape), true), &to, &specification);
        assert_near(&made.values, &slowest_last(&network_input, network_shape), 1e-6);

        let (output, _) = array(&case, "network_output");
        let activated = slowest_last(&output, network_shape)
            .iter()
            .map(|v| 1.0 / (1.0 + (-v).exp()))
            .collect();
        let threshold = case["threshold"].as_f64().unwrap() as f32;
        let mask = mask_back(
            &Image {
                grid: to,
                values: activated,
            },
            threshold,
            Way::Linear,
            &grid,
        );
        let (wanted, wanted_shape) = array(&case, "mask");
        assert_eq!(wanted_shape, shape);
        assert!(
            mask.labels
                .iter()
                .map(|label| f32::from(*label))
                .eq(slowest_last(&wanted, shape))
        );
        let volume_of_one = mask.labels.iter().filter(|label| **label == 1).count();
        assert!(volume_of_one > 0 && volume_of_one < mask.labels.len());
    }
}
