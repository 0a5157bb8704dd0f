"""Options that several commands have, each written once."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from skelact.ranges import ENDLESS, RANGES
from skelact.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from skelact.roi import Region


class Count(click.IntRange):
    """A whole number in a range."""

    name = "whole number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What help calls it."""
        return "N"


class Number(click.FloatRange):
    """A number in a range; neither NaN, which is in none and passes them all, nor infinity."""

    name = "number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What help calls it."""
        return "X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        if not math.isfinite(number := super().convert(value, param, ctx)):
            self.fail(f"expected a number, found {value}", param, ctx)
        return number


def number(setting: str) -> click.ParamType:
    """What the library takes for a setting."""
    allowed = RANGES[setting]
    high = None if allowed.high in ENDLESS else allowed.high
    if allowed.whole:
        return Count(int(allowed.low), None if high is None else int(high))
    return Number(allowed.low, high, allowed.open == "low", allowed.open == "high")


def _numbers(setting: str) -> Callable[[click.Context, click.Parameter, str | None], list[float] | None]:
    """``2,1,2,1`` as numbers, each of what the library takes for a setting."""
    kind = number(setting)

    def convert(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
        return None if value is None else [kind.convert(part, parameter, context) for part in value.split(",")]

    return convert


def _classes(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Names hold commas here and there, so ``;`` separates too."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(";" if ";" in value else ",")]
    if not any(names):
        raise click.UsageError("--classes: expected names of classes")
    return [name for name in names if name]


def names_in(class_names: str | None) -> list[str] | None:
    """The names in the file that ``--class-names`` tells; None where it holds none."""
    from skelact.files import read_names

    return (read_names(class_names, "class names") or None) if class_names else None


def command_line() -> list[str]:
    """What was typed, as it is kept in all that is written."""
    return ["skelact", *sys.argv[1:]]


def apart(*outputs: tuple[str, str | Path | None]) -> None:
    """Refuse a path for two outputs, each told by its option; the second would replace the first."""
    written: dict[str, str] = {}
    for option, path in outputs:
        if path in (None, "-"):
            continue
        other = written.setdefault(os.path.realpath(str(path)), option)
        if other != option:
            raise click.UsageError(f"{other} and {option}: expected a path of its own for each, found {path} for both")


class RecipeOption(click.Option):
    """An option of ``train`` whose default is the recipe's: help tells those of both.

    Where the default recipe has none, as the data decide, ``show_default`` says how.
    """

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What help says in brackets."""
        from skelact.recipes import RECIPES

        extra = super().get_help_extra(ctx)
        if self.is_bool_flag and not self.secondary_opts:
            return extra
        default, published = (_told(getattr(RECIPES[recipe], str(self.name))) for recipe in ("default", "published"))
        if isinstance(self.show_default, str):
            default = self.show_default
        both = default if published in ("", default) else f"{default}; published: {published}"
        return extra | ({"default": both} if both else {})


def _told(value: Any) -> str:
    """A setting as help shows it; nothing for one that depends on the data."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def hush(quiet: bool) -> None:
    """With ``--quiet``, skelact tells errors only, as long as the command lasts."""
    if quiet:
        logger = logging.getLogger("skelact")
        click.get_current_context().call_on_close(partial(logger.setLevel, logger.level))
        logger.setLevel(logging.ERROR)


fusion_weights = click.option(
    "--fusion-weights",
    callback=_numbers("fusion_weights"),
    metavar="W,W,...",
    help="One for each model or dump, such as 2,1,2,1. Default: equal ones.",
)
stream = click.option(
    "--stream",
    type=click.Choice(["joint", "bone", "joint-motion", "bone-motion"]),
    help="Of a checkpoint whose metadata and name don't tell.",
)
layout = click.option("--layout", metavar="NAME|FILE.json", help="Joint layout of a file that does not tell.")
class_names = click.option(
    "--class-names",
    type=click.Path(exists=True, dir_okay=False),
    help="Text file with the model's classes, one a line.",
)
classes = click.option(
    "--classes",
    callback=_classes,
    metavar="NAME,NAME,...",
    help="Score only these classes; separate with ; if names hold commas.",
)
clips = click.option(
    "--clips",
    type=click.Choice(["1", "10"]),
    default="10",
    show_default=True,
    help="10 is more accurate, 1 faster.",
)
half = click.option(
    "--half", is_flag=True, help="float16 on disk: half the size; rounds to 1 px above 1024, 2 above 2048."
)
quiet = click.option("--quiet", is_flag=True, help="No progress bars, no warnings.")
clean = click.option(
    "--clean/--no-clean",
    default=None,
    help="Take outliers and jitter out of poses. Default: of those from videos, not of those in pickles.",
)
exclude = click.option(
    "--exclude",
    type=click.Path(),
    metavar="LIST",
    help="Text file with names of videos or samples to leave out, one a line.",
)
device = click.option(
    "--device", metavar="DEVICE", help="cuda, cuda:1 (or 1), mps or cpu. Default: a GPU that works, else cpu."
)
engine = click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where to work."
)
ray_address = click.option(
    "--ray-address", metavar="HOST:PORT", help="Of a Ray cluster. Default: a local one is started."
)


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
    help="Anything that ultralytics' YOLO() takes: .pt, ONNX, an OpenVINO folder, TensorRT. auto: "
    "yolo26n-pose.pt where it is in the cache or can be downloaded, else skelact-pose where that ships.",
)


