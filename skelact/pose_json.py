"""Poses in the JSON files of other tools.

Each reader takes parsed JSON and gives its frames, or None where it is not of that format. Sources of the formats:

- ultralytics: ``Results.summary()`` and ``to_json()`` in ultralytics/engine/results.py (8.4), one list a frame
- AlphaPose: docs/output.md and ``write_json`` in alphapose/utils/pPose_nms.py of MVIG-SJTU/AlphaPose; the same list of
  COCO results is what ultralytics' validator writes with ``save_json``
- OpenPose: doc/02_output.md of CMU-Perceptual-Computing-Lab/openpose, one file a frame; AlphaPose's ``--format open``
  and ``cmu`` put the same under the pictures' names into one file
- MMPose 1.x: ``postprocess`` in mmpose/apis/inferencers/base_mmpose_inferencer.py, demo/topdown_demo_with_mmdet.py and
  ``split_instances`` in mmpose/structures/utils.py
- MediaPipe: it writes no JSON itself; people dump ``pose_landmarks`` of its results (33 x, y, z, visibility, the first
  two as fractions of the picture) as a list of frames, alone or under a key
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skelact.errors import SkelactError
from skelact.files import read_text
from skelact.kinds import JSON_SUFFIXES, kind_of
from skelact.skeleton import COCO, OPENPOSE, Layout
from skelact.structures import Array

# OpenPose's 25 and MediaPipe's 33 joints: names to convert from, no layouts that a network has.
BODY_25 = Layout(
    name="body_25",
    joints=(
        *OPENPOSE.joints[:8],
        *("mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel"),
        *("right_big_toe", "right_small_toe", "right_heel"),
    ),
    edges=(),
    center=1,
)
MEDIAPIPE = Layout(
    name="mediapipe",
    joints=(
        *("nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer"),
        *("left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow"),
        *("right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index"),
        *("left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
        *("right_ankle", "left_heel", "right_heel", "left_foot_index", "right_foot_index"),
    ),
    edges=(),
    center=0,
)
# By the number of joints. Halpe (26, 136) and COCO-WholeBody (133) begin with COCO's 17; the rest is left out.
LAYOUT_OF = {17: COCO, 26: COCO, 133: COCO, 136: COCO, 18: OPENPOSE, 25: BODY_25, 33: MEDIAPIPE}

# What reading JSON of another shape than expected raises.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
FRACTION = 2.0  # where most joints are nearer, they are fractions of the picture, though estimators guess some farther
MAX_PIXELS = 1e6
MAX_SPARSENESS = 100  # frames for each that has people; beyond, the numbers are not those of a video's frames
LINK_FRAMES = 30  # how long somebody may be gone
LINK_DISTANCE = 0.5  # body sizes; somebody farther away is somebody else


@dataclass(frozen=True)
class Person:
    """One pose: points (V, 3) of x, y and score, and the tool's own track id where it has one."""

    points: Array
    track_id: str | float | None = None


@dataclass(frozen=True)
class Frame:
    """The people in one picture: its number, where the file tells one, and the picture's name without that number."""

    persons: Sequence[Person]
    number: int | None = None
    video: str = ""


@dataclass(frozen=True)
class Poses:
    """What a file holds.

    Attributes:
        frames: in the file's order.
        img_shape: (H, W) pixels; None where the file does not tell.
        fps: None where the file does not tell.
        single: the file is one frame of a video whose other frames lie beside it.
    """

    frames: Sequence[Frame]
    img_shape: tuple[int, int] | None = None
    fps: float | None = None
    single: bool = False


