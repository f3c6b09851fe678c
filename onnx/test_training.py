"""What training is fed: cases on the network's grid, crops, painted disease.

    python -m pytest onnx
"""
import numpy as np
import nibabel as nib
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

import augment
import baseline
import disease
import evaluate
import phantoms
import prepare
import relabel
import train


def chest(shape=(40, 120, 140)):
    """HU, lung and inward distance of two boxes of lung in a box of soft tissue."""
    hu = np.full(shape, -1000, np.int16)
    hu[:, 10:-10, 10:-10] = 40
    lung = np.zeros(shape, np.uint8)
    lung[4:-4, 25:-25, 20:60], lung[4:-4, 25:-25, 80:120] = 1, 2
    hu[lung > 0] = -850
    inward = np.zeros(shape, np.uint8)
    for side, (first, last) in ((1, (20, 60)), (2, (80, 120))):
        _, rows, columns = np.indices(shape)
        depth = np.minimum.reduce([rows - 24, shape[1] - 25 - rows, columns - first + 1, last - columns])
        inward[lung == side] = (0.8 * depth[lung == side]).clip(1, 255)
    return hu, lung, inward


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = tmp_path_factory.mktemp("cases") / "boxes.npz"
    hu, lung, inward = chest()
    np.savez_compressed(path, hu=hu, lung=lung, inward=inward)
    return augment.Case.load(path)


def write_series(folder, hu, across, down, spacing, thickness):
    """A CT series of [slice][row][column], its slices named in an order that is not theirs."""
    normal = np.cross(across, down)
    for index, pixels in enumerate(hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        s = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        s.SOPClassUID, s.SOPInstanceUID, s.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "CT"
        s.Rows, s.Columns = pixels.shape
        s.SamplesPerPixel, s.PhotometricInterpretation, s.BitsAllocated, s.BitsStored, s.HighBit, s.PixelRepresentation = 1, "MONOCHROME2", 16, 16, 15, 1
        s.RescaleSlope, s.RescaleIntercept, s.SliceThickness, s.PixelSpacing = 1, -24, thickness, [spacing, spacing]
        s.ImageOrientationPatient = [*across, *down]
        s.ImagePositionPatient = [float(v) for v in normal * thickness * index]
        s.PixelData = (pixels.astype(np.int16) + 24).tobytes()
        s.save_as(folder / f"{(index * 7) % len(hu):03}.dcm", enforce_file_format=True)


@pytest.mark.parametrize("across, down", [((1, 0, 0), (0, 1, 0)), ((-1, 0, 0), (0, -1, 0)), ((0, 1, 0), (-1, 0, 0)), ((-1, 0, 0), (0, 1, 0))])
def test_a_case_is_turned_into_the_patients_directions(tmp_path, across, down):
    """Supine, prone, on the side, and feet first: the stored voxels differ, the prepared ones do not."""
    across, down = np.array(across, float), np.array(down, float)
    rng = np.random.default_rng(0)
    patient = rng.integers(-1000, 200, (6, 8, 10))            # foot to head, front to back, right to left
    lung = np.zeros(patient.shape, np.uint8)
    lung[:, 2:6, 1:4], lung[:, 2:6, 6:9] = 1, 2
    directions = np.eye(4)
    directions[:3, :3] = np.stack([across, down, np.cross(across, down)], 1)
    from_patient = nib.orientations.ornt_transform(nib.orientations.io_orientation(np.eye(4)), nib.orientations.io_orientation(directions))
    stored = nib.orientations.apply_orientation(patient.transpose(2, 1, 0), from_patient)
    (tmp_path / "ct").mkdir()
    write_series(tmp_path / "ct", stored.transpose(2, 1, 0), across, down, 0.8, 5.0)
    mask = nib.orientations.apply_orientation(lung.transpose(2, 1, 0), from_patient)
    nib.save(nib.Nifti1Image(mask, np.diag([-1.0, -1, 1, 1]) @ directions @ np.diag([0.8, 0.8, 5, 1])), tmp_path / "mask.nii.gz")
    arrays = prepare.prepare(tmp_path)
    np.testing.assert_array_equal(arrays["hu"], patient)
    np.testing.assert_array_equal(arrays["lung"], lung)
    assert arrays["inward"][lung == 0].max() == 0 and arrays["inward"][lung > 0].min() >= 1


def test_sampling_is_monais_spacing():
    transforms = pytest.importorskip("monai.transforms", reason="monai is not installed")
    import torch
    from monai.data import MetaTensor
    volume = np.random.default_rng(1).normal(size=(9, 14, 12)).astype(np.float32)
    source = (3.1, 0.73, 0.93)
    image = MetaTensor(torch.from_numpy(volume)[None], affine=torch.diag(torch.tensor([*source, 1.0], dtype=torch.float64)))
    expected = transforms.Spacing(prepare.SPACING_MM, mode="bilinear")(image)[0].numpy()
    got = prepare.sample(volume, [np.arange(n) * s for n, s in zip(volume.shape, source)], prepare.SPACING_MM)
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_uneven_slices_are_sampled_at_their_true_places():
    positions = np.array([0.0, 4.0, 5.0, 17.0])
    ramp = np.broadcast_to(positions[:, None, None], (4, 3, 3)).astype(np.float32)
    got = prepare.sample(ramp, [positions, np.arange(3) * 0.8, np.arange(3) * 0.8], prepare.SPACING_MM)
    np.testing.assert_allclose(got[:, 1, 1], [0, 5, 10, 15], atol=1e-5)


def test_an_example_depends_on_its_seed_alone(case):
    size = (32, 64, 96)
    first, again, other = (augment.example(case, np.random.default_rng(seed), size, 1.0) for seed in ((1, 5), (1, 5), (1, 6)))
    for a, b in zip(first, again):
        assert a.shape == size and a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).any()


