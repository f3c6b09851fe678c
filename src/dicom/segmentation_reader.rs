//! The bytes of a DICOM Segmentation in, its frames with their places out.
//!
//! Stands alone: the elements are walked here, every declared length is compared with the bytes that are there before it is used, and voxels are unpacked frame by
//! frame. Binary, fractional and label map segmentations (PS3.3 A.51, A.52) are read in explicit and implicit VR little endian and deflated.

use std::io::Read;

/// Sequences inside sequences.
const NESTING: usize = 16;
/// Elements and items of one object.
const ELEMENTS: usize = 4_000_000;
/// Bytes after inflating.
const INFLATED: u64 = 2 << 30;

/// Why a segmentation could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SegmentationError {
    /// Not a DICOM file.
    #[error("this is not a DICOM file")]
    NotDicom,
    /// Another kind of object.
    #[error("this is not a DICOM Segmentation but an object of the SOP class {0}")]
    NotSegmentation(String),
    /// A transfer syntax that is not read here.
    #[error("a segmentation in the transfer syntax {0} is not read here")]
    TransferSyntax(String),
    /// The bytes contradict themselves.
    #[error("the segmentation is damaged: {0}")]
    Damaged(&'static str),
    /// A bound was passed.
    #[error("the segmentation is too large: {0}")]
    TooLarge(&'static str),
}

/// What a segment stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentLabel {
    /// SegmentNumber.
    pub number: u16,
    /// SegmentLabel.
    pub label: String,
    /// Code value of the segmented property type.
    pub property_type: String,
    /// Code value of its first modifier, often a laterality.
    pub modifier: String,
}

/// One frame: where it lies, and where its voxels are.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentationFrame {
    /// ReferencedSegmentNumber; `None` in a label map, whose voxels are segment numbers.
    pub segment: Option<u16>,
    /// ImagePositionPatient.
    pub position: [f64; 3],
    /// ImageOrientationPatient.
    pub orientation: [f64; 6],
    /// PixelSpacing: between rows, between columns.
    pub pixel_spacing_mm: [f64; 2],
}

/// How voxels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Bits,
    Bytes { half: u8 },
    Labels8,
    Labels16,
}

/// A segmentation as plain values.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentationObject {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// The segments.
    pub segments: Vec<SegmentLabel>,
    /// The frames, in stored order.
    pub frames: Vec<SegmentationFrame>,
    packing: Packing,
    pixels: Vec<u8>,
}

impl SegmentationObject {
    /// Calls `mark(voxel index, segment number)` for every voxel of a frame that belongs to a segment; the index counts row by row.
    pub fn for_each_voxel(&self, frame: usize, mut mark: impl FnMut(usize, u16)) {
        let area = self.rows * self.columns;
        let segment = self.frames.get(frame).and_then(|frame| frame.segment).unwrap_or(0);
        let start = frame * area;
        match self.packing {
            Packing::Bits => {
                for k in 0..area {
                    let bit = start + k;
                    if self.pixels.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1) {
                        mark(k, segment);
                    }
                }
            }
            Packing::Bytes { half } => {
                for (k, value) in self.pixels.iter().skip(start).take(area).enumerate() {
                    if *value >= half {
                        mark(k, segment);
                    }
                }
            }
            Packing::Labels8 => {
                for (k, value) in self
                    .pixels
                    .iter()
                    .skip(start)
                    .take(area)
                    .enumerate()
                    .filter(|(_, value)| **value > 0)
                {
                    mark(k, u16::from(*value));
                }
            }
            Packing::Labels16 => {
                for (k, pair) in self.pixels.chunks_exact(2).skip(start).take(area).enumerate() {
                    let value = u16::from_le_bytes([pair[0], pair[1]]);
                    if value > 0 {
                        mark(k, value);
                    }
                }
            }
        }
    }
}

/// Whether bytes look like a DICOM file with its preamble.
#[must_use]
pub fn is_dicom(bytes: &[u8]) -> bool {
    bytes.get(128..132) == Some(b"DICM")
}

