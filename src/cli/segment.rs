//! `hilum segment`: every chest CT series among files and folders, one after the other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::files::{remove_stale, write_whole};
use super::input::{self, Input, Others};
use super::progress::Progress;
use super::{End, models, say, told};
use crate::config::Settings;
use crate::dicom::{FrameReader, derived_uid, is_valid_uid};
use crate::model::{Blend, CancelFlag, Device, Manifest, MaskBack, Session};
use crate::output::Report;
use crate::segment::{
    self, ARTIFACT_NAMES, Artifact, Format, FrameChoice, Preparation, REPORT, SegmentError, Segmented, Segments, Tools,
    TransferSyntax,
};
use crate::series::{Outcome, Series};

/// What `hilum segment` is told. Options overrule the configuration, which overrules the network's manifest.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files and folders, in any mix.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Folder for the results; each series gets a folder of its own in it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Segment this series alone (SeriesInstanceUID).
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// The results to make, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "FORMAT,...")]
    format: Option<Vec<Format>>,
    /// One segment for both lungs, or one each.
    #[arg(long)]
    segments: Option<Segments>,
    /// Frames of the DICOM Segmentation.
    #[arg(long)]
    frames: Option<FrameChoice>,
    /// Coding of the DICOM Segmentation.
    #[arg(long)]
    transfer_syntax: Option<TransferSyntax>,
    /// The network: a name in the folder of models, or the path of a manifest.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Where it runs: auto, cpu, cuda or tensorrt.
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// Threads of the network on the CPU.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Decode compressed pixels in this process, without limits: for input that is trusted.
    #[arg(long)]
    trust_input: bool,
    /// Print the reports as JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Deviations from the network's manifest.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Deviations from the network's manifest")]
struct Overrides {
    /// How overlapping windows are weighted: constant or gaussian.
    #[arg(long, value_parser = blend)]
    blend: Option<Blend>,
    /// Part of a window that the next one covers again: at least 0, below 1.
    #[arg(long, value_parser = overlap)]
    overlap: Option<f64>,
    /// Crop the grid to the body first: on or off.
    #[arg(long, value_name = "ON|OFF")]
    crop: Option<Switch>,
    /// Leave out windows without body: on or off.
    #[arg(long, value_name = "ON|OFF")]
    skip: Option<Switch>,
    /// How the mask comes back to the slices: probability or label.
    #[arg(long, value_parser = mask_back)]
    mask_back: Option<MaskBack>,
    /// Clean components and holes as the manifest says: on or off.
    #[arg(long, value_name = "ON|OFF")]
    clean: Option<Switch>,
    /// Let the mask follow the CT's edge between aerated lung and soft tissue: on or off.
    #[arg(long, value_name = "ON|OFF")]
    boundary: Option<Switch>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Switch {
    fn is_on(self) -> bool {
        self == Switch::On
    }
}

fn blend(word: &str) -> Result<Blend, String> {
    match word {
        "constant" => Ok(Blend::Constant),
        "gaussian" => Ok(Blend::Gaussian),
        _ => Err("constant or gaussian".into()),
    }
}

fn overlap(number: &str) -> Result<f64, String> {
    let part = number.parse().ok().filter(|part| (0.0..1.0).contains(part));
    part.ok_or_else(|| "a number of at least 0 and below 1".into())
}

fn mask_back(word: &str) -> Result<MaskBack, String> {
    match word {
        "probability" => Ok(MaskBack::Probability),
        "label" => Ok(MaskBack::Label),
        _ => Err("probability or label".into()),
    }
}

pub(super) fn run(arguments: &Arguments, mut settings: Settings, verbose: u8) -> anyhow::Result<End> {
    overrule(&mut settings, arguments);
    let manifest = Manifest::load(&models::manifest_path(&settings.model.name, &settings.model.folder)?)?
        .with(&settings.overrides)?;
    let Input { mut series, others } = input::read(&arguments.paths, &settings.series, verbose)?;
    if let Some(wanted) = &arguments.series {
        series.retain(|one| one.series_instance_uid == *wanted);
        if series.is_empty() {
            bail!("no series {wanted} lies there; `hilum inspect` lists what does");
        }
    }
    if series.is_empty() {
        return nothing(arguments, &others);
    }
    let cancel = CancelFlag::default();
    let on_signal = cancel.clone();
    ctrlc::set_handler(move || on_signal.cancel()).context("cannot listen for Ctrl-C")?;

    let mut run = Run {
        arguments,
        manifest: &manifest,
        reader: FrameReader::new(settings.decoder.options()),
        segment: settings.segment(),
        session: None,
        settings: &settings,
        cancel,
        told: Vec::new(),
    };
    let mut end = End::AllRefused;
    let folders = folder_names(&series);
    for (one, folder) in series.iter().zip(&folders) {
        match run.one(one, &arguments.out.join(folder)) {
            Ok(Outcome::Refused) => {}
            Ok(_) if end == End::AllRefused => end = End::Done,
            Ok(_) => {}
            Err(error) if matches!(error.downcast_ref(), Some(SegmentError::Canceled)) => {
                run.print(&others)?;
                return Err(error);
            }
            Err(error) => {
                run.failed(one, &error);
                end = End::Failed;
            }
        }
    }
    run.print(&others)?;
    Ok(end)
}

/// Settings with the options of the command line over them.
fn overrule(settings: &mut Settings, arguments: &Arguments) {
    let output = &mut settings.output;
    if let Some(formats) = &arguments.format {
        output.formats = formats.clone();
    }
    output.segments = arguments.segments.unwrap_or(output.segments);
    output.frames = arguments.frames.unwrap_or(output.frames);
    output.transfer_syntax = arguments.transfer_syntax.unwrap_or(output.transfer_syntax);
    settings.decoder.trust_input |= arguments.trust_input;
    let model = &mut settings.model;
    if let Some(name) = &arguments.model {
        model.name = name.clone();
    }
    model.device = arguments.device.unwrap_or(model.device);
    model.threads = arguments.threads.unwrap_or(model.threads);
    let (overrides, given) = (&mut settings.overrides, &arguments.overrides);
    overrides.blend = given.blend.or(overrides.blend);
    overrides.overlap = given.overlap.or(overrides.overlap);
    overrides.mask_back = given.mask_back.or(overrides.mask_back);
    overrides.crop_to_body = given.crop.map(Switch::is_on).or(overrides.crop_to_body);
    overrides.skip_empty = given.skip.map(Switch::is_on).or(overrides.skip_empty);
    overrides.clean_up = given.clean.map(Switch::is_on).or(overrides.clean_up);
    overrides.boundary = given.boundary.map(Switch::is_on).or(overrides.boundary);
}

fn nothing(arguments: &Arguments, others: &Others) -> anyhow::Result<End> {
    if arguments.json {
        say(serde_json::to_string_pretty(&Printed {
            series: Vec::new(),
            others,
        })?);
    }
    report_nothing(others);
    Ok(End::AllRefused)
}

#[expect(
    clippy::print_stderr,
    reason = "what a person should know although standard output may be JSON"
)]
fn report_nothing(others: &Others) {
    let unreadable = match others.unreadable.len() {
        0 => String::new(),
        n => format!("{n} files could not be read, "),
    };
    eprintln!(
        "hilum: no DICOM series was found ({unreadable}{} files passed over; -v names them)",
        others.passed_over
    );
}

