"""NTU RGB+D as published: sample names, splits, classes and ``.skeleton`` files.

Sources: https://github.com/shahroudy/NTURGB-D (names and classes in its README, the file format in its
``Matlab/read_skeleton_file.m``); the splits are those of Shahroudy et al., CVPR 2016, and Liu et al., TPAMI 2019.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skelact.errors import SkelactError
from skelact.skeleton import NTU
from skelact.structures import Array
from skelact.weights import NTU60_CLASSES

# A001 to A120.
NTU120_CLASSES = (
    *NTU60_CLASSES,
    *("put on headphone", "take off headphone", "shoot at the basket", "bounce ball", "tennis bat swing"),
    *("juggling table tennis balls", "hush (quite)", "flick hair", "thumb up", "thumb down", "make ok sign"),
    *("make victory sign", "staple book", "counting money", "cutting nails", "cutting paper (using scissors)"),
    *("snapping fingers", "open bottle", "sniff (smell)", "squat down", "toss a coin", "fold paper"),
    *("ball up paper", "play magic cube", "apply cream on face", "apply cream on hand back", "put on bag"),
    *("take off bag", "put something into a bag", "take something out of a bag", "open a box"),
    *("move heavy objects", "shake fist", "throw up cap/hat", "hands up (both hands)", "cross arms"),
    *("arm circles", "arm swings", "running on the spot", "butt kicks (kick backward)", "cross toe touch"),
    *("side kick", "yawn", "stretch oneself", "blow nose", "hit other person with something"),
    *("wield knife towards other person", "knock over other person (hit with body)"),
    *("grab other person's stuff", "shoot at other person with a gun", "step on foot", "high-five"),
    *("cheers and drink", "carry something with other person", "take a photo of other person"),
    *("follow other person", "whisper in other person's ear", "exchange things with other person"),
    *("support somebody with one's hand", "finger-guessing game (playing rock-paper-scissors)"),
)

# The performers that cross-subject training takes; NTU60 has performers 1 to 40, NTU120 has 1 to 106.
XSUB_TRAIN = frozenset(
    (
        *(1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),
        *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89),
        *(91, 92, 93, 94, 95, 97, 98, 100, 103),
    )
)
XVIEW_TRAIN = frozenset((2, 3))  # cameras
NTU60_SETUPS = 17  # those with a higher number are NTU120's

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(?!\d)")


@dataclass(frozen=True)
class NtuName:
    """What ``SsssCcccPpppRrrrAaaa`` says.

    Attributes:
        name: those 20 characters, without suffixes such as ``_rgb.avi``.
        setup, camera, performer, replication, action: its numbers, from 1.
    """

    name: str
    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @property
    def label(self) -> int:
        """The class index, from 0."""
        return self.action - 1


def ntu_sample(name: str | Path) -> NtuName | None:
    """Read a sample's name, a file name or a path; None if it is not one of NTU RGB+D."""
    found = _NAME.match(Path(name).name)
    if found is None:
        return None
    sample = NtuName(found[0], *map(int, found.groups()))
    return sample if 1 <= sample.action <= len(NTU120_CLASSES) else None


def is_ntu120(names: Iterable[str | Path]) -> bool:
    """Whether any of the names is of NTU RGB+D 120 and not of the first 60 classes' data set."""
    return any(
        sample.action > len(NTU60_CLASSES) or sample.setup > NTU60_SETUPS for sample in map(ntu_sample, names) if sample
    )


