//! Enhanced CT: what is said of a frame stands in its own functional groups, in those that all frames share, or partly in both (PS3.3 C.7.6.16). The objects are made here, so
//! that every way of saying it is met, and every way of leaving it out. And the frames stand in the object in each way in which archives store them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ct_file;
mod output_support;

use std::io::Write as _;
use std::path::Path;

use ct_file::{
    DEFLATED, EXPLICIT, JPEG_LS, RLE, element, encapsulated, header, item, jpeg_ls_frame_of, little_endian, meta,
};
use hilum::dicom::{DecodeOptions, FrameReader, Limits, discover};
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

/// The values of a frame as they are stored.
fn stored(frame: &Frame) -> Vec<i16> {
    let (slope, intercept) = frame.stored_by;
    hu(frame.place)
        .iter()
        .map(|hu| ((f64::from(*hu) - intercept) / slope) as i16)
        .collect()
}

/// The object with these frames in this order; `said` of them have functional groups of their own.
fn enhanced(shared: &Groups, frames: &[Frame], said: usize) -> Vec<u8> {
    let pixels: Vec<u8> = frames.iter().flat_map(|frame| little_endian(&stored(frame))).collect();
    [
        meta(EXPLICIT),
        without_pixels(shared, frames, said),
        element((0x7FE0, 0x10), "OW", &pixels),
    ]
    .concat()
}

