"""The command ``skelact train``."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from skelact import cli_options

AUGMENTATIONS = (
    "crop, flip, behind, rotate, scale, shift, noise, offset, joint-dropout, limb-dropout, swap, score-dropout"
)


def _names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """``flip,scale`` as names; ``none`` is none of them."""
    if value is None:
        return None
    return tuple(name.strip() for name in value.split(",") if name.strip() not in ("", "none"))


_setting = partial(click.option, cls=cli_options.RecipeOption)


@click.command()
@click.argument("data", metavar="DATA.pkl", type=click.Path())
@click.option(
    "--out",
    type=click.Path(),
    metavar="FOLDER",
    help="Work folder: checkpoints, log, pictures. Default: runs/DATA, by the dataset's name.",
)
@click.option(
    "--stream",
    type=click.Choice(["joint", "bone", "joint-motion", "bone-motion", "all"]),
    default="joint",
    show_default=True,
    help="What the network sees; all trains the four one after another and fuses them.",
)
@click.option(
    "--recipe",
    type=click.Choice(["default", "published"]),
    default="default",
    show_default=True,
    help="Where the options below start from; published is that of ST-GCN++, in batches of even size.",
)
@_setting("--epochs", type=cli_options.number("epochs"), help="Epochs, over which the learning rate falls to 0.")
@_setting(
    "--repeat",
    type=cli_options.number("repeat"),
    show_default="as many as make 2,000 clips",
    help="Passes over the data in an epoch.",
)
@_setting("--batch-size", type=cli_options.number("batch_size"), help="Clips in a step, of all processes together.")
@_setting("--lr", type=cli_options.number("lr"), help="Learning rate; of a batch of 128, with --auto-scale-lr.")
@_setting(
    "--auto-scale-lr/--no-auto-scale-lr",
    default=None,
    help="Scale --lr from a batch of 128 to --batch-size.",
)
@_setting(
    "--warmup-epochs",
    type=cli_options.number("warmup_epochs"),
    help="Epochs, over which the learning rate rises at first.",
)
@_setting("--weight-decay", type=cli_options.number("weight_decay"), help="Weight decay of all weights.")
@_setting(
    "--label-smoothing",
    type=cli_options.number("label_smoothing"),
    help="Share of the target that is spread over all classes; 0: off.",
)
@_setting("--ema", type=cli_options.number("ema"), help="Decay of the weights' average; 0: off.")
@_setting("--augment", "augmentations", callback=_names, metavar="NAME,...|none", help=f"Some of {AUGMENTATIONS}.")
@_setting("--augment-strength", type=cli_options.number("augment_strength"), help="Multiplies the ranges of --augment.")
@_setting(
    "--mixup", type=cli_options.number("mixup"), help="Mix two clips and their labels, by Beta(MIXUP, MIXUP); 0: off."
)
@_setting(
    "--dropout",
    type=cli_options.number("dropout"),
    help="Share of the features that the head does not see; 0: off.",
)
@_setting("--balance/--no-balance", default=None, help="Weigh rare classes up.")
@_setting(
    "--clip-len",
    type=cli_options.number("clip_len"),
    show_default="of --init, else the data's median, 32 to 100",
    help="Frames in a clip.",
)
@_setting(
    "--num-person",
    type=cli_options.number("num_person"),
    show_default="of --init, else as in the data, at most 2",
    help="Persons in a clip.",
)
@_setting(
    "--normaliser",
    type=click.Choice(["published", "body"]),
    show_default="of --init, else body, in 3D published",
    help="By the picture (in 3D the spine), or by the people.",
)
@_setting(
    "--sampling",
    type=click.Choice(["uniform", "interpolate"]),
    help="Whole frames, short samples wrapped; or even times, short samples stretched.",
    show_default="of --init, else interpolate",
)
@_setting("--hide-joints", "hidden_joints", callback=_names, metavar="NAME,...", help="Joints not to look at.")
@_setting("--binary-scores", is_flag=True, help="Take joints as seen or not; estimators differ in their scores.")
@_setting("--width", type=cli_options.number("width"), help="Channels of the first block; 64 as published.")
@click.option(
    "--split",
    metavar="NAME",
    help="To train on. Default: what --val-split belongs to, train, xsub_train, the only one like that, or everything.",
)
@click.option(
    "--val-split",
    metavar="NAME|none",
    help="To choose the best epoch by. Default: the one that belongs to --split; without one the last is the best.",
)
@_setting("--val-every", type=cli_options.number("val_every"), help="Epochs from one validation to the next.")
@cli_options.layout
@click.option(
    "--init",
    metavar="NAME|PATH",
    help="Fine-tune this model of `skelact weights list`, checkpoint or folder of --stream all; a head for other "
    "classes is new.",
)
@click.option("--freeze", is_flag=True, help="Train the head only.")
@click.option("--skip-empty", is_flag=True, help="Compute slots without a person once: faster where most are empty.")
@click.option("--amp", is_flag=True, help="16-bit floats where they are safe.")
@click.option("--compile", is_flag=True, help="Have torch compile the network.")
@click.option("--deterministic", is_flag=True, help="Only deterministic operations, on a GPU too.")
@click.option("--seed", type=cli_options.number("seed"), default=0, show_default=True, help="Of weights and clips.")
@cli_options.device
@cli_options.offline
@click.option(
    "--workers",
    type=cli_options.number("workers"),
    help="Processes that prepare clips. Default: 0 on a CPU, up to 4 for each GPU.",
)
@click.option("--resume", is_flag=True, help="Go on from what --out holds.")
@cli_options.quiet
@click.pass_context
def train(
    context: click.Context,
    data: str,
    out: str | None,
    stream: str,
    recipe: str,
    layout: str | None,
    init: str | None,
    device: str | None,
    workers: int | None,
    resume: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train ST-GCN++ on a pose dataset.

    With a validation split, the best epoch on it is kept as best.safetensors, with a temperature and a threshold for
    answering unknown; without one, the last. --resume goes on after a break, to the same result. Under torchrun all
    its processes train together.

    \b
    Examples:
        skelact train dataset.pkl
        skelact train dataset.pkl --out runs/mine
        skelact train dataset.pkl --out runs/four --stream all
        skelact train ntu60_2d.pkl --out runs/ntu60 --recipe published --split xsub_train
        skelact train mine.pkl --out runs/tuned --init ntu60-2d-joint
        torchrun --nproc-per-node 4 -m skelact train ntu60_2d.pkl --out runs/ntu60
    """
    cli_options.hush(quiet)
    import os
    from dataclasses import replace

    from skelact import training
    from skelact.recipes import RECIPES

    given = {name: value for name, value in options.items() if _is_given(context, name) and value is not None}
    settings = replace(RECIPES[recipe], **given)
    how: dict[str, Any] = {
        "layout": layout,
        "init": init,
        "device": device,
        "workers": workers,
        "resume": resume,
        "progress": not quiet,
        "command": cli_options.command_line(),
    }
    main = os.environ.get("RANK", "0") == "0"
    if stream == "all":
        reports, top1 = training.train_streams(data, out, settings, **how)
        for name, value in top1.items() if main else ():
            click.echo(f"{name:<13} top-1 {value:.1%}", err=True)
    else:
        reports = {stream: training.train(data, out, replace(settings, stream=stream), **how)}
    for report in reports.values() if main else ():
        told = "no validation split, so the last epoch" if report.val_top1 is None else f"top-1 {report.val_top1:.1%}"
        click.echo(f"{report.best}: {told}", err=True)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) == ParameterSource.COMMANDLINE
