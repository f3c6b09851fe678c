//! Files and folders -> the instances in them, what could not be read, and what else lay there.

use super::error::DicomError;
use super::header::read_header;
use super::limits::Limits;
use super::{Header, Instance, PixelData, Source};
use rayon::prelude::*;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// MediaStorageDirectoryStorage: the object in a DICOMDIR.
const DIRECTORY_CLASS: &str = "1.2.840.10008.1.3.10";
/// CT Image Storage; its enhanced siblings begin so (PS3.4 B.5).
const CT_CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";

/// What a search found.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The instances, in the order of the paths given and of the names inside folders.
    pub instances: Vec<Instance>,
    /// What is DICOM but damaged or over a limit, and what the system would not let be read, in the same order: it may hold slices, so a user is told of it.
    pub unreadable: Vec<Skipped>,
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

/// Why a path gave no instance.
enum Lost {
    /// A slice may be lost with it.
    Unreadable(Skipped),
    /// It is something else.
    Other(Skipped),
}

impl Lost {
    fn path(&self) -> &Path {
        match self {
            Self::Unreadable(skipped) | Self::Other(skipped) => &skipped.path,
        }
    }
}

/// Reads the headers of all DICOM files under `paths`, on all cores. Folders are walked whatever a DICOMDIR in them says. Links are followed, each file is
/// read once by whatever paths it is reached, and what is no DICOM or cannot be read is listed and never fatal.
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
    let mut seen = HashSet::new();
    found.retain(|entry| {
        seen.insert(match entry {
            Ok(source) => true_path(&source.path),
            Err(lost) => true_place(lost.path()),
        })
    });
    let read: Vec<Result<Instance, Lost>> = found
        .into_par_iter()
        .map(|entry| entry.and_then(|source| look_at(&source, limits)))
        .collect();
    let mut discovery = Discovery::default();
    for result in read {
        match result {
            Ok(instance) => discovery.instances.push(instance),
            Err(Lost::Unreadable(skipped)) => discovery.unreadable.push(skipped),
            Err(Lost::Other(skipped)) => discovery.skipped.push(skipped),
        }
    }
    Ok(discovery)
}

/// The path with every link resolved; as given where the system cannot say.
fn true_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Where a path lies, for one that cannot be opened or is a link to nothing.
fn true_place(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => true_path(folder).join(name),
        _ => path.to_owned(),
    }
}

/// The regular files under a path, sorted by name within each folder.
fn walk(top: &Path) -> impl Iterator<Item = Result<Source, Lost>> {
    WalkDir::new(top)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_map(|entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(not_walked(&error))),
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
                return Some(Err(Lost::Other(skipped("not a regular file".into()))));
            }
            Some(match entry.metadata() {
                Ok(metadata) => Ok(Source {
                    path: entry.path().into(),
                    offset: 0,
                    length: metadata.len(),
                }),
                Err(error) => Err(Lost::Unreadable(skipped(error.to_string()))),
            })
        })
}

/// What the walk could not enter: a link that leads round or to nothing loses no slice, a folder that is closed may.
fn not_walked(error: &walkdir::Error) -> Lost {
    let path = error.path().unwrap_or(Path::new("")).to_owned();
    if error.loop_ancestor().is_some() {
        let why = "a link back to a folder above it".to_owned();
        return Lost::Other(Skipped { path, why });
    }
    let io_error = error.io_error();
    let why = io_error.map_or_else(|| "unreadable".into(), ToString::to_string);
    match io_error.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => Lost::Other(Skipped { path, why }),
        _ => Lost::Unreadable(Skipped { path, why }),
    }
}

fn look_at(source: &Source, limits: &Limits) -> Result<Instance, Lost> {
    let skipped = |why: String| Skipped {
        path: source.path.to_path_buf(),
        why,
    };
    let instance = read_header(source, limits).map_err(|error| match error {
        DicomError::NotDicom { .. } => Lost::Other(skipped(error.reason())),
        DicomError::Damaged { .. } | DicomError::OverLimit { .. } | DicomError::Io { .. } => {
            Lost::Unreadable(skipped(error.reason()))
        }
    })?;
    if instance.header.sop_class_uid == DIRECTORY_CLASS {
        let why = "a DICOMDIR; the files beside it are read themselves";
        return Err(Lost::Other(skipped(why.into())));
    }
    if ends_before_its_series(&instance.header) {
        let why = "damaged header (it ends before it names its series)";
        return Err(Lost::Unreadable(skipped(why.into())));
    }
    Ok(instance)
}

