"""Regions of interest: only people who stand in one of them count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from skelact.errors import SkelactError
from skelact.persons import boxed, rank_tracks
from skelact.structures import Array, PoseSequence, Track


@dataclass(frozen=True)
class Region:
    """A polygon in the picture.

    Attributes:
        corners: three or more (x, y), in pixels; as shares of width and height if none is over 1.
    """

    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.corners) < 3 or not np.isfinite(self.corners).all():
            raise SkelactError(f"region: expected three corners or more, found {self}")

    def __str__(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in self.corners)

    @classmethod
    def parse(cls, text: str) -> Region:
        """A region from ``x1,y1 x2,y2 x3,y3 ...``."""
        try:
            corners = tuple((float(x), float(y)) for x, y in (corner.split(",") for corner in text.split()))
        except ValueError:
            raise SkelactError(f'region: expected corners such as "0,0.5 1,0.5 1,1 0,1", found {text!r}') from None
        return cls(corners)

    def pixels(self, img_shape: tuple[int, int]) -> Array:
        """The corners (K, 2) float32 in a picture of (H, W) pixels."""
        corners = np.array(self.corners, np.float32)
        return corners * (img_shape[1], img_shape[0]) if (corners <= 1).all() else corners


def as_regions(regions: str | Region | Sequence[Region | str]) -> tuple[Region, ...]:
    """One region or several, as text or made."""
    several = [regions] if isinstance(regions, str | Region) else regions
    return tuple(Region.parse(region) if isinstance(region, str) else region for region in several)


def keep_inside(sequence: PoseSequence, regions: Sequence[Region]) -> PoseSequence:
    """The same sequence as if nobody were there outside the regions.

    Somebody is inside where their feet are: the middle of the lower edge of their box. Frames in which they are not are
    gaps of their track; people who never are have none.
    """
    if not regions:
        return sequence
    if any(track.keypoint.shape[-1] == 3 for track in sequence.tracks):
        raise SkelactError(f"{sequence.info.path}: --roi is for pictures, and these poses are in 3D; leave it out")
    img_shape = sequence.info.img_shape
    tracks = tuple(kept for track in sequence.tracks if (kept := _part_inside(track, regions, img_shape)))
    if "pose_model" in sequence.provenance:  # of pickles the order is the file's
        tracks = rank_tracks(tracks, img_shape, sequence.num_frames)
    return replace(sequence, tracks=tracks)


def _part_inside(track: Track, regions: Sequence[Region], img_shape: tuple[int, int]) -> Track | None:
    bbox = boxed(track).bbox
    assert bbox is not None
    inside = track.present & boxes_inside(bbox, regions, img_shape)
    if not inside.any():
        return None

    def blank(values: Array) -> Array:
        return np.where(inside.reshape(-1, *[1] * (values.ndim - 1)), values, 0)

    seen = np.flatnonzero(inside)
    return track.changed(blank).cut(int(seen[0]), int(seen[-1]) + 1)


def boxes_inside(bbox: Array, regions: Sequence[Region], img_shape: tuple[int, int]) -> Array:
    """Of boxes (N, 4) xyxy in pixels, whether they stand in one of the regions, or there is none: (N,) bool."""
    if not regions:
        return np.ones(len(bbox), bool)
    polygons = [region.pixels(img_shape).astype(np.float32) for region in regions]
    feet = np.stack([(bbox[:, 0] + bbox[:, 2]) / 2, bbox[:, 3]], axis=1).clip(0, img_shape[::-1])  # of the picture
    return np.array([any(_holds(polygon, point) for polygon in polygons) for point in feet], bool)


def _holds(polygon: Array, point: Array) -> bool:
    return cv2.pointPolygonTest(polygon, (float(point[0]), float(point[1])), False) >= 0
