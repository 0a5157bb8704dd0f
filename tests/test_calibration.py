"""Temperatures and thresholds, from how they are found to the answer ``unknown``."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from stand_ins import CLASSES, classifier_file

import skelact
from skelact.calibration import (
    Calibration,
    calibrate,
    choose_threshold,
    coverage_risk,
    energy_of,
    fit_temperature,
    scores_of,
)
from skelact.checkpoint import load_checkpoint, save_checkpoint
from skelact.classifier import Classifier
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.metrics import calibration_error, softmax
from skelact.structures import Array


def honest_samples(num_samples: int = 4000, num_classes: int = 5) -> tuple[Array, Array]:
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (num_samples, num_classes))
    labels = np.array([rng.choice(num_classes, p=p) for p in softmax(logits)])
    return logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_logits_that_are_too_large_are_found_out(factor: float) -> None:
    logits, labels = honest_samples()
    temperature = fit_temperature(factor * logits, labels)
    assert temperature == pytest.approx(factor, rel=0.05)
    assert calibration_error(scores_of(factor * logits, temperature), labels) < 0.03


def test_no_other_temperature_makes_the_labels_likelier() -> None:
    logits, labels = honest_samples(500)

    def loss(temperature: float) -> float:
        likely = scores_of(logits * 2, temperature)[np.arange(500), labels]
        return float(np.log(temperature) ** 2 / 2 - np.log(likely).sum())

    found = fit_temperature(logits * 2, labels)
    assert loss(found) <= min(map(loss, np.geomspace(0.05, 20, 2000))) + 1e-4


def test_a_few_samples_that_are_all_right_do_not_make_the_network_sure() -> None:
    logits = 2 * np.eye(3)
    assert 0.2 < fit_temperature(logits, np.arange(3)) < 1
    assert 0.7 < fit_temperature(20 * logits, np.arange(3)) < 1.05
    assert 1 < fit_temperature(20 * logits, np.array([1, 2, 0])) <= 20, "all wrong and sure of it"


def test_the_mean_over_clips_is_what_is_calibrated() -> None:
    logits, labels = honest_samples(500)
    clips = np.stack([logits, logits], axis=1)
    assert fit_temperature(clips, labels) == fit_temperature(logits, labels)
    assert scores_of(clips).shape == (500, 5)
    other = np.stack([logits, logits[::-1]], axis=1)
    np.testing.assert_allclose(scores_of(other), (softmax(logits) + softmax(logits)[::-1]) / 2)


def test_coverage_and_risk_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 1])
    coverage, risk = coverage_risk(scores, labels, np.array([0.0, 0.65, 0.7, 0.85, 0.95]))
    assert coverage.tolist() == [1, 0.75, 0.75, 0.25, 0]
    assert risk == pytest.approx([0.5, 1 / 3, 1 / 3, 0, 0])


def test_the_threshold_keeps_the_right_answers() -> None:
    """Of 40 right answers a new one is below the second with a chance of 2 / 41; wrong ones don't matter."""
    best = np.linspace(0.51, 0.9, 40)
    scores = np.stack([best, 1 - best], axis=1)
    assert choose_threshold(scores, np.zeros(40, int)) == pytest.approx(best[1])
    mixed, labels = np.concatenate([scores, scores]), np.repeat([0, 1], 40)
    assert choose_threshold(mixed, labels) == pytest.approx(best[1])
    assert choose_threshold(scores, np.zeros(40, int), kept=0.5) == pytest.approx(best[19])
    assert choose_threshold(scores, np.zeros(40, int), kept=1.0) == 0
    assert choose_threshold(scores, np.ones(40, int)) == 0, "none is right"
    assert choose_threshold(scores[:19], np.zeros(19, int)) == pytest.approx(best[0])
    assert choose_threshold(scores[:18], np.zeros(18, int)) == 0, "too few to promise 95 %"


def test_new_samples_keep_their_right_answers_too() -> None:
    """On average over validation sets of 30 samples, all right."""
    rng = np.random.default_rng(0)
    lost = []
    for _ in range(2000):
        best = rng.uniform(0.5, 1, 31)
        scores = np.stack([best, 1 - best], axis=1)
        lost.append(best[30] < choose_threshold(scores[:30], np.zeros(30, int)))
    assert 0.02 < np.mean(lost) <= 0.05


