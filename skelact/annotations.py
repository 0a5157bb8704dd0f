"""The annotation pickle of PYSKL and mmaction2: one dict a sample, read without running anything."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from skelact.errors import SkelactError
from skelact.files import atomic_path
from skelact.hollow import StoredArray, StoredFile, Unusual, load_hollow
from skelact.skeleton import layout_of_joints
from skelact.structures import Array
from skelact.unpickling import load_pickle

logger = logging.getLogger("skelact")

PICKLE_SUFFIXES = (".pkl", ".pickle")
SMALL = 64 << 20  # bytes; files up to here are loaded as a whole


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


class Shaped(Protocol):
    """An array, or what stands for one that was not read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""


class Header(Protocol):
    """What is known of a sample without reading its arrays."""

    @property
    def frame_dir(self) -> str:
        """Its name."""

    @property
    def keypoint(self) -> Shaped:
        """Of which only the shape (M, T, V, C) is known."""

    @property
    def img_shape(self) -> tuple[int, int] | None:
        """(H, W) pixels."""

    @property
    def label(self) -> int | None:
        """Class index."""


@dataclass(frozen=True)
class AnnotationSet:
    """A dataset.

    Attributes:
        annotations: its samples.
        split: names of the samples in each split.
        class_names: one for each label; None where the file has none.
        layout: name of the joint layout, as the file tells it or as the number of joints suggests; None if neither does.
        provenance: what made it.
        dtype: of the keypoints in the file; in memory they are float32.
    """

    annotations: Sequence[Annotation]
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    layout: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    @property
    def headers(self) -> Sequence[Header]:
        """Names, labels and shapes of all samples, at no cost."""
        return self.annotations.headers if isinstance(self.annotations, StoredAnnotations) else self.annotations

    def indices(self, split: str) -> list[int]:
        """Which samples are in a split.

        Raises:
            SkelactError: there is no such split, or it names samples that are not there.
        """
        if split not in self.split:
            found = ", ".join(self.split) or "none"
            raise SkelactError(f"split {split!r}: expected one of the dataset's splits, found {found}")
        wanted = set(self.split[split])
        indices = [k for k, header in enumerate(self.headers) if header.frame_dir in wanted]
        missing = wanted - {self.headers[k].frame_dir for k in indices}
        if missing:
            raise SkelactError(
                f"split {split!r}: expected names of samples, found {len(missing)} that no sample has, "
                f"such as {min(missing)}"
            )
        return indices


class StoredAnnotations(Sequence[Annotation]):
    """Samples that are read from their pickle when they are asked for; copies in other processes do the same.

    Args:
        file: the pickle.
        headers: the samples, with what stands for their arrays.
    """

    def __init__(self, file: StoredFile, headers: Sequence[Annotation]) -> None:
        self.file, self.headers = file, headers

    def __len__(self) -> int:
        return len(self.headers)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...
    @overload
    def __getitem__(self, index: slice) -> StoredAnnotations: ...
    def __getitem__(self, index: int | slice) -> Annotation | StoredAnnotations:
        if isinstance(index, slice):
            return StoredAnnotations(self.file, self.headers[index])
        header = self.headers[index]
        position = range(len(self))[index]
        arrays: dict[str, Array | None] = {}
        for name in ("keypoint", "keypoint_score"):
            stored: Any = getattr(header, name)
            try:
                arrays[name] = self.file.read(stored) if isinstance(stored, StoredArray) else stored
            except ValueError as error:
                raise _wrong(self.file.path, position, header.frame_dir, name, "whole data", str(error)) from None
        return _finite(
            self.file.path,
            position,
            Annotation(
                header.frame_dir,
                arrays["keypoint"],  # type: ignore[arg-type]
                arrays["keypoint_score"],
                header.img_shape,
                header.label,
                self.file.resolve(header.extra),
            ),
        )


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
    dataset = _dataset(path, load_pickle(path))
    annotations = tuple(_finite(path, k, annotation) for k, annotation in enumerate(dataset.annotations))
    return replace(dataset, annotations=annotations)


def open_annotations(path: str | Path, small: int = SMALL) -> AnnotationSet:
    """As ``load_annotations``, but the samples of a large file are read when they are asked for.

    They are checked for NaN only then. The dataset may be sent to other processes: what travels is the file's path and
    where in it the arrays lie.

    Args:
        path: of the pickle.
        small: files of up to so many bytes are loaded as a whole.

    Raises:
        SkelactError: as ``load_annotations``; later, if the file has been changed.
    """
    if not Path(path).is_file() or Path(path).stat().st_size <= small:
        return load_annotations(path)
    try:
        content, file = load_hollow(path)
    except Unusual as reason:
        logger.warning("%s: loaded as a whole, for it holds %s", path, reason)
        return load_annotations(path)
    dataset = _dataset(path, content, file)
    return replace(dataset, annotations=StoredAnnotations(file, dataset.annotations))


