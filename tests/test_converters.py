"""Other people's files, written here with known content, become the annotation pickle; damage is told."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import skelact
from skelact import converters
from skelact.annotations import Annotation, AnnotationSet, load_annotations, save_annotations
from skelact.cli import main
from skelact.cli_convert import FORMATS
from skelact.errors import SkelactError
from skelact.ntu import NTU120_CLASSES, is_ntu120, ntu_sample, ntu_splits, read_skeleton
from skelact.pose_json import BODY_25, MEDIAPIPE
from skelact.skeleton import COCO, JHMDB, NTU, OPENPOSE, Layout, convert_layout
from skelact.structures import Array
from skelact.weights import NTU60_CLASSES

NAMES = ("S001C001P001R001A001", "S001C002P003R001A060")  # a training performer, and one for validation


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def converted(tmp_path: Path, *arguments: object) -> AnnotationSet:
    """What the command writes, read back."""
    out = tmp_path / "out.pkl"
    result = run(*arguments, "--out", out)
    assert result.exit_code == 0, result.output
    return load_annotations(out)


def refused(*arguments: object) -> str:
    result = run(*arguments, "--out", "/dev/null")
    assert result.exit_code == 1
    message = result.output.splitlines()[-1]
    assert message.startswith("Error: ")
    return message


def pose(x: float, y: float, layout: Layout = COCO, size: float = 100) -> Array:
    """(V, 3): joints of known places round (x, y), the first joint at it, and scores that differ."""
    V = layout.num_joints
    angle = np.arange(V) * 2 * np.pi / V
    xy = np.array([x, y]) + size / 2 * np.stack([np.cos(angle) - 1, np.sin(angle)], 1)
    return np.column_stack([xy, np.linspace(0.5, 1, V)])


# --- NTU names ---------------------------------------------------------------------------------------------------


def test_a_name_says_everything() -> None:
    sample = ntu_sample("videos/S018C003P106R002A120_rgb.avi")
    assert sample is not None
    assert (sample.setup, sample.camera, sample.performer, sample.replication, sample.action) == (18, 3, 106, 2, 120)
    assert (sample.name, sample.label) == ("S018C003P106R002A120", 119)
    assert NTU120_CLASSES[sample.label].startswith("finger-guessing game")


@pytest.mark.parametrize("name", ["walk.mp4", "S001C001P001R001", "S001C001P001R001A000", "S001C001P001R001A121", ""])
def test_other_names_say_nothing(name: str) -> None:
    assert ntu_sample(name) is None


def test_class_lists_are_complete() -> None:
    assert len(NTU60_CLASSES) == 60
    assert len(NTU120_CLASSES) == len(set(NTU120_CLASSES)) == 120
    assert NTU120_CLASSES[:60] == NTU60_CLASSES
    assert (NTU120_CLASSES[60], NTU120_CLASSES[105], NTU120_CLASSES[111]) == (
        "put on headphone",
        "hit other person with something",
        "high-five",
    )


def test_splits_of_60_classes() -> None:
    names = ["S001C001P001R001A001", "S001C002P003R001A001", "other"]
    assert not is_ntu120(names)
    assert ntu_splits(names) == {
        "xsub_train": (names[0],),
        "xsub_val": (names[1],),
        "xview_train": (names[1],),
        "xview_val": (names[0],),
    }


def test_splits_of_120_classes() -> None:
    names = ["S018C001P045R001A061", "S019C002P044R001A002"]
    assert is_ntu120(names)
    assert ntu_splits(names) == {
        "xsub_train": (names[0],),
        "xsub_val": (names[1],),
        "xset_train": (names[0],),
        "xset_val": (names[1],),
    }


# --- NTU skeletons -----------------------------------------------------------------------------------------------

Bodies = Sequence[Mapping[int, Array]]  # of each frame: bodyID -> (25, 3) metres


def body(x: float, spread: float = 1.0) -> Array:
    return (np.arange(75).reshape(25, 3) / 100 * spread + [x, 0, 3]).astype(np.float32)


def skeleton_text(frames: Bodies, num_joints: int = 25) -> str:
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body_id, xyz in bodies.items():
            lines += [f"{body_id} 0 1 1 1 1 0 0.02764709 0.05745083 2", str(num_joints)]
            lines += [f"{x:.7f} {y:.7f} {z:.7f} 277.4 191.6 1036.2 519.1 -0.22 0.03 0.97 -0.04 2" for x, y, z in xyz]
    return "\r\n".join(lines) + "\r\n"


def written(folder: Path, frames: Bodies, name: str = NAMES[0]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.skeleton"
    path.write_text(skeleton_text(frames), encoding="ascii", newline="")
    return path


def test_one_body_in_some_frames(tmp_path: Path) -> None:
    keypoint = read_skeleton(written(tmp_path, [{}, {7: body(0)}, {7: body(0.1)}, {}]))
    assert keypoint.shape == (1, 4, 25, 3)
    assert keypoint.dtype == np.float32
    np.testing.assert_allclose(keypoint[0, 1], body(0), atol=1e-6)
    np.testing.assert_allclose(keypoint[0, 2], body(0.1), atol=1e-6)
    assert not keypoint[0, [0, 3]].any()


@pytest.mark.parametrize("backwards", [0, 1])
def test_of_three_bodies_the_two_with_the_largest_spread(tmp_path: Path, backwards: int) -> None:
    """In whatever order the file has them, whoever is there longer, and though their IDs are one number as floats."""
    still, mover, walker = 72057594037931101, 72057594037931102, 72057594037931103
    frames: list[dict[int, Array]] = []
    for t in range(10):
        bodies = {still: body(0, 0.1), mover: body(1, 1), walker: body(2 + t / 2, 1)}
        frames.append({k: bodies[k] for k in sorted(bodies, reverse=(t + backwards) % 2 == 1)})
    frames.append({still: body(0, 0.1)})
    keypoint = read_skeleton(written(tmp_path, frames))
    assert keypoint.shape == (2, 11, 25, 3)
    np.testing.assert_allclose(keypoint[0, :10, 0, 0], 2 + np.arange(10) / 2, atol=1e-6)  # the one who walks
    np.testing.assert_allclose(keypoint[1, :10, 0, 0], 1, atol=1e-6)


def test_a_body_that_was_lost_and_found_nearby_is_one_person(tmp_path: Path) -> None:
    keypoint = read_skeleton(written(tmp_path, [{1: body(0)}, {}, {2: body(0.3)}, {2: body(0.3)}]))
    assert keypoint.shape == (1, 4, 25, 3)
    keypoint = read_skeleton(written(tmp_path, [{1: body(0)}, {}, {2: body(1.5)}, {2: body(1.5)}]))
    assert keypoint.shape[0] == 2  # too far away
    for away, people in ((29, 1), (30, 2)):  # too late, but for those who come after 30 frames
        keypoint = read_skeleton(written(tmp_path, [{1: body(0)}, *[{}] * away, {2: body(0.3)}]))
        assert keypoint.shape[0] == people


def test_two_bodies_that_were_lost_at_once_are_found_where_each_was(tmp_path: Path) -> None:
    pieces: Bodies = [{1: body(0)}] * 3 + [{}] + [{2: body(0.1)}] * 3 + [{}] + [{3: body(0)}] * 3
    assert read_skeleton(written(tmp_path, pieces)).shape[0] == 1, "one person, lost twice"
    gone: Bodies = [{1: body(0), 2: body(0.4)}, {}, {3: body(0.4), 4: body(0)}]
    keypoint = read_skeleton(written(tmp_path, gone))
    assert keypoint.shape == (2, 3, 25, 3)
    np.testing.assert_allclose(keypoint[:, 0], keypoint[:, 2], atol=1e-6)


DAMAGES: dict[str, Callable[[str], bytes]] = {
    "cut": lambda text: text[: len(text) * 2 // 3].rsplit(" ", 1)[0].encode(),
    "empty": lambda text: b"",
    "binary": lambda text: b"\xff\xd8\x00" + text.encode(),
    "more than it says": lambda text: text.encode() + b"0\r\n",
    "no numbers": lambda text: text.replace("0.0100000", "oops", 1).encode(),
    "NaN": lambda text: text.replace("0.0100000", "nan", 1).encode(),
    "endless": lambda text: b"99999999999\r\n" + text.encode(),
    "other joints": lambda text: text.replace("\r\n25\r\n", "\r\n20\r\n", 1).encode(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_skeleton_file(tmp_path: Path, damage: Callable[[str], bytes]) -> None:
    path = tmp_path / "a.skeleton"
    path.write_bytes(damage(skeleton_text([{1: body(0)}, {1: body(0)}])))
    with pytest.raises(SkelactError, match=r"a\.skeleton: expected an NTU \.skeleton file, found a damaged or another"):
        read_skeleton(path)


def test_a_skeleton_file_without_bodies(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match=r"expected bodies, found none in its 2 frames; leave it out by --exclude"):
        read_skeleton(written(tmp_path, [{}, {}]))


def test_a_folder_of_skeletons(tmp_path: Path) -> None:
    for name in NAMES:
        written(tmp_path / "ntu", [{1: body(0)}] * 3, name)
    dataset = converted(tmp_path, tmp_path / "ntu")
    assert dataset.layout == NTU.name
    assert dataset.class_names == NTU60_CLASSES
    assert [(a.frame_dir, a.label) for a in dataset.annotations] == [(NAMES[0], 0), (NAMES[1], 59)]
    assert dataset.annotations[0].keypoint_score is None
    assert dataset.split["xsub_train"] == (NAMES[0],)
    assert dataset.split["xview_train"] == (NAMES[1],)
    assert dataset.provenance["converted_from"] == "ntu-skeleton"
    assert dataset.provenance["sources"] == ["ntu"]


def test_a_damaged_file_does_not_stop_the_others(tmp_path: Path) -> None:
    good = written(tmp_path / "ntu", [{1: body(0)}] * 3, NAMES[0])
    bad = written(tmp_path / "ntu", [{1: body(0)}] * 3, NAMES[1])
    bad.write_text(bad.read_text()[:500])
    result = run(tmp_path / "ntu", "--out", tmp_path / "out.pkl")
    assert result.exit_code == 1
    assert f"skipped {bad}: expected an NTU .skeleton file" in result.output
    assert "1 skipped; the other 1 are in" in result.output.splitlines()[-1]
    assert [a.frame_dir for a in load_annotations(tmp_path / "out.pkl").annotations] == [good.stem]


def test_samples_with_missing_skeletons_are_left_out(tmp_path: Path) -> None:
    for name in NAMES:
        written(tmp_path / "ntu", [{}] if name == NAMES[1] else [{1: body(0)}], name)
    (tmp_path / "missing.txt").write_text(f"{NAMES[1]}.skeleton\n\nhas no skeletons\n", encoding="utf-8-sig")
    dataset = converted(tmp_path, tmp_path / "ntu", "--exclude", tmp_path / "missing.txt")
    assert [a.frame_dir for a in dataset.annotations] == [NAMES[0]]
    assert "expected a text file with names" in refused(tmp_path / "ntu", "--exclude", tmp_path / "none.txt")


# --- JHMDB -------------------------------------------------------------------------------------------------------


def jhmdb_pickle(path: Path, clips: Sequence[tuple[Array, str]], protocol: int = 2) -> Path:
    content = {"pose": [poses for poses, _ in clips], "label": [label for _, label in clips]}
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def jhmdb_clips(count: int) -> list[tuple[Array, str]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(15 + k, 15, 2)), ("wave", "catch")[k % 2]) for k in range(count)]


def test_a_jhmdb_split(tmp_path: Path) -> None:
    clips = jhmdb_clips(5)
    train = jhmdb_pickle(tmp_path / "GT_train_1.pkl", clips[:3])
    test = jhmdb_pickle(tmp_path / "GT_test_1.pkl", clips[3:])
    dataset = converted(tmp_path, train, test)
    assert {name: len(names) for name, names in dataset.split.items()} == {"train": 3, "test": 2}
    assert dataset.class_names == ("catch", "wave")
    assert dataset.layout == "jhmdb"
    for annotation, (poses, label) in zip(dataset.annotations, clips, strict=True):
        np.testing.assert_array_equal(annotation.keypoint, poses[None].astype(np.float32))
        assert annotation.keypoint_score is not None
        assert (annotation.keypoint_score == 1).all()
        assert annotation.img_shape is None
        assert annotation.label == dataset.class_names.index(label)


def test_a_clip_in_several_jhmdb_files_is_one_sample(tmp_path: Path) -> None:
    clips = jhmdb_clips(4)
    files = [
        jhmdb_pickle(tmp_path / f"GT_{part}_{n}.pkl", chosen)
        for n, (a, b) in {1: (clips[:3], clips[3:]), 2: (clips[1:], clips[:1])}.items()
        for part, chosen in (("train", a), ("test", b))
    ]
    dataset = converted(tmp_path, *files)
    names = [a.frame_dir for a in dataset.annotations]
    assert len(names) == len(set(names)) == 4
    assert {name: [names.index(n) for n in members] for name, members in dataset.split.items()} == {
        "train_1": [0, 1, 2],
        "test_1": [3],
        "train_2": [1, 2, 3],
        "test_2": [0],
    }


def test_wrong_jhmdb_pickles(tmp_path: Path) -> None:
    path = jhmdb_pickle(tmp_path / "GT_train_1.pkl", [(np.zeros((9, 14, 2)), "run")])
    assert "clip 0: expected finite poses (T, 15, 2), found" in refused(path)
    path.write_bytes(pickle.dumps({"pose": [np.zeros((9, 15, 2))], "label": []}))
    assert "as many labels as poses" in refused(path)


@pytest.mark.shared
@pytest.mark.parametrize(("split", "train", "test"), [(1, 433, 176), (2, 433, 176), (3, 434, 175)])
def test_the_real_jhmdb(tmp_path: Path, shared: Path, split: int, train: int, test: int) -> None:
    files = [shared / "data" / "jhmdb" / f"GT_{part}_{split}.pkl" for part in ("train", "test")]
    dataset = converted(tmp_path, *files)
    assert {name: len(names) for name, names in dataset.split.items()} == {"train": train, "test": test}
    assert dataset.class_names is not None
    assert len(dataset.class_names) == 14
    assert not set(dataset.split["train"]) & set(dataset.split["test"])


@pytest.mark.shared
def test_the_real_jhmdb_at_once(shared: Path) -> None:
    dataset = skelact.convert([shared / "data" / "jhmdb"], progress=False).dataset
    assert len(dataset.annotations) == 609  # each of the three splits parts the same clips
    sizes = {"train_1": 433, "test_1": 176, "train_2": 433, "test_2": 176, "train_3": 434, "test_3": 175}
    assert {name: len(names) for name, names in dataset.split.items()} == sizes
    for n in "123":
        assert len({*dataset.split[f"train_{n}"], *dataset.split[f"test_{n}"]}) == 609
    # Right and left as the README has them: who faces the camera has the right shoulder on the picture's left.
    face = np.concatenate([a.keypoint[0] for a in dataset.annotations if "wave" in a.frame_dir])
    sides = [face[:, JHMDB.joints.index(f"{side}_shoulder"), 0].mean() for side in ("right", "left")]
    assert sides[0] < sides[1]


# --- JSON of other tools -----------------------------------------------------------------------------------------

# Two people through three frames; the second is not seen in the middle one.
A = [pose(100 + 5 * t, 200) for t in range(3)]
B = [pose(900 - 5 * t, 250) for t in range(3)]


def flat(points: Array) -> list[float]:
    return [float(v) for v in points.ravel()]


def ultralytics_frame(*people: tuple[Array, int | None]) -> list[dict[str, Any]]:
    return [
        {
            "name": "person",
            "class": 0,
            "confidence": 0.9,
            "box": {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0},
            **({} if track_id is None else {"track_id": track_id}),
            "keypoints": {"x": flat(points[:, 0]), "y": flat(points[:, 1]), "visible": flat(points[:, 2])},
        }
        for points, track_id in people
    ]


def openpose_frame(*people: Array, person_id: int = -1) -> dict[str, Any]:
    empty: dict[str, list[float]] = {"face_keypoints_2d": [], "hand_left_keypoints_2d": [], "pose_keypoints_3d": []}
    people_ = [{"person_id": [person_id], "pose_keypoints_2d": flat(points), **empty} for points in people]
    return {"version": 1.3, "people": people_}


def mmpose_frame(*people: Array) -> list[dict[str, Any]]:
    return [
        {
            "keypoints": points[:, :2].tolist(),
            "keypoint_scores": points[:, 2].tolist(),
            "bbox": [[0.0, 0.0, 9.0, 9.0]],
            "bbox_score": 0.9,
        }
        for points in people
    ]


def alphapose_result(frame: int, points: Array, **more: Any) -> dict[str, Any]:
    return {"image_id": f"{frame}.jpg", "category_id": 1, "keypoints": flat(points), "score": 2.9, **more}


ULTRALYTICS = [
    ultralytics_frame((A[0], 4), (B[0], 9)),
    ultralytics_frame((A[1], 4)),
    ultralytics_frame((B[2], 9), (A[2], 4)),
]
MMPOSE = [mmpose_frame(A[0], B[0]), mmpose_frame(A[1]), mmpose_frame(B[2], A[2])]
ALPHAPOSE = [
    alphapose_result(0, A[0]),
    alphapose_result(0, B[0]),
    alphapose_result(1, A[1]),
    alphapose_result(2, B[2]),
    alphapose_result(2, A[2]),
]
CONTENTS: dict[str, tuple[str, Any]] = {
    "ultralytics: a list of frames": ("ultralytics-json", ULTRALYTICS),
    "ultralytics: to_json of each frame": ("ultralytics-json", [json.dumps(frame) for frame in ULTRALYTICS]),
    "alphapose": ("alphapose-json", ALPHAPOSE),
    "alphapose with PoseFlow's ids": (
        "alphapose-json",
        [{**result, "idx": k} for result, k in zip(ALPHAPOSE, (1, 2, 1, 2, 1), strict=True)],
    ),
    "alphapose's whole-body joints": (
        "alphapose-json",
        [{**result, "keypoints": [*result["keypoints"], *[7.0] * 3 * 119]} for result in ALPHAPOSE],
    ),
    "mmpose inferencer": ("mmpose-json", [{"frame_id": k, "instances": f} for k, f in enumerate(MMPOSE)]),
    "mmpose demo": (
        "mmpose-json",
        {
            "meta_info": {"dataset_name": "coco"},
            "instance_info": [{"frame_id": k + 1, "instances": frame} for k, frame in enumerate(MMPOSE)],
        },
    ),
}


@pytest.mark.parametrize(("source_format", "content"), CONTENTS.values(), ids=CONTENTS)
def test_a_json_file_of_a_video(tmp_path: Path, source_format: str, content: Any) -> None:
    path = tmp_path / "clip.json"
    path.write_text(json.dumps(content))
    result = run(path, "--out", tmp_path / "out.pkl", "--img-shape", "720x1280", "--fps", "25")
    assert result.exit_code == 0, result.output
    assert f"format: {source_format}, by its content" in result.output
    dataset = load_annotations(tmp_path / "out.pkl")
    (annotation,) = dataset.annotations
    assert (annotation.frame_dir, annotation.img_shape, annotation.extra["fps"]) == ("clip", (720, 1280), 25)
    assert dataset.layout == "coco"
    assert annotation.label is None
    expected = np.zeros((2, 3, 17, 3))
    expected[0], expected[1, [0, 2]] = A, (B[0], B[2])
    np.testing.assert_allclose(annotation.keypoint, expected[..., :2], rtol=1e-5)
    np.testing.assert_allclose(annotation.keypoint_score, expected[..., 2], rtol=1e-5)


@pytest.mark.parametrize(
    ("suffix", "frames"),
    [
        (
            "_keypoints",
            [openpose_frame(pose(90, 80, OPENPOSE)), openpose_frame(), openpose_frame(pose(95, 80, OPENPOSE))],
        ),
        ("", [ultralytics_frame((A[0], None)), [], ultralytics_frame((A[1], None))]),
        ("", [mmpose_frame(A[0]), [], mmpose_frame(A[1])]),
    ],
    ids=["openpose", "ultralytics", "mmpose"],
)
def test_a_folder_of_frames_is_a_video(tmp_path: Path, suffix: str, frames: list[Any]) -> None:
    for video, offset in (("jump/one", 0), ("walk/two", 5)):
        folder = tmp_path / "poses" / video
        folder.mkdir(parents=True)
        for t, content in enumerate(frames):
            (folder / f"cam_{t + offset:012d}{suffix}.json").write_text(json.dumps(content))
    dataset = converted(tmp_path, tmp_path / "poses", "--img-shape", "720x1280")
    assert [a.frame_dir for a in dataset.annotations] == ["jump/one", "walk/two"]
    assert dataset.class_names == ("jump", "walk")  # its folders
    assert [a.label for a in dataset.annotations] == [0, 1]
    for annotation in dataset.annotations:
        assert annotation.keypoint.shape[:2] == (1, 3)
        assert annotation.keypoint[0, :, 0, 0].tolist() == [
            annotation.keypoint[0, 0, 0, 0],
            0,
            annotation.keypoint[0, 0, 0, 0] + 5,
        ]


def test_videos_side_by_side_in_a_folder(tmp_path: Path) -> None:
    for name in NAMES:
        for t in range(2):
            content = openpose_frame(pose(90, 80, OPENPOSE))
            (tmp_path / f"{name}_rgb_{t:012d}_keypoints.json").write_text(json.dumps(content))
    dataset = converted(tmp_path, tmp_path)
    assert [(a.frame_dir, a.label, a.keypoint.shape[1]) for a in dataset.annotations] == [
        (NAMES[0], 0, 2),
        (NAMES[1], 59, 2),
    ]
    assert dataset.split["xsub_val"] == (NAMES[1],)


def test_openpose_of_25_joints_becomes_18(tmp_path: Path) -> None:
    points = pose(500, 300, BODY_25)
    (tmp_path / "a_000000000000_keypoints.json").write_text(json.dumps(openpose_frame(points)))
    dataset = converted(tmp_path, tmp_path / "a_000000000000_keypoints.json")
    assert dataset.layout == "openpose"
    for joint in OPENPOSE.joints:
        v, source = OPENPOSE.joints.index(joint), BODY_25.joints.index(joint)
        np.testing.assert_allclose(dataset.annotations[0].keypoint[0, 0, v], points[source, :2], rtol=1e-5)
    # The official order: MidHip is 8, LHeel 21.
    assert (BODY_25.joints[8], BODY_25.joints[12], BODY_25.joints[21]) == ("mid_hip", "left_hip", "left_heel")


def test_alphapose_in_openposes_joints(tmp_path: Path) -> None:
    """``--format cmu`` and ``open``: a dict of pictures."""
    for key, points in (("bodies", "joints"), ("people", "pose_keypoints_2d")):
        content = {
            f"{t}.jpg": {"version": "AlphaPose v0.3", key: [{points: flat(pose(100 + t, 90, OPENPOSE))}]}
            for t in (0, 10, 2)
        }
        path = tmp_path / "clip.json"
        path.write_text(json.dumps(content))
        (annotation,) = converted(tmp_path, path).annotations
        assert annotation.keypoint.shape == (1, 11, 18, 2)
        assert annotation.keypoint[0, [0, 2, 10], 0, 0].tolist() == [100, 102, 110]


def test_alphapose_results_are_called_after_their_folder(tmp_path: Path) -> None:
    for video in ("one", "two"):
        (tmp_path / "poses" / video).mkdir(parents=True)
        (tmp_path / "poses" / video / "alphapose-results.json").write_text(json.dumps(ALPHAPOSE))
    assert [a.frame_dir for a in converted(tmp_path, tmp_path / "poses").annotations] == ["one", "two"]
    files = sorted((tmp_path / "poses").rglob("*.json"))
    assert [a.frame_dir for a in converted(tmp_path, *files).annotations] == ["one", "two"]


def mediapipe_landmarks(points: Array, img_shape: tuple[int, int] = (400, 800)) -> list[dict[str, float]]:
    height, width = img_shape
    return [{"x": x / width, "y": y / height, "z": -0.1, "visibility": v} for x, y, v in points.tolist()]


FACE = mediapipe_landmarks(pose(300, 200, MEDIAPIPE))
MEDIAPIPE_CONTENTS = {
    "frames": [FACE, [], FACE],
    "frames under a key": {
        "fps": 30.0,
        "width": 800,
        "height": 400,
        "frames": [{"frame_index": t, "landmarks": FACE if t != 1 else []} for t in range(3)],
    },
    "results": [
        {"pose_landmarks": [FACE] if t != 1 else [], "pose_world_landmarks": [FACE] if t != 1 else []} for t in range(3)
    ],
    "protobuf": [
        {"pose_landmarks": {"landmark": FACE}},
        {"pose_landmarks": None},
        {"pose_landmarks": {"landmark": FACE}},
    ],
    "rows": [[[p["x"], p["y"], p["z"], p["visibility"]] for p in FACE], None, [list(p.values()) for p in FACE]],
    "gap": {"frames": [{"frame": t, "pose_landmarks": FACE} for t in (4, 6)]},
}


@pytest.mark.parametrize("content", MEDIAPIPE_CONTENTS.values(), ids=MEDIAPIPE_CONTENTS)
def test_mediapipe(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "clip.json"
    path.write_text(json.dumps(content))
    known = isinstance(content, dict) and "width" in content
    dataset = converted(tmp_path, path, *(() if known else ("--img-shape", "400x800")))
    (annotation,) = dataset.annotations
    assert dataset.layout == "coco"
    assert (annotation.img_shape, annotation.keypoint.shape) == ((400, 800), (1, 3, 17, 2))
    assert not annotation.keypoint[0, 1].any()
    assert annotation.extra.get("fps") == (30 if known else None)
    points = pose(300, 200, MEDIAPIPE)
    # MediaPipe's documented numbers: nose 0, left eye 2, left shoulder 11, right hip 24, right ankle 28.
    for joint, number in {"nose": 0, "left_eye": 2, "left_shoulder": 11, "right_hip": 24, "right_ankle": 28}.items():
        np.testing.assert_allclose(annotation.keypoint[0, 2, COCO.joints.index(joint)], points[number, :2], rtol=1e-4)
    if not known:
        assert "fractions of the picture; give the picture's size by --img-shape" in refused(path)


def test_what_ultralytics_really_writes(tmp_path: Path) -> None:
    import torch

    from skelact.yolo import load_ultralytics

    load_ultralytics()
    from ultralytics.engine.results import Results

    def frame(points: Array, track_id: int) -> Any:
        boxes = torch.tensor([[50.0, 150.0, 110.0, 250.0, track_id, 0.9, 0.0]])
        keypoint = torch.tensor(points[None], dtype=torch.float32)
        return Results(np.zeros((400, 800, 3), np.uint8), "f.jpg", {0: "person"}, boxes=boxes, keypoints=keypoint)

    path = tmp_path / "clip.json"
    path.write_text(json.dumps([frame(points, 7).summary() for points in A]))
    (annotation,) = converted(tmp_path, path).annotations
    np.testing.assert_allclose(annotation.keypoint[0], np.stack(A)[..., :2], atol=1e-4)
    path.write_text(json.dumps([frame(points, 7).summary(normalize=True) for points in A]))
    (annotation,) = converted(tmp_path, path, "--img-shape", "400x800").annotations
    np.testing.assert_allclose(annotation.keypoint[0], np.stack(A)[..., :2], atol=0.01)


# --- who is who --------------------------------------------------------------------------------------------------


def test_joints_that_mediapipe_guesses_far_below_a_picture_are_fractions_too(tmp_path: Path) -> None:
    """As of somebody before a webcam, whose left side is out of the picture, too."""
    face = [dict(landmark) for landmark in FACE]
    for low in range(25, 33):
        face[low] |= {"y": 2.6, "visibility": 0.05}
    for left in range(11, 24, 2):
        face[left] |= {"x": -0.1}
    (tmp_path / "clip.json").write_text(json.dumps([face]))
    (annotation,) = converted(tmp_path, tmp_path / "clip.json", "--img-shape", "400x800").annotations
    np.testing.assert_allclose(annotation.keypoint[0, 0, 0], pose(300, 200, MEDIAPIPE)[0, :2], rtol=1e-4)
    np.testing.assert_allclose(annotation.keypoint[0, 0, COCO.joints.index("right_ankle"), 1], 2.6 * 400, rtol=1e-4)
    assert "give the picture's size by --img-shape" in refused(tmp_path / "clip.json")


def followed(tmp_path: Path, frames: Sequence[Sequence[Array]]) -> Array:
    """x of the first joint of each person in each frame."""
    path = tmp_path / "clip.json"
    path.write_text(
        json.dumps([{"frame_id": t, "instances": mmpose_frame(*people)} for t, people in enumerate(frames)])
    )
    return converted(tmp_path, path, "--from", "mmpose-json").annotations[0].keypoint[:, :, 0, 0]


def test_people_without_ids_are_followed_whatever_their_order(tmp_path: Path) -> None:
    x = followed(tmp_path, [[A[0], B[0]], [B[1], A[1]], [A[2], B[2]]])
    assert x.tolist() == [[100, 105, 110], [900, 895, 890]]


def test_somebody_far_away_is_somebody_else(tmp_path: Path) -> None:
    assert followed(tmp_path, [[A[0]], [B[1]]]).tolist() == [[100, 0], [0, 895]]


def test_somebody_who_returns_after_a_second_is_somebody_new(tmp_path: Path) -> None:
    assert followed(tmp_path, [[A[0]], *[[]] * 29, [A[0]]]).shape == (1, 31)
    assert followed(tmp_path, [[A[0]], *[[]] * 30, [A[0]]]).shape == (2, 32)


def test_ids_rule_even_where_they_jump(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"
    frames = [ultralytics_frame((A[0], 3), (B[0], 5)), ultralytics_frame((A[1], 5), (B[1], 3))]
    path.write_text(json.dumps(frames))
    (annotation,) = converted(tmp_path, path).annotations
    assert annotation.keypoint[:, :, 0, 0].tolist() == [[100, 895], [900, 105]]


def test_an_id_that_everybody_has_is_none(tmp_path: Path) -> None:
    """As AlphaPose writes without tracking."""
    frames = [(A[0], B[0]), (B[1], A[1]), (A[2], B[2])]
    people = [alphapose_result(t, points, idx=[0.0]) for t, both in enumerate(frames) for points in both]
    (tmp_path / "clip.json").write_text(json.dumps(people))
    (annotation,) = converted(tmp_path, tmp_path / "clip.json").annotations
    assert annotation.keypoint[:, :, 0, 0].tolist() == [[100, 105, 110], [900, 895, 890]]
    alone = [alphapose_result(t, A[0], idx=1.0) for t in (0, 1, 40)]  # the gap is longer than people are followed
    (tmp_path / "clip.json").write_text(json.dumps([*alone, alphapose_result(1, B[0], idx=1.0)]))
    (annotation,) = converted(tmp_path, tmp_path / "clip.json").annotations
    assert annotation.keypoint.shape[0] == 2, "of one box too many the id is still good"


def test_mmpose_tells_which_joints_it_has(tmp_path: Path) -> None:
    order = [*COCO.joints[5:], *COCO.joints[:5]]
    frame = [COCO.joints.index(name) for name in order]
    content = {
        "meta_info": {"dataset_name": "mine", "keypoint_id2name": {str(k): name for k, name in enumerate(order)}},
        "instance_info": [{"frame_id": 1, "instances": mmpose_frame(A[0][frame])}],
    }
    (tmp_path / "clip.json").write_text(json.dumps(content))
    (annotation,) = converted(tmp_path, tmp_path / "clip.json").annotations
    np.testing.assert_allclose(annotation.keypoint[0, 0], A[0][:, :2], rtol=1e-5)
    content["meta_info"] = {"dataset_name": "h36m", "keypoint_id2name": {str(k): f"joint_{k}" for k in range(17)}}
    (tmp_path / "clip.json").write_text(json.dumps(content))
    assert "found those of 'h36m' without nose" in refused(tmp_path / "clip.json")


def test_an_id_given_twice_in_a_frame_is_one_person_and_another(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"
    path.write_text(json.dumps([ultralytics_frame((A[0], 3), (B[0], 3))]))
    assert converted(tmp_path, path).annotations[0].keypoint.shape[0] == 2


# --- layouts -----------------------------------------------------------------------------------------------------


def test_coco_to_openpose_and_back() -> None:
    points = np.stack([A, B]).astype(np.float32)
    keypoint, score = convert_layout(points[..., :2], points[..., 2], COCO, OPENPOSE)
    assert (keypoint.shape, score.shape) == ((2, 3, 18, 2), (2, 3, 18))
    assert keypoint.dtype == score.dtype == np.float32
    np.testing.assert_allclose(keypoint[..., 1, :], (points[..., 5, :2] + points[..., 6, :2]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(score[..., 1], points[..., [5, 6], 2].min(-1))
    np.testing.assert_array_equal(keypoint[..., 4, :], points[..., 10, :2])  # the right wrist
    back, back_score = convert_layout(keypoint, score, OPENPOSE, COCO)
    np.testing.assert_array_equal(back, points[..., :2])
    np.testing.assert_array_equal(back_score, points[..., 2])


def test_no_neck_without_both_shoulders() -> None:
    keypoint, score = A[0][:, :2].copy(), A[0][:, 2].copy()
    keypoint[5], score[5] = 0, 0
    new, new_score = convert_layout(keypoint, score, COCO, OPENPOSE)
    assert not new[1].any()
    assert new_score[1] == 0
    new, new_score = convert_layout(keypoint, None, COCO, OPENPOSE)  # without scores, zeros are not seen
    assert new_score[[1, 5]].tolist() == [0, 0]
    assert new_score[2] == 1


def test_jhmdb_to_coco() -> None:
    points = pose(0.3, 0.2, JHMDB, 1)
    keypoint, score = convert_layout(points[:, :2], np.ones(15), JHMDB, COCO)
    np.testing.assert_allclose(keypoint[0], points[2, :2], rtol=1e-6)  # the face
    np.testing.assert_allclose(keypoint[15], points[14, :2], rtol=1e-6)  # the left ankle
    assert not keypoint[1:5].any()
    assert score.tolist() == [1, 0, 0, 0, 0, *[1] * 12]


def test_layouts_that_do_not_convert() -> None:
    with pytest.raises(SkelactError, match=r"expected 2D keypoints \(\.\.\., 25, 2\), found shape \(25, 3\)"):
        convert_layout(np.zeros((25, 3)), None, NTU, COCO)
    with pytest.raises(SkelactError, match="no joint in common"):
        convert_layout(np.zeros((1, 2)), None, Layout("dot", ("dot",), (), 0), COCO)


def test_a_pickle_gets_another_layout_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keypoint = np.stack([A])[..., :2].astype(np.float32)
    annotation = Annotation("a", keypoint, np.stack([A])[..., 2], (720, 1280), 1, {"fps": 24.0})
    provenance = {"pose_model": "yolo", "command": ["skelact", "extract-poses"]}
    save_annotations(
        AnnotationSet([annotation], {"train": ("a",)}, ("x", "y"), "coco", provenance), tmp_path / "in.pkl"
    )
    monkeypatch.setattr(sys, "argv", ["/usr/bin/skelact", "convert", "in.pkl"])
    dataset = converted(tmp_path, tmp_path / "in.pkl", "--to-layout", "openpose")
    (new,) = dataset.annotations
    assert dataset.layout == "openpose"
    assert dataset.split == {"train": ("a",)}
    assert dataset.class_names == ("x", "y")
    assert dataset.provenance["pose_model"] == "yolo"
    assert dataset.provenance["command"] == ["skelact", "convert", "in.pkl"]
    assert dataset.provenance["commands_before"] == [["skelact", "extract-poses"]]
    assert (new.label, new.img_shape, new.extra["fps"]) == (1, (720, 1280), 24)
    expected, _ = convert_layout(keypoint, annotation.keypoint_score, COCO, OPENPOSE)
    np.testing.assert_array_equal(new.keypoint, expected)
    assert "join them first: skelact merge" in refused(tmp_path / "in.pkl", tmp_path / "in.pkl")


def test_a_pickle_keeps_a_layout_that_nobody_knows(tmp_path: Path) -> None:
    whole = AnnotationSet([Annotation("a", np.ones((1, 4, 17, 2), np.float32))], layout="h36m")
    save_annotations(whole, tmp_path / "in.pkl")
    assert converted(tmp_path, tmp_path / "in.pkl").layout == "h36m", "and is not taken for coco's 17 joints"


def test_a_pickle_of_ntu_has_no_coco_joints(tmp_path: Path) -> None:
    dataset = AnnotationSet([Annotation("a", np.ones((1, 4, 25, 3), np.float32))])
    save_annotations(dataset, tmp_path / "in.pkl")
    assert "expected 2D keypoints" in refused(tmp_path / "in.pkl", "--to-layout", "coco")


# --- labels, options, errors -------------------------------------------------------------------------------------


def test_labels_from_a_table(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(ALPHAPOSE))
    table = tmp_path / "labels.csv"
    table.write_text("path,label,split\none.json,walk,train\ntwo.json,fall,val\n")
    dataset = converted(tmp_path, tmp_path, "--labels", table)
    assert dataset.class_names == ("fall", "walk")
    assert {a.frame_dir: a.label for a in dataset.annotations} == {"one": 1, "two": 0}
    assert dataset.split == {"train": ("one",), "val": ("two",)}


def test_indices_in_a_table_are_those_of_the_datasets_own_classes(tmp_path: Path) -> None:
    dataset = AnnotationSet([long_sample("a", 9, label=0), long_sample("b", 9, label=1)], {}, ("wave", "run"), "coco")
    save_annotations(dataset, tmp_path / "in.pkl")
    table = tmp_path / "labels.csv"
    table.write_text("a,1\nb,0\n")
    found = converted(tmp_path, tmp_path / "in.pkl", "--labels", table)
    assert (found.class_names, [a.label for a in found.annotations]) == (("wave", "run"), [1, 0])
    table.write_text("a,1\nb,2\n")
    assert "expected class names, or indices below 2, found 2" in refused(tmp_path / "in.pkl", "--labels", table)
    table.write_text("a,run\nb,run\n")
    assert converted(tmp_path, tmp_path / "in.pkl", "--labels", table).class_names == ("wave", "run")


def test_half_precision(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ALPHAPOSE))
    assert run(tmp_path / "a.json", "--half", "--out", tmp_path / "a.pkl").exit_code == 0
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert content["annotations"][0]["keypoint"].dtype == np.float16


def test_the_command_knows_the_librarys_formats() -> None:
    assert tuple(converters.FORMATS) == FORMATS


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1, 2]", '{"people": 5}', '[{"image_id": 1}]', "[" * 100_000])
def test_unknown_files_are_told_what_is_understood(tmp_path: Path, content: str) -> None:
    path = tmp_path / "poses.json"
    path.write_text(content)
    message = refused(path)
    assert "poses.json" in message
    for name in FORMATS:
        assert name in message


def test_unknown_things_that_are_no_json(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "notes.txt" in refused(tmp_path / "notes.txt")
    assert "ntu-skeleton" in refused(tmp_path)  # a folder without anything
    assert "no such file or folder" in refused(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([alphapose_result(0, A[0][:9])], "expected poses of 17, 26, 133, 136, 18, 25, 33 joints, found [9]"),
        ([{**ALPHAPOSE[0], "keypoints": [1.0] * 50}], "damaged alphapose-json"),
        ([{**ALPHAPOSE[0], "keypoints": "abc"}], "damaged alphapose-json"),
        ([{**ALPHAPOSE[0], "keypoints": [float("nan")] * 51}], "found NaN, infinity or more than a million"),
        ([alphapose_result(139, A[0]), alphapose_result(581929, A[0])], "2 numbered up to 581929"),
        ([{**ALPHAPOSE[0], "image_id": name} for name in ("a_1.jpg", "b_1.jpg")], "found pictures of a, b"),
        (MMPOSE[0], "expected alphapose-json, found something else; choose another format by --from"),
        ([], "expected people, found none in any frame"),
        ([{**ALPHAPOSE[0], "keypoints": [-0.5, 0.5, 1.0] * 17}], "expected coordinates in pixels or from 0 to 1"),
    ],
)
def test_json_that_makes_no_sense(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "clip.json"
    path.write_text(json.dumps(content))
    told = refused(path, "--from", "alphapose-json")
    assert message in told
    assert "clip.json" in told


def test_bad_options(tmp_path: Path) -> None:
    for options in (("--img-shape", "720"), ("--img-shape", "0x5"), ("--from", "kinect"), ("--fps", "0")):
        assert run(tmp_path, "--out", tmp_path / "a.pkl", *options).exit_code == 2
    with pytest.raises(SkelactError, match="layout 'hand': expected one of coco, openpose"):
        skelact.convert([tmp_path], to_layout="hand")
    with pytest.raises(SkelactError, match=r"fps: expected a number from 0.1 to 1000, found 5000"):
        skelact.convert([tmp_path], fps=5000)
    with pytest.raises(SkelactError, match=r"format 'kinect': expected one of ntu-skeleton \("):
        skelact.convert([tmp_path], source_format="kinect")


# --- windows -----------------------------------------------------------------------------------------------------


def long_sample(name: str, num_frames: int, seen: slice = slice(None), **extra: Any) -> Annotation:
    """Somebody whose first coordinate counts frames, seen in some of them."""
    keypoint = np.zeros((1, num_frames, 17, 2), np.float32)
    score = np.zeros((1, num_frames, 17), np.float32)
    keypoint[0, seen] = 1 + np.arange(num_frames, dtype=np.float32)[seen, None, None]
    keypoint[0, seen, :, 1] += 10 * np.arange(17)
    score[0, seen] = 0.9
    return Annotation(name, keypoint, score, (480, 640), 0, extra)


def test_long_samples_are_cut_into_windows(tmp_path: Path) -> None:
    """By each sample's own frame rate; the splits stay, and the last window ends with the sample."""
    samples = [long_sample("walk", 101, fps=25.0), long_sample("run", 70), long_sample("jump", 20, fps=25.0)]
    source = tmp_path / "long.pkl"
    split: dict[str, tuple[str, ...]] = {"train": ("walk", "jump"), "val": ("run",)}
    save_annotations(AnnotationSet(samples, split, ("move",), "coco"), source)
    cut = converted(tmp_path, source, "--window", 2, "--step", 0.5)
    assert [sample.frame_dir for sample in cut.annotations] == [
        *("walk@0", "walk@12", "walk@24", "walk@36", "walk@48", "walk@51"),
        *("run@0", "run@10", "jump@0"),
    ]
    assert [sample.keypoint.shape[1] for sample in cut.annotations] == [50] * 6 + [60] * 2 + [20]
    assert cut.annotations[5].keypoint[0, -1, 0, 0] == 101
    assert set(cut.split["train"]) == {s.frame_dir for s in cut.annotations if not s.frame_dir.startswith("run")}
    assert set(cut.split["val"]) == {"run@0", "run@10"}
    assert {sample.label for sample in cut.annotations} == {0}


