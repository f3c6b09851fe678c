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

/// What a reader opens: every Markdown file that people are sent to.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = |folder: &str| {
        let files = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let names = files
            .map(|name| name.into_string().unwrap())
            .filter(|name| name.ends_with(".md"));
        names.map(|name| format!("{folder}{name}")).collect::<Vec<_>>()
    };
    ["", "docs/", "onnx/", "tests/"].into_iter().flat_map(of).collect()
}

/// A document without its blocks of code.
fn prose(name: &str) -> String {
    let text = read(name);
    let (mut inside, mut lines) = (false, Vec::new());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(name: &str) -> BTreeSet<String> {
    let prose = prose(name);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for name in documents() {
        let prose = prose(&name);
        let linked = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let shown = prose.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for target in linked.chain(shown).filter(|target| !target.starts_with("http")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&name).parent().unwrap();
            let path = if path.is_empty() {
                Path::new(&name).to_owned()
            } else {
                folder.join(path)
            };
            assert!(root.join(&path).exists(), "{name}: {target} is not there");
            assert!(
                anchor.is_empty() || anchors(path.to_str().unwrap()).contains(anchor),
                "{name}: {target} is no heading"
            );
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

/// The blocks of code of a document in this language, without the spaces before their lines.
fn blocks(name: &str, language: &str) -> Vec<String> {
    let (text, mut found, mut inside) = (read(name), Vec::new(), None::<Vec<String>>);
    for line in text.lines().map(str::trim) {
        match &mut inside {
            None if line == format!("```{language}") => inside = Some(Vec::new()),
            Some(lines) if line == "```" => {
                found.push(lines.join("\n"));
                inside = None;
            }
            Some(lines) => lines.push(line.to_owned()),
            None => {}
        }
    }
    found
}

#[test]
fn the_configurations_of_the_service_page_load() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks("docs/service.md", "toml");
    assert!(!blocks.is_empty());
    // What stands further down goes into the file that has what stands above it.
    for number in 1..=blocks.len() {
        let text = blocks[..number].join("\n");
        let file = folder.path().join("hilum.toml");
        fs::write(&file, &text).unwrap();
        let nothing = folder.path().join("nothing");
        fs::create_dir_all(&nothing).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .arg("--config")
            .arg(&file)
            .arg("inspect")
            .arg(&nothing)
            .output()
            .unwrap();
        // What it ends with where there is nothing to take.
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{text}\n{said}");
        let settings = hilum::config::Settings::load(Some(&file)).unwrap();
        assert_eq!(settings.pacs[0].name, "orthanc");
    }
}

#[test]
fn the_proxy_of_the_service_page_passes_to_where_hilum_listens() {
    let proxy = blocks("docs/service.md", "nginx").remove(0);
    let defaults: toml::Table = read("config/default.toml").parse().unwrap();
    let listen = defaults["service"]["listen"].as_str().unwrap();
    assert!(proxy.contains(&format!("proxy_pass http://{listen};")), "{proxy}");
    assert!(
        proxy.contains("proxy_http_version 1.1;"),
        "Orthanc's uploads are chunked: {proxy}"
    );
    let (_, hosts) = proxy.split_once("# service.hosts = ").unwrap();
    let hosts = toml::from_str::<toml::Table>(&format!("hosts = {}", hosts.lines().next().unwrap())).unwrap();
    assert!(defaults["service"]["hosts"].is_array() && hosts["hosts"].is_array());
    let named = proxy.split_once("server_name ").unwrap().1.split(';').next().unwrap();
    assert_eq!(hosts["hosts"][0].as_str(), Some(named));
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
