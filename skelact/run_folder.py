"""A training run's work folder: its settings, its state to go on from, its log and its pictures."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from skelact.errors import SkelactError
from skelact.files import atomic_path
from skelact.recipes import TrainSettings

logger = logging.getLogger("skelact")

STATE = "state.safetensors"
BEFORE = json.loads(json.dumps(asdict(TrainSettings())))  # what runs did before there was a setting for it
LOG_FIELDS = ("epoch", "lr", "loss", "train_top1", "val_loss", "val_top1")


class RunFolder:
    """Reads and writes the folder.

    Args:
        path: of the folder.
        config: all that the run depends on, as JSON types; ``config.json``.
        resume: whether an older run in it may be gone on with.

    Attributes:
        best, last: where the checkpoints go.

    Raises:
        SkelactError: the folder holds a run and ``resume`` is off, or a run with another config.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self.best, self.last = path / "best.safetensors", path / "last.safetensors"
        file = path / "config.json"
        text = json.dumps(config, indent=2)
        if any(path.glob("*.safetensors")):  # else it broke in its first epoch
            if not resume:
                raise SkelactError(f"{path} holds a run already; go on with --resume, or choose another --out")
            old, new = _read_config(file), json.loads(text)
            lacking = [key for key in new if key not in old]
            if lacking:
                logger.warning("%s is of an older skelact, which did not keep %s", file, ", ".join(lacking))
                old = {**{key: value for key, value in BEFORE.items() if key in lacking}, **old}
                old.setdefault("init_sha256", new["init_sha256"])  # the path of ``init`` tells nearly as much
            differing = [key for key in new if key not in old or old[key] != new[key]]
            if differing:
                raise SkelactError(
                    f"{path} holds a run with other settings ({', '.join(differing)}); choose another --out"
                )
        with atomic_path(file) as part:
            part.write_text(text + "\n", encoding="utf-8")

    def save_state(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Keep what going on needs."""
        plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        content = save(plain, {"progress": json.dumps(progress)})
        with atomic_path(self.path / STATE) as part:
            part.write_bytes(content)

    def write_log(self, rows: list[dict[str, Any]]) -> None:
        """``log.csv``, ``curves.png`` and, where TensorBoard is installed, the last row's scalars."""
        from skelact.plots import plot_curves

        with atomic_path(self.path / "log.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, LOG_FIELDS)
            table.writeheader()
            table.writerows(rows)
        plot_curves(rows, self.path / "curves.png")
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(str(self.path / "tensorboard"), filename_suffix=f".{len(rows)}") as board:
                for name, value in rows[-1].items():
                    if name != "epoch" and value is not None:
                        board.add_scalar(name, value, rows[-1]["epoch"])


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What ``RunFolder.save_state`` kept there; None if it was never called.

    Raises:
        SkelactError: the file is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads((file.metadata() or {})["progress"])
            # Copies: a file that stays mapped can't be replaced on Windows, as this one is after the next epoch.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, progress  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise SkelactError(f"{path}: damaged, cannot go on from it ({error}); start anew in another --out") from None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SkelactError(f"{path}: expected the settings of a run, found {error}; choose another --out") from None
