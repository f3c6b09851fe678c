//! The large shapes of a thorax as smooth functions of place: chest wall, mediastinum, diaphragm, heart, spine, belly.
//!
//! Coordinates are the body's own, millimetres: x to the left, y to the back, z upwards, the origin in the midline, half way between breastbone and back, at the
//! carina. A shape is a depth: the distance to its surface in millimetres, positive inside, exact enough near the surface for partial volume. Sizes are those of
//! an adult and follow from the seed.

mod tissue;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::fields::{Fields, Warp};
use super::noise;
use super::shapes::{both, cross, either, ellipse, ellipsoid, ramp};
use super::specification::{Position, Specification};

/// The sizes of one body.
#[derive(Clone, Debug)]
pub(crate) struct Anatomy {
    /// Half width and half depth of the chest at the pleura.
    pub(crate) cage: [f32; 2],
    /// How deep the breath is, 0 to 1.
    pub(crate) breath: f32,
    square: f32,
    /// Height of the lungs' tips.
    pub(crate) apex: f32,
    /// Height of the domes, right and left.
    pub(crate) dome: [f32; 2],
    dome_drop: f32,
    fat: f32,
    muscle: f32,
    spine_y: f32,
    kyphosis: f32,
    scoliosis: f32,
    heart: [f32; 3],
    heart_radii: [f32; 3],
    heart_axes: [[f32; 3]; 3],
    mediastinum: f32,
    midline: f32,
    breast: f32,
    pub(crate) arms_down: bool,
    shoulders: f32,
    pub(crate) stomach: [f32; 3],
    pub(crate) stomach_radii: [f32; 3],
    liver_edge: f32,
    gas: Vec<Bubble>,
    /// The table flattens the body here: towards the back (+1) or the front (-1), at this distance.
    flat: (f32, f32),
    seed: u32,
    warp: Warp,
}

/// Gas in stomach or bowel, over a level of fluid.
#[derive(Clone, Debug)]
struct Bubble {
    centre: [f32; 3],
    radii: [f32; 3],
    level: f32,
}

/// What depends on the height alone.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    pub(crate) z: f32,
    /// Half width, half depth and middle of the chest at the pleura.
    pub(crate) half_width: f32,
    pub(crate) half_depth: f32,
    pub(crate) middle: f32,
    pub(crate) spine: [f32; 2],
    muscle: [f32; 2],
    body: [f32; 2],
    upper: f32,
    /// Beyond this far to the side and to front or back there is only air.
    pub(crate) reach: [f32; 2],
}

/// Where a point lies with regard to the pleural cavities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cavity {
    /// Depth in the cavity.
    pub(crate) depth: f32,
    /// Depth below the chest wall alone.
    pub(crate) wall: f32,
    /// Height over the diaphragm.
    pub(crate) above: f32,
    /// 0 right, 1 left.
    pub(crate) side: usize,
}

