#!/usr/bin/env bash
# Brings what is missing to build and run Hilum on a Debian machine that has a Rust toolchain.
#
#   scripts/setup.sh          a C++ compiler and cmake (CharLS), ONNX Runtime's library in .runtime/
#   scripts/setup.sh demo     also Orthanc and PostgreSQL, which are started and ended by the demo
#   scripts/setup.sh tests    also the programs and the Python environment that the tests compare with
#
# ONNX Runtime is taken out of its PyPI wheel and verified by checksum; Python is used here alone, Hilum needs none.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Debian packages of which a program is missing: "program:package".
debian() {
    local wanted=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || wanted+=("${pair##*:}")
    done
    [ ${#wanted[@]} -eq 0 ] && return
    command -v apt-get >/dev/null 2>&1 || fail "missing: ${wanted[*]} (this script installs them with apt-get, which is not here; install them by hand)"
    say "installing Debian packages: ${wanted[*]}"
    local root=()
    [ "$(id -u)" -eq 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
}

# ONNX Runtime: version, and the SHA-256 of the library per machine.
onnxruntime_version=1.24.4
case "$(uname -m)" in
    x86_64) platform=manylinux_2_27_x86_64 onnxruntime_sha256=2d518e11c7767f9fdc4413bdbeb45acf30db504ff76a82fc19d9238a3f9f6c24 ;;
    *) platform="" onnxruntime_sha256="" ;;
esac

runtime() {
    local library=.runtime/libonnxruntime.so.$onnxruntime_version
    if [ -f "$library" ] && echo "$onnxruntime_sha256  $library" | sha256sum --check --status; then
        return
    fi
    [ -n "$platform" ] || fail "no checksum is known for ONNX Runtime on $(uname -m): put libonnxruntime.so.$onnxruntime_version into .runtime/ yourself"
    python3 -m pip --version >/dev/null 2>&1 || debian "pip3:python3-pip"
    say "fetching ONNX Runtime $onnxruntime_version"
    local folder
    folder=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 311 --implementation cp --platform "$platform" --dest "$folder" "onnxruntime==$onnxruntime_version" \
        || fail "pip could not download onnxruntime $onnxruntime_version; put libonnxruntime.so.$onnxruntime_version into .runtime/ by hand"
    mkdir -p .runtime
    python3 - "$folder" "$onnxruntime_version" <<'PYTHON'
import glob, shutil, sys, zipfile
folder, version = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel, open(".runtime/library.part", "wb") as out:
    with wheel.open(f"onnxruntime/capi/libonnxruntime.so.{version}") as library:
        shutil.copyfileobj(library, out)
PYTHON
    rm -rf "$folder"
    echo "$onnxruntime_sha256  .runtime/library.part" | sha256sum --check --status || { rm -f .runtime/library.part; fail "the library in the wheel has another checksum than expected: not used"; }
    mv .runtime/library.part "$library"
    ln -sfn "libonnxruntime.so.$onnxruntime_version" .runtime/libonnxruntime.so
}

# A PACS and a database. Those that the packages bring must not run by themselves: the demo and the tests start their own.
servers() {
    if ! command -v Orthanc >/dev/null 2>&1 || [ ! -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ]; then
        [ -d /run/systemd/system ] && systemctl mask --quiet orthanc
        debian no-orthanc-yet:orthanc no-plugin-yet:orthanc-dicomweb
    fi
    if ! command -v initdb >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
        if [ "$(id -u)" -eq 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            mkdir -p /etc/postgresql-common
            echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
        fi
        debian no-postgresql-yet:postgresql
    fi
    debian curl:curl
    # Debian's Orthanc listens on every address; this keeps it on loopback.
    if [ ! -f .runtime/loopback.so ] || [ scripts/loopback.c -nt .runtime/loopback.so ]; then
        mkdir -p .runtime
        gcc -shared -fPIC -O2 -o .runtime/loopback.so scripts/loopback.c
    fi
}

# What the tests compare with: DICOM validators and toolkits, and a Python environment of pinned packages.
tests() {
    debian dcmdump:dcmtk dciodvfy:dicom3tools gdcmconv:libgdcm-tools ojph_compress:openjph-tools unshare:util-linux
    servers
    local stamp=.venv/requirements.sha256 sum
    sum=$(sha256sum tests/goldens/requirements.txt | cut -d' ' -f1)
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && return
    python3 -c 'import ensurepip' >/dev/null 2>&1 || debian "no-such-program:python3-venv"
    say "making the Python environment of the tests (.venv)"
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r tests/goldens/requirements.txt
    echo "$sum" > "$stamp"
}

command -v cargo >/dev/null 2>&1 || fail "cargo is missing: install a Rust toolchain first (rustup)"
debian cmake:cmake g++:g++ cc:gcc make:make
runtime
case "${1:-}" in
    demo) servers ;;
    tests) tests ;;
esac
say "ready"
