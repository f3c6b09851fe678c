//! The devices that a network may run on: their names, what has to be installed for them, and how ONNX Runtime's providers are set up for each.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::graph::hex;
use super::session::SessionOptions;

/// What may not be claimed of this version.
pub const NEVER_RUN_ON_A_GPU: &str = "CUDA and TensorRT are built in but were never run: no GPU was at hand when this version was made. \
     Only the CPU is tested.";

/// Where NVIDIA's driver tells its version and the GPUs.
pub(super) const DRIVER_FOLDER: &str = "/proc/driver/nvidia";

/// Where a network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The first of TensorRT, CUDA and the CPU that really runs the network.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU through CUDA and cuDNN.
    Cuda,
    /// An NVIDIA GPU through TensorRT, what it cannot do through CUDA.
    TensorRt,
}

/// Not the name of a device.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is no device, expected auto, cpu, cuda or tensorrt")]
pub struct UnknownDevice(String);

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Device, UnknownDevice> {
        let all = [Device::Auto, Device::Cpu, Device::Cuda, Device::TensorRt];
        all.into_iter()
            .find(|device| device.name() == text)
            .ok_or_else(|| UnknownDevice(text.to_owned()))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Device {
    /// The name by which it is asked for.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Device::Auto => "auto",
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
            Device::TensorRt => "tensorrt",
        }
    }

    /// The devices to try, in order.
    pub(super) fn ladder(self) -> Vec<Device> {
        match self {
            Device::Auto => vec![Device::TensorRt, Device::Cuda, Device::Cpu],
            device => vec![device],
        }
    }

    /// ONNX Runtime's name of the provider; `Auto` has none.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Device::Auto => "",
            Device::Cpu => ep::CPU::NAME,
            Device::Cuda => ep::CUDA::NAME,
            Device::TensorRt => ep::TensorRT::NAME,
        }
    }

    /// What has to be there for it, as ONNX Runtime 1.31 for GPUs asks for it.
    #[must_use]
    pub fn install(self) -> &'static str {
        match self {
            Device::Auto | Device::Cpu => "`make setup` brings ONNX Runtime for the CPU",
            Device::Cuda => {
                "It needs an NVIDIA driver (libcuda.so.1), ONNX Runtime for GPUs (the files of the PyPI package onnxruntime-gpu 1.31.1 in one folder, \
                 named by runtime_library or ORT_DYLIB_PATH), CUDA 13 (libcudart.so.13, libcublas.so.13, libcublasLt.so.13, libcurand.so.10, libcufft.so.12, \
                 libnvrtc.so.13) and cuDNN 9 (libcudnn.so.9), their folders in LD_LIBRARY_PATH"
            }
            Device::TensorRt => {
                "It needs all that cuda needs, and TensorRT 10 (libnvinfer.so.10, libnvonnxparser.so.10; not 11), its folder in LD_LIBRARY_PATH"
            }
        }
    }

    /// Whether the library that is loaded was built with it. This says nothing about the machine.
    pub(super) fn compiled_in(self) -> bool {
        match self {
            Device::Auto | Device::Cpu => true,
            Device::Cuda => ep::CUDA::default().is_compiled_in(),
            Device::TensorRt => ep::TensorRT::default().is_compiled_in(),
        }
    }

    /// The providers of a session on this device, first choice first, each of which must register or the session fails.
    pub(super) fn providers(self, setup: &GpuSetup<'_>) -> Vec<ExecutionProviderDispatch> {
        match self {
            // The CPU provider is always there, with its arena; registering it plainly would turn the arena off.
            Device::Auto | Device::Cpu => Vec::new(),
            Device::Cuda => vec![setup.cuda().build().error_on_failure()],
            Device::TensorRt => vec![
                setup.tensorrt().build().error_on_failure(),
                setup.cuda().build().error_on_failure(),
            ],
        }
    }
}

trait CompiledIn {
    fn is_compiled_in(&self) -> bool;
}

impl<E: ExecutionProvider> CompiledIn for E {
    fn is_compiled_in(&self) -> bool {
        E::is_available().unwrap_or(false)
    }
}

