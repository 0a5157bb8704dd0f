"""From keypoints to the network's input: normalise, make the stream, sample frames, pad persons.

Training, testing and predicting all come through here, so that they can't disagree. The published normaliser and
sampling, their steps and their order, are those of PYSKL (arXiv 2205.09443) and mmaction2; ``body`` and
``interpolate`` are skelact's own. Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from skelact.errors import SkelactError
from skelact.skeleton import LAYOUTS, Layout
from skelact.structures import Array, Track

STREAMS = ("joint", "bone", "joint-motion", "bone-motion")
NORMALISERS = ("published", "body")
SAMPLINGS = ("uniform", "interpolate")
ASPECT_RATIO_TOLERANCE = 1.25  # of pictures, by which the published normaliser scales poses
MAX_CLIP_LEN, MAX_PERSONS = 10_000, 100
KNOWN_SCORE = 0.3
IRREGULAR = 1.0  # frames by which one may come early or late
HOLE_FRAMES = 10  # without a frame for so long nothing is known
HOLE_S = 2.0  # of a hole is kept
NOWHERE = 1e-8  # metres: a person all of whose coordinates are smaller is not there
TEST_SPAN = 0.9  # share of the sample in each of several interpolated test clips
# Test clips are random but always the same: the field seeds NumPy's legacy generator with this for each sample.
TEST_SEED = 255


@dataclass(frozen=True)
class ClipSettings:
    """How a network wants its clips.

    Attributes:
        layout: the joints.
        stream: one of ``STREAMS``.
        dims: 2 for pixels, 3 for metres.
        with_score: whether the keypoint score is a channel of its own after x and y.
        clip_len: frames in a clip.
        num_person: M, the slots for persons.
        normaliser: ``published``, by the picture (2D) or the first person's spine (3D), or ``body``, by where people
            are and how large, so that neither the camera's place nor its zoom nor the picture's size counts.
        sampling: ``uniform``, whole frames, where short samples are wrapped, or ``interpolate``, evenly spaced times,
            where short samples are stretched.
        hidden_joints: names of joints that the network never sees.
        binary_scores: scores of ``KNOWN_SCORE`` and more become 1, lower ones 0 and their joints unknown, so that
            the habits of a pose estimator don't count.
    """

    layout: Layout
    stream: str = "joint"
    dims: int = 2
    with_score: bool = True
    clip_len: int = 100
    num_person: int = 2
    normaliser: str = "published"
    sampling: str = "uniform"
    hidden_joints: tuple[str, ...] = ()
    binary_scores: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.hidden_joints) - set(self.layout.joints)
        if unknown:
            raise SkelactError(f"hidden joints: layout {self.layout.name!r} has no {min(unknown)!r}")
        for name, known in (("stream", STREAMS), ("normaliser", NORMALISERS), ("sampling", SAMPLINGS)):
            if getattr(self, name) not in known:
                raise SkelactError(f"{name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}")
        for name, largest in (("clip_len", MAX_CLIP_LEN), ("num_person", MAX_PERSONS)):
            value = getattr(self, name)
            if not isinstance(value, int) or value > largest:
                raise SkelactError(f"{name}: expected a whole number up to {largest}, found {value!r}")
        if not isinstance(self.dims, int) or self.dims not in (2, 3):
            raise SkelactError(f"keypoint dimensions: expected 2 or 3, found {self.dims}")
        if self.clip_len < 1 or self.num_person < 1:
            raise SkelactError(
                f"a clip: expected at least one frame and one person, found {self.clip_len} and {self.num_person}"
            )

    @property
    def in_channels(self) -> int:
        """C of the network's input."""
        return self.dims + self.with_score


def prepare_clips(
    keypoint: Array,
    keypoint_score: Array | None,
    img_shape: tuple[int, int] | None,
    settings: ClipSettings,
    num_clips: int = 1,
) -> Array:
    """Make the test-time clips of one sample.

    Args:
        keypoint: (M, T, V, 2) pixels or (M, T, V, 3) metres.
        keypoint_score: (M, T, V) in [0, 1]; None for 3D.
        img_shape: (H, W) pixels; 1080 x 1920 where it is not known, as the field assumes.
        settings: of the network.
        num_clips: 1 or, as benchmarks do, 10.

    Returns:
        (num_clips, M, clip_len, V, C) float32 with M = ``settings.num_person``.

    Raises:
        SkelactError: the keypoints are of another layout or dimension, or empty.
    """
    return next(prepare_streams(keypoint, keypoint_score, img_shape, [settings], num_clips))


