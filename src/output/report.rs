//! The report of one series: what was read, what was found, what was made and how, without anything that names a person.
//!
//! `docs/report.schema.json` is its schema, `docs/report.md` explains it. A field is added under the same schema version; a field that changes its meaning or goes raises
//! the version.

use serde::Serialize;

use super::OutputError;
use crate::lungs::{BoundaryReport, CleanReport, Measurements, Sides};
use crate::model::{Parameters, Provider};
use crate::series::{Finding, Verdict};

/// The version of the schema.
pub const SCHEMA: u32 = 1;

/// What there is to say of one series.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the schema: 1.
    pub schema: u32,
    /// Version of Hilum.
    pub hilum_version: &'static str,
    /// Goes up with every change to Hilum that can change a mask.
    pub pipeline_revision: u32,
    /// Which series it is.
    pub series: SeriesIdentity,
    /// The service's job for the same series before more slices came or the network changed; absent where there is none, and on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<String>,
    /// The verdict on the series.
    pub verdict: Verdict,
    /// The verdict on the mask; empty in a series without remarks, and in a refused one.
    pub mask_findings: Vec<Finding>,
    /// Figures of the lungs; absent where no lungs were found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measurements: Option<Measurements>,
    /// How right and left were told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sides: Option<Sides>,
    /// What clean-up did to the mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_up: Option<CleanReport>,
    /// What came in and what went as the mask's surface followed the CT's edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<BoundaryReport>,
    /// The volume; absent in a refused series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeFacts>,
    /// The network; absent in a refused series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelFacts>,
    /// What ran the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Windows of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowFacts>,
    /// Seconds of each stage, in their order. Stages that run beside others are counted from their begin to their end.
    pub timings: Vec<StageSeconds>,
    /// The files that were made beside this report.
    pub files: Vec<FileFacts>,
    /// What was asked for and could not be made, although the rest could; absent if nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Research use only.
    pub notice: &'static str,
}

/// Which series a report is about.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SeriesIdentity {
    /// StudyInstanceUID, as stored.
    pub study_instance_uid: String,
    /// SeriesInstanceUID, as stored.
    pub series_instance_uid: String,
    /// Modality.
    pub modality: String,
    /// Instances that were found.
    pub instances: usize,
    /// Manufacturer of the scanner.
    pub manufacturer: String,
    /// Its model.
    pub manufacturer_model_name: String,
    /// ConvolutionKernel.
    pub convolution_kernel: String,
    /// SliceThickness in millimetres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice_thickness_mm: Option<f64>,
}

/// The volume that was segmented.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeFacts {
    /// Slices, rows, columns.
    pub shape: [usize; 3],
    /// Millimetres between rows, between columns.
    pub pixel_spacing_mm: [f64; 2],
    /// Usual distance between slices in millimetres.
    pub slice_spacing_mm: f64,
    /// Slices are straight and evenly spaced, so that one affine places them.
    pub regular: bool,
    /// The network's grid before it was cropped: voxels along z, y, x.
    pub network_shape: [usize; 3],
    /// The network's grid as it ran: voxels along z, y, x.
    pub network_shape_run: [usize; 3],
}

/// The network.
#[derive(Clone, Debug, Serialize)]
pub struct ModelFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 over its weights.
    pub weights_sha256: String,
    /// Everything else that can change a mask.
    pub parameters: Parameters,
    /// SHA-256 of the parameters.
    pub parameters_sha256: String,
}

/// Windows of the network.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WindowFacts {
    /// Windows that cover the grid.
    pub total: usize,
    /// Windows that the network saw.
    pub run: usize,
    /// Windows without body, which it did not see.
    pub skipped: usize,
    /// Windows that it saw in an earlier attempt of the job, whose answer was kept.
    pub reused: usize,
}

/// How long a stage took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StageSeconds {
    /// Its name.
    pub stage: &'static str,
    /// Seconds by the clock.
    pub seconds: f64,
    /// Seconds of processor time of the whole process meanwhile, all threads together. Decoder processes are not in it; in the service, what else it does is.
    pub processor_seconds: f64,
}

/// A file that was made.
#[derive(Clone, Debug, Serialize)]
pub struct FileFacts {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub bytes: usize,
    /// How long it took to make, in seconds; the files are made side by side.
    pub seconds: f64,
    /// How long it took to read it back and hold it against the mask, in seconds; none where that is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_seconds: Option<f64>,
    /// What has to be known of it; empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Of a DICOM Segmentation: which object it is, and the profile that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<SegmentationFacts>,
}

