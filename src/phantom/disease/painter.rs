//! Draws lesions, disease by disease: how many, where, of which shape and texture. The order of the draws decides the phantom, so it is never changed lightly.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Layer, Lesion, Shape, Texture};
use crate::phantom::anatomy::Anatomy;

pub(super) struct Painter<'a> {
    pub(super) anatomy: &'a Anatomy,
    pub(super) rng: &'a mut ChaCha8Rng,
    pub(super) lesions: Vec<Lesion>,
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

    pub(super) fn ground_glass(&mut self, amount: f32) {
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

    pub(super) fn consolidation(&mut self, amount: f32) {
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

    pub(super) fn fibrosis(&mut self, amount: f32) {
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

    pub(super) fn emphysema(&mut self, amount: f32) {
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

    pub(super) fn nodules(&mut self, amount: f32) {
        for _ in 0..(amount * 45.0).ceil() as usize {
            let (centre, side) = self.spot((1.0, 60.0));
            let radii = self.radii(2.0, 7.5);
            let border = (self.draw(0.0, 1.6), self.draw(2.0, 5.0), self.draw(0.5, 1.5));
            let texture = Texture::Towards(self.draw(-80.0, 90.0), 12.0);
            self.add(Some(side), Shape::Round { centre, radii }, border, 1.0, texture, true);
        }
    }

    pub(super) fn masses(&mut self, amount: f32) {
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

    pub(super) fn layers(&mut self, amount: f32, most: f32, towards: f32) -> [Layer; 2] {
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
