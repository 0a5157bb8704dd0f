"""Poses of drawn people, whose joints are known, with noise and outliers added: cleaning has to bring them nearer."""

from __future__ import annotations

import clean_poses
import numpy as np
import pytest
from clean_poses import HEIGHT, SIZE, as_track, true_joints

from skelact.annotations import Annotation
from skelact.cleaning import Cleaning, OneEuro, clean_track, fill_gaps, smooth, without_outliers
from skelact.pipeline import annotation_sequence
from skelact.structures import Array, Track

FPS = 30.0


def noisy(joints: Array, noise: float) -> Array:
    return clean_poses.add_noise(joints, noise)[0]


@pytest.mark.parametrize("motion", clean_poses.MOTIONS)
def test_each_step_brings_the_error_down_by_30_percent(motion: str) -> None:
    found: dict[str, list[float]] = {}
    for step, share in clean_poses.fallen(motion):
        found.setdefault(step, []).append(share)
    assert min(found["picture"]) > 0, "a moment's picture has no later frames to go by"
    wanting = {step: shares for step, shares in found.items() if step != "picture" and min(shares) < 0.3}
    assert not wanting


def test_gaps_of_ten_frames_and_more_stay_as_they_are() -> None:
    values = np.arange(40, dtype=np.float32)[:, None]
    seen = np.array([0, 1, 11, 22, 25, 39])  # gaps of 9, 10, 2, 13 frames
    holed = np.zeros_like(values)
    holed[seen] = values[seen]
    filled = fill_gaps(holed, seen, 10)
    np.testing.assert_allclose(filled[:12], values[:12], rtol=1e-6)
    np.testing.assert_allclose(filled[22:26], values[22:26], rtol=1e-6)
    assert not filled[12:22].any()
    assert not filled[26:39].any()


def test_unknown_joints_and_gaps_stay_as_they_are() -> None:
    found = noisy(true_joints("wave"), 0.01)
    score = np.full(found.shape[:2], 0.9, np.float32)
    score[30:50] = 0  # nobody is seen
    score[:, 9] = 0  # a wrist is never
    found[30:50] = 0
    cleaned = clean_track(as_track(found, FPS, score), FPS)
    np.testing.assert_array_equal(cleaned.keypoint[score == 0], found[score == 0])
    assert not np.allclose(cleaned.keypoint[score > 0], found[score > 0])
    edges = np.abs(cleaned.keypoint - true_joints("wave"))[[29, 50]][:, score[0] > 0]
    assert edges.mean() < 0.03 * HEIGHT, "zeros of a gap are not drawn into the poses beside it"


def test_a_cut_to_another_shot_stays_as_sharp_as_it_is() -> None:
    """Each shot is cleaned as if it were a video of its own."""
    found = noisy(true_joints("wave"), 0.01)
    found[40:] += 2 * HEIGHT
    track = as_track(found, FPS)
    apart = [clean_track(part, FPS).keypoint for part in (track.cut(0, 40), track.cut(40, len(found)))]
    cleaned = clean_track(track, FPS, cuts_s=(40 / FPS,)).keypoint
    np.testing.assert_array_equal(cleaned, np.concatenate(apart))
    assert np.abs(clean_track(track, FPS).keypoint - cleaned).max() > 0.1 * HEIGHT, "which is what would smear"


def test_a_person_in_3d_has_no_scores() -> None:
    flat = true_joints("wave") / HEIGHT
    joints = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1)
    found = (joints + np.random.default_rng(0).normal(0, 0.01, joints.shape)).astype(np.float32)
    found[:5] = 0
    cleaned = clean_track(Track(1, 0, np.arange(len(found)) / FPS, found, None), FPS)
    assert not cleaned.keypoint[:5].any()
    before, after = (np.linalg.norm(each - joints, axis=-1)[5:].mean() for each in (found, cleaned.keypoint))
    assert after < 0.7 * before


@pytest.mark.parametrize(("dims", "nothing", "jump"), [(2, 0.05, 20.0), (3, 5e-5, 0.2)])
def test_an_outlier_is_one_in_pixels_and_in_metres(dims: int, nothing: float, jump: float) -> None:
    """Of somebody who stands still, with a joint that is off by next to nothing once, and once by much."""
    still = np.ones((60, 17, dims))
    found = still.copy()
    found[20, 9] += nothing
    found[40, 9] += jump
    cleaned = without_outliers(found, FPS, Cleaning())
    np.testing.assert_array_equal(cleaned[40], still[40])
    np.testing.assert_array_equal(cleaned[:40], found[:40])


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
    as_published, cleaned = (annotation_sequence("set.pkl", sample, "coco", clean) for clean in (False, True))
    np.testing.assert_array_equal(as_published.tracks[0].keypoint, found)
    assert "cleaning" not in as_published.provenance
    assert not np.allclose(cleaned.tracks[0].keypoint, found)
    assert cleaned.provenance["cleaning"]["cutoff_hz"] == 6.0


@pytest.mark.parametrize("fps", [15, 25, 60])
def test_smoothing_is_scipys_zero_phase_butterworth(fps: int) -> None:
    """The same numbers as filtering forwards and backwards, but for a trace near the ends."""
    from scipy.signal import butter, sosfiltfilt

    walk = np.cumsum(np.random.default_rng(0).standard_normal((200, 2)), axis=0) * 3
    cleaning = Cleaning()
    low_pass = butter(cleaning.order, cleaning.cutoff_hz, fs=fps, output="sos")
    expected = sosfiltfilt(low_pass, walk, axis=0, padlen=3 * (cleaning.order + 1))
    off = np.abs(smooth(walk, fps, cleaning) - expected)
    taken_out = np.abs(walk - expected).max()
    assert off.max() < 0.05 * taken_out
    assert off[50:-50].max() < 1e-4 * taken_out
