//! A PACS asked once: the CT series of the last days, and for each whether it is to be retrieved.

use std::collections::{HashMap, HashSet};

use time::format_description::BorrowedFormatItem;
use time::{Duration, OffsetDateTime, macros::format_description};

use super::{ACTOR, PollError};
use crate::database::{Database, ListedSeries, RetrievalState};
use crate::dicomweb::dicom_json::{
    MANUFACTURER, REFERENCED_INSTANCE_SEQUENCE, REFERENCED_SERIES_SEQUENCE, SERIES_INSTANCE_UID,
};
use crate::dicomweb::{Client, ClientError, Pacs, SeriesFilters, SeriesRow};

/// Series asked for at once.
const PAGE: u32 = 200;
/// Most series of one round: a server that lists more, or pages for ever, is left there.
const MOST_SERIES: usize = 200_000;
/// So many studies in a row about which a PACS said nothing, and then nothing about what is simple either: it is away, and the round ends.
const AWAY_IN_A_ROW: usize = 3;
/// What our segmentations say as their Manufacturer.
const OURS: &str = "Hilum";
const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]");

/// What came of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Series that the PACS listed.
    pub listed: usize,
    /// Those that wait until their count is the same in two answers.
    pub seen: usize,
    /// Those that are to be retrieved from now on.
    pub pending: usize,
    /// Those that have our segmentation already.
    pub segmented: usize,
    /// Those that wait for the next round, since the PACS could not be asked about them.
    pub passed_over: usize,
}

/// Series that are passed over until the next round, so that one about which a PACS does not answer hides none behind it.
struct PassedOver<'a> {
    client: &'a Client,
    pacs: &'a Pacs,
    series: usize,
    /// Studies about which it had no answer: it is not asked about them again in this round.
    studies: HashSet<String>,
    away_in_a_row: usize,
}

impl PassedOver<'_> {
    /// One more.
    ///
    /// # Errors
    /// The PACS is away altogether: nothing is said about some studies in a row, nor to a question that every PACS answers.
    async fn one(&mut self, study_uid: &str, series_uid: &str, error: ClientError) -> Result<(), PollError> {
        tracing::warn!(pacs = self.pacs.name, study_uid, series_uid, %error, "a series is passed over in this round");
        self.count();
        if !is_away(&error) {
            self.away_in_a_row = 0;
            return Ok(());
        }
        self.studies.insert(study_uid.to_owned());
        self.away_in_a_row += 1;
        if self.away_in_a_row >= AWAY_IN_A_ROW {
            let simple = self.client.search_series(&filters(self.pacs), 0, 1).await;
            simple.map_err(|error| PollError::Pacs {
                name: self.pacs.name.clone(),
                error,
            })?;
            self.away_in_a_row = 0;
        }
        Ok(())
    }

    /// Whether a series is of a study about which there was no answer; it is passed over then.
    fn with_its_study(&mut self, study_uid: &str) -> bool {
        let passed_over = self.studies.contains(study_uid);
        if passed_over {
            self.count();
        }
        passed_over
    }

    fn count(&mut self) {
        metrics::counter!("hilum_series_passed_over_total", "pacs" => self.pacs.name.clone()).increment(1);
        self.series += 1;
    }

    /// The PACS answers.
    fn answered(&mut self) {
        self.away_in_a_row = 0;
    }
}

/// Whether a PACS is away or has no time, as opposed to what it says about one series being of no use, now and later: 500 is what servers say about files that they lost.
pub(super) fn is_away(error: &ClientError) -> bool {
    error.is_transient() && !matches!(error, ClientError::Status(500))
}

