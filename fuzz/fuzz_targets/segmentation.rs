//! Any bytes as a DICOM Segmentation, or as the data set of one in each of the three transfer syntaxes -> frames whose voxels lie in them, and a mask, or an error.
//!
//! The first byte says what the others are: a file (0), or a data set in explicit VR little endian (1), in implicit (2), deflated (3). Where HILUM_SEEDS names a
//! folder, good ones of each kind are written there: the first inputs.
#![no_main]

use hilum::dicom::segmentation_reader::read_segmentation;
use hilum::evaluate::{compare, read_mask};
use libfuzzer_sys::fuzz_target;

const SYNTAXES: [&[u8]; 3] = [
    b"1.2.840.10008.1.2.1\0",
    b"1.2.840.10008.1.2\0",
    b"1.2.840.10008.1.2.1.99",
];

/// Pixels of a frame from which a mask is made as well: what is left out between two frames is put back, up to 65,536 slices.
const MASK_PIXELS: usize = 1024;

type Tag = (u16, u16);

/// Elements one after the other, with VR or without.
struct Writer {
    explicit: bool,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(explicit: bool) -> Self {
        let bytes = Vec::new();
        Self { explicit, bytes }
    }

    fn put(mut self, tag: Tag, vr: &[u8; 2], value: &[u8]) -> Self {
        let mut value = value.to_vec();
        value.resize(value.len().next_multiple_of(2), b' ');
        self.bytes.extend_from_slice(&tag.0.to_le_bytes());
        self.bytes.extend_from_slice(&tag.1.to_le_bytes());
        let long = !self.explicit || matches!(vr, b"OB" | b"OW" | b"SQ");
        if self.explicit {
            self.bytes.extend_from_slice(vr);
            self.bytes.extend_from_slice(if long { &[0, 0] } else { &[] });
        }
        let length = (value.len() as u32).to_le_bytes();
        self.bytes.extend_from_slice(&length[..if long { 4 } else { 2 }]);
        self.bytes.extend_from_slice(&value);
        self
    }

    fn short(self, tag: Tag, value: u16) -> Self {
        self.put(tag, b"US", &value.to_le_bytes())
    }

    fn sequence(self, tag: Tag, items: &[Writer]) -> Self {
        let mut inside = Vec::new();
        for item in items {
            inside.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
            inside.extend_from_slice(&(item.bytes.len() as u32).to_le_bytes());
            inside.extend_from_slice(&item.bytes);
        }
        self.put(tag, b"SQ", &inside)
    }
}

/// How voxels are stored.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Binary,
    Fractional,
    Labels8,
    Labels16,
}

/// A good data set: two segments, four frames of 4 x 4 on three slices, the last of them two steps behind the one before, so that a slice is left out.
fn data_set(kind: Kind, explicit: bool) -> Vec<u8> {
    let new = || Writer::new(explicit);
    let code = |value: &[u8]| new().put((0x0008, 0x0100), b"SH", value);
    let segment = |number, label: &[u8], value: &[u8]| {
        new()
            .short((0x0062, 0x0004), number)
            .put((0x0062, 0x0005), b"LO", label)
            .sequence((0x0062, 0x000F), &[code(value)])
    };
    let labels = matches!(kind, Kind::Labels8 | Kind::Labels16);
    let frame = |(number, z): (u16, &[u8])| {
        let position = new().put((0x0020, 0x0032), b"DS", &[b"-10\\-20\\", z].concat());
        let own = new().sequence((0x0020, 0x9113), &[position]);
        if labels {
            own
        } else {
            own.sequence((0x0062, 0x000A), &[new().short((0x0062, 0x000B), number)])
        }
    };
    let places: [(u16, &[u8]); 4] = [(1, b"30"), (2, b"30.0"), (2, b"35"), (1, b"45")];
    let frames: Vec<Writer> = places.into_iter().map(frame).collect();
    let orientation = new().put((0x0020, 0x0037), b"DS", b"1\\0\\0\\0\\1\\0");
    let measures = new().put((0x0028, 0x0030), b"DS", b"0.7\\0.8");
    let shared = new()
        .sequence((0x0020, 0x9116), &[orientation])
        .sequence((0x0028, 0x9110), &[measures]);
    let (word, bits, bytes): (&[u8], u16, usize) = match kind {
        Kind::Binary => (b"BINARY", 1, 8),
        Kind::Fractional => (b"FRACTIONAL", 8, 64),
        Kind::Labels8 => (b"LABELMAP", 8, 64),
        Kind::Labels16 => (b"LABELMAP", 16, 128),
    };
    let pixels: Vec<u8> = (0..bytes)
        .map(|at| match kind {
            Kind::Binary => 0x3C,
            Kind::Fractional => (at * 11 % 256) as u8,
            Kind::Labels8 => (at % 3) as u8,
            Kind::Labels16 if at % 2 == 1 => 0,
            Kind::Labels16 => (at / 2 % 3) as u8,
        })
        .collect();
    let class: &[u8] = if labels {
        b"1.2.840.10008.5.1.4.1.1.66.7"
    } else {
        b"1.2.840.10008.5.1.4.1.1.66.4"
    };
    new()
        .put((0x0008, 0x0016), b"UI", class)
        .short((0x0028, 0x0010), 4)
        .short((0x0028, 0x0011), 4)
        .short((0x0028, 0x0100), bits)
        .put((0x0062, 0x0001), b"CS", word)
        .sequence(
            (0x0062, 0x0002),
            &[
                segment(1, b"Right lung", b"3341006"),
                segment(2, b"Left lung", b"44029006"),
            ],
        )
        .short((0x0062, 0x000E), 255)
        .sequence((0x5200, 0x9229), &[shared])
        .sequence((0x5200, 0x9230), &frames)
        .put((0x7FE0, 0x0010), if bits == 16 { b"OW" } else { b"OB" }, &pixels)
        .bytes
}

