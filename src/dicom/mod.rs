//! Bytes in, plain headers and frames out.
//!
//! This room alone knows dicom-rs. It reads the header of an instance without its pixels, and later the stored values of one frame of it. What arrives is
//! not trusted: lengths are checked before anything is allocated, and compressed pixels are decoded by a child process under memory and time limits.

mod child;
mod codec;
mod codestream;
mod discover;
mod error;
mod fault;
mod fragments;
mod frames;
mod header;
mod identity;
mod limits;
mod pool;
mod prefix;
mod reader;
mod rle;
mod syntax;
mod uid;
mod unpack;
mod values;
mod view;
mod walk;

pub use child::{DECODER_SUBCOMMAND, DecoderLimits, run_decoder, serve_decoder};
pub use discover::{Discovery, Skipped, discover};
pub use error::{DicomError, PixelError};
pub use header::read_header;
pub use limits::Limits;
pub use reader::{DecodeOptions, FrameReader};
pub use syntax::{is_readable as is_readable_syntax, name as syntax_name};
pub use uid::{derived_uid, is_valid_uid};

pub mod segmentation_reader;
pub mod write_ct;

use std::path::Path;
use std::sync::Arc;

/// Where the bytes of an instance lie: a whole file, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: Arc<Path>,
    /// First byte of the instance in the file (0 for a whole file).
    pub offset: u64,
    /// Length of the instance in bytes.
    pub length: u64,
}

/// A SOP instance: its header, and where its bytes lie.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Where the bytes lie.
    pub source: Source,
    /// What the header says.
    pub header: Header,
}

/// The attributes of an instance that Hilum reads, as plain values. Text is trimmed of padding; an absent attribute is an empty string or `None`.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// TransferSyntaxUID.
    pub transfer_syntax_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// StudyInstanceUID.
    pub study_instance_uid: String,
    /// SeriesInstanceUID.
    pub series_instance_uid: String,
    /// FrameOfReferenceUID.
    pub frame_of_reference_uid: String,
    /// Modality.
    pub modality: String,
    /// ImageType, value by value, upper case.
    pub image_type: Vec<String>,
    /// What tells one patient from another.
    pub patient: PatientIdentity,
    /// SpecificCharacterSet, as stored.
    pub specific_character_set: String,
    /// InstanceNumber.
    pub instance_number: Option<i64>,
    /// AcquisitionNumber.
    pub acquisition_number: Option<i64>,
    /// SeriesNumber.
    pub series_number: Option<i64>,
    /// StudyDate, YYYYMMDD.
    pub study_date: String,
    /// StudyTime.
    pub study_time: String,
    /// SeriesDate.
    pub series_date: String,
    /// SeriesTime.
    pub series_time: String,
    /// ContentDate.
    pub content_date: String,
    /// ContentTime.
    pub content_time: String,
    /// AcquisitionDate (or the date of AcquisitionDateTime).
    pub acquisition_date: String,
    /// AcquisitionTime.
    pub acquisition_time: String,
    /// StudyDescription, decoded.
    pub study_description: String,
    /// SeriesDescription, decoded.
    pub series_description: String,
    /// BodyPartExamined.
    pub body_part_examined: String,
    /// PatientPosition (HFS, FFP, ...).
    pub patient_position: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// ManufacturerModelName.
    pub manufacturer_model_name: String,
    /// DeviceSerialNumber.
    pub device_serial_number: String,
    /// SoftwareVersions.
    pub software_versions: String,
    /// StationName.
    pub station_name: String,
    /// InstitutionName.
    pub institution_name: String,
    /// ConvolutionKernel.
    pub convolution_kernel: String,
    /// ContrastBolusAgent (or, for Enhanced CT, that of its sequence).
    pub contrast_bolus_agent: String,
    /// SliceThickness in millimetres.
    pub slice_thickness_mm: Option<f64>,
    /// GantryDetectorTilt in degrees.
    pub gantry_tilt_degrees: Option<f64>,
    /// LossyImageCompression is 01.
    pub lossy: bool,
    /// LossyImageCompressionRatio, as stored.
    pub lossy_ratio: String,
    /// LossyImageCompressionMethod, as stored.
    pub lossy_method: String,
    /// PositionReferenceIndicator.
    pub position_reference_indicator: String,
    /// How stored values are packed.
    pub pixels: PixelFormat,
    /// The frames, in stored order; a single-frame image has one, an object without an image none.
    pub frames: Vec<FrameHeader>,
    /// The elements of the Patient, Patient Study, General Study and Clinical Trial Subject/Study modules, of SpecificCharacterSet, TimezoneOffsetFromUTC and
    /// the de-identification marks, as raw bytes, ascending by tag: what a derived object copies unchanged.
    pub identity: Vec<RawElement>,
    /// Where the pixels are.
    pub pixel_data: PixelData,
}

