//! Bytes that nobody meant well with: an error, bounded memory, no panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod ct_file;

use ct_file::*;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use hilum::dicom::{
    DecodeOptions, DicomError, FrameReader, Instance, Limits, PixelError, Source, discover, read_header,
};
use proptest::prelude::*;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Frames that only other people's programs write (goldens/read_reference.py): `picture(20, 30)` plus 1000, without loss; and two lossy images.
const LOSSLESS: [(&str, &[u8]); 5] = [
    ("jpeg_lossless_57", include_bytes!("goldens/jpeg_lossless_57.dcm")),
    ("jpeg_lossless_70", include_bytes!("goldens/jpeg_lossless_70.dcm")),
    ("jpeg_2000", include_bytes!("goldens/jpeg_2000.dcm")),
    ("htj2k", include_bytes!("goldens/htj2k.dcm")),
    ("htj2k_rpcl", include_bytes!("goldens/htj2k_rpcl.dcm")),
];
const LOSSY: [(&str, &[u8]); 2] = [
    ("jpeg_baseline", include_bytes!("goldens/jpeg_baseline.dcm")),
    ("htj2k_lossy", include_bytes!("goldens/htj2k_lossy.dcm")),
];

/// What all tests here together may take at their peak.
const MOST_RESIDENT_KIB: u64 = 600 << 10;

fn reader() -> FrameReader {
    FrameReader::new(DecodeOptions {
        program: Some(env!("CARGO_BIN_EXE_hilum").into()),
        seconds_per_frame: 5.0,
        ..DecodeOptions::default()
    })
}

fn header_of(path: &Path, bytes: &[u8]) -> Result<Instance, DicomError> {
    read_header(&written(path, bytes), &Limits::default())
}

/// Whether header and first frame can be read.
fn is_read(reader: &FrameReader, source: &Source) -> bool {
    let Ok(instance) = read_header(source, &Limits::default()) else {
        return false;
    };
    let mut values = Vec::new();
    reader.read(&instance, 0, &mut values).is_ok()
}

/// As if the file ended after `length` bytes.
fn cut(source: &Source, length: usize) -> Source {
    Source {
        length: length as u64,
        ..source.clone()
    }
}

fn written(path: &Path, bytes: &[u8]) -> Source {
    std::fs::write(path, bytes).unwrap();
    Source::of_file(path).unwrap()
}

fn assert_memory_stayed_bounded() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < MOST_RESIDENT_KIB, "{kib} KiB");
}

fn deflated(inflated: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(meta(DEFLATED), Compression::fast());
    encoder.write_all(inflated).unwrap();
    encoder.finish().unwrap()
}

fn rle_frame(rows: u16, columns: u16) -> Vec<u8> {
    let samples = picture(rows, columns);
    let mut frame = vec![0u8; 64];
    frame[0] = 2;
    for (segment, shift) in [(0, 8), (1, 0)] {
        let at = (frame.len() as u32).to_le_bytes();
        frame[4 + segment * 4..8 + segment * 4].copy_from_slice(&at);
        for run in samples.chunks(100) {
            frame.push(run.len() as u8 - 1);
            frame.extend(run.iter().map(|sample| (sample >> shift) as u8));
        }
    }
    frame
}

/// One small file of each kind.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let others = LOSSLESS.into_iter().chain(LOSSY);
    let others = others.map(|(name, bytes)| (name, bytes.to_vec()));
    written_here().into_iter().chain(others).collect()
}

