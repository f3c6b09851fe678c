//! Series built in code, one oddity at a time.

mod geometry;
mod names;
mod notes;
mod properties;
mod refused;
mod settled;
mod unreadable;

use super::*;
use crate::dicom::{FrameHeader, Header, PatientIdentity, PixelData, PixelFormat, Source};
use std::path::PathBuf;

/// An axial chest of `n` slices, 2.5 mm apart from z = -100 mm upwards, numbered from the top, with nothing odd about it.
pub(super) fn chest(n: usize) -> Series {
    let instances = (0..n).map(|k| slice(k, n)).collect();
    Series {
        study_instance_uid: "1.2.3".into(),
        series_instance_uid: "1.2.3.4".into(),
        instances,
        unreadable: Vec::new(),
    }
}

fn slice(k: usize, n: usize) -> Instance {
    let frame = FrameHeader {
        position: Some([-180.0, -170.0, -100.0 + 2.5 * k as f64]),
        orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        pixel_spacing_mm: Some([0.7, 0.7]),
        rescale: Some(Rescale {
            slope: 1.0,
            intercept: -1024.0,
        }),
        rescale_type: "HU".into(),
        slice_thickness_mm: Some(2.5),
        acquisition_number: Some(1),
        ..FrameHeader::default()
    };
    let pixels = PixelFormat {
        rows: 512,
        columns: 512,
        samples_per_pixel: 1,
        bits_allocated: 16,
        bits_stored: 12,
        high_bit: 11,
        photometric_interpretation: "MONOCHROME2".into(),
        ..PixelFormat::default()
    };
    let length = 512 * 512 * 2;
    let header = Header {
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        sop_instance_uid: format!("1.2.3.4.{}", k + 1),
        study_instance_uid: "1.2.3".into(),
        series_instance_uid: "1.2.3.4".into(),
        frame_of_reference_uid: "1.2.3.9".into(),
        modality: "CT".into(),
        image_type: texts("ORIGINAL\\PRIMARY\\AXIAL"),
        patient: PatientIdentity {
            id: "P1".into(),
            name: "TEST^ONE".into(),
            ..PatientIdentity::default()
        },
        instance_number: Some((n - k) as i64),
        acquisition_number: Some(1),
        convolution_kernel: "STANDARD".into(),
        pixels,
        frames: vec![frame],
        pixel_data: PixelData::Native {
            offset: 2000,
            length,
            big_endian: false,
        },
        ..Header::default()
    };
    let path = PathBuf::from(format!("/data/chest/{k:04}.dcm"));
    let source = Source {
        path: path.into(),
        offset: 0,
        length: 2000 + length,
    };
    Instance { source, header }
}

pub(super) fn texts(values: &str) -> Vec<String> {
    values.split('\\').map(str::to_owned).collect()
}

/// The chest of `n` slices with `change` made to the header of every slice for which `which` holds.
pub(super) fn changed(n: usize, which: impl Fn(usize) -> bool, change: impl Fn(usize, &mut Header)) -> Series {
    let mut series = chest(n);
    for (k, instance) in series.instances.iter_mut().enumerate().filter(|(k, _)| which(*k)) {
        change(k, &mut instance.header);
    }
    series
}

/// The same for all slices, and for what the one frame of each says.
pub(super) fn all(n: usize, change: impl Fn(usize, &mut Header)) -> Series {
    changed(n, |_| true, change)
}

pub(super) fn framed(n: usize, change: impl Fn(usize, &mut FrameHeader)) -> Series {
    all(n, |k, header| change(k, &mut header.frames[0]))
}

/// The chest moved to other places along z.
pub(super) fn at_z(z: &[f64]) -> Series {
    framed(z.len(), |k, frame| frame.position = Some([-180.0, -170.0, z[k]]))
}

/// Copies of the instances in `which`, put at the end and changed.
pub(super) fn with_copies(
    mut series: Series,
    which: std::ops::Range<usize>,
    change: impl Fn(usize, &mut Header),
) -> Series {
    for k in which {
        let mut copy = series.instances[k].clone();
        copy.source.path = PathBuf::from(format!("/data/chest/copy/{k:04}.dcm")).into();
        change(k, &mut copy.header);
        series.instances.push(copy);
    }
    series
}

pub(super) fn verdict(series: &Series) -> Verdict {
    judge(series, &SeriesLimits::default()).verdict().clone()
}

