"""Score dumps: what a test leaves behind, for fusing later. mmaction2's, PYSKL's and our own, which are mmaction2's.

mmaction2: a list with one dict for each sample, of ``pred_score`` (num_classes,) and ``gt_label`` (1,) as tensors; its
first 1.x versions wrote ``pred_scores`` and ``gt_labels``, dicts with the tensor under ``item``. PYSKL: a list with one
array (num_classes,) for each sample, without labels.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skelact.errors import SkelactError
from skelact.files import atomic_path
from skelact.structures import Array
from skelact.unpickling import load_pickle


@dataclass(frozen=True)
class ScoreDump:
    """Scores of samples, in the order of their dataset.

    Attributes:
        scores: (N, num_classes) float64: scores or logits.
        labels: (N,) int64; None where the dump has none.
        names: of the samples; None where the dump has none.
    """

    scores: Array
    labels: Array | None = None
    names: tuple[str, ...] | None = None


def save_dump(dump: ScoreDump, path: str | Path) -> None:
    """Write a dump as mmaction2 does, all or nothing; samples also get their names, as ``frame_dir``.

    Args:
        dump: with labels.
        path: of the pickle.
    """
    import torch

    if dump.labels is None:
        raise SkelactError(f"cannot write {path}: a dump needs labels, found scores only")
    # Tensors of their own: a row of a larger one would be pickled with all of it.
    samples: list[dict[str, Any]] = [
        {"pred_score": torch.tensor(scores, dtype=torch.float32), "gt_label": torch.tensor([int(label)])}
        for scores, label in zip(dump.scores, dump.labels, strict=True)
    ]
    for sample, name in zip(samples, dump.names or (), strict=False):
        sample["frame_dir"] = name
    with atomic_path(path) as part, part.open("wb") as file:
        pickle.dump(samples, file, protocol=4)


def load_dump(path: str | Path) -> ScoreDump:
    """Read a dump without running anything in it.

    Raises:
        SkelactError: it is no pickle of scores; the message names the sample.
    """
    content = load_pickle(path)
    if isinstance(content, np.ndarray) and content.ndim:
        content = list(content)
    if not isinstance(content, list | tuple) or not content:
        raise SkelactError(
            f"{path}: expected a score dump, a list with a dict (pred_score, gt_label) or an array for each sample, "
            f"found {_kind(content)}"
        )
    scores = [_scores(path, k, sample) for k, sample in enumerate(content)]
    classes = len(scores[0])
    for k, row in enumerate(scores):
        if len(row) != classes:
            raise SkelactError(f"{path}: sample {k}: expected {classes} scores as in sample 0, found {len(row)}")
    labels = [_label(path, k, sample, classes) for k, sample in enumerate(content)]
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise SkelactError(f"{path}: sample {labels.index(None)}: expected gt_label as in the others, found none")
    names = [sample["frame_dir"] for sample in content if isinstance(sample, Mapping) and "frame_dir" in sample]
    return ScoreDump(
        np.stack(scores),
        np.array(known, np.int64) if known else None,
        tuple(map(str, names)) if len(names) == len(scores) else None,
    )


def _scores(path: str | Path, index: int, sample: Any) -> Array:
    """One sample's scores (num_classes,)."""
    found = _field(sample, "pred_score") if isinstance(sample, Mapping) else sample
    expected = f"{path}: sample {index}: expected scores (num_classes,)"
    if found is None and isinstance(sample, Mapping):
        raise SkelactError(f"{expected} under pred_score, found the fields {', '.join(map(str, sample)) or 'none'}")
    try:
        row = np.asarray(found)
    except (TypeError, ValueError, RuntimeError):
        raise SkelactError(f"{expected}, found {_kind(found)}") from None
    if row.ndim != 1 or len(row) < 1 or row.dtype.kind not in "fiu":
        raise SkelactError(f"{expected}, found {_kind(found)} of shape {row.shape} and type {row.dtype}")
    if not np.isfinite(row).all():
        raise SkelactError(f"{expected}, found scores that are no numbers (NaN or infinite)")
    return row.astype(np.float64)


def _label(path: str | Path, index: int, sample: Any, num_classes: int) -> int | None:
    """One sample's class; None if it tells none."""
    found = _field(sample, "gt_label") if isinstance(sample, Mapping) else None
    if found is None:
        return None
    try:
        label = np.asarray(found)
    except (TypeError, ValueError, RuntimeError):
        label = np.empty(0)
    if label.size != 1 or label.dtype.kind not in "iu" or not 0 <= int(label.reshape(-1)[0]) < num_classes:
        raise SkelactError(
            f"{path}: sample {index}: expected gt_label as one class in 0..{num_classes - 1}, found "
            f"{label.tolist() if label.size else _kind(found)}"
        )
    return int(label.reshape(-1)[0])


def _field(sample: Mapping[str, Any], name: str) -> Any:
    """``pred_score`` or ``gt_label``, of whatever version."""
    nested = sample.get(f"{name}s")
    return sample.get(name, nested.get("item") if isinstance(nested, Mapping) else nested)


def _kind(value: Any) -> str:
    if isinstance(value, Mapping) and "annotations" in value:
        return "a dataset; skelact test takes it, and --dump writes its scores"
    return "an empty list" if isinstance(value, list) and not value else f"a {type(value).__name__}"
