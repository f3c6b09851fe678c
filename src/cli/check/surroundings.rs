//! What the service leans on: its database, the service itself where one runs, and every PACS of the configuration. They are asked and never written to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::cli::serve::{memory_holds_a_series, named_database};
use crate::config::Settings;
use crate::database::Database;
use crate::dicomweb::{Client, ClientError, Deliver, Pacs, SeriesFilters};
use crate::model::{Check, Checks};

/// Who does not answer within so long is called away.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn check(settings: &Settings, checks: &mut Checks) -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the clients")?;
    if let Err(error) = memory_holds_a_series(settings) {
        let to_do = "the service does not start as it is: mend [jobs] or [series] of the configuration";
        checks.push(Check::problem("memory of the jobs", error.to_string(), to_do));
    }
    checks.push(runtime.block_on(database(settings)));
    checks.push(runtime.block_on(service(settings.service.listen)));
    for block in &settings.pacs {
        checks.push(runtime.block_on(pacs(block)));
    }
    Ok(())
}

async fn database(settings: &Settings) -> Check {
    const WHAT: &str = "database";
    let Some(url) = named_database(&settings.service) else {
        let seen = format!(
            "none is named: `hilum serve` would keep a private one in {}",
            settings.service.data_folder.display()
        );
        let to_do = "for the service, install PostgreSQL 15 or later, or name a server in service.database_url";
        return Check::absent(WHAT, seen, to_do);
    };
    // The URL holds a password and is not told.
    let asked = tokio::time::timeout(PATIENCE, async {
        let database = Database::connect(&url, 1).await?;
        let answer = database.ping().await;
        database.close().await;
        answer
    });
    let why = match asked.await {
        Ok(Ok(())) => return Check::ok(WHAT, "the server that is named answers"),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    Check::problem(
        WHAT,
        why,
        "start PostgreSQL, or mend service.database_url (DATABASE_URL)",
    )
}

async fn service(listen: SocketAddr) -> Check {
    let address = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), listen.port()),
        _ => listen,
    };
    let what = format!("service at {address}");
    let Some((status, answer)) = ready(address).await else {
        return Check::absent(what, "none runs there", "`hilum serve` starts it");
    };
    let Some(parts) = answer.as_object().filter(|parts| parts.contains_key("database")) else {
        let seen = format!("something else answers there ({status})");
        return Check::absent(what, seen, "to run the service, choose another service.listen");
    };
    readiness(what, parts)
}

/// What the parts of `/readyz` say.
fn readiness(what: String, parts: &Map<String, Value>) -> Check {
    let is_ready = |part: &str| parts.get(part) == Some(&Value::Bool(true));
    let said = |part: &str| parts.get(part).and_then(Value::as_str);
    let not_ready: Vec<&str> = ["database", "disk", "model"]
        .into_iter()
        .filter(|part| !is_ready(part))
        .collect();
    if not_ready.is_empty() {
        let seen = match said("model_state") {
            Some("not_asked") => "it runs, and database and disk are ready; it segments nothing (--roles)",
            _ => "it runs, and database, disk and network are ready",
        };
        return Check::ok(what, seen);
    }
    let mut seen = format!("it runs, and is not ready: {}", not_ready.join(", "));
    if let Some(why) = said("model_error") {
        seen = format!("{seen} ({why})");
    } else if said("model_state") == Some("loading") {
        seen += " (the network is being loaded)";
    }
    let to_do = match not_ready[..] {
        ["model"] if said("model_error").is_none() => "wait: building TensorRT's engines takes minutes",
        ["model"] => "mend [model] of the configuration, or what it names; it is tried again",
        _ => "its log says why: start the database, or make room on the disk of service.data_folder",
    };
    Check::problem(what, seen, to_do)
}

/// What `/readyz` says, where anybody answers.
async fn ready(address: SocketAddr) -> Option<(u16, Value)> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().ok()?;
    let answer = client.get(format!("http://{address}/readyz")).send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
}

/// Asks for one CT series, as polling would.
async fn pacs(block: &Pacs) -> Check {
    let what = format!("PACS {}", block.name);
    let impatient = Pacs {
        timeout_seconds: block.timeout_seconds.min(PATIENCE.as_secs()),
        ..block.clone()
    };
    let filters = SeriesFilters {
        modality: Some("CT".to_owned()),
        others: block.filters.clone(),
        ..SeriesFilters::default()
    };
    let asked = async { Client::new(&impatient)?.search_series(&filters, 0, 1).await };
    match asked.await {
        Ok(rows) => {
            let lists = if rows.is_empty() {
                "lists no CT series"
            } else {
                "lists CT series"
            };
            let seen = format!(
                "{} answers and {lists} by QIDO-RS; {}",
                block.url,
                uses(block).join(", ")
            );
            Check::ok(what, seen)
        }
        Err(error) => Check::problem(what, format!("{}: {error}", block.url), to_do(&error)),
    }
}

fn uses(block: &Pacs) -> Vec<String> {
    let mut uses = Vec::new();
    if block.count {
        uses.push("it is asked for counts".to_owned());
    }
    if block.poll {
        uses.push(format!("it is polled every {} s", block.poll_interval_seconds));
    }
    uses.push(
        match block.deliver {
            Deliver::Plausible => "plausible results go back to it",
            Deliver::All => "all results go back to it",
            Deliver::Nothing => "no results go back to it",
        }
        .to_owned(),
    );
    if block.deliver != Deliver::Nothing {
        uses.push("that it takes them shows with the first one".to_owned());
    }
    uses
}

fn to_do(error: &ClientError) -> &'static str {
    match error {
        ClientError::Settings(_) => "mend its [[pacs]] block",
        ClientError::Status(401 | 403) => {
            "give its [[pacs]] block a username and password, or a token, that may read there"
        }
        ClientError::Status(404 | 405) => {
            "set url in its [[pacs]] block to the root of its DICOMweb service, such as http://127.0.0.1:8042/dicom-web"
        }
        _ if error.is_transient() => "start it, or mend url in its [[pacs]] block",
        _ => "look whether url in its [[pacs]] block is the root of a DICOMweb service",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::model::Health;

    #[test]
    fn what_a_running_service_says_of_its_network_is_told() {
        let told = |disk: bool, model: bool, state: &str, why: Option<&str>| {
            let parts =
                json!({"database": true, "disk": disk, "model": model, "model_state": state, "model_error": why});
            let check = readiness("service".to_owned(), parts.as_object().unwrap());
            (check.health, check.seen, check.to_do)
        };
        let (health, seen, _) = told(true, true, "ready", None);
        assert_eq!(health, Health::Ok);
        assert!(seen.ends_with("database, disk and network are ready"), "{seen}");
        let (health, seen, _) = told(true, true, "not_asked", None);
        assert_eq!(health, Health::Ok);
        assert!(seen.contains("it segments nothing"), "{seen}");
        let (health, seen, to_do) = told(true, false, "loading", None);
        assert_eq!(health, Health::Problem);
        assert!(
            seen.contains("model (the network is being loaded)") && to_do.starts_with("wait"),
            "{seen}: {to_do}"
        );
        let (_, seen, to_do) = told(true, false, "failed", Some("there is no library"));
        assert!(
            seen.contains("model (there is no library)") && to_do.contains("[model]"),
            "{seen}: {to_do}"
        );
        let (_, seen, to_do) = told(false, true, "ready", None);
        assert!(seen.ends_with("disk") && to_do.contains("make room"), "{seen}: {to_do}");
    }
}
