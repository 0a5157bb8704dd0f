"""ST-GCN++ as its description reads, layer by layer: what ``skelact.model`` must equal and be faster than.

    python scripts/plain_stgcnpp.py            # a training step of both in turns, samples/s and their ratio
    python scripts/plain_stgcnpp.py --predict  # the same of predicting one clip, and ten; with OpenVINO exported, too

Shapes are (N, C, T, V) throughout, every branch is computed on its own, and nothing is merged.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import skelact
from skelact.checkpoint import Checkpoint, save_checkpoint
from skelact.clips import ClipSettings
from skelact.exported import load_exported
from skelact.folded import fold
from skelact.model import STGCNPP, ModelSettings
from skelact.skeleton import LAYOUTS


class PlainGraphUnit(nn.Module):
    """1x1 convolution to K sets, product with A, sum over K."""

    def __init__(self, channels_in: int, channels: int, adjacency: Tensor) -> None:
        super().__init__()
        self.A = nn.Parameter(adjacency.clone())
        self.conv = nn.Conv2d(channels_in, channels * len(adjacency), 1)
        self.bn = nn.BatchNorm2d(channels)
        self.down: nn.Module = nn.Identity()
        if channels_in != channels:
            self.down = nn.Sequential(nn.Conv2d(channels_in, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T, V)."""
        N, _, T, V = x.shape
        subsets = self.conv(x).view(N, len(self.A), -1, T, V)
        mixed = torch.einsum("nkctv,kvw->nctw", subsets, self.A).contiguous()
        return torch.relu(self.bn(mixed) + self.down(x))


class PlainTemporalConv(nn.Module):
    """A convolution along time, with a batch norm or without."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, dilation: int, bn: bool) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation // 2
        self.conv = nn.Conv2d(channels_in, channels, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
        self.bn: nn.Module = nn.BatchNorm2d(channels) if bn else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T', V)."""
        return self.bn(self.conv(x))


class PlainTemporalUnit(nn.Module):
    """Six branches, one after the other."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        width = channels // 6
        first = channels - 5 * width

        def start(width: int) -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()]

        branches: list[nn.Module] = []
        for dilation in (1, 2, 3, 4):
            wide = first if dilation == 1 else width
            branches.append(nn.Sequential(*start(wide), PlainTemporalConv(wide, wide, 3, stride, dilation, False)))
        branches.append(nn.Sequential(*start(width), nn.MaxPool2d((3, 1), (stride, 1), (1, 0))))
        branches.append(nn.Conv2d(channels, width, 1, (stride, 1)))
        self.branches = nn.ModuleList(branches)
        self.transform = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C, T', V)."""
        return self.bn(self.transform(torch.cat([branch(x) for branch in self.branches], dim=1)))


