"""Movements without a name, made of real poses: people in photographs go from one pose to another that is like it.

Drawn people who improvise move like nobody; here every pose is somebody's, in sport, yoga or at work, and only what
lies between two of them is made up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skelact.skeleton import COCO
from skelact.structures import Array

FOLDERS = ("lsp", "lspet", "yoga_manoj", "stanford40")  # of the photographs; the others show people who walk or stand
NAMED = (  # photographs of Stanford 40 in which somebody may do what has a name
    "applauding", "jumping", "pouring", "pushing", "reading", "running", "throwing", "walking", "watching", "waving",
)  # fmt: skip
BODY = slice(COCO.joints.index("left_shoulder"), None)
SURE = 0.5  # a score of a joint that is used
ALIKE = (10, 250)  # of all poses ordered by their distance from one, those that may follow it
SIZE = 240.0  # px of the longer side of a pose


def poses_of(people: Path) -> Array:
    """The people whose whole body is seen, and their mirror images: (N, 17, 3), x and y from the hips in px, score."""
    from train_pose import FLIP, read_photos  # it takes a second

    found = []
    for photo in read_photos(people, "train"):
        folder, _, name = photo.name.partition("/")
        if folder not in FOLDERS or name.startswith(NAMED):
            continue
        for keypoint in photo.keypoint[(photo.keypoint[:, BODY, 2] > SURE).all(1)]:
            hips = keypoint[[COCO.joints.index("left_hip"), COCO.joints.index("right_hip")], :2].mean(0)
            size = np.ptp(keypoint[BODY, :2], axis=0).max()
            found.append(np.column_stack([(keypoint[:, :2] - hips) * SIZE / size, keypoint[:, 2]]))
    poses = np.array(found, np.float32)
    return np.concatenate([poses, poses[:, FLIP] * np.array([-1, 1, 1], np.float32)])


def moving(poses: Array, num_frames: int, fps: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Somebody who goes through two to four poses and back to the first: (1, T, 17, 2) in px and (1, T, 17)."""
    body = poses[:, BODY, :2].reshape(len(poses), -1)
    way = [int(rng.integers(len(poses)))]
    for _ in range(rng.integers(1, 4)):
        order = np.argsort(np.linalg.norm(body - body[way[-1]], axis=1))
        way.append(int(order[rng.integers(*ALIKE)]))
    stops = np.cumsum([0, *rng.uniform(0.35, 1.2, len(way))])
    times = (np.arange(num_frames) / fps + rng.uniform(0, 1)) % stops[-1]
    leg = np.searchsorted(stops, times, side="right") - 1
    done = ((times - stops[leg]) / np.diff(stops)[leg])[:, None, None]
    done = done**2 * (3 - 2 * done)  # slowly at both ends
    before, after = poses[way][leg], poses[[*way[1:], way[0]]][leg]
    keypoint = before[..., :2] * (1 - done) + after[..., :2] * done
    drift = np.arange(num_frames)[:, None, None] * rng.normal(0, 0.6, 2) * (rng.random() < 0.5)
    shaking = rng.normal(0, rng.uniform(0, 2), keypoint.shape)
    keypoint = keypoint + drift + shaking + (320, 240)
    return keypoint[None].astype(np.float32), np.minimum(before[..., 2], after[..., 2])[None]
