//! The bytes of a mask in, DICOM Segmentation or NIfTI as their content tells, a label image out.

use std::collections::BTreeMap;

use super::grid::{LabelImage, SideLabels};
use super::{EvaluateError, nifti};
use crate::dicom::segmentation_reader::{SegmentLabel, SegmentationObject, is_dicom, read_segmentation};
use crate::series::vector::{cross, difference, dot, length};
use crate::volume::Grid;

/// Voxels of a mask made out of a segmentation's frames.
const MOST_VOXELS: usize = 1 << 30;
/// Slices, once those that were left out are put back.
const MOST_SLICES: f64 = 65_536.0;

/// Reads a mask.
///
/// # Errors
/// [`EvaluateError::Damaged`] for what is neither or contradicts itself, [`EvaluateError::Segmentation`] for a segmentation that cannot be read,
/// [`EvaluateError::TooLarge`] beyond 2^30 voxels.
pub fn read_mask(bytes: &[u8]) -> Result<LabelImage, EvaluateError> {
    if is_dicom(bytes) {
        return from_segmentation(&read_segmentation(bytes)?);
    }
    if nifti::is_nifti(bytes) {
        return nifti::read(bytes);
    }
    Err(EvaluateError::Damaged("neither DICOM nor NIfTI".to_owned()))
}

/// What a segment is to a lung mask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Right,
    Left,
    Lung,
    Other,
}

/// By coded type (SNOMED CT, its older SRT spelling, or lung with a laterality), else by the label's words.
fn meaning(segment: &SegmentLabel) -> Meaning {
    let label = segment.label.to_lowercase();
    let (right, left) = (label.contains("right"), label.contains("left"));
    match (segment.property_type.as_str(), segment.modifier.as_str()) {
        ("3341006" | "T-28100", _) | ("39607008" | "T-28000", "24028007" | "G-A100") => Meaning::Right,
        ("44029006" | "T-28500", _) | ("39607008" | "T-28000", "7771000" | "G-A101") => Meaning::Left,
        ("39607008" | "T-28000", _) => Meaning::Lung,
        _ if !label.contains("lung") => Meaning::Other,
        _ if right && !left => Meaning::Right,
        _ if left && !right => Meaning::Left,
        _ => Meaning::Lung,
    }
}

/// The segments that count. Where some are lung, others are passed over; where none says so, all are taken for lung. Number 0 is a label map's background.
fn meanings(segments: &[SegmentLabel]) -> BTreeMap<u16, Meaning> {
    let all: BTreeMap<u16, Meaning> = segments
        .iter()
        .filter(|segment| segment.number > 0)
        .map(|segment| (segment.number, meaning(segment)))
        .collect();
    if all.values().all(|meaning| *meaning == Meaning::Other) {
        return all.into_keys().map(|number| (number, Meaning::Lung)).collect();
    }
    all.into_iter()
        .filter(|(_, meaning)| *meaning != Meaning::Other)
        .collect()
}

fn from_segmentation(object: &SegmentationObject) -> Result<LabelImage, EvaluateError> {
    let meanings = meanings(&object.segments);
    let Some(first) = object.frames.first() else {
        return empty(object, sides(&meanings));
    };
    let direction = |at: usize| {
        let v = [
            first.orientation[at],
            first.orientation[at + 1],
            first.orientation[at + 2],
        ];
        let length = dot(v, v).sqrt();
        ((0.9..1.1).contains(&length)).then(|| v.map(|c| c / length))
    };
    let (Some(row_direction), Some(column_direction)) = (direction(0), direction(3)) else {
        return Err(EvaluateError::Damaged(
            "ImageOrientationPatient is not a pair of directions".to_owned(),
        ));
    };
    let normal = cross(row_direction, column_direction);
    let agree = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    if object.frames.iter().any(|frame| {
        !agree(&frame.orientation, &first.orientation) || !agree(&frame.pixel_spacing_mm, &first.pixel_spacing_mm)
    }) {
        return Err(EvaluateError::Damaged(
            "frames differ in orientation or pixel spacing".to_owned(),
        ));
    }
    // Frames of one plane share a slice: those that lie within a hundredth of a millimetre.
    let mut order: Vec<usize> = (0..object.frames.len()).collect();
    let place = |frame: usize| dot(object.frames[frame].position, normal);
    order.sort_by(|a, b| place(*a).total_cmp(&place(*b)));
    let mut origins: Vec<[f64; 3]> = Vec::new();
    let mut slice_of = vec![0; object.frames.len()];
    for frame in order {
        let position = object.frames[frame].position;
        if origins
            .last()
            .is_none_or(|last| place(frame) - dot(*last, normal) > 0.01)
        {
            origins.push(position);
        }
        slice_of[frame] = origins.len() - 1;
        if length(difference(position, origins[slice_of[frame]])) > 0.1 {
            return Err(EvaluateError::Damaged(
                "frames of one plane begin at different places".to_owned(),
            ));
        }
    }
    let gaps = left_out(&origins, normal);
    let slices = gaps.len();
    let area = object.rows * object.columns;
    if slices.checked_mul(area).is_none_or(|voxels| voxels > MOST_VOXELS) {
        return Err(EvaluateError::TooLarge);
    }
    let mut place_of = vec![0; origins.len()];
    for (slice, (_, source)) in gaps.iter().enumerate() {
        if let Some(source) = source {
            place_of[*source] = slice;
        }
    }
    let mut labels = vec![0_u8; slices * area];
    for (frame, slice) in slice_of.iter().enumerate() {
        let start = place_of[*slice] * area;
        object.for_each_voxel(frame, |k, segment| match meanings.get(&segment) {
            Some(Meaning::Left) => labels[start + k] = 2,
            Some(_) => labels[start + k] = 1,
            None => {}
        });
    }
    let grid = Grid {
        rows: object.rows,
        columns: object.columns,
        origins: gaps.into_iter().map(|(origin, _)| origin).collect(),
        row_direction,
        column_direction,
        normal,
        spacing_mm: first.pixel_spacing_mm,
    };
    let mut image = LabelImage::new(grid, labels)?;
    image.sides = sides(&meanings);
    Ok(image)
}

