//! Settings: the built-in defaults (`config/default.toml`), then a file, then the environment.
//!
//! Each room declares its own settings; they are put together here. A key that nobody knows is an error, so that a misspelt limit does not silently keep its default.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::{Env, Format, Toml};
use serde::Deserialize;

use crate::delivery::DeliverySettings;
use crate::dicom::DecodeOptions;
use crate::dicomweb::{Deliver, Pacs};
use crate::http::{ServiceSettings, User};
use crate::inbox::InboxSettings;
use crate::jobs::JobSettings;
use crate::lungs::MaskLimits;
use crate::model::{Device, Overrides, SessionOptions};
use crate::segment::{self, OutputSettings};
use crate::series::SeriesLimits;

/// The defaults, with a comment on every option.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// Every setting of Hilum.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How frames are decoded.
    pub decoder: DecoderSettings,
    /// When a series is refused or remarked upon.
    pub series: SeriesLimits,
    /// When a mask is remarked upon.
    pub mask: MaskLimits,
    /// Which network runs, and where.
    pub model: ModelSettings,
    /// Deviations from the network's manifest.
    pub overrides: Overrides,
    /// What is made.
    pub output: OutputSettings,
    /// Where the service listens, and where its state lies.
    pub service: ServiceSettings,
    /// Limits and times of the inbox.
    pub inbox: InboxSettings,
    /// How jobs are worked on.
    pub jobs: JobSettings,
    /// How results are delivered.
    pub delivery: DeliverySettings,
    /// The PACS that the service knows.
    #[serde(default)]
    pub pacs: Vec<Pacs>,
    /// Who may use the service.
    #[serde(default)]
    pub user: Vec<User>,
}

/// Limits of the process that decodes compressed frames.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderSettings {
    /// Decode in this process, without limits: for input that is trusted.
    pub trust_input: bool,
    /// Most memory of a decoder process, in bytes.
    pub memory_bytes: u64,
    /// Most processor time for one frame, in seconds; rounded up to whole ones.
    pub seconds_per_frame: f64,
}

/// Which network runs, and where.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The network: a name in `folder`, or the path of a manifest.
    pub name: String,
    /// Where networks lie.
    pub folder: PathBuf,
    /// auto, cpu, cuda or tensorrt.
    pub device: Device,
    /// ONNX Runtime's library or its folder; empty: it is looked for.
    pub runtime_library: PathBuf,
    /// Threads on the CPU; 0: all cores.
    pub threads: usize,
    /// Number of the GPU.
    pub gpu: i32,
    /// Most memory on the GPU in bytes; 0: no limit.
    pub gpu_memory_limit_bytes: usize,
    /// TensorRT may compute in half precision.
    pub tensorrt_half_precision: bool,
    /// Where TensorRT's engines are kept; `auto`: where programs of this user keep such things; empty: they are built every time.
    pub cache_folder: PathBuf,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named is not there.
    #[error("there is no configuration file {}", .0.display())]
    Missing(PathBuf),
    /// A key is unknown, missing or of the wrong type; the message says where it came from.
    #[error("configuration: {}", without_secrets(.0))]
    Invalid(Box<figment::Error>),
    /// A `[[user]]` block says `pacs` with a name that no `[[pacs]]` block has.
    #[error(
        "configuration: [[user]] {user}: there is no [[pacs]] block named {pacs:?}; {}",
        the_known(.known)
    )]
    UnknownPacs {
        /// The user.
        user: String,
        /// What it says.
        pacs: String,
        /// The names that there are.
        known: Vec<String>,
    },
}

/// The names of `[[pacs]]` blocks, for a message.
pub(crate) fn the_known(names: &[String]) -> String {
    if names.is_empty() {
        return "there is none at all".to_owned();
    }
    format!("there are: {}", names.join(", "))
}

/// What is said of an error, without what may be a secret: the value of a key of `[[pacs]]` or `[[user]]` or of the database's URL, and the lines of the file that the parser of
/// TOML shows.
fn without_secrets(error: &figment::Error) -> String {
    let told = error.clone().into_iter().map(|mut error| {
        let of_secrets = error
            .path
            .first()
            .is_some_and(|first| first == "pacs" || first == "user");
        let is_secret = of_secrets || error.path.last().is_some_and(|last| last == "database_url");
        match &mut error.kind {
            Kind::InvalidType(found, _) | Kind::InvalidValue(found, _) if is_secret => {
                *found = Actual::Other("something else".into());
            }
            Kind::Message(message) => {
                let shows_file = |line: &&str| {
                    line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit())
                        .starts_with('|')
                };
                let lines: Vec<&str> = message.lines().filter(|line| !shows_file(line)).collect();
                *message = lines.join(": ");
            }
            _ => {}
        }
        error.to_string()
    });
    told.collect::<Vec<_>>().join("\n")
}

