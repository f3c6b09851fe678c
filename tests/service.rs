//! The whole: a series in a real Orthanc, our rule, `hilum serve`, and the segmentation back in Orthanc; and what happens on the days that are not sunny.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hilum::database::testing::scratch;
use hilum::dicom::{Header, Limits, PatientIdentity, Source, discover, read_header};
use hilum::dicomweb::FATE_METADATA;
use hilum::series::{Judgement, REFERENCE_GRID_MM, SeriesLimits, estimated_memory_bytes, group, judge};
use serde_json::{Value, json};
use service_support::{
    Orthanc, Service, WHOLE, apart, both, column, count, eventually, free_port, phantom, ready, ready_without_pacs,
    secret, segmentations, thin_phantom,
};

/// A validator's complaints about files.
fn complaints(program: &str, files: &[PathBuf]) -> Vec<String> {
    let output = Command::new(program).args(files).output().unwrap();
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.starts_with("Error"))
        .map(str::to_owned)
        .collect()
}

/// The study and the patient of an object.
fn identity(file: &Path) -> (String, PatientIdentity) {
    let header = header(file);
    (header.study_instance_uid, header.patient)
}

fn header(file: &Path) -> Header {
    let source = Source::of_file(file).unwrap();
    read_header(&source, &Limits::default()).unwrap().header
}

fn states(jobs: &[Value]) -> Vec<String> {
    let mut states: Vec<String> = jobs
        .iter()
        .map(|job| job["state"].as_str().unwrap().to_owned())
        .collect();
    states.sort();
    states
}

#[tokio::test]
async fn a_series_that_the_rule_forwards_comes_back_as_a_segmentation_of_its_study() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc) = both(&url, true, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 5, &[]);
        orthanc.store(&slices).await;
        let found = segmentations(&orthanc, 1).await;
        assert_eq!(found.len(), 1);
        let (study, segmentation) = &found[0];
        let studies = orthanc.get("/dicom-web/studies").await.unwrap();
        assert_eq!(
            studies.as_array().unwrap().len(),
            1,
            "the segmentation lies in the study of its series"
        );
        assert_eq!(service_support::orthanc::uid(&studies[0], "0020000D"), *study);
        let bytes = orthanc.instance(segmentation).await;
        let stored = folder.path().join("segmentation.dcm");
        std::fs::write(&stored, &bytes).unwrap();
        assert_eq!(
            complaints("dciodvfy", std::slice::from_ref(&stored)),
            Vec::<String>::new()
        );
        let together: Vec<_> = slices.iter().cloned().chain([stored]).collect();
        assert_eq!(complaints("dcentvfy", &together), complaints("dcentvfy", &slices));
        let jobs = service.jobs_over(1).await;
        assert_eq!(states(&jobs), ["done"]);
        let id = jobs[0]["id"].as_str().unwrap();
        let job = service.delivered(id).await;
        assert!(
            job["measurements"]["total"]["volume_ml"].as_f64().unwrap() > 100.0,
            "{job}"
        );
        for name in ["segmentation.dcm", "report.json", "overlay.png", "mask.nii.gz"] {
            let result = service.get(&format!("/api/v1/jobs/{id}/result/{name}")).await.unwrap();
            assert!(!result.bytes().await.unwrap().is_empty(), "{name}");
        }
        let metrics = service.get("/metrics").await.unwrap().text().await.unwrap();
        for stage in [
            "read",
            "resample",
            "crop",
            "windows",
            "mask_back",
            "clean_up",
            "measure",
            "outputs",
        ] {
            let counted = format!("hilum_stage_seconds_count{{stage=\"{stage}\"}} 1");
            assert!(metrics.contains(&counted), "{counted} in\n{metrics}");
        }
        let windows = job["details"]["windows"]["run"].as_u64().unwrap();
        for counted in [
            format!("hilum_windows_total {windows}"),
            format!("hilum_instances_total{{outcome=\"new\"}} {}", slices.len()),
            "hilum_series{state=\"taken\"} 1".to_owned(),
            "hilum_deliveries{state=\"delivered\"} 1".to_owned(),
        ] {
            assert!(metrics.lines().any(|line| line == counted), "{counted} in\n{metrics}");
        }
        assert_eq!(job["verdict"]["outcome"], "accepted", "{job}");
        assert!(job["mask_findings"].is_array(), "{job}");
        assert_eq!(job["details"]["provider"]["name"], "CPUExecutionProvider", "{job}");
        // The rule's header closes it, before it was quiet for long enough.
        let closed = column(&url, "select settled_by::text from series where state = 'taken'").await;
        assert_eq!(closed, ["sender"]);
        // The segmentation went back to Orthanc, became stable there, and started nothing.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(service.jobs().await.len(), 1);
        assert!(service.end(), "SIGTERM ends it well:\n{}", service.log());
    })
    .await;
}

