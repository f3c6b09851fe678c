//! What is left out before positions are looked at, and what is noted.

use super::*;
use std::time::{Duration, Instant};

#[test]
fn scout_views_inside_the_series_are_left_out() {
    let series = with_copies(chest(20), 0..2, |_, h| {
        h.image_type = texts("ORIGINAL\\PRIMARY\\LOCALIZER");
        h.frames[0].orientation = Some([1.0, 0.0, 0.0, 0.0, 0.0, -1.0]);
        h.pixels.rows = 888;
        h.frame_of_reference_uid = "1.2.99".into();
    });
    let sentence = only(&series, Code::LocalizersDropped);
    assert!(
        sentence.contains("2 scout views") && sentence.contains("20 slices remain"),
        "{sentence}"
    );
    assert_eq!(candidate(&series).stack().slices.len(), 20);
}

#[test]
fn a_screenshot_inside_the_series_is_left_out() {
    let series = with_copies(chest(20), 0..1, |_, h| {
        h.sop_class_uid = "1.2.840.10008.5.1.4.1.1.7".into()
    });
    only(&series, Code::OtherObjectsDropped);
}

#[test]
fn notes_about_some_of_the_slices_name_them_and_about_all_of_them_none() {
    type Change = fn(&mut Header);
    let changes: [(Code, Change); 4] = [
        (Code::Derived, |h| h.image_type = texts("DERIVED\\SECONDARY\\AXIAL")),
        (Code::LossyCompressed, |h| h.lossy = true),
        (Code::PaddingPresent, |h| h.pixels.padding = Some((-2000, -2000))),
        (Code::RescaleVaries, |h| {
            h.frames[0].rescale = Some(Rescale {
                slope: 2.0,
                intercept: -1024.0,
            })
        }),
    ];
    for (code, change) in changes {
        let some = changed(20, |k| k == 3 || k == 5, |_, h| change(h));
        only(&some, code);
        assert_eq!(concerned(&some), ["0003.dcm", "0005.dcm"], "{code:?}");
        let all = all(20, |_, h| change(h));
        let noted = verdict(&all).findings;
        // Of one rescale there is nothing to say.
        assert_eq!(noted.len(), usize::from(code != Code::RescaleVaries));
        assert!(noted.iter().all(|finding| finding.concerns.is_empty()), "{noted:?}");
    }
    let swapped = all(20, |k, h| {
        h.instance_number = Some([3, 2, 1, 0].get(k).map_or(k as i64, |other| *other))
    });
    only(&swapped, Code::InstanceNumbersDisagree);
    assert_eq!(concerned(&swapped), ["0001.dcm", "0002.dcm", "0003.dcm"]);
}

#[test]
fn shuffled_instance_numbers_are_noted() {
    only(
        &all(20, |k, h| h.instance_number = Some((k as i64 * 7) % 20)),
        Code::InstanceNumbersDisagree,
    );
}

#[test]
fn instance_numbers_up_or_down_equal_or_absent_are_fine() {
    plain(&all(20, |k, h| h.instance_number = Some(k as i64 + 1)));
    plain(&all(20, |k, h| h.instance_number = Some(1000 - 7 * k as i64)));
    plain(&all(20, |_, h| h.instance_number = Some(1)));
    plain(&all(20, |_, h| h.instance_number = None));
}

#[test]
fn a_frame_of_reference_per_instance_is_noted_not_refused() {
    only(
        &all(20, |k, h| h.frame_of_reference_uid = format!("1.2.77.{k}")),
        Code::FrameOfReferencePerInstance,
    );
    plain(&all(20, |_, h| h.frame_of_reference_uid.clear()));
}

#[test]
fn a_rescale_that_varies_is_noted_with_its_range() {
    let series = framed(20, |k, f| {
        let intercept = -1024.0 - 3.0 * (k % 5) as f64;
        f.rescale = Some(Rescale { slope: 1.0, intercept });
    });
    let sentence = only(&series, Code::RescaleVaries);
    assert!(
        sentence.contains("5 different rescales") && sentence.contains("-1036 to -1024"),
        "{sentence}"
    );
}

#[test]
fn lossy_compression_now_or_earlier_is_noted() {
    let series = changed(
        20,
        |k| k < 5,
        |_, h| {
            h.lossy = true;
            h.lossy_ratio = "10".into();
        },
    );
    let sentence = only(&series, Code::LossyCompressed);
    assert!(
        sentence.contains("5 of 20 slices") && sentence.contains("ratio 10"),
        "{sentence}"
    );
    only(
        &all(20, |_, h| h.transfer_syntax_uid = "1.2.840.10008.1.2.4.50".into()),
        Code::LossyCompressed,
    );
}

