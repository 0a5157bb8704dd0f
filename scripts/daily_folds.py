"""What to expect of skelact-daily on people that it was not trained on, and of actions that it does not know.

    python scripts/daily_folds.py make runs/daily/both.pkl --out runs/daily/folds
    skelact train runs/daily/folds/0.pkl --out runs/daily/fold0 --val-split none ...    # and 1 and 2 alike
    python scripts/daily_folds.py measure runs/daily/folds --model runs/daily/fold{}/last.safetensors
    python scripts/daily_folds.py limit runs/daily/both.pkl --model joint.safetensors --model bone.safetensors

Three networks are trained, each without a third of the groups of every real source (JHMDB's tenths, Weizmann's people,
UT-Interaction's sequences, the people of the home videos) and without three classes. ``measure`` tells, by source and
pose model, how many of the left-out groups' samples of known classes are right; and, with temperatures, energy limits
and the threshold for ``unknown`` chosen on the other networks' samples so that a share of the known ones, or of those
that are right, is lost: how many of the known ones are lost, and how many of the classes that were kept out get
``unknown``. ``limit`` chooses energy limits and a threshold like that for networks that are to be used, on the split
``val`` of datasets, and writes them into the checkpoints.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from experiment import logits_of

from skelact.annotations import Annotation, open_annotations, save_annotations
from skelact.calibration import UNKNOWN, energy_of, fit_temperature, scores_of, temperature_of
from skelact.checkpoint import load_checkpoint, save_checkpoint
from skelact.structures import Array

KEPT_OUT = (  # of each fold; no drawn person does them
    ("golf swing", "point", "push something"),
    ("pour", "kick somebody", "catch"),
    ("pull up", "punch somebody", "shake hands"),
)
NUM_CLIPS = 10
SPLITS = ("known", "kept_out")


@dataclass(frozen=True, eq=False)
class Asked:
    """What networks said of N samples: logits of each (N, num_clips, num_classes), labels (N,), where they are from."""

    logits: tuple[Array, ...]
    labels: Array
    origins: Array

    def only(self, chosen: Array) -> Asked:
        """Some of them."""
        return Asked(tuple(logits[chosen] for logits in self.logits), self.labels[chosen], self.origins[chosen])

    @classmethod
    def all_of(cls, parts: Sequence[Asked]) -> Asked:
        """Several, one after another."""
        return cls(
            tuple(np.concatenate(each) for each in zip(*(part.logits for part in parts), strict=True)),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.origins for part in parts]),
        )


@dataclass(frozen=True)
class Reading:
    """How logits are read: a temperature and an energy limit for each network."""

    temperatures: tuple[float, ...]
    limits: tuple[float | None, ...]
    unknown: int

    @classmethod
    def fitted(cls, asked: Asked, unknown: int, beyond: float) -> Reading:
        """The one that suits samples; so many of the known ones are beyond each limit."""
        known = asked.only(asked.labels != unknown)
        energies = (energy_of(logits.mean(1), unknown) for logits in known.logits)
        return cls(
            tuple(fit_temperature(logits, asked.labels) for logits in asked.logits),
            tuple(float(np.quantile(energy, 1 - beyond)) if beyond else None for energy in energies),
            unknown,
        )

    def scores(self, asked: Asked) -> Array:
        """Fused scores (N, num_classes)."""
        read = zip(asked.logits, self.temperatures, self.limits, strict=True)
        return np.mean([scores_of(logits, t, limit, self.unknown) for logits, t, limit in read], axis=0)


def asked(data: Path, split: str, models: Sequence[Path]) -> Asked:
    """Some networks, asked about a split."""
    dataset = open_annotations(data)
    origins = np.array([origin_of(dataset.annotations[k]) for k in dataset.indices(split)])
    answers = [logits_of(model, data, split, NUM_CLIPS) for model in models]
    return Asked(tuple(logits for logits, _ in answers), answers[0][1], origins)


def thirds(groups: Sequence[str]) -> list[int]:
    """The fold that leaves each sample's group out: groups of a source in turn."""
    fold: dict[str, int] = {}
    turn: Counter[str] = Counter()
    for group in sorted(set(groups), key=lambda group: (len(group), group)):
        source = re.split(r"[-\d]", group)[0]
        fold[group] = turn[source] % len(KEPT_OUT)
        turn[source] += 1
    return [fold[group] for group in groups]


def origin_of(sample: Annotation) -> str:
    """Source and, where it is not the first, the pose model."""
    _, apart, poses = sample.frame_dir.rpartition("~")
    return f"{sample.extra['source']}, {poses}" if apart else str(sample.extra["source"])


losing_option = click.option(
    "--losing", default=0.1, show_default=True, help="Share of known actions that may get unknown."
)
beyond_option = click.option(
    "--beyond", default=0.02, show_default=True, help="Share of known actions beyond the energy limit; 0: no limit."
)


@click.group()
def main() -> None:
    """See the top of this file."""


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
def make(data: Path, out: Path) -> None:
    """Write a dataset for each fold, with the splits train, known and kept_out."""
    dataset = open_annotations(data)
    samples = list(dataset.annotations)
    classes = [(dataset.class_names or ())[sample.label or 0] for sample in samples]
    folds = thirds([str(sample.extra["group"]) for sample in samples])
    out.mkdir(parents=True, exist_ok=True)
    for fold, kept_out in enumerate(KEPT_OUT):
        split: dict[str, list[str]] = {name: [] for name in ("train", *SPLITS)}
        for sample, name, left_out_in in zip(samples, classes, folds, strict=True):
            held = left_out_in == fold and sample.extra["source"] != "drawn"
            part = "kept_out" if name in kept_out else "known" if held else "train"
            split[part].append(sample.frame_dir)
        named = {name: tuple(part) for name, part in split.items()}
        save_annotations(replace(dataset, annotations=samples, split=named), out / f"{fold}.pkl")
        click.echo(f"{fold}: " + ", ".join(f"{len(part)} {name}" for name, part in named.items()))


