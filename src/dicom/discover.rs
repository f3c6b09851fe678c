//! Files and folders -> the instances in them, and what else lay there.

use super::error::DicomError;
use super::header::read_header;
use super::limits::Limits;
use super::{Instance, Source};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// MediaStorageDirectoryStorage: the object in a DICOMDIR.
const DIRECTORY_CLASS: &str = "1.2.840.10008.1.3.10";

/// What a search found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The instances, in the order of the paths given and of the names inside folders.
    pub instances: Vec<Instance>,
    /// Everything else, in the same order.
    pub skipped: Vec<Skipped>,
}

/// A file or folder that gave no instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The path.
    pub path: PathBuf,
    /// Why, in a few words.
    pub why: String,
}

/// Reads the headers of all DICOM files under `paths`, on all cores. Folders are walked whatever a DICOMDIR in them says. Links are followed, each file is
/// read once, and what is no DICOM or cannot be read is listed and never fatal.
///
/// # Errors
/// Only for a path in `paths` that does not exist or cannot be looked at.
pub fn discover(paths: &[PathBuf], limits: &Limits) -> Result<Discovery, DicomError> {
    let mut found = Vec::new();
    for path in paths {
        std::fs::metadata(path).map_err(|error| DicomError::Io {
            path: path.clone(),
            error,
        })?;
        found.extend(walk(path));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|entry| match entry {
        Ok(source) => seen.insert(source.path.clone()),
        Err(_) => true,
    });
    let read: Vec<Result<Instance, Skipped>> = found
        .into_par_iter()
        .map(|entry| entry.and_then(|source| look_at(&source, limits)))
        .collect();
    let mut discovery = Discovery::default();
    for result in read {
        match result {
            Ok(instance) => discovery.instances.push(instance),
            Err(skipped) => discovery.skipped.push(skipped),
        }
    }
    Ok(discovery)
}

/// The regular files under a path, sorted by name within each folder.
fn walk(top: &Path) -> impl Iterator<Item = Result<Source, Skipped>> {
    WalkDir::new(top)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_map(|entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(Path::new("")).to_owned();
                    let looped = error
                        .loop_ancestor()
                        .map(|_| "a link back to a folder above it".to_owned());
                    let why = looped
                        .or_else(|| error.io_error().map(ToString::to_string))
                        .unwrap_or_else(|| "unreadable".into());
                    return Some(Err(Skipped { path, why }));
                }
            };
            let kind = entry.file_type();
            if kind.is_dir() {
                return None;
            }
            let skipped = |why: String| Skipped {
                path: entry.path().to_owned(),
                why,
            };
            if !kind.is_file() {
                // A pipe or a device would block or never end.
                return Some(Err(skipped("not a regular file".into())));
            }
            Some(match entry.metadata() {
                Ok(metadata) => Ok(Source {
                    path: entry.path().into(),
                    offset: 0,
                    length: metadata.len(),
                }),
                Err(error) => Err(skipped(error.to_string())),
            })
        })
}

fn look_at(source: &Source, limits: &Limits) -> Result<Instance, Skipped> {
    let skipped = |why: String| Skipped {
        path: source.path.to_path_buf(),
        why,
    };
    let instance = read_header(source, limits).map_err(|error| skipped(error.reason()))?;
    if instance.header.sop_class_uid == DIRECTORY_CLASS {
        return Err(skipped("a DICOMDIR; the files beside it are read themselves".into()));
    }
    Ok(instance)
}
