//! An image on the network's grid in, the foreground probability out; what a network is, is said by its manifest.
//!
//! `manifest` is the contract with a network, `verify` holds its files against it. `slide` moves windows over an image as MONAI does and blends what a
//! `Predictor` makes of them. `Session` is the predictor of this project: ONNX Runtime behind a thread of its own. `check` says what works on this machine.
//! This room opens the files of the network and of ONNX Runtime, and no others.

mod blend;
mod check;
mod devices;
mod error;
mod graph;
mod manifest;
mod overrides;
mod positions;
mod profile;
mod provider;
mod runtime;
mod session;
mod validate;
mod verify;
mod windows;
mod worker;

pub(crate) use graph::hex;

pub use check::{Check, CheckOptions, Checks, Health, check};
pub use devices::{Device, NEVER_RUN_ON_A_GPU, UnknownDevice};
pub use error::{ManifestError, ModelError};
pub use manifest::{
    Activation, Axes, Blend, Concept, Graph, Input, Manifest, MaskBack, Output, Post, Segment, WindowSettings,
};
pub use overrides::{Overrides, Parameters};
pub use positions::{importance_map, starts};
pub use provider::{NotUsed, Provider};
pub use runtime::{Library, find_library, inspect_library};
#[doc(hidden)]
pub use session::bare_session;
pub use session::{Session, SessionOptions};
pub use verify::{Difference, Disagreement, TensorShape};
pub use windows::{CancelFlag, Prediction, Predictor, Slid, WindowOptions, Windows, slide};
