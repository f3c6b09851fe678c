//! The queue on a real PostgreSQL: claims, fencing, deaths, superseding, pausing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};

use hilum::database::testing::scratch;
use hilum::database::{
    Claim, ClaimedDelivery, Database, DeliveryState, JobEnd, JobProgress, JobSpecification, Operated, PlannedDelivery,
    Renewal, Wish, withdraw_deliveries,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use uuid::Uuid;

fn specification() -> JobSpecification {
    JobSpecification {
        model: "net 1".into(),
        model_digest: "abc".into(),
        parameters_digest: "def".into(),
        pipeline_revision: 1,
    }
}

/// What the next version runs with.
fn next_specification() -> JobSpecification {
    JobSpecification {
        model: "net 2".into(),
        model_digest: "xyz".into(),
        ..specification()
    }
}

fn done() -> JobEnd {
    JobEnd::Done {
        report: json!({}),
        result_folder: "results/x/1".into(),
        segmentation_uid: Some("2.25.1".into()),
    }
}

/// A settled series; its revision is made of the text.
async fn settle(url: &str, series: &str, revision: &str, priority: i16) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(
        "insert into series (study_uid, series_uid, state, revision, priority, settled_at) values ('1.2', $1, 'settled', $2, $3, now())
         on conflict (study_uid, series_uid) do update set state = 'settled', revision = $2, settled_at = now()",
    )
    .bind(series)
    .bind(revision.as_bytes())
    .bind(priority)
    .execute(&mut connection)
    .await
    .unwrap();
}

