//! A stack's grid and what a network wants in, the network's grid out; and the even grid for exports.
//!
//! A stack without shear keeps its own axes, and its grid is the one that MONAI's `Orientation` and `Spacing` make: anchored at the first voxel after
//! re-orientation, `n = round((n - 1) * s / t + 1)` voxels along an axis. A sheared stack (gantry tilt), and one that is straightened, gets an orthogonal
//! grid that covers all its voxel centres.

use super::{Grid, GridSpecification, RegularGrid};
use crate::series::vector::{difference, dot};

/// An axis whose spacing is this near to what is wanted is left alone (MONAI's `AFFINE_TOL`).
const SPACING_TOLERANCE_MM: f64 = 1e-3;
/// Sizes this near to a half are ties, whatever the last bits of the division say.
const TIE: f64 = 1e-6;
/// No network is given more voxels than this.
const MOST_VOXELS: f64 = 2e9;
/// An even grid has at most so many slices for each of the source's: two slices that nearly coincide would else make thousands of it.
const MOST_SLICES_EACH: usize = 4;
/// And never more than this: the most that a NIfTI-1 header can say.
const MOST_EVEN_SLICES: usize = 32_767;

/// Why a stack has no grid for the network, or none to be exported on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GridError {
    /// The orientation is not three letters, one of each pair.
    #[error("orientation \"{0}\" is not three letters, one of L/R, one of P/A and one of S/I")]
    Orientation(String),
    /// The spacing is not three positive numbers.
    #[error("spacing {0:?} mm is not three positive numbers")]
    Spacing([f64; 3]),
    /// The grid would be absurdly large.
    #[error("the grid would have {0:.3e} voxels")]
    TooLarge(f64),
}

/// The grid on which a network sees a stack.
///
/// # Errors
/// The specification makes no sense, or makes an absurdly large grid.
pub fn network_grid(grid: &Grid, specification: &GridSpecification) -> Result<RegularGrid, GridError> {
    let wanted = directions(&specification.orientation)?;
    let target = specification.spacing_mm;
    if !target.iter().all(|t| t.is_finite() && *t > 0.0) {
        return Err(GridError::Spacing(target));
    }
    let own = [grid.row_direction, grid.column_direction, grid.normal];
    let nearest = nearest_patient_axes(&own);
    let turned = (0..3)
        .map(|b| own[b][nearest[b]].abs().min(1.0).acos().to_degrees())
        .fold(0.0, f64::max);
    if turned > specification.straighten_over_degrees {
        let axes = wanted.map(|(axis, sign)| std::array::from_fn(|i| if i == axis { sign } else { 0.0 }));
        return covering(grid, axes, target);
    }

    let mut axes = [[0.0; 3]; 3];
    let mut sources = [0; 3];
    for (a, (axis, sign)) in wanted.into_iter().enumerate() {
        let b = nearest.iter().position(|n| *n == axis).unwrap_or(a);
        let flip = if own[b][axis] * sign < 0.0 { -1.0 } else { 1.0 };
        axes[a] = own[b].map(|component| component * flip);
        sources[a] = b;
    }
    if !grid.is_straight() {
        return covering(grid, axes, target);
    }
    let slices = grid.origins.len();
    let height = dot(difference(grid.origins[slices - 1], grid.origins[0]), grid.normal);
    let extents = [
        (grid.columns - 1) as f64 * grid.spacing_mm[1],
        (grid.rows - 1) as f64 * grid.spacing_mm[0],
        height,
    ];
    let step = if grid.is_even() && slices > 1 {
        height / (slices - 1) as f64
    } else {
        f64::INFINITY
    };
    let spacings = [grid.spacing_mm[1], grid.spacing_mm[0], step];

    let mut made = RegularGrid {
        shape: [1; 3],
        origin: grid.origins[0],
        axes,
        spacing_mm: target,
    };
    let mut sizes = [1.0; 3];
    for a in 0..3 {
        let b = sources[a];
        if (spacings[b] - target[a]).abs() <= SPACING_TOLERANCE_MM {
            made.spacing_mm[a] = spacings[b];
        }
        sizes[a] = round_half_even(extents[b] / made.spacing_mm[a] + 1.0);
        if dot(axes[a], own[b]) < 0.0 {
            for (coordinate, direction) in made.origin.iter_mut().zip(own[b]) {
                *coordinate += extents[b] * direction;
            }
        }
    }
    made.shape = shape(sizes)?;
    Ok(made)
}