def test_a_crop_keeps_image_and_lung_together(case):
    """In the boxes everything below -400 HU inside the body is lung and nothing else is: so it must be after any turn."""
    for seed in range(8):
        hu, lung, inward = augment.crop(case, np.random.default_rng(seed), (32, 64, 64))
        clear_lung, clear_tissue = (hu > -860) & (hu < -800), hu > 0
        assert (lung[clear_lung] > 0).mean() > 0.99 or not clear_lung.any()
        assert not lung[clear_tissue].any()
        assert inward[lung == 0].mean() < 1


@pytest.mark.parametrize("kind", disease.KINDS)
def test_disease_changes_the_lung_and_nothing_else(kind, monkeypatch):
    hu, lung, inward = chest()
    monkeypatch.setattr(disease, "KINDS", {kind: (1.0, disease.KINDS[kind][1])})
    for seed in range(3):
        painted, left = disease.paint(hu.astype(np.float32), lung, inward, np.random.default_rng(seed))
        changed = painted != hu
        assert changed.any() and not changed[lung == 0].any() and np.isfinite(painted).all()
        assert not left[lung == 0].any()
        if kind == "effusion":   # fluid is not lung
            assert 0 < (left > 0).sum() < (lung > 0).sum()
        else:
            np.testing.assert_array_equal(left, lung)


@pytest.mark.parametrize("kind", evaluate.PAINTED)
def test_the_painting_that_measures_is_dense_and_inside_the_lung(kind):
    hu, lung, _ = chest()
    painted, where = evaluate.paint_to_measure(hu.astype(np.float32), lung, 3, kind)
    assert where.sum() > 0.05 * (lung > 0).sum() and not where[lung == 0].any()
    assert np.median(painted[where]) > -50 and (painted[lung == 0] == hu[lung == 0]).all()
    slices = np.nonzero(where)[0]
    middle = np.nonzero(lung)[0].mean()
    assert kind == "patches" or (slices.mean() < middle) == (kind == "base")


def test_the_fluid_that_measures_lies_behind_and_is_as_dense_as_water():
    hu, lung, _ = chest()
    painted, where = evaluate.paint_to_measure(hu.astype(np.float32), lung, 3, evaluate.FLUID)
    assert 0.05 < where.sum() / (lung > 0).sum() < 0.5 and not where[lung == 0].any()
    assert abs(np.median(painted[where]) - evaluate.FLUID_HU) < 5
    assert np.nonzero(where)[1].mean() > np.nonzero(lung)[1].mean()


def test_fluid_that_is_left_out_scores_and_fluid_that_is_taken_does_not(tmp_path):
    hu, lung, _ = chest()
    np.savez(tmp_path / "chest.npz", hu=hu, lung=lung)
    finders = (lambda _, image: (lung > 0) & (image < -400), lambda _, image: lung > 0)
    aerated, everything = (next(evaluate.rows(None, [tmp_path / "chest.npz"], evaluate.FLUID, find)) for find in finders)
    assert aerated["painted_dice"] > 0.95 and aerated["painted_kept"] < 0.1
    assert everything["painted_kept"] == 1 and everything["painted_dice"] < 0.95


def imaged(hu):
    """As a scanner would show it: every edge is spread over some voxels, of which those outside the lung hold a part of its air."""
    return ndimage.gaussian_filter(hu.astype(np.float32), (0.4, 1, 1))


