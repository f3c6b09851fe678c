#!/usr/bin/env python3
"""stages.py - seconds of each stage of `hilum segment`, out of its own reports, and the ratios to peers timed in the same call.

    stages.py HILUM SERIES OUT --small SERIES [--model NAME] [--repeat 5]     runs the program, writes OUT/stages.json
    stages.py HILUM SERIES OUT --ratios                                       prints OUT/stages.json beside OUT/compare_read.json and OUT/compare_seg.json

Processor seconds stand beside wall seconds, since Hilum's stages use all cores and some peers use one. Peak memory is the whole process's (ru_maxrss). What it takes with the network warm and next to no volume is that of the small series.
"""
import argparse, json, os, statistics, subprocess, tempfile, time
from pathlib import Path

# Making the segmentation, as the report tells, and writing it as the program does after that: peers are timed with both. Reading it back and comparing it is Hilum's alone.
WRITTEN = "segmentation.dcm, made and written"
CHECKED = "segmentation.dcm, made, read back and written"
STAGES = "all stages but the network"
REST = "the whole program less the stage of the network"   # start, headers, opening and warming the network and the writing of files included
READ = "read, headers included"   # the stage, and before it `hilum inspect`: a whole program that reads all headers, sorts and judges them

# A stage, the peer's name, and how many times faster the stage should be.
PEERS = [(READ, "to_nii_dcm2niix", 2), (READ, "read_SimpleITK_ImageSeriesReader", 4), ("resample", "resample_SimpleITK_linear_f32", 3),
         ("resample", "resample_MONAI_Spacing_bilinear", 20), ("mask_back", "maskback_SimpleITK_linear_2x_cut", 15),
         (WRITTEN, "hd_binary_full", 10), (WRITTEN, "dcmqi_binary_full", 10), (CHECKED, "hd_binary_full", None), (CHECKED, "dcmqi_binary_full", None)]
NETWORK = "windows"


def timed(work):
    """Wall and processor seconds that `work()` takes, those of the programs that it ran included."""
    used, begun = os.times(), time.perf_counter()
    work()
    wall, now = time.perf_counter() - begun, os.times()
    return wall, sum(now[:4]) - sum(used[:4])


def write_again(path):
    """A file of the same bytes, written beside it under another name and renamed, as `hilum segment` writes."""
    content = path.read_bytes()

    def write():
        with open(path.with_suffix(".part"), "wb", buffering=0) as file:
            file.write(content)
        os.replace(path.with_suffix(".part"), path.with_suffix(".again"))
    return timed(write)


def once(a, series, formats):
    """(wall, processor) seconds by stage and, where it is made alone, of the segmentation; of the whole program; MiB."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        command = [a.hilum, "segment", series, "--out", folder, "--device", "cpu", "--json", "--segments", "left-right", "--format", formats]
        command += ["--model", a.model] if a.model else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        report = json.loads(process.stdout.read())["series"][0]
        _, status, used = os.wait4(process.pid, 0)
        whole = (time.perf_counter() - begun, used.ru_utime + used.ru_stime)
        process.returncode = status
        if status:
            raise SystemExit(f"hilum ended with {status}")
        written = write_again(next(Path(folder).glob("*/segmentation.dcm")))
    taken = {s["stage"]: (s["seconds"], s["processor_seconds"]) for s in report["timings"]}
    inspected = timed(lambda: subprocess.run([a.hilum, "inspect", series, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True))
    taken[READ] = plus(taken["read"], inspected)
    taken[STAGES] = plus(*(t for stage, t in taken.items() if stage not in (NETWORK, READ)))
    taken["the whole program"] = whole
    taken[REST] = tuple(all_of - network for all_of, network in zip(whole, taken[NETWORK]))
    if formats == "seg":
        # The one file of the stage `outputs`: made, written and read back. Making and reading back are told apart in wall seconds alone.
        file = next(f for f in report["files"] if f["name"] == "segmentation.dcm")
        taken[CHECKED] = plus((file["seconds"] + file["verified_seconds"], taken["outputs"][1]), written)
        taken[WRITTEN] = plus((file["seconds"], None), written)
    slices, rows, columns = report["volume"]["shape"]
    return {"taken": taken, "peak_mib": used.ru_maxrss / 1024, "volume_mib": 2 * slices * rows * columns / 2**20}


def plus(*pairs):
    return tuple(None if None in column else sum(column) for column in zip(*pairs))


def medians(runs):
    return {stage: [None if None in column else statistics.median(column) for column in zip(*(r["taken"][stage] for r in runs))] for stage in runs[0]["taken"]}


def measure(a):
    warm = statistics.median(once(a, a.small, "seg,nifti,png,json")["peak_mib"] for _ in range(a.repeat))
    runs = [once(a, a.series, "seg,nifti,png,json") for _ in range(a.repeat + 1)][1:]
    # Files are made side by side: what the segmentation takes is told where it is made alone.
    alone = [once(a, a.series, "seg") for _ in range(a.repeat)]
    median = medians(runs) | {k: v for k, v in medians(alone).items() if k in (WRITTEN, CHECKED)}
    Path(a.out, "stages.json").write_text(json.dumps({"median": median, "runs": runs, "alone": alone, "repeat": a.repeat}, indent=1) + "\n")
    print("| stage of hilum | median s | processor s |\n| --- | --- | --- |")
    for name, (wall, processor) in median.items():
        print(f"| {name} | {wall:.3f} | {'' if processor is None else f'{processor:.2f}'} |")
    peak, volume = (statistics.median(r[k] for r in runs) for k in ("peak_mib", "volume_mib"))
    print(f"\npeak memory {peak:.0f} MiB, {warm:.0f} MiB with the network warm and next to no volume: {peak - warm:.0f} MiB above it, "
          f"{(peak - warm) / volume:.2f} times the volume of 16 bits ({volume:.0f} MiB)")


def ratios(a):
    ours = json.loads(Path(a.out, "stages.json").read_text())["median"]
    peers = {}
    for name in ("compare_read.json", "compare_seg.json"):
        path = Path(a.out, name)
        peers.update(json.loads(path.read_text()) if path.exists() else {})
    told = lambda wall, processor: f"{wall:.3f}" + ("" if processor is None else f" ({processor:.2f})")
    print("| stage | Hilum s (processor) | peer | peer s (processor) | ratio | goal |\n| --- | --- | --- | --- | --- | --- |")
    for stage, peer, goal in PEERS:
        seen = peers.get(peer, {})
        mine = told(*ours[stage])
        if "t" not in seen:
            print(f"| {stage} | {mine} | {peer} | not there: {seen.get('skip') or seen.get('error') or 'not run'} | - | {goal or '-'} |")
            continue
        theirs, processor = (statistics.median(seen[k]) for k in ("t", "cpu"))
        print(f"| {stage} | {mine} | {peer} | {told(theirs, processor)} | {theirs / ours[stage][0]:.1f} | {goal or '-'} |")


p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("hilum"), p.add_argument("series"), p.add_argument("out")
p.add_argument("--small"), p.add_argument("--model"), p.add_argument("--repeat", type=int, default=5), p.add_argument("--ratios", action="store_true")
a = p.parse_args()
ratios(a) if a.ratios else measure(a)
