"""Who does what, when: drawn people at several frame rates, and a classifier that looks where their wrists are."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import drawn_people
import numpy as np
import pytest
from drawn_people import MOTIONS, Person, Scene

from skelact.cli_options import min_duration, step
from skelact.errors import SkelactError
from skelact.skeleton import COCO
from skelact.structures import Array, PoseSequence, Prediction, Track, VideoInfo
from skelact.timeline import MIN_DURATION_S, ScoreGrid, Segmenter, TimelineSettings, make_timelines
from skelact.windows import (
    RATE,
    STEP_S,
    WINDOW_S,
    Window,
    lay_windows,
    score_windows,
    window_keypoint,
    windows_until,
)

SIZE = (64, 36)  # nobody looks at the pictures
CLASSES = ("arms down", "arms up", "together")
WRISTS = [COCO.joints.index(joint) for joint in ("left_wrist", "right_wrist")]
SHOULDERS = [COCO.joints.index(joint) for joint in ("left_shoulder", "right_shoulder")]


class LooksAtWrists:
    """Stands for a classifier: how long wrists are above shoulders; two people are ``together``."""

    num_person = 2

    def __init__(self) -> None:
        self.batches: list[int] = []

    def scores_of(
        self, samples: Sequence[tuple[Array, Array | None]], img_shape: tuple[int, int] | None, num_clips: int
    ) -> Array:
        self.batches.append(len(samples))
        scores = []
        for keypoint, _ in samples:
            up = float((keypoint[0, :, WRISTS, 1] < keypoint[0, :, SHOULDERS, 1]).mean())
            scores.append((0.05, 0.05, 0.9) if len(keypoint) == 2 else (0.95 * (1 - up), 0.95 * up, 0.05))
        return np.array(scores)


def times_of(fps: float, seconds: float) -> Array:
    """Of the frames; for 0 frames a second, a camera that stalls and hurries."""
    if fps:
        return np.arange(round(seconds * fps)) / fps
    steps = np.random.default_rng(0).choice((1 / 60, 1 / 30, 1 / 15, 0.1), 2000)
    times = np.concatenate([[0.0], np.cumsum(steps)])
    return times[times < seconds]


def people(scene: Scene, times: Array) -> list[Track]:
    """Everybody in a scene at those times, without the pictures."""
    width, height = SIZE
    tracks = []
    for n, one in enumerate(scene.people):
        scale = one.height * height
        origin = np.array((one.x * width + one.shift * scale, one.y * height))
        bodies = [drawn_people.pose_body(one.figure, one.pose(time_s), one.yaw) for time_s in times]
        keypoint = np.stack([origin + body.joint[:, :2] * (scale, -scale) for body in bodies]).astype(np.float32)
        bbox = np.concatenate([keypoint.min(1) - 1, keypoint.max(1) + 1], axis=1)
        score = np.full(keypoint.shape[:2], 0.9, np.float32)
        tracks.append(Track(n + 1, 0, times, keypoint, score, bbox, score[:, 0]))
    return tracks


def sequence_of(tracks: Sequence[Track], fps: float = 30.0) -> PoseSequence:
    times = np.unique(np.concatenate([track.time_s for track in tracks]))
    info = VideoInfo("a.mp4", (SIZE[1], SIZE[0]), fps, 0)
    return PoseSequence(info, tuple(tracks), len(times), "coco", times)


def stand_then_raise(time_s: float) -> drawn_people.Pose:
    """Stands for 4 s, has both arms up until 9 s, stands again."""
    up = drawn_people.smooth(time_s, 3.9, 4.1) - drawn_people.smooth(time_s, 8.9, 9.1)
    raised = drawn_people.both(drawn_people.Limb(0, 165, 0, 170))
    return drawn_people.blend(drawn_people.STAND, raised, up)


SCENE = Scene((Person(stand_then_raise),), "plain")


@functools.cache
def raises_arms(fps: float) -> Track:
    """The one person of ``SCENE``, for 12 s."""
    (track,) = people(SCENE, times_of(fps, 12.0))
    return track


def segments_of(tracks: Sequence[Track], settings: TimelineSettings | None = None) -> tuple[Prediction, ...]:
    segments, _ = make_timelines(sequence_of(tracks), LooksAtWrists(), CLASSES, settings)
    return segments


# --- a whole sequence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [15, 25, 29.97, 60, 0], ids=str)
def test_any_frame_rate_gives_the_same_segments(fps: float) -> None:
    segments = segments_of([raises_arms(fps)])
    assert [segment.class_name for segment in segments] == ["arms down", "arms up", "arms down"]
    starts = [segment.start_s for segment in segments]
    assert starts == pytest.approx([0.0, 4.0, 9.0], abs=0.5)
    assert [a.stop_s for a in segments[:-1]] == starts[1:], "one ends where the other starts"
    assert segments[-1].stop_s == pytest.approx(12.0, abs=0.1)
    assert segments[1].track_ids == (1,)
    assert segments[1].score > 0.8
    assert segments[1].scores.sum() == pytest.approx(1.0, abs=0.06)


def test_frame_rates_agree_on_the_networks_input() -> None:
    """Poses in between are interpolated: the same to a fiftieth of a body's height."""
    wave = drawn_people.scene_of("wave", seed=1)
    at_60 = window_keypoint(Window(1.0, 3.0, tuple(people(wave, times_of(60, 4.0)))))[0]
    assert at_60.shape == (1, 2 * RATE, 17, 2)
    for fps in (15, 25, 29.97, 0):
        keypoint, score = window_keypoint(Window(1.0, 3.0, tuple(people(wave, times_of(fps, 4.0)))))
        assert np.abs(keypoint - at_60).mean() < 0.02 * 0.75 * SIZE[1]
        assert score is not None
        np.testing.assert_allclose(score, 0.9, rtol=1e-5)


