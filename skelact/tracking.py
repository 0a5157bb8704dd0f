"""From detections to persons: ultralytics' tracker, then the mending that it leaves undone, then who matters most.

A tracker decides frame by frame and never looks back. Once the whole video is seen, more can be known: where a person
really began, that two tracks are one person who was lost for a moment, that a flicker was nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skelact.errors import SkelactError
from skelact.structures import Array, FramePoses, Track
from skelact.yolo import load_ultralytics

DEFAULT_TRACKER = "bytetrack"
TRACKERS = ("bytetrack", "botsort", "ocsort", "deepocsort", "fasttrack", "tracktrack")
# ultralytics keeps a lost track for ``track_buffer`` frames, meant for a video of 30 frames/s.
BUFFER_FPS = 30.0


@dataclass(frozen=True)
class Mending:
    """How tracks are cleaned up.

    Attributes:
        max_gap: holes shorter than this many frames are interpolated; longer ones stay empty.
        stitch_s: a track may go on in another one that starts up to so many seconds later, near where it ended.
        stitch_distance: how far off that may be, in heights of the person for a start without a pause; one more
            for each second in between.
        min_track_s: shorter tracks are ghosts (in short videos: shorter than a quarter of the video).
        min_score: tracks whose mean box score is lower are ghosts.
    """

    max_gap: int = 10
    stitch_s: float = 2.0
    stitch_distance: float = 0.5
    min_track_s: float = 0.3
    min_score: float = 0.3


class Tracker:
    """Gives each detection of each frame, in turn, the number of its track.

    Args:
        name: one of ``TRACKERS``, or the path of a tracker's YAML file for ultralytics.
        fps: frames per second that the tracker will see.

    Raises:
        SkelactError: no such tracker.
    """

    def __init__(self, name: str = DEFAULT_TRACKER, fps: float = BUFFER_FPS) -> None:
        load_ultralytics()
        from ultralytics.trackers.track import TRACKER_MAP
        from ultralytics.utils import YAML, IterableSimpleNamespace
        from ultralytics.utils.checks import check_yaml

        if name not in TRACKERS and not Path(name).is_file():
            raise SkelactError(f"tracker {name!r}: neither a YAML file nor one of {', '.join(TRACKERS)}")
        settings = YAML.load(check_yaml(f"{name}.yaml" if name in TRACKERS else name))
        kind = settings.get("tracker_type") if isinstance(settings, dict) else None
        if kind not in TRACKER_MAP:
            raise SkelactError(f"tracker {name}: expected tracker_type to be one of {', '.join(TRACKER_MAP)}, found {kind}")
        settings["track_buffer"] = max(1, round(settings.get("track_buffer", 30) * fps / BUFFER_FPS))
        self.name = name
        self._tracker = TRACKER_MAP[kind](args=IterableSimpleNamespace(**settings, device="cpu"))

    def update(self, poses: FramePoses, image: Array) -> Array:
        """Track numbers (N,) of the people in the next frame, 0 for those that are in no track (yet).

        Args:
            poses: everybody in the frame.
            image: the frame, for trackers that follow the camera's motion.
        """
        from ultralytics.engine.results import Boxes

        detections = np.concatenate(
            [poses.bbox, poses.bbox_score[:, None], np.zeros((len(poses.bbox), 1), np.float32)], axis=1
        )
        rows = self._tracker.update(Boxes(detections, image.shape[:2]), image)
        ids = np.zeros(len(poses.bbox), np.int64)
        for row in rows:
            ids[int(row[7])] = int(row[4])  # x1, y1, x2, y2, id, score, class, index of the detection
        return ids


# --- mending -----------------------------------------------------------------------------------------------------

# A path is a person in the making: frame index -> index of the detection in that frame.
Path_ = dict[int, int]


def build_tracks(
    frames: Sequence[FramePoses], ids: Sequence[Array], fps: float, mending: Mending | None = None
) -> tuple[Track, ...]:
    """Turn numbered detections into persons.

    In this order: the frames before a tracker trusted a new track are given back to it; two tracks of one body become
    one; a track that ends is stitched to the one that goes on near by; ghosts are dropped; short gaps are filled.

    Args:
        frames: everybody in every frame, in order and without holes.
        ids: for each frame the track numbers (N,), 0 for none (``Tracker.update``).
        fps: frames per second.
        mending: how.

    Returns:
        Tracks in order of appearance, numbered from 1.
    """
    mending = mending or Mending()
    paths: dict[int, Path_] = {}
    for t, numbers in enumerate(ids):
        for detection, number in enumerate(numbers):
            if number:
                paths.setdefault(int(number), {})[t] = detection
    found = sorted(paths.values(), key=lambda path: min(path))
    _recover_starts(found, frames)
    found = _merge_doubles(found, frames)
    found = _stitch(found, frames, fps, mending)
    min_length = min(mending.min_track_s * fps, len(frames) / 4)
    found = [
        path
        for path in found
        if len(path) >= min_length and np.mean([frames[t].bbox_score[i] for t, i in path.items()]) >= mending.min_score
    ]
    found.sort(key=lambda path: (min(path), frames[min(path)].bbox[path[min(path)], 0]))
    return tuple(_to_track(k, path, frames, mending.max_gap) for k, path in enumerate(found, start=1))


def _recover_starts(paths: list[Path_], frames: Sequence[FramePoses]) -> None:
    """Follow each path backwards over detections that belong to nobody: trackers confirm a person a frame late."""
    taken = {(t, i) for path in paths for t, i in path.items()}
    for path in paths:
        start = min(path)
        while start > 0:
            before, now = frames[start - 1], frames[start]
            free = [i for i in range(len(before.bbox)) if (start - 1, i) not in taken]
            overlap = _iou(now.bbox[path[start]], before.bbox[free])
            if not len(overlap) or overlap.max() < 0.5:
                break
            start -= 1
            path[start] = free[int(overlap.argmax())]
            taken.add((start, path[start]))


def _merge_doubles(paths: list[Path_], frames: Sequence[FramePoses]) -> list[Path_]:
    """Make one of two paths that show the same body: joints closer than a twentieth of its height on average.

    Two who embrace share a box but not their joints, so boxes don't decide.
    """
    kept: list[Path_] = []
    for path in sorted(paths, key=len, reverse=True):
        for other in kept:
            shared = path.keys() & other.keys()
            if len(shared) < len(path) / 2:
                continue
            distance = [_pose_distance(frames[t], path[t], other[t]) for t in shared]
            if np.median(distance) < 0.05:
                other.update({t: i for t, i in path.items() if t not in other})
                break
        else:
            kept.append(dict(path))
    return kept


def _stitch(paths: list[Path_], frames: Sequence[FramePoses], fps: float, mending: Mending) -> list[Path_]:
    """Join paths that end to paths that start soon after and near by, the best fitting ends first."""
    paths = [dict(path) for path in paths]
    while True:
        candidates = []
        for a, ending in enumerate(paths):
            for b, starting in enumerate(paths):
                gap = min(starting) - max(ending)
                if a == b or gap <= 0 or gap > mending.stitch_s * fps:
                    continue
                distance = _stitch_distance(ending, starting, frames)
                allowed = mending.stitch_distance + gap / fps
                if distance < allowed:
                    candidates.append((distance / allowed, a, b))
        if not candidates:
            return paths
        _, a, b = min(candidates)
        paths[a].update(paths[b])
        del paths[b]


def _stitch_distance(ending: Path_, starting: Path_, frames: Sequence[FramePoses]) -> float:
    """How far a path starts from where the ending one would be by then, in heights; inf if the sizes differ by half."""
    end, start = max(ending), min(starting)
    a, b = frames[end].bbox[ending[end]], frames[start].bbox[starting[start]]
    heights = a[3] - a[1], b[3] - b[1]
    if min(heights) < 0.5 * max(heights):
        return float("inf")
    centre_a, centre_b = (a[:2] + a[2:]) / 2, (b[:2] + b[2:]) / 2
    # The velocity over the last few frames, trusted for as long as it was seen.
    seen = [t for t in sorted(ending) if t > end - 10]
    first = frames[seen[0]].bbox[ending[seen[0]]]
    velocity = (centre_a - (first[:2] + first[2:]) / 2) / max(end - seen[0], 1)
    stays = np.linalg.norm(centre_b - centre_a)
    goes_on = np.linalg.norm(centre_b - centre_a - velocity * min(start - end, len(seen)))
    return float(min(stays, goes_on) / np.mean(heights))


def _to_track(track_id: int, path: Path_, frames: Sequence[FramePoses], max_gap: int) -> Track:
    """A path as arrays, with gaps shorter than ``max_gap`` frames interpolated and longer ones zero."""
    start, stop = min(path), max(path) + 1
    T, V = stop - start, frames[start].keypoint.shape[1]
    values = np.zeros((T, V * 3 + 4), np.float32)  # joints, their scores, box
    bbox_score = np.zeros(T, np.float32)
    for t, i in path.items():
        frame = frames[t]
        values[t - start] = np.concatenate([frame.keypoint[i].ravel(), frame.keypoint_score[i], frame.bbox[i]])
        bbox_score[t - start] = frame.bbox_score[i]
    seen = np.array(sorted(path)) - start
    for before, after in zip(seen[:-1], seen[1:], strict=True):
        missing = np.arange(before + 1, after)
        if 0 < len(missing) < max_gap:
            part = ((missing - before) / (after - before))[:, None].astype(np.float32)
            values[missing] = (1 - part) * values[before] + part * values[after]
    return Track(
        track_id=track_id,
        start_frame=start,
        time_s=np.array([frames[t].time_s for t in range(start, stop)]),
        keypoint=values[:, : V * 2].reshape(T, V, 2),
        keypoint_score=values[:, V * 2 : V * 3],
        bbox=values[:, V * 3 :],
        bbox_score=bbox_score,
    )


def _iou(box: Array, boxes: Array) -> Array:
    """Intersection over union of a box (4,) with boxes (N, 4), xyxy: (N,)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared
    return shared / np.maximum(area, 1e-9)


def _pose_distance(frame: FramePoses, i: int, j: int) -> float:
    """Mean distance of the joints of two detections, in heights of the taller."""
    heights = frame.bbox[[i, j], 3] - frame.bbox[[i, j], 1]
    distance = np.linalg.norm(frame.keypoint[i] - frame.keypoint[j], axis=-1).mean()
    return float(distance / max(heights.max(), 1e-9))


# --- who matters -------------------------------------------------------------------------------------------------


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
