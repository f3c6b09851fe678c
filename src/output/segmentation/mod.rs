//! A mask and its source series in, a DICOM Segmentation (BINARY, PS3.3 A.51) out.
//!
//! The patient and the study are copied byte for byte from the source; dates and times are the source's; the UIDs that Hilum makes come from the content. So the
//! same input, model and parameters give the same bytes, and anything else is another object.

mod bits;
mod elements;
mod frames;
mod modules;
mod text;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use self::elements::{Elements, write_header};
use self::frames::Frame;
use super::{OutputError, deflate};
use crate::dicom::{derived_uid, is_valid_uid};
use crate::series::{Finding, Series, Stack};
use crate::volume::Mask;

pub use self::modules::default_series_number;

/// A coded concept (PS3.3 section 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concept {
    /// CodeValue.
    pub value: String,
    /// CodingSchemeDesignator.
    pub scheme: String,
    /// CodeMeaning.
    pub meaning: String,
}

impl Concept {
    /// A concept from its three parts.
    pub fn new(value: &str, scheme: &str, meaning: &str) -> Self {
        Self {
            value: value.to_owned(),
            scheme: scheme.to_owned(),
            meaning: meaning.to_owned(),
        }
    }

    fn item(&self) -> Elements {
        let mut item = Elements::default();
        item.text(tags::CODE_VALUE, b"SH", &text::plain(&self.value, 16))
            .text(tags::CODING_SCHEME_DESIGNATOR, b"SH", &text::plain(&self.scheme, 16))
            .text(tags::CODE_MEANING, b"LO", &text::plain(&self.meaning, 64));
        item
    }
}

/// A segment and the labels of the mask that it covers.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentDescription {
    /// SegmentNumber, from 1 without holes.
    pub number: u16,
    /// SegmentLabel, at most 64 characters.
    pub label: String,
    /// SegmentedPropertyCategoryCodeSequence.
    pub category: Concept,
    /// SegmentedPropertyTypeCodeSequence.
    pub property_type: Concept,
    /// RecommendedDisplayCIELabValue, as sRGB.
    pub colour: [u8; 3],
    /// The labels of the mask that belong to this segment.
    pub mask_labels: Vec<u8>,
}

impl SegmentDescription {
    /// Both lungs in one.
    pub fn lung(number: u16) -> Self {
        Self::anatomy(
            number,
            Concept::new("39607008", "SCT", "Lung"),
            [197, 165, 145],
            &[1, 2],
        )
    }

    /// The right lung: label 1 of a mask.
    pub fn right_lung(number: u16) -> Self {
        Self::anatomy(
            number,
            Concept::new("3341006", "SCT", "Right lung"),
            [224, 97, 76],
            &[1],
        )
    }

    /// The left lung: label 2 of a mask.
    pub fn left_lung(number: u16) -> Self {
        Self::anatomy(
            number,
            Concept::new("44029006", "SCT", "Left lung"),
            [76, 97, 224],
            &[2],
        )
    }

    fn anatomy(number: u16, property_type: Concept, colour: [u8; 3], mask_labels: &[u8]) -> Self {
        let category = Concept::new("123037004", "SCT", "Anatomical Structure");
        Self {
            number,
            label: property_type.meaning.clone(),
            category,
            property_type,
            colour,
            mask_labels: mask_labels.to_vec(),
        }
    }
}

/// Which frames an object has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frames {
    /// One for every segment and slice.
    #[default]
    Full,
    /// Those alone that hold a voxel of their segment.
    Sparse,
}

/// What made the mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Digest over its weights, hexadecimal.
    pub digest: String,
    /// Whatever else can change the mask: parameters and the pipeline's revision, as text.
    pub parameters: String,
}

/// Everything that a segmentation says.
#[derive(Clone, Debug)]
pub struct SegmentationRequest<'a> {
    /// The source.
    pub series: &'a Series,
    /// Its slices that were segmented.
    pub stack: &'a Stack,
    /// The labels on these slices.
    pub mask: &'a Mask,
    /// The segments, numbered from 1.
    pub segments: Vec<SegmentDescription>,
    /// Which frames are written.
    pub frames: Frames,
    /// Deflated explicit VR little endian instead of explicit VR little endian.
    pub deflated: bool,
    /// SeriesNumber of the new series.
    pub series_number: i32,
    /// SeriesDescription of the new series; the number of slices used is added.
    pub series_description: String,
    /// ContentDescription: what must be known of the mask, see `content_description`.
    pub content_description: String,
    /// What made the mask.
    pub model: ModelIdentity,
}

