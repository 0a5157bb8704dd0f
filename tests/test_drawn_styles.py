"""Drawn people move each in their own way, and still do what the motion's name says."""

from __future__ import annotations

from pathlib import Path

import drawn_styles
import numpy as np
import pytest
from click.testing import CliRunner
from drawn_people import JOINT, Figure, pose_body
from drawn_styles import STYLES, WEIZMANN

from skelact.annotations import open_annotations
from skelact.structures import Array

TIMES = np.arange(60) / 30


def joints(motion: drawn_styles.Motion, times: Array = TIMES, yaw: float = 90) -> Array:
    """(T, 17, 3) in body heights: to the picture's right, up, towards the camera."""
    return np.stack([pose_body(Figure(), motion(t), yaw, pitch=0).joint for t in times])


@pytest.mark.parametrize("name", [*STYLES, *WEIZMANN])
def test_no_two_move_alike(name: str) -> None:
    style = {**STYLES, **WEIZMANN}[name]
    one, again, other = (joints(style(np.random.default_rng(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).mean() > 0.01
    assert one[..., 1].min() > -0.05, "nobody sinks into the ground"


def test_who_jumps_along_gets_somewhere_and_who_jumps_in_place_does_not() -> None:
    for seed in range(10):
        ways = [np.ptp(joints(style(np.random.default_rng(seed)))[:, JOINT["left_hip"], 0])
                for style in (drawn_styles.jump_in_place, drawn_styles.jump_along)]  # fmt: skip
        assert ways[0] < 0.3 < ways[1]


def test_who_hops_has_one_foot_in_the_air_all_the_time() -> None:
    for seed in range(10):
        body = joints(drawn_styles.hop(np.random.default_rng(seed)))
        left, right = (body[:, JOINT[f"{side}_ankle"], 1] for side in ("left", "right"))
        assert (left < right + 0.02).all(), "the left one carries"


def test_who_walks_has_a_foot_on_the_ground_and_goes_on_without_a_leap() -> None:
    for seed in range(20):
        body = joints(drawn_styles.walk(np.random.default_rng(seed)))
        feet = body[:, [JOINT["left_ankle"], JOINT["right_ankle"]], 1]
        assert feet.min(axis=1).max() < 0.08
        assert np.abs(np.diff(body[:, JOINT["left_hip"]], axis=0)).max() < 0.06
        assert np.ptp(body[:, JOINT["left_ankle"], 0] - body[:, JOINT["right_ankle"], 0]) > 0.2, "legs take turns"


def test_who_waves_has_a_moving_hand_above_the_shoulder_and_stands() -> None:
    both = 0
    for seed in range(20):
        body = joints(drawn_styles.wave(np.random.default_rng(seed)), yaw=0)
        raised = [body[:, JOINT[f"{side}_wrist"], 1].mean() > body[:, JOINT[f"{side}_shoulder"], 1].mean()
                  for side in ("left", "right")]  # fmt: skip
        assert raised[0]
        both += raised[1]
        assert np.ptp(body[:, JOINT["left_wrist"]], axis=0).max() > 0.05
        assert np.ptp(body[:, JOINT["left_ankle"]], axis=0).max() < 0.01
    assert 0 < both < 20


def test_who_gallops_faces_across_the_way() -> None:
    for seed in range(10):
        body = joints(drawn_styles.gallop(np.random.default_rng(seed)))
        shoulders = body[:, JOINT["left_shoulder"]] - body[:, JOINT["right_shoulder"]]
        assert np.abs(shoulders[:, 0]).min() > 0.15, "shoulders lie along the way, to the picture's right"


def test_who_falls_lies_after_two_seconds() -> None:
    for seed in range(20):
        heads = joints(drawn_styles.fall(np.random.default_rng(seed)))[:, JOINT["nose"], 1]
        assert heads[0] > 0.8
        assert heads[-1] < 0.45


def test_a_dataset_of_them(tmp_path: Path) -> None:
    out = tmp_path / "drawn.pkl"
    result = CliRunner().invoke(drawn_styles.main, ["--each", "2", "--out", str(out)])
    assert result.exit_code == 0, result.output
    dataset = open_annotations(out)
    assert dataset.class_names == tuple(WEIZMANN)
    assert len(dataset.indices("train")) == 2 * len(WEIZMANN)
    assert {sample.keypoint.shape for sample in dataset.annotations} == {(1, 40, 17, 2)}
