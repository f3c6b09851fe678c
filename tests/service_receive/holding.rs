//! What is held of what came.

use super::*;

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
            old_again.how_many(&Outcome::Stored(Stored::Older)),
            1,
            "an older revision changes nothing"
        );
        assert_eq!(old_again.answer().status(), 200);
        assert_eq!(place.bytes_of(receipt.series[0].id).await.len(), 2);
        assert_eq!(place.events("instance_revised").await, 1);
        assert_eq!(place.events("instance_older_revision").await, 1, "and is told");
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
