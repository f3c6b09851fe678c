//! ONNX Runtime's shared library: where it is looked for, whether it keeps to itself, and the one environment of this process.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::error::ModelError;

/// From this minor version on, ONNX Runtime 1.x may record usage (microsoft/onnxruntime, release 1.29).
const FIRST_RECORDING_MINOR: u32 = 29;
/// The variable that stops it; a library that knows it contains its name.
const TELEMETRY_OFF: &str = "ORT_DISABLE_TELEMETRY";
/// Larger files are no ONNX Runtime.
const MAX_BYTES: u64 = 1 << 30;
/// Where distributions and by-hand installations put libraries.
const SYSTEM_FOLDERS: [&str; 7] = [
    "/usr/local/lib",
    "/opt/onnxruntime/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib",
];

/// A file that may be ONNX Runtime, as its bytes tell; it was not loaded for this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Where it is, links followed.
    pub path: PathBuf,
    /// Its version, as its symbols are versioned.
    pub version: Option<String>,
    /// It records and sends usage unless told not to by the environment.
    pub records_usage: bool,
}

/// The library to load: the one that is named, or ORT_DYLIB_PATH, or the first found in the `.runtime` folder of the project that the executable stands in, beside the
/// executable, in `.runtime` of the current folder, in the system's library folders. A folder may be named instead of a file.
///
/// # Errors
/// There is none; with every place that was looked at.
pub fn find_library(named: Option<&Path>) -> Result<PathBuf, ModelError> {
    // ORT_DYLIB_PATH is ONNX Runtime's own variable, and known to its users: it is no setting of ours.
    let variable = std::env::var_os("ORT_DYLIB_PATH")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let places = match named.map(Path::to_owned).or(variable) {
        Some(place) => vec![place],
        None => default_places(),
    };
    let found = places.iter().find_map(|place| library_in(place));
    let path = found.ok_or(ModelError::RuntimeMissing { looked_at: places })?;
    path.canonicalize()
        .map_err(|source| ModelError::Unreadable { path, source })
}

fn default_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        // target/release/hilum and target/release/deps/test lie in a project; an installed program in bin, with lib beside it.
        places.extend(folder.ancestors().take(4).map(|ancestor| ancestor.join(".runtime")));
        places.push(folder.to_owned());
        places.extend(folder.parent().map(|parent| parent.join("lib")));
    }
    places.extend(std::env::current_dir().ok().map(|folder| folder.join(".runtime")));
    places.extend(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    places
}

/// The file itself, or the newest ONNX Runtime in a folder.
fn library_in(place: &Path) -> Option<PathBuf> {
    if place.is_file() {
        return Some(place.to_owned());
    }
    let names = std::fs::read_dir(place).ok()?.flatten().map(|entry| entry.file_name());
    let libraries = names.filter_map(|name| name.into_string().ok()).filter(|name| {
        name.strip_prefix("libonnxruntime.")
            .is_some_and(|rest| rest == "so" || rest.starts_with("so.") || rest.ends_with("dylib"))
    });
    let newest = libraries.max_by_key(|name| {
        name.split('.')
            .filter_map(|part| part.parse().ok())
            .collect::<Vec<u32>>()
    });
    newest.map(|name| place.join(name)).filter(|path| path.is_file())
}

/// Reads in a library's bytes what it is, without running any of it.
///
/// # Errors
/// It cannot be read.
pub fn inspect_library(path: &Path) -> Result<Library, ModelError> {
    let unreadable = |source| ModelError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let version = version(&bytes);
    // A version that is not known may record.
    let minor = version
        .as_deref()
        .and_then(|version| version.split('.').nth(1)?.parse::<u32>().ok());
    let may_record = minor.is_none_or(|minor| minor >= FIRST_RECORDING_MINOR);
    let records_usage = may_record || find(&bytes, TELEMETRY_OFF.as_bytes()).is_some();
    Ok(Library {
        path: path.to_owned(),
        version,
        records_usage,
    })
}

/// ONNX Runtime's linker script versions its symbols `VERS_1.24.4`.
fn version(library: &[u8]) -> Option<String> {
    let mark = b"VERS_1.";
    let from = find(library, mark)? + mark.len() - 2;
    let digits = library[from..]
        .iter()
        .take(16)
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    String::from_utf8(digits.copied().collect()).ok()
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    let (first, mut from) = (*text.first()?, 0);
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(text) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The loaded library and its environment.
#[derive(Clone)]
pub(super) struct Runtime {
    pub(super) environment: Environment,
    pub(super) library: Library,
}

/// ONNX Runtime allows for one environment in the life of a process.
static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The environment of this process; the first call loads the library.
///
/// # Errors
/// No library, one that cannot be loaded or would record usage, or another than the one that is loaded.
pub(super) fn runtime(named: Option<&Path>) -> Result<Runtime, ModelError> {
    let mut current = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = current.as_ref() {
        let asked = named.map(|_| find_library(named)).transpose()?;
        return match asked.filter(|asked| *asked != runtime.library.path) {
            Some(asked) => Err(ModelError::RuntimeAlreadyLoaded {
                loaded: runtime.library.path.clone(),
                asked,
            }),
            None => Ok(runtime.clone()),
        };
    }
    let library = inspect_library(&find_library(named)?)?;
    // Read here and not in the configuration: it is the library that reads it, from the environment, the moment it is loaded.
    let off = std::env::var_os(TELEMETRY_OFF).is_some_and(|value| value == "1");
    if library.records_usage && !off {
        let version = library.version.unwrap_or_else(|| "of unknown version".into());
        return Err(ModelError::Telemetry {
            path: library.path,
            version,
        });
    }
    let unusable = |why: String| ModelError::RuntimeUnusable {
        path: library.path.clone(),
        why,
    };
    let builder = ort::init_from(&library.path).map_err(|error| unusable(error.to_string()))?;
    let environment = builder.with_name("hilum").with_telemetry(false).build();
    let environment = environment.map_err(|error| unusable(error.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    let runtime = Runtime { environment, library };
    *current = Some(runtime.clone());
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_habits_of_a_library_are_read_in_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let library = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            inspect_library(&path).unwrap()
        };
        let quiet = library("libonnxruntime.so.1.24.4", "\0VERS_1\0VERS_1.24.4\0OrtGetApiBase");
        assert_eq!((quiet.version.as_deref(), quiet.records_usage), (Some("1.24.4"), false));
        let talks = library("libonnxruntime.so.1.32.0", "..VERS_1.32.0\0");
        assert_eq!((talks.version.as_deref(), talks.records_usage), (Some("1.32.0"), true));
        let early = library("a.so", "..VERS_1.28.0\0..ORT_DISABLE_TELEMETRY\0");
        assert!(early.records_usage, "it knows the variable, whatever its version");
        let unknown = library("b.so", "nothing in here VERS_");
        assert_eq!((unknown.version, unknown.records_usage), (None, true));
    }

    #[test]
    fn a_folder_gives_its_newest_library_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.24.4",
            "libonnxruntime_providers_shared.so",
            "libonnxruntime.so.txt",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::remove_file(folder.path().join("libonnxruntime.so.txt")).unwrap();
        let found = find_library(Some(folder.path())).unwrap();
        assert_eq!(found.file_name().unwrap(), "libonnxruntime.so.1.24.4");
    }

    #[test]
    fn a_missing_library_names_the_command_that_brings_it() {
        let message = find_library(Some(Path::new("/nowhere/libonnxruntime.so")))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("make setup") && message.contains("/nowhere/libonnxruntime.so"),
            "{message}"
        );
    }
}
