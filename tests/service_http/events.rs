//! Streams of events.

use super::*;

/// The ids of the next `count` events of a stream.
async fn ids(service: &Service, path: &str, last: Option<&str>, count: usize) -> Vec<i64> {
    let mut request = Request::builder().uri(path).header("host", "localhost");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = service
        .router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    let read = async {
        loop {
            let found: Vec<i64> = text
                .lines()
                .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
                .collect();
            if found.len() >= count && text.ends_with("\n\n") {
                return found;
            }
            text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    };
    // Long: other databases of the server hold back what may be shown.
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("the events come")
}

#[tokio::test]
async fn a_stream_of_events_goes_on_where_it_was_left_and_misses_nothing() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(4).await;
        for _ in 0..6 {
            service
                .sql(&format!(
                    "insert into event (kind, job_id, actor) values ('a', '{}', 'test')",
                    job(1)
                ))
                .await;
        }
        let all = ids(&service, "/api/v1/events", Some("0"), 6).await;
        assert_eq!(all, [1, 2, 3, 4, 5, 6]);
        assert_eq!(ids(&service, "/api/v1/events", Some("4"), 2).await, [5, 6]);
        assert_eq!(
            ids(&service, &format!("/api/v1/jobs/{}/events", job(1)), None, 6).await,
            all
        );

        // An event with a smaller id that is committed later stands later, and is not missed.
        let (mut early, mut late) = (service.pool.begin().await.unwrap(), service.pool.begin().await.unwrap());
        let insert = "insert into event (kind, actor) values ('b', 'test')";
        sqlx::query("select pg_current_xact_id()::text")
            .execute(&mut *early)
            .await
            .unwrap();
        sqlx::query(insert).execute(&mut *late).await.unwrap();
        sqlx::query(insert).execute(&mut *early).await.unwrap();
        early.commit().await.unwrap();
        assert_eq!(ids(&service, "/api/v1/events", Some("6"), 1).await, [8]);
        late.commit().await.unwrap();
        assert_eq!(ids(&service, "/api/v1/events", Some("6"), 2).await, [8, 7]);
        assert_eq!(ids(&service, "/api/v1/events", Some("8"), 1).await, [7]);

        // Live: what happens after the stream began.
        let live = ids(&service, "/api/v1/events", Some("7"), 1);
        let happens = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            service.post("/api/v1/queue/pause", &json!({})).await
        };
        let (live, paused) = tokio::join!(live, happens);
        assert_eq!((live, paused.status.as_u16()), (vec![9], 200));
        let bad = service
            .ask("GET", "/api/v1/events", &[("last-event-id", "x")], "")
            .await;
        assert_eq!(bad.code(), "bad_last_event_id");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn no_more_streams_of_events_are_open_than_may_be() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(1).await;
        let open = async |path: &str| {
            let request = Request::builder().uri(path).header("host", "localhost");
            let request = request.body(Body::empty()).unwrap();
            service.router.clone().oneshot(request).await.unwrap()
        };
        let paths = ["/api/v1/events".to_owned(), format!("/api/v1/jobs/{}/events", job(1))];
        let mut streams = Vec::new();
        for path in &paths {
            let stream = open(path).await;
            assert_eq!(stream.status(), 200);
            streams.push(stream);
        }
        for path in &paths {
            let refused = service.get(path).await;
            assert_eq!(
                (refused.status.as_u16(), refused.code().as_str()),
                (503, "too_many_streams")
            );
            assert!(refused.headers.contains_key("retry-after"));
        }
        assert_eq!(
            service.get("/api/v1/jobs").await.status,
            200,
            "only streams are counted"
        );
        streams.pop();
        assert_eq!(
            open(&paths[0]).await.status(),
            200,
            "a place that was given back is free"
        );
        // One that is refused for another reason holds no place.
        let unknown = service.get(&format!("/api/v1/jobs/{}/events", job(7))).await;
        assert_eq!(unknown.code(), "job_not_found");
        assert_eq!(open(&paths[1]).await.status(), 200);
        service.stop().await;
    })
    .await;
}
