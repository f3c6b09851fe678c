//! The modules of a Segmentation object, all but its pixels and what is said frame by frame (PS3.3 A.51, C.8.20).

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};

use super::elements::{Elements, Vr};
use super::frames::Frame;
use super::text::{cielab, decimal, decimals_as_written, is_date, is_time, plain, plain_values};
use super::{Concept, SegmentationRequest, Uids};
use crate::dicom::{Header, RawElement, is_valid_uid};
use crate::series::Stack;

/// Distances between slices that differ by less than this part of their mean are one distance; the readers at hand (highdicom) take as much.
const EVEN: f64 = 0.01;

/// A number for the new series that is none of the study's own as far as one can tell from the source series alone.
pub fn default_series_number(source: Option<i64>) -> i32 {
    let number = source
        .unwrap_or(0)
        .unsigned_abs()
        .saturating_mul(100)
        .saturating_add(66);
    i32::try_from(number).unwrap_or(66)
}

/// The data set without PerFrameFunctionalGroupsSequence and PixelData, which come after all of these.
pub(super) fn data_set(request: &SegmentationRequest, frames: &[Frame], own: &Uids) -> Elements {
    let source = source(request, 0);
    let mut set = Elements::default();
    identity(&mut set, source);
    series_and_equipment(&mut set, request, source, own);
    content(&mut set, request, own);
    pixels(&mut set, request, frames);
    dimensions(&mut set, own);
    shared_groups(&mut set, request);
    references(&mut set, request);
    set.sequence(
        tags::SEGMENT_SEQUENCE,
        request.segments.iter().zip(&own.tracking).map(|(segment, tracking)| {
            let mut item = Elements::default();
            item.shorts(tags::SEGMENT_NUMBER, &[segment.number])
                .text(tags::SEGMENT_LABEL, b"LO", &plain(&segment.label, 64))
                .sequence(
                    tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE,
                    [segment.category.item()],
                )
                .sequence(
                    tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE,
                    [segment.property_type.item()],
                )
                .text(tags::SEGMENT_ALGORITHM_TYPE, b"CS", "AUTOMATIC")
                .text(
                    tags::SEGMENT_ALGORITHM_NAME,
                    b"LO",
                    &plain(&algorithm_name(request), 64),
                )
                .sequence(
                    tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
                    [algorithm(request)],
                )
                .text(tags::TRACKING_ID, b"UT", &plain(&segment.label, 64))
                .text(tags::TRACKING_UID, b"UI", tracking)
                .shorts(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &cielab(segment.colour));
            item
        }),
    );
    set
}

fn source<'a>(request: &SegmentationRequest<'a>, slice: usize) -> &'a Header {
    &request.series.instances[request.stack.slices[slice].instance].header
}

/// Patient, Patient Study, General Study and what else the source's identity holds, as raw bytes; what must be there and is not stands empty.
fn identity(set: &mut Elements, source: &Header) {
    for element in &source.identity {
        set.raw(element, representation(element));
    }
    let needed: [(Tag, &Vr, &str); 10] = [
        (tags::STUDY_INSTANCE_UID, b"UI", &source.study_instance_uid),
        (
            tags::STUDY_DATE,
            b"DA",
            if is_date(&source.study_date) {
                &source.study_date
            } else {
                ""
            },
        ),
        (
            tags::STUDY_TIME,
            b"TM",
            if is_time(&source.study_time) {
                &source.study_time
            } else {
                ""
            },
        ),
        (tags::STUDY_ID, b"SH", ""),
        (tags::ACCESSION_NUMBER, b"SH", ""),
        (tags::REFERRING_PHYSICIAN_NAME, b"PN", ""),
        (tags::PATIENT_NAME, b"PN", ""),
        (tags::PATIENT_ID, b"LO", ""),
        (tags::PATIENT_BIRTH_DATE, b"DA", ""),
        (tags::PATIENT_SEX, b"CS", ""),
    ];
    for (tag, vr, value) in needed {
        if !set.contains(tag) {
            set.text(tag, vr, value);
        }
    }
}

/// The source's value representation; but where it gives text another kind of text than the standard does (as some archives do), the standard's.
fn representation(element: &RawElement) -> Vr {
    const TEXT: [&Vr; 16] = [
        b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"ST", b"TM", b"UC", b"UI", b"UT",
    ];
    let standard = StandardDataDictionary
        .by_tag(Tag(element.tag.0, element.tag.1))
        .map(|entry| entry.vr());
    let Some(VirtualVr::Exact(standard)) = standard else {
        return element.vr;
    };
    match standard.to_string().as_bytes() {
        [first, second] if TEXT.contains(&&[*first, *second]) && TEXT.contains(&&element.vr) => [*first, *second],
        _ => element.vr,
    }
}

