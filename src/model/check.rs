//! What works on this machine, point by point, each with what to do where it does not.

use std::path::PathBuf;
use std::time::Instant;

use super::devices::{Device, NEVER_RUN_ON_A_GPU};
use super::error::ModelError;
use super::graph;
use super::manifest::Manifest;
use super::runtime::{find_library, inspect_library, runtime};
use super::session::{Session, SessionOptions};

/// One point of the check.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// How it stands.
    pub health: Health,
    /// What was seen.
    pub seen: String,
    /// What to do about a problem; empty where there is none.
    pub to_do: String,
    /// How long it took to look.
    pub seconds: f64,
}

/// How a point stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It works.
    Ok,
    /// It does not, and need not.
    Absent,
    /// It does not, and has to.
    Problem,
}

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// The network's manifest.
    pub manifest: PathBuf,
    /// How the network would be run. With `Device::Auto` every device is tried and the CPU has to work, otherwise the one that is named has to.
    pub session: SessionOptions,
}

/// Points in the order in which they were looked at, each with the seconds that it took, and told as soon as it is known.
pub struct Checks<'a> {
    made: Vec<Check>,
    since: Instant,
    told: Box<dyn FnMut(&Check) + 'a>,
}

impl<'a> Checks<'a> {
    /// None yet; the time of the first point runs from here.
    #[must_use]
    pub fn new(told: impl FnMut(&Check) + 'a) -> Checks<'a> {
        Checks {
            made: Vec::new(),
            since: Instant::now(),
            told: Box::new(told),
        }
    }

    /// Adds a point; looking at it began when the one before was added.
    pub fn push(&mut self, mut check: Check) {
        check.seconds = self.since.elapsed().as_secs_f64();
        (self.told)(&check);
        self.made.push(check);
        self.since = Instant::now();
    }

    /// Whether something that has to work does not.
    #[must_use]
    pub fn has_problem(&self) -> bool {
        self.made.iter().any(|check| check.health == Health::Problem)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Check] {
        &self.made
    }
}

/// Looks at the library, its providers, the manifest and its files, and sends one batch of windows through on each device.
pub fn check(options: &CheckOptions, checks: &mut Checks) {
    let library = check_library(options, checks);
    let manifest = check_manifest(options, checks);
    if library {
        check_providers(checks);
        if let Some(manifest) = manifest {
            check_devices(&manifest, options, checks);
        }
    }
    checks.push(Check::absent("GPU", NEVER_RUN_ON_A_GPU, ""));
}

impl Check {
    /// Something that works.
    #[must_use]
    pub fn ok(what: impl Into<String>, seen: impl Into<String>) -> Check {
        Check::new(what, Health::Ok, seen, "")
    }

    /// Something that does not work and need not, with what would bring it.
    #[must_use]
    pub fn absent(what: impl Into<String>, seen: impl Into<String>, to_do: impl Into<String>) -> Check {
        Check::new(what, Health::Absent, seen, to_do)
    }

    /// Something that has to work and does not, with what to do.
    #[must_use]
    pub fn problem(what: impl Into<String>, seen: impl Into<String>, to_do: impl Into<String>) -> Check {
        Check::new(what, Health::Problem, seen, to_do)
    }

    fn new(what: impl Into<String>, health: Health, seen: impl Into<String>, to_do: impl Into<String>) -> Check {
        Check {
            what: what.into(),
            health,
            seen: seen.into(),
            to_do: to_do.into(),
            seconds: 0.0,
        }
    }
}

/// True when the library is loaded.
fn check_library(options: &CheckOptions, checks: &mut Checks) -> bool {
    const WHAT: &str = "ONNX Runtime";
    let named = options.session.runtime_library.as_deref();
    match find_library(named)
        .and_then(|path| inspect_library(&path))
        .and_then(|_| runtime(named))
    {
        Ok(runtime) => {
            let version = runtime.library.version.as_deref().unwrap_or("unknown version");
            checks.push(Check::ok(
                WHAT,
                format!("{version}, {}", runtime.library.path.display()),
            ));
            true
        }
        Err(error) => {
            let to_do = match &error {
                ModelError::Telemetry { .. } => "export ORT_DISABLE_TELEMETRY=1",
                _ => "make setup",
            };
            checks.push(Check::problem(WHAT, error.to_string(), to_do));
            false
        }
    }
}

fn check_providers(checks: &mut Checks) {
    let built: Vec<_> = Device::Auto
        .ladder()
        .into_iter()
        .filter(|device| device.compiled_in())
        .map(Device::provider)
        .collect();
    checks.push(Check::ok("providers in the library", built.join(", ")));
}

/// The manifest, when it and all its files are what they should be.
fn check_manifest(options: &CheckOptions, checks: &mut Checks) -> Option<Manifest> {
    let manifest = match Manifest::load(&options.manifest) {
        Ok(manifest) => manifest,
        Err(error) => {
            let to_do = format!(
                "mend {} by docs/models.md, or name another model",
                options.manifest.display()
            );
            checks.push(Check::problem("manifest", error.to_string(), to_do));
            return None;
        }
    };
    let seen = format!(
        "{} {}, weights {}",
        manifest.name,
        manifest.version,
        &manifest.weights_sha256[..16]
    );
    checks.push(Check::ok("manifest", seen));
    let mut whole = true;
    for graph in &manifest.graphs {
        match graph::read(&manifest, graph) {
            Ok(bytes) => {
                let seen = format!("{:.1} MB, digest as in the manifest", bytes.len() as f64 / 1e6);
                checks.push(Check::ok(&*graph.file, seen));
            }
            Err(error) => {
                whole = false;
                let to_do = "bring the file that the manifest names, or write its digest into the manifest if it is the right one";
                checks.push(Check::problem(&*graph.file, error.to_string(), to_do));
            }
        }
    }
    whole.then_some(manifest)
}

/// Opens the network on each device: its tensors are held against the manifest, and a batch of windows goes through.
fn check_devices(manifest: &Manifest, options: &CheckOptions, checks: &mut Checks) {
    for device in options.session.device.ladder() {
        let what = format!("device {device}");
        let session = SessionOptions {
            device,
            ..options.session.clone()
        };
        match Session::open(manifest, &session).map(|session| session.provider()) {
            Ok(provider) => {
                let seen = format!(
                    "tensors as in the manifest, {} of {} nodes on {}, a first batch of {} in {:.0} ms on {} threads",
                    provider.nodes_on_provider,
                    provider.nodes_total,
                    provider.name,
                    provider.batch,
                    provider.warm_up_ms,
                    provider.threads
                );
                checks.push(Check::ok(what, seen));
            }
            Err(ModelError::Device { why, install, .. })
                if options.session.device == Device::Auto && device != Device::Cpu =>
            {
                checks.push(Check::absent(what, why, install));
            }
            Err(ModelError::Device { why, install, .. }) => checks.push(Check::problem(what, why, install)),
            Err(error @ ModelError::Profile { .. }) => checks.push(Check::problem(
                what,
                error.to_string(),
                "free some space in the folder of temporary files, or name another one by TMPDIR",
            )),
            Err(error) => checks.push(Check::problem(
                what,
                error.to_string(),
                "mend the manifest by docs/models.md, or bring the right file",
            )),
        }
    }
}
