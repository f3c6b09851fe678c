//! Profiles of the DICOM Segmentation: one mask, an object for each, and each PACS with its own. By the network and by the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "quirk_server/mod.rs"]
mod quirk_server;
mod service_support;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use hilum::database::testing::scratch;
use hilum::dicom::{DecodeOptions, FrameReader, Limits, discover};
use hilum::evaluate::read_mask;
use hilum::model::{CancelFlag, Manifest, Session, SessionOptions};
use hilum::phantom::{Specification, chest, dicom_series};
use hilum::segment::{self, FrameChoice, Profile, Segmented, Segments, Settings, Tools, TransferSyntax};
use hilum::series::{Series, group};
use quirk_server::QuirkServer;
use service_support::{Orthanc, Service, WHOLE, eventually, ready, ready_without_pacs, thin_phantom};

fn phantom(folder: &Path) -> Series {
    // More slices than the lungs have.
    let specification = Specification {
        slices: Some(90),
        ..Specification::small(21)
    };
    let chest = chest(&specification).unwrap();
    for (name, bytes) in dicom_series(&chest, &specification).unwrap() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let found = discover(&[folder.to_owned()], &Limits::default()).unwrap();
    group(found.instances).remove(0)
}

fn bytes<'a>(segmented: &'a Segmented, name: &str) -> &'a [u8] {
    let artifact = segmented.artifacts.iter().find(|artifact| artifact.name == name);
    &artifact.unwrap_or_else(|| panic!("there is no {name}")).bytes
}

#[test]
fn every_profile_is_a_verified_object_of_its_own_and_the_first_is_as_it_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let series = phantom(folder.path());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/hilum-ahnet-lung-tiny.toml");
    let manifest = Manifest::load(&manifest).unwrap();
    let mut session = Session::open(&manifest, &SessionOptions::default()).unwrap();
    let provider = session.provider();
    let reader = FrameReader::new(DecodeOptions {
        trust_input: true,
        ..DecodeOptions::default()
    });
    let mut run = |further: &[Profile]| {
        let settings = Settings {
            further_profiles: further.to_vec(),
            ..Settings::default()
        };
        let tools = Tools {
            reader: &reader,
            manifest: &manifest,
            settings: &settings,
            observer: &(),
            cancel: &CancelFlag::default(),
        };
        segment::segment(&series, &mut session, &provider, &tools).unwrap()
    };
    let usual = Profile::default();
    let others = [
        Profile {
            frames: FrameChoice::Sparse,
            ..usual
        },
        Profile {
            segments: Segments::LeftRight,
            ..usual
        },
        Profile {
            transfer_syntax: TransferSyntax::Deflated,
            ..usual
        },
    ];
    let alone = run(&[]);
    // One asked for twice, and the usual one once more: no file of them.
    let several = run(&[others[0], others[1], usual, others[2], others[0]]);
    let names: Vec<&str> = several.artifacts.iter().map(|artifact| artifact.name).collect();
    assert_eq!(
        names,
        [
            "segmentation.dcm",
            "segmentation-lung-sparse-explicit.dcm",
            "segmentation-left-right-full-explicit.dcm",
            "segmentation-lung-full-deflated.dcm",
            "mask.nii.gz",
            "overlay.png",
            "report.json"
        ]
    );
    for artifact in alone.artifacts.iter().filter(|artifact| artifact.name != "report.json") {
        assert!(bytes(&several, artifact.name) == artifact.bytes, "{}", artifact.name);
    }
    let sparse = bytes(&several, names[1]);
    assert!(sparse.len() < bytes(&several, names[0]).len());
    let again = run(&others[..1]);
    assert!(bytes(&again, names[1]) == sparse, "the same whatever is made beside it");
    let mut uids = HashSet::new();
    for (name, profile) in names.iter().zip([usual].iter().chain(&others)) {
        let facts = several.report.files.iter().find(|file| file.name == *name).unwrap();
        assert!(facts.verified_seconds.is_some(), "{name} was read back");
        let told = facts.segmentation.as_ref().unwrap();
        assert_eq!([told.segments, told.frames, told.transfer_syntax], profile.words());
        assert!(
            uids.insert(told.sop_instance_uid.clone()),
            "{name} has the UID of another"
        );
        let path = folder.path().join(name);
        std::fs::write(&path, bytes(&several, name)).unwrap();
        let source = hilum::dicom::Source::of_file(&path).unwrap();
        let header = hilum::dicom::read_header(&source, &Limits::default()).unwrap().header;
        assert_eq!(header.sop_instance_uid, told.sop_instance_uid);
        assert_eq!(header.study_instance_uid, series.study_instance_uid);
        read_mask(bytes(&several, name)).unwrap();
    }
    assert_eq!(
        several.segmentation_uid(),
        alone.segmentation_uid(),
        "the usual object is named as it was"
    );
}

