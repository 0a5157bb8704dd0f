"""One visible training loop: the recipe that ST-GCN++ was published with (arXiv 2205.09443), from a pose dataset."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import skelact
from skelact.annotations import AnnotationSet, dataset_content_hash, open_annotations
from skelact.checkpoint import Checkpoint, save_checkpoint
from skelact.clips import ClipSettings
from skelact.dataset import ClipDataset, samples_of
from skelact.errors import SkelactError
from skelact.evaluate import accuracy, score_samples
from skelact.files import atomic_path
from skelact.model import STGCNPP, ModelSettings
from skelact.pose import choose_device
from skelact.skeleton import Layout, load_layout

PUBLISHED_BATCH_SIZE = 128  # the one that a learning rate of 0.1 stands for
LOG_FIELDS = ("epoch", "lr", "loss", "train_top1", "val_top1")


@dataclass(frozen=True)
class TrainSettings:
    """All that a run depends on besides its data.

    Attributes:
        stream: one of ``clips.STREAMS``.
        epochs: the learning rate falls to 0 over them.
        repeat: passes over the training split in an epoch.
        batch_size, lr: of a step; with ``auto_scale_lr`` the rate stands for a batch of 128 and is scaled to this one.
        momentum, weight_decay: of SGD with Nesterov's momentum.
        clip_len, num_person: of a clip.
        split, val_split: names in the dataset; no ``val_split``: the last epoch is the best.
        seed: of weights and clips.
    """

    stream: str = "joint"
    epochs: int = 16
    repeat: int = 5
    batch_size: int = 16
    lr: float = 0.1
    auto_scale_lr: bool = True
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_len: int = 100
    num_person: int = 2
    split: str | None = None
    val_split: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainReport:
    """Where a run's best and last checkpoints lie, and what they reach on the validation split (None without one)."""

    best: Path
    last: Path
    val_top1: float | None


