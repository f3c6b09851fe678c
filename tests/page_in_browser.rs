//! The first page in a real browser: Debian's chromium, driven by its WebDriver over plain HTTP, as wide as a phone and as wide as a desk.
//!
//! With `HILUM_PICTURES` set to a folder, what the browsers show at the end is written there (docs/pictures/page-phone.png and page-desk.png).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use hilum::database::testing::scratch;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use service_support::{Service, WHOLE, eventually, free_port, is_there, phantom, ready_without_pacs};
use tempfile::TempDir;

/// The WebDriver of chromium, and the browsers that it started. Whatever happens, all of them end with it.
struct Driver {
    port: u16,
    child: Child,
    client: reqwest::Client,
    profiles: TempDir,
}

impl Driver {
    async fn start() -> Driver {
        let port = free_port();
        let child = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let driver = Driver {
            port,
            child,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            profiles: tempfile::tempdir().unwrap(),
        };
        eventually("chromedriver to start", || async {
            driver.ask(Method::GET, "/status", Value::Null).await.ok()
        })
        .await;
        driver
    }

    /// A command of the WebDriver standard, and the value of its answer.
    async fn ask(&self, method: Method, path: &str, content: Value) -> Result<Value, String> {
        let mut request = self
            .client
            .request(method, format!("http://127.0.0.1:{}{path}", self.port));
        if !content.is_null() {
            request = request.json(&content);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let worked = answer.status().is_success();
        let mut said: Value = answer.json().await.map_err(|error| error.to_string())?;
        let value = said["value"].take();
        if worked { Ok(value) } else { Err(value.to_string()) }
    }

    /// A new browser with a page of this size.
    async fn browser(&self, name: &'static str, [width, height]: [u32; 2], mobile: bool) -> Browser<'_> {
        let profile = self.profiles.path().join(name);
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
        ]
        .map(str::to_owned);
        let arguments: Vec<String> = arguments
            .into_iter()
            .chain([format!("--user-data-dir={}", profile.display())])
            .collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let made = self.ask(Method::POST, "/session", wanted).await.unwrap();
        let browser = Browser {
            driver: self,
            name,
            path: format!("/session/{}", made["sessionId"].as_str().unwrap()),
        };
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        browser
            .post(
                "/goog/cdp/execute",
                json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}),
            )
            .await;
        // Of the browser's own first page nothing is told later on.
        browser
            .post(
                "/goog/cdp/execute",
                json!({"cmd": "Page.navigate", "params": {"url": "about:blank"}}),
            )
            .await;
        browser.log("performance").await;
        browser
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Its own end ends the browsers, which are no children of this process.
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port)).map(|mut stream| {
            use std::io::{Read as _, Write as _};
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(20)));
            let _ = write!(
                stream,
                "GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        self.child.wait().unwrap();
    }
}

struct Browser<'a> {
    driver: &'a Driver,
    name: &'static str,
    path: String,
}

/// Kept in the page from its load on: a mark, which another load would lose, and what every card said one after the other.
const WATCH: &str = "
    window.seen = {};
    const look = () => document.querySelectorAll('[data-job]').forEach(card => {
        const bar = card.querySelector('progress');
        const now = card.querySelector('.state').textContent + (bar && bar.value > 0 && bar.value < bar.max ? ' and on its way' : '');
        const before = window.seen[card.dataset.job] ??= [];
        if (before.at(-1) !== now) before.push(now);
    });
    look();
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});";

/// All that is asked of the page, in one look.
const STATE: &str = "
    const text = (card, what) => [...card.querySelectorAll(what)].map(one => one.textContent);
    return {
        seen: window.seen ?? null,
        wide: [document.documentElement.scrollWidth, document.documentElement.clientWidth, window.innerWidth],
        queue: document.querySelector('.queue')?.textContent ?? null,
        cards: [...document.querySelectorAll('[data-job]')].map(card => ({
            id: card.dataset.job, state: text(card, '.state')[0], volumes: text(card, '.volumes dd'), findings: text(card, '.finding'),
            pictures: [...card.querySelectorAll('img')].map(picture => picture.complete && picture.naturalWidth),
        })),
    };";

impl Browser<'_> {
    async fn post(&self, path: &str, content: Value) -> Value {
        let done = self
            .driver
            .ask(Method::POST, &format!("{}{path}", self.path), content)
            .await;
        done.unwrap_or_else(|error| panic!("{}: {path}: {error}", self.name))
    }

    async fn open(&self, address: &str) {
        self.post("/url", json!({"url": address})).await;
    }

    async fn script(&self, text: &str) -> Value {
        self.post("/execute/sync", json!({"script": text, "args": []})).await
    }

    /// The entries of a log since it was asked for.
    async fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.post("/se/log", json!({"type": kind})).await;
        entries.as_array().unwrap().clone()
    }

    /// What it asked for since the log was asked for: kind and address.
    async fn requests(&self) -> Vec<(String, String)> {
        let mut requests = Vec::new();
        for entry in self.log("performance").await {
            let told: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let told = &told["message"];
            if told["method"] == "Network.requestWillBeSent" {
                let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                requests.push((of(&told["params"]["type"]), of(&told["params"]["request"]["url"])));
            }
            assert_ne!(told["method"], "Network.webSocketCreated", "{told}");
        }
        requests
    }

    async fn picture(&self) -> Vec<u8> {
        let path = format!("{}/screenshot", self.path);
        let text = self.driver.ask(Method::GET, &path, Value::Null).await.unwrap();
        base64::engine::general_purpose::STANDARD
            .decode(text.as_str().unwrap())
            .unwrap()
    }

    /// Nothing is wider than the page.
    async fn fits(&self) {
        let wide = self.script(STATE).await["wide"].clone();
        let [scrolled, seen] = [0, 1].map(|at| wide[at].as_u64().unwrap());
        assert!(scrolled <= seen, "{}: {scrolled} of {seen} pixels", self.name);
        // A phone widens what it shows where something does not fit.
        assert!(self.name != "phone" || wide[2] == 390, "{wide}");
    }
}

