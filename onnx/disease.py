"""Disease painted inside the lungs of a crop: where (a region) and what (a tissue) are drawn apart.

In: HU, lung (1 right, 2 left) and the distance inwards from the lung's surface, all [slice][row][column] on the network's
grid. Out: HU and lung. The lung is still all lung after that, except under a pleural effusion, which is fluid outside it.
A region is a weight 0..1 a voxel, soft at its border with healthy lung and full up to the pleura. A tissue turns HU and weight
into HU by filling air with something: `hu + weight * (tissue - hu)`, so that what is as dense already, vessels and walls, stays.
Voxels just outside the lung that hold a part of its air are filled with it: a dark line left around airless lung would tell the
network where the lung ends, which no real consolidation does.
"""
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

SPACING_MM = (5.0, 0.8, 0.8)
PARTLY_AIR_HU = (-160.0, 20.0)   # below one of them a voxel at the lung's edge is taken to hold some of its air
SMALLEST = 2000   # voxels of lung below which nothing is painted


def paint(hu, lung, inward, rng):
    """One disease, in one or both lungs."""
    inside = lung > 0
    if inside.sum() < SMALLEST:
        return hu, lung
    box = tuple(slice(max(0, int(v.min()) - 2), int(v.max()) + 3) for v in np.nonzero(inside))
    scene = Scene(hu[box], lung[box], inward[box], rng)
    kind = rng.choice(list(KINDS), p=np.array([k[0] for k in KINDS.values()]))
    painted, kept = KINDS[kind][1](scene)
    hu, lung = hu.copy(), lung.copy()
    hu[box], lung[box] = painted, kept
    return hu, lung


def gas(hu, lung, rng):
    """HU with gas in soft tissue outside the lung, such as stomach and bowel hold: round pockets, now and then half full of stool
    or with a level of fluid. It is not lung."""
    tissue = (hu > -150) & (lung == 0)
    places = np.argwhere(tissue[:, ::4, ::4]) * (1, 4, 4)
    if len(places) < SMALLEST // 16:
        return hu
    scene = Scene(hu, tissue.astype(np.uint8), None, rng)
    weight = balls(scene, int(rng.integers(1, 8)), (8, 50), at_pleura=0)
    content = np.full(hu.shape, rng.uniform(-1010, -930), np.float32) + 0.5 * scene.noise_hu()
    kind = rng.random()
    if kind < 0.25:                    # stool
        content = np.where(scene.field(rng.uniform(4, 10), 2) > rng.uniform(-0.5, 0.8), content + rng.uniform(300, 950), content)
    elif kind < 0.45:                  # a level of fluid
        rows = np.arange(hu.shape[1])[None, :, None]
        content = np.where(rows > rng.uniform(0.3, 1) * hu.shape[1], rng.uniform(0, 60) + scene.noise_hu(), content)
    return hu + weight * (content - hu)


