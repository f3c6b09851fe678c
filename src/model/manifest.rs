//! The text of a manifest in, the contract with a network out: which tensors it has, on which grid it wants to see, how windows move, what its answer means.
//!
//! `docs/models.md` explains every key. Nothing here opens a graph; `verify` compares one with its manifest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ManifestError;
use super::{Device, WindowOptions};
use crate::lungs::{Boundary, CleanUp, Fat};
use crate::volume::{Cut, GridSpecification};

/// A manifest is a page of text; more is not read.
const MAX_BYTES: u64 = 1 << 20;

/// The contract with a network: `NAME.toml` beside its graphs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub schema: u32,
    /// The network's name, also that of the file.
    pub name: String,
    /// The network's own version.
    pub version: String,
    /// Licence of the weights.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Identity of the network: SHA-256 over its weights, the same for every graph.
    pub weights_sha256: String,
    /// The same network in one or more forms.
    #[serde(rename = "graph")]
    pub graphs: Vec<Graph>,
    /// The tensor that goes in: `[batch][1][..roi]`.
    pub input: Input,
    /// The tensor that comes out: `[batch][channels][..roi]`.
    pub output: Output,
    /// The grid that it wants to see.
    pub grid: GridSpecification,
    /// How it is moved over the grid.
    pub windows: WindowSettings,
    /// From its answer to a mask.
    pub post: Post,
    /// What the mask means.
    #[serde(rename = "segment")]
    pub segments: Vec<Segment>,
    /// The folder in which the graphs lie; not part of the text.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// One ONNX file and the devices that run it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// File name, in the manifest's folder.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The devices for which this form is meant.
    pub devices: Vec<Device>,
}

/// The network's input.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name of the tensor.
    pub name: String,
    /// Order of the spatial axes, in the output too.
    pub axes: Axes,
}

/// The network's output.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Name of the tensor.
    pub name: String,
    /// Number of channels.
    pub channels: usize,
    /// From raw values to probabilities.
    pub activation: Activation,
    /// The channel that means lung, from 0.
    pub foreground_channel: usize,
    /// From this probability on a voxel is lung.
    pub threshold: f32,
}

/// Order of the spatial axes in the tensors, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axes {
    /// Slices, rows, columns: as images lie in memory here.
    Zyx,
    /// Columns, rows, slices: as NIfTI files and most MONAI networks have it.
    Xyz,
}

/// From the network's raw values to probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `1 / (1 + exp(-x))` of the foreground channel.
    Sigmoid,
    /// `exp(x) / sum of exp` over the channels.
    Softmax,
    /// The network gives probabilities already.
    None,
}

/// How overlapping windows are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blend {
    /// All alike.
    Constant,
    /// By distance from the window's centre, sigma an eighth of the window.
    Gaussian,
}

/// How windows move over the grid, and what is left out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSettings {
    /// Voxels of a window along x, y, z.
    pub roi: [usize; 3],
    /// Part of a window that the next one covers again, 0 to below 1.
    pub overlap: f64,
    /// How overlapping windows are weighted.
    pub blend: Blend,
    /// Windows in one run, where the graph leaves that open.
    pub batch: usize,
    /// The grid is cropped to the body first.
    pub crop_to_body: bool,
    /// Body is what is above this, in Hounsfield units.
    pub crop_above_hu: f32,
    /// Millimetres kept around the body, on every side.
    pub crop_margin_mm: f64,
    /// Windows without body are not run.
    pub skip_empty: bool,
}

/// From probabilities to a mask on the source slices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Post {
    /// What is carried back to the source slices.
    pub mask_back: MaskBack,
    /// So many largest components are kept; 0 keeps all.
    pub keep_components: usize,
    /// Components below this volume are dropped even so, in millilitres.
    pub min_component_ml: f64,
    /// Enclosed holes up to this volume are filled, in millilitres; 0 fills none.
    pub fill_holes_ml: f64,
    /// So many millimetres in plane the mask follows the CT's edge between aerated lung and soft tissue; 0 not at all.
    #[serde(default = "boundary_mm")]
    pub boundary_mm: f64,
    /// Below this a voxel is aerated for that step, in Hounsfield units.
    #[serde(default = "boundary_hu")]
    pub boundary_hu: f32,
    /// From this value on, though below the threshold, what is aerated is lung; where the key is absent, the threshold alone decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aerated_threshold: Option<f64>,
    /// Even tissue between these is fat and no lung, in Hounsfield units; where the key is absent, fat is not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fat_hu: Option<[f32; 2]>,
}

/// What holds where a manifest is silent.
fn boundary_mm() -> f64 {
    Boundary::BAND_MM
}

/// As [`boundary_mm`].
fn boundary_hu() -> f32 {
    Boundary::ABOVE_LUNG_HU
}

/// What is carried back from the network's grid to the source slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskBack {
    /// The probability, interpolated, then cut at the threshold.
    Probability,
    /// The label of the nearest voxel, as the reference pipeline does.
    Label,
}

