//! HU of all that is neither lung nor bone: skin, fat and muscle, what lies between the lungs, and the belly.

use super::{Anatomy, Level};
use crate::phantom::fields::Fields;
use crate::phantom::noise;
use crate::phantom::shapes::{both, either, ellipse, ellipsoid, ramp};

impl Anatomy {
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
