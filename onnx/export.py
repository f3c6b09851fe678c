"""Checkpoint in; `NAME.onnx` (slices, for CPUs), `NAME-3d.onnx` (volume, for GPUs) and the manifest `NAME.toml` out.

    export.py CHECKPOINT... --name hilum-ahnet-lung-tiny --version 0.1.0 --description "..." [--out .]

Of several checkpoints, each of which went on from the one before, the mean of their averaged weights is exported.
Convolution weights are rounded to half precision first and stored so, with a cast that ONNX Runtime folds when it loads
the graph; everything else, and the arithmetic, is single precision. So both graphs, the digest in the manifest and the
PyTorch network that they are checked against hold exactly the same numbers. Nothing is written unless both graphs agree
with PyTorch on random windows, on an empty one and on smooth ones.
"""
import argparse
import hashlib
import io
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxsim
import torch
from onnx import TensorProto, helper, numpy_helper

from ahnet import AHNet, mean_of
from manifest import GRAPH, MANIFEST, OURS

OPSET = 17
ROI = (32, 224, 224)     # depth, height, width
GRAPHS = {"slices": ("", ["cpu"]), "volume": ("-3d", ["cuda", "tensorrt"])}
TOLERANCE = 1e-4         # of the largest logit: two orders of summation in single precision


def round_weights(network):
    """Every convolution weight becomes the nearest half-precision number."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dim() == 5:
                rounded = value.half().float()
                if not torch.isfinite(rounded).all():
                    raise ValueError(f"{name} does not fit half precision")
                value.copy_(rounded)


def weights_digest(network):
    """SHA-256 over the state dict by name: name in UTF-8, NUL, the values as little-endian float32."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0" + value.float().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def to_onnx(network, form, half=True):
    """The graph in one form, simplified, its convolution weights stored in half precision if they are rounded to it."""
    network.form = form
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # the exporter by tracing is called old; it is the one that makes plain graphs
        torch.onnx.export(
            network, (torch.from_numpy(example_windows(network)[0]),), buffer, dynamo=False, opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,   # the network is in eval mode; this keeps the norms unfolded
            input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}} if form == "volume" else None)
    model, same = onnxsim.simplify(onnx.load_from_string(buffer.getvalue()), skip_fuse_bn=True)
    if not same:
        raise RuntimeError("the simplified graph computes something else")
    if half:
        halve_weights(model.graph)
    shorten_names(model.graph)
    model.producer_name, model.producer_version, model.doc_string = "hilum", "", ""
    onnx.checker.check_model(model, full_check=True)
    return model


def halve_weights(graph):
    """Convolution weights become half-precision initialisers, each with a cast in front of its convolution."""
    weights = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    casts = []
    for tensor in graph.initializer:
        if tensor.name in weights:
            single = numpy_helper.to_array(tensor)
            half = single.astype(np.float16)
            if not np.array_equal(half.astype(np.float32), single):
                raise ValueError(f"{tensor.name} was not rounded before the export")
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, name + "_half"))
            casts.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


def shorten_names(graph):
    """Tensors between the input and the output are numbered, nodes are not named: names are a tenth of a small file."""
    short = {"": "", "image": "image", "logits": "logits"}

    def of(name):
        return short.setdefault(name, f"t{len(short)}")

    for tensor in graph.initializer:
        tensor.name = of(tensor.name)
    for node in graph.node:
        node.name, node.doc_string = "", ""
        node.input[:] = [of(name) for name in node.input]
        node.output[:] = [of(name) for name in node.output]
    graph.name = "ahnet"


def example_windows(network=None, seed=0):
    """Random, empty and smooth windows, values 0..1; depth first, unless the network has it last."""
    rng = np.random.default_rng(seed)
    smooth = rng.random((1, 1, 4, 7, 7), np.float32)
    for axis, times in ((2, 8), (3, 32), (4, 32)):
        smooth = np.repeat(smooth, times, axis)
    windows = [rng.random((1, 1, *ROI), np.float32), np.zeros((1, 1, *ROI), np.float32), smooth]
    depth_last = getattr(network, "depth_last", False)
    return [np.ascontiguousarray(w.transpose(0, 1, 3, 4, 2)) for w in windows] if depth_last else windows


def largest_difference(network, model):
    """The largest difference between ONNX Runtime and PyTorch, as a part of the largest logit."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = 0.0
    with torch.no_grad():
        for window in example_windows(network):
            expected = network(torch.from_numpy(window)).numpy()
            got, = session.run(["logits"], {"image": window})
            worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
    return worst


def export(network, name, version, description, out, facts=None, half=True):
    """Writes the two graphs and the manifest; returns a line for each file."""
    facts = facts or OURS
    network.eval()
    if half:
        round_weights(network)
    weights, graphs, files, lines = weights_digest(network), "", {}, []
    for form, (suffix, devices) in GRAPHS.items():
        model = to_onnx(network, form, half)
        helper.set_model_props(model, {"name": name, "version": version, "form": form, "licence": facts["licence"],
                                       "weights_sha256": weights, "use": "research only, not for diagnosis"})
        network.form = "slices"
        difference = largest_difference(network, model)
        if not difference <= TOLERANCE:
            raise RuntimeError(f"the {form} graph differs from PyTorch by {difference:.2g} of the largest logit")
        file, content = f"{name}{suffix}.onnx", model.SerializeToString(deterministic=True)
        graphs += GRAPH.format(file=file, digest=hashlib.sha256(content).hexdigest(), devices=", ".join(f'"{d}"' for d in devices))
        files[file] = content
        lines.append(f"{file}: {len(content) / 1e6:.2f} MB, {len(model.graph.node)} nodes, off by {difference:.1g} of the largest logit")
    manifest = MANIFEST.format(name=name, version=version, description=description, weights=weights, graphs=graphs, **facts)
    files[f"{name}.toml"] = manifest.encode()
    out.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (out / file).write_bytes(content)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="written by train.py")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--description", required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    p = parser.parse_args()
    if '"' in p.description or "\\" in p.description:
        parser.error("the description may hold neither quotes nor backslashes")
    checkpoints = [torch.load(path, map_location="cpu", weights_only=True) for path in p.checkpoints]
    network = AHNet(**checkpoints[0]["sizes"])
    network.load_state_dict(mean_of([checkpoint["average"] for checkpoint in checkpoints]))
    print("\n".join(export(network, p.name, p.version, p.description, p.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
