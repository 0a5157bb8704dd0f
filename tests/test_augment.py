"""Random changes leave the action, and what is not known stays unknown."""

from __future__ import annotations

import numpy as np
import pytest

from skelact import cli_train
from skelact.augment import AUGMENTATIONS, augment, flip_order, limbs
from skelact.clips import ClipSettings, upwards
from skelact.skeleton import COCO, LAYOUTS, NTU, Layout
from skelact.structures import Array

LEFT, RIGHT = COCO.joints.index("left_wrist"), COCO.joints.index("right_wrist")


def person(layout: Layout = COCO, dims: int = 2) -> tuple[Array, Array]:
    """Somebody with one ear hidden, and a second slot without anybody."""
    rng = np.random.default_rng(0)
    keypoint = rng.normal(0, 0.5, (2, 20, layout.num_joints, dims)).astype(np.float32)
    score = np.full(keypoint.shape[:3], 0.8, np.float32)
    keypoint[0, :, 4] = score[0, :, 4] = 0
    keypoint[1] = score[1] = 0
    return keypoint, score


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_unknown_stays_unknown(name: str, dims: int) -> None:
    keypoint, score = person(dims=dims)
    chosen = tuple(AUGMENTATIONS) if name == "all" else (name,)
    for seed in range(20):
        changed, new_score = augment(keypoint, score, COCO, chosen, np.random.default_rng(seed))
        assert changed.shape == keypoint.shape
        assert changed.dtype == np.float32
        assert new_score is not None
        assert not changed[new_score == 0].any(), "joints that are not known stay at the origin"
        assert not new_score[1].any(), "nobody stays nobody"
        assert np.isfinite(changed).all()


def test_what_goes_in_is_left_alone() -> None:
    keypoint, score = person()
    before = keypoint.copy(), score.copy()
    augment(keypoint, score, COCO, tuple(AUGMENTATIONS), np.random.default_rng(0))
    np.testing.assert_array_equal(keypoint, before[0])
    np.testing.assert_array_equal(score, before[1])


def test_a_mirrored_person_waves_with_the_other_hand() -> None:
    keypoint, score = person()
    outcomes = [augment(keypoint, score, COCO, ("flip",), np.random.default_rng(seed))[0] for seed in range(40)]
    mirrored = [changed for changed in outcomes if not np.array_equal(changed, keypoint)]
    assert 10 <= len(mirrored) <= 30, "half of the clips"
    np.testing.assert_allclose(mirrored[0][0, :, LEFT, 0], -keypoint[0, :, RIGHT, 0])
    np.testing.assert_allclose(mirrored[0][0, :, LEFT, 1], keypoint[0, :, RIGHT, 1])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_mirroring_twice_is_nothing(layout: Layout) -> None:
    order = flip_order(layout)
    np.testing.assert_array_equal(order[order], np.arange(layout.num_joints))
    for joint, other in zip(layout.joints, (layout.joints[v] for v in order), strict=True):
        assert joint.replace("left", "right") == other.replace("left", "right"), "a pair is one joint of both sides"


@pytest.mark.parametrize(("normaliser", "up"), [("published", 2), ("body", 1)])
def test_turning_in_3d_keeps_heights(normaliser: str, up: int) -> None:
    keypoint, _ = person(layout=NTU, dims=3)
    assert upwards(ClipSettings(NTU, dims=3, with_score=False, normaliser=normaliser)) == up
    changed, score = augment(keypoint, None, NTU, ("rotate", "behind"), np.random.default_rng(1), up=up)
    assert score is None
    np.testing.assert_allclose(changed[..., up], keypoint[..., up], atol=1e-6)
    assert not np.allclose(changed[..., 0], keypoint[..., 0], atol=1e-3)


def test_dropped_joints_are_dropped_for_the_whole_clip() -> None:
    keypoint, score = person()
    clips_with_loss = 0
    for seed in range(30):
        _, new_score = augment(keypoint, score, COCO, ("joint-dropout",), np.random.default_rng(seed))
        assert new_score is not None
        lost = (new_score[0] == 0).all(0)
        assert ((new_score[0] == 0).any(0) == lost).all()
        assert lost.sum() <= 1 + COCO.num_joints // 4  # an ear is never known
        clips_with_loss += lost.sum() > 1
    assert 3 <= clips_with_loss <= 20, "about a third"


def test_a_lost_limb_is_lost_whole_and_for_the_whole_clip() -> None:
    keypoint, score = person()
    told = {tuple(sorted(set(part))) for left, right in limbs(COCO) for part in (left, right, left + right)}
    seen = set()
    for seed in range(200):
        _, new_score = augment(keypoint, score, COCO, ("limb-dropout",), np.random.default_rng(seed))
        assert new_score is not None
        lost = np.flatnonzero((new_score[0] == 0).all(0) & (score[0] > 0).any(0))
        assert len(lost) == 0 or any(set(lost) <= set(part) for part in told)
        seen.add(tuple(COCO.joints[v] for v in lost))
    assert ("left_elbow", "left_wrist") in seen
    assert ("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle") in seen
    assert () in seen


