//! kill -9 of the service at random moments while series come in, jobs run and results are delivered to two PACS of different profiles, which answer oddly now and then.
//! `make kills N=1000 SEED=7` does it for longer.
//!
//! Afterwards: every slice that was acknowledged lies in the inbox as it was sent, every series has exactly one finished job for what is held of it, no job was
//! finished twice, each PACS has exactly one segmentation of each finished job in its own profile and nothing else, and no file is nobody's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod quirk_server;
mod service_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hilum::database::testing::scratch;
use hilum::dicom::{Limits, Source, read_header};
use quirk_server::{QuirkServer, Stow};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use reqwest::Client;
use serde_json::Value;
use service_support::held::{Known, no_file_is_nobodys, nothing_is_lost};
use service_support::{Service, column, count, eventually, ready_without_pacs, rows, thin_phantom};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use tokio::time::sleep;

/// For so long the work that is left may stay as it is before it counts as stuck.
const STANDSTILL: Duration = Duration::from_secs(180);
/// Kills where the environment names no other number.
const KILLS: u64 = 10;
/// A new series comes once in so many lives of the service.
const LIVES_PER_SERIES: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A number below another one.
fn below(random: &mut ChaCha8Rng, most: u64) -> u64 {
    random.next_u64() % most
}

/// A phantom from which series of other UIDs are made.
struct Origin {
    uid: String,
    slices: Vec<(String, Vec<u8>)>,
}

impl Origin {
    fn new(folder: &Path) -> Origin {
        let mut uid = String::new();
        let slices = thin_phantom(folder, 41).into_iter().map(|path| {
            let source = Source::of_file(&path).unwrap();
            let header = read_header(&source, &Limits::default()).unwrap().header;
            uid = header.series_instance_uid;
            (header.sop_instance_uid, std::fs::read(path).unwrap())
        });
        let slices = slices.collect();
        Origin { uid, slices }
    }

    /// The same chest under another SeriesInstanceUID of the same length: its slices, and what is known of them.
    fn series(&self, number: u64) -> (Vec<Vec<u8>>, Vec<Known>) {
        let digits = format!("{number:06}");
        let uid = format!("{}{digits}", &self.uid[..self.uid.len() - digits.len()]);
        let slices = self.slices.iter().map(|(sop, bytes)| {
            let mut bytes = bytes.clone();
            let places: Vec<usize> = memchr::memmem::find_iter(&bytes, self.uid.as_bytes()).collect();
            assert!(!places.is_empty());
            for at in places {
                bytes[at..at + uid.len()].copy_from_slice(uid.as_bytes());
            }
            let digest = Sha256::digest(&bytes).to_vec();
            (bytes, (uid.clone(), sop.clone(), digest))
        });
        slices.unzip()
    }
}

