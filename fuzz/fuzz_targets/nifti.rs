//! Any bytes as a NIfTI file -> a label image of as many voxels as its grid has, or an error; the same whether the file is compressed or not.
//!
//! Where HILUM_SEEDS names a folder, good files of every type of voxel and both byte orders are written there: the first inputs.
#![no_main]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use hilum::evaluate::{compare, read_mask};
use libfuzzer_sys::fuzz_target;

/// Codes and bytes of the types of voxels (nifti1.h).
const DATATYPES: [(i16, usize); 10] = [
    (2, 1),
    (256, 1),
    (4, 2),
    (512, 2),
    (8, 4),
    (768, 4),
    (1024, 8),
    (1280, 8),
    (16, 4),
    (64, 8),
];

/// Voxels, columns first, of a good image of 4 x 3 x 2.
const LABELS: [u8; 24] = [0, 1, 1, 0, 2, 2, 0, 1, 0, 0, 2, 1, 1, 0, 0, 2, 0, 1, 2, 0, 0, 0, 1, 2];

fn good([code, sform, qform]: [i16; 3], bytes_each: usize, big: bool) -> Vec<u8> {
    let mut file = vec![0; 352];
    let mut put = |at: usize, value: &[u8]| {
        file[at..at + value.len()].copy_from_slice(value);
        if big {
            file[at..at + value.len()].reverse();
        }
    };
    put(0, &348_i32.to_le_bytes());
    for (axis, length) in [3_i16, 4, 3, 2, 1, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * axis, &length.to_le_bytes());
    }
    put(70, &code.to_le_bytes());
    for (axis, size) in [1.0_f32, 0.7, 0.8, 2.5].into_iter().enumerate() {
        put(76 + 4 * axis, &size.to_le_bytes());
    }
    put(108, &352_f32.to_le_bytes());
    put(112, &1_f32.to_le_bytes());
    put(252, &qform.to_le_bytes());
    put(254, &sform.to_le_bytes());
    for row in 0..3_usize {
        put(280 + 20 * row, &[-0.7_f32, -0.8, 2.5][row].to_le_bytes());
    }
    file[344..347].copy_from_slice(b"n+1");
    for label in LABELS {
        let mut value = match code {
            16 => f32::from(label).to_le_bytes().to_vec(),
            64 => f64::from(label).to_le_bytes().to_vec(),
            _ => u64::from(label).to_le_bytes()[..bytes_each].to_vec(),
        };
        if big {
            value.reverse();
        }
        file.extend_from_slice(&value);
    }
    file
}

/// Good files are read with all their voxels: otherwise the target would go past nothing, and find nothing.
fn read_good_ones() {
    let seeds = std::env::var_os("HILUM_SEEDS").map(std::path::PathBuf::from);
    for (code, bytes_each) in DATATYPES {
        for (sform, qform) in [(1, 0), (0, 1), (0, 0)] {
            for big in [false, true] {
                let file = good([code, sform, qform], bytes_each, big);
                let image = read_mask(&file).expect("a good file");
                let count = |labels: &[u8], label| labels.iter().filter(|one| **one == label).count();
                assert_eq!(
                    (image.grid.rows, image.grid.columns, image.grid.origins.len()),
                    (3, 4, 2)
                );
                assert!(
                    [0, 1, 2]
                        .iter()
                        .all(|label| count(&image.labels, *label) == count(&LABELS, *label))
                );
                if let Some(folder) = &seeds {
                    let name = folder.join(format!("good-{code}-{sform}{qform}-{big}"));
                    std::fs::write(name, file).expect("the folder of the first inputs can be written");
                }
            }
        }
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(bytes).expect("memory takes it");
    gzip.finish().expect("memory takes it")
}

fuzz_target!(init: read_good_ones(), |bytes: &[u8]| {
    let plain = read_mask(bytes);
    // A file in a file is none.
    if !bytes.starts_with(&[0x1F, 0x8B]) && bytes.get(128..132) != Some(b"DICM") {
        match (&plain, read_mask(&packed(bytes))) {
            (Ok(plain), Ok(packed)) => assert!(plain.labels == packed.labels),
            (Err(_), Err(_)) => {}
            (plain, packed) => panic!("{plain:?} and packed {packed:?}"),
        }
    }
    let Ok(image) = plain else {
        return;
    };
    let voxels = image.grid.rows * image.grid.columns * image.grid.origins.len();
    assert_eq!(image.labels.len(), voxels);
    assert!(image.grid.positions_mm().windows(2).all(|pair| pair[0] < pair[1]));
    // What is compressed grows a thousandfold at most.
    assert!(voxels <= 1100 * bytes.len());
    // Of what could be a patient, a mask agrees with itself.
    let places = image.grid.positions_mm();
    let body = image.grid.origins.iter().flatten().all(|mm| mm.abs() < 1e5)
        && places.windows(2).all(|pair| pair[1] - pair[0] > 0.01)
        && image.grid.spacing_mm.iter().all(|mm| (0.01..100.0).contains(mm));
    if body && voxels <= 4096 {
        let scores = compare("itself", &image, &image).lungs;
        assert!(scores.dice == 1.0 && scores.hd95_mm.is_none_or(|mm| mm == 0.0), "{scores:?}");
    }
});