def test_a_calibration_tells_what_it_costs() -> None:
    logits, labels = honest_samples()
    found = calibrate(3 * logits, labels, "val")
    scores = scores_of(3 * logits, found.temperature)
    right = scores.argmax(1) == labels
    kept = scores.max(1) >= found.unknown_below
    assert kept[right].mean() == pytest.approx(0.95, abs=0.001)
    assert found.coverage == pytest.approx(kept.mean())
    assert found.risk == pytest.approx(1 - right[kept].mean())
    assert found.risk < 1 - right.mean()
    assert (found.split, found.num_samples) == ("val", 4000)
    assert Calibration(**json.loads(json.dumps(asdict(found)))) == found


def test_logits_that_are_no_numbers() -> None:
    with pytest.raises(SkelactError, match="sample 1: its scores are no numbers"):
        calibrate(np.array([[0.0, 1.0], [np.inf, 0.0]]), np.array([0, 1]))
    with pytest.raises(SkelactError, match=r"expected labels in 0\.\.1"):
        calibrate(np.zeros((2, 2)), np.array([0, 2]))


# --- predict -----------------------------------------------------------------------------------------------------


@pytest.fixture
def poses(tmp_path: Path) -> Path:
    keypoint = np.random.default_rng(0).normal(0, 20, (1, 40, 17, 2)).cumsum(axis=1) + 500
    (tmp_path / "poses.pkl").write_bytes(pickle.dumps([{"frame_dir": "a", "keypoint": keypoint, "label": 0}]))
    return tmp_path / "poses.pkl"


def calibrated(path: Path, seed: int = 0, **calibration: Any) -> Path:
    """A small classifier with this calibration in its metrics."""
    checkpoint = load_checkpoint(classifier_file(path, seed=seed))
    save_checkpoint(replace(checkpoint, metrics={"calibration": calibration}), path)
    return path


def answer(poses: Path, *models: Path, **options: Any) -> Any:
    predictions = skelact.predict(poses, models, clips=1, progress=False, **options)
    assert predictions.results[0].error is None
    return predictions.results[0].predictions[0], predictions.settings["unknown_below"]


def test_the_checkpoints_temperature_divides_the_logits(poses: Path, tmp_path: Path) -> None:
    cold, _ = answer(poses, calibrated(tmp_path / "a.safetensors"))
    warm, _ = answer(poses, calibrated(tmp_path / "b.safetensors", temperature=2.5))
    expected = cold.scores ** (1 / 2.5)
    assert warm.scores == pytest.approx(expected / expected.sum())
    assert warm.class_name == cold.class_name
    assert Classifier([tmp_path / "b.safetensors"]).describe()[0]["temperature"] == 2.5


def test_an_answer_that_is_not_likely_enough_is_unknown(poses: Path, tmp_path: Path) -> None:
    model = calibrated(tmp_path / "a.safetensors", unknown_below=0.999999)
    told, threshold = answer(poses, model, topk=2)
    assert (told.class_name, threshold) == ("unknown", 0.999999)
    assert [name in CLASSES for name, _ in told.top_k] == [True, True], "the classes can still be seen"
    assert told.score == told.top_k[0][1] < 0.999999
    for options in ({"unknown_below": None}, {"unknown_below": told.score}, {"classes": CLASSES[:3]}):
        named, threshold = answer(poses, model, **options)
        assert named.class_name in CLASSES
        assert threshold == options.get("unknown_below"), "of some classes only, the scores are other ones"
    assert answer(poses, model, classes=CLASSES[:3], unknown_below=1.0)[0].class_name == "unknown"


def test_what_has_small_logits_on_the_whole_is_unknown_though_one_is_the_best_by_far() -> None:
    strong, weak = [6.0, 1.0, 0.0], [1.0, -4.0, -5.0]
    logits = np.array([[strong], [weak], [strong]])
    plain, scores = scores_of(logits), scores_of(logits, energy_limit=-3.0, unknown=2)
    np.testing.assert_allclose(plain[0, :2], plain[1, :2], atol=1e-6)
    np.testing.assert_allclose(scores.sum(1), 1)
    np.testing.assert_allclose(scores[[0, 2]], plain[[0, 2]], atol=1e-4)
    assert scores[1].argmax() == 2
    assert scores[1, 2] > 0.99
    expected = [-np.log(np.exp(6) + np.exp(1)), -np.log(np.exp(1) + np.exp(-4))]
    np.testing.assert_allclose(energy_of(logits, 2)[:2, 0], expected)
    half = scores_of(np.array([[3.0, -50.0, -50.0]]), energy_limit=-3.0, unknown=2)
    np.testing.assert_allclose(half, [[0.5, 0, 0.5]], atol=1e-6)


