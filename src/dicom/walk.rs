//! Bytes of a data set -> where its elements lie.
//!
//! Element headers are decoded by dicom-rs; the way from one to the next is ours, so that a declared length is compared with the bytes that are there before
//! anyone trusts it, and no value is copied that nobody asked for.

use super::limits::Limits;
use dicom_core::header::Header as _;
use dicom_core::{Tag, VR};
use dicom_encoding::decode::Decode as _;
use dicom_encoding::decode::explicit_be::ExplicitVRBigEndianDecoder;
use dicom_encoding::decode::explicit_le::ExplicitVRLittleEndianDecoder;
use dicom_encoding::decode::implicit_le::StandardImplicitVRLittleEndianDecoder;
use std::cell::Cell;
use std::io;
use std::ops::Range;

pub(super) const PIXEL_DATA: Tag = Tag(0x7FE0, 0x0010);
const SOP_CLASS_UID: Tag = Tag(0x0008, 0x0016);
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = u32::MAX;

/// How the elements of a data set are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

/// Why the walk stopped; the caller adds the path.
#[derive(Debug)]
pub(super) enum Fault {
    /// This many bytes must be read before the walk can go on.
    NeedMore(usize),
    NotDicom(String),
    Damaged(String),
    OverLimit(String),
    Io(io::Error),
}

/// An element: its value, or its items, are the bytes in `content`.
#[derive(Clone, Debug)]
pub(super) struct Element {
    pub(super) tag: Tag,
    pub(super) vr: VR,
    pub(super) content: Range<usize>,
    /// How items inside are encoded (implicit inside UN, PS3.5 section 6.2.2).
    pub(super) inside: Encoding,
}

/// The header of an element, as it stands in front of its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElementHeader {
    pub(super) tag: Tag,
    pub(super) vr: VR,
    /// `None`: undefined length.
    pub(super) length: Option<u32>,
    pub(super) value_at: usize,
}

/// The elements of a data set up to its pixel data, by tag.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) elements: Vec<Element>,
    pub(super) pixel_data: Option<ElementHeader>,
}

