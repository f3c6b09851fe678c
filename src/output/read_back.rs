//! The bytes of a Segmentation and the mask that it should say in; nothing, or what is wrong, out.
//!
//! This code shares nothing with the writer: the object is parsed by dicom-rs, the bits are unpacked here, and every frame is placed in the patient by its own
//! position, orientation and spacing before it is compared with the mask on its grid. A fault of the writer is found here, before anyone stores the object.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{Cursor, Read};

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, OpenFileOptions};
use memchr::memmem;
use rayon::prelude::*;

use super::{OutputError, SegmentationRequest};
use crate::dicom::is_valid_uid;
use crate::volume::Grid;

/// Viewers match a frame and a slice whose positions differ by less than this, in millimetres.
const POSITION_TOLERANCE_MM: f64 = 1e-3;

/// How far the farthest corner of a frame may lie from that of its slice, in voxels.
const CORNER_TOLERANCE: f64 = 0.1;

/// What one frame says of itself.
struct Frame {
    segment: u16,
    position: [f64; 3],
    directions: [f64; 6],
    spacing_mm: [f64; 2],
    source_uid: String,
    source_frame: Option<usize>,
}

/// Checks that `bytes` is a DICOM Segmentation of exactly the request's mask on `grid`, and that every frame names the source slice at its place. Returns its
/// SOPInstanceUID.
pub fn verify(bytes: &[u8], request: &SegmentationRequest, grid: &Grid) -> Result<String, OutputError> {
    compare(bytes, request, grid).map_err(OutputError::ReadBack)
}

fn compare(bytes: &[u8], request: &SegmentationRequest, grid: &Grid) -> Result<String, String> {
    let (object, plain_pixels) = open(bytes, request.deflated)?;
    let [slices, rows, columns] = request.mask.shape;
    if [grid.origins.len(), grid.rows, grid.columns] != request.mask.shape {
        return Err("the mask does not lie on this grid".to_owned());
    }
    let size = rows * columns;
    expect("Rows", number(&object, tags::ROWS)?, rows)?;
    expect("Columns", number(&object, tags::COLUMNS)?, columns)?;
    expect("BitsAllocated", number(&object, tags::BITS_ALLOCATED)?, 1)?;
    let uid = text(&object, tags::SOP_INSTANCE_UID)?;
    expect(
        "SOPInstanceUID",
        uid.as_str(),
        object.meta().media_storage_sop_instance_uid(),
    )?;
    segments(&object, request)?;
    frame_of_reference(&object, request)?;

    let frames = frames(&object)?;
    expect("NumberOfFrames", number(&object, tags::NUMBER_OF_FRAMES)?, frames.len())?;
    let element = object
        .element(tags::PIXEL_DATA)
        .map_err(|_| "PixelData is missing".to_owned())?;
    let pixels = match plain_pixels {
        Some(pixels) => Cow::Borrowed(pixels),
        None => element.to_bytes().map_err(|_| "PixelData has no bytes".to_owned())?,
    };
    expect(
        "the length of PixelData",
        pixels.len(),
        (frames.len() * size).div_ceil(16) * 2,
    )?;

    let mut seen = HashSet::new();
    let mut places = Vec::with_capacity(frames.len());
    for (index, frame) in frames.iter().enumerate() {
        let at = |problem: String| format!("frame {}: {problem}", index + 1);
        let segment = usize::from(frame.segment).wrapping_sub(1);
        if segment >= request.segments.len() {
            return Err(at(format!("there is no segment {}", frame.segment)));
        }
        let slice = place(frame, grid).map_err(at)?;
        if !seen.insert((segment, slice)) {
            return Err(at(format!(
                "a second frame of segment {} at slice {}",
                frame.segment,
                slice + 1
            )));
        }
        check_source(frame, slice, request).map_err(at)?;
        places.push((segment, slice));
    }

    let covered: Vec<[bool; 256]> = request
        .segments
        .iter()
        .map(|segment| table(&segment.mask_labels))
        .collect();
    places
        .par_iter()
        .enumerate()
        .try_for_each(|(index, (segment, slice))| {
            let labels = &request.mask.labels[slice * size..][..size];
            match first_difference(&pixels, index * size, labels, &covered[*segment]) {
                None => Ok(()),
                Some(pixel) => Err(format!(
                    "frame {}, segment {}: row {}, column {} of slice {} differs from the mask",
                    index + 1,
                    segment + 1,
                    pixel / columns + 1,
                    pixel % columns + 1,
                    slice + 1
                )),
            }
        })?;
    let missing = (0..covered.len())
        .flat_map(|segment| (0..slices).map(move |slice| (segment, slice)))
        .filter(|place| !seen.contains(place));
    for (segment, slice) in missing {
        if request.mask.labels[slice * size..][..size]
            .iter()
            .any(|label| covered[segment][usize::from(*label)])
        {
            return Err(format!(
                "segment {} has no frame for slice {}, where the mask has it",
                segment + 1,
                slice + 1
            ));
        }
    }
    Ok(uid)
}

