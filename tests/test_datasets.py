"""Datasets of every kind, read as a whole and piece by piece; reports that find known defects; merging."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import pickletools
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

import skelact
from skelact.annotations import (
    Annotation,
    AnnotationSet,
    StoredAnnotations,
    dataset_sha256,
    load_annotations,
    open_annotations,
    save_annotations,
)
from skelact.cli import main
from skelact.dataset_report import DatasetReport, inspect_dataset, plot_report
from skelact.errors import SkelactError
from skelact.merging import merge

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKELACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def sample(name: str, num_frames: int = 30, num_person: int = 2, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """One annotation, large enough to stay in its file; a change to ``...`` leaves the field out."""
    rng = np.random.default_rng([seed, *name.encode()])
    values = {
        "frame_dir": name,
        "label": 0,
        "img_shape": (720, 1280),
        "original_shape": (720, 1280),
        "total_frames": num_frames,
        "keypoint": rng.uniform(1, 1000, (num_person, num_frames, 17, 2)).astype(np.float16),
        "keypoint_score": rng.uniform(size=(num_person, num_frames, 17)).astype(np.float16),
        **changes,
    }
    return {key: value for key, value in values.items() if value is not ...}


def written(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def lazily(path: Path) -> AnnotationSet:
    """As large files are read."""
    dataset = open_annotations(path, small=0)
    assert isinstance(dataset.annotations, StoredAnnotations)
    return dataset


def assert_same(one: AnnotationSet, other: AnnotationSet) -> None:
    assert replace(one, annotations=()) == replace(other, annotations=())
    assert one.headers() == other.headers()
    assert len(one.annotations) == len(other.annotations)
    for mine, yours in zip(one.annotations, other.annotations, strict=True):
        assert (mine.frame_dir, mine.label, mine.img_shape) == (yours.frame_dir, yours.label, yours.img_shape)
        for array, expected in ((mine.keypoint, yours.keypoint), (mine.keypoint_score, yours.keypoint_score)):
            assert (array is None) == (expected is None)
            if array is not None and expected is not None:
                assert array.dtype == expected.dtype == np.float32
                assert array.flags.writeable
                np.testing.assert_array_equal(array, expected)
        np.testing.assert_equal(mine.extra, yours.extra)


# --- lazy equals eager -------------------------------------------------------------------------------------------


CONTENTS = {
    "splits": {"split": {"train": ["a"], "val": ["b"]}, "annotations": [sample("a"), sample("b", num_frames=200)]},
    "bare list": [sample("a"), sample("b")],
    "float32": [sample("a", keypoint=np.ones((1, 40, 17, 2), np.float32), keypoint_score=...)],
    "float64": [sample("a", keypoint=np.ones((1, 40, 17, 2)), keypoint_score=np.ones((1, 40, 17)))],
    "integers": [sample("a", keypoint=np.ones((1, 40, 17, 2), np.int16), keypoint_score=...)],
    "3D": [sample("a", keypoint=np.ones((2, 40, 25, 3), np.float32), keypoint_score=..., img_shape=...)],
    "big-endian": [sample("a", keypoint=np.arange(1360.0).reshape(1, 40, 17, 2).astype(">f4"), keypoint_score=...)],
    "fortran": [
        sample("a", keypoint=np.asfortranarray(np.arange(1360.0).reshape(1, 40, 17, 2)), keypoint_score=...),
    ],
    "strided": [sample("a", keypoint=np.arange(2720.0).reshape(1, 80, 17, 2)[:, ::2], keypoint_score=...)],
    "short": [sample("a", num_frames=1), sample("b", num_frames=0), sample("c", num_person=0), sample("d")],
    "no sizes": {"annotations": [sample("a", img_shape=..., original_shape=..., total_frames=...)]},
    "numpy scalars": [sample("a", label=np.int64(3), img_shape=np.array([480, 640])), sample("b", label=np.array([7]))],
    "no labels": [sample("a", label=...), sample("b", frame_dir=..., filename="b.avi")],
    "extra keys": {
        "split": {},
        "annotations": [
            sample(
                "a",
                bbox=np.arange(960.0).reshape(2, 120, 4),
                nested={"list": [np.ones(300), "x"], "tuple": (np.zeros(2), None)},
                note="ä" * 2000,
                raw=b"\xff" * 2000,
                number=np.float32(0.5),
                names=np.array(["walk", "wave"]),
                fps=29.97,
            )
        ],
        "class_names": ["walk", "wave"],
        "layout": "coco",
        "provenance": {"command": ["x" * 3000], "mean": np.ones(400)},
        "unknown": {1, 2},
    },
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CONTENTS)
def test_lazy_equals_eager(tmp_path: Path, name: str, protocol: int) -> None:
    path = written(tmp_path / "data.pkl", CONTENTS[name], protocol)
    eager = load_annotations(path)
    if name == "extra keys":  # numbers in arrays don't compare by ==
        eager = replace(eager, provenance={**eager.provenance, "mean": eager.provenance["mean"].sum()})
    for _ in range(2):  # the second time from the index
        lazy = lazily(path)
        if name == "extra keys":
            lazy = replace(lazy, provenance={**lazy.provenance, "mean": lazy.provenance["mean"].sum()})
        assert_same(lazy, eager)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_whose_axes_were_changed(tmp_path: Path, protocol: int) -> None:
    """Protocol 5 writes them with the order of their axes; such a file is loaded as a whole, however large it is."""
    keypoint = np.arange(2720, dtype=np.float32).reshape(40, 2, 17, 2).transpose(1, 0, 2, 3)
    path = written(tmp_path / "a.pkl", [sample("a", keypoint=keypoint, keypoint_score=...)], protocol)
    for dataset in (load_annotations(path), open_annotations(path, small=0)):
        np.testing.assert_array_equal(dataset.annotations[0].keypoint, keypoint)


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes text and bytes as the byte strings of Python 2."""

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        if self.proto == 0:
            self.write(b"S" + repr(data).encode()[1:] + b"\n")
        elif len(data) < 256:
            self.write(b"U" + bytes([len(data)]) + data)
        else:
            self.write(b"T" + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}  # type: ignore[attr-defined]  # noqa: RUF012


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("name", ["splits", "bare list", "short", "3D", "no labels"])
def test_pickles_of_python_2(tmp_path: Path, name: str, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    with path.open("wb") as file:
        Python2Pickler(file, protocol).dump(CONTENTS[name])
    expected = load_annotations(written(tmp_path / "new.pkl", CONTENTS[name]))
    assert_same(load_annotations(path), expected)
    for _ in range(2):
        assert_same(lazily(path), expected)


def test_small_files_are_loaded_as_a_whole(tmp_path: Path, cache: Path) -> None:
    assert isinstance(open_annotations(written(tmp_path / "a.pkl", [sample("a")])).annotations, tuple)
    assert not cache.exists()


def test_slices_and_ends(tmp_path: Path) -> None:
    annotations = lazily(written(tmp_path / "a.pkl", [sample(name) for name in "abcd"])).annotations
    assert [annotation.frame_dir for annotation in annotations[1:3]] == ["b", "c"]
    assert annotations[-1].frame_dir == "d"
    assert [annotation.frame_dir for annotation in annotations] == list("abcd")
    with pytest.raises(IndexError):
        annotations[4]


def test_what_can_not_stay_in_the_file_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = [sample("a", names=np.array([{"a": 1}, None], dtype=object))]
    dataset = open_annotations(written(tmp_path / "a.pkl", content), small=0)
    assert dataset.annotations[0].extra["names"][0] == {"a": 1}
    assert "loaded as a whole" in caplog.text
    (tmp_path / "b.pkl").write_bytes(pickle.dumps([sample("b", blob=bytearray(2000))], 4))
    assert open_annotations(tmp_path / "b.pkl", small=0).annotations[0].extra["blob"] == bytes(2000)


def test_the_layout_is_told_or_guessed(tmp_path: Path) -> None:
    def layout_of(joints: int, **told: Any) -> str | None:
        samples = [sample("a", keypoint=np.ones((1, 40, joints, 2)), keypoint_score=...)]
        return load_annotations(written(tmp_path / "a.pkl", {"annotations": samples, **told})).layout

    assert (layout_of(17), layout_of(18), layout_of(25), layout_of(14)) == ("coco", "openpose", "nturgb+d", None)
    assert layout_of(17, layout="mine") == "mine"


def test_samples_of_a_split(tmp_path: Path) -> None:
    content = {"split": {"train": ["c", "a"], "val": ["gone"]}, "annotations": [sample(name) for name in "abc"]}
    for dataset in (load_annotations(written(tmp_path / "a.pkl", content)), lazily(tmp_path / "a.pkl")):
        assert dataset.indices("train") == [0, 2]
        with pytest.raises(SkelactError, match="found train, val"):
            dataset.indices("test")
        with pytest.raises(SkelactError, match="found 1 that no sample has, such as gone"):
            dataset.indices("val")


def test_a_shortened_dataset_keeps_its_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As PYSKL does, which takes the samples that are there."""
    content = {"split": {"train": ["a", "b", "cut", "away"]}, "annotations": [sample(name) for name in "ab"]}
    assert load_annotations(written(tmp_path / "a.pkl", content)).indices("train") == [0, 1]
    assert "split 'train': no sample has 2 of its 4 names, such as away; the others count" in caplog.text


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_written_is_for_numpy_1_too(tmp_path: Path, lazy: bool) -> None:
    """PYSKL's environment has NumPy 1.20, whose modules have other names."""
    path = written(tmp_path / "a.pkl", [sample("a", weight=np.float32(0.5)), sample("b", num_frames=200)])
    whole = load_annotations(path)
    maker = np.zeros(0).__reduce__()[0]
    before = maker.__module__
    save_annotations(lazily(path) if lazy else load_annotations(path), tmp_path / "b.pkl")
    assert maker.__module__ == before
    modules = {argument for _, argument, _ in pickletools.genops((tmp_path / "b.pkl").read_bytes()) if argument}
    assert "numpy.core.multiarray" in modules
    assert "numpy._core.multiarray" not in modules
    assert_same(load_annotations(tmp_path / "b.pkl"), replace(whole, layout_guessed=True, dtype="float32"))


# --- many processes, little memory -------------------------------------------------------------------------------


def total_of(dataset: AnnotationSet, indices: list[int]) -> float:
    return float(sum(dataset.annotations[k].keypoint.sum(dtype=np.float64) for k in indices))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_two_processes_read_the_same_file(tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    path = written(tmp_path / "a.pkl", [sample(str(k)) for k in range(20)])
    dataset = lazily(path)
    total_of(dataset, [0])  # the file is open when the workers start
    assert len(pickle.dumps(dataset)) < path.stat().st_size / 4
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        totals = list(pool.map(total_of, [dataset] * 2, [list(range(10)), list(range(10, 20))]))
    assert sum(totals) == total_of(load_annotations(path), list(range(20)))


MEASURE = """
import resource, sys
from skelact.annotations import open_annotations

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = open_annotations(sys.argv[1], small=0)
for annotation in dataset.annotations:
    annotation.keypoint.sum()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is counted in other units elsewhere")
@pytest.mark.parametrize("protocol", [2, 4])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, protocol: int) -> None:
    keypoint = np.full((2, 8000, 17, 2), 100.5, np.float16)
    content = [sample(str(k), keypoint=keypoint + np.float16(k), keypoint_score=...) for k in range(150)]
    path = written(tmp_path / "a.pkl", content, protocol)
    assert path.stat().st_size > 150e6
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6


# --- the index in the cache --------------------------------------------------------------------------------------


def test_the_index_is_made_anew_when_the_file_changes(tmp_path: Path, cache: Path) -> None:
    path = written(tmp_path / "a.pkl", [sample("a")])
    assert lazily(path).headers()[0].label == 0
    (first,) = cache.iterdir()
    written(path, [sample("a", label=1)])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # of the same size; clocks are coarse
    assert lazily(path).headers()[0].label == 1
    (second,) = cache.iterdir()
    assert first != second


def test_files_in_different_folders_have_their_own_index(tmp_path: Path, cache: Path) -> None:
    for folder, label in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        lazily(written(tmp_path / folder / "a.pkl", [sample("a", label=label)]))
    assert len(list(cache.iterdir())) == 2
    assert lazily(tmp_path / "one" / "a.pkl").headers()[0].label == 1


@pytest.mark.parametrize("damage", [b"", b"nonsense", pickle.dumps((0, 1, 2, [])), pickle.dumps({"a": 1})])
def test_a_damaged_index_is_made_anew(tmp_path: Path, cache: Path, damage: bytes) -> None:
    path = written(tmp_path / "a.pkl", [sample("a")])
    lazily(path)
    (index,) = cache.iterdir()
    index.write_bytes(damage)
    assert_same(lazily(path), load_annotations(path))
    assert index.stat().st_size > len(damage)


def test_a_cache_that_can_not_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SKELACT_CACHE", str(tmp_path / "file"))
    path = written(tmp_path / "a.pkl", [sample("a")])
    assert_same(lazily(path), load_annotations(path))
    assert "SKELACT_CACHE names another folder" in caplog.text


def test_a_file_that_is_rewritten_while_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pkl", [sample("a"), sample("b")])
    dataset = lazily(path)
    dataset.annotations[0]
    written(path, [sample("other")])
    with pytest.raises(SkelactError, match="found it changed"):
        dataset.annotations[1]


@pytest.mark.skipif(sys.platform == "win32", reason="open files can't be replaced there")
def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pkl", [sample("a"), sample("b")])
    dataset, expected = lazily(path), load_annotations(path)
    dataset.annotations[0]
    os.replace(written(tmp_path / "new.pkl", [sample("other")]), path)
    assert_same(dataset, expected)


# --- bad files ---------------------------------------------------------------------------------------------------


def test_numbers_are_checked_when_they_are_read(tmp_path: Path) -> None:
    bad = sample("bad")
    bad["keypoint"][1, 2, 3] = np.nan
    dataset = lazily(written(tmp_path / "a.pkl", [sample("good"), bad]))
    assert dataset.annotations[0].frame_dir == "good"
    with pytest.raises(SkelactError, match=r"sample 1 \(bad\), field 'keypoint': expected finite numbers"):
        dataset.annotations[1]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("keypoint", ..., "found NoneType"),
        ("keypoint", np.ones((30, 17, 2)), "expected an array"),
        ("keypoint", np.ones((1, 30, 17, 5)), "expected 2 or 3 coordinates"),
        ("keypoint_score", np.ones((2, 30, 16)), "expected shape (2, 30, 17), found (2, 30, 16)"),
        ("img_shape", np.array([480]), "expected (height, width)"),
        ("label", "walk", "expected a class index"),
    ],
)
def test_the_rest_is_checked_at_once(tmp_path: Path, field: str, value: Any, message: str) -> None:
    path = written(tmp_path / "a.pkl", [sample("good"), sample("bad", **{field: value})])
    with pytest.raises(SkelactError) as error:
        open_annotations(path, small=0)
    assert f"sample 1 (bad), field {field!r}" in str(error.value)
    assert message in str(error.value)


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path / "a.pkl", [sample("a", extra=Payload(tmp_path / "trace"))], protocol)
    with pytest.raises(SkelactError, match="refused, nothing was run"):
        open_annotations(path, small=0)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [b"", b"frame_dir,label\n", b"\x80\x02\x82\x01.", b"Pid\n.", b"\x80\x02K\x01Q."])
def test_what_is_no_dataset(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(SkelactError, match=r"expected a pickle|no such file"):
        open_annotations(tmp_path / "a.pkl", small=-1)
    with pytest.raises(SkelactError, match="no such file"):
        open_annotations(tmp_path / "b.pkl", small=-1)


@pytest.mark.parametrize("remember", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_a_few_bytes_do_not_fill_the_memory(tmp_path: Path, remember: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Python's unpickler in C makes room for as many objects as the last one's number."""
    whole = pickle.dumps([sample("a")], 2)
    path = tmp_path / "a.pkl"
    path.write_bytes(whole[:3] + remember + whole[3:])
    assert whole[2:3] == b"]"
    assert open_annotations(path, small=0).annotations[0].frame_dir == "a"
    assert "loaded as a whole" in caplog.text


def test_the_hash_of_a_large_file_is_kept_until_the_file_changes(tmp_path: Path, cache: Path) -> None:
    """Hashing a gigabyte takes longer than everything else that comes before a training's first batch."""
    path = tmp_path / "a.pkl"
    for names in ("a", "ab", "cd"):
        path.write_bytes(pickle.dumps([sample(name) for name in names]))
        true = hashlib.sha256(path.read_bytes()).hexdigest()
        assert dataset_sha256(path, small=0) == true
        open_annotations(path, small=0)  # makes an index, and forgets those of the file as it was
        (kept,) = cache.glob("*.sha256")
        assert kept.read_text() == true
        kept.write_text("0" * 64)
        assert dataset_sha256(path, small=0) == "0" * 64, "it is not computed again"
        kept.write_text("cut sh")
        assert dataset_sha256(path, small=0) == true, "what is damaged does not count"


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path, protocol: int) -> None:
    rng = random.Random(0)
    whole = pickle.dumps({"split": {"train": ["a"]}, "annotations": [sample("a", num_person=1)]}, protocol)
    path = tmp_path / "a.pkl"
    head = 500  # most of the opcodes; the rest is numbers
    for k in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            damaged[rng.randrange(len(damaged) if k % 4 == 0 else head)] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), len(damaged), rng.randrange(len(damaged))])])
        with contextlib.suppress(SkelactError):
            list(open_annotations(path, small=-1).annotations)


