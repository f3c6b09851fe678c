//! RLE Lossless (PS3.5 annex G) -> samples. The scheme is small enough to be decoded here, in bounded time and without a panic, whatever the bytes say.

/// Decodes one frame of grey samples of `width` bytes each (1, 2 or 4) into little-endian samples: `samples.len()` is the frame's size in bytes.
pub(super) fn decode(encoded: &[u8], width: usize, samples: &mut [u8]) -> Result<(), String> {
    let word = |index: usize| -> Option<usize> {
        let bytes = encoded.get(index * 4..index * 4 + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let count = word(0).ok_or("the RLE header breaks off")?;
    if count != width {
        return Err(format!("{count} RLE segments for samples of {width} bytes"));
    }
    for segment in 0..count {
        let start = word(segment + 1).ok_or("the RLE header breaks off")?;
        let end = if segment + 1 < count {
            word(segment + 2).ok_or("the RLE header breaks off")?
        } else {
            encoded.len()
        };
        let bytes = encoded.get(start..end).ok_or("an RLE segment lies outside the data")?;
        // Segments run from the most significant byte to the least.
        unpack(bytes, samples.iter_mut().skip(width - 1 - segment).step_by(width))?;
    }
    Ok(())
}

/// PackBits (PS3.5 G.3.1): fills every byte of `out`, or says how many are missing.
fn unpack<'a>(bytes: &[u8], mut out: impl ExactSizeIterator<Item = &'a mut u8>) -> Result<(), String> {
    let mut rest = bytes;
    while let Some((&control, after)) = rest.split_first() {
        if out.len() == 0 {
            return Ok(());
        }
        let control = i16::from(control as i8);
        if control >= 0 {
            let length = control as usize + 1;
            let literal = after.get(..length.min(after.len())).unwrap_or_default();
            literal.iter().zip(out.by_ref()).for_each(|(byte, out)| *out = *byte);
            rest = after.get(length..).unwrap_or_default();
        } else if control != -128 {
            let Some((&byte, after)) = after.split_first() else {
                break;
            };
            out.by_ref().take((1 - control) as usize).for_each(|out| *out = byte);
            rest = after;
        } else {
            rest = after;
        }
    }
    match out.len() {
        0 => Ok(()),
        missing => Err(format!("an RLE segment ends {missing} samples too early")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0u8; 64];
        bytes[0] = segments.len() as u8;
        for (index, segment) in segments.iter().enumerate() {
            let at = (bytes.len() as u32).to_le_bytes();
            bytes[4 + index * 4..8 + index * 4].copy_from_slice(&at);
            bytes.extend_from_slice(segment);
        }
        bytes
    }

    #[test]
    fn runs_literals_and_no_operations_become_little_endian_samples() {
        // High bytes: five times 1. Low bytes: 10, 11, nothing, three times 12.
        let bytes = frame(&[&[0xFC, 1], &[1, 10, 11, 0x80, 0xFE, 12]]);
        let mut samples = [0u8; 10];
        decode(&bytes, 2, &mut samples).unwrap();
        assert_eq!(samples, [10, 1, 11, 1, 12, 1, 12, 1, 12, 1]);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = frame(&[&[0xFC, 1], &[4, 10, 11, 12, 13, 14]]);
        let mut samples = [0u8; 10];
        decode(&bytes, 2, &mut samples).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], 2, &mut samples).is_err(), "{length}");
        }
    }

    #[test]
    fn segments_outside_the_data_or_in_the_wrong_order_are_errors() {
        let mut bytes = frame(&[&[0xFC, 1], &[0xFC, 2]]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(&bytes, 2, &mut [0; 10]).is_err());
        bytes[4..8].copy_from_slice(&67u32.to_le_bytes());
        assert!(decode(&bytes, 2, &mut [0; 10]).is_err());
        assert!(decode(&frame(&[&[0xFC, 1]]), 2, &mut [0; 10]).is_err());
    }
}