def test_all_poses_of_a_window_are_where_somebody_was_at_their_time() -> None:
    """Also the first and the last, which lie between two frames of the video."""
    times = np.arange(30) / 10
    keypoint = (1 + 100 * times[:, None, None] + np.zeros((30, 17, 2))).astype(np.float32)
    walks = Track(1, 0, times, keypoint, np.ones((30, 17), np.float32))
    found, _ = window_keypoint(Window(0.25, 1.25, (walks,)))
    np.testing.assert_allclose(found[0, :, 0, 0], 1 + 100 * (0.25 + np.arange(RATE) / RATE), rtol=1e-5)


def test_a_window_in_which_somebody_is_hardly_seen_is_none() -> None:
    seen = np.ones((40, 17), np.float32)
    seen[13:35] = 0  # of 4 s, between 1.3 and 3.5
    track = Track(1, 0, np.arange(40) / 10, seen[..., None].repeat(2, axis=-1), seen)
    assert [(window.start_s, window.stop_s) for window in lay_windows([track], 1, (2.0,))] == [(0.0, 2.0)]


def test_everybody_and_every_two_who_are_near_are_asked() -> None:
    """Three stand in a row, two of them side by side."""
    stand = MOTIONS["stand"].motion
    scene = Scene(tuple(Person(stand, x=x, height=0.5) for x in (0.1, 0.25, 0.95)), "plain")
    segments = segments_of(people(scene, times_of(15, 5.0)))
    assert {segment.track_ids: segment.class_name for segment in segments} == {
        (1,): "arms down",
        (2,): "arms down",
        (3,): "arms down",
        (1, 2): "together",
    }
    for subjects, expected in (("persons", {(1,), (2,), (3,)}), ("pairs", {(1, 2)})):
        only = segments_of(people(scene, times_of(15, 5.0)), TimelineSettings(subjects=subjects))
        assert {segment.track_ids for segment in only} == expected


