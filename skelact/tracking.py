"""From detections to persons: ultralytics' tracker, then the mending that it leaves undone, then who matters most.

A tracker decides frame by frame and never looks back. Once the whole video is seen, more can be known: where a person
really began, that two tracks are one person who was lost for a moment, that a flicker was nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from skelact.cleaning import fill_gaps
from skelact.errors import SkelactError
from skelact.files import sha256_of
from skelact.linking import PersonPath, box_iou, relink
from skelact.structures import Array, FramePoses, Track
from skelact.weights import offline
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
        max_pause_s: somebody who is gone for longer comes back as somebody new.
        max_hidden_s: the same for somebody whom others may hide.
        min_track_s: shorter tracks are ghosts (in short videos: shorter than a quarter of the video).
        min_presence: so are those that are seen in a smaller share of the time between their first and last frame.
        min_score: tracks whose mean box score is lower are ghosts.
        min_keypoint_score: so are those whose mean keypoint score is lower: a hand, a poster. The longest of them
            stays if nobody else is there.
        min_still_score: tracks of a lower mean keypoint score that stay where they are are things: clothes on a wall.
        max_still: how much the middle of somebody's joints may vary (standard deviation, in heights) for that.
        max_double_s: tracks that are seen for less than this, with a mean keypoint score under ``min_double_score``,
            are doubles of somebody who is seen four times as long and in whose box they lie.
        min_double_score: see there.
        max_unsure_pause_s: a track goes on with detections too unsure for a tracker, in or around the box where it
            ended, as long as they are no farther apart: somebody who lies on the ground.
        min_unsure_s: and only if they are as many as would be seen in this time.
    """

    max_gap: int = 10
    max_pause_s: float = 3.0
    max_hidden_s: float = 10.0
    min_track_s: float = 0.5
    min_presence: float = 0.2
    min_score: float = 0.3
    min_keypoint_score: float = 0.2
    min_still_score: float = 0.45
    max_still: float = 0.03
    max_double_s: float = 1.5
    min_double_score: float = 0.5
    max_unsure_pause_s: float = 1.0
    min_unsure_s: float = 0.25


def tracker_key(name: str) -> str:
    """What tells a tracker from others: its name, or the sha256 of its YAML file."""
    return sha256_of(name) if name not in TRACKERS and Path(name).is_file() else name


def _check_offline(name: str, settings: Mapping[str, Any]) -> None:
    """ultralytics would download the network by which a tracker recognises people, if it is not here."""
    model = str(settings.get("model", "auto"))
    if settings.get("with_reid") and Path(model).suffix.lower() == ".torchscript":
        raise SkelactError(f"tracker {name}: its model {model} is TorchScript, which may run code of its own")
    if settings.get("with_reid") and model != "auto" and offline() and not Path(model).is_file():
        raise SkelactError(f"tracker {name}: its model {model} is no file here, and offline; give its path there")


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
        try:
            settings = YAML.load(check_yaml(f"{name}.yaml" if name in TRACKERS else name))
            _check_offline(name, settings)
            kind = settings["tracker_type"]
            tracker_class = TRACKER_MAP[kind]
            settings["track_buffer"] = max(1, round(settings["track_buffer"] * fps / BUFFER_FPS))
            self._tracker = tracker_class(args=IterableSimpleNamespace(**settings, device="cpu"))
        except SkelactError:
            raise
        except Exception as error:  # of YAML, of a missing key, or of the tracker's own
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise SkelactError(
                f"tracker {name}: expected a YAML file with all settings of one of ultralytics' trackers, whose "
                f"tracker_type is {', '.join(TRACKER_MAP)}; found {reason[:120]}"
            ) from error
        self.name = name

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


