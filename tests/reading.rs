//! Real files -> headers and stored values, held against pydicom and SimpleITK by goldens (tests/goldens/read_reference.py).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod output_support;

use hilum::dicom::{
    DecodeOptions, FrameReader, Instance, Limits, PixelData, PixelError, Source, discover, read_header,
};
use hilum::series::{Judgement, Series, SeriesLimits, Stack, group, judge};
use hilum::volume::{Volume, Voxels};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kinds of copies that `goldens/read_reference.py variants` writes.
const COPIES: [&str; 16] = [
    "implicit",
    "explicit",
    "big_endian",
    "deflated",
    "rle_dcmtk",
    "jpeg_lossless_57_dcmtk",
    "jpeg_lossless_70_dcmtk",
    "jpeg_lossless_70_fragments",
    "jpeg_ls_dcmtk",
    "jpeg_ls_fragments",
    "jpeg_ls_cooked",
    "rle_gdcm",
    "jpeg_lossless_gdcm",
    "jpeg_ls_gdcm",
    "jpeg_2000_gdcm",
    "htj2k",
];

/// The folder of test data, or a plain word that it is not there.
fn data(part: &str) -> Option<PathBuf> {
    match std::env::var_os("HILUM_TEST_DATA") {
        Some(folder) => Some(PathBuf::from(folder).join(part)),
        None => {
            eprintln!("skipped: HILUM_TEST_DATA is not set, so there are no files to read");
            None
        }
    }
}

fn reader(trust_input: bool) -> FrameReader {
    FrameReader::new(DecodeOptions {
        trust_input,
        program: Some(env!("CARGO_BIN_EXE_hilum").into()),
        ..DecodeOptions::default()
    })
}

fn open(path: &Path) -> Instance {
    read_header(&Source::of_file(path).unwrap(), &Limits::default()).unwrap()
}

fn stored(reader: &FrameReader, instance: &Instance, frame: usize) -> Result<Vec<i32>, PixelError> {
    let mut values = Vec::new();
    reader.read(instance, frame, &mut values)?;
    Ok(values)
}

fn hex(bytes: &[u8], digits: usize) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()[..digits]
        .to_owned()
}

/// The key and the digest of the golden file, of each frame of an instance.
fn digests(reader: &FrameReader, instance: &Instance) -> Vec<(String, Result<String, PixelError>)> {
    let uid = hex(instance.header.sop_instance_uid.as_bytes(), 16);
    let digest = |values: Vec<i32>| {
        hex(
            &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(),
            32,
        )
    };
    (0..instance.header.frames.len())
        .map(|frame| (format!("{uid}:{frame}"), stored(reader, instance, frame).map(digest)))
        .collect()
}

fn goldens() -> BTreeMap<String, String> {
    serde_json::from_str(include_str!("goldens/reading.json")).unwrap()
}

/// Reads every grey image under `folder` and compares; returns the keys met.
fn compare(folder: &Path, trust_input: bool) -> BTreeSet<String> {
    let goldens = goldens();
    let reader = reader(trust_input);
    let found = discover(&[folder.to_owned()], &Limits::default()).unwrap();
    let results: Vec<_> = found
        .instances
        .par_iter()
        .flat_map(|instance| {
            digests(&reader, instance)
                .into_iter()
                .map(|(key, digest)| (instance.source.path.clone(), key, digest))
                .collect::<Vec<_>>()
        })
        .collect();
    let mut met = BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, key, digest) in results {
        let Some(golden) = goldens.get(&key) else {
            continue;
        };
        match digest {
            Ok(digest) if digest == *golden => {
                met.insert(key);
            }
            Ok(_) => wrong.push(format!("{}: other values than pydicom's", path.display())),
            // The same instance stands whole in another file.
            Err(PixelError::Corrupt { .. }) if path.to_string_lossy().contains("broken_files") => {}
            Err(error) => wrong.push(error.to_string()),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        wrong.len() + met.len(),
        wrong.join("\n")
    );
    met
}

