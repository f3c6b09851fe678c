//! What refuses a series.

use super::*;

#[test]
fn another_modality_is_not_ct() {
    let series = all(20, |_, h| {
        h.modality = "MR".into();
        h.sop_class_uid = "1.2.840.10008.5.1.4.1.1.4".into();
    });
    let sentence = refused(&series, Code::NotCt);
    assert!(sentence.contains("20 objects (modality MR"), "{sentence}");
}

#[test]
fn an_object_without_frames_is_not_ct() {
    let series = all(1, |_, h| {
        h.modality = "RTSTRUCT".into();
        h.sop_class_uid = "1.2.840.10008.5.1.4.1.1.481.3".into();
        h.frames.clear();
        h.pixel_data = PixelData::Absent;
    });
    refused(&series, Code::NotCt);
}

#[test]
fn a_ct_class_under_another_modality_is_not_ct() {
    refused(&all(20, |_, h| h.modality = "PT".into()), Code::NotCt);
}

#[test]
fn a_ct_without_sop_class_is_told_by_its_modality_and_cannot_be_referred_to() {
    let sentence = only(&all(20, |_, h| h.sop_class_uid.clear()), Code::IdentityInvalid);
    assert!(
        sentence.contains("the SOP class UID is absent in 20 slices"),
        "{sentence}"
    );
}

#[test]
fn only_scout_views_are_refused() {
    let series = all(2, |_, h| {
        h.image_type = texts("ORIGINAL\\PRIMARY\\LOCALIZER\\CT_SOM5 TOP")
    });
    refused(&series, Code::Localizer);
}

#[test]
fn projections_are_refused_by_whatever_word_the_scanner_uses() {
    for image_type in [
        "DERIVED\\SECONDARY\\AXIAL\\MIP",
        "DERIVED\\SECONDARY\\MINIP",
        "DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 MIP",
        "DERIVED\\PRIMARY\\VOLUME\\MAX_IP",
        "DERIVED\\SECONDARY\\PROJECTION IMAGE",
    ] {
        refused(
            &all(20, |_, h| h.image_type = texts(image_type)),
            Code::DerivedProjection,
        );
    }
}

#[test]
fn a_frame_type_can_mark_a_projection_too() {
    let series = framed(20, |_, f| f.frame_type = texts("DERIVED\\PRIMARY\\VOLUME\\MIN_IP"));
    refused(&series, Code::DerivedProjection);
}

#[test]
fn an_enhanced_image_tells_a_projection_by_how_it_was_calculated_or_by_its_fourth_value() {
    for technique in ["MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER", "CURVED_MPR"] {
        let series = framed(20, |_, f| f.calculation = technique.into());
        refused(&series, Code::DerivedProjection);
    }
    for technique in ["NONE", "MPR", "MIXED"] {
        let verdict = verdict(&framed(20, |_, f| f.calculation = technique.into()));
        assert_ne!(verdict.outcome, Outcome::Refused, "{technique}: {verdict:?}");
    }
    for contrast in ["MAXIMUM", "MINIMUM"] {
        let mut series = framed(20, |_, f| {
            f.frame_type = texts(&format!("DERIVED\\PRIMARY\\VOLUME\\{contrast}"))
        });
        for instance in &mut series.instances {
            instance.header.sop_class_uid = "1.2.840.10008.5.1.4.1.1.2.1".into();
        }
        refused(&series, Code::DerivedProjection);
    }
}

#[test]
fn secondary_captures_and_screen_saves_are_refused() {
    for class in ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.2"] {
        refused(&all(20, |_, h| h.sop_class_uid = class.into()), Code::SecondaryCapture);
    }
    let series = all(20, |_, h| h.image_type = texts("DERIVED\\SECONDARY\\SCREEN SAVE"));
    refused(&series, Code::SecondaryCapture);
}

#[test]
fn slices_without_position_orientation_or_spacing_have_no_geometry() {
    let sentence = refused(&framed(20, |_, f| f.position = None), Code::NoGeometry);
    assert!(
        sentence.contains("no ImagePositionPatient in all 20 slices"),
        "{sentence}"
    );
    refused(&framed(20, |_, f| f.orientation = None), Code::NoGeometry);
    let one = framed(20, |k, f| f.pixel_spacing_mm = f.pixel_spacing_mm.filter(|_| k != 3));
    let sentence = refused(&one, Code::NoGeometry);
    assert!(sentence.contains("no PixelSpacing in 1 of 20 slices"), "{sentence}");
}

