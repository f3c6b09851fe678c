//! A mask or a volume and its grid in, a compressed NIfTI-1 image (`.nii.gz`) out.
//!
//! NIfTI knows one affine, so a stack that is sheared or uneven is first brought onto an even grid at its smallest step; what comes out says whether that was
//! so. Voxels stand as in memory: i is the column, j the row, k the slice. The affine is in RAS millimetres, where DICOM's is in LPS.
//! Header fields after the NIfTI-1.1 definition (`nifti1.h`, <https://nifti.nimh.nih.gov>).

use std::borrow::Cow;

use super::{OutputError, deflate};
use crate::volume::{Grid, Mask, RegularGrid, Volume, Voxels, even_grid, resample_hu, resample_labels};

/// The compression of CT voxels: noise in its low bits hardly yields to more.
const CT_LEVEL: u32 = 1;

/// Bytes before the first voxel: the header, and four that say that nothing more follows.
const HEADER: usize = 352;

/// A NIfTI image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nifti {
    /// The bytes of a `.nii.gz` file.
    pub bytes: Vec<u8>,
    /// Whether the voxels are not the source's own, but were resampled onto an even grid.
    pub resampled: bool,
}

/// Labels on the grid of their volume, as unsigned bytes.
///
/// # Errors
/// Mask and grid do not fit each other, or no even grid can be made of the stack.
pub fn mask(mask: &Mask, grid: &Grid) -> Result<Nifti, OutputError> {
    if mask.shape != grid.shape() || mask.labels.len() != grid.voxel_count() {
        let message = format!(
            "a mask of {:?} does not lie on a grid of {:?}",
            mask.shape,
            grid.shape()
        );
        return Err(OutputError::Disagreement(message));
    }
    let even = even(grid)?;
    let resampled = !grid.is_regular();
    let labels = if resampled {
        Cow::Owned(resample_labels(mask, grid, &even).labels)
    } else {
        Cow::Borrowed(&mask.labels)
    };
    let highest = labels.iter().copied().max().unwrap_or(0);
    encode(
        &even,
        Values::Labels(&labels),
        [0.0, f32::from(highest)],
        deflate::LEVEL,
    )
    .map(|bytes| Nifti { bytes, resampled })
}

/// A volume in Hounsfield units, as 16-bit integers where that is exact and as 32-bit floats where it is not. Padding keeps its values.
///
/// # Errors
/// Voxels and grid do not fit each other, or no even grid can be made of the stack.
pub fn ct(volume: &Volume) -> Result<Nifti, OutputError> {
    const LUNG_WINDOW: [f32; 2] = [-1350.0, 150.0];
    let grid = &volume.grid;
    let voxels = match &volume.voxels {
        Voxels::I16(values) => values.len(),
        Voxels::F32(values) => values.len(),
    };
    if voxels != grid.voxel_count() {
        let message = format!(
            "a volume of {voxels} voxels does not lie on a grid of {:?}",
            grid.shape()
        );
        return Err(OutputError::Disagreement(message));
    }
    let even = even(grid)?;
    let resampled = !grid.is_regular();
    let bytes = match &volume.voxels {
        Voxels::I16(values) if !resampled => encode(&even, Values::Integers(values), LUNG_WINDOW, CT_LEVEL),
        Voxels::F32(values) if !resampled => encode(&even, Values::Floats(values), LUNG_WINDOW, CT_LEVEL),
        _ => encode(
            &even,
            Values::Floats(&resample_hu(volume, &even).values),
            LUNG_WINDOW,
            CT_LEVEL,
        ),
    };
    bytes.map(|bytes| Nifti { bytes, resampled })
}

fn even(grid: &Grid) -> Result<RegularGrid, OutputError> {
    even_grid(grid).map_err(|error| OutputError::Disagreement(error.to_string()))
}

