//! The files of `docker compose`, and the configuration of Hilum that they mount.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use super::service_support::secret;
use super::{has_time_to_end, text, understands};

/// The files of `docker compose`; the second is laid over the first.
pub(crate) const COMPOSE: [&str; 2] = ["docker-compose.yml", "docker-compose.gpu.yml"];

/// A file of `docker compose`.
pub(crate) fn compose(file: &str) -> Value {
    let mut documents = YamlLoader::load_from_str(&text(file)).unwrap();
    assert_eq!(documents.len(), 1, "{file}");
    json_of_yaml(&documents.remove(0))
}

fn json_of_yaml(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => json!(value),
        Yaml::Integer(value) => json!(value),
        Yaml::String(value) => json!(value),
        Yaml::Array(values) => values.iter().map(json_of_yaml).collect(),
        Yaml::Hash(entries) => {
            let entries = entries.iter();
            let named = entries.map(|(key, value)| (key.as_str().expect("a name").to_owned(), json_of_yaml(value)));
            Value::Object(named.collect())
        }
        Yaml::Real(_) | Yaml::Alias(_) | Yaml::BadValue => panic!("not used in our files: {yaml:?}"),
    }
}

/// A list of texts; what is not there is an empty one.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    let values = value.as_array().into_iter().flatten();
    values.map(|one| one.as_str().unwrap()).collect()
}

/// What a service mounts: source and target.
pub(crate) fn mounts(service: &Value) -> Vec<(&str, &str)> {
    let mounts = texts(&service["volumes"]).into_iter().map(|mount| {
        let mut parts = mount.split(':');
        (parts.next().unwrap(), parts.next().unwrap())
    });
    mounts.collect()
}

