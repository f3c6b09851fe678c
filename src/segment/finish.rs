//! What the network made of a series in, everything that a user keeps out: the mask on the source slices, cleaned, parted, measured, judged, and the files made of it.

use std::time::Instant;

use rayon::prelude::*;

use super::{
    Artifact, CT, Format, MASK, OVERLAY, PIPELINE_REVISION, Predicted, Profile, REPORT, SegmentError, Segmented,
    Segments, Stage, Timings, Tools, TransferSyntax,
};
use crate::dicom::Header;
use crate::lungs::{
    BoundaryReport, CleanReport, Measurements, Sides, clean, drop_fat, fill_end_holes, follow_boundary, join_sides,
    judge_mask, measure, settle_doubt, sides,
};
use crate::model::{Manifest, MaskBack, Provider};
use crate::output::overlay::Caption;
use crate::output::report::{
    FileFacts, LeftOut, ModelFacts, Report, SCHEMA, SegmentationFacts, SeriesIdentity, VolumeFacts, WindowFacts,
};
use crate::output::segmentation::{build, content_description, default_series_number};
use crate::output::{
    Concept, Frames, ModelIdentity, OutputError, SegmentDescription, SegmentationRequest, nifti, overlay, read_back,
};
use crate::series::{Code, Finding, Series, Stack, Usable, Verdict};
use crate::volume::{Mask, Volume, Way, mask_back};

/// What every report says of its use.
const NOTICE: &str = "Research use only. Not for diagnosis.";

/// The mask of a series and what is known of it.
struct Lungs {
    mask: Mask,
    cleaned: CleanReport,
    boundary: BoundaryReport,
    sides: Sides,
    measured: Measurements,
    findings: Vec<Finding>,
}

impl Lungs {
    fn found(&self, code: Code) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }
}

/// Brings the mask back, cleans, parts, measures and judges it, and makes the results that the settings ask for.
///
/// # Errors
/// A result that cannot be made, or a segmentation that does not say what the mask says when it is read back.
pub fn finish(
    series: &Series,
    predicted: Predicted,
    provider: &Provider,
    tools: &Tools,
) -> Result<Segmented, SegmentError> {
    let Predicted {
        prepared,
        probability,
        windows_run,
        windows_skipped,
        windows_reused,
    } = predicted;
    let (usable, volume, mut timings) = (prepared.usable, prepared.volume, prepared.timings);
    let manifest = tools.manifest;
    let network_shape_run = probability.grid.shape;
    let way = match manifest.post.mask_back {
        MaskBack::Probability => Way::Linear,
        MaskBack::Label => Way::Nearest,
    };
    let mask = timings.measure(Stage::MaskBack, tools.observer, || {
        mask_back(&probability, manifest.cut(), way, &volume.grid)
    });
    drop(probability);
    let lungs = lungs(mask, &volume, &mut timings, tools)?;
    if tools.cancel.is_canceled() {
        return Err(SegmentError::Canceled);
    }
    let model = ModelFacts {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        weights_sha256: manifest.weights_sha256.clone(),
        parameters: manifest.parameters(),
        parameters_sha256: manifest.parameters().digest(),
    };
    let made = timings.measure(Stage::Outputs, tools.observer, || {
        make(series, &usable, &volume, &lungs, &model, tools)
    });
    let Results {
        mut artifacts,
        files,
        left_out,
    } = made?;
    let empty = lungs.found(Code::LungsNotFound);
    let report = Report {
        mask_findings: lungs.findings,
        measurements: (!empty).then(|| lungs.measured.noting(&usable.verdict)),
        sides: (!empty).then_some(lungs.sides),
        clean_up: Some(lungs.cleaned),
        boundary: Some(lungs.boundary),
        volume: Some(VolumeFacts {
            shape: volume.grid.shape(),
            pixel_spacing_mm: volume.grid.spacing_mm,
            slice_spacing_mm: volume.grid.median_step_mm(),
            regular: volume.grid.is_regular(),
            network_shape: prepared.grid.shape,
            network_shape_run,
        }),
        model: Some(model),
        provider: Some(provider.clone()),
        windows: Some(WindowFacts {
            total: windows_run + windows_skipped + windows_reused,
            run: windows_run,
            skipped: windows_skipped,
            reused: windows_reused,
        }),
        timings: timings.0,
        files,
        left_out,
        ..blank(series, first_header(series, &usable.stack), usable.verdict)
    };
    if tools.settings.output.wants(Format::Json) {
        artifacts.push(Artifact {
            name: REPORT,
            bytes: report.to_json()?,
        });
    }
    Ok(Segmented { report, artifacts })
}

