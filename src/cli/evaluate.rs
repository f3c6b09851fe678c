//! `hilum evaluate`: predicted masks against reference masks, a case or many.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{End, Usage, say};
use crate::evaluate::{CaseScores, LabelImage, Summary, Unpaired, compare, read_mask, summarise, without_prediction};

/// What `hilum evaluate` is told: pairs of masks, or two folders whose cases have the same names.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// PREDICTED REFERENCE [PREDICTED REFERENCE ...]: DICOM Segmentations or NIfTI files, in any mix; or two folders, whose cases (files, or folders with one mask) are
    /// paired by name. A reference with lung that has no prediction counts as an empty mask: Dice 0. Two masks of one name in a folder are an error.
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
    let summary = summary(arguments)?;
    match arguments.form {
        Form::Table => say(summary.table().trim_end()),
        Form::Csv => say(summary.csv()?.trim_end()),
        Form::Json => say(summary.json()?),
    }
    Ok(End::Done)
}

/// The figures of all cases.
fn summary(arguments: &Arguments) -> anyhow::Result<Summary> {
    let cases = match arguments.masks.as_slice() {
        [predicted, reference] if predicted.is_dir() && reference.is_dir() => paired(predicted, reference)?,
        masks if masks.len().is_multiple_of(2) => Cases {
            pairs: masks
                .chunks_exact(2)
                .map(|pair| (name(&pair[0]), pair[0].clone(), pair[1].clone()))
                .collect(),
            ..Cases::default()
        },
        masks => bail!(Usage(format!(
            "{} masks do not make pairs: give PREDICTED REFERENCE, or two folders",
            masks.len()
        ))),
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
    Ok(summarise(
        scores,
        Unpaired {
            no_prediction,
            no_reference: cases.no_reference,
            skip_missing: arguments.skip_missing,
        },
    ))
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

/// The cases of two folders, paired by name. A folder of predictions without a single mask is one in which nothing was found; predictions of which none has the name of a
/// reference are a mistake.
fn paired(predicted: &Path, reference: &Path) -> anyhow::Result<Cases> {
    let mut cases = Cases::default();
    let mut references = masks_in(reference)?;
    if references.is_empty() {
        bail!("{} holds no mask", reference.display());
    }
    for (case, path) in masks_in(predicted)? {
        match references.remove(&case) {
            Some(of) => cases.pairs.push((case, path, of)),
            None => cases.no_reference.push(case),
        }
    }
    if cases.pairs.is_empty() && !cases.no_reference.is_empty() {
        bail!(
            "{} and {} have no case in common",
            predicted.display(),
            reference.display()
        );
    }
    cases.no_prediction = references.into_iter().collect();
    Ok(cases)
}

/// The masks in a folder by case: files by their name without suffix, folders by theirs where they hold a mask. Two masks of one case are an error.
fn masks_in(folder: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut entries = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<Vec<_>>>()
        })
        .with_context(|| folder.display().to_string())?;
    entries.sort();
    let mut found = BTreeMap::new();
    for path in entries {
        let case = name(&path);
        let mask = if path.is_dir() {
            MASK_NAMES
                .iter()
                .map(|name| path.join(name))
                .find(|mask| mask.is_file())
        } else {
            [".dcm", ".nii", ".nii.gz"]
                .iter()
                .any(|suffix| path.to_string_lossy().ends_with(suffix))
                .then_some(path)
        };
        let Some(mask) = mask else { continue };
        let said = mask.display().to_string();
        if let Some(other) = found.insert(case.clone(), mask) {
            bail!("{} and {said} are both masks of the case {case}", other.display());
        }
    }
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

    /// Makes files (empty ones) and folders in which they lie.
    fn lay_out(folder: &Path, files: &[&str]) -> [PathBuf; 2] {
        let [predicted, reference] = ["predicted", "reference"].map(|name| folder.join(name));
        for path in [&predicted, &reference] {
            fs::create_dir_all(path).unwrap();
        }
        for file in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        [predicted, reference]
    }

    #[test]
    fn cases_of_two_folders_that_have_no_partner_are_named() {
        let folder = tempfile::tempdir().unwrap();
        // Of `b` nothing was found: there is a folder with a report and without a mask.
        let [predicted, reference] = lay_out(
            folder.path(),
            &[
                "predicted/a/mask.nii.gz",
                "predicted/b/report.json",
                "predicted/d.dcm",
                "reference/a.nii.gz",
                "reference/b.nii.gz",
                "reference/c.nii",
            ],
        );
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

    #[test]
    fn two_masks_of_one_case_in_a_folder_are_an_error_that_names_both() {
        for both in [
            ["predicted/a.nii", "predicted/a.nii.gz"],
            ["predicted/a.nii", "predicted/a/segmentation.dcm"],
            ["reference/a.dcm", "reference/a.nii.gz"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let [predicted, reference] = lay_out(folder.path(), &["predicted/b.nii", "reference/b.nii"]);
            lay_out(folder.path(), &both);
            let said = paired(&predicted, &reference).unwrap_err().to_string();
            for path in both {
                let path = folder.path().join(path).display().to_string();
                assert!(said.contains(&path), "{path} is not in: {said}");
            }
        }
        // The two files that Hilum writes for one case are one result, the Segmentation first.
        let folder = tempfile::tempdir().unwrap();
        let [predicted, _] = lay_out(
            folder.path(),
            &["predicted/a/mask.nii.gz", "predicted/a/segmentation.dcm"],
        );
        let found: Vec<_> = masks_in(&predicted).unwrap().into_iter().collect();
        assert_eq!(found, [("a".to_owned(), predicted.join("a/segmentation.dcm"))]);
    }

    #[test]
    fn every_reference_has_dice_0_where_nothing_was_predicted() {
        let folder = tempfile::tempdir().unwrap();
        let [predicted, reference] = lay_out(folder.path(), &["predicted/report.json", "predicted/a/report.json"]);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/evaluate_mask.nii.gz");
        for name in ["a.nii.gz", "b.nii.gz"] {
            fs::copy(&golden, reference.join(name)).unwrap();
        }
        let of = |skip_missing| {
            summary(&Arguments {
                masks: vec![predicted.clone(), reference.clone()],
                form: Form::Table,
                skip_missing,
            })
            .unwrap()
        };
        let dice = of(false).dice.unwrap();
        assert_eq!((dice.cases, dice.mean, dice.max), (2, 0.0, 0.0));
        let skipped = of(true);
        assert_eq!((skipped.dice, skipped.no_prediction.len()), (None, 2));
    }

    #[test]
    fn folders_without_a_reference_or_without_a_name_in_common_are_errors() {
        for (files, expected) in [
            (&["predicted/a.nii", "reference/report.json"][..], "holds no mask"),
            (&["reference/report.json"], "holds no mask"),
            (&["predicted/a.nii", "reference/b.nii"], "have no case in common"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let [predicted, reference] = lay_out(folder.path(), files);
            let said = paired(&predicted, &reference).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        }
    }
}
