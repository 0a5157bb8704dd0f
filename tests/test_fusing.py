"""``skelact fuse``: dumps of several families, of the same samples or refused."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from stand_ins import Hostile, classifier_file

import skelact
from skelact.annotations import Annotation, AnnotationSet, open_annotations, save_annotations
from skelact.cli import main
from skelact.dumps import ScoreDump, load_dump, save_dump
from skelact.errors import SkelactError
from skelact.metrics import softmax
from skelact.structures import Array

# Four samples of three classes. The joints take the third for the first, the bones the fourth for the second.
LABELS = np.array([0, 1, 2, 0])
JOINT = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4], [0.6, 0.2, 0.2]])
BONE = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [0.4, 0.5, 0.1]])


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """``--quiet`` is for the rest of a process."""
    yield
    logging.getLogger("skelact").setLevel(logging.NOTSET)


@pytest.fixture
def joint(tmp_path: Path) -> Path:
    return mmaction2(tmp_path / "joint.pkl", JOINT)


@pytest.fixture
def bone(tmp_path: Path) -> Path:
    return mmaction2(tmp_path / "bone.pkl", BONE)


def mmaction2(path: Path, scores: Array, labels: Array = LABELS) -> Path:
    samples = [
        {"pred_score": torch.tensor(row), "gt_label": torch.tensor([label])}
        for row, label in zip(scores, labels, strict=True)
    ]
    path.write_bytes(pickle.dumps(samples))
    return path


def pyskl(path: Path, scores: Array) -> Path:
    path.write_bytes(pickle.dumps(list(scores.astype(np.float32))))
    return path


def dataset(path: Path, labels: Array = LABELS, **options: Any) -> Path:
    """Its split ``val`` holds these samples, between others."""
    keypoint = np.ones((1, 5, 17, 2), np.float32)
    samples = [Annotation(f"s{k}", keypoint, None, (100, 100), int(label)) for k, label in enumerate(labels)]
    others = [Annotation(f"t{k}", keypoint, None, (100, 100), 1) for k in range(2)]
    split = {"val": tuple(sample.frame_dir for sample in reversed(samples)), "train": ("t0", "t1")}
    options = {"class_names": ("wave", "walk", "stand"), **options}
    save_annotations(AnnotationSet([others[0], *samples, others[1]], split, **options), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="skelact")


def test_two_streams_are_better_than_one(joint: Path, bone: Path) -> None:
    assert skelact.fuse([joint]).metrics.top1 == 0.75
    assert skelact.fuse([bone]).metrics.top1 == 0.75
    both = skelact.fuse([joint, bone])
    assert both.metrics.top1 == 1
    assert both.scores == pytest.approx((JOINT + BONE) / 2)
    assert both.labels.tolist() == LABELS.tolist()
    weighted = skelact.fuse([joint, bone], fusion_weights=[9, 1])
    assert weighted.scores == pytest.approx(0.9 * JOINT + 0.1 * BONE)
    assert weighted.metrics.top1 == 0.75
    assert [source["fusion_weight"] for source in weighted.sources] == [9, 1]


def test_logits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logits = [np.log(scores) * 3 + 5 for scores in (JOINT, BONE)]
    paths = [mmaction2(tmp_path / f"{k}.pkl", values) for k, values in enumerate(logits)]
    found = skelact.fuse(paths, softmax=True)
    assert found.scores == pytest.approx((softmax(logits[0]) + softmax(logits[1])) / 2)
    assert found.metrics.ece is not None
    assert not caplog.text
    assert skelact.fuse(paths).metrics.ece is None, "of logits there is none"
    assert "0.pkl: its values are no probabilities; if they are logits, take --softmax" in caplog.text


def test_softmax_of_scores_is_told(joint: Path, caplog: pytest.LogCaptureFixture) -> None:
    skelact.fuse([joint], softmax=True)
    assert "joint.pkl: its values sum to 1 already" in caplog.text


def test_bare_scores_take_their_labels_from_the_dataset(joint: Path, tmp_path: Path) -> None:
    """In the dataset's order, whatever that of the split is."""
    bare = pyskl(tmp_path / "bare.pkl", BONE)
    data = dataset(tmp_path / "set.pkl")
    found = skelact.fuse([bare], labels=data, split="val")
    assert found.metrics.top1 == 0.75
    assert found.class_names == ("wave", "walk", "stand")
    assert found.names == ("s0", "s1", "s2", "s3")
    assert skelact.fuse([joint, bare], labels=data, split="val").metrics.top1 == 1
    assert skelact.fuse([bare, joint]).metrics.top1 == 1, "the other dump's labels do too"
    whole = open_annotations(data)
    names = (*whole.split["val"], "u")
    extra = replace(whole.annotations[0], frame_dir="u", label=None)
    more = replace(whole, annotations=[extra, *whole.annotations], split={"val": names})
    save_annotations(more, tmp_path / "more.pkl")
    assert skelact.fuse([bare], labels=tmp_path / "more.pkl", split="val").metrics.top1 == 0.75, "as `test` writes them"
    with pytest.raises(SkelactError, match=r"bare.pkl: expected labels, found scores only; .* --labels"):
        skelact.fuse([bare, bare])