def build_tracks(
    frames: Sequence[FramePoses],
    ids: Sequence[Array],
    fps: float,
    colours: Sequence[Array] | None = None,
    mending: Mending | None = None,
    cuts: Sequence[int] = (),
) -> tuple[Track, ...]:
    """Turn numbered detections into persons.

    In this order: the frames before a tracker trusted a new track, and after it lost one, are given back to it; tracks
    are cut where people overlap and joined again as fits best; ghosts are dropped; short gaps are filled.

    Args:
        frames: everybody in every frame, in order and without holes.
        ids: for each frame the track numbers (N,), 0 for none (``Tracker.update``).
        fps: frames per second.
        colours: for each frame (N, 6), of ``linking.clothes_colour``; None to do without.
        mending: how.
        cuts: frames that begin another shot.

    Returns:
        Tracks in order of appearance, numbered from 1.
    """
    mending = mending or Mending()
    paths: dict[int, PersonPath] = {}
    for t, numbers in enumerate(ids):
        for detection, number in enumerate(numbers):
            if number:
                paths.setdefault(int(number), {})[t] = detection
    found = sorted(paths.values(), key=lambda path: min(path))
    _recover_starts(found, frames)
    _recover_ends(found, frames, fps, mending)
    found = [path for path in found if _mean(path, frames, "keypoint_score") >= mending.min_keypoint_score] or found
    found = _without_doubles(found, found, frames, fps, mending, min_height=0.6)  # or they would be linked to somebody
    found = relink(found, frames, colours, fps, mending.max_pause_s, mending.max_hidden_s, cuts)
    found = _without_ghosts(found, frames, fps, mending)
    found.sort(key=lambda path: (min(path), frames[min(path)].bbox[path[min(path)], 0]))
    return tuple(_to_track(k, sorted(path.items()), frames, mending.max_gap) for k, path in enumerate(found, start=1))


def _recover_starts(paths: list[PersonPath], frames: Sequence[FramePoses]) -> None:
    """Follow each path backwards over detections that belong to nobody: trackers confirm a person a frame late."""
    taken = {(t, i) for path in paths for t, i in path.items()}
    for path in paths:
        start = min(path)
        while start > 0:
            before, now = frames[start - 1], frames[start]
            free = [i for i in range(len(before.bbox)) if (start - 1, i) not in taken]
            overlap = box_iou(now.bbox[path[start]], before.bbox[free])
            if not len(overlap) or overlap.max() < 0.5:
                break
            start -= 1
            path[start] = free[int(overlap.argmax())]
            taken.add((start, path[start]))


def _recover_ends(paths: list[PersonPath], frames: Sequence[FramePoses], fps: float, mending: Mending) -> None:
    """Let each path go on over unsure detections that are nobody's and in nobody's box."""
    persons: dict[int, list[int]] = {}  # in each frame the detections that are somebody
    for path in paths:
        for t, i in path.items():
            persons.setdefault(t, []).append(i)
    reach = max(1, round(mending.max_unsure_pause_s * fps))
    for path in sorted(paths, key=max):
        t = last_seen = max(path)
        box = frames[t].bbox[path[t]]
        tail: PersonPath = {}
        while t < len(frames) - 1 and t - last_seen < reach:
            t += 1
            boxes, others = frames[t].bbox, persons.get(t, [])
            near = [i for i in np.flatnonzero(_common(box, boxes) > 0.5) if i not in others]
            free = [i for i in near if not (_common(boxes[i], boxes[others]) > 0.5).any()]
            if free:
                tail[t] = int(free[0])  # the surest
                box, last_seen = boxes[free[0]], t
        if len(tail) >= mending.min_unsure_s * fps:
            path.update(tail)
            for t, i in tail.items():
                persons.setdefault(t, []).append(i)


