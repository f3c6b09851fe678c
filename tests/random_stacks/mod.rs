//! Random stacks in the patient: turned, flipped, permuted, uneven, sheared; and the grid that a network wants of them.
#![allow(dead_code, clippy::unwrap_used)]

use hilum::dicom::Rescale;
use hilum::series::{Slice, Stack};
use hilum::volume::{Grid, GridSpecification, RegularGrid, Volume, Voxels, network_grid};
use proptest::prelude::*;

pub(crate) type Vector = [f64; 3];

pub(crate) fn dot(a: Vector, b: Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn cross(a: Vector, b: Vector) -> Vector {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

pub(crate) fn minus(a: Vector, b: Vector) -> Vector {
    std::array::from_fn(|i| a[i] - b[i])
}

pub(crate) fn unit(v: Vector) -> Vector {
    let length = dot(v, v).sqrt();
    v.map(|c| c / length)
}

/// A stack in the patient.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) grid: Grid,
    pub(crate) seed: u64,
    pub(crate) orientation: &'static str,
    pub(crate) spacing_mm: [f64; 3],
    pub(crate) straighten_over_degrees: f64,
}

/// Row and column direction: one of the 24 right-handed arrangements of the patient's axes, or any rotation.
pub(crate) fn directions() -> impl Strategy<Value = (Vector, Vector)> {
    let straight = (0..3_usize, any::<bool>(), 1..3_usize, any::<bool>()).prop_map(|(first, flip, further, flop)| {
        let axis =
            |i: usize, flip: bool| std::array::from_fn(|j| if i == j { if flip { -1.0 } else { 1.0 } } else { 0.0 });
        (axis(first, flip), axis((first + further) % 3, flop))
    });
    let turned = (
        prop::array::uniform3(-1.0..1.0_f64),
        prop::array::uniform3(-1.0..1.0_f64),
    )
        .prop_filter("not parallel", |(a, b)| {
            dot(*a, *a) > 0.05 && dot(cross(*a, *b), cross(*a, *b)) > 0.02
        })
        .prop_map(|(a, b)| {
            let row = unit(a);
            (row, unit(minus(b, row.map(|c| c * dot(b, row)))))
        });
    prop_oneof![straight, turned]
}

/// Slices at these heights along the normal, each moved along row and column by `shear` times its height.
pub(crate) fn grid(
    (row_direction, column_direction): (Vector, Vector),
    first: Vector,
    shear: [f64; 2],
    spacing_mm: [f64; 2],
    [rows, columns]: [usize; 2],
    heights: &[f64],
) -> Grid {
    let normal = cross(row_direction, column_direction);
    let way: Vector = std::array::from_fn(|i| normal[i] + shear[0] * row_direction[i] + shear[1] * column_direction[i]);
    Grid {
        rows,
        columns,
        origins: heights
            .iter()
            .map(|height| std::array::from_fn(|i| first[i] + height * way[i]))
            .collect(),
        row_direction,
        column_direction,
        normal,
        spacing_mm,
    }
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    (
        (
            directions(),
            2..9_usize,
            1..9_usize,
            1..10_usize,
            prop::collection::vec(0.3..6.0_f64, 8),
            any::<bool>(),
        ),
        (
            prop_oneof![Just([0.0, 0.0]), prop::array::uniform2(-0.5..0.5_f64)],
            prop::array::uniform2(0.4..3.0_f64),
        ),
        prop::array::uniform3(-200.0..200.0_f64),
        any::<u64>(),
        prop::sample::select(vec!["LPS", "RAS", "SPL", "AIR", "PSR"]),
        prop::array::uniform3(0.5..4.0_f64),
        prop::sample::select(vec![0.0, 10.0, 180.0]),
    )
        .prop_map(
            |(stack, (shear, spacing_mm), first, seed, orientation, network_mm, straighten_over_degrees)| {
                let (directions, slices, rows, columns, steps, even) = stack;
                let heights: Vec<f64> = (0..slices)
                    .scan(0.0, |height, k| {
                        let here = *height;
                        *height += steps[if even { 0 } else { k % steps.len() }];
                        Some(here)
                    })
                    .collect();
                let grid = grid(directions, first, shear, spacing_mm, [rows, columns], &heights);
                Case {
                    grid,
                    seed,
                    orientation,
                    spacing_mm: network_mm,
                    straighten_over_degrees,
                }
            },
        )
}

/// A stack of single-frame instances on a grid.
pub(crate) fn stack(grid: &Grid) -> Stack {
    let rescale = Rescale {
        slope: 1.0,
        intercept: -1024.0,
    };
    let slices = grid.origins.iter().zip(grid.positions_mm()).enumerate();
    Stack {
        slices: slices
            .map(|(instance, (origin, position_mm))| Slice {
                instance,
                frame: 0,
                origin: *origin,
                position_mm,
                rescale,
            })
            .collect(),
        rows: grid.rows,
        columns: grid.columns,
        pixel_spacing_mm: grid.spacing_mm,
        row_direction: grid.row_direction,
        column_direction: grid.column_direction,
        normal: grid.normal,
    }
}

impl Case {
    pub(crate) fn specification(&self) -> GridSpecification {
        GridSpecification {
            spacing_mm: self.spacing_mm,
            orientation: self.orientation.into(),
            window_hu: [-1500.0, 500.0],
            window_to: [0.0, 1.0],
            straighten_over_degrees: self.straighten_over_degrees,
        }
    }

    pub(crate) fn network(&self) -> RegularGrid {
        network_grid(&self.grid, &self.specification()).unwrap()
    }

    /// Pseudo-random whole numbers from `low` up to `low + range`.
    pub(crate) fn noise(&self, n: usize, low: i16, range: u64) -> Vec<i16> {
        let mut state = self.seed | 1;
        (0..n)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                low + ((state >> 33) % range) as i16
            })
            .collect()
    }

    pub(crate) fn volume(&self) -> Volume {
        let voxels = self.noise(self.grid.voxel_count(), -1100, 1600);
        Volume {
            grid: self.grid.clone(),
            voxels: Voxels::I16(voxels),
            padding_hu: vec![None; self.grid.origins.len()],
        }
    }

    /// Whether the network's grid runs along the stack's axes.
    pub(crate) fn parallel(&self, to: &RegularGrid) -> bool {
        let own = [self.grid.row_direction, self.grid.column_direction, self.grid.normal];
        self.grid.is_straight()
            && own
                .iter()
                .all(|b| to.axes.iter().any(|a| dot(*a, *b).abs() > 1.0 - 1e-12))
    }
}
