#!/usr/bin/env bash
# A phantom chest goes in, a DICOM Segmentation comes out.   demo.sh HILUM FOLDER
set -euo pipefail
hilum=$1 folder=$2
"$hilum" phantom --out "$folder/phantom" --seed 7
"$hilum" segment "$folder/phantom/ct" --out "$folder/result"
"$hilum" evaluate "$(echo "$folder"/result/*/segmentation.dcm)" "$folder/phantom/mask.nii.gz"
