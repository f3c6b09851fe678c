//! What became of every part of a request, and the answer that its sender gets.

use super::intake::Part;
use crate::database::{ArrivedSeries, SeriesState, Stored, StoredBatch};
use crate::dicomweb::{Failure, Reference, StowAnswer, Warning};

/// What became of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is held; how it was before.
    Stored(Stored),
    /// Accepted and dropped: it is no CT.
    Dropped,
    /// It is an instance that cannot be taken; the FailureReason.
    Failed(u16),
    /// It is no instance that can be read.
    Unreadable,
}

/// One part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// SOPClassUID; empty where it could not be read.
    pub sop_class_uid: String,
    /// SOPInstanceUID; empty where it could not be read.
    pub sop_instance_uid: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// A series that a request touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedSeries {
    /// Its row.
    pub id: i64,
    /// StudyInstanceUID.
    pub study_uid: String,
    /// SeriesInstanceUID.
    pub series_uid: String,
    /// Where it stands now.
    pub state: SeriesState,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Every part, in its order.
    pub instances: Vec<Received>,
    /// The series that it touched.
    pub series: Vec<TouchedSeries>,
}

impl Receipt {
    pub(super) fn new(series: &[ArrivedSeries], parts: &[Part], stored: &StoredBatch) -> Receipt {
        let received = |class: &str, instance: &str, outcome| Received {
            sop_class_uid: class.to_owned(),
            sop_instance_uid: instance.to_owned(),
            outcome,
        };
        let instances = parts.iter().map(|part| match part {
            Part::Taken { series: place, at } => {
                let arrived = &series[*place].instances[*at];
                let outcome = Outcome::Stored(stored.series[*place].instances[*at]);
                received(&arrived.sop_class_uid, &arrived.sop_instance_uid, outcome)
            }
            Part::Dropped {
                sop_class_uid,
                sop_instance_uid,
                ..
            } => received(sop_class_uid, sop_instance_uid, Outcome::Dropped),
            Part::Failed {
                sop_class_uid,
                sop_instance_uid,
                reason,
            } => received(sop_class_uid, sop_instance_uid, Outcome::Failed(*reason)),
            Part::Unreadable => received("", "", Outcome::Unreadable),
        });
        let touched = series
            .iter()
            .zip(&stored.series)
            .map(|(arrived, stored)| TouchedSeries {
                id: stored.id,
                study_uid: arrived.study_uid.clone(),
                series_uid: arrived.series_uid.clone(),
                state: stored.state,
            });
        Receipt {
            instances: instances.collect(),
            series: touched.collect(),
        }
    }

    /// How many parts ended so.
    #[must_use]
    pub fn how_many(&self, outcome: &Outcome) -> usize {
        self.instances.iter().filter(|one| one.outcome == *outcome).count()
    }

    /// The answer to the sender: duplicates are referenced like what is new, and so is what was dropped, with a warning.
    #[must_use]
    pub fn answer(&self) -> StowAnswer {
        let mut answer = StowAnswer::default();
        for one in &self.instances {
            let (sop_class_uid, sop_instance_uid) = (one.sop_class_uid.clone(), one.sop_instance_uid.clone());
            match one.outcome {
                Outcome::Stored(_) => answer.referenced.push(Reference {
                    sop_class_uid,
                    sop_instance_uid,
                    warning: None,
                }),
                Outcome::Dropped => answer.referenced.push(Reference {
                    sop_class_uid,
                    sop_instance_uid,
                    warning: Some(Warning::DISCARDED),
                }),
                Outcome::Failed(reason) => answer.failed.push(Failure {
                    sop_class_uid,
                    sop_instance_uid,
                    reason: Some(reason),
                }),
                Outcome::Unreadable => answer.other_failures.push(Some(Failure::CANNOT_UNDERSTAND)),
            }
        }
        answer
    }

    /// Counts the instances for the metrics.
    pub(super) fn count(&self) {
        for one in &self.instances {
            let outcome = match one.outcome {
                Outcome::Stored(Stored::New) => "new",
                Outcome::Stored(Stored::Duplicate | Stored::Older) => "duplicate",
                Outcome::Stored(Stored::KeptAnew) => "kept_anew",
                Outcome::Stored(Stored::Revised) => "revised",
                Outcome::Dropped => "dropped",
                Outcome::Failed(_) => "failed",
                Outcome::Unreadable => "unreadable",
            };
            metrics::counter!("hilum_instances_total", "outcome" => outcome).increment(1);
        }
    }
}
