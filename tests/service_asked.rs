//! What people ask of a service at work: to leave a job, to pause, to take a whole study from Orthanc's own sender.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hilum::database::testing::scratch;
use reqwest::Method;
use serde_json::{Value, json};
use service_support::{
    Orthanc, Service, WHOLE, apart, column, eventually, ready, ready_without_pacs, segmentations, thin_phantom,
};

/// The state of a job.
async fn state(service: &Service, id: &str) -> String {
    let job = service.json(&format!("/api/v1/jobs/{id}")).await.unwrap();
    job["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_in_its_network_is_canceled_within_a_window_and_leaves_nothing() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        service.with_slow_network();
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let stored = service.stow(&thin_phantom(&first, 31), &WHOLE).await;
        assert!(stored.unwrap().status().is_success());
        let job = service.in_its_network().await;
        let id = job["id"].as_str().unwrap();
        let asked = Instant::now();
        assert_eq!(service.post(&format!("/api/v1/jobs/{id}/cancel")).await.status(), 202);
        eventually("the job to be canceled", || async {
            (state(&service, id).await == "canceled").then_some(())
        })
        .await;
        // A window of the small network takes a second at most on one busy core; the whole would take a minute.
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        // It is at an end inside too: the next series is taken up.
        service.end();
        service.plain();
        service.up().await;
        let stored = service.stow(&thin_phantom(&second, 32), &WHOLE).await;
        assert!(stored.unwrap().status().is_success());
        let jobs = service.jobs_over(2).await;
        let states: Vec<_> = jobs.iter().map(|job| job["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["done", "canceled"], "newest first");
        assert!(!service.data().join("results").join(id).exists());
        assert_eq!(
            column(&url, "select destination from delivery").await,
            Vec::<String>::new()
        );
        let told = column(&url, "select kind from event where kind like 'job_%' order by id").await;
        let wanted = [
            "job_queued",
            "job_started",
            "job_canceled",
            "job_queued",
            "job_started",
            "job_done",
        ];
        let told: Vec<_> = told.iter().filter(|kind| wanted.contains(&kind.as_str())).collect();
        assert_eq!(told, wanted);
    })
    .await;
}

#[tokio::test]
async fn pausing_and_resuming_the_queue_is_honoured_at_once() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        // What is seen sooner was told, and not found by looking.
        service.with("HILUM_JOBS__POLL_SECONDS", "60");
        service.up().await;
        assert_eq!(service.post("/api/v1/queue/pause").await.status(), 200);
        let folder = tempfile::tempdir().unwrap();
        let stored = service.stow(&thin_phantom(folder.path(), 33), &WHOLE).await;
        assert!(stored.unwrap().status().is_success());
        let job = eventually("a job", || async { service.jobs().await.into_iter().next() }).await;
        let id = job["id"].as_str().unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(state(&service, id).await, "queued");
        let resumed = Instant::now();
        assert_eq!(service.post("/api/v1/queue/resume").await.status(), 200);
        eventually("the job to start", || async {
            (state(&service, id).await != "queued").then_some(())
        })
        .await;
        assert!(resumed.elapsed() < Duration::from_secs(5), "{:?}", resumed.elapsed());
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs[0]["state"], "done");
        assert_eq!(jobs[0]["attempts"], 1);
    })
    .await;
}

/// An MR image of the study that a slice is of.
fn of_another_kind(slice: &Path, copy: PathBuf) -> PathBuf {
    std::fs::copy(slice, &copy).unwrap();
    let changed = Command::new("dcmodify")
        .args([
            "-nb",
            "-q",
            "-gse",
            "-gin",
            "-m",
            "(0008,0060)=MR",
            "-m",
            "(0008,0016)=1.2.840.10008.5.1.4.1.1.4",
        ])
        .arg(&copy)
        .status()
        .unwrap();
    assert!(changed.success());
    copy
}

