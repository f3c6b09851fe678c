//! DICOM Segmentations of series that are hard to refer to: every character set, odd matrices, Enhanced CT, lossy sources.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ct_file;
mod output_support;

use std::path::Path;

use ct_file::{EXPLICIT, IMPLICIT, element, meta};
use dicom_dictionary_std::tags;
use hilum::dicom::{Limits, Rescale, discover};
use hilum::output::segmentation::build;
use hilum::output::{Frames, OutputError, SegmentDescription, SegmentationRequest, read_back};
use hilum::series::{Series, Slice, Stack, group};
use hilum::volume::Mask;
use output_support::{data, grid, hold, request, series};

const SLICES: usize = 12;

/// A short CT series whose patient and study say what they are told to say, in these bytes.
fn write_series(folder: &Path, matrix: [u16; 2], character_set: Option<&[u8]>, name: &[u8], description: &[u8]) {
    let bytes = |value: &[u8]| Value::Bytes(value.to_vec());
    let mut fields: Vec<Field> = vec![
        ((8, 0x20), "DA", text("20010203")),
        ((8, 0x23), "DA", text("20010203")),
        ((8, 0x30), "TM", text("101112")),
        ((8, 0x33), "TM", text("101213.5")),
        ((8, 0x50), "SH", text("A1")),
        ((8, 0x70), "LO", text("Phantom Works")),
        ((8, 0x90), "PN", text("")),
        ((8, 0x1030), "LO", bytes(description)),
        ((0x10, 0x10), "PN", bytes(name)),
        ((0x10, 0x20), "LO", text("P1")),
        ((0x10, 0x21), "LO", text("Ward 7")),
        ((0x10, 0x30), "DA", text("")),
        ((0x10, 0x40), "CS", text("O")),
        ((0x10, 0x1010), "AS", text("061Y")),
        ((0x12, 0x62), "CS", text("YES")),
        ((0x12, 0x63), "LO", text("by hand")),
        ((0x18, 0x50), "DS", text("2.5")),
        ((0x20, 0x0D), "UI", text("1.2.826.0.1.3680043.9.2")),
        ((0x20, 0x10), "SH", text("S1")),
        ((0x20, 0x11), "IS", text("4")),
        ((0x20, 0x52), "UI", text("1.2.826.0.1.3680043.9.4")),
        ((0x20, 0x1040), "LO", text("")),
        ((0x28, 0x1054), "LO", text("HU")),
    ];
    fields.extend(character_set.map(|set| ((8, 0x05), "CS", bytes(set))));
    write_series_in(folder, matrix, EXPLICIT, false, &fields);
}