def test_in_a_crowd_pairs_are_those_of_neighbours() -> None:
    """In a row so dense that all are near all; else every two of twenty people are 190 clips a window."""
    stand = MOTIONS["stand"].motion
    scene = Scene(tuple(Person(stand, x=0.2 + 0.01 * k, height=0.5) for k in range(12)), "plain")
    tracks = people(scene, times_of(15, 3.0))
    pairs = {window.track_ids for window in lay_windows(tracks, 2, (2.0,), subjects="pairs")}
    assert pairs >= {(k, k + 1) for k in range(1, 12)} | {(k, k + 2) for k in range(1, 11)}
    assert len(pairs) <= 4 * 12
    assert (1, 12) not in pairs
    assert {window.track_ids for window in windows_until(tracks, 3.0, 2, (2.0,), "pairs")} == pairs


def test_two_who_only_pass_each_other_are_no_pair_before_and_after() -> None:
    scene = drawn_people.crossing(seed=1)
    first, second = (replace(one, x=x) for one, x in zip(scene.people, (-0.5, 1.5), strict=True))
    tracks = people(replace(scene, people=(first, second)), times_of(15, 12.0))
    (together,) = [segment for segment in segments_of(tracks) if len(segment.track_ids) == 2]
    assert tracks[0].bbox is not None
    assert tracks[1].bbox is not None
    away = np.abs(tracks[0].bbox[:, 0] - tracks[1].bbox[:, 0]) / 22  # in body heights
    near = tracks[0].time_s[away < 1.5]
    assert (together.start_s, together.stop_s) == (pytest.approx(near[0], abs=1.2), pytest.approx(near[-1], abs=1.2))
    assert near[-1] - near[0] < 5


def test_a_network_for_one_person_sees_no_pairs() -> None:
    alone = LooksAtWrists()
    alone.num_person = 1
    tracks = people(drawn_people.scene_of("shake_hands", seed=1), times_of(15, 4.0))
    segments, _ = make_timelines(sequence_of(tracks), alone, CLASSES)
    assert {segment.track_ids for segment in segments} == {(1,), (2,)}


def test_windows_of_all_people_go_through_the_network_together() -> None:
    stand_in = LooksAtWrists()
    stand = MOTIONS["stand"].motion
    tracks = people(Scene(tuple(Person(stand, x=x) for x in (0.1, 0.5, 0.9)), "plain"), times_of(5, 30.0))
    make_timelines(sequence_of(tracks), stand_in, CLASSES, TimelineSettings(subjects="persons"))
    assert max(stand_in.batches) == 64, "no more at once, however long the video"
    assert sum(stand_in.batches) == 3 * (2 * 28 + 1)


def test_several_window_lengths_are_averaged() -> None:
    tracks = [raises_arms(15)]
    one, two = segments_of(tracks), segments_of(tracks, TimelineSettings(window_s=(1.0, 3.0)))
    assert [segment.class_name for segment in two] == [segment.class_name for segment in one]
    assert two[1].score != one[1].score


def test_somebody_who_is_there_for_less_than_a_window_is_answered_all_the_same() -> None:
    (track,) = people(SCENE, times_of(15, 0.8))
    late = replace(track, time_s=track.time_s + 7.3)
    (segment,) = segments_of([late])
    assert (segment.start_s, segment.stop_s) == (pytest.approx(7.3), pytest.approx(8.1))
    assert segment.class_name == "arms down"


def test_segments_of_one_person_follow_one_another_however_short_they_may_be() -> None:
    chance = np.random.default_rng(0)

    class LooksAtNothing(LooksAtWrists):
        def scores_of(self, *arguments: Any) -> Array:
            return chance.dirichlet([0.2] * len(CLASSES), len(super().scores_of(*arguments)))

    (track,) = people(SCENE, times_of(15, 3.0))
    told = 0
    for _ in range(40):
        settings = TimelineSettings(min_duration_s=0, step_s=1.0)
        segments, _ = make_timelines(sequence_of([track]), LooksAtNothing(), CLASSES, settings)
        told += len(segments)
        for one, other in pairwise(segments):
            assert one.stop_s <= other.start_s + 1e-6
    assert told > 50, "often more than one"


