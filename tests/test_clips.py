"""From keypoints to the network's input, against a plain restatement of the published rules in small loops."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from plain_clips import plain_clips

from skelact import clips
from skelact.clips import (
    STREAMS,
    ClipSettings,
    check_layout,
    gather,
    normalise_2d,
    normalise_3d,
    normalise_body,
    prepare_clips,
    prepare_streams,
    regular,
    resample,
    stream_features,
    tracks_keypoint,
    train_frame_inds,
)
from skelact.errors import SkelactError
from skelact.skeleton import COCO, HAND, LAYOUTS, NTU, Layout
from skelact.structures import Array, Track

X_AXIS, Z_AXIS = np.eye(3)[[0, 2]]


def people(num_persons: int, num_frames: int, layout: Layout, dims: int = 2, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    shape = (num_persons, num_frames, layout.num_joints)
    keypoint = rng.normal(size=(*shape, dims)) * (300 if dims == 2 else 1) + (500 if dims == 2 else 3)
    return keypoint.astype(np.float32), rng.uniform(size=shape).astype(np.float32)


# --- streams -----------------------------------------------------------------------------------------------------


def features_by_the_book(keypoint: Array, score: Array, layout: Layout, stream: str) -> Array:
    """(M, T, V, C + 1), one number at a time."""
    M, T, V, C = keypoint.shape
    joints = np.concatenate([keypoint, score[..., None]], axis=-1).astype(np.float64)

    def bone(m: int, t: int, v: int) -> Array:
        joint, parent = joints[m, t, v], joints[m, t, layout.bone_parents[v]]
        return np.array([*(joint[:C] - parent[:C]), (joint[C] + parent[C]) / 2])

    static = np.zeros((M, T, V, C + 1))
    for m in range(M):
        for t in range(T):
            for v in range(V):
                static[m, t, v] = bone(m, t, v) if stream.startswith("bone") else joints[m, t, v]
    if not stream.endswith("motion"):
        return static
    moving = np.zeros_like(static)
    for t in range(T - 1):  # the last frame has no next one
        here, following = static[:, t], static[:, t + 1]
        moving[:, t, :, :C] = following[..., :C] - here[..., :C]
        moving[:, t, :, C] = (here[..., C] + following[..., C]) / 2
    return moving


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_streams_by_the_book(layout: Layout, stream: str) -> None:
    keypoint, score = people(2, 4, layout)
    made = stream_features(keypoint, score, ClipSettings(layout, stream))
    np.testing.assert_allclose(made, features_by_the_book(keypoint, score, layout, stream), atol=1e-3)


@pytest.mark.parametrize("stream", STREAMS)
def test_3d_streams_have_no_score(stream: str) -> None:
    keypoint, score = people(1, 5, NTU, dims=3)
    settings = ClipSettings(NTU, stream, dims=3, with_score=False)
    made = stream_features(keypoint, None, settings)
    assert made.shape == (1, 5, 25, 3)
    np.testing.assert_allclose(made, features_by_the_book(keypoint, score, NTU, stream)[..., :3], atol=1e-5)


def test_bones_and_motions_do_not_depend_on_where_a_person_stands() -> None:
    keypoint, score = people(1, 6, COCO)
    for stream in ("bone", "joint-motion", "bone-motion"):
        settings = ClipSettings(COCO, stream)
        here = stream_features(keypoint, score, settings)
        there = stream_features(keypoint + np.float32(64), score, settings)
        np.testing.assert_allclose(here, there, atol=1e-3)


def test_one_frame_has_no_motion() -> None:
    keypoint, score = people(1, 1, COCO)
    assert not stream_features(keypoint, score, ClipSettings(COCO, "joint-motion")).any()


def test_features_leave_their_input_alone() -> None:
    keypoint, score = people(2, 5, COCO)
    before = keypoint.copy(), score.copy()
    for stream in STREAMS:
        prepare_clips(keypoint, score, (480, 640), ClipSettings(COCO, stream))
    np.testing.assert_array_equal(keypoint, before[0])
    np.testing.assert_array_equal(score, before[1])


# --- sampling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [1, 3, 9, 10, 50, 99])
def test_short_samples_are_taken_whole_and_wrapped(num_frames: int) -> None:
    made = clips.test_frame_inds(num_frames, 100, 10)
    for clip in range(10):
        start = clip if num_frames < 10 else clip * num_frames // 10
        assert made[clip].tolist() == [(start + t) % num_frames for t in range(100)]


@pytest.mark.parametrize("num_frames", [100, 101, 150, 199])
def test_middling_samples_skip_each_frame_at_most_once(num_frames: int) -> None:
    for row in clips.test_frame_inds(num_frames, 100, 10):
        steps = np.diff(row)
        assert set(steps.tolist()) <= {1, 2}
        assert row[0] in (0, 1)
        assert row[-1] <= num_frames - 1
        assert row[-1] - 99 in (num_frames - 100, num_frames - 101)  # the last place may hold a skip, too


@pytest.mark.parametrize("num_frames", [200, 201, 280, 1000])
def test_long_samples_give_one_frame_of_each_hundredth(num_frames: int) -> None:
    for row in clips.test_frame_inds(num_frames, 100, 10):
        for part, frame in enumerate(row.tolist()):
            assert part * num_frames // 100 <= frame < (part + 1) * num_frames // 100


def frame_inds_by_the_book(num_frames: int, clip_len: int, num_clips: int) -> list[list[int]]:
    """With NumPy's legacy generator, seeded once for all clips."""
    draw = np.random.RandomState(255)
    made = []
    for clip in range(num_clips):
        if num_frames < clip_len:
            start = clip if num_frames < num_clips else clip * num_frames // num_clips
            row = [(start + t) % num_frames for t in range(clip_len)]
        elif num_frames < 2 * clip_len:
            skipped = set(draw.choice(clip_len + 1, num_frames - clip_len, replace=False).tolist())
            row = [t + sum(place in skipped for place in range(t + 1)) for t in range(clip_len)]
        else:
            starts = [part * num_frames // clip_len for part in range(clip_len + 1)]
            sizes = [stop - start for start, stop in pairwise(starts)]
            row = [start + offset for start, offset in zip(starts[:-1], draw.randint(sizes).tolist(), strict=True)]
        made.append(row)
    return made


@pytest.mark.parametrize("num_frames", [1, 7, 60, 99, 100, 101, 130, 199, 200, 201, 250, 999])
@pytest.mark.parametrize("num_clips", [1, 10])
def test_the_draws_are_those_of_the_field(num_frames: int, num_clips: int) -> None:
    assert clips.test_frame_inds(num_frames, 100, num_clips).tolist() == frame_inds_by_the_book(
        num_frames, 100, num_clips
    )


@pytest.mark.parametrize("clip_len", [1, 8, 48])
@pytest.mark.parametrize("num_frames", [5, 8, 12, 48, 90, 97, 300])
def test_other_clip_lengths(clip_len: int, num_frames: int) -> None:
    made = clips.test_frame_inds(num_frames, clip_len, 3)
    assert made.tolist() == frame_inds_by_the_book(num_frames, clip_len, 3)


def test_testing_never_changes_and_leaves_the_global_generators_alone() -> None:
    numpy_state, python_state = np.random.get_state()[1].copy(), random.getstate()
    first = clips.test_frame_inds(280, 100, 10)
    np.random.seed(7)
    np.testing.assert_array_equal(first, clips.test_frame_inds(280, 100, 10))
    assert len({tuple(row) for row in first.tolist()}) == 10  # each clip is drawn anew
    np.random.set_state(("MT19937", numpy_state, 624))
    assert random.getstate() == python_state


@pytest.mark.parametrize("num_frames", [1, 30, 99, 100, 150, 199, 200, 777])
def test_training_draws_by_its_generator(num_frames: int) -> None:
    rows = [train_frame_inds(num_frames, 100, np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3)]
    for row in rows:
        assert row.shape == (100,)
        assert row.min() >= 0
        assert row.max() < num_frames
        if num_frames >= 100:
            assert np.all(np.diff(row) >= 1)
        else:
            assert set(np.diff(row).tolist()) <= {1, 1 - num_frames}
    assert rows[0].tolist() == rows[1].tolist()
    if num_frames not in (1, 100):  # there is but one way to take these
        assert len({tuple(row.tolist()) for row in rows}) > 1


def test_training_starts_short_samples_anywhere() -> None:
    rng = np.random.default_rng(0)
    starts = {int(train_frame_inds(5, 100, rng)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}


# --- normalising 2D ----------------------------------------------------------------------------------------------


def test_the_picture_spans_minus_one_to_one() -> None:
    corners = np.array([[0, 0], [640, 480], [320, 240], [640, 0]], np.float32).reshape(1, 1, 4, 2)
    assert normalise_2d(corners, (480, 640)).reshape(4, 2).tolist() == [[-1, -1], [1, 1], [0, 0], [1, -1]]


def test_without_a_picture_size_full_hd_is_assumed() -> None:
    keypoint, score = people(1, 10, COCO)
    settings = ClipSettings(COCO)
    np.testing.assert_array_equal(
        prepare_clips(keypoint, score, None, settings), prepare_clips(keypoint, score, (1080, 1920), settings)
    )


# --- normalising 3D ----------------------------------------------------------------------------------------------


def angle(a: Array, b: Array) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def test_the_spine_becomes_the_origin_and_the_shoulders_point_along_x() -> None:
    keypoint, _ = people(2, 30, NTU, dims=3)
    made = normalise_3d(keypoint)
    first = made[0, 0]
    assert made.dtype == np.float32
    np.testing.assert_allclose(first[1], 0, atol=1e-6)
    assert angle(first[8] - first[4], X_AXIS) < 0.1


def test_the_back_is_upright_before_the_second_turn() -> None:
    """With shoulders that are square to the back, the turn to x is about z and the back stays upright."""
    keypoint, _ = people(1, 3, NTU, dims=3)
    keypoint[0, 0, [0, 1]] = [[1, 2, 3], [2, 3, 5]]
    keypoint[0, 0, [4, 8]] = [[1, 4, 2], [2, 3, 2]]  # (1, -1, 0) is square to (1, 1, 2)
    first = normalise_3d(keypoint)[0, 0]
    assert angle(first[1] - first[0], Z_AXIS) < 0.1
    assert angle(first[8] - first[4], X_AXIS) < 0.1


def test_normalising_turns_and_moves_but_does_not_bend() -> None:
    keypoint, _ = people(2, 5, NTU, dims=3)
    made = normalise_3d(keypoint)
    for m in range(2):
        for t in range(5):
            for v in range(1, 25):
                before = np.linalg.norm(keypoint[m, t, v] - keypoint[0, 0, 0])
                assert np.linalg.norm(made[m, t, v] - made[0, 0, 0]) == pytest.approx(before, rel=1e-4)
    triple = np.linalg.det(keypoint[0, 1, [5, 9, 13]] - keypoint[0, 0, 1])
    assert np.linalg.det(made[0, 1, [5, 9, 13]]) == pytest.approx(triple, rel=1e-3)  # no mirror image


def test_where_the_camera_stood_does_not_matter() -> None:
    keypoint, _ = people(1, 8, NTU, dims=3)
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    moved = (keypoint @ turn.T + np.float32([1, -2, 0.5])).astype(np.float32)
    # The back's turn leaves the heading open, so not all joints agree; the shoulders do.
    here, there = normalise_3d(keypoint), normalise_3d(moved)
    np.testing.assert_allclose(here[0, 0, 8] - here[0, 0, 4], there[0, 0, 8] - there[0, 0, 4], atol=1e-4)


def test_frames_without_the_first_person_are_dropped() -> None:
    keypoint, _ = people(2, 10, NTU, dims=3)
    keypoint[0, [0, 3, 9]] = 0
    keypoint[1, 5:] = 0
    made = normalise_3d(keypoint)
    assert made.shape[1] == 7
    kept = normalise_3d(np.delete(keypoint, [0, 3, 9], axis=1))
    np.testing.assert_array_equal(made, kept)


def test_the_person_who_is_there_longer_comes_first() -> None:
    keypoint, _ = people(2, 10, NTU, dims=3)
    keypoint[0, 6:] = 0
    made = normalise_3d(keypoint)
    assert made.shape[1] == 10
    np.testing.assert_array_equal(made, normalise_3d(keypoint[::-1]))
    assert not made[1, 6:].any()
    assert made[0].any(axis=(1, 2)).all()


def test_on_a_tie_the_order_stays() -> None:
    keypoint, _ = people(2, 10, NTU, dims=3)
    keypoint[0, :2] = 0
    keypoint[1, 8:] = 0
    made = normalise_3d(keypoint)
    assert made.shape[1] == 8
    assert made[0].any(axis=(1, 2)).all()
    assert not made[1, 6:].any()


def test_joints_that_are_missing_stay_at_zero() -> None:
    keypoint, _ = people(2, 6, NTU, dims=3)
    keypoint[1] = 0
    keypoint[0, 2, 7] = 0
    made = normalise_3d(keypoint)
    assert not made[1].any()
    assert not made[0, 2, 7].any()


def test_nobody_at_all_stays_nobody() -> None:
    assert not normalise_3d(np.zeros((2, 5, 25, 3), np.float32)).any()


def test_a_body_that_already_stands_right_is_not_turned() -> None:
    keypoint, _ = people(1, 4, NTU, dims=3)
    keypoint[0, 0, [0, 1, 4, 8]] = [[0, 0, -1], [0, 0, 0], [-1, 0, 1], [1, 0, 1]]
    np.testing.assert_allclose(normalise_3d(keypoint), keypoint, atol=1e-6)


def test_float16_is_computed_as_float32() -> None:
    keypoint, score = people(1, 30, COCO)
    half = keypoint.astype(np.float16), score.astype(np.float16)
    settings = ClipSettings(COCO, "bone-motion")
    np.testing.assert_array_equal(
        prepare_clips(*half, (480, 640), settings),
        prepare_clips(half[0].astype(np.float32), half[1].astype(np.float32), (480, 640), settings),
    )


# --- whole clips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_persons", [1, 2, 3])
@pytest.mark.parametrize("num_frames", [40, 120, 250])
def test_clips_have_the_networks_shape_whoever_comes(num_persons: int, num_frames: int) -> None:
    keypoint, score = people(num_persons, num_frames, COCO)
    made = prepare_clips(keypoint, score, (480, 640), ClipSettings(COCO), num_clips=4)
    assert made.shape == (4, 2, 100, 17, 3)
    assert made.dtype == np.float32
    assert made[:, 1].any() == (num_persons > 1)  # an empty slot is all zero, score included


def test_a_clip_is_the_normalised_frames_in_the_sampled_order() -> None:
    keypoint, score = people(2, 30, COCO)
    made = prepare_clips(keypoint, score, (480, 640), ClipSettings(COCO, clip_len=12), num_clips=1)
    frame_inds = clips.test_frame_inds(30, 12, 1)[0]
    for m in range(2):
        for t, frame in enumerate(frame_inds):
            x, y = keypoint[m, frame].T
            expected = np.stack([x / 320 - 1, y / 240 - 1, score[m, frame]], axis=1)
            np.testing.assert_allclose(made[0, m, t], expected, atol=1e-5)


def test_persons_beyond_the_slots_are_cut_and_slots_can_be_more() -> None:
    keypoint, score = people(3, 10, COCO)
    features = stream_features(keypoint, score, ClipSettings(COCO))
    frame_inds = np.arange(10)[None]
    two = gather(features, frame_inds, ClipSettings(COCO))
    five = gather(features, frame_inds, ClipSettings(COCO, num_person=5))
    np.testing.assert_array_equal(two[0], features[:2])
    np.testing.assert_array_equal(five[0, :3], features)
    assert not five[0, 3:].any()


def test_2d_without_scores() -> None:
    keypoint, _ = people(1, 10, HAND)
    assert prepare_clips(keypoint, None, (480, 640), ClipSettings(HAND, with_score=False)).shape[-1] == 2
    with_score = prepare_clips(keypoint, None, (480, 640), ClipSettings(HAND))
    assert np.all(with_score[0, 0, ..., 2] == 1)  # unknown scores count as certain


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((1, 10, 18, 2), "(1, 10, 18, 2)"),
        ((1, 10, 17, 3), "(1, 10, 17, 3)"),
        ((10, 17, 2), "(10, 17, 2)"),
        ((0, 10, 17, 2), "(0, 10, 17, 2)"),
        ((1, 0, 17, 2), "(1, 0, 17, 2)"),
    ],
)
def test_keypoints_that_do_not_fit_are_refused(shape: tuple[int, ...], found: str) -> None:
    with pytest.raises(SkelactError) as error:
        prepare_clips(np.ones(shape, np.float32), None, None, ClipSettings(COCO))
    assert found in str(error.value)