/// Reads a segmentation.
///
/// # Errors
/// [`SegmentationError`]: not DICOM, another object, a transfer syntax that is not read here, damaged, too large.
pub fn read_segmentation(bytes: &[u8]) -> Result<SegmentationObject, SegmentationError> {
    if !is_dicom(bytes) {
        return Err(SegmentationError::NotDicom);
    }
    let (meta, rest) = meta_group(&bytes[132..])?;
    let syntax = text(&meta, (0x0002, 0x0010));
    let inflated;
    let (body, explicit): (&[u8], bool) = match syntax.as_str() {
        "1.2.840.10008.1.2" => (rest, false),
        "1.2.840.10008.1.2.1" => (rest, true),
        "1.2.840.10008.1.2.1.99" => {
            inflated = inflate(rest)?;
            (&inflated, true)
        }
        _ => return Err(SegmentationError::TransferSyntax(syntax)),
    };
    let mut walker = Walker {
        explicit,
        left: ELEMENTS,
    };
    let mut data: &[u8] = body;
    let object = walker.data_set(&mut data, false, 0)?;
    let class = text(&object, (0x0008, 0x0016));
    let label_map = class == "1.2.840.10008.5.1.4.1.1.66.7";
    if class != "1.2.840.10008.5.1.4.1.1.66.4" && !label_map {
        return Err(SegmentationError::NotSegmentation(class));
    }
    let rows = usize::from(short(&object, (0x0028, 0x0010)).ok_or(SegmentationError::Damaged("Rows is missing"))?);
    let columns =
        usize::from(short(&object, (0x0028, 0x0011)).ok_or(SegmentationError::Damaged("Columns is missing"))?);
    let frames = frames(&object, label_map)?;
    let packing = packing(&object, label_map)?;
    let pixels = find(&object, (0x7fe0, 0x0010)).map_or(&[][..], |element| element.value);
    let area = rows * columns;
    let voxels = area
        .checked_mul(frames.len())
        .ok_or(SegmentationError::TooLarge("rows, columns and frames"))?;
    let needed = match packing {
        Packing::Bits => voxels.div_ceil(8),
        Packing::Bytes { .. } | Packing::Labels8 => voxels,
        Packing::Labels16 => voxels
            .checked_mul(2)
            .ok_or(SegmentationError::TooLarge("rows, columns and frames"))?,
    };
    if pixels.len() < needed {
        return Err(SegmentationError::Damaged(
            "there are fewer pixels than rows, columns and frames ask for",
        ));
    }
    Ok(SegmentationObject {
        rows,
        columns,
        segments: segments(&object),
        frames,
        packing,
        pixels: pixels[..needed].to_vec(),
    })
}

fn packing(object: &DataSet, label_map: bool) -> Result<Packing, SegmentationError> {
    let bits = short(object, (0x0028, 0x0100)).unwrap_or(1);
    let kind = text(object, (0x0062, 0x0001));
    match (label_map || kind == "LABELMAP", kind.as_str(), bits) {
        (true, _, 8) => Ok(Packing::Labels8),
        (true, _, 16) => Ok(Packing::Labels16),
        (false, "FRACTIONAL", 8) => {
            let most = short(object, (0x0062, 0x000e)).unwrap_or(255).clamp(1, 255);
            Ok(Packing::Bytes {
                half: most.div_ceil(2) as u8,
            })
        }
        (false, _, 1) => Ok(Packing::Bits),
        _ => Err(SegmentationError::Damaged(
            "BitsAllocated does not fit the SegmentationType",
        )),
    }
}

fn segments(object: &DataSet) -> Vec<SegmentLabel> {
    items(object, (0x0062, 0x0002))
        .iter()
        .map(|item| {
            let kind = items(item, (0x0062, 0x000f)).first();
            let modifier = kind.and_then(|kind| items(kind, (0x0062, 0x0011)).first());
            SegmentLabel {
                number: short(item, (0x0062, 0x0004)).unwrap_or(0),
                label: text(item, (0x0062, 0x0005)),
                property_type: kind.map_or_else(String::new, |kind| text(kind, (0x0008, 0x0100))),
                modifier: modifier.map_or_else(String::new, |modifier| text(modifier, (0x0008, 0x0100))),
            }
        })
        .collect()
}

