#!/usr/bin/env bash
# Brings what is missing to build and run Hilum on a Debian machine that has a Rust toolchain.
#
#   scripts/setup.sh          a C++ compiler and cmake (CharLS), ONNX Runtime's library and what keeps an Orthanc on loopback in .runtime/
#   scripts/setup.sh demo     also Orthanc and PostgreSQL, which are started and ended by the demo
#   scripts/setup.sh tests    also the programs and the Python environment that the tests compare with
#   scripts/setup.sh bench    also the programs and the Python environment that the benches compare with
#
# ONNX Runtime is taken out of its PyPI wheel and verified by checksum; Python is used here alone, Hilum needs none.
set -euo pipefail
cd "$(dirname "$0")/.."
# Orthanc lies in /usr/sbin, where only root looks by itself.
PATH=$PATH:/usr/sbin

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# Debian packages of which a program is missing: "program:package".
debian() {
    local wanted=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || wanted+=("${pair##*:}")
    done
    [ ${#wanted[@]} -eq 0 ] && return
    command -v apt-get >/dev/null 2>&1 || fail "missing: ${wanted[*]} (this script installs them with apt-get, which is not here; install them by hand)"
    say "installing Debian packages: ${wanted[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
}

# ONNX Runtime: version, and per machine the platform of its wheel and the SHA-256 of the library. The recording one is from 1.29 on, where it records usage
# unless told not to: a test holds Hilum against it, nothing else loads it.
onnxruntime_version=1.24.4 recording_version=1.32.0
case "$(uname -m)" in
    x86_64)
        onnxruntime=(manylinux_2_27_x86_64 2d518e11c7767f9fdc4413bdbeb45acf30db504ff76a82fc19d9238a3f9f6c24)
        recording=(manylinux_2_28_x86_64 6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f)
        ;;
    *) onnxruntime=() recording=() ;;
esac

# library FOLDER VERSION PLATFORM SHA256: libonnxruntime.so.VERSION in FOLDER, out of its wheel.
library() {
    local folder=$1 version=$2 platform=${3:-} sha256=${4:-}
    local library=$folder/libonnxruntime.so.$version
    if [ -f "$library" ] && echo "$sha256  $library" | sha256sum --check --status; then
        return
    fi
    [ -n "$platform" ] || fail "no checksum is known for ONNX Runtime on $(uname -m): put libonnxruntime.so.$version into $folder/ yourself"
    python3 -m pip --version >/dev/null 2>&1 || debian "pip3:python3-pip"
    say "fetching ONNX Runtime $version"
    local wheels
    wheels=$(mktemp -d)
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 311 --implementation cp --platform "$platform" --dest "$wheels" "onnxruntime==$version" \
        || fail "pip could not download onnxruntime $version; put libonnxruntime.so.$version into $folder/ by hand"
    mkdir -p "$folder"
    python3 - "$wheels" "$version" "$folder" <<'PYTHON'
import glob, shutil, sys, zipfile
wheels, version, folder = sys.argv[1:]
with zipfile.ZipFile(glob.glob(wheels + "/*.whl")[0]) as wheel, open(folder + "/library.part", "wb") as out:
    with wheel.open(f"onnxruntime/capi/libonnxruntime.so.{version}") as library:
        shutil.copyfileobj(library, out)
PYTHON
    rm -rf "$wheels"
    echo "$sha256  $folder/library.part" | sha256sum --check --status || { rm -f "$folder/library.part"; fail "the library in the wheel has another checksum than expected: not used"; }
    mv "$folder/library.part" "$library"
}

runtime() {
    library .runtime "$onnxruntime_version" "${onnxruntime[@]}"
    ln -sfn "libonnxruntime.so.$onnxruntime_version" .runtime/libonnxruntime.so
    # Debian's Orthanc listens on every address; this keeps those of the demo and the tests on loopback.
    if [ ! -f .runtime/loopback.so ] || [ scripts/loopback.c -nt .runtime/loopback.so ]; then
        cc -shared -fPIC -O2 -o .runtime/loopback.so scripts/loopback.c
    fi
}

# A PACS and a database. Those that the packages bring must not run by themselves: the demo and the tests start their own.
servers() {
    if ! command -v Orthanc >/dev/null 2>&1; then
        orthanc
    elif [ ! -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ]; then
        [ ! -d /run/systemd/system ] || fail "the Orthanc of this machine has no DICOMweb plugin, and the package would restart it: apt-get install orthanc-dicomweb when it may be"
        debian no-plugin-yet:orthanc-dicomweb
    fi
    if ! command -v initdb >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
        if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            as_root mkdir -p /etc/postgresql-common
            echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        fi
        debian no-postgresql-yet:postgresql
    fi
    debian curl:curl python3:python3
}

# Debian's Orthanc where there was none: installed, but neither running nor started with the machine. Its unit is masked while the package would start it.
orthanc() {
    if [ ! -d /run/systemd/system ]; then
        debian no-orthanc-yet:orthanc no-plugin-yet:orthanc-dicomweb
        return
    fi
    trap 'as_root systemctl unmask --quiet orthanc' EXIT
    as_root systemctl mask --quiet orthanc
    debian no-orthanc-yet:orthanc no-plugin-yet:orthanc-dicomweb
    trap - EXIT
    as_root systemctl unmask --quiet orthanc
    as_root systemctl disable --quiet orthanc
    say "Orthanc is installed and not started: systemctl enable --now orthanc does that"
}

# What the tests compare with: DICOM validators and toolkits, and a Python environment of pinned packages.
tests() {
    debian dcmdump:dcmtk dciodvfy:dicom3tools gdcmconv:libgdcm-tools ojph_compress:openjph-tools unshare:util-linux chromedriver:chromium-driver
    servers
    if [ ${#recording[@]} -gt 0 ]; then library .runtime/recording "$recording_version" "${recording[@]}"; fi
    python_environment .venv tests/goldens/requirements.txt
}

bench() {
    tests
    debian dcm2niix:dcm2niix
    python_environment .venv-bench tests/goldens/requirements.txt benches/compare/requirements.txt
}

# python_environment FOLDER REQUIREMENTS...: made again where the requirements are others than it was made of.
python_environment() {
    local folder=$1 sum
    shift
    sum=$(cat "$@" | sha256sum | cut -d' ' -f1)
    [ -f "$folder/requirements.sha256" ] && [ "$(cat "$folder/requirements.sha256")" = "$sum" ] && return
    python3 -c 'import ensurepip' >/dev/null 2>&1 || debian "no-such-program:python3-venv"
    say "making a Python environment ($folder)"
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "${@/#/--requirement=}"
    echo "$sum" > "$folder/requirements.sha256"
}

command -v cargo >/dev/null 2>&1 || fail "cargo is missing: install a Rust toolchain first (rustup)"
debian cmake:cmake g++:g++ cc:gcc make:make
runtime
case "${1:-}" in
    demo) servers ;;
    tests) tests ;;
    bench) bench ;;
esac
say "ready"
