//! The large shapes of a thorax as smooth functions of place: chest wall, mediastinum, diaphragm, heart, spine, belly.
//!
//! Coordinates are the body's own, millimetres: x to the left, y to the back, z upwards, the origin in the midline, half way between breastbone and back, at the
//! carina. A shape is a depth: the distance to its surface in millimetres, positive inside, exact enough near the surface for partial volume. Sizes are those of
//! an adult and follow from the seed.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::noise;
use super::specification::{Position, Specification};

/// The smaller of two depths, its edge rounded over `k` millimetres.
pub(crate) fn both(a: f32, b: f32, k: f32) -> f32 {
    let h = (k - (a - b).abs()).max(0.0) / k;
    a.min(b) - h * h * k * 0.25
}

/// The larger of two depths, its edge rounded over `k` millimetres.
pub(crate) fn either(a: f32, b: f32, k: f32) -> f32 {
    -both(-a, -b, k)
}

/// 0 below `from`, 1 above `to`, smooth in between.
pub(crate) fn ramp(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Depth in an ellipse with half axes `a` and `b`, bulging towards a rectangle with `square` from 0 to 1.
pub(crate) fn ellipse(x: f32, y: f32, a: f32, b: f32, square: f32) -> f32 {
    let (u, v) = ((x / a) * (x / a), (y / b) * (y / b));
    let rho = ((1.0 - square) * (u + v) + square * (u * u + v * v).sqrt()).sqrt();
    if rho < 0.05 {
        return a.min(b) * (1.0 - rho);
    }
    (x * x + y * y).sqrt() * (1.0 / rho - 1.0)
}

/// Depth in an ellipsoid around the origin.
pub(crate) fn ellipsoid(p: [f32; 3], radii: [f32; 3]) -> f32 {
    let rho = (0..3)
        .map(|k| (p[k] / radii[k]) * (p[k] / radii[k]))
        .sum::<f32>()
        .sqrt();
    if rho < 0.05 {
        return radii[0].min(radii[1]).min(radii[2]) * (1.0 - rho);
    }
    (p[0] * p[0] + p[1] * p[1] + p[2] * p[2]).sqrt() * (1.0 / rho - 1.0)
}

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

/// Slow noises that many shapes share, sampled at one place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields {
    /// Folds of muscle and fat.
    pub(crate) sheet: f32,
    /// Fat and soft tissue between the lungs.
    pub(crate) inside: f32,
    /// Bowel and fat in the belly.
    pub(crate) gut: f32,
    /// Unevenness of tissue.
    pub(crate) texture: f32,
    /// Unevenness of the lung.
    pub(crate) mottle: f32,
    /// Waves of the fissures, right and left.
    pub(crate) fissure: [f32; 2],
    /// Waves of the diaphragm.
    pub(crate) dome: f32,
}

impl Fields {
    const NUMBER: usize = 8;

    fn from_array(v: [f32; Self::NUMBER]) -> Self {
        Self {
            sheet: v[0],
            inside: v[1],
            gut: v[2],
            texture: v[3],
            mottle: v[4],
            fissure: [v[5], v[6]],
            dome: v[7],
        }
    }

    fn to_array(self) -> [f32; Self::NUMBER] {
        [
            self.sheet,
            self.inside,
            self.gut,
            self.texture,
            self.mottle,
            self.fissure[0],
            self.fissure[1],
            self.dome,
        ]
    }
}

/// `Fields` over one plane, tabulated every few millimetres and interpolated in between.
pub(crate) struct FieldTable {
    half: [f32; 2],
    columns: usize,
    values: Vec<[f32; Fields::NUMBER]>,
}

impl FieldTable {
    const STEP: f32 = 4.0;

    /// Over the plane `z = z0 + slope * y`, out to `half` millimetres from the middle.
    pub(crate) fn new(anatomy: &Anatomy, z0: f32, slope: f32, half: [f32; 2]) -> Self {
        let reach = anatomy.level(z0).reach;
        let half = [half[0].min(reach[0] + 30.0), half[1].min(reach[1] + 30.0)];
        let count = half.map(|h| (2.0 * h / Self::STEP).ceil() as usize + 2);
        let mut values = Vec::with_capacity(count[0] * count[1]);
        for row in 0..count[1] {
            let y = row as f32 * Self::STEP - half[1];
            for column in 0..count[0] {
                let x = column as f32 * Self::STEP - half[0];
                values.push(anatomy.fields([x, y, z0 + slope * y]).to_array());
            }
        }
        Self {
            half,
            columns: count[0],
            values,
        }
    }

