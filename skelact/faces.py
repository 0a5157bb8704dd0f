"""Faces made unrecognisable: of everybody that the pose model found, whether tracked or not."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from skelact.skeleton import COCO
from skelact.structures import Array

HEAD = [COCO.joints.index(joint) for joint in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")]
SHOULDERS = [COCO.joints.index(joint) for joint in ("left_shoulder", "right_shoulder")]
HIPS = [COCO.joints.index(joint) for joint in ("left_hip", "right_hip")]
SPREAD = 1.8  # a head reaches so many times farther from its middle than the farthest of its joints
SHARE_OF_TRUNK = 0.35  # radius of a head that is seen from the side or the back, where its joints lie close together
SHARE_OF_BOX = 0.07  # at least, of the box's longer side
HOLD_S = 0.3  # a face is hidden for so long before and after it is found, lest it flash up where detection fails
PIXELS = 5  # across a hidden face


def find_faces(keypoint: Array, bbox: Array) -> Array:
    """Circles around people's heads.

    Unsure joints count too: where a face can't be seen they lie where the head is.

    Args:
        keypoint: (N, 17, 2) COCO joints in pixels.
        bbox: (N, 4) xyxy pixels.

    Returns:
        (N, 3) float32: x, y and radius in pixels.
    """
    head = keypoint[:, HEAD]
    middle = (head.min(1) + head.max(1)) / 2
    spread = np.linalg.norm(head - middle[:, None], axis=-1).max(axis=1)
    trunk = np.linalg.norm(keypoint[:, SHOULDERS].mean(1) - keypoint[:, HIPS].mean(1), axis=-1)
    longer = (bbox[:, 2:] - bbox[:, :2]).max(axis=1)
    radius = np.maximum.reduce([SPREAD * spread, SHARE_OF_TRUNK * trunk, SHARE_OF_BOX * longer])
    return np.concatenate([middle, radius[:, None]], axis=1).astype(np.float32)


def faces_between(before: Array, after: Array, share: float) -> Array:
    """Circles of a frame in which nobody looked for heads: those of the frames before and after, and on the way.

    Args:
        before, after: (N, 3) and (M, 3).
        share: of the way from one frame to the other.
    """
    moved = []
    for here, there, part in ((before, after, share), (after, before, 1 - share)):
        if len(here) and len(there):
            distance = np.linalg.norm(here[:, None, :2] - there[None, :, :2], axis=-1)
            moved.append(here + (there[distance.argmin(1)] - here) * np.float32(part))
    return np.concatenate([before, after, *moved])


def faces_around(faces: Sequence[Array], index: int, fps: float) -> Array:
    """All circles (N, 3) of a frame and of those shortly before and after it."""
    hold = max(1, round(HOLD_S * fps))
    around = faces[max(index - hold, 0) : index + hold + 1]
    return np.concatenate([np.zeros((0, 3), np.float32), *around])


def blur_faces(image: Array, faces: Array) -> None:
    """Turn circles (N, 3) of a picture (H, W, 3) uint8 into a few flat squares, in place."""
    height, width = image.shape[:2]
    for x, y, radius in faces.tolist():
        left, top = max(round(x - radius), 0), max(round(y - radius), 0)
        right, bottom = min(round(x + radius) + 1, width), min(round(y + radius) + 1, height)
        if right <= left or bottom <= top:
            continue
        face = image[top:bottom, left:right]
        few = cv2.resize(face, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
        flat = cv2.resize(few, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
        inside = np.zeros(face.shape[:2], np.uint8)
        cv2.circle(inside, (round(x) - left, round(y) - top), max(1, round(radius)), 1, -1)
        face[inside > 0] = flat[inside > 0]
