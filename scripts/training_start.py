"""How long training takes to start on a large dataset, against a bare read of its file, both with a cold page cache.

    python scripts/training_start.py  # a pickle of 40,000 samples, 2 persons x 100 frames x 17 joints in float16

Each start is a process of its own with the default recipe; it ends when the first batch is at the network and when
the first step is done, counted from the call of ``train`` (imports are told apart). ``first`` makes the index of the
pickle, ``later`` finds it. The file's pages are dropped with ``posix_fadvise`` before each.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np


def make(path: Path, samples: int) -> None:
    """Random poses in the format of PYSKL's and mmaction2's pickles."""
    rng = np.random.default_rng(0)
    names = [f"sample{k:05d}" for k in range(samples)]
    annotations = [
        {
            "frame_dir": name,
            "label": k % 60,
            "img_shape": (1080, 1920),
            "original_shape": (1080, 1920),
            "total_frames": 100,
            "keypoint": rng.integers(0, 1000, (2, 100, 17, 2)).astype(np.float16),
            "keypoint_score": rng.random((2, 100, 17), np.float32).astype(np.float16),
        }
        for k, name in enumerate(names)
    ]
    last = samples * 9 // 10
    path.write_bytes(pickle.dumps({"split": {"train": names[:last], "val": names[last:]}, "annotations": annotations}))


def drop_pages(path: Path) -> None:
    """Have the next read come from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bare_read(path: Path) -> float:
    """Seconds."""
    drop_pages(path)
    start, buffer = time.perf_counter(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


class Started(Exception):  # noqa: N818
    """Ends a training."""


def start_training(path: Path, batch_size: int) -> dict[str, float]:
    """Seconds; the training ends with its first step."""
    begin = time.perf_counter()
    import torch._dynamo  # noqa: F401 - torch's optimizers would import it
    from torch import nn
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from skelact import training
    from skelact.recipes import RECIPES

    told = {"imports_s": time.perf_counter() - begin}

    def at_the_network(module: nn.Module, inputs: Any) -> None:
        told.setdefault("first_batch_s", time.perf_counter() - begin)

    def after_a_step(*_: Any) -> None:
        told["first_step_s"] = time.perf_counter() - begin
        raise Started

    nn.modules.module.register_module_forward_pre_hook(at_the_network)
    register_optimizer_step_post_hook(after_a_step)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as out, suppress(Started):
        training.train(path, out, replace(RECIPES["default"], batch_size=batch_size), device="cpu", progress=False)
    return told


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--samples", default=40_000, help="Of a pickle that is made where none is given.")
@click.option("--batch-size", default=32, help="Of the first step.")
@click.option("--rounds", default=3, help="Of which the best counts.")
@click.option("--once", is_flag=True, hidden=True)
def main(data: Path | None, samples: int, batch_size: int, rounds: int, once: bool) -> None:
    """Measure a bare read and both kinds of start in turns."""
    if once and data:
        click.echo(json.dumps(start_training(data, batch_size)))
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = data or Path(folder, "made.pkl")
        if data is None:
            make(path, samples)
        found: dict[str, list[dict[str, float]]] = {"bare_read": [], "first": [], "later": []}
        for k in range(rounds):
            environment = {**os.environ, "SKELACT_CACHE": str(Path(folder, f"cache{k}").absolute())}
            found["bare_read"].append({"seconds": bare_read(path)})
            for kind in ("first", "later"):
                drop_pages(path)
                command = [sys.executable, __file__, str(path), "--once", "--batch-size", str(batch_size)]
                answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
                found[kind].append(json.loads(answer))
    best = {kind: {name: min(each[name] for each in runs) for name in runs[0]} for kind, runs in found.items()}
    read = best["bare_read"]["seconds"]
    told: dict[str, Any] = {kind: {name: round(s, 2) for name, s in each.items()} for kind, each in best.items()}
    told["ratio_to_bare_read"] = {
        kind: {name: round(best[kind][name] / read, 1) for name in ("first_batch_s", "first_step_s")}
        for kind in ("first", "later")
    }
    click.echo(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
