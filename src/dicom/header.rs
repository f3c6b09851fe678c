//! A file -> the header of its instance. No pixel is read: the walk stops where they begin, and notes the place.

use super::error::DicomError;
use super::frames::frames;
use super::identity::identity;
use super::limits::Limits;
use super::prefix::Prefix;
use super::syntax;
use super::values::{Charset, codes, trimmed};
use super::view::View;
use super::walk::{ElementHeader, Encoding, Fault, Walker};
use super::{Header, Instance, PatientIdentity, PixelData, PixelFormat, Source};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use std::fs::File;
use std::path::Path;

/// Where the data set of an instance begins and how it is written.
struct Start {
    transfer_syntax_uid: String,
    media_storage_sop_class_uid: String,
    at: usize,
    /// There is a meta group, so it is meant to be DICOM whatever follows. The four letters of the preamble alone prove nothing.
    marked: bool,
}

impl Source {
    /// The whole of a file; its length is asked from the system.
    pub fn of_file(path: &Path) -> Result<Self, DicomError> {
        let io = |error| DicomError::Io {
            path: path.to_owned(),
            error,
        };
        let length = std::fs::metadata(path).map_err(io)?.len();
        Ok(Self {
            path: path.into(),
            offset: 0,
            length,
        })
    }
}

/// Reads the header of an instance: everything before its pixel data, which is located and not read.
///
/// Files without preamble and meta group are read as well if they are DICOM by their content. Errors name the file; none is a panic, and no declared
/// length is believed before it is compared with `source.length` and `limits`.
pub fn read_header(source: &Source, limits: &Limits) -> Result<Instance, DicomError> {
    let path = || source.path.to_path_buf();
    let header = read(source, limits).map_err(|fault| match fault {
        Fault::NotDicom(why) => DicomError::NotDicom { path: path(), why },
        Fault::Damaged(why) => DicomError::Damaged { path: path(), why },
        Fault::NeedMore(_) => DicomError::Damaged {
            path: path(),
            why: "it ends inside its header".into(),
        },
        Fault::OverLimit(what) => DicomError::OverLimit { path: path(), what },
        Fault::Io(error) => DicomError::Io { path: path(), error },
    })?;
    Ok(Instance {
        source: source.clone(),
        header,
    })
}

fn read(source: &Source, limits: &Limits) -> Result<Header, Fault> {
    if source.length == 0 {
        return Err(Fault::NotDicom("empty file".into()));
    }
    let file = File::open(&source.path).map_err(Fault::Io)?;
    let mut prefix = Prefix::of_file(&file, source.offset, source.length, limits);
    let start = with_enough(&mut prefix, |prefix| start(prefix, limits))?;
    let deflated = start.transfer_syntax_uid == syntax::DEFLATED;
    let at = if deflated { 0 } else { start.at };
    if deflated {
        prefix = Prefix::of_deflated(&file, source.offset, source.length, start.at as u64, limits);
    }
    with_enough(&mut prefix, |prefix| {
        let walker = Walker::new(&prefix.data, prefix.total, limits);
        let encoding = syntax::encoding_of(&start.transfer_syntax_uid, prefix.data.get(at..).unwrap_or_default());
        let scan = walker.scan(at, encoding)?;
        let place = scan.pixel_data;
        let view = View::new(&walker, scan.elements, encoding);
        // Every object has a SOP Class; in old ones that lack it the modality says what they are.
        let unnamed = view.text(tags::SOP_CLASS_UID).is_empty() && view.text(tags::MODALITY).is_empty();
        if unnamed && start.media_storage_sop_class_uid.is_empty() {
            let why = "neither SOP Class nor Modality".to_owned();
            return Err(if start.marked {
                Fault::Damaged(why)
            } else {
                Fault::NotDicom(why)
            });
        }
        header(&view, &start, place.as_ref(), deflated, limits)
    })
    .map_err(|fault| match fault {
        // Without a meta group, what cannot be walked is not shown to be DICOM at all, unless it names its class.
        Fault::Damaged(_) | Fault::OverLimit(_) | Fault::NeedMore(_)
            if !start.marked && !names_a_class(&prefix, at, &start, limits) =>
        {
            Fault::NotDicom("no meta group, and no elements".into())
        }
        other => other,
    })
}

fn names_a_class(prefix: &Prefix, at: usize, start: &Start, limits: &Limits) -> bool {
    let encoding = syntax::encoding_of(&start.transfer_syntax_uid, prefix.data.get(at..).unwrap_or_default());
    Walker::new(&prefix.data, prefix.total, limits).names_a_class(at, encoding)
}