@pytest.mark.parametrize(("left_s", "back_s"), [(11, 15), (11, 13.3), (11.3, 13.6), (11.6, 13.9)])
def test_while_somebody_is_away_nothing_is_told(left_s: float, back_s: float) -> None:
    (track,) = people(SCENE, times_of(15, 20.0))
    away = (track.time_s > left_s) & (track.time_s < back_s)
    for values in (track.keypoint, track.keypoint_score, track.bbox):
        assert values is not None
        values[away] = 0
    before, after = segments_of([track])[-2:]
    assert before.stop_s == pytest.approx(left_s, abs=0.15)
    assert after.start_s == pytest.approx(back_s, abs=0.15)


def test_no_window_looks_across_a_cut() -> None:
    """Then the change is where the cut is, and not where half of a window has passed it."""
    track = raises_arms(15)
    seen: list[tuple[float, float]] = []

    class Notes(LooksAtWrists):
        def scores_of(self, samples: Any, img_shape: Any, num_clips: int) -> Array:
            seen.extend((float(keypoint[0, 0, 0, 1]), float(keypoint[0, -1, 0, 1])) for keypoint, _ in samples)
            return super().scores_of(samples, img_shape, num_clips)

    moved = replace(track, keypoint=np.where((track.time_s < 5)[:, None, None], track.keypoint, track.keypoint + 500))
    sequence = replace(sequence_of([moved]), cuts_s=(5.0,))
    segments, _ = make_timelines(sequence, Notes(), CLASSES)
    assert all(abs(first - last) < 100 for first, last in seen)
    assert segments[-1].stop_s == pytest.approx(12.0, abs=0.1), "and yet it is one person"
    assert {segment.track_ids for segment in segments} == {(1,)}


def test_segments_begin_and_end_with_the_person_and_not_with_a_step_of_time() -> None:
    track = raises_arms(29.97).cut(37, 233)
    segments = segments_of([track])
    assert [segment.class_name for segment in segments] == ["arms down", "arms up"]
    assert segments[0].start_s == pytest.approx(37 / 29.97, abs=1e-6)
    assert segments[-1].stop_s == pytest.approx(233 / 29.97, abs=1e-6)


def test_nobody_gives_nothing() -> None:
    absent = Track(1, 0, np.arange(30) / 15, np.zeros((30, 17, 2), np.float32), np.zeros((30, 17), np.float32))
    assert make_timelines(sequence_of([absent]), LooksAtWrists(), CLASSES) == ((), ())


def test_scores_over_time_are_kept() -> None:
    _, (timeline,) = make_timelines(sequence_of([raises_arms(15)]), LooksAtWrists(), CLASSES)
    assert timeline.track_ids == (1,)
    np.testing.assert_allclose(timeline.start_s, np.arange(24) * STEP_S)
    assert timeline.scores.shape == (24, 3)
    assert (timeline.scores[:6, 1] < 0.1).all()
    assert (timeline.scores[10:16, 1] > 0.8).all()
    _, (late,) = make_timelines(sequence_of([raises_arms(15).cut(60, 180)]), LooksAtWrists(), CLASSES)
    np.testing.assert_allclose(late.start_s, np.arange(8, 24) * STEP_S, err_msg="who comes after 4 s has none before")


def test_wrong_lengths_are_told() -> None:
    for wrong in ({"window_s": (2.0, -1.0)}, {"step_s": 0.0}, {"step_s": float("nan")}, {"window_s": ()}):
        with pytest.raises(SkelactError, match=f"{next(iter(wrong))}: expected (a number above 0|one length or)"):
            TimelineSettings(**wrong)
    with pytest.raises(SkelactError, match="expected one of both, persons, pairs, found 'crowds'"):
        TimelineSettings(subjects="crowds")


def test_the_command_line_has_the_same_defaults() -> None:
    defaults = {}
    for option in (step, min_duration):
        parameter = option(lambda: None).__click_params__[0]
        defaults[parameter.name] = float(parameter.default)
    assert defaults == {"step": STEP_S, "min_duration": MIN_DURATION_S}


# --- step by step, as a live view does ---------------------------------------------------------------------------


