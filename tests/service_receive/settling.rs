//! When a series is whole.

use futures_util::StreamExt as _;
use hilum::database::Database;

use super::*;

#[tokio::test]
async fn a_sender_that_says_so_settles_its_series_and_a_late_slice_opens_it_again() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let origin = Origin {
            pacs: Some("orthanc".into()),
            actor: "orthanc".into(),
            complete: true,
            ..Origin::default()
        };
        let first = place.receive_from(&slices(3), &origin).await.unwrap();
        assert_eq!(first.series[0].state, SeriesState::Settled);
        assert_eq!(place.number("select count(*) from series where settled_by = 'sender' and source = 'orthanc' and length(revision) = 32").await, 1);
        let again = place.receive_from(&slices(3), &origin).await.unwrap();
        assert_eq!(again.series[0].state, SeriesState::Settled, "nothing new came");
        assert_eq!(place.events("series_settled").await, 1);
        place.execute("update series set state = 'taken'").await;
        place.receive_from(&slices(3), &origin).await.unwrap();
        assert_eq!(place.number("select count(*) from series where state = 'taken'").await, 1);
        let before = place.text("select encode(revision, 'hex') from series").await;

        let late = place.receive(&slices(4)).await.unwrap();
        assert_eq!(late.series[0].state, SeriesState::Receiving);
        assert_eq!(place.events("series_reopened").await, 1);
        assert_eq!(place.number("select count(*) from series where settled_by is null and revision is null").await, 1);
        let whole = place.receive_from(&slices(4), &origin).await.unwrap();
        assert_eq!(whole.series[0].state, SeriesState::Settled);
        assert_ne!(place.text("select encode(revision, 'hex') from series").await, before);
    })
    .await;
}

#[tokio::test]
async fn a_user_or_a_quiet_time_settles_a_series_once() {
    scratch(|database, url| async move {
        let place = Place::new(database.clone(), &url).await;
        let id = place.receive(&slices(3)).await.unwrap().series[0].id;
        assert!(database.quiet_series(1000.0, 10).await.unwrap().is_empty());
        assert!(!database.settle_quiet(id, 1000.0, "test").await.unwrap());
        assert_eq!(database.quiet_series(0.0, 10).await.unwrap(), [id]);
        assert!(database.settle_quiet(id, 0.0, "test").await.unwrap());
        assert!(!database.settle_quiet(id, 0.0, "test").await.unwrap());
        assert!(!database.finalize_series(id, "someone").await.unwrap());
        assert_eq!(place.text("select settled_by from series").await, "quiet");
        place.receive(&slices(4)).await.unwrap();
        assert!(database.finalize_series(id, "someone").await.unwrap());
        assert_eq!(place.text("select settled_by from series").await, "finalize");
        assert!(!database.finalize_series(id + 1, "someone").await.unwrap());
        assert_eq!(
            place
                .text("select actor from event where kind = 'series_settled' order by id desc limit 1")
                .await,
            "someone"
        );
    })
    .await;
}

#[tokio::test]
async fn a_count_settles_when_it_is_the_same_twice_and_what_is_held() {
    scratch(|database, url| async move {
        let place = Place::new(database.clone(), &url).await;
        let origin = Origin {
            pacs: Some("orthanc".into()),
            actor: "orthanc".into(),
            ..Origin::default()
        };
        let id = place.receive_from(&slices(3), &origin).await.unwrap().series[0].id;
        assert!(database.series_to_count(&["other".into()], 0.0, 10).await.unwrap().is_empty());
        let due = database.series_to_count(&["orthanc".into()], 10.0, 10).await.unwrap();
        assert_eq!((due[0].id, due[0].series_uid.as_str()), (id, SERIES));
        assert!(!database.count_answered(id, Some(3), 10.0, "test").await.unwrap(), "the first answer");
        assert!(database.series_to_count(&["orthanc".into()], 10.0, 10).await.unwrap().is_empty(), "asked just now");
        let later = "update series set source_count_since = source_count_since - interval '10 s', source_asked_at = source_asked_at - interval '10 s'";
        place.execute(later).await;
        assert!(!database.count_answered(id, Some(4), 10.0, "test").await.unwrap(), "another count");
        place.execute(later).await;
        assert!(!database.count_answered(id, None, 10.0, "test").await.unwrap(), "no answer");
        assert!(!database.count_answered(id, Some(4), 10.0, "test").await.unwrap(), "4 are not held");
        place.receive(&slices(4)).await.unwrap();
        assert!(database.count_answered(id, Some(4), 10.0, "test").await.unwrap());
        assert_eq!(place.text("select settled_by from series").await, "count");
        assert!(!database.count_answered(id, Some(4), 10.0, "test").await.unwrap(), "it no longer waits");
    })
    .await;
}

