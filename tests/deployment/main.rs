//! What one installs: every variable, path, port, option and image that the container files, the unit and Orthanc's files name exists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../service_support/mod.rs"]
mod service_support;

mod compose;
mod image;
mod orthanc;
mod setup;
mod systemd;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use compose::{COMPOSE, compose, texts};
use hilum::cli::LONGEST_END_SECONDS;
use image::instructions;
use orthanc::json_of;
use systemd::unit;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
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

/// Who waits so many seconds for the service to end waits longer than it takes by itself, so that one on a busy machine is not killed at its last step.
fn has_time_to_end(seconds: &str) {
    const SLACK: f64 = 10.0;
    let defaults: toml::Table = toml::from_str(&text("config/default.toml")).unwrap();
    let drain = defaults["service"]["drain_seconds"].as_float().unwrap();
    let longest = f64::from(u32::try_from(LONGEST_END_SECONDS).unwrap());
    assert!(
        seconds.parse::<f64>().unwrap() >= drain + longest + SLACK,
        "{seconds} s"
    );
    // What docs/service.md promises.
    let promise = format!("with a private database {longest}:");
    assert!(text("docs/service.md").contains(&promise), "{promise}");
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
    let services = &compose(COMPOSE[0])["services"];
    assert_eq!(texts(&services["hilum"]["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    let orthanc = json_of(&text("config/orthanc/orthanc.json"));
    let ports = ["HttpPort", "DicomPort"].map(|name| format!("127.0.0.1:{0}:{0}", orthanc[name]));
    assert_eq!(texts(&services["orthanc"]["ports"]), ports);
}

/// `hilum inspect` of an empty folder with a configuration and variables: it ends with 3, since there is nothing to take, where all of them load.
fn loads(file: Option<&Path>, variables: &[(String, String)]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command.arg("inspect").arg(folder.path());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    match output.status.code() {
        Some(3) => Ok(()),
        code => Err(format!("{code:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[test]
fn the_settings_of_the_containers_load() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/compose/hilum.toml");
    loads(Some(&file), &[]).unwrap();
    loads(Some(&file.with_extension("gone")), &[]).unwrap_err();
}

#[test]
fn the_variables_of_each_file_load() {
    let assigned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut files = vec![
        (
            "Dockerfile",
            instructions()
                .iter()
                .filter(|(_, name, _)| name == "ENV")
                .flat_map(|(_, _, rest)| rest.split_whitespace())
                .map(|word| assigned(word.split_once('=').unwrap()))
                .collect(),
        ),
        (
            "config/systemd/hilum.service",
            unit()
                .iter()
                .filter(|(_, key, _)| key == "Environment")
                .map(|(_, _, value)| assigned(value.split_once('=').unwrap()))
                .collect(),
        ),
    ];
    for file in COMPOSE {
        let environment = compose(file)["services"]["hilum"]["environment"].clone();
        let environment = environment.as_object().unwrap();
        let variables = environment
            .iter()
            .map(|(name, value)| assigned((name, value.as_str().unwrap())));
        files.push((file, variables.collect::<Vec<_>>()));
    }
    // What the program reads beside its settings, and what the loader and NVIDIA's container runtime read.
    let read = text("src/cli/serve.rs") + &text("src/cli/mod.rs");
    let of_others = [
        "LD_LIBRARY_PATH",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
    ];
    for (file, mut variables) in files {
        for (name, _) in variables.iter().filter(|(name, _)| !name.starts_with("HILUM_")) {
            let known = of_others.contains(&name.as_str()) || read.contains(&format!("\"{name}\""));
            assert!(known, "{file} sets {name}, which nothing reads");
        }
        variables.retain(|(name, _)| name.starts_with("HILUM_"));
        assert!(!variables.is_empty(), "{file}");
        loads(None, &variables).unwrap_or_else(|said| panic!("{file}: {said}"));
    }
    loads(None, &[assigned(("HILUM_MODEL__DEVICE", "gpu"))]).unwrap_err();
}

/// The files of the source that a path means, in whose last part `*` may stand.
fn in_the_source(path: &str) -> usize {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let top = path.split('/').next().unwrap();
    let left_out = text(".dockerignore");
    assert!(
        !left_out.lines().any(|out| out == top),
        "{path} is left out of the build"
    );
    let (front, back) = name.split_once('*').unwrap_or((name, ""));
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let names = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let meant = names.filter(|one| match name.contains('*') {
        true => one.starts_with(front) && one.ends_with(back),
        false => one == name,
    });
    meant.count()
}

/// Asks the program for help on what it is started with.
fn understands(arguments: &[String], usage: &str) {
    let asked = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(said.contains(&format!("Usage: hilum {usage}")), "{said}");
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
    let source = text("src/jobs/worker/attempt.rs")
        + &text("src/jobs/worker/ending.rs")
        + &text("src/jobs/error.rs")
        + &text("src/jobs/core.rs")
        + &text("src/database/queue.rs");
    assert_eq!(named.len(), 6, "{named:?}");
    for code in &named {
        assert!(source.contains(&format!("\"{code}\"")), "no job fails with {code}");
    }
}