def prepare_streams(
    keypoint: Array,
    keypoint_score: Array | None,
    img_shape: tuple[int, int] | None,
    streams: Sequence[ClipSettings],
    num_clips: int = 1,
) -> Iterator[Array]:
    """The clips of one sample for several streams, as ``prepare_clips`` makes them; what they share is done once.

    Args:
        keypoint, keypoint_score, img_shape, num_clips: as for ``prepare_clips``.
        streams: settings that differ in their stream only.
    """
    settings = streams[0]
    check_shape(keypoint.shape, settings)
    keypoint, score = normalise(keypoint, keypoint_score, img_shape, settings)
    num_frames = keypoint.shape[1]
    if settings.sampling == "interpolate":
        times = test_times(num_frames, settings.clip_len, num_clips)
        resampled = [resample(keypoint, score, each) for each in times]
        whole = np.arange(settings.clip_len)[None]
        for stream in streams:
            yield np.concatenate([gather(stream_features(*clip, stream), whole, stream) for clip in resampled])
    else:
        frame_inds = test_frame_inds(num_frames, settings.clip_len, num_clips)
        for stream in streams:
            yield gather(stream_features(keypoint, score, stream), frame_inds, stream)


def check_layout(told: str | None, settings: ClipSettings) -> None:
    """Refuse a dataset whose file tells another layout; one with as many joints would pass as the right one."""
    known = LAYOUTS.get(told or "")
    if told in (None, settings.layout.name) or (known and known.joints == settings.layout.joints):
        return
    raise SkelactError(
        f"the model expects joints of layout {settings.layout.name!r}, the dataset says that it has {told!r}; "
        "take a model of that layout, or convert the dataset"
    )


def check_shape(shape: tuple[int, ...], settings: ClipSettings) -> None:
    """Refuse keypoints of a shape (M, T, V, C) that the network was not made for."""
    V, C = settings.layout.num_joints, settings.dims
    if len(shape) != 4 or shape[2:] != (V, C):
        raise SkelactError(
            f"the model expects keypoints of layout {settings.layout.name!r} as (persons, frames, {V}, {C}), "
            f"found shape {shape}"
        )
    if not shape[0] or not shape[1]:
        raise SkelactError(f"expected at least one person and one frame, found keypoints of shape {shape}")


# --- normalise ---------------------------------------------------------------------------------------------------


def upwards(settings: ClipSettings) -> int:
    """The axis that points up in normalised 3D clips: ``published`` stands people along z, Kinect's own is y."""
    return 2 if settings.normaliser == "published" else 1


def normalise(
    keypoint: Array, keypoint_score: Array | None, img_shape: tuple[int, int] | None, settings: ClipSettings
) -> tuple[Array, Array | None]:
    """Bring keypoints (M, T, V, C) to the frame of reference that the network knows, as float32."""
    keypoint = np.asarray(keypoint, np.float32)
    if settings.hidden_joints or settings.binary_scores:
        keypoint, keypoint_score = _hide(keypoint, keypoint_score, settings)
    if settings.normaliser == "body":
        if settings.dims == 3:
            return normalise_body(keypoint, None), None
        score = known_joints(keypoint, None) if keypoint_score is None else keypoint_score
        return normalise_body(keypoint, score), np.asarray(score, np.float32)
    if settings.dims == 3:
        return normalise_3d(keypoint), None
    score = np.ones(keypoint.shape[:3], np.float32) if keypoint_score is None else keypoint_score
    return normalise_2d(keypoint, img_shape or (1080, 1920)), np.asarray(score, np.float32)


def _hide(keypoint: Array, keypoint_score: Array | None, settings: ClipSettings) -> tuple[Array, Array | None]:
    """Joints that the network should not see become unknown."""
    score = known_joints(keypoint, None) if keypoint_score is None else keypoint_score
    if settings.binary_scores:
        score = score >= KNOWN_SCORE
    seen = ~np.isin(settings.layout.joints, settings.hidden_joints)
    score = np.asarray(score * seen, np.float32)
    return keypoint * (score > 0)[..., None], None if keypoint_score is None else score


def normalise_2d(keypoint: Array, img_shape: tuple[int, int]) -> Array:
    """Pixels to [-1, 1] over the picture's width and height."""
    height, width = img_shape
    V = keypoint.shape[2]
    half = np.tile(np.array([width / 2, height / 2], np.float32), V)  # in rows of V * 2: NumPy is slow in rows of 2
    made = keypoint.reshape(-1, V * 2) - half
    made /= half
    return made.reshape(keypoint.shape)