#[tokio::test]
async fn orthanc_listens_on_loopback_alone() {
    if !ready() {
        return;
    }
    let orthanc = Orthanc::start(None).await;
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", orthanc.pid())).unwrap();
    let wanted = [orthanc.port, orthanc.dicom_port].map(|port| format!(":{port:04X}"));
    let mut seen = 0;
    for line in sockets.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 0A: listening.
        if fields[3] == "0A" && wanted.iter().any(|port| fields[1].ends_with(port.as_str())) {
            assert!(fields[1].starts_with("0100007F:"), "{line}");
            seen += 1;
        }
    }
    assert_eq!(seen, 2, "{sockets}");
}

#[tokio::test]
async fn late_slices_make_a_second_job_that_names_the_first() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (service, orthanc) = both(&url, true, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 6, &[]);
        let (late, first) = slices.split_last().unwrap();
        orthanc.store(first).await;
        segmentations(&orthanc, 1).await;
        let before = service.jobs_over(1).await;
        orthanc.store(std::slice::from_ref(late)).await;
        let found = segmentations(&orthanc, 2).await;
        let uids: BTreeSet<&String> = found.iter().map(|(_, uid)| uid).collect();
        assert_eq!(uids.len(), 2, "another input is another object");
        let jobs = service.jobs_over(2).await;
        assert_eq!(states(&jobs), ["done", "done"]);
        assert_eq!(jobs[0]["predecessor"], before[0]["id"]);
        let report = format!("/api/v1/jobs/{}/result/report.json", jobs[0]["id"].as_str().unwrap());
        assert_eq!(service.json(&report).await.unwrap()["predecessor"], before[0]["id"]);
        // The whole series a third time changes nothing.
        orthanc.store(&slices).await;
        let answer = service
            .stow(&slices, &[("X-Hilum-Series-Complete", "true")])
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(service.jobs().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn late_slices_supersede_a_job_that_is_in_its_network() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc) = apart(&url, false, "").await;
        service.with_slow_network();
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 6);
        let (late, first) = slices.split_last().unwrap();
        assert_eq!(service.stow(first, &WHOLE).await.unwrap().status(), 200);
        let before = service.in_its_network().await["id"].clone();
        let late = std::slice::from_ref(late);
        assert_eq!(service.stow(late, &WHOLE).await.unwrap().status(), 200);
        // Newest first.
        let jobs = service.jobs_over(2).await;
        let states: Vec<_> = jobs.iter().map(|job| job["state"].as_str()).collect();
        assert_eq!(states, [Some("done"), Some("superseded")]);
        assert_eq!((&jobs[0]["predecessor"], &jobs[1]["id"]), (&before, &before));
        let (second, before) = (jobs[0]["id"].as_str().unwrap(), before.as_str().unwrap());
        let job = service.delivered(second).await;
        let report = service.json(&format!("/api/v1/jobs/{second}/result/report.json")).await;
        assert_eq!(report.unwrap()["predecessor"], before);
        let told = column(
            &url,
            "select concat_ws(' ', kind, job_id, detail ->> 'predecessor', detail ->> 'successor') from event
             where kind in ('job_queued', 'job_superseded', 'job_done', 'delivery_planned') order by id",
        )
        .await;
        let wanted = [
            format!("job_queued {before}"),
            format!("job_queued {second} {before}"),
            format!("job_superseded {before} {second}"),
            format!("job_done {second}"),
            format!("delivery_planned {second}"),
        ];
        assert_eq!(told, wanted);
        let found = orthanc.segmentations().await;
        let uids: Vec<_> = found.iter().map(|(_, uid)| uid.as_str()).collect();
        assert_eq!(
            uids,
            [job["segmentation_uid"].as_str().unwrap()],
            "nothing of the first"
        );
        assert!(service.log().contains(&format!("job {before}: it is no longer ours")));
        assert!(!service.data().join("results").join(before).exists());
    })
    .await;
}

