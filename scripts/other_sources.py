r"""Whether a network tells actions or only where its samples are from, and what it says of what it never saw.

    python scripts/other_sources.py telling runs/daily/daily.pkl --model skelact-daily
    python scripts/daily_data.py --without weizmann --out runs/daily/no-wz.pkl
    skelact train runs/daily/no-wz.pkl --out runs/daily/no-wz ...
    python scripts/other_sources.py left-out runs/daily/daily.pkl weizmann --trained-on runs/daily/no-wz.pkl \
        --model runs/daily/no-wz/best.safetensors

``telling`` has a logistic regression tell the source of a sample from the network's last features, within classes that
two sources share (balanced classes, five folds by people; 0.5 is chance): from all of them, and from the part of them
that an answer can depend on. ``erase`` makes a head that such a regression can't learn from.
``left-out`` asks a network that was trained without a source about that source's samples: how many of the classes that
it knows are right, and how many of the classes that it does not know it calls ``unknown``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from experiment import scores_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from skelact.annotations import Annotation, AnnotationSet, open_annotations
from skelact.calibration import calibrate
from skelact.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skelact.classifier import Classifier
from skelact.clips import prepare_clips
from skelact.recipes import TrainSettings
from skelact.structures import Array

MIN_SAMPLES = 20  # of a class in a source, to ask who tells them apart; half of it to see that nobody can
FOLDS = 5
NUM_CLIPS = 10
LABEL_SMOOTHING = TrainSettings.label_smoothing
SOURCES = ("jhmdb", "weizmann", "home", "drawn")


def features_of(samples: Sequence[Annotation], checkpoint: Checkpoint) -> Array:
    """(N, C) the last features of a network, of one clip a sample."""
    network = checkpoint.build()
    clips = (prepare_clips(s.keypoint, s.keypoint_score, s.img_shape, checkpoint.clips) for s in samples)
    with torch.inference_mode():
        return torch.cat([network.features(torch.from_numpy(clip)) for clip in clips]).double().numpy()


def seen_by_head(features: Array, checkpoint: Checkpoint) -> Array:
    """(N, K) the part of the features that an answer can depend on: along the rows of the head's weights."""
    weight = checkpoint.state_dict["cls_head.fc.weight"].double().numpy()
    return features @ np.linalg.qr(weight.T)[0]


def class_name_of(sample: Annotation, dataset: AnnotationSet) -> str:
    return (dataset.class_names or ())[sample.label or 0]


def two_sources(
    dataset: AnnotationSet, two: Sequence[str], min_samples: int = MIN_SAMPLES
) -> tuple[list[Annotation], Array, Array]:
    """The samples of classes that two sources share, their sources, and weights with which each class counts as much
    in one source as in the other: else the mixture of classes would tell the source."""
    found: dict[str, dict[str, list[Annotation]]] = {}
    for sample in dataset.annotations:
        if sample.extra["source"] in two:
            of_class = found.setdefault(class_name_of(sample, dataset), {})
            of_class.setdefault(str(sample.extra["source"]), []).append(sample)
    shared = [parts for parts in found.values() if len(parts) == 2 and min(map(len, parts.values())) >= min_samples]
    cells = [each for parts in shared for each in parts.values()]
    samples = [sample for each in cells for sample in each]
    weight = np.array([1 / len(each) for each in cells for _ in each])
    return samples, np.array([sample.extra["source"] for sample in samples]), weight


def erasure(features: Array, one: Array, weight: Array, ridge: float) -> tuple[Array, Array]:
    """What takes the difference of two groups' means out of features and changes them least.

    ``features @ projection.T + offset`` has the same mean in both groups, so no linear classifier can be fitted that
    tells them apart better than a constant does: LEACE (Belrose et al. 2023, arXiv:2306.03819) for two groups.

    Args:
        features: (N, C).
        one: (N,) bool, who is in the first group.
        weight: (N,) how much each sample counts.
        ridge: added to the covariance, in mean variances.

    Returns:
        (C, C) projection, (C,) offset.
    """
    weight = weight / weight.sum()
    mean = weight @ features
    centred = features - mean
    covariance = centred.T @ (weight[:, None] * centred)
    covariance += ridge * covariance.trace() / len(covariance) * np.eye(len(covariance))
    apart = centred.T @ (weight * one)
    reader = np.linalg.solve(covariance, apart)
    projection = np.eye(len(covariance)) - np.outer(apart, reader) / (apart @ reader)
    return projection, mean - projection @ mean


