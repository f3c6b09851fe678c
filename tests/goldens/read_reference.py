#!/usr/bin/env python3
"""What other programs read from DICOM images, for tests/reading.rs.

    read_reference.py reference FOLDER --out reading.json     digests of the stored values of every frame, by pydicom; each compared with SimpleITK
    read_reference.py variants FOLDER OUT [--per-folder N]    lossless copies in every transfer syntax that dcmtk, gdcm and OpenJPH can write

A digest is the first 32 hex digits of the SHA-256 of the stored values as little-endian int32, row by row. Its key is the first 16 hex digits of the SHA-256
of the SOP Instance UID, then a colon and the frame from 0. The same image in several transfer syntaxes has one key and must have one digest.

SimpleITK reads each file by itself (a multi-frame file as one volume); its values must equal stored * slope + intercept exactly where these are whole numbers,
and within one unit in the last place of float32 elsewhere.

Needs pydicom with pylibjpeg, pylibjpeg-libjpeg, pylibjpeg-openjpeg and pyjpegls, SimpleITK and numpy; for variants imagecodecs, dcmtk, gdcmconv and ojph_compress.
"""
import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import encapsulate

warnings.filterwarnings("ignore")


def key_of(d, frame):
    return hashlib.sha256(str(d.SOPInstanceUID).encode()).hexdigest()[:16] + f":{frame}"


def digest_of(stored):
    return hashlib.sha256(np.ascontiguousarray(stored, dtype="<i4").tobytes()).hexdigest()[:32]


def frames_of(d):
    stored = d.pixel_array
    return stored if int(d.get("NumberOfFrames", 1) or 1) > 1 else stored[None]


