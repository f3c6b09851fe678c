#!/usr/bin/env python3
"""What other programs read from DICOM images, for tests/reading.rs.

    read_reference.py reference FOLDER --out reading.json     digests of the stored values of every frame, by pydicom; each compared with SimpleITK
    read_reference.py variants FOLDER OUT [--per-folder N | --every-slice]    lossless copies in every transfer syntax that dcmtk, gdcm and OpenJPH can write
    read_reference.py baseline FOLDER                         a small CT-like image of 8 bits as baseline JPEG, by dcmtk, and its values, by pydicom
    read_reference.py small FOLDER                            a small CT-like image of 12 bits in the lossless JPEG syntaxes, by dcmtk, gdcm and OpenJPH
    read_reference.py rescale FOLDER                          HU of small slices whose slope and intercept are no whole numbers, by pydicom and SimpleITK
    read_reference.py hu FOLDER --out hounsfield.json         digests of the HU of every series, by pydicom and SimpleITK

A digest is the first 32 hex digits of the SHA-256 of the stored values as little-endian int32, row by row. Its key is the first 16 hex digits of the SHA-256
of the SOP Instance UID, then a colon and the frame from 0. The same image in several transfer syntaxes has one key and must have one digest.

The goldens that stand beside this script: `baseline tests/goldens`, `rescale tests/goldens`, `small tests/goldens` (for tests/hostile.rs, and the first
inputs of fuzz/run.sh).

SimpleITK reads each file by itself (a multi-frame file as one volume); its values must equal stored * slope + intercept exactly where these are whole numbers,
and within one unit in the last place of float32 elsewhere.

Needs pydicom with pylibjpeg, pylibjpeg-libjpeg, pylibjpeg-openjpeg and pyjpegls, SimpleITK and numpy; for variants imagecodecs, dcmtk, gdcmconv and ojph_compress.
"""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
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
    "explicit_gdcm": ["gdcmconv", "--raw"],
    "rle_gdcm": ["gdcmconv", "--rle"],
    "jpeg_lossless_gdcm": ["gdcmconv", "--jpeg"],
    "jpeg_ls_gdcm": ["gdcmconv", "--jpegls"],
    "jpeg_2000_gdcm": ["gdcmconv", "--j2k"],
}


# HTJ2K: transfer syntax and options of OpenJPH, whose version 0.9 makes black rows of a small image in five lossy decompositions.
HTJ2K = {
    "htj2k": ("1.2.840.10008.1.2.4.201", ["-reversible", "true"]),
    "htj2k_rpcl": ("1.2.840.10008.1.2.4.202", ["-reversible", "true", "-prog_order", "RPCL"]),
    "htj2k_lossy": ("1.2.840.10008.1.2.4.203", ["-reversible", "false", "-qstep", "0.001", "-num_decomps", "2"]),
}


def with_tile_part_lengths(code):
    """A codestream with the TLM marker segment that the RPCL syntax asks for and Debian's OpenJPH does not write."""
    first = at = code.index(b"\xff\x90")
    lengths = b""
    while code[at:at + 2] == b"\xff\x90":
        lengths += code[at + 6:at + 10]
        at += int.from_bytes(code[at + 6:at + 10], "big")
    # Tile-parts in the order of their tiles, one each: no index beside the 32 bits of length.
    segment = bytes([0, 0x40]) + lengths
    return code[:first] + b"\xff\x55" + (2 + len(segment)).to_bytes(2, "big") + segment + code[first:]


def htj2k(d, path, kind="htj2k"):
    """OpenJPH: its program for unsigned samples of their own depth, its library for signed ones, which the program cuts off at zero."""
    syntax, options = HTJ2K[kind]
    if d.PixelRepresentation:
        try:
            import imagecodecs
        except ImportError:
            return False
        code = imagecodecs.htj2k_encode(d.pixel_array, reversible=True)
    else:
        with tempfile.TemporaryDirectory() as t:
            Path(f"{t}/in.pgm").write_bytes(f"P5 {d.Columns} {d.Rows} {2 ** d.BitsStored - 1}\n".encode() + d.pixel_array.astype(">u2").tobytes())
            done = subprocess.run(["ojph_compress", "-i", f"{t}/in.pgm", "-o", f"{t}/out.j2c", *options], capture_output=True, text=True)
            if done.returncode or not Path(f"{t}/out.j2c").exists():
                return False
            code = Path(f"{t}/out.j2c").read_bytes()
    d.PixelData = encapsulate([with_tile_part_lengths(code) if kind == "htj2k_rpcl" else code])
    d["PixelData"].VR = "OB"
    d.file_meta.TransferSyntaxUID = syntax
    d.save_as(path)
    return True


