"""Where a video cuts from one shot to another.

A cut is a frame that differs from the one before much more than any of its neighbours do from theirs; a camera that
pans, or a light that comes on slowly, makes neighbours differ likewise. PySceneDetect's adaptive detector compares with
the neighbours' mean, for which every new picture is a cut where frames are repeated to reach a higher frame rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from skelact.structures import Array

SIZE = (32, 18)  # width and height in which pictures are compared: people who move hardly count
SAMPLED_SIZE = (8 * SIZE[0], 8 * SIZE[1])
MIN_DIFFERENCE = 4.0  # grey levels, of 256; less where another shot has the same background
MIN_RATIO = 3.0  # to the largest difference of the neighbours
NEIGHBOURS = 3  # on either side


def thumbnail(image: Array) -> Array:
    """A picture (H, W, 3) uint8, small enough to compare."""
    sampled = cv2.resize(image, SAMPLED_SIZE, interpolation=cv2.INTER_NEAREST)  # the mean of all pixels takes long
    return cv2.resize(sampled, SIZE, interpolation=cv2.INTER_AREA)


def difference(before: Array, after: Array) -> float:
    """Of two thumbnails, in grey levels."""
    return float(cv2.absdiff(before, after).mean())


def find_cuts(differences: Sequence[float]) -> list[int]:
    """The first frame of every shot but the first.

    Args:
        differences: of each frame to the one before; of the first, which has none, 0.
    """
    values = np.asarray(differences, float)
    cuts = []
    for k in np.flatnonzero(values >= MIN_DIFFERENCE).tolist():
        around = np.concatenate([values[max(k - NEIGHBOURS, 1) : k], values[k + 1 : k + 1 + NEIGHBOURS]])
        if values[k] >= MIN_RATIO * around.max(initial=0.0):
            cuts.append(k)
    return cuts