#[test]
fn stored_values_of_all_real_images_equal_those_of_pydicom() {
    let Some(folder) = data("") else { return };
    let met = compare(&folder, false);
    let missing: Vec<_> = goldens().into_keys().filter(|key| !met.contains(key)).collect();
    assert!(missing.is_empty(), "not found under {}: {missing:?}", folder.display());
    eprintln!("{} frames equal", met.len());
}

/// Other people's programs write the copies anew: one slice of each real series in each way.
#[test]
fn lossless_copies_in_every_transfer_syntax_have_the_stored_values_of_the_original() {
    let Some(python) = std::env::var_os("HILUM_TEST_PYTHON") else {
        eprintln!("skipped: HILUM_TEST_PYTHON does not name a Python with tests/goldens/requirements.txt");
        return;
    };
    let copies = tempfile::tempdir().unwrap();
    for part in ["whole", "partial", "train"] {
        let Some(folder) = data(part) else { return };
        let made = Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/read_reference.py"))
            .args(["variants", "--per-folder", "1"])
            .arg(folder)
            .arg(copies.path().join(part))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&made.stdout);
        eprintln!("{part}\n{told}");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let mut equal: BTreeMap<String, usize> = COPIES.map(|kind| (kind.to_owned(), 0)).into();
    for part in std::fs::read_dir(copies.path()).unwrap() {
        for kind in std::fs::read_dir(part.unwrap().path()).unwrap() {
            let folder = kind.unwrap().path();
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            let files = std::fs::read_dir(&folder).unwrap().count();
            let met = compare(&folder, false).len();
            assert_eq!(
                met, files,
                "{name}: a copy is not read, or is of an image without a golden"
            );
            *equal
                .get_mut(&name)
                .unwrap_or_else(|| panic!("{name} is no kind of copy known here")) += met;
        }
    }
    eprintln!("{equal:#?}");
    // dcmtk and gdcm can write each series in each way; OpenJPH's program alone no signed samples.
    let series = equal["explicit"];
    assert!(series >= 20, "{equal:?}");
    for (kind, count) in equal {
        let enough = if kind == "htj2k" { 1 } else { series };
        assert!(count >= enough, "{kind}: {count} of {series} series");
    }
}

/// `Volume` as the golden has it: of each slice, in the order of the SOP Instance UIDs, the HU as 32-bit floats.
fn hu_digest(series: &Series, stack: &Stack, volume: &Volume) -> String {
    let size = stack.rows * stack.columns;
    let mut order: Vec<usize> = (0..stack.slices.len()).collect();
    order.sort_by_key(|slice| &series.instances[stack.slices[*slice].instance].header.sop_instance_uid);
    let mut digest = Sha256::new();
    for slice in order {
        let range = slice * size..(slice + 1) * size;
        match &volume.voxels {
            Voxels::I16(values) => values[range]
                .iter()
                .for_each(|hu| digest.update(f32::from(*hu).to_le_bytes())),
            Voxels::F32(values) => values[range].iter().for_each(|hu| digest.update(hu.to_le_bytes())),
        }
    }
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()[..32]
        .to_owned()
}

#[test]
fn the_hounsfield_units_of_every_real_series_equal_those_of_pydicom_and_simpleitk() {
    #[derive(serde::Deserialize)]
    struct Golden {
        slices: usize,
        sha256: String,
    }
    let goldens: BTreeMap<String, Golden> = serde_json::from_str(include_str!("goldens/hounsfield.json")).unwrap();
    let mut equal = BTreeSet::new();
    let mut wrong = Vec::new();
    for part in ["whole", "partial", "train", "odd"] {
        let Some(folder) = data(part) else { return };
        let found = discover(&[folder], &Limits::default()).unwrap();
        for series in group(found.instances) {
            let uid = &series.series_instance_uid;
            let Some(golden) = goldens.get(&hex(uid.as_bytes(), 16)) else {
                continue;
            };
            let Judgement::Usable(candidate) = judge(&series, &SeriesLimits::default()) else {
                continue;
            };
            let stack = candidate.stack();
            // What Hilum leaves out (copies, another acquisition) is another set of slices than the golden's.
            if stack.slices.len() != golden.slices {
                eprintln!("{uid}: {} of {} slices are taken", stack.slices.len(), golden.slices);
                continue;
            }
            let volume = output_support::volume(&series, stack);
            if hu_digest(&series, stack, &volume) == golden.sha256 {
                equal.insert(uid.clone());
            } else {
                wrong.push(uid.clone());
            }
        }
    }
    assert!(wrong.is_empty(), "other HU than pydicom's: {wrong:#?}");
    assert!(equal.len() >= 19, "{} series equal", equal.len());
}

