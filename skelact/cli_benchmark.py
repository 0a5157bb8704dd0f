"""The command ``skelact benchmark``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from skelact import cli_options

if TYPE_CHECKING:
    from skelact.benchmarking import BenchmarkReport, Run


@click.command()
@click.argument("source", type=click.Path(), metavar="VIDEO")
@cli_options.models
@cli_options.pose_model
@cli_options.backend
@cli_options.precision
@cli_options.device
@cli_options.tracker
@cli_options.clips
@cli_options.stream
@cli_options.layout
@cli_options.offline
@click.option(
    "--rounds", type=cli_options.number("rounds"), default=3, show_default=True, help="The best of so many counts."
)
@click.option("--json", "json_path", metavar="PATH|-", help="Write it as JSON; - is stdout.")
@cli_options.quiet
def benchmark(
    source: str, models: tuple[str, ...], clips: str, json_path: str | None, quiet: bool, **options: Any
) -> None:
    """Show where the time of skelact predict goes on this machine, and how far it is from the least possible.

    Each stage is timed alone, and the whole of predict, with and without an overlay. The floor is what the pose
    network and decoding take side by side; an overlay adds decoding again, and encoding.

    \b
    Example:
        skelact benchmark video.mp4 --json benchmark.json
    """
    cli_options.hush(quiet)
    import skelact
    from skelact import files, writers

    if json_path not in (None, "-"):
        files.check_writable(str(json_path), [source, *models, options["pose_model"], options["layout"]])
    report = skelact.benchmark(source, models, clips=int(clips), progress=not quiet, **options)
    if json_path != "-":
        _print(source, report)
    if json_path:
        writers.write_json(writers.record(cli_options.command_line(), report.to_dict()), json_path)


def _print(source: str, report: BenchmarkReport) -> None:
    video, machine, pose = report.video, report.machine, report.pose
    height, width = pose["pose_imgsz"]
    gpu = f" ({machine['gpu']})" if "gpu" in machine else ""
    click.echo(
        f"{source}: {video['num_frames']} frames of {video['width']} x {video['height']}, {video['fps']:.4g} frames/s\n"
        f"{machine['processor']}, {machine['cores']} cores, on {machine['device']}{gpu}\n"
        f"{pose['pose_model']} in {pose['pose_backend']}, {pose['pose_precision']}, fitted into {width} x {height}\n"
    )
    click.echo(f"{'stage':<14}{'ms/frame':>10}{'CPU ms':>10}{'frames/s':>10}")
    for stage in report.stages:
        rate = 1 / max(stage.wall_s, 1e-9)
        click.echo(f"{stage.name:<14}{stage.wall_s * 1e3:10.2f}{stage.cpu_s * 1e3:10.2f}{rate:10.0f}")
    click.echo(f"\nceiling, the pose network alone: {report.ceiling_fps:.1f} frames/s")
    click.echo(f"loading the models: {report.load_s:.1f} s")
    click.echo(_told("predict", report.predict))
    click.echo(_told("predict with overlay", report.overlay))


def _told(name: str, run: Run) -> str:
    memory = "" if run.peak_memory_mb is None else f", {run.peak_memory_mb:.0f} MB at most"
    if run.peak_gpu_memory_mb is not None:
        memory += f" and {run.peak_gpu_memory_mb:.0f} MB of the GPU's"
    return f"{name}: {run.frames_per_s:.1f} frames/s, {run.ratio:.2f} times the floor of {run.floor_s:.1f} s{memory}"
