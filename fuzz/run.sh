#!/bin/sh
# fuzz/run.sh [TARGET...]: builds fuzz targets (all by default) with the installed stable compiler and runs each for FUZZ_SECONDS (60).
# HILUM_DECODER names a built hilum, which decodes for the target `pixels` and makes the first files of `header`; without it one is built.
# cargo-fuzz itself asks for a nightly compiler; the coverage counters that libFuzzer needs are a pass of LLVM, which stable has as well.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
seconds=${FUZZ_SECONDS:-60}
[ $# -gt 0 ] || set -- dicom_json geometry header multipart pixels
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
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-$here/target}"
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
for target in "$@"; do
    # A named host keeps the flags away from build scripts.
    cargo build --quiet --release --manifest-path "$here/Cargo.toml" --target "$host" --bin "$target"
    mkdir -p "$here/corpus/$target" "$here/artifacts/$target"
    [ "$target" != header ] || seed_headers
    "$CARGO_TARGET_DIR/$host/release/$target" "$here/corpus/$target" -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=1024 \
        -artifact_prefix="$here/artifacts/$target/" -print_final_stats=1
done
