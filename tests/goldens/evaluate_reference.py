"""Dice and surface distances of a few masks, by MONAI and SimpleITK: makes evaluate.json beside this file.

    python tests/goldens/evaluate_reference.py      (needs numpy, torch, monai, scipy, SimpleITK)

The masks are ellipsoids with rough surfaces, written down as numbers and a hash, so that tests/evaluate.rs makes exactly the same ones: `voxels` in the JSON proves it.
"""

import json
import pathlib

import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

# name, shape (z, y, x), spacing in mm (z, y, x), ellipsoids of the prediction and of the reference: centre and radii in voxels (z, y, x), and a roughness in 256ths.
CASES = [
    ("near", (24, 40, 36), (2.5, 0.8, 0.8), [((11, 19, 17), (8, 13, 11))], [((11.5, 20, 18), (8, 12, 11))], 0),
    ("rough", (20, 48, 40), (5.0, 0.7, 0.9), [((9, 22, 19), (7, 17, 13))], [((10, 24, 20), (7, 16, 14))], 90),
    ("two", (30, 40, 64), (1.0, 1.0, 1.0), [((14, 19, 16), (11, 14, 10)), ((14, 19, 46), (11, 14, 10))], [((15, 19, 17), (11, 13, 11))], 20),
    ("cut_by_the_border", (16, 32, 32), (3.0, 1.5, 1.2), [((0, 15, 2), (9, 12, 14))], [((1, 15, 4), (9, 11, 13))], 10),
    ("apart", (16, 32, 48), (2.0, 1.0, 1.0), [((8, 15, 8), (4, 6, 5))], [((8, 15, 38), (4, 6, 5))], 0),
    ("inside", (24, 40, 40), (1.2, 0.9, 0.9), [((12, 20, 20), (4, 6, 6))], [((12, 20, 20), (10, 16, 15))], 0),
]


def mask(shape, ellipsoids, roughness, salt):
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in shape], indexing="ij")
    out = np.zeros(shape, bool)
    for (cz, cy, cx), (rz, ry, rx) in ellipsoids:
        out |= ((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1.0
    # A voxel in `roughness` of 256 is turned over, chosen by a hash of its index.
    index = np.arange(out.size, dtype=np.uint64).reshape(shape)
    h = (index * np.uint64(2654435761) + np.uint64(salt)) & np.uint64(0xFFFFFFFF)
    h = ((h ^ (h >> np.uint64(16))) * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    turned = ((h >> np.uint64(24)) < roughness) & ((h & np.uint64(7)) == 0)
    return out ^ turned


def main():
    rows = []
    for name, shape, spacing, predicted, reference, roughness in CASES:
        p, r = mask(shape, predicted, roughness, 17), mask(shape, reference, roughness, 91)
        tp, tr = (torch.from_numpy(m)[None, None].float() for m in (p, r))
        images = []
        for m in (p, r):
            image = sitk.GetImageFromArray(m.astype(np.uint8))
            image.SetSpacing(spacing[::-1])
            images.append(image)
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(images[1], images[0])
        hausdorff = sitk.HausdorffDistanceImageFilter()
        hausdorff.Execute(*images)
        surface = dict(spacing=spacing, include_background=True)
        rows.append(
            dict(
                name=name,
                shape=shape,
                spacing=spacing,
                predicted=predicted,
                reference=reference,
                roughness=roughness,
                voxels=[int(p.sum()), int(r.sum())],
                monai_dice=float(compute_dice(tp, tr)),
                monai_hd95=float(compute_hausdorff_distance(tp, tr, percentile=95, **surface)),
                monai_hd100=float(compute_hausdorff_distance(tp, tr, **surface)),
                monai_mean_surface_distance=float(compute_average_surface_distance(tp, tr, symmetric=True, **surface)),
                simpleitk_dice=overlap.GetDiceCoefficient(),
                simpleitk_hausdorff=hausdorff.GetHausdorffDistance(),
            )
        )
    path = pathlib.Path(__file__).with_name("evaluate.json")
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
