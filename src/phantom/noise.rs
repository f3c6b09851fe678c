//! Noise out of a hash: the same place and seed give the same value on every machine and in every order of work.
//!
//! Smooth value noise makes organic shapes and tissue texture; `Grain` makes the scanner's own noise, with the spatial correlation of a kernel.

use super::specification::Kernel;

/// Mixes an integer (the finaliser of SplitMix64).
pub(crate) fn hash(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn lattice(seed: u32, x: i32, y: i32, z: i32) -> u32 {
    let mut h = seed
        ^ (x as u32).wrapping_mul(0x8da6_b343)
        ^ (y as u32).wrapping_mul(0xd816_3841)
        ^ (z as u32).wrapping_mul(0xcb1a_b31f);
    h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

fn signed(h: u32) -> f32 {
    (h as f32) * (2.0 / 4_294_967_296.0) - 1.0
}

/// Rounds down; quicker than the library's where that is not inlined.
fn floor(v: f32) -> i32 {
    let cut = v as i32;
    cut - i32::from(v < cut as f32)
}

/// Smooth noise between -1 and 1; it changes over about one unit of `p`.
pub(crate) fn value(seed: u32, p: [f32; 3]) -> f32 {
    let (x, y, z) = (floor(p[0]), floor(p[1]), floor(p[2]));
    let smooth = |f: f32| f * f * (3.0 - 2.0 * f);
    let (tx, ty, tz) = (
        smooth(p[0] - x as f32),
        smooth(p[1] - y as f32),
        smooth(p[2] - z as f32),
    );
    let (right, below, above) = (x.wrapping_add(1), y.wrapping_add(1), z.wrapping_add(1));
    let line = |y: i32, z: i32| {
        let (a, b) = (signed(lattice(seed, x, y, z)), signed(lattice(seed, right, y, z)));
        a + (b - a) * tx
    };
    let (a, b) = (line(y, z), line(below, z));
    let (c, d) = (line(y, above), line(below, above));
    let (near, far) = (a + (b - a) * ty, c + (d - c) * ty);
    near + (far - near) * tz
}

/// Two octaves of `value`, between about -1 and 1.
pub(crate) fn rough(seed: u32, p: [f32; 3]) -> f32 {
    0.66 * value(seed, p) + 0.34 * value(seed ^ 0x51ed, p.map(|c| c * 2.07))
}

/// Three octaves of `value`, between about -1 and 1.
pub(crate) fn fractal(seed: u32, p: [f32; 3]) -> f32 {
    let scale = |k: f32| p.map(|c| c * k);
    0.58 * value(seed, p) + 0.28 * value(seed ^ 0x51ed, scale(2.07)) + 0.14 * value(seed ^ 0xa3c7, scale(4.19))
}

/// Cellular noise (after Worley): distances to the nearest and the second nearest of one random point a unit cell, and a number of the nearest one.
pub(crate) fn cells(seed: u32, p: [f32; 3]) -> (f32, f32, u32) {
    let cell = p.map(floor);
    let (mut first, mut second, mut owner) = (f32::MAX, f32::MAX, 0);
    for dz in -1..=1 {
        for dy in -1..=1 {
            for dx in -1..=1 {
                let [x, y, z] = [
                    cell[0].wrapping_add(dx),
                    cell[1].wrapping_add(dy),
                    cell[2].wrapping_add(dz),
                ];
                let h = lattice(seed, x, y, z);
                let part = |shift: u32| ((h >> shift) & 1023) as f32 / 1023.0;
                let d = [
                    x as f32 + part(0) - p[0],
                    y as f32 + part(10) - p[1],
                    z as f32 + part(20) - p[2],
                ];
                let square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
                if square < first {
                    (second, first, owner) = (first, square, h);
                } else if square < second {
                    second = square;
                }
            }
        }
    }
    (first.sqrt(), second.sqrt(), owner)
}

/// Correlated noise of unit variance over one slice, as a kernel makes it: low-pass for smooth ones, band-pass for sharp ones.
pub(crate) struct Grain {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Grain {
    /// `correlation_pixels` is the length over which noise of the standard kernel hangs together, in pixels.
    pub(crate) fn new(seed: u64, rows: usize, columns: usize, kernel: Kernel, correlation_pixels: f32) -> Self {
        let mut state = hash(seed);
        let mut values: Vec<f32> = (0..rows * columns)
            .map(|_| {
                // Six uniform numbers of 10 bits add up to a bell shape, close enough to a Gaussian.
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let h = hash(state);
                (0..6).map(|k| ((h >> (10 * k)) & 1023) as f32).sum::<f32>() - 3069.0
            })
            .collect();
        let passes = match kernel {
            Kernel::Sharp => 1,
            Kernel::Standard => 2,
            Kernel::Smooth => 4,
        };
        let weight = (0.25 * correlation_pixels).clamp(0.02, 0.30);
        let mut grain = Self {
            rows,
            columns,
            values: std::mem::take(&mut values),
        };
        for _ in 0..passes {
            grain.blur(weight);
        }
        if kernel == Kernel::Sharp {
            let fine = grain.values.clone();
            for _ in 0..3 {
                grain.blur(0.3);
            }
            for (value, fine) in grain.values.iter_mut().zip(fine) {
                *value = fine - 0.8 * *value;
            }
        }
        grain.normalise();
        grain
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.columns + column]
    }

    fn blur(&mut self, weight: f32) {
        let centre = 1.0 - 2.0 * weight;
        for row in self.values.chunks_exact_mut(self.columns) {
            let mut before = row[0];
            for column in 0..row.len() {
                let here = row[column];
                let after = *row.get(column + 1).unwrap_or(&here);
                row[column] = centre * here + weight * (before + after);
                before = here;
            }
        }
        let mut before: Vec<f32> = self.values[..self.columns].to_vec();
        for row in 0..self.rows {
            let start = row * self.columns;
            for (column, before) in before.iter_mut().enumerate() {
                let here = self.values[start + column];
                let after = if row + 1 < self.rows {
                    self.values[start + self.columns + column]
                } else {
                    here
                };
                self.values[start + column] = centre * here + weight * (*before + after);
                *before = here;
            }
        }
    }

    fn normalise(&mut self) {
        let square: f64 = self.values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let sd = (square / self.values.len().max(1) as f64).sqrt().max(1e-6) as f32;
        for value in &mut self.values {
            *value /= sd;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooth_noise_stays_within_one_and_has_no_steps() {
        for k in 0..2000 {
            let p = [k as f32 * 0.013 - 7.0, k as f32 * 0.007, 3.3];
            let here = value(5, p);
            assert!(here.abs() <= 1.0);
            assert!((value(5, [p[0] + 1e-3, p[1], p[2]]) - here).abs() < 0.01);
        }
    }

    #[test]
    fn grain_has_unit_variance_and_a_smooth_kernel_hangs_together_further_than_a_sharp_one() {
        let correlation = |kernel| {
            let grain = Grain::new(9, 200, 200, kernel, 1.0);
            let mut sum = 0.0;
            for row in 0..200 {
                for column in 0..198 {
                    sum += grain.at(row, column) * grain.at(row, column + 2);
                }
            }
            sum / (200.0 * 198.0)
        };
        assert!(correlation(Kernel::Smooth) > correlation(Kernel::Standard) + 0.05);
        assert!(correlation(Kernel::Standard) > correlation(Kernel::Sharp) + 0.05);
    }
}