/// The file of which an input tells.
fn file(kind: u8, rest: &[u8]) -> Vec<u8> {
    let which = usize::from(kind % 4);
    if which == 0 {
        return rest.to_vec();
    }
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    file.extend_from_slice(
        &Writer::new(true)
            .put((0x0002, 0x0010), b"UI", SYNTAXES[which - 1])
            .bytes,
    );
    if which == 3 {
        // Stored blocks (RFC 1951 section 3.2.4): what is inflated is what the fuzzer wrote.
        for (index, block) in rest.chunks(0xFFFF).enumerate() {
            file.push(u8::from((index + 1) * 0xFFFF >= rest.len()));
            file.extend_from_slice(&(block.len() as u16).to_le_bytes());
            file.extend_from_slice(&(!(block.len() as u16)).to_le_bytes());
            file.extend_from_slice(block);
        }
    } else {
        file.extend_from_slice(rest);
    }
    file
}

/// Good ones are read with their frames, and the slice that is left out is put back: otherwise the target would go past nothing, and find nothing.
fn read_good_ones() {
    let seeds = std::env::var_os("HILUM_SEEDS").map(std::path::PathBuf::from);
    for kind in [Kind::Binary, Kind::Fractional, Kind::Labels8, Kind::Labels16] {
        for which in 1..4 {
            let data_set = data_set(kind, which != 2);
            let file = file(which, &data_set);
            let object = read_segmentation(&file).expect("a good segmentation");
            assert_eq!(
                (object.rows, object.columns, object.frames.len(), object.segments.len()),
                (4, 4, 4, 2)
            );
            let mut marked = 0;
            object.for_each_voxel(2, |_, _| marked += 1);
            assert!(marked > 0 && marked < 16, "{kind:?}: {marked}");
            let mask = read_mask(&file).expect("a good mask");
            assert_eq!((mask.labels.len(), mask.grid.origins.len()), (64, 4));
            assert!(mask.labels.contains(&2), "{kind:?}");
            if let Some(folder) = &seeds {
                let name = folder.join(format!("good-{kind:?}-{which}"));
                std::fs::write(name, [&[which], &data_set[..]].concat())
                    .expect("the folder of the first inputs can be written");
            }
        }
    }
}

fuzz_target!(init: read_good_ones(), |bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let file = file(*kind, rest);
    let Ok(object) = read_segmentation(&file) else {
        return;
    };
    let area = object.rows * object.columns;
    if kind % 4 != 0 {
        assert!(area * object.frames.len() <= 8 * rest.len(), "voxels that are not there");
    }
    for (frame, place) in object.frames.iter().enumerate() {
        let mut next = 0;
        object.for_each_voxel(frame, |voxel, segment| {
            assert!(next <= voxel && voxel < area);
            assert!(place.segment.map_or(segment > 0, |own| own == segment));
            next = voxel + 1;
        });
    }
    if area > MASK_PIXELS {
        return;
    }
    let Ok(image) = read_mask(&file) else {
        return;
    };
    let voxels = image.grid.rows * image.grid.columns * image.grid.origins.len();
    assert_eq!(image.labels.len(), voxels);
    assert!(image.grid.positions_mm().windows(2).all(|pair| pair[0] < pair[1]));
    assert!(image.labels.iter().all(|label| *label <= 2));
    // Of what could be a patient, a mask agrees with itself.
    let places = image.grid.positions_mm();
    let body = image.grid.origins.iter().flatten().all(|mm| mm.abs() < 1e5)
        && places.windows(2).all(|pair| pair[1] - pair[0] > 0.01)
        && image.grid.spacing_mm.iter().all(|mm| (0.01..100.0).contains(mm));
    if body && voxels <= 4096 {
        let scores = compare("itself", &image, &image).lungs;
        assert!(scores.dice == 1.0 && scores.hd95_mm.is_none_or(|mm| mm == 0.0), "{scores:?}");
    }
});
