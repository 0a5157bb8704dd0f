"""Clips as the facts of ST-GCN++ read, step by step: what ``skelact.clips`` must equal and be faster than.

    OMP_NUM_THREADS=1 python scripts/plain_clips.py  # clips/s of both in turns, and their ratio

The steps, their order and their arrays are those of PYSKL's and mmaction2's pipelines: normalise, make the stream,
sample, keep frames beside changes, gather, pad. ``lean`` leaves out the last but two, which costs most and changes
nothing. Shapes: M persons, T frames, V joints, C channels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial

import click
import numpy as np

from skelact.clips import STREAMS, ClipSettings, prepare_clips
from skelact.skeleton import COCO, NTU, Layout
from skelact.structures import Array


def plain_clips(
    keypoint: Array,
    keypoint_score: Array | None,
    img_shape: tuple[int, int] | None,
    layout: Layout,
    stream: str,
    num_clips: int,
    clip_len: int = 100,
    num_person: int = 2,
    lean: bool = False,
) -> Array:
    """(num_clips, num_person, clip_len, V, C), as for ``prepare_clips`` with published settings."""
    keypoint = keypoint.astype(np.float32)
    if keypoint_score is None:
        keypoint = plain_normalise_3d(keypoint)
    else:
        height, width = img_shape or (1080, 1920)
        keypoint[..., 0] = (keypoint[..., 0] - width / 2) / (width / 2)
        keypoint[..., 1] = (keypoint[..., 1] - height / 2) / (height / 2)
        keypoint = np.concatenate([keypoint, keypoint_score.astype(np.float32)[..., None]], axis=-1)
    features = plain_stream(keypoint, layout, stream, keypoint_score is not None)
    frame_inds = plain_frame_inds(features.shape[1], clip_len, num_clips)
    if not lean:
        frame_inds = keep_beside_changes(features, frame_inds)
    features = features[:, frame_inds].astype(np.float32)
    M, _, V, C = features.shape
    if num_person > M:
        features = np.concatenate([features, np.zeros((num_person - M, *features.shape[1:]), np.float32)])
    features = features[:num_person].reshape(num_person, num_clips, clip_len, V, C)
    return np.ascontiguousarray(features.transpose(1, 0, 2, 3, 4))


def plain_stream(keypoint: Array, layout: Layout, stream: str, with_score: bool) -> Array:
    """(M, T, V, C), bone by bone; the last channel is the score, if there is one."""
    if stream.startswith("bone"):
        bone = np.zeros_like(keypoint)
        for joint, parent in enumerate(layout.bone_parents):
            bone[..., joint, :] = keypoint[..., joint, :] - keypoint[..., parent, :]
            if with_score:
                bone[..., joint, -1] = (keypoint[..., joint, -1] + keypoint[..., parent, -1]) / 2
        keypoint = bone
    if stream.endswith("motion"):
        motion = np.zeros_like(keypoint)
        motion[:, :-1] = np.diff(keypoint, axis=1)
        if with_score:
            motion[:, :-1, :, -1] = (keypoint[:, 1:, :, -1] + keypoint[:, :-1, :, -1]) / 2
        keypoint = motion
    return keypoint


def plain_frame_inds(num_frames: int, clip_len: int, num_clips: int) -> Array:
    """(num_clips * clip_len,), clip after clip, with NumPy's legacy generator seeded once."""
    np.random.seed(255)
    clips = []
    for i in range(num_clips):
        if num_frames < clip_len:
            start = i if num_frames < num_clips else i * num_frames // num_clips
            inds = np.arange(start, start + clip_len)
        elif num_frames < 2 * clip_len:
            basic = np.arange(clip_len)
            skipped = np.random.choice(clip_len + 1, num_frames - clip_len, replace=False)
            offset = np.zeros(clip_len + 1, dtype=np.int32)
            offset[skipped] = 1
            inds = basic + np.cumsum(offset)[:-1]
        else:
            borders = np.array([part * num_frames // clip_len for part in range(clip_len + 1)])
            inds = borders[:-1] + np.random.randint(np.diff(borders))
        clips.append(inds)
    return np.mod(np.concatenate(clips), num_frames)


def keep_beside_changes(features: Array, frame_inds: Array) -> Array:
    """Keep frames beside a change in the number of persons where they are; whole frames are there anyway."""
    M, T = features.shape[:2]
    present = []
    for t in range(T):
        count = M
        while count and np.all(np.abs(features[count - 1, t]) < 1e-5):
            count -= 1
        present.append(count)
    beside = [False] * T
    for t in range(1, T):
        if present[t] != present[t - 1]:
            beside[t - 1] = beside[t] = True
    kept = np.array([beside[t] for t in frame_inds])
    return (kept * frame_inds + (1 - kept) * frame_inds).astype(np.int64)


def plain_normalise_3d(keypoint: Array) -> Array:
    """Drop frames without person 0, centre on its spine, turn upright, then to the front."""
    there = [[not np.all(np.isclose(frame, 0)) for frame in person] for person in keypoint]
    if len(keypoint) == 2 and sum(there[1]) > sum(there[0]):
        keypoint, there = keypoint[::-1], there[::-1]
    if not any(there[0]):
        return keypoint
    keypoint = keypoint[:, np.flatnonzero(there[0])]
    known = ((keypoint != 0).sum(-1) > 0)[..., None]
    keypoint = (keypoint - keypoint[0, 0, 1]) * known
    for tail, head, axis in ((0, 1, [0, 0, 1]), (4, 8, [1, 0, 0])):
        vector = keypoint[0, 0, head] - keypoint[0, 0, tail]
        cross = np.cross(vector, axis)
        if np.abs(cross).sum() < 1e-6 or np.linalg.norm(vector) < 1e-6:
            continue
        half = np.arccos(np.clip(vector @ axis / np.linalg.norm(vector), -1, 1)) / 2
        a, (b, c, d) = np.cos(half), -cross / np.linalg.norm(cross) * np.sin(half)
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c + a * d), 2 * (b * d - a * c)],
                [2 * (b * c - a * d), a * a + c * c - b * b - d * d, 2 * (c * d + a * b)],
                [2 * (b * d + a * c), 2 * (c * d - a * b), a * a + d * d - b * b - c * c],
            ]
        )
        keypoint = np.einsum("abcd,kd->abck", keypoint, rotation)
    return keypoint


