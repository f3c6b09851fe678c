"""What the service costs beside the core: processor time a job, with a network that does nothing.

    queue_cost.py HILUM [--jobs 100] [--out FILE]

The network answers "no lung" without looking (its graph is made here, with the package `onnx`), so that what is left is receiving, the queue, reading, resampling and the
report. The same small series, each under UIDs of its own, go through `hilum serve` with its private PostgreSQL and through `hilum segment` on folders; processor time is that
of the service and all its children, PostgreSQL's among them, from the first upload until the last job is over. Their difference is what the service costs.
"""
import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compare_service import ROOT, body_of, get, hilum, phantom, renamed, stow, until

TICK = os.sysconf("SC_CLK_TCK")


def nothing(folder):
    """A manifest like the shipped network's, whose graph says -20 everywhere."""
    shape = [1, 1, 32, 224, 224]
    zero, far = (numpy_helper.from_array(np.float32(v), name) for name, v in (("zero", 0), ("far", 20)))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "zero"], ["nothing"]), helper.make_node("Sub", ["nothing", "far"], ["logits"])], "nothing",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)], [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)], [zero, far])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "nothing.onnx").write_bytes(model.SerializeToString())
    digest = hashlib.sha256((folder / "nothing.onnx").read_bytes()).hexdigest()
    manifest = (ROOT / "onnx/hilum-ahnet-lung-tiny.toml").read_text().replace("hilum-ahnet-lung-tiny", "nothing")
    first, rest = manifest.split("[[graph]]", 1)
    _, tail = rest.split("[input]", 1)
    (folder / "nothing.toml").write_text(f'{first}[[graph]]\nfile = "nothing.onnx"\nsha256 = "{digest}"\ndevices = ["cpu"]\n\n[input]{tail}')
    return folder / "nothing.toml"


def family(pid):
    parents = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                parents[int(process.name)] = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    found = {pid}
    while True:
        more = {p for p, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def processor_seconds(pid):
    """(of the process, of all its descendants) with those that have ended."""
    def of(process):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0, 0
        return sum(map(int, fields[11:13])) / TICK, sum(map(int, fields[13:15])) / TICK
    own, ended = of(pid)
    return own, ended + sum(sum(of(child)) for child in family(pid) - {pid})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum")
    p.add_argument("--jobs", type=int, default=100)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    program = str(Path(a.hilum).resolve())
    with tempfile.TemporaryDirectory(prefix="hilum-cost-") as name:
        work = Path(name)
        work.chmod(0o711)
        files = phantom(program, work / "one", "--small")
        model = f'[model]\nname = "{nothing(work)}"\n'

        (work / "core").mkdir()
        for number in range(a.jobs):
            (work / "core" / str(number)).mkdir()
            for index, content in enumerate(renamed(files, number)):
                (work / "core" / str(number) / f"{index}.dcm").write_bytes(content)
        (work / "core.toml").write_text(model)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.perf_counter()
        subprocess.run([program, "--config", str(work / "core.toml"), "segment", str(work / "core"), "--out", str(work / "results")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        core = {"processor": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / a.jobs, "wall": (time.perf_counter() - begun) / a.jobs}

        log = open(work / "log", "wb")
        (work / "service").mkdir()
        service, port = hilum(program, work / "service", log, "receive,work,deliver", more=model)
        try:
            own, others = processor_seconds(service.process.pid)
            begun = time.perf_counter()
            for number in range(a.jobs):
                stow(port, body_of(renamed(files, number)), {"X-Hilum-Series-Complete": "true"})
            count = lambda state: sum(len(get(port, f"/api/v1/jobs?limit=200&state={s}")["jobs"]) for s in state)
            until(lambda: count(["done", "failed", "refused"]) >= min(a.jobs, 200), 600, service)
            wall = (time.perf_counter() - begun) / a.jobs
            states = {s: count([s]) for s in ("done", "failed", "refused")}
            own_after, others_after = processor_seconds(service.process.pid)
        finally:
            service.end()
        whole = {"hilum": (own_after - own) / a.jobs, "children": (others_after - others) / a.jobs, "wall": wall}
        figures = {"jobs": a.jobs, "states": states, "core": core, "service": whole, "load": os.getloadavg()[0]}
        print(f"{a.jobs} jobs ({states}), milliseconds each:")
        print(f"  hilum segment on folders: {1000 * core['processor']:.1f} of processor time, {1000 * core['wall']:.1f} wall")
        print(f"  hilum serve:              {1000 * whole['hilum']:.1f} of processor time, {1000 * whole['children']:.1f} in PostgreSQL and decoders, {1000 * wall:.1f} wall")
        print(f"  the service beside the core: {1000 * (whole['hilum'] + whole['children'] - core['processor']):.1f} of processor time a job of {len(files)} slices")
        if a.out:
            a.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    sys.exit(main())
