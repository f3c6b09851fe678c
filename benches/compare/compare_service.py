"""The service beside Orthanc, in one run on one machine: how fast a CT of 300 slices is stored, and how long until its segmentation is back.

    compare_service.py HILUM [--repeat 5] [--series 20] [--out FOLDER]

Both servers listen on loopback with folders of their own, both sync to disk before they answer (Orthanc's SyncStorageArea is on by default), runs alternate. Orthanc needs
`.runtime/loopback.so` (scripts/setup.sh demo). Writes figures as JSON and prints a table: medians, ratios, resident memory.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOUNDARY = "hilum-bench-" + "0" * 48


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(ask, seconds=120, otherwise=None):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            answer = ask()
            if answer is not None and answer is not False:
                return answer
        except OSError:
            pass
        time.sleep(0.02)
    if otherwise:
        otherwise.end()
    sys.exit("waited in vain")


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return json.load(answer)


def resident_mib(pid, key="VmHWM"):
    return int(re.search(key + r":\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


class Server:
    def __init__(self, command, log, **more):
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def orthanc(folder, log, hilum_port=None):
    """With `hilum_port`, the forwarding rule of config/orthanc sends to it."""
    port = free_port()
    configuration = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": port, "DicomServerEnabled": False, "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False, "StableAge": 1, "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    if hilum_port:
        configuration["LuaScripts"] = [str(ROOT / "config/orthanc/hilum.lua")]
        configuration["DicomWeb"]["Servers"] = {
            "hilum": {"Url": f"http://127.0.0.1:{hilum_port}/dicom-web/", "Timeout": 600, "HttpHeaders": {"X-Hilum-Source": "orthanc"}}}
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    server = Server(["Orthanc", str(file)], log, env={**os.environ, "LD_PRELOAD": str(ROOT / ".runtime/loopback.so")}, cwd=folder)
    until(lambda: get(port, "/system"), otherwise=server)
    return server, port


def hilum(program, folder, log, roles, pacs_port=None, more="", database=None, port=None):
    """Without an address of a database, with a private one. Several over one `database` share the data folder of `folder`."""
    port = port or free_port()
    text = f'[service]\nlisten = "127.0.0.1:{port}"\ndata_folder = "{folder}/data"\n[inbox]\ndisk_watermark = 1.0\n'
    if pacs_port:
        text += f'[[pacs]]\nname = "orthanc"\nurl = "http://127.0.0.1:{pacs_port}/dicom-web"\n'
    text += more
    file = folder / f"hilum-{port}.toml"
    file.write_text(text)
    environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"} | ({"DATABASE_URL": database} if database else {})
    server = Server([program, "--config", str(file), "serve", "--roles", roles], log, env=environment, cwd=ROOT)
    until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).status == 200, otherwise=server)
    return server, port


def phantom(program, folder, *more):
    """The files of a phantom's slices that `hilum phantom` writes to `folder`."""
    subprocess.run([program, "phantom", "--out", str(folder), "--seed", "3", *more], check=True, stdout=subprocess.DEVNULL)
    return [f.read_bytes() for f in sorted((folder / "ct").iterdir())]


def uids_of(file):
    """(study, series) as they stand in the file, without padding."""
    return tuple(re.search(rb"\x20\x00" + tag + rb"\x00UI..([0-9.]+)", file, re.S).group(1) for tag in (b"\x0d", b"\x0e"))


def another(uid, number):
    """A UID as long as the one that it stands for, so that it can be put in its place."""
    return uid[:-6] + b"%06d" % number


def text_of(uid):
    """A UID without what fills it up."""
    return uid.decode().rstrip(chr(0))


def renamed(files, number):
    """The same slices as another series of another study."""
    study, series = uids_of(files[0])
    return [f.replace(study, another(study, number)).replace(series, another(series, number)) for f in files]


def body_of(files, old=b"", new=b""):
    parts = []
    for file in files:
        parts += [f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode(), file.replace(old, new) if old else file, b"\r\n"]
    return b"".join(parts) + f"--{BOUNDARY}--".encode()


