//! What holds for every pose and every order.

use super::*;
use crate::series::vector::{cross, dot, length, scaled};
use proptest::prelude::*;

/// Rotation of a vector about a unit axis (Rodrigues).
fn turned(v: [f64; 3], axis: [f64; 3], radians: f64) -> [f64; 3] {
    let (sin, cos) = radians.sin_cos();
    let (c, d) = (cross(axis, v), dot(axis, v) * (1.0 - cos));
    std::array::from_fn(|i| v[i] * cos + c[i] * sin + axis[i] * d)
}

#[derive(Clone, Debug)]
struct Pose {
    axis: [f64; 3],
    radians: f64,
    flip_rows: bool,
    flip_columns: bool,
    shift: [f64; 3],
    order: Vec<usize>,
}

fn pose(n: usize) -> impl Strategy<Value = Pose> {
    let axis = prop::array::uniform3(-1.0f64..1.0).prop_filter("no direction", |a| length(*a) > 0.1);
    let order = Just((0..n).collect::<Vec<_>>()).prop_shuffle();
    let shift = prop::array::uniform3(-800.0f64..800.0);
    (axis, 0.0..6.3f64, any::<bool>(), any::<bool>(), shift, order).prop_map(
        |(axis, radians, flip_rows, flip_columns, shift, order)| Pose {
            axis: scaled(axis, 1.0 / length(axis)),
            radians,
            flip_rows,
            flip_columns,
            shift,
            order,
        },
    )
}

/// The slices of `series` in another pose, flipped about their middle in the plane, in another order of files. Numbers follow the slices.
fn posed(series: &Series, pose: &Pose) -> Series {
    let mut out = series.clone();
    for instance in &mut out.instances {
        let frame = &mut instance.header.frames[0];
        let (Some(o), Some(position), Some(spacing)) = (frame.orientation, frame.position, frame.pixel_spacing_mm)
        else {
            panic!("no geometry")
        };
        let (mut row, mut column) = ([o[0], o[1], o[2]], [o[3], o[4], o[5]]);
        let mut origin = position;
        if pose.flip_columns {
            origin = std::array::from_fn(|i| origin[i] + row[i] * spacing[1] * 511.0);
            row = scaled(row, -1.0);
        }
        if pose.flip_rows {
            origin = std::array::from_fn(|i| origin[i] + column[i] * spacing[0] * 511.0);
            column = scaled(column, -1.0);
        }
        let (row, column) = (
            turned(row, pose.axis, pose.radians),
            turned(column, pose.axis, pose.radians),
        );
        let origin = turned(origin, pose.axis, pose.radians);
        frame.position = Some(std::array::from_fn(|i| origin[i] + pose.shift[i]));
        frame.orientation = Some([row[0], row[1], row[2], column[0], column[1], column[2]]);
    }
    out.instances = pose.order.iter().map(|k| out.instances[*k].clone()).collect();
    out
}

/// Codes but for the one that depends on the pose by its nature.
fn codes_but_axial(verdict: &Verdict) -> Vec<Code> {
    codes(verdict)
        .into_iter()
        .filter(|code| *code != Code::NotAxial)
        .collect()
}

fn uids(series: &Series, stack: &Stack) -> Vec<String> {
    stack
        .slices
        .iter()
        .map(|s| series.instances[s.instance].header.sop_instance_uid.clone())
        .collect()
}

/// Rounding as some writers have it: cosines by up to 4e-4, pixel spacing by up to 4e-5 mm.
fn jitter(n: usize) -> impl Strategy<Value = Vec<([f64; 6], [f64; 2])>> {
    let cosines = prop::array::uniform6(prop_oneof![Just(0.0), -4e-4..4e-4]);
    let spacing = prop::array::uniform2(prop_oneof![Just(0.0), -4e-5..4e-5]);
    prop::collection::vec((cosines, spacing), n)
}

/// A stack without the numbers of its instances, which are those of the files: their UIDs instead.
fn told(series: &Series) -> (Vec<String>, Stack) {
    let mut stack = candidate(series).stack().clone();
    let uids = uids(series, &stack);
    stack.slices.iter_mut().for_each(|slice| slice.instance = 0);
    (uids, stack)
}