/// Segmentation Series, Frame of Reference, Enhanced General Equipment, and the scanner as contributing equipment.
fn series_and_equipment(set: &mut Elements, request: &SegmentationRequest, source: &Header, own: &Uids) {
    let slices = request.stack.slices.len();
    let count = format!(" ({slices} slices)");
    let description = plain(&request.series_description, 64 - count.len()) + &count;
    set.text(tags::MODALITY, b"CS", "SEG")
        .text(tags::SERIES_INSTANCE_UID, b"UI", &own.series)
        .text(tags::SERIES_NUMBER, b"IS", &request.series_number.to_string())
        .text(tags::SERIES_DESCRIPTION, b"LO", &description)
        .text(tags::BODY_PART_EXAMINED, b"CS", "CHEST");
    if is_date(&source.series_date) {
        set.text(tags::SERIES_DATE, b"DA", &source.series_date);
        if is_time(&source.series_time) {
            set.text(tags::SERIES_TIME, b"TM", &source.series_time);
        }
    }
    // Derivation images place every frame too, so an object whose source names no frame of reference can do without the module.
    if is_valid_uid(&source.frame_of_reference_uid) {
        set.text(tags::FRAME_OF_REFERENCE_UID, b"UI", &source.frame_of_reference_uid)
            .text(
                tags::POSITION_REFERENCE_INDICATOR,
                b"LO",
                &plain(&source.position_reference_indicator, 64),
            );
    }
    set.text(tags::MANUFACTURER, b"LO", "Hilum")
        .text(tags::MANUFACTURER_MODEL_NAME, b"LO", "Hilum lung segmentation")
        .text(tags::DEVICE_SERIAL_NUMBER, b"LO", &serial_number(request))
        .text(tags::SOFTWARE_VERSIONS, b"LO", env!("CARGO_PKG_VERSION"));
    if plain(&source.manufacturer, 64).is_empty() {
        return;
    }
    let mut scanner = Elements::default();
    scanner
        .text(tags::MANUFACTURER, b"LO", &plain(&source.manufacturer, 64))
        .sequence(
            tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
            [Concept::new("109101", "DCM", "Acquisition Equipment").item()],
        );
    let more: [(Tag, &Vr, &str, usize); 5] = [
        (tags::INSTITUTION_NAME, b"LO", &source.institution_name, 64),
        (tags::STATION_NAME, b"SH", &source.station_name, 16),
        (
            tags::MANUFACTURER_MODEL_NAME,
            b"LO",
            &source.manufacturer_model_name,
            64,
        ),
        (tags::DEVICE_SERIAL_NUMBER, b"LO", &source.device_serial_number, 64),
        (tags::SOFTWARE_VERSIONS, b"LO", &source.software_versions, 64),
    ];
    for (tag, vr, value, limit) in more {
        // A name that cannot be said in ASCII is better left out than written with question marks.
        if !value.is_empty() && value.is_ascii() {
            scanner.text(tag, vr, &plain_values(value, limit));
        }
    }
    set.sequence(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, [scanner]);
}

/// SOP Common, Segmentation Image and Content Identification.
fn content(set: &mut Elements, request: &SegmentationRequest, own: &Uids) {
    let (date, time) = content_date_and_time(request);
    set.text(tags::SOP_CLASS_UID, b"UI", uids::SEGMENTATION_STORAGE)
        .text(tags::SOP_INSTANCE_UID, b"UI", &own.instance)
        .text(tags::IMAGE_TYPE, b"CS", "DERIVED\\PRIMARY")
        .text(tags::INSTANCE_NUMBER, b"IS", "1")
        .text(tags::CONTENT_DATE, b"DA", &date)
        .text(tags::CONTENT_TIME, b"TM", &time)
        .text(tags::CONTENT_LABEL, b"CS", "LUNGS")
        .text(
            tags::CONTENT_DESCRIPTION,
            b"LO",
            &plain(&request.content_description, 64),
        )
        .text(tags::SEGMENTATION_TYPE, b"CS", "BINARY")
        .text(tags::SEGMENTS_OVERLAP, b"CS", "NO");
}

