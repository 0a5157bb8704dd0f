"""ST-GCN++ (arXiv 2205.09443), with the parameter names of its published checkpoints.

Shapes: N batch, M persons, T frames, V joints, C channels, K adjacency subsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelact.structures import Array

NUM_SUBSETS = 3
DILATIONS = (1, 2, 3, 4)
NUM_BRANCHES = len(DILATIONS) + 2  # and a max pool, and a plain 1x1 convolution
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


class GraphUnit(nn.Module):
    """Mix joints along a learned graph: 1x1 convolution to K sets of channels, product with A, sum over K."""

    def __init__(self, in_channels: int, out_channels: int, adjacency: Tensor) -> None:
        super().__init__()
        self.A = nn.Parameter(adjacency.clone())
        self.conv = nn.Conv2d(in_channels, out_channels * NUM_SUBSETS, 1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.down: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.down = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T, V)."""
        N, _, T, V = x.shape
        subsets = self.conv(x).view(N, NUM_SUBSETS, -1, T, V)
        mixed = torch.einsum("nkctv,kvw->nctw", subsets, self.A)
        return torch.relu(self.bn(mixed) + self.down(x))


class TemporalConv(nn.Module):
    """A convolution along time; ``bn`` where it stands for a block's residual."""

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

    Each starts with a pointwise convolution of the same input. They are kept apart, under their published names, and
    computed as one, which is more than twice as fast and gives the same numbers.
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
        self.branches = nn.ModuleList(branches)
        self.transform = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C, T', V)."""
        branches: list[Any] = list(self.branches)
        frame = branches.pop()
        convs = [branch[0] for branch in branches] + [frame] * (frame.stride == (1, 1))
        weight, bias = torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs])
        widths = [branch[0].out_channels for branch in branches]
        mixed, *rest = F.conv2d(x, weight, bias).tensor_split([sum(widths)], dim=1)
        parts = torch.relu(_batch_norm(mixed, [branch[1] for branch in branches])).split(widths, dim=1)
        views = [branch[3](part) for branch, part in zip(branches, parts, strict=True)]
        views.append(rest[0] if frame.stride == (1, 1) else frame(x))
        return self.bn(self.transform(torch.cat(views, dim=1)))


def _batch_norm(x: Tensor, norms: list[nn.BatchNorm2d]) -> Tensor:
    """(N, C, T, V) through batch norms that share its channels."""
    mean = torch.cat([norm.running_mean for norm in norms])  # type: ignore[misc]
    var = torch.cat([norm.running_var for norm in norms])  # type: ignore[misc]
    weight, bias = torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms])
    training = norms[0].training
    x = F.batch_norm(x, mean, var, weight, bias, training, norms[0].momentum or 0.1, norms[0].eps)
    if training:  # mean and var are moved on
        widths = [norm.num_features for norm in norms]
        for norm, new_mean, new_var in zip(norms, mean.split(widths), var.split(widths), strict=True):
            norm.running_mean.copy_(new_mean)  # type: ignore[union-attr]
            norm.running_var.copy_(new_var)  # type: ignore[union-attr]
            norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    return x


class Block(nn.Module):
    """Graph unit, temporal unit and a residual around both (none around the first block)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, adjacency: Tensor, residual: bool) -> None:
        super().__init__()
        self.gcn = GraphUnit(in_channels, out_channels, adjacency)
        self.tcn = MultiScaleTemporalUnit(out_channels, stride)
        self.residual: nn.Module | None = None
        if residual and in_channels == out_channels and stride == 1:
            self.residual = nn.Identity()
        elif residual:
            self.residual = TemporalConv(in_channels, out_channels, 1, stride, 1, bn=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T', V)."""
        out = self.tcn(self.gcn(x))
        return torch.relu(out if self.residual is None else out + self.residual(x))


class Backbone(nn.Module):
    """Batch norm over the joints of each person, then the blocks."""

    def __init__(self, settings: ModelSettings, adjacency: Tensor) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm1d(settings.num_joints * settings.in_channels)
        widths = (settings.in_channels, *settings.channels)
        self.gcn = nn.ModuleList(
            Block(widths[i], widths[i + 1], stride, adjacency, residual=i > 0)
            for i, stride in enumerate(settings.strides)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) to (N, M, C', T', V)."""
        N, M, T, V, C = x.shape
        x = x.permute(0, 1, 3, 4, 2).reshape(N * M, V * C, T)
        x = self.data_bn(x).view(N * M, V, C, T).permute(0, 2, 3, 1)  # (N * M, C, T, V)
        for block in self.gcn:
            x = block(x)
        return x.view(N, M, *x.shape[1:])


class Head(nn.Module):
    """Mean over time, joints and persons, then a linear layer."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) to logits (N, num_classes)."""
        return self.fc(features)


class STGCNPP(nn.Module):
    """The whole network: clips (N, M, T, V, C) to logits (N, num_classes).

    Args:
        settings: the network's shape.
        adjacency: (K, V, V), the graph that the learned one starts from (``Layout.adjacency``).
    """

    def __init__(self, settings: ModelSettings, adjacency: Array) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings, torch.as_tensor(np.asarray(adjacency, np.float32)))
        self.cls_head = Head(settings.channels[-1], settings.num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Clips (N, M, T, V, C) to what the head sees, (N, C')."""
        return self.backbone(x).mean(dim=(3, 4)).mean(dim=1)

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
        N, _, T, V = inputs[0].shape
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