fn frames(object: &DataSet, label_map: bool) -> Result<Vec<SegmentationFrame>, SegmentationError> {
    let shared = items(object, (0x5200, 0x9229)).first();
    items(object, (0x5200, 0x9230))
        .iter()
        .map(|own| {
            // A functional group stands with the frame or is shared.
            let group = |tag| {
                items(own, tag)
                    .first()
                    .or_else(|| shared.and_then(|shared| items(shared, tag).first()))
            };
            let numbers = |group_tag, tag| group(group_tag).and_then(|group| decimals(group, tag));
            let position = numbers((0x0020, 0x9113), (0x0020, 0x0032));
            let orientation = numbers((0x0020, 0x9116), (0x0020, 0x0037));
            let spacing = numbers((0x0028, 0x9110), (0x0028, 0x0030));
            let segment = group((0x0062, 0x000a)).and_then(|group| short(group, (0x0062, 0x000b)));
            Ok(SegmentationFrame {
                segment: if label_map {
                    None
                } else {
                    Some(segment.ok_or(SegmentationError::Damaged("a frame names no segment"))?)
                },
                position: exactly(position).ok_or(SegmentationError::Damaged("a frame has no ImagePositionPatient"))?,
                orientation: exactly(orientation)
                    .ok_or(SegmentationError::Damaged("a frame has no ImageOrientationPatient"))?,
                pixel_spacing_mm: exactly(spacing)
                    .filter(|s: &[f64; 2]| s.iter().all(|s| *s > 0.0))
                    .ok_or(SegmentationError::Damaged("a frame has no PixelSpacing"))?,
            })
        })
        .collect()
}

fn exactly<const N: usize>(values: Option<Vec<f64>>) -> Option<[f64; N]> {
    values.and_then(|values| <[f64; N]>::try_from(values).ok())
}

type Tag = (u16, u16);
type DataSet<'a> = Vec<Element<'a>>;

struct Element<'a> {
    tag: Tag,
    value: &'a [u8],
    items: Vec<DataSet<'a>>,
}

fn find<'a, 'b>(set: &'b DataSet<'a>, tag: Tag) -> Option<&'b Element<'a>> {
    set.iter().find(|element| element.tag == tag)
}

fn items<'a, 'b>(set: &'b DataSet<'a>, tag: Tag) -> &'b [DataSet<'a>] {
    find(set, tag).map_or(&[], |element| &element.items)
}

fn text(set: &DataSet, tag: Tag) -> String {
    find(set, tag).map_or_else(String::new, |element| {
        let kept = &element.value[..element.value.len().min(1024)];
        String::from_utf8_lossy(kept).trim_matches(['\0', ' ']).to_owned()
    })
}

fn short(set: &DataSet, tag: Tag) -> Option<u16> {
    let value = find(set, tag)?.value;
    Some(u16::from_le_bytes([*value.first()?, *value.get(1)?]))
}

fn decimals(set: &DataSet, tag: Tag) -> Option<Vec<f64>> {
    let numbers: Option<Vec<f64>> = text(set, tag)
        .split('\\')
        .map(|part| part.trim().parse().ok())
        .collect();
    numbers.filter(|numbers| numbers.iter().all(|number| number.is_finite()))
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, SegmentationError> {
    let mut out = Vec::new();
    let mut decoder = flate2::read::DeflateDecoder::new(bytes).take(INFLATED + 1);
    decoder
        .read_to_end(&mut out)
        .map_err(|_| SegmentationError::Damaged("the deflated data set cannot be inflated"))?;
    if out.len() as u64 > INFLATED {
        return Err(SegmentationError::TooLarge("the deflated data set"));
    }
    Ok(out)
}

/// The file meta group, always explicit VR little endian, and what follows it.
fn meta_group(bytes: &[u8]) -> Result<(DataSet<'_>, &[u8]), SegmentationError> {
    let mut walker = Walker {
        explicit: true,
        left: 1000,
    };
    let mut rest = bytes;
    let mut meta = Vec::new();
    while rest.get(..2) == Some(&[2, 0]) {
        meta.push(
            walker
                .element(&mut rest, 0)?
                .ok_or(SegmentationError::Damaged("the file meta group ends early"))?,
        );
    }
    Ok((meta, rest))
}

struct Walker {
    explicit: bool,
    left: usize,
}

const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = (0xfffe, 0xe000);
const ITEM_END: Tag = (0xfffe, 0xe00d);
const SEQUENCE_END: Tag = (0xfffe, 0xe0dd);

fn take<'a>(data: &mut &'a [u8], length: usize) -> Result<&'a [u8], SegmentationError> {
    if length > data.len() {
        return Err(SegmentationError::Damaged("an element is longer than the file"));
    }
    let (value, rest) = data.split_at(length);
    *data = rest;
    Ok(value)
}

