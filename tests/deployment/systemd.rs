//! The unit of systemd, and what docs/service.md says of its installation.

use std::collections::BTreeSet;

use super::{has_time_to_end, in_the_source, text, understands};

/// The lines of the unit: section, key and value.
pub(crate) fn unit() -> Vec<(String, String, String)> {
    let (mut section, mut found) = (String::new(), Vec::new());
    for line in text("config/systemd/hilum.service").lines() {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => name.clone_into(&mut section),
            None if line.is_empty() || line.starts_with('#') => {}
            None => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
                found.push((section.clone(), key.to_owned(), value.to_owned()));
            }
        }
    }
    found
}

#[test]
fn the_unit_starts_the_service_and_gives_it_time_to_end() {
    const KEYS: [(&str, &[&str]); 3] = [
        ("Unit", &["Description", "After", "Wants"]),
        (
            "Service",
            &[
                "User",
                "Group",
                "Environment",
                "EnvironmentFile",
                "ExecStart",
                "StateDirectory",
                "StateDirectoryMode",
                "CacheDirectory",
                "Restart",
                "RestartSec",
                "TimeoutStopSec",
                "KillMode",
                "NoNewPrivileges",
                "ProtectSystem",
                "ProtectHome",
                "PrivateTmp",
                "LimitNOFILE",
            ],
        ),
        ("Install", &["WantedBy"]),
    ];
    let unit = unit();
    let mut seen = BTreeSet::new();
    for (section, key, _) in &unit {
        let of_section = KEYS.iter().find(|(name, _)| name == section);
        assert!(of_section.unwrap().1.contains(&key.as_str()), "[{section}] {key}");
        assert!(key == "Environment" || seen.insert(key), "{key} stands there twice");
    }
    let value = |wanted: &str| {
        let mut lines = unit.iter().filter(|(_, key, _)| key == wanted);
        lines.next().unwrap_or_else(|| panic!("no {wanted}")).2.clone()
    };
    let started = value("ExecStart");
    let mut words = started.split(' ').map(str::to_owned);
    let program = words.next().unwrap();
    let words: Vec<String> = words.collect();
    understands(&words, "serve");
    has_time_to_end(&value("TimeoutStopSec"));
    // The state directory is the data folder, and the cache directory's variable is read.
    let environment: Vec<&str> = unit
        .iter()
        .filter(|(_, key, _)| key == "Environment")
        .map(|(_, _, value)| value.as_str())
        .collect();
    let data = format!("HILUM_SERVICE__DATA_FOLDER=/var/lib/{}", value("StateDirectory"));
    assert!(environment.contains(&data.as_str()), "{environment:?}");
    // docs/service.md puts there what is named here, and its commands take what is there.
    let page = text("docs/service.md");
    let chapter = page
        .split("\n### ")
        .find(|part| part.starts_with("With systemd"))
        .unwrap();
    let networks = environment
        .iter()
        .find_map(|one| one.strip_prefix("HILUM_MODEL__FOLDER="));
    let configuration = words.iter().find(|word| word.starts_with("/etc/")).unwrap();
    for wanted in [program.as_str(), networks.unwrap(), configuration, &value("User")] {
        assert!(chapter.contains(&format!(" {wanted}")), "nothing puts {wanted} there");
    }
    for source in ["onnx/*.onnx", "onnx/*.toml", "config/systemd/hilum.service"] {
        assert!(chapter.contains(source) && in_the_source(source) > 0, "{source}");
    }
}