#[tokio::test]
async fn slices_whose_pixels_are_broken_are_named_by_their_uids() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        service.with("HILUM_INBOX__QUIET_SECONDS", "60.0");
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 21, &["--slices", "12", "--transfer-syntax", "jpeg_ls"]);
        // One that comes alone in its request, and the first of many.
        let broken = [4, 5].map(|index| {
            let file: &PathBuf = &slices[index];
            let uid = header(file).sop_instance_uid;
            let mut bytes = std::fs::read(file).unwrap();
            let start = bytes.windows(3).position(|three| three == [0xFF, 0xD8, 0xFF]).unwrap();
            bytes[start + 1] = 0;
            std::fs::write(file, bytes).unwrap();
            uid
        });
        let rest = [&slices[5..], &slices[..4]].concat();
        assert_eq!(service.stow(&slices[4..5], &[]).await.unwrap().status(), 200);
        assert_eq!(service.stow(&rest, &WHOLE[..1]).await.unwrap().status(), 200);
        let jobs = service.jobs_over(1).await;
        assert_eq!(states(&jobs), ["refused"], "{jobs:?}");
        let report = format!("/api/v1/jobs/{}/result/report.json", jobs[0]["id"].as_str().unwrap());
        let report = service.json(&report).await.unwrap();
        let finding = &report["verdict"]["findings"][0];
        assert_eq!(finding["code"], "corrupt_pixels", "{report:#}");
        let concerns: Vec<&str> = finding["concerns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap().split_once(": ").unwrap().0)
            .collect();
        assert_eq!(concerns, broken, "{finding:#}");
        let data = service.data();
        for text in [report.to_string(), jobs[0].to_string()] {
            assert!(
                !text.contains(".batch") && !text.contains(data.to_str().unwrap()),
                "{text}"
            );
        }
    })
    .await;
}

/// Two series at once on a slow network: their jobs, listed again and again until what was listed is enough.
async fn two_at_once(
    url: &str,
    folder: &Path,
    memory_bytes: Option<u64>,
    enough: impl Fn(&[Vec<Value>]) -> bool,
) -> Vec<Vec<Value>> {
    let mut service = Service::new(Some(url));
    service.only("receive,work");
    service.with_slow_network();
    if let Some(bytes) = memory_bytes {
        for name in ["HILUM_JOBS__MEMORY_BYTES", "HILUM_SERIES__MAX_MEMORY_BYTES"] {
            service.with(name, &bytes.to_string());
        }
    }
    service.up().await;
    for series in service_support::files(folder) {
        let slices = service_support::files(&series.join("ct"));
        assert_eq!(service.stow(&slices, &WHOLE[..1]).await.unwrap().status(), 200);
    }
    let (begun, mut listed) = (Instant::now(), Vec::new());
    while !enough(&listed) {
        assert!(begun.elapsed() < Duration::from_secs(180), "{:?}", listed.last());
        tokio::time::sleep(Duration::from_millis(100)).await;
        listed.push(service.jobs().await);
    }
    service.kill();
    listed
}

/// Whether the network went on with one job after another one, in hand as well, had come to a stage; a null: it had not begun.
fn went_on_beside(listed: &[Vec<Value>], stage: &Value) -> bool {
    let done = |job: &Value| job["windows_done"].as_i64().unwrap();
    let in_hand = |job: &&Value| job["state"] == "running";
    (0..listed.len()).any(|at| {
        let mut works = listed[at].iter().filter(|job| job["stage"] == "windows");
        works.any(|job| {
            let mut others = listed[at]
                .iter()
                .filter(in_hand)
                .filter(|other| other["id"] != job["id"]);
            let mut later = listed[at..].iter().flatten().filter(|later| later["id"] == job["id"]);
            others.any(|other| other["stage"] == *stage)
                && later.any(|later| later["stage"] == "windows" && done(later) > done(job))
        })
    })
}

