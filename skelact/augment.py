"""Random changes to training clips that leave the action as it is."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np

from skelact.clips import known_joints
from skelact.skeleton import Layout
from skelact.structures import Array

AUGMENTATIONS = {  # ranges are for a strength of 1
    "crop": "a part of the sample, 70 to 100 % of its time (with --sampling interpolate)",
    "flip": "half of the clips mirrored, left and right joints changed over",
    "behind": "half of the clips seen from behind: mirrored, left and right joints kept; in 3D by half a turn",
    "rotate": "by up to 10 degrees in the picture, about the vertical in 3D",
    "scale": "width and height by 0.86 to 1.16, each on its own",
    "shift": "by up to a fifth of a person's height",
    "noise": "each joint's places by 1 % of a person's height, anew in each frame",
    "offset": "each joint's places by 2 % of a person's height, alike in all frames, as estimators differ",
    "joint-dropout": "a third of the clips lose up to a quarter of their joints",
    "limb-dropout": "a quarter of the clips lose a limb or a part of it, half of these on both sides",
    "swap": "in a quarter of the clips left and right of a limb are changed over for a while, as estimators do",
    "score-dropout": "a quarter of the clips have every score at 1",
}
DEFAULT_AUGMENTATIONS = tuple(
    name for name in AUGMENTATIONS if name not in ("behind", "offset", "limb-dropout", "swap")
)
MIN_SPAN = 0.7
HEIGHTS = 4.0  # a standing person's height, in root mean square distances of the joints from their mean


def augment(
    keypoint: Array,
    keypoint_score: Array | None,
    layout: Layout,
    chosen: Collection[str],
    rng: np.random.Generator,
    strength: float = 1.0,
    up: int = 2,
) -> tuple[Array, Array | None]:
    """Change a normalised clip at random.

    Args:
        keypoint: (M, T, V, C) float32, about its origin.
        keypoint_score: (M, T, V) or None. Joints that are not known stay at 0.
        layout: tells left from right.
        chosen: of ``AUGMENTATIONS``.
        rng: the source of chance.
        strength: multiplies the ranges of rotating, scaling, shifting, noise and offset.
        up: the axis that points up in 3D, ``clips.upwards``.
    """
    C = keypoint.shape[-1]
    level = [0, 1] if C == 2 else [axis for axis in range(3) if axis != up]  # the plane to turn in
    known = known_joints(keypoint, keypoint_score)
    if "flip" in chosen and rng.random() < 0.5:
        order = flip_order(layout)
        keypoint, known = keypoint[:, :, order], known[:, :, order]
        keypoint_score = None if keypoint_score is None else keypoint_score[:, :, order]
        keypoint = keypoint * np.array([-1] + [1] * (C - 1), np.float32)
    if "behind" in chosen and rng.random() < 0.5:
        turned = [-1, 1] if C == 2 else [1 if axis == up else -1 for axis in range(3)]
        keypoint = keypoint * np.array(turned, np.float32)
    transform: Array = np.eye(C)
    if "scale" in chosen:
        transform = transform * np.exp(rng.uniform(-0.15, 0.15, C) * strength)
    if "rotate" in chosen:
        angle = np.radians(rng.uniform(-10, 10) * strength)
        rotation: Array = np.eye(C)
        rotation[np.ix_(level, level)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        transform = rotation @ transform
    keypoint = keypoint @ np.asarray(transform.T, np.float32)
    if "swap" in chosen and rng.random() < 0.25:
        keypoint, known, keypoint_score = _swap(keypoint, known, keypoint_score, layout, rng)
    if {"shift", "noise", "offset"} & set(chosen):
        height = strength * HEIGHTS * _size(keypoint, known)
        if "shift" in chosen:
            keypoint = keypoint + np.asarray(height * rng.uniform(-0.2, 0.2, C), np.float32)
        if "noise" in chosen:
            keypoint = keypoint + np.float32(0.01 * height) * rng.standard_normal(keypoint.shape, np.float32)
        if "offset" in chosen:
            keypoint = keypoint + np.float32(0.02 * height) * rng.standard_normal(keypoint.shape[2:], np.float32)
    if "joint-dropout" in chosen and rng.random() < 1 / 3:
        V = layout.num_joints
        lost = rng.permutation(V)[: rng.integers(1, max(V // 4, 1) + 1)]
        known = known & ~np.isin(np.arange(V), lost)
    if "limb-dropout" in chosen and rng.random() < 0.25 and limbs(layout):
        left, right = limbs(layout)[rng.integers(len(limbs(layout)))]
        limb = (left, right, left + right, left + right)[rng.integers(4)]
        known = known & ~np.isin(np.arange(layout.num_joints), limb)
    if keypoint_score is not None:
        if "score-dropout" in chosen and rng.random() < 0.25:
            keypoint_score = np.ones_like(keypoint_score)
        keypoint_score = keypoint_score * known
    return keypoint * known[..., None], keypoint_score


def flip_order(layout: Layout) -> Array:
    """(V,) joint indices with left and right changed over."""
    order = np.arange(layout.num_joints)
    for left, right in layout.flip_pairs:
        order[left], order[right] = right, left
    return order


@lru_cache
def limbs(layout: Layout) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Left and right joints of each limb, or part of one, of at least two and at most a quarter of all joints.

    It is a joint of a pair and all that hang on it: hip, knee and ankle, or elbow and wrist.
    """

    parents = layout.bone_parents

    def chain(joint: int) -> list[int]:
        joints = [joint]
        while parents[joints[-1]] not in joints:
            joints.append(parents[joints[-1]])
        return joints

    def hanging(joint: int) -> tuple[int, ...]:
        return tuple(v for v in range(layout.num_joints) if joint in chain(v))

    pairs = [(hanging(left), hanging(right)) for left, right in layout.flip_pairs]
    return tuple((left, right) for left, right in pairs if 2 <= len(left) == len(right) <= layout.num_joints // 4)


def _swap(
    keypoint: Array, known: Array, keypoint_score: Array | None, layout: Layout, rng: np.random.Generator
) -> tuple[Array, Array, Array | None]:
    """Left and right of one limb, or of everything, changed over from one random frame to another."""
    order, limb = flip_order(layout), rng.integers(len(limbs(layout)) + 1)
    if limb < len(limbs(layout)):
        left, right = limbs(layout)[limb]
        joints = np.arange(layout.num_joints)
        order = np.where(np.isin(joints, left + right), order, joints)
    start, stop = sorted(rng.integers(0, keypoint.shape[1] + 1, 2))
    keypoint, known = keypoint.copy(), known.copy()
    for table in (keypoint, known):
        table[:, start:stop] = table[:, start:stop, order]
    if keypoint_score is not None:
        keypoint_score = keypoint_score.copy()
        keypoint_score[:, start:stop] = keypoint_score[:, start:stop, order]
    return keypoint, known, keypoint_score


def _size(keypoint: Array, known: Array) -> float:
    """Root mean square distance of the known joints from their frame's mean, over the clip."""
    count = np.maximum(known.sum(-1), 1)[..., None]
    place = (keypoint * known[..., None]).sum(2) / count
    square = ((keypoint - place[:, :, None]) ** 2).sum(-1)[known]
    return float(np.sqrt(square.mean())) if square.size else 0.0
