"""Cases (folders with ct/ and mask.nii.gz) and the hilum program in; how well the whole way does, case by case, out.

    performance.py CASE... [--hilum hilum] [--model NAME] [--painted [base|apex|patches]] [--markdown]

Each CT goes through `hilum segment` twice, with `--boundary off` and `on`. Dice off and on, and of the latter HD95 in mm and
the volume's error in mL, are what `hilum evaluate` says against the reference mask, on the source slices. Added and taken
are what the report says of the boundary step, in mL. `--painted` paints a part of the lungs airless (`paint_to_measure` of
evaluate.py, on the source slices), writes that as a series, and tells the Dice (on) and what part of the painted lung is
called lung before and after the step.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

import evaluate
import prepare


def on_grid(path, affine, shape):
    """A NIfTI mask as [column][row][slice] of the CT whose affine is given."""
    image = nib.load(path)
    turn = nib.orientations.io_orientation(np.linalg.inv(affine) @ image.affine)
    labels = nib.orientations.apply_orientation(np.asarray(image.dataobj).reshape(image.shape[:3]), turn)
    if labels.shape != shape:
        raise ValueError(f"{path} is {labels.shape}, the CT {shape}")
    return labels > 0


def scores(p, mask, reference):
    """Figures of the whole lungs as `hilum evaluate` gives them."""
    done = subprocess.run([p.hilum, "evaluate", str(mask), str(reference), "--form", "json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)["cases"][0]["lungs"]


def segment(p, ct, boundary, affine, shape, reference):
    """The mask that hilum makes (empty where it finds no lungs), its figures, and the report's words on the boundary."""
    with tempfile.TemporaryDirectory() as out:
        model = ["--model", p.model] if p.model else []
        done = subprocess.run([p.hilum, "segment", str(ct), "--out", out, "--format", "nifti,json", "--boundary", boundary, "--trust-input", "--json", *model],
                              check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        report = json.loads(done.stdout)["series"][0]
        masks = list(Path(out).glob("*/mask.nii.gz"))
        if not masks:
            return np.zeros(shape, bool), {"dice": 0.0, "hd95_mm": None, "volume_error_ml": None}, report["boundary"]
        return on_grid(masks[0], affine, shape), scores(p, masks[0], reference), report["boundary"]


def write_painted(source, hu, folder):
    """The series with other Hounsfield units ([column][row][slice], by position), uncompressed."""
    slices = [pydicom.dcmread(path) for path in sorted(source.iterdir()) if path.is_file()]
    across, down = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(across, down)
    slices.sort(key=lambda s: float(np.dot(normal, np.array(s.ImagePositionPatient, float))))
    for index, s in enumerate(slices):
        stored = np.round((hu[:, :, index].T - float(s.RescaleIntercept)) / float(s.RescaleSlope))
        kind = np.int16 if s.PixelRepresentation else np.uint16
        s.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        s.PixelData = np.clip(stored, np.iinfo(kind).min, np.iinfo(kind).max).astype("<i2" if kind is np.int16 else "<u2").tobytes()
        s["PixelData"].is_undefined_length = False
        s.save_as(folder / f"{index:04}.dcm", enforce_file_format=True)


def row(p, case):
    hu, affine, _ = prepare.read_dicom(case / "ct")
    image = nib.load(case / "mask.nii.gz")
    lung = on_grid(case / "mask.nii.gz", affine, hu.shape)
    cells = [case.name]
    reference = case / "mask.nii.gz"
    _, off, _ = segment(p, case / "ct", "off", affine, hu.shape, reference)
    _, on, moved = segment(p, case / "ct", "on", affine, hu.shape, reference)
    dice = [figures["dice"] if lung.any() else float("nan") for figures in (off, on)]
    cells += [number(dice[0], ".4f"), number(dice[1], ".4f"), number(on["hd95_mm"], ".1f"), number(on["volume_error_ml"], "+.0f")]
    cells += [f"{moved['added_ml']:.1f}", f"{moved['removed_ml']:.1f}"]
    painted = []
    if p.painted and lung.any():
        turn = nib.orientations.io_orientation(np.linalg.inv(affine) @ image.affine)
        sides = nib.orientations.apply_orientation(np.asarray(image.dataobj).reshape(image.shape[:3]), turn)
        ill, where = evaluate.paint_to_measure(hu.transpose(2, 1, 0), sides.transpose(2, 1, 0), hu.shape[2], p.painted,
                                              np.linalg.norm(affine[:3, 2::-1], axis=0))
        with tempfile.TemporaryDirectory() as folder:
            write_painted(case / "ct", ill.transpose(2, 1, 0), Path(folder))
            for boundary in ("off", "on"):
                mask, figures, _ = segment(p, folder, boundary, affine, hu.shape, reference)
                painted.append((mask.transpose(2, 1, 0) & where).sum() / max(1, where.sum()))
        painted = [figures["dice"], *painted]
        cells += [f"{value:.4f}" for value in painted]
    return dice, painted, cells


def number(value, form):
    return "" if value is None or value != value else format(value, form)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--hilum", default="hilum")
    parser.add_argument("--model")
    parser.add_argument("--painted", choices=evaluate.PAINTED, nargs="?", const="base")
    parser.add_argument("--markdown", action="store_true")
    p = parser.parse_args()
    head = ["case", "Dice off", "Dice on", "HD95 mm", "error mL", "added mL", "taken mL"]
    head += ["painted Dice", "kept off", "kept on"] if p.painted else []
    show = lambda cells: print("| " + " | ".join(cells) + " |" if p.markdown else f"{cells[0]:56}" + " ".join(f"{c:>10}" for c in cells[1:]), flush=True)
    show(head)
    if p.markdown:
        show(["---"] * len(head))
    found, parts = [], []
    for case in p.cases:
        dice, painted, cells = row(p, case)
        show(cells)
        found += [dice] if dice[0] == dice[0] else []
        parts += [painted] if painted else []
    if found:
        gain = np.diff(found, axis=1)
        off, on = np.mean(found, 0)
        print(f"\nmean Dice {off:.4f} off, {on:.4f} on (least {np.min(found, 0)[1]:.4f}); "
              f"gain {gain.min():+.4f} to {gain.max():+.4f}, {len(found)} cases with lung")
    if parts:
        dice, off, on = np.mean(parts, 0)
        print(f"painted: mean Dice {dice:.4f}, dense lung kept {off:.4f} off, {on:.4f} on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
