//! Bytes in, one raw deflate stream (RFC 1951) out, compressed on all cores.
//!
//! The input is cut into pieces, each is compressed on its own up to a byte boundary (an empty stored block, as `pigz` does it), and the pieces are put together:
//! one ordinary stream for every reader. The same bytes in give the same bytes out, however many cores there are.

use flate2::{Compress, CompressError, Compression, Crc, FlushCompress, Status};
use rayon::prelude::*;

/// Masks are long runs of few values.
pub(super) const LEVEL: u32 = 4;

/// Large enough that the pieces cost nothing in size, small enough to fill the cores.
pub(super) const PIECE: usize = 1 << 20;

/// A finished stream, and the checksum of what went in.
pub(super) struct Deflated {
    pub(super) bytes: Vec<u8>,
    pub(super) crc32: u32,
}

/// Compresses `data` as one stream.
pub(super) fn whole(data: &[u8], level: u32) -> Result<Deflated, CompressError> {
    let count = data.len().div_ceil(PIECE).max(1);
    pieces(count, level, |piece, buffer| {
        buffer.extend_from_slice(&data[piece * PIECE..data.len().min((piece + 1) * PIECE)])
    })
}

/// Compresses what `fill` appends for the pieces 0 to `count` as one stream, so that no second copy of all of it is needed.
pub(super) fn pieces(
    count: usize,
    level: u32,
    fill: impl Fn(usize, &mut Vec<u8>) + Sync,
) -> Result<Deflated, CompressError> {
    let pieces: Vec<(Vec<u8>, Crc)> = (0..count)
        .into_par_iter()
        .map_init(
            || {
                (
                    Vec::with_capacity(PIECE + 1024),
                    Compress::new(Compression::new(level), false),
                )
            },
            |(buffer, compressor), index| {
                buffer.clear();
                fill(index, buffer);
                let mut crc = Crc::new();
                crc.update(buffer);
                compressor.reset();
                Ok((compress(compressor, buffer, index + 1 == count)?, crc))
            },
        )
        .collect::<Result<_, CompressError>>()?;
    let mut bytes = Vec::with_capacity(pieces.iter().map(|(piece, _)| piece.len()).sum::<usize>() + 64);
    let mut crc = Crc::new();
    for (piece, checksum) in pieces {
        bytes.extend(piece);
        crc.combine(&checksum);
    }
    Ok(Deflated {
        bytes,
        crc32: crc.sum(),
    })
}

fn compress(compressor: &mut Compress, piece: &[u8], last: bool) -> Result<Vec<u8>, CompressError> {
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut out = Vec::with_capacity(piece.len() / 8 + 1024);
    loop {
        let taken = compressor.total_in() as usize;
        let status = compressor.compress_vec(&piece[taken..], &mut out, flush)?;
        let all_in = compressor.total_in() as usize == piece.len();
        // A flush is complete when it left room in the output.
        if status == Status::StreamEnd || (!last && all_in && out.len() < out.capacity()) {
            return Ok(out);
        }
        out.reserve(out.capacity().max(1024));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn inflate(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::DeflateDecoder::new(bytes)
            .read_to_end(&mut out)
            .expect("a deflate stream");
        out
    }

    #[test]
    fn pieces_make_one_stream() {
        for length in [0, 1, 1000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17] {
            // A mixture that is neither all runs nor all noise.
            let data: Vec<u8> = (0..length)
                .map(|i| {
                    if i % 4096 < 3000 {
                        (i / 4096) as u8
                    } else {
                        (i.wrapping_mul(2_654_435_761) >> 13) as u8
                    }
                })
                .collect();
            let deflated = whole(&data, LEVEL).expect("compresses");
            assert!(inflate(&deflated.bytes) == data, "{length} bytes");
            let mut crc = Crc::new();
            crc.update(&data);
            assert_eq!(deflated.crc32, crc.sum(), "{length} bytes");
        }
    }
}
