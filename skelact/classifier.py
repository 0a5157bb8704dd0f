"""The networks that answer: loaded from the zoo or from files, checked against the poses, their scores fused."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from skelact.annotations import Annotation
from skelact.calibration import UNKNOWN, energy_limit_of, scores_of, temperature_of, threshold_of
from skelact.checkpoint import Checkpoint, load_checkpoint
from skelact.clips import (
    ASPECT_RATIO_TOLERANCE,
    ClipSettings,
    check_layout,
    check_shape,
    prepare_clips,
    prepare_streams,
)
from skelact.devices import choose_device
from skelact.errors import SkelactError
from skelact.exported import is_exported, load_exported
from skelact.files import sha256_of
from skelact.folded import fold
from skelact.model import STGCNPP, count_operations, count_parameters
from skelact.ranges import check_numbers
from skelact.shipped import DEFAULT_MODEL
from skelact.skeleton import COCO, Layout, as_layout
from skelact.structures import Array, PoseSequence
from skelact.weights import PublishedModel, resolve
from skelact.windows import WINDOW_S

logger = logging.getLogger("skelact")

# What the published NTU60 checkpoints were trained on: HRNet's poses on Kinect's 1080p video.
NTU60_2D_TRAINING = {"pose_model": "HRNet", "img_shape": (1080, 1920)}
FRAMES_AT_ONCE = 400  # through a network: clips of 100 frames are no slower in fours than in tens, in half the memory
CLIPS_AT_ONCE_ON_GPU = 64
LONGER = 1.25  # than the clips of training, clips may be
WINDOW_LIMITS_S = (1.0, 4.0)  # of windows: in longer ones a person does several things


@dataclass(frozen=True)
class Member:
    """One network of a fusion: its name, what it is, and the weight of its scores.

    Attributes:
        temperature: that its logits are divided by; 1 where its checkpoint is not calibrated.
        unknown_below: the best score below which its answer is ``unknown``; None where that is not known.
        energy_limit: as in ``calibration.scores_of``; None where that is not known.
    """

    name: str
    path: Path
    checkpoint: Checkpoint
    weight: float
    temperature: float = 1.0
    unknown_below: float | None = None
    energy_limit: float | None = None

    def scores_of(self, logits: Array) -> Array:
        """Scores (N, num_classes) of logits (N, num_clips, num_classes): of all classes of the network, or some."""
        names = self.checkpoint.class_names
        unknown = names.index(UNKNOWN) if UNKNOWN in names and logits.shape[-1] == len(names) else None
        return scores_of(logits, self.temperature, self.energy_limit, unknown)


class Classifier:
    """One or several networks whose scores are fused.

    Args:
        models: zoo names or checkpoint paths.
        fusion_weights: one for each model; the published ones by default within a fused zoo name, else equal.
        stream, layout, class_names: as for ``load_checkpoint``.
        classes: score only these, by name; a text is one of them.
        device: None chooses.
        progress: show downloads.

    Raises:
        SkelactError: a model is missing or refused, or models with other classes are to be fused.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        fusion_weights: Sequence[float] | None = None,
        stream: str | None = None,
        layout: Layout | str | Path | None = None,
        class_names: tuple[str, ...] | None = None,
        classes: str | Sequence[str] | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> None:
        if not models:
            raise SkelactError("model: expected a name or a path, or several; found none")
        weights = checked_fusion_weights(fusion_weights, len(models), "model")
        layout = as_layout(layout)
        self.members = tuple(
            _member(
                found.published.name if found.published else str(name),
                found.path,
                _load_member(found.path, found.published, stream, layout, class_names),
                found.weight * weight,
            )
            for name, weight in zip(models, weights, strict=True)
            for found in resolve(name, progress)
        )
        self.class_names = self.members[0].checkpoint.class_names
        for member in self.members[1:]:
            if member.checkpoint.class_names != self.class_names:
                raise SkelactError(
                    f"cannot fuse {self.members[0].name} and {member.name}: their classes differ "
                    f"({len(self.class_names)} and {len(member.checkpoint.class_names)})"
                )
        self.scored = _class_indices(self.class_names, classes)
        self.device = choose_device(device)
        if DEFAULT_MODEL in models:
            actions = [name for name in self.class_names if name != UNKNOWN]
            told = "model %s: %d actions; `skelact weights list` tells of others, such as ntu60-2d-two-stream"
            logger.info(told, DEFAULT_MODEL, len(actions))
        self.networks = [_for_prediction(member.checkpoint).to(self.device) for member in self.members]

    @property
    def scored_names(self) -> tuple[str, ...]:
        """Names of the classes that are scored."""
        return tuple(self.class_names[i] for i in self.scored)

    @property
    def num_person(self) -> int:
        """Slots of the network that takes most."""
        return max(member.checkpoint.clips.num_person for member in self.members)

    @property
    def unknown_below(self) -> float | None:
        """The best score below which the answer is ``unknown``: the smallest of the networks' thresholds.

        None if one of them has none, and if only some classes are scored: it was measured on the scores of all.
        """
        thresholds = [member.unknown_below for member in self.members]
        if None in thresholds or len(self.scored) < len(self.class_names):
            return None
        return min(threshold for threshold in thresholds if threshold is not None)

    @property
    def window_s(self) -> float:
        """The length of windows in which to look for actions: that of the clips that the networks were trained on.

        It is their median, as far as checkpoints tell it, within ``WINDOW_LIMITS_S``.
        """
        return WINDOW_S if self._trained_s is None else float(np.clip(self._trained_s, *WINDOW_LIMITS_S))

    @property
    def longest_clip_s(self) -> float:
        """The longest clip to look at only as a whole, as clips that the networks were trained on were hardly longer.

        Infinite where checkpoints don't tell how long those were, as published ones don't.
        """
        return math.inf if self._trained_s is None else LONGER * self._trained_s

    @property
    def _trained_s(self) -> float | None:
        """The median length of the clips that the networks were trained on."""
        told = [member.checkpoint.provenance.get("clip_s") for member in self.members]
        lengths = [float(length) for length in told if isinstance(length, int | float) and 0 < length < math.inf]
        return float(np.median(lengths)) if lengths else None

    def scores(
        self, keypoint: Array, keypoint_score: Array | None, img_shape: tuple[int, int] | None, num_clips: int
    ) -> Array:
        """Fused scores (classes scored,) of one sample; see ``scores_of``."""
        return self.scores_of([(keypoint, keypoint_score)], img_shape, num_clips)[0]

    def scores_of(
        self, samples: Sequence[tuple[Array, Array | None]], img_shape: tuple[int, int] | None, num_clips: int
    ) -> Array:
        """Fused scores of several samples, which go through the networks together.

        Args:
            samples: N of (keypoint, keypoint_score), as for ``clips.prepare_clips``.
            img_shape, num_clips: as there.

        Returns:
            (N, classes scored) float64, sum 1: the weighted mean over networks of ``Member.scores_of``.
        """
        import torch

        settings = [member.checkpoint.clips for member in self.members]
        longest = max(each.clip_len for each in settings)
        at_once = max(1, FRAMES_AT_ONCE // longest) if self.device == "cpu" else CLIPS_AT_ONCE_ON_GPU
        step = max(1, at_once // num_clips)
        logits: list[list[Any]] = [[] for _ in settings]
        with torch.inference_mode():
            for k in range(0, len(samples), step):
                parts = (_prepared(sample, img_shape, settings, num_clips) for sample in samples[k : k + step])
                prepared = zip(*parts, strict=True)
                for network, clips, found in zip(self.networks, prepared, logits, strict=True):
                    for batch in torch.from_numpy(np.concatenate(clips)).split(at_once):
                        found.append(network(batch.to(self.device))[:, self.scored])
        total = np.zeros((len(samples), len(self.scored)))
        for member, found in zip(self.members, logits, strict=True):
            scores = member.scores_of(torch.cat(found).cpu().double().numpy().reshape(len(samples), num_clips, -1))
            if not np.isfinite(scores).all():
                raise SkelactError(f"{member.name}: its scores are no numbers: the weights or the poses are damaged")
            total += member.weight * scores
        return total / total.sum(axis=1, keepdims=True)

    def check(self, sequence: PoseSequence) -> list[str]:
        """Refuse poses that the networks can't take; warn of those unlike their training data.

        Raises:
            SkelactError: another layout, or 2D for 3D.
        """
        from_video = "pose_model" in sequence.provenance
        warnings = []
        for member in self.members:
            if from_video:
                check_takes_video(member.name, member.checkpoint.clips)
            trained = member.checkpoint.provenance
            if not from_video or "pose_model" not in trained:
                continue
            if trained["pose_model"] != sequence.provenance["pose_model"]:
                warnings.append(
                    f"{member.name} was trained on poses of {trained['pose_model']}, these are of "
                    f"{sequence.provenance['pose_model']}: expect lower accuracy and scores"
                )
            height, width = trained.get("img_shape") or sequence.info.img_shape
            ratio = (sequence.info.img_shape[1] / sequence.info.img_shape[0]) / (width / height)
            if max(ratio, 1 / ratio) > ASPECT_RATIO_TOLERANCE:
                warnings.append(
                    f"{member.name} was trained on pictures of {width} x {height}, this one has "
                    f"{sequence.info.img_shape[1]} x {sequence.info.img_shape[0]}: another aspect ratio"
                )
        return list(dict.fromkeys(warnings))

    def check_layout(self, path: Path, told: str | None) -> None:
        """Refuse a pickle that tells another layout."""
        for member in self.members:
            try:
                check_layout(told, member.checkpoint.clips)
            except SkelactError as error:
                raise SkelactError(f"{path}: {member.name}: {error}") from None

    def check_sample(self, path: Path, sample: Annotation) -> None:
        """Refuse a pickle's sample of another layout or dimension; its name stands in the error."""
        for member in self.members:
            try:
                check_shape(sample.keypoint.shape, member.checkpoint.clips)
            except SkelactError as error:
                raise SkelactError(f"{path}: sample {sample.frame_dir}: {member.name}: {error}") from None

    def describe(self) -> list[dict[str, Any]]:
        """What the JSON says of each network."""
        return [
            {
                "name": member.name,
                "file": member.path.name,
                "sha256": sha256_of(member.path),
                "stream": member.checkpoint.clips.stream,
                "layout": member.checkpoint.clips.layout.name,
                "num_classes": len(self.class_names),
                "fusion_weight": member.weight,
                "temperature": member.temperature,
                "energy_limit": member.energy_limit,
                "provenance": member.checkpoint.provenance,
            }
            for member in self.members
        ]


def checked_fusion_weights(weights: Sequence[float] | None, count: int, what: str) -> list[float]:
    """The weights of so many models or dumps; equal ones for None.

    Raises:
        SkelactError: there are more or fewer, or they are no weights.
    """
    if weights is None:
        return [1.0] * count
    for weight in weights:
        check_numbers(fusion_weights=weight)
    if len(weights) != count:
        raise SkelactError(f"fusion weights: expected {count}, one a {what}, found {len(weights)}")
    if not sum(weights):
        raise SkelactError("fusion weights: expected one above 0, found none")
    return list(weights)


def _prepared(
    sample: tuple[Array, Array | None],
    img_shape: tuple[int, int] | None,
    settings: Sequence[ClipSettings],
    num_clips: int,
) -> list[Array]:
    """The clips of one sample for each network."""
    if len({replace(each, stream="joint") for each in settings}) == 1:
        return list(prepare_streams(*sample, img_shape, settings, num_clips))
    return [prepare_clips(*sample, img_shape, each, num_clips) for each in settings]


def check_takes_video(name: str, clips: ClipSettings) -> None:
    """Refuse networks that can't use what a video gives."""
    if clips.dims == 3:
        raise SkelactError(
            f"{name} takes 3D skeletons ({clips.layout.num_joints} joints in metres), but a video gives 2D poses; "
            "take a 2D model, such as ntu60-2d-joint, or predict on a pickle of 3D skeletons"
        )
    if clips.layout.joints != COCO.joints:
        raise SkelactError(
            f"{name} takes layout {clips.layout.name!r} ({clips.layout.num_joints} joints), but the pose model gives "
            f"{COCO.num_joints} COCO keypoints; take a model for layout 'coco' or predict on a pickle of its layout"
        )


def _member(name: str, path: Path, checkpoint: Checkpoint, weight: float) -> Member:
    try:
        temperature, threshold = temperature_of(checkpoint.metrics), threshold_of(checkpoint.metrics)
        energy_limit = energy_limit_of(checkpoint.metrics)
    except SkelactError as error:
        raise SkelactError(f"{name}: {error}") from None
    return Member(name, path, checkpoint, weight, temperature, threshold, energy_limit)


def _for_prediction(checkpoint: Checkpoint) -> nn.Module:
    network: nn.Module = checkpoint.build()
    return fold(network) if isinstance(network, STGCNPP) else network


def _load_member(
    path: Path,
    published: PublishedModel | None,
    stream: str | None,
    layout: Layout | None,
    class_names: tuple[str, ...] | None,
) -> Checkpoint:
    if published is None:
        load = load_exported if is_exported(path) else load_checkpoint
        return load(path, stream, layout, class_names)
    checkpoint = load_checkpoint(path, published.stream, layout, class_names or published.class_names)
    provenance: dict[str, Any] = {"source": published.url, "dataset": "NTU RGB+D 60 xsub", "top1": published.top1}
    if checkpoint.clips.dims == 2:
        provenance.update(NTU60_2D_TRAINING)
    return replace(checkpoint, provenance=provenance)


def inspect_checkpoint(
    model: str | Path, stream: str | None = None, layout: Layout | str | Path | None = None
) -> list[dict[str, Any]]:
    """What is in a checkpoint, or in each of a fused name: shape, classes, provenance, parameters, operations.

        print(skelact.inspect_checkpoint("skelact-daily")[0]["class_names"])

    Args:
        model: name of ``skelact weights list``, checkpoint or export.
        stream, layout: as for ``load_checkpoint``.

    Raises:
        SkelactError: it is missing or refused.
    """
    reports = []
    for found in resolve(model):
        checkpoint = _load_member(found.path, found.published, stream, as_layout(layout), None)
        clips = checkpoint.clips
        network = STGCNPP(checkpoint.model, clips.layout.adjacency())  # without the weights, which exports hide
        reports.append(
            {
                "file": found.path.name,
                "layout": clips.layout.name,
                "num_joints": clips.layout.num_joints,
                "dims": clips.dims,
                "stream": clips.stream,
                "num_person": clips.num_person,
                "clip_len": clips.clip_len,
                "in_channels": clips.in_channels,
                "channels": checkpoint.model.channels,
                "strides": checkpoint.model.strides,
                "class_names": checkpoint.class_names,
                "parameters": count_parameters(network),
                "operations": count_operations(
                    network, (clips.num_person, clips.clip_len, clips.layout.num_joints, clips.in_channels)
                ),
                "provenance": checkpoint.provenance,
                "metrics": checkpoint.metrics,
            }
        )
    return reports


def _class_indices(class_names: tuple[str, ...], classes: str | Sequence[str] | None) -> list[int]:
    if not classes:
        return list(range(len(class_names)))
    if isinstance(classes, str):
        classes = [classes]
    indices = {name: find_class(str(name), class_names) for name in classes}
    for name, index in indices.items():
        if index is None:
            raise SkelactError(f"class {name!r} is none of the model's {len(class_names)}: {', '.join(class_names)}")
    return sorted({index for index in indices.values() if index is not None})


def find_class(name: str, class_names: Sequence[str]) -> int | None:
    """The index of a class by its name; case and spaces around it count only where they tell two apart."""
    if name in class_names:
        return class_names.index(name)
    found = [k for k, each in enumerate(class_names) if each.strip().lower() == name.strip().lower()]
    return found[0] if len(found) == 1 else None
