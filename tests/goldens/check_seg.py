#!/usr/bin/env python3
"""Holds a DICOM Segmentation against the labels that it should say, with readers that are not Hilum's.

    check_seg.py CT_FOLDER LABELS SEG.dcm --segments 1,2 [--strict]

LABELS: raw bytes, [slice][row][column], slices ascending along the normal of the CT. --segments: for each segment the labels that it covers, joined by "+".
One line a reader; exit 1 if any of them sees another voxel, or, with --strict, if one is not installed.
Needs numpy, pydicom, SimpleITK, highdicom; segimage2itkimage (dcmqi) beside this Python or on PATH.
"""
import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pydicom


def slices_of(folder):
    """The frames of a CT, ascending along its normal: SOP Instance UID, frame number (None if single), position."""
    frames, normal = [], None
    for path in sorted(glob.glob(os.path.join(folder, "*"))):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        if "PerFrameFunctionalGroupsSequence" in ds:
            shared = ds.SharedFunctionalGroupsSequence[0]
            for number, groups in enumerate(ds.PerFrameFunctionalGroupsSequence, 1):
                def group(name):
                    return (groups if name in groups else shared)[name][0]
                axes = np.array(group("PlaneOrientationSequence").ImageOrientationPatient, float)
                frames.append((ds.SOPInstanceUID, number, np.array(group("PlanePositionSequence").ImagePositionPatient, float)))
        else:
            axes = np.array(ds.ImageOrientationPatient, float)
            frames.append((ds.SOPInstanceUID, None, np.array(ds.ImagePositionPatient, float)))
        normal = np.cross(axes[:3], axes[3:])
    return sorted(frames, key=lambda frame: normal @ frame[2]), normal


def by_position(seg, frames, normal, shape):
    """Own bit unpacking, every frame placed by its position."""
    count = int(seg.NumberOfFrames)
    size = seg.Rows * seg.Columns
    assert len(seg.PixelData) == (count * size + 15) // 16 * 2, f"PixelData has {len(seg.PixelData)} bytes"
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[: count * size].reshape(count, *shape[1:])
    along = np.array([normal @ frame[2] for frame in frames])
    out = np.zeros((len(seg.SegmentSequence), *shape), np.uint8)
    for image, groups in zip(bits, seg.PerFrameFunctionalGroupsSequence):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        k = int(np.argmin(abs(along - normal @ position)))
        assert np.abs(position - frames[k][2]).max() < 1e-3, f"a frame lies at {position}"
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        number = source.get("ReferencedFrameNumber")
        assert (source.ReferencedSOPInstanceUID, None if number is None else int(number)) == frames[k][:2], "a frame names another slice"
        out[int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber) - 1, k] = image
    return out


def highdicom_by_source(path, frames, segments):
    import highdicom as hd

    seg = hd.seg.segread(path)
    numbers = list(range(1, segments + 1))
    if frames[0][1] is None:
        uids = [frame[0] for frame in frames]
        pixels = seg.get_pixels_by_source_instance(uids, segment_numbers=numbers, assert_missing_frames_are_empty=True)
    else:
        pixels = seg.get_pixels_by_source_frame(
            frames[0][0], [frame[1] for frame in frames], segment_numbers=numbers, assert_missing_frames_are_empty=True
        )
    return np.moveaxis(np.asarray(pixels, np.uint8), -1, 0)


def highdicom_volume(path, frames, normal, shape, segments):
    import highdicom as hd

    volume = hd.seg.segread(path).get_volume(segment_numbers=list(range(1, segments + 1)), allow_missing_positions=True)
    along = np.array([normal @ frame[2] for frame in frames])
    out = np.zeros((segments, *shape), np.uint8)
    for i in range(volume.array.shape[0]):
        k = int(np.argmin(abs(along - normal @ (volume.affine @ [i, 0, 0, 1])[:3])))
        out[:, k] = np.moveaxis(volume.array[i], -1, 0)
    return out


def dcmqi_volume(path, frames, normal, shape, segments):
    import SimpleITK as sitk

    program = shutil.which("segimage2itkimage", path=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", ""))
    if not program:
        raise ImportError("segimage2itkimage")
    along = np.array([normal @ frame[2] for frame in frames])
    out = np.zeros((segments, *shape), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run([program, "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd"], capture_output=True, text=True)
        written = sorted(glob.glob(folder + "/*.nrrd"))
        if run.returncode or not written:
            raise RuntimeError(" / ".join((run.stdout + run.stderr).strip().splitlines()[-3:]))
        for file in written:
            image = sitk.ReadImage(file)
            segment = int(os.path.basename(file).split(".")[0]) - 1
            array = sitk.GetArrayFromImage(image)
            assert array.shape[1:] == shape[1:], array.shape
            for i in range(array.shape[0]):
                point = np.array(image.TransformIndexToPhysicalPoint((0, 0, i)))
                k = int(np.argmin(abs(along - normal @ point)))
                if abs(along[k] - normal @ point) < 1e-2:
                    assert np.abs(point - frames[k][2]).max() < 1e-2, f"a slice lies at {point}"
                    out[segment, k] = array[i] > 0
                else:
                    assert not array[i].any(), "a mask between the slices"
    return out


def is_regular(frames, normal):
    """Whether the positions make one orthogonal volume; the volume readers refuse others, and so do not judge them."""
    offsets = np.array([frame[2] - frames[0][2] for frame in frames])
    along = offsets @ normal
    even = len(frames) > 1 and np.abs(np.diff(along) / np.mean(np.diff(along)) - 1).max() < 0.01
    return even and np.abs(offsets - np.outer(along, normal)).max() < 1e-2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct")
    parser.add_argument("labels")
    parser.add_argument("seg")
    parser.add_argument("--segments", default="1,2")
    parser.add_argument("--strict", action="store_true", help="a reader that is missing is a failure")
    arguments = parser.parse_args()

    seg = pydicom.dcmread(arguments.seg)
    frames, normal = slices_of(arguments.ct)
    shape = (len(frames), seg.Rows, seg.Columns)
    labels = np.fromfile(arguments.labels, np.uint8).reshape(shape)
    expected = np.stack([np.isin(labels, [int(label) for label in part.split("+")]) for part in arguments.segments.split(",")]).astype(np.uint8)
    readers = {
        "by position": lambda: by_position(seg, frames, normal, shape),
        "highdicom by source": lambda: highdicom_by_source(arguments.seg, frames, len(expected)),
    }
    if is_regular(frames, normal):
        readers["highdicom volume"] = lambda: highdicom_volume(arguments.seg, frames, normal, shape, len(expected))
        readers["dcmqi"] = lambda: dcmqi_volume(arguments.seg, frames, normal, shape, len(expected))
    else:
        print("skipped highdicom volume, dcmqi: the slices are uneven or sheared, which neither reads")
    wrong = 0
    for name, read in readers.items():
        try:
            different = int((read() != expected).sum())
            print(f"{'ok' if different == 0 else 'WRONG'} {name}: {different} voxels differ")
            wrong += different > 0
        except ImportError as error:
            print(f"{'MISSING' if arguments.strict else 'skipped'} {name}: {error}")
            wrong += arguments.strict
        except Exception as error:
            print(f"WRONG {name}: {type(error).__name__}: {error}")
            wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
