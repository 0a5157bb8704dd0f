"""The command ``skelact merge``, and ``skelact info`` for datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skelact import cli_options
from skelact.errors import SkelactError, harmless
from skelact.kinds import PICKLE_SUFFIXES

if TYPE_CHECKING:
    from skelact.annotations import Annotation, AnnotationSet
    from skelact.dataset_report import DatasetReport
    from skelact.skeleton import Layout

SHOWN_SHAPE = (720, 1280)  # (H, W) px of a picture for poses that tell none


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="A.pkl B.pkl...")
@click.option("--out", required=True, type=click.Path(), metavar="C.pkl", help="The pickle to write.")
@click.option("--half", is_flag=True, default=None, help="float16 on disk. Default: if all the others are.")
@cli_options.quiet
def merge(sources: tuple[str, ...], out: str, half: bool | None, quiet: bool) -> None:
    """Join datasets.

    Classes are joined by name and get new labels, splits by name too. Datasets of different layouts are refused, and
    so are different samples of the same name; the same sample in several is taken once.

    \b
    Example:
        skelact merge mine.pkl yours.pkl --out ours.pkl
    """
    cli_options.hush(quiet)
    import skelact

    merged = skelact.merge(sources, out, half, progress=not quiet, command=cli_options.command_line())
    if quiet:
        return
    classes = f", {len(merged.class_names)} classes" if merged.class_names else ""
    click.echo(f"{out}: {len(merged.annotations)} samples{classes}", err=True)


def is_dataset(path: str) -> bool:
    """Whether a file is to be read as a dataset."""
    return Path(path).suffix.lower() in PICKLE_SUFFIXES


def dataset_info(
    path: str,
    layout: str | None,
    json_path: str | None,
    plot: str | None,
    show: str | None,
    out: str | None,
    progress: bool,
) -> None:
    """``skelact info`` of a dataset: its report, and what else is asked for."""
    from skelact import writers
    from skelact.annotations import open_annotations
    from skelact.dataset_report import inspect_dataset, plot_report
    from skelact.files import check_writable
    from skelact.plots import check_picture
    from skelact.skeleton import as_layout

    if plot is not None:
        check_picture(plot, [path])
    for written in (None if json_path == "-" else json_path, out):
        if written is not None:
            check_writable(written, [path])
    if show is not None:
        assert out is not None
        _show(open_annotations(path), path, show, out, as_layout(layout), progress)
        if plot is None and json_path is None:
            return
    report = inspect_dataset(path, progress=progress, layout=layout)
    if plot is not None:
        plot_report(report, plot)
    if json_path is not None:
        writers.write_json(writers.record(cli_options.command_line(), {"dataset": report.to_dict()}), json_path)
    if json_path != "-":
        _print_dataset(report)


def _show(dataset: AnnotationSet, path: str, show: str, out: str, layout: Layout | None, progress: bool) -> None:
    """Render the sample of that name or, if there is none, of that number."""
    from skelact.pipeline import annotation_sequence
    from skelact.render import render_poses

    names = [header.frame_dir for header in dataset.headers()]
    if show in names:
        index = names.index(show)
    elif show.isdecimal() and int(show) < len(names):
        index = int(show)
    else:
        raise SkelactError(
            f"{path}: expected --show with a number from 0 to {len(names) - 1} or a name such as {names[0]!r}, "
            f"found {show!r}"
        )
    annotation = _filling_the_picture(dataset.annotations[index])
    sequence = annotation_sequence(path, annotation, layout.name if layout else dataset.layout)
    label = "no label" if annotation.label is None else str(annotation.label)
    if annotation.label is not None and dataset.class_names and 0 <= annotation.label < len(dataset.class_names):
        label = dataset.class_names[annotation.label]
    stop_s = sequence.num_frames / sequence.info.fps
    render_poses(sequence, [(0.0, stop_s, f"{annotation.frame_dir}: {label}")], out, progress=progress, layout=layout)
    told = f"{out}: sample {index} ({annotation.frame_dir}), {label}, {sequence.num_frames} frames"
    click.echo(harmless(told), err=True)


def _filling_the_picture(annotation: Annotation) -> Annotation:
    """2D poses of a picture of unknown size, or in no pixels at all, made as large as a picture."""
    import numpy as np

    from skelact.dataset_report import NORMALISED

    keypoint = annotation.keypoint
    known = np.any(keypoint != 0, axis=-1)
    if keypoint.shape[-1] != 2 or not known.any() or (annotation.img_shape and keypoint.max() > NORMALISED):
        return annotation
    height, width = SHOWN_SHAPE
    low, high = keypoint[known].min(0), keypoint[known].max(0)
    scale = 0.8 * (np.array((width, height)) / np.maximum(high - low, 1e-6)).min()
    pixels = (keypoint - (low + high) / 2) * scale + np.array((width, height)) / 2
    return replace(annotation, keypoint=np.where(known[..., None], pixels, 0), img_shape=SHOWN_SHAPE)


def _print_dataset(report: DatasetReport) -> None:
    joints = ", ".join(map(str, report.num_joints))
    dims = ", ".join(f"{dims}D" for dims in report.dims)
    scores = "with scores" if report.with_score else "without scores"
    sizes = [f"{width} x {height} ({count})" for height, width, count in report.img_shapes[:5]]
    posed = "" if report.posed_share is None else f"{report.posed_share:.1%} of the frames in which a person is there"
    rows = {
        "samples": f"{report.num_samples}, {report.num_frames} frames",
        "layout": f"{report.layout or 'unknown'} ({joints} joints, {dims}, {scores}, {report.dtype})",
        "splits": ", ".join(f"{name} {count}" for name, count in report.splits.items()) or "none",
        "frames": f"{report.length_min} to {report.length_max}, median {report.length_median:g}",
        "fps": ", ".join(f"{fps:g} ({count})" for fps, count in report.fps[:5]) or "not told",
        "persons": ", ".join(f"{n} ({count})" for n, count in report.persons.items()),
        "pictures": ", ".join(sizes + ["..."] * (len(report.img_shapes) > 5)) or "size not told",
        "posed": posed or "nobody",
        "missing": f"{report.missing_share:.1%} of all frames have nobody",
        **report.provenance,
    }
    print_rows(report.name, rows)
    splits = list(report.splits)
    widths = [max(7, len(split)) for split in splits]
    heads = "".join(f"  {split:>{width}}" for split, width in zip(splits, widths, strict=True))
    click.echo(harmless(f"  {'label':<5}  {'all':>7}{heads}  class"))
    for count in report.classes:
        cells = "".join(f"  {count.splits[split]:>{width}}" for split, width in zip(splits, widths, strict=True))
        click.echo(harmless(f"  {count.label:<5}  {count.num_samples:>7}{cells}  {count.class_name or ''}".rstrip()))
    for warning in report.warnings:
        click.echo(click.wrap_text(harmless(f"warning: {warning}"), 100, "", "  "))


def print_rows(title: str, rows: Mapping[str, object]) -> None:
    """What a file holds: its name and, below, a row for each of its properties."""
    click.echo(harmless(title))
    for name, value in rows.items():
        click.echo(click.wrap_text(harmless(f"{name:<11} {value}"), 100, "  ", " " * 14))
