//! `make demo`'s script from beginning to end, with a small chest and the small network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
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

/// The demo in a group of its own, which is ended with the test.
struct Demo {
    child: Child,
    /// Where it puts its files.
    out: PathBuf,
    said: PathBuf,
    /// Stands in the environment of all that it starts.
    mark: String,
}

impl Demo {
    /// Starts it in a folder; it ends by itself, or stays up.
    fn start(folder: &Path, ends: bool) -> Demo {
        let (out, said) = (folder.join("demo"), folder.join("said"));
        let log = fs::File::create(&said).unwrap();
        let mark = format!("DEMO_MARK={}", secret());
        let (name, value) = mark.split_once('=').unwrap();
        let child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/demo.sh"))
            .arg(env!("CARGO_BIN_EXE_hilum"))
            .arg(&out)
            .env(name, value)
            // As make gives it: empty where nobody asked for it.
            .env("DEMO_EXIT", if ends { "1" } else { "" })
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
        Demo { child, out, said, mark }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// The first line that it said with this beginning.
    fn line(&self, start: &str) -> String {
        let said = self.said();
        let line = said.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no line \"{start}\" in:\n{said}"))
            .to_owned()
    }

    /// Waits until it is over, or until `there` holds; how it ended.
    fn wait(&mut self, there: impl Fn(&Demo) -> bool) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if there(self) {
                return None;
            }
            let so_far = begun.elapsed();
            assert!(so_far < Duration::from_secs(300), "it does not go on:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The processes that it started: their folders in `/proc`.
    fn processes(&self) -> Vec<PathBuf> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let marked = processes.map(|process| process.path()).filter(|process| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let (mark, length) = (self.mark.as_bytes(), self.mark.len());
            environment.windows(length).any(|part| part == mark)
        });
        marked.collect()
    }

    /// Nothing that it started runs any more.
    fn left_nothing_running(&self) {
        assert_eq!(test_kill_process_group(self.group()), Err(rustix::io::Errno::SRCH));
        let left = self.processes();
        let names = left
            .iter()
            .map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default());
        assert_eq!(names.collect::<Vec<_>>(), Vec::<String>::new());
        let said = self.said();
        assert!(!said.contains("No such process"), "{said}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // The script ends what it started; if it does not, everything is killed.
            let _ = kill_process_group(self.group(), Signal::TERM);
            std::thread::sleep(Duration::from_secs(5));
            let _ = kill_process_group(self.group(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn the_demo_shows_the_rule_the_segmentation_and_its_numbers_and_leaves_nothing_running() {
    if !ready_for_the_demo() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path(), true);
    let status = demo.wait(|_| false).unwrap();
    let said = demo.said();
    assert!(status.success(), "{status}:\n{said}");
    assert!(demo.line("Orthanc's log: hilum: sent ").ends_with(" slices)"), "{said}");
    assert!(demo.line("done ").ends_with(" windows"), "{said}");
    assert!(demo.line("SEG series ").contains(" in study "), "{said}");
    let total = demo.line(" total: ");
    let total = total.strip_suffix(" mL").unwrap();
    assert!(
        total.split(": ").nth(1).unwrap().parse::<f64>().unwrap() > 100.0,
        "{said}"
    );
    for name in ["overlay", "report", "SEG"] {
        let line = demo.line(&format!("{name}  "));
        let path = line.split_whitespace().last().unwrap();
        assert!(fs::metadata(path).unwrap().len() > 1000, "{path}");
        assert!(Path::new(path).starts_with(&demo.out), "{path}");
    }
    demo.left_nothing_running();
}

/// The sockets on which some processes listen for TCP, as `/proc/net/tcp` and `tcp6` write their addresses.
fn listening(processes: &[PathBuf]) -> Vec<String> {
    let descriptors = processes
        .iter()
        .flat_map(|process| fs::read_dir(process.join("fd")).into_iter().flatten());
    let sockets: BTreeSet<String> = descriptors
        .filter_map(|descriptor| {
            fs::read_link(descriptor.ok()?.path())
                .ok()?
                .into_os_string()
                .into_string()
                .ok()
        })
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 0A: listening; the tenth is the number of the socket.
    let ours = fields.filter(|fields| fields[3] == "0A" && sockets.contains(fields[9]));
    ours.map(|fields| fields[1].to_owned()).collect()
}

/// The status with which an address answers, and its body.
fn asked(address: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "-w", "\n%{http_code}", address])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn the_demo_stays_up_on_loopback_for_a_look_until_ctrl_c_and_leaves_nothing_running() {
    if !ready_for_the_demo() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path(), false);
    let ended = demo.wait(|demo| demo.said().contains("Everything stays up for a look"));
    assert!(ended.is_none(), "{ended:?}:\n{}", demo.said());
    let address = |start: &str| demo.line(start).split_whitespace().nth(1).unwrap().to_owned();
    let (status, page) = asked(&address("Hilum  "));
    assert!(
        status == "200" && page.contains("/result/overlay.png"),
        "{status}: {page}"
    );
    let (status, _) = asked(&address("Orthanc  "));
    assert_eq!(status, "401", "Orthanc wants its password");
    // Hilum, and Orthanc for HTTP and DICOM; its private database listens on a socket of the file system.
    let listening = listening(&demo.processes());
    assert_eq!(listening.len(), 3, "{listening:?}");
    for address in &listening {
        assert!(address.starts_with("0100007F:"), "{address} is not on 127.0.0.1");
    }
    ends_with_nothing_left(&mut demo);
}