/// What the providers for GPUs need to know.
pub(super) struct GpuSetup<'a> {
    pub(super) options: &'a SessionOptions,
    /// Name of the input tensor.
    pub(super) input: &'a str,
    /// Shape of a batch of one window.
    pub(super) shape: [usize; 5],
    /// Most windows in a batch.
    pub(super) batch: usize,
    /// SHA-256 of the graph.
    pub(super) graph_sha256: &'a str,
    /// Version of ONNX Runtime.
    pub(super) runtime: &'a str,
    /// [`DRIVER_FOLDER`].
    pub(super) driver_folder: &'a Path,
}

impl GpuSetup<'_> {
    fn cuda(&self) -> ep::CUDA {
        let options = self.options;
        let mut cuda = ep::CUDA::default()
            .with_device_id(options.gpu)
            .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
            .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
            .with_tf32(false);
        if let Some(bytes) = options.gpu_memory_limit_bytes {
            cuda = cuda.with_memory_limit(bytes);
        }
        cuda
    }

    fn tensorrt(&self) -> ep::TensorRT {
        let options = self.options;
        let mut tensorrt = ep::TensorRT::default()
            .with_device_id(options.gpu)
            .with_fp16(options.tensorrt_half_precision)
            .with_profile_min_shapes(self.profile(1))
            .with_profile_opt_shapes(self.profile(self.batch))
            .with_profile_max_shapes(self.profile(self.batch));
        if let Some(bytes) = options.gpu_memory_limit_bytes {
            tensorrt = tensorrt.with_max_workspace_size(bytes);
        }
        if let Some(folder) = self.engine_folder() {
            if let Err(error) = std::fs::create_dir_all(&folder) {
                tracing::warn!(%error, folder = %folder.display(), "TensorRT's engines cannot be kept");
                return tensorrt;
            }
            let folder = folder.display().to_string();
            tensorrt = tensorrt
                .with_engine_cache(true)
                .with_engine_cache_path(&folder)
                .with_timing_cache(true)
                .with_timing_cache_path(&folder);
        }
        tensorrt
    }

    /// `name:batch x channels x ...`, as TensorRT's profiles are written.
    fn profile(&self, batch: usize) -> String {
        let [_, channels, a, b, c] = self.shape;
        format!("{}:{batch}x{channels}x{a}x{b}x{c}", self.input)
    }

    /// Where engines built for this GPU, driver, runtime and graph are kept: an engine is valid for exactly these. The GPU is told by its number among the machine's, whose order only CUDA
    /// knows.
    pub(super) fn engine_folder(&self) -> Option<PathBuf> {
        let cache = self.options.cache_folder.as_deref()?;
        let (gpus, driver) = gpus_and_driver(self.driver_folder);
        let half = self.options.tensorrt_half_precision;
        let key = format!(
            "{}\n{gpus}\n{driver}\n{}\n{}\n{half}\n{}",
            self.options.gpu,
            self.runtime,
            self.graph_sha256,
            self.profile(self.batch)
        );
        // 16 bytes of the digest: no two keys share a folder by chance.
        Some(cache.join("tensorrt").join(&hex(&Sha256::digest(key.as_bytes()))[..32]))
    }
}

