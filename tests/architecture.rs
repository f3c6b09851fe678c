//! The one rule of the architecture: a room imports only from rooms above it, in the order in which `src/lib.rs` lists them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The rooms in their order, from the `pub mod` lines of `src/lib.rs`.
fn rooms(source: &Path) -> Vec<String> {
    fs::read_to_string(source.join("lib.rs"))
        .unwrap()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect()
}

/// Every `crate::room` that a line of code names, grouped imports (`crate::{a::X, b::Y}`) included.
fn imported(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("crate::") {
        rest = &rest[at + "crate::".len()..];
        let name = |s: &str| {
            s.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, 0);
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        found.push(name(&group[start..at]));
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push(name(&group[start..at]));
                        start = at + 1;
                    }
                    _ => {}
                }
            }
        } else {
            found.push(name(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The code of a file without its comments, so that a sentence about another room is no import.
fn code(path: &Path) -> String {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_room_imports_only_from_rooms_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms = rooms(&source);
    assert!(
        rooms.len() > 8,
        "src/lib.rs lists its rooms as `pub mod name;`: {rooms:?}"
    );
    let mut files = Vec::new();
    sources(&source, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside
            .iter()
            .next()
            .unwrap()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        let Some(own) = rooms.iter().position(|r| *r == room) else {
            continue;
        };
        for name in imported(&code(file)) {
            let Some(other) = rooms.iter().position(|r| *r == name) else {
                continue;
            };
            if other > own {
                wrong.push(format!(
                    "{} imports {name}, which stands below {room}",
                    inside.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The longest chain of `super::` in a text.
fn longest_super(text: &str) -> usize {
    let chain = |at: usize| {
        text.as_bytes()[at..]
            .chunks(7)
            .take_while(|part| *part == b"super::")
            .count()
    };
    text.match_indices("super::")
        .map(|(at, _)| chain(at))
        .max()
        .unwrap_or(0)
}

#[test]
fn no_path_of_super_leaves_its_room() {
    assert_eq!(longest_super("use super::a; use super::super::b;"), 2);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    assert!(files.len() > 100);
    for file in &files {
        let inside = file.strip_prefix(&source).unwrap();
        let text = code(file);
        let own = !inside.ends_with("mod.rs");
        let inline = text
            .lines()
            .any(|line| line.trim_start().starts_with("mod ") && line.ends_with('{'));
        // Modules from the room down to what stands in this file; one `super::` less than those stays in the room.
        let modules = inside.iter().count() - usize::from(!own) + usize::from(inline);
        assert!(longest_super(&text) < modules.max(1), "{}", inside.display());
    }
}

#[test]
fn dicom_rs_stays_in_its_room() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    for file in &files {
        let inside = file.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        // Tests hold results against it.
        if inside.starts_with("dicom/") || inside.starts_with("output/") || inside.ends_with("/tests.rs") {
            continue;
        }
        let text = code(file);
        for name in [
            "dicom_core",
            "dicom_object",
            "dicom_parser",
            "dicom_encoding",
            "dicom_pixeldata",
            "dicom_dictionary_std",
            "dicom_transfer_syntax_registry",
        ] {
            assert!(!text.contains(name), "{inside} names {name}");
        }
    }
}

#[test]
fn the_core_is_free_of_the_service() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let core = [
        "dicom/",
        "series/",
        "volume/",
        "lungs/",
        "model/",
        "output/",
        "segment.rs",
        "segment/",
        "phantom/",
        "evaluate/",
    ];
    for file in &files {
        let inside = file.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        if !core.iter().any(|room| inside.starts_with(room)) {
            continue;
        }
        let text = code(file);
        for name in ["tokio", "axum", "sqlx", "reqwest"] {
            let named = [
                format!("{name}::"),
                format!("use {name};"),
                format!("extern crate {name}"),
            ];
            assert!(named.iter().all(|name| !text.contains(name)), "{inside} names {name}");
        }
    }
}