/// The report of a series that is refused.
pub(super) fn refused(series: &Series, verdict: Verdict, tools: &Tools) -> Result<Segmented, SegmentError> {
    // Its slices stand in no order, so one is taken that does not depend on the order of files.
    let headers = series.instances.iter().map(|instance| &instance.header);
    let header = headers.min_by_key(|header| &header.sop_instance_uid);
    let report = blank(series, header, verdict);
    let mut artifacts = Vec::new();
    if tools.settings.output.wants(Format::Json) {
        artifacts.push(Artifact {
            name: REPORT,
            bytes: report.to_json()?,
        });
    }
    Ok(Segmented { report, artifacts })
}

/// The header of the lowest slice.
fn first_header<'a>(series: &'a Series, stack: &Stack) -> Option<&'a Header> {
    let instance = series.instances.get(stack.slices.first()?.instance)?;
    Some(&instance.header)
}

/// A report that knows the series, by this header of it, and its verdict.
fn blank(series: &Series, header: Option<&Header>, verdict: Verdict) -> Report {
    let text = |of: fn(&Header) -> &String| header.map(|header| of(header).clone()).unwrap_or_default();
    Report {
        schema: SCHEMA,
        hilum_version: env!("CARGO_PKG_VERSION"),
        pipeline_revision: PIPELINE_REVISION,
        series: SeriesIdentity {
            study_instance_uid: series.study_instance_uid.clone(),
            series_instance_uid: series.series_instance_uid.clone(),
            modality: text(|h| &h.modality),
            instances: series.instances.len(),
            manufacturer: text(|h| &h.manufacturer),
            manufacturer_model_name: text(|h| &h.manufacturer_model_name),
            convolution_kernel: text(|h| &h.convolution_kernel),
            slice_thickness_mm: header.and_then(|h| h.slice_thickness_mm),
        },
        predecessor: None,
        verdict,
        mask_findings: Vec::new(),
        measurements: None,
        sides: None,
        clean_up: None,
        boundary: None,
        volume: None,
        model: None,
        provider: None,
        windows: None,
        timings: Vec::new(),
        files: Vec::new(),
        left_out: Vec::new(),
        notice: NOTICE,
    }
}

/// The mask settled, cleaned, parted into right and left, measured and judged.
fn lungs(mut mask: Mask, volume: &Volume, timings: &mut Timings, tools: &Tools) -> Result<Lungs, SegmentError> {
    let post = &tools.manifest.post;
    let (cleaned, boundary, told) =
        timings.measure(Stage::CleanUp, tools.observer, || -> Result<_, SegmentError> {
            let doubtful_ml = settle_doubt(&mut mask, volume, post.boundary_hu)?;
            let fat = post.fat().map(|fat| drop_fat(&mut mask, volume, &fat)).transpose()?;
            let mut cleaned = clean(&mut mask, &volume.grid, &post.clean_up())?;
            cleaned.fat_ml = fat.unwrap_or_default();
            let (holes, holes_ml) = fill_end_holes(&mut mask, volume, post.fill_holes_ml, post.boundary_hu)?;
            cleaned.holes_filled += holes;
            cleaned.filled_ml += holes_ml;
            let mut boundary = follow_boundary(&mut mask, volume, &post.boundary())?;
            boundary.doubtful_ml = doubtful_ml;
            let told = sides(&mut mask, &volume.grid)?;
            Ok((cleaned, boundary, told))
        })?;
    timings.measure(Stage::Measure, tools.observer, || {
        let measured = measure(&mask, volume)?;
        let findings = judge_mask(&mask, volume, &cleaned, &told, &measured, &tools.settings.mask)?;
        let uncertain = findings.iter().any(|finding| finding.code == Code::SidesUncertain);
        let measured = if uncertain {
            join_sides(&mut mask);
            measured.without_sides()
        } else {
            measured
        };
        Ok(Lungs {
            mask,
            cleaned,
            boundary,
            sides: told,
            measured,
            findings,
        })
    })
}

