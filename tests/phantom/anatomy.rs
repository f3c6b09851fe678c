//! What is drawn: two lungs on their sides, air, bones, vessels, heart, table, and bodies of other sizes.

use hilum::phantom::{Diseases, Phantom, Position, Specification, chest};

use crate::{body, dice, hu, threshold_segmenter, volume_ml, voxel_ml};

#[test]
fn true_masks_are_two_lungs_of_a_patients_size_on_the_right_sides() {
    for (seed, position) in [
        (1, Position::Supine),
        (2, Position::Prone),
        (3, Position::FeetFirst),
        (4, Position::Supine),
    ] {
        let phantom = chest(&Specification {
            position,
            ..Specification::small(seed)
        })
        .unwrap();
        let [_, rows, columns] = phantom.mask.shape;
        let grid = &phantom.volume.grid;
        let mut volume = [0.0; 2];
        let mut place = [0.0; 2];
        for (k, label) in phantom.mask.labels.iter().enumerate().filter(|(_, label)| **label > 0) {
            let side = usize::from(*label) - 1;
            let x = grid.origins[k / (rows * columns)][0]
                + (k % columns) as f64 * grid.spacing_mm[1] * grid.row_direction[0];
            volume[side] += voxel_ml(&phantom);
            place[side] += x * voxel_ml(&phantom);
        }
        // Total lung volumes of adults lie between 2 and 9 litres; the left one is the smaller.
        let total = volume[0] + volume[1];
        assert!((1800.0..9000.0).contains(&total), "seed {seed}: {total} mL");
        assert!(volume[1] < volume[0], "seed {seed}: {volume:?}");
        // +x is the patient's left.
        assert!(place[0] / volume[0] + 60.0 < place[1] / volume[1], "seed {seed}");
    }
}

