//! Phantoms are chests: their masks have the anatomy of lungs, their HU those of patients, their files are CT series, and a bare threshold fails on the ill ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod anatomy;
mod diseases;
mod files;
mod likeness;

use std::collections::VecDeque;

use hilum::phantom::{Phantom, PhantomError, Specification, chest, dicom_series};
use hilum::volume::Voxels;

pub(crate) fn hu(phantom: &Phantom) -> &[i16] {
    match &phantom.volume.voxels {
        Voxels::I16(values) => values,
        Voxels::F32(_) => panic!("phantoms hold whole HU"),
    }
}

pub(crate) fn voxel_ml(phantom: &Phantom) -> f64 {
    let grid = &phantom.volume.grid;
    grid.spacing_mm[0] * grid.spacing_mm[1] * (grid.origins[1][2] - grid.origins[0][2]) / 1000.0
}

/// Millilitres of the voxels that are counted.
pub(crate) fn volume_ml(phantom: &Phantom, counted: impl Fn(usize) -> bool) -> f64 {
    let voxels = (0..phantom.mask.labels.len()).filter(|k| counted(*k)).count();
    voxels as f64 * voxel_ml(phantom)
}

pub(crate) fn dice(a: &[bool], b: &[u8]) -> f64 {
    let common = a.iter().zip(b).filter(|(a, b)| **a && **b > 0).count();
    let total = a.iter().filter(|a| **a).count() + b.iter().filter(|b| **b > 0).count();
    2.0 * common as f64 / total.max(1) as f64
}

/// The body and all air in it: what the air outside does not reach, slice by slice.
pub(crate) fn body(phantom: &Phantom) -> Vec<bool> {
    let [slices, rows, columns] = phantom.mask.shape;
    let area = rows * columns;
    let mut body = vec![true; slices * area];
    for slice in 0..slices {
        let values = &hu(phantom)[slice * area..(slice + 1) * area];
        let outside = &mut body[slice * area..(slice + 1) * area];
        let mut queue: VecDeque<usize> = (0..area)
            .filter(|k| k % columns == 0 || k % columns == columns - 1 || *k < columns || *k >= area - columns)
            .collect();
        while let Some(k) = queue.pop_front() {
            if !outside[k] || values[k] > -300 {
                continue;
            }
            outside[k] = false;
            let (row, column) = (k / columns, k % columns);
            if row > 0 {
                queue.push_back(k - columns);
            }
            if row + 1 < rows {
                queue.push_back(k + columns);
            }
            if column > 0 {
                queue.push_back(k - 1);
            }
            if column + 1 < columns {
                queue.push_back(k + 1);
            }
        }
    }
    body
}

/// The bare segmenter: air inside the body below -400 HU, the components that make up more than a tenth of it, closed by 8 mm in the plane.
pub(crate) fn threshold_segmenter(phantom: &Phantom) -> Vec<bool> {
    let [slices, rows, columns] = phantom.mask.shape;
    let area = rows * columns;
    let body = body(phantom);
    let air: Vec<bool> = hu(phantom)
        .iter()
        .zip(&body)
        .map(|(hu, body)| *body && *hu < -400)
        .collect();
    let mut component = vec![0_u32; air.len()];
    let mut sizes = vec![0_usize];
    for start in 0..air.len() {
        if !air[start] || component[start] > 0 {
            continue;
        }
        let name = sizes.len() as u32;
        let mut size = 0;
        let mut stack = vec![start];
        component[start] = name;
        while let Some(k) = stack.pop() {
            size += 1;
            let (slice, row, column) = (k / area, k % area / columns, k % columns);
            let steps = [
                (slice > 0, k.wrapping_sub(area)),
                (slice + 1 < slices, k + area),
                (row > 0, k.wrapping_sub(columns)),
                (row + 1 < rows, k + columns),
                (column > 0, k.wrapping_sub(1)),
                (column + 1 < columns, k + 1),
            ];
            for (valid, near) in steps {
                if valid && air[near] && component[near] == 0 {
                    component[near] = name;
                    stack.push(near);
                }
            }
        }
        sizes.push(size);
    }
    let all: usize = sizes.iter().sum();
    let lungs: Vec<bool> = component
        .iter()
        .map(|name| *name > 0 && sizes[*name as usize] * 10 > all)
        .collect();
    let radius = (8.0 / phantom.volume.grid.spacing_mm[0]).round() as isize;
    let grow = |mask: &[bool], value: bool| {
        let mut out = mask.to_vec();
        for k in (0..mask.len()).filter(|k| mask[*k] == value) {
            let (row, column) = ((k % area / columns) as isize, (k % columns) as isize);
            // A voxel within the shape has no work to do.
            let inner = row > 0 && column > 0 && row + 1 < rows as isize && column + 1 < columns as isize;
            if inner
                && [k - columns, k + columns, k - 1, k + 1]
                    .into_iter()
                    .all(|near| mask[near] == value)
            {
                continue;
            }
            for dy in -radius..=radius {
                for dx in -radius..=radius {
                    let (r, c) = (row + dy, column + dx);
                    if dy * dy + dx * dx <= radius * radius
                        && r >= 0
                        && c >= 0
                        && r < rows as isize
                        && c < columns as isize
                    {
                        out[k / area * area + r as usize * columns + c as usize] = value;
                    }
                }
            }
        }
        out
    };
    grow(&grow(&lungs, true), false)
}

