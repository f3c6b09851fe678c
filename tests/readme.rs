//! What the documents say exists: options, subcommands and files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use hilum::dicomweb::Pacs;

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

/// Keys and defaults of the table of `[[pacs]]` in docs/service.md: the first and third column without back quotes.
fn keys_of_a_pacs() -> Vec<(String, String)> {
    let page = read("docs/service.md");
    let chapter = page
        .split("\n## ")
        .find(|chapter| chapter.starts_with("Configuration\n"))
        .unwrap();
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let columns: Vec<&str> = row.split('|').map(|column| column.trim().trim_matches('`')).collect();
        (columns[1].to_owned(), columns[3].to_owned())
    })
    .collect()
}

/// The keys and values of the `[[pacs]]` block that stands as a comment in config/default.toml.
fn example_of_a_pacs() -> toml::Table {
    let options = read("config/default.toml");
    let block = options.split_once("#   [[pacs]]\n").unwrap().1.lines();
    let keys = block.map_while(|line| line.strip_prefix("#   "));
    keys.collect::<Vec<_>>().join("\n").parse().unwrap()
}

#[test]
fn every_key_of_a_pacs_stands_in_the_table_with_its_default() {
    // What is not known is answered with all that is.
    let refusal = toml::from_str::<Pacs>("no_such_key = 1").unwrap_err().to_string();
    let known = refusal.split_once("expected one of").unwrap().1;
    let known: BTreeSet<&str> = known.split('`').skip(1).step_by(2).collect();
    assert!(known.len() > 10 && known.contains("look_back_days"), "{refusal}");
    let table = keys_of_a_pacs();
    assert_eq!(
        table.iter().map(|(key, _)| key.as_str()).collect::<BTreeSet<_>>(),
        known
    );
    let must = "name = \"a\"\nurl = \"http://b\"\n";
    let given = table
        .iter()
        .filter(|(_, default)| default != "must be given" && default != "none");
    let defaults: String = given.map(|(key, default)| format!("{key} = {default}\n")).collect();
    let spelt_out: Pacs = toml::from_str(&format!("{must}{defaults}")).unwrap();
    assert!(
        spelt_out == toml::from_str(must).unwrap(),
        "a default is another one: {defaults}"
    );
    let example = example_of_a_pacs();
    assert_eq!(
        example.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        known,
        "config/default.toml"
    );
    let defaults: toml::Table = defaults.parse().unwrap();
    for (key, default) in defaults {
        assert_eq!(example[&key], default, "config/default.toml: {key}");
    }
    for (key, _) in table.iter().filter(|(_, default)| default == "must be given") {
        let without = must.replace(key, "username");
        assert!(toml::from_str::<Pacs>(&without).is_err(), "{key} need not be given");
    }
}