def read_json(path: Path) -> Any:
    """Parse a file.

    Raises:
        SkelactError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        raise SkelactError(f"{path}: no such file") from None
    except OSError as error:
        raise SkelactError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        found = kind_of(path, JSON_SUFFIXES) or f"a damaged or another file ({error})"
        raise SkelactError(f"{path}: expected JSON, found {found}") from None


def split_number(name: str) -> tuple[str, int | None]:
    """``a/clip_000012_keypoints.json`` as ("clip", 12): the name of a video and the number of the frame, if any."""
    found = re.fullmatch(r"(.*?)[ _.-]*(\d{1,18})", Path(name).stem.removesuffix("_keypoints"))
    return (found[1], int(found[2])) if found else (Path(name).stem, None)


# --- the formats -------------------------------------------------------------------------------------------------


def _mappings(content: Any, *keys: str) -> bool:
    """Whether it is a list of dicts that all have these keys."""
    return isinstance(content, list) and all(isinstance(x, Mapping) and x.keys() >= set(keys) for x in content)


def _triplets(flat: Sequence[float]) -> Array:
    """x1, y1, score1, x2, ... as (V, 3)."""
    return np.array(flat, np.float64).reshape(-1, 3)


def _track_id(value: Any) -> str | float | None:
    """A track id, alone or first in a list; OpenPose writes -1 for none."""
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, str | int | float) and value != -1 else None


def _ultralytics(content: Any) -> Poses | None:
    def frame(detections: Any) -> Frame | None:
        if isinstance(detections, str):  # to_json() gives text, which lands in a list as it is
            detections = json.loads(detections)
        if not _mappings(detections, "box", "keypoints"):
            return None
        return Frame([person(detection) for detection in detections])

    def person(detection: Mapping[str, Any]) -> Person:
        points = detection["keypoints"]
        score = points.get("visible") or [1.0] * len(points["x"])
        return Person(np.array([points["x"], points["y"], score], np.float64).T, _track_id(detection.get("track_id")))

    single = frame(content)
    if single is not None:
        return Poses([single], single=True)
    frames = [frame(detections) for detections in content] if isinstance(content, list) else [None]
    return Poses([found for found in frames if found]) if None not in frames else None


def _alphapose(content: Any) -> Poses | None:
    if not _mappings(content, "image_id", "keypoints"):
        return None
    frames: dict[tuple[str, int | None], list[Person]] = {}
    for result in content:
        person = Person(_triplets(result["keypoints"]), _track_id(result.get("idx")))
        frames.setdefault(split_number(str(result["image_id"])), []).append(person)
    return Poses([Frame(persons, number, video) for (video, number), persons in frames.items()])


def _openpose(content: Any) -> Poses | None:
    point_keys = ("pose_keypoints_2d", "pose_keypoints", "joints")

    def frame(people: Any, number: int | None = None, video: str = "") -> Frame:
        persons = []
        for body in people:
            points = next((body[key] for key in point_keys if body.get(key)), None)
            if points:  # else the tool was asked for faces or hands only
                persons.append(Person(_triplets(points), _track_id(body.get("person_id"))))
        return Frame(persons, number, video)

    def people(picture: Any) -> Any:
        found = picture.get("people", picture.get("bodies")) if isinstance(picture, Mapping) else None
        return found if _mappings(found) else None

    if not isinstance(content, Mapping) or not content:
        return None
    if people(content) is not None:
        return Poses([frame(people(content))], single=True)
    if any(people(picture) is None for picture in content.values()):
        return None
    names = [split_number(name) for name in content]
    return Poses([frame(people(x), number, video) for x, (video, number) in zip(content.values(), names, strict=True)])


def _mmpose(content: Any) -> Poses | None:
    def frame(instances: Any, number: int | None = None) -> Frame:
        return Frame([person(instance) for instance in instances], number)

    def person(instance: Mapping[str, Any]) -> Person:
        xy, score = np.array(instance["keypoints"], np.float64), np.array(instance["keypoint_scores"], np.float64)
        if xy.ndim != 2 or xy.shape[1] != 2:
            raise SkelactError(f"expected 2D keypoints (joints, 2), found shape {xy.shape}")
        return Person(np.column_stack([xy, score])[joints], _track_id(instance.get("track_id")))

    joints: Any = slice(None)
    if isinstance(content, Mapping):
        joints = _coco_joints(content.get("meta_info") or {})
        content = content.get("instance_info")
    if _mappings(content, "keypoints", "keypoint_scores"):
        return Poses([frame(content)], single=True)
    if _mappings(content, "instances"):
        return Poses([frame(picture["instances"], picture.get("frame_id")) for picture in content])
    return None


def _coco_joints(meta: Mapping[str, Any]) -> Any:
    """Where COCO's joints are among those that MMPose tells the names of."""
    names = meta.get("keypoint_id2name")
    if not isinstance(names, Mapping):
        return slice(None)
    place = {name: int(k) for k, name in names.items()}
    missing = [name for name in COCO.joints if name not in place]
    if missing:
        raise SkelactError(f"expected COCO's joints, found those of {meta.get('dataset_name')!r} without {missing[0]}")
    return [place[name] for name in COCO.joints]


