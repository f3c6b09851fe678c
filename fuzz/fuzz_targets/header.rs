//! Any bytes -> the header of an instance, or an error.
#![no_main]

use hilum::dicom::{Limits, Source, read_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("hilum-fuzz-header-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder can be written");
    let source = Source::of_file(&path).expect("the file was just written");
    if let Ok(instance) = read_header(&source, &Limits::default()) {
        let copied: usize = instance.header.identity.iter().map(|element| element.value.len()).sum();
        // A sequence grows by the reserved bytes and long lengths of its explicit form at most; deflate by its own factor.
        assert!(
            copied <= 4 * bytes.len().max(16) || instance.header.transfer_syntax_uid.ends_with(".1.99"),
            "{copied}"
        );
        assert!(instance.header.frames.len() <= Limits::default().frames);
    }
});
