#!/usr/bin/env python3
"""stages.py - seconds of each stage of `hilum segment`, out of its own reports, and the ratios to peers timed in the same call.

    stages.py HILUM SERIES OUT [--repeat 5]     runs the program, writes OUT/stages.json
    stages.py HILUM SERIES OUT --ratios         prints OUT/stages.json beside OUT/compare_read.json and OUT/compare_seg.json

The peak memory is the whole process's (ru_maxrss), to be held against the volume of 16 bits and the resident size with the network warm.
"""
import argparse, json, resource, statistics, subprocess, tempfile, time
from pathlib import Path

# A stage, the peer's name, and how many times faster the stage should be.
PEERS = [("read", "to_nii_dcm2niix", 2), ("read", "read_SimpleITK_ImageSeriesReader", 4), ("resample", "resample_SimpleITK_linear_f32", 3),
         ("resample", "resample_MONAI_Spacing_bilinear", 20), ("mask_back", "maskback_SimpleITK_linear_2x_cut", 15),
         ("segmentation", "hd_binary_full", 10), ("segmentation", "dcmqi_binary_full", 10)]


def once(hilum, series, formats):
    """Seconds by stage, wall and processor seconds of the whole, peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.perf_counter()
        command = [hilum, "segment", series, "--out", folder, "--device", "cpu", "--json", "--segments", "left-right", "--format", formats]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)["series"][0]
        wall = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    stages = {s["stage"]: s["seconds"] for s in report["timings"]}
    return {**stages, "whole": wall, "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "peak_mib": after.ru_maxrss / 1024}


def measure(a):
    runs = [once(a.hilum, a.series, "seg,nifti,png,json") for _ in range(a.repeat + 1)][1:]
    seg = [once(a.hilum, a.series, "seg")["outputs"] for _ in range(a.repeat)]
    median = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
    median["segmentation"] = statistics.median(seg)
    median["not_the_network"] = statistics.median(sum(r[k] for k in ("read", "resample", "mask_back", "clean_up", "measure", "outputs")) for r in runs)
    Path(a.out, "stages.json").write_text(json.dumps({"median": median, "runs": runs, "repeat": a.repeat}, indent=1) + "\n")
    print("| stage of hilum | median s |\n| --- | --- |")
    for name, value in median.items():
        print(f"| {name} | {value:.3f} |" if name != "peak_mib" else f"| peak memory | {value:.0f} MiB |")


def ratios(a):
    ours = json.loads(Path(a.out, "stages.json").read_text())["median"]
    peers = {}
    for name in ("compare_read.json", "compare_seg.json"):
        path = Path(a.out, name)
        peers.update(json.loads(path.read_text()) if path.exists() else {})
    print("| stage | Hilum s | peer | peer s | ratio | goal |\n| --- | --- | --- | --- | --- | --- |")
    for stage, peer, goal in PEERS:
        seen = peers.get(peer, {})
        if "t" not in seen:
            print(f"| {stage} | {ours[stage]:.3f} | {peer} | not there: {seen.get('skip') or seen.get('error') or 'not run'} | - | {goal} |")
            continue
        theirs = statistics.median(seen["t"])
        print(f"| {stage} | {ours[stage]:.3f} | {peer} | {theirs:.3f} | {theirs / ours[stage]:.1f} | {goal} |")


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("hilum"), p.add_argument("series"), p.add_argument("out")
p.add_argument("--repeat", type=int, default=5), p.add_argument("--ratios", action="store_true")
a = p.parse_args()
ratios(a) if a.ratios else measure(a)