def normalise_body(keypoint: Array, keypoint_score: Array | None) -> Array:
    """Centre a sample between its people and scale it to their size; joints that are not known become 0.

    A person's place in a frame is the mean of the known joints, the size their root mean square distance from it. The
    origin is the mean over persons of the median place over time, the unit twice the median size, which is about half
    a standing person's height. Movement over time and the distance of two people from each other stay. Where never
    more than half of the joints are seen, perhaps a single one, the size is at least a tenth of the root mean square
    distance of the joints from the origin.

    Args:
        keypoint: (M, T, V, C) float32.
        keypoint_score: (M, T, V); where it is 0 a joint is not known. Without it, where the coordinates are 0.
    """
    known = known_joints(keypoint, keypoint_score)
    count = known.sum(-1)  # (M, T)
    place = (keypoint * known[..., None]).sum(2) / np.maximum(count, 1)[..., None]
    square = (((keypoint - place[:, :, None]) ** 2).sum(-1) * known).sum(-1)
    size = np.sqrt(square / np.maximum(count, 1))
    seen = (count > keypoint.shape[2] / 2) & (size > 0)
    is_part = not seen.any()
    if is_part:
        seen = count > 0
    persons = [m for m in range(len(keypoint)) if seen[m].any()]
    if not persons:
        return np.zeros_like(keypoint)
    origin = np.mean([np.median(place[m, seen[m]], axis=0) for m in persons], axis=0)
    centred = (keypoint - origin) * known[..., None]
    unit = np.median(size[seen])
    if is_part:
        unit = max(unit, np.sqrt((centred**2).sum() / known.sum()) / 10, 1e-6)
    return (centred / (2 * unit)).astype(np.float32)


def known_joints(keypoint: Array, keypoint_score: Array | None) -> Array:
    """Which joints (M, T, V) were seen: those with a score or, without scores, those that are not at zero."""
    return np.any(keypoint != 0, axis=-1) if keypoint_score is None else np.greater(keypoint_score, 0)


def normalise_3d(keypoint: Array) -> Array:
    """Centre a 3D sample on its first person's spine and turn it upright and to the front.

    Frames without person 0 are dropped (after the two persons change places if the second is there longer). Joint 1 of
    person 0 in the first frame becomes the origin; the vector from joint 0 to 1 is turned to z, then the one from
    joint 4 to 8 to x. Both are joints of ``nturgb+d``.
    """
    M, T, V, C = keypoint.shape
    present: Array = np.any((np.abs(keypoint) > NOWHERE).reshape(M, T, V * C), axis=-1)
    if len(keypoint) == 2 and present[1].sum() > present[0].sum():
        keypoint, present = keypoint[::-1], present[::-1]
    if not present[0].any():
        return keypoint
    keypoint = keypoint[:, present[0]]
    known = (keypoint != 0) @ np.ones(C, bool)
    centred = (keypoint.reshape(-1, V * C) - np.tile(keypoint[0, 0, 1], V)).reshape(-1, C)
    for c in range(C):
        centred[:, c] *= known.ravel()
    first = centred[:V].astype(np.float64)
    turn: Array = np.eye(3)
    for tail, head, axis in ((0, 1, (0, 0, 1)), (4, 8, (1, 0, 0))):
        rotation = _rotation_between((first[head] - first[tail]) @ turn.T, np.array(axis, np.float64))
        turn = rotation @ turn
    return (centred @ turn.T.astype(np.float32)).reshape(keypoint.shape)


def _rotation_between(source: Array, target: Array) -> Array:
    """The (3, 3) rotation about ``source x target`` that turns source to target (Rodrigues' formula)."""
    norms = np.linalg.norm(source) * np.linalg.norm(target)
    axis = np.cross(source, target)
    sine = np.linalg.norm(axis)
    if norms < 1e-12 or np.abs(axis).sum() < 1e-6:
        return np.eye(3)
    angle = np.arccos(np.clip(source @ target / norms, -1, 1))
    x, y, z = axis / sine
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


# --- streams -----------------------------------------------------------------------------------------------------


