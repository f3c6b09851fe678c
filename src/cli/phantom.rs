//! `hilum phantom`: a synthetic chest as a DICOM CT series, with its true mask.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::files::write_whole;
use super::{End, say};
use crate::output::nifti;
use crate::phantom::{Flavour, Kernel, Position, Specification, TransferSyntax, chest, dicom_series};

/// What `hilum phantom` is told. A specification file gives everything; options overrule it.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder to write into: `ct/` with the series, `mask.nii.gz` (1 right, 2 left), `phantom.json`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A specification as JSON or TOML, as `phantom.json` holds it.
    #[arg(long, value_name = "FILE")]
    specification: Option<PathBuf>,
    /// Another seed is another patient.
    #[arg(long)]
    seed: Option<u64>,
    /// A small one (192 x 192 x 60) for quick tests.
    #[arg(long)]
    small: bool,
    /// Millimetres between rows, between columns, between slices.
    #[arg(long, num_args = 3, value_names = ["ROW", "COLUMN", "SLICE"])]
    spacing: Option<Vec<f64>>,
    /// Rows and columns.
    #[arg(long, num_args = 2, value_names = ["ROWS", "COLUMNS"])]
    matrix: Option<Vec<usize>>,
    /// Number of slices; as many as cover the lungs if not given.
    #[arg(long)]
    slices: Option<usize>,
    /// Tilt of the gantry in degrees.
    #[arg(long, allow_negative_numbers = true)]
    tilt: Option<f64>,
    /// supine, prone or feet_first.
    #[arg(long, value_parser = parse::<Position>)]
    position: Option<Position>,
    /// smooth, standard or sharp.
    #[arg(long, value_parser = parse::<Kernel>)]
    kernel: Option<Kernel>,
    /// Size of the body, 0.3 to 1.6: 1 is an adult of middle size, 0.6 a child.
    #[arg(long, value_name = "FACTOR")]
    size: Option<f64>,
    /// Standard deviation of the noise in HU, 0 to 200.
    #[arg(long)]
    noise: Option<f64>,
    /// Contrast medium in the blood.
    #[arg(long)]
    contrast: bool,
    /// Whose header it imitates: plain, ge, siemens, philips or canon.
    #[arg(long, value_parser = parse::<Flavour>)]
    flavour: Option<Flavour>,
    /// explicit_little_endian, implicit_little_endian, deflated, rle or jpeg_ls.
    #[arg(long, value_parser = parse::<TransferSyntax>)]
    transfer_syntax: Option<TransferSyntax>,
    #[command(flatten)]
    diseases: Diseases,
}

/// How much of each disease, 0 to 1.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Diseases, from 0 (none) to 1")]
struct Diseases {
    /// Hazy patches.
    #[arg(long, value_name = "AMOUNT")]
    ground_glass: Option<f64>,
    /// Airless lung.
    #[arg(long, value_name = "AMOUNT")]
    consolidation: Option<f64>,
    /// Reticulation and honeycombs.
    #[arg(long, value_name = "AMOUNT")]
    fibrosis: Option<f64>,
    /// Holes, bullae, overinflation.
    #[arg(long, value_name = "AMOUNT")]
    emphysema: Option<f64>,
    /// Fluid around the lung.
    #[arg(long, value_name = "AMOUNT")]
    effusion: Option<f64>,
    /// Air around the lung.
    #[arg(long, value_name = "AMOUNT")]
    pneumothorax: Option<f64>,
    /// Small round ones.
    #[arg(long, value_name = "AMOUNT")]
    nodules: Option<f64>,
    /// Large ones.
    #[arg(long, value_name = "AMOUNT")]
    masses: Option<f64>,
    /// Gas under the diaphragm.
    #[arg(long, value_name = "AMOUNT")]
    bowel_gas: Option<f64>,
}

