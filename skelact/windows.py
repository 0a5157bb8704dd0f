"""Windows of a few seconds in which somebody, or two who are near each other, are classified.

Poses are resampled by their timestamps, so that the same movement gives the same clip at any frame rate. A long video
lays its windows with ``lay_windows``; who sees no further than now takes ``windows_until``. Both are scored by
``score_windows``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skelact.clips import resample
from skelact.errors import SkelactError
from skelact.persons import boxed, centre_distance
from skelact.ranges import check_numbers
from skelact.structures import Array, Track

WINDOW_S = 2.0  # about the length of the clips that action models are trained on
STEP_S = 0.5
RATE = 30.0  # poses a second in a window: the frame rate of the field's datasets
MIN_SEEN = 0.5  # share of a window in which its people have to be seen
PAIR_DISTANCE = 1.5  # two people are a pair where their centres are no farther apart, in body heights
NEIGHBOURS = 4  # and one of them is among the so many nearest to the other: in a crowd all are near all
SUBJECTS = ("both", "persons", "pairs")
_EPSILON_S = 1e-6


@dataclass(frozen=True)
class Window:
    """One person, or a pair, for some seconds.

    Attributes:
        start_s, stop_s: where the window lies.
        tracks: the people, one or two, the more important first. Their poses may go beyond the window.
    """

    start_s: float
    stop_s: float
    tracks: tuple[Track, ...]

    @property
    def track_ids(self) -> tuple[int, ...]:
        """Of the people: the window's subject."""
        return tuple(track.track_id for track in self.tracks)


class Scorer(Protocol):
    """What ``score_windows`` needs of ``classifier.Classifier``."""

    @property
    def num_person(self) -> int:
        """Slots for people in a clip."""

    def scores_of(
        self,
        samples: Sequence[tuple[Array, Array | None]],
        img_shape: tuple[int, int] | None,
        num_clips: int,
    ) -> Array:
        """Scores (N, classes) of N samples, each keypoint (M, T, V, C) and keypoint_score (M, T, V)."""


# --- laying ------------------------------------------------------------------------------------------------------


def lay_windows(
    tracks: Sequence[Track],
    num_person: int,
    window_s: Sequence[float] = (WINDOW_S,),
    step_s: float = STEP_S,
    subjects: str = "both",
) -> Iterator[Window]:
    """All windows of a sequence, by the time at which they stop.

    Windows stop at multiples of ``step_s``; one more lies at the start, and one at the end, of each track. Somebody who
    is seen for less than a window has one, as long as they are seen. Windows in which somebody is seen for less than
    half of the time are left out, and so are those of pairs whose centres are, in the median, over 1.5 heights apart,
    or of whom neither is among the four nearest to the other.

    Args:
        tracks: of one sequence, the most important first.
        num_person: slots of the network; with 1 there are no pairs.
        window_s: one length or several.
        step_s: from one window to the next.
        subjects: one of ``SUBJECTS``: persons, pairs or both.

    Raises:
        SkelactError: a length or the step is not positive.
    """
    check_windows(window_s, step_s)
    groups = [
        (group, spans)
        for group in _groups(tracks, num_person, subjects)
        if (spans := [span for length in window_s for span in _spans(*extent(group), length, step_s)])
    ]
    laid = sorted(
        (stop_s, start_s, k) for k, (_, spans) in enumerate(groups) for start_s, stop_s in dict.fromkeys(spans)
    )
    for (stop_s, start_s), each in itertools.groupby(laid, lambda span: span[:2]):
        yield from _worth_asking([Window(start_s, stop_s, groups[k][0]) for _, _, k in each])


def windows_until(
    tracks: Sequence[Track],
    stop_s: float,
    num_person: int,
    window_s: Sequence[float] = (WINDOW_S,),
    subjects: str = "both",
) -> list[Window]:
    """The windows of everybody, and of every pair, that stop now.

    Somebody who came later than a window's start gets a shorter one, from when they came; those who are seen in less
    than half of it get none.

    Args:
        tracks: the recent poses of everybody, the most important first. ``start_frame`` has to count the same frames
            for all of them; ``time_s`` need not be regular. Poses before the window are not looked at.
        stop_s: now.
        num_person, window_s, subjects: as for ``lay_windows``.
    """
    windows = []
    for group in _groups(tracks, num_person, subjects):
        first, last = extent(group)
        spans = {(max(stop_s - length, first), min(stop_s, last)) for length in window_s}
        windows += [Window(a, b, group) for a, b in sorted(spans) if b - a >= min(window_s) * MIN_SEEN - _EPSILON_S]
    windows.sort(key=_span)
    return [window for _, each in itertools.groupby(windows, _span) for window in _worth_asking(list(each))]


def as_lengths(window_s: float | Sequence[float]) -> tuple[float, ...]:
    """One length or several."""
    return tuple(np.atleast_1d(window_s).tolist())


def check_windows(window_s: Sequence[float], step_s: float) -> None:
    """Refuse lengths that are none."""
    if not window_s:
        raise SkelactError("window_s: expected one length or several, found none")
    for length in window_s:
        check_numbers(window_s=length)
    check_numbers(step_s=step_s)


