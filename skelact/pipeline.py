"""Video to poses to predictions."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import skelact
from skelact.annotations import PICKLE_SUFFIXES, Annotation, load_annotations
from skelact.checkpoint import Checkpoint, load_checkpoint
from skelact.clips import ClipSettings, check_keypoint, prepare_clips, tracks_keypoint
from skelact.errors import SkelactError
from skelact.files import sha256_of
from skelact.linking import clothes_colour
from skelact.model import count_operations, count_parameters
from skelact.persons import main_persons, rank_tracks
from skelact.pose import PoseModel, choose_device
from skelact.skeleton import COCO, Layout, layout_of_joints
from skelact.structures import Array, FramePoses, PoseSequence, Prediction, Track, VideoInfo
from skelact.tracking import DEFAULT_TRACKER, Tracker, build_tracks
from skelact.video import find_videos, probe_video, read_frames
from skelact.weights import PublishedModel, resolve

logger = logging.getLogger("skelact")

DEFAULT_MODEL = "ntu60-2d-joint"
DEFAULT_POSE_MODEL = "yolo26n-pose.pt"
# What the published NTU60 checkpoints were trained on: HRNet's poses on Kinect's 1080p video.
NTU60_2D_TRAINING = {"pose_model": "HRNet", "img_shape": (1080, 1920)}
ASPECT_RATIO_TOLERANCE = 1.25
PICKLE_FPS = 30.0  # where a pickle does not tell


# --- poses -------------------------------------------------------------------------------------------------------


def estimate_poses(
    source: str | Path, pose_model: PoseModel, tracker: str = DEFAULT_TRACKER, progress: bool = True
) -> PoseSequence:
    """Find, track and rank everybody in a video.

    Args:
        source: a video file.
        pose_model: the estimator.
        tracker: one of ``tracking.TRACKERS`` or a YAML file.
        progress: draw a bar on stderr, if that is a terminal.

    Returns:
        The sequence, its tracks ranked by ``persons.rank_tracks``; with none where nobody is there.

    Raises:
        SkelactError: the file is missing, no video, or nothing of it can be decoded.
    """
    info = probe_video(source)
    following = Tracker(tracker, info.fps)
    frames: list[FramePoses] = []
    ids: list[Array] = []
    colours: list[Array] = []
    with tqdm(
        desc=Path(source).name,
        total=info.num_frames or None,
        unit=" frames",
        disable=None if progress else True,
    ) as bar:
        for frame in read_frames(source):
            frames.append(pose_model.detect(frame))
            ids.append(following.update(frames[-1], frame.image))
            colours.append(clothes_colour(frame.image, frames[-1].keypoint))
            bar.update()
    tracks = build_tracks(frames, ids, info.fps, colours)
    return PoseSequence(
        info=info,
        tracks=rank_tracks(tracks, info.img_shape, len(frames)),
        num_frames=len(frames),
        layout=COCO.name,
        time_s=np.array([frame.time_s for frame in frames]),
        provenance={**pose_model.provenance, "tracker": following.name},
    )


def annotation_sequence(path: str | Path, annotation: Annotation) -> PoseSequence:
    """A sample of a pose pickle as a sequence; its persons keep their order, empty slots are left out."""
    _, T, V, _ = annotation.keypoint.shape
    layout = layout_of_joints(V)
    fps = float(annotation.extra.get("fps") or PICKLE_FPS)
    time_s = np.arange(T) / fps
    tracks = tuple(
        Track(
            track_id=m + 1,
            start_frame=0,
            time_s=time_s,
            keypoint=keypoint,
            keypoint_score=None if annotation.keypoint_score is None else annotation.keypoint_score[m],
        )
        for m, keypoint in enumerate(annotation.keypoint)
        if keypoint.any()
    )
    info = VideoInfo(f"{path}#{annotation.frame_dir}", annotation.img_shape or (1080, 1920), fps, T)
    return PoseSequence(
        info,
        tracks,
        T,
        layout.name if layout else "unknown",
        time_s,
        {"poses": Path(path).name},
        annotation.label,
    )


# --- scores ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One network of a fusion: its name, what it is, and the weight of its scores."""

    name: str
    path: Path
    checkpoint: Checkpoint
    weight: float


