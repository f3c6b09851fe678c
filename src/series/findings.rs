//! Every code that a user can meet in a verdict, in one place.
//!
//! A finding has a stable snake_case code, a sentence that a radiographer understands, and the slices or UIDs concerned. The same codes stand in the
//! report, in the log and in every interface.

use serde::{Deserialize, Serialize};

/// What a verdict can say. The names, in snake_case, are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    // The series is refused.
    /// The SOP class is not a CT image.
    NotCt,
    /// A scout view.
    Localizer,
    /// A maximum or minimum intensity projection, or the like.
    DerivedProjection,
    /// A secondary capture.
    SecondaryCapture,
    /// Position, orientation or pixel spacing is missing or impossible.
    NoGeometry,
    /// Fewer slices than a volume needs.
    TooFewSlices,
    /// PatientID, issuer, name or birth date differ within the series.
    MixedPatients,
    /// More than one FrameOfReferenceUID.
    MixedFramesOfReference,
    /// Slices are not parallel.
    MixedOrientation,
    /// Rows or Columns differ.
    MixedMatrix,
    /// PixelSpacing differs.
    MixedPixelSpacing,
    /// The estimated memory is over the limit.
    TooLarge,
    /// A hole too wide to bridge.
    SlicesMissing,
    /// Two contents at one position.
    ConflictingSlices,
    /// Voxel values are not Hounsfield units.
    NotHu,
    /// The pixels are coded in a way that Hilum does not read.
    UnsupportedTransferSyntax,
    /// Pixels are missing or cannot be decoded.
    CorruptPixels,

    // The series is repaired: what was read was changed.
    /// Copies of an instance, or equal slices at one position, were left out.
    DuplicateInstancesDropped,
    /// Of several acquisitions the longest was taken.
    AcquisitionChosen,
    /// A narrow hole is filled by interpolation.
    GapBridged,
    /// Scout views inside the series were left out.
    LocalizersDropped,

    // Notes: the series is accepted as it is.
    /// InstanceNumber does not follow the positions.
    InstanceNumbersDisagree,
    /// The distance between slices is not the same everywhere.
    UnevenSpacing,
    /// Slices are sheared along the table.
    GantryTilt,
    /// Rescale differs from slice to slice.
    RescaleVaries,
    /// Pixels went through lossy compression.
    LossyCompressed,
    /// Padding values lie outside the field of view.
    PaddingPresent,
    /// ImageType says DERIVED.
    Derived,
    /// UIDs are absent or malformed.
    IdentityInvalid,
    /// Oblique, coronal or sagittal slices.
    NotAxial,
    /// A sharp kernel distorts density figures.
    SharpKernel,
    /// Contrast medium distorts density figures.
    Contrast,
    /// Thick slices distort density figures.
    ThickSlices,

    // The second verdict, on the mask.
    /// No lungs.
    LungsNotFound,
    /// Only one lung.
    OneLungMissing,
    /// A volume that no patient has.
    ImplausibleVolume,
    /// The lungs leave the field of view.
    LungsCut,
    /// Many separate pieces.
    ManyComponents,
    /// Right and left cannot be told apart.
    SidesUncertain,
}

/// What became of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Taken as it is.
    Accepted,
    /// Taken, with something changed or left out.
    Repaired,
    /// Not taken.
    Refused,
}

/// One thing that was noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The stable code.
    pub code: Code,
    /// A plain sentence for people, with the numbers that matter.
    pub sentence: String,
    /// Slices (by position or file) or UIDs concerned; at most a few dozen, the sentence tells how many there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concerns: Vec<String>,
}

/// The outcome and its findings; in a refused series the first finding decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Accepted, repaired or refused.
    pub outcome: Outcome,
    /// What was noticed.
    pub findings: Vec<Finding>,
}
