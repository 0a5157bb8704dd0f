"""JHMDB, from DD-Net's files of ground-truth 2D poses: the search for settings, and the figures of the docs.

    python scripts/jhmdb.py search NAME SETTING=VALUE...   # on folds of the first split's training part, into the log
    python scripts/jhmdb.py final --seeds 0,1,2            # on all three splits, four streams and their fusion

The search never reads a test part. The final run trains for a fixed number of epochs and tests the last weights.
Everything is kept in runs/jhmdb, and a run that was broken off goes on.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from experiment import scores_of, settings_of, trained

import skelact
from skelact.annotations import AnnotationSet, open_annotations, save_annotations
from skelact.clips import STREAMS
from skelact.metrics import accuracy
from skelact.weights import FOUR_STREAM, TWO_STREAM

RUNS = Path("runs/jhmdb")
DOCS = Path("docs")
FOLDS = 3


def converted(data: Path, split: int) -> Path:
    """The annotation pickle of a split."""
    path = RUNS / f"jhmdb{split}.pkl"
    if not path.exists():
        skelact.convert([data / f"GT_train_{split}.pkl", data / f"GT_test_{split}.pkl"], path)
    return path


def folds(data: Path) -> list[Path]:
    """The first split's training part, cut into folds, class by class; each pickle has ``train`` and ``fold``."""
    whole = open_annotations(converted(data, 1))
    indices = whole.indices("train")
    chance = np.random.default_rng(0)
    fold_of: dict[int, int] = {}
    for label in sorted({whole.annotations[k].label or 0 for k in indices}):
        members = [k for k in indices if (whole.annotations[k].label or 0) == label]
        fold_of |= {k: n % FOLDS for n, k in enumerate(chance.permutation(members).tolist())}
    paths = []
    for fold in range(FOLDS):
        paths.append(RUNS / f"fold{fold}.pkl")
        if not paths[-1].exists():
            named: dict[str, tuple[str, ...]] = {
                name: tuple(whole.annotations[k].frame_dir for k in indices if (fold_of[k] == fold) == held)
                for name, held in (("train", False), ("fold", True))
            }
            samples = [whole.annotations[k] for k in indices]
            save_annotations(AnnotationSet(samples, named, whole.class_names, whole.layout), paths[-1])
    return paths


@click.group()
def main() -> None:
    """Search and measure on JHMDB."""


@main.command()
@click.argument("name")
@click.argument("changes", nargs=-1, metavar="SETTING=VALUE...")
@click.option("--data", default="../shared/data/jhmdb", type=click.Path(path_type=Path))
@click.option("--recipe", default="default")
@click.option("--only", default=FOLDS, help="How many folds to run.")
def search(name: str, changes: tuple[str, ...], data: Path, recipe: str, only: int) -> None:
    """Train on folds, test on what is left of the training part, and add a line to the log."""
    settings = settings_of(recipe, changes)
    found = []
    for fold, path in enumerate(folds(data)[:only]):
        last = trained(path, RUNS / "search" / name / str(fold), settings)
        scores, labels = scores_of(last, path, "fold", clips=1)
        found.append(accuracy(scores, labels))
        np.save(RUNS / "search" / name / f"scores{fold}.npy", scores)
    log = DOCS / "jhmdb_search.csv"
    log.parent.mkdir(exist_ok=True)
    new = not log.exists()
    with log.open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        if new:
            table.writerow(["name", "recipe", "changes", "folds", "mean_top1", "top1_by_fold"])
        rounded = " ".join(f"{top1:.4f}" for top1 in found)
        table.writerow([name, recipe, " ".join(changes), len(found), f"{np.mean(found):.4f}", rounded])
    click.echo(f"{name}: {np.mean(found):.4f} ({rounded})")


@main.command()
@click.argument("changes", nargs=-1, metavar="SETTING=VALUE...")
@click.option("--data", default="../shared/data/jhmdb", type=click.Path(path_type=Path))
@click.option("--recipe", default="default")
@click.option("--seeds", default="0,1,2")
@click.option("--streams", default=",".join(STREAMS))
@click.option("--json", "json_path", default="docs/jhmdb.json", type=click.Path(path_type=Path))
def final(changes: tuple[str, ...], data: Path, recipe: str, seeds: str, streams: str, json_path: Path) -> None:
    """Train on each split's training part and test on its test part."""
    settings = settings_of(recipe, changes)
    rows = []
    for seed in map(int, seeds.split(",")):
        for split in (1, 2, 3):
            path = converted(data, split)
            scores = {}
            for stream in streams.split(","):
                run = RUNS / "final" / f"{recipe}-{seed}-{split}-{stream}"
                last = trained(path, run, replace(settings, stream=stream, seed=seed))
                scores[stream], labels = scores_of(last, path, "test", clips=10)
            top1 = {stream: accuracy(each, labels) for stream, each in scores.items()}
            for name, weights in (("two-stream", TWO_STREAM), ("four-stream", FOUR_STREAM)):
                if set(weights) <= set(scores):
                    fused = np.sum([weight * scores[stream] for stream, weight in weights.items()], axis=0)
                    top1[name] = accuracy(fused, labels)
            rows.append({"seed": seed, "split": split, **top1})
            click.echo(json.dumps(rows[-1]))
    table = {}
    for name in [key for key in rows[0] if key not in ("seed", "split")]:
        by_seed = [np.mean([row[name] for row in rows if row["seed"] == seed]) for seed in {r["seed"] for r in rows}]
        table[name] = {"mean_top1": float(np.mean(by_seed)), "std_over_seeds": float(np.std(by_seed))}
        click.echo(f"{name:14s} {np.mean(by_seed):.4f} +- {np.std(by_seed):.4f}")
    result = {"recipe": recipe, "changes": changes, "torch": torch.__version__, "rows": rows, "mean": table}
    json_path.parent.mkdir(exist_ok=True)
    json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