#[test]
fn impossible_geometry_is_no_geometry() {
    refused(
        &framed(20, |_, f| f.pixel_spacing_mm = Some([0.0, 0.7])),
        Code::NoGeometry,
    );
    refused(
        &framed(20, |_, f| f.pixel_spacing_mm = Some([0.7, f64::NAN])),
        Code::NoGeometry,
    );
    refused(
        &framed(20, |_, f| f.position = Some([f64::INFINITY, 0.0, 0.0])),
        Code::NoGeometry,
    );
    refused(
        &framed(20, |_, f| f.position = Some([0.0, 0.0, 1e300])),
        Code::NoGeometry,
    );
    refused(&framed(20, |_, f| f.orientation = Some([0.0; 6])), Code::NoGeometry);
    let skewed = Some([1.0, 0.0, 0.0, 0.1, 1.0, 0.0]);
    refused(&framed(20, |_, f| f.orientation = skewed), Code::NoGeometry);
}

#[test]
fn cosines_of_few_digits_are_geometry_enough() {
    plain(&framed(20, |_, f| {
        f.orientation = Some([0.998, 0.001, 0.0, 0.0, 1.003, 0.0])
    }));
}

#[test]
fn too_few_slices_are_told_with_how_many_are_needed() {
    let sentence = refused(&chest(1), Code::TooFewSlices);
    assert!(
        sentence.contains("only 1 slice") && sentence.contains("at least 4"),
        "{sentence}"
    );
    refused(&chest(3), Code::TooFewSlices);
    plain(&chest(4));
}

#[test]
fn copies_do_not_make_slices_enough() {
    let series = with_copies(chest(3), 0..3, |k, h| h.sop_instance_uid = format!("1.2.3.4.5.{k}"));
    refused(&series, Code::TooFewSlices);
}

#[test]
fn another_patient_id_issuer_name_or_birth_date_is_another_patient() {
    type Change = fn(&mut PatientIdentity);
    let changes: [Change; 4] = [
        |p| p.id = "P2".into(),
        |p| p.issuer = "ELSEWHERE".into(),
        |p| p.name = "TEST^TWO".into(),
        |p| p.birth_date = "19700101".into(),
    ];
    for change in changes {
        let mut series = all(20, |_, h| {
            h.patient.issuer = "HERE".into();
            h.patient.birth_date = "19600101".into();
        });
        for instance in &mut series.instances[12..] {
            change(&mut instance.header.patient);
        }
        let sentence = refused(&series, Code::MixedPatients);
        assert!(sentence.contains("8 of 20 slices"), "{sentence}");
        for personal in ["P2", "TWO", "1970"] {
            assert!(!sentence.contains(personal), "{sentence}");
        }
    }
}

#[test]
fn the_same_name_written_another_way_is_no_other_patient() {
    plain(&changed(20, |k| k > 10, |_, h| h.patient.name = "Test^One^^^ ".into()));
    plain(&changed(
        20,
        |k| k > 10,
        |_, h| h.patient.birth_date = "19600101".into(),
    ));
}

#[test]
fn two_frames_of_reference_are_refused() {
    let series = changed(20, |k| k >= 10, |_, h| h.frame_of_reference_uid = "1.2.3.10".into());
    refused(&series, Code::MixedFramesOfReference);
}

#[test]
fn turned_slices_are_refused_with_the_angle() {
    let (sin, cos) = 10f64.to_radians().sin_cos();
    let series = framed(20, |k, f| {
        if k >= 12 {
            f.orientation = Some([1.0, 0.0, 0.0, 0.0, cos, -sin]);
        }
    });
    let sentence = refused(&series, Code::MixedOrientation);
    assert!(
        sentence.contains("8 of 20 slices") && sentence.contains("10.0 degrees"),
        "{sentence}"
    );
}

#[test]
fn another_matrix_or_pixel_spacing_is_refused_with_both_sizes() {
    let series = changed(20, |k| k == 3, |_, h| h.pixels.rows = 256);
    let sentence = refused(&series, Code::MixedMatrix);
    assert!(
        sentence.contains("512 x 256") && sentence.contains("512 x 512"),
        "{sentence}"
    );
    let series = framed(20, |k, f| {
        f.pixel_spacing_mm = Some(if k < 3 { [0.77, 0.77] } else { [0.7, 0.7] })
    });
    let sentence = refused(&series, Code::MixedPixelSpacing);
    assert!(
        sentence.contains("3 of 20 slices") && sentence.contains("0.7700"),
        "{sentence}"
    );
}

#[test]
fn pixel_spacing_in_other_digits_is_the_same() {
    plain(&framed(20, |k, f| {
        f.pixel_spacing_mm = Some([0.7 + 1e-6 * k as f64, 0.7])
    }));
}

#[test]
fn a_series_over_the_memory_limit_is_refused_before_decoding() {
    let limits = SeriesLimits {
        max_memory_bytes: 50 << 20,
        ..SeriesLimits::default()
    };
    let series = chest(40);
    let judged = judge(&series, &limits);
    let verdict = judged.verdict();
    assert_eq!(verdict.findings[0].code, Code::TooLarge, "{verdict:?}");
    assert!(verdict.findings[0].sentence.contains("52 MB"), "{verdict:?}");
}