@click.command()
@click.option("--frames", default=300, help="Of each sample.")
@click.option("--samples", default=10, help="Their lengths are FRAMES, FRAMES + 1, ...")
@click.option("--rounds", default=20, help="Each takes all samples through both in turns; the best sample counts.")
def main(frames: int, samples: int, rounds: int) -> None:
    """Time both on samples of two people, one clip and ten."""
    rng = np.random.default_rng(0)
    told: dict[str, dict[str, float]] = {}
    for layout, dims in ((COCO, 2), (NTU, 3)):
        shapes = [(2, frames + k, layout.num_joints) for k in range(samples)]
        data = [
            (
                rng.normal(500, 200, (*shape, dims)).astype(np.float32),
                rng.uniform(size=shape).astype(np.float32) if dims == 2 else None,
                (1080, 1920),
            )
            for shape in shapes
        ]
        for stream in STREAMS:
            settings = ClipSettings(layout, stream, dims, with_score=dims == 2)
            for num_clips in (1, 10):
                ways: dict[str, Callable[..., Array]] = {
                    "plain_ms": partial(plain_clips, layout=layout, stream=stream, num_clips=num_clips),
                    "lean_ms": partial(plain_clips, layout=layout, stream=stream, num_clips=num_clips, lean=True),
                    "skelact_ms": partial(prepare_clips, settings=settings, num_clips=num_clips),
                }
                best = dict.fromkeys(ways, np.inf)
                for _ in range(rounds):
                    for sample in data:
                        for name, prepare in ways.items():
                            start = time.perf_counter()
                            prepare(*sample)
                            best[name] = min(best[name], time.perf_counter() - start)
                told[f"{layout.name}, {stream}, {num_clips} clips"] = {
                    **{name: round(each * 1e3, 3) for name, each in best.items()},
                    "ratio": round(best["plain_ms"] / best["skelact_ms"], 1),
                    "lean_ratio": round(best["lean_ms"] / best["skelact_ms"], 1),
                }
    click.echo(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
