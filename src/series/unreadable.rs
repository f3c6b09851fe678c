//! Files that could not be read and the series found beside them in, the one series that each file concerns out: a slice may be lost with it.

use super::codes::Code;
use super::findings::Finding;
use super::judge::{Judgement, judge};
use super::limits::SeriesLimits;
use super::wording::count;
use super::{Series, Unreadable};
use crate::dicom::Skipped;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The sentence names at most this many files.
const NAMED: usize = 3;

/// Puts each unreadable file down at the series that headers do not refuse and that alone has slices in the same folder. Where there is none, or several,
/// nobody can say which series it belongs to.
pub fn put_down_unreadable(series: &mut [Series], unreadable: &[Skipped], limits: &SeriesLimits) {
    let mut by_folder: BTreeMap<&Path, Vec<&Skipped>> = BTreeMap::new();
    for skipped in unreadable {
        let folder = skipped.path.parent().unwrap_or(Path::new(""));
        by_folder.entry(folder).or_default().push(skipped);
    }
    let usable_there = usable_by_folder(series, &by_folder, limits);
    for (folder, files) in by_folder {
        let there = usable_there.get(folder).map(Vec::as_slice);
        if let Some([only]) = there
            && let Some(one) = series.get_mut(*only)
        {
            one.unreadable.extend(files.into_iter().map(|file| Unreadable {
                name: file.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                why: file.why.clone(),
            }));
        }
    }
}

/// The series that headers do not refuse, by the folders asked for in which they have slices; each is judged once.
fn usable_by_folder<T>(
    series: &[Series],
    folders: &BTreeMap<&Path, T>,
    limits: &SeriesLimits,
) -> BTreeMap<PathBuf, Vec<usize>> {
    let mut found: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (index, one) in series.iter().enumerate() {
        let own: BTreeSet<&Path> = one
            .instances
            .iter()
            .filter_map(|instance| instance.source.path.parent())
            .filter(|folder| folders.contains_key(folder))
            .collect();
        if !own.is_empty() && matches!(judge(one, limits), Judgement::Usable(_)) {
            for folder in own {
                found.entry(folder.to_owned()).or_default().push(index);
            }
        }
    }
    found
}

/// `files_unreadable`, for a series with such files beside it.
pub(super) fn files_unreadable(series: &Series) -> Option<Finding> {
    let files = &series.unreadable;
    if files.is_empty() {
        return None;
    }
    let names: Vec<&str> = files.iter().take(NAMED).map(|file| file.name.as_str()).collect();
    let more = if files.len() > NAMED { " and others" } else { "" };
    let sentence = format!(
        "{} beside the slices could not be read ({}{more}); slices that {} held are missing from the series.",
        count(files.len(), "file"),
        names.join(", "),
        if files.len() == 1 { "it" } else { "they" }
    );
    let told = files.iter().map(|file| format!("{}: {}", file.name, file.why));
    Some(Finding::new(Code::FilesUnreadable, sentence).about(told))
}