def stow(port, body, headers={}):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    begun = time.perf_counter()
    connection.request("POST", "/dicom-web/studies", body, {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}', "Accept": "application/dicom+json", **headers})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    seconds = time.perf_counter() - begun
    connection.close()
    if answer.status != 200:
        sys.exit(f"{answer.status}: {content}")
    return seconds, len(content["00081199"]["Value"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum")
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--series", type=int, default=20)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    program = str(Path(a.hilum).resolve())
    work = Path(tempfile.mkdtemp(prefix="hilum-bench-", dir="/tmp"))
    work.chmod(0o711)
    figures = {"repeat": a.repeat, "load": os.getloadavg()[0]}
    servers = []
    try:
        large = phantom(program, work / "large", "--matrix", "512", "512", "--slices", "300", "--spacing", "0.7", "0.7", "1.0")
        small = phantom(program, work / "small", "--small")
        study, small_study = (uids_of(files[0])[0] for files in (large, small))
        log = open(work / "log", "wb")
        (work / "a").mkdir(), (work / "b").mkdir()
        pacs, pacs_port = orthanc(work / "a", log)
        servers.append(pacs)
        service, port = hilum(program, work / "b", log, "receive")
        servers.append(service)

        times = {"orthanc": [], "hilum": []}
        for turn in range(a.repeat):
            body = body_of(large, study, another(study, turn))
            for where, to in (("orthanc", pacs_port), ("hilum", port)):
                seconds, referenced = stow(to, body)
                assert referenced == len(large)
                times[where].append(seconds)
        megabytes = len(body) / 1e6
        figures["stow"] = {"megabytes": megabytes, **{where: statistics.median(t) for where, t in times.items()}, "all": times}
        figures["stow"]["ratio"] = figures["stow"]["orthanc"] / figures["stow"]["hilum"]
        figures["resident_mib"] = resident_mib(service.process.pid)
        print(f"store {megabytes:.0f} MB: Orthanc {figures['stow']['orthanc']:.2f} s, Hilum {figures['stow']['hilum']:.2f} s: {figures['stow']['ratio']:.1f} times"
              f"; Hilum resident at most {figures['resident_mib']:.0f} MiB")

        studies = [another(small_study, 1000 + n) for n in range(16)]
        bodies = [body_of(small, small_study, study) for study in studies]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            begun = time.perf_counter()
            stored = sum(n for _, n in pool.map(lambda b: stow(port, b), bodies))
            seconds = time.perf_counter() - begun
        # What was acknowledged is also what is held.
        held = sum(one["instances"] for study in studies for one in get(port, f"/api/v1/series?study={text_of(study)}")["series"])
        figures["senders_16"] = {"seconds": seconds, "sent": 16 * len(small), "stored": stored, "held": held}
        print(f"16 senders at once: of {16 * len(small)} instances {stored} acknowledged and {held} held in {seconds:.2f} s")
        assert held == stored == 16 * len(small)
        service.end()
        servers.remove(service)

        (work / "c").mkdir()
        service, port = hilum(program, work / "c", log, "receive,work,deliver", pacs_port)
        servers.append(service)
        waits = []
        for number in range(a.series):
            uid = another(small_study, 2000 + number)
            body = body_of(small, small_study, uid)
            stow(port, body, {"X-Hilum-Series-Complete": "true", "X-Hilum-Source": "orthanc"})
            begun = time.perf_counter()
            path = f"/dicom-web/studies/{text_of(uid)}/series?Modality=SEG"
            until(lambda: get(pacs_port, path) or None)
            waits.append(time.perf_counter() - begun)
        starts = sorted(
            (datetime.fromisoformat(job["started_at"]) - datetime.fromisoformat(get(port, job["links"]["series"])["settled_at"])).total_seconds()
            for job in get(port, f"/api/v1/jobs?limit={a.series}")["jobs"])
        figures["settled_to_job_start"] = {"p50": statistics.median(starts), "longest": starts[-1], "all": starts}
        print(f"settled until its job starts: p50 {1000 * statistics.median(starts):.0f} ms, longest {1000 * starts[-1]:.0f} ms")
        waits.sort()
        figures["last_slice_to_segmentation"] = {"p50": statistics.median(waits), "p95": waits[max(0, round(0.95 * len(waits)) - 1)], "all": waits}
        print(f"last slice to SEG seen in Orthanc (192 x 192 x 60), {a.series} series: p50 {figures['last_slice_to_segmentation']['p50']:.2f} s, "
              f"p95 {figures['last_slice_to_segmentation']['p95']:.2f} s")
        figures["resident_mib_whole"] = resident_mib(service.process.pid)
        if a.out:
            a.out.mkdir(parents=True, exist_ok=True)
            (a.out / "service.json").write_text(json.dumps(figures, indent=1))
    finally:
        for server in servers:
            server.end()
        if os.environ.get("KEEP"):
            print(work)
        else:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
