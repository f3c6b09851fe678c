//! Little-endian samples as they lie in memory -> stored values: the bits above HighBit and below the stored ones are cut off, and the sign is extended
//! (PS3.5 section 8.1.1).

use super::PixelFormat;
use super::codestream::Codestream;

/// Where the stored bits of a sample are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    /// Bytes of a sample: 1, 2 or 4.
    pub(super) width: usize,
    pub(super) bits: u32,
    pub(super) high_bit: u32,
    pub(super) signed: bool,
}

impl Packing {
    /// The packing that a header describes, or why it is none that a CT has.
    pub(super) fn of(format: &PixelFormat) -> Result<Self, String> {
        if format.samples_per_pixel != 1 {
            return Err(format!("{} samples per pixel", format.samples_per_pixel));
        }
        let allocated = u32::from(format.bits_allocated);
        if !matches!(allocated, 8 | 16 | 32) {
            return Err(format!("{allocated} bits allocated"));
        }
        let bits = u32::from(format.bits_stored);
        // An unsigned value of 32 bits is no i32.
        let most = if format.signed { allocated } else { allocated.min(31) };
        if bits == 0 || bits > most {
            return Err(format!("{bits} bits stored of {allocated}"));
        }
        // A high bit that leaves no room for the stored bits means nothing: they are taken as the lowest ones.
        let high_bit = Some(u32::from(format.high_bit)).filter(|high| (bits - 1..allocated).contains(high));
        Ok(Self {
            width: allocated as usize / 8,
            bits,
            high_bit: high_bit.unwrap_or(bits - 1),
            signed: format.signed,
        })
    }

    /// The packing of samples that come out of a decoder: right-aligned and no wider than the codestream says. JPEG-LS cannot tell a sign, and some writers of
    /// JPEG 2000 do not; then the sign is the highest bit of the codestream's precision, as pydicom reads it.
    pub(super) fn decoded(self, codestream: &Codestream) -> Self {
        let precision = u32::from(codestream.precision);
        match codestream.signed {
            Some(signed) if signed != self.signed && precision < self.bits => Self {
                bits: precision.max(1),
                high_bit: precision.max(1) - 1,
                ..self
            },
            _ if precision <= self.bits => Self {
                high_bit: self.bits - 1,
                ..self
            },
            _ => self,
        }
    }

    /// Lowest and highest stored value.
    pub(super) fn range(self) -> (i32, i32) {
        if self.signed {
            (
                (-1i64 << (self.bits - 1)) as i32,
                ((1i64 << (self.bits - 1)) - 1) as i32,
            )
        } else {
            (0, ((1i64 << self.bits) - 1) as i32)
        }
    }

    /// Stored values of all samples.
    pub(super) fn unpack(self, samples: &[u8], out: &mut Vec<i32>) {
        let (up, down) = (31 - self.high_bit, 32 - self.bits);
        let one = |sample: u32| {
            let top = sample << up;
            if self.signed {
                top as i32 >> down
            } else {
                (top >> down) as i32
            }
        };
        out.clear();
        match self.width {
            1 => out.extend(samples.iter().map(|sample| one(u32::from(*sample)))),
            2 => out.extend(samples.chunks_exact(2).map(|pair| match *pair {
                [a, b] => one(u32::from(u16::from_le_bytes([a, b]))),
                _ => 0,
            })),
            _ => out.extend(samples.chunks_exact(4).map(|quad| match *quad {
                [a, b, c, d] => one(u32::from_le_bytes([a, b, c, d])),
                _ => 0,
            })),
        }
    }

