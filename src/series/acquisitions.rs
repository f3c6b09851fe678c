//! Several acquisitions in one series: which of them is the scan.

use super::codes::Code;
use super::findings::Finding;
use super::limits::SeriesLimits;
use super::members::Names;
use super::plane::{Placed, Plane};
use super::wording::{count, was};
use super::{steps, wording};
use std::collections::BTreeMap;

/// What tells one acquisition from another.
#[derive(Clone, Copy)]
enum Mark {
    Number,
    Time,
}

/// An acquisition, by its number or by when it began.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Acquisition {
    Number(Option<i64>),
    /// AcquisitionDate and AcquisitionTime.
    Time(String, String),
}

impl Acquisition {
    fn of(placed: &Placed<'_>, mark: Mark) -> Self {
        let header = placed.member.header;
        match mark {
            Mark::Number => Self::Number(placed.acquisition()),
            Mark::Time => Self::Time(header.acquisition_date.clone(), header.acquisition_time.clone()),
        }
    }

    /// As it stands behind the word "acquisition".
    fn name(&self) -> String {
        match self {
            Self::Number(Some(number)) => number.to_string(),
            Self::Number(None) => "without a number".to_owned(),
            Self::Time(_, time) if time.is_empty() => "without a time".to_owned(),
            Self::Time(_, time) => format!("of {}", wording::clock(time)),
        }
    }
}

/// An acquisition and its slices.
type Part<'a> = (Acquisition, Vec<Placed<'a>>);

/// How two parts lie to each other.
#[derive(Clone, Copy)]
enum Beside {
    /// They share nothing.
    Wholly,
    /// They share less than half of the shorter one: two parts of one scan may meet so.
    Mostly,
}

/// For slices of which some are at one position: takes the acquisition that covers most of the patient, then every further one that lies wholly beside
/// what was taken (a sequential scan numbers each turn of the gantry), and leaves out the rest. `None` if the slices have one acquisition number, or if what
/// is taken still has two slices at one position. The slices come in any order and go out ascending.
pub(super) fn choose<'a>(
    slices: &[Placed<'a>],
    plane: &Plane,
    limits: &SeriesLimits,
    names: &Names,
) -> Option<(Vec<Placed<'a>>, Finding)> {
    parted(slices, Mark::Number, Beside::Wholly, plane, limits, names)
}

/// For slices each at a position of its own: the same, where acquisitions lie in each other, such as two breath-holds half a step apart. Those that follow
/// each other along the table are one scan. So are those without which the rest is uneven or has holes: such numbers or times do not tell scans apart.
pub(super) fn interleaved<'a>(
    slices: &[Placed<'a>],
    plane: &Plane,
    limits: &SeriesLimits,
    names: &Names,
) -> Option<(Vec<Placed<'a>>, Finding)> {
    [Mark::Number, Mark::Time].into_iter().find_map(|mark| {
        parted(slices, mark, Beside::Mostly, plane, limits, names).filter(|(chosen, _)| {
            chosen.len() >= limits.min_slices
                && steps::is_even(chosen, limits)
                && steps::hole_count(chosen, limits) <= steps::hole_count(slices, limits)
        })
    })
}

fn parted<'a>(
    slices: &[Placed<'a>],
    mark: Mark,
    beside: Beside,
    plane: &Plane,
    limits: &SeriesLimits,
    names: &Names,
) -> Option<(Vec<Placed<'a>>, Finding)> {
    let mut parts: BTreeMap<Acquisition, Vec<Placed<'a>>> = BTreeMap::new();
    for one in slices {
        parts.entry(Acquisition::of(one, mark)).or_default().push(one.clone());
    }
    for part in parts.values_mut() {
        part.sort_by(|a, b| a.slice.position_mm.total_cmp(&b.slice.position_mm));
    }
    if all_apart(parts.values(), limits) {
        return None;
    }
    let mut order: Vec<Part<'a>> = parts.into_iter().collect();
    // A stable sort: of two that cover as much (to a tenth of a millimetre) with as many slices, the lower number is taken.
    order.sort_by_key(|(_, part)| std::cmp::Reverse(((extent_mm(part) * 10.0).round() as i64, part.len())));
    let (mut taken, mut left): (Vec<Part<'a>>, Vec<Part<'a>>) = Default::default();
    for part in order {
        let fits = taken.iter().all(|(_, other)| match beside {
            Beside::Wholly => apart(&part.1, other, limits),
            Beside::Mostly => apart(&part.1, other, limits) || !overlaps_mostly(&part.1, other),
        });
        if fits { &mut taken } else { &mut left }.push(part);
    }
    let finding = finding(&taken, &left, plane, names);
    let mut chosen: Vec<Placed<'a>> = taken.into_iter().flat_map(|(_, part)| part).collect();
    chosen.sort_by(|a, b| a.slice.position_mm.total_cmp(&b.slice.position_mm));
    let twice = chosen
        .windows(2)
        .any(|pair| pair[1].slice.position_mm - pair[0].slice.position_mm <= limits.same_position_mm);
    (!left.is_empty() && !twice).then_some((chosen, finding))
}

/// Whether no part reaches into another. Found in one pass, since a series may number every slice.
fn all_apart<'p, 'a: 'p>(parts: impl Iterator<Item = &'p Vec<Placed<'a>>>, limits: &SeriesLimits) -> bool {
    let mut ends: Vec<(f64, f64)> = parts.map(|part| self::ends(part)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    ends.windows(2)
        .all(|pair| pair[1].0 > pair[0].1 + limits.same_position_mm)
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

/// Whether they share at least half of the shorter one.
fn overlaps_mostly(a: &[Placed<'_>], b: &[Placed<'_>]) -> bool {
    let ((a_low, a_high), (b_low, b_high)) = (ends(a), ends(b));
    let shared = a_high.min(b_high) - a_low.max(b_low);
    shared >= 0.0 && 2.0 * shared >= extent_mm(a).min(extent_mm(b))
}

fn finding(taken: &[Part<'_>], left: &[Part<'_>], plane: &Plane, names: &Names) -> Finding {
    let named = |parts: &[Part<'_>]| {
        let told: Vec<String> = parts
            .iter()
            .take(6)
            .map(|(acquisition, slices)| {
                format!(
                    "{} ({}, {:.0} mm)",
                    acquisition.name(),
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
