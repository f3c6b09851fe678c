//! Orthanc's configuration: that of the containers, and what goes into Debian's files. Both are given to a real Orthanc.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::compose::{COMPOSE, compose, mounts, texts};
use super::service_support::{self, Orthanc, free_port, is_there, ready_pacs, secret};
use super::text;

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
pub(crate) fn json_of(text: &str) -> Value {
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