/// How the pixels are packed, and what lossy compression they come from.
fn pixels(set: &mut Elements, request: &SegmentationRequest, frames: &[Frame]) {
    // `check` refused what has more than 16 bits.
    let [rows, columns] = [request.stack.rows as u16, request.stack.columns as u16];
    set.shorts(tags::SAMPLES_PER_PIXEL, &[1])
        .text(tags::PHOTOMETRIC_INTERPRETATION, b"CS", "MONOCHROME2")
        .text(tags::NUMBER_OF_FRAMES, b"IS", &frames.len().to_string())
        .shorts(tags::ROWS, &[rows])
        .shorts(tags::COLUMNS, &[columns])
        .shorts(tags::BITS_ALLOCATED, &[1])
        .shorts(tags::BITS_STORED, &[1])
        .shorts(tags::HIGH_BIT, &[0])
        .shorts(tags::PIXEL_REPRESENTATION, &[0])
        .text(tags::PRESENTATION_LUT_SHAPE, b"CS", "IDENTITY");
    let lossy = (0..request.stack.slices.len())
        .map(|slice| source(request, slice))
        .filter(|header| header.lossy);
    let Some(lossy) = lossy.max_by_key(|header| !header.lossy_ratio.is_empty()) else {
        set.text(tags::LOSSY_IMAGE_COMPRESSION, b"CS", "00");
        return;
    };
    set.text(tags::LOSSY_IMAGE_COMPRESSION, b"CS", "01");
    let ratios: Vec<f64> = lossy
        .lossy_ratio
        .split('\\')
        .filter_map(|ratio| ratio.trim().parse().ok())
        .filter(|ratio: &f64| ratio.is_finite())
        .collect();
    if !ratios.is_empty() {
        set.text(
            tags::LOSSY_IMAGE_COMPRESSION_RATIO,
            b"DS",
            &decimals_as_written(&lossy.lossy_ratio, &ratios),
        );
    }
    if !lossy.lossy_method.is_empty() {
        set.text(
            tags::LOSSY_IMAGE_COMPRESSION_METHOD,
            b"CS",
            &plain_values(&lossy.lossy_method, 16),
        );
    }
}

/// Multi-frame Dimension: by segment, then by position.
fn dimensions(set: &mut Elements, own: &Uids) {
    let mut organization = Elements::default();
    organization.text(tags::DIMENSION_ORGANIZATION_UID, b"UI", &own.dimension_organization);
    let index = |pointer: Tag, group: Tag| {
        let mut item = organization.clone();
        item.pointer(tags::DIMENSION_INDEX_POINTER, pointer)
            .pointer(tags::FUNCTIONAL_GROUP_POINTER, group);
        item
    };
    let indices = [
        index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE),
        index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE),
    ];
    set.sequence(tags::DIMENSION_INDEX_SEQUENCE, indices)
        .sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, [organization]);
}

/// SharedFunctionalGroupsSequence: pixel measures and orientation. SpacingBetweenSlices is left out where there is no such single number.
fn shared_groups(set: &mut Elements, request: &SegmentationRequest) {
    let stack = request.stack;
    let first = &stack.slices[0];
    let text = source(request, 0)
        .frames
        .get(first.frame)
        .map(|frame| frame.text.clone())
        .unwrap_or_default();
    let (spacing, even) = slice_spacing(stack);

    let mut measures = Elements::default();
    measures
        .text(
            tags::SLICE_THICKNESS,
            b"DS",
            &decimal(slice_thickness(request).unwrap_or(spacing)),
        )
        .text(
            tags::PIXEL_SPACING,
            b"DS",
            &decimals_as_written(&text.pixel_spacing, &stack.pixel_spacing_mm),
        );
    if even {
        measures.text(tags::SPACING_BETWEEN_SLICES, b"DS", &decimal(spacing));
    }
    let directions = [stack.row_direction, stack.column_direction].concat();
    let mut orientation = Elements::default();
    orientation.text(
        tags::IMAGE_ORIENTATION_PATIENT,
        b"DS",
        &decimals_as_written(&text.orientation, &directions),
    );

    let mut groups = Elements::default();
    groups
        .sequence(tags::PIXEL_MEASURES_SEQUENCE, [measures])
        .sequence(tags::PLANE_ORIENTATION_SEQUENCE, [orientation]);
    set.sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, [groups]);
}

