//! The decoder process: whatever happens inside it costs one frame, never the process that asked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ct_file;

use ct_file::{JPEG_LS, data_set, encapsulated, jpeg_ls, jpeg_ls_frame, meta, open, picture};
use hilum::dicom::{DecodeOptions, FrameReader, Instance, PixelError};
use rayon::prelude::*;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn options() -> DecodeOptions {
    DecodeOptions {
        program: Some(env!("CARGO_BIN_EXE_hilum").into()),
        ..DecodeOptions::default()
    }
}

fn read(reader: &FrameReader, instance: &Instance) -> Result<Vec<i32>, PixelError> {
    let mut values = Vec::new();
    reader.read(instance, 0, &mut values).map(|()| values)
}

fn expected(rows: u16, columns: u16) -> Vec<i32> {
    picture(rows, columns).into_iter().map(i32::from).collect()
}

/// A program that is no decoder, as a script that replaces itself.
fn program(folder: &Path, command: &str) -> PathBuf {
    let path = folder.join("program");
    std::fs::write(&path, format!("#!/bin/sh\nexec {command}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The processes started with this memory limit on their command line.
fn decoders_with(memory_bytes: u64) -> usize {
    let argument = memory_bytes.to_string();
    let is_one = |pid: &str| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter(|entry| is_one(&entry.as_ref().unwrap().file_name().to_string_lossy()))
        .count()
}

#[test]
fn signed_values_come_out_of_a_child_and_in_place_alike() {
    let folder = tempfile::tempdir().unwrap();
    let instance = open(folder.path(), &jpeg_ls(40, 30));
    for trust_input in [false, true] {
        let reader = FrameReader::new(DecodeOptions {
            trust_input,
            ..options()
        });
        assert_eq!(read(&reader, &instance).unwrap(), expected(40, 30));
    }
}

#[test]
fn many_threads_share_no_more_decoders_than_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let instances: Vec<_> = (10..60).map(|rows| open(folder.path(), &jpeg_ls(rows, 30))).collect();
    let memory_bytes = (1 << 30) + 4321;
    let reader = FrameReader::new(DecodeOptions {
        workers: 2,
        memory_bytes,
        ..options()
    });
    let threads = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
    threads.install(|| {
        instances
            .par_iter()
            .zip(10u16..60)
            .for_each(|(instance, rows)| assert_eq!(read(&reader, instance).unwrap(), expected(rows, 30)));
    });
    let alive = decoders_with(memory_bytes);
    assert!((1..=2).contains(&alive), "{alive}");
    drop(reader);
    assert_eq!(decoders_with(memory_bytes), 0, "the decoders end with the reader");
}

#[test]
fn a_decoder_that_hangs_is_ended_by_the_clock_and_one_that_loops_by_its_processor_time() {
    let folder = tempfile::tempdir().unwrap();
    let instance = open(folder.path(), &jpeg_ls(40, 30));
    let failing = |command: &str| {
        let reader = FrameReader::new(DecodeOptions {
            program: Some(program(folder.path(), command)),
            seconds_per_frame: 0.2,
            ..options()
        });
        read(&reader, &instance).map(|values| values.len()).unwrap_err()
    };
    // It uses no processor time, so nothing says that the frame is at fault.
    let hung = failing("tail -f /dev/null");
    assert!(matches!(hung, PixelError::DecoderLost { .. }), "{hung}");
    assert!(
        !hung.is_the_inputs_fault() && hung.to_string().contains("within 8 s"),
        "{hung}"
    );
    let looped = failing("sh -c 'ulimit -S -t 1; while :; do :; done'");
    assert!(matches!(looped, PixelError::TimedOut { seconds: 1, .. }), "{looped}");
    assert!(looped.is_the_inputs_fault());
}

#[test]
fn a_decoder_that_is_kept_waiting_longer_than_its_processor_time_answers_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let instance = open(folder.path(), &jpeg_ls(40, 30));
    let late = format!(
        "sh -c 'sleep 3; exec {} \"$@\"' late \"$@\"",
        env!("CARGO_BIN_EXE_hilum")
    );
    let reader = FrameReader::new(DecodeOptions {
        program: Some(program(folder.path(), &late)),
        seconds_per_frame: 0.2,
        ..options()
    });
    assert_eq!(read(&reader, &instance).unwrap(), expected(40, 30));
}

#[test]
fn a_decoder_out_of_memory_costs_its_frame_and_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    // The program itself takes more than this already: the first larger piece of memory that the decoder asks for is refused, and it aborts.
    let instance = open(folder.path(), &jpeg_ls(400, 300));
    let reader = FrameReader::new(DecodeOptions {
        memory_bytes: 1 << 20,
        workers: 1,
        ..options()
    });
    for _ in 0..3 {
        let error = read(&reader, &instance).map(|values| values.len()).unwrap_err();
        assert!(matches!(error, PixelError::DecoderDied { .. }), "{error}");
    }
}

