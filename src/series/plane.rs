//! The plane that all slices share: members in, their common orientation, matrix and spacing out, or why there is none.

use super::Slice;
use super::codes::Code;
use super::findings::Finding;
use super::limits::SeriesLimits;
use super::members::{Member, Names};
use super::vector::{Vector, cross, difference, dot, length, scaled};
use super::wording::{are, has, sentence_case, share};
use crate::dicom::Rescale;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Orientation, matrix and spacing of the slices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plane {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) pixel_spacing_mm: [f64; 2],
    pub(super) row: Vector,
    pub(super) column: Vector,
    pub(super) normal: Vector,
}

impl Plane {
    /// How a place along the normal is told to people: by patient z where slices lie across the body, otherwise by the distance along the normal.
    pub(super) fn place(&self, origin: Vector, position_mm: f64) -> String {
        if self.normal[2].abs() > 0.5 {
            format!("z = {:.1} mm", origin[2])
        } else {
            format!("{position_mm:.1} mm along the slice normal")
        }
    }
}

/// A member with its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<'a> {
    pub(super) member: Member<'a>,
    pub(super) slice: Slice,
}

impl Placed<'_> {
    pub(super) fn acquisition(&self) -> Option<i64> {
        self.member
            .said
            .acquisition_number
            .or(self.member.header.acquisition_number)
    }

    /// The file and the place, for lists of slices concerned.
    pub(super) fn told(&self, plane: &Plane, names: &Names) -> String {
        format!(
            "{} ({})",
            names.of(&self.member),
            plane.place(self.slice.origin, self.slice.position_mm)
        )
    }
}

/// Coordinates beyond this are no patient's (a scanner's table is about two metres long).
const FARTHEST_MM: f64 = 1e5;
/// Pixels wider than this belong to no CT.
const WIDEST_PIXEL_MM: f64 = 50.0;

struct Raw {
    origin: Vector,
    orientation: [f64; 6],
    spacing: [f64; 2],
}

fn raw(member: &Member<'_>, limits: &SeriesLimits) -> Result<Raw, &'static str> {
    let origin = member.said.position.ok_or("no ImagePositionPatient")?;
    let orientation = member.said.orientation.ok_or("no ImageOrientationPatient")?;
    let spacing = member.said.pixel_spacing_mm.ok_or("no PixelSpacing")?;
    if origin.iter().any(|v| v.is_nan() || v.abs() > FARTHEST_MM) {
        return Err("an impossible ImagePositionPatient");
    }
    let (row, column) = halves(&orientation);
    let off = [length(row) - 1.0, length(column) - 1.0, dot(row, column)];
    if off.iter().any(|v| v.is_nan() || v.abs() > limits.orthonormal_tolerance) {
        return Err("an ImageOrientationPatient whose directions are not of unit length and at right angles");
    }
    if spacing.iter().any(|v| !(*v > 0.0 && *v <= WIDEST_PIXEL_MM)) {
        return Err("an impossible PixelSpacing");
    }
    Ok(Raw {
        origin,
        orientation,
        spacing,
    })
}

fn halves(o: &[f64; 6]) -> (Vector, Vector) {
    ([o[0], o[1], o[2]], [o[3], o[4], o[5]])
}

/// The common plane and the members placed along its normal, in the order given. On failure everything that is wrong is told at once.
pub(super) fn place<'a>(
    members: &[Member<'a>],
    limits: &SeriesLimits,
    names: &Names,
) -> Result<(Plane, Vec<Placed<'a>>), Vec<Finding>> {
    let mut good = Vec::with_capacity(members.len());
    let mut bad: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for member in members {
        match raw(member, limits) {
            Ok(raw) => good.push((*member, raw)),
            Err(why) => bad.entry(why).or_default().push(names.of(member)),
        }
    }
    if !bad.is_empty() {
        let whys: Vec<String> = bad
            .iter()
            .map(|(why, files)| format!("{why} in {}", share(files.len(), members.len())))
            .collect();
        let sentence = format!("The slices cannot be placed in the patient: {}.", whys.join("; "));
        let finding = Finding::new(Code::NoGeometry, sentence);
        return Err(vec![finding.about(bad.into_values().flatten())]);
    }
    let (matrix, odd_matrix) = common_matrix(&good, names);
    let (orientation, odd_orientation) = common_orientation(&good, limits, names);
    let (spacing, odd_spacing) = common_spacing(&good, limits, names);
    let odd: Vec<Finding> = [odd_matrix, odd_orientation, odd_spacing]
        .into_iter()
        .flatten()
        .collect();
    if !odd.is_empty() {
        return Err(odd);
    }
    let plane = plane(&orientation, spacing, matrix.0 as usize, matrix.1 as usize);
    let placed = good
        .into_iter()
        .map(|(member, raw)| {
            // Without a rescale the series is refused as not_hu; the stored values stand in until then.
            let stored = Rescale {
                slope: 1.0,
                intercept: 0.0,
            };
            let slice = Slice {
                instance: member.instance,
                frame: member.frame,
                origin: raw.origin,
                position_mm: dot(plane.normal, raw.origin),
                rescale: member.said.rescale.unwrap_or(stored),
            };
            Placed { member, slice }
        })
        .collect();
    Ok((plane, placed))
}

type Good<'a> = [(Member<'a>, Raw)];

