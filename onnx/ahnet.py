"""AH-Net, the 3D Anisotropic Hybrid Network (Liu S. et al., MICCAI 2018), with its sizes as arguments.

In: windows (N, channels, depth, height, width), depth being the axis of the thick slices. Out: logits of the same size.
Written after MONAI's `AHNet` (monai/networks/nets/ahnet.py, Apache-2.0): the same layers, the same names and shapes in
the state dict, the same initial values. At width 64, growth 20, bn_size 4, layers (3, 4, 6, 3) it is MONAI's network with
`upsample_mode="trilinear", psp_block_num=0`, whose widths are fixed. MONAI keeps the depth last; the weights here are
stored as MONAI stores them, (out, in, in-plane, in-plane, depth).

The network computes in one of three forms with the same weights and, up to rounding, the same numbers:

* `form="volume"`: three-dimensional convolutions and pooling. This is the graph for GPUs.
* `form="slices"`: depth is carried in the batch axis and every convolution is two-dimensional. CPUs run this about 1.5
  times faster, because their libraries have good kernels for two-dimensional convolutions only.
* `form="channels_last"`: the same with another order in memory, for training on CPUs.
"""
import torch
import torch.nn.functional as F
from torch import nn

DIVISOR = 32   # height, width and depth of the input are multiples of this


class Volume:
    """The operations on (N, C, D, H, W). `depth` is not needed here: the tensor knows it."""

    @staticmethod
    def enter(x):
        return x

    @staticmethod
    def leave(x, depth):
        return x

    @staticmethod
    def conv(layer, x, depth):
        weight = layer.weight.permute(0, 1, 4, 2, 3)
        order = (2, 0, 1)
        return F.conv3d(x, weight, None, [layer.stride[i] for i in order], [layer.padding[i] for i in order])

    @staticmethod
    def halve_depth(x, depth):
        return F.max_pool3d(x, (2, 1, 1), (2, 1, 1))

    @staticmethod
    def pool(x, depth):
        return F.max_pool3d(x, 3, 2, 1)

    @staticmethod
    def double(x, depth):
        return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)


