"""ST-GCN++ (arXiv 2205.09443), with the parameter names of its published checkpoints.

Shapes: N batch, M persons, T frames, V joints, C channels, K adjacency subsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelact.errors import SkelactError
from skelact.structures import Array

NUM_SUBSETS = 3
DILATIONS = (1, 2, 3, 4)
NUM_BRANCHES = len(DILATIONS) + 2  # and a max pool, and a plain 1x1 convolution
MAX_BLOCKS = 100  # to make more takes minutes
PUBLISHED_CHANNELS = (64,) * 4 + (128,) * 3 + (256,) * 3
PUBLISHED_STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


@dataclass(frozen=True)
class ModelSettings:
    """The network's shape.

    Attributes:
        in_channels: C of the input.
        num_joints: V.
        num_classes: of the head.
        channels: of each block's output.
        strides: of each block in time.
    """

    in_channels: int
    num_joints: int
    num_classes: int
    channels: tuple[int, ...] = PUBLISHED_CHANNELS
    strides: tuple[int, ...] = PUBLISHED_STRIDES

    def __post_init__(self) -> None:
        if len(self.channels) > MAX_BLOCKS:
            raise SkelactError(f"expected a network of {MAX_BLOCKS} blocks at most, found {len(self.channels)}")

    @property
    def fewest_weights(self) -> int:
        """Those of the graphs, of their convolutions and of the head; the network has some more."""
        widths = (self.in_channels, *self.channels)
        graphs = NUM_SUBSETS * self.num_joints**2 * len(self.channels)
        return graphs + sum(NUM_SUBSETS * a * b for a, b in pairwise(widths)) + widths[-1] * self.num_classes


def _pointwise(x: Tensor, conv: Any) -> Tensor:
    """A 1x1 convolution of (N, T, V, C), as the matrix product that it is."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _channels_first(x: Tensor, layer: Any) -> Tensor:
    """(N, T, V, C) through a layer that takes (N, C, T, V); both are views of the same memory."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _joint_batch_norm_relu(x: Tensor, norms: list[Any]) -> Tensor:
    """(N, T, V, C) through batch norms that share the channels, as if they were one, and ReLU."""
    mean, var, weight, bias = (
        torch.cat([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var", "weight", "bias")
    )
    training, momentum, eps = norms[0].training, norms[0].momentum, norms[0].eps
    x = _channels_first(x, lambda y: F.batch_norm(y, mean, var, weight, bias, training, momentum, eps).relu_())
    if training:  # mean and var have moved on
        widths = [norm.num_features for norm in norms]
        for norm, new_mean, new_var in zip(norms, mean.split(widths), var.split(widths), strict=True):
            norm.running_mean.copy_(new_mean)
            norm.running_var.copy_(new_var)
            norm.num_batches_tracked.add_(1)
    return x


class GraphUnit(nn.Module):
    """Mix joints along a learned graph: 1x1 convolution to K sets of channels, product with A, sum over K."""

    def __init__(self, in_channels: int, out_channels: int, adjacency: Tensor) -> None:
        super().__init__()
        self.A = nn.Parameter(adjacency.clone())
        self.conv = nn.Conv2d(in_channels, out_channels * NUM_SUBSETS, 1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.down: Any = nn.Identity()
        if in_channels != out_channels:
            self.down = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C) to (N, T, V, C')."""
        N, T, V, _ = x.shape
        subsets = _pointwise(x, self.conv).view(N * T, V * NUM_SUBSETS, -1)  # for each joint its K subsets
        A = self.A.permute(2, 1, 0).reshape(V, V * NUM_SUBSETS)
        mixed = torch.bmm(A.expand(N * T, -1, -1), subsets).view(N, T, V, -1)  # matmul would copy the subsets around
        if not isinstance(self.down, nn.Identity):
            x = _channels_first(_pointwise(x, self.down[0]), self.down[1])
        return _channels_first(mixed, lambda y: self.bn(y).add_(x.permute(0, 3, 1, 2)).relu_())


class TemporalConv(nn.Module):
    """A convolution along time, of (N, C, T, V); ``bn`` where it stands for a block's residual."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, dilation: int, bn: bool) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (kernel, 1), (stride, 1), (padding, 0), dilation=(dilation, 1))
        self.bn: nn.Module = nn.BatchNorm2d(out_channels) if bn else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T', V)."""
        return self.bn(self.conv(x))


class MultiScaleTemporalUnit(nn.Module):
    """Six views of time side by side: four dilations, a max pool and the frame itself.

    All but the last start with a pointwise convolution, batch norm and ReLU of the same input. These are kept apart,
    under their published names, and computed as one, which is faster and gives the same numbers.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        width = channels // NUM_BRANCHES
        widths = [channels - width * (NUM_BRANCHES - 1)] + [width] * (NUM_BRANCHES - 1)
        branches: list[nn.Module] = [
            nn.Sequential(
                nn.Conv2d(channels, width, 1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                TemporalConv(width, width, 3, stride, dilation, bn=False),
            )
            for width, dilation in zip(widths, DILATIONS, strict=False)
        ]
        branches.append(
            nn.Sequential(
                nn.Conv2d(channels, width, 1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d((3, 1), (stride, 1), (1, 0)),
            )
        )
        branches.append(nn.Conv2d(channels, width, 1, (stride, 1)))
        self.stride = stride
        self.branches = nn.ModuleList(branches)
        self.transform = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C) to (N, T', V, C)."""
        *branches, frame = cast(Any, self.branches)
        convs, norms = [branch[0] for branch in branches], [branch[1] for branch in branches]
        weight, bias = torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs])
        mixed = _joint_batch_norm_relu(F.linear(x, weight.flatten(1), bias), norms)
        parts = mixed.split([conv.out_channels for conv in convs], dim=-1)
        views = [_channels_first(part, branch[3]) for branch, part in zip(branches, parts, strict=True)]
        views.append(_pointwise(x[:, :: self.stride], frame))
        bn, _, conv = self.transform
        x = _channels_first(torch.cat(views, dim=-1), lambda y: bn(y).relu_())
        return _channels_first(_pointwise(x, conv), self.bn)


