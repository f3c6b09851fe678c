//! Sampling held against a slow f64 sampler written from the definition, on random stacks: turned, flipped, permuted, uneven, sheared, padded, cropped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod random_stacks;

use hilum::series::estimated_memory_bytes;
use hilum::volume::{
    AIR_HU, Cut, DOUBTFUL, Grid, GridSpecification, Image, Mask, RegularGrid, Volume, VoxelBox, Voxels, Way, even_grid,
    mask_back, network_grid, resample, resample_hu, resample_labels,
};
use proptest::prelude::*;
use random_stacks::{Vector, case, dot, minus, stack};

/// Index and fraction among `n` voxels, clamped.
fn clamped(index: f64, n: usize) -> (usize, usize, f64) {
    let index = index.clamp(0.0, (n - 1) as f64);
    let low = (index.floor() as usize).min(n.saturating_sub(2));
    (low, (low + 1).min(n - 1), index - low as f64)
}

/// HU of a voxel, `[slice][row][column]`.
type Voxel<'a> = &'a dyn Fn(usize, usize, usize) -> f64;

/// The value at a point from the definition, and how far inside the stack's reach the point lies in millimetres (negative outside).
fn by_definition(grid: &Grid, voxel: Voxel, point: Vector, reach: [f64; 3]) -> (f64, f64) {
    let slices = grid.origins.len();
    let heights: Vec<f64> = grid
        .origins
        .iter()
        .map(|o| dot(minus(*o, grid.origins[0]), grid.normal))
        .collect();
    let height = dot(minus(point, grid.origins[0]), grid.normal);
    let k = (0..slices - 2)
        .filter(|k| height >= heights[k + 1])
        .count()
        .min(slices - 2);
    let weight = ((height - heights[k]) / (heights[k + 1] - heights[k])).clamp(0.0, 1.0);
    let place = |k: usize| {
        let offset = minus(point, grid.origins[k]);
        [dot(offset, grid.column_direction), dot(offset, grid.row_direction)]
    };
    let in_slice = |k: usize| {
        let [down, along] = place(k);
        let (r0, r1, v) = clamped(down / grid.spacing_mm[0], grid.rows);
        let (c0, c1, u) = clamped(along / grid.spacing_mm[1], grid.columns);
        (1.0 - v) * ((1.0 - u) * voxel(k, r0, c0) + u * voxel(k, r0, c1))
            + v * ((1.0 - u) * voxel(k, r1, c0) + u * voxel(k, r1, c1))
    };
    let value = (1.0 - weight) * in_slice(k) + weight * in_slice(k + 1);
    let (a, b) = (place(k), place(k + 1));
    let within = |along: f64, extent: f64, reach: f64| (along + reach).min(extent + reach - along);
    let depth = within(height, heights[slices - 1], reach[0])
        .min(within(
            a[0] + weight * (b[0] - a[0]),
            (grid.rows - 1) as f64 * grid.spacing_mm[0],
            reach[1],
        ))
        .min(within(
            a[1] + weight * (b[1] - a[1]),
            (grid.columns - 1) as f64 * grid.spacing_mm[1],
            reach[2],
        ));
    (value, depth)
}

/// How far linear interpolation on a regular grid reaches along the stack's normal, column and row direction.
fn reach(grid: &Grid, to: &RegularGrid) -> [f64; 3] {
    [grid.normal, grid.column_direction, grid.row_direction].map(|direction| {
        (0..3)
            .map(|a| dot(to.axes[a], direction).abs() * to.spacing_mm[a])
            .sum()
    })
}

/// Every voxel index of a shape, slowest first.
fn indices([a, b, c]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| [i, j, k])))
}

fn centre(to: &RegularGrid, [z, y, x]: [usize; 3]) -> Vector {
    to.centre(z as f64, y as f64, x as f64)
}