    /// Stored values plus `add`, in place, of samples of two bytes; `false` if one does not fit into `i16` (what is in `samples` then means nothing).
    pub(super) fn unpack_in_place(self, samples: &mut [i16], add: i32) -> bool {
        let (up, down) = (15 - self.high_bit, 16 - self.bits);
        let (lowest, highest) = self.range();
        let fits = |value: i32| i16::try_from(value).is_ok();
        let Ok(add) = i16::try_from(add) else {
            return false;
        };
        if highest <= i32::from(i16::MAX) {
            let stored = |sample: i16| {
                let top = (i16::from_le(sample) as u16) << up;
                if self.signed {
                    top as i16 >> down
                } else {
                    (top >> down) as i16
                }
            };
            if fits(lowest + i32::from(add)) && fits(highest + i32::from(add)) {
                samples
                    .iter_mut()
                    .for_each(|sample| *sample = stored(*sample).wrapping_add(add));
                return true;
            }
            // Saturating and wrapping sums differ exactly where a sum does not fit; both are one instruction for eight samples.
            let mut differ = 0i16;
            for sample in samples {
                let value = stored(*sample);
                *sample = value.wrapping_add(add);
                differ |= *sample ^ value.saturating_add(add);
            }
            return differ == 0;
        }
        let mut differ = 0i32;
        for sample in samples {
            let value = i32::from(i16::from_le(*sample) as u16) + i32::from(add);
            *sample = value as i16;
            differ |= i32::from(*sample) ^ value;
        }
        differ == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn format(bits_allocated: u16, bits_stored: u16, high_bit: u16, signed: bool) -> PixelFormat {
        PixelFormat {
            rows: 1,
            columns: 1,
            samples_per_pixel: 1,
            bits_allocated,
            bits_stored,
            high_bit,
            signed,
            ..PixelFormat::default()
        }
    }

    fn unpacked(format: &PixelFormat, samples: &[u8]) -> Vec<i32> {
        let mut out = Vec::new();
        Packing::of(format).unwrap().unpack(samples, &mut out);
        out
    }

    #[test]
    fn junk_around_the_stored_bits_is_cut_off_and_signs_are_extended() {
        assert_eq!(unpacked(&format(16, 12, 11, false), &0xF7FFu16.to_le_bytes()), [0x7FF]);
        assert_eq!(unpacked(&format(16, 12, 11, true), &0x0830u16.to_le_bytes()), [-2000]);
        assert_eq!(unpacked(&format(16, 12, 15, true), &0x830Fu16.to_le_bytes()), [-2000]);
        assert_eq!(unpacked(&format(16, 16, 15, true), &(-1024i16).to_le_bytes()), [-1024]);
        assert_eq!(unpacked(&format(8, 8, 7, false), &[200]), [200]);
        assert_eq!(
            unpacked(&format(32, 32, 31, true), &(-70_000i32).to_le_bytes()),
            [-70_000]
        );
        // A high bit without room for the stored bits.
        assert_eq!(unpacked(&format(16, 12, 0, false), &0xF7FFu16.to_le_bytes()), [0x7FF]);
    }

    #[test]
    fn packings_without_meaning_are_refused() {
        for (allocated, stored) in [(1, 1), (12, 12), (16, 0), (16, 17), (32, 32), (64, 16), (0, 0)] {
            assert!(
                Packing::of(&format(allocated, stored, 0, false)).is_err(),
                "{allocated} {stored}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_fast_way_gives_the_values_of_the_slow_one_or_none(
            values in proptest::collection::vec(any::<i16>(), 1..40), bits in 1u16..=16, spare in 0u16..16, signed: bool, add in -70_000i32..70_000,
        ) {
            let packing = Packing::of(&format(16, bits, (bits - 1 + spare).min(15), signed)).unwrap();
            let mut slow = Vec::new();
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            packing.unpack(&bytes, &mut slow);
            let fit = slow.iter().all(|value| i16::try_from(value + add).is_ok());
            let mut fast = values.clone();
            let done = packing.unpack_in_place(&mut fast, add);
            prop_assert!(!done || fit);
            // An addend that is no i16 itself may be refused; everything else that fits is done.
            prop_assert!(done || !fit || i16::try_from(add).is_err());
            if done {
                let fast: Vec<i32> = fast.into_iter().map(i32::from).collect();
                let slow: Vec<i32> = slow.into_iter().map(|value| value + add).collect();
                prop_assert_eq!(fast, slow);
            }
        }
    }
}
