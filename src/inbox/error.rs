//! Why something was not taken in.

use crate::database::DatabaseError;
use crate::dicomweb::multipart::MultipartError;

/// Why a request brought nothing in. Nothing of it is kept then.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// As many uploads as allowed are under way, or bytes that were held went away meanwhile: the same again will do.
    #[error("too many uploads at once")]
    Busy,
    /// Less is free on the disk than the reserve.
    #[error("the disk of the inbox is full")]
    DiskFull,
    /// The body breaks the syntax, or a limit on its parts.
    #[error("{0}")]
    Multipart(#[from] MultipartError),
    /// The body is whole and has no part.
    #[error("the body has no part")]
    NoPart,
    /// The body is longer than allowed.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// Nothing, or next to nothing, came for so many seconds.
    #[error("nothing came for {0} seconds")]
    Idle(f64),
    /// The upload takes longer than so many seconds.
    #[error("the upload takes longer than {0} seconds")]
    TooSlow(f64),
    /// The body broke off.
    #[error("the body broke off: {0}")]
    Body(String),
    /// The study of the URL is no UID.
    #[error("the study in the address is no UID")]
    BadStudy,
    /// The inbox cannot be written.
    #[error("the inbox cannot be written: {0}")]
    Io(#[source] std::io::Error),
    /// The rows could not be made.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The service is ending.
    #[error("the service is ending")]
    Ending,
}

impl From<std::io::Error> for IngestError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}