class Scene:
    """What the painters look at, and what several of them need."""

    def __init__(self, hu, lung, inward, rng):
        self.hu, self.lung, self.inward, self.rng = hu, lung, inward, rng
        self.inside = lung > 0
        self.shape = hu.shape
        self.shell = None

    def uniform(self, low, high):
        return self.rng.uniform(low, high)

    def field(self, cell_mm, octaves=1):
        """A smooth random field, mean 0, standard deviation 1, whose bumps are about `cell_mm` wide."""
        total = np.zeros(self.shape, np.float32)
        for octave in range(octaves):
            cell = [max(1.0, cell_mm / 2 ** octave / s) for s in SPACING_MM]
            coarse = [max(2, int(np.ceil(n / c)) + 2) for n, c in zip(self.shape, cell)]
            knots = torch.from_numpy(self.rng.standard_normal(coarse, np.float32))[None, None]
            total += F.interpolate(knots, size=self.shape, mode="trilinear", align_corners=True)[0, 0].numpy() / 2 ** octave
        return (total - total.mean()) / (total.std() + 1e-6)

    def coordinates_mm(self):
        """Millimetres along each axis, each shaped to broadcast against the others."""
        return [
            (np.arange(n, dtype=np.float32) * s).reshape([-1 if i == axis else 1 for i in range(3)])
            for axis, (n, s) in enumerate(zip(self.shape, SPACING_MM))]

    def one_side(self):
        """One lung, or both where only one is in sight."""
        sizes = [int((self.lung == side).sum()) for side in (1, 2)]
        side = 1 + int(self.rng.random() < sizes[1] / sum(sizes))
        return self.lung == side

    def soften(self, region, within=None):
        """A region's weight: its border blurred in plane by a random width, but not at the pleura; nothing outside the lung."""
        within = self.inside if within is None else within
        width = int(self.rng.choice([1, 3, 3, 5, 9]))
        if width == 1:
            return (region & within).astype(np.float32)
        weight, of = (ndimage.uniform_filter(a.astype(np.float32), (1, width, width)) for a in (region & within, within))
        return np.where(within, np.minimum(weight / np.maximum(of, 1e-6), 1), 0).astype(np.float32)

    def over_the_edge(self, weight):
        """The weight also of what lies just outside the lung and is partly its air, by the voxels beside it."""
        if self.shell is None:
            beside = ~self.inside & ndimage.binary_dilation(self.inside, np.ones((3, 5, 5)))
            air = ndimage.binary_opening(~self.inside & (self.hu < -700), np.ones((1, 3, 3)))   # windpipe, bowel
            # Fat (-100 HU) at the pleura stays or goes: it cannot be told from tissue with a tenth of air.
            brightest = self.rng.choice(PARTLY_AIR_HU)
            self.shell = beside & (self.hu < brightest) & ~ndimage.binary_dilation(air, np.ones((1, 5, 5)))
        return np.where(self.shell, ndimage.maximum_filter(weight, (3, 5, 5)), weight)

    def noise_hu(self):
        """Noise such as this scan has in soft tissue: as strong, of a random grain."""
        tissue = (self.hu > -20) & (self.hu < 160)
        strength = 12.0
        if tissue.sum() > 500:
            rough = self.hu - ndimage.uniform_filter(self.hu, (1, 5, 5))
            strength = float(np.clip(1.48 * np.median(np.abs(rough[tissue])), 3, 90))
        noise = self.rng.standard_normal(self.shape, np.float32)
        if self.rng.random() < 0.7:
            blur = self.uniform(0.4, 1.1)
            noise = ndimage.gaussian_filter(noise, (0, blur, blur))
            noise /= noise.std()
        return noise * strength * self.uniform(0.6, 1.4)


# Where.

def patches(scene):
    """Clouds: a smooth field cut at a level, rather at the pleura, or behind, or anywhere."""
    level = scene.field(scene.uniform(12, 90), int(scene.rng.integers(1, 4)))
    where = scene.rng.random()
    if where < 0.45:
        level = level - scene.inward / scene.uniform(6, 30)
    elif where < 0.7:
        level = level + scene.coordinates_mm()[1] / scene.uniform(20, 80)
    region = level > np.quantile(level[scene.inside], scene.uniform(0.3, 0.92))
    return scene.soften(region & scene.inside)


def lobe(scene, low=0.1, high=0.8):
    """The part of one lung behind a bent fissure, in any direction, rather behind and below."""
    lung = scene.one_side()
    direction = scene.rng.standard_normal(3) * (1.3, 0.8, 0.8) + (-0.5, 0.5, 0)
    plane = sum(d * c for d, c in zip(direction, scene.coordinates_mm()))
    plane = plane + np.linalg.norm(direction) * scene.uniform(0, 12) * scene.field(scene.uniform(40, 120))
    region = plane > np.quantile(plane[lung], 1 - scene.uniform(low, high))
    return scene.soften(region & lung, lung)


