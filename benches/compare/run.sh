#!/usr/bin/env bash
# Hilum's stages beside other people's programs, on one series of 512 x 512 x 300 made by `hilum phantom`, in one call on one machine.
#
#   benches/compare/run.sh [OUT]     (OUT: out/compare; COMPARE_REPEAT=5; COMPARE_PYTHON=.venv/bin/python)
#
# After the uncompressed series: the same in lossless JPEG, JPEG-LS and JPEG 2000 against pydicom and gdcm.
#
# Prints medians and ratios; every raw figure stands in OUT/*.json. Peers that are not installed are left out and said.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-out/compare}
repeat=${COMPARE_REPEAT:-5}
python=${COMPARE_PYTHON:-.venv/bin/python}
target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
hilum=$target/release/hilum
PATH="$(dirname "$python"):$PATH"

mkdir -p "$out"
[ -d "$out/phantom/ct" ] || "$hilum" phantom --out "$out/phantom" --seed 7 --spacing 0.7 0.7 1.0 --slices 300
[ -d "$out/small/ct" ] || "$hilum" phantom --out "$out/small" --seed 7 --small --slices 12
cat "$out"/phantom/ct/* > /dev/null    # into the page cache
"$python" benches/compare/stages.py "$hilum" "$out/phantom/ct" "$out" --small "$out/small/ct" --repeat "$repeat"
"$python" benches/compare/compare_read.py "$out/phantom/ct" "$out" --mask "$out/phantom/mask.nii.gz" --repeat "$repeat" --ops \
to_nii_dcm2niix,read_SimpleITK_ImageSeriesReader,resample_SimpleITK_linear_f32,resample_MONAI_Spacing_bilinear,maskback_SimpleITK_linear_2x_cut
"$python" benches/compare/compare_seg.py time "$out/phantom/ct" "$out/phantom/mask.nii.gz" "$out" --repeat "$repeat" --ops hd_binary_full,dcmqi_binary_full
"$python" benches/compare/stages.py "$hilum" "$out/phantom/ct" "$out" --ratios
"$python" benches/compare/compare_compressed.py "$hilum" "$out/phantom/ct" "$out" --small "$out/small/ct" --repeat "$repeat"
