"""Faces are hidden, of everybody who is found."""

from __future__ import annotations

import drawn_people
import numpy as np

from skelact.faces import blur_faces, faces_around, faces_between, find_faces
from skelact.structures import Array

EYES = [drawn_people.JOINT[joint] for joint in ("left_eye", "right_eye", "nose")]


def drawn(motion: str, **changes: float) -> tuple[Array, Array, Array]:
    """A picture of somebody, their joints and box."""
    scene = drawn_people.scene_of(motion, seed=4, **changes)
    return next(drawn_people.render(scene, 1, 15.0, (640, 360)))


def test_heads_are_found_in_any_posture() -> None:
    for motion in ("wave", "fall", "squat", "walk"):
        for yaw in (0, 90, 180):
            for offset_s in (0.0, 1.5):
                _, keypoint, bbox = drawn(motion, yaw=yaw, offset_s=offset_s)
                ((x, y, radius),) = find_faces(keypoint, bbox)
                reach = np.linalg.norm(keypoint[0, :5] - (x, y), axis=-1).max()
                trunk = np.linalg.norm(keypoint[0, 5:7].mean(0) - keypoint[0, 11:13].mean(0))
                assert reach < radius < 2 * max(trunk, 20), (motion, yaw, offset_s)


def test_a_head_whose_joints_lie_in_one_point_is_as_large_as_its_body_tells() -> None:
    """From the back; and cut off below the shoulders, by the box."""
    keypoint = np.full((1, 17, 2), 100, np.float32)
    keypoint[0, 11:13, 1] = 200  # hips, 100 px below the shoulders
    small, large = np.array([[50, 50, 150, 250]], np.float32), np.array([[0, 0, 300, 1000]], np.float32)
    np.testing.assert_allclose(find_faces(keypoint, small), [[100, 100, 35]])
    np.testing.assert_allclose(find_faces(keypoint, large), [[100, 100, 70]])


def test_a_hidden_face_has_no_features_left() -> None:
    image, keypoint, bbox = drawn("wave")
    before = image.copy()
    blur_faces(image, find_faces(keypoint, bbox))
    (x, y, radius) = find_faces(keypoint, bbox)[0]
    inside = np.hypot(*np.meshgrid(np.arange(640) - x, np.arange(360) - y)) < radius - 1
    assert (image != before)[inside].any(axis=-1).mean() > 0.8
    outside = np.hypot(*np.meshgrid(np.arange(640) - x, np.arange(360) - y)) > radius + 2
    np.testing.assert_array_equal(image[outside], before[outside])
    assert len(np.unique(image[inside], axis=0)) <= 25, "a few flat squares"


def test_a_face_stays_hidden_where_detection_fails_for_a_moment() -> None:
    found, nothing = np.array([[10.0, 20.0, 5.0]], np.float32), np.zeros((0, 3), np.float32)
    faces = [found, *[nothing] * 30]
    assert len(faces_around(faces, 9, 30.0)) == 1
    assert len(faces_around(faces, 10, 30.0)) == 0
    assert len(faces_around([], 0, 30.0)) == 0


def test_faces_at_and_beyond_the_edge_are_no_trouble() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    blur_faces(image, np.array([[-3.0, 5.0, 6.0], [29.0, 19.0, 4.0], [100.0, 100.0, 9.0], [5.0, 5.0, 0.0]]))
    assert image.shape == (20, 30, 3)


def test_between_two_looked_at_frames_faces_are_hidden_on_their_way() -> None:
    before = np.array([[10, 20, 5], [100, 20, 5]], np.float32)
    after = np.array([[104, 20, 7], [20, 40, 5], [300, 9, 4]], np.float32)
    hidden = faces_between(before, after, 0.25).tolist()
    assert [12.5, 25, 5] in hidden
    assert [101, 20, 5.5] in hidden
    assert all(face in hidden for face in [*before.tolist(), *after.tolist()])
    nobody = np.zeros((0, 3), np.float32)
    assert faces_between(before, nobody, 0.25).tolist() == before.tolist()
    assert faces_between(nobody, nobody, 0.25).shape == (0, 3)
