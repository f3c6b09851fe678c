//! What is noted of slices that are taken as they are.

use super::codes::Code;
use super::findings::Finding;
use super::kernel;
use super::limits::SeriesLimits;
use super::members::Names;
use super::plane::Placed;
use super::wording::{are, count, sentence_case, share};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// All notes that headers give, in a fixed order.
pub(super) fn notes(slices: &[Placed<'_>], limits: &SeriesLimits, names: &Names) -> Vec<Finding> {
    [
        instance_numbers(slices, names),
        rescale_varies(slices, names),
        lossy(slices, names),
        padding(slices, names),
        derived(slices, names),
        sharp_kernel(slices, limits),
        contrast(slices),
        thick_slices(slices, limits),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A finding about these of the slices, which are named unless they are all.
fn about(finding: Finding, concerned: &[&Placed<'_>], slices: &[Placed<'_>], names: &Names) -> Finding {
    if concerned.len() == slices.len() {
        return finding;
    }
    finding.about(concerned.iter().map(|p| names.of(&p.member)))
}

/// `instance_numbers_disagree`: the numbers, taken in order of position, go both up and down. Equal or absent numbers order nothing and contradict nothing;
/// frames of a multi-frame instance have none.
fn instance_numbers(slices: &[Placed<'_>], names: &Names) -> Option<Finding> {
    let numbered: Vec<(&Placed<'_>, i64)> = slices
        .iter()
        .filter(|p| p.member.header.frames.len() == 1)
        .filter_map(|p| Some((p, p.member.header.instance_number?)))
        .collect();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for pair in numbered.windows(2) {
        match pair[0].1.cmp(&pair[1].1) {
            Ordering::Less => up.push(pair[1].0),
            Ordering::Greater => down.push(pair[1].0),
            Ordering::Equal => {}
        }
    }
    let against = if up.len() < down.len() { up } else { down };
    (!against.is_empty()).then(|| {
        let sentence = format!(
            "The instance numbers of {} do not follow their positions ({} steps run against the others); the slices are ordered by position.",
            count(numbered.len(), "slice"),
            against.len()
        );
        about(Finding::new(Code::InstanceNumbersDisagree, sentence), &against, slices, names)
    })
}

/// `rescale_varies`; the slices whose rescale is not the most frequent one are named.
fn rescale_varies(slices: &[Placed<'_>], names: &Names) -> Option<Finding> {
    let bits = |p: &Placed<'_>| (p.slice.rescale.slope.to_bits(), p.slice.rescale.intercept.to_bits());
    let mut kinds: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for slice in slices {
        *kinds.entry(bits(slice)).or_default() += 1;
    }
    let usual = kinds.iter().max_by_key(|(_, often)| **often).map(|(kind, _)| *kind);
    let range = |value: fn(&Placed<'_>) -> f64| {
        slices
            .iter()
            .map(value)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            })
    };
    (kinds.len() > 1).then(|| {
        let (slope, intercept) = (range(|p| p.slice.rescale.slope), range(|p| p.slice.rescale.intercept));
        let sentence = format!(
            "{} different rescales occur (slope {} to {}, intercept {} to {}); each slice is converted with its own.",
            kinds.len(),
            slope.0,
            slope.1,
            intercept.0,
            intercept.1
        );
        let others: Vec<_> = slices.iter().filter(|p| Some(bits(p)) != usual).collect();
        about(Finding::new(Code::RescaleVaries, sentence), &others, slices, names)
    })
}

/// Syntaxes that always lose something: JPEG Baseline and Extended. JPEG-LS near-lossless, JPEG 2000 and HTJ2K may be lossless; of these the header's mark
/// tells (LossyImageCompression is required after a lossy step, PS3.3 C.7.6.1.1.5).
const LOSSY_SYNTAXES: [&str; 2] = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"];

fn lossy(slices: &[Placed<'_>], names: &Names) -> Option<Finding> {
    let is_lossy = |p: &&Placed<'_>| {
        p.member.header.lossy || LOSSY_SYNTAXES.contains(&p.member.header.transfer_syntax_uid.as_str())
    };
    let lossy: Vec<_> = slices.iter().filter(is_lossy).collect();
    let first = lossy.first()?.member.header;
    let mut how = Vec::new();
    if !first.lossy_ratio.is_empty() {
        how.push(format!("ratio {}", first.lossy_ratio.replace('\\', ", ")));
    }
    if !first.lossy_method.is_empty() {
        how.push(format!("method {}", first.lossy_method.replace('\\', ", ")));
    }
    let how = if how.is_empty() {
        String::new()
    } else {
        format!(" ({})", how.join(", "))
    };
    let sentence = format!(
        "{} went through lossy compression{how}; fine detail and density figures may be changed.",
        sentence_case(&share(lossy.len(), slices.len()))
    );
    Some(about(
        Finding::new(Code::LossyCompressed, sentence),
        &lossy,
        slices,
        names,
    ))
}

fn padding(slices: &[Placed<'_>], names: &Names) -> Option<Finding> {
    let padded: Vec<_> = slices
        .iter()
        .filter(|p| p.member.header.pixels.padding.is_some())
        .collect();
    let values: BTreeSet<(i32, i32)> = padded.iter().filter_map(|p| p.member.header.pixels.padding).collect();
    let told: Vec<String> = values
        .iter()
        .take(3)
        .map(|(low, high)| {
            if low == high {
                format!("{low}")
            } else {
                format!("{low} to {high}")
            }
        })
        .collect();
    (!values.is_empty()).then(|| {
        let sentence = format!(
            "The stored value {} marks pixels outside the field of view; it counts as air for the network and is left out of measurements.",
            told.join(" or ")
        );
        about(Finding::new(Code::PaddingPresent, sentence), &padded, slices, names)
    })
}

fn derived(slices: &[Placed<'_>], names: &Names) -> Option<Finding> {
    let is_derived = |p: &&Placed<'_>| image_type(p).first().is_some_and(|value| value == "DERIVED");
    let derived: Vec<_> = slices.iter().filter(is_derived).collect();
    let sentence = format!(
        "{} {} derived from other images (ImageType {}).",
        sentence_case(&share(derived.len(), slices.len())),
        are(derived.len()),
        image_type(derived.first()?).join("\\")
    );
    Some(about(Finding::new(Code::Derived, sentence), &derived, slices, names))
}

/// ImageType of a slice: the frame's own, or its instance's.
fn image_type<'p>(placed: &'p Placed<'_>) -> &'p [String] {
    let said = &placed.member.said.frame_type;
    if said.is_empty() {
        &placed.member.header.image_type
    } else {
        said
    }
}

fn sharp_kernel(slices: &[Placed<'_>], limits: &SeriesLimits) -> Option<Finding> {
    let sharp = slices
        .iter()
        .map(|p| p.member.header.convolution_kernel.as_str())
        .find(|name| kernel::is_sharp(name, &limits.sharp_kernels))?;
    let sentence = format!(
        "The reconstruction kernel {} is sharp: its noise raises the emphysema index and widens the spread of density figures.",
        sharp.replace('\\', ", ")
    );
    Some(Finding::new(Code::SharpKernel, sentence))
}

/// What is written into ContrastBolusAgent to say that there was none.
const NO_CONTRAST: [&str; 11] = [
    "",
    "NONE",
    "NO",
    "N",
    "0",
    "-",
    "N/A",
    "NA",
    "NO CONTRAST",
    "WITHOUT",
    "WITHOUT CONTRAST",
];

fn contrast(slices: &[Placed<'_>]) -> Option<Finding> {
    let agent = slices
        .iter()
        .map(|p| p.member.header.contrast_bolus_agent.trim())
        .find(|agent| !NO_CONTRAST.contains(&agent.to_uppercase().as_str()))?;
    let sentence =
        format!("Contrast medium was given (\"{agent}\"), which raises lung density and lowers the emphysema index.");
    Some(Finding::new(Code::Contrast, sentence))
}

fn thick_slices(slices: &[Placed<'_>], limits: &SeriesLimits) -> Option<Finding> {
    let thickness = |p: &Placed<'_>| p.member.said.slice_thickness_mm.or(p.member.header.slice_thickness_mm);
    let thickest = slices
        .iter()
        .filter_map(thickness)
        .filter(|t| t.is_finite())
        .fold(0.0, f64::max);
    (thickest > limits.thick_slices_mm).then(|| {
        let sentence = format!(
            "The slices are {thickest} mm thick (over {} mm): they average neighbouring tissue, which lowers the emphysema index.",
            limits.thick_slices_mm
        );
        Finding::new(Code::ThickSlices, sentence)
    })
}