/// Asks a PACS for CT series and notes those that are to be retrieved. Two answers count as two where `apart_seconds` lie between them.
///
/// # Errors
/// A PACS that cannot be asked, or the database. What was noted before stays. That one series cannot be asked about is no error.
pub async fn look(database: &Database, client: &Client, pacs: &Pacs, apart_seconds: f64) -> Result<Looked, PollError> {
    let rows = all_series(client, &filters(pacs))
        .await
        .map_err(|error| PollError::Pacs {
            name: pacs.name.clone(),
            error,
        })?;
    let mut passed_over = PassedOver {
        client,
        pacs,
        series: 0,
        studies: HashSet::new(),
        away_in_a_row: 0,
    };
    let mut looked = Looked {
        listed: rows.len(),
        ..Looked::default()
    };
    let mut listed = Vec::with_capacity(rows.len());
    for row in rows {
        let count = match row.count {
            Some(count) => count,
            // Asking for every instance of what is held, round after round, would be too much; late slices of such a PACS come by its sender.
            None if database.is_held(&row.study_uid, &row.series_uid).await? => continue,
            None if passed_over.with_its_study(&row.study_uid) => continue,
            None => match client.search_instances(&row.study_uid, &row.series_uid).await {
                Ok(instances) => {
                    passed_over.answered();
                    u32::try_from(instances.len()).unwrap_or(u32::MAX)
                }
                Err(error) => {
                    passed_over.one(&row.study_uid, &row.series_uid, error).await?;
                    continue;
                }
            },
        };
        if count > 0 {
            listed.push(ListedSeries {
                study_uid: row.study_uid,
                series_uid: row.series_uid,
                count,
            });
        }
    }
    let mut segmented = HashMap::new();
    for series in database.not_yet_held(&pacs.name, &listed).await? {
        if passed_over.with_its_study(&series.study_uid) {
            continue;
        }
        if !segmented.contains_key(&series.study_uid) {
            match segmented_series(client, &series.study_uid).await {
                Ok(found) => {
                    passed_over.answered();
                    segmented.insert(series.study_uid.clone(), found);
                }
                Err(error) => {
                    passed_over.one(&series.study_uid, &series.series_uid, error).await?;
                    continue;
                }
            }
        }
        let ours = segmented.get(&series.study_uid);
        if ours.is_some_and(|ours| ours.contains(&(series.series_uid.clone(), series.count as usize))) {
            database
                .not_to_retrieve(&pacs.name, &series, "it has our segmentation", ACTOR)
                .await?;
            looked.segmented += 1;
            continue;
        }
        match database.series_seen(&pacs.name, &series, apart_seconds, ACTOR).await? {
            RetrievalState::Seen => looked.seen += 1,
            RetrievalState::Pending => looked.pending += 1,
            RetrievalState::Running | RetrievalState::Done | RetrievalState::Failed => {}
        }
    }
    looked.passed_over = passed_over.series;
    Ok(looked)
}

/// What a PACS is asked for: CT of the last days, narrowed by its block. A day more, since its clock may be of another time zone.
fn filters(pacs: &Pacs) -> SeriesFilters {
    let days = Duration::days(i64::from(pacs.look_back_days) + 1);
    let first = OffsetDateTime::now_utc().checked_sub(days);
    SeriesFilters {
        modality: Some("CT".into()),
        study_date: first.and_then(|day| Some(format!("{}-", day.format(DATE).ok()?))),
        others: pacs.filters.clone(),
        ..SeriesFilters::default()
    }
}

/// Every series that fits, page by page, each once; what is plainly no CT, or another series, is left out, since a server may not know the filter. Of more than
/// [`MOST_SERIES`] the first ones, and told.
pub(super) async fn all_series(client: &Client, filters: &SeriesFilters) -> Result<Vec<SeriesRow>, ClientError> {
    first_series(client, filters, MOST_SERIES).await
}

/// As [`all_series`]; of more than `most` the first ones.
async fn first_series(client: &Client, filters: &SeriesFilters, most: usize) -> Result<Vec<SeriesRow>, ClientError> {
    let (mut known, mut all) = (HashSet::new(), Vec::new());
    let mut offset = 0;
    loop {
        let page = client.search_series(filters, offset, PAGE).await?;
        let before = known.len();
        offset += u32::try_from(page.len()).unwrap_or(PAGE);
        for row in page {
            if known.insert((row.study_uid.clone(), row.series_uid.clone())) && fits(&row, filters) {
                all.push(row);
            }
        }
        // An empty page, or one with nothing new: the end, or a server that does not know offsets.
        if known.len() == before {
            return Ok(all);
        }
        if known.len() > most {
            tracing::warn!(
                pacs = client.name(),
                "it lists more than {most} series: the others are not looked at; look_back_days and filters of its [[pacs]] block make them fewer"
            );
            return Ok(all);
        }
    }
}

