"""Replicas of the service over one database: no job is run twice, none is left, and each replica takes its share.

    scripts/with-postgres.sh python3 benches/compare/replicas.py HILUM [--replicas 2] [--jobs 200]

The network does nothing (as in queue_cost.py), so that the queue is as busy as it can be. Series are stored through each replica in turn; the data folder is shared, as the
database is. Exits 1 where a job ran twice, was left, or a replica took nothing.
"""
import argparse
import collections
import concurrent.futures
import os
import re
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from compare_service import body_of, get, hilum, phantom, renamed, stow, until
from queue_cost import nothing


def series_read(port):
    """How many series this process has read for a job, by its own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        found = re.search(r'^hilum_stage_seconds_count\{.*stage="read".*\} (\d+)', answer.read().decode(), re.M)
    return int(found.group(1)) if found else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum")
    p.add_argument("--replicas", type=int, default=2)
    p.add_argument("--jobs", type=int, default=200)
    a = p.parse_args()
    database = os.environ.get("HILUM_TEST_DATABASE_URL") or sys.exit("HILUM_TEST_DATABASE_URL is not set: run this by scripts/with-postgres.sh")
    program = str(Path(a.hilum).resolve())
    with tempfile.TemporaryDirectory(prefix="hilum-replicas-") as name:
        work = Path(name)
        files = phantom(program, work / "one", "--small", "--slices", "24", "--spacing", "1.8", "1.8", "12")
        log = open(work / "log", "wb")
        servers = []
        try:
            for _ in range(a.replicas):
                servers.append(hilum(program, work, log, "receive,work,deliver", more=f'[model]\nname = "{nothing(work)}"\n', database=database))
            begun = time.perf_counter()
            send = lambda number: stow(servers[number % a.replicas][1], body_of(renamed(files, number)), {"X-Hilum-Series-Complete": "true"})
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(send, range(a.jobs)))
            port = servers[0][1]

            def jobs():
                found, cursor = [], ""
                while True:
                    page = get(port, f"/api/v1/jobs?limit=200{cursor}")
                    found += page["jobs"]
                    if not page.get("next"):
                        return found
                    cursor = f"&cursor={page['next']}"
            until(lambda: len(found := jobs()) >= a.jobs and all(j["state"] not in ("queued", "running") for j in found), 600)
            seconds = time.perf_counter() - begun
            found = jobs()
            states = collections.Counter(job["state"] for job in found)
            attempts = collections.Counter(job["attempts"] for job in found)
            read = [series_read(port) for _, port in servers]
            print(f"{len(found)} jobs in {seconds:.1f} s: {dict(states)}, attempts {dict(attempts)}; series read by each replica: {read}")
            right = len(found) == a.jobs and set(states) == {"done"} and set(attempts) == {1} and sum(read) == a.jobs and min(read) > 0
            return 0 if right else 1
        finally:
            for server, _ in servers:
                server.end()


if __name__ == "__main__":
    sys.exit(main())
