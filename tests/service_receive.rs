//! Instances come in by STOW-RS: what is answered, which rows there are, and which bytes lie in the inbox, against a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ct_file;
mod receive_support;

use bytes::Bytes;
use hilum::database::testing::scratch;
use hilum::database::{SeriesState, Stored};
use hilum::dicom::Limits;
use hilum::inbox::{Ingest, IngestError, Origin, Outcome};
use receive_support::{Place, ct, multipart, object, settings, whole};

const STUDY: &str = "1.2.3";
const SERIES: &str = "1.2.3.5";

fn slices(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| ct(STUDY, SERIES, &format!("1.2.4.{n}"), 0))
        .collect()
}

#[tokio::test]
async fn what_is_new_is_held_and_what_comes_again_makes_no_second_row() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let all = slices(5);
        let first = place.receive(&all).await.unwrap();
        assert_eq!(first.how_many(&Outcome::Stored(Stored::New)), 5);
        assert_eq!(first.answer().status(), 200);
        assert_eq!(first.series.len(), 1);
        assert_eq!(first.series[0].state, SeriesState::Receiving);
        assert_eq!(place.bytes_of(first.series[0].id).await, all);
        assert_eq!(place.files().len(), 1);

        let again = place.receive(&all).await.unwrap();
        assert_eq!(again.how_many(&Outcome::Stored(Stored::Duplicate)), 5);
        assert_eq!(
            again.answer(),
            first.answer(),
            "a duplicate is referenced like what is new"
        );
        assert_eq!(place.files().len(), 1, "duplicates leave no file");
        assert_eq!(place.number("select count(*) from instance").await, 5);
        assert_eq!(place.number("select count(*) from batch").await, 1);
        assert_eq!(place.events("instances_received").await, 1);

        // The normal case: the whole series again with one slice more.
        let more = slices(6);
        let late = place.receive(&more).await.unwrap();
        assert_eq!(late.how_many(&Outcome::Stored(Stored::Duplicate)), 5);
        assert_eq!(late.how_many(&Outcome::Stored(Stored::New)), 1);
        assert_eq!(place.bytes_of(first.series[0].id).await, more);
        assert_eq!(
            place.number("select sum(bytes)::bigint from batch").await as usize,
            more.iter().map(Vec::len).sum::<usize>()
        );
        assert_eq!(place.number("select instances::bigint from series").await, 6);
    })
    .await;
}

#[tokio::test]
async fn the_same_instance_twice_in_one_request_is_held_once() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let one = ct(STUDY, SERIES, "1.2.4.1", 0);
        let receipt = place.receive(&[one.clone(), one.clone()]).await.unwrap();
        assert_eq!(receipt.how_many(&Outcome::Stored(Stored::New)), 1);
        assert_eq!(receipt.how_many(&Outcome::Stored(Stored::Duplicate)), 1);
        assert_eq!(receipt.answer().referenced.len(), 2, "every part is referenced");
        assert_eq!(place.bytes_of(receipt.series[0].id).await, [one]);
    })
    .await;
}

#[tokio::test]
async fn other_bytes_under_the_same_uids_are_a_revision_that_is_told() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let old = ct(STUDY, SERIES, "1.2.4.1", 0);
        let new = ct(STUDY, SERIES, "1.2.4.1", 7);
        place
            .receive(&[old.clone(), ct(STUDY, SERIES, "1.2.4.2", 0)])
            .await
            .unwrap();
        let receipt = place.receive(std::slice::from_ref(&new)).await.unwrap();
        assert_eq!(receipt.how_many(&Outcome::Stored(Stored::Revised)), 1);
        assert_eq!(place.bytes_of(receipt.series[0].id).await[0], new);
        assert_eq!(place.number("select count(*) from instance").await, 3);
        assert_eq!(place.number("select count(*) from instance where newest").await, 2);
        assert_eq!(place.number("select instances::bigint from series").await, 2);
        assert_eq!(place.events("instance_revised").await, 1);
        let third = place.receive(&[new]).await.unwrap();
        assert_eq!(third.how_many(&Outcome::Stored(Stored::Duplicate)), 1);
        let old_again = place.receive(&[old]).await.unwrap();
        assert_eq!(
            old_again.how_many(&Outcome::Stored(Stored::Duplicate)),
            1,
            "an older revision changes nothing"
        );
        assert_eq!(place.events("instance_revised").await, 1);
    })
    .await;
}

