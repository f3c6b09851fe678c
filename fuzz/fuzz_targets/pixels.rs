//! Any bytes as the pixel data of a small image in one of the transfer syntaxes -> stored values, or an error.
//!
//! The decoders of other people run in a child, as they do in service: HILUM_DECODER names the program, which fuzz/run.sh sets. Without it they are not started,
//! and what is met is our own code up to there.
#![no_main]

use hilum::dicom::{DecodeOptions, DicomError, FrameReader, Instance, Limits, Source, read_header};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

const SYNTAXES: [&str; 10] = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
];

const CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2";

static HAS_DECODER: LazyLock<bool> = LazyLock::new(|| std::env::var_os("HILUM_DECODER").is_some());

static READER: LazyLock<FrameReader> = LazyLock::new(|| {
    let program = std::env::var_os("HILUM_DECODER").map_or_else(|| PathBuf::from("/nonexistent"), PathBuf::from);
    FrameReader::new(DecodeOptions {
        program: Some(program),
        memory_bytes: 256 << 20,
        // Of processor time, and one second more at most. Six of them, the reads of three frames, stay under the time-out of fuzz/run.sh.
        seconds_per_frame: 1.0,
        workers: 1,
        ..DecodeOptions::default()
    })
});

fn put(out: &mut Vec<u8>, big: bool, tag: (u16, u16), vr: &[u8; 2], value: &[u8]) {
    let short = |number: u16| {
        if big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    };
    out.extend_from_slice(&short(tag.0));
    out.extend_from_slice(&short(tag.1));
    out.extend_from_slice(vr);
    out.extend_from_slice(&short(value.len() as u16));
    out.extend_from_slice(value);
}

/// An image of small size and its pixel data, as a fuzzer writes them: which of [`SYNTAXES`], rows, columns, BitsStored in the lower five bits and HighBit in the
/// upper five, and flags: signed (1), OB (2), BitsAllocated (4, 8), NumberOfFrames (16, 32). The pixel data begin behind the VR, with reserved bytes and length,
/// so that these are played with as well.
fn file([which, rows, columns, bits, flags]: [u8; 5], pixel_data: &[u8]) -> Vec<u8> {
    let uid = SYNTAXES[usize::from(which) % SYNTAXES.len()];
    let big = uid.ends_with("1.2.2");
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    for (element, uid) in [(0x02, CT_IMAGE_STORAGE), (0x10, uid)] {
        let mut padded = uid.as_bytes().to_vec();
        padded.resize(uid.len().next_multiple_of(2), 0);
        put(&mut file, false, (2, element), b"UI", &padded);
    }
    let short = |number: u16| {
        if big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    };
    let frames = flags >> 4 & 3;
    let allocated = [16, 8, 32, 16][usize::from(flags >> 2 & 3)];
    let mut data_set = Vec::new();
    put(&mut data_set, big, (0x28, 8), b"IS", format!("{frames} ").as_bytes());
    for (element, value) in [
        (0x02, 1),
        (0x10, u16::from(rows)),
        (0x11, u16::from(columns)),
        (0x100, allocated),
        (0x101, u16::from(bits & 31)),
        (0x102, u16::from(bits >> 3)),
        (0x103, u16::from(flags & 1)),
    ] {
        put(&mut data_set, big, (0x28, element), b"US", &short(value));
    }
    data_set.extend_from_slice(&short(0x7FE0));
    data_set.extend_from_slice(&short(0x10));
    data_set.extend_from_slice(if flags & 2 == 0 { b"OW" } else { b"OB" });
    data_set.extend_from_slice(pixel_data);
    if uid.ends_with(".99") {
        // Stored blocks (RFC 1951 section 3.2.4): what is inflated is what the fuzzer wrote.
        for (index, block) in data_set.chunks(0xFFFF).enumerate() {
            let last = (index + 1) * 0xFFFF >= data_set.len();
            file.push(u8::from(last));
            file.extend_from_slice(&(block.len() as u16).to_le_bytes());
            file.extend_from_slice(&(!(block.len() as u16)).to_le_bytes());
            file.extend_from_slice(block);
        }
    } else {
        file.extend_from_slice(&data_set);
    }
    file
}

/// The instance in a file of these bytes.
fn instance(bytes: &[u8]) -> Result<Instance, DicomError> {
    let path = std::env::temp_dir().join(format!("hilum-fuzz-pixels-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder can be written");
    let source = Source::of_file(&path).expect("the file was just written");
    read_header(&source, &Limits::default())
}

/// A good image is read with its values, in every native syntax: otherwise the target would go past nothing, and find nothing.
fn read_a_good_one() {
    let stored: Vec<u16> = (0..16).map(|at| 1000 + 37 * at).collect();
    for (which, big) in [(0, false), (1, true), (2, false)] {
        let length = if big { 32u32.to_be_bytes() } else { 32u32.to_le_bytes() };
        let samples = stored
            .iter()
            .flat_map(|value| if big { value.to_be_bytes() } else { value.to_le_bytes() });
        let pixel_data: Vec<u8> = [0, 0].into_iter().chain(length).chain(samples).collect();
        let instance = instance(&file([which, 4, 4, 16, 0], &pixel_data)).expect("a good header");
        let mut values = Vec::new();
        READER.read(&instance, 0, &mut values).expect("a good image");
        assert!(
            values.iter().copied().eq(stored.iter().map(|value| i32::from(*value))),
            "{values:?}"
        );
    }
}

fuzz_target!(init: read_a_good_one(), |bytes: &[u8]| {
    let Some((head, pixel_data)) = bytes.split_first_chunk() else {
        return;
    };
    let Ok(instance) = instance(&file(*head, pixel_data)) else {
        return;
    };
    let [_, rows, columns, ..] = *head;
    let mut values = Vec::new();
    let mut hu = vec![0; usize::from(rows) * usize::from(columns)];
    for frame in 0..instance.header.frames.len() {
        let read = READER.read(&instance, frame, &mut values);
        let fitted = READER.read_i16(&instance, frame, &mut hu, -1024);
        match read {
            Ok(()) => {
                assert_eq!(values.len(), hu.len());
                let expected = || values.iter().map(|value| i64::from(*value) - 1024);
                let whole = expected().all(|value| i16::try_from(value).is_ok());
                assert!(matches!(fitted, Ok(fits) if fits == whole), "{fitted:?} {whole}");
                assert!(!whole || expected().eq(hu.iter().map(|hu| i64::from(*hu))));
            }
            Err(error) => assert!(error.is_the_inputs_fault() || !*HAS_DECODER, "{error}"),
        }
    }
});