def test_dumps_of_our_own(tmp_path: Path) -> None:
    """Fused after the test as in the test."""
    data = dataset(tmp_path / "set.pkl", class_names=None)
    models = [classifier_file(tmp_path / f"{stream}.safetensors", stream=stream) for stream in ("joint", "bone")]
    dumps = [tmp_path / f"{model.stem}.pkl" for model in models]
    for model, dump in zip(models, dumps, strict=True):
        skelact.test(data, model, clips=1, dump=dump, progress=False)
    expected = skelact.test(data, models, fusion_weights=[2, 1], clips=1, progress=False)
    found = skelact.fuse(dumps, fusion_weights=[2, 1], dump=tmp_path / "fused.pkl")
    assert found.scores == pytest.approx(expected.scores, abs=1e-6)
    assert found.names == expected.names
    assert found.metrics.top1 == expected.metrics.top1
    again = load_dump(tmp_path / "fused.pkl")
    assert again.scores == pytest.approx(expected.scores, abs=1e-6)
    assert again.labels is not None
    assert (again.names, again.labels.tolist()) == (expected.names, expected.labels.tolist())


# --- what does not belong together -------------------------------------------------------------------------------


def test_dumps_of_other_samples_are_refused(joint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pkl"
    with pytest.raises(SkelactError, match=r"other.pkl: expected 4 samples of 3 classes as in .*, found 3 of 3"):
        skelact.fuse([joint, mmaction2(other, BONE[:3], LABELS[:3])])
    with pytest.raises(SkelactError, match="found 4 of 2"):
        skelact.fuse([joint, pyskl(other, BONE[:, :2])])
    with pytest.raises(SkelactError, match=r"other.pkl: .* found others: sample 1 has label 2, there it has 1"):
        skelact.fuse([joint, mmaction2(other, BONE, np.array([0, 2, 1, 0]))])
    names = ("a", "b", "c", "d")
    save_dump(ScoreDump(JOINT, LABELS, names), tmp_path / "named.pkl")
    save_dump(ScoreDump(BONE, LABELS, names[:2] + names[:1:-1]), other)
    with pytest.raises(SkelactError, match="found others: sample 2 has name d, there it has c"):
        skelact.fuse([tmp_path / "named.pkl", joint, other])


def test_labels_that_are_not_those_of_the_dumps(joint: Path, tmp_path: Path) -> None:
    bare = pyskl(tmp_path / "bare.pkl", BONE)
    data = dataset(tmp_path / "set.pkl")
    with pytest.raises(SkelactError, match=r"set.pkl: expected 4 samples as in .*bare.pkl, found 6; --split takes"):
        skelact.fuse([bare], labels=data)
    with pytest.raises(SkelactError, match="found 2"):
        skelact.fuse([bare], labels=data, split="train")
    with pytest.raises(SkelactError, match="split 'xsub_val': expected one of the dataset's splits"):
        skelact.fuse([bare], labels=data, split="xsub_val")
    with pytest.raises(SkelactError, match="give it with --labels"):
        skelact.fuse([bare], split="val")
    with pytest.raises(SkelactError, match=r"set.pkl, split 'val': .* sample 1 has label 0, there it has 1"):
        skelact.fuse([joint], labels=dataset(data, np.array([0, 0, 2, 0])), split="val")
    with pytest.raises(SkelactError, match=r"sample s2: expected a label in 0\.\.2, .* found 7"):
        skelact.fuse([bare], labels=dataset(data, np.array([0, 0, 7, 0])), split="val")


def test_nothing_is_run_and_nothing_destroyed(joint: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps([Hostile(trace)]))
    with pytest.raises(SkelactError, match="refused, nothing was run"):
        skelact.fuse([joint, tmp_path / "hostile.pkl"])
    assert not trace.exists()
    before = joint.read_bytes()
    with pytest.raises(SkelactError, match="the output would replace its source"):
        skelact.fuse([joint], dump=joint)
    assert joint.read_bytes() == before
    with pytest.raises(SkelactError, match="expected at least one score dump"):
        skelact.fuse([])
    with pytest.raises(SkelactError, match="fusion weights: expected 1, one a dump, found 2"):
        skelact.fuse([joint], fusion_weights=[1, 1])


# --- the command -------------------------------------------------------------------------------------------------


def test_from_the_command_line(joint: Path, tmp_path: Path) -> None:
    bare = pyskl(tmp_path / "bare.pkl", BONE)
    data = dataset(tmp_path / "set.pkl")
    result = run(
        *("fuse", joint, bare, "--fusion-weights", "1,1", "--labels", data, "--split", "val"),
        *("--dump", tmp_path / "fused.pkl", "--json", tmp_path / "metrics.json", "--plot", tmp_path / "confusion.png"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{joint} + {bare}: 4 samples, 3 classes" in result.stdout
    assert "top-1                100.00" in result.stdout
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["metrics"]["confusion"] == [[2, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert [source["file"] for source in content["sources"]] == ["joint.pkl", "bare.pkl"]
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert load_dump(tmp_path / "fused.pkl").scores == pytest.approx((JOINT + BONE) / 2)
    as_json = run("fuse", joint, "--quiet", "--softmax", "--json", "-")
    assert as_json.exit_code == 0
    assert json.loads(as_json.stdout)["settings"]["softmax"] is True
    assert "WARNING" not in as_json.stderr
    wrong = run("fuse", joint, "--fusion-weights", "one")
    assert (wrong.exit_code, "'one' is not a valid number" in wrong.stderr) == (2, True)
