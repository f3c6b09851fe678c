//! Unique identifiers: whether one is well formed, and the ones that Hilum derives.

use sha2::{Digest, Sha256};

/// A UID under 2.25 from content: the first 128 bits of its SHA-256 as a UUID of version 8 (RFC 9562 section 5.8), written as one decimal number
/// (PS3.5 B.2). The same content gives the same UID.
pub fn derived_uid(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    format!("2.25.{}", uuid::Uuid::new_v8(bytes).as_u128())
}

/// Whether a UID obeys PS3.5 section 9.1: at most 64 characters, digits in components parted by single dots, no component with a leading zero.
pub fn is_valid_uid(uid: &str) -> bool {
    let well_formed = |component: &str| {
        !component.is_empty()
            && component.bytes().all(|byte| byte.is_ascii_digit())
            && (component.len() == 1 || !component.starts_with('0'))
    };
    (1..=64).contains(&uid.len()) && uid.contains('.') && uid.split('.').all(well_formed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_uid_is_valid_and_depends_on_content_alone() {
        let uid = derived_uid(b"a");
        assert_eq!(uid, derived_uid(b"a"));
        assert_ne!(uid, derived_uid(b"b"));
        assert!(is_valid_uid(&uid), "{uid}");
        let number: u128 = uid.trim_start_matches("2.25.").parse().ok().unwrap_or(0);
        assert_eq!(number >> 76 & 0xf, 8, "version");
        assert_eq!(number >> 62 & 3, 2, "variant");
    }

    #[test]
    fn uids_are_held_to_the_standard() {
        for good in ["1.2.840.10008.5.1.4.1.1.2", "2.25.0", "0.0"] {
            assert!(is_valid_uid(good), "{good}");
        }
        let long = format!("1.{}", "2".repeat(63));
        for bad in ["", "1", "1..2", ".1", "1.", "1.02", "1.2a", "1.2/../3", "1 .2", &long] {
            assert!(!is_valid_uid(bad), "{bad}");
        }
    }
}
