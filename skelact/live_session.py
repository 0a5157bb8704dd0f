"""Who does what, as it happens: events from a camera, a stream or a video that plays.

In constant memory: of each person, only the poses of the last window are kept.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from skelact.classifier import Classifier, check_takes_video
from skelact.cleaning import OneEuro, clean_track
from skelact.errors import SkelactError
from skelact.pipeline import DEFAULT_POSE_MODEL, checked_threshold
from skelact.pose import PoseModel
from skelact.ranges import check_numbers
from skelact.roi import Region, as_regions, boxes_inside
from skelact.shipped import DEFAULT_MODEL
from skelact.skeleton import COCO, Layout
from skelact.streams import TIMEOUT_S, LatestFrames
from skelact.structures import Array, Frame, FramePoses, PoseSequence, Track, VideoInfo
from skelact.timeline import MIN_DURATION_S, NO_SUBJECT_S, Event, ScoreGrid, Segmenter, Subject, TimelineSettings
from skelact.tracking import DEFAULT_TRACKER, Mending, Tracker, make_track
from skelact.video import read_frames
from skelact.windows import STEP_S, as_lengths, score_windows, windows_until

SCHEMA_VERSION = 1
LATENCIES = 10_000  # of so many windows the median and the percentile are told
ASSUMED_FPS = 25.0  # of a stream, by which trackers count how long somebody may be lost
MIN_BBOX_SCORE = 0.3  # of somebody's mean box; who is less sure is nobody


@dataclass(frozen=True)
class LiveReport:
    """How a live run goes.

    Attributes:
        duration_s: since the first frame.
        num_read: frames that the source gave.
        num_seen: frames that were looked at.
        num_dropped: frames that were dropped, as a newer one was there.
        num_reconnects: how often the stream came back.
        num_windows: how many were classified.
        latency_s: from the end of a window to its label, median and 95th percentile of the latest 10,000 windows; NaN
            where there were none.
    """

    duration_s: float
    num_read: int
    num_seen: int
    num_dropped: int
    num_reconnects: int
    num_windows: int
    latency_s: tuple[float, float]

    def __str__(self) -> str:
        median, p95 = self.latency_s
        late = f", from a window's end to its label {median:.3f} s (median), {p95:.3f} s (95 %)"
        return (
            f"{self.duration_s:.1f} s: {self.num_seen} frames seen ({self.num_seen / max(self.duration_s, 1e-3):.1f} a "
            f"second), {self.num_dropped} dropped, {self.num_reconnects} reconnects; {self.num_windows} "
            f"windows{late if self.num_windows else ''}"
        )


@dataclass(frozen=True)
class View:
    """What can be shown of a moment.

    Attributes:
        frame: the picture.
        sequence: everybody in it.
        captions: class and score by track ids.
        regions: people elsewhere don't count.
    """

    frame: Frame
    sequence: PoseSequence
    captions: dict[Subject, str]
    regions: Sequence[Region] = ()


class _Ring:
    """The latest poses of one person.

    Attributes:
        poses: index of the frame, joints, their scores, box, its score, seconds.
        shown: the joints of the latest, smooth enough to be drawn.
    """

    def __init__(self, track_id: int) -> None:
        self.track_id = track_id
        self.shown: Array = np.zeros(())
        self.poses: deque[tuple[int, Array, Array, Array, float, float]] = deque()
        self._smooth = OneEuro()

    def add(self, index: int, poses: FramePoses, n: int, keep_s: float, is_smoothed: bool) -> None:
        """Take the n-th detection of a frame, and forget what is older than ``keep_s``."""
        keypoint, score, bbox = poses.keypoint[n], poses.keypoint_score[n], poses.bbox[n]
        height = max(float(bbox[3] - bbox[1]), 1.0)
        self.shown = self._smooth(poses.time_s, keypoint, score, height) if is_smoothed else keypoint
        self.poses.append((index, keypoint, score, bbox, float(poses.bbox_score[n]), poses.time_s))
        while self.poses[-1][-1] - self.poses[0][-1] > keep_s:
            self.poses.popleft()

    def track(self, times: dict[int, float], is_cleaned: bool) -> Track:
        """As a track on consecutive frames.

        Args:
            times: seconds of the latest frames, by their index.
            is_cleaned: clean the poses as a whole; all of them are in the past.
        """
        time_s = np.array([times[index] for index in range(self.poses[0][0], self.poses[-1][0] + 1)])
        track = make_track(self.track_id, [pose[:-1] for pose in self.poses], time_s, Mending.max_gap)
        if is_cleaned and len(time_s) > 1:
            track = clean_track(track, 1 / max(float(np.median(np.diff(time_s))), 1e-3))
        return track


class LiveSession:
    """Runs live; iterate over it to get the events.

    Args:
        source: index of a camera, address of a stream, or a video file.
        estimator: the pose model.
        classifier: the networks.
        settings: of windows and segments.
        tracker: one of ``tracking.TRACKERS`` or a YAML file.
        regions: only people with their feet in one of them count; everybody if there is none.
        clean: clean the poses of each window (``cleaning.clean_track``), and draw smooth ones (``cleaning.OneEuro``).
        duration_s: stop after so long; None for the end of the source.
        timeout_s, reconnect: as for ``streams.LatestFrames``.
        on_frame: called after each frame, with a function that gives what can be shown of it.
    """

    def __init__(
        self,
        source: str | int | Path,
        estimator: PoseModel,
        classifier: Classifier,
        settings: TimelineSettings,
        tracker: str = DEFAULT_TRACKER,
        regions: Sequence[Region] = (),
        clean: bool = True,
        duration_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
        reconnect: bool = True,
        on_frame: Callable[[Callable[[], View]], None] | None = None,
    ) -> None:
        for member in classifier.members:
            check_takes_video(member.name, member.checkpoint.clips)
        self.source, self.classifier, self.settings, self.regions = source, classifier, settings, regions
        self._estimator, self._tracker, self._clean = estimator, Tracker(tracker, ASSUMED_FPS), clean
        self._duration_s = math.inf if duration_s is None else duration_s
        self._on_frame = on_frame
        self._frames = LatestFrames(source, timeout_s, reconnect)
        self._segmenter = Segmenter(classifier.scored_names, settings)
        self._grid = ScoreGrid(settings.step_s)
        self._rings: dict[int, _Ring] = {}
        self._times: dict[int, float] = {}  # of the latest frames that were looked at
        self._keep_s = max(settings.window_s) + settings.step_s
        self._last_seen: dict[Subject, float] = {}  # when a subject was last classified
        self._num_seen = self._num_windows = self._num_steps = 0
        self._begun = False
        self._latencies: deque[float] = deque(maxlen=LATENCIES)

    def stop(self) -> None:
        """End soon; from another thread or a signal handler."""
        self._frames.stop()

    @property
    def report(self) -> LiveReport:
        """How it goes so far."""
        found = np.array(list(self._latencies))  # copied at once: another thread may ask
        median, p95 = np.percentile(found, (50, 95)) if len(found) else (math.nan, math.nan)
        frames = self._frames
        counts = (frames.num_read, self._num_seen, frames.num_dropped, frames.num_reconnects, self._num_windows)
        return LiveReport(frames.now_s(), *counts, (float(median), float(p95)))

    def __iter__(self) -> Iterator[Event]:
        """What begins and ends, as it does; what goes on ends with the session.

        Raises:
            SkelactError: the source can't be opened, or gives no frame in time; or the session was gone through before.
        """
        if self._begun:
            raise SkelactError("live: a session is gone through once; make another one")
        self._begun = True
        if self._frames.is_file:  # and won't wait while the network is compiled for its pictures
            self._estimator.detect(next(read_frames(str(self.source))))
        with self._frames:
            last_s = 0.0
            for frame in self._frames:
                now_s = self._frames.now_s()
                if frame:
                    self._see(frame)
                    now_s = last_s = frame.time_s
                if now_s >= (self._num_steps + 1) * self.settings.step_s:
                    yield from self._step(int(now_s / self.settings.step_s))
                if now_s >= self._duration_s:
                    break
        # The step that the source ended in, of which it has a part.
        number, stop_s = math.ceil(last_s / self.settings.step_s), last_s + 1 / ASSUMED_FPS
        events = self._step(number) if number > self._num_steps else []
        for subject in self._grid.subjects:
            events += self._feed(subject, math.inf)
        for event in [*events, *self._segmenter.close_all()]:
            yield replace(event, start_s=min(event.start_s, stop_s), stop_s=min(event.stop_s, stop_s))

    def _see(self, frame: Frame) -> None:
        """Find and follow everybody in a frame."""
        index, self._num_seen = self._num_seen, self._num_seen + 1
        poses = self._estimator.detect(frame)
        self._times[index] = frame.time_s
        self._img_shape = frame.image.shape[:2]
        inside = boxes_inside(poses.bbox, self.regions, self._img_shape)
        for n, track_id in enumerate(self._tracker.update(poses, frame.image)):
            if track_id and inside[n]:
                ring = self._rings.setdefault(int(track_id), _Ring(int(track_id)))
                ring.add(index, poses, n, self._keep_s, self._clean)
        oldest_s = frame.time_s - self._keep_s
        self._rings = {k: ring for k, ring in self._rings.items() if ring.poses[-1][-1] >= oldest_s}
        needed = min((ring.poses[0][0] for ring in self._rings.values()), default=index)
        self._times = {k: time_s for k, time_s in self._times.items() if k >= needed}
        if self._on_frame:
            self._on_frame(lambda: self._view(frame, index))

    def _step(self, number: int) -> list[Event]:
        """Classify the windows that stop at this step of time, the latest."""
        self._num_steps = number
        now_s = self._num_steps * self.settings.step_s
        tracks = [ring.track(self._times, self._clean) for ring in self._rings.values()]
        tracks = [track for track in tracks if _mean_score(track) >= MIN_BBOX_SCORE]
        tracks.sort(key=lambda track: track.track_id)  # who matters most may change, the name of a pair must not
        settings = self.settings
        windows = windows_until(tracks, now_s, self.classifier.num_person, settings.window_s, settings.subjects)
        if windows:
            scores = score_windows(windows, self.classifier, self._img_shape)
            for window, row in zip(windows, scores, strict=True):
                self._grid.add(window.track_ids, window.start_s, window.stop_s, row)
                self._last_seen[window.track_ids] = now_s
        # Steps until the middle of the longest window: later windows add nothing but their ends to them.
        events = [
            event
            for subject in self._grid.subjects
            for event in self._feed(subject, now_s - max(settings.window_s) / 2)
        ]
        for subject, seen_s in list(self._last_seen.items()):
            if now_s - seen_s > NO_SUBJECT_S:
                events += [*self._feed(subject, math.inf), *self._segmenter.close(subject)]
                del self._last_seen[subject]
        self._grid.keep(self._last_seen, self._rings)
        if windows:
            self._num_windows += len(windows)
            self._latencies.extend([self._frames.now_s() - now_s] * len(windows))
        return events

    def _feed(self, subject: Subject, until_s: float) -> list[Event]:
        cells = self._grid.pop(subject, until_s)
        return [
            event for cell in cells for event in self._segmenter.feed(subject, cell.start_s, cell.stop_s, cell.scores)
        ]

    def _view(self, frame: Frame, index: int) -> View:
        tracks = []
        for ring in self._rings.values():
            if ring.poses[-1][0] == index:
                _, _, score, bbox, bbox_score, time_s = ring.poses[-1]
                values = ring.shown[None], score[None], bbox[None], np.array([bbox_score], np.float32)
                tracks.append(Track(ring.track_id, 0, np.array([time_s]), *values))
        info = VideoInfo(str(self.source), self._img_shape, ASSUMED_FPS, 0)
        sequence = PoseSequence(info, tuple(tracks), 1, COCO.name, np.array([frame.time_s]))
        now = self._segmenter.open_segments()
        captions = {who: f"{event.class_name} {event.score:.2f}" for who, event in now.items()}
        return View(frame, sequence, captions, self.regions)


def _mean_score(track: Track) -> float:
    """Of the detections; where poses are interpolated there is none."""
    assert track.bbox_score is not None
    detected = track.bbox_score > 0
    return float(track.bbox_score[detected].mean()) if detected.any() else 0.0


def event_json(event: Event) -> dict[str, Any]:
    """One event as the command writes it: a line of JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "event": event.kind,
        "start_s": round(event.start_s, 3),
        "stop_s": round(event.stop_s, 3),
        "track_ids": list(event.subject),
        "class_name": event.class_name,
        "score": round(event.score, 4),
        "time": time.time(),
    }


