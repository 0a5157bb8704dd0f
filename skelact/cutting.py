"""Long samples cut into windows: what a timeline will look at, and more to train on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from skelact.annotations import PICKLE_FPS, Annotation, AnnotationSet, fps_of
from skelact.clips import known_joints
from skelact.structures import Array
from skelact.windows import MIN_SEEN, check_windows

LEAP = 0.3  # of a person's height from one frame to the next ...
LEAP_SPEED = 8.0  # ... and heights a second: nobody moves so fast, so the film was cut there


def cut_into_windows(dataset: AnnotationSet, window_s: float, step_s: float) -> AnnotationSet:
    """Every sample as overlapping windows, named ``NAME@FRAME``, which stay in its splits.

    No window goes past a cut of the film, where everybody is suddenly elsewhere, and the time before anybody is seen or
    after that is left out. The last window ends with the sample, or before the cut; a shorter sample stays whole, and
    of several shots those that are at least half a window long. Windows in which somebody is seen for less than half
    of the time are left out. Where nothing is left, all windows are taken.

    Args:
        dataset: samples tell their frames per second as ``fps``; else 30 are assumed.
        window_s, step_s: the length of a window, and the time from one to the next, in seconds.
    """
    check_windows((window_s,), step_s)
    windows = {sample.frame_dir: windows_of(sample, window_s, step_s) for sample in dataset.annotations}
    split = {
        name: tuple(part.frame_dir for member in members for part in windows.get(member, ()))
        for name, members in dataset.split.items()
    }
    return replace(dataset, annotations=[part for parts in windows.values() for part in parts], split=split)


def windows_of(sample: Annotation, window_s: float, step_s: float) -> list[Annotation]:
    """The windows of one sample; see ``cut_into_windows``."""
    fps = fps_of(sample.extra) or PICKLE_FPS
    length, step = (max(1, round(seconds * fps)) for seconds in (window_s, step_s))
    num_frames = sample.keypoint.shape[1]
    known = known_joints(sample.keypoint, sample.keypoint_score)
    seen = np.any(known, axis=(0, 2))

    def windows(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
        lasts = [(first, max(stop - length, first), stop) for first, stop in pieces]
        starts = [(start, stop) for first, last, stop in lasts for start in (*range(first, last, step), last)]
        return [(start, min(start + length, stop)) for start, stop in starts]

    edges = [0, *film_cuts(sample.keypoint, known, fps), num_frames]
    shots = [first + np.flatnonzero(seen[first:stop]) for first, stop in pairwise(edges)]
    pieces = [(int(shot[0]), int(shot[-1]) + 1) for shot in shots if len(shot)]
    long = [(first, stop) for first, stop in pieces if 2 * (stop - first) >= length] or pieces
    found = [(start, stop) for start, stop in windows(long) if seen[start:stop].mean() >= MIN_SEEN]
    return [_part(sample, start, stop) for start, stop in found or windows([(0, num_frames)])]


def film_cuts(keypoint: Array, known: Array, fps: float) -> list[int]:
    """Frames at which somebody is elsewhere than when last seen, and nobody is still there.

    Args:
        keypoint: (M, T, V, C).
        known: (M, T, V), which joints are.
        fps: frames per second.
    """
    leaps, stays = np.zeros((2, keypoint.shape[1]), bool)
    for person in np.where(known[..., None], keypoint, np.nan):
        frames = np.flatnonzero(~np.isnan(person).all((1, 2)))
        if len(frames) < 2:
            continue
        person = person[frames]
        height = np.median((np.nanmax(person, 1) - np.nanmin(person, 1)).max(-1))
        steps = np.linalg.norm(np.diff(person, axis=0), axis=-1)
        shared = ~np.isnan(steps).all(1)  # with the frame before
        far = np.nanmedian(steps[shared], axis=1) > max(LEAP, LEAP_SPEED / fps) * height
        leaps[frames[1:][shared][far & (height > 0)]] = True
        stays[frames[1:][shared][~far]] = True
    return [int(frame) for frame in np.flatnonzero(leaps & ~stays)]


def _part(sample: Annotation, start: int, stop: int) -> Annotation:
    """Frames of a sample; what else it holds of each frame is left out."""
    score, num_frames = sample.keypoint_score, sample.keypoint.shape[1]
    return replace(
        sample,
        frame_dir=f"{sample.frame_dir}@{start}",
        keypoint=sample.keypoint[:, start:stop],
        keypoint_score=None if score is None else score[:, start:stop],
        extra={
            key: value
            for key, value in sample.extra.items()
            if not (isinstance(value, np.ndarray) and num_frames in value.shape[:2])
        },
    )