/// What two verdicts found, short enough for ContentDescription (64 characters): whole codes, and how many more there are.
pub fn content_description(findings: &[Finding]) -> String {
    const LIMIT: usize = 64;
    let codes: Vec<String> = findings
        .iter()
        .map(|finding| {
            serde_json::to_value(finding.code)
                .ok()
                .and_then(|code| code.as_str().map(str::to_owned))
                .unwrap_or_default()
        })
        .collect();
    for kept in (1..=codes.len()).rev() {
        let more = codes.len() - kept;
        let listed = codes[..kept].join(", ");
        let all = if more > 0 {
            format!("Note: {listed} and {more} more")
        } else {
            format!("Note: {listed}")
        };
        if all.len() <= LIMIT {
            return all;
        }
    }
    "Lungs, segmented automatically. Research use only".to_owned()
}

/// The UIDs that Hilum makes.
#[derive(Clone, Debug, Default)]
struct Uids {
    instance: String,
    series: String,
    dimension_organization: String,
    /// One a segment.
    tracking: Vec<String>,
}

impl Uids {
    /// UIDs as long as those of our making mostly are: `2.25.` and 39 digits or, padded, 38.
    fn expected(segments: usize) -> Self {
        let uid = "0".repeat(44);
        Self {
            instance: uid.clone(),
            series: uid.clone(),
            dimension_organization: uid.clone(),
            tracking: vec![uid; segments],
        }
    }
}

/// The bytes of a DICOM file.
///
/// Fails when the mask is empty, when the source has no valid UIDs to refer to, when mask and stack do not fit each other, and when the frames do not fit into
/// one object.
pub fn build(request: &SegmentationRequest) -> Result<Vec<u8>, OutputError> {
    check(request)?;
    let frames = frames::plan(request);
    if frames.is_empty() {
        return Err(OutputError::EmptyMask);
    }
    let [_, rows, columns] = request.mask.shape;
    if frames.len().saturating_mul(rows * columns).div_ceil(8) > 0xFFFF_FFF0 {
        return Err(OutputError::TooLarge {
            frames: frames.len(),
            rows,
            columns,
        });
    }

    let mut groups = Vec::new();
    frames::per_frame_groups(request, &frames).write(&mut groups);
    let transfer_syntax = if request.deflated {
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    } else {
        uids::EXPLICIT_VR_LITTLE_ENDIAN
    };
    let pixel_bytes = bits::length(frames.len(), rows * columns);
    // The head is written in front of the pixels, which are most of the object and are not moved again if it has the length expected.
    let expected = Uids::expected(request.segments.len());
    let front = file_meta(&expected, transfer_syntax).len()
        + data_set_head(request, &frames, &expected, &groups, pixel_bytes).len();
    let mut file = bits::pack(request.mask, &request.segments, &frames, front);
    let anonymous = Uids {
        tracking: vec![String::new(); request.segments.len()],
        ..Uids::default()
    };
    let digest = Sha256::new()
        .chain_update(transfer_syntax)
        .chain_update(data_set_head(request, &frames, &anonymous, &groups, pixel_bytes))
        .chain_update(digest_of_parts(&file[front..]))
        .finalize();
    let own = name(&digest, request.segments.len());

    let mut meta = file_meta(&own, transfer_syntax);
    let head = data_set_head(request, &frames, &own, &groups, pixel_bytes);
    if request.deflated {
        file.splice(..front, head);
        meta.extend(deflate::whole(&file, deflate::LEVEL)?.bytes);
        if meta.len() % 2 == 1 {
            meta.push(0);
        }
        return Ok(meta);
    }
    meta.extend(head);
    if meta.len() == front {
        file[..front].copy_from_slice(&meta);
    } else {
        file.splice(..front, meta);
    }
    Ok(file)
}

/// The digests of all parts of the pixels, one after the other: taken on all cores, since the pixels are most of the object.
fn digest_of_parts(pixels: &[u8]) -> Vec<u8> {
    const PART: usize = 1 << 20;
    pixels.par_chunks(PART).flat_map_iter(Sha256::digest).collect()
}

/// Everything of the data set that comes before the bytes of PixelData, its header included.
fn data_set_head(
    request: &SegmentationRequest,
    frames: &[Frame],
    uids: &Uids,
    groups: &[u8],
    pixel_bytes: usize,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(groups.len() + (64 << 10));
    modules::data_set(request, frames, uids).write(&mut head);
    head.extend_from_slice(groups);
    write_header(&mut head, tags::PIXEL_DATA, b"OB", pixel_bytes);
    head
}

