//! DICOM JSON (PS3.18 annex F) read by tag: the bytes of an answer in, values out.
//!
//! Servers differ, so reading is tolerant: a number may be text and text a number, `Value` may be missing, a tag may be in small letters. What cannot be read is absent.
//! The caller bounds the bytes; nesting is bounded here.

use serde_json::{Map, Value};

/// A tag, as `0x0020_000D`.
pub type Tag = u32;

/// SOPClassUID.
pub const SOP_CLASS_UID: Tag = 0x0008_0016;
/// SOPInstanceUID.
pub const SOP_INSTANCE_UID: Tag = 0x0008_0018;
/// StudyDate.
pub const STUDY_DATE: Tag = 0x0008_0020;
/// Modality.
pub const MODALITY: Tag = 0x0008_0060;
/// Manufacturer.
pub const MANUFACTURER: Tag = 0x0008_0070;
/// ReferencedSeriesSequence.
pub const REFERENCED_SERIES_SEQUENCE: Tag = 0x0008_1115;
/// ReferencedInstanceSequence.
pub const REFERENCED_INSTANCE_SEQUENCE: Tag = 0x0008_114A;
/// StudyInstanceUID.
pub const STUDY_INSTANCE_UID: Tag = 0x0020_000D;
/// SeriesInstanceUID.
pub const SERIES_INSTANCE_UID: Tag = 0x0020_000E;
/// NumberOfSeriesRelatedInstances.
pub const NUMBER_OF_SERIES_RELATED_INSTANCES: Tag = 0x0020_1209;

/// Why an answer is not DICOM JSON.
#[derive(Debug, thiserror::Error)]
pub enum DicomJsonError {
    /// Not JSON, or nested too deeply.
    #[error("not JSON, or nested too deeply (line {line}, column {column})")]
    Json {
        /// Where it stopped to be JSON.
        line: usize,
        /// And in that line.
        column: usize,
    },
    /// JSON, but neither a data set nor an array of them.
    #[error("JSON, but not an array of data sets")]
    Shape,
}

/// One data set.
#[derive(Clone, Copy, Debug)]
pub struct DataSet<'a>(&'a Map<String, Value>);

/// The data sets of an answer.
#[derive(Clone, Debug, Default)]
pub struct DataSets(Vec<Map<String, Value>>);

impl DataSets {
    /// Reads an array of data sets, or one alone. No bytes are no data sets.
    ///
    /// # Errors
    /// Bytes that are something else. The message quotes none of them.
    pub fn read(bytes: &[u8]) -> Result<DataSets, DicomJsonError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(DataSets::default());
        }
        // serde_json ends at 128 levels.
        let value = serde_json::from_slice(bytes).map_err(|error| DicomJsonError::Json {
            line: error.line(),
            column: error.column(),
        })?;
        match value {
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::Object(map) => Ok(map),
                    _ => Err(DicomJsonError::Shape),
                })
                .collect::<Result<_, _>>()
                .map(DataSets),
            Value::Object(map) => Ok(DataSets(vec![map])),
            _ => Err(DicomJsonError::Shape),
        }
    }

    /// The data sets in the order of the answer.
    pub fn iter(&self) -> impl Iterator<Item = DataSet<'_>> {
        self.0.iter().map(DataSet)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> DataSet<'a> {
    /// The first value as text without padding; `None` where it is absent, empty or no text.
    #[must_use]
    pub fn text(self, tag: Tag) -> Option<String> {
        self.values(tag).iter().find_map(text_of)
    }

    /// The first value as a number that is not negative.
    #[must_use]
    pub fn count(self, tag: Tag) -> Option<u32> {
        let value = self.values(tag).first()?;
        if let Some(number) = value.as_u64() {
            return u32::try_from(number).ok();
        }
        if let Some(number) = value.as_f64() {
            return (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number)).then_some(number as u32);
        }
        text_of(value)?.parse().ok()
    }

    /// The items of a sequence.
    pub fn items(self, tag: Tag) -> impl Iterator<Item = DataSet<'a>> {
        self.values(tag).iter().filter_map(Value::as_object).map(DataSet)
    }

    /// Whether the tag stands there, with a value or without.
    #[must_use]
    pub fn has(self, tag: Tag) -> bool {
        self.element(tag).is_some()
    }

    fn element(self, tag: Tag) -> Option<&'a Value> {
        self.0
            .get(&format!("{tag:08X}"))
            .or_else(|| self.0.get(&format!("{tag:08x}")))
    }

    fn values(self, tag: Tag) -> &'a [Value] {
        self.element(tag)
            .and_then(|element| element.get("Value"))
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }
}

fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim_matches([' ', '\0']).to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn one(text: &str) -> DataSets {
        DataSets::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_are_read_by_tag() {
        let sets = one(
            r#"[{"0020000D":{"vr":"UI","Value":["1.2.3\u0000"]},"00201209":{"vr":"IS","Value":[300]},
            "00081115":{"vr":"SQ","Value":[{"0020000E":{"vr":"UI","Value":["1.4"]}},{"0020000E":{"vr":"UI","Value":["1.5"]}}]}}]"#,
        );
        let set = sets.iter().next().unwrap();
        assert_eq!(set.text(STUDY_INSTANCE_UID).unwrap(), "1.2.3");
        assert_eq!(set.count(NUMBER_OF_SERIES_RELATED_INSTANCES), Some(300));
        let series: Vec<_> = set
            .items(REFERENCED_SERIES_SEQUENCE)
            .filter_map(|item| item.text(SERIES_INSTANCE_UID))
            .collect();
        assert_eq!(series, ["1.4", "1.5"]);
    }

    #[test]
    fn numbers_may_be_text_and_text_a_number() {
        for (value, count) in [
            (r#""300""#, Some(300)),
            (r#"" 300 ""#, Some(300)),
            ("300.0", Some(300)),
            ("-1", None),
            ("1.5", None),
            ("1e30", None),
            (r#""many""#, None),
            ("null", None),
            ("{}", None),
        ] {
            let sets = one(&format!(r#"[{{"00201209":{{"Value":[{value}]}}}}]"#));
            assert_eq!(
                sets.iter().next().unwrap().count(NUMBER_OF_SERIES_RELATED_INSTANCES),
                count,
                "{value}"
            );
        }
        let sets = one(r#"[{"0020000d":{"Value":[17]}}]"#);
        assert_eq!(sets.iter().next().unwrap().text(STUDY_INSTANCE_UID).unwrap(), "17");
    }

    #[test]
    fn what_is_missing_or_of_another_shape_is_absent() {
        for text in [
            r#"[{}]"#,
            r#"[{"0020000D":{"vr":"UI"}}]"#,
            r#"[{"0020000D":{"vr":"UI","Value":[]}}]"#,
            r#"[{"0020000D":{"vr":"UI","Value":"1.2"}}]"#,
            r#"[{"0020000D":null}]"#,
            r#"[{"0020000D":{"Value":[null]}}]"#,
            r#"[{"0020000D":{"Value":[""]}}]"#,
        ] {
            let sets = one(text);
            let set = sets.iter().next().unwrap();
            assert_eq!(set.text(STUDY_INSTANCE_UID), None, "{text}");
            assert_eq!(set.items(STUDY_INSTANCE_UID).count(), 0, "{text}");
        }
    }

    #[test]
    fn no_bytes_are_no_data_sets_and_one_alone_is_one() {
        assert!(one("").is_empty());
        assert!(one(" \r\n").is_empty());
        assert!(one("[]").is_empty());
        assert_eq!(one("{}").len(), 1);
    }

    #[test]
    fn what_is_no_dicom_json_is_an_error_that_quotes_nothing() {
        for text in ["<html>secret", "[1]", "7", "[{]", &"[".repeat(100_000)] {
            let error = DataSets::read(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
