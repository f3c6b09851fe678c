"""Varied phantoms to train on or to measure with: a seed draws the chest, its diseases and its scanner, `hilum phantom` makes it.

    phantoms.py --hilum HILUM --out DIR FIRST LAST

DIR/phantom_SEED/ gets `ct/`, `mask.nii.gz` and `phantom.json`, as `prepare.py` and `performance.py` take them. One in six is
healthy, the others have one to three diseases of any degree.
"""
import argparse
import subprocess
from pathlib import Path

import numpy as np

DISEASES = ("ground-glass", "consolidation", "fibrosis", "emphysema", "effusion", "nodules", "masses")


def settings(seed):
    """Arguments of `hilum phantom`."""
    rng = np.random.default_rng(seed)
    # The network's own spacing: what other slices do to a chest, `augment.py` does.
    drawn = ["--seed", str(seed), "--spacing", "0.8", "0.8", "5", "--noise", f"{rng.uniform(4, 30):.0f}"]
    drawn += ["--kernel", str(rng.choice(["smooth", "standard", "sharp"])), "--position", str(rng.choice(["supine", "supine", "supine", "prone"]))]
    drawn += ["--contrast"] if rng.random() < 0.4 else []
    drawn += ["--bowel-gas", f"{rng.uniform(0.2, 1):.2f}"] if rng.random() < 0.6 else []
    if rng.random() < 5 / 6:
        for disease in rng.choice(DISEASES, size=rng.integers(1, 4), replace=False):
            drawn += [f"--{disease}", f"{rng.uniform(0.15, 1):.2f}"]
    return drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--hilum", default="hilum", help="the program")
    parser.add_argument("--out", type=Path, required=True)
    p = parser.parse_args()
    for seed in range(p.first, p.last + 1):
        command = [p.hilum, "phantom", "--out", str(p.out / f"phantom_{seed}"), *settings(seed)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(seed, *command[6:], flush=True)


if __name__ == "__main__":
    main()
