"""The plain values that flow between stages. Shapes: T frames, V joints, M persons, C channels, N persons found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TICK_S = 1e-3  # containers round times to it


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself.

    Attributes:
        path: where it is.
        img_shape: (H, W) in pixels, as shown: rotation metadata is already applied.
        fps: average frames per second.
        num_frames: the container's claim, only a hint; 0 if it makes none.
        start_s: when its first picture is shown, in seconds from the start of the file; more than 0 where the sound
            begins earlier. All other times count from that picture.
    """

    path: str
    img_shape: tuple[int, int]
    fps: float
    num_frames: int
    start_s: float = 0.0


@dataclass(frozen=True)
class Frame:
    """One decoded picture: index from 0, presentation time in seconds from the first frame, BGR uint8 (H, W, 3)."""

    index: int
    time_s: float
    image: Array


@dataclass(frozen=True)
class FramePoses:
    """The people that a pose model found in one frame; none (N = 0) is legal.

    Attributes:
        frame_index: index of the frame, from 0.
        time_s: seconds from the first frame, by the container's timestamps.
        keypoint: (N, V, 2) pixels.
        keypoint_score: (N, V) in [0, 1].
        bbox: (N, 4) x1, y1, x2, y2 in pixels.
        bbox_score: (N,) in [0, 1].
    """

    frame_index: int
    time_s: float
    keypoint: Array
    keypoint_score: Array
    bbox: Array
    bbox_score: Array


@dataclass(frozen=True)
class Track:
    """One person through time, on consecutive frames from ``start_frame``.

    Attributes:
        track_id: from 1, unique in its video.
        start_frame: index of the first frame.
        time_s: (T,) seconds.
        keypoint: (T, V, C), C = 2 in pixels or 3 in metres; zeros where the person was not seen.
        keypoint_score: (T, V) in [0, 1], 0 in a gap; None for 3D.
        bbox: (T, 4) xyxy pixels, zeros in a gap; None where no box is known.
        bbox_score: (T,) in [0, 1], 0 in a gap and in interpolated frames; None where no box is known.
    """

    track_id: int
    start_frame: int
    time_s: Array
    keypoint: Array
    keypoint_score: Array | None
    bbox: Array | None = None
    bbox_score: Array | None = None

    @property
    def num_frames(self) -> int:
        """T, gaps included."""
        return len(self.keypoint)

    @property
    def stop_frame(self) -> int:
        """One past the last frame."""
        return self.start_frame + self.num_frames

    @property
    def present(self) -> Array:
        """(T,) bool: the frames in which the person has a pose."""
        return np.any(self.keypoint != 0, axis=(1, 2))

    def cut(self, first: int, last: int) -> Track:
        """The frames from ``first`` up to ``last``, counted from the track's own first."""
        part = self.changed(lambda values: values[first:last])
        return replace(part, start_frame=self.start_frame + first, time_s=self.time_s[first:last])

    def changed(self, change: Callable[[Array], Array]) -> Track:
        """The track with joints, scores and boxes (T, ...) changed alike, as far as they are known."""
        names = ("keypoint", "keypoint_score", "bbox", "bbox_score")
        new: dict[str, Any] = {name: change(old) for name in names if (old := getattr(self, name)) is not None}
        return replace(self, **new)


@dataclass(frozen=True)
class PoseSequence:
    """Everybody in one video, the input of the classifier.

    Attributes:
        info: of the source.
        tracks: the persons, the one who matters most first (``persons.rank_tracks``).
        num_frames: really decoded.
        layout: name of the joint layout.
        time_s: (num_frames,) seconds of every frame.
        provenance: pose model, its hash, tracker, versions.
        label: the class index, where one is known.
        faces: for each frame (N, 3), x, y and radius in pixels of the head of everybody found in it, tracked or not;
            empty where there is no picture.
        cuts_s: when the video cuts to another shot.
        warnings: what was wrong with the source.
    """

    info: VideoInfo
    tracks: tuple[Track, ...]
    num_frames: int
    layout: str
    time_s: Array
    provenance: dict[str, Any] = field(default_factory=dict)
    label: int | None = None
    faces: tuple[Array, ...] = ()
    cuts_s: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Until the end of the last frame."""
        return float(self.time_s[-1]) + 1 / self.info.fps if len(self.time_s) else 0.0

    def cut(self, start_s: float, stop_s: float) -> PoseSequence:
        """The frames from ``start_s`` up to ``stop_s``, with everybody seen in them; frames and times count from there.

        ``provenance`` and what is known of the whole source stay as they are.
        """
        first, last = (int(frame) for frame in np.searchsorted(self.time_s + TICK_S, (start_s, stop_s)))
        offset_s = self.time_s[first] if first < last else 0.0
        tracks = []
        for track in self.tracks:
            inside = [min(max(frame - track.start_frame, 0), track.num_frames) for frame in (first, last)]
            part = track.cut(inside[0], inside[1])
            if part.present.any():
                tracks.append(replace(part, start_frame=part.start_frame - first, time_s=part.time_s - offset_s))
        return replace(
            self,
            tracks=tuple(tracks),
            num_frames=last - first,
            time_s=self.time_s[first:last] - offset_s,
            faces=self.faces[first:last],
            cuts_s=tuple(cut_s - offset_s for cut_s in self.cuts_s if start_s < cut_s < stop_s),
        )


@dataclass(frozen=True)
class Prediction:
    """One answer: who did what, when.

    Attributes:
        start_s, stop_s: seconds from the first frame.
        track_ids: of the persons in the clip, by slot.
        class_name, score: the best class and its score; ``unknown`` in its place where that is too low.
        top_k: (class name, score), best first.
        scores: (num_classes,) in [0, 1], sum 1, in the order of ``class_names``.
        class_names: of the classes that were scored.
    """

    start_s: float
    stop_s: float
    track_ids: tuple[int, ...]
    class_name: str
    score: float
    top_k: tuple[tuple[str, float], ...]
    scores: Array
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Timeline:
    """The scores of a person, or of a pair, over time.

    Attributes:
        track_ids: of the people.
        start_s: (K,) where each step of time starts; there are none where nobody was seen.
        step_s: how long a step is.
        scores: (K, num_classes) in [0, 1], rows of sum 1.
    """

    track_ids: tuple[int, ...]
    start_s: Array
    step_s: float
    scores: Array


@dataclass(frozen=True)
class SourceResult:
    """What became of one source.

    Attributes:
        source: the path, or ``PICKLE#frame_dir``.
        sequence: everybody in it; None where it failed before.
        predictions: the answers; empty where the source failed.
        timelines: the scores over time of everybody and of every pair, where they were asked for.
        granularity: ``clip``, one answer, ``person``, one for each, or ``timeline``, segments.
        warnings: why to doubt the answers.
        error: why the source failed, or None.
        overlay: the video with people and answers drawn in, where one was asked for.
    """

    source: str
    sequence: PoseSequence | None = None
    predictions: tuple[Prediction, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    timelines: tuple[Timeline, ...] = ()
    granularity: str | None = None
    overlay: str | None = None


@dataclass(frozen=True)
class PredictionSet:
    """Results of all sources, and what is needed to make them again.

    Attributes:
        results: one a source, in order.
        class_names: of the scores of every prediction.
        models: each network's name, hash, stream and so on, in JSON types.
        settings: all else that the answers depend on, in JSON types.
        versions: of skelact, Python, torch and numpy.
    """

    results: tuple[SourceResult, ...]
    class_names: tuple[str, ...]
    models: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