def dataset_content_hash(dataset: AnnotationSet) -> str:
    """The sha256, in hex, of what the samples, their order, the splits and the classes say.

    Two files with the same hash train alike, whatever their protocol and provenance; float16 counts as the float32
    that it becomes.
    """
    digest = hashlib.sha256()

    def add(*values: Any) -> None:
        digest.update(json.dumps(values, ensure_ascii=False).encode() + b"\n")

    add({name: list(dataset.split[name]) for name in sorted(dataset.split)}, dataset.class_names)
    for annotation in dataset.annotations:
        score = annotation.keypoint_score
        add(annotation.frame_dir, annotation.label, annotation.img_shape, annotation.keypoint.shape, score is not None)
        digest.update(annotation.keypoint.astype("<f4").tobytes())
        if score is not None:
            digest.update(score.astype("<f4").tobytes())
    return digest.hexdigest()


def _dataset(path: str | Path, content: Any, file: StoredFile | None = None) -> AnnotationSet:
    """What a pickle holds, with its samples' arrays as they are."""
    split: dict[str, tuple[str, ...]] = {}
    class_names = layout = None
    provenance: Mapping[str, Any] = {}
    samples = content
    if isinstance(content, Mapping):
        samples = content.get("annotations")
        others = {key: value for key, value in content.items() if key != "annotations"}
        others = file.resolve(others) if file else others
        try:
            split = {str(name): tuple(map(str, names)) for name, names in (others.get("split") or {}).items()}
            class_names = tuple(map(str, others.get("class_names") or ())) or None
        except (AttributeError, TypeError, ValueError) as error:
            raise SkelactError(
                f'{path}: expected "split" as {{name: [frame_dir, ...]}} and "class_names" as a list, found {error}'
            ) from None
        layout = str(others["layout"]) if others.get("layout") else None
        provenance = others.get("provenance") or {}
    if not isinstance(samples, list) or not all(isinstance(sample, Mapping) for sample in samples):
        found = f"a dict with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise SkelactError(
            f'{path}: expected {{"split": ..., "annotations": [{{"keypoint": ...}}, ...]}} or a list of annotations, '
            f"found {found or f'a {type(content).__name__}'}"
        )
    if not samples:
        raise SkelactError(f"{path}: expected annotations, found an empty list")
    annotations = tuple(_read(path, k, sample, file) for k, sample in enumerate(samples))
    if layout is None:
        guess = layout_of_joints(annotations[0].keypoint.shape[2])
        layout = guess.name if guess else None
    dtypes = sorted({str(annotation.keypoint.dtype) for annotation in annotations})
    return AnnotationSet(annotations, split, class_names, layout, provenance, ", ".join(dtypes))


def _wrong(path: str | Path, index: int, name: str, what: str, expected: str, found: object) -> SkelactError:
    return SkelactError(f"{path}: sample {index} ({name}), field {what!r}: expected {expected}, found {found}")


_KNOWN = frozenset(("frame_dir", "keypoint", "keypoint_score", "img_shape", "original_shape", "total_frames", "label"))


def _read(path: str | Path, index: int, sample: Mapping[str, Any], file: StoredFile | None) -> Annotation:
    """One sample with its arrays as they are, everything about them checked but the numbers."""
    if file:  # small arrays need not stand for themselves
        sample = {key: _unless_long(value, file) for key, value in sample.items()}
    name = str(sample.get("frame_dir", sample.get("filename", index)))

    def wrong(what: str, expected: str, found: object) -> SkelactError:
        return _wrong(path, index, name, what, expected, found)

    keypoint = sample.get("keypoint")
    if not isinstance(keypoint, np.ndarray | StoredArray) or keypoint.ndim != 4 or keypoint.dtype.kind not in "fiu":
        found = keypoint.shape if isinstance(keypoint, np.ndarray | StoredArray) else type(keypoint).__name__
        raise wrong("keypoint", "an array (persons, frames, joints, 2 or 3)", found)
    if keypoint.shape[-1] not in (2, 3):
        raise wrong("keypoint", "2 or 3 coordinates", keypoint.shape)
    score = sample.get("keypoint_score")
    if score is not None:
        if not isinstance(score, np.ndarray | StoredArray) or score.shape != keypoint.shape[:3]:
            raise wrong("keypoint_score", f"shape {keypoint.shape[:3]}", getattr(score, "shape", type(score).__name__))
        if score.dtype.kind not in "fiu":
            raise wrong("keypoint_score", "finite numbers", score.dtype)
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
    return Annotation(
        frame_dir=name,
        keypoint=keypoint,  # type: ignore[arg-type]  # or what stands for one
        keypoint_score=score,
        img_shape=img_shape,
        label=label,
        extra={str(key): value for key, value in sample.items() if key not in _KNOWN},
    )


def _unless_long(value: Any, file: StoredFile) -> Any:
    return file.resolve(value) if isinstance(value, StoredArray) and isinstance(value.data, bytes) else value


def _finite(path: str | Path, index: int, annotation: Annotation) -> Annotation:
    """The sample in float32, for float16 on disk is too coarse to compute with."""
    found: dict[str, Array] = {}
    for name in ("keypoint", "keypoint_score"):
        values = getattr(annotation, name)
        if values is not None:
            found[name] = values.astype(np.float32)
            if not np.isfinite(found[name]).all():
                raise _wrong(path, index, annotation.frame_dir, name, "finite numbers", "NaN or infinity")
    return replace(annotation, **found)  # type: ignore[arg-type]
