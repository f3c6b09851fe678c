//! Any bytes as the places, directions, spacings, acquisitions and rescales of up to 40 slices -> a verdict; and where the stack is usable, a grid that is in order,
//! and a network's grid that holds it within the memory that was estimated.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use hilum::dicom::{FrameHeader, Header, Instance, PixelData, PixelFormat, Rescale, Source};
use hilum::series::{Judgement, SeriesLimits, Settled, estimated_memory_bytes, group, judge};
use hilum::volume::{Grid, GridSpecification, network_grid};
use libfuzzer_sys::fuzz_target;

/// Bytes, handed out.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// `usual`, or now and then something near it, or any number at all.
    fn number(&mut self, usual: f64) -> f64 {
        match self.byte() {
            0..192 => usual,
            192..224 => usual + f64::from(self.byte() as i8) / 64.0,
            224..240 => usual * f64::from(self.byte()) / 16.0,
            240..248 => f64::from_bits(u64::from_le_bytes(std::array::from_fn(|_| self.byte()))),
            248..250 => f64::NAN,
            250..252 => f64::MAX,
            _ => -usual,
        }
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (self.byte() < 252).then_some(value)
    }
}

fn instance(rest: &mut Rest<'_>, at: usize, shape: &Shape) -> Instance {
    let position: [f64; 3] = std::array::from_fn(|axis| rest.number(shape.first[axis] + shape.step[axis] * at as f64));
    let orientation = shape.orientation.map(|cosine| rest.number(cosine));
    let spacing = [rest.number(0.7), rest.number(0.7)];
    let rescale = Rescale {
        slope: rest.number(1.0),
        intercept: rest.number(-1024.0),
    };
    let acquisition = i64::from(rest.byte() > 240);
    let frame = FrameHeader {
        position: rest.maybe(position),
        orientation: rest.maybe(orientation),
        pixel_spacing_mm: rest.maybe(spacing),
        rescale: rest.maybe(rescale),
        rescale_type: "HU".into(),
        acquisition_number: rest.maybe(acquisition),
        ..FrameHeader::default()
    };
    let header = Header {
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        sop_instance_uid: format!("1.2.3.{}", if rest.byte() > 250 { 0 } else { at }),
        study_instance_uid: "1.2".into(),
        series_instance_uid: "1.2.3".into(),
        frame_of_reference_uid: "1.2.4".into(),
        modality: "CT".into(),
        image_type: ["ORIGINAL", "PRIMARY", "AXIAL"].map(String::from).into(),
        instance_number: Some(i64::from(rest.byte())),
        gantry_tilt_degrees: Some(rest.number(0.0)),
        slice_thickness_mm: Some(rest.number(5.0)),
        pixels: PixelFormat {
            rows: shape.matrix[0],
            columns: shape.matrix[1],
            samples_per_pixel: 1,
            bits_allocated: 16,
            bits_stored: 16,
            high_bit: 15,
            signed: true,
            photometric_interpretation: "MONOCHROME2".into(),
            padding: None,
        },
        frames: vec![frame],
        pixel_data: PixelData::Native {
            offset: 1000,
            length: u64::from(shape.matrix[0]) * u64::from(shape.matrix[1]) * 2,
            big_endian: false,
        },
        ..Header::default()
    };
    let source = Source {
        path: Arc::from(Path::new("/nowhere")),
        offset: 0,
        length: 1 << 40,
    };
    Instance { source, header }
}

/// What most slices of the series agree on.
struct Shape {
    matrix: [u32; 2],
    orientation: [f64; 6],
    first: [f64; 3],
    step: [f64; 3],
}

fn shape(rest: &mut Rest<'_>) -> Shape {
    let length = |rest: &mut Rest<'_>| match rest.byte() {
        0..128 => 512,
        128..200 => u32::from(rest.byte()),
        200..250 => 1024,
        _ => u32::from(rest.byte()) << 20,
    };
    let angle = f64::from(rest.byte() as i8) / 40.0;
    let turned = match rest.byte() % 4 {
        0 => [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        1 => [angle.cos(), angle.sin(), 0.0, -angle.sin(), angle.cos(), 0.0],
        2 => [1.0, 0.0, 0.0, 0.0, angle.cos(), angle.sin()],
        _ => [0.0, 1.0, 0.0, 0.0, 0.0, -1.0],
    };
    Shape {
        matrix: [length(rest), length(rest)],
        orientation: turned,
        first: std::array::from_fn(|_| rest.number(-180.0)),
        step: [rest.number(0.0), rest.number(0.0), rest.number(2.5)],
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = Rest(bytes);
    let shape = shape(&mut rest);
    let count = usize::from(rest.byte()) % 40;
    let instances = (0..count).map(|at| instance(&mut rest, at, &shape)).collect();
    let limits = SeriesLimits::default();
    for series in group(instances) {
        let Judgement::Usable(candidate) = judge(&series, &limits) else {
            continue;
        };
        // Slices at one place are told apart by their pixels: some are alike, some are not.
        let settled = candidate.settle::<()>(&mut |slice| Ok([(slice.instance % 3) as u8; 32]));
        let Ok(Settled::Usable(usable)) = settled else {
            continue;
        };
        let stack = &usable.stack;
        let grid = Grid::from_stack(stack);
        assert!(stack.slices.len() >= limits.min_slices);
        assert!(grid.positions_mm().windows(2).all(|pair| pair[0] < pair[1]));
        assert!(grid.voxel_volumes_mm3().iter().all(|volume| volume.is_finite() && *volume > 0.0));
        let specification = GridSpecification {
            spacing_mm: [0.8, 0.8, 5.0],
            orientation: "LPS".into(),
            window_hu: [-1500.0, 500.0],
            window_to: [0.0, 1.0],
            straighten_over_degrees: 10.0,
        };
        let Ok(network) = network_grid(&grid, &specification) else {
            continue;
        };
        let estimate = estimated_memory_bytes(stack, specification.spacing_mm);
        assert!(estimate <= limits.max_memory_bytes);
        assert!(network.voxel_count() as u64 * 4 <= estimate, "{} voxels, {estimate} bytes", network.voxel_count());
        let last = [stack.slices.len() - 1, stack.rows - 1, stack.columns - 1];
        for corner in 0..8_usize {
            let [slice, row, column] = std::array::from_fn(|axis| if corner >> axis & 1 == 1 { last[axis] } else { 0 });
            let inside = network.index_of(grid.centre(slice, row as f64, column as f64));
            assert!(inside.iter().all(|index| index.is_finite()), "{inside:?}");
        }
    }
});