class Classifier:
    """One or several networks whose scores are fused.

    Args:
        models: zoo names or checkpoint paths.
        fusion_weights: one for each model; the published ones by default within a fused zoo name, else equal.
        stream, layout, class_names: as for ``load_checkpoint``.
        classes: score only these, by name.
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
        layout: Layout | None = None,
        class_names: tuple[str, ...] | None = None,
        classes: Sequence[str] | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> None:
        if fusion_weights is not None and len(fusion_weights) != len(models):
            raise SkelactError(f"fusion weights: expected {len(models)}, one a model, found {len(fusion_weights)}")
        if fusion_weights is not None and (min(fusion_weights) < 0 or sum(fusion_weights) <= 0):
            raise SkelactError(
                f"fusion weights: expected positive numbers, found {', '.join(map(str, fusion_weights))}"
            )
        self.members = tuple(
            Member(
                found.published.name if found.published else str(name),
                found.path,
                _load_member(found.path, found.published, stream, layout, class_names),
                found.weight * weight,
            )
            for name, weight in zip(models, fusion_weights or [1.0] * len(models), strict=True)
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
        self._networks = [member.checkpoint.build().to(self.device) for member in self.members]

    @property
    def scored_names(self) -> tuple[str, ...]:
        """Names of the classes that are scored."""
        return tuple(self.class_names[i] for i in self.scored)

    @property
    def num_person(self) -> int:
        """Slots of the network that takes most."""
        return max(member.checkpoint.clips.num_person for member in self.members)

    def scores(
        self, keypoint: Array, keypoint_score: Array | None, img_shape: tuple[int, int] | None, num_clips: int
    ) -> Array:
        """Fused scores of one sample.

        Args:
            keypoint, keypoint_score, img_shape, num_clips: as for ``clips.prepare_clips``.

        Returns:
            (classes scored,) float64, sum 1: the weighted mean over networks of the mean over clips of the softmax.
        """
        import torch

        total = np.zeros(len(self.scored))
        for member, network in zip(self.members, self._networks, strict=True):
            clips = prepare_clips(keypoint, keypoint_score, img_shape, member.checkpoint.clips, num_clips)
            with torch.inference_mode():
                logits = network(torch.from_numpy(clips).to(self.device))[:, self.scored]
                softmax = logits.double().softmax(dim=1).mean(dim=0)
            total += member.weight * softmax.cpu().numpy()
        return total / total.sum()

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

    def check_sample(self, path: Path, sample: Annotation) -> None:
        """Refuse a pickle's sample of another layout or dimension; its name stands in the error."""
        for member in self.members:
            try:
                check_keypoint(sample.keypoint, member.checkpoint.clips)
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
                "provenance": member.checkpoint.provenance,
            }
            for member in self.members
        ]


def check_takes_video(name: str, clips: ClipSettings) -> None:
    """Refuse networks that can't use what a video gives."""
    if clips.dims == 3:
        raise SkelactError(
            f"{name} takes 3D skeletons ({clips.layout.num_joints} joints in metres), but a video gives 2D poses; "
            "take a 2D model, such as ntu60-2d-joint, or predict on a pickle of 3D skeletons"
        )
    if clips.layout.num_joints != COCO.num_joints:
        raise SkelactError(
            f"{name} takes layout {clips.layout.name!r} ({clips.layout.num_joints} joints), but the pose model gives "
            f"{COCO.num_joints} COCO keypoints; take a model for layout 'coco' or predict on a pickle of its layout"
        )


def _load_member(
    path: Path,
    published: PublishedModel | None,
    stream: str | None,
    layout: Layout | None,
    class_names: tuple[str, ...] | None,
) -> Checkpoint:
    if published is None:
        return load_checkpoint(path, stream, layout, class_names)
    checkpoint = load_checkpoint(path, published.stream, layout, class_names or published.class_names)
    provenance = {"source": published.url, "dataset": "NTU RGB+D 60 xsub", "top1": published.top1}
    if checkpoint.clips.dims == 2:
        provenance.update(NTU60_2D_TRAINING)
    return replace(checkpoint, provenance=provenance)


def inspect_checkpoint(
    model: str | Path, stream: str | None = None, layout: Layout | None = None
) -> list[dict[str, Any]]:
    """What is in a checkpoint, or in each of a fused zoo name: shape, classes, provenance, parameters, operations.

    Args:
        model: zoo name or checkpoint path.
        stream, layout: as for ``load_checkpoint``.

    Raises:
        SkelactError: it is missing or refused.
    """
    reports = []
    for found in resolve(model):
        checkpoint = _load_member(found.path, found.published, stream, layout, None)
        clips, network = checkpoint.clips, checkpoint.build()
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


