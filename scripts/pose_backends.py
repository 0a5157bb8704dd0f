"""How exact and how fast a pose model is in each backend and precision, against PyTorch in fp32, on the same frames.

    python scripts/pose_backends.py ../shared/media/*.mp4 --pose-model skelact-pose

People are matched by their joints. The speed is that of finding everybody in frames that are ready in memory; all take
turns, video by video.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from skelact.pose import PoseModel
from skelact.structures import Frame, FramePoses
from skelact.video import probe_video, read_frames

SURE = 0.25  # people of a lower score are not compared: they may be on either side of the lowest that counts
MATCH = 0.1  # of the height of a person: mean distance of the joints up to which two detections are of one person


def compare(found: FramePoses, exact: FramePoses) -> list[tuple[float, float]]:
    """For each person found in PyTorch the mean and the largest distance of the joints in pixels; inf where missed."""
    distances = []
    for n in np.flatnonzero(exact.bbox_score >= SURE):
        height = exact.bbox[n, 3] - exact.bbox[n, 1]
        apart = np.linalg.norm(found.keypoint - exact.keypoint[n], axis=-1)
        best = int(apart.mean(-1).argmin()) if len(apart) else -1
        same = best >= 0 and apart[best].mean() < MATCH * height
        distances.append((float(apart[best].mean()), float(apart[best].max())) if same else (np.inf, np.inf))
    return distances


def timed(model: PoseModel, frames: Sequence[Frame]) -> tuple[list[FramePoses], float]:
    """Everybody in all frames, and the seconds that it took."""
    list(model.detect_each(frames[:2]))
    start = time.perf_counter()
    poses = [poses for _, poses in model.detect_each(frames)]
    return poses, time.perf_counter() - start


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--pose-model", required=True)
@click.option("--frames", default=40, show_default=True, help="Of each video, spread over it.")
@click.option("--precision", "precisions", multiple=True, default=("fp32", "bf16", "fp16", "int8"), show_default=True)
def main(videos: tuple[Path, ...], pose_model: str, frames: int, precisions: tuple[str, ...]) -> None:
    """Compare backends and precisions on frames of videos."""
    models = {"torch fp32": PoseModel(pose_model, "cpu", "torch")}
    for precision in precisions:
        models[f"openvino {precision}"] = PoseModel(pose_model, "cpu", "openvino", precision, calibrate_on=videos[0])
    seconds = dict.fromkeys(models, 0.0)
    distances: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    num_frames = 0
    for video in tqdm(videos, unit=" videos"):
        step = max(1, probe_video(video).num_frames // frames)
        ready = list(islice(read_frames(video), 0, frames * step, step))
        num_frames += len(ready)
        answers = {}
        for name, model in models.items():
            answers[name], used = timed(model, ready)
            seconds[name] += used
        for name, poses in answers.items():
            for found, exact in zip(poses, answers["torch fp32"], strict=True):
                distances[name] += compare(found, exact)
    click.echo(f"{pose_model}: {len(distances['torch fp32'])} people in {num_frames} frames of {len(videos)} videos")
    click.echo(f"{'':<16}{'found':>8}{'mean px':>10}{'99 % px':>10}{'worst px':>10}{'frames/s':>10}{'ratio':>8}")
    for name, rows in distances.items():
        mean, worst = np.array(rows).T
        same = np.isfinite(mean)
        pixels = mean[same].mean(), np.quantile(worst[same], 0.99), worst[same].max()
        ratio = seconds["torch fp32"] / seconds[name]
        told = "".join(f"{value:10.3f}" for value in pixels) + f"{num_frames / seconds[name]:10.1f}{ratio:8.2f}"
        click.echo(f"{name:<16}{same.mean():8.1%}{told}")


if __name__ == "__main__":
    main()
