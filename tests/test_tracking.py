"""Stories of people in front of a camera: they cross, leave and return, flicker, or are not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import drawn_people
import numpy as np
import pytest
from drawn_people import MOTIONS, Person, Scene

from skelact.errors import SkelactError
from skelact.linking import box_iou, clothes_colour
from skelact.persons import centre_distance, main_persons, rank_tracks, track_weight
from skelact.skeleton import COCO
from skelact.structures import Array, FramePoses, Track
from skelact.tracking import TRACKERS, Mending, Tracker, build_tracks, stretch

FPS = 30.0
SIZE = (640, 360)  # width, height
IMG_SHAPE = (360, 640)


def seen(
    scene: drawn_people.Scene, seconds: float, order_seed: int = 0, fps: float = FPS
) -> Iterator[tuple[FramePoses, Array, Array]]:
    """What an honest estimator reports of drawn people: jittered, shuffled in each frame, blind behind others.

    Yields:
        The poses, who each of them is (index in the scene), and the picture.
    """
    rng, order = np.random.default_rng(0), np.random.default_rng(order_seed)
    for t, (image, keypoint, bbox) in enumerate(drawn_people.render(scene, int(seconds * fps), fps, SIZE)):
        visible = []
        for n, box in enumerate(bbox):
            inside = np.clip(box, 0, [SIZE[0], SIZE[1]] * 2)
            area = np.prod(box[2:] - box[:2])
            if np.prod(inside[2:] - inside[:2]) < 0.6 * area:
                continue
            hidden = max((overlap(box, other) for other in bbox[n + 1 :]), default=0.0)
            if hidden < 0.7:
                visible.append(n)
        who = order.permutation(np.array(visible, np.int64))
        height = (bbox[who, 3] - bbox[who, 1])[:, None]
        noise = rng.normal(0, 0.01, (len(bbox), 17, 2))[who] * height[:, None]
        poses = FramePoses(
            frame_index=t,
            time_s=t / fps,
            keypoint=(keypoint[who] + noise).astype(np.float32),
            keypoint_score=np.full((len(who), 17), 0.9, np.float32),
            bbox=(bbox[who] + rng.normal(0, 0.01, (len(bbox), 4))[who] * height).astype(np.float32),
            bbox_score=np.full(len(who), 0.85, np.float32),
        )
        yield poses, who, image


def overlap(box: Array, other: Array) -> float:
    """The share of a box that another covers."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return float(np.prod(np.clip(sides, 0, None)) / np.prod(box[2:] - box[:2]))


def follow(
    frames: list[FramePoses], images: list[Array] | None = None, tracker: str = "bytetrack"
) -> tuple[Track, ...]:
    tracking = Tracker(tracker, FPS)
    blank = np.zeros((*IMG_SHAPE, 3), np.uint8)
    ids = [tracking.update(poses, blank if images is None else images[t]) for t, poses in enumerate(frames)]
    colours = images and [clothes_colour(image, poses.keypoint) for image, poses in zip(images, frames, strict=True)]
    return build_tracks(frames, ids, FPS, colours)


def identities(track: Track, frames: list[FramePoses], who: list[Array]) -> list[int]:
    """Who a track really shows, frame by frame, where it shows a detection."""
    found = []
    for t in range(track.start_frame, track.stop_frame):
        same = np.flatnonzero((frames[t].keypoint == track.keypoint[t - track.start_frame]).all(axis=(1, 2)))
        found += [int(who[t][i]) for i in same]
    return found


def lost(poses: FramePoses) -> FramePoses:
    """The same frame with nobody in it."""
    found = (poses.keypoint, poses.keypoint_score, poses.bbox, poses.bbox_score)
    return FramePoses(poses.frame_index, poses.time_s, *(values[:0] for values in found))


def only(poses: FramePoses, kept: Array) -> FramePoses:
    """The same frame with some of its people."""
    return replace(
        poses,
        **{name: getattr(poses, name)[kept] for name in ("keypoint", "keypoint_score", "bbox", "bbox_score")},
    )


