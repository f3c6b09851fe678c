//! What workers and machines are called in the database.

use uuid::Uuid;

/// A name that no other worker has or had.
#[must_use]
pub fn worker_name() -> String {
    let id = Uuid::new_v4().simple().to_string();
    format!("{}-{}-{}", machine(), std::process::id(), &id[..8])
}

/// This machine since its last start.
#[must_use]
pub fn host_name() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{} {}", machine(), boot.trim())
}

fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workers_have_one_name() {
        assert_ne!(worker_name(), worker_name());
    }
}
