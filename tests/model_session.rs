//! Networks on the real ONNX Runtime: the files that `tests/goldens/make_networks.py` makes, whose answers are known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hilum::model::{
    CancelFlag, Check, CheckOptions, Checks, Device, Health, Manifest, ModelError, Overrides, Predictor, Session,
    SessionOptions, Windows, check, find_library, slide,
};
use hilum::volume::{Image, RegularGrid};

fn networks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/networks")
}

fn network(name: &str) -> Manifest {
    Manifest::load(&networks().join(format!("{name}.toml"))).unwrap()
}

/// ONNX Runtime's library: HILUM_ORT, or where Hilum itself looks. Without one the tests of this file say that they were skipped, and fail in CI.
fn library() -> Option<PathBuf> {
    let named = std::env::var_os("HILUM_ORT").map(PathBuf::from);
    match find_library(named.as_deref()) {
        Ok(path) => Some(path),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

fn on(device: Device, library: PathBuf) -> SessionOptions {
    SessionOptions {
        device,
        runtime_library: Some(library),
        threads: Some(2),
        ..SessionOptions::default()
    }
}

fn image(shape: [usize; 3], value: impl Fn(usize) -> f32) -> Image {
    let axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let values = (0..shape.iter().product()).map(value).collect();
    Image {
        grid: RegularGrid {
            shape,
            origin: [0.0; 3],
            axes,
            spacing_mm: [1.0; 3],
        },
        values,
    }
}

fn noise(at: usize) -> f32 {
    (at * 7919 % 1009) as f32 / 1009.0
}

fn run(manifest: &Manifest, options: &SessionOptions, image: &Image) -> Result<Vec<f32>, ModelError> {
    let mut session = Session::open(manifest, options)?;
    let slid = slide(
        image,
        &manifest.window_options(),
        &mut session,
        &mut |_, _| {},
        &CancelFlag::default(),
    )?;
    Ok(slid.probability.values)
}

#[test]
fn a_session_answers_as_its_network_does() {
    let Some(library) = library() else { return };
    let image = image([4, 8, 8], noise);
    let values = run(&network("position"), &on(Device::Cpu, library.clone()), &image).unwrap();
    for (at, value) in values.iter().enumerate() {
        let (i, j, k) = (at % 8, at / 8 % 8, at / 64);
        assert_eq!(*value, 0.5 * image.values[at] + (i + 2 * j + 4 * k) as f32 / 64.0);
    }
    // Columns, rows, slices in the tensors, two channels.
    let values = run(&network("softmax"), &on(Device::Cpu, library), &image).unwrap();
    for (at, value) in values.iter().enumerate() {
        let (voxel, i) = (image.values[at], at % 8);
        let want = 1.0 / (1.0 + (voxel - i as f32 / 8.0 - 2.0 * voxel).exp());
        assert!((value - want).abs() < 1e-6, "{value} {want}");
    }
}

#[test]
fn threads_and_batches_do_not_change_a_bit() {
    let Some(library) = library() else { return };
    let image = image([11, 21, 19], noise);
    let usual = run(&network("position"), &on(Device::Cpu, library.clone()), &image).unwrap();
    for (threads, batch) in [(1, 1), (2, 4), (1, 5)] {
        let options = SessionOptions {
            threads: Some(threads),
            batch: Some(batch),
            ..on(Device::Cpu, library.clone())
        };
        assert_eq!(run(&network("position"), &options, &image).unwrap(), usual);
    }
    // A graph for exactly two windows: the last batch of an odd number is filled up.
    let manifest = network("fixed");
    let mut session = Session::open(&manifest, &on(Device::Cpu, library)).unwrap();
    assert_eq!(session.batch(), 2);
    let slid = slide(
        &image,
        &manifest.window_options(),
        &mut session,
        &mut |_, _| {},
        &CancelFlag::default(),
    )
    .unwrap();
    assert_eq!(slid.windows_run % 2, 0, "3 x 4 x 4 windows");
    assert_eq!(slid.probability.values, usual);
    session
        .submit(Windows {
            values: vec![1.0; 256],
            count: 1,
        })
        .unwrap();
    let answer = session.receive(&CancelFlag::default()).unwrap();
    assert_eq!(
        (*answer.values).as_ref().len(),
        256,
        "the rows that filled it up are not handed on"
    );
}

#[test]
fn auto_says_what_runs_and_why_the_others_do_not() {
    let Some(library) = library() else { return };
    let mut manifest = network("position");
    manifest.graphs[0].devices = vec![Device::Cpu, Device::Cuda, Device::TensorRt];
    let provider = Session::open(&manifest, &on(Device::Auto, library)).unwrap().provider();
    if provider.device == Device::Cpu {
        let devices: Vec<_> = provider.not_used.iter().map(|not_used| not_used.device).collect();
        assert_eq!(devices, [Device::TensorRt, Device::Cuda]);
        assert!(provider.not_used.iter().all(|not_used| !not_used.why.is_empty()));
        assert_eq!(provider.name, "CPUExecutionProvider");
    }
    assert_eq!(
        (provider.nodes_on_provider, provider.nodes_total),
        (2, 2),
        "a product and a sum"
    );
    assert_eq!(
        (provider.threads, provider.batch, provider.graph.as_str()),
        (2, 1, "position.onnx")
    );
    assert!(provider.warm_up_ms > 0.0 && provider.runtime_version.starts_with("1."));
}

#[test]
fn a_device_that_cannot_be_had_is_an_error_that_says_what_to_install() {
    let Some(library) = library() else { return };
    let mut manifest = network("position");
    manifest.graphs[0].devices = vec![Device::Cuda, Device::TensorRt];
    for (device, words) in [
        (
            Device::Cuda,
            ["libcudart.so.13", "libcudnn.so.9", "onnxruntime-gpu 1.31.1"],
        ),
        (Device::TensorRt, ["libnvinfer.so.10", "TensorRT 10", "LD_LIBRARY_PATH"]),
    ] {
        match Session::open(&manifest, &on(device, library.clone())) {
            Ok(session) => eprintln!("SKIPPED: this machine has {device}: {:?}", session.provider()),
            Err(error) => {
                let message = error.to_string();
                assert!(words.iter().all(|word| message.contains(word)), "{message}");
            }
        }
    }
    let error = Session::open(&manifest, &on(Device::Cpu, library))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("names no graph for cpu"), "{error}");
}

#[test]
fn a_file_that_is_not_its_manifests_is_refused_with_the_difference() {
    let Some(library) = library() else { return };
    let options = on(Device::Auto, library);
    let refused = |manifest: &Manifest| match Session::open(manifest, &options) {
        Err(ModelError::Disagreement(disagreement)) => disagreement.to_string(),
        other => panic!("{:?}", other.err()),
    };
    // Another file under the name.
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = network("position");
    let mut bytes = std::fs::read(manifest.path_of(&manifest.graphs[0])).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(folder.path().join("position.onnx"), bytes).unwrap();
    manifest.folder = folder.path().to_owned();
    let message = refused(&manifest);
    assert!(
        message.contains("sha256 is ") && message.contains(&manifest.graphs[0].sha256),
        "{message}"
    );
    // Manifests that say something else than the file.
    let mut manifest = network("position");
    manifest.output.channels = 2;
    assert!(
        refused(&manifest).contains("shape of \"logits\" is [open, 1, 4, 8, 8], by the manifest [batch, 2, 4, 8, 8]")
    );
    let mut manifest = network("position");
    manifest.input.name = "x".into();
    assert!(refused(&manifest).contains("input name is \"image\", by the manifest \"x\""));
    let mut manifest = network("softmax");
    manifest.windows.roi = [4, 8, 8];
    assert!(
        refused(&manifest).contains("shape of \"image\" is [open, 1, 8, 8, 4], by the manifest [batch, 1, 4, 8, 8]")
    );
    assert!(refused(&network("half")).contains("element type of \"image\" is float16, by the manifest float32"));
}

#[test]
fn a_missing_file_and_a_file_that_is_no_network_are_errors_with_their_path() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = network("position");
    manifest.folder = folder.path().to_owned();
    let error = Session::open(&manifest, &on(Device::Auto, library.clone()))
        .err()
        .unwrap();
    assert!(
        matches!(&error, ModelError::Unreadable { .. }) && error.to_string().contains("position.onnx"),
        "{error}"
    );
    std::fs::write(folder.path().join("position.onnx"), "no network").unwrap();
    manifest.graphs[0].sha256 = "c3b7e6a2a9a1ad9ec5aa5b7ac7e1ee2a8a2af2d5ea39e1dbb1e6a5ba18c9e3a0".into();
    let error = Session::open(&manifest, &on(Device::Cpu, library.clone()))
        .err()
        .unwrap();
    assert!(matches!(error, ModelError::Disagreement(_)), "{error}");
    let ModelError::Disagreement(disagreement) = error else {
        unreachable!()
    };
    manifest.graphs[0].sha256 = disagreement.differences[0].file.clone();
    let error = Session::open(&manifest, &on(Device::Cpu, library)).err().unwrap();
    assert!(
        error.to_string().contains("Failed to load model") || error.to_string().contains("rotobuf"),
        "{error}"
    );
}

