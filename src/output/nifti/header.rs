//! The header of a NIfTI-1 file, written and read (`nifti1.h` of the NIfTI-1.1 definition, <https://nifti.nimh.nih.gov>).

use super::super::OutputError;
use crate::volume::RegularGrid;

/// Bytes of the header itself.
pub(crate) const HEADER_BYTES: usize = 348;
/// Bytes before the first voxel of a file of ours: the header, and four that say that nothing more follows.
const VOXELS_AT: usize = 352;
/// Most voxels of a file that is read.
const MOST_VOXELS: u64 = 1 << 30;

// Where the fields stand; each is named as in nifti1.h.
const DIM: usize = 40;
const DATATYPE: usize = 70;
const BITPIX: usize = 72;
const PIXDIM: usize = 76;
const VOX_OFFSET: usize = 108;
const SCL_SLOPE: usize = 112;
const SCL_INTER: usize = 116;
const XYZT_UNITS: usize = 123;
const CAL_MAX: usize = 124;
const CAL_MIN: usize = 128;
const DESCRIP: usize = 148;
const QFORM_CODE: usize = 252;
const SFORM_CODE: usize = 254;
const QUATERN: usize = 256;
const QOFFSET: usize = 268;
const SROW: usize = 280;
const MAGIC: usize = 344;

/// What a voxel is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datatype {
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

impl Datatype {
    const ALL: [Self; 10] = [
        Self::U8,
        Self::I8,
        Self::I16,
        Self::U16,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
        Self::F32,
        Self::F64,
    ];

    fn code(self) -> i16 {
        match self {
            Self::U8 => 2,
            Self::I8 => 256,
            Self::I16 => 4,
            Self::U16 => 512,
            Self::I32 => 8,
            Self::U32 => 768,
            Self::I64 => 1024,
            Self::U64 => 1280,
            Self::F32 => 16,
            Self::F64 => 64,
        }
    }

    /// Bytes of a voxel.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// The number in the bytes of one voxel.
    fn number(self, value: &[u8], big_endian: bool) -> f64 {
        let mut bytes = [0; 8];
        bytes[..value.len()].copy_from_slice(value);
        if big_endian {
            bytes[..value.len()].reverse();
        }
        let [a, b, c, d, ..] = bytes;
        match self {
            Self::U8 => f64::from(a),
            Self::I8 => f64::from(a as i8),
            Self::I16 => f64::from(i16::from_le_bytes([a, b])),
            Self::U16 => f64::from(u16::from_le_bytes([a, b])),
            Self::I32 => f64::from(i32::from_le_bytes([a, b, c, d])),
            Self::U32 => f64::from(u32::from_le_bytes([a, b, c, d])),
            Self::I64 => i64::from_le_bytes(bytes) as f64,
            Self::U64 => u64::from_le_bytes(bytes) as f64,
            Self::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            Self::F64 => f64::from_le_bytes(bytes),
        }
    }
}

/// The header of an image on an even grid, in little endian; `shown` are the values that a viewer shows as black and as white.
///
/// # Errors
/// [`OutputError::ImageTooLarge`] where a dimension does not fit 15 bits.
pub(super) fn bytes(grid: &RegularGrid, datatype: Datatype, shown: [f32; 2]) -> Result<[u8; VOXELS_AT], OutputError> {
    const SCANNER: i16 = 1;
    const MILLIMETRES: u8 = 2;
    let mut header = [0; VOXELS_AT];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(HEADER_BYTES as i32).to_le_bytes());
    put(DIM, &3_i16.to_le_bytes());
    let [slices, rows, columns] = grid.shape;
    for (axis, length) in [columns, rows, slices, 1, 1, 1, 1].into_iter().enumerate() {
        let length = i16::try_from(length).map_err(|_| OutputError::ImageTooLarge { columns, rows, slices })?;
        put(DIM + 2 + 2 * axis, &length.to_le_bytes());
    }
    put(DATATYPE, &datatype.code().to_le_bytes());
    put(BITPIX, &(8 * datatype.size() as i16).to_le_bytes());
    // DICOM's normal is row x column, so the axes are right-handed, and stay so when two of them are turned about: qfac is 1.
    let spacing = grid.spacing_mm.map(|mm| mm as f32);
    for (axis, value) in [1.0, spacing[0], spacing[1], spacing[2], 0.0, 0.0, 0.0, 0.0]
        .into_iter()
        .enumerate()
    {
        put(PIXDIM + 4 * axis, &f32::to_le_bytes(value));
    }
    put(VOX_OFFSET, &(VOXELS_AT as f32).to_le_bytes());
    put(SCL_SLOPE, &1_f32.to_le_bytes());
    put(XYZT_UNITS, &[MILLIMETRES]);
    put(CAL_MAX, &shown[1].to_le_bytes());
    put(CAL_MIN, &shown[0].to_le_bytes());
    put(
        DESCRIP,
        concat!("Hilum ", env!("CARGO_PKG_VERSION"), ", research use only").as_bytes(),
    );
    put(QFORM_CODE, &SCANNER.to_le_bytes());
    put(SFORM_CODE, &SCANNER.to_le_bytes());

    let ras = |v: [f64; 3]| [-v[0], -v[1], v[2]];
    let axes = grid.axes.map(ras);
    let origin = ras(grid.origin);
    for (index, value) in quaternion(axes).into_iter().enumerate() {
        put(QUATERN + 4 * index, &(value as f32).to_le_bytes());
    }
    for (index, value) in origin.into_iter().enumerate() {
        put(QOFFSET + 4 * index, &(value as f32).to_le_bytes());
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
            put(SROW + 16 * row + 4 * index, &(value as f32).to_le_bytes());
        }
    }
    put(MAGIC, b"n+1\0");
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

