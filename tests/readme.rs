//! What the documents say exists: options, subcommands and files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn help(subcommand: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(subcommand.split(' '))
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "hilum {subcommand} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// The words behind `--` in a text.
fn options(text: &str) -> Vec<String> {
    text.split("--")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect::<String>()
        })
        .filter(|name| name.len() > 1)
        .collect()
}

#[test]
fn every_option_and_subcommand_of_the_readme_is_there() {
    let readme = read("README.md");
    let subcommands = [
        "segment", "inspect", "phantom", "evaluate", "check", "serve", "submit", "user add", "migrate",
    ];
    let all: String = subcommands.iter().map(|subcommand| help(subcommand)).collect();
    for subcommand in subcommands {
        assert!(
            readme.contains(&format!("hilum {subcommand}")),
            "the README says nothing of hilum {subcommand}"
        );
    }
    for option in options(&readme) {
        assert!(all.contains(&format!("--{option}")), "no subcommand has --{option}");
    }
}

#[test]
fn every_link_of_the_readme_leads_somewhere() {
    let readme = read("README.md");
    let targets = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let mut count = 0;
    for target in targets.filter(|target| !target.starts_with("http")) {
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(),
            "{target} is not there"
        );
        count += 1;
    }
    assert!(count > 8);
}

#[test]
fn the_files_that_the_readme_promises_are_those_that_are_made() {
    let readme = read("README.md");
    for name in hilum::segment::ARTIFACT_NAMES {
        assert!(readme.contains(name), "the README says nothing of {name}");
    }
}
