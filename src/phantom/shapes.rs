//! Depths in simple shapes and how they are joined. A depth is the distance to a surface in millimetres, positive inside.

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

/// The vector product.
pub(crate) fn cross(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}
