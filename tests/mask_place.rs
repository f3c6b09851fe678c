//! The whole way there and back with a network that hands its input on: cut at a value, its mask lies where the same cut on the source slices lies, whichever way the slices
//! lie in the patient, and whatever was cropped and skipped on the way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod random_stacks;

use std::collections::VecDeque;

use hilum::model::{
    Activation, Axes, Blend, CancelFlag, ModelError, Prediction, Predictor, WindowOptions, Windows, slide,
};
use hilum::volume::{Grid, GridSpecification, Volume, Voxels, Way, crop_to_body, mask_back, network_grid, resample};
use proptest::prelude::*;
use random_stacks::{Vector, directions, dot, grid, minus};

/// The cut between air and tissue.
const CUT_HU: f64 = -450.0;
/// HU change by so much for a millimetre across a surface.
const HU_PER_MM: f64 = 12.0;
/// Edge of the block of slices.
const EXTENT_MM: f64 = 120.0;
/// A body of tissue with a lung of air in it: radii, and how far the lung lies from the middle.
const BODY_MM: f64 = 38.0;
const LUNG_MM: f64 = 15.0;
const ASIDE_MM: f64 = 6.0;

/// Hands windows on as they came.
struct Unchanged(VecDeque<Windows>);

impl Predictor for Unchanged {
    fn batch(&self) -> usize {
        3
    }

    fn submit(&mut self, windows: Windows) -> Result<(), ModelError> {
        self.0.push_back(windows);
        Ok(())
    }

    fn receive(&mut self, _: &CancelFlag) -> Result<Prediction, ModelError> {
        let windows = self.0.pop_front().ok_or(ModelError::SessionLost)?;
        let values = Box::new(windows.values.clone());
        Ok(Prediction { windows, values })
    }

    fn abandon(&mut self) {
        self.0.clear();
    }
}

/// A stack with a body in its middle, and how a network looks at it.
#[derive(Clone, Debug)]
struct Case {
    grid: Grid,
    /// Middle of the lung.
    lung: Vector,
    body: Vector,
    specification: GridSpecification,
    windows: WindowOptions,
}

fn case() -> impl Strategy<Value = Case> {
    let stack = (
        directions(),
        prop_oneof![Just([0.0, 0.0]), prop::array::uniform2(-0.3..0.3_f64)],
        prop::array::uniform2(3.0..5.0_f64),
        prop_oneof![Just(vec![4.0]), prop::collection::vec(2.5..5.0_f64, 7)],
        prop::array::uniform3(-200.0..200.0_f64),
    );
    let network = (
        prop::sample::select(vec!["LPS", "RAS", "SPL", "AIR", "PSR"]),
        prop::array::uniform3(2.0..4.0_f64),
        prop::sample::select(vec![0.0, 10.0, 180.0]),
        prop::sample::select(vec![Axes::Zyx, Axes::Xyz]),
        prop::sample::select(vec![Blend::Constant, Blend::Gaussian]),
        prop::sample::select(vec![[16, 12, 8], [30, 30, 30], [9, 70, 12]]),
        any::<bool>(),
    );
    (stack, network, prop::array::uniform3(-1.0..1.0_f64)).prop_map(|(stack, network, aside)| {
        let (directions, shear, spacing_mm, steps, first) = stack;
        let (orientation, network_mm, straighten_over_degrees, axes, blend, roi, skip) = network;
        let mut heights = vec![0.0];
        while *heights.last().unwrap() < EXTENT_MM {
            heights.push(heights.last().unwrap() + steps[heights.len() % steps.len()]);
        }
        let counts = spacing_mm.map(|mm| (EXTENT_MM / mm).ceil() as usize + 1);
        let grid = grid(directions, first, shear, spacing_mm, counts, &heights);
        let [row, column] = counts.map(|n| (n - 1) as f64 / 2.0);
        let (low, high) = (grid.centre(0, row, column), grid.centre(heights.len() - 1, row, column));
        let body: Vector = std::array::from_fn(|i| 0.5 * (low[i] + high[i]));
        let lung = std::array::from_fn(|i| body[i] + aside[i] * ASIDE_MM / 3_f64.sqrt());
        let specification = GridSpecification {
            spacing_mm: network_mm,
            orientation: orientation.into(),
            window_hu: [-1500.0, 500.0],
            window_to: [0.0, 1.0],
            straighten_over_degrees,
        };
        let windows = WindowOptions {
            roi,
            overlap: 0.25,
            blend,
            axes,
            channels: 1,
            activation: Activation::None,
            foreground_channel: 0,
            skip_below: skip.then(|| scaled(-700.0)),
        };
        Case {
            grid,
            lung,
            body,
            specification,
            windows,
        }
    })
}

fn scaled(hu: f64) -> f32 {
    ((hu + 1500.0) / 2000.0) as f32
}

impl Case {
    /// Millimetres into the tissue; negative in the lung and outside the body.
    fn depth(&self, point: Vector) -> f64 {
        let distance = |from: Vector| dot(minus(point, from), minus(point, from)).sqrt();
        (BODY_MM - distance(self.body)).min(distance(self.lung) - LUNG_MM)
    }

    fn volume(&self) -> Volume {
        let [slices, rows, columns] = self.grid.shape();
        let mut voxels = Vec::with_capacity(self.grid.voxel_count());
        for k in 0..slices {
            for r in 0..rows {
                for c in 0..columns {
                    let depth = self.depth(self.grid.centre(k, r as f64, c as f64));
                    voxels.push((CUT_HU + HU_PER_MM * depth).round() as i16);
                }
            }
        }
        Volume {
            grid: self.grid.clone(),
            voxels: Voxels::I16(voxels),
            padding_hu: vec![None; slices],
        }
    }

    /// Half the smallest distance between voxels of the source.
    fn half_voxel_mm(&self) -> f64 {
        let steps = self.grid.steps_mm();
        let all = steps.iter().chain(&self.grid.spacing_mm);
        0.5 * all.copied().fold(f64::INFINITY, f64::min)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_mask_lies_where_the_same_cut_lies_on_the_source_slices(case in case()) {
        let volume = case.volume();
        let to = network_grid(&case.grid, &case.specification).unwrap();
        let whole = resample(&volume, &to, &case.specification);
        let body = crop_to_body(&whole, &case.specification, -500.0, 2.0).unwrap();
        let cropped = whole.cropped(&body);
        prop_assert!(cropped.grid.voxel_count() < whole.grid.voxel_count(), "there is air to crop");
        let mut network = Unchanged(VecDeque::new());
        let slid = slide(&cropped, &case.windows, &mut network, &mut |_, _| {}, &CancelFlag::default()).unwrap();
        let mask = mask_back(&slid.probability, scaled(CUT_HU), Way::Linear, &case.grid);
        prop_assert_eq!(mask.shape, case.grid.shape());
        let Voxels::I16(hu) = &volume.voxels else { unreachable!() };
        let [slices, rows, columns] = mask.shape;
        let (mut tissue, near) = (0, case.half_voxel_mm());
        for k in 0..slices {
            for r in 0..rows {
                for c in 0..columns {
                    let voxel = (k * rows + r) * columns + c;
                    let source = f64::from(hu[voxel]) >= CUT_HU;
                    tissue += usize::from(source);
                    let depth = case.depth(case.grid.centre(k, r as f64, c as f64));
                    prop_assert!(
                        (mask.labels[voxel] == 1) == source || depth.abs() < near,
                        "{:?} lies {} mm from the surface and is {} in the mask", [k, r, c], depth, mask.labels[voxel]
                    );
                }
            }
        }
        prop_assert!(tissue > 1000, "{}", tissue);
    }
}