def test_a_live_view_sees_what_a_whole_sequence_shows() -> None:
    """Windows that stop now, their scores averaged so far, events as they happen: at most a window later."""
    track = raises_arms(15)
    grid, segmenter, events, fed = ScoreGrid(), Segmenter(CLASSES), [], []
    for now in np.arange(STEP_S, 12.01, STEP_S):
        recent = replace(track).cut(0, int(np.searchsorted(track.time_s, now)))  # nobody sees the future
        windows = windows_until([recent], float(now), 2)
        for found, scores in zip(windows, score_windows(windows, LooksAtWrists(), None), strict=True):
            grid.add(found.track_ids, found.start_s, found.stop_s, scores)
        for cell in grid.pop((1,), now - WINDOW_S / 2):
            assert cell.start_s == pytest.approx(len(fed) * STEP_S), "each step once, in order"
            fed.append(cell)
            events += [(now, event) for event in segmenter.feed((1,), cell.start_s, cell.stop_s, cell.scores)]
    events += [(12.0, event) for event in segmenter.close_all()]
    told = [(event.kind, event.class_name) for _, event in events]
    steps = [("arms down", "arms up"), ("arms up", "arms down")]
    assert told == [
        ("start", "arms down"),
        *itertools.chain(*((("end", a), ("start", b)) for a, b in steps)),
        ("end", "arms down"),
    ]
    starts = {event.start_s: now for now, event in events if event.kind == "start"}
    assert list(starts) == pytest.approx([0.0, 4.0, 9.0], abs=0.5)
    assert all(now - start <= WINDOW_S + MIN_DURATION_S for start, now in starts.items())


def test_who_has_just_come_has_a_window_once_they_are_there_for_half_of_one() -> None:
    came = raises_arms(15).cut(45, 180)  # after 3 s
    for now, spans in ((3.5, []), (3.9, []), (4.0, [(3.0, 4.0)]), (4.4, [(3.0, 4.4)]), (6.0, [(4.0, 6.0)])):
        windows = windows_until([came.cut(0, round((now - 3) * 15))], now, 2)
        assert [(window.start_s, window.stop_s) for window in windows] == [pytest.approx(span) for span in spans], now


def test_a_grid_forgets_those_who_are_gone_and_not_two_who_may_meet_again() -> None:
    grid = ScoreGrid(1.0)
    for who in ((1,), (2, 3)):
        grid.add(who, 0.0, 2.0, np.array([1.0, 0.0]))
        assert [cell.start_s for cell in grid.pop(who)] == [0.0, 1.0]
    grid.keep([], [2, 3])
    for who, starts in (((1,), [0.0, 1.0, 2.0]), ((2, 3), [2.0])):
        grid.add(who, 0.0, 3.0, np.array([1.0, 0.0]))
        assert [cell.start_s for cell in grid.pop(who)] == starts


def feed(segmenter: Segmenter, *scores: tuple[float, float], start_s: float = 0.0) -> list[tuple[str, str, float]]:
    """Scores of two classes, second by second; what that tells of person 1."""
    events = []
    for k, row in enumerate(scores):
        events += segmenter.feed((1,), start_s + k, start_s + k + 1, np.array(row))
    return [
        (event.kind, event.class_name, event.start_s if event.kind == "start" else event.stop_s) for event in events
    ]


def segmenter_with(**settings: float) -> Segmenter:
    return Segmenter(("sit", "fall"), TimelineSettings(**{"min_duration_s": 1.0, **settings}))


def test_a_class_that_is_better_by_a_hair_does_not_take_over() -> None:
    segmenter = segmenter_with(margin=0.1)
    assert feed(segmenter, (0.6, 0.4), (0.48, 0.52), (0.47, 0.53)) == [("start", "sit", 0.0)]
    assert feed(segmenter, (0.3, 0.7), start_s=3) == [("end", "sit", 3.0), ("start", "fall", 3.0)]
    assert feed(segmenter, (0.53, 0.47), start_s=4) == [], "nor does it take back"


