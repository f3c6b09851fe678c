//! Two lungs in a series built in code, and what is made of them.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;

use super::*;
use crate::dicom::{DecodeOptions, FrameHeader, FrameReader, Header, Instance, Rescale, Source};
use crate::model::CancelFlag;
use crate::segment::{SEGMENTATION, Settings};
use crate::series::{Outcome, Slice, Stack};
use crate::volume::{Grid, Voxels};

/// A series, and the network's mask of it before right and left are told apart.
struct Case {
    series: Series,
    usable: Usable,
    volume: Volume,
    mask: Mask,
}

/// Slices of `[rows, columns]` at these z, upright; lung fills the columns of both ranges from the first row to the last.
fn case(z: &[f64], [rows, columns]: [usize; 2], spacing_mm: [f64; 2], lungs: [Range<usize>; 2]) -> Case {
    let shape = [z.len(), rows, columns];
    let slices: Vec<Slice> = z
        .iter()
        .enumerate()
        .map(|(instance, z)| Slice {
            instance,
            frame: 0,
            origin: [-160.0, -120.0, *z],
            position_mm: *z,
            rescale: Rescale {
                slope: 1.0,
                intercept: -1024.0,
            },
        })
        .collect();
    let stack = Stack {
        slices,
        rows,
        columns,
        pixel_spacing_mm: spacing_mm,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        normal: [0.0, 0.0, 1.0],
    };
    let instance = |number: usize| Instance {
        source: Source {
            path: Path::new("/data").join(number.to_string()).into(),
            offset: 0,
            length: 0,
        },
        header: Header {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            sop_instance_uid: format!("1.2.3.4.{}", number + 1),
            study_instance_uid: "1.2.3".into(),
            series_instance_uid: "1.2.3.4".into(),
            modality: "CT".into(),
            frames: vec![FrameHeader::default()],
            ..Header::default()
        },
    };
    let labels: Vec<u8> = (0..shape.iter().product())
        .map(|index| u8::from(lungs.iter().any(|lung| lung.contains(&(index % columns)))))
        .collect();
    let hu = |label: &u8| if *label > 0 { -850 } else { 40 };
    Case {
        series: Series {
            study_instance_uid: "1.2.3".into(),
            series_instance_uid: "1.2.3.4".into(),
            instances: (0..z.len()).map(instance).collect(),
            unreadable: Vec::new(),
        },
        volume: Volume {
            grid: Grid::from_stack(&stack),
            voxels: Voxels::I16(labels.iter().map(hu).collect()),
            padding_hu: vec![None; z.len()],
        },
        mask: Mask { shape, labels },
        usable: Usable {
            stack,
            verdict: Verdict {
                outcome: Outcome::Accepted,
                findings: Vec::new(),
            },
            identity_valid: true,
            memory_bytes: 0,
        },
    }
}

/// Lungs of 3 litres, 80 mm apart; steps of 8 mm.
fn chest() -> Case {
    let z: Vec<f64> = (0..20).map(|k| 8.0 * f64::from(k)).collect();
    case(&z, [32, 40], [8.0; 2], [5..15, 25..35])
}

fn formats(formats: &[Format]) -> Settings {
    let mut settings = Settings::default();
    settings.output.formats = formats.to_vec();
    settings.output.segments = Segments::LeftRight;
    settings
}

fn manifest() -> Manifest {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/networks/half.toml");
    Manifest::load(Path::new(path)).unwrap()
}

fn model(manifest: &Manifest) -> ModelFacts {
    ModelFacts {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        weights_sha256: manifest.weights_sha256.clone(),
        parameters: manifest.parameters(),
        parameters_sha256: manifest.parameters().digest(),
    }
}

/// The judged mask, and every result that the settings ask for but the report.
fn made(case: &Case, settings: &Settings) -> (Lungs, Results) {
    made_by(&manifest(), case, settings)
}

fn made_by(manifest: &Manifest, case: &Case, settings: &Settings) -> (Lungs, Results) {
    let tools = Tools {
        reader: &FrameReader::new(DecodeOptions::default()),
        manifest,
        settings,
        observer: &(),
        cancel: &CancelFlag::default(),
    };
    let model = model(manifest);
    let lungs = lungs(case.mask.clone(), &case.volume, &mut Timings::default(), &tools).unwrap();
    let results = make(&case.series, &case.usable, &case.volume, &lungs, &model, &tools).unwrap();
    (lungs, results)
}

fn names(results: &Results) -> Vec<&str> {
    results.artifacts.iter().map(|artifact| artifact.name).collect()
}

fn bytes<'a>(results: &'a Results, name: &str) -> &'a [u8] {
    &results.artifacts.iter().find(|a| a.name == name).unwrap().bytes
}

