//! Slices at one position: what pixels decide.

use super::*;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Settles with contents told by SOP Instance UID: those in `other` are unlike the rest, which are all alike.
fn settle(series: &Series, other: impl Fn(&Header) -> bool + Sync) -> Settled {
    let candidate = candidate(series);
    let digest = |slice: &Slice| -> Result<[u8; 32], Infallible> {
        let header = &series.instances[slice.instance].header;
        Ok([u8::from(other(header)); 32])
    };
    candidate.settle(&digest).unwrap()
}

fn usable(settled: Settled) -> Usable {
    match settled {
        Settled::Usable(usable) => usable,
        Settled::Refused(verdict) => panic!("refused: {verdict:?}"),
    }
}

#[test]
fn pixels_are_asked_for_only_where_slices_share_a_position() {
    let series = with_copies(chest(20), 3..6, |_, _| {});
    let candidate = candidate(&series);
    assert_eq!(
        candidate.needs_pixels().map(|group| group.len()).collect::<Vec<_>>(),
        [2, 2, 2]
    );
    assert!(candidate.undecided().is_some_and(|said| said.contains("3 positions")));
    let asked = AtomicUsize::new(0);
    let digest = |_: &Slice| -> Result<[u8; 32], Infallible> {
        asked.fetch_add(1, Ordering::Relaxed);
        Ok([0; 32])
    };
    let settled = candidate.settle(&digest);
    assert!(matches!(settled, Ok(Settled::Usable(_))));
    assert_eq!(asked.into_inner(), 6);
}

#[test]
fn every_slice_that_cannot_be_read_is_told_in_order() {
    let series = with_copies(chest(20), 3..6, |_, _| {});
    let digest = |slice: &Slice| {
        if slice.instance < 20 {
            Err(slice.instance)
        } else {
            Ok([0; 32])
        }
    };
    assert_eq!(candidate(&series).settle(&digest).unwrap_err(), [3, 4, 5]);
}

#[test]
fn equal_slices_are_dropped_but_one_and_named() {
    let series = with_copies(chest(20), 3..10, |k, h| h.sop_instance_uid = format!("1.2.3.4.9.{k}"));
    let usable = usable(settle(&series, |_| false));
    assert_eq!(codes(&usable.verdict), [Code::DuplicateInstancesDropped]);
    assert_eq!(usable.verdict.outcome, Outcome::Repaired);
    let finding = &usable.verdict.findings[0];
    assert!(
        finding.sentence.contains("7 copies") && finding.sentence.contains("20 slices remain"),
        "{finding:?}"
    );
    assert_eq!(finding.concerns[0], "copy/0003.dcm (z = -92.5 mm)");
    assert_eq!(usable.stack.slices.len(), 20);
    assert!(usable.identity_valid);
}

#[test]
fn which_of_equals_is_kept_does_not_depend_on_the_order_of_files() {
    let mut series = with_copies(chest(20), 3..10, |k, h| h.sop_instance_uid = format!("1.2.3.4.9.{k}"));
    let kept = |series: &Series| -> Vec<String> {
        let stack = usable(settle(series, |_| false)).stack;
        stack
            .slices
            .iter()
            .map(|s| series.instances[s.instance].header.sop_instance_uid.clone())
            .collect()
    };
    let before = kept(&series);
    series.instances.reverse();
    assert_eq!(kept(&series), before);
}

#[test]
fn which_of_copies_that_share_their_uid_is_kept_does_not_depend_on_the_order_of_files() {
    let mut series = with_copies(chest(20), 3..10, |_, h| h.convolution_kernel = "B31f".into());
    let kept = |series: &Series| -> Vec<String> {
        let stack = usable(settle(series, |_| false)).stack;
        stack
            .slices
            .iter()
            .map(|s| series.instances[s.instance].header.convolution_kernel.clone())
            .collect()
    };
    let before = kept(&series);
    series.instances.reverse();
    assert_eq!(kept(&series), before);
}

#[test]
fn different_slices_at_one_place_in_one_acquisition_conflict() {
    let series = with_copies(chest(20), 3..8, |k, h| h.sop_instance_uid = format!("1.2.3.4.9.{k}"));
    match settle(&series, |h| h.sop_instance_uid.starts_with("1.2.3.4.9.")) {
        Settled::Refused(verdict) => {
            assert_eq!(verdict.findings[0].code, Code::ConflictingSlices);
            assert!(
                verdict.findings[0].sentence.contains("5 positions (z = -92.5 mm"),
                "{verdict:?}"
            );
        }
        Settled::Usable(usable) => panic!("{usable:?}"),
    }
}

