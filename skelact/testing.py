"""Classifiers on a dataset whose labels are known."""

# ruff: noqa: PT028 (test is not a test)

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skelact.annotations import AnnotationSet, Header, dataset_sha256, open_annotations
from skelact.checkpoint import numbered_classes
from skelact.classifier import Classifier, find_class
from skelact.dataset import ClipDataset, samples_of
from skelact.dumps import ScoreDump, save_dump
from skelact.errors import SkelactError
from skelact.evaluate import Evaluation, score_samples
from skelact.files import check_writable
from skelact.metrics import report
from skelact.plots import check_picture, plot_confusion
from skelact.ranges import check_numbers
from skelact.shipped import DEFAULT_MODEL
from skelact.skeleton import Layout
from skelact.structures import Array

logger = logging.getLogger("skelact")

VALIDATION_SPLITS = ("val", "test", "xsub_val")  # that samples are taken from, unless told otherwise


def test(
    data: str | Path,
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    *,
    split: str | None = None,
    fusion_weights: Sequence[float] | None = None,
    stream: str | None = None,
    layout: Layout | str | Path | None = None,
    class_names: Sequence[str] | None = None,
    clips: int = 10,
    batch_size: int = 16,
    workers: int = 0,
    device: str | None = None,
    dump: str | Path | None = None,
    plot: str | Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure how good a classifier is.

        print(skelact.test("mine.pkl", "runs/mine/best.safetensors", split="val").metrics.top1)

    Args:
        data: annotation pickle with labels.
        model: name of ``skelact weights list``, checkpoint or export; several are fused.
        split: name in the dataset. None takes the one that the model was validated on or else a validation split, and
            all samples where there is none.
        fusion_weights: one for each model.
        stream, layout, class_names: what a foreign checkpoint does not tell itself.
        clips: of each sample; 10 as in benchmarks.
        batch_size: samples in a step.
        workers: processes that prepare clips.
        device: ``cuda``, ``mps``, ``cpu``; None chooses.
        dump: where to write the scores, for ``fuse`` and its peers.
        plot: where to draw the confusion matrix.
        progress: a bar on stderr.

    Returns:
        Scores, calibrated as in ``predict``, and their metrics. Where the dataset names its classes, they are matched
        with the model's by name.

    Raises:
        SkelactError: a model or the dataset can't be loaded, they don't fit, or an output can't be written.
    """
    models = [model] if isinstance(model, str | Path) else list(model)
    check_numbers(clips=clips, batch_size=batch_size, workers=workers)
    for path, check in ((dump, check_writable), (plot, check_picture)):
        if path is not None:
            check(path, [data, *models])
    names = tuple(class_names) if class_names else None
    classifier = Classifier(models, fusion_weights, stream, layout, names, device=device, progress=progress)
    dataset = open_annotations(data)
    split = split or _default_split(data, dataset, classifier)
    for member in classifier.members:
        indices = samples_of(dataset, split, member.checkpoint.clips)  # the same for all whom the samples fit
    headers = dataset.headers()
    samples = [headers[k] for k in indices]
    labels, class_names = _labels(data, samples, dataset.class_names, classifier.class_names)
    total = np.zeros((len(samples), len(class_names)))
    for member, network in zip(classifier.members, classifier.networks, strict=True):
        sampled = ClipDataset(dataset.annotations, indices, member.checkpoint.clips, train=False, num_clips=clips)
        name = Path(member.name).name if progress else None
        scores = score_samples(network, sampled, classifier.device, batch_size, workers, member.scores_of, name)
        damaged = np.flatnonzero(~np.isfinite(scores).all(1))
        if len(damaged):
            raise SkelactError(
                f"{member.name}: sample {samples[damaged[0]].frame_dir}: its scores are no numbers: the weights or the "
                "poses are damaged"
            )
        total += member.weight * scores
    fused = total / sum(member.weight for member in classifier.members)
    evaluation = Evaluation(
        scores=fused,
        labels=labels,
        names=tuple(sample.frame_dir for sample in samples),
        class_names=class_names,
        metrics=report(fused, labels, class_names),
        sources=classifier.describe(),
        settings={
            **{"data": Path(data).name, "data_sha256": dataset_sha256(data), "split": split},
            **{"clips": clips, "device": classifier.device},
        },
    )
    save_outputs(evaluation, dump, plot)
    return evaluation


test.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name


def save_outputs(evaluation: Evaluation, dump: str | Path | None, plot: str | Path | None) -> None:
    """Write the scores and draw the confusion matrix, where they are asked for."""
    if dump is not None:
        save_dump(ScoreDump(evaluation.scores, evaluation.labels, evaluation.names), dump)
    if plot is not None:
        plot_confusion(evaluation.metrics.confusion, evaluation.class_names, plot)


def _default_split(data: str | Path, dataset: AnnotationSet, classifier: Classifier) -> str | None:
    """The one that the first model was validated on, else one whose name says that it is for validation, else None."""
    validated = str(classifier.members[0].checkpoint.metrics.get("val_split"))
    found = next((name for name in (validated, *VALIDATION_SPLITS) if name in dataset.split), None)
    if found is None and dataset.split:
        logger.warning(
            "%s: none of its splits (%s) is known to be for validation; testing on all samples (--split takes one)",
            data,
            ", ".join(dataset.split),
        )
    return found


def _labels(
    data: str | Path, samples: Sequence[Header], names: tuple[str, ...] | None, model_names: tuple[str, ...]
) -> tuple[Array, tuple[str, ...]]:
    """The samples' labels among the model's classes, and the names of those.

    Raises:
        SkelactError: a class of the samples is none of the model's.
    """
    labels = np.array([sample.label for sample in samples], np.int64)
    known = range(len(names or model_names))
    for sample in samples:
        if sample.label not in known:
            raise SkelactError(
                f"{data}: sample {sample.frame_dir}: expected a label in 0..{known[-1]}, one of the "
                f"{'dataset' if names else 'model'}'s classes, found {sample.label}"
            )
    if names is None or names == model_names:
        return labels, model_names
    if model_names == numbered_classes(len(names)):
        return labels, names
    index = {label: find_class(names[label], model_names) for label in set(labels.tolist())}
    strangers = sorted(names[label] for label, found in index.items() if found is None)
    if strangers:
        raise SkelactError(
            f"{data}: {len(strangers)} of its classes, such as {strangers[0]!r}, "
            f"{'is' if len(strangers) == 1 else 'are'} none of the model's {len(model_names)} "
            f"({', '.join(model_names[:3])}, ...); test with a model of these classes"
        )
    of_index = {found: label for label, found in index.items()}
    for label, found in index.items():
        if label != of_index[found]:
            raise SkelactError(
                f"{data}: its classes {names[label]!r} and {names[of_index[found]]!r} are one of the model's, "
                f"{model_names[found or 0]!r}; merge them first"
            )
    logger.warning("%s: its classes or their order are not the model's; they are matched by name", data)
    return np.array([index[label] for label in labels.tolist()]), model_names
