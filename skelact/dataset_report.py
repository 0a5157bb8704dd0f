"""What is in a dataset, and what of it will hurt training."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from skelact.annotations import Annotation, AnnotationSet, fps_of, open_annotations
from skelact.clips import ASPECT_RATIO_TOLERANCE
from skelact.plots import picture
from skelact.skeleton import LAYOUTS, Layout, as_layout
from skelact.structures import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMBALANCE = 10  # times the smallest class
FAR_IN_METRES = 50.0
USUAL_SCORES = -0.5, 1.5  # heatmaps go a little beyond [0, 1]
NORMALISED = 10  # pixels; no picture's poses stay below
MOST_NAMED = 500  # classes in a picture, which has a line for each
PANEL = 4  # inches that one of the smaller diagrams is high at most
NAMED = 3  # samples that a warning names
# A word in a split's name that tells its part; splits that differ in nothing else must not share anything.
_PART = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test|testing|dev|eval)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs: in all samples, and in each split."""

    label: int
    class_name: str | None
    num_samples: int
    splits: dict[str, int]


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, of which there is one more."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class DatasetReport:
    """A dataset in JSON types.

    Attributes:
        name: of the file.
        num_samples, num_frames: in all.
        layout: of the joints; None if it is not known.
        num_joints, dims: as found; more than one entry is a defect.
        dtype: of the keypoints in the file.
        with_score: samples that have keypoint scores.
        fps: (frames per second, samples), as far as told.
        classes: by label.
        unlabelled: samples without a label.
        splits: samples in each.
        length_min, length_median, length_max: frames.
        lengths: of the samples, in frames.
        persons: samples by the number of persons who have a pose.
        img_shapes: (height, width, samples), the most frequent first; those that tell none are left out.
        posed_share: of the frames from each person's first pose to their last, those in which they have one; None
            where nobody is.
        missing_share: of all frames, those in which nobody has a pose.
        missing: of the samples, by their share of such frames.
        provenance: what made it.
        warnings: what will hurt training.
    """

    name: str
    num_samples: int
    num_frames: int
    layout: str | None
    num_joints: list[int]
    dims: list[int]
    dtype: str
    with_score: int
    fps: list[tuple[float, int]]
    classes: list[ClassCount]
    unlabelled: int
    splits: dict[str, int]
    length_min: int
    length_median: float
    length_max: int
    lengths: Histogram
    persons: dict[str, int]
    img_shapes: list[tuple[int, int, int]]
    posed_share: float | None
    missing_share: float
    missing: Histogram
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class _Facts:
    """What one pass over the samples finds of each."""

    name: str
    label: int | None
    group: str | None
    num_frames: int
    num_persons: int
    missing: int  # frames in which nobody has a pose
    posed: int  # frames with a pose, over all persons
    there: int  # frames from the first pose to the last, over all persons
    reach: float  # the largest coordinate
    digest: bytes
    with_score: bool
    scores: tuple[float, float]
    img_shape: tuple[int, int] | None
    fps: float | None


def inspect_dataset(
    source: str | Path | AnnotationSet, progress: bool = True, layout: Layout | str | Path | None = None
) -> DatasetReport:
    """Read all of a dataset and tell what is in it.

        print(*skelact.inspect_dataset("mine.pkl").warnings, sep="\\n")

    Args:
        source: an annotation pickle, or a dataset.
        progress: draw a bar on stderr, if that is a terminal.
        layout: of a dataset that does not tell; also its name or file.

    Raises:
        SkelactError: it can't be read; the message names the sample and the field.
    """
    layout = as_layout(layout)
    dataset = source if isinstance(source, AnnotationSet) else open_annotations(source)
    name = "dataset" if isinstance(source, AnnotationSet) else Path(source).name
    pattern = dataset.provenance.get("group_by")
    bar = tqdm(dataset.annotations, desc=name, unit=" samples", disable=None if progress else True)
    facts = [_facts(annotation, str(pattern) if pattern else None) for annotation in bar]
    headers = dataset.headers()
    lengths = np.array([fact.num_frames for fact in facts])
    there = sum(fact.there for fact in facts)
    sizes = Counter(fact.img_shape for fact in facts if fact.img_shape)
    return DatasetReport(
        name=name,
        num_samples=len(facts),
        num_frames=int(lengths.sum()),
        layout=layout.name if layout else dataset.layout,
        num_joints=sorted({header.shape[2] for header in headers}),
        dims=sorted({header.shape[3] for header in headers}),
        dtype=dataset.dtype,
        with_score=sum(fact.with_score for fact in facts),
        fps=sorted(Counter(fact.fps for fact in facts if fact.fps).items()),
        classes=_classes(facts, dataset),
        unlabelled=sum(fact.label is None for fact in facts),
        splits={split: len(names) for split, names in dataset.split.items()},
        length_min=int(lengths.min()),
        length_median=float(np.median(lengths)),
        length_max=int(lengths.max()),
        lengths=_histogram(lengths, int(lengths.min()), int(lengths.max()) + 1),
        persons={str(n): count for n, count in sorted(Counter(fact.num_persons for fact in facts).items())},
        img_shapes=[(height, width, count) for (height, width), count in sizes.most_common()],
        posed_share=sum(fact.posed for fact in facts) / there if there else None,
        missing_share=sum(fact.missing for fact in facts) / max(int(lengths.sum()), 1),
        missing=_histogram([fact.missing / max(fact.num_frames, 1) for fact in facts], 0, 1),
        provenance=json.loads(json.dumps(dict(dataset.provenance), default=str)),
        warnings=_warnings(dataset, facts, layout or LAYOUTS.get(dataset.layout or "")),
    )


