//! `make demo`'s script from beginning to end, with a small chest and the small network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use service_support::{is_there, ready_pacs, secret};

/// What the demo needs of the machine.
fn ready_for_the_demo() -> bool {
    let runs = |program: &str| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok()
    };
    ready_pacs()
        && is_there(Path::new("/usr/lib/postgresql").is_dir(), "PostgreSQL is not installed")
        && is_there(runs("curl"), "curl is not installed")
        && is_there(runs("python3"), "python3 is not installed")
}

/// The processes that have this text in their environment, as all have that the demo starts.
fn processes_with(mark: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let marked = processes.filter_map(|process| {
        let environment = fs::read(process.path().join("environ")).ok()?;
        let found = environment.windows(mark.len()).any(|part| part == mark.as_bytes());
        found.then(|| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default())
    });
    marked.collect()
}

/// The demo in a group of its own, which is ended with the test.
struct Demo(Child);

impl Demo {
    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            // The script ends what it started; if it does not, everything is killed.
            let _ = kill_process_group(self.group(), Signal::TERM);
            std::thread::sleep(Duration::from_secs(5));
            let _ = kill_process_group(self.group(), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn the_demo_shows_the_rule_the_segmentation_and_its_numbers_and_leaves_nothing_running() {
    if !ready_for_the_demo() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (out, said) = (folder.path().join("demo"), folder.path().join("said"));
    let log = fs::File::create(&said).unwrap();
    let mark = format!("DEMO_MARK={}", secret());
    let (name, value) = mark.split_once('=').unwrap();
    let child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo.sh"))
        .arg(env!("CARGO_BIN_EXE_hilum"))
        .arg(&out)
        .env(name, value)
        .env("DEMO_EXIT", "1")
        .env("DEMO_PHANTOM", "--small")
        .env("HILUM_MODEL__NAME", "hilum-ahnet-lung-tiny")
        .env("HILUM_MODEL__DEVICE", "cpu")
        // A proxy that answers nobody is not asked, nor somebody else's database.
        .env("http_proxy", "http://127.0.0.1:9")
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:9/nothing")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    let mut demo = Demo(child);
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = demo.0.try_wait().unwrap() {
            break status;
        }
        let said = || fs::read_to_string(&said).unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "it does not end:\n{}",
            said()
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    let said = fs::read_to_string(&said).unwrap();
    assert!(status.success(), "{status}:\n{said}");
    let line = |start: &str| {
        let line = said.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no line \"{start}\" in:\n{said}"))
    };
    assert!(line("Orthanc's log: hilum: sent ").ends_with(" slices)"), "{said}");
    assert!(line("done ").ends_with(" windows"), "{said}");
    assert!(line("SEG series ").contains(" in study "), "{said}");
    let total = line(" total: ").strip_suffix(" mL").unwrap();
    assert!(
        total.split(": ").nth(1).unwrap().parse::<f64>().unwrap() > 100.0,
        "{said}"
    );
    for name in ["overlay", "report", "SEG"] {
        let path = line(&format!("{name}  ")).split_whitespace().last().unwrap();
        assert!(fs::metadata(path).unwrap().len() > 1000, "{path}");
        assert!(Path::new(path).starts_with(&out), "{path}");
    }
    assert_eq!(test_kill_process_group(demo.group()), Err(rustix::io::Errno::SRCH));
    assert_eq!(processes_with(&mark), Vec::<String>::new());
    assert!(!said.contains("No such process"), "{said}");
}