def flicker(poses: FramePoses, position: tuple[float, float], score: float) -> FramePoses:
    """The same frame with a false detection added."""
    x, y = position
    keypoint = np.random.default_rng(0).uniform((x, y), (x + 40, y + 100), (1, 17, 2)).astype(np.float32)
    box = np.array([[x, y, x + 40, y + 100]], np.float32)
    return FramePoses(
        poses.frame_index,
        poses.time_s,
        np.concatenate([poses.keypoint, keypoint]),
        np.concatenate([poses.keypoint_score, np.full((1, 17), score, np.float32)]),
        np.concatenate([poses.bbox, box]),
        np.concatenate([poses.bbox_score, np.array([score], np.float32)]),
    )


@pytest.mark.parametrize("tracker", TRACKERS)
def test_two_people_who_cross_keep_their_tracks(tracker: str) -> None:
    frames, who, images = map(list, zip(*seen(drawn_people.crossing(), 4.0), strict=True))
    tracks = follow(frames, images, tracker)
    assert len(tracks) == 2
    shown = [identities(track, frames, who) for track in tracks]
    assert [set(found) for found in shown] == [{0}, {1}] or [set(found) for found in shown] == [{1}, {0}]
    assert all(len(found) > 75 for found in shown), "each is in most frames of the crossing"


def test_a_person_is_there_from_the_first_frame_they_are_seen_in() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.stand_and_walk(), 2.0), strict=True))
    empty = FramePoses(
        0, 0, np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32), np.zeros((0, 4)), np.zeros(0)
    )
    tracks = follow([empty] * 5 + frames)
    assert [track.start_frame for track in tracks] == [5, 5]


def test_one_who_leaves_and_returns_is_the_same_person() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.leave_and_return(), 6.0), strict=True))
    away = [t for t, poses in enumerate(frames) if not len(poses.bbox)]
    assert len(away) > 20, "the story needs an absence"
    (track,) = follow(frames)
    assert track.num_frames == len(frames)
    assert not track.present[away].any(), "nobody is invented while they are away"
    assert not track.keypoint_score[away].any()


def test_a_false_detection_that_flickers_is_nobody() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.scene_of("wave"), 3.0), strict=True))
    for t in (20, 21, 22, 23, 60, 61):
        frames[t] = flicker(frames[t], (30, 30), 0.6)
    for t in range(5, 85):
        frames[t] = flicker(frames[t], (560, 200), 0.26)
    (track,) = follow(frames)
    assert track.num_frames == 90


def test_an_arm_taken_for_a_second_person_for_a_second_is_nobody() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.scene_of("wave"), 5.0), strict=True))
    body = frames[0].bbox[0]
    inside = (float(body[0]) + 5, float(body[1] + body[3]) / 2 - 50)
    for t in range(40, 70):
        frames[t] = flicker(frames[t], inside, 0.4)
    (track,) = follow(frames)
    assert track.num_frames == 150
    for t in range(40, 70):  # joints that are well seen are somebody's
        frames[t].keypoint_score[frames[t].keypoint_score == np.float32(0.4)] = 0.8
    assert len(follow(frames)) == 2


@pytest.mark.parametrize(("seconds", "score", "people"), [(1.0, 0.4, 1), (1.0, 0.6, 2), (2.0, 0.4, 2)])
def test_a_double_that_moves_is_nobody_if_it_is_short_and_doubtful(seconds: float, score: float, people: int) -> None:
    """Joints here and there in the box of somebody who is seen much longer."""
    frames, ids = [], []
    for poses, *_ in seen(drawn_people.scene_of("wave"), 9.0):
        twice = np.array([0, 0] if 60 <= poses.frame_index < 60 + seconds * FPS else [0])
        doubled = only(poses, twice)
        doubled.keypoint[1:] += 12 * np.sin(poses.frame_index / 3)
        doubled.keypoint[1:, ::2] -= 25
        doubled.keypoint_score[1:] = score
        frames.append(doubled)
        ids.append(np.array([1, 2])[: len(twice)])
    assert len(build_tracks(frames, ids, FPS)) == people


