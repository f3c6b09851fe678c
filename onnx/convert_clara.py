"""NVIDIA's lung segmentation network, as its user has it, in; ONNX graphs and a manifest that Hilum reads out.

    convert_clara.py model.pt [--out DIR]          PyTorch: clara_pt_covid19_ct_lung_segmentation (v4)
    convert_clara.py model.trt.pb [--out DIR]      TensorFlow, a frozen graph: clara_train_covid19_ct_lung_seg (v3)

`model.pt` holds the state dict, bare or as {"model": ...}, of MONAI's AHNet(spatial_dims=3, psp_block_num=0,
upsample_mode="trilinear", out_channels=2). It becomes the two graphs that `export.py` makes, its weights in single
precision as they are. The frozen graph has the nodes NV_MODEL_INPUT and NV_MODEL_OUTPUT, ends in a softmax, and goes
through tf2onnx (`python -m pip install tensorflow-cpu tf2onnx`, in an environment of its own).

NVIDIA's weights are for research only and may not be passed on. Both roads were tried with files of the same shape and
random weights, never with NVIDIA's own. NVIDIA's pipeline turns no image, so that `orientation` is an assumption: hold a
first mask against the CT before anything is concluded from it.
"""
import argparse
import hashlib
import sys
from pathlib import Path

from manifest import GRAPH, MANIFEST

FULL = {"width": 64, "growth": 20, "bn_size": 4, "layers": (3, 4, 6, 3), "out_channels": 2}
WINDOW = [1, 1, 224, 224, 32]     # batch, channel, x, y, z
NAME, VERSIONS = "nvidia-covid19-ct-lung", {"torch": "4", "tensorflow": "3"}
DESCRIPTION = "NVIDIA's AH-Net for lungs with COVID-19, converted by its user; research use only"
FACTS = {"licence": "NVIDIA Clara EULA, research use only", "citation": "NVIDIA Clara, COVID-19 CT lung segmentation", "input": "image",
         "axes": "xyz", "output": "logits", "channels": 2, "activation": "softmax", "foreground": 1}
TF_INPUT, TF_OUTPUT = "NV_MODEL_INPUT", "NV_MODEL_OUTPUT"


class Unfit(Exception):
    """The file is not NVIDIA's network, and why."""


def read_state(path):
    """The state dict in a file that PyTorch wrote."""
    import torch
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise Unfit(f"{path} is not a file of weights that PyTorch reads (a state dict is needed, not a scripted module): {str(error).splitlines()[0]}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise Unfit(f"{path} holds no state dict, neither bare nor under the key \"model\"")
    return state


def load_network(state, sizes=None):
    """The network with these weights, its depth last as NVIDIA's has it."""
    from ahnet import AHNet
    network = AHNet(**(sizes or FULL))
    own = network.state_dict()
    if any(name.startswith("psp.") for name in state):
        raise Unfit("the network has pyramid pooling (psp.*): NVIDIA's has none")
    if any(name.endswith(".up.weight") for name in state):
        raise Unfit("the network has transposed convolutions (*.up.weight): NVIDIA's scales up linearly")
    missing, more = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or more:
        tell = lambda names: ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "nothing"
        raise Unfit(f"the file is not of this AH-Net: missing {tell(missing)}; unknown {tell(more)}")
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise Unfit(f"{name} is {list(state[name].shape)}, of AHNet(psp 0, trilinear, 2 channels) it is {list(value.shape)}")
        if not state[name].isfinite().all():
            raise Unfit(f"{name} holds a value that is no number")
    network.load_state_dict(state)
    return depth_last(network).eval()


def depth_last(network):
    """The same network on windows (N, channels, x, y, z): MONAI's order, in which NVIDIA's weights were learnt."""
    import torch

    class DepthLast(torch.nn.Module):
        depth_last = True

        def __init__(self):
            super().__init__()
            self.network, self.sizes = network, network.sizes

        @property
        def form(self):
            return self.network.form

        @form.setter
        def form(self, form):
            self.network.form = form

        def state_dict(self, *args, **kwargs):
            return self.network.state_dict(*args, **kwargs)

        def forward(self, x):
            return self.network(x.permute(0, 1, 4, 2, 3)).permute(0, 1, 3, 4, 2)

    return DepthLast()


def convert_torch(path, out, name=NAME, sizes=None):
    import export
    return export.export(load_network(read_state(path), sizes), name, VERSIONS["torch"], DESCRIPTION, out, FACTS, half=False)


def convert_tensorflow(path, out, name=NAME):
    """One graph for every device. Its output is a probability already."""
    try:
        import tensorflow as tf
        import tf2onnx
    except ImportError as error:
        raise Unfit(f"a TensorFlow graph needs tensorflow and tf2onnx (python -m pip install tensorflow-cpu tf2onnx): {error}") from error
    import onnx
    content = Path(path).read_bytes()
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(content)
    except Exception as error:
        raise Unfit(f"{path} is not a frozen TensorFlow graph: {error}") from error
    names = {node.name for node in graph.node}
    for wanted in (TF_INPUT, TF_OUTPUT):
        if wanted not in names:
            raise Unfit(f"{path} has no node {wanted}: a frozen graph of Clara Train is needed")
    if any(node.op in ("VariableV2", "VarHandleOp") for node in graph.node):
        raise Unfit(f"{path} holds variables without values: a frozen graph is needed, not a checkpoint's")
    ends = {"input": f"{TF_INPUT}:0", "output": f"{TF_OUTPUT}:0"}
    model, _ = tf2onnx.convert.from_graph_def(graph, input_names=[ends["input"]], output_names=[ends["output"]], opset=17,
                                              shape_override={ends["input"]: WINDOW})
    found = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0].type.tensor_type.shape
    shape = [d.dim_value for d in found.dim]
    expected = [1, FACTS["channels"], *WINDOW[2:]]
    if len(shape) != 5 or any(a and a != b for a, b in zip(shape, expected)):
        raise Unfit(f"the graph gives {shape}, expected {expected} (batch, channels, x, y, z)")
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(ends["output"], onnx.TensorProto.FLOAT, expected))
    model.producer_name, model.producer_version, model.doc_string = "hilum", "", ""
    onnx.checker.check_model(model)

    data, file = model.SerializeToString(deterministic=True), f"{name}.onnx"
    graphs = GRAPH.format(file=file, digest=hashlib.sha256(data).hexdigest(), devices='"cpu", "cuda", "tensorrt"')
    facts = FACTS | ends | {"activation": "none"}
    manifest = MANIFEST.format(name=name, version=VERSIONS["tensorflow"], description=DESCRIPTION,
                                           weights=hashlib.sha256(content).hexdigest(), graphs=graphs, **facts)
    out.mkdir(parents=True, exist_ok=True)
    (out / file).write_bytes(data)
    (out / f"{name}.toml").write_text(manifest)
    return [f"{file}: {len(data) / 1e6:.2f} MB, {len(model.graph.node)} nodes"]


def convert(path, out, name=NAME):
    """Writes the graphs and the manifest; returns a line for each file."""
    path = Path(path)
    if not path.is_file():
        raise Unfit(f"{path} is no file")
    return (convert_tensorflow if path.suffix == ".pb" else convert_torch)(path, out, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--name", default=NAME, help="name of the network and of its files")
    p = parser.parse_args()
    try:
        print("\n".join(convert(p.weights, p.out, p.name)))
    except Unfit as why:
        print(f"convert_clara.py: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
