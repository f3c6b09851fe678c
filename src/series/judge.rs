//! A series in, the verdict out, as far as headers can tell; and then with the pixels that only they can settle.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::codes::{Code, Kind};
use super::findings::{Finding, Verdict};
use super::limits::SeriesLimits;
use super::members::Names;
use super::plane::{Placed, Plane};
use super::vector::{difference, in_plane, length};
use super::wording::count;
use super::{
    Series, Slice, Stack, acquisitions, identity, members, memory, notes, plane, steps, unreadable, values, wording,
};
use crate::dicom::Header;

/// What headers alone say of a series.
#[derive(Clone, Debug)]
pub enum Judgement<'a> {
    /// It is refused; the first finding decided.
    Refused(Verdict),
    /// It can be segmented, unless its pixels forbid it.
    Usable(Box<Candidate<'a>>),
}

/// A series that headers do not refuse.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    names: Names,
    limits: SeriesLimits,
    plane: Plane,
    /// Ascending by position, one group per position; more than one member only where pixels must decide.
    groups: Vec<Vec<Placed<'a>>>,
    /// What was left out before positions were looked at.
    dropped: Vec<Finding>,
    usable: Usable,
}

/// What pixels made of a candidate.
#[derive(Clone, Debug)]
pub enum Settled {
    /// It is refused; the first finding decided.
    Refused(Verdict),
    /// It can be read.
    Usable(Usable),
}

/// A stack to read, and what was found about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Usable {
    /// The slices, one at each position.
    pub stack: Stack,
    /// Accepted or repaired.
    pub verdict: Verdict,
    /// False with the finding `identity_invalid`: no DICOM Segmentation can name this series as its source.
    pub identity_valid: bool,
    /// The estimate of `estimated_memory_bytes` on the reference grid.
    pub memory_bytes: u64,
}

impl Judgement<'_> {
    /// The verdict from headers alone.
    pub fn verdict(&self) -> &Verdict {
        match self {
            Judgement::Refused(verdict) => verdict,
            Judgement::Usable(candidate) => candidate.verdict(),
        }
    }
}

/// Judges a series by its headers. No file is opened.
pub fn judge<'a>(series: &'a Series, limits: &SeriesLimits) -> Judgement<'a> {
    match candidate(series, limits) {
        Ok(candidate) => Judgement::Usable(Box::new(candidate)),
        Err(findings) => Judgement::Refused(Verdict::from_findings(findings)),
    }
}

fn candidate<'a>(series: &'a Series, limits: &SeriesLimits) -> Result<Candidate<'a>, Vec<Finding>> {
    let names = Names::new(series);
    let (members, mut dropped) = members::slices(series, &names).map_err(|finding| vec![finding])?;
    dropped.extend(unreadable::files_unreadable(series));
    let mut refusals: Vec<Finding> = Vec::new();
    refusals.extend(identity::patients(&members, &names));
    match identity::frames_of_reference(&members, &names) {
        Some(finding) if finding.code.kind() == Kind::Refuses => refusals.push(finding),
        note => dropped.extend(note),
    }
    refusals.extend(values::transfer_syntaxes(&members, &names));
    refusals.extend(values::not_hounsfield(&members, &names));
    refusals.extend(values::incomplete(series, &members, &names));
    let placed = match plane::place(&members, limits, &names) {
        Ok(placed) => Some(placed),
        Err(findings) => {
            refusals.extend(findings);
            None
        }
    };
    let Some((plane, placed)) = placed else {
        return Err(refusals);
    };
    let mut groups = by_position(placed, limits);
    if groups.len() < limits.min_slices {
        refusals.push(too_few(groups.len(), limits));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    // Where no position is shared, acquisitions that lie in each other are parted without their pixels.
    let alone = groups.iter().all(|group| group.len() == 1);
    if alone
        && let Some((chosen, finding)) = acquisitions::interleaved(&representatives(&groups), &plane, limits, &names)
    {
        dropped.push(finding);
        groups = chosen.into_iter().map(|one| vec![one]).collect();
    }
    let usable = look(&representatives(&groups), &plane, &dropped, limits, &names)?;
    Ok(Candidate {
        names,
        limits: limits.clone(),
        plane,
        groups,
        dropped,
        usable,
    })
}