def _facts(annotation: Annotation, group_by: str | None) -> _Facts:
    M, T, V, C = annotation.keypoint.shape
    score = annotation.keypoint_score
    present: Array = np.any(annotation.keypoint.reshape(M, T, V * C), axis=2)
    seen = [np.flatnonzero(frames) for frames in present if frames.any()]
    return _Facts(
        name=annotation.frame_dir,
        label=annotation.label,
        group=_group(annotation, group_by),
        num_frames=T,
        num_persons=len(seen),
        missing=int((~present.any(axis=0)).sum()),
        posed=sum(len(frames) for frames in seen),
        there=sum(int(frames[-1] - frames[0]) + 1 for frames in seen),
        reach=float(np.abs(annotation.keypoint).max(initial=0)),
        digest=hashlib.blake2b(annotation.keypoint.tobytes(), digest_size=16).digest(),
        with_score=score is not None,
        scores=(0.0, 0.0) if score is None else (float(score.min(initial=0)), float(score.max(initial=0))),
        img_shape=annotation.img_shape,
        fps=fps_of(annotation.extra),
    )


def _group(annotation: Annotation, group_by: str | None) -> str | None:
    """The subject or source that a sample belongs to, as told by itself or found in its name."""
    if "group" in annotation.extra:
        return str(annotation.extra["group"])
    try:
        found = re.search(group_by, annotation.frame_dir) if group_by else None
    except re.error:
        return None
    return found[found.re.groups and 1] if found else None


def _classes(facts: Sequence[_Facts], dataset: AnnotationSet) -> list[ClassCount]:
    """Of all labels that are named or used."""
    names = dataset.class_names or ()
    members = {split: set(content) for split, content in dataset.split.items()}
    total: Counter[int] = Counter()
    by_split: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(members, 0))
    for fact in facts:
        if fact.label is None:
            continue
        total[fact.label] += 1
        for split, content in members.items():
            by_split[fact.label][split] += fact.name in content
    return [
        ClassCount(label, names[label] if 0 <= label < len(names) else None, total[label], by_split[label])
        for label in sorted({*total, *range(len(names))})
    ]


def _histogram(values: Sequence[float] | Array, low: float, high: float) -> Histogram:
    counts, edges = np.histogram(values, bins=20, range=(low, high))
    return Histogram([float(edge) for edge in edges], [int(count) for count in counts])


# --- what will hurt -----------------------------------------------------------------------------------------------


def _warnings(dataset: AnnotationSet, facts: Sequence[_Facts], layout: Layout | None) -> list[str]:
    of_layout = _of_layout(dataset, facts, layout)
    return [*_of_samples(facts), *of_layout, *_of_labels(dataset, facts), *_of_splits(dataset, facts)]


def _of_samples(facts: Sequence[_Facts]) -> Iterable[str]:
    empty = [fact.name for fact in facts if not fact.num_persons]
    if empty:
        yield f"{_samples(empty)} without a single pose: {_some(empty)}"
    twice = [name for name, count in Counter(fact.name for fact in facts).items() if count > 1]
    if twice:
        yield f"{len(twice)} names that several samples share: {_some(twice)}"
    gone = [fact.name for fact in facts if fact.num_persons and fact.missing > fact.num_frames / 2]
    if gone:
        yield f"{_samples(gone)} without anybody in most frames: {_some(gone)}"