/// The attributes by which patients are told apart, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatientIdentity {
    /// PatientID.
    pub id: String,
    /// IssuerOfPatientID.
    pub issuer: String,
    /// PatientName.
    pub name: String,
    /// PatientBirthDate.
    pub birth_date: String,
}

/// An element as stored, its value in little endian (a sequence re-written as explicit VR little endian items).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawElement {
    /// (group, element).
    pub tag: (u16, u16),
    /// Value representation, two letters.
    pub vr: [u8; 2],
    /// The value, of even length.
    pub value: Vec<u8>,
}

/// How the stored values of an instance are packed (PS3.3 C.7.6.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PixelFormat {
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// SamplesPerPixel.
    pub samples_per_pixel: u16,
    /// BitsAllocated.
    pub bits_allocated: u16,
    /// BitsStored.
    pub bits_stored: u16,
    /// HighBit.
    pub high_bit: u16,
    /// PixelRepresentation is 1.
    pub signed: bool,
    /// PhotometricInterpretation.
    pub photometric_interpretation: String,
    /// PixelPaddingValue and PixelPaddingRangeLimit as stored values, lowest and highest (equal without a limit). A value written in the wrong sign (63536 for
    /// -2000 in a signed image) is already brought into the range of the stored values.
    pub padding: Option<(i32, i32)>,
}

/// What is said of one frame: for single-frame images by the data set, for multi-frame images by the functional groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrameHeader {
    /// ImagePositionPatient, LPS millimetres.
    pub position: Option<[f64; 3]>,
    /// ImageOrientationPatient: direction along a row, then down a column.
    pub orientation: Option<[f64; 6]>,
    /// PixelSpacing in millimetres: between rows, between columns.
    pub pixel_spacing_mm: Option<[f64; 2]>,
    /// The same three as written, values joined by a backslash, for objects that must repeat them digit by digit.
    pub text: GeometryText,
    /// RescaleSlope and RescaleIntercept.
    pub rescale: Option<Rescale>,
    /// RescaleType (HU, US, ...), upper case; empty when absent.
    pub rescale_type: String,
    /// FrameType of a multi-frame image (its ImageType otherwise), upper case.
    pub frame_type: Vec<String>,
    /// VolumeBasedCalculationTechnique (MAX_IP, MPR, NONE, ...), upper case; empty when absent.
    pub calculation: String,
    /// SliceThickness of this frame in millimetres.
    pub slice_thickness_mm: Option<f64>,
    /// What tells acquisitions apart within a series: FrameAcquisitionNumber of a multi-frame image, AcquisitionNumber otherwise.
    pub acquisition_number: Option<i64>,
}

/// Decimal strings as the source wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GeometryText {
    /// ImagePositionPatient.
    pub position: String,
    /// ImageOrientationPatient.
    pub orientation: String,
    /// PixelSpacing.
    pub pixel_spacing: String,
}

/// Modality rescale of one frame: HU = stored * slope + intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// RescaleSlope; NaN where what is written is no finite number.
    pub slope: f64,
    /// RescaleIntercept; NaN where what is written is no finite number.
    pub intercept: f64,
}

impl Rescale {
    /// The Hounsfield units of a stored value.
    #[must_use]
    pub fn hu(self, stored: i32) -> f64 {
        f64::from(stored) * self.slope + self.intercept
    }
}

/// Where the pixels of an instance are, as far as its header tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PixelData {
    /// There are none.
    #[default]
    Absent,
    /// Uncompressed and readable in place, `offset` counted from the first byte of the instance. `length` is what the element declares; fewer may be there.
    Native {
        /// First byte of the value.
        offset: u64,
        /// Declared length in bytes.
        length: u64,
        /// Explicit VR big endian.
        big_endian: bool,
    },
    /// Inside a deflated data set: the stream begins at `start`, counted from the first byte of the instance, and the value at `offset` of the inflated bytes.
    Deflated {
        /// First byte of the deflated stream.
        start: u64,
        /// First byte of the value in the inflated data set.
        offset: u64,
        /// Declared length in bytes.
        length: u64,
    },
    /// Encapsulated: a decoder is needed. `offset` is the first byte of the sequence of fragments, counted from the first byte of the instance.
    Encoded {
        /// First byte of the sequence of fragments.
        offset: u64,
        /// Place and length in bytes of the value of ExtendedOffsetTable, if there is one.
        extended_offsets: Option<(u64, u64)>,
    },
}
