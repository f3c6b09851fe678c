//! What a compressed image says of itself: its size is compared with the header before a decoder may allocate for it.

/// The frame header of a JPEG, JPEG-LS or JPEG 2000 codestream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codestream {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) components: u16,
    /// Bits of a sample.
    pub(super) precision: u16,
    /// JPEG 2000 says whether samples are signed, JPEG-LS has unsigned ones only; `None` for JPEG, where nobody asks.
    pub(super) signed: Option<bool>,
}

/// The start of image of JPEG and JPEG-LS, and of JPEG 2000.
const JPEG_START: [u8; 2] = [0xFF, 0xD8];
const J2K_START: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];
/// End of image (JPEG, JPEG-LS) and end of codestream (JPEG 2000) are the same two bytes, which entropy-coded data never contain.
const END: [u8; 2] = [0xFF, 0xD9];

/// Whether a fragment begins an image rather than going on with one.
pub(super) fn begins_image(bytes: &[u8]) -> bool {
    bytes.starts_with(&JPEG_START)
        || bytes.starts_with(&J2K_START[..2])
        || bytes.starts_with(&[0, 0, 0, 12, b'j', b'P'])
}

/// Whether the codestream has its end marker. Decoders fill up what is missing in silence, or search for it for seconds.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    bytes.windows(2).rev().any(|pair| pair == END)
}

/// Reads the frame header.
pub(super) fn describe(bytes: &[u8]) -> Result<Codestream, String> {
    if bytes.starts_with(&JPEG_START) {
        return jpeg(bytes).ok_or_else(|| "no frame header in the JPEG data".to_owned());
    }
    // Some writers put the codestream into a JP2 file, with boxes in front.
    let at = bytes.windows(4).take(4096).position(|window| window == J2K_START);
    let j2k = at.and_then(|at| bytes.get(at..)).and_then(jpeg_2000);
    j2k.ok_or_else(|| "no image begins in the compressed data".to_owned())
}

/// ITU-T T.81 B.2.2 (start of frame), T.87 C.2.2 (JPEG-LS: FFF7).
fn jpeg(bytes: &[u8]) -> Option<Codestream> {
    let mut at = 2;
    loop {
        let marker = *bytes.get(at + 1)?;
        if *bytes.get(at)? != 0xFF {
            return None;
        }
        match marker {
            // Fill bytes.
            0xFF => at += 1,
            // Markers without a segment.
            0x01 | 0xD0..=0xD8 => at += 2,
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7 => {
                return Some(Codestream {
                    precision: u16::from(*bytes.get(at + 4)?),
                    rows: u32::from(big_u16(bytes, at + 5)?),
                    columns: u32::from(big_u16(bytes, at + 7)?),
                    components: u16::from(*bytes.get(at + 9)?),
                    signed: (marker == 0xF7).then_some(false),
                });
            }
            // The scan or the end before any frame header.
            0xDA | 0xD9 => return None,
            _ => at += 2 + usize::from(big_u16(bytes, at + 2)?),
        }
    }
}

/// ITU-T T.800 A.5.1 (SIZ). Component registrations other than full resolution are no CT.
fn jpeg_2000(bytes: &[u8]) -> Option<Codestream> {
    let (width, height) = (big_u32(bytes, 8)?, big_u32(bytes, 12)?);
    let (left, top) = (big_u32(bytes, 16)?, big_u32(bytes, 20)?);
    let kind = *bytes.get(42)?;
    if *bytes.get(43)? != 1 || *bytes.get(44)? != 1 {
        return None;
    }
    Some(Codestream {
        rows: height.checked_sub(top)?,
        columns: width.checked_sub(left)?,
        components: big_u16(bytes, 40)?,
        precision: u16::from(kind & 0x7F) + 1,
        signed: Some(kind & 0x80 != 0),
    })
}

fn big_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn big_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_frame_header_is_found_behind_other_segments() {
        let bytes = [
            0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xFF, 0xC3, 0, 11, 12, 2, 0, 1, 0x80, 1, 1, 0x11, 0,
        ];
        let expected = Codestream {
            rows: 512,
            columns: 384,
            components: 1,
            precision: 12,
            signed: None,
        };
        assert_eq!(describe(&bytes).unwrap(), expected);
        assert!(!is_whole(&bytes));
    }

    #[test]
    fn every_truncation_of_a_frame_header_is_an_error() {
        let jpeg = [0xFF, 0xD8, 0xFF, 0xC3, 0, 11, 12, 2, 0, 1, 0x80, 1, 1, 0x11, 0];
        for length in 0..12 {
            assert!(describe(&jpeg[..length]).is_err(), "{length}");
        }
        let mut j2k = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41];
        j2k.resize(60, 0);
        for length in 0..45 {
            assert!(describe(&j2k[..length]).is_err(), "{length}");
        }
    }
}
