"""Weizmann and UT-Interaction, from videos: each person, or each sequence, is recognised by networks that never saw it.

    python scripts/leave_one_out.py weizmann --seeds 0,1,2 --window 1.6 --step 0.4
    python scripts/leave_one_out.py ut --seeds 0,1,2

The poses are skelact's own (`extract-poses`). A run trains for a fixed number of epochs on all groups but one and tests
its last weights on that one; nothing is chosen by what was left out. Everything is kept in runs/, and a run that was
broken off goes on. With ``--window`` samples are cut into overlapping windows; their scores are
averaged.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from experiment import scores_of, settings_of, trained

import skelact
from skelact.annotations import Annotation, AnnotationSet, open_annotations, save_annotations
from skelact.cutting import cut_into_windows
from skelact.metrics import accuracy, report
from skelact.plots import plot_confusion
from skelact.structures import Array
from skelact.weights import FOUR_STREAM

GROUPS = {  # what is left out, in a sample's name
    "weizmann": r"(?:^|/)([a-z]+)_\w+$",
    "ut": r"set1_\d+_(\d+)_\d$",
}
FOLDERS = {"weizmann": "weizmann", "ut": "ut_interaction"}


def dataset_of(name: str, clips: Path, pose_model: Path, work: Path) -> AnnotationSet:
    """The poses of all labelled clips; UT's people who do nothing are left out."""
    path = work / f"{name}.pkl"
    if not path.exists():
        found = skelact.extract_poses([clips / FOLDERS[name]], path, pose_model=str(pose_model))
        click.echo(f"{path}: {found}", err=True)
    whole = open_annotations(path)
    names = whole.class_names or ()
    kept = [sample for sample in whole.annotations if sample.label is not None and names[sample.label] != "none"]
    classes = tuple(name for name in names if name != "none")
    kept = [replace(sample, label=classes.index(names[sample.label or 0])) for sample in kept]
    return replace(whole, annotations=kept, class_names=classes, split={})


def others_of(path: Path, class_names: tuple[str, ...]) -> list[Annotation]:
    """Samples of another dataset, with our labels."""
    found = open_annotations(path)
    names = found.class_names or ()
    return [replace(sample, label=class_names.index(names[sample.label or 0])) for sample in found.annotations]


def group_of(name: str, pattern: str) -> str:
    """Whom or what a sample belongs to."""
    found = re.search(pattern, name)
    if not found:
        raise click.ClickException(f"{name}: expected a name like {pattern}")
    return found[1]


def mean_by(table: Array, owners: Array) -> Array:
    """Mean of the rows of each owner, who are 0, 1, ..."""
    return np.stack([table[owners == owner].mean(0) for owner in range(owners.max() + 1)])


@click.command()
@click.argument("name", type=click.Choice(sorted(GROUPS)))
@click.argument("changes", nargs=-1, metavar="SETTING=VALUE...")
@click.option("--videos", default="../shared/media/clips", type=click.Path(path_type=Path))
@click.option(
    "--pose-model", default="../shared/weights/yolov8n-pose_int8_openvino_model", type=click.Path(path_type=Path)
)
@click.option("--recipe", default="default")
@click.option("--streams", default="joint,bone")
@click.option("--seeds", default="0,1,2")
@click.option("--init", help="Checkpoint to start from, {stream} and {seed} filled in; it must not know the dataset.")
@click.option("--more", type=click.Path(path_type=Path), help="Pickle of samples to train on besides, classes by name.")
@click.option("--window", "window_s", type=float, help="Seconds. Default: whole samples.")
@click.option("--step", "step_s", default=0.4, show_default=True, help="Seconds from one window to the next.")
@click.option("--clips", "num_clips", default=10, show_default=True, help="Of each sample or window when testing.")
@click.option("--only", help="Leave out these alone, as a search for settings should: daria,denis.")
@click.option("--run", "run_name", default="final", help="Of the runs' folder.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Default: docs/NAME.json")
def main(
    name: str,
    changes: tuple[str, ...],
    videos: Path,
    pose_model: Path,
    recipe: str,
    streams: str,
    seeds: str,
    init: str | None,
    more: Path | None,
    window_s: float | None,
    step_s: float,
    num_clips: int,
    only: str | None,
    run_name: str,
    json_path: Path | None,
) -> None:
    """Train with each group left out in turn, and test on it."""
    work = Path("runs") / name
    work.mkdir(parents=True, exist_ok=True)
    settings = settings_of(recipe, changes)
    whole = dataset_of(name, videos, pose_model, work)
    labels = np.array([sample.label for sample in whole.annotations])
    names = [sample.frame_dir for sample in whole.annotations]
    if window_s:
        whole = cut_into_windows(whole, window_s, step_s)
    owners = np.array([names.index(sample.frame_dir.split("@")[0]) for sample in whole.annotations])
    groups = np.array([group_of(sample.frame_dir.split("@")[0], GROUPS[name]) for sample in whole.annotations])
    class_names = whole.class_names or ()
    others = others_of(more, class_names) if more else []
    left_out = sorted(only.split(",") if only else set(groups))
    tested = np.unique(owners[np.isin(groups, left_out)])
    click.echo(f"{len(tested)} of {len(labels)} samples, {len(class_names)} classes, {len(left_out)} groups", err=True)
    top1: dict[str, list[float]] = {}
    for seed in map(int, seeds.split(",")):
        scores = {stream: np.zeros((len(owners), len(class_names))) for stream in streams.split(",")}
        for group in left_out:
            data = work / run_name / f"without-{group}.pkl"
            if not data.exists():
                named = {
                    key: tuple(
                        s.frame_dir for s, g in zip(whole.annotations, groups, strict=True) if (g == group) == on
                    )
                    for key, on in (("train", False), ("left", True))
                }
                named["train"] += tuple(sample.frame_dir for sample in others)
                data.parent.mkdir(exist_ok=True)
                save_annotations(replace(whole, annotations=[*whole.annotations, *others], split=named), data)
            for stream, table in scores.items():
                out = work / run_name / f"{recipe}-{seed}-{group}-{stream}"
                run = replace(settings, stream=stream, seed=seed)
                start = Path(init.format(stream=stream, seed=seed)) if init else None
                table[groups == group] = scores_of(trained(data, out, run, start), data, "left", clips=num_clips)[0]
        scores = {stream: mean_by(table, owners)[tested] for stream, table in scores.items()}
        fused = np.sum([FOUR_STREAM[stream] * table for stream, table in scores.items()], axis=0)
        fused /= fused.sum(1, keepdims=True)
        for key, table in {**scores, **({"fused": fused} if len(scores) > 1 else {})}.items():
            top1.setdefault(key, []).append(accuracy(table, labels[tested]))
        click.echo(json.dumps({"seed": seed, **{key: round(values[-1], 4) for key, values in top1.items()}}))
    json_path = json_path or Path("docs") / f"{name}.json"
    json_path.parent.mkdir(exist_ok=True)
    result = {
        "changes": changes,
        "recipe": recipe,
        "init": init,
        "more": str(more) if more else None,
        "window_s": window_s,
        "step_s": step_s if window_s else None,
        "samples": len(tested),
        "groups": left_out,
        "top1_by_seed": top1,
        "mean_top1": {key: float(np.mean(values)) for key, values in top1.items()},
        "std_over_seeds": {key: float(np.std(values)) for key, values in top1.items()},
        "torch": torch.__version__,
    }
    json_path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    plot_confusion(report(fused, labels[tested], class_names).confusion, class_names, json_path.with_suffix(".png"))
    click.echo(json.dumps(result["mean_top1"]))


if __name__ == "__main__":
    main()