#[test]
fn the_same_specification_gives_the_same_bytes_and_another_seed_another_chest() {
    let specification = Specification {
        slices: Some(12),
        ..Specification::small(3)
    };
    let first = chest(&specification).unwrap();
    assert_eq!(first, chest(&specification).unwrap());
    assert_eq!(
        dicom_series(&first, &specification).unwrap(),
        dicom_series(&first, &specification).unwrap()
    );
    let other = chest(&Specification {
        seed: 4,
        ..specification
    })
    .unwrap();
    assert!(
        dice(
            &first.mask.labels.iter().map(|l| *l > 0).collect::<Vec<_>>(),
            &other.mask.labels
        ) < 0.97
    );
}

/// Puts a number into a setting.
type Change = fn(&mut Specification, f64);

#[test]
fn settings_without_sense_are_errors() {
    let base = || Specification {
        slices: Some(1),
        ..Specification::small(1)
    };
    let mut wrong = vec![
        Specification {
            spacing_mm: [0.0, 1.0, 1.0],
            ..base()
        },
        Specification {
            matrix: [4, 512],
            ..base()
        },
        Specification {
            tilt_degrees: f64::NAN,
            ..base()
        },
        Specification {
            slices: Some(0),
            ..base()
        },
        Specification {
            slices: Some(1 << 40),
            ..base()
        },
    ];
    let set = |settings: &mut Vec<Specification>, change: Change, values: &[f64]| {
        for value in values {
            let mut specification = base();
            change(&mut specification, *value);
            settings.push(specification);
        }
    };
    // Each number with values beyond both ends of its bounds, and with the ends themselves.
    let mut right = Vec::new();
    let numbers: [(Change, f64, f64); 14] = [
        (|s, v| s.size = v, 0.3, 1.6),
        (|s, v| s.noise_hu = v, 0.0, 200.0),
        (|s, v| s.thickness_mm = Some(v), 0.1, 50.0),
        (|s, v| s.fat_mm = Some(v), 0.0, 100.0),
        (|s, v| s.inspiration = Some(v), 0.0, 1.0),
        (|s, v| s.diseases.ground_glass = v, 0.0, 1.0),
        (|s, v| s.diseases.consolidation = v, 0.0, 1.0),
        (|s, v| s.diseases.fibrosis = v, 0.0, 1.0),
        (|s, v| s.diseases.emphysema = v, 0.0, 1.0),
        (|s, v| s.diseases.effusion = v, 0.0, 1.0),
        (|s, v| s.diseases.pneumothorax = v, 0.0, 1.0),
        (|s, v| s.diseases.nodules = v, 0.0, 1.0),
        (|s, v| s.diseases.masses = v, 0.0, 1.0),
        (|s, v| s.diseases.bowel_gas = v, 0.0, 1.0),
    ];
    for (change, least, most) in numbers {
        set(
            &mut wrong,
            change,
            &[least - 0.01, most + 0.01, f64::NAN, f64::INFINITY],
        );
        set(&mut right, change, &[least, most]);
    }
    for specification in wrong {
        assert!(
            matches!(chest(&specification), Err(PhantomError::Setting { .. })),
            "{specification:?}"
        );
    }
    for specification in right {
        assert!(chest(&specification).is_ok(), "{specification:?}");
    }
}
