"""Long samples cut into windows: what a timeline will look at, and more to train on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skelact.annotations import PICKLE_FPS, Annotation, AnnotationSet
from skelact.clips import known_joints
from skelact.windows import MIN_SEEN


def cut_into_windows(dataset: AnnotationSet, window_s: float, step_s: float) -> AnnotationSet:
    """Every sample as overlapping windows, named ``NAME@FRAME``, which stay in its splits.

    The last window ends with the sample; a shorter sample stays whole. Windows in which somebody is seen for less than
    half of the time are left out, unless all of the sample's are like that.

    Args:
        dataset: samples tell their frames per second as ``fps``; else 30 are assumed.
        window_s, step_s: the length of a window, and the time from one to the next, in seconds.
    """
    windows = {sample.frame_dir: windows_of(sample, window_s, step_s) for sample in dataset.annotations}
    split = {
        name: tuple(part.frame_dir for member in members for part in windows.get(member, ()))
        for name, members in dataset.split.items()
    }
    return replace(dataset, annotations=[part for parts in windows.values() for part in parts], split=split)


def windows_of(sample: Annotation, window_s: float, step_s: float) -> list[Annotation]:
    """The windows of one sample; see ``cut_into_windows``."""
    fps = float(sample.extra.get("fps") or PICKLE_FPS)
    length, step = (max(1, round(seconds * fps)) for seconds in (window_s, step_s))
    last = max(sample.keypoint.shape[1] - length, 0)
    seen = np.any(known_joints(sample.keypoint, sample.keypoint_score), axis=(0, 2))
    starts = [*range(0, last, step), last]
    starts = [start for start in starts if seen[start : start + length].mean() >= MIN_SEEN] or starts
    return [_part(sample, start, start + length) for start in starts]


def _part(sample: Annotation, start: int, stop: int) -> Annotation:
    score = sample.keypoint_score
    return replace(
        sample,
        frame_dir=f"{sample.frame_dir}@{start}",
        keypoint=sample.keypoint[:, start:stop],
        keypoint_score=None if score is None else score[:, start:stop],
    )
