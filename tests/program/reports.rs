//! Reports as the program writes them, held against `docs/report.schema.json` by a validator of JSON Schema.

use std::fs;
use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

use super::{TINY, abdomen, ends_with, phantom, segment, walk};

fn schema() -> Validator {
    let schema: Value = serde_json::from_str(include_str!("../../docs/report.schema.json")).unwrap();
    jsonschema::meta::validate(&schema).expect("the schema is one");
    jsonschema::validator_for(&schema).expect("the schema can be used")
}

/// Holds every report under a folder against the schema; returns them.
fn hold(schema: &Validator, out: &Path) -> Vec<Value> {
    let paths = walk(out).into_iter().filter(|path| path.ends_with("report.json"));
    let reports: Vec<Value> = paths
        .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        .collect();
    for report in &reports {
        let faults: Vec<String> = schema
            .iter_errors(report)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{faults:#?}\n{report:#}");
    }
    reports
}

#[test]
fn reports_of_accepted_repaired_and_refused_series_and_of_one_without_lungs_are_as_the_schema_says() {
    let schema = schema();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);

    let series = phantom(&path("chest"), &[]);
    let every = [
        "--format",
        "seg,nifti,png,json,ct",
        "--segments",
        "left-right",
        "--model",
        TINY,
    ];
    ends_with(&segment(&series, &path("accepted"), &every), 0);
    let [accepted] = &hold(&schema, &path("accepted"))[..] else {
        panic!("one report")
    };
    assert_eq!(accepted["verdict"]["outcome"], "accepted");
    assert!(accepted["measurements"]["left"].is_object());
    assert!(accepted["timings"][0]["processor_seconds"].as_f64().unwrap() > 0.0);

    let tilted = phantom(&path("tilted"), &["--tilt", "12", "--spacing", "1.8", "1.8", "5"]);
    ends_with(&segment(&tilted, &path("repaired"), &every), 0);
    let [repaired] = &hold(&schema, &path("repaired"))[..] else {
        panic!("one report")
    };
    assert_eq!(repaired["verdict"]["outcome"], "repaired");
    assert!(
        repaired["files"]
            .as_array()
            .unwrap()
            .iter()
            .any(|file| file["note"].as_str().is_some_and(|note| note.contains("resampled")))
    );

    let one = fs::read_dir(&series).unwrap().next().unwrap().unwrap().path();
    ends_with(&segment(&one, &path("refused"), &[]), 3);
    let [refused] = &hold(&schema, &path("refused"))[..] else {
        panic!("one report")
    };
    assert_eq!(refused["verdict"]["outcome"], "refused");

    ends_with(&segment(&abdomen(folder.path()), &path("none"), &["--model", TINY]), 0);
    let [none] = &hold(&schema, &path("none"))[..] else {
        panic!("one report")
    };
    assert_eq!(none["mask_findings"][0]["code"], "lungs_not_found");

    // The validator can say no.
    let mut wrong = accepted.clone();
    wrong["volume"]["regular"] = "yes".into();
    wrong["extra"] = 1.into();
    assert_eq!(schema.iter_errors(&wrong).count(), 2);
}
