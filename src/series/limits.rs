//! The thresholds of the verdict, in one place, each with where it comes from.

use serde::{Deserialize, Serialize};

/// What the verdict holds a series against. Defaults are what the project ships with; the configuration may set any of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeriesLimits {
    /// Fewest slices at different positions. dicom2nifti asks for 4 (its settings.py); partial series of 8 slices occur in practice and are fine.
    pub min_slices: usize,
    /// A hole (the distance between the centres on both sides) is bridged up to this width, or up to `max_hole_steps` usual distances where that is
    /// wider, and refused beyond both. 10 mm: two slices of the reference network's grid of 5 mm, between which it can still interpolate.
    pub max_hole_mm: f64,
    /// See `max_hole_mm`. Twice the usual distance: one slice is missing.
    pub max_hole_steps: f64,
    /// A step from this many usual distances on counts as a hole. 1.75 lies between a true irregular step (series with 1 and 1.5 times the distance are
    /// made) and one missing slice (2).
    pub gap_steps: f64,
    /// Most memory that one series may need, in bytes, by the estimate made before decoding.
    pub max_memory_bytes: u64,
    /// Angle between the slice normal and the long axis of the patient from which slices are no longer axial. 8.1 degrees is abs(n.z) = 0.99, the limit
    /// of the NLST query of IDC's CloudSegmentator (nlstCohort.sql). A tilted gantry whose slices follow each other along the long axis is axial.
    pub not_axial_degrees: f64,
    /// Slices at most this far apart along the normal are at one position. 3D Slicer's tolerance for positions (DICOMUtils.getSortedImageFiles); steps
    /// of real series start at about 0.1 mm.
    pub same_position_mm: f64,
    /// The step between slices may differ from the usual one by this much and `uneven_relative` of it before spacing is called uneven. 0.1 mm is
    /// dicom2nifti's absolute tolerance (common.py); positions rounded to a tenth of a millimetre stay below it.
    pub uneven_mm: f64,
    /// See `uneven_mm`. 1 % is highdicom's relative tolerance (spatial.py).
    pub uneven_relative: f64,
    /// Angle between the slice normal and the line from the first origin to the last from which the gantry counts as tilted. A drift of 0.02 mm in 5 mm
    /// (0.23 degrees) is taken as straight by every common reader; the smallest tilt that scanners are set to is 1 degree or more.
    pub tilt_degrees: f64,
    /// Most that one cosine of ImageOrientationPatient may differ between slices. dicom2nifti's tolerance: a quarter of a millimetre at the border of a
    /// 500 mm field of view.
    pub orientation_tolerance: f64,
    /// Most that the two directions may miss unit length and a right angle. Cosines are written with as few as three digits.
    pub orthonormal_tolerance: f64,
    /// Most that PixelSpacing may differ between slices, relative. 1e-3 moves the last of 512 pixels by half a pixel.
    pub pixel_spacing_relative: f64,
    /// SliceThickness above which density figures carry the note `thick_slices`. Our choice: quantitative CT uses sections of about 1 mm, and routine
    /// chest series up to 3 mm are common (on thickness as a source of variation: Coxson, J Thorac Imaging 2013, doi 10.1097/RTI.0b013e31829efbe9).
    pub thick_slices_mm: f64,
    /// Reconstruction kernels to be called sharp beside those that Hilum knows, as the scanner writes them (case does not matter).
    pub sharp_kernels: Vec<String>,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self {
            min_slices: 4,
            max_hole_mm: 10.0,
            max_hole_steps: 2.0,
            gap_steps: 1.75,
            max_memory_bytes: 8 << 30,
            not_axial_degrees: 8.1,
            same_position_mm: 0.01,
            uneven_mm: 0.1,
            uneven_relative: 0.01,
            tilt_degrees: 0.5,
            orientation_tolerance: 1e-3,
            orthonormal_tolerance: 1e-2,
            pixel_spacing_relative: 1e-3,
            thick_slices_mm: 3.0,
            sharp_kernels: Vec::new(),
        }
    }
}

/// Positions and widths are compared with this slack in millimetres, so that decimal strings do not decide.
pub(super) const SLACK_MM: f64 = 1e-3;