def darkest_at_the_edge(painted, lung, where):
    """The lowest HU within two voxels of the surface of the lung, beside where all of it is painted."""
    across = np.ones((1, 5, 5))
    edge = ndimage.binary_dilation(lung > 0, across) & ~ndimage.binary_erosion(lung > 0, across)
    healthy = ndimage.binary_dilation((lung > 0) & ~where, np.ones((3, 11, 11)))
    return painted[edge & ndimage.binary_dilation(where, across) & ~healthy].min()


def test_airless_lung_has_no_dark_outline(monkeypatch):
    """Neither painter may leave air at the pleura: a network would find the lung by that line alone, and real disease has none."""
    hu, lung, inward = chest()
    hu = imaged(hu)
    assert (hu[lung == 0][hu[lung == 0] < -160] > -950).any()
    monkeypatch.setattr(disease, "made_up", lambda scene: np.full(scene.shape, 40, np.float32))
    monkeypatch.setattr(disease, "moved", disease.made_up)
    monkeypatch.setattr(disease, "tubes", lambda scene: np.zeros(scene.shape, bool))
    for seed in range(6):
        scene = disease.Scene(hu, lung, inward.astype(np.float32), np.random.default_rng(seed))
        where = scene.one_side()
        assert darkest_at_the_edge(hu, lung, where) < -700
        painted = disease.dense(scene, scene.soften(where, where))
        assert darkest_at_the_edge(painted, lung, where) > -160
    for kind in ("base", "apex"):
        painted, where = evaluate.paint_to_measure(hu, lung, 3, kind)
        assert darkest_at_the_edge(painted, lung, where) > -160


def test_a_windpipe_beside_airless_lung_stays_air():
    hu, lung, inward = chest()
    hu[:, 60:72, 61:75] = -1000   # a voxel from the lung
    before = hu.astype(np.float32)
    scene = disease.Scene(before, lung, inward.astype(np.float32), np.random.default_rng(0))
    painted = disease.fill(scene, (lung == 1).astype(np.float32), np.full(hu.shape, 40, np.float32))
    measured, _ = evaluate.paint_to_measure(before, lung, 3, "base")
    for after in (painted, measured):
        np.testing.assert_array_equal(after[:, 60:72, 61:75], before[:, 60:72, 61:75])


def with_a_dense_lobe():
    """A chest whose right lung is airless in front, over 32 mm, which the reference leaves out; and where that is."""
    hu, lung, _ = chest()
    lobe = np.zeros(lung.shape, bool)
    lobe[10:30, 25:65, 20:60] = True
    hu[lobe] = 40
    return hu, np.where(lobe, 0, lung).astype(np.uint8), lobe


def test_a_lobe_that_was_looked_at_joins_the_reference_and_nothing_beside_it():
    hu, lung, lobe = with_a_dense_lobe()
    said = (lung > 0) | lobe
    said[10:30, 20:24, 62:78] = True   # and something in front of the heart, outside the box
    arrays, more_ml = relabel.relabel({"hu": hu, "lung": lung, "inward": prepare.depth_mm(lung > 0)}, said, [(8, 31), (22, 70), (15, 61)])
    np.testing.assert_array_equal(arrays["lung"], np.where(lobe, 1, lung))
    np.testing.assert_array_equal(arrays["inward"], prepare.depth_mm(arrays["lung"] > 0))
    assert more_ml == pytest.approx(lobe.sum() * 0.0032) and (arrays["hu"] == hu).all()


def test_airless_lung_is_told_of_where_the_reference_has_it(tmp_path):
    hu, lung, lobe = with_a_dense_lobe()
    hu[10:30, 60:64, 100:104] = 40   # a vessel
    whole = np.where(lobe, 1, lung).astype(np.uint8)
    np.testing.assert_array_equal(evaluate.airless(hu, whole), lobe)
    for name, reference in (("without", lung), ("with", whole)):
        np.savez(tmp_path / f"{name}.npz", hu=hu, lung=reference)
    half = lobe.copy()
    half[:20] = False
    rows = list(evaluate.rows(None, [tmp_path / "without.npz", tmp_path / "with.npz"], find=lambda _, hu: (lung > 0) | half))
    assert "airless_ml" not in rows[0]
    assert rows[1]["airless_ml"] == pytest.approx(lobe.sum() * 0.0032) and rows[1]["airless_kept"] == pytest.approx(0.5)


