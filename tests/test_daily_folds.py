"""The script that tells what to expect of skelact-daily on people and actions that it was not trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import daily_folds
import numpy as np
import pytest
from stand_ins import classifier_file, script_output

import skelact
from skelact.annotations import Annotation, AnnotationSet, open_annotations, save_annotations
from skelact.classifier import Classifier
from skelact.skeleton import COCO

CLASSES = ("clap", *(name for names in daily_folds.KEPT_OUT for name in names), "unknown", "walk")


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    """Three people who walk, clap and do what has no name, seen by two pose models; others play golf; one is drawn."""
    rng = np.random.default_rng(0)
    samples = []
    for n, (source, group, name) in enumerate(
        [("home", f"home-{k}", name) for k in range(3) for name in ("clap", "walk", "unknown")] * 2
        + [("jhmdb", f"jhmdb{k}", "golf swing") for k in range(4)]
        + [("drawn", "drawn0", "walk")]
    ):
        own = "~own" if 9 <= n < 18 else ""
        keypoint, score = rng.uniform(100, 300, (1, 20, 17, 2)).astype(np.float32), np.ones((1, 20, 17), np.float32)
        extra = {"source": source, "group": group}
        samples.append(Annotation(f"{n}{own}", keypoint, score, (480, 640), CLASSES.index(name), extra))
    save_annotations(AnnotationSet(samples, {}, CLASSES, COCO.name), tmp_path / "data.pkl")
    script_output(daily_folds.main, "make", tmp_path / "data.pkl", "--out", tmp_path / "folds")
    return tmp_path / "folds"


def test_each_real_sample_is_left_out_once_and_what_is_drawn_never(folds: Path) -> None:
    left_out: list[str] = []
    for fold, kept_out in enumerate(daily_folds.KEPT_OUT):
        dataset = open_annotations(folds / f"{fold}.pkl")
        samples = {sample.frame_dir: sample for sample in dataset.annotations}
        groups = {split: {samples[name].extra["group"] for name in names} for split, names in dataset.split.items()}
        assert groups["known"].isdisjoint(groups["train"])
        assert "drawn0" in groups["train"]
        named = {CLASSES[samples[name].label or 0] for name in dataset.split["kept_out"]}
        assert named == ({"golf swing"} if "golf swing" in kept_out else set())
        left_out += dataset.split["known"]
    assert sorted(name for name in left_out if int(name.split("~")[0]) < 18) == sorted(
        f"{n}{'~own' if n > 8 else ''}" for n in range(18)
    )


def test_sources_and_pose_models_are_told_apart_and_the_threshold_is_that_of_the_others(
    folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daily_folds, "KEPT_OUT", daily_folds.KEPT_OUT[:1] * 3)
    script_output(daily_folds.main, "make", folds.parent / "data.pkl", "--out", folds)
    classifier_file(tmp_path / "network.safetensors", CLASSES)
    rows = [
        json.loads(line)
        for line in script_output(
            daily_folds.main, "measure", folds, "--model", tmp_path / "network.safetensors"
        ).splitlines()
    ]
    assert [row.get("source") for row in rows[:2]] == ["home", "home, own"]
    assert [row.get("samples") for row in rows[:2]] == [9, 9]
    told = [(row["losing"], row["actions"]) for row in rows[2:]]
    assert told == [
        (f"0.1 of {counted}", actions) for counted in ("known", "right") for actions in ("known", "kept_out")
    ]
    known, kept_out = rows[2:4]  # none of it is right
    assert set(known["of_class"]) == {"clap", "walk"}, "what has no name can't be lost"
    assert set(kept_out["of_class"]) == {"golf swing"}


def test_a_threshold_loses_a_share_and_what_is_unknown_anyway_counts() -> None:
    best = np.linspace(0.2, 0.9, 20)
    scores = np.stack([best, np.zeros(20)], 1)
    threshold = daily_folds.threshold_that_loses(0.1, scores, unknown=1)
    assert daily_folds.is_unknown(scores, 1, threshold).sum() == 2
    scores[-1] = 0.1, 0.9
    threshold = daily_folds.threshold_that_loses(0.1, scores, unknown=1)
    assert list(np.flatnonzero(daily_folds.is_unknown(scores, 1, threshold))) == [0, 19]


def test_a_limit_and_a_threshold_are_written_into_the_checkpoints(folds: Path, tmp_path: Path) -> None:
    dataset = open_annotations(folds.parent / "data.pkl")
    samples = list(dataset.annotations)
    split = {"val": tuple(sample.frame_dir for sample in samples[:12])}
    save_annotations(replace(dataset, annotations=samples, split=split), tmp_path / "val.pkl")
    models = [classifier_file(tmp_path / f"{k}.safetensors", CLASSES, seed=k) for k in range(2)]
    options = [word for model in models for word in ("--model", model)]
    output = script_output(daily_folds.main, "limit", tmp_path / "val.pkl", *options, "--losing", 0.25)
    told = json.loads(output)
    classifier = Classifier(models)
    assert [member.energy_limit for member in classifier.members] == told["energy_limits"]
    assert [member.unknown_below for member in classifier.members] == [told["unknown_below"]] * 2
    tested = skelact.test(tmp_path / "val.pkl", models, split="val", progress=False)
    unknown = CLASSES.index("unknown")
    lost = daily_folds.is_unknown(tested.scores, unknown, told["unknown_below"])[tested.labels != unknown]
    assert lost.mean() == pytest.approx(told["lost"], abs=1e-3)
