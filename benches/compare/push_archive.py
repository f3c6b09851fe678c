"""Folders of DICOM files through a real Orthanc and its forwarding rule; the fate of every series as a table.

    push_archive.py HILUM FOLDER... [--seconds 1800] [--out FILE]

A fresh Orthanc with config/orthanc/hilum.lua and a fresh Hilum on loopback; every file below the folders is stored in Orthanc, as a modality would. For each CT series there the
table says what Hilum made of it (state, code, slices, volume, seconds from the job's start to its end), whether Orthanc lists a SEG that is Hilum's answer, and what was
written at the series in Orthanc. Exits 1 where a CT series of Orthanc has no fate, a job failed, a done job has no SEG, or there is one SEG too many.
"""
import argparse
import collections
import json
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path

from compare_service import free_port, get, hilum, orthanc, until

OVER = ("done", "refused", "failed", "canceled")


def post(port, path, content):
    """The answer, or None where Orthanc does not take it (not DICOM)."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", content), timeout=120) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        return None


def everything(port, what):
    found, cursor = [], ""
    while True:
        page = get(port, f"/api/v1/{what}?limit=200{cursor}")
        found += page[what]
        if not page.get("next"):
            return found
        cursor = f"&cursor={page['next']}"


def settled(port, wanted):
    """Every series that Orthanc has is here and over, and so are its deliveries."""
    series = {s["series_uid"]: s for s in everything(port, "series")}
    if not set(wanted) <= set(series) or any(s["state"] in ("receiving", "settled") for s in series.values()):
        return False
    jobs = [job for job in everything(port, "jobs") if job["newest"]]
    return all(job["state"] in OVER and all(d["state"] not in ("pending", "sending") for d in job["deliveries"]) for job in jobs)


def seconds_of(job):
    if not job.get("started_at") or not job.get("finished_at"):
        return None
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()


def codes(job):
    """Codes of both verdicts, or why there is none."""
    found = [job["error"]["code"]] if job["error"] else []
    found += [f["code"] for f in (job["verdict"] or {}).get("findings", [])] + [f["code"] for f in job["mask_findings"] or []]
    return " ".join(dict.fromkeys(found))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum")
    p.add_argument("folders", nargs="+", type=Path)
    p.add_argument("--seconds", type=int, default=1800, help="how long to wait for the last fate")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    work = Path(tempfile.mkdtemp(prefix="hilum-archive-", dir="/tmp"))
    work.chmod(0o711)
    servers, log = [], open(work / "log", "wb")
    try:
        (work / "orthanc").mkdir(), (work / "hilum").mkdir()
        port = free_port()
        pacs, pacs_port = orthanc(work / "orthanc", log, hilum_port=port)
        servers.append(pacs)
        service, _ = hilum(str(Path(a.hilum).resolve()), work / "hilum", log, "receive,work,deliver", pacs_port, port=port,
                           more=f'orthanc_url = "http://127.0.0.1:{pacs_port}"\n')
        servers.append(service)
        names, taken, dropped = {}, 0, 0
        for folder in a.folders:
            for file in sorted(f for f in folder.rglob("*") if f.is_file()):
                answer = post(pacs_port, "/instances", file.read_bytes())
                if not answer:
                    dropped += 1
                    continue
                taken += 1
                inside = file.relative_to(folder).parts
                names.setdefault(answer["ParentSeries"], folder.name if inside[0] in ("ct", file.name) else f"{folder.name}/{inside[0]}")
        print(f"{taken} files stored in Orthanc, {dropped} not taken by it (no DICOM)", flush=True)
        in_orthanc = {s["MainDicomTags"]["SeriesInstanceUID"]: s for s in get(pacs_port, "/series?expand")}
        wanted = [uid for uid, s in in_orthanc.items() if s["MainDicomTags"].get("Modality") == "CT"]
        begun = time.monotonic()
        until(lambda: settled(port, wanted), a.seconds)
        seconds = time.monotonic() - begun
        time.sleep(8)   # the marks in Orthanc are written by and by

        segmentations = collections.Counter()
        for series in get(pacs_port, "/series?expand"):
            if series["MainDicomTags"].get("Modality") == "SEG":
                tags = get(pacs_port, f"/instances/{series['Instances'][0]}/simplified-tags")
                segmentations[tags["ReferencedSeriesSequence"][0]["SeriesInstanceUID"]] += 1
        jobs = {job["series"]["series_uid"]: job for job in everything(port, "jobs") if job["newest"]}
        wrong, rows = [], []
        print("| series of | slices | fate | codes | mL | s | SEG in Orthanc | written at the series |\n|" + " --- |" * 8)
        for series in sorted(everything(port, "series"), key=lambda s: names.get(in_orthanc[s["series_uid"]]["ID"], "")):
            uid = series["series_uid"]
            job, at = jobs.get(uid), in_orthanc[uid]["ID"]
            metadata = get(pacs_port, f"/series/{at}/metadata?expand")
            mark = next((v for k, v in metadata.items() if "hilum" in v or k in ("hilum", "9101")), "")
            row = {"name": names[at], "slices": series["instances"], "fate": job["state"] if job else series["state"],
                   "codes": codes(job) if job else (series["finding"] or {}).get("code", ""),
                   "ml": (((job or {}).get("measurements") or {}).get("total") or {}).get("volume_ml"), "seconds": seconds_of(job) if job else None,
                   "seg": segmentations.pop(uid, 0), "mark": mark, "deliveries": [d["state"] for d in job["deliveries"]] if job else []}
            rows.append(row)
            number = lambda value, form: "" if value is None else format(value, form)
            print(f"| {row['name']} | {row['slices']} | {row['fate']} | {row['codes']} | {number(row['ml'], '.0f')} | {number(row['seconds'], '.1f')} | {row['seg']} | {row['mark']} |")
            if row["fate"] == "failed" or row["seg"] > 1 or row["seg"] != row["deliveries"].count("delivered"):
                wrong.append(row["name"])
        wrong += [f"a SEG of {uid}, which was never sent" for uid in segmentations]
        states = collections.Counter(row["fate"] for row in rows)
        print(f"\n{len(rows)} series, {dict(states)}; the last fate {seconds:.0f} s after the last file was stored" + (f"; WRONG: {wrong}" if wrong else ""))
        if a.out:
            a.out.write_text(json.dumps(rows, indent=1))
        return 1 if wrong else 0
    finally:
        for server in servers:
            server.end()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
