"""The command line: each command turns its options into one call of the library and prints what comes back.

Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import _thread
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from skelact import __version__, cli_options
from skelact.cli_benchmark import benchmark
from skelact.cli_convert import convert
from skelact.cli_data import dataset_info, is_dataset, merge, print_rows
from skelact.cli_evaluate import fuse, test
from skelact.cli_export import export
from skelact.cli_extract import extract_poses
from skelact.cli_live import live
from skelact.cli_report import report
from skelact.cli_train import train
from skelact.cli_weights import weights
from skelact.errors import SkelactError, harmless

if TYPE_CHECKING:
    from skelact.pipeline import SourceResult
    from skelact.roi import Region


MAX_MESSAGE = 500  # characters of what others say of an error
# These say nothing where one answer is asked for; and what the function calls them.
TIMELINE_OPTIONS = {"window": "window_s", "step": "step_s", "min_duration": "min_duration_s", "subjects": "subjects"}


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which batch systems end a job, end it as an exception does: half-written files are removed."""
    if threading.current_thread() is not threading.main_thread():  # others can't take signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    hook, sys.unraisablehook = sys.unraisablehook, _sent_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _sent_again(dropped: sys.UnraisableHookArgs) -> None:
    """Where Python drops what is raised, as in ``__del__``, it would drop the end that a signal asks for, too."""
    number = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(dropped.exc_type)
    if number is None:
        sys.__unraisablehook__(dropped)
    elif sys.platform == "win32":  # where os.kill ends the process at once
        threading.Timer(0.05, _thread.interrupt_main, (number,)).start()
    else:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()


def _debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """``--debug`` behind a command says what it says before it."""
    if value:
        context.find_root().params["debug"] = True
        _set_levels(debug=True)


def _set_levels(debug: bool) -> None:
    logging.getLogger().setLevel(logging.DEBUG if debug else logging.WARNING)
    logging.getLogger("skelact").setLevel(logging.DEBUG if debug else logging.INFO)


class SkelactGroup(click.Group):
    """Turns errors into one line on stderr and exit code 1; ``--debug`` shows the traceback."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, which takes ``--debug`` too."""
        for each in getattr(cmd, "commands", {"": cmd}).values():
            each.params.append(
                click.Option(
                    ["--debug"], is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of errors."
                )
            )
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by the caller
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for as long as the process lives)
        try:
            with _ended_by_sigterm():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            sys.stderr.close()  # a reader such as head has had enough
            ctx.exit(0)
        except KeyboardInterrupt:
            click.echo("Aborted!", err=True)
            ctx.exit(128 + signal.SIGINT)
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            raise click.ClickException(_in_one_line(error)) from error


def _in_one_line(error: Exception) -> str:
    """What to say of an error."""
    text = harmless(" ".join(str(error).split()))
    if isinstance(error, SkelactError):
        return harmless(str(error))
    if isinstance(error, ImportError) and "cannot open shared object file" in text:
        return f"a system library is missing: {text}; OpenCV's are installed by: apt install libgl1 libglib2.0-0"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "cannot write: the disk is full; free some space or write elsewhere"
    if isinstance(error, MemoryError):
        return f"out of memory: {text} (--debug shows where)"
    return f"{type(error).__name__}: {text[:MAX_MESSAGE]} (--debug shows where)"