def train(
    data: str | Path,
    out: str | Path,
    settings: TrainSettings | None = None,
    *,
    layout: Layout | None = None,
    device: str | None = None,
    workers: int = 0,
    resume: bool = False,
    progress: bool = True,
    command: Sequence[str] = (),
) -> TrainReport:
    """Train a classifier.

    Args:
        data: annotation pickle with labels.
        out: work folder; gets ``config.json``, ``log.csv``, ``best.safetensors``, ``last.safetensors`` and, to go on
            from, ``state.safetensors``.
        settings: of the run.
        layout: of the joints; None takes what the dataset tells.
        device: None chooses.
        workers: processes that prepare clips.
        resume: go on from the folder's state; the result is that of an unbroken run.
        progress: a bar on stderr.
        command: the command line, for the provenance.

    Raises:
        SkelactError: the data don't train, the folder holds another run, or the loss is no number.
    """
    settings = settings or TrainSettings()
    out = Path(out)
    dataset = open_annotations(data)
    clips = _clip_settings(dataset, settings, layout)
    split = settings.split or next((name for name in ("train", "xsub_train") if name in dataset.split), None)
    val_split = settings.val_split or _val_split(dataset, split)
    training = ClipDataset(
        dataset.annotations,
        samples_of(dataset, split, clips),
        clips,
        train=True,
        repeat=settings.repeat,
        seed=settings.seed,
    )
    validation = None
    if val_split:
        validation = ClipDataset(dataset.annotations, samples_of(dataset, val_split, clips), clips, train=False)
    headers = dataset.headers()
    labels = np.array([headers[k].label for k in training.indices])
    class_names = dataset.class_names or tuple(f"class_{k}" for k in range(int(labels.max()) + 1))
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise SkelactError(
            f"{data}: expected labels in 0..{len(class_names) - 1}, found {labels.min()}..{labels.max()}"
        )
    config = {
        **asdict(settings),
        **{
            "split": split,
            "val_split": val_split,
            "data": Path(data).name,
            "data_sha256": dataset_content_hash(dataset),
        },
        **{"class_names": class_names, "layout": clips.layout.name},
    }
    _check_folder(out, config, resume)

    device = choose_device(device)
    torch.manual_seed(settings.seed)
    model = ModelSettings(clips.in_channels, clips.layout.num_joints, len(class_names))
    network = STGCNPP(model, clips.layout.adjacency()).to(device)
    scale = settings.batch_size / PUBLISHED_BATCH_SIZE if settings.auto_scale_lr else 1.0
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.lr * scale,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    start, best = 0, -1.0
    log: list[dict[str, Any]] = []
    if resume and (out / "state.safetensors").exists():
        start, best, log = _load_state(out, network, optimizer)
    steps = math.ceil(len(training) / settings.batch_size)
    provenance = {
        **{"skelact": skelact.__version__, "torch": torch.__version__, "command": list(command)},
        **{"train": config, **{k: v for k, v in dataset.provenance.items() if k.startswith("pose_model")}},
    }
    loss_of = nn.CrossEntropyLoss()
    with tqdm(
        total=settings.epochs * steps, initial=start * steps, unit=" steps", disable=None if progress else True
    ) as bar:
        for epoch in range(start, settings.epochs):
            training.epoch = epoch
            order = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
            loader = DataLoader(training, settings.batch_size, shuffle=True, num_workers=workers, generator=order)
            network.train()
            losses, right = [], 0
            for step, (batch, target) in enumerate(loader):
                done = (epoch * steps + step) / (settings.epochs * steps)
                lr = settings.lr * scale * (1 + math.cos(math.pi * done)) / 2
                for group in optimizer.param_groups:
                    group["lr"] = lr
                logits = network(batch.to(device))
                loss = loss_of(logits, target.to(device))
                if not torch.isfinite(loss):
                    raise SkelactError(
                        f"epoch {epoch}, step {step}: the loss is {loss.item()}; take a smaller --lr. "
                        f"The weights of the last whole epoch are in {out}"
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                right += int((logits.argmax(1).cpu() == target).sum())
                bar.update()
                bar.set_postfix(epoch=epoch, loss=f"{np.mean(losses[-50:]):.3f}", best=f"{max(best, 0):.3f}")
            val = None
            if validation:
                truth = np.array([headers[k].label for k in validation.indices])
                val = accuracy(score_samples(network, validation, device, workers=workers), truth)
            row = (epoch, lr, float(np.mean(losses)), right / len(training), val)
            log.append(dict(zip(LOG_FIELDS, row, strict=True)))
            metrics = {"epoch": epoch, **({} if val is None else {"val_top1": val, "val_split": val_split})}
            checkpoint = Checkpoint(model, clips, class_names, network.state_dict(), provenance, metrics)
            save_checkpoint(checkpoint, out / "last.safetensors")
            if val is None or val > best:
                best = -1.0 if val is None else val
                save_checkpoint(checkpoint, out / "best.safetensors")
            _save_state(out, network, optimizer, epoch + 1, best, log)
            _write_log(out / "log.csv", log)
    return TrainReport(out / "best.safetensors", out / "last.safetensors", best if validation else None)


def _clip_settings(dataset: AnnotationSet, settings: TrainSettings, layout: Layout | None) -> ClipSettings:
    if layout is None and dataset.layout is None:
        raise SkelactError("the dataset does not tell its joint layout; give it with --layout")
    layout = layout or load_layout(str(dataset.layout))
    dims = dataset.headers()[0].shape[-1]
    return ClipSettings(layout, settings.stream, dims, dims == 2, settings.clip_len, settings.num_person)


def _val_split(dataset: AnnotationSet, split: str | None) -> str | None:
    """The split that belongs to a training split: ``xsub_val`` to ``xsub_train``, ``val`` or ``test`` to ``train``."""
    if split is None:
        return None
    names = [split.replace("train", part) for part in ("val", "test")]
    return next((name for name in names if name != split and name in dataset.split), None)


def _check_folder(out: Path, config: dict[str, Any], resume: bool) -> None:
    """Refuse to mix runs."""
    path = out / "config.json"
    text = json.dumps(config, indent=2)
    if path.exists():
        if not resume:
            raise SkelactError(f"{out} holds a run already; go on with --resume, or choose another --out")
        old, new = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
        differing = [key for key in new if old.get(key) != new[key]]
        if differing:
            raise SkelactError(f"{out} holds a run with other settings ({', '.join(differing)}); choose another --out")
    with atomic_path(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _save_state(
    out: Path, network: nn.Module, optimizer: torch.optim.SGD, epoch: int, best: float, log: list[dict[str, Any]]
) -> None:
    """What going on needs: weights, momenta, the next epoch."""
    tensors: dict[str, Tensor] = {f"weights.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        tensors[f"momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"]
    meta = {"epoch": str(epoch), "best": repr(best), "log": json.dumps(log)}
    with atomic_path(out / "state.safetensors") as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, meta)


def _load_state(out: Path, network: nn.Module, optimizer: torch.optim.SGD) -> tuple[int, float, list[dict[str, Any]]]:
    from safetensors import safe_open

    path = out / "state.safetensors"
    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            meta = file.metadata()
        network.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
        for name, parameter in network.named_parameters():
            optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum.{name}"].to(parameter.device)
        return int(meta["epoch"]), float(meta["best"]), json.loads(meta["log"])
    except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise SkelactError(f"{path}: damaged, cannot go on from it ({error}); start anew in another --out") from None


def _write_log(path: Path, log: list[dict[str, Any]]) -> None:
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, LOG_FIELDS)
        table.writeheader()
        table.writerows(log)