#[tokio::test]
async fn the_page_follows_a_job_to_its_picture_on_a_phone_and_on_a_desk() {
    let installed = Command::new("chromedriver").arg("--version").output().is_ok();
    if !ready_without_pacs() || !is_there(installed, "chromedriver is not installed") {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        // Its progress is to be seen: the network takes some seconds.
        service.with("HILUM_OVERRIDES__OVERLAP", "0.625");
        service.with("HILUM_OVERRIDES__SKIP_EMPTY", "false");
        service.with("HILUM_MODEL__THREADS", "1");
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let chest = phantom(&folder.path().join("chest"), 2, &[]);
        let few = phantom(&folder.path().join("few"), 3, &["--slices", "3"]);
        // One job is over before the page is opened, and stands in it without a script.
        assert_eq!(service.stow(&few, &WHOLE).await.unwrap().status(), 200);
        service.jobs_over(1).await;

        let driver = Driver::start().await;
        let address = format!("http://127.0.0.1:{}/", service.port);
        let phone = driver.browser("phone", [390, 844], true).await;
        let desk = driver.browser("desk", [1200, 800], false).await;
        for browser in [&phone, &desk] {
            browser.open(&address).await;
            browser.script(WATCH).await;
            let page = browser.script(STATE).await;
            assert_eq!(page["cards"].as_array().unwrap().len(), 1, "{page}");
            assert_eq!(page["cards"][0]["state"], "refused");
            assert!(page["cards"][0]["findings"][0].as_str().unwrap().contains("only 3 slices"), "{page}");
            browser.fits().await;
        }
        // The other comes by events.
        assert_eq!(service.stow(&chest, &WHOLE).await.unwrap().status(), 200);
        for browser in [&phone, &desk] {
            eventually("a card with its progress", || async {
                let page = browser.script(STATE).await;
                let running = page["cards"].as_array()?.iter().any(|card| card["state"] == "running");
                running.then_some(())
            })
            .await;
            browser.fits().await;
        }
        let jobs = service.jobs_over(2).await;
        for browser in [&phone, &desk] {
            let page = eventually("the picture", || async {
                let page = browser.script(STATE).await;
                let card = &page["cards"][0];
                let loaded = card["state"] == "done" && card["pictures"][0].as_u64() > Some(0);
                (loaded && page["queue"] == "0 waiting, 0 running").then_some(page)
            })
            .await;
            assert_eq!(page["cards"].as_array().unwrap().len(), 2, "{page}");
            let card = &page["cards"][0];
            let job = jobs.iter().find(|job| job["id"] == card["id"]).unwrap();
            let total = job["measurements"]["total"]["volume_ml"].as_f64().unwrap();
            assert_eq!(card["volumes"][0], format!("{total:.0} ml"), "{page}");
            assert_eq!(card["volumes"].as_array().unwrap().len(), 3);
            let seen = page["seen"][card["id"].as_str().unwrap()].as_array();
            let seen = seen.expect("the page was not loaded again, and the card came while it was watched");
            assert!(seen.contains(&json!("running and on its way")), "{seen:?}");
            assert_eq!(seen.iter().position(|said| said == "done"), Some(seen.len() - 1), "{seen:?}");
            browser.fits().await;
            browser.script("window.scrollTo(0, 0)").await;
            if let Some(folder) = std::env::var_os("HILUM_PICTURES") {
                let file = std::path::Path::new(&folder).join(format!("page-{}.png", browser.name));
                std::fs::write(file, browser.picture().await).unwrap();
            }
            let requests = browser.requests().await;
            let documents: Vec<_> = requests.iter().filter(|(kind, _)| kind == "Document").collect();
            assert_eq!(documents.len(), 1, "the page was loaded once: {documents:?}");
            let pictures: BTreeSet<&String> = requests.iter().filter(|(kind, _)| kind == "Image").map(|(_, at)| at).collect();
            assert_eq!(pictures.len(), 1, "{pictures:?}");

            // The page of a job, by its link.
            browser.script("document.querySelector('.job h2 a').click()").await;
            eventually("the page of a job", || async {
                let loaded = "return document.querySelector('.overlay')?.complete && document.querySelector('.overlay').naturalWidth";
                (browser.script(loaded).await.as_u64() > Some(0)).then_some(())
            })
            .await;
            browser.fits().await;
            let history = browser.script("return document.querySelector('.history').textContent").await;
            let history = history.as_str().unwrap();
            assert!(history.contains("attempt: 1") && !history.contains("null"), "{history}");
            let later = browser.requests().await;
            for (_, at) in requests.iter().chain(&later) {
                assert!(at.starts_with(&address), "{at} is asked for");
            }
            let console = browser.log("browser").await;
            assert!(console.is_empty(), "{console:?}");
        }
        drop(driver);
        service.has_not_panicked();
    })
    .await;
}