def stream_features(keypoint: Array, keypoint_score: Array | None, settings: ClipSettings) -> Array:
    """Joints to the stream's features: (M, T, V, dims) and scores (M, T, V) to (M, T, V, C).

    A bone is a joint minus its parent, a motion the difference to the next frame (0 in the last one). A score that
    comes from two joints or two frames is their mean.
    """
    M, T, V, C = keypoint.shape
    score = np.ones((M, T, V), np.float32) if keypoint_score is None else keypoint_score
    if settings.stream.startswith("bone"):
        parents = np.array(settings.layout.bone_parents)
        keypoint = keypoint - keypoint.take(parents, axis=2)
        score = (score + score.take(parents, axis=2)) / 2
    features = np.empty((M, T, V, C + settings.with_score), np.float32)
    # A channel at a time, for NumPy is slow in rows as short as C.
    channels = [(keypoint[..., c], features[..., c]) for c in range(C)]
    if settings.stream.endswith("motion"):
        features[:, -1] = 0
        for values, out in channels:
            np.subtract(values[:, 1:], values[:, :-1], out=out[:, :-1])
        if settings.with_score:
            features[:, :-1, :, C] = (score[:, 1:] + score[:, :-1]) / 2
    else:
        for values, out in channels:
            out[...] = values
        if settings.with_score:
            features[..., C] = score
    return features


# --- uniform sampling --------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)  # of samples as long as another one
def test_frame_inds(num_frames: int, clip_len: int, num_clips: int) -> Array:
    """Frame indices (num_clips, clip_len) for testing, the same for every call; not to be changed.

    Args:
        num_frames: T of the sample.
        clip_len: frames in a clip.
        num_clips: short samples start each clip a little later, long ones draw each anew.
    """
    draw = np.random.RandomState(TEST_SEED)
    clips = []
    for clip in range(num_clips):
        start = clip if num_frames < num_clips else clip * num_frames // num_clips
        clips.append(_uniform_frame_inds(num_frames, clip_len, start, draw))
    inds = np.stack(clips)
    inds.flags.writeable = False
    return inds


test_frame_inds.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name


def train_frame_inds(num_frames: int, clip_len: int, rng: np.random.Generator) -> Array:
    """Frame indices (clip_len,) of one random clip for training."""
    draw = np.random.RandomState(rng.integers(2**32, dtype=np.uint32))
    return _uniform_frame_inds(num_frames, clip_len, int(rng.integers(num_frames)), draw)


def _uniform_frame_inds(num_frames: int, clip_len: int, start: int, draw: np.random.RandomState) -> Array:
    """PYSKL's uniform sampling: one frame from each of ``clip_len`` equal parts, or all of a short sample, wrapped."""
    if num_frames < clip_len:
        return (start + np.arange(clip_len)) % num_frames
    if num_frames < 2 * clip_len:
        skips = np.zeros(clip_len + 1, np.int64)
        skips[draw.choice(clip_len + 1, num_frames - clip_len, replace=False)] = 1
        return np.arange(clip_len) + np.cumsum(skips)[:-1]
    borders = np.arange(clip_len + 1) * num_frames // clip_len
    return borders[:-1] + draw.randint(np.diff(borders))


# --- interpolated sampling ---------------------------------------------------------------------------------------


def test_times(num_frames: int, clip_len: int, num_clips: int) -> Array:
    """Times in frames (num_clips, clip_len): all of the sample once, or several overlapping spans of most of it."""
    span = 1.0 if num_clips == 1 else TEST_SPAN
    starts = np.linspace(0, 1 - span, num_clips)
    return np.stack([_spaced(num_frames, clip_len, start, span) for start in starts])


test_times.__test__ = False  # type: ignore[attr-defined]


def train_times(num_frames: int, clip_len: int, rng: np.random.Generator, min_span: float = 1.0) -> Array:
    """Times in frames (clip_len,) of one span of the sample, of random length and place."""
    span = rng.uniform(min_span, 1)
    return _spaced(num_frames, clip_len, rng.uniform(0, 1 - span), span)


def _spaced(num_frames: int, clip_len: int, start: float, span: float) -> Array:
    return (start + span * np.linspace(0, 1, clip_len)) * (num_frames - 1)