/// One run over several series.
struct Run<'a> {
    arguments: &'a Arguments,
    manifest: &'a Manifest,
    reader: FrameReader,
    segment: segment::Settings,
    /// Opened with the first series that is not refused.
    session: Option<Session>,
    settings: &'a Settings,
    cancel: CancelFlag,
    told: Vec<Told>,
}

/// The JSON document on standard output.
#[derive(Serialize)]
struct Printed<'a> {
    series: Vec<serde_json::Value>,
    #[serde(flatten)]
    others: &'a Others,
}

/// What is said of a series at the end.
enum Told {
    Report(Box<Report>),
    Failure { series_instance_uid: String, error: String },
}

impl Run<'_> {
    fn one(&mut self, series: &Series, folder: &Path) -> anyhow::Result<Outcome> {
        let name = short(&series.series_instance_uid);
        let progress = Progress::new(&name, self.arguments.quiet || self.arguments.json);
        let segmented = self.segment(series, &progress);
        progress.end();
        let Segmented { report, artifacts } = segmented?;
        self.write(folder, &artifacts)?;
        let outcome = report.verdict.outcome;
        if !self.arguments.json {
            summary(&report, folder, &artifacts);
        }
        self.told.push(Told::Report(Box::new(report)));
        Ok(outcome)
    }

    fn segment(&mut self, series: &Series, progress: &Progress) -> anyhow::Result<Segmented> {
        let tools = Tools {
            reader: &self.reader,
            manifest: self.manifest,
            settings: &self.segment,
            observer: progress,
            cancel: &self.cancel,
        };
        let prepared = match segment::prepare(series, &tools)? {
            Preparation::Refused(verdict) => return Ok(segment::refused(series, verdict, &tools)?),
            Preparation::Ready(prepared) => prepared,
        };
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(self.manifest, &self.settings.model.session_options())?),
        };
        let predicted = segment::predict(*prepared, session, &tools)?;
        Ok(segment::finish(series, predicted, &session.provider(), &tools)?)
    }

    /// Writes the results; what an earlier run left under other choices goes.
    fn write(&self, folder: &Path, artifacts: &[Artifact]) -> anyhow::Result<()> {
        for name in ARTIFACT_NAMES {
            if !artifacts.iter().any(|artifact| artifact.name == name) {
                remove_stale(folder, name)?;
            }
        }
        // The report comes last, and an earlier one goes first: none stands beside what it does not name.
        remove_stale(folder, REPORT)?;
        for artifact in artifacts {
            write_whole(folder, artifact.name, &artifact.bytes)?;
        }
        Ok(())
    }

    #[expect(
        clippy::print_stderr,
        reason = "a failure is told at once, beside the others' results"
    )]
    fn failed(&mut self, series: &Series, error: &anyhow::Error) {
        let error = told(error);
        eprintln!("hilum: series {}: {error}", series.series_instance_uid);
        self.told.push(Told::Failure {
            series_instance_uid: series.series_instance_uid.clone(),
            error,
        });
    }

    /// All reports as one JSON document, where that was asked for.
    fn print(&self, others: &Others) -> anyhow::Result<()> {
        if !self.arguments.json {
            others.told().into_iter().for_each(say);
            return Ok(());
        }
        let series = self
            .told
            .iter()
            .map(|told| match told {
                Told::Report(report) => serde_json::to_value(report),
                Told::Failure {
                    series_instance_uid,
                    error,
                } => Ok(serde_json::json!({ "series_instance_uid": series_instance_uid, "error": error })),
            })
            .collect::<Result<Vec<_>, _>>()?;
        say(serde_json::to_string_pretty(&Printed { series, others })?);
        Ok(())
    }
}

