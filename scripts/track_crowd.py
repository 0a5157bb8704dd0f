"""Do ten drawn people who walk past each other for a minute keep their identities? ID switches and IDF1 by tracker.

    python scripts/track_crowd.py
    python scripts/track_crowd.py --seeds 0,1,2 --tracker bytetrack --out docs/crowd.csv
    python scripts/track_crowd.py --pose-model ../shared/weights/yolov8n-pose_int8_openvino_model --size 960x540

Without --pose-model an honest estimator is simulated: joints and boxes with noise (1 % of the body height), in another
order in each frame, and nobody is seen of whom others cover more than 70 %. People who are hidden so far are in the
truth, as in MOTChallenge, what is not to be judged: a track that goes on through them is neither right nor wrong.
Everybody else counts, however short they are seen between two others.

"raw" is what the tracker says frame by frame, "mended" what `skelact.tracking.build_tracks` makes of it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import motmetrics
import numpy as np
from tqdm import tqdm

import skelact.writers
from skelact.linking import clothes_colour
from skelact.pose import PoseModel
from skelact.structures import Array, Frame, FramePoses, Track
from skelact.tracking import TRACKERS, Tracker, build_tracks

sys.path.insert(0, str(Path(__file__).parent))
import drawn_people

FPS = 30.0
MAX_COVERED = 0.7
NOISE = 0.01  # of the body height
MIN_IOU = 0.5  # of a track's box with the true one, as in MOTChallenge
METRICS = ("idf1", "idp", "idr", "num_switches", "recall", "precision", "mota")

# Track numbers (N,) and boxes (N, 4) of a frame.
Labelled = tuple[Array, Array]


def covered(bbox: Array) -> Array:
    """The largest share of each box (N, 4) that one of the following, who are in front, covers: (N,)."""
    low, high = np.maximum(bbox[:, None, :2], bbox[:, :2]), np.minimum(bbox[:, None, 2:], bbox[:, 2:])
    shared = np.clip(high - low, 0, None).prod(-1) / (bbox[:, 2:] - bbox[:, :2]).prod(-1)[:, None]
    return np.triu(shared, 1).max(1, initial=0)


def simulated(t: int, keypoint: Array, bbox: Array, rng: np.random.Generator) -> FramePoses:
    """What an honest estimator reports of a frame."""
    who = rng.permutation(np.flatnonzero(covered(bbox) < MAX_COVERED))
    height = (bbox[who, 3] - bbox[who, 1])[:, None]
    return FramePoses(
        frame_index=t,
        time_s=t / FPS,
        keypoint=(keypoint[who] + rng.normal(0, NOISE, (len(who), 17, 2)) * height[:, None]).astype(np.float32),
        keypoint_score=np.full((len(who), 17), 0.9, np.float32),
        bbox=(bbox[who] + rng.normal(0, NOISE, (len(who), 4)) * height).astype(np.float32),
        bbox_score=np.full(len(who), 0.85, np.float32),
    )


def by_frame(tracks: Sequence[Track], num_frames: int) -> Iterator[Labelled]:
    """Tracks as a tracker reports them."""
    for t in range(num_frames):
        here = [track for track in tracks if track.start_frame <= t < track.stop_frame]
        here = [track for track in here if track.present[t - track.start_frame]]
        boxes = [track.bbox[t - track.start_frame] for track in here if track.bbox is not None]
        yield np.array([track.track_id for track in here], np.int64), np.array(boxes).reshape(-1, 4)


def score(found: Sequence[Labelled], truth: Sequence[Array]) -> dict[str, float]:
    """The metrics of boxes with numbers against the true boxes (10, 4) of each frame."""
    total = motmetrics.MOTAccumulator(auto_id=True)
    for (numbers, boxes), bbox in zip(found, truth, strict=True):
        overlap = drawn_people.box_overlap(bbox, boxes)
        hidden = covered(bbox) >= MAX_COVERED
        # Who is found best of all in a hidden person's place is not judged.
        judged = np.ones(len(numbers), bool)
        for n in np.flatnonzero(hidden):
            own = (overlap[n] >= MIN_IOU) & (overlap[n] >= overlap.max(0, initial=0))
            judged &= ~own
        distance = 1 - overlap[~hidden][:, judged]
        distance[distance > 1 - MIN_IOU] = np.nan
        total.update(np.flatnonzero(~hidden), numbers[judged], distance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        summary = motmetrics.metrics.create().compute(total, metrics=METRICS, name="all")
    return {name: float(summary.iloc[0][name]) for name in METRICS}


def measure(
    seed: int, trackers: Sequence[str], seconds: float, size: tuple[int, int], estimator: PoseModel | None
) -> Iterator[dict[str, object]]:
    """A row for each tracker, raw and mended."""
    following = {name: Tracker(name, FPS) for name in trackers}
    ids: dict[str, list[Array]] = {name: [] for name in trackers}
    frames: list[FramePoses] = []
    colours: list[Array] = []
    truth: list[Array] = []
    rng = np.random.default_rng(seed)
    num_frames = round(seconds * FPS)
    pictures = drawn_people.render(drawn_people.ten_walkers(seed), num_frames, FPS, size)
    for t, (image, keypoint, bbox) in enumerate(tqdm(pictures, f"seed {seed}", num_frames, unit=" frames")):
        frames.append(estimator.detect(Frame(t, t / FPS, image)) if estimator else simulated(t, keypoint, bbox, rng))
        colours.append(clothes_colour(image, frames[-1].keypoint))
        truth.append(bbox)
        for name in trackers:
            ids[name].append(following[name].update(frames[-1], image))
    for name in trackers:
        raw = [(number[number > 0], poses.bbox[number > 0]) for number, poses in zip(ids[name], frames, strict=True)]
        tracks = build_tracks(frames, ids[name], FPS, colours)
        for stage, found in (("raw", raw), ("mended", list(by_frame(tracks, num_frames)))):
            numbers = len({int(number) for row, _ in found for number in row})
            yield {"seed": seed, "tracker": name, "stage": stage, "tracks": numbers, **score(found, truth)}


@click.command(help=__doc__)
@click.option("--seeds", default="0,1,2", show_default=True, help="Of the crowds.")
@click.option("--tracker", "trackers", multiple=True, default=TRACKERS, show_default=True)
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--size", default="640x360", show_default=True, help="WIDTHxHEIGHT of the picture.")
@click.option("--pose-model", help="A real YOLO in place of the simulated estimator.")
@click.option("--out", type=click.Path(), help="CSV to write.")
def main(
    seeds: str, trackers: tuple[str, ...], seconds: float, size: str, pose_model: str | None, out: str | None
) -> None:
    """Measure and print."""
    width, height = map(int, size.split("x"))
    estimator = PoseModel(pose_model) if pose_model else None
    rows = [
        row
        for seed in map(int, seeds.split(","))
        for row in measure(seed, trackers, seconds, (width, height), estimator)
    ]
    lines = [",".join(rows[0])]
    lines += [",".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()) for row in rows]
    if out:
        skelact.writers.write_text("\n".join(lines) + "\n", out)
    print("\n".join(lines))
    for stage in ("raw", "mended"):
        for name in trackers:
            mine = [row for row in rows if row["tracker"] == name and row["stage"] == stage]
            idf1, switches = ([float(str(row[key])) for row in mine] for key in ("idf1", "num_switches"))
            print(
                f"{stage:7s} {name:11s} IDF1 {np.mean(idf1):.3f}, {min(idf1):.3f} at least; "
                f"{np.mean(switches):.0f} ID switches"
            )


if __name__ == "__main__":
    main()