/// Two balls, none in the first and the last slices.
fn balls(stack: &Stack) -> Mask {
    let shape = [stack.slices.len(), stack.rows, stack.columns];
    let mut labels = Vec::new();
    for slice in 0..shape[0] {
        for row in 0..shape[1] {
            for column in 0..shape[2] {
                let far = |centre: f64| {
                    let along = [
                        slice as f64 / shape[0] as f64 - 0.5,
                        row as f64 / shape[1] as f64 - 0.5,
                        column as f64 / shape[2] as f64 - centre,
                    ];
                    along.iter().map(|x| x * x).sum::<f64>()
                };
                labels.push(u8::from(far(0.27) < 0.04) + 2 * u8::from(far(0.75) < 0.03));
            }
        }
    }
    Mask { shape, labels }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn patient_and_study_come_out_byte_for_byte_in_every_character_set() {
    type Set = (Option<&'static [u8]>, &'static [u8], &'static [u8]);
    let sets: [Set; 8] = [
        (Some(b"ISO_IR 100"), b"M\xFCller^J\xF6rg", b"Br\xFCste"),
        (Some(b"ISO_IR 192"), "山田^太郎".as_bytes(), "胸部 CT".as_bytes()),
        (
            Some(b"GB18030"),
            b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB",
            b"\xD0\xD8\xB2\xBF",
        ),
        (
            Some(b"\\ISO 2022 IR 87"),
            b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B",
            b"\x1B$B6;It\x1B(B CT",
        ),
        (
            Some(b"\\ISO 2022 IR 149"),
            b"Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7",
            b"\x1B$)C\xC8\xE4\xBA\xCE CT",
        ),
        (None, b"M\xFCller^J\xF6rg", b"Br\xFCste"),
        (Some(b"ISO_IR 144"), "Müller^Jörg".as_bytes(), b"\xFF\xFE\x80"),
        (Some(b"UTF-8"), "Müller^Jörg".as_bytes(), b"\x81\xC3"),
    ];
    for (set, name, description) in sets {
        let folder = tempfile::tempdir().unwrap();
        let ct = folder.path().join("ct");
        write_series(&ct, [24, 16], set, name, description);
        let (series, stack) = series(&ct);
        let mask = balls(&stack);
        let request = request(&series, &stack, &mask);
        let bytes = build(&request).expect("built");
        let label = String::from_utf8_lossy(set.unwrap_or(b"absent")).into_owned();
        for copied in [
            element((0x10, 0x10), "PN", name),
            element((8, 0x1030), "LO", description),
            element((0x10, 0x21), "LO", b"Ward 7"),
            element((0x12, 0x63), "LO", b"by hand"),
        ] {
            assert!(
                contains(&bytes, &copied),
                "{label}: {copied:02X?} is not in the segmentation"
            );
        }
        let stated = element((8, 5), "CS", set.unwrap_or_default());
        assert_eq!(contains(&bytes, &stated), set.is_some(), "{label}");
        assert_eq!(contains(&bytes, b"\x08\x00\x05\x00CS"), set.is_some(), "{label}");
        hold(&bytes, &request, &ct, &label);
    }
}

const BIG: &str = "1.2.840.10008.1.2.2";

/// A value of an element.
#[derive(Clone)]
enum Value {
    /// As they stand: text, and bytes without an order.
    Bytes(Vec<u8>),
    /// Numbers of so many bytes each, in little endian.
    Numbers(usize, Vec<u8>),
    /// Items of a sequence.
    Items(Vec<Vec<Field>>),
}

/// An element: tag, value representation, value.
type Field = ((u16, u16), &'static str, Value);

fn text(value: &str) -> Value {
    Value::Bytes(value.as_bytes().to_vec())
}

fn short(value: u16) -> Value {
    Value::Numbers(2, value.to_le_bytes().to_vec())
}

/// Elements in a transfer syntax; sequences and items with their lengths, or open and ended by delimiters.
fn encoded(fields: &[Field], syntax: &str, open: bool) -> Vec<u8> {
    let big = syntax == BIG;
    let number = |bytes: &[u8]| -> Vec<u8> {
        if big {
            bytes.iter().rev().copied().collect()
        } else {
            bytes.to_vec()
        }
    };
    let tag = |(group, element): (u16, u16)| [number(&group.to_le_bytes()), number(&element.to_le_bytes())].concat();
    let long = |length: usize| number(&u32::try_from(length).unwrap().to_le_bytes());
    let never = || vec![0xFF; 4];
    let mut out = Vec::new();
    for (name, vr, value) in fields {
        let mut bytes = match value {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Numbers(width, bytes) => bytes.chunks(*width).flat_map(number).collect(),
            Value::Items(items) => {
                let mut all = Vec::new();
                for item in items {
                    let content = encoded(item, syntax, open);
                    all.extend(tag((0xFFFE, 0xE000)));
                    all.extend(if open { never() } else { long(content.len()) });
                    all.extend(content);
                    if open {
                        all.extend([tag((0xFFFE, 0xE00D)), long(0)].concat());
                    }
                }
                if open {
                    all.extend([tag((0xFFFE, 0xE0DD)), long(0)].concat());
                }
                all
            }
        };
        if bytes.len() % 2 == 1 {
            bytes.push(if *vr == "UI" { 0 } else { b' ' });
        }
        out.extend(tag(*name));
        let length = if open && *vr == "SQ" {
            never()
        } else {
            long(bytes.len())
        };
        if syntax == IMPLICIT {
            out.extend(length);
        } else {
            out.extend_from_slice(vr.as_bytes());
            if ["OB", "OW", "SQ", "UC", "UN", "UT"].contains(vr) {
                out.extend([vec![0, 0], length].concat());
            } else {
                out.extend(number(&u16::try_from(bytes.len()).unwrap().to_le_bytes()));
            }
        }
        out.extend(bytes);
    }
    out
}

/// What PS3.3 lists for the modules that say whose images these are and of which study, in the order of their tags; but for UIDs, dates, times and what has a
/// fixed form, any value will do.
#[rustfmt::skip]
const PATIENT_AND_STUDY: [(u16, u16, &str); 89] = [
    // Patient, table C.7-1.
    (0x0008, 0x1120, "SQ"), (0x0010, 0x0010, "PN"), (0x0010, 0x0020, "LO"), (0x0010, 0x0021, "LO"), (0x0010, 0x0022, "CS"), (0x0010, 0x0024, "SQ"),
    (0x0010, 0x0026, "SQ"), (0x0010, 0x0027, "SQ"), (0x0010, 0x0030, "DA"), (0x0010, 0x0032, "TM"), (0x0010, 0x0033, "LO"), (0x0010, 0x0034, "LO"),
    (0x0010, 0x0035, "CS"), (0x0010, 0x0040, "CS"), (0x0010, 0x0200, "CS"), (0x0010, 0x0212, "UC"), (0x0010, 0x0213, "LO"), (0x0010, 0x0216, "SQ"),
    (0x0010, 0x0218, "UT"), (0x0010, 0x0219, "SQ"), (0x0010, 0x0221, "SQ"), (0x0010, 0x1001, "PN"), (0x0010, 0x1002, "SQ"), (0x0010, 0x1100, "SQ"),
    (0x0010, 0x2160, "SH"), (0x0010, 0x2161, "SQ"), (0x0010, 0x2201, "LO"), (0x0010, 0x2202, "SQ"), (0x0010, 0x2292, "LO"), (0x0010, 0x2293, "SQ"),
    (0x0010, 0x2294, "SQ"), (0x0010, 0x2297, "PN"), (0x0010, 0x2298, "CS"), (0x0010, 0x2299, "LO"), (0x0010, 0x4000, "LT"),
    // Patient Study, table C.7-4a.
    (0x0008, 0x1080, "LO"), (0x0008, 0x1084, "SQ"), (0x0010, 0x0011, "SQ"), (0x0010, 0x0014, "SQ"), (0x0010, 0x0041, "SQ"), (0x0010, 0x0043, "SQ"),
    (0x0010, 0x1010, "AS"), (0x0010, 0x1020, "DS"), (0x0010, 0x1021, "SQ"), (0x0010, 0x1022, "DS"), (0x0010, 0x1023, "DS"), (0x0010, 0x1024, "DS"),
    (0x0010, 0x1030, "DS"), (0x0010, 0x2000, "LO"), (0x0010, 0x2110, "LO"), (0x0010, 0x2180, "SH"), (0x0010, 0x21A0, "CS"), (0x0010, 0x21B0, "LT"),
    (0x0010, 0x21C0, "US"), (0x0010, 0x21D0, "DA"), (0x0010, 0x2203, "CS"), (0x0032, 0x1066, "UT"), (0x0032, 0x1067, "SQ"), (0x0038, 0x0010, "LO"),
    (0x0038, 0x0014, "SQ"), (0x0038, 0x0060, "LO"), (0x0038, 0x0062, "LO"), (0x0038, 0x0064, "SQ"), (0x0038, 0x0500, "LO"),
    // General Study, table C.7-3.
    (0x0008, 0x0020, "DA"), (0x0008, 0x0030, "TM"), (0x0008, 0x0050, "SH"), (0x0008, 0x0051, "SQ"), (0x0008, 0x0090, "PN"), (0x0008, 0x0096, "SQ"),
    (0x0008, 0x009C, "PN"), (0x0008, 0x009D, "SQ"), (0x0008, 0x1030, "LO"), (0x0008, 0x1032, "SQ"), (0x0008, 0x1048, "PN"), (0x0008, 0x1049, "SQ"),
    (0x0008, 0x1060, "PN"), (0x0008, 0x1062, "SQ"), (0x0008, 0x1110, "SQ"), (0x0020, 0x000D, "UI"), (0x0020, 0x0010, "SH"), (0x0032, 0x1033, "LO"),
    (0x0032, 0x1034, "SQ"), (0x0040, 0x1012, "SQ"),
    // What was done to take the identity out: tables C.7-1 and C.7.3.1.1 (Patient and General Series), and the times' zone (SOP Common, C.12-1).
    (0x0012, 0x0062, "CS"), (0x0012, 0x0063, "LO"), (0x0012, 0x0064, "SQ"), (0x0028, 0x0303, "CS"), (0x0008, 0x0201, "SH"),
];

/// Those elements, each with a value of its own.
fn patient_and_study() -> Vec<Field> {
    let own = |(group, element): (u16, u16), vr: &'static str| -> Value {
        let word = format!("{group:04X}{element:04X}");
        match vr {
            "DA" => text(&format!("1990{:02}{:02}", element % 12 + 1, element % 28 + 1)),
            "TM" => text(&format!("10{:02}{:02}", group % 60, element % 60)),
            "AS" => text("061Y"),
            "DS" => text(&format!("1.{element}")),
            "US" => short(0x0102),
            "UI" => text("1.2.826.0.1.3680043.9.2"),
            "PN" => text(&format!("Name{word}^Of")),
            "SQ" => Value::Items(vec![
                vec![
                    ((0x0008, 0x0100), "SH", text(&word)),
                    ((0x0008, 0x0104), "LO", text(&format!("Meaning {word}"))),
                    (
                        (0x0040, 0xA170),
                        "SQ",
                        Value::Items(vec![vec![
                            ((0x0008, 0x1150), "UI", text("1.2.840.10008.3.1.2.3.1")),
                            ((0x0008, 0x1161), "UL", Value::Numbers(4, vec![1, 2, 3, 4, 5, 6, 7, 8])),
                            ((0x0010, 0x21C0), "US", short(0x0304)),
                            (
                                (0x0018, 0x9306),
                                "FD",
                                Value::Numbers(8, 0.625f64.to_le_bytes().to_vec()),
                            ),
                        ]]),
                    ),
                ],
                vec![((0x0008, 0x0104), "LO", text("Second"))],
            ]),
            _ => text(&format!("X{word}")),
        }
    };
    let mut fields: Vec<Field> = PATIENT_AND_STUDY
        .iter()
        .map(|(group, element, vr)| ((*group, *element), *vr, own((*group, *element), vr)))
        .collect();
    fields.sort_by_key(|(tag, ..)| *tag);
    fields
}

/// A short CT series in a transfer syntax with these elements beside those of a slice.
fn write_series_in(folder: &Path, [rows, columns]: [u16; 2], syntax: &str, open: bool, more: &[Field]) {
    std::fs::create_dir_all(folder).unwrap();
    for slice in 0..SLICES {
        let mut fields: Vec<Field> = vec![
            ((8, 0x08), "CS", text("ORIGINAL\\PRIMARY\\AXIAL")),
            ((8, 0x16), "UI", text("1.2.840.10008.5.1.4.1.1.2")),
            ((8, 0x18), "UI", text(&format!("1.2.826.0.1.3680043.9.1.{slice}"))),
            ((8, 0x60), "CS", text("CT")),
            ((0x20, 0x0E), "UI", text("1.2.826.0.1.3680043.9.3")),
            ((0x20, 0x13), "IS", text(&(slice + 1).to_string())),
            (
                (0x20, 0x32),
                "DS",
                text(&format!("-100.5\\-80.25\\{}", -20.0 + 2.5 * slice as f64)),
            ),
            ((0x20, 0x37), "DS", text("1\\0\\0\\0\\1\\0")),
            ((0x28, 2), "US", short(1)),
            ((0x28, 4), "CS", text("MONOCHROME2")),
            ((0x28, 0x10), "US", short(rows)),
            ((0x28, 0x11), "US", short(columns)),
            ((0x28, 0x30), "DS", text("0.703125\\0.703125")),
            ((0x28, 0x100), "US", short(16)),
            ((0x28, 0x101), "US", short(16)),
            ((0x28, 0x102), "US", short(15)),
            ((0x28, 0x103), "US", short(1)),
            ((0x28, 0x1052), "DS", text("0")),
            ((0x28, 0x1053), "DS", text("1")),
            (
                (0x7FE0, 0x10),
                "OW",
                Value::Bytes(vec![0; usize::from(rows) * usize::from(columns) * 2]),
            ),
        ];
        fields.extend_from_slice(more);
        fields.sort_by_key(|(tag, ..)| *tag);
        let bytes = [meta(syntax), encoded(&fields, syntax, open)].concat();
        std::fs::write(folder.join(format!("{slice:03}.dcm")), bytes).unwrap();
    }
}

#[test]
fn the_whole_of_patient_and_study_is_copied_from_every_byte_order() {
    let all = patient_and_study();
    for (syntax, open) in [(EXPLICIT, false), (IMPLICIT, true), (IMPLICIT, false), (BIG, true)] {
        let folder = tempfile::tempdir().unwrap();
        let ct = folder.path().join("ct");
        let mut fields = vec![((8, 0x05), "CS", text("ISO_IR 100"))];
        fields.extend_from_slice(&all);
        write_series_in(&ct, [24, 16], syntax, open, &fields);
        let (series, stack) = series(&ct);
        let mask = balls(&stack);
        let request = request(&series, &stack, &mask);
        let bytes = build(&request).expect("built");
        read_back::verify(&bytes, &request, &grid(&stack)).expect("reads back");
        let object = dicom_object::from_reader(bytes.as_slice()).unwrap();
        let lacking: Vec<String> = all
            .iter()
            .filter(|field| {
                let (group, element) = field.0;
                let there = object.element(dicom_core::Tag(group, element)).is_ok();
                !there || !contains(&bytes, &encoded(std::slice::from_ref(field), EXPLICIT, false))
            })
            .map(|((group, element), vr, _)| format!("({group:04X},{element:04X}) {vr}"))
            .collect();
        assert!(lacking.is_empty(), "{syntax}, open {open}: {lacking:?}");
    }
}

/// A series of 37 x 29 voxels a slice, which do not fill bytes, and a mask of it.
fn odd_matrix(ct: &Path) -> (Series, Stack, Mask) {
    write_series(ct, [37, 29], Some(b"ISO_IR 100"), b"Odd^Matrix", b"Chest");
    let (series, stack) = series(ct);
    let mask = balls(&stack);
    (series, stack, mask)
}

#[test]
fn a_flipped_bit_a_moved_frame_and_a_lost_frame_of_a_drawn_mask_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (series, stack, mask) = odd_matrix(folder.path());
    for frames in [Frames::Full, Frames::Sparse] {
        let request = SegmentationRequest {
            frames,
            ..request(&series, &stack, &mask)
        };
        let good = build(&request).expect("built");
        let said = |bytes: &[u8]| {
            let error = read_back::verify(bytes, &request, &grid(&stack)).unwrap_err();
            error.to_string()
        };
        read_back::verify(&good, &request, &grid(&stack)).expect("good");

        // A bit of each frame: the pixels end the file, and the frames are not whole bytes.
        let object = dicom_object::from_reader(good.as_slice()).unwrap();
        let number: usize = object.element(tags::NUMBER_OF_FRAMES).unwrap().to_int().unwrap();
        let pixels = (number * 37 * 29).div_ceil(16) * 2;
        for frame in 0..number {
            let bit = frame * 37 * 29 + 500;
            let mut flipped = good.clone();
            let at = good.len() - pixels + bit / 8;
            flipped[at] ^= 1 << (bit % 8);
            let told = said(&flipped);
            assert!(
                told.contains(&format!("frame {},", frame + 1)) && told.contains("row 18, column 8 "),
                "{frames:?}: {told}"
            );
        }

        // One position by 2 mm and by 1 mm along the normal, and by 0.4 mm in the plane.
        let place = b"-100.5\\-80.25\\-5";
        let start = good.windows(place.len()).position(|window| window == place).unwrap();
        for (offset, digit) in [(15, b'7'), (15, b'4'), (5, b'9')] {
            let mut moved = good.clone();
            moved[start + offset] = digit;
            let told = said(&moved);
            assert!(told.contains("position"), "{frames:?}: {told}");
        }

        // The last digit of the name of the patient's space.
        let space = object.element(tags::FRAME_OF_REFERENCE_UID).unwrap().to_str().unwrap();
        let space = space.trim_end_matches('\0');
        let starts = good
            .windows(space.len())
            .enumerate()
            .filter(|(_, window)| *window == space.as_bytes());
        let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
        assert!(!starts.is_empty());
        let mut elsewhere = good.clone();
        for start in starts {
            let digit = &mut elsewhere[start + space.len() - 1];
            *digit = if *digit == b'9' { b'1' } else { b'9' };
        }
        let told = said(&elsewhere);
        assert!(told.contains("FrameOfReferenceUID"), "{frames:?}: {told}");

        let told = said(&good[..good.len() - 2]);
        assert!(told.contains("does not end with PixelData"), "{frames:?}: {told}");
    }

    // An object whose maker lost a frame.
    let lost = 5;
    let mut less = mask.clone();
    less.labels[lost * 37 * 29..][..37 * 29].fill(0);
    let sparse = |mask| SegmentationRequest {
        frames: Frames::Sparse,
        ..request(&series, &stack, mask)
    };
    let without = build(&sparse(&less)).expect("built");
    let told = read_back::verify(&without, &sparse(&mask), &grid(&stack))
        .unwrap_err()
        .to_string();
    assert!(told.contains("segment 1 has no frame for slice 6"), "{told}");
}

#[test]
fn a_matrix_that_does_not_fill_bytes_is_valid_and_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (series, stack, mask) = odd_matrix(folder.path());
    for frames in [Frames::Full, Frames::Sparse] {
        for segments in [
            vec![SegmentDescription::lung(1)],
            vec![SegmentDescription::right_lung(1), SegmentDescription::left_lung(2)],
        ] {
            let name = format!("37 x 29, {frames:?}, {}", segments.len());
            let request = SegmentationRequest {
                frames,
                segments,
                ..request(&series, &stack, &mask)
            };
            hold(&build(&request).expect("built"), &request, folder.path(), &name);
        }
    }
}