impl Settings {
    /// The defaults, `file` over them, and the environment over both: `HILUM_MODEL__DEVICE=cpu` sets `model.device`.
    ///
    /// # Errors
    /// A file that is not there, or a key that does not belong.
    pub fn load(file: Option<&Path>) -> Result<Settings, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(ConfigError::Missing(path.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        // Only names with a section are settings; HILUM_CONFIG, HILUM_LOG and the tests' variables are not.
        let environment = Env::prefixed("HILUM_")
            .filter(|key| key.as_str().contains("__"))
            .split("__");
        let settings: Settings = figment
            .merge(environment)
            .extract()
            .map_err(|error| ConfigError::Invalid(Box::new(error)))?;
        settings.check_users()?;
        Ok(settings)
    }

    /// The names of the `[[pacs]]` blocks.
    #[must_use]
    pub fn pacs_names(&self) -> Vec<String> {
        self.pacs.iter().map(|block| block.name.clone()).collect()
    }

    /// Users whose series would come from a PACS that nobody knows.
    fn check_users(&self) -> Result<(), ConfigError> {
        let known = self.pacs_names();
        let named = self.user.iter().filter_map(|user| Some((user, user.pacs.as_ref()?)));
        for (user, pacs) in named {
            if !known.contains(pacs) {
                return Err(ConfigError::UnknownPacs {
                    user: user.name.clone(),
                    pacs: pacs.clone(),
                    known,
                });
            }
        }
        Ok(())
    }

    /// What `segment` is given.
    #[must_use]
    pub fn segment(&self) -> segment::Settings {
        segment::Settings {
            series: self.series.clone(),
            mask: self.mask.clone(),
            output: self.output.clone(),
            further_profiles: Vec::new(),
        }
    }

    /// What the worker of the service is given: as `segment`, and the profiles of every PACS that gets results.
    #[must_use]
    pub fn segment_for_delivery(&self) -> segment::Settings {
        let gets = self.pacs.iter().filter(|block| block.deliver != Deliver::Nothing);
        segment::Settings {
            further_profiles: gets.map(|block| block.profile(self.output.profile())).collect(),
            ..self.segment()
        }
    }
}

impl DecoderSettings {
    /// What the frame reader is given.
    #[must_use]
    pub fn options(&self) -> DecodeOptions {
        DecodeOptions {
            trust_input: self.trust_input,
            memory_bytes: self.memory_bytes,
            seconds_per_frame: self.seconds_per_frame,
            ..DecodeOptions::default()
        }
    }
}

impl ModelSettings {
    /// What the session is given.
    #[must_use]
    pub fn session_options(&self) -> SessionOptions {
        let given = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        SessionOptions {
            device: self.device,
            runtime_library: given(&self.runtime_library),
            threads: (self.threads > 0).then_some(self.threads),
            batch: None,
            gpu: self.gpu,
            gpu_memory_limit_bytes: (self.gpu_memory_limit_bytes > 0).then_some(self.gpu_memory_limit_bytes),
            tensorrt_half_precision: self.tensorrt_half_precision,
            cache_folder: if self.cache_folder.as_os_str() == "auto" {
                default_cache(|name| std::env::var_os(name))
            } else {
                given(&self.cache_folder)
            },
        }
    }
}

/// Where a program keeps what it can make again, by these variables of the environment; `None` where none is set.
fn default_cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // The folder that systemd made for the service is its own, those of a user are shared.
    let shared = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("CACHE_DIRECTORY").or_else(|| Some(shared()?.join("hilum")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<Settings, Box<figment::Error>> {
        Figment::from(Toml::string(DEFAULTS))
            .merge(Toml::string(text))
            .extract()
            .map_err(Box::new)
    }

    #[test]
    fn the_file_of_defaults_says_what_the_rooms_say() {
        let settings = with("").unwrap();
        assert_eq!(settings.series, SeriesLimits::default());
        assert_eq!(settings.mask, MaskLimits::default());
        assert_eq!(settings.output, OutputSettings::default());
        assert_eq!(settings.overrides, Overrides::default());
        let (decoder, default) = (settings.decoder.options(), DecodeOptions::default());
        assert_eq!(
            (decoder.trust_input, decoder.memory_bytes),
            (default.trust_input, default.memory_bytes)
        );
        assert!((decoder.seconds_per_frame - default.seconds_per_frame).abs() < 1e-9);
        let session = SessionOptions {
            cache_folder: None,
            ..settings.model.session_options()
        };
        assert_eq!(session, SessionOptions::default());
    }

    /// These rooms have defaults of their own, so that a limit which the file does not name would be missed by nobody.
    #[test]
    fn the_file_of_defaults_names_every_limit() {
        let file: toml::Table = DEFAULTS.parse().unwrap();
        let rooms = [
            ("series", toml::Table::try_from(SeriesLimits::default())),
            ("mask", toml::Table::try_from(MaskLimits::default())),
        ];
        for (name, room) in rooms {
            let limits: Vec<_> = room.unwrap().keys().cloned().collect();
            let named: Vec<_> = file[name].as_table().unwrap().keys().cloned().collect();
            assert_eq!(named, limits, "[{name}]");
        }
    }

    #[test]
    fn an_error_tells_where_it_is_and_no_secret() {
        for (text, told) in [
            ("[[pacs]]\npassword = 5432167890", "default.pacs.0.password"),
            ("[[user]]\nname = \"a\"\nhash = 5432167890", "default.user.0.hash"),
            ("[service]\ndatabase_url = 5432167890", "default.service.database_url"),
            ("[[pacs]]\ntoken = \"5432167890\nname = \"a\"", "line 2, column"),
            ("[[pacs]]\ntoken = 5432167890-x", "line 2, column"),
            // What is no secret is shown.
            ("[jobs]\nlease_seconds = \"abc\"", "abc"),
        ] {
            let error = with(text).unwrap_err();
            let said = without_secrets(&error);
            assert!(said.contains(told), "{said}");
            assert!(!said.contains("5432167890"), "{said}");
        }
    }

    #[test]
    fn engines_are_kept_in_the_cache_of_the_service_or_of_the_user_unless_told_otherwise() {
        let cache = |variables: &[(&str, &str)]| {
            default_cache(|name| {
                let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
                Some(OsString::from(value))
            })
        };
        let [home, xdg] = [("HOME", "/home/x"), ("XDG_CACHE_HOME", "/cache")];
        let of_service = ("CACHE_DIRECTORY", "/var/cache/hilum");
        assert_eq!(cache(&[home, xdg, of_service]), Some("/var/cache/hilum".into()));
        assert_eq!(cache(&[home, xdg]), Some("/cache/hilum".into()));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "")]),
            Some("/home/x/.cache/hilum".into())
        );
        assert_eq!(cache(&[]), None);
        let settings = |text: &str| with(text).unwrap().model.session_options().cache_folder;
        assert_eq!(settings("[model]\ncache_folder = \"\""), None);
        assert_eq!(
            settings("[model]\ncache_folder = \"/engines\""),
            Some("/engines".into())
        );
        assert_eq!(settings(""), default_cache(|name| std::env::var_os(name)));
    }

    #[test]
    fn every_option_is_commented() {
        let mut commented = false;
        for line in DEFAULTS.lines() {
            let line = line.trim();
            if line.starts_with('#') {
                commented = true;
            } else if line.is_empty() || line.starts_with('[') {
                commented = false;
            } else {
                assert!(commented, "no comment above: {line}");
                commented = false;
            }
        }
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let error = with("[series]\nmin_slice = 3").unwrap_err().to_string();
        assert!(error.contains("min_slice"), "{error}");
    }

    #[test]
    fn the_service_makes_what_the_pacs_that_get_results_ask_for_and_the_command_line_does_not() {
        let block = |name: &str, more: &str| format!("[[pacs]]\nname = {name:?}\nurl = \"http://x/\"\n{more}\n");
        let text = [
            block("as-output", ""),
            block("sparse", "frames = \"sparse\""),
            block("both", "segments = \"left-right\"\ntransfer_syntax = \"deflated\""),
            block("nothing", "deliver = \"nothing\"\nsegments = \"left-right\""),
        ]
        .concat();
        let settings = with(&format!("{text}[output]\ntransfer_syntax = \"deflated\"")).unwrap();
        let made: Vec<[&str; 3]> = settings
            .segment_for_delivery()
            .profiles()
            .into_iter()
            .map(segment::Profile::words)
            .collect();
        assert_eq!(
            made,
            [
                ["lung", "full", "deflated"],
                ["lung", "sparse", "deflated"],
                ["left-right", "full", "deflated"]
            ]
        );
        assert_eq!(settings.segment().profiles(), [settings.output.profile()]);
        let misspelt = with(&block("x", "frames = \"some\"")).unwrap_err().to_string();
        assert!(misspelt.contains("some"), "{misspelt}");
    }

    #[test]
    fn a_user_of_a_pacs_that_no_block_has_is_an_error_that_lists_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hilum.toml");
        let loaded = |pacs: &[&str], of_user: &str| {
            let blocks = pacs
                .iter()
                .map(|name| format!("[[pacs]]\nname = {name:?}\nurl = \"http://x/\"\n"));
            let user = format!("[[user]]\nname = \"gate\"\nhash = \"5432167890\"\nroles = [\"ingest\"]\n{of_user}");
            std::fs::write(&file, blocks.chain([user]).collect::<String>()).unwrap();
            Settings::load(Some(&file))
        };
        let known = loaded(&["orthanc", "archive"], "pacs = \"archive\"").unwrap();
        assert_eq!(known.user[0].pacs.as_deref(), Some("archive"));
        assert_eq!(loaded(&["orthanc"], "").unwrap().user[0].pacs, None);
        let said = loaded(&["orthanc", "archive"], "pacs = \"Archive\"")
            .unwrap_err()
            .to_string();
        for told in ["gate", "\"Archive\"", "orthanc, archive"] {
            assert!(said.contains(told), "{said}");
        }
        assert!(!said.contains("5432167890"), "{said}");
        let said = loaded(&[], "pacs = \"orthanc\"").unwrap_err().to_string();
        assert!(said.contains("there is none at all"), "{said}");
    }

    #[test]
    fn a_later_value_wins() {
        assert_eq!(
            with("[model]\nthreads = 3").unwrap().model.session_options().threads,
            Some(3)
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Settings::load(Some(Path::new("/nowhere/hilum.toml")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/hilum.toml"), "{error}");
    }
}