#[tokio::test]
async fn a_job_delivers_to_each_pacs_the_segmentation_of_its_profile() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let (one, two) = (QuirkServer::start().await, QuirkServer::start().await);
        let mut service = Service::new(Some(&url));
        service.configure(&format!(
            "[[pacs]]\nname = \"one\"\nurl = {:?}\ncount = false\n[[pacs]]\nname = \"two\"\nurl = {:?}\ncount = false\nframes = \"sparse\"\ntransfer_syntax = \"deflated\"\n",
            one.url(),
            two.url()
        ));
        service.with("HILUM_DELIVERY__ALWAYS_TO", "[\"two\"]");
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 71);
        let headers = [("X-Hilum-Series-Complete", "true"), ("X-Hilum-Source", "one")];
        assert_eq!(service.stow(&slices, &headers).await.unwrap().status(), 200);
        let id = service.jobs_over(1).await[0]["id"].as_str().unwrap().to_owned();
        let job = eventually("both deliveries", || async {
            let job = service.json(&format!("/api/v1/jobs/{id}")).await?;
            let deliveries = job["deliveries"].as_array()?;
            let over = deliveries.len() == 2 && deliveries.iter().all(|one| one["state"] == "delivered");
            over.then_some(job)
        })
        .await;
        let mut uids = HashSet::new();
        for (server, name, file) in [
            (&one, "one", "segmentation.dcm"),
            (&two, "two", "segmentation-lung-sparse-deflated.dcm"),
        ] {
            let deliveries = job["deliveries"].as_array().unwrap();
            let delivery = deliveries.iter().find(|one| one["destination"] == name).unwrap();
            let uid = delivery["sop_instance_uid"].as_str().unwrap();
            assert!(delivery["file"].as_str().unwrap().ends_with(&format!("/{file}")), "{delivery}");
            let kept: Vec<String> = server
                .inside()
                .series
                .iter()
                .flat_map(|series| series.instances.iter().map(|(sop, _)| sop.clone()))
                .collect();
            assert_eq!(kept, [uid], "{name} has its own and no other");
            assert_eq!(server.inside().stow_requests, 1);
            let link = format!("/api/v1/jobs/{id}/result/{file}");
            assert!(job["links"]["results"].as_array().unwrap().contains(&serde_json::json!(link)));
            let result = service.get(&link).await.unwrap();
            assert_eq!(result.headers()["content-type"], "application/dicom");
            let bytes = result.bytes().await.unwrap();
            assert!(bytes.windows(uid.len()).any(|window| window == uid.as_bytes()), "{name}");
            uids.insert(uid.to_owned());
        }
        assert_eq!(uids.len(), 2);
        assert!(uids.contains(job["segmentation_uid"].as_str().unwrap()));
        assert!(service.end());
    })
    .await;
}

/// The commands that docs/service.md gives for a PACS whose profile was configured after a job.
fn documented_way_out() -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/service.md")).unwrap();
    let chapter = page
        .split("- **Profiles.**")
        .nth(1)
        .unwrap()
        .split("\n- **")
        .next()
        .unwrap();
    let block = chapter.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    block
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[tokio::test]
async fn a_pacs_whose_profile_was_configured_after_the_job_gets_its_segmentation_by_the_documented_commands() {
    const PROFILE: &str = "frames = \"sparse\"\ntransfer_syntax = \"deflated\"\n";
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let orthanc = Orthanc::start(None).await;
        let mut service = Service::new(Some(&url));
        service.beside(&orthanc, "deliver = \"nothing\"\n");
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(&folder.path().join("phantom"), 72);
        assert_eq!(service.stow(&slices, &WHOLE).await.unwrap().status(), 200);
        let id = service.jobs_over(1).await[0]["id"].as_str().unwrap().to_owned();
        assert!(service.end());
        service.beside(&orthanc, PROFILE);
        service.up().await;
        assert_eq!(
            service.post(&format!("/api/v1/jobs/{id}/redeliver")).await.status(),
            202
        );
        eventually("the decision that nothing can go there", || async {
            let job = service.json(&format!("/api/v1/jobs/{id}")).await?;
            (job["withheld"] == serde_json::json!([{"destination": "orthanc", "why": "profile_not_made"}]))
                .then_some(())
        })
        .await;
        assert!(orthanc.segmentations().await.is_empty());

        std::os::unix::fs::symlink(slices[0].parent().unwrap(), folder.path().join("slices")).unwrap();
        std::fs::copy(
            service.folder.path().join("hilum.toml"),
            folder.path().join("hilum.toml"),
        )
        .unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_hilum")).parent().unwrap();
        let commands = documented_way_out();
        assert_eq!(commands.len(), 2, "{commands:?}");
        for command in commands {
            let command = command
                .replace("127.0.0.1:8042", &format!("127.0.0.1:{}", orthanc.port))
                .replace("hilum:PASSWORD", &format!("hilum:{}", orthanc.password));
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let output = Command::new("sh")
                .args(["-c", &command])
                .current_dir(folder.path())
                .env(
                    "PATH",
                    format!("{}:{}", program.display(), std::env::var("PATH").unwrap()),
                )
                .env("HILUM_MODEL__FOLDER", root.join("onnx"))
                .env("HILUM_MODEL__RUNTIME_LIBRARY", root.join(".runtime"))
                .env("no_proxy", "127.0.0.1")
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{command}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let by_hand = orthanc.segmentations().await;
        assert_eq!(by_hand.len(), 1);
        assert!(service.end());

        // What a job makes that runs with the profile is the same object: the PACS has it once.
        scratch(|_, url| async move {
            let mut other = Service::new(Some(&url));
            other.beside(&orthanc, PROFILE);
            other.up().await;
            assert_eq!(other.stow(&slices, &WHOLE).await.unwrap().status(), 200);
            let id = other.jobs_over(1).await[0]["id"].as_str().unwrap().to_owned();
            let job = other.delivered(&id).await;
            assert_eq!(job["deliveries"][0]["sop_instance_uid"], by_hand[0].1.as_str());
            assert_ne!(job["segmentation_uid"], by_hand[0].1.as_str());
            assert_eq!(orthanc.segmentations().await, by_hand);
            assert!(other.end());
        })
        .await;
    })
    .await;
}
