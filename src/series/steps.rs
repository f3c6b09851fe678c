//! How the slices lie one behind the other: usual distance, holes, uneven steps, shear and direction.

use super::codes::Code;
use super::findings::Finding;
use super::limits::{SLACK_MM, SeriesLimits};
use super::members::Names;
use super::plane::{Placed, Plane};
use super::vector::{Vector, difference, dot, in_plane, length, spread};
use super::wording::{count, share};
use std::collections::BTreeSet;

/// The usual distance between neighbours: the median step (of an even number, the lower of the two in the middle, so that it is a step that occurs).
pub(super) fn usual_step_mm(slices: &[Placed<'_>]) -> f64 {
    let mut steps = steps_mm(slices);
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

fn steps_mm(slices: &[Placed<'_>]) -> Vec<f64> {
    slices
        .windows(2)
        .map(|pair| pair[1].slice.position_mm - pair[0].slice.position_mm)
        .collect()
}

/// What is found of positions ascending along the normal. A `no_geometry` or `slices_missing` among the findings refuses the series.
pub(super) fn findings(slices: &[Placed<'_>], plane: &Plane, limits: &SeriesLimits, names: &Names) -> Vec<Finding> {
    let usual = usual_step_mm(slices);
    let mut findings: Vec<Finding> = displaced(slices, plane, names).into_iter().collect();
    // A displaced slice is told as such alone: no slice is used at such a place.
    let tilt = match findings.as_slice() {
        [] => shear(slices, plane, limits, names),
        _ => None,
    };
    findings.extend(holes(slices, usual, plane, limits, names));
    findings.extend(uneven(slices, usual, plane, limits, names));
    let axial = is_axial(slices, plane, tilt.is_some(), limits);
    findings.extend(tilt);
    if !axial {
        findings.push(not_axial(plane, limits));
    }
    findings
}

/// Whether the steps are even, holes aside.
pub(super) fn is_even(slices: &[Placed<'_>], limits: &SeriesLimits) -> bool {
    let usual = usual_step_mm(slices);
    !kept_steps(slices, usual, limits).any(|(step, _)| is_odd(step, usual, limits))
}

/// How many holes there are, narrow or wide.
pub(super) fn hole_count(slices: &[Placed<'_>], limits: &SeriesLimits) -> usize {
    let usual = usual_step_mm(slices);
    steps_mm(slices)
        .into_iter()
        .filter(|step| is_hole(*step, usual, limits))
        .count()
}

fn is_hole(step: f64, usual: f64, limits: &SeriesLimits) -> bool {
    step >= limits.gap_steps * usual && step > usual + limits.uneven_mm
}

/// `slices_missing` and `gap_bridged`. A hole is the distance between the centres on both sides of it.
fn holes(slices: &[Placed<'_>], usual: f64, plane: &Plane, limits: &SeriesLimits, names: &Names) -> Vec<Finding> {
    let (mut wide, mut narrow) = (Vec::new(), Vec::new());
    for pair in slices.windows(2) {
        let step = pair[1].slice.position_mm - pair[0].slice.position_mm;
        if !is_hole(step, usual, limits) {
            continue;
        }
        let too_wide = step > limits.max_hole_mm + SLACK_MM && step > limits.max_hole_steps * usual + SLACK_MM;
        if too_wide { &mut wide } else { &mut narrow }.push((step, pair));
    }
    let told = |holes: &[(f64, &[Placed<'_>])]| {
        let parts: Vec<String> = holes
            .iter()
            .take(4)
            .map(|(step, pair)| {
                format!(
                    "{step:.1} mm between {} and {}",
                    at(&pair[0], plane),
                    at(&pair[1], plane)
                )
            })
            .collect();
        let more = if holes.len() > 4 {
            format!(" and {} more", holes.len() - 4)
        } else {
            String::new()
        };
        format!("{}{more}", parts.join("; "))
    };
    let concerned = |holes: &[(f64, &[Placed<'_>])]| -> Vec<String> {
        holes
            .iter()
            .flat_map(|(_, pair)| pair.iter().map(|p| p.told(plane, names)))
            .collect()
    };
    let mut findings = Vec::new();
    if !wide.is_empty() {
        let lacking: f64 = wide.iter().map(|(step, _)| (step / usual - 1.0).max(0.0).round()).sum();
        let sentence = format!(
            "Slices are missing: {} (usual distance {usual:.2} mm, so about {} lacking). Up to {:.0} mm would be bridged; send the series again, whole.",
            told(&wide),
            count(lacking as usize, "slice"),
            limits.max_hole_mm.max(limits.max_hole_steps * usual)
        );
        findings.push(Finding::new(Code::SlicesMissing, sentence).about(concerned(&wide)));
    }
    if !narrow.is_empty() {
        let sentence = format!(
            "{} filled by interpolation: {} (usual distance {usual:.2} mm).",
            count(narrow.len(), "narrow hole"),
            told(&narrow)
        );
        findings.push(Finding::new(Code::GapBridged, sentence).about(concerned(&narrow)));
    }
    findings
}

fn at(placed: &Placed<'_>, plane: &Plane) -> String {
    plane.place(placed.slice.origin, placed.slice.position_mm)
}

/// The steps that are no holes, each with the slice after it.
fn kept_steps<'p, 'a>(
    slices: &'p [Placed<'a>],
    usual: f64,
    limits: &SeriesLimits,
) -> impl Iterator<Item = (f64, &'p Placed<'a>)> {
    let steps = steps_mm(slices).into_iter().zip(slices.iter().skip(1));
    steps.filter(move |(step, _)| !is_hole(*step, usual, limits))
}

fn is_odd(step: f64, usual: f64, limits: &SeriesLimits) -> bool {
    (step - usual).abs() > limits.uneven_mm + limits.uneven_relative * usual
}

/// `uneven_spacing`; the slices after an uneven step are named.
fn uneven(slices: &[Placed<'_>], usual: f64, plane: &Plane, limits: &SeriesLimits, names: &Names) -> Option<Finding> {
    let kept: Vec<_> = kept_steps(slices, usual, limits).collect();
    let odd: Vec<_> = kept.iter().filter(|(step, _)| is_odd(*step, usual, limits)).collect();
    if odd.is_empty() {
        return None;
    }
    let (low, high) = kept
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (s, _)| {
            (low.min(*s), high.max(*s))
        });
    let sentence = format!(
        "The slices are {low:.2} to {high:.2} mm apart, mostly {usual:.2} mm ({} of {} steps differ); every slice is used at its true position.",
        odd.len(),
        kept.len()
    );
    let concerned = odd.iter().map(|(_, p)| p.told(plane, names));
    Some(Finding::new(Code::UnevenSpacing, sentence).about(concerned))
}

/// `no_geometry`, where slices lie so far aside of each other along their rows or columns that they share nothing. No gantry does this, an origin with a lost
/// decimal point does; the grid over such a stack would be mostly empty, and cropping it to the body could drop the slices.
fn displaced(slices: &[Placed<'_>], plane: &Plane, names: &Names) -> Option<Finding> {
    let field = |n: usize, mm: f64| n.saturating_sub(1).max(1) as f64 * mm;
    let axes = [
        (plane.row, field(plane.columns, plane.pixel_spacing_mm[1])),
        (plane.column, field(plane.rows, plane.pixel_spacing_mm[0])),
    ];
    let mut aside: Vec<(f64, &Placed<'_>)> = Vec::new();
    for (axis, field) in axes {
        let along = |p: &Placed<'_>| dot(p.slice.origin, axis);
        // The sign of an origin, once lost, moves a slice by just one field.
        if spread(slices.iter().map(along)) < field - SLACK_MM {
            continue;
        }
        let mut sorted: Vec<f64> = slices.iter().map(along).collect();
        sorted.sort_by(f64::total_cmp);
        // Most slices lie where they should, so the median is such a place; of slices that share nothing one is half a field off it.
        let usual = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let off = slices.iter().map(|p| ((along(p) - usual).abs(), p));
        aside.extend(off.filter(|(mm, _)| *mm >= field / 2.0 - SLACK_MM));
    }
    aside.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (farthest, first) = aside.first().copied()?;
    let mut named = BTreeSet::new();
    aside.retain(|(_, p)| named.insert((p.slice.instance, p.slice.frame)));
    let sentence = format!(
        "The slices cannot be placed in the patient: {} {} aside of the rest, by up to {farthest:.1} mm: {}. A slice is only {:.0} x {:.0} mm wide.",
        share(aside.len(), slices.len()),
        if aside.len() == 1 { "lies" } else { "lie" },
        first.told(plane, names),
        axes[0].1,
        axes[1].1
    );
    Some(Finding::new(Code::NoGeometry, sentence).about(aside.iter().map(|(_, p)| p.told(plane, names))))
}

/// The way from the first origin to the last.
fn way(slices: &[Placed<'_>]) -> Vector {
    match (slices.first(), slices.last()) {
        (Some(first), Some(last)) => difference(last.slice.origin, first.slice.origin),
        _ => [0.0; 3],
    }
}

/// Sideways wandering of origins that is not a straight shear counts from this on.
const WANDERING_MM: f64 = 1.0;

/// `gantry_tilt`, measured from the origins as dcm2niix does (computeGantryTiltPrecise), never from GantryDetectorTilt alone. A tilt is of all slices; of others those
/// that lie aside are named.
fn shear(slices: &[Placed<'_>], plane: &Plane, limits: &SeriesLimits, names: &Names) -> Option<Finding> {
    let way = way(slices);
    let along = dot(way, plane.normal);
    let sideways = length(in_plane(way, plane.normal));
    let degrees = sideways.atan2(along.abs()).to_degrees();
    let first = slices.first()?.slice.origin;
    let off: Vec<f64> = slices
        .iter()
        .map(|p| {
            let v = difference(p.slice.origin, first);
            let straight = if along.abs() > 0.0 {
                dot(v, plane.normal) / along
            } else {
                0.0
            };
            let expected = in_plane(way, plane.normal).map(|x| x * straight);
            length(difference(in_plane(v, plane.normal), expected))
        })
        .collect();
    let wandering = off.iter().copied().fold(0.0, f64::max);
    if degrees > limits.tilt_degrees {
        let sentence = format!(
            "The slices are tilted by {degrees:.1} degrees against the way of the table: over {:.0} mm they shift sideways by {sideways:.1} mm. Every slice is used at its true position.",
            along.abs()
        );
        return Some(Finding::new(Code::GantryTilt, sentence));
    }
    if wandering <= WANDERING_MM {
        return None;
    }
    let sentence = format!(
        "The slices are shifted sideways against each other by up to {wandering:.1} mm. Every slice is used at its true position."
    );
    let concerned = slices.iter().zip(off).filter(|(_, off)| *off > WANDERING_MM);
    Some(Finding::new(Code::GantryTilt, sentence).about(concerned.map(|(p, _)| p.told(plane, names))))
}

/// The largest tilt of a gantry: scanners reach 30 degrees, with a little room.
const LARGEST_TILT_DEGREES: f64 = 35.0;

fn is_axial(slices: &[Placed<'_>], plane: &Plane, tilted: bool, limits: &SeriesLimits) -> bool {
    let from_long_axis = |v: Vector| {
        let size = length(v);
        if size > 0.0 {
            (v[2].abs() / size).clamp(0.0, 1.0).acos().to_degrees()
        } else {
            0.0
        }
    };
    let normal = from_long_axis(plane.normal);
    let fed_along_axis =
        tilted && normal <= LARGEST_TILT_DEGREES && from_long_axis(way(slices)) <= limits.not_axial_degrees;
    normal <= limits.not_axial_degrees || fed_along_axis
}

fn not_axial(plane: &Plane, limits: &SeriesLimits) -> Finding {
    let cosines = plane.normal.map(f64::abs);
    let degrees = |cosine: f64| cosine.clamp(0.0, 1.0).acos().to_degrees();
    let near = |cosine: f64| degrees(cosine) <= limits.not_axial_degrees;
    let what = match cosines {
        [x, ..] if near(x) => "sagittal",
        [_, y, _] if near(y) => "coronal",
        _ => "oblique",
    };
    let sentence = format!(
        "The slices are {what}: their normal is {:.0} degrees off the long axis of the body ({} degrees count as axial). They are resampled in patient space.",
        degrees(cosines[2]),
        limits.not_axial_degrees
    );
    Finding::new(Code::NotAxial, sentence)
}