/// The UIDs of an object with this digest of all that is not a UID of our making.
fn name(digest: &[u8], segments: usize) -> Uids {
    let uid = |role: &str| derived_uid(&[digest, role.as_bytes()].concat());
    Uids {
        instance: uid("instance"),
        series: uid("series"),
        dimension_organization: uid("dimension organization"),
        tracking: (1..=segments)
            .map(|number| uid(&format!("tracking {number}")))
            .collect(),
    }
}

/// Preamble, prefix and file meta information (PS3.10 section 7.1).
fn file_meta(uids: &Uids, transfer_syntax: &str) -> Vec<u8> {
    let mut group = Vec::new();
    write_header(&mut group, tags::FILE_META_INFORMATION_VERSION, b"OB", 2);
    group.extend_from_slice(&[0, 1]);
    let mut elements = Elements::default();
    elements
        .text(tags::MEDIA_STORAGE_SOP_CLASS_UID, b"UI", uids::SEGMENTATION_STORAGE)
        .text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, b"UI", &uids.instance)
        .text(tags::TRANSFER_SYNTAX_UID, b"UI", transfer_syntax)
        .text(
            tags::IMPLEMENTATION_CLASS_UID,
            b"UI",
            &derived_uid(b"Hilum, a writer of DICOM Segmentations"),
        )
        .text(
            tags::IMPLEMENTATION_VERSION_NAME,
            b"SH",
            &text::plain(concat!("HILUM_", env!("CARGO_PKG_VERSION")), 16),
        );
    elements.write(&mut group);

    let mut meta = vec![0; 128];
    meta.extend_from_slice(b"DICM");
    let mut length = Elements::default();
    length.longs(Tag(0x0002, 0x0000), &[group.len() as u32]);
    length.write(&mut meta);
    meta.extend(group);
    meta
}

/// What must hold before anything is written.
fn check(request: &SegmentationRequest) -> Result<(), OutputError> {
    let stack = request.stack;
    let shape = [stack.slices.len(), stack.rows, stack.columns];
    if request.mask.shape != shape
        || request.mask.labels.len() != shape.iter().product::<usize>()
        || request.mask.labels.is_empty()
    {
        let message = format!(
            "a mask of {:?} with {} labels does not lie on a stack of {shape:?}",
            request.mask.shape,
            request.mask.labels.len()
        );
        return Err(OutputError::Disagreement(message));
    }
    if u16::try_from(stack.rows.max(stack.columns)).is_err() {
        return Err(OutputError::TooLarge {
            frames: stack.slices.len(),
            rows: stack.rows,
            columns: stack.columns,
        });
    }
    let numbered = request
        .segments
        .iter()
        .enumerate()
        .all(|(index, segment)| usize::from(segment.number) == index + 1 && !segment.label.trim().is_empty());
    if request.segments.is_empty() || !numbered {
        return Err(OutputError::Disagreement(
            "segments are numbered from 1 without holes, and each has a label".to_owned(),
        ));
    }
    let named = |what: &str, uid: &str| {
        if is_valid_uid(uid) {
            Ok(())
        } else {
            Err(OutputError::UnnamedSource(format!("{what} {uid:?} is not a UID")))
        }
    };
    for slice in &stack.slices {
        let Some(instance) = request.series.instances.get(slice.instance) else {
            return Err(OutputError::Disagreement(
                "the stack names an instance that the series does not have".to_owned(),
            ));
        };
        let header = &instance.header;
        named("SOPInstanceUID", &header.sop_instance_uid)?;
        named("SOPClassUID", &header.sop_class_uid)?;
        named("StudyInstanceUID", &header.study_instance_uid)?;
        named("SeriesInstanceUID", &header.series_instance_uid)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Code;

    fn described(codes: &[Code]) -> String {
        let findings: Vec<Finding> = codes.iter().map(|code| Finding::new(*code, "A sentence.")).collect();
        content_description(&findings)
    }

    #[test]
    fn the_content_description_names_whole_codes_and_counts_the_rest() {
        assert_eq!(described(&[]), "Lungs, segmented automatically. Research use only");
        assert_eq!(
            described(&[Code::SidesUncertain, Code::LungsCut]),
            "Note: sides_uncertain, lungs_cut"
        );
        let many = described(&[
            Code::SidesUncertain,
            Code::LungsCut,
            Code::ImplausibleVolume,
            Code::SharpKernel,
            Code::ThickSlices,
        ]);
        assert_eq!(many, "Note: sides_uncertain, lungs_cut, implausible_volume and 2 more");
        assert!(many.len() <= 64);
    }
}
