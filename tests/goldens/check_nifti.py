#!/usr/bin/env python3
"""Holds a NIfTI image against the CT that it was made of, with readers that are not Hilum's.

    check_nifti.py CT_FOLDER IMAGE.nii.gz [--labels LABELS]

nibabel and SimpleITK read the image; every corner of every slice must lie where the CT's headers put it. With --labels (raw bytes, [slice][row][column], slices
ascending along the normal) the voxels must be these; without, they must be the CT's own Hounsfield units. One line a reader; exit 1 if any differs or is
not installed.
Needs numpy, pydicom, nibabel, SimpleITK.
"""
import argparse
import glob
import os
import sys

import numpy as np
import pydicom


def read_nibabel(path):
    import nibabel

    image = nibabel.load(path)
    assert image.header["sform_code"] == 1 and image.header["qform_code"] == 1, "form codes"
    assert image.header.get_xyzt_units()[0] == "mm", "units"
    difference = np.abs(image.get_qform() - image.get_sform()).max()
    assert difference < 1e-2, f"the two affines differ by {difference}"
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    return np.asanyarray(image.dataobj).transpose(2, 1, 0), lambda k, j, i: (lps @ [i, j, k, 1.0])[:3]


def read_simpleitk(path):
    import SimpleITK as sitk

    image = sitk.ReadImage(path)
    return sitk.GetArrayFromImage(image), lambda k, j, i: np.array(image.TransformIndexToPhysicalPoint((i, j, k)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct")
    parser.add_argument("image")
    parser.add_argument("--labels")
    arguments = parser.parse_args()

    slices = [pydicom.dcmread(path) for path in glob.glob(os.path.join(arguments.ct, "*"))]
    axes = np.array(slices[0].ImageOrientationPatient, float)
    normal = np.cross(axes[:3], axes[3:])
    slices.sort(key=lambda ds: normal @ np.array(ds.ImagePositionPatient, float))
    shape = (len(slices), slices[0].Rows, slices[0].Columns)
    if arguments.labels:
        expected = np.fromfile(arguments.labels, np.uint8).reshape(shape)
    else:
        expected = np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])

    wrong = 0
    for name, read in (("nibabel", read_nibabel), ("SimpleITK", read_simpleitk)):
        try:
            voxels, point = read(arguments.image)
            assert voxels.shape == shape, f"shape {voxels.shape}"
            different = int((voxels != expected).sum())
            far = 0.0
            for k, ds in enumerate(slices):
                down, across = [float(mm) for mm in ds.PixelSpacing]
                for j in (0, shape[1] - 1):
                    for i in (0, shape[2] - 1):
                        here = np.array(ds.ImagePositionPatient, float) + i * across * axes[:3] + j * down * axes[3:]
                        far = max(far, np.abs(here - point(k, j, i)).max())
            # Float32 in the header, and slices up to a hundredth of a millimetre off an even grid.
            good = different == 0 and far < 0.02
            print(f"{'ok' if good else 'WRONG'} {name}: {different} voxels differ, corners lie within {far:.4f} mm, {voxels.dtype}")
            wrong += not good
        except Exception as error:
            print(f"WRONG {name}: {type(error).__name__}: {error}")
            wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
