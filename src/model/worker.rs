//! The thread that owns ONNX Runtime's session: it opens a graph on one device, warms it up, and answers batches of windows in pieces that the device's memory holds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel};
use ort::session::{NoSelectedOutputs, RunOptions};
use ort::value::{DynValue, Outlet, Tensor, TensorRef, ValueType};
use tempfile::TempDir;

use super::devices::{Device, GpuSetup};
use super::error::ModelError;
use super::manifest::{Graph, Manifest};
use super::profile::nodes_by_provider;
use super::provider::Provider;
use super::runtime::Runtime;
use super::verify::TensorShape;
use super::windows::{Prediction, Windows};

/// What the session's thread shares with its owner.
#[derive(Clone)]
pub(super) struct Shared {
    /// Ends the run in progress.
    pub(super) stop: Arc<RunOptions<NoSelectedOutputs>>,
    /// Most windows in a run.
    pub(super) batch: Arc<AtomicUsize>,
}

/// The owner of the session, on its own thread.
pub(super) struct Worker {
    pub(super) session: ort::session::Session,
    manifest: Manifest,
    pub(super) shared: Shared,
    /// The batch that the graph insists on; shorter ones are filled up with zeros.
    fixed_batch: Option<usize>,
    /// Inputs and outputs are bound to the device and to this machine's memory, as pays on a GPU.
    binding: bool,
}

impl Worker {
    pub(super) fn open(
        device: Device,
        manifest: &Manifest,
        graph: &Graph,
        bytes: &[u8],
        setup: &GpuSetup<'_>,
        runtime: &Runtime,
    ) -> Result<(Worker, Provider), ModelError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = setup.options.threads.unwrap_or(cores).max(1);
        // Without a place for temporary files nodes are not counted.
        let folder = tempfile::Builder::new().prefix("hilum-profile-").tempdir().ok();
        let session = build(
            device,
            bytes,
            setup,
            runtime,
            threads,
            folder.as_ref().map(TempDir::path),
        )
        .map_err(|error| said(&error))?;
        manifest.verify(graph, &tensors(session.inputs()), &tensors(session.outputs()))?;
        let fixed_batch = tensors(session.inputs())
            .first()
            .and_then(|tensor| *tensor.shape.first()?);
        let batch = Arc::new(AtomicUsize::new(fixed_batch.unwrap_or(setup.batch)));
        let stop = Arc::new(RunOptions::new().map_err(|error| said(&error))?);
        let shared = Shared { stop, batch };
        let mut worker = Worker {
            session,
            manifest: manifest.clone(),
            shared,
            fixed_batch,
            binding: device != Device::Cpu,
        };
        let started = Instant::now();
        worker.warm_up()?;
        let warm_up_ms = started.elapsed().as_secs_f64() * 1e3;
        let nodes = folder
            .map(|folder| profile(&mut worker.session, folder.path()))
            .transpose()?
            .unwrap_or_default();
        let (name, nodes_total) = (device.provider(), nodes.values().sum());
        let nodes_on_provider = nodes.get(name).copied().unwrap_or(0);
        if device != Device::Cpu && nodes_total > 0 && nodes_on_provider == 0 {
            return Err(ModelError::Runtime(format!("no node of the graph ran on {name}")));
        }
        let provider = Provider {
            device,
            name: name.to_owned(),
            nodes_on_provider,
            nodes_total,
            not_used: Vec::new(),
            graph: graph.file.clone(),
            runtime_version: setup.runtime.to_owned(),
            threads,
            batch: worker.shared.batch.load(Ordering::Relaxed),
            warm_up_ms,
        };
        Ok((worker, provider))
    }

    /// Sends a batch of empty windows through, so that memory is there and engines are built before the first true one.
    fn warm_up(&mut self) -> Result<(), ModelError> {
        let count = self.shared.batch.load(Ordering::Relaxed);
        let values = vec![0.0; count * self.voxels()];
        self.predict(&values, count).map(drop)
    }

    fn voxels(&self) -> usize {
        self.manifest.windows.roi.iter().product()
    }

    /// Answers batches until the owner is gone.
    pub(super) fn serve(&mut self, inbox: &Receiver<Windows>, outbox: &Sender<Result<Prediction, ModelError>>) {
        while let Ok(windows) = inbox.recv() {
            let answer = self
                .predict(&windows.values, windows.count)
                .map(|values| Prediction { windows, values });
            if outbox.send(answer).is_err() {
                return;
            }
        }
    }

    /// Runs windows, in smaller batches when the device's memory is too small for all at once.
    fn predict(&mut self, values: &[f32], count: usize) -> Result<Box<dyn AsRef<[f32]> + Send>, ModelError> {
        let voxels = self.voxels();
        if values.len() != count * voxels {
            return Err(ModelError::AnswerSize {
                found: values.len(),
                expected: count * voxels,
            });
        }
        let before = self.shared.batch.load(Ordering::Relaxed);
        let mut batch = before;
        let can_halve = self.fixed_batch.is_none();
        let pieces = in_pieces(count, &mut batch, can_halve, |part: Range<usize>| {
            self.run(&values[part.start * voxels..part.end * voxels], part.len())
        });
        if batch < before {
            tracing::warn!(
                before,
                batch,
                "out of device memory: fewer windows at once from here on"
            );
            self.shared.batch.store(batch, Ordering::Relaxed);
        }
        let mut pieces = pieces?;
        if pieces.len() == 1
            && let Some(piece) = pieces.pop()
        {
            return Ok(Box::new(piece));
        }
        Ok(Box::new(
            pieces
                .iter()
                .flat_map(|piece| piece.as_ref())
                .copied()
                .collect::<Vec<f32>>(),
        ))
    }

    /// One run of at most `fixed_batch` windows.
    fn run(&mut self, values: &[f32], count: usize) -> Result<Answer, ModelError> {
        let rows = self.fixed_batch.unwrap_or(count);
        let filled: Vec<f32>;
        let values = if rows == count {
            values
        } else {
            filled = values
                .iter()
                .copied()
                .chain(std::iter::repeat_n(0.0, (rows - count) * self.voxels()))
                .collect();
            &filled
        };
        let channels = self.manifest.output.channels;
        let value = self.run_tensor(values, rows).map_err(|error| said(&error))?;
        let (shape, found) = value.try_extract_tensor::<f32>().map_err(|error| said(&error))?;
        let expected = self.manifest.tensor_shape(rows, channels);
        let same = shape.iter().map(|n| usize::try_from(*n)).eq(expected.map(Ok));
        if !same {
            return Err(ModelError::AnswerSize {
                found: found.len(),
                expected: expected.iter().product(),
            });
        }
        Ok(Answer {
            value,
            length: count * channels * self.voxels(),
        })
    }

    fn run_tensor(&mut self, values: &[f32], rows: usize) -> ort::Result<DynValue> {
        let (input, output) = (self.manifest.input.name.as_str(), self.manifest.output.name.as_str());
        let shape = self.manifest.tensor_shape(rows, 1);
        let lost = || ort::Error::new(format!("the run gave no output \"{output}\""));
        if self.binding {
            // A new binding for every run: a bound output is written again by the next run, and this one is handed on.
            let mut binding = self.session.create_binding()?;
            // Owned: ort copies a borrowed tensor before it binds it on the CPU, and waits there for a lock that it holds itself.
            binding.bind_input(input, &Tensor::from_array((shape, values.to_vec()))?)?;
            let here = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
            binding.bind_output_to_device(output, &here)?;
            let mut outputs = self.session.run_binding_with_options(&binding, &self.shared.stop)?;
            outputs.remove(output).ok_or_else(lost)
        } else {
            let tensor = TensorRef::from_array_view((shape, values))?;
            let mut outputs = self
                .session
                .run_with_options(ort::inputs![input => tensor], &self.shared.stop)?;
            outputs.remove(output).ok_or_else(lost)
        }
    }
}