proptest! {
    #[test]
    fn the_geometry_does_not_depend_on_the_order_of_files(
        jitter in jitter(24),
        order in Just((0..24).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let series = framed(24, |k, frame| {
            let (cosines, spacing) = jitter[k];
            let orientation = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
            frame.orientation = Some(std::array::from_fn(|i| orientation[i] + cosines[i]));
            frame.pixel_spacing_mm = Some(spacing.map(|off| 0.7 + off));
        });
        let mut moved = series.clone();
        moved.instances = order.iter().map(|k| series.instances[*k].clone()).collect();
        prop_assert_eq!(told(&moved), told(&series));
    }

    #[test]
    fn order_and_findings_do_not_depend_on_pose_or_file_order(pose in pose(24), kind in 0usize..4) {
        let series = match kind {
            0 => chest(24),
            1 => at_z(&(0..24).map(|k| 3.0 * f64::from(k) + if k % 2 == 1 { 1.0 } else { 0.0 }).collect::<Vec<_>>()),
            2 => at_z(&(0..25).filter(|k| *k != 11).map(|k| 4.0 * f64::from(k)).collect::<Vec<_>>()),
            _ => framed(24, |k, f| f.position = Some([-180.0, -170.0 + 0.6 * k as f64, -100.0 + 2.5 * k as f64])),
        };
        let (before, moved) = (candidate(&series), posed(&series, &pose));
        let after = candidate(&moved);
        prop_assert_eq!(codes_but_axial(after.verdict()), codes_but_axial(before.verdict()));

        let (was, now) = (before.stack(), after.stack());
        let mut expected = uids(&series, was);
        if pose.flip_rows != pose.flip_columns {
            expected.reverse();
        }
        prop_assert_eq!(uids(&moved, now), expected);

        prop_assert!((length(now.normal) - 1.0).abs() < 1e-9);
        prop_assert!(dot(now.row_direction, now.column_direction).abs() < 1e-9);
        for pair in now.slices.windows(2) {
            prop_assert!(pair[1].position_mm > pair[0].position_mm);
        }
        for slice in &now.slices {
            prop_assert!((dot(slice.origin, now.normal) - slice.position_mm).abs() < 1e-9);
        }
        let extent = |stack: &Stack| stack.slices[stack.slices.len() - 1].position_mm - stack.slices[0].position_mm;
        prop_assert!((extent(now) - extent(was)).abs() < 1e-6);
    }

    #[test]
    fn a_hole_is_judged_by_its_width_alone(step in 0.5f64..12.0, missing in 1usize..12) {
        let z: Vec<f64> = (0..30).filter(|k| !(10..10 + missing).contains(k)).map(|k| step * k as f64).collect();
        let width = (missing + 1) as f64 * step;
        prop_assume!((width - 10.0).abs() > 0.01);
        let verdict = verdict(&at_z(&z));
        let refuses = width > 10.0 && missing > 1;
        prop_assert_eq!(verdict.has(Code::SlicesMissing), refuses);
        prop_assert_eq!(verdict.has(Code::GapBridged), !refuses);
    }

    #[test]
    fn no_header_makes_the_verdict_panic(
        numbers in prop::collection::vec(prop::num::f64::ANY, 14),
        size in prop::array::uniform4(any::<u32>()),
        bits in prop::array::uniform3(any::<u16>()),
        length in any::<u64>(),
        which in 0usize..20,
    ) {
        let mut series = chest(20);
        let instance = &mut series.instances[which];
        instance.source.length = length;
        let header = &mut instance.header;
        header.pixels.rows = size[0];
        header.pixels.columns = size[1];
        (header.pixels.bits_allocated, header.pixels.bits_stored, header.pixels.high_bit) = (bits[0], bits[1], bits[2]);
        let frame = &mut header.frames[0];
        let n = |i: usize| numbers[i];
        frame.position = Some([n(0), n(1), n(2)]);
        frame.orientation = Some([n(3), n(4), n(5), n(6), n(7), n(8)]);
        frame.pixel_spacing_mm = Some([n(9), n(10)]);
        frame.rescale = Some(Rescale { slope: n(11), intercept: n(12) });
        frame.slice_thickness_mm = Some(n(13));
        let _ = verdict(&series);
    }
}