def _class_indices(class_names: tuple[str, ...], classes: Sequence[str] | None) -> list[int]:
    if not classes:
        return list(range(len(class_names)))
    index = {name.lower(): i for i, name in enumerate(class_names)}
    unknown = [name for name in classes if name.strip().lower() not in index]
    if unknown:
        raise SkelactError(f"class {unknown[0]!r} is none of the model's {len(class_names)}: {', '.join(class_names)}")
    return sorted({index[name.strip().lower()] for name in classes})


# --- predict -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceResult:
    """What became of one source.

    Attributes:
        source: the path, or ``PICKLE#frame_dir``.
        sequence: everybody in it; None where it failed before.
        persons: ids of the tracks that filled the clip's slots.
        predictions: the answers; empty where the source failed.
        warnings: why to doubt the answers.
        error: why the source failed, or None.
    """

    source: str
    sequence: PoseSequence | None = None
    predictions: tuple[Prediction, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class PredictionSet:
    """Results of all sources, and what is needed to make them again."""

    results: tuple[SourceResult, ...]
    class_names: tuple[str, ...]
    models: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def predict(
    sources: str | Path | Sequence[str | Path],
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    *,
    pose_model: str | Path = DEFAULT_POSE_MODEL,
    device: str | None = None,
    tracker: str = DEFAULT_TRACKER,
    fusion_weights: Sequence[float] | None = None,
    stream: str | None = None,
    layout: Layout | None = None,
    class_names: tuple[str, ...] | None = None,
    classes: Sequence[str] | None = None,
    topk: int = 5,
    clips: int = 10,
    out_video: str | Path | None = None,
    progress: bool = True,
    on_result: Callable[[SourceResult], None] | None = None,
    debug: bool = False,
) -> PredictionSet:
    """Tell what people do in videos.

    Args:
        sources: video files, folders of them, or annotation pickles.
        model: zoo name or checkpoint path; several are fused.
        pose_model: anything that ultralytics' ``YOLO()`` takes, with 17 COCO keypoints.
        device: ``cuda``, ``mps``, ``cpu``; None chooses.
        tracker: one of ``tracking.TRACKERS`` or a YAML file.
        fusion_weights: one for each model.
        stream, layout, class_names: what a foreign checkpoint does not tell itself.
        classes: score only these.
        topk: how many classes each prediction lists.
        clips: 1, or 10 for the accuracy of the benchmarks.
        out_video: where to write the overlay; a folder if there are several sources.
        progress: bars on stderr.
        on_result: called with each result as it comes.
        debug: let unexpected errors of one source end the run, with their traceback.

    Returns:
        One result a source, in order; failed ones have an ``error``.

    Raises:
        SkelactError: a model can't be loaded, or there are no sources.
    """
    models = [model] if isinstance(model, str | Path) else list(model)
    named = [sources] if isinstance(sources, str | Path) else list(sources)
    found = list(expand_sources(named))
    classifier = Classifier(models, fusion_weights, stream, layout, class_names, classes, device, progress)
    out_paths = _overlay_paths(found, named, out_video)
    estimator: PoseModel | None = None

    def poses_of(path: Path) -> PoseSequence:
        nonlocal estimator
        if estimator is None:
            for member in classifier.members:
                check_takes_video(member.name, member.checkpoint.clips)
            probe_video(path)  # a file that is no video should not wait for the pose model
            estimator = PoseModel(pose_model, device)
        return estimate_poses(path, estimator, tracker, progress)

    results = []
    for path, out_path in zip(found, out_paths, strict=True):
        for result in _predict_source(path, poses_of, classifier, topk, clips, out_path, progress, debug):
            results.append(result)
            if on_result:
                on_result(result)
    return PredictionSet(
        tuple(results),
        classifier.scored_names,
        classifier.describe(),
        {
            **{
                "pose_model": str(pose_model),
                "tracker": tracker,
                "device": classifier.device,
                "clips": clips,
            },
            **(estimator.provenance if estimator else {}),
        },
        versions(),
    )


def _predict_source(
    path: Path,
    poses_of: Callable[[Path], PoseSequence],
    classifier: Classifier,
    topk: int,
    clips: int,
    out_path: Path | None,
    progress: bool,
    debug: bool,
) -> Iterable[SourceResult]:
    """The results of one path: one for a video, one a sample for a pickle. Never raises SkelactError."""
    try:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            annotations = load_annotations(path).annotations
            for sample in annotations:
                classifier.check_sample(path, sample)
            sequences: Iterable[PoseSequence] = (annotation_sequence(path, sample) for sample in annotations)
            several = len(annotations) > 1
        else:
            sequences, several = [poses_of(path)], False
        for sequence in sequences:
            try:
                result = predict_sequence(sequence, classifier, topk, clips)
                for warning in result.warnings:
                    logger.warning("%s: %s", result.source, warning)
                if out_path:
                    name = sequence.info.path.rpartition("#")[2].replace("/", "_")
                    _draw(path, result, out_path / f"{name}.mp4" if several else out_path, progress)
            except SkelactError as error:
                result = SourceResult(sequence.info.path, sequence, error=str(error))
            yield result
    except SkelactError as error:
        yield SourceResult(str(path), error=str(error))
    except Exception as error:
        if debug:
            raise
        yield SourceResult(str(path), error=f"{path}: {type(error).__name__}: {error} (--debug shows where)")


def predict_sequence(sequence: PoseSequence, classifier: Classifier, topk: int = 5, clips: int = 10) -> SourceResult:
    """Classify a sequence as one clip.

    Raises:
        SkelactError: the poses don't fit the model.
    """
    warnings = classifier.check(sequence)
    source, num_frames = sequence.info.path, sequence.num_frames
    persons = sequence.tracks[: classifier.num_person]
    if "pose_model" in sequence.provenance:
        persons = main_persons(sequence.tracks, sequence.info.img_shape, num_frames, classifier.num_person)
    if not persons:
        raise SkelactError(
            f"{source}: expected people, found nobody in {num_frames} frames; are they large enough to see, or does "
            "another --pose-model find them?"
        )
    keypoint, score = tracks_keypoint(persons, num_frames)
    scores = classifier.scores(keypoint, score, sequence.info.img_shape, clips)
    best = np.argsort(-scores, kind="stable")[:topk]
    names = classifier.scored_names
    top = tuple((names[i], float(scores[i])) for i in best)
    prediction = Prediction(
        start_s=0.0,
        stop_s=float(sequence.time_s[-1] + 1 / sequence.info.fps),
        track_ids=tuple(track.track_id for track in persons),
        class_name=top[0][0],
        score=top[0][1],
        top_k=top,
        scores=scores,
        class_names=names,
    )
    return SourceResult(source, sequence, (prediction,), tuple(warnings))


def expand_sources(sources: Sequence[str | Path]) -> Iterable[Path]:
    """Folders become the videos in them.

    Raises:
        SkelactError: there are no sources, or a folder has no videos.
    """
    if not sources:
        raise SkelactError("expected at least one video, folder or pose pickle")
    for source in map(Path, sources):
        if source.is_dir():
            videos = find_videos(source)
            if not videos:
                raise SkelactError(f"{source}: expected videos in this folder, found none")
            yield from videos
        else:
            yield source


def _overlay_paths(
    found: Sequence[Path], named: Sequence[str | Path], out_video: str | Path | None
) -> list[Path | None]:
    """Where each source's overlay goes: the path itself for one file, else a file in that folder."""
    if out_video is None:
        return [None] * len(found)
    out = Path(out_video)
    if len(found) == 1 and not out.is_dir() and Path(named[0]).is_file():
        return [out]
    folders = [Path(name) for name in named if Path(name).is_dir()]
    paths: list[Path | None] = []
    for path in found:
        inside = next((path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), Path(path.name))
        candidate = out / inside.with_suffix(".mp4")
        paths.append(out / f"{inside}.mp4" if candidate in paths else candidate)
    return paths


def _draw(path: Path, result: SourceResult, out: Path, progress: bool) -> None:
    from skelact.render import render_poses, render_video

    assert result.sequence is not None
    labels = [(p.start_s, p.stop_s, f"{p.class_name} {p.score:.2f}") for p in result.predictions]
    if path.suffix.lower() in PICKLE_SUFFIXES:
        render_poses(result.sequence, labels, out, progress)
    else:
        render_video(path, result.sequence, labels, out, progress)


def versions() -> dict[str, str]:
    """Of what takes part in an answer."""
    import torch

    return {
        "skelact": skelact.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
