//! What users and PACS are known by, and the password of the database: none of it stands in a log, an error or an answer, whatever is logged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod quirk_server;
mod service_support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use argon2::password_hash::phc::PasswordHash;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hilum::database::testing::scratch;
use quirk_server::{QuirkServer, Stow};
use reqwest::{Method, Response};
use service_support::{Service, eventually, free_port, ready_without_pacs, secret, thin_phantom};

/// All that any library has to say; ONNX Runtime's knows no secret, and says much.
const ALL: &str = "trace,ort=warn";

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

/// The `[[user]]` block of one who may do everything.
fn user(name: &str, secret: &str) -> String {
    let hash: PasswordHash = Argon2::default().hash_password(secret.as_bytes()).unwrap();
    let hash = hash.to_string();
    format!("[[user]]\nname = {name:?}\nhash = {hash:?}\nroles = [\"ingest\", \"read\", \"operate\"]\n")
}

/// None of these stands in any line.
fn stand_nowhere(secrets: &[&str], text: &str) {
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

/// All that an answer says, with its status first.
async fn whole(answer: Response) -> String {
    let head = format!("{} {:?}", answer.status().as_u16(), answer.headers());
    format!("{head}\n{}\n", answer.text().await.unwrap())
}

#[tokio::test]
async fn what_users_and_a_pacs_are_known_by_stands_in_no_log_error_or_answer() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let [password, wrong, unknown, pacs_token] = [(); 4].map(|()| secret());
        let [token, wrong_token] = [(); 2].map(|()| format!("machine.{}", secret()));
        let pacs = QuirkServer::start().await;
        pacs.inside().stow.extend([Stow::Status(401); 1000]);
        let mut service = Service::new(Some(&url));
        let (reader, machine) = (user("reader", &password), user("machine", &token));
        service.configure(&format!(
            "[[pacs]]\nname = \"one\"\nurl = {:?}\ntoken = {pacs_token:?}\npoll = true\npoll_interval_seconds = 1\n{reader}{machine}",
            pacs.url()
        ));
        service.with("HILUM_DELIVERY__ALWAYS_TO", "[\"one\"]");
        service.with("HILUM_LOG", ALL);
        service.up().await;
        let ask = |path: &'static str, credential: &str| {
            let request = service.ask(Method::GET, path).header("Authorization", credential);
            async move { request.send().await.unwrap() }
        };
        let folder = tempfile::tempdir().unwrap();
        let slices = thin_phantom(folder.path(), 71);
        let right = [basic("reader", &password), format!("Bearer {token}")];
        let mut said = String::new();
        for credential in [
            basic("reader", &wrong),
            basic("nobody", &unknown),
            format!("Bearer {wrong_token}"),
            format!("Bearer {unknown}"),
            format!("Digest {unknown}"),
        ] {
            let answer = whole(ask("/api/v1/jobs", &credential).await).await;
            // One that is refused before its body is read may break off as well, with its connection.
            let headers = [("Authorization", credential.as_str()), ("Connection", "close")];
            let refused = service.stow(&slices, &headers).await;
            let refused = match refused {
                Ok(refused) => whole(refused).await,
                Err(error) => format!("401 {error:?}"),
            };
            for answer in [answer, refused] {
                assert!(answer.starts_with("401 "), "{answer}");
                said += &answer;
            }
        }
        for credential in &right {
            let answer = ask("/api/v1/jobs", credential).await;
            assert_eq!(answer.status(), 200);
            said += &whole(answer).await;
        }
        let headers = [("Authorization", right[0].as_str()), ("X-Hilum-Series-Complete", "true")];
        let answer = service.stow(&slices, &headers).await.unwrap();
        assert_eq!(answer.status(), 200);
        said += &whole(answer).await;
        let jobs = || async { ask("/api/v1/jobs", &right[1]).await.text().await.unwrap() };
        let failed = eventually("a failed delivery", || async {
            let jobs = jobs().await;
            jobs.contains("answered 401").then_some(jobs)
        })
        .await;
        pacs.inside().stow.clear();
        let delivered = eventually("the delivery", || async {
            let jobs = jobs().await;
            jobs.contains("\"delivered\"").then_some(jobs)
        })
        .await;
        said += &[failed, delivered].join("\n");
        drop(pacs);
        eventually("a failed round of asking", || async {
            service.log().contains("a PACS cannot be asked now").then_some(())
        })
        .await;
        for path in ["/api/v1/series", "/api/v1/retrievals", "/metrics"] {
            said += &whole(ask(path, &right[0]).await).await;
        }
        assert!(service.end());
        let log = service.log();
        assert!(log.contains("TRACE"), "{log}");
        assert!(log.contains("answered 401"), "{log}");
        let encoded = [("reader", &password), ("reader", &wrong), ("nobody", &unknown)];
        let encoded = encoded.map(|(name, word)| BASE64_STANDARD.encode(format!("{name}:{word}")));
        let mut secrets = vec!["$argon2", &password, &wrong, &unknown, &pacs_token, &token, &wrong_token];
        secrets.extend(encoded.iter().map(String::as_str));
        stand_nowhere(&secrets, &log);
        stand_nowhere(&secrets, &said);
    })
    .await;
}

