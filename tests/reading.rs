//! Real files -> headers and stored values, held against pydicom and SimpleITK by goldens (tests/goldens/read_reference.py).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod ct_file;
mod output_support;

use hilum::dicom::{
    DecodeOptions, FrameReader, Instance, Limits, PixelData, PixelError, Source, discover, read_header,
};
use hilum::series::{Judgement, Series, SeriesLimits, Stack, group, judge};
use hilum::volume::{Volume, Voxels};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kinds of copies that `goldens/read_reference.py variants` writes.
const COPIES: [&str; 17] = [
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
    "explicit_gdcm",
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
            assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_DATA is not set");
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

/// Reads every grey image under `folder` and compares; returns the keys met, each with the number of frames that have it.
fn compare(folder: &Path, trust_input: bool) -> BTreeMap<String, usize> {
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
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (path, key, digest) in results {
        let Some(golden) = goldens.get(&key) else {
            continue;
        };
        match digest {
            Ok(digest) if digest == *golden => {
                *met.entry(key).or_default() += 1;
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
    let missing: Vec<_> = goldens().into_keys().filter(|key| !met.contains_key(key)).collect();
    assert!(missing.is_empty(), "not found under {}: {missing:?}", folder.display());
    eprintln!("{} frames equal", met.len());
}

/// Writes lossless copies of one slice of each series under `folder`, or of every slice, a folder in `out` for each kind.
fn write_copies(python: &OsStr, folder: &Path, out: &Path, every_slice: bool) {
    let number: &[&str] = if every_slice {
        &["--every-slice"]
    } else {
        &["--per-folder", "1"]
    };
    let made = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/read_reference.py"))
        .arg("variants")
        .args(number)
        .args([folder, out])
        .output()
        .unwrap();
    eprintln!("{}\n{}", folder.display(), String::from_utf8_lossy(&made.stdout));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Other people's programs write the copies anew: one slice of each real series in each way, or every slice with `HILUM_TEST_EVERY_SLICE`. Then the series are
/// whole, and their HU too are held against the goldens.
#[test]
fn lossless_copies_in_every_transfer_syntax_have_the_stored_values_of_the_original() {
    let Some(python) = std::env::var_os("HILUM_TEST_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_PYTHON is not set");
        eprintln!("skipped: HILUM_TEST_PYTHON does not name a Python with tests/goldens/requirements.txt");
        return;
    };
    let every_slice = std::env::var_os("HILUM_TEST_EVERY_SLICE").is_some();
    let parts: &[&str] = if every_slice {
        &["whole", "partial", "train", "odd"]
    } else {
        &["whole", "partial", "train"]
    };
    let mut files: BTreeMap<String, usize> = COPIES.map(|kind| (kind.to_owned(), 0)).into();
    let mut series = files.clone();
    for part in parts {
        let Some(part) = data(part) else { return };
        // Every slice: a case at a time, so that never more than its copies lie on the disk.
        let folders = if every_slice {
            output_support::files(&part)
        } else {
            vec![part]
        };
        for folder in folders {
            let copies = tempfile::tempdir().unwrap();
            write_copies(&python, &folder, copies.path(), every_slice);
            for kind in output_support::files(copies.path()) {
                let name = kind.file_name().unwrap().to_string_lossy().into_owned();
                let written = std::fs::read_dir(&kind).unwrap().count();
                let frames: usize = compare(&kind, false).into_values().sum();
                assert!(
                    frames >= written,
                    "{name} of {}: of {written} copies {frames} frames are read, or have a golden",
                    folder.display()
                );
                *files
                    .get_mut(&name)
                    .unwrap_or_else(|| panic!("{name} is no kind of copy known here")) += written;
                if every_slice {
                    *series.get_mut(&name).unwrap() += equal_hounsfield_units(&kind).len();
                }
            }
        }
    }
    // dcmtk and gdcm can write each slice in each way; OpenJPH's program alone no signed samples.
    let all = files["explicit"];
    assert!(all >= if every_slice { 1000 } else { 20 }, "{files:?}");
    for kind in COPIES.iter().filter(|kind| **kind != "htj2k") {
        assert_eq!(files[*kind], all, "{kind}: copies");
        assert_eq!(series[*kind], series["explicit"], "{kind}: whole series");
    }
    assert!(files["htj2k"] >= 1, "{files:?}");
    eprintln!(
        "copies of {all} files in {} ways equal, and {} files in htj2k",
        COPIES.len() - 1,
        files["htj2k"]
    );
    if every_slice {
        assert!(series["explicit"] >= 19, "{series:?}");
        eprintln!("HU of {} whole series in each way equal", series["explicit"]);
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

/// The series under `folder` that Hilum takes whole and that have a golden, each held against it.
fn equal_hounsfield_units(folder: &Path) -> BTreeSet<String> {
    #[derive(serde::Deserialize)]
    struct Golden {
        slices: usize,
        sha256: String,
    }
    let goldens: BTreeMap<String, Golden> = serde_json::from_str(include_str!("goldens/hounsfield.json")).unwrap();
    let mut equal = BTreeSet::new();
    let mut wrong = Vec::new();
    let found = discover(&[folder.to_owned()], &Limits::default()).unwrap();
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
    assert!(
        wrong.is_empty(),
        "{}: other HU than pydicom's: {wrong:#?}",
        folder.display()
    );
    equal
}

#[test]
fn the_hounsfield_units_of_every_real_series_equal_those_of_pydicom_and_simpleitk() {
    let mut equal = BTreeSet::new();
    for part in ["whole", "partial", "train", "odd"] {
        let Some(folder) = data(part) else { return };
        equal.extend(equal_hounsfield_units(&folder));
    }
    // Each of which there is a golden.
    assert_eq!(equal.len(), 23, "{equal:?}");
}

/// A CT slice of `picture(10, 8)` at a position, with slope and intercept as they would be written.
fn slice_with_rescale(number: usize, slope: &str, intercept: &str) -> Vec<u8> {
    use ct_file::{EXPLICIT, data_set, element, little_endian, meta, picture};
    let mut bytes = data_set(10, 8, true);
    for (tag, vr, before, after) in [
        ((8, 0x18), "UI", "1.2.3.4", format!("1.2.3.4.{number}")),
        (
            (0x20, 0x32),
            "DS",
            "-100\\-100\\20",
            format!("-100\\-100\\{}", 20 + number),
        ),
        ((0x28, 0x1052), "DS", "0", intercept.to_owned()),
        ((0x28, 0x1053), "DS", "1", slope.to_owned()),
    ] {
        let before = element(tag, vr, before.as_bytes());
        let at = bytes.windows(before.len()).position(|window| window == before).unwrap();
        bytes.splice(at..at + before.len(), element(tag, vr, after.as_bytes()));
    }
    let pixels = element((0x7FE0, 0x10), "OW", &little_endian(&picture(10, 8)));
    [meta(EXPLICIT), bytes, pixels].concat()
}

/// The golden holds pydicom's numbers in 64 bits, within one unit in the last place of 32 bits of SimpleITK's. Held as f32, ours may lie as far from them.
#[test]
fn hounsfield_units_that_are_not_whole_are_those_of_pydicom_and_simpleitk_within_one_unit_in_the_last_place() {
    #[derive(serde::Deserialize)]
    struct Slice {
        slope: String,
        intercept: String,
        hu: Vec<f64>,
    }
    #[derive(serde::Deserialize)]
    struct Golden {
        slices: Vec<Slice>,
    }
    let golden: Golden = serde_json::from_str(include_str!("goldens/fractional_rescale.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (number, slice) in golden.slices.iter().enumerate() {
        let bytes = slice_with_rescale(number, &slice.slope, &slice.intercept);
        std::fs::write(folder.path().join(format!("{number}.dcm")), bytes).unwrap();
    }
    let (series, stack) = output_support::series(folder.path());
    assert_eq!(stack.slices.len(), golden.slices.len());
    let Voxels::F32(values) = output_support::volume(&series, &stack).voxels else {
        panic!("fractions are held as whole numbers");
    };
    for (slice, ours) in golden.slices.iter().zip(values.chunks_exact(10 * 8)) {
        assert_eq!(slice.hu.len(), ours.len());
        for (theirs, ours) in slice.hu.iter().zip(ours) {
            let near = (*theirs as f32).abs();
            let last_place = f64::from(near.next_up()) - f64::from(near);
            assert!(
                (f64::from(*ours) - theirs).abs() <= last_place,
                "{} x + {}: {ours} instead of {theirs}",
                slice.slope,
                slice.intercept
            );
        }
    }
}

/// The inverse transforms of lossy JPEG and JPEG 2000 are not defined to the last bit. 8 bits are no HU, and a CT of 8 bits is refused; but what is stored is read right.
#[test]
fn lossy_images_have_the_values_that_pydicom_reads_within_one() {
    #[derive(serde::Deserialize)]
    struct Golden {
        rows: u16,
        columns: u16,
        values: Vec<i32>,
    }
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    for (name, transfer_syntax, golden) in [
        (
            "jpeg_baseline.dcm",
            "1.2.840.10008.1.2.4.50",
            include_str!("goldens/jpeg_baseline.json"),
        ),
        (
            "htj2k_lossy.dcm",
            "1.2.840.10008.1.2.4.203",
            include_str!("goldens/htj2k_lossy.json"),
        ),
    ] {
        let golden: Golden = serde_json::from_str(golden).unwrap();
        let instance = open(&goldens.join(name));
        assert_eq!(instance.header.transfer_syntax_uid, transfer_syntax);
        assert!(instance.header.lossy, "{name}");
        for trust_input in [false, true] {
            let values = stored(&reader(trust_input), &instance, 0).unwrap();
            assert_eq!(values.len(), usize::from(golden.rows) * usize::from(golden.columns));
            let apart = values
                .iter()
                .zip(&golden.values)
                .map(|(ours, theirs)| (ours - theirs).abs());
            assert!(apart.clone().max() <= Some(1), "{name}: at most {:?}", apart.max());
        }
    }
}

/// Each as its own transfer syntax: `picture(20, 30)` of ct_file plus 1000, coded by OpenJPH; in the order RPCL with the lengths of its tile-parts.
#[test]
fn high_throughput_jpeg_2000_without_loss_is_read_exactly_in_either_transfer_syntax() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let picture: Vec<i32> = ct_file::picture(20, 30)
        .into_iter()
        .map(|value| i32::from(value) + 1000)
        .collect();
    for (name, transfer_syntax) in [
        ("htj2k.dcm", "1.2.840.10008.1.2.4.201"),
        ("htj2k_rpcl.dcm", "1.2.840.10008.1.2.4.202"),
    ] {
        let instance = open(&goldens.join(name));
        assert_eq!(instance.header.transfer_syntax_uid, transfer_syntax);
        for trust_input in [false, true] {
            assert_eq!(stored(&reader(trust_input), &instance, 0).unwrap(), picture, "{name}");
        }
    }
}

/// OpenJPH's program takes unsigned samples alone. Unsigned ones of b bits are coded as themselves less 2^(b - 1), signed ones as they are (ITU-T T.800, Annex G): with the sign's bit of
/// the SIZ segment set, the same codestream is one of signed samples, each 2^(b - 1) less.
#[test]
fn high_throughput_jpeg_2000_of_signed_samples_is_read_exactly() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let folder = tempfile::tempdir().unwrap();
    for name in ["htj2k.dcm", "htj2k_rpcl.dcm"] {
        let mut bytes = std::fs::read(goldens.join(name)).unwrap();
        let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|at| at == what).unwrap();
        // PixelRepresentation, and Ssiz behind the sizes of image and tiles.
        let representation = find(&bytes, &[0x28, 0, 3, 1, b'U', b'S', 2, 0]) + 8;
        let size = find(&bytes, &[0xFF, 0x4F, 0xFF, 0x51]) + 2 + 40;
        assert_eq!(
            (bytes[representation], bytes[size] & 0x80),
            (0, 0),
            "{name} is of unsigned samples"
        );
        let half = 1 << bytes[size];
        bytes[representation] = 1;
        bytes[size] |= 0x80;
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let picture: Vec<i32> = ct_file::picture(20, 30)
            .into_iter()
            .map(|value| i32::from(value) + 1000 - half)
            .collect();
        assert!(picture.iter().any(|value| *value < 0));
        for trust_input in [false, true] {
            assert_eq!(
                stored(&reader(trust_input), &open(&path), 0).unwrap(),
                picture,
                "{name}"
            );
        }
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
