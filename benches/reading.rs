//! Files to Hounsfield units, 60 slices of 512 x 512: `cargo bench --bench reading`.
//!
//! The series is a phantom in a temporary folder, so in the page cache. Compressed slices are decoded in this process; what a decoder process adds is measured by
//! `benches/compare/compare_compressed.py`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hilum::dicom::{DecodeOptions, FrameReader, Limits, discover};
use hilum::phantom::{Specification, TransferSyntax, chest, dicom_series};
use hilum::series::{Judgement, Series, SeriesLimits, group, judge};
use hilum::volume::{SeriesFrames, load};

const SLICES: usize = 60;
const MATRIX: usize = 512;

fn headers(folder: &PathBuf) -> Series {
    let found = discover(std::slice::from_ref(folder), &Limits::default()).unwrap();
    group(found.instances).remove(0)
}

fn reading(criterion: &mut Criterion) {
    let specification = Specification {
        matrix: [MATRIX; 2],
        spacing_mm: [0.7, 0.7, 5.0],
        slices: Some(SLICES),
        ..Specification::small(3)
    };
    let phantom = chest(&specification).unwrap();
    let mut bench = criterion.benchmark_group("reading");
    bench.sample_size(10);
    bench.throughput(Throughput::Elements((SLICES * MATRIX * MATRIX) as u64));
    for (name, transfer_syntax) in [
        ("uncompressed", TransferSyntax::ExplicitLittleEndian),
        ("rle", TransferSyntax::Rle),
        ("jpeg_ls", TransferSyntax::JpegLs),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let coded = Specification {
            transfer_syntax,
            ..specification.clone()
        };
        for (file, bytes) in dicom_series(&phantom, &coded).unwrap() {
            std::fs::write(folder.path().join(file), bytes).unwrap();
        }
        let path = folder.path().to_owned();
        if transfer_syntax == TransferSyntax::ExplicitLittleEndian {
            bench.bench_function("headers", |b| b.iter(|| headers(&path)));
        }
        let series = headers(&path);
        let Judgement::Usable(candidate) = judge(&series, &SeriesLimits::default()) else {
            panic!("the phantom is refused");
        };
        let options = DecodeOptions {
            trust_input: true,
            ..DecodeOptions::default()
        };
        let frames = SeriesFrames {
            reader: &FrameReader::new(options),
            instances: &series.instances,
        };
        bench.bench_function(name, |b| {
            b.iter(|| load(candidate.stack(), &series.instances, &frames).unwrap())
        });
    }
    bench.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
