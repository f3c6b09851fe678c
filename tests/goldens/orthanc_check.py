#!/usr/bin/env python3
"""Stores CT series and their segmentations in a real Orthanc by STOW-RS and asks for them by QIDO-RS.

    orthanc_check.py CT_FOLDER SEGMENTATION.dcm [CT_FOLDER SEGMENTATION.dcm ...]

Each segmentation must stand in the answer (00081199), be found by `series?Modality=SEG` in the study of its CT, come back
byte for byte, and name a CT series that is there. Prints a line a pair; exit status 0 if all hold.

Orthanc binds every interface, so the whole check runs in a network namespace of its own that has the loopback alone
(unshare --net). Needs Orthanc with its DICOMweb plugin, and pydicom.
"""
import fcntl, http.client, json, os, shutil, socket, struct, subprocess, sys, tempfile, time
from pathlib import Path

PLUGIN = "libOrthancDicomWeb.so"
BOUNDARY = "hilum-orthanc-check"


def alone():
    """Starts this script again where there is no network but the loopback, and brings that up."""
    if os.environ.get("HILUM_NAMESPACE") != "1":
        os.environ["HILUM_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--map-root-user", sys.executable, *sys.argv])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        flags = struct.unpack("16sH14x", fcntl.ioctl(s, 0x8913, struct.pack("16sH14x", b"lo", 0)))[1]   # SIOCGIFFLAGS
        fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))                                 # SIOCSIFFLAGS, IFF_UP


def plugin():
    for folder in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins"):
        for path in Path(folder).glob(f"**/{PLUGIN}"):
            return str(path)
    sys.exit(f"orthanc_check: {PLUGIN} is not installed (Debian package orthanc-dicomweb)")


class Orthanc:
    def __init__(self, folder):
        self.port = 18042
        configuration = {"Name": "check", "StorageDirectory": f"{folder}/db", "IndexDirectory": f"{folder}/db", "HttpPort": self.port,
                         "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
                         "Plugins": [plugin()], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
        Path(folder, "orthanc.json").write_text(json.dumps(configuration))
        self.log = open(f"{folder}/log", "wb")
        self.process = subprocess.Popen([shutil.which("Orthanc") or "/usr/sbin/Orthanc", f"{folder}/orthanc.json"], stdout=self.log, stderr=self.log)
        for _ in range(100):
            try:
                if self.request("GET", "/system")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
        sys.exit("orthanc_check: Orthanc did not start:\n" + Path(folder, "log").read_text()[-2000:])

    def request(self, method, path, body=None, headers={}):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        result = answer.status, answer.read()
        connection.close()
        return result

    def stow(self, files):
        body = b"".join(b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (BOUNDARY.encode(), f) for f in files)
        body += b"--%s--\r\n" % BOUNDARY.encode()
        status, answer = self.request("POST", "/dicom-web/studies", body, {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}', "Accept": "application/dicom+json"})
        stored = {i["00081155"]["Value"][0] for i in json.loads(answer).get("00081199", {}).get("Value", [])}
        return status, stored

    def qido(self, path):
        return json.loads(self.request("GET", "/dicom-web/" + path, headers={"Accept": "application/dicom+json"})[1])

    def end(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def check(orthanc, ct_folder, segmentation):
    import pydicom
    ct = [p.read_bytes() for p in sorted(Path(ct_folder).iterdir()) if p.is_file()]
    for k in range(0, len(ct), 100):
        orthanc.stow(ct[k:k + 100])
    content = Path(segmentation).read_bytes()
    seg = pydicom.dcmread(segmentation, stop_before_pixels=True)
    status, stored = orthanc.stow([content])
    if seg.SOPInstanceUID not in stored:
        return f"not stored (status {status})"
    found = orthanc.qido(f"studies/{seg.StudyInstanceUID}/series?Modality=SEG")
    if seg.SeriesInstanceUID not in [s["0020000E"]["Value"][0] for s in found]:
        return "not found by QIDO-RS"
    referenced = seg.ReferencedSeriesSequence[0]
    instances = orthanc.qido(f"studies/{seg.StudyInstanceUID}/series/{referenced.SeriesInstanceUID}/instances")
    there = {i["00080018"]["Value"][0] for i in instances}
    lacking = [i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence if i.ReferencedSOPInstanceUID not in there]
    if lacking:
        return f"{len(lacking)} referenced instances are not in the study"
    ids = json.loads(orthanc.request("POST", "/tools/lookup", seg.SOPInstanceUID)[1])
    if orthanc.request("GET", f"/instances/{ids[0]['ID']}/file")[1] != content:
        return "came back altered"
    return None


def main():
    pairs = sys.argv[1:]
    if not pairs or len(pairs) % 2:
        sys.exit(__doc__)
    alone()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        orthanc = Orthanc(folder)
        try:
            for ct_folder, segmentation in zip(pairs[::2], pairs[1::2]):
                fault = check(orthanc, ct_folder, segmentation)
                failed += fault is not None
                print(f"{'FAULT ' + fault if fault else 'ok'}: {segmentation}", flush=True)
        finally:
            orthanc.end()
    print(f"{len(pairs) // 2 - failed} of {len(pairs) // 2} hold")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
