"""What a video shows, and which split it belongs to: from a table, from NTU RGB+D names, or from folders."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skelact.annotations import MAX_CLASSES
from skelact.errors import SkelactError
from skelact.files import in_utf8, read_names, read_text
from skelact.kinds import VIDEO_SUFFIXES
from skelact.ntu import NTU120_CLASSES, is_ntu120, ntu_sample, ntu_splits
from skelact.video import find_videos
from skelact.weights import NTU60_CLASSES

logger = logging.getLogger("skelact")

FILE_SUFFIXES = {".skeleton", ".json", *VIDEO_SUFFIXES}  # that the name of a sample does not have
LONGEST_LABEL = 1000  # characters

SPLIT_FOLDERS = ("train", "val", "test")
VAL_SHARE = 0.2


@dataclass(frozen=True)
class Clip:
    """A video on its way into a dataset.

    Attributes:
        path: of the video.
        name: its ``frame_dir``, unique in the dataset.
        folder: where it lies below the folder that was named, as parts.
    """

    path: Path
    name: str
    folder: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What becomes a sample: a clip, or a part of it.

    Attributes:
        name: of the sample; that of a clip, if it is all of it.
        start_s, stop_s: seconds from the clip's first frame.
    """

    name: str
    start_s: float = 0.0
    stop_s: float = math.inf


@dataclass(frozen=True)
class Labels:
    """Of a set of clips, or of parts of them.

    Attributes:
        label: class index by sample name, which is that of a clip or of a part; unlabelled ones are missing.
        class_names: one for each label.
        split: names of the samples in each split; empty where nothing tells.
        source: what told: ``table``, ``ntu``, ``folders`` or ``none``.
        parts: of the clips, by their names, where a table told them.
    """

    label: Mapping[str, int] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "none"
    parts: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)

    def parts_of(self, clip: Clip) -> tuple[Part, ...]:
        """The samples that a clip becomes."""
        return self.parts.get(clip.name, (Part(clip.name),))


def without(clips: Iterable[Clip], exclude: str | Path | Iterable[str] | None) -> list[Clip]:
    """The clips that are not to be left out.

    Args:
        clips: videos or samples.
        exclude: names, or the path of a text file with one a line: those of clips, of NTU RGB+D's samples, or of files,
            with or without suffix.

    Raises:
        SkelactError: there is no such text file.
    """
    names = {*(read_names(exclude, "exclude") if isinstance(exclude, str | Path) else exclude or ())}
    files = [Path(name) for name in names if Path(name).suffix.lower() in FILE_SUFFIXES]
    whole = names | {file.stem for file in files} | {file.with_suffix("").as_posix() for file in files}

    def is_left_out(clip: Clip) -> bool:
        sample = ntu_sample(clip.name)
        file = {clip.path.name, clip.path.stem} if clip.path.suffix.lower() in FILE_SUFFIXES else set()
        return clip.name in whole or (sample is not None and sample.name in whole) or not names.isdisjoint(file)

    return [clip for clip in clips if not is_left_out(clip)]


def find_clips(sources: Sequence[str | Path]) -> list[Clip]:
    """All videos in folders, and single videos, each with a unique name.

    A name is the path below its folder without the suffix; NTU RGB+D samples go by their own. What is found
    twice, below a folder and below one in it, counts where it is found first.

    Raises:
        SkelactError: nothing is there.
    """
    found: list[tuple[Path, Path]] = []
    for source in map(Path, sources):
        if source.is_dir():
            found += [(path, path.relative_to(source)) for path in find_videos(source)]
        elif source.is_file():
            found.append((source, Path(source.name)))
        else:
            raise SkelactError(f"{source}: no such folder or video")
    once: dict[str, tuple[Path, Path]] = {}
    for path, inside in found:
        once.setdefault(os.path.abspath(path), (path, Path(in_utf8(str(inside)))))
    found = list(once.values())
    if not found:
        raise SkelactError(f"{', '.join(map(str, sources))}: expected videos, found none")
    names = [sample.name if (sample := ntu_sample(path.stem)) else inside.with_suffix("").as_posix()
             for path, inside in found]  # fmt: skip
    times = Counter(names)
    clips = [
        Clip(path, name if times[name] == 1 else inside.as_posix(), inside.parent.parts)
        for (path, inside), name in zip(found, names, strict=True)
    ]
    twice = [name for name, count in Counter(clip.name for clip in clips).items() if count > 1]
    if twice:
        raise SkelactError(f"two videos are called {twice[0]!r}; name a folder above both, so that they differ")
    return clips


