//! Instances in, series out.

use super::Series;
use crate::dicom::Instance;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Groups instances by study and series UID, and puts the series in the order of these. UIDs that are malformed count by their text. Instances without a
/// SeriesInstanceUID form one series per study UID and folder, since nothing else holds them together. Within a series the order of discovery stays.
pub fn group(instances: Vec<Instance>) -> Vec<Series> {
    let mut groups: BTreeMap<(String, String, Option<PathBuf>), Vec<Instance>> = BTreeMap::new();
    for instance in instances {
        let study = instance.header.study_instance_uid.clone();
        let series = instance.header.series_instance_uid.clone();
        let folder = series
            .is_empty()
            .then(|| instance.source.path.parent().map(PathBuf::from).unwrap_or_default());
        groups.entry((study, series, folder)).or_default().push(instance);
    }
    groups
        .into_iter()
        .map(|((study_instance_uid, series_instance_uid, _), instances)| Series {
            study_instance_uid,
            series_instance_uid,
            instances,
            unreadable: Vec::new(),
        })
        .collect()
}