enum Values<'a> {
    Labels(&'a [u8]),
    Integers(&'a [i16]),
    Floats(&'a [f32]),
}

impl Values<'_> {
    /// The datatype code and its bits.
    fn datatype(&self) -> (i16, i16) {
        match self {
            Values::Labels(_) => (2, 8),
            Values::Integers(_) => (4, 16),
            Values::Floats(_) => (16, 32),
        }
    }

    fn len(&self) -> usize {
        match self {
            Values::Labels(values) => values.len(),
            Values::Integers(values) => values.len(),
            Values::Floats(values) => values.len(),
        }
    }

    /// Appends some of the values, little endian.
    fn append(&self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        match self {
            Values::Labels(values) => out.extend_from_slice(&values[range]),
            Values::Integers(values) => out.extend(values[range].iter().flat_map(|value| value.to_le_bytes())),
            Values::Floats(values) => out.extend(values[range].iter().flat_map(|value| value.to_le_bytes())),
        }
    }
}

/// Header and voxels as one gzip member (RFC 1952), without a name or a time.
fn encode(grid: &RegularGrid, values: Values, shown: [f32; 2], level: u32) -> Result<Vec<u8>, OutputError> {
    const GZIP: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
    let header = header(grid, values.datatype(), shown)?;
    let bytes_each = usize::from(values.datatype().1.unsigned_abs()) / 8;
    let total = HEADER + values.len() * bytes_each;
    let per_piece = deflate::PIECE / bytes_each;
    let pieces = values.len().div_ceil(per_piece).max(1);
    let deflated = deflate::pieces(pieces, level, |piece, buffer| {
        if piece == 0 {
            buffer.extend_from_slice(&header);
        }
        values.append(piece * per_piece..values.len().min((piece + 1) * per_piece), buffer);
    })?;
    let mut out = Vec::with_capacity(deflated.bytes.len() + 18);
    out.extend_from_slice(&GZIP);
    out.extend_from_slice(&deflated.bytes);
    out.extend_from_slice(&deflated.crc32.to_le_bytes());
    // The length modulo 2^32, as the format has it.
    out.extend_from_slice(&(total as u32).to_le_bytes());
    Ok(out)
}

fn header(grid: &RegularGrid, (datatype, bits): (i16, i16), shown: [f32; 2]) -> Result<[u8; HEADER], OutputError> {
    const SCANNER: i16 = 1;
    const MILLIMETRES: u8 = 2;
    let mut header = [0; HEADER];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348_i32.to_le_bytes());
    put(40, &3_i16.to_le_bytes());
    let [slices, rows, columns] = grid.shape;
    for (axis, length) in [columns, rows, slices, 1, 1, 1, 1].into_iter().enumerate() {
        let length = i16::try_from(length).map_err(|_| OutputError::TooLarge {
            frames: slices,
            rows,
            columns,
        })?;
        put(42 + 2 * axis, &length.to_le_bytes());
    }
    put(70, &datatype.to_le_bytes());
    put(72, &bits.to_le_bytes());
    // DICOM's normal is row x column, so the axes are right-handed, and stay so when two of them are turned about: qfac is 1.
    let spacing = grid.spacing_mm.map(|mm| mm as f32);
    for (axis, value) in [1.0, spacing[0], spacing[1], spacing[2], 0.0, 0.0, 0.0, 0.0]
        .into_iter()
        .enumerate()
    {
        put(76 + 4 * axis, &f32::to_le_bytes(value));
    }
    put(108, &(HEADER as f32).to_le_bytes());
    put(112, &1_f32.to_le_bytes());
    put(123, &[MILLIMETRES]);
    put(124, &shown[1].to_le_bytes());
    put(128, &shown[0].to_le_bytes());
    put(
        148,
        concat!("Hilum ", env!("CARGO_PKG_VERSION"), ", research use only").as_bytes(),
    );
    put(252, &SCANNER.to_le_bytes());
    put(254, &SCANNER.to_le_bytes());

    let ras = |v: [f64; 3]| [-v[0], -v[1], v[2]];
    let axes = grid.axes.map(ras);
    let origin = ras(grid.origin);
    let [b, c, d] = quaternion(axes);
    for (index, value) in [b, c, d, origin[0], origin[1], origin[2]].into_iter().enumerate() {
        put(256 + 4 * index, &(value as f32).to_le_bytes());
    }
    for row in 0..3 {
        let line: [f64; 4] = [0, 1, 2, 3].map(|k| {
            if k < 3 {
                axes[k][row] * grid.spacing_mm[k]
            } else {
                origin[row]
            }
        });
        for (index, value) in line.into_iter().enumerate() {
            put(280 + 16 * row + 4 * index, &(value as f32).to_le_bytes());
        }
    }
    put(344, b"n+1\0");
    Ok(header)
}