/// Sends a series in requests of some slices each, every one again and again until it is acknowledged; the last one says that it is whole.
async fn send(address: String, mut left: Vec<Vec<u8>>, mut random: ChaCha8Rng) {
    let client = Client::builder().no_proxy().build().unwrap();
    while !left.is_empty() {
        let most = left.len().min(1 + below(&mut random, 5) as usize);
        let some: Vec<_> = left.drain(..most).collect();
        let mut body = Vec::new();
        for bytes in &some {
            body.extend_from_slice(b"--kills\r\nContent-Type: application/dicom\r\n\r\n");
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--kills--");
        let kind = "multipart/related; type=\"application/dicom\"; boundary=kills";
        let complete = if left.is_empty() { "true" } else { "false" };
        loop {
            let request = client.post(&address).header("Content-Type", kind);
            let request = request.header("X-Hilum-Series-Complete", complete);
            match request.body(body.clone()).send().await {
                Ok(answer) if answer.status() == 200 => break,
                Ok(answer) => assert!(answer.status().is_server_error(), "{}", answer.status()),
                Err(_) => {}
            }
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(below(&mut random, 400))).await;
    }
}

/// Series and jobs that are not over.
const OPEN: &str = "select (select count(*) from series where state in ('receiving', 'settled'))
     + (select count(*) from job where state in ('queued', 'running') or state = 'done' and not deliveries_planned)";
/// Deliveries that are not over.
const UNDER_WAY: &str = "select count(*) from delivery where state in ('pending', 'sending')";

/// Waits until something is being delivered, or nothing is to be; some seconds at the most.
async fn delivers(url: &str) {
    for _ in 0..400 {
        if count(url, UNDER_WAY).await > 0 || count(url, OPEN).await == 0 {
            return;
        }
        sleep(Duration::from_millis(25)).await;
    }
}

/// Waits until nothing is left to do, however long that takes, as long as it becomes less.
async fn all_over(url: &str) {
    let (mut least, mut since) = (i64::MAX, Instant::now());
    loop {
        // A job becomes two deliveries, so it counts for more than both.
        let (open, under_way) = (count(url, OPEN).await, count(url, UNDER_WAY).await);
        let left = 3 * open + under_way;
        if left == 0 {
            return;
        }
        if left < least {
            (least, since) = (left, Instant::now());
        }
        assert!(
            since.elapsed() < STANDSTILL,
            "{open} series and jobs and {under_way} deliveries stay open"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Every series has one job for what is held of it, and it is done; none was done twice.
async fn every_series_has_its_result(url: &str, series: usize) {
    let current = rows(
        url,
        "select series_uid, job.state::text as state, (select count(*) from event where kind = 'job_done' and job_id = job.id) as done
         from series left join job on series_id = series.id and series_revision = revision",
    )
    .await;
    let states: Vec<(String, Option<String>, i64)> =
        current.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(states.len(), series, "{states:?}");
    assert!(
        states
            .iter()
            .all(|(_, state, done)| state.as_deref() == Some("done") && *done == 1),
        "{states:?}"
    );
    let twice = "select count(*) from (select job_id from event where kind = 'job_done' group by job_id having count(*) > 1) as twice";
    assert_eq!(count(url, twice).await, 0, "no job is done twice");
}

/// Two PACS of different profiles; every result goes to both.
struct Destinations {
    full: QuirkServer,
    sparse: QuirkServer,
}

impl Destinations {
    async fn of(service: &mut Service) -> Destinations {
        let (full, sparse) = (QuirkServer::start().await, QuirkServer::start().await);
        for server in [&full, &sparse] {
            server.inside().stow_wait = Duration::from_millis(200);
        }
        service.configure(&format!(
            "[[pacs]]\nname = \"full\"\nurl = {:?}\ncount = false\nframes = \"full\"\n[[pacs]]\nname = \"sparse\"\nurl = {:?}\ncount = false\nframes = \"sparse\"\n",
            full.url(),
            sparse.url()
        ));
        service.with("HILUM_DELIVERY__ALWAYS_TO", "[\"full\",\"sparse\"]");
        service.with("HILUM_DELIVERY__LEASE_SECONDS", "3.0");
        Destinations { full, sparse }
    }

    /// Lets the next answers of one of them be odd.
    fn be_odd(&self, random: &mut ChaCha8Rng) {
        let server = if below(random, 2) == 0 {
            &self.full
        } else {
            &self.sparse
        };
        let odd = [
            Stow::Silent { kept: true },
            Stow::Silent { kept: false },
            Stow::Listed { kept: false },
            Stow::Conflict {
                reason: 45070,
                kept: true,
            },
            Stow::NoContent { kept: true },
            Stow::Status(503),
            Stow::KeptThen(503),
            Stow::BrokenOff,
            Stow::Half,
            Stow::AskedInVain,
        ];
        server
            .inside()
            .stow
            .push_back(odd[below(random, odd.len() as u64) as usize]);
    }

    /// Each has one segmentation of every finished job, which its delivery names, and nothing else.
    async fn have_one_of_every_job(&self, url: &str) {
        assert_eq!(
            count(url, "select count(*) from delivery where state <> 'delivered'").await,
            0
        );
        let twice = "select count(*) from (select delivery_id from event where kind = 'delivery_delivered' group by delivery_id having count(*) > 1) as twice";
        assert_eq!(count(url, twice).await, 0, "nothing is delivered twice");
        let jobs = count(url, "select count(*) from job where state = 'done'").await as usize;
        let full = "select sop_instance_uid from delivery join job on job.id = job_id where destination = 'full' and job.state = 'done'";
        let sparse = "select sop_instance_uid from delivery join job on job.id = job_id where destination = 'sparse' and job.state = 'done'";
        for (server, planned) in [(&self.full, full), (&self.sparse, sparse)] {
            let planned: BTreeSet<String> = column(url, planned).await.into_iter().collect();
            let mut there: Vec<String> = Vec::new();
            for series in &server.inside().series {
                there.extend(series.instances.iter().map(|(uid, _)| uid.clone()));
            }
            assert_eq!((there.len(), planned.len()), (jobs, jobs));
            assert_eq!(there.into_iter().collect::<BTreeSet<_>>(), planned);
        }
    }
}

#[tokio::test]
async fn random_kills_lose_nothing_and_finish_nothing_twice() {
    if !ready_without_pacs() {
        return;
    }
    let kills = number("HILUM_KILLS").unwrap_or(KILLS);
    let seed = number("HILUM_KILLS_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    println!("{kills} kills, HILUM_KILLS_SEED={seed}");
    scratch(move |_, url| async move {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::new(folder.path());
        let mut service = Service::new(Some(&url));
        let destinations = Destinations::of(&mut service).await;
        service.with("HILUM_JOBS__LEASE_SECONDS", "3.0");
        let address = format!("http://127.0.0.1:{}/dicom-web/studies", service.port);
        let (mut series, mut sent, mut senders) = (0, BTreeSet::new(), tokio::task::JoinSet::new());
        let mut sending = 0;
        for life in 0..kills {
            if life % LIVES_PER_SERIES == 0 {
                let (slices, known) = origin.series(life);
                series += 1;
                sent.extend(known);
                senders.spawn(send(
                    address.clone(),
                    slices,
                    ChaCha8Rng::seed_from_u64(random.next_u64()),
                ));
            }
            if below(&mut random, 2) == 0 {
                destinations.be_odd(&mut random);
            }
            // While it starts, while it delivers, or some time after its start.
            match below(&mut random, 5) {
                0 => {
                    service.launch();
                    sleep(Duration::from_millis(below(&mut random, 800))).await;
                }
                1 | 2 => {
                    service.up().await;
                    delivers(&url).await;
                    sleep(Duration::from_millis(below(&mut random, 400))).await;
                }
                _ => {
                    service.up().await;
                    sleep(Duration::from_millis(below(&mut random, 3500))).await;
                }
            }
            service.kill();
            sending += i64::from(count(&url, "select count(*) from delivery where state = 'sending'").await > 0);
        }
        println!("{sending} of them left a delivery under way");
        service.up().await;
        while let Some(ended) = senders.join_next().await {
            ended.unwrap();
        }
        all_over(&url).await;
        // A job whose worker died again and again is given up, and says so; a user tries it again.
        let given_up = rows(
            &url,
            "select id::text, error_code, deaths from job where state = 'failed'",
        )
        .await;
        println!("{series} series, {} jobs given up after deaths", given_up.len());
        for job in &given_up {
            assert_eq!(job.get::<String, _>(1), "worker_lost");
            assert!(job.get::<i32, _>(2) > 2);
            let again = service
                .post(&format!("/api/v1/jobs/{}/retry", job.get::<String, _>(0)))
                .await;
            // 409: more slices came, so another job has taken its place.
            assert!([200, 409].contains(&again.status().as_u16()), "{}", again.status());
        }
        all_over(&url).await;
        every_series_has_its_result(&url, series).await;
        destinations.have_one_of_every_job(&url).await;
        nothing_is_lost(&url, &service.data().join("inbox"), &sent).await;
        assert!(service.end(), "{}", service.log());
        service.up().await;
        no_file_is_nobodys(&url, &service).await;
        service.has_not_panicked();
        assert!(service.end());
    })
    .await;
}

#[tokio::test]
async fn results_that_a_killed_worker_left_are_swept_at_the_next_start() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 42);
        let (late, first) = slices.split_last().unwrap();
        let whole = [("X-Hilum-Series-Complete", "true")];
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        service.with("HILUM_FAILPOINT", "job_stored");
        service.up().await;
        assert_eq!(service.stow(first, &whole).await.unwrap().status(), 200);
        service.dies().await;
        // A slice more: the job whose worker died is superseded, so nobody takes it up, nor cleans up after it.
        service.plain();
        service.only("receive");
        service.up().await;
        let late = std::slice::from_ref(late);
        assert_eq!(service.stow(late, &whole).await.unwrap().status(), 200);
        assert!(service.end());
        service.only("receive,work");
        service.up().await;
        let jobs = service.jobs_over(2).await;
        let states: Vec<_> = jobs.iter().map(|job| job["state"].as_str()).collect();
        assert_eq!(states, [Some("done"), Some("superseded")]);
        assert!(service.end());
        service.up().await;
        no_file_is_nobodys(&url, &service).await;
        assert_eq!(
            count(&url, "select count(*) from job where result_folder is not null").await,
            1
        );
        assert!(service.end());
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_worker_dies_again_and_again_ends_worker_lost_until_it_is_tried_again() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 43);
        let mut service = Service::new(Some(&url));
        service.only("receive");
        service.up().await;
        let answer = service.stow(&slices, &[("X-Hilum-Series-Complete", "true")]).await;
        assert_eq!(answer.unwrap().status(), 200);
        assert!(service.end());
        service.only("receive,work");
        service.with("HILUM_JOBS__LEASE_SECONDS", "2.0");
        service.with("HILUM_FAILPOINT", "job_prepared");
        for _ in 0..3 {
            service.launch();
            service.dies().await;
        }
        service.plain();
        service.up().await;
        let jobs = service.jobs_over(1).await;
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        assert_eq!(jobs[0]["state"], "failed", "{jobs:?}");
        assert_eq!(jobs[0]["error"]["code"], "worker_lost", "{jobs:?}");
        // What was at fault is mended.
        let id = jobs[0]["id"].as_str().unwrap();
        assert_eq!(service.post(&format!("/api/v1/jobs/{id}/retry")).await.status(), 200);
        let jobs = eventually("the job to be done", || async {
            let jobs = service.jobs().await;
            (jobs[0]["state"] == "done").then_some(jobs)
        })
        .await;
        assert_eq!(jobs.len(), 1);
        assert!(service.end());
    })
    .await;
}

