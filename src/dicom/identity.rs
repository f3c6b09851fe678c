//! The elements that say whose images these are and which study they belong to, as raw bytes: a derived object repeats them unchanged.

use super::RawElement;
use super::view::View;
use super::walk::{Element, Encoding, Fault};
use dicom_core::{Tag, VR};

/// Ascending by tag. Patient (PS3.3 C.7.1.1), Patient Study (C.7.2.2), General Study (C.7.2.1), Clinical Trial Subject and Study (C.7.1.3, C.7.2.3); of SOP
/// Common (C.12.1) what text and times depend on; LongitudinalTemporalInformationModified (C.7.3.1).
#[rustfmt::skip]
const COPIED: &[(u16, &[u16])] = &[
    (0x0008, &[
        0x0005, 0x0020, 0x0030, 0x0050, 0x0051, 0x0090, 0x0096, 0x009C, 0x009D, 0x0201, 0x1030, 0x1032, 0x1048, 0x1049, 0x1060, 0x1062, 0x1080, 0x1084,
        0x1110, 0x1120,
    ]),
    (0x0010, &[
        0x0010, 0x0011, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016, 0x0020, 0x0021, 0x0022, 0x0024, 0x0026, 0x0027, 0x0030, 0x0032, 0x0033, 0x0034, 0x0035,
        0x0040, 0x0041, 0x0042, 0x0043, 0x0044, 0x0045, 0x0046, 0x0047, 0x0200, 0x0212, 0x0213, 0x0214, 0x0215, 0x0216, 0x0217, 0x0218, 0x0219, 0x0221,
        0x1001, 0x1002, 0x1010, 0x1020, 0x1021, 0x1022, 0x1023, 0x1024, 0x1030, 0x1100, 0x2000, 0x2110, 0x2160, 0x2161, 0x2162, 0x2180, 0x21A0, 0x21B0,
        0x21C0, 0x21D0, 0x2201, 0x2202, 0x2203, 0x2292, 0x2293, 0x2294, 0x2296, 0x2297, 0x2298, 0x2299, 0x4000,
    ]),
    (0x0012, &[
        0x0010, 0x0020, 0x0021, 0x0022, 0x0023, 0x0030, 0x0031, 0x0032, 0x0040, 0x0041, 0x0042, 0x0043, 0x0050, 0x0051, 0x0052, 0x0053, 0x0054, 0x0055,
        0x0062, 0x0063, 0x0064, 0x0081, 0x0082, 0x0083,
    ]),
    (0x0020, &[0x000D, 0x0010]),
    (0x0028, &[0x0303]),
    (0x0032, &[0x1033, 0x1034, 0x1066, 0x1067]),
    (0x0038, &[0x0010, 0x0014, 0x0060, 0x0062, 0x0064, 0x0100, 0x0500]),
    (0x0040, &[0x1012]),
];

/// ClinicalTrialSponsorName and ClinicalTrialProtocolID, of type 1 in the Clinical Trial Subject module.
const TRIAL: [u16; 2] = [0x0010, 0x0020];
/// ClinicalTrialSubjectID and ClinicalTrialSubjectReadingID: one of both has a value, and neither stands empty (type 1C).
const TRIAL_SUBJECT: [u16; 2] = [0x0040, 0x0042];

/// The elements to copy that a data set has.
///
/// Of one module not all are repeated: archives that take a patient's identity out leave the identifiers of Clinical Trial Subject (PS3.3 C.7.1.3) empty, where the standard wants
/// values. A module of which nothing else follows is left out then, so that the derived object is valid where its source is not.
pub(super) fn identity(view: &View) -> Result<Vec<RawElement>, Fault> {
    let has_value = |number: u16| !view.text(Tag(0x0012, number)).is_empty();
    let trial = TRIAL.into_iter().all(has_value) && TRIAL_SUBJECT.into_iter().any(has_value);
    let stays = |tag: Tag| match tag {
        Tag(0x0012, number) if TRIAL_SUBJECT.contains(&number) => trial && has_value(number),
        Tag(0x0012, 0x0010..=0x0043 | 0x0081 | 0x0082) => trial,
        _ => true,
    };
    view.elements()
        .iter()
        .filter(|element| is_copied(element.tag) && stays(element.tag))
        .map(|element| raw(view, element, 0))
        .collect()
}

fn is_copied(tag: Tag) -> bool {
    COPIED
        .binary_search_by_key(&tag.0, |(group, _)| *group)
        .ok()
        .and_then(|index| COPIED.get(index))
        .is_some_and(|(_, elements)| elements.binary_search(&tag.1).is_ok())
}

fn raw(view: &View, element: &Element, depth: usize) -> Result<RawElement, Fault> {
    let (vr, value) = if element.vr == VR::SQ {
        (VR::SQ, sequence(view, element, depth)?)
    } else {
        let value = little_endian(view.value(element), element.vr, view.encoding());
        // An implicit value too long for the 16-bit length of its explicit form is passed on as unknown (PS3.5 section 6.2.2, note).
        (
            if has_short_length(element.vr) && value.len() > 0xFFFE {
                VR::UN
            } else {
                element.vr
            },
            value,
        )
    };
    let mut letters = [0u8; 2];
    letters.copy_from_slice(vr.to_string().as_bytes());
    Ok(RawElement {
        tag: (element.tag.0, element.tag.1),
        vr: letters,
        value,
    })
}