# --- content hash, writing ---------------------------------------------------------------------------------------


def dataset_of(*samples: dict[str, Any], **others: Any) -> AnnotationSet:
    def annotation(values: dict[str, Any]) -> Annotation:
        known = {"frame_dir", "label", "img_shape", "original_shape", "total_frames", "keypoint", "keypoint_score"}
        score = values.get("keypoint_score")
        return Annotation(
            values["frame_dir"],
            values["keypoint"].astype(np.float32),
            None if score is None else score.astype(np.float32),
            values.get("img_shape"),
            values.get("label"),
            {key: value for key, value in values.items() if key not in known},
        )

    return AnnotationSet(tuple(map(annotation, samples)), **others)


@pytest.mark.parametrize("half", [False, True])
def test_what_is_written_reads_back(tmp_path: Path, half: bool) -> None:
    content = {"split": {"train": ["a"]}, "annotations": [sample("a", fps=25.0), sample("b")], "class_names": ["walk"]}
    path = written(tmp_path / "a.pkl", content)
    expected = replace(load_annotations(path), dtype="float16" if half else "float32")
    for number, dataset in enumerate((load_annotations(path), lazily(path))):
        out = tmp_path / f"{number}.pkl"
        save_annotations(dataset, out, half)
        assert_same(load_annotations(out), expected)
        assert_same(lazily(out), expected)
        assert type(pickle.loads(out.read_bytes())["annotations"]) is list  # as everybody reads it