/// Sends a thin phantom of this seed to a service that dies at `job_predicted` where it is to die, changes what was kept by `spoil`, and waits for the job of the next life: the
/// windows of its report, and its segmentation.
async fn after_a_death(seed: u32, dies: bool, spoil: fn(&mut Vec<u8>)) -> (Value, Vec<u8>) {
    let (told, hears) = tokio::sync::oneshot::channel();
    scratch(move |_, url| async move {
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), seed);
        let mut service = Service::new(Some(&url));
        service.only("receive,work");
        service.with("HILUM_JOBS__LEASE_SECONDS", "2.0");
        if dies {
            service.with("HILUM_FAILPOINT", "job_predicted");
        }
        service.up().await;
        let answer = service.stow(&slices, &[("X-Hilum-Series-Complete", "true")]).await;
        assert_eq!(answer.unwrap().status(), 200);
        if dies {
            service.dies().await;
            let kept: Vec<PathBuf> = service_support::files(&service.data().join("results"))
                .into_iter()
                .map(|job| job.join("prediction"))
                .collect();
            let mut bytes = std::fs::read(&kept[0]).unwrap();
            spoil(&mut bytes);
            std::fs::write(&kept[0], bytes).unwrap();
            service.plain();
            service.up().await;
        }
        let jobs = service.jobs_over(1).await;
        assert_eq!((jobs.len(), &jobs[0]["state"]), (1, &Value::from("done")), "{jobs:?}");
        assert_eq!(jobs[0]["attempts"], 1 + i32::from(dies));
        let result = format!("/api/v1/jobs/{}/result", jobs[0]["id"].as_str().unwrap());
        let report = service.json(&format!("{result}/report.json")).await.unwrap();
        let segmentation = service.get(&format!("{result}/segmentation.dcm")).await.unwrap();
        let segmentation = segmentation.bytes().await.unwrap().to_vec();
        no_file_is_nobodys(&url, &service).await;
        assert!(service.end());
        told.send((report["windows"].clone(), segmentation)).unwrap();
    })
    .await;
    hears.await.unwrap()
}

#[tokio::test]
async fn a_worker_that_dies_after_the_network_does_not_cost_its_work_again() {
    if !ready_without_pacs() {
        return;
    }
    let (whole, undisturbed) = after_a_death(44, false, |_| {}).await;
    assert!(whole["run"].as_u64().unwrap() > 0 && whole["reused"] == 0, "{whole}");
    let (second, segmentation) = after_a_death(44, true, |_| {}).await;
    assert_eq!((&second["run"], &second["reused"]), (&Value::from(0), &whole["run"]));
    assert_eq!(
        (&second["total"], &second["skipped"]),
        (&whole["total"], &whole["skipped"])
    );
    assert!(segmentation == undisturbed, "the same segmentation");
    // What is not as it was written is not used.
    let (again, segmentation) = after_a_death(44, true, |kept| kept[200] ^= 1).await;
    assert_eq!((&again["run"], &again["reused"]), (&whole["run"], &Value::from(0)));
    assert!(segmentation == undisturbed, "the same segmentation");
}