backend = click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "openvino"]),
    default="auto",
    show_default=True,
    help="What runs a .pt pose model; auto is OpenVINO on the CPU where it is installed, else PyTorch.",
)
precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    help="Of the pose network; bf16 and int8 in OpenVINO. Default: fp16 on CUDA, else fp32.",
)


def _stride(context: click.Context, parameter: click.Parameter, value: str) -> int | str:
    """``auto`` or a number of frames."""
    if value == "auto":
        return value
    if not value.isdecimal() or not int(value):
        raise click.BadParameter(f"expected a number of frames from 1 on, or auto, found {value!r}")
    return int(value)


stride = click.option(
    "--stride",
    default="1",
    show_default=True,
    callback=_stride,
    metavar="N|auto",
    help="Pose every Nth frame and interpolate the others; auto skips what the model does not look at.",
)


def _regions(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Region]:
    """``x1,y1 x2,y2 x3,y3`` as polygons; the module that knows them is loaded only for those who name one."""
    if not values:
        return []
    from skelact.errors import SkelactError
    from skelact.roi import Region

    try:
        return [Region.parse(value) for value in values]
    except SkelactError as error:
        raise click.BadParameter(str(error)) from None


window = click.option(
    "--window",
    callback=_numbers("window_s"),
    metavar="S,S,...",
    help="Length of a timeline's windows in seconds; of several lengths the scores are averaged. "
    "Default: as long as the clips that the model was trained on, else 2.",
)
# Defaults of windows.py and timeline.py, whose import would slow down --help; a test compares them.
step = click.option(
    "--step",
    type=number("step_s"),
    default=0.5,
    show_default=True,
    metavar="S",
    help="Seconds from one window to the next.",
)
min_duration = click.option(
    "--min-duration",
    type=number("min_duration_s"),
    default=1.0,
    show_default=True,
    metavar="S",
    help="What lasts for fewer seconds is part of what was before; who is there for less is told all the same.",
)
subjects = click.option(
    "--subjects",
    type=click.Choice(["both", "persons", "pairs"]),
    default="both",
    show_default=True,
    help="Of a timeline: everybody alone, every two who are near each other, or both.",
)
roi = click.option(
    "--roi",
    "regions",
    multiple=True,
    callback=_regions,
    metavar='"X,Y X,Y X,Y ..."',
    help="A polygon in pixels, or in shares of width and height; only people with their feet in it count. Repeatable.",
)
models = click.option(
    "--model",
    "models",
    multiple=True,
    default=(DEFAULT_MODEL,),
    metavar="NAME|PATH",
    help="Name from `skelact weights list`, checkpoint (also mmaction2's, PYSKL's) or export; several are fused. "
    f"Default: {DEFAULT_MODEL}, which ships.",
)
tracker = click.option(
    "--tracker",
    default="bytetrack",
    show_default=True,
    metavar="NAME|PATH",
    help="bytetrack, botsort, ocsort, deepocsort, fasttrack, tracktrack, or a tracker's YAML file.",
)


def _unknown_below(context: click.Context, parameter: click.Parameter, value: str) -> float | str | None:
    """``auto``, ``off`` (None) or a score."""
    if value in ("auto", "off"):
        return value if value == "auto" else None
    try:
        score = float(value)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise click.BadParameter(f"expected a score in [0, 1], auto or off, found {value!r}")
    return score


unknown_below = click.option(
    "--unknown-below",
    default="auto",
    show_default=True,
    callback=_unknown_below,
    metavar="SCORE|auto|off",
    help="Answer unknown where the best score is lower; auto is the model's own threshold, if it has one.",
)
