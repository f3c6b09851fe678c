//! What ails the lungs: lesions as shapes with soft or hard, rough borders, painted over clean lung tissue in several manners.
//!
//! Lesions change HU before noise is added, so diseased tissue carries the scanner's own noise. All parameters come from wide ranges.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::anatomy::{Anatomy, Cavity, Fields, ellipsoid, ramp};
use super::noise;
use super::specification::Diseases;

/// A point in a lung.
pub(crate) struct Spot<'a> {
    pub(crate) place: [f32; 3],
    pub(crate) cavity: Cavity,
    /// Depth in the lung itself.
    pub(crate) depth: f32,
    pub(crate) fields: &'a Fields,
}

enum Shape {
    /// An ellipsoid.
    Round { centre: [f32; 3], radii: [f32; 3] },
    /// A lobe (right upper, middle, lower; left upper, lower), cut by a plane: `normal . p > offset`.
    Lobe { lobe: usize, normal: [f32; 3], offset: f32 },
    /// Where smooth noise is high; `low` and `back` pull it towards the bases and the back.
    Patchy {
        wavelength: f32,
        threshold: f32,
        low: f32,
        back: f32,
        rim: f32,
    },
    /// A rind under the pleura, thicker towards the bases and the back.
    Rind { thickness: f32, low: f32, back: f32 },
}

#[derive(Clone, Copy)]
enum Texture {
    /// Everything towards one HU, uneven by so much.
    Towards(f32, f32),
    /// The same, with islands that still hold air: HU, share of the islands.
    Islands(f32, f32),
    /// So many HU on top.
    Haze(f32),
    /// Haze with thickened septa: cell size, HU of the walls.
    Net(f32, f32),
    /// Air-filled cysts with walls: cell size, HU of walls.
    Cysts(f32, f32),
    /// Small holes without walls: cell size.
    Holes(f32),
}

struct Lesion {
    side: Option<usize>,
    shape: Shape,
    rough: f32,
    rough_scale: f32,
    soft: f32,
    opacity: f32,
    texture: Texture,
    /// Airways are filled as well.
    drowned: bool,
    seed: u32,
}

/// Fluid and air in the pleural cavity, and the airless lung beside fluid.
#[derive(Clone, Copy, Default)]
struct Layer {
    thickness: f32,
    /// +1 at the back, -1 in front (in the body's coordinates).
    towards: f32,
    collapse: f32,
}

/// All that ails one pair of lungs.
pub(crate) struct Illness {
    lesions: Vec<Lesion>,
    fluid: [Layer; 2],
    air: [Layer; 2],
    density_shift: f32,
}

impl Illness {
    pub(crate) fn new(diseases: &Diseases, anatomy: &Anatomy, prone: bool, rng: &mut ChaCha8Rng) -> Self {
        let mut painter = Painter {
            anatomy,
            rng,
            lesions: Vec::new(),
        };
        let amount = |x: f64| x.clamp(0.0, 1.0) as f32;
        painter.emphysema(amount(diseases.emphysema));
        painter.ground_glass(amount(diseases.ground_glass));
        painter.fibrosis(amount(diseases.fibrosis));
        painter.consolidation(amount(diseases.consolidation));
        painter.nodules(amount(diseases.nodules));
        painter.masses(amount(diseases.masses));
        let down = if prone { -1.0 } else { 1.0 };
        let fluid = painter.layers(amount(diseases.effusion), 62.0, down);
        let air = painter.layers(amount(diseases.pneumothorax), 45.0, -down);
        Self {
            lesions: painter.lesions,
            fluid,
            air,
            density_shift: -55.0 * amount(diseases.emphysema),
        }
    }

    /// Depth in the lung, given the depth in the cavity; and how deep the point lies in pleural fluid and in pleural air.
    pub(crate) fn lung_depth(&self, cavity: &Cavity, place: [f32; 3], scale: f32) -> (f32, f32, f32) {
        let outer = cavity.wall.min(cavity.above);
        let thickness = |layer: &Layer| {
            if layer.thickness <= 0.0 {
                return 0.0;
            }
            let fall = ramp(-45.0 * scale, 60.0 * scale, layer.towards * place[1]);
            let low = if layer.towards > 0.0 {
                ramp(60.0, -70.0, place[2] / scale)
            } else {
                ramp(-90.0, 40.0, place[2] / scale)
            };
            layer.thickness * fall * (0.25 + 0.75 * low)
        };
        let fluid = thickness(&self.fluid[cavity.side]);
        let air = thickness(&self.air[cavity.side]);
        let gap = fluid.max(air);
        let lung = if gap > 0.5 {
            cavity.depth.min(outer - gap)
        } else {
            cavity.depth
        };
        let in_gap = |t: f32| if t > 0.5 { cavity.depth.min(t - outer) } else { -99.0 };
        (lung, in_gap(fluid), in_gap(air))
    }

