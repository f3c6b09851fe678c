//! An instance and a frame number -> the stored values of that frame.

use super::child::DecoderLimits;
use super::codec::{EncodedFrame, decode_caught};
use super::codestream::{describe, is_whole};
use super::error::PixelError;
use super::fault::PixelFault;
use super::fragments::{FrameIndex, Part};
use super::pool::Pool;
use super::prefix::At;
use super::syntax::{self, Coding};
use super::unpack::Packing;
use super::{Instance, PixelData, Source, rle};
use flate2::read::DeflateDecoder;
use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// How frames are decoded.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// Decode in this process: faster by the way through a pipe, and without protection from damaged or hostile files.
    pub trust_input: bool,
    /// The program whose `decode-frames` is run as decoder; this one if `None`. (Inside a test, the program under test must be named.)
    pub program: Option<PathBuf>,
    /// The most that one decoder, and one frame, may take.
    pub memory_bytes: u64,
    /// Most processor time for one frame, in seconds; rounded up to whole ones.
    pub seconds_per_frame: f64,
    /// The most decoders at a time.
    pub workers: usize,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            trust_input: false,
            program: None,
            memory_bytes: 1 << 30,
            seconds_per_frame: 10.0,
            workers: std::thread::available_parallelism().map_or(1, Into::into),
        }
    }
}

/// Reads the stored values of frames, from many threads at once. Native pixels and RLE are read in place; JPEG of all kinds is decoded by child processes,
/// which end with this value.
pub struct FrameReader {
    options: DecodeOptions,
    decoders: Pool,
    /// Of the multi-frame instance that was read last.
    last: Mutex<Option<(Source, Known)>>,
}

/// What is kept of a multi-frame instance between its frames.
#[derive(Clone)]
enum Known {
    Fragments(Arc<FrameIndex>),
    Inflated(Arc<Vec<u8>>),
    /// Why neither could be had: its other frames are not looked for again.
    Broken(String),
}