#[test]
fn an_answer_that_is_no_number_is_an_error() {
    let Some(library) = library() else { return };
    let result = run(
        &network("log"),
        &on(Device::Cpu, library),
        &image([4, 8, 8], |at| (at % 2) as f32),
    );
    assert!(matches!(result, Err(ModelError::NotFinite(128))), "{result:?}");
}

/// A window of the network "busy" takes much longer than this where its values are above a half; a stop inside the window comes within milliseconds.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn a_run_in_progress_is_canceled_within_a_window_and_the_session_lives_on() {
    let Some(library) = library() else { return };
    let manifest = network("busy");
    let mut session = Session::open(&manifest, &on(Device::Cpu, library)).unwrap();
    let cancel = CancelFlag::default();
    let from_outside = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        from_outside.cancel();
        Instant::now()
    });
    let slow = image([8, 8, 8], |_| 0.9);
    let result = slide(&slow, &manifest.window_options(), &mut session, &mut |_, _| {}, &cancel);
    let waited = thread.join().unwrap().elapsed();
    assert!(matches!(result, Err(ModelError::Canceled)), "{result:?}");
    // Without a stop inside the window the two that were handed over would come first.
    assert!(waited < STOPPED_WITHIN, "canceled after {waited:?}");
    let fast = image([8, 8, 8], |_| 0.25);
    let slid = slide(
        &fast,
        &manifest.window_options(),
        &mut session,
        &mut |_, _| {},
        &CancelFlag::default(),
    )
    .unwrap();
    assert!(slid.probability.values.iter().all(|value| *value == 0.25));
}