/// Runs a step again with more bytes for as long as it asks for more.
fn with_enough<T>(prefix: &mut Prefix, mut step: impl FnMut(&Prefix) -> Result<T, Fault>) -> Result<T, Fault> {
    prefix.grow(1)?;
    loop {
        match step(prefix) {
            Err(Fault::NeedMore(wanted)) if prefix.total > prefix.data.len() as u64 => prefix.grow(wanted)?,
            other => return other,
        }
    }
}

/// Reads preamble and meta group (PS3.10 section 7.1); a file that begins with its data set is recognised by its first element.
fn start(prefix: &Prefix, limits: &Limits) -> Result<Start, Fault> {
    let data = prefix.data.as_slice();
    let meta_at = if data.get(128..132) == Some(b"DICM") {
        132
    } else if data.starts_with(b"DICM") {
        4
    } else if data.starts_with(&[0x02, 0x00])
        && data.get(3) == Some(&0)
        && syntax::guess(data) == syntax::EXPLICIT_LITTLE
    {
        // The group is always in explicit VR; without one these are the first bytes of many a file.
        0
    } else {
        return headless(data);
    };
    let walker = Walker::new(data, prefix.total, limits);
    let mut found = Start {
        transfer_syntax_uid: String::new(),
        media_storage_sop_class_uid: String::new(),
        at: meta_at,
        marked: false,
    };
    // The group length is not needed, and often wrong: the group ends where another begins.
    while (found.at as u64).saturating_add(8) <= prefix.total {
        let header = walker.header(found.at, Encoding::ExplicitLittle)?;
        if header.tag.0 != 0x0002 {
            break;
        }
        found.marked = true;
        let Some(length) = header.length else {
            return Err(Fault::Damaged("undefined length in the meta group".into()));
        };
        let end = header.value_at as u64 + u64::from(length);
        if end > prefix.total {
            return Err(Fault::Damaged("it ends inside its meta group".into()));
        }
        let end = usize::try_from(end).map_err(|_| Fault::OverLimit("meta group".into()))?;
        let value = data.get(header.value_at..end).ok_or(Fault::NeedMore(end))?;
        match header.tag {
            tags::TRANSFER_SYNTAX_UID => found.transfer_syntax_uid = super::values::plain(value),
            tags::MEDIA_STORAGE_SOP_CLASS_UID => found.media_storage_sop_class_uid = super::values::plain(value),
            _ => {}
        }
        found.at = end;
    }
    if found.transfer_syntax_uid.is_empty() {
        let rest = data.get(found.at..).unwrap_or_default();
        if rest.len() < 6 && (data.len() as u64) < prefix.total {
            return Err(Fault::NeedMore(found.at + 6));
        }
        found.transfer_syntax_uid = syntax::guess(rest).to_owned();
    }
    Ok(found)
}

/// A data set without anything in front begins with an element of group 0008.
fn headless(data: &[u8]) -> Result<Start, Fault> {
    if !data.starts_with(&[0x08, 0x00]) {
        let why = if data.starts_with(b"PK") {
            "a zip archive"
        } else {
            "neither preamble nor a first element"
        };
        return Err(Fault::NotDicom(why.into()));
    }
    Ok(Start {
        transfer_syntax_uid: syntax::guess(data).to_owned(),
        media_storage_sop_class_uid: String::new(),
        at: 0,
        marked: false,
    })
}

