//! A component that holds both lungs in, the right and the left part out: cut where the bridge between them is thinnest.
//!
//! Two steps. On cells of about 4 mm the component is eroded until two cores remain, one on each side of the midline, and the minimum cut between the cores is found:
//! of all surfaces that part them, the one of least area (Boykov and Kolmogorov, "Computing geodesics and minimal surfaces via graph cuts", ICCV 2003, with
//! the 6 neighbours). Then the same is done with voxels, in the two layers of cells on either side of that cut.

use rayon::prelude::*;

use super::LungsError;
use super::cells::Cells;
use super::components::{Components, Connectivity, touching};
use super::min_cut::{Bound, Network};
use super::runs::{Run, Runs};
use crate::volume::{Grid, Mask};

/// Cells whose centres are no further than this from that of a cell outside are eroded, more each time up to the last: a thicker bridge is none.
const EROSION_MM: [f64; 11] = [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0, 27.0, 30.0];

/// Of the larger core at most this share may lie on the other side of the midline; else it still holds both lungs.
const LARGEST_SHARE_ACROSS: f64 = 0.25;

/// With more voxels than this around the cut it stays as the cells have it, to bound memory (some 60 bytes a voxel) and time.
const MOST_VOXELS: usize = 600_000;

/// Capacities are whole hundredths of a square millimetre.
const PER_MM2: f64 = 100.0;

/// A component in two.
pub(super) struct Bridge {
    pub(super) right: Runs,
    pub(super) left: Runs,
    /// Area of the faces cut, in square centimetres.
    pub(super) area_cm2: f64,
}

/// Which lung a cell or voxel belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Neither,
    Right,
    Left,
}

/// Cuts a component, or says that it is one lung: if no erosion leaves two cores, the smaller of which has `least_share` of the larger.
pub(super) fn cut(
    component: &Runs,
    grid: &Grid,
    midline_mm: f64,
    least_share: f64,
) -> Result<Option<Bridge>, LungsError> {
    let Some(bounds) = component.bounds() else {
        return Ok(None);
    };
    let cells = Cells::around(&bounds, grid);
    let filled = cells.filled(component);
    let Some(cores) = cores(&cells, &filled, grid, midline_mm, least_share)? else {
        return Ok(None);
    };
    let (sides, flow) = cut_cells(&cells, &filled, &cores);
    let band = Band::around(&cells, &filled, &sides);
    let near = near_runs(component, &cells, &band)?;
    let voxels: usize = near.runs.iter().map(|run| run.len()).sum();
    let fine = (voxels <= MOST_VOXELS).then(|| cut_voxels(&near, grid, &cells, &band, &sides));
    let area_cm2 = fine.as_ref().map_or(flow, |fine| fine.flow) as f64 / PER_MM2 / 100.0;
    let (right, left) = part(component, &cells, &sides, &near, fine.as_ref())?;
    Ok(Some(Bridge { right, left, area_cm2 }))
}

/// The two cores, as a side for every cell.
fn cores(
    cells: &Cells,
    filled: &[f32],
    grid: &Grid,
    midline_mm: f64,
    least_share: f64,
) -> Result<Option<Vec<Side>>, LungsError> {
    let outside: Vec<bool> = filled.iter().map(|&share| share < 0.5).collect();
    let depth = cells.squared_distances(&outside);
    let x_mm = cells.x_mm(grid);
    for erosion in EROSION_MM {
        let shape = cells.shape;
        let labels = depth
            .iter()
            .map(|&squared| u8::from(squared.sqrt() > erosion))
            .collect();
        let runs = Runs::of(&Mask { shape, labels })?;
        if runs.runs.is_empty() {
            return Ok(None);
        }
        let components = Components::of(&runs, Connectivity::Faces);
        let mut of_cell = vec![u32::MAX; cells.count()];
        let mut totals = vec![Core::default(); components.count];
        for slice in 0..shape[0] {
            for row in 0..shape[1] {
                for index in runs.row(slice, row) {
                    let component = components.of_run[index];
                    let first = (slice * shape[1] + row) * shape[2];
                    for cell in runs.runs[index].columns().map(|column| first + column) {
                        of_cell[cell] = component;
                        let volume = f64::from(filled[cell]) * cells.layers[slice].1;
                        let total = &mut totals[component as usize];
                        total.volume += volume;
                        total.moment += volume * (x_mm[cell] - midline_mm);
                        total.right += if x_mm[cell] < midline_mm { volume } else { 0.0 };
                    }
                }
            }
        }
        if let Some((right, left)) = two_cores(&totals, least_share) {
            let of = |core: usize| {
                of_cell
                    .iter()
                    .map(|&component| component as usize == core)
                    .collect::<Vec<bool>>()
            };
            return Ok(Some(grown(cells, [of(right), of(left)], erosion)));
        }
    }
    Ok(None)
}

