//! Any bytes as the pixel data of a small image in one of the transfer syntaxes -> stored values, or an error.
//!
//! The decoders of other people run in a child, as they do in service: HILUM_DECODER names the program, which fuzz/run.sh sets. Without it they are not started,
//! and what is met is our own code up to there.
#![no_main]

use hilum::dicom::{DecodeOptions, FrameReader, Limits, Source, read_header};
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

static READER: LazyLock<FrameReader> = LazyLock::new(|| {
    let program = std::env::var_os("HILUM_DECODER").map_or_else(|| PathBuf::from("/nonexistent"), PathBuf::from);
    FrameReader::new(DecodeOptions {
        program: Some(program),
        memory_bytes: 256 << 20,
        seconds_per_frame: 5.0,
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

fuzz_target!(|bytes: &[u8]| {
    let [which, rows, columns, bits, flags, rest @ ..] = bytes else {
        return;
    };
    let uid = SYNTAXES[usize::from(*which) % SYNTAXES.len()];
    let big = uid.ends_with("1.2.2");
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    let mut padded = uid.as_bytes().to_vec();
    padded.resize(uid.len().next_multiple_of(2), 0);
    put(&mut file, false, (2, 0x10), b"UI", &padded);
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
        (0x10, u16::from(*rows)),
        (0x11, u16::from(*columns)),
        (0x100, allocated),
        (0x101, u16::from(bits & 31)),
        (0x102, u16::from(bits >> 3)),
        (0x103, u16::from(flags & 1)),
    ] {
        put(&mut data_set, big, (0x28, element), b"US", &short(value));
    }
    data_set.extend_from_slice(&short(0x7FE0));
    data_set.extend_from_slice(&short(0x10));
    // The bytes go on with reserved bytes and length, so that these are played with as well.
    data_set.extend_from_slice(if flags & 2 == 0 { b"OW" } else { b"OB" });
    data_set.extend_from_slice(rest);
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
    let path = std::env::temp_dir().join(format!("hilum-fuzz-pixels-{}", std::process::id()));
    std::fs::write(&path, &file).expect("the temporary folder can be written");
    let source = Source::of_file(&path).expect("the file was just written");
    let Ok(instance) = read_header(&source, &Limits::default()) else {
        return;
    };
    let mut values = Vec::new();
    let mut hu = vec![0; usize::from(*rows) * usize::from(*columns)];
    for frame in 0..instance.header.frames.len() {
        let read = READER.read(&instance, frame, &mut values);
        let fitted = READER.read_i16(&instance, frame, &mut hu, -1024);
        if let Ok(()) = read {
            assert_eq!(values.len(), hu.len());
            let whole = values.iter().all(|value| i16::try_from(value - 1024).is_ok());
            assert!(matches!(fitted, Ok(fits) if fits == whole), "{fitted:?} {whole}");
            assert!(
                !whole
                    || values
                        .iter()
                        .zip(&hu)
                        .all(|(stored, hu)| stored - 1024 == i32::from(*hu))
            );
        }
    }
});
