//! Slow noises that many shapes of the body share, and the displacement that bends them all, each tabulated and interpolated in between.

use super::anatomy::Anatomy;
use super::noise;

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

/// A smooth displacement in the plane, tabulated every 20 mm.
#[derive(Clone, Debug)]
pub(crate) struct Warp {
    values: Vec<[f32; 2]>,
}

impl Warp {
    const STEP: f32 = 20.0;
    const SHAPE: [usize; 3] = [36, 24, 28];

    pub(crate) fn new(seed: u32, size: f32) -> Self {
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

    pub(crate) fn at(&self, p: [f32; 3]) -> [f32; 2] {
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
