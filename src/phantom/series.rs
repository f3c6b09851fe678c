//! A phantom as the files of a CT series (CT Image IOD, PS3.3 A.3), in the manner of one vendor or of none.
//!
//! The identity is plainly synthetic, the UIDs follow from the voxels and the specification, dates are fixed: the same phantom gives the same bytes.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::specification::{Flavour, Kernel, Position, Specification, TransferSyntax};
use super::{Phantom, PhantomError};
use crate::dicom::write_ct::{CtAttribute, CtCoding, CtImage, CtValue, write_ct};
use crate::volume::Voxels;

/// The files of the series: name and bytes, from the feet to the head.
///
/// # Errors
/// [`PhantomError::Write`] when an encoder fails.
pub fn dicom_series(phantom: &Phantom, specification: &Specification) -> Result<Vec<(String, Vec<u8>)>, PhantomError> {
    let names = Names::new(phantom, specification);
    let slices = phantom.volume.grid.origins.len();
    (0..slices)
        .into_par_iter()
        .map(|slice| {
            let sop = names.uid(&format!("instance {slice}"));
            let attributes = attributes(phantom, specification, &names, slice);
            let stored = stored_values(phantom, specification, slice);
            let style = Style::of(specification.flavour);
            let image = CtImage {
                attributes: &attributes,
                sop_instance_uid: &sop,
                rows: phantom.volume.grid.rows as u16,
                columns: phantom.volume.grid.columns as u16,
                bits_stored: style.bits_stored,
                signed: specification.flavour.is_signed(),
                stored: &stored,
            };
            let coding = match specification.transfer_syntax {
                TransferSyntax::ExplicitLittleEndian => CtCoding::ExplicitLittleEndian,
                TransferSyntax::ImplicitLittleEndian => CtCoding::ImplicitLittleEndian,
                TransferSyntax::Deflated => CtCoding::Deflated,
                TransferSyntax::Rle => CtCoding::Rle,
                TransferSyntax::JpegLs => CtCoding::JpegLs,
            };
            Ok((format!("IM{:04}.dcm", slice + 1), write_ct(&image, coding)?))
        })
        .collect()
}

/// What a vendor does in its own way.
struct Style {
    manufacturer: &'static str,
    model: &'static str,
    software: &'static str,
    kernels: [&'static str; 3],
    image_type: &'static str,
    intercept: i16,
    bits_stored: u16,
    rotation: &'static str,
}

impl Style {
    fn of(flavour: Flavour) -> Self {
        let (manufacturer, model, software, kernels, image_type, intercept, bits_stored, rotation) = match flavour {
            Flavour::Plain => (
                "Hilum",
                "Phantom",
                "1",
                ["SMOOTH", "STANDARD", "SHARP"],
                "ORIGINAL\\PRIMARY\\AXIAL",
                -1024,
                12,
                "CW",
            ),
            Flavour::Ge => (
                "GE MEDICAL SYSTEMS",
                "Phantom G",
                "g.1",
                ["SOFT", "STANDARD", "LUNG"],
                "ORIGINAL\\PRIMARY\\AXIAL",
                -1024,
                16,
                "CW",
            ),
            Flavour::Siemens => (
                "SIEMENS",
                "Phantom S",
                "syngo phantom",
                ["B20f", "B30f", "B70f"],
                "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI",
                -1024,
                12,
                "CW",
            ),
            Flavour::Philips => (
                "Philips",
                "Phantom P",
                "p.1",
                ["A", "B", "YB"],
                "ORIGINAL\\PRIMARY\\AXIAL\\HELIX",
                -1024,
                12,
                "CC",
            ),
            Flavour::Canon => (
                "CANON MEDICAL SYSTEMS",
                "Phantom C",
                "c.1",
                ["FC08", "FC18", "FC51"],
                "ORIGINAL\\PRIMARY\\AXIAL",
                0,
                16,
                "CW",
            ),
        };
        Self {
            manufacturer,
            model,
            software,
            kernels,
            image_type,
            intercept,
            bits_stored,
            rotation,
        }
    }
}

/// UIDs out of a digest.
struct Names {
    digest: [u8; 32],
}

impl Names {
    fn new(phantom: &Phantom, specification: &Specification) -> Self {
        let mut digest = Sha256::new();
        digest.update(format!("hilum phantom {specification:?}"));
        if let Voxels::I16(voxels) = &phantom.volume.voxels {
            digest.update(bytemuck::cast_slice(voxels));
        }
        Self {
            digest: digest.finalize().into(),
        }
    }