/// A folder for each series: its UID where that is digits and dots. Where several sets share a UID (its study's UID differs in some slices, say), the one with
/// the most instances has it; the others, and those without a UID, have one derived from their study, UID and place, so that no set writes over another.
fn folder_names(series: &[Series]) -> Vec<String> {
    let mut holders: HashMap<&str, &Series> = HashMap::new();
    for one in series {
        let holder = holders.entry(&one.series_instance_uid).or_insert(one);
        if one.instances.len() > holder.instances.len() {
            *holder = one;
        }
    }
    let name = |one: &Series| {
        let uid = &one.series_instance_uid;
        if is_valid_uid(uid)
            && holders
                .get(uid.as_str())
                .is_some_and(|holder| std::ptr::eq(*holder, one))
        {
            return uid.clone();
        }
        let place = one.instances.first().and_then(|instance| instance.source.path.parent());
        let place = place.unwrap_or(Path::new("")).as_os_str().as_encoded_bytes();
        derived_uid(&[one.study_instance_uid.as_bytes(), uid.as_bytes(), place].join(&0))
    };
    series.iter().map(name).collect()
}

/// The end of a UID, which tells series apart on a line.
fn short(uid: &str) -> String {
    let from = uid.char_indices().rev().nth(11).map_or(0, |(at, _)| at);
    format!("...{}", &uid[from..])
}

/// What a person reads of one series.
fn summary(report: &Report, folder: &Path, artifacts: &[Artifact]) {
    say(format!(
        "{}  series {}",
        input::word(report.verdict.outcome),
        report.series.series_instance_uid
    ));
    for finding in report.verdict.findings.iter().chain(&report.mask_findings) {
        say(format!("  {}: {}", finding.code, finding.sentence));
    }
    if let Some(measurements) = &report.measurements {
        let lungs = [
            ("both lungs", Some(&measurements.total)),
            ("right", measurements.right.as_ref()),
            ("left", measurements.left.as_ref()),
        ];
        for (name, lung) in lungs {
            let Some(lung) = lung else { continue };
            let density = lung.density.as_ref().map_or_else(String::new, |d| {
                format!(
                    ", mean {:.0} HU, below -950 HU {:.1} %, above -300 HU {:.1} %, {:.0} g",
                    d.mean_hu,
                    100.0 * d.fraction_below_minus_950_hu,
                    100.0 * d.fraction_above_minus_300_hu,
                    d.mass_g
                )
            });
            say(format!("  {name}: {:.0} mL{density}", lung.volume_ml));
        }
        if !measurements.density_notes.is_empty() {
            let codes: Vec<String> = measurements.density_notes.iter().map(ToString::to_string).collect();
            say(format!("  densities are distorted by: {}", codes.join(", ")));
        }
    }
    for left_out in &report.left_out {
        say(format!("  {}: {}", left_out.name, left_out.sentence));
    }
    for artifact in artifacts {
        say(format!("  {}", folder.join(artifact.name).display()));
    }
    let seconds: f64 = report.timings.iter().map(|t| t.seconds).sum();
    if seconds > 0.0 {
        say(format!("  {:.1} s", Duration::from_secs_f64(seconds).as_secs_f64()));
    }
}
