//! What Hilum does with a PACS: results delivered and believed only when they are seen, series found and fetched. Against a server with the quirks of others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod quirk_server;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use hilum::config::Settings;
use hilum::database::testing::scratch;
use hilum::database::{Claim, Database, JobEnd, ListedSeries, Operated, PlannedDelivery, withdraw_deliveries};
use hilum::delivery::{self, DeliveryError, DeliverySettings};
use hilum::dicom::Limits;
use hilum::dicom::write_ct::{CtAttribute, CtCoding, CtImage, CtValue, write_ct};
use hilum::dicomweb::{Client, Pacs, SeriesFilters};
use hilum::inbox::{InboxSettings, Ingest, poller};
use quirk_server::{QuirkServer, Served, Stow, Wado};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const STUDY: &str = "1.2.3";
const SERIES: &str = "1.2.3.4";
const RESULT_SERIES: &str = "2.25.8";
const RESULT: &str = "2.25.9";

fn instance(study: &str, series: &str, sop: &str) -> Vec<u8> {
    let text = |group, element, vr: &[u8; 2], value: &str| -> CtAttribute {
        ((group, element), *vr, CtValue::Text(value.into()))
    };
    let attributes = [
        text(0x0008, 0x0016, b"UI", "1.2.840.10008.5.1.4.1.1.2"),
        text(0x0008, 0x0018, b"UI", sop),
        text(0x0008, 0x0060, b"CS", "CT"),
        text(0x0020, 0x000D, b"UI", study),
        text(0x0020, 0x000E, b"UI", series),
    ];
    let image = CtImage {
        attributes: &attributes,
        sop_instance_uid: sop,
        rows: 2,
        columns: 2,
        bits_stored: 16,
        signed: true,
        stored: &[0; 4],
    };
    write_ct(&image, CtCoding::ExplicitLittleEndian).unwrap()
}

fn served(study: &str, series: &str, count: usize) -> Served {
    let instances = (0..count).map(|at| {
        let sop = format!("{series}.{}", at + 1);
        let bytes = instance(study, series, &sop);
        (sop, bytes)
    });
    Served {
        study: study.into(),
        series: series.into(),
        modality: "CT",
        manufacturer: None,
        instances: instances.collect(),
        tells_count: true,
        metadata: json!({}),
    }
}

fn pacs(url: &str, more: &str) -> Pacs {
    toml::from_str(&format!(
        "name = \"one\"\nurl = {url:?}\npoll_interval_seconds = 1\ntimeout_seconds = 20\n{more}"
    ))
    .unwrap()
}

fn settings() -> DeliverySettings {
    DeliverySettings {
        at_once: 2,
        backoff_seconds: 0.2,
        longest_backoff_seconds: 0.4,
        // Longer than any test waits: what they see was told, or was due.
        poll_seconds: 3600.0,
        ..Settings::load(None).unwrap().delivery
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

async fn text(pool: &PgPool, sql: &str) -> String {
    let found: Option<Option<String>> = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_optional(pool)
        .await
        .unwrap();
    found.flatten().unwrap_or_default()
}

async fn number(pool: &PgPool, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(pool)
        .await
        .unwrap()
}

/// A finished job with its segmentation on the disk.
async fn finished_job(pool: &PgPool, folder: &Path, report: Value) -> Uuid {
    let id = Uuid::now_v7();
    std::fs::create_dir_all(folder.join("results")).unwrap();
    std::fs::write(
        folder.join("results/segmentation.dcm"),
        instance(STUDY, RESULT_SERIES, RESULT),
    )
    .unwrap();
    sqlx::query("insert into series (study_uid, series_uid, source, state) values ($1, $2, 'one', 'taken')")
        .bind(STUDY)
        .bind(SERIES)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, report,
             result_folder, segmentation_uid, finished_at)
         select $1, id, '\\x00', 'm', 'd', 'p', 1, 'done', $2, 'results', $3, now() from series",
    )
    .bind(id)
    .bind(report)
    .bind(RESULT)
    .execute(pool)
    .await
    .unwrap();
    id
}

