//! Who sends: other people's programs; and many at once to two replicas of the service over one database and one data folder, where each series is held once and segmented
//! once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use hilum::database::testing::scratch;
use serde_json::Value;
use service_support::{Service, both, column, eventually, files, ready, ready_without_pacs, thin_phantom};
use sqlx::{Connection as _, PgConnection};

const COMPLETE: (&str, &str) = ("X-Hilum-Series-Complete", "true");

/// What one sender brings: some slices of a series, so many in a request, to one of the replicas.
struct Sender<'a> {
    replica: &'a Service,
    slices: Vec<PathBuf>,
    at_once: usize,
    says_whole: bool,
}

impl Sender<'_> {
    async fn send(&self) {
        let headers = [COMPLETE];
        let headers = if self.says_whole { &headers[..] } else { &[] };
        for some in self.slices.chunks(self.at_once) {
            loop {
                let answer = self.replica.stow(some, headers).await.unwrap();
                if answer.status() == 200 {
                    break;
                }
                // Turned away for the moment, as too many come at once; anything else is wrong.
                assert_eq!(answer.status(), 503);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// A second process over the same database and the same files.
fn replica(of: &Service, url: &str) -> Service {
    let second = Service::new(Some(url));
    std::os::unix::fs::symlink(of.data(), second.data()).unwrap();
    second
}

/// The kinds of events of a job, with who did them.
async fn events(url: &str, job: &Value) -> Vec<(String, String)> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let id: uuid::Uuid = job["id"].as_str().unwrap().parse().unwrap();
    let events = sqlx::query_as("select kind, actor from event where job_id = $1").bind(id);
    events.fetch_all(&mut connection).await.unwrap()
}

#[tokio::test]
async fn many_senders_to_two_replicas_make_one_job_and_one_result_of_each_series() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut first = Service::new(Some(&url));
        let mut second = replica(&first, &url);
        for service in [&mut first, &mut second] {
            service.only("receive,work");
            service.with("HILUM_JOBS__AT_ONCE", "1");
            // Longer than a busy machine lets a sender wait between two requests.
            service.with("HILUM_INBOX__QUIET_SECONDS", "6.0");
            service.up().await;
        }
        let folder = tempfile::tempdir().unwrap();
        let series: Vec<Vec<PathBuf>> = (51..57)
            .map(|seed| thin_phantom(&folder.path().join(seed.to_string()), seed))
            .collect();
        let number = series[0].len();
        let send = |replica, slices: &[PathBuf], at_once, says_whole| Sender {
            replica,
            slices: slices.to_vec(),
            at_once,
            says_whole,
        };
        let backwards: Vec<PathBuf> = series[3].iter().rev().cloned().collect();
        let doubled: Vec<PathBuf> = series[4]
            .iter()
            .flat_map(|slice| [slice.clone(), slice.clone()])
            .collect();
        let senders = [
            // The same slices, by two senders at the same time.
            send(&first, &series[0], 5, false),
            send(&second, &series[0], 3, false),
            // Two senders that have a part of the series each, some slices in both.
            send(&first, &series[1][..number * 2 / 3], 3, false),
            send(&second, &series[1][number / 3..], 3, false),
            // Three that have it whole, and say so.
            send(&first, &series[2], number, true),
            send(&first, &series[2], number, true),
            send(&second, &series[2], number, true),
            // One by one, from both ends.
            send(&first, &series[3], 1, false),
            send(&second, &backwards, 1, false),
            // Every slice twice in one request.
            send(&second, &doubled, doubled.len(), true),
            // One alone.
            send(&first, &series[5], 4, false),
        ];
        join_all(senders.iter().map(|sender| sender.send())).await;
        let jobs = first.jobs_over(series.len()).await;
        assert_eq!(jobs.len(), series.len(), "{jobs:?}");
        let (mut uids, mut workers) = (BTreeSet::new(), BTreeSet::new());
        for job in &jobs {
            assert_eq!(job["state"], "done", "{job}");
            assert_eq!(job["attempts"], 1, "{job}");
            assert_eq!(job["series"]["instances"], number, "{job}");
            uids.insert(job["series"]["series_uid"].as_str().unwrap());
            let events = events(&url, job).await;
            for kind in ["job_queued", "job_started", "job_done"] {
                assert_eq!(
                    events.iter().filter(|(of, _)| of == kind).count(),
                    1,
                    "{kind}: {events:?}"
                );
            }
            workers.extend(
                events
                    .into_iter()
                    .filter(|(kind, _)| kind == "job_done")
                    .map(|(_, actor)| actor),
            );
            let results = first.data().join("results").join(job["id"].as_str().unwrap());
            assert_eq!(files(&results).len(), 1, "{results:?}");
        }
        assert_eq!(uids.len(), series.len(), "a job for each series");
        assert_eq!(workers.len(), 2, "both replicas worked: {workers:?}");
        let held = first.json("/api/v1/series").await.unwrap();
        let held: u64 = held["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["bytes"].as_u64().unwrap())
            .sum();
        let sent: u64 = series
            .iter()
            .flatten()
            .map(|slice| slice.metadata().unwrap().len())
            .sum();
        assert_eq!(held, sent, "every slice is held once");
        // Sent once more as a whole, to either: nothing happens.
        for (service, slices) in [(&first, &series[0]), (&second, &series[1])] {
            assert_eq!(service.stow(slices, &[COMPLETE]).await.unwrap().status(), 200);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(second.jobs().await.len(), series.len());
        assert!(first.end() && second.end());
    })
    .await;
}

/// A `[[user]]` block as `hilum user add` prints it, and the token of this user.
fn user(name: &str, more: &[&str]) -> (String, String) {
    let made = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(["user", "add", name, "--role", "ingest", "--token"])
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let token = said.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    (said, token)
}

#[tokio::test]
async fn a_segmentation_goes_to_the_pacs_that_the_request_or_else_the_user_names_and_is_not_guessed() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let (gate, of_gate) = user("gate", &["--pacs", "archive"]);
        let (plain, of_plain) = user("plain", &[]);
        // Nobody listens there: the deliveries are decided on, and wait.
        let pacs = |name: &str| {
            format!("[[pacs]]\nname = {name:?}\nurl = \"http://127.0.0.1:9/dicom-web\"\ndeliver = \"all\"\n")
        };
        let two = [pacs("orthanc"), pacs("archive")].concat();
        let one = pacs("archive");
        let mut service = Service::new(Some(&url));
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            // Which blocks, whose token, what the request names; the source, and what becomes of the segmentation.
            (&two, &of_gate, None, "archive", "archive"),
            (&two, &of_gate, Some("orthanc"), "orthanc", "orthanc"),
            (&two, &of_gate, Some("orthnac"), "-", "no_destination"),
            (&two, &of_plain, None, "-", "no_destination"),
            (&two, &of_plain, Some("archive"), "archive", "archive"),
            (&one, &of_plain, None, "-", "no_destination"),
            (&one, &of_gate, None, "archive", "archive"),
        ];
        let mut configured = "";
        for (number, (blocks, token, named, source, goes)) in cases.into_iter().enumerate() {
            if configured != blocks {
                if !configured.is_empty() {
                    assert!(service.end(), "{}", service.log());
                }
                service.configure(&[blocks.as_str(), &gate, "\n", &plain].concat());
                service.up().await;
                configured = blocks;
            }
            let slices = thin_phantom(
                &folder.path().join(number.to_string()),
                81 + u32::try_from(number).unwrap(),
            );
            let bearer = format!("Bearer {token}");
            let mut headers = vec![COMPLETE, ("Authorization", bearer.as_str())];
            headers.extend(named.map(|name| ("X-Hilum-Source", name)));
            assert_eq!(
                service.stow(&slices, &headers).await.unwrap().status(),
                200,
                "case {number}"
            );
            let told = eventually("the segmentation to be decided on", || async {
                let told = column(
                    &url,
                    "select coalesce(source, '-') || ' ' || coalesce(destination, withheld -> 0 ->> 'why') from series
                     join job on job.series_id = series.id left join delivery on delivery.job_id = job.id
                     where deliveries_planned order by job.created_at",
                )
                .await;
                (told.len() > number).then_some(told)
            })
            .await;
            assert_eq!(told[number], format!("{source} {goes}"), "case {number}");
        }
        assert_eq!(
            column(
                &url,
                "select detail ->> 'source' from event where kind = 'source_unknown'"
            )
            .await,
            ["orthnac"]
        );
        assert!(service.end(), "{}", service.log());

        // A name that no block has: nothing starts, and the known ones are told.
        service.configure(&[pacs("orthanc"), gate].concat());
        service.launch();
        assert!(!service.ends_by_itself());
        let log = service.log();
        assert!(
            log.contains("[[user]] gate") && log.contains("there are: orthanc"),
            "{log}"
        );
    })
    .await;
}