#[tokio::test]
async fn the_same_sop_instance_uid_in_another_series_is_another_instance() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let both = [ct(STUDY, "1.2.3.5", "1.2.4.1", 0), ct(STUDY, "1.2.3.6", "1.2.4.1", 0)];
        let receipt = place.receive(&both).await.unwrap();
        assert_eq!(receipt.how_many(&Outcome::Stored(Stored::New)), 2);
        assert_eq!(receipt.series.len(), 2);
        assert_eq!(place.bytes_of(receipt.series[1].id).await, [both[1].clone()]);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_ct_is_referenced_with_a_warning_and_dropped() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let seg = object(STUDY, "1.2.3.9", "1.2.4.9", "SEG", "1.2.840.10008.5.1.4.1.1.66.4", 0);
        let receipt = place
            .receive(&[ct(STUDY, SERIES, "1.2.4.1", 0), seg.clone()])
            .await
            .unwrap();
        assert_eq!(receipt.how_many(&Outcome::Dropped), 1);
        let answer = receipt.answer();
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.referenced.len(), 2);
        assert_eq!(answer.referenced[1].warning.map(|warning| warning.0), Some(0xB006));
        assert!(answer.failed.is_empty() && answer.other_failures.is_empty());
        assert_eq!(receipt.series[1].state, SeriesState::Ignored);
        assert_eq!(
            place
                .number("select count(*) from series where finding_code = 'not_ct' and finding_sentence like '%SEG%'")
                .await,
            1
        );
        assert_eq!(place.number("select count(*) from instance").await, 1);
        for _ in 0..2 {
            let alone = place.receive(std::slice::from_ref(&seg)).await.unwrap();
            assert_eq!(alone.answer().status(), 202);
        }
        assert_eq!(place.events("series_ignored").await, 1, "told once");
        assert_eq!(place.files().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn garbage_between_good_parts_fails_alone() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let good = slices(2);
        let without_study = object("", SERIES, "1.2.4.7", "CT", "1.2.840.10008.5.1.4.1.1.2", 0);
        let path_like = object("1/../../etc", SERIES, "1.2.4.8", "CT", "1.2.840.10008.5.1.4.1.1.2", 0);
        let nameless = object(STUDY, SERIES, "../../x", "CT", "1.2.840.10008.5.1.4.1.1.2", 0);
        let parts = [
            good[0].clone(),
            b"garbage".to_vec(),
            Vec::new(),
            without_study,
            path_like,
            nameless,
            good[1].clone(),
        ];
        let receipt = place.receive(&parts).await.unwrap();
        let answer = receipt.answer();
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.referenced.len(), 2);
        let failed: Vec<(&str, Option<u16>)> = answer
            .failed
            .iter()
            .map(|failure| (failure.sop_instance_uid.as_str(), failure.reason))
            .collect();
        assert_eq!(failed, [("1.2.4.7", Some(0xC000)), ("1.2.4.8", Some(0xC000))]);
        assert_eq!(answer.other_failures, [Some(0xC000); 3]);
        assert_eq!(place.bytes_of(receipt.series[0].id).await, good);

        let none = place.receive(&[b"garbage".to_vec()]).await.unwrap();
        assert_eq!(none.answer().status(), 409);
        assert_eq!(place.files().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn instances_of_another_study_than_that_of_the_url_fail() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let parts = [ct(STUDY, SERIES, "1.2.4.1", 0), ct("1.2.99", SERIES, "1.2.4.2", 0)];
        let origin = Origin {
            study: Some(STUDY.into()),
            actor: "test".into(),
            ..Origin::default()
        };
        let receipt = place.receive_from(&parts, &origin).await.unwrap();
        assert_eq!(receipt.answer().status(), 202);
        assert_eq!(receipt.how_many(&Outcome::Failed(0x0110)), 1);
        assert_eq!(place.number("select count(*) from series").await, 1);
        let origin = Origin {
            study: Some("../x".into()),
            ..origin
        };
        assert!(matches!(
            place.receive_from(&parts, &origin).await,
            Err(IngestError::BadStudy)
        ));
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_leaves_nothing() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let body = multipart(&slices(3));
        for cut in [body.len() - 4, body.len() / 2, 100, 0] {
            let error = place.receive_body(&body[..cut]).await.unwrap_err();
            assert!(matches!(error, IngestError::Multipart(_)), "{cut}: {error}");
        }
        let broken = futures_util::stream::iter([Ok(body.slice(..2000)), Err("connection reset")]);
        let error = place
            .ingest
            .receive(&place.boundary(), broken, &Origin::default())
            .await
            .unwrap_err();
        assert!(matches!(error, IngestError::Body(_)), "{error}");
        let empty = place.receive::<Vec<u8>>(&[]).await.unwrap_err();
        assert!(matches!(empty, IngestError::NoPart), "{empty}");
        assert!(place.files().is_empty());
        assert_eq!(
            place
                .number("select (select count(*) from series) + (select count(*) from batch)")
                .await,
            0
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_the_same_series_at_once_neither_wait_for_each_other_nor_lose() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        // Two series in each request, in opposite orders, half of the slices in common.
        let series = |of: &str, range: std::ops::Range<usize>| -> Vec<Vec<u8>> {
            range.map(|n| ct(STUDY, of, &format!("1.2.4.{n}"), 0)).collect()
        };
        for round in 0..5 {
            let (a, b) = (format!("1.2.5.{round}"), format!("1.2.6.{round}"));
            let first = [series(&a, 0..20), series(&b, 0..20)].concat();
            let second = [series(&b, 10..30), series(&a, 10..30)].concat();
            let (one, two) = tokio::join!(place.receive(&first), place.receive(&second));
            let (one, two) = (one.unwrap(), two.unwrap());
            let new = |receipt: &hilum::inbox::Receipt| receipt.how_many(&Outcome::Stored(Stored::New));
            assert_eq!(new(&one) + new(&two), 60);
            for (id, name) in one.series.iter().map(|series| (series.id, series.series_uid.clone())) {
                let mut wanted = series(&name, 0..30);
                wanted.sort();
                let mut held = place.bytes_of(id).await;
                held.sort();
                assert!(held == wanted, "every slice of {name} is held once");
            }
        }
        assert_eq!(
            place.number("select count(*) from series where instances = 30").await,
            10
        );
        assert_eq!(place.ingest.sweep().await.unwrap(), 0);
    })
    .await;
}

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

