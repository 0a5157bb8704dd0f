"""Does `skelact live` run for hours? Memory and latency over time, from a looped stream on this machine.

    python scripts/live_soak.py --minutes 20 --out docs/live.png \\
        --pose-model ../shared/weights/yolov8n-pose_int8_openvino_model \\
        --model skelact-daily

Drawn people shake hands, over and over, in an MJPEG stream that is served over HTTP by a process of its own; it breaks
off every five minutes for two seconds. Beside the picture lies a CSV with the same numbers.
"""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import click
import drawn_people
import numpy as np
import psutil
from http_stream import HttpStream
from tqdm import tqdm

import skelact
from skelact.writers import write_text

FPS = 15.0
SAMPLE_S = 5.0
FIELDS = ("time_s", "memory_mb", "latency_median_s", "latency_p95_s", "frames_seen", "frames_dropped", "reconnects")


def serve(address: Any, cut_every_s: float) -> None:
    """In a process of its own: tell the stream's address, and serve it."""
    scene = drawn_people.Scene(drawn_people.pair("shake_hands", np.random.default_rng(0)), "room", 0)
    images = [image for image, *_ in drawn_people.render(scene, int(3.6 * FPS), FPS, (640, 360))]
    with HttpStream(images, FPS) as stream:
        address.put(stream.url)
        while True:
            time.sleep(cut_every_s)
            stream.cut()
            time.sleep(2.0)
            stream.restore()


def plot(rows: list[tuple[float, ...]], out: Path, title: str) -> None:
    """Memory and latency over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = [row[0] / 60 for row in rows]
    figure, (memory, latency) = pyplot.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    memory.plot(minutes, [row[1] for row in rows], color="#0072b2")
    memory.set(ylabel="memory, MB", ylim=(0, 1.2 * max(row[1] for row in rows)), title=title)
    latency.plot(minutes, [row[2] for row in rows], label="median", color="#009e73")
    latency.plot(minutes, [row[3] for row in rows], label="95 %", color="#d55e00")
    latency.set(ylabel="window's end to label, s", xlabel="minutes", ylim=(0, None))
    latency.legend()
    figure.savefig(out, dpi=110)


@click.command(help=__doc__)
@click.option("--minutes", default=20.0, show_default=True)
@click.option("--cut-every", default=300.0, show_default=True, help="Seconds from one break to the next.")
@click.option("--pose-model", required=True)
@click.option("--model", required=True)
@click.option("--stream", help="Of a checkpoint that does not tell.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/live.png"), show_default=True)
def main(minutes: float, cut_every: float, pose_model: str, model: str, stream: str | None, out: Path) -> None:
    """Run and plot."""
    processes = multiprocessing.get_context("spawn")
    address = processes.Queue()
    server = processes.Process(target=serve, args=(address, cut_every), daemon=True)
    server.start()
    rows: list[tuple[float, ...]] = []
    own = psutil.Process()
    bar = tqdm(total=round(60 * minutes), unit=" s")

    def sample(view: Any) -> None:
        report = session.report
        if not rows or report.duration_s - rows[-1][0] >= SAMPLE_S:
            memory_mb = own.memory_info().rss / 2**20
            counts = (report.num_seen, report.num_dropped, report.num_reconnects)
            rows.append((report.duration_s, memory_mb, *report.latency_s, *counts))
            bar.update(round(report.duration_s) - bar.n)

    session = skelact.live(
        address.get(timeout=120),
        model,
        pose_model=pose_model,
        stream=stream,
        unknown_below=None,
        duration_s=60 * minutes,
        on_frame=sample,
    )
    num_events = sum(1 for _ in session)
    bar.close()
    server.terminate()
    lines = [",".join(FIELDS), *(",".join(f"{value:.3f}" for value in row) for row in rows)]
    write_text("\n".join(lines) + "\n", str(out.with_suffix(".csv")))
    plot(rows, out, f"{session.report.num_windows} windows, {session.report.num_reconnects} reconnects")
    print(f"{num_events} events; {session.report}")
    later = [row[1] for row in rows if row[0] >= rows[-1][0] / 4]
    print(
        f"memory after a quarter of the time {later[0]:.0f} MB, "
        f"at the end {later[-1]:.0f} MB, at most {max(later):.0f} MB"
    )


if __name__ == "__main__":
    main()
