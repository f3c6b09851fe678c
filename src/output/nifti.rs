//! A mask or a volume and its grid in, a compressed NIfTI-1 image (`.nii.gz`) out.
//!
//! NIfTI knows one affine, so a stack that is sheared or uneven is first brought onto an even grid (`even_grid` says at which step); what comes out says whether that
//! was so. Voxels stand as in memory: i is the column, j the row, k the slice. The affine is in RAS millimetres, where DICOM's is in LPS.
//! `header.rs` writes the header, and reads it for those who take NIfTI in.

mod header;

use std::borrow::Cow;

use super::{OutputError, deflate};
use crate::volume::{Grid, Mask, RegularGrid, Volume, Voxels, even_grid, resample_hu, resample_labels};
pub(crate) use header::{Datatype, HEADER_BYTES, Header, HeaderError};

/// The compression of CT voxels: noise in its low bits hardly yields to more.
const CT_LEVEL: u32 = 1;

/// A NIfTI image.
#[derive(Clone, Debug, PartialEq)]
pub struct Nifti {
    /// The bytes of a `.nii.gz` file.
    pub bytes: Vec<u8>,
    /// Whether the voxels are not the source's own, but were resampled onto an even grid.
    pub resampled: bool,
    /// Millimetres from slice to slice.
    pub step_mm: f64,
}

/// Labels on the grid of their volume, as unsigned bytes.
///
/// # Errors
/// Mask and grid do not fit each other, no even grid can be made of the stack, or it is larger than NIfTI-1 can say.
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
    .map(|bytes| Nifti {
        bytes,
        resampled,
        step_mm: even.spacing_mm[2],
    })
}

/// A volume in Hounsfield units, as 16-bit integers where that is exact and as 32-bit floats where it is not. Padding keeps its values.
///
/// # Errors
/// Voxels and grid do not fit each other, no even grid can be made of the stack, or it is larger than NIfTI-1 can say.
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
    bytes.map(|bytes| Nifti {
        bytes,
        resampled,
        step_mm: even.spacing_mm[2],
    })
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
    fn datatype(&self) -> Datatype {
        match self {
            Values::Labels(_) => Datatype::U8,
            Values::Integers(_) => Datatype::I16,
            Values::Floats(_) => Datatype::F32,
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
    let header = header::bytes(grid, values.datatype(), shown)?;
    let bytes_each = values.datatype().size();
    let total = header.len() + values.len() * bytes_each;
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
            let rows = Header::parse(&bytes).unwrap();
            assert_eq!((rows.shape, rows.datatype), ([3, 4, 5], Datatype::U8));
            assert_eq!(bytes[rows.offset..], labels);
            // Without the rows of the matrix a reader falls back on the quaternion.
            let mut without = bytes.clone();
            without[254..256].fill(0);
            let quaternion = Header::parse(&without).unwrap();
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
                    for line in [rows.affine[row], quaternion.affine[row]] {
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
