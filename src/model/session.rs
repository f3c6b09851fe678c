//! ONNX Runtime behind a thread of its own (`worker.rs`), which alone holds the session: batches of windows go in, raw answers come out, in order.
//!
//! Opening takes the first device of the ladder that really runs the network: a session on a GPU's provider proves nothing before a window went through it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::devices::{DRIVER_FOLDER, Device, GpuSetup};
use super::error::ModelError;
use super::graph;
use super::manifest::Manifest;
use super::provider::{NotUsed, Provider};
use super::runtime::{Runtime, runtime};
use super::windows::{CancelFlag, Prediction, Predictor, Windows};
use super::worker::{Shared, Worker};

/// How often a wait for an answer looks whether it is still wanted.
const LOOK_FOR_CANCEL: Duration = Duration::from_millis(20);

/// How a network is run. None of this changes what it answers, apart from half precision, and rounding on different devices.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    /// Where.
    pub device: Device,
    /// ONNX Runtime's library or its folder; looked for when absent ([`super::find_library`]).
    pub runtime_library: Option<PathBuf>,
    /// Threads on the CPU; all cores when absent.
    pub threads: Option<usize>,
    /// Windows in one run instead of the manifest's number, where the graph leaves that open.
    pub batch: Option<usize>,
    /// Number of the GPU.
    pub gpu: i32,
    /// Most memory that CUDA's arena, and most that TensorRT's workspace, may take; 8 GiB by default.
    pub gpu_memory_limit_bytes: Option<usize>,
    /// TensorRT may compute in half precision.
    pub tensorrt_half_precision: bool,
    /// Where TensorRT's engines are kept, which take minutes to build; without it they are built every time.
    pub cache_folder: Option<PathBuf>,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            device: Device::Auto,
            runtime_library: None,
            threads: None,
            batch: None,
            gpu: 0,
            gpu_memory_limit_bytes: Some(8 << 30),
            tensorrt_half_precision: true,
            cache_folder: None,
        }
    }
}

/// A network that is ready. Dropping it stops what runs and waits for its thread.
pub struct Session {
    requests: Option<Sender<Windows>>,
    answers: Receiver<Result<Prediction, ModelError>>,
    thread: Option<JoinHandle<()>>,
    in_flight: usize,
    shared: Shared,
    provider: Provider,
}