#[tokio::test]
async fn the_python_package_dicomweb_client_stores_a_series() {
    if !ready_without_pacs() {
        return;
    }
    let Some(python) = std::env::var_os("HILUM_TEST_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_PYTHON is not set");
        println!("skipped: HILUM_TEST_PYTHON is not set (make test sets up what is missing)");
        return;
    };
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        service.up().await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 61);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/dicomweb_sender.py");
        let sent = Command::new(python)
            .arg(script)
            .arg(format!("http://127.0.0.1:{}/dicom-web", service.port))
            .args(&slices)
            .output()
            .unwrap();
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        let answer: Value = serde_json::from_slice(&sent.stdout).unwrap();
        let referenced = answer["00081199"]["Value"].as_array().unwrap();
        assert_eq!(referenced.len(), slices.len(), "{answer}");
        assert!(answer.get("00081198").is_none(), "nothing failed: {answer}");
        // It says nothing of the series being whole: the quiet does.
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs[0]["state"], "done", "{}", jobs[0]);
        assert_eq!(jobs[0]["series"]["instances"], slices.len());
        assert!(service.end());
    })
    .await;
}

#[tokio::test]
async fn a_c_store_to_orthanc_is_forwarded_and_comes_back_as_a_segmentation() {
    if !ready() {
        return;
    }
    scratch(|_, url| async move {
        let (mut service, orthanc) = both(&url, true, "").await;
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 62);
        let sent = Command::new("storescu")
            .args(["-aec", "PACS", "127.0.0.1", &orthanc.dicom_port.to_string()])
            .args(&slices)
            .output()
            .unwrap();
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        let found = eventually("the segmentation in Orthanc", || async {
            Some(orthanc.segmentations().await).filter(|found| !found.is_empty())
        })
        .await;
        assert_eq!(found.len(), 1);
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs[0]["segmentation_uid"], found[0].1);
        assert_eq!(jobs[0]["series"]["instances"], slices.len());
        assert_eq!(jobs[0]["series"]["source"], "orthanc");
        assert!(service.end());
    })
    .await;
}
