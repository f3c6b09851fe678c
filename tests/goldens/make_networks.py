#!/usr/bin/env python3
"""make_networks.py FOLDER - networks of a few nodes with known answers, for the tests of src/model, each with its manifest.

position.onnx   [batch][1][z=4][y=8][x=8] -> one channel: 0.5 v + (i + 2 j + 4 k) / 64, where i j k is the place in the window (the predictor of monai_reference.py's goldens)
softmax.onnx    [batch][1][x=8][y=8][z=4] -> two channels: v - i / 8 and 2 v
fixed.onnx      as position.onnx, but for exactly 2 windows
log.onnx        [batch][1][z=4][y=8][x=8] -> log v: not finite where v is 0
half.onnx       as position.onnx, but in and out are half precision
busy.onnx       [batch][1][z=4][y=8][x=8] -> one channel: v, after a loop of some seconds
"""
import hashlib
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

MANIFEST = """\
schema = 1
name = "{name}"
version = "1"
licence = "Apache-2.0"
citation = ""
description = "A network of a few nodes, for tests."
weights_sha256 = "{zeros}"
[[graph]]
file = "{name}.onnx"
sha256 = "{digest}"
devices = ["cpu"]
[input]
name = "image"
axes = "{axes}"
[output]
name = "logits"
channels = {channels}
activation = "{activation}"
foreground_channel = {foreground}
threshold = 0.5
[grid]
spacing_mm = [1.0, 1.0, 1.0]
orientation = "LPS"
window_hu = [-1500.0, 500.0]
window_to = [0.0, 1.0]
straighten_over_degrees = 10.0
[windows]
roi = [8, 8, 4]
overlap = 0.25
blend = "constant"
batch = 1
crop_to_body = false
crop_above_hu = -500.0
crop_margin_mm = 0.0
skip_empty = false
[post]
mask_back = "probability"
keep_components = 0
min_component_ml = 0.0
fill_holes_ml = 0.0
[[segment]]
label = "Lung"
number = 1
category = ["123037004", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
"""


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def write(folder, name, nodes, constants, axes="zyx", channels=1, activation="none", foreground=0, batch="batch", element=TensorProto.FLOAT):
    spatial = [4, 8, 8] if axes == "zyx" else [8, 8, 4]
    graph = helper.make_graph(nodes, name, [helper.make_tensor_value_info("image", element, [batch, 1, *spatial])],
                              [helper.make_tensor_value_info("logits", element, [batch, channels, *spatial])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="hilum")
    checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    (folder / f"{name}.onnx").write_bytes(content)
    manifest = MANIFEST.format(name=name, zeros="0" * 64, digest=hashlib.sha256(content).hexdigest(), axes=axes, channels=channels,
                               activation=activation, foreground=foreground)
    (folder / f"{name}.toml").write_text(manifest)


def main():
    folder = Path(sys.argv[1])
    k, j, i = np.meshgrid(np.arange(4), np.arange(8), np.arange(8), indexing="ij")
    ramp = constant("ramp", ((i + 2 * j + 4 * k) / 64)[None, None])
    half = constant("half", 0.5)
    position = [helper.make_node("Mul", ["image", "half"], ["halved"]), helper.make_node("Add", ["halved", "ramp"], ["logits"])]
    write(folder, "position", position, [half, ramp])
    write(folder, "fixed", position, [half, ramp], batch=2)
    cast = [helper.make_node("Cast", ["image"], ["single"], to=TensorProto.FLOAT), helper.make_node("Cast", ["single"], ["logits"], to=TensorProto.FLOAT16)]
    write(folder, "half", cast, [], element=TensorProto.FLOAT16)
    write(folder, "log", [helper.make_node("Log", ["image"], ["logits"])], [])
    x = constant("x", (np.arange(8) / 8).reshape(1, 1, 8, 1, 1))
    softmax = [helper.make_node("Sub", ["image", "x"], ["background"]), helper.make_node("Add", ["image", "image"], ["foreground"]),
               helper.make_node("Concat", ["background", "foreground"], ["logits"], axis=1)]
    write(folder, "softmax", softmax, [x], axes="xyz", channels=2, activation="softmax", foreground=1)

    # A loop of many small steps, since a run is looked at between nodes.
    value = lambda name, element, shape: helper.make_tensor_value_info(name, element, shape)
    inner = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["go"]), helper.make_node("Sin", ["state"], ["sine"]), helper.make_node("Mul", ["sine", "state"], ["next"])],
        "step", [value("step", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("state", TensorProto.FLOAT, [300, 300])],
        [value("go", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [300, 300])])
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0), helper.make_node("Expand", ["mean", "size"], ["start"]),
             helper.make_node("Greater", ["mean", "limit"], ["wanted"]),
             helper.make_node("Where", ["wanted", "many", "few"], ["steps"]),
             helper.make_node("Loop", ["steps", "", "start"], ["end"], body=inner),
             helper.make_node("ReduceMean", ["end"], ["last"], keepdims=0), helper.make_node("Mul", ["last", "zero"], ["nothing"]),
             helper.make_node("Add", ["image", "nothing"], ["logits"])]
    numbers = [numpy_helper.from_array(np.array([300, 300], np.int64), "size"), numpy_helper.from_array(np.array(20000, np.int64), "many"),
               numpy_helper.from_array(np.array(1, np.int64), "few"), constant("limit", 0.5), constant("zero", 0.0)]
    write(folder, "busy", nodes, numbers)


if __name__ == "__main__":
    sys.exit(main())