/// The cores, grown by what was eroded: what a bridge thinner than that cannot be part of. Cells that both would reach belong to neither.
fn grown(cells: &Cells, cores: [Vec<bool>; 2], by_mm: f64) -> Vec<Side> {
    let [right, left] = &cores;
    let (to_right, to_left) = rayon::join(|| cells.squared_distances(right), || cells.squared_distances(left));
    let reach = by_mm * by_mm;
    let side = |(to_right, to_left): (&f64, &f64)| match (*to_right <= reach, *to_left <= reach) {
        (true, false) => Side::Right,
        (false, true) => Side::Left,
        _ => Side::Neither,
    };
    to_right.iter().zip(&to_left).map(side).collect()
}

/// What is left of a part after erosion; volumes in units that do not matter.
#[derive(Clone, Copy, Default)]
struct Core {
    volume: f64,
    moment: f64,
    right: f64,
}

/// The largest core on each side of the midline, if they are two lungs' cores.
fn two_cores(cores: &[Core], least_share: f64) -> Option<(usize, usize)> {
    let largest = |right: bool| {
        (0..cores.len())
            .filter(|&index| (cores[index].moment < 0.0) == right)
            .max_by(|&a, &b| cores[a].volume.total_cmp(&cores[b].volume))
    };
    let (right, left) = (largest(true)?, largest(false)?);
    let volumes = [cores[right].volume, cores[left].volume];
    let across = [volumes[0] - cores[right].right, cores[left].right];
    let stays = (0..2).all(|side| across[side] <= LARGEST_SHARE_ACROSS * volumes[side]);
    let shares = volumes[0].min(volumes[1]) >= least_share * volumes[0].max(volumes[1]);
    (stays && shares).then_some((right, left))
}

/// The minimum cut between the cores, over faces between cells; a face counts as far as the emptier of its cells is full.
fn cut_cells(cells: &Cells, filled: &[f32], cores: &[Side]) -> (Vec<Side>, u64) {
    let [layers, rows, columns] = cells.shape;
    let mut node_of = vec![u32::MAX; cells.count()];
    let mut bounds = Vec::new();
    for (cell, node) in node_of.iter_mut().enumerate().filter(|(cell, _)| filled[*cell] > 0.0) {
        *node = bounds.len() as u32;
        bounds.push(match cores[cell] {
            Side::Right => Bound::Source,
            Side::Left => Bound::Sink,
            Side::Neither => Bound::Free,
        });
    }
    let mut network = Network::new(bounds);
    let mut connect = |first: usize, second: usize, direction: usize, area_mm2: f64| {
        if node_of[first] != u32::MAX && node_of[second] != u32::MAX {
            let area = area_mm2 * f64::from(filled[first].min(filled[second]));
            network.connect(
                node_of[first] as usize,
                node_of[second] as usize,
                direction,
                capacity(area),
            );
        }
    };
    for layer in 0..layers {
        let thick = cells.layers[layer].1;
        for row in 0..rows {
            for column in 0..columns {
                let cell = (layer * rows + row) * columns + column;
                if column + 1 < columns {
                    connect(cell, cell + 1, 0, cells.edge_mm[0] * thick);
                }
                if row + 1 < rows {
                    connect(cell, cell + columns, 2, cells.edge_mm[1] * thick);
                }
                if layer + 1 < layers {
                    connect(cell, cell + rows * columns, 4, cells.edge_mm[0] * cells.edge_mm[1]);
                }
            }
        }
    }
    let (cut, flow) = network.cut();
    let mut sides: Vec<Side> = node_of
        .iter()
        .map(|&node| match cut.get(node as usize) {
            Some(Bound::Source) => Side::Right,
            Some(Bound::Sink) => Side::Left,
            _ => Side::Neither,
        })
        .collect();
    spread(cells, filled, &mut sides);
    (sides, flow)
}