class Block(nn.Module):
    """Graph unit, temporal unit and a residual around both (none around the first block)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, adjacency: Tensor, residual: bool) -> None:
        super().__init__()
        self.stride = stride
        self.gcn = GraphUnit(in_channels, out_channels, adjacency)
        self.tcn = MultiScaleTemporalUnit(out_channels, stride)
        self.residual: Any = None
        if residual and in_channels == out_channels and stride == 1:
            self.residual = nn.Identity()
        elif residual:
            self.residual = TemporalConv(in_channels, out_channels, 1, stride, 1, bn=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C) to (N, T', V, C')."""
        out = self.tcn(self.gcn(x))
        if self.residual is None:
            return torch.relu(out)
        if not isinstance(self.residual, nn.Identity):
            x = _channels_first(_pointwise(x[:, :: self.stride], self.residual.conv), self.residual.bn)
        return (out + x).relu_()


class Backbone(nn.Module):
    """Batch norm over the joints of each person, then the blocks.

    Channels come last in memory: most layers are matrix products over channels.
    """

    def __init__(self, settings: ModelSettings, adjacency: Tensor) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm1d(settings.num_joints * settings.in_channels)
        widths = (settings.in_channels, *settings.channels)
        self.gcn = nn.ModuleList(
            Block(widths[i], widths[i + 1], stride, adjacency, residual=i > 0)
            for i, stride in enumerate(settings.strides)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) to (N, M, T', V, C')."""
        N, M, T, V, C = x.shape
        x = self.data_bn(x.reshape(N * M * T, V * C)).view(N * M, T, V, C)
        for block in self.gcn:
            x = block(x)
        return x.view(N, M, *x.shape[1:])


class Head(nn.Module):
    """Mean over time, joints and persons, then a linear layer; in training, ``dropout`` of the features are hidden."""

    dropout = 0.0

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) to logits (N, num_classes)."""
        return self.fc(F.dropout(features, self.dropout, self.training))


class STGCNPP(nn.Module):
    """The whole network: clips (N, M, T, V, C) to logits (N, num_classes).

    With ``skip_empty`` it computes the slots in which nobody is once, as they all look alike. That is faster, and gives
    the same logits where the network does not learn; where it does, they count once in the batch norms' statistics.

    Args:
        settings: the network's shape.
        adjacency: (K, V, V), the graph that the learned one starts from (``Layout.adjacency``).
    """

    skip_empty = False

    def __init__(self, settings: ModelSettings, adjacency: Array) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings, torch.as_tensor(np.asarray(adjacency, np.float32)))
        self.cls_head = Head(settings.channels[-1], settings.num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Clips (N, M, T, V, C) to what the head sees, (N, C')."""
        if not self.skip_empty:
            return self.backbone(x).mean(dim=(2, 3)).mean(dim=1)
        N, M, *_ = x.shape
        slots = x.flatten(0, 1)
        present = slots.flatten(1).any(1)
        people = torch.cat([torch.zeros_like(slots[:1]), slots[present]])
        features = self.backbone(people[:, None]).mean(dim=(1, 2, 3))
        row = present.cumsum(0) * present  # of a slot, among the people: 0 is nobody
        return features[row].view(N, M, -1).mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, M, T, V, C) to logits (N, num_classes)."""
        return self.cls_head(self.features(x))


def count_parameters(model: nn.Module) -> int:
    """Learned numbers in the network."""
    return sum(p.numel() for p in model.parameters())


def count_operations(model: STGCNPP, clip_shape: tuple[int, int, int, int]) -> int:
    """Operations of one clip, counted while it runs, in the field's way.

    The field's "FLOPs" are multiply-accumulates plus, for each element, two operations of a batch norm and one of a
    pooling or mean, as fvcore and mmengine count them.

    Args:
        model: the network.
        clip_shape: (M, T, V, C) of one clip.
    """
    from torch.utils.flop_counter import FlopCounterMode

    elementwise = 0

    def add_batch_norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal elementwise
        elementwise += 2 * output.numel()

    def add_pooling(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal elementwise
        elementwise += output.numel()

    def add_branches(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal elementwise
        features: list[Any] = list(module.branches)[:-1]  # type: ignore[arg-type]
        N, T, V, _ = inputs[0].shape
        elementwise += 2 * N * T * V * sum(branch[1].num_features for branch in features)

    hooks = []
    for module in model.modules():
        if isinstance(module, MultiScaleTemporalUnit):
            hooks.append(module.register_forward_hook(add_branches))
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            hooks.append(module.register_forward_hook(add_batch_norm))
        elif isinstance(module, nn.MaxPool2d | Backbone):
            hooks.append(module.register_forward_hook(add_pooling))
    try:
        device = next(model.parameters()).device
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *clip_shape, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2 + elementwise
