"""A prepared case in; a crop as the network sees it, and its lung, out: cut, turned, painted with disease, imaged anew.

What the few real cases lack is made here: other positions, sizes and fields of view, cut lungs and padding, other kernels,
noise and slice thickness, and above all disease. A network learns the painter, so there are many ways to paint:
`disease.py` draws where and what apart from each other and from wide ranges.
All randomness comes from the generator that is handed in.
"""
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

import disease
import evaluate

WINDOW_HU = (-1500.0, 500.0)   # becomes 0..1; what pads a window that sticks out is 0, that is -1500 HU
GAS = 0.2                      # probability of made-up gas outside the lung
SLAB = 34                      # slices to which a flat case is repeated


@dataclass
class Case:
    """One prepared case and, of its voxels, those on which crops are centred."""
    name: str
    hu: np.ndarray        # int16 [slice][row][column]
    lung: np.ndarray      # uint8, 1 right, 2 left
    inward: np.ndarray    # uint8, mm from the lung's surface
    places: dict          # kind -> (n, 3) voxels
    airless_cm2: float = 0.0   # of its lung, in the slice that has most
    mistaken_ml: float = 0.0   # how much of it the network gets wrong, as far as is known

    @classmethod
    def load(cls, path):
        with np.load(path) as arrays:
            hu, lung, inward = arrays["hu"], arrays["lung"], arrays["inward"]
        flat = len(hu) == 1
        inside, body, depth_mm = (a[:, ::2, ::2] for a in (lung > 0, hu > -500, inward))   # every second row and column will do
        enclosed = np.stack([ndimage.binary_fill_holes(b) for b in body]) & ~body & ~inside   # windpipe, gullet, bowel gas
        dense = inside & (hu[:, ::2, ::2] > -400)
        airless = ndimage.binary_opening(inside & (hu[:, ::2, ::2] > evaluate.AIRLESS_HU), np.ones((1, 5, 5)))   # 8 mm wide: no vessel
        edge = (inside & (depth_mm <= 6)) | (~inside & ndimage.binary_dilation(inside))
        places = {}
        for kind, mask in (("surface", edge), ("hard", dense | enclosed), ("airless", airless), ("body", body)):
            voxels = np.argwhere(mask)
            places[kind] = voxels[:: max(1, len(voxels) // 5000)].astype(np.int16) * np.array([1, 2, 2], np.int16)
        if flat:
            hu, lung, inward = (np.broadcast_to(a, (SLAB, *a.shape[1:])) for a in (hu, lung, inward))
        return cls(path.stem, hu, lung, inward, places, float(airless.sum((1, 2)).max()) * 1.6 ** 2 / 100)

    @property
    def flat(self):
        return self.hu.strides[0] == 0


def example(case, rng, size, paint):
    """(image 0..1, lung 0/1), both float32 of `size` (depth, height, width), of a random crop; disease with probability `paint`."""
    hu, lung, inward = crop(case, rng, size)
    if case.flat:
        paint *= 0.5   # a third of them is badly diseased as they are
    for chance in (paint, 0.25 * paint):
        if rng.random() < chance:
            hu, lung = disease.paint(hu, lung, inward, rng)
    if rng.random() < GAS:
        hu = disease.gas(hu, lung, rng)
    hu, lung = cut(image_anew(hu, rng), lung > 0, rng)
    low, high = WINDOW_HU
    return np.clip((hu - low) / (high - low), 0, 1).astype(np.float32), lung.astype(np.float32)


def crop(case, rng, size):
    """A crop of HU (float32), lung (1 right, 2 left) and inward distance, scaled, turned about the body's axis and mirrored."""
    kind = rng.choice(["mistake", "surface", "hard", "airless", "body", "anywhere"], p=[0.17, 0.25, 0.17, 0.15, 0.1, 0.16])
    voxels = case.places.get(kind, ())
    shape = np.array(case.hu.shape)
    centre = voxels[rng.integers(len(voxels))].astype(float) if len(voxels) else rng.random(3) * shape
    if case.flat:
        centre[0] = SLAB / 2
    in_plane = rng.uniform(0.78, 1.28)
    scale = np.array([rng.uniform(0.8, 1.25), *(in_plane * rng.uniform(0.93, 1.07, 2))])
    centre += rng.uniform(-0.3, 0.3, 3) * size * scale
    # As windows lie: inside the volume along each axis where it is wide enough, otherwise in its middle.
    reach = np.array(size) * scale / 2
    centre = np.where(2 * reach < shape, np.clip(centre, reach, shape - reach), shape / 2)
    mirrored = np.where(rng.random(3) < (0.05, 0.2, 0.5), -1.0, 1.0)
    angle = np.deg2rad(rng.normal(0, 9)) if rng.random() < 0.7 else 0.0

    z, y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(size, scale * mirrored))
    rows = y[:, None] * np.cos(angle) - x[None] * np.sin(angle) + centre[1] - 0.5
    columns = y[:, None] * np.sin(angle) + x[None] * np.cos(angle) + centre[2] - 0.5
    z = z + centre[0] - 0.5

    box = [(max(0, int(np.floor(v.min())) - 1), min(n, int(np.ceil(v.max())) + 2)) for v, n in zip((z, rows, columns), shape)]
    block = tuple(slice(a, b) for a, b in box)
    lung = case.lung[block]
    stack = [case.hu[block].astype(np.float32), lung == 1, lung == 2, case.inward[block].astype(np.float32)]

    low = np.clip(np.floor(z - box[0][0]).astype(int), 0, len(lung) - 1)
    high = np.minimum(low + 1, len(lung) - 1)
    part = np.clip(z - box[0][0] - low, 0, 1).astype(np.float32)[:, None, None]
    slices = np.stack([s[low] * (1 - part) + s[high] * part for s in stack])   # quantity, slice, row, column
    height, width = slices.shape[2:]
    grid = np.stack([(2 * (columns - box[2][0]) + 1) / width - 1, (2 * (rows - box[1][0]) + 1) / height - 1], -1)
    planes = torch.from_numpy(slices.reshape(1, -1, height, width).astype(np.float32))
    turned = F.grid_sample(planes, torch.from_numpy(grid[None].astype(np.float32)), mode="bilinear", padding_mode="border", align_corners=False)
    hu, right, left, inward = turned.numpy().reshape(len(stack), *size)

    outside = ((z < -0.5) | (z > shape[0] - 0.5))[:, None, None] | \
        ((rows < -0.5) | (rows > shape[1] - 0.5) | (columns < -0.5) | (columns > shape[2] - 0.5))[None]
    lung = np.where((right + left >= 0.5) & ~outside, 1 + (left > right), 0).astype(np.uint8)
    return np.where(outside, WINDOW_HU[0], hu), lung, inward


def image_anew(hu, rng):
    """Kernel, slice thickness, noise, contrast and calibration of another scanner."""
    air_outside = hu <= -1200          # padding and what lies outside the field of view keeps its value
    padding = hu[air_outside]
    if rng.random() < 0.25:            # thick slices: averaged over up to two centimetres, or drawn from fewer
        if rng.random() < 0.5:
            hu = ndimage.gaussian_filter1d(hu, rng.uniform(0.3, 0.9), 0)
        else:
            factor, depth = rng.uniform(1.2, 2.2), len(hu)
            phase, at = rng.random() * factor, np.arange(depth)
            below = np.floor((at - phase) / factor)          # of the slices that are drawn, the one below each slice
            low, high = (np.clip(np.round((below + k) * factor + phase), 0, depth - 1).astype(int) for k in (0, 1))
            part = ((at - low) / np.maximum(high - low, 1)).clip(0, 1).astype(np.float32)[:, None, None]
            hu = hu[low] * (1 - part) + hu[high] * part
    kernel = rng.random()
    if kernel < 0.3:
        hu = ndimage.gaussian_filter(hu, (0, *[rng.uniform(0.3, 1.3)] * 2))
    elif kernel < 0.55:
        hu = hu + rng.uniform(0.3, 1.5) * (hu - ndimage.gaussian_filter(hu, (0, 1, 1)))
    if rng.random() < 0.2:             # contrast medium: vessels and heart brighter, or less bright
        hu = np.where(hu > 30, 30 + (hu - 30) * rng.uniform(0.5, 2.0), hu)
    if rng.random() < 0.6:
        noise = rng.standard_normal(hu.shape, np.float32)
        if rng.random() < 0.6:
            blur = rng.uniform(0.4, 1.2)
            noise = ndimage.gaussian_filter(noise, (0, blur, blur))
            noise /= noise.std()
        hu = hu + noise * np.exp(rng.uniform(np.log(4), np.log(90)))
    hu = (hu + 1000) * rng.uniform(0.97, 1.03) - 1000 + rng.uniform(-15, 15)   # little: fat and airless lung lie 60 to 150 HU apart
    if rng.random() < 0.6:
        hu = np.maximum(hu, -1024)
    hu = hu.astype(np.float32)
    hu[air_outside] = padding
    return hu


def cut(hu, lung, rng):
    """Fewer slices than the window, padded before and after; a round or narrow field of view."""
    depth, height, width = hu.shape
    if rng.random() < 0.2:
        keep = int(rng.integers(6, depth))
        start = int(rng.integers(0, depth - keep + 1))
        before = (depth - keep) // 2
        short_hu, short_lung = np.full_like(hu, WINDOW_HU[0]), np.zeros_like(lung)
        short_hu[before:before + keep], short_lung[before:before + keep] = hu[start:start + keep], lung[start:start + keep]
        hu, lung = short_hu, short_lung
    shape = rng.random()
    if shape < 0.12:
        rows, columns = np.ogrid[:height, :width]
        radius = rng.uniform(0.5, 0.8) * max(height, width)
        outside = (rows - rng.uniform(0.25, 0.75) * height) ** 2 + (columns - rng.uniform(0.25, 0.75) * width) ** 2 > radius ** 2
    elif shape < 0.2:
        outside = np.ones((height, width), bool)
        tall, wide = (int(rng.uniform(0.55, 1) * n) for n in (height, width))
        top, left = (height - tall) // 2, (width - wide) // 2
        outside[top:top + tall, left:left + wide] = False
    else:
        return hu, lung
    value = rng.choice([-1000.0, -1024.0, -2000.0, -2048.0, -3024.0]) if shape < 0.12 else WINDOW_HU[0]
    return np.where(outside, np.float32(value), hu), lung & ~outside
