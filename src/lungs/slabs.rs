//! A grid in, the thickness and voxel volume of every slice out: true volumes where slices are unevenly spaced.

use crate::volume::Grid;

/// The part of the patient that each slice stands for, along the normal, in millimetres: half the distance to either neighbour (the Voronoi rule). An end slice
/// reaches as far outwards as inwards, so it has the whole distance to its one neighbour. A lone slice counts as 1 mm thick.
pub(super) fn thickness_mm(grid: &Grid) -> Vec<f64> {
    let position = |slice: usize| -> f64 { (0..3).map(|axis| grid.origins[slice][axis] * grid.normal[axis]).sum() };
    let count = grid.origins.len();
    (0..count)
        .map(|slice| match (slice, count) {
            (_, 1) => 1.0,
            (0, _) => (position(1) - position(0)).abs(),
            _ if slice + 1 == count => (position(slice) - position(slice - 1)).abs(),
            _ => (position(slice + 1) - position(slice - 1)).abs() / 2.0,
        })
        .collect()
}

/// Volume of one voxel of each slice, in millilitres.
pub(super) fn voxel_ml(grid: &Grid) -> Vec<f64> {
    let area_mm2 = grid.spacing_mm[0] * grid.spacing_mm[1];
    thickness_mm(grid)
        .into_iter()
        .map(|thickness| thickness * area_mm2 / 1000.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lungs::pieces::tests::grid;

    #[test]
    fn uneven_slices_have_half_the_distance_to_both_neighbours() {
        let mut grid = grid([4, 1, 1], [1.0, 2.0, 3.0]);
        for (origin, z) in grid.origins.iter_mut().zip([0.0, 1.0, 4.0, 6.0]) {
            origin[2] = z;
        }
        assert_eq!(thickness_mm(&grid), vec![1.0, 2.0, 2.5, 2.0]);
        assert_eq!(voxel_ml(&grid), vec![0.006, 0.012, 0.015, 0.012]);
    }
}