/// Lets Orthanc send a study whole to the service, by its own sender; how its job ended.
async fn sent(orthanc: &Orthanc, study: &str) -> Value {
    let asked = json!({ "Resources": [study], "Synchronous": false });
    let begun = orthanc
        .send(Method::POST, "/dicom-web/servers/hilum/stow", &asked)
        .await;
    let path = format!("/jobs/{}", begun["ID"].as_str().unwrap());
    eventually("Orthanc's job to end", || async {
        let job = orthanc.get(&path).await?;
        matches!(job["State"].as_str(), Some("Success" | "Failure")).then_some(job)
    })
    .await
}

#[tokio::test]
async fn orthanc_sends_whole_studies_with_whatever_is_in_them_and_our_own_answer_again() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc) = apart(&url, false, "").await;
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let mut files = thin_phantom(folder.path(), 34);
        files.push(of_another_kind(&files[0], folder.path().join("mr.dcm")));
        orthanc.store(&files).await;
        let server = json!({
            "Url": format!("http://127.0.0.1:{}/dicom-web/", service.port), "Timeout": 600, "HttpHeaders": { "X-Hilum-Source": "orthanc" }
        });
        orthanc.send(Method::PUT, "/dicom-web/servers/hilum", &server).await;
        let studies = orthanc.get("/studies").await.unwrap();
        let study = studies[0].as_str().unwrap();

        let job = sent(&orthanc, study).await;
        assert_eq!(job["State"], "Success", "{job}\n{}", orthanc.log());
        assert_eq!(segmentations(&orthanc, 1).await.len(), 1);
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs[0]["series"]["instances"], files.len() - 1);
        assert_eq!(jobs[0]["state"], "done");

        // Everything is there already, and a segmentation of ours lies in the study by now.
        let job = sent(&orthanc, study).await;
        assert_eq!(job["State"], "Success", "{job}\n{}", orthanc.log());
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(service.jobs().await.len(), 1);
        let metrics = service.get("/metrics").await.unwrap().text().await.unwrap();
        let counted = |outcome: &str| -> usize {
            let line = format!("hilum_instances_total{{outcome=\"{outcome}\"}} ");
            let found = metrics.lines().find_map(|counter| counter.strip_prefix(&line));
            found.unwrap_or_else(|| panic!("no {line}\n{metrics}")).parse().unwrap()
        };
        // The MR image twice, and the segmentation.
        assert_eq!(counted("dropped"), 3);
        assert_eq!(counted("new"), files.len() - 1);
        assert!(service.end(), "{}", service.log());
    })
    .await;
}

#[tokio::test]
async fn a_job_that_meets_a_fault_of_the_world_waits_and_is_failed_when_its_attempts_are_used_up() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        for (name, value) in [
            ("MAX_ATTEMPTS", "2"),
            ("BACKOFF_SECONDS", "0.1"),
            ("LONGEST_BACKOFF_SECONDS", "0.2"),
        ] {
            service.with(&format!("HILUM_JOBS__{name}"), value);
        }
        // Results cannot be stored, as on a disk that is full.
        std::fs::create_dir_all(service.data()).unwrap();
        let results = service.data().join("results");
        std::fs::write(&results, "in the way").unwrap();
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let stored = service.stow(&thin_phantom(folder.path(), 33), &WHOLE).await;
        assert!(stored.unwrap().status().is_success());
        let job = service.jobs_over(1).await.remove(0);
        let id = job["id"].as_str().unwrap();
        let job = service.json(&format!("/api/v1/jobs/{id}")).await.unwrap();
        assert_eq!(job["state"], "failed", "{job:#}");
        assert!(job.to_string().contains("attempts_used_up"), "{job:#}");
        assert!(job.to_string().contains("(after 2 attempts)"), "{job:#}");
        let told = column(&url, "select kind from event where kind like 'job_%' order by id").await;
        assert_eq!(
            told,
            [
                "job_queued",
                "job_started",
                "job_handed_back",
                "job_started",
                "job_failed"
            ]
        );

        std::fs::remove_file(&results).unwrap();
        assert_eq!(service.post(&format!("/api/v1/jobs/{id}/retry")).await.status(), 200);
        eventually("the job to end", || async {
            (state(&service, id).await == "done").then_some(())
        })
        .await;
        service.has_not_panicked();
    })
    .await;
}
