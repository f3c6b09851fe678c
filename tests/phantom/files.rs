//! The files: the same HU and places in every flavour and transfer syntax, and no fault that dciodvfy knows.

use std::process::Command;

use dicom_dictionary_std::tags;
use dicom_pixeldata::PixelDecoder;
use hilum::phantom::{Flavour, Kernel, Specification, TransferSyntax, chest, dicom_series};

use crate::hu;

const FLAVOURS: [Flavour; 5] = [
    Flavour::Plain,
    Flavour::Ge,
    Flavour::Siemens,
    Flavour::Philips,
    Flavour::Canon,
];

/// A specification with as much out of the ordinary as goes together.
fn odd(flavour: Flavour, transfer_syntax: TransferSyntax) -> Specification {
    Specification {
        slices: Some(4),
        tilt_degrees: 12.0,
        flavour,
        transfer_syntax,
        kernel: Kernel::Sharp,
        contrast: true,
        outside_circle_hu: Some(if flavour.is_signed() { -2000 } else { -1024 }),
        ..Specification::small(11)
    }
}

#[test]
fn every_flavour_and_transfer_syntax_holds_the_same_hu_and_places() {
    let syntaxes = [
        (TransferSyntax::ExplicitLittleEndian, "1.2.840.10008.1.2.1"),
        (TransferSyntax::ImplicitLittleEndian, "1.2.840.10008.1.2"),
        (TransferSyntax::Rle, "1.2.840.10008.1.2.5"),
        (TransferSyntax::JpegLs, "1.2.840.10008.1.2.4.80"),
    ];
    for (k, flavour) in FLAVOURS.into_iter().enumerate() {
        let (syntax, uid) = syntaxes[k % syntaxes.len()];
        let specification = odd(flavour, syntax);
        let phantom = chest(&specification).unwrap();
        let files = dicom_series(&phantom, &specification).unwrap();
        assert_eq!(files.len(), 4);
        for (slice, (name, bytes)) in files.iter().enumerate() {
            let object = dicom_object::from_reader(&bytes[..]).unwrap();
            assert_eq!(object.meta().transfer_syntax(), uid, "{name}");
            let numbers = |tag| object.element(tag).unwrap().to_multi_float64().unwrap();
            let (slope, intercept) = (numbers(tags::RESCALE_SLOPE)[0], numbers(tags::RESCALE_INTERCEPT)[0]);
            let stored: Vec<i32> = object
                .decode_pixel_data()
                .unwrap()
                .to_vec_with_options(
                    &dicom_pixeldata::ConvertOptions::new().with_modality_lut(dicom_pixeldata::ModalityLutOption::None),
                )
                .unwrap();
            let found: Vec<i16> = stored
                .iter()
                .map(|v| (f64::from(*v) * slope + intercept) as i16)
                .collect();
            assert_eq!(
                found,
                &hu(&phantom)[slice * 192 * 192..(slice + 1) * 192 * 192],
                "{flavour:?} {syntax:?} {name}"
            );
            for (written, true_place) in numbers(tags::IMAGE_POSITION_PATIENT)
                .iter()
                .zip(phantom.volume.grid.origins[slice])
            {
                assert!((written - true_place).abs() < 1e-6);
            }
            let grid = &phantom.volume.grid;
            for (written, true_cosine) in numbers(tags::IMAGE_ORIENTATION_PATIENT)
                .iter()
                .zip(grid.row_direction.iter().chain(&grid.column_direction))
            {
                assert!((written - true_cosine).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn dciodvfy_has_no_error_to_tell_of_the_files() {
    if Command::new("dciodvfy").arg("-version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "dciodvfy is not installed");
        println!("skipped: dciodvfy (Debian package dicom3tools) is not on this machine");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (k, flavour) in FLAVOURS.into_iter().enumerate() {
        let syntax = [
            TransferSyntax::ExplicitLittleEndian,
            TransferSyntax::ImplicitLittleEndian,
            TransferSyntax::JpegLs,
            TransferSyntax::Rle,
            TransferSyntax::Deflated,
        ][k];
        let specification = odd(flavour, syntax);
        let (name, bytes) = dicom_series(&chest(&specification).unwrap(), &specification)
            .unwrap()
            .swap_remove(1);
        let path = folder.path().join(format!("{k}-{name}"));
        std::fs::write(&path, bytes).unwrap();
        let output = Command::new("dciodvfy").arg("-new").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        if syntax == TransferSyntax::Deflated && said.contains("CTImage").eq(&false) {
            println!("dciodvfy does not read deflated files: that one was looked at in the other syntaxes alone");
            continue;
        }
        assert!(said.contains("CTImage"), "{said}");
        assert!(!said.contains("Error"), "{flavour:?} {syntax:?}: {said}");
    }
}
