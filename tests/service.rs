//! The whole: a series in a real Orthanc, our rule, `hilum serve`, and the segmentation back in Orthanc; and what happens on the days that are not sunny.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hilum::database::testing::scratch;
use serde_json::Value;
use service_support::{Orthanc, Service, WHOLE, both, eventually, phantom, ready};

/// A validator's complaints about files.
fn complaints(program: &str, files: &[PathBuf]) -> Vec<String> {
    let output = Command::new(program).args(files).output().unwrap();
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.starts_with("Error"))
        .map(str::to_owned)
        .collect()
}

async fn segmentations(orthanc: &Orthanc, number: usize) -> Vec<(String, String)> {
    eventually(&format!("{number} segmentations in Orthanc"), || async {
        let found = orthanc.segmentations().await;
        (found.len() >= number).then_some(found)
    })
    .await
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
        let job = eventually("the delivery", || async {
            let job = service.json(&format!("/api/v1/jobs/{id}")).await?;
            (job["deliveries"][0]["state"] == "delivered").then_some(job)
        })
        .await;
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
        assert!(
            metrics.contains(&format!("hilum_windows_total {windows}\n")),
            "{metrics}"
        );
        // The segmentation went back to Orthanc, became stable there, and started nothing.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
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
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        assert_eq!(service.jobs().await.len(), 2);
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
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        orthanc.up().await;
        segmentations(&orthanc, 1).await;
        assert_eq!(states(&service.jobs_over(1).await), ["done"]);
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
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
        let found = segmentations(&orthanc, 2).await;
        let studies: BTreeSet<&String> = found.iter().map(|(study, _)| study).collect();
        assert_eq!(studies.len(), 2);
        assert!(studies.contains(&"2.25.111".to_owned()));
    })
    .await;
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
        let address = format!("http://127.0.0.1:{}", service.port);
        let submitted = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args([
                "submit",
                "--study",
                &study,
                "--pacs",
                "orthanc",
                "--priority",
                "3",
                "--url",
                &address,
            ])
            .output()
            .unwrap();
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
        let nowhere = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["submit", "--study", &study, "--pacs", "nowhere", "--url", &address])
            .output()
            .unwrap();
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
        let address = format!("http://127.0.0.1:{}", service.port);
        let submit = |arguments: &[&str]| {
            let program = Command::new(env!("CARGO_BIN_EXE_hilum"))
                .args(["submit", "--url", &address])
                .args(arguments)
                .output();
            program.unwrap()
        };
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