fn seg(results: &Results) -> DefaultDicomObject {
    dicom_object::from_reader(bytes(results, SEGMENTATION)).unwrap()
}

fn segment_labels(object: &DefaultDicomObject) -> Vec<String> {
    let segments = object.element(tags::SEGMENT_SEQUENCE).unwrap().items().unwrap();
    segments
        .iter()
        .map(|segment| {
            segment
                .element(tags::SEGMENT_LABEL)
                .unwrap()
                .to_str()
                .unwrap()
                .trim()
                .to_owned()
        })
        .collect()
}

fn content_description_of(object: &DefaultDicomObject) -> String {
    let element = object.element(tags::CONTENT_DESCRIPTION).unwrap();
    element.to_str().unwrap().trim().to_owned()
}

/// Slices of a NIfTI image, and its voxels where they are bytes.
fn nifti_voxels(results: &Results, name: &str) -> (usize, Vec<u8>) {
    let mut image = Vec::new();
    flate2::read::GzDecoder::new(bytes(results, name))
        .read_to_end(&mut image)
        .unwrap();
    let slices = u16::from_le_bytes([image[46], image[47]]);
    (usize::from(slices), image.split_off(352))
}

fn count(labels: &[u8], label: u8) -> usize {
    labels.iter().filter(|other| **other == label).count()
}

#[test]
fn lungs_told_apart_have_a_segment_and_a_label_each() {
    let (lungs, results) = made(&chest(), &formats(&[Format::Seg, Format::Nifti]));
    assert!(!lungs.found(Code::SidesUncertain), "{:?}", lungs.findings);
    assert_eq!(segment_labels(&seg(&results)), ["Right lung", "Left lung"]);
    let (_, labels) = nifti_voxels(&results, MASK);
    assert_eq!([1, 2].map(|label| count(&labels, label)), [20 * 32 * 10; 2]);
}

#[test]
fn one_segment_is_called_and_coded_as_the_manifest_says() {
    let mut manifest = manifest();
    let segment = manifest.segments.first_mut().unwrap();
    segment.label = "Aerated parenchyma".to_owned();
    let concept = |value: &str, scheme: &str, meaning: &str| [value, scheme, meaning].map(str::to_owned);
    let [value, scheme, meaning] = concept("85756007", "SCT", "Tissue");
    segment.category = crate::model::Concept(value, scheme, meaning);
    let [value, scheme, meaning] = concept("L1", "99TEST", "Parenchyma");
    segment.kind = crate::model::Concept(value, scheme, meaning);
    let mut settings = formats(&[Format::Seg]);
    settings.output.segments = Segments::Lung;
    let object = seg(&made_by(&manifest, &chest(), &settings).1);
    let segments = object.element(tags::SEGMENT_SEQUENCE).unwrap().items().unwrap();
    let text = |item: &dicom_object::InMemDicomObject, tag| {
        let element = item.element(tag).unwrap();
        element.to_str().unwrap().trim().to_owned()
    };
    let code = |tag| {
        let item = &segments[0].element(tag).unwrap().items().unwrap()[0];
        [tags::CODE_VALUE, tags::CODING_SCHEME_DESIGNATOR, tags::CODE_MEANING].map(|tag| text(item, tag))
    };
    assert_eq!(segments.len(), 1);
    assert_eq!(text(&segments[0], tags::SEGMENT_LABEL), "Aerated parenchyma");
    assert_eq!(
        code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE),
        ["85756007", "SCT", "Tissue"]
    );
    assert_eq!(
        code(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE),
        ["L1", "99TEST", "Parenchyma"]
    );
}

#[test]
fn a_left_lung_alone_is_the_first_segment_and_keeps_its_label() {
    let z: Vec<f64> = (0..20).map(|k| 8.0 * f64::from(k)).collect();
    let left = case(&z, [32, 40], [8.0; 2], [25..35, 25..35]);
    // The segmentation is read back before it is a result.
    let (lungs, results) = made(&left, &formats(&[Format::Seg, Format::Nifti]));
    assert!(lungs.found(Code::OneLungMissing), "{:?}", lungs.findings);
    assert!(!lungs.found(Code::SidesUncertain), "{:?}", lungs.findings);
    let object = seg(&results);
    assert_eq!(segment_labels(&object), ["Left lung"]);
    let segments = object.element(tags::SEGMENT_SEQUENCE).unwrap().items().unwrap();
    let number = segments[0].element(tags::SEGMENT_NUMBER).unwrap();
    assert_eq!(number.to_int::<u16>().unwrap(), 1);
    let (_, labels) = nifti_voxels(&results, MASK);
    assert_eq!([1, 2].map(|label| count(&labels, label)), [0, 20 * 32 * 10]);
}