def label_clips(clips: Sequence[Clip], table: str | Path | None = None, known: Sequence[str] = ()) -> Labels:
    """Labels and splits from the first source that has any.

    Some names of NTU RGB+D among others count where there are no folders, or one that can't be a class of them.

    Args:
        clips: to label.
        table: CSV of path, label and, optionally, split; with a first row that names these columns, start_s and stop_s
            too, in seconds, where a video shows several things. A path is as given, below the named folder or beside
            the table, or a clip's name, or the name of a file that only one of them has.
        known: names of classes that the clips have already, which a table's indices are of.
    """
    if table is not None:
        return _from_table(clips, Path(table), known)
    samples = {clip.name: sample for clip in clips if (sample := ntu_sample(clip.name))}
    folders = _from_folders(clips)
    is_one_folder = len(folders.class_names) == 1 and not folders.split and 2 * len(samples) > len(clips)
    if len(samples) == len(clips) or (samples and (is_one_folder or not folders.label)):
        label = {name: sample.label for name, sample in samples.items()}
        class_names = NTU120_CLASSES if is_ntu120(samples) else NTU60_CLASSES
        if len(samples) < len(clips):
            other = next(clip.name for clip in clips if clip.name not in samples)
            logger.warning(
                "%d of %d names are not those of NTU RGB+D, such as %r: these have no label and are in no split",
                len(clips) - len(samples),
                len(clips),
                other,
            )
        return Labels(label, class_names, ntu_splits(list(samples)), "ntu")
    return folders


class _Row(NamedTuple):
    path: str
    label: str
    split: str = ""
    start_s: str = ""
    stop_s: str = ""

    def __str__(self) -> str:
        return ", ".join(cell for cell in self if cell)


def _read_table(table: Path) -> list[_Row]:
    """The rows that have a label; with a header, columns may come in any order, and others between them."""
    expected = (
        f"labels {table}: expected rows of path, label[, split], or a first row that names these and start_s, stop_s"
    )
    try:
        lines = csv.reader(io.StringIO(read_text(table)))
        rows = [[cell.strip() for cell in row] for row in lines if any(cell.strip() for cell in row)]
    except OSError as error:
        raise SkelactError(f"labels {table}: cannot be read ({error.strerror})") from None
    except (csv.Error, ValueError) as error:
        raise SkelactError(f"{expected}; found {error}") from None
    columns = list(_Row._fields[:3])
    widths: tuple[int, ...] = (2, 3)
    if rows and {"path", "label"} <= set(rows[0]):
        columns, rows = rows[0], rows[1:]
        if len(columns) > len(set(columns)):
            raise SkelactError(f"{expected}; found a first row of {', '.join(columns)[:200]}")
        if others := [name for name in columns if name not in _Row._fields]:
            logger.info("labels %s: its columns %s are not looked at", table, ", ".join(others)[:200])
        widths = (len(columns),)
    wrong = next((row for row in rows if len(row) not in widths), None)
    cells = (dict(zip(columns, row, strict=False)) for row in rows if len(row) in widths)
    told = [_Row(**{name: row[name] for name in _Row._fields if name in row}) for row in cells]
    odd = next((row for row in told if "\0" in row.path or len(row.label) > LONGEST_LABEL), wrong)
    if not rows or odd:
        raise SkelactError(f"{expected}; found {str(list(odd) if odd else 'none')[:200]}")
    labelled = [row for row in told if row.label]
    if len(labelled) < len(told):
        logger.warning("labels %s: %d of its %d rows have no label", table, len(told) - len(labelled), len(told))
    return labelled


def _part_of(clip: Clip, row: _Row, table: Path) -> Part:
    """What a row is about."""
    if not row.start_s and not row.stop_s:
        return Part(clip.name)
    try:
        start_s, stop_s = (
            float(text) if text else default for text, default in ((row.start_s, 0.0), (row.stop_s, math.inf))
        )
    except ValueError:
        start_s = stop_s = math.nan
    if not 0 <= start_s < stop_s:
        raise SkelactError(f"labels {table}: expected seconds, start_s before stop_s, found {row}")
    return Part(f"{clip.name}_{start_s:.10g}-{stop_s:.10g}", start_s, stop_s)


def _key(path: str | Path) -> str:
    """The same for a path however its slashes stand, as on Windows, and its accents are written, as on macOS."""
    return unicodedata.normalize("NFC", Path(path).as_posix())