/// The bytes of a result, what has to be known of it, and how long it took to hold it against the mask.
struct Made {
    bytes: Vec<u8>,
    note: String,
    verified_seconds: Option<f64>,
    segmentation: Option<SegmentationFacts>,
}

impl Made {
    fn plain(bytes: Vec<u8>) -> Made {
        Made {
            bytes,
            note: String::new(),
            verified_seconds: None,
            segmentation: None,
        }
    }
}

/// Every result but the report.
#[derive(Default)]
struct Results {
    artifacts: Vec<Artifact>,
    files: Vec<FileFacts>,
    left_out: Vec<LeftOut>,
}

/// Makes every result but the report, side by side. A NIfTI image that cannot be made is left out: the others do not depend on it, and it is not what is sent to a PACS.
fn make(
    series: &Series,
    usable: &Usable,
    volume: &Volume,
    lungs: &Lungs,
    model: &ModelFacts,
    tools: &Tools,
) -> Result<Results, SegmentError> {
    let wants = |format| tools.settings.output.wants(format);
    let found = !lungs.found(Code::LungsNotFound);
    let one = |wanted: bool, name: &'static str, make: &dyn Fn() -> Result<Made, SegmentError>| {
        let begun = Instant::now();
        let made = wanted.then(make).transpose()?;
        Ok::<_, SegmentError>(made.map(|made| {
            let facts = FileFacts {
                name,
                bytes: made.bytes.len(),
                seconds: begun.elapsed().as_secs_f64() - made.verified_seconds.unwrap_or_default(),
                verified_seconds: made.verified_seconds,
                note: made.note,
                segmentation: made.segmentation,
            };
            let bytes = made.bytes;
            Ok((Artifact { name, bytes }, facts))
        }))
    };
    let image = |wanted: bool, name: &'static str, make: &dyn Fn() -> Result<nifti::Nifti, OutputError>| {
        let exported = one(wanted, name, &|| {
            let image = make()?;
            Ok(Made {
                note: resampled(&image),
                ..Made::plain(image.bytes)
            })
        });
        exported.unwrap_or_else(|error| {
            Some(Err(LeftOut {
                name,
                sentence: format!("The NIfTI image cannot be made and is left out: {error}."),
            }))
        })
    };
    // What the closures need of the tools; the observer may not be shared between threads.
    let (profiles, manifest) = (tools.settings.profiles(), tools.manifest);
    let segmentations = || {
        let wanted = wants(Format::Seg) && found && usable.identity_valid;
        let each = profiles.par_iter().map(|profile| {
            one(wanted, profile.file_name(profiles[0]), &|| {
                segmentation(series, usable, volume, lungs, model, *profile, manifest)
            })
        });
        each.collect::<Result<Vec<_>, _>>()
    };
    let mask = || {
        image(wants(Format::Nifti) && found, MASK, &|| {
            nifti::mask(&lungs.mask, &volume.grid)
        })
    };
    let ct = || image(wants(Format::Ct), CT, &|| nifti::ct(volume));
    let picture = || {
        one(wants(Format::Png), OVERLAY, &|| {
            let caption = caption(series, usable, lungs, model);
            Ok(Made::plain(overlay::draw(volume, &lungs.mask, &caption)?))
        })
    };
    let ((segmentations, mask), (ct, picture)) =
        rayon::join(|| rayon::join(segmentations, mask), || rayon::join(ct, picture));
    let mut results = Results::default();
    for made in segmentations?.into_iter().chain([mask, ct, picture?]).flatten() {
        match made {
            Ok((artifact, facts)) => {
                results.artifacts.push(artifact);
                results.files.push(facts);
            }
            Err(left_out) => results.left_out.push(left_out),
        }
    }
    Ok(results)
}