#[tokio::test]
async fn the_next_series_is_read_and_resampled_while_the_network_works_where_there_is_memory_for_both() {
    if !ready_without_pacs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let series = [15, 16].map(|seed| folder.path().join(seed.to_string()));
    for (seed, series) in (15..).zip(&series) {
        thin_phantom(series, seed);
    }
    let found = discover(&[series[0].join("ct")], &Limits::default()).unwrap();
    let found = group(found.instances).remove(0);
    let Judgement::Usable(candidate) = judge(&found, &SeriesLimits::default()) else {
        panic!("the phantom is refused");
    };
    let needed = estimated_memory_bytes(candidate.stack(), REFERENCE_GRID_MM);
    // Cropping comes last before the network, which the other one has.
    let [read, resample, crop] = ["read", "resample", "crop"].map(Value::from);
    let (path, folder, last) = (folder.path().to_owned(), folder, crop.clone());
    scratch(|_, url| async move {
        two_at_once(&url, &path, None, |listed| went_on_beside(listed, &last)).await;
    })
    .await;
    scratch(|_, url| async move {
        let listed = two_at_once(&url, folder.path(), Some(needed * 3 / 2), |listed| {
            let jobs = listed.iter().rev().take(1).flatten();
            let begun = jobs.clone().any(|job| job["stage"] == "windows");
            begun && jobs.clone().any(|job| job["state"] == "done")
        })
        .await;
        assert!(went_on_beside(&listed, &Value::Null), "the second one waits for memory");
        for stage in [read, resample, crop] {
            assert!(!went_on_beside(&listed, &stage), "{stage}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_outage_of_the_pacs_delays_the_delivery_and_runs_nothing_again() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (service, mut orthanc) = both(&url, false, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 7, &[]);
        orthanc.down();
        let answer = service.stow(&slices, &WHOLE).await.unwrap();
        assert_eq!(answer.status(), 200);
        let jobs = service.jobs_over(1).await;
        let id = jobs[0]["id"].as_str().unwrap().to_owned();
        eventually("a failed attempt", || async {
            let job = service.json(&format!("/api/v1/jobs/{id}")).await?;
            (job["deliveries"][0]["attempts"].as_i64()? >= 1).then_some(())
        })
        .await;
        orthanc.up().await;
        let found = segmentations(&orthanc, 1).await;
        assert_eq!(found.len(), 1);
        let job = service.json(&format!("/api/v1/jobs/{id}")).await.unwrap();
        assert_eq!(job["attempts"], 1, "{job}");
    })
    .await;
}

#[tokio::test]
async fn polling_finds_what_no_rule_sent_also_after_the_source_was_away() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        let mut orthanc = Orthanc::start(None).await;
        let folder = tempfile::tempdir().unwrap();
        orthanc.store(&phantom(folder.path(), 8, &[])).await;
        orthanc.down();
        service.beside(
            &orthanc,
            "poll = true\npoll_interval_seconds = 1\nlook_back_days = 40000\n",
        );
        service.up().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        orthanc.up().await;
        segmentations(&orthanc, 1).await;
        assert_eq!(states(&service.jobs_over(1).await), ["done"]);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(service.jobs().await.len(), 1, "found once, fetched once");
    })
    .await;
}