const DONE_JOB: &str = "insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, finished_at)
    select gen_random_uuid(), id, revision, 'm', 'd', 'p', 1, 'done', now() - interval '30 h' from series where state = 'taken'";
const LONG_AGO: &str = "update series set last_instance_at = now() - interval '30 h'";

#[tokio::test]
async fn slices_of_a_finished_job_go_and_come_back_when_they_are_sent_again() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let origin = whole();
        // A revision that is no longer the newest is known for good as well.
        let older = ct(STUDY, SERIES, "1.2.4.0", 9);
        place.receive(std::slice::from_ref(&older)).await.unwrap();
        let id = place.receive_from(&slices(3), &origin).await.unwrap().series[0].id;
        place.execute(LONG_AGO).await;
        assert_eq!(place.ingest.release().await.unwrap(), 0, "no job has it yet");
        place.execute("update series set state = 'taken'").await;
        place.execute(DONE_JOB).await;
        place.execute("update job set state = 'running'").await;
        assert_eq!(place.ingest.release().await.unwrap(), 0, "a job is running");
        place.execute("update job set state = 'failed'").await;
        assert_eq!(place.ingest.release().await.unwrap(), 0, "failed: for days");
        place.execute("update job set state = 'done'").await;
        assert_eq!(place.ingest.release().await.unwrap(), 1);
        assert!(place.files().is_empty());
        assert_eq!(
            place
                .number("select (select count(*) from batch) + (select count(*) from instance)")
                .await,
            0
        );
        assert_eq!(
            place
                .number("select jsonb_array_length(folded)::bigint from series")
                .await,
            4
        );
        assert_eq!(
            place.number("select (removed ->> 'instances')::bigint from job").await,
            4
        );
        assert_eq!(place.events("instances_removed").await, 1);
        assert_eq!(place.ingest.release().await.unwrap(), 0);

        let again = place.receive_from(&slices(3), &origin).await.unwrap();
        assert_eq!(again.how_many(&Outcome::Stored(Stored::KeptAnew)), 3);
        assert_eq!(again.answer().status(), 200);
        assert_eq!(again.series[0].state, SeriesState::Taken, "no second job");
        assert_eq!(place.bytes_of(id).await, slices(3));
        let old = place.receive_from(&[older], &origin).await.unwrap();
        assert_eq!(old.how_many(&Outcome::Stored(Stored::KeptAnew)), 1, "no new revision");
        assert_eq!(place.ingest.release().await.unwrap(), 0, "it came just now");
        let more = place.receive_from(&slices(4), &origin).await.unwrap();
        assert_eq!(more.series[0].state, SeriesState::Settled);
        assert_eq!(place.bytes_of(id).await, slices(4));
    })
    .await;
}

