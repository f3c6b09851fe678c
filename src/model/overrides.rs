//! What a user may change about a manifest for one run, and everything that can change a mask as one digest.

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::error::ManifestError;
use super::graph::hex;
use super::manifest::{Activation, Axes, Blend, Manifest, MaskBack, Post};
use crate::lungs::Boundary;
use crate::volume::GridSpecification;

/// Deviations from a manifest for one run; what is absent stays as the manifest says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// `windows.blend`.
    pub blend: Option<Blend>,
    /// `windows.overlap`.
    pub overlap: Option<f64>,
    /// `windows.crop_to_body`.
    pub crop_to_body: Option<bool>,
    /// `windows.skip_empty`.
    pub skip_empty: Option<bool>,
    /// `post.mask_back`.
    pub mask_back: Option<MaskBack>,
    /// False keeps every component and every hole, whatever `[post]` says.
    pub clean_up: Option<bool>,
    /// False leaves the mask's surface where the network drew it (`post.boundary_mm` = 0, no `post.aerated_threshold`), true lets it follow the CT's edge even where the manifest does not.
    pub boundary: Option<bool>,
}

/// Everything of a manifest that can change a mask, besides the weights: two runs with equal parameters, weights, voxels and provider give equal masks.
/// How many windows run at once is not part of it, nor what the segments are called.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parameters {
    /// `input.axes`.
    pub axes: Axes,
    /// `output.activation`.
    pub activation: Activation,
    /// `output.foreground_channel`.
    pub foreground_channel: usize,
    /// `output.threshold`.
    #[serde(serialize_with = "as_written")]
    pub threshold: f32,
    /// `[grid]`.
    pub grid: GridSpecification,
    /// `windows.roi`: x, y, z.
    pub roi: [usize; 3],
    /// `windows.overlap`.
    pub overlap: f64,
    /// `windows.blend`.
    pub blend: Blend,
    /// `windows.crop_to_body`.
    pub crop_to_body: bool,
    /// `windows.crop_above_hu`.
    #[serde(serialize_with = "as_written")]
    pub crop_above_hu: f32,
    /// `windows.crop_margin_mm`.
    pub crop_margin_mm: f64,
    /// `windows.skip_empty`.
    pub skip_empty: bool,
    /// `[post]`.
    pub post: Post,
}

/// The decimal digits that stand in the manifest, however the number is kept on its way: 0.9, and never 0.8999999761581421.
fn as_written<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(value.to_string().parse().unwrap_or(f64::from(*value)))
}

impl Manifest {
    /// This manifest with deviations.
    ///
    /// # Errors
    /// A deviation out of its key's range.
    pub fn with(&self, overrides: &Overrides) -> Result<Manifest, ManifestError> {
        let mut manifest = self.clone();
        let Overrides {
            blend,
            overlap,
            crop_to_body,
            skip_empty,
            mask_back,
            clean_up,
            boundary,
        } = overrides;
        let (windows, post) = (&mut manifest.windows, &mut manifest.post);
        windows.blend = blend.unwrap_or(windows.blend);
        windows.overlap = overlap.unwrap_or(windows.overlap);
        windows.crop_to_body = crop_to_body.unwrap_or(windows.crop_to_body);
        windows.skip_empty = skip_empty.unwrap_or(windows.skip_empty);
        post.mask_back = mask_back.unwrap_or(post.mask_back);
        if *clean_up == Some(false) {
            *post = Post {
                mask_back: post.mask_back,
                keep_components: 0,
                min_component_ml: 0.0,
                fill_holes_ml: 0.0,
                fat_hu: None,
                ..*post
            };
        }
        match boundary {
            Some(false) => {
                post.boundary_mm = Boundary::OFF.band_mm;
                post.aerated_threshold = None;
            }
            Some(true) if post.boundary_mm == 0.0 => post.boundary_mm = Boundary::BAND_MM,
            _ => {}
        }
        manifest.validate()?;
        Ok(manifest)
    }

    /// Everything of the network's use that can change a mask, besides the weights. The limits of `[series]` and `[mask]` are not part of it.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        Parameters {
            axes: self.input.axes,
            activation: self.output.activation,
            foreground_channel: self.output.foreground_channel,
            threshold: self.output.threshold,
            grid: self.grid.clone(),
            roi: self.windows.roi,
            overlap: self.windows.overlap,
            blend: self.windows.blend,
            crop_to_body: self.windows.crop_to_body,
            crop_above_hu: self.windows.crop_above_hu,
            crop_margin_mm: self.windows.crop_margin_mm,
            skip_empty: self.windows.skip_empty,
            post: self.post.clone(),
        }
    }
}

impl Parameters {
    /// SHA-256 of these parameters as JSON, keys in the order of this type, numbers in their shortest form.
    #[must_use]
    pub fn digest(&self) -> String {
        // Only a map with keys that are not text, or an error of a Serialize of ours, could fail: there is neither. An empty text would still be a fixed value.
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex(&Sha256::digest(&json))
    }
}
