"""What a person sees of the overlay, by its pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import cv2
import drawn_people
import numpy as np
import pytest

from skelact.errors import SkelactError
from skelact.lettering import INK, Color
from skelact.render import LIMB_COLORS, Overlay, draw_result, render_poses, render_video
from skelact.roi import Region
from skelact.skeleton import COCO, HAND, LAYOUTS, NTU, OPENPOSE, Layout
from skelact.strip import DIM, Current, Strip, clock
from skelact.structures import Array, PoseSequence, Prediction, SourceResult, Track, VideoInfo
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


def test_small_people_in_a_large_picture_have_thin_limbs() -> None:
    small = person()
    keypoint = (small.keypoint - (320, 260)) * 0.2 + (900, 500)
    sequence = sequence_of(dataclasses.replace(small, keypoint=keypoint, bbox=None), img_shape=(1080, 1920))
    image = Overlay(sequence).draw(np.full((1080, 1920, 3), 90, np.uint8), 0)
    assert (image[515, 900] == 90).all(), "the legs are two"
    assert (image[515, 890:910] != 90).any()


def test_a_limb_stands_out_from_what_has_its_colour() -> None:
    track = person()
    image = np.full((*IMG_SHAPE, 3), LIMB_COLORS["left"], np.uint8)
    drawn = Overlay(sequence_of(track)).draw(image, 0)
    x, y = track.keypoint[0, [COCO.joints.index(f"left_{joint}") for joint in ("hip", "knee")]].mean(0).astype(int)
    assert drawn[y, x - 4 : x + 5].max(axis=1).min() < 120, "a dark edge"


def test_who_moves_by_a_fraction_of_a_pixel_is_drawn_so() -> None:
    still, moved = (dataclasses.replace(person(x=x), bbox=None) for x in (320, 320.3))
    images = [Overlay(sequence_of(track)).draw(blank(), 0).astype(int) for track in (still, moved)]
    assert 0 < np.abs(images[0] - images[1])[300:350].max() < 200


def test_no_neck_is_made_of_a_nose() -> None:
    nose, *shoulders = (COCO.joints.index(joint) for joint in ("nose", "left_shoulder", "right_shoulder"))
    joined = {frozenset(bone[:2]) for bone in Overlay(sequence_of()).bones}
    assert frozenset(shoulders) in joined
    assert not {frozenset((nose, shoulder)) for shoulder in shoulders} & joined


def test_nobody_is_drawn_before_after_and_in_a_gap() -> None:
    track = person(start_frame=3)
    for values in (track.keypoint, track.keypoint_score, track.bbox):
        assert values is not None
        values[4] = 0
    overlay = Overlay(sequence_of(track))
    changed = [bool((overlay.draw(blank(), index) != 90).any()) for index in range(NUM_FRAMES + 2)]
    assert changed == [index in (3, 4, 5, 6, *range(8, NUM_FRAMES)) for index in range(NUM_FRAMES + 2)]


def test_a_box_and_the_track_id_mark_everybody() -> None:
    tracks = [person(1, x=110), person(2, x=320), person(3, x=530)]
    image = Overlay(sequence_of(*tracks)).draw(blank(), 0)
    colors = []
    for track in tracks:
        assert track.bbox is not None
        x1, y1, _, y2 = track.bbox[0].round().astype(int)
        colors.append(tuple(image[(y1 + y2) // 2, x1].tolist()))
        tag = image[y1 - 14 : y1, x1 : x1 + 14]
        assert len(np.unique(tag.reshape(-1, 3), axis=0)) > 2  # a number on its colour
    assert (90, 90, 90) not in colors
    assert len(set(colors)) == 3


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


def test_a_long_label_gets_smaller_and_a_longer_one_is_cut() -> None:
    def labelled(text: str) -> Array:
        return Overlay(sequence_of()).draw(blank(), 0, text)

    long, longer = "opens the door, " * 5, "opens the door, " * 50
    assert (labelled(long + "a") != labelled(long + "b")).any(), "all of it is there"
    assert np.array_equal(labelled(longer + "a"), labelled(longer + "b"))
    for text in (long, longer):
        rows, columns = (np.flatnonzero((labelled(text) != 90).any(axis=(2, axis))) for axis in (1, 0))
        assert columns[-1] < IMG_SHAPE[1] - 5, "a margin on the right"
        assert rows[-1] < 50
    assert np.array_equal(labelled("a\nb\tc"), labelled("a b c"))


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
    early, late = (0.0, 0.5, "a long one 0.4"), (0.2, 0.5, "near")
    outs = [tmp_path / name for name in ("both.mp4", "early.mp4", "late.mp4")]
    for out, labels in zip(outs, ([early, late], [early], [late]), strict=True):
        render_poses(sequence_of(), labels, out)
    both, first, second = ([label_corner(frame.image) for frame in read_frames(out)] for out in outs)
    assert np.abs(both[7] - first[7]).mean() < 2, "at 0.23 s"
    assert np.abs(both[11] - second[11]).mean() < 2, "at 0.37 s"
    assert np.abs(first[11] - second[11]).mean() > 5


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


def test_who_is_gone_is_not_drawn_and_takes_no_room_in_3d(tmp_path: Path) -> None:
    """They stand at five metres and leave after six frames, where files have zeros."""
    keypoint = np.zeros((NUM_FRAMES, NTU.num_joints, 3), np.float32)
    keypoint[:6] = np.random.default_rng(0).uniform((4.5, -1, 3), (5.5, 1, 3), (NTU.num_joints, 3))
    track = Track(1, 0, np.arange(NUM_FRAMES) / 30, keypoint, None)
    render_poses(sequence_of(track, layout="nturgb+d", img_shape=(0, 0)), [], tmp_path / "b.mp4")
    images = [frame.image for frame in read_frames(tmp_path / "b.mp4")]
    rows = np.flatnonzero((images[0].max(axis=2) > 150).any(axis=1))
    assert rows[-1] - rows[0] > 0.7 * len(images[0]), "as large as the picture"
    assert images[-1].max() < 80


# --- timelines ---------------------------------------------------------------------------------------------------


def segment(start_s: float, stop_s: float, class_name: str, *track_ids: int) -> Prediction:
    return Prediction(start_s, stop_s, track_ids, class_name, 0.8, ((class_name, 0.8),), np.array([0.8]), ("a",))


def test_everybody_has_the_label_of_what_they_do_now() -> None:
    segments = [
        segment(1, 3, "sit", 1),
        segment(0, 1, "walk", 1),
        segment(2, 3, "unknown", 2),
        segment(0, 9, "hug", 1, 2),
    ]
    current = Current(segments)
    assert current.captions(0.5) == {(1,): "walk 0.80", (1, 2): "hug 0.80"}
    assert current.captions(1.0) == {(1,): "sit 0.80", (1, 2): "hug 0.80"}
    assert current.captions(2.5) == current.captions(1.0), "nothing of what is unknown"
    assert current.captions(3.0) == {(1, 2): "hug 0.80"}
    overlay = Overlay(sequence_of(person(1, x=200), person(2, x=440)))
    plain, told = overlay.draw(blank(), 0), overlay.draw(blank(), 0, captions=current.captions(0.5))
    changed = (plain != told).any(axis=2)
    assert changed[110:125, 160:260].any(), "a longer tag at the first"
    assert not changed[110:125, 380:600].any(), "nothing new at the second"
    assert changed[370:400, 150:300].any(), "the pair's below"
    numbers = overlay.draw(blank(), 0, captions={(1, 2): ""})[370:420] != plain[370:420]
    assert np.ptp(np.flatnonzero(numbers.any(axis=(0, 2)))) > 20, "with the numbers of both"


def test_the_tag_of_a_pair_at_the_lower_edge_is_in_the_picture() -> None:
    people = [person(1, x=200, y=378), person(2, x=440, y=378)]  # their feet are at 478
    overlay = Overlay(sequence_of(*people))
    plain, told = (overlay.draw(blank(), 0, captions=captions) for captions in (None, {(1, 2): "hug 0.80"}))
    rows = np.flatnonzero((plain != told).any(axis=(1, 2)))
    assert len(rows) >= 16, "the whole tag"


def test_one_answer_stands_in_the_corner_and_those_of_persons_at_them(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    blanks = (blank() for _ in range(NUM_FRAMES))
    drawn_people.write_video(source, blanks, 30, audio="tone")
    result = SourceResult("a.mp4", sequence_of(person()), (segment(0, 0.4, "wave", 1),), granularity="clip")
    panel = label_corner(Overlay(sequence_of()).draw(blank(), 0, "wave 0.80")).max(axis=2) < 60
    region = Region.parse("0.8,0.2 1,0.2 1,1 0.8,1")
    for granularity in ("clip", "person"):
        out = tmp_path / f"{granularity}.mp4"
        draw_result(source, dataclasses.replace(result, granularity=granularity), out, regions=[region])
        image = next(read_frames(out)).image.astype(int)
        is_clip = granularity == "clip"
        assert (((label_corner(image).max(axis=2) < 60) == panel).mean() > 0.97) == is_clip
        assert (len(image) == IMG_SHAPE[0]) == is_clip, "a timeline is of persons"
        assert np.abs(image[110:125, 310:380] - 90).max() > 80, "the tag"
        assert image[200:400, 510:514, 2].max(axis=1).min() > 150, "the region"
        with av.open(str(out)) as container:
            assert container.streams.audio, "the sound"


def test_poses_of_a_pickle_have_a_timeline_too(tmp_path: Path) -> None:
    segments = (segment(0.0, 0.2, "walk", 1), segment(0.2, 0.4, "sit", 1))
    result = SourceResult("a.PKL#b", sequence_of(person()), segments, granularity="timeline")
    draw_result(tmp_path / "a.PKL", result, tmp_path / "out.mp4")
    assert len(next(read_frames(tmp_path / "out.mp4")).image) > IMG_SHAPE[0]


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


def test_rows_and_blocks_lie_where_they_belong() -> None:
    hug = segment(20, 80, "hug", 1, 2)
    segments = [segment(0, 50, "walk", 2), segment(50, 70, "unknown", 2), hug, segment(0, 10, "sit", 1)]
    strip = Strip(segments, 90.0, IMG_SHAPE)
    assert strip.height == 4 * strip.row_px, "three and the times"

    def block(image: Array, row: int, color: Color) -> Array:
        """From where to where, in shares of the row."""
        part = image[row * strip.row_px + 3 : (row + 1) * strip.row_px - 3, strip.margin :]
        return np.flatnonzero((part == color).all(axis=2).any(axis=0))[[0, -1]] / part.shape[1]

    first, second = strip.draw(0.0), strip.draw(60.0)
    for image, row, color, start, stop in (
        (first, 0, strip.colors["sit"], 0, 1 / 6),
        (first, 1, strip.colors["walk"], 0, 5 / 6),
        (first, 1, DIM, 5 / 6, 1),
        (first, 2, strip.colors["hug"], 1 / 3, 1),
        (second, 0, DIM, 0, 1 / 6),
        (second, 1, strip.colors["hug"], 0, 1 / 3),
    ):
        assert block(image, row, color) == pytest.approx([start, stop], abs=0.01)
    named = first[strip.row_px + 3 : 2 * strip.row_px - 3, strip.margin + 2 : strip.margin + 60]
    assert (named != strip.colors["walk"]).any(axis=(0, 2)).sum() > 20, "the name in its block"
    names = [(first[k * strip.row_px :][: strip.row_px, : strip.margin] != INK).any(axis=(0, 2)).sum() for k in (0, 2)]
    assert names[1] > 2 * names[0], "1 and 1+2"
    times = (image[-strip.row_px :, strip.margin + 20 :] for image in (first, second))
    assert (next(times) != next(times)).any(), "0:30 and 1:30"


def test_who_is_known_to_do_something_for_longest_gets_a_row() -> None:
    walkers = [segment(0, 3 + k, "walk", 1 + k) for k in range(7)]
    strip = Strip([*walkers, segment(0, 20, "unknown", 8)], 20.0, IMG_SHAPE)
    walk = (strip.draw(20.0) == strip.colors["walk"]).all(axis=2)
    longest = [np.flatnonzero(walk[k * strip.row_px :][: strip.row_px].any(axis=0))[-1] for k in range(6)]
    assert longest == sorted(longest), "by number"
    shares = (np.array(longest) - strip.margin) / (IMG_SHAPE[1] - strip.margin)
    assert shares == pytest.approx(np.arange(4, 10) / 20, abs=0.01), (
        "but for the shortest, and who does what is unknown"
    )


def test_what_is_on_another_page_takes_no_row_from_those_who_act_on_this_one() -> None:
    walkers = [segment(60, 90, "walk", 1 + k) for k in range(6)]
    before = [segment(0, 65, "walk", 7), segment(50, 60, "sit", 8)]
    strip = Strip([*walkers, *before], 120.0, IMG_SHAPE)
    image = strip.draw(119.0)
    assert not (image == strip.colors["sit"]).all(axis=2).any(), "they had stopped"
    walk = (image == strip.colors["walk"]).all(axis=2)
    ends = [np.flatnonzero(walk[k * strip.row_px :][: strip.row_px].any(axis=0))[-1] for k in range(6)]
    assert (np.array(ends) - strip.margin) / (IMG_SHAPE[1] - strip.margin) == pytest.approx([0.5] * 6, abs=0.01)


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
    small = Strip([segment(0, 1, "walk", 1)], 1.0, (90, 140))
    image = small.draw(0.0)
    assert image.shape == (small.height, 140, 3)
    written = np.flatnonzero((image[-small.row_px :, small.margin + 3 :] != INK).any(axis=(0, 2)))
    assert np.diff(written).max() > 20, "there is room for two times, not for three"


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
    assert (image[250:470, 320] != 90).any(axis=1).all(), "back to the first corner"
    assert (image[:230] == 90).all()


def test_faces_are_hidden_though_nobody_is_tracked(tmp_path: Path) -> None:
    """One on the left in the first two frames, then one on the right; each for 0.3 s longer than it is seen."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (*IMG_SHAPE, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "a.mp4", IMG_SHAPE, 30.0) as writer:
        for index in range(NUM_FRAMES):
            writer.write(noise, index / 30)
    places = [(100.0 if index < 2 else 500.0, 200.0, 40.0) for index in range(NUM_FRAMES)]
    sequence = dataclasses.replace(sequence_of(), faces=tuple(np.array([place], np.float32) for place in places))
    for hide, out in ((True, tmp_path / "hidden.mp4"), (False, tmp_path / "seen.mp4")):
        render_video(tmp_path / "a.mp4", sequence, [], out, hide_faces=hide)
    hidden, seen = (
        [frame.image.astype(int) for frame in read_frames(tmp_path / name)] for name in ("hidden.mp4", "seen.mp4")
    )

    def is_hidden(index: int, x: int) -> bool:
        before, after = (np.abs(np.diff(images[index][180:220, x - 20 : x + 20], axis=1)) for images in (seen, hidden))
        return bool(after.mean() < 0.2 * before.mean())

    assert [[is_hidden(index, x) for x in (100, 500)] for index in (0, 11)] == [[True, True], [False, True]]
