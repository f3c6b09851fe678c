//! Enhanced CT: what is said of a frame stands in its own functional groups, in those that all frames share, or partly in both (PS3.3 C.7.6.16). The objects are made here, so
//! that every way of saying it is met, and every way of leaving it out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ct_file;
mod output_support;

use std::path::Path;

use ct_file::{EXPLICIT, element, item, little_endian, meta};
use hilum::dicom::{Limits, discover};
use hilum::series::{Code, Judgement, Outcome, Series, SeriesLimits, Stack, Verdict, group, judge};
use hilum::volume::Voxels;

const ROWS: u16 = 18;
const COLUMNS: u16 = 20;
const FRAMES: usize = 12;
const STEP_MM: f64 = 5.0;
const UPRIGHT: &str = "1\\0\\0\\0\\1\\0";
/// Rows run to the left and a little upwards, columns to the back.
const OBLIQUE: &str = "0.8\\0\\0.6\\0\\1\\0";
const PLAIN: (&str, &str) = ("1", "-1024");

/// What functional groups say; what is `None` they leave out.
#[derive(Clone, Default)]
struct Groups {
    position: Option<[f64; 3]>,
    orientation: Option<&'static str>,
    spacing: Option<&'static str>,
    /// Slope and intercept.
    rescale: Option<(&'static str, &'static str)>,
    /// VolumeBasedCalculationTechnique.
    calculation: Option<&'static str>,
}

/// A frame: what its groups say, and its place among the slices, from the lowest.
#[derive(Clone)]
struct Frame {
    groups: Groups,
    place: usize,
    /// By which its values are stored.
    stored_by: (f64, f64),
}

impl Frame {
    /// With a position of its own, stored by a plain rescale.
    fn at(place: usize) -> Frame {
        Frame {
            groups: Groups {
                position: Some(position(place, UPRIGHT)),
                ..Groups::default()
            },
            place,
            stored_by: (1.0, -1024.0),
        }
    }

    /// Stored by a rescale that its own groups tell.
    fn rescaled(mut self, slope: &'static str, intercept: &'static str) -> Frame {
        self.groups.rescale = Some((slope, intercept));
        self.stored_by = (slope.parse().unwrap(), intercept.parse().unwrap());
        self
    }
}

fn numbers(text: &str) -> Vec<f64> {
    text.split('\\').map(|number| number.parse().unwrap()).collect()
}

/// The origin of a slice: the first one's, moved along the normal.
fn position(place: usize, orientation: &str) -> [f64; 3] {
    let o = numbers(orientation);
    let normal = [
        o[1] * o[5] - o[2] * o[4],
        o[2] * o[3] - o[0] * o[5],
        o[0] * o[4] - o[1] * o[3],
    ];
    let first = [-80.0, -60.0, 100.0];
    std::array::from_fn(|axis| first[axis] + place as f64 * STEP_MM * normal[axis])
}

/// Air, lung, fat, tissue and bone in turn, another at each place. All are even, so that a slope of 2 can hold them.
fn hu(place: usize) -> Vec<i16> {
    (0..usize::from(ROWS) * usize::from(COLUMNS))
        .map(|voxel| [-1000, -850, -100, 40, 60, 700][(voxel / 3 + place) % 6] + 2 * place as i16)
        .collect()
}

fn sequence(tag: (u16, u16), items: &[Vec<u8>]) -> Vec<u8> {
    let content: Vec<u8> = items
        .iter()
        .flat_map(|content| [item(0xE000, content.len() as u32), content.clone()].concat())
        .collect();
    element(tag, "SQ", &content)
}