def test_what_is_written_is_what_pyskl_looks_for(tmp_path: Path) -> None:
    """Its sampling goes by ``total_frames``, its normaliser by ``img_shape``."""
    dataset = dataset_of(sample("a", num_frames=42, label=3, fps=25.0), split={"train": ("a",)})
    save_annotations(dataset, tmp_path / "a.pkl")
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    (found,) = content["annotations"]
    assert content["split"] == {"train": ["a"]}
    arrays = {key: found.pop(key).shape for key in ("keypoint", "keypoint_score")}
    assert arrays == {"keypoint": (2, 42, 17, 2), "keypoint_score": (2, 42, 17)}
    told = {"frame_dir": "a", "label": 3, "fps": 25.0, "total_frames": 42}
    assert found == {**told, "img_shape": (720, 1280), "original_shape": (720, 1280)}


# --- report ------------------------------------------------------------------------------------------------------


def with_defects() -> AnnotationSet:
    """Ten samples with one of each defect."""
    split = {
        "train": ("s1_a", "s1_b", "s2_c", "s2_empty", "s3_wrong", "gone"),
        "val": ("s4_e", "s4_twin", "s2_c", "s1_val"),
    }
    keypoint = sample("s4_e")["keypoint"].copy()
    keypoint[:, 10:13] = 0  # nobody in 3 of 30 frames
    samples = [
        sample("s1_a", label=0, fps=25.0),
        sample("s1_b", label=0, fps=30.0),
        sample("s2_c", label=1),
        sample("s2_empty", label=0, keypoint=np.zeros((2, 30, 17, 2))),
        sample("s3_wrong", label=7),
        sample("s4_e", label=1, keypoint=keypoint),
        sample("s4_twin", label=0, keypoint=sample("s1_a")["keypoint"]),
        sample("s1_val", label=0, num_person=1, num_frames=60),
        sample("s5_left", label=...),
        sample("s5_upright", label=1, img_shape=(1280, 720)),
    ]
    names = ("walk", "wave", "fall")
    return dataset_of(*samples, split=split, class_names=names, layout="coco", provenance={"group_by": r"^s\d"})


