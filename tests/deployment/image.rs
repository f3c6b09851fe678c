//! The Dockerfile: what it copies, what it starts, and what the image for GPUs is given.

use std::collections::BTreeSet;

use hilum::model::Device;

use super::compose::{COMPOSE, compose};
use super::{in_the_source, text, understands};

/// The instructions of the Dockerfile: the stage in which they stand, their word, and the rest, continued lines put together.
pub(crate) fn instructions() -> Vec<(String, String, String)> {
    let whole = text("Dockerfile").replace("\\\n", " ");
    let (mut stage, mut found) = (String::new(), Vec::new());
    for line in whole.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        if word == "FROM" {
            stage = rest.split_once(" AS ").map_or("", |(_, name)| name).to_owned();
        }
        found.push((stage.clone(), word.to_owned(), rest.trim().to_owned()));
    }
    found
}

#[test]
fn what_the_dockerfile_copies_is_there() {
    const WORDS: [&str; 12] = [
        "ARG",
        "FROM",
        "RUN",
        "WORKDIR",
        "COPY",
        "ENV",
        "USER",
        "VOLUME",
        "EXPOSE",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ];
    let instructions = instructions();
    let stages: BTreeSet<&str> = instructions.iter().map(|(stage, _, _)| stage.as_str()).collect();
    // Folders that an instruction of a stage makes.
    let made = |folder: &str| {
        let mkdir = format!("mkdir {folder} ");
        instructions
            .iter()
            .any(|(_, word, rest)| word == "RUN" && rest.contains(&mkdir))
    };
    for (_, word, rest) in &instructions {
        assert!(WORDS.contains(&word.as_str()), "{word}");
        if word == "FROM" {
            let image = rest.split_whitespace().next().unwrap();
            let stage = image.replace("${RUNTIME}", "cpu");
            assert!(image.contains(':') || stages.contains(stage.as_str()), "FROM {image}");
        }
        if word != "COPY" {
            continue;
        }
        let mut words: Vec<&str> = rest.split_whitespace().collect();
        words.pop();
        let stage = words[0].strip_prefix("--from=");
        if let Some(stage) = stage {
            assert!(stages.contains(stage), "COPY from {stage}");
            words.remove(0);
        }
        for source in words {
            match (stage, source.strip_prefix("/source/")) {
                (None, _) => assert!(source == "." || in_the_source(source) > 0, "COPY {source}"),
                (Some(_), Some("target/release/hilum")) => {
                    let build = "cargo build --release --locked --bin hilum";
                    assert!(instructions.iter().any(|(_, _, rest)| rest.contains(build)));
                }
                (Some(_), Some(path)) => assert!(in_the_source(path) > 0, "COPY {source}"),
                (Some(_), None) => assert!(made(source), "nothing makes {source}"),
            }
        }
    }
    // The scripts and lists that its commands use.
    let commands = instructions.iter().filter(|(_, word, _)| word == "RUN");
    let named: BTreeSet<&str> = commands
        .flat_map(|(_, _, rest)| rest.split([' ', ';', ')']))
        .filter(|word| word.starts_with("scripts/"))
        .collect();
    assert_eq!(named, BTreeSet::from(["scripts/gpu-wheels.txt", "scripts/setup.sh"]));
    assert!(named.iter().all(|path| in_the_source(path) == 1));
    // Where gpu is asked for, and by default.
    assert!(stages.contains("runtime-gpu") && stages.contains("runtime-cpu"));
    let arguments = &compose(COMPOSE[1])["services"]["hilum"]["build"]["args"];
    assert_eq!(arguments["RUNTIME"], "gpu");
}

/// The last instruction of this word.
fn instruction(word: &str) -> String {
    let instructions = instructions();
    let last = instructions.into_iter().rfind(|(_, one, _)| one == word);
    last.unwrap_or_else(|| panic!("no {word}")).2
}

#[test]
fn the_image_starts_the_service_and_asks_after_its_health() {
    let words = |word: &str| serde_json::from_str::<Vec<String>>(&instruction(word)).unwrap();
    assert_eq!(words("ENTRYPOINT"), ["hilum"]);
    understands(&words("CMD"), "serve");
    let health = instruction("HEALTHCHECK");
    let asked = format!("http://127.0.0.1:{}/healthz", instruction("EXPOSE"));
    assert!(health.contains(&asked), "{health}");
    assert!(text("src/http/health.rs").contains("path = \"/healthz\""));
    // What asks is installed in the last stage, and its user is made there.
    let made: String = instructions()
        .iter()
        .filter(|(stage, word, _)| stage.is_empty() && word == "RUN")
        .map(|(_, _, rest)| rest.as_str())
        .collect();
    assert!(made.contains(" curl ") && made.contains("useradd ") && made.contains(" hilum"));
}

/// What is a shared library's name in a text.
fn libraries(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)));
    words
        .filter(|word| word.starts_with("lib") && word.contains(".so"))
        .collect()
}

#[test]
fn every_library_that_cuda_needs_comes_out_of_a_wheel_of_the_image() {
    let list = text("scripts/gpu-wheels.txt");
    let lines: Vec<&str> = list.lines().filter(|line| !line.is_empty()).collect();
    let (mut brought, mut wheels) = (BTreeSet::new(), BTreeSet::new());
    for pair in lines.windows(2) {
        let (before, wheel) = (pair[0], pair[1]);
        let Some((name, rest)) = wheel.split_once("==") else {
            continue;
        };
        let (version, digest) = rest.split_once(" --hash=sha256:").unwrap();
        assert!(version.split('.').all(|part| part.parse::<u64>().is_ok()), "{wheel}");
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let named = libraries(before);
        assert!(
            before.starts_with("# lib") && !named.is_empty(),
            "{name} brings nothing"
        );
        brought.extend(named);
        wheels.insert((name, version));
    }
    // The driver's own comes from the host.
    let said = Device::Cuda.install();
    let needed: BTreeSet<&str> = libraries(said)
        .into_iter()
        .filter(|name| *name != "libcuda.so.1")
        .collect();
    assert!(needed.len() >= 7, "{needed:?}");
    let missing: Vec<_> = needed.difference(&brought).collect();
    assert!(missing.is_empty(), "no wheel brings {missing:?}");
    let (name, version) = wheels.iter().find(|(name, _)| name.starts_with("onnxruntime")).unwrap();
    assert!(said.contains(&format!("{name} {version}")), "{said}");
    assert!(brought.contains(format!("libonnxruntime.so.{version}").as_str()));
    assert!(brought.contains("libonnxruntime_providers_cuda.so"));
    // They are fetched by their digests, put where the program looks for ONNX Runtime, and found there by each other.
    let fetched = instructions()
        .into_iter()
        .find(|(stage, word, _)| stage == "runtime-gpu" && word == "RUN")
        .unwrap();
    for wanted in [
        "--require-hashes",
        "--requirement scripts/gpu-wheels.txt",
        "/unpacked/nvidia/*/lib/*.so*",
    ] {
        assert!(fetched.2.contains(wanted), "{wanted}");
    }
    let environment = instruction("ENV");
    let folder = "/usr/local/lib/onnxruntime";
    for variable in ["LD_LIBRARY_PATH", "HILUM_MODEL__RUNTIME_LIBRARY"] {
        let wanted = format!("{variable}={folder}");
        assert!(environment.split_whitespace().any(|word| word == wanted), "{wanted}");
    }
    assert!(
        instructions()
            .iter()
            .any(|(_, word, rest)| word == "COPY" && *rest == format!("--from=runtime /onnxruntime {folder}"))
    );
}