def rescale_of(d, frame):
    """Slope and intercept of a frame: functional groups before the data set."""
    groups = [d[name].value for name in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence") if name in d]
    for items in groups:
        item = items[frame] if len(items) > 1 else items[0]
        if "PixelValueTransformationSequence" in item:
            t = item.PixelValueTransformationSequence[0]
            return float(t.RescaleSlope), float(t.RescaleIntercept)
    return float(d.get("RescaleSlope", 1) or 1), float(d.get("RescaleIntercept", 0) or 0)


def simpleitk_agrees(path, d, stored):
    """None if SimpleITK cannot read the file, otherwise whether its values are ours."""
    import SimpleITK as sitk
    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError:
        return None
    values = values.reshape(stored.shape) if values.size == stored.size else None
    if values is None:
        return None
    for frame, (theirs, ours) in enumerate(zip(values, stored)):
        slope, intercept = rescale_of(d, frame)
        expected = ours.astype(np.float64) * slope + intercept
        if slope == int(slope) and intercept == int(intercept):
            if not np.array_equal(theirs.astype(np.float64), expected):
                return False
        elif np.any(np.abs(theirs.astype(np.float64) - expected) > np.spacing(np.abs(expected).astype(np.float32))):
            return False
    return True


def reference(folder, out):
    table, rows = {}, {}
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        try:
            d = pydicom.dcmread(path)
        except Exception:
            continue
        if "PixelData" not in d or int(d.get("SamplesPerPixel", 1)) != 1:
            continue
        row = rows.setdefault(str(path.parent.relative_to(folder)), dict(files=0, digests=0, equal=0, differ=0, unread=0))
        row["files"] += 1
        try:
            stored = frames_of(d)
        except Exception as e:
            print(f"{path}: pydicom: {str(e).splitlines()[0][:120]}", file=sys.stderr)
            continue
        for frame, values in enumerate(stored):
            key, digest = key_of(d, frame), digest_of(values)
            if table.get(key, digest) != digest:
                print(f"{path}: two contents under one SOP Instance UID", file=sys.stderr)
            table[key] = digest
            row["digests"] += 1
        agrees = simpleitk_agrees(path, d, stored)
        row["unread" if agrees is None else "equal" if agrees else "differ"] += 1
    Path(out).write_text(json.dumps(dict(sorted(table.items())), indent=0) + "\n")
    print(f"{'folder':60} {'files':>6} {'frames':>7} {'SimpleITK equal':>16} {'differ':>7} {'cannot read':>12}")
    for name, row in rows.items():
        print(f"{name:60} {row['files']:6} {row['digests']:7} {row['equal']:16} {row['differ']:7} {row['unread']:12}")


PROGRAMS = {
    "implicit": ["dcmconv", "+ti"],
    "explicit": ["dcmconv", "+te"],
    "big_endian": ["dcmconv", "+tb"],
    "deflated": ["dcmconv", "+td"],
    "rle_dcmtk": ["dcmcrle"],
    "jpeg_lossless_57_dcmtk": ["dcmcjpeg", "+el", "+sv", "6"],
    "jpeg_lossless_70_dcmtk": ["dcmcjpeg", "+e1"],
    "jpeg_lossless_70_fragments": ["dcmcjpeg", "+e1", "+fs", "32", "-ot"],
    "jpeg_ls_dcmtk": ["dcmcjpls"],
    "jpeg_ls_fragments": ["dcmcjpls", "+fs", "32", "-ot"],
    "jpeg_ls_cooked": ["dcmcjpls", "+pc"],
    "rle_gdcm": ["gdcmconv", "--rle"],
    "jpeg_lossless_gdcm": ["gdcmconv", "--jpeg"],
    "jpeg_ls_gdcm": ["gdcmconv", "--jpegls"],
    "jpeg_2000_gdcm": ["gdcmconv", "--j2k"],
}


def htj2k(d, path):
    """OpenJPH: its program for unsigned samples of their own depth, its library for signed ones, which the program cuts off at zero."""
    if d.PixelRepresentation:
        import imagecodecs
        code = imagecodecs.htj2k_encode(d.pixel_array, reversible=True)
    else:
        with tempfile.TemporaryDirectory() as t:
            Path(f"{t}/in.pgm").write_bytes(f"P5 {d.Columns} {d.Rows} {2 ** d.BitsStored - 1}\n".encode() + d.pixel_array.astype(">u2").tobytes())
            done = subprocess.run(["ojph_compress", "-i", f"{t}/in.pgm", "-o", f"{t}/out.j2c", "-reversible", "true"], capture_output=True, text=True)
            if done.returncode or not Path(f"{t}/out.j2c").exists():
                return False
            code = Path(f"{t}/out.j2c").read_bytes()
    d.PixelData = encapsulate([code])
    d["PixelData"].VR = "OB"
    d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
    d.save_as(path)
    return True


def variants(folder, out, per_folder, only):
    made, failed = {}, {}
    by_folder = {}
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        try:
            d = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:
            continue
        if d.get("Modality") == "CT" and "Rows" in d:
            by_folder.setdefault(path.parent, []).append(path)
    for number, (parent, paths) in enumerate(by_folder.items()):
        chosen = paths if len(paths) <= per_folder else [paths[i * (len(paths) - 1) // max(per_folder - 1, 1)] for i in range(per_folder)]
        for index, path in enumerate(chosen):
            d = pydicom.dcmread(path)
            try:
                d.decompress(generate_instance_uid=False)
                d.pixel_array
            except Exception:
                continue
            with tempfile.TemporaryDirectory() as t:
                raw = f"{t}/raw.dcm"
                d.save_as(raw)
                for name, program in PROGRAMS.items():
                    if only and name not in only:
                        continue
                    if not shutil.which(program[0]):
                        failed[name] = f"{program[0]} is not installed"
                        continue
                    target = Path(out) / name / f"{number:03}_{index:03}.dcm"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    done = subprocess.run([*program, raw, str(target)], capture_output=True, text=True)
                    if done.returncode or not target.exists():
                        failed[name] = f"{path}: {(done.stderr or done.stdout).strip()[:120]}"
                        target.unlink(missing_ok=True)
                    else:
                        made[name] = made.get(name, 0) + 1
            if only and "htj2k" not in only:
                continue
            target = Path(out) / "htj2k" / f"{number:03}_{index:03}.dcm"
            target.parent.mkdir(parents=True, exist_ok=True)
            if int(d.get("NumberOfFrames", 1) or 1) == 1 and d.BitsAllocated == 16 and htj2k(d, target):
                made["htj2k"] = made.get("htj2k", 0) + 1
    for name in [*PROGRAMS, "htj2k"]:
        print(f"{name:30} {made.get(name, 0):6}  {failed.get(name, '')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("reference")
    one.add_argument("folder")
    one.add_argument("--out", required=True)
    two = commands.add_parser("variants")
    two.add_argument("folder")
    two.add_argument("out")
    two.add_argument("--per-folder", type=int, default=3, help="first, last and evenly between")
    two.add_argument("--only", action="append", default=[], help="a kind of copy, such as htj2k; may be repeated")
    arguments = parser.parse_args()
    if arguments.command == "reference":
        reference(arguments.folder, arguments.out)
    else:
        variants(arguments.folder, arguments.out, arguments.per_folder, arguments.only)


if __name__ == "__main__":
    main()