def test_settings_are_checked_when_they_are_made() -> None:
    with pytest.raises(SkelactError, match="expected one of joint, bone, joint-motion, bone-motion, found 'bones'"):
        ClipSettings(COCO, "bones")
    with pytest.raises(SkelactError, match="expected 2 or 3, found 4"):
        ClipSettings(COCO, dims=4)
    assert ClipSettings(COCO).in_channels == 3
    assert ClipSettings(COCO, with_score=False).in_channels == 2
    assert ClipSettings(NTU, dims=3, with_score=False).in_channels == 3


def test_the_same_joints_under_another_name_are_no_other_layout() -> None:
    settings = ClipSettings(replace(COCO, name="my-coco"))
    for told in (None, "my-coco", "coco"):
        check_layout(told, settings)
    for told in ("nturgb+d", "your-coco"):
        with pytest.raises(SkelactError, match="expects joints of layout 'my-coco', the dataset says that it has"):
            check_layout(told, settings)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("num_clips", [1, 10])
@pytest.mark.parametrize("num_frames", [1, 7, 99, 100, 160, 200, 301])
@pytest.mark.parametrize("num_persons", [1, 2, 3])
def test_clips_are_those_of_the_plain_code(num_persons: int, num_frames: int, num_clips: int, stream: str) -> None:
    """Step by step as its peers do it (``scripts/plain_clips.py``): to the bit in 2D, to 1e-6 in 3D."""
    keypoint, score = people(num_persons, num_frames, COCO)
    keypoint[0, : num_frames // 3] = score[0, : num_frames // 3] = 0
    expected = plain_clips(keypoint, score, (480, 640), COCO, stream, num_clips)
    np.testing.assert_array_equal(
        prepare_clips(keypoint, score, (480, 640), ClipSettings(COCO, stream), num_clips), expected
    )
    keypoint, _ = people(num_persons, num_frames, NTU, dims=3)
    keypoint[-1, : num_frames // 3] = keypoint[:, 0, 4] = 0  # a shoulder that is not seen, too
    expected = plain_clips(keypoint, None, None, NTU, stream, num_clips)
    settings = ClipSettings(NTU, stream, dims=3, with_score=False)
    np.testing.assert_allclose(prepare_clips(keypoint, None, None, settings, num_clips), expected, rtol=1e-6, atol=1e-6)


# --- tracks ------------------------------------------------------------------------------------------------------


def track(track_id: int, start: int, keypoint: Array, score: Array | None) -> Track:
    return Track(track_id, start, np.arange(len(keypoint)) / 30, keypoint, score)


def test_tracks_come_onto_one_time_axis() -> None:
    keypoint, score = people(2, 6, COCO)
    late, early = track(1, 4, keypoint[0], score[0]), track(2, 0, keypoint[1], score[1])
    on_axis, scores = tracks_keypoint([late, early], num_frames=12)
    assert on_axis.shape == (2, 12, 17, 2)
    assert scores is not None
    np.testing.assert_array_equal(on_axis[0, 4:10], keypoint[0])
    np.testing.assert_array_equal(scores[1, :6], score[1])
    assert not on_axis[0, :4].any()
    assert not on_axis[0, 10:].any()
    assert not on_axis[1, 6:].any()


def test_3d_tracks_have_no_scores() -> None:
    keypoint, _ = people(1, 6, NTU, dims=3)
    on_axis, scores = tracks_keypoint([track(1, 0, keypoint[0], None)], num_frames=6)
    np.testing.assert_array_equal(on_axis, keypoint)
    assert scores is None


# --- skelact's own normaliser and sampling -----------------------------------------------------------------------

OWN = ClipSettings(COCO, normaliser="body", sampling="interpolate", clip_len=32, num_person=2)


def walker(num_frames: int = 40, x: float = 300.0, height: float = 200.0) -> tuple[Array, Array]:
    """Somebody who crosses the picture, and whose left ear is not seen."""
    rng = np.random.default_rng(3)
    body = rng.uniform(-0.5, 0.5, (17, 2)) * [0.4, 1.0] * height
    keypoint = (body + np.array([x, 400.0]))[None, None].repeat(num_frames, 1)
    keypoint[..., 0] += np.arange(num_frames)[None, :, None] * height / 40
    score = np.full((1, num_frames, 17), 0.9)
    keypoint[:, :, 3] = score[:, :, 3] = 0
    return keypoint.astype(np.float32), score.astype(np.float32)


def test_neither_the_cameras_place_nor_its_zoom_changes_the_clip() -> None:
    near = prepare_clips(*walker(x=300, height=200), (1080, 1920), OWN)
    far = prepare_clips(*walker(x=900, height=50), (480, 640), OWN)
    np.testing.assert_allclose(near, far, atol=2e-3)
    assert near[0, 0, -1, 0, 0] - near[0, 0, 0, 0, 0] > 0.5, "who walks still gets somewhere"
    assert np.abs(near).max() < 5


def test_two_people_keep_their_distance() -> None:
    (one, score), (other, _) = walker(x=300), walker(x=500)
    pair = prepare_clips(np.concatenate([one, other]), np.concatenate([score, score]), None, OWN)
    distance = pair[0, 1, 0, 0, 0] - pair[0, 0, 0, 0, 0]
    alone = prepare_clips(one, score, None, OWN)
    unit = (one[0, -1, 0, 0] - one[0, 0, 0, 0]) / (alone[0, 0, -1, 0, 0] - alone[0, 0, 0, 0, 0])
    np.testing.assert_allclose(distance, 200 / unit, rtol=1e-3)


def test_what_is_not_known_stays_at_the_origin() -> None:
    clip = prepare_clips(*walker(), None, OWN)
    assert not clip[0, 0, :, 3].any()
    assert not clip[0, 1].any(), "nor is there anybody in the second slot"


def test_a_hand_that_is_all_that_is_seen_stays_within_bounds() -> None:
    """One joint has no size to scale by, and must not blow up the statistics of those who are trained with it."""
    keypoint = np.zeros((1, 40, 17, 2), np.float32)
    score = np.zeros((1, 40, 17), np.float32)
    score[0, 10:30, 10] = 0.3
    keypoint[0, 10:30, 10] = np.linspace((300, 200), (340, 260), 20)
    moving = np.abs(normalise_body(keypoint, score))
    assert 1 < moving.max() < 10
    keypoint[0, 10:30, 10] = (300, 200)
    assert not normalise_body(keypoint, score).any(), "it does not move"


def test_a_hand_that_looks_in_does_not_change_the_size() -> None:
    """Somebody is seen whole for a while, and then for long only their hands: these tell nothing of the size."""
    keypoint, score = walker()
    whole = normalise_body(keypoint, score)
    hands = np.zeros((1, 100, 17, 2), np.float32)
    hands[:, :, [9, 10]] = (700, 350), (710, 360)
    seen = np.zeros((1, 100, 17), np.float32)
    seen[:, :, [9, 10]] = 0.9
    longer = normalise_body(np.concatenate([keypoint, hands], axis=1), np.concatenate([score, seen], axis=1))
    np.testing.assert_allclose(longer[:, :40], whole, atol=1e-5)


@pytest.mark.parametrize("sampling", ["uniform", "interpolate"])
def test_streams_that_are_prepared_together(sampling: str) -> None:
    streams = [replace(OWN, stream=stream, sampling=sampling) for stream in STREAMS]
    together = prepare_streams(*walker(), None, streams, num_clips=10)
    for stream, clips_of_it in zip(streams, together, strict=True):
        assert np.array_equal(clips_of_it, prepare_clips(*walker(), None, stream, num_clips=10)), stream.stream


def test_nobody_gives_zeros() -> None:
    assert not prepare_clips(np.zeros((1, 9, 17, 2)), np.zeros((1, 9, 17)), None, OWN).any()


@pytest.mark.parametrize("num_frames", [1, 2, 7, 31, 32, 33, 400])
@pytest.mark.parametrize("num_clips", [1, 10])
def test_samples_of_any_length_are_stretched(num_frames: int, num_clips: int) -> None:
    clips = prepare_clips(*walker(num_frames), None, OWN, num_clips)
    assert clips.shape == (num_clips, 2, 32, 17, 3)
    steps = np.diff(clips[0, 0, :, 0, 0])
    assert (steps >= -1e-6).all(), "time goes on without a jump back"
    np.testing.assert_allclose(steps, steps.mean(), atol=1e-5)


def test_a_pose_between_two_frames_is_between_them() -> None:
    keypoint = np.array([[[[0.0, 1.0]], [[2.0, 3.0]], [[8.0, 8.0]]]], np.float32)
    score = np.array([[[1.0], [0.5], [0.0]]], np.float32)
    between, between_score = resample(keypoint, score, np.array([0.0, 0.5, 1.0, 1.5, 2.0]))
    np.testing.assert_allclose(between[0, :, 0], [[0, 1], [1, 2], [2, 3], [2, 3], [0, 0]])
    assert between_score is not None
    np.testing.assert_allclose(between_score[0, :, 0], [1, 0.75, 0.5, 0.5, 0], atol=1e-6)


# --- what estimators don't share ---------------------------------------------------------------------------------


@pytest.mark.parametrize("normaliser", ["published", "body"])
def test_hidden_joints_and_the_height_of_scores_make_no_difference(normaliser: str) -> None:
    hidden = ("left_ear", "right_ear")
    settings = ClipSettings(COCO, normaliser=normaliser, hidden_joints=hidden, binary_scores=True)
    keypoint, score = people(2, 40, COCO)
    seen = score >= 0.3
    ears = [COCO.joints.index(name) for name in hidden]
    other_keypoint, other_score = keypoint.copy(), np.where(seen, 1.0, 0.1)
    other_keypoint[:, :, ears] += 77
    other_keypoint[~seen] = 5
    clip = prepare_clips(keypoint, score, (400, 400), settings)
    assert np.array_equal(clip, prepare_clips(other_keypoint, other_score, (400, 400), settings))
    assert not clip[..., ears, 2].any(), "the ears have no score"
    assert set(np.unique(clip[..., 2])) == {0, 1}
    with pytest.raises(SkelactError, match="layout 'coco' has no 'tail'"):
        ClipSettings(COCO, hidden_joints=("tail",))


def test_a_score_of_just_enough_is_enough() -> None:
    keypoint, score = np.full((1, 8, 17, 2), 50, np.float32), np.full((1, 8, 17), 0.5)
    score[..., 0], score[..., 1] = clips.KNOWN_SCORE, clips.KNOWN_SCORE - 0.01
    made = prepare_clips(keypoint, score, (400, 400), ClipSettings(COCO, binary_scores=True))
    assert made[0, 0, 0, :3, 2].tolist() == [1, 0, 1]


def test_a_rate_that_is_told_a_little_wrong_makes_no_frame_irregular() -> None:
    keypoint, score = np.zeros((1, 3000, 17, 2), np.float32), np.ones((1, 3000, 17), np.float32)
    same, _, fps = regular(keypoint, score, np.arange(3000) / 29.9, 29.97)
    assert same is keypoint
    assert fps == 29.97
    single, _, _ = regular(keypoint[:, :1], score[:, :1], np.array([4.0]), 30.0)
    assert single.shape[1] == 1


def test_where_no_frame_came_for_long_nobody_is() -> None:
    """A camera that films while something moves: 30 frames, an hour of nothing, 30 frames."""
    keypoint, score = np.ones((1, 60, 17, 2), np.float32), np.ones((1, 60, 17), np.float32)
    times = np.concatenate([np.arange(30) / 30, 3600 + np.arange(30) / 30])
    found, found_score, fps = regular(keypoint, score, times, 0.0166)
    assert fps == pytest.approx(30)
    present = found_score[0, :, 0] > 0
    assert np.flatnonzero(np.diff(present)).tolist() == [29, 88], "two seconds are left of the hour"
    assert present.sum() == 60
    np.testing.assert_array_equal(found[0, ~present], 0)


def test_of_a_slow_camera_ten_frames_of_a_hole_are_left() -> None:
    """Two frames a second: ten of them are five seconds, and no hole is made shorter than that."""
    keypoint, score = np.ones((1, 40, 17, 2), np.float32), np.ones((1, 40, 17), np.float32)
    times = np.concatenate([np.arange(20) / 2, 600 + np.arange(20) / 2])
    found, found_score, fps = regular(keypoint, score, times, 0.066)
    assert fps == 2.0
    present = found_score[0, :, 0] > 0
    assert np.flatnonzero(np.diff(present)).tolist() == [19, 28], "nine empty frames between two that are 5 s apart"
    np.testing.assert_array_equal(found[0, ~present], 0)