/// Starts one that cannot go on, and waits for its end: what it said.
fn ends(mut service: Service) -> String {
    assert!(!service.ends_by_itself(), "{}", service.log());
    service.log()
}

#[test]
fn the_password_of_a_database_that_cannot_be_used_is_not_told() {
    if !ready_without_pacs() {
        return;
    }
    let server = std::env::var("HILUM_TEST_DATABASE_URL").unwrap();
    let secret = secret();
    let port = free_port();
    let urls = [
        // Nobody listens; its port is no number; its password is not escaped; the server knows no such database.
        format!("postgres://hilum:{secret}@127.0.0.1:{port}/hilum"),
        format!("postgres://hilum:{secret}@127.0.0.1:port/hilum"),
        format!("postgres://hilum:{secret}/{secret}@127.0.0.1/hilum"),
        format!("{}&password={secret}", server.replacen("/postgres?", "/nowhere?", 1)),
    ];
    let started = urls.map(|url| {
        let mut service = Service::new(Some(&url));
        service.with("HILUM_LOG", ALL);
        service.launch();
        service
    });
    for service in started {
        let log = ends(service);
        assert!(log.contains("cannot reach the database"), "{log}");
        stand_nowhere(&[&secret], &log);
    }
}

#[test]
fn secrets_of_a_configuration_that_cannot_be_read_are_not_told() {
    if !ready_without_pacs() {
        return;
    }
    const NUMBER: &str = "830571926483";
    let secret = secret();
    let block = "[[pacs]]\nname = \"one\"\nurl = \"http://127.0.0.1:1/\"\n";
    for (more, wanted) in [
        // Its quotes are forgotten, or one of them.
        (format!("{block}password = {NUMBER}"), "pacs.0.password"),
        (format!("{block}token = {NUMBER}.5"), "pacs.0.token"),
        (
            format!("{block}token = \"{secret}\nusername = \"a\""),
            "TOML parse error at line",
        ),
        (format!("{block}password = {secret}-x"), "TOML parse error at line"),
        (format!("{block}token = [\"{secret}\"]"), "pacs.0.token"),
        (format!("{block}token = \"a\x07{secret}\""), "TOML parse error at line"),
        // It stands where something else belongs.
        (
            format!("{block}client_certificate = {NUMBER}"),
            "pacs.0.client_certificate",
        ),
        (
            format!("[[user]]\nname = \"a\"\nroles = []\nhash = {NUMBER}"),
            "user.0.hash",
        ),
        (
            format!("{block}timeout_seconds = \"{secret}\""),
            "pacs.0.timeout_seconds",
        ),
    ] {
        let mut service = Service::new(None);
        service.configure(&more);
        service.launch();
        let log = ends(service);
        assert!(
            log.contains("configuration: ") && log.contains(wanted),
            "{wanted}: {log}"
        );
        stand_nowhere(&[&secret, NUMBER], &log);
    }
    let mut service = Service::new(None);
    service.with("HILUM_SERVICE__DATABASE_URL", NUMBER);
    service.launch();
    let log = ends(service);
    assert!(log.to_lowercase().contains("database_url"), "{log}");
    stand_nowhere(&[NUMBER], &log);
}

/// How a configuration that is refused at the start is answered: within a time, not well, and with these words.
fn does_not_start(service: &mut Service, told: &str) {
    service.launch();
    assert!(!service.ends_by_itself());
    assert!(service.log().contains(told), "{}", service.log());
}

#[tokio::test]
async fn off_loopback_it_starts_with_users_alone_and_makes_nothing_before() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        // An address for documentation, which is no machine's: were it taken, nothing could listen there.
        service.with("HILUM_SERVICE__LISTEN", "192.0.2.1:8043");
        does_not_start(&mut service, "hilum user add");
        assert!(!service.data().exists());
        let secret = secret();
        service.configure(&user("somebody", &secret));
        does_not_start(&mut service, "cannot listen on 192.0.2.1:8043");
    })
    .await;
}

#[tokio::test]
async fn nobody_else_enters_the_data_folder() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut service = Service::new(Some(&url));
        std::fs::create_dir(service.data()).unwrap();
        std::fs::set_permissions(service.data(), Permissions::from_mode(0o755)).unwrap();
        service.up().await;
        let mode = std::fs::metadata(service.data()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(service.end());
    })
    .await;
}