/// Why bytes are no header of an image that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Not NIfTI-1, or a header that contradicts itself.
    #[error("{0}")]
    Damaged(&'static str),
    /// More voxels than are read.
    #[error("more than 2^30 voxels")]
    TooLarge,
}

/// What the header of a file says of its image.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    /// Columns, rows, slices: at least one of each, at most 2^30 voxels in all.
    pub(crate) shape: [usize; 3],
    /// What a voxel is stored as.
    pub(crate) datatype: Datatype,
    /// The first byte of the first voxel, at least [`HEADER_BYTES`] and at most 2^24.
    pub(crate) offset: usize,
    /// Rows of the matrix from voxel indices (i, j, k) to RAS+ millimetres; all finite.
    pub(crate) affine: [[f64; 4]; 3],
    big_endian: bool,
    slope: f64,
    intercept: f64,
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
    /// Whether bytes look like an uncompressed NIfTI-1 file.
    pub(crate) fn is_there(bytes: &[u8]) -> bool {
        bytes.get(MAGIC..MAGIC + 3) == Some(b"n+1")
    }

    /// Reads a header of either byte order. Sizes are bounded, and none is believed to be there.
    ///
    /// # Errors
    /// What is wrong with it, or more than 2^30 voxels.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let refuse = |what| Err(HeaderError::Damaged(what));
        if bytes.len() < HEADER_BYTES {
            return refuse("a NIfTI file has at least 348 bytes");
        }
        let big_endian = match [bytes[0], bytes[1], bytes[2], bytes[3]] {
            [92, 1, 0, 0] => false,
            [0, 0, 1, 92] => true,
            [28, 2, 0, 0] | [0, 0, 2, 28] => return refuse("NIfTI-2 is not read; convert it to NIfTI-1"),
            _ => return refuse("neither DICOM nor NIfTI"),
        };
        if !Self::is_there(bytes) {
            return refuse("header and image in two files are not read; convert them to one .nii");
        }
        let fields = Fields { bytes, big_endian };
        let dimensions = fields.short(DIM);
        if !(3..=7).contains(&dimensions) {
            return refuse("the image does not have three dimensions");
        }
        let size = |axis: usize| fields.short(DIM + 2 * axis);
        if (4..=dimensions as usize).any(|axis| size(axis) > 1) {
            return refuse("the image has more than three dimensions");
        }
        let mut shape = [0; 3];
        for (axis, count) in shape.iter_mut().enumerate() {
            *count = usize::try_from(size(axis + 1))
                .ok()
                .filter(|count| *count > 0)
                .ok_or(HeaderError::Damaged("a dimension is not positive"))?;
        }
        if shape.iter().map(|n| *n as u64).product::<u64>() > MOST_VOXELS {
            return Err(HeaderError::TooLarge);
        }
        let code = fields.short(DATATYPE);
        let Some(datatype) = Datatype::ALL.into_iter().find(|datatype| datatype.code() == code) else {
            return refuse("the voxels are not plain numbers");
        };
        let offset = fields.float(VOX_OFFSET);
        if !(0.0..=16_777_216.0).contains(&offset) {
            return refuse("the voxels begin nowhere");
        }
        let slope = fields.float(SCL_SLOPE);
        let scaled = slope.is_finite() && slope != 0.0;
        let affine = affine(&fields);
        if affine.iter().flatten().any(|value| !value.is_finite()) {
            return refuse("the affine is not finite");
        }
        Ok(Self {
            shape,
            datatype,
            big_endian,
            offset: (offset as usize).max(HEADER_BYTES),
            slope: if scaled { slope } else { 1.0 },
            intercept: if scaled { fields.float(SCL_INTER) } else { 0.0 },
            affine,
        })
    }

    /// The value in the bytes of one voxel, as many as [`Datatype::size`] says.
    pub(crate) fn value(&self, bytes: &[u8]) -> f64 {
        self.datatype.number(bytes, self.big_endian) * self.slope + self.intercept
    }
}

/// Method 3 (sform), method 2 (quaternion), method 1 (voxel sizes alone), as nifti1.h orders them.
fn affine(fields: &Fields) -> [[f64; 4]; 3] {
    let size = |axis: usize| fields.float(PIXDIM + 4 * axis);
    if fields.short(SFORM_CODE) > 0 {
        return [0, 1, 2].map(|row| [0, 1, 2, 3].map(|column| fields.float(SROW + 16 * row + 4 * column)));
    }
    if fields.short(QFORM_CODE) > 0 {
        let turn = rotation([0, 1, 2].map(|k| fields.float(QUATERN + 4 * k)));
        let sign = if size(0) < 0.0 { -1.0 } else { 1.0 };
        return [0, 1, 2].map(|row| {
            [
                turn[row][0] * size(1),
                turn[row][1] * size(2),
                turn[row][2] * size(3) * sign,
                fields.float(QOFFSET + 4 * row),
            ]
        });
    }
    [
        [size(1), 0.0, 0.0, 0.0],
        [0.0, size(2), 0.0, 0.0],
        [0.0, 0.0, size(3), 0.0],
    ]
}

/// Rows of the rotation that b, c, d of a quaternion stand for: `nifti_quatern_to_mat44` of the NIfTI library. A turn by half a circle leaves nothing for a, and
/// rounding may have made b, c, d longer than 1.
fn rotation([b, c, d]: [f64; 3]) -> [[f64; 3]; 3] {
    let square = 1.0 - (b * b + c * c + d * d);
    let [a, b, c, d] = if square < 1e-7 {
        let length = (b * b + c * c + d * d).sqrt();
        [0.0, b / length, c / length, d / length]
    } else {
        [square.sqrt(), b, c, d]
    };
    [
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
    ]
}
