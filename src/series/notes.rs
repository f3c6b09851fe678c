//! What is noted of slices that are taken as they are.

use super::codes::Code;
use super::findings::Finding;
use super::kernel;
use super::limits::SeriesLimits;
use super::members::Names;
use super::plane::Placed;
use super::wording::{are, count, sentence_case, share};
use std::collections::BTreeSet;

/// All notes that headers give, in a fixed order.
pub(super) fn notes(slices: &[Placed<'_>], limits: &SeriesLimits, names: &Names) -> Vec<Finding> {
    [
        instance_numbers(slices),
        rescale_varies(slices),
        lossy(slices, names),
        padding(slices),
        derived(slices),
        sharp_kernel(slices, limits),
        contrast(slices),
        thick_slices(slices, limits),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `instance_numbers_disagree`: the numbers, taken in order of position, go both up and down. Equal or absent numbers order nothing and contradict nothing;
/// frames of a multi-frame instance have none.
fn instance_numbers(slices: &[Placed<'_>]) -> Option<Finding> {
    let numbers: Vec<i64> = slices
        .iter()
        .filter(|p| p.member.header.frames.len() == 1)
        .filter_map(|p| p.member.header.instance_number)
        .collect();
    let (mut up, mut down) = (0, 0);
    for pair in numbers.windows(2) {
        match pair[0].cmp(&pair[1]) {
            std::cmp::Ordering::Less => up += 1,
            std::cmp::Ordering::Greater => down += 1,
            std::cmp::Ordering::Equal => {}
        }
    }
    (up > 0 && down > 0).then(|| {
        let sentence = format!(
            "The instance numbers of {} do not follow their positions ({} steps run against the others); the slices are ordered by position.",
            count(numbers.len(), "slice"),
            up.min(down)
        );
        Finding::new(Code::InstanceNumbersDisagree, sentence)
    })
}

fn rescale_varies(slices: &[Placed<'_>]) -> Option<Finding> {
    let kinds: BTreeSet<(u64, u64)> = slices
        .iter()
        .map(|p| (p.slice.rescale.slope.to_bits(), p.slice.rescale.intercept.to_bits()))
        .collect();
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
        Finding::new(Code::RescaleVaries, sentence)
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
    let all = lossy.len() == slices.len();
    Some(
        Finding::new(Code::LossyCompressed, sentence).about(lossy.iter().filter(|_| !all).map(|p| names.of(&p.member))),
    )
}

fn padding(slices: &[Placed<'_>]) -> Option<Finding> {
    let values: BTreeSet<(i32, i32)> = slices.iter().filter_map(|p| p.member.header.pixels.padding).collect();
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
        Finding::new(Code::PaddingPresent, sentence)
    })
}

fn derived(slices: &[Placed<'_>]) -> Option<Finding> {
    let image_type = |p: &Placed<'_>| {
        let said = &p.member.said.frame_type;
        if said.is_empty() {
            p.member.header.image_type.clone()
        } else {
            said.clone()
        }
    };
    let types: Vec<Vec<String>> = slices
        .iter()
        .map(image_type)
        .filter(|values| values.first().is_some_and(|v| v == "DERIVED"))
        .collect();
    let first = types.first()?;
    let sentence = format!(
        "{} {} derived from other images (ImageType {}).",
        sentence_case(&share(types.len(), slices.len())),
        are(types.len()),
        first.join("\\")
    );
    Some(Finding::new(Code::Derived, sentence))
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
