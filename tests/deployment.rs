//! What one installs: every variable, path, port, option and image that the container files, the unit and Orthanc's files name exists.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

const FILES: [&str; 5] = [
    "Dockerfile",
    "docker-compose.yml",
    "docker-compose.gpu.yml",
    "config/systemd/hilum.service",
    "config/compose/hilum.toml",
];

/// Words of a file that look like `HILUM_SECTION__KEY`.
fn variables(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter(|word| word.starts_with("HILUM_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_variable_is_a_setting() {
    let defaults: toml::Table = toml::from_str(&text("config/default.toml")).unwrap();
    let source = text("src/cli/mod.rs") + &text("src/telemetry.rs");
    for file in FILES {
        for variable in variables(&text(file)) {
            let name = variable.trim_start_matches("HILUM_").to_lowercase();
            match name.split_once("__") {
                Some((section, key)) => assert!(
                    defaults.get(section).and_then(|table| table.get(key)).is_some(),
                    "{file} names {variable}, which is no setting"
                ),
                None => assert!(
                    source.contains(&variable),
                    "{file} names {variable}, which nothing reads"
                ),
            }
        }
    }
}

#[test]
fn every_file_that_is_mounted_or_copied_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for line in text("docker-compose.yml").lines() {
        if let Some(mount) = line.trim().strip_prefix("- ./") {
            let path = mount.split(':').next().unwrap();
            assert!(root.join(path).is_file(), "docker-compose.yml mounts {path}");
        }
    }
}

#[test]
fn every_image_stands_in_the_table() {
    let table = text("docs/images.md");
    let mut named = BTreeSet::new();
    for file in ["docker-compose.yml", "docker-compose.gpu.yml"] {
        for line in text(file).lines() {
            if let Some(image) = line.trim().strip_prefix("image: ") {
                named.insert(image.to_owned());
            }
        }
    }
    for line in text("Dockerfile").lines() {
        if let Some(rest) = line.strip_prefix("FROM ") {
            let image = rest.split_whitespace().next().unwrap();
            if image.contains(':') {
                named.insert(image.to_owned());
            }
        }
    }
    assert!(named.len() >= 5, "{named:?}");
    for image in named {
        let (name, tag) = image.split_once(':').unwrap();
        assert!(
            table.contains(&format!("| {name} | {tag} |")),
            "{image} is not in docs/images.md"
        );
    }
}

#[test]
fn ports_agree() {
    let defaults: toml::Table = toml::from_str(&text("config/default.toml")).unwrap();
    let listen = defaults["service"]["listen"].as_str().unwrap();
    let port = listen.rsplit(':').next().unwrap();
    for file in [
        "Dockerfile",
        "docker-compose.yml",
        "config/compose/hilum.toml",
        "config/orthanc/orthanc.json",
    ] {
        assert!(
            text(file).contains(&format!(":{port}")),
            "{file} does not name port {port}"
        );
    }
    assert!(text("Dockerfile").contains(&format!("EXPOSE {port}")));
}

#[test]
fn the_settings_of_the_containers_load() {
    let hilum = env!("CARGO_BIN_EXE_hilum");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/compose/hilum.toml");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(hilum)
        .arg("--config")
        .arg(file)
        .arg("inspect")
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("configuration"), "{said}");
}

#[test]
fn orthancs_configuration_names_the_rule_and_the_source_that_hilum_knows() {
    let orthanc = text("config/orthanc/orthanc.json");
    let plain: String = orthanc.lines().filter(|line| !line.trim().starts_with("//")).collect();
    let orthanc: serde_json::Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(orthanc["LuaScripts"][0], "/etc/orthanc/hilum.lua");
    let source = orthanc["DicomWeb"]["Servers"]["hilum"]["HttpHeaders"]["X-Hilum-Source"]
        .as_str()
        .unwrap();
    let compose: toml::Table = toml::from_str(&text("config/compose/hilum.toml")).unwrap();
    let pacs = compose["pacs"].as_array().unwrap();
    assert!(pacs.iter().any(|block| block["name"].as_str() == Some(source)));
    for header in ["X-Hilum-Series-Complete", "X-Hilum-Source"] {
        assert!(
            text("src/http/stow.rs").to_lowercase().contains(&header.to_lowercase()),
            "{header}"
        );
    }
    let username = orthanc["RegisteredUsers"].as_object().unwrap().keys().next().unwrap();
    assert_eq!(pacs[0]["username"].as_str(), Some(username.as_str()));
}

/// The words in back quotes of a table's first column.
fn codes(text: &str, heading: &str) -> BTreeSet<String> {
    let table = text.split(heading).nth(1).unwrap();
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with("| `"));
    rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn the_codes_of_failed_jobs_are_those_that_the_code_has() {
    let named = codes(&text("docs/service.md"), "A job that failed says why");
    let source = text("src/jobs/worker.rs")
        + &text("src/jobs/error.rs")
        + &text("src/jobs/core.rs")
        + &text("src/database/queue.rs");
    assert_eq!(named.len(), 6, "{named:?}");
    for code in &named {
        assert!(source.contains(&format!("\"{code}\"")), "no job fails with {code}");
    }
}
