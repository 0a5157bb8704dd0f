"""Metrics against values worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from skelact.errors import SkelactError
from skelact.metrics import accuracy, calibration_error, report, softmax
from skelact.plots import plot_confusion, plot_curves
from skelact.structures import Array

# Six samples of three classes; the answers are 0 0 1 | 1 1 | 0. Class 2 has one sample and is never answered.
LABELS = np.array([0, 0, 0, 1, 1, 2])
SCORES = np.array(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.1, 0.9, 0.0], [0.2, 0.7, 0.1], [0.5, 0.1, 0.4]]
)
NAMES = ("wave", "walk", "stand")


def test_all_metrics_by_hand() -> None:
    metrics = report(SCORES, LABELS, NAMES)
    assert metrics.num_samples == 6
    assert metrics.top1 == pytest.approx(4 / 6)
    assert metrics.top5 == 1, "there are fewer classes than five"
    assert metrics.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]], "a row for each label"
    wave, walk, stand = metrics.classes
    assert (wave.recall, wave.precision, wave.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (walk.recall, walk.precision, walk.f1) == pytest.approx((1, 2 / 3, 4 / 5))
    assert (stand.recall, stand.precision, stand.f1) == (0, None, 0)
    assert metrics.mean_class_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert [one.num_samples for one in metrics.classes] == [3, 2, 1]
    assert json.loads(json.dumps(metrics.to_dict()))["classes"][1]["class_name"] == "walk"


def test_calibration_error_by_hand() -> None:
    """Two bins: scores to 0.5 (two wrong answers of 0.5), and those above (four right ones of 0.75 on average)."""
    assert calibration_error(SCORES, LABELS, num_bins=2) == pytest.approx(2 / 6 * 0.5 + 4 / 6 * 0.25)
    assert calibration_error(np.eye(3), np.arange(3)) == 0, "sure and right"
    assert calibration_error(np.eye(3), np.array([1, 2, 0])) == 1, "sure and wrong"


def test_fifteen_bins() -> None:
    """0.61 and 0.65 fall into the tenth of 15 bins and are averaged; 0.67 falls into the next."""
    scores = np.array([[0.61, 0.39], [0.65, 0.35], [0.67, 0.33]])
    labels = np.array([0, 1, 0])
    assert report(scores, labels, ("a", "b")).ece == pytest.approx(abs(1 - 0.61 - 0.65) / 3 + (1 - 0.67) / 3)


def test_a_class_that_does_not_occur_counts_where_it_is_answered() -> None:
    scores, labels = np.eye(3)[[0, 1, 1]], np.array([0, 0, 0])
    metrics = report(scores, labels, NAMES)
    assert metrics.mean_class_accuracy == pytest.approx(1 / 3), "of the one class that occurs"
    assert metrics.macro_f1 == pytest.approx((1 / 2 + 0) / 2), "of the two that occur or are answered"
    assert metrics.classes[2].f1 is None


def test_the_five_best() -> None:
    scores = np.tile(np.arange(10.0), (3, 1))
    assert accuracy(scores, np.array([9, 5, 4]), 5) == pytest.approx(2 / 3)
    assert accuracy(np.zeros((3, 10)), np.array([0, 4, 5]), 5) == pytest.approx(2 / 3), "of equal scores the first five"


def test_logits_have_no_calibration_error() -> None:
    logits = np.log(np.maximum(SCORES, 1e-3)) * 3
    assert report(logits, LABELS, NAMES).ece is None
    assert report(softmax(logits), LABELS, NAMES).ece is not None
    assert softmax(np.array([[1000.0, 1000.0]])).tolist() == [[0.5, 0.5]]


def test_probabilities_may_be_rounded_but_not_lack_some() -> None:
    assert report(SCORES.astype(np.float16), LABELS, NAMES).ece is not None
    assert report(0.95 * SCORES, LABELS, NAMES).ece is None


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (SCORES, LABELS[:-1], r"a label for each sample, found \(6, 3\) and \(5,\)"),
        (SCORES[:0], LABELS[:0], r"found \(0, 3\)"),
        (np.where(SCORES == 0.9, np.nan, SCORES), LABELS, "sample 3: its scores are no numbers"),
        (SCORES, LABELS + 1, r"expected labels in 0\.\.2, one of 3 classes, found 1\.\.3"),
        (SCORES[:, :2], np.minimum(LABELS, 1), "expected 2 class names, one for each score, found 3"),
    ],
)
def test_what_cannot_be_measured(scores: Array, labels: Array, message: str) -> None:
    with pytest.raises(SkelactError, match=message):
        report(scores, labels, NAMES)


# --- pictures ----------------------------------------------------------------------------------------------------


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a PNG."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


@pytest.mark.parametrize("num_classes", [2, 21, 120])
def test_a_confusion_matrix_is_drawn(tmp_path: Path, num_classes: int) -> None:
    names = [f"a class with a name that is rather long {k}" for k in range(num_classes)]
    plot_confusion(np.diag(np.arange(num_classes)), names, tmp_path / "new" / "confusion.png")
    assert min(picture_size(tmp_path / "new" / "confusion.png")) > 10 * num_classes


@pytest.mark.parametrize("answered", [3, 900])
def test_of_thousands_of_classes_those_that_occur_are_drawn(tmp_path: Path, answered: int) -> None:
    matrix = np.zeros((4001, 4001), np.int64)
    matrix[0, :answered] = 1
    plot_confusion(matrix, list(map(str, range(4001))), tmp_path / "confusion.png")
    assert max(picture_size(tmp_path / "confusion.png")) < 10_000


def test_names_are_no_formulas_and_may_be_in_any_script(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    plot_confusion(np.eye(3), ["price $x_{$", "costs $5 and $6", "挥手"], tmp_path / "a.png")
    assert min(picture_size(tmp_path / "a.png")) > 100
    assert not recwarn.list


@pytest.mark.parametrize("missing", [None, ""])
def test_curves_are_drawn(tmp_path: Path, missing: str | None) -> None:
    """From rows as training has them and as its CSV has them."""
    rows = [
        {"epoch": k, "lr": 0.1 / (k + 1), "loss": 1 / (k + 1), "train_top1": 0.5, "val_top1": missing} for k in range(3)
    ]
    rows[1]["val_top1"] = 0.4
    plot_curves(rows, tmp_path / "curves.png")
    plot_curves(rows[:1], tmp_path / "first.png")
    assert picture_size(tmp_path / "curves.png")[0] > 1000
    assert picture_size(tmp_path / "first.png")[0] > 1000


def test_scores_of_more_classes_than_a_confusion_matrix_can_hold_are_refused() -> None:
    with pytest.raises(SkelactError, match="expected scores of 8192 classes at most, found 70000"):
        report(np.ones((2, 70_000), np.float32), np.array([0, 65535]), [""] * 70_000)
