"""Which pieces of tracks are one person, decided with the whole video at hand.

Trackers match boxes frame by frame. Where people pass each other the boxes lie on top of one another, and every tracker
swaps identities now and then; where somebody leaves and returns they start anew. Here paths are cut wherever boxes
overlap, and the pieces are joined again so that position, speed, size, posture and clothes fit best.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import lap
import numpy as np

from skelact.skeleton import COCO
from skelact.structures import Array, FramePoses

# A path is a person in the making: frame index -> index of the detection in that frame.
Path = dict[int, int]

CONTESTED_IOU = 0.25  # boxes that overlap more may be mixed up
END_FRAMES = 10  # over which the state at a path's end is averaged
MIN_PIECE = 4  # frames; shorter pieces between two overlaps tell nothing
# Costs are in body heights. A link that the tracker made itself is trusted by so much, and half as much for each
# half-life that the overlap lasted: of two who hug it knows no better than chance who is who afterwards.
TRACKER_BONUS = 0.3
TRUST_HALF_LIFE_S = 0.5
MAX_COST = 3.0  # and a link that costs more is none
PAUSE_WEIGHT = 0.5  # for each second out of sight
SPEED_WEIGHT = 0.5  # s: a change of speed by one height a second costs half a height, ...
SPEED_HALF_LIFE_S = 1.0  # ... a quarter after this time: people slow down, and turn back
GOES_ON_S = 2.0  # nobody is thought to have gone on at their speed for longer
POSE_WEIGHT = 3.0
COLOUR_WEIGHT = 0.03  # for each unit of CIELAB difference, of which 100 lie between black and white
SIZE_WEIGHT = 1.5


def clothes_colour(image: Array, keypoint: Array) -> Array:
    """Mean CIELAB colours of trunk and thighs, to tell people apart.

    Args:
        image: (H, W, 3) BGR uint8.
        keypoint: (N, 17, 2) COCO joints in pixels.

    Returns:
        (N, 6) float32; NaN where the patch lies outside the picture.
    """
    colours = np.full((len(keypoint), 6), np.nan, np.float32)
    shoulders, hips, knees = (
        [COCO.joints.index(f"{side}_{joint}") for side in ("left", "right")] for joint in ("shoulder", "hip", "knee")
    )
    for n, joints in enumerate(keypoint):
        for k, (upper, lower) in enumerate(((shoulders, hips), (hips, knees))):
            top, bottom = joints[upper].mean(0), joints[lower].mean(0)
            radius = max(1.0, np.linalg.norm(top - bottom) / 6)
            low = np.maximum((top + bottom) / 2 - radius, 0).astype(int)
            high = np.maximum((top + bottom) / 2 + radius + 1, 0).astype(int)
            patch = image[low[1] : high[1], low[0] : high[0]]
            if patch.size:
                mean = (patch.reshape(-1, 3).mean(0) / 255).astype(np.float32)
                colours[n, 3 * k : 3 * k + 3] = cv2.cvtColor(mean[None, None], cv2.COLOR_BGR2LAB)[0, 0]
    return colours


@dataclass(frozen=True)
class Piece:
    """A stretch of a path that nobody contests, with the number of the path that it was cut from."""

    path: Path
    origin: int

    @property
    def start(self) -> int:
        """First frame."""
        return min(self.path)

    @property
    def end(self) -> int:
        """Last frame."""
        return max(self.path)


@dataclass(frozen=True)
class _State:
    """A person at an end of a piece: centre (2,) px, velocity (2,) px/frame, height px, posture (V, 2), colour (6,)."""

    centre: Array
    velocity: Array
    height: float
    posture: Array
    colour: Array


def relink(
    paths: Sequence[Path],
    frames: Sequence[FramePoses],
    colours: Sequence[Array] | None,
    fps: float,
    max_pause_s: float,
) -> list[Path]:
    """Cut paths where people overlap, and join what fits.

    Args:
        paths: of the tracker.
        frames: everybody in every frame.
        colours: for each frame (N, 6), of ``clothes_colour``; None to do without.
        fps: frames per second.
        max_pause_s: somebody who is gone for longer comes back as somebody new.

    Returns:
        Paths over the same detections, no detection twice.
    """
    pieces, contested = _cut(paths, frames)
    pieces.sort(key=lambda piece: piece.start)
    ends = [_state(piece, frames, colours, at_end=True) for piece in pieces]
    starts = [_state(piece, frames, colours, at_end=False) for piece in pieces]
    costs: dict[tuple[int, int], float] = {}
    for a, b in _candidates(pieces, contested, round(max_pause_s * fps)):
        gap_s = (pieces[b].start - pieces[a].end) / fps
        costs[a, b] = _cost(ends[a], starts[b], gap_s, fps)
        if pieces[a].origin == pieces[b].origin:
            # The tracker's own link is trusted, and never cut for nothing.
            costs[a, b] = min(costs[a, b], MAX_COST - 0.01) - TRACKER_BONUS * 0.5 ** (gap_s / TRUST_HALF_LIFE_S)
    successor = _assign(costs, len(pieces))
    return _join(pieces, successor, paths, contested, frames, colours, [state.colour for state in starts])


def _candidates(pieces: Sequence[Piece], contested: Sequence[set[int]], max_pause: int) -> Iterator[tuple[int, int]]:
    """Pairs (a, b) of pieces, sorted by start, of which b may go on where a ends: the next of the same origin, and
    those that start within the pause or, as people may embrace for long, within the overlap that a ends in."""
    begins = [piece.start for piece in pieces]
    following: dict[int, int] = {}
    for a in reversed(range(len(pieces))):
        piece = pieces[a]
        latest = max(piece.end + max_pause, _run_after(piece, contested) + 1)
        near = range(bisect.bisect_right(begins, piece.end), bisect.bisect_right(begins, latest))
        own = following.get(piece.origin)
        yield from ((a, b) for b in near)
        if own is not None and own not in near:
            yield a, own
        following[piece.origin] = a


def _cut(paths: Sequence[Path], frames: Sequence[FramePoses]) -> tuple[list[Piece], list[set[int]]]:
    """The uncontested pieces of all paths, and for each path the frames in which others overlap it."""
    owners: dict[int, list[int]] = {}
    for k, path in enumerate(paths):
        for t in path:
            owners.setdefault(t, []).append(k)
    contested: list[set[int]] = [set() for _ in paths]
    for t, present in owners.items():
        boxes = frames[t].bbox[[paths[k][t] for k in present]]
        for i, k in enumerate(present):
            overlap = box_iou(boxes[i], boxes)
            overlap[i] = 0
            if overlap.max() > CONTESTED_IOU:
                contested[k].add(t)
    pieces = []
    for k, path in enumerate(paths):
        free = sorted(path.keys() - contested[k])
        for run in _runs(free):
            if len(run) < MIN_PIECE and not contested[k].isdisjoint((run[0] - 1, run[-1] + 1)):
                contested[k].update(run)
            else:
                pieces.append(Piece({t: path[t] for t in run}, k))
    return pieces, contested


def _runs(times: list[int]) -> Iterator[list[int]]:
    """Frames grouped so that each follows the one before."""
    run: list[int] = []
    for t in times:
        if run and t != run[-1] + 1:
            yield run
            run = []
        run.append(t)
    if run:
        yield run


def _run_after(piece: Piece, contested: Sequence[set[int]]) -> int:
    """The last frame of the overlap that a piece ends in, or its own last frame."""
    t = piece.end
    while any((t + step) in contested[piece.origin] for step in (1, 2, 3)):
        t += next(step for step in (1, 2, 3) if (t + step) in contested[piece.origin])
    return t


def _state(piece: Piece, frames: Sequence[FramePoses], colours: Sequence[Array] | None, at_end: bool) -> _State:
    times = sorted(piece.path)
    times = times[-END_FRAMES:] if at_end else times[:END_FRAMES]
    boxes = np.stack([frames[t].bbox[piece.path[t]] for t in times])
    joints = np.stack([frames[t].keypoint[piece.path[t]] for t in times])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    # Where trunks are, not boxes: an arm that is stretched out moves a box's centre.
    hips = joints[:, [COCO.joints.index("left_hip"), COCO.joints.index("right_hip")]].mean(1)
    centres[:, 0] = hips[:, 0]
    height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    velocity = np.zeros(2)
    if len(times) > 2:
        velocity = np.polyfit(np.array(times) - times[0], centres, 1)[0]
    posture = ((joints - centres[:, None]) / max(height, 1e-9)).mean(0)
    colour = np.full(6, np.nan)
    if colours is not None:
        known = np.stack([colours[t][piece.path[t]] for t in times])
        seen = np.isfinite(known).any(0)
        colour[seen] = np.nanmedian(known[:, seen], axis=0)
    return _State(centres[-1 if at_end else 0], velocity, height, posture, colour)


def _cost(end: _State, start: _State, gap_s: float, fps: float) -> float:
    """How badly a piece that starts fits to one that has ended, in body heights."""
    height = (end.height + start.height) / 2
    step = start.centre - end.centre
    stays = np.linalg.norm(step)
    goes_on = np.linalg.norm(step - (end.velocity + start.velocity) / 2 * min(gap_s, GOES_ON_S) * fps)
    speed_change = np.linalg.norm(end.velocity - start.velocity) * fps / height
    speed_weight = SPEED_WEIGHT * 0.5 ** (gap_s / SPEED_HALF_LIFE_S)
    colour = _colour_difference(end.colour, start.colour[None])[0]
    return float(
        min(stays, goes_on) / height
        + PAUSE_WEIGHT * gap_s
        + speed_weight * min(speed_change, 2.0)
        + POSE_WEIGHT * np.linalg.norm(end.posture - start.posture, axis=-1).mean()
        + COLOUR_WEIGHT * colour
        + SIZE_WEIGHT * abs(np.log(end.height / start.height))
    )


def _colour_difference(colour: Array, others: Array) -> Array:
    """Mean absolute difference of (6,) to (N, 6), over what is known of both: (N,); 0 where nothing is."""
    difference = np.abs(others - colour)
    known = np.isfinite(difference)
    return np.where(known, difference, 0).sum(1) / np.maximum(known.sum(1), 1)


def _assign(costs: Mapping[tuple[int, int], float], num_pieces: int) -> list[int]:
    """The successor of each piece, or -1: the assignment with the lowest sum of costs.

    Pieces that no chain of candidates connects don't matter to each other, so each connected group is solved alone.
    """
    group = list(range(num_pieces))

    def root(k: int) -> int:
        while group[k] != k:
            group[k] = group[group[k]]
            k = group[k]
        return k

    # A piece plays two parts, ending and starting; only candidates with an end or a start in common compete.
    by_end: dict[int, list[int]] = {}
    starts_of: dict[int, int] = {}
    for a, b in costs:
        by_end.setdefault(a, []).append(b)
        starts_of.setdefault(b, a)
        group[root(a)] = root(starts_of[b])
    members: dict[int, list[int]] = {}
    for a in by_end:
        members.setdefault(root(a), []).append(a)
    successor = [-1] * num_pieces
    for rows in members.values():
        columns = sorted({b for a in rows for b in by_end[a]})
        table = np.full((len(rows), len(columns)), 1e6)
        for i, a in enumerate(rows):
            for b in by_end[a]:
                table[i, columns.index(b)] = costs[a, b] + TRACKER_BONUS
        _, chosen, _ = lap.lapjv(table, extend_cost=True, cost_limit=MAX_COST + TRACKER_BONUS)
        for a, k in zip(rows, chosen, strict=True):
            if k >= 0 and (a, columns[k]) in costs:
                successor[a] = columns[k]
    return successor


def _join(
    pieces: Sequence[Piece],
    successor: Sequence[int],
    paths: Sequence[Path],
    contested: Sequence[set[int]],
    frames: Sequence[FramePoses],
    colours: Sequence[Array] | None,
    piece_colours: Sequence[Array],
) -> list[Path]:
    """Chain the pieces and hand the contested detections out among them."""
    colour_of = {id(piece): colour for piece, colour in zip(pieces, piece_colours, strict=True)}
    pool = {(t, paths[k][t]): k for k, times in enumerate(contested) for t in times if t in paths[k]}
    chains: list[list[Piece]] = []
    starts = set(range(len(pieces))) - set(successor)
    for a in sorted(starts):
        chain = [pieces[a]]
        while (a := successor[a]) >= 0:
            chain.append(pieces[a])
        chains.append(chain)
    joined = [{t: i for piece in chain for t, i in piece.path.items()} for chain in chains]

    def take(path: Path, t: int, i: int) -> None:
        path[t] = i
        del pool[t, i]

    # First what the tracker itself had between two pieces or at an end of the same origin, ...
    for chain, path in zip(chains, joined, strict=True):
        for before, after in zip((None, *chain), (*chain, None), strict=True):
            if before and after and before.origin != after.origin:
                continue
            first = before.end + 1 if before else 0
            last = after.start if after else len(frames)
            origin = (before or after).origin  # type: ignore[union-attr]
            for t in range(first, last):
                i = paths[origin].get(t)
                if i is not None and pool.get((t, i)) == origin:
                    take(path, t, i)
    # ... then, where identities were swapped back, what lies on the way from one piece to the next and looks the same.
    wanted: dict[int, list[tuple[Path, Array, Array]]] = {}
    for chain, path in zip(chains, joined, strict=True):
        for before, after in pairwise(chain):
            if before.origin != after.origin:
                for t, box in _way(before, after, frames).items():
                    wanted.setdefault(t, []).append((path, box, colour_of[id(after)]))
    for t, expected in wanted.items():
        free = [i for u, i in pool if u == t]
        if not free:
            continue
        costs = np.stack([1 - box_iou(box, frames[t].bbox[free]) for _, box, _ in expected])
        if colours is not None:
            seen = colours[t][free]
            costs += np.stack([_colour_difference(colour, seen) for *_, colour in expected]) * COLOUR_WEIGHT
        _, chosen, _ = lap.lapjv(costs, extend_cost=True, cost_limit=1.0)
        for (path, *_), k in zip(expected, chosen, strict=True):
            if k >= 0:
                take(path, t, free[int(k)])
    # What is left belongs to paths that are contested all along: they stay as the tracker saw them.
    rest: dict[int, Path] = {}
    for (t, i), k in pool.items():
        rest.setdefault(k, {})[t] = i
    cut = {piece.origin for piece in pieces}
    return joined + [path for k, path in rest.items() if k not in cut]


def _way(before: Piece, after: Piece, frames: Sequence[FramePoses]) -> dict[int, Array]:
    """The box (4,) that a person should have in each frame between two pieces."""
    first = frames[before.end].bbox[before.path[before.end]]
    last = frames[after.start].bbox[after.path[after.start]]
    gap = after.start - before.end
    return {before.end + k: first + (last - first) * (k / gap) for k in range(1, gap)}


def box_iou(box: Array, boxes: Array) -> Array:
    """Intersection over union of a box (4,) with boxes (N, 4), xyxy: (N,)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared
    return shared / np.maximum(area, 1e-9)
