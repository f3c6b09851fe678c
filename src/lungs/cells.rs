//! A grid in, the same space in cells of about 4 mm out: how full of lung each is, and how far each is from others. Where both lungs are sorted out roughly.

use std::ops::Range;

use rayon::prelude::*;

use super::runs::Runs;
use super::slabs;
use crate::volume::Grid;

/// Edge of a cell: whole voxels, near to this,
const CELL_MM: f64 = 4.0;

/// or longer, so that a box of any size has about so many cells at most. Lungs and what is between them have some 700,000.
const MOST_CELLS: f64 = 4e6;

/// A box of cells, `[slice][row][column]`, each a block of voxels.
pub(super) struct Cells {
    /// Cells along slices, rows, columns.
    pub(super) shape: [usize; 3],
    /// Edges of a cell along rows and columns, in millimetres.
    pub(super) edge_mm: [f64; 2],
    /// Of each layer of cells: the centre along the normal and the thickness, in millimetres.
    pub(super) layers: Vec<(f64, f64)>,
    /// Of each slice: its layer, and how many slices share it. Slices outside the box have none.
    of_slice: Vec<Option<(usize, usize)>>,
    /// Rows and columns of voxels in a cell.
    block: [usize; 2],
    /// First row and column of cells of the box.
    first: [usize; 2],
}

impl Cells {
    /// Cells around the runs, with one more on every side where the grid goes on.
    pub(super) fn around(bounds: &[Range<usize>; 3], grid: &Grid) -> Cells {
        let thickness = slabs::thickness_mm(grid);
        let area_mm2 = grid.spacing_mm[0] * grid.spacing_mm[1] * (bounds[1].len() * bounds[2].len()) as f64;
        let box_mm3 = area_mm2 * thickness[bounds[0].clone()].iter().sum::<f64>();
        let edge_mm = (box_mm3 / MOST_CELLS).cbrt().max(CELL_MM);
        let block = grid
            .spacing_mm
            .map(|spacing| (edge_mm / spacing).round().max(1.0) as usize);
        let voxels = [grid.rows, grid.columns];
        let span = |axis: usize| {
            let bounds = &bounds[axis + 1];
            let last = (voxels[axis] - 1) / block[axis];
            (bounds.start / block[axis]).saturating_sub(1)..((bounds.end - 1) / block[axis] + 1).min(last) + 1
        };
        let (rows, columns) = (span(0), span(1));
        let (of_slice, layers) = layers(&thickness, &bounds[0], edge_mm);
        Cells {
            shape: [layers.len(), rows.len(), columns.len()],
            edge_mm: [
                block[0] as f64 * grid.spacing_mm[0],
                block[1] as f64 * grid.spacing_mm[1],
            ],
            layers,
            of_slice,
            block,
            first: [rows.start, columns.start],
        }
    }

    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The first cell of the row of cells that a row of voxels runs through, if the box has it.
    pub(super) fn row(&self, slice: usize, row: usize) -> Option<usize> {
        let (layer, _) = self.of_slice[slice]?;
        let row = (row / self.block[0])
            .checked_sub(self.first[0])
            .filter(|&row| row < self.shape[1])?;
        Some((layer * self.shape[1] + row) * self.shape[2])
    }

    /// A run in stretches that lie in one cell each: the cell, counted from the first of the row, and the columns.
    pub(super) fn stretches(&self, columns: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let mut start = columns.start;
        std::iter::from_fn(move || {
            if start >= columns.end {
                return None;
            }
            let cell = start / self.block[1];
            let end = ((cell + 1) * self.block[1]).min(columns.end);
            let stretch = (cell - self.first[1], start..end);
            start = end;
            Some(stretch)
        })
    }

    /// The patient's x (LPS) of the centre of each cell, in millimetres.
    pub(super) fn x_mm(&self, grid: &Grid) -> Vec<f64> {
        let mut layers = vec![0.0; self.shape[0]];
        for (slice, origin) in grid.origins.iter().enumerate() {
            if let Some((layer, sharing)) = self.of_slice[slice] {
                layers[layer] += origin[0] / sharing as f64;
            }
        }
        let centre = |axis: usize, cell: usize| {
            (self.first[axis] + cell) as f64 * self.edge_mm[axis]
                + (self.block[axis] - 1) as f64 * grid.spacing_mm[axis] / 2.0
        };
        let mut x_mm = Vec::with_capacity(self.count());
        for layer in layers {
            for row in 0..self.shape[1] {
                let row_x = layer + centre(0, row) * grid.column_direction[0];
                x_mm.extend((0..self.shape[2]).map(|column| row_x + centre(1, column) * grid.row_direction[0]));
            }
        }
        x_mm
    }

