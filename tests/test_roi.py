"""Only people who stand in a region count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_render import NUM_FRAMES, person, sequence_of

from skelact.errors import SkelactError
from skelact.roi import Region, keep_inside
from skelact.structures import Track

LEFT = Region.parse("0,0 0.5,0 0.5,1 0,1")


def walking(track: Track, step: float) -> Track:
    """The same person, who goes on by so many pixels a frame."""
    way = np.arange(track.num_frames, dtype=np.float32) * step
    assert track.bbox is not None
    return replace(
        track,
        keypoint=track.keypoint + way[:, None, None] * np.array([1, 0], np.float32),
        bbox=track.bbox + way[:, None] * np.array([1, 0, 1, 0], np.float32),
    )


def test_those_outside_are_not_there() -> None:
    kept = keep_inside(sequence_of(person(1, x=160), person(2, x=480)), [LEFT])
    assert [track.track_id for track in kept.tracks] == [1]
    assert kept.num_frames == NUM_FRAMES


def test_somebody_who_walks_out_is_there_as_long_as_they_are_inside() -> None:
    walker = walking(person(1, x=279), 10.0)  # their feet, 5 px farther on, pass 320 after four frames
    (kept,) = keep_inside(sequence_of(walker), [LEFT]).tracks
    assert (kept.start_frame, kept.stop_frame) == (0, 4)
    right = Region.parse("320,0 640,0 640,480 320,480")
    (kept,) = keep_inside(sequence_of(walker), [right]).tracks
    assert (kept.start_frame, kept.stop_frame) == (4, NUM_FRAMES)
    np.testing.assert_array_equal(kept.keypoint[0], walker.keypoint[4])


def test_feet_count_and_not_heads() -> None:
    """A region on the floor, which the person's box hardly touches."""
    standing = person(1, x=320, y=260)
    floor, wall = Region.parse("0,355 640,355 640,480 0,480"), Region.parse("0,0 640,0 640,350 0,350")
    assert len(keep_inside(sequence_of(standing), [floor]).tracks) == 1
    assert keep_inside(sequence_of(standing), [wall]).tracks == ()


def test_feet_below_the_picture_are_at_its_edge() -> None:
    cut_off = person(1, x=320, y=460)
    assert cut_off.bbox is not None
    assert cut_off.bbox[0, 3] > 480
    assert len(keep_inside(sequence_of(cut_off), [Region.parse("0,0 1,0 1,1 0,1")]).tracks) == 1


def test_who_matters_is_told_by_what_is_seen_in_the_region() -> None:
    """Of a video; the persons of a pickle have the order of their file."""
    passer, stander = walking(person(1, x=300), 10.0), person(2, x=160)
    passer_by = sequence_of(passer, stander)
    assert [track.track_id for track in keep_inside(passer_by, [LEFT]).tracks] == [1, 2]
    of_video = replace(passer_by, provenance={"pose_model": "yolo.pt"})
    assert [track.track_id for track in keep_inside(of_video, [LEFT]).tracks] == [2, 1]


def test_poses_in_3d_are_in_no_region_of_a_picture() -> None:
    flat = person(1, x=320)
    solid = replace(flat, keypoint=np.concatenate([flat.keypoint, flat.keypoint[..., :1]], axis=-1), bbox=None)
    with pytest.raises(SkelactError, match="these poses are in 3D; leave it out"):
        keep_inside(sequence_of(solid), [LEFT])


def test_several_regions_add_up_and_none_is_everywhere() -> None:
    both = sequence_of(person(1, x=160), person(2, x=480))
    right = Region.parse("0.5,0 1,0 1,1 0.5,1")
    assert len(keep_inside(both, [LEFT, right]).tracks) == 2
    assert keep_inside(both, []) is both


def test_poses_without_boxes_have_feet_too() -> None:
    unboxed = [replace(track, bbox=None, bbox_score=None) for track in (person(1, x=160), person(2, x=480))]
    assert [track.track_id for track in keep_inside(sequence_of(*unboxed), [LEFT]).tracks] == [1]
    for track in unboxed:
        track.keypoint[:, 0] = 0  # a nose that is not seen is in no corner of the picture
    assert [track.track_id for track in keep_inside(sequence_of(*unboxed), [LEFT]).tracks] == [1]


@pytest.mark.parametrize("text", ["", "1,2 3,4", "a,b c,d e,f", "1,2,3 4,5,6 7,8,9", "1 2 3", "nan,0 1,0 1,1"])
def test_what_is_no_polygon_is_told(text: str) -> None:
    with pytest.raises(SkelactError, match=r"region: expected (three corners or more|corners such as)"):
        Region.parse(text)