/// The even, orthogonal grid on which a stack is exported where one affine cannot describe it: the stack's own axes and pixel spacing, the smallest step
/// between slices, covering every voxel centre. Where that step would make more than four times the source's slices, or more than 32,767, the step is as much larger.
/// A stack that is regular keeps its voxels.
///
/// # Errors
/// Two slices coincide, or the grid would be absurdly large.
pub fn even_grid(grid: &Grid) -> Result<RegularGrid, GridError> {
    let axes = [grid.row_direction, grid.column_direction, grid.normal];
    let slices = grid.origins.len();
    let height = dot(difference(grid.origins[slices - 1], grid.origins[0]), grid.normal);
    let mut step = grid.steps_mm().into_iter().fold(f64::INFINITY, f64::min);
    if grid.is_even() && slices > 1 {
        step = height / (slices - 1) as f64;
    }
    if slices == 1 {
        step = 1.0;
    }
    let most = slices.saturating_mul(MOST_SLICES_EACH).min(MOST_EVEN_SLICES);
    if !grid.is_even() && step > 0.0 {
        step = step.max(height / (most - 1) as f64);
    }
    let spacing_mm = [grid.spacing_mm[1], grid.spacing_mm[0], step];
    if !spacing_mm.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err(GridError::Spacing(spacing_mm));
    }
    if !grid.is_straight() {
        return covering(grid, axes, spacing_mm);
    }
    let sizes = [
        grid.columns as f64,
        grid.rows as f64,
        (height / step - TIE).ceil() + 1.0,
    ];
    Ok(RegularGrid {
        shape: shape(sizes)?,
        origin: grid.origins[0],
        axes,
        spacing_mm,
    })
}

/// The smallest grid along `axes` that covers every voxel centre of a stack.
fn covering(grid: &Grid, axes: [[f64; 3]; 3], spacing_mm: [f64; 3]) -> Result<RegularGrid, GridError> {
    let (rows, columns) = ((grid.rows - 1) as f64, (grid.columns - 1) as f64);
    let mut low = [f64::INFINITY; 3];
    let mut high = [f64::NEG_INFINITY; 3];
    for slice in 0..grid.origins.len() {
        for (row, column) in [(0.0, 0.0), (rows, 0.0), (0.0, columns), (rows, columns)] {
            let corner = grid.centre(slice, row, column);
            for a in 0..3 {
                let along = dot(corner, axes[a]);
                low[a] = low[a].min(along);
                high[a] = high[a].max(along);
            }
        }
    }
    let sizes = std::array::from_fn(|a| ((high[a] - low[a]) / spacing_mm[a] - TIE).ceil().max(0.0) + 1.0);
    let origin = std::array::from_fn(|i| (0..3).map(|a| low[a] * axes[a][i]).sum());
    Ok(RegularGrid {
        shape: shape(sizes)?,
        origin,
        axes,
        spacing_mm,
    })
}

/// Numbers of voxels along x, y, z as a shape `[z][y][x]`.
fn shape(sizes: [f64; 3]) -> Result<[usize; 3], GridError> {
    let voxels: f64 = sizes.iter().product();
    if voxels.is_finite() && voxels <= MOST_VOXELS {
        Ok([sizes[2] as usize, sizes[1] as usize, sizes[0] as usize])
    } else {
        Err(GridError::TooLarge(voxels))
    }
}

/// NumPy's `round`, with the last bits before a tie ignored.
fn round_half_even(value: f64) -> f64 {
    let below = value.floor();
    if (value - below - 0.5).abs() < TIE {
        (below + 0.5).round_ties_even()
    } else {
        value.round()
    }
}

