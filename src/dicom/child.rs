//! The decoder process: what `hilum decode-frames` does, and the messages that pass between it and the frame reader.
//!
//! The parent writes a request, the child answers it, over and over until its input ends. Numbers are little endian. A request: magic, bits allocated, bits
//! stored, rows, columns (u16 each), length of the transfer syntax UID (u16), length of the frame (u64), then these two. An answer: 1 and the samples, or 0
//! and the reason; a length (u64) before either.

use super::codec::{EncodedFrame, decode_caught};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;

const MAGIC: u16 = 0xDEC0;
const DECODED: u8 = 1;
const REFUSED: u8 = 0;

/// What a decoder process may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecoderLimits {
    /// Address space in bytes.
    pub memory_bytes: u64,
    /// Processor time for one frame.
    pub cpu_seconds_per_frame: u64,
}

/// The hidden subcommand of the program that serves as decoder.
pub const DECODER_SUBCOMMAND: &str = "decode-frames";

impl DecoderLimits {
    /// The arguments that [`run_decoder`] reads.
    pub(super) fn arguments(self) -> [String; 2] {
        [self.memory_bytes.to_string(), self.cpu_seconds_per_frame.to_string()]
    }

    fn of_arguments(arguments: &[OsString]) -> Option<Self> {
        let number = |index: usize| arguments.get(index)?.to_str()?.parse().ok();
        Some(Self {
            memory_bytes: number(0)?,
            cpu_seconds_per_frame: number(1)?,
        })
    }
}

/// [`serve_decoder`] on standard input and output, with the limits that stand behind [`DECODER_SUBCOMMAND`] on the command line. The program calls this before
/// anything else: no runtime is loaded, no log is opened.
///
/// # Errors
/// As [`serve_decoder`], and for arguments that are no limits.
pub fn run_decoder(arguments: &[OsString]) -> io::Result<()> {
    let limits = DecoderLimits::of_arguments(arguments)
        .ok_or_else(|| io::Error::other("decode-frames is started by hilum itself"))?;
    // Without the line buffer that standard output has.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    serve_decoder(io::BufReader::with_capacity(1 << 16, input), output, limits)
}

/// Answers decode requests from `input` on `output` until `input` ends, under `limits`, which the system enforces by ending the process.
///
/// # Errors
/// When a limit cannot be set, or when the parent is gone or speaks another protocol.
pub fn serve_decoder(mut input: impl Read, mut output: impl Write, limits: DecoderLimits) -> io::Result<()> {
    lower(Resource::As, limits.memory_bytes)?;
    // A dump of memory would hold a patient's image.
    lower(Resource::Core, 0)?;
    while let Some(frame) = read_request(&mut input, limits.memory_bytes)? {
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
        let allowed = u64::try_from(spent).unwrap_or(0) + 1 + limits.cpu_seconds_per_frame;
        lower(Resource::Cpu, allowed)?;
        let (kind, bytes) = match decode_caught(&frame) {
            Ok(samples) => (DECODED, samples),
            Err(why) => (REFUSED, why.into_bytes()),
        };
        output.write_all(&[kind])?;
        output.write_all(&(bytes.len() as u64).to_le_bytes())?;
        output.write_all(&bytes)?;
        output.flush()?;
    }
    Ok(())
}

/// Sets the soft limit, never above the hard one.
fn lower(resource: Resource, wanted: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let current = now.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    setrlimit(
        resource,
        Rlimit {
            current: Some(current),
            maximum: now.maximum,
        },
    )?;
    Ok(())
}

/// The parent's side: sends one frame.
pub(super) fn write_request(mut output: impl Write, frame: &EncodedFrame) -> io::Result<()> {
    let uid = frame.transfer_syntax_uid.as_bytes();
    let mut head = Vec::with_capacity(20 + uid.len());
    for number in [
        MAGIC,
        frame.bits_allocated,
        frame.bits_stored,
        frame.rows,
        frame.columns,
        uid.len() as u16,
    ] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&(frame.bytes.len() as u64).to_le_bytes());
    head.extend_from_slice(uid);
    output.write_all(&head)?;
    output.write_all(&frame.bytes)?;
    output.flush()
}

/// The child's side: the next frame, or `None` at the end of input.
fn read_request(mut input: impl Read, most: u64) -> io::Result<Option<EncodedFrame<'static>>> {
    let mut head = [0u8; 20];
    // Only an end between requests is a good end.
    let first = input.read(head.get_mut(..1).unwrap_or_default())?;
    if first == 0 {
        return Ok(None);
    }
    input.read_exact(head.get_mut(1..).unwrap_or_default())?;
    let [
        m0,
        m1,
        a0,
        a1,
        s0,
        s1,
        r0,
        r1,
        c0,
        c1,
        u0,
        u1,
        l0,
        l1,
        l2,
        l3,
        l4,
        l5,
        l6,
        l7,
    ] = head;
    if u16::from_le_bytes([m0, m1]) != MAGIC {
        return Err(io::Error::other("not a decode request"));
    }
    let mut uid = vec![0; usize::from(u16::from_le_bytes([u0, u1]))];
    input.read_exact(&mut uid)?;
    let length = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    if length > most {
        return Err(io::Error::other("a frame larger than the memory limit"));
    }
    let mut bytes = vec![0; length as usize];
    input.read_exact(&mut bytes)?;
    Ok(Some(EncodedFrame {
        transfer_syntax_uid: Cow::Owned(String::from_utf8_lossy(&uid).into_owned()),
        bits_allocated: u16::from_le_bytes([a0, a1]),
        bits_stored: u16::from_le_bytes([s0, s1]),
        rows: u16::from_le_bytes([r0, r1]),
        columns: u16::from_le_bytes([c0, c1]),
        bytes: Cow::Owned(bytes),
    }))
}

/// What the child said.
pub(super) enum Answer {
    Decoded,
    Refused(String),
    /// Neither.
    Nonsense,
}

/// The parent's side: receives the answer, samples into `samples`, which has the size that is due. The child is not trusted either: it ran the decoder.
pub(super) fn read_answer(mut input: impl Read, samples: &mut [u8]) -> io::Result<Answer> {
    let mut head = [0u8; 9];
    input.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    if kind == DECODED && length == samples.len() as u64 {
        input.read_exact(samples)?;
        return Ok(Answer::Decoded);
    }
    if kind != REFUSED || length > 1 << 16 {
        return Ok(Answer::Nonsense);
    }
    let mut why = vec![0; length as usize];
    input.read_exact(&mut why)?;
    Ok(Answer::Refused(String::from_utf8_lossy(&why).into_owned()))
}
