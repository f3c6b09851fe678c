//! The real program, `hilum serve`, with a database of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use super::{Orthanc, eventually, free_port};

pub struct Service {
    pub port: u16,
    pub folder: TempDir,
    pub database_url: Option<String>,
    configuration: PathBuf,
    child: Option<Child>,
    client: reqwest::Client,
    environment: Vec<(String, String)>,
    roles: Option<&'static str>,
}

impl Service {
    /// Prepares a service without starting it. Without `database_url` it makes a private cluster.
    pub fn new(database_url: Option<&str>) -> Service {
        let folder = tempfile::tempdir().unwrap();
        // Under root the private database runs as another user, who must be able to pass.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let configuration = folder.path().join("hilum.toml");
        let port = free_port();
        let service = Service {
            port,
            database_url: database_url.map(str::to_owned),
            configuration,
            child: None,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            environment: Vec::new(),
            roles: None,
            folder,
        };
        service.configure("");
        service
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes its configuration: short waits, and what is given.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "[service]\nlisten = \"127.0.0.1:{}\"\ndata_folder = {:?}\n[inbox]\nquiet_seconds = 2.0\ncount_interval_seconds = 1.0\ndisk_watermark = 1.0\n[jobs]\nlease_seconds = 6.0\npoll_seconds = 0.5\nbackoff_seconds = 0.5\n[delivery]\nbackoff_seconds = 0.5\nlongest_backoff_seconds = 2.0\nlease_seconds = 6.0\n[model]\nname = \"hilum-ahnet-lung-tiny\"\ndevice = \"cpu\"\n{more}",
            self.port,
            self.data(),
        );
        std::fs::write(&self.configuration, text).unwrap();
    }

    /// Configures an Orthanc as its PACS.
    pub fn beside(&self, orthanc: &Orthanc, more: &str) {
        self.configure(&format!(
            "[[pacs]]\nname = \"orthanc\"\nurl = \"http://127.0.0.1:{}/dicom-web\"\nusername = \"hilum\"\npassword = \"{}\"\n{more}",
            orthanc.port, orthanc.password
        ));
    }

    /// A variable of its environment from the next start on.
    pub fn with(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Without those variables from the next start on.
    pub fn plain(&mut self) {
        self.environment.clear();
    }

    /// Only a part of what a process does, from the next start on.
    pub fn only(&mut self, roles: &'static str) {
        self.roles = Some(roles);
    }

    /// Many windows and one thread from the next start on: the network takes some seconds for a small chest.
    pub fn with_slow_network(&mut self) {
        self.with("HILUM_OVERRIDES__OVERLAP", "0.75");
        self.with("HILUM_OVERRIDES__SKIP_EMPTY", "false");
        self.with("HILUM_MODEL__THREADS", "1");
    }

    pub async fn up(&mut self) {
        self.launch();
        eventually("hilum to start", || async { self.get("/healthz").await.map(drop) }).await;
    }

    /// Starts it and does not wait.
    pub fn launch(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
        command
            .args(["-v", "--config"])
            .arg(&self.configuration)
            .arg("serve")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0);
        if let Some(roles) = self.roles {
            command.args(["--roles", roles]);
        }
        if let Some(url) = &self.database_url {
            command.env("DATABASE_URL", url);
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        self.child = Some(command.spawn().unwrap());
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap()).unwrap()
    }

    /// kill -9 to the process and everything it started in its group.
    pub fn kill(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// SIGTERM, and its end; true if it ended well.
    pub fn end(&mut self) -> bool {
        let _ = kill_process(self.pid(), Signal::TERM);
        self.child.take().unwrap().wait().unwrap().success()
    }

    /// Waits for an end that nobody asked for; true if it says that it went well.
    pub fn ends_by_itself(&mut self) -> bool {
        self.child.take().unwrap().wait().unwrap().success()
    }

    /// Waits for a death that a failpoint brings.
    pub async fn dies(&mut self) {
        let begun = Instant::now();
        while self.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(
                begun.elapsed() < Duration::from_secs(180),
                "waited in vain for the failpoint"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.child = None;
    }

    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// A line of its `/proc/PID/status`, in KiB: VmRSS is what it holds, VmHWM the most that it held.
    pub fn memory_kib(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.as_ref().unwrap().id())).unwrap();
        let value = status.lines().find_map(|one| one.strip_prefix(line)).unwrap();
        value.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// No thread of any of its lives panicked, as far as its log tells.
    pub fn has_not_panicked(&self) {
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://127.0.0.1:{}{path}", self.port))
    }

    pub async fn get(&self, path: &str) -> Option<Response> {
        let answer = self.ask(Method::GET, path).send().await.ok()?;
        answer.status().is_success().then_some(answer)
    }

    pub async fn json(&self, path: &str) -> Option<Value> {
        self.get(path).await?.json().await.ok()
    }

    pub async fn post(&self, path: &str) -> Response {
        self.ask(Method::POST, path).send().await.unwrap()
    }

    /// STOW-RS of files in one request.
    pub async fn stow(&self, files: &[PathBuf], headers: &[(&str, &str)]) -> Result<Response, reqwest::Error> {
        let mut body = Vec::new();
        for file in files {
            body.extend_from_slice(b"--hilum-test-boundary\r\nContent-Type: application/dicom\r\n\r\n");
            body.extend_from_slice(&std::fs::read(file).unwrap());
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--hilum-test-boundary--");
        let mut request = self.ask(Method::POST, "/dicom-web/studies").header(
            "Content-Type",
            "multipart/related; type=\"application/dicom\"; boundary=hilum-test-boundary",
        );
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body).send().await
    }

    /// The jobs, newest first.
    pub async fn jobs(&self) -> Vec<Value> {
        let answer = self.json("/api/v1/jobs?limit=200").await.unwrap_or_default();
        answer["jobs"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the network has done some windows of a job, and not all; returns the job.
    pub async fn in_its_network(&self) -> Value {
        eventually("a job in its network", || async {
            self.jobs().await.into_iter().find(|job| {
                let windows = |name: &str| job[name].as_i64().unwrap();
                job["stage"] == "windows" && (1..windows("windows_total")).contains(&windows("windows_done"))
            })
        })
        .await
    }

    /// Waits until the deliveries of a job are made, and all of them came through; returns the job.
    pub async fn delivered(&self, id: &str) -> Value {
        eventually("the delivery", || async {
            let job = self.json(&format!("/api/v1/jobs/{id}")).await?;
            let deliveries = job["deliveries"].as_array()?;
            let over = !deliveries.is_empty() && deliveries.iter().all(|one| one["state"] == "delivered");
            over.then_some(job)
        })
        .await
    }

    /// Waits for as many jobs to be over, and returns them.
    pub async fn jobs_over(&self, number: usize) -> Vec<Value> {
        eventually(&format!("{number} jobs to be over"), || async {
            let over: Vec<Value> = self
                .jobs()
                .await
                .into_iter()
                .filter(|job| !matches!(job["state"].as_str(), Some("queued" | "running")))
                .collect();
            (over.len() >= number).then_some(over)
        })
        .await
    }

    pub fn inbox_files(&self) -> Vec<PathBuf> {
        let folder = self.data().join("inbox");
        if folder.is_dir() {
            super::files(Path::new(&folder))
        } else {
            Vec::new()
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.child.is_some() {
            if std::thread::panicking() {
                println!("{}", self.log());
                self.kill();
            } else {
                self.end();
            }
        }
    }
}
