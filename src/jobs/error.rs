//! Why a job did not come to an end, by the one question that the queue asks: whose fault is it?

use crate::database::DatabaseError;
use crate::segment::SegmentError;

/// Whose fault it is. The input's fault is no error: such a job is refused, with a finding.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Somebody asked to stop, or the claim was lost.
    #[error("stopped")]
    Stopped,
    /// The world's: the same may well go through later.
    #[error("{0}")]
    World(String),
    /// Ours, or of what was set up: it will fail again until somebody does something.
    #[error("{sentence}")]
    Ours {
        /// A stable code.
        code: &'static str,
        /// What happened.
        sentence: String,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl JobError {
    /// An error of the file system, which passes.
    pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> JobError {
        JobError::World(format!("{}: {error}", path.display()))
    }
}

impl From<SegmentError> for JobError {
    fn from(error: SegmentError) -> JobError {
        let sentence = error.to_string();
        let code = match error {
            SegmentError::Canceled => return JobError::Stopped,
            // Pixels that are at fault themselves were refused; what is left is files and the decoder's process.
            SegmentError::Pixels(_) => return JobError::World(sentence),
            SegmentError::Model(_) => "model_failed",
            SegmentError::Output(_) => "output_failed",
            SegmentError::Stack | SegmentError::Grid(_) | SegmentError::Lungs(_) => "internal",
        };
        JobError::Ours { code, sentence }
    }
}