    /// HU of lung tissue with its lesions, and how far its airways are drowned (0 to 1).
    pub(crate) fn paint(&self, anatomy: &Anatomy, spot: &Spot, clean_hu: f32) -> (f32, f32) {
        let mut hu = clean_hu + self.density_shift;
        let mut drowned = 0.0_f32;
        for lesion in &self.lesions {
            if lesion.side.is_some_and(|side| side != spot.cavity.side) {
                continue;
            }
            let reach = lesion.rough + lesion.soft;
            let depth = lesion.depth(anatomy, spot);
            if depth < -reach {
                continue;
            }
            let border = if depth > reach {
                depth
            } else {
                depth + lesion.rough * noise::fractal(lesion.seed, spot.place.map(|v| v / lesion.rough_scale))
            };
            let cover = ramp(-lesion.soft, lesion.soft, border) * lesion.opacity;
            if cover <= 0.0 {
                continue;
            }
            let ill = lesion.tissue(spot.place, hu);
            hu += (ill - hu) * cover;
            if lesion.drowned {
                drowned = drowned.max(cover);
            }
        }
        let layer = &self.fluid[spot.cavity.side];
        if layer.collapse > 0.0 && layer.thickness > 0.0 {
            let (_, fluid, _) = self.lung_depth(&spot.cavity, spot.place, anatomy.scale());
            let beside = layer.collapse * (0.6 + 0.6 * noise::value(77, spot.place.map(|v| v / 25.0)));
            if fluid > -99.0 {
                hu += (35.0 - hu) * ramp(-beside - 4.0, -beside + 2.0, fluid) * 0.95;
            }
        }
        (hu, drowned)
    }
}

/// Which lobe a point lies in: right upper, middle, lower; left upper, lower. With the distance to the nearest fissure.
pub(crate) fn lobe(anatomy: &Anatomy, place: [f32; 3], side: usize, fields: &Fields) -> (usize, f32) {
    let s = anatomy.scale();
    let [x, y, z] = place;
    let wave = 9.0 * s * fields.fissure[side] + 0.12 * x;
    let oblique = 0.68 * ((z + 30.0 * s) - 1.05 * (y - 8.0 * s)) + wave;
    if side == 1 {
        return (if oblique > 0.0 { 3 } else { 4 }, oblique.abs());
    }
    if oblique < 0.0 {
        return (2, -oblique);
    }
    let level = z + 14.0 * s + wave;
    (usize::from(level < 0.0), oblique.min(level.abs()))
}

impl Lesion {
    /// Depth of a spot in the lesion, before its border is made rough.
    fn depth(&self, anatomy: &Anatomy, spot: &Spot) -> f32 {
        let p = spot.place;
        let s = anatomy.scale();
        let sink = |low: f32, back: f32| low * ramp(60.0, -90.0, p[2] / s) + back * ramp(-60.0, 80.0, p[1] / s);
        match self.shape {
            Shape::Round { centre, radii } => {
                let q = [p[0] - centre[0], p[1] - centre[1], p[2] - centre[2]];
                if (0..3).any(|k| q[k].abs() > radii[k] + self.rough + self.soft) {
                    return f32::MIN;
                }
                ellipsoid(q, radii)
            }
            Shape::Lobe {
                lobe: wanted,
                normal,
                offset,
            } => {
                let (found, fissure) = lobe(anatomy, p, spot.cavity.side, spot.fields);
                let cut = normal[0] * p[0] + normal[1] * p[1] + normal[2] * p[2] - offset;
                if found == wanted {
                    // At a fissure the border is sharp.
                    if fissure < self.rough + self.soft && cut > 0.0 {
                        self.rough + self.soft
                    } else {
                        cut
                    }
                } else {
                    f32::MIN
                }
            }
            Shape::Patchy {
                wavelength,
                threshold,
                low,
                back,
                rim,
            } => {
                let n = noise::fractal(self.seed ^ 0xabc, p.map(|v| v / wavelength));
                let edge = rim * ramp(35.0, 5.0, spot.depth);
                (n + sink(low, back) + edge - threshold) * wavelength * 0.8
            }
            Shape::Rind { thickness, low, back } => {
                let reach = thickness * sink(low, back).min(1.2);
                reach - spot.cavity.wall.min(spot.cavity.above)
            }
        }
    }

