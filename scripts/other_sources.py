r"""Whether a network tells actions or only where its samples are from, and what it says of what it never saw.

    python scripts/other_sources.py telling runs/daily/daily.pkl --model skelact-daily
    python scripts/daily_data.py --without weizmann --out runs/daily/no-wz.pkl
    skelact train runs/daily/no-wz.pkl --out runs/daily/no-wz ...
    python scripts/other_sources.py left-out runs/daily/daily.pkl weizmann --trained-on runs/daily/no-wz.pkl \
        --model runs/daily/no-wz/best.safetensors

``telling`` has a logistic regression tell the source of a sample from the network's last features, within classes that
two sources share (balanced classes, five folds by people; 0.5 is chance).
``left-out`` asks a network that was trained without a source about that source's samples: how many of the classes that
it knows are right, and how many of the classes that it does not know it calls ``unknown``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skelact.annotations import Annotation, AnnotationSet, open_annotations
from skelact.classifier import Classifier
from skelact.clips import prepare_clips
from skelact.model import STGCNPP
from skelact.structures import Array

MIN_SAMPLES = 20  # of a class in a source
FOLDS = 5


def features_of(samples: Sequence[Annotation], classifier: Classifier) -> Array:
    """(N, C) what the heads of the fused networks see, of one clip a sample."""
    parts = []
    for member in classifier.members:
        network = member.checkpoint.build()
        assert isinstance(network, STGCNPP)
        clips = [
            prepare_clips(sample.keypoint, sample.keypoint_score, sample.img_shape, member.checkpoint.clips)
            for sample in samples
        ]
        with torch.inference_mode():
            parts.append(torch.cat([network.features(torch.from_numpy(clip)) for clip in clips]).numpy())
    return np.concatenate(parts, axis=1)


def class_name_of(sample: Annotation, dataset: AnnotationSet) -> str:
    return (dataset.class_names or ())[sample.label or 0]


@click.group()
def main() -> None:
    """See the top of this file."""


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--model", required=True)
@click.option("--sources", default="jhmdb,weizmann,home,drawn", show_default=True)
def telling(data: Path, model: str, sources: str) -> None:
    """Balanced accuracy of telling two sources apart, for each two that share classes."""
    dataset = open_annotations(data)
    classifier = Classifier([model], device="cpu")
    for two in combinations(sources.split(","), 2):
        found: dict[str, dict[str, list[Annotation]]] = {}
        for sample in dataset.annotations:
            if sample.extra["source"] in two:
                of_class = found.setdefault(class_name_of(sample, dataset), {})
                of_class.setdefault(str(sample.extra["source"]), []).append(sample)
        shared = {
            name: parts
            for name, parts in found.items()
            if len(parts) == 2 and min(map(len, parts.values())) >= MIN_SAMPLES
        }
        if not shared:
            continue
        samples = [sample for parts in shared.values() for each in parts.values() for sample in each]
        source = np.array([sample.extra["source"] for sample in samples])
        groups = np.array([sample.extra["group"] for sample in samples])
        # Each class counts as much in one source as in the other, or the mixture of classes would tell it.
        weight = np.zeros(len(samples))
        names = np.array([class_name_of(sample, dataset) for sample in samples])
        for name in shared:
            for one in two:
                mask = (names == name) & (source == one)
                weight[mask] = 1 / mask.sum()
        told = cross_val_predict(
            make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)),
            features_of(samples, classifier),
            source,
            groups=groups,
            cv=StratifiedGroupKFold(FOLDS),
            params={"logisticregression__sample_weight": weight * len(samples) / weight.sum()},
        )
        accuracy = balanced_accuracy_score(source, told, sample_weight=weight)
        row = {"sources": two, "classes": sorted(shared), "samples": len(samples), "balanced_accuracy": accuracy}
        click.echo(json.dumps({**row, "balanced_accuracy": round(float(accuracy), 3)}))


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
    scores = classifier.scores_of([(s.keypoint, s.keypoint_score) for s in samples], samples[0].img_shape, 10)
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