/// A word of an enumeration, as its serialised form spells it.
fn parse<T: serde::de::DeserializeOwned>(word: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).map_err(|error| error.to_string())
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<End> {
    let specification = specification(arguments)?;
    let phantom = chest(&specification)?;
    let ct = arguments.out.join("ct");
    for (name, bytes) in dicom_series(&phantom, &specification)? {
        write_whole(&ct, &name, &bytes)?;
    }
    let mask = nifti::mask(&phantom.mask, &phantom.volume.grid)?;
    write_whole(&arguments.out, "mask.nii.gz", &mask.bytes)?;
    let said = serde_json::to_vec_pretty(&specification)?;
    write_whole(&arguments.out, "phantom.json", &said)?;
    let [slices, rows, columns] = phantom.mask.shape;
    say(format!("{slices} slices of {columns} x {rows} in {}", ct.display()));
    say(format!("true mask in {}", arguments.out.join("mask.nii.gz").display()));
    Ok(End::Done)
}

fn specification(arguments: &Arguments) -> anyhow::Result<Specification> {
    let mut specification = match &arguments.specification {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let json = path.extension().is_some_and(|e| e == "json");
            if json {
                serde_json::from_str(&text).with_context(|| path.display().to_string())?
            } else {
                toml::from_str(&text).with_context(|| path.display().to_string())?
            }
        }
        None if arguments.small => Specification::small(arguments.seed.unwrap_or(1)),
        None => Specification::default(),
    };
    let set = |value: &mut f64, given: Option<f64>| *value = given.unwrap_or(*value);
    specification.seed = arguments.seed.unwrap_or(specification.seed);
    if let Some([row, column, slice]) = arguments.spacing.as_deref() {
        specification.spacing_mm = [*row, *column, *slice];
    }
    if let Some([rows, columns]) = arguments.matrix.as_deref() {
        specification.matrix = [*rows, *columns];
    }
    specification.slices = arguments.slices.or(specification.slices);
    set(&mut specification.tilt_degrees, arguments.tilt);
    set(&mut specification.size, arguments.size);
    set(&mut specification.noise_hu, arguments.noise);
    specification.contrast |= arguments.contrast;
    specification.position = arguments.position.unwrap_or(specification.position);
    specification.kernel = arguments.kernel.unwrap_or(specification.kernel);
    specification.flavour = arguments.flavour.unwrap_or(specification.flavour);
    specification.transfer_syntax = arguments.transfer_syntax.unwrap_or(specification.transfer_syntax);
    let (diseases, given) = (&mut specification.diseases, &arguments.diseases);
    set(&mut diseases.ground_glass, given.ground_glass);
    set(&mut diseases.consolidation, given.consolidation);
    set(&mut diseases.fibrosis, given.fibrosis);
    set(&mut diseases.emphysema, given.emphysema);
    set(&mut diseases.effusion, given.effusion);
    set(&mut diseases.pneumothorax, given.pneumothorax);
    set(&mut diseases.nodules, given.nodules);
    set(&mut diseases.masses, given.masses);
    set(&mut diseases.bowel_gas, given.bowel_gas);
    Ok(specification)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn told(options: &[&str]) -> Arguments {
        let line = ["phantom", "--out", "chest"].iter().chain(options);
        Line::try_parse_from(line).unwrap().arguments
    }

    #[test]
    fn options_overrule_the_specification_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("phantom.json");
        let written = Specification {
            size: 0.8,
            noise_hu: 20.0,
            ..Specification::small(4)
        };
        fs::write(&file, serde_json::to_vec(&written).unwrap()).unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(specification(&told(&["--specification", file])).unwrap(), written);
        let overruled = specification(&told(&["--specification", file, "--size", "0.6", "--effusion", "0.5"])).unwrap();
        let expected = Specification {
            size: 0.6,
            diseases: crate::phantom::Diseases {
                effusion: 0.5,
                ..crate::phantom::Diseases::default()
            },
            ..written
        };
        assert_eq!(overruled, expected);
    }

    #[test]
    fn options_without_sense_are_errors_and_nothing_is_written() {
        for option in [
            "--noise=nan",
            "--noise=-5",
            "--emphysema=7",
            "--ground-glass=-3",
            "--size=2",
            "--size=inf",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut arguments = told(&["--small", "--slices", "1", option]);
            arguments.out = folder.path().join("chest");
            assert!(run(&arguments).is_err(), "{option}");
            assert!(!arguments.out.exists(), "{option}");
        }
    }
}