    fn tissue(&self, p: [f32; 3], hu: f32) -> f32 {
        match self.texture {
            Texture::Towards(target, uneven) => target + uneven * noise::fractal(self.seed ^ 0x1, p.map(|v| v / 8.0)),
            Texture::Islands(target, share) => {
                let n = noise::fractal(self.seed ^ 0x7, p.map(|v| v / 11.0));
                target + 10.0 * n + (-430.0 - target) * ramp(0.45 - share, 0.75 - share, n)
            }
            Texture::Haze(gain) => {
                (hu + gain * (1.0 + 0.35 * noise::fractal(self.seed ^ 0x2, p.map(|v| v / 9.0)))).min(30.0)
            }
            Texture::Net(cell, wall) => {
                let (first, second, _) = noise::cells(self.seed ^ 0x3, p.map(|v| v / cell));
                let web = ramp(0.22, 0.04, second - first);
                let haze = hu + 90.0;
                haze + (wall - haze) * web
            }
            Texture::Cysts(cell, wall) => {
                let (first, second, owner) = noise::cells(self.seed ^ 0x4, p.map(|v| v / cell));
                let web = ramp(0.30, 0.10, second - first);
                let inside = if owner & 7 < 5 { -960.0 } else { -420.0 };
                inside + (wall - inside) * web
            }
            Texture::Holes(cell) => {
                let (first, _, owner) = noise::cells(self.seed ^ 0x5, p.map(|v| v / cell));
                let size = 0.25 + 0.3 * ((owner & 255) as f32 / 255.0);
                hu + (-985.0 - hu) * ramp(size + 0.12, size - 0.12, first)
            }
        }
    }
}

struct Painter<'a> {
    anatomy: &'a Anatomy,
    rng: &'a mut ChaCha8Rng,
    lesions: Vec<Lesion>,
}

