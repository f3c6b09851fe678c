#!/usr/bin/env bash
# The whole on one machine: a real Orthanc and Hilum on loopback, a phantom chest stored in Orthanc, the rule, the job, the segmentation back in Orthanc.
#
#   demo.sh HILUM FOLDER      FOLDER gets phantom, results and logs; DEMO_EXIT=1 ends when the result is there, otherwise it stays up for a look
set -euo pipefail
hilum=$1 out=$2
root=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$out"; mkdir -p "$out"; out=$(cd "$out" && pwd)
# Orthanc lies in /usr/sbin, where only root looks by itself.
PATH=$PATH:/usr/sbin
# Everything here is asked directly, by curl and by Orthanc (which uses libcurl), and the database is the demo's own.
export no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
unset DATABASE_URL HILUM_SERVICE__DATABASE_URL

# The private database does not run as root, and its user must be able to enter its folder: a folder of its own under /tmp.
state=$(mktemp -d /tmp/hilum-demo.XXXXXX); chmod 711 "$state"
orthanc_pid="" hilum_pid=""
end() {
    trap - EXIT INT TERM
    for pid in $hilum_pid $orthanc_pid; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $hilum_pid $orthanc_pid; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$state"
}
trap end EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
password=$(head -c 18 /dev/urandom | base64 | tr -d '+/=')
# Three free ports, none of those that the system gives to outgoing connections, which might get one before the server that it is for listens.
read -r orthanc_port dicom_port hilum_port < <(python3 -c 'import random, socket
low, high = map(int, open("/proc/sys/net/ipv4/ip_local_port_range").read().split())
found = set()
while len(found) < 3:
    port = random.choice([port for port in range(10000, 65536) if not low <= port <= high])
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            continue
        found.add(port)
print(*found)')

say "1. A phantom chest"
"$hilum" phantom --out "$out/phantom" --seed 7 ${DEMO_PHANTOM:-}

say "2. Orthanc with the forwarding rule, and Hilum, both on loopback"
mkdir -p "$state/orthanc"
cat > "$state/orthanc.json" <<JSON
{ "Name": "hilum-demo", "StorageDirectory": "$state/orthanc", "IndexDirectory": "$state/orthanc", "HttpPort": $orthanc_port, "DicomPort": $dicom_port,
  "RemoteAccessAllowed": false, "AuthenticationEnabled": true, "RegisteredUsers": { "hilum": "$password" }, "StableAge": 2,
  "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"], "LuaScripts": ["$root/config/orthanc/hilum.lua"],
  "DicomWeb": { "Enable": true, "Root": "/dicom-web/", "Servers": { "hilum": { "Url": "http://127.0.0.1:$hilum_port/dicom-web/", "Timeout": 600, "HttpHeaders": { "X-Hilum-Source": "orthanc" } } } } }
JSON
cat > "$state/hilum.toml" <<TOML
[service]
listen = "127.0.0.1:$hilum_port"
data_folder = "$state/hilum"
[inbox]
disk_watermark = 1.0   # a look at the demo needs no disk that is half empty
[[pacs]]
name = "orthanc"
url = "http://127.0.0.1:$orthanc_port/dicom-web"
username = "hilum"
password = "$password"
orthanc_url = "http://127.0.0.1:$orthanc_port"
TOML
(cd "$state" && LD_PRELOAD="$root/.runtime/loopback.so" exec Orthanc --verbose "$state/orthanc.json") >"$out/orthanc.log" 2>&1 &
orthanc_pid=$!
(cd "$root" && exec "$hilum" -v --config "$state/hilum.toml" serve) >"$out/hilum.log" 2>&1 &
hilum_pid=$!
pacs="http://127.0.0.1:$orthanc_port" service="http://127.0.0.1:$hilum_port"
ask() { curl -fsS -u "hilum:$password" "$@"; }
wait_for() {   # what, command...
    local what=$1; shift
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        kill -0 "$hilum_pid" 2>/dev/null || { cat "$out/hilum.log" >&2; echo "demo: hilum ended" >&2; exit 1; }
        kill -0 "$orthanc_pid" 2>/dev/null || { tail -5 "$out/orthanc.log" >&2; echo "demo: Orthanc ended" >&2; exit 1; }
        sleep 0.2
    done
    echo "demo: waited in vain for $what; see $out/hilum.log and $out/orthanc.log" >&2
    exit 1
}
wait_for "Orthanc" ask "$pacs/system"
wait_for "Hilum" curl -fsS "$service/readyz"
echo "Orthanc  $pacs/app/explorer.html   (user hilum, password $password)"
echo "Hilum    $service/"

say "3. The chest is stored in Orthanc; its rule sends it to Hilum"
for file in "$out"/phantom/ct/*; do ask -X POST --data-binary @"$file" "$pacs/instances" >/dev/null; done
echo "stored $(ls "$out/phantom/ct" | wc -l) slices"
sent() { grep -o 'hilum: sent .*' "$out/orthanc.log"; }
wait_for "the rule" sent
echo "Orthanc's log: $(sent)"

say "4. The job"
field() { python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value[int(key)] if isinstance(value, list) and len(value) > int(key) else value.get(key) if isinstance(value, dict) else None
print("" if value is None else value)' "$@"; }
has_job() { [ -n "$(curl -fsS "$service/api/v1/jobs" | field jobs 0 id)" ]; }
wait_for "the job" has_job
id=$(curl -fsS "$service/api/v1/jobs" | field jobs 0 id)
last=""
for _ in $(seq 900); do
    job=$(curl -fsS "$service/api/v1/jobs/$id")
    line="$(field state <<<"$job") $(field stage <<<"$job") $(field windows_done <<<"$job")/$(field windows_total <<<"$job") windows"
    [ "$line" != "$last" ] && echo "$line" && last=$line
    case "$(field state <<<"$job")" in queued|running) sleep 0.3 ;; *) break ;; esac
done
delivered() { [ "$(curl -fsS "$service/api/v1/jobs/$id" | field deliveries 0 state)" = delivered ]; }
wait_for "the delivery" delivered

say "5. The segmentation in Orthanc, and its numbers"
ask "$pacs/dicom-web/series?Modality=SEG&includefield=SeriesDescription" | python3 -c 'import json, sys
for series in json.load(sys.stdin):
    value = lambda tag: (series.get(tag, {}).get("Value") or [""])[0]
    print("SEG series", value("0020000E"), "in study", value("0020000D"), "-", value("0008103E"))'
for name in segmentation.dcm report.json overlay.png mask.nii.gz; do curl -fsS -o "$out/$name" "$service/api/v1/jobs/$id/result/$name"; done
python3 - "$out/report.json" <<'PYTHON'
import json, sys
lungs = json.load(open(sys.argv[1]))["measurements"]
for name in ("total", "right", "left"):
    if lungs.get(name):
        print(f"{name:>6}: {lungs[name]['volume_ml']:.0f} mL")
PYTHON
"$hilum" evaluate "$out/segmentation.dcm" "$out/phantom/mask.nii.gz"
echo "overlay  $out/overlay.png"
echo "report   $out/report.json"
echo "SEG      $out/segmentation.dcm"

if [ -n "${DEMO_EXIT:-}" ]; then
    say "Done (DEMO_EXIT is set: everything ends here)"
else
    say "Everything stays up for a look: $service/ and $pacs/ . Ctrl-C ends it."
    while kill -0 "$hilum_pid" 2>/dev/null && kill -0 "$orthanc_pid" 2>/dev/null; do sleep 1; done
fi
