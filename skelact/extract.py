"""From videos to a dataset: pose every video once, keep what is done, and write the annotation pickle."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import skelact
from skelact.annotations import Annotation, AnnotationSet, save_annotations
from skelact.cleaning import Cleaning
from skelact.clips import regular, tracks_keypoint
from skelact.devices import num_gpus
from skelact.errors import SkelactError
from skelact.files import atomic_path, check_writable
from skelact.kinds import PICKLE_SUFFIXES
from skelact.labelling import Clip, Labels, find_clips, groups_of, label_clips, make_split, without
from skelact.persons import main_persons, rank_tracks
from skelact.pipeline import DEFAULT_POSE_MODEL, estimate_poses
from skelact.pose import PoseModel, choose_pose_model
from skelact.ranges import check_numbers
from skelact.runner import Lost, check_engine, default_workers, run_tasks
from skelact.skeleton import COCO
from skelact.structures import PoseSequence, Track, VideoInfo
from skelact.tracking import DEFAULT_TRACKER, Tracker, tracker_key

logger = logging.getLogger("skelact")

# Part of the key under which poses are kept: raise it when they would come out differently.
POSES_VERSION = 4
REPORT_FIELDS = ("path", "name", "status", "frames", "persons", "frames_with_poses", "class_name", "split", "reason")


@dataclass(frozen=True)
class PoseSettings:
    """All that the poses of a video depend on.

    Attributes:
        pose_model: anything that ultralytics' ``YOLO()`` takes.
        pose_model_sha256: of it.
        backend, precision: of the pose model, as in ``pose.PoseModel``.
        tracker: name or YAML file.
        stride: pose every so many frames; the others are interpolated.
        max_frames: take no more of a video; None for all.
        clean: take outliers and jitter away.
        device: where to work; poses are kept whatever it or the backend is.
    """

    pose_model: str
    pose_model_sha256: str | None
    backend: str
    precision: str | None
    tracker: str
    stride: int
    max_frames: int | None
    clean: bool
    device: str | None

    def key(self, clip: Clip) -> str:
        """Names the poses of a video in the work folder; another file or another setting has another."""
        stat = clip.path.stat()
        parts = {**asdict(self), "video": [clip.name, stat.st_size, stat.st_mtime_ns], "version": POSES_VERSION}
        parts["tracker"] = tracker_key(self.tracker)
        del parts["device"], parts["backend"]
        if self.pose_model_sha256:
            del parts["pose_model"]  # the same file under another name
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ExtractReport:
    """What became of the videos.

    Attributes:
        num_samples: in the dataset.
        failed: (path, reason) of the videos that are not.
        path: of the dataset, None where there is nothing to write.
        report: of the table with a row for each video.
    """

    num_samples: int
    failed: tuple[tuple[str, str], ...]
    path: Path | None
    report: Path


def extract_poses(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    labels: str | Path | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    group_by: str | None = None,
    seed: int = 0,
    num_person: int = 2,
    max_frames: int | None = None,
    stride: int = 1,
    pose_model: str | Path = DEFAULT_POSE_MODEL,
    backend: str = "auto",
    precision: str | None = None,
    device: str | None = None,
    tracker: str = DEFAULT_TRACKER,
    clean: bool = True,
    half: bool = False,
    workers: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    progress: bool = True,
    command: Sequence[str] = (),
) -> ExtractReport:
    """Make an annotation pickle of videos.

        report = skelact.extract_poses("videos/", "mine.pkl", group_by="/([^_]+)_")
        print(report.num_samples, report.failed)

    Args:
        sources: folders of videos, or videos.
        out: the pickle. Beside ``FILE.pkl`` come ``FILE.report.csv`` and the work folder ``FILE.pkl.work``, from which
            the same call goes on after a break.
        labels: CSV of path, label[, split], and, with a first row that names the columns, start_s and stop_s, in
            seconds, of each sample in a video that shows several things; else NTU RGB+D names or folders tell.
        exclude: names of videos to leave out, or the path of a text file with one a line.
        group_by: regular expression that finds the group in a name; a group is on one side of the split.
        seed: of the split.
        num_person: persons to keep of each video, by the rule of ``persons.main_persons``.
        max_frames: take no more of a video.
        stride: pose every so many frames; the others are interpolated.
        pose_model, backend, precision, device, tracker: as in ``predict``.
        clean: take outliers and jitter out of the poses.
        half: float16 on disk.
        workers: processes; None chooses.
        engine, ray_address: as in ``runner.run_tasks``.
        progress: bars on stderr.
        command: the command line, for the provenance.

    Returns:
        How many samples there are, and the videos that failed, with reasons.

    Raises:
        SkelactError: there are no videos, the pose model can't be loaded, or the output can't be written. A video
            that fails is no error but stands in the report.
    """
    out, tracker = Path(out), str(tracker)
    check_numbers(seed=seed, num_person=num_person, stride=stride)
    check_numbers(optional=("max_frames", "workers"), max_frames=max_frames, workers=workers)
    check_engine(engine, device)
    report = out.with_suffix(".report.csv")
    found = find_clips([sources] if isinstance(sources, str | Path) else sources)
    clips = without(found, exclude)
    if not clips:
        raise SkelactError(f"exclude: leaves none of {len(found)} videos")
    listed = exclude if isinstance(exclude, str | Path) else None
    for written in (out, report):
        check_writable(written, [*(clip.path for clip in clips), labels, listed])
    if out.suffix.lower() not in PICKLE_SUFFIXES:
        raise SkelactError(f"{out}: expected a name that ends in .pkl or .pickle, by which datasets are known")
    told = label_clips(clips, labels)
    of_clip = groups_of(clips, group_by)
    groups = {part.name: of_clip[clip.name] for clip in clips for part in told.parts_of(clip)}
    Tracker(tracker)
    # Here too, so that a wrong model ends all at once; asked as the tasks ask, so that this process loads it once.
    pose_model, why = choose_pose_model(pose_model)
    if precision == "int8":
        PoseModel(pose_model, device, backend, precision, calibrate_on=clips[0].path)
    estimator = _estimator(pose_model, device, backend, precision)
    settings = PoseSettings(
        pose_model=pose_model,
        pose_model_sha256=estimator.provenance["pose_model_sha256"],
        backend=backend,
        precision=precision,
        tracker=tracker,
        stride=stride,
        max_frames=max_frames,
        clean=clean,
        device=device,  # not that of this process: a cluster's nodes may have GPUs, or not
    )
    work = out.with_name(out.name + ".work")
    reasons: dict[str, str] = {}
    kept: dict[str, Path] = {}
    for clip in clips:
        try:
            kept[clip.name] = work / f"{settings.key(clip)}.npz"
        except OSError as error:  # a link to nothing, or gone meanwhile
            reasons[clip.name] = f"{clip.path}: cannot be read ({error.strerror or error})"
    todo = [clip for clip in clips if clip.name in kept and not kept[clip.name].exists()]
    if len(todo) < len(kept):
        logger.info("%d of %d videos are done already, see %s", len(kept) - len(todo), len(clips), work)
    if workers is None:
        workers = default_workers(estimator.device, len(todo), num_gpus(device))
    with tqdm(
        desc="videos",
        total=len(clips),
        initial=len(clips) - len(todo),
        unit=" videos",
        disable=None if progress else True,
    ) as bar:
        items = [(clip.path, settings) for clip in todo]
        for k, result in run_tasks(_pose_task, items, workers, engine, ray_address, device):
            if isinstance(result, Lost):
                reasons[todo[k].name] = result.reason
            elif isinstance(result, str):
                reasons[todo[k].name] = result
            else:
                for problem in result.warnings:
                    logger.warning("%s: %s", todo[k].path, problem)
                save_sequence(result, kept[todo[k].name])
            bar.update()
            bar.set_postfix(failed=len(reasons))

    annotations: list[Annotation] = []
    rows: list[dict[str, Any]] = []
    for clip in clips:
        failed = {"path": str(clip.path), "name": clip.name, "status": "failed"}
        if clip.name in reasons:
            rows.append({**failed, "reason": reasons[clip.name]})
            continue
        whole = load_sequence(kept[clip.name])
        for part in told.parts_of(clip):
            sequence = whole.cut(part.start_s, part.stop_s)
            shape = sequence.info.img_shape, sequence.num_frames
            tracks = rank_tracks(sequence.tracks, *shape)  # who matters in this part
            persons = main_persons(tracks, *shape, num_person)
            row: dict[str, Any] = {**failed, "name": part.name, "frames": sequence.num_frames, "persons": len(persons)}
            rows.append(row)
            since = f" from {part.start_s:.10g} s on" if part.start_s else ""
            if not sequence.num_frames:
                row["reason"] = f"expected a part of the {whole.duration_s:.2f} s of the video, found none{since}"
            elif not persons:
                row["reason"] = f"nobody was found in {sequence.num_frames} frames{since}"
            else:
                row["status"], row["reason"] = "ok", "; ".join(whole.warnings)
                row["frames_with_poses"] = max(int(track.present.sum()) for track in persons)
                annotations.append(_annotation(part.name, sequence, persons, told.label.get(part.name)))

    names = {annotation.frame_dir for annotation in annotations}
    split = _split_of(told, names, groups, seed)
    for row in rows:
        label = told.label.get(row["name"])
        row["class_name"] = "" if label is None else told.class_names[label]
        row["split"] = " ".join(sorted(name for name, members in split.items() if row["name"] in members))
    _write_report(rows, report)
    if annotations:
        _warn_of_half(annotations, half)
        provenance = {
            "skelact": skelact.__version__,
            **estimator.provenance,
            **({"pose_model_chosen": why} if why else {}),
            **{"tracker": tracker, "stride": stride, "max_frames": max_frames, "num_person": num_person},
            "cleaning": asdict(Cleaning()) if clean else None,
            **{"labels": told.source, "group_by": group_by, "seed": seed, "command": list(command)},
        }
        dataset = AnnotationSet(annotations, split, told.class_names or None, COCO.name, provenance)
        save_annotations(dataset, out, half)
    lost = tuple((row["path"], row["reason"]) for row in rows if row["status"] != "ok")
    return ExtractReport(len(annotations), lost, out if annotations else None, report)


def _pose_task(item: tuple[Path, PoseSettings]) -> PoseSequence | str:
    """One video's poses, or why there are none. Runs in workers."""
    path, settings = item
    try:
        return estimate_poses(
            path,
            _estimator(settings.pose_model, settings.device, settings.backend, settings.precision),
            settings.tracker,
            progress=False,
            stride=settings.stride,
            max_frames=settings.max_frames,
            clean=settings.clean,
        )
    except SkelactError as error:
        return str(error)
    except Exception as error:  # a codec's or a driver's; the other videos should go on
        return f"{path}: {type(error).__name__}: {error}"