/// The deliveries of a process, to one PACS.
struct Deliveries {
    end: CancellationToken,
    running: JoinHandle<Result<(), DeliveryError>>,
}

impl Deliveries {
    fn begin(database: &Database, folder: &Path, settings: DeliverySettings, block: Pacs) -> Deliveries {
        let end = CancellationToken::new();
        let running = delivery::run(
            database.clone(),
            folder.to_owned(),
            settings,
            vec![block],
            "worker".into(),
            end.clone(),
        );
        Deliveries {
            running: tokio::spawn(running),
            end,
        }
    }

    async fn end(self) {
        self.end.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// Runs the delivery of one finished job against a server with these quirks, until `state` is reached; then `check`.
async fn delivered_with<F: Future<Output = ()>>(
    quirks: &[Stow],
    state: &'static str,
    settings: DeliverySettings,
    check: impl FnOnce(Database, PgPool, QuirkServer, Uuid) -> F,
) {
    let quirks = quirks.to_vec();
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        server.inside().stow.extend(quirks);
        let job = finished_job(&pool, folder.path(), json!({"mask_findings": []})).await;
        let block = pacs(&server.url(), "username = \"hilum\"\npassword = \"word\"");
        let deliveries = Deliveries::begin(&database, folder.path(), settings, block);
        let pool = &pool;
        until(state, || async move {
            text(pool, "select state::text from delivery").await == state
        })
        .await;
        check(database, pool.clone(), server, job).await;
        deliveries.end().await;
        pool.close().await;
    })
    .await;
}

