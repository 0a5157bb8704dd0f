"""Scores of a dataset, and how good they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from skelact.dataset import ClipDataset
from skelact.structures import Array


def score_samples(network: nn.Module, data: ClipDataset, device: str, batch_size: int = 16, workers: int = 0) -> Array:
    """Scores (N, num_classes) of a test dataset: the mean over clips of the softmax."""
    scores = []
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for clips, _ in DataLoader(data, batch_size, num_workers=workers):
            N, num_clips = clips.shape[:2]
            logits = network(clips.flatten(0, 1).to(device))
            scores.append(logits.double().softmax(1).view(N, num_clips, -1).mean(1).cpu().numpy())
    network.train(was_training)
    return np.concatenate(scores)


def accuracy(scores: Array, labels: Array, k: int = 1) -> float:
    """Share of samples whose label is among the k best classes."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(1).mean())
