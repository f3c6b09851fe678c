#!/usr/bin/env python3
"""stages.py - seconds of each stage of `hilum segment`, out of its own reports, and the ratios to peers timed in the same call.

    stages.py HILUM SERIES OUT --small SERIES [--model NAME] [--repeat 5]     runs the program, writes OUT/stages.json
    stages.py HILUM SERIES OUT --ratios                                       prints OUT/stages.json beside OUT/compare_read.json and OUT/compare_seg.json

Peak memory is the whole process's (ru_maxrss). What it takes with the network warm and next to no volume is that of the small series.
"""
import argparse, json, os, statistics, subprocess, tempfile, time
from pathlib import Path

# Making the segmentation, as the report tells, and writing it as the program does after that: peers are timed with both.
WRITTEN = "segmentation.dcm, made and written"
READ = "read, headers included"   # the stage, and before it `hilum inspect`: a whole program that reads all headers, sorts and judges them

# A stage, the peer's name, and how many times faster the stage should be.
PEERS = [(READ, "to_nii_dcm2niix", 2), (READ, "read_SimpleITK_ImageSeriesReader", 4), ("resample", "resample_SimpleITK_linear_f32", 3),
         ("resample", "resample_MONAI_Spacing_bilinear", 20), ("mask_back", "maskback_SimpleITK_linear_2x_cut", 15),
         (WRITTEN, "hd_binary_full", 10), (WRITTEN, "dcmqi_binary_full", 10)]
NETWORK = "windows"


def seconds_to_write(path):
    """Seconds that a file of the same bytes takes, written beside it under another name and renamed, as `hilum segment` writes."""
    content = path.read_bytes()
    begun = time.perf_counter()
    with open(path.with_suffix(".part"), "wb", buffering=0) as file:
        file.write(content)
    os.replace(path.with_suffix(".part"), path.with_suffix(".again"))
    return time.perf_counter() - begun


def once(a, series, formats):
    """Seconds by stage and by file, wall and processor seconds of the whole, peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [a.hilum, "segment", series, "--out", folder, "--device", "cpu", "--json", "--segments", "left-right", "--format", formats]
        command += ["--model", a.model] if a.model else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        report = json.loads(process.stdout.read())["series"][0]
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = status
        if status:
            raise SystemExit(f"hilum ended with {status}")
        written = seconds_to_write(next(Path(folder).glob("*/segmentation.dcm")))
    seconds = {s["stage"]: s["seconds"] for s in report["timings"]}
    seconds |= {f["name"]: f["seconds"] for f in report["files"]} | {f["name"] + ", read back": f["verified_seconds"] for f in report["files"] if "verified_seconds" in f}
    rest = sum(s["seconds"] for s in report["timings"] if s["stage"] != NETWORK)
    begun = time.perf_counter()
    subprocess.run([a.hilum, "inspect", series, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    seconds[READ] = seconds["read"] + time.perf_counter() - begun
    seconds[WRITTEN] = seconds["segmentation.dcm"] + written
    slices, rows, columns = report["volume"]["shape"]
    return {**seconds, "not_the_network": rest, "whole": wall, "processor": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024,
            "volume_mib": 2 * slices * rows * columns / 2**20}


def measure(a):
    warm = statistics.median(once(a, a.small, "seg,nifti,png,json")["peak_mib"] for _ in range(3))
    runs = [once(a, a.series, "seg,nifti,png,json") for _ in range(a.repeat + 1)][1:]
    alone = [once(a, a.series, "seg") for _ in range(a.repeat)]
    median = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
    # Files are made side by side: what the segmentation takes is told where it is made alone.
    median |= {k: statistics.median(r[k] for r in alone) for k in alone[0] if k.startswith("segmentation")}
    median["warm_mib"] = warm
    Path(a.out, "stages.json").write_text(json.dumps({"median": median, "runs": runs, "repeat": a.repeat}, indent=1) + "\n")
    print("| stage of hilum | median s |\n| --- | --- |")
    for name, value in median.items():
        if not name.endswith("_mib"):
            print(f"| {name} | {value:.3f} |")
    above = median["peak_mib"] - warm
    print(f"\npeak memory {median['peak_mib']:.0f} MiB, {warm:.0f} MiB with the network warm and next to no volume: {above:.0f} MiB above it, "
          f"{above / median['volume_mib']:.2f} times the volume of 16 bits ({median['volume_mib']:.0f} MiB)")


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
p.add_argument("--small"), p.add_argument("--model"), p.add_argument("--repeat", type=int, default=5), p.add_argument("--ratios", action="store_true")
a = p.parse_args()
ratios(a) if a.ratios else measure(a)
