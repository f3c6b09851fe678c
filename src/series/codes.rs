//! Every code that a user can meet in a verdict, with its kind, its meaning and what to do about it, in one place.

use serde::{Deserialize, Serialize};
use std::fmt;

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

    // The series is repaired.
    /// Copies of an instance, or equal slices at one position, were left out.
    DuplicateInstancesDropped,
    /// Of several acquisitions the longest was taken.
    AcquisitionChosen,
    /// A narrow hole is filled by interpolation.
    GapBridged,
    /// The distance between slices is not the same everywhere.
    UnevenSpacing,
    /// Slices are sheared along the table.
    GantryTilt,
    /// Scout views inside the series were left out.
    LocalizersDropped,
    /// Secondary captures, projections or objects other than CT inside the series were left out.
    OtherObjectsDropped,

    // Notes: the series is accepted as it is.
    /// Files beside the slices cannot be read.
    FilesUnreadable,
    /// InstanceNumber does not follow the positions.
    InstanceNumbersDisagree,
    /// Every instance names a FrameOfReferenceUID of its own.
    FrameOfReferencePerInstance,
    /// Rescale differs from slice to slice.
    RescaleVaries,
    /// Pixels went through lossy compression.
    LossyCompressed,
    /// Padding values lie outside the field of view.
    PaddingPresent,
    /// ImageType says DERIVED.
    Derived,
    /// UIDs are absent, malformed or not unique.
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

/// What a code does to a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The series is refused.
    Refuses,
    /// Something was left out, or slices do not lie as a plain box of voxels.
    Repairs,
    /// The series is taken as it is; the reader of the result should know.
    Notes,
    /// Said of the mask, after the network has run.
    Mask,
}

impl Kind {
    /// One word for tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Refuses => "refused",
            Kind::Repairs => "repaired",
            Kind::Notes => "note",
            Kind::Mask => "mask",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The lines of the table: name, kind, meaning, what to do.
type Entry = (&'static str, Kind, &'static str, &'static str);

impl Code {
    /// All codes, in the order of the table in `docs/findings.md`.
    pub const ALL: [Code; 42] = [
        Code::NotCt,
        Code::Localizer,
        Code::DerivedProjection,
        Code::SecondaryCapture,
        Code::NoGeometry,
        Code::TooFewSlices,
        Code::MixedPatients,
        Code::MixedFramesOfReference,
        Code::MixedOrientation,
        Code::MixedMatrix,
        Code::MixedPixelSpacing,
        Code::TooLarge,
        Code::SlicesMissing,
        Code::ConflictingSlices,
        Code::NotHu,
        Code::UnsupportedTransferSyntax,
        Code::CorruptPixels,
        Code::DuplicateInstancesDropped,
        Code::AcquisitionChosen,
        Code::GapBridged,
        Code::UnevenSpacing,
        Code::GantryTilt,
        Code::LocalizersDropped,
        Code::OtherObjectsDropped,
        Code::FilesUnreadable,
        Code::InstanceNumbersDisagree,
        Code::FrameOfReferencePerInstance,
        Code::RescaleVaries,
        Code::LossyCompressed,
        Code::PaddingPresent,
        Code::Derived,
        Code::IdentityInvalid,
        Code::NotAxial,
        Code::SharpKernel,
        Code::Contrast,
        Code::ThickSlices,
        Code::LungsNotFound,
        Code::OneLungMissing,
        Code::ImplausibleVolume,
        Code::LungsCut,
        Code::ManyComponents,
        Code::SidesUncertain,
    ];

    /// The stable snake_case name.
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// What the code does to a series.
    pub const fn kind(self) -> Kind {
        self.entry().1
    }

    /// What the code means in general; a finding's own sentence has the numbers.
    pub const fn explanation(self) -> &'static str {
        self.entry().2
    }

    /// What can be done about it; empty where nothing needs to be done.
    pub const fn advice(self) -> &'static str {
        self.entry().3
    }

    /// All codes, in the order of the table.
    pub fn all() -> impl Iterator<Item = Code> {
        Code::ALL.into_iter()
    }