/// A stack of all frames of one instance.
fn stack_of_frames(series: &Series) -> Stack {
    let header = &series.instances[0].header;
    let first = &header.frames[0];
    let orientation = first.orientation.unwrap();
    let [row, column]: [[f64; 3]; 2] = [0, 3].map(|at| [orientation[at], orientation[at + 1], orientation[at + 2]]);
    let normal =
        std::array::from_fn(|i| row[(i + 1) % 3] * column[(i + 2) % 3] - row[(i + 2) % 3] * column[(i + 1) % 3]);
    let mut slices: Vec<Slice> = (0..header.frames.len())
        .map(|frame| {
            let origin = header.frames[frame].position.unwrap();
            let position_mm = (0..3).map(|i| origin[i] * normal[i]).sum();
            Slice {
                instance: 0,
                frame,
                origin,
                position_mm,
                rescale: Rescale {
                    slope: 1.0,
                    intercept: 0.0,
                },
            }
        })
        .collect();
    slices.sort_by(|a, b| a.position_mm.total_cmp(&b.position_mm));
    Stack {
        slices,
        rows: header.pixels.rows as usize,
        columns: header.pixels.columns as usize,
        pixel_spacing_mm: first.pixel_spacing_mm.unwrap(),
        row_direction: row,
        column_direction: column,
        normal,
    }
}

