"""A network and cases in; what blending, overlap and flips change, in Dice and seconds, out: choices that need no training.

    choices.py MODEL.onnx CASE.npz... [--markdown]

On the network's grid, against the reference masks, two largest components; seconds and windows are those of a mean case. A flip runs
every window a second time, mirrored left to right, and takes the mean of the logits.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np

import evaluate


def gaussian():
    """MONAI's importance map of `sliding_window_inference(mode="gaussian")`: sigma an eighth of the window."""
    weight = 1.0
    for axis, n in enumerate(evaluate.ROI):
        line = np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (0.125 * n)) ** 2)
        weight = weight * line.reshape([-1 if i == axis else 1 for i in range(3)])
    weight = weight.astype(np.float32)
    return np.maximum(weight, weight[weight > 0].min())


def predict(network, hu, overlap, weight):
    """Logits of the size of `hu`, and how many windows it took; blended by `weight`, of the size of a window."""
    logits = np.full(hu.shape, -20, np.float32)
    box = evaluate.body_box(hu)
    image = evaluate.scale(hu[box])
    pad = [(max(0, r - n) // 2, max(0, r - n) - max(0, r - n) // 2) for r, n in zip(evaluate.ROI, image.shape)]
    image = np.pad(image, pad)
    total, weights, windows = np.zeros_like(image), np.zeros_like(image), 0
    for corner in ((z, y, x) for z in evaluate.starts(image.shape[0], evaluate.ROI[0], overlap)
                   for y in evaluate.starts(image.shape[1], evaluate.ROI[1], overlap) for x in evaluate.starts(image.shape[2], evaluate.ROI[2], overlap)):
        window = tuple(slice(a, a + r) for a, r in zip(corner, evaluate.ROI))
        total[window] += weight * network(np.ascontiguousarray(image[window]))
        weights[window] += weight
        windows += 1
    total /= weights
    logits[box] = total[tuple(slice(before, n - after) for (before, after), n in zip(pad, total.shape))]
    return logits, windows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--markdown", action="store_true")
    p = parser.parse_args()
    plain = evaluate.onnx_network(p.model)
    mirrored = lambda window: (plain(window) + plain(np.ascontiguousarray(window[:, :, ::-1]))[:, :, ::-1]) / 2
    constant = np.ones(evaluate.ROI, np.float32)
    choices = [("constant, 0.25", plain, 0.25, constant), ("constant, 0.5", plain, 0.5, constant), ("gaussian, 0.25", plain, 0.25, gaussian()),
               ("gaussian, 0.5", plain, 0.5, gaussian()), ("constant, 0.25, flipped too", mirrored, 0.25, constant)]
    cases = []
    for path in p.cases:
        with np.load(path) as arrays:
            cases.append((arrays["hu"], arrays["lung"] > 0))
    show = lambda cells: print("| " + " | ".join(cells) + " |" if p.markdown else f"{cells[0]:32}" + " ".join(f"{c:>12}" for c in cells[1:]), flush=True)
    show(["choice", "mean Dice", "least", "windows", "seconds"])
    if p.markdown:
        show(["---"] * 5)
    for name, network, overlap, weight in choices:
        begun, scores, windows = time.monotonic(), [], 0
        for hu, lung in cases:
            logits, run = predict(network, hu, overlap, weight)
            scores.append(evaluate.dice(evaluate.two_largest(logits > 0), lung))
            windows += run
        seconds = (time.monotonic() - begun) / len(cases)
        show([name, f"{np.mean(scores):.4f}", f"{min(scores):.4f}", f"{windows / len(cases):.0f}", f"{seconds:.1f}"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