def _of_layout(dataset: AnnotationSet, facts: Sequence[_Facts], layout: Layout | None) -> Iterable[str]:
    shapes = {header.shape[2:] for header in dataset.headers()}
    if len(shapes) > 1:
        yield f"samples of different shapes: (joints, coordinates) {', '.join(map(str, sorted(shapes)))}"
    num_joints = min(shapes)[0]
    if layout is None:
        what = f"layout {dataset.layout!r}" if dataset.layout else f"the layout of {num_joints} joints"
        yield f"{what} is not known here: give it as a JSON file with --layout"
    elif layout.num_joints != num_joints:
        yield f"layout {layout.name!r} has {layout.num_joints} joints, the samples have {num_joints}"
    scored = [fact.name for fact in facts if fact.with_score]
    if 0 < len(scored) < len(facts):
        yield f"{len(facts) - len(scored)} of {len(facts)} samples have no keypoint scores, the others have"
    low, high = min(fact.scores[0] for fact in facts), max(fact.scores[1] for fact in facts)
    if low < USUAL_SCORES[0] or high > USUAL_SCORES[1]:
        yield f"keypoint scores should be from 0 to 1, found {low:.3g} to {high:.3g}: networks take them as they are"
    reach = max(fact.reach for fact in facts)
    if min(shapes)[1] != 2:
        if reach > FAR_IN_METRES:
            yield f"3D keypoints should be in metres, but some are {reach:.3g} away: pixels with scores as third value?"
        return
    sizeless = [fact.name for fact in facts if fact.img_shape is None]
    if sizeless:
        yield f"{_samples(sizeless)} without img_shape, taken as 1920 x 1080: {_some(sizeless)}"
    ratios = [fact.img_shape[1] / fact.img_shape[0] for fact in facts if fact.img_shape]
    if ratios and max(ratios) / min(ratios) > ASPECT_RATIO_TOLERANCE:
        yield f"aspect ratios from {min(ratios):.2f} to {max(ratios):.2f}: the joint stream depends on them"
    if 0 < reach <= NORMALISED:
        yield f"2D keypoints should be in pixels, but none is beyond {reach:.3g}: they look normalised"