#[tokio::test]
async fn the_password_of_a_pacs_never_stands_in_the_log() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        let mut orthanc = Orthanc::start(None).await;
        let native = format!("orthanc_url = \"http://127.0.0.1:{}\"", orthanc.port);
        service.beside(
            &orthanc,
            &format!("poll = true\npoll_interval_seconds = 1\nlook_back_days = 40000\n{native}\n"),
        );
        // All that any library has to say; ONNX Runtime's speaks to no PACS, and much.
        service.with("HILUM_LOG", "trace,ort=warn");
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        orthanc.store(&phantom(folder.path(), 9, &[])).await;
        segmentations(&orthanc, 1).await;
        // Errors speak as well.
        orthanc.down();
        eventually("a failed round of asking", || async {
            service.log().contains("a PACS cannot be asked now").then_some(())
        })
        .await;
        assert!(service.end());
        let log = service.log();
        assert!(log.contains("TRACE"), "{log}");
        let basic = BASE64_STANDARD.encode(format!("hilum:{}", orthanc.password));
        for secret in [&orthanc.password, &basic] {
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None);
        }
    })
    .await;
}

#[tokio::test]
async fn one_chest_in_two_studies_gets_two_segmentations_each_with_its_own_identity() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (_service, orthanc) = both(&url, true, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 9, &[]);
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        let mut copies = Vec::new();
        for (index, slice) in slices.iter().enumerate() {
            let copy = other.join(format!("{index:04}.dcm"));
            std::fs::copy(slice, &copy).unwrap();
            copies.push(copy);
        }
        let changed = Command::new("dcmodify")
            .args([
                "-nb",
                "-q",
                "-m",
                "(0010,0010)=ANONYMOUS",
                "-m",
                "(0010,0020)=ANONYMOUS",
                "-m",
                "(0020,000D)=2.25.111",
                "-m",
                "(0020,000E)=2.25.222",
            ])
            .args(&copies)
            .status()
            .unwrap();
        assert!(changed.success());
        orthanc.store(&slices).await;
        orthanc.store(&copies).await;
        let mut identities = BTreeSet::new();
        for (_, segmentation) in segmentations(&orthanc, 2).await {
            let file = folder.path().join(&segmentation);
            std::fs::write(&file, orthanc.instance(&segmentation).await).unwrap();
            identities.insert(identity(&file));
        }
        let (named, anonymous) = (identity(&slices[0]), identity(&copies[0]));
        assert_eq!(
            (anonymous.0.as_str(), anonymous.1.id.as_str()),
            ("2.25.111", "ANONYMOUS")
        );
        assert_ne!(named.1.id, anonymous.1.id);
        assert_eq!(identities, BTreeSet::from([named, anonymous]));
    })
    .await;
}

/// `hilum submit` to this service, with these arguments.
fn submit(service: &Service, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(["submit", "--url", &format!("http://127.0.0.1:{}", service.port)])
        .args(arguments)
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_submitted_study_is_fetched_from_its_pacs_and_segmented() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (service, orthanc) = both(&url, false, "").await;
        let folder = tempfile::tempdir().unwrap();
        orthanc.store(&phantom(folder.path(), 10, &[])).await;
        let studies = orthanc.get("/dicom-web/studies").await.unwrap();
        let study = service_support::orthanc::uid(&studies[0], "0020000D");
        let submitted = submit(&service, &["--study", &study, "--pacs", "orthanc", "--priority", "3"]);
        assert!(
            submitted.status.success(),
            "{}",
            String::from_utf8_lossy(&submitted.stderr)
        );
        segmentations(&orthanc, 1).await;
        let jobs = service.jobs_over(1).await;
        assert_eq!(
            (states(&jobs), jobs[0]["priority"].as_i64()),
            (vec!["done".to_owned()], Some(3))
        );
        let nowhere = submit(&service, &["--study", &study, "--pacs", "nowhere"]);
        assert!(!nowhere.status.success());
    })
    .await;
}

#[tokio::test]
async fn a_series_submitted_by_its_uid_alone_is_found_at_its_pacs() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (service, orthanc) = both(&url, false, "").await;
        let folder = tempfile::tempdir().unwrap();
        orthanc.store(&phantom(folder.path(), 14, &[])).await;
        let series = orthanc.get("/dicom-web/series").await.unwrap();
        let series = service_support::orthanc::uid(&series[0], "0020000E");
        let submit = |arguments: &[&str]| submit(&service, arguments);
        assert!(!submit(&["--pacs", "orthanc"]).status.success(), "nothing is named");
        assert!(!submit(&["--series", &series]).status.success(), "it was not received");
        let submitted = submit(&["--series", &series, "--pacs", "orthanc"]);
        assert!(
            submitted.status.success(),
            "{}",
            String::from_utf8_lossy(&submitted.stderr)
        );
        segmentations(&orthanc, 1).await;
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs[0]["series"]["series_uid"], series.as_str());
        // Now it is known here, and has its job.
        let known = submit(&["--series", &series]);
        assert!(String::from_utf8_lossy(&known.stdout).contains(jobs[0]["id"].as_str().unwrap()));
    })
    .await;
}