fn bytes_of(groups: &Groups) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(position) = groups.position {
        let text = position.map(|c| format!("{c:.6}")).join("\\");
        bytes.extend(sequence(
            (0x20, 0x9113),
            &[element((0x20, 0x32), "DS", text.as_bytes())],
        ));
    }
    if let Some(orientation) = groups.orientation {
        bytes.extend(sequence(
            (0x20, 0x9116),
            &[element((0x20, 0x37), "DS", orientation.as_bytes())],
        ));
    }
    if let Some(spacing) = groups.spacing {
        let measures = [
            element((0x18, 0x50), "DS", b"5"),
            element((0x28, 0x30), "DS", spacing.as_bytes()),
        ];
        bytes.extend(sequence((0x28, 0x9110), &[measures.concat()]));
    }
    if let Some((slope, intercept)) = groups.rescale {
        let transformation = [
            element((0x28, 0x1052), "DS", intercept.as_bytes()),
            element((0x28, 0x1053), "DS", slope.as_bytes()),
            element((0x28, 0x1054), "LO", b"HU"),
        ];
        bytes.extend(sequence((0x28, 0x9145), &[transformation.concat()]));
    }
    if let Some(technique) = groups.calculation {
        let kind = [
            element((8, 0x9007), "CS", b"DERIVED\\PRIMARY\\VOLUME\\NONE"),
            element((8, 0x9207), "CS", technique.as_bytes()),
        ];
        bytes.extend(sequence((0x18, 0x9329), &[kind.concat()]));
    }
    bytes
}

/// The object with these frames in this order; `said` of them have functional groups of their own.
fn enhanced(shared: &Groups, frames: &[Frame], said: usize) -> Vec<u8> {
    let short = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
    let pixels: Vec<u8> = frames
        .iter()
        .flat_map(|frame| {
            let (slope, intercept) = frame.stored_by;
            let stored: Vec<i16> = hu(frame.place)
                .iter()
                .map(|hu| ((f64::from(*hu) - intercept) / slope) as i16)
                .collect();
            little_endian(&stored)
        })
        .collect();
    let each: Vec<Vec<u8>> = frames.iter().take(said).map(|frame| bytes_of(&frame.groups)).collect();
    [
        meta(EXPLICIT),
        element((8, 0x08), "CS", b"ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        element((8, 0x16), "UI", b"1.2.840.10008.5.1.4.1.1.2.1"),
        element((8, 0x18), "UI", b"1.2.3.6"),
        element((8, 0x60), "CS", b"CT"),
        element((0x10, 0x10), "PN", b"Phantom"),
        element((0x10, 0x20), "LO", b"P1"),
        element((0x20, 0x0D), "UI", b"1.2.3"),
        element((0x20, 0x0E), "UI", b"1.2.3.5"),
        // A place of the whole object is none of a frame's.
        element((0x20, 0x32), "DS", b"0\\0\\0"),
        element((0x20, 0x52), "UI", b"1.2.3.7"),
        short((0x28, 2), 1),
        element((0x28, 4), "CS", b"MONOCHROME2"),
        element((0x28, 8), "IS", frames.len().to_string().as_bytes()),
        short((0x28, 0x10), ROWS),
        short((0x28, 0x11), COLUMNS),
        short((0x28, 0x100), 16),
        short((0x28, 0x101), 16),
        short((0x28, 0x102), 15),
        short((0x28, 0x103), 1),
        sequence((0x5200, 0x9229), &[bytes_of(shared)]),
        sequence((0x5200, 0x9230), &each),
        element((0x7FE0, 0x10), "OW", &pixels),
    ]
    .concat()
}

/// Orientation, spacing and a plain rescale for all frames.
fn shared() -> Groups {
    Groups {
        position: None,
        orientation: Some(UPRIGHT),
        spacing: Some("8\\7"),
        rescale: Some(PLAIN),
        calculation: None,
    }
}

fn frames() -> Vec<Frame> {
    (0..FRAMES).map(Frame::at).collect()
}

/// Written and found again.
fn found(folder: &Path, bytes: &[u8]) -> Series {
    std::fs::write(folder.join("enhanced.dcm"), bytes).unwrap();
    let discovery = discover(&[folder.to_owned()], &Limits::default()).unwrap();
    assert!(discovery.skipped.is_empty(), "{:?}", discovery.skipped);
    let mut series = group(discovery.instances);
    assert_eq!(series.len(), 1);
    series.remove(0)
}

fn verdict(bytes: &[u8]) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    judge(&found(folder.path(), bytes), &SeriesLimits::default())
        .verdict()
        .clone()
}

