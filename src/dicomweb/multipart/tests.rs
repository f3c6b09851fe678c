//! Bodies as real senders write them, and split at any byte.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

const LIMITS: PartLimits = PartLimits {
    header_bytes: 4096,
    part_bytes: 1 << 20,
    parts: 100,
};

/// What a body says, its data joined.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    parts: Vec<(PartHeaders, Vec<u8>, bool)>,
    ended: bool,
    error: Option<MultipartError>,
}

fn read(boundary: &Boundary, chunks: &[&[u8]], limits: PartLimits) -> Read {
    let mut parser = Parser::new(boundary, limits);
    let mut found = Read {
        parts: Vec::new(),
        ended: false,
        error: None,
    };
    for chunk in chunks {
        parser.push(Bytes::copy_from_slice(chunk));
        loop {
            match parser.next() {
                Ok(None) => break,
                Ok(Some(Event::Part(headers))) => found.parts.push((headers, Vec::new(), false)),
                Ok(Some(Event::Data(data))) => {
                    assert!(!data.is_empty());
                    found.parts.last_mut().unwrap().1.extend_from_slice(&data);
                }
                Ok(Some(Event::PartEnd)) => found.parts.last_mut().unwrap().2 = true,
                Ok(Some(Event::End)) => found.ended = true,
                Err(error) => {
                    found.error = Some(error);
                    return found;
                }
            }
        }
    }
    found.error = parser.finish().err();
    found
}

fn contents(read: &Read) -> Vec<&[u8]> {
    assert_eq!(read.error, None);
    assert!(read.ended && read.parts.iter().all(|part| part.2));
    read.parts.iter().map(|part| &part.1[..]).collect()
}

#[test]
fn boundaries_are_read_quoted_or_not_and_of_73_characters() {
    let long = "0a2b5e3c-4d6f-4a8b-9c0d-1e2f3a4b5c6d-0a2b5e3c-4d6f-4a8b-9c0d-1e2f3a4b5c6d";
    assert_eq!(long.len(), 73);
    for value in [
        format!("multipart/related; type=\"application/dicom\"; boundary={long}"),
        format!("multipart/related; type=application/dicom; boundary=\"{long}\""),
        format!("Multipart/Related;boundary={long};TYPE=\"Application/DICOM\"; transfer-syntax=*"),
        format!("multipart/related; boundary={long}"),
        format!("multipart/related; type=\"application/dicom; transfer-syntax=1.2.840.10008.1.2.1\"; boundary={long}"),
        format!("multipart/related; start; ; type=\"application/dicom\" ; boundary= {long} "),
    ] {
        let boundary = Boundary::of_content_type(&value);
        assert_eq!(boundary, Boundary::new(long), "{value}");
    }
    let escaped = Boundary::of_content_type("multipart/related; boundary=\"a\\\"b c\"");
    assert_eq!(escaped, Boundary::new("a\"b c"));
}

#[test]
fn other_content_types_are_told_apart() {
    type Wanted = fn(&MultipartError) -> bool;
    let none: Wanted = |error| matches!(error, MultipartError::NotMultipart(_));
    let unsupported: Wanted = |error| matches!(error, MultipartError::UnsupportedType(_));
    let without: Wanted = |error| *error == MultipartError::NoBoundary;
    let too_long = format!("multipart/related; boundary={}", "b".repeat(201));
    for (value, wanted) in [
        ("", none),
        ("application/dicom", none),
        ("multipart/form-data; boundary=x", unsupported),
        (
            "multipart/related; type=\"application/dicom+json\"; boundary=x",
            unsupported,
        ),
        ("multipart/related; type=\"application/dicom\"", without),
        ("multipart/related; boundary=", without),
        ("multipart/related; boundary=\"\"", without),
        ("multipart/related; boundary=\"a\rb\"", without),
        (&too_long, without),
    ] {
        let error = Boundary::of_content_type(value).unwrap_err();
        assert!(wanted(&error), "{value}: {error}");
    }
}

