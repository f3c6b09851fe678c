//! A manifest as read in, the first value that cannot be out: the ranges of `docs/models.md`.

use std::fmt::Display;

use super::Device;
use super::error::ManifestError;
use super::manifest::{Activation, Concept, Graph, Manifest, Segment};

/// No window of a chest network is larger than this, in voxels times channels times batch.
const MAX_BATCH_VALUES: usize = 1 << 30;
/// A window at least this long along every axis cannot lie inside a lung without a vessel, so that a window without body is outside of the patient.
const MIN_SKIP_MM: f64 = 100.0;
/// A surface that is wrong by more than this is not to be mended by a threshold.
const MAX_BOUNDARY_MM: f64 = 10.0;

impl Manifest {
    /// Holds every value against its range.
    ///
    /// # Errors
    /// The first value out of its range.
    pub(super) fn validate(&self) -> Result<(), ManifestError> {
        if self.schema != 1 {
            return refuse("schema", "1", self.schema);
        }
        for (key, text) in [
            ("name", &self.name),
            ("version", &self.version),
            ("licence", &self.licence),
        ] {
            printable(key, text, 64)?;
        }
        digest("weights_sha256", &self.weights_sha256)?;
        self.validate_graphs()?;
        self.validate_tensors()?;
        self.validate_grid()?;
        self.validate_windows()?;
        self.validate_post()?;
        self.validate_segments()
    }

    fn validate_graphs(&self) -> Result<(), ManifestError> {
        if self.graphs.is_empty() {
            return refuse("graph", "at least one [[graph]]", "an empty list");
        }
        let mut seen: Vec<Device> = Vec::new();
        for (index, Graph { file, sha256, devices }) in self.graphs.iter().enumerate() {
            let key = format!("graph[{index}]");
            let plain = !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0']);
            if !plain {
                return refuse(
                    format!("{key}.file"),
                    "the name of a file beside the manifest, without a folder",
                    quoted(file),
                );
            }
            digest(&format!("{key}.sha256"), sha256)?;
            if devices.is_empty() {
                return refuse(
                    format!("{key}.devices"),
                    "at least one of cpu, cuda, tensorrt",
                    "an empty list",
                );
            }
            for device in devices {
                if *device == Device::Auto || seen.contains(device) {
                    let expected = "each of cpu, cuda, tensorrt at most once in the manifest";
                    return refuse(format!("{key}.devices"), expected, quoted(device));
                }
                seen.push(*device);
            }
        }
        Ok(())
    }

    fn validate_tensors(&self) -> Result<(), ManifestError> {
        printable("input.name", &self.input.name, 256)?;
        printable("output.name", &self.output.name, 256)?;
        let output = &self.output;
        if !(1..=256).contains(&output.channels) {
            return refuse("output.channels", "1 to 256", output.channels);
        }
        if output.activation == Activation::Softmax && output.channels < 2 {
            return refuse("output.channels", "at least 2 with softmax", output.channels);
        }
        if output.foreground_channel >= output.channels {
            let expected = format!("below output.channels, which is {}", output.channels);
            return refuse("output.foreground_channel", expected, output.foreground_channel);
        }
        if !(output.threshold > 0.0 && output.threshold < 1.0) {
            return refuse("output.threshold", "a probability between 0 and 1", output.threshold);
        }
        Ok(())
    }

    fn validate_grid(&self) -> Result<(), ManifestError> {
        let grid = &self.grid;
        if !grid.spacing_mm.iter().all(|mm| (0.05..=50.0).contains(mm)) {
            return refuse(
                "grid.spacing_mm",
                "three millimetres of 0.05 to 50",
                format!("{:?}", grid.spacing_mm),
            );
        }
        // One letter of each pair, in any order.
        let pair = |letter| ["LR", "PA", "SI"].iter().position(|pair| pair.contains(letter));
        let mut pairs: Vec<_> = grid.orientation.chars().filter_map(pair).collect();
        pairs.sort_unstable();
        if pairs != [0, 1, 2] || grid.orientation.chars().count() != 3 {
            let expected = "three letters, one each of L or R, P or A, S or I, as in \"LPS\"";
            return refuse("grid.orientation", expected, quoted(&grid.orientation));
        }
        for (key, [low, high]) in [("grid.window_hu", grid.window_hu), ("grid.window_to", grid.window_to)] {
            if !(low.is_finite() && high.is_finite() && low < high) {
                return refuse(key, "two numbers, the lower first", format!("[{low:?}, {high:?}]"));
            }
        }
        if !(0.0..=180.0).contains(&grid.straighten_over_degrees) {
            return refuse("grid.straighten_over_degrees", "0 to 180", grid.straighten_over_degrees);
        }
        Ok(())
    }

