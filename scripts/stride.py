"""What poses on fewer frames cost: answers of ``skelact predict`` on labelled clips, by stride.

    python scripts/stride.py ../shared/media/clips/weizmann ../shared/media/clips/ut_interaction \\
        --pose-model ../shared/weights/yolov8n-pose_int8_openvino_model

Clips lie in folders of their class, under Weizmann's and UT-Interaction's names; other folders do not count. Most of
them were trained on: what tells is the difference.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
from daily_data import UT, WEIZMANN

import skelact
from skelact.structures import PredictionSet
from skelact.video import find_videos


def best_classes(predictions: PredictionSet) -> list[str]:
    """The best class of each source; none where nobody was found."""
    return [result.predictions[0].top_k[0][0] if result.predictions else "" for result in predictions.results]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--pose-model", required=True)
@click.option("--model", default="skelact-daily", show_default=True)
@click.option("--stride", "strides", multiple=True, default=("1", "2", "3", "4", "auto"), show_default=True)
def main(folders: tuple[Path, ...], pose_model: str, model: str, strides: tuple[str, ...]) -> None:
    """Answer for all clips at each stride."""
    names = WEIZMANN | UT
    videos = [video for folder in folders for video in find_videos(folder) if video.parent.name in names]
    labels = [names[video.parent.name] for video in videos]
    first: list[str] = []
    click.echo(f"{len(videos)} clips, {model}, {Path(pose_model).name}")
    click.echo(f"{'stride':<8}{'top-1':>8}{'same answer':>14}{'frames posed':>14}{'seconds':>10}")
    for stride in strides:
        start = time.perf_counter()
        predictions = skelact.predict(
            videos,
            model,
            pose_model=pose_model,
            device="cpu",
            granularity="clip",
            stride=stride if stride == "auto" else int(stride),
            progress=False,
        )
        seconds = time.perf_counter() - start
        answers = best_classes(predictions)
        first = first or answers
        right = np.mean([answer == label for answer, label in zip(answers, labels, strict=True)])
        same = np.mean([answer == other for answer, other in zip(answers, first, strict=True)])
        sequences = [result.sequence for result in predictions.results if result.sequence]
        posed = sum(-(-sequence.num_frames // sequence.provenance["stride"]) for sequence in sequences)
        share = posed / sum(sequence.num_frames for sequence in sequences)
        click.echo(f"{stride:<8}{right:8.1%}{same:14.1%}{share:14.1%}{seconds:10.1f}")


if __name__ == "__main__":
    main()
