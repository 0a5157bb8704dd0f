"""What flows between stages."""

from __future__ import annotations

import numpy as np
import pytest

from skelact.structures import PoseSequence, Track, VideoInfo


def test_a_part_of_a_sequence_has_frames_and_times_of_its_own() -> None:
    """From 1 s to 2 s, of three people, one of whom comes in between and one only later."""
    times = np.arange(90) / 30

    def person(track_id: int, start: int, stop: int) -> Track:
        keypoint = np.arange(start, stop, dtype=np.float32)[:, None, None] + np.ones((1, 17, 2), np.float32)
        return Track(track_id, start, times[start:stop], keypoint, np.ones((stop - start, 17), np.float32))

    faces = tuple(np.full((1, 3), t, np.float32) for t in range(90))
    people = person(1, 0, 90), person(2, 45, 80), person(3, 61, 90)
    whole = PoseSequence(
        VideoInfo("a.mp4", (360, 640), 30.0, 90), people, 90, "coco", times, faces=faces, cuts_s=(0.5, 1.5, 2.5)
    )
    part = whole.cut(1.0, 2.0)
    assert (part.num_frames, part.duration_s) == (30, pytest.approx(1.0))
    np.testing.assert_allclose(part.time_s, np.arange(30) / 30, atol=1e-9)
    assert [(track.track_id, track.start_frame, track.stop_frame) for track in part.tracks] == [(1, 0, 30), (2, 15, 30)]
    for track in part.tracks:
        np.testing.assert_allclose(track.time_s, part.time_s[track.start_frame : track.stop_frame], atol=1e-9)
        np.testing.assert_array_equal(track.keypoint[:, 0, 0], 31 + np.arange(track.start_frame, track.stop_frame))
    assert [int(circles[0, 0]) for circles in part.faces] == list(range(30, 60))
    assert part.cuts_s == pytest.approx((0.5,))
    assert whole.cut(5.0, 6.0).num_frames == 0
