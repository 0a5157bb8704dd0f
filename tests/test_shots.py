"""Cuts are found, and nothing else is one."""

from __future__ import annotations

from itertools import pairwise

import drawn_people
import numpy as np

from skelact.shots import difference, find_cuts, thumbnail
from skelact.structures import Array


def shot(seed: int, background: str, num_frames: int = 10) -> list[Array]:
    scene = drawn_people.Scene(drawn_people.scene_of("walk", seed=seed).people, background, seed)
    return [frame for frame, _, _ in drawn_people.render(scene, num_frames, 15.0, (160, 90))]


def cuts(frames: list[Array]) -> list[int]:
    small = [thumbnail(frame) for frame in frames]
    return find_cuts([0.0, *(difference(a, b) for a, b in pairwise(small))])


def test_each_shot_starts_with_a_cut() -> None:
    assert cuts([*shot(1, "room"), *shot(2, "street"), *shot(3, "gradient", 4)]) == [10, 20]


def test_people_who_move_are_no_cut() -> None:
    assert cuts(shot(1, "room", 30)) == []


def test_a_camera_that_pans_is_none_either() -> None:
    (picture,) = shot(4, "street", 1)
    wide = np.concatenate([picture, picture[:, ::-1], picture], axis=1)
    assert cuts([wide[:, x : x + 160] for x in range(0, 300, 20)]) == []


def test_a_light_that_comes_on_slowly_is_none() -> None:
    (picture,) = shot(5, "room", 1)
    assert cuts([(picture * part).astype(np.uint8) for part in np.linspace(0.1, 1, 8)]) == []


def test_one_frame_has_no_cut() -> None:
    assert cuts(shot(1, "room", 1)) == []


def test_another_take_before_the_same_background_is_a_cut() -> None:
    assert find_cuts([0.0, *[0.4] * 8, 5.0, *[0.4] * 8]) == [9]


def test_frames_repeated_to_reach_a_higher_frame_rate_make_no_cuts() -> None:
    assert find_cuts([0.0, *[6.0, 0.0, 0.0] * 8]) == []