@pytest.mark.parametrize(("motion", "score", "people"), [("stand", 0.4, 1), ("stand", 0.6, 2), ("walk", 0.4, 2)])
def test_clothes_on_a_wall_are_nobody(motion: str, score: float, people: int) -> None:
    """What stays where it is and is seen with doubt; who is seen well may stand, and who is seen with doubt may go."""
    waver = Person(MOTIONS["wave"].motion, x=0.7)
    other = Person(MOTIONS[motion].motion, x=0.1, yaw=90)
    frames = []
    for poses, who, _ in seen(Scene((waver, other), "plain", 0), 3):
        joints = np.where(who[:, None] == 1, score, poses.keypoint_score)
        frames.append(replace(poses, keypoint_score=joints.astype(np.float32)))
    assert len(follow(frames)) == people


def two_apart(seconds: float) -> tuple[list[FramePoses], list[Array]]:
    """Somebody who waves on the right, and somebody who walks on the left; and which is which, as 1 and 2."""
    waver, walker = Person(MOTIONS["wave"].motion, x=0.7), Person(MOTIONS["walk"].motion, x=0.1, yaw=90)
    frames, who, _ = map(list, zip(*seen(Scene((waver, walker), "plain", 0), seconds), strict=True))
    return frames, [numbers + 1 for numbers in who]


def test_people_are_numbered_from_left_to_right() -> None:
    frames, ids = two_apart(1)
    left, right = build_tracks(frames, ids, FPS)
    assert left.bbox is not None
    assert right.bbox is not None
    assert left.bbox[0, 2] < right.bbox[0, 0]
    assert (left.track_id, right.track_id) == (1, 2)


@pytest.mark.parametrize(("score", "people"), [(0.25, 1), (0.4, 2)])
def test_whose_box_is_never_sure_is_nobody(score: float, people: int) -> None:
    frames, ids = two_apart(2)
    scores = [np.where(numbers == 2, score, 0.85).astype(np.float32) for numbers in ids]
    doubtful = [replace(poses, bbox_score=each) for poses, each in zip(frames, scores, strict=True)]
    assert len(build_tracks(doubtful, ids, FPS)) == people


@pytest.mark.parametrize(("length", "people"), [(6, 1), (14, 2)])
def test_what_comes_up_for_a_moment_again_and_again_is_nobody(length: int, people: int) -> None:
    """Three times in four seconds, which together is long enough to be somebody."""
    waver, stander = Person(MOTIONS["wave"].motion, x=0.7), Person(MOTIONS["stand"].motion, x=0.1)
    frames, ids = [], []
    for poses, who, _ in seen(Scene((waver, stander), "plain", 0), 4.5):
        kept = (who == 0) | (poses.frame_index % 57 < length)
        frames.append(only(poses, kept))
        ids.append(who[kept] + 1)
    assert len(build_tracks(frames, ids, FPS)) == people


def test_a_poster_where_somebody_left_is_not_how_they_go_on() -> None:
    waver = Person(MOTIONS["wave"].motion, x=0.5)
    frames, ids = [], []
    for poses, who, _ in seen(Scene((waver,), "plain", 0), 3):
        left = poses.frame_index >= 60
        frames.append(replace(poses, keypoint_score=np.full((1, 17), 0.1 if left else 0.9, np.float32)))
        ids.append(who + (2 if left else 1))
    (track,) = build_tracks(frames, ids, FPS)
    assert track.stop_frame == 60


def test_who_fell_is_followed_though_hardly_seen() -> None:
    """Estimators are unsure of people who lie, and trackers let go of what is unsure."""
    frames, *_ = map(list, zip(*seen(drawn_people.scene_of("fall"), 3.0), strict=True))
    for t in range(40, 90):
        unsure = replace(frames[t], bbox_score=np.full(1, 0.15, np.float32))
        frames[t] = unsure if t % 6 == 0 else lost(unsure)
    (track,) = follow(frames)
    assert track.stop_frame == 85, "the last that is seen"
    assert track.present.all(), "and short gaps are filled"