/// The names of all GPUs and the driver's version, as the driver's own files say; empty where they do not.
fn gpus_and_driver(folder: &Path) -> (String, String) {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let driver = read(folder.join("version"))
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let gpus = std::fs::read_dir(folder.join("gpus")).into_iter().flatten().flatten();
    let mut names: Vec<String> = gpus
        .filter_map(|gpu| {
            let information = read(gpu.path().join("information"));
            let model = information.lines().find_map(|line| line.strip_prefix("Model:"))?;
            Some(format!("{} {}", gpu.file_name().to_string_lossy(), model.trim()))
        })
        .collect();
    names.sort();
    (names.join(", "), driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda, Device::TensorRt] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
            assert_eq!(serde_json::to_string(&device).unwrap(), format!("\"{device}\""));
        }
        assert!(
            "gpu"
                .parse::<Device>()
                .unwrap_err()
                .to_string()
                .contains("expected auto, cpu, cuda or tensorrt")
        );
    }

    /// The files of a driver with one GPU.
    fn driver_folder(model: &str, version: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let gpu = folder.path().join("gpus/0000:01:00.0");
        std::fs::create_dir_all(&gpu).unwrap();
        std::fs::write(gpu.join("information"), format!("Model: \t\t {model}\nIRQ:   1\n")).unwrap();
        std::fs::write(folder.path().join("version"), format!("{version}\nGCC version: 12\n")).unwrap();
        folder
    }

    #[test]
    fn engines_are_kept_apart_by_gpu_driver_runtime_graph_batch_and_precision() {
        let usual = driver_folder("NVIDIA Something", "NVRM version: 580.1");
        let expected = (
            "0000:01:00.0 NVIDIA Something".to_owned(),
            "NVRM version: 580.1".to_owned(),
        );
        assert_eq!(gpus_and_driver(usual.path()), expected);

        let options = SessionOptions {
            cache_folder: Some("/cache".into()),
            ..SessionOptions::default()
        };
        let full = SessionOptions {
            tensorrt_half_precision: false,
            ..options.clone()
        };
        let second_gpu = SessionOptions {
            gpu: 1,
            ..options.clone()
        };
        let setup = || GpuSetup {
            options: &options,
            input: "image",
            shape: [1, 1, 32, 224, 224],
            batch: 4,
            graph_sha256: "aa",
            runtime: "1.31.1",
            driver_folder: usual.path(),
        };
        assert_eq!(setup().profile(4), "image:4x1x32x224x224");
        let other_gpu = driver_folder("NVIDIA Other", "NVRM version: 580.1");
        let other_driver = driver_folder("NVIDIA Something", "NVRM version: 580.2");
        let others = [
            GpuSetup {
                driver_folder: other_gpu.path(),
                ..setup()
            },
            GpuSetup {
                driver_folder: other_driver.path(),
                ..setup()
            },
            GpuSetup {
                runtime: "1.31.2",
                ..setup()
            },
            GpuSetup {
                graph_sha256: "ab",
                ..setup()
            },
            GpuSetup {
                options: &second_gpu,
                ..setup()
            },
            GpuSetup { batch: 2, ..setup() },
            GpuSetup {
                options: &full,
                ..setup()
            },
        ];
        let mut folders: Vec<PathBuf> = others.iter().filter_map(GpuSetup::engine_folder).collect();
        folders.extend(setup().engine_folder());
        let distinct: std::collections::BTreeSet<&PathBuf> = folders.iter().collect();
        assert_eq!(distinct.len(), others.len() + 1, "{folders:?}");

        // The same GPU and driver elsewhere are the same.
        let same = driver_folder("NVIDIA Something", "NVRM version: 580.1");
        let same = GpuSetup {
            driver_folder: same.path(),
            ..setup()
        };
        assert_eq!(same.engine_folder(), setup().engine_folder());
    }

    #[test]
    fn memory_is_bounded_and_engines_and_timings_are_kept_by_default() {
        let folder = tempfile::tempdir().unwrap();
        let options = SessionOptions {
            cache_folder: Some(folder.path().to_owned()),
            ..SessionOptions::default()
        };
        let told = |options: &SessionOptions| {
            let setup = GpuSetup {
                options,
                input: "image",
                shape: [1, 1, 32, 224, 224],
                batch: 4,
                graph_sha256: "aa",
                runtime: "1.31.1",
                driver_folder: Path::new(DRIVER_FOLDER),
            };
            [format!("{:?}", setup.cuda()), format!("{:?}", setup.tensorrt())]
        };
        let has = |text: &str, key: &str, value: &str| {
            assert!(
                text.contains(&format!("\"{key}\": \"{value}\"")),
                "{key} is not {value}: {text}"
            );
        };
        let [cuda, tensorrt] = told(&options);
        has(&cuda, "gpu_mem_limit", "8589934592");
        has(&cuda, "arena_extend_strategy", "kSameAsRequested");
        has(&tensorrt, "trt_max_workspace_size", "8589934592");
        has(&tensorrt, "trt_fp16_enable", "true");
        has(&tensorrt, "trt_engine_cache_enable", "true");
        has(&tensorrt, "trt_timing_cache_enable", "true");
        has(&tensorrt, "trt_profile_opt_shapes", "image:4x1x32x224x224");
        assert_eq!(std::fs::read_dir(folder.path().join("tensorrt")).unwrap().count(), 1);

        // Where they cannot be kept, engines are built every time, and the network runs all the same.
        std::fs::write(folder.path().join("taken"), "").unwrap();
        let [_, tensorrt] = told(&SessionOptions {
            cache_folder: Some(folder.path().join("taken")),
            ..options
        });
        assert!(!tensorrt.contains("cache_enable"), "{tensorrt}");
    }
}
