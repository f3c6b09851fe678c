//! How slices lie one behind the other.

use super::*;

fn z(steps: &[f64]) -> Vec<f64> {
    let mut z = vec![-100.0];
    for step in steps {
        z.push(z[z.len() - 1] + step);
    }
    z
}

#[test]
fn one_missing_slice_is_bridged_and_told_with_its_place() {
    let z: Vec<f64> = (0..20)
        .filter(|k| *k != 9)
        .map(|k| -100.0 + 2.5 * f64::from(k))
        .collect();
    let sentence = only(&at_z(&z), Code::GapBridged);
    assert!(
        sentence.contains("5.0 mm between z = -80.0 mm and z = -75.0 mm"),
        "{sentence}"
    );
}

#[test]
fn a_hole_of_exactly_10_mm_is_bridged_and_one_of_12_5_mm_is_not() {
    only(&at_z(&z(&[2.5, 2.5, 2.5, 10.0, 2.5, 2.5])), Code::GapBridged);
    refused(&at_z(&z(&[2.5, 2.5, 2.5, 12.5, 2.5, 2.5])), Code::SlicesMissing);
}

#[test]
fn in_thick_series_one_missing_slice_is_bridged_however_wide() {
    only(&at_z(&z(&[8.0, 8.0, 16.0, 8.0, 8.0])), Code::GapBridged);
    refused(&at_z(&z(&[8.0, 8.0, 24.0, 8.0, 8.0])), Code::SlicesMissing);
}

#[test]
fn thick_slices_10_mm_apart_have_no_hole() {
    plain(&at_z(&z(&[10.0; 12])));
}

#[test]
fn steps_of_1_and_one_and_a_half_are_uneven_not_holes() {
    let series = at_z(&z(&[2.5, 3.75, 2.5, 3.75, 2.5, 3.75]));
    let sentence = only(&series, Code::UnevenSpacing);
    assert!(sentence.contains("2.50 to 3.75 mm"), "{sentence}");
    assert!(!concerned(&series).is_empty() && concerned(&series).len() < series.instances.len());
    only(&at_z(&z(&[0.5, 0.75, 0.5, 0.75, 0.5, 0.75])), Code::UnevenSpacing);
}

#[test]
fn a_slice_off_by_a_fiftieth_of_a_millimetre_is_even() {
    plain(&at_z(&z(&[5.0, 5.02, 4.98, 5.0, 5.0])));
    plain(&at_z(&z(&[0.6, 0.7, 0.6, 0.6, 0.7])));
}

#[test]
fn a_slice_off_by_a_fifth_of_a_millimetre_is_uneven() {
    only(&at_z(&z(&[5.0, 5.2, 4.8, 5.0, 5.0])), Code::UnevenSpacing);
}

/// Slices turned by `degrees` about the left-right axis and fed along z.
fn tilted(degrees: f64) -> Series {
    let (sin, cos) = degrees.to_radians().sin_cos();
    framed(20, |_, f| f.orientation = Some([1.0, 0.0, 0.0, 0.0, cos, -sin]))
}

#[test]
fn a_tilted_gantry_is_measured_from_the_origins_and_stays_axial() {
    let sentence = only(&tilted(15.0), Code::GantryTilt);
    assert!(sentence.contains("15.0 degrees"), "{sentence}");
    only(&tilted(-30.0), Code::GantryTilt);
}

#[test]
fn a_tilt_in_the_header_alone_is_no_tilt() {
    plain(&all(20, |_, h| h.gantry_tilt_degrees = Some(20.0)));
}

#[test]
fn a_drift_of_a_fiftieth_of_a_millimetre_per_slice_is_straight() {
    plain(&framed(20, |k, f| {
        f.position = Some([-180.0 + 0.02 * k as f64, -170.0, -100.0 + 2.5 * k as f64])
    }));
}

#[test]
fn slices_that_jump_sideways_and_back_are_told() {
    let series = framed(20, |k, f| {
        f.position = Some([if k == 9 { -150.0 } else { -180.0 }, -170.0, -100.0 + 2.5 * k as f64]);
    });
    let sentence = only(&series, Code::GantryTilt);
    assert!(sentence.contains("30.0 mm"), "{sentence}");
    assert_eq!(concerned(&series), ["0009.dcm (z = -77.5 mm)"]);
}