def test_who_leaves_does_not_go_on_as_a_part_of_somebody_else() -> None:
    """A second, unsure box on one who stands is not the one who was lost in front of them."""
    waver = Person(MOTIONS["wave"].motion, x=0.5)
    other = Person(MOTIONS["stand"].motion, x=0.42)
    frames = []
    for poses, who, _ in seen(Scene((waver, other), "plain", 0), 3):
        gone = (who == 1) & (poses.frame_index >= 45)
        on_waver = poses.bbox[who == 0][0] if (who == 0).any() else poses.bbox[0]
        bbox = np.where(gone[:, None], on_waver, poses.bbox).astype(np.float32)
        frames.append(replace(poses, bbox=bbox, bbox_score=np.where(gone, 0.15, poses.bbox_score).astype(np.float32)))
    stops = sorted(track.stop_frame for track in follow(frames))
    assert stops == [45, 90]


def test_nobody_is_there() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.nobody(), 1.0), strict=True))
    assert follow(frames) == ()


def test_a_single_frame_shows_a_person() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.scene_of("wave"), 1 / FPS), strict=True))
    (track,) = follow(frames)
    assert track.num_frames == 1


def test_short_gaps_are_interpolated_and_long_ones_left_empty() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.scene_of("walk"), 3.0), strict=True))
    whole = follow(frames)[0]

    for t in (*range(20, 29), *range(50, 60)):
        frames[t] = lost(frames[t])
    (track,) = follow(frames)
    assert track.present[20:29].all()
    error = np.linalg.norm(track.keypoint[20:29] - whole.keypoint[20:29], axis=-1)
    assert error.mean() < 0.05 * 270, "joints between two known frames are near their real places"
    assert not track.present[50:60].any()


def test_who_is_looked_for_in_every_third_frame_is_in_all() -> None:
    """They come in the third of these frames and are missed in the fifth; from the last on they stay as they were."""
    walks = person(100, 200, range(4))
    walks.keypoint[..., 0] = np.array([30, 60, 0, 120], np.float32)[:, None]
    for values in (walks.keypoint, walks.keypoint_score, walks.bbox, walks.bbox_score):
        values[2] = 0  # type: ignore[index]
    times = np.arange(20) / FPS
    whole = stretch(replace(walks, start_frame=2), 3, times)
    assert (whole.start_frame, whole.stop_frame) == (6, 18)
    np.testing.assert_array_equal(whole.time_s, times[6:18])
    np.testing.assert_allclose(whole.keypoint[:, 5, 0], [30, 40, 50, 60, 0, 0, 0, 0, 0, 120, 120, 120], atol=1e-4)
    assert whole.bbox is not None
    assert whole.bbox_score is not None
    np.testing.assert_array_equal(whole.bbox.any(axis=1), whole.present)
    assert np.flatnonzero(whole.bbox_score).tolist() == [0, 3, 9], "frames in which they were really found"
    assert stretch(replace(walks, start_frame=2), 3, times[:17]).stop_frame == 17, "as far as the video goes"


def test_two_who_hug_are_two() -> None:
    frames, who, _ = map(list, zip(*seen(drawn_people.scene_of("hug"), 3.0), strict=True))
    ids = [numbers + 1 for numbers in who]
    assert len(build_tracks(frames, ids, FPS)) == 2


@pytest.mark.parametrize("seed", range(3))
def test_two_who_hug_and_step_back_are_not_swapped(seed: int) -> None:
    """The tracker mixes them up when both are seen again; going on as they came would be walking through each other."""
    frames, who, _ = map(list, zip(*seen(drawn_people.scene_of("hug", seed=seed), 4.0), strict=True))
    alone = [t for t, numbers in enumerate(who) if len(numbers) == 1]
    assert len(alone) > 30, "the story needs one to be hidden"
    ids = [1 + (numbers if t <= alone[-1] else 1 - numbers) for t, numbers in enumerate(who)]
    shown = [set(identities(track, frames, who)) for track in build_tracks(frames, ids, FPS)]
    assert shown in ([{0}, {1}], [{1}, {0}])


def test_mending_can_be_switched_off() -> None:
    frames, *_ = map(list, zip(*seen(drawn_people.leave_and_return(), 6.0), strict=True))
    tracking = Tracker(fps=FPS)
    ids = [tracking.update(poses, np.zeros((*IMG_SHAPE, 3), np.uint8)) for poses in frames]
    assert len(build_tracks(frames, ids, FPS, mending=Mending(max_pause_s=0.0))) >= 2


