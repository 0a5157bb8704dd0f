"""The command ``skelact convert``."""

from __future__ import annotations

import re
from typing import Any

import click

from skelact import cli_options
from skelact.errors import SkelactError, harmless

# As converters.FORMATS, which is too heavy to import for a help text; a test compares them.
FORMATS = (
    *("ntu-skeleton", "jhmdb", "ultralytics-json", "alphapose-json", "openpose-json", "mmpose-json"),
    *("mediapipe-json", "annotations"),
)


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """``1080x1920`` as (1080, 1920)."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})[xX]([1-9]\d{0,5})", value.strip())
    if found is None:
        raise click.BadParameter(f"expected height x width such as 1080x1920, found {value!r}")
    return int(found[1]), int(found[2])


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--out", required=True, type=click.Path(), metavar="FILE.pkl", help="The pickle to write.")
@click.option(
    "--from",
    "source_format",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"{', '.join(FORMATS)}. Default: found out from the content.",
)
@click.option("--to-layout", type=click.Choice(["coco", "openpose"]), help="Give the poses these 17 or 18 joints.")
@click.option(
    "--labels", type=click.Path(), metavar="FILE.csv", help="Table of path, label[, split]; names or indices."
)
@click.option("--fps", type=cli_options.number("fps"), metavar="N", help="Frames per second, kept with them.")
@click.option("--img-shape", callback=_size, metavar="HxW", help="Picture size in pixels, if the files don't tell.")
@cli_options.exclude
@click.option(
    "--window",
    "window_s",
    type=cli_options.number("window_s"),
    metavar="S",
    help="Cut the samples into windows of so many seconds, at 30 frames/s if they tell no rate.",
)
@click.option(
    "--step",
    "step_s",
    type=cli_options.number("step_s"),
    metavar="S",
    help="Seconds from one window to the next. Default: half a window.",
)
@cli_options.half
@cli_options.quiet
def convert(
    sources: tuple[str, ...],
    out: str,
    source_format: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Convert poses of other tools and datasets to an annotation pickle.

    SOURCE is a file or a folder: NTU .skeleton files, DD-Net's JHMDB pickles, JSON of ultralytics, AlphaPose, OpenPose,
    MMPose or MediaPipe, or an annotation pickle that is to get another layout or to be cut into windows. A damaged file
    is skipped, listed, and makes the exit code 1.

    \b
    Examples:
        skelact convert nturgb+d_skeletons/ --out ntu60_3d.pkl --exclude missing_skeletons.txt
        skelact convert GT_train_1.pkl GT_test_1.pkl --out jhmdb1.pkl
        skelact convert openpose_output/ --labels labels.csv --img-shape 1080x1920 --out mine.pkl
        skelact convert coco.pkl --to-layout openpose --out openpose.pkl
        skelact convert long.pkl --window 2 --step 0.5 --out windows.pkl
    """
    from skelact import converters

    cli_options.hush(quiet)
    if options["step_s"] and not options["window_s"]:
        raise click.UsageError("--step is from one window to the next; give --window too")

    def say(message: str) -> None:
        if not quiet:
            click.echo(harmless(message), err=True)

    if source_format is None:
        source_format = converters.detect_format(sources)
        say(f"format: {source_format}, by its content")
    conversion = converters.convert(
        sources,
        out,
        source_format=source_format,
        progress=not quiet,
        command=cli_options.command_line(),
        **options,
    )
    dataset = conversion.dataset
    count = f"{len(dataset.annotations)} samples, layout {dataset.layout or 'unknown'}"
    say(f"{out}: {count}, {len(dataset.class_names)} classes" if dataset.class_names else f"{out}: {count}")
    for name, members in dataset.split.items():
        say(f"  {name}: {len(members)}")
    if conversion.excluded:
        say(f"  excluded: {conversion.excluded}")
    if source_format.endswith("-json") and any(annotation.img_shape is None for annotation in dataset.annotations):
        say("  no picture size is known, so readers assume 1080x1920; give it by --img-shape")
    for reason in conversion.skipped:
        click.echo(harmless(f"Error: skipped {reason}"), err=True)
    if conversion.skipped:
        raise SkelactError(f"{len(conversion.skipped)} skipped; the other {len(dataset.annotations)} are in {out}")
