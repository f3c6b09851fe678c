//! What ran a network, for the report.

use serde::Serialize;

use super::devices::Device;

/// What runs a network, as its first window showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Provider {
    /// The device.
    pub device: Device,
    /// ONNX Runtime's name of the provider.
    pub name: String,
    /// Nodes of the optimised graph that ran on this provider. What TensorRT fuses into one engine counts as one.
    pub nodes_on_provider: usize,
    /// Nodes of the optimised graph; 0 where no temporary file could be written to count them.
    pub nodes_total: usize,
    /// The devices that `auto` would have preferred, and why they were not taken.
    pub not_used: Vec<NotUsed>,
    /// The file of the manifest that runs.
    pub graph: String,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
    /// Threads on the CPU.
    pub threads: usize,
    /// Windows in one run, as many as the device's memory allowed for.
    pub batch: usize,
    /// Milliseconds that the first batch took.
    pub warm_up_ms: f64,
}

/// A device that was not taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotUsed {
    /// The device.
    pub device: Device,
    /// Why.
    pub why: String,
}