def test_a_report_counts(tmp_path: Path) -> None:
    save_annotations(with_defects(), tmp_path / "defects.pkl", half=True)
    for report in (inspect_dataset(tmp_path / "defects.pkl"), inspect_dataset(with_defects())):
        assert (report.num_samples, report.num_frames) == (10, 330)
        assert (report.layout, report.num_joints, report.dims, report.with_score) == ("coco", [17], [2], 10)
        assert report.fps == [(25.0, 1), (30.0, 1)]
        assert report.splits == {"train": 6, "val": 4}
        found = [(c.label, c.class_name, c.num_samples, c.splits["train"], c.splits["val"]) for c in report.classes]
        assert found == [(0, "walk", 5, 3, 2), (1, "wave", 3, 1, 2), (2, "fall", 0, 0, 0), (7, None, 1, 1, 0)]
        assert report.unlabelled == 1
        assert (report.length_min, report.length_median, report.length_max) == (30, 30, 60)
        assert sum(report.lengths.counts) == sum(report.missing.counts) == 10
        assert report.persons == {"0": 1, "1": 1, "2": 8}
        assert report.img_shapes == [(720, 1280, 9), (1280, 720, 1)]
        assert report.posed_share == pytest.approx((8 * 60 + 60 - 6) / (8 * 60 + 60))
        assert report.missing_share == pytest.approx((30 + 3) / 330)
    assert inspect_dataset(tmp_path / "defects.pkl").dtype == "float16"
    json.dumps(report.to_dict())