/// What a terminal does with Ctrl-C, to a demo whose Orthanc and Hilum run: it ends at once and leaves nothing.
fn ends_with_nothing_left(demo: &mut Demo) {
    let states: BTreeSet<PathBuf> = demo
        .processes()
        .iter()
        .filter_map(|process| fs::read_link(process.join("cwd")).ok())
        .filter(|folder| folder.starts_with("/tmp") && folder.display().to_string().contains("hilum-demo."))
        .collect();
    assert!(!states.is_empty(), "Orthanc works in a folder of the demo's own");
    kill_process_group(demo.group(), Signal::INT).unwrap();
    let interrupted = Instant::now();
    let status = demo.wait(|_| false).unwrap();
    assert_eq!(status.code(), Some(130), "{status}:\n{}", demo.said());
    assert!(
        interrupted.elapsed() < Duration::from_secs(60),
        "{:?}",
        interrupted.elapsed()
    );
    demo.left_nothing_running();
    for state in states {
        assert!(!state.exists(), "{} is left", state.display());
    }
}

#[test]
fn ctrl_c_in_the_middle_of_the_demo_leaves_nothing_running() {
    if !ready_for_the_demo() {
        return;
    }
    // Its servers have just started; its slices are stored; its job runs.
    for moment in ["Orthanc  http", "stored ", "running "] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = Demo::start(folder.path(), false);
        let ended = demo.wait(|demo| demo.said().lines().any(|line| line.starts_with(moment)));
        assert!(ended.is_none(), "{ended:?}:\n{}", demo.said());
        ends_with_nothing_left(&mut demo);
    }
}

#[test]
fn make_demo_runs_the_script_as_it_is_told() {
    for (given, wanted) in [
        ("DEMO_EXIT=1", "DEMO_EXIT=1 scripts/demo.sh "),
        ("DEMO_EXIT=", "DEMO_EXIT= scripts/demo.sh "),
    ] {
        let output = Command::new("make")
            .args(["-n", "demo", given])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let script = said
            .lines()
            .find(|line| line.contains("scripts/demo.sh"))
            .unwrap_or_default();
        assert!(output.status.success() && script.contains(wanted), "{said}");
        for before in ["scripts/setup.sh\n", "cargo build --release", "scripts/setup.sh demo\n"] {
            let at = said.find(before).unwrap_or_else(|| panic!("no {before} in {said}"));
            assert!(at < said.find(script).unwrap(), "{said}");
        }
    }
}
