//! Lists: their pages, filters, indexes, and what is wrong with a question.

use super::*;

#[tokio::test]
async fn pages_follow_each_other_without_gaps_and_filters_hold() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(100).await;
        service
            .sql(
                "insert into retrieval (pacs, study_uid, series_uid, state, actor, created_at)
                 select 'orthanc', '1.2', '1.3.' || n, (array['seen', 'pending', 'running', 'done', 'failed'])[1 + n % 5]::retrieval_state, 'test',
                    now() - n / 3 * interval '1 second' from generate_series(1, 40) n",
            )
            .await;
        for (list, field, filter, expected) in [
            ("retrievals", "retrievals", "", 40),
            ("retrievals", "retrievals", "&state=failed", 8),
            ("retrievals", "retrievals", "&state=seen", 8),
            ("jobs", "jobs", "", 100),
            ("jobs", "jobs", "&state=done", 25),
            ("jobs", "jobs", "&study=1.2.3", 4),
            ("jobs", "jobs", "&study=1.2.3&state=failed", 1),
            ("jobs", "jobs", "&series=1.3.7", 1),
            ("jobs", "jobs", "&study=1.2.9&series=1.3.7", 0),
            ("jobs", "jobs", "&accession=A3", 10),
            ("series", "series", "", 100),
            ("series", "series", "&state=taken", 100),
            ("series", "series", "&state=receiving", 0),
            ("series", "series", "&study=1.2.3", 4),
            ("series", "series", "&series=1.3.7", 1),
            ("series", "series", "&study=1.2.1&series=1.3.7", 1),
            ("series", "series", "&accession=A3&state=taken", 10),
        ] {
            let mut seen = HashSet::new();
            let mut times: Vec<String> = Vec::new();
            let mut cursor = String::new();
            loop {
                let page = service.get(&format!("/api/v1/{list}?limit=7{filter}{cursor}")).await;
                assert_eq!(page.status, 200, "{}", page.text());
                let page = page.json();
                for row in page[field].as_array().unwrap() {
                    assert!(seen.insert(row["id"].to_string()), "{list}{filter}: {row} came twice");
                    times.push(row["series"]["received_at"].to_string());
                }
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!(seen.len(), expected, "{list}{filter}");
        }
        let since = time::OffsetDateTime::now_utc() - time::Duration::minutes(10);
        let since = since.format(&time::format_description::well_known::Rfc3339).unwrap();
        let recent = service
            .get(&format!("/api/v1/jobs?received_since={since}"))
            .await
            .json();
        let count = recent["jobs"].as_array().unwrap().len();
        assert!((8..=10).contains(&count), "{count} jobs of the last ten minutes");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn fetches_that_failed_are_found_newest_first_with_their_reason() {
    scratch(|database, url| async move {
        let service = Service::start(database.clone(), &url, Vec::new()).await;
        for (series, error, wait_seconds) in [
            ("1.3.1", Some("answered 404"), None),
            ("1.3.2", None, None),
            ("1.3.3", Some("answered 503"), Some(3600.0)),
            ("1.3.4", Some("2 of 3 instances cannot be taken"), None),
        ] {
            database
                .request_retrieval("orthanc", "1.2", series, 0, "test")
                .await
                .unwrap();
            let claimed = database
                .claim_retrieval("orthanc", 60.0, "test")
                .await
                .unwrap()
                .unwrap();
            match error {
                Some(error) => {
                    let fault = RetrievalFault {
                        error,
                        absent: false,
                        wait_seconds,
                    };
                    assert!(database.retrieval_failed(&claimed, &fault, "test").await.unwrap());
                }
                None => assert!(database.retrieved(&claimed, 3, "test").await.unwrap()),
            }
        }
        let told = async |path: &str| {
            let page = service.get(path).await.json();
            let told = page["retrievals"].as_array().unwrap().iter().map(|one| {
                let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
                [text("series_uid"), text("state"), text("error")].join(" ")
            });
            told.collect::<Vec<_>>()
        };
        let failed = [
            "1.3.4 failed 2 of 3 instances cannot be taken",
            "1.3.1 failed answered 404",
        ];
        assert_eq!(told("/api/v1/retrievals?state=failed").await, failed);
        assert_eq!(
            told("/api/v1/retrievals?state=pending").await,
            ["1.3.3 pending answered 503"]
        );
        assert_eq!(
            told("/api/v1/retrievals").await,
            [failed[0], "1.3.3 pending answered 503", "1.3.2 done -", failed[1]]
        );
        let page = service.get("/api/v1/retrievals?state=failed&limit=1").await.json();
        let rest = format!(
            "/api/v1/retrievals?state=failed&cursor={}",
            page["next"].as_str().unwrap()
        );
        assert_eq!(told(&rest).await, failed[1..]);
        // The rows are those that are asked for one by one.
        let one = &page["retrievals"][0];
        assert_eq!(&service.get(one["links"]["self"].as_str().unwrap()).await.json(), one);
        assert!(one["finished_at"].is_string() && one["next_attempt_at"].is_null());
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_has_a_stable_code() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        for (method, path, body, status, code) in [
            ("GET", "/nowhere", "", 404, "no_such_path"),
            ("DELETE", "/api/v1/jobs", "", 405, "method_not_allowed"),
            ("GET", "/api/v1/jobs/7", "", 400, "bad_path"),
            ("GET", "/api/v1/series/x", "", 400, "bad_path"),
            ("GET", "/api/v1/series/1.2.x", "", 400, "bad_path"),
            (
                "GET",
                "/api/v1/series/99999999999999999999",
                "",
                404,
                "series_not_found",
            ),
            ("GET", "/api/v1/series/1.2", "", 404, "series_not_found"),
            ("POST", "/api/v1/series/1.2/finalize", "", 404, "series_not_found"),
            ("GET", "/api/v1/jobs?limit=x", "", 400, "bad_query"),
            ("GET", "/api/v1/jobs?limit=201", "", 400, "bad_query"),
            ("GET", "/api/v1/jobs?stat=done", "", 400, "bad_query"),
            ("GET", "/api/v1/jobs?state=finished", "", 400, "unknown_state"),
            ("GET", "/api/v1/retrievals?state=lost", "", 400, "unknown_state"),
            ("GET", "/api/v1/retrievals?limit=0", "", 400, "bad_query"),
            ("GET", "/api/v1/retrievals?study=1.2", "", 400, "bad_query"),
            ("GET", "/api/v1/retrievals?cursor=x", "", 400, "bad_cursor"),
            ("GET", "/api/v1/jobs?cursor=%00", "", 400, "bad_cursor"),
            ("GET", "/api/v1/jobs?study=%00", "", 400, "bad_query"),
            (
                "GET",
                "/api/v1/jobs?study=1&accession=1",
                "",
                400,
                "filters_exclude_each_other",
            ),
            ("GET", "/api/v1/jobs?received_since=yesterday", "", 400, "bad_query"),
            ("GET", &format!("/api/v1/jobs/{}", job(1)), "", 404, "job_not_found"),
            ("GET", "/api/v1/series/1", "", 404, "series_not_found"),
            ("POST", "/api/v1/jobs", "{", 400, "bad_json"),
            ("POST", "/api/v1/jobs", "{\"study_uid\": \"../..\"}", 400, "bad_uid"),
            ("POST", "/api/v1/jobs", "{\"series_uid\": \"../..\"}", 400, "bad_uid"),
            ("POST", "/api/v1/jobs", "{}", 400, "no_uid"),
            (
                "POST",
                "/api/v1/jobs",
                "{\"series_uid\": \"1.2\"}",
                404,
                "series_not_found",
            ),
            (
                "POST",
                "/api/v1/jobs",
                "{\"study_uid\": \"1.2\"}",
                404,
                "series_not_found",
            ),
            (
                "POST",
                "/api/v1/jobs",
                "{\"study_uid\": \"1.2\", \"pacs\": \"x\"}",
                400,
                "unknown_pacs",
            ),
            (
                "POST",
                &format!("/api/v1/jobs/{}/cancel", job(1)),
                "",
                404,
                "job_not_found",
            ),
        ] {
            let answer = service
                .ask(method, path, &[("content-type", "application/json")], body)
                .await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (status, code),
                "{method} {path}"
            );
            if status == 405 {
                assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
            }
        }
        let answer = service
            .ask("POST", "/api/v1/jobs", &[("content-type", "text/plain")], "{}")
            .await;
        assert_eq!(answer.code(), "not_json");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn lists_use_their_indexes_under_generic_plans() {
    scratch(|_, url| async move {
        let pool = PgPool::connect(&url).await.unwrap();
        sqlx::raw_sql(
            "insert into series (study_uid, series_uid, state, revision, accession_number, received_at)
             select '1.2.' || n / 2, '1.3.' || n, 'taken', '\\x01', 'A' || n / 2, now() - n * interval '1 minute' from generate_series(1, 100000) n;
             insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, created_at)
             select gen_random_uuid(), id, '\\x01', 'm', 'd', 'p', 1, (array['done', 'done', 'done', 'failed', 'refused'])[1 + id % 5]::job_state, received_at from series;
             insert into retrieval (pacs, study_uid, series_uid, state, actor)
             select 'a', study_uid, series_uid, case when id % 1000 = 0 then 'failed' else 'done' end::retrieval_state, 'test' from series;
             insert into event (kind, actor) select 'a', 'b' from generate_series(1, 1000);
             analyze",
        )
        .execute(&pool)
        .await
        .unwrap();
        let mut connection = pool.acquire().await.unwrap();
        sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
        // The very statements that the library was compiled with.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
        let (mut looked_at, mut of_queue) = (0, 0);
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let statement: Value = serde_json::from_str(&text).unwrap();
            let sql = statement["query"].as_str().unwrap();
            let list = sql.contains("limit $4") && (sql.contains("from job j join series s") || sql.contains("source_count, received_at"));
            let retrievals = sql.contains("from retrieval") && sql.contains("id desc limit $2");
            let events = sql.contains("from event") && sql.contains("order by transaction, id limit");
            // What the queue does once for every job.
            let queue = ["update job set state = 'running'", "and id <> $6", "before.id = delivery.job_id"];
            let queue = queue.iter().any(|part| sql.contains(part));
            if !list && !retrievals && !events && !queue {
                continue;
            }
            looked_at += usize::from(!queue);
            of_queue += usize::from(queue);
            let parameters = statement["describe"]["parameters"]["Left"].as_array().unwrap().len();
            let nulls = match parameters {
                0 => String::new(),
                _ => format!("({})", vec!["null"; parameters].join(", ")),
            };
            sqlx::raw_sql(AssertSqlSafe(format!("deallocate all; prepare looked_at as {sql}")))
                .execute(&mut *connection)
                .await
                .unwrap();
            let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("explain execute looked_at{nulls}")))
                .persistent(false)
                .fetch_all(&mut *connection)
                .await
                .unwrap();
            let plan = plan.join("\n");
            if queue {
                // The tables beside them are small.
                assert!(!plan.contains("Seq Scan on job") && !plan.contains("Seq Scan on series"), "{sql}\n{plan}");
                continue;
            }
            assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
            assert!(
                !retrievals || plan.contains("retrieval_by_state") == sql.contains("$3"),
                "{sql}\n{plan}"
            );
            assert!(events || !plan.contains("Hash Join"), "{sql}\n{plan}");
        }
        drop(connection);
        pool.close().await;
        assert!(looked_at >= 15, "{looked_at} statements");
        assert_eq!(of_queue, 4, "statements of the queue");
    })
    .await;
}