@pytest.mark.parametrize(
    "warning",
    [
        "1 sample without a single pose: s2_empty",
        "1 sample with a label outside of 0 to 2: s3_wrong",
        "1 sample without a label: s5_left",
        "1 classes without a sample in split 'train': 'fall'",
        "split 'train' names 1 samples that are not there: gone",
        "2 samples in no split: s5_left, s5_upright",
        "1 sample in both 'train' and 'val': s2_c",
        "1 sample with the same poses in 'train' and 'val': s1_a = s4_twin",
        "1 groups are on both sides of 'train' and 'val': s1",
        "aspect ratios from 0.56 to 1.78",
    ],
)
def test_a_report_warns(warning: str) -> None:
    assert any(found.startswith(warning) for found in inspect_dataset(with_defects()).warnings)


def warnings_of(*samples: dict[str, Any], **others: Any) -> str:
    return "\n".join(inspect_dataset(dataset_of(*samples, **others)).warnings)


def test_a_good_dataset_has_no_warnings() -> None:
    split = {"xsub_train": ("a", "b"), "xsub_val": ("c",), "xview_train": ("a", "c"), "xview_val": ("b",)}
    samples = [sample(name, label=0) for name in "abc"]
    assert warnings_of(*samples, split=split, layout="coco", class_names=("walk",)) == ""