/// Those whose frames are written here, each with `picture(20, 30)`.
fn written_here() -> Vec<(&'static str, Vec<u8>)> {
    let pixels = element((0x7FE0, 0x10), "OW", &little_endian(&picture(20, 30)));
    let nested = {
        let inner = [
            item(0xE000, u32::MAX),
            element((8, 0x100), "SH", b"113100"),
            item(0xE00D, 0),
        ]
        .concat();
        [header((0x12, 0x64), "SQ", u32::MAX), inner, item(0xE0DD, 0)].concat()
    };
    let data_set = data_set(20, 30, true);
    let split = data_set
        .windows(4)
        .position(|window| window == [0x20, 0, 0x0D, 0])
        .unwrap();
    let with_sequence = [&data_set[..split], &nested, &data_set[split..]].concat();
    vec![
        ("native", native(20, 30)),
        (
            "sequence",
            [meta(EXPLICIT), with_sequence.clone(), pixels.clone()].concat(),
        ),
        ("headless", [with_sequence.clone(), pixels.clone()].concat()),
        ("deflated", deflated(&[with_sequence, pixels].concat())),
        (
            "rle",
            [meta(RLE), data_set.clone(), encapsulated(&[&rle_frame(20, 30)])].concat(),
        ),
        ("jpeg_ls", jpeg_ls(20, 30)),
    ]
}

#[test]
fn the_small_files_are_good_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let reader = reader();
    let read = |name: &str, bytes: &[u8]| {
        let instance = open(folder.path(), bytes);
        let mut values = Vec::new();
        reader
            .read(&instance, 0, &mut values)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        values
    };
    let expected: Vec<i32> = picture(20, 30).into_iter().map(i32::from).collect();
    for (name, bytes) in written_here() {
        assert_eq!(read(name, &bytes), expected, "{name}");
    }
    let raised: Vec<i32> = expected.iter().map(|value| value + 1000).collect();
    for (name, bytes) in LOSSLESS {
        assert_eq!(read(name, bytes), raised, "{name}");
    }
    // Their values are compared in reading.rs.
    assert_eq!(LOSSY.map(|(name, bytes)| read(name, bytes).len()), [64 * 48, 20 * 30]);
}

#[test]
fn a_small_file_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.dcm");
    let reader = reader();
    for (name, bytes) in files() {
        let whole = written(&path, &bytes);
        // The last item may lack its delimiter, and a deflated stream its end.
        for length in 0..bytes.len() - 20 {
            assert!(
                !is_read(&reader, &cut(&whole, length)),
                "{name} cut to {length} of {}",
                bytes.len()
            );
        }
        // Really cut, while the caller still believes in the old length.
        let instance = read_header(&whole, &Limits::default()).unwrap();
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(bytes.len() as u64 - 200)
            .unwrap();
        assert!(!is_read(&reader, &whole), "{name}");
        assert!(reader.read(&instance, 0, &mut Vec::new()).is_err(), "{name}");
    }
    assert_memory_stayed_bounded();
}

#[test]
fn a_real_file_cut_at_every_97th_byte_is_an_error() {
    let Some(data) = std::env::var_os("HILUM_TEST_DATA") else {
        assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_DATA is not set");
        eprintln!("skipped: HILUM_TEST_DATA is not set, so there are no files to cut");
        return;
    };
    let reader = reader();
    let odd = Path::new(&data).join("odd");
    let found = discover(
        &[
            odd.join("transfer_syntaxes"),
            odd.join("enhanced_multiframe_ct"),
            odd.join("localizer_philips"),
        ],
        &Limits::default(),
    )
    .unwrap();
    for instance in found.instances {
        let whole = &instance.source;
        let first_frame = whole.length as usize / instance.header.frames.len();
        for length in (0..first_frame - 20).step_by(97) {
            assert!(
                !is_read(&reader, &cut(whole, length)),
                "{} cut to {length}",
                whole.path.display()
            );
        }
    }
    assert_memory_stayed_bounded();
}

