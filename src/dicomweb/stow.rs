//! The answer to a STOW-RS request as DICOM JSON (PS3.18 section 10.5.3, Annex I): made for our senders, and read from the servers that we send to.
//!
//! What others answer is read leniently (numbers as text, sequences that are empty or absent), and never trusted by its status alone.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value};

/// Failure reasons that Hilum gives (PS3.18 Table I.2-2).
impl Failure {
    /// Processing failure: the instance is of another study than the request.
    pub const PROCESSING: u16 = 0x0110;
    /// Cannot understand: the bytes are no instance that can be read.
    pub const CANNOT_UNDERSTAND: u16 = 0xC000;
}

/// Why a stored or accepted instance carries a warning (PS3.4 Table B.2-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning(pub u16);

impl Warning {
    /// Elements were discarded: here, the whole instance, since it is no CT image.
    pub const DISCARDED: Warning = Warning(0xB006);
}

/// An item of ReferencedSOPSequence: an instance that was stored, or accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// ReferencedSOPClassUID; may be empty in the answers of others.
    pub sop_class_uid: String,
    /// ReferencedSOPInstanceUID.
    pub sop_instance_uid: String,
    /// WarningReason.
    pub warning: Option<Warning>,
}

/// An item of FailedSOPSequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// ReferencedSOPClassUID; may be empty.
    pub sop_class_uid: String,
    /// ReferencedSOPInstanceUID.
    pub sop_instance_uid: String,
    /// FailureReason; `None` where the server gave none that can be read.
    pub reason: Option<u16>,
}

/// What became of the instances of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StowAnswer {
    /// ReferencedSOPSequence.
    pub referenced: Vec<Reference>,
    /// FailedSOPSequence.
    pub failed: Vec<Failure>,
    /// OtherFailuresSequence: the reasons for parts that have no UIDs.
    pub other_failures: Vec<Option<u16>>,
}

/// Why an answer says nothing.
#[derive(Debug, thiserror::Error)]
pub enum StowAnswerError {
    /// It is not JSON.
    #[error("the answer is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It is JSON, but not one data set.
    #[error("the answer is JSON, but not a DICOM data set")]
    NotADataSet,
}

const RETRIEVE_URL: &str = "00081190";
const FAILURE_REASON: &str = "00081197";
const WARNING_REASON: &str = "00081196";
const FAILED_SEQUENCE: &str = "00081198";
const REFERENCED_SEQUENCE: &str = "00081199";
const OTHER_FAILURES_SEQUENCE: &str = "0008119A";
const SOP_CLASS_UID: &str = "00081150";
const SOP_INSTANCE_UID: &str = "00081155";

impl StowAnswer {
    /// The HTTP status: 200 all stored, 202 stored with warnings or failures, 409 none stored. A request without any part is 400.
    #[must_use]
    pub fn status(&self) -> u16 {
        let failures = !self.failed.is_empty() || !self.other_failures.is_empty();
        let warnings = self.referenced.iter().any(|item| item.warning.is_some());
        match (self.referenced.is_empty(), failures) {
            (true, false) => 400,
            (true, true) => 409,
            (false, false) if !warnings => 200,
            (false, _) => 202,
        }
    }

    /// The body. Sequences without items are left out; RetrieveURL is present and empty, since nothing can be retrieved from Hilum. It is written item by
    /// item: a tree of a request's 100,000 parts would take ten times as much memory.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        // Into memory, of text and numbers under keys of text: nothing there can fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the answer of a server; a data set alone in a list is taken as well. Items without a SOP Instance UID are passed over among the references (they
    /// prove nothing) and counted among the other failures.
    ///
    /// # Errors
    /// Bytes that are not JSON, or JSON that is no data set: the answer says nothing of any instance.
    pub fn parse(body: &[u8]) -> Result<StowAnswer, StowAnswerError> {
        let set = match serde_json::from_slice(body)? {
            Value::Object(set) => set,
            Value::Array(mut list) if list.len() == 1 => match list.pop() {
                Some(Value::Object(set)) => set,
                _ => return Err(StowAnswerError::NotADataSet),
            },
            _ => return Err(StowAnswerError::NotADataSet),
        };
        let mut answer = StowAnswer::default();
        for item in items(&set, REFERENCED_SEQUENCE) {
            if let Some(sop_instance_uid) = text(item, SOP_INSTANCE_UID) {
                answer.referenced.push(Reference {
                    sop_class_uid: text(item, SOP_CLASS_UID).unwrap_or_default(),
                    sop_instance_uid,
                    warning: code(item, WARNING_REASON).map(Warning),
                });
            }
        }
        for item in items(&set, FAILED_SEQUENCE) {
            let reason = code(item, FAILURE_REASON);
            match text(item, SOP_INSTANCE_UID) {
                Some(sop_instance_uid) => answer.failed.push(Failure {
                    sop_class_uid: text(item, SOP_CLASS_UID).unwrap_or_default(),
                    sop_instance_uid,
                    reason,
                }),
                None => answer.other_failures.push(reason),
            }
        }
        let others = items(&set, OTHER_FAILURES_SEQUENCE).map(|item| code(item, FAILURE_REASON));
        answer.other_failures.extend(others);
        Ok(answer)
    }

