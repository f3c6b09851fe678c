//! What can go wrong with a network, in words that say what to do.

use std::path::PathBuf;

use super::devices::Device;
use super::verify::Disagreement;

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, a key is missing or unknown, or a value has the wrong type; with the line.
    #[error("{0}")]
    Syntax(String),
    /// A value is of the right type and yet cannot be.
    #[error("{key} is {found}, expected {expected}")]
    Invalid {
        /// The key, as in `windows.overlap`.
        key: String,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// Why a network gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The manifest cannot be used.
    #[error("manifest: {0}")]
    Manifest(#[from] ManifestError),
    /// A file of the network cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not the one that the manifest describes.
    #[error("{0}")]
    Disagreement(#[from] Disagreement),
    /// No ONNX Runtime was found.
    #[error(
        "ONNX Runtime's library is not there. Run `make setup`, which brings it into .runtime/, or name it by the option runtime_library or by \
         ORT_DYLIB_PATH. Looked at: {}", paths(.looked_at)
    )]
    RuntimeMissing {
        /// Where it was looked for, in that order.
        looked_at: Vec<PathBuf>,
    },
    /// The library that was named or found cannot be loaded.
    #[error("{path} cannot be used as ONNX Runtime: {why}. `make setup` brings one that fits into .runtime/")]
    RuntimeUnusable {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        why: String,
    },
    /// A process loads ONNX Runtime once; another library was asked for.
    #[error("this process already uses {loaded}, it cannot load {asked} as well")]
    RuntimeAlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        asked: PathBuf,
    },
    /// The library would write an identity and send usage data.
    #[error(
        "{path} (ONNX Runtime {version}) records and sends usage data unless ORT_DISABLE_TELEMETRY=1 is in the environment before the program starts: \
         set it, or use the library that `make setup` brings"
    )]
    Telemetry {
        /// The library.
        path: PathBuf,
        /// Its version, `of unknown version` when it does not say.
        version: String,
    },
    /// The device that was asked for cannot be had.
    #[error("the device {device} cannot be had: {why}. {install}")]
    Device {
        /// The device.
        device: Device,
        /// What failed.
        why: String,
        /// What to install.
        install: String,
    },
    /// No device of `auto` runs the network.
    #[error("no device runs this network: {}", .0.iter().map(|(device, why)| format!("{device}: {why}")).collect::<Vec<_>>().join("; "))]
    NoDevice(Vec<(Device, String)>),
    /// What ONNX Runtime wrote of its first run, to count the nodes that each provider ran, is not whole.
    #[error("ONNX Runtime's profile in {} cannot be read ({why}): free some space there, or name another folder by TMPDIR", .folder.display())]
    Profile {
        /// The folder.
        folder: PathBuf,
        /// Why.
        why: String,
    },
    /// ONNX Runtime reports an error.
    #[error("ONNX Runtime: {0}")]
    Runtime(String),
    /// The device has too little memory even for one window.
    #[error("out of device memory with a single window: {0}")]
    OutOfMemory(String),
    /// The network's answer has another size than its manifest says.
    #[error("the network answered {found} values for a window batch, expected {expected}")]
    AnswerSize {
        /// Values received.
        found: usize,
        /// Values expected.
        expected: usize,
    },
    /// The network's answer is not a number somewhere.
    #[error("the network's answer holds {0} values that are not finite; on TensorRT, try it without half precision")]
    NotFinite(usize),
    /// An image without voxels, or one that does not hold what its grid says.
    #[error("the image of {shape:?} voxels holds {values} values")]
    ImageSize {
        /// z, y, x.
        shape: [usize; 3],
        /// Values in memory.
        values: usize,
    },
    /// The thread that owns the session is gone.
    #[error("the thread that runs the network has ended unexpectedly")]
    SessionLost,
    /// Canceled by the caller.
    #[error("canceled")]
    Canceled,
}

fn paths(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
