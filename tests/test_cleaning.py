"""Poses of drawn people, whose joints are known, with noise and outliers added: cleaning has to bring them nearer."""

from __future__ import annotations

import drawn_people
import numpy as np
import pytest

from skelact.annotations import Annotation
from skelact.cleaning import OneEuro, clean_track
from skelact.pipeline import annotation_sequence
from skelact.structures import Array, Track

FPS = 30.0
SIZE = (320, 180)
HEIGHT = 0.75 * SIZE[1]  # px, of the drawn body
MOTIONS = ("wave", "walk", "jumping_jack", "squat", "punch", "run", "stand", "clap")


def true_joints(motion: str, seconds: float = 3.0) -> Array:
    """(T, 17, 2) px."""
    scene = drawn_people.scene_of(motion)
    return np.stack([joints[0] for _, joints, _ in drawn_people.render(scene, int(seconds * FPS), FPS, SIZE)])


def noisy(joints: Array, noise: float) -> Array:
    """With normal noise, in body heights, and 2 % of the joints somewhere else for a frame."""
    rng = np.random.default_rng(0)
    found = joints + rng.normal(0, noise * HEIGHT, joints.shape)
    off = rng.random(joints.shape[:2]) < 0.02
    found[off] += rng.normal(0, 0.2 * HEIGHT, (off.sum(), 2))
    return found.astype(np.float32)


def as_track(keypoint: Array, score: Array | None = None) -> Track:
    score = np.full(keypoint.shape[:2], 0.9, np.float32) if score is None else score
    return Track(1, 0, np.arange(len(keypoint)) / FPS, keypoint, score)


def live(keypoint: Array) -> Array:
    smooth = OneEuro()
    score = np.full(17, 0.9, np.float32)
    return np.stack([smooth(t / FPS, joints, score, HEIGHT) for t, joints in enumerate(keypoint)])


def test_the_error_falls_by_30_percent_offline_in_every_motion_and_live_on_average() -> None:
    fallen: dict[str, list[float]] = {"offline": [], "live": []}
    for motion in MOTIONS:
        joints = true_joints(motion)
        for noise in (0.01, 0.02):
            found = noisy(joints, noise)
            before = np.linalg.norm(found - joints, axis=-1).mean()
            for name, cleaned in (("offline", clean_track(as_track(found), FPS).keypoint), ("live", live(found))):
                after = np.linalg.norm(cleaned - joints, axis=-1).mean()
                fallen[name].append(float(1 - after / before))
            print(f"{motion}, noise {noise:.0%}: offline -{fallen['offline'][-1]:.0%}, live -{fallen['live'][-1]:.0%}")
    print({name: f"-{np.mean(shares):.0%} on average, -{min(shares):.0%} at least" for name, shares in fallen.items()})
    assert min(fallen["offline"]) > 0.3
    assert np.mean(fallen["live"]) > 0.3
    assert min(fallen["live"]) > 0


def test_unknown_joints_and_gaps_stay_as_they_are() -> None:
    found = noisy(true_joints("wave"), 0.01)
    score = np.full(found.shape[:2], 0.9, np.float32)
    score[30:50] = 0  # nobody is seen
    score[:, 9] = 0  # a wrist is never
    found[30:50] = 0
    cleaned = clean_track(as_track(found, score), FPS)
    np.testing.assert_array_equal(cleaned.keypoint[score == 0], found[score == 0])
    assert not np.allclose(cleaned.keypoint[score > 0], found[score > 0])
    edges = np.abs(cleaned.keypoint - true_joints("wave"))[[29, 50]][:, score[0] > 0]
    assert edges.mean() < 0.03 * HEIGHT, "zeros of a gap are not drawn into the poses beside it"


def test_a_person_in_3d_has_no_scores() -> None:
    flat = true_joints("wave") / HEIGHT
    joints = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1)
    found = (joints + np.random.default_rng(0).normal(0, 0.01, joints.shape)).astype(np.float32)
    found[:5] = 0
    cleaned = clean_track(Track(1, 0, np.arange(len(found)) / FPS, found, None), FPS)
    assert not cleaned.keypoint[:5].any()
    before, after = (np.linalg.norm(each - joints, axis=-1)[5:].mean() for each in (found, cleaned.keypoint))
    assert after < 0.7 * before


@pytest.mark.parametrize("num_frames", [1, 3, 8])
def test_a_moment_is_left_alone(num_frames: int) -> None:
    found = noisy(true_joints("wave"), 0.01)[:num_frames]
    np.testing.assert_array_equal(clean_track(as_track(found), FPS).keypoint, found)


def test_live_a_joint_that_comes_back_is_where_it_is_seen() -> None:
    joints = true_joints("wave")
    smooth = OneEuro()
    for t, place in enumerate(joints[:60]):
        score = np.full(17, 0.9)
        score[10] = 0.0 if 20 <= t < 40 else 0.9
        shown = smooth(t / FPS, place, score, HEIGHT)
        if t == 40:
            np.testing.assert_allclose(shown[10], place[10], atol=1e-3)


def test_poses_of_a_pickle_are_cleaned_only_if_asked() -> None:
    found = noisy(true_joints("wave"), 0.01)
    score = np.full(found.shape[:2], 0.9, np.float32)
    sample = Annotation("sample", found[None], score[None], (SIZE[1], SIZE[0]), 0, {"fps": FPS})
    as_published, cleaned = (annotation_sequence("set.pkl", sample, clean) for clean in (False, True))
    np.testing.assert_array_equal(as_published.tracks[0].keypoint, found)
    assert "cleaning" not in as_published.provenance
    assert not np.allclose(cleaned.tracks[0].keypoint, found)
    assert cleaned.provenance["cleaning"]["cutoff_hz"] == 6.0