    const fn entry(self) -> Entry {
        match self {
            Code::NotCt => (
                "not_ct",
                Kind::Refuses,
                "The objects are not CT images.",
                "Send the CT series itself.",
            ),
            Code::Localizer => (
                "localizer",
                Kind::Refuses,
                "The series holds only scout views (localizers, topograms).",
                "Send the reconstructed slices of the same scan.",
            ),
            Code::DerivedProjection => (
                "derived_projection",
                Kind::Refuses,
                "The images are projections or renderings of several slices (MIP, MinIP, volume rendering), in which lung no longer has its own values.",
                "Send the original slices.",
            ),
            Code::SecondaryCapture => (
                "secondary_capture",
                Kind::Refuses,
                "The images are screenshots or scanned pictures (secondary captures), not slices with Hounsfield units.",
                "Send the original slices.",
            ),
            Code::NoGeometry => (
                "no_geometry",
                Kind::Refuses,
                "Position, orientation or pixel spacing is missing or impossible, so the slices cannot be placed in the patient.",
                "Export the series again with its geometry; some anonymisers and converters remove it.",
            ),
            Code::TooFewSlices => (
                "too_few_slices",
                Kind::Refuses,
                "There are fewer slices at different positions than a volume needs.",
                "Check that the whole series was sent.",
            ),
            Code::MixedPatients => (
                "mixed_patients",
                Kind::Refuses,
                "The slices name more than one patient: patient ID, its issuer, name or birth date differ.",
                "Correct the identity at the source and send the series again.",
            ),
            Code::MixedFramesOfReference => (
                "mixed_frames_of_reference",
                Kind::Refuses,
                "The slices belong to more than one frame of reference, so their positions cannot be compared.",
                "Send each part as a series of its own.",
            ),
            Code::MixedOrientation => (
                "mixed_orientation",
                Kind::Refuses,
                "The slices are not parallel to each other.",
                "Send each orientation as a series of its own.",
            ),
            Code::MixedMatrix => (
                "mixed_matrix",
                Kind::Refuses,
                "The slices do not have the same number of rows and columns.",
                "Send each reconstruction as a series of its own.",
            ),
            Code::MixedPixelSpacing => (
                "mixed_pixel_spacing",
                Kind::Refuses,
                "The slices do not have the same pixel spacing.",
                "Send each reconstruction as a series of its own.",
            ),
            Code::TooLarge => (
                "too_large",
                Kind::Refuses,
                "The series needs more memory than allowed.",
                "Raise the limit if the machine has the memory, or send a reconstruction with fewer or smaller slices.",
            ),
            Code::SlicesMissing => (
                "slices_missing",
                Kind::Refuses,
                "There is a hole between neighbouring slices that is too wide to bridge.",
                "Send the series again, whole.",
            ),
            Code::ConflictingSlices => (
                "conflicting_slices",
                Kind::Refuses,
                "Different images lie at one position, and nothing tells which of them belongs to the scan.",
                "Send each phase or reconstruction as a series of its own.",
            ),
            Code::NotHu => (
                "not_hu",
                Kind::Refuses,
                "The voxel values are not Hounsfield units.",
                "Send the original CT slices with their rescale values.",
            ),
            Code::UnsupportedTransferSyntax => (
                "unsupported_transfer_syntax",
                Kind::Refuses,
                "The pixels are stored in a transfer syntax that Hilum does not read.",
                "Send the series uncompressed, or in JPEG-LS or JPEG 2000 lossless.",
            ),
            Code::CorruptPixels => (
                "corrupt_pixels",
                Kind::Refuses,
                "The pixels of some slices are missing, cut short or cannot be decoded.",
                "Send the series again from the source.",
            ),
            Code::DuplicateInstancesDropped => (
                "duplicate_instances_dropped",
                Kind::Repairs,
                "Copies of slices (equal values at one position) were left out.",
                "",
            ),
            Code::AcquisitionChosen => (
                "acquisition_chosen",
                Kind::Repairs,
                "The series holds several acquisitions of the same region; the longest was taken and the others left out.",
                "To have another acquisition segmented, send it as a series of its own.",
            ),
            Code::GapBridged => (
                "gap_bridged",
                Kind::Repairs,
                "One or a few slices are missing; the narrow hole is filled by interpolation between its neighbours.",
                "Send the missing slices if they exist.",
            ),
            Code::UnevenSpacing => (
                "uneven_spacing",
                Kind::Repairs,
                "The distance between slices is not the same everywhere; every slice is used at its true position.",
                "",
            ),
            Code::GantryTilt => (
                "gantry_tilt",
                Kind::Repairs,
                "The slices are shifted sideways against each other, as with a tilted gantry; every slice is used at its true position.",
                "",
            ),
            Code::LocalizersDropped => (
                "localizers_dropped",
                Kind::Repairs,
                "Scout views inside the series were left out.",
                "",
            ),
            Code::OtherObjectsDropped => (
                "other_objects_dropped",
                Kind::Repairs,
                "Objects inside the series that are not CT slices (screenshots, projections, documents) were left out.",
                "",
            ),
            Code::FilesUnreadable => (
                "files_unreadable",
                Kind::Notes,
                "Files beside the slices could not be read; slices that they held are missing from the series.",
                "Send these files again, or check that they hold no slices of the series.",
            ),
            Code::InstanceNumbersDisagree => (
                "instance_numbers_disagree",
                Kind::Notes,
                "The instance numbers do not follow the positions; the slices are ordered by position.",
                "",
            ),
            Code::FrameOfReferencePerInstance => (
                "frame_of_reference_per_instance",
                Kind::Notes,
                "Every instance names a frame of reference of its own, as some anonymisers leave it; they are taken as one.",
                "Viewers may not lay the segmentation over the CT by frame of reference.",
            ),
            Code::RescaleVaries => (
                "rescale_varies",
                Kind::Notes,
                "Rescale slope or intercept differs from slice to slice; each slice is converted with its own.",
                "",
            ),
            Code::LossyCompressed => (
                "lossy_compressed",
                Kind::Notes,
                "The pixels went through lossy compression, now or earlier; fine detail and density figures may be changed.",
                "Prefer a losslessly stored copy for measurements.",
            ),
            Code::PaddingPresent => (
                "padding_present",
                Kind::Notes,
                "A padding value marks pixels outside the field of view; it counts as air for the network and is left out of measurements.",
                "",
            ),
            Code::Derived => (
                "derived",
                Kind::Notes,
                "The images are marked as derived from other images (reformatted or processed).",
                "Prefer the original slices for measurements.",
            ),
            Code::IdentityInvalid => (
                "identity_invalid",
                Kind::Notes,
                "Unique identifiers are absent, malformed or not unique; no DICOM Segmentation is written, since it could not name its source.",
                "Give the series valid identifiers if a DICOM Segmentation is needed.",
            ),
            Code::NotAxial => (
                "not_axial",
                Kind::Notes,
                "The slices are oblique, coronal or sagittal; they are resampled in patient space.",
                "Prefer the axial series of the same scan.",
            ),
            Code::SharpKernel => (
                "sharp_kernel",
                Kind::Notes,
                "A sharp reconstruction kernel adds noise, which raises the emphysema index and widens the spread of density figures.",
                "Measure density on a reconstruction with a standard kernel.",
            ),
            Code::Contrast => (
                "contrast",
                Kind::Notes,
                "Contrast medium was given, which raises lung density.",
                "Measure density on a scan without contrast medium.",
            ),
            Code::ThickSlices => (
                "thick_slices",
                Kind::Notes,
                "Thick slices average neighbouring tissue, which lowers the emphysema index and narrows the spread of density figures.",
                "Measure density on thin slices.",
            ),
            Code::LungsNotFound => (
                "lungs_not_found",
                Kind::Mask,
                "No lungs were found; no DICOM Segmentation is written.",
                "Check that the series shows the chest.",
            ),
            Code::OneLungMissing => (
                "one_lung_missing",
                Kind::Mask,
                "Only one lung was found.",
                "Look at the picture: one lung may be removed, collapsed, filled or outside the scan.",
            ),
            Code::ImplausibleVolume => (
                "implausible_volume",
                Kind::Mask,
                "The lung volume is smaller or larger than patients have.",
                "Look at the picture before using the numbers.",
            ),
            Code::LungsCut => (
                "lungs_cut",
                Kind::Mask,
                "The lungs reach the edge of the scan, so part of them is missing and volumes are too small.",
                "Use the volumes only if the missing part does not matter.",
            ),
            Code::ManyComponents => (
                "many_components",
                Kind::Mask,
                "The mask consists of many separate pieces.",
                "Look at the picture before using the numbers.",
            ),
            Code::SidesUncertain => (
                "sides_uncertain",
                Kind::Mask,
                "Right and left lung could not be told apart with confidence; both have one segment, one label and one volume.",
                "Use the total only.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_code_stands_once_in_the_list_and_serialises_as_its_name() {
        let mut names = std::collections::BTreeSet::new();
        for code in Code::all() {
            assert!(names.insert(code.as_str()), "{code} twice");
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<Code>(&format!("\"{code}\"")).unwrap(), code);
        }
        // The last variant's discriminant counts the variants.
        assert_eq!(names.len(), Code::SidesUncertain as usize + 1);
        assert!(Code::ALL.is_sorted());
    }

    #[test]
    fn explanations_are_sentences() {
        for code in Code::all() {
            assert!(code.explanation().ends_with('.'), "{code}");
            assert!(code.advice().is_empty() || code.advice().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn the_document_of_findings_says_what_the_code_says() {
        let page = include_str!("../../docs/findings.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let expected: Vec<Vec<String>> = Code::all()
            .map(|code| {
                vec![
                    format!("`{code}`"),
                    code.kind().as_str().to_owned(),
                    code.explanation().to_owned(),
                    code.advice().to_owned(),
                ]
            })
            .collect();
        assert_eq!(
            rows, expected,
            "docs/findings.md must repeat the table of codes; regenerate the rows from Code::all()"
        );
    }
}
