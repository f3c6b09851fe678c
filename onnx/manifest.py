"""The text of a manifest, as `export.py` and `convert_clara.py` write it; docs/models.md explains every key."""

MANIFEST = """\
schema = 1
name = "{name}"
version = "{version}"
licence = "{licence}"
citation = "{citation}"
description = "{description}"
weights_sha256 = "{weights}"

{graphs}[input]
name = "{input}"
axes = "{axes}"              # order of the spatial axes in the tensors
[output]
name = "{output}"
channels = {channels}
activation = "{activation}"
foreground_channel = {foreground}
threshold = 0.5

[grid]
spacing_mm = [0.8, 0.8, 5.0]     # x, y, z
orientation = "LPS"              # where x, y, z point
window_hu = [-1500.0, 500.0]     # clipped to this
window_to = [0.0, 1.0]           # and scaled to this
straighten_over_degrees = 10.0   # a stack more oblique than this is resampled along the patient's axes

[windows]
roi = [224, 224, 32]             # x, y, z
overlap = 0.25
blend = "constant"
batch = 1
crop_to_body = true              # the grid is cropped to the body (HU > crop_above_hu) with this margin
crop_above_hu = -500.0
crop_margin_mm = 10.0
skip_empty = true                # windows without body are not run

[post]
mask_back = "probability"
keep_components = 2              # the largest components kept; 0 = all
min_component_ml = 20.0
fill_holes_ml = 10.0             # enclosed holes up to this volume are filled; 0 = none
boundary_mm = 4.0                # so far the mask follows the CT's edge in plane; 0 = not at all
boundary_hu = -400.0             # what is below this is aerated
aerated_threshold = 0.25         # aerated voxels are lung from this probability on
fat_hu = [-140.0, -80.0]         # even tissue between these is fat, and no lung

[[segment]]
label = "Lung"
number = 1
category = ["123037004", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
"""
# What the manifest says of our own networks; `convert_clara.py` says other things of NVIDIA's.
OURS = {"licence": "Apache-2.0", "citation": "Liu S. et al., 3D Anisotropic Hybrid Network, MICCAI 2018", "input": "image", "axes": "zyx",
        "output": "logits", "channels": 1, "activation": "sigmoid", "foreground": 0}
GRAPH = """\
[[graph]]
file = "{file}"
sha256 = "{digest}"
devices = [{devices}]

"""