def ntu_splits(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The published splits: xsub and, of NTU60, xview; of NTU120, xset.

    Args:
        names: of samples; those that are not of NTU RGB+D are in no split.

    Returns:
        ``xsub_train``, ``xsub_val``, ... with the names in them, in their order; empty splits are left out.
    """
    samples = {name: sample for name in names if (sample := ntu_sample(name))}
    train = {"xsub": {name for name, sample in samples.items() if sample.performer in XSUB_TRAIN}}
    if is_ntu120(samples):
        train["xset"] = {name for name, sample in samples.items() if sample.setup % 2 == 0}
    else:
        train["xview"] = {name for name, sample in samples.items() if sample.camera in XVIEW_TRAIN}
    splits = {}
    for protocol, chosen in train.items():
        splits[f"{protocol}_train"] = tuple(name for name in samples if name in chosen)
        splits[f"{protocol}_val"] = tuple(name for name in samples if name not in chosen)
    return {split: members for split, members in splits.items() if members}


# --- .skeleton files ---------------------------------------------------------------------------------------------

BODY_FIELDS = 10  # bodyID, clippedEdges, hand confidences and states, isRestricted, leanX, leanY, trackingState
JOINT_FIELDS = 12  # x y z in metres, depth x y, colour x y, orientation w x y z, trackingState
NUM_BODIES = 2
# The Kinect gives a body that it lost and found again a new bodyID; it is the same if it is found so soon and so near.
LOST_FRAMES = 30
LOST_METRES = 0.5

_Body = dict[int, Array]  # frame -> (25, 3) metres


def read_skeleton(path: str | Path) -> Array:
    """The bodies in an NTU ``.skeleton`` file.

    Bodies are followed by their bodyID. Of more than two, those with the largest spread are kept: the sum of the
    standard deviations of x, y and z over a body's frames. The one with the largest comes first.

    Returns:
        (M, T, 25, 3) metres float32, M = 1 or 2; zeros where a body is not seen.

    Raises:
        SkelactError: the file is missing, damaged, or nobody is in it.
    """
    path = Path(path)
    try:
        num_frames, bodies = _parse(path.read_text(encoding="ascii").split())
    except FileNotFoundError:
        raise SkelactError(f"{path}: no such file") from None
    except OSError as error:
        raise SkelactError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        raise SkelactError(
            f"{path}: expected an NTU .skeleton file, found a damaged or another file ({error})"
        ) from None
    kept = sorted(_join(bodies), key=_spread, reverse=True)[:NUM_BODIES]
    if not kept:
        raise SkelactError(f"{path}: expected bodies, found none in its {num_frames} frames; leave it out by --exclude")
    keypoint = np.zeros((len(kept), num_frames, NTU.num_joints, 3), np.float32)
    for m, body in enumerate(kept):
        keypoint[m, list(body)] = list(body.values())
    return keypoint


def _parse(tokens: list[str]) -> tuple[int, list[_Body]]:
    """Number of frames, and the bodies in the order of their first frames; ValueError where it is damaged."""
    position = 0

    def take(count: int) -> list[str]:
        nonlocal position
        position += count
        if position > len(tokens):
            raise ValueError("it ends too early")
        return tokens[position - count : position]

    num_frames = int(take(1)[0])
    if not 0 < num_frames <= len(tokens):
        raise ValueError(f"it claims {num_frames} frames")
    bodies: dict[str, _Body] = {}
    for t in range(num_frames):
        for _ in range(int(take(1)[0])):
            body_id = take(BODY_FIELDS)[0]  # stays text: a float would merge neighbours of these large numbers
            num_joints = int(take(1)[0])
            if num_joints != NTU.num_joints:
                raise ValueError(f"a body of {num_joints} joints in frame {t}")
            fields = take(NTU.num_joints * JOINT_FIELDS)
            xyz = np.array([fields[axis::JOINT_FIELDS] for axis in range(3)], np.float32).T
            if not np.isfinite(xyz).all():
                raise ValueError(f"NaN or infinity in frame {t}")
            if xyz.any():
                bodies.setdefault(body_id, {})[t] = xyz
    if position != len(tokens):
        raise ValueError(f"it goes on after its {num_frames} frames")
    return num_frames, list(bodies.values())


def _join(bodies: list[_Body]) -> list[_Body]:
    """Put together bodies that follow each other soon after and close by: of those that start at once, the nearest."""
    pairs = []
    for i, earlier in enumerate(bodies):
        for k, body in enumerate(bodies):
            start, end = min(body), max(earlier)
            step = float(np.linalg.norm(earlier[end][0] - body[start][0]))  # of the spine's base
            if end < start <= end + LOST_FRAMES and step <= LOST_METRES:
                pairs.append((start, step, i, k))
    next_of: dict[int, int] = {}
    for *_, i, k in sorted(pairs):
        if i not in next_of and k not in next_of.values():
            next_of[i] = k
    joined = []
    for first in range(len(bodies)):
        if first not in next_of.values():
            whole, part = dict(bodies[first]), first
            while part in next_of:
                part = next_of[part]
                whole.update(bodies[part])
            joined.append(whole)
    return joined


def _spread(body: _Body) -> float:
    return float(np.concatenate(list(body.values())).std(axis=0).sum())