def variants(folder, out, per_folder, only):
    """`per_folder` None: every slice."""
    made, failed = {}, {}
    by_folder = {}
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        try:
            d = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:
            continue
        if d.get("Modality") == "CT" and "Rows" in d and int(d.get("SamplesPerPixel", 1)) == 1:
            by_folder.setdefault(path.parent, []).append(path)
    programs = {name: program for name, program in PROGRAMS.items() if not only or name in only}
    for name, program in list(programs.items()):
        (Path(out) / name).mkdir(parents=True, exist_ok=True)
        if not shutil.which(program[0]):
            failed[name] = f"{program[0]} is not installed"
            del programs[name]

    def copy(raw, name, file):
        """None, or what the program says where it fails."""
        target = Path(out) / name / file
        done = subprocess.run([*programs[name], raw, str(target)], capture_output=True, text=True)
        if done.returncode or not target.exists():
            target.unlink(missing_ok=True)
            return (done.stderr or done.stdout).strip()[:120] or "no words"

    pool = ThreadPoolExecutor(os.cpu_count())
    for number, (parent, paths) in enumerate(by_folder.items()):
        few = per_folder is not None and len(paths) > per_folder
        chosen = [paths[i * (len(paths) - 1) // max(per_folder - 1, 1)] for i in range(per_folder)] if few else paths
        for index, path in enumerate(chosen):
            d = pydicom.dcmread(path)
            try:
                if d.file_meta.TransferSyntaxUID.is_compressed:
                    d.decompress(generate_instance_uid=False)
                d.pixel_array
            except Exception:
                continue
            file = f"{number:03}_{index:03}.dcm"
            with tempfile.TemporaryDirectory() as t:
                raw = f"{t}/raw.dcm"
                d.save_as(raw)
                for name, words in zip(programs, pool.map(lambda name: copy(raw, name, file), programs)):
                    if words:
                        failed[name] = f"{path}: {words}"
                    else:
                        made[name] = made.get(name, 0) + 1
            if only and "htj2k" not in only:
                continue
            target = Path(out) / "htj2k" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not shutil.which("ojph_compress"):
                failed["htj2k"] = "ojph_compress is not installed"
            elif int(d.get("NumberOfFrames", 1) or 1) == 1 and d.BitsAllocated == 16 and d.original_encoding[1] and htj2k(d, target):
                made["htj2k"] = made.get("htj2k", 0) + 1
            else:
                failed["htj2k"] = f"{path}: one frame of 16 bits in little endian is taken, and signed samples need imagecodecs"
    for name in [*PROGRAMS, "htj2k"]:
        print(f"{name:30} {made.get(name, 0):6}  {failed.get(name, '')}")


def small_ct(values, bits):
    """A CT slice of unsigned samples, with what Hilum asks of a header and no more."""
    d = pydicom.Dataset()
    d.SOPClassUID, d.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.9.7.1"
    d.StudyInstanceUID, d.SeriesInstanceUID = "1.2.826.0.1.3680043.9.7.2", "1.2.826.0.1.3680043.9.7.3"
    d.Modality, d.PatientID, d.PatientName = "CT", "P1", "Phantom"
    d.ImageType, d.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1
    d.ImagePositionPatient, d.ImageOrientationPatient, d.PixelSpacing = [0, 0, 0], [1, 0, 0, 0, 1, 0], [7, 7]
    (d.Rows, d.Columns), d.SamplesPerPixel, d.PhotometricInterpretation = values.shape, 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8 * values.itemsize, bits, bits - 1, 0
    d.PixelData = values.tobytes()
    d["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    d.preamble, d.file_meta = bytes(128), pydicom.dataset.FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = d.SOPClassUID, d.SOPInstanceUID
    d.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return d


def baseline(out):
    """FOLDER/jpeg_baseline.dcm, and FOLDER/jpeg_baseline.json with the values that pydicom reads, row by row."""
    rows, columns = 64, 48
    y, x = np.mgrid[0:rows, 0:columns].astype(float)
    lungs = (((np.abs(x - 24) - 11) / 8) ** 2 + ((y - 32) / 20) ** 2) < 1
    body = ((x - 24) / 22) ** 2 + ((y - 32) / 29) ** 2 < 1
    values = np.where(lungs, 60 + 10 * np.sin(x) * np.cos(y), np.where(body, 170 + 6 * np.sin(x / 3), 5)).round().astype(np.uint8)
    d = small_ct(values, 8)
    path = Path(out) / "jpeg_baseline.dcm"
    with tempfile.TemporaryDirectory() as t:
        d.save_as(f"{t}/raw.dcm", enforce_file_format=True)
        subprocess.run(["dcmcjpeg", "+eb", "+q", "95", "+un", f"{t}/raw.dcm", str(path)], check=True)
    read = pydicom.dcmread(path)
    assert read.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
    record = {"rows": rows, "columns": columns, "values": read.pixel_array.ravel().tolist()}
    path.with_suffix(".json").write_text(json.dumps(record) + "\n")


SMALL = {
    "jpeg_lossless_57": ["dcmcjpeg", "+el", "+sv", "6", "+un"],
    "jpeg_lossless_70": ["dcmcjpeg", "+e1", "+un"],
    "jpeg_2000": ["gdcmconv", "--j2k"],
}


def small(out):
    """FOLDER/NAME.dcm in each of SMALL and of HTJ2K: `picture(20, 30)` of tests/ct_file/mod.rs, with 1000 added so that no value is below zero.
    Beside the lossy one, FOLDER/htj2k_lossy.json: the values that pydicom reads, row by row."""
    y, x = np.mgrid[0:20, 0:30]
    values = (y * 7 - x * 3 + y * x % 61 - 700 + 1000).astype("<u2")
    d = small_ct(values, 12)
    with tempfile.TemporaryDirectory() as t:
        d.save_as(f"{t}/raw.dcm", enforce_file_format=True)
        for name, program in SMALL.items():
            subprocess.run([*program, f"{t}/raw.dcm", str(Path(out) / f"{name}.dcm")], check=True)
    for name in HTJ2K:
        d = small_ct(values, 12)
        if name == "htj2k_lossy":
            d.LossyImageCompression, d.LossyImageCompressionRatio, d.LossyImageCompressionMethod = "01", "3", "ISO_15444_15"
        if not htj2k(d, Path(out) / f"{name}.dcm", name):
            sys.exit("ojph_compress made no image")
    for name in [*SMALL, *HTJ2K]:
        read = pydicom.dcmread(Path(out) / f"{name}.dcm").pixel_array.astype(int)
        if name == "htj2k_lossy":
            assert 0 < np.abs(read - values).max() < 16, np.abs(read - values).max()
            record = {"rows": 20, "columns": 30, "values": read.ravel().tolist()}
            (Path(out) / f"{name}.json").write_text(json.dumps(record) + "\n")
        else:
            assert np.array_equal(read, values), name


FRACTIONAL = [("0.5", "-1023.5"), ("1.0000153", "-1024"), ("1.0000153", "-1023.5"), ("1", "-1023.5"), ("0.1", "-1000.7"), ("0.244140625", "-1024"),
              ("1.52587890625e-2", "-1000.25"), ("1.9999999", "-8192.33")]


def rescale(out):
    """FOLDER/fractional_rescale.json: for each of FRACTIONAL, of the stored values `picture(10, 8)` of tests/ct_file/mod.rs, the float64 of
    pydicom's apply_rescale; SimpleITK's lie within one unit in the last place of float32."""
    import SimpleITK as sitk
    from pydicom.pixels import apply_rescale
    y, x = np.mgrid[0:10, 0:8]
    values = (y * 7 - x * 3 + y * x % 61 - 700).astype("<i2")
    slices = []
    for slope, intercept in FRACTIONAL:
        d = small_ct(values, 16)
        d.PixelRepresentation, d.RescaleSlope, d.RescaleIntercept = 1, slope, intercept
        with tempfile.TemporaryDirectory() as t:
            d.save_as(f"{t}/slice.dcm", enforce_file_format=True)
            d = pydicom.dcmread(f"{t}/slice.dcm")
            ours = apply_rescale(d.pixel_array, d).astype(np.float64)
            theirs = sitk.GetArrayFromImage(sitk.ReadImage(f"{t}/slice.dcm"))[0].astype(np.float64)
        assert np.all(np.abs(ours - theirs) <= np.spacing(np.abs(ours).astype(np.float32))), (slope, intercept)
        slices.append({"slope": slope, "intercept": intercept, "hu": ours.ravel().tolist()})
        print(f"{slope:>16} {intercept:>9}: pydicom and SimpleITK at most {np.abs(ours - theirs).max():.3g} HU apart")
    text = ",\n".join(json.dumps(one) for one in slices)
    (Path(out) / "fractional_rescale.json").write_text(f'{{"rows": 10, "columns": 8, "slices": [\n{text}\n]}}\n')


def hounsfield(folder, out):
    """Of each series the SHA-256 over its slices in the order of their SOP Instance UIDs, each as float32 HU: stored * slope + intercept in float64, rounded once."""
    import SimpleITK as sitk
    series = {}
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        try:
            d = pydicom.dcmread(path)
        except Exception:
            continue
        if d.get("Modality") == "CT" and "PixelData" in d and "RescaleSlope" in d and int(d.get("NumberOfFrames", 1) or 1) == 1:
            series.setdefault((str(path.parent.relative_to(folder)), str(d.SeriesInstanceUID)), []).append((str(d.SOPInstanceUID), path, d))
    table = {}
    for (name, uid), slices in series.items():
        if len(slices) < 4:
            continue
        total = hashlib.sha256()
        for _, path, d in sorted(slices, key=lambda one: one[0]):
            slope, intercept = rescale_of(d, 0)
            values = (d.pixel_array.astype(np.float64) * slope + intercept).astype("<f4")
            theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).reshape(values.shape).astype(np.float64)
            if slope == int(slope) and intercept == int(intercept):
                assert np.array_equal(theirs, values.astype(np.float64)), path
            else:
                assert np.all(np.abs(theirs - values) <= np.spacing(np.abs(values))), path
            total.update(np.ascontiguousarray(values).tobytes())
        table[hashlib.sha256(uid.encode()).hexdigest()[:16]] = {"slices": len(slices), "sha256": total.hexdigest()[:32]}
        print(f"{name:60} {len(slices):5} slices")
    Path(out).write_text(json.dumps(dict(sorted(table.items())), indent=0) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("reference")
    one.add_argument("folder")
    one.add_argument("--out", required=True)
    three = commands.add_parser("baseline")
    three.add_argument("folder")
    five = commands.add_parser("small")
    five.add_argument("folder")
    six = commands.add_parser("rescale")
    six.add_argument("folder")
    four = commands.add_parser("hu")
    four.add_argument("folder")
    four.add_argument("--out", required=True)
    two = commands.add_parser("variants")
    two.add_argument("folder")
    two.add_argument("out")
    two.add_argument("--per-folder", type=int, default=3, help="first, last and evenly between")
    two.add_argument("--every-slice", action="store_true", help="instead of some a folder")
    two.add_argument("--only", action="append", default=[], help="a kind of copy, such as htj2k; may be repeated")
    arguments = parser.parse_args()
    if arguments.command == "reference":
        reference(arguments.folder, arguments.out)
    elif arguments.command == "baseline":
        baseline(arguments.folder)
    elif arguments.command == "small":
        small(arguments.folder)
    elif arguments.command == "rescale":
        rescale(arguments.folder)
    elif arguments.command == "hu":
        hounsfield(arguments.folder, arguments.out)
    else:
        variants(arguments.folder, arguments.out, None if arguments.every_slice else arguments.per_folder, arguments.only)


if __name__ == "__main__":
    main()
