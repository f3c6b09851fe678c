//! `hilum evaluate`: predicted masks against reference masks, a case or many.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{End, say};
use crate::evaluate::{CaseScores, compare, read_mask, summarise};

/// What `hilum evaluate` is told: pairs of masks, or two folders whose cases have the same names.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// PREDICTED REFERENCE [PREDICTED REFERENCE ...]: DICOM Segmentations or NIfTI files, in any mix; or two folders, whose cases (files, or folders with one mask) are
    /// paired by name.
    #[arg(required = true, num_args = 2.., value_name = "MASK")]
    masks: Vec<PathBuf>,
    /// How to print the figures.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    form: Form,
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

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<End> {
    let cases = match arguments.masks.as_slice() {
        [predicted, reference] if predicted.is_dir() && reference.is_dir() => paired(predicted, reference)?,
        masks if masks.len().is_multiple_of(2) => masks
            .chunks_exact(2)
            .map(|pair| (name(&pair[0]), pair[0].clone(), pair[1].clone()))
            .collect(),
        masks => bail!(
            "{} masks do not make pairs: give PREDICTED REFERENCE, or two folders",
            masks.len()
        ),
    };
    let scores = cases
        .iter()
        .map(|(case, predicted, reference)| one(case, predicted, reference))
        .collect::<anyhow::Result<Vec<CaseScores>>>()?;
    let summary = summarise(scores);
    match arguments.form {
        Form::Table => say(summary.table().trim_end()),
        Form::Csv => say(summary.csv()?.trim_end()),
        Form::Json => say(summary.json()?),
    }
    Ok(End::Done)
}

fn one(case: &str, predicted: &Path, reference: &Path) -> anyhow::Result<CaseScores> {
    let read = |path: &Path| {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        read_mask(&bytes).with_context(|| path.display().to_string())
    };
    Ok(compare(case, &read(predicted)?, &read(reference)?))
}

/// The cases that both folders have.
fn paired(predicted: &Path, reference: &Path) -> anyhow::Result<Vec<(String, PathBuf, PathBuf)>> {
    let references = masks_in(reference)?;
    let cases: Vec<_> = masks_in(predicted)?
        .into_iter()
        .filter_map(|(case, path)| {
            let (_, of) = references.iter().find(|(other, _)| *other == case)?;
            Some((case, path, of.clone()))
        })
        .collect();
    if cases.is_empty() {
        bail!(
            "{} and {} have no case in common",
            predicted.display(),
            reference.display()
        );
    }
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
