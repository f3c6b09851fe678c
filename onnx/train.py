"""Prepared cases in; a checkpoint out. Seeded, resumable, on CPU or CUDA.

    train.py --cases DIR --out RUN [--hold-out NAME...] [--steps N]

RUN/checkpoint.pt holds the network, its running average (which is what `export.py` takes), the optimiser and the step;
the same command goes on from there. RUN/log.jsonl gets a line every `--report` steps and one a validation. Example i of a
run depends on the seed and i alone, so that neither the number of workers nor an interruption changes the data; with
`--mine N` it depends also on the mistakes that the averaged network makes: every N steps it is run over the patients, what it
gets wrong is written to RUN/mistakes/, and crops are centred there, in the cases with many mistakes more often.

With `--processes N` the examples of a step are shared out to N processes, whose gradients and statistics of the norms are
averaged, as if one process had them all. Which is quicker on a CPU, that or one process of several threads, depends on
how busy its cores are: every norm waits for the slowest process.
"""
import argparse
import copy
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset

import evaluate
from ahnet import AHNet, Norm, mean_of
from augment import Case, example

SMOOTH = 100.0   # voxels; keeps the Dice of a crop without lung finite
MISTAKES = 4000  # voxels of a case that are kept as centres of crops
MANY_ML = 100.0  # mistakes that make a case twice as likely; four times at most
MUCH_CM2 = 10.0  # airless lung in one slice that does the same: real disease is what the cases have least of
MUCH_FLAT_CM2 = 2.0   # the same of a single slice, which has less to show; five times at most


class Examples(Dataset):
    """Endless: example `i` is drawn from a generator seeded with (seed, i)."""

    def __init__(self, paths, seed, size, paint, flat_share, phantom_share, length, mistakes):
        self.paths, self.seed, self.size, self.paint, self.length = paths, seed, size, paint, length
        self.flat_share, self.phantom_share = flat_share, phantom_share
        self.mistakes, self.read, self.cases = mistakes, {}, None

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        if self.cases is None:   # once in each worker
            torch.set_num_threads(1)
            os.nice(5)   # whoever waits for the examples goes first
            cases = [Case.load(path) for path in self.paths]
            self.cases = [c for c in cases if not c.flat], [c for c in cases if c.flat]
        rng = np.random.default_rng((self.seed, i))
        whole, flat = self.cases
        group = flat if flat and (not whole or rng.random() < self.flat_share) else whole
        if i % 50 == 0 or not self.read:
            self.look_up_mistakes(whole)
        weights = np.array([self.weight(c) for c in group])
        case = group[rng.choice(len(group), p=weights / weights.sum())]
        return example(case, rng, self.size, self.paint)

    def weight(self, case):
        """How often a case is drawn. One of ten slices has less to show than one of sixty, and a phantom less than a patient."""
        if case.name.startswith("phantom"):
            return self.phantom_share * math.sqrt(len(case.hu))
        if case.flat:
            return 1 + min(4, case.airless_cm2 / MUCH_FLAT_CM2)
        return math.sqrt(len(case.hu)) * (1 + min(3, case.mistaken_ml / MANY_ML) + min(3, case.airless_cm2 / MUCH_CM2))

    def look_up_mistakes(self, cases):
        for case in cases:
            path = self.mistakes / f"{case.name}.npz"
            written = path.stat().st_mtime_ns if path.exists() else 0
            if self.read.get(case.name) != written:
                self.read[case.name] = written
                if written:
                    with np.load(path) as arrays:
                        case.places["mistake"], case.mistaken_ml = arrays["voxels"], float(arrays["ml"])


class Range:
    """The examples of one process that are still to come, in order: `batch` of every step, the steps being `stride` apart."""

    def __init__(self, first, last, stride, batch):
        self.examples = [i + k for i in range(first, last, stride) for k in range(batch)]

    def __iter__(self):
        return iter(self.examples)

    def __len__(self):
        return len(self.examples)


def loss_of(logits, image, lung, dense_weight):
    """Soft Dice over the batch plus half a cross-entropy, which weighs dense lung (-400 to 300 HU) `dense_weight` times."""
    probability = torch.sigmoid(logits)
    overlap, total = (probability * lung).sum(), probability.sum() + lung.sum()
    soft_dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
    weight = 1 + (dense_weight - 1) * lung * ((image > 0.55) & (image < 0.9))
    return 1 - soft_dice + 0.5 * F.binary_cross_entropy_with_logits(logits, lung, weight)


def rate(step, steps, peak, warm_up=100):
    """Learning rate: up in a straight line, down in a cosine."""
    return peak * min(1, (step + 1) / warm_up) * (0.5 * (1 + math.cos(math.pi * step / steps)) * 0.99 + 0.01)


@torch.no_grad()
def follow(average, network, step, decay):
    """The running average of everything that is a number, statistics of the norms included; quick at the start."""
    decay = min(decay, (step + 1) / (step + 20))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values()):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


