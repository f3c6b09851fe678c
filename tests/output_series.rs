//! DICOM Segmentations of series that are hard to refer to: every character set, odd matrices, Enhanced CT, lossy sources.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ct_file;
mod output_support;

use std::path::Path;

use ct_file::{EXPLICIT, element, meta};
use dicom_dictionary_std::tags;
use hilum::dicom::{Limits, Rescale, discover};
use hilum::output::segmentation::build;
use hilum::output::{Frames, OutputError, SegmentDescription, SegmentationRequest};
use hilum::series::{Series, Slice, Stack, group};
use hilum::volume::Mask;
use output_support::{data, hold, request, series};

const SLICES: usize = 12;

/// A short CT series whose patient and study say what they are told to say, in these bytes.
fn write_series(
    folder: &Path,
    [rows, columns]: [u16; 2],
    character_set: Option<&[u8]>,
    name: &[u8],
    description: &[u8],
) {
    std::fs::create_dir_all(folder).unwrap();
    for slice in 0..SLICES {
        let short = |tag, value: u16| element(tag, "US", &value.to_le_bytes());
        let uid = format!("1.2.826.0.1.3680043.9.1.{slice}");
        let position = format!("-100.5\\-80.25\\{}", -20.0 + 2.5 * slice as f64);
        let mut bytes = meta(EXPLICIT);
        bytes.extend(character_set.map(|set| element((8, 5), "CS", set)).unwrap_or_default());
        let elements = [
            element((8, 0x08), "CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
            element((8, 0x16), "UI", b"1.2.840.10008.5.1.4.1.1.2"),
            element((8, 0x18), "UI", uid.as_bytes()),
            element((8, 0x20), "DA", b"20010203"),
            element((8, 0x23), "DA", b"20010203"),
            element((8, 0x30), "TM", b"101112"),
            element((8, 0x33), "TM", b"101213.5"),
            element((8, 0x50), "SH", b"A1"),
            element((8, 0x60), "CS", b"CT"),
            element((8, 0x70), "LO", b"Phantom Works"),
            element((8, 0x90), "PN", b""),
            element((8, 0x1030), "LO", description),
            element((0x10, 0x10), "PN", name),
            element((0x10, 0x20), "LO", b"P1"),
            element((0x10, 0x21), "LO", b"Ward 7"),
            element((0x10, 0x30), "DA", b""),
            element((0x10, 0x40), "CS", b"O"),
            element((0x10, 0x1010), "AS", b"061Y"),
            element((0x12, 0x62), "CS", b"YES"),
            element((0x12, 0x63), "LO", b"by hand"),
            element((0x18, 0x50), "DS", b"2.5"),
            element((0x20, 0x0D), "UI", b"1.2.826.0.1.3680043.9.2"),
            element((0x20, 0x0E), "UI", b"1.2.826.0.1.3680043.9.3"),
            element((0x20, 0x10), "SH", b"S1"),
            element((0x20, 0x11), "IS", b"4"),
            element((0x20, 0x13), "IS", (slice + 1).to_string().as_bytes()),
            element((0x20, 0x32), "DS", position.as_bytes()),
            element((0x20, 0x37), "DS", b"1\\0\\0\\0\\1\\0"),
            element((0x20, 0x52), "UI", b"1.2.826.0.1.3680043.9.4"),
            element((0x20, 0x1040), "LO", b""),
            short((0x28, 2), 1),
            element((0x28, 4), "CS", b"MONOCHROME2"),
            short((0x28, 0x10), rows),
            short((0x28, 0x11), columns),
            element((0x28, 0x30), "DS", b"0.703125\\0.703125"),
            short((0x28, 0x100), 16),
            short((0x28, 0x101), 16),
            short((0x28, 0x102), 15),
            short((0x28, 0x103), 1),
            element((0x28, 0x1052), "DS", b"0"),
            element((0x28, 0x1053), "DS", b"1"),
            element((0x28, 0x1054), "LO", b"HU"),
            element(
                (0x7FE0, 0x10),
                "OW",
                &vec![0; usize::from(rows) * usize::from(columns) * 2],
            ),
        ];
        bytes.extend(elements.concat());
        std::fs::write(folder.join(format!("{slice:03}.dcm")), bytes).unwrap();
    }
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

#[test]
fn a_matrix_that_does_not_fill_bytes_is_valid_and_exact() {
    let folder = tempfile::tempdir().unwrap();
    let ct = folder.path().join("ct");
    write_series(&ct, [37, 29], Some(b"ISO_IR 100"), b"Odd^Matrix", b"Chest");
    let (series, stack) = series(&ct);
    let mask = balls(&stack);
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
            hold(&build(&request).expect("built"), &request, &ct, &name);
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