#[test]
fn a_body_as_orthanc_sends_it_ends_without_a_line_end() {
    let boundary = Boundary::new("B").unwrap();
    let body = b"--B\r\nContent-Type: application/dicom\r\nContent-Length: 3\r\n\r\nabc\r\n--B\r\nContent-Type: application/dicom\r\n\r\nde\r\n--B--";
    let read = read(&boundary, &[body], LIMITS);
    assert_eq!(contents(&read), [&b"abc"[..], b"de"]);
    assert_eq!(read.parts[0].0.media_type(), "application/dicom");
    assert_eq!(read.parts[0].0.get("content-length"), Some("3"));
}

#[test]
fn preamble_epilogue_padding_and_parts_without_a_head_are_taken() {
    let boundary = Boundary::new("B").unwrap();
    let body = b"hello\r\n--\r\n--B \t\r\n\r\nfirst\r\n--B\r\nA: b;\r\n c\r\n\r\n\r\n--B\r\nA: b\r\n\r\n--B--\r\n--B\r\nepilogue";
    let read = read(&boundary, &[body], LIMITS);
    assert_eq!(contents(&read), [&b"first"[..], b"", b""]);
    assert_eq!(read.parts[1].0.get("a"), Some("b; c"));
}

#[test]
fn content_that_looks_like_a_boundary_stays_content() {
    let boundary = Boundary::new("Boundary").unwrap();
    let content: &[u8] = b"\r\n--Bound\r\r\n\r\n--Boundar\r\n-\r--Boundary\r\n--";
    let body = [b"\r\n--Boundary\r\n\r\n", content, b"\r\n--Boundary--"].concat();
    for chunk in 1..body.len() {
        let chunks: Vec<&[u8]> = body.chunks(chunk).collect();
        assert_eq!(contents(&read(&boundary, &chunks, LIMITS)), [content], "{chunk}");
    }
}

#[test]
fn a_body_without_its_closing_boundary_is_an_error_wherever_it_ends() {
    let boundary = Boundary::new("B").unwrap();
    let body = b"--B\r\nContent-Type: application/dicom\r\n\r\nabc\r\n--B--";
    for end in 0..body.len() {
        assert_eq!(
            read(&boundary, &[&body[..end]], LIMITS).error,
            Some(MultipartError::Unclosed),
            "{end}"
        );
    }
}

#[test]
fn limits_hold_for_heads_parts_and_their_number() {
    let boundary = Boundary::new("B").unwrap();
    let limits = PartLimits {
        header_bytes: 20,
        part_bytes: 5,
        parts: 2,
    };
    let error = |body: &[u8]| read(&boundary, &[body], limits).error;
    assert_eq!(error(b"--B\r\n\r\n12345\r\n--B--"), None);
    assert_eq!(
        error(b"--B\r\n\r\n123456\r\n--B--"),
        Some(MultipartError::PartTooLong { part: 1, limit: 5 })
    );
    assert_eq!(
        error(b"--B\r\n\r\n\r\n--B\r\n\r\n\r\n--B\r\n\r\n\r\n--B--"),
        Some(MultipartError::TooManyParts(2))
    );
    assert_eq!(
        error(b"--B\r\nA: 45678901234567890\r\n\r\n\r\n--B--"),
        None,
        "20 bytes of head"
    );
    let long = format!("--B\r\nA: {}", "x".repeat(100));
    assert_eq!(
        error(long.as_bytes()),
        Some(MultipartError::HeadTooLong { part: 1, limit: 20 })
    );
    assert_eq!(
        error(b"--B\r\nnone\r\n\r\n"),
        Some(MultipartError::BrokenHeader { part: 1 })
    );
    assert_eq!(error(b"--Bx\r\n"), Some(MultipartError::BrokenDelimiter));
}

