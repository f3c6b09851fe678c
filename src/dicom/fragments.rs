//! Encapsulated pixel data (PS3.5 A.4) -> the bytes of one frame. Only item headers and that frame's fragments are read.

use super::codestream::begins_image;
use super::fault::PixelFault;
use super::walk::name;
use dicom_core::Tag;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// Fragments that are kept in mind for one instance, at most.
const MOST_FRAGMENTS: usize = 1 << 20;

/// Where the fragments of each frame lie, counted from the first byte of the instance.
#[derive(Debug)]
pub(super) struct FrameIndex {
    frames: Vec<Vec<Range<u64>>>,
}

/// An instance's part of an open file.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) file: &'a File,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Part<'_> {
    /// Fills `buffer` from the byte `at` of the instance on.
    pub(super) fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), PixelFault> {
        let end = at.checked_add(buffer.len() as u64).filter(|end| *end <= self.length);
        if end.is_none() {
            let left = self.length.saturating_sub(at);
            return Err(PixelFault::Corrupt(format!(
                "{} bytes of pixels are missing",
                buffer.len() as u64 - left
            )));
        }
        self.file
            .read_exact_at(buffer, self.offset + at)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => PixelFault::Corrupt("the file ends inside its pixels".into()),
                _ => PixelFault::Io(error),
            })
    }
}

impl FrameIndex {
    /// Walks the items from `offset` on and shares them out among `count` frames by the offset tables; where there is none, one fragment is one frame, or
    /// each fragment that begins an image begins a frame.
    pub(super) fn read(
        part: Part,
        offset: u64,
        extended: Option<(u64, u64)>,
        count: usize,
    ) -> Result<Self, PixelFault> {
        let (table, fragments) = items(part, offset)?;
        if fragments.is_empty() {
            return Err(PixelFault::Corrupt("no fragment".into()));
        }
        if count == 1 {
            return Ok(Self {
                frames: vec![fragments],
            });
        }
        let extended = extended.map(|place| numbers::<8>(part, place)).transpose()?;
        let basic = numbers::<4>(part, (table.start, table.end - table.start))?;
        for starts in extended.into_iter().chain([basic]) {
            if let Some(frames) = share_by_offsets(&fragments, &starts, count) {
                return Ok(Self { frames });
            }
        }
        if fragments.len() == count {
            return Ok(Self {
                frames: fragments.into_iter().map(|fragment| vec![fragment]).collect(),
            });
        }
        let frames = share_by_starts(part, &fragments)?;
        if frames.len() != count {
            return Err(PixelFault::Corrupt(format!(
                "{} fragments without an offset table for {count} frames",
                fragments.len()
            )));
        }
        Ok(Self { frames })
    }

    /// The encoded bytes of a frame, at most `most` of them.
    pub(super) fn frame(&self, part: Part, frame: usize, most: u64) -> Result<Vec<u8>, PixelFault> {
        let fragments = self
            .frames
            .get(frame)
            .ok_or_else(|| PixelFault::Corrupt(format!("no frame {}", frame + 1)))?;
        let length: u64 = fragments.iter().map(|fragment| fragment.end - fragment.start).sum();
        if length > most {
            return Err(PixelFault::Corrupt(format!(
                "{length} compressed bytes for a frame of fewer"
            )));
        }
        let mut bytes = vec![0; length as usize];
        let mut rest = bytes.as_mut_slice();
        for fragment in fragments {
            let (into, after) = rest.split_at_mut((fragment.end - fragment.start) as usize);
            part.read(into, fragment.start)?;
            rest = after;
        }
        Ok(bytes)
    }
}

/// The value of the basic offset table, and the fragments.
fn items(part: Part, offset: u64) -> Result<(Range<u64>, Vec<Range<u64>>), PixelFault> {
    let mut table = None;
    let mut fragments = Vec::new();
    let mut at = offset;
    loop {
        // Some writers leave out the last delimiter.
        if at == part.length && !fragments.is_empty() {
            break;
        }
        let mut header = [0u8; 8];
        part.read(&mut header, at)?;
        let [g0, g1, e0, e1, l0, l1, l2, l3] = header;
        let tag = Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        match tag {
            Tag(0xFFFE, 0xE0DD) => break,
            Tag(0xFFFE, 0xE000) => {}
            _ => {
                return Err(PixelFault::Corrupt(format!("{} between fragments", name(tag))));
            }
        }
        let content = at + 8..at + 8 + length;
        if content.end > part.length {
            return Err(PixelFault::Corrupt(format!(
                "a fragment of {length} bytes where {} are left",
                part.length - at - 8
            )));
        }
        if fragments.len() >= MOST_FRAGMENTS {
            return Err(PixelFault::Corrupt(format!("more than {MOST_FRAGMENTS} fragments")));
        }
        at = content.end;
        match table {
            None => table = Some(content),
            Some(_) => fragments.push(content),
        }
    }
    Ok((table.unwrap_or(0..0), fragments))
}

/// A table of little-endian numbers of `WIDTH` bytes.
fn numbers<const WIDTH: usize>(part: Part, (at, length): (u64, u64)) -> Result<Vec<u64>, PixelFault> {
    if length > (MOST_FRAGMENTS * WIDTH) as u64 {
        return Err(PixelFault::Corrupt(format!("an offset table of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    part.read(&mut bytes, at)?;
    let number = |chunk: &[u8]| {
        chunk
            .iter()
            .rev()
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    Ok(bytes.chunks_exact(WIDTH).map(number).collect())
}

/// Offsets count from the item header of the first fragment. `None` if they do not fit the fragments.
fn share_by_offsets(fragments: &[Range<u64>], starts: &[u64], count: usize) -> Option<Vec<Vec<Range<u64>>>> {
    let origin = fragments.first()?.start - 8;
    if starts.len() != count || *starts.first()? != 0 || !starts.is_sorted() {
        return None;
    }
    let mut frames = vec![Vec::new(); count];
    let mut frame = 0;
    for fragment in fragments {
        let at = fragment.start - 8 - origin;
        while starts.get(frame + 1).is_some_and(|next| *next <= at) {
            frame += 1;
        }
        frames.get_mut(frame)?.push(fragment.clone());
    }
    frames.iter().all(|frame| !frame.is_empty()).then_some(frames)
}

fn share_by_starts(part: Part, fragments: &[Range<u64>]) -> Result<Vec<Vec<Range<u64>>>, PixelFault> {
    let mut frames: Vec<Vec<Range<u64>>> = Vec::new();
    for fragment in fragments {
        let mut first = [0u8; 6];
        let length = (fragment.end - fragment.start).min(6) as usize;
        let first = first.get_mut(..length).unwrap_or_default();
        part.read(first, fragment.start)?;
        match frames.last_mut() {
            Some(frame) if !begins_image(first) => frame.push(fragment.clone()),
            _ => frames.push(vec![fragment.clone()]),
        }
    }
    Ok(frames)
}
