#!/usr/bin/env python3
"""compare_compressed.py - a series in lossless JPEG, JPEG-LS and JPEG 2000 read to HU by Hilum, pydicom and gdcm.

    compare_compressed.py HILUM SERIES OUT --small SERIES [--model NAME] [--repeat 3] [--kinds KIND...]

SERIES is uncompressed; its copies are made with dcmtk (JPEG lossless SV1, JPEG-LS) and gdcmconv (JPEG 2000) into OUT. Hilum's figure is the stage `read` of its report: with its decoders
in a child process, as for strangers' files, and in its own (`--trust-input`). pydicom decodes with pylibjpeg and pyjpegls, gdcm with its own decoders; each in a process
of its own whose imports are not timed, reading headers too. Wall and processor seconds are medians, since the peers mostly use one core and Hilum all. Processor seconds of Hilum
are the stage's where it decodes in its own process; the children's are those of the whole program less what it took with `--format json` and the same series uncompressed.

Peak memory is the sum of what the program and each of its decoders took at most, each for itself (VmHWM of /proc, looked at all the while): no less than they ever took together.
What the program takes with the network warm and next to no volume is that of the small series, uncompressed.
"""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KINDS = {"JPEG lossless": ["dcmcjpeg", "+e1"], "JPEG-LS": ["dcmcjpls"], "JPEG 2000": ["gdcmconv", "--j2k"]}


def copies(series, out, kinds):
    for kind in kinds:
        command = KINDS[kind]
        folder = out / kind.lower().replace(" ", "-")
        if not folder.exists():
            part = folder.with_suffix(".part")
            part.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda file: subprocess.run([*command, str(file), str(part / file.name)], check=True, stdout=subprocess.DEVNULL), sorted(series.iterdir())))
            part.rename(folder)
        for file in folder.iterdir():
            file.read_bytes()   # into the page cache
        yield kind, folder


def by_pydicom(folder):
    from compare_read import read_pydicom
    return lambda: read_pydicom(str(folder))


def by_gdcm(folder):
    import gdcm
    import numpy as np

    def read():
        slices = []
        for file in sorted(folder.iterdir()):
            reader = gdcm.ImageReader()
            reader.SetFileName(str(file))
            assert reader.Read(), file
            image = reader.GetImage()
            stored = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), "<i2" if image.GetPixelFormat().GetPixelRepresentation() else "<u2")
            slices.append(stored * np.float32(image.GetSlope()) + np.float32(image.GetIntercept()))
        return np.stack(slices)
    return read