impl Anatomy {
    pub(crate) fn new(specification: &Specification, rng: &mut ChaCha8Rng) -> Self {
        let size = specification.size as f32;
        let mut draw = |from: f32, to: f32| rng.random_range(from..to);
        let ill = &specification.diseases;
        let breath = specification.inspiration.unwrap_or(f64::from(draw(0.45, 1.0))) as f32;
        let swollen = ill.emphysema as f32;
        let shrunken = ill.fibrosis as f32;
        let cage = [
            draw(118.0, 138.0) * size,
            (draw(84.0, 100.0) + 10.0 * swollen + 5.0 * breath) * size,
        ];
        let drop = (30.0 * breath + 16.0 * swollen - 22.0 * shrunken) * size;
        let right = -draw(50.0, 66.0) * size - drop;
        let left = right - draw(2.0, 13.0) * size;
        let turn: f32 = draw(0.35, 0.8);
        let dip: f32 = draw(0.15, 0.5);
        let long = [turn.cos() * dip.cos(), -turn.sin() * dip.cos(), -dip.sin()];
        let across = [turn.sin(), turn.cos(), 0.0];
        let up = cross(long, across);
        let heart_size = draw(0.85, 1.12) * size;
        let dome = [right, left];
        let warp_size = draw(2.5, 5.5) * size;
        let seed = draw(0.0, 1e9) as u32;
        Self {
            cage,
            breath,
            square: draw(0.15, 0.55),
            apex: draw(104.0, 126.0) * size,
            dome,
            dome_drop: draw(0.8, 1.15) * (1.0 - 0.35 * swollen),
            fat: specification
                .fat_mm
                .map_or_else(|| draw(4.0, 26.0) * size, |fat| fat as f32),
            muscle: draw(13.0, 22.0) * size,
            spine_y: cage[1] * draw(0.56, 0.66),
            kyphosis: draw(4.0, 14.0) * size,
            scoliosis: draw(-7.0, 7.0) * size,
            heart: [
                draw(20.0, 32.0) * size,
                -draw(26.0, 40.0) * size,
                right + draw(22.0, 36.0) * size,
            ],
            heart_radii: [
                draw(62.0, 72.0) * heart_size,
                draw(43.0, 50.0) * heart_size,
                draw(46.0, 55.0) * heart_size,
            ],
            heart_axes: [long, across, up],
            mediastinum: draw(0.85, 1.2) * size,
            midline: draw(-1.0, 6.0) * size,
            breast: if draw(0.0, 1.0) < 0.45 {
                draw(12.0, 40.0) * size
            } else {
                0.0
            },
            arms_down: specification.arms_down,
            shoulders: draw(0.8, 1.1) * size,
            stomach: [
                draw(55.0, 72.0) * size,
                -draw(10.0, 30.0) * size,
                left - draw(40.0, 52.0) * size,
            ],
            stomach_radii: [
                draw(34.0, 50.0) * size,
                draw(36.0, 52.0) * size,
                draw(30.0, 46.0) * size,
            ],
            liver_edge: draw(0.0, 60.0),
            gas: Vec::new(),
            flat: (1.0, f32::MAX),
            seed,
            warp: Warp::new(seed ^ 0x77, warp_size),
        }
        .with_gas(ill.bowel_gas as f32, rng)
        .lying(specification.position, specification.table)
    }

    fn with_gas(mut self, amount: f32, rng: &mut ChaCha8Rng) -> Self {
        let s = self.scale();
        let bubble = (0.5 + 0.5 * amount) * rng.random_range(0.5..1.1);
        let [x, y, z] = self.stomach;
        let b = self.stomach_radii[1];
        self.gas.push(Bubble {
            centre: [x, y, z],
            radii: self.stomach_radii,
            level: y - b * (0.9 - 1.1 * bubble),
        });
        let loops = 2 + (amount * 9.0) as usize;
        for k in 0..loops {
            let left = k % 3 != 2;
            let (side, dome) = if left {
                (1.0, self.dome[1])
            } else {
                (-1.0, self.dome[0])
            };
            let high = 12.0 + 60.0 * (1.0 - amount);
            let centre = [
                side * rng.random_range(50.0..105.0) * s,
                rng.random_range(-70.0..0.0) * s,
                dome - rng.random_range(high..high + 60.0) * s,
            ];
            let radius = rng.random_range(9.0..18.0 + 14.0 * amount) * s;
            let radii = [
                radius * rng.random_range(0.9..1.6),
                radius,
                radius * rng.random_range(0.8..1.2),
            ];
            self.gas.push(Bubble {
                centre,
                radii,
                level: centre[1] + radius * rng.random_range(-0.2..1.0),
            });
        }
        self
    }

    fn lying(mut self, position: Position, table: bool) -> Self {
        if table {
            let towards = if position == Position::Prone { -1.0 } else { 1.0 };
            let level = self.level(0.0);
            self.flat = (towards, level.body[1] * 0.95 + towards * level.middle);
            if towards < 0.0 {
                for gas in &mut self.gas {
                    gas.level = 2.0 * gas.centre[1] - gas.level;
                }
            }
        }
        self
    }

    /// Where the table touches the body, as a distance in the direction given by a sign (+1 back, -1 front); far away without a table.
    pub(crate) fn table(&self) -> (f32, f32) {
        self.flat
    }

    /// A scale for sizes that are not drawn one by one.
    pub(crate) fn scale(&self) -> f32 {
        self.apex / 115.0
    }

    /// Lowest and highest place that lung may reach.
    pub(crate) fn lung_range(&self) -> (f32, f32) {
        (
            self.dome[1].min(self.dome[0]) - 72.0 * self.dome_drop * self.scale(),
            self.apex,
        )
    }

    /// By how much the shapes are shifted at a place: a point of the body is looked up at itself plus this.
    pub(crate) fn warp(&self, p: [f32; 3]) -> [f32; 2] {
        self.warp.at(p)
    }