async fn how(pool: &PgPool) -> String {
    text(
        pool,
        "select detail ->> 'how' from event where kind = 'delivery_delivered' order by id desc limit 1",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_and_found_is_delivered_with_its_credentials() {
    delivered_with(&[], "delivered", settings(), |_, pool, server, _| async move {
        assert_eq!(how(&pool).await, "stored");
        assert_eq!(server.inside().stow_requests, 1);
        assert_eq!(server.inside().authorization, ["Basic aGlsdW06d29yZA=="]);
        let kinds = text(&pool, "select string_agg(kind, ' ' order by id) from event").await;
        assert_eq!(kinds, "delivery_planned delivery_sending delivery_delivered");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_does_not_list_it_is_settled_by_asking() {
    delivered_with(
        &[Stow::Silent { kept: true }],
        "delivered",
        settings(),
        |_, pool, server, _| async move {
            assert_eq!(how(&pool).await, "found");
            assert_eq!(server.inside().stow_requests, 1);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_after_which_it_is_not_there_is_no_success() {
    let quirks = [Stow::Listed { kept: false }, Stow::Silent { kept: false }];
    delivered_with(&quirks, "delivered", settings(), |_, pool, server, _| async move {
        assert_eq!(server.inside().stow_requests, 3);
        assert_eq!(
            number(&pool, "select count(*) from event where kind = 'delivery_failed'").await,
            2
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_and_an_empty_answer_are_settled_by_asking() {
    for reason in [45070, 0x0111] {
        let quirks = [Stow::Conflict { reason, kept: true }];
        delivered_with(&quirks, "delivered", settings(), |_, pool, server, _| async move {
            assert_eq!((how(&pool).await.as_str(), server.inside().stow_requests), ("found", 1));
        })
        .await;
    }
    let quirks = [
        Stow::Conflict {
            reason: 45070,
            kept: false,
        },
        Stow::NoContent { kept: false },
        Stow::NoContent { kept: true },
    ];
    delivered_with(&quirks, "delivered", settings(), |_, pool, server, _| async move {
        assert_eq!((how(&pool).await.as_str(), server.inside().stow_requests), ("found", 3));
        let errors = text(
            &pool,
            "select string_agg(detail ->> 'error', '|' order by id) from event where kind = 'delivery_failed'",
        )
        .await;
        assert!(errors.contains("45070") && errors.contains("204"), "{errors}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_is_delivered_at_once_without_polling() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        server.inside().stow.push_back(Stow::Status(503));
        let deliveries = Deliveries::begin(&database, folder.path(), settings(), pacs(&server.url(), ""));
        // All loops have looked, and wait.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let job = finished_job(&pool, folder.path(), json!({"mask_findings": []})).await;
        sqlx::query("update job set state = 'running', token = 1, finished_at = null")
            .execute(&pool)
            .await
            .unwrap();
        let claim = Claim {
            id: job,
            series_id: number(&pool, "select id from series").await,
            study_uid: STUDY.into(),
            series_uid: SERIES.into(),
            token: 1,
            attempt: 1,
            alone: false,
            predecessor: None,
        };
        let done = JobEnd::Done {
            report: json!({"mask_findings": []}),
            result_folder: "results".into(),
            segmentation_uid: Some(RESULT.into()),
        };
        assert!(database.end_job(&claim, "w", &done).await.unwrap());
        let pool = &pool;
        until("delivered", || async move {
            text(pool, "select state::text from delivery").await == "delivered"
        })
        .await;
        assert_eq!(server.inside().stow_requests, 2, "the second one when it was due");
        deliveries.end().await;
        pool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_pacs_gets_it_later() {
    delivered_with(
        &[Stow::Status(503), Stow::Status(503)],
        "delivered",
        settings(),
        |_, pool, server, _| async move {
            assert_eq!(server.inside().stow_requests, 3);
            assert_eq!(number(&pool, "select attempts::bigint from delivery").await, 3);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_delivered_when_it_is_wished_again() {
    let short = DeliverySettings {
        give_up_hours: 0.0,
        ..settings()
    };
    delivered_with(
        &[Stow::Status(500)],
        "given_up",
        short,
        |database, pool, server, job| async move {
            assert!(text(&pool, "select error from delivery").await.contains("500"));
            assert_eq!(
                number(&pool, "select count(*) from event where kind = 'delivery_given_up'").await,
                1
            );
            let again = database.redeliver_job(job, "someone").await.unwrap();
            assert_eq!(again, Operated::Asked);
            let unknown = database.redeliver_job(Uuid::nil(), "someone").await.unwrap();
            assert_eq!(unknown, Operated::Unknown);
            let pool = &pool;
            until("delivered", || async move {
                text(pool, "select state::text from delivery").await == "delivered"
            })
            .await;
            assert_eq!(server.inside().stow_requests, 2);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pacs_that_is_away_gets_it_when_it_is_back() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        let address = server.address;
        drop(server);
        let job = finished_job(&pool, folder.path(), json!({"mask_findings": []})).await;
        let block = pacs(&format!("http://{address}/dicom-web"), "");
        let deliveries = Deliveries::begin(&database, folder.path(), settings(), block);
        let pool = &pool;
        until("a failure", || async move {
            number(pool, "select count(*) from event where kind = 'delivery_failed'").await > 0
        })
        .await;
        assert!(text(pool, "select error from delivery").await.contains("no connection"));
        let server = QuirkServer::start_at(address).await;
        until("delivered", || async move {
            text(pool, "select state::text from delivery").await == "delivered"
        })
        .await;
        assert_eq!(server.inside().stow_requests, 1);
        assert_eq!(
            number(pool, &format!("select count(*) from delivery where job_id = '{job}'")).await,
            1
        );
        deliveries.end().await;
        pool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_implausible_mask_stays_here_and_says_why() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        finished_job(
            &pool,
            folder.path(),
            json!({"mask_findings": [{"code": "sides_uncertain", "sentence": ""}]}),
        )
        .await;
        let deliveries = Deliveries::begin(&database, folder.path(), settings(), pacs(&server.url(), ""));
        let pool = &pool;
        until("planned", || async move {
            number(pool, "select count(*) from job where deliveries_planned").await == 1
        })
        .await;
        assert_eq!(number(pool, "select count(*) from delivery").await, 0);
        assert_eq!(
            text(
                pool,
                "select detail ->> 'why' from event where kind = 'delivery_withheld'"
            )
            .await,
            "sides_uncertain"
        );
        deliveries.end().await;
        pool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_sender_past_its_lease_changes_nothing() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        finished_job(&pool, folder.path(), json!({})).await;
        let job = database.unplanned_jobs(10).await.unwrap().remove(0);
        let planned = PlannedDelivery {
            destination: "one".into(),
            file: "results/segmentation.dcm".into(),
            sop_class_uid: "1.2".into(),
            sop_instance_uid: RESULT.into(),
        };
        assert!(
            database
                .plan_deliveries(&job, std::slice::from_ref(&planned), &[], "a")
                .await
                .unwrap()
        );
        assert!(
            !database.plan_deliveries(&job, &[planned], &[], "b").await.unwrap(),
            "planned twice"
        );
        let frozen = database.claim_delivery("frozen", 0.0).await.unwrap().unwrap();
        let other = database.claim_delivery("other", 60.0).await.unwrap().unwrap();
        assert!(other.token > frozen.token);
        assert!(database.claim_delivery("third", 60.0).await.unwrap().is_none());
        assert!(!database.renew_delivery(&frozen, 60.0).await.unwrap());
        assert!(!database.delivered(&frozen, "frozen", json!({})).await.unwrap());
        assert_eq!(
            database
                .delivery_failed(&frozen, "frozen", "late", 0.0, 0.0)
                .await
                .unwrap(),
            None
        );
        assert_eq!(
            text(&pool, "select state::text || ' ' || worker from delivery").await,
            "sending other"
        );
        assert!(database.renew_delivery(&other, 60.0).await.unwrap());
        let mut transaction = pool.begin().await.unwrap();
        assert_eq!(
            withdraw_deliveries(&mut transaction, job.id, None, "queue")
                .await
                .unwrap(),
            1
        );
        transaction.commit().await.unwrap();
        assert!(!database.delivered(&other, "other", json!({})).await.unwrap());
        assert_eq!(text(&pool, "select state::text from delivery").await, "withdrawn");
        pool.close().await;
    })
    .await;
}

/// Nothing settles but by its count, and nothing is refused for want of room.
fn inbox_settings() -> InboxSettings {
    InboxSettings {
        quiet_seconds: 3600.0,
        count_interval_seconds: 3600.0,
        disk_reserve_bytes: 0,
        disk_watermark: 1.0,
        fetch_backoff_seconds: 1.0,
        ..Settings::load(None).unwrap().inbox
    }
}

/// Runs the poller against a server that is set up by `set_up`, while `check` looks.
async fn polled<F: Future<Output = ()>>(
    more: &'static str,
    set_up: impl FnOnce(&QuirkServer),
    check: impl FnOnce(Database, PgPool, QuirkServer) -> F,
) {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        set_up(&server);
        let ingest = Ingest::open(database.clone(), folder.path(), inbox_settings(), Limits::default()).unwrap();
        let end = CancellationToken::new();
        let running = tokio::spawn(poller::run(
            database.clone(),
            ingest,
            vec![pacs(&server.url(), more)],
            end.clone(),
        ));
        check(database, pool.clone(), server).await;
        end.cancel();
        running.await.unwrap().unwrap();
        pool.close().await;
    })
    .await;
}

async fn settled(pool: &PgPool, series: i64) {
    until("settled", || async move {
        number(
            pool,
            "select count(*) from series where state = 'settled' and settled_by = 'count'",
        )
        .await
            == series
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_asked_for_and_every_series_fetched_once() {
    let set_up = |server: &QuirkServer| {
        let mut inside = server.inside();
        inside.page = 2;
        for at in 1..=5 {
            inside.series.push(served(STUDY, &format!("1.2.3.{at}"), at));
        }
        let mut magnetic = served(STUDY, "1.2.3.77", 3);
        magnetic.modality = "MR";
        inside.series.push(magnetic);
    };
    polled("poll = true", set_up, |_, pool, server| async move {
        settled(&pool, 5).await;
        assert_eq!(number(&pool, "select sum(instances)::bigint from series").await, 15);
        // Two more rounds fetch nothing more.
        let asked = server.inside().series_queries;
        let server = &server;
        until(
            "more rounds",
            || async move { server.inside().series_queries > asked + 8 },
        )
        .await;
        assert_eq!(server.inside().wado_requests, 5);
        assert_eq!(
            number(&pool, "select count(*) from retrieval where state = 'done'").await,
            5
        );
        assert_eq!(text(&pool, "select distinct source from series").await, "one");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_its_closing_boundary_is_taken_up_again_and_nothing_comes_twice() {
    let set_up = |server: &QuirkServer| {
        server.inside().series.push(served(STUDY, SERIES, 4));
        server
            .inside()
            .wado
            .extend([Wado::Unclosed, Wado::Status(503), Wado::Short]);
    };
    polled("poll = true", set_up, |_, pool, server| async move {
        settled(&pool, 1).await;
        assert_eq!(server.inside().wado_requests, 4);
        assert_eq!(number(&pool, "select count(*) from instance").await, 4);
        let pool = &pool;
        until("done", || async move {
            text(pool, "select state::text from retrieval").await == "done"
        })
        .await;
        let errors = text(
            pool,
            "select string_agg(detail ->> 'error', '|' order by id) from event where kind = 'retrieval_put_off'",
        )
        .await;
        for words in ["closing boundary", "503", "3 of 4"] {
            assert!(errors.contains(words), "{errors}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_slices_at_the_pacs_are_fetched() {
    let set_up = |server: &QuirkServer| server.inside().series.push(served(STUDY, SERIES, 3));
    polled("poll = true", set_up, |_, pool, server| async move {
        settled(&pool, 1).await;
        server.inside().series = vec![served(STUDY, SERIES, 4)];
        let pool = &pool;
        until("the fourth slice", || async move {
            number(
                pool,
                "select count(*) from series where state = 'settled' and instances = 4",
            )
            .await
                == 1
        })
        .await;
        assert_eq!(server.inside().wado_requests, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_waits_until_its_count_is_the_same_in_two_answers() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let server = QuirkServer::start().await;
        let block = pacs(&server.url(), "");
        let client = Client::new(&block).unwrap();
        let states = async |count: usize| {
            server.inside().series = vec![served(STUDY, SERIES, count)];
            let looked = poller::look(&database, &client, &block, 0.0).await.unwrap();
            (looked.seen, looked.pending)
        };
        assert_eq!(states(3).await, (1, 0));
        assert_eq!(states(4).await, (1, 0), "it grew");
        assert_eq!(states(4).await, (0, 1));
        assert_eq!(states(4).await, (0, 0), "it is due already");
        let claimed = database.claim_retrieval("one", 0.0, "a").await.unwrap().unwrap();
        let again = database.claim_retrieval("one", 60.0, "b").await.unwrap().unwrap();
        assert!(!database.retrieved(&claimed, 4, "a").await.unwrap(), "past its lease");
        assert!(database.retrieved(&again, 4, "b").await.unwrap());
        assert_eq!(states(4).await, (0, 0), "nothing new");
        assert_eq!(states(5).await, (1, 0), "late slices");
        assert_eq!(states(5).await, (0, 1));
        // Answers that come close together, as from two replicas, count as one.
        let other = ListedSeries {
            study_uid: STUDY.into(),
            series_uid: "1.2.9".into(),
            count: 1,
        };
        for _ in 0..3 {
            let state = database.series_seen("one", &other, 60.0, "a").await.unwrap();
            assert_eq!(state, hilum::database::RetrievalState::Seen);
        }
        pool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_that_has_our_segmentation_is_left_alone() {
    scratch(|database, _| async move {
        let server = QuirkServer::start().await;
        let block = pacs(&server.url(), "");
        let client = Client::new(&block).unwrap();
        let references = |count: usize| {
            let items: Vec<Value> = (0..count)
                .map(|at| json!({"00081155": {"vr": "UI", "Value": [format!("{SERIES}.{at}")]}}))
                .collect();
            json!({"00080070": {"vr": "LO", "Value": ["Hilum"]}, "00081115": {"vr": "SQ", "Value": [
                {"0020000E": {"vr": "UI", "Value": [SERIES]}, "0008114A": {"vr": "SQ", "Value": items}}]}})
        };
        let segmentation = |manufacturer, count| Served {
            modality: "SEG",
            manufacturer: Some(manufacturer),
            metadata: references(count),
            ..served(STUDY, RESULT_SERIES, 1)
        };
        for (other, segmented) in [
            (segmentation("Somebody", 4), 0),
            (segmentation("Hilum", 3), 0),
            (segmentation("Hilum", 4), 1),
        ] {
            server.inside().series = vec![served(STUDY, SERIES, 4), other];
            let looked = poller::look(&database, &client, &block, 3600.0).await.unwrap();
            assert_eq!((looked.listed, looked.segmented), (1, segmented));
        }
        // Metadata was asked for only where the segmentation is ours, and no more once it is known.
        let looked = poller::look(&database, &client, &block, 3600.0).await.unwrap();
        assert_eq!(
            (looked.seen, looked.segmented, server.inside().metadata_requests),
            (0, 0, 2)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wished_study_is_fetched_from_a_pacs_that_is_not_polled() {
    let set_up = |server: &QuirkServer| {
        let mut silent = served(STUDY, SERIES, 3);
        silent.tells_count = false;
        server
            .inside()
            .series
            .extend([silent, served(STUDY, "1.2.3.5", 2), served("1.9", "1.9.1", 2)]);
    };
    polled("", set_up, |database, pool, server| async move {
        let client = Client::new(&pacs(&server.url(), "")).unwrap();
        let rows = poller::request_study(&database, &client, STUDY, 7, "someone")
            .await
            .unwrap();
        assert_eq!(rows.len(), 2);
        settled(&pool, 2).await;
        assert_eq!(number(&pool, "select min(priority)::bigint from series").await, 7);
        assert_eq!(
            number(&pool, "select count(*) from series where study_uid = '1.9'").await,
            0
        );
        // A series that is not there ends in a visible state.
        database
            .request_retrieval("one", STUDY, "1.2.404", 0, "someone")
            .await
            .unwrap();
        let pool = &pool;
        until("failed", || async move {
            text(
                pool,
                "select state::text || ' ' || error from retrieval where series_uid = '1.2.404'",
            )
            .await
            .contains("failed [[pacs]] one: answered 404")
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_a_pacs_lists_is_read_page_by_page() {
    let server = QuirkServer::start().await;
    server.inside().page = 3;
    server.inside().series.push(served(STUDY, SERIES, 8));
    let client = Client::new(&pacs(&server.url(), "")).unwrap();
    assert_eq!(client.search_instances(STUDY, SERIES).await.unwrap().len(), 8);
    assert_eq!(client.series_count(STUDY, SERIES).await.unwrap(), Some(8));
    assert_eq!(client.series_count(STUDY, "1.1").await.unwrap(), None);
    assert!(client.has_instance(STUDY, SERIES, "1.2.3.4.8").await.unwrap());
    assert!(!client.has_instance(STUDY, SERIES, "1.2.3.4.9").await.unwrap());
    assert!(client.series_metadata(STUDY, "1.1").await.unwrap().is_empty());
    assert!(client.retrieve_series(STUDY, "1.1").await.err().unwrap().is_not_found());
    assert_eq!(
        client.search_series(&SeriesFilters::default(), 1, 10).await.unwrap(),
        []
    );
}
