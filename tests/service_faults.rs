//! kill -9 at named points of the real program, and what is there afterwards: the segmentations in a real Orthanc, the rows, the files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use hilum::database::testing::scratch;
use reqwest::Method;
use rustix::process::Signal;
use service_support::held::{known, nothing_is_lost};
use service_support::{
    Orthanc, Service, WHOLE, eventually, free_port, phantom, ready, ready_without_pacs, thin_phantom,
};

/// Lets the service die at a point, starts it again, and expects one job, done, its segmentation in Orthanc and no other, and the slices in the inbox as they were sent.
async fn dies_at(point: &'static str) {
    if !ready() {
        return;
    }
    scratch(move |_, url| async move {
        let mut service = Service::new(Some(&url));
        let orthanc = Orthanc::start(None).await;
        service.beside(&orthanc, "");
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 11, &[]);
        service.with("HILUM_FAILPOINT", point);
        service.up().await;
        let acknowledged = service
            .stow(&slices, &WHOLE)
            .await
            .is_ok_and(|answer| answer.status().is_success());
        service.dies().await;
        service.plain();
        service.up().await;
        if !acknowledged {
            // Nothing was promised: the sender sends again.
            let answer = service.stow(&slices, &WHOLE).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        eventually("the segmentation", || async {
            (!orthanc.segmentations().await.is_empty()).then_some(())
        })
        .await;
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        assert_eq!(jobs[0]["state"], "done");
        let id = jobs[0]["id"].as_str().unwrap().to_owned();
        let job = service.delivered(&id).await;
        let found = orthanc.segmentations().await;
        let found: Vec<_> = found.iter().map(|(_, sop)| Some(sop.as_str())).collect();
        assert_eq!(found, [job["segmentation_uid"].as_str()], "exactly the job's own");
        // What a lost claim left, and what the network made for it, is swept once the network is loaded.
        let results = service.data().join("results").join(&id);
        eventually("only the job's own result is left", || async {
            (service_support::files(&results).len() == 1).then_some(())
        })
        .await;
        assert_eq!(service.inbox_files().len(), 1, "one batch, no garbage");
        nothing_is_lost(&url, &service.data().join("inbox"), &known(&slices)).await;
        service.has_not_panicked();
        assert!(service.end());
    })
    .await;
}

macro_rules! deaths {
    ($($name:ident: $point:literal,)*) => { $(
        #[tokio::test]
        async fn $name() {
            dies_at($point).await;
        }
    )* };
}

deaths! {
    killed_while_an_upload_is_written_nothing_is_lost: "ingest_written",
    killed_after_the_batch_is_synced_nothing_is_lost: "ingest_synced",
    killed_after_an_upload_is_committed_nothing_is_lost: "ingest_committed",
    killed_with_a_claimed_job_it_is_taken_up_again: "job_claimed",
    killed_with_a_prepared_job_it_is_taken_up_again: "job_prepared",
    killed_in_the_windows_the_job_is_taken_up_again: "job_windows",
    killed_after_the_network_the_job_is_taken_up_again: "job_predicted",
    killed_before_results_are_stored_the_job_is_taken_up_again: "job_finished",
    killed_after_results_are_stored_there_is_one_segmentation: "job_stored",
    killed_after_the_job_ended_it_is_delivered: "job_ended",
    killed_before_the_delivery_is_sent_it_is_sent: "delivery_claimed",
    killed_after_the_pacs_took_it_there_is_one_segmentation: "delivery_sent",
}

#[tokio::test]
async fn what_was_acknowledged_right_before_a_kill_is_held_as_it_was_sent() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let folder = tempfile::tempdir().unwrap();
        let mut service = Service::new(Some(&url));
        service.only("receive");
        let inbox = service.data().join("inbox");
        let mut sent = BTreeSet::new();
        for seed in [50, 51, 52, 53] {
            let slices = thin_phantom(&folder.path().join(seed.to_string()), seed);
            sent.extend(known(&slices));
            service.up().await;
            let answer = service.stow(&slices, &WHOLE[..1]).await.unwrap();
            service.kill();
            assert_eq!(answer.status(), 200);
        }
        // Nobody sends again, and what is nobody's is swept.
        service.up().await;
        nothing_is_lost(&url, &inbox, &sent).await;
        assert!(service.end());
        service.only("receive,work");
        service.up().await;
        let jobs = service.jobs_over(4).await;
        assert!(jobs.iter().all(|job| job["state"] == "done"), "{jobs:?}");
        assert_eq!(jobs.len(), 4);
        nothing_is_lost(&url, &inbox, &sent).await;
        assert_eq!(service.inbox_files().len(), 4, "one batch each, no garbage");
        service.has_not_panicked();
        assert!(service.end());
    })
    .await;
}

