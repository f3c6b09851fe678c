//! Any bytes as DICOM JSON -> data sets, or an error; and what was read, written again and read again says the same.
#![no_main]

use hilum::dicomweb::dicom_json::{
    DataSet, DataSets, MANUFACTURER, MODALITY, NUMBER_OF_SERIES_RELATED_INSTANCES, REFERENCED_INSTANCE_SEQUENCE,
    REFERENCED_SERIES_SEQUENCE, SERIES_INSTANCE_UID, SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_DATE, STUDY_INSTANCE_UID,
    Tag,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const TAGS: [Tag; 10] = [
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_DATE,
    MODALITY,
    MANUFACTURER,
    REFERENCED_SERIES_SEQUENCE,
    REFERENCED_INSTANCE_SEQUENCE,
    STUDY_INSTANCE_UID,
    SERIES_INSTANCE_UID,
    NUMBER_OF_SERIES_RELATED_INSTANCES,
];

/// All that can be asked of one element.
#[derive(Debug, PartialEq)]
struct Said {
    there: bool,
    text: Option<String>,
    count: Option<u32>,
    items: Vec<Vec<Said>>,
}

fn said(set: DataSet<'_>) -> Vec<Said> {
    let element = |tag| Said {
        there: set.has(tag),
        text: set.text(tag),
        count: set.count(tag),
        items: set.items(tag).map(said).collect(),
    };
    TAGS.map(element).into()
}

fn all(sets: &DataSets) -> Vec<Vec<Said>> {
    assert_eq!(sets.iter().count(), sets.len());
    assert_eq!(sets.is_empty(), sets.len() == 0);
    sets.iter().map(said).collect()
}

/// Numbers that serde_json need not read as it wrote them become text, of which the reader says the same: fractions, and what is far above every count.
fn exact(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if number.is_f64() && number.as_f64().is_some_and(|number| number.fract() != 0.0 || number.abs() > 1e15) {
                *value = Value::String(number.to_string());
            }
        }
        Value::Array(values) => values.iter_mut().for_each(exact),
        Value::Object(map) => map.values_mut().for_each(exact),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = DataSets::read(bytes) else {
        return;
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else {
        assert!(read.is_empty(), "only white space is no JSON and yet read");
        return;
    };
    exact(&mut value);
    let written = serde_json::to_vec(&value).expect("a value can be written");
    let Ok(again) = DataSets::read(&written) else {
        // By a key of serde_json's own a value can be deeper than the depth to which it reads.
        assert!(serde_json::from_slice::<Value>(&written).is_err(), "what was written is not read");
        return;
    };
    assert_eq!(all(&again), all(&read));
});
