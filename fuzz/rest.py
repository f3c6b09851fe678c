"""The REST interface under schemathesis, a public fuzzer of OpenAPI: a service with a finished job, a refused series and one that still arrives, asked what its own document allows and forbids.

    rest.py HILUM SCHEMATHESIS [--examples 100] [--seed 1]     (SCHEMATHESIS: the program of the PyPI package)

Ends as schemathesis does: 0 where no answer was a 5xx, undocumented, of another content type, or unlike its schema.
"""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benches/compare"))
from compare_service import another, body_of, get, hilum, phantom, stow, uids_of, until  # noqa: E402

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance,unsupported_method"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("hilum")
    p.add_argument("schemathesis")
    p.add_argument("--examples", type=int, default=100, help="at most so many of each operation and phase")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    program = str(Path(a.hilum).resolve())
    with tempfile.TemporaryDirectory(prefix="hilum-rest-") as name:
        work = Path(name)
        work.chmod(0o711)
        files = phantom(program, work / "one", "--small")
        service, port = hilum(program, work, open(work / "log", "wb"), "receive,work,deliver", more='[model]\nname = "hilum-ahnet-lung-tiny"\n')
        try:
            series = uids_of(files[0])[1]
            whole = {"X-Hilum-Series-Complete": "true"}
            stow(port, body_of(files), whole)
            stow(port, body_of(files[:2], series, another(series, 98)), whole)
            stow(port, body_of(files[:9], series, another(series, 99)))
            until(lambda: get(port, "/api/v1/jobs?state=done")["jobs"] and get(port, "/api/v1/jobs?state=refused")["jobs"])
            # Streams of events have no end, so they are left out; tests/service_http/events.rs reads them.
            hooks = {"SCHEMATHESIS_HOOKS": "rest_bodies", "PYTHONPATH": str(Path(__file__).parent.resolve())}
            return subprocess.run([a.schemathesis, "run", f"http://127.0.0.1:{port}/api/v1/openapi.json", "--checks", CHECKS, "--max-examples", str(a.examples),
                                   "--seed", str(a.seed), "--request-timeout", "3", "--continue-on-failure", "--exclude-path-regex", "/events$",
                                   "--phases", "examples,coverage,fuzzing,stateful"], env=os.environ | hooks).returncode
        finally:
            service.end()
            print((work / "log").read_text(errors="replace")[-2000:] if service.process.returncode else "", end="")


if __name__ == "__main__":
    sys.exit(main())
