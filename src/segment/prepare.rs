//! A series in, the volume and the network's input out; or the verdict that refuses it.

use std::cell::RefCell;
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::{SegmentError, Stage, Timings, Tools};
use crate::dicom::PixelError;
use crate::model::CancelFlag;
use crate::series::{
    Code, Finding, Judgement, Names, Series, Settled, Slice, Usable, Verdict, corrupt_pixels, judge, not_hu,
};
use crate::volume::{
    Image, LoadError, RegularGrid, SeriesFrames, SliceError, StoredFrames, Volume, crop_to_body, load, network_grid,
    resample,
};

/// What became of a series before the network.
pub enum Preparation {
    /// It is refused.
    Refused(Verdict),
    /// The network can run.
    Ready(Box<Prepared>),
}

/// A series that is ready for the network.
pub struct Prepared {
    pub(super) usable: Usable,
    pub(super) volume: Volume,
    /// The network's grid before it was cropped to the body.
    pub(super) grid: RegularGrid,
    pub(super) timings: Timings,
    input: Option<Image>,
}

impl Prepared {
    /// The network's input, which is taken once.
    pub(super) fn take_input(&mut self) -> Image {
        self.input.take().unwrap_or_else(|| Image {
            grid: self.grid.clone(),
            values: Vec::new(),
        })
    }

    /// The network's input, for comparison with other pipelines.
    #[must_use]
    pub fn input(&self) -> Option<&Image> {
        self.input.as_ref()
    }

    /// The volume in Hounsfield units.
    #[must_use]
    pub fn volume(&self) -> &Volume {
        &self.volume
    }
}

/// Frames of one series, as slices. Once canceled, it reads no more.
struct Frames<'a> {
    frames: SeriesFrames<'a>,
    cancel: &'a CancelFlag,
}

impl Frames<'_> {
    fn uncanceled(&self, slice: &Slice) -> Result<&SeriesFrames<'_>, PixelError> {
        if self.cancel.is_canceled() {
            return Err(PixelError::Io {
                path: self.frames.instances[slice.instance].source.path.to_path_buf(),
                error: std::io::ErrorKind::Interrupted.into(),
            });
        }
        Ok(&self.frames)
    }
}

impl StoredFrames for Frames<'_> {
    type Error = PixelError;

    fn read(&self, slice: &Slice, out: &mut Vec<i32>) -> Result<(), PixelError> {
        self.uncanceled(slice)?.read(slice, out)
    }

    fn read_plus(&self, slice: &Slice, add: i32, out: &mut [i16]) -> Result<bool, PixelError> {
        self.uncanceled(slice)?.read_plus(slice, add, out)
    }
}

/// Judges and reads a series, and brings it onto the network's grid, cropped to the body where the manifest says so.
///
/// # Errors
/// What is not the input's fault, or `Canceled`.
pub fn prepare(series: &Series, tools: &Tools) -> Result<Preparation, SegmentError> {
    let mut timings = Timings::default();
    let frames = Frames {
        frames: SeriesFrames {
            reader: tools.reader,
            instances: &series.instances,
        },
        cancel: tools.cancel,
    };
    let read = timings.measure(Stage::Read, tools.observer, || read(series, &frames, tools));
    tools.reader.forget();
    // First of all: what could not be read after a cancel says nothing of the series.
    if tools.cancel.is_canceled() {
        return Err(SegmentError::Canceled);
    }
    let (usable, volume) = match read? {
        ControlFlow::Continue(read) => read,
        ControlFlow::Break(verdict) => return Ok(Preparation::Refused(verdict)),
    };
    let specification = &tools.manifest.grid;
    let grid = network_grid(&volume.grid, specification)?;
    let whole = timings.measure(Stage::Resample, tools.observer, || {
        resample(&volume, &grid, specification)
    });
    let input = timings.measure(Stage::Crop, tools.observer, || cropped(whole, tools));
    Ok(Preparation::Ready(Box::new(Prepared {
        usable,
        volume,
        grid,
        timings,
        input: Some(input),
    })))
}