/// A segment of the result with its coded concepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// SegmentLabel.
    pub label: String,
    /// SegmentNumber, from 1.
    pub number: u16,
    /// SegmentedPropertyCategoryCodeSequence.
    pub category: Concept,
    /// SegmentedPropertyTypeCodeSequence.
    #[serde(rename = "type")]
    pub kind: Concept,
}

/// A coded concept: code value, coding scheme, meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concept(pub String, pub String, pub String);

impl Manifest {
    /// A manifest from its text; its graphs are looked for in the current folder until `folder` is set.
    ///
    /// # Errors
    /// The first key that is missing, unknown, of another type or out of its range, and what was expected there.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        // The schema first, so that a later format is named and not called full of unknown keys.
        #[derive(Deserialize)]
        struct Head {
            schema: Option<toml::Value>,
        }
        let head: Head = toml::from_str(text).map_err(|error| syntax(&error))?;
        if let Some(schema) = head.schema.filter(|schema| schema.as_integer() != Some(1)) {
            return Err(ManifestError::Invalid {
                key: "schema".into(),
                expected: "1, the format that this version reads".into(),
                found: schema.to_string(),
            });
        }
        let manifest: Manifest = toml::from_str(text).map_err(|error| syntax(&error))?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// The manifest in a file; its graphs lie in the same folder.
    ///
    /// # Errors
    /// As [`Manifest::parse`], and when the file cannot be read.
    pub fn load(path: &Path) -> Result<Manifest, ManifestError> {
        let unreadable = |source| ManifestError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let length = std::fs::metadata(path).map_err(unreadable)?.len();
        if length > MAX_BYTES {
            return Err(ManifestError::Syntax(format!(
                "{} has {length} bytes, a manifest is a page of text",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut manifest = Manifest::parse(&text).map_err(|error| match error {
            ManifestError::Syntax(message) => ManifestError::Syntax(format!("{}: {message}", path.display())),
            other => other,
        })?;
        manifest.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(manifest)
    }

    /// The graph meant for a device (`Auto` has none of its own).
    #[must_use]
    pub fn graph_for(&self, device: Device) -> Option<&Graph> {
        self.graphs.iter().find(|graph| graph.devices.contains(&device))
    }

    /// Where a graph lies.
    #[must_use]
    pub fn path_of(&self, graph: &Graph) -> PathBuf {
        self.folder.join(&graph.file)
    }

    /// From which value of the network on a voxel is lung, or may be.
    #[must_use]
    pub fn cut(&self) -> Cut {
        let threshold = self.output.threshold;
        Cut {
            threshold,
            doubtful_from: self.post.aerated_threshold.map_or(threshold, |value| value as f32),
        }
    }

    /// How windows are moved over an image of this network's grid.
    #[must_use]
    pub fn window_options(&self) -> WindowOptions {
        WindowOptions {
            roi: self.windows.roi,
            overlap: self.windows.overlap,
            blend: self.windows.blend,
            axes: self.input.axes,
            channels: self.output.channels,
            activation: self.output.activation,
            foreground_channel: self.output.foreground_channel,
            skip_below: self.windows.skip_empty.then(|| self.scaled(self.windows.crop_above_hu)),
        }
    }

    /// A Hounsfield value as the network sees it.
    fn scaled(&self, hu: f32) -> f32 {
        let ([low, high], [from, to]) = (self.grid.window_hu, self.grid.window_to);
        ((hu - low) / (high - low)).clamp(0.0, 1.0) * (to - from) + from
    }

    /// The tensor's shape of a batch of windows, spatial axes in the network's order.
    #[must_use]
    pub fn tensor_shape(&self, batch: usize, channels: usize) -> [usize; 5] {
        let [x, y, z] = self.windows.roi;
        match self.input.axes {
            Axes::Zyx => [batch, channels, z, y, x],
            Axes::Xyz => [batch, channels, x, y, z],
        }
    }
}

impl Post {
    /// The part that moves the mask's surface to the CT's edge.
    #[must_use]
    pub fn boundary(&self) -> Boundary {
        Boundary {
            band_mm: self.boundary_mm,
            aerated_below_hu: self.boundary_hu,
        }
    }

    /// What counts as fat, if it is looked for.
    #[must_use]
    pub fn fat(&self) -> Option<Fat> {
        self.fat_hu.map(|[above_hu, below_hu]| Fat { above_hu, below_hu })
    }

    /// The part that works on the mask alone.
    #[must_use]
    pub fn clean_up(&self) -> CleanUp {
        CleanUp {
            keep_components: self.keep_components,
            min_component_ml: self.min_component_ml,
            fill_holes_ml: self.fill_holes_ml,
        }
    }
}

/// The message of the TOML reader, which shows the line.
fn syntax(error: &toml::de::Error) -> ManifestError {
    ManifestError::Syntax(error.to_string().trim_end().to_owned())
}