    fn validate_windows(&self) -> Result<(), ManifestError> {
        let windows = &self.windows;
        if !windows.roi.iter().all(|n| (1..=4096).contains(n)) {
            return refuse(
                "windows.roi",
                "three sizes of 1 to 4096 voxels",
                format!("{:?}", windows.roi),
            );
        }
        if !(0.0..1.0).contains(&windows.overlap) {
            return refuse("windows.overlap", "a number of at least 0 and below 1", windows.overlap);
        }
        if !(1..=256).contains(&windows.batch) {
            return refuse("windows.batch", "1 to 256", windows.batch);
        }
        // At most 2^36 voxels, 2^8 channels and 2^8 windows: no overflow on 64 bits.
        let values = windows.roi.iter().product::<usize>() * self.output.channels * windows.batch;
        if values > MAX_BATCH_VALUES {
            let expected =
                format!("windows.roi x output.channels x windows.batch of at most {MAX_BATCH_VALUES} values");
            return refuse("windows.roi", expected, values);
        }
        if !windows.crop_above_hu.is_finite() {
            return refuse("windows.crop_above_hu", "a Hounsfield value", windows.crop_above_hu);
        }
        if !(0.0..=1000.0).contains(&windows.crop_margin_mm) {
            return refuse(
                "windows.crop_margin_mm",
                "0 to 1000 millimetres",
                windows.crop_margin_mm,
            );
        }
        let extent = windows
            .roi
            .iter()
            .zip(self.grid.spacing_mm)
            .map(|(n, mm)| *n as f64 * mm);
        if windows.skip_empty && extent.clone().any(|mm| mm < MIN_SKIP_MM) {
            let found = extent.map(|mm| format!("{mm:.0}")).collect::<Vec<_>>().join(" x ");
            let expected = format!(
                "false for windows shorter than {MIN_SKIP_MM} mm (these are {found} mm), which may lie inside a lung"
            );
            return refuse("windows.skip_empty", expected, true);
        }
        Ok(())
    }

    fn validate_post(&self) -> Result<(), ManifestError> {
        let post = &self.post;
        for (key, ml) in [
            ("post.min_component_ml", post.min_component_ml),
            ("post.fill_holes_ml", post.fill_holes_ml),
        ] {
            if !(0.0..=1e6).contains(&ml) {
                return refuse(key, "0 to 1000000 millilitres", ml);
            }
        }
        if !(0.0..=MAX_BOUNDARY_MM).contains(&post.boundary_mm) {
            let expected = format!("0 to {MAX_BOUNDARY_MM} millimetres");
            return refuse("post.boundary_mm", expected, post.boundary_mm);
        }
        if !(-1000.0..=0.0).contains(&post.boundary_hu) {
            return refuse("post.boundary_hu", "-1000 to 0 Hounsfield units", post.boundary_hu);
        }
        if let Some(aerated) = post.aerated_threshold
            && !(0.0 < aerated as f32 && aerated as f32 <= self.output.threshold)
        {
            let expected = format!("above 0, at most the threshold of {}", self.output.threshold);
            return refuse("post.aerated_threshold", expected, aerated);
        }
        if let Some([above, below]) = post.fat_hu
            && !(-300.0 <= above && above < below && below <= 0.0)
        {
            return refuse(
                "post.fat_hu",
                "two rising Hounsfield units from -300 to 0",
                format!("[{above}, {below}]"),
            );
        }
        Ok(())
    }

    fn validate_segments(&self) -> Result<(), ManifestError> {
        // There is one foreground channel, so a mask has no voxel for a second one.
        let [segment] = self.segments.as_slice() else {
            let found = format!("a list of {}", self.segments.len());
            return refuse(
                "segment",
                "one [[segment]], since there is one foreground channel",
                found,
            );
        };
        let Segment {
            label,
            number,
            category,
            kind,
        } = segment;
        printable("segment[0].label", label, 64)?;
        if *number != 1 {
            return refuse("segment[0].number", "1", number);
        }
        concept("segment[0].category", category)?;
        concept("segment[0].type", kind)
    }
}

/// Code value and scheme designator are SH (16 characters), the meaning is LO (64), PS3.5 6.2.
fn concept(key: &str, Concept(code, scheme, meaning): &Concept) -> Result<(), ManifestError> {
    printable(&format!("{key}[0]"), code, 16)?;
    printable(&format!("{key}[1]"), scheme, 16)?;
    printable(&format!("{key}[2]"), meaning, 64)
}

fn printable(key: &str, text: &str, most: usize) -> Result<(), ManifestError> {
    let count = text.chars().count();
    if !(1..=most).contains(&count) || text.chars().any(|c| c.is_control() || c == '\\') || text.trim() != text {
        return refuse(key, format!("1 to {most} printable characters"), quoted(text));
    }
    Ok(())
}

fn digest(key: &str, text: &str) -> Result<(), ManifestError> {
    if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return refuse(key, "a SHA-256 as 64 lower-case hexadecimal digits", quoted(text));
    }
    Ok(())
}

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}

fn refuse(key: impl Into<String>, expected: impl Into<String>, found: impl Display) -> Result<(), ManifestError> {
    Err(ManifestError::Invalid {
        key: key.into(),
        expected: expected.into(),
        found: found.to_string(),
    })
}
