"""Prepared cases and a network in; Dice against the reference masks, case by case, on the network's grid, out.

    evaluate.py MODEL.onnx CASE.npz... [--painted [base|apex|patches|fluid]] [--markdown]

The way is the reference pipeline's (MONAI's sliding windows, overlap 0.25, constant blending, cut at probability 0.5, the
two largest components), without the steps on the source slices. Airless is the dense lung of the reference that is too wide
for a vessel: how much there is, and the part that the network calls lung; real disease, as far as the reference masks have it.
`--painted` adds, for each case of more than one slice,
the same chest with airless lung painted in by `paint_to_measure`, in ways that training never uses: Dice, and
the part of the painted lung that the network still calls lung. With `fluid` it is pleural fluid that is painted, which is no
lung: there the part should be 0.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROI = (32, 224, 224)
SPACING_MM = (5.0, 0.8, 0.8)
OVERLAP = 0.25
WINDOW_HU = (-1500.0, 500.0)
BODY_HU = -500.0
PAINTED = ("base", "apex", "patches")   # airless lung
FLUID, FLUID_HU = "fluid", 10.0         # and what is none
SMALLEST_COMPONENT = 0.1   # of the largest, for the second one to be kept
AIRLESS_HU, AIRLESS_VOXELS, AIRLESS_ML = -300, 17, 20.0   # at least as dense, wide (14 mm in a slice) and much, to be told of
VOXEL_ML = float(np.prod(SPACING_MM)) / 1000


def scale(hu):
    low, high = WINDOW_HU
    return np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)


def starts(length, roi, overlap):
    """Where windows begin along an axis, as in MONAI's `sliding_window_inference`."""
    if length <= roi:
        return [0]
    step = max(1, int(roi * (1 - overlap)))
    return [min(k * step, length - roi) for k in range(-(-(length - roi) // step) + 1)]


def body_box(hu, margin=8):
    """The box around everything denser than air, as the manifest crops it."""
    body = hu > BODY_HU
    box = []
    for axis in range(3):
        there = np.flatnonzero(body.any(tuple(a for a in range(3) if a != axis)))
        if not len(there):
            return tuple(slice(0, n) for n in hu.shape)
        box.append(slice(max(0, there[0] - margin), min(hu.shape[axis], there[-1] + 1 + margin)))
    return tuple(box)


def predict(network, hu, overlap=OVERLAP):
    """Logits of the size of `hu`. `network` maps a window, float32 of ROI, to its logits. Outside the body: no lung."""
    logits = np.full(hu.shape, -20, np.float32)
    box = body_box(hu)
    image = scale(hu[box])
    pad = [(max(0, r - n) // 2, max(0, r - n) - max(0, r - n) // 2) for r, n in zip(ROI, image.shape)]
    image = np.pad(image, pad)
    total, weight = np.zeros_like(image), np.zeros_like(image)
    for z in starts(image.shape[0], ROI[0], overlap):
        for y in starts(image.shape[1], ROI[1], overlap):
            for x in starts(image.shape[2], ROI[2], overlap):
                window = (slice(z, z + ROI[0]), slice(y, y + ROI[1]), slice(x, x + ROI[2]))
                total[window] += network(np.ascontiguousarray(image[window]))
                weight[window] += 1
    total /= weight
    logits[box] = total[tuple(slice(before, n - after) for (before, after), n in zip(pad, total.shape))]
    return logits


def two_largest(mask):
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    if count < 2:
        return mask
    first, second = np.argsort(sizes)[::-1][:2]
    keep = [first + 1] + ([second + 1] if sizes[second] > SMALLEST_COMPONENT * sizes[first] else [])
    return np.isin(labels, keep)


def segment(network, hu):
    return two_largest(predict(network, hu) > 0)


def dice(a, b):
    total = a.sum() + b.sum()
    return 2 * (a & b).sum() / total if total else 1.0


def airless(hu, lung):
    """Where a reference lung is dense over more than the width of a vessel: consolidation, collapse, masses."""
    return ndimage.binary_opening((lung > 0) & (hu > AIRLESS_HU), np.ones((1, AIRLESS_VOXELS, AIRLESS_VOXELS)))


def tilted_part(side, rng, down):
    """The lowest or highest 20 to 45 % of a lung, beyond a plane that is tilted the less the thinner the slices."""
    z, y, x = np.nonzero(side)
    tilt = rng.uniform(-1, 1, 2)
    height = (-5.0 if down else 5.0) * z + 0.8 * (tilt[0] * y + tilt[1] * x)
    part = height >= np.quantile(height, 1 - rng.uniform(0.2, 0.45))
    where = np.zeros(side.shape, bool)
    where[z[part], y[part], x[part]] = True
    return where


def pleural_patches(lung, spacing_mm, rng):
    """Six to twelve round patches, 15 to 40 mm in radius, whose centres lie at the surface of both lungs."""
    inside = lung > 0
    surface = np.argwhere(inside & ~ndimage.binary_erosion(inside, np.ones((3, 3, 3))))
    where = np.zeros(lung.shape, bool)
    for centre in surface[rng.integers(len(surface), size=rng.integers(6, 13))]:
        z, y, x = np.ogrid[tuple(slice(-c, n - c) for c, n in zip(centre, lung.shape))]
        where |= sum((v * mm) ** 2 for v, mm in zip((z, y, x), spacing_mm)) < rng.uniform(15, 40) ** 2
    return where & inside


def behind_a_level(side, rng):
    """The hindmost 15 to 40 % of a lung, as fluid lies in a patient on the back."""
    y = np.nonzero(side)[1]
    rows = np.arange(side.shape[1])[None, :, None]
    return side & (rows >= np.quantile(y, 1 - rng.uniform(0.15, 0.4)))


def paint_to_measure(hu, lung, seed, kind="base", spacing_mm=SPACING_MM):
    """A part of the lungs filled with the texture of this patient's own soft tissue: (HU, where).

    `kind` says which: the `base` of the larger lung, where the dome of the diaphragm is lost from sight, its `apex`, each 20 to
    45 % of that lung, or `patches` at the pleura of both. The values are taken from a cube of muscle, liver or heart of the
    same scan, mirrored until it fills the lung, so that noise and grain are the scan's own; vessels stay. Voxels outside the
    lung that hold some of its air are painted with it: airless lung has no dark outline. `fluid` has the same grain, the density
    of a transudate, and no vessels, and takes the place of the larger lung behind a level. Nothing of this is shared with `disease.py`.
    """
    rng = np.random.default_rng(seed)
    if kind == "patches":
        side, where = lung > 0, pleural_patches(lung, spacing_mm, rng)
    else:
        side = max((lung == 1, lung == 2), key=lambda s: s.sum())
        where = behind_a_level(side, rng) if kind == FLUID else tilted_part(side, rng, down=kind == "base")

    cube = (4, 24, 24)
    tissue = ((hu > -20) & (hu < 200)).astype(np.float32)
    full = ndimage.uniform_filter(tissue, cube)
    a, b, c = np.unravel_index(np.argmax(full + 1e-3 * rng.random(full.shape)), full.shape)
    block = hu[tuple(slice(max(0, i - n // 2), max(0, i - n // 2) + n) for i, n in zip((a, b, c), cube))].astype(np.float32)
    block = np.clip(block, -50, 200)
    if kind == FLUID:
        block += FLUID_HU - block.mean()
    for axis in range(3):
        block = np.concatenate([block, np.flip(block, axis)], axis)
    tiled = np.tile(block, [-(-n // m) for n, m in zip(hu.shape, block.shape)])[tuple(slice(0, n) for n in hu.shape)]
    blur = lambda a: ndimage.gaussian_filter(a.astype(np.float32), (0, 1.2, 1.2))
    soft = np.where(side, np.minimum(blur(where) / np.maximum(blur(side), 1e-6), 1), 0)
    beside, near = (ndimage.binary_dilation(where, np.ones((3, n, n))) for n in (3, 5))
    outline = (lung == 0) & (beside & (hu < 0) | near & (hu < -160))   # fat further away than a voxel stays
    airways = ndimage.binary_opening((lung == 0) & (hu < -700), np.ones((1, 3, 3)))
    soft[outline & ~ndimage.binary_dilation(airways, np.ones((1, 5, 5)))] = 1
    if kind == FLUID:
        return hu + soft * (tiled - hu), where
    painted = np.where(tiled > hu, hu + soft * (tiled - hu), hu)
    return painted, where & (hu < -300)


def onnx_network(path, threads=2):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda window: session.run(["logits"], {"image": window[None, None]})[0][0, 0]


def rows(network, paths, painted=None, find=segment):
    """`find(network, hu)` gives a mask. A row a case: name, Dice (None where there is no lung), false volume in mL, airless lung in
    mL and the part of it that is kept, where there is enough, and, `painted` being a kind, Dice of the painted chest and the part kept.
    """
    for path in paths:
        with np.load(path) as arrays:
            hu, lung = arrays["hu"], arrays["lung"]
        flat = len(hu) == 1
        if flat:
            hu, lung = (np.repeat(a, ROI[0], 0) for a in (hu, lung))
        begun = time.monotonic()
        found = find(network, hu)
        row = {"case": Path(path).stem, "slices": 1 if flat else len(hu), "seconds": time.monotonic() - begun, "dice": dice(found, lung > 0) if lung.any() else None,
               "missed_ml": ((lung > 0) & ~found).sum() * VOXEL_ML, "added_ml": (found & (lung == 0)).sum() * VOXEL_ML}
        dense = airless(hu, lung)
        if dense.sum() * VOXEL_ML >= AIRLESS_ML:
            row |= {"airless_ml": dense.sum() * VOXEL_ML, "airless_kept": (found & dense).sum() / dense.sum()}
        if painted and not flat and lung.any():
            ill, where = paint_to_measure(hu.astype(np.float32), lung, len(hu), painted)
            found = find(network, ill)
            truth = (lung > 0) & ~where if painted == FLUID else lung > 0
            row |= {"painted_dice": dice(found, truth), "painted_kept": (found & where).sum() / max(1, where.sum())}
        yield row


def line(row, markdown):
    cells = [row["case"], str(row["slices"])]
    cells += ["no lung" if row["dice"] is None else f"{row['dice']:.3f}", f"{row['missed_ml']:.0f}", f"{row['added_ml']:.0f}"]
    optional = {"airless_ml": ".0f", "airless_kept": ".3f", "painted_dice": ".3f", "painted_kept": ".3f"}
    cells += [f"{row[key]:{form}}" if key in row else "" for key, form in optional.items()]
    return "| " + " | ".join(cells) + " |" if markdown else f"{cells[0]:56}" + " ".join(f"{c:>10}" for c in cells[1:])


def table(found, markdown):
    """Prints rows as they come, and their means."""
    head = ["case", "slices", "Dice", "missed mL", "added mL", "airless mL", "airless kept", "painted Dice", "painted kept"]
    if markdown:
        print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    else:
        print(f"{head[0]:56}" + " ".join(f"{h[:10]:>10}" for h in head[1:]))
    scores, ill, dense = [], [], []
    for row in found:
        print(line(row, markdown), flush=True)
        scores += [row["dice"]] if row["dice"] is not None else []
        dense += [row["airless_kept"]] if "airless_kept" in row else []
        ill += [(row["painted_dice"], row["painted_kept"])] if "painted_kept" in row else []
    if scores:
        print(f"\nmean {np.mean(scores):.3f}, lowest {min(scores):.3f}, standard deviation {np.std(scores):.3f}, {len(scores)} cases with lung")
    if dense:
        print(f"airless lung: mean kept {np.mean(dense):.3f}, {len(dense)} cases")
    if ill:
        print(f"painted: mean Dice {np.mean(ill, 0)[0]:.3f}, kept {np.mean(ill, 0)[1]:.3f}, {len(ill)} cases")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--painted", choices=(*PAINTED, FLUID), nargs="?", const="base")
    parser.add_argument("--markdown", action="store_true")
    p = parser.parse_args()
    table(rows(onnx_network(p.model), p.cases, p.painted), p.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