class Slices:
    """The operations on (N * D, C, H, W), with `depth` = D beside the tensor."""

    @staticmethod
    def enter(x):
        slices = x.transpose(1, 2).reshape(-1, x.shape[1], *x.shape[3:])
        return slices.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def leave(x, depth):
        return x.reshape(-1, depth, *x.shape[1:]).transpose(1, 2)

    @staticmethod
    def conv(layer, x, depth):
        """A convolution through the depth alone becomes one along the first axis of (depth, height * width). One that is also
        in plane (the first layer, with a single channel) takes the slices below and above as further input channels."""
        out, channels, height, width, taps = layer.weight.shape
        if taps == 3 and height == 1:
            columns = x.reshape(-1, depth, channels, x[0, 0].numel()).transpose(1, 2)
            columns = F.conv2d(columns, layer.weight.reshape(out, channels, 3, 1), None, 1, (1, 0))
            return columns.transpose(1, 2).reshape(-1, out, *x.shape[2:])
        if taps == 3:
            x = torch.cat(Slices._neighbours(x, depth), 1)
        weight = layer.weight.permute(0, 4, 1, 2, 3).reshape(out, taps * channels, height, width)
        return F.conv2d(x, weight, None, layer.stride[:2], layer.padding[:2])

    @staticmethod
    def halve_depth(x, depth):
        pairs = x.reshape(-1, 2, *x.shape[1:])   # depth is even, so that a pair never spans two windows
        return torch.maximum(pairs[:, 0], pairs[:, 1])

    @staticmethod
    def pool(x, depth):
        """Maximum over three slices at every second one. Its input has been through ReLU, so zeros outside change nothing."""
        pairs = F.max_pool2d(x, 3, 2, 1)
        pairs = pairs.reshape(-1, depth // 2, 2, *pairs.shape[1:])
        even, odd = pairs[:, :, 0], pairs[:, :, 1]
        below = F.pad(odd, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        return torch.maximum(torch.maximum(even, odd), below).flatten(0, 1)

    @staticmethod
    def double(x, depth):
        """Linear in depth by a matrix (cheap while the slices are small), then bilinear in plane; corners aligned in both."""
        weights = doubling_matrix(depth).to(x)
        stacks = x.reshape(-1, depth, x[0].numel())
        slices = torch.matmul(weights, stacks).reshape(-1, *x.shape[1:])
        return F.interpolate(slices, scale_factor=2, mode="bilinear", align_corners=True)

    @staticmethod
    def _neighbours(x, depth):
        """The slices below, the slices themselves, the slices above; zeros where the window ends."""
        stacks = x.reshape(-1, depth, *x.shape[1:])
        padded = F.pad(stacks, (0, 0, 0, 0, 0, 0, 1, 1))
        return [padded[:, k:k + depth].reshape(x.shape) for k in range(3)]


class ChannelsLast(Slices):
    """`Slices` with the channels innermost in memory from end to end. A CPU trains a seventh faster so; an exported graph has no use for it."""

    @staticmethod
    def conv(layer, x, depth):
        out, channels, height, width, taps = layer.weight.shape
        if taps != 3 or height != 1:
            return Slices.conv(layer, x, depth)
        rows = x.permute(0, 2, 3, 1)
        columns = rows.reshape(-1, depth, rows.shape[1] * rows.shape[2], channels).permute(0, 3, 1, 2)
        columns = F.conv2d(columns, layer.weight.reshape(out, channels, 3, 1), None, 1, (1, 0))
        return columns.permute(0, 2, 3, 1).reshape(*rows.shape[:3], out).permute(0, 3, 1, 2)

    @staticmethod
    def double(x, depth):
        rows = x.permute(0, 2, 3, 1)
        stacks = torch.matmul(doubling_matrix(depth).to(x), rows.reshape(-1, depth, x[0].numel()))
        slices = stacks.reshape(-1, *rows.shape[1:]).permute(0, 3, 1, 2)
        return F.interpolate(slices, scale_factor=2, mode="bilinear", align_corners=True)


FORMS = {"volume": Volume, "slices": Slices, "channels_last": ChannelsLast}


def doubling_matrix(depth):
    """(2 depth, depth) weights of linear interpolation with aligned corners; a single slice is repeated."""
    if depth == 1:
        return torch.ones(2, 1, dtype=torch.float64)
    position = torch.arange(2 * depth, dtype=torch.float64) * (depth - 1) / (2 * depth - 1)
    distance = (position[:, None] - torch.arange(depth, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0)


class Norm(nn.BatchNorm3d):
    """Batch normalisation of either form: the statistics are per channel, over everything else."""

    def _check_input_dim(self, x):
        if x.dim() not in (4, 5):
            raise ValueError(f"expected 4 or 5 dimensions, got {x.dim()}")


def conv(inputs, outputs, kernel=(1, 1, 1), stride=(1, 1, 1)):
    """A convolution that keeps the size at stride 1; kernel and stride are (in plane, in plane, depth)."""
    return nn.Conv3d(inputs, outputs, kernel, stride, tuple(k // 2 for k in kernel), bias=False)


class Bottleneck(nn.Module):
    """Residual block of the encoder, in plane only. `stride` 2 halves the size in plane, and the depth by a maximum."""

    def __init__(self, inputs, planes, stride, project):
        super().__init__()
        step = (stride, stride, 1)
        self.halves = stride == 2
        self.conv1, self.bn1 = conv(inputs, planes), Norm(planes)
        self.conv2, self.bn2 = conv(planes, planes, (3, 3, 1), step), Norm(planes)
        self.conv3, self.bn3 = conv(planes, 4 * planes), Norm(4 * planes)
        # MONAI has a pooling module as [1]; it has no weights, so its place keeps the names.
        self.downsample = nn.Sequential(conv(inputs, 4 * planes, stride=step), nn.Identity(), Norm(4 * planes)) if project else None

    def forward(self, ops, x, depth):
        y = F.relu(self.bn1(ops.conv(self.conv1, x, depth)))
        y = F.relu(self.bn2(ops.conv(self.conv2, y, depth)))
        y = self.bn3(ops.conv(self.conv3, y, depth))
        if self.downsample is not None:
            x = ops.conv(self.downsample[0], x, depth)
        if self.halves:
            x, y = ops.halve_depth(x, depth), ops.halve_depth(y, depth)
        if self.downsample is not None:
            x = self.downsample[2](x)
        return F.relu(x + y)


class DenseLayer(nn.Module):
    """Adds `growth` channels: a convolution in plane and, beside it, one through the depth."""

    def __init__(self, inputs, growth, bn_size):
        super().__init__()
        self.bn1, self.conv1 = Norm(inputs), conv(inputs, bn_size * growth)
        self.bn2, self.conv2 = Norm(bn_size * growth), conv(bn_size * growth, growth, (3, 3, 1))
        self.bn3, self.conv3 = Norm(growth), conv(growth, growth, (1, 1, 3))
        self.bn4, self.conv4 = Norm(growth), conv(growth, growth)

    def forward(self, ops, x, depth):
        y = ops.conv(self.conv1, F.relu(self.bn1(x)), depth)
        plane = ops.conv(self.conv2, F.relu(self.bn2(y)), depth)
        through = ops.conv(self.conv3, F.relu(self.bn3(plane)), depth)
        return torch.cat([x, ops.conv(self.conv4, F.relu(self.bn4(plane + through)), depth)], 1)


class DenseBlock(nn.Module):
    """Three dense layers: `inputs` channels in, `inputs + 3 growth` out."""

    def __init__(self, inputs, growth, bn_size):
        super().__init__()
        for i in range(3):
            self.add_module(f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth, bn_size))

    def forward(self, ops, x, depth):
        for layer in self.children():
            x = layer(ops, x, depth)
        return x


class Transition(nn.Module):
    """Norm, ReLU and a convolution that changes the number of channels."""

    def __init__(self, inputs, outputs, kernel=(1, 1, 1)):
        super().__init__()
        self.norm, self.conv = Norm(inputs), conv(inputs, outputs, kernel)

    def forward(self, ops, x, depth):
        return ops.conv(self.conv, F.relu(self.norm(x)), depth)


class AHNet(nn.Module):
    """The network. `width` is the channels of the first layer (MONAI 64), `growth` the channels that a dense layer adds (20),
    `bn_size` its inner widening (4), `layers` the blocks of the four encoder stages."""

    def __init__(self, width=64, growth=20, bn_size=4, layers=(3, 4, 6, 3), in_channels=1, out_channels=1, form="volume"):
        super().__init__()
        self.sizes = {"width": width, "growth": growth, "bn_size": bn_size, "layers": tuple(layers),
                      "in_channels": in_channels, "out_channels": out_channels}
        self.form = form
        w, extra = width, 3 * growth
        self.conv1, self.bn0 = conv(in_channels, w, (7, 7, 3), (2, 2, 1)), Norm(w)
        self.layer1 = self._stage(w, w, layers[0], 1)
        self.layer2 = self._stage(4 * w, 2 * w, layers[1], 2)
        self.layer3 = self._stage(8 * w, 4 * w, layers[2], 2)
        self.layer4 = self._stage(16 * w, 8 * w, layers[3], 2)
        self.up0, self.dense0 = Transition(32 * w, 16 * w), DenseBlock(16 * w, growth, bn_size)
        self.up1, self.dense1 = Transition(16 * w + extra, 8 * w), DenseBlock(8 * w, growth, bn_size)
        self.up2, self.dense2 = Transition(8 * w + extra, 4 * w), DenseBlock(4 * w, growth, bn_size)
        self.trans1, self.dense3 = Transition(4 * w + extra, w), DenseBlock(w, growth, bn_size)
        self.up3, self.dense4 = Transition(w + extra, w), DenseBlock(w, growth, bn_size)
        self.final = Transition(w + extra, out_channels, (3, 3, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                height, across, _ = module.kernel_size
                nn.init.normal_(module.weight, 0, (2 / (height * across * module.out_channels)) ** 0.5)

    @staticmethod
    def _stage(inputs, planes, blocks, stride):
        rest = [Bottleneck(4 * planes, planes, 1, project=False) for _ in range(blocks - 1)]
        return nn.ModuleList([Bottleneck(inputs, planes, stride, project=True), *rest])

    def forward(self, x):
        if any(n % DIVISOR for n in x.shape[2:]):
            raise ValueError(f"depth, height and width must be multiples of {DIVISOR}, got {tuple(x.shape[2:])}")
        ops, depth = FORMS[self.form], int(x.shape[2])
        full, half, quarter = depth, depth // 2, depth // 4
        y = ops.halve_depth(ops.conv(self.conv1, ops.enter(x), full), full)
        first = F.relu(self.bn0(y))
        pooled = ops.pool(first, half)

        y, depth, stages = pooled, quarter, []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                y = block(ops, y, depth)
                depth = depth // 2 if block.halves else depth
            stages.append(y)

        for up, dense, skip in ((self.up0, self.dense0, stages[2]), (self.up1, self.dense1, stages[1]), (self.up2, self.dense2, stages[0])):
            y = ops.double(up(ops, y, depth), depth)
            depth *= 2
            y = dense(ops, y + skip, depth)
        y = self.dense3(ops, self.trans1(ops, y, quarter) + pooled, quarter)
        y = self.dense4(ops, ops.double(self.up3(ops, y, quarter), quarter) + first, half)
        return ops.leave(ops.double(self.final(ops, y, half), half), full)


def mean_of(weights):
    """The mean of several state dicts, number by number; what is no number is the last one's."""
    return {name: sum(of[name].float() for of in weights) / len(weights) if value.dtype.is_floating_point else value
            for name, value in weights[-1].items()}