fn capacity(area_mm2: f64) -> u32 {
    (area_mm2 * PER_MM2).round().clamp(1.0, 1e9) as u32
}

/// Cells that hang on a lung by an edge or a corner only take the side of what they hang on, step by step.
fn spread(cells: &Cells, filled: &[f32], sides: &mut [Side]) {
    let mut open: Vec<usize> = (0..sides.len()).filter(|&cell| sides[cell] != Side::Neither).collect();
    while !open.is_empty() {
        let mut reached = Vec::new();
        for &cell in &open {
            for other in cells.around_cell(cell) {
                if sides[other] == Side::Neither && filled[other] > 0.0 {
                    sides[other] = sides[cell];
                    reached.push(other);
                }
            }
        }
        open = reached;
    }
}

/// Cells near to the cut.
struct Band {
    /// 0 far away, 1 beside the other lung, 2 one layer further: there voxels keep the cell's side.
    layer: Vec<u8>,
}

impl Band {
    fn around(cells: &Cells, filled: &[f32], sides: &[Side]) -> Band {
        let beside = |cell: usize| {
            filled[cell] > 0.0
                && cells
                    .around_cell(cell)
                    .any(|other| filled[other] > 0.0 && sides[other] != sides[cell])
        };
        let first: Vec<usize> = (0..cells.count())
            .into_par_iter()
            .filter(|&cell| beside(cell))
            .collect();
        let mut layer = vec![0; cells.count()];
        for &cell in &first {
            layer[cell] = 1;
        }
        for &cell in &first {
            for other in cells.around_cell(cell) {
                if layer[other] == 0 && filled[other] > 0.0 {
                    layer[other] = 2;
                }
            }
        }
        Band { layer }
    }
}

/// The parts of the component's runs that lie in the band.
fn near_runs(component: &Runs, cells: &Cells, band: &Band) -> Result<Runs, LungsError> {
    Runs::by_slice(component.shape, |slice, found| {
        for row in 0..component.shape[1] {
            let begin = found.runs.len();
            if let Some(first) = cells.row(slice, row) {
                for run in &component.runs[component.row(slice, row)] {
                    for (cell, columns) in cells.stretches(run.columns()) {
                        if band.layer[first + cell] > 0 {
                            append(&mut found.runs, begin, columns.start as u32, columns.end as u32);
                        }
                    }
                }
            }
            found.end_row();
        }
    })
}

/// Adds a run to those of the row that began at `begin`, or makes the last one longer.
fn append(runs: &mut Vec<Run>, begin: usize, start: u32, end: u32) {
    let in_row = runs.len() > begin;
    match runs.last_mut() {
        Some(last) if in_row && last.end == start => last.end = end,
        _ => runs.push(Run { start, end }),
    }
}

/// Sides of voxels near to the cut.
struct Fine {
    /// Of the runs near to the cut, the number of the first voxel.
    first_node: Vec<u32>,
    sides: Vec<Bound>,
    flow: u64,
}

