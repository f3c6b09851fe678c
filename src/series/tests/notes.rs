//! What is left out before positions are looked at, and what is noted.

use super::*;

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

#[test]
fn frames_of_one_enhanced_instance_are_slices_in_any_order() {
    let mut series = chest(20);
    let mut frames: Vec<FrameHeader> = series.instances.iter().map(|i| i.header.frames[0].clone()).collect();
    frames.reverse();
    series.instances.truncate(1);
    let instance = &mut series.instances[0];
    instance.header.sop_class_uid = "1.2.840.10008.5.1.4.1.1.2.1".into();
    instance.header.frames = frames;
    instance.header.pixel_data = PixelData::Native {
        offset: 2000,
        length: 20 * 512 * 512 * 2,
        big_endian: false,
    };
    instance.source.length = 20 * 512 * 512 * 2 + 2000;
    plain(&series);
    let order: Vec<usize> = candidate(&series).stack().slices.iter().map(|s| s.frame).collect();
    assert_eq!(order, (0..20).rev().collect::<Vec<_>>());
}
