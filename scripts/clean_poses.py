"""How far does cleaning bring noisy poses back to the true ones? Each step apart, on eight motions of drawn people.

    python scripts/clean_poses.py

The joints are known; the error is their mean distance from the truth.

outliers   2 % of the joints are somewhere else for a frame, the rest has noise of 1 %: those joints alone, Hampel alone
gaps       nobody is seen for 5 frames, wherever these lie, no noise: filling alone, in those frames, against holding
           the last pose; not of who stands still
smoothing  noise of 1 or 2 % of the body's height: Butterworth alone
all        noise and outliers: as `predict` cleans
window     the same, as `live` cleans: each window of 2 s, one every 0.5 s, as a whole
picture    the same, as `live --show` and `--serve` draw, frame by frame with One-Euro, which knows no later frame
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from skelact.cleaning import Cleaning, OneEuro, clean_track, fill_gaps, smooth, without_outliers
from skelact.structures import Array, Track

sys.path.insert(0, str(Path(__file__).parent))
import drawn_people

SIZE = (320, 180)
HEIGHT = 0.75 * SIZE[1]  # px, of the drawn body
MOTIONS = ("wave", "walk", "jumping_jack", "squat", "punch", "run", "stand", "clap")
NOISES = (0.01, 0.02)  # body heights
HOLE = 5  # frames
STEPS = ("outliers", "gaps", "smoothing", "all", "window", "picture")


def true_joints(motion: str, fps: float = 30.0, seconds: float = 3.0) -> Array:
    """(T, 17, 2) px."""
    scene = drawn_people.scene_of(motion)
    return np.stack([joints[0] for _, joints, _ in drawn_people.render(scene, int(seconds * fps), fps, SIZE)])


def add_noise(joints: Array, noise: float, outliers: float = 0.02) -> tuple[Array, Array]:
    """With normal noise, in body heights, and a share of the joints somewhere else for a frame: those are (T, 17)."""
    rng = np.random.default_rng(0)
    found = joints + rng.normal(0, noise * HEIGHT, joints.shape)
    off = rng.random(joints.shape[:2]) < outliers
    found[off] += rng.normal(0, 0.2 * HEIGHT, (off.sum(), 2))
    return found.astype(np.float32), off


def as_track(keypoint: Array, fps: float = 30.0, score: Array | None = None) -> Track:
    """Somebody who is seen all the time."""
    score = np.full(keypoint.shape[:2], 0.9, np.float32) if score is None else score
    return Track(1, 0, np.arange(len(keypoint)) / fps, keypoint, score)


def with_one_euro(keypoint: Array, fps: float = 30.0) -> Array:
    """Frame by frame."""
    one_euro = OneEuro()
    score = np.full(17, 0.9, np.float32)
    return np.stack([one_euro(t / fps, joints, score, HEIGHT) for t, joints in enumerate(keypoint)])


def error(found: Array, joints: Array) -> float:
    """Mean distance in pixels."""
    return float(np.linalg.norm(found - joints, axis=-1).mean())


def fallen(motion: str, fps: float = 30.0) -> Iterator[tuple[str, float]]:
    """By which share the error falls, for each step and noise."""
    joints = true_joints(motion, fps)
    if motion != "stand":
        holes = [slice(start, start + HOLE) for start in range(1, len(joints) - HOLE)]
        held = [np.repeat(joints[hole.start - 1][None], HOLE, axis=0) for hole in holes]
        filled = [fill_gaps(joints, np.r_[: hole.start, hole.stop : len(joints)], 10)[hole] for hole in holes]
        truth = np.stack([joints[hole] for hole in holes])
        yield "gaps", 1 - error(np.stack(filled), truth) / error(np.stack(held), truth)
    for noise in NOISES:
        jitter, _ = add_noise(joints, noise, outliers=0)
        found, off = add_noise(joints, noise)
        yield (
            "outliers",
            1 - error(without_outliers(found, fps, Cleaning())[off], joints[off]) / error(found[off], joints[off]),
        )
        yield "smoothing", 1 - error(smooth(jitter, fps, Cleaning()), joints) / error(jitter, joints)
        yield "all", 1 - error(clean_track(as_track(found, fps), fps).keypoint, joints) / error(found, joints)
        parts = [slice(start, start + int(2 * fps)) for start in range(0, len(joints) - int(2 * fps) + 1, int(fps / 2))]
        cleaned = np.stack([clean_track(as_track(found[part], fps), fps).keypoint for part in parts])
        before, truth = (np.stack([each[part] for part in parts]) for each in (found, joints))
        yield "window", 1 - error(cleaned, truth) / error(before, truth)
        yield "picture", 1 - error(with_one_euro(found, fps), joints) / error(found, joints)


@click.command(help=__doc__)
@click.option("--fps", default=30.0, show_default=True)
def main(fps: float) -> None:
    """Measure and print."""
    rows = {motion: list(fallen(motion, fps)) for motion in MOTIONS}
    print(f"{'the error falls by':14s}" + "".join(f"{step:>11s}" for step in STEPS))
    everything: dict[str, list[float]] = {step: [] for step in STEPS}
    for motion, row in rows.items():
        for step, share in row:
            everything[step].append(share)
        of_step = [[share for name, share in row if name == step] for step in STEPS]
        print(f"{motion:18s}" + "".join(f"{np.mean(shares):11.0%}" if shares else f"{'':11s}" for shares in of_step))
    print(f"{'mean':18s}" + "".join(f"{np.mean(shares):11.0%}" for shares in everything.values()))
    print(f"{'least':18s}" + "".join(f"{min(shares):11.0%}" for shares in everything.values()))


if __name__ == "__main__":
    main()
