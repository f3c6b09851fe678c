"""NVIDIA's network converted: files of the same shape with random weights, and files that are something else.

    python -m pytest onnx/test_clara.py      (the full-size file takes minutes; the TensorFlow part needs tensorflow and tf2onnx)
"""
import hashlib
import tomllib

import numpy as np
import pytest

import convert_clara
from convert_clara import Unfit

SMALL = {"width": 8, "growth": 8, "bn_size": 2, "layers": (1, 2, 1, 1), "out_channels": 2}


def random_state(sizes):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from ahnet import AHNet
    torch.manual_seed(7)
    state = AHNet(**sizes).state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            value.copy_(torch.randn(value.shape) * 0.1)
    return state


def check_files(folder, name, axes="xyz", activation="softmax"):
    """The manifest says what the reference pipeline does, and its digests are those of the files. Gives the manifest."""
    content = tomllib.loads((folder / f"{name}.toml").read_text())
    assert content["input"]["axes"] == axes and content["windows"]["roi"] == [224, 224, 32]
    assert content["output"] | {"name": ""} == {"name": "", "channels": 2, "activation": activation, "foreground_channel": 1, "threshold": 0.5}
    assert content["grid"]["spacing_mm"] == [0.8, 0.8, 5.0] and content["grid"]["window_hu"] == [-1500.0, 500.0]
    for graph in content["graph"]:
        assert hashlib.sha256((folder / graph["file"]).read_bytes()).hexdigest() == graph["sha256"]
    return content


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_become_both_graphs_with_the_slices_last(tmp_path, wrapped):
    import torch
    onnxruntime = pytest.importorskip("onnxruntime")
    from ahnet import AHNet
    state = random_state(SMALL)
    torch.save({"model": state, "epoch": 3} if wrapped else state, tmp_path / "model.pt")
    convert_clara.convert_torch(tmp_path / "model.pt", tmp_path, "small", SMALL)
    content = check_files(tmp_path, "small")
    assert [g["devices"] for g in content["graph"]] == [["cpu"], ["cuda", "tensorrt"]]
    network = AHNet(**SMALL).eval()
    network.load_state_dict(state)
    window = np.random.default_rng(1).random((1, 1, 224, 224, 32), np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(window).permute(0, 1, 4, 2, 3)).permute(0, 1, 3, 4, 2).numpy()
    for graph in content["graph"]:
        session = onnxruntime.InferenceSession(str(tmp_path / graph["file"]), providers=["CPUExecutionProvider"])
        got, = session.run(["logits"], {"image": window})
        assert got.shape == (1, 2, 224, 224, 32)
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_file_of_nvidias_size_loads_and_computes_what_monai_computes(tmp_path):
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("monai.networks.nets", reason="monai is not installed")
    torch.manual_seed(8)
    monai = networks.AHNet(spatial_dims=3, psp_block_num=0, upsample_mode="trilinear", out_channels=2).eval()
    torch.save(monai.state_dict(), tmp_path / "model.pt")
    assert 105e6 < (tmp_path / "model.pt").stat().st_size < 112e6   # NVIDIA's has 108,907,593 bytes
    ours = convert_clara.load_network(convert_clara.read_state(tmp_path / "model.pt"))
    window = torch.rand(1, 1, 64, 96, 32)
    with torch.no_grad():
        expected, got = monai(window), ours(window)
    assert (got - expected).abs().max() < 2e-5 * expected.abs().max()


def test_wrong_files_are_told_apart(tmp_path):
    import torch
    state = random_state(SMALL)
    load = lambda **changed: convert_clara.load_network({k: v for k, v in (state | changed).items() if v is not None}, SMALL)
    with pytest.raises(Unfit, match="missing conv1.weight; unknown nothing"):
        load(**{"conv1.weight": None})
    with pytest.raises(Unfit, match="unknown head"):
        load(head=torch.zeros(1))
    with pytest.raises(Unfit, match="pyramid pooling"):
        load(**{"psp.project_modules.0.weight": torch.zeros(1)})
    with pytest.raises(Unfit, match="transposed convolutions"):
        load(**{"up0.up.weight": torch.zeros(1)})
    with pytest.raises(Unfit, match=r"final.conv.weight is \[3, .*it is \[2, "):
        load(**{"final.conv.weight": torch.zeros(3, *state["final.conv.weight"].shape[1:])})
    with pytest.raises(Unfit, match="no number"):
        load(**{"bn0.bias": state["bn0.bias"] * float("nan")})
    (tmp_path / "noise.pt").write_bytes(b"not weights at all")
    with pytest.raises(Unfit, match="not a file of weights"):
        convert_clara.convert(tmp_path / "noise.pt", tmp_path)
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(Unfit, match="no state dict"):
        convert_clara.convert(tmp_path / "list.pt", tmp_path)
    with pytest.raises(Unfit, match="is no file"):
        convert_clara.convert(tmp_path / "absent.pt", tmp_path)
    assert not list(tmp_path.glob("*.onnx")) and not list(tmp_path.glob("*.toml"))


def frozen(names=(convert_clara.TF_INPUT, convert_clara.TF_OUTPUT), channels=2):
    """A frozen graph with Clara's ends: a convolution and a softmax over the channels, channels first outside. Its kernel too."""
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    kernel = np.random.default_rng(3).standard_normal((1, 1, 3, 1, channels)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 1, None, None, None], names[0])
        y = tf.nn.softmax(tf.nn.conv3d(tf.transpose(x, [0, 2, 3, 4, 1]), tf.constant(kernel), [1] * 5, "SAME"))
        tf.identity(tf.transpose(y, [0, 4, 1, 2, 3]), names[1])
    return graph.as_graph_def().SerializeToString(), kernel[0, 0, :, 0]


def test_a_frozen_tensorflow_graph_is_converted(tmp_path):
    content, kernel = frozen()
    (tmp_path / "model.pb").write_bytes(content)
    convert_clara.convert(tmp_path / "model.pb", tmp_path, "tf")
    manifest = check_files(tmp_path, "tf", activation="none")
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(tmp_path / "tf.onnx"), providers=["CPUExecutionProvider"])
    window = np.random.default_rng(4).random((1, 1, 224, 224, 32), np.float32)
    got, = session.run([manifest["output"]["name"]], {manifest["input"]["name"]: window})
    padded = np.pad(window[0, 0], ((0, 0), (0, 0), (1, 1)))
    logits = sum(padded[..., k:k + 32, None] * kernel[k] for k in range(3))
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(got[0], expected.transpose(3, 0, 1, 2), atol=1e-5)


def test_other_tensorflow_graphs_are_refused(tmp_path):
    for content, why in ((frozen(("x", "NV_MODEL_OUTPUT"))[0], "no node NV_MODEL_INPUT"), (frozen(channels=3)[0], r"gives \[1, 3, "), (b"\xff\xff", "not a frozen")):
        (tmp_path / "model.pb").write_bytes(content)
        with pytest.raises(Unfit, match=why):
            convert_clara.convert(tmp_path / "model.pb", tmp_path)