def test_an_energy_limit_makes_strange_poses_unknown_in_every_command(poses: Path, tmp_path: Path) -> None:
    names = (*CLASSES[:-1], "unknown")
    path = classifier_file(tmp_path / "a.safetensors", names)
    named, _ = answer(poses, path)
    checkpoint = load_checkpoint(path)
    save_checkpoint(replace(checkpoint, metrics={"calibration": {"energy_limit": -1e3}}), path)
    told, _ = answer(poses, path)
    assert (told.class_name, told.score) == ("unknown", pytest.approx(1.0))
    tested = skelact.test(poses, path, clips=1, progress=False)
    np.testing.assert_allclose(tested.scores[0], told.scores, atol=1e-6)
    some, _ = answer(poses, path, classes=CLASSES[:3])
    assert some.class_name in CLASSES[:3], "of some classes only, there is no such limit"
    save_checkpoint(replace(checkpoint, metrics={"calibration": {"energy_limit": 1e3}}), path)
    as_before, _ = answer(poses, path)
    np.testing.assert_allclose(as_before.scores, named.scores, atol=1e-6)


def test_of_fused_models_the_smallest_threshold_counts(poses: Path, tmp_path: Path) -> None:
    first = calibrated(tmp_path / "a.safetensors", unknown_below=0.9)
    second = calibrated(tmp_path / "b.safetensors", 1, unknown_below=0.6)
    third = calibrated(tmp_path / "c.safetensors", 2)
    assert Classifier([first, second]).unknown_below == 0.6
    assert Classifier([first, third]).unknown_below is None, "if all have one"


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"temperature": 0}, "a.safetensors: calibration: expected a positive temperature, found 0"),
        ({"temperature": -1.5}, "found -1.5"),
        ({"energy_limit": float("inf")}, "a.safetensors: calibration: expected a finite energy_limit, found inf"),
        ({"energy_limit": "low"}, "expected energy_limit as a number, found 'low'"),
        ({"temperature": float("inf")}, "found inf"),
        ({"temperature": float("nan")}, "found nan"),
        ({"temperature": "hot"}, "expected temperature as a number, found 'hot'"),
        ({"temperature": True}, "expected temperature as a number"),
        ({"unknown_below": 2}, r"expected unknown_below in \[0, 1\], found 2"),
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, calibration: dict[str, Any], message: str) -> None:
    with pytest.raises(SkelactError, match=message):
        Classifier([calibrated(tmp_path / "a.safetensors", **calibration)])


def test_unknown_on_the_command_line(poses: Path, tmp_path: Path) -> None:
    model = calibrated(tmp_path / "a.safetensors", unknown_below=1.0)
    command = ["predict", str(poses), "--model", str(model), "--clips", "1"]
    result = CliRunner().invoke(main, [*command, "--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "a.csv")])
    assert result.exit_code == 0, result.stderr
    assert "unknown: no class is likely enough" in result.stdout
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["settings"]["unknown_below"] == 1.0
    assert content["results"][0]["predictions"][0]["class_name"] == "unknown"
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert all(row.endswith(",unknown") for row in rows[1:]), "the answer stands beside the classes"
    for value in ("off", "0"):
        assert "unknown:" not in CliRunner().invoke(main, [*command, "--unknown-below", value]).stdout
    for value in ("2", "nan", "often"):
        result = CliRunner().invoke(main, [*command, "--unknown-below", value])
        assert result.exit_code == 2
        assert "expected a score in [0, 1], auto or off" in result.stderr
    with pytest.raises(SkelactError, match=r'expected a score in \[0, 1\], "auto" or None'):
        skelact.predict(poses, model, unknown_below="often", progress=False)
