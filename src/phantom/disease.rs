//! What ails the lungs: lesions as shapes with soft or hard, rough borders, painted over clean lung tissue in several manners.
//!
//! Lesions change HU before noise is added, so diseased tissue carries the scanner's own noise. All parameters come from wide ranges.

mod painter;

use rand_chacha::ChaCha8Rng;

use painter::Painter;

use super::anatomy::{Anatomy, Cavity};
use super::fields::Fields;
use super::noise;
use super::shapes::{ellipsoid, ramp};
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
        let amount = |x: f64| x as f32;
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