@functools.cache
def _estimator(pose_model: str, device: str | None, backend: str, precision: str | None) -> PoseModel:
    """Loaded once in each process."""
    return PoseModel(pose_model, device, backend, precision)


def _annotation(name: str, sequence: PoseSequence, persons: Sequence[Track], label: int | None) -> Annotation:
    """A sample, whose frames come regularly: those of a video with a variable frame rate are made by interpolation."""
    poses = tracks_keypoint(persons, sequence.num_frames)
    keypoint, score, fps = regular(*poses, sequence.time_s, sequence.info.fps)
    if keypoint is not poses[0]:
        logger.info("%s: its frames come irregularly; its sample has %.4g a second", name, fps)
    return Annotation(name, keypoint, score, sequence.info.img_shape, label, {"fps": fps})


def _split_of(told: Labels, names: set[str], groups: dict[str, str], seed: int) -> dict[str, tuple[str, ...]]:
    """The split that came with the labels, else a new one; only of samples that are there."""
    labelled = {name: label for name, label in told.label.items() if name in names}
    if not labelled:
        logger.warning("no sample has a label, as training needs: put videos into folders of their class, or --labels")
    if 0 < len(labelled) < len(names):
        logger.warning("%d of %d samples have no label and are in no split", len(names) - len(labelled), len(names))
    if told.split:
        split = {name: tuple(m for m in members if m in names) for name, members in told.split.items()}
        left = len(labelled) - len(set(chain.from_iterable(split.values())) & labelled.keys())
        if left:
            logger.warning("samples that have a label but are in none of the splits (%s): %d", ", ".join(split), left)
        return split
    return make_split(labelled, groups, seed) if labelled else {}