class PlainBlock(nn.Module):
    """ReLU(tcn(gcn(x)) + residual(x))."""

    def __init__(self, channels_in: int, channels: int, stride: int, adjacency: Tensor, residual: bool) -> None:
        super().__init__()
        self.gcn = PlainGraphUnit(channels_in, channels, adjacency)
        self.tcn = PlainTemporalUnit(channels, stride)
        self.residual: nn.Module | None = None
        if residual:
            same = channels_in == channels and stride == 1
            self.residual = nn.Identity() if same else PlainTemporalConv(channels_in, channels, 1, stride, 1, True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T', V)."""
        out = self.tcn(self.gcn(x))
        return torch.relu(out if self.residual is None else out + self.residual(x))


class PlainBackbone(nn.Module):
    """Batch norm of the input, then the blocks."""

    def __init__(self, settings: ModelSettings, adjacency: Tensor) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm1d(settings.num_joints * settings.in_channels)
        widths = (settings.in_channels, *settings.channels)
        self.gcn = nn.ModuleList(
            PlainBlock(widths[i], widths[i + 1], stride, adjacency, i > 0) for i, stride in enumerate(settings.strides)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) to (N, M, C', T', V)."""
        N, M, T, V, C = x.shape
        x = self.data_bn(x.permute(0, 1, 3, 4, 2).reshape(N * M, V * C, T))
        x = x.view(N, M, V, C, T).permute(0, 1, 3, 4, 2).reshape(N * M, C, T, V)
        for block in self.gcn:
            x = block(x)
        return x.view(N, M, *x.shape[1:])


class PlainSTGCNPP(nn.Module):
    """The whole network, with the parameter names of the published checkpoints."""

    def __init__(self, settings: ModelSettings, adjacency: np.ndarray) -> None:
        super().__init__()
        self.backbone = PlainBackbone(settings, torch.as_tensor(adjacency))
        self.cls_head = nn.ModuleDict({"fc": nn.Linear(settings.channels[-1], settings.num_classes)})

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, M, T, V, C) to logits."""
        logits: Tensor = self.cls_head["fc"](self.backbone(x).mean(dim=(3, 4)).mean(dim=1))
        return logits


@click.command()
@click.option("--predict", is_flag=True, help="Time predicting, with skelact's network folded, rather than training.")
@click.option("--batch-size", default=16, help="Clips in a training step.")
@click.option("--clip-len", default=100)
@click.option("--num-person", default=2)
@click.option("--layout", default="coco", type=click.Choice(sorted(LAYOUTS)))
@click.option("--steps", default=5, help="Rounds; each times one step of either network, and the best counts.")
@click.option("--threads", type=click.IntRange(1), help="Default: torch's own choice.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
@click.option("--amp", is_flag=True, help="Train in 16 bits.")
@click.option("--alone", default=0.0, help="Train with this share of clips of one person, for skelact's --skip-empty.")
def main(
    predict: bool,
    batch_size: int,
    clip_len: int,
    num_person: int,
    layout: str,
    steps: int,
    threads: int | None,
    device: str,
    amp: bool,
    alone: float,
) -> None:
    """Time both networks in turns: a training step (forward, backward, SGD), or predictions."""
    torch.manual_seed(0)
    if threads:
        torch.set_num_threads(threads)
    joints = LAYOUTS[layout]
    settings = ModelSettings(3, joints.num_joints, 60)
    plain = PlainSTGCNPP(settings, joints.adjacency()).to(device)
    ours = STGCNPP(settings, joints.adjacency()).to(device)
    ours.load_state_dict(plain.state_dict())
    told: dict[str, Any] = {"threads": torch.get_num_threads(), "device": device, "torch": torch.__version__}
    shape = (num_person, clip_len, joints.num_joints, 3)
    if predict:
        faster: dict[str, nn.Module] = {"folded": fold(ours.eval())}
        if device == "cpu" and find_spec("openvino"):
            faster["exported"] = exported(ours, ClipSettings(joints, clip_len=clip_len, num_person=num_person))
        for name, network in faster.items():
            for num_clips in (1, 10):
                times = time_predictions(plain.eval(), network, num_clips, shape, steps, device)
                told[f"{name}, {num_clips} at a time"] = times
    else:
        ours.skip_empty = alone > 0
        told |= time_training(plain, ours, batch_size, shape, steps, device, amp, alone)
    click.echo(json.dumps(told, indent=2))


def exported(network: STGCNPP, clips: ClipSettings) -> nn.Module:
    """The network as `skelact export --format openvino` writes it and `--model` takes it."""
    settings = network.settings
    class_names = tuple(f"class {k}" for k in range(settings.num_classes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save_checkpoint(Checkpoint(settings, clips, class_names, network.state_dict()), path)
        skelact.export(path, path.with_suffix(".xml"))
        return load_exported(path.with_suffix(".xml")).build()


def time_predictions(
    plain: nn.Module, ours: nn.Module, num_clips: int, shape: tuple[int, ...], steps: int, device: str
) -> dict[str, Any]:
    """Clips/s of either network."""
    clips = torch.randn(num_clips, *shape, device=device)

    def predict(network: nn.Module) -> float:
        start = time.perf_counter()
        network(clips).sum().item()  # waits for a GPU
        return time.perf_counter() - start

    with torch.inference_mode():
        difference = float((plain(clips) - ours(clips)).abs().max())
        return compared(lambda: predict(plain), lambda: predict(ours), num_clips, steps, difference)


def time_training(
    plain: nn.Module,
    ours: nn.Module,
    batch_size: int,
    shape: tuple[int, ...],
    steps: int,
    device: str,
    amp: bool,
    alone: float,
) -> dict[str, Any]:
    """Clips/s of a training step with either network."""
    clips = torch.randn(batch_size, *shape, device=device)
    clips[: round(alone * batch_size), 1:] = 0
    labels = torch.randint(0, 60, (batch_size,), device=device)
    networks = (plain, ours)
    optimizers = {net: torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, nesterov=True) for net in networks}

    def step(network: nn.Module) -> float:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=amp):
            loss = F.cross_entropy(network(clips).float(), labels)
        optimizers[network].zero_grad()
        loss.backward()
        optimizers[network].step()
        loss.item()  # waits for a GPU
        return time.perf_counter() - start

    with torch.no_grad():
        difference = float((plain.eval()(clips) - ours.eval()(clips)).abs().max())
    plain.train(), ours.train()
    return compared(lambda: step(plain), lambda: step(ours), batch_size, steps, difference)


def compared(
    plain: Callable[[], float], ours: Callable[[], float], num_clips: int, steps: int, difference: float
) -> dict[str, Any]:
    """The best of several rounds in turns, and the median of their ratios."""
    plain(), ours()  # warm
    # Twice each: the first call finds the threads of the other network still spinning.
    times = [(min(plain(), plain()), min(ours(), ours())) for _ in range(steps)]
    best = {"plain": min(one for one, _ in times), "skelact": min(other for _, other in times)}
    ratios = sorted(a / b for a, b in times)
    return {
        "clips_per_s": {name: round(num_clips / each, 2) for name, each in best.items()},
        "ratio_of_best": round(best["plain"] / best["skelact"], 2),
        "median_ratio": round(ratios[len(ratios) // 2], 2),
        "largest_logit_difference": difference,
    }


if __name__ == "__main__":
    main()
