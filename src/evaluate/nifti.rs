//! The bytes of a NIfTI-1 file (`.nii`, `.nii.gz`) in, a label image out.
//!
//! The header is 348 bytes (nifti1.h of the NIfTI-1 data format working group). Nothing is allocated before the sizes were compared with the bytes that are there;
//! a compressed file is inflated no further than its header asks for.

use std::io::Read;

use super::EvaluateError;
use super::grid::LabelImage;
use crate::volume::Grid;

/// Voxels of one file.
const MOST_VOXELS: u64 = 1 << 30;
const HEADER: usize = 348;

/// Whether bytes look like NIfTI-1, compressed or not.
pub(super) fn is_nifti(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b]) || bytes.get(344..347) == Some(b"n+1")
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
        .take(HEADER as u64)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let header = Header::parse(&start)?;
    std::io::copy(
        &mut source.by_ref().take((header.offset - HEADER) as u64),
        &mut std::io::sink(),
    )
    .map_err(failed)?;
    // Labels grow with what is really there; values are never held all at once.
    let voxels: usize = header.shape.iter().product();
    let mut labels = Vec::new();
    let mut block = vec![0; 8192 * header.kind.size()];
    while labels.len() < voxels {
        let part = block.len().min((voxels - labels.len()) * header.kind.size());
        source.read_exact(&mut block[..part]).map_err(failed)?;
        labels.extend(
            block[..part]
                .chunks_exact(header.kind.size())
                .map(|value| header.label(value)),
        );
    }
    header.image(labels)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

struct Header {
    shape: [usize; 3],
    kind: Kind,
    big_endian: bool,
    offset: usize,
    slope: f64,
    intercept: f64,
    /// Rows of the matrix from voxel indices (i, j, k) to RAS+ millimetres.
    affine: [[f64; 4]; 3],
}

/// Numbers of the header in its byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut part = [0; N];
        if let Some(found) = self.bytes.get(at..at + N) {
            part.copy_from_slice(found);
        }
        if self.big_endian {
            part.reverse();
        }
        part
    }

    fn short(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.part(at))
    }

    fn float(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.part(at)))
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, EvaluateError> {
        let refuse = |what: &str| Err(EvaluateError::Damaged(what.to_owned()));
        if bytes.len() < HEADER {
            return refuse("a NIfTI file has at least 348 bytes");
        }
        let big_endian = match [bytes[0], bytes[1], bytes[2], bytes[3]] {
            [92, 1, 0, 0] => false,
            [0, 0, 1, 92] => true,
            [28, 2, 0, 0] | [0, 0, 2, 28] => return refuse("NIfTI-2 is not read; convert it to NIfTI-1"),
            _ => return refuse("neither DICOM nor NIfTI"),
        };
        if &bytes[344..347] != b"n+1" {
            return refuse("header and image in two files are not read; convert them to one .nii");
        }
        let fields = Fields { bytes, big_endian };
        let dimensions = fields.short(40);
        if !(3..=7).contains(&dimensions) {
            return refuse("the image does not have three dimensions");
        }
        let size = |axis: usize| fields.short(40 + 2 * axis);
        if (4..=dimensions as usize).any(|axis| size(axis) > 1) {
            return refuse("the image has more than three dimensions");
        }
        let mut shape = [0; 3];
        for (axis, count) in shape.iter_mut().enumerate() {
            *count = usize::try_from(size(axis + 1))
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| EvaluateError::Damaged("a dimension is not positive".to_owned()))?;
        }
        if shape.iter().map(|n| *n as u64).product::<u64>() > MOST_VOXELS {
            return Err(EvaluateError::TooLarge);
        }
        let kind = match fields.short(70) {
            2 => Kind::U8,
            256 => Kind::I8,
            4 => Kind::I16,
            512 => Kind::U16,
            8 => Kind::I32,
            768 => Kind::U32,
            1024 => Kind::I64,
            1280 => Kind::U64,
            16 => Kind::F32,
            64 => Kind::F64,
            _ => return refuse("the voxels are not plain numbers"),
        };
        let offset = fields.float(108);
        if !(0.0..=16_777_216.0).contains(&offset) {
            return refuse("the voxels begin nowhere");
        }
        let slope = fields.float(112);
        let scaled = slope.is_finite() && slope != 0.0;
        let affine = affine(&fields);
        if affine.iter().flatten().any(|value| !value.is_finite()) {
            return refuse("the affine is not finite");
        }
        Ok(Self {
            shape,
            kind,
            big_endian,
            offset: (offset as usize).max(HEADER),
            slope: if scaled { slope } else { 1.0 },
            intercept: if scaled { fields.float(116) } else { 0.0 },
            affine,
        })
    }

    fn image(&self, labels: Vec<u8>) -> Result<LabelImage, EvaluateError> {
        let [columns, rows, slices] = self.shape;
        let column = |axis: usize| [-self.affine[0][axis], -self.affine[1][axis], self.affine[2][axis]];
        let (along, down, through, origin) = (column(0), column(1), column(2), column(3));
        let length = |v: [f64; 3]| (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
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
            normal: super::grid::cross(row_direction, column_direction),
            spacing_mm: [length(down), length(along)],
        };
        let mut image = LabelImage::new(grid, labels)?;
        if slices == 1 {
            image.lone_thickness_mm = length(through);
        }
        Ok(image)
    }

    fn label(&self, value: &[u8]) -> u8 {
        let mut bytes = [0; 8];
        bytes[..value.len()].copy_from_slice(value);
        if self.big_endian {
            bytes[..value.len()].reverse();
        }
        let [a, b, c, d, ..] = bytes;
        let raw = match self.kind {
            Kind::U8 => f64::from(a),
            Kind::I8 => f64::from(a as i8),
            Kind::I16 => f64::from(i16::from_le_bytes([a, b])),
            Kind::U16 => f64::from(u16::from_le_bytes([a, b])),
            Kind::I32 => f64::from(i32::from_le_bytes([a, b, c, d])),
            Kind::U32 => f64::from(u32::from_le_bytes([a, b, c, d])),
            Kind::I64 => i64::from_le_bytes(bytes) as f64,
            Kind::U64 => u64::from_le_bytes(bytes) as f64,
            Kind::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            Kind::F64 => f64::from_le_bytes(bytes),
        };
        // Float to integer conversion saturates, and turns what is no number into 0.
        (raw * self.slope + self.intercept).round() as u8
    }
}

/// Method 3 (sform), method 2 (quaternion), method 1 (voxel sizes alone), as nifti1.h orders them.
fn affine(fields: &Fields) -> [[f64; 4]; 3] {
    let size = |axis: usize| fields.float(76 + 4 * axis);
    if fields.short(254) > 0 {
        return [0, 1, 2].map(|row| [0, 1, 2, 3].map(|column| fields.float(280 + 16 * row + 4 * column)));
    }
    if fields.short(252) > 0 {
        let [b, c, d] = [fields.float(256), fields.float(260), fields.float(264)];
        let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
        let turn = [
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
                a * a + d * d - b * b - c * c,
            ],
        ];
        let sign = if size(0) < 0.0 { -1.0 } else { 1.0 };
        return [0, 1, 2].map(|row| {
            [
                turn[row][0] * size(1),
                turn[row][1] * size(2),
                turn[row][2] * size(3) * sign,
                fields.float(268 + 4 * row),
            ]
        });
    }
    [
        [size(1), 0.0, 0.0, 0.0],
        [0.0, size(2), 0.0, 0.0],
        [0.0, 0.0, size(3), 0.0],
    ]
}