def segments(scene):
    """Some of the cells that random seeds cut one lung into: sharp straight borders, as of lobules, segments or lobes."""
    lung = scene.one_side()
    voxels = np.argwhere(lung)
    seeds = voxels[scene.rng.integers(len(voxels), size=int(scene.rng.integers(3, 14)))] * np.array(SPACING_MM)
    chosen = scene.rng.random(len(seeds)) < scene.uniform(0.15, 0.6)
    chosen[scene.rng.integers(len(seeds))] = True
    # On a coarser grid: the borders are straight, and this is ten times faster.
    grid = [c[tuple(slice(None, None, 1 if a == 0 else 3) for a in range(3))] for c in scene.coordinates_mm()]
    nearest = np.full(np.broadcast_shapes(*(g.shape for g in grid)), np.inf, np.float32)
    owner = np.zeros(nearest.shape, bool)
    for seed, taken in zip(seeds, chosen):
        distance = sum((g - np.float32(s)) ** 2 for g, s in zip(grid, seed))
        closer = distance < nearest
        nearest[closer], owner[closer] = distance[closer], taken
    region = owner.repeat(3, 1).repeat(3, 2)[:, :scene.shape[1], :scene.shape[2]]
    return scene.soften(region & lung, lung)


def whole(scene):
    """All of one lung, or all but a rest of air."""
    lung = scene.one_side()
    region = lung
    if scene.rng.random() < 0.5:
        level = scene.field(scene.uniform(20, 80), 2)
        region = lung & (level > np.quantile(level[lung], scene.uniform(0, 0.2)))
    return scene.soften(region, lung)


def rim(scene):
    """A layer at the pleura, thick in some places."""
    thickness = scene.uniform(3, 20) * (1 + scene.uniform(0.2, 1.2) * scene.field(scene.uniform(20, 80), 2))
    if scene.rng.random() < 0.6:       # dependent: behind only
        back = scene.coordinates_mm()[1]
        thickness = thickness * np.clip((back - scene.uniform(0.3, 0.7) * back.max()) / (0.25 * back.max() + 1), 0, 2)
    return scene.soften((scene.inward < thickness) & scene.inside)


def balls(scene, count=None, radius=None, at_pleura=None):
    """Masses and nodules, bumpy, often at the pleura."""
    at_pleura = scene.uniform(0.2, 1) if at_pleura is None else at_pleura
    count = count or int(scene.rng.choice([1, 1, 2, 4, 7]))
    radius = radius or (6, 45)
    inner = np.argwhere(scene.inside)
    surface = np.argwhere(scene.inside & (scene.inward <= 4)) if at_pleura else ()
    weight = np.zeros(scene.shape, np.float32)
    for _ in range(count):
        from_voxels = surface if len(surface) and scene.rng.random() < at_pleura else inner
        centre = from_voxels[scene.rng.integers(len(from_voxels))]
        size = np.exp(scene.uniform(*np.log(radius)))
        stretch = scene.rng.uniform(0.7, 1.4, 3)
        reach = [int(np.ceil(1.5 * size / t / s)) + 1 for t, s in zip(stretch, SPACING_MM)]
        box = tuple(slice(max(0, int(c) - r), int(c) + r + 1) for c, r in zip(centre, reach))
        distance = np.sqrt(sum(((x[tuple(b if a == i else slice(None) for a in range(3))] - c * s) * t) ** 2 for i, (x, b, c, s, t) in
                               enumerate(zip(scene.coordinates_mm(), box, centre, SPACING_MM, stretch))))
        bumps = Scene(scene.hu[box], scene.lung[box], None, scene.rng).field(max(6, size * 0.7), 2) if size > 5 else 0
        ball = np.clip((size - distance * (1 + scene.uniform(0, 0.2) * bumps)) / scene.uniform(0.8, 3) + 0.5, 0, 1)
        weight[box] = np.maximum(weight[box], ball)
    return weight * scene.inside


