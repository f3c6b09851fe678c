//! Airways and vessels: the great ones by hand, those inside the lungs grown as trees towards points strewn in the lung.
//!
//! A tree joins each point to the node that costs least (distance, plus part of the way back to the hilum); radii follow Murray's law from the tips down.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::anatomy::Anatomy;
use super::tubes::{Matter, Segment, curve};

/// All vessels and airways.
pub(crate) fn vessels(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Segment> {
    let mut out = Vec::new();
    great_vessels(anatomy, rng, &mut out);
    gullet(anatomy, rng, &mut out);
    let mut lumens = Vec::new();
    let ends = windpipe(anatomy, rng, &mut lumens);
    let s = anatomy.scale();
    let density = rng.random_range(0.8..1.25);
    let plans: Vec<(usize, Kind, [f32; 3], u64)> = (0..2)
        .flat_map(|side| {
            let sign = if side == 0 { -1.0 } else { 1.0 };
            [
                (side, Kind::Airway, ends[side]),
                (side, Kind::Artery, [sign * 40.0 * s, 4.0 * s, -12.0 * s]),
                (side, Kind::Vein, [sign * 38.0 * s, -2.0 * s, -34.0 * s]),
            ]
        })
        .map(|(side, kind, root)| (side, kind, root, rng.random()))
        .collect();
    let trees: Vec<Vec<Segment>> = plans
        .into_par_iter()
        .map(|(side, kind, root, seed)| tree(anatomy, side, kind, root, density, &mut ChaCha8Rng::seed_from_u64(seed)))
        .collect();
    for tree in trees {
        for segment in tree {
            if segment.matter == Matter::Air {
                lumens.push(segment)
            } else {
                out.push(segment)
            }
        }
    }
    for lumen in lumens {
        let thick = |r: f32| r + 0.35 + 0.16 * r;
        out.push(Segment {
            radius: lumen.radius.map(thick),
            matter: Matter::AirwayWall,
            ..lumen
        });
        out.push(lumen);
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Artery,
    Vein,
    Airway,
}

struct Node {
    place: [f32; 3],
    parent: usize,
    way: f32,
}

fn tree(
    anatomy: &Anatomy,
    side: usize,
    kind: Kind,
    root: [f32; 3],
    density: f32,
    rng: &mut ChaCha8Rng,
) -> Vec<Segment> {
    let (wanted, margin, tip, exponent, most) = match kind {
        Kind::Artery => ((1200.0 * density) as usize, 2.5, 0.58_f32, 2.75, 8.5),
        Kind::Vein => ((950.0 * density) as usize, 2.5, 0.58, 2.75, 8.0),
        Kind::Airway => (80, 12.0, 0.75, 2.8, 5.2),
    };
    let mut points = strewn(anatomy, side, wanted, margin, rng);
    let far = |p: &[f32; 3]| distance(*p, root);
    points.sort_by(|a, b| far(a).total_cmp(&far(b)));
    let mut nodes = vec![Node {
        place: root,
        parent: 0,
        way: 0.0,
    }];
    for point in points {
        let mut best = (f32::MAX, 0);
        for (index, node) in nodes.iter().enumerate() {
            let apart = distance(node.place, point);
            let cost = apart + 0.40 * node.way;
            if cost < best.0 {
                best = (cost, index);
            }
        }
        let mut parent = best.1;
        let start = nodes[parent].place;
        let length = distance(start, point);
        let steps = ((length / 9.0).ceil() as usize).max(1);
        for step in 1..=steps {
            let t = step as f32 / steps as f32;
            let wobble = if step < steps { 0.06 * length.min(40.0) } else { 0.0 };
            let mut place = [0.0; 3];
            for (axis, value) in place.iter_mut().enumerate() {
                *value = start[axis] + t * (point[axis] - start[axis]) + wobble * rng.random_range(-1.0..1.0);
            }
            let way = nodes[parent].way + distance(nodes[parent].place, place);
            nodes.push(Node { place, parent, way });
            parent = nodes.len() - 1;
        }
    }
    // A child always stands behind its parent, so one walk from the end sums the tips.
    let mut load = vec![0.0_f32; nodes.len()];
    for index in (1..nodes.len()).rev() {
        if load[index] == 0.0 {
            load[index] = tip.powf(exponent);
        }
        load[nodes[index].parent] += load[index];
    }
    let radius = |load: f32| load.powf(1.0 / exponent).min(most);
    let matter = if kind == Kind::Airway {
        Matter::Air
    } else {
        Matter::LungVessel
    };
    nodes
        .iter()
        .enumerate()
        .skip(1)
        .map(|(index, node)| {
            let here = radius(load[index]);
            let before = radius(load[node.parent]).min(here * 1.25);
            Segment {
                from: nodes[node.parent].place,
                to: node.place,
                radius: [before, here],
                matter,
                outside_lung: false,
            }
        })
        .collect()
}

fn strewn(anatomy: &Anatomy, side: usize, wanted: usize, margin: f32, rng: &mut ChaCha8Rng) -> Vec<[f32; 3]> {
    let (low, high) = anatomy.lung_range();
    let [width, depth] = anatomy.cage;
    let mut points = Vec::with_capacity(wanted);
    for _ in 0..wanted * 40 {
        if points.len() == wanted {
            break;
        }
        let x = rng.random_range(0.0..width) * if side == 0 { -1.0 } else { 1.0 };
        let y = rng.random_range(-depth..depth * 1.1);
        let z = rng.random_range(low..high);
        let level = anatomy.level(z);
        let cavity = anatomy.cavity(&level, x, y, anatomy.dome_wave(x, y));
        if cavity.side == side && cavity.depth > margin {
            points.push([x, y, z]);
        }
    }
    points
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    (0..3).map(|k| (a[k] - b[k]) * (a[k] - b[k])).sum::<f32>().sqrt()
}

fn great_vessels(anatomy: &Anatomy, rng: &mut ChaCha8Rng, out: &mut Vec<Segment>) {
    let s = anatomy.scale();
    let [hx, hy, hz] = anatomy.heart_centre();
    let wide = rng.random_range(0.85..1.2) * s;
    let beside = |z: f32| {
        let [x, y] = anatomy.level(z).spine;
        [x + 21.0 * s, y - 15.0 * s, z]
    };
    let p = |x: f32, y: f32, z: f32| [x * s, y * s, z * s];
    let mut aorta = vec![
        ([hx - 10.0 * s, hy + 10.0 * s, hz + 15.0 * s], 15.0 * wide),
        (p(-9.0, -25.0, 4.0), 15.5 * wide),
        (p(-11.0, -18.0, 34.0), 14.5 * wide),
        (p(0.0, -2.0, 49.0), 13.5 * wide),
        (p(14.0, 18.0, 47.0), 12.5 * wide),
        (beside(24.0 * s), 12.0 * wide),
    ];
    aorta.extend((0..8_u8).map(|k| (beside((-10.0 - 45.0 * f32::from(k)) * s), 11.5 * wide)));
    let tubes: [Vec<([f32; 3], f32)>; 12] = [
        aorta,
        vec![
            ([hx - 4.0 * s, hy - 8.0 * s, hz + 24.0 * s], 14.0 * s),
            (p(17.0, -30.0, -6.0), 14.0 * s),
            (p(16.0, -10.0, 1.0), 13.0 * s),
        ],
        vec![
            (p(16.0, -10.0, 1.0), 12.0 * s),
            (p(30.0, 4.0, 3.0), 11.0 * s),
            (p(43.0, 8.0, -10.0), 8.5 * s),
        ],
        vec![
            (p(14.0, -12.0, -4.0), 11.5 * s),
            (p(-10.0, -5.0, -9.0), 11.0 * s),
            (p(-41.0, 2.0, -14.0), 8.5 * s),
        ],
        vec![
            (p(-23.0, -16.0, -30.0), 10.0 * s),
            (p(-25.0, -16.0, 30.0), 9.5 * s),
            (p(-22.0, -18.0, 70.0), 9.0 * s),
            (p(-24.0, -32.0, 96.0), 7.5 * s),
            (p(-62.0, -26.0, 128.0), 6.5 * s),
        ],
        vec![
            (p(-22.0, -18.0, 66.0), 8.0 * s),
            (p(8.0, -30.0, 80.0), 7.0 * s),
            (p(24.0, -34.0, 98.0), 7.0 * s),
            (p(62.0, -26.0, 128.0), 6.5 * s),
        ],
        vec![
            (p(-7.0, -8.0, 49.0), 7.0 * s),
            (p(-16.0, -5.0, 84.0), 6.5 * s),
            (p(-24.0, -4.0, 190.0), 4.5 * s),
        ],
        vec![
            (p(4.0, 3.0, 52.0), 5.0 * s),
            (p(12.0, 4.0, 92.0), 4.5 * s),
            (p(24.0, 0.0, 190.0), 4.5 * s),
        ],
        vec![
            (p(11.0, 14.0, 50.0), 5.5 * s),
            (p(18.0, 12.0, 95.0), 5.5 * s),
            (p(30.0, 2.0, 122.0), 5.0 * s),
            (p(70.0, 0.0, 134.0), 4.5 * s),
        ],
        vec![
            ([hx - 26.0 * s, hy + 24.0 * s, hz + 6.0 * s], 8.0 * s),
            (p(-41.0, -2.0, -36.0), 7.0 * s),
        ],
        vec![
            ([hx - 8.0 * s, hy + 30.0 * s, hz + 6.0 * s], 7.0 * s),
            (p(41.0, 2.0, -34.0), 6.5 * s),
        ],
        vec![
            (p(-24.0, 2.0, -60.0), 11.0 * s),
            (p(-25.0, 8.0, -130.0), 11.0 * s),
            (p(-22.0, 20.0, -280.0), 10.0 * s),
        ],
    ];
    for points in tubes {
        curve(&points, Matter::Blood, false, out);
    }
}

fn gullet(anatomy: &Anatomy, rng: &mut ChaCha8Rng, out: &mut Vec<Segment>) {
    let s = anatomy.scale();
    let gassy = rng.random_range(0.0..1.0) < 0.5;
    let points: Vec<_> = (0..9_u8)
        .map(|k| {
            let z = (150.0 - 34.0 * f32::from(k)) * s;
            let [x, y] = anatomy.level(z).spine;
            ([x + 6.0 * s, y - 24.0 * s, z], 7.0 * s)
        })
        .collect();
    curve(&points, Matter::Soft, false, out);
    if gassy {
        let from = rng.random_range(1..5_usize);
        let inner: Vec<_> = points
            .iter()
            .skip(from)
            .take(3)
            .map(|(p, _)| (*p, rng.random_range(1.5..4.5) * s))
            .collect();
        curve(&inner, Matter::Gas, false, out);
    }
}

/// Trachea and main bronchi; returns where these end, right and left.
fn windpipe(anatomy: &Anatomy, rng: &mut ChaCha8Rng, out: &mut Vec<Segment>) -> [[f32; 3]; 2] {
    let s = anatomy.scale();
    let r = rng.random_range(7.0..10.0) * s;
    let p = |x: f32, y: f32, z: f32| [x * s, y * s, z * s];
    let carina = p(1.0, 10.0, 2.0);
    curve(
        &[
            (p(0.0, -8.0, 200.0), r * 1.05),
            (p(0.0, 2.0, 110.0), r),
            (p(2.0, 5.0, 55.0), r),
            (carina, r),
        ],
        Matter::Air,
        true,
        out,
    );
    let ends = [p(-40.0, 8.0, -25.0), p(46.0, 11.0, -26.0)];
    curve(
        &[
            (carina, r * 0.85),
            (p(-19.0, 10.0, -12.0), r * 0.82),
            (ends[0], r * 0.62),
        ],
        Matter::Air,
        true,
        out,
    );
    curve(
        &[
            (carina, r * 0.75),
            (p(22.0, 12.0, -13.0), r * 0.70),
            (ends[1], r * 0.58),
        ],
        Matter::Air,
        true,
        out,
    );
    ends
}
