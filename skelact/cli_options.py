"""Options that several commands have, each written once."""

from __future__ import annotations

import os

import click


def numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    """``2,1,2,1`` as numbers."""
    if value is None:
        return None
    try:
        return [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected numbers such as 2,1,2,1, found {value!r}") from None


fusion_weights = click.option(
    "--fusion-weights", callback=numbers, metavar="W,W,...", help="One for each model or dump, such as 2,1,2,1."
)
stream = click.option(
    "--stream",
    type=click.Choice(["joint", "bone", "joint-motion", "bone-motion"]),
    help="Of a checkpoint whose metadata and name don't tell.",
)
layout = click.option("--layout", metavar="NAME|FILE.json", help="Joint layout of a checkpoint that does not tell.")
clips = click.option(
    "--clips",
    type=click.Choice(["1", "10"]),
    default="10",
    show_default=True,
    help="10 is more accurate, 1 faster.",
)
device = click.option("--device", metavar="DEVICE", help="cuda, cuda:1, mps or cpu. Default: chosen.")


def _offline(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Set ``SKELACT_OFFLINE`` for this command and the processes that it starts."""
    if value:
        before = os.environ.get("SKELACT_OFFLINE")
        os.environ["SKELACT_OFFLINE"] = "1"
        context.call_on_close(
            lambda: os.environ.pop("SKELACT_OFFLINE") if before is None else os.environ.update(SKELACT_OFFLINE=before)
        )


offline = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_offline,
    help="Never touch the network (SKELACT_OFFLINE=1).",
)
pose_model = click.option(
    "--pose-model",
    default="auto",
    show_default=True,
    metavar="NAME|PATH",
    help="Anything that ultralytics' YOLO() takes: .pt, ONNX, an OpenVINO folder, TensorRT; or skelact-pose, which "
    "ships. auto: yolo26n-pose.pt where it is in the cache or can be downloaded, else skelact-pose.",
)