/// For each letter the patient axis (LPS) along which it points, and its sign.
fn directions(orientation: &str) -> Result<[(usize, f64); 3], GridError> {
    let wrong = || GridError::Orientation(orientation.chars().take(16).collect());
    let letters: Vec<(usize, f64)> = orientation
        .chars()
        .map(|letter| match letter {
            'L' => Some((0, 1.0)),
            'R' => Some((0, -1.0)),
            'P' => Some((1, 1.0)),
            'A' => Some((1, -1.0)),
            'S' => Some((2, 1.0)),
            'I' => Some((2, -1.0)),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let letters: [(usize, f64); 3] = letters.try_into().map_err(|_| wrong())?;
    if (0..3).all(|axis| letters.iter().any(|(a, _)| *a == axis)) {
        Ok(letters)
    } else {
        Err(wrong())
    }
}

/// The patient axis nearest to each of three perpendicular directions, every one once: the clearest direction chooses first (NiBabel's `io_orientation`).
fn nearest_patient_axes(own: &[[f64; 3]; 3]) -> [usize; 3] {
    let clearness = |b: usize| {
        own[b]
            .iter()
            .fold(0.0, |most: f64, component| most.max(component.abs()))
    };
    let mut order = [0, 1, 2];
    order.sort_by(|a, b| clearness(*b).total_cmp(&clearness(*a)));
    let mut taken = [false; 3];
    let mut nearest = [0; 3];
    for b in order {
        let mut best = None;
        for axis in (0..3).filter(|axis| !taken[*axis]) {
            if best.is_none_or(|previous: usize| own[b][axis].abs() > own[b][previous].abs()) {
                best = Some(axis);
            }
        }
        nearest[b] = best.unwrap_or(b);
        taken[nearest[b]] = true;
    }
    nearest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn specification(orientation: &str) -> GridSpecification {
        GridSpecification {
            spacing_mm: [0.8, 0.8, 5.0],
            orientation: orientation.into(),
            window_hu: [-1500.0, 500.0],
            window_to: [0.0, 1.0],
            straighten_over_degrees: 20.0,
        }
    }

    fn upright(slices: usize, step: f64) -> Grid {
        Grid {
            rows: 512,
            columns: 512,
            origins: (0..slices)
                .map(|k| [-170.0, -160.0, -300.0 + k as f64 * step])
                .collect(),
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            normal: [0.0, 0.0, 1.0],
            spacing_mm: [0.7, 0.7],
        }
    }

    /// The stack turned by an angle about the patient's left-right axis.
    fn turned(slices: usize, degrees: f64, shear: bool) -> Grid {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let normal = [0.0, -sine, cosine];
        let travel = if shear { [0.0, 0.0, 1.0] } else { normal };
        Grid {
            column_direction: [0.0, cosine, sine],
            normal,
            origins: (0..slices).map(|k| travel.map(|t| t * 2.0 * k as f64)).collect(),
            ..upright(slices, 2.0)
        }
    }

    #[test]
    fn the_grid_is_anchored_at_the_first_voxel_after_reorientation() {
        let grid = upright(300, 1.0);
        let lps = network_grid(&grid, &specification("LPS")).unwrap();
        assert_eq!(lps.shape, [61, 448, 448]);
        assert_eq!(lps.origin, grid.origins[0]);
        let ras = network_grid(&grid, &specification("RAS")).unwrap();
        assert_eq!(ras.axes, [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]);
        assert!((ras.origin[0] - (-170.0 + 511.0 * 0.7)).abs() < 1e-9);
    }

    #[test]
    fn a_permuted_orientation_permutes_the_axes() {
        let made = network_grid(&upright(300, 1.0), &specification("SPL")).unwrap();
        assert_eq!(made.axes, [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]);
        assert_eq!(made.shape, [73, 448, 375]);
    }

    #[test]
    fn an_axis_within_a_thousandth_of_the_spacing_is_left_alone() {
        let made = network_grid(&upright(40, 5.0009), &specification("LPS")).unwrap();
        assert_eq!(made.shape[0], 40);
        assert!((made.spacing_mm[2] - 5.0009).abs() < 1e-9);
    }

    #[test]
    fn a_turned_stack_keeps_its_axes_up_to_the_limit_and_is_straightened_over_it() {
        let kept = network_grid(&turned(50, 19.0, false), &specification("LPS")).unwrap();
        assert!(kept.axes[2][1] != 0.0);
        let straightened = network_grid(&turned(50, 21.0, false), &specification("LPS")).unwrap();
        assert_eq!(straightened.axes, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    }

    #[test]
    fn a_covering_grid_holds_every_corner() {
        for (grid, degrees) in [
            (turned(50, 15.0, true), 20.0),
            (turned(50, 15.0, true), 5.0),
            (turned(50, 30.0, false), 20.0),
        ] {
            let made = network_grid(
                &grid,
                &GridSpecification {
                    straighten_over_degrees: degrees,
                    ..specification("LPS")
                },
            )
            .unwrap();
            for slice in [0, 49] {
                for (row, column) in [(0.0, 0.0), (511.0, 0.0), (0.0, 511.0), (511.0, 511.0)] {
                    let index = made.index_of(grid.centre(slice, row, column));
                    for (i, n) in index.iter().zip(made.shape) {
                        assert!(
                            *i >= -1e-6 && *i <= n as f64 - 1.0 + 1e-5,
                            "{index:?} in {:?}",
                            made.shape
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for orientation in ["LP", "LPSS", "LPX", "LRS", ""] {
            assert!(
                matches!(
                    network_grid(&upright(3, 1.0), &specification(orientation)),
                    Err(GridError::Orientation(_))
                ),
                "{orientation}"
            );
        }
        let tiny = GridSpecification {
            spacing_mm: [1e-3, 1e-3, 1e-3],
            ..specification("LPS")
        };
        assert!(matches!(
            network_grid(&upright(3, 1.0), &tiny),
            Err(GridError::TooLarge(_))
        ));
        let negative = GridSpecification {
            spacing_mm: [0.8, -0.8, 5.0],
            ..specification("LPS")
        };
        assert!(matches!(
            network_grid(&upright(3, 1.0), &negative),
            Err(GridError::Spacing(_))
        ));
    }

    #[test]
    fn the_even_grid_takes_the_smallest_step() {
        let mut grid = upright(4, 3.0);
        grid.origins[1][2] = -298.5;
        let made = even_grid(&grid).unwrap();
        assert_eq!(made.shape, [7, 512, 512]);
        assert!((made.spacing_mm[2] - 1.5).abs() < 1e-9);
        let regular = even_grid(&upright(5, 1.3)).unwrap();
        assert_eq!(regular.shape, [5, 512, 512]);
    }

    #[test]
    fn slices_that_nearly_coincide_do_not_multiply_the_even_grid() {
        // 330 mm in steps of 2.5 mm, and one slice 0.03 mm from its neighbour: 11,001 slices at the smallest step.
        let mut grid = upright(133, 2.5);
        grid.origins[61][2] = grid.origins[60][2] + 0.03;
        for sheared in [false, true] {
            if sheared {
                for (k, origin) in grid.origins.iter_mut().enumerate() {
                    origin[1] += 0.5 * k as f64;
                }
            }
            let made = even_grid(&grid).unwrap();
            assert_eq!(made.shape[0], 4 * 133);
            let top = made.centre(4.0 * 133.0 - 1.0, 0.0, 0.0)[2];
            assert!((top - grid.origins[132][2]).abs() < 1e-6, "the last slice is reached");
        }
    }

    #[test]
    fn an_even_grid_has_no_more_slices_than_nifti_can_say() {
        let mut grid = Grid {
            rows: 1,
            columns: 1,
            ..upright(9000, 1.0)
        };
        grid.origins[1][2] -= 0.9;
        assert_eq!(even_grid(&grid).unwrap().shape, [32_767, 1, 1]);
    }

    #[test]
    fn slices_that_coincide_have_no_even_grid() {
        let mut grid = upright(4, 3.0);
        grid.origins[1] = grid.origins[0];
        assert!(matches!(even_grid(&grid), Err(GridError::Spacing(_))));
    }
}