#[tokio::test]
async fn the_fate_of_a_series_is_written_at_it_in_its_orthanc() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc) = apart(&url, true, "").await;
        service.beside(
            &orthanc,
            &format!("orthanc_url = \"http://127.0.0.1:{}\"\n", orthanc.port),
        );
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let [whole, part] = [17, 18].map(|seed| thin_phantom(&folder.path().join(seed.to_string()), seed));
        // An abdomen, 330 mm below the lungs.
        let specification = folder.path().join("abdomen.json");
        std::fs::write(
            &specification,
            r#"{"seed": 3, "spacing_mm": [2.0, 2.0, 5.0], "matrix": [192, 192], "slices": 12, "centre_mm": [0.0, 0.0, -330.0]}"#,
        )
        .unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["phantom", "--specification"])
            .arg(&specification)
            .arg("--out")
            .arg(folder.path().join("abdomen"))
            .status()
            .unwrap();
        assert!(made.success());
        let abdomen = service_support::files(&folder.path().join("abdomen/ct"));
        orthanc.store(&whole).await;
        orthanc.store(&part[..1]).await;
        orthanc.store(&abdomen).await;
        for (slice, fate) in [
            (&whole[0], "done"),
            (&part[0], "refused:too_few_slices"),
            (&abdomen[0], "done:lungs_not_found"),
        ] {
            let series = orthanc.series_path(&header(slice).series_instance_uid).await;
            let metadata = format!("{series}/metadata/{FATE_METADATA}");
            eventually(fate, || async {
                (orthanc.bytes(&metadata).await == fate.as_bytes()).then_some(())
            })
            .await;
        }
    })
    .await;
}

/// Waits until our rule has tried in vain to send a series to a service that is not there.
async fn tried_in_vain(orthanc: &Orthanc) {
    eventually("a failed try", || async {
        orthanc.log().contains("hilum: try 1 failed").then_some(())
    })
    .await;
}

/// An object that is no CT, of a series of its own.
fn no_ct(of: &Path, copy: &Path) {
    std::fs::copy(of, copy).unwrap();
    let changed = Command::new("dcmodify")
        .args(["-nb", "-q", "-gse", "-gin", "-m", "(0008,0060)=MR"])
        .arg(copy)
        .status()
        .unwrap();
    assert!(changed.success());
}

/// It came once, and whole.
async fn came_once(service: &Service, orthanc: &Orthanc, slices: &[PathBuf]) {
    let jobs = service.jobs_over(1).await;
    assert_eq!(states(&jobs), ["done"]);
    assert_eq!(jobs[0]["series"]["instances"], slices.len());
    let mark = format!(
        "{}/metadata/9100",
        orthanc.series_path(&header(&slices[0]).series_instance_uid).await
    );
    assert_eq!(orthanc.bytes(&mark).await, slices.len().to_string().as_bytes());
    assert_eq!(orthanc.log().matches("hilum: sent ").count(), 1);
}

#[tokio::test]
async fn the_rule_tries_again_until_hilum_is_there() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc) = apart(&url, true, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 19);
        orthanc.store(&slices).await;
        tried_in_vain(&orthanc).await;
        service.up().await;
        // Orthanc before 1.11.1 gives rules no timer: where a third try is due, the next thing that happens brings it.
        let other = folder.path().join("other.dcm");
        eventually("the segmentation", || async {
            no_ct(&slices[0], &other);
            orthanc.store(std::slice::from_ref(&other)).await;
            (orthanc.segmentations().await.len() == 1).then_some(())
        })
        .await;
        came_once(&service, &orthanc, &slices).await;
    })
    .await;
}

