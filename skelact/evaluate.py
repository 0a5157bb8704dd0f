"""What networks say of a dataset's samples, and how good that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from skelact.calibration import scores_of
from skelact.dataset import ClipDataset, batches
from skelact.metrics import Metrics
from skelact.structures import Array


@dataclass(frozen=True)
class Evaluation:
    """Scores of samples, how good they are and where they come from.

    Attributes:
        scores: (N, num_classes) float64.
        labels: (N,) int64.
        names: of the samples; None where they are not known.
        class_names: one for each score.
        metrics: of the scores.
        sources: the models or dumps that were fused, in JSON types.
        settings: all else that the scores depend on, in JSON types.
    """

    scores: Array
    labels: Array
    names: tuple[str, ...] | None
    class_names: tuple[str, ...]
    metrics: Metrics
    sources: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All but the scores, in JSON types."""
        return {
            "settings": self.settings,
            "sources": self.sources,
            "class_names": list(self.class_names),
            "metrics": self.metrics.to_dict(),
        }


def score_samples(
    network: nn.Module,
    data: ClipDataset | Subset[tuple[Tensor, int]],
    device: str,
    batch_size: int = 16,
    workers: int = 0,
    to_scores: Callable[[Array], Array] = scores_of,
    progress: str | None = None,
) -> Array:
    """Scores (N, num_classes) of a test dataset.

    Args:
        network: gives logits.
        data: with ``train=False``.
        device: of the network.
        batch_size: samples in a step.
        workers: processes that prepare clips.
        to_scores: makes them of the logits (N, num_clips, num_classes); by default the mean over clips of the softmax.
        progress: what to call a bar on stderr; None draws none.
    """
    scores = []
    was_training = network.training
    network.eval()
    bar = tqdm(desc=progress, total=len(data), unit=" samples", disable=None if progress else True)
    with torch.inference_mode(), bar:
        for clips, _ in batches(DataLoader(data, batch_size, num_workers=workers)):
            N, num_clips = clips.shape[:2]
            logits = network(clips.flatten(0, 1).to(device)).cpu().double()
            scores.append(to_scores(logits.view(N, num_clips, -1).numpy()))
            bar.update(N)
    network.train(was_training)
    return np.concatenate(scores)
