//! The anatomy sampled slice by slice, with partial volume, noise and the table: HU and the true mask.

use rayon::prelude::*;

use super::anatomy::{Anatomy, Cavity, Level};
use super::disease::{Illness, Spot, lobe};
use super::fields::{FieldTable, Fields};
use super::noise::{self, Grain};
use super::shapes::ramp;
use super::specification::{Kernel, Position, Specification};
use super::tubes::{Matter, Segment};
use crate::volume::Grid;

/// Everything that a slice is drawn from.
pub(crate) struct Scene<'a> {
    pub(crate) specification: &'a Specification,
    pub(crate) grid: &'a Grid,
    pub(crate) anatomy: &'a Anatomy,
    pub(crate) illness: &'a Illness,
    pub(crate) segments: Vec<Segment>,
    /// Place of the body's origin in the patient's coordinates.
    pub(crate) shift: [f64; 3],
    /// Turn of the body about its long axis, radians.
    pub(crate) roll: f32,
    /// HU of healthy lung.
    pub(crate) lung_hu: f32,
}

struct Plane {
    hu: Vec<f32>,
    lung: Vec<f32>,
    drowned: Vec<f32>,
}

impl Scene<'_> {
    /// HU and labels of all slices.
    pub(crate) fn render(&self) -> (Vec<i16>, Vec<u8>) {
        let area = self.grid.rows * self.grid.columns;
        let slices = self.grid.origins.len();
        let mut hu = vec![0_i16; area * slices];
        let mut labels = vec![0_u8; area * slices];
        let buckets = self.buckets();
        hu.par_chunks_exact_mut(area)
            .zip(labels.par_chunks_exact_mut(area))
            .zip(&buckets)
            .enumerate()
            .for_each(|(slice, ((hu, labels), near))| {
                self.slice(slice, near, hu, labels);
            });
        (hu, labels)
    }

    /// Thickness of a slice in millimetres along the table.
    fn thickness(&self) -> f32 {
        self.specification
            .thickness_mm
            .unwrap_or(self.specification.spacing_mm[2]) as f32
    }

    /// Width over which the kernel smears an edge, millimetres.
    fn edge(&self) -> f32 {
        let pixel = (self.grid.spacing_mm[0] + self.grid.spacing_mm[1]) as f32 * 0.5;
        let blur = match self.specification.kernel {
            Kernel::Smooth => 2.2,
            Kernel::Standard => 1.5,
            Kernel::Sharp => 0.9,
        };
        pixel.max(blur)
    }

    fn to_body(&self, p: [f64; 3]) -> [f32; 3] {
        let q = [
            (p[0] - self.shift[0]) as f32,
            (p[1] - self.shift[1]) as f32,
            (p[2] - self.shift[2]) as f32,
        ];
        let (sin, cos) = self.roll.sin_cos();
        [cos * q[0] + sin * q[1], cos * q[1] - sin * q[0], q[2]]
    }

    /// A point of a tube, moved as the warp moves the shapes around it, in the body's turned coordinates.
    pub(crate) fn unwarped(anatomy: &Anatomy, p: [f32; 3]) -> [f32; 3] {
        let mut q = p;
        for _ in 0..2 {
            let [dx, dy] = anatomy.warp(q);
            q = [p[0] - dx, p[1] - dy, p[2]];
        }
        q
    }

    /// For every slice the segments that may touch it, in the order of painting.
    fn buckets(&self) -> Vec<Vec<u32>> {
        let step = self.specification.spacing_mm[2] as f32;
        let sin = self.grid.column_direction[2] as f32;
        let last = self.grid.origins.len() as f32 - 1.0;
        let first = self.grid.origins[0];
        let mut buckets = vec![Vec::new(); self.grid.origins.len()];
        let mut order: Vec<u32> = (0..self.segments.len() as u32).collect();
        order.sort_by_key(|index| self.segments[*index as usize].matter);
        for index in order {
            let segment = &self.segments[index as usize];
            let (mut low, mut high) = (f32::MAX, f32::MIN);
            for end in [segment.from, segment.to] {
                let z = end[2] + self.shift[2] as f32 - first[2] as f32;
                // The plane's height at the place of this point, for tilted slices.
                let row_mm = (self.in_patient(end)[1] - first[1] as f32) / self.grid.column_direction[1] as f32;
                let k = (z - row_mm * sin) / step;
                low = low.min(k);
                high = high.max(k);
            }
            let reach = (segment.reach() + self.thickness() * 0.5 + self.edge()) * (1.0 + 2.0 * sin.abs()) / step;
            let from = (low - reach).ceil().max(0.0);
            let to = (high + reach).floor().min(last);
            if to < from {
                continue;
            }
            for bucket in &mut buckets[from as usize..=to as usize] {
                bucket.push(index);
            }
        }
        buckets
    }

    fn in_patient(&self, p: [f32; 3]) -> [f32; 3] {
        let (sin, cos) = self.roll.sin_cos();
        [
            cos * p[0] - sin * p[1] + self.shift[0] as f32,
            cos * p[1] + sin * p[0] + self.shift[1] as f32,
            p[2] + self.shift[2] as f32,
        ]
    }

    fn slice(&self, slice: usize, near: &[u32], hu: &mut [i16], labels: &mut [u8]) {
        let area = hu.len();
        let thickness = self.thickness();
        let parts = ((thickness / 2.2).round() as usize).clamp(1, 6);
        let mut sum = vec![0.0_f32; area];
        let mut inside = vec![0.0_f32; area];
        let mut plane = Plane {
            hu: vec![0.0; area],
            lung: vec![0.0; area],
            drowned: vec![0.0; area],
        };
        for part in 0..parts {
            let offset = thickness * ((part as f32 + 0.5) / parts as f32 - 0.5);
            let mut origin = self.grid.origins[slice];
            origin[2] += f64::from(offset);
            self.plane(origin, near, &mut plane);
            for k in 0..area {
                sum[k] += plane.hu[k];
                inside[k] += plane.lung[k];
            }
        }
        let share = 1.0 / parts as f32;
        for value in sum.iter_mut().chain(inside.iter_mut()) {
            *value *= share;
        }
        if self.specification.kernel == Kernel::Sharp {
            sharpen(&mut sum, self.grid.rows, self.grid.columns);
        }
        self.finish(slice, &sum, hu);
        for row in 0..self.grid.rows {
            for column in 0..self.grid.columns {
                let k = row * self.grid.columns + column;
                if inside[k] >= 0.5 {
                    let p = self.place(self.grid.origins[slice], row, column);
                    let q = self.body_place(p);
                    labels[k] = 1 + self.anatomy.side(q[0]) as u8;
                }
            }
        }
    }

    fn place(&self, origin: [f64; 3], row: usize, column: usize) -> [f64; 3] {
        let (down, along) = (
            row as f64 * self.grid.spacing_mm[0],
            column as f64 * self.grid.spacing_mm[1],
        );
        let (row, column) = (self.grid.row_direction, self.grid.column_direction);
        [0, 1, 2].map(|axis| origin[axis] + along * row[axis] + down * column[axis])
    }

    /// Where a point of the patient lies in the body's coordinates, warp included.
    fn body_place(&self, p: [f64; 3]) -> [f32; 3] {
        let q = self.to_body(p);
        let [dx, dy] = self.anatomy.warp(q);
        [q[0] + dx, q[1] + dy, q[2]]
    }

    fn plane(&self, origin: [f64; 3], near: &[u32], plane: &mut Plane) {
        let columns = self.grid.columns;
        let edge = self.edge();
        let contrast = self.specification.contrast;
        let table = self.fields(origin);
        for row in 0..self.grid.rows {
            // Rows run along x: the height, and all that depends on it, is the same for a whole row.
            let level = self.anatomy.level(self.to_body(self.place(origin, row, 0))[2]);
            for column in 0..columns {
                let k = row * columns + column;
                let straight = self.to_body(self.place(origin, row, column));
                if straight[0].abs() > level.reach[0] + 12.0 || straight[1].abs() > level.reach[1] + 12.0 {
                    (plane.hu[k], plane.lung[k], plane.drowned[k]) = (self.table(straight), 0.0, 0.0);
                    continue;
                }
                let [dx, dy] = self.anatomy.warp(straight);
                let p = [straight[0] + dx, straight[1] + dy, straight[2]];
                (plane.hu[k], plane.lung[k], plane.drowned[k]) =
                    self.voxel(&level, p, &table.at(p[0], p[1]), edge, contrast);
                if plane.hu[k] < -700.0 && plane.lung[k] == 0.0 {
                    plane.hu[k] = plane.hu[k].max(self.table(straight));
                }
            }
        }
        for index in near {
            self.tube(&self.segments[*index as usize], origin, plane, edge);
        }
    }

    fn fields(&self, origin: [f64; 3]) -> FieldTable {
        let middle = self.to_body(origin);
        let slope = (self.grid.column_direction[2] / self.grid.column_direction[1]) as f32;
        let far = self.to_body(self.place(origin, self.grid.rows, self.grid.columns));
        let half = [0, 1].map(|axis| middle[axis].abs().max(far[axis].abs()) + 20.0);
        FieldTable::new(self.anatomy, middle[2] - slope * middle[1], slope, half)
    }

    /// HU, share of lung, and how far airways are drowned, at a place of the body.
    fn voxel(&self, level: &Level, p: [f32; 3], fields: &Fields, edge: f32, contrast: bool) -> (f32, f32, f32) {
        let [x, y, z] = p;
        let cover = |depth: f32| (0.5 + depth / edge).clamp(0.0, 1.0);
        let near_chest = x.abs() < level.half_width + 12.0 && (y - level.middle).abs() < level.half_depth + 12.0;
        let (low, high) = self.anatomy.lung_range();
        if !near_chest || z > high + 5.0 || z < low - 30.0 {
            return (self.anatomy.tissue(level, x, y, fields, edge, contrast), 0.0, 0.0);
        }
        let cavity = self.anatomy.cavity(level, x, y, fields.dome);
        if cavity.depth < -edge {
            return (self.anatomy.tissue(level, x, y, fields, edge, contrast), 0.0, 0.0);
        }
        let (depth, fluid, air) = self.illness.lung_depth(&cavity, p, self.anatomy.scale());
        let share = cover(depth);
        let mut hu = if share < 1.0 {
            self.anatomy.tissue(level, x, y, fields, edge, contrast)
        } else {
            0.0
        };
        if share < 1.0 {
            hu += (12.0 + 5.0 * fields.texture - hu) * cover(fluid);
            hu += (-998.0 - hu) * cover(air);
        }
        if share <= 0.0 {
            return (hu, 0.0, 0.0);
        }
        let (tissue, drowned) = self.lung(p, cavity, depth, fields);
        (hu + (tissue - hu) * share, share, drowned)
    }

    fn lung(&self, p: [f32; 3], cavity: Cavity, depth: f32, fields: &Fields) -> (f32, f32) {
        let [x, y, z] = p;
        let s = self.anatomy.scale();
        let seed = self.specification.seed as u32;
        let down = if self.specification.position == Position::Prone {
            -1.0
        } else {
            1.0
        };
        let sink = down * (y / (90.0 * s)).clamp(-1.2, 1.2);
        let hanging = if sink > 0.0 {
            46.0 * sink + 26.0 * ramp(16.0, 2.0, depth) * sink
        } else {
            24.0 * sink
        };
        // Vessels too thin to be drawn one by one make the fine texture uneven towards the dense side.
        let fine = noise::value(seed ^ 0x1002, [x / 2.6, y / 2.6, z / 3.2]);
        let mottle =
            16.0 * fields.mottle + 22.0 * fine + 260.0 * ramp(0.25, 1.0, fine) * (0.35 + 0.65 * ramp(3.0, 25.0, depth));
        let (_, fissure) = lobe(self.anatomy, p, cavity.side, fields);
        let leaf =
            190.0 * ramp(1.3, 0.2, fissure) * ramp(6.0, 16.0, depth.max(10.0)) / self.thickness().clamp(1.0, 4.0);
        let clean = self.lung_hu + hanging + mottle + leaf;
        self.illness.paint(
            self.anatomy,
            &Spot {
                place: p,
                cavity,
                depth,
                fields,
            },
            clean,
        )
    }

    fn table(&self, p: [f32; 3]) -> f32 {
        let (towards, at) = self.anatomy.table();
        if at > 1e6 || p[0].abs() > 235.0 {
            return -1000.0;
        }
        let under = towards * p[1] + 0.0007 * p[0] * p[0] - at - 6.0;
        let thick = 34.0 - 0.00045 * p[0] * p[0];
        if under < 0.0 || under > thick {
            return if (-5.0..0.0).contains(&under) { -940.0 } else { -1000.0 };
        }
        let rim = under.min(thick - under).min(235.0 - p[0].abs());
        if rim < 1.8 { -230.0 } else { -925.0 }
    }

    /// Paints one segment into a plane.
    fn tube(&self, segment: &Segment, origin: [f64; 3], plane: &mut Plane, edge: f32) {
        let reach = segment.reach() + edge;
        let (rows, columns) = (self.grid.rows, self.grid.columns);
        let dx = self.grid.spacing_mm[1] * self.grid.row_direction[0];
        let dy = self.grid.spacing_mm[0] * self.grid.column_direction[1];
        let (a, b) = (self.in_patient(segment.from), self.in_patient(segment.to));
        let range = |a: f32, b: f32, origin: f64, step: f64, count: usize| {
            let reach = f64::from(reach);
            let (low, high) = (f64::from(a.min(b)) - reach, f64::from(a.max(b)) + reach);
            let (p, q) = ((low - origin) / step, (high - origin) / step);
            let from = p.min(q).ceil().max(0.0) as usize;
            let to = (p.max(q).floor() + 1.0).clamp(0.0, count as f64) as usize;
            from..to.max(from)
        };
        for row in range(a[1], b[1], origin[1], dy, rows) {
            for column in range(a[0], b[0], origin[0], dx, columns) {
                let p = self.to_body(self.place(origin, row, column));
                let depth = segment.depth(p);
                if depth > -edge {
                    self.dab(segment, depth, edge, row * columns + column, plane);
                }
            }
        }
    }

    fn dab(&self, segment: &Segment, depth: f32, edge: f32, k: usize, plane: &mut Plane) {
        let contrast = self.specification.contrast;
        let thin = (2.0 * segment.reach() / edge).min(1.0);
        let cover = |depth: f32| (0.5 + depth / edge).clamp(0.0, 1.0);
        let here = plane.hu[k];
        if matches!(segment.matter, Matter::Blood | Matter::Bone | Matter::Cartilage) && depth > -1.5 {
            plane.lung[k] = plane.lung[k].min(1.0 - cover(depth + 1.5));
        }
        let towards = |hu: f32, t: f32| here + (hu - here) * t;
        plane.hu[k] = match segment.matter {
            Matter::Soft => towards(38.0, cover(depth)),
            Matter::Blood => towards(if contrast { 205.0 } else { 42.0 }, cover(depth)),
            Matter::LungVessel => {
                let blood = if contrast { 190.0 } else { 45.0 };
                if plane.lung[k] < 0.5 && !contrast {
                    here
                } else {
                    here.max(towards(blood, cover(depth) * thin))
                }
            }
            Matter::AirwayWall => here.max(towards(15.0, cover(depth) * thin * 0.9)),
            Matter::Air => {
                let open = 1.0 - plane.drowned[k];
                if segment.outside_lung && depth > -1.5 {
                    plane.lung[k] = plane.lung[k].min(1.0 - cover(depth + 1.5));
                }
                here.min(towards(
                    -995.0,
                    cover(depth) * thin * if segment.outside_lung { 1.0 } else { open },
                ))
            }
            Matter::Gas => here.min(towards(-985.0, cover(depth))),
            Matter::Cartilage => towards(105.0, cover(depth)),
            Matter::Bone => towards(620.0, cover(depth) * thin),
            Matter::Marrow => towards(200.0, cover(depth) * 0.95),
            Matter::Canal => towards(22.0, cover(depth)),
        };
    }

    /// Adds noise, cuts the circle of reconstruction, rounds.
    fn finish(&self, slice: usize, clean: &[f32], hu: &mut [i16]) {
        let (rows, columns) = (self.grid.rows, self.grid.columns);
        let specification = self.specification;
        let pixel = (self.grid.spacing_mm[0] + self.grid.spacing_mm[1]) as f32 * 0.5;
        let grain = Grain::new(
            specification.seed ^ noise::hash(slice as u64 + 1),
            rows,
            columns,
            specification.kernel,
            0.8 / pixel,
        );
        let sd = specification.noise_hu as f32;
        let lowest = if specification.flavour.is_signed() {
            -3024.0
        } else {
            -1024.0
        };
        let radius = (rows as f32).min(columns as f32) * 0.5;
        for row in 0..rows {
            for column in 0..columns {
                let k = row * columns + column;
                let (u, v) = (
                    (row as f32 + 0.5 - rows as f32 * 0.5) / radius,
                    (column as f32 + 0.5 - columns as f32 * 0.5) / radius,
                );
                let away = u * u + v * v;
                hu[k] = match specification.outside_circle_hu {
                    Some(value) if away > 1.0 => value,
                    _ => {
                        let factor = if clean[k] < -995.0 {
                            0.55
                        } else {
                            1.15 - 0.45 * away.min(1.0)
                        };
                        (clean[k] + sd * factor * grain.at(row, column))
                            .clamp(lowest, 3071.0)
                            .round() as i16
                    }
                };
            }
        }
    }
}

/// Edge enhancement of a sharp kernel: what a 3 x 3 mean takes away is added in part.
fn sharpen(values: &mut [f32], rows: usize, columns: usize) {
    let before = values.to_vec();
    for row in 1..rows.saturating_sub(1) {
        for column in 1..columns.saturating_sub(1) {
            let k = row * columns + column;
            let mut sum = 0.0;
            for near in [k - columns, k, k + columns] {
                sum += before[near - 1] + before[near] + before[near + 1];
            }
            values[k] = before[k] + 0.45 * (before[k] - sum / 9.0);
        }
    }
}