#[test]
fn what_is_said_of_the_series_is_that_of_its_lowest_slice_in_whichever_order_files_come() {
    let mut case = chest();
    for (number, instance) in case.series.instances.iter_mut().enumerate() {
        instance.header.series_number = Some(number as i64 + 1);
        instance.header.convolution_kernel = format!("K{number}");
    }
    let settings = formats(&[Format::Seg, Format::Png]);
    let said = |case: &Case| {
        let (_, results) = made(case, &settings);
        let header = first_header(&case.series, &case.usable.stack);
        let report = blank(&case.series, header, case.usable.verdict.clone());
        let series = serde_json::to_value(&report.series).unwrap();
        (
            series,
            bytes(&results, SEGMENTATION).to_vec(),
            bytes(&results, OVERLAY).to_vec(),
        )
    };
    let before = said(&case);
    assert_eq!(before.0["convolution_kernel"], "K0");
    let number = seg(&made(&case, &settings).1)
        .element(tags::SERIES_NUMBER)
        .unwrap()
        .to_int::<i32>();
    assert_eq!(number.unwrap(), default_series_number(Some(1)));

    case.series.instances.reverse();
    let last = case.usable.stack.slices.len() - 1;
    for slice in &mut case.usable.stack.slices {
        slice.instance = last - slice.instance;
    }
    assert!(said(&case) == before);
}

#[test]
fn with_uncertain_sides_there_is_one_segment_one_label_and_no_figure_of_a_single_lung() {
    let mut settings = formats(&[Format::Seg, Format::Nifti]);
    // No confidence is enough.
    settings.mask.sides_confidence = 1.1;
    let case = chest();
    let (lungs, results) = made(&case, &settings);
    assert!(lungs.found(Code::SidesUncertain), "{:?}", lungs.findings);
    assert_eq!((&lungs.measured.right, &lungs.measured.left), (&None, &None));
    let shown = caption(&case.series, &case.usable, &lungs, &model(&manifest()));
    assert_eq!(shown.lungs, overlay::Lungs::Together(lungs.measured.total.volume_ml));
    let object = seg(&results);
    assert_eq!(segment_labels(&object), ["Lung"]);
    let said = content_description_of(&object);
    assert!(said.contains("sides_uncertain"), "{said}");
    let (_, labels) = nifti_voxels(&results, MASK);
    assert_eq!([1, 2].map(|label| count(&labels, label)), [20 * 32 * 20, 0]);
}

#[test]
fn the_findings_of_both_verdicts_stand_in_the_content_description() {
    let mut case = chest();
    case.usable.verdict.findings = vec![Finding::new(Code::SharpKernel, "Sharp.")];
    let (lungs, results) = made(&case, &formats(&[Format::Seg]));
    let codes: Vec<Code> = lungs.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::LungsCut]);
    assert_eq!(content_description_of(&seg(&results)), "Note: lungs_cut, sharp_kernel");
}

#[test]
fn a_nifti_image_that_cannot_be_made_is_left_out_with_a_sentence_and_the_segmentation_is_not_lost() {
    // 32,768 columns are one more than a NIfTI-1 header can say.
    let wide = case(
        &[0.0, 100.0, 200.0],
        [1, 32_768],
        [100.0, 0.01],
        [4000..14_000, 18_000..28_000],
    );
    let (_, results) = made(&wide, &formats(&[Format::Seg, Format::Nifti, Format::Ct]));
    assert_eq!(names(&results), [SEGMENTATION]);
    assert_eq!(results.files.len(), 1);
    let left_out: Vec<&str> = results.left_out.iter().map(|left_out| left_out.name).collect();
    assert_eq!(left_out, [MASK, CT]);
    let sentence = &results.left_out[0].sentence;
    assert!(sentence.contains("32768 x 1 x 3 voxels"), "{sentence}");
}

#[test]
fn two_slices_that_nearly_coincide_cost_neither_the_image_nor_the_segmentation() {
    let mut z: Vec<f64> = (0..20).map(|k| 8.0 * f64::from(k)).collect();
    z[9] = z[8] + 0.03;
    let near = case(&z, [32, 40], [8.0; 2], [5..15, 25..35]);
    let (_, results) = made(&near, &formats(&[Format::Seg, Format::Nifti]));
    assert_eq!(names(&results), [SEGMENTATION, MASK]);
    assert_eq!(nifti_voxels(&results, MASK).0, 4 * 20);
    let note = &results.files[1].note;
    assert!(note.ends_with("even grid, 1.924 mm from slice to slice"), "{note}");
}

#[test]
fn a_series_that_cannot_be_named_has_everything_but_the_segmentation() {
    let mut case = chest();
    for instance in &mut case.series.instances {
        instance.header.sop_class_uid.clear();
    }
    case.usable.identity_valid = false;
    let (_, results) = made(&case, &formats(&[Format::Seg, Format::Nifti]));
    assert_eq!(names(&results), [MASK]);
}
