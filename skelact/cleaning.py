"""Poses without outliers and jitter: short gaps are filled, then a Hampel filter, then a zero-phase Butterworth.

Live, the windows that are classified are cleaned so too, each as a whole, as they are in the past by then. Only the
picture of a moment has to do without what follows: One-Euro.

Each joint is cleaned alone, and only where it was seen: joints without a score (or, in 3D, at zero) stay as they are,
and nothing is filtered across a gap that is not filled, or a cut to another shot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from skelact.clips import known_joints
from skelact.structures import Array, Track

PLACES_AT_ONCE = 50_000  # frames x joints that are cleaned together: some 20 MB


@dataclass(frozen=True)
class Cleaning:
    """How poses are cleaned.

    Attributes:
        outlier_window_s: over so many seconds, with a frame in the middle, runs the median of the Hampel filter.
        outlier_deviations: a joint that is off the median by so many robust standard deviations is an outlier.
        cutoff_hz: of the low-pass filter: human movement has little above it (Winter, Biomechanics and Motor Control
            of Human Movement, 2009).
        order: of the low-pass filter, which is applied forwards and backwards.
    """

    outlier_window_s: float = 0.25
    outlier_deviations: float = 4.0
    cutoff_hz: float = 6.0
    order: int = 2


def clean_track(track: Track, fps: float, cuts_s: Sequence[float] = ()) -> Track:
    """A track whose outliers are replaced and whose joints move smoothly.

    Args:
        track: with or without scores.
        fps: frames per second.
        cuts_s: when other shots begin, across which nobody moves.
    """
    cleaning = Cleaning()
    known = known_joints(track.keypoint, track.keypoint_score)  # (T, V)
    keypoint = track.keypoint.astype(np.float64)
    cuts = np.searchsorted(track.time_s, np.array(cuts_s) - 1e-6).tolist()
    joints: dict[tuple[int, int], list[int]] = {}  # that are seen from one frame to another
    for v in range(keypoint.shape[1]):
        for run in _runs(known[:, v], cuts):
            joints.setdefault(run, []).append(v)
    for (start, stop), seen in joints.items():
        at_once = max(1, PLACES_AT_ONCE // (stop - start))
        for part in (seen[k : k + at_once] for k in range(0, len(seen), at_once)):
            place = keypoint[start:stop, part]
            keypoint[start:stop, part] = smooth(without_outliers(place, fps, cleaning), fps, cleaning)
    return replace(track, keypoint=keypoint.astype(np.float32))


def clean_tracks(tracks: Sequence[Track], fps: float, cuts_s: Sequence[float] = ()) -> tuple[Track, ...]:
    """``clean_track`` of each."""
    return tuple(clean_track(track, fps, cuts_s) for track in tracks)


def fill_gaps(values: Array, seen: Array, max_gap: int) -> Array:
    """Values with the gaps shorter than ``max_gap`` frames interpolated; longer ones stay as they are.

    Args:
        values: (T, ...).
        seen: the frames, in order, whose values are known.
        max_gap: frames.
    """
    filled = values.copy()
    gaps = np.diff(seen) - 1
    for before, gap in zip(seen[:-1], gaps, strict=True):
        if 0 < gap < max_gap:
            part = np.arange(1, gap + 1, dtype=np.float32).reshape(-1, *[1] * (values.ndim - 1)) / (gap + 1)
            filled[before + 1 : before + 1 + gap] = (1 - part) * values[before] + part * values[before + 1 + gap]
    return filled


def _runs(known: Array, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Stretches of True, from one cut to the next: where each starts and stops."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    borders = ([start, *[cut for cut in cuts if start < cut < stop], stop] for start, stop in edges.reshape(-1, 2))
    return [ends for each in borders for ends in pairwise(each)]


def without_outliers(place: Array, fps: float, cleaning: Cleaning) -> Array:
    """The Hampel filter: a place far off the median of its neighbours in time becomes that median.

    How far is told by the median absolute deviation, times 1.4826 a standard deviation of normal noise (Hampel 1974).
    A joint jumps as a whole, so all coordinates are replaced if one is off.

    Args:
        place: (T, ..., C).
        fps: frames per second.
        cleaning: how.
    """
    half = max(2, round(cleaning.outlier_window_s * fps / 2))
    if len(place) <= 2 * half:
        return place
    windows = np.lib.stride_tricks.sliding_window_view
    around = windows(_gone_on(place, half), 2 * half + 1, axis=0)  # (T, ..., C, window)
    median = np.median(around, axis=-1)
    deviation = 1.4826 * np.median(np.abs(around - median[..., None]), axis=-1)
    # In still video a deviation may be nearly none; a tenth of a pixel (or 0.1 mm) is no outlier.
    floor = 1e-4 if place.shape[-1] == 3 else 0.1
    is_off = (np.abs(place - median) > cleaning.outlier_deviations * np.maximum(deviation, floor)).any(-1)
    return np.where(is_off[..., None], median, place)


def smooth(place: Array, fps: float, cleaning: Cleaning) -> Array:
    """A Butterworth low-pass filter, forwards and backwards, so that nothing is delayed.

    Its gain, ``1 / (1 + (tan(pi f / fps) / tan(pi cutoff / fps)) ** (2 order))`` (the digital filter's, squared), is
    applied to the spectrum, which is what ``scipy.signal.sosfiltfilt`` does in time, whose import takes a second. At
    the ends the motion goes on, turned about the last place, for a second at most.

    Args:
        place: (T, ..., C); a short stretch stays as it is, and so does all at a frame rate too low for the cutoff.
        fps: frames per second.
        cleaning: how.
    """
    if len(place) <= 3 * (cleaning.order + 1) or cleaning.cutoff_hz >= 0.45 * fps:
        return place
    padding = min(round(fps), len(place) - 1)
    padded = _gone_on(place, padding)
    slope = np.linspace(padded[0], padded[-1], len(padded))  # without it, the spectrum has the step from end to start
    warped = np.tan(np.pi * np.fft.rfftfreq(len(padded))) / np.tan(np.pi * cleaning.cutoff_hz / fps)
    gain = 1 / (1 + warped ** (2 * cleaning.order))
    spectrum = np.fft.rfft(padded - slope, axis=0) * gain.reshape(-1, *[1] * (place.ndim - 1))
    smoothed: Array = np.fft.irfft(spectrum, len(padded), axis=0) + slope
    return smoothed[padding:-padding]


def _gone_on(place: Array, frames: int) -> Array:
    """Places (T, ...) that go on for so many frames at both ends, as between them but turned about the end."""
    return np.pad(place, ((frames, frames), *[(0, 0)] * (place.ndim - 1)), mode="reflect", reflect_type="odd")


class OneEuro:
    """The One-Euro filter of Casiez, Roussel and Vogel (CHI 2012) for the joints of one person, frame by frame.

    A first-order low-pass filter whose cutoff grows with speed: jitter goes where a joint rests, and it lags little
    where it moves. It works on places relative to the body's centre, the mean of all joints, which is not filtered: so
    nobody lags who walks. Speeds are in body heights, so that the same settings do for people near and far.

        smooth = OneEuro()
        for time_s, keypoint, score, height in poses:
            keypoint = smooth(time_s, keypoint, score, height)

    Args:
        min_cutoff_hz: of a joint at rest.
        beta: by how many Hz the cutoff grows for each height a second.
        speed_cutoff_hz: of the filter of the speed itself.
        max_step: a joint that moves farther from one frame to the next, in heights, has to do so twice to be believed.
    """

    def __init__(
        self, min_cutoff_hz: float = 2.0, beta: float = 10.0, speed_cutoff_hz: float = 3.0, max_step: float = 0.15
    ) -> None:
        self.min_cutoff_hz, self.beta, self.speed_cutoff_hz = min_cutoff_hz, beta, speed_cutoff_hz
        self.max_step = max_step
        self._time_s = 0.0
        self._place: Array | None = None  # (V, 2) relative to the centre, filtered
        self._speed: Array = np.zeros(())
        self._trusted: Array = np.zeros(())  # (V,) known, and not just jumped

    def __call__(self, time_s: float, keypoint: Array, keypoint_score: Array, height: float) -> Array:
        """The smoothed joints (V, 2) at a time later than the one before; unknown joints as they are.

        Args:
            time_s: seconds.
            keypoint: (V, 2) pixels.
            keypoint_score: (V,), 0 where a joint is not known.
            height: of the body, in pixels.
        """
        known = keypoint_score > 0
        centre = keypoint[known].mean(0) if known.any() else np.zeros(2)
        place = keypoint - centre
        if self._place is None:
            self._place, self._speed, self._trusted = place, np.zeros(place.shape), known
        else:
            step_s = max(time_s - self._time_s, 1e-6)
            jumped = known & self._trusted & (np.linalg.norm(place - self._place, axis=-1) > self.max_step * height)
            fresh = (known & ~self._trusted)[:, None]
            speed = np.where(fresh, 0, (place - self._place) / step_s)
            self._speed = self._speed + _alpha(self.speed_cutoff_hz, step_s) * (speed - self._speed)
            cutoff = self.min_cutoff_hz + self.beta * np.linalg.norm(self._speed, axis=-1, keepdims=True) / height
            filtered = self._place + _alpha(cutoff, step_s) * (place - self._place)
            held = jumped[:, None]
            self._place = np.where(held, self._place, np.where(fresh | ~known[:, None], place, filtered))
            self._trusted = known & ~jumped
        self._time_s = time_s
        return np.where(known[:, None], self._place + centre, keypoint).astype(np.float32)


def _alpha(cutoff_hz: float | Array, step_s: float) -> float | Array:
    """How much a first-order low-pass filter takes of a new value."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * step_s))