def plates(scene):
    """Thin plates of airless lung."""
    weight = np.zeros(scene.shape, bool)
    for _ in range(int(scene.rng.integers(1, 6))):
        direction = scene.rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        plane = sum(d * c for d, c in zip(direction, scene.coordinates_mm())) + 4 * scene.field(60)
        weight |= np.abs(plane - scene.uniform(plane.min(), plane.max())) < scene.uniform(1, 5)
    return scene.soften(weight & scene.inside)


def net(scene):
    """A net of thickened walls, rather at the pleura."""
    level = np.abs(scene.field(scene.uniform(5, 14)))
    region = scene.soften(level < scene.uniform(0.1, 0.45))
    return region * np.exp(-scene.inward / scene.uniform(8, 60)).astype(np.float32)


REGIONS = ((patches, 0.24), (lobe, 0.3), (segments, 0.14), (whole, 0.1), (rim, 0.1), (balls, 0.12))


def any_region(scene):
    painters, chances = zip(*REGIONS)
    return scene.rng.choice(np.array(painters, object), p=chances)(scene)


# What.

def tubes(scene):
    """1 inside a net of thin tubes: where two smooth fields are both near 0."""
    cell = scene.uniform(12, 35)
    width = scene.uniform(0.08, 0.25)
    return scene.field(cell) ** 2 + scene.field(cell) ** 2 < width ** 2


def fill(scene, weight, tissue):
    weight = scene.over_the_edge(weight)
    return np.where(scene.hu < tissue, scene.hu + weight * (tissue - scene.hu), scene.hu)


def made_up(scene):
    """Muscle's density or liver's, above that of fluid, uneven, with noise such as this scan has."""
    return scene.uniform(25, 95) + scene.uniform(0, 25) * scene.field(scene.uniform(8, 50), 2) + scene.noise_hu()


def moved(scene):
    """This scan's own soft tissue with its noise and grain: copies of the scene, moved and mirrored, and of each the soft tissue."""
    tissue = np.full(scene.shape, np.nan, np.float32)
    for _ in range(6):
        copy = np.flip(scene.hu, [axis for axis in range(3) if scene.rng.random() < 0.5])
        copy = np.roll(copy, [int(scene.rng.integers(n)) for n in scene.shape], (0, 1, 2))
        smooth = ndimage.uniform_filter(copy, (1, 3, 3))
        tissue = np.where(np.isnan(tissue) & (smooth > 5) & (smooth < 160), copy, tissue)
    return np.where(np.isnan(tissue), made_up(scene), tissue) + scene.uniform(-5, 25)


def dense(scene, weight):
    """Airless lung: soft tissue, made up or this scan's own; now and then air in its bronchi, contrast in its vessels."""
    tissue = moved(scene) if scene.rng.random() < 0.5 else made_up(scene)
    if scene.rng.random() < 0.5:
        weight = weight * np.where(tubes(scene), scene.uniform(0, 0.6), 1)
    if scene.rng.random() < 0.3:
        tissue = tissue + tubes(scene) * scene.uniform(20, 180)
    return fill(scene, weight * scene.uniform(0.9, 1), tissue)


def hazy(scene, weight):
    """Ground glass to nearly airless: a part of the air is replaced by water, vessels still seen; the part varies."""
    part = np.clip(scene.uniform(0.12, 0.9) + scene.uniform(0, 0.25) * scene.field(scene.uniform(5, 60), 2), 0, 1)
    return fill(scene, weight * part, scene.uniform(0, 70) + (scene.noise_hu() if scene.rng.random() < 0.5 else 0))


def mottled(scene, weight):
    """Dense and hazy side by side, and spots of air."""
    part = np.clip(0.65 + scene.uniform(0.2, 0.6) * scene.field(scene.uniform(4, 20), 2), 0, 1)
    return fill(scene, weight * part, scene.uniform(0, 80) + scene.noise_hu())