    /// Whether this instance is among those stored.
    #[must_use]
    pub fn refers_to(&self, sop_instance_uid: &str) -> bool {
        self.referenced
            .iter()
            .any(|item| item.sop_instance_uid == sop_instance_uid)
    }
}

/// As DICOM JSON, in the order of the tags.
impl Serialize for StowAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut set = serializer.serialize_map(None)?;
        set.serialize_entry(RETRIEVE_URL, &Element::empty("UR"))?;
        if !self.failed.is_empty() {
            set.serialize_entry(FAILED_SEQUENCE, &Element::of("SQ", &self.failed))?;
        }
        if !self.referenced.is_empty() {
            set.serialize_entry(REFERENCED_SEQUENCE, &Element::of("SQ", &self.referenced))?;
        }
        if !self.other_failures.is_empty() {
            let others = Others(&self.other_failures);
            set.serialize_entry(OTHER_FAILURES_SEQUENCE, &Element::of("SQ", others))?;
        }
        set.end()
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut item = serializer.serialize_map(None)?;
        item.serialize_entry(SOP_CLASS_UID, &Element::uid(&self.sop_class_uid))?;
        item.serialize_entry(SOP_INSTANCE_UID, &Element::uid(&self.sop_instance_uid))?;
        item.serialize_entry(RETRIEVE_URL, &Element::empty("UR"))?;
        if let Some(Warning(reason)) = self.warning {
            item.serialize_entry(WARNING_REASON, &Element::number(Some(reason)))?;
        }
        item.end()
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut item = serializer.serialize_map(None)?;
        item.serialize_entry(SOP_CLASS_UID, &Element::uid(&self.sop_class_uid))?;
        item.serialize_entry(SOP_INSTANCE_UID, &Element::uid(&self.sop_instance_uid))?;
        item.serialize_entry(FAILURE_REASON, &Element::number(self.reason))?;
        item.end()
    }
}

/// The items of OtherFailuresSequence.
struct Others<'a>(&'a [Option<u16>]);

/// One of them.
struct Other(Option<u16>);

impl Serialize for Others<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().copied().map(Other))
    }
}

impl Serialize for Other {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(FAILURE_REASON, Element::number(self.0))])
    }
}

/// An element: its values, or none.
#[derive(serde::Serialize)]
struct Element<V> {
    vr: &'static str,
    #[serde(rename = "Value", skip_serializing_if = "Option::is_none")]
    value: Option<V>,
}

impl<V> Element<V> {
    fn of(vr: &'static str, value: V) -> Element<V> {
        Element { vr, value: Some(value) }
    }
}

impl Element<()> {
    fn empty(vr: &'static str) -> Element<()> {
        Element { vr, value: None }
    }
}

impl<'a> Element<[&'a str; 1]> {
    fn uid(uid: &'a str) -> Element<[&'a str; 1]> {
        let value = (!uid.is_empty()).then_some([uid]);
        Element { vr: "UI", value }
    }
}

impl Element<[u16; 1]> {
    fn number(number: Option<u16>) -> Element<[u16; 1]> {
        let value = number.map(|number| [number]);
        Element { vr: "US", value }
    }
}

/// The items of a sequence: those that are data sets.
fn items<'a>(set: &'a Map<String, Value>, tag: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    let values = element(set, tag).and_then(|element| element.get("Value")?.as_array());
    values.into_iter().flatten().filter_map(Value::as_object)
}

/// An element; some servers write the letters of a tag in lower case.
fn element<'a>(set: &'a Map<String, Value>, tag: &str) -> Option<&'a Value> {
    set.get(tag).or_else(|| set.get(&tag.to_ascii_lowercase()))
}

fn first<'a>(set: &'a Map<String, Value>, tag: &str) -> Option<&'a Value> {
    element(set, tag)?.get("Value")?.as_array()?.first()
}

fn text(set: &Map<String, Value>, tag: &str) -> Option<String> {
    let value = first(set, tag)?
        .as_str()?
        .trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!value.is_empty()).then(|| value.to_owned())
}

