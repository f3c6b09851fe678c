//! Series that a user wishes for, fetched, also from a PACS that is not polled.

use hilum::inbox::poller::Wanted;

use super::fetching::{inbox_settings, polled, polled_with, settled};
use super::*;

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
        let rows = poller::request(&database, &client, Wanted::Study(STUDY), 7, "someone")
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

#[tokio::test(flavor = "multi_thread")]
async fn a_wished_series_whose_study_is_not_known_is_looked_for_and_fetched() {
    let set_up = |server: &QuirkServer| {
        server.inside().series.extend([
            served(STUDY, SERIES, 3),
            served(STUDY, "1.2.3.5", 2),
            served("1.9", "1.9.1", 2),
        ]);
    };
    polled("", set_up, |database, pool, server| async move {
        for series in [SERIES, "1.2.404"] {
            database.request_retrieval("one", "", series, 7, "someone").await.unwrap();
        }
        settled(&pool, 1).await;
        let pool = &pool;
        let rows = "select coalesce(string_agg(concat_ws(' ', study_uid, series_uid, state, count, error), '|' order by study_uid, series_uid), '') from retrieval";
        let wanted = format!(" {SERIES} done 1| 1.2.404 failed [[pacs]] one has no such CT series|{STUDY} {SERIES} done 3");
        until("what was wished for is over", || async {
            text(pool, "select 'yes' where not exists (select from retrieval where state in ('pending', 'running'))").await == "yes"
        })
        .await;
        assert_eq!(text(pool, rows).await, wanted);
        assert_eq!(number(pool, "select priority::bigint from series").await, 7);
        drop(server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wished_series_that_still_arrives_at_its_pacs_is_fetched_once_its_count_stands() {
    let set_up = |server: &QuirkServer| server.inside().series.push(served(STUDY, SERIES, 2));
    let settings = InboxSettings {
        count_interval_seconds: 2.0,
        ..inbox_settings()
    };
    polled_with(
        |url| pacs(url, ""),
        settings,
        set_up,
        |database, pool, server| async move {
            let pool = &pool;
            database
                .request_retrieval("one", STUDY, SERIES, 0, "someone")
                .await
                .unwrap();
            let row = "select concat_ws(' ', state, count, attempts, (not_before > now())::text) from retrieval";
            until("the first count", || async move {
                text(pool, row).await == "pending 2 0 true"
            })
            .await;
            server.inside().series = vec![served(STUDY, SERIES, 4)];
            until("the second count", || async move {
                text(pool, row).await == "pending 4 0 true"
            })
            .await;
            let grown = Instant::now();
            assert_eq!(server.inside().wado_requests, 0);
            settled(pool, 1).await;
            assert!(grown.elapsed() > Duration::from_secs(1), "{:?}", grown.elapsed());
            assert_eq!(server.inside().wado_requests, 1);
            assert_eq!(text(pool, "select instances::text from series").await, "4");
            until("done", || async move {
                text(pool, "select concat_ws(' ', state, count, attempts) from retrieval").await == "done 4 1"
            })
            .await;
            // A wish for what has not changed since does not wait.
            let again = Instant::now();
            tokio::time::sleep(Duration::from_secs(2)).await;
            database
                .request_retrieval("one", STUDY, SERIES, 0, "someone")
                .await
                .unwrap();
            until("fetched again", || async { server.inside().wado_requests == 2 }).await;
            assert!(again.elapsed() < Duration::from_secs(4), "{:?}", again.elapsed());
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wished_series_of_a_pacs_that_counts_nothing_is_fetched_and_left_to_its_quiet_time() {
    let set_up = |server: &QuirkServer| {
        let mut silent = served(STUDY, SERIES, 3);
        silent.tells_count = false;
        server.inside().series.push(silent);
        server
            .inside()
            .odd
            .insert(format!("{SERIES}/instances"), (404, String::new()));
    };
    polled("", set_up, |database, pool, server| async move {
        database
            .request_retrieval("one", STUDY, SERIES, 0, "someone")
            .await
            .unwrap();
        let pool = &pool;
        until("done", || async move {
            text(pool, "select concat_ws(' ', state, count) from retrieval").await == "done 3"
        })
        .await;
        let state = "select concat_ws(' ', state, instances, source_count) from series";
        assert_eq!(text(pool, state).await, "receiving 3");
        // It serves no longer once it is dropped.
        drop(server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fetched_again_after_the_network_changed_gets_a_new_job_and_only_then() {
    let set_up = |server: &QuirkServer| server.inside().series.push(served(STUDY, SERIES, 3));
    polled("", set_up, |database, pool, server| async move {
        let specification = |network: &str| JobSpecification {
            model: network.into(),
            model_digest: network.into(),
            parameters_digest: "p".into(),
            pipeline_revision: 1,
        };
        let mut jobs = Vec::new();
        for network in ["first", "first", "second"] {
            database
                .request_retrieval("one", STUDY, SERIES, 0, "someone")
                .await
                .unwrap();
            settled(&pool, 1).await;
            jobs.push(database.make_job(&specification(network)).await.unwrap().unwrap());
            let pool = &pool;
            until("done", || async move {
                text(pool, "select state::text from retrieval").await == "done"
            })
            .await;
        }
        assert_eq!(jobs.iter().map(|job| job.new).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(jobs[0].id, jobs[1].id);
        let predecessor = text(
            &pool,
            "select predecessor::text from job order by created_at desc limit 1",
        )
        .await;
        assert_eq!(predecessor, jobs[0].id.to_string());
        drop(server);
    })
    .await;
}