/// What stands beside the picture: nothing that names a person, and no free text.
fn caption(series: &Series, usable: &Usable, lungs: &Lungs, model: &ModelFacts) -> Caption {
    let header = first_header(series, &usable.stack);
    let measured = &lungs.measured;
    let volumes = match (&measured.right, &measured.left) {
        _ if lungs.found(Code::LungsNotFound) => overlay::Lungs::NotFound,
        (Some(right), Some(left)) => overlay::Lungs::Apart {
            right_ml: right.volume_ml,
            left_ml: left.volume_ml,
        },
        _ => overlay::Lungs::Together(measured.total.volume_ml),
    };
    Caption {
        modality: header.map(|h| h.modality.clone()).unwrap_or_default(),
        kernel: header.map(|h| h.convolution_kernel.clone()).unwrap_or_default(),
        slice_thickness_mm: header.and_then(|h| h.slice_thickness_mm),
        model: format!("{} {}", model.name, model.version),
        lungs: volumes,
        findings: usable
            .verdict
            .findings
            .iter()
            .chain(&lungs.findings)
            .map(|finding| finding.code.to_string())
            .collect(),
    }
}

/// What has to be known of an image whose slices no affine can place.
fn resampled(image: &nifti::Nifti) -> String {
    if image.resampled {
        format!(
            "the slices are not evenly spaced or not straight: resampled to an even grid, {:.3} mm from slice to slice",
            image.step_mm
        )
    } else {
        String::new()
    }
}

/// The DICOM Segmentation of one profile, read back by other code and held against the mask.
fn segmentation(
    series: &Series,
    usable: &Usable,
    volume: &Volume,
    lungs: &Lungs,
    model: &ModelFacts,
    profile: Profile,
    manifest: &Manifest,
) -> Result<Made, SegmentError> {
    let findings: Vec<Finding> = lungs.findings.iter().chain(&usable.verdict.findings).cloned().collect();
    let header = first_header(series, &usable.stack);
    let request = SegmentationRequest {
        series,
        stack: &usable.stack,
        mask: &lungs.mask,
        segments: segments(profile.segments, lungs, manifest),
        frames: Frames::from(profile.frames),
        deflated: profile.transfer_syntax == TransferSyntax::Deflated,
        series_number: default_series_number(header.and_then(|h| h.series_number)),
        series_description: "Hilum lungs".to_owned(),
        content_description: content_description(&findings),
        model: ModelIdentity {
            name: model.name.clone(),
            version: model.version.clone(),
            digest: model.weights_sha256.clone(),
            parameters: format!("{} revision {PIPELINE_REVISION}", model.parameters_sha256),
        },
    };
    let bytes = build(&request)?;
    let built = Instant::now();
    let sop_instance_uid = read_back::verify(&bytes, &request, &volume.grid)?;
    let [segments, frames, transfer_syntax] = profile.words();
    Ok(Made {
        verified_seconds: Some(built.elapsed().as_secs_f64()),
        segmentation: Some(SegmentationFacts {
            sop_instance_uid,
            segments,
            frames,
            transfer_syntax,
        }),
        ..Made::plain(bytes)
    })
}

/// One segment with the concepts of the manifest, or one for each lung where they are told apart.
fn segments(wanted: Segments, lungs: &Lungs, manifest: &Manifest) -> Vec<SegmentDescription> {
    if wanted == Segments::LeftRight && !lungs.found(Code::SidesUncertain) {
        let has = |label| lungs.mask.labels.contains(&label);
        let mut both = Vec::new();
        if has(1) {
            both.push(SegmentDescription::right_lung(1));
        }
        if has(2) {
            both.push(SegmentDescription::left_lung(both.len() as u16 + 1));
        }
        return both;
    }
    let mut lung = SegmentDescription::lung(1);
    if let Some(segment) = manifest.segments.first() {
        let concept = |c: &crate::model::Concept| Concept::new(&c.0, &c.1, &c.2);
        lung.label = segment.label.clone();
        lung.category = concept(&segment.category);
        lung.property_type = concept(&segment.kind);
    }
    vec![lung]
}

#[cfg(test)]
mod tests;