/// 8 bits are no HU, and a CT of 8 bits is refused; but what is stored is read right. The inverse transform of JPEG is not defined to the last bit.
#[test]
fn a_baseline_jpeg_has_the_values_that_pydicom_reads_within_one() {
    #[derive(serde::Deserialize)]
    struct Golden {
        rows: u16,
        columns: u16,
        values: Vec<i32>,
    }
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let golden: Golden = serde_json::from_str(include_str!("goldens/jpeg_baseline.json")).unwrap();
    let instance = open(&goldens.join("jpeg_baseline.dcm"));
    assert_eq!(instance.header.transfer_syntax_uid, "1.2.840.10008.1.2.4.50");
    assert!(instance.header.lossy);
    for trust_input in [false, true] {
        let values = stored(&reader(trust_input), &instance, 0).unwrap();
        assert_eq!(values.len(), usize::from(golden.rows) * usize::from(golden.columns));
        let apart = values
            .iter()
            .zip(&golden.values)
            .map(|(ours, theirs)| (ours - theirs).abs());
        assert!(apart.clone().max() <= Some(1), "at most {:?}", apart.max());
    }
}

#[test]
fn one_slice_in_eight_transfer_syntaxes_is_one_image_in_a_child_and_in_place() {
    let Some(folder) = data("odd/transfer_syntaxes") else {
        return;
    };
    let native = stored(&reader(true), &open(&folder.join("1-15_implicit.dcm")), 0).unwrap();
    assert_eq!(native.len(), 512 * 512);
    for name in [
        "bigendian",
        "deflated",
        "j2k_lossless",
        "jpeg_lossless_sv1",
        "jpegls",
        "rle",
    ] {
        let instance = open(&folder.join(format!("1-15_{name}.dcm")));
        for trust_input in [false, true] {
            let reader = reader(trust_input);
            assert!(
                stored(&reader, &instance, 0).unwrap() == native,
                "{name}, trusted: {trust_input}"
            );
            let mut hu = vec![0i16; native.len()];
            assert!(reader.read_i16(&instance, 0, &mut hu, -1024).unwrap(), "{name}");
            assert!(
                hu.iter()
                    .zip(&native)
                    .all(|(hu, stored)| i32::from(*hu) == stored - 1024),
                "{name}"
            );
            assert!(
                !reader.read_i16(&instance, 0, &mut hu, 32_767).unwrap(),
                "{name}: values over 0 do not fit"
            );
        }
    }
    let lossy = open(&folder.join("1-16_j2k_lossy.dcm"));
    assert!(lossy.header.lossy);
    assert_eq!(stored(&reader(false), &lossy, 0).unwrap().len(), 512 * 512);
}

#[test]
fn each_broken_file_has_its_own_answer() {
    let Some(folder) = data("odd/broken_files") else {
        return;
    };
    let found = discover(std::slice::from_ref(&folder), &Limits::default()).unwrap();
    let why: BTreeMap<_, _> = found
        .skipped
        .iter()
        .map(|skipped| {
            (
                skipped.path.file_name().unwrap().to_str().unwrap(),
                skipped.why.as_str(),
            )
        })
        .collect();
    assert_eq!(why.len(), 2, "{why:?}");
    assert_eq!(why["empty.dcm"], "not DICOM (empty file)");
    assert!(why["random_bytes.dcm"].starts_with("not DICOM"));
    let headless = open(&folder.join("ExplVR_LitEndNoMeta.dcm"));
    assert_eq!(
        (
            headless.header.modality.as_str(),
            headless.header.transfer_syntax_uid.as_str()
        ),
        ("RTPLAN", "1.2.840.10008.1.2.1")
    );
    assert_eq!(headless.header.pixel_data, PixelData::Absent);
    for name in ["MR_truncated.dcm", "ct_truncated_pixel_data.dcm"] {
        let error = stored(&reader(false), &open(&folder.join(name)), 0).unwrap_err();
        assert!(
            matches!(&error, PixelError::Corrupt { path, .. } if path.ends_with(name)),
            "{error}"
        );
    }
}

