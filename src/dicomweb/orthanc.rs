//! The native REST interface of an Orthanc, as far as Hilum needs it: a word of metadata at a series.

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;

use super::client::{Client, ClientError, bounded, status_of, uid};

/// The user-defined metadata that holds what became of a series. Orthanc leaves numbers from 1024 to its users; 9100 is that of the forwarding rule.
pub const FATE_METADATA: &str = "9101";

impl Client {
    /// Writes what became of a series as metadata at it. False where the block names no Orthanc, or the Orthanc does not know the series.
    ///
    /// # Errors
    /// No connection, or an answer that is no success.
    pub async fn mark_series(&self, study: &str, series: &str, text: &str) -> Result<bool, ClientError> {
        let Some(lookup) = self.orthanc_request(Method::POST, &["tools", "lookup"])? else {
            return Ok(false);
        };
        let response = lookup.body(uid(series)?.to_owned()).send().await?;
        if !response.status().is_success() {
            return Err(status_of(&response));
        }
        let mut marked = false;
        for id in series_ids(&bounded(response).await?)? {
            // The same SeriesInstanceUID may stand in more than one study.
            if !self.belongs(&id, study).await? {
                continue;
            }
            let Some(write) = self.orthanc_request(Method::PUT, &["series", &id, "metadata", FATE_METADATA])? else {
                return Ok(false);
            };
            let response = write.body(text.to_owned()).send().await?;
            if !response.status().is_success() {
                return Err(status_of(&response));
            }
            marked = true;
        }
        Ok(marked)
    }

    async fn belongs(&self, id: &str, study: &str) -> Result<bool, ClientError> {
        let Some(request) = self.orthanc_request(Method::GET, &["series", id, "study"])? else {
            return Ok(false);
        };
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(status_of(&response));
        }
        let answer: Value = json(&bounded(response).await?)?;
        Ok(answer
            .pointer("/MainDicomTags/StudyInstanceUID")
            .and_then(Value::as_str)
            == Some(study))
    }
}

/// Orthanc's own names of the series that a lookup found.
fn series_ids(answer: &Bytes) -> Result<Vec<String>, ClientError> {
    let found = json(answer)?;
    let named = |item: &Value| {
        let id = item.get("ID")?.as_str()?;
        let sane = id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        (item.get("Type")?.as_str()? == "Series" && sane).then(|| id.to_owned())
    };
    Ok(found.as_array().into_iter().flatten().filter_map(named).collect())
}

fn json(bytes: &Bytes) -> Result<Value, ClientError> {
    serde_json::from_slice(bytes).map_err(|_| ClientError::Answer("not JSON".into()))
}
