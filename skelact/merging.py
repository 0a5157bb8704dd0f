"""Several datasets as one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, overload

import numpy as np

import skelact
from skelact.annotations import Annotation, AnnotationSet, open_annotations, save_annotations
from skelact.errors import SkelactError
from skelact.files import check_writable

logger = logging.getLogger("skelact")

NAMED = 3  # samples that an error names


def merge(
    sources: Iterable[str | Path],
    out: str | Path | None = None,
    half: bool | None = None,
    *,
    progress: bool = True,
    command: Sequence[str] = (),
) -> AnnotationSet:
    """Join datasets: their samples, splits and classes.

        skelact.merge(["mine.pkl", "yours.pkl"], "ours.pkl")

    Classes are the same if their names are. A sample that several datasets have is taken once.

    Args:
        sources: two annotation pickles or more.
        out: where to write the result; None writes nothing.
        half: float16 on disk; None if all sources are so.
        progress: draw a bar on stderr, if that is a terminal.
        command: the command line, for the provenance.

    Returns:
        The joined dataset, whose samples are read from the sources when they are asked for.

    Raises:
        SkelactError: a source can't be read, or they don't fit: other layouts, classes without names, or different
            samples of the same name.
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if len(sources) < 2:
        raise SkelactError(f"merge: expected two datasets or more, found {len(sources)}")
    if out is not None:
        check_writable(out, sources)
    datasets = {str(source): open_annotations(source) for source in sources}
    if len({Path(source).resolve() for source in sources}) < len(sources):
        raise SkelactError("merge: expected different files, found one twice")
    _check_layouts(datasets)
    class_names, labels = _join_classes(datasets)
    samples = _join_samples(datasets, labels)
    halves = all(dataset.dtype == "float16" for dataset in datasets.values())
    first = next(iter(datasets.values()))
    merged = AnnotationSet(
        annotations=samples,
        split=_join_splits(datasets),
        class_names=class_names,
        layout=first.layout,
        provenance=_join_provenance(datasets, command),
        dtype="float16" if (halves if half is None else half) else "float32",
        layout_guessed=all(dataset.layout_guessed for dataset in datasets.values()),
    )
    if out is not None:
        save_annotations(merged, out, merged.dtype == "float16", progress)
    return merged


