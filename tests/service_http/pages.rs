//! Results, pages, health, metrics and documentation.

use super::*;

#[tokio::test]
async fn readiness_tells_how_it_stands_with_the_network() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        let failed = ModelState::Failed("there is no library".to_owned());
        for (state, status, name, why) in [
            (ModelState::Loading, 503, "loading", None),
            (failed, 503, "failed", Some("there is no library")),
            (ModelState::Ready, 200, "ready", None),
            (ModelState::NotAsked, 200, "not_asked", None),
        ] {
            service.model.send_replace(state);
            let answer = service.get("/readyz").await;
            let wanted = json!({"database": true, "disk": true, "model": status == 200, "model_state": name, "model_error": why});
            assert_eq!((answer.status.as_u16(), answer.json()), (status, wanted));
            // It lives, whatever it is ready for.
            assert_eq!(service.get("/healthz").await.status, 200);
        }
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_result_comes_with_its_type_and_tag_or_says_why_it_does_not() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(4).await;
        let folder = service.folder.path().join("results/a/1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("overlay.png"), b"picture").unwrap();
        let report = json!({"files": [{"name": "overlay.png"}, {"name": "mask.nii.gz"}], "timings": [{"stage": "read", "seconds": 0.5}]});
        service
            .sql(&format!("update job set result_folder = 'results/a/1', report = '{report}' where id = '{}'", job(1)))
            .await;
        let path = |n: usize, name: &str| format!("/api/v1/jobs/{}/result/{name}", job(n));
        let picture = service.get(&path(1, "overlay.png")).await;
        assert_eq!((picture.status.as_u16(), &picture.body[..]), (200, &b"picture"[..]));
        assert_eq!(picture.headers["content-type"], "image/png");
        let tag = picture.headers["etag"].to_str().unwrap();
        let same = service.ask("GET", &path(1, "overlay.png"), &[("if-none-match", tag)], "").await;
        assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
        let other = service.ask("GET", &path(1, "overlay.png"), &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.status, 200);
        assert_eq!(service.get(&path(2, "overlay.png")).await.code(), "job_not_done");
        assert_eq!(service.get(&path(1, "segmentation.dcm")).await.code(), "result_not_made");
        assert_eq!(service.get(&path(1, "mask.nii.gz")).await.code(), "result_missing");
        assert_eq!(service.get(&path(1, "..%2f..%2fsecret")).await.code(), "no_such_result");
        // Results are never removed by Hilum, slices are: one that is gone is missing all the same.
        let held = service.get(&format!("/api/v1/jobs/{}", job(1))).await.json();
        assert_eq!(held["removed"], Value::Null);
        let removed = json!({"what": "slices", "instances": 4, "bytes": 2048, "at": "2026-01-02T03:04:05Z"});
        service
            .sql(&format!("update job set removed = '{removed}' where id = '{}'", job(1)))
            .await;
        assert_eq!(service.get(&path(1, "mask.nii.gz")).await.code(), "result_missing");
        let whole = service.get(&format!("/api/v1/jobs/{}", job(1))).await.json();
        assert_eq!(whole["removed"], removed);
        assert_eq!(whole["details"]["timings"][0]["stage"], "read");
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_says_where_nothing_of_it_goes_and_why() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(4).await;
        let withheld = json!([{"destination": "orthanc", "why": "sides_uncertain"}, {"destination": null, "why": "lungs_not_found"}]);
        service
            .sql(&format!("update job set withheld = '{withheld}' where id = '{}'", job(1)))
            .await;
        let one = service.get(&format!("/api/v1/jobs/{}", job(1))).await.json();
        assert_eq!(one["withheld"], withheld);
        let list = service.get("/api/v1/jobs?state=done").await.json();
        assert_eq!(list["jobs"][0]["withheld"], withheld);
        let other = service.get(&format!("/api/v1/jobs/{}", job(2))).await.json();
        assert_eq!(other["withheld"], json!([]));
        for path in ["/".to_owned(), format!("/jobs/{}", job(1)), format!("/jobs/{}/card", job(1))] {
            let page = service.get(&path).await.text();
            for line in ["not sent to orthanc: sides uncertain", "not sent to any PACS: lungs not found"] {
                assert!(page.contains(line), "{path}: {line}");
            }
        }
        let document = service.get("/api/v1/openapi.json").await.json();
        let schemas = &document["components"]["schemas"];
        assert!(schemas["Job"]["properties"]["withheld"].is_object() && schemas["Withheld"].is_object());
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_table_has_every_series_once_over_several_pages() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(1001).await;
        let table = service.get("/api/v1/measurements.csv").await.text();
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        let column = reader
            .headers()
            .unwrap()
            .iter()
            .position(|name| name == "series_instance_uid")
            .unwrap();
        let series: Vec<String> = reader.records().map(|row| row.unwrap()[column].to_owned()).collect();
        assert_eq!(series.len(), 1001);
        assert_eq!(series.iter().collect::<HashSet<_>>().len(), 1001);
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn pages_show_hostile_text_as_text_and_the_table_has_every_series() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        let hostile = "=<script>alert(1)</script>\"''";
        let report = json!({
            "verdict": {"outcome": "refused", "findings": [{"code": "too_few_slices", "sentence": hostile}]},
            "measurements": {"total": {"volume_ml": 4321.6}, "right": {"volume_ml": 2200.0}, "left": {"volume_ml": 2121.6}},
        });
        sqlx::query("update series set study_description = $1, accession_number = $1, study_date = '20260102'").bind(hostile).execute(&service.pool).await.unwrap();
        sqlx::query("update job set report = $1").bind(&report).execute(&service.pool).await.unwrap();
        for path in ["/".to_owned(), format!("/jobs/{}", job(1)), format!("/jobs/{}/card", job(1))] {
            let page = service.get(&path).await;
            assert_eq!(page.status, 200);
            let text = page.text();
            assert!(!text.contains("<script>alert") && text.contains("&lt;script&gt;alert(1)"), "{path}");
            for part in ["4322 ml", "2026-01-02"] {
                assert!(text.contains(part), "{path}: {part}");
            }
        }
        assert!(service.get("/").await.text().contains("Research use only"));
        let table = service.get("/api/v1/measurements.csv").await.text();
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 8);
        let mut column = |name: &str| reader.headers().unwrap().iter().position(|n| n == name).unwrap();
        let (total, description) = (column("total_ml"), column("study_description"));
        assert_eq!((&rows[0][total], &rows[0][description]), ("4321.6", format!("'{hostile}").as_str()));
        let failed = service.get("/api/v1/measurements.csv?state=failed").await.text();
        assert_eq!(failed.lines().count(), 3);
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_description_says_who_may_ask_and_what_any_operation_may_be_answered() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        let document = service.get("/api/v1/openapi.json").await.json();
        let schemes = document["components"]["securitySchemes"].as_object().unwrap();
        assert!(schemes.values().all(|scheme| scheme["type"] == "http"));
        assert_eq!(schemes["basic"]["scheme"], "basic");
        assert_eq!(schemes["bearer"]["scheme"], "bearer");
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let said = |status: &str| &operation["responses"][status];
                if ["/healthz", "/readyz"].contains(&path.as_str()) {
                    assert_eq!(operation["security"], json!([]), "{method} {path}");
                    assert!(said("401").is_null(), "{method} {path}");
                    continue;
                }
                assert_eq!(
                    operation["security"],
                    json!([{"basic": []}, {"bearer": []}, {}]),
                    "{method} {path}"
                );
                let answers = operation["responses"].as_object().unwrap();
                let done = answers.keys().find(|status| status.starts_with('2')).unwrap();
                let mut statuses = vec![done.as_str(), "401", "403", "421"];
                if path != "/metrics" {
                    statuses.push("503");
                }
                for status in statuses {
                    assert!(
                        said(status)["description"]
                            .as_str()
                            .is_some_and(|text| !text.is_empty()),
                        "{status} of {method} {path}"
                    );
                }
                assert_eq!(
                    said("401")["content"]["application/problem+json"]["schema"]["$ref"],
                    "#/components/schemas/Problem"
                );
            }
        }
        let role =
            |path: &str, method: &str| document["paths"][path][method]["responses"]["403"]["description"].clone();
        assert!(role("/api/v1/jobs", "get").as_str().unwrap().contains("`read`"));
        assert!(role("/api/v1/jobs", "post").as_str().unwrap().contains("`operate`"));
        assert!(
            role("/dicom-web/studies", "post")
                .as_str()
                .unwrap()
                .contains("`ingest`")
        );
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_documentation_page_asks_no_other_host() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        let page = service.get("/docs/").await;
        assert_eq!(page.status, 200);
        // The browser is told, whatever the page's own script would ask for.
        let policy = page.headers["content-security-policy"].to_str().unwrap().to_owned();
        let mut sources = policy.split("; ").map(|directive| directive.split_once(' ').unwrap());
        assert!(
            sources
                .clone()
                .any(|(directive, allowed)| directive == "default-src" && allowed == "'self'"),
            "{policy}"
        );
        let own = ["'self'", "'none'", "'unsafe-inline'", "data:"];
        assert!(
            sources.all(|(_, allowed)| allowed.split(' ').all(|source| own.contains(&source))),
            "{policy}"
        );
        let start = service.get("/docs/swagger-initializer.js").await.text();
        assert!(start.contains("\"validatorUrl\": \"none\""), "{start}");
        for text in [page.text(), start] {
            assert!(
                !text.contains("https://") && !text.contains("http://"),
                "loads from another host: {text}"
            );
        }
        service.stop().await;
    })
    .await;
}

#[tokio::test]
async fn health_metrics_and_documentation_are_there() {
    scratch(|database, url| async move {
        let service = Service::start(database, &url, Vec::new()).await;
        service.seed(8).await;
        assert_eq!(service.get("/healthz").await.status, 200);
        let ready = service.get("/readyz").await;
        assert_eq!(
            (ready.status.as_u16(), ready.json()),
            (
                200,
                json!({"database": true, "disk": true, "model": true, "model_state": "ready", "model_error": null})
            )
        );
        let metrics = service.get("/metrics").await.text();
        for line in [
            "hilum_disk_free_bytes",
            "hilum_disk_used_ratio",
            "hilum_jobs{state=",
            "hilum_http_requests_total{route=\"/readyz\"",
            "hilum_queue_age_seconds",
        ] {
            assert!(metrics.contains(line), "{line} in\n{metrics}");
        }
        let document = service.get("/api/v1/openapi.json").await.json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for (path, method, _) in table()
            .iter()
            .filter(|(path, ..)| path.starts_with("/api/") && !path.ends_with("openapi.json"))
        {
            let method = if *method == Method::GET { "get" } else { "post" };
            assert!(document["paths"][path][method].is_object(), "{method} {path}");
        }
        service.stop().await;
    })
    .await;
}