#[test]
fn an_absurd_matrix_is_refused_without_overflow() {
    let mut series = all(20, |_, h| {
        (h.pixels.rows, h.pixels.columns) = (1 << 31, 1 << 31);
        h.pixel_data = PixelData::Native {
            offset: 0,
            length: 1 << 63,
            big_endian: false,
        };
    });
    for instance in &mut series.instances {
        instance.source.length = u64::MAX;
    }
    refused(&series, Code::TooLarge);
}

#[test]
fn a_hole_of_30_mm_is_refused_with_its_place() {
    let z: Vec<f64> = (0..40)
        .filter(|k| !(15..26).contains(k))
        .map(|k| -100.0 + 2.5 * f64::from(k))
        .collect();
    let sentence = refused(&at_z(&z), Code::SlicesMissing);
    assert!(
        sentence.contains("30.0 mm between z = -65.0 mm and z = -35.0 mm"),
        "{sentence}"
    );
    assert!(sentence.contains("about 11 slices"), "{sentence}");
}

#[test]
fn eight_bits_no_rescale_or_another_rescale_type_are_not_hounsfield_units() {
    let eight = all(20, |_, h| {
        (h.pixels.bits_allocated, h.pixels.bits_stored, h.pixels.high_bit) = (8, 8, 7)
    });
    refused(&eight, Code::NotHu);
    refused(&framed(20, |_, f| f.rescale = None), Code::NotHu);
    let us = framed(20, |_, f| f.rescale_type = "US".into());
    assert!(refused(&us, Code::NotHu).contains("RescaleType is US instead of HU in all 20 slices"));
    refused(&all(20, |_, h| h.pixels.samples_per_pixel = 3), Code::NotHu);
    refused(
        &all(20, |_, h| h.pixels.photometric_interpretation = "PALETTE COLOR".into()),
        Code::NotHu,
    );
}

#[test]
fn a_rescale_that_is_no_number_or_has_no_slope_is_not_hounsfield_units() {
    for (slope, intercept, told) in [
        (0.0, -1024.0, "RescaleSlope is 0 in 1 of 20 slices"),
        (f64::NAN, -1024.0, "RescaleSlope is no finite number in 1 of 20 slices"),
        (f64::INFINITY, -1024.0, "RescaleSlope is no finite number"),
        (1.0, f64::NAN, "RescaleIntercept is no finite number in 1 of 20 slices"),
    ] {
        let series = framed(20, |k, f| {
            if k == 7 {
                f.rescale = Some(Rescale { slope, intercept });
            }
        });
        let sentence = refused(&series, Code::NotHu);
        assert!(sentence.contains(told), "{sentence}");
    }
}

#[test]
fn an_absent_or_spelt_out_rescale_type_is_hounsfield_units() {
    for kind in ["", "HU", "HOUNSFIELD UNITS", "HOUNDSFIELD UNIT"] {
        plain(&framed(20, |_, f| f.rescale_type = kind.into()));
    }
}

#[test]
fn an_unread_transfer_syntax_is_told_by_name() {
    let series = all(20, |_, h| h.transfer_syntax_uid = "1.2.840.10008.1.2.4.100".into());
    let sentence = refused(&series, Code::UnsupportedTransferSyntax);
    assert!(sentence.contains("MPEG2"), "{sentence}");
}

/// 12 bit lossy JPEG: no kept decoder reads it.
#[test]
fn jpeg_extended_is_refused_by_name_with_what_to_send_instead() {
    let series = all(20, |_, h| h.transfer_syntax_uid = "1.2.840.10008.1.2.4.51".into());
    let sentence = refused(&series, Code::UnsupportedTransferSyntax);
    for part in [
        "20 slices in JPEG Extended",
        "(1.2.840.10008.1.2.4.51)",
        "Send the series uncompressed",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn a_file_that_ends_early_or_has_no_pixels_is_corrupt() {
    let mut series = chest(20);
    series.instances[7].source.length = 300_000;
    let sentence = refused(&series, Code::CorruptPixels);
    assert!(sentence.contains("0007.dcm: 298000 of 524288 bytes"), "{sentence}");
    refused(
        &changed(20, |k| k == 2, |_, h| h.pixel_data = PixelData::Absent),
        Code::CorruptPixels,
    );
    refused(&all(20, |_, h| h.pixels.high_bit = 40), Code::CorruptPixels);
    refused(&all(20, |_, h| h.pixels.bits_stored = 17), Code::CorruptPixels);
}

#[test]
fn all_reasons_are_told_not_only_the_first() {
    let series = all(20, |k, h| {
        h.frames[0].rescale = None;
        h.patient.id = format!("{k}");
    });
    assert_eq!(codes(&verdict(&series)), [Code::MixedPatients, Code::NotHu]);
}
