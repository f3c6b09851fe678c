//! What the service leans on: its database, the service itself where one runs, and every PACS of the configuration. They are asked and never written to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

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
    let not_ready: Vec<&str> = parts
        .iter()
        .filter(|(_, ready)| **ready != Value::Bool(true))
        .map(|(part, _)| part.as_str())
        .collect();
    if not_ready.is_empty() {
        return Check::ok(what, "it runs, and database, disk and network are ready");
    }
    Check::problem(
        what,
        format!("it runs, and is not ready: {}", not_ready.join(", ")),
        "its log says why: start the database, or make room on the disk of service.data_folder",
    )
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
