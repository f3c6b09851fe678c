//! A small phantom the whole way: drawn, written as compressed DICOM files, found, judged, decoded, segmented by the configured network on the device that it would use,
//! every result made, and the DICOM Segmentation held against the phantom's true lungs.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;

use crate::config::Settings;
use crate::dicom::{FrameReader, Limits, discover};
use crate::evaluate::{compare, read_mask};
use crate::model::{CancelFlag, Check, Checks, Manifest, ModelError, Session};
use crate::output::nifti;
use crate::phantom::{Phantom, Specification, TransferSyntax, chest, dicom_series};
use crate::segment::{self, Format, SEGMENTATION, SegmentError, Segmented, Tools};
use crate::series::{Outcome, Series, Verdict, group};

const WHAT: &str = "a phantom end to end";
/// Another seed is another chest; nothing hangs on this one.
const SEED: u64 = 1;
/// Dice below which the network does not see what it should: a mask that lies at the wrong place, or one of other tissue, stays far below, a network that was never shown
/// a phantom well above.
const LEAST_DICE: f64 = 0.7;

/// A phantom that went the whole way.
struct Run {
    segmented: Segmented,
    /// Seconds until the network was ready.
    opening_seconds: f64,
    /// Dice of the segmentation; `None` where there is none.
    dice: Option<f64>,
}

/// Runs a small phantom through everything, unless something that it needs does not work.
pub(super) fn check(settings: &Settings, manifest: &Path, checks: &mut Checks) {
    if checks.has_problem() {
        let to_do = "mend what stands above first";
        checks.push(Check::absent(WHAT, "not tried: the network does not run", to_do));
        return;
    }
    checks.push(match run(settings, manifest) {
        Ok(run) => judged(&run),
        Err(error) => Check::problem(WHAT, crate::cli::told(&error), to_do(&error)),
    });
}

fn run(settings: &Settings, manifest: &Path) -> anyhow::Result<Run> {
    let specification = Specification {
        // Compressed, so that the decoder process is tried as well.
        transfer_syntax: TransferSyntax::JpegLs,
        ..Specification::small(SEED)
    };
    let phantom = chest(&specification)?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    for (name, bytes) in dicom_series(&phantom, &specification)? {
        fs::write(folder.path().join(&name), bytes).context("cannot write the phantom")?;
    }
    let series = found(folder.path())?;
    let manifest = Manifest::load(manifest)?.with(&settings.overrides)?;
    let begun = Instant::now();
    let mut session = Session::open(&manifest, &settings.model.session_options())?;
    let opening_seconds = begun.elapsed().as_secs_f64();
    let mut choices = settings.segment();
    choices.output.formats = Format::value_variants().to_vec();
    let tools = Tools {
        reader: &FrameReader::new(settings.decoder.options()),
        manifest: &manifest,
        settings: &choices,
        observer: &(),
        cancel: &CancelFlag::default(),
    };
    let provider = session.provider();
    let segmented = segment::segment(&series, &mut session, &provider, &tools)?;
    let dice = dice(&segmented, &phantom)?;
    Ok(Run {
        segmented,
        opening_seconds,
        dice,
    })
}

/// The phantom's series, found as a user's would be.
fn found(folder: &Path) -> anyhow::Result<Series> {
    let discovery = discover(&[folder.to_owned()], &Limits::default())?;
    let mut series = group(discovery.instances);
    let lost = discovery.unreadable.first().or(discovery.skipped.first());
    match (series.pop(), series.len(), lost) {
        (Some(one), 0, None) => Ok(one),
        (_, _, Some(skipped)) => Err(anyhow!("a slice of the phantom is passed over: {}", skipped.why)),
        _ => bail!("the phantom's slices do not make one series"),
    }
}

fn dice(segmented: &Segmented, phantom: &Phantom) -> anyhow::Result<Option<f64>> {
    let Some(segmentation) = segmented.artifacts.iter().find(|a| a.name == SEGMENTATION) else {
        return Ok(None);
    };
    let truth = nifti::mask(&phantom.mask, &phantom.volume.grid)?;
    let scores = compare(WHAT, &read_mask(&segmentation.bytes)?, &read_mask(&truth.bytes)?);
    Ok(Some(scores.lungs.dice))
}

fn judged(run: &Run) -> Check {
    let report = &run.segmented.report;
    if report.verdict.outcome == Outcome::Refused {
        let to_do = "widen the limits under [series] and [decoder] of the configuration: they keep a plain chest out";
        return Check::problem(
            WHAT,
            format!("the phantom is refused: {}", told(&report.verdict)),
            to_do,
        );
    }
    let to_do = "hold the manifest (spacing, orientation, intensity, threshold) and [overrides] of the configuration against the network's own description: docs/models.md";
    match run.dice {
        None => Check::problem(WHAT, "the network finds no lungs in the phantom", to_do),
        Some(dice) if dice < LEAST_DICE => {
            let seen =
                format!("the network's lungs are not the phantom's: Dice {dice:.3}, at least {LEAST_DICE} is expected");
            Check::problem(WHAT, seen, to_do)
        }
        Some(dice) => Check::ok(WHAT, went_well(run, dice)),
    }
}

fn told(verdict: &Verdict) -> String {
    let findings = verdict.findings.iter();
    let told: Vec<String> = findings.map(|f| format!("{}: {}", f.code, f.sentence)).collect();
    told.join("; ")
}

fn went_well(run: &Run, dice: f64) -> String {
    let Segmented { report, artifacts } = &run.segmented;
    let names: Vec<&str> = artifacts.iter().map(|artifact| artifact.name).collect();
    let stages: Vec<String> = report
        .timings
        .iter()
        .map(|stage| format!("{} {:.2}", stage.stage, stage.seconds))
        .collect();
    let provider = report.provider.as_ref().map_or("", |provider| &provider.name);
    format!(
        "{} compressed slices to {}; Dice {dice:.3} against its true lungs, on {provider}; seconds: opening the network {:.2}, {}",
        report.series.instances,
        names.join(", "),
        run.opening_seconds,
        stages.join(", ")
    )
}

/// What to do about a way that broke off.
fn to_do(error: &anyhow::Error) -> &'static str {
    if error.downcast_ref::<io::Error>().is_some() {
        return "make room in the folder of temporary files, or name another one in TMPDIR";
    }
    match error.downcast_ref() {
        Some(SegmentError::Pixels(_)) => {
            "look at [decoder] in the configuration: the program decodes in a child process"
        }
        Some(SegmentError::Model(_)) => "look at [model] in the configuration, and at the manifest by docs/models.md",
        _ if error.downcast_ref::<ModelError>().is_some() => {
            "look at [model] and [overrides] in the configuration, and at the manifest by docs/models.md"
        }
        _ => "this is a fault of Hilum's own: please report it with these words",
    }
}
