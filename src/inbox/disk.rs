//! Room on the disk of the data folder, and how much of it uploads may take.

use std::io;
use std::path::Path;

/// How full a disk is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disk {
    /// Bytes that are free for those who are not root.
    pub free_bytes: u64,
    /// Share of it that is used, 0 to 1, as `df` says it: what root alone may take counts neither way.
    pub used_share: f64,
}

/// From when on room is made, and from when on uploads are refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskLimits {
    /// What has to stay free, in bytes: it belongs to the database, and no upload may take of it.
    pub reserve_bytes: u64,
    /// Above this used share, 0 to 1, what may go goes sooner.
    pub watermark: f64,
}

impl Disk {
    /// The disk of a folder, as it is now. Blocks for as long as the file system takes.
    ///
    /// # Errors
    /// A folder that is not there, or a file system that does not answer.
    pub fn of(folder: &Path) -> io::Result<Disk> {
        let disk = rustix::fs::statvfs(folder).map_err(io::Error::from)?;
        Ok(Disk::from_blocks(
            disk.f_blocks,
            disk.f_bfree,
            disk.f_bavail,
            disk.f_frsize,
        ))
    }

    fn from_blocks(all: u64, free: u64, available: u64, block_bytes: u64) -> Disk {
        let used = all.saturating_sub(free);
        let usable = used.saturating_add(available);
        let used_share = if usable == 0 { 1.0 } else { used as f64 / usable as f64 };
        Disk {
            free_bytes: available.saturating_mul(block_bytes),
            used_share,
        }
    }

    /// Whether an upload may begin.
    #[must_use]
    pub fn has_room(&self, limits: &DiskLimits) -> bool {
        self.free_bytes >= limits.reserve_bytes
    }

    /// Whether room is to be made.
    #[must_use]
    pub fn is_scarce(&self, limits: &DiskLimits) -> bool {
        !self.has_room(limits) || self.used_share > limits.watermark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_before_uploads_are_refused_and_what_is_roots_counts_neither_way() {
        // 1000 blocks of 4096 bytes, 100 of them for root alone: 720 of 900 are used.
        let disk = Disk::from_blocks(1000, 280, 180, 4096);
        assert_eq!(disk.free_bytes, 180 * 4096);
        assert!((disk.used_share - 0.8).abs() < 1e-9);
        for (reserve_bytes, watermark, room, scarce) in [
            (0, 1.0, true, false),
            (0, 0.8, true, false),
            (0, 0.79, true, true),
            (180 * 4096, 0.85, true, false),
            (180 * 4096 + 1, 0.85, false, true),
        ] {
            let limits = DiskLimits {
                reserve_bytes,
                watermark,
            };
            assert_eq!(
                (disk.has_room(&limits), disk.is_scarce(&limits)),
                (room, scarce),
                "{limits:?}"
            );
        }
    }

    #[test]
    fn a_disk_without_a_block_is_full() {
        assert!(Disk::from_blocks(0, 0, 0, 4096).used_share >= 1.0);
    }
}