#[test]
fn frames_of_an_enhanced_ct_are_referred_to_by_number() {
    let Some(data) = data() else { return };
    let ct = data.join("odd/enhanced_multiframe_ct");
    let found = discover(std::slice::from_ref(&ct), &Limits::default()).unwrap();
    let series = group(found.instances).remove(0);
    let stack = stack_of_frames(&series);
    let mask = Mask {
        labels: balls(&stack)
            .labels
            .iter()
            .enumerate()
            .map(|(i, l)| if i % 5 == 0 { 1 } else { *l })
            .collect(),
        ..balls(&stack)
    };
    let request = request(&series, &stack, &mask);
    let bytes = build(&request).expect("built");
    let object = dicom_object::from_reader(bytes.as_slice()).unwrap();
    let frames = object
        .element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
        .unwrap()
        .items()
        .unwrap();
    for (frame, slice) in frames.iter().zip(stack.slices.iter().cycle()) {
        let derivation = &frame.element(tags::DERIVATION_IMAGE_SEQUENCE).unwrap().items().unwrap()[0];
        let source = &derivation
            .element(tags::SOURCE_IMAGE_SEQUENCE)
            .unwrap()
            .items()
            .unwrap()[0];
        assert_eq!(
            source
                .element(tags::REFERENCED_FRAME_NUMBER)
                .unwrap()
                .to_int::<usize>()
                .unwrap(),
            slice.frame + 1
        );
    }
    let references = &object
        .element(tags::REFERENCED_SERIES_SEQUENCE)
        .unwrap()
        .items()
        .unwrap()[0];
    assert_eq!(
        references
            .element(tags::REFERENCED_INSTANCE_SEQUENCE)
            .unwrap()
            .items()
            .unwrap()
            .len(),
        1
    );
    hold(&bytes, &request, &ct, "Enhanced CT");
}

