//! Which frames are written, and the functional groups of each: its segment, its place, its source slice (PS3.3 C.7.6.16).

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::elements::Elements;
use super::text::decimals_as_written;
use super::{Concept, Frames, SegmentationRequest, bits};
use crate::dicom::Header;

/// A frame: indices into the segments and the slices of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) segment: usize,
    pub(super) slice: usize,
}

/// The frames in the order in which they are written: segment after segment, slices ascending along the normal. Empty if no voxel belongs to a segment.
pub(super) fn plan(request: &SegmentationRequest) -> Vec<Frame> {
    let size = request.mask.shape[1] * request.mask.shape[2];
    let filled = |frame: &Frame| {
        bits::holds(
            &request.mask.labels[frame.slice * size..][..size],
            &request.segments[frame.segment].mask_labels,
        )
    };
    let slices = request.mask.shape[0];
    let all: Vec<Frame> = (0..request.segments.len())
        .flat_map(|segment| (0..slices).map(move |slice| Frame { segment, slice }))
        .collect();
    match request.frames {
        Frames::Sparse => all.into_par_iter().filter(filled).collect(),
        Frames::Full if all.par_iter().any(filled) => all,
        Frames::Full => Vec::new(),
    }
}

/// PerFrameFunctionalGroupsSequence.
pub(super) fn per_frame_groups(request: &SegmentationRequest, frames: &[Frame]) -> Elements {
    let rank = ranks(frames, request.stack.slices.len());
    let items: Vec<Elements> = frames
        .par_iter()
        .map(|frame| {
            let slice = &request.stack.slices[frame.slice];
            let header = &request.series.instances[slice.instance].header;
            let segment = &request.segments[frame.segment];

            let mut source = Elements::default();
            source
                .text(tags::REFERENCED_SOP_CLASS_UID, b"UI", &header.sop_class_uid)
                .text(tags::REFERENCED_SOP_INSTANCE_UID, b"UI", &header.sop_instance_uid)
                .text(tags::SPATIAL_LOCATIONS_PRESERVED, b"CS", "YES")
                .sequence(
                    tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
                    [Concept::new("121322", "DCM", "Source image for image processing operation").item()],
                );
            if is_multi_frame(header) {
                source.text(tags::REFERENCED_FRAME_NUMBER, b"IS", &(slice.frame + 1).to_string());
            }
            let mut derivation = Elements::default();
            derivation.sequence(tags::SOURCE_IMAGE_SEQUENCE, [source]).sequence(
                tags::DERIVATION_CODE_SEQUENCE,
                [Concept::new("113076", "DCM", "Segmentation").item()],
            );

            let written = header.frames.get(slice.frame).map_or("", |frame| &frame.text.position);
            let mut position = Elements::default();
            position.text(
                tags::IMAGE_POSITION_PATIENT,
                b"DS",
                &decimals_as_written(written, &slice.origin),
            );

            let mut content = Elements::default();
            content.longs(
                tags::DIMENSION_INDEX_VALUES,
                &[u32::from(segment.number), rank[frame.slice]],
            );

            let mut identification = Elements::default();
            identification.shorts(tags::REFERENCED_SEGMENT_NUMBER, &[segment.number]);

            let mut groups = Elements::default();
            groups
                .sequence(tags::DERIVATION_IMAGE_SEQUENCE, [derivation])
                .sequence(tags::FRAME_CONTENT_SEQUENCE, [content])
                .sequence(tags::PLANE_POSITION_SEQUENCE, [position])
                .sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, [identification]);
            groups
        })
        .collect();
    let mut elements = Elements::default();
    elements.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, items);
    elements
}

/// Whether a reference to a slice of this instance needs a frame number; for single-frame images it would be an error.
pub(super) fn is_multi_frame(header: &Header) -> bool {
    const ENHANCED_CT: &str = "1.2.840.10008.5.1.4.1.1.2.1";
    const LEGACY_CONVERTED_ENHANCED_CT: &str = "1.2.840.10008.5.1.4.1.1.2.2";
    header.frames.len() > 1 || [ENHANCED_CT, LEGACY_CONVERTED_ENHANCED_CT].contains(&header.sop_class_uid.as_str())
}

/// For every slice its number among the positions that have a frame, from 1: dimension indices have no holes.
fn ranks(frames: &[Frame], slices: usize) -> Vec<u32> {
    let mut used = vec![false; slices];
    for frame in frames {
        used[frame.slice] = true;
    }
    let mut next = 0;
    used.into_iter()
        .map(|used| {
            next += u32::from(used);
            next
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimension_indices_have_no_holes() {
        let frames = [2, 5, 2, 3].map(|slice| Frame { segment: 0, slice });
        let rank = ranks(&frames, 7);
        assert_eq!([rank[2], rank[3], rank[5]], [1, 2, 3]);
    }
}
