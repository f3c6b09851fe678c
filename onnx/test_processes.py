"""Two processes that share the examples of a step compute what one process computes with all of them.

    python -m pytest onnx
"""
import torch
import torch.distributed as dist
import torch.nn.functional as F

import train
from ahnet import AHNet

WORLD = 2


def network():
    torch.manual_seed(0)
    return AHNet(width=8, growth=8, bn_size=2, layers=(1, 1, 1, 1), form="slices").double().train()


def examples():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(WORLD, 1, 32, 64, 64, dtype=torch.float64, generator=generator)
    return image, (image > 0.5).double()


def one_process(rank, meeting, out):
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    shared = network()
    train.share_norms(shared)
    image, lung = (v[rank:rank + 1] for v in examples())
    F.binary_cross_entropy_with_logits(shared(image), lung).backward()
    gradients = {name: value.grad for name, value in shared.named_parameters()}
    train.mean_over_processes(list(gradients.values()))
    if rank == 0:
        torch.save((gradients, shared.state_dict()), out)
    dist.destroy_process_group()


def test_gradients_and_statistics_are_those_of_one_process(tmp_path):
    torch.multiprocessing.spawn(one_process, (tmp_path / "meeting", tmp_path / "out.pt"), WORLD)
    gradients, state = torch.load(tmp_path / "out.pt", weights_only=True)
    alone = network()
    image, lung = examples()
    F.binary_cross_entropy_with_logits(alone(image), lung).backward()
    for name, value in alone.named_parameters():
        torch.testing.assert_close(gradients[name], value.grad, rtol=1e-8, atol=1e-12)
    for name, value in alone.state_dict().items():
        if value.dtype.is_floating_point:
            torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-12)