@torch.no_grad()
def validate(network, paths, device):
    network.eval()

    def of_window(window):
        return network(torch.from_numpy(window)[None, None].to(device))[0, 0].cpu().numpy()

    return list(evaluate.rows(of_window, paths, painted="base"))


@torch.no_grad()
def mine(network, paths, folder, device):
    """What the network gets wrong in each case of more than one slice, by more than an edge's width: written to `folder`. Gives mL a case."""
    network.eval()
    found = {}
    for path in paths:
        with np.load(path) as arrays:
            hu, lung = arrays["hu"], arrays["lung"] > 0
        if len(hu) == 1 or path.stem.startswith("phantom"):
            continue
        of_window = lambda window: network(torch.from_numpy(window)[None, None].to(device))[0, 0].cpu().numpy()
        said = evaluate.predict(of_window, hu, overlap=0) > 0
        plane = np.ones((1, 5, 5), bool)
        edge = ndimage.binary_dilation(lung, plane) & ~ndimage.binary_erosion(lung, plane)
        wrong = np.argwhere((said != lung) & ~edge)
        found[path.stem] = len(wrong) * evaluate.VOXEL_ML
        part = folder / f"{path.stem}.part"
        with open(part, "wb") as file:
            np.savez(file, voxels=wrong[:: max(1, len(wrong) // MISTAKES)].astype(np.int16), ml=found[path.stem])
        os.replace(part, folder / f"{path.stem}.npz")
    return found


def mean_over_processes(tensors):
    """Each tensor replaced by its mean over the processes."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    for tensor, mean in zip(tensors, (flat / dist.get_world_size()).split([t.numel() for t in tensors])):
        tensor.copy_(mean.view_as(tensor))


class SharedNorm(torch.autograd.Function):
    """Batch normalisation in training whose statistics are those of the examples of all processes (torch has it for GPUs only)."""

    @staticmethod
    def forward(ctx, x, weight, bias, norm):
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)   # of this process, biased
        square = variance + mean * mean
        mean_over_processes([mean, square])
        variance = (square - mean * mean).clamp_(min=0)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = norm.eps
        return torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, norm.eps)[0]

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, variance = ctx.saved_tensors
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True])
        of_all = [of_weight.clone(), of_bias.clone()]
        mean_over_processes(of_all)
        along, level = (v / (x.numel() // x.shape[1]) for v in of_all)
        per_channel = lambda v: v.reshape(1, -1, *[1] * (x.dim() - 2))
        inverse = (variance + ctx.eps).rsqrt()
        slope = weight * inverse
        of_x = torch.addcmul(per_channel(slope * (along * inverse * mean - level)), grad, per_channel(slope))
        return of_x.addcmul_(x, per_channel(-slope * along * inverse)), of_weight, of_bias, None


def share_norms(network):
    """In training, the norms of the network take the statistics of all processes."""
    for module in network.modules():
        if isinstance(module, Norm):
            own = module.forward
            module.forward = lambda x, m=module, own=own: SharedNorm.apply(x, m.weight, m.bias, m) if m.training else own(x)


def freeze_norms(network, average):
    """From here on the norms compute as they will in use, with the averaged statistics."""
    source = dict(average.named_modules())
    for name, module in network.named_modules():
        if isinstance(module, Norm):
            module.load_state_dict(source[name].state_dict() | {"weight": module.weight, "bias": module.bias})
            module.eval()


def save(path, content):
    torch.save(content, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def parse():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--cases", type=Path, required=True, help="folder of prepared cases")
    a.add_argument("--out", type=Path, required=True)
    a.add_argument("--hold-out", nargs="*", default=[], metavar="NAME", help="cases whose name begins so are never trained on, and validated")
    a.add_argument("--steps", type=int, default=3000)
    a.add_argument("--batch", type=int, default=2, help="crops of one step, of all processes together")
    a.add_argument("--processes", type=int, default=1, help="on a CPU; they divide the batch")
    a.add_argument("--crop", type=int, nargs=3, default=[32, 160, 160], metavar="N", help="depth, height, width")
    a.add_argument("--width", type=int, default=16)
    a.add_argument("--growth", type=int, default=8)
    a.add_argument("--bn-size", type=int, default=2)
    a.add_argument("--layers", type=int, nargs=4, default=[2, 2, 2, 1])
    a.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    a.add_argument("--decay", type=float, default=0.995, help="of the running average of the weights")
    a.add_argument("--paint", type=float, default=0.6, help="probability of painted disease")
    a.add_argument("--flat-share", type=float, default=0.25, help="part of the crops from single slices")
    a.add_argument("--phantom-share", type=float, default=0.15, help="how often a phantom is drawn, to a patient's once")
    a.add_argument("--dense-weight", type=float, nargs=2, default=[4.0, 1.5], metavar="W", help="weight of dense lung in the cross-entropy at the first step and at the last")
    a.add_argument("--mine", type=int, default=0, metavar="N", help="steps between looks at what the network gets wrong, on which crops are centred then; 0: never")
    a.add_argument("--frozen-norms", type=float, default=0.25, help="last part of the steps, in which the statistics of the norms stay")
    a.add_argument("--start", type=Path, nargs="+", metavar="CHECKPOINT", help="the averaged weights that a new run begins with; of several, their mean")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--workers", type=int, default=1)
    a.add_argument("--report", type=int, default=25, help="steps between lines of the log and checkpoints")
    a.add_argument("--validate", type=int, default=500, help="steps between validations")
    a.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return a.parse_args()


def main():
    p = parse()
    if p.processes == 1:
        return train(0, p, None)
    if p.batch % p.processes or p.device != "cpu":
        sys.exit("--processes must divide --batch, and is for CPUs")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (p, Path(folder) / "meeting"), p.processes)


def train(rank, p, meeting):
    """One process of a run; the one of rank 0 writes. They find each other through the file `meeting`."""
    if meeting:
        dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=p.processes)
    mistakes = p.out / "mistakes"
    mistakes.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(p.threads)
    torch.manual_seed(p.seed)
    torch.set_flush_denormal(True)
    paths = sorted(p.cases.glob("*.npz"))
    held = [path for path in paths if path.stem.startswith(tuple(p.hold_out))] if p.hold_out else []
    paths = [path for path in paths if path not in held]
    if not paths:
        sys.exit(f"no prepared cases to train on in {p.cases}")

    sizes = {"width": p.width, "growth": p.growth, "bn_size": p.bn_size, "layers": tuple(p.layers)}
    network = AHNet(**sizes, form="channels_last" if p.device == "cpu" else "volume").to(p.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=p.rate, weight_decay=1e-3)
    average, step, file = copy.deepcopy(network), 0, p.out / "checkpoint.pt"
    if file.exists():
        saved = torch.load(file, map_location=p.device, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]
    elif p.start:
        weights = mean_of([torch.load(path, map_location=p.device, weights_only=True)["average"] for path in p.start])
        network.load_state_dict(weights)
        average.load_state_dict(weights)

    log = open(p.out / "log.jsonl", "a", encoding="utf-8")

    def note(**entry):
        if rank == 0:
            print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items()), flush=True)
            log.write(json.dumps(entry) + "\n")
            log.flush()

    note(step=step, of=p.steps, parameters=sum(v.numel() for v in network.parameters()), cases=len(paths), held_out=[h.stem for h in held],
         arguments=json.loads(json.dumps(vars(p), default=str)))
    examples = Examples(paths, p.seed, tuple(p.crop), p.paint, p.flat_share, p.phantom_share, p.steps * p.batch, mistakes)
    share = p.batch // p.processes
    order = Range(step * p.batch + rank * share, p.steps * p.batch, p.batch, share)
    loader = DataLoader(examples, share, sampler=order, num_workers=p.workers, prefetch_factor=4 if p.workers else None)
    network.train()
    if p.processes > 1:
        share_norms(network)
    frozen_from = round((1 - p.frozen_norms) * p.steps)
    if step > frozen_from:
        freeze_norms(network, average)
    losses, begun = [], time.monotonic()

    def look_for_mistakes():
        found = mine(average, paths[rank::p.processes], mistakes, p.device)
        if p.processes > 1:
            parts = [None] * p.processes
            dist.all_gather_object(parts, found)
            found = {name: ml for part in parts for name, ml in part.items()}
        note(step=step, mistaken_ml={name: round(ml) for name, ml in sorted(found.items())})

    if p.mine and p.start and step == 0:
        look_for_mistakes()
    for image, lung in loader:
        image, lung = image[:, None].to(p.device), lung[:, None].to(p.device)
        for group in optimiser.param_groups:
            group["lr"] = rate(step, p.steps, p.rate)
        if step == frozen_from:
            freeze_norms(network, average)
        first, last = p.dense_weight
        loss = loss_of(network(image), image, lung, first + (last - first) * step / p.steps)
        optimiser.zero_grad()
        loss.backward()
        if p.processes > 1:
            with torch.no_grad():
                mean_over_processes([v.grad for v in network.parameters()])
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        follow(average, network, step, p.decay)
        losses.append(loss.item())
        step += 1
        if step % p.report == 0 or step == p.steps:
            each = (time.monotonic() - begun) / len(losses)
            note(step=step, loss=float(np.mean(losses)), seconds_a_step=each, minutes_left=each * (p.steps - step) / 60)
            if rank == 0:
                save(file, {"sizes": network.sizes, "network": network.state_dict(), "average": average.state_dict(),
                            "optimiser": optimiser.state_dict(), "step": step})
            losses, begun = [], time.monotonic()
        if p.mine and step % p.mine == 0 and step < p.steps:
            look_for_mistakes()
            begun = time.monotonic()
        if rank == 0 and held and (step % p.validate == 0 or step == p.steps):
            for row in validate(average, held, p.device):
                note(step=step, **{k: float(v) if isinstance(v, np.floating) else v for k, v in row.items()})
            begun = time.monotonic()


if __name__ == "__main__":
    main()
