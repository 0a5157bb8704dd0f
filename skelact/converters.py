"""From other people's files to the annotation pickle.

The formats are those of ``FORMATS``. The sources of the JSON formats stand in ``pose_json``, that of NTU's in ``ntu``;
the JHMDB pickles are those of DD-Net (https://github.com/fandulu/DD-Net, ``data/JHMDB``): poses of the ground truth
puppets (Jhuang et al., ICCV 2013), centred on the person and scaled.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import skelact
from skelact.annotations import (
    Annotation,
    AnnotationSet,
    load_annotations,
    save_annotations,
)
from skelact.cutting import cut_into_windows
from skelact.errors import SkelactError
from skelact.files import check_writable
from skelact.kinds import PICKLE_SUFFIXES
from skelact.labelling import Clip, label_clips, without
from skelact.ntu import ntu_sample, read_skeleton
from skelact.pose_json import (
    BODY_25,
    MEDIAPIPE,
    Frame,
    Poses,
    follow,
    json_format,
    read_json,
    read_poses,
    split_number,
)
from skelact.ranges import COUNT, check_numbers
from skelact.skeleton import COCO, JHMDB, LAYOUTS, NTU, OPENPOSE, Layout, convert_layout, layout_of_joints
from skelact.structures import Array
from skelact.unpickling import load_pickle

logger = logging.getLogger("skelact")

FORMATS = {
    "ntu-skeleton": "NTU RGB+D .skeleton files, or folders of them",
    "jhmdb": "DD-Net's JHMDB pickles (GT_train_1.pkl, GT_test_1.pkl, ...)",
    "ultralytics-json": "Results.to_json() or summary() of each frame: a file a frame, or a list of them",
    "alphapose-json": "alphapose-results.json, or another list of COCO results",
    "openpose-json": "a folder of *_keypoints.json for each video, 18 or 25 joints",
    "mmpose-json": "what MMPose's inferencer or demo saves with its predictions",
    "mediapipe-json": "frames of 33 pose landmarks",
    "annotations": "an annotation pickle, to give it another layout, labels or splits",
}
TARGET_LAYOUTS = {layout.name: layout for layout in (COCO, OPENPOSE)}
# The layout that poses get which come in none that a network has.
NEAREST_LAYOUT = {BODY_25.name: OPENPOSE.name, MEDIAPIPE.name: COCO.name}
JHMDB_MAX_BYTES = 100_000_000  # theirs have 4 MB; beyond, a pickle is not read twice to find out what it is
JHMDB_NAME = re.compile(r"(?:^|[_-])(train|test)[_-]?(\d*)$")
UNNAMED = ("alphapose-results", "predictions", "results")  # files that are called after their folder


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` made.

    Attributes:
        dataset: the samples.
        source_format: one of ``FORMATS``.
        skipped: what could not be read, and why.
        excluded: number of samples left out by ``exclude``.
    """

    dataset: AnnotationSet
    source_format: str
    skipped: tuple[str, ...] = ()
    excluded: int = 0


@dataclass(frozen=True)
class _Options:
    """What the video files would tell and the files of poses may not."""

    img_shape: tuple[int, int] | None
    fps: float | None

    def extra(self, fps: float | None = None) -> dict[str, Any]:
        """The fields of an annotation beyond the usual ones."""
        fps = self.fps or fps
        return {} if fps is None else {"fps": fps}


# A sample on its way: where it comes from and what it is called, and the reading of it, which gives its layout too.
_Job = tuple[Clip, Callable[[], tuple[Annotation, str]]]


