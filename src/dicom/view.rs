//! A data set or an item, looked up by tag.

use super::values::{decimal, decimals, integer, plain};
use super::walk::{Element, Encoding, Fault, Walker};
use dicom_core::Tag;

/// The elements of a data set or of an item.
pub(super) struct View<'a> {
    walker: &'a Walker<'a>,
    elements: Vec<Element>,
    encoding: Encoding,
}

impl<'a> View<'a> {
    pub(super) fn new(walker: &'a Walker<'a>, elements: Vec<Element>, encoding: Encoding) -> Self {
        Self {
            walker,
            elements,
            encoding,
        }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(super) fn elements(&self) -> &[Element] {
        &self.elements
    }

    pub(super) fn element(&self, tag: Tag) -> Option<&Element> {
        let index = self.elements.binary_search_by_key(&tag, |element| element.tag).ok()?;
        self.elements.get(index)
    }

    pub(super) fn value(&self, element: &Element) -> &'a [u8] {
        self.walker.data().get(element.content.clone()).unwrap_or_default()
    }

    pub(super) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        self.element(tag).map(|element| self.value(element))
    }

    pub(super) fn check_depth(&self, depth: usize) -> Result<(), Fault> {
        self.walker.check_depth(depth)
    }

    /// Text of the default repertoire; empty when absent.
    pub(super) fn text(&self, tag: Tag) -> String {
        self.bytes(tag).map(plain).unwrap_or_default()
    }

    pub(super) fn integer(&self, tag: Tag) -> Option<i64> {
        integer(&self.text(tag))
    }

    pub(super) fn decimal(&self, tag: Tag) -> Option<f64> {
        decimal(self.text(tag).split('\\').next()?)
    }

    pub(super) fn decimals<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        decimals(&self.text(tag))
    }

    /// A binary number of two bytes, or of four where a writer made it so.
    pub(super) fn number(&self, tag: Tag) -> Option<u32> {
        let bytes = self.bytes(tag)?;
        let big = self.encoding == Encoding::ExplicitBig;
        match *bytes {
            [a, b, c, d] => Some(if big {
                u32::from_be_bytes([a, b, c, d])
            } else {
                u32::from_le_bytes([a, b, c, d])
            }),
            [a, b, ..] => Some(u32::from(if big {
                u16::from_be_bytes([a, b])
            } else {
                u16::from_le_bytes([a, b])
            })),
            _ => None,
        }
    }

    /// The items of a sequence; none when it is absent.
    pub(super) fn items(&self, tag: Tag) -> Result<Vec<View<'a>>, Fault> {
        let Some(sequence) = self.element(tag) else {
            return Ok(Vec::new());
        };
        self.items_of(sequence)
    }

    pub(super) fn items_of(&self, sequence: &Element) -> Result<Vec<View<'a>>, Fault> {
        let walker = self.walker;
        let ranges = walker.items(sequence)?;
        ranges
            .into_iter()
            .map(|range| {
                Ok(View::new(
                    walker,
                    walker.elements(range, sequence.inside)?,
                    sequence.inside,
                ))
            })
            .collect()
    }

    /// The first item of a sequence.
    pub(super) fn item(&self, tag: Tag) -> Result<Option<View<'a>>, Fault> {
        let Some(sequence) = self.element(tag) else {
            return Ok(None);
        };
        let walker = self.walker;
        match walker.first_item(sequence)? {
            Some(range) => Ok(Some(View::new(
                walker,
                walker.elements(range, sequence.inside)?,
                sequence.inside,
            ))),
            None => Ok(None),
        }
    }
}
