//! `hilum evaluate`: predicted masks against reference masks, a case or many.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{End, say};
use crate::evaluate::{CaseScores, LabelImage, Unpaired, compare, read_mask, summarise, without_prediction};

/// What `hilum evaluate` is told: pairs of masks, or two folders whose cases have the same names.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// PREDICTED REFERENCE [PREDICTED REFERENCE ...]: DICOM Segmentations or NIfTI files, in any mix; or two folders, whose cases (files, or folders with one mask) are
    /// paired by name. A reference with lung that has no prediction counts as an empty mask: Dice 0.
    #[arg(required = true, num_args = 2.., value_name = "MASK")]
    masks: Vec<PathBuf>,
    /// How to print the figures.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    form: Form,
    /// Leave references without a prediction out of the figures. They are listed all the same.
    #[arg(long)]
    skip_missing: bool,
}

/// How figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// A line a case.
    Csv,
    /// Everything.
    Json,
}

/// The files that hold a mask in a folder of results, best first.
const MASK_NAMES: [&str; 2] = ["segmentation.dcm", "mask.nii.gz"];

/// What is compared: names and files.
#[derive(Debug, Default, PartialEq)]
struct Cases {
    /// Name, prediction, reference.
    pairs: Vec<(String, PathBuf, PathBuf)>,
    /// Name and reference.
    no_prediction: Vec<(String, PathBuf)>,
    /// Names of predictions.
    no_reference: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<End> {
    let cases = match arguments.masks.as_slice() {
        [predicted, reference] if predicted.is_dir() && reference.is_dir() => paired(predicted, reference)?,
        masks if masks.len().is_multiple_of(2) => Cases {
            pairs: masks
                .chunks_exact(2)
                .map(|pair| (name(&pair[0]), pair[0].clone(), pair[1].clone()))
                .collect(),
            ..Cases::default()
        },
        masks => bail!(
            "{} masks do not make pairs: give PREDICTED REFERENCE, or two folders",
            masks.len()
        ),
    };
    report_unpaired(&cases);
    let scores = cases
        .pairs
        .iter()
        .map(|(case, predicted, reference)| Ok(compare(case, &read(predicted)?, &read(reference)?)))
        .collect::<anyhow::Result<Vec<CaseScores>>>()?;
    let no_prediction = cases
        .no_prediction
        .iter()
        .map(|(case, reference)| Ok(without_prediction(case, &read(reference)?)))
        .collect::<anyhow::Result<Vec<CaseScores>>>()?;
    let summary = summarise(
        scores,
        Unpaired {
            no_prediction,
            no_reference: cases.no_reference,
            skip_missing: arguments.skip_missing,
        },
    );
    match arguments.form {
        Form::Table => say(summary.table().trim_end()),
        Form::Csv => say(summary.csv()?.trim_end()),
        Form::Json => say(summary.json()?),
    }
    Ok(End::Done)
}

fn read(path: &Path) -> anyhow::Result<LabelImage> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    read_mask(&bytes).with_context(|| path.display().to_string())
}

#[expect(
    clippy::print_stderr,
    reason = "what a person should know although standard output may be CSV or JSON"
)]
fn report_unpaired(cases: &Cases) {
    if !cases.no_prediction.is_empty() {
        let names: Vec<&str> = cases.no_prediction.iter().map(|(case, _)| case.as_str()).collect();
        eprintln!("hilum: references without a prediction: {}", names.join(", "));
    }
    if !cases.no_reference.is_empty() {
        eprintln!(
            "hilum: predictions without a reference: {}",
            cases.no_reference.join(", ")
        );
    }
}

/// The cases of two folders, paired by name.
fn paired(predicted: &Path, reference: &Path) -> anyhow::Result<Cases> {
    let mut cases = Cases::default();
    let references = masks_in(reference)?;
    for (case, path) in masks_in(predicted)? {
        match references.iter().find(|(other, _)| *other == case) {
            Some((_, of)) => cases.pairs.push((case, path, of.clone())),
            None => cases.no_reference.push(case),
        }
    }
    if cases.pairs.is_empty() {
        bail!(
            "{} and {} have no case in common",
            predicted.display(),
            reference.display()
        );
    }
    cases.no_prediction = references
        .into_iter()
        .filter(|(case, _)| !cases.pairs.iter().any(|(other, _, _)| other == case))
        .collect();
    Ok(cases)
}

/// The masks in a folder by case: files by their name without suffix, folders by theirs where they hold a mask.
fn masks_in(folder: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(mask) = MASK_NAMES
                .iter()
                .map(|name| path.join(name))
                .find(|mask| mask.is_file())
            {
                found.push((name(&path), mask));
            }
        } else if [".dcm", ".nii", ".nii.gz"]
            .iter()
            .any(|suffix| path.to_string_lossy().ends_with(suffix))
        {
            found.push((name(&path), path));
        }
    }
    found.sort();
    Ok(found)
}

/// The name of a case: of the file without its suffix, or of the folder that holds a result.
fn name(path: &Path) -> String {
    let file = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if MASK_NAMES.contains(&file.as_str())
        && let Some(folder) = path.parent().and_then(Path::file_name)
    {
        return folder.to_string_lossy().into_owned();
    }
    [".nii.gz", ".nii", ".dcm"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))
        .unwrap_or(&file)
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn cases_of_two_folders_that_have_no_partner_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let [predicted, reference] = ["predicted", "reference"].map(|name| folder.path().join(name));
        // Of `b` nothing was found: there is a folder with a report and without a mask.
        for path in ["predicted/a", "predicted/b", "reference"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        for path in [
            "predicted/a/mask.nii.gz",
            "predicted/b/report.json",
            "predicted/d.dcm",
            "reference/a.nii.gz",
            "reference/b.nii.gz",
            "reference/c.nii",
        ] {
            fs::write(folder.path().join(path), "").unwrap();
        }
        let cases = paired(&predicted, &reference).unwrap();
        let a = (
            "a".to_owned(),
            predicted.join("a/mask.nii.gz"),
            reference.join("a.nii.gz"),
        );
        assert_eq!(cases.pairs, [a]);
        assert_eq!(
            cases.no_prediction,
            [("b", "b.nii.gz"), ("c", "c.nii")].map(|(case, file)| (case.to_owned(), reference.join(file)))
        );
        assert_eq!(cases.no_reference, ["d"]);
    }
}
