//! Series found by asking a PACS, and fetched.

use hilum::database::Keep;
use hilum::dicomweb::multipart::Boundary;
use hilum::inbox::Origin;

use super::*;

/// Nothing settles but by its count, which two answers half a second apart name, and nothing is refused for want of room.
pub(super) fn inbox_settings() -> InboxSettings {
    InboxSettings {
        quiet_seconds: 3600.0,
        count_interval_seconds: 0.5,
        disk_reserve_bytes: 0,
        disk_watermark: 1.0,
        fetch_backoff_seconds: 1.0,
        fetch_absent_backoff_seconds: 0.2,
        fetch_absent_attempts: 5,
        ..Settings::load(None).unwrap().inbox
    }
}

/// Runs the poller against a server that is set up by `set_up`, while `check` looks.
pub(super) async fn polled<F: Future<Output = ()>>(
    more: &'static str,
    set_up: impl FnOnce(&QuirkServer),
    check: impl FnOnce(Database, PgPool, QuirkServer) -> F,
) {
    polled_with(|url| pacs(url, more), inbox_settings(), set_up, check).await;
}

/// As [`polled`], with this block and these settings.
pub(super) async fn polled_with<F: Future<Output = ()>>(
    block: impl FnOnce(&str) -> Pacs,
    settings: InboxSettings,
    set_up: impl FnOnce(&QuirkServer),
    check: impl FnOnce(Database, PgPool, QuirkServer) -> F,
) {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        set_up(&server);
        let ingest = Ingest::open(database.clone(), folder.path(), settings, Limits::default()).unwrap();
        let end = CancellationToken::new();
        let running = tokio::spawn(poller::run(
            database.clone(),
            ingest,
            vec![block(&server.url())],
            end.clone(),
        ));
        check(database, pool.clone(), server).await;
        end.cancel();
        running.await.unwrap().unwrap();
        pool.close().await;
    })
    .await;
}