def test_windows_leave_out_what_the_sample_says_of_each_frame(tmp_path: Path) -> None:
    told = {"frame_inds": np.arange(120), "bbox": np.zeros((1, 120, 4)), "camera": np.eye(3)}
    source = tmp_path / "long.pkl"
    save_annotations(AnnotationSet([long_sample("walk", 120, **told)], {}, ("move",), "coco"), source)
    cut = converted(tmp_path, source, "--window", 1)
    assert all(told.keys() & sample.extra.keys() == {"camera"} for sample in cut.annotations)


def test_windows_in_which_nobody_is_are_left_out(tmp_path: Path) -> None:
    samples = [long_sample("late", 120, seen=slice(60, 120)), long_sample("nobody", 60, seen=slice(0))]
    source = tmp_path / "long.pkl"
    save_annotations(AnnotationSet(samples, {}, ("move",), "coco"), source)
    cut = converted(tmp_path, source, "--window", 1)
    names = [sample.frame_dir for sample in cut.annotations]
    assert [name for name in names if name.startswith("late")] == ["late@60", "late@75", "late@90"]
    assert "nobody@0" in names, "no sample is lost without a word"


def test_no_window_goes_past_a_cut_of_the_film(tmp_path: Path) -> None:
    """Who is suddenly elsewhere is in another shot; two people of whom one is lost and found are not."""
    cut, pair = long_sample("cut", 100), long_sample("pair", 100)
    cut.keypoint[:, 60:] += 300
    cut.keypoint[:, 40:45] = 0  # unseen for a while, but then where they would be
    assert cut.keypoint_score is not None
    cut.keypoint_score[:, 40:45] = 0
    assert pair.keypoint_score is not None
    both = replace(
        pair, keypoint=np.tile(pair.keypoint, (2, 1, 1, 1)), keypoint_score=np.tile(pair.keypoint_score, (2, 1, 1))
    )
    both.keypoint[1, 60:] += 300
    source = tmp_path / "long.pkl"
    save_annotations(AnnotationSet([cut, both], {}, ("move",), "coco"), source)
    names = [sample.frame_dir for sample in converted(tmp_path, source, "--window", 1.5).annotations]
    assert [name for name in names if name.startswith("cut")] == ["cut@0", "cut@15", "cut@60"]
    assert [name for name in names if name.startswith("pair")] == ["pair@0", "pair@22", "pair@44", "pair@55"]