fn too_few(positions: usize, limits: &SeriesLimits) -> Finding {
    let sentence = format!(
        "There {} only {} at different positions; at least {} are needed for a volume. Check that the whole series was sent.",
        wording::are(positions),
        count(positions, "slice"),
        limits.min_slices
    );
    Finding::new(Code::TooFewSlices, sentence)
}

/// Slices nearer than this part of the usual distance between slices lie at one position: nobody reconstructs such a pair, but two scans of one couch do nearly meet.
const SAME_POSITION_SHARE: f64 = 0.03;

/// How near slices at one position are to each other, in mm: the limit, or the above where that is more. The usual distance is here the upper quartile of all,
/// since of pairs that nearly meet every second distance is next to nothing.
fn same_position_mm(ascending: &[Placed<'_>], limits: &SeriesLimits) -> f64 {
    let mut steps: Vec<f64> = ascending
        .windows(2)
        .map(|pair| pair[1].slice.position_mm - pair[0].slice.position_mm)
        .collect();
    let at = steps.len() * 3 / 4;
    let usual = match steps.get(at) {
        Some(_) => *steps.select_nth_unstable_by(at, f64::total_cmp).1,
        None => 0.0,
    };
    limits.same_position_mm.max(SAME_POSITION_SHARE * usual)
}

/// Groups of members at one position, ascending. Within a group the order depends on headers, not on the order of discovery, so that the same instances
/// always keep the same one of equals; of two that share even their UIDs, by the whole of their headers.
fn by_position<'a>(mut placed: Vec<Placed<'a>>, limits: &SeriesLimits) -> Vec<Vec<Placed<'a>>> {
    placed.sort_by(|a, b| a.slice.position_mm.total_cmp(&b.slice.position_mm));
    let near = same_position_mm(&placed, limits);
    let mut groups: Vec<Vec<Placed<'a>>> = Vec::new();
    for one in placed {
        match groups.last_mut() {
            Some(group) if one.slice.position_mm - group[0].slice.position_mm <= near => group.push(one),
            _ => groups.push(vec![one]),
        }
    }
    let place = by_header(groups.iter().filter(|group| group.len() > 1).flatten());
    for group in &mut groups {
        group.sort_by(|a, b| {
            let whole = |p: &Placed<'_>| place.get(&p.member.instance);
            rank(a).cmp(&rank(b)).then_with(|| whole(a).cmp(&whole(b)))
        });
    }
    groups
}

/// The place of each instance among all by the whole of its header; equal ones share it. Each header is looked at once, however many frames it tells of.
fn by_header<'p, 'a: 'p>(placed: impl Iterator<Item = &'p Placed<'a>>) -> BTreeMap<usize, usize> {
    let headers: BTreeMap<usize, &Header> = placed.map(|p| (p.member.instance, p.member.header)).collect();
    let mut same: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (instance, header) in headers {
        same.entry(format!("{header:?}")).or_default().push(instance);
    }
    let places = same.into_values().enumerate();
    places
        .flat_map(|(place, instances)| instances.into_iter().map(move |instance| (instance, place)))
        .collect()
}

/// What comes first of slices at one position.
fn rank<'p>(placed: &'p Placed<'_>) -> (Option<i64>, i64, &'p str, usize, &'p str) {
    let header = placed.member.header;
    (
        placed.acquisition(),
        header.instance_number.unwrap_or(i64::MAX),
        header.sop_instance_uid.as_str(),
        placed.member.frame,
        header.transfer_syntax_uid.as_str(),
    )
}

fn representatives<'a>(groups: &[Vec<Placed<'a>>]) -> Vec<Placed<'a>> {
    let mut slices: Vec<Placed<'a>> = groups.iter().filter_map(|group| group.first().cloned()).collect();
    // The first of a group need not be its lowest.
    slices.sort_by(|a, b| a.slice.position_mm.total_cmp(&b.slice.position_mm));
    slices
}