/// A DICOM Segmentation among the files, in the words of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentationFacts {
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// lung or left-right; one segment stands in for two where the sides are uncertain.
    pub segments: &'static str,
    /// full or sparse.
    pub frames: &'static str,
    /// explicit or deflated.
    pub transfer_syntax: &'static str,
}

/// A file that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub name: &'static str,
    /// Why, as a sentence.
    pub sentence: String,
}

impl Report {
    /// The report as JSON text.
    ///
    /// # Errors
    /// A number that JSON does not have.
    pub fn to_json(&self) -> Result<Vec<u8>, OutputError> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::*;
    use crate::lungs::{Told, measure};
    use crate::model::{Activation, Axes, Blend, Device, MaskBack, NotUsed, Post};
    use crate::series::{Code, Outcome};
    use crate::volume::{Grid, GridSpecification, Mask, Volume, Voxels};

    fn measurements() -> Measurements {
        let grid = Grid {
            rows: 2,
            columns: 2,
            origins: vec![[0.0; 3], [0.0, 0.0, 1.0]],
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            normal: [0.0, 0.0, 1.0],
            spacing_mm: [1.0; 2],
        };
        let voxels = Voxels::I16(vec![-800, -820, -840, -860, -880, -900, -920, -940]);
        let mask = Mask {
            shape: [2; 3],
            labels: vec![1, 2, 1, 2, 1, 2, 1, 2],
        };
        measure(
            &mask,
            &Volume {
                grid,
                voxels,
                padding_hu: vec![None; 2],
            },
        )
        .unwrap()
        .noting(&Verdict::from_findings(vec![Finding::new(Code::SharpKernel, "Sharp.")]))
    }

    /// A report in which nothing is absent.
    fn full() -> Report {
        let finding = Finding {
            concerns: vec!["slice 3".into()],
            ..Finding::new(Code::LungsCut, "The lungs are cut.")
        };
        Report {
            schema: SCHEMA,
            hilum_version: "0.1.0",
            pipeline_revision: 1,
            series: SeriesIdentity {
                slice_thickness_mm: Some(1.0),
                ..SeriesIdentity::default()
            },
            predecessor: Some("00000000-0000-4000-8000-000000000001".into()),
            verdict: Verdict {
                outcome: Outcome::Repaired,
                findings: vec![finding.clone()],
            },
            mask_findings: vec![finding],
            measurements: Some(measurements()),
            sides: Some(Sides {
                told: Told::Cut,
                right_ml: 1.0,
                left_ml: 1.0,
                midline_x_mm: 0.0,
                apart_mm: 1.0,
                bridge_cm2: 1.0,
                doubtful_ml: 0.0,
                confidence: 1.0,
            }),
            clean_up: Some(CleanReport {
                components: 1,
                component_ml: vec![1.0],
                found_ml: 1.0,
                dropped: 0,
                dropped_ml: 0.0,
                holes_filled: 0,
                filled_ml: 0.0,
                fat_ml: 0.0,
            }),
            boundary: Some(BoundaryReport {
                doubtful_ml: 0.5,
                added_ml: 1.5,
                removed_ml: 2.5,
            }),
            volume: Some(VolumeFacts {
                shape: [2; 3],
                pixel_spacing_mm: [1.0; 2],
                slice_spacing_mm: 1.0,
                regular: true,
                network_shape: [2; 3],
                network_shape_run: [2; 3],
            }),
            model: Some(ModelFacts {
                name: "model".into(),
                version: "1".into(),
                weights_sha256: "0".into(),
                parameters: Parameters {
                    axes: Axes::Xyz,
                    activation: Activation::Softmax,
                    foreground_channel: 1,
                    threshold: 0.5,
                    grid: GridSpecification {
                        spacing_mm: [0.8, 0.8, 5.0],
                        orientation: "LPS".into(),
                        window_hu: [-1500.0, 500.0],
                        window_to: [0.0, 1.0],
                        straighten_over_degrees: 20.0,
                    },
                    roi: [224, 224, 32],
                    overlap: 0.25,
                    blend: Blend::Constant,
                    crop_to_body: true,
                    crop_above_hu: -500.0,
                    crop_margin_mm: 10.0,
                    skip_empty: true,
                    post: Post {
                        mask_back: MaskBack::Probability,
                        keep_components: 2,
                        min_component_ml: 50.0,
                        fill_holes_ml: 20.0,
                        boundary_mm: 4.0,
                        boundary_hu: -400.0,
                        aerated_threshold: Some(0.12),
                        fat_hu: Some([-140.0, -40.0]),
                    },
                },
                parameters_sha256: "0".into(),
            }),
            provider: Some(Provider {
                device: Device::Cpu,
                name: "CPUExecutionProvider".into(),
                nodes_on_provider: 1,
                nodes_total: 1,
                not_used: vec![NotUsed {
                    device: Device::Cuda,
                    why: "no driver".into(),
                }],
                graph: "model.onnx".into(),
                runtime_version: "1.24.4".into(),
                threads: 2,
                batch: 1,
                warm_up_ms: 1.0,
            }),
            windows: Some(WindowFacts {
                total: 2,
                run: 1,
                skipped: 1,
                reused: 0,
            }),
            timings: vec![StageSeconds {
                stage: "read",
                seconds: 0.1,
                processor_seconds: 0.2,
            }],
            files: vec![FileFacts {
                name: "mask.nii.gz",
                bytes: 10,
                seconds: 0.1,
                verified_seconds: Some(0.1),
                note: "resampled".into(),
                segmentation: Some(SegmentationFacts {
                    sop_instance_uid: "2.25.1".into(),
                    segments: "lung",
                    frames: "full",
                    transfer_syntax: "explicit",
                }),
            }],
            left_out: vec![LeftOut {
                name: "ct.nii.gz",
                sentence: "It cannot be made.".into(),
            }],
            notice: "Research use only. Not for diagnosis.",
        }
    }