/// What the segments say of right and left: one of the two is enough to tell, since a lung that is missing has no segment.
fn sides(meanings: &BTreeMap<u16, Meaning>) -> SideLabels {
    if meanings.is_empty() {
        SideLabels::Unknown
    } else if meanings.values().any(|meaning| *meaning == Meaning::Lung) {
        SideLabels::Undivided
    } else {
        SideLabels::Apart
    }
}

fn empty(object: &SegmentationObject, sides: SideLabels) -> Result<LabelImage, EvaluateError> {
    let grid = Grid {
        rows: object.rows,
        columns: object.columns,
        origins: Vec::new(),
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        normal: [0.0, 0.0, 1.0],
        spacing_mm: [1.0, 1.0],
    };
    let mut image = LabelImage::new(grid, Vec::new())?;
    image.sides = sides;
    Ok(image)
}

/// A sparse segmentation leaves empty slices out. Where every distance is a multiple of the smallest one they are put back, so that volumes keep their thickness;
/// each slice comes with the index of its origin, if it has one.
fn left_out(origins: &[[f64; 3]], normal: [f64; 3]) -> Vec<([f64; 3], Option<usize>)> {
    let plain = || {
        origins
            .iter()
            .enumerate()
            .map(|(k, origin)| (*origin, Some(k)))
            .collect()
    };
    let steps: Vec<f64> = origins
        .windows(2)
        .map(|pair| dot(pair[1], normal) - dot(pair[0], normal))
        .collect();
    let least = steps.iter().copied().fold(f64::MAX, f64::min);
    let whole = |step: f64| (step / least - (step / least).round()).abs() * least < 0.02 && step / least < 1000.5;
    let total: f64 = steps.iter().map(|step| step / least).sum();
    if steps.is_empty() || total > MOST_SLICES || !steps.iter().all(|step| whole(*step)) {
        return plain();
    }
    let mut out = vec![(origins[0], Some(0))];
    for (k, step) in steps.iter().enumerate() {
        let count = (step / least).round() as usize;
        let (a, b) = (origins[k], origins[k + 1]);
        out.extend((1..count).map(|part| {
            (
                [0, 1, 2].map(|axis| a[axis] + (b[axis] - a[axis]) * part as f64 / count as f64),
                None,
            )
        }));
        out.push((b, Some(k + 1)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lungs_segment_alone_tells_its_side() {
        use Meaning::{Left, Lung, Right};
        for (segments, expected) in [
            (vec![Right, Left], SideLabels::Apart),
            (vec![Right], SideLabels::Apart),
            (vec![Left], SideLabels::Apart),
            (vec![Lung], SideLabels::Undivided),
            (vec![Right, Lung], SideLabels::Undivided),
            (vec![], SideLabels::Unknown),
        ] {
            let meanings: BTreeMap<u16, Meaning> = (1..).zip(segments).collect();
            assert_eq!(sides(&meanings), expected, "{} segments", meanings.len());
        }
    }
}