#[test]
fn a_second_scan_that_nearly_meets_the_first_conflicts() {
    let series = with_copies(chest(20), 0..20, |k, h| {
        h.sop_instance_uid = format!("1.2.3.4.9.{k}");
        if let Some(position) = &mut h.frames[0].position {
            position[2] += 0.05;
        }
    });
    let settled = settle(&series, |h| h.sop_instance_uid.starts_with("1.2.3.4.9."));
    assert!(matches!(settled, Settled::Refused(v) if v.findings[0].code == Code::ConflictingSlices));
}

#[test]
fn the_same_instance_uid_with_other_pixels_conflicts() {
    let mut series = with_copies(chest(20), 3..4, |_, h| {
        h.image_type = texts("ORIGINAL\\PRIMARY\\AXIAL\\OTHER")
    });
    series.instances.rotate_left(2);
    let settled = settle(&series, |h| h.image_type.len() == 4);
    assert!(matches!(settled, Settled::Refused(v) if v.findings[0].code == Code::ConflictingSlices));
}

#[test]
fn equal_pixels_shifted_sideways_are_no_copies() {
    let series = with_copies(chest(20), 3..4, |_, h| {
        h.frames[0].position = Some([-100.0, -170.0, -92.5])
    });
    let settled = settle(&series, |_| false);
    assert!(matches!(settled, Settled::Refused(v) if v.findings[0].code == Code::ConflictingSlices));
}

fn second_acquisition(k: usize, h: &mut Header) {
    h.sop_instance_uid = format!("1.2.3.4.9.{k}");
    h.acquisition_number = Some(2);
    h.frames[0].acquisition_number = Some(2);
}

#[test]
fn of_two_acquisitions_the_longer_is_taken_and_named() {
    let series = with_copies(chest(20), 3..8, second_acquisition);
    let usable = usable(settle(&series, |h| h.acquisition_number == Some(2)));
    assert_eq!(codes(&usable.verdict), [Code::AcquisitionChosen]);
    let sentence = &usable.verdict.findings[0].sentence;
    assert!(sentence.contains("acquisition 1 (20 slices"), "{sentence}");
    assert!(sentence.contains("acquisition 2 (5 slices"), "{sentence}");
    assert_eq!(usable.stack.slices.len(), 20);
    assert!(usable.stack.slices.iter().all(|s| s.instance < 20));
}

#[test]
fn a_repeated_turn_of_a_sequential_scan_costs_only_itself() {
    // Each pair of slices is an acquisition; the pair 9 is scanned twice.
    let numbered = all(20, |k, h| {
        h.acquisition_number = Some(k as i64 / 2 + 1);
        h.frames[0].acquisition_number = h.acquisition_number;
    });
    let series = with_copies(numbered, 8..10, |k, h| {
        second_acquisition(k, h);
        h.frames[0].acquisition_number = Some(50);
        h.acquisition_number = Some(50);
    });
    let usable = usable(settle(&series, |h| h.acquisition_number == Some(50)));
    assert_eq!(usable.stack.slices.len(), 20);
    assert!(usable.stack.slices.iter().all(|s| s.instance < 20));
}

#[test]
fn acquisitions_one_behind_the_other_are_one_volume() {
    plain(&changed(
        20,
        |k| k >= 10,
        |_, h| {
            h.acquisition_number = Some(2);
            h.frames[0].acquisition_number = Some(2);
        },
    ));
}

#[test]
fn an_acquisition_whose_slices_fall_between_those_of_another_is_left_out() {
    let series = with_copies(chest(20), 3..8, |k, h| {
        second_acquisition(k, h);
        h.frames[0].position = Some([-180.0, -170.0, -100.0 + 2.5 * k as f64 + 0.7]);
    });
    let usable = usable(settle(&series, |_| false));
    assert_eq!(codes(&usable.verdict), [Code::AcquisitionChosen]);
    assert_eq!(usable.stack.slices.len(), 20);
}