fn about(code: Code, sentence: String, others: &[&(Member<'_>, Raw)], names: &Names) -> Finding {
    Finding::new(code, sentence).about(others.iter().map(|(member, _)| names.of(member)))
}

fn common_matrix(good: &Good<'_>, names: &Names) -> ((u32, u32), Option<Finding>) {
    let of = |member: &Member<'_>| (member.header.pixels.rows, member.header.pixels.columns);
    let usual = most_common(good.iter().map(|(member, _)| of(member))).unwrap_or_default();
    let others: Vec<_> = good.iter().filter(|(member, _)| of(member) != usual).collect();
    let finding = others.first().map(|(member, _)| {
        let sentence = format!(
            "{} {} another matrix ({} x {}) than the rest ({} x {}).",
            sentence_case(&share(others.len(), good.len())),
            has(others.len()),
            of(member).1,
            of(member).0,
            usual.1,
            usual.0
        );
        about(Code::MixedMatrix, sentence, &others, names)
    });
    (usual, finding)
}

fn common_orientation(good: &Good<'_>, limits: &SeriesLimits, names: &Names) -> ([f64; 6], Option<Finding>) {
    let tolerance = limits.orientation_tolerance;
    let key = |orientation: [f64; 6]| orientation.map(|v| (v / tolerance.max(1e-9)).round() as i64);
    let usual = usual(good.iter().map(|(_, raw)| raw.orientation), key);
    let differs = |o: &[f64; 6]| o.iter().zip(&usual).any(|(a, b)| (a - b).abs() > tolerance);
    let others: Vec<_> = good.iter().filter(|(_, raw)| differs(&raw.orientation)).collect();
    let angles = others.iter().map(|(_, raw)| between_degrees(&raw.orientation, &usual));
    let finding = angles.reduce(f64::max).map(|widest| {
        let sentence = format!(
            "{} {} turned against the rest, by up to {widest:.1} degrees; the slices of a volume must be parallel.",
            sentence_case(&share(others.len(), good.len())),
            are(others.len()),
        );
        about(Code::MixedOrientation, sentence, &others, names)
    });
    (usual, finding)
}

fn common_spacing(good: &Good<'_>, limits: &SeriesLimits, names: &Names) -> ([f64; 2], Option<Finding>) {
    let key = |spacing: [f64; 2]| spacing.map(|v| (v * 1e4).round() as i64);
    let usual = usual(good.iter().map(|(_, raw)| raw.spacing), key);
    let relative = limits.pixel_spacing_relative;
    let differs = |s: &[f64; 2]| s.iter().zip(&usual).any(|(a, b)| (a - b).abs() > relative * b);
    let others: Vec<_> = good.iter().filter(|(_, raw)| differs(&raw.spacing)).collect();
    let finding = others.first().map(|(_, first)| {
        let sentence = format!(
            "{} {} another pixel spacing ({:.4} x {:.4} mm) than the rest ({:.4} x {:.4} mm).",
            sentence_case(&share(others.len(), good.len())),
            has(others.len()),
            first.spacing[0],
            first.spacing[1],
            usual[0],
            usual[1]
        );
        about(Code::MixedPixelSpacing, sentence, &others, names)
    });
    (usual, finding)
}

/// Unit directions at right angles: the row's as written, the column's with what it shares with the row's taken out.
fn plane(orientation: &[f64; 6], pixel_spacing_mm: [f64; 2], rows: usize, columns: usize) -> Plane {
    let (row, column) = halves(orientation);
    let row = scaled(row, 1.0 / length(row));
    let column = difference(column, scaled(row, dot(row, column)));
    let column = scaled(column, 1.0 / length(column));
    Plane {
        rows,
        columns,
        pixel_spacing_mm,
        row,
        column,
        normal: cross(row, column),
    }
}

fn between_degrees(a: &[f64; 6], b: &[f64; 6]) -> f64 {
    let ((ar, ac), (br, bc)) = (halves(a), halves(b));
    let angle = |u, v| {
        (dot(u, v) / (length(u) * length(v)))
            .clamp(-1.0, 1.0)
            .acos()
            .to_degrees()
    };
    angle(ar, br).max(angle(ac, bc))
}

/// Of the values that `key` holds for one, where most are, the one that occurs most often, and of several the lowest: the same in whichever order they come.
fn usual<const N: usize>(
    values: impl Iterator<Item = [f64; N]> + Clone,
    key: impl Fn([f64; N]) -> [i64; N],
) -> [f64; N] {
    let order = |a: &[f64; N], b: &[f64; N]| {
        let pairs = a.iter().zip(b);
        pairs.fold(Ordering::Equal, |order, (a, b)| order.then(a.total_cmp(b)))
    };
    let most = most_common(values.clone().map(&key));
    let mut close: Vec<[f64; N]> = values.filter(|value| Some(key(*value)) == most).collect();
    close.sort_by(order);
    let runs = close.chunk_by(|a, b| order(a, b).is_eq());
    // The last of the longest, in falling order.
    let longest = runs.rev().max_by_key(|run| run.len());
    longest.and_then(<[_]>::first).copied().unwrap_or([0.0; N])
}

/// The value that occurs most often; of several the first by their order.
fn most_common<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    counts.into_iter().find(|(_, n)| *n == most).map(|(value, _)| value)
}
