//! Labels in, the bits of BINARY frames out.
//!
//! PS3.5 8.1.1 and annex D: all frames form one stream of bits, row after row, the first pixel in the least significant bit of the first byte, with no padding
//! between rows or frames; only the whole value is padded, to an even number of bytes.

use rayon::prelude::*;

use super::SegmentDescription;
use super::frames::Frame;
use crate::volume::Mask;

/// Whether a voxel of the slice belongs to one of the labels.
pub(super) fn holds(slice: &[u8], labels: &[u8]) -> bool {
    let words = slice.chunks_exact(8);
    let tail = words.remainder().iter().any(|voxel| labels.contains(voxel));
    tail || words.into_iter().any(|word| eight(word, labels) != 0)
}

/// The length of PixelData in bytes.
pub(super) fn length(frames: usize, frame_size: usize) -> usize {
    (frames * frame_size).div_ceil(8).next_multiple_of(2)
}

/// The value of PixelData behind `front` bytes that are zero, where the caller writes what comes before it.
pub(super) fn pack(mask: &Mask, segments: &[SegmentDescription], frames: &[Frame], front: usize) -> Vec<u8> {
    let size = mask.shape[1] * mask.shape[2];
    // Zeroed by the system: each page is first touched by the thread that fills it.
    let mut bytes = vec![0; front + length(frames.len(), size)];
    // Eight frames fill whole bytes, whatever their size.
    bytes[front..]
        .par_chunks_mut(size)
        .zip(frames.par_chunks(8))
        .for_each(|(bytes, frames)| {
            let mut stream = Stream {
                bytes,
                at: 0,
                pending: 0,
                bits: 0,
            };
            for frame in frames {
                let labels = &segments[frame.segment].mask_labels;
                let slice = &mask.labels[frame.slice * size..][..size];
                stream.push_frame(slice, labels);
            }
            stream.finish();
        });
    bytes
}

/// One bit for each of eight voxels, the first in the least significant.
#[inline]
fn eight(voxels: &[u8], labels: &[u8]) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
    let Ok(voxels) = voxels.try_into() else { return 0 };
    let word = u64::from_le_bytes(voxels);
    let mut equal = 0;
    for label in labels {
        // Bytes that are zero here equal the label; the sum sets the top bit of every byte that is not zero.
        let difference = word ^ (ONES * u64::from(*label));
        equal |= !(((difference & LOW) + LOW) | difference | LOW);
    }
    // Gathers bit 0 of the eight bytes in the top byte: no two partial products of this factor meet.
    (((equal >> 7).wrapping_mul(0x0102_0408_1020_4080)) >> 56) as u32
}

struct Stream<'a> {
    bytes: &'a mut [u8],
    at: usize,
    /// The bits of an unfinished byte, fewer than 8.
    pending: u64,
    bits: u32,
}

impl Stream<'_> {
    fn push_frame(&mut self, slice: &[u8], labels: &[u8]) {
        let background_is_clear = !labels.contains(&0);
        let (blocks, rest) = slice.as_chunks::<64>();
        for block in blocks {
            // Most of a chest CT is background.
            if background_is_clear && block.iter().fold(0, |all, voxel| all | voxel) == 0 {
                self.push_64(0);
                continue;
            }
            let words = block.chunks_exact(8).rev();
            self.push_64(words.fold(0, |bits, word| bits << 8 | u64::from(eight(word, labels))));
        }
        let words = rest.chunks_exact(8);
        let tail = words.remainder();
        words.for_each(|word| self.push(eight(word, labels), 8));
        let last = tail
            .iter()
            .rev()
            .fold(0, |bits, voxel| bits << 1 | u32::from(labels.contains(voxel)));
        self.push(last, tail.len() as u32);
    }

    #[inline]
    fn push_64(&mut self, value: u64) {
        let word = self.pending | value << self.bits;
        self.bytes[self.at..self.at + 8].copy_from_slice(&word.to_le_bytes());
        self.at += 8;
        // Two steps, since a shift by 64 has no meaning.
        self.pending = value >> 1 >> (63 - self.bits);
    }

    /// At most 8 bits.
    #[inline]
    fn push(&mut self, value: u32, count: u32) {
        self.pending |= u64::from(value) << self.bits;
        self.bits += count;
        if self.bits >= 8 {
            self.bytes[self.at] = self.pending as u8;
            self.at += 1;
            self.pending >>= 8;
            self.bits -= 8;
        }
    }

    fn finish(self) {
        if self.bits > 0 {
            self.bytes[self.at] = self.pending as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(labels: &[u8]) -> SegmentDescription {
        SegmentDescription {
            mask_labels: labels.to_vec(),
            ..SegmentDescription::lung(1)
        }
    }

    proptest! {
        #[test]
        fn every_bit_stands_where_the_standard_puts_it(
            (slices, rows, columns) in (1usize..20, 1usize..12, 1usize..30),
            seed in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0u8..3], 1..500),
            clear in 0usize..300,
        ) {
            let mut labels: Vec<u8> = seed.iter().copied().cycle().take(slices * rows * columns).collect();
            let last = labels.len().min(clear);
            labels[..last].fill(0);
            let mask = Mask { shape: [slices, rows, columns], labels };
            let segments = [segment(&[1]), segment(&[2]), segment(&[1, 2])];
            let frames: Vec<Frame> = (0..3).flat_map(|segment| (0..slices).map(move |slice| Frame { segment, slice })).collect();
            let size = rows * columns;
            let file = pack(&mask, &segments, &frames, 5);
            let (front, bytes) = file.split_at(5);
            prop_assert_eq!(front, [0; 5]);
            prop_assert_eq!(bytes.len(), length(frames.len(), size));
            prop_assert_eq!(bytes.len() % 2, 0);
            for (number, frame) in frames.iter().enumerate() {
                for pixel in 0..size {
                    let bit = number * size + pixel;
                    let expected = segments[frame.segment].mask_labels.contains(&mask.labels[frame.slice * size + pixel]);
                    prop_assert_eq!(bytes[bit / 8] >> (bit % 8) & 1 == 1, expected, "frame {} pixel {}", number, pixel);
                }
                let slice = &mask.labels[frame.slice * size..][..size];
                let labels = &segments[frame.segment].mask_labels;
                prop_assert_eq!(holds(slice, labels), slice.iter().any(|voxel| labels.contains(voxel)));
            }
            let used = frames.len() * size;
            prop_assert!((used..bytes.len() * 8).all(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 0), "padding is not zero");
        }
    }
}