    /// A UID below 2.25 (PS3.5 B.2): a UUID made of a digest.
    fn uid(&self, of: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(self.digest);
        digest.update(of);
        let digest: [u8; 32] = digest.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        format!("2.25.{}", uuid::Builder::from_custom_bytes(first).into_uuid().as_u128())
    }
}

fn stored_values(phantom: &Phantom, specification: &Specification, slice: usize) -> Vec<u16> {
    let area = phantom.volume.grid.rows * phantom.volume.grid.columns;
    let intercept = f32::from(Style::of(specification.flavour).intercept);
    let (low, high) = if specification.flavour.is_signed() {
        (-32768.0, 32767.0)
    } else {
        (0.0, 4095.0)
    };
    let store = |hu: f32| (hu - intercept).round().clamp(low, high) as i32 as u16;
    match &phantom.volume.voxels {
        Voxels::I16(voxels) => voxels[slice * area..(slice + 1) * area]
            .iter()
            .map(|hu| store(f32::from(*hu)))
            .collect(),
        Voxels::F32(voxels) => voxels[slice * area..(slice + 1) * area]
            .iter()
            .map(|hu| store(*hu))
            .collect(),
    }
}

/// A decimal string of at most 16 characters (PS3.5 6.2).
fn decimal(value: f64) -> String {
    for digits in (0..=10).rev() {
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        };
        if text.len() <= 16 {
            return if text == "-0" { "0".to_owned() } else { text };
        }
    }
    format!("{value:.8e}")
}

fn decimals(values: &[f64]) -> String {
    values
        .iter()
        .map(|value| decimal(*value))
        .collect::<Vec<_>>()
        .join("\\")
}

