"""Who in a video matters: the order of persons, and those who fill the slots of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from skelact.structures import Track


def rank_tracks(tracks: Sequence[Track], img_shape: tuple[int, int], num_frames: int) -> tuple[Track, ...]:
    """Order persons by how much they matter, the one who fills the first slot first. No label is looked at.

    A person's weight is the product of
      presence: the share of the video's frames in which they are seen,
      score: their mean keypoint score,
      size: the square root of their height over the picture's,
      motion: 1 + how far their joints move in a second relative to their body, in heights (at most 1).
    The heaviest comes first. Then, again and again, the heaviest after weighting with nearness to those already
    chosen: 1 / (1 + distance), the median distance of the centres in heights, over the frames that both are in.

    Args:
        tracks: of one video, with boxes.
        img_shape: (H, W) pixels.
        num_frames: of the video.
    """
    weights = [track_weight(track, img_shape, num_frames) for track in tracks]
    left = list(range(len(tracks)))
    order: list[int] = []
    while left:
        nearness = [max((1 / (1 + centre_distance(tracks[i], tracks[j])) for j in order), default=1.0) for i in left]
        best = max(range(len(left)), key=lambda k: weights[left[k]] * nearness[k])
        order.append(left.pop(best))
    return tuple(tracks[i] for i in order)


def main_persons(
    tracks: Sequence[Track], img_shape: tuple[int, int], num_frames: int, num_person: int
) -> tuple[Track, ...]:
    """Those of ranked tracks who fill a clip's slots: the first, and others who matter beside them.

    Another person gets a slot if they weigh a quarter of the first at least and come within two heights of them at
    some time; a bystander far off leaves the slot empty, as it is in the training data of the published models.
    """
    if not tracks:
        return ()
    first = tracks[0]
    enough = track_weight(first, img_shape, num_frames) / 4
    others = [
        track
        for track in tracks[1:]
        if track_weight(track, img_shape, num_frames) >= enough and centre_distance(first, track, np.min) <= 2
    ]
    return (first, *others[: num_person - 1])


def track_weight(track: Track, img_shape: tuple[int, int], num_frames: int) -> float:
    """How much a person matters (``rank_tracks`` has the formula)."""
    seen = track.present
    if track.bbox is None or track.keypoint_score is None or not seen.any():
        return 0.0
    height = float(np.median(track.bbox[seen, 3] - track.bbox[seen, 1]))
    centred = track.keypoint - ((track.bbox[:, :2] + track.bbox[:, 2:]) / 2)[:, None]
    pairs = seen[1:] & seen[:-1]
    seconds = np.maximum(np.diff(track.time_s), 1e-3)
    steps = np.linalg.norm(np.diff(centred, axis=0), axis=-1).mean(axis=1) / seconds
    motion = float(np.median(steps[pairs])) / max(height, 1e-9) if pairs.any() else 0.0
    presence = seen.sum() / max(num_frames, 1)
    score = float(track.keypoint_score[seen].mean())
    return float(presence * score * np.sqrt(max(height, 0) / img_shape[0]) * (1 + min(motion, 1.0)))


def centre_distance(a: Track, b: Track, over_time: Any = np.median) -> float:
    """Distance of two persons' box centres in mean heights, over the frames that both are in; inf if there are none."""
    start, stop = max(a.start_frame, b.start_frame), min(a.stop_frame, b.stop_frame)
    if a.bbox is None or b.bbox is None or start >= stop:
        return float("inf")
    box_a = a.bbox[start - a.start_frame : stop - a.start_frame]
    box_b = b.bbox[start - b.start_frame : stop - b.start_frame]
    both = box_a.any(axis=1) & box_b.any(axis=1)
    if not both.any():
        return float("inf")
    box_a, box_b = box_a[both], box_b[both]
    distance = np.linalg.norm((box_a[:, :2] + box_a[:, 2:] - box_b[:, :2] - box_b[:, 2:]) / 2, axis=1)
    height = (box_a[:, 3] - box_a[:, 1] + box_b[:, 3] - box_b[:, 1]) / 2
    return float(over_time(distance / np.maximum(height, 1e-9)))


def boxed(track: Track) -> Track:
    """The same track; where it has no boxes, as in pickles of poses, with those around its joints (x and y)."""
    if track.bbox is not None:
        return track
    known = np.any(track.keypoint != 0, axis=-1, keepdims=True)
    places = track.keypoint[..., :2]
    low, high = np.where(known, places, np.inf).min(1), np.where(known, places, -np.inf).max(1)
    bbox = np.where(track.present[:, None], np.concatenate([low, high], axis=1), 0)
    return replace(track, bbox=bbox.astype(np.float32))
