//! The frames of a series, sorted into slices and what only travels with them (scout views, screenshots, projections).

use super::codes::Code;
use super::findings::Finding;
use super::wording::{are, count, was};
use super::{Series, Slice};
use crate::dicom::{FrameHeader, Header};
use std::collections::BTreeMap;
use std::path::Path;

/// A frame of an instance of the series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    /// Index into `Series::instances`.
    pub(super) instance: usize,
    /// Index of the frame in that instance.
    pub(super) frame: usize,
    pub(super) header: &'a Header,
    pub(super) said: &'a FrameHeader,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nature {
    Slice,
    Localizer,
    Projection,
    SecondaryCapture,
    NotCt,
}

/// CT Image Storage, whose objects hold one frame.
const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";

/// CT Image, Enhanced CT Image and Legacy Converted Enhanced CT Image Storage (PS3.4 B.5).
const CT_CLASSES: [&str; 3] = [CT_IMAGE, "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"];

/// Secondary Capture Image Storage and its multi-frame siblings begin so (PS3.4 B.5).
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";

/// Words in ImageType that mark what several slices were projected or rendered into: those of PS3.3 C.8.16.1 for enhanced images (volume based
/// calculation technique) and those that scanners write into the third and later values (such as "CT_SOM5 MIP").
const PROJECTION_WORDS: [&str; 12] = [
    "MIP",
    "MINIP",
    "MAXIP",
    "MPVR",
    "RAYSUM",
    "VRT",
    "SSD",
    "CPR",
    "PROJECTION",
    "VOLUMERENDERED",
    "RENDERED",
    "CURVED",
];
const PROJECTION_VALUES: [&str; 7] = [
    "MAX_IP",
    "MIN_IP",
    "MAX IP",
    "MIN IP",
    "VOLUME_RENDER",
    "SURFACE_RENDER",
    "VOLUME_RENDERED",
];

/// Values of ImageType that mark a picture of a screen.
const SCREEN_VALUES: [&str; 3] = ["SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE"];

impl Member<'_> {
    fn nature(&self) -> Nature {
        let class = self.header.sop_class_uid.as_str();
        let modality = self.header.modality.as_str();
        if class == SECONDARY_CAPTURE || class.starts_with("1.2.840.10008.5.1.4.1.1.7.") {
            return Nature::SecondaryCapture;
        }
        let modality_ct = modality.eq_ignore_ascii_case("CT");
        let ct = if class.is_empty() {
            modality_ct
        } else {
            CT_CLASSES.contains(&class) && (modality_ct || modality.is_empty())
        };
        if !ct {
            return Nature::NotCt;
        }
        let values = || self.types().into_iter().flatten().map(String::as_str);
        if values().any(|value| SCREEN_VALUES.contains(&value)) {
            Nature::SecondaryCapture
        } else if values().any(|value| value == "LOCALIZER") {
            Nature::Localizer
        } else if values().chain([self.said.calculation.as_str()]).any(is_projection) || self.is_of_extremes() {
            Nature::Projection
        } else {
            Nature::Slice
        }
    }

    /// ImageType and FrameType.
    fn types(&self) -> [&Vec<String>; 2] {
        [&self.header.image_type, &self.said.frame_type]
    }

    /// Whether Derived Pixel Contrast, the fourth value of an enhanced image's type (PS3.3 C.8.16.1.4), says the highest or the lowest of several values.
    fn is_of_extremes(&self) -> bool {
        let contrasts = self.types().map(|values| values.get(3).map(String::as_str));
        self.header.sop_class_uid != CT_IMAGE && contrasts.iter().any(|one| matches!(one, Some("MAXIMUM" | "MINIMUM")))
    }
}

fn is_projection(value: &str) -> bool {
    PROJECTION_VALUES.contains(&value)
        || value
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| PROJECTION_WORDS.contains(&word))
}