#[test]
fn only_what_a_decoder_does_itself_is_the_inputs_fault() {
    let folder = tempfile::tempdir().unwrap();
    let instance = open(folder.path(), &jpeg_ls(40, 30));
    let failing = |program: PathBuf| {
        let reader = FrameReader::new(DecodeOptions {
            program: Some(program),
            ..options()
        });
        read(&reader, &instance).map(|values| values.len()).unwrap_err()
    };
    // Answers that are none, and the ends of a decoder that aborts, accesses what it must not, or takes too much processor time.
    for command in [
        "cat",
        "yes",
        "kill -ABRT $$",
        "kill -SEGV $$",
        "kill -FPE $$",
        "kill -XCPU $$",
    ] {
        let error = failing(program(folder.path(), command));
        assert!(
            matches!(error, PixelError::DecoderDied { .. } | PixelError::TimedOut { .. }),
            "{command}: {error}"
        );
        assert!(error.is_the_inputs_fault(), "{command}: {error}");
    }
    // The ends that come from outside, as where memory is short, and what ends by itself.
    for command in [
        "kill -KILL $$",
        "kill -TERM $$",
        "kill -HUP $$",
        "kill -BUS $$",
        "true",
        "false",
    ] {
        let error = failing(program(folder.path(), command));
        assert!(matches!(error, PixelError::DecoderLost { .. }), "{command}: {error}");
        assert!(!error.is_the_inputs_fault(), "{command}: {error}");
        assert!(error.to_string().contains("try again"), "{command}: {error}");
    }
    let error = failing(folder.path().join("nothing"));
    assert!(
        matches!(error, PixelError::Io { .. }) && !error.is_the_inputs_fault(),
        "{error}"
    );
}

#[test]
fn a_frame_larger_than_the_decoders_memory_is_the_inputs_fault_and_starts_none() {
    let folder = tempfile::tempdir().unwrap();
    let instance = open(folder.path(), &jpeg_ls(400, 300));
    let reader = FrameReader::new(DecodeOptions {
        program: Some("/nonexistent".into()),
        memory_bytes: 1000,
        ..options()
    });
    let error = read(&reader, &instance).map(|values| values.len()).unwrap_err();
    assert!(
        error.is_the_inputs_fault() && error.to_string().contains("memory"),
        "{error}"
    );
}

#[test]
fn a_jpeg_ls_image_that_breaks_off_is_an_error_at_once_and_a_patched_one_before_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let frame = jpeg_ls_frame(512, 512);
    let reader = FrameReader::new(DecodeOptions {
        seconds_per_frame: 2.0,
        ..options()
    });
    for length in (40..frame.len()).step_by(frame.len() / 6) {
        let cut = &frame[..length];
        let file = |bytes: &[u8]| {
            open(
                folder.path(),
                &[meta(JPEG_LS), data_set(512, 512, true), encapsulated(&[bytes])].concat(),
            )
        };
        let error = read(&reader, &file(cut)).map(|values| values.len()).unwrap_err();
        assert!(error.to_string().contains("breaks off"), "{error}");
        let patched = [cut, &[0xFF, 0xD9]].concat();
        let error = read(&reader, &file(&patched)).map(|values| values.len()).unwrap_err();
        assert!(
            matches!(error, PixelError::Corrupt { .. } | PixelError::TimedOut { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_decoder_ends_when_its_input_does() {
    let run = |input: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["decode-frames", "1073741824", "10"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    let nothing = run(b"");
    assert!(nothing.status.success() && nothing.stdout.is_empty());
    let half = run(&[0xC0, 0xDE, 0x10]);
    assert!(!half.status.success() && half.stdout.is_empty());
    let other = run(&[7; 100]);
    assert!(!other.status.success() && other.stdout.is_empty());
}

#[test]
fn an_image_of_another_size_than_the_header_says_is_refused_before_a_decoder_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = [
        meta(JPEG_LS),
        data_set(40, 31, true),
        encapsulated(&[&jpeg_ls_frame(40, 30)]),
    ]
    .concat();
    let reader = FrameReader::new(DecodeOptions {
        program: Some("/nonexistent".into()),
        ..options()
    });
    let error = read(&reader, &open(folder.path(), &bytes))
        .map(|values| values.len())
        .unwrap_err();
    assert!(error.to_string().contains("30 columns"), "{error}");
}

#[test]
fn a_transfer_syntax_without_a_decoder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (uid, name) in [
        ("1.2.840.10008.1.2.4.51", "JPEG Extended"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.3.4", "unknown"),
    ] {
        let instance = open(
            folder.path(),
            &[meta(uid), data_set(40, 30, true), encapsulated(&[&[0; 8]])].concat(),
        );
        let error = read(&FrameReader::new(options()), &instance)
            .map(|values| values.len())
            .unwrap_err();
        assert!(
            matches!(&error, PixelError::UnsupportedTransferSyntax { name: told, .. } if told.contains(name)),
            "{error}"
        );
        assert!(error.to_string().contains(uid));
    }
}