/// The minimum cut over faces between voxels, between those of the band's outer layer.
fn cut_voxels(near: &Runs, grid: &Grid, cells: &Cells, band: &Band, sides: &[Side]) -> Fine {
    let [slices, rows, _] = near.shape;
    let mut first_node = Vec::with_capacity(near.runs.len());
    let mut bounds = Vec::new();
    for slice in 0..slices {
        for row in 0..rows {
            for index in near.row(slice, row) {
                first_node.push(bounds.len() as u32);
                let Some(first) = cells.row(slice, row) else {
                    continue;
                };
                for (cell, columns) in cells.stretches(near.runs[index].columns()) {
                    let bound = match (band.layer[first + cell], sides[first + cell]) {
                        (2, Side::Right) => Bound::Source,
                        (2, Side::Left) => Bound::Sink,
                        _ => Bound::Free,
                    };
                    bounds.extend(columns.map(|_| bound));
                }
            }
        }
    }
    let thickness = super::slabs::thickness_mm(grid);
    let [row_mm, column_mm] = grid.spacing_mm;
    let mut network = Network::new(bounds);
    for (slice, thick) in thickness.iter().enumerate() {
        let (along_row, along_column) = (capacity(row_mm * thick), capacity(column_mm * thick));
        for row in 0..rows {
            for index in near.row(slice, row) {
                let first = first_node[index] as usize;
                for node in first..first + near.runs[index].len() - 1 {
                    network.connect(node, node + 1, 0, along_row);
                }
            }
            let mut join = |a: usize, b: usize, direction: usize, area: u32| {
                let (one, other) = (near.runs[a], near.runs[b]);
                for column in one.start.max(other.start)..one.end.min(other.end) {
                    let nodes = [first_node[a] + column - one.start, first_node[b] + column - other.start];
                    network.connect(nodes[0] as usize, nodes[1] as usize, direction, area);
                }
            };
            if row > 0 {
                touching(near, (slice, row - 1), (slice, row), Connectivity::Faces, |a, b| {
                    join(a, b, 2, along_column)
                });
            }
            if slice > 0 {
                let between = capacity(row_mm * column_mm);
                touching(near, (slice - 1, row), (slice, row), Connectivity::Faces, |a, b| {
                    join(a, b, 4, between)
                });
            }
        }
    }
    let (sides, flow) = network.cut();
    Fine {
        first_node,
        sides,
        flow,
    }
}

/// The component's runs in two, by voxel where the voxels were cut, by cell elsewhere.
fn part(
    component: &Runs,
    cells: &Cells,
    sides: &[Side],
    near: &Runs,
    fine: Option<&Fine>,
) -> Result<(Runs, Runs), LungsError> {
    let of = |wanted: Side| {
        Runs::by_slice(component.shape, |slice, found| {
            for row in 0..component.shape[1] {
                let begin = found.runs.len();
                let mut close = near.row(slice, row).peekable();
                let Some(first) = cells.row(slice, row) else {
                    found.end_row();
                    continue;
                };
                for run in &component.runs[component.row(slice, row)] {
                    for (cell, columns) in cells.stretches(run.columns()) {
                        let side = sides[first + cell];
                        let mut add = |start: usize, end: usize, side: Side| {
                            if side == wanted {
                                append(&mut found.runs, begin, start as u32, end as u32);
                            }
                        };
                        while close
                            .next_if(|&index| near.runs[index].end as usize <= columns.start)
                            .is_some()
                        {}
                        // A stretch lies in a near run as a whole, or not at all.
                        let near_run = close
                            .peek()
                            .copied()
                            .filter(|&index| near.runs[index].start as usize <= columns.start);
                        let (Some(fine), Some(index)) = (fine, near_run) else {
                            add(columns.start, columns.end, side);
                            continue;
                        };
                        let first_node = fine.first_node[index] as usize;
                        for column in columns {
                            let side = match fine.sides[first_node + column - near.runs[index].start as usize] {
                                Bound::Source => Side::Right,
                                Bound::Sink => Side::Left,
                                Bound::Free => side,
                            };
                            add(column, column + 1, side);
                        }
                    }
                }
                found.end_row();
            }
        })
    };
    Ok((of(Side::Right)?, of(Side::Left)?))
}