def _of_labels(dataset: AnnotationSet, facts: Sequence[_Facts]) -> Iterable[str]:
    unlabelled = [fact.name for fact in facts if fact.label is None]
    if unlabelled:
        yield f"{_samples(unlabelled)} without a label: {_some(unlabelled)}"
    names = dataset.class_names or ()
    used = {fact.label for fact in facts if fact.label is not None}
    allowed = range(len(names) or max(used, default=0) + 1)
    wrong = [fact.name for fact in facts if fact.label is not None and fact.label not in allowed]
    if wrong:
        yield f"{_samples(wrong)} with a label outside of 0 to {allowed[-1]}: {_some(wrong)}"
    training = [split for split in dataset.split if _part(split)[1].startswith("train")]
    labels = sorted({*range(len(names)), *used})

    def name_of(label: int) -> str:
        return repr(names[label]) if 0 <= label < len(names) else str(label)

    for where, members in {f"split {split!r}": set(dataset.split[split]) for split in training}.items() or [
        ("the dataset", {fact.name for fact in facts})
    ]:
        counts = Counter(fact.label for fact in facts if fact.label is not None and fact.name in members)
        unseen = [label for label in labels if not counts[label]]
        if unseen:
            yield f"{len(unseen)} classes without a sample in {where}: {_some([name_of(label) for label in unseen])}"
        if counts and max(counts.values()) > IMBALANCE * min(counts.values()):
            (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
            yield f"uneven classes in {where}: {many} samples of {name_of(most)}, {few} of {name_of(least)}"


def _of_splits(dataset: AnnotationSet, facts: Sequence[_Facts]) -> Iterable[str]:
    if not dataset.split:
        yield "no splits: nothing tells which samples are for training and which for validation"
    known = {fact.name for fact in facts}
    for split, names in dataset.split.items():
        missing = [name for name in names if name not in known]
        if missing:
            yield f"split {split!r} names {len(missing)} samples that are not there: {_some(missing)}"
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            yield f"split {split!r} names {len(repeated)} samples twice: {_some(repeated)}"
    left = known.difference(*dataset.split.values()) if dataset.split else set()
    if left:
        yield f"{_samples(left)} in no split: {_some(sorted(left))}"
    by_name = {fact.name: fact for fact in facts}
    for one, other in _exclusive(dataset.split):
        pair = f"{one!r} and {other!r}"
        mine, yours = set(dataset.split[one]), set(dataset.split[other])
        both = sorted(mine & yours)
        if both:
            yield f"{_samples(both)} in both {pair}: {_some(both)}"
        ours = [by_name[name] for name in sorted(mine - yours) if name in by_name]
        theirs = [by_name[name] for name in sorted(yours - mine) if name in by_name]
        twins = {fact.digest: fact.name for fact in theirs if fact.num_persons}
        same = [f"{fact.name} = {twins[fact.digest]}" for fact in ours if fact.digest in twins]
        if same:
            yield f"{_samples(same)} with the same poses in {pair}: {_some(same)}"
        groups = sorted({fact.group for fact in ours if fact.group} & {fact.group for fact in theirs if fact.group})
        if groups:
            yield f"{len(groups)} groups are on both sides of {pair}: {_some(groups)}"


def _part(split: str) -> tuple[str, str]:
    """``xsub_train`` as (``xsub_*``, ``train``); a split that is no part of anything has an empty part."""
    found = _PART.search(split)
    return (split[: found.start()] + "*" + split[found.end() :], found[0].lower()) if found else (split, "")


def _exclusive(splits: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Pairs of splits that must not share anything, such as ``xsub_train`` and ``xsub_val``."""
    names = list(splits)
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            if _part(one)[0] == _part(other)[0]:
                yield one, other


def _samples(names: Sequence[str] | set[str]) -> str:
    return f"{len(names)} sample{'s' if len(names) > 1 else ''}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


# --- the picture --------------------------------------------------------------------------------------------------

_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")  # Okabe and Ito's
_GREY = "#c9ced6"


def plot_report(report: DatasetReport, path: str | Path) -> None:
    """Draw the counts of classes by split, the lengths, the persons and the missing frames.

    Args:
        report: of ``inspect_dataset``.
        path: of the picture; the suffix tells the format.

    Raises:
        SkelactError: it can't be written.
    """
    lines = len(report.classes) if len(report.classes) <= MOST_NAMED else 0
    with picture(path, 12, max(5.5, 1.6 + 0.2 * lines)) as figure:
        _plot(figure, report)


def _plot(figure: Figure, report: DatasetReport) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = f"{report.num_samples} samples, {len(report.classes)} classes, {report.num_frames} frames"
    figure.suptitle(f"{report.name}: {counts}, layout {report.layout or 'unknown'}", fontsize=13)
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2), squeeze=False)[0]
    _plot_classes(left.subplots(), report)
    below = figure.get_figheight() / PANEL - 3  # beside a long list of classes they are no higher than elsewhere
    heights = (1, 1, 1, below) if below > 0 else (1, 1, 1)
    lengths, persons, missing, *empty = right.subplots(len(heights), 1, height_ratios=heights)
    for axes in empty:
        axes.set_axis_off()
    _plot_histogram(lengths, report.lengths, "length (frames)")
    lengths.xaxis.set_major_locator(MaxNLocator(integer=True))
    lengths.axvline(report.length_median, color=_COLORS[1], label=f"median {report.length_median:g}")
    lengths.legend(frameon=False)
    persons.bar(list(report.persons), list(report.persons.values()), color=_COLORS[0], width=0.6)
    persons.set_xlim(-0.75, max(len(report.persons), 4) - 0.25)
    persons.set_xlabel("persons with a pose")
    _plot_histogram(missing, report.missing, "share of frames without anybody")
    for axes in (lengths, persons, missing):
        axes.set_ylabel("samples")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)


def _plot_histogram(axes: Axes, histogram: Histogram, label: str) -> None:
    axes.stairs(histogram.counts, histogram.edges, fill=True, color=_COLORS[0])
    margin = 0.01 * (histogram.edges[-1] - histogram.edges[0])
    axes.set_xlim(histogram.edges[0] - margin, histogram.edges[-1] + margin)
    axes.set_xlabel(label)


def _plot_classes(axes: Axes, report: DatasetReport) -> None:
    """A grey bar for all samples of a class, a dot for those in each split: splits may overlap."""
    from matplotlib.ticker import MaxNLocator

    names = [count.class_name or str(count.label) for count in report.classes]
    rows = range(len(names))
    totals = [count.num_samples for count in report.classes]
    axes.barh(rows, totals, color=_GREY, height=0.7, label="all")
    for color, split in zip(_COLORS * (1 + len(report.splits) // len(_COLORS)), report.splits, strict=False):
        counts = [count.splits.get(split, 0) for count in report.classes]
        label = f" {split}"  # matplotlib hides what begins with "_"
        axes.plot(counts, rows, "o", color=color, markersize=5, label=label, clip_on=False)
    if len(names) > MOST_NAMED:
        axes.set_ylabel("class")
    else:
        axes.set_yticks(rows, [name if len(name) < 40 else name[:39] + "…" for name in names], fontsize=8)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.set_xlabel("samples")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
