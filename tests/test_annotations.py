"""The dataset pickle of PYSKL and mmaction2, as it is found in the wild."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelact.annotations import load_annotations
from skelact.errors import SkelactError


def sample(name: str = "S001C001P001R001A001", **changes: Any) -> dict[str, Any]:
    """One annotation; a change to ``...`` leaves the field out."""
    rng = np.random.default_rng(0)
    values = {
        "frame_dir": name,
        "label": 3,
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "total_frames": 5,
        "keypoint": rng.uniform(0, 1000, (2, 5, 17, 2)).astype(np.float16),
        "keypoint_score": rng.uniform(size=(2, 5, 17)).astype(np.float16),
        **changes,
    }
    return {key: value for key, value in values.items() if value is not ...}


def saved(folder: Path, content: Any, protocol: int = 4) -> Path:
    path = folder / "ntu60.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def error_of(path: Path) -> str:
    with pytest.raises(SkelactError) as error:
        load_annotations(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_dataset_with_splits(tmp_path: Path) -> None:
    content = {
        "split": {"xsub_train": ["a", "b"], "xsub_val": ["c"]},
        "annotations": [sample("a"), sample("b", label=0), sample("c")],
    }
    loaded = load_annotations(saved(tmp_path, content))
    assert loaded.split == {"xsub_train": ("a", "b"), "xsub_val": ("c",)}
    assert [annotation.frame_dir for annotation in loaded.annotations] == ["a", "b", "c"]
    assert [annotation.label for annotation in loaded.annotations] == [3, 0, 3]
    assert loaded.annotations[0].img_shape == (1080, 1920)
    assert loaded.class_names is None


def test_a_bare_list(tmp_path: Path) -> None:
    loaded = load_annotations(saved(tmp_path, [sample("a"), sample("b")]))
    assert len(loaded.annotations) == 2
    assert loaded.split == {}


@pytest.mark.parametrize("split", [{}, {"split": None}, {"split": {}}], ids=["missing", "none", "empty"])
def test_a_dataset_without_splits(tmp_path: Path, split: dict[str, Any]) -> None:
    assert load_annotations(saved(tmp_path, {"annotations": [sample()], **split})).split == {}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_float16_on_disk_becomes_float32_with_the_same_values(tmp_path: Path, protocol: int) -> None:
    original = sample()
    (loaded,) = load_annotations(saved(tmp_path, [original], protocol)).annotations
    assert loaded.keypoint.dtype == np.float32
    np.testing.assert_array_equal(loaded.keypoint, original["keypoint"])
    assert loaded.keypoint_score is not None
    assert loaded.keypoint_score.dtype == np.float32
    np.testing.assert_array_equal(loaded.keypoint_score, original["keypoint_score"])


def test_3d_annotations_have_no_scores(tmp_path: Path) -> None:
    (loaded,) = load_annotations(
        saved(tmp_path, [sample(keypoint=np.ones((1, 7, 25, 3)), keypoint_score=..., img_shape=...)])
    ).annotations
    assert loaded.keypoint.shape == (1, 7, 25, 3)
    assert loaded.keypoint_score is None


@pytest.mark.parametrize(
    ("changes", "img_shape"),
    [
        ({"original_shape": ...}, (1080, 1920)),
        ({"img_shape": ...}, (1080, 1920)),
        ({"img_shape": ..., "original_shape": ...}, None),
        ({"img_shape": None}, None),
        ({"img_shape": [480, 640]}, (480, 640)),
        ({"img_shape": np.array([480, 640])}, (480, 640)),
        ({"img_shape": (np.int64(480), np.float64(640.0))}, (480, 640)),
    ],
)
def test_the_pictures_size(tmp_path: Path, changes: dict[str, Any], img_shape: tuple[int, int] | None) -> None:
    (loaded,) = load_annotations(saved(tmp_path, [sample(**changes)])).annotations
    assert loaded.img_shape == img_shape


@pytest.mark.parametrize(
    ("label", "expected"), [(0, 0), (np.int64(59), 59), (np.array(7), 7), (np.array([7]), 7), (None, None), (..., None)]
)
def test_labels(tmp_path: Path, label: Any, expected: int | None) -> None:
    (loaded,) = load_annotations(saved(tmp_path, [sample(label=label)])).annotations
    assert loaded.label == expected
    assert loaded.label is None or type(loaded.label) is int


def test_other_fields_are_kept(tmp_path: Path) -> None:
    (loaded,) = load_annotations(saved(tmp_path, [sample(modality="Pose", body_id=[7])])).annotations
    assert loaded.extra["modality"] == "Pose"
    assert loaded.extra["body_id"] == [7]
    assert "keypoint" not in loaded.extra


def test_names_by_other_fields(tmp_path: Path) -> None:
    """Some files say ``filename``; nameless samples go by their number."""
    loaded = load_annotations(saved(tmp_path, [sample(frame_dir=..., filename="a.avi"), sample(frame_dir=...)]))
    assert [annotation.frame_dir for annotation in loaded.annotations] == ["a.avi", "1"]


@pytest.mark.parametrize("names", [["walk", "wave"], np.array(["walk", "wave"]), {1: "wave", 0: "walk"}])
def test_class_names(tmp_path: Path, names: Any) -> None:
    content = {"annotations": [sample()], "class_names": names}
    assert load_annotations(saved(tmp_path, content)).class_names == ("walk", "wave")


def test_class_names_of_other_indices(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match=r'expected "class_names" by index from 0 on, found none for 0'):
        load_annotations(saved(tmp_path, {"annotations": [sample()], "class_names": {1: "walk", 2: "wave"}}))


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("keypoint", ..., "found NoneType"),
        ("keypoint", [[1, 2]], "found list"),
        ("keypoint", np.ones((5, 17, 2)), "expected an array (persons, frames, joints, 2 or 3), found (5, 17, 2)"),
        ("keypoint", np.ones((1, 5, 17, 4)), "expected 2 or 3 coordinates, found (1, 5, 17, 4)"),
        ("keypoint", np.full((1, 5, 17, 2), np.nan), "expected finite numbers"),
        ("keypoint", np.full((1, 5, 17, 2), np.inf), "expected finite numbers"),
        ("keypoint", np.full((1, 5, 17, 2), 1e300), "expected finite numbers"),
        ("keypoint", np.full((1, 5, 17, 2), "x"), "expected an array"),
        ("keypoint", np.full((1, 5, 17, 2), None), "expected an array"),
        ("keypoint_score", np.ones((2, 5, 16)), "expected shape (2, 5, 17), found (2, 5, 16)"),
        ("keypoint_score", [0.5], "expected shape (2, 5, 17), found list"),
        ("keypoint_score", np.full((2, 5, 17), np.nan), "expected finite numbers"),
        ("keypoint_score", np.full((2, 5, 17), "high"), "expected finite numbers"),
        ("img_shape", (1080,), "expected (height, width), found (1080,)"),
        ("img_shape", (1080, 1920, 3), "expected (height, width), found (1080, 1920, 3)"),
        ("img_shape", (0, 1920), "expected (height, width), found (0, 1920)"),
        ("img_shape", (-1, 5), "expected (height, width), found (-1, 5)"),
        ("img_shape", (float("nan"), 5), "expected (height, width), found (nan, 5)"),
        ("img_shape", (0.5, 1920), "expected (height, width), found (0.5, 1920)"),
        ("img_shape", "1080p", "expected (height, width), found 1080p"),
        ("label", "walk", "expected a class index, found 'walk'"),
        ("label", [1, 2], "expected a class index, found [1, 2]"),
        ("label", 1.5, "expected a class index, found 1.5"),
        ("label", 8192, "expected a class index below 8192, found 8192"),
    ],
)
def test_a_bad_field_is_named_with_its_sample(tmp_path: Path, field: str, value: Any, message: str) -> None:
    content = {"annotations": [sample("good"), sample("bad", **{field: value})]}
    found = error_of(saved(tmp_path, content))
    assert f"sample 1 (bad), field {field!r}: " in found
    assert message in found


def test_an_original_shape_that_is_used_is_checked_too(tmp_path: Path) -> None:
    path = saved(tmp_path, [sample(img_shape=..., original_shape=(1080,))])
    assert "expected (height, width), found (1080,)" in error_of(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found a NoneType"),
        (5, "found a int"),
        ({}, 'expected {"split"'),
        ({"label": [], "pose": []}, "found a dict with label, pose"),
        ([1, 2], "found a list"),
        ({"annotations": {"a": 1}}, "found a dict with annotations"),
        ([], "expected annotations, found an empty list"),
        ({"annotations": []}, "expected annotations, found an empty list"),
    ],
)
def test_pickles_of_something_else(tmp_path: Path, content: Any, message: str) -> None:
    assert message in error_of(saved(tmp_path, content))


@pytest.mark.parametrize("split", [["a"], {"train": None}, {"train": 5}, np.array(["a", "b"]), "train"])
def test_a_split_that_is_none(tmp_path: Path, split: Any) -> None:
    assert '"split"' in error_of(saved(tmp_path, {"split": split, "annotations": [sample()]}))


def test_a_hostile_dataset_runs_nothing(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sentinel"),)

    assert "refused, nothing was run" in error_of(saved(tmp_path, [sample(extra=Payload())]))
    assert not (tmp_path / "sentinel").exists()


def test_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "ntu60.pkl").write_text("frame_dir,label\n")
    assert "expected a pickle" in error_of(tmp_path / "ntu60.pkl")
    assert "no such file" in error_of(tmp_path / "other.pkl")
