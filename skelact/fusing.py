"""Score dumps of several networks into one answer for each sample."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skelact.annotations import open_annotations
from skelact.checkpoint import numbered_classes
from skelact.classifier import checked_fusion_weights
from skelact.dumps import ScoreDump, load_dump
from skelact.errors import SkelactError
from skelact.evaluate import Evaluation
from skelact.files import check_writable, sha256_of
from skelact.metrics import are_probabilities, report
from skelact.metrics import softmax as softmax_of
from skelact.plots import check_picture
from skelact.structures import Array
from skelact.testing import save_outputs

logger = logging.getLogger("skelact")


def fuse(
    dumps: Sequence[str | Path],
    *,
    fusion_weights: Sequence[float] | None = None,
    softmax: bool = False,
    labels: str | Path | None = None,
    split: str | None = None,
    dump: str | Path | None = None,
    plot: str | Path | None = None,
) -> Evaluation:
    """Fuse score dumps of the same samples: the weighted mean of their scores.

        print(skelact.fuse(["joint.pkl", "bone.pkl"], fusion_weights=[1, 1]).metrics.top1)

    Args:
        dumps: of ``test``, mmaction2 or PYSKL.
        fusion_weights: one for each dump; equal ones by default.
        softmax: whether they hold logits, to be made scores first.
        labels: annotation pickle with the labels, for dumps that have none.
        split: of ``labels`` that was tested.
        dump: where to write the fused scores.
        plot: where to draw the confusion matrix.

    Returns:
        The fused scores and their metrics.

    Raises:
        SkelactError: a dump can't be read, they are of different samples, or nothing tells the labels.
    """
    paths = [Path(path) for path in ([dumps] if isinstance(dumps, str | Path) else dumps)]
    if not paths:
        raise SkelactError("expected at least one score dump")
    if split is not None and labels is None:
        raise SkelactError(f"split {split!r}: expected the dataset of this split too; give it with --labels")
    for out, check in ((dump, check_writable), (plot, check_picture)):
        if out is not None:
            check(out, [*paths, labels])
    weights = checked_fusion_weights(fusion_weights, len(paths), "dump")
    members = [load_dump(path) for path in paths]
    names = [str(path) for path in paths]
    class_names: tuple[str, ...] | None = None
    if labels is not None:
        truth, class_names = _truth(labels, split, members[0].scores.shape, paths[0])
        members, names = [*members, truth], [*names, f"{labels}, split {split!r}" if split else str(labels)]
    _check_same_samples(members, names)
    known = next((member for member in members if member.labels is not None), None)
    if known is None or known.labels is None:
        raise SkelactError(
            f"{paths[0]}: expected labels, found scores only; give the dataset that was tested: --labels, --split"
        )
    scores = [_as_scores(path, member.scores, softmax) for path, member in zip(paths, members, strict=False)]
    fused = np.average(scores, axis=0, weights=weights)
    class_names = class_names or numbered_classes(fused.shape[1])
    evaluation = Evaluation(
        scores=fused,
        labels=known.labels,
        names=next((member.names for member in members if member.names is not None), None),
        class_names=class_names,
        metrics=report(fused, known.labels, class_names),
        sources=[
            {"file": path.name, "sha256": sha256_of(path), "fusion_weight": weight}
            for path, weight in zip(paths, weights, strict=True)
        ],
        settings={"softmax": softmax, "labels": Path(labels).name if labels else None, "split": split},
    )
    save_outputs(evaluation, dump, plot)
    return evaluation


def _truth(
    labels: str | Path, split: str | None, shape: tuple[int, ...], first: Path
) -> tuple[ScoreDump, tuple[str, ...] | None]:
    """A dataset's labels and names as a dump, whose scores count nothing; and the names of its classes."""
    dataset = open_annotations(labels)
    headers = dataset.headers()
    samples = headers if split is None else [headers[k] for k in dataset.indices(split)]
    if len(samples) != shape[0]:
        samples = [sample for sample in samples if sample.label is not None]  # those that `test` scores
    if len(samples) != shape[0]:
        hint = f"; --split takes one of {', '.join(dataset.split)}" if dataset.split and split is None else ""
        raise SkelactError(f"{labels}: expected {shape[0]} samples as in {first}, found {len(samples)}{hint}")
    for sample in samples:
        if sample.label is None or not 0 <= sample.label < shape[1]:
            raise SkelactError(
                f"{labels}: sample {sample.frame_dir}: expected a label in 0..{shape[1] - 1}, one for each score in "
                f"{first}, found {'none' if sample.label is None else sample.label}"
            )
    names = dataset.class_names if dataset.class_names and len(dataset.class_names) == shape[1] else None
    truth = np.array([sample.label for sample in samples], np.int64)
    return ScoreDump(np.zeros(shape), truth, tuple(sample.frame_dir for sample in samples)), names


def _check_same_samples(dumps: Sequence[ScoreDump], names: Sequence[str]) -> None:
    """Refuse dumps of other samples, as far as they tell.

    Raises:
        SkelactError: numbers, classes, labels or names differ.
    """
    first = dumps[0]
    for dump, name in zip(dumps, names, strict=True):
        (N, K), (found, classes) = first.scores.shape, dump.scores.shape
        if (found, classes) != (N, K):
            raise SkelactError(
                f"{name}: expected {N} samples of {K} classes as in {names[0]}, found {found} of {classes}"
            )
    for what, values in (("label", [dump.labels for dump in dumps]), ("name", [dump.names for dump in dumps])):
        told = [(name, np.asarray(value)) for name, value in zip(names, values, strict=True) if value is not None]
        for name, value in told[1:]:
            differing = np.flatnonzero(value != told[0][1])
            if len(differing):
                k = differing[0]
                raise SkelactError(
                    f"{name}: expected the samples of {told[0][0]} in their order, found others: sample {k} has "
                    f"{what} {value[k]}, there it has {told[0][1][k]}; of models and a dataset that number classes "
                    "in other ways, skelact test --model A --model B fuses the scores"
                )


def _as_scores(path: Path, values: Array, softmax: bool) -> Array:
    """Scores (N, num_classes) of scores or logits."""
    if softmax == are_probabilities(values):
        logger.warning(
            "%s: %s",
            path,
            "its values sum to 1 already and are no logits; leave out --softmax"
            if softmax
            else "its values are no probabilities; if they are logits, take --softmax",
        )
    return softmax_of(values) if softmax else values
