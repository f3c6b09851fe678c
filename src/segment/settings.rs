//! What a user can choose about reading, judging and results.

use serde::Deserialize;

use super::SEGMENTATION;
use crate::lungs::MaskLimits;
use crate::output::Frames;
use crate::series::SeriesLimits;

/// Limits of both verdicts, and what to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// When a series is refused or remarked upon.
    pub series: SeriesLimits,
    /// When a mask is remarked upon.
    pub mask: MaskLimits,
    /// What to make.
    pub output: OutputSettings,
    /// Profiles of the DICOM Segmentation that are made beside that of `output`, for destinations that want them.
    pub further_profiles: Vec<Profile>,
}

impl Settings {
    /// The profiles of the DICOM Segmentation that are made, each once: that of `output` first.
    #[must_use]
    pub fn profiles(&self) -> Vec<Profile> {
        let mut profiles = vec![self.output.profile()];
        for profile in &self.further_profiles {
            if !profiles.contains(profile) {
                profiles.push(*profile);
            }
        }
        profiles
    }
}

/// What to make of a mask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputSettings {
    /// The results to make.
    pub formats: Vec<Format>,
    /// One segment for both lungs, or one each.
    pub segments: Segments,
    /// Which frames the DICOM Segmentation holds.
    pub frames: FrameChoice,
    /// How the DICOM Segmentation is coded.
    pub transfer_syntax: TransferSyntax,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self {
            formats: vec![Format::Seg, Format::Nifti, Format::Png, Format::Json],
            segments: Segments::default(),
            frames: FrameChoice::default(),
            transfer_syntax: TransferSyntax::default(),
        }
    }
}

impl OutputSettings {
    /// Whether a result is wanted.
    #[must_use]
    pub fn wants(&self, format: Format) -> bool {
        self.formats.contains(&format)
    }

    /// The profile of `segmentation.dcm`.
    #[must_use]
    pub fn profile(&self) -> Profile {
        Profile {
            segments: self.segments,
            frames: self.frames,
            transfer_syntax: self.transfer_syntax,
        }
    }
}

/// What a DICOM Segmentation of a mask looks like. The same mask in two profiles is two objects, each with UIDs of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Profile {
    /// One segment for both lungs, or one each.
    pub segments: Segments,
    /// Which frames it holds.
    pub frames: FrameChoice,
    /// How it is coded.
    pub transfer_syntax: TransferSyntax,
}

/// File names by segments, frames and transfer syntax, in the order of their variants. They are made of the profile alone, so that they mean the same whatever `[output]` says.
const PROFILE_NAMES: [[[&str; 2]; 2]; 2] = [
    [
        [
            "segmentation-lung-full-explicit.dcm",
            "segmentation-lung-full-deflated.dcm",
        ],
        [
            "segmentation-lung-sparse-explicit.dcm",
            "segmentation-lung-sparse-deflated.dcm",
        ],
    ],
    [
        [
            "segmentation-left-right-full-explicit.dcm",
            "segmentation-left-right-full-deflated.dcm",
        ],
        [
            "segmentation-left-right-sparse-explicit.dcm",
            "segmentation-left-right-sparse-deflated.dcm",
        ],
    ],
];

/// The names that segmentations of further profiles may have.
pub(super) fn profile_names() -> impl Iterator<Item = &'static str> {
    PROFILE_NAMES.as_flattened().as_flattened().iter().copied()
}

impl Profile {
    /// The name of its file among results whose `segmentation.dcm` has the profile `usual`.
    #[must_use]
    pub fn file_name(self, usual: Profile) -> &'static str {
        if self == usual {
            return SEGMENTATION;
        }
        PROFILE_NAMES[self.segments as usize][self.frames as usize][self.transfer_syntax as usize]
    }

    /// Segments, frames and transfer syntax in the words of the configuration.
    #[must_use]
    pub fn words(self) -> [&'static str; 3] {
        [
            match self.segments {
                Segments::Lung => "lung",
                Segments::LeftRight => "left-right",
            },
            match self.frames {
                FrameChoice::Full => "full",
                FrameChoice::Sparse => "sparse",
            },
            match self.transfer_syntax {
                TransferSyntax::Explicit => "explicit",
                TransferSyntax::Deflated => "deflated",
            },
        ]
    }
}

/// A kind of result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `segmentation.dcm`, a DICOM Segmentation.
    Seg,
    /// `mask.nii.gz`.
    Nifti,
    /// `overlay.png`.
    Png,
    /// `report.json`.
    Json,
    /// `ct.nii.gz`, the volume in Hounsfield units.
    Ct,
}

/// The segments of the DICOM Segmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Segments {
    /// One: Lung.
    #[default]
    Lung,
    /// Two: Right lung, Left lung.
    LeftRight,
}

/// Which frames the DICOM Segmentation holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum FrameChoice {
    /// One for every slice, as most viewers want them.
    #[default]
    Full,
    /// Those alone that show lung.
    Sparse,
}

impl From<FrameChoice> for Frames {
    fn from(choice: FrameChoice) -> Frames {
        match choice {
            FrameChoice::Full => Frames::Full,
            FrameChoice::Sparse => Frames::Sparse,
        }
    }
}

/// How the DICOM Segmentation is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TransferSyntax {
    /// Explicit VR little endian, which everything reads.
    #[default]
    Explicit,
    /// Deflated explicit VR little endian: a hundredth of the size, and some readers know it not.
    Deflated,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn every_profile() -> Vec<Profile> {
        let mut all = Vec::new();
        for segments in [Segments::Lung, Segments::LeftRight] {
            for frames in [FrameChoice::Full, FrameChoice::Sparse] {
                for transfer_syntax in [TransferSyntax::Explicit, TransferSyntax::Deflated] {
                    all.push(Profile {
                        segments,
                        frames,
                        transfer_syntax,
                    });
                }
            }
        }
        all
    }

    #[test]
    fn a_profile_is_told_and_its_file_is_named_in_the_words_of_the_configuration() {
        let mut names: Vec<&str> = Vec::new();
        for (at, profile) in every_profile().into_iter().enumerate() {
            let [segments, frames, transfer_syntax] = profile.words();
            let read: Profile = serde_json::from_value(
                json!({"segments": segments, "frames": frames, "transfer_syntax": transfer_syntax}),
            )
            .unwrap();
            assert_eq!(read, profile);
            assert_eq!(profile.file_name(profile), SEGMENTATION);
            let other = every_profile()[(at + 1) % 8];
            let name = profile.file_name(other);
            assert_eq!(name, format!("segmentation-{segments}-{frames}-{transfer_syntax}.dcm"));
            names.push(name);
        }
        assert_eq!(profile_names().collect::<Vec<_>>(), names);
    }

    #[test]
    fn every_profile_is_made_once_and_that_of_the_output_first() {
        let sparse = Profile {
            frames: FrameChoice::Sparse,
            ..Profile::default()
        };
        let settings = Settings {
            further_profiles: vec![sparse, Profile::default(), sparse],
            ..Settings::default()
        };
        assert_eq!(settings.profiles(), [Profile::default(), sparse]);
        assert_eq!(Settings::default().profiles(), [Profile::default()]);
    }
}