/// A slice that is cut between two elements reads well as far as it goes, and would make a series of its own.
fn ends_before_its_series(header: &Header) -> bool {
    let class = header.sop_class_uid.strip_prefix(CT_CLASS);
    let ct = class.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    ct && header.series_instance_uid.is_empty() && header.pixel_data == PixelData::Absent
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::write_ct::{CtAttribute, CtCoding, CtImage, CtValue, write_ct};
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A slice of 2 x 2 pixels, the value of its pixel data at the end.
    fn slice(number: usize) -> Vec<u8> {
        let text = |tag, vr: &[u8; 2], value: &str| -> CtAttribute { (tag, *vr, CtValue::Text(value.into())) };
        let attributes = [
            text((0x0008, 0x0060), b"CS", "CT"),
            text((0x0020, 0x000D), b"UI", "1.2.3"),
            text((0x0020, 0x000E), b"UI", "1.2.3.4"),
        ];
        let image = CtImage {
            attributes: &attributes,
            sop_instance_uid: &format!("1.2.3.4.{number}"),
            rows: 2,
            columns: 2,
            bits_stored: 16,
            signed: true,
            stored: &[0; 4],
        };
        write_ct(&image, CtCoding::ExplicitLittleEndian).unwrap()
    }

    /// Where an element's tag stands in a file.
    fn at(bytes: &[u8], tag: [u8; 4]) -> usize {
        bytes.windows(4).rposition(|window| window == tag).unwrap()
    }

    fn found(paths: &[&Path]) -> Discovery {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        discover(&paths, &Limits::default()).unwrap()
    }

    fn told(skipped: &[Skipped]) -> Vec<String> {
        let name = |one: &Skipped| one.path.file_name().unwrap().to_string_lossy().into_owned();
        skipped
            .iter()
            .map(|one| format!("{}: {}", name(one), one.why))
            .collect()
    }

    const SERIES_UID: [u8; 4] = [0x20, 0, 0x0E, 0];
    const ROWS: [u8; 4] = [0x28, 0, 0x10, 0];
    const SOP_CLASS: [u8; 4] = [0x08, 0, 0x16, 0];

    #[test]
    fn a_slice_cut_anywhere_in_its_header_is_unreadable_or_lacks_pixels_and_is_never_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let whole = slice(1);
        let file = folder.path().join("cut.dcm");
        // Behind the first element of the meta group; what ends before is no more than four letters.
        for length in 144..whole.len() - 8 {
            fs::write(&file, &whole[..length]).unwrap();
            let found = found(&[folder.path()]);
            let told = told(&found.skipped);
            assert!(told.is_empty(), "cut to {length}: {told:?}");
            let own = found
                .instances
                .iter()
                .all(|i| i.header.series_instance_uid == "1.2.3.4");
            assert!(own, "cut to {length}: a series of its own");
        }
        fs::write(&file, &whole[..at(&whole, SERIES_UID)]).unwrap();
        assert_eq!(
            told(&found(&[folder.path()]).unreadable),
            ["cut.dcm: damaged header (it ends before it names its series)"]
        );
    }

    #[test]
    fn a_cut_slice_without_a_meta_group_is_unreadable_once_it_names_its_class() {
        let folder = tempfile::tempdir().unwrap();
        let whole = slice(1);
        let headless = &whole[at(&whole, SOP_CLASS)..];
        fs::write(folder.path().join("headless.dcm"), headless).unwrap();
        assert_eq!(found(&[folder.path()]).instances.len(), 1);
        fs::write(folder.path().join("headless.dcm"), &headless[..at(headless, ROWS) + 9]).unwrap();
        // Two bytes as of a first group, and then nothing of DICOM.
        fs::write(folder.path().join("numbers.bin"), [8, 0, 5, 0, 1, 0, 0, 0, 9, 9, 9, 9]).unwrap();
        fs::write(folder.path().join("table.bin"), [2, 0, 0, 0, 40, 0, 0, 0, 3, 0, 0, 0]).unwrap();
        let found = found(&[folder.path()]);
        assert_eq!(found.unreadable.len(), 1, "{:?}", found.unreadable);
        assert!(found.unreadable[0].path.ends_with("headless.dcm"));
        assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
    }

    #[test]
    fn a_header_over_a_limit_is_unreadable_with_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("1.dcm"), slice(1)).unwrap();
        let limits = Limits {
            pixels_per_frame: 3,
            ..Limits::default()
        };
        let found = discover(&[folder.path().to_owned()], &limits).unwrap();
        assert_eq!(told(&found.unreadable), ["1.dcm: over the limit (2 rows x 2 columns)"]);
    }

    #[test]
    fn a_closed_file_is_unreadable_and_a_link_to_nothing_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed.dcm");
        fs::write(&closed, slice(1)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        symlink("nowhere", folder.path().join("link.dcm")).unwrap();
        let found = found(&[folder.path()]);
        assert_eq!(found.skipped.len(), 1, "{:?}", found.skipped);
        if fs::File::open(&closed).is_ok() {
            println!("skipped in part: this user may read everything");
        } else {
            assert_eq!(told(&found.unreadable), ["closed.dcm: Permission denied (os error 13)"]);
        }
    }

    #[test]
    fn a_file_reached_by_several_paths_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let ct = folder.path().join("ct");
        fs::create_dir(&ct).unwrap();
        for number in 1..4 {
            fs::write(ct.join(format!("{number}.dcm")), slice(number)).unwrap();
        }
        fs::write(ct.join("cut.dcm"), &slice(9)[..200]).unwrap();
        symlink(ct.join("1.dcm"), ct.join("again.dcm")).unwrap();
        symlink(&ct, folder.path().join("link")).unwrap();
        symlink("nowhere", ct.join("nothing.dcm")).unwrap();
        let paths = [
            ct.clone(),
            ct.join("../ct"),
            folder.path().join("link"),
            ct.join("2.dcm"),
        ];
        let found = found(&paths.each_ref().map(PathBuf::as_path));
        let counts = (found.instances.len(), found.unreadable.len(), found.skipped.len());
        assert_eq!(counts, (3, 1, 1), "{found:?}");
    }
}
