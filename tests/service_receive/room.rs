//! What leaves the disk, and what is refused for want of room.

use sqlx::AssertSqlSafe;

use super::*;

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
        assert_eq!(
            place.number("select count(*) from job where removed is not null").await,
            0,
            "they are held"
        );
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
async fn slices_of_a_series_that_was_refused_failed_canceled_or_ignored_go_after_their_days() {
    scratch(|database, url| async move {
        let place = Place::new(database, &url).await;
        let origin = whole();
        place.receive_from(&slices(3), &origin).await.unwrap();
        place.execute("update series set state = 'taken'").await;
        place.execute(DONE_JOB).await;
        let mut times = 0;
        for [series, job] in [["taken", "refused"], ["taken", "failed"], ["taken", "canceled"], ["ignored", "superseded"]] {
            // What went comes back when it is sent again.
            place.receive_from(&slices(3), &origin).await.unwrap();
            let aged = async |came: u32, ended: u32| {
                let statement = format!(
                    "with aged as (update series set state = '{series}', last_instance_at = now() - interval '{came} days')
                     update job set state = '{job}', finished_at = now() - interval '{ended} days'"
                );
                sqlx::query(AssertSqlSafe(statement)).execute(&place.pool).await.unwrap();
            };
            aged(6, 6).await;
            assert_eq!(place.ingest.release().await.unwrap(), 0, "{series} {job}: six days");
            // The youngest counts; an ignored series has no end of a job.
            aged(6, 8).await;
            assert_eq!(place.ingest.release().await.unwrap(), 0, "{series} {job}: it came six days ago");
            if series == "taken" {
                aged(8, 6).await;
                assert_eq!(place.ingest.release().await.unwrap(), 0, "{job} six days ago");
            }
            aged(8, 8).await;
            assert_eq!(place.ingest.release().await.unwrap(), 1, "{series} {job}: eight days");
            assert!(place.files().is_empty());
            times += 1;
            assert_eq!(place.events("instances_removed").await, times);
            assert_eq!(place.number("select (removed ->> 'instances')::bigint from job").await, 3);
        }
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