    /// Holds a value against what of JSON Schema the schema uses; `complete` asks that every property it names is there.
    fn hold(value: &Value, schema: &Value, root: &Value, path: &str, complete: bool) {
        if let Some(name) = schema["$ref"].as_str() {
            let named = root
                .pointer(name.trim_start_matches('#'))
                .unwrap_or_else(|| panic!("{name} is not defined"));
            return hold(value, named, root, path, complete);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let choice = &choices[usize::from(!value.is_null())];
            return hold(value, choice, root, path, complete);
        }
        if let Some(values) = schema["enum"].as_array() {
            assert!(values.contains(value), "{path}: {value} is not one of {values:?}");
            return;
        }
        if let Some(only) = schema.get("const") {
            assert_eq!(value, only, "{path}");
            return;
        }
        match schema["type"].as_str() {
            Some("object") => {
                let (properties, object) = (
                    schema["properties"].as_object().unwrap(),
                    value.as_object().unwrap_or_else(|| panic!("{path}: {value}")),
                );
                for (name, value) in object {
                    let property = properties
                        .get(name)
                        .unwrap_or_else(|| panic!("{path}/{name} is not in the schema"));
                    hold(value, property, root, &format!("{path}/{name}"), complete);
                }
                let required = schema["required"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| name.as_str().unwrap().to_owned());
                let wanted: Vec<String> = if complete {
                    properties.keys().cloned().collect()
                } else {
                    required.collect()
                };
                for name in wanted {
                    assert!(object.contains_key(&name), "{path}/{name} is missing");
                }
            }
            Some("array") => {
                let items = value.as_array().unwrap_or_else(|| panic!("{path}: {value}"));
                if let Some(length) = schema["minItems"].as_u64() {
                    assert_eq!(items.len() as u64, length, "{path}");
                }
                items
                    .iter()
                    .for_each(|item| hold(item, &schema["items"], root, &format!("{path}[]"), complete));
            }
            Some("string") => assert!(value.is_string(), "{path}: {value}"),
            Some("number") => assert!(value.is_number(), "{path}: {value}"),
            Some("integer") => assert!(value.is_u64(), "{path}: {value}"),
            Some("boolean") => assert!(value.is_boolean(), "{path}: {value}"),
            Some("null") => assert!(value.is_null(), "{path}: {value}"),
            other => panic!("{path}: the schema has a type {other:?}"),
        }
    }

    fn schema() -> Value {
        serde_json::from_str(include_str!("../../docs/report.schema.json")).unwrap()
    }

    #[test]
    fn the_schema_names_every_field_of_a_full_report_and_no_other() {
        let value = serde_json::from_slice(&full().to_json().unwrap()).unwrap();
        hold(&value, &schema(), &schema(), "", true);
    }

    #[test]
    fn the_report_of_a_refused_series_has_what_the_schema_requires() {
        let report = Report {
            predecessor: None,
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
            ..full()
        };
        let value = serde_json::from_slice(&report.to_json().unwrap()).unwrap();
        hold(&value, &schema(), &schema(), "", false);
    }
}
