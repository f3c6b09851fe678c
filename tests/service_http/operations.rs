//! What users do, and what becomes of it.

use super::*;

#[tokio::test]
async fn jobs_are_canceled_and_retried_as_their_state_allows() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        let act = async |n: usize, what: &str| {
            service
                .post(&format!("/api/v1/jobs/{}/{what}", job(n)), &json!({}))
                .await
        };
        // 4 is queued, 1 done, 2 failed, 3 refused; 8 will run.
        let canceled = act(4, "cancel").await;
        assert_eq!(
            (canceled.status.as_u16(), canceled.json()["state"].clone()),
            (200, json!("canceled"))
        );
        assert_eq!(act(4, "cancel").await.code(), "wrong_state");
        service
            .sql("update job set state = 'running', started_at = now() where state = 'queued'")
            .await;
        let asked = act(8, "cancel").await;
        assert_eq!(asked.status, 202);
        assert_eq!(
            (&asked.json()["state"], &asked.json()["cancel_requested"]),
            (&json!("running"), &json!(true))
        );
        for n in [1, 8] {
            let answer = act(n, "retry").await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "wrong_state"));
        }
        service
            .sql("update job set attempts = 5, error_code = 'x', error_sentence = 'y' where state = 'failed'")
            .await;
        let refused = act(3, "retry").await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["state"].clone()),
            (200, json!("queued")),
            "a limit may have been raised"
        );
        let again = act(2, "retry").await.json();
        assert_eq!(
            (&again["state"], &again["attempts"], &again["error"]),
            (&json!("queued"), &json!(0), &Value::Null)
        );
        assert_eq!(act(4, "retry").await.json()["state"], "queued");
        service.sql("update series set revision = '\\x02'").await;
        assert_eq!(act(6, "retry").await.code(), "series_changed");
        service.sql("update series set revision = '\\x01', folded = '[]'").await;
        assert_eq!(act(6, "retry").await.code(), "slices_removed");
        let kinds: Vec<(String, String)> = sqlx::query_as("select kind, actor from event order by id")
            .fetch_all(&service.pool)
            .await
            .unwrap();
        let kinds: Vec<&str> = kinds.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "job_canceled",
                "job_cancel_requested",
                "job_retried",
                "job_retried",
                "job_retried"
            ]
        );
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn results_are_delivered_again_the_queue_pauses_and_wishes_are_kept() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        let redeliver = format!("/api/v1/jobs/{}/redeliver", job(1));
        assert_eq!(service.post(&redeliver, &json!({})).await.code(), "nothing_to_deliver");
        // Whatever became of a delivery, it is due at once and has all its time before it; one that is being sent keeps its sender.
        service
            .sql(&format!(
                "insert into delivery (job_id, destination, state, file, sop_class_uid, sop_instance_uid, attempts, error, token, worker,
                     lease_until, not_before, wanted_at)
                 select '{}'::uuid, state, state::delivery_state, 'segmentation.dcm', '1', '2', 9, 'away', 5,
                     case when state = 'sending' then 'sender' end, case when state = 'sending' then now() + interval '1 minute' end,
                     now() + interval '1 hour', now() - interval '80 hours'
                 from unnest(array['pending', 'sending', 'delivered', 'given_up', 'withdrawn']) as state;
                 update job set deliveries_planned = true",
                job(1)
            ))
            .await;
        let again = service.post(&redeliver, &json!({})).await;
        assert_eq!(again.status, 202);
        for delivery in again.json()["deliveries"].as_array().unwrap() {
            let sent_now = delivery["destination"] == "sending";
            let (state, attempts) = if sent_now { ("sending", 9) } else { ("pending", 0) };
            assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!(state), &json!(attempts)));
        }
        let (due, fresh, held, planned): (i64, i64, i64, bool) = sqlx::query_as(
            "select count(*) filter (where d.state = 'pending' and d.not_before <= now()),
                 count(*) filter (where d.wanted_at > now() - interval '1 hour'),
                 count(*) filter (where d.worker = 'sender' and d.token = 5), bool_or(deliveries_planned)
             from delivery d join job on job.id = job_id",
        )
        .fetch_one(&service.pool)
        .await
        .unwrap();
        assert_eq!((due, fresh, held, planned), (4, 5, 1, false));
        let told: Vec<(String, i64)> = sqlx::query_as("select kind, count(*) from event where actor = 'anonymous' group by kind order by kind")
            .fetch_all(&service.pool)
            .await
            .unwrap();
        assert_eq!(told, [("delivery_redelivered".to_owned(), 4), ("delivery_requested".to_owned(), 1)]);
        // One without any delivery is decided on anew: its PACS may have been configured since.
        service
            .sql(&format!(
                "update job set state = 'done', segmentation_uid = '2.25.1', deliveries_planned = true where id = '{}'",
                job(5)
            ))
            .await;
        let undelivered = service.post(&format!("/api/v1/jobs/{}/redeliver", job(5)), &json!({})).await;
        assert_eq!(undelivered.status, 202);
        let unplanned: bool = sqlx::query_scalar(AssertSqlSafe(format!("select not deliveries_planned from job where id = '{}'", job(5))))
            .fetch_one(&service.pool)
            .await
            .unwrap();
        assert!(unplanned);
        let not_done = service.post(&format!("/api/v1/jobs/{}/redeliver", job(2)), &json!({})).await;
        assert_eq!(not_done.code(), "wrong_state");

        assert_eq!(service.post("/api/v1/queue/pause", &json!({})).await.json()["paused"], true);
        assert_eq!(service.get("/api/v1/queue").await.json()["paused"], true);
        assert_eq!(service.post("/api/v1/queue/resume", &json!({})).await.json()["paused"], false);

        let known = service.post("/api/v1/jobs", &json!({"study_uid": "1.2.0", "series_uid": "1.3.1"})).await;
        assert_eq!((known.status.as_u16(), &known.json()["jobs"][0]["id"]), (200, &json!(job(1))));
        service.sql("update series set state = 'ignored', revision = '\\x02', finding_code = 'x', instances = 3 where series_uid = '1.3.1'").await;
        let wished = service.post("/api/v1/jobs", &json!({"study_uid": "1.2.0", "series_uid": "1.3.1", "priority": 5})).await;
        assert_eq!(wished.status, 202);
        assert_eq!(wished.json()["series"][0]["state"], "settled");
        assert_eq!(wished.json()["series"][0]["priority"], 5);
        for _ in 0..2 {
            let fetched = service.post("/api/v1/jobs", &json!({"study_uid": "9.9", "pacs": "orthanc"})).await;
            assert_eq!((fetched.status.as_u16(), &fetched.json()["retrieval"]["state"]), (202, &json!("pending")));
            let link = fetched.json()["retrieval"]["links"]["self"].as_str().unwrap().to_owned();
            assert_eq!(service.get(&link).await.json(), fetched.json()["retrieval"]);
        }
        let retrievals: i64 = sqlx::query_scalar("select count(*) from retrieval").fetch_one(&service.pool).await.unwrap();
        assert_eq!(retrievals, 1);

        service.sql("update series set state = 'receiving', revision = null where series_uid = '1.3.2'").await;
        let id: i64 = sqlx::query_scalar("select id from series where series_uid = '1.3.2'").fetch_one(&service.pool).await.unwrap();
        let closed = service.post(&format!("/api/v1/series/{id}/finalize"), &json!({})).await.json();
        assert_eq!((&closed["state"], &closed["settled_by"]), (&json!("settled"), &json!("finalize")));
        for state in ["taken", "ignored"] {
            service.sql(&format!("update series set state = '{state}' where id = {id}")).await;
            let over = service.post(&format!("/api/v1/series/{id}/finalize"), &json!({})).await;
            assert_eq!((over.status.as_u16(), over.code().as_str()), (409, "wrong_state"), "{state}");
        }
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_series_is_named_by_our_id_or_its_uid_and_one_of_several_by_the_candidates_that_the_answer_names() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service
            .sql(
                "insert into series (study_uid, series_uid, state, modality, source) values ('1.5', '1.5.1', 'receiving', 'CT', 'here'),
                    ('1.6', '1.7.1', 'receiving', 'CT', 'here'), ('1.7', '1.7.1', 'receiving', 'CT', null)",
            )
            .await;
        let shown = service.get("/api/v1/series/1.5.1").await.json();
        assert_eq!(service.get(&format!("/api/v1/series/{}", shown["id"])).await.json(), shown);
        let closed = service.post("/api/v1/series/1.5.1/finalize", &json!({})).await.json();
        let of = |row: &Value| (row["id"].clone(), row["state"].clone(), row["settled_by"].clone());
        assert_eq!(of(&closed), (shown["id"].clone(), json!("settled"), json!("finalize")));

        let several = service.post("/api/v1/series/1.7.1/finalize", &json!({})).await;
        assert_eq!((several.status.as_u16(), several.code().as_str()), (409, "ambiguous_series"));
        assert_eq!(service.get("/api/v1/series/1.7.1").await.json(), several.json());
        let candidates = several.json()["candidates"].clone();
        let mut told: Vec<Value> = candidates.as_array().unwrap().clone();
        told.sort_by_key(|one| one["study_uid"].to_string());
        assert_eq!(
            told.iter().map(|one| (&one["study_uid"], &one["source"])).collect::<Vec<_>>(),
            [(&json!("1.6"), &json!("here")), (&json!("1.7"), &Value::Null)]
        );
        let waiting = "select count(*) from series where state = 'receiving' and series_uid = '1.7.1'";
        assert_eq!(sqlx::query_scalar::<_, i64>(waiting).fetch_one(&service.pool).await.unwrap(), 2);
        let one = service.post(&format!("/api/v1/series/{}/finalize", told[1]["id"]), &json!({})).await.json();
        assert_eq!((&one["study_uid"], &one["state"]), (&json!("1.7"), &json!("settled")));
        let document = service.get("/api/v1/openapi.json").await.json();
        for (path, method) in [("/api/v1/series/{id}", "get"), ("/api/v1/series/{id}/finalize", "post")] {
            let named = &document["paths"][path][method]["parameters"][0];
            assert_eq!((&named["name"], &named["schema"]["type"]), (&json!("id"), &json!("string")), "{path}");
        }
        assert!(document["components"]["schemas"]["Candidate"]["properties"]["study_uid"].is_object());
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_wish_for_a_study_makes_no_job_of_what_is_no_ct() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service
            .sql(
                "insert into series (study_uid, series_uid, state, modality, instances, finding_code)
                 values ('1.5', '1.5.1', 'ignored', 'SEG', 0, 'not_ct'), ('1.5', '1.5.2', 'receiving', 'CT', 3, null)",
            )
            .await;
        let wished = service.post("/api/v1/jobs", &json!({"study_uid": "1.5"})).await;
        assert_eq!(wished.status, 202);
        let series: Vec<Value> = wished.json()["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|series| series["series_uid"].clone())
            .collect();
        assert_eq!(series, [json!("1.5.2")]);
        let alone = service
            .post("/api/v1/jobs", &json!({"study_uid": "1.5", "series_uid": "1.5.1"}))
            .await;
        assert_eq!((alone.status.as_u16(), alone.code().as_str()), (409, "not_ct"));
        let kept: String =
            sqlx::query_scalar("select state::text || ' ' || finding_code from series where series_uid = '1.5.1'")
                .fetch_one(&service.pool)
                .await
                .unwrap();
        assert_eq!(kept, "ignored not_ct");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_old_series_gets_a_new_job_where_the_network_or_its_parameters_changed() {
    scratch(|database, url| async move {
        let service = Service::start(database.clone(), &url, Vec::new()).await;
        service.seed(8).await;
        let mut before = job(1);
        // The pipeline's revision counts as well as the digests.
        for changed in ["model_digest = 'old'", "parameters_digest = 'old'", "pipeline_revision = 0"] {
            service
                .sql(&format!("update job set state = 'done', {changed} where id = '{before}'"))
                .await;
            let wish = json!({"study_uid": "1.2.0", "series_uid": "1.3.1", "priority": 3});
            let wished = service.post("/api/v1/jobs", &wish).await;
            assert_eq!((wished.status.as_u16(), &wished.json()["jobs"]), (202, &json!([])), "{changed}");
            assert_eq!(wished.json()["series"][0]["state"], "settled");
            let made = database.make_job(&specification()).await.unwrap().unwrap();
            assert!(made.new, "{changed}");
            for _ in 0..2 {
                let known = service.post("/api/v1/jobs", &wish).await;
                assert_eq!(known.status, 200, "{changed}");
                let jobs = known.json()["jobs"].clone();
                assert_eq!(jobs.as_array().unwrap().len(), 1);
                assert_eq!((&jobs[0]["id"], &jobs[0]["predecessor"]), (&json!(made.id), &json!(before)));
                assert_eq!((&jobs[0]["state"], &jobs[0]["priority"]), (&json!("queued"), &json!(3)));
            }
            before = made.id.to_string();
        }
        // What waits is superseded by what is wished for now, and says why; back again, it waits again.
        let other = JobSpecification {
            model_digest: "other".into(),
            ..specification()
        };
        service.sql("update series set state = 'settled', settled_at = now() where series_uid = '1.3.1'").await;
        database.make_job(&other).await.unwrap().unwrap();
        let why: String = sqlx::query_scalar("select detail ->> 'why' from event where kind = 'job_superseded'")
            .fetch_one(&service.pool)
            .await
            .unwrap();
        assert!(why.contains("another network"), "{why}");
        let wished = service.post("/api/v1/jobs", &json!({"study_uid": "1.2.0", "series_uid": "1.3.1"})).await;
        assert_eq!(wished.status, 202);
        let again = database.make_job(&specification()).await.unwrap().unwrap();
        assert_eq!((again.id.to_string(), again.new), (before.clone(), false));
        // It is done: it stands for its series, in the list, in the table and at its PACS.
        service
            .sql(&format!(
                "update job set state = 'done', deliveries_planned = true where id = '{before}';
                 update series set source = 'orthanc' where series_uid = '1.3.1'"
            ))
            .await;
        let jobs = service.get("/api/v1/jobs?series=1.3.1").await.json()["jobs"].clone();
        let newest: Vec<&Value> = jobs.as_array().unwrap().iter().filter(|job| job["newest"] == true).collect();
        assert_eq!((newest.len(), &newest[0]["id"]), (1, &json!(before)));
        let table = service.get("/api/v1/measurements.csv?series=1.3.1").await.text();
        let rows: Vec<&str> = table.lines().skip(1).collect();
        assert!(rows.len() == 1 && rows[0].contains(&format!("{before},done")), "{table}");
        let mut fates = Vec::new();
        // A transaction of another test may hold events back for a moment.
        for _ in 0..200 {
            fates = database.series_fates(&["orthanc".to_owned()], None).await.unwrap().0;
            if !fates.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(fates.iter().map(hilum::database::SeriesFate::text).collect::<Vec<_>>(), ["done"]);
        // Slices that are gone make no job, and the answer says so.
        service
            .sql(&format!("update job set state = 'done', model_digest = 'older' where id = '{before}'; update series set folded = '[]'"))
            .await;
        let gone = service.post("/api/v1/jobs", &json!({"study_uid": "1.2.0", "series_uid": "1.3.1"})).await;
        assert_eq!((gone.status.as_u16(), gone.code().as_str()), (409, "slices_removed"));
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_retrieval_says_how_far_it_is_and_where_its_jobs_are() {
    scratch(|database, url| async move {
        let service = Service::start(database.clone(), &url, Vec::new()).await;
        let wish = json!({"study_uid": "1.2.9", "series_uid": "1.3.9", "pacs": "orthanc", "priority": 4});
        let asked = service.post("/api/v1/jobs", &wish).await.json()["retrieval"].clone();
        let path = format!("/api/v1/retrievals/{}", asked["id"]);
        for (name, value) in [
            ("state", json!("pending")),
            ("pacs", json!("orthanc")),
            ("study_uid", json!("1.2.9")),
            ("series_uid", json!("1.3.9")),
            ("priority", json!(4)),
            ("attempts", json!(0)),
            ("count", Value::Null),
            ("error", Value::Null),
            ("actor", json!("anonymous")),
            (
                "links",
                json!({"self": path, "series": "/api/v1/series?study=1.2.9&series=1.3.9", "jobs": "/api/v1/jobs?study=1.2.9&series=1.3.9"}),
            ),
        ] {
            assert_eq!(asked[name], value, "{name}");
        }
        assert!(asked["next_attempt_at"].is_string());
        let claimed = database.claim_retrieval("orthanc", 60.0, "a").await.unwrap().unwrap();
        let running = service.get(&path).await.json();
        assert_eq!(
            (&running["state"], &running["attempts"], &running["next_attempt_at"]),
            (&json!("running"), &json!(1), &Value::Null)
        );
        let fault = RetrievalFault {
            error: "answered 503",
            absent: false,
            wait_seconds: Some(0.0),
        };
        assert!(database.retrieval_failed(&claimed, &fault, "a").await.unwrap());
        let waits = service.get(&path).await.json();
        assert_eq!((&waits["state"], &waits["error"]), (&json!("pending"), &json!("answered 503")));
        let claimed = database.claim_retrieval("orthanc", 60.0, "a").await.unwrap().unwrap();
        assert!(database.retrieved(&claimed, 7, "a").await.unwrap());
        let done = service.get(&path).await.json();
        assert_eq!(
            (&done["state"], &done["count"], &done["error"]),
            (&json!("done"), &json!(7), &Value::Null)
        );
        assert!(done["finished_at"].is_string());
        for link in ["series", "jobs"] {
            assert_eq!(service.get(done["links"][link].as_str().unwrap()).await.status, 200);
        }
        assert_eq!(service.get("/api/v1/retrievals/999").await.code(), "retrieval_not_found");
        assert_eq!(service.get("/api/v1/retrievals/x").await.code(), "bad_path");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_series_is_wished_for_by_its_uid_alone() {
    scratch(|database, url| async move {
        let service = Service::start(database.clone(), &url, Vec::new()).await;
        service.seed(8).await;
        let known = service.post("/api/v1/jobs", &json!({"series_uid": "1.3.1"})).await;
        assert_eq!(
            (known.status.as_u16(), &known.json()["jobs"][0]["id"]),
            (200, &json!(job(1)))
        );
        for (model, status) in [("tiny", 200), ("other", 400)] {
            let wish = json!({"series_uid": "1.3.1", "model": model});
            assert_eq!(service.post("/api/v1/jobs", &wish).await.status, status, "{model}");
        }
        // What is known here is fetched without asking for its study, what is not with asking.
        for (series, study, filter) in [
            ("1.3.1", json!("1.2.0"), "study=1.2.0&series=1.3.1"),
            ("1.3.9", Value::Null, "series=1.3.9"),
        ] {
            let wish = json!({"series_uid": series, "pacs": "orthanc"});
            let asked = service.post("/api/v1/jobs", &wish).await;
            assert_eq!(asked.status, 202);
            let retrieval = asked.json()["retrieval"].clone();
            assert_eq!(
                (&retrieval["study_uid"], &retrieval["series_uid"]),
                (&study, &json!(series))
            );
            let jobs = retrieval["links"]["jobs"].as_str().unwrap();
            assert_eq!(jobs, format!("/api/v1/jobs?{filter}"));
            assert_eq!(service.get(jobs).await.status, 200);
        }
        service
            .sql("insert into series (study_uid, series_uid, state) values ('1.9', '1.3.1', 'receiving')")
            .await;
        let ambiguous = service.post("/api/v1/jobs", &json!({"series_uid": "1.3.1"})).await;
        assert_eq!(
            (ambiguous.status.as_u16(), ambiguous.code().as_str()),
            (409, "ambiguous_series")
        );
        service.stop().await;
    })
    .await;
}