/// The stack and the values of an object that is taken.
fn read(bytes: &[u8]) -> (Stack, Vec<i16>) {
    let folder = tempfile::tempdir().unwrap();
    let series = found(folder.path(), bytes);
    let stack = match judge(&series, &SeriesLimits::default()) {
        Judgement::Usable(candidate) => candidate.stack().clone(),
        Judgement::Refused(verdict) => panic!("{verdict:?}"),
    };
    match output_support::volume(&series, &stack).voxels {
        Voxels::I16(values) => (stack, values),
        Voxels::F32(_) => panic!("every value is whole"),
    }
}

/// All places from the lowest to the highest.
fn whole() -> Vec<i16> {
    (0..FRAMES).flat_map(hu).collect()
}

#[track_caller]
fn refused(bytes: &[u8], code: Code, told: &str) -> Verdict {
    let verdict = verdict(bytes);
    assert_eq!(verdict.outcome, Outcome::Refused, "{verdict:?}");
    assert_eq!(verdict.findings[0].code, code, "{verdict:?}");
    assert!(verdict.findings[0].sentence.contains(told), "{verdict:?}");
    verdict
}

#[test]
fn each_frame_is_converted_with_its_own_rescale() {
    let rescales = [("1", "-1024"), ("2", "-1000"), ("1", "0"), ("0.5", "12")];
    let shared = Groups {
        rescale: None,
        ..shared()
    };
    let frames: Vec<Frame> = (0..FRAMES)
        .map(|k| Frame::at(k).rescaled(rescales[k % 4].0, rescales[k % 4].1))
        .collect();
    let bytes = enhanced(&shared, &frames, FRAMES);
    let (stack, values) = read(&bytes);
    assert_eq!(values, whole());
    assert_eq!(
        (stack.slices[1].rescale.slope, stack.slices[1].rescale.intercept),
        (2.0, -1000.0)
    );
    let varies = verdict(&bytes);
    assert_eq!(varies.outcome, Outcome::Accepted, "{varies:?}");
    assert!(
        varies.findings.iter().any(|f| f.code == Code::RescaleVaries),
        "{varies:?}"
    );
}

#[test]
fn a_frames_own_rescale_overrules_the_shared_one() {
    let mut frames = frames();
    frames[7] = Frame::at(7).rescaled("2", "-1000");
    assert_eq!(read(&enhanced(&shared(), &frames, FRAMES)).1, whole());
}

#[test]
fn a_frames_own_orientation_and_spacing_are_those_of_shared_groups() {
    let oblique = |shared: bool| {
        let groups = |here: bool| Groups {
            position: None,
            orientation: here.then_some(OBLIQUE),
            spacing: here.then_some("8\\7"),
            rescale: here.then_some(PLAIN),
            calculation: None,
        };
        let frames: Vec<Frame> = (0..FRAMES)
            .map(|k| {
                let position = Some(position(k, OBLIQUE));
                let groups = Groups {
                    position,
                    ..groups(!shared)
                };
                Frame { groups, ..Frame::at(k) }
            })
            .collect();
        enhanced(&groups(shared), &frames, FRAMES)
    };
    let (stack, values) = read(&oblique(true));
    assert_eq!((&stack, &values), (&read(&oblique(false)).0, &whole()));
    assert_eq!(
        (stack.row_direction, stack.column_direction),
        ([0.8, 0.0, 0.6], [0.0, 1.0, 0.0])
    );
    assert_eq!(stack.pixel_spacing_mm, [8.0, 7.0]);
    let steps = stack
        .slices
        .windows(2)
        .map(|pair| pair[1].position_mm - pair[0].position_mm);
    assert!(steps.into_iter().all(|step| (step - STEP_MM).abs() < 1e-5));
}

#[test]
fn a_frame_that_is_turned_against_the_shared_orientation_is_noticed() {
    let mut frames = frames();
    frames[4].groups.orientation = Some("0.96\\0.28\\0\\-0.28\\0.96\\0");
    refused(
        &enhanced(&shared(), &frames, FRAMES),
        Code::MixedOrientation,
        "1 of 12 slices",
    );
}