def test_more_warnings() -> None:
    many = [sample(f"{k}", label=int(k > 10)) for k in range(12)]
    assert "uneven classes in the dataset: 11 samples of 0, 1 of 1" in warnings_of(*many, layout="coco")
    assert "no splits" in warnings_of(*many)
    assert "layout of 17 joints is not known" in warnings_of(*many)
    assert "layout 'mine' is not known here" in warnings_of(*many, layout="mine")
    assert "layout 'openpose' has 18 joints, the samples have 17" in warnings_of(*many, layout="openpose")
    assert "without img_shape" in warnings_of(sample("a", img_shape=...))
    assert "look normalised" in warnings_of(sample("a", keypoint=np.full((1, 30, 17, 2), 0.5), keypoint_score=...))
    percent = sample("a", keypoint_score=np.full((1, 30, 17), 37.0))
    assert "keypoint scores should be from 0 to 1, found 0 to 37" in warnings_of(percent)
    assert "keypoint scores" not in warnings_of(sample("a", keypoint_score=np.full((1, 30, 17), 1.04)))
    scores_third = np.full((1, 30, 17, 3), 300.0)
    assert "3D keypoints should be in metres" in warnings_of(sample("a", keypoint=scores_third, keypoint_score=...))
    assert "1 names that several samples share: a" in warnings_of(sample("a"), sample("a"))
    assert "samples of different shapes" in warnings_of(sample("a"), sample("b", keypoint=np.ones((1, 9, 25, 3))))
    assert "1 of 2 samples have no keypoint scores" in warnings_of(sample("a"), sample("b", keypoint_score=...))
    groups = {"split": {"train1": ("a",), "test1": ("b",)}}
    assert "1 groups are on both sides" in warnings_of(sample("a", group=7), sample("b", group=7), **groups)
    half_empty = sample("a")["keypoint"].copy()
    half_empty[:, :20] = 0
    assert "without anybody in most frames: a" in warnings_of(sample("a", keypoint=half_empty))


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_of_a_report(tmp_path: Path, suffix: str) -> None:
    import cv2

    out = tmp_path / f"report.{suffix}"
    plot_report(inspect_dataset(with_defects()), out)
    assert out.stat().st_size > 1000
    if suffix == "png":
        picture = cv2.imread(str(out))
        assert picture is not None
        assert picture.std() > 5


def test_the_picture_of_a_dataset_without_labels_and_people(tmp_path: Path) -> None:
    empty = sample("a", label=..., keypoint=np.zeros((2, 30, 17, 2)))
    report = inspect_dataset(dataset_of(empty))
    assert report.posed_share is None
    plot_report(report, tmp_path / "report.png")


def test_the_picture_of_more_classes_than_can_be_named(tmp_path: Path) -> None:
    """It was 160,000 pixels high, more than can be drawn."""
    import cv2

    report = inspect_dataset(replace(dataset_of(sample("a", label=0)), class_names=tuple(map(str, range(8000)))))
    plot_report(report, tmp_path / "report.png")
    assert len(cv2.imread(str(tmp_path / "report.png"))) < 1000


# --- merge -------------------------------------------------------------------------------------------------------


def saved(path: Path, *samples: dict[str, Any], half: bool = True, **others: Any) -> Path:
    save_annotations(dataset_of(*samples, **{"layout": "coco", **others}), path, half)
    return path


def test_classes_are_joined_by_name(tmp_path: Path) -> None:
    one = saved(
        tmp_path / "one.pkl",
        sample("a", label=0),
        sample("b", label=1),
        class_names=("walk", "wave"),
        split={"train": ("a",), "val": ("b",)},
        provenance={"pose_model": "yolo", "command": ["one"]},
    )
    two = saved(
        tmp_path / "two.pkl",
        sample("c", label=0),
        sample("d", label=1),
        sample("e", label=...),
        class_names=("fall", "walk"),
        split={"train": ("c", "d"), "test": ("e",)},
        provenance={"pose_model": "yolo", "command": ["two"]},
    )
    merged = merge([one, two], tmp_path / "both.pkl", command=["merge", "one.pkl", "two.pkl"])
    for dataset in (merged, load_annotations(tmp_path / "both.pkl")):
        assert dataset.class_names == ("walk", "wave", "fall")
        assert [(a.frame_dir, a.label) for a in dataset.annotations] == [
            *(("a", 0), ("b", 1), ("c", 2), ("d", 0), ("e", None)),
        ]
        assert dataset.split == {"train": ("a", "c", "d"), "val": ("b",), "test": ("e",)}
        assert dataset.provenance["pose_model"] == "yolo"
        assert dataset.provenance["command"] == ["merge", "one.pkl", "two.pkl"]
        assert [part["command"] for part in dataset.provenance["merged"]] == [["one"], ["two"]]
        assert [part["file"] for part in dataset.provenance["merged"]] == ["one.pkl", "two.pkl"]
        assert dataset.dtype == "float16"
        for name, annotation in zip("abcde", dataset.annotations, strict=True):
            np.testing.assert_array_equal(annotation.keypoint, sample(name)["keypoint"])
    assert merged.annotations[1:3][0].frame_dir == "b"


