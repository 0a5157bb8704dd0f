"""The drawn people do what their motions say, and a real YOLO sees them where they are drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import drawn_people as drawn  # noqa: E402

POSE_MODEL = ROOT / "../shared/weights/yolov8n-pose_int8_openvino_model"
J = drawn.JOINT


def keypoints(scene: drawn.Scene, num_frames: int, fps: float = 10.0) -> np.ndarray:
    """Joints (T, N, 17, 2) px, y downwards."""
    return np.stack([keypoint for _, keypoint, _ in drawn.render(scene, num_frames, fps)])


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_the_same_seed_gives_the_same_pictures() -> None:
    first, again, other = ([frame for frame, _, _ in drawn.render(drawn.random_scene(seed), 2)] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("motion", [*drawn.MOTIONS, *drawn.PAIR_MOTIONS])
def test_joints_lie_on_the_drawn_body(motion: str) -> None:
    scene = drawn.scene_of(motion, seed=1)
    blank = drawn.Scene((), scene.background, scene.seed)
    (background, _, _), *_ = drawn.render(blank, 1)
    for frame, keypoint, bbox in drawn.render(scene, 5, fps=3.0):
        assert frame.shape == (360, 640, 3)
        assert frame.dtype == np.uint8
        assert keypoint.shape == (len(scene.people), 17, 2)
        assert keypoint.dtype == bbox.dtype == np.float32
        assert (keypoint >= bbox[:, None, :2]).all()
        assert (keypoint <= bbox[:, None, 2:]).all()
        body = (frame != background).any(-1)
        for x, y in keypoint.reshape(-1, 2).round().astype(int):
            if 0 <= x < 640 and 0 <= y < 360:
                assert body[y, x]


def test_waving_hand_is_above_the_shoulder_and_moves() -> None:
    joints = keypoints(drawn.scene_of("wave"), 20)[:, 0]
    assert (joints[:, J["right_wrist"], 1] < joints[:, J["right_shoulder"], 1]).all()
    assert (joints[:, J["left_wrist"], 1] > joints[:, J["left_shoulder"], 1]).all()
    assert np.ptp(joints[:, J["right_wrist"], 0]) > 20


def test_walking_goes_the_way_the_person_faces() -> None:
    for yaw, sign in ((90, 1), (-90, -1)):
        joints = keypoints(drawn.scene_of("walk", x=0.5, yaw=yaw), 10)[:, 0]
        assert (sign * np.diff(joints[:, J["nose"], 0]) > 0).all()
        assert (sign * (joints[:, J["nose"], 0] - joints[:, J["left_ear"], 0]) > 0).all()


def test_fallen_person_lies() -> None:
    *_, (_, _, ((left, top, right, bottom),)) = drawn.render(drawn.scene_of("fall"), 3, fps=1.0)
    assert right - left > 2 * (bottom - top)


def test_hands_meet_in_a_handshake() -> None:
    joints = keypoints(drawn.scene_of("shake_hands", height=0.7), 20)[12]
    first, second = joints[:, J["right_wrist"]]
    assert np.linalg.norm(first - second) < 0.15 * 0.7 * 360


def test_stories() -> None:
    x = keypoints(drawn.crossing(), 40)[:, :, J["nose"], 0]
    assert x[0, 0] < x[0, 1]
    assert x[-1, 0] > x[-1, 1]
    x = keypoints(drawn.leave_and_return(), 60)[:, 0].min(axis=1)[:, 0]
    assert x[0] < 640 < x.max()
    assert x[-1] < 640
    x = keypoints(drawn.ten_walkers(), 50)[..., 0]
    assert x.shape[1] == 10
    assert ((x > -30) & (x < 670)).all()
    assert len(next(drawn.render(drawn.nobody(), 1))[1]) == 0


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_video_plays_upright(tmp_path: Path, rotation: int) -> None:
    frames = [frame for frame, _, _ in drawn.render(drawn.scene_of("wave"), 3, size=(120, 200))]
    drawn.write_video(tmp_path / "v.mp4", frames, rotation=rotation)
    decoded = decode(tmp_path / "v.mp4")
    stored = decoded[0].to_ndarray(format="bgr24")
    assert stored.shape[:2] == ((200, 120) if rotation % 180 == 0 else (120, 200))
    upright = np.rot90(stored, decoded[0].rotation // 90)
    assert np.abs(upright.astype(int) - frames[0]).mean() < 8


def test_video_with_uneven_times_an_odd_size_and_sound(tmp_path: Path) -> None:
    frames = [frame for frame, _, _ in drawn.render(drawn.scene_of("wave"), 4, size=(121, 99))]
    times_s = [0.0, 0.1, 0.15, 0.5]
    assert drawn.write_video(tmp_path / "v.mp4", frames, times_s=times_s, audio="tone") == 4
    decoded = decode(tmp_path / "v.mp4")
    assert [frame.time for frame in decoded] == pytest.approx(times_s, abs=1e-3)
    assert (decoded[0].width, decoded[0].height) == (121, 99)
    with av.open(str(tmp_path / "v.mp4")) as container:
        loudness = max(np.abs(samples.to_ndarray()).max() for samples in container.decode(audio=0))
    assert loudness == pytest.approx(0.2, abs=0.05)


@pytest.mark.shared
@pytest.mark.skipif(not POSE_MODEL.exists(), reason=f"needs {POSE_MODEL}, which is not there")
def test_a_real_yolo_sees_the_drawn_joints() -> None:
    pytest.importorskip("openvino")
    poses = drawn.load_pose_model(POSE_MODEL)
    for motion in ("wave", "walk", "jumping_jack", "shake_hands"):
        agreement = drawn.measure(drawn.scene_of(motion, seed=2), poses, num_frames=6, fps=2.5)
        assert agreement.detection_rate > 0.98, motion
        assert agreement.mean_error < 0.05, motion
