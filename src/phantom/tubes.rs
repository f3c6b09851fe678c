//! Everything long and round (vessels, airways, ribs) as tapered segments, painted slice by slice.

/// What a segment is made of. Segments are painted in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Matter {
    /// Soft tissue: oesophagus, muscle strands.
    Soft,
    /// Blood in the mediastinum and the heart's great vessels.
    Blood,
    /// Vessels inside the lungs; they only ever brighten.
    LungVessel,
    /// Wall of an airway.
    AirwayWall,
    /// Air in it.
    Air,
    /// Gas in stomach and bowel.
    Gas,
    /// Cartilage of the ribs' front ends.
    Cartilage,
    /// Cortical bone.
    Bone,
    /// What it surrounds: painted after all cortical bone, so that bones that meet are one.
    Marrow,
    /// Canal of the spine: painted over bone.
    Canal,
}

/// A piece of a tube between two points, millimetres, its radius going evenly from one to the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) from: [f32; 3],
    pub(crate) to: [f32; 3],
    pub(crate) radius: [f32; 2],
    pub(crate) matter: Matter,
    /// Trachea and main bronchi do not count as lung.
    pub(crate) outside_lung: bool,
}

impl Segment {
    /// Depth of a point in the segment.
    pub(crate) fn depth(&self, p: [f32; 3]) -> f32 {
        let mut along = 0.0;
        let mut length = 0.0;
        let mut axis = [0.0; 3];
        let mut rest = [0.0; 3];
        for k in 0..3 {
            axis[k] = self.to[k] - self.from[k];
            rest[k] = p[k] - self.from[k];
            along += axis[k] * rest[k];
            length += axis[k] * axis[k];
        }
        let t = (along / length.max(1e-6)).clamp(0.0, 1.0);
        let distance = (0..3)
            .map(|k| (rest[k] - t * axis[k]) * (rest[k] - t * axis[k]))
            .sum::<f32>()
            .sqrt();
        self.radius[0] + (self.radius[1] - self.radius[0]) * t - distance
    }

    pub(crate) fn reach(&self) -> f32 {
        self.radius[0].max(self.radius[1])
    }
}

/// Points joined to a tube, smoothed by the curve that Catmull and Rom gave.
pub(crate) fn curve(points: &[([f32; 3], f32)], matter: Matter, outside_lung: bool, into: &mut Vec<Segment>) {
    const STEPS: usize = 5;
    let at = |k: isize| points[k.clamp(0, points.len() as isize - 1) as usize];
    for k in 0..points.len().saturating_sub(1) as isize {
        let [a, b, c, d] = [at(k - 1), at(k), at(k + 1), at(k + 2)];
        let place = |t: f32| {
            let one = |a: f32, b: f32, c: f32, d: f32| {
                0.5 * (2.0 * b
                    + (c - a) * t
                    + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t
                    + (3.0 * b - a - 3.0 * c + d) * t * t * t)
            };
            let mut p = [0.0; 3];
            for (axis, value) in p.iter_mut().enumerate() {
                *value = one(a.0[axis], b.0[axis], c.0[axis], d.0[axis]);
            }
            (p, b.1 + (c.1 - b.1) * t)
        };
        for step in 0..STEPS {
            let (from, r0) = place(step as f32 / STEPS as f32);
            let (to, r1) = place((step + 1) as f32 / STEPS as f32);
            into.push(Segment {
                from,
                to,
                radius: [r0, r1],
                matter,
                outside_lung,
            });
        }
    }
}
