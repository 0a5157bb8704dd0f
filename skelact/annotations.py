"""The annotation pickle of PYSKL and mmaction2: one dict a sample, read without running anything."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from tqdm import tqdm

from skelact.errors import SkelactError
from skelact.files import atomic_path, cache_folder, sha256_of
from skelact.hollow import StoredArray, StoredFile, Unusual, load_hollow, load_plain
from skelact.ranges import RANGES
from skelact.skeleton import layout_of_joints
from skelact.structures import Array
from skelact.unpickling import load_pickle, pickle_errors

logger = logging.getLogger("skelact")

PICKLE_FPS = 30.0  # where a pickle does not tell
MAX_CLASSES = 1 << 13  # more than the field's largest vocabularies; beyond, a label is no class index but a mistake
MAX_NOTHING = 1 << 16  # frames, joints or persons of an array that holds no number
SMALL = 64 << 20  # bytes; files up to here are loaded as a whole
_INDEX_VERSION = 2


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


class Header(NamedTuple):
    """What is known of a sample without reading its arrays.

    Attributes:
        shape: of its keypoints, (M, T, V, C).
        fps: frames per second, where the file tells.
    """

    frame_dir: str
    label: int | None
    img_shape: tuple[int, int] | None
    shape: tuple[int, ...]
    fps: float | None = None


def fps_of(extra: Mapping[str, Any]) -> float | None:
    """The frame rate that a sample tells; None where it tells none, or one that is none."""
    fps: Any = extra.get("fps")
    return float(fps) if fps in RANGES["fps"] else None


@dataclass(frozen=True)
class AnnotationSet:
    """A dataset.

    Attributes:
        annotations: its samples.
        split: names of the samples in each split.
        class_names: one for each label; None where the file has none.
        layout: name of the joint layout, told by the file or else by the number of joints; None if neither tells.
        provenance: what made it.
        dtype: of the keypoints in the file; in memory they are float32.
        layout_guessed: whether only the number of joints told the layout.
    """

    annotations: Sequence[Annotation]
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    layout: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    layout_guessed: bool = False

    def headers(self) -> list[Header]:
        """Names, labels and shapes of all samples, without reading them."""
        if isinstance(self.annotations, StoredAnnotations):
            return self.annotations.headers()
        return [Header(a.frame_dir, a.label, a.img_shape, a.keypoint.shape, fps_of(a.extra)) for a in self.annotations]

    def indices(self, split: str) -> list[int]:
        """Which samples are in a split; names that no sample has are told in a warning.

        Raises:
            SkelactError: there is no such split, or none of its samples.
        """
        if split not in self.split:
            found = ", ".join(self.split) or "none"
            raise SkelactError(f"split {split!r}: expected one of the dataset's splits, found {found}")
        wanted = set(self.split[split])
        names = [header.frame_dir for header in self.headers()]
        missing = wanted.difference(names)
        if missing == wanted and wanted:
            raise SkelactError(
                f"split {split!r}: expected names of samples, found {len(missing)} that no sample has, "
                f"such as {min(missing)}"
            )
        if missing:
            told = "split %r: no sample has %d of its %d names, such as %s; the others count"
            logger.warning(told, split, len(missing), len(wanted), min(missing))
        return [k for k, name in enumerate(names) if name in wanted]


class _Row(NamedTuple):
    """A sample; its long arrays are ``StoredArray``s in plain types (``to_row``)."""

    frame_dir: str
    label: int | None
    img_shape: tuple[int, int] | None
    arrays: dict[str, Any]
    extra: dict[str, Any]


class StoredAnnotations(Sequence[Annotation]):
    """Samples that are read from their pickle when they are asked for; copies in other processes do the same.

    Args:
        file: the pickle.
        rows: where in it the samples are.
    """

    def __init__(self, file: StoredFile, rows: Sequence[_Row]) -> None:
        self._file, self._rows = file, rows
        self._headers: list[Header] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_headers": None}

    def __len__(self) -> int:
        return len(self._rows)

    def headers(self) -> list[Header]:
        """As ``AnnotationSet.headers``."""
        if self._headers is None:
            shapes = (row.arrays["keypoint"] for row in self._rows)
            with _collector_paused():
                self._headers = [
                    Header(
                        row.frame_dir,
                        row.label,
                        row.img_shape,
                        array[0] if isinstance(array, tuple) else array.shape,
                        fps_of(row.extra),
                    )
                    for row, array in zip(self._rows, shapes, strict=True)
                ]
        return self._headers

    @overload
    def __getitem__(self, index: int) -> Annotation: ...
    @overload
    def __getitem__(self, index: slice) -> StoredAnnotations: ...
    def __getitem__(self, index: int | slice) -> Annotation | StoredAnnotations:
        if isinstance(index, slice):
            return StoredAnnotations(self._file, self._rows[index])
        row = self._rows[index]
        arrays = {key: self._array(range(len(self))[index], row, key) for key in row.arrays}
        keypoint, score = arrays.pop("keypoint"), arrays.pop("keypoint_score", None)
        with pickle_errors(self._file.path):
            extra = {**self._file.resolve(row.extra), **arrays}
        return Annotation(row.frame_dir, keypoint, score, row.img_shape, row.label, extra)

    def _array(self, index: int, row: _Row, key: str) -> Array:
        array = row.arrays[key]
        if isinstance(array, tuple):
            array = StoredArray.from_row(array)
        if isinstance(array, StoredArray):
            try:
                array = self._file.read(array)
            except ValueError as error:
                raise _wrong(self._file.path, index, row.frame_dir, key, "a whole array", error) from None
        if key in ("keypoint", "keypoint_score"):
            return _floats(self._file.path, index, row.frame_dir, key, array)
        return array.copy()


def save_annotations(dataset: AnnotationSet, path: str | Path, half: bool = False, progress: bool = False) -> None:
    """Write a dataset as PYSKL and mmaction2 read it, all or nothing.

    Args:
        dataset: to write.
        path: of the pickle.
        half: float16 on disk, as the published files are: half the size, and joints are rounded to 1 px above 1024
            and to 2 px above 2048.
        progress: draw a bar on stderr, if that is a terminal.
    """
    dtype = np.float16 if half else np.float32
    bar = tqdm(dataset.annotations, desc=Path(path).name, unit=" samples", disable=None if progress else True)
    samples = _Samples(bar, dtype)
    content: dict[str, Any] = {
        "split": {name: list(names) for name, names in dataset.split.items()},
        "annotations": list(samples) if isinstance(dataset.annotations, list | tuple) else samples,
    }
    if dataset.class_names is not None:
        content["class_names"] = list(dataset.class_names)
    if dataset.layout is not None and not dataset.layout_guessed:
        content["layout"] = dataset.layout
    if dataset.provenance:
        content["provenance"] = dict(dataset.provenance)
    with atomic_path(path) as part, part.open("wb") as file, _for_numpy_1():
        pickler = pickle.Pickler(file, protocol=4)
        pickler.fast = content["annotations"] is samples  # remember nothing, or all arrays stay in memory
        pickler.dump(content)


@contextmanager
def _for_numpy_1() -> Iterator[None]:
    """Pickled arrays name the module that makes them as NumPy 1 calls it, on which PYSKL is; NumPy 2 knows it too."""
    makers = [value.__reduce__()[0] for value in (np.zeros(0), np.float32(0))]
    modules = [maker.__module__ for maker in makers]
    for maker in makers:
        maker.__module__ = "numpy.core.multiarray"
    try:
        yield
    finally:
        for maker, module in zip(makers, modules, strict=True):
            maker.__module__ = module


class _Samples:
    """Pickled as a list, of which one sample after the other is made and forgotten."""

    def __init__(self, annotations: Iterable[Annotation], dtype: type) -> None:
        self._annotations, self._dtype = annotations, dtype

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (_to_dict(annotation, self._dtype) for annotation in self._annotations)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (), None, iter(self)


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
    return _dataset(path, load_pickle(path))


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
    with _collector_paused():
        return _open(Path(path).absolute())


def dataset_sha256(path: str | Path, small: int = SMALL) -> str:
    """The sha256, in hex, of a dataset's file; that of a large one is kept with its index.

    Args:
        path, small: as for ``open_annotations``.
    """
    if not Path(path).is_file() or Path(path).stat().st_size <= small:
        return sha256_of(path)
    kept = _index_path(Path(path).absolute()).with_suffix(".sha256")
    with suppress(OSError, UnicodeError):
        found = kept.read_text("ascii")
        if re.fullmatch("[0-9a-f]{64}", found):
            return found
    found = sha256_of(path)
    with suppress(OSError, SkelactError), atomic_path(kept) as part:
        part.write_text(found, "ascii")
    return found


# --- the index of a large file ------------------------------------------------------------------------------------


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Let Python not look for garbage among a million new objects, again and again, when there is none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _open(path: Path) -> AnnotationSet:
    index = _index_path(path)
    with suppress(SkelactError):  # there is none yet, or it is damaged
        return _load_index(index, path)
    try:
        content, file = load_hollow(path)
    except Unusual as reason:
        logger.warning("%s: loaded as a whole, for it holds %s", path, reason)
        return load_annotations(path)
    with pickle_errors(path):  # small arrays are made here
        dataset = _dataset(path, content, file)
        rows = [_to_row(annotation, file) for annotation in dataset.annotations]
    dataset = replace(dataset, annotations=StoredAnnotations(file, rows))
    _save_index(index, dataset, file, rows)
    return dataset


def _to_row(annotation: Annotation, file: StoredFile) -> _Row:
    values = {"keypoint": annotation.keypoint, "keypoint_score": annotation.keypoint_score, **annotation.extra}
    arrays: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, StoredArray):
            arrays[key] = value.to_row()
        elif key not in annotation.extra and value is not None:
            arrays[key] = value
    extra = {key: value for key, value in annotation.extra.items() if key not in arrays}
    if any(isinstance(value, dict | list | tuple) for value in extra.values()):
        extra = file.resolve(extra)
    return _Row(annotation.frame_dir, annotation.label, annotation.img_shape, arrays, extra)


def _index_path(path: Path) -> Path:
    """In the cache, by path, size and time of the last change."""
    status = path.stat()
    key = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return cache_folder() / "datasets" / f"{key}-{status.st_size}-{status.st_mtime_ns}.index"


def _load_index(index: Path, path: Path) -> AnnotationSet:
    with pickle_errors(index):  # a wrong shape is one too
        version, size, mtime_ns, rows, *others = load_plain(index)
        if version != _INDEX_VERSION:
            raise ValueError(f"version {version}")
        file = StoredFile(str(path), size, mtime_ns)
        return AnnotationSet(StoredAnnotations(file, [_Row(*row) for row in rows]), *file.resolve(others))


def _save_index(index: Path, dataset: AnnotationSet, file: StoredFile, rows: Sequence[_Row]) -> None:
    """Keep it for the next time, and drop older ones of the same file; a cache that can't be written is no error."""
    others = (
        *(dict(dataset.split), dataset.class_names, dataset.layout, dict(dataset.provenance)),
        *(dataset.dtype, dataset.layout_guessed),
    )
    content = (_INDEX_VERSION, file.size, file.mtime_ns, [tuple(row) for row in rows], *others)
    try:
        with atomic_path(index) as part, part.open("wb") as opened:
            pickle.dump(content, opened, protocol=4)
        for old in index.parent.glob(f"{index.name.partition('-')[0]}-*"):
            if old.stem != index.stem:
                old.unlink(missing_ok=True)
    except (SkelactError, OSError) as error:
        logger.warning("%s; every start will go over the dataset anew (SKELACT_CACHE names another folder)", error)