@click.group()
def main() -> None:
    """See the top of this file."""


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--model", required=True)
@click.option("--sources", default=",".join(SOURCES), show_default=True)
def telling(data: Path, model: str, sources: str) -> None:
    """Balanced accuracy of telling two sources apart, for each two that share classes."""
    dataset = open_annotations(data)
    members = [member.checkpoint for member in Classifier([model], device="cpu").members]
    for two in combinations(sources.split(","), 2):
        samples, source, weight = two_sources(dataset, two)
        if not samples:
            continue
        whole = [features_of(samples, checkpoint) for checkpoint in members]
        seen = [seen_by_head(features, checkpoint) for features, checkpoint in zip(whole, members, strict=True)]
        groups = np.array([sample.extra["group"] for sample in samples])
        told = {
            name: cross_val_predict(
                make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
                np.concatenate(parts, axis=1),
                source,
                groups=groups,
                cv=StratifiedGroupKFold(FOLDS),
                params={"logisticregression__sample_weight": weight * len(samples) / weight.sum()},
            )
            for name, parts in (("features", whole), ("seen_by_head", seen))
        }
        row = {
            "sources": two,
            "classes": sorted({class_name_of(sample, dataset) for sample in samples}),
            "samples": len(samples),
            **{
                name: round(float(balanced_accuracy_score(source, answers, sample_weight=weight)), 3)
                for name, answers in told.items()
            },
        }
        click.echo(json.dumps(row))


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--sources", default=",".join(SOURCES), show_default=True)
@click.option("--ridge", default=0.01, show_default=True, help="Of the covariance, in mean variances.")
@click.option("--hold", default=0.01, show_default=True, help="How strongly the head is held to what it was.")
def erase(data: Path, checkpoint: Path, out: Path, sources: str, ridge: float, hold: float) -> None:
    """Make the head of CHECKPOINT blind to what tells the sources of DATA's training split apart.

    Features lose, for each two sources, the direction along which the means of the classes that they share differ. The
    head's weights take this in, after they have been fitted to what is left, on the training split. Scores are
    calibrated anew where there is a split val; all else is as before.
    """
    network = load_checkpoint(checkpoint)
    dataset = open_annotations(data)
    train = replace(dataset, annotations=[dataset.annotations[k] for k in dataset.indices("train")], split={})
    whole = features_of(list(train.annotations), network)
    row = {sample.frame_dir: k for k, sample in enumerate(train.annotations)}
    channels = whole.shape[1]
    matrix, shift = np.eye(channels), np.zeros(channels)  # what is done to features so far: x @ matrix.T + shift
    for two in combinations(sources.split(","), 2):
        samples, source, weight = two_sources(train, two, MIN_SAMPLES // 2)
        if not samples:
            continue
        features = whole[[row[sample.frame_dir] for sample in samples]] @ matrix.T + shift
        projection, offset = erasure(features, source == two[0], weight, ridge)
        matrix, shift = projection @ matrix, projection @ shift + offset
        click.echo(f"{two[0]}, {two[1]}: {len(samples)} samples", err=True)
    labels = np.array([sample.label for sample in train.annotations])
    head, bias = (network.state_dict[f"cls_head.fc.{name}"].double() for name in ("weight", "bias"))
    head, bias = fitted_head(head, bias, whole @ matrix.T + shift, labels, hold)
    weights = dict(network.state_dict)
    weights["cls_head.fc.bias"] = (bias + head @ torch.from_numpy(shift)).float()
    weights["cls_head.fc.weight"] = (head @ torch.from_numpy(matrix)).float()
    blind = replace(network, state_dict=weights)
    save_checkpoint(blind, out)
    if "val" in dataset.split:
        scores, truth = scores_of(out, data, "val", NUM_CLIPS)
        calibration = calibrate(np.log(np.maximum(scores, 1e-12)), truth, "val")
        save_checkpoint(replace(blind, metrics={**network.metrics, "calibration": asdict(calibration)}), out)


def fitted_head(weight: Tensor, bias: Tensor, features: Array, labels: Array, hold: float) -> tuple[Tensor, Tensor]:
    """The head that suits features best: as training would have it, but held to what it was.

    Args:
        weight, bias: (classes, C) and (classes,) that it was.
        features: (N, C).
        labels: (N,).
        hold: times half the squared distance from them, added to the mean cross entropy.
    """
    x, truth = torch.from_numpy(features), torch.from_numpy(labels)
    head = [tensor.clone().requires_grad_() for tensor in (weight, bias)]
    search = torch.optim.LBFGS(head, max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        told = F.cross_entropy(F.linear(x, *head), truth, label_smoothing=LABEL_SMOOTHING)
        told = told + hold / 2 * (head[0] - weight).square().sum()
        told.backward()
        return told

    search.step(loss)
    return head[0].detach(), head[1].detach()


@main.command("left-out")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("source")
@click.option("--model", "models", required=True, multiple=True, help="Several are fused.")
@click.option("--trained-on", type=click.Path(exists=True, path_type=Path), required=True, help="The model's dataset.")
def left_out(data: Path, source: str, models: tuple[str, ...], trained_on: Path) -> None:
    """Accuracy on the classes of a source that the model knows from others, and what becomes of the rest."""
    known_set = open_annotations(trained_on)
    known = {class_name_of(known_set.annotations[k], known_set) for k in known_set.indices("train")}
    dataset = open_annotations(data)
    samples = [sample for sample in dataset.annotations if sample.extra["source"] == source]
    classifier = Classifier(models, classes=sorted(known), device="cpu")
    scores = classifier.scores_of([(s.keypoint, s.keypoint_score) for s in samples], samples[0].img_shape, NUM_CLIPS)
    answers = np.array(classifier.scored_names)[scores.argmax(1)]
    truth = np.array([class_name_of(sample, dataset) for sample in samples])
    is_known = np.isin(truth, sorted(known))
    below = Classifier(models, device="cpu").unknown_below or 0.0
    is_unknown = scores.max(1) < below
    by_class = {
        name: [int((answers == truth)[truth == name].sum()), int((truth == name).sum())] for name in sorted(set(truth))
    }
    click.echo(
        json.dumps(
            {
                "source": source,
                "right_of_known": round(float((answers == truth)[is_known].mean()), 3),
                "mean_class": round(float(np.mean([a / b for name, (a, b) in by_class.items() if name in known])), 3),
                "right_of_samples": by_class,
                "unknown_below": below,
                "known_called_unknown": round(float(is_unknown[is_known].mean()), 3),
                "others_called_unknown": round(float(is_unknown[~is_known].mean()), 3) if (~is_known).any() else None,
            }
        )
    )


if __name__ == "__main__":
    main()