/// Common Instance Reference: every instance of which a slice was segmented, once.
fn references(set: &mut Elements, request: &SegmentationRequest) {
    let mut listed = vec![false; request.series.instances.len()];
    let mut instances = Vec::new();
    for slice in &request.stack.slices {
        if std::mem::replace(&mut listed[slice.instance], true) {
            continue;
        }
        let header = &request.series.instances[slice.instance].header;
        let mut item = Elements::default();
        item.text(tags::REFERENCED_SOP_CLASS_UID, b"UI", &header.sop_class_uid)
            .text(tags::REFERENCED_SOP_INSTANCE_UID, b"UI", &header.sop_instance_uid);
        instances.push(item);
    }
    let mut series = Elements::default();
    series
        .text(
            tags::SERIES_INSTANCE_UID,
            b"UI",
            &source(request, 0).series_instance_uid,
        )
        .sequence(tags::REFERENCED_INSTANCE_SEQUENCE, instances);
    set.sequence(tags::REFERENCED_SERIES_SEQUENCE, [series]);
}

/// Mean distance between slices along the normal, and whether all distances are this one.
fn slice_spacing(stack: &Stack) -> (f64, bool) {
    let positions: Vec<f64> = stack.slices.iter().map(|slice| slice.position_mm).collect();
    let [first, .., last] = positions.as_slice() else {
        return (1.0, false);
    };
    let mean = (last - first) / (positions.len() - 1) as f64;
    (
        mean,
        positions
            .windows(2)
            .all(|pair| (pair[1] - pair[0] - mean).abs() <= EVEN * mean),
    )
}

/// The median of the slice thicknesses that the source states.
fn slice_thickness(request: &SegmentationRequest) -> Option<f64> {
    let stated = request.stack.slices.iter().filter_map(|slice| {
        let header = &request.series.instances[slice.instance].header;
        header
            .frames
            .get(slice.frame)
            .and_then(|frame| frame.slice_thickness_mm)
            .or(header.slice_thickness_mm)
    });
    let mut stated: Vec<f64> = stated
        .filter(|thickness| *thickness > 0.0 && thickness.is_finite())
        .collect();
    stated.sort_by(f64::total_cmp);
    stated.get(stated.len() / 2).copied()
}

/// The latest time at which a source slice was made, or the series, or the study. The attributes are of type 1: where a source is stripped of every date, a day
/// on which no CT was made stands, never today.
fn content_date_and_time(request: &SegmentationRequest) -> (String, String) {
    let headers = || (0..request.stack.slices.len()).map(|slice| source(request, slice));
    type DateAndTime = fn(&Header) -> (&str, &str);
    let kinds: [DateAndTime; 4] = [
        |header| (&header.content_date, &header.content_time),
        |header| (&header.acquisition_date, &header.acquisition_time),
        |header| (&header.series_date, &header.series_time),
        |header| (&header.study_date, &header.study_time),
    ];
    let latest = |kind: DateAndTime| {
        let dated = headers().map(kind).filter(|(date, _)| is_date(date));
        dated
            .map(|(date, time)| {
                (
                    date.to_owned(),
                    if is_time(time) {
                        time.to_owned()
                    } else {
                        "000000".to_owned()
                    },
                )
            })
            .max()
    };
    kinds
        .into_iter()
        .find_map(latest)
        .unwrap_or_else(|| ("19000101".to_owned(), "000000".to_owned()))
}

fn algorithm_name(request: &SegmentationRequest) -> String {
    format!("Hilum {}", request.model.name)
}

fn algorithm(request: &SegmentationRequest) -> Elements {
    let model = &request.model;
    let version = if model.version.trim().is_empty() {
        env!("CARGO_PKG_VERSION")
    } else {
        &model.version
    };
    let mut item = Elements::default();
    item.sequence(
        tags::ALGORITHM_FAMILY_CODE_SEQUENCE,
        [Concept::new("123110", "DCM", "Artificial Intelligence").item()],
    )
    .text(tags::ALGORITHM_VERSION, b"LO", &plain(version, 64))
    .text(
        tags::ALGORITHM_PARAMETERS,
        b"LT",
        &plain(&format!("weights sha256 {}; {}", model.digest, model.parameters), 10240),
    )
    .text(tags::ALGORITHM_NAME, b"LO", &plain(&algorithm_name(request), 64))
    .text(tags::ALGORITHM_SOURCE, b"LO", "Hilum, research use only");
    item
}

/// There is no device with a serial number; what distinguishes one from another is the model that it carries.
fn serial_number(request: &SegmentationRequest) -> String {
    let digest = plain(&request.model.digest, 16);
    if digest.is_empty() { "1".to_owned() } else { digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_number_follows_from_the_sources() {
        assert_eq!(default_series_number(Some(3)), 366);
        assert_eq!(default_series_number(None), 66);
        assert_eq!(default_series_number(Some(i64::MAX)), 66);
    }
}
