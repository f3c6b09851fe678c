//! Ribs, breastbone, spine, shoulder blades, collar bones and arms as tubes.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::anatomy::Anatomy;
use super::tubes::{Matter, Segment, curve};

/// All bones of the thorax.
pub(crate) fn bones(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Vec<Segment> {
    let mut out = Vec::new();
    ribs(anatomy, rng, &mut out);
    spine(anatomy, rng, &mut out);
    breastbone(anatomy, &mut out);
    shoulders(anatomy, rng, &mut out);
    let marrow: Vec<Segment> = out
        .iter()
        .filter(|bone| bone.matter == Matter::Bone && bone.reach() > 3.0)
        .map(|bone| Segment {
            radius: bone.radius.map(|r| (r - 1.9).max(0.6)),
            matter: Matter::Marrow,
            ..*bone
        })
        .collect();
    out.extend(marrow);
    out
}

/// A place on the chest wall, `out` millimetres outside the pleura; the angle goes from the back (0) over the side to the front (pi).
fn on_wall(anatomy: &Anatomy, z: f32, angle: f32, side: f32, out: f32) -> [f32; 3] {
    let level = anatomy.level(z);
    let (dx, dy) = (side * angle.sin(), angle.cos());
    // Depth in the chest is measured along the ray from its middle, so that a point half way tells where the ray meets the pleura.
    let half = 0.5 * level.half_depth;
    let reach = half + anatomy.chest(&level, half * dx, level.middle + half * dy) + out;
    [dx * reach, level.middle + dy * reach, z]
}

fn ribs(anatomy: &Anatomy, rng: &mut ChaCha8Rng, out: &mut Vec<Segment>) {
    let s = anatomy.scale();
    let top = anatomy.apex + 4.0 * s;
    let step = (top + 150.0 * s) / 11.0;
    for rib in 0..12_u16 {
        let number = f32::from(rib);
        let head = top - number * step;
        // The first ribs lie flat, the middle ones slope most.
        let slope = (34.0 + 13.0 * number.min(6.0)) * s + rng.random_range(-3.0..3.0);
        let end = match rib {
            10 => 2.1,
            11 => 1.5,
            _ => 2.85,
        };
        for side in [-1.0, 1.0] {
            let radius = s * rng.random_range(4.2..5.4);
            let mut bone = Vec::new();
            let mut cartilage = Vec::new();
            let start = 0.30;
            for k in 0..=18_u16 {
                let t = f32::from(k) / 18.0;
                let angle = start + t * (end - start);
                let z = head + 6.0 * s * (-angle).exp()
                    - slope * (1.0 - (angle * 1.05).min(std::f32::consts::PI).cos()) * 0.5;
                let point = on_wall(anatomy, z, angle, side, radius + 2.2 * s);
                let bony = if rib < 10 { 2.25 - 0.03 * number } else { 9.0 };
                if angle < bony {
                    bone.push((point, radius));
                } else {
                    if cartilage.is_empty() {
                        cartilage.extend(bone.last().copied());
                    }
                    let rise = if rib > 4 { (angle - bony) * 14.0 * s } else { 0.0 };
                    cartilage.push(([point[0], point[1], point[2] + rise], radius * 0.95));
                }
            }
            let level = anatomy.level(head);
            bone.insert(
                0,
                (
                    [
                        level.spine[0] + side * 20.0 * s,
                        level.spine[1] + 8.0 * s,
                        head + 4.0 * s,
                    ],
                    radius * 0.8,
                ),
            );
            curve(&bone, Matter::Bone, false, out);
            curve(&cartilage, Matter::Cartilage, false, out);
        }
    }
}

fn spine(anatomy: &Anatomy, rng: &mut ChaCha8Rng, out: &mut Vec<Segment>) {
    let s = anatomy.scale();
    let pitch = 24.0 * s;
    let offset = rng.random_range(0.0..pitch);
    let mut z = anatomy.apex + 90.0 * s - offset;
    while z > -300.0 * s {
        let level = anatomy.level(z);
        let [x, y] = level.spine;
        let grow = 1.0 - 0.0012 * z;
        // Body of the vertebra: a bundle of upright tubes makes an oval.
        let half = 9.6 * s;
        for (dx, dy, r) in [(0.0, 0.0, 13.5), (-5.5, 1.5, 12.0), (5.5, 1.5, 12.0)] {
            let p = [x + dx * s * grow, y + dy * s * grow];
            out.push(piece(
                [p[0], p[1], z - half + 6.0 * s],
                [p[0], p[1], z + half - 6.0 * s],
                r * s * grow,
                Matter::Bone,
            ));
        }
        for side in [-1.0, 1.0] {
            let root = [x + side * 12.0 * s, y + 17.0 * s, z + 3.0 * s];
            out.push(piece(
                [x + side * 10.0 * s, y + 9.0 * s, z + 4.0 * s],
                root,
                4.6 * s,
                Matter::Bone,
            ));
            out.push(piece(
                root,
                [x + side * 31.0 * s, y + 27.0 * s, z + 1.0 * s],
                4.4 * s,
                Matter::Bone,
            ));
            out.push(piece(root, [x, y + 32.0 * s, z - 2.0 * s], 3.6 * s, Matter::Bone));
        }
        out.push(piece(
            [x, y + 33.0 * s, z - 2.0 * s],
            [x, y + 52.0 * s, z - 22.0 * s],
            3.4 * s,
            Matter::Bone,
        ));
        let below = anatomy.level(z - pitch);
        out.push(piece(
            [x, y + 21.5 * s, z],
            [below.spine[0], below.spine[1] + 21.5 * s, z - pitch],
            8.0 * s,
            Matter::Canal,
        ));
        z -= pitch;
    }
}

fn breastbone(anatomy: &Anatomy, out: &mut Vec<Segment>) {
    let s = anatomy.scale();
    for dx in [-9.0, 0.0, 9.0] {
        let points: Vec<_> = (0..=6_u8)
            .map(|k| {
                let z = (92.0 - 26.0 * f32::from(k)) * s;
                let mut p = on_wall(anatomy, z, std::f32::consts::PI, 1.0, 8.0 * s);
                let width = if k < 2 { 1.8 - 0.4 * f32::from(k) } else { 1.0 };
                p[0] += dx * s * width;
                (p, 5.2 * s)
            })
            .collect();
        curve(&points, Matter::Bone, false, out);
    }
}

fn shoulders(anatomy: &Anatomy, rng: &mut ChaCha8Rng, out: &mut Vec<Segment>) {
    let s = anatomy.scale();
    let raise = rng.random_range(-8.0..14.0) * s + if anatomy.arms_down { 0.0 } else { 10.0 * s };
    for side in [-1.0, 1.0] {
        let blade = |angle: f32, z: f32, gap: f32| on_wall(anatomy, z, angle, side, gap * s);
        let joint = [side * 150.0 * s, 18.0 * s, 112.0 * s + raise];
        // The blade: a fan of thin bones from its lower tip, thicker along its border and spine.
        let tip = blade(0.75, -25.0 * s + raise, 17.0);
        for k in 0..=12_u8 {
            let t = f32::from(k) / 12.0;
            let upper = blade(0.60 + 0.62 * t, (92.0 - 30.0 * t) * s + raise, 17.0 + 5.0 * t);
            let radius = if k == 12 { 4.5 } else { 2.2 };
            curve(
                &[
                    (tip, radius * s),
                    (blade(0.68 + 0.35 * t, 30.0 * s + raise, 18.0), radius * s),
                    (upper, radius * s),
                ],
                Matter::Bone,
                false,
                out,
            );
        }
        let root = blade(0.62, 72.0 * s + raise, 19.0);
        let ridge = [root[0] * 1.25, root[1] * 1.02 + 10.0 * s, 92.0 * s + raise];
        curve(
            &[
                (root, 3.0 * s),
                (ridge, 4.2 * s),
                ([joint[0], joint[1] + 22.0 * s, joint[2] + 18.0 * s], 5.5 * s),
            ],
            Matter::Bone,
            false,
            out,
        );
        out.push(piece(
            blade(1.15, 78.0 * s + raise, 20.0),
            [joint[0] * 0.88, joint[1] + 6.0 * s, joint[2]],
            8.0 * s,
            Matter::Bone,
        ));
        let front = on_wall(anatomy, 96.0 * s, std::f32::consts::PI, 1.0, 6.0 * s);
        curve(
            &[
                ([side * 14.0 * s, front[1] + 3.0 * s, 98.0 * s], 7.0 * s),
                ([side * 62.0 * s, front[1] + 8.0 * s, 112.0 * s], 5.2 * s),
                ([side * 105.0 * s, -12.0 * s, 122.0 * s + raise], 5.0 * s),
                ([side * 140.0 * s, 14.0 * s, 130.0 * s + raise], 5.8 * s),
            ],
            Matter::Bone,
            false,
            out,
        );
        out.push(piece(
            joint,
            [joint[0] * 1.01, joint[1], joint[2] + 5.0 * s],
            22.0 * s,
            Matter::Bone,
        ));
        if anatomy.arms_down {
            let arm = anatomy.level(0.0);
            let x = side * (arm.half_width + 80.0 * s);
            curve(
                &[
                    (joint, 16.0 * s),
                    ([x, 24.0 * s, 40.0 * s], 11.5 * s),
                    ([x, 22.0 * s, -300.0 * s], 11.5 * s),
                ],
                Matter::Bone,
                false,
                out,
            );
        } else {
            curve(
                &[
                    (joint, 16.0 * s),
                    ([joint[0] * 1.02, joint[1] - 6.0 * s, 170.0 * s], 12.0 * s),
                    ([joint[0] * 0.95, -10.0 * s, 330.0 * s], 11.5 * s),
                ],
                Matter::Bone,
                false,
                out,
            );
        }
    }
}

fn piece(from: [f32; 3], to: [f32; 3], radius: f32, matter: Matter) -> Segment {
    Segment {
        from,
        to,
        radius: [radius, radius],
        matter,
        outside_lung: false,
    }
}
