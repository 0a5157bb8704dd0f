"""Pictures for the pose network: whoever is drawn is labelled, and those who were there stay."""

from __future__ import annotations

from pathlib import Path

import cv2
import drawn_people
import numpy as np
import pytest

train_pose = pytest.importorskip("train_pose")
from drawn_pictures import is_hidden, picture  # noqa: E402 (after what it needs)


@pytest.fixture
def photo(tmp_path: Path) -> train_pose.Photo:
    """Stands for a photograph with somebody in it."""
    person = drawn_people.Person(drawn_people.MOTIONS["stand"].motion, x=0.2, height=0.8)
    image, keypoint, bbox = next(drawn_people.render(drawn_people.Scene((person,), "noise"), 1))
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), image)
    joints = np.concatenate([keypoint, np.ones((1, 17, 1))], axis=2).astype(np.float32)
    return train_pose.Photo(path, "photo", "train", image.shape[:2], bbox, np.ones(1, np.float32), joints, None)


def test_everybody_in_a_picture_has_a_label(photo: train_pose.Photo) -> None:
    rng = np.random.default_rng(0)
    before = train_pose.label_text(photo)
    drawn = [found for found in (picture([photo], rng) for _ in range(30)) if found]
    in_photo = [text for _, text in drawn if text.startswith(before)]
    assert len(drawn) > 20
    assert 5 < len(in_photo) < len(drawn) - 5
    assert all(text.count("\n") == 2 for text in in_photo)
    for image, text in drawn:
        assert image.dtype == np.uint8
        rows = np.array([line.split() for line in text.splitlines()], float)
        assert rows.shape[1:] == (56,)
        box, joints = rows[:, 1:5], rows[:, 5:].reshape(-1, 17, 3)
        assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all()
        low, high = (box[:, None, :2] + sign * (box[:, None, 2:] / 2 + 0.02) for sign in (-1, 1))
        seen = joints[..., 2] > 0
        assert (seen.sum(1) >= 6).all()
        assert ((joints[..., :2] > low) & (joints[..., :2] < high)).all(-1)[seen].all()


def test_nobody_is_drawn_over_somebody_else() -> None:
    others = np.array([[100, 100, 200, 300]], np.float32)
    assert is_hidden(others, np.array([90, 150, 160, 250]))
    assert not is_hidden(others, np.array([190, 100, 300, 300]))
    assert not is_hidden(others[:0], np.array([0, 0, 50, 50]))