class JoinedAnnotations(Sequence[Annotation]):
    """Samples of several datasets under new labels.

    Args:
        samples: for each, the annotations it is from, its index there and the new labels by old ones (None keeps them).
    """

    def __init__(self, samples: Sequence[tuple[Sequence[Annotation], int, Mapping[int, int] | None]]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...
    @overload
    def __getitem__(self, index: slice) -> JoinedAnnotations: ...
    def __getitem__(self, index: int | slice) -> Annotation | JoinedAnnotations:
        if isinstance(index, slice):
            return JoinedAnnotations(self._samples[index])
        annotations, k, labels = self._samples[index]
        annotation = annotations[k]
        if labels is None or annotation.label is None:
            return annotation
        return replace(annotation, label=labels[annotation.label])


def _check_layouts(datasets: Mapping[str, AnnotationSet]) -> None:
    first: tuple[str, Any] | None = None
    for source, dataset in datasets.items():
        shapes = {header.shape[2:] for header in dataset.headers()}
        if len(shapes) > 1:
            raise SkelactError(f"{source}: expected samples of one layout, found (joints, dimensions) {sorted(shapes)}")
        kind = (dataset.layout, *shapes.pop())
        if first is None:
            first = source, kind
        elif kind != first[1]:
            expected, found = (f"{name or 'unknown'} ({V} joints, {C}D)" for name, V, C in (first[1], kind))
            raise SkelactError(f"{source}: expected layout {expected}, as {first[0]} has, found {found}")


def _join_classes(
    datasets: Mapping[str, AnnotationSet],
) -> tuple[tuple[str, ...] | None, dict[str, dict[int, int] | None]]:
    """All class names, and the new labels of each dataset by old ones; None where labels stay as they are."""
    nameless = [source for source, dataset in datasets.items() if not dataset.class_names and _labels(dataset)]
    named = [source for source, dataset in datasets.items() if dataset.class_names]
    if named and nameless:
        raise SkelactError(
            f"{nameless[0]}: expected class names, since {named[0]} has them, found labels alone; "
            'add "class_names" to the dict in the pickle'
        )
    joined: dict[str, int] = {}
    labels: dict[str, dict[int, int] | None] = {}
    for source, dataset in datasets.items():
        names = dataset.class_names
        labels[source] = None
        if not names:
            continue
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SkelactError(f"{source}: expected different class names, found {twice!r} twice")
        outside = sorted(label for label in _labels(dataset) if not 0 <= label < len(names))
        if outside:
            raise SkelactError(
                f"{source}: expected labels in 0 to {len(names) - 1}, as its class names, found {outside}"
            )
        labels[source] = {label: joined.setdefault(name, len(joined)) for label, name in enumerate(names)}
    alike: dict[str, str] = {}
    for name in joined:
        if (first := alike.setdefault(name.strip().lower(), name)) != name:
            logger.warning("merge: %r and %r are two classes; rename one with: skelact convert --labels", first, name)
    return tuple(joined) or None, labels


def _labels(dataset: AnnotationSet) -> set[int]:
    return {header.label for header in dataset.headers() if header.label is not None}


def _join_samples(
    datasets: Mapping[str, AnnotationSet], labels: Mapping[str, Mapping[int, int] | None]
) -> JoinedAnnotations:
    samples: list[tuple[Sequence[Annotation], int, Mapping[int, int] | None]] = []
    known: dict[str, int] = {}
    clashes = []
    for source, dataset in datasets.items():
        names = [header.frame_dir for header in dataset.headers()]
        earlier = {name: known[name] for name in names if name in known}
        for k, name in enumerate(names):
            sample = dataset.annotations, k, labels[source]
            if name not in earlier:
                known[name] = len(samples)
                samples.append(sample)
            elif not _same(*JoinedAnnotations([samples[earlier[name]], sample])):
                clashes.append(name)
    if clashes:
        more = f" and {len(clashes) - NAMED} more" if len(clashes) > NAMED else ""
        raise SkelactError(
            f"merge: expected a name to stand for one sample, found different samples of the same name in "
            f"{' and '.join(datasets)}: {', '.join(clashes[:NAMED])}{more}; rename them (frame_dir)"
        )
    return JoinedAnnotations(samples)


def _same(one: Annotation, other: Annotation) -> bool:
    if (one.label, one.img_shape, one.extra.get("fps")) != (other.label, other.img_shape, other.extra.get("fps")):
        return False
    mine, yours = one.keypoint_score, other.keypoint_score
    if mine is None or yours is None:
        return mine is yours and np.array_equal(one.keypoint, other.keypoint)
    return np.array_equal(mine, yours) and np.array_equal(one.keypoint, other.keypoint)


def _join_splits(datasets: Mapping[str, AnnotationSet]) -> dict[str, tuple[str, ...]]:
    splits: dict[str, dict[str, None]] = {}
    for source, dataset in datasets.items():
        for split, names in dataset.split.items():
            splits.setdefault(split, {}).update(dict.fromkeys(names))
        if not dataset.split and any(other.split for other in datasets.values()):
            logger.warning("%s has no splits: its samples are in none of the joined ones", source)
    for one, other in combinations(splits, 2):
        before: set[str] = set()
        for dataset in datasets.values():
            before |= {*dataset.split.get(one, ())} & {*dataset.split.get(other, ())}
        leaked = (splits[one].keys() & splits[other].keys()) - before
        if leaked:
            told = "merge: the datasets split %d samples differently: they are in both %s and %s now"
            logger.warning(told, len(leaked), one, other)
    return {split: tuple(names) for split, names in splits.items()}


def _join_provenance(datasets: Mapping[str, AnnotationSet], command: Sequence[str]) -> dict[str, Any]:
    """What all have in common, and the rest of each, such as the command that made it."""
    provenances = [dict(dataset.provenance) for dataset in datasets.values()]
    common = {
        key: value
        for key, value in provenances[0].items()
        if key != "command" and all(key in other and repr(other[key]) == repr(value) for other in provenances)
    }
    merged = [
        {"file": Path(source).name, **{key: value for key, value in provenance.items() if key not in common}}
        for source, provenance in zip(datasets, provenances, strict=True)
    ]
    return {**common, "skelact": skelact.__version__, "command": list(command), "merged": merged}