/// The bytes of an instance read so far, from its first byte on.
pub(super) struct Walker<'a> {
    data: &'a [u8],
    /// How many bytes there are; `u64::MAX` while unknown (inside a deflated stream).
    total: u64,
    limits: &'a Limits,
    items: Cell<usize>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(data: &'a [u8], total: u64, limits: &'a Limits) -> Self {
        Self {
            data,
            total,
            limits,
            items: Cell::new(0),
        }
    }

    pub(super) fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The element header at `at`.
    pub(super) fn header(&self, at: usize, encoding: Encoding) -> Result<ElementHeader, Fault> {
        let rest = self.data.get(at..).unwrap_or_default();
        if rest.len() < 12 && (self.data.len() as u64) < self.total {
            return Err(Fault::NeedMore(at.saturating_add(12)));
        }
        let mut rest = rest;
        let decoded = match encoding {
            Encoding::ImplicitLittle => StandardImplicitVRLittleEndianDecoder::default().decode_header(&mut rest),
            Encoding::ExplicitLittle => ExplicitVRLittleEndianDecoder::default().decode_header(&mut rest),
            Encoding::ExplicitBig => ExplicitVRBigEndianDecoder::default().decode_header(&mut rest),
        };
        let (header, size) = decoded.map_err(|_| Fault::Damaged(format!("it ends inside an element at byte {at}")))?;
        Ok(ElementHeader {
            tag: header.tag(),
            vr: header.vr(),
            length: Some(header.len.0).filter(|length| *length != UNDEFINED),
            value_at: at + size,
        })
    }

    /// The elements from `at` to the pixel data, which is not looked into.
    pub(super) fn scan(&self, mut at: usize, encoding: Encoding) -> Result<Scan, Fault> {
        let mut elements = Vec::with_capacity(160);
        let mut pixel_data = None;
        // Fewer than 8 bytes hold no element: padding at the end of the file.
        while (at as u64).saturating_add(8) <= self.total {
            let header = self.header(at, encoding)?;
            if header.tag == PIXEL_DATA {
                pixel_data = Some(header);
                break;
            }
            // What stands after the pixel data (padding, signatures) is of no use here.
            if header.tag.0 > PIXEL_DATA.0 && header.tag.0 < ITEM.0 {
                break;
            }
            let end = self.end_of(&header, encoding, 0)?;
            self.push(&mut elements, &header, end, encoding)?;
            at = end;
        }
        // Without pixel data, the last value may not have been read yet.
        if self.data.len() < at {
            return Err(Fault::NeedMore(at));
        }
        sort(&mut elements);
        Ok(Scan { elements, pixel_data })
    }

    /// Whether a SOP Class UID that DICOM itself gave out stands in the data set at `at`, even if the walk breaks off behind it. Nothing but DICOM begins so.
    pub(super) fn names_a_class(&self, mut at: usize, encoding: Encoding) -> bool {
        while let Ok(header) = self.header(at, encoding) {
            let Ok(end) = self.end_of(&header, encoding, 0) else {
                return false;
            };
            if header.tag == SOP_CLASS_UID {
                let value = self.data.get(header.value_at..end).unwrap_or_default();
                return value.starts_with(b"1.2.840.10008.");
            }
            // Elements ascend, and a walk over what is no data set must end.
            if header.tag.0 > SOP_CLASS_UID.0 {
                return false;
            }
            at = end;
        }
        false
    }

    /// The elements of an item.
    pub(super) fn elements(&self, range: Range<usize>, encoding: Encoding) -> Result<Vec<Element>, Fault> {
        let mut elements = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let header = self.header(at, encoding)?;
            if header.tag == ITEM_END {
                break;
            }
            let end = self.end_of(&header, encoding, 0)?;
            if end > range.end {
                return Err(Fault::Damaged(format!(
                    "element {} reaches out of its item",
                    name(header.tag)
                )));
            }
            self.push(&mut elements, &header, end, encoding)?;
            at = end;
        }
        sort(&mut elements);
        Ok(elements)
    }

    /// The contents of the items of a sequence.
    pub(super) fn items(&self, sequence: &Element) -> Result<Vec<Range<usize>>, Fault> {
        let mut items = Vec::new();
        let mut at = sequence.content.start;
        while at < sequence.content.end {
            let item = self.item(at, sequence.inside, 0)?;
            let Some((content, end)) = item else { break };
            if end > sequence.content.end {
                return Err(Fault::Damaged(format!(
                    "an item reaches out of sequence {}",
                    name(sequence.tag)
                )));
            }
            items.push(content);
            at = end;
        }
        Ok(items)
    }

    /// The content of the first item of a sequence.
    pub(super) fn first_item(&self, sequence: &Element) -> Result<Option<Range<usize>>, Fault> {
        if sequence.content.is_empty() {
            return Ok(None);
        }
        Ok(self
            .item(sequence.content.start, sequence.inside, 0)?
            .map(|(content, _)| content))
    }

    fn push(
        &self,
        elements: &mut Vec<Element>,
        header: &ElementHeader,
        end: usize,
        encoding: Encoding,
    ) -> Result<(), Fault> {
        if elements.len() >= self.limits.elements {
            return Err(Fault::OverLimit(format!("more than {} elements", self.limits.elements)));
        }
        let inside = if header.vr == VR::UN {
            Encoding::ImplicitLittle
        } else {
            encoding
        };
        elements.push(Element {
            tag: header.tag,
            vr: header.vr,
            content: header.value_at..end,
            inside,
        });
        Ok(())
    }

    /// The first byte after an element's value, which may lie behind what was read.
    fn end_of(&self, header: &ElementHeader, encoding: Encoding, depth: usize) -> Result<usize, Fault> {
        if header.tag.0 == ITEM.0 {
            return Err(Fault::Damaged(format!(
                "{} outside a sequence at byte {}",
                name(header.tag),
                header.value_at
            )));
        }
        match (header.length, header.vr) {
            (Some(length), _) => self.within(header.value_at, length, header.tag),
            (None, VR::SQ) => self.sequence_end(header.value_at, encoding, depth),
            (None, VR::UN) => self.sequence_end(header.value_at, Encoding::ImplicitLittle, depth),
            (None, _) => Err(Fault::Damaged(format!("{} has an undefined length", name(header.tag)))),
        }
    }

    /// `at + length`, if so many bytes are there and allowed.
    fn within(&self, at: usize, length: u32, tag: Tag) -> Result<usize, Fault> {
        let end = at as u64 + u64::from(length);
        if end > self.total {
            let left = self.total.saturating_sub(at as u64);
            return Err(Fault::Damaged(format!(
                "{} declares {length} bytes where {left} are left",
                name(tag)
            )));
        }
        if end > self.limits.header_bytes as u64 {
            return Err(Fault::OverLimit(format!(
                "header of more than {} bytes",
                self.limits.header_bytes
            )));
        }
        Ok(end as usize)
    }

    /// Refuses the sequence that would be one too deep. Sequences of defined length are not looked into by the walk, so those who do must ask.
    pub(super) fn check_depth(&self, depth: usize) -> Result<(), Fault> {
        if depth >= self.limits.nesting {
            return Err(Fault::OverLimit(format!(
                "more than {} sequences inside each other",
                self.limits.nesting
            )));
        }
        Ok(())
    }

    fn sequence_end(&self, mut at: usize, encoding: Encoding, depth: usize) -> Result<usize, Fault> {
        self.check_depth(depth)?;
        while let Some((_, end)) = self.item(at, encoding, depth)? {
            at = end;
        }
        Ok(at + 8)
    }

    /// The item at `at`: its content and the first byte after it; `None` at the end of the sequence.
    fn item(&self, at: usize, encoding: Encoding, depth: usize) -> Result<Option<(Range<usize>, usize)>, Fault> {
        let header = self.item_header(at, encoding)?;
        if header.tag == SEQUENCE_END {
            return Ok(None);
        }
        if header.tag != ITEM {
            return Err(Fault::Damaged(format!(
                "{} where an item should begin, at byte {at}",
                name(header.tag)
            )));
        }
        self.items.set(self.items.get() + 1);
        if self.items.get() > self.limits.items {
            return Err(Fault::OverLimit(format!(
                "more than {} sequence items",
                self.limits.items
            )));
        }
        let start = header.value_at;
        if let Some(length) = header.length {
            let end = self.within(start, length, header.tag)?;
            return Ok(Some((start..end, end)));
        }
        let mut inner = start;
        loop {
            let header = self.header(inner, encoding)?;
            if header.tag == ITEM_END {
                return Ok(Some((start..inner, header.value_at)));
            }
            inner = self.end_of(&header, encoding, depth + 1)?;
        }
    }

    /// Items have no value representation, in any encoding.
    fn item_header(&self, at: usize, encoding: Encoding) -> Result<ElementHeader, Fault> {
        let header = self.header(at, encoding)?;
        Ok(ElementHeader {
            value_at: at + 8,
            ..header
        })
    }
}

/// "(0008,0060)".
pub(super) fn name(tag: Tag) -> String {
    format!("({:04X},{:04X})", tag.0, tag.1)
}

/// Ascending by tag; of an element written twice, the first counts.
fn sort(elements: &mut Vec<Element>) {
    elements.sort_by_key(|element| element.tag);
    elements.dedup_by_key(|element| element.tag);
}