fn code(set: &Map<String, Value>, tag: &str) -> Option<u16> {
    match first(set, tag)? {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|value| value.fract() == 0.0)?;
            (0.0..=65535.0).contains(&whole).then_some(whole as u16)
        }
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn reference(uid: &str, warning: Option<Warning>) -> Reference {
        Reference {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            sop_instance_uid: uid.into(),
            warning,
        }
    }

    fn failure(uid: &str) -> Failure {
        Failure {
            sop_class_uid: String::new(),
            sop_instance_uid: uid.into(),
            reason: Some(Failure::PROCESSING),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let answer = StowAnswer {
            referenced: vec![reference("1.2", None), reference("1.3", Some(Warning::DISCARDED))],
            failed: vec![failure("1.4")],
            other_failures: vec![Some(Failure::CANNOT_UNDERSTAND)],
        };
        let body = answer.to_body();
        assert_eq!(StowAnswer::parse(&body).unwrap(), answer);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body["00081199"]["Value"][1],
            json!({
                "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
                "00081155": {"vr": "UI", "Value": ["1.3"]},
                "00081190": {"vr": "UR"},
                "00081196": {"vr": "US", "Value": [45062]},
            })
        );
    }

    #[test]
    fn empty_sequences_are_left_out() {
        let answer = StowAnswer {
            referenced: vec![reference("1.2", None)],
            ..StowAnswer::default()
        };
        let body = String::from_utf8(answer.to_body()).unwrap();
        assert_eq!(
            body,
            r#"{"00081190":{"vr":"UR"},"00081199":{"vr":"SQ","Value":[{"00081150":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.2"]},"00081155":{"vr":"UI","Value":["1.2"]},"00081190":{"vr":"UR"}}]}}"#
        );
        assert_eq!(StowAnswer::default().to_body(), br#"{"00081190":{"vr":"UR"}}"#);
    }

    #[test]
    fn the_status_follows_from_what_was_stored() {
        let answer = |referenced: &[Option<Warning>], failed: usize, others: usize| StowAnswer {
            referenced: referenced.iter().map(|warning| reference("1", *warning)).collect(),
            failed: vec![failure("2"); failed],
            other_failures: vec![None; others],
        };
        assert_eq!(answer(&[], 0, 0).status(), 400);
        assert_eq!(answer(&[], 1, 0).status(), 409);
        assert_eq!(answer(&[], 0, 1).status(), 409);
        assert_eq!(answer(&[None], 0, 0).status(), 200);
        assert_eq!(answer(&[None, Some(Warning::DISCARDED)], 0, 0).status(), 202);
        assert_eq!(answer(&[None], 0, 1).status(), 202);
    }

    #[test]
    fn the_answer_of_an_orthanc_is_read() {
        let body = br#"{"00080005":{"Value":["ISO_IR 100"],"vr":"CS"},"00081190":{"Value":["http://h/studies/1"],"vr":"UR"},"00081198":{"vr":"SQ"},
            "00081199":{"Value":[{"00081150":{"Value":["1.2.840.10008.5.1.4.1.1.66.4"],"vr":"UI"},"00081155":{"Value":["2.25.7"],"vr":"UI"},
            "00081190":{"Value":["http://h/x"],"vr":"UR"}}],"vr":"SQ"}}"#;
        let answer = StowAnswer::parse(body).unwrap();
        assert!(answer.refers_to("2.25.7") && !answer.refers_to("2.25"));
        assert!(answer.failed.is_empty() && answer.other_failures.is_empty());
    }

    #[test]
    fn odd_answers_are_read_as_far_as_they_say_something() {
        let body = br#"[{"00081198":{"vr":"SQ","Value":[null,{"00081155":{"vr":"UI","Value":["1.2\u0000"]},"00081197":{"vr":"US","Value":["45070"]}},
            {"00081197":{"Value":[1e99]}}]},"0008119a":{"Value":[{"00081197":{"Value":[272.0]}}]},"00081199":{"Value":[{"00081155":{"Value":[5]}}]}}]"#;
        let answer = StowAnswer::parse(body).unwrap();
        assert!(answer.referenced.is_empty());
        assert_eq!(answer.failed.len(), 1);
        assert_eq!(
            (answer.failed[0].sop_instance_uid.as_str(), answer.failed[0].reason),
            ("1.2", Some(45070))
        );
        assert_eq!(answer.other_failures, [None, Some(272)]);
    }

    #[test]
    fn hostile_answers_are_errors() {
        let deep = "[".repeat(100_000);
        for body in ["", "<html>", "{", "[]", "[1]", "7", "null", deep.as_str()] {
            assert!(StowAnswer::parse(body.as_bytes()).is_err());
        }
        let silent = StowAnswer::parse(br#"{"00081199": [], "00081198": {"Value": {}}}"#).unwrap();
        assert_eq!(silent, StowAnswer::default());
    }
}