    pub(crate) fn at(&self, x: f32, y: f32) -> Fields {
        let rows = self.values.len() / self.columns;
        let u = ((x + self.half[0]) / Self::STEP).clamp(0.0, self.columns as f32 - 1.001);
        let v = ((y + self.half[1]) / Self::STEP).clamp(0.0, rows as f32 - 1.001);
        let (column, row) = (u as usize, v as usize);
        let (tu, tv) = (u.fract(), v.fract());
        let start = row * self.columns + column;
        let [a, b] = [&self.values[start], &self.values[start + 1]];
        let [c, d] = [
            &self.values[start + self.columns],
            &self.values[start + self.columns + 1],
        ];
        let mut out = [0.0; Fields::NUMBER];
        for (k, value) in out.iter_mut().enumerate() {
            let above = a[k] + (b[k] - a[k]) * tu;
            let below = c[k] + (d[k] - c[k]) * tu;
            *value = above + (below - above) * tv;
        }
        Fields::from_array(out)
    }
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
        let size = specification.size.clamp(0.3, 1.6) as f32;
        let mut draw = |from: f32, to: f32| rng.random_range(from..to);
        let ill = &specification.diseases;
        let breath = specification
            .inspiration
            .unwrap_or(f64::from(draw(0.45, 1.0)))
            .clamp(0.0, 1.0) as f32;
        let swollen = ill.emphysema.clamp(0.0, 1.0) as f32;
        let shrunken = ill.fibrosis.clamp(0.0, 1.0) as f32;
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
                .map_or_else(|| draw(4.0, 26.0) * size, |fat| fat.clamp(1.0, 90.0) as f32),
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
        .with_gas(ill.bowel_gas.clamp(0.0, 1.0) as f32, rng)
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

    /// Tissue outside lungs and bones: HU at a place, given the width over which edges are smeared.
    pub(crate) fn tissue(&self, level: &Level, x: f32, y: f32, fields: &Fields, edge: f32, contrast: bool) -> f32 {
        let s = self.scale();
        let z = level.z;
        let cover = |depth: f32| (0.5 + depth / edge).clamp(0.0, 1.0);
        let mix = |from: f32, to: f32, t: f32| from + (to - from) * t;
        let y0 = y - level.middle;
        let mut body = ellipse(x, y0, level.body[0], level.body[1], 0.45);
        let mut muscle = ellipse(x, y0, level.muscle[0], level.muscle[1], 0.5);
        if self.breast > 0.0 {
            let b = self.breast;
            let place = [x.abs() - 78.0 * s, y + level.body[1] - 0.1 * b, z + 20.0 * s];
            body = either(
                body,
                ellipsoid(place, [52.0 * s + 0.4 * b, b + 12.0, 58.0 * s + 0.4 * b]),
                16.0,
            );
        }
        if self.arms_down {
            let (ax, ay) = (x.abs() - level.body[0] - 34.0 * s - 10.0, y - 22.0 * s);
            let arm = ellipse(ax, ay, 44.0 * s + 0.3 * self.fat, 48.0 * s + 0.3 * self.fat, 0.1);
            body = either(body, arm, 5.0);
            muscle = muscle.max(ellipse(ax, ay, 37.0 * s, 40.0 * s, 0.1));
        }
        let (towards, flat) = self.flat;
        if flat < 1e6 {
            body = both(body, flat - towards * y, 16.0);
            muscle = both(muscle, flat - 5.0 - towards * y, 10.0);
        }
        if body < -edge {
            return -1000.0;
        }
        let (texture, sheet) = (fields.texture, fields.sheet);
        let mut hu = mix(-1000.0, 10.0, cover(body));
        hu = mix(hu, -104.0 + 8.0 * texture, cover(body - 2.0));
        if self.breast > 0.0 && y < -level.body[1] {
            let gland = noise::fractal(self.seed ^ 0x33, [x / 22.0, y / 22.0, z / 22.0]);
            hu = mix(hu, 25.0, 0.8 * ramp(0.05, 0.3, gland) * ramp(8.0, 16.0, body));
        }
        // Muscle in sheets with fat between them.
        let wall = self.chest(level, x, y);
        let lateral = 1.0 - 0.6 * ramp(0.4, 1.0, (y0 / level.body[1]).abs()) * ramp(60.0, 20.0, x.abs());
        let muscle_cover = cover(muscle - 3.0 * sheet) * ramp(-0.9, -0.55, sheet * lateral);
        hu = mix(hu, 54.0 + 7.0 * texture, muscle_cover);
        if wall < -6.0 * s {
            // Two planes of fat between the sheets, coming and going, and streaks of fat at the back.
            let first = (-wall - (11.0 + 7.0 * sheet) * s).abs();
            let second = (-wall - (20.0 - 12.0 * sheet + 6.0 * fields.inside) * s).abs();
            let streak = ramp(0.30, 0.55, fields.inside) * ramp(0.2, 0.7, y0 / level.body[1]);
            let planes = ramp(1.6, 0.5, first) * ramp(-0.2, 0.25, fields.gut)
                + ramp(1.8, 0.6, second) * ramp(-0.1, 0.3, -fields.gut)
                + streak;
            hu = mix(hu, -75.0, 0.8 * planes.min(1.0) * muscle_cover);
        }
        if wall < -edge {
            return hu;
        }
        // Inside the ribs: fat first, then what lies in it.
        let above = z - self.diaphragm(x, y, fields.dome);
        let inside = mix(-95.0, 45.0, ramp(0.10, 0.35, fields.inside));
        let mut deep = inside;
        if above > -edge {
            let heart = self.heart(x, y, z);
            deep = mix(deep, 46.0 + 5.0 * texture, cover(heart - 4.5 * s - 2.0 * sheet));
            let blood = if contrast {
                [210.0, 165.0, 175.0]
            } else {
                [40.0, 40.0, 40.0]
            };
            for (depth, hu) in self.chambers(x, y, z).into_iter().zip(blood) {
                deep = mix(deep, hu, cover(depth));
            }
        }
        let [sx, sy] = level.spine;
        let beside = either(
            ellipse(x - sx, y - sy, 20.0 * s, 19.0 * s, 0.3),
            (24.0 * s - (x - sx).abs()).min(y - sy),
            6.0,
        );
        deep = mix(deep, 52.0 + 6.0 * texture, cover(beside));
        if above < edge {
            let belly = self.belly([x, y, z], edge, contrast, fields);
            let leaf = mix(belly, 52.0, cover(above + 3.0));
            deep = mix(deep, leaf, cover(-above) * (1.0 - cover(beside)));
        }
        mix(hu, deep, cover(wall))
    }

