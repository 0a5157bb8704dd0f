"""Frames per second of ``skelact extract-poses`` against a plain ``YOLO(...).track`` loop, in one run.

Both pose and track every frame of the same videos with the same model. The two take turns, since machines are noisy:

    python scripts/compare_extract.py ../shared/media/clips/weizmann/walk \\
        --pose-model ../shared/weights/yolov8n-pose_int8_openvino_model
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import torch

import skelact
from skelact import extract
from skelact.labelling import find_clips
from skelact.yolo import load_ultralytics


def plain_loop(videos: list[Path], pose_model: str) -> tuple[int, float]:
    """Pose and track each video as ultralytics' documentation shows it: (frames, seconds)."""
    ultralytics = load_ultralytics()
    threads = torch.get_num_threads()
    start, frames = time.perf_counter(), 0
    model = ultralytics.YOLO(pose_model, task="pose")
    for video in videos:
        for result in model.track(str(video), stream=True, conf=0.1, tracker="bytetrack.yaml", verbose=False):
            result.cpu().numpy()
            frames += 1  # each call of track() starts with a new tracker
    torch.set_num_threads(threads)  # ultralytics takes one away, for skelact's turn too
    return frames, time.perf_counter() - start


def skelact_run(videos: list[Path], pose_model: str, workers: int | None) -> float:
    """The same by skelact, from nothing to the dataset on disk: seconds."""
    extract._estimator.cache_clear()  # the plain loop loads its model in each turn too
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        skelact.extract_poses(videos, Path(folder) / "set.pkl", pose_model=pose_model, workers=workers, progress=False)
    return time.perf_counter() - start


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True))
@click.option("--pose-model", required=True)
@click.option("--workers", type=int, help="Of skelact; the plain loop has one process.")
@click.option("--turns", default=3, show_default=True)
def main(sources: tuple[str, ...], pose_model: str, workers: int | None, turns: int) -> None:
    """Compare the two on videos or folders of videos."""
    videos = [clip.path for clip in find_clips(sources)]
    ratios = []
    for turn in range(turns):
        frames, plain_s = plain_loop(videos, pose_model)
        skelact_s = skelact_run(videos, pose_model, workers)
        ratios.append(plain_s / skelact_s)
        click.echo(
            f"turn {turn + 1}: {frames} frames of {len(videos)} videos; plain loop {frames / plain_s:.1f} frames/s, "
            f"skelact {frames / skelact_s:.1f} frames/s, ratio {ratios[-1]:.2f}"
        )
    click.echo(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
