"""The annotation pickle of PYSKL and mmaction2: one dict a sample, read without running anything."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skelact.errors import SkelactError
from skelact.files import atomic_path
from skelact.structures import Array
from skelact.unpickling import load_pickle

PICKLE_SUFFIXES = (".pkl", ".pickle")


@dataclass(frozen=True)
class Annotation:
    """One sample.

    Attributes:
        frame_dir: its name.
        keypoint: (M, T, V, 2) pixels or (M, T, V, 3) metres, float32.
        keypoint_score: (M, T, V) in [0, 1]; None where the file has none.
        img_shape: (H, W) pixels; None where the file has none.
        label: class index; None where the file has none.
        extra: whatever else the file says of it.
    """

    frame_dir: str
    keypoint: Array
    keypoint_score: Array | None = None
    img_shape: tuple[int, int] | None = None
    label: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnnotationSet:
    """A dataset.

    Attributes:
        annotations: its samples.
        split: names of the samples in each split.
        class_names: one for each label; None where the file has none.
        layout: name of the joint layout; None where the file does not tell.
        provenance: what made it.
    """

    annotations: Sequence[Annotation]
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    layout: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def save_annotations(dataset: AnnotationSet, path: str | Path, half: bool = False) -> None:
    """Write a dataset as PYSKL and mmaction2 read it, all or nothing.

    Args:
        dataset: to write.
        path: of the pickle.
        half: float16 on disk, as the published files are: half the size, and joints are rounded to 1 px above 1024
            and to 2 px above 2048.
    """
    dtype = np.float16 if half else np.float32
    content: dict[str, Any] = {
        "split": {name: list(names) for name, names in dataset.split.items()},
        "annotations": [_to_dict(annotation, dtype) for annotation in dataset.annotations],
    }
    if dataset.class_names is not None:
        content["class_names"] = list(dataset.class_names)
    if dataset.layout is not None:
        content["layout"] = dataset.layout
    if dataset.provenance:
        content["provenance"] = dict(dataset.provenance)
    with atomic_path(path) as part, part.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def _to_dict(annotation: Annotation, dtype: type) -> dict[str, Any]:
    """One sample as the field's pickles have it."""
    sample: dict[str, Any] = {"frame_dir": annotation.frame_dir}
    if annotation.label is not None:
        sample["label"] = annotation.label
    if annotation.img_shape is not None:
        sample["img_shape"] = sample["original_shape"] = annotation.img_shape
    sample["total_frames"] = annotation.keypoint.shape[1]
    sample["keypoint"] = annotation.keypoint.astype(dtype)
    if annotation.keypoint_score is not None:
        sample["keypoint_score"] = annotation.keypoint_score.astype(dtype)
    return {**annotation.extra, **sample}


def load_annotations(path: str | Path) -> AnnotationSet:
    """Read a dataset, ``{"split": ..., "annotations": [...]}`` or a bare list of annotations.

    Raises:
        SkelactError: the file is no such pickle; the message names the sample and the field.
    """
    content = load_pickle(path)
    split: dict[str, tuple[str, ...]] = {}
    class_names = layout = None
    provenance: Mapping[str, Any] = {}
    samples = content
    if isinstance(content, Mapping):
        samples = content.get("annotations")
        try:
            split = {str(name): tuple(map(str, names)) for name, names in content.get("split", {}).items()}
            class_names = tuple(map(str, content.get("class_names") or ())) or None
        except (AttributeError, TypeError, ValueError) as error:
            raise SkelactError(
                f'{path}: expected "split" as {{name: [frame_dir, ...]}} and "class_names" as a list, found {error}'
            ) from None
        layout = str(content["layout"]) if content.get("layout") else None
        provenance = content.get("provenance") or {}
    if not isinstance(samples, list) or not all(isinstance(sample, Mapping) for sample in samples):
        found = f"a dict with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise SkelactError(
            f'{path}: expected {{"split": ..., "annotations": [{{"keypoint": ...}}, ...]}} or a list of annotations, '
            f"found {found or f'a {type(content).__name__}'}"
        )
    if not samples:
        raise SkelactError(f"{path}: expected annotations, found an empty list")
    annotations = tuple(_read(path, k, sample) for k, sample in enumerate(samples))
    return AnnotationSet(annotations, split, class_names, layout, provenance)


def _read(path: str | Path, index: int, sample: Mapping[str, Any]) -> Annotation:
    name = str(sample.get("frame_dir", sample.get("filename", index)))

    def wrong(what: str, expected: str, found: object) -> SkelactError:
        return SkelactError(f"{path}: sample {index} ({name}), field {what!r}: expected {expected}, found {found}")

    keypoint = sample.get("keypoint")
    if not isinstance(keypoint, np.ndarray) or keypoint.ndim != 4 or keypoint.dtype.kind not in "fiu":
        found = keypoint.shape if isinstance(keypoint, np.ndarray) else type(keypoint).__name__
        raise wrong("keypoint", "an array (persons, frames, joints, 2 or 3)", found)
    if keypoint.shape[-1] not in (2, 3):
        raise wrong("keypoint", "2 or 3 coordinates", keypoint.shape)
    keypoint = keypoint.astype(np.float32)  # float16 on disk is too coarse to compute with
    if not np.isfinite(keypoint).all():
        raise wrong("keypoint", "finite numbers", "NaN or infinity")
    score = sample.get("keypoint_score")
    if score is not None:
        if not isinstance(score, np.ndarray) or score.shape != keypoint.shape[:3]:
            raise wrong("keypoint_score", f"shape {keypoint.shape[:3]}", getattr(score, "shape", type(score).__name__))
        if score.dtype.kind not in "fiu" or not np.isfinite(score).all():
            raise wrong("keypoint_score", "finite numbers", f"{score.dtype}, NaN or infinity")
        score = score.astype(np.float32)
    img_shape = sample.get("img_shape", sample.get("original_shape"))
    if img_shape is not None:
        sides = np.ravel(img_shape)
        if len(sides) != 2 or sides.dtype.kind not in "fiu" or not (np.isfinite(sides) & (sides > 0)).all():
            raise wrong("img_shape", "(height, width)", img_shape)
        img_shape = tuple(int(side) for side in sides)
    label = sample.get("label")
    if label is not None:
        if np.size(label) != 1 or np.asarray(label).dtype.kind not in "iu":
            raise wrong("label", "a class index", repr(label))
        label = int(np.ravel(label)[0])
    known = {"frame_dir", "keypoint", "keypoint_score", "img_shape", "original_shape", "total_frames", "label"}
    return Annotation(
        frame_dir=name,
        keypoint=keypoint,
        keypoint_score=score,
        img_shape=img_shape,
        label=label,
        extra={str(key): value for key, value in sample.items() if key not in known},
    )
