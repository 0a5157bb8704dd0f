"""Whether preparing clips keeps up with training: samples/s without the network and with it.

    python scripts/loading_speed.py DATA.pkl --workers 0

Without, the loader alone is read; with, a training step (forward, backward, SGD) is taken for each batch.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from skelact.annotations import open_annotations
from skelact.dataset import batches
from skelact.devices import choose_device
from skelact.model import STGCNPP
from skelact.recipes import RECIPES
from skelact.training import EpochSampler, prepare


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--workers", default=0)
@click.option("--steps", default=5, help="With the network; ten times as many without.")
@click.option("--device", help="cuda, mps or cpu. Default: chosen.")
def main(data: Path, workers: int, steps: int, device: str | None) -> None:
    """Measure both recipes."""
    device = choose_device(device)
    found = {}
    for name, recipe in RECIPES.items():
        job = prepare(open_annotations(data), replace(recipe, batch_size=32))
        order = EpochSampler(len(job.training), 0, 0, 1)
        loader = DataLoader(job.training, 32, sampler=order, num_workers=workers)
        network = STGCNPP(job.model, job.clips.layout.adjacency()).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        rates = {}
        for what, limit in (("without", steps * 10), ("with", steps)):
            start, samples = time.perf_counter(), 0
            for batch, target in itertools.islice(batches(loader), limit):
                if what == "with":
                    optimizer.zero_grad()
                    F.cross_entropy(network(batch.to(device)), target.to(device)).backward()
                    optimizer.step()
                samples += len(target)
            rates[what] = round(samples / (time.perf_counter() - start), 1)
        clips = job.clips
        shape = f"{clips.num_person} x {clips.clip_len} x {clips.layout.num_joints}"
        found[name] = {"clip": shape, **rates, "ratio": round(rates["without"] / rates["with"], 1)}
    click.echo(json.dumps({"samples_per_s": found, "workers": workers, "device": device}, indent=2))


if __name__ == "__main__":
    main()