    /// Organs under the diaphragm.
    fn belly(&self, [x, y, z]: [f32; 3], edge: f32, contrast: bool, fields: &Fields) -> f32 {
        let (texture, sheet) = (fields.texture, fields.sheet);
        let s = self.scale();
        let cover = |depth: f32| (0.5 + depth / edge).clamp(0.0, 1.0);
        let mix = |from: f32, to: f32, t: f32| from + (to - from) * t;
        let enhanced = if contrast { 50.0 } else { 0.0 };
        let mut hu = mix(-102.0, 28.0, ramp(0.12, 0.22, fields.gut));
        let spleen = ellipsoid(
            [x - 92.0 * s, y - 42.0 * s, z - self.dome[1] + 58.0 * s],
            [30.0 * s, 42.0 * s, 54.0 * s],
        );
        hu = mix(hu, 50.0 + enhanced + 4.0 * texture, cover(spleen + 3.0 * sheet));
        let stomach = ellipsoid(
            [x - self.stomach[0], y - self.stomach[1], z - self.stomach[2]],
            self.stomach_radii,
        ) + 3.0 * sheet;
        hu = mix(hu, 48.0, cover(stomach + 3.5));
        hu = mix(hu, 22.0 + 12.0 * texture, cover(stomach));
        let liver = ellipsoid(
            [
                x + 72.0 * s + 0.35 * (y + 30.0 * s),
                y + 2.0 * s,
                z - self.dome[0] + 78.0 * s,
            ],
            [(104.0 + 0.7 * self.liver_edge) * s, 104.0 * s, 118.0 * s],
        ) + 6.0 * sheet;
        hu = mix(hu, 58.0 + enhanced + 5.0 * texture, cover(liver));
        for gas in &self.gas {
            let p = [x - gas.centre[0], y - gas.centre[1], z - gas.centre[2]];
            if (0..3).any(|k| p[k].abs() > gas.radii[k] + 4.0) {
                continue;
            }
            let depth = ellipsoid(p, gas.radii) + 2.0 * sheet;
            hu = mix(hu, 40.0, cover(depth + 2.5));
            hu = mix(hu, 15.0, cover(depth));
            hu = mix(hu, -990.0, cover(depth.min((gas.level - y) * self.flat.0)));
        }
        hu
    }
}

fn cross(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// A smooth displacement in the plane, tabulated every 20 mm.
#[derive(Clone, Debug)]
struct Warp {
    values: Vec<[f32; 2]>,
}

impl Warp {
    const STEP: f32 = 20.0;
    const SHAPE: [usize; 3] = [36, 24, 28];

    fn new(seed: u32, size: f32) -> Self {
        let [nz, ny, nx] = Self::SHAPE;
        let mut values = Vec::with_capacity(nx * ny * nz);
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    let p = [x as f32 * 0.3, y as f32 * 0.3, z as f32 * 0.3];
                    values.push([
                        size * 2.0 * noise::value(seed, p),
                        size * 1.4 * noise::value(seed ^ 0xffff, p),
                    ]);
                }
            }
        }
        Self { values }
    }

    fn at(&self, p: [f32; 3]) -> [f32; 2] {
        let [nz, ny, nx] = Self::SHAPE;
        let place = |v: f32, n: usize| {
            let q = (v / Self::STEP + n as f32 / 2.0).clamp(0.0, n as f32 - 1.001);
            (q as usize, q.fract())
        };
        let ((x, tx), (y, ty), (z, tz)) = (place(p[0], nx), place(p[1], ny), place(p[2], nz));
        let mut sum = [0.0; 2];
        for (dz, wz) in [(0, 1.0 - tz), (1, tz)] {
            for (dy, wy) in [(0, 1.0 - ty), (1, ty)] {
                let start = ((z + dz) * ny + y + dy) * nx + x;
                let w = wz * wy;
                for (value, wx) in [(self.values[start], 1.0 - tx), (self.values[start + 1], tx)] {
                    sum[0] += w * wx * value[0];
                    sum[1] += w * wx * value[1];
                }
            }
        }
        sum
    }
}
