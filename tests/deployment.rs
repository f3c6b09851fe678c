//! What one installs: every variable, path, port, option and image that the container files, the unit and Orthanc's files name exists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use service_support::{Orthanc, free_port, is_there, ready_pacs, secret};
use yaml_rust2::{Yaml, YamlLoader};

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

/// The files of `docker compose`; the second is laid over the first.
const COMPOSE: [&str; 2] = ["docker-compose.yml", "docker-compose.gpu.yml"];

/// A file of `docker compose`.
fn compose(file: &str) -> Value {
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
fn texts(value: &Value) -> Vec<&str> {
    let values = value.as_array().into_iter().flatten();
    values.map(|one| one.as_str().unwrap()).collect()
}

/// What a service mounts: source and target.
fn mounts(service: &Value) -> Vec<(&str, &str)> {
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
    let asked = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(&command)
        .arg("--help")
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert!(String::from_utf8_lossy(&asked.stdout).contains("Usage: hilum serve"));
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
    // It has the time to end that it says it needs, and what it writes then.
    let defaults: toml::Table = toml::from_str(&text("config/default.toml")).unwrap();
    let drain = defaults["service"]["drain_seconds"].as_float().unwrap();
    let grace = hilum["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap();
    assert!(grace.parse::<f64>().unwrap() >= drain + 10.0, "{grace} s");
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
    let services = &compose(COMPOSE[0])["services"];
    assert_eq!(texts(&services["hilum"]["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    let orthanc = json_of(&text("config/orthanc/orthanc.json"));
    let ports = ["HttpPort", "DicomPort"].map(|name| format!("127.0.0.1:{0}:{0}", orthanc[name]));
    assert_eq!(texts(&services["orthanc"]["ports"]), ports);
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
    let orthanc = json_of(&text("config/orthanc/orthanc.json"));
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

/// JSON with comments, as Orthanc reads it.
fn json_of(text: &str) -> Value {
    let (mut plain, mut rest, mut quoted) = (String::new(), text, false);
    while let Some(character) = rest.chars().next() {
        if !quoted && rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        if !quoted && rest.starts_with("/*") {
            rest = rest.split_once("*/").unwrap().1;
            continue;
        }
        let length = if quoted && character == '\\' {
            2
        } else {
            character.len_utf8()
        };
        quoted ^= character == '"';
        plain.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    serde_json::from_str(&plain).unwrap_or_else(|error| panic!("{error}: {plain}"))
}

/// Puts values into a configuration: objects into objects, anything else in place of what stood there.
fn put(into: &mut Value, values: &Value) {
    match (into, values) {
        (Value::Object(into), Value::Object(values)) => {
            for (key, value) in values {
                put(into.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value.clone(),
    }
}

/// Places and ports of a test's own, in place of those of the machine.
fn moved_to(folder: &Path, ports: [u16; 2]) -> Value {
    json!({
        "StorageDirectory": folder.join("db"), "IndexDirectory": folder.join("db"), "HttpPort": ports[0], "DicomPort": ports[1],
        "Plugins": ["/usr/share/orthanc/plugins"],
        "LuaScripts": [Path::new(env!("CARGO_MANIFEST_DIR")).join("config/orthanc/hilum.lua")],
    })
}

/// It has the rule, knows Hilum as a DICOMweb server, and asks for a password.
async fn is_set_up(orthanc: &Orthanc) {
    assert_eq!(orthanc.get("/dicom-web/servers").await.unwrap(), json!(["hilum"]));
    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = stranger.get(format!("http://127.0.0.1:{}/system", orthanc.port)).send();
    assert_eq!(answer.await.unwrap().status(), 401);
    let log = orthanc.log();
    assert!(log.contains("hilum.lua"), "{log}");
}

#[test]
fn orthancs_files_are_mounted_into_the_folder_that_it_is_told_to_read() {
    let orthanc = compose(COMPOSE[0])["services"]["orthanc"].clone();
    let mounts = mounts(&orthanc);
    let mount = |wanted: &str| mounts.iter().find(|(source, _)| *source == wanted).unwrap().1;
    let configuration = mount("./config/orthanc/orthanc.json");
    let folder = configuration.strip_suffix("orthanc.json").unwrap();
    // What the image brings lies there, with keys that are also ours.
    assert_ne!(folder, "/etc/orthanc/");
    assert_eq!(texts(&orthanc["command"]), [folder]);
    let ours = json_of(&text("config/orthanc/orthanc.json"));
    assert_eq!(ours["LuaScripts"], json!([mount("./config/orthanc/hilum.lua")]));
    let volume = mount("orthanc");
    assert_eq!(ours["StorageDirectory"], json!(volume));
    assert_eq!(ours["IndexDirectory"], json!(volume));
}

#[tokio::test]
async fn orthanc_starts_with_the_configuration_of_the_containers_alone() {
    if !ready_pacs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port()];
    let mut configuration = json_of(&text("config/orthanc/orthanc.json"));
    let password = configuration["RegisteredUsers"]["hilum"].as_str().unwrap().to_owned();
    put(&mut configuration, &moved_to(folder.path(), ports));
    let read = folder.path().join("read");
    fs::create_dir(&read).unwrap();
    fs::write(read.join("orthanc.json"), configuration.to_string()).unwrap();
    let orthanc = Orthanc::configured(folder, read, ports, password).await;
    is_set_up(&orthanc).await;
}

/// What docs/service.md says goes into each file of Debian's /etc/orthanc.
fn documented() -> Vec<(String, Value)> {
    let page = text("docs/service.md");
    let chapter = page
        .split("\n## ")
        .find(|chapter| chapter.starts_with("With your own Orthanc"))
        .unwrap();
    let mut parts = chapter.split("```json");
    let mut before = parts.next().unwrap();
    let mut found = Vec::new();
    for part in parts {
        let (block, after) = part.split_once("```").unwrap();
        let file = before
            .rsplit("`/etc/orthanc/")
            .next()
            .unwrap()
            .split('`')
            .next()
            .unwrap();
        found.push((file.to_owned(), json_of(block)));
        before = after;
    }
    found
}

#[tokio::test]
async fn debians_orthanc_starts_when_the_documented_keys_are_put_into_its_files() {
    let debian = Path::new("/etc/orthanc");
    if !ready_pacs()
        || !is_there(
            fs::read(debian.join("credentials.json")).is_ok(),
            "Debian's /etc/orthanc cannot be read",
        )
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ports, password) = ([free_port(), free_port()], secret());
    let read = folder.path().join("read");
    fs::create_dir(&read).unwrap();
    let documented = documented();
    assert_eq!(documented.len(), 3, "{documented:?}");
    for file in service_support::files(debian)
        .iter()
        .filter(|file| file.extension().is_some_and(|end| end == "json"))
    {
        let name = file.file_name().unwrap();
        let mut configuration = json_of(&fs::read_to_string(file).unwrap());
        for (_, values) in documented.iter().filter(|(file, _)| name == file.as_str()) {
            put(&mut configuration, values);
        }
        if name == "orthanc.json" {
            put(&mut configuration, &moved_to(folder.path(), ports));
        }
        if name == "credentials.json" {
            assert_eq!(configuration["RegisteredUsers"]["hilum"], "...");
            put(&mut configuration, &json!({ "RegisteredUsers": { "hilum": password } }));
        }
        fs::write(read.join(name), configuration.to_string()).unwrap();
    }
    for (file, _) in &documented {
        assert!(read.join(file).is_file(), "Debian's Orthanc has no {file}");
    }
    let orthanc = Orthanc::configured(folder, read, ports, password).await;
    is_set_up(&orthanc).await;
}

#[test]
fn the_documented_keys_of_an_own_orthanc_are_those_of_the_containers() {
    let containers = json_of(&text("config/orthanc/orthanc.json"));
    let mut own = json!({});
    for (_, values) in documented() {
        put(&mut own, &values);
    }
    for key in ["LuaHeartBeatPeriod", "StableAge", "AuthenticationEnabled"] {
        assert_eq!(own[key], containers[key], "{key}");
    }
    let users = |of: &Value| {
        of["RegisteredUsers"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(users(&own), users(&containers));
    let (own, containers) = (
        &own["DicomWeb"]["Servers"]["hilum"],
        &containers["DicomWeb"]["Servers"]["hilum"],
    );
    for key in ["Timeout", "HttpHeaders"] {
        assert_eq!(own[key], containers[key], "{key}");
    }
    let defaults: toml::Table = toml::from_str(&text("config/default.toml")).unwrap();
    let listen = defaults["service"]["listen"].as_str().unwrap();
    assert_eq!(own["Url"], format!("http://{listen}/dicom-web/"));
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
