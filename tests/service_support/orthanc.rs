//! A real Orthanc with our forwarding rule, on loopback, with a random password.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{free_port, secret};

pub struct Orthanc {
    pub port: u16,
    pub dicom_port: u16,
    pub password: String,
    folder: TempDir,
    configuration: PathBuf,
    child: Option<Child>,
    client: reqwest::Client,
}

pub fn program() -> Option<PathBuf> {
    ["/usr/sbin/Orthanc", "/usr/bin/Orthanc"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

/// The preloaded library that binds "every address" to loopback.
pub fn loopback() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/loopback.so")
}

/// Where the rule sends to.
pub struct Forward {
    pub port: u16,
    pub user: String,
    pub password: String,
}

impl Orthanc {
    /// Starts one; with `forward`, our rule sends every stable CT series there.
    pub async fn start(forward: Option<&Forward>) -> Orthanc {
        let folder = tempfile::tempdir().unwrap();
        let (port, dicom_port, password) = (free_port(), free_port(), secret());
        let mut configuration = json!({
            "Name": "hilum-test", "StorageDirectory": folder.path().join("db"), "IndexDirectory": folder.path().join("db"),
            "HttpPort": port, "DicomPort": dicom_port, "DicomAet": "PACS", "DicomAlwaysAllowStore": true, "RemoteAccessAllowed": false,
            "AuthenticationEnabled": true, "RegisteredUsers": { "hilum": password }, "StableAge": 1,
            "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
            "DicomWeb": { "Enable": true, "Root": "/dicom-web/", "Servers": {} }
        });
        if let Some(forward) = forward {
            configuration["LuaScripts"] =
                json!([Path::new(env!("CARGO_MANIFEST_DIR")).join("config/orthanc/hilum.lua")]);
            configuration["DicomWeb"]["Servers"]["hilum"] = json!({
                "Url": format!("http://127.0.0.1:{}/dicom-web/", forward.port), "Username": forward.user, "Password": forward.password,
                "Timeout": 600, "HttpHeaders": { "X-Hilum-Source": "orthanc" }
            });
        }
        let file = folder.path().join("orthanc.json");
        std::fs::write(&file, configuration.to_string()).unwrap();
        Orthanc::configured(folder, file, [port, dicom_port], password).await
    }

    /// Starts one with a configuration of somebody's: a file or a folder of files, in which these ports and this password of the user `hilum` stand.
    pub async fn configured(
        folder: TempDir,
        configuration: PathBuf,
        [port, dicom_port]: [u16; 2],
        password: String,
    ) -> Orthanc {
        let mut orthanc = Orthanc {
            port,
            dicom_port,
            password,
            folder,
            configuration,
            child: None,
            client: reqwest::Client::builder()
                .no_proxy()
                .pool_max_idle_per_host(0)
                .build()
                .unwrap(),
        };
        orthanc.up().await;
        orthanc
    }

    /// Starts it (again).
    pub async fn up(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let child = Command::new(program().unwrap())
            .arg("--verbose")
            .arg(&self.configuration)
            .env("LD_PRELOAD", loopback())
            // Its libcurl would ask a proxy for a service on loopback.
            .env("no_proxy", "127.0.0.1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while self.get("/system").await.is_none() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < Duration::from_secs(180),
                "Orthanc does not start:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends it, as an outage, with what its rule runs in its group, which would hold its ports.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            let _ = kill_process_group(group, Signal::KILL);
            child.wait().unwrap();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://127.0.0.1:{}{path}", self.port))
            .basic_auth("hilum", Some(&self.password))
    }

    /// JSON from its REST interface or QIDO-RS; `None` where it does not answer with some.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.ask(Method::GET, path).send().await.ok()?;
        answer.status().is_success().then_some(())?;
        answer.json().await.ok()
    }

    /// Sends JSON to its REST interface and returns the JSON of its answer; null where that is none.
    pub async fn send(&self, method: Method, path: &str, content: &Value) -> Value {
        let answer = self.ask(method, path).json(content).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub async fn bytes(&self, path: &str) -> Vec<u8> {
        self.ask(Method::GET, path)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .to_vec()
    }

    /// Stores files, one by one.
    pub async fn store(&self, files: &[PathBuf]) {
        for file in files {
            let answer = self
                .ask(Method::POST, "/instances")
                .body(std::fs::read(file).unwrap())
                .send()
                .await
                .unwrap();
            assert!(answer.status().is_success(), "{}", answer.status());
        }
    }

    /// SOP Instance UIDs of the segmentations in it, with their study.
    pub async fn segmentations(&self) -> Vec<(String, String)> {
        let Some(Value::Array(series)) = self.get("/dicom-web/series?Modality=SEG").await else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for one in series {
            let (study, series) = (uid(&one, "0020000D"), uid(&one, "0020000E"));
            let path = format!("/dicom-web/studies/{study}/series/{series}/instances");
            for instance in self
                .get(&path)
                .await
                .as_ref()
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                found.push((study.clone(), uid(instance, "00080018")));
            }
        }
        found
    }

    /// What a DICOM series is to Orthanc: the path of its own REST interface.
    pub async fn series_path(&self, series_instance_uid: &str) -> String {
        format!("/series/{}", self.id("Series", series_instance_uid).await)
    }

    /// An instance as it is stored.
    pub async fn instance(&self, sop_instance_uid: &str) -> Vec<u8> {
        let id = self.id("Instance", sop_instance_uid).await;
        self.bytes(&format!("/instances/{id}/file")).await
    }

    /// Orthanc's own name of what has this UID.
    async fn id(&self, kind: &str, uid: &str) -> String {
        let lookup = self.ask(Method::POST, "/tools/lookup").body(uid.to_owned());
        let found: Value = lookup.send().await.unwrap().json().await.unwrap();
        let mut found = found.as_array().unwrap().iter();
        let one = found.find(|one| one["Type"] == kind).unwrap();
        one["ID"].as_str().unwrap().to_owned()
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        self.down();
    }
}

/// The value of a UID in DICOM JSON.
pub fn uid(of: &Value, tag: &str) -> String {
    of[tag]["Value"][0].as_str().unwrap_or_default().to_owned()
}
