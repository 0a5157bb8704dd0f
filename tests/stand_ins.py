"""What tests take for trained networks: classifiers with random weights, and an estimator that knows the joints."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import drawn_people
import numpy as np
import torch
from click.testing import CliRunner

from skelact.checkpoint import Checkpoint, save_checkpoint
from skelact.clips import ClipSettings
from skelact.model import STGCNPP, ModelSettings
from skelact.skeleton import COCO, Layout
from skelact.structures import Array, Frame, FramePoses
from skelact.yolo import load_ultralytics

FPS = 15.0
SIZE = (320, 180)  # width, height
CLASSES = ("wave", "walk", "shake hands", "stand")


# --- films -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Film:
    """A video of drawn people: their joints in each frame, and its first picture, by which it is recognised."""

    path: Path
    joints: list[tuple[Array, Array]]
    first_picture: Array


def film(
    path: Path, scene: drawn_people.Scene, seconds: float = 1.6, fps: float = FPS, size: tuple[int, int] = SIZE
) -> Film:
    """Render a scene into a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    joints = drawn_people.save_video(path, scene, seconds, fps, size)
    first_picture, _, _ = next(drawn_people.render(scene, 1, fps, size))
    return Film(path, joints, first_picture)


@dataclass
class DrawnPoses:
    """Stands for ``pose.PoseModel``: finds the people of the films that it knows, and nobody elsewhere.

    Attributes:
        films: those that it knows; copies of their files too.
        swapped: whether it reports people in the other order.
        loaded: the (name, device) of each time that it was loaded.
    """

    films: Sequence[Film]
    swapped: bool = False
    loaded: list[tuple[str, str | None]] = field(default_factory=list)
    provenance: dict[str, Any] = field(
        default_factory=lambda: {"pose_model": "drawn", "pose_model_sha256": "0" * 64, "ultralytics": "none"}
    )
    _film: Film | None = None

    def load(self, name: str | Path, device: str | None = None, *settings: str | None, **more: Any) -> DrawnPoses:
        """Takes the place of the class's constructor."""
        self.loaded.append((str(name), device))
        return self

    def detect_each(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, FramePoses]]:
        """Everybody in frame after frame."""
        for frame in frames:
            yield frame, self.detect(frame)

    def detect(self, frame: Frame) -> FramePoses:
        """Everybody in one frame."""
        if frame.index == 0:
            self._film = next((film for film in self.films if looks_like(frame.image, film.first_picture)), None)
        keypoint, bbox = self._film.joints[frame.index] if self._film else (np.zeros((0, 17, 2)), np.zeros((0, 4)))
        order = slice(None, None, -1 if self.swapped else 1)
        return FramePoses(
            frame.index,
            frame.time_s,
            keypoint[order].astype(np.float32),
            np.full(keypoint.shape[:2], 0.9, np.float32),
            bbox[order].astype(np.float32),
            np.full(len(bbox), 0.85, np.float32),
        )


def looks_like(image: Array, other: Array) -> bool:
    return image.shape == other.shape and float(np.abs(image.astype(int) - other).mean()) < 5


# --- classifiers -------------------------------------------------------------------------------------------------


def script_output(script: click.Command, *arguments: object) -> str:
    """What a script prints when it is called like this, which must go well."""
    result = CliRunner().invoke(script, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def random_network(settings: ModelSettings, layout: Layout, seed: int = 0) -> STGCNPP:
    """Random weights, but such that different people get clearly different scores."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = STGCNPP(settings, layout.adjacency())
        torch.nn.init.normal_(network.cls_head.fc.weight, std=2.0)
    return network.eval()


def classifier_file(
    path: Path,
    class_names: Sequence[str] = CLASSES,
    *,
    stream: str = "joint",
    layout: Layout = COCO,
    dims: int = 2,
    seed: int = 0,
    clip_len: int = 16,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """A small classifier in skelact's format; 3D ones take no scores."""
    clips = ClipSettings(layout, stream, dims, with_score=dims == 2, clip_len=clip_len)
    settings = ModelSettings(clips.in_channels, layout.num_joints, len(class_names), (12, 24), (1, 2))
    weights = random_network(settings, layout, seed).state_dict()
    save_checkpoint(Checkpoint(settings, clips, tuple(class_names), weights, dict(provenance or {})), path)
    return path


def published_file(path: Path, class_names: Sequence[str] = CLASSES, *, layout: Layout = COCO, seed: int = 0) -> Path:
    """A small classifier as mmaction2 publishes them: a pickle with the weights, and the rest as text."""
    settings = ModelSettings(3, layout.num_joints, len(class_names), (12, 24), (1, 2))
    meta = {
        "cfg": "train_pipeline = [dict(type='GenSkeFeat', dataset='coco', feats=['j'])]",
        "dataset_meta": {"CLASSES": list(class_names)},
    }
    torch.save({"meta": meta, "state_dict": random_network(settings, layout, seed).state_dict()}, path)
    return path


def untrained_yolo(folder: Path, task: str = "pose", kpt_shape: tuple[int, int] = (17, 3)) -> Path:
    """The smallest of YOLOs as a ``.pt``, with random weights, for poses of ``kpt_shape`` or for boxes."""
    from ultralytics.utils import YAML

    ultralytics = load_ultralytics()
    name = f"{task}-{kpt_shape[0]}-{kpt_shape[1]}"
    path = folder / f"{name}.pt"
    if not path.exists():
        configs = Path(ultralytics.__file__).parent / "cfg" / "models" / "11"
        config = YAML.load(configs / ("yolo11-pose.yaml" if task == "pose" else "yolo11.yaml"))
        config |= {"scales": {"n": [0.33, 0.0625, 128]}, "kpt_shape": list(kpt_shape)}
        YAML.save(folder / f"yolo11n-{name}.yaml", config)
        ultralytics.YOLO(folder / f"yolo11n-{name}.yaml", task=task).save(path)
    return path


# --- from strangers ----------------------------------------------------------------------------------------------


class Hostile:
    """Unpickled by anything that runs pickles, it leaves a file as a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)