/// The items of a sequence in explicit VR little endian with defined lengths.
fn sequence(view: &View, element: &Element, depth: usize) -> Result<Vec<u8>, Fault> {
    view.check_depth(depth)?;
    let mut written = Vec::new();
    for item in view.items_of(element)? {
        let mut content = Vec::new();
        for element in item.elements() {
            put_element(&mut content, &raw(&item, element, depth + 1)?)?;
        }
        written.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
        written.extend_from_slice(&length(content.len())?.to_le_bytes());
        written.append(&mut content);
    }
    Ok(written)
}

fn put_element(out: &mut Vec<u8>, element: &RawElement) -> Result<(), Fault> {
    out.extend_from_slice(&element.tag.0.to_le_bytes());
    out.extend_from_slice(&element.tag.1.to_le_bytes());
    out.extend_from_slice(&element.vr);
    let length = length(element.value.len())?;
    match VR::from_binary(element.vr) {
        Some(vr) if has_short_length(vr) => out.extend_from_slice(&(length as u16).to_le_bytes()),
        _ => {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&length.to_le_bytes());
        }
    }
    out.extend_from_slice(&element.value);
    Ok(())
}

fn length(bytes: usize) -> Result<u32, Fault> {
    u32::try_from(bytes).map_err(|_| Fault::OverLimit("a sequence of more than 4 GiB".into()))
}

/// Whether the explicit form has a 16-bit length (PS3.5 table 7.1-2).
fn has_short_length(vr: VR) -> bool {
    use VR::*;
    matches!(
        vr,
        AE | AS | AT | CS | DA | DS | DT | FL | FD | IS | LO | LT | PN | SH | SL | SS | ST | TM | UI | UL | US
    )
}

/// A value of even length in little endian; text is left as it stands.
fn little_endian(bytes: &[u8], vr: VR, encoding: Encoding) -> Vec<u8> {
    let mut value = bytes.to_vec();
    if encoding == Encoding::ExplicitBig {
        let width = match vr {
            VR::AT | VR::US | VR::SS | VR::OW => 2,
            VR::UL | VR::SL | VR::FL | VR::OF | VR::OL => 4,
            VR::FD | VR::OD | VR::SV | VR::UV | VR::OV => 8,
            _ => 1,
        };
        for number in value.chunks_exact_mut(width) {
            number.reverse();
        }
    }
    if value.len() % 2 == 1 {
        let text = matches!(
            vr,
            VR::AE
                | VR::AS
                | VR::CS
                | VR::DA
                | VR::DS
                | VR::DT
                | VR::IS
                | VR::LO
                | VR::LT
                | VR::PN
                | VR::SH
                | VR::ST
                | VR::TM
                | VR::UC
                | VR::UR
                | VR::UT
        );
        value.push(if text { b' ' } else { 0 });
    }
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_list_of_copied_elements_is_sorted_so_that_it_can_be_searched() {
        assert!(COPIED.is_sorted_by_key(|(group, _)| *group));
        assert!(COPIED.iter().all(|(_, elements)| elements.is_sorted()));
        assert!(is_copied(Tag(0x0010, 0x0020)) && is_copied(Tag(0x0012, 0x0064)) && !is_copied(Tag(0x0008, 0x0018)));
    }

    /// What of group 0012 is copied.
    fn of_trial(elements: &[(u16, &str)]) -> Vec<u16> {
        let mut bytes = Vec::new();
        for (number, value) in elements {
            bytes.extend_from_slice(&[0x12, 0, number.to_le_bytes()[0], 0]);
            bytes.extend_from_slice(b"LO");
            bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        let limits = crate::dicom::Limits::default();
        let walker = crate::dicom::walk::Walker::new(&bytes, bytes.len() as u64, &limits);
        let elements = walker.elements(0..bytes.len(), Encoding::ExplicitLittle).unwrap();
        let view = View::new(&walker, elements, Encoding::ExplicitLittle);
        identity(&view).unwrap().iter().map(|element| element.tag.1).collect()
    }

    #[test]
    fn a_trial_without_a_subject_is_left_out_and_one_with_is_copied() {
        let of = |sponsor, subject: Option<&'static str>, reading: Option<&'static str>| {
            let mut elements = vec![(0x10, sponsor), (0x20, "6688"), (0x21, "FLT "), (0x30, ""), (0x31, "")];
            elements.extend(subject.map(|id| (0x40, id)));
            elements.extend(reading.map(|id| (0x42, id)));
            elements.extend([(0x50, "0 "), (0x62, "YES "), (0x81, "IRB1")]);
            of_trial(&elements)
        };
        // The time point and the marks of de-identification are of other modules.
        let left = [0x50, 0x62];
        assert_eq!(of("ACR ", Some(""), None), left);
        assert_eq!(of("ACR ", None, None), left);
        assert_eq!(of("ACR ", Some("  "), Some("")), left);
        assert_eq!(of("", Some("S-77"), None), left);
        let whole = |id| [0x10, 0x20, 0x21, 0x30, 0x31, id, 0x50, 0x62, 0x81];
        assert_eq!(of("ACR ", Some("S-77"), None), whole(0x40));
        assert_eq!(of("ACR ", Some(""), Some("R-77")), whole(0x42));
    }
}