#[test]
fn the_compose_files_hold_together() {
    const SERVICE_KEYS: [&str; 12] = [
        "image",
        "build",
        "command",
        "environment",
        "volumes",
        "ports",
        "depends_on",
        "healthcheck",
        "restart",
        "runtime",
        "stop_grace_period",
        "deploy",
    ];
    let (root, base) = (Path::new(env!("CARGO_MANIFEST_DIR")), compose(COMPOSE[0]));
    let known = base["services"].as_object().unwrap();
    let volumes: BTreeSet<&str> = base["volumes"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut mounted = BTreeSet::new();
    for file in COMPOSE {
        let of_file = compose(file);
        for (name, service) in of_file["services"].as_object().unwrap() {
            assert!(known.contains_key(name), "{file} lays {name} over nothing");
            for key in service.as_object().unwrap().keys() {
                assert!(SERVICE_KEYS.contains(&key.as_str()), "{file}: {key} of {name}");
            }
            for (source, target) in mounts(service) {
                assert!(target.starts_with('/'), "{file} mounts {source} to {target}");
                match source.strip_prefix("./") {
                    Some(path) => assert!(root.join(path).is_file(), "{file} mounts {path}"),
                    None => {
                        assert!(volumes.contains(source), "{file} has no volume {source}");
                        mounted.insert(source.to_owned());
                    }
                }
            }
            for other in service["depends_on"]
                .as_object()
                .into_iter()
                .flat_map(|others| others.keys())
            {
                let healthy = &service["depends_on"][other]["condition"] == "service_healthy";
                assert!(known.contains_key(other), "{file}: {name} waits for {other}");
                assert!(
                    !healthy || known[other]["healthcheck"]["test"].is_array(),
                    "{file}: {other} says nothing"
                );
            }
            for port in texts(&service["ports"]) {
                assert!(port.starts_with("127.0.0.1:"), "{file} publishes {port} to everybody");
            }
        }
    }
    assert_eq!(mounted.iter().map(String::as_str).collect::<BTreeSet<_>>(), volumes);
}

#[test]
fn the_container_of_hilum_is_told_what_the_program_understands() {
    let base = compose(COMPOSE[0]);
    let (hilum, database) = (&base["services"]["hilum"], &base["services"]["database"]);
    // The image begins with the program.
    let command = texts(&hilum["command"]);
    let file = command
        .iter()
        .position(|word| *word == "--config")
        .map(|at| command[at + 1])
        .unwrap();
    let mounted = mounts(hilum).into_iter().find(|(_, target)| *target == file);
    assert_eq!(mounted.unwrap().0, "./config/compose/hilum.toml");
    understands(
        &command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
        "serve",
    );
    // Its data lies where its volume is.
    assert!(text("Dockerfile").contains(&format!("HILUM_SERVICE__DATA_FOLDER={}", mounts(hilum)[1].1)));
    // It asks the database that is there for what that is made with.
    let url = hilum["environment"]["DATABASE_URL"].as_str().unwrap();
    let made = |name: &str| database["environment"][name].as_str().unwrap();
    assert!(made("POSTGRES_PASSWORD").starts_with("${POSTGRES_PASSWORD:?"));
    let wanted = format!(
        "postgres://{}:${{POSTGRES_PASSWORD}}@database/{}",
        made("POSTGRES_USER"),
        made("POSTGRES_DB")
    );
    assert_eq!(url, wanted);
    has_time_to_end(hilum["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap());
}

#[test]
fn every_image_stands_in_the_table() {
    let table = text("docs/images.md");
    let mut named = BTreeSet::new();
    for file in COMPOSE {
        let services = compose(file)["services"].clone();
        let images = services
            .as_object()
            .unwrap()
            .values()
            .map(|service| service["image"].as_str());
        named.extend(images.map(|image| image.expect("every service names its image").to_owned()));
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
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let columns = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let listed: BTreeSet<String> = columns.map(|row| format!("{}:{}", row[1], row[2])).collect();
    assert_eq!(named, listed, "the files and docs/images.md");
    // The one that builds has the toolchain that is built with everywhere.
    let toolchain: toml::Table = toml::from_str(&text("rust-toolchain.toml")).unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    let minor = channel.rsplit_once('.').unwrap().0;
    assert!(listed.contains(&format!("rust:{minor}-bookworm")), "{channel}");
}

#[test]
fn the_gpu_is_given_to_the_container_by_nvidias_runtime() {
    let hilum = compose(COMPOSE[1])["services"]["hilum"].clone();
    assert_eq!(hilum["runtime"], "nvidia");
    assert_eq!(hilum["environment"]["NVIDIA_VISIBLE_DEVICES"], "all");
    // CUDA, and NVML for what is told of the device.
    assert_eq!(hilum["environment"]["NVIDIA_DRIVER_CAPABILITIES"], "compute,utility");
    assert_eq!(hilum["environment"]["HILUM_MODEL__DEVICE"], "cuda");
    let base = compose(COMPOSE[0])["services"]["hilum"].clone();
    assert!(base.get("runtime").is_none() && base["environment"].get("HILUM_MODEL__DEVICE").is_none());
}

#[test]
fn the_commands_that_make_the_containers_users_make_those_users() {
    let file = text("config/compose/hilum.toml");
    let configured: toml::Table = toml::from_str(&file).unwrap();
    let users = configured["user"].as_array().unwrap();
    let commands: Vec<&str> = file
        .lines()
        .filter_map(|line| line.strip_prefix("# Made by: docker compose run --rm hilum "))
        .collect();
    assert_eq!(commands.len(), users.len());
    for (command, user) in commands.iter().zip(users) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(command.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(format!("{}\n", secret()).as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: toml::Table = toml::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
        let made = &made["user"].as_array().unwrap()[0];
        assert_eq!((&made["name"], &made["roles"]), (&user["name"], &user["roles"]));
        assert!(made["hash"].as_str().unwrap().starts_with("$argon2id$"));
    }
    // What has to be filled in before the first start is said where one begins.
    let begin = text("docker-compose.yml");
    let orthanc = text("config/orthanc/orthanc.json");
    let hole = "PUT THE HASH HERE";
    assert_eq!(file.matches(&format!("\"{hole}\"")).count(), 2);
    assert!(begin.contains(&format!("two {hole}")));
    for word in ["change-me", "change-me-too"] {
        assert!(orthanc.contains(&format!("\"{word}\"")) && begin.contains(&format!("\"{word}\"")));
    }
}
