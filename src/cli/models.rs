//! Where a network is found: by its name in the folder of models, or by the path of its manifest.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The manifest of `model`, which is a path (it has a separator or ends in `.toml`) or a name in `folder`. A relative folder is looked for from the current folder, then
/// upwards from the program's own, so that a program in `target/release` finds the `onnx/` of its project.
pub(super) fn manifest_path(model: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    if model.contains('/') || model.ends_with(".toml") {
        let path = PathBuf::from(model);
        if !path.is_file() {
            bail!(
                "{} is not a file: give the manifest (.toml) of a network",
                path.display()
            );
        }
        return Ok(path);
    }
    let name = format!("{model}.toml");
    let places = folders(folder);
    places
        .iter()
        .map(|place| place.join(&name))
        .find(|path| path.is_file())
        .with_context(|| missing(model, folder, &places))
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    if folder.is_absolute() {
        return vec![folder.to_owned()];
    }
    let mut places = vec![folder.to_owned()];
    if let Ok(program) = std::env::current_exe() {
        places.extend(program.ancestors().skip(1).map(|above| above.join(folder)));
    }
    places.retain(|place| place.is_dir());
    places
}

fn missing(model: &str, folder: &Path, places: &[PathBuf]) -> String {
    let mut known: Vec<String> = places
        .iter()
        .filter_map(|place| std::fs::read_dir(place).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    known.sort();
    known.dedup();
    if known.is_empty() {
        format!(
            "there is no model {model}: no manifest lies in {} (model.folder in the configuration)",
            folder.display()
        )
    } else {
        format!("there is no model {model}; there are: {}", known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_folder_and_a_miss_names_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.toml"), "").unwrap();
        assert_eq!(
            manifest_path("mine", folder.path()).unwrap(),
            folder.path().join("mine.toml")
        );
        let error = manifest_path("yours", folder.path()).unwrap_err().to_string();
        assert!(error.contains("yours") && error.contains("mine"), "{error}");
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.toml");
        std::fs::write(&path, "").unwrap();
        assert_eq!(manifest_path(path.to_str().unwrap(), Path::new("onnx")).unwrap(), path);
        assert!(manifest_path("./nowhere.toml", Path::new("onnx")).is_err());
    }
}