#[test]
fn data_are_slices_of_the_chunk_that_was_pushed() {
    let boundary = Boundary::new("B").unwrap();
    let mut body = b"--B\r\n\r\n".to_vec();
    body.resize(body.len() + 100_000, 7);
    let chunk = Bytes::from(body);
    let mut parser = Parser::new(&boundary, LIMITS);
    parser.push(chunk.clone());
    assert!(matches!(parser.next(), Ok(Some(Event::Part(_)))));
    let Ok(Some(Event::Data(data))) = parser.next() else {
        panic!("no data");
    };
    assert!(chunk.as_ptr_range().contains(&data.as_ptr()));
    assert_eq!(data.len(), 100_000);
}

#[test]
fn what_the_writer_frames_the_parser_reads() {
    let writer = Writer::new();
    let boundary = Boundary::of_content_type(&writer.content_type()).unwrap();
    let parts: [&[u8]; 3] = [b"abc", b"", b"\r\n--"];
    let body = writer.whole(parts);
    assert_eq!(contents(&read(&boundary, &[&body], LIMITS)), parts);
    let empty = Writer::new();
    let boundary = Boundary::of_content_type(&empty.content_type()).unwrap();
    let body = empty.whole(Vec::<Vec<u8>>::new());
    assert!(contents(&read(&boundary, &[&body], LIMITS)).is_empty());
}

/// Bytes from which boundaries are made, so that near misses are common.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::sample::select(vec![&b"\r\n--BB"[..], b"\r\n--B", b"\r\n", b"\r", b"--BB", b"--", b"\r\n--BB\r\n", b"\r\n\r\n", b"a: b\r\n", b"x"]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn parts_come_back_whatever_the_chunks(
        parts in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'B'), any::<u8>()], 0..200), 0..5),
        cuts in prop::collection::vec(0.0_f64..1.0, 0..12),
    ) {
        let boundary = Boundary::new("BBBB").unwrap();
        prop_assume!(parts.iter().all(|part| memmem::find(part, b"--BBBB").is_none()));
        let mut body = Vec::new();
        for part in &parts {
            body.extend_from_slice(b"\r\n--BBBB\r\nContent-Type: application/dicom\r\n\r\n");
            body.extend_from_slice(part);
        }
        body.extend_from_slice(b"\r\n--BBBB--");
        let found = read(&boundary, &split(&body, &cuts), LIMITS);
        prop_assert_eq!(contents(&found), parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_split_anywhere_give_the_same_events(pieces in prop::collection::vec(piece(), 0..20), cuts in prop::collection::vec(0.0_f64..1.0, 0..12)) {
        let boundary = Boundary::new("BB").unwrap();
        let body = pieces.concat();
        let limits = PartLimits { header_bytes: 30, part_bytes: 64, parts: 3 };
        let whole = read(&boundary, &[&body], limits);
        let mut split = read(&boundary, &split(&body, &cuts), limits);
        if matches!(whole.error, Some(MultipartError::PartTooLong { .. })) {
            // How much of a part that is too long was given before the error depends on the chunks.
            split.parts.last_mut().unwrap().1.clone_from(&whole.parts.last().unwrap().1);
        }
        prop_assert_eq!(&split, &whole);
        let single: Vec<&[u8]> = body.chunks(1).collect();
        let mut single = read(&boundary, &single, limits);
        if matches!(whole.error, Some(MultipartError::PartTooLong { .. })) {
            single.parts.last_mut().unwrap().1.clone_from(&whole.parts.last().unwrap().1);
        }
        prop_assert_eq!(&single, &whole);
    }
}

fn split<'a>(body: &'a [u8], cuts: &[f64]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| (cut * body.len() as f64) as usize).collect();
    at.sort_unstable();
    at.push(body.len());
    let mut from = 0;
    at.iter()
        .map(|to| {
            let chunk = &body[from..*to];
            from = *to;
            chunk
        })
        .collect()
}