    /// The up to 26 cells around a cell.
    pub(super) fn around_cell(&self, cell: usize) -> impl Iterator<Item = usize> + use<> {
        let [layers, rows, columns] = self.shape;
        let (layer, row, column) = (cell / columns / rows, cell / columns % rows, cell % columns);
        let near = |place: usize, count: usize| place.saturating_sub(1)..(place + 2).min(count);
        near(layer, layers)
            .flat_map(move |layer| {
                near(row, rows).flat_map(move |row| {
                    near(column, columns).map(move |column| (layer * rows + row) * columns + column)
                })
            })
            .filter(move |&other| other != cell)
    }

    /// The share of each cell's voxels that the runs hold.
    pub(super) fn filled(&self, runs: &Runs) -> Vec<f32> {
        let layer_size = self.shape[1] * self.shape[2];
        let mut filled = vec![0f32; self.count()];
        filled
            .par_chunks_mut(layer_size.max(1))
            .enumerate()
            .for_each(|(layer, filled)| {
                for slice in 0..runs.shape[0] {
                    let Some((_, sharing)) = self.of_slice[slice].filter(|&(of, _)| of == layer) else {
                        continue;
                    };
                    let voxel = 1.0 / (sharing * self.block[0] * self.block[1]) as f32;
                    for row in 0..runs.shape[1] {
                        let Some(first) = self.row(slice, row) else {
                            continue;
                        };
                        for run in &runs.runs[runs.row(slice, row)] {
                            for (cell, columns) in self.stretches(run.columns()) {
                                filled[first - layer * layer_size + cell] += columns.len() as f32 * voxel;
                            }
                        }
                    }
                }
            });
        filled
    }

    /// Distance from the centre of each cell to that of the nearest one in `targets`, squared, in square millimetres; infinite where there is none.
    ///
    /// Exact, one axis after another: Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions", Theory of Computing 8, 2012.
    pub(super) fn squared_distances(&self, targets: &[bool]) -> Vec<f64> {
        let [layers, rows, columns] = self.shape;
        let places = |count: usize, edge: f64| -> Vec<f64> { (0..count).map(|index| index as f64 * edge).collect() };
        let (row_places, column_places) = (places(rows, self.edge_mm[0]), places(columns, self.edge_mm[1]));
        let layer_places: Vec<f64> = self.layers.iter().map(|&(centre, _)| centre).collect();
        let mut values: Vec<f64> = targets
            .iter()
            .map(|&target| if target { 0.0 } else { f64::INFINITY })
            .collect();
        values.par_chunks_mut((rows * columns).max(1)).for_each(|layer| {
            let mut envelope = Envelope::default();
            for row in layer.chunks_exact_mut(columns) {
                envelope.lower(row, &column_places);
            }
            let mut line = vec![0.0; rows];
            for column in 0..columns {
                for (value, row) in line.iter_mut().zip(layer.chunks_exact(columns)) {
                    *value = row[column];
                }
                envelope.lower(&mut line, &row_places);
                for (value, row) in line.iter().zip(layer.chunks_exact_mut(columns)) {
                    row[column] = *value;
                }
            }
        });
        let mut envelope = Envelope::default();
        let mut line = vec![0.0; layers];
        for place in 0..rows * columns {
            for (layer, value) in line.iter_mut().enumerate() {
                *value = values[layer * rows * columns + place];
            }
            envelope.lower(&mut line, &layer_places);
            for (layer, value) in line.iter().enumerate() {
                values[layer * rows * columns + place] = *value;
            }
        }
        values
    }
}