/// The data set up to its pixels.
fn without_pixels(shared: &Groups, frames: &[Frame], said: usize) -> Vec<u8> {
    let short = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
    let each: Vec<Vec<u8>> = frames.iter().take(said).map(|frame| bytes_of(&frame.groups)).collect();
    [
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

/// How encapsulated pixel data say where a frame begins (PS3.5 A.4, PS3.3 C.7.6.3.1.8).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Table {
    Basic,
    Extended,
    /// One of the next object, that fits no fragment here.
    Wrong,
    None,
}

/// The frames in fragments of at most `piece` bytes, and the elements that go before them.
fn in_fragments(frames: &[Vec<u8>], piece: usize, table: Table) -> Vec<u8> {
    let (mut offsets, mut fragments) = (Vec::new(), Vec::new());
    let mut at = 0;
    for frame in frames {
        offsets.push(at);
        for fragment in frame.chunks(piece) {
            at += 8 + (fragment.len() + fragment.len() % 2) as u64;
            fragments.push(fragment);
        }
    }
    let mut before = Vec::new();
    if table == Table::Extended {
        let long = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let lengths: Vec<u64> = frames.iter().map(|frame| frame.len() as u64).collect();
        before = [
            element((0x7FE0, 1), "OV", &long(&offsets)),
            element((0x7FE0, 2), "OV", &long(&lengths)),
        ]
        .concat();
    }
    let numbers: Vec<u8> = match table {
        Table::Basic => offsets.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect(),
        Table::Wrong => (0..FRAMES as u32).flat_map(|n| (n * 100_000).to_le_bytes()).collect(),
        Table::Extended | Table::None => Vec::new(),
    };
    let empty = encapsulated(&fragments);
    let after = header((0x7FE0, 0x10), "OB", u32::MAX).len();
    [
        &before[..],
        &empty[..after],
        &item(0xE000, numbers.len() as u32),
        &numbers,
        &empty[after + 8..],
    ]
    .concat()
}

/// One frame by PS3.5 G: two segments, the high bytes and the low ones, of literal runs.
fn rle(samples: &[i16]) -> Vec<u8> {
    let segment = |shift: u32| {
        let bytes: Vec<u8> = samples.iter().map(|sample| (sample >> shift) as u8).collect();
        let mut runs: Vec<u8> = bytes
            .chunks(128)
            .flat_map(|run| [&[(run.len() - 1) as u8], run].concat())
            .collect();
        runs.resize(runs.len().next_multiple_of(2), 0);
        runs
    };
    let (high, low) = (segment(8), segment(0));
    let mut bytes: Vec<u8> = [2, 64, 64 + high.len() as u32]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    bytes.resize(64, 0);
    [bytes, high, low].concat()
}

/// In no order of theirs, so that a frame that is mistaken for another shows.
fn shuffled() -> [Frame; FRAMES] {
    [7, 0, 11, 3, 1, 10, 5, 2, 9, 4, 8, 6].map(Frame::at)
}

#[test]
fn compressed_frames_are_found_by_either_offset_table_and_without_one() {
    let frames = shuffled();
    let before = without_pixels(&shared(), &frames, FRAMES);
    let jpeg_ls = |samples: &[i16]| jpeg_ls_frame_of(ROWS, COLUMNS, samples);
    let coded =
        |code: &dyn Fn(&[i16]) -> Vec<u8>| -> Vec<Vec<u8>> { frames.iter().map(|f| code(&stored(f))).collect() };
    let (by_rle, by_jpeg_ls) = (coded(&rle), coded(&jpeg_ls));
    let whole_frames = usize::MAX;
    for (syntax, coded) in [(RLE, &by_rle), (JPEG_LS, &by_jpeg_ls)] {
        for (table, piece) in [
            (Table::Basic, whole_frames),
            (Table::Basic, 64),
            (Table::Extended, whole_frames),
            (Table::Extended, 64),
            (Table::None, whole_frames),
            (Table::Wrong, whole_frames),
            (Table::None, 64),
        ] {
            // Nothing tells where a frame of RLE begins.
            if syntax == RLE && (table, piece) == (Table::None, 64) {
                continue;
            }
            let bytes = [meta(syntax), before.clone(), in_fragments(coded, piece, table)].concat();
            let (stack, values) = read(&bytes);
            assert_eq!(stack.slices[0].frame, 1, "{syntax}");
            assert!(values == whole(), "{syntax}, {table:?}, fragments of {piece}");
        }
    }
    let lost = [meta(RLE), before, in_fragments(&by_rle, 64, Table::None)].concat();
    let folder = tempfile::tempdir().unwrap();
    let series = found(folder.path(), &lost);
    let refused = FrameReader::new(DecodeOptions::default())
        .read(&series.instances[0], 0, &mut Vec::new())
        .unwrap_err();
    assert!(
        refused.to_string().contains("without an offset table for 12 frames"),
        "{refused}"
    );
}

/// The object in a deflated transfer syntax.
fn deflated(frames: &[Frame]) -> Vec<u8> {
    let plain = enhanced(&shared(), frames, FRAMES);
    let mut deflating = flate2::write::DeflateEncoder::new(meta(DEFLATED), flate2::Compression::default());
    deflating.write_all(&plain[meta(EXPLICIT).len()..]).unwrap();
    deflating.finish().unwrap()
}

#[test]
fn deflated_frames_are_those_of_the_inflated_object() {
    assert_eq!(read(&deflated(&shuffled())).1, whole());
}

#[test]
fn what_is_kept_of_one_object_is_not_taken_for_that_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let in_rle = |frames: &[Frame]| {
        let coded: Vec<Vec<u8>> = frames.iter().map(|frame| rle(&stored(frame))).collect();
        let before = without_pixels(&shared(), frames, FRAMES);
        [meta(RLE), before, in_fragments(&coded, 64, Table::Basic)].concat()
    };
    let orders = [shuffled().to_vec(), frames()];
    let reader = FrameReader::new(DecodeOptions::default());
    for write in [&in_rle as &dyn Fn(&[Frame]) -> Vec<u8>, &deflated] {
        let objects = [0, 1].map(|which| ct_file::open(folder.path(), &write(&orders[which])));
        for number in [0, 11, 5] {
            for (object, order) in objects.iter().zip(&orders) {
                let mut samples = Vec::new();
                reader.read(object, number, &mut samples).unwrap();
                let stored: Vec<i32> = stored(&order[number]).into_iter().map(i32::from).collect();
                assert!(samples == stored, "frame {number}");
            }
        }
    }
}
