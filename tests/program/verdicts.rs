//! Verdicts that no altered header of a whole series shows: those before decoding, and those of a single file among many.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{decisive, ends_with, files, hilum, phantom, rewrite, segment, text};

/// Overwrites what a compressed frame is coded as, from its second byte to its end; headers and lengths stay.
fn spoil(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    // Item tags behind the pixel data's: the offset table, then the one fragment.
    let pixels = bytes
        .windows(8)
        .position(|at| at == [0xE0, 0x7F, 0x10, 0x00, b'O', b'B', 0, 0])
        .unwrap();
    let item = |bytes: &[u8], at: usize| {
        assert_eq!(bytes[at..at + 4], [0xFE, 0xFF, 0x00, 0xE0]);
        u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize
    };
    let fragment = pixels + 12 + 8 + item(&bytes, pixels + 12);
    let length = item(&bytes, fragment);
    bytes[fragment + 9..fragment + 8 + length].fill(0);
    fs::write(file, bytes).unwrap();
}

#[test]
fn inspect_reads_headers_alone_and_what_is_too_large_is_refused_before_decoding() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &["--transfer-syntax", "jpeg_ls"]);
    files(&series).iter().for_each(|file| spoil(file));
    let out = folder.path().join("out");

    let inspected = hilum(&["inspect", "--json", series.to_str().unwrap()]);
    ends_with(&inspected, 0);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(
        inspected["series"][0]["verdict"]["outcome"], "accepted",
        "{inspected:#}"
    );

    assert_eq!(decisive(&series, &out)["code"], "corrupt_pixels");

    let configuration = folder.path().join("hilum.toml");
    fs::write(&configuration, "[series]\nmax_memory_bytes = 1048576\n").unwrap();
    let more = ["--json", "--config", configuration.to_str().unwrap()];
    let output = segment(&series, &out, &more);
    ends_with(&output, 3);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = printed["series"][0]["verdict"]["findings"].as_array().unwrap();
    let codes: Vec<_> = findings
        .iter()
        .map(|finding| finding["code"].as_str().unwrap())
        .collect();
    assert!(
        codes.contains(&"too_large") && !codes.contains(&"corrupt_pixels"),
        "{codes:?}"
    );
}

#[test]
fn an_intercept_forgotten_or_applied_twice_is_seen_in_the_pixels_in_all_slices_or_in_one() {
    const INTERCEPT: (u16, u16) = (0x0028, 0x1052);
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let all = files(&series);
    for (wrong, some) in [
        ("-2048", &all[..]),
        ("0", &all[..]),
        ("0", &all[30..31]),
        ("-2048", &all[30..31]),
    ] {
        some.iter().for_each(|file| rewrite(file, INTERCEPT, wrong));
        let inspected = hilum(&["inspect", series.to_str().unwrap()]);
        ends_with(&inspected, 0);
        let finding = decisive(&series, &folder.path().join("out"));
        assert_eq!(finding["code"], "not_hu", "{wrong} in {}: {finding}", some.len());
        if some.len() == 1 {
            let name = some[0].file_name().unwrap().to_str().unwrap();
            let concerns = finding["concerns"].as_array().unwrap();
            assert_eq!(concerns.len(), 1, "{finding}");
            assert!(concerns[0].as_str().unwrap().contains(name), "{finding}");
        }
        some.iter().for_each(|file| rewrite(file, INTERCEPT, "-1024"));
    }
}

/// IssuerOfPatientID, which comes right behind PatientID.
const ISSUER: (u16, u16) = (0x0010, 0x0021);

/// Puts an IssuerOfPatientID into a file that has none.
fn issued(file: &Path, issuer: &str) {
    assert_eq!(issuer.len() % 2, 0);
    let bytes = fs::read(file).unwrap();
    let start = [0x10, 0, 0x20, 0, b'L', b'O'];
    let id = bytes.windows(6).position(|at| at == start).unwrap();
    let end = id + 8 + usize::from(u16::from_le_bytes([bytes[id + 6], bytes[id + 7]]));
    let element = [
        &[0x10, 0, 0x21, 0, b'L', b'O', issuer.len() as u8, 0],
        issuer.as_bytes(),
    ]
    .concat();
    fs::write(file, [&bytes[..end], &element, &bytes[end..]].concat()).unwrap();
}

#[test]
fn one_file_of_somebody_else_refuses_the_series_and_names_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    // A birth date tells of somebody else only where the others have one.
    files(&series)
        .iter()
        .for_each(|file| rewrite(file, (0x0010, 0x0030), "18190522"));
    let stray = &files(&series)[10];
    let before = fs::read(stray).unwrap();
    // PatientName, PatientID, PatientBirthDate.
    for (tag, other) in [
        ((0x0010, 0x0010), "MIDDLEMARCH^DOROTHEA"),
        ((0x0010, 0x0020), "MIDDLEMARCH-7"),
        ((0x0010, 0x0030), "18290303"),
        (ISSUER, "LOWICK"),
    ] {
        if tag == ISSUER {
            files(&series).iter().for_each(|file| issued(file, "FRESHITT"));
        }
        rewrite(stray, tag, other);
        let output = segment(&series, &folder.path().join("out"), &["--json"]);
        ends_with(&output, 3);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["series"][0]["verdict"]["findings"][0]["code"], "mixed_patients");
        assert!(!told.contains(other), "{told}");
        fs::write(stray, &before).unwrap();
    }
}

#[test]
fn projections_are_refused_and_beside_slices_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path(), &[]);
    let out = folder.path().join("out");
    let all = files(&series);
    for value in [
        "DERIVED\\SECONDARY\\AXIAL\\MINIP",
        "DERIVED\\SECONDARY\\MIN_IP",
        "DERIVED\\SECONDARY\\AXIAL\\MIP",
    ] {
        all.iter().for_each(|file| rewrite(file, (8, 8), value));
        let finding = decisive(&series, &out);
        assert_eq!(finding["code"], "derived_projection", "{value}: {finding}");
    }
    all.iter()
        .skip(1)
        .for_each(|file| rewrite(file, (8, 8), "ORIGINAL\\PRIMARY\\AXIAL"));
    let inspected = hilum(&["inspect", "--json", series.to_str().unwrap()]);
    ends_with(&inspected, 0);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let finding = &inspected["series"][0]["verdict"]["findings"][0];
    assert_eq!(finding["code"], "other_objects_dropped", "{finding}");
    let name = all[0].file_name().unwrap().to_str().unwrap();
    assert!(finding["concerns"][0].as_str().unwrap().contains(name), "{finding}");
}
