//! Attribute values in, data elements as explicit VR little endian bytes out (PS3.5 sections 6.2 and 7).
//!
//! Hilum writes these bytes itself, since the identity of a patient must come out exactly as it came in, in whatever character set, and since a thousand frames
//! want a thousand nested items.

use std::collections::BTreeMap;

use dicom_core::Tag;

use crate::dicom::RawElement;

/// The value representations that Hilum writes.
pub(super) type Vr = [u8; 2];

/// Representations whose length takes 32 bits (PS3.5 table 7.1-1).
const LONG: [&Vr; 13] = [
    b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV",
];

const ITEM: Tag = Tag(0xFFFE, 0xE000);

/// A data set or a sequence item: elements, ascending by tag.
#[derive(Clone, Debug, Default)]
pub(super) struct Elements(BTreeMap<Tag, (Vr, Vec<u8>)>);

impl Elements {
    /// Text; values of a multiple one are joined by a backslash. The caller sees to it that it is plain ASCII.
    pub(super) fn text(&mut self, tag: Tag, vr: &Vr, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        if bytes.len() % 2 == 1 {
            bytes.push(if vr == b"UI" { 0 } else { b' ' });
        }
        self.0.insert(tag, (*vr, bytes));
        self
    }

    /// Unsigned 16-bit numbers.
    pub(super) fn shorts(&mut self, tag: Tag, values: &[u16]) -> &mut Self {
        self.0.insert(
            tag,
            (*b"US", values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        );
        self
    }

    /// Unsigned 32-bit numbers.
    pub(super) fn longs(&mut self, tag: Tag, values: &[u32]) -> &mut Self {
        self.0.insert(
            tag,
            (*b"UL", values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        );
        self
    }

    /// A tag that points at an attribute.
    pub(super) fn pointer(&mut self, tag: Tag, target: Tag) -> &mut Self {
        let bytes = [target.group().to_le_bytes(), target.element().to_le_bytes()].concat();
        self.0.insert(tag, (*b"AT", bytes));
        self
    }

    /// A sequence of items.
    pub(super) fn sequence(&mut self, tag: Tag, items: impl IntoIterator<Item = Elements>) -> &mut Self {
        let mut bytes = Vec::new();
        for item in items {
            item.write_item(&mut bytes);
        }
        self.0.insert(tag, (*b"SQ", bytes));
        self
    }

    /// The value of an element, byte for byte as the source has it.
    pub(super) fn raw(&mut self, element: &RawElement, vr: Vr) -> &mut Self {
        self.0
            .insert(Tag(element.tag.0, element.tag.1), (vr, element.value.clone()));
        self
    }

    /// Whether there is such an element.
    pub(super) fn contains(&self, tag: Tag) -> bool {
        self.0.contains_key(&tag)
    }

    /// Appends all elements, ascending by tag.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (tag, (vr, value)) in &self.0 {
            write_header(out, *tag, vr, value.len());
            out.extend_from_slice(value);
        }
    }

    /// Appends all elements as one sequence item of defined length.
    pub(super) fn write_item(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&ITEM.group().to_le_bytes());
        out.extend_from_slice(&ITEM.element().to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        self.write(out);
        // An item holds a few hundred bytes here; copied sequences are bounded by the reader's header limit, far below 32 bits.
        let length = (out.len() - start - 8) as u32;
        out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    }
}

/// Appends tag, representation and length. What is too long for a 16-bit length is written as UN, as PS3.5 6.2.2 note 2 advises.
pub(super) fn write_header(out: &mut Vec<u8>, tag: Tag, vr: &Vr, length: usize) {
    let vr = if length > 0xFFFE && !LONG.contains(&vr) {
        b"UN"
    } else {
        vr
    };
    out.extend_from_slice(&tag.group().to_le_bytes());
    out.extend_from_slice(&tag.element().to_le_bytes());
    out.extend_from_slice(vr);
    if LONG.contains(&vr) {
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(length as u32).to_le_bytes());
    } else {
        out.extend_from_slice(&(length as u16).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_out_ascending_and_padded() {
        let mut elements = Elements::default();
        elements
            .text(Tag(0x0020, 0x000D), b"UI", "1.2.3")
            .text(Tag(0x0008, 0x0060), b"CS", "SEG");
        let mut out = Vec::new();
        elements.write(&mut out);
        assert_eq!(
            out,
            b"\x08\x00\x60\x00CS\x04\x00SEG \x20\x00\x0D\x00UI\x06\x001.2.3\x00"
        );
    }

    #[test]
    fn a_sequence_has_items_of_defined_length() {
        let mut item = Elements::default();
        item.shorts(Tag(0x0062, 0x0004), &[7]);
        let mut elements = Elements::default();
        elements.sequence(Tag(0x0062, 0x0002), [item]);
        let mut out = Vec::new();
        elements.write(&mut out);
        assert_eq!(out, b"\x62\x00\x02\x00SQ\x00\x00\x12\x00\x00\x00\xFE\xFF\x00\xE0\x0A\x00\x00\x00\x62\x00\x04\x00US\x02\x00\x07\x00");
    }

    #[test]
    fn a_value_too_long_for_its_representation_is_written_as_unknown() {
        let mut out = Vec::new();
        write_header(&mut out, Tag(0x0010, 0x4000), b"LT", 70_000);
        assert_eq!(out, b"\x10\x00\x00\x40UN\x00\x00\x70\x11\x01\x00");
    }
}