def test_unknown_starts_below_the_threshold_and_ends_above_it() -> None:
    segmenter = segmenter_with(unknown_below=0.6, margin=0.1)
    assert feed(segmenter, (0.55, 0.45)) == [("start", "unknown", 0.0)]
    assert feed(segmenter, (0.61, 0.39), start_s=1) == [("end", "unknown", 1.0), ("start", "sit", 1.0)]
    assert feed(segmenter, (0.55, 0.45), start_s=2) == [], "a class that began goes on a little below"
    assert feed(segmenter, (0.49, 0.45), start_s=3) == [("end", "sit", 3.0), ("start", "unknown", 3.0)]


def test_unknown_tells_how_sure_the_best_class_was() -> None:
    segmenter = segmenter_with(unknown_below=0.6)
    feed(segmenter, (0.4, 0.3), (0.5, 0.3))
    (ended,) = segmenter.close((1,))
    assert (ended.class_name, ended.score) == ("unknown", pytest.approx(0.45))


def test_what_grew_sure_slowly_began_where_it_was_nearly_so() -> None:
    segmenter = segmenter_with(unknown_below=0.6, margin=0.1)
    assert feed(segmenter, (0.3, 0.2), (0.55, 0.4), (0.4, 0.52), (0.35, 0.58)) == [("start", "unknown", 0.0)]
    assert feed(segmenter, (0.2, 0.8), start_s=4) == [("end", "unknown", 2.0), ("start", "fall", 2.0)]
    (event,) = segmenter.close((1,))
    assert (event.start_s, event.stop_s, event.score) == (2.0, 5.0, pytest.approx((0.52 + 0.58 + 0.8) / 3))


def test_a_class_that_is_called_unknown_is_that_answer() -> None:
    segmenter = Segmenter(("unknown", "fall"), TimelineSettings(min_duration_s=1.0, unknown_below=0.5))
    assert feed(segmenter, (0.8, 0.2), (0.7, 0.3)) == [("start", "unknown", 0.0)]
    assert feed(segmenter, (0.2, 0.3), start_s=2) == [], "of low scores it goes on"
    assert feed(segmenter, (0.1, 0.9), (0.1, 0.9), start_s=3) == [("end", "unknown", 3.0), ("start", "fall", 3.0)]


def test_what_was_unknown_too_shortly_is_gone_once_it_is_known() -> None:
    segmenter = segmenter_with(unknown_below=0.6, margin=0.1, min_duration_s=2.0)
    assert feed(segmenter, (0.9, 0.1), (0.8, 0.1)) == [("start", "sit", 0.0)]
    assert feed(segmenter, (0.4, 0.55), (0.2, 0.8), start_s=2) == [("end", "sit", 2.0), ("start", "fall", 2.0)]
    segmenter.close_all()
    assert feed(segmenter, (0.4, 0.55), (0.2, 0.8), start_s=9) == [("start", "fall", 9.0)]


def test_what_was_told_as_unknown_all_along_stays_so() -> None:
    segmenter = segmenter_with(unknown_below=0.6, margin=0.1)
    assert feed(segmenter, (0.4, 0.55), (0.2, 0.8)) == [
        ("start", "unknown", 0.0),
        *[("end", "unknown", 1.0), ("start", "fall", 1.0)],
    ]


def test_what_lasts_too_shortly_is_part_of_what_was_before() -> None:
    segmenter = segmenter_with(min_duration_s=2.0)
    assert feed(segmenter, (0.9, 0.1), (0.9, 0.1)) == [("start", "sit", 0.0)]
    assert feed(segmenter, (0.1, 0.9), (0.9, 0.1), (0.1, 0.9), start_s=2) == []
    (event,) = segmenter.close((1,))
    assert (event.class_name, event.start_s, event.stop_s) == ("sit", 0.0, 5.0)
    assert event.score == pytest.approx((4 * 0.9 - 0.9 + 2 * 0.1) / 5), "a mean over all of it"


