//! QIDO-RS: what a PACS has, asked series by series and instance by instance; and what it says, as plain rows.

use std::collections::{BTreeMap, HashSet};

use super::client::{Client, ClientError, uid};
use super::dicom_json::{
    DataSet, MANUFACTURER, MODALITY, NUMBER_OF_SERIES_RELATED_INSTANCES, SERIES_INSTANCE_UID, SOP_CLASS_UID,
    SOP_INSTANCE_UID, STUDY_DATE, STUDY_INSTANCE_UID,
};

/// Instances asked for at once.
const PAGE: u32 = 1000;
/// Most instances of a series: a server that pages for ever is left there.
const MOST_INSTANCES: usize = 100_000;

/// Which series are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesFilters {
    /// Of this study alone.
    pub study_uid: Option<String>,
    /// This series alone.
    pub series_uid: Option<String>,
    /// Modality.
    pub modality: Option<String>,
    /// StudyDate as QIDO-RS matches it: `20260101`, or a range as `20260101-20260107` or `20260101-`.
    pub study_date: Option<String>,
    /// More filters by keyword or tag.
    pub others: BTreeMap<String, String>,
}

/// A series as a PACS lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesRow {
    /// StudyInstanceUID.
    pub study_uid: String,
    /// SeriesInstanceUID.
    pub series_uid: String,
    /// NumberOfSeriesRelatedInstances, where it tells.
    pub count: Option<u32>,
    /// Modality.
    pub modality: Option<String>,
    /// StudyDate.
    pub study_date: Option<String>,
    /// Manufacturer.
    pub manufacturer: Option<String>,
}

/// An instance as a PACS lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRow {
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SOPClassUID, where it tells.
    pub sop_class_uid: Option<String>,
}

impl Client {
    /// One page of series: at most `limit` from `offset` on. A page may be shorter than asked for although more follow; an empty one, or one with nothing new, is the last.
    ///
    /// # Errors
    /// No connection, or an answer that cannot be read.
    pub async fn search_series(
        &self,
        filters: &SeriesFilters,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<SeriesRow>, ClientError> {
        let (offset, limit) = (offset.to_string(), limit.to_string());
        let mut query: Vec<(&str, &str)> = filters
            .others
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if let Some(series) = &filters.series_uid {
            query.push(("SeriesInstanceUID", uid(series)?));
        }
        if let Some(modality) = &filters.modality {
            query.push(("Modality", modality));
        }
        if let Some(date) = &filters.study_date {
            query.push(("StudyDate", date));
        }
        for field in ["00080020", "00080060", "00080070", "00201209"] {
            query.push(("includefield", field));
        }
        query.push(("offset", &offset));
        query.push(("limit", &limit));
        let request = match &filters.study_uid {
            Some(study) => self.get(&["studies", uid(study)?, "series"], &query)?,
            None => self.get(&["series"], &query)?,
        };
        let sets = self.data_sets(request).await?;
        Ok(sets
            .iter()
            .filter_map(|set| series_row(set, filters.study_uid.as_deref()))
            .collect())
    }

    /// How many instances a series has there; `None` where the series is unknown or the PACS does not tell.
    ///
    /// # Errors
    /// No connection, or an answer that cannot be read.
    pub async fn series_count(&self, study: &str, series: &str) -> Result<Option<u32>, ClientError> {
        let filters = SeriesFilters {
            study_uid: Some(study.to_owned()),
            series_uid: Some(series.to_owned()),
            ..SeriesFilters::default()
        };
        // A server that does not know the filter lists the whole study.
        let rows = self.search_series(&filters, 0, PAGE).await?;
        Ok(rows
            .into_iter()
            .find(|row| row.series_uid == series)
            .and_then(|row| row.count))
    }

    /// The instances of a series, each once.
    ///
    /// # Errors
    /// No connection, or an answer that cannot be read.
    pub async fn search_instances(&self, study: &str, series: &str) -> Result<Vec<InstanceRow>, ClientError> {
        let limit = PAGE.to_string();
        let (mut known, mut rows) = (HashSet::new(), Vec::new());
        let mut offset = 0usize;
        loop {
            let at = offset.to_string();
            let query = [("offset", at.as_str()), ("limit", limit.as_str())];
            let request = self.get(&["studies", uid(study)?, "series", uid(series)?, "instances"], &query)?;
            let sets = self.data_sets(request).await?;
            let before = rows.len();
            for set in sets.iter() {
                let Some(sop_instance_uid) = set.text(SOP_INSTANCE_UID) else {
                    continue;
                };
                if known.insert(sop_instance_uid.clone()) {
                    rows.push(InstanceRow {
                        sop_instance_uid,
                        sop_class_uid: set.text(SOP_CLASS_UID),
                    });
                }
            }
            offset += sets.len();
            // Nothing new: the end, or a server that does not know offsets.
            if rows.len() == before {
                return Ok(rows);
            }
            if rows.len() > MOST_INSTANCES {
                return Err(ClientError::Answer(format!(
                    "a series of more than {MOST_INSTANCES} instances"
                )));
            }
        }
    }

    /// Whether an instance is there.
    ///
    /// # Errors
    /// No connection, or an answer that cannot be read.
    pub async fn has_instance(&self, study: &str, series: &str, sop_instance_uid: &str) -> Result<bool, ClientError> {
        let query = [("SOPInstanceUID", uid(sop_instance_uid)?)];
        let request = self.get(&["studies", uid(study)?, "series", uid(series)?, "instances"], &query)?;
        let sets = self.data_sets(request).await?;
        Ok(sets
            .iter()
            .any(|set| set.text(SOP_INSTANCE_UID).as_deref() == Some(sop_instance_uid)))
    }
}

/// A row without UIDs that can be used is no row.
fn series_row(set: DataSet<'_>, study: Option<&str>) -> Option<SeriesRow> {
    let study_uid = set.text(STUDY_INSTANCE_UID).or_else(|| study.map(str::to_owned))?;
    let series_uid = set.text(SERIES_INSTANCE_UID)?;
    uid(&study_uid).ok()?;
    uid(&series_uid).ok()?;
    Some(SeriesRow {
        study_uid,
        series_uid,
        count: set.count(NUMBER_OF_SERIES_RELATED_INSTANCES),
        modality: set.text(MODALITY),
        study_date: set.text(STUDY_DATE),
        manufacturer: set.text(MANUFACTURER),
    })
}
