//! What a phantom is asked to be: a seed and a handful of settings, all with defaults, readable from and writable to JSON or TOML.

use serde::{Deserialize, Serialize};

/// Everything that decides a phantom. The same specification gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Specification {
    /// Every size, place and texture that is not fixed below follows from it.
    pub seed: u64,
    /// Millimetres between rows, between columns, between slices, each 0.1 to 50.
    pub spacing_mm: [f64; 3],
    /// Rows and columns, each 8 to 4096.
    pub matrix: [usize; 2],
    /// Number of slices; `None` takes as many as cover the lungs with a margin.
    pub slices: Option<usize>,
    /// Thickness of a slice in millimetres, 0.1 to 50; `None` makes it the distance between slices. Overlapping and gapped slices are both possible.
    pub thickness_mm: Option<f64>,
    /// Where the centre of the scanned block lies from the middle of the lungs, millimetres to the left, to the back and upwards, each at most 2000: with few
    /// slices, or a small field of view, this cuts the lungs.
    pub centre_mm: [f64; 3],
    /// The gantry is tilted by so many degrees, -40 to 40: slices are sheared along the table.
    pub tilt_degrees: f64,
    /// How the patient lies.
    pub position: Position,
    /// The arms lie beside the body instead of above the head.
    pub arms_down: bool,
    /// A table under the patient.
    pub table: bool,
    /// Contrast medium in the blood.
    pub contrast: bool,
    /// A size factor for the whole body, 0.3 to 1.6: 1 is an adult of middle size, 0.6 a child.
    pub size: f64,
    /// Millimetres of fat under the skin, 0 to 100; `None` takes it from the seed.
    pub fat_mm: Option<f64>,
    /// How deep the breath is, 0 (expiration: small, dense lungs) to 1 (full inspiration); `None` takes it from the seed.
    pub inspiration: Option<f64>,
    /// The reconstruction kernel: sharpness of edges and texture of the noise.
    pub kernel: Kernel,
    /// Standard deviation of the noise in soft tissue, 0 to 200 HU.
    pub noise_hu: f64,
    /// Outside the circle of reconstruction voxels hold this many HU instead of a measured value (values below -1024 need a signed flavour to be written).
    pub outside_circle_hu: Option<i16>,
    /// Whose attributes the header has.
    pub flavour: Flavour,
    /// How pixels are coded.
    pub transfer_syntax: TransferSyntax,
    /// What is wrong with the lungs, and what else makes them hard to find.
    pub diseases: Diseases,
}

/// How much of each disease, from 0 (none) to 1 (as much as a living patient may have). Where and in which manner follows from the seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diseases {
    /// Hazy patches through which vessels are seen.
    pub ground_glass: f64,
    /// Airless lung: lobes, segments, patches, or nearly a whole lung.
    pub consolidation: f64,
    /// Reticulation and honeycombs under the pleura, mostly at the bases, with less volume.
    pub fibrosis: f64,
    /// Holes, bullae and overinflation.
    pub emphysema: f64,
    /// Fluid around the lung (not lung), with compressed lung beside it (lung).
    pub effusion: f64,
    /// Air around the lung (not lung).
    pub pneumothorax: f64,
    /// Small round ones, many.
    pub nodules: f64,
    /// Large ones, at the wall, in the hilum or free.
    pub masses: f64,
    /// Gas in colon and stomach right under the diaphragm (not lung).
    pub bowel_gas: f64,
}

/// How the patient lies on the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// On the back, head first.
    #[default]
    Supine,
    /// On the belly, head first.
    Prone,
    /// On the back, feet first.
    FeetFirst,
}

/// The manner of a reconstruction kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// Smooth edges, coarse and faint noise.
    Smooth,
    /// In between.
    #[default]
    Standard,
    /// Sharp edges with overshoot, fine and strong noise.
    Sharp,
}

/// Whose habits the header imitates. No institution, person or real device is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavour {
    /// Of no vendor: 12 bits unsigned, intercept -1024.
    #[default]
    Plain,
    /// 16 bits signed, intercept -1024, padding -2000, kernel names in capitals.
    Ge,
    /// 12 bits unsigned, kernel names such as B30f, values of ImageType beyond the third.
    Siemens,
    /// 12 bits unsigned, intercept -1024, one-letter kernels.
    Philips,
    /// 16 bits signed, intercept 0, FC kernels.
    Canon,
}

/// How pixels are coded; JPEG 2000 and the JPEG family are made out of these by other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferSyntax {
    /// Explicit VR little endian.
    #[default]
    ExplicitLittleEndian,
    /// Implicit VR little endian.
    ImplicitLittleEndian,
    /// Deflated explicit VR little endian.
    Deflated,
    /// RLE lossless.
    Rle,
    /// JPEG-LS lossless.
    JpegLs,
}

impl Diseases {
    /// Each amount with its name; first those of the lungs, last the bowel gas beside them.
    pub(crate) fn named(&self) -> [(&'static str, f64); 9] {
        let Self {
            ground_glass,
            consolidation,
            fibrosis,
            emphysema,
            effusion,
            pneumothorax,
            nodules,
            masses,
            bowel_gas,
        } = *self;
        [
            ("ground glass", ground_glass),
            ("consolidation", consolidation),
            ("fibrosis", fibrosis),
            ("emphysema", emphysema),
            ("effusion", effusion),
            ("pneumothorax", pneumothorax),
            ("nodules", nodules),
            ("masses", masses),
            ("bowel gas", bowel_gas),
        ]
    }
}

impl Flavour {
    /// Stored values are signed 16 bits.
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::Ge | Self::Canon)
    }
}

impl Default for Specification {
    fn default() -> Self {
        Self {
            seed: 1,
            spacing_mm: [0.76, 0.76, 2.5],
            matrix: [512, 512],
            slices: None,
            thickness_mm: None,
            centre_mm: [0.0; 3],
            tilt_degrees: 0.0,
            position: Position::Supine,
            arms_down: false,
            table: true,
            contrast: false,
            size: 1.0,
            fat_mm: None,
            inspiration: None,
            kernel: Kernel::Standard,
            noise_hu: 14.0,
            outside_circle_hu: None,
            flavour: Flavour::Plain,
            transfer_syntax: TransferSyntax::ExplicitLittleEndian,
            diseases: Diseases::default(),
        }
    }
}

impl Specification {
    /// A small and quick one for tests: 192 x 192 x 60 voxels of 2 x 2 x 5 mm.
    #[must_use]
    pub fn small(seed: u64) -> Self {
        Self {
            seed,
            spacing_mm: [2.0, 2.0, 5.0],
            matrix: [192, 192],
            slices: Some(60),
            ..Self::default()
        }
    }
}