#[test]
fn lossy_sources_nameless_sources_and_empty_masks() {
    let folder = tempfile::tempdir().unwrap();
    let ct = folder.path().join("ct");
    write_series(&ct, [24, 16], None, b"A^B", b"Chest");
    let (mut series, stack) = series(&ct);
    let mask = balls(&stack);
    let empty = Mask {
        labels: vec![0; mask.labels.len()],
        ..mask.clone()
    };
    assert!(matches!(
        build(&SegmentationRequest {
            mask: &empty,
            ..request(&series, &stack, &mask)
        }),
        Err(OutputError::EmptyMask)
    ));

    for instance in &mut series.instances[4..6] {
        instance.header.lossy = true;
        instance.header.lossy_ratio = "12.50".to_owned();
        instance.header.lossy_method = "ISO_10918_1".to_owned();
    }
    let lossy = build(&request(&series, &stack, &mask)).expect("built");
    let object = dicom_object::from_reader(lossy.as_slice()).unwrap();
    let text = |tag| object.element(tag).unwrap().to_str().unwrap().trim().to_owned();
    assert_eq!(
        [
            tags::LOSSY_IMAGE_COMPRESSION,
            tags::LOSSY_IMAGE_COMPRESSION_RATIO,
            tags::LOSSY_IMAGE_COMPRESSION_METHOD
        ]
        .map(text),
        ["01", "12.50", "ISO_10918_1"]
    );
    assert_eq!(text(tags::SERIES_DESCRIPTION), "Hilum lungs (12 slices)");
    assert_eq!(
        [text(tags::CONTENT_DATE), text(tags::CONTENT_TIME)],
        ["20010203", "101213.5"],
        "dates are the source's"
    );

    series.instances[2].header.sop_instance_uid.clear();
    assert!(matches!(
        build(&request(&series, &stack, &mask)),
        Err(OutputError::UnnamedSource(_))
    ));
}