impl Session {
    /// Loads ONNX Runtime if this process has not yet, opens the network on the first device that runs it, and sends a batch of empty windows through.
    ///
    /// # Errors
    /// No library, a file that is not what the manifest says, or no device that runs it; the message says what to do.
    pub fn open(manifest: &Manifest, options: &SessionOptions) -> Result<Session, ModelError> {
        let (requests, inbox) = channel::<Windows>();
        let (outbox, answers) = channel();
        let (ready, opened) = channel();
        let (manifest, options) = (manifest.clone(), options.clone());
        let work = move || match open_first(&manifest, &options) {
            Ok((mut worker, provider)) => {
                // A send fails only when the owner is gone, and then there is nothing left to do.
                if ready.send(Ok((worker.shared.clone(), provider))).is_ok() {
                    worker.serve(&inbox, &outbox);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("hilum-network".into()).spawn(work);
        let thread = thread.map_err(|error| ModelError::Runtime(format!("cannot start a thread: {error}")))?;
        let (shared, provider) = opened.recv().map_err(|_| ModelError::SessionLost)??;
        Ok(Session {
            requests: Some(requests),
            answers,
            thread: Some(thread),
            in_flight: 0,
            shared,
            provider,
        })
    }

    /// What runs the network.
    #[must_use]
    pub fn provider(&self) -> Provider {
        Provider {
            batch: self.batch(),
            ..self.provider.clone()
        }
    }
}

#[cfg(test)]
impl Session {
    /// Lets its thread end, as one that panics does.
    pub(crate) fn lose(&mut self) {
        self.requests = None;
    }
}

/// The session that [`Session`] would hold on the CPU, with the same options, without its thread: what benches compare with.
///
/// # Errors
/// As [`Session::open`].
#[doc(hidden)]
pub fn bare_session(manifest: &Manifest, options: &SessionOptions) -> Result<ort::session::Session, ModelError> {
    let runtime = runtime(options.runtime_library.as_deref())?;
    let options = SessionOptions {
        device: Device::Cpu,
        ..options.clone()
    };
    Ok(open_on(Device::Cpu, manifest, &options, &runtime)?.0.session)
}

impl Predictor for Session {
    fn batch(&self) -> usize {
        self.shared.batch.load(Ordering::Relaxed)
    }

    fn submit(&mut self, windows: Windows) -> Result<(), ModelError> {
        let requests = self.requests.as_ref().ok_or(ModelError::SessionLost)?;
        requests.send(windows).map_err(|_| ModelError::SessionLost)?;
        self.in_flight += 1;
        Ok(())
    }

    fn receive(&mut self, cancel: &CancelFlag) -> Result<Prediction, ModelError> {
        loop {
            match self.answers.recv_timeout(LOOK_FOR_CANCEL) {
                Ok(answer) => {
                    self.in_flight -= 1;
                    return answer;
                }
                Err(RecvTimeoutError::Timeout) if cancel.is_canceled() => return Err(ModelError::Canceled),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ModelError::SessionLost),
            }
        }
    }

    fn abandon(&mut self) {
        if self.in_flight == 0 {
            return;
        }
        let stopped = self.shared.stop.terminate();
        while self.in_flight > 0 && self.answers.recv().is_ok() {
            self.in_flight -= 1;
        }
        self.in_flight = 0;
        if let Err(error) = stopped.and_then(|()| self.shared.stop.unterminate()) {
            tracing::warn!(%error, "ONNX Runtime does not take back a stop");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.shared.stop.terminate() {
            tracing::warn!(%error, "ONNX Runtime cannot be stopped, waiting for the window to end");
        }
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread that ran the network had panicked");
        }
    }
}

/// The first device of the ladder that runs the network.
fn open_first(manifest: &Manifest, options: &SessionOptions) -> Result<(Worker, Provider), ModelError> {
    let runtime = runtime(options.runtime_library.as_deref())?;
    let ladder = options.device.ladder();
    let mut not_used = Vec::new();
    for device in &ladder {
        match open_on(*device, manifest, options, &runtime) {
            Ok((worker, provider)) => return Ok((worker, Provider { not_used, ..provider })),
            // A file that is not the manifest's is no reason to try another device, nor is a full disk.
            Err(error @ (ModelError::Disagreement(_) | ModelError::Unreadable { .. } | ModelError::Profile { .. })) => {
                return Err(error);
            }
            Err(error) if ladder.len() == 1 => {
                let (why, install) = (error.to_string(), device.install().to_owned());
                return Err(ModelError::Device {
                    device: *device,
                    why,
                    install,
                });
            }
            Err(error) => not_used.push(NotUsed {
                device: *device,
                why: error.to_string(),
            }),
        }
    }
    Err(ModelError::NoDevice(
        not_used
            .into_iter()
            .map(|NotUsed { device, why }| (device, why))
            .collect(),
    ))
}

pub(super) fn open_on(
    device: Device,
    manifest: &Manifest,
    options: &SessionOptions,
    runtime: &Runtime,
) -> Result<(Worker, Provider), ModelError> {
    if !device.compiled_in() {
        let path = runtime.library.path.display();
        return Err(ModelError::Runtime(format!(
            "{path} was built without {}",
            device.provider()
        )));
    }
    let graph = manifest.graph_for(device);
    let graph = graph.ok_or_else(|| ModelError::Runtime(format!("the manifest names no graph for {device}")))?;
    let bytes = graph::read(manifest, graph)?;
    let version = runtime.library.version.as_deref().unwrap_or_default();
    let batch = options.batch.unwrap_or(manifest.windows.batch).max(1);
    let shape = manifest.tensor_shape(1, 1);
    let setup = GpuSetup {
        options,
        input: &manifest.input.name,
        shape,
        batch,
        graph_sha256: &graph.sha256,
        runtime: version,
        driver_folder: Path::new(DRIVER_FOLDER),
    };
    let open = || Worker::open(device, manifest, graph, &bytes, &setup, runtime);
    match open() {
        Ok(opened) => Ok(opened),
        // An engine that a broken-off run or another TensorRT left behind: build it anew, once.
        Err(ModelError::Runtime(why)) if device == Device::TensorRt && remove_engines(&setup) => {
            tracing::warn!(why, "TensorRT's engine cache was removed");
            open()
        }
        Err(error) => Err(error),
    }
}

/// True when there were engines.
fn remove_engines(setup: &GpuSetup<'_>) -> bool {
    let Some(folder) = setup.engine_folder() else {
        return false;
    };
    let had_engines = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    had_engines && std::fs::remove_dir_all(&folder).is_ok()
}
