#!/usr/bin/env python3
"""Whether Hilum makes the mask that MONAI's own pipeline makes of the same series with the same ONNX file.

    compare_monai.py HILUM MODEL.toml CASE...        (a case is a folder with ct/)

Three runs of Hilum a case, two of `tests/goldens/monai_reference.py`. With crop, skip, clean-up and boundary step off, the
mask by probability stands against MONAI's linear inverse and the mask by label against its nearest inverse: Dice and voxels that
differ, and of these how many lie on a tie, that is exactly halfway between two voxels of the network's grid along some axis,
where rounding noise decides which is nearest. Hilum's default stands beside them, against the linear inverse.
A series whose slices name different frames of reference is compared as a copy in which they name one, marked *.
Needs the packages of the reference script: monai torch onnxruntime nibabel pydicom.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom

REFERENCE = Path(__file__).parents[2] / "tests/goldens/monai_reference.py"
BARE = ["--crop", "off", "--skip", "off", "--clean", "off", "--boundary", "off"]
TIE = 1e-3   # voxels of the network's grid


def one_frame_of_reference(ct, folder):
    """`ct` itself, or a copy in `folder` whose slices share one FrameOfReferenceUID."""
    slices = [pydicom.dcmread(path) for path in sorted(ct.iterdir()) if path.is_file()]
    if len({str(s.get("FrameOfReferenceUID")) for s in slices}) <= 1:
        return ct
    folder.mkdir()
    for index, s in enumerate(slices):
        s.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
        s.save_as(folder / f"{index:04}.dcm")
    return folder


def segment(p, ct, out, arguments):
    """The path of Hilum's mask, or the verdict's code where there is none."""
    done = subprocess.run([p.hilum, "segment", ct, "--out", out, "--model", p.model, "--device", "cpu", "--format", "nifti", "--trust-input", "--json", *arguments],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    masks = list(out.glob("*/mask.nii.gz"))
    return masks[0] if masks else done.stderr.strip().splitlines()[-1:] or "no mask"


def compare(p, ct, inverse, mask, out):
    """(Dice, voxels that differ, of these on a tie) of a mask against MONAI's, or MONAI's words where it refuses."""
    made = [] if (out / "mask.nii.gz").exists() else [ct, p.graph, "--axes", p.axes, "--inverse", inverse, "--threads", "2"]
    done = subprocess.run([sys.executable, REFERENCE, *made, "--out", out, "--compare", mask, "--min-dice", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        return done.stdout.strip().splitlines()[-1]
    theirs, ours = nib.load(out / "mask.nii.gz"), nib.load(mask)
    order = nib.orientations.io_orientation(np.linalg.inv(theirs.affine) @ ours.affine)
    voxels = nib.orientations.apply_orientation(np.asanyarray(ours.dataobj), order) > 0
    reference = np.asanyarray(theirs.dataobj) > 0
    differ = voxels != reference
    total = voxels.sum() + reference.sum()
    grid = json.loads((out / "reference.json").read_text())["network_grid"]["affine_ras"]
    at = np.linalg.inv(grid) @ theirs.affine @ np.vstack([np.argwhere(differ).T, np.ones(differ.sum())])
    tie = (np.abs(at[:3] % 1 - 0.5) < TIE).any(0)
    return 2 * (voxels & reference).sum() / total if total else 1.0, int(differ.sum()), int(tie.sum())


def row(p, case):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ct = one_frame_of_reference(case / "ct", folder / "ct")
        cells = [case.name + ("" if ct == case / "ct" else " *")]
        for inverse, arguments in (("linear", [*BARE, "--mask-back", "probability"]), ("nearest", [*BARE, "--mask-back", "label"]), ("linear", [])):
            mask = segment(p, ct, folder / f"hilum{len(cells)}", arguments)
            found = compare(p, ct, inverse, mask, folder / inverse) if isinstance(mask, Path) else str(mask)
            cells.append(found if isinstance(found, str) else f"{found[0]:.5f}, {found[1]:,}" + (f" ({found[2]:,} on ties)" if inverse == "nearest" and found[1] else ""))
        return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hilum")
    parser.add_argument("model", type=Path)
    parser.add_argument("cases", nargs="+", type=Path)
    p = parser.parse_args()
    manifest = tomllib.loads(p.model.read_text())
    graph = next(g for g in manifest["graph"] if "cpu" in g["devices"])
    p.graph, p.axes = p.model.parent / graph["file"], manifest["input"]["axes"]
    print("| case | by probability: Dice, voxels | by label | default |\n| --- | --- | --- | --- |")
    for case in p.cases:
        print("| " + " | ".join(row(p, case)) + " |", flush=True)


if __name__ == "__main__":
    main()