def person(x: float, height: float, frames: range, moves: float = 0.0, score: float = 0.9, track_id: int = 1) -> Track:
    """A track in a 640 x 360 picture: somebody at x, so tall, waving so many heights per second."""
    T = len(frames)
    time_s = np.arange(frames.start, frames.stop) / FPS
    keypoint = np.zeros((T, 17, 2), np.float32)
    keypoint[..., 0] = x + (moves * height * time_s % height)[:, None]
    keypoint[..., 1] = np.linspace(350 - height, 350, 17)
    return Track(
        track_id=track_id,
        start_frame=frames.start,
        time_s=time_s,
        keypoint=keypoint,
        keypoint_score=np.full((T, 17), score, np.float32),
        bbox=np.tile(np.array([x - height / 4, 350 - height, x + height / 4, 350], np.float32), (T, 1)),
        bbox_score=np.full(T, score, np.float32),
    )


def test_who_is_longer_larger_surer_and_moves_comes_first() -> None:
    normal = person(300, 200, range(90), track_id=1)
    for other in (
        person(320, 200, range(30), track_id=2),
        person(320, 90, range(90), track_id=2),
        person(320, 200, range(90), score=0.4, track_id=2),
    ):
        assert [t.track_id for t in rank_tracks([other, normal], IMG_SHAPE, 90)] == [1, 2]
    mover = person(320, 200, range(90), moves=0.5, track_id=2)
    assert [t.track_id for t in rank_tracks([normal, mover], IMG_SHAPE, 90)] == [2, 1]


def test_the_second_slot_goes_to_who_is_near_and_a_far_bystander_gets_none() -> None:
    actor = person(100, 220, range(90), moves=0.5, track_id=1)
    partner = person(180, 200, range(90), track_id=2)
    bystander = person(600, 210, range(90), track_id=3)
    ranked = rank_tracks([bystander, partner, actor], IMG_SHAPE, 90)
    assert [t.track_id for t in ranked] == [1, 2, 3]
    assert [t.track_id for t in main_persons(ranked, IMG_SHAPE, 90, 2)] == [1, 2]
    alone = rank_tracks([bystander, actor], IMG_SHAPE, 90)
    assert [t.track_id for t in main_persons(alone, IMG_SHAPE, 90, 2)] == [1]


def test_presence_counts_more_than_size() -> None:
    """Of height it is the square root that counts: half as high for all of the time is more than half of the time."""
    small, large = person(300, 50, range(90), track_id=1), person(320, 200, range(36), track_id=2)
    assert [t.track_id for t in rank_tracks([large, small], IMG_SHAPE, 90)] == [1, 2]


def test_who_moves_weighs_the_same_at_any_frame_rate() -> None:
    mover = person(320, 200, range(90), moves=0.5)
    arrays = ("time_s", "keypoint", "keypoint_score", "bbox", "bbox_score")
    slower = replace(mover, **{name: getattr(mover, name)[::2] for name in arrays})
    assert track_weight(slower, IMG_SHAPE, 45) == pytest.approx(track_weight(mover, IMG_SHAPE, 90), rel=0.01)
    still = person(320, 200, range(90))
    assert track_weight(mover, IMG_SHAPE, 90) == pytest.approx(1.5 * track_weight(still, IMG_SHAPE, 90), rel=0.01)


@pytest.mark.parametrize(("frames", "slots"), [(range(15), [1]), (range(30), [1, 2])])
def test_who_weighs_less_than_a_quarter_gets_no_slot(frames: range, slots: list[int]) -> None:
    actor, passer = person(300, 200, range(90), track_id=1), person(340, 200, frames, track_id=2)
    assert [t.track_id for t in main_persons([actor, passer], IMG_SHAPE, 90, 2)] == slots


