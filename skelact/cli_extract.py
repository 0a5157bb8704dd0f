"""The command ``skelact extract-poses``."""

from __future__ import annotations

import sys
from typing import Any

import click

from skelact import cli_options
from skelact.errors import harmless

# Options that change how the work is done and not what comes out; they stay out of the provenance.
_HOW = ("--out", "--workers", "--engine", "--ray-address", "--device", "--backend")
_HOW_FLAGS = ("--offline", "--quiet", "--debug")


@click.command("extract-poses")
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="DIR...")
@click.option("--out", required=True, type=click.Path(), metavar="FILE.pkl", help="The dataset to write.")
@click.option(
    "--labels", type=click.Path(), metavar="FILE.csv", help="Table of path, label[, split] (and start_s, stop_s)."
)
@cli_options.exclude
@click.option(
    "--group-by",
    metavar="REGEX",
    help="Finds the person or source video in a path; who is found is on one side of the split only.",
)
@click.option("--seed", type=cli_options.number("seed"), default=0, show_default=True, help="Of the split.")
@click.option(
    "--num-person",
    type=cli_options.number("num_person"),
    default=2,
    show_default=True,
    help="Persons to keep of each video.",
)
@click.option("--max-frames", type=cli_options.number("max_frames"), help="Take no more frames of a video.")
@click.option(
    "--stride",
    type=cli_options.number("stride"),
    default=1,
    show_default=True,
    help="Pose every Nth frame and interpolate the others.",
)
@cli_options.pose_model
@cli_options.backend
@cli_options.precision
@cli_options.offline
@cli_options.tracker
@click.option("--clean/--no-clean", default=True, show_default=True, help="Take outliers and jitter out of poses.")
@cli_options.device
@cli_options.half
@click.option(
    "--workers", type=cli_options.number("workers"), help="Processes. Default: one for two cores, four on each GPU."
)
@cli_options.engine
@cli_options.ray_address
@cli_options.quiet
def extract_poses(sources: tuple[str, ...], out: str, quiet: bool, **options: Any) -> None:
    """Turn folders of videos into a pose dataset.

    Labels come from --labels, else from NTU RGB+D file names, else from folders: DIR/class/clip.mp4, or
    DIR/train/class/clip.mp4 and DIR/val/class/clip.mp4. Without a split, a fifth of each class goes to `val`.

    What is done is kept in FILE.pkl.work: after a break, the same command goes on from there. A video that fails is
    skipped, stands in FILE.report.csv with its reason, and makes the exit code 1.

    \b
    Example:
        skelact extract-poses videos/ --out dataset.pkl --group-by "/([^_]+)_"
    """
    if options["ray_address"] and options["engine"] != "ray":
        raise click.UsageError("--ray-address is of --engine ray")
    cli_options.hush(quiet)
    import skelact

    report = skelact.extract_poses(sources, out, progress=not quiet, command=_command(sys.argv[1:]), **options)
    if report.path:
        click.echo(f"{report.path}: {report.num_samples} sample{'s' * (report.num_samples != 1)}", err=True)
    for path, reason in report.failed:
        click.echo(harmless(f"Error: {reason if path in reason else f'{path}: {reason}'}"), err=True)
    if report.failed:
        total = report.num_samples + len(report.failed)
        raise click.ClickException(f"{len(report.failed)} of {total} failed, see {report.report}")


def _command(arguments: list[str]) -> list[str]:
    """The command line without the options that change nothing in the dataset."""
    kept = ["skelact"]
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument.partition("=")[0] in _HOW:
            skip = "=" not in argument
        elif argument not in _HOW_FLAGS:
            kept.append(argument)
    return kept
