"""ST-GCN++ for prediction: the trained network with its batch norms folded, in fewer and larger steps.

All layers between two ReLUs are linear, so that they can be multiplied out once. Of a block stay a product with the
graph, three matrix products over channels, and the short convolutions along time. As relu(x + b) = max(x, -b) + b, and
what follows is linear too, biases within a block move on to its end. Shapes as in ``skelact.model``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelact.model import DILATIONS, NUM_SUBSETS, STGCNPP, Block, TemporalConv

REACH = max(DILATIONS)  # frames to each side that a block sees
MAX_ROOMS = 64  # a network has six for each number of people at once
VALUES_AT_ONCE = 4 * 100 * 64  # frames x channels, on the CPU: what lies between two steps should stay in its caches


def fold(network: STGCNPP) -> FoldedSTGCNPP:
    """A network that gives the same logits, up to rounding, and does not learn."""
    with torch.no_grad():
        return FoldedSTGCNPP(network).eval()


class FoldedSTGCNPP(nn.Module):
    """Clips (N, M, T, V, C) to logits (N, num_classes); made by ``fold``."""

    scale: Tensor
    shift: Tensor
    head_weight: Tensor
    head_bias: Tensor

    def __init__(self, network: STGCNPP) -> None:
        super().__init__()
        settings, norm = network.settings, network.backbone.data_bn
        scale, shift = _scale_and_shift(norm)
        self.register_buffer("scale", scale.view(settings.num_joints, -1).float())
        self.register_buffer("shift", shift.view(settings.num_joints, -1).float())
        self.width = settings.channels[0]
        self.blocks = nn.ModuleList(FoldedBlock(block) for block in cast(Any, network.backbone.gcn))
        fc = network.cls_head.fc
        self.register_buffer("head_weight", fc.weight.detach().clone())
        self.register_buffer("head_bias", fc.bias.detach().clone())
        self._nobody: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, M, T, V, C) to logits (N, num_classes)."""
        N, M, T, V, C = x.shape
        people = x.reshape(N * M, T, V, C)
        features = self._features(people) if _as_a_graph(x) else self._features_of_those_present(people)
        return F.linear(features.view(N, M, -1).mean(1), self.head_weight, self.head_bias)

    def _features(self, x: Tensor) -> Tensor:
        """(N, T, V, C) to (N, C')."""
        x = x * self.scale + self.shift
        for block in self.blocks:
            x = block(x)
        return x.flatten(1, 2).mean(1)

    def _features_of_those_present(self, people: Tensor) -> Tensor:
        """As ``_features``, but empty slots, which all look alike, are computed once for a length of clip."""
        T = people.shape[1]
        present = people.flatten(1).any(1)
        if not present.all() and T not in self._nobody:
            self._nobody[T] = self._features(torch.zeros_like(people[:1]))
        features = people.new_empty(len(people), self.head_weight.shape[1])
        if not present.all():
            features[~present] = self._nobody[T]
        if present.any():
            at_once = max(1, VALUES_AT_ONCE // (T * self.width))
            features[present] = torch.cat([self._features(part) for part in people[present].split(at_once)])
        return features


class FoldedBlock(nn.Module):
    """(N, T, V, C) to (N, T', V, C')."""

    A: Tensor
    graph_weight: Tensor
    graph_low: Tensor
    down_weight: Tensor | None
    in_weight: Tensor
    in_bias: Tensor
    in_low: Tensor
    view_bias: Tensor
    view_low: Tensor
    view_high: Tensor
    out_weight: Tensor
    out_bias: Tensor
    residual_weight: Tensor | None

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.stride = block.stride
        bias = self._fold_graph(block.gcn)
        self._fold_time(block.tcn, bias)
        self.has_residual = block.residual is not None
        residual = None
        if isinstance(block.residual, TemporalConv):
            residual, bias_of_rest = _folded(block.residual.conv, block.residual.bn)
            self.out_bias += bias_of_rest.float()
        self._keep(residual_weight=residual)

    def _keep(self, **buffers: Tensor | None) -> None:
        for name, value in buffers.items():
            self.register_buffer(name, None if value is None else value.float().contiguous())

    def _fold_graph(self, unit: Any) -> Tensor:
        """Keep the graph unit but for a bias (V, C'), which moves on."""
        V, C, C_out = unit.A.shape[-1], unit.conv.in_channels, unit.bn.num_features
        scale, shift = _scale_and_shift(unit.bn)
        A = unit.A.double()
        weight = unit.conv.weight.double().view(NUM_SUBSETS, C_out, C) * scale[:, None]
        bias = torch.einsum("kvw,kc->wc", A, unit.conv.bias.double().view(NUM_SUBSETS, C_out) * scale) + shift
        down = None
        if not isinstance(unit.down, nn.Identity):
            down, down_bias = _folded(*unit.down)
            bias = bias + down_bias
        # Joints are mixed where there are fewer channels, for as many multiplications.
        self.mix_first = C_out >= C
        if self.mix_first:
            self._keep(A=A.permute(2, 0, 1).reshape(-1, V), graph_weight=weight.transpose(1, 2).reshape(-1, C_out))
        else:
            self._keep(A=A.permute(2, 1, 0).reshape(V, -1), graph_weight=weight.permute(2, 0, 1).reshape(C, -1))
        self._keep(graph_low=-bias, down_weight=down)
        return bias

    def _fold_time(self, unit: Any, bias: Tensor) -> None:
        *branches, frame = unit.branches
        folded = [_folded(branch[0], branch[1]) for branch in branches] + [_folded(frame)]
        self.widths = tuple(len(each) for _, each in folded)
        weight = torch.cat([each for each, _ in folded], 1)
        bias = torch.cat([each for _, each in folded]) + bias @ weight
        low = -bias
        low[:, -self.widths[-1] :] = -torch.inf  # the frame as it is has no ReLU
        self._keep(in_weight=weight, in_bias=bias, in_low=low)
        norm, _, conv = unit.transform
        scale, shift = _scale_and_shift(norm)
        scale = torch.where(scale == 0, 1e-30, scale)
        stop = 0
        for i, branch in enumerate(branches[: len(DILATIONS)]):
            taps = branch[3].conv.weight.squeeze(-1).permute(2, 1, 0)  # (3, C, C')
            self._keep(**{f"tap{i}{k}": tap for k, tap in enumerate(taps)})
            start, stop = stop, stop + taps.shape[1]
            bias[:, start:stop] = bias[:, start:stop] @ taps.double().sum(0)
            shift[start:stop] += scale[start:stop] * branch[3].conv.bias.double()
        # The ReLU of scale * view + shift: where the scale is negative, it bounds the view from above.
        edge = -(bias + shift / scale)
        low, high = edge.where(scale > 0, -torch.inf), edge.where(scale < 0, torch.inf)
        self._keep(view_bias=bias, view_low=low, view_high=high)
        weight, out_bias = _folded(conv, unit.bn)
        self._keep(out_weight=weight * scale[:, None], out_bias=out_bias + (bias * scale + shift) @ weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C), which is overwritten, to (N, T', V, C')."""
        N, T, V, C = x.shape
        if _as_a_graph(x):
            views = self._views_as_convolutions(self._mixed(x))
        else:
            room = _rooms.of((N, T, V, C), self.stride, self.widths)
            views = self._views_in_place(self._mixed(x, room.between, room.mixed), room)
        T, C_out = views.shape[1], views.shape[3]
        views = views.reshape(N, T * V, C_out)
        weight = self.out_weight.expand(N, -1, -1)
        if not self.has_residual:
            out = torch.bmm(views, weight)
        else:
            rest = x[:, :: self.stride].reshape(N, T * V, C)
            if self.residual_weight is not None:
                rest = torch.bmm(rest, self.residual_weight.expand(N, -1, -1))
            out = _plus_product(rest, views, weight)
        return out.view(N, T, V, C_out).add_(self.out_bias).relu_()

    def _mixed(self, x: Tensor, between: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """The graph unit but for its bias: (N, T, V, C) to (N, T, V, C'); parts of a room as in ``_Room``."""
        N, T, V, C = x.shape
        rest = x.view(N, T * V, C)
        A, weight = self.A.expand(N * T, -1, -1), self.graph_weight.expand(N, -1, -1)
        if self.mix_first:
            joints = torch.bmm(A, x.view(N * T, V, C), out=between)
            mixed = torch.bmm(joints.view(N, T * V, NUM_SUBSETS * C), weight, out=out)
        else:
            channels = torch.bmm(rest, weight, out=between).view(N * T, V * NUM_SUBSETS, -1)
            out = None if out is None else out.view(N * T, V, -1)
            mixed = torch.bmm(A, channels, out=out).view(N, T * V, -1)
        if self.down_weight is None:
            mixed = mixed.add_(rest)
        else:
            mixed = _plus_product(mixed, rest, self.down_weight.expand(N, -1, -1))
        return mixed.view(N, T, V, -1).clamp_(self.graph_low)

    def _views_in_place(self, x: Tensor, room: _Room) -> Tensor:
        """The views of time, each written to its channels: a convolution is the sum of three matrix products."""
        torch.bmm(x.flatten(1, 2), self.in_weight.expand(len(x), -1, -1), out=room.rows.flatten(1, 2))
        for k, (frames, padding) in enumerate(zip(room.frames, room.padding, strict=True)):
            torch.maximum(room.rows[:, k :: self.stride], self.in_low, out=frames)
            for part in padding:
                part.copy_(self.in_low)
        for i, (view, parts) in enumerate(room.convs):
            for k, part in enumerate(parts):
                view.addmm_(part, getattr(self, f"tap{i}{k}"), beta=min(k, 1))
        view, (before, now, after) = room.pool
        torch.maximum(torch.maximum(before, after, out=view), now, out=view)
        view, part = room.frame
        view.copy_(part)
        return room.views.clamp_(self.view_low, self.view_high)

    def _views_as_convolutions(self, x: Tensor) -> Tensor:
        """The same without writing in place, which graphs can't, and other devices do slowly."""
        rows = torch.matmul(x, self.in_weight) + self.in_bias
        *parts, pool, frame = rows.split(self.widths, -1)
        views = []
        for i, (part, d) in enumerate(zip(parts, DILATIONS, strict=True)):
            weight = torch.stack([getattr(self, f"tap{i}{k}") for k in range(3)]).permute(2, 1, 0).unsqueeze(-1)
            part = torch.relu(part).permute(0, 3, 1, 2)
            views.append(F.conv2d(part, weight, None, (self.stride, 1), (d, 0), (d, 1)))
        views.append(F.max_pool2d(torch.relu(pool).permute(0, 3, 1, 2), (3, 1), (self.stride, 1), (1, 0)))
        views.append(frame[:, :: self.stride].permute(0, 3, 1, 2))
        unbiased = torch.cat(views, 1).permute(0, 2, 3, 1) - self.view_bias
        return torch.clamp(unbiased, self.view_low, self.view_high)


class _Room:
    """Where what lies between the steps for N people is made; all its parts are views of the same memory.

    For the views of time people lie one after another, with ``REACH`` frames of padding around each, so that a shift in
    time is one in rows for all of them. With a stride of 2 even and odd frames lie apart, so that only what stays is
    computed.

    Attributes:
        between, mixed: what the two products of the graph unit make, for ``torch.bmm``.
        rows: the start of the branches, (N, T, V, C').
        frames, padding: for each step of a stride, where its frames go, (N, T', V, C'), and what is around them.
        convs: for each dilation the view to be made, and the parts that its three taps multiply, (rows, channels) each.
        pool, frame: the same of the maximum over three frames, and of the frame as it is.
        views: all of them, (N, T', V, C').
    """

    def __init__(
        self,
        memory: Callable[[int], Tensor],
        shape: tuple[int, int, int, int],
        stride: int,
        widths: tuple[int, ...],
    ) -> None:
        N, T, V, C_in = shape
        C, stays = sum(widths), -(-T // stride)
        num_rows = (N * (stays + REACH) - REACH) * V
        shapes = [
            (N * T, NUM_SUBSETS * V, C_in) if C_in <= C else (N, T * V, NUM_SUBSETS * C),
            (N, T * V, C),
            (N, T, V, C),
            (N, stays + REACH, V, C),
            *[(REACH + N * (stays + REACH), V, C)] * stride,
        ]
        sizes = [math.prod(each) for each in shapes]
        parts = memory(sum(sizes))[: sum(sizes)].split(sizes)
        self.between, self.mixed, rows, views, *spaces = map(torch.Tensor.view, parts, shapes)
        self.views = views[:, :stays]
        self.frames, self.padding, branches = [], [], []
        for step, space in enumerate(spaces):
            people, there = space[REACH:].view(N, -1, V, C), len(range(step, T, stride))
            self.frames.append(people[:, :there])
            self.padding.append((space[:REACH], people[:, there:]))
            branches.append(space.view(-1, C).split(widths, 1))
        self.rows = rows if stride > 1 else self.frames[0]

        def seen(branch: int, dilation: int) -> list[Tensor]:
            """The frames before, now and after."""
            places = (divmod(frames, stride) for frames in (-dilation, 0, dilation))
            return [branches[step][branch].narrow(0, (REACH + back) * V, num_rows) for back, step in places]

        *made, pool, frame = views.view(-1, C)[:num_rows].split(widths, 1)
        self.convs = [(view, seen(k, d)) for k, (view, d) in enumerate(zip(made, DILATIONS, strict=True))]
        self.pool = pool, seen(len(made), 1)
        self.frame = frame, seen(len(made) + 1, 0)[1]


class _Rooms(threading.local):
    """Those of a thread, which share its memory: no two are in use at once. To make one takes as long as to use it."""

    def __init__(self) -> None:
        self._made: dict[Any, _Room] = {}
        self._memory = torch.empty(0)

    def of(self, *shape: Any) -> _Room:
        """The one for what ``_Room`` takes."""
        if shape not in self._made:
            if len(self._made) >= MAX_ROOMS:
                self._made.clear()
            with torch.inference_mode(False):  # or it could not be written to outside of that
                self._made[shape] = _Room(self._of_size, *shape)
        return self._made[shape]

    def _of_size(self, size: int) -> Tensor:
        if size > len(self._memory):
            self._made.clear()
            self._memory = torch.from_numpy(np.empty(size, np.float32))  # NumPy asks for large pages, torch does not
        return self._memory


_rooms = _Rooms()


def _plus_product(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x + a @ b, in the place of x but in graphs."""
    return torch.baddbmm(x, a, b) if torch.jit.is_tracing() else x.baddbmm_(a, b)


def _as_a_graph(x: Tensor) -> bool:
    return torch.jit.is_tracing() or x.device.type != "cpu"


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation, (C,) each, float64."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


def _folded(conv: Any, norm: Any = None) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution, with the batch norm that follows: (C, C') and (C',), float64."""
    weight, bias = conv.weight.double().flatten(1), conv.bias.double()
    if norm is not None:
        scale, shift = _scale_and_shift(norm)
        weight, bias = weight * scale[:, None], bias * scale + shift
    return weight.t(), bias