fn header(
    view: &View,
    start: &Start,
    place: Option<&ElementHeader>,
    deflated: bool,
    limits: &Limits,
) -> Result<Header, Fault> {
    let charset_name = view.text(tags::SPECIFIC_CHARACTER_SET);
    let charset = Charset::new(&charset_name);
    let decoded = |tag: Tag| view.bytes(tag).map(|bytes| charset.text(bytes)).unwrap_or_default();
    let pixels = pixel_format(view);
    let pixel_count = u64::from(pixels.rows) * u64::from(pixels.columns);
    if pixel_count > limits.pixels_per_frame {
        return Err(Fault::OverLimit(format!(
            "{} rows x {} columns",
            pixels.rows, pixels.columns
        )));
    }
    let is_image = place.is_some() || pixel_count > 0;
    let count = view
        .integer(tags::NUMBER_OF_FRAMES)
        .filter(|count| *count > 0)
        .unwrap_or(1);
    let count = usize::try_from(count).map_err(|_| Fault::OverLimit(format!("{count} frames")))?;
    let frames = if is_image {
        frames(view, count, limits)?
    } else {
        Vec::new()
    };
    let (date_of_acquisition, time_of_acquisition) = acquisition(view);
    let contrast = view.item(tags::CONTRAST_BOLUS_AGENT_SEQUENCE)?;
    let groups = view.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)?;
    let reconstruction = nested(groups.as_ref(), tags::CT_RECONSTRUCTION_SEQUENCE)?;
    let geometry = nested(groups.as_ref(), tags::CT_GEOMETRY_SEQUENCE)?;
    let sop_class_uid = Some(view.text(tags::SOP_CLASS_UID)).filter(|uid| !uid.is_empty());
    Ok(Header {
        transfer_syntax_uid: start.transfer_syntax_uid.clone(),
        sop_class_uid: sop_class_uid.unwrap_or_else(|| start.media_storage_sop_class_uid.clone()),
        sop_instance_uid: view.text(tags::SOP_INSTANCE_UID),
        study_instance_uid: view.text(tags::STUDY_INSTANCE_UID),
        series_instance_uid: view.text(tags::SERIES_INSTANCE_UID),
        frame_of_reference_uid: view.text(tags::FRAME_OF_REFERENCE_UID),
        modality: view.text(tags::MODALITY),
        image_type: codes(&view.text(tags::IMAGE_TYPE)),
        patient: PatientIdentity {
            id: decoded(tags::PATIENT_ID),
            issuer: decoded(tags::ISSUER_OF_PATIENT_ID),
            name: decoded(tags::PATIENT_NAME),
            birth_date: view.text(tags::PATIENT_BIRTH_DATE),
        },
        instance_number: view.integer(tags::INSTANCE_NUMBER),
        acquisition_number: view.integer(tags::ACQUISITION_NUMBER),
        series_number: view.integer(tags::SERIES_NUMBER),
        study_date: view.text(tags::STUDY_DATE),
        study_time: view.text(tags::STUDY_TIME),
        series_date: view.text(tags::SERIES_DATE),
        series_time: view.text(tags::SERIES_TIME),
        content_date: view.text(tags::CONTENT_DATE),
        content_time: view.text(tags::CONTENT_TIME),
        acquisition_date: date_of_acquisition,
        acquisition_time: time_of_acquisition,
        study_description: decoded(tags::STUDY_DESCRIPTION),
        series_description: decoded(tags::SERIES_DESCRIPTION),
        body_part_examined: view.text(tags::BODY_PART_EXAMINED),
        patient_position: view.text(tags::PATIENT_POSITION),
        manufacturer: decoded(tags::MANUFACTURER),
        manufacturer_model_name: decoded(tags::MANUFACTURER_MODEL_NAME),
        device_serial_number: decoded(tags::DEVICE_SERIAL_NUMBER),
        software_versions: decoded(tags::SOFTWARE_VERSIONS),
        station_name: decoded(tags::STATION_NAME),
        institution_name: decoded(tags::INSTITUTION_NAME),
        convolution_kernel: text_or(
            view,
            reconstruction.as_ref(),
            tags::CONVOLUTION_KERNEL,
            tags::CONVOLUTION_KERNEL,
            &charset,
        ),
        contrast_bolus_agent: text_or(
            view,
            contrast.as_ref(),
            tags::CONTRAST_BOLUS_AGENT,
            tags::CODE_MEANING,
            &charset,
        ),
        slice_thickness_mm: view
            .decimal(tags::SLICE_THICKNESS)
            .or_else(|| frames.first()?.slice_thickness_mm),
        gantry_tilt_degrees: view
            .decimal(tags::GANTRY_DETECTOR_TILT)
            .or_else(|| geometry.as_ref()?.decimal(tags::GANTRY_DETECTOR_TILT)),
        lossy: view.text(tags::LOSSY_IMAGE_COMPRESSION) == "01",
        lossy_ratio: view.text(tags::LOSSY_IMAGE_COMPRESSION_RATIO),
        lossy_method: view.text(tags::LOSSY_IMAGE_COMPRESSION_METHOD),
        position_reference_indicator: view.text(tags::POSITION_REFERENCE_INDICATOR),
        identity: identity(view)?,
        specific_character_set: charset_name,
        pixel_data: place.map_or(PixelData::Absent, |place| pixel_data(view, place, start, deflated)),
        pixels,
        frames,
    })
}

