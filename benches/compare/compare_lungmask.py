#!/usr/bin/env python3
"""compare_lungmask.py - lungmask's U-net (PyPI) and Hilum's default network on the same slices, on the same cores.

    compare_lungmask.py HILUM SERIES [--model NAME] [--repeat 5] [--threads 2]

lungmask runs with random weights (its own are fetched from elsewhere), so its figure is its preparation and its network over all slices, without its clean-up, whose time depends on
the mask, and without reading the CT. Hilum's are its stage `windows` and its whole program. Needs torch, SimpleITK and lungmask (`--no-deps` with scikit-image, fill-voids, tqdm,
more-itertools).
"""
import argparse, json, os, statistics, subprocess, tempfile, time
from pathlib import Path


def of_hilum(a):
    """Wall and processor seconds of the stage `windows`, and of the whole program."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        command = [a.hilum, "segment", a.series, "--out", out, "--device", "cpu", "--json", *(["--model", a.model] if a.model else [])]
        used = os.times()
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)["series"][0]
        wall, now = time.perf_counter() - begun, os.times()
        windows = next(s for s in report["timings"] if s["stage"] == "windows")
        return (windows["seconds"], windows["processor_seconds"]), (wall, sum(now[2:4]) - sum(used[2:4]))


def lungmask_of(a):
    import SimpleITK as sitk
    import torch
    from lungmask.mask import LMInferer
    from lungmask.resunet import UNet
    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "random.pth")
        torch.save(UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False).state_dict(), weights)
        inferer = LMInferer(modelpath=str(weights), force_cpu=True, volume_postprocessing=False, tqdm_disable=True)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(a.series))
    return inferer, reader.Execute()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum"), p.add_argument("series")
    p.add_argument("--model"), p.add_argument("--repeat", type=int, default=5), p.add_argument("--threads", type=int, default=os.cpu_count())
    a = p.parse_args()
    inferer, image = lungmask_of(a)
    theirs, windows, whole = [], [], []
    for _ in range(a.repeat):
        begun, used = time.perf_counter(), time.process_time()
        inferer.apply(image)
        theirs.append((time.perf_counter() - begun, time.process_time() - used))
        network, program = of_hilum(a)
        windows.append(network), whole.append(program)
    print("| what | s (processor) | lungmask to it |\n| --- | --- | --- |")
    slow = statistics.median(wall for wall, _ in theirs)
    for name, seen in (("lungmask's U-net, slice by slice", theirs), ("Hilum's network, all windows", windows), ("the whole of `hilum segment`", whole)):
        wall, processor = (statistics.median(column) for column in zip(*seen))
        print(f"| {name} | {wall:.2f} ({processor:.2f}) | {slow / wall:.1f} |")


if __name__ == "__main__":
    main()