def _warn_of_half(annotations: Sequence[Annotation], half: bool) -> None:
    largest = max(max(annotation.img_shape or (0,)) for annotation in annotations)
    if half and largest > 1024:
        logger.warning("--half rounds joints to 1 px above 1024%s", " and to 2 px above 2048" if largest > 2048 else "")


def _write_report(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.DictWriter(file, REPORT_FIELDS, restval="")
        table.writeheader()
        table.writerows(rows)


# --- kept poses --------------------------------------------------------------------------------------------------


def save_sequence(sequence: PoseSequence, path: Path) -> None:
    """Keep poses as arrays and JSON, which hold no code."""
    meta = {
        "info": asdict(sequence.info),
        "num_frames": sequence.num_frames,
        "layout": sequence.layout,
        "provenance": sequence.provenance,
        "warnings": sequence.warnings,
        "tracks": [[track.track_id, track.start_frame] for track in sequence.tracks],
    }
    arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta)), "time_s": sequence.time_s}
    for k, track in enumerate(sequence.tracks):
        for name in ("keypoint", "keypoint_score", "bbox", "bbox_score"):
            arrays[f"{name}_{k}"] = getattr(track, name)
    with atomic_path(path) as part:
        np.savez_compressed(part, **arrays)


def load_sequence(path: Path) -> PoseSequence:
    """What ``save_sequence`` wrote.

    Raises:
        SkelactError: the file is damaged. It is removed, so that the video is posed anew the next time.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            meta = json.loads(str(arrays["meta"]))
            time_s = arrays["time_s"]
            tracks = []
            for k, (track_id, start) in enumerate(meta["tracks"]):
                values = {name: arrays[f"{name}_{k}"] for name in ("keypoint", "keypoint_score", "bbox", "bbox_score")}
                stop = start + len(values["keypoint"])
                tracks.append(Track(track_id=track_id, start_frame=start, time_s=time_s[start:stop], **values))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        path.unlink(missing_ok=True)
        raise SkelactError(f"{path}: damaged, and removed ({error}); run the same command again") from None
    info = VideoInfo(**{**meta["info"], "img_shape": tuple(meta["info"]["img_shape"])})
    return PoseSequence(
        info,
        tuple(tracks),
        meta["num_frames"],
        meta["layout"],
        time_s,
        meta["provenance"],
        warnings=tuple(meta.get("warnings", ())),
    )