# --- one sample ---------------------------------------------------------------------------------------------------


def _dataset(path: str | Path, content: Any, file: StoredFile | None = None) -> AnnotationSet:
    """What a pickle holds; arrays that stay in a file are still what stands for them."""
    split: dict[str, tuple[str, ...]] = {}
    class_names = layout = None
    provenance: Mapping[str, Any] = {}
    samples = content
    if isinstance(content, Mapping):
        samples = content.get("annotations")
        others = {key: value for key, value in content.items() if key != "annotations"}
        others = file.resolve(others) if file else others
        try:
            split = {_name(name): tuple(map(_name, names)) for name, names in (others.get("split") or {}).items()}
            names = others.get("class_names")
            if isinstance(names, str):
                raise TypeError(f"the text {names!r}")
            if isinstance(names, Mapping):  # of indices
                names = [names[k] for k in range(len(names))]
            class_names = tuple(map(_name, () if names is None else names)) or None
        except KeyError as error:
            raise SkelactError(f'{path}: expected "class_names" by index from 0 on, found none for {error}') from None
        except (AttributeError, TypeError, ValueError) as error:
            raise SkelactError(
                f'{path}: expected "split" as {{name: [frame_dir, ...]}} and "class_names" as a list, found {error}'
            ) from None
        if class_names and len(class_names) > MAX_CLASSES:
            raise SkelactError(f'{path}: expected "class_names" of {MAX_CLASSES} at most, found {len(class_names)}')
        layout = str(others["layout"]) if others.get("layout") else None
        provenance = others.get("provenance") or {}
        if not isinstance(provenance, Mapping):
            raise SkelactError(f'{path}: expected "provenance" as a dict, found a {type(provenance).__name__}')
    if not isinstance(samples, list) or not all(isinstance(sample, Mapping) for sample in samples):
        found = f"a dict with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise SkelactError(
            f'{path}: expected {{"split": ..., "annotations": [{{"keypoint": ...}}, ...]}} or a list of annotations, '
            f"found {found or f'a {type(content).__name__}'}"
        )
    if not samples:
        raise SkelactError(f"{path}: expected annotations, found an empty list")
    annotations = tuple(_read(path, k, sample, file) for k, sample in enumerate(samples))
    guessed = layout is None
    if guessed:
        guess = layout_of_joints(annotations[0].keypoint.shape[2])
        layout = guess.name if guess else None
    dtypes = sorted({dtype.name for dtype in {sample["keypoint"].dtype for sample in samples}})
    return AnnotationSet(annotations, split, class_names, layout, provenance, ", ".join(dtypes), guessed)


