//! A source that falls silent while a series comes.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_silent_inside_an_instance_is_left_and_asked_again() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = QuirkServer::start().await;
        server.inside().series.push(served(STUDY, SERIES, 4));
        server.inside().wado.push_back(Wado::Silent);
        let settings = InboxSettings {
            quiet_seconds: 3600.0,
            count_interval_seconds: 0.5,
            idle_seconds: 1.0,
            disk_reserve_bytes: 0,
            disk_watermark: 1.0,
            fetch_backoff_seconds: 1.0,
            ..Settings::load(None).unwrap().inbox
        };
        let ingest = Ingest::open(database.clone(), folder.path(), settings, Limits::default()).unwrap();
        let end = CancellationToken::new();
        let blocks = vec![pacs(&server.url(), "poll = true")];
        let running = tokio::spawn(poller::run(database.clone(), ingest, blocks, end.clone()));
        let fetched = &pool;
        until("done", || async move {
            let done = "select count(*) from retrieval where state = 'done'";
            number(fetched, done).await == 1
        })
        .await;
        assert_eq!(server.inside().wado_requests, 2);
        assert_eq!(number(&pool, "select count(*) from instance").await, 4);
        assert_eq!(number(&pool, "select count(*) from batch").await, 1);
        let errors = "select string_agg(detail ->> 'error', '|') from event where kind = 'retrieval_put_off'";
        let errors = text(&pool, errors).await;
        assert!(errors.contains("for 1 seconds") && !errors.contains('|'), "{errors}");
        end.cancel();
        running.await.unwrap().unwrap();
        pool.close().await;
    })
    .await;
}