def test_who_comes_near_at_some_time_gets_a_slot() -> None:
    actor, comes = person(100, 100, range(90), track_id=1), person(600, 100, range(90), track_id=2)
    assert [t.track_id for t in main_persons([actor, comes], IMG_SHAPE, 90, 2)] == [1]
    way = np.where(np.arange(90) < 80, 0, -350).astype(np.float32)[:, None]
    assert comes.bbox is not None
    arrives = replace(comes, keypoint=comes.keypoint + way[..., None] * [1, 0], bbox=comes.bbox + way * [1, 0, 1, 0])
    assert centre_distance(actor, arrives) > 2
    assert [t.track_id for t in main_persons([actor, arrives], IMG_SHAPE, 90, 2)] == [1, 2]


def test_the_order_of_detections_does_not_change_the_slots() -> None:
    ranked = []
    for order_seed in range(3):
        frames, *_ = map(list, zip(*seen(drawn_people.scene_of("shake_hands"), 3.0, order_seed), strict=True))
        ranked.append(rank_tracks(follow(frames), IMG_SHAPE, len(frames)))
    assert len(ranked[0]) == 2
    for other in ranked[1:]:
        for a, b in zip(ranked[0], other, strict=True):
            np.testing.assert_array_equal(a.keypoint, b.keypoint)


def test_people_who_never_share_a_frame_are_infinitely_far() -> None:
    assert centre_distance(person(100, 200, range(30)), person(100, 200, range(30, 60))) == float("inf")


@pytest.mark.parametrize("fps", [10.0, 30.0, 60.0])
def test_a_tracker_waits_for_a_second_at_any_frame_rate(fps: float) -> None:
    """ultralytics counts frames, of which it thinks that there are 30 a second."""

    def numbers(away_s: float) -> set[int]:
        tracker = Tracker(fps=fps)
        box, nobody = np.array([[300, 100, 360, 300]], np.float32), np.zeros((0, 4), np.float32)
        found = []
        for t in range(round((2 + away_s) * fps)):
            bbox = nobody if 1 <= t / fps < 1 + away_s else box
            N = len(bbox)
            poses = FramePoses(t, t / fps, np.zeros((N, 17, 2)), np.ones((N, 17)), bbox, np.full(N, 0.9, np.float32))
            found += tracker.update(poses, np.zeros((*IMG_SHAPE, 3), np.uint8)).tolist()
        return set(found) - {0}

    assert len(numbers(0.7)) == 1
    assert len(numbers(1.4)) == 2


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="neither a YAML file nor one of bytetrack"):
        Tracker("kalman9000")
    other = tmp_path / "mine.yaml"
    other.write_text("tracker_type: mine\n")
    with pytest.raises(SkelactError, match="whose tracker_type is bytetrack"):
        Tracker(str(other))


# --- who is who, by hand -----------------------------------------------------------------------------------------

BODY = np.linspace([-20, -75], [20, 75], 17)
RED, BLUE, DARK = [50.0, 60, 40] * 2, [40.0, 10, -50] * 2, [np.nan] * 6


def standing(t: int, *places: float, fps: float = FPS, heights: Sequence[float] = ()) -> FramePoses:
    """People at these places, 150 px high if nothing else is said."""
    N = len(places)
    size = np.array(heights or [150.0] * N)[:, None] / 150
    centre = np.array([(x, 180.0) for x in places]).reshape(N, 2)
    bbox = np.hstack([centre - size * [30, 75], centre + size * [30, 75]]).astype(np.float32)
    keypoint = (centre[:, None] + size[..., None] * BODY).astype(np.float32)
    return FramePoses(t, t / fps, keypoint, np.full((N, 17), 0.9, np.float32), bbox, np.full(N, 0.9, np.float32))


def middles(track: Track, *frames: int) -> list[int]:
    """Where somebody stands in these frames."""
    return [round(float(track.keypoint[t - track.start_frame, :, 0].mean())) for t in frames]


def test_clothes_are_those_of_trunk_and_thighs() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[40:100, 220:280], image[100:160, 220:280] = (0, 0, 255), (255, 0, 0)  # red and blue
    keypoint = np.zeros((2, 17, 2))
    for joint, y in (("shoulder", 40), ("hip", 100), ("knee", 160)):
        for side, x in (("left", 260), ("right", 240)):
            keypoint[:, COCO.joints.index(f"{side}_{joint}")] = x, y
    keypoint[1, :, 0] += 300  # outside of the picture
    first, second = clothes_colour(image, keypoint)
    assert first == pytest.approx([53.2, 80.1, 67.2, 32.3, 79.2, -107.9], abs=0.2)
    assert np.isnan(second).all()