    pub(crate) fn level(&self, z: f32) -> Level {
        let up = (z / self.apex).clamp(0.0, 1.35);
        let down = (-z / 160.0).clamp(0.0, 1.6);
        let half_width = self.cage[0] * (1.0 - 0.44 * up * up.sqrt()) * (1.0 + 0.05 * down - 0.035 * down * down);
        let half_depth = self.cage[1] * (1.0 - 0.36 * up * up) * (1.0 + 0.03 * down);
        let middle = 14.0 * up * up * self.scale();
        let bend = ((z - 10.0) / 120.0) * ((z - 10.0) / 120.0);
        let spine = [
            self.scoliosis * (z / 60.0).sin(),
            self.spine_y - self.kyphosis * bend + 0.3 * middle,
        ];
        let shoulder = ramp(55.0, 135.0, z / self.shoulders) * self.shoulders;
        let fat = self.fat * (1.0 + 0.25 * down);
        let muscle = [
            half_width + self.muscle * (1.0 + 0.4 * up) + 62.0 * shoulder,
            half_depth + self.muscle * (0.9 - 0.25 * down.min(1.0)) - 4.0 * shoulder,
        ];
        let body = [muscle[0] + fat * 1.15, muscle[1] + fat * 0.8];
        let arms = if self.arms_down {
            100.0 * self.scale() + 0.6 * self.fat
        } else {
            0.0
        };
        Level {
            z,
            reach: [body[0] + arms + 8.0, body[1] + 1.1 * self.breast + middle + 28.0],
            half_width,
            half_depth,
            middle,
            spine,
            muscle,
            body,
            upper: self.mediastinum * (31.0 - 3.0 * up - 6.0 * down.min(1.0)),
        }
    }

    /// The slow noises at a place.
    pub(crate) fn fields(&self, p: [f32; 3]) -> Fields {
        let [x, y, z] = p;
        let s = self.seed;
        Fields {
            sheet: noise::rough(s ^ 0x44, [x / 46.0, y / 46.0, z / 60.0]),
            inside: noise::rough(s ^ 0x55, [x / 15.0, y / 15.0, z / 18.0]),
            gut: noise::rough(s ^ 0x66, [x / 19.0, y / 19.0, z / 19.0]),
            texture: noise::value(s ^ 0x22, [x / 7.0, y / 7.0, z / 9.0]),
            mottle: noise::value(s ^ 0x77, [x / 17.0, y / 17.0, z / 17.0]),
            fissure: [
                noise::value(s ^ 0x88, [x / 45.0, y / 45.0, z / 45.0]),
                noise::value(s ^ 0x99, [x / 45.0, y / 45.0, z / 45.0]),
            ],
            dome: self.dome_wave(x, y),
        }
    }

    /// Waves of the diaphragm, -1 to 1.
    pub(crate) fn dome_wave(&self, x: f32, y: f32) -> f32 {
        noise::value(self.seed ^ 0x11, [x / 38.0, y / 38.0, 0.0])
    }

    /// Height of the diaphragm.
    pub(crate) fn diaphragm(&self, x: f32, y: f32, wave: f32) -> f32 {
        let s = self.scale();
        let dome = |side: usize| {
            let centre = if side == 0 { -64.0 } else { 66.0 } * s;
            let out = if side == 0 { centre - x } else { x - centre };
            let u = out / if out > 0.0 { 66.0 * s } else { 62.0 * s };
            let v = (y + 12.0 * s) / if y > -12.0 * s { 96.0 * s } else { 84.0 * s };
            let lateral = if out > 0.0 { 52.0 } else { 30.0 };
            let front = if v > 0.0 { 62.0 } else { 26.0 };
            self.dome[side] - s * self.dome_drop * (lateral * u * u + front * v * v)
        };
        either(dome(0), dome(1), 14.0) + 3.5 * wave * s
    }

    fn heart_place(&self, x: f32, y: f32, z: f32) -> [f32; 3] {
        let p = [x - self.heart[0], y - self.heart[1], z - self.heart[2]];
        self.heart_axes
            .map(|axis| axis[0] * p[0] + axis[1] * p[1] + axis[2] * p[2])
    }

    /// Depth in heart and pericardial fat.
    pub(crate) fn heart(&self, x: f32, y: f32, z: f32) -> f32 {
        ellipsoid(self.heart_place(x, y, z), self.heart_radii)
    }

