"""The script that asks whether a network tells actions or only where its samples are from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import other_sources
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from stand_ins import classifier_file, script_output

from skelact.annotations import Annotation, AnnotationSet, save_annotations
from skelact.checkpoint import load_checkpoint
from skelact.skeleton import COCO
from skelact.structures import Array


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes that two sources share; one looks at people from above."""
    rng = np.random.default_rng(0)
    body = rng.uniform(100, 300, (17, 2)).astype(np.float32)
    samples = []
    for n in range(120):
        source, label = ("home", "drawn")[n % 2], n // 2 % 2
        keypoint = np.repeat(body[None, None], 20, 1) + rng.normal(0, 25, (1, 1, 17, 2))
        keypoint[..., 0] += np.linspace(0, 100 * label, 20)[:, None]
        keypoint[..., 1] *= 0.4 if source == "home" else 1.0
        extra: dict[str, Any] = {"source": source, "group": f"{source}{n // 2 % 10}"}
        score = np.ones(keypoint.shape[:3], np.float32)
        samples.append(Annotation(f"{n}", keypoint.astype(np.float32), score, (480, 640), label=label, extra=extra))
    names = tuple(sample.frame_dir for sample in samples)
    path = tmp_path / "data.pkl"
    save_annotations(
        AnnotationSet(samples, {"train": names[:100], "val": names[100:]}, ("stay", "go"), COCO.name), path
    )
    return path


def test_nothing_linear_tells_two_groups_apart_after_an_erasure() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    one = rng.random(400) < 0.3
    features[one] += (1, 0, 0, 2, 0, 0)
    weight = np.where(one, 1 / one.sum(), 1 / (~one).sum())

    def told(parts: Array) -> float:
        found = LogisticRegression(C=100, max_iter=2000).fit(parts, one, sample_weight=weight * 200)
        return float(found.score(parts, one, sample_weight=weight))

    projection, offset = other_sources.erasure(features, one, weight, ridge=0.0)
    erased = features @ projection.T + offset
    assert told(features) > 0.8
    assert told(erased) == pytest.approx(0.5, abs=0.03)
    assert np.allclose(weight @ erased, weight @ features), "the mean of all stays"
    assert np.linalg.matrix_rank(erased - erased.mean(0)) == 5, "one direction is lost, no more"


def test_a_head_is_made_blind_to_where_samples_are_from(data: Path, tmp_path: Path) -> None:
    before, after = classifier_file(tmp_path / "before.safetensors", ("stay", "go")), tmp_path / "after.safetensors"
    script_output(other_sources.main, "erase", data, before, "--out", after)
    told = {
        path: json.loads(script_output(other_sources.main, "telling", data, "--model", path))
        for path in (before, after)
    }
    assert told[before]["classes"] == ["go", "stay"]
    assert told[before]["features"] > 0.9
    assert told[after]["features"] == told[before]["features"], "the layers below the head are as they were"
    assert told[after]["seen_by_head"] <= 0.6 < told[before]["seen_by_head"]
    calibration = load_checkpoint(after).metrics["calibration"]
    assert (calibration["split"], calibration["num_samples"]) == ("val", 20)


def test_a_head_finds_what_is_left_of_the_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    features = rng.normal(size=(200, 3)) + 4 * np.eye(3)[labels]
    weight, bias = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    free, held = (other_sources.fitted_head(weight, bias, features, labels, hold) for hold in (0.01, 1000.0))
    answers = F.linear(torch.from_numpy(features), *free)
    assert (answers.argmax(1).numpy() == labels).mean() > 0.98
    assert held[0].abs().max() < 0.01, "held to what it was"
    assert not weight.any()