#[test]
fn dropping_a_session_stops_what_runs_and_what_waits() {
    let Some(library) = library() else { return };
    let mut session = Session::open(&network("busy"), &on(Device::Cpu, library)).unwrap();
    for _ in 0..10 {
        session
            .submit(Windows {
                values: vec![0.9; 256],
                count: 1,
            })
            .unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    let dropped = Instant::now();
    drop(session);
    assert!(
        dropped.elapsed() < STOPPED_WITHIN,
        "ended after {:?}",
        dropped.elapsed()
    );
}

#[test]
fn another_library_cannot_be_loaded_beside_the_first() {
    let Some(library) = library() else { return };
    Session::open(&network("position"), &on(Device::Cpu, library.clone())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libonnxruntime.so");
    std::fs::copy(&library, &copy).unwrap();
    let error = Session::open(&network("position"), &on(Device::Cpu, copy))
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            ModelError::Device { .. } | ModelError::RuntimeAlreadyLoaded { .. }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("already uses"), "{error}");
}

fn checked(options: &CheckOptions) -> Vec<Check> {
    let mut checks = Checks::new(|_| ());
    check(options, &mut checks);
    checks.all().to_vec()
}

fn point<'c>(checks: &'c [Check], what: &str) -> &'c Check {
    checks
        .iter()
        .find(|check| check.what == what)
        .unwrap_or_else(|| panic!("no {what} in {checks:?}"))
}

