"""Scores that mean what they say: the temperature of a network's logits, and when to answer ``unknown``.

All is fitted on validation samples and kept in the checkpoint, under ``metrics["calibration"]``. A softmax compares
classes, and of a movement that was never trained on one of them may still be by far the best. What such movements often
lack is large logits: their free energy (Liu et al. 2020) is high. For networks with a class ``unknown``, an
``energy_limit`` there gives that class the more of the score the higher the energy is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skelact.errors import SkelactError
from skelact.metrics import check_scores, softmax
from skelact.structures import Array

UNKNOWN = "unknown"  # the answer where no class is likely enough, or the best has this name
KEPT = 0.95  # of the right answers; the threshold may make the others ``unknown``
TEMPERATURES = (0.05, 20.0)
ENERGY_WIDTH = 0.25  # so far from the limit, the odds of a known class have changed by e


@dataclass(frozen=True)
class Calibration:
    """What validation samples tell of a network's scores.

    Attributes:
        temperature: that the logits are divided by before the softmax.
        unknown_below: a best score below it is answered with ``unknown``.
        coverage: share of the samples that are answered nevertheless.
        risk: share of wrong answers among those; 0 where none is answered.
        split: of the samples.
        num_samples: in it.
    """

    temperature: float
    unknown_below: float
    coverage: float
    risk: float
    split: str | None
    num_samples: int


def calibrate(logits: Array, labels: Array, split: str | None = None) -> Calibration:
    """Fit a temperature and choose a threshold.

    Args:
        logits: (N, num_classes), or (N, num_clips, num_classes) where a sample's score is the mean over its clips.
        labels: (N,) class indices.
        split: the samples' name.

    Raises:
        SkelactError: there are no samples, logits are no numbers, or a label is no class.
    """
    temperature = fit_temperature(logits, labels)
    scores = scores_of(logits, temperature)
    threshold = choose_threshold(scores, labels)
    coverage, risk = coverage_risk(scores, labels, np.array([threshold]))
    return Calibration(temperature, threshold, float(coverage[0]), float(risk[0]), split, len(labels))


def scores_of(
    logits: Array, temperature: float = 1.0, energy_limit: float | None = None, unknown: int | None = None
) -> Array:
    """The softmax of logits (N, num_classes); of logits (N, num_clips, num_classes) its mean over clips.

    Args:
        logits: of a network.
        temperature: that divides them.
        energy_limit: where half of the score is ``unknown`` for the energy alone; None for no such limit.
        unknown: index of the class of that name; without it the limit has no effect.
    """
    scores = softmax(logits / temperature)
    if energy_limit is not None and unknown is not None:
        excess = (energy_of(logits, unknown) - energy_limit) / ENERGY_WIDTH
        known = 1 / (1 + np.exp(np.clip(excess, -50, 50)))[..., None]
        scores = known * scores + (1 - known) * (np.arange(scores.shape[-1]) == unknown)
    return scores.mean(1) if scores.ndim == 3 else scores


def energy_of(logits: Array, unknown: int) -> Array:
    """The free energy -log(sum(exp(logits))) of logits (..., num_classes) but that of ``unknown``: (...)."""
    known: Array = -np.logaddexp.reduce(np.delete(logits, unknown, axis=-1), axis=-1)
    return known


def fit_temperature(logits: Array, labels: Array) -> float:
    """The temperature T that makes the labels most likely under softmax(logits / T).

    A prior as heavy as one sample, normal in log T, keeps T from running away where a few samples are all right.

    Args:
        logits, labels: as for ``calibrate``.

    Raises:
        SkelactError: as ``calibrate``.
    """
    check_scores(logits.mean(1) if logits.ndim == 3 else logits, labels)
    samples = np.arange(len(labels))

    def loss(log_t: float) -> float:
        likelihood = scores_of(logits, math.exp(log_t))[samples, labels]
        return float(log_t**2 / 2 - np.log(np.maximum(likelihood, 1e-300)).sum())

    # A grid between the neighbours of the best, again and again: 17 points narrow it to an eighth.
    low, high = map(math.log, TEMPERATURES)
    for _ in range(5):
        grid = np.linspace(low, high, 17)
        best = int(np.argmin([loss(log_t) for log_t in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 16)]
    return math.exp(grid[best])


def coverage_risk(scores: Array, labels: Array, thresholds: Array) -> tuple[Array, Array]:
    """What thresholds for ``unknown`` cost and bring.

    Args:
        scores: (N, num_classes).
        labels: (N,).
        thresholds: (K,); samples whose best score is not below are answered.

    Returns:
        coverage (K,), the share of samples that are answered, and risk (K,), the share of wrong answers among those;
        0 where none is.
    """
    best, wrong = scores.max(1), scores.argmax(1) != labels
    answered = best >= thresholds[:, None]  # (K, N)
    return answered.mean(1), (answered & wrong).sum(1) / np.maximum(answered.sum(1), 1)


def choose_threshold(scores: Array, labels: Array, kept: float = KEPT) -> float:
    """The largest threshold that keeps a share ``kept`` of the right answers, those to new samples of this kind too.

    Of n right answers the k-th lowest score is taken: a new one is lower with a chance of k / (n + 1). Too few promise
    nothing (18 for 95 %): then the threshold is 0, nothing is ``unknown``. Wrong answers don't count: how many there
    will be depends on what else people do, and validation samples all show a known class.
    """
    right = np.sort(scores.max(1)[scores.argmax(1) == labels])
    k = math.floor((1 - kept) * (len(right) + 1) + 1e-9)
    return float(right[k - 1]) if k else 0.0


# --- what a checkpoint tells --------------------------------------------------------------------------------------


def temperature_of(metrics: Mapping[str, Any]) -> float:
    """The temperature that a checkpoint's metrics tell; 1 where they tell none.

    Raises:
        SkelactError: it is no positive number.
    """
    temperature = _told(metrics, "temperature")
    if temperature is None:
        return 1.0
    if not 0 < temperature < math.inf:
        raise SkelactError(f"calibration: expected a positive temperature, found {temperature}")
    return temperature


def threshold_of(metrics: Mapping[str, Any]) -> float | None:
    """The threshold for ``unknown`` that a checkpoint's metrics tell; None where they tell none.

    Raises:
        SkelactError: it is no score.
    """
    threshold = _told(metrics, "unknown_below")
    if threshold is not None and not 0 <= threshold <= 1:
        raise SkelactError(f"calibration: expected unknown_below in [0, 1], found {threshold}")
    return threshold


def energy_limit_of(metrics: Mapping[str, Any]) -> float | None:
    """The limit that a checkpoint's metrics tell; None where they tell none.

    Raises:
        SkelactError: it is no number.
    """
    limit = _told(metrics, "energy_limit")
    if limit is not None and not math.isfinite(limit):
        raise SkelactError(f"calibration: expected a finite energy_limit, found {limit}")
    return limit


def _told(metrics: Mapping[str, Any], key: str) -> float | None:
    calibration = metrics.get("calibration") or {}
    if not isinstance(calibration, Mapping):
        raise SkelactError(f"calibration: expected a dict with a temperature, found {calibration!r}")
    value = calibration.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise SkelactError(f"calibration: expected {key} as a number, found {value!r}")
    return None if value is None else float(value)