pub(super) fn codes(verdict: &Verdict) -> Vec<Code> {
    verdict.findings.iter().map(|finding| finding.code).collect()
}

/// Asserts that the series is refused, first of all for this, and returns the sentence.
#[track_caller]
pub(super) fn refused(series: &Series, code: Code) -> String {
    let verdict = verdict(series);
    assert_eq!(verdict.outcome, Outcome::Refused, "{verdict:?}");
    assert_eq!(verdict.findings[0].code, code, "{verdict:?}");
    verdict.findings[0].sentence.clone()
}

/// Asserts that the series is accepted or repaired with exactly this, and returns the sentence.
#[track_caller]
pub(super) fn only(series: &Series, code: Code) -> String {
    let verdict = verdict(series);
    assert_eq!(codes(&verdict), [code], "{verdict:?}");
    let repaired = code.kind() == Kind::Repairs;
    assert_eq!(
        verdict.outcome,
        if repaired { Outcome::Repaired } else { Outcome::Accepted }
    );
    verdict.findings[0].sentence.clone()
}

/// The slices that the first finding names.
pub(super) fn concerned(series: &Series) -> Vec<String> {
    verdict(series).findings[0].concerns.clone()
}

#[track_caller]
pub(super) fn plain(series: &Series) {
    let verdict = verdict(series);
    assert_eq!(codes(&verdict), [], "{verdict:?}");
    assert_eq!(verdict.outcome, Outcome::Accepted);
}

#[track_caller]
pub(super) fn candidate<'a>(series: &'a Series) -> Box<Candidate<'a>> {
    match judge(series, &SeriesLimits::default()) {
        Judgement::Usable(candidate) => candidate,
        Judgement::Refused(verdict) => panic!("refused: {verdict:?}"),
    }
}

#[test]
fn a_plain_chest_is_accepted_without_a_word() {
    plain(&chest(40));
}

#[test]
fn the_stack_is_sorted_by_position_and_keeps_origin_and_rescale() {
    let series = chest(5);
    let stack = candidate(&series).stack().clone();
    assert_eq!(
        (stack.rows, stack.columns, stack.pixel_spacing_mm),
        (512, 512, [0.7, 0.7])
    );
    assert_eq!(stack.normal, [0.0, 0.0, 1.0]);
    let z: Vec<f64> = stack.slices.iter().map(|s| s.origin[2]).collect();
    assert_eq!(z, [-100.0, -97.5, -95.0, -92.5, -90.0]);
    assert!(
        stack
            .slices
            .iter()
            .all(|s| s.position_mm == s.origin[2] && s.rescale.intercept == -1024.0)
    );
}

#[test]
fn series_are_grouped_by_study_and_series_and_come_in_their_order() {
    let mut instances = chest(4).instances;
    instances[0].header.series_instance_uid = "1.2.3.5".into();
    instances[1].header.study_instance_uid = "1.2.2".into();
    let grouped = group(instances);
    let told: Vec<(&str, &str, usize)> = grouped
        .iter()
        .map(|s| (&*s.study_instance_uid, &*s.series_instance_uid, s.instances.len()))
        .collect();
    assert_eq!(
        told,
        [
            ("1.2.2", "1.2.3.4", 1),
            ("1.2.3", "1.2.3.4", 2),
            ("1.2.3", "1.2.3.5", 1)
        ]
    );
}

#[test]
fn without_a_series_uid_each_folder_is_a_series() {
    let mut instances = all(6, |_, header| header.series_instance_uid.clear()).instances;
    for (k, instance) in instances.iter_mut().enumerate() {
        instance.source.path = PathBuf::from(format!("/data/{}/{k}.dcm", if k < 2 { "a" } else { "b" })).into();
    }
    let sizes: Vec<usize> = group(instances).iter().map(|s| s.instances.len()).collect();
    assert_eq!(sizes, [2, 4]);
}

#[test]
fn settings_are_read_by_name_and_unknown_names_are_refused() {
    let limits: SeriesLimits = toml::from_str("min_slices = 9\nsharp_kernels = [\"YC\"]").unwrap();
    assert_eq!((limits.min_slices, limits.max_hole_mm), (9, 10.0));
    assert!(toml::from_str::<SeriesLimits>("max_hole = 3").is_err());
}
