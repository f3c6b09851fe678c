//! What goes wrong below the frame reader, before the path is added.

use super::error::PixelError;
use std::io;
use std::path::Path;

#[derive(Debug)]
pub(super) enum PixelFault {
    UnsupportedTransferSyntax { uid: String, name: String },
    UnsupportedFormat(String),
    Corrupt(String),
    TimedOut { seconds: u64 },
    DecoderDied(String),
    DecoderLost(String),
    Io(io::Error),
}

impl PixelFault {
    pub(super) fn at(self, path: &Path) -> PixelError {
        let path = path.to_owned();
        match self {
            Self::UnsupportedTransferSyntax { uid, name } => PixelError::UnsupportedTransferSyntax { path, uid, name },
            Self::UnsupportedFormat(why) => PixelError::UnsupportedFormat { path, why },
            Self::Corrupt(why) => PixelError::Corrupt { path, why },
            Self::TimedOut { seconds } => PixelError::TimedOut { path, seconds },
            Self::DecoderDied(how) => PixelError::DecoderDied { path, how },
            Self::DecoderLost(how) => PixelError::DecoderLost { path, how },
            Self::Io(error) => PixelError::Io { path, error },
        }
    }
}
