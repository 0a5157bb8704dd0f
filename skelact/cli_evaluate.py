"""The commands ``skelact test`` and ``skelact fuse``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from skelact import cli_options

if TYPE_CHECKING:
    from skelact.evaluate import Evaluation


def _outputs(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both commands share."""
    for option in (
        cli_options.quiet,
        click.option("--plot", type=click.Path(), metavar="FILE.png", help="Draw the confusion matrix."),
        click.option("--json", "json_path", metavar="PATH|-", help="Write the metrics as JSON; - is stdout."),
        click.option("--dump", type=click.Path(), metavar="FILE.pkl", help="Write the scores, as mmaction2 does."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("data", metavar="DATA.pkl", type=click.Path())
@cli_options.models
@cli_options.fusion_weights
@click.option("--split", metavar="NAME", help="To test on. Default: the validation split, else all samples.")
@cli_options.stream
@cli_options.layout
@cli_options.class_names
@cli_options.clips
@click.option(
    "--batch-size", type=cli_options.number("batch_size"), default=16, show_default=True, help="Samples in a step."
)
@click.option(
    "--workers", type=cli_options.number("workers"), default=0, show_default=True, help="Processes that prepare clips."
)
@cli_options.device
@cli_options.offline
@_outputs
def test(
    data: str,
    models: tuple[str, ...],
    clips: str,
    class_names: str | None,
    json_path: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure a classifier on a pose dataset with labels.

    Prints top-1 and top-5 accuracy, mean class accuracy, macro F1, the expected calibration error and a line for each
    class. Classes are matched by name where the dataset names them.

    \b
    Example:
        skelact test dataset.pkl --model runs/mine/best.safetensors --plot confusion.png
    """
    _start(json_path, quiet, [data, *models, options["layout"], class_names], options)
    import skelact

    names = cli_options.names_in(class_names)
    evaluation = skelact.test(data, models, clips=int(clips), class_names=names, progress=not quiet, **options)
    split = evaluation.settings["split"]
    _finish(evaluation, data if split is None else f"{data}, split {split}", json_path)


@click.command()
@click.argument("dumps", nargs=-1, required=True, metavar="A.pkl B.pkl...", type=click.Path())
@cli_options.fusion_weights
@click.option("--softmax", is_flag=True, help="The dumps hold logits, not scores.")
@click.option(
    "--labels", type=click.Path(), metavar="DATA.pkl", help="Dataset with the labels of bare scores, and the classes."
)
@click.option("--split", metavar="NAME", help="The split of --labels that was tested.")
@_outputs
def fuse(dumps: tuple[str, ...], json_path: str | None, quiet: bool, **options: Any) -> None:
    """Fuse score dumps of the same samples, and measure the result.

    Dumps are those of skelact test and mmaction2, lists of pred_score and gt_label, and those of PYSKL, bare lists of
    scores, which need --labels and --split. Nothing in them is run.

    \b
    Example:
        skelact fuse joint.pkl bone.pkl --fusion-weights 1,1
    """
    _start(json_path, quiet, [*dumps, options["labels"]], options)
    import skelact

    evaluation = skelact.fuse(dumps, **options)
    _finish(evaluation, " + ".join(dumps), json_path)


def _start(json_path: str | None, quiet: bool, sources: Sequence[str | None], outputs: dict[str, Any]) -> None:
    """Refuse outputs that can't be written, before the work."""
    from skelact.files import check_writable

    cli_options.apart(("--json", json_path), ("--dump", outputs["dump"]), ("--plot", outputs["plot"]))
    if json_path not in (None, "-"):
        check_writable(str(json_path), sources)
    cli_options.hush(quiet)


def _finish(evaluation: Evaluation, title: str, json_path: str | None) -> None:
    """The metrics as text and, where it is asked for, as JSON."""
    from skelact import writers

    _print_evaluation(evaluation, title, sys.stderr if json_path == "-" else sys.stdout)
    if json_path:
        writers.write_json(writers.record(cli_options.command_line(), evaluation.to_dict()), json_path)


def _print_evaluation(evaluation: Evaluation, title: str, out: Any) -> None:
    from skelact.writers import printable

    metrics = evaluation.metrics
    click.echo(printable(f"{title}: {metrics.num_samples} samples, {len(metrics.classes)} classes"), file=out)
    rows = {
        "top-1": metrics.top1,
        "top-5": metrics.top5,
        "mean class accuracy": metrics.mean_class_accuracy,
        "macro F1": metrics.macro_f1,
        "calibration error": metrics.ece,
    }
    for name, value in rows.items():
        click.echo(f"  {name:<20} {_percent(value)}", file=out)
    click.echo("  label  samples  accuracy  precision      F1  class", file=out)
    for one in metrics.classes:
        shares = f"{_percent(one.recall):>8}  {_percent(one.precision):>9}  {_percent(one.f1):>6}"
        click.echo(printable(f"  {one.label:<5}  {one.num_samples:>7}  {shares}  {one.class_name}"), file=out)


def _percent(share: float | None) -> str:
    return "     -" if share is None else f"{share * 100:6.2f}"
