//! A mask in, its runs out: the stretches of lung in every row. What the other files here work on, since a mask of lungs has a few hundred thousand runs where
//! it has eighty million voxels.

use std::ops::Range;

use rayon::prelude::*;

use super::LungsError;
use crate::volume::Mask;

/// Columns `start..end` of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Run {
    pub(super) fn columns(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Runs in the order of memory: slice by slice, row by row, ascending and apart within a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    /// Slices, rows, columns.
    pub(super) shape: [usize; 3],
    /// The runs.
    pub(super) runs: Vec<Run>,
    /// Where each row begins in `runs`, and the end: slices * rows + 1 values.
    rows: Vec<u32>,
}

impl Runs {
    /// Runs of the labels that are not 0.
    pub(super) fn of(mask: &Mask) -> Result<Runs, LungsError> {
        let [_, rows, columns] = mask.shape;
        Runs::by_slice(mask.shape, |slice, found| {
            let labels = &mask.labels[slice * rows * columns..][..rows * columns];
            for row in 0..rows {
                scan(&labels[row * columns..][..columns], &mut found.runs);
                found.end_row();
            }
        })
    }

    /// Runs that `of_slice` finds in each slice, on all cores.
    pub(super) fn by_slice(
        shape: [usize; 3],
        of_slice: impl Fn(usize, &mut SliceRuns) + Sync,
    ) -> Result<Runs, LungsError> {
        let slices: Vec<SliceRuns> = (0..shape[0])
            .into_par_iter()
            .map(|slice| {
                let mut found = SliceRuns {
                    runs: Vec::new(),
                    row_ends: Vec::with_capacity(shape[1]),
                };
                of_slice(slice, &mut found);
                found
            })
            .collect();
        let count = slices.iter().map(|slice| slice.runs.len()).sum();
        if u32::try_from(count).is_err() {
            return Err(LungsError::TooManyRuns(count));
        }
        let mut runs = Vec::with_capacity(count);
        let mut rows = Vec::with_capacity(shape[0] * shape[1] + 1);
        rows.push(0);
        for slice in slices {
            let base = runs.len() as u32;
            rows.extend(slice.row_ends.iter().map(|end| base + end));
            runs.extend_from_slice(&slice.runs);
        }
        Ok(Runs { shape, runs, rows })
    }

    /// Where the runs of one row stand.
    pub(super) fn row(&self, slice: usize, row: usize) -> Range<usize> {
        let at = slice * self.shape[1] + row;
        self.rows[at] as usize..self.rows[at + 1] as usize
    }

    /// Where the runs of one slice stand.
    pub(super) fn slice(&self, slice: usize) -> Range<usize> {
        let at = slice * self.shape[1];
        self.rows[at] as usize..self.rows[at + self.shape[1]] as usize
    }

    /// The runs for which `keep` says yes, by their index.
    pub(super) fn filtered(&self, keep: impl Fn(usize) -> bool + Sync) -> Result<Runs, LungsError> {
        Runs::by_slice(self.shape, |slice, found| {
            for row in 0..self.shape[1] {
                let kept = self.row(slice, row).filter(|&index| keep(index));
                found.runs.extend(kept.map(|index| self.runs[index]));
                found.end_row();
            }
        })
    }

    /// Hands the row and the run to `write` for every run that `chosen` says yes to, on all cores.
    pub(super) fn rewrite(
        &self,
        mask: &mut Mask,
        chosen: impl Fn(usize) -> bool + Sync,
        write: impl Fn(&mut [u8], Run) + Sync,
    ) {
        let [_, rows, columns] = self.shape;
        let slices = mask.labels.par_chunks_mut((rows * columns).max(1)).enumerate();
        slices.for_each(|(slice, labels)| {
            for row in 0..rows {
                for index in self.row(slice, row).filter(|&index| chosen(index)) {
                    write(&mut labels[row * columns..][..columns], self.runs[index]);
                }
            }
        });
    }

    /// Slices, rows and columns between the first and the last run; none if there is no run.
    pub(super) fn bounds(&self) -> Option<[Range<usize>; 3]> {
        let mut bounds: Option<[Range<usize>; 3]> = None;
        for slice in 0..self.shape[0] {
            for row in 0..self.shape[1] {
                let runs = &self.runs[self.row(slice, row)];
                let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
                    continue;
                };
                let (start, end) = (first.start as usize, last.end as usize);
                let so_far = bounds.get_or_insert([slice..slice + 1, row..row + 1, start..end]);
                so_far[0].end = slice + 1;
                so_far[1] = so_far[1].start.min(row)..so_far[1].end.max(row + 1);
                so_far[2] = so_far[2].start.min(start)..so_far[2].end.max(end);
            }
        }
        bounds
    }
}

/// The runs of one slice, as they are found.
pub(super) struct SliceRuns {
    pub(super) runs: Vec<Run>,
    row_ends: Vec<u32>,
}

impl SliceRuns {
    /// What was added since the last call is one row.
    pub(super) fn end_row(&mut self) {
        self.row_ends.push(self.runs.len() as u32);
    }
}

/// Adds the stretches of a row for which `inside` says yes.
pub(super) fn stretches(columns: usize, inside: impl Fn(usize) -> bool, runs: &mut Vec<Run>) {
    let mut start = None;
    for column in 0..=columns {
        let within = column < columns && inside(column);
        match start {
            None if within => start = Some(column),
            Some(from) if !within => {
                runs.push(Run {
                    start: from as u32,
                    end: column as u32,
                });
                start = None;
            }
            _ => {}
        }
    }
}

/// Adds the runs of one row, eight labels at a time.
fn scan(row: &[u8], runs: &mut Vec<Run>) {
    let mut column = next(row, 0, true);
    while column < row.len() {
        let end = next(row, column, false);
        runs.push(Run {
            start: column as u32,
            end: end as u32,
        });
        column = next(row, end, true);
    }
}

/// The next column from `from` on whose label is not 0 (or is 0), or the row's length.
fn next(row: &[u8], from: usize, lung: bool) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut column = from;
    let mut chunks = row[from..].chunks_exact(8);
    for chunk in &mut chunks {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(chunk);
        let word = u64::from_le_bytes(bytes);
        // The lowest bit set stands in the first byte that is (not) zero; higher ones may be false for the second test, and are not looked at.
        let hits = if lung {
            word
        } else {
            word.wrapping_sub(LOW) & !word & HIGH
        };
        if hits != 0 {
            return column + hits.trailing_zeros() as usize / 8;
        }
        column += 8;
    }
    let rest = chunks.remainder();
    column
        + rest
            .iter()
            .position(|&label| (label != 0) == lung)
            .unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_paint_the_mask_that_they_came_from(labels in proptest::collection::vec(0u8..3, 3 * 4 * 21), dense in any::<bool>()) {
            let labels: Vec<u8> = labels.into_iter().map(|label| if dense { label } else { label / 2 }).collect();
            let mask = Mask { shape: [3, 4, 21], labels };
            let runs = Runs::of(&mask).unwrap();
            let mut painted = vec![0u8; mask.labels.len()];
            for slice in 0..3 {
                for row in 0..4 {
                    for run in &runs.runs[runs.row(slice, row)] {
                        prop_assert!(run.start < run.end);
                        painted[(slice * 4 + row) * 21..][run.columns()].fill(1);
                    }
                }
            }
            let lung: Vec<u8> = mask.labels.iter().map(|&label| u8::from(label != 0)).collect();
            prop_assert_eq!(painted, lung);
        }
    }
}
