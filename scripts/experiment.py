"""What the scripts that measure accuracy share: settings from the command line, runs that go on, scores of a split."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import skelact
from skelact import calibration
from skelact.annotations import open_annotations
from skelact.checkpoint import load_checkpoint
from skelact.dataset import ClipDataset, samples_of
from skelact.evaluate import score_samples
from skelact.folded import fold
from skelact.recipes import RECIPES, TrainSettings
from skelact.structures import Array

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def settings_of(recipe: str, changes: tuple[str, ...]) -> TrainSettings:
    """A recipe with ``name=value`` changes."""
    pairs = (change.split("=", 1) for change in changes)
    plain: dict[str, Any] = {
        name: ast.literal_eval(value) if value[:1] in "0123456789([NTF'" else value for name, value in pairs
    }
    return replace(RECIPES[recipe], val_split="none", **plain)


def scores_of(checkpoint: Path, data: Path, split: str, clips: int) -> tuple[Array, Array]:
    """Scores and labels of a split."""
    logits, labels = logits_of(checkpoint, data, split, clips)
    return calibration.scores_of(logits), labels


def logits_of(checkpoint: Path, data: Path, split: str, clips: int) -> tuple[Array, Array]:
    """Logits (N, clips, num_classes) and labels (N,) of a split."""
    model = load_checkpoint(checkpoint)
    dataset = open_annotations(data)
    tested = ClipDataset(
        dataset.annotations, samples_of(dataset, split, model.clips), model.clips, train=False, num_clips=clips
    )
    logits = score_samples(fold(model.build()).to(DEVICE), tested, DEVICE, to_scores=lambda logits: logits)
    return logits, np.array([dataset.annotations[k].label for k in tested.indices])


def trained(data: Path, out: Path, settings: TrainSettings, init: Path | None = None) -> Path:
    """The last checkpoint of a run, which is done or gone on with where it is not."""
    return skelact.train(data, out, settings, init=init, resume=out.exists(), device=DEVICE).last