# Diseases.

def consolidation(scene):
    return dense(scene, any_region(scene)), scene.lung


def haze(scene):
    return hazy(scene, any_region(scene)), scene.lung


def mixture(scene):
    return mottled(scene, any_region(scene)), scene.lung


def white_lung(scene):
    return dense(scene, whole(scene)), scene.lung


def mass(scene):
    return dense(scene, balls(scene, 1, (12, 55), 0.75)), scene.lung


def nodules(scene):
    return dense(scene, balls(scene, int(scene.rng.integers(5, 40)), (1.5, 7), 0.3)), scene.lung


def atelectasis(scene):
    painter = plates if scene.rng.random() < 0.4 else rim
    return dense(scene, painter(scene)), scene.lung


def fibrosis(scene):
    """A net of walls, haze, and holes of air between them near the pleura."""
    hu = fill(scene, net(scene) * scene.uniform(0.5, 1), scene.uniform(-200, 40))
    if scene.rng.random() < 0.5:
        holes = (scene.field(scene.uniform(5, 10)) > scene.uniform(0.6, 1.2)) & (scene.inward < scene.uniform(8, 30)) & scene.inside
        weight = scene.soften(holes)
        hu = hu + weight * (np.minimum(hu, -930) - hu)
    return hu, scene.lung


def emphysema(scene):
    """Clouds of lung without structure, and holes with a thin wall."""
    hu = scene.hu + patches(scene) * scene.uniform(0.6, 1) * (np.minimum(scene.hu, scene.uniform(-1000, -950)) - scene.hu) * (scene.hu < -300)
    if scene.rng.random() < 0.5:
        holes = balls(scene, int(scene.rng.integers(1, 6)), (6, 45), 0.7)
        hu = hu + holes * (-985 + 0.5 * scene.noise_hu() - hu)
        if scene.rng.random() < 0.7:
            hu = np.where((holes > 0.05) & (holes < 0.9), np.maximum(hu, scene.uniform(-600, -100)), hu)
    return hu, scene.lung


def effusion(scene):
    """Fluid around the lung, which stops being lung there; a layer of airless lung beside it stays lung. It lies behind a level, or
    in a layer along the pleura that is thicker behind."""
    lung, back = scene.one_side(), scene.coordinates_mm()[1]
    behind = np.broadcast_to(back, scene.shape)
    if scene.rng.random() < 0.5:
        depth = behind - np.quantile(behind[lung], scene.uniform(0.6, 0.95)) + scene.uniform(0, 8) * scene.field(60)
        # A crescent: it climbs along the wall.
        depth = depth + scene.uniform(0, 12) * np.exp(-scene.inward / 8.0)
    else:
        above = behind - np.quantile(behind[lung], scene.uniform(0, 0.7))
        depth = scene.uniform(8, 60) * np.clip(above / scene.uniform(20, 120), 0, 1) - scene.inward + scene.uniform(0, 4) * scene.field(40)
    hu = scene.hu
    if scene.rng.random() < 0.6:
        hu = dense(scene, scene.soften((depth > -scene.uniform(0, 25)) & lung, lung))
    fluid = scene.soften((depth > 0) & lung, lung)
    hu = hu + scene.over_the_edge(fluid) * (scene.uniform(-8, 24) + scene.noise_hu() - hu)   # its vessels are gone too
    return hu, np.where(fluid >= 0.5, 0, scene.lung).astype(scene.lung.dtype)


KINDS = {"consolidation": (0.2, consolidation), "haze": (0.1, haze), "mixture": (0.1, mixture), "white lung": (0.05, white_lung),
         "mass": (0.1, mass), "nodules": (0.02, nodules), "atelectasis": (0.06, atelectasis), "fibrosis": (0.03, fibrosis),
         "emphysema": (0.04, emphysema), "effusion": (0.3, effusion)}
