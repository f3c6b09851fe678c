//! Small CT instances, written byte by byte, so that tests can also write what no writer would.
#![allow(dead_code, clippy::unwrap_used)]

use hilum::dicom::{Instance, Limits, Source, read_header};
use std::path::Path;

pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(crate) const RLE: &str = "1.2.840.10008.1.2.5";
pub(crate) const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";

/// An element in explicit VR little endian.
pub(crate) fn element(tag: (u16, u16), vr: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() % 2 == 1 {
        value.push(if vr == "UI" { 0 } else { b' ' });
    }
    let mut bytes = header(tag, vr, value.len() as u32);
    bytes.extend_from_slice(&value);
    bytes
}

/// The header of an element, with any length.
pub(crate) fn header(tag: (u16, u16), vr: &str, length: u32) -> Vec<u8> {
    let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
    bytes.extend_from_slice(vr.as_bytes());
    if ["OB", "OW", "SQ", "UN", "UT", "OV"].contains(&vr) {
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&length.to_le_bytes());
    } else {
        bytes.extend_from_slice(&(length as u16).to_le_bytes());
    }
    bytes
}

/// An item or delimiter.
pub(crate) fn item(element: u16, length: u32) -> Vec<u8> {
    [
        &0xFFFEu16.to_le_bytes()[..],
        &element.to_le_bytes(),
        &length.to_le_bytes(),
    ]
    .concat()
}

/// Preamble and meta group.
pub(crate) fn meta(transfer_syntax: &str) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(b"DICM");
    let group = [
        element((2, 2), "UI", b"1.2.840.10008.5.1.4.1.1.2"),
        element((2, 0x10), "UI", transfer_syntax.as_bytes()),
    ]
    .concat();
    bytes.extend(element((2, 0), "UL", &(group.len() as u32).to_le_bytes()));
    bytes.extend(group);
    bytes
}