/// The data set and, where the file holds them as they are, its pixels, which are not copied: the data set is then read with an empty PixelData in place of the
/// one that the file ends with.
fn open(bytes: &[u8], deflated: bool) -> Result<(DefaultDicomObject, Option<&[u8]>), String> {
    let unreadable = |error| format!("not a DICOM file: {error}");
    let read = OpenFileOptions::new();
    if deflated {
        return Ok((read.from_reader(Cursor::new(bytes)).map_err(unreadable)?, None));
    }
    let tag = b"\xE0\x7F\x10\x00OB\0\0";
    let value = memmem::find_iter(bytes, tag)
        .map(|at| at + tag.len() + 4)
        .find(|value| {
            let length = bytes.get(value - 4..*value).and_then(|length| length.try_into().ok());
            length.is_some_and(|length| u32::from_le_bytes(length) as usize == bytes.len() - value)
        })
        .ok_or_else(|| "the file does not end with PixelData".to_owned())?;
    let head = Cursor::new(&bytes[..value - 4]).chain(Cursor::new([0; 4]));
    let object = read.from_reader(head).map_err(unreadable)?;
    expect(
        "the transfer syntax",
        object.meta().transfer_syntax(),
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
    )?;
    Ok((object, Some(&bytes[value..])))
}

/// The index of the slice on which a frame lies: its first voxel and three of its corners coincide with those of the slice.
fn place(frame: &Frame, grid: &Grid) -> Result<usize, String> {
    let along = dot(frame.position, grid.normal);
    let distance = |origin: &[f64; 3]| (dot(*origin, grid.normal) - along).abs();
    let nearest =
        (0..grid.origins.len()).min_by(|a, b| distance(&grid.origins[*a]).total_cmp(&distance(&grid.origins[*b])));
    let slice = nearest.ok_or_else(|| "the grid has no slices".to_owned())?;
    let off: [f64; 3] = std::array::from_fn(|axis| frame.position[axis] - grid.origins[slice][axis]);
    if !(off.iter().all(|part| part.abs() < POSITION_TOLERANCE_MM)) {
        return Err(format!(
            "its position {:?} is not that of slice {}, {:?}",
            frame.position,
            slice + 1,
            grid.origins[slice]
        ));
    }
    let [across, down] = [
        grid.columns.saturating_sub(1) as f64,
        grid.rows.saturating_sub(1) as f64,
    ];
    for (column, row) in [(across, 0.0), (0.0, down), (across, down)] {
        let apart: f64 = (0..3)
            .map(|axis| {
                let ours = column * frame.spacing_mm[1] * frame.directions[axis]
                    + row * frame.spacing_mm[0] * frame.directions[axis + 3]
                    + off[axis];
                let grids = column * grid.spacing_mm[1] * grid.row_direction[axis]
                    + row * grid.spacing_mm[0] * grid.column_direction[axis];
                (ours - grids).powi(2)
            })
            .sum::<f64>()
            .sqrt();
        let limit = CORNER_TOLERANCE * grid.spacing_mm[0].min(grid.spacing_mm[1]);
        if apart.is_nan() || apart >= limit {
            return Err(format!(
                "the corner at row {row}, column {column} lies {apart:.3} mm from that of slice {}",
                slice + 1
            ));
        }
    }
    Ok(slice)
}

/// The first pixel at which the bits from `start` on differ from the labels.
fn first_difference(bits: &[u8], start: usize, labels: &[u8], covered: &[bool; 256]) -> Option<usize> {
    let differs = |pixel: usize| {
        let bit = start + pixel;
        (bits[bit / 8] >> (bit % 8) & 1 == 1) != covered[usize::from(labels[pixel])]
    };
    let background_is_clear = !covered[0];
    for first in (0..labels.len()).step_by(64) {
        let last = labels.len().min(first + 64);
        let labels = &labels[first..last];
        let bytes = &bits[(start + first) / 8..(start + last).div_ceil(8)];
        // Most of a chest CT is background: nothing to look at bit by bit.
        if background_is_clear
            && labels.iter().fold(0, |all, label| all | label) == 0
            && bytes.iter().fold(0, |all, byte| all | byte) == 0
        {
            continue;
        }
        let whole = (start + first).is_multiple_of(8) && labels.len() == 64;
        let same = |(byte, labels): (&u8, &[u8])| {
            let expected = labels
                .iter()
                .rev()
                .fold(0, |bits, label| bits << 1 | u8::from(covered[usize::from(*label)]));
            *byte == expected
        };
        if whole && bytes.iter().zip(labels.chunks_exact(8)).all(same) {
            continue;
        }
        if let Some(pixel) = (first..last).find(|pixel| differs(*pixel)) {
            return Some(pixel);
        }
    }
    None
}

fn table(labels: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    for label in labels {
        table[usize::from(*label)] = true;
    }
    table
}

