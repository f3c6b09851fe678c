"""Masks as other programs write them: makes evaluate_*.dcm and evaluate_mask.nii.gz beside this file.

    python tests/goldens/evaluate_files.py      (needs numpy, pydicom, highdicom, nibabel)

One synthetic mask with a right and a left lung on 14 slices, the first and last two of them empty, as a binary segmentation (sparse), a deflated one (by pydicom), a label map
and a fractional one by highdicom, and as NIfTI by nibabel, stored as RAS. There is no patient in it.
"""

import pathlib

import highdicom as hd
import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

SHAPE, SPACING, ORIGIN = (14, 20, 26), (2.5, 0.75, 0.75), (-20.25, -110.5, -300.0)
here = pathlib.Path(__file__).parent
uid = "2.25.9000000000000000000000000000000".__add__


def lungs():
    z, y, x = np.meshgrid(*[np.arange(n, dtype=float) for n in SHAPE], indexing="ij")
    out = np.zeros(SHAPE, np.uint8)
    # Rows of the image run to the patient's left: the right lung has the small columns.
    out[((z - 7) / 4.6) ** 2 + ((y - 10) / 8) ** 2 + ((x - 7) / 5) ** 2 <= 1] = 1
    out[((z - 6) / 3.6) ** 2 + ((y - 11) / 7) ** 2 + ((x - 19) / 4) ** 2 <= 1] = 2
    return out


def ct(k):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid(f"1{k}")
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = uid("2"), uid("3"), uid("4")
    d.Modality, d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "CT", "Phantom^Mask", "PHANTOM", "", "O"
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = "20200101", "120000", "1", "", ""
    d.Rows, d.Columns, d.InstanceNumber = SHAPE[1], SHAPE[2], k + 1
    d.PixelSpacing, d.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
    d.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + k * SPACING[0]]
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    return d


def segmentation(labels, kind, syntax, fractional=None):
    def segment(number, label, code):
        family = Code("123110", "DCM", "Artificial Intelligence")
        return hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=Code("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=code,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(name="made up", family=family, version="1"),
        )

    return hd.seg.Segmentation(
        source_images=[ct(k) for k in range(SHAPE[0])],
        pixel_array=labels if fractional is None else fractional,
        segmentation_type=kind,
        segment_descriptions=[
            segment(1, "Right lung", Code("3341006", "SCT", "Right lung")),
            segment(2, "Left lung", Code("44029006", "SCT", "Left lung")),
        ],
        series_instance_uid=uid("5"),
        series_number=9,
        sop_instance_uid=uid("6"),
        instance_number=1,
        manufacturer="made up",
        manufacturer_model_name="made up",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=syntax,
        omit_empty_frames=True,
    )


def main():
    labels = lungs()
    kinds = hd.seg.SegmentationTypeValues
    soft = np.stack([(labels == 1) * 0.9, (labels == 2) * 0.7], -1).astype(np.float32)
    segmentation(labels, kinds.BINARY, ExplicitVRLittleEndian).save_as(here / "evaluate_binary.dcm")
    deflated = segmentation(labels, kinds.BINARY, ExplicitVRLittleEndian)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated.save_as(here / "evaluate_deflated.dcm")
    segmentation(labels, kinds.LABELMAP, ExplicitVRLittleEndian).save_as(here / "evaluate_labelmap.dcm")
    segmentation(labels, kinds.FRACTIONAL, ExplicitVRLittleEndian, soft).save_as(here / "evaluate_fractional.dcm")
    # RAS: x and y turned over.
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = [-(ORIGIN[0] + (SHAPE[2] - 1) * SPACING[2]), -(ORIGIN[1] + (SHAPE[1] - 1) * SPACING[1]), ORIGIN[2]]
    nib.save(nib.Nifti1Image(np.ascontiguousarray(labels.transpose(2, 1, 0)[::-1, ::-1]), affine), here / "evaluate_mask.nii.gz")
    print("voxels of the right and the left lung:", (labels == 1).sum(), (labels == 2).sum())


if __name__ == "__main__":
    main()
