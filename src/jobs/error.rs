//! Why a job did not come to an end, by the one question that the queue asks: whose fault is it?

use crate::database::DatabaseError;
use crate::model::ModelError;
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

/// The network answers nothing any more, not even an empty window. A new process may get it again; this one would only fail one job after another.
#[derive(Debug, thiserror::Error)]
#[error(
    "the network no longer answers: this process ends with an error, so that whoever looks after it starts it again"
)]
pub struct NetworkLost;

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
            // The device: its memory is another program's for a while, or it is lost, which nobody can tell from any other error of the runtime.
            // Or the disk is full.
            SegmentError::Model(
                ModelError::OutOfMemory(_)
                | ModelError::Runtime(_)
                | ModelError::SessionLost
                | ModelError::Profile { .. },
            ) => return JobError::World(sentence),
            SegmentError::Model(_) => "model_failed",
            SegmentError::Output(_) => "output_failed",
            SegmentError::Stack | SegmentError::Grid(_) | SegmentError::Lungs(_) => "internal",
        };
        JobError::Ours { code, sentence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_fails_at_is_the_worlds_fault_and_what_the_network_answers_wrongly_is_ours() {
        let of = |error: ModelError| JobError::from(SegmentError::from(error));
        for error in [
            ModelError::OutOfMemory("8 GiB".into()),
            ModelError::Runtime("CUDA error 719".into()),
            ModelError::SessionLost,
            ModelError::Profile {
                folder: "/tmp".into(),
                why: "EOF".into(),
            },
        ] {
            let told = error.to_string();
            assert!(matches!(of(error), JobError::World(why) if why == told), "{told}");
        }
        for error in [
            ModelError::NotFinite(3),
            ModelError::AnswerSize { found: 1, expected: 2 },
        ] {
            assert!(matches!(
                of(error),
                JobError::Ours {
                    code: "model_failed",
                    ..
                }
            ));
        }
        assert!(matches!(of(ModelError::Canceled), JobError::Stopped));
    }
}
