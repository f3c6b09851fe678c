//! The bytes of a NIfTI-1 file (`.nii`, `.nii.gz`) in, a label image out.
//!
//! Nothing is allocated before it is there; a compressed file is inflated no further than its header asks for.

use std::io::Read;

use super::EvaluateError;
use super::grid::LabelImage;
use crate::output::nifti::{HEADER_BYTES, Header, HeaderError};
use crate::series::vector::{cross, length};
use crate::volume::Grid;

/// Whether bytes look like NIfTI-1, compressed or not.
pub(super) fn is_nifti(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b]) || Header::is_there(bytes)
}

/// Reads a label image.
pub(super) fn read(bytes: &[u8]) -> Result<LabelImage, EvaluateError> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        read_from(flate2::read::MultiGzDecoder::new(bytes))
    } else {
        read_from(bytes)
    }
}

fn read_from(mut source: impl Read) -> Result<LabelImage, EvaluateError> {
    let failed = |_| EvaluateError::Damaged("the file ends early, or cannot be inflated".to_owned());
    let mut start = Vec::new();
    source
        .by_ref()
        .take(HEADER_BYTES as u64)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let header = Header::parse(&start)?;
    std::io::copy(
        &mut source.by_ref().take((header.offset - HEADER_BYTES) as u64),
        &mut std::io::sink(),
    )
    .map_err(failed)?;
    // Labels grow with what is really there; values are never held all at once.
    let voxels: usize = header.shape.iter().product();
    let size = header.datatype.size();
    let mut labels = Vec::new();
    let mut block = vec![0; 8192 * size];
    while labels.len() < voxels {
        let part = block.len().min((voxels - labels.len()) * size);
        source.read_exact(&mut block[..part]).map_err(failed)?;
        labels.extend(block[..part].chunks_exact(size).map(|value| label(header.value(value))));
    }
    image(&header, labels)
}

impl From<HeaderError> for EvaluateError {
    fn from(error: HeaderError) -> EvaluateError {
        match error {
            HeaderError::Damaged(what) => EvaluateError::Damaged(what.to_owned()),
            HeaderError::TooLarge => EvaluateError::TooLarge,
        }
    }
}

/// Float to integer conversion saturates, and turns what is no number into 0.
fn label(value: f64) -> u8 {
    value.round() as u8
}

fn image(header: &Header, labels: Vec<u8>) -> Result<LabelImage, EvaluateError> {
    let [columns, rows, slices] = header.shape;
    let column = |axis: usize| [-header.affine[0][axis], -header.affine[1][axis], header.affine[2][axis]];
    let (along, down, through, origin) = (column(0), column(1), column(2), column(3));
    let unit = |v: [f64; 3]| {
        let l = length(v);
        v.map(|c| c / l)
    };
    if [along, down, through].into_iter().any(|v| length(v) < 1e-6) {
        return Err(EvaluateError::Damaged("the affine is flat".to_owned()));
    }
    let (row_direction, column_direction) = (unit(along), unit(down));
    let origins = (0..slices)
        .map(|k| [0, 1, 2].map(|axis| origin[axis] + k as f64 * through[axis]))
        .collect();
    let grid = Grid {
        rows,
        columns,
        origins,
        row_direction,
        column_direction,
        normal: cross(row_direction, column_direction),
        spacing_mm: [length(down), length(along)],
    };
    let mut image = LabelImage::new(grid, labels)?;
    if slices == 1 {
        image.lone_thickness_mm = length(through);
    }
    Ok(image)
}