#[tokio::test]
async fn a_service_whose_pacs_is_away_is_ready() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.configure(&format!(
            "[[pacs]]\nname = \"away\"\nurl = \"http://127.0.0.1:{}/dicom-web\"\npoll = true\npoll_interval_seconds = 1\n",
            free_port()
        ));
        service.up().await;
        eventually("a failed round of asking", || async {
            service.log().contains("a PACS cannot be asked now").then_some(())
        })
        .await;
        eventually("it to be ready", || async {
            let answer = service.ask(Method::GET, "/readyz").send().await.unwrap();
            (answer.status() == 200).then_some(())
        })
        .await;
        assert!(service.end());
    })
    .await;
}

#[tokio::test]
async fn a_failpoint_kills_the_whole_process_group_of_the_program() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.with("HILUM_FAILPOINT", "ingest_written");
        service.up().await;
        // Stands for what the program starts in its group, as decoders.
        let mut beside = Command::new("sleep")
            .arg("1000")
            .process_group(service.pid().as_raw_nonzero().get())
            .spawn()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 13);
        assert!(service.stow(&slices, &WHOLE).await.is_err());
        service.dies().await;
        eventually("the end of the process beside it", || {
            let ended = beside.try_wait().unwrap();
            async move { ended }
        })
        .await;
        assert_eq!(beside.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_freezes_past_its_lease_changes_nothing_when_it_wakes() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let orthanc = Orthanc::start(None).await;
        let mut first = Service::new(Some(&url));
        first.beside(&orthanc, "");
        first.with_slow_network();
        first.up().await;
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 12, &[]);
        assert_eq!(first.stow(&slices, &WHOLE).await.unwrap().status(), 200);
        first.in_its_network().await;
        first.freeze();
        // A second process over the same database and the same files takes the job over.
        let mut second = Service::new(Some(&url));
        second.beside(&orthanc, "");
        second.with_slow_network();
        std::fs::remove_dir_all(second.data()).ok();
        std::os::unix::fs::symlink(first.data(), second.data()).unwrap();
        second.up().await;
        let jobs = second.jobs_over(1).await;
        assert_eq!(jobs[0]["state"], "done");
        assert_eq!(jobs[0]["attempts"], 2);
        let id = jobs[0]["id"].as_str().unwrap();
        let before = second.delivered(id).await;
        assert!(!first.log().contains("it is no longer ours"), "it woke too early");
        first.thaw();
        // It goes on in the middle of its windows, learns that the job is another's, and gives it up.
        eventually("the worker that woke to give up", || async {
            first.log().contains("it is no longer ours").then_some(())
        })
        .await;
        for service in [&mut first, &mut second] {
            service.has_not_panicked();
            assert!(service.end());
        }
        // All that the first one still does is over: what stands is the second one's, and no sweep of a start was needed for it.
        let results = service_support::files(&first.data().join("results").join(id));
        assert_eq!(
            results.len(),
            1,
            "the folder of the claim that ended the job alone: {results:?}"
        );
        assert_eq!(first.inbox_files().len(), 1, "one batch, no garbage");
        first.up().await;
        let job = first.json(&format!("/api/v1/jobs/{id}")).await.unwrap();
        for key in [
            "state",
            "attempts",
            "segmentation_uid",
            "finished_at",
            "deliveries",
            "removed",
        ] {
            assert_eq!(job[key], before[key], "{key}");
        }
        assert_eq!(first.jobs().await.len(), 1);
        let found = orthanc.segmentations().await;
        let found: Vec<_> = found.iter().map(|(_, sop)| Some(sop.as_str())).collect();
        assert_eq!(found, [job["segmentation_uid"].as_str()], "exactly the job's own");
        nothing_is_lost(&url, &first.data().join("inbox"), &known(&slices)).await;
        assert!(first.end());
    })
    .await;
}

#[tokio::test]
async fn a_private_database_that_survived_its_hilum_is_adopted() {
    if !ready() {
        return;
    }
    let mut service = Service::new(None);
    service.up().await;
    service.kill();
    service.up().await;
    assert!(service.json("/api/v1/jobs").await.is_some());
    assert!(service.end(), "{}", service.log());
    let pid = service.data().join("postgres/data/postmaster.pid");
    assert!(!pid.exists(), "the database ended with the service");
}