def test_labels_without_names_stay(tmp_path: Path) -> None:
    one = saved(tmp_path / "one.pkl", sample("a", label=3))
    two = saved(tmp_path / "two.pkl", sample("b", label=5))
    merged = merge([one, two])
    assert merged.class_names is None
    assert [annotation.label for annotation in merged.annotations] == [3, 5]


def test_the_same_sample_twice_is_taken_once(tmp_path: Path) -> None:
    one = saved(tmp_path / "one.pkl", sample("a", label=0), class_names=("walk", "wave"), split={"train": ("a",)})
    two = saved(
        tmp_path / "two.pkl",
        sample("a", label=1),
        sample("b", label=0),
        class_names=("wave", "walk"),
        split={"train": ("a", "b")},
    )
    merged = merge([one, two])
    assert [(annotation.frame_dir, annotation.label) for annotation in merged.annotations] == [("a", 0), ("b", 1)]
    assert merged.split == {"train": ("a", "b")}


@pytest.mark.parametrize("half", [None, True, False])
def test_float16_stays_unless_told_otherwise(tmp_path: Path, half: bool | None) -> None:
    one = saved(tmp_path / "one.pkl", sample("a"))
    two = saved(tmp_path / "two.pkl", sample("b"))
    merge([one, two], tmp_path / "both.pkl", half)
    assert load_annotations(tmp_path / "both.pkl").dtype == ("float32" if half is False else "float16")
    merge([one, saved(tmp_path / "three.pkl", sample("c"), half=False)], tmp_path / "both.pkl", half)
    assert load_annotations(tmp_path / "both.pkl").dtype == ("float16" if half else "float32")


ONE = {"class_names": ("walk", "wave")}


