//! Every example of docs/rest.md, run against a real service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::process::Command;

use hilum::database::testing::scratch;
use service_support::{WHOLE, both, eventually, phantom, ready};

/// The lines of the `sh` blocks.
fn examples() -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rest.md")).unwrap();
    let mut examples = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => examples.push(line.to_owned()),
            _ => {}
        }
    }
    examples
}

#[tokio::test]
async fn every_example_of_the_rest_page_works() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (service, orthanc) = both(&url, false, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = phantom(folder.path(), 13, &[]);
        assert_eq!(service.stow(&slices, &WHOLE).await.unwrap().status(), 200);
        let jobs = service.jobs_over(1).await;
        eventually("the delivery", || async {
            (!orthanc.segmentations().await.is_empty()).then_some(())
        })
        .await;
        let job = &jobs[0];
        let wish = serde_json::json!({"study_uid": job["series"]["study_uid"], "pacs": "orthanc"});
        let submitted = service
            .ask(reqwest::Method::POST, "/api/v1/jobs")
            .json(&wish)
            .send()
            .await
            .unwrap();
        let submitted: serde_json::Value = submitted.json().await.unwrap();
        let examples = examples();
        assert!(examples.len() > 15, "{examples:?}");
        for example in examples {
            let streams = example.contains("/events");
            let output = Command::new("sh")
                .args(["-c", &example])
                .current_dir(folder.path())
                .env("HILUM", format!("http://127.0.0.1:{}", service.port))
                .env("JOB", job["id"].as_str().unwrap())
                .env("SERIES", job["series"]["id"].to_string())
                .env("RETRIEVAL", submitted["retrieval"]["id"].to_string())
                .env("SERIES_UID", job["series"]["series_uid"].as_str().unwrap())
                .env("STUDY", job["series"]["study_uid"].as_str().unwrap())
                .output()
                .unwrap();
            // A stream of events is ended by curl's own time limit (28).
            let ended = output.status.success() || (streams && output.status.code() == Some(28));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(ended, "{example}\n{said}");
            let quiet = example.contains(" -o ");
            assert!(quiet || !output.stdout.is_empty(), "{example} answers nothing");
        }
        for name in ["segmentation.dcm", "mask.nii.gz", "overlay.png"] {
            assert!(folder.path().join(name).metadata().unwrap().len() > 100, "{name}");
        }
    })
    .await;
}
