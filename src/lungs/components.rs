//! Runs in, connected components out: a union-find over runs, on all cores.
//!
//! Runs, not voxels, are the nodes (as in He et al., "A run-based two-scan labeling algorithm", IEEE Trans. Image Process. 17, 2008): the whole state is one
//! number a run. Slices are shared out in slabs, each of which is joined by one core in its own part of the table; then the slabs are joined along their borders.

use rayon::prelude::*;

use super::runs::{Run, Runs};

/// Which voxels touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connectivity {
    /// By a face: 6 neighbours.
    Faces,
    /// By a face, an edge or a corner: 26 neighbours.
    Full,
}

impl Connectivity {
    fn reach(self) -> u32 {
        match self {
            Connectivity::Faces => 0,
            Connectivity::Full => 1,
        }
    }
}

/// The component of every run, numbered in the order of their first runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Components {
    pub(super) of_run: Vec<u32>,
    pub(super) count: usize,
}

impl Components {
    pub(super) fn of(runs: &Runs, connectivity: Connectivity) -> Components {
        let mut parents: Vec<u32> = vec![0; runs.runs.len()];
        let slices = runs.shape[0];
        let slab = slices.div_ceil(4 * rayon::current_num_threads()).max(1);
        let starts: Vec<usize> = (0..slices).step_by(slab).collect();

        let mut rest = parents.as_mut_slice();
        let mut parts = Vec::with_capacity(starts.len());
        for &first in &starts {
            let last = (first + slab).min(slices) - 1;
            let count = runs.slice(last).end - runs.slice(first).start;
            let (part, after) = rest.split_at_mut(count);
            parts.push((first, last, part));
            rest = after;
        }
        parts.into_par_iter().for_each(|(first, last, part)| {
            let base = runs.slice(first).start;
            for (index, parent) in part.iter_mut().enumerate() {
                *parent = index as u32;
            }
            for slice in first..=last {
                for row in 1..runs.shape[1] {
                    touching(runs, (slice, row - 1), (slice, row), connectivity, |a, b| {
                        join(part, a - base, b - base)
                    });
                }
                if slice > first {
                    slices_touching(runs, slice, connectivity, |a, b| join(part, a - base, b - base));
                }
            }
            for parent in part.iter_mut() {
                *parent += base as u32;
            }
        });
        for &slice in starts.iter().skip(1) {
            slices_touching(runs, slice, connectivity, |a, b| join(&mut parents, a, b));
        }

        // A root is the first run of its component, so every parent has its number before its children ask for it.
        let mut count = 0;
        for index in 0..parents.len() {
            let parent = parents[index] as usize;
            if parent == index {
                parents[index] = count;
                count += 1;
            } else {
                parents[index] = parents[parent];
            }
        }
        Components {
            of_run: parents,
            count: count as usize,
        }
    }

    /// The sum of `weight` over the runs of each component.
    pub(super) fn sums(&self, runs: &Runs, weight: impl Fn(usize, Run) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.count];
        for slice in 0..runs.shape[0] {
            for index in runs.slice(slice) {
                sums[self.of_run[index] as usize] += weight(slice, runs.runs[index]);
            }
        }
        sums
    }
}

/// Pairs of touching runs in a slice and the one before it.
fn slices_touching(runs: &Runs, slice: usize, connectivity: Connectivity, mut found: impl FnMut(usize, usize)) {
    for row in 0..runs.shape[1] {
        let reach = connectivity.reach() as usize;
        for before in row.saturating_sub(reach)..(row + reach + 1).min(runs.shape[1]) {
            touching(runs, (slice - 1, before), (slice, row), connectivity, &mut found);
        }
    }
}

/// Pairs of touching runs in two neighbouring rows, each a slice and a row.
pub(super) fn touching(
    runs: &Runs,
    first: (usize, usize),
    second: (usize, usize),
    connectivity: Connectivity,
    mut found: impl FnMut(usize, usize),
) {
    let reach = connectivity.reach();
    let (first, second) = (runs.row(first.0, first.1), runs.row(second.0, second.1));
    let (mut a, mut b) = (first.start, second.start);
    while a < first.end && b < second.end {
        let (one, other) = (runs.runs[a], runs.runs[b]);
        if one.start < other.end + reach && other.start < one.end + reach {
            found(a, b);
        }
        if one.end < other.end {
            a += 1;
        } else {
            b += 1;
        }
    }
}

fn join(parents: &mut [u32], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    if a < b {
        parents[b] = a as u32;
    } else {
        parents[a] = b as u32;
    }
}

fn root(parents: &mut [u32], mut index: usize) -> usize {
    while parents[index] as usize != index {
        parents[index] = parents[parents[index] as usize];
        index = parents[index] as usize;
    }
    index
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::volume::Mask;

    /// Components of voxels by flooding, numbered in the order of their first voxels.
    fn flooded(mask: &Mask, connectivity: Connectivity) -> Vec<u32> {
        let [slices, rows, columns] = mask.shape.map(|n| n as i64);
        let at = |z: i64, y: i64, x: i64| ((z * rows + y) * columns + x) as usize;
        let mut labels = vec![0u32; mask.labels.len()];
        let mut count = 0;
        for z in 0..slices {
            for y in 0..rows {
                for x in 0..columns {
                    if mask.labels[at(z, y, x)] == 0 || labels[at(z, y, x)] != 0 {
                        continue;
                    }
                    count += 1;
                    labels[at(z, y, x)] = count;
                    let mut open = vec![(z, y, x)];
                    while let Some((z, y, x)) = open.pop() {
                        for step in 0..27 {
                            let (dz, dy, dx) = (step / 9 - 1, step / 3 % 3 - 1, step % 3 - 1);
                            if connectivity == Connectivity::Faces && dz * dz + dy * dy + dx * dx > 1 {
                                continue;
                            }
                            let (z, y, x) = (z + dz, y + dy, x + dx);
                            let inside =
                                (0..slices).contains(&z) && (0..rows).contains(&y) && (0..columns).contains(&x);
                            if inside && mask.labels[at(z, y, x)] != 0 && labels[at(z, y, x)] == 0 {
                                labels[at(z, y, x)] = count;
                                open.push((z, y, x));
                            }
                        }
                    }
                }
            }
        }
        labels
    }

    fn painted(mask: &Mask, connectivity: Connectivity) -> Vec<u32> {
        let runs = Runs::of(mask).unwrap();
        let components = Components::of(&runs, connectivity);
        let mut labels = vec![0u32; mask.labels.len()];
        for slice in 0..mask.shape[0] {
            for row in 0..mask.shape[1] {
                for index in runs.row(slice, row) {
                    let start = (slice * mask.shape[1] + row) * mask.shape[2];
                    labels[start..][runs.runs[index].columns()].fill(components.of_run[index] + 1);
                }
            }
        }
        labels
    }

    proptest! {
        #[test]
        fn components_are_those_of_a_flood_fill(
            shape in [1usize..12, 1usize..9, 1usize..20],
            seed in proptest::collection::vec(0u8..100, 12 * 9 * 20),
            density in 5u8..70,
        ) {
            let labels = seed[..shape.iter().product()].iter().map(|&value| u8::from(value < density)).collect();
            let mask = Mask { shape, labels };
            for connectivity in [Connectivity::Faces, Connectivity::Full] {
                prop_assert_eq!(painted(&mask, connectivity), flooded(&mask, connectivity));
            }
        }
    }
}