#[tokio::test]
async fn slices_of_finished_jobs_go_at_once_where_the_disk_has_no_room_and_no_others_do() {
    scratch(|database, url| async move {
        let place = Place::new(database.clone(), &url).await;
        let origin = whole();
        place.receive_from(&slices(3), &origin).await.unwrap();
        place
            .execute("update series set state = 'taken', last_instance_at = now() - interval '1 minute'")
            .await;
        place.execute(DONE_JOB).await;
        place
            .execute("update job set state = 'failed', finished_at = now() - interval '1 second'")
            .await;
        let mut full = settings();
        full.disk_watermark = 0.0;
        let full = Ingest::open(database, place.ingest.folder(), full, Limits::default()).unwrap();
        assert_eq!(full.release().await.unwrap(), 0, "a failed job may be tried again");
        place.execute("update job set state = 'done'").await;
        assert_eq!(place.ingest.release().await.unwrap(), 0, "there is room");
        assert_eq!(full.release().await.unwrap(), 1);
        assert!(place.files().is_empty());
        let refused = full
            .receive(
                &place.boundary(),
                futures_util::stream::pending::<Result<Bytes, String>>(),
                &origin,
            )
            .await;
        assert!(matches!(refused, Err(IngestError::DiskFull)), "before the body is read");
    })
    .await;
}

#[tokio::test]
async fn a_late_slice_alone_after_the_others_were_removed_is_told_and_the_whole_series_mends_it() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let origin = whole();
        place.receive_from(&slices(3), &origin).await.unwrap();
        place.execute("update series set state = 'taken'").await;
        place.execute(DONE_JOB).await;
        place.execute(LONG_AGO).await;
        assert_eq!(place.ingest.release().await.unwrap(), 1);
        let late = place.receive_from(&slices(4)[3..], &origin).await.unwrap();
        assert_eq!(late.series[0].state, SeriesState::Ignored);
        assert_eq!(place.text("select finding_code from series").await, "slices_removed");
        assert!(
            place
                .text("select finding_sentence from series")
                .await
                .starts_with("3 of its 4 slices")
        );
        let whole = place.receive_from(&slices(4), &origin).await.unwrap();
        assert_eq!(whole.series[0].state, SeriesState::Settled);
        assert_eq!(place.bytes_of(whole.series[0].id).await, slices(4));
    })
    .await;
}

#[tokio::test]
async fn a_file_stays_until_the_last_series_in_it_goes() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let parts = [ct(STUDY, "1.2.3.5", "1.2.4.1", 0), ct(STUDY, "1.2.3.6", "1.2.4.1", 0)];
        let receipt = place.receive(&parts).await.unwrap();
        place.execute("update series set state = 'ignored', last_instance_at = now() - interval '8 days' where series_uid = '1.2.3.5'").await;
        assert_eq!(place.ingest.release().await.unwrap(), 1);
        assert_eq!(place.files().len(), 1);
        assert_eq!(place.bytes_of(receipt.series[1].id).await, parts[1..]);
        place.execute("update series set state = 'ignored', last_instance_at = now() - interval '8 days'").await;
        assert_eq!(place.ingest.release().await.unwrap(), 1);
        assert!(place.files().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_sweep_takes_what_a_killed_process_left_and_nothing_else() {
    scratch(|database, url| async move {
        let place = Place::new(database.clone(), &url).await;
        place.receive(&slices(2)).await.unwrap();
        let kept = place.files();
        // Killed between the synced file and the commit: a file without a row.
        let left = place.ingest.folder().join("0190aaaa.batch");
        std::fs::write(&left, b"left").unwrap();
        std::fs::write(place.ingest.folder().join("other.txt"), b"not ours").unwrap();
        // One that another process is writing.
        let writing = std::fs::File::create(place.ingest.folder().join("0190bbbb.batch")).unwrap();
        writing.lock().unwrap();
        assert_eq!(place.ingest.sweep().await.unwrap(), 1);
        assert!(!left.exists() && kept[0].exists());
        assert_eq!(place.files().len(), 3);
        drop(writing);
        assert_eq!(place.ingest.sweep().await.unwrap(), 1);
        assert_eq!(place.number("select count(*) from batch").await, 1);
    })
    .await;
}

#[tokio::test]
async fn uploads_are_refused_before_their_body_while_there_is_no_room() {
    scratch(|database, url| async move {
        let unread = || {
            futures_util::stream::poll_fn(|_| -> std::task::Poll<Option<Result<bytes::Bytes, String>>> {
                panic!("the body was read")
            })
        };
        let mut full = receive_support::settings();
        full.disk_reserve_bytes = u64::MAX;
        let place = Place::with(database.clone(), &url, full).await;
        let error = place
            .ingest
            .receive(&place.boundary(), unread(), &Origin::default())
            .await
            .unwrap_err();
        assert!(matches!(error, IngestError::DiskFull), "{error}");
        let mut none = receive_support::settings();
        none.max_uploads = 0;
        let place = Place::with(database, &url, none).await;
        let error = place
            .ingest
            .receive(&place.boundary(), unread(), &Origin::default())
            .await
            .unwrap_err();
        assert!(matches!(error, IngestError::Busy), "{error}");
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
