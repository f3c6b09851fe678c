//! Writing what a user keeps: every file appears whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Writes `bytes` as `folder/name` through a temporary file beside it and a rename, and returns the path.
///
/// # Errors
/// Those of the file system, with the path in front. The temporary file is gone in any case.
pub(super) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = folder.join(name);
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    fs::create_dir_all(folder).map_err(named)?;
    let mut file = tempfile::Builder::new()
        .prefix(".hilum-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(named)?;
    file.write_all(bytes).map_err(named)?;
    file.persist(&path).map_err(|e| named(e.error))?;
    Ok(path)
}

/// Removes `folder/name` where an earlier run left it, so that no result stands beside a report that does not name it.
pub(super) fn remove_stale(folder: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(folder.join(name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_whole(folder.path(), "report.json", b"first").unwrap();
        // Who reads the old one goes on reading it: it is not written over.
        let mut old = fs::File::open(path).unwrap();
        let path = write_whole(folder.path(), "report.json", b"second").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"second");
        let mut read = Vec::new();
        io::Read::read_to_end(&mut old, &mut read).unwrap();
        assert_eq!(read, b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("taken"), b"").unwrap();
        let error = write_whole(&folder.path().join("taken"), "report.json", b"").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        remove_stale(folder.path(), "mask.nii.gz").unwrap();
    }
}
