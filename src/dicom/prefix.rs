//! The first bytes of an instance, read as far as the header needs them.

use super::limits::Limits;
use super::walk::Fault;
use flate2::read::DeflateDecoder;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

/// Most CT headers are shorter than this: one read brings them whole.
const FIRST_READ: usize = 16 << 10;

/// The bytes from the start of an instance, growing on demand up to the header limit.
pub(super) struct Prefix<'a> {
    from: Box<dyn Read + 'a>,
    pub(super) data: Vec<u8>,
    /// How many bytes there are in all; `u64::MAX` while unknown (deflated).
    pub(super) total: u64,
    limit: usize,
}

impl<'a> Prefix<'a> {
    /// The bytes of a file, or of the part of it from `offset` over `length`.
    pub(super) fn of_file(file: &'a File, offset: u64, length: u64, limits: &Limits) -> Self {
        let from = Box::new(At {
            file,
            next: offset,
            end: offset.saturating_add(length),
        });
        Self {
            from,
            data: Vec::new(),
            total: length,
            limit: limits.header_bytes,
        }
    }

    /// The inflated bytes of a deflated data set that begins at `start` of the instance (PS3.5 A.5: raw deflate, RFC 1951).
    pub(super) fn of_deflated(file: &'a File, offset: u64, length: u64, start: u64, limits: &Limits) -> Self {
        let at = At {
            file,
            next: offset.saturating_add(start),
            end: offset.saturating_add(length),
        };
        let from = Box::new(DeflateDecoder::new(io::BufReader::with_capacity(FIRST_READ, at)));
        Self {
            from,
            data: Vec::new(),
            total: u64::MAX,
            limit: limits.header_bytes,
        }
    }

    /// Reads until at least `wanted` bytes are there. More are read than asked for, since a restart of the walk costs more than a read.
    pub(super) fn grow(&mut self, wanted: usize) -> Result<(), Fault> {
        if wanted > self.limit {
            return Err(Fault::OverLimit(format!("header of more than {} bytes", self.limit)));
        }
        let have = self.data.len();
        let goal = wanted.max(FIRST_READ).max(have.saturating_mul(4)).min(self.limit);
        let more = (goal - have.min(goal)) as u64;
        let expected = more.min(self.total.saturating_sub(have as u64)) as usize;
        self.data.reserve_exact(expected.min(1 << 20));
        let read = self
            .from
            .by_ref()
            .take(more)
            .read_to_end(&mut self.data)
            .map_err(unreadable)?;
        if (read as u64) < more {
            // The file, or the deflated stream, ends here.
            self.total = self.data.len() as u64;
        }
        Ok(())
    }
}

/// A deflated stream that is none is the sender's fault, and not that of the disk, which might be asked again.
fn unreadable(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Fault::Damaged("the deflated data set is corrupt".to_owned())
        }
        _ => Fault::Io(error),
    }
}

/// Reads a part of a file by position, so that one handle serves many readers.
pub(super) struct At<'a> {
    pub(super) file: &'a File,
    pub(super) next: u64,
    pub(super) end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.next);
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self
            .file
            .read_at(buffer.get_mut(..take).unwrap_or_default(), self.next)?;
        self.next += read as u64;
        Ok(read)
    }
}