/// The segments are those of the request, in number and name.
fn segments(object: &InMemDicomObject, request: &SegmentationRequest) -> Result<(), String> {
    let items = items(object, tags::SEGMENT_SEQUENCE)?;
    expect("the number of segments", items.len(), request.segments.len())?;
    for (item, segment) in items.iter().zip(&request.segments) {
        expect(
            "SegmentNumber",
            number(item, tags::SEGMENT_NUMBER)?,
            usize::from(segment.number),
        )?;
        let property = one(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE)?;
        expect(
            "the code of a segment",
            text(property, tags::CODE_VALUE)?.as_str(),
            segment.property_type.value.as_str(),
        )?;
    }
    Ok(())
}

/// The patient's space is that of the slices; a source without a valid name of it leaves the object without one.
fn frame_of_reference(object: &InMemDicomObject, request: &SegmentationRequest) -> Result<(), String> {
    let first = &request.stack.slices[0];
    let source = &request.series.instances[first.instance].header.frame_of_reference_uid;
    if is_valid_uid(source) {
        let own = text(object, tags::FRAME_OF_REFERENCE_UID)?;
        return expect("FrameOfReferenceUID", own.as_str(), source.as_str());
    }
    match object.element(tags::FRAME_OF_REFERENCE_UID) {
        Ok(_) => Err("it names a frame of reference that its source does not".to_owned()),
        Err(_) => Ok(()),
    }
}

/// A frame refers to the instance, and the frame of it, that lies at its place.
fn check_source(frame: &Frame, slice: usize, request: &SegmentationRequest) -> Result<(), String> {
    let source = &request.stack.slices[slice];
    let header = &request.series.instances[source.instance].header;
    expect(
        "the source of the frame",
        frame.source_uid.as_str(),
        header.sop_instance_uid.as_str(),
    )?;
    match frame.source_frame {
        Some(number) => expect("the source's frame", number, source.frame + 1),
        None if header.frames.len() > 1 => Err("a source of several frames is named without a frame number".to_owned()),
        None => Ok(()),
    }
}

fn frames(object: &DefaultDicomObject) -> Result<Vec<Frame>, String> {
    let shared = one(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)?;
    let per_frame = items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
    per_frame
        .iter()
        .map(|groups| {
            let group = |tag: Tag| one(groups, tag).or_else(|_| one(shared, tag));
            let source = one(group(tags::DERIVATION_IMAGE_SEQUENCE)?, tags::SOURCE_IMAGE_SEQUENCE)?;
            let segment = number(
                group(tags::SEGMENT_IDENTIFICATION_SEQUENCE)?,
                tags::REFERENCED_SEGMENT_NUMBER,
            )?;
            Ok(Frame {
                segment: u16::try_from(segment).map_err(|_| "a segment number is too large".to_owned())?,
                position: numbers(group(tags::PLANE_POSITION_SEQUENCE)?, tags::IMAGE_POSITION_PATIENT)?,
                directions: numbers(
                    group(tags::PLANE_ORIENTATION_SEQUENCE)?,
                    tags::IMAGE_ORIENTATION_PATIENT,
                )?,
                spacing_mm: numbers(group(tags::PIXEL_MEASURES_SEQUENCE)?, tags::PIXEL_SPACING)?,
                source_uid: text(source, tags::REFERENCED_SOP_INSTANCE_UID)?,
                source_frame: number(source, tags::REFERENCED_FRAME_NUMBER).ok(),
            })
        })
        .collect()
}

fn items(object: &InMemDicomObject, tag: Tag) -> Result<&[InMemDicomObject], String> {
    let element = object.element(tag).map_err(|_| format!("{tag} is missing"))?;
    element.items().ok_or_else(|| format!("{tag} is not a sequence"))
}

fn one(object: &InMemDicomObject, tag: Tag) -> Result<&InMemDicomObject, String> {
    match items(object, tag)? {
        [item] => Ok(item),
        several => Err(format!("{tag} has {} items instead of one", several.len())),
    }
}

fn text(object: &InMemDicomObject, tag: Tag) -> Result<String, String> {
    let element = object.element(tag).map_err(|_| format!("{tag} is missing"))?;
    let text = element.to_str().map_err(|_| format!("{tag} is not text"))?;
    Ok(text.trim_end_matches(['\0', ' ']).to_owned())
}

fn number(object: &InMemDicomObject, tag: Tag) -> Result<usize, String> {
    let element = object.element(tag).map_err(|_| format!("{tag} is missing"))?;
    element.to_int().map_err(|_| format!("{tag} is not a number"))
}

fn numbers<const N: usize>(object: &InMemDicomObject, tag: Tag) -> Result<[f64; N], String> {
    let element = object.element(tag).map_err(|_| format!("{tag} is missing"))?;
    let values = element
        .to_multi_float64()
        .map_err(|_| format!("{tag} is not a list of numbers"))?;
    values
        .try_into()
        .map_err(|values: Vec<f64>| format!("{tag} has {} values instead of {N}", values.len()))
}

fn expect<T: PartialEq + std::fmt::Display>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what} is {found} instead of {expected}"))
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