@pytest.mark.parametrize("fps", [10.0, 20.0])
@pytest.mark.parametrize(
    ("away_s", "beside", "people"), [(2.6, False, 1), (3.4, False, 2), (8.0, True, 1), (10.5, True, 2)]
)
def test_who_is_away_for_too_long_comes_back_as_somebody_new(
    away_s: float, beside: bool, people: int, fps: float
) -> None:
    """Three seconds in the open, ten behind somebody."""
    frames, ids = [], []
    for t in range(round((2 + away_s) * fps)):
        there = not 1 <= t / fps < 1 + away_s
        frames.append(standing(t, *([200.0] if beside else []), *([225.0] if there else []), fps=fps))
        who = 1 if t / fps < 1 else 2
        ids.append(np.array([*([3] if beside else []), *([who] if there else [])], np.int64))
    assert len(build_tracks(frames, ids, fps)) == people + beside


@pytest.mark.parametrize(("place", "away_s", "people"), [(260.0, 0.5, 1), (600.0, 0.5, 2), (900.0, 2.5, 1)])
def test_who_turns_up_elsewhere_is_somebody_else_unless_there_was_time(
    place: float, away_s: float, people: int
) -> None:
    comes = 40 + round(away_s * FPS)
    frames = [standing(t, *([200.0] if t < 40 else [place] if t >= comes else [])) for t in range(comes + 45)]
    ids = [np.array([1 + (poses.frame_index >= comes)] * len(poses.bbox), np.int64) for poses in frames]
    assert len(build_tracks(frames, ids, FPS)) == people


def test_two_who_were_away_are_known_by_their_size() -> None:
    """The tall one comes back nearer to where the small one was, and the other way round."""
    frames = []
    for t in range(110):
        places = (200, 260) if t < 40 else (245, 215) if t >= 70 else ()
        frames.append(standing(t, *places, heights=(150, 105)[: len(places)]))
    ids = [np.array([1, 2] if t < 40 else [2, 1])[: len(poses.bbox)] for t, poses in enumerate(frames)]
    tracks = build_tracks(frames, ids, FPS)
    assert [middles(track, 0, 109) for track in tracks] == [[200, 245], [260, 215]]


@pytest.mark.parametrize(("away", "back"), [(45, 75), (61, 61)], ids=["behind a wall", "in front of each other"])
def test_two_who_pass_each_other_go_on_as_they_went(away: int, back: int) -> None:
    """The tracker swaps them when both come out from behind a wall, or where they are at one place."""
    frames = []
    for t in range(120):
        places = (170 + 3 * t, 530 - 3 * t)  # they meet at the sixtieth frame
        frames.append(standing(t, *(places if not away <= t < back else ())))
    ids = [np.array([1, 2] if t < away else [2, 1])[: len(poses.bbox)] for t, poses in enumerate(frames)]
    tracks = build_tracks(frames, ids, FPS)
    assert [middles(track, 0, 119) for track in tracks] == [[170, 527], [530, 173]]


@pytest.mark.parametrize("on_hands", [True, False])
def test_posture_and_the_tracker_tell_two_apart_who_are_as_near(on_hands: bool) -> None:
    """Lost for a moment, each is then a little nearer to where the other was; the tracker mixes them up if one of them
    stands on their hands."""
    frames, ids = [], []
    for t in range(90):
        poses = standing(t, *((200, 236) if t < 40 else (220, 216) if t >= 43 else ()))
        if on_hands:
            poses.keypoint[1:, :, 1] = 360 - poses.keypoint[1:, :, 1]
        frames.append(poses)
        ids.append(np.array([2, 1] if on_hands and t >= 43 else [1, 2])[: len(poses.bbox)])
    tracks = build_tracks(frames, ids, FPS)
    assert [middles(track, 0, 89) for track in tracks] == [[200, 220], [236, 216]]