/// Trilinear value of an image at a point in f64, and how far inside half a voxel around the grid it lies, in voxels.
fn image_at(image: &Image, point: Vector) -> (f64, f64) {
    let index = image.grid.index_of(point);
    let shape = image.grid.shape;
    let taps: [_; 3] = std::array::from_fn(|i| clamped(index[i], shape[i]));
    let mut value = 0.0;
    for corner in 0..8 {
        let mut weight = 1.0;
        let at: [usize; 3] = std::array::from_fn(|i| {
            let (low, high, fraction) = taps[i];
            weight *= if corner >> i & 1 == 1 { fraction } else { 1.0 - fraction };
            if corner >> i & 1 == 1 { high } else { low }
        });
        value += weight * f64::from(image.values[(at[0] * shape[1] + at[1]) * shape[2] + at[2]]);
    }
    let depth = (0..3)
        .map(|i| (index[i] + 0.5).min(shape[i] as f64 - 0.5 - index[i]))
        .fold(f64::INFINITY, f64::min);
    (value, depth)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_sample_is_what_the_definition_says(case in case()) {
        let mut volume = case.volume();
        let to = case.network();
        let Voxels::I16(voxels) = volume.voxels.clone() else { unreachable!() };
        let [_, rows, columns] = volume.grid.shape();
        let voxel = |k: usize, r: usize, c: usize| f64::from(voxels[(k * rows + r) * columns + c]);
        let reach = reach(&case.grid, &to);
        let parallel = case.parallel(&to);
        let compare = |made: &Image, voxel: Voxel, tolerance: f64, last: &dyn Fn(f64) -> f64| {
            for (index, made) in indices(to.shape).zip(&made.values) {
                let (value, depth) = by_definition(&case.grid, voxel, centre(&to, index), reach);
                if !parallel && depth.abs() < 1e-6 {
                    continue;
                }
                let wanted = if parallel || depth > 0.0 { value } else { f64::from(AIR_HU) };
                prop_assert!((f64::from(*made) - last(wanted)).abs() < tolerance, "{made} for {wanted} at {index:?}");
            }
            Ok(())
        };
        compare(&resample_hu(&volume, &to), &voxel, 2e-3, &|hu| hu)?;
        // The same as f32, and then with padding in the first slices.
        volume.voxels = Voxels::F32(voxels.iter().map(|v| f32::from(*v) + 0.25).collect());
        compare(&resample_hu(&volume, &to), &|k, r, c| voxel(k, r, c) + 0.25, 2e-3, &|hu| hu)?;
        volume.padding_hu[0] = Some((-400.0, 0.0));
        volume.padding_hu[1] = Some((100.0, 300.0));
        let padded = |k: usize, r: usize, c: usize| match (k, voxel(k, r, c) + 0.25) {
            (0, hu) if (-400.0..=0.0).contains(&hu) => f64::from(AIR_HU),
            (1, hu) if (100.0..=300.0).contains(&hu) => f64::from(AIR_HU),
            (_, hu) => hu,
        };
        compare(&resample(&volume, &to, &case.specification()), &padded, 2e-6, &|hu| ((hu + 1500.0) / 2000.0).clamp(0.0, 1.0))?;
    }

    #[test]
    fn every_label_is_cut_from_the_interpolated_value(case in case(), margins in prop::array::uniform6(0.0..0.4_f64)) {
        let full = case.network();
        let within = VoxelBox {
            start: std::array::from_fn(|i| (margins[i] * full.shape[i] as f64) as usize),
            end: std::array::from_fn(|i| full.shape[i] - (margins[i + 3] * full.shape[i] as f64) as usize),
        };
        for grid in [full.clone(), full.cropped(&within)] {
            let n = grid.voxel_count();
            // Few voxels of foreground, many, and both at once.
            for (threshold, cutoff) in [(0.97, 0.9), (0.1, 0.5), (0.5, 0.8)] {
                let values: Vec<f32> = case.noise(n, 0, 1000).iter().map(|v| f32::from(*v) / 999.0).map(|v| if v < cutoff { v * 0.1 } else { v }).collect();
                let image = Image { grid: grid.clone(), values };
                let mask = mask_back(&image, threshold, Way::Linear, &case.grid);
                prop_assert_eq!(mask.shape, case.grid.shape());
                for ([k, r, c], label) in indices(mask.shape).zip(&mask.labels) {
                    let (value, depth) = image_at(&image, case.grid.centre(k, r as f64, c as f64));
                    if (value - f64::from(threshold)).abs() < 1e-5 || depth.abs() < 2e-3 {
                        continue;
                    }
                    prop_assert_eq!(*label == 1, depth > 0.0 && value >= f64::from(threshold), "{} at {:?}, depth {}", value, [k, r, c], depth);
                }
                let nearest = mask_back(&image, threshold, Way::Nearest, &case.grid);
                for ([k, r, c], label) in indices(nearest.shape).zip(&nearest.labels) {
                    let index = grid.index_of(case.grid.centre(k, r as f64, c as f64));
                    let (_, depth) = image_at(&image, case.grid.centre(k, r as f64, c as f64));
                    if depth.abs() < 2e-3 || index.iter().any(|i| (i - i.floor() - 0.5).abs() < 1e-6) {
                        continue;
                    }
                    let [z, y, x]: [usize; 3] = std::array::from_fn(|i| (index[i].round().max(0.0) as usize).min(grid.shape[i] - 1));
                    let value = image.values[(z * grid.shape[1] + y) * grid.shape[2] + x];
                    prop_assert_eq!(*label == 1, depth > 0.0 && value >= threshold);
                }
            }
        }
    }

    #[test]
    fn what_lies_between_two_thresholds_is_doubtful(case in case()) {
        let grid = case.network();
        let values = case.noise(grid.voxel_count(), 0, 1000).iter().map(|v| f32::from(*v) / 999.0).collect();
        let image = Image { grid, values };
        for way in [Way::Linear, Way::Nearest] {
            let [sure, possible] = [0.8, 0.3].map(|threshold| mask_back(&image, threshold, way, &case.grid).labels);
            let cut = Cut { threshold: 0.8, doubtful_from: 0.3 };
            let expected: Vec<u8> = sure.iter().zip(&possible).map(|(&sure, &possible)| if sure == 1 { 1 } else { DOUBTFUL * possible }).collect();
            prop_assert_eq!(mask_back(&image, cut, way, &case.grid).labels, expected);
        }
    }

    /// However the stack lies in the patient, wherever one of its slices was moved to, and however uneven it is.
    #[test]
    fn no_series_needs_more_memory_than_was_estimated(
        case in case(), which in 0..9_usize, aside in prop_oneof![Just(0.0), -300.0..300.0_f64], larger in 1..60_usize,
    ) {
        let mut case = case;
        let (count, row) = (case.grid.origins.len(), case.grid.row_direction);
        for (coordinate, direction) in case.grid.origins[which % count].iter_mut().zip(row) {
            *coordinate += aside * direction;
        }
        case.grid.rows *= larger;
        case.grid.columns *= larger;
        let estimate = estimated_memory_bytes(&stack(&case.grid), case.spacing_mm);
        let source = case.grid.voxel_count() as u64;
        // The volume, the mask and its components; input, sums and weights of the network.
        prop_assert!(source * 7 + case.network().voxel_count() as u64 * 16 <= estimate);
        // The volume and the mask, and both again as images.
        let even = if case.grid.is_regular() { 0 } else { even_grid(&case.grid).unwrap().voxel_count() as u64 };
        prop_assert!(source * 3 + even * 5 <= estimate);
    }

    #[test]
    fn the_uncropped_way_back_reaches_every_source_voxel(case in case()) {
        let grid = case.network();
        let image = Image { values: vec![0.5; grid.voxel_count()], grid };
        for way in [Way::Linear, Way::Nearest] {
            prop_assert!(mask_back(&image, 0.5, way, &case.grid).labels.iter().all(|label| *label == 1));
            prop_assert!(mask_back(&image, 0.6, way, &case.grid).labels.iter().all(|label| *label == 0));
        }
    }

    /// A field that is linear in space is reproduced where nothing is clamped, whatever the steps and the tilt: a half space comes back as it was.
    #[test]
    fn a_linear_field_survives_uneven_steps_and_tilt(case in case(), slope in prop::array::uniform3(-2.0..2.0_f64)) {
        let middle = case.grid.centre(0, 0.0, 0.0);
        let field = |point: Vector| dot(minus(point, middle), slope);
        let values = indices(case.grid.shape()).map(|[k, r, c]| field(case.grid.centre(k, r as f64, c as f64)) as f32).collect();
        let volume = Volume { grid: case.grid.clone(), voxels: Voxels::F32(values), padding_hu: vec![None; case.grid.origins.len()] };
        let to = case.network();
        let made = resample_hu(&volume, &to);
        for (index, value) in indices(to.shape).zip(&made.values) {
            let point = centre(&to, index);
            let inside = {
                // Inside both neighbouring slices, so that nothing is clamped.
                let heights: Vec<f64> = case.grid.positions_mm();
                let height = dot(minus(point, case.grid.origins[0]), case.grid.normal);
                let k = heights.iter().filter(|h| **h <= height).count();
                k > 0 && k < heights.len() && [k - 1, k].iter().all(|k| {
                    let offset = minus(point, case.grid.origins[*k]);
                    let down = dot(offset, case.grid.column_direction) / case.grid.spacing_mm[0];
                    let along = dot(offset, case.grid.row_direction) / case.grid.spacing_mm[1];
                    down >= 0.0 && along >= 0.0 && down <= (case.grid.rows - 1) as f64 && along <= (case.grid.columns - 1) as f64
                })
            };
            if inside {
                prop_assert!((f64::from(*value) - field(point)).abs() < 1e-3, "{value} for {}", field(point));
            }
        }
        // And back: the half space above the middle.
        let image = Image { values: indices(to.shape).map(|index| field(centre(&to, index)) as f32).collect(), grid: to };
        let mask = mask_back(&image, 0.0, Way::Linear, &case.grid);
        for ([k, r, c], label) in indices(mask.shape).zip(&mask.labels) {
            let point = case.grid.centre(k, r as f64, c as f64);
            let (_, depth) = image_at(&image, point);
            if depth > 0.5 + 1e-6 && field(point).abs() > 1e-3 {
                prop_assert_eq!(*label == 1, field(point) > 0.0);
            }
        }
    }

    #[test]
    fn on_the_stacks_own_spacing_every_voxel_is_kept_whatever_the_orientation(case in case()) {
        // Even to the last bits: samples are taken at true positions, and within the tolerance of `is_regular` those are not voxels.
        let step = case.grid.median_step_mm();
        let mut case = case;
        let first = case.grid.origins[0];
        for (k, origin) in case.grid.origins.iter_mut().enumerate() {
            *origin = std::array::from_fn(|i| first[i] + k as f64 * step * case.grid.normal[i]);
        }
        let own = [(case.grid.row_direction, case.grid.spacing_mm[1]), (case.grid.column_direction, case.grid.spacing_mm[0]), (case.grid.normal, step)];
        let mut specification = GridSpecification { straighten_over_degrees: 180.0, ..case.specification() };
        let axes = network_grid(&case.grid, &specification).unwrap().axes;
        specification.spacing_mm = axes.map(|axis| own.iter().find(|(direction, _)| dot(axis, *direction).abs() > 0.999).unwrap().1);
        let to = network_grid(&case.grid, &specification).unwrap();
        prop_assert_eq!(to.voxel_count(), case.grid.voxel_count());
        let volume = case.volume();
        let made = resample_hu(&volume, &to);
        let Voxels::I16(voxels) = &volume.voxels else { unreachable!() };
        for ([k, r, c], voxel) in indices(case.grid.shape()).zip(voxels) {
            let [z, y, x] = to.index_of(case.grid.centre(k, r as f64, c as f64)).map(|i| i.round() as usize);
            let value = made.values[(z * to.shape[1] + y) * to.shape[2] + x];
            prop_assert!((value - f32::from(*voxel)).abs() < 1e-2, "{value} for {voxel}");
        }
        let labels: Vec<u8> = voxels.iter().map(|v| (v.unsigned_abs() % 3) as u8).collect();
        let mask = Mask { shape: case.grid.shape(), labels };
        let made = resample_labels(&mask, &case.grid, &to);
        for ([k, r, c], label) in indices(mask.shape).zip(&mask.labels) {
            let [z, y, x] = to.index_of(case.grid.centre(k, r as f64, c as f64)).map(|i| i.round() as usize);
            prop_assert_eq!(made.labels[(z * to.shape[1] + y) * to.shape[2] + x], *label);
        }
    }

    #[test]
    fn an_even_grid_holds_every_slice_and_the_nearest_label(case in case()) {
        let to = even_grid(&case.grid).unwrap();
        for [k, r, c] in indices(case.grid.shape()) {
            let index = to.index_of(case.grid.centre(k, r as f64, c as f64));
            prop_assert!(index.iter().zip(to.shape).all(|(i, n)| *i > -1e-5 && *i < n as f64 - 1.0 + 1e-5), "{index:?} in {:?}", to.shape);
        }
        let labels = case.noise(case.grid.voxel_count(), 0, 3).iter().map(|v| *v as u8).collect();
        let mask = Mask { shape: case.grid.shape(), labels };
        let made = resample_labels(&mask, &case.grid, &to);
        prop_assert_eq!(made.shape, to.shape);
        // A grid voxel that lies on a voxel of the stack has its label.
        for ([k, r, c], label) in indices(mask.shape).zip(&mask.labels) {
            let index = to.index_of(case.grid.centre(k, r as f64, c as f64));
            if index.iter().all(|i| (i - i.round()).abs() < 1e-6) {
                let [z, y, x] = index.map(|i| i.round() as usize);
                prop_assert_eq!(made.labels[(z * to.shape[1] + y) * to.shape[2] + x], *label);
            }
        }
    }
}