async fn execute(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

async fn column(url: &str, statement: &'static str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows = sqlx::query(statement).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

/// The jobs for which a condition holds.
async fn ids(url: &str, condition: &str) -> Vec<Uuid> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let jobs = AssertSqlSafe(format!("select id from job where {condition} order by id"));
    sqlx::query_scalar(jobs).fetch_all(&mut connection).await.unwrap()
}

/// The queued job of a new series.
async fn queued(database: &Database, url: &str, series: &str) -> Uuid {
    settle(url, series, "a", 0).await;
    database.make_job(&specification()).await.unwrap().unwrap().id
}

async fn claim(database: &Database, worker: &str) -> Claim {
    database.claim_job(worker, 60.0, true).await.unwrap().unwrap()
}

/// The next claim of a worker that runs with this.
async fn claim_with(database: &Database, worker: &str, specification: &JobSpecification) -> Option<Claim> {
    while let Some(claim) = database.claim_job(worker, 60.0, true).await.unwrap() {
        let claim = database.run_with(claim, worker, specification).await.unwrap();
        if claim.is_some() {
            return claim;
        }
    }
    None
}

fn failed() -> JobEnd {
    JobEnd::Failed {
        code: "internal".into(),
        sentence: "It did not work.".into(),
    }
}

/// The jobs in the order in which they were made: state and digest of the network.
const STATES: &str = "select state::text || ' ' || model_digest from job order by created_at";

#[tokio::test]
async fn the_same_series_revision_asked_for_twice_is_one_job() {
    scratch(|database, url| async move {
        settle(&url, "1", "a", 0).await;
        let first = database.make_job(&specification()).await.unwrap().unwrap();
        assert!(first.new);
        settle(&url, "1", "a", 0).await;
        let second = database.make_job(&specification()).await.unwrap().unwrap();
        assert_eq!((second.id, second.new), (first.id, false));
        assert_eq!(database.make_job(&specification()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn workers_beside_each_other_never_claim_one_job_twice() {
    scratch(|database, url| async move {
        for number in 0..40 {
            queued(&database, &url, &number.to_string()).await;
        }
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let database = database.clone();
            workers.spawn(async move {
                let mut claimed = Vec::new();
                while let Some(claim) = database.claim_job(&format!("w{worker}"), 60.0, true).await.unwrap() {
                    claimed.push(claim.id);
                }
                claimed
            });
        }
        let all: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
        assert_eq!(all.len(), 40);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 40);
    })
    .await;
}

#[tokio::test]
async fn higher_priority_goes_first_then_age() {
    scratch(|database, url| async move {
        for (series, priority) in [("low", -5), ("old", 0), ("new", 0), ("high", 9)] {
            settle(&url, series, "a", priority).await;
            database.make_job(&specification()).await.unwrap();
        }
        let mut order = Vec::new();
        while let Some(claim) = database.claim_job("w", 60.0, true).await.unwrap() {
            order.push(claim.series_uid);
        }
        assert_eq!(order, ["high", "old", "new", "low"]);
    })
    .await;
}

#[tokio::test]
async fn a_worker_whose_lease_was_over_can_change_nothing() {
    scratch(|database, url| async move {
        queued(&database, &url, "1").await;
        let frozen = claim(&database, "frozen").await;
        execute(&url, "update job set lease_until = now() - interval '1 second'").await;
        assert_eq!(database.reap_jobs("living").await.unwrap(), 1);
        let other = claim(&database, "living").await;
        assert!(other.token > frozen.token);
        assert_eq!(
            database
                .renew_job(&frozen, 60.0, &JobProgress::default())
                .await
                .unwrap(),
            Renewal::Lost
        );
        assert!(!database.end_job(&frozen, "frozen", &done()).await.unwrap());
        assert!(!database.hand_back_job(&frozen, "frozen", "", 0.0, true).await.unwrap());
        assert!(database.end_job(&other, "living", &done()).await.unwrap());
        assert!(
            !database.end_job(&other, "living", &done()).await.unwrap(),
            "it ends once"
        );
    })
    .await;
}

#[tokio::test]
async fn deaths_count_only_where_the_host_lived_on_and_end_in_worker_lost() {
    scratch(|database, url| async move {
        queued(&database, &url, "1").await;
        // The host went down with its worker: nothing is counted.
        database.worker_lives("w0", "host a").await.unwrap();
        claim(&database, "w0").await;
        execute(&url, "update job set lease_until = now() - interval '1 second'").await;
        database.reap_jobs("x").await.unwrap();
        assert_eq!(column(&url, "select deaths::text from job").await, ["0"]);
        for (death, worker) in ["w1", "w2", "w3"].into_iter().enumerate() {
            database.worker_lives(worker, "host b").await.unwrap();
            let claim = claim(&database, worker).await;
            assert_eq!(claim.alone, death == 2, "after two deaths it runs alone");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            database.worker_lives("witness", "host b").await.unwrap();
            execute(&url, "update job set lease_until = now() - interval '1 second'").await;
            database.reap_jobs("x").await.unwrap();
        }
        assert_eq!(
            column(&url, "select state::text || ' ' || error_code from job").await,
            ["failed worker_lost"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_job_that_must_run_alone_waits_for_an_idle_worker() {
    scratch(|database, url| async move {
        queued(&database, &url, "1").await;
        execute(&url, "update job set alone = true").await;
        for (series, priority) in [("younger", 0), ("urgent", 1)] {
            settle(&url, series, "a", priority).await;
            database.make_job(&specification()).await.unwrap();
        }
        let next = async |idle| {
            let claim = database.claim_job("w", 60.0, idle).await.unwrap();
            claim.map(|claim| claim.series_uid)
        };
        assert_eq!(
            next(false).await.as_deref(),
            Some("urgent"),
            "what is more urgent goes before it"
        );
        assert_eq!(next(false).await, None, "what is younger does not");
        assert_eq!(next(true).await.as_deref(), Some("1"));
        assert_eq!(next(false).await.as_deref(), Some("younger"));
    })
    .await;
}

#[tokio::test]
async fn a_job_that_must_run_alone_is_alone_on_its_host() {
    scratch(|database, url| async move {
        for (worker, host) in [("here 1", "here"), ("here 2", "here"), ("there", "there")] {
            database.worker_lives(worker, host).await.unwrap();
        }
        queued(&database, &url, "alone").await;
        execute(&url, "update job set alone = true").await;
        for series in ["2", "3"] {
            queued(&database, &url, series).await;
        }
        let next = async |worker| database.claim_job(worker, 60.0, true).await.unwrap();
        let series = |claim: &Option<Claim>| claim.as_ref().map(|claim| claim.series_uid.clone());
        let first = next("here 1").await;
        assert_eq!(series(&first).as_deref(), Some("alone"));
        assert_eq!(next("here 2").await, None, "nothing starts beside it on its host");
        assert_eq!(series(&next("there").await).as_deref(), Some("2"));
        database.end_job(&first.unwrap(), "here 1", &done()).await.unwrap();
        let beside = next("here 2").await;
        assert_eq!(series(&beside).as_deref(), Some("3"));

        queued(&database, &url, "again alone").await;
        execute(&url, "update job set alone = true where state = 'queued'").await;
        queued(&database, &url, "younger").await;
        assert_eq!(
            next("here 1").await,
            None,
            "another worker of the host has a job, and nobody passes it"
        );
        database.end_job(&beside.unwrap(), "here 2", &done()).await.unwrap();
        assert_eq!(series(&next("here 1").await).as_deref(), Some("again alone"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_of_a_host_that_claim_at_once_take_nothing_beside_a_job_that_must_run_alone() {
    scratch(|database, url| async move {
        let workers = ["here 1", "here 2", "here 3", "here 4"];
        for worker in workers {
            database.worker_lives(worker, "here").await.unwrap();
        }
        for round in 0..30 {
            queued(&database, &url, &format!("alone {round}")).await;
            execute(&url, "update job set alone = true where state = 'queued'").await;
            for younger in 0..3 {
                queued(&database, &url, &format!("{younger} {round}")).await;
            }
            let claims = workers.map(|worker| {
                let database = database.clone();
                tokio::spawn(async move { database.claim_job(worker, 60.0, true).await.unwrap() })
            });
            let mut claimed = Vec::new();
            for claim in claims {
                claimed.extend(claim.await.unwrap().map(|claim| claim.series_uid));
            }
            assert_eq!(claimed, [format!("alone {round}")]);
            execute(
                &url,
                "update job set state = 'done' where state in ('queued', 'running')",
            )
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn late_slices_supersede_what_is_queued_or_running_and_follow_what_is_done() {
    scratch(|database, url| async move {
        settle(&url, "1", "a", 0).await;
        let first = database.make_job(&specification()).await.unwrap().unwrap();
        let held = claim(&database, "w").await;
        execute(
            &url,
            "insert into delivery (job_id, destination, state, file, sop_class_uid, sop_instance_uid)
             select id, wanted, wanted::delivery_state, 'f', '1', '2' from job, unnest(array['pending', 'delivered']) as wanted",
        )
        .await;
        execute(&url, "update series set state = 'receiving'").await;
        assert_eq!(database.supersede_reopened().await.unwrap(), 1);
        let deliveries = column(&url, "select state::text from delivery order by destination").await;
        assert_eq!(deliveries, ["delivered", "withdrawn"], "what was not made yet is withdrawn");
        let told = column(
            &url,
            "select concat_ws(' ', event.kind, detail ->> 'destination', detail ->> 'why') from event join job on job.id = event.job_id
             where event.series_id = job.series_id and event.kind in ('delivery_withdrawn', 'job_superseded') order by event.id",
        )
        .await;
        assert_eq!(
            told,
            ["delivery_withdrawn pending more slices came", "job_superseded more slices came"]
        );
        assert_eq!(
            database.renew_job(&held, 60.0, &JobProgress::default()).await.unwrap(),
            Renewal::Lost
        );
        settle(&url, "1", "b", 0).await;
        let second = database.make_job(&specification()).await.unwrap().unwrap();
        assert_ne!(second.id, first.id);
        let held = claim(&database, "w").await;
        assert_eq!((held.id, held.predecessor), (second.id, Some(first.id)));
        assert!(database.end_job(&held, "w", &done()).await.unwrap());
        execute(&url, "update series set state = 'receiving'").await;
        assert_eq!(database.supersede_reopened().await.unwrap(), 0, "a finished one stays");
        settle(&url, "1", "c", 0).await;
        database.make_job(&specification()).await.unwrap();
        let states = column(&url, "select state::text from job order by created_at").await;
        assert_eq!(states, ["superseded", "done", "queued"]);
        let predecessors = column(
            &url,
            "select coalesce(predecessor::text, '') from job order by created_at",
        )
        .await;
        assert_eq!(
            predecessors,
            [String::new(), first.id.to_string(), second.id.to_string()]
        );
        let named = column(
            &url,
            "select coalesce(detail ->> 'predecessor', '') from event where kind = 'job_queued' order by id",
        )
        .await;
        assert_eq!(named, predecessors);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_waited_while_the_network_changed_is_one_of_the_network_that_ran() {
    scratch(|database, url| async move {
        let (before, now) = (specification(), next_specification());
        let job = queued(&database, &url, "1").await;
        let held = claim_with(&database, "w", &now).await.unwrap();
        assert_eq!((held.id, &held.specification), (job, &now));
        assert!(database.end_job(&held, "w", &done()).await.unwrap());
        let row = database.job(job).await.unwrap().unwrap();
        assert_eq!((row.model, row.model_digest, row.state.as_str()), (now.model.clone(), now.model_digest.clone(), "done"));
        let told = "select concat_ws(' ', detail #>> '{from,model_digest}', detail #>> '{to,model_digest}') from event where kind = 'job_network_changed'";
        assert_eq!(column(&url, told).await, ["abc xyz"]);
        // Who wishes for the present network has it, and nothing runs again.
        let wish = Wish {
            study_uid: "1.2".into(),
            series_uid: Some("1".into()),
            priority: 0,
        };
        let wished = database.wish_for_received(&wish, Some(&now), "someone").await.unwrap();
        assert_eq!((wished.jobs, wished.series), (vec![job], Vec::new()));
        settle(&url, "1", "a", 0).await;
        let made = database.make_job(&now).await.unwrap().unwrap();
        assert_eq!((made.id, made.new), (job, false));
        assert_eq!(claim_with(&database, "w", &now).await, None);
        // And who wishes for the older one does not get this result.
        let wished = database.wish_for_received(&wish, Some(&before), "someone").await.unwrap();
        assert_eq!(wished.jobs, Vec::<Uuid>::new());
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_was_lost_does_not_change_the_network_of_a_job() {
    scratch(|database, url| async move {
        queued(&database, &url, "1").await;
        let frozen = claim(&database, "frozen").await;
        execute(&url, "update job set lease_until = now() - interval '1 second'").await;
        database.reap_jobs("x").await.unwrap();
        let frozen = database
            .run_with(frozen, "frozen", &next_specification())
            .await
            .unwrap();
        assert_eq!(frozen, None);
        assert_eq!(column(&url, STATES).await, ["queued abc"]);
    })
    .await;
}

#[tokio::test]
async fn a_retried_job_of_an_older_network_gives_way_to_the_job_of_the_present_one() {
    for (end, expected) in [
        (done(), ["superseded abc", "done xyz"]),
        (failed(), ["superseded abc", "running xyz"]),
        (JobEnd::Canceled, ["superseded abc", "running xyz"]),
    ] {
        scratch(|database, url| async move {
            let (before, now) = (specification(), next_specification());
            let old = queued(&database, &url, "1").await;
            let held = claim_with(&database, "w", &before).await.unwrap();
            assert!(database.end_job(&held, "w", &failed()).await.unwrap());
            settle(&url, "1", "a", 0).await;
            let new = database.make_job(&now).await.unwrap().unwrap().id;
            let held = claim_with(&database, "w", &now).await.unwrap();
            assert!(database.end_job(&held, "w", &end).await.unwrap());
            assert_eq!(database.retry_job(old, "someone").await.unwrap(), Operated::Done);
            assert!(
                database.job(old).await.unwrap().unwrap().newest,
                "it was wished for last"
            );
            let again = claim_with(&database, "w", &now).await;
            assert_eq!(column(&url, STATES).await, expected);
            let newest = [old, new].map(async |job| database.job(job).await.unwrap().unwrap().newest);
            let [old_newest, new_newest] = newest;
            assert_eq!((old_newest.await, new_newest.await), (false, true));
            let successors = "select detail ->> 'successor' from event where kind = 'job_superseded'";
            assert_eq!(column(&url, successors).await, [new.to_string()]);
            if let Some(again) = &again {
                assert!(again.id == new && again.token > held.token);
                assert!(database.end_job(again, "w", &done()).await.unwrap());
            }
            assert_eq!(again.is_none(), matches!(end, JobEnd::Done { .. }));
            assert_eq!(claim_with(&database, "w", &before).await, None, "nothing is left");
        })
        .await;
    }
}

#[tokio::test]
async fn workers_of_two_versions_beside_each_other_do_every_series_once_and_say_with_what() {
    scratch(|database, url| async move {
        for number in 0..40 {
            settle(&url, &number.to_string(), "a", 0).await;
            let with = [specification(), next_specification()][number % 2].clone();
            database.make_job(&with).await.unwrap();
        }
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..6 {
            let (database, with) = (
                database.clone(),
                [specification(), next_specification()][worker % 2].clone(),
            );
            workers.spawn(async move {
                let (name, mut ended) = (format!("w{worker}"), Vec::new());
                while let Some(claim) = claim_with(&database, &name, &with).await {
                    // Some are handed back, to be taken by whoever comes.
                    if claim.attempt == 1 && claim.series_id % 3 == 0 {
                        assert!(database.hand_back_job(&claim, &name, "", 0.0, true).await.unwrap());
                    } else {
                        assert!(database.end_job(&claim, &name, &done()).await.unwrap());
                        ended.push((claim.id.to_string(), with.model_digest.clone()));
                    }
                }
                ended
            });
        }
        let ended: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
        assert_eq!(ended.len(), 40);
        let said = column(
            &url,
            "select id::text || ' ' || model_digest from job where state = 'done'",
        )
        .await;
        let mut ended: Vec<String> = ended.into_iter().map(|(job, with)| format!("{job} {with}")).collect();
        let mut said = said;
        ended.sort();
        said.sort();
        assert_eq!(said, ended);
    })
    .await;
}

/// Wishes, retries, cancels and works on one series at random with two networks, whose workers take turns. Whatever happened: once they have nothing to do any more, which is
/// soon, the slices as they are have a job that ended, no job waits, and each that is done was done with the network that its row names.
#[tokio::test]
async fn random_walks_with_two_networks_lose_no_series_and_come_to_an_end() {
    scratch(|database, url| async move {
        let with = [specification(), next_specification()];
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let steps = proptest::collection::vec((0..8u8, 0..2usize), 5..30);
        for walk in 0..16 {
            let steps = steps.new_tree(&mut runner).unwrap().current();
            println!("walk {walk}: {steps:?}");
            let series = format!("walk {walk}");
            let (mut revision, mut held, mut ran) = (0, None::<Claim>, BTreeMap::new());
            settle(&url, &series, "0", 0).await;
            database.make_job(&with[0]).await.unwrap();
            for (step, which) in steps {
                match (step, held.take()) {
                    (0, _) => {
                        settle(&url, &series, &revision.to_string(), 0).await;
                        database.make_job(&with[which]).await.unwrap();
                    }
                    (1, _) => {
                        revision += 1;
                        settle(&url, &series, &revision.to_string(), 0).await;
                        database.make_job(&with[which]).await.unwrap();
                    }
                    (2, _) => {
                        for job in ids(&url, "state in ('failed', 'canceled')").await {
                            database.retry_job(job, "someone").await.unwrap();
                        }
                    }
                    (3, _) => {
                        for job in ids(&url, "state = 'queued'").await {
                            database.cancel_job(job, "someone").await.unwrap();
                        }
                    }
                    (4, Some(claim)) => {
                        if database.end_job(&claim, "w", &done()).await.unwrap() {
                            ran.insert(claim.id.to_string(), claim.specification.model_digest);
                        }
                    }
                    (5, Some(claim)) => {
                        database.end_job(&claim, "w", &failed()).await.unwrap();
                    }
                    (6, Some(claim)) => {
                        database.hand_back_job(&claim, "w", "", 0.0, true).await.unwrap();
                    }
                    (_, Some(claim)) => held = Some(claim),
                    (_, None) => held = claim_with(&database, "w", &with[which]).await,
                }
            }
            execute(&url, "update job set lease_until = now() - interval '1 second' where state = 'running'").await;
            database.reap_jobs("x").await.unwrap();
            let mut turns = 0;
            while let Some(claim) = claim_with(&database, "w", &with[turns % 2]).await {
                assert!(database.end_job(&claim, "w", &done()).await.unwrap());
                ran.insert(claim.id.to_string(), claim.specification.model_digest);
                turns += 1;
                assert!(turns < 4, "the same slices again and again");
            }
            let over = "state in ('done', 'failed', 'canceled') and series_revision = (select revision from series where id = series_id)";
            assert!(!ids(&url, over).await.is_empty(), "its slices have no result, and nobody knows");
            let done_with = column(&url, "select id::text || ' ' || model_digest from job where state = 'done' order by id").await;
            let ran: Vec<String> = ran.into_iter().map(|(job, with)| format!("{job} {with}")).collect();
            assert_eq!(done_with, ran);
            execute(&url, "delete from series").await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_age_of_the_queue_counts_from_the_last_wish() {
    scratch(|database, url| async move {
        let job = queued(&database, &url, "1").await;
        execute(&url, "update job set created_at = now() - interval '30 days'").await;
        let days = async || database.queue().await.unwrap().oldest_seconds / 86_400.0;
        assert!((29.9..30.1).contains(&days().await));
        let held = claim(&database, "w").await;
        assert!(
            database
                .hand_back_job(&held, "w", "disk full", 0.0, true)
                .await
                .unwrap()
        );
        assert!(days().await > 29.9, "an attempt that is given back is the same wish");
        assert_eq!(database.cancel_job(job, "someone").await.unwrap(), Operated::Done);
        assert!(days().await < 0.1, "nothing waits");
        assert_eq!(database.retry_job(job, "someone").await.unwrap(), Operated::Done);
        assert!(days().await < 0.1, "it was wished for a moment ago");
        // Superseded, and wished for again.
        settle(&url, "1", "a", 0).await;
        database.make_job(&next_specification()).await.unwrap();
        execute(
            &url,
            "update job set created_at = now() - interval '30 days', queued_again_at = now() - interval '29 days'",
        )
        .await;
        settle(&url, "1", "a", 0).await;
        assert_eq!(database.make_job(&specification()).await.unwrap().unwrap().id, job);
        assert!(days().await < 0.1);
    })
    .await;
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_out() {
    scratch(|database, url| async move {
        queued(&database, &url, "1").await;
        execute(&url, "update service set paused = true").await;
        assert_eq!(database.claim_job("w", 60.0, true).await.unwrap(), None);
        execute(&url, "update service set paused = false").await;
        assert!(database.claim_job("w", 60.0, true).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn every_change_is_told_by_an_event_of_its_own_transaction() {
    scratch(|database, url| async move {
        queued(&database, &url, "1").await;
        let held = claim(&database, "w").await;
        database
            .hand_back_job(&held, "w", "disk full", 0.0, true)
            .await
            .unwrap();
        let held = claim(&database, "w").await;
        database.end_job(&held, "w", &done()).await.unwrap();
        // Somebody wishes for it once more.
        settle(&url, "1", "a", 0).await;
        assert!(!database.make_job(&specification()).await.unwrap().unwrap().new);
        let kinds = column(&url, "select kind from event order by id").await;
        assert_eq!(
            kinds,
            [
                "job_queued",
                "job_started",
                "job_handed_back",
                "job_started",
                "job_done",
                "job_found"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn the_time_left_goes_by_the_pace_of_the_windows_of_the_present_attempt() {
    scratch(|database, url| async move {
        queued(&database, &url, "1").await;
        let first = claim(&database, "w").await;
        // An hour ago.
        execute(&url, "update job set started_at = now() - interval '1 hour'").await;
        assert!(
            database
                .hand_back_job(&first, "w", "disk full", 0.0, true)
                .await
                .unwrap()
        );
        let second = claim(&database, "w").await;
        // It read, and waited for the network, for an hour.
        execute(&url, "update job set started_at = now() - interval '1 hour'").await;
        let left_after = async |windows_done: i32| {
            let progress = JobProgress {
                stage: Some("windows"),
                windows_done,
                windows_total: 10,
            };
            let renewed = database.renew_job(&second, 60.0, &progress).await.unwrap();
            assert_eq!(renewed, Renewal::Held);
            database.job(second.id).await.unwrap().unwrap().seconds_left
        };
        assert_eq!(left_after(0).await, None);
        assert_eq!(left_after(2).await, None, "nothing is known of their pace");
        // Two windows took ten seconds.
        execute(&url, "update job set windows_begun_at = now() - interval '10 seconds'").await;
        let left = left_after(4).await.unwrap();
        assert!((29.0..31.0).contains(&left), "{left}");
    })
    .await;
}

/// What a random walk may do to one job.
#[derive(Clone, Copy, Debug)]
enum Step {
    Claim,
    Renew(usize),
    Done(usize),
    HandBack(usize),
    Expire,
    Reopen,
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Claim),
        (0usize..4).prop_map(Step::Renew),
        (0usize..4).prop_map(Step::Done),
        (0usize..4).prop_map(Step::HandBack),
        Just(Step::Expire),
        Just(Step::Reopen),
        Just(Step::Settle),
    ];
    proptest::collection::vec(step, 1..25)
}

/// Walks at random with several workers that hold old and new claims. The model: only the claim that was made last, and not taken away since, may change the job; a job ends
/// done at most once.
#[tokio::test]
async fn random_walks_never_let_an_old_claim_write() {
    scratch(|database, url| async move {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for walk in 0..12 {
            let steps = steps().new_tree(&mut runner).unwrap().current();
            let series = format!("walk {walk}");
            let mut revision = 0;
            settle(&url, &series, "0", 0).await;
            let mut job = database.make_job(&specification()).await.unwrap().unwrap().id;
            let (mut claims, mut living): (Vec<Claim>, Option<i64>) = (Vec::new(), None);
            let mut over = false;
            for step in steps {
                match step {
                    Step::Claim => {
                        if let Some(claim) = database.claim_job("w", 60.0, true).await.unwrap() {
                            assert!(living.is_none() && !over && claim.id == job, "{step:?}");
                            living = Some(claim.token);
                            claims.push(claim);
                        }
                    }
                    Step::Renew(which) | Step::Done(which) | Step::HandBack(which) => {
                        let Some(claim) = claims.iter().rev().nth(which).cloned() else {
                            continue;
                        };
                        let mine = claim.id == job && living == Some(claim.token);
                        let did = match step {
                            Step::Renew(_) => {
                                database.renew_job(&claim, 60.0, &JobProgress::default()).await.unwrap()
                                    != Renewal::Lost
                            }
                            Step::Done(_) => database.end_job(&claim, "w", &done()).await.unwrap(),
                            _ => database.hand_back_job(&claim, "w", "", 0.0, false).await.unwrap(),
                        };
                        assert_eq!(did, mine, "{step:?} with {claim:?}");
                        if did && !matches!(step, Step::Renew(_)) {
                            living = None;
                            over = matches!(step, Step::Done(_));
                        }
                    }
                    Step::Expire => {
                        execute(
                            &url,
                            "update job set lease_until = now() - interval '1 second' where state = 'running'",
                        )
                        .await;
                        let reaped = database.reap_jobs("x").await.unwrap();
                        assert_eq!(reaped, usize::from(living.is_some()));
                        living = None;
                    }
                    Step::Reopen => {
                        execute(&url, "update series set state = 'receiving' where state = 'taken'").await;
                        database.supersede_reopened().await.unwrap();
                        living = None;
                        over = true;
                    }
                    Step::Settle => {
                        revision += 1;
                        settle(&url, &series, &revision.to_string(), 0).await;
                        job = database.make_job(&specification()).await.unwrap().unwrap().id;
                        (living, over) = (None, false);
                    }
                }
            }
            execute(
                &url,
                "update job set state = 'canceled' where state in ('queued', 'running')",
            )
            .await;
        }
        let twice = column(
            &url,
            "select job_id::text from event where kind = 'job_done' group by job_id having count(*) > 1",
        )
        .await;
        assert!(twice.is_empty(), "{twice:?}");
    })
    .await;
}

/// What a random walk may do to one delivery.
#[derive(Clone, Copy, Debug)]
enum Move {
    Plan,
    Claim,
    Renew(usize),
    Delivered(usize),
    Failed(usize, bool),
    Expire,
    Redeliver,
    Withdraw,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::Plan),
        4 => Just(Move::Claim),
        1 => (0usize..3).prop_map(Move::Renew),
        3 => (0usize..3).prop_map(Move::Delivered),
        2 => (0usize..3, any::<bool>()).prop_map(|(which, over)| Move::Failed(which, over)),
        1 => Just(Move::Expire),
        2 => Just(Move::Redeliver),
        1 => Just(Move::Withdraw),
    ];
    proptest::collection::vec(one, 10..40)
}

/// What is delivered in the walks.
fn planned() -> PlannedDelivery {
    PlannedDelivery {
        destination: "one".into(),
        file: "results/x/1/segmentation.dcm".into(),
        sop_class_uid: "1.2".into(),
        sop_instance_uid: "2.25.1".into(),
    }
}

/// One delivery on its way, and its model: where it stands, whose claim holds, and whether that may be taken over.
struct Walk {
    database: Database,
    pool: PgPool,
    job: Uuid,
    claims: Vec<ClaimedDelivery>,
    state: DeliveryState,
    token: i64,
    lapsed: bool,
    attempts: i32,
}

impl Walk {
    /// A delivery of a new job.
    async fn begin(database: &Database, pool: &PgPool, url: &str, series: &str) -> Walk {
        let job = queued(database, url, series).await;
        let worker = claim(database, "w").await;
        assert!(database.end_job(&worker, "w", &done()).await.unwrap());
        let mut walk = Walk {
            database: database.clone(),
            pool: pool.clone(),
            job,
            claims: Vec::new(),
            state: DeliveryState::Pending,
            token: 0,
            lapsed: false,
            attempts: 0,
        };
        walk.step(Move::Plan).await;
        walk
    }

    /// One of the latest claims, and whether it may still write.
    fn claimed(&self, which: usize) -> Option<(ClaimedDelivery, bool)> {
        let claim = self.claims.iter().rev().nth(which)?;
        let holds = self.state == DeliveryState::Sending && self.token == claim.token;
        Some((claim.clone(), holds))
    }

    async fn step(&mut self, step: Move) {
        let database = self.database.clone();
        match step {
            Move::Plan => {
                for job in database.unplanned_jobs(10).await.unwrap() {
                    assert!(database.plan_deliveries(&job, &[planned()], &[], "test").await.unwrap());
                }
            }
            Move::Claim => {
                let sending = self.state == DeliveryState::Sending;
                let due = self.state == DeliveryState::Pending || sending && self.lapsed;
                let claim = database.claim_delivery("w", 60.0, &[]).await.unwrap();
                assert_eq!(claim.is_some(), due, "{claim:?}");
                if let Some(claim) = claim {
                    assert!(claim.job_id == self.job && claim.token > self.token);
                    (self.state, self.token, self.lapsed) = (DeliveryState::Sending, claim.token, false);
                    self.attempts += 1;
                    self.claims.push(claim);
                }
            }
            Move::Renew(which) => {
                if let Some((claim, holds)) = self.claimed(which) {
                    assert_eq!(database.renew_delivery(&claim, 60.0).await.unwrap(), holds);
                    self.lapsed &= !holds;
                }
            }
            Move::Delivered(which) => {
                if let Some((claim, holds)) = self.claimed(which) {
                    assert_eq!(database.delivered(&claim, "w", json!({})).await.unwrap(), holds);
                    self.state = if holds { DeliveryState::Delivered } else { self.state };
                }
            }
            Move::Failed(which, over) => {
                if let Some((claim, holds)) = self.claimed(which) {
                    let (hours, after) = if over {
                        (0.0, DeliveryState::GivenUp)
                    } else {
                        (1.0, DeliveryState::Pending)
                    };
                    let failed = database.delivery_failed(&claim, "w", "away", 0.0, hours).await.unwrap();
                    assert_eq!(failed, holds.then_some(after));
                    self.state = failed.unwrap_or(self.state);
                }
            }
            Move::Expire => {
                let over = "update delivery set lease_until = now() - interval '1 second' where state = 'sending'";
                sqlx::query(over).execute(&self.pool).await.unwrap();
                self.lapsed = true;
            }
            Move::Redeliver => {
                assert_eq!(
                    database.redeliver_job(self.job, "someone").await.unwrap(),
                    Operated::Asked
                );
                if self.state != DeliveryState::Sending {
                    (self.state, self.attempts) = (DeliveryState::Pending, 0);
                }
            }
            Move::Withdraw => {
                let open = matches!(self.state, DeliveryState::Pending | DeliveryState::Sending);
                let mut transaction = self.pool.begin().await.unwrap();
                let withdrawn = withdraw_deliveries(&mut transaction, self.job, None, "test").await;
                transaction.commit().await.unwrap();
                assert_eq!(withdrawn.unwrap(), usize::from(open));
                self.state = if open { DeliveryState::Withdrawn } else { self.state };
            }
        }
        let row = sqlx::query_as("select state, attempts from delivery where job_id = $1").bind(self.job);
        let rows: Vec<(DeliveryState, i32)> = row.fetch_all(&self.pool).await.unwrap();
        assert_eq!(rows, [(self.state, self.attempts)]);
    }
}

/// Walks at random with several senders that hold old and new claims of one delivery, while it is planned again, wished for again, withdrawn, and its leases run out. The model:
/// only the claim that was made last, and not taken away since, may change it; there is one delivery, however often it is planned.
#[tokio::test]
async fn random_walks_of_a_delivery_follow_their_model() {
    scratch(|database, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut delivered = 0;
        for number in 0..16 {
            let steps = moves().new_tree(&mut runner).unwrap().current();
            let mut walk = Walk::begin(&database, &pool, &url, &format!("walk {number}")).await;
            for (at, step) in steps.iter().enumerate() {
                println!("walk {number}: {:?}", &steps[..=at]);
                let before = walk.state;
                walk.step(*step).await;
                delivered += i64::from(walk.state == DeliveryState::Delivered && before != walk.state);
            }
            execute(&url, "update delivery set state = 'withdrawn'").await;
            execute(&url, "update job set deliveries_planned = true").await;
        }
        assert!(delivered > 3, "some walks come to a good end");
        let told = "select count(*)::text from event where kind = 'delivery_delivered'";
        assert_eq!(column(&url, told).await, [delivered.to_string()]);
        pool.close().await;
    })
    .await;
}