def _mediapipe(content: Any) -> Poses | None:
    number_keys = ("frame_index", "frame_idx", "frame_id", "frame_number", "frame")

    def person(landmarks: Any) -> Person | None:
        if isinstance(landmarks, Mapping):
            landmarks = landmarks.get("landmark")  # as protobuf's MessageToDict has it
        if not isinstance(landmarks, list) or len(landmarks) != MEDIAPIPE.num_joints:
            return None
        if _mappings(landmarks, "x", "y"):
            return Person(np.array([(p["x"], p["y"], p.get("visibility", 1.0)) for p in landmarks], np.float64))
        if all(isinstance(p, list) and len(p) in (3, 4) for p in landmarks):  # x, y, z[, visibility]
            return Person(np.array([(p[0], p[1], p[3] if len(p) == 4 else 1.0) for p in landmarks], np.float64))
        return None

    def persons(picture: Any) -> list[Person] | None:
        """Of one frame; None if it is none."""
        if picture is None or picture == []:
            return []
        one = person(picture)
        if one is not None:
            return [one]
        if isinstance(picture, list):
            found = [person(landmarks) for landmarks in picture]
            return [one for one in found if one] if None not in found else None
        if isinstance(picture, Mapping):
            for key in ("pose_landmarks", "poseLandmarks", "landmarks", "keypoints"):
                if key in picture:
                    return persons(picture[key])
        return None

    img_shape = fps = None
    single = persons(content)
    if single is not None:
        return Poses([Frame(single)], single=True)
    if isinstance(content, Mapping):
        height, width = (float(content.get(key) or 0) for key in ("height", "width"))
        img_shape = (int(height), int(width)) if min(height, width) >= 1 else None
        fps = next((float(content[key]) for key in ("fps", "frameRate") if content.get(key)), None)
        content = next((content[key] for key in ("frames", "poses", "data", "results") if key in content), None)
    if not isinstance(content, list):
        return None
    frames = []
    for picture in content:
        found = persons(picture)
        if found is None:
            return None
        number = next((picture[key] for key in number_keys if isinstance(picture, Mapping) and key in picture), None)
        frames.append(Frame(found, number))
    return Poses(frames, img_shape, fps)


READERS: dict[str, Callable[[Any], Poses | None]] = {
    "ultralytics-json": _ultralytics,
    "alphapose-json": _alphapose,
    "openpose-json": _openpose,
    "mmpose-json": _mmpose,
    "mediapipe-json": _mediapipe,
}


def json_format(content: Any) -> str | None:
    """The first format whose reader finds people in it."""
    for name, reader in READERS.items():
        try:
            poses = reader(content)
        except SkelactError:  # of that format, but refused; who reads it is told why
            return name
        except MALFORMED:
            continue
        if poses and any(frame.persons for frame in poses.frames):
            return name
    return None


def read_poses(path: Path, source_format: str) -> Poses:
    """Read a file of a known format.

    Raises:
        SkelactError: it cannot be read or is of another format.
    """
    content = read_json(path)
    try:
        poses = READERS[source_format](content)
    except SkelactError as error:
        raise SkelactError(f"{path}: {error}") from None
    except MALFORMED as error:
        raise SkelactError(f"{path}: damaged {source_format} ({type(error).__name__}: {error})") from None
    if poses is None:
        raise SkelactError(f"{path}: expected {source_format}, found something else; choose another format by --from")
    return poses


# --- from frames to persons --------------------------------------------------------------------------------------


