"""Prepared cases and a network in; what it calls lung inside a box joins the cases' reference lung.

    relabel.py MODEL.onnx --box Z Z Y Y X X CASE.npz...

Silver masks leave airless lung at the chest wall out, so that training on them teaches that a real collapsed lobe is no lung.
Where someone has looked at such a lobe and at what a network makes of it, the box around it (voxels of the prepared case,
first and last of each axis) says where the network is believed. What joins is of the side that has more lung in the box
already; nothing is taken away. The cases are written in place.
"""
import argparse
import os
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

import evaluate
from prepare import depth_mm


def relabel(arrays, said, box):
    """The arrays of a case with more lung, and how much more in mL. `said` is the network's mask."""
    hu, lung = arrays["hu"], arrays["lung"]
    inside = np.zeros(hu.shape, bool)
    inside[tuple(slice(first, last + 1) for first, last in box)] = True
    more = ndimage.binary_opening(said & inside & (lung == 0), np.ones((1, 3, 3)))   # no wider edges
    side = 1 if (lung[inside] == 1).sum() > (lung[inside] == 2).sum() else 2
    lung = np.where(more, np.uint8(side), lung)
    return {"hu": hu, "lung": lung, "inward": depth_mm(lung > 0)}, more.sum() * evaluate.VOXEL_ML


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--box", type=int, nargs=6, required=True, metavar="N")
    p = parser.parse_args()
    network, box = evaluate.onnx_network(p.model), list(zip(p.box[::2], p.box[1::2]))
    for path in p.cases:
        with np.load(path) as file:
            arrays = dict(file)
        arrays, added_ml = relabel(arrays, evaluate.segment(network, arrays["hu"]), box)
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(part, path)
        print(f"{path.stem}: {added_ml:.0f} mL of lung more", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
