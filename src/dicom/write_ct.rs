//! Attributes and stored values in, the bytes of a CT image file out: how phantoms become DICOM.
//!
//! Attributes come as plain text and numbers; this file alone turns them into dicom-rs elements and codes the pixels.

use std::io::Write;

use dicom_core::value::{C, PixelFragmentSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_pixeldata::Transcode;
use dicom_transfer_syntax_registry::entries;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The number of stored values is not rows times columns.
    #[error("{found} stored values were given for {rows} rows and {columns} columns")]
    Size {
        /// Values given.
        found: usize,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// The encoder or dicom-rs failed.
    #[error("the image could not be coded: {0}")]
    Coding(String),
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CtValue {
    /// Text; several values are joined by a backslash. `None` as VR finds the dictionary's.
    Text(String),
    /// An unsigned 16-bit number.
    Unsigned(u16),
    /// A signed 16-bit number.
    Signed(i16),
}

/// An attribute: (group, element), value representation in two letters, value.
pub type CtAttribute = ((u16, u16), [u8; 2], CtValue);

/// How pixels are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtCoding {
    /// Explicit VR little endian.
    ExplicitLittleEndian,
    /// Implicit VR little endian.
    ImplicitLittleEndian,
    /// Deflated explicit VR little endian.
    Deflated,
    /// RLE lossless.
    Rle,
    /// JPEG-LS lossless.
    JpegLs,
}

/// One CT image: stored values of 16 bits, of which `bits_stored` are used.
#[derive(Clone, Debug)]
pub struct CtImage<'a> {
    /// All attributes but those of the image pixel module and the file's head.
    pub attributes: &'a [CtAttribute],
    /// SOPInstanceUID.
    pub sop_instance_uid: &'a str,
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// BitsStored.
    pub bits_stored: u16,
    /// PixelRepresentation is 1.
    pub signed: bool,
    /// Stored values, row by row; signed ones as their two's complement.
    pub stored: &'a [u16],
}

/// The file of an image.
///
/// # Errors
/// [`WriteError::Size`] when values and size disagree, [`WriteError::Coding`] when an encoder fails.
pub fn write_ct(image: &CtImage, coding: CtCoding) -> Result<Vec<u8>, WriteError> {
    if image.stored.len() != usize::from(image.rows) * usize::from(image.columns) {
        return Err(WriteError::Size {
            found: image.stored.len(),
            rows: image.rows,
            columns: image.columns,
        });
    }
    let failed = |error: &dyn std::fmt::Display| WriteError::Coding(error.to_string());
    let mut object = data_set(image);
    let syntax = match coding {
        CtCoding::ImplicitLittleEndian => uids::IMPLICIT_VR_LITTLE_ENDIAN,
        CtCoding::Deflated => uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        CtCoding::Rle => uids::RLE_LOSSLESS,
        CtCoding::ExplicitLittleEndian | CtCoding::JpegLs => uids::EXPLICIT_VR_LITTLE_ENDIAN,
    };
    if coding == CtCoding::Rle {
        let frame = rle_frame(image.stored);
        object.put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OB,
            PixelFragmentSequence::new_fragments(vec![frame]),
        ));
    }
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid(image.sop_instance_uid)
        .transfer_syntax(syntax)
        .implementation_class_uid("2.25.80302813137786398554742050926734630921")
        .implementation_version_name("HILUM PHANTOM")
        .build()
        .map_err(|error| failed(&error))?;
    let mut file = object.with_exact_meta(meta);
    let mut bytes = Vec::with_capacity(image.stored.len() * 2 + 4096);
    match coding {
        CtCoding::Deflated => {
            bytes.extend_from_slice(&[0; 128]);
            bytes.extend_from_slice(b"DICM");
            file.write_meta(&mut bytes).map_err(|error| failed(&error))?;
            let mut plain = Vec::with_capacity(image.stored.len() * 2 + 4096);
            file.write_dataset_with_ts(&mut plain, &entries::EXPLICIT_VR_LITTLE_ENDIAN.erased())
                .map_err(|error| failed(&error))?;
            let mut encoder = flate2::write::DeflateEncoder::new(bytes, flate2::Compression::default());
            encoder.write_all(&plain).map_err(|error| failed(&error))?;
            bytes = encoder.finish().map_err(|error| failed(&error))?;
            if bytes.len() % 2 == 1 {
                bytes.push(0);
            }
        }
        CtCoding::JpegLs => {
            file.transcode(&entries::JPEG_LS_LOSSLESS_IMAGE_COMPRESSION.erased())
                .map_err(|error| failed(&error))?;
            file.write_all(&mut bytes).map_err(|error| failed(&error))?;
        }
        _ => file.write_all(&mut bytes).map_err(|error| failed(&error))?,
    }
    Ok(bytes)
}