def _from_table(clips: Sequence[Clip], table: Path, known: Sequence[str]) -> Labels:
    rows = _read_table(table)
    by_key: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        for key in {_key(row.path), _key((table.parent / row.path).resolve())}:
            by_key[key].append(row)
    parts: dict[str, tuple[Part, ...]] = {}
    told: dict[str, _Row] = {}
    used: set[_Row] = set()
    times = Counter(clip.path.name for clip in clips)
    for clip in clips:
        own = clip.path.name
        inside = Path(*clip.folder, own)
        bare = [own] if times[own] == 1 else []
        keys = (*map(_key, (clip.path, clip.path.resolve(), inside)), *map(_key, (clip.name, *bare)))
        found = next((by_key[key] for key in keys if key in by_key), [])
        for row in found:
            part = _part_of(clip, row, table)
            if told.setdefault(part.name, row) != row:
                raise SkelactError(
                    f"labels {table}: expected one row a path or part, found {row} and {told[part.name]}"
                )
            if part not in parts.get(clip.name, ()):
                parts[clip.name] = (*parts.get(clip.name, ()), part)
        whole = [row for row in found if not row.start_s and not row.stop_s]
        if whole and len(parts[clip.name]) > 1:
            raise SkelactError(f"labels {table}: expected times in all rows of a video or in none, found {whole[0]}")
        used |= set(found)
    if not told:
        raise SkelactError(
            f"labels {table}: expected paths such as {clips[0].name!r}, found none that is one of the {len(clips)} "
            f"videos, but {rows[0].path if rows else 'rows without a label'!r}"
        )
    unused = [row.path for row in rows if row not in used]
    if unused:
        some = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
        logger.warning("labels %s: no video belongs to %d of its %d rows: %s", table, len(unused), len(rows), some)
    texts = sorted({row.label for row in told.values()})
    numbers = [text for text in texts if text.isdecimal()]
    if known and set(texts) <= set(known):
        class_names = tuple(known)
        label_of = {text: known.index(text) for text in texts}
    elif numbers == texts:
        label_of = {text: int(text) for text in texts}
        last, limit = max(label_of.values()), len(known) or MAX_CLASSES
        if last >= limit:
            raise SkelactError(f"labels {table}: expected class names, or indices below {limit}, found {last}")
        class_names = tuple(known) or tuple(map(str, range(last + 1)))
    else:
        if numbers:
            logger.warning("labels %s: takes %s for a name, as others are", table, ", ".join(numbers[:3]))
        class_names = tuple(texts)
        label_of = {text: k for k, text in enumerate(texts)}
    split: dict[str, list[str]] = defaultdict(list)
    for name, row in told.items():
        if row.split:
            split[row.split].append(name)
    return Labels(
        {name: label_of[row.label] for name, row in told.items()},
        class_names,
        {name: tuple(names) for name, names in split.items()},
        "table",
        parts,
    )


def _from_folders(clips: Sequence[Clip]) -> Labels:
    """``class/clip``, or ``split/class/clip`` for most; the class is the folder that the clip lies in."""
    members = [clip for clip in clips if len(clip.folder) > 1 and clip.folder[0] in SPLIT_FOLDERS]
    in_splits = 2 * len(members) > len(clips)
    classes = {clip.name: clip.folder[-1] for clip in clips if clip.folder}
    if in_splits:  # what lies in a split itself has no class
        classes = {name: folder for name, folder in classes.items() if folder not in SPLIT_FOLDERS}
    if not classes:
        return Labels()
    class_names = tuple(sorted(set(classes.values())))
    split: dict[str, list[str]] = defaultdict(list)
    if in_splits:
        for clip in members:
            split[clip.folder[0]].append(clip.name)
    return Labels(
        {name: class_names.index(class_name) for name, class_name in classes.items()},
        class_names,
        {name: tuple(names) for name, names in split.items()},
        "folders",
    )


def groups_of(clips: Sequence[Clip], pattern: str | None) -> dict[str, str]:
    """The group of each clip: what a regular expression finds in its name (its first group, if it has one).

    Raises:
        SkelactError: it is no regular expression, or finds nothing in some name.
    """
    if pattern is None:
        return {clip.name: clip.name for clip in clips}
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SkelactError(f"--group-by {pattern!r}: expected a regular expression, found {error}") from None
    groups = {}
    for clip in clips:
        match = expression.search(clip.name)
        if not match:
            raise SkelactError(f"--group-by {pattern!r}: finds nothing in {clip.name!r}")
        groups[clip.name] = (expression.groups and match[1]) or match[0]
    return groups


def make_split(label: Mapping[str, int], groups: Mapping[str, str], seed: int) -> dict[str, tuple[str, ...]]:
    """A stratified train/val split in which no group is on both sides.

    Groups go to ``val`` in random order as long as that brings its classes nearer to a fifth of their samples; if none
    does, the one that brings them nearest. Where all would leave a class without training samples, there is no ``val``.

    Args:
        label: class index by clip name.
        groups: group by clip name.
        seed: of the order.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(label):
        members[groups[name]].append(name)
    counts = Counter(label.values())
    wanted = {k: max(1, round(VAL_SHARE * count)) if count > 1 else 0 for k, count in counts.items()}
    order = sorted(members)
    np.random.default_rng(seed).shuffle(order)
    taken: Counter[int] = Counter()
    val: set[str] = set()
    nearest: tuple[int, str] | None = None
    for group in order:
        adds = Counter(label[name] for name in members[group])
        before = sum(abs(wanted[k] - taken[k]) for k in adds)
        after = sum(abs(wanted[k] - taken[k] - n) for k, n in adds.items())
        if any(taken[k] + n >= counts[k] for k, n in adds.items()):
            continue
        if after < before:
            taken += adds
            val |= set(members[group])
        elif nearest is None or after < nearest[0]:
            nearest = after, group
    if not val and nearest:
        val = set(members[nearest[1]])
    if not val:
        logger.warning("no validation split: no group can be spared without leaving a class without training samples")
        return {"train": tuple(sorted(label))}
    return {"train": tuple(name for name in sorted(label) if name not in val), "val": tuple(sorted(val))}
