"""AH-Net against MONAI's, its forms against each other, and the committed files against their manifest.

    python -m pytest onnx
"""
import hashlib
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import evaluate
from ahnet import AHNet, doubling_matrix, mean_of
from export import example_windows, largest_difference, round_weights, to_onnx, weights_digest

HERE = Path(__file__).parent
MANIFESTS = sorted(HERE.glob("*.toml"))
SMALL = {"width": 8, "growth": 8, "bn_size": 2, "layers": (1, 2, 1, 1)}


def with_random_statistics(network, seed=0):
    """Norms as after training: without this they do nothing, and a wrong one would not show."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "norm.weight")) or ".bn" in name and name.endswith("weight"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return network.eval()


@pytest.fixture(scope="module")
def monai():
    networks = pytest.importorskip("monai.networks.nets", reason="monai is not installed")
    torch.manual_seed(1)
    return with_random_statistics(networks.AHNet(spatial_dims=3, psp_block_num=0, upsample_mode="trilinear", out_channels=2))


@pytest.mark.parametrize("form", ["volume", "slices"])
def test_full_size_loads_monais_state_dict_and_gives_monais_output(monai, form):
    ours = AHNet(64, 20, 4, (3, 4, 6, 3), out_channels=2, form=form).eval()
    ours.load_state_dict(monai.state_dict(), strict=True)
    depth_last = torch.rand(2, 1, 64, 96, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = monai(depth_last).permute(0, 1, 4, 2, 3)
        got = ours(depth_last.permute(0, 1, 4, 2, 3))
    # Single precision in another order of summation: about 5e-6 of the largest logit.
    assert (got - expected).abs().max() < 2e-5 * expected.abs().max()


def test_a_changed_weight_shows_in_the_comparison_with_monai(monai):
    ours = AHNet(64, 20, 4, (3, 4, 6, 3), out_channels=2, form="slices").eval()
    ours.load_state_dict(monai.state_dict())
    with torch.no_grad():
        weight = ours.dense4.denselayer2.conv3.weight
        weight.copy_(weight.flip(-1))   # the slices above and below change places
        depth_last = torch.rand(1, 1, 64, 64, 32, generator=torch.Generator().manual_seed(2))
        expected = monai(depth_last).permute(0, 1, 4, 2, 3)
        got = ours(depth_last.permute(0, 1, 4, 2, 3))
    assert (got - expected).abs().max() > 1e-4 * expected.abs().max()


@pytest.mark.parametrize("training", [False, True])
def test_the_forms_are_the_same_function(training):
    torch.manual_seed(3)
    network = with_random_statistics(AHNet(**SMALL)).double().train(training)
    windows = torch.rand(2, 1, 64, 64, 96, dtype=torch.float64)
    outputs, gradients = [], []
    for form in ("volume", "slices", "channels_last"):
        network.form = form
        network.zero_grad()
        output = network(windows)
        output.square().mean().backward()
        outputs.append(output.detach())
        gradients.append(network.conv1.weight.grad.clone())
    for other in (1, 2):
        torch.testing.assert_close(outputs[other], outputs[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients[other], gradients[0], rtol=1e-4, atol=1e-7)


def test_a_window_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        AHNet(**SMALL)(torch.zeros(1, 1, 32, 64, 80))


def test_doubling_in_depth_is_linear_with_aligned_corners():
    for depth in (1, 2, 5, 16):
        line = torch.rand(1, 1, depth, dtype=torch.float64)
        expected = torch.nn.functional.interpolate(line, scale_factor=2, mode="linear", align_corners=True)
        torch.testing.assert_close((doubling_matrix(depth) @ line[0, 0])[None, None], expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(4)
    network = with_random_statistics(AHNet(**SMALL))
    round_weights(network)
    graphs = {form: to_onnx(network, form) for form in ("slices", "volume")}
    network.form = "volume"
    return network, graphs


@pytest.mark.parametrize("form", ["slices", "volume"])
def test_an_exported_graph_agrees_with_pytorch(exported, form):
    network, graphs = exported
    assert largest_difference(network, graphs[form]) < 1e-4


def test_the_mean_of_checkpoints_is_that_of_each_number():
    weights = [{"a": torch.tensor([1.0, 2.0]).half(), "steps": torch.tensor(3)}, {"a": torch.tensor([2.0, 6.0]), "steps": torch.tensor(5)}]
    mean = mean_of(weights)
    assert mean["a"].tolist() == [1.5, 4.0] and mean["a"].dtype == torch.float32
    assert mean["steps"] == 5
    assert torch.equal(mean_of(weights[:1])["a"], weights[0]["a"].float())


def test_a_graph_of_other_weights_does_not_pass_the_exports_check(exported):
    _, graphs = exported
    torch.manual_seed(5)
    assert largest_difference(with_random_statistics(AHNet(**SMALL)), graphs["slices"]) > 1e-2


def test_the_digest_depends_on_every_weight():
    network = AHNet(**SMALL)
    digest = weights_digest(network)
    assert digest == weights_digest(network)
    with torch.no_grad():
        network.final.norm.running_var[0] += 1
    assert weights_digest(network) != digest


def test_windows_start_where_monai_starts_them():
    utils = pytest.importorskip("monai.data.utils", reason="monai is not installed")
    from monai.inferers.utils import _get_scan_interval
    for length in (20, 32, 33, 60, 66, 224, 300, 450, 512):
        for roi in (32, 224):
            size = (max(length, roi),)
            expected = [s[0].start for s in utils.dense_patch_slices(size, (roi,), _get_scan_interval(size, (roi,), 1, (0.25,)))]
            assert evaluate.starts(length, roi, evaluate.OVERLAP) == expected


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: m.stem)
def test_the_committed_files_are_those_of_the_manifest(manifest):
    content = tomllib.loads(manifest.read_text())
    outputs = []
    for graph in content["graph"]:
        data = (HERE / graph["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == graph["sha256"]
        model = onnx.load_from_string(data)
        assert {p.key: p.value for p in model.metadata_props}["weights_sha256"] == content["weights_sha256"]
        for tensor, name in ((model.graph.input[0], content["input"]["name"]), (model.graph.output[0], content["output"]["name"])):
            assert tensor.name == name
            assert [d.dim_value for d in tensor.type.tensor_type.shape.dim][1:] == [1, 32, 224, 224]
        run = evaluate.onnx_network(HERE / graph["file"])
        outputs.append([run(window[0, 0]) for window in example_windows()])
    for first, second in zip(*outputs):
        assert np.abs(first - second).max() < 1e-4 * np.abs(first).max()
        assert ((first > 0) != (second > 0)).mean() < 1e-4
