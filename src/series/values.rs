//! Whether stored values can be read and are Hounsfield units: as far as headers tell, and the findings for what only decoding shows.

use super::Series;
use super::codes::Code;
use super::findings::Finding;
use super::members::{Member, Names};
use super::wording::{count, share};
use crate::dicom::{PixelData, is_readable_syntax, syntax_name};
use std::collections::{BTreeMap, BTreeSet};

/// `unsupported_transfer_syntax`, by name.
pub(super) fn transfer_syntaxes(members: &[Member<'_>], names: &Names) -> Option<Finding> {
    let mut unread: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for member in members {
        let uid = member.header.transfer_syntax_uid.as_str();
        if !is_readable_syntax(uid) {
            unread.entry(uid).or_default().push(names.of(member));
        }
    }
    let told: Vec<String> = unread
        .iter()
        .map(|(uid, slices)| {
            let name = syntax_name(uid);
            format!("{} in {name} ({uid})", count(slices.len(), "slice"))
        })
        .collect();
    if told.is_empty() {
        return None;
    }
    let sentence = format!(
        "Hilum does not read the transfer syntax: {}. Send the series uncompressed or losslessly compressed.",
        told.join("; ")
    );
    Some(Finding::new(Code::UnsupportedTransferSyntax, sentence).about(unread.into_values().flatten()))
}

/// `corrupt_pixels` as far as the header shows it: no pixels, fewer bytes than Rows x Columns need, a file that ends before its pixels do, or bits that
/// cannot be.
pub(super) fn incomplete(series: &Series, members: &[Member<'_>], names: &Names) -> Option<Finding> {
    let instances: BTreeSet<usize> = members.iter().map(|m| m.instance).collect();
    let mut faults = Vec::new();
    for index in instances {
        let Some(instance) = series.instances.get(index) else {
            continue;
        };
        let (header, pixels) = (&instance.header, &instance.header.pixels);
        let bits = pixels.bits_allocated;
        let possible = matches!(bits, 8 | 16 | 32)
            && pixels.bits_stored > 0
            && pixels.bits_stored <= bits
            && pixels.high_bit < bits;
        // The high bit must leave room for the stored bits below it.
        let possible = possible && pixels.high_bit + 1 >= pixels.bits_stored;
        let needed = u128::from(pixels.rows)
            * u128::from(pixels.columns)
            * u128::from(pixels.samples_per_pixel.max(1))
            * u128::from(bits / 8)
            * header.frames.len().max(1) as u128;
        let why = match header.pixel_data {
            PixelData::Absent => Some("no pixels".to_owned()),
            _ if pixels.rows == 0 || pixels.columns == 0 => Some("no rows or columns".to_owned()),
            _ if !possible => Some(format!(
                "{} of {bits} bits with high bit {}",
                pixels.bits_stored, pixels.high_bit
            )),
            PixelData::Native { offset, length, .. } => {
                let there = u128::from(length.min(instance.source.length.saturating_sub(offset)));
                (there < needed).then(|| format!("{there} of {needed} bytes"))
            }
            PixelData::Encoded { .. } | PixelData::Deflated { .. } => None,
        };
        if let Some(why) = why {
            faults.push(format!("{}: {why}", names.instance(index)));
        }
    }
    (!faults.is_empty()).then(|| corrupt_pixels(series.instances.len(), "file", faults))
}

/// `corrupt_pixels`, of so many slices or files, whichever `faults` has a line for each one concerned of: its name and what is wrong with it.
pub fn corrupt_pixels(of: usize, what: &str, faults: Vec<String>) -> Finding {
    let n = faults.len();
    let sentence = format!(
        "The pixels of {n} of {} are missing, cut short or cannot be decoded (the first: {}). Send the series again from the source.",
        count(of, what),
        faults.first().map_or("", String::as_str)
    );
    Finding::new(Code::CorruptPixels, sentence).about(faults)
}

/// `not_hu` as far as the header shows it: colour or 8 bits, no rescale, an impossible one, or a RescaleType other than HU.
pub(super) fn not_hounsfield(members: &[Member<'_>], names: &Names) -> Option<Finding> {
    let mut whys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in members {
        if let Some(why) = why_not_hounsfield(member) {
            whys.entry(why).or_default().push(names.of(member));
        }
    }
    if whys.is_empty() {
        return None;
    }
    let told: Vec<String> = whys
        .iter()
        .take(4)
        .map(|(why, slices)| format!("{why} in {}", share(slices.len(), members.len())))
        .collect();
    Some(not_hu(&told.join("; ")).about(whys.into_values().flatten()))
}

/// `not_hu`, for a reason that headers or voxels give.
pub fn not_hu(why: &str) -> Finding {
    let sentence = format!("The values are not Hounsfield units: {why}. Send the original slices.");
    Finding::new(Code::NotHu, sentence)
}

fn why_not_hounsfield(member: &Member<'_>) -> Option<String> {
    let pixels = &member.header.pixels;
    if pixels.samples_per_pixel > 1
        || !matches!(
            pixels.photometric_interpretation.as_str(),
            "MONOCHROME1" | "MONOCHROME2" | ""
        )
    {
        return Some("pixels hold colour, not one value each,".to_owned());
    }
    if (1..=8).contains(&pixels.bits_stored) {
        return Some(format!(
            "pixels hold {} bits, too few for Hounsfield units,",
            pixels.bits_stored
        ));
    }
    let Some(rescale) = member.said.rescale else {
        return Some("RescaleSlope and RescaleIntercept are absent".to_owned());
    };
    if !rescale.slope.is_finite() {
        return Some("RescaleSlope is no finite number".to_owned());
    }
    if !rescale.intercept.is_finite() {
        return Some("RescaleIntercept is no finite number".to_owned());
    }
    if rescale.slope == 0.0 {
        return Some("RescaleSlope is 0".to_owned());
    }
    let kind = member.said.rescale_type.as_str();
    (!is_hounsfield(kind)).then(|| format!("RescaleType is {kind} instead of HU"))
}

/// RescaleType is absent in most CT images (HU is then implied, PS3.3 C.8.2.1.1.3), HU, or the unit spelt out, as reformats of one vendor have it
/// ("HOUNDSFIELD UNIT").
fn is_hounsfield(rescale_type: &str) -> bool {
    matches!(rescale_type, "" | "HU")
        || rescale_type.starts_with("HOUNSFIELD")
        || rescale_type.starts_with("HOUNDSFIELD")
}