#[test]
fn a_check_looks_at_library_manifest_files_and_devices() {
    let Some(library) = library() else { return };
    let session = on(Device::Auto, library);
    let checks = checked(&CheckOptions {
        manifest: networks().join("position.toml"),
        session: session.clone(),
    });
    for what in [
        "ONNX Runtime",
        "providers in the library",
        "manifest",
        "position.onnx",
        "device cpu",
    ] {
        let check = point(&checks, what);
        assert!(check.health == Health::Ok && check.to_do.is_empty(), "{check:?}");
    }
    assert!(
        point(&checks, "device cpu")
            .seen
            .contains("2 of 2 nodes on CPUExecutionProvider")
    );
    assert!(
        checks.iter().all(|check| check.health != Health::Problem),
        "a machine without a GPU has no problem: {checks:?}"
    );
    assert!(point(&checks, "GPU").seen.contains("never run"));

    // A device that is asked for and not there is one.
    let named = SessionOptions {
        device: Device::TensorRt,
        ..session.clone()
    };
    let checks = checked(&CheckOptions {
        manifest: networks().join("position.toml"),
        session: named,
    });
    let tensorrt = point(&checks, "device tensorrt");
    assert!(
        tensorrt.health != Health::Problem || !tensorrt.to_do.is_empty(),
        "{tensorrt:?}"
    );

    // A file that is not the manifest's.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(networks().join("position.toml"), folder.path().join("position.toml")).unwrap();
    std::fs::write(folder.path().join("position.onnx"), "something else").unwrap();
    let checks = checked(&CheckOptions {
        manifest: folder.path().join("position.toml"),
        session,
    });
    let file = point(&checks, "position.onnx");
    assert!(
        file.health == Health::Problem && file.seen.contains("sha256") && !file.to_do.is_empty(),
        "{file:?}"
    );
    assert!(
        checks.iter().all(|check| !check.what.starts_with("device")),
        "nothing runs a file that is not the manifest's"
    );
}

#[test]
fn a_check_without_a_library_says_what_brings_it() {
    let session = SessionOptions {
        runtime_library: Some("/nowhere/libonnxruntime.so".into()),
        ..SessionOptions::default()
    };
    let checks = checked(&CheckOptions {
        manifest: networks().join("position.toml"),
        session,
    });
    let library = point(&checks, "ONNX Runtime");
    assert!(
        library.health == Health::Problem && library.to_do == "make setup",
        "{library:?}"
    );
    assert_eq!(
        point(&checks, "manifest").health,
        Health::Ok,
        "the rest is looked at all the same"
    );
}

/// The whole of the default network, where it is there.
#[test]
fn the_default_network_runs_and_gives_the_same_bytes_twice() {
    let Some(library) = library() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/hilum-ahnet-lung.toml");
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return;
    }
    let manifest = Manifest::load(&path)
        .unwrap()
        .with(&Overrides {
            skip_empty: Some(false),
            ..Overrides::default()
        })
        .unwrap();
    let mut session = Session::open(&manifest, &on(Device::Cpu, library)).unwrap();
    let image = image([40, 230, 224], noise);
    let mut once = || {
        let slid = slide(
            &image,
            &manifest.window_options(),
            &mut session,
            &mut |_, _| {},
            &CancelFlag::default(),
        )
        .unwrap();
        assert_eq!(slid.windows_run, 4);
        slid.probability.values
    };
    let first = once();
    assert!(first.iter().all(|value| (0.0..=1.0).contains(value)));
    assert_eq!(first, once());
}
