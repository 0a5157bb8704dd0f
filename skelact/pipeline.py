"""Video to poses to predictions."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import skelact
from skelact.annotations import PICKLE_FPS, Annotation, fps_of, open_annotations
from skelact.answers import LONGEST_CLIP_S, checked_granularity, predict_sequence
from skelact.classifier import Classifier, check_takes_video
from skelact.cleaning import Cleaning, clean_tracks
from skelact.clips import HOLE_FRAMES
from skelact.elan import to_eaf
from skelact.errors import SkelactError
from skelact.faces import faces_between, find_faces
from skelact.files import check_writable, not_a_source, sha256_of
from skelact.kinds import PICKLE_SUFFIXES, VIDEO_SUFFIXES
from skelact.linking import clothes_colour
from skelact.persons import rank_tracks
from skelact.pose import PoseModel, check_backend, choose_pose_model
from skelact.ranges import RANGES, check_numbers
from skelact.roi import Region, as_regions, keep_inside
from skelact.runner import Lost, check_engine, run_tasks
from skelact.shipped import DEFAULT_MODEL
from skelact.shots import difference, find_cuts, thumbnail
from skelact.skeleton import COCO, Layout, as_layout
from skelact.structures import (
    Array,
    Frame,
    FramePoses,
    PoseSequence,
    PredictionSet,
    SourceResult,
    Track,
    VideoInfo,
)
from skelact.subtitles import to_srt, to_vtt
from skelact.timeline import MIN_DURATION_S, TimelineSettings
from skelact.tracking import DEFAULT_TRACKER, Mending, Tracker, build_tracks, stretch, tracker_key
from skelact.video import find_videos, probe_video, read_frames
from skelact.windows import STEP_S, as_lengths
from skelact.writers import answers_before, to_json, versions, write_json, write_text

logger = logging.getLogger("skelact")

DEFAULT_POSE_MODEL = "auto"
FPS_TOLERANCE = 0.01  # of a rate that a container tells
MIN_HOLE_S = 1.0  # without a frame for so long, and for ``HOLE_FRAMES``, nothing is known
MIN_POSE_FPS = 12.5  # poses a second with which people are still followed
MP4_SUFFIXES = frozenset((".mp4", ".m4v", ".mov"))
NO_FILE_NAME = re.compile(r'[\x00-\x1f"*/:<>?\\|]')  # what Windows, or no system, has in names of files
OUTPUTS = {"out_video": ".mp4", "srt": ".srt", "vtt": ".vtt", "eaf": ".eaf"}  # files for one source each
SUBTITLES: dict[str, Callable[[SourceResult], str]] = {"srt": to_srt, "vtt": to_vtt, "eaf": to_eaf}


# --- poses -------------------------------------------------------------------------------------------------------


class FollowedFrames:
    """The frames of a video, followed: who is where in each, and what tells people and shots apart.

    Args:
        tracker: one of ``tracking.TRACKERS`` or a YAML file.
        info: of the video.
        stride: people are looked for in every so many frames.
    """

    def __init__(self, tracker: str, info: VideoInfo, stride: int = 1) -> None:
        self.info, self.stride, self.fps = info, stride, info.fps / stride
        self.tracker = Tracker(tracker, self.fps)
        self.time_s: list[float] = []
        self._differences: list[float] = []
        self._thumbnail: Array | None = None
        self._frames: list[FramePoses] = []
        self._ids: list[Array] = []
        self._colours: list[Array] = []

    def look_through(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Look through all frames for cuts, and give back those in which to look for people."""
        for frame in frames:
            before, self._thumbnail = self._thumbnail, thumbnail(frame.image)
            self._differences.append(0.0 if before is None else difference(before, self._thumbnail))
            self.time_s.append(frame.time_s)
            if frame.index % self.stride == 0:
                yield frame

    def follow(self, frame: Frame, poses: FramePoses) -> None:
        """Take in who was found in the next of these."""
        self._frames.append(poses)
        self._ids.append(self.tracker.update(poses, frame.image))
        self._colours.append(clothes_colour(frame.image, poses.keypoint))

    def sequence(self, provenance: Mapping[str, Any], clean: bool) -> PoseSequence:
        """Everybody in all frames, mended, ranked by ``persons.rank_tracks``, and cleaned if wanted."""
        mending = Mending(max_gap=max(1, round(Mending.max_gap / self.stride)))
        times = np.array(self.time_s)
        info = replace(self.info, fps=_mean_fps(times, self.info.fps))
        fps = info.fps / self.stride
        cuts = sorted({*find_cuts(self._differences), *_holes(times)})
        cuts_s = tuple(times[cuts].tolist())
        tracks = build_tracks(
            self._frames, self._ids, fps, self._colours, mending, [-(-cut // self.stride) for cut in cuts]
        )
        if clean:
            tracks = clean_tracks(tracks, fps, cuts_s)
        tracks = tuple(stretch(track, self.stride, times) for track in tracks)
        return PoseSequence(
            info=info,
            tracks=rank_tracks(tracks, self.info.img_shape, len(times)),
            num_frames=len(times),
            layout=COCO.name,
            time_s=times,
            provenance={
                **provenance,
                "tracker": self.tracker.name,
                "stride": self.stride,
                "cleaning": asdict(Cleaning()) if clean else None,
            },
            faces=self._faces(len(times)),
            cuts_s=cuts_s,
        )

    def _faces(self, num_frames: int) -> tuple[Array, ...]:
        """The circles around all heads, for each frame of the video."""
        keypoint, bbox = (np.concatenate([getattr(each, of) for each in self._frames]) for of in ("keypoint", "bbox"))
        ends = np.cumsum([len(each.bbox) for each in self._frames])
        found = np.split(find_faces(keypoint, bbox), ends[:-1])
        if self.stride == 1:
            return tuple(found)
        places = (divmod(k, self.stride) for k in range(num_frames))
        return tuple(
            faces_between(found[k], found[min(k + 1, len(found) - 1)], past / self.stride) if past else found[k]
            for k, past in places
        )


def _holes(times: Array) -> list[int]:
    """Frames before which none came for so long that what was before tells nothing: a paused recording."""
    steps = np.diff(times)
    return (np.flatnonzero(steps >= max(MIN_HOLE_S, HOLE_FRAMES * np.median(steps))) + 1).tolist() if len(steps) else []


def _mean_fps(times: Array, told: float) -> float:
    """Of frames at (T,) seconds, without holes; what the container told where it is right: times may be rounded."""
    steps = np.delete(np.diff(times), np.array(_holes(times), int) - 1)
    mean = 1 / float(steps.mean()) if steps.sum() > 0 else told
    return mean if abs(mean - told) > FPS_TOLERANCE * told else told


def estimate_poses(
    source: str | Path,
    pose_model: PoseModel,
    tracker: str = DEFAULT_TRACKER,
    progress: bool = True,
    stride: int = 1,
    max_frames: int | None = None,
    clean: bool = True,
) -> PoseSequence:
    """Find, track and rank everybody in a video.

    Args:
        source: a video file.
        pose_model: the estimator.
        tracker: one of ``tracking.TRACKERS`` or a YAML file.
        progress: draw a bar on stderr, if that is a terminal.
        stride: pose every so many frames; the others are interpolated.
        max_frames: take no more; None for all.
        clean: take outliers and jitter away (``cleaning.clean_track``).

    Returns:
        The sequence, its tracks ranked by ``persons.rank_tracks``; with none where nobody is there.

    Raises:
        SkelactError: the file is missing, no video, or nothing of it can be decoded.
    """
    info = probe_video(source)
    followed = FollowedFrames(tracker, info, stride)
    problems: list[str] = []
    total = min(info.num_frames or sys.maxsize, max_frames or sys.maxsize)
    frames: Iterable[Frame] = tqdm(
        itertools.islice(read_frames(source, problems.append), max_frames),
        desc=Path(source).name,
        total=total if total < sys.maxsize else None,
        unit=" frames",
        disable=None if progress else True,
    )
    for frame, poses in pose_model.detect_each(followed.look_through(frames)):
        followed.follow(frame, poses)
    sequence = followed.sequence(pose_model.provenance, clean)
    if sequence.info.fps / stride < MIN_POSE_FPS:
        looked_at = f" and a stride of {stride}" if stride > 1 else ""
        problems.append(
            f"expected {MIN_POSE_FPS:g} frames a second at least, found {sequence.info.fps:.3g}{looked_at}: people may "
            "be mixed up, and fast movements missed"
        )
    return replace(sequence, warnings=tuple(problems))


def enough_stride(info: VideoInfo, classifier: Classifier, granularity: str, timeline: TimelineSettings) -> int:
    """The largest stride that leaves the networks as many poses as they look at, and the tracker enough to follow.

    Args:
        info: of the video.
        classifier: whose clips are of so many frames.
        granularity: of the answer; a clip is the whole video or a window, a window of a timeline is one clip.
        timeline: its windows.
    """
    duration_s = info.num_frames / info.fps if info.num_frames else np.inf
    whole = granularity in ("clip", "person") or (granularity == "auto" and duration_s <= LONGEST_CLIP_S)
    clip_s = min(duration_s, classifier.longest_clip_s) if whole else min(timeline.window_s)
    needed_fps = max(MIN_POSE_FPS, max(member.checkpoint.clips.clip_len for member in classifier.members) / clip_s)
    return max(1, int(info.fps / needed_fps + 1e-6))


def annotation_sequence(
    path: str | Path, annotation: Annotation, layout: str | None, clean: bool = False
) -> PoseSequence:
    """A sample of a pose pickle as a sequence; its persons keep their order, empty slots are left out.

    Args:
        path: of the pickle.
        annotation: the sample.
        layout: name of its layout, as far as it is known.
        clean: take outliers and jitter away; published results are those of poses as they are.
    """
    T = annotation.keypoint.shape[1]
    told = annotation.extra.get("fps")
    fps = fps_of(annotation.extra) if told else PICKLE_FPS
    if fps is None:
        raise SkelactError(
            f"{path}: sample {annotation.frame_dir}, field 'fps': expected {RANGES['fps']}, found {told!r}"
        )
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
    if clean:
        tracks = clean_tracks(tracks, fps)
    info = VideoInfo(f"{path}#{annotation.frame_dir}", annotation.img_shape or (1080, 1920), fps, T)
    return PoseSequence(
        info,
        tracks,
        T,
        layout or "unknown",
        time_s,
        {"poses": Path(path).name, **({"cleaning": asdict(Cleaning())} if clean else {})},
        annotation.label,
    )


# --- predict -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PredictSettings:
    """All that an answer depends on besides the source; the arguments of ``predict``."""

    models: tuple[str, ...]
    pose_model: str
    backend: str
    precision: str | None
    device: str | None
    tracker: str
    stride: int | str
    clean: bool | None
    fusion_weights: tuple[float, ...] | None
    stream: str | None
    layout: Layout | None
    class_names: tuple[str, ...] | None
    classes: tuple[str, ...] | None
    topk: int
    clips: int
    unknown_below: float | str | None
    granularity: str
    window_s: tuple[float, ...] | None
    step_s: float
    min_duration_s: float
    subjects: str
    regions: tuple[Region, ...]
    blur_faces: bool
    debug: bool
    pose_model_chosen: str | None = None  # why, where it was chosen already


class Predictor:
    """Loaded models that answer for one source after the other. The pose model is loaded when a video needs it."""

    def __init__(self, settings: PredictSettings, progress: bool) -> None:
        self.settings = settings
        self.progress = progress
        self.classifier = Classifier(
            settings.models,
            settings.fusion_weights,
            settings.stream,
            settings.layout,
            settings.class_names,
            settings.classes,
            settings.device,
            progress,
        )
        auto = settings.unknown_below == "auto"
        self.unknown_below = self.classifier.unknown_below if auto else checked_threshold(settings.unknown_below)
        self.timeline = TimelineSettings(
            (self.classifier.window_s,) if settings.window_s is None else settings.window_s,
            settings.step_s,
            settings.min_duration_s,
            unknown_below=self.unknown_below,
            subjects=settings.subjects,
        )
        self._pose_model: PoseModel | None = None

    def poses(self, path: Path) -> PoseSequence:
        """Everybody in a video."""
        if self._pose_model is None:
            for member in self.classifier.members:
                check_takes_video(member.name, member.checkpoint.clips)
            probe_video(path)  # a file that is no video should not wait for the pose model
            self._pose_model = PoseModel(
                self.settings.pose_model,
                self.settings.device,
                self.settings.backend,
                self.settings.precision,
                calibrate_on=path,
                chosen=self.settings.pose_model_chosen,
            )
        stride = self.settings.stride
        if stride == "auto":
            stride = enough_stride(probe_video(path), self.classifier, self.settings.granularity, self.timeline)
        clean = self.settings.clean is not False
        return estimate_poses(path, self._pose_model, self.settings.tracker, self.progress, int(stride), clean=clean)

    def answer(self, path: Path, outputs: Mapping[str, Path] | None = None) -> Iterator[SourceResult]:
        """The results of one path: one for a video, one a sample for a pickle. Never raises SkelactError.

        Args:
            path: the source.
            outputs: where to write what (``OUTPUTS``); if a pickle has several samples, into folders of these names
                without their suffixes.
        """
        outputs = outputs or {}
        try:
            if path.suffix.lower() not in PICKLE_SUFFIXES:
                yield self._classify(path, self.poses(path), outputs)
                return
            dataset = open_annotations(path)
            annotations, told = dataset.annotations, None if dataset.layout_guessed else dataset.layout
            self.classifier.check_layout(path, told)
            for sample in annotations:
                if sample.keypoint.size:  # nobody is told of sample by sample
                    self.classifier.check_sample(path, sample)
            for k, sample in enumerate(annotations):
                own = outputs
                if len(annotations) > 1:
                    name = f"{k:04d}_{NO_FILE_NAME.sub('_', sample.frame_dir)}"
                    own = {
                        kind: out.parent / out.name.removesuffix(OUTPUTS[kind]) / f"{name}{OUTPUTS[kind]}"
                        for kind, out in outputs.items()
                    }
                layout = told or self.classifier.members[0].checkpoint.clips.layout.name
                yield self._classify(path, annotation_sequence(path, sample, layout, self.settings.clean is True), own)
        except SkelactError as error:
            yield SourceResult(str(path), error=str(error))
        except Exception as error:
            if self.settings.debug:
                raise
            yield SourceResult(str(path), error=f"{path}: {type(error).__name__}: {error} (--debug shows where)")

    def _classify(self, path: Path, sequence: PoseSequence, outputs: Mapping[str, Path]) -> SourceResult:
        """One result; an output that can't be written is its error and takes nothing else from it."""
        settings = self.settings
        sequence = keep_inside(sequence, settings.regions)
        result = SourceResult(sequence.info.path, sequence)
        try:
            result = predict_sequence(
                sequence,
                self.classifier,
                settings.topk,
                settings.clips,
                self.unknown_below,
                settings.granularity,
                self.timeline,
                self.progress,
            )
            for kind, out in outputs.items():
                if kind == "out_video":
                    from skelact.render import draw_result

                    draw_result(path, result, out, self.progress, settings.regions, settings.blur_faces)
                    result = replace(result, overlay=str(out))
                else:
                    write_text(SUBTITLES[kind](result), str(out))
        except SkelactError as error:
            return replace(result, error=str(error))
        return result


def predict(
    sources: str | Path | Sequence[str | Path],
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    *,
    pose_model: str | Path = DEFAULT_POSE_MODEL,
    backend: str = "auto",
    precision: str | None = None,
    device: str | None = None,
    tracker: str = DEFAULT_TRACKER,
    stride: int | str = 1,
    clean: bool | None = None,
    fusion_weights: Sequence[float] | None = None,
    stream: str | None = None,
    layout: Layout | str | Path | None = None,
    class_names: Sequence[str] | None = None,
    classes: str | Sequence[str] | None = None,
    topk: int = 5,
    clips: int = 10,
    unknown_below: float | str | None = "auto",
    granularity: str = "auto",
    window_s: float | Sequence[float] | None = None,
    step_s: float | None = None,
    min_duration_s: float | None = None,
    subjects: str | None = None,
    regions: str | Region | Sequence[Region | str] = (),
    out_video: str | Path | None = None,
    blur_faces: bool = False,
    srt: str | Path | None = None,
    vtt: str | Path | None = None,
    eaf: str | Path | None = None,
    json_dir: str | Path | None = None,
    workers: int = 1,
    engine: str = "local",
    ray_address: str | None = None,
    progress: bool = True,
    on_result: Callable[[SourceResult], None] | None = None,
    debug: bool = False,
    command: Sequence[str] = (),
) -> PredictionSet:
    """Tell what people do in videos.

        for result in skelact.predict("videos/", out_video="overlays/").results:
            for answer in result.predictions:
                print(result.source, answer.start_s, answer.stop_s, answer.track_ids, answer.class_name, answer.score)

    Args:
        sources: video files, folders of them, or annotation pickles.
        model: name of ``skelact weights list``, checkpoint or export; several are fused.
        pose_model: anything that ultralytics' ``YOLO()`` takes, with 17 COCO keypoints; ``auto`` is ``yolo26n-pose.pt``
            where it is in the cache or can be downloaded, else the one that ships.
        backend: what runs a ``.pt``: ``auto``, ``torch`` or ``openvino``.
        precision: of the pose network: ``fp32``, ``fp16``, ``bf16`` or ``int8``; None is fp16 on CUDA, else fp32.
        device: ``cuda``, ``cuda:1``, ``mps`` or ``cpu``; None chooses.
        tracker: one of ``tracking.TRACKERS`` or a YAML file.
        stride: pose every so many frames and interpolate the others; ``auto`` skips what is not needed
            (``enough_stride``).
        clean: take outliers and jitter out of the poses; None does so with those of videos, not with those of pickles.
        fusion_weights: one for each model.
        stream, layout, class_names: what a foreign checkpoint does not tell itself; a layout also by its name or file.
        classes: score only these.
        topk: how many classes each prediction lists.
        clips: of each sample; 1 is fastest, 10 has the accuracy of the benchmarks.
        unknown_below: a best score below it is answered with ``unknown``. ``auto`` takes the threshold that was found
            on the model's validation samples, if there is one (``Classifier.unknown_below``); None never does it.
        granularity: ``clip``, one answer, ``person``, one for each person, ``timeline``, segments in time, or ``auto``,
            a clip up to ``answers.LONGEST_CLIP_S``, else, or where something is said of timelines, a timeline.
        window_s, step_s, min_duration_s, subjects: of timelines, as in ``timeline.TimelineSettings``; by default
            windows are as long as the clips that the models were trained on (``Classifier.window_s``).
        regions: polygons in pixels, or in shares of width and height; only people with their feet in one of them count.
            Also as text, ``x1,y1 x2,y2 x3,y3``.
        out_video: where to write the overlay; a folder if there are several sources.
        blur_faces: hide the faces of everybody in the overlay.
        srt, vtt, eaf: where to write subtitles or ELAN's annotations; folders if there are several sources.
        json_dir: a folder for one JSON a source, written as each is done. A source whose JSON is there, from the same
            file and the same settings and with the outputs wanted, is not done again: its answers are read from there.
            What is returned has neither people nor timelines then, which are in the JSONs.
        workers, engine, ray_address: as in ``runner.run_tasks``.
        progress: bars on stderr.
        on_result: called with each result as it comes; not with those of sources that were done before.
        debug: let unexpected errors of one source end the run, with their traceback.
        command: the command line, for the JSONs in ``json_dir``.

    Returns:
        One result a source, in order; failed ones have an ``error``.

    Raises:
        SkelactError: a setting is none, a model can't be loaded, or there are no sources.
    """
    named = [sources] if isinstance(sources, str | Path) else list(sources)
    check_numbers(topk=topk, clips=clips, workers=workers)
    check_backend(backend, precision)
    check_engine(engine, device)
    of_timelines = {"window_s": window_s, "step_s": step_s, "min_duration_s": min_duration_s, "subjects": subjects}
    given = [name for name, value in of_timelines.items() if value is not None]
    if given and checked_granularity(granularity) != "timeline":
        if granularity != "auto":
            raise SkelactError(f"{given[0]} is of timelines: expected granularity timeline, found {granularity}")
        granularity = "timeline"
    found = list(expand_sources(named))
    settings = PredictSettings(
        models=tuple(map(str, [model] if isinstance(model, str | Path) else model)),
        pose_model=str(pose_model),
        backend=backend,
        precision=precision,
        device=device,
        tracker=tracker,
        stride=_checked_stride(stride),
        clean=clean,
        fusion_weights=None if fusion_weights is None else tuple(fusion_weights),
        stream=stream,
        layout=as_layout(layout),
        class_names=None if class_names is None else tuple(class_names),
        classes=None if classes is None else ((classes,) if isinstance(classes, str) else tuple(classes)) or None,
        topk=topk,
        clips=clips,
        unknown_below=unknown_below,
        granularity=checked_granularity(granularity),
        window_s=None if window_s is None else as_lengths(window_s),
        step_s=STEP_S if step_s is None else step_s,
        min_duration_s=MIN_DURATION_S if min_duration_s is None else min_duration_s,
        subjects="both" if subjects is None else subjects,
        regions=as_regions(regions),
        blur_faces=blur_faces,
        debug=debug,
    )
    wanted = {"out_video": out_video, "srt": srt, "vtt": vtt, "eaf": eaf}
    outputs: list[dict[str, Path]] = [{} for _ in found]
    for kind, out in wanted.items():
        for own, path in zip(outputs, _output_paths(found, named, out, OUTPUTS[kind]), strict=True):
            if path:
                if kind == "out_video" and path.suffix.lower() in VIDEO_SUFFIXES - MP4_SUFFIXES:
                    raise SkelactError(f"{path}: an overlay is an mp4; expected a name that ends in .mp4")
                check_writable(path, [*settings.models, pose_model])
                own[kind] = path
    has_videos = any(path.suffix.lower() not in PICKLE_SUFFIXES for path in found)
    if has_videos:
        Tracker(tracker)  # a wrong one ends all at once, before anything is loaded
    predictor = Predictor(settings, progress)
    if has_videos and (json_dir or workers > 1 or engine != "local"):  # once for all workers, and for the keys
        chosen, why = choose_pose_model(pose_model)
        settings = replace(settings, pose_model=chosen, pose_model_chosen=why)
        predictor.settings = settings

    models = predictor.classifier.describe()  # once: it reads their files

    def summary(results: Iterable[SourceResult]) -> PredictionSet:
        told = {
            "pose_model": str(pose_model),
            "tracker": tracker,
            "stride": stride,
            "clean": clean,
            "device": predictor.classifier.device,
            "clips": clips,
            "unknown_below": predictor.unknown_below,
            "granularity": granularity,
            "timeline": {key: value for key, value in asdict(predictor.timeline).items() if key != "unknown_below"},
            "regions": [region.corners for region in settings.regions],
        }
        return PredictionSet(tuple(results), predictor.classifier.scored_names, models, told, versions())

    jsons = _output_paths(found, named, json_dir, ".json", into_folder=True)
    keys = _result_keys(found, settings, models) if json_dir else [""] * len(found)
    before = [
        answers_before(path, key, own) if path and key else None
        for path, key, own in zip(jsons, keys, outputs, strict=True)
    ]
    by_source = {k: answers for k, answers in enumerate(before) if answers is not None}
    if by_source:
        logger.info("%d of %d sources were done before, %s tells of them", len(by_source), len(found), json_dir)
    todo = [k for k in range(len(found)) if k not in by_source]
    items = [(found[k], outputs[k], settings) for k in todo]

    def results_of() -> Iterator[tuple[int, Iterable[SourceResult] | Lost]]:
        if engine == "local" and workers <= 1:
            yield from ((k, predictor.answer(path, own)) for k, (path, own, _) in enumerate(items))
        else:
            total = tqdm(desc="sources", total=len(items), unit=" sources", disable=None if progress else True)
            with total as bar:
                for done in run_tasks(_answer_task, items, workers, engine, ray_address, device):
                    bar.update()
                    yield done

    for k, answers in results_of():
        source = todo[k]
        if isinstance(answers, Lost):
            answers = [SourceResult(str(found[source]), error=f"{found[source]}: {answers.reason}")]
        for result in answers:
            by_source.setdefault(source, []).append(result)
            for warning in result.warnings:
                logger.warning("%s: %s", result.source, warning)
            if on_result:
                on_result(result)
        path = jsons[source]
        if path:
            failed = any(result.error is not None for result in by_source[source])  # to be tried again
            key = "" if failed else keys[source]
            written = {kind: str(out.absolute()) for kind, out in outputs[source].items()}
            told = to_json(summary(by_source[source]), list(command))
            try:
                write_json({"key": key, "outputs": written, **told}, str(path))
            except SkelactError as error:  # the others go on
                logger.warning("%s", error)
                by_source[source][-1] = replace(by_source[source][-1], error=str(error))
            else:  # the poses of many long videos would fill the memory
                by_source[source] = [replace(result, sequence=None, timelines=()) for result in by_source[source]]
    return summary(result for source in sorted(by_source) for result in by_source[source])


def _answer_task(item: tuple[Path, dict[str, Path], PredictSettings]) -> list[SourceResult]:
    """One source's results. Runs in workers."""
    path, outputs, settings = item
    return list(_predictor(settings).answer(path, outputs))


@functools.cache
def _predictor(settings: PredictSettings) -> Predictor:
    """Loaded once in each worker."""
    return Predictor(settings, progress=False)


def _result_keys(paths: Sequence[Path], settings: PredictSettings, models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each changes with the source's file, the settings and the networks; empty where there is no such file."""
    pose_model = Path(settings.pose_model)
    networks = [model["sha256"] for model in models] + ([sha256_of(pose_model)] if pose_model.exists() else [])
    same = str(replace(settings, pose_model_chosen=None, tracker=tracker_key(settings.tracker)))

    def key(path: Path) -> str:
        try:
            stat = path.stat()
        except OSError:
            return ""
        parts = [same, networks, skelact.__version__, stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    return [key(path) for path in paths]


def _checked_stride(stride: int | str) -> int | str:
    if stride == "auto":
        return stride
    if stride in RANGES["stride"]:
        return int(stride)
    raise SkelactError(f'stride: expected {RANGES["stride"]}, or "auto", found {stride!r}')


def checked_threshold(value: float | str | None) -> float | None:
    """A score below which an answer is ``unknown``, or None.

    Raises:
        SkelactError: it is no score.
    """
    if value is None:
        return None
    if isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise SkelactError(f'unknown_below: expected a score in [0, 1], "auto" or None, found {value!r}')


def expand_sources(sources: Sequence[str | Path]) -> Iterable[Path]:
    """Folders become the videos in them.

    A folder among others that has none, or may not be read, stays, to be told of like a video that can't be read.

    Raises:
        SkelactError: there are no sources, or the only one is such a folder.
    """
    if not sources:
        raise SkelactError("expected at least one video, folder or pose pickle")
    for source in map(Path, sources):
        videos = [source]
        if source.is_dir():
            try:
                videos = find_videos(source)
            except SkelactError:
                if len(sources) == 1:
                    raise
            if not videos and len(sources) == 1:
                raise SkelactError(f"{source}: expected videos in this folder, found none")
        yield from videos or [source]


def _output_paths(
    found: Sequence[Path],
    named: Sequence[str | Path],
    out: str | Path | None,
    suffix: str,
    into_folder: bool = False,
) -> list[Path | None]:
    """Where each source's output goes: the path itself for one file, else one in that folder for each."""
    if out is None:
        return [None] * len(found)
    into_folder |= str(out).endswith(("/", os.sep))
    out = Path(out)
    if len(found) == 1 and not into_folder and not out.is_dir() and not Path(named[0]).is_dir():
        return [not_a_source(out, found)]
    folders = [Path(name) for name in named if Path(name).is_dir()]
    inodes = {path.stat().st_ino for path in found if path.is_file()}
    taken: set[str] = set()
    paths: list[Path | None] = []
    for path in found:
        inside = next((path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), Path(path.name))
        stem = inside.with_suffix("")
        names = itertools.chain((stem, inside), (f"{stem}-{n}" for n in itertools.count(2)))
        candidates = (out / f"{name}{suffix}" for name in names)
        own = next(path for path in candidates if _folded(path) not in taken)
        if os.path.isfile(own) and own.stat().st_ino in inodes:  # to compare each with each takes minutes for thousands
            not_a_source(own, found)
        taken.add(_folded(own))
        paths.append(own)
    return paths


def _folded(path: Path) -> str:
    """The same for paths that are one file where case does not count, as on Windows and macOS."""
    return str(path).casefold()