def test_real_airless_lung_is_drawn_oftener_than_phantoms(tmp_path):
    hu, lung, lobe = with_a_dense_lobe()
    cases = []
    for name, reference in (("left_out", lung), ("in", np.where(lobe, 1, lung).astype(np.uint8)), ("phantom", np.where(lobe, 1, lung).astype(np.uint8))):
        np.savez(tmp_path / f"{name}.npz", hu=hu, lung=reference, inward=prepare.depth_mm(reference > 0))
        cases.append(augment.Case.load(tmp_path / f"{name}.npz"))
    left_out, inside, phantom = cases
    assert left_out.airless_cm2 == 0 and inside.airless_cm2 == pytest.approx(32 * 32 / 100, rel=0.1)
    examples = train.Examples([], 1, (32, 64, 64), 0.6, 0.2, 0.3, 1, tmp_path)
    weights = [examples.weight(c) for c in (left_out, inside, phantom)]
    assert weights[1] > 1.8 * weights[0] and weights[2] == pytest.approx(0.3 * weights[0])


def test_single_slices_with_real_airless_lung_come_often_and_are_looked_at_there(tmp_path):
    hu, lung, lobe = with_a_dense_lobe()
    slices = []
    for name, reference in (("left_out", lung), ("inside", np.where(lobe, 1, lung).astype(np.uint8))):
        np.savez(tmp_path / f"{name}.npz", hu=hu[20:21], lung=reference[20:21], inward=prepare.depth_mm(reference > 0)[20:21])
        slices.append(augment.Case.load(tmp_path / f"{name}.npz"))
    weights = [train.Examples([], 1, (32, 64, 64), 0.6, 0.2, 0.3, 1, tmp_path).weight(c) for c in slices]
    assert weights == [1, 5]
    assert len(slices[0].places["airless"]) == 0
    assert len(places := slices[1].places["airless"]) > 100 and lobe[20][tuple(places[:, 1:].T)].all()


def test_blended_windows_give_back_a_function_of_the_voxel_alone():
    """A network that looks at single voxels: whatever the windows, its answer inside the body is that of the whole."""
    hu = np.full((45, 260, 300), -1000, np.int16)
    hu[3:-2, 20:-20, 30:-30] = np.random.default_rng(2).integers(-400, 400, (40, 220, 240))
    logits = evaluate.predict(lambda window: window * 2 - 1, hu)
    body = evaluate.body_box(hu)
    np.testing.assert_allclose(logits[body], evaluate.scale(hu[body]) * 2 - 1, atol=1e-6)
    assert (np.delete(logits, np.arange(body[0].start, body[0].stop), 0) < -10).all()


def airy_chest():
    """`chest` with vessels in the lungs, a windpipe between them that ends in one bronchus, gas of the bowel below, and a table with air in it."""
    hu, lung, _ = chest()
    truth = lung > 0
    hu[8:30, 60:63, 30:33] = 40                                   # a vessel
    down, across = np.indices(hu.shape[1:])
    lumen = np.hypot(down - 60, across - 70) <= 7
    hu[20:, lumen] = -1000
    hu[1:3, 30:60, 30:60] = -1000                                 # too small to be the second lung
    hu[:, -8:-4, 20:-20] = 40
    hu[:, -7:-5, 22:-22] = -950
    return hu, truth, lumen


def test_the_threshold_takes_the_lungs_and_neither_windpipe_nor_bowel_nor_air_outside():
    hu, truth, lumen = airy_chest()
    found = baseline.segment(hu)
    assert evaluate.dice(found, truth) > 0.985
    assert not found[20:, lumen].any() and not found[1:3].any() and not found[:, :24].any() and not found[:, -24:].any()
    assert found[10:28, 60:63, 30:33].all()


def test_the_threshold_loses_dense_lung_and_keeps_one_lung_of_two():
    hu, truth, _ = airy_chest()
    dense = np.zeros(hu.shape, bool)
    dense[6:30, 60:, 20:60] = True
    dense &= truth
    hu[dense] = 40
    found = baseline.segment(hu)
    assert (found & dense).sum() < 0.3 * dense.sum()
    assert (found & truth & ~dense).sum() > 0.98 * (truth & ~dense).sum()
    assert not baseline.segment(np.full((6, 40, 40), 40, np.int16)).any()


def test_only_a_round_piece_near_the_middle_is_a_windpipe():
    hu, _, lumen = airy_chest()
    air = baseline.inside_air(hu)
    tubes = baseline.airways(hu, air)
    assert tubes[25, lumen].all() and not tubes[10].any() and not tubes[25, 60, 30]
    hu[20:, lumen] = 40
    assert not baseline.airways(hu, baseline.inside_air(hu)).any()


def test_a_seed_draws_one_phantom_and_seeds_draw_different_ones():
    drawn = [phantoms.settings(seed) for seed in range(300, 340)]
    assert drawn == [phantoms.settings(seed) for seed in range(300, 340)]
    healthy = [all(f"--{disease}" not in of for disease in phantoms.DISEASES) for of in drawn]
    assert 0 < sum(healthy) < 20
    assert all(any(f"--{disease}" in of for of in drawn) for disease in phantoms.DISEASES)