class _Harmless(logging.Formatter):
    """Warnings hold names from files, too."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return harmless(super().formatMessage(record))


@click.group(cls=SkelactGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="skelact")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def main(debug: bool) -> None:
    """Turn video into actions: who does what, when.

    \b
    Example:
        skelact predict video.mp4
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # it can't write all names, as on Windows
    handler = logging.StreamHandler()
    handler.setFormatter(_Harmless("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    _set_levels(debug)
    for name in ("matplotlib", "PIL", "libav", "filelock", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)


main.add_command(weights)
main.add_command(convert)
main.add_command(extract_poses)
main.add_command(train)
main.add_command(test)
main.add_command(fuse)
main.add_command(export)
main.add_command(merge)
main.add_command(report)
main.add_command(live)
main.add_command(benchmark)


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@cli_options.models
@cli_options.fusion_weights
@cli_options.pose_model
@cli_options.backend
@cli_options.precision
@cli_options.device
@cli_options.tracker
@cli_options.stride
@cli_options.clean
@click.option(
    "--granularity",
    type=click.Choice(["auto", "clip", "person", "timeline"]),
    default="auto",
    show_default=True,
    help="One answer, one for each person, or segments in time; auto: a clip up to 10 s, a timeline for longer videos "
    "or where an option of timelines is given.",
)
@cli_options.window
@cli_options.step
@cli_options.min_duration
@cli_options.subjects
@cli_options.roi
@click.option(
    "--topk", type=cli_options.number("topk"), default=5, show_default=True, help="Classes to print for each source."
)
@cli_options.clips
@cli_options.unknown_below
@cli_options.classes
@cli_options.stream
@cli_options.layout
@cli_options.class_names
@click.option(
    "--json",
    "json_path",
    metavar="PATH|-",
    help="Write everything as JSON; - is stdout. A folder (FOLDER/) gets one for each source; done ones are skipped.",
)
@click.option("--csv", "csv_path", metavar="PATH|-", help="Write the top classes as CSV; - is stdout.")
@click.option(
    "--out-video",
    type=click.Path(),
    metavar="PATH",
    help="Write the overlay (H.264); a folder if there are several sources.",
)
@click.option("--blur-faces", is_flag=True, help="Hide everybody's face in the overlay, tracked or not.")
@click.option("--srt", type=click.Path(), metavar="PATH", help="Write SubRip subtitles; a folder if several sources.")
@click.option("--vtt", type=click.Path(), metavar="PATH", help="Write WebVTT subtitles; a folder if several sources.")
@click.option("--eaf", type=click.Path(), metavar="PATH", help="Write ELAN annotations; a folder if several sources.")
@click.option(
    "--workers",
    type=cli_options.number("workers"),
    default=1,
    show_default=True,
    help="Processes; each takes a source at a time.",
)
@cli_options.engine
@cli_options.ray_address
@cli_options.offline
@cli_options.quiet
@click.pass_context
def predict(
    context: click.Context,
    sources: tuple[str, ...],
    models: tuple[str, ...],
    clips: str,
    class_names: str | None,
    json_path: str | None,
    csv_path: str | None,
    quiet: bool,
    regions: list[Region],
    **options: Any,
) -> None:
    """Tell what people do in videos.

    SOURCE is a video, a folder of videos, or an annotation pickle with poses. The best classes of each source, or its
    segments, go to stdout, unless JSON or CSV goes there; progress and messages go to stderr.

    \b
    Examples:
        skelact predict video.mp4 --json result.json --out-video overlay.mp4
        skelact predict long.mp4 --granularity timeline --json result.json --srt long.srt
    """
    if json_path == "-" and csv_path == "-":
        raise click.UsageError("--json and --csv cannot both go to stdout")
    if options["ray_address"] and options["engine"] != "ray":
        raise click.UsageError("--ray-address is of --engine ray")
    given = {name: options.pop(name) for name in TIMELINE_OPTIONS}
    told = [name for name in given if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if told and options["granularity"] in ("clip", "person"):
        option = told[0].replace("_", "-")
        raise click.UsageError(f"--{option} is of --granularity timeline, not of {options['granularity']}")
    options |= {TIMELINE_OPTIONS[name]: given[name] for name in told}
    if options["blur_faces"] and not options["out_video"]:
        raise click.UsageError("--blur-faces hides faces in the overlay: add --out-video")
    outputs = {f"--{kind.replace('_', '-')}": options[kind] for kind in ("out_video", "srt", "vtt", "eaf")}
    cli_options.apart(("--json", json_path), ("--csv", csv_path), *outputs.items())
    from pathlib import Path

    from skelact import pipeline, writers
    from skelact.files import check_writable

    json_dir = json_path if json_path and (json_path.endswith(("/", os.sep)) or Path(json_path).is_dir()) else None
    for output in (f"{json_dir}/result.json" if json_dir else json_path, csv_path):
        if output not in (None, "-"):
            check_writable(str(output), [*pipeline.expand_sources(sources), *models, options["layout"], class_names])
    cli_options.hush(quiet)
    out = sys.stderr if "-" in (json_path, csv_path) else sys.stdout
    predictions = pipeline.predict(
        sources,
        models,
        clips=int(clips),
        class_names=cli_options.names_in(class_names),
        progress=not quiet,
        on_result=lambda result: _tell(result, out, options["granularity"] == "auto" and not told and not quiet),
        regions=regions,
        json_dir=json_dir,
        command=cli_options.command_line(),
        debug=bool(context.find_root().params["debug"]),
        **options,
    )
    with ExitStack() as writing:  # one that can't be written takes nothing from the other
        if csv_path:
            writing.callback(writers.write_text, writers.to_csv(predictions), csv_path)
        if json_path and not json_dir:
            content = writers.to_json(predictions, cli_options.command_line())
            writing.callback(writers.write_json, content, json_path)
    failed = sum(result.error is not None for result in predictions.results)
    if failed and len(predictions.results) > 1:
        raise click.ClickException(f"{failed} of {len(predictions.results)} sources failed")
    if failed:
        context.exit(1)


def _tell_granularity(result: SourceResult) -> None:
    """What ``auto`` chose, and why."""
    from skelact.answers import LONGEST_CLIP_S
    from skelact.writers import printable

    assert result.sequence is not None
    long = result.granularity == "timeline"
    what = f"longer than {LONGEST_CLIP_S:g} s: a timeline" if long else f"up to {LONGEST_CLIP_S:g} s: one clip"
    seconds = f"{result.sequence.duration_s:.1f} s"
    click.echo(printable(f"{result.source}: {seconds}, {what} (--granularity chooses)"), err=True)


def _tell(result: SourceResult, out: Any, auto: bool) -> None:
    """Print a result. A reader such as ``head`` that has had enough takes nothing from the files that are to come."""
    try:
        _print_result(result, out, auto)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _print_result(result: SourceResult, out: Any, auto: bool) -> None:
    """Its best classes or segments, also if an output could not be written.

    Args:
        result: of a source.
        out: a stream.
        auto: whether to say on stderr what granularity was chosen.
    """
    from skelact.subtitles import who
    from skelact.writers import printable

    if result.error is not None:
        click.echo(printable(f"Error: {result.error}"), err=True)
    if result.error is not None and not result.predictions:
        return
    if auto:
        _tell_granularity(result)
    click.echo(printable(result.source), file=out)
    for prediction in result.predictions:
        if result.granularity == "timeline":
            times = f"{prediction.start_s:8.2f}-{prediction.stop_s:.2f} s"
            told = f"{who(prediction.track_ids).lower()}: {prediction.class_name}"
            click.echo(printable(f"{times}  {prediction.score:6.1%}  {told}"), file=out)
            continue
        ids = ", ".join(str(track_id) for track_id in prediction.track_ids)
        click.echo(f"  {prediction.start_s:.2f}-{prediction.stop_s:.2f} s, person {ids}", file=out)
        if prediction.class_name != prediction.top_k[0][0]:
            click.echo(printable(f"           {prediction.class_name}: no class is likely enough"), file=out)
        for name, score in prediction.top_k:
            click.echo(printable(f"  {score:7.1%}  {name}"), file=out)


@main.command()
@click.argument("path", metavar="CHECKPOINT|DATA.pkl")
@cli_options.stream
@cli_options.layout
@cli_options.offline
@click.option("--json", "json_path", metavar="PATH|-", help="Write it as JSON; - is stdout.")
@click.option("--plot", type=click.Path(), metavar="FILE.png", help="Write a picture of a dataset.")
@click.option("--show", metavar="N|NAME", help="Render this sample of a dataset, to --out.")
@click.option("--out", type=click.Path(), metavar="FILE.mp4", help="The video of --show.")
@cli_options.quiet
def info(
    path: str,
    stream: str | None,
    layout: str | None,
    json_path: str | None,
    plot: str | None,
    show: str | None,
    out: str | None,
    quiet: bool,
) -> None:
    """Show what is in a checkpoint or a dataset.

    Of a checkpoint, a file or a name from `skelact weights list`: layout, stream, classes, parameters, operations. The
    operations are of one clip, counted while it runs, as the field counts them: multiply-accumulates, batch norms and
    pooling.

    Of a dataset, a .pkl or .pickle file: classes, splits, lengths, persons, missing frames, and warnings of what will
    hurt training.

    \b
    Examples:
        skelact info ntu60-2d-joint
        skelact info ntu60.pkl --plot ntu60.png
        skelact info ntu60.pkl --show 0 --out sample.mp4
    """
    if (show is None) != (out is None):
        raise click.UsageError("--show and --out go together")
    cli_options.apart(("--json", json_path), ("--plot", plot), ("--out", out))
    cli_options.hush(quiet)
    if is_dataset(path):
        if stream:
            raise click.UsageError("--stream is for checkpoints")
        dataset_info(path, layout, json_path, plot, show, out, progress=not quiet)
        return
    if plot or show:
        raise click.UsageError("--plot and --show are for datasets, .pkl files")
    from skelact import inspect_checkpoint, writers
    from skelact.files import check_writable

    if json_path not in (None, "-"):
        check_writable(str(json_path), [path, layout])
    reports = inspect_checkpoint(path, stream, layout)
    if json_path:
        writers.write_json(writers.record(cli_options.command_line(), {"checkpoints": reports}), json_path)
    if json_path != "-":
        for report in reports:
            _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    persons = "1 person" if report["num_person"] == 1 else f"{report['num_person']} persons"
    rows = {
        "layout": f"{report['layout']} ({report['num_joints']} joints, {report['dims']}D)",
        "stream": report["stream"],
        "clip": f"{persons} x {report['clip_len']} frames, {report['in_channels']} channels",
        "blocks": f"{len(report['channels'])} ({', '.join(map(str, report['channels']))})",
        "parameters": f"{report['parameters'] / 1e6:.2f} M",
        "operations": f"{report['operations'] / 1e9:.2f} G for one clip",
        "classes": f"{len(report['class_names'])}: {', '.join(report['class_names'])}",
    }
    print_rows(report["file"], {**rows, **report["provenance"], **report["metrics"]})