/// An Orthanc with our rule, in which Lua can be run from outside.
async fn with_lua(service: &Service) -> Orthanc {
    let folder = tempfile::tempdir().unwrap();
    let (ports, password) = ([free_port(), free_port()], secret());
    let configuration = json!({
        "Name": "hilum-test", "StorageDirectory": folder.path().join("db"), "IndexDirectory": folder.path().join("db"),
        "HttpPort": ports[0], "DicomPort": ports[1], "RemoteAccessAllowed": false, "AuthenticationEnabled": true,
        "RegisteredUsers": { "hilum": password }, "StableAge": 1, "ExecuteLuaEnabled": true,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "LuaScripts": [Path::new(env!("CARGO_MANIFEST_DIR")).join("config/orthanc/hilum.lua")],
        "DicomWeb": { "Enable": true, "Root": "/dicom-web/", "Servers": { "hilum": {
            "Url": format!("http://127.0.0.1:{}/dicom-web/", service.port), "Timeout": 600, "HttpHeaders": { "X-Hilum-Source": "orthanc" }
        } } }
    });
    let file = folder.path().join("orthanc.json");
    std::fs::write(&file, configuration.to_string()).unwrap();
    Orthanc::configured(folder, file, ports, password).await
}

/// Runs Lua where the rule runs.
async fn lua(orthanc: &Orthanc, script: &'static str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client
        .post(format!("http://127.0.0.1:{}/tools/execute-script", orthanc.port))
        .basic_auth("hilum", Some(&orthanc.password))
        .body(script);
    let answer = asked.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// What the timer of Orthanc 1.11.1 and later does every `LuaHeartBeatPeriod`.
async fn beat(orthanc: &Orthanc) {
    lua(orthanc, "OnHeartBeat()").await;
}

#[tokio::test]
async fn the_rule_tries_again_by_its_timer_alone() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        let orthanc = with_lua(&service).await;
        service.beside(&orthanc, "");
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 21);
        // From its first beat on, the rule leaves every try after the first to the timer.
        beat(&orthanc).await;
        orthanc.store(&slices).await;
        tried_in_vain(&orthanc).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let second = || orthanc.log().contains("hilum: try 2 failed");
        assert!(!second(), "nothing is tried without a beat");
        eventually("another failed try", || async {
            beat(&orthanc).await;
            second().then_some(())
        })
        .await;
        service.up().await;
        eventually("the segmentation", || async {
            beat(&orthanc).await;
            (orthanc.segmentations().await.len() == 1).then_some(())
        })
        .await;
        beat(&orthanc).await;
        came_once(&service, &orthanc, &slices).await;
        assert_eq!(
            count(&url, "select count(*) from event where kind = 'instances_received'").await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn the_rule_looks_back_a_week_when_orthanc_starts() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        let orthanc = with_lua(&service).await;
        service.beside(&orthanc, "");
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 22);
        // It is not told of the series, and finds it as it would after a restart so many hours later.
        lua(&orthanc, "OnStableSeries = nil").await;
        orthanc.store(&slices).await;
        let later =
            "hours = 169; local clock = os.time; os.time = function() return clock() + hours * 3600 end; Initialize()";
        lua(&orthanc, later).await;
        assert_eq!(orthanc.get("/jobs").await.unwrap(), json!([]));
        lua(&orthanc, "hours = 167; Initialize()").await;
        segmentations(&orthanc, 1).await;
        came_once(&service, &orthanc, &slices).await;
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_orthanc_sends_what_did_not_come_through_and_nothing_twice() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, mut orthanc) = apart(&url, true, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 20);
        orthanc.store(&slices).await;
        tried_in_vain(&orthanc).await;
        // The rule's list of what waits goes with it.
        orthanc.down();
        service.up().await;
        orthanc.up().await;
        segmentations(&orthanc, 1).await;
        came_once(&service, &orthanc, &slices).await;
        orthanc.down();
        orthanc.up().await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        came_once(&service, &orthanc, &slices).await;
        assert_eq!(
            count(&url, "select count(*) from event where kind = 'instances_received'").await,
            1
        );
    })
    .await;
}