/// The frames that are slices, and what was found while parting them from the rest; or the finding that refuses the series.
pub(super) fn slices<'a>(series: &'a Series, names: &Names) -> Result<(Vec<Member<'a>>, Vec<Finding>), Finding> {
    static NO_FRAME: FrameHeader = NO_FRAME_HEADER;
    let mut sorted: [Vec<Member<'a>>; 5] = Default::default();
    for (index, instance) in series.instances.iter().enumerate() {
        let header = &instance.header;
        let mut add = |frame, said| {
            let member = Member {
                instance: index,
                frame,
                header,
                said,
            };
            sorted[member.nature() as usize].push(member);
        };
        if header.frames.is_empty() {
            add(0, &NO_FRAME);
        }
        for (frame, said) in header.frames.iter().enumerate() {
            add(frame, said);
        }
    }
    let [slices, localizers, projections, captures, others] = sorted;
    if slices.is_empty() {
        return Err(nothing_to_segment(&localizers, &projections, &captures, &others, names));
    }
    let mut findings = Vec::new();
    if !localizers.is_empty() {
        let sentence = format!(
            "{} inside the series {} left out; {} remain.",
            count(localizers.len(), "scout view"),
            was(localizers.len()),
            count(slices.len(), "slice")
        );
        findings.push(Finding::new(Code::LocalizersDropped, sentence).about(localizers.iter().map(|m| names.of(m))));
    }
    let strays = one_per_instance(&[projections, captures, others].concat());
    if !strays.is_empty() {
        let sentence = format!(
            "{} inside the series that {} no CT slice (screenshot, projection, document or another kind of image) {} left out; {} remain.",
            count(strays.len(), "object"),
            are(strays.len()),
            was(strays.len()),
            count(slices.len(), "slice"),
        );
        findings.push(Finding::new(Code::OtherObjectsDropped, sentence).about(strays.iter().map(|m| names.of(m))));
    }
    Ok((slices, findings))
}

/// Stands for the one frame of an object whose header tells of none.
const NO_FRAME_HEADER: FrameHeader = FrameHeader {
    position: None,
    orientation: None,
    pixel_spacing_mm: None,
    text: crate::dicom::GeometryText {
        position: String::new(),
        orientation: String::new(),
        pixel_spacing: String::new(),
    },
    rescale: None,
    rescale_type: String::new(),
    frame_type: Vec::new(),
    calculation: String::new(),
    slice_thickness_mm: None,
    acquisition_number: None,
};

fn nothing_to_segment(
    localizers: &[Member<'_>],
    projections: &[Member<'_>],
    captures: &[Member<'_>],
    others: &[Member<'_>],
    names: &Names,
) -> Finding {
    let (code, members, what) = if !projections.is_empty() {
        (
            Code::DerivedProjection,
            projections,
            "projections or renderings (MIP, MinIP or the like) of a CT, in which lung no longer has its own values",
        )
    } else if !localizers.is_empty() {
        (Code::Localizer, localizers, "scout views (localizers)")
    } else if !captures.is_empty() {
        (
            Code::SecondaryCapture,
            captures,
            "screenshots or scanned pictures (secondary captures), not CT slices",
        )
    } else {
        let mut kinds: Vec<String> = others.iter().map(|m| kind_of(m.header)).collect();
        kinds.sort();
        kinds.dedup();
        kinds.truncate(4);
        let objects = one_per_instance(others);
        let sentence = format!(
            "The series holds no CT images, but {} ({}).",
            count(objects.len(), "object"),
            kinds.join("; ")
        );
        return Finding::new(Code::NotCt, sentence).about(objects.iter().map(|m| names.instance(m.instance)));
    };
    let sentence = format!(
        "The series holds only {what}: {}. Send the slices of the scan.",
        count(members.len(), "image")
    );
    Finding::new(code, sentence).about(members.iter().map(|m| names.of(m)))
}

fn kind_of(header: &Header) -> String {
    match (header.modality.as_str(), header.sop_class_uid.as_str()) {
        ("", "") => "without modality and SOP class".to_owned(),
        ("", class) => format!("SOP class {class}"),
        (modality, "") => format!("modality {modality}"),
        (modality, class) => format!("modality {modality}, SOP class {class}"),
    }
}

fn one_per_instance<'a>(members: &[Member<'a>]) -> Vec<Member<'a>> {
    let mut first = members.to_vec();
    first.dedup_by_key(|m| m.instance);
    first
}

/// What the files of the service's inbox end with. They hold what came in one request, and their names say nothing to anybody.
const BATCH_EXTENSION: &str = "batch";

/// How the instances of a series are named to people: by the file's path below the folder that they share, or by SOP Instance UID where the bytes lie in
/// a file with others or in one of the service's inbox.
#[derive(Clone, Debug)]
pub struct Names {
    names: Vec<String>,
    multi_frame: Vec<bool>,
}

impl Names {
    /// The names of all instances of a series.
    pub fn new(series: &Series) -> Self {
        let mut shared: Option<&Path> = None;
        let mut in_file: BTreeMap<&Path, usize> = BTreeMap::new();
        for instance in &series.instances {
            *in_file.entry(&instance.source.path).or_default() += 1;
            let folder = instance.source.path.parent().unwrap_or(Path::new(""));
            shared = Some(match shared {
                None => folder,
                Some(known) => known
                    .ancestors()
                    .find(|a| folder.starts_with(a))
                    .unwrap_or(Path::new("")),
            });
        }
        let shared = shared.unwrap_or(Path::new(""));
        let names = series.instances.iter().map(|instance| {
            let path: &Path = &instance.source.path;
            let batch = path.extension().is_some_and(|extension| extension == BATCH_EXTENSION);
            let alone = instance.source.offset == 0 && in_file.get(path) == Some(&1) && !batch;
            if !alone && !instance.header.sop_instance_uid.is_empty() {
                return instance.header.sop_instance_uid.clone();
            }
            path.strip_prefix(shared).unwrap_or(path).display().to_string()
        });
        let multi_frame = series
            .instances
            .iter()
            .map(|instance| instance.header.frames.len() > 1)
            .collect();
        Self {
            names: names.collect(),
            multi_frame,
        }
    }

    /// The name of a slice.
    pub fn slice(&self, slice: &Slice) -> String {
        self.frame(slice.instance, slice.frame)
    }

    pub(super) fn of(&self, member: &Member<'_>) -> String {
        self.frame(member.instance, member.frame)
    }

    pub(super) fn instance(&self, instance: usize) -> String {
        self.names.get(instance).cloned().unwrap_or_default()
    }

    /// The name of a frame: its instance's, with the frame's number from 1 where there are several.
    fn frame(&self, instance: usize, frame: usize) -> String {
        let name = self.instance(instance);
        if self.multi_frame.get(instance).copied().unwrap_or(false) {
            format!("{name} frame {}", frame + 1)
        } else {
            name
        }
    }
}
