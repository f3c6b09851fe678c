//! Several acquisitions in one series: which of them is the scan.

use super::codes::Code;
use super::findings::Finding;
use super::limits::SeriesLimits;
use super::members::Names;
use super::plane::{Placed, Plane};
use super::wording::{count, was};
use std::collections::BTreeMap;

/// An acquisition number and its slices.
type Part<'a> = (Option<i64>, Vec<Placed<'a>>);

/// Takes the acquisition that covers most of the patient, then every further one that lies wholly beside what was taken (a sequential scan numbers each
/// turn of the gantry), and leaves out the rest. `None` if the slices have one acquisition number, or if what is taken still has two slices at one position.
/// The slices come in any order and go out ascending.
pub(super) fn choose<'a>(
    slices: &[Placed<'a>],
    plane: &Plane,
    limits: &SeriesLimits,
    names: &Names,
) -> Option<(Vec<Placed<'a>>, Finding)> {
    let mut parts: BTreeMap<Option<i64>, Vec<Placed<'a>>> = BTreeMap::new();
    for one in slices {
        parts.entry(one.acquisition()).or_default().push(one.clone());
    }
    if parts.len() < 2 {
        return None;
    }
    for part in parts.values_mut() {
        part.sort_by(|a, b| a.slice.position_mm.total_cmp(&b.slice.position_mm));
    }
    let mut order: Vec<Part<'a>> = parts.into_iter().collect();
    // A stable sort: of two that cover as much (to a tenth of a millimetre) with as many slices, the lower number is taken.
    order.sort_by_key(|(_, part)| std::cmp::Reverse(((extent_mm(part) * 10.0).round() as i64, part.len())));
    let (mut taken, mut left): (Vec<Part<'a>>, Vec<Part<'a>>) = Default::default();
    for part in order {
        let beside = taken.iter().all(|(_, other)| apart(&part.1, other, limits));
        if beside { &mut taken } else { &mut left }.push(part);
    }
    let finding = finding(&taken, &left, plane, names);
    let mut chosen: Vec<Placed<'a>> = taken.into_iter().flat_map(|(_, part)| part).collect();
    chosen.sort_by(|a, b| a.slice.position_mm.total_cmp(&b.slice.position_mm));
    let twice = chosen
        .windows(2)
        .any(|pair| pair[1].slice.position_mm - pair[0].slice.position_mm <= limits.same_position_mm);
    (!left.is_empty() && !twice).then_some((chosen, finding))
}

fn ends(part: &[Placed<'_>]) -> (f64, f64) {
    (
        part.first().map_or(0.0, |p| p.slice.position_mm),
        part.last().map_or(0.0, |p| p.slice.position_mm),
    )
}

fn extent_mm(part: &[Placed<'_>]) -> f64 {
    let (low, high) = ends(part);
    high - low
}

fn apart(a: &[Placed<'_>], b: &[Placed<'_>], limits: &SeriesLimits) -> bool {
    let ((a_low, a_high), (b_low, b_high)) = (ends(a), ends(b));
    a_low > b_high + limits.same_position_mm || b_low > a_high + limits.same_position_mm
}

fn finding(taken: &[Part<'_>], left: &[Part<'_>], plane: &Plane, names: &Names) -> Finding {
    let named = |parts: &[Part<'_>]| {
        let told: Vec<String> = parts
            .iter()
            .take(6)
            .map(|(number, slices)| {
                let number = number.map_or("without a number".to_owned(), |n| n.to_string());
                format!(
                    "{number} ({}, {:.0} mm)",
                    count(slices.len(), "slice"),
                    extent_mm(slices)
                )
            })
            .collect();
        let more = if parts.len() > 6 {
            format!(" and {} more", parts.len() - 6)
        } else {
            String::new()
        };
        format!("{}{more}", told.join(", "))
    };
    let sentence = format!(
        "The series holds {} of the same region: acquisition {} was taken as the longest, acquisition {} {} left out.",
        count(taken.len() + left.len(), "acquisition"),
        named(taken),
        named(left),
        was(left.len())
    );
    Finding::new(Code::AcquisitionChosen, sentence).about(
        left.iter()
            .flat_map(|(_, part)| part.iter().map(|p| p.told(plane, names))),
    )
}