pub(super) async fn settled(pool: &PgPool, series: i64) {
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

/// Waits until the poller has asked some times more.
async fn more_rounds(server: &QuirkServer) {
    let asked = server.inside().series_queries;
    let more = || async move { server.inside().series_queries > asked + 8 };
    until("more rounds", more).await;
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
        more_rounds(&server).await;
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
async fn the_rounds_lie_as_far_apart_as_the_block_says() {
    let every = |seconds| {
        move |url: &str| {
            let mut block = pacs(url, "poll = true");
            block.poll_interval_seconds = seconds;
            block
        }
    };
    // A PACS that lists nothing is asked one question a round.
    let started = Instant::now();
    polled_with(
        every(2),
        inbox_settings(),
        |_| {},
        |_, _, server| async move {
            until("three rounds", || async { server.inside().series_queries >= 3 }).await;
            assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
        },
    )
    .await;
    polled_with(
        every(3600),
        inbox_settings(),
        |_| {},
        |_, _, server| async move {
            until("a first round", || async { server.inside().series_queries == 1 }).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(server.inside().series_queries, 1);
        },
    )
    .await;
}

/// Runs the poller with a block until it has fetched a series; what reached its PACS.
async fn asked_by(more: &'static str) -> Vec<(String, String, Option<String>)> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    let set_up = |server: &QuirkServer| server.inside().series.push(served(STUDY, SERIES, 2));
    polled(more, set_up, |_, pool, server| async move {
        settled(&pool, 1).await;
        keep.lock().unwrap().append(&mut server.inside().asked);
    })
    .await;
    std::mem::take(&mut asked.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pacs_is_asked_for_what_its_block_says_with_its_credentials() {
    const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]");
    // The day that its look-back begins on, and one more for other time zones; before and after, since the day may change meanwhile.
    let first = || {
        let day = time::OffsetDateTime::now_utc() - time::Duration::days(3 + 1);
        format!("StudyDate={}-", day.format(FORMAT).unwrap())
    };
    for (credentials, authorization) in [
        ("", None),
        ("token = \"abc.def\"", Some("Bearer abc.def")),
        // RFC 7617: base64 of "name:word with : and ä", in UTF-8.
        (
            "username = \"name\"\npassword = \"word with : and ä\"",
            Some("Basic bmFtZTp3b3JkIHdpdGggOiBhbmQgw6Q="),
        ),
    ] {
        let more = format!(
            "poll = true\nlook_back_days = 3\nfilters = {{ BodyPartExamined = \"CHEST\", StationName = \"CT 1&2\" }}\n{credentials}"
        );
        let before = first();
        let asked = asked_by(more.leak()).await;
        let days = [before, first()];
        let series: Vec<&str> = asked
            .iter()
            .filter_map(|(_, path, _)| path.strip_prefix("/dicom-web/series?"))
            .collect();
        assert!(!series.is_empty(), "{asked:?}");
        for query in series {
            let parts: Vec<&str> = query.split('&').collect();
            assert!(days.iter().any(|day| parts.contains(&day.as_str())), "{query}");
            for wanted in ["Modality=CT", "BodyPartExamined=CHEST", "StationName=CT+1%262"] {
                assert!(parts.contains(&wanted), "{wanted} in {query}");
            }
        }
        // The series itself, its study's segmentations, and its slices.
        let of = |end: &str| {
            asked
                .iter()
                .any(|(_, path, _)| path.split('?').next().unwrap().ends_with(end))
        };
        assert!(
            of(&format!("/studies/{STUDY}/series")) && of(&format!("/series/{SERIES}")),
            "{asked:?}"
        );
        for (method, path, given) in &asked {
            assert_eq!((method.as_str(), given.as_deref()), ("GET", authorization), "{path}");
        }
    }
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
async fn an_answer_that_breaks_off_inside_an_instance_leaves_nothing_and_the_next_round_fetches_each_instance_once() {
    let set_up = |server: &QuirkServer| {
        server.inside().series.push(served(STUDY, SERIES, 4));
        server.inside().wado.extend([Wado::BrokenOff, Wado::BrokenOff]);
    };
    polled("poll = true", set_up, |_, pool, server| async move {
        settled(&pool, 1).await;
        let pool = &pool;
        until("done", || async move {
            text(pool, "select state::text from retrieval").await == "done"
        })
        .await;
        assert_eq!(server.inside().wado_requests, 3);
        let held = "select count(*) || ' ' || count(distinct sop_instance_uid) || ' ' || count(distinct batch_id) from instance";
        assert_eq!(text(pool, held).await, "4 4 1");
        assert_eq!(number(pool, "select count(*) from batch").await, 1);
        let errors = "select string_agg(detail ->> 'error', '|' order by id) from event where kind = 'retrieval_put_off'";
        let errors = text(pool, errors).await;
        assert_eq!(errors.matches("the body broke off").count(), 2, "{errors}");
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
async fn instances_that_can_never_be_taken_end_a_retrieval_soon_with_their_number_and_the_others_are_held() {
    // One is garbage; or one is of another study than the PACS says, and one is garbage.
    for (others, words) in [
        (0, "1 of 4 instances cannot be taken: 1 cannot be read, 0"),
        (1, "2 of 4"),
    ] {
        let set_up = |server: &QuirkServer| {
            let mut series = served(STUDY, SERIES, 4);
            series.instances[1].1 = b"no instance".to_vec();
            if others == 1 {
                series.instances[2].1 = instance("1.9", SERIES, "1.2.3.4.3");
            }
            server.inside().series.push(series);
        };
        polled("poll = true", set_up, |_, pool, server| async move {
            let shared = &pool;
            until("failed", || async move {
                text(shared, "select state::text from retrieval").await == "failed"
            })
            .await;
            let error = text(&pool, "select error from retrieval").await;
            assert!(error.contains(words), "{error}");
            assert!(server.inside().wado_requests <= 3);
            // It waits for its quiet time, as what a sender brought in part.
            let held = "select count(*) from instance join series on series.id = series_id where state = 'receiving'";
            assert_eq!(number(&pool, held).await, 3 - others);
            // Later rounds leave it alone.
            let fetched = server.inside().wado_requests;
            more_rounds(&server).await;
            assert_eq!(server.inside().wado_requests, fetched);
        })
        .await;
    }
}

/// A late slice sent by itself, by a sender that calls the series whole.
async fn sent_alone(database: &Database, bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let ingest = Ingest::open(database.clone(), folder.path(), inbox_settings(), Limits::default()).unwrap();
    let body = [
        b"--b\r\nContent-Type: application/dicom\r\n\r\n".as_slice(),
        bytes,
        b"\r\n--b--",
    ]
    .concat();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(body))]);
    let origin = Origin {
        actor: "sender".into(),
        complete: true,
        ..Origin::default()
    };
    let boundary = Boundary::of_content_type("multipart/related; type=\"application/dicom\"; boundary=b").unwrap();
    ingest.receive(&boundary, body, &origin).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_of_which_a_sender_brought_a_part_is_completed() {
    polled(
        "poll = true",
        |_| {},
        |database, pool, server| async move {
            sent_alone(&database, &instance(STUDY, SERIES, "1.2.3.4.1")).await;
            let state = "select concat_ws(' ', state, settled_by, instances) from series";
            assert_eq!(text(&pool, state).await, "settled sender 1");
            server.inside().series.push(served(STUDY, SERIES, 4));
            let pool = &pool;
            until(
                "the others",
                || async move { text(pool, state).await == "settled count 4" },
            )
            .await;
            let server = &server;
            more_rounds(server).await;
            assert_eq!(server.inside().wado_requests, 1);
            let held = "select count(*) || ' ' || count(distinct sop_instance_uid) from instance";
            assert_eq!(text(pool, held).await, "4 4");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_says_whose_pacs_is_away_is_asked_for_again_until_it_is_back() {
    let set_up = |server: &QuirkServer| {
        server.inside().series.push(served(STUDY, SERIES, 3));
        // More attempts than those of an outage take, and more than those for what cannot be taken.
        server
            .inside()
            .wado
            .extend([Wado::Status(503), Wado::Status(503), Wado::Status(503)]);
        server
            .inside()
            .wado
            .extend([Wado::Status(404), Wado::Status(302), Wado::Page, Wado::Status(400)]);
    };
    let settings = InboxSettings {
        fetch_attempts: 4,
        fetch_backoff_seconds: 0.1,
        ..inbox_settings()
    };
    let block = |url: &str| pacs(url, "poll = true");
    polled_with(block, settings, set_up, |_, pool, server| async move {
        settled(&pool, 1).await;
        assert_eq!(server.inside().wado_requests, 8);
        let pool = &pool;
        until("done", || async move {
            text(pool, "select concat_ws(' ', state, attempts, error) from retrieval").await == "done 8"
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_that_lacks_what_retention_took_when_a_late_slice_comes_alone_is_fetched_again_once() {
    let set_up = |server: &QuirkServer| server.inside().series.push(served(STUDY, SERIES, 3));
    polled("poll = true", set_up, |database, pool, server| async move {
        settled(&pool, 1).await;
        let shared = &pool;
        until("done", || async move {
            text(shared, "select state::text from retrieval").await == "done"
        })
        .await;
        let change = async |sql: &'static str| {
            let changed = sqlx::query(sql).execute(shared).await.unwrap();
            assert_eq!(changed.rows_affected(), 1, "{sql}");
        };
        // Its job is over, and its slices are gone.
        change("update series set state = 'taken'").await;
        let id = number(&pool, "select id from series").await;
        let keep = Keep {
            done_hours: 0.0,
            other_days: 0.0,
        };
        assert!(database.release_series(id, keep, "test").await.unwrap().is_some());
        // The PACS has the late slice a little later, so that only the way under test fetches the others.
        sent_alone(&database, &instance(STUDY, SERIES, "1.2.3.4.4")).await;
        let state = "select concat_ws(' ', state, finding_code, instances) from series";
        assert_eq!(text(&pool, state).await, "ignored slices_removed 4");
        server.inside().series = vec![served(STUDY, SERIES, 4)];
        settled(&pool, 1).await;
        until("done", || async move {
            text(shared, "select concat_ws(' ', state, count) from retrieval").await == "done 4"
        })
        .await;
        let missing = "select count(*) from instance where batch_id is null";
        assert_eq!(number(&pool, missing).await, 0);
        assert_eq!(server.inside().wado_requests, 2);
        // Where that did not mend it, it is not fetched round after round.
        change("update series set state = 'ignored', finding_code = 'slices_removed'").await;
        let server = &server;
        more_rounds(server).await;
        assert_eq!(server.inside().wado_requests, 2);
        // A late slice of other bytes, of which the PACS may have as many as before, is reason enough.
        change("update series set state = 'ignored', finding_code = 'slices_removed', last_instance_at = now()").await;
        until("a third time", || async move { server.inside().wado_requests == 3 }).await;
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
async fn a_series_about_which_the_pacs_answers_nonsense_hides_none_behind_it() {
    scratch(|database, _| async move {
        let server = QuirkServer::start().await;
        let block = pacs(&server.url(), "");
        let client = Client::new(&block).unwrap();
        let answers = [
            (500, String::new()),
            (200, "[".to_owned()),
            (200, " ".repeat(33 << 20)),
            (404, String::new()),
            // It has no time: whether the study has our segmentation is not known.
            (503, String::new()),
        ];
        {
            let mut inside = server.inside();
            let mut countless = served("1.3.9", "1.3.9.1", 2);
            countless.tells_count = false;
            inside.series.push(countless);
            inside.odd.insert("1.3.9.1/instances".into(), (500, String::new()));
            for (at, answer) in answers.into_iter().enumerate() {
                let (study, segmentation) = (format!("1.3.{at}"), format!("1.3.{at}.2"));
                inside.series.push(served(&study, &format!("1.3.{at}.1"), 2));
                inside.series.push(Served {
                    modality: "SEG",
                    ..served(&study, &segmentation, 1)
                });
                inside.odd.insert(format!("{segmentation}/metadata"), answer);
            }
            inside.series.push(served("1.4", "1.4.1", 2));
        }
        let looked = poller::look(&database, &client, &block, 3600.0).await.unwrap();
        assert_eq!((looked.listed, looked.seen, looked.passed_over), (7, 5, 2));
        // An answer that breaks off is none either.
        server.inside().odd.clear();
        server.inside().broken_instances = 1;
        let looked = poller::look(&database, &client, &block, 3600.0).await.unwrap();
        assert_eq!((looked.seen, looked.passed_over), (6, 1));
        // They are taken up where it answers.
        let looked = poller::look(&database, &client, &block, 3600.0).await.unwrap();
        assert_eq!((looked.seen, looked.passed_over), (7, 0));
        // A PACS that says nothing about one study after the other is away where it answers nothing else either.
        {
            let mut inside = server.inside();
            inside.series.clear();
            for at in 0..4 {
                let mut countless = served(&format!("1.5.{at}"), &format!("1.5.{at}.1"), 2);
                countless.tells_count = false;
                inside.series.push(countless);
                inside.odd.insert(format!("1.5.{at}.1/instances"), (503, String::new()));
            }
            inside.series.push(served("1.6", "1.6.1", 2));
        }
        let looked = poller::look(&database, &client, &block, 3600.0).await.unwrap();
        assert_eq!((looked.seen, looked.passed_over), (1, 4));
        // The listing and its empty last page.
        server.inside().series_answers = Some(2);
        let away = poller::look(&database, &client, &block, 3600.0).await.unwrap_err();
        assert!(away.to_string().contains("503"), "{away}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_about_which_the_pacs_has_no_answer_is_asked_about_once_a_round_and_hides_none_behind_it() {
    scratch(|database, _| async move {
        let server = QuirkServer::start().await;
        let block = pacs(&server.url(), "");
        let client = Client::new(&block).unwrap();
        {
            let mut inside = server.inside();
            // Four reconstructions each, the slices of which one PACS counts and one does not.
            for (study, tells_count) in [("1.7", true), ("1.8", false)] {
                for at in 1..=4 {
                    let mut one = served(study, &format!("{study}.{at}"), 2);
                    one.tells_count = tells_count;
                    inside.series.push(one);
                    inside.odd.insert(format!("1.8.{at}/instances"), (503, String::new()));
                }
            }
            inside.series.push(Served {
                modality: "SEG",
                ..served("1.7", "1.7.9", 1)
            });
            inside.odd.insert("1.7.9/metadata".into(), (503, String::new()));
            inside.series.push(served("1.9", "1.9.1", 2));
        }
        let looked = poller::look(&database, &client, &block, 3600.0).await.unwrap();
        assert_eq!((looked.listed, looked.seen, looked.passed_over), (9, 1, 8));
        let asked = |end: &str| {
            let inside = server.inside();
            let fits = |path: &String| path.split('?').next().unwrap().ends_with(end);
            inside.asked.iter().filter(|(_, path, _)| fits(path)).count()
        };
        assert_eq!((asked("/metadata"), asked("/instances")), (1, 1));
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