def is_unknown(scores: Array, unknown: int, threshold: float) -> Array:
    """(N,) which samples get no name."""
    return (scores.max(1) < threshold) | (scores.argmax(1) == unknown)


def threshold_that_loses(share: float, scores: Array, unknown: int) -> float:
    """The largest threshold below which at most a share of samples gets no name."""
    best = np.sort(np.where(scores.argmax(1) == unknown, 0.0, scores.max(1)))
    return float(best[int(share * len(best))]) if len(best) else 0.0


@main.command()
@click.argument("folds", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--model", "models", required=True, multiple=True, help="Checkpoints, {} for the fold; several are fused."
)
@losing_option
@beyond_option
@click.option("--fold", "chosen", multiple=True, type=int, default=range(len(KEPT_OUT)), help="Only these.")
def measure(folds: Path, models: tuple[str, ...], losing: float, beyond: float, chosen: tuple[int, ...]) -> None:
    """Accuracy by source, and what becomes of known and of kept-out actions."""
    class_names = open_annotations(folds / "0.pkl").class_names or ()
    unknown = class_names.index(UNKNOWN)
    known, kept_out = (
        [asked(folds / f"{fold}.pkl", split, [Path(model.format(fold)) for model in models]) for fold in chosen]
        for split in SPLITS
    )
    whole = Asked.all_of(known)
    fold_of = np.repeat(range(len(known)), [len(part.labels) for part in known])
    right = np.mean([scores_of(logits) for logits in whole.logits], axis=0).argmax(1) == whole.labels
    for origin in sorted(set(whole.origins)):
        of_it = whole.origins == origin
        by_class = [right[of_it & (whole.labels == label)].mean() for label in set(whole.labels[of_it])]
        top1, mean_class = (round(float(x), 3) for x in (right[of_it].mean(), np.mean(by_class)))
        of_folds = [float(right[of_it & (fold_of == fold)].mean()) for fold in sorted(set(fold_of[of_it]))]
        row = {"source": origin, "samples": int(of_it.sum()), "top1": top1, "mean_class": mean_class}
        click.echo(json.dumps({**row, "deviation_of_folds": round(float(np.std(of_folds)), 3)}))
    lost: dict[tuple[str, str], list[Array]] = {}
    labels: dict[str, list[Array]] = {}
    for k in range(len(chosen)):
        others = Asked.all_of(known[:k] + known[k + 1 :])
        reading = Reading.fitted(others, unknown, beyond)
        thresholds = {
            "known": threshold_that_loses(losing, reading.scores(named(others, unknown)), unknown),
            "right": threshold_that_loses(losing, reading.scores(right_ones(others, unknown)), unknown),
        }
        parts = {"known": named(known[k], unknown), "right": right_ones(known[k], unknown), "kept_out": kept_out[k]}
        for actions, part in parts.items():
            labels.setdefault(actions, []).append(part.labels)
            for counted, threshold in thresholds.items():
                lost.setdefault((counted, actions), []).append(is_unknown(reading.scores(part), unknown, threshold))
    for (counted, actions), parts_lost in sorted(lost.items(), key=lambda item: item[0][0]):
        gone, of = np.concatenate(parts_lost), np.concatenate(labels[actions])
        if not len(of):  # none is right
            continue
        of_class = {class_names[c]: round(float(gone[of == c].mean()), 2) for c in sorted(set(of))}
        row = {"losing": f"{losing} of {counted}", "actions": actions}
        click.echo(json.dumps({**row, "called_unknown": round(float(gone.mean()), 3), "of_class": of_class}))


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", "models", required=True, multiple=True, type=click.Path(exists=True, path_type=Path))
@losing_option
@beyond_option
def limit(data: tuple[Path, ...], models: tuple[Path, ...], losing: float, beyond: float) -> None:
    """Give checkpoints that are to be fused energy limits and a threshold for unknown."""
    networks = [load_checkpoint(model) for model in models]
    unknown = networks[0].class_names.index(UNKNOWN)
    val = Asked.all_of([asked(path, "val", models) for path in data])
    temperatures = tuple(temperature_of(network.metrics) for network in networks)
    reading = replace(Reading.fitted(val, unknown, beyond), temperatures=temperatures)
    threshold = threshold_that_loses(losing, reading.scores(named(val, unknown)), unknown)
    for network, model, energy_limit in zip(networks, models, reading.limits, strict=True):
        chosen = {"energy_limit": energy_limit, "unknown_below": threshold}
        calibration = {**network.metrics.get("calibration", {}), **chosen}
        save_checkpoint(replace(network, metrics={**network.metrics, "calibration": calibration}), model)
    lost = float(is_unknown(reading.scores(named(val, unknown)), unknown, threshold).mean())
    click.echo(json.dumps({"energy_limits": reading.limits, "unknown_below": threshold, "lost": round(lost, 3)}))


def named(asked: Asked, unknown: int) -> Asked:
    """The samples of a class that has a name."""
    return asked.only(asked.labels != unknown)


def right_ones(asked: Asked, unknown: int) -> Asked:
    """Those of them whose class is the best of all."""
    some = named(asked, unknown)
    return some.only(np.mean([scores_of(logits) for logits in some.logits], axis=0).argmax(1) == some.labels)


if __name__ == "__main__":
    main()
