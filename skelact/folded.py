"""ST-GCN++ for prediction: the trained network with its batch norms folded, in fewer and larger steps.

All layers between two ReLUs are linear, so that they can be multiplied out once. Of a block stay a product with the
graph, three matrix products over channels, and the short convolutions along time. Shapes as in ``skelact.model``.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skelact.model import DILATIONS, NUM_SUBSETS, STGCNPP, Block, TemporalConv

REACH = max(DILATIONS)  # frames to each side that a block sees
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
    graph_bias: Tensor
    down_weight: Tensor | None
    in_weight: Tensor
    in_bias: Tensor
    view_scale: Tensor
    view_shift: Tensor
    out_weight: Tensor
    out_bias: Tensor
    residual_weight: Tensor | None

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.stride = block.stride
        self._fold_graph(block.gcn)
        self._fold_time(block.tcn)
        self.has_residual = block.residual is not None
        residual = None
        if isinstance(block.residual, TemporalConv):
            residual, bias = _folded(block.residual.conv, block.residual.bn)
            self.out_bias += bias.float()
        self._keep(residual_weight=residual)

    def _keep(self, **buffers: Tensor | None) -> None:
        for name, value in buffers.items():
            self.register_buffer(name, None if value is None else value.float().contiguous())

    def _fold_graph(self, unit: Any) -> None:
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
        self._keep(graph_bias=bias, down_weight=down)

    def _fold_time(self, unit: Any) -> None:
        *branches, frame = unit.branches
        folded = [_folded(branch[0], branch[1]) for branch in branches] + [_folded(frame)]
        self._keep(in_weight=torch.cat([w for w, _ in folded], 1), in_bias=torch.cat([b for _, b in folded]))
        self.widths = [len(bias) for _, bias in folded]
        # What the second batch norm does to each view, and the biases of the convolutions.
        norm, _, conv = unit.transform
        scale, shift = _scale_and_shift(norm)
        convs = [branch[3].conv for branch in branches[: len(DILATIONS)]]
        biases = torch.cat([conv.bias for conv in convs]).double()
        shift[: len(biases)] += scale[: len(biases)] * biases
        self._keep(view_scale=scale, view_shift=shift)
        for i, each in enumerate(convs):
            self._keep(**{f"taps{i}": each.weight.squeeze(-1).permute(2, 1, 0)})  # (3, C, C')
        weight, bias = _folded(conv, unit.bn)
        self._keep(out_weight=weight, out_bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, V, C), which is overwritten, to (N, T', V, C')."""
        N, T, V, C = x.shape
        mixed = self._mixed(x)
        in_place = self.stride == 1 and not _as_a_graph(x)
        views = self._views_in_place(mixed) if in_place else self._views_as_convolutions(mixed)
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
        return out.add_(self.out_bias).relu_().view(N, T, V, C_out)

    def _mixed(self, x: Tensor) -> Tensor:
        """The graph unit: (N, T, V, C) to (N, T, V, C')."""
        N, T, V, C = x.shape
        rest = x.view(N, T * V, C)
        A, weight = self.A.expand(N * T, -1, -1), self.graph_weight.expand(N, -1, -1)
        if self.mix_first:
            mixed = torch.bmm(torch.bmm(A, x.view(N * T, V, C)).view(N, T * V, NUM_SUBSETS * C), weight)
        else:
            mixed = torch.bmm(A, torch.bmm(rest, weight).view(N * T, V * NUM_SUBSETS, -1)).view(N, T * V, -1)
        if self.down_weight is None:
            mixed = mixed.add_(rest)
        else:
            mixed = _plus_product(mixed, rest, self.down_weight.expand(N, -1, -1))
        return mixed.view(N, T, V, -1).add_(self.graph_bias).relu_()

    def _views_in_place(self, x: Tensor) -> Tensor:
        """The views of time, each written to its channels: a convolution is the sum of three matrix products.

        People lie one after another in time, with ``REACH`` empty frames around each, so that a shift in time is one
        in rows for all of them.
        """
        N, T, V, C = x.shape
        space = x.new_empty(REACH + N * (T + REACH), V, C)
        space[:REACH] = 0
        people = space[REACH:].view(N, T + REACH, V, C)
        people[:, T:] = 0
        mixed = people[:, :T]
        mixed.flatten(1, 2).baddbmm_(x.flatten(1, 2), self.in_weight.expand(N, -1, -1), beta=0)
        mixed.add_(self.in_bias)[..., : -self.widths[-1]].relu_()

        out = torch.empty_like(people)
        num_rows = (N * (T + REACH) - REACH) * V  # the last empty frames are of no use
        *convs, pool, frame = zip(
            space.view(-1, C).split(self.widths, 1), out.view(-1, C)[:num_rows].split(self.widths, 1), strict=True
        )

        def shifted(part: Tensor, frames: int) -> Tensor:
            return part.narrow(0, (REACH + frames) * V, num_rows)

        for i, ((part, view), dilation) in enumerate(zip(convs, DILATIONS, strict=True)):
            for k, weight in enumerate(getattr(self, f"taps{i}")):
                view.addmm_(shifted(part, (k - 1) * dilation), weight, beta=min(k, 1))
        part, view = pool
        torch.maximum(
            shifted(part, -1), shifted(part, 1), out=view
        )  # of what is not negative: empty frames don't count
        torch.maximum(shifted(part, 0), view, out=view)
        part, view = frame
        view.copy_(shifted(part, 0))
        return torch.addcmul(self.view_shift, out[:, :T], self.view_scale).relu_()

    def _views_as_convolutions(self, x: Tensor) -> Tensor:
        """The same without writing in place, which graphs can't, and other devices do slowly."""
        N, T, V, C = x.shape
        rows = torch.addmm(self.in_bias, x.reshape(N * T * V, C), self.in_weight).view(N, T, V, C)
        *parts, pool, frame = rows.split(self.widths, -1)
        views = []
        for i, (part, d) in enumerate(zip(parts, DILATIONS, strict=True)):
            weight = getattr(self, f"taps{i}").permute(2, 1, 0).unsqueeze(-1)
            part = torch.relu(part).permute(0, 3, 1, 2)
            views.append(F.conv2d(part, weight, None, (self.stride, 1), (d, 0), (d, 1)))
        views.append(F.max_pool2d(torch.relu(pool).permute(0, 3, 1, 2), (3, 1), (self.stride, 1), (1, 0)))
        views.append(frame[:, :: self.stride].permute(0, 3, 1, 2))
        return torch.relu(torch.cat(views, 1).permute(0, 2, 3, 1) * self.view_scale + self.view_shift)


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