fn nested<'a>(groups: Option<&View<'a>>, sequence: Tag) -> Result<Option<View<'a>>, Fault> {
    groups.map_or(Ok(None), |groups| groups.item(sequence))
}

/// A text of the data set, or else one of an item in it.
fn text_or(view: &View, item: Option<&View>, tag: Tag, tag_in_item: Tag, charset: &Charset) -> String {
    let bytes = view
        .bytes(tag)
        .filter(|bytes| !bytes.is_empty())
        .or_else(|| item?.bytes(tag_in_item));
    bytes.map(|bytes| charset.text(bytes)).unwrap_or_default()
}

/// Date and time of acquisition; AcquisitionDateTime stands in where they are absent.
fn acquisition(view: &View) -> (String, String) {
    let both = view.text(tags::ACQUISITION_DATE_TIME);
    let date = Some(view.text(tags::ACQUISITION_DATE)).filter(|date| !date.is_empty());
    let time = Some(view.text(tags::ACQUISITION_TIME)).filter(|time| !time.is_empty());
    let part = |range: Option<&str>| trimmed(range.unwrap_or_default()).to_owned();
    let time_of_both = both
        .get(8..)
        .map(|time| time.split(['+', '-', '&']).next().unwrap_or_default());
    (
        date.unwrap_or_else(|| part(both.get(..8))),
        time.unwrap_or_else(|| part(time_of_both)),
    )
}

fn pixel_format(view: &View) -> PixelFormat {
    let short = |tag| view.number(tag).and_then(|number| u16::try_from(number).ok());
    let bits_allocated = short(tags::BITS_ALLOCATED).unwrap_or(0);
    let bits_stored = short(tags::BITS_STORED).unwrap_or(bits_allocated);
    let mut format = PixelFormat {
        rows: view.number(tags::ROWS).unwrap_or(0),
        columns: view.number(tags::COLUMNS).unwrap_or(0),
        samples_per_pixel: short(tags::SAMPLES_PER_PIXEL).unwrap_or(1),
        bits_allocated,
        bits_stored,
        high_bit: short(tags::HIGH_BIT).unwrap_or(bits_stored.saturating_sub(1)),
        signed: view.number(tags::PIXEL_REPRESENTATION) == Some(1),
        photometric_interpretation: view.text(tags::PHOTOMETRIC_INTERPRETATION),
        padding: None,
    };
    let stored = |tag| view.number(tag).and_then(|number| in_range(number, &format));
    let value = stored(tags::PIXEL_PADDING_VALUE);
    let limit = stored(tags::PIXEL_PADDING_RANGE_LIMIT).or(value);
    format.padding = value
        .zip(limit)
        .map(|(value, limit)| (value.min(limit), value.max(limit)));
    format
}

/// A padding value as a stored value. Some writers give it in the other sign than the pixels have, or sign-extended by too few or too many bits; what fits in
/// no reading can be no pixel.
fn in_range(number: u32, format: &PixelFormat) -> Option<i32> {
    let bits = u32::from(format.bits_stored.clamp(1, 16));
    let raw = number as u16;
    let (lowest, highest) = if format.signed {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    };
    let fits = |value: &i32| (lowest..=highest).contains(value);
    let extended = |value: u16| {
        let shift = 32 - bits;
        (i32::from(value) << shift) >> shift
    };
    if !format.signed {
        return Some(i32::from(raw)).filter(fits);
    }
    let narrow = u32::from(raw) < 1 << bits;
    Some(i32::from(raw as i16))
        .filter(fits)
        .or_else(|| narrow.then(|| extended(raw)).filter(fits))
}

fn pixel_data(view: &View, place: &ElementHeader, start: &Start, deflated: bool) -> PixelData {
    let offset = place.value_at as u64;
    match place.length {
        Some(length) if deflated => PixelData::Deflated {
            start: start.at as u64,
            offset,
            length: u64::from(length),
        },
        Some(length) => {
            let big_endian = view.encoding() == Encoding::ExplicitBig;
            PixelData::Native {
                offset,
                length: u64::from(length),
                big_endian,
            }
        }
        None => {
            let table = view.element(tags::EXTENDED_OFFSET_TABLE).map(|table| &table.content);
            let extended_offsets = table.map(|range| (range.start as u64, (range.end - range.start) as u64));
            PixelData::Encoded {
                offset,
                extended_offsets,
            }
        }
    }
}
