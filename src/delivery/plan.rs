//! A finished job in, its deliveries out: where its segmentation goes, and where it does not and why.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::database::{Backoff, DatabaseError, Failures, PlannedDelivery, UnplannedJob};
use crate::dicomweb::{Deliver, Pacs};
use crate::segment::{Profile, SEGMENTATION};

/// Segmentation Storage.
const SEGMENTATION_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.66.4";
/// Masks with these remarks are kept, and delivered only where a block says `deliver = "all"`.
const IMPLAUSIBLE: [&str; 2] = ["implausible_volume", "sides_uncertain"];

pub(super) async fn plan_loop(shared: Arc<Shared>, end: CancellationToken) {
    let mut wake = shared.bell.wake(end);
    let mut failures = Failures::new(Backoff::DATABASE);
    loop {
        let due = match plan_all(&shared).await {
            Ok(()) => {
                failures.over();
                None
            }
            Err(error) => {
                tracing::warn!(%error, "deliveries cannot be planned now");
                Some(failures.wait())
            }
        };
        if !wake.wait(due).await {
            return;
        }
    }
}

async fn plan_all(shared: &Shared) -> Result<(), DatabaseError> {
    loop {
        let jobs = shared.database.unplanned_jobs(100).await?;
        if jobs.is_empty() {
            return Ok(());
        }
        for job in jobs {
            let (planned, withheld) = decide(&job, &shared.pacs, &shared.settings.always_to);
            shared
                .database
                .plan_deliveries(&job, &planned, &withheld, &shared.worker)
                .await?;
        }
    }
}

/// The deliveries of a job, and the details of an event for each place where nothing goes.
fn decide(job: &UnplannedJob, pacs: &[Pacs], always_to: &[String]) -> (Vec<PlannedDelivery>, Vec<Value>) {
    let nowhere = |why: &str| (Vec::new(), vec![json!({"destination": null, "why": why})]);
    let codes = mask_codes(job);
    let (Some(uid), Some(folder)) = (&job.segmentation_uid, &job.result_folder) else {
        let lungless = codes.contains(&"lungs_not_found");
        return nowhere(if lungless { "lungs_not_found" } else { "no_segmentation" });
    };
    if codes.contains(&"lungs_not_found") {
        return nowhere("lungs_not_found");
    }
    let mut names: Vec<&String> = Vec::new();
    for name in job.source.iter().chain(always_to) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let (mut planned, mut withheld) = (Vec::new(), Vec::new());
    for name in names {
        let block = pacs.iter().find(|block| block.name == *name);
        let allowed = block.ok_or("unknown_destination").and_then(|block| {
            let because = match block.deliver {
                Deliver::Nothing => Some("deliver_nothing"),
                Deliver::All => None,
                Deliver::Plausible => IMPLAUSIBLE.into_iter().find(|code| codes.contains(code)),
            };
            because.map_or(Ok(block), Err)
        });
        match allowed.and_then(|block| made_for(block, job, uid).ok_or("profile_not_made")) {
            Err(why) => withheld.push(json!({"destination": name, "why": why})),
            Ok((file, uid)) => planned.push(PlannedDelivery {
                destination: name.clone(),
                file: format!("{folder}/{file}"),
                sop_class_uid: SEGMENTATION_STORAGE.into(),
                sop_instance_uid: uid.to_owned(),
            }),
        }
    }
    if planned.is_empty() && withheld.is_empty() {
        return nowhere("no_destination");
    }
    (planned, withheld)
}

/// The file and the SOP Instance UID of the segmentation that a PACS gets, whose `segmentation.dcm` is named `own`; `None` where the job made none of its profile, as one that
/// ended before the profile was configured.
fn made_for<'a>(block: &Pacs, job: &'a UnplannedJob, own: &'a str) -> Option<(&'static str, &'a str)> {
    if !block.has_profile() {
        return Some((SEGMENTATION, own));
    }
    // What `[output]` said when the job ran counts: the report tells it.
    let files = job.report.as_ref()?.get("files")?.as_array()?;
    let facts = |name: &str| {
        let file = files.iter().find(|file| file.get("name").is_some_and(|n| n == name));
        file?.get("segmentation")
    };
    let usual = Profile::deserialize(facts(SEGMENTATION)?).ok()?;
    let file = block.profile(usual).file_name(usual);
    Some((file, facts(file)?.get("sop_instance_uid")?.as_str()?))
}

