"""How good scores are: accuracies, F1, calibration, confusion. Of N samples: scores (N, num_classes), labels (N,)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skelact.annotations import MAX_CLASSES
from skelact.errors import SkelactError
from skelact.structures import Array

ECE_BINS = 15  # of equal width, as in Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599)


@dataclass(frozen=True)
class ClassMetrics:
    """One class; a share of nothing is None.

    Attributes:
        label, class_name: of the class.
        num_samples: with this label.
        recall: share of those that are recognised, the class's accuracy.
        precision: share of the answers with this class that are right.
        f1: harmonic mean of the two; None where the class neither occurs nor is answered.
    """

    label: int
    class_name: str
    num_samples: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Metrics:
    """How good the scores of some samples are.

    Attributes:
        num_samples: N.
        top1, top5: share of samples whose label is the best class, or among the five best.
        mean_class_accuracy: mean recall of the classes that occur.
        macro_f1: mean F1 of the classes that occur or are answered.
        ece: expected calibration error of the best class; None where the scores are no probabilities.
        classes: one by one.
        confusion: (num_classes, num_classes) counts, a row for each label, a column for each answer.
    """

    num_samples: int
    top1: float
    top5: float
    mean_class_accuracy: float
    macro_f1: float
    ece: float | None
    classes: tuple[ClassMetrics, ...]
    confusion: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def report(scores: Array, labels: Array, class_names: Sequence[str]) -> Metrics:
    """All metrics of the scores.

    Args:
        scores: (N, num_classes), N at least 1.
        labels: (N,) class indices.
        class_names: one for each class.

    Raises:
        SkelactError: scores, labels and names don't belong together.
    """
    check_scores(scores, labels)
    if len(class_names) != scores.shape[1]:
        raise SkelactError(f"expected {scores.shape[1]} class names, one for each score, found {len(class_names)}")
    confusion = confusion_matrix(scores.argmax(1), labels, scores.shape[1])
    classes = class_metrics(confusion, class_names)
    return Metrics(
        num_samples=len(labels),
        top1=accuracy(scores, labels),
        top5=accuracy(scores, labels, 5),
        mean_class_accuracy=float(np.mean([one.recall for one in classes if one.recall is not None])),
        macro_f1=float(np.mean([one.f1 for one in classes if one.f1 is not None])),
        ece=calibration_error(scores, labels) if are_probabilities(scores) else None,
        classes=classes,
        confusion=confusion.tolist(),
    )


def check_scores(scores: Array, labels: Array) -> None:
    """Refuse what can't be measured.

    Raises:
        SkelactError: there are no samples, scores are no numbers, or a label is no class.
    """
    if scores.ndim != 2 or not scores.size or labels.shape != scores.shape[:1]:
        raise SkelactError(
            f"expected scores (samples, classes) and a label for each sample, found {scores.shape} and {labels.shape}"
        )
    if scores.shape[1] > MAX_CLASSES:  # the confusion matrix has their square
        raise SkelactError(f"expected scores of {MAX_CLASSES} classes at most, found {scores.shape[1]}")
    if not np.isfinite(scores).all():
        raise SkelactError(f"sample {int(np.argmin(np.isfinite(scores).all(1)))}: its scores are no numbers")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise SkelactError(
            f"expected labels in 0..{scores.shape[1] - 1}, one of {scores.shape[1]} classes, "
            f"found {labels.min()}..{labels.max()}"
        )


def accuracy(scores: Array, labels: Array, k: int = 1) -> float:
    """Share of samples whose label is among the k best classes; of equal scores the first class counts as better."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(1).mean())


def confusion_matrix(answers: Array, labels: Array, num_classes: int) -> Array:
    """Counts (num_classes, num_classes): a row for each label, a column for each answer, both given as (N,)."""
    cells = np.bincount(labels * num_classes + answers, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def class_metrics(confusion: Array, class_names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Each class on its own, from the confusion matrix."""
    right, occurring, answered = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return tuple(
        ClassMetrics(
            label=k,
            class_name=name,
            num_samples=int(occurring[k]),
            recall=_share(right[k], occurring[k]),
            precision=_share(right[k], answered[k]),
            f1=_share(2 * right[k], occurring[k] + answered[k]),
        )
        for k, name in enumerate(class_names)
    )


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def are_probabilities(scores: Array) -> bool:
    """Whether each sample's scores are in [0, 1] and sum to 1, up to the rounding of float16."""
    return bool((scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-2))


def calibration_error(scores: Array, labels: Array, num_bins: int = ECE_BINS) -> float:
    """Expected calibration error: how far the best class's score is from the share of right answers.

    Samples are put into bins of equal width by their best score; the bins' differences are averaged, weighted by their
    samples.
    """
    best = scores.max(1)
    right = scores.argmax(1) == labels
    bins = np.clip(np.ceil(best * num_bins).astype(int) - 1, 0, num_bins - 1)
    differences = np.bincount(bins, weights=right - best, minlength=num_bins)
    return float(np.abs(differences).sum() / len(labels))


def softmax(logits: Array) -> Array:
    """Logits to scores that sum to 1 over the last axis, as float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
