//! `hilum submit`: asks a running service to fetch a study or a series from a PACS and to segment it.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{End, say};

/// What `hilum submit` is told.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("wanted").args(["study", "series"]).required(true).multiple(true))]
pub(super) struct Arguments {
    /// StudyInstanceUID; that of the series, as the service or the PACS knows it, if not given.
    #[arg(long, value_name = "UID")]
    study: Option<String>,
    /// SeriesInstanceUID; all CT series of the study if not given.
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// The PACS to fetch it from, by the name of its [[pacs]] block; without it what was received already is segmented.
    #[arg(long, value_name = "NAME")]
    pacs: Option<String>,
    /// The network, where it must be a certain one; the service refuses any other than its own.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Higher goes first.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i16,
    /// The service.
    #[arg(long, default_value = "http://127.0.0.1:8043", value_name = "URL", env = "HILUM_URL")]
    url: String,
    /// User name; the password is read from HILUM_PASSWORD.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<End> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask(arguments))?;
    say(serde_json::to_string_pretty(&answer)?);
    Ok(End::Done)
}

async fn ask(arguments: &Arguments) -> anyhow::Result<Value> {
    let url = format!("{}/api/v1/jobs", arguments.url.trim_end_matches('/'));
    let mut request = reqwest::Client::new().post(&url).json(&json!({
        "study_uid": arguments.study,
        "series_uid": arguments.series,
        "pacs": arguments.pacs,
        "model": arguments.model,
        "priority": arguments.priority,
    }));
    if let Some(user) = &arguments.user {
        let password = std::env::var("HILUM_PASSWORD").context("set HILUM_PASSWORD to the password of --user")?;
        request = request.basic_auth(user, Some(password));
    }
    let answer = request
        .send()
        .await
        .with_context(|| format!("no service answers at {}", arguments.url))?;
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    if !status.is_success() {
        let said = body["detail"]
            .as_str()
            .or_else(|| body["title"].as_str())
            .unwrap_or_default();
        bail!("the service answers {status}: {said}");
    }
    Ok(body)
}
