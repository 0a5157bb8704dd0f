"""How well timelines hold on long videos: a composite of real labelled clips, and home videos with falls.

    python scripts/composite.py labels ../shared/media/clips --out composite/labels.csv
    python scripts/composite.py make ../shared/media/clips --out composite/composite.mp4
    skelact extract-poses ../shared/media/clips --labels composite/labels.csv --out composite/clips.pkl
    skelact train composite/clips.pkl --out composite/run
    python scripts/composite.py measure composite/composite.mp4 --model composite/run/best.safetensors
    python scripts/composite.py falls ../shared/media/untrimmed/gmdcsa24 --model composite/run/best.safetensors

`labels` splits the clips for training: those of the people (Weizmann) and sequences (UT-Interaction) that the
composite shows are in `test`, those of one more person and sequence in `val`, the others in `train`. `make` shows the
clips of the people and sequences that are named, in random order, again and again (every other time mirrored), with
hard cuts and with pauses of an empty picture, each clip at its own frame rate. What is shown when stands in a CSV
beside the video.
"""

from __future__ import annotations

import csv
import json
import re
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from tqdm import tqdm

import skelact
from skelact.pipeline import DEFAULT_POSE_MODEL
from skelact.structures import Array
from skelact.video import VideoWriter, find_videos, read_frames
from skelact.writers import to_json, write_json

SIZE = (640, 480)  # width, height
BACKGROUND = "none"  # nobody, or people who do nothing that has a name
GREY = 96
MIN_PAUSE_S, MAX_PAUSE_S = 1.0, 3.0
PAUSE_SHARE = 0.4  # of the cuts
RATE = 30.0  # frames a second that are scored
FALL_TOLERANCE_S = 1.0


@dataclass(frozen=True)
class Segment:
    """Something that lasts from one time to another, in seconds."""

    start_s: float
    stop_s: float
    class_name: str

    @property
    def length_s(self) -> float:
        return self.stop_s - self.start_s

    def overlap(self, other: Segment) -> float:
        """Intersection over union in time."""
        both = min(self.stop_s, other.stop_s) - max(self.start_s, other.start_s)
        return max(both, 0.0) / (self.length_s + other.length_s - max(both, 0.0))


# --- making ------------------------------------------------------------------------------------------------------


def owner_of(path: Path) -> str:
    """Whom a clip shows: the person's name in Weizmann, the sequence's number in UT-Interaction."""
    sequence = re.fullmatch(r"set1_\d+_(\d+)_\d+", path.stem)
    return sequence[1] if sequence else path.stem.split("_")[0]


def is_shown(path: Path, people: Sequence[str], sequences: Sequence[str]) -> bool:
    return owner_of(path) in (*people, *sequences)