#[test]
fn a_slice_with_a_lost_decimal_point_is_refused_by_name_wherever_it_lies() {
    for lost in [0, 9, 19] {
        let series = framed(20, |k, f| {
            let x = if k == lost { -18005.0 } else { -180.0 };
            f.position = Some([x, -170.0, -100.0 + 2.5 * k as f64]);
        });
        let verdict = verdict(&series);
        assert_eq!(codes(&verdict), [Code::NoGeometry], "{verdict:?}");
        let finding = &verdict.findings[0];
        let named = format!("{lost:04}.dcm (z = {:.1} mm)", -100.0 + 2.5 * lost as f64);
        assert_eq!(
            finding.sentence,
            format!(
                "The slices cannot be placed in the patient: 1 of 20 slices lies aside of the rest, by up to 17825.0 mm: {named}. A slice is only 358 x 358 mm wide."
            )
        );
        assert_eq!(finding.concerns, [named]);
    }
}

#[test]
fn a_slice_with_a_lost_sign_is_refused() {
    let series = framed(20, |k, f| {
        let y = if k == 4 { 180.0 } else { -180.0 };
        f.position = Some([-180.0, y, -100.0 + 2.5 * k as f64]);
    });
    let sentence = refused(&series, Code::NoGeometry);
    assert!(sentence.contains("0004.dcm"), "{sentence}");
}

#[test]
fn slices_that_drift_by_more_than_their_width_are_refused_and_by_less_are_told() {
    let drifting = |mm: f64| {
        framed(20, move |k, f| {
            f.position = Some([-180.0, -170.0 + mm * k as f64 / 19.0, -100.0 + 2.5 * k as f64])
        })
    };
    let sentence = refused(&drifting(380.0), Code::NoGeometry);
    assert!(sentence.contains("20 slices lie aside"), "{sentence}");
    assert!(verdict(&drifting(330.0)).has(Code::GantryTilt));
}

#[test]
fn the_memory_of_a_stack_counts_the_slice_that_lies_farthest_aside() {
    let jumping = |mm: f64| {
        framed(20, move |k, f| {
            f.position = Some([-180.0 + if k == 9 { mm } else { 0.0 }, -170.0, -100.0 + 2.5 * k as f64])
        })
    };
    let bytes = |series: &Series| estimated_memory_bytes(candidate(series).stack(), REFERENCE_GRID_MM);
    // 250 mm more of 448 rows and 11 planes, 0.8 mm a column, 16 bytes each.
    let more = bytes(&jumping(250.0)) - bytes(&jumping(0.0));
    assert!(more >= 312 * 448 * 11 * 16, "{more}");
}

#[test]
fn coronal_sagittal_and_oblique_slices_are_noted_by_name() {
    let stacked = |orientation: [f64; 6], normal: [f64; 3]| {
        framed(20, move |k, f| {
            f.orientation = Some(orientation);
            f.position = Some(normal.map(|v| v * 2.5 * k as f64));
        })
    };
    let coronal = only(
        &stacked([1.0, 0.0, 0.0, 0.0, 0.0, -1.0], [0.0, 1.0, 0.0]),
        Code::NotAxial,
    );
    assert!(coronal.contains("coronal"), "{coronal}");
    let sagittal = only(
        &stacked([0.0, 1.0, 0.0, 0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]),
        Code::NotAxial,
    );
    assert!(sagittal.contains("sagittal"), "{sagittal}");
    let (sin, cos) = 22f64.to_radians().sin_cos();
    let oblique = only(
        &stacked([1.0, 0.0, 0.0, 0.0, cos, sin], [0.0, -sin, cos]),
        Code::NotAxial,
    );
    assert!(
        oblique.contains("oblique") && oblique.contains("22 degrees"),
        "{oblique}"
    );
    let (sin, cos) = 5f64.to_radians().sin_cos();
    plain(&stacked([1.0, 0.0, 0.0, 0.0, cos, sin], [0.0, -sin, cos]));
}

#[test]
fn prone_and_upside_down_slices_are_axial_and_sorted_along_their_normal() {
    plain(&framed(20, |_, f| {
        f.orientation = Some([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0])
    }));
    let series = framed(20, |_, f| f.orientation = Some([1.0, 0.0, 0.0, 0.0, -1.0, 0.0]));
    plain(&series);
    let candidate = candidate(&series);
    assert_eq!(candidate.stack().normal, [0.0, 0.0, -1.0]);
    assert!(candidate.stack().slices[0].origin[2] > candidate.stack().slices[19].origin[2]);
}