#[test]
fn padding_is_noted_with_its_value() {
    let sentence = only(
        &all(20, |_, h| h.pixels.padding = Some((-2000, -2000))),
        Code::PaddingPresent,
    );
    assert!(sentence.contains("-2000"), "{sentence}");
}

#[test]
fn derived_images_are_noted() {
    let sentence = only(
        &all(20, |_, h| h.image_type = texts("DERIVED\\SECONDARY\\AXIAL\\AVERAGE")),
        Code::Derived,
    );
    assert!(sentence.starts_with("All 20 slices are derived"), "{sentence}");
}

#[test]
fn invalid_identity_keeps_the_segmentation_back() {
    type Change = fn(usize, &mut Header);
    let changes: [Change; 5] = [
        |_, h| h.sop_class_uid.clear(),
        |_, h| h.sop_instance_uid.clear(),
        |_, h| h.study_instance_uid = "0c8ae8a4-3e1c".into(),
        |_, h| h.series_instance_uid = "1.02.3".into(),
        |_, h| h.sop_instance_uid = "1.2.3.4.1".into(),
    ];
    for change in changes {
        let series = all(20, change);
        only(&series, Code::IdentityInvalid);
        assert!(!candidate(&series).identity_valid());
    }
    assert!(candidate(&chest(20)).identity_valid());
    plain(&all(20, |_, h| h.frame_of_reference_uid = "none".into()));
}

#[test]
fn what_distorts_density_figures_is_noted() {
    only(&all(20, |_, h| h.convolution_kernel = "B70f".into()), Code::SharpKernel);
    only(
        &all(20, |_, h| h.contrast_bolus_agent = "APPLIED".into()),
        Code::Contrast,
    );
    plain(&all(20, |_, h| h.contrast_bolus_agent = "None".into()));
    let sentence = only(&framed(20, |_, f| f.slice_thickness_mm = Some(8.0)), Code::ThickSlices);
    assert!(sentence.contains("8 mm thick"), "{sentence}");
}

/// A chest of `n` slices as one Enhanced CT of uncompressed pixels, whose frames lie from the last to the first.
fn enhanced(n: usize) -> Series {
    let mut series = chest(n);
    let mut frames: Vec<FrameHeader> = series.instances.iter().map(|i| i.header.frames[0].clone()).collect();
    frames.reverse();
    series.instances.truncate(1);
    let instance = &mut series.instances[0];
    instance.header.sop_class_uid = "1.2.840.10008.5.1.4.1.1.2.1".into();
    instance.header.frames = frames;
    instance.header.pixel_data = PixelData::Native {
        offset: 2000,
        length: n as u64 * 512 * 512 * 2,
        big_endian: false,
    };
    instance.source.length = n as u64 * 512 * 512 * 2 + 2000;
    series
}

#[test]
fn copies_of_an_instance_of_many_frames_are_judged_in_a_moment() {
    let series = with_copies(enhanced(2000), 0..1, |_, _| {});
    let begun = Instant::now();
    let candidate = candidate(&series);
    assert_eq!(candidate.needs_pixels().count(), 2000);
    // Some tens of milliseconds; where each frame made texts of all frames it was ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn deflated_frames_which_are_inflated_as_a_whole_count_as_memory() {
    let mut series = enhanced(300);
    // Frames that belong to no slice are inflated with the others.
    let header = &mut series.instances[0].header;
    let projection = FrameHeader {
        frame_type: texts("DERIVED\\SECONDARY\\AXIAL\\MIP"),
        ..header.frames[0].clone()
    };
    header.frames.extend(vec![projection; 3000]);
    header.pixel_data = PixelData::Deflated {
        start: 400,
        offset: 2000,
        length: 3300 * 512 * 512 * 2,
    };
    // The volume while it is filled, and all frames.
    let needed = (300 + 3300) * 512 * 512 * 2;
    for (max_memory_bytes, refused) in [(needed - 1, true), (needed, false)] {
        let limits = SeriesLimits {
            max_memory_bytes,
            ..SeriesLimits::default()
        };
        assert_eq!(judge(&series, &limits).verdict().has(Code::TooLarge), refused);
    }
}

#[test]
fn frames_of_one_enhanced_instance_are_slices_in_any_order() {
    let series = enhanced(20);
    plain(&series);
    let order: Vec<usize> = candidate(&series).stack().slices.iter().map(|s| s.frame).collect();
    assert_eq!(order, (0..20).rev().collect::<Vec<_>>());
}