def _common(box: Array, boxes: Array) -> Array:
    """Area that a box (4,) and boxes (N, 4) have in common, as a share of the smaller: (N,)."""
    size = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None)
    smaller = np.minimum(np.prod(box[2:] - box[:2]), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return np.prod(size, axis=1) / np.maximum(smaller, 1e-9)


def _mean(path: PersonPath, frames: Sequence[FramePoses], field: str) -> float:
    return float(np.mean([getattr(frames[t], field)[i] for t, i in path.items()]))


def _without_ghosts(
    paths: list[PersonPath], frames: Sequence[FramePoses], fps: float, mending: Mending
) -> list[PersonPath]:
    """Those that last, whose boxes are sure, whose joints are seen, and who are no things."""
    min_length = min(mending.min_track_s * fps, len(frames) / 4)
    lasting = [
        path for path in paths if len(path) >= max(min_length, mending.min_presence * (max(path) - min(path) + 1))
    ]
    sure = [path for path in lasting if _mean(path, frames, "bbox_score") >= mending.min_score]

    def is_somebody(path: PersonPath) -> bool:
        score = _mean(path, frames, "keypoint_score")
        if score < mending.min_keypoint_score:
            return False
        return score >= mending.min_still_score or _moves(path, frames) > mending.max_still

    posed = [path for path in sure if is_somebody(path)]
    return _without_doubles(posed, posed, frames, fps, mending) or sorted(sure, key=len)[-1:]


def _moves(path: PersonPath, frames: Sequence[FramePoses]) -> float:
    """Standard deviation of the middle of a path's joints over time, in heights."""
    middles = np.array([frames[t].keypoint[i].mean(0) for t, i in path.items()])
    return float(middles.std(0).max() / max(_height(path, frames), 1e-6))


def _without_doubles(
    paths: Sequence[PersonPath],
    persons: Sequence[PersonPath],
    frames: Sequence[FramePoses],
    fps: float,
    mending: Mending,
    min_height: float = 0.0,
) -> list[PersonPath]:
    """Paths without the short, unsure ones in the box of one of the persons who is seen four times as long.

    Args:
        min_height: only those at least so high, as a share of the person's height; a lower one may be somebody behind.
    """

    def is_double(path: PersonPath) -> bool:
        if len(path) >= mending.max_double_s * fps or _mean(path, frames, "keypoint_score") >= mending.min_double_score:
            return False
        return any(
            len(person) >= 4 * len(path)
            and _height(path, frames) >= min_height * _height(person, frames)
            and _share_inside(path, person, frames) > 0.75
            for person in persons
        )

    return [path for path in paths if not is_double(path)]


def _height(path: PersonPath, frames: Sequence[FramePoses]) -> float:
    """Median height of a path's boxes, px."""
    return float(np.median([frames[t].bbox[i, 3] - frames[t].bbox[i, 1] for t, i in path.items()]))


def _share_inside(path: PersonPath, other: PersonPath, frames: Sequence[FramePoses]) -> float:
    """Share of a path's frames in which its box and another path's lie in each other, by 70 % of the smaller."""
    inside = sum(
        _common(frames[t].bbox[path[t]], frames[t].bbox[[other[t]]])[0] > 0.7 for t in path.keys() & other.keys()
    )
    return inside / len(path)


def _to_track(track_id: int, path: Sequence[tuple[int, int]], frames: Sequence[FramePoses], max_gap: int) -> Track:
    """A path as arrays."""
    times = np.array([frame.time_s for frame in frames[path[0][0] : path[-1][0] + 1]])
    found = ((t, i, frames[t]) for t, i in path)
    poses = [(t, each.keypoint[i], each.keypoint_score[i], each.bbox[i], each.bbox_score[i]) for t, i, each in found]
    return make_track(track_id, poses, times, max_gap)


def make_track(
    track_id: int, poses: Sequence[tuple[int, Array, Array, Array, float]], time_s: Array, max_gap: int
) -> Track:
    """A person's poses as arrays, with gaps shorter than ``max_gap`` frames interpolated and longer ones zero.

    Args:
        track_id: of the person.
        poses: frame index, joints (V, 2), their scores (V,), box (4,) and its score, in order.
        time_s: (T,) seconds of all frames from the first pose to the last.
        max_gap: frames.
    """
    start, T, V = poses[0][0], len(time_s), len(poses[0][1])
    seen = np.array([index for index, *_ in poses]) - start
    values = np.zeros((T, V * 3 + 4), np.float32)  # joints, their scores, box
    values[seen] = [np.concatenate([keypoint.ravel(), score, bbox]) for _, keypoint, score, bbox, _ in poses]
    bbox_score = np.zeros(T, np.float32)
    bbox_score[seen] = [sure for *_, sure in poses]
    keypoint, score, bbox = np.split(fill_gaps(values, seen, max_gap), [V * 2, V * 3], axis=1)
    return Track(track_id, start, time_s, keypoint.reshape(T, V, 2), score, bbox, bbox_score)


def stretch(track: Track, stride: int, time_s: Array) -> Track:
    """A track on every ``stride``-th frame as one on all frames.

    Between two frames in which the person is seen, joints and scores are interpolated; the last pose is held for the
    few frames that follow it.

    Args:
        track: on the posed frames.
        stride: frames from one posed frame to the next.
        time_s: (T,) of all frames.
    """
    if stride == 1:
        return track
    assert track.bbox_score is not None
    start = track.start_frame * stride
    stop = min(track.stop_frame * stride, len(time_s))
    frames = np.arange(stop - start)
    position = np.minimum(frames / stride, track.num_frames - 1)
    before = position.astype(int)
    after = np.minimum(before + 1, track.num_frames - 1)
    part = (position - before).astype(np.float32)
    # Where one neighbour is missing there is nothing to interpolate; a posed frame stands for itself.
    known = (track.present[before] & track.present[after]) | ((part == 0) & track.present[before])

    def spread(values: Array) -> Array:
        shape = (-1, *[1] * (values.ndim - 1))
        mixed = values[before] + (values[after] - values[before]) * part.reshape(shape)
        return np.where(known.reshape(shape), mixed, 0).astype(np.float32)

    return replace(
        track.changed(spread),
        start_frame=start,
        time_s=time_s[start:stop],
        bbox_score=np.where(frames % stride == 0, track.bbox_score[before], 0).astype(np.float32),
    )