@pytest.mark.parametrize(
    ("others", "changes", "message"),
    [
        ({}, {}, "expected class names"),
        (ONE, {"keypoint": np.ones((1, 30, 18, 2)), "keypoint_score": ...}, "found coco (18 joints, 2D)"),
        (ONE, {"keypoint": np.ones((1, 30, 17, 3)), "keypoint_score": ...}, "found coco (17 joints, 3D)"),
        ({**ONE, "layout": "mine"}, {}, "expected layout coco (17 joints, 2D)"),
        (ONE, {"frame_dir": "a", "seed": 1}, "found different samples of the same name in"),
        (ONE, {"frame_dir": "a", "label": 1}, "found different samples of the same name in"),
        (ONE, {"frame_dir": "a", "keypoint_score": ...}, "found different samples of the same name in"),
        (ONE, {"frame_dir": "a", "keypoint_score": 0 * sample("a")["keypoint_score"]}, "found different samples of"),
        (ONE, {"frame_dir": "a", "img_shape": (1, 1)}, "found different samples of the same name in"),
        (ONE, {"label": 2}, "expected labels in 0 to 1, as its class names, found [2]"),
        ({"class_names": ("walk", "walk")}, {}, "expected different class names, found 'walk' twice"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, others: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    name = changes.get("frame_dir", "b")
    one = saved(tmp_path / "one.pkl", sample("a"), **ONE)
    two = saved(tmp_path / "two.pkl", sample(name, **changes), **others)
    with pytest.raises(SkelactError) as error:
        merge([one, two], tmp_path / "both.pkl")
    assert message in str(error.value)
    assert not (tmp_path / "both.pkl").exists()


def test_one_dataset_is_too_few(tmp_path: Path) -> None:
    one = saved(tmp_path / "one.pkl", sample("a"))
    with pytest.raises(SkelactError, match="two datasets or more, found 1"):
        merge([one])
    with pytest.raises(SkelactError, match="found one twice"):
        merge([one, one])


def test_a_sample_that_is_trained_on_here_and_tested_on_there_is_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = saved(tmp_path / "one.pkl", sample("a"), sample("b"), split={"train": ("a",), "val": ("b",)})
    two = saved(tmp_path / "two.pkl", sample("a"), sample("c"), split={"train": ("c",), "val": ("a",)})
    own = saved(tmp_path / "own.pkl", sample("d"), split={"train": ("d",), "all": ("d",)})
    merge([one, own])
    assert "split" not in caplog.text, "of a dataset that says so itself nothing is said"
    merge([one, two])
    assert "the datasets split 1 samples differently: they are in both train and val now" in caplog.text


def test_a_layout_that_one_dataset_tells_is_that_of_all(tmp_path: Path) -> None:
    guessed, told = saved(tmp_path / "one.pkl", sample("a"), layout=None), saved(tmp_path / "two.pkl", sample("b"))
    other = saved(tmp_path / "three.pkl", sample("c"), layout=None)
    for pair, expected in (([guessed, told], False), ([told, guessed], False), ([guessed, other], True)):
        merge(pair, tmp_path / "both.pkl")
        both = load_annotations(tmp_path / "both.pkl")
        assert (both.layout, both.layout_guessed) == ("coco", expected)


def test_samples_without_splits_are_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = saved(tmp_path / "one.pkl", sample("a"), split={"train": ("a",)})
    merge([one, saved(tmp_path / "two.pkl", sample("b"))])
    assert "two.pkl has no splits" in caplog.text


# --- command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def run() -> Iterator[Any]:
    level = logging.getLogger("skelact").level

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    yield invoke
    logging.getLogger("skelact").setLevel(level)


def test_info_prints_a_report(tmp_path: Path, run: Any) -> None:
    save_annotations(with_defects(), tmp_path / "defects.pkl")
    result = run("info", tmp_path / "defects.pkl", "--plot", tmp_path / "report.png")
    assert result.exit_code == 0, result.output
    for text in ("10, 330 frames", "coco (17 joints, 2D, with scores, float32)", "train 6, val 4", "fall", "30 to 60"):
        assert text in result.stdout
    assert "warning: 1 sample without a single pose: s2_empty" in result.stdout
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_info_writes_no_two_outputs_into_one_file(tmp_path: Path, run: Any) -> None:
    save_annotations(with_defects(), tmp_path / "defects.pkl")
    result = run("info", tmp_path / "defects.pkl", "--plot", tmp_path / "a.png", "--json", tmp_path / "a.png")
    assert result.exit_code == 2
    assert "--json and --plot: expected a path of its own for each" in result.stderr
    assert not (tmp_path / "a.png").exists()


def test_info_as_json(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save_annotations(with_defects(), tmp_path / "defects.pkl")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/skelact", "info", "defects.pkl"])
    result = run("info", tmp_path / "defects.pkl", "--json", "-")
    report = json.loads(result.stdout)
    assert (report["schema_version"], report["command"]) == (1, ["skelact", "info", "defects.pkl"])
    assert report["versions"]["skelact"] == skelact.__version__
    assert report["dataset"] == json.loads(json.dumps(skelact.inspect_dataset(tmp_path / "defects.pkl").to_dict()))
    assert isinstance(skelact.inspect_dataset(tmp_path / "defects.pkl"), DatasetReport)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"img_shape": ..., "keypoint": np.random.default_rng(0).normal(size=(1, 12, 17, 2)), "keypoint_score": ...},
        {"keypoint": np.random.default_rng(0).normal(size=(1, 12, 25, 3)), "keypoint_score": ..., "img_shape": ...},
        {"keypoint": np.random.default_rng(0).uniform(0, 700, (1, 12, 5, 2)), "keypoint_score": ..., "label": ...},
        {"keypoint": np.zeros((1, 12, 17, 2)), "keypoint_score": ..., "label": 9},
    ],
    ids=["2D", "normalised", "3D", "unknown layout", "nobody"],
)
@pytest.mark.parametrize("which", ["1", "b"])
def test_info_shows_a_sample(tmp_path: Path, run: Any, changes: dict[str, Any], which: str) -> None:
    first = sample("a", keypoint=changes.get("keypoint", sample("a")["keypoint"]), keypoint_score=...)
    path = saved(tmp_path / "a.pkl", first, sample("b", num_frames=12, **changes), class_names=("walk",), layout=None)
    result = run("info", path, "--show", which, "--out", tmp_path / "b.mp4")
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "b.mp4")) as video:
        frames = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]
    assert len(frames) == 12
    if changes.get("label") != 9:
        assert (frames[5][100:] > 200).sum() > 20  # somebody is drawn


def test_info_refuses(tmp_path: Path, run: Any) -> None:
    path = saved(tmp_path / "a.pkl", sample("a"))
    result = run("info", path, "--show", "7", "--out", tmp_path / "a.mp4")
    assert result.exit_code == 1
    assert "expected --show with a number from 0 to 0 or a name such as 'a', found '7'" in result.stderr
    assert run("info", path, "--show", "0").exit_code == 2
    assert run("info", "ntu60-2d-joint", "--plot", tmp_path / "a.png").exit_code == 2
    (tmp_path / "b.pkl").write_bytes(b"nonsense")
    assert "expected a pickle" in run("info", tmp_path / "b.pkl").stderr


def test_merge_on_the_command_line(tmp_path: Path, run: Any) -> None:
    one = saved(tmp_path / "one.pkl", sample("a"), class_names=("walk",), half=False)
    two = saved(tmp_path / "two.pkl", sample("b"), class_names=("wave",), half=False)
    result = run("merge", one, two, "--out", tmp_path / "both.pkl", "--half")
    assert result.exit_code == 0, result.output
    assert "2 samples, 2 classes" in result.stderr
    assert load_annotations(tmp_path / "both.pkl").dtype == "float16"
    assert run("merge", one, two, "--out", tmp_path / "both.pkl", "--quiet").output == ""
    assert run("merge", one, "--out", tmp_path / "both.pkl").exit_code == 1
    assert run("merge", one, two).exit_code == 2