fn attributes(phantom: &Phantom, specification: &Specification, names: &Names, slice: usize) -> Vec<CtAttribute> {
    let grid = &phantom.volume.grid;
    let style = Style::of(specification.flavour);
    let slices = grid.origins.len();
    let origin = grid.origins[slice];
    let kernel = style.kernels[match specification.kernel {
        Kernel::Smooth => 0,
        Kernel::Standard => 1,
        Kernel::Sharp => 2,
    }];
    let position = match specification.position {
        Position::Supine => "HFS",
        Position::Prone => "HFP",
        Position::FeetFirst => "FFS",
    };
    // Head first, the head is scanned first or last; feet first the other way: instance numbers run from the head down, as most scanners give them.
    let number = if specification.position == Position::FeetFirst {
        slice + 1
    } else {
        slices - slice
    };
    let orientation: Vec<f64> = grid
        .row_direction
        .iter()
        .chain(&grid.column_direction)
        .copied()
        .collect();
    let thickness = specification.thickness_mm.unwrap_or(specification.spacing_mm[2]);
    let mut list: Vec<CtAttribute> = Vec::with_capacity(64);
    let mut text = |tag: (u16, u16), vr: &[u8; 2], value: &str| list.push((tag, *vr, CtValue::Text(value.to_owned())));
    text((0x0008, 0x0005), b"CS", "ISO_IR 100");
    text((0x0008, 0x0008), b"CS", style.image_type);
    text((0x0008, 0x0020), b"DA", "20200101");
    text((0x0008, 0x0021), b"DA", "20200101");
    text((0x0008, 0x0022), b"DA", "20200101");
    text((0x0008, 0x0023), b"DA", "20200101");
    text((0x0008, 0x0030), b"TM", "120000");
    text((0x0008, 0x0031), b"TM", "120100");
    text((0x0008, 0x0032), b"TM", "120200");
    text((0x0008, 0x0033), b"TM", "120300");
    text(
        (0x0008, 0x0050),
        b"SH",
        &format!("PH{:08}", specification.seed % 100_000_000),
    );
    text((0x0008, 0x0060), b"CS", "CT");
    text((0x0008, 0x0070), b"LO", style.manufacturer);
    text((0x0008, 0x0090), b"PN", "");
    text((0x0008, 0x1030), b"LO", "Synthetic chest");
    text(
        (0x0008, 0x103e),
        b"LO",
        &format!("Phantom {} mm {kernel}", decimal(thickness)),
    );
    text((0x0008, 0x1090), b"LO", style.model);
    text((0x0010, 0x0010), b"PN", "Phantom^Chest");
    text((0x0010, 0x0020), b"LO", &format!("PHANTOM-{}", specification.seed));
    text((0x0010, 0x0030), b"DA", "");
    text((0x0010, 0x0040), b"CS", "O");
    text((0x0012, 0x0062), b"CS", "YES");
    text((0x0012, 0x0063), b"LO", "Synthetic, no patient");
    if specification.contrast {
        text((0x0018, 0x0010), b"LO", "Synthetic contrast");
    }
    text((0x0018, 0x0015), b"CS", "CHEST");
    text((0x0018, 0x0022), b"CS", "HELICAL MODE");
    text((0x0018, 0x0050), b"DS", &decimal(thickness));
    text((0x0018, 0x0060), b"DS", "120");
    text(
        (0x0018, 0x0090),
        b"DS",
        &decimal(grid.spacing_mm[1] * grid.columns as f64),
    );
    text((0x0018, 0x1020), b"LO", style.software);
    text(
        (0x0018, 0x1100),
        b"DS",
        &decimal(grid.spacing_mm[1] * grid.columns as f64),
    );
    text((0x0018, 0x1120), b"DS", &decimal(specification.tilt_degrees));
    text((0x0018, 0x1140), b"CS", style.rotation);
    text((0x0018, 0x1151), b"IS", "200");
    text((0x0018, 0x1210), b"SH", kernel);
    text((0x0018, 0x5100), b"CS", position);
    text((0x0020, 0x000d), b"UI", &names.uid("study"));
    text((0x0020, 0x000e), b"UI", &names.uid("series"));
    text((0x0020, 0x0010), b"SH", "1");
    text((0x0020, 0x0011), b"IS", "2");
    text((0x0020, 0x0012), b"IS", "1");
    text((0x0020, 0x0013), b"IS", &number.to_string());
    text((0x0020, 0x0032), b"DS", &decimals(&origin));
    text((0x0020, 0x0037), b"DS", &decimals(&orientation));
    text((0x0020, 0x0052), b"UI", &names.uid("frame of reference"));
    text((0x0020, 0x1040), b"LO", "");
    text((0x0020, 0x1041), b"DS", &decimal(origin[2]));
    text((0x0028, 0x0030), b"DS", &decimals(&grid.spacing_mm));
    text((0x0028, 0x1050), b"DS", "-600");
    text((0x0028, 0x1051), b"DS", "1500");
    text((0x0028, 0x1052), b"DS", &style.intercept.to_string());
    text((0x0028, 0x1053), b"DS", "1");
    if specification.flavour != Flavour::Siemens {
        text((0x0028, 0x1054), b"LO", "HU");
    }
    if let Some(outside) = specification.outside_circle_hu {
        let stored = i32::from(outside) - i32::from(style.intercept);
        if specification.flavour.is_signed() {
            list.push((
                (0x0028, 0x0120),
                *b"SS",
                CtValue::Signed(stored.clamp(-32768, 32767) as i16),
            ));
        } else {
            list.push((
                (0x0028, 0x0120),
                *b"US",
                CtValue::Unsigned(stored.clamp(0, 4095) as u16),
            ));
        }
    }
    list
}
