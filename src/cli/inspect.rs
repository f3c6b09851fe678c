//! `hilum inspect`: the verdict on each series, from headers alone.

use std::path::PathBuf;

use serde::Serialize;

use super::input::{self, Input, Others};
use super::{End, say};
use crate::config::Settings;
use crate::series::{Judgement, Outcome, Verdict, judge};

/// What `hilum inspect` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files and folders, in any mix.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print the verdicts as JSON.
    #[arg(long)]
    json: bool,
}

/// A series and what its headers say.
#[derive(Debug, Serialize)]
struct Inspected {
    study_instance_uid: String,
    series_instance_uid: String,
    modality: String,
    series_description: String,
    instances: usize,
    /// Slices that would be used; absent in a refused series.
    #[serde(skip_serializing_if = "Option::is_none")]
    slices: Option<usize>,
    verdict: Verdict,
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
struct Inspection {
    series: Vec<Inspected>,
    #[serde(flatten)]
    others: Others,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings, verbose: u8) -> anyhow::Result<End> {
    let Input { series, others } = input::read(&arguments.paths, &settings.series, verbose)?;
    let mut inspection = Inspection {
        series: Vec::new(),
        others,
    };
    for one in &series {
        let judgement = judge(one, &settings.series);
        let slices = match &judgement {
            Judgement::Usable(candidate) => Some(candidate.stack().slices.len()),
            Judgement::Refused(_) => None,
        };
        let header = one.instances.first().map(|instance| &instance.header);
        inspection.series.push(Inspected {
            study_instance_uid: one.study_instance_uid.clone(),
            series_instance_uid: one.series_instance_uid.clone(),
            modality: header.map(|h| h.modality.clone()).unwrap_or_default(),
            series_description: header.map(|h| h.series_description.clone()).unwrap_or_default(),
            instances: one.instances.len(),
            slices,
            verdict: judgement.verdict().clone(),
        });
    }
    if arguments.json {
        say(serde_json::to_string_pretty(&inspection)?);
    } else {
        table(&inspection);
    }
    let usable = inspection
        .series
        .iter()
        .any(|one| one.verdict.outcome != Outcome::Refused);
    Ok(if usable { End::Done } else { End::AllRefused })
}

fn table(inspection: &Inspection) {
    for one in &inspection.series {
        let slices = one
            .slices
            .map_or_else(|| format!("{} instances", one.instances), |n| format!("{n} slices"));
        let description = if one.series_description.is_empty() {
            String::new()
        } else {
            format!("  {}", one.series_description)
        };
        say(format!(
            "{:9} {:2}  {:>14}  {}{description}",
            input::word(one.verdict.outcome),
            one.modality,
            slices,
            one.series_instance_uid
        ));
        for finding in &one.verdict.findings {
            say(format!("          {}: {}", finding.code, finding.sentence));
        }
    }
    if inspection.series.is_empty() {
        say("No DICOM series was found.");
    }
    if let Some(told) = inspection.others.told() {
        say(told);
    }
}