/// Everything that is said of slices once there is one at each position.
fn look(
    slices: &[Placed<'_>],
    plane: &Plane,
    before: &[Finding],
    limits: &SeriesLimits,
    names: &Names,
) -> Result<Usable, Vec<Finding>> {
    let mut findings = Vec::new();
    if slices.len() < limits.min_slices {
        findings.push(too_few(slices.len(), limits));
        return Err(findings);
    }
    let memory_bytes = memory::of_slices(slices, plane);
    let placed = steps::findings(slices, plane, limits, names);
    // A grid over displaced slices is large because of them.
    let displaced = placed.iter().any(|finding| finding.code == Code::NoGeometry);
    if !displaced && memory_bytes > limits.max_memory_bytes {
        findings.push(too_large(slices, plane, memory_bytes, limits));
    }
    findings.extend(placed);
    findings.extend(before.iter().cloned());
    findings.extend(identity::unique_identifiers(slices, names));
    findings.extend(notes::notes(slices, limits, names));
    let verdict = Verdict::from_findings(findings);
    if verdict.findings.first().is_some_and(|f| f.code.kind() == Kind::Refuses) {
        return Err(verdict.findings);
    }
    let stack = Stack {
        slices: slices.iter().map(|p| p.slice.clone()).collect(),
        rows: plane.rows,
        columns: plane.columns,
        pixel_spacing_mm: plane.pixel_spacing_mm,
        row_direction: plane.row,
        column_direction: plane.column,
        normal: plane.normal,
    };
    let identity_valid = !verdict.has(Code::IdentityInvalid);
    Ok(Usable {
        stack,
        verdict,
        identity_valid,
        memory_bytes,
    })
}

fn too_large(slices: &[Placed<'_>], plane: &Plane, bytes: u64, limits: &SeriesLimits) -> Finding {
    let sentence = format!(
        "The series needs about {} ({} of {} x {}), over the limit of {}. Raise max_memory_bytes if the machine has the memory.",
        wording::bytes(bytes),
        count(slices.len(), "slice"),
        plane.columns,
        plane.rows,
        wording::bytes(limits.max_memory_bytes)
    );
    Finding::new(Code::TooLarge, sentence)
}

impl<'a> Candidate<'a> {
    /// The verdict as far as headers tell. Pixels may still turn it into a refusal.
    pub fn verdict(&self) -> &Verdict {
        &self.usable.verdict
    }

    /// The stack as far as headers tell: one slice of each position.
    pub fn stack(&self) -> &Stack {
        &self.usable.stack
    }

    /// Whether a DICOM Segmentation can name this series as its source.
    pub fn identity_valid(&self) -> bool {
        self.usable.identity_valid
    }

    /// What headers leave open, in a sentence: how many positions hold more than one slice. `None` where pixels need not be compared.
    pub fn undecided(&self) -> Option<String> {
        let positions = self.needs_pixels().count();
        (positions > 0).then(|| {
            format!(
                "At {} there is more than one slice; pixels will tell copies from conflicts.",
                count(positions, "position")
            )
        })
    }

    /// Groups of slices at one position, whose pixels must be compared.
    pub fn needs_pixels(&self) -> impl Iterator<Item = Vec<&Slice>> {
        self.groups
            .iter()
            .filter(|group| group.len() > 1)
            .map(|group| group.iter().map(|p| &p.slice).collect())
    }

    /// Compares the slices that share a position, by a digest of each slice's HU (never of stored values: two rescales may give equal HU). Equal ones are
    /// dropped but one. Different ones are parted by acquisition where that is possible, and refuse the series where it is not. Where none share a
    /// position once copies are gone, acquisitions that lie in each other are parted as well. `digest` is called once for every slice of `needs_pixels`, on all
    /// cores.
    ///
    /// # Errors
    /// Those of `digest`, all of them.
    pub fn settle<E: Send>(self, digest: &(dyn Fn(&Slice) -> Result<[u8; 32], E> + Sync)) -> Result<Settled, Vec<E>> {
        let asked: Vec<&Slice> = self.needs_pixels().flatten().collect();
        let mut contents = Vec::with_capacity(asked.len());
        let mut faults = Vec::new();
        let told: Vec<_> = asked.into_par_iter().map(digest).collect();
        for one in told {
            match one {
                Ok(content) => contents.push(content),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut contents = contents.into_iter();
        let mut dropped = self.dropped;
        let mut copies: Vec<Placed<'a>> = Vec::new();
        let mut groups: Vec<Vec<Placed<'a>>> = Vec::with_capacity(self.groups.len());
        for group in self.groups {
            if group.len() < 2 {
                groups.push(group);
                continue;
            }
            let mut different: Vec<(Placed<'a>, [u8; 32])> = Vec::new();
            for (one, content) in group.into_iter().zip(contents.by_ref()) {
                let same = |(other, known): &(Placed<'a>, [u8; 32])| {
                    let aside = length(in_plane(
                        difference(one.slice.origin, other.slice.origin),
                        self.plane.normal,
                    ));
                    *known == content && aside <= self.limits.same_position_mm
                };
                if different.iter().any(same) {
                    copies.push(one)
                } else {
                    different.push((one, content))
                }
            }
            groups.push(different.into_iter().map(|(one, _)| one).collect());
        }
        if !copies.is_empty() {
            let sentence = format!(
                "{} of slices already there (same position, same values) {} left out; {} remain.",
                if copies.len() == 1 {
                    "1 copy".to_owned()
                } else {
                    format!("{} copies", copies.len())
                },
                wording::was(copies.len()),
                count(groups.iter().map(Vec::len).sum(), "slice")
            );
            let told = copies.iter().map(|p| p.told(&self.plane, &self.names));
            dropped.push(Finding::new(Code::DuplicateInstancesDropped, sentence).about(told));
        }
        let look = |slices: &[Placed<'a>], before: &[Finding]| match look(
            slices,
            &self.plane,
            before,
            &self.limits,
            &self.names,
        ) {
            Ok(usable) => Settled::Usable(usable),
            Err(findings) => Settled::Refused(Verdict::from_findings(findings)),
        };
        let slices = representatives(&groups);
        if groups.iter().any(|group| group.len() > 1) {
            let all: Vec<Placed<'a>> = groups.iter().flatten().cloned().collect();
            let Some((chosen, finding)) = acquisitions::choose(&all, &self.plane, &self.limits, &self.names) else {
                let refusal = conflicting(&groups, &self.plane, &self.names);
                return Ok(Settled::Refused(Verdict::from_findings(
                    [vec![refusal], dropped].concat(),
                )));
            };
            dropped.push(finding);
            return Ok(look(&chosen, &dropped));
        }
        // Without copies this was settled by the headers.
        if !copies.is_empty()
            && let Some((chosen, finding)) = acquisitions::interleaved(&slices, &self.plane, &self.limits, &self.names)
        {
            dropped.push(finding);
            return Ok(look(&chosen, &dropped));
        }
        Ok(look(&slices, &dropped))
    }
}

fn conflicting(groups: &[Vec<Placed<'_>>], plane: &Plane, names: &Names) -> Finding {
    let contested: Vec<&Vec<Placed<'_>>> = groups.iter().filter(|group| group.len() > 1).collect();
    let places: Vec<String> = contested
        .iter()
        .take(5)
        .map(|group| plane.place(group[0].slice.origin, group[0].slice.position_mm))
        .collect();
    let more = if contested.len() > 5 { " and others" } else { "" };
    let sentence = format!(
        "At {} ({}{more}) there are different images, and no acquisition number tells them apart. Send each phase or reconstruction as a series of its own.",
        count(contested.len(), "position"),
        places.join(", ")
    );
    Finding::new(Code::ConflictingSlices, sentence).about(
        contested
            .iter()
            .flat_map(|group| group.iter().map(|p| p.told(plane, names))),
    )
}
