//! The network of the service: its manifest in at the start, ready to segment later. Loading may take minutes, as where TensorRT builds its engines; meanwhile the service
//! listens, takes series in, and says that it is not ready.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cli::models;
use crate::config::Settings;
use crate::database::{Backoff, Failures, JobSpecification};
use crate::dicom::FrameReader;
use crate::http::ModelState;
use crate::jobs::{self, Core};
use crate::model::{Manifest, Session};

/// Between two attempts to load it: a library or file may come later, the memory of a GPU be somebody else's for a while.
const AGAIN: Backoff = Backoff {
    first_seconds: 5.0,
    longest_seconds: 300.0,
};

/// What this process knows of the network before it is loaded.
#[derive(Default)]
pub(super) struct Network {
    /// What is to be loaded, where this process works.
    pub(super) to_load: Option<Manifest>,
    /// What jobs are made with, as far as it is known.
    pub(super) specification: Option<Arc<JobSpecification>>,
}

impl Network {
    /// The network as the settings have it. A process that does not segment (`works` is false) needs none: without its manifest, any job of the same slices answers a wish for
    /// one.
    ///
    /// # Errors
    /// The manifest of a process that works cannot be used.
    pub(super) fn named(settings: &Settings, works: bool) -> anyhow::Result<Network> {
        let manifest = match manifest(settings) {
            Ok(manifest) => manifest,
            Err(error) if works => return Err(error),
            Err(error) => {
                warn!("it is not known here with which network jobs are made: {error:#}");
                return Ok(Network::default());
            }
        };
        let specification = Some(Arc::new(jobs::specification(
            &manifest,
            &settings.series,
            &settings.mask,
        )));
        let to_load = works.then_some(manifest);
        Ok(Network { to_load, specification })
    }

    /// What is said of it at the start.
    pub(super) fn state(&self) -> ModelState {
        match self.to_load {
            Some(_) => ModelState::Loading,
            None => ModelState::NotAsked,
        }
    }
}

/// What the network is, as the settings have it.
fn manifest(settings: &Settings) -> anyhow::Result<Manifest> {
    let path = models::manifest_path(&settings.model.name, &settings.model.folder)?;
    Ok(Manifest::load(&path)?.with(&settings.overrides)?)
}

/// Loads the network and sends empty windows through it, again and again until that went well; how it stands is told to `tell`. `None`: this process is to end first.
pub(super) async fn load(
    manifest: Manifest,
    settings: &Settings,
    data: &Path,
    tell: &watch::Sender<ModelState>,
    drain: &CancellationToken,
) -> Option<Arc<Core>> {
    let mut failures = Failures::new(AGAIN);
    loop {
        let (manifest, settings, data) = (manifest.clone(), settings.clone(), data.to_owned());
        let loading = tokio::task::spawn_blocking(move || core(manifest, &settings, &data));
        let loaded = tokio::select! {
            loaded = loading => loaded,
            () = drain.cancelled() => return None,
        };
        let why = match loaded {
            Ok(Ok(core)) => {
                tell.send_replace(ModelState::Ready);
                return Some(Arc::new(core));
            }
            Ok(Err(failure)) => format!("{failure:#}"),
            Err(panic) => format!("a fault in Hilum: {panic}"),
        };
        let wait = failures.wait();
        error!(
            "no job is worked on, since the network cannot be loaded; again in {:.0} s: {why}",
            wait.as_secs_f64()
        );
        tell.send_replace(ModelState::Failed(why));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = drain.cancelled() => return None,
        }
    }
}

/// The network, ready.
fn core(manifest: Manifest, settings: &Settings, data: &Path) -> anyhow::Result<Core> {
    let session = Session::open(&manifest, &settings.model.session_options())?;
    info!(
        "{} {} runs on {}",
        manifest.name,
        manifest.version,
        session.provider().name
    );
    let reader = FrameReader::new(settings.decoder.options());
    Ok(Core::new(
        manifest,
        session,
        reader,
        settings.segment_for_delivery(),
        data.to_owned(),
        data.join("inbox"),
    ))
}