impl Painter<'_> {
    fn draw(&mut self, from: f32, to: f32) -> f32 {
        self.rng.random_range(from..to)
    }

    fn chance(&mut self, p: f32) -> bool {
        self.rng.random_range(0.0..1.0) < p
    }

    fn add(
        &mut self,
        side: Option<usize>,
        shape: Shape,
        border: (f32, f32, f32),
        opacity: f32,
        texture: Texture,
        drowned: bool,
    ) {
        let (rough, rough_scale, soft) = border;
        let seed = self.rng.random();
        self.lesions.push(Lesion {
            side,
            shape,
            rough,
            rough_scale,
            soft,
            opacity,
            texture,
            drowned,
            seed,
        });
    }

    /// A point in a lung at a depth between two bounds.
    fn spot(&mut self, depth: (f32, f32)) -> ([f32; 3], usize) {
        let (low, high) = self.anatomy.lung_range();
        let [width, half_depth] = self.anatomy.cage;
        let mut last = ([0.6 * width, 0.0, 0.0], 1);
        for _ in 0..4000 {
            let place = [
                self.draw(-width, width),
                self.draw(-half_depth, half_depth * 1.1),
                self.draw(low, high),
            ];
            let cavity = self.anatomy.cavity(
                &self.anatomy.level(place[2]),
                place[0],
                place[1],
                self.anatomy.dome_wave(place[0], place[1]),
            );
            if cavity.depth > depth.0 {
                last = (place, cavity.side);
                if cavity.depth < depth.1 {
                    break;
                }
            }
        }
        last
    }

    fn ground_glass(&mut self, amount: f32) {
        if amount <= 0.0 {
            return;
        }
        for _ in 0..1 + usize::from(self.chance(0.5)) {
            let threshold = 0.95 - 1.0 * amount + self.draw(-0.1, 0.1);
            let shape = Shape::Patchy {
                wavelength: self.draw(22.0, 60.0),
                threshold,
                low: self.draw(0.0, 0.4),
                back: self.draw(0.0, 0.45),
                rim: self.draw(0.0, 0.35),
            };
            let gain = self.draw(140.0, 300.0) + 140.0 * amount;
            let texture = if self.chance(0.3) {
                Texture::Net(self.draw(5.0, 9.0), self.draw(-350.0, -120.0))
            } else {
                Texture::Haze(gain)
            };
            let border = (self.draw(0.0, 4.0), self.draw(5.0, 14.0), self.draw(2.0, 10.0));
            let opacity = self.draw(0.75, 1.0);
            self.add(None, shape, border, opacity, texture, false);
        }
        let count = (amount * 12.0) as usize;
        for _ in 0..count {
            let (centre, side) = self.spot((4.0, 30.0));
            let radii = self.radii(8.0, 30.0);
            let gain = self.draw(180.0, 480.0);
            let border = (self.draw(1.0, 7.0), self.draw(5.0, 16.0), self.draw(2.0, 8.0));
            self.add(
                Some(side),
                Shape::Round { centre, radii },
                border,
                1.0,
                Texture::Haze(gain),
                false,
            );
        }
    }

    fn radii(&mut self, from: f32, to: f32) -> [f32; 3] {
        let base = self.draw(from, to);
        [0, 1, 2].map(|_| base * self.rng.random_range(0.7..1.4))
    }

    fn dense(&mut self) -> Texture {
        let target = self.draw(-10.0, 70.0);
        if self.chance(0.4) {
            return Texture::Islands(target, self.draw(0.0, 0.5));
        }
        Texture::Towards(target, self.rng.random_range(4.0..30.0))
    }

    fn consolidation(&mut self, amount: f32) {
        if amount <= 0.0 {
            return;
        }
        let lobes = ((amount * 2.6).round() as usize).max(1);
        let mut taken = Vec::new();
        for _ in 0..lobes {
            let wanted = self.rng.random_range(0..5_usize);
            if taken.contains(&wanted) {
                continue;
            }
            taken.push(wanted);
            let side = usize::from(wanted > 2);
            // Cut off part of the lobe: from the back, from below, or obliquely.
            let tilt = self.draw(0.0, 1.3);
            let normal = [0.0, tilt.sin(), -tilt.cos()];
            let reach = match wanted {
                0 | 3 => (-60.0, 40.0),
                1 => (-20.0, 60.0),
                _ => (-10.0, 60.0),
            };
            let offset = reach.1 - (reach.1 - reach.0) * (0.35 + 0.65 * amount) + self.draw(-12.0, 12.0)
                - if self.chance(0.35) { 200.0 } else { 0.0 };
            let border = (self.draw(2.0, 12.0), self.draw(7.0, 26.0), self.draw(1.0, 9.0));
            let (opacity, texture, drowned) = (self.draw(0.85, 1.0), self.dense(), self.chance(0.45));
            self.add(
                Some(side),
                Shape::Lobe {
                    lobe: wanted,
                    normal,
                    offset: offset * self.anatomy.scale(),
                },
                border,
                opacity,
                texture,
                drowned,
            );
        }
        for _ in 0..(amount * 8.0) as usize {
            let (centre, side) = self.spot((2.0, 16.0));
            let radii = self.radii(10.0, 30.0);
            let border = (self.draw(2.0, 9.0), self.draw(5.0, 18.0), self.draw(1.0, 6.0));
            let (texture, drowned) = (self.dense(), self.chance(0.4));
            self.add(
                Some(side),
                Shape::Round { centre, radii },
                border,
                1.0,
                texture,
                drowned,
            );
        }
        if amount > 0.85 && self.chance(0.5) {
            let side = self.rng.random_range(0..2_usize);
            let shape = Shape::Patchy {
                wavelength: 30.0,
                threshold: self.draw(-0.9, -0.2),
                low: 0.2,
                back: 0.2,
                rim: 0.0,
            };
            let texture = self.dense();
            self.add(Some(side), shape, (3.0, 9.0, 4.0), 0.95, texture, true);
        }
    }

    fn fibrosis(&mut self, amount: f32) {
        if amount <= 0.0 {
            return;
        }
        let (low, back) = (self.draw(0.5, 1.0), self.draw(0.2, 0.7));
        let band = self.draw(14.0, 30.0) * (0.5 + 0.9 * amount);
        let net = Texture::Net(self.draw(4.5, 9.0), self.draw(-300.0, 20.0));
        self.add(
            None,
            Shape::Rind {
                thickness: band,
                low,
                back,
            },
            (8.0, 14.0, 5.0),
            0.95,
            net,
            false,
        );
        let cysts = Texture::Cysts(self.draw(4.0, 11.0), self.draw(-180.0, 60.0));
        self.add(
            None,
            Shape::Rind {
                thickness: 0.75 * band,
                low,
                back,
            },
            (9.0, 16.0, 2.0),
            0.95,
            cysts,
            false,
        );
        let dense = Texture::Towards(self.draw(-250.0, 30.0), 40.0);
        self.add(
            None,
            Shape::Rind {
                thickness: 0.35 * band,
                low,
                back,
            },
            (7.0, 12.0, 2.0),
            0.9,
            dense,
            false,
        );
    }

    fn emphysema(&mut self, amount: f32) {
        if amount <= 0.0 {
            return;
        }
        let shape = Shape::Patchy {
            wavelength: self.draw(25.0, 60.0),
            threshold: 0.55 - 1.1 * amount,
            low: self.draw(-0.5, 0.2),
            back: 0.0,
            rim: self.draw(-0.1, 0.2),
        };
        let texture = Texture::Holes(self.draw(6.0, 15.0));
        self.add(None, shape, (2.0, 9.0, 5.0), 0.95, texture, false);
        for _ in 0..(amount * 9.0) as usize {
            let (centre, side) = self.spot((3.0, 14.0));
            let radii = self.radii(6.0, 12.0 + 20.0 * amount);
            self.add(
                Some(side),
                Shape::Round {
                    centre,
                    radii: radii.map(|r| r + 1.0),
                },
                (0.5, 15.0, 0.9),
                0.8,
                Texture::Towards(-350.0, 20.0),
                true,
            );
            self.add(
                Some(side),
                Shape::Round { centre, radii },
                (0.5, 15.0, 0.9),
                1.0,
                Texture::Towards(-990.0, 3.0),
                true,
            );
        }
    }

    fn nodules(&mut self, amount: f32) {
        for _ in 0..(amount * 45.0).ceil() as usize {
            let (centre, side) = self.spot((1.0, 60.0));
            let radii = self.radii(2.0, 7.5);
            let border = (self.draw(0.0, 1.6), self.draw(2.0, 5.0), self.draw(0.5, 1.5));
            let texture = Texture::Towards(self.draw(-80.0, 90.0), 12.0);
            self.add(Some(side), Shape::Round { centre, radii }, border, 1.0, texture, true);
        }
    }

    fn masses(&mut self, amount: f32) {
        for k in 0..(amount * 3.0).ceil() as usize {
            let depth = if k % 2 == 0 { (1.0, 8.0) } else { (5.0, 40.0) };
            let (mut centre, side) = self.spot(depth);
            if self.chance(0.25) {
                let s = self.anatomy.scale();
                centre = [
                    if side == 0 { -48.0 } else { 50.0 } * s,
                    self.draw(-8.0, 14.0) * s,
                    self.draw(-40.0, 10.0) * s,
                ];
            }
            let radii = self.radii(13.0, 20.0 + 26.0 * amount);
            let border = (self.draw(1.0, 6.0), self.draw(4.0, 16.0), self.draw(0.6, 2.5));
            let texture = Texture::Towards(self.draw(10.0, 70.0), 14.0);
            self.add(Some(side), Shape::Round { centre, radii }, border, 1.0, texture, true);
            if self.chance(0.3) {
                let hollow = radii.map(|r| r * 0.55);
                self.add(
                    Some(side),
                    Shape::Round { centre, radii: hollow },
                    (2.0, 8.0, 1.0),
                    1.0,
                    Texture::Towards(-960.0, 10.0),
                    true,
                );
            }
        }
    }

    fn layers(&mut self, amount: f32, most: f32, towards: f32) -> [Layer; 2] {
        let mut layers = [Layer::default(); 2];
        if amount <= 0.0 {
            return layers;
        }
        let first = self.rng.random_range(0..2_usize);
        let s = self.anatomy.scale();
        layers[first] = Layer {
            thickness: most * amount * self.draw(0.7, 1.1) * s,
            towards,
            collapse: self.draw(3.0, 22.0) * s,
        };
        if self.chance(0.5) {
            layers[1 - first] = Layer {
                thickness: 0.6 * most * amount * self.draw(0.5, 1.0) * s,
                towards,
                collapse: self.draw(3.0, 16.0) * s,
            };
        }
        layers
    }
}