def follow(poses: Poses, img_shape: tuple[int, int] | None) -> tuple[Array, Array, Layout]:
    """Follow everybody through a video.

    Persons keep the tool's track ids. Who has none goes on where the nearest pose of the last second ended, if that is
    less than half a body size away (nearest pairs first), else is somebody new. They come in the order of their
    first frames.

    Args:
        poses: of the video.
        img_shape: (H, W) pixels, for coordinates that are fractions of the picture.

    Returns:
        Keypoints (M, T, V, 2) in pixels and scores (M, T, V) in [0, 1], float32, zeros where somebody is not seen; and
        the layout that they have.

    Raises:
        SkelactError: nobody is there, or the joints or coordinates are not understood.
    """
    timeline = _timeline(poses.frames)
    everybody = [person.points for persons in timeline for person in persons]
    if not everybody:
        raise SkelactError("expected people, found none in any frame")
    counts = sorted({len(points) for points in everybody})
    if len(counts) > 1 or counts[0] not in LAYOUT_OF:
        raise SkelactError(f"expected poses of {', '.join(map(str, LAYOUT_OF))} joints, found {counts}")
    layout = LAYOUT_OF[counts[0]]
    values = np.concatenate(everybody)
    if not (np.abs(values) < MAX_PIXELS).all():
        raise SkelactError("expected coordinates in pixels, found NaN, infinity or more than a million")
    scale = np.ones(3)
    is_seen = values[:, 2] > 0
    seen = values[is_seen if is_seen.any() else slice(None), :2]
    if np.median(np.abs(seen).max(1)) <= FRACTION:
        if (seen < 0).any(1).mean() > 0.5:  # as many are where 0 is the middle
            raise SkelactError("expected coordinates in pixels or from 0 to 1, found some from -1 to 1")
        if img_shape is None:
            raise SkelactError("its coordinates are fractions of the picture; give the picture's size by --img-shape")
        scale = np.array([img_shape[1], img_shape[0], 1.0])
    tracks = _link([[Person(p.points * scale, p.track_id) for p in persons] for persons in timeline])
    joints = np.zeros((len(tracks), len(timeline), layout.num_joints, 3), np.float32)
    for m, track in enumerate(tracks):
        for t, points in track.items():
            joints[m, t] = points[: layout.num_joints]
    return joints[..., :2].copy(), joints[..., 2].clip(0, 1), layout


def _timeline(frames: Sequence[Frame]) -> list[list[Person]]:
    """The people of each frame from the first to the last, by the frames' numbers; by their order if one has none."""
    videos = sorted({frame.video for frame in frames})
    if len(videos) > 1:
        raise SkelactError(f"expected the frames of one video, found pictures of {', '.join(videos[:3])}")
    numbers = [frame.number for frame in frames if isinstance(frame.number, int)]
    if len(numbers) < len(frames):
        return [list(frame.persons) for frame in frames]
    first, length = min(numbers, default=0), max(numbers, default=-1) - min(numbers, default=0) + 1
    if length > MAX_SPARSENESS * len(numbers):
        raise SkelactError(f"expected the frames of one video, found {len(numbers)} numbered up to {max(numbers)}")
    timeline: list[list[Person]] = [[] for _ in range(length)]
    for frame, number in zip(frames, numbers, strict=True):
        timeline[number - first].extend(frame.persons)
    return timeline


def _link(timeline: Sequence[Sequence[Person]]) -> list[dict[int, Array]]:
    """Frame -> points (V, 3) of each person (``follow`` has the rule)."""
    tracks: dict[Hashable, dict[int, Array]] = {}
    several = sum(len(persons) > 1 for persons in timeline)
    ids = {person.track_id for persons in timeline for person in persons}
    if len(ids) == 1 and 2 * several > sum(map(bool, timeline)):
        # Everybody has the same one, as in AlphaPose's files without tracking.
        timeline = [[Person(person.points) for person in persons] for persons in timeline]
    for t, persons in enumerate(timeline):
        rest, taken = [], set()
        for person in persons:
            if person.track_id is None or person.track_id in taken:
                rest.append(person.points)
            else:
                taken.add(person.track_id)
                tracks.setdefault(person.track_id, {})[t] = person.points
        last = {key: next(reversed(track)) for key, track in tracks.items()}
        ends = {key: tracks[key][end] for key, end in last.items() if t - LINK_FRAMES <= end < t}
        pairs = [(_distance(points, end), i, k) for i, points in enumerate(rest) for k, end in enumerate(ends.values())]
        free, keys = dict(enumerate(rest)), dict(enumerate(ends))
        for distance, i, k in sorted(pairs):
            if distance <= LINK_DISTANCE and i in free and k in keys:
                tracks[keys.pop(k)][t] = free.pop(i)
        for points in free.values():
            tracks["new", len(tracks)] = {t: points}
    return list(tracks.values())


def _distance(points: Array, end: Array) -> float:
    """Mean distance of the joints that both poses have, in body sizes of the earlier one; inf if they share none."""
    both = (points[:, 2] > 0) & (end[:, 2] > 0)
    if not both.any():
        return float("inf")
    size = np.ptp(end[end[:, 2] > 0, :2], axis=0).max()
    return float(np.linalg.norm(points[both, :2] - end[both, :2], axis=1).mean() / max(size, 1e-9))