def test_many_things_that_do_not_last_are_not_part_of_what_was_before() -> None:
    segmenter = Segmenter(("sit", "fall", "wave"), TimelineSettings(min_duration_s=1.0))
    told = []
    for k, best in enumerate([0, 0, 0, 1, 1, 2, 2, 1, 1, 0, 0, 0]):
        told += segmenter.feed((1,), 0.4 * k, 0.4 * (k + 1), np.eye(3)[best])
    told += segmenter.close_all()
    ended = [(event.class_name, event.start_s, event.stop_s) for event in told if event.kind == "end"]
    assert ended == [
        ("sit", 0.0, pytest.approx(1.2)),
        ("unknown", pytest.approx(1.2), pytest.approx(3.6)),
        ("sit", pytest.approx(3.6), pytest.approx(4.8)),
    ]


def test_somebody_who_is_not_there_any_more_does_nothing_any_more() -> None:
    """Pickles have zeros for the rest of a sample."""
    track = raises_arms(30.0)
    keypoint = track.keypoint.copy()
    keypoint[30:] = 0
    assert max(segment.stop_s for segment in segments_of([replace(track, keypoint=keypoint)])) == pytest.approx(1.0)


def test_what_lasts_too_shortly_at_first_does_not_move_the_start_of_what_comes_next() -> None:
    segmenter = segmenter_with(min_duration_s=2.0)
    assert feed(segmenter, (0.9, 0.1)) == []
    assert feed(segmenter, (0.1, 0.9), (0.1, 0.9), start_s=1) == [("start", "fall", 1.0)]
    (event,) = segmenter.close((1,))
    assert (event.start_s, event.score) == (1.0, pytest.approx(0.9))


def test_what_is_told_late_started_when_it_did() -> None:
    segmenter = segmenter_with(min_duration_s=3.0)
    assert feed(segmenter, (0.9, 0.1), (0.9, 0.1), (0.9, 0.1)) == [("start", "sit", 0.0)]
    assert feed(segmenter, (0.1, 0.9), (0.1, 0.9), start_s=3) == []
    assert feed(segmenter, (0.1, 0.9), start_s=5) == [("end", "sit", 3.0), ("start", "fall", 3.0)]


def test_a_pause_ends_a_segment_and_a_short_one_does_not() -> None:
    segmenter = segmenter_with()
    assert feed(segmenter, (0.9, 0.1)) == [("start", "sit", 0.0)]
    assert feed(segmenter, (0.9, 0.1), start_s=2.0) == [], "gone for a second"
    assert feed(segmenter, (0.9, 0.1), start_s=6.0) == [("end", "sit", 3.0), ("start", "sit", 6.0)]


def test_open_segments_tell_what_goes_on() -> None:
    segmenter = segmenter_with()
    feed(segmenter, (0.9, 0.1), (0.7, 0.3))
    (event,) = segmenter.open_segments().values()
    assert (event.class_name, event.stop_s, event.score) == ("sit", 2.0, pytest.approx(0.8))
    assert [event.kind for event in segmenter.close_all()] == ["end"]
    assert segmenter.open_segments() == {}


def test_somebody_seen_for_a_moment_gets_their_segment_at_the_end() -> None:
    segmenter = segmenter_with(min_duration_s=3.0)
    assert feed(segmenter, (0.2, 0.8)) == []
    assert [(event.kind, event.class_name) for event in segmenter.close((1,))] == [("start", "fall"), ("end", "fall")]


def test_windows_count_most_in_their_middle() -> None:
    grid = ScoreGrid(1.0)
    grid.add((1,), 0.0, 3.0, np.array([1.0, 0.0]))
    grid.add((1,), 1.0, 4.0, np.array([0.0, 1.0]))
    cells = grid.pop((1,))
    assert [cell.start_s for cell in cells] == [0.0, 1.0, 2.0, 3.0]
    assert [cell.scores[0] for cell in cells] == pytest.approx([1.0, 0.75, 0.25, 0.0])
    assert grid.subjects == []


def test_windows_end_at_both_ends_of_a_track() -> None:
    (track,) = people(SCENE, times_of(15, 5.2))
    late = replace(track, time_s=track.time_s + 0.3)
    spans = [(round(w.start_s, 3), round(w.stop_s, 3)) for w in lay_windows([late], 1)]
    assert spans == [(0.3, 2.3), *((k / 2, k / 2 + 2) for k in range(1, 7)), (3.5, 5.5)]