#[test]
fn sizes_without_bounds_are_refused_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.dcm");
    let replaced = |tag: (u16, u16), by: Vec<u8>| {
        let bytes = native(20, 30);
        let pattern = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
        let at = bytes.windows(4).position(|window| window == pattern).unwrap();
        [&bytes[..at], &by, &bytes[at + 10..]].concat()
    };
    let rows = replaced((0x28, 0x10), element((0x28, 0x10), "UL", &(1u32 << 31).to_le_bytes()));
    assert!(matches!(header_of(&path, &rows), Err(DicomError::OverLimit { .. })));
    let bytes = [
        meta(EXPLICIT),
        data_set(u16::MAX, u16::MAX, true),
        header((0x7FE0, 0x10), "OW", HUGE),
    ]
    .concat();
    assert!(matches!(header_of(&path, &bytes), Err(DicomError::OverLimit { .. })));
    let frames = [
        meta(EXPLICIT),
        element((0x28, 8), "IS", b"2147483647"),
        data_set(16, 16, true),
        header((0x7FE0, 0x10), "OW", HUGE),
    ]
    .concat();
    assert!(matches!(header_of(&path, &frames), Err(DicomError::OverLimit { .. })));
    // A size that is allowed and not there.
    let absent = [
        meta(EXPLICIT),
        data_set(8000, 8000, true),
        header((0x7FE0, 0x10), "OW", HUGE),
    ]
    .concat();
    let instance = header_of(&path, &absent).unwrap();
    let error = reader().read(&instance, 0, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, PixelError::Corrupt { .. }), "{error}");
    assert_memory_stayed_bounded();
}

#[test]
fn declared_lengths_beyond_the_file_are_refused_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("length.dcm");
    let data = data_set(20, 30, true);
    let mut in_header = headers_that_lie();
    in_header.push(deflated(&[header((8, 1), "UN", HUGE), data.clone()].concat()));
    for (index, bytes) in in_header.iter().enumerate() {
        let result = header_of(&path, bytes);
        assert!(
            matches!(result, Err(DicomError::Damaged { .. } | DicomError::OverLimit { .. })),
            "{index}: {result:?}"
        );
    }
    let sequence = header((0x7FE0, 0x10), "OB", u32::MAX);
    let in_pixels = [
        [item(0xE000, HUGE)].concat(),
        [item(0xE000, 0), item(0xE000, HUGE)].concat(),
        [item(0xE000, 0), item(0xE0DD, 0)].concat(),
        [item(0xE000, 4)].concat(),
        [item(0xE000, 0), item(0xE000, 2)].concat(),
        vec![],
    ];
    for (index, items) in in_pixels.iter().enumerate() {
        for syntax in [RLE, JPEG_LS] {
            let bytes = [meta(syntax), data.clone(), sequence.clone(), items.clone()].concat();
            let instance = header_of(&path, &bytes).unwrap();
            let error = reader().read(&instance, 0, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, PixelError::Corrupt { .. }), "{index}: {error}");
        }
    }
    assert_memory_stayed_bounded();
}

#[test]
fn thousands_of_nested_sequences_are_refused_with_and_without_lengths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nested.dcm");
    let depth = 100_000;
    let undefined: Vec<u8> = (0..depth)
        .flat_map(|_| [header((8, 0x1110), "SQ", u32::MAX), item(0xE000, u32::MAX)].concat())
        .collect();
    let result = header_of(&path, &[meta(EXPLICIT), undefined].concat());
    assert!(matches!(result, Err(DicomError::OverLimit { .. })), "{result:?}");
    // From the outside in, each with its true length; the tag is one whose items are copied.
    let bytes: Vec<u8> = (0..depth)
        .rev()
        .flat_map(|level| [header((0x12, 0x64), "SQ", level * 20 + 8), item(0xE000, level * 20)].concat())
        .collect();
    let result = header_of(&path, &[meta(EXPLICIT), bytes].concat());
    assert!(matches!(result, Err(DicomError::OverLimit { .. })), "{result:?}");
    assert_memory_stayed_bounded();
}

#[test]
fn a_corrupt_deflated_stream_is_a_damaged_instance_and_no_fault_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corrupt.dcm");
    let begin = meta(DEFLATED).len();
    // The reserved kind of block, and one that refers to what never was.
    for start in [0xFF, 0x03] {
        let mut bytes = deflated(&data_set(512, 512, true));
        bytes[begin] = start;
        bytes[begin + 1..begin + 9].fill(0xFF);
        let error = header_of(&path, &bytes).unwrap_err();
        assert!(!matches!(error, DicomError::Io { .. }), "{error}");
    }
    let mut reserved = meta(DEFLATED);
    reserved.extend([0xFF; 64]);
    let error = header_of(&path, &reserved).unwrap_err();
    assert!(
        error.to_string().contains("the deflated data set is corrupt"),
        "{error}"
    );
}