fn u16_of(data: &mut &[u8]) -> Result<u16, SegmentationError> {
    let bytes = take(data, 2)?;
    Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn u32_of(data: &mut &[u8]) -> Result<u32, SegmentationError> {
    let bytes = take(data, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl Walker {
    fn count(&mut self) -> Result<(), SegmentationError> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(SegmentationError::TooLarge("more elements than any segmentation has"))?;
        Ok(())
    }

    /// Elements until the data end, or, in an item of undefined length, until its delimiter.
    fn data_set<'a>(
        &mut self,
        data: &mut &'a [u8],
        delimited: bool,
        depth: usize,
    ) -> Result<DataSet<'a>, SegmentationError> {
        let mut set = Vec::new();
        // Trailing padding shorter than an element header is left alone.
        while data.len() >= 8 {
            match self.element(data, depth)? {
                Some(element) => set.push(element),
                None if delimited => return Ok(set),
                None => return Err(SegmentationError::Damaged("a delimiter stands where none belongs")),
            }
        }
        if delimited {
            Err(SegmentationError::Damaged("an item does not end"))
        } else {
            Ok(set)
        }
    }

    /// The next element; `None` for the end of an item.
    fn element<'a>(&mut self, data: &mut &'a [u8], depth: usize) -> Result<Option<Element<'a>>, SegmentationError> {
        self.count()?;
        let tag = (u16_of(data)?, u16_of(data)?);
        if tag == ITEM_END {
            u32_of(data)?;
            return Ok(None);
        }
        let mut sequence = false;
        let length = if self.explicit {
            let vr = take(data, 2)?;
            sequence = vr == b"SQ";
            if matches!(
                vr,
                b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV"
            ) {
                take(data, 2)?;
                u32_of(data)?
            } else {
                u32::from(u16_of(data)?)
            }
        } else {
            u32_of(data)?
        };
        sequence |= length == UNDEFINED || (!self.explicit && is_sequence(tag));
        if tag == (0x7fe0, 0x0010) && length == UNDEFINED {
            return Err(SegmentationError::TransferSyntax("encapsulated".to_owned()));
        }
        if !sequence {
            return Ok(Some(Element {
                tag,
                value: take(data, length as usize)?,
                items: Vec::new(),
            }));
        }
        if depth >= NESTING {
            return Err(SegmentationError::TooLarge("sequences inside sequences"));
        }
        let items = if length == UNDEFINED {
            self.items(data, true, depth)?
        } else {
            let mut inside = take(data, length as usize)?;
            self.items(&mut inside, false, depth)?
        };
        Ok(Some(Element { tag, value: &[], items }))
    }

    fn items<'a>(
        &mut self,
        data: &mut &'a [u8],
        delimited: bool,
        depth: usize,
    ) -> Result<Vec<DataSet<'a>>, SegmentationError> {
        let mut items = Vec::new();
        while !data.is_empty() {
            self.count()?;
            let tag = (u16_of(data)?, u16_of(data)?);
            let length = u32_of(data)?;
            match tag {
                SEQUENCE_END if delimited => return Ok(items),
                ITEM if length == UNDEFINED => items.push(self.data_set(data, true, depth + 1)?),
                ITEM => {
                    let mut inside = take(data, length as usize)?;
                    items.push(self.data_set(&mut inside, false, depth + 1)?);
                }
                _ => {
                    return Err(SegmentationError::Damaged(
                        "something else than an item stands in a sequence",
                    ));
                }
            }
        }
        if delimited {
            Err(SegmentationError::Damaged("a sequence does not end"))
        } else {
            Ok(items)
        }
    }
}

/// In implicit VR the sequences of defined length that are read here must be known; others are passed over as they are.
fn is_sequence(tag: Tag) -> bool {
    matches!(
        tag,
        (0x0062, 0x0002 | 0x000a | 0x000f | 0x0011)
            | (0x5200, 0x9229 | 0x9230)
            | (0x0020, 0x9113 | 0x9116)
            | (0x0028, 0x9110)
    )
}
