//! What can go wrong with a file. Each error names the file and what a person can do about it.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why the header of an instance could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DicomError {
    /// The bytes are something else, or nothing.
    #[error("{}: not DICOM ({why})", path.display())]
    NotDicom {
        /// The file.
        path: PathBuf,
        /// What was seen.
        why: String,
    },
    /// It is DICOM, but its header contradicts itself or breaks off.
    #[error("{}: damaged header ({why})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        why: String,
    },
    /// The header asks for more than [`Limits`](super::Limits) allow.
    #[error("{}: over the limit ({what})", path.display())]
    OverLimit {
        /// The file.
        path: PathBuf,
        /// Which limit.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
}

impl DicomError {
    /// The reason alone, without the path, for lists that name the path themselves.
    pub fn reason(&self) -> String {
        match self {
            Self::NotDicom { why, .. } => format!("not DICOM ({why})"),
            Self::Damaged { why, .. } => format!("damaged header ({why})"),
            Self::OverLimit { what, .. } => format!("over the limit ({what})"),
            Self::Io { error, .. } => error.to_string(),
        }
    }
}

/// Why the stored values of a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// No decoder for this transfer syntax is built in.
    UnsupportedTransferSyntax {
        /// The file.
        path: PathBuf,
        /// TransferSyntaxUID.
        uid: String,
        /// Its name in PS3.6, or "unknown".
        name: String,
    },
    /// The packing of the samples is none that a CT has (colour, 1 bit, floating point).
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// The pixel data contradict the header, break off, or cannot be decoded.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the reader or the decoder said.
        why: String,
    },
    /// Decoding took more processor time than allowed; the system ended the decoder.
    TimedOut {
        /// The file.
        path: PathBuf,
        /// The limit, in seconds of processor time.
        seconds: u64,
    },
    /// The decoder process ended by what it did with the frame, or answered nonsense: it met its memory limit, or has a fault.
    DecoderDied {
        /// The file.
        path: PathBuf,
        /// The signal, or the answer.
        how: String,
    },
    /// The decoder process was ended from outside, gave no answer while it hardly ran, or ended by itself for a reason of its own: nothing that says anything about the frame.
    DecoderLost {
        /// The file.
        path: PathBuf,
        /// What happened, and what may help.
        how: String,
    },
    /// The operating system refused: the file, or the start of a decoder.
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
}

impl fmt::Display for PixelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path().display(), self.reason())
    }
}

impl PixelError {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::UnsupportedTransferSyntax { path, .. }
            | Self::UnsupportedFormat { path, .. }
            | Self::Corrupt { path, .. }
            | Self::TimedOut { path, .. }
            | Self::DecoderDied { path, .. }
            | Self::DecoderLost { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// The reason alone, without the path: for reports, in which slices have names of their own.
    pub fn reason(&self) -> String {
        match self {
            Self::UnsupportedTransferSyntax { uid, name, .. } => {
                format!("transfer syntax {name} ({uid}) cannot be decoded")
            }
            Self::UnsupportedFormat { why, .. } => why.clone(),
            Self::Corrupt { why, .. } => format!("corrupt pixel data ({why})"),
            Self::TimedOut { seconds, .. } => format!("decoding took more than {seconds} s of processor time"),
            Self::DecoderDied { how, .. } => format!("the decoder ended without an answer ({how})"),
            Self::DecoderLost { how, .. } => format!("the decoder is gone: {how}"),
            Self::Io { error, .. } => error.to_string(),
        }
    }

    /// Whether the input is at fault, for good, rather than this machine: only what the input provably did counts.
    pub fn is_the_inputs_fault(&self) -> bool {
        !matches!(self, Self::DecoderLost { .. } | Self::Io { .. })
    }
}