def extent(tracks: Sequence[Track]) -> tuple[float, float]:
    """When all of them are there, in seconds; the last pose lasts as long as most poses do."""
    starts, stops = [], []
    for track in tracks:
        frame_s = float(np.median(np.diff(track.time_s))) if track.num_frames > 1 else 1 / RATE
        starts.append(float(track.time_s[0]))
        stops.append(float(track.time_s[-1]) + frame_s)
    return max(starts), min(stops)


def _groups(tracks: Sequence[Track], num_person: int, subjects: str) -> list[tuple[Track, ...]]:
    """Everybody alone, and every two who are there at the same time."""
    if subjects not in SUBJECTS:
        raise SkelactError(f"subjects: expected one of {', '.join(SUBJECTS)}, found {subjects!r}")
    groups: list[tuple[Track, ...]] = [(track,) for track in tracks] if subjects != "pairs" else []
    if num_person > 1 and subjects != "persons":
        groups += [
            pair
            for pair in itertools.combinations(map(boxed, tracks), 2)
            if pair[0].time_s[-1] >= pair[1].time_s[0] and pair[1].time_s[-1] >= pair[0].time_s[0]
        ]
    return groups


def _spans(first_s: float, last_s: float, length_s: float, step_s: float) -> Iterator[tuple[float, float]]:
    """Windows between two times: at the start, at all multiples of the step, at the end."""
    if last_s <= first_s:
        return
    if last_s - first_s <= length_s + _EPSILON_S:
        yield first_s, last_s
        return
    yield first_s, first_s + length_s
    for k in range(int(np.ceil((first_s + length_s) / step_s - _EPSILON_S)), int(last_s / step_s + _EPSILON_S) + 1):
        stop_s = k * step_s
        if first_s + length_s + _EPSILON_S < stop_s < last_s - _EPSILON_S:
            yield stop_s - length_s, stop_s
    yield last_s - length_s, last_s


def _span(window: Window) -> tuple[float, float]:
    return window.stop_s, window.start_s


def _worth_asking(windows: Sequence[Window]) -> list[Window]:
    """Of windows over the same time those whose people are seen for long enough, and of pairs those of neighbours."""
    distances = [_distance(window) for window in windows]
    near: dict[int, list[float]] = {}  # the pairs of each person
    for window, distance in zip(windows, distances, strict=True):
        for track_id in window.track_ids if len(window.tracks) == 2 and distance <= PAIR_DISTANCE else ():
            near.setdefault(track_id, []).append(distance)
    reach = {track_id: sorted(each)[:NEIGHBOURS][-1] for track_id, each in near.items()}
    return [
        window
        for window, distance in zip(windows, distances, strict=True)
        if distance <= max(reach.get(track_id, 0.0) for track_id in window.track_ids)
    ]


def _distance(window: Window) -> float:
    """Of two people, in heights; 0 of one, infinite where somebody is not seen for long enough."""
    parts = [_cut(track, window.start_s, window.stop_s) for track in window.tracks]
    if any(not part.num_frames or part.present.mean() < MIN_SEEN for part in parts):
        return np.inf
    return centre_distance(*parts) if len(parts) == 2 else 0.0


def _cut(track: Track, start_s: float, stop_s: float) -> Track:
    """The part of a track in a span of time."""
    first, last = np.searchsorted(track.time_s, (start_s - _EPSILON_S, stop_s + _EPSILON_S))
    return track.cut(int(first), int(last))


# --- scoring -----------------------------------------------------------------------------------------------------


def window_keypoint(window: Window) -> tuple[Array, Array | None]:
    """The poses of a window at 30 a second, whatever the frame rate, as ``clips.prepare_clips`` takes them.

    Between two frames poses are interpolated by their times; beyond somebody's last pose, that one holds.

    Returns:
        keypoint (M, T, V, C) and keypoint_score (M, T, V), or None for 3D.
    """
    num_frames = max(1, round((window.stop_s - window.start_s) * RATE))
    times = window.start_s + np.arange(num_frames) / RATE
    keypoints, scores = [], []
    for track in window.tracks:
        first, last = np.searchsorted(track.time_s, (times[0], times[-1]))
        part = slice(max(int(first) - 1, 0), int(last) + 1)
        inside = track.time_s[part]
        score = None if track.keypoint_score is None else track.keypoint_score[None, part]
        keypoint, score = resample(track.keypoint[None, part], score, np.interp(times, inside, np.arange(len(inside))))
        keypoints.append(keypoint)
        if score is not None:
            scores.append(score)
    return np.concatenate(keypoints), np.concatenate(scores) if scores else None


def score_windows(windows: Sequence[Window], classifier: Scorer, img_shape: tuple[int, int] | None) -> Array:
    """Classify windows together, each as one clip; the slots of other people stay empty.

    Args:
        windows: N of them; of as many people as the classifier takes at most.
        classifier: the networks.
        img_shape: (H, W) pixels of the picture.

    Returns:
        (N, classes scored) float64, each row of sum 1.
    """
    return classifier.scores_of([window_keypoint(window) for window in windows], img_shape, 1)