def peer(name, folder, repeat):
    """Median wall and processor seconds of a peer, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "peer", name, str(folder), "--repeat", str(repeat)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["?"])[-1]
    return json.loads(done.stdout), ""


def run_peer(name, folder, repeat):
    read = {"pydicom": by_pydicom, "gdcm": by_gdcm}[name](Path(folder))
    wall, processor = [], []
    for _ in range(repeat):
        used, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        read()
        wall.append(time.perf_counter() - begun)
        now = resource.getrusage(resource.RUSAGE_SELF)
        processor.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    print(json.dumps([statistics.median(wall), statistics.median(processor)]))


def once(a, folder, more):
    """Wall and processor seconds of the stage `read`, and processor seconds of the whole program, decoders included, outside its stages."""
    with tempfile.TemporaryDirectory() as out:
        command = [a.hilum, "segment", str(folder), "--out", out, "--device", "cpu", "--json", "--format", "json", *more, *(["--model", a.model] if a.model else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        printed = process.stdout.read()
        _, process.returncode, used = os.wait4(process.pid, 0)
    if process.returncode:
        raise SystemExit(f"hilum ended with {process.returncode}")
    stages = json.loads(printed)["series"][0]["timings"]
    read = next(s for s in stages if s["stage"] == "read")
    return read["seconds"], read["processor_seconds"], used.ru_utime + used.ru_stime - sum(s["processor_seconds"] for s in stages)


def ours(a, folder, more, outside=None):
    """Median wall and processor seconds of `read`. Where `outside` (of a run without decoders) is given, what is more than that outside the stages was taken by decoders."""
    wall, inside, around = (statistics.median(column) for column in zip(*(once(a, folder, more) for _ in range(a.repeat))))
    return wall, inside + (max(0.0, around - outside) if outside is not None else 0.0)


def tree(root):
    """The processes that come from this one, itself among them."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # The name of the program, in brackets, may hold spaces.
                parents[int(entry)] = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                pass   # it has ended
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def peak(a, folder, more=()):
    """MiB that the program took at most, and its decoders, each for itself; how many decoders; and the volume of 16 bits."""
    with tempfile.TemporaryDirectory() as out:
        command = [a.hilum, "segment", str(folder), "--out", out, "--device", "cpu", "--json", "--format", "json", *more, *(["--model", a.model] if a.model else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        highest, ended = {}, threading.Event()

        def watch():
            while not ended.wait(0.01):
                for pid in tree(process.pid):
                    try:
                        lines = Path("/proc", str(pid), "status").read_text().splitlines()
                        highest[pid] = max(highest.get(pid, 0), next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024)
                    except (OSError, StopIteration):
                        pass   # it has ended
        watching = threading.Thread(target=watch)
        watching.start()
        printed = process.stdout.read()
        ended.set(), watching.join()
        if process.wait():
            raise SystemExit(f"hilum ended with {process.returncode}")
    slices, rows, columns = json.loads(printed)["series"][0]["volume"]["shape"]
    program = highest.pop(process.pid)
    return program, sum(highest.values()), len(highest), 2 * slices * rows * columns / 2**20


def memory(a, folders):
    """Prints the peak of each copy, in children and in the program itself, above that of next to no volume."""
    warm = statistics.median(peak(a, a.small)[0] for _ in range(a.repeat))
    print("\n| coded as | decoders | peak MiB of the program | of its decoders | above next to no volume | times the volume of 16 bits |\n| --- | --- | --- | --- | --- | --- |")
    rows = {"warm_mib": warm}
    for kind, folder in folders.items():
        for where, more in (("children", ()), ("in its own process", ("--trust-input",))):
            runs = [peak(a, folder, more) for _ in range(a.repeat)]
            program, decoders, count, volume = (statistics.median(column) for column in zip(*runs))
            above = program + decoders - warm
            rows[f"{kind}, {where}"] = {"program_mib": program, "decoders_mib": decoders, "decoders": count, "volume_mib": volume, "times": above / volume}
            print(f"| {kind} | {where} ({count:.0f}) | {program:.0f} | {decoders:.0f} | {above:.0f} | {above / volume:.2f} |", flush=True)
    print(f"\n{warm:.0f} MiB with the network warm and next to no volume; the volume of 16 bits has {volume:.0f} MiB")
    return rows


def main():
    if sys.argv[1:2] == ["peer"]:
        return run_peer(sys.argv[2], sys.argv[3], int(sys.argv[5]))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum"), p.add_argument("series", type=Path), p.add_argument("out", type=Path)
    p.add_argument("--model"), p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    p.add_argument("--small", type=Path, required=True, help="a series of next to no volume, uncompressed")
    a = p.parse_args()
    rows, folders = {}, {}
    outside = statistics.median(once(a, a.series, [])[2] for _ in range(a.repeat))
    print("| coded as | Hilum s (processor) | in its own process | pydicom s (processor) | gdcm s (processor) | ratios |\n| --- | --- | --- | --- | --- | --- |")
    for kind, folder in copies(a.series, a.out, a.kinds):
        folders[kind] = folder
        child, own = ours(a, folder, [], outside), ours(a, folder, ["--trust-input"])
        peers = {name: peer(name, folder, a.repeat) for name in ("pydicom", "gdcm")}
        rows[kind] = {"hilum": child, "hilum_trust": own, **{name: found for name, (found, _) in peers.items()}}
        cells = [f"{found[0]:.2f} ({found[1]:.2f})" if found else f"not read: {why}" for found, why in peers.values()]
        ratios = ", ".join(f"{found[0] / child[0]:.1f}" if found else "-" for found, _ in peers.values())
        print(f"| {kind} | {child[0]:.2f} ({child[1]:.2f}) | {own[0]:.2f} ({own[1]:.2f}) | {cells[0]} | {cells[1]} | {ratios} |", flush=True)
    rows["memory"] = memory(a, folders)
    (a.out / "compressed.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