/// The codes of what is said about the mask.
fn mask_codes(job: &UnplannedJob) -> Vec<&str> {
    let findings = job
        .report
        .as_ref()
        .and_then(|report| report.get("mask_findings")?.as_array());
    findings
        .into_iter()
        .flatten()
        .filter_map(|finding| finding.get("code")?.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::series::Code;

    fn job(source: Option<&str>, codes: &[&str], segmentation: bool) -> UnplannedJob {
        let findings: Vec<Value> = codes.iter().map(|code| json!({"code": code, "sentence": ""})).collect();
        UnplannedJob {
            id: uuid::Uuid::nil(),
            series_id: 1,
            source: source.map(str::to_owned),
            report: Some(json!({"mask_findings": findings})),
            result_folder: Some("results/x".into()),
            segmentation_uid: segmentation.then(|| "2.25.1".into()),
        }
    }

    fn pacs(deliver: &[(&str, &str)]) -> Vec<Pacs> {
        let block = |(name, deliver): &(&str, &str)| {
            toml::from_str(&format!("name = {name:?}\nurl = \"http://x/\"\ndeliver = {deliver:?}")).unwrap()
        };
        deliver.iter().map(block).collect()
    }

    fn told(job: &UnplannedJob, pacs: &[Pacs], always_to: &[&str]) -> (Vec<String>, Vec<String>) {
        let always_to: Vec<String> = always_to.iter().map(|name| (*name).to_owned()).collect();
        let (planned, withheld) = decide(job, pacs, &always_to);
        let why = |detail: &Value| {
            let destination = detail["destination"].as_str().unwrap_or("-");
            format!("{destination} {}", detail["why"].as_str().unwrap())
        };
        (
            planned.into_iter().map(|one| one.destination).collect(),
            withheld.iter().map(why).collect(),
        )
    }

    #[test]
    fn a_segmentation_goes_where_its_series_came_from_and_where_everything_goes() {
        let blocks = pacs(&[("a", "plausible"), ("b", "plausible")]);
        assert_eq!(
            told(&job(Some("a"), &["lungs_cut"], true), &blocks, &["b", "a"]).0,
            ["a", "b"]
        );
        assert_eq!(told(&job(None, &[], true), &blocks, &["b"]).0, ["b"]);
        let (planned, _) = decide(&job(Some("a"), &[], true), &blocks, &[]);
        assert_eq!(planned[0].file, "results/x/segmentation.dcm");
    }

    #[test]
    fn every_destination_gets_the_segmentation_of_its_profile() {
        let made = |name: &str, uid: &str, [segments, frames]: [&str; 2]| {
            json!({"name": name, "segmentation":
                {"sop_instance_uid": uid, "segments": segments, "frames": frames, "transfer_syntax": "deflated"}})
        };
        let mut job = job(Some("as-output"), &[], true);
        job.report.as_mut().unwrap()["files"] = json!([
            made("segmentation.dcm", "2.25.1", ["lung", "full"]),
            made("segmentation-lung-sparse-deflated.dcm", "2.25.2", ["lung", "sparse"]),
            {"name": "mask.nii.gz"},
        ]);
        let blocks: Vec<Pacs> = [
            ("as-output", ""),
            ("sparse", "frames = \"sparse\""),
            ("sparse-too", "frames = \"sparse\"\nsegments = \"lung\""),
            ("full", "frames = \"full\""),
            ("both", "segments = \"left-right\""),
        ]
        .iter()
        .map(|(name, keys)| toml::from_str(&format!("name = {name:?}\nurl = \"http://x/\"\n{keys}")).unwrap())
        .collect();
        let others: Vec<String> = blocks[1..].iter().map(|block| block.name.clone()).collect();
        let (planned, withheld) = decide(&job, &blocks, &others);
        let planned: Vec<[&str; 3]> = planned
            .iter()
            .map(|one| {
                [
                    one.destination.as_str(),
                    one.file.as_str(),
                    one.sop_instance_uid.as_str(),
                ]
            })
            .collect();
        let sparse = ["results/x/segmentation-lung-sparse-deflated.dcm", "2.25.2"];
        assert_eq!(
            planned,
            [
                ["as-output", "results/x/segmentation.dcm", "2.25.1"],
                ["sparse", sparse[0], sparse[1]],
                ["sparse-too", sparse[0], sparse[1]],
                ["full", "results/x/segmentation.dcm", "2.25.1"],
            ]
        );
        assert_eq!(withheld, [json!({"destination": "both", "why": "profile_not_made"})]);
        // The report of an older version does not tell the profile.
        job.report = Some(json!({"files": [{"name": "segmentation.dcm"}]}));
        let (planned, withheld) = decide(&job, &blocks, &others[..1]);
        assert_eq!((planned.len(), &planned[0].sop_instance_uid[..]), (1, "2.25.1"));
        assert_eq!(withheld, [json!({"destination": "sparse", "why": "profile_not_made"})]);
    }

    #[test]
    fn nowhere_is_legal_and_says_why() {
        let blocks = pacs(&[("a", "nothing")]);
        assert_eq!(told(&job(None, &[], true), &blocks, &[]).1, ["- no_destination"]);
        assert_eq!(told(&job(Some("a"), &[], true), &blocks, &[]).1, ["a deliver_nothing"]);
        assert_eq!(
            told(&job(Some("z"), &[], true), &blocks, &[]).1,
            ["z unknown_destination"]
        );
        assert_eq!(
            told(&job(Some("a"), &["lungs_not_found"], false), &blocks, &[]).1,
            ["- lungs_not_found"]
        );
        assert_eq!(told(&job(Some("a"), &[], false), &blocks, &[]).1, ["- no_segmentation"]);
    }

    #[test]
    fn implausible_masks_go_only_where_everything_is_wanted() {
        let blocks = pacs(&[("a", "plausible"), ("b", "all")]);
        for code in IMPLAUSIBLE {
            let (planned, withheld) = told(&job(Some("a"), &[code], true), &blocks, &["b"]);
            assert_eq!((planned, withheld), (vec!["b".to_owned()], vec![format!("a {code}")]));
        }
    }

    #[test]
    fn the_codes_are_those_of_the_report() {
        for (code, name) in [
            (Code::LungsNotFound, "lungs_not_found"),
            (Code::ImplausibleVolume, IMPLAUSIBLE[0]),
            (Code::SidesUncertain, IMPLAUSIBLE[1]),
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), name);
        }
    }
}
