//! Any bytes as a Content-Type and a body in chunks of any length -> the same events as in one chunk, within the limits; and any bytes as a STOW-RS answer.
#![no_main]

use bytes::Bytes;
use hilum::dicomweb::StowAnswer;
use hilum::dicomweb::multipart::{Boundary, Event, MultipartError, Parser, PartLimits};
use libfuzzer_sys::fuzz_target;

const LIMITS: PartLimits = PartLimits {
    header_bytes: 64,
    part_bytes: 512,
    parts: 8,
};

/// What a body says: for each part the length of its content, the bytes, and how it ended.
fn read<'a>(boundary: &Boundary, chunks: impl Iterator<Item = &'a [u8]>) -> (usize, Vec<u8>, Option<MultipartError>) {
    let mut parser = Parser::new(boundary, LIMITS);
    let (mut parts, mut data) = (0, Vec::new());
    for chunk in chunks {
        parser.push(Bytes::copy_from_slice(chunk));
        loop {
            match parser.next() {
                Ok(None) => break,
                Ok(Some(Event::Data(bytes))) => {
                    assert!(!bytes.is_empty() && parts > 0);
                    data.extend_from_slice(&bytes);
                }
                Ok(Some(Event::Part(_))) => parts += 1,
                Ok(Some(Event::PartEnd | Event::End)) => {}
                // How much of a part that is too long came before the error depends on the chunks.
                Err(error) => return (parts, Vec::new(), Some(error)),
            }
        }
    }
    assert!(parts <= LIMITS.parts && data.len() as u64 <= LIMITS.part_bytes * LIMITS.parts as u64);
    (parts, data, parser.finish().err())
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, length, rest @ ..] = bytes else {
        return;
    };
    if *kind == 0 {
        if let Ok(answer) = StowAnswer::parse(rest) {
            assert_eq!(StowAnswer::parse(&answer.to_body()).expect("our own answer is one"), answer);
        }
        return;
    }
    let text = String::from_utf8_lossy(rest);
    let _ = Boundary::of_content_type(&text);
    let _ = Boundary::of_content_type(&format!("multipart/related;{text}"));
    let Ok(boundary) = Boundary::new(if kind % 2 == 0 { "B" } else { "BxB--" }) else {
        unreachable!("both are boundaries");
    };
    let whole = read(&boundary, std::iter::once(rest));
    let split = read(&boundary, rest.chunks(usize::from(*length).max(1)));
    assert_eq!(whole, split);
});