def live(
    source: str | int | Path,
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    *,
    pose_model: str | Path = DEFAULT_POSE_MODEL,
    backend: str = "auto",
    precision: str | None = None,
    device: str | None = None,
    tracker: str = DEFAULT_TRACKER,
    fusion_weights: Sequence[float] | None = None,
    stream: str | None = None,
    layout: Layout | str | Path | None = None,
    class_names: Sequence[str] | None = None,
    classes: str | Sequence[str] | None = None,
    unknown_below: float | str | None = "auto",
    window_s: float | Sequence[float] | None = None,
    step_s: float = STEP_S,
    min_duration_s: float = MIN_DURATION_S,
    subjects: str = "both",
    regions: str | Region | Sequence[Region | str] = (),
    clean: bool = True,
    duration_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
    reconnect: bool = True,
    on_frame: Callable[[Callable[[], View]], None] | None = None,
) -> LiveSession:
    """Tell what people do as they do it.

        for event in skelact.live("rtsp://camera/stream"):
            print(event.kind, event.subject, event.class_name)

    Args:
        source: index of a camera, address of a stream (RTSP, HTTP, HLS), or a video file, which plays at its own rate,
            also from an address.
        model, pose_model, backend, precision, device, tracker, fusion_weights, stream, layout, class_names, classes,
            unknown_below: as for ``predict``.
        window_s, step_s, min_duration_s, subjects, regions: as for ``predict``.
        clean: clean the poses.
        duration_s: stop after so many seconds; None for the end of the source.
        timeout_s: how long a stream may not answer.
        reconnect: connect again to a stream that broke off.
        on_frame: called after each frame with a function that gives what can be shown of it.

    Returns:
        A session, whose iterator gives the events; its ``report`` tells of frames dropped and of latency.

    Raises:
        SkelactError: a model can't be loaded; while it runs: the source can't be opened.
    """
    check_numbers(optional=("duration_s",), duration_s=duration_s, timeout_s=timeout_s)
    models = [model] if isinstance(model, str | Path) else list(model)
    names = None if class_names is None else tuple(class_names)
    classifier = Classifier(models, fusion_weights, stream, layout, names, classes, device)
    threshold = classifier.unknown_below if unknown_below == "auto" else checked_threshold(unknown_below)
    windows = (classifier.window_s,) if window_s is None else as_lengths(window_s)
    settings = TimelineSettings(windows, step_s, min_duration_s, unknown_below=threshold, subjects=subjects)
    file = Path(source) if isinstance(source, str | Path) and Path(source).is_file() else None
    estimator = PoseModel(pose_model, device, backend, precision, live=True, calibrate_on=file)
    return LiveSession(
        source,
        estimator,
        classifier,
        settings,
        tracker,
        as_regions(regions),
        clean,
        duration_s,
        timeout_s,
        reconnect,
        on_frame,
    )