def _wrong(path: str | Path, index: int, name: str, what: str, expected: str, found: object) -> SkelactError:
    return SkelactError(f"{path}: sample {index} ({name}), field {what!r}: expected {expected}, found {found}")


_ARRAYS = (np.ndarray, StoredArray)
_KNOWN = frozenset(("frame_dir", "keypoint", "keypoint_score", "img_shape", "original_shape", "total_frames", "label"))


def _read(path: str | Path, index: int, sample: Mapping[str, Any], file: StoredFile | None) -> Annotation:
    """One sample, checked; the numbers in arrays that stay in the file are checked when they are read."""
    if file and any(type(value) is StoredArray and type(value.data) is bytes for value in sample.values()):
        # Small arrays need not stand for themselves.
        sample = {
            key: file.resolve(value) if type(value) is StoredArray and type(value.data) is bytes else value
            for key, value in sample.items()
        }
    try:
        name = _name(sample.get("frame_dir", sample.get("filename", index)))
    except TypeError as error:
        raise _wrong(path, index, "?", "frame_dir", "a name", error) from None

    def wrong(what: str, expected: str, found: object) -> SkelactError:
        return _wrong(path, index, name, what, expected, found)

    keypoint = sample.get("keypoint")
    if not isinstance(keypoint, _ARRAYS) or keypoint.ndim != 4 or keypoint.dtype.kind not in "fiu":
        found = keypoint.shape if isinstance(keypoint, _ARRAYS) else type(keypoint).__name__
        if not sample.keys().isdisjoint(("pred_score", "pred_scores")):
            found = "scores, as in a dump; skelact fuse takes it"
        if not sample.keys().isdisjoint(("frame_inds", "raw_file")):
            found = f"{found}, as of PYSKL's Kinetics: poses frame by frame or in files of their own are not read"
        raise wrong("keypoint", "an array (persons, frames, joints, 2 or 3)", found)
    if keypoint.shape[-1] not in (2, 3):
        raise wrong("keypoint", "2 or 3 coordinates", keypoint.shape)
    if 0 in keypoint.shape and max(keypoint.shape) > MAX_NOTHING:  # so much of nothing costs no bytes in the file
        raise wrong("keypoint", "poses", keypoint.shape)
    if isinstance(keypoint, np.ndarray):
        keypoint = _floats(path, index, name, "keypoint", keypoint)
    score = sample.get("keypoint_score")
    if score is not None:
        if not isinstance(score, _ARRAYS) or score.shape != keypoint.shape[:3]:
            raise wrong("keypoint_score", f"shape {keypoint.shape[:3]}", getattr(score, "shape", type(score).__name__))
        if score.dtype.kind not in "fiu":
            raise wrong("keypoint_score", "finite numbers", score.dtype)
        if isinstance(score, np.ndarray):
            score = _floats(path, index, name, "keypoint_score", score)
    img_shape = sample.get("img_shape", sample.get("original_shape"))
    if img_shape is not None and not _is_size(img_shape):
        sides = np.ravel(img_shape)
        if len(sides) != 2 or sides.dtype.kind not in "fiu" or not (np.isfinite(sides) & (sides >= 1)).all():
            raise wrong("img_shape", "(height, width)", img_shape)
        img_shape = tuple(int(side) for side in sides)
    label = sample.get("label")
    if label is not None and type(label) is not int:
        if (
            (isinstance(label, list | tuple) and len(label) != 1)
            or np.size(label) != 1
            or np.asarray(label).dtype.kind not in "iu"
        ):
            raise wrong("label", "a class index", repr(label))
        label = int(np.ravel(label)[0])
    if label is not None and label >= MAX_CLASSES:
        raise wrong("label", f"a class index below {MAX_CLASSES}", label)
    return Annotation(
        frame_dir=name,
        keypoint=keypoint,  # type: ignore[arg-type]  # or what stands for one
        keypoint_score=score,  # type: ignore[arg-type]
        img_shape=img_shape,
        label=label,
        extra={str(key): value for key, value in sample.items() if key not in _KNOWN},
    )


def _name(value: object) -> str:
    """A name as text; to write out a list within lists, which may be a small file, can take for ever."""
    if not isinstance(value, str | bytes | int | float | np.generic | None):
        raise TypeError(f"a {type(value).__name__}")
    return str(value)


def _is_size(img_shape: Any) -> bool:
    """Whether it is what it should be, as it is nearly always."""
    if type(img_shape) is not tuple or len(img_shape) != 2:
        return False
    height, width = img_shape
    return type(height) is int and type(width) is int and height > 0 and width > 0


def _floats(path: str | Path, index: int, name: str, field_name: str, values: Array) -> Array:
    """In float32, for float16 on disk is too coarse to compute with."""
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise _wrong(path, index, name, field_name, "finite numbers", "NaN or infinity")
    return values