    /// Depth in the chambers: right heart, left ventricle, left atrium.
    pub(crate) fn chambers(&self, x: f32, y: f32, z: f32) -> [f32; 3] {
        let [l, a, u] = self.heart_place(x, y, z);
        let r = self.heart_radii;
        [
            ellipsoid(
                [l + 0.10 * r[0], a + 0.42 * r[1], u],
                [0.66 * r[0], 0.36 * r[1], 0.62 * r[2]],
            ),
            ellipsoid(
                [l - 0.34 * r[0], a - 0.28 * r[1], u],
                [0.42 * r[0], 0.34 * r[1], 0.42 * r[2]],
            ),
            ellipsoid(
                [l + 0.46 * r[0], a - 0.30 * r[1], u - 0.15 * r[2]],
                [0.36 * r[0], 0.40 * r[1], 0.46 * r[2]],
            ),
        ]
    }

    /// Middle of the heart, for those who join vessels to it.
    pub(crate) fn heart_centre(&self) -> [f32; 3] {
        self.heart
    }

    /// Depth in everything between the lungs.
    pub(crate) fn mediastinum(&self, level: &Level, x: f32, y: f32) -> f32 {
        let s = self.scale();
        let (z, [sx, sy]) = (level.z, level.spine);
        let middle = self.midline + 5.0 * s * ramp(10.0, -60.0, z);
        let septum = (3.2 + 9.0 * ramp(-50.0 * s, -88.0 * s, y)) * s - (x - middle).abs();
        let upper = ellipse(
            x - self.midline,
            y - level.middle + 12.0 * s,
            level.upper,
            0.58 * level.half_depth,
            0.3,
        );
        let heart = self.heart(x, y, z) + 1.5 * s;
        let body = ellipse(x - sx, y - sy, 22.0 * s, 21.0 * s, 0.3);
        let behind = (25.0 * s - (x - sx).abs()).min(y - sy);
        let aorta = 14.0 * s - ((x - sx - 21.0 * s).powi(2) + (y - sy + 15.0 * s).powi(2)).sqrt();
        let hilum = |side: f32| {
            ellipsoid(
                [x - side * 37.0 * s, y - 4.0 * s, z + 18.0 * s],
                [15.0 * s, 17.0 * s, 24.0 * s],
            )
        };
        let spine = either(either(body, behind, 8.0 * s), aorta, 6.0 * s);
        let core = either(
            either(upper, heart, 14.0 * s),
            either(hilum(-1.0), hilum(1.0), 4.0),
            12.0 * s,
        );
        either(either(core, spine, 10.0 * s), septum, 6.0 * s)
    }

    /// Depth below the pleura of the chest wall; above the ribs' upper opening the two domes of the pleura close it.
    pub(crate) fn chest(&self, level: &Level, x: f32, y: f32) -> f32 {
        ellipse(x, y - level.middle, level.half_width, level.half_depth, self.square)
    }

    /// The side of a place: 0 right, 1 left.
    pub(crate) fn side(&self, x: f32) -> usize {
        usize::from(x > self.midline)
    }

    /// Where a point lies with regard to the pleural cavities.
    pub(crate) fn cavity(&self, level: &Level, x: f32, y: f32, wave: f32) -> Cavity {
        let s = self.scale();
        let side = self.side(x);
        let sign = if side == 1 { 1.0 } else { -1.0 };
        let wall = self.chest(level, x, y);
        let above = level.z - self.diaphragm(x, y, wave);
        // Above the third rib each lung closes into a dome of its own.
        let up = ((level.z - self.apex + 95.0 * s) / (95.0 * s)).clamp(0.0, 1.0);
        let wall = if up > 0.0 {
            let close = (1.0 - up * up * up.sqrt().sqrt()).max(0.0).sqrt();
            let [a, b] = [
                (level.half_width - 34.0 * s) * close + 0.1,
                1.15 * level.half_depth * close + 0.1,
            ];
            both(
                wall,
                ellipse(x - sign * 42.0 * s, y - level.middle - 4.0 * s * up, a, b, 0.1),
                6.0 * s,
            )
        } else {
            wall
        };
        let between = self.mediastinum(level, x, y);
        let depth = both(both(wall, -between, 7.0 * s), above * 0.85, 3.0 * s);
        Cavity {
            depth,
            wall,
            above,
            side,
        }
    }
}