/// b, c, d of the unit quaternion (a not negative) of a rotation whose columns are the axes: `nifti_mat44_to_quatern` of the NIfTI library, by the largest
/// of the four squares.
fn quaternion(axes: [[f64; 3]; 3]) -> [f64; 3] {
    let r = |row: usize, column: usize| axes[column][row];
    let squares = [
        1.0 + r(0, 0) + r(1, 1) + r(2, 2),
        1.0 + r(0, 0) - r(1, 1) - r(2, 2),
        1.0 - r(0, 0) + r(1, 1) - r(2, 2),
        1.0 - r(0, 0) - r(1, 1) + r(2, 2),
    ];
    let largest = (0..4).max_by(|a, b| squares[*a].total_cmp(&squares[*b])).unwrap_or(0);
    let twice = squares[largest].max(0.0).sqrt();
    let part = |numerator: f64| numerator / (2.0 * twice);
    let [a, b, c, d] = match largest {
        0 => [
            twice / 2.0,
            part(r(2, 1) - r(1, 2)),
            part(r(0, 2) - r(2, 0)),
            part(r(1, 0) - r(0, 1)),
        ],
        1 => [
            part(r(2, 1) - r(1, 2)),
            twice / 2.0,
            part(r(1, 0) + r(0, 1)),
            part(r(2, 0) + r(0, 2)),
        ],
        2 => [
            part(r(0, 2) - r(2, 0)),
            part(r(1, 0) + r(0, 1)),
            twice / 2.0,
            part(r(2, 1) + r(1, 2)),
        ],
        _ => [
            part(r(1, 0) - r(0, 1)),
            part(r(2, 0) + r(0, 2)),
            part(r(2, 1) + r(1, 2)),
            twice / 2.0,
        ],
    };
    if a < 0.0 { [-b, -c, -d] } else { [b, c, d] }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;

    use super::*;

    fn unzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    fn float(bytes: &[u8], at: usize) -> f64 {
        f64::from(f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
    }

    /// The affine that a reader makes of the quaternion, after `nifti_quatern_to_mat44`.
    fn from_quaternion(bytes: &[u8]) -> [[f64; 4]; 3] {
        let [mut b, mut c, mut d] = [256, 260, 264].map(|at| float(bytes, at));
        let mut a = 1.0 - (b * b + c * c + d * d);
        if a < 1e-7 {
            let length = (b * b + c * c + d * d).sqrt();
            (a, b, c, d) = (0.0, b / length, c / length, d / length);
        }
        a = a.sqrt();
        let rotation = [
            [
                a * a + b * b - c * c - d * d,
                2.0 * (b * c - a * d),
                2.0 * (b * d + a * c),
            ],
            [
                2.0 * (b * c + a * d),
                a * a + c * c - b * b - d * d,
                2.0 * (c * d - a * b),
            ],
            [
                2.0 * (b * d - a * c),
                2.0 * (c * d + a * b),
                a * a + d * d - c * c - b * b,
            ],
        ];
        std::array::from_fn(|row| {
            std::array::from_fn(|column| match column {
                3 => float(bytes, 268 + 4 * row),
                _ => rotation[row][column] * float(bytes, 80 + 4 * column),
            })
        })
    }

    #[test]
    fn both_affines_put_every_corner_where_the_grid_has_it() {
        let tilted = (20_f64.to_radians().cos(), 20_f64.to_radians().sin());
        let orientations = [
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]],
            [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]],
            [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
            [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]],
            [[1.0, 0.0, 0.0], [0.0, tilted.0, -tilted.1], [0.0, tilted.1, tilted.0]],
        ];
        for axes in orientations {
            let grid = RegularGrid {
                shape: [5, 4, 3],
                origin: [-170.5, -201.25, 33.0],
                axes,
                spacing_mm: [0.7, 0.8, 2.5],
            };
            let labels: Vec<u8> = (0..60).collect();
            let bytes = unzip(&encode(&grid, Values::Labels(&labels), [0.0, 2.0], 1).unwrap());
            assert_eq!(bytes[HEADER..], labels);
            let quaternion = from_quaternion(&bytes);
            for [i, j, k] in [
                [0.0, 0.0, 0.0],
                [2.0, 0.0, 0.0],
                [0.0, 3.0, 0.0],
                [0.0, 0.0, 4.0],
                [2.0, 3.0, 4.0],
            ] {
                let lps = grid.centre(k, j, i);
                let expected = [-lps[0], -lps[1], lps[2]];
                for row in 0..3 {
                    let affine: [f64; 4] = std::array::from_fn(|column| float(&bytes, 280 + 16 * row + 4 * column));
                    for line in [affine, quaternion[row]] {
                        let found = line[0] * i + line[1] * j + line[2] * k + line[3];
                        assert!(
                            (found - expected[row]).abs() < 1e-3,
                            "{axes:?}: {found} is not {expected:?}[{row}]"
                        );
                    }
                }
            }
        }
    }
}