thread_local! {
    /// Samples on their way to wider values.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl FrameReader {
    /// A reader; no process is started before a frame needs one.
    pub fn new(options: DecodeOptions) -> Self {
        let limits = DecoderLimits {
            memory_bytes: options.memory_bytes,
            cpu_seconds_per_frame: options.seconds_per_frame.ceil().max(1.0) as u64,
        };
        // The path of a running program stays good when its file is replaced; where it is absent, starting a decoder will say so.
        let program = options
            .program
            .clone()
            .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let decoders = Pool::new(program, limits, options.workers);
        Self {
            options,
            decoders,
            last: Mutex::new(None),
        }
    }

    /// Reads frame `frame` (from 0) into `out`: rows x columns stored values, row by row, cut to the stored bits and sign-extended.
    ///
    /// # Errors
    /// Every error names the file; see [`PixelError`].
    pub fn read(&self, instance: &Instance, frame: usize, out: &mut Vec<i32>) -> Result<(), PixelError> {
        self.try_read(instance, frame, out)
            .map_err(|fault| fault.at(&instance.source.path))
    }

    /// Reads a frame as `stored + add` into `out` (rows x columns). `Ok(false)` if a value does not fit into `i16`; what is in `out` then means nothing.
    /// Native little-endian samples of 16 bits go straight from the file into `out`.
    ///
    /// # Errors
    /// As [`FrameReader::read`].
    pub fn read_i16(&self, instance: &Instance, frame: usize, out: &mut [i16], add: i32) -> Result<bool, PixelError> {
        self.try_read_i16(instance, frame, out, add)
            .map_err(|fault| fault.at(&instance.source.path))
    }

    /// Lets go of what is kept of a multi-frame instance for its next frame: where its fragments lie, or all its inflated pixels.
    pub fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn try_read(&self, instance: &Instance, frame: usize, out: &mut Vec<i32>) -> Result<(), PixelFault> {
        let (packing, count) = self.layout(instance)?;
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(count * packing.width, 0);
            let packing = self.samples(instance, frame, packing, scratch)?;
            packing.unpack(scratch, out);
            Ok(())
        })
    }

    fn try_read_i16(&self, instance: &Instance, frame: usize, out: &mut [i16], add: i32) -> Result<bool, PixelFault> {
        let (packing, count) = self.layout(instance)?;
        if out.len() != count {
            return Err(PixelFault::UnsupportedFormat(format!(
                "{count} values for a buffer of {}",
                out.len()
            )));
        }
        if packing.width == 2 {
            let packing = self.samples(instance, frame, packing, bytemuck::cast_slice_mut(out))?;
            return Ok(packing.unpack_in_place(out, add));
        }
        let mut stored = Vec::new();
        self.try_read(instance, frame, &mut stored)?;
        for (out, stored) in out.iter_mut().zip(stored) {
            match i16::try_from(i64::from(stored) + i64::from(add)) {
                Ok(value) => *out = value,
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The packing that the header describes, and the samples of a frame.
    fn layout(&self, instance: &Instance) -> Result<(Packing, usize), PixelFault> {
        let format = &instance.header.pixels;
        let packing = Packing::of(format).map_err(PixelFault::UnsupportedFormat)?;
        let count = u64::from(format.rows) * u64::from(format.columns);
        if count == 0 || instance.header.pixel_data == PixelData::Absent {
            return Err(PixelFault::Corrupt("no pixel data".into()));
        }
        if count.saturating_mul(8) > self.options.memory_bytes {
            return Err(PixelFault::Corrupt(format!(
                "{} rows x {} columns are over the memory limit",
                format.rows, format.columns
            )));
        }
        Ok((packing, count as usize))
    }

    /// Fills `samples` with a frame's little-endian samples, and says how they are packed.
    fn samples(
        &self,
        instance: &Instance,
        frame: usize,
        packing: Packing,
        samples: &mut [u8],
    ) -> Result<Packing, PixelFault> {
        let header = &instance.header;
        if frame >= header.frames.len() {
            return Err(PixelFault::Corrupt(format!(
                "no frame {} of {}",
                frame + 1,
                header.frames.len()
            )));
        }
        let coding =
            syntax::coding(&header.transfer_syntax_uid).ok_or_else(|| PixelFault::UnsupportedTransferSyntax {
                uid: header.transfer_syntax_uid.clone(),
                name: syntax::name(&header.transfer_syntax_uid),
            })?;
        let file = File::open(&instance.source.path).map_err(PixelFault::Io)?;
        let part = Part {
            file: &file,
            offset: instance.source.offset,
            length: instance.source.length,
        };
        match (header.pixel_data, coding) {
            (
                PixelData::Native {
                    offset,
                    length,
                    big_endian,
                },
                Coding::Native,
            ) => {
                part.read(samples, offset + within(frame, samples.len(), length)?)?;
                if big_endian {
                    samples.chunks_exact_mut(packing.width).for_each(<[u8]>::reverse);
                }
                Ok(packing)
            }
            (PixelData::Deflated { start, offset, length }, Coding::Native) => {
                self.inflate(instance, part, (start, offset, length), frame, samples)?;
                Ok(packing)
            }
            (
                PixelData::Encoded {
                    offset,
                    extended_offsets,
                },
                Coding::Rle | Coding::Compressed,
            ) => {
                let index = self.index(instance, part, offset, extended_offsets)?;
                let bytes = index.frame(part, frame, 2 * samples.len() as u64 + (1 << 20))?;
                if coding == Coding::Rle {
                    rle::decode(&bytes, packing.width, samples).map_err(PixelFault::Corrupt)?;
                    return Ok(packing);
                }
                self.decode(instance, &bytes, packing, samples)
            }
            _ => Err(PixelFault::Corrupt(
                "the pixel data are not in the form that the transfer syntax says".into(),
            )),
        }
    }

    /// Decodes a compressed frame: here if it is trusted, in a child process otherwise.
    fn decode(
        &self,
        instance: &Instance,
        bytes: &[u8],
        packing: Packing,
        samples: &mut [u8],
    ) -> Result<Packing, PixelFault> {
        let format = &instance.header.pixels;
        let too_large = |_| PixelFault::Corrupt(format!("{} rows x {} columns", format.rows, format.columns));
        let frame = EncodedFrame {
            transfer_syntax_uid: Cow::Borrowed(&instance.header.transfer_syntax_uid),
            rows: u16::try_from(format.rows).map_err(too_large)?,
            columns: u16::try_from(format.columns).map_err(too_large)?,
            bits_allocated: format.bits_allocated,
            bits_stored: format.bits_stored,
            bytes: Cow::Borrowed(bytes),
        };
        let codestream = describe(bytes).map_err(PixelFault::Corrupt)?;
        frame.check(&codestream).map_err(PixelFault::Corrupt)?;
        if !is_whole(bytes) {
            return Err(PixelFault::Corrupt("the compressed image breaks off".into()));
        }
        if self.options.trust_input {
            let decoded = decode_caught(&frame).map_err(PixelFault::Corrupt)?;
            samples.copy_from_slice(&decoded);
        } else {
            self.decoders.decode(&frame, samples)?;
        }
        Ok(packing.decoded(&codestream))
    }

    /// Where the fragments of an instance lie; kept for the next frame.
    fn index(
        &self,
        instance: &Instance,
        part: Part,
        offset: u64,
        extended: Option<(u64, u64)>,
    ) -> Result<Arc<FrameIndex>, PixelFault> {
        let count = instance.header.frames.len();
        if count == 1 {
            return Ok(Arc::new(FrameIndex::read(part, offset, extended, count)?));
        }
        match self.known(&instance.source) {
            Some(Known::Fragments(index)) => return Ok(index),
            Some(Known::Broken(why)) => return Err(PixelFault::Corrupt(why)),
            Some(Known::Inflated(_)) | None => {}
        }
        let read = FrameIndex::read(part, offset, extended, count).map(Arc::new);
        match &read {
            Ok(index) => self.keep(&instance.source, Known::Fragments(Arc::clone(index))),
            Err(PixelFault::Corrupt(why)) => self.keep(&instance.source, Known::Broken(why.clone())),
            // Another time it may be read.
            Err(_) => {}
        }
        read
    }

    /// Takes a frame out of a deflated data set. A stream has no way in but its start, so the pixels of a multi-frame instance are inflated once and kept.
    fn inflate(
        &self,
        instance: &Instance,
        part: Part,
        place: (u64, u64, u64),
        frame: usize,
        samples: &mut [u8],
    ) -> Result<(), PixelFault> {
        let (start, offset, length) = place;
        let skip = within(frame, samples.len(), length)?;
        let at = At {
            file: part.file,
            next: part.offset + start,
            end: part.offset + part.length,
        };
        let mut stream = DeflateDecoder::new(BufReader::with_capacity(1 << 16, at));
        let fault = |error: io::Error| match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                PixelFault::Corrupt(format!("the deflated stream cannot be read: {error}"))
            }
            _ => PixelFault::Io(error),
        };
        let mut begin = || io::copy(&mut stream.by_ref().take(offset), &mut io::sink());
        if instance.header.frames.len() == 1 {
            return begin().and_then(|_| stream.read_exact(samples)).map_err(fault);
        }
        let all = samples.len() as u64 * instance.header.frames.len() as u64;
        if all > self.options.memory_bytes {
            return Err(PixelFault::Corrupt(format!(
                "{all} bytes of deflated frames are over the memory limit"
            )));
        }
        // The lock is held while inflating: other threads want other frames of the same stream.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let inflated = match &*last {
            Some((of, Known::Inflated(inflated))) if *of == instance.source => Arc::clone(inflated),
            Some((of, Known::Broken(why))) if *of == instance.source => return Err(PixelFault::Corrupt(why.clone())),
            _ => {
                let mut inflated = Vec::new();
                let read = begin().and_then(|_| stream.take(all).read_to_end(&mut inflated));
                if let Err(fault) = read.map_err(fault) {
                    if let PixelFault::Corrupt(why) = &fault {
                        *last = Some((instance.source.clone(), Known::Broken(why.clone())));
                    }
                    return Err(fault);
                }
                let inflated = Arc::new(inflated);
                *last = Some((instance.source.clone(), Known::Inflated(Arc::clone(&inflated))));
                inflated
            }
        };
        drop(last);
        let ends = || PixelFault::Corrupt("the deflated stream ends inside the pixels".into());
        samples.copy_from_slice(
            inflated
                .get(skip as usize..skip as usize + samples.len())
                .ok_or_else(ends)?,
        );
        Ok(())
    }

    fn known(&self, source: &Source) -> Option<Known> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .filter(|(of, _)| of == source)
            .map(|(_, known)| known.clone())
    }

    fn keep(&self, source: &Source, known: Known) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((source.clone(), known));
    }
}

/// The first byte of a frame inside a value that declares `length` bytes.
fn within(frame: usize, frame_bytes: usize, length: u64) -> Result<u64, PixelFault> {
    let start = frame as u64 * frame_bytes as u64;
    if start + frame_bytes as u64 > length {
        return Err(PixelFault::Corrupt(format!(
            "the pixel data have {length} bytes, frame {} ends at {}",
            frame + 1,
            start + frame_bytes as u64
        )));
    }
    Ok(start)
}