/// A PACS that knows one thing: how many instances each series has.
async fn counting_pacs(count: std::sync::Arc<std::sync::atomic::AtomicU32>) -> hilum::dicomweb::Pacs {
    use std::sync::atomic::Ordering;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/dicom-web", listener.local_addr().unwrap());
    let answer = move || {
        let body = serde_json::json!([{
            "0020000D": {"vr": "UI", "Value": [STUDY]},
            "0020000E": {"vr": "UI", "Value": [SERIES]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "00201209": {"vr": "IS", "Value": [count.load(Ordering::SeqCst)]},
        }]);
        async move { ([("content-type", "application/dicom+json")], body.to_string()) }
    };
    let routes = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    serde_json::from_value(serde_json::json!({"name": "orthanc", "url": url})).unwrap()
}

#[tokio::test]
async fn the_inbox_by_itself_settles_by_the_count_of_the_source_or_by_a_quiet_time_and_sweeps() {
    scratch(|database, url| async move {
        use std::sync::atomic::{AtomicU32, Ordering};
        let _ = rustls::crypto::ring::default_provider().install_default();
        let count = std::sync::Arc::new(AtomicU32::new(5));
        let pacs = counting_pacs(std::sync::Arc::clone(&count)).await;
        let mut settings = receive_support::settings();
        (settings.quiet_seconds, settings.count_interval_seconds) = (3600.0, 0.2);
        let place = Place::with(database.clone(), &url, settings.clone()).await;
        let left = place.ingest.folder().join("0190aaaa.batch");
        std::fs::write(&left, b"left").unwrap();
        let ends = tokio_util::sync::CancellationToken::new();
        let runs = hilum::inbox::run(
            database.clone(),
            place.ingest.clone(),
            settings.clone(),
            vec![pacs],
            ends.clone(),
        );
        let runs = tokio::spawn(runs);
        let origin = Origin {
            pacs: Some("orthanc".into()),
            actor: "orthanc".into(),
            ..Origin::default()
        };
        place.receive_from(&slices(3), &origin).await.unwrap();
        while place.number("select count(*) from series where source_count = 5 and source_asked_at - source_count_since > interval '0.5 s'").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(place.text("select state::text from series").await, "receiving", "5 are not held");
        count.store(3, Ordering::SeqCst);
        while place.text("select state::text from series").await == "receiving" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(place.text("select settled_by from series").await, "count");
        assert!(!left.exists());
        ends.cancel();
        runs.await.unwrap();

        // The same PACS no longer asked: a quiet time does it.
        settings.quiet_seconds = 0.1;
        place.receive_from(&slices(4), &origin).await.unwrap();
        let ends = tokio_util::sync::CancellationToken::new();
        let runs = tokio::spawn(hilum::inbox::run(
            database,
            place.ingest.clone(),
            settings,
            Vec::new(),
            ends.clone(),
        ));
        while place.text("select state::text from series").await == "receiving" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(place.text("select settled_by from series").await, "quiet");
        ends.cancel();
        runs.await.unwrap();
    })
    .await;
}

/// Sends a body piece by piece over three quiet times, while the inbox settles what is quiet; how many series settled before its last piece.
async fn settled_while_it_came(database: Database, url: &str, body: &[u8], held: usize) -> i64 {
    let quiet = std::time::Duration::from_secs(1);
    let mut settings = settings();
    settings.quiet_seconds = quiet.as_secs_f64();
    let place = Place::with(database.clone(), url, settings.clone()).await;
    place.receive(&slices(2)).await.unwrap();
    let ends = tokio_util::sync::CancellationToken::new();
    let runs = hilum::inbox::run(database, place.ingest.clone(), settings, Vec::new(), ends.clone());
    let runs = tokio::spawn(runs);
    let pieces: Vec<bytes::Bytes> = body
        .chunks(body.len() / 30 + 1)
        .map(bytes::Bytes::copy_from_slice)
        .collect();
    let last = pieces.len() - 1;
    let settled = std::sync::atomic::AtomicI64::new(0);
    let stream = futures_util::stream::iter(pieces.into_iter().enumerate()).then(|(at, piece)| {
        let (place, settled) = (&place, &settled);
        async move {
            tokio::time::sleep(quiet / 10).await;
            if at == last {
                settled.store(
                    place.events("series_settled").await,
                    std::sync::atomic::Ordering::SeqCst,
                );
            }
            Ok::<_, String>(piece)
        }
    });
    let origin = Origin {
        actor: "slow".into(),
        ..Origin::default()
    };
    place.ingest.receive(&place.boundary(), stream, &origin).await.unwrap();
    while place.text("select state::text from series").await == "receiving" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(place.text("select settled_by from series").await, "quiet");
    assert_eq!(place.number("select instances::bigint from series").await, held as i64);
    assert_eq!(place.events("series_reopened").await, 0);
    ends.cancel();
    runs.await.unwrap();
    settled.into_inner()
}

#[tokio::test]
async fn a_series_does_not_settle_by_quiet_time_while_slices_of_it_are_under_way() {
    scratch(|database, url| async move {
        let body = multipart(&slices(12));
        assert_eq!(settled_while_it_came(database, &url, &body, 12).await, 0);
    })
    .await;
}

#[tokio::test]
async fn nor_while_one_slice_of_it_comes_slowly() {
    scratch(|database, url| async move {
        let body = multipart(&[large_ct(STUDY, SERIES, "1.2.4.99")]);
        assert_eq!(settled_while_it_came(database, &url, &body, 3).await, 0);
    })
    .await;
}

/// Its mask is of a part of the series, whatever becomes of the job that follows: that may be refused, or withheld.
#[tokio::test]
async fn late_slices_withdraw_what_a_finished_job_has_not_delivered_yet() {
    const DONE_JOB: &str =
        "insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, finished_at, report, segmentation_uid)
         select gen_random_uuid(), id, revision, 'm', model, 'p', 1, 'done', now(), '{}', '2.25.1' from series, unnest(array['old', 'new']) as model";
    const DELIVERIES: &str =
        "insert into delivery (job_id, destination, state, file, sop_class_uid, sop_instance_uid, worker, lease_until)
         select id, wanted, wanted::delivery_state, 'f', '1', '2', 'w', now() + interval '1 h'
         from job, unnest(array['pending', 'sending', 'delivered', 'given_up']) as wanted where model_digest = 'old'";
    scratch(|database, url| async move {
        let place = Place::new(database.clone(), &url).await;
        place.receive_from(&slices(3), &whole()).await.unwrap();
        place.execute("update series set state = 'taken'").await;
        place.execute(DONE_JOB).await;
        place.execute(DELIVERIES).await;
        place.execute("update job set deliveries_planned = true, withheld = '[]' where model_digest = 'old'").await;
        let sent = "select string_agg(destination || ' ' || state, ', ' order by destination) from delivery";
        // The same slices again are no others.
        place.receive_from(&slices(3), &whole()).await.unwrap();
        assert_eq!(place.text(sent).await, "delivered delivered, given_up given_up, pending pending, sending sending");
        let late = place.receive(&slices(4)).await.unwrap();
        assert_eq!(late.series[0].state, SeriesState::Receiving);
        assert_eq!(place.text(sent).await, "delivered delivered, given_up given_up, pending withdrawn, sending withdrawn");
        let told = "select string_agg(concat_ws(' ', detail ->> 'destination', detail ->> 'why'), ', ' order by id) from event where kind = 'delivery_withdrawn'";
        let told = place.text(told).await;
        for state in ["pending", "sending"] {
            assert!(told.contains(&format!("{state} more slices came")), "{told}");
        }
        // One that had ended, and of which nobody had decided yet where it goes.
        let undecided = database.unplanned_jobs(10).await.unwrap();
        let [job] = &undecided[..] else { panic!("{undecided:?}") };
        let planned = PlannedDelivery {
            destination: "one".into(),
            file: "f".into(),
            sop_class_uid: "1".into(),
            sop_instance_uid: "2".into(),
        };
        let planned = std::slice::from_ref(&planned);
        assert!(database.plan_deliveries(job, planned, &[], "d").await.unwrap());
        assert_eq!(place.number("select count(*) from delivery where destination = 'one'").await, 0);
        let withheld = "select withheld::text from job where model_digest = 'new'";
        assert_eq!(
            place.text(withheld).await,
            r#"[{"why": "more_slices_came", "destination": "one"}]"#
        );
        // Who wishes for it gets it all the same.
        database.redeliver_job(job.id, "someone").await.unwrap();
        assert!(database.plan_deliveries(job, planned, &[], "d").await.unwrap());
        assert_eq!(place.number("select count(*) from delivery where destination = 'one'").await, 1);
    })
    .await;
}
