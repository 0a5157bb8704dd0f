"""What a person sees of the overlay, by its pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from skelact.errors import SkelactError
from skelact.render import LIMB_COLORS, Overlay, render_poses, render_video
from skelact.roi import Region
from skelact.skeleton import COCO, HAND, LAYOUTS, NTU, OPENPOSE, Layout
from skelact.strip import Current, Strip, clock
from skelact.structures import Array, PoseSequence, Prediction, Track, VideoInfo
from skelact.video import VideoWriter, probe_video, read_frames

IMG_SHAPE = (480, 640)
NUM_FRAMES = 12
# A person with raised left arm, as coco's joints: nose, eyes, ears, then left and right of each limb.
PERSON = np.array(
    (
        *((0, -80), (4, -84), (-4, -84), (9, -80), (-9, -80), (20, -60), (-20, -60), (40, -90), (-35, -30)),
        *((50, -130), (-40, 0), (14, 0), (-14, 0), (16, 50), (-16, 50), (18, 100), (-18, 100)),
    ),
    np.float32,
)


def person(track_id: int = 1, x: float = 320, y: float = 260, start_frame: int = 0) -> Track:
    num_frames = NUM_FRAMES - start_frame
    keypoint = np.repeat(PERSON[None] + (x, y), num_frames, axis=0).astype(np.float32)
    low, high = keypoint[0].min(0) - 10, keypoint[0].max(0) + 10
    return Track(
        track_id,
        start_frame,
        np.arange(start_frame, NUM_FRAMES) / 30,
        keypoint,
        np.full((num_frames, 17), 0.9, np.float32),
        np.repeat(np.concatenate([low, high])[None], num_frames, axis=0).astype(np.float32),
        np.full(num_frames, 0.9, np.float32),
    )


def sequence_of(*tracks: Track, layout: str = "coco", img_shape: tuple[int, int] = IMG_SHAPE) -> PoseSequence:
    info = VideoInfo("a.mp4", img_shape, 30.0, NUM_FRAMES)
    return PoseSequence(info, tracks, NUM_FRAMES, layout, np.arange(NUM_FRAMES) / 30)


def blank(value: int = 90) -> Array:
    return np.full((*IMG_SHAPE, 3), value, np.uint8)


def color_between(image: Array, track: Track, first: str, second: str) -> tuple[int, ...]:
    """The colour half way between two joints."""
    a, b = (track.keypoint[0, COCO.joints.index(joint)] for joint in (first, second))
    x, y = ((a + b) / 2).round().astype(int)
    return tuple(image[y, x].tolist())


def test_limbs_are_drawn_in_the_colours_of_their_side() -> None:
    track = person()
    image = Overlay(sequence_of(track)).draw(blank(), 0)
    for side in ("left", "right"):
        assert color_between(image, track, f"{side}_shoulder", f"{side}_elbow") == LIMB_COLORS[side]
        assert color_between(image, track, f"{side}_hip", f"{side}_knee") == LIMB_COLORS[side]
        assert color_between(image, track, f"{side}_shoulder", f"{side}_hip") == LIMB_COLORS["torso"]
    assert color_between(image, track, "left_shoulder", "right_shoulder") == LIMB_COLORS["torso"]
    for x, y in track.keypoint[0].round().astype(int):
        assert not np.array_equal(image[y, x], blank()[y, x])
    assert (blank() == 90).all()


def test_the_picture_itself_stays_as_it_was() -> None:
    image = blank()
    Overlay(sequence_of(person())).draw(image, 0, "wave 0.9")
    assert (image == 90).all()


def test_unsure_joints_are_not_drawn() -> None:
    track = person()
    assert track.keypoint_score is not None
    track.keypoint_score[:, COCO.joints.index("left_wrist")] = 0.29
    track = dataclasses.replace(track, bbox=None)
    image = Overlay(sequence_of(track)).draw(blank(), 0)
    assert color_between(image, track, "left_elbow", "left_wrist") == (90, 90, 90)
    assert color_between(image, track, "right_elbow", "right_wrist") == LIMB_COLORS["right"]


def test_nobody_is_drawn_before_after_and_in_a_gap() -> None:
    track = person(start_frame=3)
    for values in (track.keypoint, track.keypoint_score, track.bbox):
        assert values is not None
        values[4] = 0
    overlay = Overlay(sequence_of(track))
    changed = [bool((overlay.draw(blank(), index) != 90).any()) for index in range(NUM_FRAMES + 2)]
    assert changed == [index in (3, 4, 5, 6, *range(8, NUM_FRAMES)) for index in range(NUM_FRAMES + 2)]


def test_a_box_and_the_track_id_mark_everybody() -> None:
    first, second = person(1, x=160), person(2, x=480)
    image = Overlay(sequence_of(first, second)).draw(blank(), 0)
    colors = []
    for track in (first, second):
        assert track.bbox is not None
        x1, y1, _, y2 = track.bbox[0].round().astype(int)
        colors.append(tuple(image[(y1 + y2) // 2, x1].tolist()))
        tag = image[y1 - 14 : y1, x1 : x1 + 14]
        assert len(np.unique(tag.reshape(-1, 3), axis=0)) > 2  # a number on its colour
    assert (90, 90, 90) not in colors
    assert colors[0] != colors[1]


def test_people_far_outside_the_picture_are_no_trouble() -> None:
    overlay = Overlay(sequence_of(person(1, x=-1e12, y=1e12), person(2, x=np.nan)))
    assert overlay.draw(blank(), 0).shape == (*IMG_SHAPE, 3)


@pytest.mark.parametrize("background", [0, 127, 255])
def test_the_label_can_be_read_on_any_background(background: int) -> None:
    image = Overlay(sequence_of()).draw(blank(background), 0, "handshake 0.93")
    panel = image[10:40, 10:150].astype(int)
    assert panel.max() > 230
    assert panel.min() < 95
    assert (image[100:] == background).all()


@pytest.mark.parametrize(
    "label",
    ["Händeschütteln 0.71", "喝水 0.9", "рукопожатие", "مصافحة", "🤝 0.5", "a\nb\tc", "x" * 500, "…", " "],
)
@pytest.mark.parametrize("size", [(480, 640), (64, 48), (16, 16)])
def test_any_label_on_any_size(label: str, size: tuple[int, int]) -> None:
    image = Overlay(sequence_of()).draw(np.zeros((*size, 3), np.uint8), 0, label)
    assert image.shape == (*size, 3)


def test_with_opencv_4_labels_lose_their_accents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    overlay = Overlay(sequence_of())
    accented = overlay.draw(blank(), 0, "Händeschütteln")
    assert np.array_equal(accented, overlay.draw(blank(), 0, "Handeschutteln"))
    assert (accented != 90).any()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
def test_every_layout_can_be_drawn(layout: Layout) -> None:
    keypoint = np.random.default_rng(0).uniform(50, 400, (NUM_FRAMES, layout.num_joints, 2))
    track = Track(1, 0, np.arange(NUM_FRAMES) / 30, keypoint.astype(np.float32), None)
    overlay = Overlay(sequence_of(track, layout=layout.name))
    assert (overlay.draw(blank(), 0) != 90).any()
    joined = {v for a, b, _ in overlay.bones for v in (a, b)}
    assert joined == set(range(layout.num_joints))


@pytest.mark.parametrize("layout", [COCO, NTU, OPENPOSE], ids=lambda layout: layout.name)
def test_a_skeleton_has_four_colours_and_a_hand_one_for_each_finger(layout: Layout) -> None:
    def colors(layout: Layout) -> set[tuple[int, int, int]]:
        return {color for _, _, color in Overlay(sequence_of(), layout).bones}

    assert colors(layout) == set(LIMB_COLORS.values())
    assert len(colors(HAND)) == 5


def test_an_unknown_layout_shows_joints_and_a_wrong_one_is_told() -> None:
    assert (Overlay(sequence_of(person(), layout="unknown")).draw(blank(), 0) != 90).any()
    with pytest.raises(SkelactError, match=r"expected 25 joints.*found 17 in track 1"):
        Overlay(sequence_of(person(), layout="nturgb+d"))


def make_video(path: Path, img_shape: tuple[int, int] = IMG_SHAPE) -> Path:
    with VideoWriter(path, img_shape, 30.0) as writer:
        for index in range(NUM_FRAMES):
            writer.write(np.full((*img_shape, 3), 90, np.uint8), index / 30 + 0.2 * (index > 6))
    return path


def label_corner(image: Array) -> Array:
    return image[:50, :300].astype(int)


def test_a_video_gets_its_people_and_its_labels_by_time(tmp_path: Path) -> None:
    source, out = make_video(tmp_path / "a.mp4"), tmp_path / "out" / "b.mp4"
    labels = [(0.0, 0.1, "first 0.9"), (0.1, 0.2, "a much longer second 0.8")]
    render_video(source, sequence_of(person()), labels, out)
    before, after = list(read_frames(source)), list(read_frames(out))
    assert [frame.time_s for frame in after] == pytest.approx([frame.time_s for frame in before], abs=1e-4)
    assert probe_video(out).img_shape == IMG_SHAPE
    for frame in after:
        assert frame.image[360, 336].astype(int) != pytest.approx((90, 90, 90), abs=20)  # the left ankle
    dark = [int((label_corner(frame.image).max(2) < 60).sum()) for frame in after]
    assert min(dark[:3]) > 500
    assert min(dark[3:6]) > max(dark[:3])  # the longer label has the longer panel
    assert max(dark[7:]) < 100


def test_of_overlapping_labels_the_nearest_shows(tmp_path: Path) -> None:
    outs = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    render_poses(sequence_of(), [(0.0, 1.0, "long 0.4"), (0.0, 0.2, "near 0.9")], outs[0])
    render_poses(sequence_of(), [(0.0, 0.2, "near 0.9")], outs[1])
    first, second = (label_corner(next(read_frames(out)).image) for out in outs)
    assert np.abs(first - second).mean() < 2


def test_poses_of_another_video_are_told(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", (240, 320))
    with pytest.raises(SkelactError, match=r"640 x 480, found one of 320 x 240"):
        render_video(source, sequence_of(person()), [], tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()


def test_poses_without_a_video_are_drawn_on_a_dark_background(tmp_path: Path) -> None:
    out = tmp_path / "b.mp4"
    render_poses(sequence_of(person()), [(0, 1, "wave 0.9")], out)
    frames = list(read_frames(out))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 30 for i in range(NUM_FRAMES)], abs=1e-4)
    assert frames[0].image[-10:].mean() < 60
    assert frames[0].image[150:370, 280:380].max() > 200
    assert label_corner(frames[0].image).max() > 200


def test_3d_poses_are_seen_from_the_front(tmp_path: Path) -> None:
    y_up = np.zeros((NUM_FRAMES, NTU.num_joints, 3), np.float32)
    y_up[..., 0] = np.linspace(-0.3, 0.3, NTU.num_joints)
    y_up[..., 2] = 3.0
    y_up[:, NTU.joints.index("head"), 1] = 1.0
    track = Track(1, 0, np.arange(NUM_FRAMES) / 30, y_up, None)
    sequence = sequence_of(track, layout="nturgb+d", img_shape=(0, 0))
    render_poses(sequence, [], tmp_path / "b.mp4")
    image = next(read_frames(tmp_path / "b.mp4")).image
    height, width = image.shape[:2]
    above, below = image[: height // 3], image[-height // 3 :]
    assert above[:, : width // 2].max() > 150  # the head is up, left of the middle
    assert above[:, width // 2 :].max() < 80  # and all else is not
    assert below[:, width // 2 :].max() > 150
    assert image[-height // 20 :].max() < 80
    assert image[:, : width // 10].max() < 80
    assert (Overlay(sequence).draw(blank(), 0) == 90).all()  # a video has no place for metres


# --- timelines ---------------------------------------------------------------------------------------------------


def segment(start_s: float, stop_s: float, class_name: str, *track_ids: int) -> Prediction:
    return Prediction(start_s, stop_s, track_ids, class_name, 0.8, ((class_name, 0.8),), np.array([0.8]), ("a",))


def test_everybody_has_the_label_of_what_they_do_now() -> None:
    segments = [
        segment(0, 1, "walk", 1),
        segment(1, 3, "sit", 1),
        segment(2, 3, "unknown", 2),
        segment(0, 9, "hug", 1, 2),
    ]
    current = Current(segments)
    assert current.captions(0.5) == {(1,): "walk 0.80", (1, 2): "hug 0.80"}
    assert current.captions(1.0) == {(1,): "sit 0.80", (1, 2): "hug 0.80"}
    assert current.captions(3.0) == {(1, 2): "hug 0.80"}
    overlay = Overlay(sequence_of(person(1, x=200), person(2, x=440)))
    plain, told = overlay.draw(blank(), 0), overlay.draw(blank(), 0, captions=current.captions(0.5))
    changed = (plain != told).any(axis=2)
    assert changed[110:125, 160:260].any(), "a longer tag at the first"
    assert not changed[110:125, 380:600].any(), "nothing new at the second"
    assert changed[370:400, 150:300].any(), "the pair's below"


def test_a_strip_under_the_picture_shows_who_did_what_when(tmp_path: Path) -> None:
    source, out = make_video(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    segments = [segment(0.0, 0.3, "walk", 1), segment(0.3, 0.6, "unknown", 1), segment(0.0, 0.6, "hug", 1, 2)]
    render_video(source, sequence_of(person()), [], out, segments=segments)
    frames = list(read_frames(out))
    height, width = frames[0].image.shape[:2]
    assert width == IMG_SHAPE[1]
    assert 40 < height - IMG_SHAPE[0] < 120, "two rows and the times"
    assert frames[0].image[:100, 500:].astype(int) == pytest.approx(90, abs=6), "the picture is as it was"


def test_a_long_video_has_pages_of_a_minute_and_few_rows() -> None:
    segments = [segment(k, k + 1, f"action {k % 3}", 1 + k % 20) for k in range(150)]
    strip = Strip(segments, 150.0, IMG_SHAPE)
    assert len(strip.pages) == 3
    assert strip.height < 180
    assert not np.array_equal(strip.draw(10.0), strip.draw(70.0))
    moved = (strip.draw(10.0) != strip.draw(40.0)).any(axis=(0, 2))
    assert 0 < moved.sum() < 20, "only the cursor"


def test_a_short_fall_among_many_who_walk_is_on_the_timeline() -> None:
    walkers = [segment(0.0, 10.0, "walk", 1 + k) for k in range(9)]
    with_fall = Strip([*walkers, segment(3.0, 9.0, "walk", 10), segment(9.0, 10.0, "fall", 10)], 10.0, IMG_SHAPE)
    assert with_fall.height == Strip(walkers, 10.0, IMG_SHAPE).height
    fall = np.all(with_fall.draw(0.0) == with_fall.colors["fall"], axis=2)
    left, right = np.flatnonzero(fall.any(0))[[0, -1]]
    assert IMG_SHAPE[1] * 0.85 < left < right < IMG_SHAPE[1]


def test_the_last_frame_of_a_video_is_on_the_page_of_all(tmp_path: Path) -> None:
    source, out = make_video(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    render_video(source, sequence_of(person()), [], out, segments=[segment(0.0, 1.0, "walk", 1)])
    first, *_, last = (frame.image[IMG_SHAPE[0] :].astype(int) for frame in read_frames(out))
    assert 0.1 < np.abs(first - last).mean() < 5, "only the cursor has moved"


def test_times_under_the_picture_are_read_easily() -> None:
    assert [clock(time_s) for time_s in (0, 59.96, 60, 3723.4)] == ["0:00.0", "1:00.0", "1:00.0", "1:02:03.4"]
    small = Strip([segment(0, 1, "walk", 1)], 1.0, (90, 100))
    assert small.draw(0.5).shape == (small.height, 100, 3)


def test_a_tag_that_is_wider_than_the_picture_keeps_its_number() -> None:
    overlay = Overlay(sequence_of(person(1, x=30, y=90), img_shape=(160, 160)))
    image = np.full((160, 160, 3), 90, np.uint8)
    short, long = (overlay.draw(image, 0, captions={(1,): "points" + " to something" * n}) for n in (0, 4))
    np.testing.assert_array_equal(short[:, :40], long[:, :40])
    assert (short[:, 100:] != long[:, 100:]).any()


def test_regions_are_outlined() -> None:
    region = Region.parse("0.5,0.5 1,0.5 1,1 0.5,1")
    image = Overlay(sequence_of(), regions=[region]).draw(blank(), 0)
    assert (image[240, 330:600] != 90).any(axis=1).all()
    assert (image[:230] == 90).all()


def test_faces_are_hidden_though_nobody_is_tracked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (*IMG_SHAPE, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "a.mp4", IMG_SHAPE, 30.0) as writer:
        for index in range(NUM_FRAMES):
            writer.write(noise, index / 30)
    faces = tuple(np.array([[100.0, 200.0, 40.0]], np.float32) for _ in range(NUM_FRAMES))
    sequence = dataclasses.replace(sequence_of(), faces=faces)
    for hide, out in ((True, tmp_path / "hidden.mp4"), (False, tmp_path / "seen.mp4")):
        render_video(tmp_path / "a.mp4", sequence, [], out, hide_faces=hide)
    hidden, seen = (next(read_frames(tmp_path / name)).image.astype(int) for name in ("hidden.mp4", "seen.mp4"))
    face = (slice(180, 220), slice(80, 120))
    assert np.abs(np.diff(hidden[face], axis=1)).mean() < 0.2 * np.abs(np.diff(seen[face], axis=1)).mean()