/// Shares slices out to layers near to the edge of a cell; a slice thicker than that is a layer of its own.
#[allow(clippy::type_complexity)]
fn layers(thickness: &[f64], bounds: &Range<usize>, edge_mm: f64) -> (Vec<Option<(usize, usize)>>, Vec<(f64, f64)>) {
    let mut of_slice = vec![None; thickness.len()];
    let mut layers: Vec<(f64, f64)> = Vec::new();
    let range = bounds.start.saturating_sub(1)..(bounds.end + 1).min(thickness.len());
    let (mut first, mut begin) = (range.start, 0.0);
    while first < range.end {
        let (mut end, mut thick) = (first + 1, thickness[first]);
        while end < range.end && thick + thickness[end] / 2.0 <= edge_mm {
            thick += thickness[end];
            end += 1;
        }
        of_slice[first..end].fill(Some((layers.len(), end - first)));
        layers.push((begin + thick / 2.0, thick));
        begin += thick;
        first = end;
    }
    (of_slice, layers)
}

/// The parabolas that make the lower envelope of one line.
#[derive(Default)]
struct Envelope {
    /// Place and height of the lowest point of each, and where it begins to be the lowest.
    parabolas: Vec<(f64, f64, f64)>,
}

impl Envelope {
    /// Replaces each value by the least of value + squared distance over the line.
    fn lower(&mut self, values: &mut [f64], places: &[f64]) {
        self.parabolas.clear();
        for (&place, &height) in places
            .iter()
            .zip(values.iter())
            .filter(|(_, height)| height.is_finite())
        {
            let mut from = f64::NEG_INFINITY;
            while let Some(&(other, low, begins)) = self.parabolas.last() {
                from = ((height + place * place) - (low + other * other)) / (2.0 * (place - other));
                if from > begins {
                    break;
                }
                self.parabolas.pop();
                from = f64::NEG_INFINITY;
            }
            self.parabolas.push((place, height, from));
        }
        let mut current = 0;
        for (value, &place) in values.iter_mut().zip(places) {
            while self.parabolas.get(current + 1).is_some_and(|next| next.2 <= place) {
                current += 1;
            }
            if let Some(&(lowest, height, _)) = self.parabolas.get(current) {
                *value = height + (place - lowest) * (place - lowest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::lungs::pieces::tests::{box_of, grid};
    use crate::volume::Mask;

    #[test]
    fn cells_hold_the_share_of_voxels_that_are_lung() {
        let shape = [8, 16, 20];
        let mut mask = Mask {
            shape,
            labels: vec![0; shape.iter().product()],
        };
        box_of(&mut mask, [2..6, 5..10, 9..13], 1);
        let runs = Runs::of(&mask).unwrap();
        let cells = Cells::around(&runs.bounds().unwrap(), &grid(shape, [2.0, 1.0, 1.0]));
        assert_eq!(cells.layers, vec![(2.0, 4.0), (6.0, 4.0), (10.0, 4.0)]);
        let filled = cells.filled(&runs);
        let lung: f32 = filled.iter().sum();
        assert!((lung * 32.0 - 80.0).abs() < 1e-4, "{lung}");
        // Slice 2 and 3, rows 4 to 7, columns 8 to 11: 2 x 3 x 3 of 32 voxels.
        let cell = cells.row(2, 5).unwrap() + cells.stretches(9..10).next().unwrap().0;
        assert!(cells.layers.len() == 3 && cells.shape[1..] == [4, 4]);
        assert!(filled[cell] > 0.0);
    }

    proptest! {
        #[test]
        fn distances_are_those_of_looking_at_every_pair(
            targets in proptest::collection::vec(proptest::bool::weighted(0.1), 5 * 6 * 7),
            thick in proptest::collection::vec(4.0f64..9.0, 5),
        ) {
            let mut uneven = grid([5, 6, 7], [1.0, 5.0, 4.5]);
            for (slice, thick) in thick.iter().enumerate().skip(1) {
                uneven.origins[slice][2] = uneven.origins[slice - 1][2] + thick;
            }
            let cells = Cells::around(&[0..5, 0..6, 0..7], &uneven);
            prop_assert_eq!(cells.shape, [5, 6, 7]);
            let place = |cell: usize| [cells.layers[cell / 42].0, (cell / 7 % 6) as f64 * cells.edge_mm[0], (cell % 7) as f64 * cells.edge_mm[1]];
            let found = cells.squared_distances(&targets);
            for (cell, found) in found.iter().enumerate() {
                let expected = (0..targets.len()).filter(|&other| targets[other]).map(|other| {
                    place(cell).iter().zip(place(other)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
                }).fold(f64::INFINITY, f64::min);
                prop_assert!(*found == expected || (found - expected).abs() < 1e-9);
            }
        }
    }
}
