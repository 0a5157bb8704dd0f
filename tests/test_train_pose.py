"""scripts/train_pose.py: what the figures of skelact-pose mean, and what it learns from its teacher."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

STANDING = np.stack([np.linspace(40, 60, 17), np.linspace(20, 180, 17), np.ones(17)], 1).astype(np.float32)


@pytest.fixture(scope="module")
def train_pose() -> Iterator[Any]:
    """The script; it sets what ultralytics reads when it is imported."""
    pytest.importorskip("openvino")  # which runs the teacher
    before = dict(os.environ)
    yield import_module("train_pose")
    os.environ.clear()
    os.environ.update(before)


def photo(train_pose: Any, *people: Any) -> Any:
    """A photograph of people in boxes around their joints."""
    keypoint = np.stack(people)
    bbox = np.concatenate([keypoint[..., :2].min(1) - 5, keypoint[..., :2].max(1) + 5], 1)
    return train_pose.Photo(Path("a.jpg"), "a.jpg", "val", (200, 300), bbox, np.ones(len(people)), keypoint, None)


def answer(train_pose: Any, of: Any) -> Any:
    return train_pose.Found(of.bbox, of.bbox_score, of.keypoint)


def moved(person: Any, by: float) -> Any:
    return person + np.array([by, 0, 0], np.float32)


def test_who_finds_what_the_teacher_found_has_full_marks(train_pose: Any) -> None:
    two = photo(train_pose, STANDING, moved(STANDING, 100))
    scores = train_pose.score_poses([two], [answer(train_pose, two)])
    assert (scores.box_ap50, scores.oks_ap50, scores.oks_ap, scores.found) == pytest.approx((1, 1, 1, 1))
    assert np.isnan(scores.pck), "nobody marked joints by hand"


def test_poses_that_are_wrong_or_missing_cost(train_pose: Any) -> None:
    two = photo(train_pose, STANDING, moved(STANDING, 100))
    askew = replace(answer(train_pose, two), keypoint=two.keypoint + np.array([[[0, 0, 0]], [[30, 0, 0]]], np.float32))
    scores = train_pose.score_poses([two], [askew])
    assert (scores.box_ap50, scores.found) == pytest.approx((1, 1))
    assert 0.4 < scores.oks_ap50 < 0.6
    scores = train_pose.score_poses([two], [answer(train_pose, photo(train_pose, STANDING))])
    assert scores.found == 0.5
    assert 0.4 < scores.box_ap50 < 0.6


def test_the_learning_rate_rises_stays_and_falls_to_the_end(train_pose: Any) -> None:
    plan = train_pose.Plan(end=1000.0, decay_s=100.0)
    assert plan.lr_factor(0.0, 5) == 0.1
    assert plan.lr_factor(800.0, 900) == 1
    assert plan.lr_factor(950.0, 900) == 0.5
    assert plan.lr_factor(1001.0, 900) == 0.01


class AnswersLike:
    """A teacher who answers what it was given, whatever the picture."""

    def __init__(self, heads: dict[str, torch.Tensor]) -> None:
        self.heads = [heads[name].detach().transpose(1, 2) for name in ("boxes", "scores", "kpts")]

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.heads


@pytest.fixture(scope="module")
def network(train_pose: Any) -> Any:
    from ultralytics.nn.tasks import PoseModel
    from ultralytics.utils import DEFAULT_CFG

    torch.manual_seed(0)
    model = PoseModel("yolo11n-pose.yaml", data_kpt_shape=(17, 3), verbose=False)
    model.args = DEFAULT_CFG
    return model.train()


def test_whoever_answers_as_the_teacher_has_nothing_to_learn(train_pose: Any, network: Any) -> None:
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        heads = network(images)
    heads["scores"] += 6  # of an untrained network: sure of nothing
    teacher = AnswersLike(heads)
    loss = train_pose.DensePoseLoss(network, teacher)

    answers = {name: value.clone().requires_grad_() for name, value in heads.items() if name != "feats"}
    same, _ = loss.loss({**answers, "feats": heads["feats"]}, {"img": images})
    same.sum().backward()
    for name, values in answers.items():
        assert values.grad is not None
        assert values.grad.abs().max() < 1e-3, name
    box, pose, _, _, dfl = same.tolist()
    assert (box, pose, dfl) == pytest.approx((0, 0, 0), abs=1e-3)

    for name in answers:
        worse, _ = loss.loss({**heads, name: heads[name] + torch.randn_like(heads[name])}, {"img": images})
        assert worse.sum() > same.sum() + 0.01, name


def test_the_part_for_large_people_can_begin_anew(train_pose: Any, network: Any) -> None:
    parts = train_pose.large_parts(network)
    others = {name: value.clone() for name, value in network.state_dict().items()}
    train_pose.begin_large_anew(network)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, others[name])}
    of_parts = {id(value) for part in parts for value in part.state_dict(keep_vars=True).values()}
    state = network.state_dict(keep_vars=True)
    assert changed
    assert all(id(state[name]) in of_parts for name in changed)
    scores = parts[3][-1].bias
    assert torch.equal(scores, torch.full_like(scores, -4.0)), "few places have somebody"


def test_the_forward_pass_alone_is_in_bf16(train_pose: Any) -> None:
    convolution = torch.nn.Conv2d(3, 4, 1)
    seen = SimpleNamespace()

    def predict(images: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.dtype = convolution(images).dtype
        return {"boxes": convolution(images)}

    assert train_pose.in_bf16(predict)(torch.rand(1, 3, 8, 8))["boxes"].dtype == torch.float32
    assert seen.dtype == torch.bfloat16