#[test]
fn an_enhanced_ct_has_the_geometry_and_rescale_of_its_functional_groups() {
    let Some(folder) = data("odd/enhanced_multiframe_ct") else {
        return;
    };
    let header = open(&folder.join("eCT_Supplemental.dcm")).header;
    assert_eq!(header.frames.len(), 2);
    let first = &header.frames[0];
    assert_eq!(first.position, Some([99.5, -301.5, -159.0]));
    assert_eq!(first.pixel_spacing_mm, Some([0.388672, 0.388672]));
    assert_eq!(first.text.pixel_spacing, "0.388672\\0.388672");
    assert_eq!(
        first.rescale.map(|rescale| (rescale.slope, rescale.intercept)),
        Some((1.0, -1024.0))
    );
    assert_ne!(first.position, header.frames[1].position);
    assert_eq!(first.frame_type.first().map(String::as_str), Some("DERIVED"));
}

#[test]
fn a_padding_value_in_the_wrong_sign_is_brought_into_the_range_of_the_pixels() {
    let Some(folder) = data("whole/lidc_idri_0001_ge_std_2p5mm/ct") else {
        return;
    };
    let found = discover(&[folder], &Limits::default()).unwrap();
    assert!(
        found
            .instances
            .iter()
            .all(|instance| instance.header.pixels.padding == Some((-2000, -2000)))
    );
}

#[test]
fn what_is_not_dicom_is_listed_with_its_reason_in_a_steady_order() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path();
    std::fs::create_dir(inside.join("b")).unwrap();
    std::fs::write(inside.join("b/archive.zip"), b"PK\x03\x04 and so on").unwrap();
    std::fs::write(inside.join(".hidden"), b"words").unwrap();
    std::fs::write(inside.join("empty"), b"").unwrap();
    std::os::unix::fs::symlink(inside.join("nowhere"), inside.join("link")).unwrap();
    std::os::unix::fs::symlink(inside, inside.join("loop")).unwrap();
    let names = |paths: &[PathBuf]| -> Vec<String> {
        let found = discover(paths, &Limits::default()).unwrap();
        assert!(found.instances.is_empty());
        found
            .skipped
            .iter()
            .map(|skipped| {
                format!(
                    "{}: {}",
                    skipped.path.strip_prefix(inside).unwrap().display(),
                    skipped.why
                )
            })
            .collect()
    };
    let expected = [
        ".hidden: not DICOM (neither preamble nor a first element)",
        "b/archive.zip: not DICOM (a zip archive)",
        "empty: not DICOM (empty file)",
        "link: No such file or directory (os error 2)",
        "loop: a link back to a folder above it",
    ];
    assert_eq!(names(&[inside.to_owned()]), expected);
    // Named twice, read once.
    assert_eq!(names(&[inside.to_owned(), inside.join("b")]), expected);
    assert!(
        discover(&[inside.join("nowhere")], &Limits::default()).is_err(),
        "a path that was asked for and is not there is an error"
    );
}

#[test]
fn random_bytes_behind_a_preamble_are_not_dicom_whatever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    // Half of all tags stand behind the pixel data, where a data set ends: nothing but what is missing tells these from an instance.
    for number in 0..64 {
        let bytes = [vec![0; 128], b"DICM".to_vec(), random(5000)].concat();
        std::fs::write(folder.path().join(format!("{number:02}.dcm")), bytes).unwrap();
    }
    std::fs::write(
        folder.path().join("preamble_alone.dcm"),
        [&[0; 128][..], b"DICM"].concat(),
    )
    .unwrap();
    let found = discover(&[folder.path().to_owned()], &Limits::default()).unwrap();
    assert_eq!((found.instances.len(), found.skipped.len()), (0, 65));
    let others: Vec<_> = found
        .skipped
        .iter()
        .filter(|skipped| !skipped.why.starts_with("not DICOM"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}
