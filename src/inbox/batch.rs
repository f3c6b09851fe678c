//! The file of one request: instances one behind the other, synced before a row refers to it.
//!
//! Its writer holds a lock on it until it is done, so that a sweep tells what is being written from what a killed process left.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What batch files end with.
const EXTENSION: &str = "batch";

/// Where a batch file lies.
#[must_use]
pub fn batch_path(folder: &Path, file: &str) -> PathBuf {
    folder.join(file)
}

/// A batch file that is being written. Dropped before [`keep`](BatchFile::keep) or [`leave`](BatchFile::leave), it is removed.
#[derive(Debug)]
pub(super) struct BatchFile {
    folder: PathBuf,
    name: String,
    file: File,
    /// End of what is kept.
    kept: u64,
    /// End of what is written.
    written: u64,
    remove: bool,
}

impl BatchFile {
    /// A new file, locked.
    pub(super) fn create(folder: &Path) -> io::Result<BatchFile> {
        loop {
            let name = format!("{}.{EXTENSION}", uuid::Uuid::now_v7().simple());
            let path = batch_path(folder, &name);
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            // A sweep may have met it before the lock: then it is gone, or about to go.
            if file.try_lock().is_ok() && file.metadata()?.nlink() > 0 {
                return Ok(BatchFile {
                    folder: folder.to_owned(),
                    name,
                    file,
                    kept: 0,
                    written: 0,
                    remove: true,
                });
            }
            let _ = fs::remove_file(&path);
        }
    }

    /// Its name in the folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    pub(super) fn path(&self) -> PathBuf {
        batch_path(&self.folder, &self.name)
    }

    /// Length of what is kept.
    pub(super) fn length(&self) -> u64 {
        self.kept
    }

    /// Appends bytes of the instance that is coming.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Offset and length of the instance that came, if it is whole.
    pub(super) fn instance(&self) -> (u64, u64) {
        (self.kept, self.written - self.kept)
    }

    /// Keeps the instance that came.
    pub(super) fn keep_instance(&mut self) {
        self.kept = self.written;
    }

    /// Drops the instance that came; the next one is written in its place.
    pub(super) fn drop_instance(&mut self) {
        self.written = self.kept;
    }

    /// Cuts off what was dropped, and brings file and folder to the disk.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        self.file.set_len(self.kept)?;
        self.file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Rows refer to it: it stays.
    pub(super) fn keep(mut self) {
        self.remove = false;
    }

    /// Whether rows refer to it is not known: a sweep will tell.
    pub(super) fn leave(mut self) {
        self.remove = false;
    }
}

impl Drop for BatchFile {
    fn drop(&mut self) {
        if self.remove
            && let Err(error) = fs::remove_file(self.path())
        {
            tracing::warn!(file = self.name, %error, "a batch file could not be removed; a sweep will");
        }
    }
}

/// A batch file that nobody writes, locked against others that sweep.
#[derive(Debug)]
pub(super) struct Abandoned {
    /// Its name.
    pub(super) name: String,
    path: PathBuf,
    _lock: File,
}

impl Abandoned {
    /// Removes it.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(file = self.name, %error, "a batch file without rows could not be removed");
        }
    }
}

/// The names of the batch files of a folder.
pub(super) fn batch_files(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Takes the lock of a file; `None`: it is being written, or gone.
pub(super) fn abandoned(folder: &Path, name: &str) -> io::Result<Option<Abandoned>> {
    let path = batch_path(folder, name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(Abandoned {
            name: name.to_owned(),
            path,
            _lock: file,
        })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_dropped_is_not_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut batch = BatchFile::create(folder.path()).unwrap();
        batch.append(b"first").unwrap();
        batch.keep_instance();
        batch.append(b"dropped and longer").unwrap();
        batch.drop_instance();
        batch.append(b"se").unwrap();
        batch.append(b"cond").unwrap();
        assert_eq!(batch.instance(), (5, 6));
        batch.keep_instance();
        batch.append(b"dropped at the end").unwrap();
        batch.drop_instance();
        batch.seal().unwrap();
        let path = batch.path();
        batch.keep();
        assert_eq!(fs::read(path).unwrap(), b"firstsecond");
    }

    #[test]
    fn a_file_is_removed_unless_it_is_kept_and_is_nobodys_garbage_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let batch = BatchFile::create(folder.path()).unwrap();
        let name = batch.name().to_owned();
        assert_eq!(batch_files(folder.path()).unwrap(), [name.as_str()]);
        assert!(abandoned(folder.path(), &name).unwrap().is_none());
        drop(batch);
        assert!(batch_files(folder.path()).unwrap().is_empty());
        let batch = BatchFile::create(folder.path()).unwrap();
        let name = batch.name().to_owned();
        batch.leave();
        let left = abandoned(folder.path(), &name).unwrap().unwrap();
        left.remove();
        assert!(batch_files(folder.path()).unwrap().is_empty());
    }
}