#[test]
fn frames_are_stacked_by_position_in_whatever_order_they_are_stored() {
    let order = [7, 0, 11, 3, 1, 10, 5, 2, 9, 4, 8, 6];
    let frames = order.map(|place| {
        if place % 3 == 0 {
            Frame::at(place).rescaled("2", "-1000")
        } else {
            Frame::at(place)
        }
    });
    let (stack, values) = read(&enhanced(&shared(), &frames, FRAMES));
    let stored: Vec<usize> = (0..FRAMES)
        .map(|place| order.iter().position(|p| *p == place).unwrap())
        .collect();
    assert_eq!(stack.slices.iter().map(|slice| slice.frame).collect::<Vec<_>>(), stored);
    assert_eq!(values, whole());
    // Downwards, as many scanners store them.
    let descending: Vec<Frame> = (0..FRAMES).rev().map(Frame::at).collect();
    assert_eq!(read(&enhanced(&shared(), &descending, FRAMES)).1, whole());
}

#[test]
fn a_frame_without_a_position_is_refused_and_named() {
    let mut frames = frames();
    frames[5].groups.position = None;
    let told = "no ImagePositionPatient in 1 of 12 slices";
    let verdict = refused(&enhanced(&shared(), &frames, FRAMES), Code::NoGeometry, told);
    let concerned = &verdict.findings[0].concerns;
    assert!(
        concerned.len() == 1 && concerned[0].contains("frame 6"),
        "{concerned:?}"
    );
}

#[test]
fn a_frame_without_functional_groups_has_no_position() {
    let told = "no ImagePositionPatient in 2 of 12 slices";
    refused(&enhanced(&shared(), &frames(), FRAMES - 2), Code::NoGeometry, told);
    // Nor does a position that all frames share place any of them but the same.
    let all = Groups {
        position: Some(position(0, UPRIGHT)),
        ..shared()
    };
    refused(&enhanced(&all, &frames(), 0), Code::TooFewSlices, "only 1 slice");
}

#[test]
fn a_frame_without_any_rescale_is_not_hounsfield_units() {
    let none = Groups {
        rescale: None,
        ..shared()
    };
    let mut frames: Vec<Frame> = frames().into_iter().map(|f| f.rescaled("1", "-1024")).collect();
    assert_eq!(read(&enhanced(&none, &frames, FRAMES)).1, whole());
    frames[2].groups.rescale = None;
    let told = "RescaleSlope and RescaleIntercept are absent in 1 of 12 slices";
    refused(&enhanced(&none, &frames, FRAMES), Code::NotHu, told);
}

#[test]
fn a_projection_is_told_by_how_its_frames_were_calculated() {
    let calculated = |technique| Groups {
        calculation: Some(technique),
        ..shared()
    };
    for technique in ["MAX_IP", "MIN_IP"] {
        refused(
            &enhanced(&calculated(technique), &frames(), FRAMES),
            Code::DerivedProjection,
            "projections",
        );
    }
    let mut one = frames();
    for frame in &mut one {
        frame.groups.calculation = Some("MIN_IP");
    }
    refused(
        &enhanced(&shared(), &one, FRAMES),
        Code::DerivedProjection,
        "projections",
    );
    for technique in ["NONE", "MPR"] {
        let verdict = verdict(&enhanced(&calculated(technique), &frames(), FRAMES));
        assert_ne!(verdict.outcome, Outcome::Refused, "{technique}: {verdict:?}");
    }
}

#[test]
fn a_rescale_that_is_no_number_in_shared_or_per_frame_groups_is_not_hounsfield_units() {
    for (rescale, told) in [
        (("1e999", "-1024"), "RescaleSlope is no finite number"),
        (("nan", "-1024"), "RescaleSlope is no finite number"),
        (("0", "-1024"), "RescaleSlope is 0"),
        (("1", "1e999"), "RescaleIntercept is no finite number"),
    ] {
        let all = Groups {
            rescale: Some(rescale),
            ..shared()
        };
        refused(
            &enhanced(&all, &frames(), FRAMES),
            Code::NotHu,
            &format!("{told} in all 12 slices"),
        );
        let mut frames = frames();
        frames[9].groups.rescale = Some(rescale);
        refused(
            &enhanced(&shared(), &frames, FRAMES),
            Code::NotHu,
            &format!("{told} in 1 of 12 slices"),
        );
    }
}
