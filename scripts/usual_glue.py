"""``skelact predict`` against the usual glue: ``YOLO(weights).track(video)``, then eager ST-GCN++, in one run.

Both have the same pose weights, classifier, number of clips and every frame; the glue runs in PyTorch
with all cores and with its models loaded. Poses count as they leave the networks, before skelact mends and cleans them:

    python scripts/usual_glue.py video.mp4 --pose-model weights/skelact-pose.pt
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from plain_stgcnpp import PlainSTGCNPP

from skelact.answers import predict_sequence
from skelact.classifier import Classifier
from skelact.clips import prepare_clips
from skelact.pipeline import estimate_poses
from skelact.pose import MAX_PERSONS, MIN_BBOX_SCORE, PoseModel
from skelact.runner import available_cores
from skelact.shipped import DEFAULT_MODEL
from skelact.structures import Array, Frame, SourceResult
from skelact.video import probe_video
from skelact.yolo import load_ultralytics

MATCH_PX = 20.0  # mean distance of the joints up to which two detections are of one person


class Glue:
    """What people write themselves."""

    def __init__(self, pose_model: str, classifier: Classifier) -> None:
        self.yolo = load_ultralytics().YOLO(pose_model, task="pose")
        self.classifier = classifier
        self.networks = []
        for member in classifier.members:
            checkpoint = member.checkpoint
            network = PlainSTGCNPP(checkpoint.model, checkpoint.clips.layout.adjacency())
            network.load_state_dict(checkpoint.state_dict)
            self.networks.append(network.eval())

    def run(self, video: Path, clips: int) -> tuple[str, list[Array]]:
        """The best class, and the joints (N, 17, 2) of each frame."""
        people: dict[int, dict[int, Array]] = {}
        joints = []
        results = self.yolo.track(
            str(video),
            stream=True,
            conf=MIN_BBOX_SCORE,
            max_det=MAX_PERSONS,
            tracker="bytetrack.yaml",
            device="cpu",
            verbose=False,
        )
        for t, result in enumerate(results):
            if not t:
                torch.set_num_threads(available_cores())  # ultralytics takes one away
            keypoint = result.keypoints.data.numpy()
            joints.append(keypoint[..., :2])
            ids = [] if result.boxes.id is None else result.boxes.id.int().tolist()
            for track_id, person in zip(ids, keypoint, strict=False):
                people.setdefault(track_id, {})[t] = person
        return self._classify(people, len(joints), probe_video(video).img_shape, clips), joints

    def _classify(
        self, people: dict[int, dict[int, Array]], num_frames: int, img_shape: tuple[int, int], clips: int
    ) -> str:
        longest = sorted(people.values(), key=len, reverse=True)[: self.classifier.num_person]
        keypoint = np.zeros((max(len(longest), 1), num_frames, 17, 3), np.float32)
        for m, track in enumerate(longest):
            for t, person in track.items():
                keypoint[m, t] = person
        scores = np.zeros(len(self.classifier.class_names))
        for member, network in zip(self.classifier.members, self.networks, strict=True):
            batch = np.stack(
                list(prepare_clips(keypoint[..., :2], keypoint[..., 2], img_shape, member.checkpoint.clips, clips))
            )
            with torch.no_grad():
                logits = network(torch.from_numpy(batch)).double().numpy()
            scores += member.weight * member.scores_of(logits[None])[0]
        return self.classifier.class_names[scores.argmax()]


def skelact_run(video: Path, pose_model: PoseModel, classifier: Classifier, clips: int) -> SourceResult:
    """The same by skelact: one answer for the whole video."""
    return predict_sequence(estimate_poses(video, pose_model, progress=False), classifier, clips=clips)


def opencv_frames(video: Path) -> Iterator[Frame]:
    """As the glue reads them: OpenCV takes other colours than skelact and players for HD video that tells none."""
    capture = cv2.VideoCapture(str(video))
    for k in itertools.count():
        read, image = capture.read()
        if not read:
            return
        yield Frame(k, float(k), image)


def distance(pose_model: PoseModel, video: Path, joints: list[Array]) -> tuple[int, float]:
    """How many people both have in the same pictures, each the other's nearest, and how many pixels apart joints are.

    Else doubles, which skelact drops, or whom the tracker of the glue left out would be compared with somebody else.
    """
    distances: list[float] = []
    for (_, poses), other in zip(pose_model.detect_each(opencv_frames(video)), joints, strict=True):
        if len(poses.keypoint) and len(other):
            apart = np.linalg.norm(poses.keypoint[:, None] - other, axis=-1).mean(-1)
            nearest = apart.argmin(1)
            mutual = apart[np.flatnonzero(apart.argmin(0)[nearest] == np.arange(len(apart))), :].min(1)
            distances += mutual[mutual < MATCH_PX].tolist()
    return len(distances), float(np.mean(distances)) if distances else float("nan")


def timed(work: Any, *arguments: Any) -> tuple[Any, float]:
    """What it returns, and the seconds that it took."""
    start = time.perf_counter()
    return work(*arguments), time.perf_counter() - start


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--pose-model", required=True)
@click.option("--model", default=DEFAULT_MODEL, show_default=True)
@click.option("--clips", default=10, show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="Of skelact's pose network.")
@click.option("--turns", default=3, show_default=True, help="The two take turns; the median ratio counts.")
def main(videos: tuple[Path, ...], pose_model: str, model: str, clips: int, precision: str, turns: int) -> None:
    """Compare the two on videos."""
    classifier = Classifier([model], device="cpu")
    ours = PoseModel(pose_model, "cpu", precision=precision, calibrate_on=videos[0])  # int8 needs to know pictures
    glue = Glue(pose_model, classifier)
    backend = ours.provenance["pose_backend"]
    click.echo(f"{pose_model}: skelact in {backend}, {precision}; the glue in PyTorch, fp32")
    outcome: Counter[bool] = Counter()
    for video in videos:
        glue.run(video, clips)  # warms up
        skelact_run(video, ours, classifier, clips)
        seconds = []
        for _ in range(turns):
            (name, joints), glue_s = timed(glue.run, video, clips)
            result, skelact_s = timed(skelact_run, video, ours, classifier, clips)
            seconds.append((glue_s, skelact_s))
        matched, apart = distance(ours, video, joints)
        frames, same = len(joints), name == result.predictions[0].top_k[0][0]
        outcome[same] += 1
        rates = [frames / statistics.median(column) for column in zip(*seconds, strict=True)]
        ratio = statistics.median(glue_s / skelact_s for glue_s, skelact_s in seconds)
        click.echo(
            f"{video.name}: {frames} frames; glue {rates[0]:.1f} frames/s, skelact {rates[1]:.1f}, ratio {ratio:.2f}; "
            f"{matched} people {apart:.3f} px apart; top-1 {name} and {result.predictions[0].top_k[0][0]}"
        )
    click.echo(f"the same top-1 in {outcome[True]} of {outcome.total()} videos")


if __name__ == "__main__":
    main()
