//! Files beside the slices that could not be read.

use super::*;
use crate::dicom::Skipped;

fn lost(path: &str) -> Skipped {
    Skipped {
        path: path.into(),
        why: "damaged header (it ends inside its header)".into(),
    }
}

/// The chest again as another series, in the same folder.
fn another() -> Series {
    let mut series = all(20, |_, h| h.series_instance_uid = "1.2.3.5".into());
    series.series_instance_uid = "1.2.3.5".into();
    series
}

fn put_down(mut series: Vec<Series>, files: &[Skipped]) -> Vec<Series> {
    put_down_unreadable(&mut series, files, &SeriesLimits::default());
    series
}

#[test]
fn a_file_that_could_not_be_read_is_noted_at_the_series_beside_it() {
    let series = put_down(vec![chest(20)], &[lost("/data/chest/0020.dcm")]);
    let sentence = only(&series[0], Code::FilesUnreadable);
    assert_eq!(
        sentence,
        "1 file beside the slices could not be read (0020.dcm); slices that it held are missing from the series."
    );
    let verdict = verdict(&series[0]);
    assert_eq!(
        verdict.findings[0].concerns,
        ["0020.dcm: damaged header (it ends inside its header)"]
    );
}

#[test]
fn of_many_files_the_first_are_named() {
    let files: Vec<Skipped> = (20..25).map(|k| lost(&format!("/data/chest/{k:04}.dcm"))).collect();
    let sentence = only(&put_down(vec![chest(20)], &files)[0], Code::FilesUnreadable);
    let start = "5 files beside the slices could not be read (0020.dcm, 0021.dcm, 0022.dcm and others);";
    assert!(sentence.starts_with(start), "{sentence}");
}

#[test]
fn a_refused_series_in_the_folder_does_not_stand_in_the_way() {
    let mut scout = all(1, |_, h| h.image_type = texts("ORIGINAL\\PRIMARY\\LOCALIZER"));
    scout.series_instance_uid = "1.2.3.1".into();
    let series = put_down(vec![scout, chest(20)], &[lost("/data/chest/0020.dcm")]);
    assert!(series[0].unreadable.is_empty());
    only(&series[1], Code::FilesUnreadable);
}

#[test]
fn a_file_in_another_folder_or_beside_several_series_is_noted_at_none() {
    let elsewhere = put_down(
        vec![chest(20)],
        &[lost("/data/chest/copy/0020.dcm"), lost("/data/0020.dcm")],
    );
    plain(&elsewhere[0]);
    for one in put_down(vec![chest(20), another()], &[lost("/data/chest/0020.dcm")]) {
        plain(&one);
    }
}
