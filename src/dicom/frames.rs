//! The frames of an instance: of a multi-frame image by its functional groups (PS3.3 C.7.6.16), otherwise by the data set itself.

use super::limits::Limits;
use super::values::codes;
use super::view::View;
use super::walk::Fault;
use super::{FrameHeader, Rescale};
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// One header for each of `count` frames.
pub(super) fn frames(view: &View, count: usize, limits: &Limits) -> Result<Vec<FrameHeader>, Fault> {
    if count > limits.frames {
        return Err(Fault::OverLimit(format!(
            "{count} frames, {} are allowed",
            limits.frames
        )));
    }
    let whole = of_data_set(view);
    let shared = view.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)?;
    let mut base = whole;
    if count > 1 || shared.is_some() {
        // A place or an acquisition of the whole says nothing about one frame of many.
        base.position = None;
        base.text.position.clear();
    }
    if let Some(groups) = &shared {
        apply(&mut base, groups)?;
    }
    let each = view.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)?;
    let mut frames = vec![base; count];
    for (frame, groups) in frames.iter_mut().zip(&each) {
        apply(frame, groups)?;
    }
    Ok(frames)
}

/// What a classic image says of its only frame.
fn of_data_set(view: &View) -> FrameHeader {
    let mut frame = FrameHeader {
        rescale_type: view.text(tags::RESCALE_TYPE).to_ascii_uppercase(),
        frame_type: codes(&view.text(tags::IMAGE_TYPE)),
        calculation: calculation(view),
        slice_thickness_mm: view.decimal(tags::SLICE_THICKNESS),
        acquisition_number: view.integer(tags::ACQUISITION_NUMBER),
        ..FrameHeader::default()
    };
    put_position(&mut frame, view);
    put_orientation(&mut frame, view);
    put_spacing(&mut frame, view);
    put_rescale(&mut frame, view);
    frame
}

/// Takes over what a shared or per-frame functional groups item says.
fn apply(frame: &mut FrameHeader, groups: &View) -> Result<(), Fault> {
    if let Some(position) = groups.item(tags::PLANE_POSITION_SEQUENCE)? {
        put_position(frame, &position);
    }
    if let Some(orientation) = groups.item(tags::PLANE_ORIENTATION_SEQUENCE)? {
        put_orientation(frame, &orientation);
    }
    if let Some(measures) = groups.item(tags::PIXEL_MEASURES_SEQUENCE)? {
        put_spacing(frame, &measures);
        frame.slice_thickness_mm = measures.decimal(tags::SLICE_THICKNESS).or(frame.slice_thickness_mm);
    }
    if let Some(transformation) = groups.item(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)? {
        put_rescale(frame, &transformation);
        frame.rescale_type = transformation.text(tags::RESCALE_TYPE).to_ascii_uppercase();
    }
    if let Some(content) = groups.item(tags::FRAME_CONTENT_SEQUENCE)? {
        frame.acquisition_number = content
            .number(tags::FRAME_ACQUISITION_NUMBER)
            .map(i64::from)
            .or(frame.acquisition_number);
    }
    for sequence in [tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, tags::MR_IMAGE_FRAME_TYPE_SEQUENCE] {
        if let Some(kind) = groups.item(sequence)? {
            frame.frame_type = codes(&kind.text(tags::FRAME_TYPE));
            if has_value(&kind, tags::VOLUME_BASED_CALCULATION_TECHNIQUE) {
                frame.calculation = calculation(&kind);
            }
        }
    }
    Ok(())
}

fn calculation(view: &View) -> String {
    view.text(tags::VOLUME_BASED_CALCULATION_TECHNIQUE).to_ascii_uppercase()
}

fn put_position(frame: &mut FrameHeader, view: &View) {
    if has_value(view, tags::IMAGE_POSITION_PATIENT) {
        frame.text.position = view.text(tags::IMAGE_POSITION_PATIENT);
        frame.position = view.decimals(tags::IMAGE_POSITION_PATIENT);
    }
}

fn put_orientation(frame: &mut FrameHeader, view: &View) {
    if has_value(view, tags::IMAGE_ORIENTATION_PATIENT) {
        frame.text.orientation = view.text(tags::IMAGE_ORIENTATION_PATIENT);
        frame.orientation = view.decimals(tags::IMAGE_ORIENTATION_PATIENT);
    }
}

fn put_spacing(frame: &mut FrameHeader, view: &View) {
    if has_value(view, tags::PIXEL_SPACING) {
        frame.text.pixel_spacing = view.text(tags::PIXEL_SPACING);
        frame.pixel_spacing_mm = view.decimals(tags::PIXEL_SPACING);
    }
}

/// One of slope and intercept alone stands with the neutral value of the other. One that is written and no number makes the rescale none either: NaN, which no verdict
/// lets pass; another's value in its place would be a guess.
fn put_rescale(frame: &mut FrameHeader, view: &View) {
    let written = |tag| has_value(view, tag).then(|| view.decimal(tag).unwrap_or(f64::NAN));
    let slope = written(tags::RESCALE_SLOPE);
    let intercept = written(tags::RESCALE_INTERCEPT);
    if slope.is_some() || intercept.is_some() {
        frame.rescale = Some(Rescale {
            slope: slope.unwrap_or(1.0),
            intercept: intercept.unwrap_or(0.0),
        });
    }
}

fn has_value(view: &View, tag: Tag) -> bool {
    !view.text(tag).is_empty()
}