/// The chest, and its slices once more half a step higher, changed.
fn breathed(change: impl Fn(usize, &mut Header)) -> Series {
    with_copies(chest(20), 0..20, |k, h| {
        h.sop_instance_uid = format!("1.2.3.4.9.{k}");
        h.frames[0].position = Some([-180.0, -170.0, -98.75 + 2.5 * k as f64]);
        change(k, h);
    })
}

#[test]
fn two_breath_holds_half_a_step_apart_are_not_one_scan_although_their_steps_are_even() {
    let series = breathed(second_acquisition);
    only(&series, Code::AcquisitionChosen);
    let usable = usable(settle(&series, |_| false));
    assert_eq!(codes(&usable.verdict), [Code::AcquisitionChosen]);
    let sentence = &usable.verdict.findings[0].sentence;
    assert!(sentence.contains("acquisition 1 (20 slices"), "{sentence}");
    assert_eq!(usable.stack.slices.len(), 20);
    assert!(usable.stack.slices.iter().all(|s| s.instance < 20));
}

#[test]
fn copies_among_two_breath_holds_do_not_hide_them() {
    let series = with_copies(breathed(second_acquisition), 3..4, |_, h| {
        h.sop_instance_uid = "1.2.3.4.4.1".into()
    });
    let usable = usable(settle(&series, |_| false));
    assert_eq!(
        codes(&usable.verdict),
        [Code::DuplicateInstancesDropped, Code::AcquisitionChosen]
    );
    assert_eq!(usable.stack.slices.len(), 20);
}

#[test]
fn breath_holds_of_one_number_are_told_apart_by_their_times() {
    let mut series = breathed(|_, h| h.acquisition_time = "101512.5".into());
    for instance in &mut series.instances[..20] {
        instance.header.acquisition_time = "101409".into();
    }
    let usable = usable(settle(&series, |_| false));
    assert_eq!(codes(&usable.verdict), [Code::AcquisitionChosen]);
    let sentence = &usable.verdict.findings[0].sentence;
    assert!(
        sentence.contains("acquisition of 10:14:09 (20 slices") && sentence.contains("acquisition of 10:15:12.5 (20"),
        "{sentence}"
    );
    assert!(usable.stack.slices.iter().all(|s| s.instance < 20));
}

fn numbered(k: usize, h: &mut Header, number: usize) {
    h.acquisition_number = Some(number as i64);
    h.frames[0].acquisition_number = h.acquisition_number;
    h.acquisition_time = format!("1014{:02}", k % 60);
}

#[test]
fn acquisitions_that_count_up_along_the_table_stay_one_scan() {
    for per_turn in [1, 2, 4, 10] {
        let series = all(20, |k, h| numbered(k, h, k / per_turn + 1));
        let usable = usable(settle(&series, |_| false));
        assert_eq!(codes(&usable.verdict), [], "{per_turn} slices a turn");
        assert_eq!(usable.stack.slices.len(), 20);
    }
}

#[test]
fn a_slice_with_another_number_or_none_in_the_middle_of_a_scan_stays() {
    for number in [Some(2), None] {
        let series = changed(
            20,
            |k| k == 9,
            |_, h| {
                h.acquisition_number = number;
                h.frames[0].acquisition_number = number;
            },
        );
        let usable = usable(settle(&series, |_| false));
        assert_eq!(codes(&usable.verdict), [], "{number:?}");
        assert_eq!(usable.stack.slices.len(), 20);
    }
}

#[test]
fn numbers_or_times_that_come_back_along_the_table_tell_no_scans_apart() {
    let series = all(24, |k, h| numbered(k, h, k / 4 % 2 + 1));
    assert_eq!(codes(&usable(settle(&series, |_| false)).verdict), []);
    let series = all(24, |k, h| h.acquisition_time = format!("1014{:02}", k / 4 % 2));
    assert_eq!(codes(&usable(settle(&series, |_| false)).verdict), []);
}

#[test]
fn acquisitions_that_reach_into_each_other_by_one_slice_stay_one_scan() {
    let series = all(24, |k, h| {
        numbered(k, h, k / 12 + 1);
        let z = if k < 12 { 2.5 * k as f64 } else { 2.5 * k as f64 - 3.75 };
        h.frames[0].position = Some([-180.0, -170.0, z]);
    });
    let usable = usable(settle(&series, |_| false));
    assert!(usable.verdict.has(Code::UnevenSpacing));
    assert_eq!(usable.stack.slices.len(), 24);
}
