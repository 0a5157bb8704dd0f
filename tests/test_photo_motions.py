"""People in photographs who are set in motion: every pose is somebody's, what lies between is made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photo_motions import ALIKE, BODY, moving, poses_of

from skelact.skeleton import COCO


def test_somebody_goes_smoothly_from_one_pose_to_others_like_it() -> None:
    rng = np.random.default_rng(0)
    far = rng.normal(0, 60, (1, 17, 2))
    poses = far + np.linspace(0, 1, ALIKE[1] + 1)[:, None, None] * rng.normal(0, 40, (17, 2))
    poses = np.concatenate([poses, np.ones((*poses.shape[:2], 1))], axis=2).astype(np.float32)
    for _ in range(20):
        keypoint, score = moving(poses, 60, 30.0, rng)
        assert keypoint.shape == (1, 60, 17, 2)
        np.testing.assert_array_equal(score, np.ones((1, 60, 17)))
        step = np.abs(np.diff(keypoint[0], axis=0)).max()
        assert step < 30, "a joint never jumps"  # 40 px, three sigma of it, in 0.35 s, and the shaking
        assert np.ptp(keypoint[0], axis=0).max() > 5, "and the person does move"


@pytest.mark.shared
def test_the_poses_are_of_whole_people_who_do_nothing_that_has_a_name(shared: Path) -> None:
    poses = poses_of(shared / "data" / "people")
    assert len(poses) > 5000
    assert (poses[:, BODY, 2] > 0.5).all()
    assert np.allclose(np.ptp(poses[:, BODY, :2], axis=1).max(axis=1), 240, atol=0.1)
    left, right = (COCO.joints.index(f"{side}_wrist") for side in ("left", "right"))
    half = len(poses) // 2
    assert np.allclose(poses[:half, left, 0], -poses[half:, right, 0]), "the second half mirrors the first"