/// A tensor of the runtime's, without the rows that only filled up the batch.
struct Answer {
    value: DynValue,
    length: usize,
}

impl AsRef<[f32]> for Answer {
    fn as_ref(&self) -> &[f32] {
        // Its type and shape were seen when it was made.
        self.value
            .try_extract_tensor::<f32>()
            .ok()
            .and_then(|(_, values)| values.get(..self.length))
            .unwrap_or_default()
    }
}

fn build(
    device: Device,
    bytes: &[u8],
    setup: &GpuSetup<'_>,
    runtime: &Runtime,
    threads: usize,
    profile: Option<&Path>,
) -> Result<ort::session::Session, ort::Error> {
    let providers = device.providers(setup);
    let mut builder = ort::session::Session::builder(&runtime.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // Waiting threads sleep: the cores belong to the windows that are filled and summed up meanwhile.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_deterministic_compute(true)?
        .with_memory_pattern(true)?
        .with_log_level(ort::logging::LogLevel::Warning)?
        // Only what is asked for registers; nothing is chosen by the library.
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_execution_providers(providers)?;
    if let Some(folder) = profile {
        builder = builder.with_profiling(folder.join("profile"))?;
    }
    builder.commit_from_memory(bytes)
}

/// Ends the profiling of a session, and reads what it wrote in this folder. Where the disk is full it writes a part, and says nothing.
fn profile(session: &mut ort::session::Session, folder: &Path) -> Result<BTreeMap<String, usize>, ModelError> {
    let unreadable = |why: String| ModelError::Profile {
        folder: folder.parent().unwrap_or(folder).to_owned(),
        why,
    };
    let file = session.end_profiling().map_err(|error| said(&error))?;
    let bytes = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    nodes_by_provider(&bytes).map_err(|error| unreadable(error.to_string()))
}

/// Runs `count` windows in pieces of at most `batch`, which is halved whenever the device runs out of memory.
fn in_pieces<T>(
    count: usize,
    batch: &mut usize,
    can_halve: bool,
    mut run: impl FnMut(Range<usize>) -> Result<T, ModelError>,
) -> Result<Vec<T>, ModelError> {
    let (mut pieces, mut from) = (Vec::new(), 0);
    while from < count {
        let length = (count - from).min((*batch).max(1));
        match run(from..from + length) {
            Ok(piece) => {
                pieces.push(piece);
                from += length;
            }
            Err(ModelError::OutOfMemory(_)) if length > 1 && can_halve => *batch = length / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(pieces)
}

/// ONNX Runtime's error in our words.
fn said<R>(error: &ort::Error<R>) -> ModelError {
    in_our_words(error.message())
}

/// That memory is lacking, ONNX Runtime, CUDA and TensorRT only say in text.
fn in_our_words(message: &str) -> ModelError {
    let message = message.trim().to_owned();
    let lower = message.to_lowercase();
    let signs = [
        "out of memory",
        "outofmemory",
        "failed to allocate memory",
        "memoryallocation",
        "alloc_failed",
        "bfc_arena",
        "bad_alloc",
    ];
    if signs.iter().any(|sign| lower.contains(sign)) {
        ModelError::OutOfMemory(message)
    } else {
        ModelError::Runtime(message)
    }
}

fn tensors(outlets: &[Outlet]) -> Vec<TensorShape> {
    let describe = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => TensorShape {
            name: outlet.name().to_owned(),
            element: format!("{ty:?}").to_lowercase(),
            shape: shape.iter().map(|n| usize::try_from(*n).ok()).collect(),
        },
        other => TensorShape {
            name: outlet.name().to_owned(),
            element: other.to_string(),
            shape: Vec::new(),
        },
    };
    outlets.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::runtime::runtime;
    use crate::model::session::{SessionOptions, open_on};

    /// A device with room for so many windows.
    fn device(room: usize) -> impl FnMut(Range<usize>) -> Result<Range<usize>, ModelError> {
        move |part| {
            if part.len() > room {
                Err(ModelError::OutOfMemory("CUDA failure 2: out of memory".into()))
            } else {
                Ok(part)
            }
        }
    }

    #[test]
    fn a_batch_is_halved_until_it_fits_and_stays_so() {
        let mut batch = 8;
        assert_eq!(
            in_pieces(8, &mut batch, true, device(3)).unwrap(),
            [0..2, 2..4, 4..6, 6..8]
        );
        assert_eq!(batch, 2);
        assert_eq!(in_pieces(3, &mut batch, true, device(3)).unwrap(), [0..2, 2..3]);
    }

    #[test]
    fn the_messages_of_a_lack_of_memory_are_told_from_others() {
        for message in [
            "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
            "Failed to allocate memory for requested buffer of size 411041792",
            "bfc_arena.cc:376 Available memory of 8388608 is smaller than requested bytes of 411041792",
            "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
            "CUDA error cudaErrorMemoryAllocation",
            "Error Code 2: OutOfMemory (Requested size was 411041792 bytes.)",
            "std::bad_alloc",
        ] {
            let error = in_our_words(message);
            assert!(
                matches!(&error, ModelError::OutOfMemory(said) if said == message),
                "{error:?}"
            );
        }
        for message in [
            "Invalid rank for input: image Got: 4 Expected: 5",
            "CUDA failure 100: no CUDA-capable device is detected",
            "Error Code 10: Internal Error (Could not find any implementation for node)",
        ] {
            let error = in_our_words(&format!("{message}\n"));
            assert!(
                matches!(&error, ModelError::Runtime(said) if said == message),
                "{error:?}"
            );
        }
    }

    /// What runs on a GPU is bound; here it is bound to the CPU, which has to give the same bits. Needs ONNX Runtime.
    #[test]
    #[allow(clippy::print_stderr)]
    fn a_bound_run_gives_the_bits_of_a_plain_one_every_time() {
        let networks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/networks");
        let manifest = Manifest::load(&networks.join("position.toml")).unwrap();
        // HILUM_ORT names a library for tests.
        let (named, ci) = (
            std::env::var_os("HILUM_ORT").map(PathBuf::from),
            std::env::var_os("CI").is_some(),
        );
        let runtime = match runtime(named.as_deref()) {
            Ok(runtime) => runtime,
            Err(error) => {
                assert!(!ci, "{error}");
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        let (mut worker, _) = open_on(Device::Cpu, &manifest, &SessionOptions::default(), &runtime).unwrap();
        let windows = [0.25f32, 0.5, 0.75].map(|scale| (0..256).map(|at| at as f32 * scale).collect::<Vec<f32>>());
        let plain = windows.each_ref().map(|window| worker.run(window, 1).unwrap());
        worker.binding = true;
        let bound = windows.each_ref().map(|window| worker.run(window, 1).unwrap());
        for (plain, bound) in plain.iter().zip(&bound) {
            assert_eq!(
                plain.as_ref(),
                bound.as_ref(),
                "an answer is not written again by the next run"
            );
        }
    }

    #[test]
    fn a_single_window_that_does_not_fit_is_an_error() {
        let mut batch = 4;
        assert!(matches!(
            in_pieces(4, &mut batch, true, device(0)),
            Err(ModelError::OutOfMemory(_))
        ));
        assert!(
            matches!(in_pieces(4, &mut 4, false, device(1)), Err(ModelError::OutOfMemory(_))),
            "a fixed batch cannot be halved"
        );
    }
}