/// The header of a CT slice after the meta group, up to its pixel data.
pub(crate) fn data_set(rows: u16, columns: u16, signed: bool) -> Vec<u8> {
    let short = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
    [
        element((8, 0x08), "CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        element((8, 0x16), "UI", b"1.2.840.10008.5.1.4.1.1.2"),
        element((8, 0x18), "UI", b"1.2.3.4"),
        element((8, 0x60), "CS", b"CT"),
        element((0x10, 0x10), "PN", b"Phantom"),
        element((0x10, 0x20), "LO", b"P1"),
        element((0x20, 0x0D), "UI", b"1.2.3"),
        element((0x20, 0x0E), "UI", b"1.2.3.5"),
        element((0x20, 0x32), "DS", b"-100\\-100\\20"),
        element((0x20, 0x37), "DS", b"1\\0\\0\\0\\1\\0"),
        short((0x28, 2), 1),
        element((0x28, 4), "CS", b"MONOCHROME2"),
        short((0x28, 0x10), rows),
        short((0x28, 0x11), columns),
        element((0x28, 0x30), "DS", b"0.7\\0.7"),
        short((0x28, 0x100), 16),
        short((0x28, 0x101), 16),
        short((0x28, 0x102), 15),
        short((0x28, 0x103), u16::from(signed)),
        element((0x28, 0x1052), "DS", b"0"),
        element((0x28, 0x1053), "DS", b"1"),
    ]
    .concat()
}

/// Encapsulated pixel data with an empty offset table.
pub(crate) fn encapsulated(fragments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header((0x7FE0, 0x10), "OB", u32::MAX);
    bytes.extend(item(0xE000, 0));
    for fragment in fragments {
        bytes.extend(item(0xE000, (fragment.len() + fragment.len() % 2) as u32));
        bytes.extend_from_slice(fragment);
        bytes.resize(bytes.len() + fragment.len() % 2, 0);
    }
    bytes.extend(item(0xE0DD, 0));
    bytes
}

/// A picture with smooth and rough parts.
pub(crate) fn picture(rows: u16, columns: u16) -> Vec<i16> {
    let value = |row: i32, column: i32| (row * 7 - column * 3 + (row * column) % 61 - 700) as i16;
    (0..i32::from(rows))
        .flat_map(|row| (0..i32::from(columns)).map(move |column| value(row, column)))
        .collect()
}

pub(crate) fn little_endian(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// A whole uncompressed file.
pub(crate) fn native(rows: u16, columns: u16) -> Vec<u8> {
    native_of(rows, columns, &picture(rows, columns))
}

fn native_of(rows: u16, columns: u16, samples: &[i16]) -> Vec<u8> {
    [
        meta(EXPLICIT),
        data_set(rows, columns, true),
        element((0x7FE0, 0x10), "OW", &little_endian(samples)),
    ]
    .concat()
}

/// A whole JPEG-LS file.
pub(crate) fn jpeg_ls(rows: u16, columns: u16) -> Vec<u8> {
    [
        meta(JPEG_LS),
        data_set(rows, columns, true),
        encapsulated(&[&jpeg_ls_frame(rows, columns)]),
    ]
    .concat()
}

/// The picture as JPEG-LS.
pub(crate) fn jpeg_ls_frame(rows: u16, columns: u16) -> Vec<u8> {
    jpeg_ls_frame_of(rows, columns, &picture(rows, columns))
}

/// Samples as JPEG-LS.
pub(crate) fn jpeg_ls_frame_of(rows: u16, columns: u16, samples: &[i16]) -> Vec<u8> {
    use dicom_encoding::adapters::EncodeOptions;
    use dicom_encoding::transfer_syntax::TransferSyntaxIndex as _;
    use dicom_object::{FileDicomObject, InMemDicomObject};
    let syntax = dicom_transfer_syntax_registry::TransferSyntaxRegistry
        .get(JPEG_LS)
        .unwrap();
    let bytes = native_of(rows, columns, samples);
    let object: FileDicomObject<InMemDicomObject> = dicom_object::from_reader(bytes.as_slice()).unwrap();
    let mut out = Vec::new();
    syntax
        .pixel_data_writer()
        .unwrap()
        .encode_frame(&object, 0, EncodeOptions::default(), &mut out)
        .unwrap();
    out
}

/// Writes the bytes and reads their header.
pub(crate) fn open(folder: &Path, bytes: &[u8]) -> Instance {
    let path = folder.join(format!("{:x}.dcm", hash(bytes)));
    std::fs::write(&path, bytes).unwrap();
    read_header(&Source::of_file(&path).unwrap(), &Limits::default()).unwrap()
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The length that lies about what follows: nearly 4 GB.
pub(crate) const HUGE: u32 = 0xFFFF_FFF0;

/// Files whose headers declare more than they hold, or end what never began, wherever a length can stand.
pub(crate) fn headers_that_lie() -> Vec<Vec<u8>> {
    let data = data_set(20, 30, true);
    vec![
        [meta(EXPLICIT), header((8, 1), "UN", HUGE), data.clone()].concat(),
        [meta(EXPLICIT), header((8, 0x1110), "SQ", HUGE), data.clone()].concat(),
        [
            meta(EXPLICIT),
            header((8, 0x1110), "SQ", u32::MAX),
            item(0xE000, HUGE),
            data.clone(),
        ]
        .concat(),
        [
            meta(EXPLICIT),
            header((8, 0x1110), "SQ", u32::MAX),
            item(0xE000, u32::MAX),
            header((8, 1), "UN", HUGE),
            data.clone(),
        ]
        .concat(),
        [meta(EXPLICIT), header((8, 0x60), "OB", u32::MAX), data.clone()].concat(),
        [meta(EXPLICIT), item(0xE00D, 0), data.clone()].concat(),
        [&meta(EXPLICIT)[..132], &header((2, 1), "OB", HUGE), &data].concat(),
    ]
}
