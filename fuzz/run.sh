#!/bin/sh
# fuzz/run.sh [TARGET...]: builds fuzz targets (all by default) with the installed stable compiler and runs each for FUZZ_SECONDS (60).
# HILUM_DECODER names a built hilum, which decodes for the target `pixels` and makes the first inputs of `header` and `pixels`; without it one is built.
# cargo-fuzz itself asks for a nightly compiler; the coverage counters that libFuzzer needs are a pass of LLVM, which stable has as well.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
seconds=${FUZZ_SECONDS:-60}
[ $# -gt 0 ] || set -- dicom_json geometry header multipart nifti pixels segmentation
# Decoders of compressed frames run in a child, the program itself, as they do in service; coverage is not counted there, so it is built as usual.
case " $* " in *" pixels "* | *" header "*)
    if [ -z "${HILUM_DECODER:-}" ]; then
        cargo build --quiet --release --locked --manifest-path "$here/../Cargo.toml" --bin hilum
        HILUM_DECODER=${CARGO_TARGET_DIR:-$here/../target}/release/hilum
    fi
    [ -x "$HILUM_DECODER" ] || { echo "fuzz: $HILUM_DECODER is no program" >&2; exit 1; }
    export HILUM_DECODER ;;
esac
# What the targets write and read again stays in memory, where there is such a place.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
# Heads of a phantom's slices in each transfer syntax and manner: from nothing a fuzzer hardly finds the way into a data set.
seed_headers() {
    phantom=$(mktemp -d)
    for kind in "explicit_little_endian ge" "implicit_little_endian siemens" "deflated philips" "rle canon" "jpeg_ls plain"; do
        set -- $kind
        "$HILUM_DECODER" phantom --out "$phantom/$1" --matrix 64 64 --slices 10 --transfer-syntax "$1" --flavour "$2" >/dev/null
        head -c 4096 "$(find "$phantom/$1/ct" -name '*.dcm' | head -n 1)" > "$here/corpus/header/$1"
    done
    rm -r "$phantom"
}
# frame NAME WHICH ROWS COLUMNS BITS FLAGS FILE: the pixel data of a file in explicit VR little endian, as fuzz_targets/pixels.rs takes them.
frame() {
    name=$1 file=$7
    at=$(LC_ALL=C grep -obUaP '\xe0\x7f\x10\x00O[BW]' "$file" | tail -n 1 | cut -d: -f1)
    {
        for byte in "$2" "$3" "$4" "$5" "$6"; do printf "\\$(printf %03o "$byte")"; done
        tail -c +$((at + 7)) "$file"
    } > "$here/corpus/pixels/$name"
}
# A small frame of each kind: slices of a phantom, and the goldens of other people's programs.
seed_pixels() {
    phantom=$(mktemp -d)
    for syntax in explicit_little_endian rle jpeg_ls; do
        "$HILUM_DECODER" phantom --out "$phantom/$syntax" --matrix 24 24 --slices 10 --transfer-syntax "$syntax" >/dev/null
        cp "$phantom/$syntax/ct/IM0005.dcm" "$phantom/$syntax.dcm"
    done
    goldens=$here/../tests/goldens
    frame native 0 24 24 12 0 "$phantom/explicit_little_endian.dcm"
    frame deflated 2 24 24 12 0 "$phantom/explicit_little_endian.dcm"
    { printf '\001\030\030\014\000\000\000\000\000\004\200'; tail -c 1152 "$phantom/explicit_little_endian.dcm" | dd conv=swab 2>/dev/null; } > "$here/corpus/pixels/big_endian"
    frame rle 3 24 24 12 2 "$phantom/rle.dcm"
    frame jpeg_baseline 4 64 48 8 6 "$goldens/jpeg_baseline.dcm"
    frame jpeg_lossless_57 5 20 30 12 2 "$goldens/jpeg_lossless_57.dcm"
    frame jpeg_lossless_70 6 20 30 12 2 "$goldens/jpeg_lossless_70.dcm"
    frame jpeg_ls 7 24 24 12 2 "$phantom/jpeg_ls.dcm"
    frame jpeg_2000 8 20 30 12 2 "$goldens/jpeg_2000.dcm"
    frame htj2k 9 20 30 12 2 "$goldens/htj2k.dcm"
    rm -r "$phantom"
}
# Masks of other people's programs; small ones of every kind are written by the targets themselves.
seed_masks() {
    goldens=$here/../tests/goldens
    case $1 in
        nifti)
            cp "$goldens/evaluate_mask.nii.gz" "$here/corpus/nifti/nibabel"
            gzip -dc "$goldens/evaluate_mask.nii.gz" > "$here/corpus/nifti/nibabel_inflated" ;;
        segmentation)
            for kind in binary deflated fractional labelmap; do
                { printf '\000'; cat "$goldens/evaluate_$kind.dcm"; } > "$here/corpus/segmentation/$kind"
            done ;;
    esac
    export HILUM_SEEDS="$here/corpus/$1"
}
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-$here/target}"
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
for target in "$@"; do
    # A named host keeps the flags away from build scripts.
    cargo build --quiet --release --manifest-path "$here/Cargo.toml" --target "$host" --bin "$target"
    mkdir -p "$here/corpus/$target" "$here/artifacts/$target"
    case $target in
        header) seed_headers ;;
        pixels) seed_pixels ;;
        nifti | segmentation) seed_masks "$target" ;;
    esac
    # The masks of other people's programs fit as a whole.
    case $target in nifti) longest=8192 ;; segmentation) longest=24576 ;; *) longest=4096 ;; esac
    "$CARGO_TARGET_DIR/$host/release/$target" "$here/corpus/$target" -max_total_time="$seconds" -max_len="$longest" -timeout=20 -rss_limit_mb=1024 \
        -artifact_prefix="$here/artifacts/$target/" -print_final_stats=1
done
