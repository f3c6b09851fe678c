"""How fast the lists answer when a hundred thousand jobs stand in the table.

    scripts/with-postgres.sh python benches/compare/busy_table.py HILUM [--jobs 100000] [--requests 400] [--out FILE]

Fills an empty database with made-up series and jobs, starts `hilum serve --roles receive` over it on loopback, and asks for pages of jobs and of series as a browser, a script
that pages through, and a look-up by study, series or accession number do, one request after the other over one connection. Prints median and 99th percentile in milliseconds.
"""
import argparse
import http.client
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

FILL = """
insert into series (study_uid, series_uid, state, revision, modality, accession_number, patient_id, study_date, study_description, instances, bytes, received_at)
select '1.2.826.' || n / 3, '1.2.840.' || n, 'taken', sha256(n::text::bytea), 'CT', 'A' || n / 3, 'P' || n / 7, '20260101', 'Chest', 300, 157000000, now() - n * interval '40 seconds'
from generate_series(1, :jobs) n;
insert into job (id, series_id, series_revision, model, model_digest, parameters_digest, pipeline_revision, state, report, created_at, started_at, finished_at)
select gen_random_uuid(), id, revision, 'hilum-ahnet-lung', repeat('a', 64), repeat('b', 64), 1,
    (array['done', 'done', 'done', 'done', 'done', 'done', 'done', 'refused', 'failed', 'canceled'])[1 + id % 10]::job_state,
    jsonb_build_object('measurements', jsonb_build_object('volume_ml', id % 7000), 'note', repeat('x', 3000)), received_at, received_at, received_at
from series;
insert into event (kind, series_id, job_id, actor) select 'job_done', series_id, id, 'worker' from job;
vacuum analyze;
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum")
    p.add_argument("--jobs", type=int, default=100_000)
    p.add_argument("--requests", type=int, default=400, help="of each kind")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    url = os.environ.get("HILUM_TEST_DATABASE_URL") or sys.exit("run this inside scripts/with-postgres.sh")
    address = url.replace("postgres:///postgres?", "")
    host, user = (re.search(key + r"=([^&]+)", address).group(1) for key in ("host", "user"))
    psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-U", user]
    subprocess.run([*psql, "-d", "postgres", "-c", "create database busy"], check=True)
    environment = {**os.environ, "DATABASE_URL": url.replace("/postgres?", "/busy?")}
    folder = tempfile.TemporaryDirectory(prefix="hilum-busy-")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = Path(folder.name) / "hilum.toml"
    settings.write_text(f'[service]\nlisten = "127.0.0.1:{port}"\ndata_folder = "{folder.name}/data"\n')
    subprocess.run([a.hilum, "--config", str(settings), "migrate"], check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run([*psql, "-d", "busy", "-v", f"jobs={a.jobs}", "-f", "-"], input=FILL.encode(), check=True)
    with open(Path(folder.name) / "log", "wb") as log:
        server = subprocess.Popen([a.hilum, "--config", str(settings), "serve", "--roles", "receive"], env=environment, stdout=log, stderr=log)
    try:
        figures = measure(port, a.jobs, a.requests, server)
    finally:
        server.terminate()
        server.wait()
    print(f"{a.jobs} jobs, {a.requests} requests of each kind, load {os.getloadavg()[0]:.1f}\n\n| asked for | median ms | 99th percentile ms |\n| --- | --- | --- |")
    for kind, times in figures.items():
        print(f"| {kind} | {statistics.median(times):.1f} | {statistics.quantiles(times, n=100)[98]:.1f} |")
    if a.out:
        a.out.write_text(json.dumps(figures))


def measure(port, jobs, requests, server):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(path, **query):
        begun = time.perf_counter()
        connection.request("GET", f"/api/v1/{path}?{urlencode(query)}" if query else path)
        answer = connection.getresponse()
        content = answer.read()
        took = (time.perf_counter() - begun) * 1000
        if answer.status != 200:
            sys.exit(f"{path} {query}: {answer.status} {content[:300]}")
        return took, content

    end = time.monotonic() + 60
    while True:
        try:
            get("/healthz")
            break
        except OSError:
            connection.close()
            if time.monotonic() > end or server.poll() is not None:
                sys.exit("the service did not start")
            time.sleep(0.1)
    pick = random.Random(1)
    series = lambda: pick.randrange(1, jobs)
    kinds = {
        "jobs, first page": ("jobs", dict),
        "jobs, 200 a page": ("jobs", lambda: {"limit": 200}),
        "jobs that failed": ("jobs", lambda: {"state": "failed"}),
        "jobs that run (none)": ("jobs", lambda: {"state": "running"}),
        "jobs of a study": ("jobs", lambda: {"study": f"1.2.826.{series() // 3}"}),
        "jobs of a series": ("jobs", lambda: {"series": f"1.2.840.{series()}"}),
        "jobs of an accession number": ("jobs", lambda: {"accession": f"A{series() // 3}"}),
        "series, first page": ("series", dict),
        "series of a study": ("series", lambda: {"study": f"1.2.826.{series() // 3}"}),
    }
    figures = {}
    for kind, (path, query) in kinds.items():
        for _ in range(20):
            get(path, limit=50)   # warm
        figures[kind] = [get(path, **({"limit": 50} | query()))[0] for _ in range(requests)]
    times, cursor = [], None
    while len(times) < requests:
        took, content = get("jobs", limit=200, **({"cursor": cursor} if cursor else {}))
        times.append(took)
        cursor = json.loads(content)["next"]
    figures["jobs, page after page of 200"] = times
    return figures


if __name__ == "__main__":
    main()
