//! What is said about a series: findings and the verdict they add up to.

use super::codes::{Code, Kind};
use serde::{Deserialize, Serialize};

/// What became of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Taken as it is.
    Accepted,
    /// Taken, with something left out, bridged or put right.
    Repaired,
    /// Not taken.
    Refused,
}

/// One thing that was noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The stable code.
    pub code: Code,
    /// A plain sentence for people, with the numbers that matter.
    pub sentence: String,
    /// Slices (by position or file) or UIDs concerned; at most a few dozen, the sentence tells how many there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concerns: Vec<String>,
}

/// The outcome and its findings; in a refused series the first finding decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Accepted, repaired or refused.
    pub outcome: Outcome,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

/// `Finding::concerns` holds at most this many.
pub const MAX_CONCERNS: usize = 36;

impl Finding {
    /// A finding about the series as a whole.
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
            concerns: Vec::new(),
        }
    }

    /// The same, with the slices or UIDs concerned (the first few dozen are kept).
    #[must_use]
    pub fn about(mut self, concerns: impl IntoIterator<Item = String>) -> Self {
        self.concerns.extend(concerns);
        self.concerns.truncate(MAX_CONCERNS);
        self
    }
}

impl Verdict {
    /// The verdict that findings add up to: one that refuses decides and comes first, one that repairs comes next, notes change nothing. Findings about
    /// the mask do not belong here.
    pub fn from_findings(mut findings: Vec<Finding>) -> Self {
        let rank = |finding: &Finding| match finding.code.kind() {
            Kind::Refuses => 0,
            Kind::Repairs => 1,
            Kind::Notes | Kind::Mask => 2,
        };
        // A stable sort: within a kind the order of discovery stays, which is the order of weight.
        findings.sort_by_key(rank);
        let outcome = match findings.first().map(|finding| finding.code.kind()) {
            Some(Kind::Refuses) => Outcome::Refused,
            Some(Kind::Repairs) => Outcome::Repaired,
            _ => Outcome::Accepted,
        };
        Self { outcome, findings }
    }

    /// Whether a finding with this code is among them.
    pub fn has(&self, code: Code) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }
}