#[test]
fn what_is_broken_in_one_frame_is_not_looked_for_again_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.dcm");
    let frames = 50;
    // Noise, which hardly shrinks.
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(frames * 64 * 64 * 2)
    .collect();
    let whole = [
        element_of_frames(frames),
        data_set(64, 64, true),
        element((0x7FE0, 0x10), "OW", &noise),
    ]
    .concat();
    let whole = deflated(&whole);
    let mut broken = whole.clone();
    let late = broken.len() - 2000;
    broken[late..].fill(0xFF);
    let instance = header_of(&path, &broken).unwrap();
    let once = reader();
    let read = |reader: &FrameReader, frame| reader.read(&instance, frame, &mut Vec::new());
    assert!(matches!(read(&once, 0).unwrap_err(), PixelError::Corrupt { .. }));
    // Whoever looked again would find it good.
    std::fs::write(&path, &whole).unwrap();
    assert!(matches!(read(&once, 1).unwrap_err(), PixelError::Corrupt { .. }));
    read(&reader(), 1).unwrap();
}

#[test]
fn deflate_bombs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.dcm");
    let mut encoder = DeflateEncoder::new(meta(DEFLATED), Compression::fast());
    for _ in 0..200 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let zeros = encoder.finish().unwrap();
    assert!(matches!(header_of(&path, &zeros), Err(DicomError::OverLimit { .. })));
    // Inside an element that says how long it is.
    let mut encoder = DeflateEncoder::new(meta(DEFLATED), Compression::fast());
    encoder.write_all(&header((8, 1), "UN", 200 << 20)).unwrap();
    for _ in 0..200 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let element = encoder.finish().unwrap();
    assert!(matches!(header_of(&path, &element), Err(DicomError::OverLimit { .. })));
    // As the pixels of many frames.
    let mut encoder = DeflateEncoder::new(meta(DEFLATED), Compression::fast());
    encoder.write_all(&element_of_frames(60_000)).unwrap();
    encoder.write_all(&data_set(512, 512, true)).unwrap();
    encoder.write_all(&header((0x7FE0, 0x10), "OW", HUGE)).unwrap();
    for _ in 0..200 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let instance = header_of(&path, &encoder.finish().unwrap()).unwrap();
    let error = reader().read(&instance, 500, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, PixelError::Corrupt { .. }), "{error}");
    assert_memory_stayed_bounded();
}

fn element_of_frames(count: usize) -> Vec<u8> {
    element((8, 0x16), "UI", b"1.2")
        .into_iter()
        .chain(element((0x28, 8), "IS", count.to_string().as_bytes()))
        .collect()
}

#[test]
fn a_pipe_in_a_folder_does_not_stop_the_search() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let found = discover(&[folder.path().to_owned()], &Limits::default()).unwrap();
    assert_eq!(
        found.skipped.first().map(|skipped| skipped.why.as_str()),
        Some("not a regular file")
    );
    let found = discover(&[pipe], &Limits::default()).unwrap();
    assert_eq!(found.skipped.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_are_read_or_refused(which in 0..files().len(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let folder = tempfile::tempdir().unwrap();
        let (_, mut bytes) = files().swap_remove(which);
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        is_read(&reader(), &written(&folder.path().join("changed.dcm"), &bytes));
        assert_memory_stayed_bounded();
    }

    #[test]
    fn random_bytes_behind_a_preamble_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600), syntax in prop::sample::select(vec![IMPLICIT, EXPLICIT, DEFLATED, "1.2.840.10008.1.2.2"])) {
        let folder = tempfile::tempdir().unwrap();
        is_read(&reader(), &written(&folder.path().join("random.dcm"), &[meta(syntax), bytes].concat()));
    }
}