def names(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


@click.group()
def main() -> None:
    """See the top of this file."""


people_option = click.option("--people", callback=names, default="daria,eli", show_default=True, help="Of Weizmann.")
sequences_option = click.option("--sequences", callback=names, default="2,7", show_default=True, help="Of UT.")


@main.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@people_option
@sequences_option
@click.option(
    "--val", callback=names, default="ido,4", show_default=True, help="A person and a sequence to validate on."
)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def labels(clips: Path, people: list[str], sequences: list[str], val: list[str], out: Path) -> None:
    """Write path, label, split of all clips, for `skelact extract-poses --labels`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        for path in find_videos(clips):
            split = "test" if is_shown(path, people, sequences) else "val" if owner_of(path) in val else "train"
            rows.writerow((path.resolve(), path.parent.name, split))


def order_of(paths: Sequence[Path], rng: np.random.Generator) -> list[Path]:
    """A random order in which no class follows itself, as far as that goes."""
    left: list[Path] = list(rng.permutation(np.array(paths, object)))
    order: list[Path] = []
    while left:
        last = order[-1].parent.name if order else None
        k = next((k for k, path in enumerate(left) if path.parent.name != last), 0)
        order.append(left.pop(k))
    return order


def on_canvas(image: Array, mirrored: bool) -> Array:
    """A picture as large as fits into the middle of a grey one."""
    width, height = SIZE
    scale = min(width / image.shape[1], height / image.shape[0])
    shown = cv2.resize(image[:, ::-1] if mirrored else image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    shown = shown[:height, :width]
    canvas = np.full((height, width, 3), GREY, np.uint8)
    top, left = (height - shown.shape[0]) // 2, (width - shown.shape[1]) // 2
    canvas[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return canvas


@main.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@people_option
@sequences_option
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE.mp4")
def make(clips: Path, people: list[str], sequences: list[str], minutes: float, seed: int, out: Path) -> None:
    """Make the composite, and beside it FILE.csv with start_s, stop_s, class_name, clip."""
    rng = np.random.default_rng(seed)
    paths = [path for path in find_videos(clips) if is_shown(path, people, sequences)]
    if not paths:
        raise click.ClickException(f"{clips}: no clips of {', '.join((*people, *sequences))}")
    rows, now, total = [], 0.0, round(minutes * 60)
    with VideoWriter(out, SIZE[::-1], RATE) as writer, tqdm(desc=out.name, total=total, unit=" s") as bar:
        for path, mirrored in shown_clips(paths, rng):
            frame_s = 1 / RATE
            start_s, before = now, 0.0
            for frame in read_frames(path):
                frame_s = frame.time_s - before or frame_s
                before = frame.time_s
                writer.write(on_canvas(frame.image, mirrored), start_s + frame.time_s)
                now = start_s + frame.time_s + frame_s
            rows.append((f"{start_s:.3f}", f"{now:.3f}", path.parent.name, path.name + " mirrored" * mirrored))
            if rng.random() < PAUSE_SHARE:
                stop_s = now + rng.uniform(MIN_PAUSE_S, MAX_PAUSE_S)
                while now < stop_s:
                    writer.write(np.full((*SIZE[::-1], 3), GREY, np.uint8), now)
                    now += 1 / RATE
            bar.update(min(round(now), total) - bar.n)
            if now >= minutes * 60:
                break
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("start_s", "stop_s", "class_name", "clip"), *rows])
    click.echo(f"{out}: {now:.1f} s, {len(rows)} clips of {len(paths)} files")


def shown_clips(paths: Sequence[Path], rng: np.random.Generator) -> Iterator[tuple[Path, bool]]:
    """All clips in random order, then all of them mirrored, and so on."""
    mirrored = False
    while True:
        yield from ((path, mirrored) for path in order_of(paths, rng))
        mirrored = not mirrored


# --- scoring -----------------------------------------------------------------------------------------------------


def read_truth(path: Path) -> list[Segment]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [Segment(float(row["start_s"]), float(row["stop_s"]), row["class_name"]) for row in rows]


def told(predictions: Sequence[dict[str, Any]], times: Array) -> list[str]:
    """What the video shows at each time: of all that people do, the surest.

    Those who are a pair at that time are answered by what the pair does, and not alone. A class `none` and the answer
    `unknown` are the background.
    """
    return [BACKGROUND if surest is None else surest["class_name"] for surest in surest_of(predictions, times)]


def surest_of(predictions: Sequence[dict[str, Any]], times: Array) -> list[dict[str, Any] | None]:
    """The segment that answers at each time, or None for the background."""
    pairs = [prediction for prediction in predictions if len(prediction["track_ids"]) > 1]
    surest: list[dict[str, Any] | None] = [None] * len(times)
    best = np.zeros(len(times))
    for prediction in predictions:
        if prediction["class_name"] in (BACKGROUND, "unknown"):
            continue
        counts = _inside(prediction, times)
        if len(prediction["track_ids"]) == 1:
            for pair in pairs:
                if prediction["track_ids"][0] in pair["track_ids"]:
                    counts &= ~_inside(pair, times)
        for k in np.flatnonzero(counts & (best < prediction["score"])):
            surest[k], best[k] = prediction, prediction["score"]
    return surest


def _inside(prediction: dict[str, Any], times: Array) -> Array:
    return (times >= prediction["start_s"]) & (times < prediction["stop_s"])


def label_at(segments: Sequence[Segment], times: Array) -> list[str]:
    labels = [BACKGROUND] * len(times)
    for segment in segments:
        for k in np.flatnonzero((times >= segment.start_s) & (times < segment.stop_s)):
            labels[k] = segment.class_name
    return labels


def runs(labels: Sequence[str], times: Array) -> list[Segment]:
    """Equal labels in a row as segments, without the background."""
    starts = [k for k in range(len(labels)) if k == 0 or labels[k] != labels[k - 1]]
    return [
        Segment(float(times[a]), float(times[b - 1]) + 1 / RATE, labels[a])
        for a, b in zip(starts, [*starts[1:], len(labels)], strict=True)
        if labels[a] != BACKGROUND
    ]


def matches(found: Sequence[Segment], truth: Sequence[Segment], iou: float) -> int:
    """How many found segments overlap a true one of their class enough, each true one taken once (MS-TCN's F1@k)."""
    free = list(truth)
    hits = 0
    for segment in found:
        same = [other for other in free if other.class_name == segment.class_name]
        best = max(same, key=segment.overlap, default=None)
        if best and segment.overlap(best) >= iou:
            free.remove(best)
            hits += 1
    return hits


def f1(hits: int, found: int, truth: int) -> float:
    return 2 * hits / max(found + truth, 1)


def scores_of(predictions: Sequence[dict[str, Any]], truth: Sequence[Segment]) -> dict[str, Any]:
    """Frame accuracy, and F1 of segments by class."""
    stop_s = max(segment.stop_s for segment in truth)
    times = np.arange(0, stop_s, 1 / RATE)
    answer, right = told(predictions, times), label_at(truth, times)
    found = runs(answer, times)
    actions = [segment for segment in truth if segment.class_name != BACKGROUND]
    same = np.array([a == b for a, b in zip(answer, right, strict=True)])
    acting = np.array([name != BACKGROUND for name in right])
    result: dict[str, Any] = {
        "frame_accuracy": float(same.mean()),
        "frame_accuracy_of_actions": float(same[acting].mean()),
        "frame_accuracy_of_background": float(same[~acting].mean()) if not acting.all() else None,
    }
    for iou in (0.25, 0.5):
        by_class = {}
        for name in sorted({segment.class_name for segment in actions}):
            own = [segment for segment in found if segment.class_name == name]
            of_class = [segment for segment in actions if segment.class_name == name]
            by_class[name] = f1(matches(own, of_class, iou), len(own), len(of_class))
        result[f"f1@{iou}"] = f1(matches(found, actions, iou), len(found), len(actions))
        result[f"mean_class_f1@{iou}"] = float(np.mean(list(by_class.values())))
        result[f"f1@{iou}_by_class"] = by_class
    return result


def losses_of(predictions: Sequence[dict[str, Any]], truth: Sequence[Segment], iou: float = 0.5) -> Counter[str]:
    """How many true segments are found, why the others are not, and what told ones show that are none of them."""
    times = np.arange(0, max(segment.stop_s for segment in truth), 1 / RATE)
    surest = surest_of(predictions, times)
    answer = told(predictions, times)
    found = runs(answer, times)
    there = np.any([_inside(prediction, times) for prediction in predictions], axis=0) if predictions else times < 0
    losses: Counter[str] = Counter()
    free = list(found)
    for segment in truth:
        if segment.class_name == BACKGROUND:
            continue
        inside = np.flatnonzero((times >= segment.start_s) & (times < segment.stop_s))
        (name, _), *_ = Counter(answer[k] for k in inside).most_common(1)
        right = [one for one in found if one.class_name == segment.class_name and segment.overlap(one) > 0]
        best = max((one for one in right if one in free), key=segment.overlap, default=None)
        if best and segment.overlap(best) >= iou:
            free.remove(best)
            losses["found"] += 1
        elif not there[inside].any():
            losses["missed: nobody is seen"] += 1
        elif name == BACKGROUND:
            losses["missed: no answer for most of it"] += 1
        elif name != segment.class_name:
            (people, _), *_ = Counter(len(one["track_ids"]) for k in inside if (one := surest[k])).most_common(1)
            losses[f"missed: {segment.class_name} is told as {name}, of {people}"] += 1
        else:
            losses["missed: in fragments" if len(right) > 1 else "missed: other borders"] += 1
    for segment in free:
        shared = {other: min(segment.stop_s, other.stop_s) - max(segment.start_s, other.start_s) for other in truth}
        most = max(shared, key=shared.__getitem__)
        if shared[most] <= 0:
            losses["false: in a pause"] += 1
        elif most.class_name == BACKGROUND:
            losses["false: people do nothing"] += 1
        else:
            same = most.class_name == segment.class_name
            losses["false: part of the right one" if same else "false: something else is done"] += 1
    return losses


def predicted(
    videos: Sequence[Path], model: Sequence[str], options: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """The JSON of `skelact predict --granularity timeline`."""
    content = to_json(skelact.predict(videos, model, granularity="timeline", **options))
    if out:
        write_json(content, str(out))
    return content


def predict_options(command: Callable[..., None]) -> Callable[..., None]:
    """What both measurements give to `predict`."""
    for option in (
        click.option("--json", "json_path", type=click.Path(path_type=Path), help="Keep, or take, predictions."),
        click.option("--min-duration", "min_duration_s", type=float, default=1.0, show_default=True),
        click.option("--unknown-below", default="auto", show_default=True, help="A score, auto or off."),
        click.option("--step", "step_s", type=float, default=0.5, show_default=True),
        click.option("--window", help="Seconds; several with commas. Default: the model's own."),
        click.option("--pose-model", default=DEFAULT_POSE_MODEL, show_default=True),
        click.option("--model", multiple=True, help="Not needed where --json is there already."),
    ):
        command = option(command)
    return command


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """The command line's options as `predict` takes them."""
    below = options["unknown_below"]
    return {
        "pose_model": options["pose_model"],
        "window_s": [float(part) for part in options["window"].split(",")] if options["window"] else None,
        "step_s": options["step_s"],
        "min_duration_s": options["min_duration_s"],
        "unknown_below": {"auto": "auto", "off": None}[below] if below in ("auto", "off") else float(below),
    }


def taken(videos: Sequence[Path], model: Sequence[str], json_path: Path | None, options: dict[str, Any]) -> Any:
    """Predictions from a file, or made and kept there."""
    if json_path and json_path.exists():
        return json.loads(json_path.read_text(encoding="utf-8"))
    if not model:
        raise click.UsageError("--model is needed, or --json with predictions")
    return predicted(videos, model, plain_options(options), json_path)


@main.command()
@click.argument("video", type=click.Path(exists=True, path_type=Path))
@click.option("--losses", "shows_losses", is_flag=True, help="Tell why segments are missed or false.")
@predict_options
def measure(video: Path, model: tuple[str, ...], json_path: Path | None, shows_losses: bool, **options: Any) -> None:
    """Score the timeline of a composite against the CSV beside it."""
    content = taken([video], model, json_path, options)
    result = content["results"][0]
    if result["error"]:
        raise click.ClickException(result["error"])
    truth = read_truth(video.with_suffix(".csv"))
    for name, value in scores_of(result["predictions"], truth).items():
        if isinstance(value, dict):
            click.echo(
                "\n".join(f"{name.removesuffix('_by_class'):>10}  {share:.3f}  {key}" for key, share in value.items())
            )
        elif value is not None:
            click.echo(f"{value:.3f}  {name}")
    if shows_losses:
        for name, count in sorted(losses_of(result["predictions"], truth).items()):
            click.echo(f"{count:>5}  {name}")
    click.echo(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB of memory at most")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--subject", help="Only this person's videos, such as those that a model was not trained on.")
@predict_options
def falls(folder: Path, subject: str | None, model: tuple[str, ...], json_path: Path | None, **options: Any) -> None:
    """Score falls in home videos with timed activities (segments.csv: path, subject, class, start_s, stop_s).

    A fall is a class with "fall" in its name. It is found if a segment of such a class starts within 1 s of it. A false
    one is a segment that overlaps no true fall.
    """
    with (folder / "segments.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if subject in (None, row["subject"])]
    by_video: dict[str, list[Segment]] = {}
    for row in rows:
        own = by_video.setdefault(row["path"], [])
        if "fall" in row["class"].lower():
            own.append(Segment(float(row["start_s"]), float(row["stop_s"]), row["class"]))
    content = taken([folder / name for name in by_video], model, json_path, options)
    hits, total, false, quiet = 0, 0, 0, 0
    for result in content["results"]:
        truth = by_video[Path(result["source"]).name]
        found = [
            Segment(p["start_s"], p["stop_s"], p["class_name"])
            for p in result.get("predictions", ())
            if "fall" in p["class_name"].lower()
        ]
        hit = sum(any(abs(one.start_s - fall.start_s) <= FALL_TOLERANCE_S for one in found) for fall in truth)
        wrong = [one for one in found if not any(one.overlap(fall) > 0 for fall in truth)]
        hits, total, false = hits + hit, total + len(truth), false + len(wrong)
        quiet += not truth and not found
        starts = ", ".join(f"{one.start_s:.1f} s" for one in found) or "none"
        true = ", ".join(f"{fall.start_s:.1f} s" for fall in truth) or "none"
        click.echo(f"{Path(result['source']).name}: falls at {true}; told at {starts}{' ' + (result['error'] or '')}")
    without = sum(not truth for truth in by_video.values())
    click.echo(f"{hits} of {total} falls told within {FALL_TOLERANCE_S:g} s; {false} false ones;", nl=False)
    click.echo(f" {quiet} of {without} videos without a fall have none")


if __name__ == "__main__":
    main()