fn data_set(image: &CtImage) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    for ((group, element), vr, value) in image.attributes {
        let vr = VR::from_binary(*vr).unwrap_or(VR::LO);
        let value = match value {
            CtValue::Text(text) if text.is_empty() => PrimitiveValue::Empty,
            CtValue::Text(text) => PrimitiveValue::Strs(text.split('\\').map(str::to_owned).collect::<C<String>>()),
            CtValue::Unsigned(number) => PrimitiveValue::from(*number),
            CtValue::Signed(number) => PrimitiveValue::from(*number),
        };
        object.put(DataElement::new(Tag(*group, *element), vr, value));
    }
    let mut number = |tag: Tag, value: u16| object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    number(tags::SAMPLES_PER_PIXEL, 1);
    number(tags::ROWS, image.rows);
    number(tags::COLUMNS, image.columns);
    number(tags::BITS_ALLOCATED, 16);
    number(tags::BITS_STORED, image.bits_stored);
    number(tags::HIGH_BIT, image.bits_stored.saturating_sub(1));
    number(tags::PIXEL_REPRESENTATION, u16::from(image.signed));
    object.put(DataElement::new(
        tags::PHOTOMETRIC_INTERPRETATION,
        VR::CS,
        PrimitiveValue::from("MONOCHROME2"),
    ));
    object.put(DataElement::new(
        tags::SOP_CLASS_UID,
        VR::UI,
        PrimitiveValue::from(uids::CT_IMAGE_STORAGE),
    ));
    object.put(DataElement::new(
        tags::SOP_INSTANCE_UID,
        VR::UI,
        PrimitiveValue::from(image.sop_instance_uid),
    ));
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::U16(image.stored.iter().copied().collect()),
    ));
    object
}

/// One frame of RLE lossless (PS3.5 Annex G): the high bytes, then the low bytes, each packed as PackBits.
fn rle_frame(stored: &[u16]) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[0] = 2;
    for (segment, shift) in [(0_usize, 8), (1, 0)] {
        let start = (frame.len() as u32).to_le_bytes();
        frame[4 + 4 * segment..8 + 4 * segment].copy_from_slice(&start);
        let plane: Vec<u8> = stored.iter().map(|value| (value >> shift) as u8).collect();
        pack_bits(&plane, &mut frame);
        if frame.len() % 2 == 1 {
            frame.push(0);
        }
    }
    frame
}

fn pack_bits(bytes: &[u8], out: &mut Vec<u8>) {
    let run = |from: usize| {
        bytes[from..]
            .iter()
            .take(128)
            .take_while(|byte| **byte == bytes[from])
            .count()
    };
    let mut at = 0;
    while at < bytes.len() {
        let same = run(at);
        if same >= 3 {
            out.extend_from_slice(&[(257 - same) as u8, bytes[at]]);
            at += same;
            continue;
        }
        let mut end = at + same;
        while end < bytes.len() && end - at < 128 && run(end) < 3 {
            end += 1;
        }
        let end = end.min(at + 128);
        out.push((end - at - 1) as u8);
        out.extend_from_slice(&bytes[at..end]);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(mut bytes: &[u8], wanted: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < wanted {
            let head = bytes[0];
            if head < 128 {
                let n = usize::from(head) + 1;
                out.extend_from_slice(&bytes[1..=n]);
                bytes = &bytes[n + 1..];
            } else {
                out.extend(std::iter::repeat_n(bytes[1], 257 - usize::from(head)));
                bytes = &bytes[2..];
            }
        }
        out
    }

    proptest::proptest! {
        #[test]
        fn packed_bits_unpack_to_themselves(bytes in proptest::collection::vec(0_u8..4, 1..900)) {
            let mut packed = Vec::new();
            pack_bits(&bytes, &mut packed);
            proptest::prop_assert_eq!(unpack(&packed, bytes.len()), bytes);
        }
    }
}