def test_a_shot_of_less_than_half_a_window_is_left_out_beside_longer_ones(tmp_path: Path) -> None:
    short_first = long_sample("short", 100)
    short_first.keypoint[:, 10:] += 300
    source = tmp_path / "long.pkl"
    save_annotations(AnnotationSet([short_first], {}, ("move",), "coco"), source)
    names = [sample.frame_dir for sample in converted(tmp_path, source, "--window", 1.5).annotations]
    assert names == ["short@10", "short@32", "short@54", "short@55"]


@pytest.mark.parametrize(("fps", "names"), [(30.0, ["leap@0", "leap@10"]), (15.0, ["leap@0"])])
def test_who_leaps_in_a_film_of_few_frames_is_not_in_another_shot(tmp_path: Path, fps: float, names: list[str]) -> None:
    """By 0.4 heights from one frame to the next: at 30 frames a second nobody is so fast."""
    leap = long_sample("leap", 20, fps=fps)
    leap.keypoint[:, 10:] += [64, 0]
    source = tmp_path / "long.pkl"
    save_annotations(AnnotationSet([leap], {}, ("move",), "coco"), source)
    cut = converted(tmp_path, source, "--window", 20 / fps)
    assert [sample.frame_dir for sample in cut.annotations] == names


def test_a_step_without_a_window_is_wrong_usage(tmp_path: Path) -> None:
    assert run("long.pkl", "--step", 1, "--out", tmp_path / "out.pkl").exit_code == 2