/// The volume, or the verdict that refuses the series.
fn read(
    series: &Series,
    frames: &Frames,
    tools: &Tools,
) -> Result<ControlFlow<Verdict, (Usable, Volume)>, SegmentError> {
    let candidate = match judge(series, &tools.settings.series) {
        Judgement::Refused(verdict) => return Ok(ControlFlow::Break(verdict)),
        Judgement::Usable(candidate) => candidate,
    };
    let before = candidate.verdict().clone();
    let names = Names::new(series);
    let digest = |slice: &Slice| hu_digest(frames, slice).map_err(|error| (names.slice(slice), error));
    let usable = match candidate.settle(&digest) {
        Ok(Settled::Usable(usable)) => usable,
        Ok(Settled::Refused(verdict)) => return Ok(ControlFlow::Break(verdict)),
        Err(faults) => return refuse_pixels(faults, series, before),
    };
    let loaded = match load(&usable.stack, &series.instances, frames) {
        Ok(loaded) => loaded,
        Err(LoadError::Stack) => return Err(SegmentError::Stack),
        Err(LoadError::Slices(faults)) => return refuse_slices(faults, series, &usable),
    };
    if let Some(why) = loaded.values.not_hu() {
        return Ok(ControlFlow::Break(refusal(not_hu(&why.to_string()), usable.verdict)));
    }
    if let Some((_, why)) = loaded.misplaced.first() {
        let of = usable.stack.slices.len();
        let told = format!(
            "in {} of {of} slices, whose intercept is far from the others', {why}",
            loaded.misplaced.len()
        );
        let concerned = loaded
            .misplaced
            .iter()
            .map(|(slice, _)| names.slice(&usable.stack.slices[*slice]));
        let finding = not_hu(&told).about(concerned);
        return Ok(ControlFlow::Break(refusal(finding, usable.verdict)));
    }
    Ok(ControlFlow::Continue((usable, loaded.volume)))
}

/// A digest of a slice's HU, which tells copies from conflicts.
fn hu_digest(frames: &Frames, slice: &Slice) -> Result<[u8; 32], PixelError> {
    thread_local! {
        static STORED: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
    }
    STORED.with_borrow_mut(|stored| {
        frames.read(slice, stored)?;
        let mut digest = Sha256::new();
        for value in stored.iter() {
            digest.update(slice.rescale.hu(*value).to_le_bytes());
        }
        Ok(digest.finalize().into())
    })
}

/// The verdict of a series whose slices could not be read, where that is their own fault.
fn refuse_slices(
    faults: Vec<(usize, SliceError<PixelError>)>,
    series: &Series,
    usable: &Usable,
) -> Result<ControlFlow<Verdict, (Usable, Volume)>, SegmentError> {
    let names = Names::new(series);
    let mut errors = Vec::new();
    let mut lengths = Vec::new();
    for (slice, fault) in faults {
        let name = names.slice(&usable.stack.slices[slice]);
        match fault {
            SliceError::Read(error) => errors.push((name, error)),
            SliceError::Length { .. } => lengths.push(format!("{name}: {fault}")),
        }
    }
    if errors.is_empty() {
        let finding = corrupt_pixels(frames(series), "slice", lengths);
        return Ok(ControlFlow::Break(refusal(finding, usable.verdict.clone())));
    }
    refuse_pixels(errors, series, usable.verdict.clone())
}

/// The same, of slices by their names.
fn refuse_pixels(
    mut errors: Vec<(String, PixelError)>,
    series: &Series,
    before: Verdict,
) -> Result<ControlFlow<Verdict, (Usable, Volume)>, SegmentError> {
    if let Some(at) = errors.iter().position(|(_, error)| !error.is_the_inputs_fault()) {
        return Err(errors.swap_remove(at).1.into());
    }
    let told = errors.iter().map(|(name, error)| format!("{name}: {}", error.reason()));
    let told: Vec<String> = told.collect();
    let unsupported = errors.iter().find_map(|(_, error)| match error {
        PixelError::UnsupportedTransferSyntax { name, uid, .. } => Some(format!(
            "The pixels are coded as {name} ({uid}), which Hilum does not read. Send them uncompressed."
        )),
        _ => None,
    });
    let finding = match unsupported {
        Some(sentence) => Finding::new(Code::UnsupportedTransferSyntax, sentence).about(told),
        None => corrupt_pixels(frames(series), "slice", told),
    };
    Ok(ControlFlow::Break(refusal(finding, before)))
}

/// How many slices the files of a series hold.
fn frames(series: &Series) -> usize {
    series
        .instances
        .iter()
        .map(|instance| instance.header.frames.len())
        .sum()
}

/// A refusal on top of what was found before.
fn refusal(finding: Finding, before: Verdict) -> Verdict {
    let mut findings = vec![finding];
    findings.extend(before.findings);
    Verdict::from_findings(findings)
}

/// The part of the network's input that holds the body, where the manifest wants it cropped.
fn cropped(whole: Image, tools: &Tools) -> Image {
    let windows = &tools.manifest.windows;
    let body = windows
        .crop_to_body
        .then(|| {
            crop_to_body(
                &whole,
                &tools.manifest.grid,
                windows.crop_above_hu,
                windows.crop_margin_mm,
            )
        })
        .flatten();
    match body {
        Some(body) => whole.cropped(&body),
        None => whole,
    }
}
