"""How time and memory of ``skelact predict`` grow with a video's length, its people, its resolution and the workers.

    python scripts/growth.py --out docs/growth.png

Each point is a command of its own on drawn people, with the shipped models: its wall time, start-up included, and the
most memory that it or one of its workers had. The figures stand in a CSV beside the picture.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import click
import drawn_people
import matplotlib.pyplot as plt
from tqdm import tqdm

FIELDS = ("series", "value", "wall_s", "peak_memory_mb")
LABELS = {"length": "video, s", "people": "people", "resolution": "height, px", "workers": "workers"}


@dataclass(frozen=True)
class Point:
    """One measurement: which series, its value, the film, and how many copies of it for how many workers."""

    series: str
    value: int
    seconds: float = 20.0
    fps: float = 15.0
    height: int = 360
    people: int = 2
    copies: int = 1
    workers: int = 1


POINTS = (
    *(Point("length", s, seconds=s, fps=10, height=240) for s in (10, 30, 60, 180, 600, 1800)),
    *(Point("people", n, people=n, height=720) for n in (1, 2, 5, 10, 20)),
    *(Point("resolution", h, height=h) for h in (240, 480, 720, 1080, 2160)),
    *(Point("workers", n, workers=n, copies=4) for n in (1, 2)),
)


def film(point: Point, folder: Path) -> Path:
    """People who wave side by side."""
    path = folder / f"{point.people}-{point.seconds:g}-{point.fps:g}-{point.height}.mp4"
    if not path.exists():
        scene = drawn_people.scene_of("wave", people=point.people)
        if point.people == 1:
            scene = replace(scene, people=(replace(scene.people[0], height=0.55),))
        width = -(-point.height * 16 // 9 // 2) * 2
        frames = (
            image
            for image, _, _ in drawn_people.render(
                scene, round(point.seconds * point.fps), point.fps, (width, point.height)
            )
        )
        drawn_people.write_video(path, frames, point.fps)
    return path


def measure(point: Point, video: Path, pose_model: str, folder: Path) -> tuple[float, float]:
    """Wall seconds and MB."""
    sources = []
    for k in range(point.copies):
        copy = folder / f"copy{k}.mp4"
        copy.unlink(missing_ok=True)
        copy.symlink_to(video)
        sources.append(str(copy))
    command = [sys.executable, "-m", "skelact", "predict", *sources, "--offline", "--pose-model", pose_model, "--quiet"]
    command += ["--granularity", "timeline", "--workers", str(point.workers), "--json", str(folder / "out.json")]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)  # of the process, or of its hungriest child
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(errors.decode())
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def plot(rows: list[tuple[str, int, float, float]], out: Path) -> None:
    """A column for each series: time above, memory below."""
    figure, axes = plt.subplots(2, len(LABELS), figsize=(13, 5), layout="constrained", sharex="col")
    for column, (series, label) in enumerate(LABELS.items()):
        values = [row for row in rows if row[0] == series]
        for axis, index, name in ((axes[0, column], 2, "wall time, s"), (axes[1, column], 3, "memory, MB")):
            axis.plot([row[1] for row in values], [row[index] for row in values], "o-")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            if not column:
                axis.set_ylabel(name)
        axes[1, column].set_xlabel(label)
    figure.savefig(out, dpi=110)


@click.command(help=__doc__)
@click.option("--series", "names", multiple=True, type=click.Choice(list(LABELS)), default=tuple(LABELS))
@click.option("--pose-model", default="skelact-pose", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/growth.png"), show_default=True)
def main(names: tuple[str, ...], pose_model: str, out: Path) -> None:
    """Measure the series named; those in the CSV that are not stay as they are."""
    table = out.with_suffix(".csv")
    rows: list[tuple[str, int, float, float]] = []
    if table.exists():
        with table.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["series"] not in names]
        rows = [(r["series"], int(r["value"]), float(r["wall_s"]), float(r["peak_memory_mb"])) for r in kept]
    with tempfile.TemporaryDirectory(prefix="skelact-growth-") as name:
        folder = Path(name)
        for point in tqdm([point for point in POINTS if point.series in names], unit=" points"):
            # Drawn in another process: Linux counts the most memory of this one as its children's too.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                video = pool.submit(film, point, folder).result()
            wall_s, memory_mb = measure(point, video, pose_model, folder)
            rows.append((point.series, point.value, wall_s, memory_mb))
            click.echo(f"{point.series} {point.value}: {wall_s:.1f} s, {memory_mb:.0f} MB")
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerows((series, value, f"{wall:.2f}", f"{memory:.0f}") for series, value, wall, memory in rows)
    plot(rows, out)


if __name__ == "__main__":
    main()