fn fits(row: &SeriesRow, filters: &SeriesFilters) -> bool {
    let modality = match (&filters.modality, &row.modality) {
        (Some(wanted), Some(modality)) => wanted == modality,
        _ => true,
    };
    modality
        && filters
            .series_uid
            .as_ref()
            .is_none_or(|wanted| *wanted == row.series_uid)
}

/// The series of a study that have a segmentation of ours, with the number of slices that it refers to. What a PACS says nothing useful about counts as none of ours: at
/// the worst a series is segmented once more, to the same bytes.
///
/// # Errors
/// A PACS that is away: what it holds is not known.
async fn segmented_series(client: &Client, study_uid: &str) -> Result<HashSet<(String, usize)>, ClientError> {
    let filters = SeriesFilters {
        study_uid: Some(study_uid.to_owned()),
        modality: Some("SEG".into()),
        ..SeriesFilters::default()
    };
    let mut found = HashSet::new();
    let rows = unless_away(all_series(client, &filters).await, study_uid, "")?;
    for row in rows.unwrap_or_default() {
        // A server that does not tell the manufacturer may still hold a segmentation of ours; its metadata tells.
        if row
            .manufacturer
            .as_deref()
            .is_some_and(|manufacturer| manufacturer != OURS)
        {
            continue;
        }
        let metadata = client.series_metadata(study_uid, &row.series_uid).await;
        let metadata = unless_away(metadata, study_uid, &row.series_uid)?.unwrap_or_default();
        for set in metadata
            .iter()
            .filter(|set| set.text(MANUFACTURER).as_deref() == Some(OURS))
        {
            for series in set.items(REFERENCED_SERIES_SEQUENCE) {
                if let Some(uid) = series.text(SERIES_INSTANCE_UID) {
                    found.insert((uid, series.items(REFERENCED_INSTANCE_SEQUENCE).count()));
                }
            }
        }
    }
    Ok(found)
}

/// What came; `None`, and told: an answer of no use.
///
/// # Errors
/// A PACS that is away.
fn unless_away<T>(answer: Result<T, ClientError>, study_uid: &str, series_uid: &str) -> Result<Option<T>, ClientError> {
    match answer {
        Err(error) if !is_away(&error) => {
            tracing::warn!(study_uid, series_uid, %error, "segmentations cannot be read: they count as none of ours");
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use axum::extract::Query;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;

    /// A page of a PACS that has no end.
    async fn page(Query(asked): Query<HashMap<String, String>>) -> Json<Value> {
        let number = |name: &str| asked[name].parse::<usize>().unwrap();
        let rows = (number("offset")..number("offset") + number("limit")).map(|at| {
            json!({"0020000D": {"vr": "UI", "Value": ["1.2"]}, "0020000E": {"vr": "UI", "Value": [format!("1.2.{at}")]}})
        });
        Json(rows.collect())
    }

    #[tokio::test]
    async fn of_a_pacs_that_lists_more_series_than_one_round_takes_the_first_ones_are_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server =
            tokio::spawn(async move { axum::serve(listener, Router::new().route("/series", get(page))).await });
        let block: Pacs = toml::from_str(&format!("name = \"one\"\nurl = {url:?}")).unwrap();
        let client = Client::new(&block).unwrap();
        let series = first_series(&client, &SeriesFilters::default(), 3 * PAGE as usize)
            .await
            .unwrap();
        assert_eq!(series.len(), 4 * PAGE as usize);
        assert_eq!(
            (series[0].series_uid.as_str(), series[799].series_uid.as_str()),
            ("1.2.0", "1.2.799")
        );
        server.abort();
    }
}