def test_sides_are_changed_over_for_a_while_and_nothing_else() -> None:
    keypoint, score = person()
    order = flip_order(COCO)
    changed_clips = 0
    for seed in range(100):
        changed, new_score = augment(keypoint, score, COCO, ("swap",), np.random.default_rng(seed))
        assert new_score is not None
        same = (changed == keypoint).all(-1)
        swapped = (changed == keypoint[:, :, order]).all(-1)
        assert (same | swapped).all(), "a joint is where it was, or where its other side was"
        frames = np.flatnonzero(~same[0].all(-1))
        changed_clips += len(frames) > 0
        assert len(frames) == 0 or len(frames) == frames[-1] - frames[0] + 1, "one span"
    assert 10 <= changed_clips <= 40, "about a quarter"


@pytest.mark.parametrize("signs", [(-1, 1), (-1, -1, 1)])
def test_half_of_the_clips_are_seen_from_behind(signs: tuple[int, ...]) -> None:
    """From behind, left joints are on the other side of the picture, but left joints still; in 3D it is half a turn."""
    keypoint = np.random.default_rng(0).normal(size=(1, 5, 17, len(signs))).astype(np.float32)
    turned = 0
    for seed in range(100):
        changed, _ = augment(keypoint, None, COCO, ("behind",), np.random.default_rng(seed))
        turned += not np.array_equal(changed, keypoint)
        assert np.array_equal(changed, keypoint) or np.array_equal(changed, keypoint * np.array(signs, np.float32))
    assert 30 <= turned <= 70


def test_a_layout_without_sides_has_no_limbs() -> None:
    plain = Layout("plain", ("a", "b", "c"), ((1, 0), (2, 1)), 0)
    assert limbs(plain) == ()
    keypoint = np.ones((1, 5, 3, 2), np.float32)
    for seed in range(20):
        changed, _ = augment(keypoint, None, plain, ("swap", "limb-dropout"), np.random.default_rng(seed))
        np.testing.assert_array_equal(changed, keypoint)


def test_width_and_height_are_scaled_each_on_its_own() -> None:
    keypoint = np.ones((1, 5, 17, 2), np.float32)
    scales = [augment(keypoint, None, COCO, ("scale",), np.random.default_rng(seed))[0] for seed in range(100)]
    x, y = np.array([changed[0, 0, 0] for changed in scales]).T
    assert 0.86 < min(x.min(), y.min()) < 0.9 < 1.1 < max(x.max(), y.max()) < 1.17
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.3
    assert all((changed == changed[0, 0, 0]).all() for changed in scales), "the whole clip alike"


def test_noise_is_another_in_each_frame_and_an_offset_the_same() -> None:
    still = np.random.default_rng(0).normal(0, 0.5, (1, 1, 17, 2)).astype(np.float32).repeat(40, axis=1)
    for name, share, is_still in (("noise", 0.01, False), ("offset", 0.02, True)):
        changed, _ = augment(still, None, COCO, (name,), np.random.default_rng(1))
        moved = changed - still
        assert (np.ptp(moved, axis=1).max() < 1e-6) == is_still, name
        height = 4 * np.sqrt(((still[0, 0] - still[0, 0].mean(0)) ** 2).sum(-1).mean())
        assert moved.std() == pytest.approx(share * height, rel=0.25), name
        for strength in (0.0, 2.0):
            other, _ = augment(still, None, COCO, (name,), np.random.default_rng(1), strength)
            np.testing.assert_allclose(other - still, strength * moved, atol=1e-5)


def test_scores_go_with_the_joints_that_are_changed_over() -> None:
    keypoint, _ = person()
    score = np.linspace(0.1, 0.9, 17, dtype=np.float32) * np.ones((2, 20, 1), np.float32)
    keypoint[..., 0] = score  # which tells whose place it is
    changed, new_score = zip(
        *(augment(keypoint, score, COCO, ("swap",), np.random.default_rng(seed)) for seed in range(40)), strict=True
    )
    assert any(not np.array_equal(each, keypoint) for each in changed)
    np.testing.assert_allclose(np.stack(changed)[..., 0], np.stack(new_score))


def test_the_same_chance_gives_the_same_clip() -> None:
    keypoint, score = person()
    one, other = (augment(keypoint, score, COCO, tuple(AUGMENTATIONS), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])


def test_the_help_names_them_all() -> None:
    assert set(cli_train.AUGMENTATIONS.split(", ")) == set(AUGMENTATIONS)
