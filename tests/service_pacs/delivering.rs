//! Results delivered, and believed only when they are seen.

use super::*;

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

/// The deliveries of a process.
struct Deliveries {
    end: CancellationToken,
    running: JoinHandle<Result<(), DeliveryError>>,
}

impl Deliveries {
    fn begin(database: &Database, folder: &Path, settings: DeliverySettings, block: Pacs) -> Deliveries {
        Deliveries::to(database, folder, settings, vec![block])
    }

    fn to(database: &Database, folder: &Path, settings: DeliverySettings, blocks: Vec<Pacs>) -> Deliveries {
        let end = CancellationToken::new();
        let running = delivery::run(
            database.clone(),
            folder.to_owned(),
            settings,
            blocks,
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

/// Waits until a delivery has failed.
async fn a_failure(pool: &PgPool) {
    let failed = || async move { number(pool, "select count(*) from event where kind = 'delivery_failed'").await > 0 };
    until("a failure", failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_and_found_is_delivered_with_its_credentials() {
    delivered_with(&[], "delivered", settings(), |_, pool, server, _| async move {
        assert_eq!(how(&pool).await, "stored");
        assert_eq!(server.inside().stow_requests, 1);
        let asked = server.inside().asked.clone();
        assert!(asked.iter().any(|(method, _, _)| method == "POST"));
        for (method, path, authorization) in asked {
            assert_eq!(
                authorization.as_deref(),
                Some("Basic aGlsdW06d29yZA=="),
                "{method} {path}"
            );
        }
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
async fn what_the_pacs_kept_although_its_answer_was_an_error_or_broke_off_is_asked_for_and_not_stored_again() {
    for (quirk, said) in [
        (Stow::KeptThen(503), "storing: answered 503"),
        (Stow::BrokenOff, "storing: no connection"),
        (
            Stow::AskedInVain,
            "lists it as stored, and it cannot be asked whether it is there: no connection",
        ),
    ] {
        delivered_with(
            &[quirk],
            "delivered",
            settings(),
            move |_, pool, server, _| async move {
                assert_eq!(how(&pool).await, "was_there", "{quirk:?}");
                assert_eq!(server.inside().stow_requests, 1, "{quirk:?}");
                let errors = "select string_agg(detail ->> 'error', '|') from event where kind = 'delivery_failed'";
                let errors = text(&pool, errors).await;
                assert!(errors.contains(said) && !errors.contains('|'), "{quirk:?}: {errors}");
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_is_settled_by_asking() {
    delivered_with(
        &[Stow::Half],
        "delivered",
        settings(),
        |_, pool, server, _| async move {
            assert_eq!((how(&pool).await.as_str(), server.inside().stow_requests), ("found", 1));
        },
    )
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
            specification: JobSpecification {
                model: "m".into(),
                model_digest: "d".into(),
                parameters_digest: "p".into(),
                pipeline_revision: 1,
            },
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
            assert_eq!(fate(&database).await, "done:given_up");
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
            assert_eq!(fate(&database).await, "done");
        },
    )
    .await;
}

/// What the series of a PACS has become, told anew: in words, as it would be written there.
async fn fate(database: &Database) -> String {
    // A transaction of another test may hold events back for a moment.
    for _ in 0..200 {
        let (fates, _) = database.series_fates(&["one".to_owned()], None).await.unwrap();
        if let [fate] = &fates[..] {
            return fate.text();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    String::new()
}

/// The SOP Instance UIDs that a server has.
fn kept(server: &QuirkServer) -> Vec<String> {
    let inside = server.inside();
    let instances = inside.series.iter().flat_map(|series| &series.instances);
    instances.map(|(sop, _)| sop.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pacs_of_different_profiles_get_their_own_segmentation_each_and_again_when_it_is_wished() {
    const SPARSE: &str = "segmentation-lung-sparse-explicit.dcm";
    const SPARSE_UID: &str = "2.25.10";
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (QuirkServer::start().await, QuirkServer::start().await);
        let file = |name: &str, uid: &str, frames: &str| {
            json!({"name": name, "segmentation":
                {"sop_instance_uid": uid, "segments": "lung", "frames": frames, "transfer_syntax": "explicit"}})
        };
        let files = [file("segmentation.dcm", RESULT, "full"), file(SPARSE, SPARSE_UID, "sparse")];
        let job = finished_job(&pool, folder.path(), json!({"mask_findings": [], "files": files})).await;
        std::fs::write(
            folder.path().join("results").join(SPARSE),
            instance(STUDY, "2.25.11", SPARSE_UID),
        )
        .unwrap();
        let sparse = Pacs {
            name: "two".into(),
            ..pacs(&two.url(), "frames = \"sparse\"")
        };
        let settings = DeliverySettings {
            always_to: vec!["two".into()],
            ..settings()
        };
        // The second says nothing of what it keeps: it is believed when it lists the object of its own delivery.
        two.inside().stow.push_back(Stow::Silent { kept: true });
        let blocks = vec![pacs(&one.url(), ""), sparse];
        let deliveries = Deliveries::to(&database, folder.path(), settings, blocks);
        let pool = &pool;
        let delivered = || until("both delivered", || async move {
            number(pool, "select count(*) from delivery where state = 'delivered'").await == 2
        });
        delivered().await;
        assert_eq!((kept(&one), kept(&two)), (vec![RESULT.to_owned()], vec![SPARSE_UID.to_owned()]));
        let rows = text(
            pool,
            "select string_agg(concat_ws(' ', destination, file, sop_instance_uid), '|' order by destination) from delivery",
        )
        .await;
        assert_eq!(
            rows,
            format!("one results/segmentation.dcm {RESULT}|two results/{SPARSE} {SPARSE_UID}")
        );
        // One of them loses it, and both are wished for again: each gets its own once more.
        two.inside().series.clear();
        assert_eq!(database.redeliver_job(job, "someone").await.unwrap(), Operated::Asked);
        delivered().await;
        assert_eq!(kept(&two), [SPARSE_UID]);
        assert!(kept(&one).iter().all(|uid| uid == RESULT));
        assert_eq!((one.inside().stow_requests, two.inside().stow_requests), (2, 2));
        assert_eq!(number(pool, "select count(*) from delivery").await, 2);
        deliveries.end().await;
        pool.close().await;
    })
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
        a_failure(pool).await;
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
async fn a_mask_that_stays_here_says_why_in_its_row_its_event_and_its_fate() {
    for (code, destination) in [("sides_uncertain", json!("one")), ("lungs_not_found", Value::Null)] {
        scratch(|database, url| async move {
            let pool = PgPool::connect(&url).await.unwrap();
            let folder = tempfile::tempdir().unwrap();
            let server = QuirkServer::start().await;
            let report = json!({"mask_findings": [{"code": code, "sentence": ""}]});
            let job = finished_job(&pool, folder.path(), report).await;
            let event = "insert into event (kind, job_id, actor) values ('job_done', $1, 'test')";
            sqlx::query(event).bind(job).execute(&pool).await.unwrap();
            let undecided = database.series_fates(&["one".to_owned()], None).await.unwrap().0;
            assert!(undecided.is_empty(), "{undecided:?}");
            let deliveries = Deliveries::begin(&database, folder.path(), settings(), pacs(&server.url(), ""));
            let pool = &pool;
            until("planned", || async move {
                number(pool, "select count(*) from job where deliveries_planned").await == 1
            })
            .await;
            assert_eq!(number(pool, "select count(*) from delivery").await, 0);
            let why = "select detail ->> 'why' from event where kind = 'delivery_withheld'";
            assert_eq!(text(pool, why).await, code);
            let row = database.job(job).await.unwrap().unwrap();
            assert_eq!(row.withheld, Some(json!([{"destination": destination, "why": code}])));
            assert_eq!(fate(&database).await, format!("done:{code}"));
            deliveries.end().await;
            pool.close().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_late_slices_made_outdated_does_not_follow_to_a_pacs_that_was_away() {
    const NEWER: &str = "2.25.10";
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        let address = server.address;
        drop(server);
        let outdated = finished_job(&pool, folder.path(), json!({"mask_findings": []})).await;
        let block = pacs(&format!("http://{address}/dicom-web"), "");
        let deliveries = Deliveries::begin(&database, folder.path(), settings(), block);
        let pool = &pool;
        a_failure(pool).await;
        // More slices came, and their job is done as well.
        std::fs::create_dir_all(folder.path().join("results/newer")).unwrap();
        std::fs::write(folder.path().join("results/newer/segmentation.dcm"), instance(STUDY, "2.25.11", NEWER)).unwrap();
        sqlx::query(
            "insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, report,
                 result_folder, segmentation_uid, finished_at)
             select $1, series_id, '\\x01', model, model_digest, parameters_digest, pipeline_revision, 'done', report, 'results/newer', $2, now() from job",
        )
        .bind(Uuid::now_v7())
        .bind(NEWER)
        .execute(pool)
        .await
        .unwrap();
        sqlx::query("select pg_notify('hilum_delivery', '')").execute(pool).await.unwrap();
        until("the outdated one is withdrawn", || async move {
            number(pool, "select count(*) from delivery where state = 'withdrawn'").await == 1
        })
        .await;
        let server = QuirkServer::start_at(address).await;
        until("delivered", || async move {
            number(pool, "select count(*) from delivery where state = 'delivered'").await == 1
        })
        .await;
        assert_eq!(kept(&server), [NEWER]);
        let told = "select concat_ws(' ', job_id, detail ->> 'destination', detail ->> 'why') from event where kind = 'delivery_withdrawn'";
        assert_eq!(
            text(pool, told).await,
            format!("{outdated} one a later job of the series has a result for this destination")
        );
        // Who wishes for the older one gets it all the same, and the newer one stays.
        assert_eq!(database.redeliver_job(outdated, "someone").await.unwrap(), Operated::Asked);
        until("both delivered", || async move {
            number(pool, "select count(*) from delivery where state = 'delivered'").await == 2
        })
        .await;
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
        let frozen = database.claim_delivery("frozen", 0.0, &[]).await.unwrap().unwrap();
        let other = database.claim_delivery("other", 60.0, &[]).await.unwrap().unwrap();
        assert!(other.token > frozen.token);
        assert!(database.claim_delivery("third", 60.0, &[]).await.unwrap().is_none());
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

#[tokio::test(flavor = "multi_thread")]
async fn the_fate_of_a_series_whose_event_commits_after_later_ones_is_told() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        // A transaction of another test may hold events back for a moment.
        let told = async |mut after| {
            for _ in 0..200 {
                let (fates, last) = database.series_fates(&["one".to_owned()], after).await.unwrap();
                after = Some(last);
                if let [fate] = &fates[..] {
                    return (format!("{} {}", fate.series_uid, fate.text()), after);
                }
                assert!(fates.is_empty(), "{fates:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (String::new(), after)
        };
        let ignored = "insert into series (study_uid, series_uid, source, state, finding_code) values ('1.2', $1, 'one', 'ignored', 'not_ct') returning id";
        let mut ids: Vec<i64> = Vec::new();
        for series in ["1.2.1", "1.2.2", "1.2.3"] {
            ids.push(sqlx::query_scalar(ignored).bind(series).fetch_one(&pool).await.unwrap());
        }
        let event = "insert into event (kind, series_id, actor) values ('series_ignored', $1, 'test')";
        sqlx::query(event).bind(ids[0]).execute(&pool).await.unwrap();
        let (fate, after) = told(None).await;
        assert_eq!(fate, "1.2.1 ignored:not_ct");
        // The older transaction writes its event second and is over first.
        let (mut older, mut younger) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
        sqlx::query("select pg_current_xact_id()").execute(&mut *older).await.unwrap();
        sqlx::query(event).bind(ids[1]).execute(&mut *younger).await.unwrap();
        sqlx::query(event).bind(ids[2]).execute(&mut *older).await.unwrap();
        older.commit().await.unwrap();
        let (fate, after) = told(after).await;
        assert_eq!(fate, "1.2.3 ignored:not_ct");
        younger.commit().await.unwrap();
        let (fate, after) = told(after).await;
        assert_eq!(fate, "1.2.2 ignored:not_ct");
        let (fates, _) = database.series_fates(&["one".to_owned()], after).await.unwrap();
        assert!(fates.is_empty(), "{fates:?}");
        pool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pacs_that_hangs_does_not_hold_the_senders_of_another() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        // Connections stand, and nobody answers.
        let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hangs = format!("http://{}/dicom-web", hanging.local_addr().unwrap());
        finished_job(&pool, folder.path(), json!({})).await;
        sqlx::query(
            "insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state)
             select gen_random_uuid(), series_id, series_revision, model, n::text, 'p', 1, 'done' from job, generate_series(1, 10) as n",
        )
        .execute(&pool)
        .await
        .unwrap();
        sqlx::query("update job set deliveries_planned = true").execute(&pool).await.unwrap();
        sqlx::query(
            "insert into delivery (job_id, destination, file, sop_class_uid, sop_instance_uid, not_before)
             select id, destination, 'results/segmentation.dcm', '1.2', $1, now() + due from job,
                 (values ('one', interval '-1 hour'), ('two', interval '0')) as wanted (destination, due)",
        )
        .bind(RESULT)
        .execute(&pool)
        .await
        .unwrap();
        let two = Pacs {
            name: "two".into(),
            ..pacs(&server.url(), "")
        };
        let one = Pacs {
            timeout_seconds: 600,
            ..pacs(&hangs, "")
        };
        let deliveries = Deliveries::to(&database, folder.path(), settings(), vec![one, two]);
        let pool = &pool;
        until("the other's deliveries", || async move {
            number(pool, "select count(*) from delivery where destination = 'two' and state = 'delivered'").await == 11
        })
        .await;
        let hang = "select count(*) from delivery where destination = 'one' and state = 'sending'";
        assert_eq!(number(pool, hang).await, 1, "its share of two senders is one");
        // It comes back as a server that refuses, so that the sender is free again.
        drop(hanging);
        deliveries.end().await;
        pool.close().await;
    })
    .await;
}