def convert(
    sources: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    source_format: str | None = None,
    to_layout: str | None = None,
    labels: str | Path | None = None,
    fps: float | None = None,
    img_shape: tuple[int, int] | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    window_s: float | None = None,
    step_s: float | None = None,
    half: bool = False,
    progress: bool = True,
    command: Sequence[str] = (),
) -> Conversion:
    """Convert files to an annotation pickle.

        skelact.convert(["openpose_output/"], "mine.pkl", labels="labels.csv", img_shape=(1080, 1920), fps=30)

    Labels and splits are those of ``labels`` or of the source, else what NTU RGB+D's names or sub-folders tell.

    Args:
        sources: files and folders, all of one format.
        out: the pickle to write; None to write nothing.
        source_format: one of ``FORMATS``; None to find out from the content.
        to_layout: ``coco`` or ``openpose``; None leaves the layout, but OpenPose's 25 joints become its 18 and
            MediaPipe's 33 become COCO's 17.
        labels: a CSV of path, label and, optional, split. Labels are class names or indices.
        fps: frames per second of the videos, to be kept with the samples.
        img_shape: (H, W) pixels of the videos, where the files do not tell.
        exclude: names of samples to leave out, such as NTU's with missing skeletons, or the path of a text file with
            one a line.
        window_s: cut samples into windows of so many seconds (``cutting.cut_into_windows``); None leaves them whole.
        step_s: from one window to the next; None: half a window.
        half: float16 on disk.
        progress: draw a bar on stderr, if that is a terminal.
        command: the command line, for the provenance.

    Returns:
        The dataset, and what was skipped because it is damaged; the rest is not lost.

    Raises:
        SkelactError: a source is missing or of no known format, or nothing could be converted.
    """
    if to_layout is not None and to_layout not in TARGET_LAYOUTS:
        raise SkelactError(f"layout {to_layout!r}: expected one of {', '.join(TARGET_LAYOUTS)}")
    if source_format is not None and source_format not in FORMATS:
        raise SkelactError(f"format {source_format!r}: expected one of {_understood()}")
    check_numbers(optional=("fps", "window_s", "step_s"), fps=fps, window_s=window_s, step_s=step_s)
    if step_s is not None and window_s is None:
        raise SkelactError("step_s: is from one window to the next; give window_s too")
    if img_shape is not None and not (np.size(img_shape) == 2 and all(side in COUNT for side in img_shape)):
        raise SkelactError(f"img_shape: expected height and width in pixels, found {img_shape!r}")
    paths = [_existing(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    source_format = source_format or detect_format(paths)
    dataset, jobs = _jobs(paths, source_format, _Options(img_shape, fps))
    left = set(without([clip for clip, _ in jobs], exclude))
    if out is not None:
        listed = exclude if isinstance(exclude, str | Path) else None
        check_writable(out, [*paths, *(clip.path for clip, _ in jobs), labels, listed])
    kept = [job for job in jobs if job[0] in left]
    excluded = len(jobs) - len(kept)
    samples, skipped = _run(kept, progress)
    if not samples:
        raise SkelactError(_why_nothing(paths, source_format, skipped, excluded))
    dataset = _with_labels(_with_layout(dataset, samples, TARGET_LAYOUTS.get(to_layout or "")), samples, labels)
    names = {annotation.frame_dir for annotation in dataset.annotations}
    before = dataset.provenance.get("commands_before")
    before = before if isinstance(before, list) else []
    provenance = {
        **dataset.provenance,
        **({"commands_before": [*before, dataset.provenance["command"]]} if "command" in dataset.provenance else {}),
        **({} if window_s is None else {"window_s": window_s}),
        "converted_from": source_format,
        "sources": [path.resolve().name for path in paths],
        "skelact": skelact.__version__,
        "command": list(command),
    }
    dataset = replace(
        dataset,
        split={name: tuple(n for n in members if n in names) for name, members in dataset.split.items()},
        provenance=provenance,
    )
    if window_s is not None:
        dataset = cut_into_windows(dataset, window_s, window_s / 2 if step_s is None else step_s)
    if out is not None:
        save_annotations(dataset, out, half, progress)
    return Conversion(dataset, source_format, tuple(skipped), excluded)


@dataclass(frozen=True)
class _Sample:
    """A sample that was read, and the name of its layout."""

    clip: Clip
    annotation: Annotation
    layout: str


def _run(jobs: Sequence[_Job], progress: bool) -> tuple[list[_Sample], list[str]]:
    """Read everything; returns the samples and the reasons why others could not be read."""
    samples: dict[str, _Sample] = {}
    skipped = []
    for clip, read in tqdm(jobs, desc="convert", unit=" samples", disable=None if progress else True):
        try:
            if clip.name in samples:
                raise SkelactError(f"expected one sample called {clip.name!r}, found another; rename it")
            samples[clip.name] = _Sample(clip, *read())
        except SkelactError as error:
            skipped.append(str(error) if str(clip.path) in str(error) else f"{clip.path}: {error}")
    return list(samples.values()), skipped


def _why_nothing(paths: Sequence[Path], source_format: str, skipped: Sequence[str], excluded: int) -> str:
    if len(skipped) > 1:
        return f"none of {len(skipped)} samples can be read; the first: {skipped[0]}"
    return skipped[0] if skipped else f"{paths[0]}: expected {source_format}, found nothing ({excluded} excluded)"


def _understood() -> str:
    return "; ".join(f"{name} ({description})" for name, description in FORMATS.items())


# --- which format ------------------------------------------------------------------------------------------------


def detect_format(sources: Sequence[str | Path]) -> str:
    """Find out the format of files and folders from their content: that of the first that has any.

    Raises:
        SkelactError: a source is missing or damaged, or of no known format; the message lists those that are.
    """
    problem = ""
    for file in _files([_existing(source) for source in sources], (".skeleton", *PICKLE_SUFFIXES, ".json")):
        if file.suffix.lower() == ".skeleton":
            return "ntu-skeleton"
        if file.suffix.lower() in PICKLE_SUFFIXES:
            small = file.stat().st_size <= JHMDB_MAX_BYTES
            return "jhmdb" if small and _is_jhmdb(load_pickle(file)) else "annotations"
        try:
            if name := json_format(read_json(file)):
                return name
        except SkelactError as error:
            problem = problem or str(error)
    raise SkelactError(f"{problem or f'{sources[0]}: nothing in it is understood'}; expected one of {_understood()}")


def _existing(source: str | Path) -> Path:
    if not Path(source).exists():
        raise SkelactError(f"{source}: no such file or folder")
    return Path(source)


def _files(paths: Sequence[Path], suffixes: Sequence[str]) -> Iterator[Path]:
    """The files themselves, and those in the folders that have one of the suffixes, in the order of their names."""
    for path in paths:
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.suffix.lower() in suffixes and file.is_file())
        else:
            yield path


# --- the formats -------------------------------------------------------------------------------------------------


def _jobs(paths: Sequence[Path], source_format: str, options: _Options) -> tuple[AnnotationSet, list[_Job]]:
    """What there is to read, and a dataset without annotations for what is known of the whole."""
    if source_format == "annotations":
        return _annotations_jobs(paths, options)
    if source_format == "jhmdb":
        return _jhmdb_jobs(paths, options)
    if source_format == "ntu-skeleton":
        return AnnotationSet(()), _skeleton_jobs(paths, options)
    return AnnotationSet(()), _json_jobs(paths, source_format, options)


def _clip(source: Path, path: Path, title: str = "") -> Clip:
    """A file or folder, at or below a source, as a sample: named as ``labelling.find_clips`` names videos."""
    inside = path.relative_to(source) if path != source else Path(path.resolve().name)
    stem = inside.with_suffix("") if path.is_file() else inside
    sample = ntu_sample(title or stem.name)
    return Clip(path, sample.name if sample else (stem / title).as_posix(), inside.parent.parts)


def _skeleton_jobs(paths: Sequence[Path], options: _Options) -> list[_Job]:
    def job(source: Path, file: Path) -> _Job:
        clip = _clip(source, file)
        return clip, lambda: (Annotation(clip.name, read_skeleton(file), extra=options.extra()), NTU.name)

    return [job(source, file) for source in paths for file in _files([source], (".skeleton",))]


def _json_jobs(paths: Sequence[Path], source_format: str, options: _Options) -> list[_Job]:
    def job(clip: Clip, files: Sequence[Path]) -> _Job:
        def read() -> tuple[Annotation, str]:
            poses = read_poses(files[0], source_format)
            if len(files) > 1:
                poses = _one_video([read_poses(file, source_format) for file in files], files)
            img_shape = options.img_shape or poses.img_shape
            keypoint, score, layout = follow(poses, img_shape)
            return Annotation(clip.name, keypoint, score, img_shape, extra=options.extra(poses.fps)), layout.name

        return clip, read

    jobs = []
    for source in paths:
        for folder, members in groupby(_files([source], (".json",)), key=lambda file: file.parent):
            videos = _videos(list(members), source_format)
            for files in videos:
                if len(files) > 1:
                    clip = _clip(source, folder, split_number(files[0].name)[0] if len(videos) > 1 else "")
                elif files[0].stem in UNNAMED:
                    clip = _clip(folder if source == files[0] else source, folder)
                else:
                    clip = _clip(source, files[0])
                jobs.append(job(clip, files))
    return jobs


def _videos(files: Sequence[Path], source_format: str) -> list[list[Path]]:
    """The files of a folder, grouped into videos: those of single frames by what stands before their numbers."""
    try:
        single = any(read_poses(file, source_format).single for file in files[:1])
    except SkelactError:
        single = source_format == "openpose-json"  # that file is told of when its turn comes
    if not single:
        return [[file] for file in files]
    by_number = sorted(files, key=lambda file: (split_number(file.name)[0], split_number(file.name)[1] or 0))
    return [list(group) for _, group in groupby(by_number, key=lambda file: split_number(file.name)[0])]


def _one_video(frames: Sequence[Poses], files: Sequence[Path]) -> Poses:
    """The video of which each file is one frame."""
    numbered = [
        Frame([person for frame in poses.frames for person in frame.persons], split_number(file.name)[1])
        for poses, file in zip(frames, files, strict=True)
    ]
    return Poses(numbered, frames[0].img_shape, frames[0].fps)


def _is_jhmdb(content: Any) -> bool:
    return isinstance(content, Mapping) and {"pose", "label"} <= content.keys()


def _jhmdb_jobs(paths: Sequence[Path], options: _Options) -> tuple[AnnotationSet, list[_Job]]:
    """Clips that several files share are one sample: its name is its class and a hash of its poses."""
    files = list(_files(paths, PICKLE_SUFFIXES))
    parts = [JHMDB_NAME.search(file.stem.lower()) for file in files]
    several = len({part[2] for part in parts if part}) > 1
    clips: dict[str, tuple[Array, str]] = {}
    split: dict[str, dict[str, None]] = {}  # the inner dicts are ordered sets
    for file, part in zip(files, parts, strict=True):
        members = split.setdefault(file.stem if part is None else f"{part[1]}_{part[2]}" if several else part[1], {})
        for pose, class_name in _jhmdb_clips(file):
            name = f"{class_name}_{hashlib.sha256(pose.tobytes()).hexdigest()[:16]}"
            clips[name] = pose, class_name
            members[name] = None
    class_names = tuple(sorted({class_name for _, class_name in clips.values()}))

    def job(name: str) -> _Job:
        pose, class_name = clips[name]
        annotation = Annotation(
            frame_dir=name,
            keypoint=pose[None].astype(np.float32),
            keypoint_score=np.ones((1, *pose.shape[:2]), np.float32),
            label=class_names.index(class_name),
            extra=options.extra(),
        )
        return Clip(Path(name), name, ()), lambda: (annotation, JHMDB.name)

    splits = {name: tuple(members) for name, members in split.items()}
    return AnnotationSet((), splits, class_names), [job(name) for name in clips]


def _jhmdb_clips(path: Path) -> Iterator[tuple[Array, str]]:
    """Poses (T, 15, 2) float64 and class name of each clip."""
    content = load_pickle(path)
    if not _is_jhmdb(content) or len(content["pose"]) != len(content["label"]):
        raise SkelactError(f'{path}: expected {{"pose": [(T, 15, 2)], "label": [str]}}, as many labels as poses')
    for k, (pose, label) in enumerate(zip(content["pose"], content["label"], strict=True)):
        pose = np.ascontiguousarray(pose, np.float64)
        if pose.ndim != 3 or pose.shape[1:] != (JHMDB.num_joints, 2) or not len(pose) or not np.isfinite(pose).all():
            raise SkelactError(
                f"{path}: clip {k}: expected finite poses (T, {JHMDB.num_joints}, 2), found {pose.shape}"
            )
        yield pose, str(label)


def _annotations_jobs(paths: Sequence[Path], options: _Options) -> tuple[AnnotationSet, list[_Job]]:
    if len(paths) != 1:
        raise SkelactError(f"expected one annotation pickle, found {len(paths)}; join them first: skelact merge")
    dataset = load_annotations(paths[0])

    def job(annotation: Annotation) -> _Job:
        told = dataset.layout
        layout = LAYOUTS.get(told) if told else layout_of_joints(annotation.keypoint.shape[2])
        changed = replace(
            annotation,
            img_shape=options.img_shape or annotation.img_shape,
            extra={**annotation.extra, **options.extra()},
        )
        clip = Clip(Path(annotation.frame_dir), annotation.frame_dir, ())
        return clip, lambda: (changed, layout.name if layout else dataset.layout or "")

    return replace(dataset, annotations=()), [job(annotation) for annotation in dataset.annotations]


# --- layout and labels -------------------------------------------------------------------------------------------


def _with_layout(dataset: AnnotationSet, samples: Sequence[_Sample], target: Layout | None) -> AnnotationSet:
    """Give all samples one layout: the target, or the one that they come in or near to."""
    known = {**LAYOUTS, BODY_25.name: BODY_25, MEDIAPIPE.name: MEDIAPIPE}
    wanted = {target.name if target else NEAREST_LAYOUT.get(sample.layout, sample.layout) for sample in samples}
    if len(wanted) > 1:
        raise SkelactError(f"expected samples of one layout, found {', '.join(sorted(wanted))}; choose by --to-layout")
    layout = wanted.pop()

    def converted(sample: _Sample) -> Annotation:
        annotation = sample.annotation
        if sample.layout == layout:
            return annotation
        if sample.layout not in known:
            joints = annotation.keypoint.shape[2]
            raise SkelactError(f"{annotation.frame_dir}: expected a layout that is known, found {joints} joints")
        keypoint, score = convert_layout(
            annotation.keypoint, annotation.keypoint_score, known[sample.layout], known[layout]
        )
        return replace(annotation, keypoint=keypoint, keypoint_score=score)

    return replace(dataset, annotations=[converted(sample) for sample in samples], layout=layout or None)


def _with_labels(dataset: AnnotationSet, samples: Sequence[_Sample], table: str | Path | None) -> AnnotationSet:
    """Labels and splits: of the table, else those that are there, else what names and folders tell."""
    if table is None and any(annotation.label is not None for annotation in dataset.annotations):
        return dataset
    labels = label_clips([sample.clip for sample in samples], table, dataset.class_names or ())
    if not labels.label:
        return dataset
    timed = next(
        (part for parts in labels.parts.values() for part in parts if part.start_s or part.stop_s < math.inf), None
    )
    if timed:
        raise SkelactError(
            f"labels {table}: expected labels of whole samples, found times, of {timed.name}; extract-poses takes them"
        )
    annotations = [
        replace(annotation, label=labels.label.get(annotation.frame_dir)) for annotation in dataset.annotations
    ]
    without = sum(annotation.label is None for annotation in annotations)
    if without:
        logger.warning("%d of %d samples have no label", without, len(annotations))
    split, class_names = labels.split or dataset.split, labels.class_names
    return replace(dataset, annotations=annotations, split=split, class_names=class_names)