def test_who_is_seen_now_and_then_beside_another_is_one_person() -> None:
    """Two walk side by side; for a while one of them is seen for three frames in five, as somebody new each time, and
    once there is somebody for a moment on the other side."""
    frames, ids = [], []
    for t in range(90):
        first, second, third = 100 + 3 * t, 125 + 3 * t, 65 + 3 * t
        seen_now = {first: 1}
        if not 30 <= t < 50 or t % 5 < 3:
            seen_now[second] = 2 if t < 30 else 3 if t >= 50 else t // 5 + 4
        if t in (43, 44):
            seen_now[third] = 20
        frames.append(standing(t, *seen_now))
        ids.append(np.array([*seen_now.values()]))
    first_track, second_track = build_tracks(frames, ids, FPS)
    for track, start in ((first_track, 100), (second_track, 125)):
        assert track.present.all()
        assert middles(track, *range(90)) == [start + 3 * t for t in range(90)]


def test_boxes_that_do_not_touch_share_nothing() -> None:
    box = np.array([0.0, 0, 10, 10])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [10, 0, 20, 10], [3, 3, 3, 3]], float)
    assert box_iou(box, others) == pytest.approx([1, 1 / 3, 0, 0, 0])


def test_clothes_that_are_seen_where_somebody_is_hidden_are_not_theirs() -> None:
    """One in blue steps behind one in red, both are lost for a moment, and stand in the other order afterwards."""
    frames, ids, colours = [], [], []
    for t in range(110):
        behind = max(262 - 2.3 * t, 215)
        places = (200, behind) if t < 60 else (232, 190)
        there = 2 * (not 60 <= t < 66)
        frames.append(standing(t, *places[:there], heights=(150, 148)[:there]))
        ids.append(np.array([1, 2] if t < 60 else [2, 1])[:there])
        colours.append(np.array([RED, RED if t < 60 and behind < 230 else BLUE])[:there])
    tracks = build_tracks(frames, ids, FPS, colours)
    assert [middles(track, 0, 109) for track in tracks] == [[200, 232], [262, 190]]


def test_clothes_of_before_and_after_tell_two_apart_who_came_close_in_the_dark() -> None:
    frames, ids, colours = [], [], []
    for t in range(110):
        # They stand a step apart, are lost for a moment, seen without colours, lost again; then they changed sides.
        places, clothes = {0: ((200, 230), (RED, BLUE)), 1: ((205, 225), (DARK, DARK)), 2: ((219, 211), (RED, BLUE))}[
            (t >= 42) + (t >= 65)
        ]
        there = 2 * (t not in (40, 41, 63, 64))
        frames.append(standing(t, *places[:there]))
        ids.append(np.array([1, 2] if t < 65 else [2, 1])[:there])
        colours.append(np.array(clothes)[:there])
    tracks = build_tracks(frames, ids, FPS, colours)
    assert [middles(track, 0, 109) for track in tracks] == [[200, 219], [230, 211]]


@pytest.mark.parametrize(("after", "people"), [(RED, 1), (BLUE, 2), (DARK, 2)], ids=["red", "blue", "dark"])
def test_after_a_cut_those_are_the_same_who_wear_the_same(after: list[float], people: int) -> None:
    """The next shot has somebody about where the last one had."""
    frames = [standing(t, 200.0 if t < 40 else 220.0) for t in range(80)]
    colours = [np.array([RED if t < 40 else after]) for t in range(80)]
    ids = [np.array([1])] * len(frames)
    assert len(build_tracks(frames, ids, FPS, colours)) == 1, "as the tracker has it"
    assert len(build_tracks(frames, ids, FPS, colours, cuts=[40])) == people


def test_ten_people_in_a_crowd_keep_their_identities() -> None:
    """A short form of scripts/track_crowd.py, which has the numbers of a minute and of every tracker."""
    pytest.importorskip("motmetrics", reason="of the extra dev")
    import track_crowd

    raw, mended = track_crowd.measure(0, ("bytetrack",), 10.0, SIZE, None)
    assert mended["idf1"] >= 0.95
    assert raw["idf1"] < 0.6, "the story needs a crowd that is too much for a tracker alone"