def resample(keypoint: Array, keypoint_score: Array | None, times: Array) -> tuple[Array, Array | None]:
    """Poses between frames, by linear interpolation; where one of the two is not known, the other.

    Args:
        keypoint, keypoint_score: (M, T, V, C) and (M, T, V).
        times: (T',) in frames, from 0 to T - 1.

    Returns:
        (M, T', V, C) and (M, T', V).
    """
    before = np.floor(times).astype(int)
    after = np.minimum(before + 1, keypoint.shape[1] - 1)
    part = (times - before).astype(np.float32)[:, None]
    known = known_joints(keypoint, keypoint_score)
    weight_before, weight_after = (1 - part) * known[:, before], part * known[:, after]
    total = weight_before + weight_after
    weight_before, weight_after = (
        np.divide(weight, total, out=np.zeros_like(total), where=total > 0) for weight in (weight_before, weight_after)
    )
    between = keypoint[:, before] * weight_before[..., None] + keypoint[:, after] * weight_after[..., None]
    if keypoint_score is None:
        return between, None
    return between, keypoint_score[:, before] * weight_before + keypoint_score[:, after] * weight_after


def regular(
    keypoint: Array, keypoint_score: Array | None, time_s: Array, fps: float
) -> tuple[Array, Array | None, float]:
    """The same poses at a constant rate, and the rate; untouched where no frame is off by more than ``IRREGULAR``.

    Where no frame came for ``HOLE_FRAMES`` there are no poses, for ``HOLE_S`` at most: what is longer is shortened.

    Args:
        keypoint, keypoint_score: (M, T, V, C) and (M, T, V).
        time_s: (T,) of the frames, increasing.
        fps: about their mean rate. Irregular ones get the rate that most frames come at, the median.
    """
    time_s = time_s - time_s[0]
    frames = np.linspace(0, time_s[-1], len(time_s))  # when they would come, were they regular
    if np.abs(time_s - frames).max() <= IRREGULAR / fps:
        return keypoint, keypoint_score, fps
    steps = np.diff(time_s)
    fps = 1 / float(np.median(steps))
    is_hole = steps * fps >= HOLE_FRAMES
    steps = np.where(is_hole, np.minimum(steps, max(HOLE_S, HOLE_FRAMES / fps)), steps)
    time_s = np.concatenate([[0.0], steps.cumsum()])
    times = np.arange(int(time_s[-1] * fps + 1e-6) + 1) / fps
    keypoint, keypoint_score = resample(keypoint, keypoint_score, np.interp(times, time_s, np.arange(len(time_s))))
    step = np.clip(np.searchsorted(time_s, times, "right") - 1, 0, len(steps) - 1)
    empty = is_hole[step] & (times > time_s[step] + 1e-6) & (times < time_s[step + 1] - 1e-6)
    keypoint[:, empty] = 0
    if keypoint_score is not None:
        keypoint_score[:, empty] = 0
    return keypoint, keypoint_score, fps


# --- slots -------------------------------------------------------------------------------------------------------


def gather(keypoint: Array, frame_inds: Array, settings: ClipSettings) -> Array:
    """Take frames and fill the slots: (M, T, V, C) and (num_clips, clip_len) to (num_clips, M', clip_len, V, C)."""
    M, T, V, C = keypoint.shape
    num_clips, clip_len = frame_inds.shape
    used = min(M, settings.num_person)
    rows = keypoint.astype(np.float32, copy=False).reshape(M * T, V * C)
    clips = rows.take(frame_inds[:, None] + T * np.arange(used)[:, None], axis=0)
    if used < settings.num_person:
        clips = np.concatenate(
            [clips, np.zeros((num_clips, settings.num_person - used, clip_len, V * C), np.float32)], 1
        )
    return clips.reshape(num_clips, settings.num_person, clip_len, V, C)


# --- tracks ------------------------------------------------------------------------------------------------------


def tracks_keypoint(tracks: Sequence[Track], num_frames: int) -> tuple[Array, Array | None]:
    """Tracks on one time axis, as annotation pickles hold persons: zeros where one is not there.

    Args:
        tracks: M of them, at least one.
        num_frames: T, of the whole sequence.

    Returns:
        keypoint (M, T, V, C) and keypoint_score (M, T, V), or None for 3D.
    """
    V, C = tracks[0].keypoint.shape[1:]
    keypoint = np.zeros((len(tracks), num_frames, V, C), np.float32)
    score = np.zeros(keypoint.shape[:3], np.float32)
    for m, track in enumerate(tracks):
        frames = slice(track.start_frame, track.stop_frame)
        keypoint[m, frames] = track.keypoint
        if track.keypoint_score is not None:
            score[m, frames] = track.keypoint_score
    return keypoint, None if tracks[0].keypoint_score is None else score
