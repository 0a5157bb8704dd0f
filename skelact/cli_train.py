"""The command ``skelact train``."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command()
@click.argument("data", metavar="DATA.pkl", type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(), metavar="FOLDER", help="Work folder: checkpoints, log, config."
)
@click.option(
    "--stream",
    type=click.Choice(["joint", "bone", "joint-motion", "bone-motion"]),
    default="joint",
    show_default=True,
    help="What the network sees.",
)
@click.option("--epochs", type=click.IntRange(1), default=16, show_default=True, help="The learning rate falls to 0.")
@click.option(
    "--repeat", type=click.IntRange(1), default=5, show_default=True, help="Passes over the data in an epoch."
)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Clips in a step.")
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True, help="Of a batch of 128."
)
@click.option(
    "--auto-scale-lr/--no-auto-scale-lr", default=True, show_default=True, help="Scale --lr to the batch size."
)
@click.option("--clip-len", type=click.IntRange(2), default=100, show_default=True, help="Frames in a clip.")
@click.option("--num-person", type=click.IntRange(1), default=2, show_default=True, help="Persons in a clip.")
@click.option("--split", metavar="NAME", help="To train on. Default: train or xsub_train, else everything.")
@click.option(
    "--val-split", metavar="NAME", help="To choose the best epoch by. Default: the one that belongs to --split."
)
@click.option("--layout", metavar="NAME|FILE.json", help="Joint layout of a dataset that does not tell.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and clips.")
@click.option("--device", metavar="DEVICE", help="cuda, cuda:1, mps or cpu. Default: chosen.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that prepare clips.")
@click.option("--resume", is_flag=True, help="Go on from what --out holds.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def train(
    data: str, out: str, layout: str | None, device: str | None, workers: int, resume: bool, quiet: bool, **options: Any
) -> None:
    """Train ST-GCN++ on a pose dataset.

    The recipe is the published one: SGD with Nesterov's momentum, cosine decay, 16 epochs of 5 passes. With a
    validation split, the best epoch on it is kept as best.safetensors, else the last. --resume goes on after a break.

    \b
    Example:
        skelact train dataset.pkl --out runs/mine
        skelact predict video.mp4 --model runs/mine/best.safetensors
    """
    import skelact
    from skelact.skeleton import load_layout
    from skelact.training import TrainSettings

    report = skelact.train(
        data,
        out,
        TrainSettings(**options),
        layout=load_layout(layout) if layout else None,
        device=device,
        workers=workers,
        resume=resume,
        progress=not quiet,
        command=["skelact", *sys.argv[1:]],
    )
    reached = "no validation split, so the last epoch" if report.val_top1 is None else f"top-1 {report.val_top1:.1%}"
    click.echo(f"{report.best}: {reached}", err=True)
