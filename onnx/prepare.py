"""Cases in, the same cases on the network's grid out: what `train.py` and `evaluate.py` read.

    prepare.py --out DIR CASE...

A case is a folder with `ct/` (one CT series as DICOM, one slice a file) or `ct.nii.gz`, and `mask.nii.gz` on the same
grid, in which 1 is the right lung, 2 the left, and 0 everything else. A series of a single slice becomes a flat case,
which training repeats to a slab.

Each case becomes DIR/NAME.npz with the arrays [slice][row][column], from foot to head, from front to back and from the
patient's right to left:

* `hu`: int16 Hounsfield units, sampled as MONAI's `Spacing` does (anchored at the first voxel, linear, clamped at the
  border), but at the true positions of the slices, which may be uneven;
* `lung`: uint8, 1 right, 2 left, both interpolated linearly and their sum cut at one half;
* `inward`: uint8, the distance in mm from the lung's surface inwards (0 outside, 255 at most), on which painted disease
  at the pleura rests.

The directions are those of the patient, whatever the position on the table was.
"""
import argparse
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from scipy import ndimage

SPACING_MM = (5.0, 0.8, 0.8)   # slice, row, column
FLIP_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_dicom(folder):
    """One series -> (HU [column][row][slice], RAS affine, positions of the slices in mm along their normal)."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir()) if path.is_file()]
    first = slices[0]
    across, down = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(across, down)
    slices.sort(key=lambda s: float(np.dot(normal, np.array(s.ImagePositionPatient, float))))
    origins = np.array([s.ImagePositionPatient for s in slices], float)
    positions = origins @ normal
    step = np.diff(positions).mean() if len(slices) > 1 else float(first.SliceThickness)
    hu = np.stack([s.pixel_array.T * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices], 2)
    row_mm, column_mm = (float(v) for v in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = across * column_mm, down * row_mm, normal * step, origins[0]
    return hu.astype(np.float32), FLIP_TO_RAS @ affine, positions - positions[0]


def read_case(folder):
    """(HU, right lung, left lung) [slice][row][column] in the patient's directions, and the positions in mm along each axis."""
    nifti = folder / "ct.nii.gz"
    if nifti.exists():
        image = nib.load(nifti)
        hu, affine = np.asarray(image.dataobj, np.float32), image.affine
        positions = np.arange(hu.shape[2]) * np.linalg.norm(affine[:3, 2])
    else:
        hu, affine, positions = read_dicom(folder / "ct")
    mask = nib.load(folder / "mask.nii.gz")
    lung = np.asarray(mask.dataobj).reshape(mask.shape[:3])
    lung = nib.orientations.apply_orientation(lung, nib.orientations.io_orientation(np.linalg.inv(affine) @ mask.affine))
    if lung.shape != hu.shape:
        raise ValueError(f"{folder.name}: the mask is {lung.shape}, the CT {hu.shape}")

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    along = [np.arange(hu.shape[0]) * spacing[0], np.arange(hu.shape[1]) * spacing[1], positions]
    to_lps = nib.orientations.io_orientation(FLIP_TO_RAS @ affine)
    if to_lps[2, 0] != 2:
        raise ValueError(f"{folder.name}: the slices are not axial")
    hu, lung = (nib.orientations.apply_orientation(a, to_lps) for a in (hu, lung))
    turned = [None] * 3
    for source, (axis, direction) in enumerate(to_lps):
        p = along[source]
        turned[int(axis)] = p if direction > 0 else p[-1] - p[::-1]
    volumes = [hu, (lung == 1).astype(np.float32), (lung == 2).astype(np.float32)]
    return [v.transpose(2, 1, 0) for v in volumes], turned[::-1]


def sample(volume, along, spacing):
    """Linear interpolation, an axis at a time, at every multiple of `spacing` from the first voxel; clamped at the last."""
    for axis, (positions, step) in enumerate(zip(along, spacing)):
        count = round((positions[-1] - positions[0]) / step + 1)
        index = np.interp(np.arange(count) * step, positions, np.arange(len(positions)))
        low = np.minimum(index.astype(int), max(len(positions) - 2, 0))
        high = np.minimum(low + 1, len(positions) - 1)
        part = (index - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        volume = np.take(volume, low, axis) * (1 - part) + np.take(volume, high, axis) * part
    return volume


def depth_mm(inside):
    """The distance inwards from the surface of a mask on the grid, in mm, uint8."""
    around = np.pad(inside, ((0, 0), (1, 1), (1, 1)))   # the upper and lower ends are cuts, not surfaces
    inward = ndimage.distance_transform_edt(np.pad(around, ((1, 1), (0, 0), (0, 0)), mode="edge"), SPACING_MM)[1:-1, 1:-1, 1:-1]
    return np.clip(np.ceil(inward), 0, 255).astype(np.uint8)


def prepare(folder):
    """The arrays of one case on the network's grid."""
    volumes, along = read_case(folder)
    hu, right, left = (sample(v, along, SPACING_MM) for v in volumes)
    inside = right + left >= 0.5
    return {"hu": np.round(np.clip(hu, -3000, 6000)).astype(np.int16), "lung": np.where(inside, 1 + (left > right), 0).astype(np.uint8),
            "inward": depth_mm(inside)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    p = parser.parse_args()
    p.out.mkdir(parents=True, exist_ok=True)
    for folder in p.cases:
        if not (folder / "mask.nii.gz").exists():
            continue
        arrays = prepare(folder)
        np.savez_compressed(p.out / f"{folder.name}.npz", **arrays)
        litres = (arrays["lung"] > 0).sum() * np.prod(SPACING_MM) / 1e6
        print(f"{folder.name}: {arrays['hu'].shape}, {litres:.2f} L of lung" if len(arrays["hu"]) > 1 else f"{folder.name}: one slice", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
