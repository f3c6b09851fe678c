"""Prepared cases in; what a bare threshold with morphology makes of them, case by case, out: what a network has to beat.

    baseline.py CASE.npz... [--painted [base|apex|patches]] [--markdown]

No learning, no shape, no memory of other patients: air inside the body below -400 HU; the windpipe and its branches are followed from the top and cut out with their wall; the two largest pieces are
the lungs; each is closed by a ball of 8 mm towards the pleura, and holes in a slice (vessels, small masses) are filled. The
columns are those of `evaluate.py`. The silver masks were made in much the same manner, so that on healthy chests nothing
can be better than this, and dense lung at the wall is lost by both.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

import evaluate

SPACING_MM = (5.0, 0.8, 0.8)     # slice, row, column
LUNG_BELOW_HU = -400.0
LUMEN_BELOW_HU = -900.0
CLOSING_MM = 8.0
WALL_MM = 1.6
HOLE_MM2 = 1800.0
SHELL_PIXELS = 4                 # 3.2 mm: half as thick as what is still no body
WINDPIPE_MM2 = (60.0, 700.0)     # of a slice of the windpipe
AIRWAYS_GROW = 1.6               # the airways' area in a slice, against the one above it: more is a leak into the lung
FACES = ndimage.generate_binary_structure(2, 1)


def inside_air(hu):
    """Air that the body encloses, slice by slice. The body is the largest piece of what is thicker than a table's shell or a blanket."""
    solid = ndimage.binary_opening(hu > evaluate.BODY_HU, FACES[None], iterations=SHELL_PIXELS)
    labels, _ = ndimage.label(solid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == np.argmax(sizes) if sizes.any() else solid
    return (hu < LUNG_BELOW_HU) & np.stack([ndimage.binary_fill_holes(plane) for plane in body])


def windpipe(lumen, pixel_mm2):
    """The highest slice with a round piece of lumen near the middle that goes on below: (slice, piece), or None."""
    rows, columns = lumen.shape[1:]
    for z in range(len(lumen) - 1, 0, -1):
        labels, count = ndimage.label(lumen[z], FACES)
        for index, box in enumerate(ndimage.find_objects(labels), 1):
            piece = labels[box] == index
            area = piece.sum() * pixel_mm2
            sides = [(s.stop - s.start) for s in box]
            middle = (box[1].start + box[1].stop) / 2
            round_enough = max(sides) <= 2 * min(sides) and piece.mean() > 0.5
            if WINDPIPE_MM2[0] <= area <= WINDPIPE_MM2[1] and round_enough and abs(middle - columns / 2) < 0.15 * columns:
                whole = labels == index
                if (lumen[z - 1] & whole).sum() > 0.5 * whole.sum():
                    return z, whole
    return None


def airways(hu, air):
    """Windpipe and main bronchi with their wall: followed downwards from piece to piece, until they leak into the lung."""
    pixel_mm2 = SPACING_MM[1] * SPACING_MM[2]
    lumen, found = air & (hu < LUMEN_BELOW_HU), np.zeros(hu.shape, bool)
    # Lung that is as thin as air is not followed: a lumen is one by its wall, so it is opened apart from what touches it.
    lumen = ndimage.binary_opening(lumen, FACES[None])
    start = windpipe(lumen, pixel_mm2)
    if start is None:
        return found
    z, piece = start
    most = max(piece.sum(), WINDPIPE_MM2[0] / pixel_mm2)
    while z >= 0 and piece.any():
        found[z] = piece
        z -= 1
        labels, _ = ndimage.label(lumen[z], FACES)
        sizes = np.bincount(labels.ravel())
        below = [i for i in np.unique(labels[piece]) if i and sizes[i] <= AIRWAYS_GROW * most]
        piece = np.isin(labels, below)
        if piece.sum() > AIRWAYS_GROW * most:
            break
    return ndimage.distance_transform_edt(~found, (1e6, *SPACING_MM[1:])) <= WALL_MM


def close(mask, radius_mm):
    """Closing by a ball, which the ends of the volume do not pull in."""
    where = ndimage.find_objects(mask.astype(np.uint8))
    if not where:
        return mask
    margin = [int(np.ceil(radius_mm / s)) + 1 for s in SPACING_MM]
    box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(where[0], margin))
    grown = ndimage.distance_transform_edt(~mask[box], SPACING_MM) <= radius_mm
    outside = ~np.pad(grown, [(margin[0], margin[0]), (0, 0), (0, 0)], mode="edge")
    shrunk = ndimage.distance_transform_edt(~outside, SPACING_MM)[margin[0]:-margin[0]] > radius_mm if outside.any() else grown
    closed = mask.copy()
    closed[box] |= shrunk
    return closed


def fill_small_holes(mask):
    """Holes of a slice below 18 cm2: a liver dome is none, as it is wider where it is enclosed at all."""
    most = HOLE_MM2 / (SPACING_MM[1] * SPACING_MM[2])
    filled = mask.copy()
    for z, plane in enumerate(mask):
        labels, _ = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
        sizes = np.bincount(labels.ravel())
        sizes[0] = most + 1
        filled[z] |= sizes[labels] <= most
    return filled


def segment(hu):
    """The lungs of HU [slice][row][column] on the network's grid, from foot to head."""
    air = inside_air(hu)
    tubes = airways(hu, air)
    labels, count = ndimage.label(evaluate.two_largest(air & ~tubes), np.ones((3, 3, 3)))
    lungs = np.zeros(hu.shape, bool)
    for index in range(1, count + 1):
        lungs |= close(labels == index, CLOSING_MM)
    return fill_small_holes(lungs & ~tubes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--painted", choices=evaluate.PAINTED, nargs="?", const="base")
    parser.add_argument("--markdown", action="store_true")
    p = parser.parse_args()
    evaluate.table(evaluate.rows(None, p.cases, p.painted, lambda _, hu: segment(hu)), p.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