#[test]
fn lung_air_is_in_the_mask_and_trachea_bowel_gas_and_air_outside_are_not() {
    let specification = Specification {
        diseases: Diseases {
            bowel_gas: 1.0,
            ..Diseases::default()
        },
        ..Specification::small(5)
    };
    let phantom = chest(&specification).unwrap();
    let area = 192 * 192;
    let body = body(&phantom);
    let (mut lung, mut other) = (0, 0);
    for (k, hu) in hu(&phantom).iter().enumerate() {
        if *hu < -950 && body[k] {
            if phantom.mask.labels[k] > 0 {
                lung += 1
            } else {
                other += 1
            }
        }
        assert!(
            body[k] || phantom.mask.labels[k] == 0,
            "lung outside the body in slice {}",
            k / area
        );
    }
    // Airways and bowel hold air inside the body that is no lung: more than 30 mL of it.
    assert!(f64::from(other) * voxel_ml(&phantom) > 30.0, "{other}");
    assert!(lung < 8 * other, "{lung} {other}");
    let mean: f64 = {
        let values: Vec<f64> = hu(&phantom)
            .iter()
            .zip(&phantom.mask.labels)
            .filter(|(_, l)| **l > 0)
            .map(|(v, _)| f64::from(*v))
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    assert!((-900.0..-700.0).contains(&mean), "{mean}");
}

/// Millimetres of a voxel from the middle of the lungs: to the left, to the back.
fn from_the_middle(phantom: &Phantom) -> impl Fn(usize) -> [f64; 2] {
    let [_, rows, columns] = phantom.mask.shape;
    let [row_mm, column_mm] = phantom.volume.grid.spacing_mm;
    let place = move |k: usize| [(k % columns) as f64 * column_mm, (k / columns % rows) as f64 * row_mm];
    let lung: Vec<[f64; 2]> = lung(phantom).into_iter().map(place).collect();
    let middle = [0, 1].map(|axis| lung.iter().map(|p| p[axis]).sum::<f64>() / lung.len() as f64);
    move |k| [0, 1].map(|axis| place(k)[axis] - middle[axis])
}

/// The voxels of the lungs.
fn lung(phantom: &Phantom) -> Vec<usize> {
    let labels = &phantom.mask.labels;
    (0..labels.len()).filter(|k| labels[*k] > 0).collect()
}

#[test]
fn ribs_and_spine_are_bone() {
    let phantom = chest(&Specification::small(2)).unwrap();
    let area = phantom.volume.grid.rows * phantom.volume.grid.columns;
    let hu = hu(&phantom);
    let place = from_the_middle(&phantom);
    // In the lowest third of the lungs there are no shoulder blades, and at the sides no bones but ribs.
    let lung = lung(&phantom);
    let (lowest, highest) = (lung[0] / area, lung[lung.len() - 1] / area);
    let low = |k: usize| (lowest..lowest + (highest - lowest) / 3).contains(&(k / area));
    let bone = volume_ml(&phantom, |k| hu[k] > 300);
    let ribs = volume_ml(&phantom, |k| hu[k] > 300 && low(k) && place(k)[0].abs() > 60.0);
    let spine = volume_ml(&phantom, |k| {
        let [left, back] = place(k);
        hu[k] > 300 && low(k) && left.abs() < 25.0 && back > 20.0
    });
    println!("bone {bone:.0} mL, ribs {ribs:.0} mL, spine {spine:.0} mL");
    assert!(bone > 400.0 && ribs > 50.0 && spine > 25.0, "{bone} {ribs} {spine}");
}

#[test]
fn contrast_medium_shows_the_vessels_in_the_lungs_and_the_heart_on_the_left() {
    let plain = chest(&Specification::small(2)).unwrap();
    let contrast = chest(&Specification {
        contrast: true,
        ..Specification::small(2)
    })
    .unwrap();
    assert_eq!(plain.mask, contrast.mask);
    let [slices, rows, columns] = plain.mask.shape;
    let labels = &plain.mask.labels;
    let brighter: Vec<i16> = hu(&contrast).iter().zip(hu(&plain)).map(|(a, b)| a - b).collect();

    // 6 mm and more inside the mask, so that no edge of the heart counts.
    let deep = |k: usize| {
        labels[k] > 0
            && [k - 3, k + 3, k - 3 * columns, k + 3 * columns]
                .into_iter()
                .all(|near| labels[near] > 0)
    };
    let vessels = volume_ml(&plain, |k| deep(k) && brighter[k] > 50);
    println!("vessels in the lungs {vessels:.0} mL");
    assert!(vessels > 60.0, "{vessels}");

    // No plane of the great vessels holds as much blood as the heart.
    let area = rows * columns;
    let blood = |slice: usize| (slice * area..(slice + 1) * area).filter(|k| labels[*k] == 0 && brighter[*k] > 100);
    let heart = (0..slices).max_by_key(|slice| blood(*slice).count()).unwrap();
    let size_cm2 = blood(heart).count() as f64 * 0.04;
    let place = from_the_middle(&plain);
    let left_mm = blood(heart).map(|k| place(k)[0]).sum::<f64>() / blood(heart).count() as f64;
    println!("heart {size_cm2:.0} cm2, {left_mm:.0} mm left of the middle");
    assert!(size_cm2 > 55.0 && left_mm > 5.0, "{size_cm2} {left_mm}");
}

#[test]
fn without_a_table_the_lungs_are_the_same_and_nothing_lies_behind_the_body() {
    let with = chest(&Specification::small(5)).unwrap();
    let without = chest(&Specification {
        table: false,
        ..Specification::small(5)
    })
    .unwrap();
    assert_eq!(with.mask, without.mask);
    let (there, gone) = (hu(&with), hu(&without));
    let bodies = [body(&with), body(&without)];
    let table = volume_ml(&with, |k| !bodies[1][k] && gone[k] < -960 && there[k] > -960);
    // The patient's back lies flat on the table, so a layer of it changes as well.
    let flattened = volume_ml(&with, |k| bodies[0][k] && bodies[1][k] && there[k] != gone[k]);
    println!("table {table:.0} mL, flattened back {flattened:.0} mL");
    assert!(table > 2000.0, "{table}");
    assert!(flattened < 400.0, "{flattened}");
    let place = from_the_middle(&with);
    for k in (0..there.len()).filter(|k| there[*k] != gone[*k]) {
        let [_, back] = place(k);
        assert!(
            with.mask.labels[k] == 0 && back > 0.0,
            "voxel {k}, {back} mm behind the middle"
        );
    }
}

#[test]
fn the_dependent_lung_is_denser_whichever_way_the_patient_lies() {
    for (position, denser_at_the_back) in [(Position::Supine, true), (Position::Prone, false)] {
        let phantom = chest(&Specification {
            position,
            ..Specification::small(7)
        })
        .unwrap();
        let grid = &phantom.volume.grid;
        let [_, rows, columns] = phantom.mask.shape;
        let inside: Vec<usize> = (0..phantom.mask.labels.len())
            .filter(|k| phantom.mask.labels[*k] > 0 && hu(&phantom)[*k] < -600)
            .collect();
        let y =
            |k: usize| grid.origins[0][1] + (k / columns % rows) as f64 * grid.spacing_mm[0] * grid.column_direction[1];
        let middle = inside.iter().map(|k| y(*k)).sum::<f64>() / inside.len() as f64;
        let mean = |back: bool| {
            let part: Vec<f64> = inside
                .iter()
                .filter(|k| (y(**k) > middle) == back)
                .map(|k| f64::from(hu(&phantom)[*k]))
                .collect();
            part.iter().sum::<f64>() / part.len() as f64
        };
        assert_eq!(
            mean(true) > mean(false) + 10.0,
            denser_at_the_back,
            "{} {}",
            mean(true),
            mean(false)
        );
    }
}

#[test]
fn size_scales_body_and_lungs_and_the_true_mask_with_them() {
    // Pixels grow with the body, so that each phantom is drawn equally fine.
    let of = |size: f64| {
        let phantom = chest(&Specification {
            size,
            spacing_mm: [2.0 * size, 2.0 * size, 5.0 * size],
            ..Specification::small(5)
        })
        .unwrap();
        let score = dice(&threshold_segmenter(&phantom), &phantom.mask.labels);
        assert!(score > 0.9, "size {size}: {score}");
        let labels = &phantom.mask.labels;
        let lungs_ml = volume_ml(&phantom, |k| labels[k] > 0);
        let body = body(&phantom);
        assert_eq!(volume_ml(&phantom, |k| labels[k] > 0 && !body[k]), 0.0, "size {size}");
        let area = phantom.volume.grid.rows * phantom.volume.grid.columns;
        let middle = body[30 * area..31 * area].iter().filter(|inside| **inside).count();
        (middle as f64 * (2.0 * size).powi(2), lungs_ml)
    };
    let (area, lungs) = of(1.0);
    for size in [0.6, 1.4] {
        let (scaled_area, scaled_lungs) = of(size);
        let grown = [scaled_area / area / size.powi(2), scaled_lungs / lungs / size.powi(3)];
        assert!(
            grown.iter().all(|share| (0.85..1.15).contains(share)),
            "size {size}: {grown:?}"
        );
    }
}
