"""Which pieces of tracks are one person, decided with the whole video at hand.

Trackers match boxes frame by frame. Where people pass each other the boxes lie on top of one another, and every tracker
swaps identities now and then; where somebody leaves and returns they start anew. Here paths are cut wherever it is not
plain from the joints who is who in the next frame, and the pieces are joined again so that position, speed, size,
posture and clothes fit best over all of the video.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from skelact.skeleton import COCO
from skelact.structures import Array, FramePoses

# A path is a person in the making: frame index -> index of the detection in that frame.
PersonPath = dict[int, int]

SURE_RATIO = 2.0  # the next nearest body must be so many times as far as the one that a path goes on with
# Shorter pieces among others, of which position and speed are not well known, are shards: they are put in afterwards.
SOLID_FRAMES = 10
COLOURED_FRAMES = 4  # enough for a piece whose clothes are seen
TOUCHING_IOU = 0.1  # boxes that overlap so much are "among others"
END_FRAMES = 10  # over which the state at a piece's end is averaged
# The cost of a link is twice a negative log-likelihood: squared differences over their standard deviations, each capped
# as anything may happen to a body now and then. Lengths are in body heights.
# Of a link; a higher one is none. Two that hardly fit must cost more than one person who comes back as somebody new.
MAX_COST = 25.0
MAX_COST_LATER = 60.0  # the same once all that fits well is joined, and few are left to choose from
POSITION_SD, POSITION_SD_PER_S = 0.06, 0.5
VERTICAL = 0.7  # people move up and down by so much less than sideways
TRACKER_BONUS, TRUST_HALF_LIFE_S = 1.0, 0.5  # paths are cut where it knows little better than chance who is who
STOPPED = 2.0  # for somebody who stopped while out of sight, rather than going on
GOES_ON_S = 2.0  # nobody is thought to have gone on at their speed for longer
PAUSE_COST, HIDDEN_COST = 6.0, 1.0  # for each second out of sight, in the open and behind others
SPEED_SD, SPEED_CAP, SPEED_HALF_LIFE_S = 0.6, 6.0, 1.0  # heights/s; people slow down, and turn back
SIZE_SD, SIZE_CAP = 0.03, 4.0  # of the logarithm of the height
POSTURE_SD, POSTURE_CAP, POSTURE_HALF_LIFE_S = 0.15, 4.0, 0.15
COLOUR_SD, COLOUR_CAP = 6.0, 16.0  # CIELAB, where 100 lie between black and white
SAME_CLOTHES = 4.0  # what differing colours cost at most where somebody is the same after a cut, ...
ACROSS_CUT = 5.0  # ... which costs so much more
SHARD_MISS = 0.1  # how far, in heights, a shard's box may be from where a person should be
TRACKER_MISS = 0.3  # a factor on that if the tracker took it for that person
OPEN_END_S = 0.5  # and how long before the first or after the last piece of that person


def clothes_colour(image: Array, keypoint: Array) -> Array:
    """Mean CIELAB colours of trunk and thighs, to tell people apart.

    Args:
        image: (H, W, 3) BGR uint8.
        keypoint: (N, 17, 2) COCO joints in pixels.

    Returns:
        (N, 6) float32; NaN where the patch lies outside the picture.
    """
    axis = _body_axis(keypoint)
    middle = (axis[:-1] + axis[1:]) / 2  # of trunk and thighs (2, N, 2)
    radius = np.maximum(1.0, np.linalg.norm(axis[:-1] - axis[1:], axis=-1, keepdims=True) / 6)
    low, high = (np.maximum(corner, 0).astype(int) for corner in (middle - radius, middle + radius + 1))
    colours = np.zeros((len(keypoint), 2, 3), np.float32)
    seen = np.zeros(colours.shape[:2], bool)
    for k, n in np.ndindex(low.shape[:2]):
        patch = image[low[k, n, 1] : high[k, n, 1], low[k, n, 0] : high[k, n, 0]]
        seen[n, k] = patch.size > 0
        if seen[n, k]:
            colours[n, k] = cv2.mean(patch)[:3]
    if len(colours):
        colours = cv2.cvtColor(colours / 255, cv2.COLOR_BGR2LAB)
    colours[~seen] = np.nan
    return colours.reshape(-1, 6)


def _body_axis(keypoint: Array) -> Array:
    """Middles of shoulders, hips and knees (3, ..., 2) of joints (..., 17, 2)."""
    pairs = [[COCO.joints.index(f"{side}_{joint}") for side in ("left", "right")] for joint in _AXIS]
    return np.stack([keypoint[..., pair, :].mean(-2) for pair in pairs])


_AXIS = ("shoulder", "hip", "knee")


def relink(
    paths: Sequence[PersonPath],
    frames: Sequence[FramePoses],
    colours: Sequence[Array] | None,
    fps: float,
    max_pause_s: float,
    max_hidden_s: float,
    cuts: Sequence[int] = (),
) -> list[PersonPath]:
    """Cut paths where people could be mixed up, and join what fits.

    Args:
        paths: of the tracker.
        frames: everybody in every frame.
        colours: for each frame (N, 6), of ``clothes_colour``; None to do without.
        fps: frames per second.
        max_pause_s: somebody who is gone for longer comes back as somebody new, ...
        max_hidden_s: ... or for longer than this, if they vanish and appear beside others, who may hide them.
        cuts: frames that begin another shot. What follows is joined by clothes alone: all else looks anew.

    Returns:
        Paths over the same detections, no detection twice.
    """
    pauses = max(1, round(max_pause_s * fps)), max(1, round(max_hidden_s * fps))
    known = None if colours is None else _uncovered(colours, frames)
    origin = {(t, i): k for k, path in enumerate(paths) for t, i in path.items()}

    def pieces_of(parts: Iterable[PersonPath]) -> list[Piece]:
        return [_piece(path, origin, frames, known) for path in sorted(parts, key=min)]

    def join(pieces: Sequence[Piece], max_cost: float) -> list[PersonPath]:
        return _join(pieces, _link_costs(pieces, frames, fps, pauses, max_cost, cuts), max_cost)

    pieces = pieces_of(_cut(paths, frames, cuts))
    joined = join([piece for piece in pieces if piece.is_solid], MAX_COST)
    left = _put_in([piece for piece in pieces if not piece.is_solid], joined, origin, frames, fps)
    # Shards that fit nowhere are of somebody who is among others all along.
    joined += join(left, MAX_COST)
    return join(pieces_of(joined), MAX_COST_LATER)


# --- cutting -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Detections that are one person.

    Attributes:
        path: the detections.
        origins: of the first and the last, the number of the tracker's path that they are from.
        clothes: median colours (6,); NaN where they are never seen.
        starts_touching, ends_touching: whether another's box overlaps theirs in the first and in the last frame.
    """

    path: PersonPath
    origins: tuple[int, int]
    clothes: Array
    starts_touching: bool
    ends_touching: bool

    @property
    def start(self) -> int:
        """First frame."""
        return min(self.path)

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return max(self.path) + 1

    @property
    def is_solid(self) -> bool:
        """Whether enough is known of it to say whose it is; also if nobody is near whose it could be."""
        is_seen = len(self.path) >= COLOURED_FRAMES and bool(np.isfinite(self.clothes).all())
        return len(self.path) >= SOLID_FRAMES or is_seen or not (self.starts_touching or self.ends_touching)


def _piece(
    path: PersonPath,
    origin: dict[tuple[int, int], int],
    frames: Sequence[FramePoses],
    colours: Sequence[Array] | None,
) -> Piece:
    path = dict(sorted(path.items()))
    first, last = next(iter(path)), next(reversed(path))
    clothes = np.full(6, np.nan)
    if colours is not None:
        clothes = _median(np.stack([colours[t][i] for t, i in path.items()]))

    def is_touched(t: int) -> bool:
        return bool((box_iou(frames[t].bbox[path[t]], frames[t].bbox) > TOUCHING_IOU).sum() > 1)

    origins = origin[first, path[first]], origin[last, path[last]]
    return Piece(path, origins, clothes, is_touched(first), is_touched(last))


def _median(values: Array) -> Array:
    """Of what is known in each column of (N, C): (C,), NaN where nothing is; ``nanmedian`` is slower by far."""
    values, count = np.sort(values, axis=0), np.isfinite(values).sum(0)  # NaN comes last
    columns = np.arange(values.shape[1])
    return (values[(count - 1) // 2, columns] + values[count // 2, columns]) / 2


def _cut(paths: Sequence[PersonPath], frames: Sequence[FramePoses], cuts: Sequence[int]) -> Iterator[PersonPath]:
    """Stretches in which it is sure who is who: frame by frame the same body is near and any other far."""
    followed: list[dict[int, int]] = [{} for _ in frames]  # detection -> path, in each frame
    for k, path in enumerate(paths):
        for t, i in path.items():
            followed[t][i] = k
    unsure = [
        set(),
        *(_unsure(*pair, *between) for pair, between in zip(pairwise(followed), pairwise(frames), strict=True)),
    ]
    for k, path in enumerate(paths):
        run: PersonPath = {}
        for t in sorted(path):
            if run and (t - 1 not in run or k in unsure[t] or t in cuts):
                yield run
                run = {}
            run[t] = path[t]
        yield run


def _unsure(before: dict[int, int], now: dict[int, int], last: FramePoses, frame: FramePoses) -> set[int]:
    """The paths that could as well go on with another's detection, or another with theirs."""
    if len(before) < 2 and len(now) < 2:
        return set()
    rows, columns = list(before), list(now)
    height = np.minimum(_heights(last)[rows][:, None], _heights(frame)[columns])
    weight = np.minimum(last.keypoint_score[rows][:, None], frame.keypoint_score[columns]) + 1e-3
    step = np.linalg.norm(last.keypoint[rows][:, None] - frame.keypoint[columns], axis=-1)
    distance = (step * weight).sum(-1) / weight.sum(-1) / height
    goes_on = np.array([before[i] for i in rows])[:, None] == [now[j] for j in columns]
    a, b = np.nonzero(goes_on)
    others = np.pad(np.where(goes_on, np.inf, distance), ((0, 1), (0, 1)), constant_values=np.inf)
    nearest = np.minimum(others.min(1)[a], others.min(0)[b])
    return {before[rows[k]] for k in a[nearest < SURE_RATIO * distance[a, b]]}


def _heights(frame: FramePoses) -> Array:
    return np.maximum(frame.bbox[:, 3] - frame.bbox[:, 1], 1e-9)


def _uncovered(colours: Sequence[Array], frames: Sequence[FramePoses]) -> list[Array]:
    """The colours, NaN where the patch lies in the box of somebody nearer to the camera, who stands lower."""
    known = []
    for colour, frame in zip(colours, frames, strict=True):
        axis = _body_axis(frame.keypoint)
        centre = ((axis[:-1] + axis[1:]) / 2)[:, :, None]  # (2, N, 1, 2)
        inside = ((centre >= frame.bbox[:, :2]) & (centre <= frame.bbox[:, 2:])).all(-1)  # (2, N, N)
        covered = (inside & (frame.bbox[:, 3] > frame.bbox[:, 3, None])).any(-1)
        known.append(np.where(covered.T.repeat(3, axis=1), np.nan, colour))
    return known


# --- joining -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _States:
    """P pieces at their starts or ends: centre (P, 2) px, velocity (P, 2) px/s (NaN where a piece is too short to
    tell), height (P,) px, posture (P, V, 2) heights."""

    centre: Array
    velocity: Array
    height: Array
    posture: Array

    @classmethod
    def of(cls, pieces: Sequence[Piece], frames: Sequence[FramePoses], fps: float, at_end: bool) -> _States:
        """The states, averaged over a few frames."""
        rows = []
        for piece in pieces:
            times = list(piece.path)[-END_FRAMES:] if at_end else list(piece.path)[:END_FRAMES]
            boxes = np.stack([frames[t].bbox[piece.path[t]] for t in times])
            joints = np.stack([frames[t].keypoint[piece.path[t]] for t in times])
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            # Where trunks are, not boxes: an arm that is stretched out moves a box's centre.
            centres[:, 0] = _body_axis(joints)[1, :, 0]
            height = max(float(np.median(boxes[:, 3] - boxes[:, 1])), 1e-9)
            centre, velocity = centres.mean(0), np.full(2, np.nan)
            if len(times) > 2:
                time = (np.arange(len(times)) - (len(times) - 1) / 2) / fps
                velocity = time @ centres / (time @ time)
                centre = centre + velocity * time[-1 if at_end else 0]
            rows.append((centre, velocity, height, ((joints - centres[:, None]) / height).mean(0)))
        return cls(*(np.array(column) for column in zip(*rows, strict=True)))


def _join(pieces: Sequence[Piece], costs: dict[tuple[int, int], float], max_cost: float) -> list[PersonPath]:
    """Pieces, sorted by their starts, one after the other as fits best over all."""
    if not pieces:
        return []
    successor = _assign(costs, len(pieces), max_cost)
    chains = []
    for a in sorted(set(range(len(pieces))) - set(successor)):
        chains.append([a])
        while (a := successor[a]) >= 0:
            chains[-1].append(a)
    _swap_tails(chains, pieces, costs)
    return [{t: i for k in chain for t, i in pieces[k].path.items()} for chain in chains]


def _swap_tails(chains: list[list[int]], pieces: Sequence[Piece], costs: dict[tuple[int, int], float]) -> None:
    """Let two chains of pieces exchange all that follows a link where the clothes of all before and all after say so.

    A link knows the two pieces that it joins, and among others these are short and little is seen of them.
    """
    known = np.stack([np.isfinite(piece.clothes) * len(piece.path) for piece in pieces])
    worn = np.stack([np.nan_to_num(np.stack([piece.clothes for piece in pieces])) * known, known], axis=1)  # (P, 2, 6)
    upto = [np.cumsum(worn[chain], axis=0) for chain in chains]
    place = {k: (c, i) for c, chain in enumerate(chains) for i, k in enumerate(chain)}
    for a, b in sorted(costs, key=lambda link: pieces[link[1]].start):
        (one, i), (other, j) = place[a], place[b]
        if one == other or i + 1 == len(chains[one]) or j == 0:
            continue
        after_a, before_b = chains[one][i + 1], chains[other][j - 1]
        if (before_b, after_a) not in costs:
            continue
        dearer = costs[a, b] + costs[before_b, after_a] - costs[a, after_a] - costs[before_b, b]
        heads = upto[one][i], upto[other][j - 1]
        tails = upto[other][-1] - heads[1], upto[one][-1] - heads[0]
        kept = sum(_unlike(*parts) for parts in zip(heads, tails[::-1], strict=True))
        if dearer + sum(_unlike(*parts) for parts in zip(heads, tails, strict=True)) < kept:
            chains[one][i + 1 :], chains[other][j:] = chains[other][j:], chains[one][i + 1 :]
            for c in (one, other):
                upto[c] = np.cumsum(worn[chains[c]], axis=0)
                place.update((k, (c, n)) for n, k in enumerate(chains[c]))


def _unlike(one: Array, other: Array) -> float:
    """What it costs that two parts of a track are one person, by their clothes: each (2, 6), sums and counts."""
    known = (one[1] > 0) & (other[1] > 0)
    if not known.any():
        return 0.0
    difference = np.abs(one[0, known] / one[1, known] - other[0, known] / other[1, known]).mean()
    return float(_capped(difference / COLOUR_SD, COLOUR_CAP))


def _link_costs(
    pieces: Sequence[Piece],
    frames: Sequence[FramePoses],
    fps: float,
    pauses: tuple[int, int],
    max_cost: float,
    cuts: Sequence[int],
) -> dict[tuple[int, int], float]:
    """What it costs that piece b goes on where a ends; links at ``max_cost`` and more are left out.

    Args:
        pieces: sorted by their starts.
        frames: everybody in every frame.
        fps: frames per second.
        pauses: the longest from a to b, in frames, in the open and behind others.
        max_cost: see above.
        cuts: frames that begin another shot.
    """
    if not pieces:
        return {}
    ends, starts = (_States.of(pieces, frames, fps, at_end) for at_end in (True, False))
    begins = np.array([piece.start for piece in pieces])
    clothes = np.stack([piece.clothes for piece in pieces])
    touching = np.array([piece.starts_touching for piece in pieces])
    origins = np.array([piece.origins[0] for piece in pieces])
    costs = {}
    for a, piece in enumerate(pieces):
        b = np.arange(np.searchsorted(begins, piece.stop), np.searchsorted(begins, piece.stop + max(pauses)))
        hidden = piece.ends_touching & touching[b]
        near = begins[b] - piece.stop < np.where(hidden, pauses[1], pauses[0])
        b, hidden = b[near], hidden[near]
        gap_s = (begins[b] - piece.stop + 1) / fps
        unlike = _capped(_difference(piece.clothes, clothes[b]) / COLOUR_SD, COLOUR_CAP)
        cost = _fit(ends, a, starts, b, gap_s) + np.where(hidden, HIDDEN_COST, PAUSE_COST) * gap_s + unlike
        # What the tracker linked itself is trusted, and never cut for nothing ...
        trusted = np.minimum(cost, max_cost - 1e-3)
        if len(cuts):  # ... but between shots
            later = np.searchsorted(cuts, begins[b], "right") > np.searchsorted(cuts, piece.stop - 1, "right")
            is_same = np.isfinite(piece.clothes + clothes[b]).any(1) & (unlike < SAME_CLOTHES)
            cost = np.where(later, np.where(is_same, ACROSS_CUT + unlike, np.inf), cost)
            trusted = np.where(later, cost, trusted)
        own = b[origins[b] == piece.origins[1]][:1]
        bonus = TRACKER_BONUS * 0.5 ** (gap_s / TRUST_HALF_LIFE_S)
        cost = np.maximum(np.where(np.isin(b, own), trusted - bonus, cost), 0)
        costs.update({(a, int(k)): float(c) for k, c in zip(b, cost, strict=True) if c < max_cost})
    return costs


def _fit(ends: _States, a: int, starts: _States, b: Array, gap_s: Array) -> Array:
    """How badly pieces that start fit to one that has ended, by the body alone: (B,)."""
    height = (ends.height[a] + starts.height[b]) / 2
    step = (starts.centre[b] - ends.centre[a]) / height[:, None]
    velocity = np.stack([np.broadcast_to(ends.velocity[a], (len(b), 2)), starts.velocity[b]]) / height[:, None]
    told = np.isfinite(velocity)
    mean_velocity = np.where(told, velocity, 0).sum(0) / np.maximum(told.sum(0), 1)
    sd = (POSITION_SD + POSITION_SD_PER_S * gap_s)[:, None] * [1, VERTICAL]
    goes_on = (((step - mean_velocity * np.minimum(gap_s, GOES_ON_S)[:, None]) / sd) ** 2).sum(-1)
    stopped = ((step / sd) ** 2).sum(-1) + STOPPED
    turned = np.where(told.all(0)[:, 0], velocity[1, :, 0] - velocity[0, :, 0], 0)
    posture = np.linalg.norm(starts.posture[b] - ends.posture[a], axis=-1).mean(-1)
    return (
        np.minimum(goes_on, stopped)
        + _capped(turned / SPEED_SD, SPEED_CAP) * 0.5 ** (gap_s / SPEED_HALF_LIFE_S)
        + _capped(np.log(starts.height[b] / ends.height[a]) / SIZE_SD, SIZE_CAP)
        + _capped(posture / POSTURE_SD, POSTURE_CAP) * 0.5 ** (gap_s / POSTURE_HALF_LIFE_S)
    )


def _capped(deviation: Array, cap: float) -> Array:
    return np.minimum(deviation**2, cap)


def _difference(colour: Array, others: Array) -> Array:
    """Mean absolute difference of (6,) to (N, 6), over what is known of both: (N,); 0 where nothing is."""
    difference = np.abs(others - colour)
    known = np.isfinite(difference)
    return np.where(known, difference, 0).sum(1) / np.maximum(known.sum(1), 1)


def _assign(costs: dict[tuple[int, int], float], num_pieces: int, alone_cost: float) -> list[int]:
    """The successor of each piece, or -1: the assignment with the lowest sum; to have none costs ``alone_cost``."""
    if not costs:
        return [-1] * num_pieces
    import lap

    # The solver wants as many rows as columns, and one in each for all. So to the right of the pieces stands, for each,
    # the choice to have no successor, below them that to have no predecessor; where two are joined, theirs are free.
    pairs, everybody = np.array([*costs]), np.arange(num_pieces)
    edges = np.concatenate(
        [
            pairs,
            np.stack([everybody, num_pieces + everybody], 1),
            np.stack([num_pieces + everybody, everybody], 1),
            num_pieces + pairs[:, ::-1],
        ]
    )
    values = np.concatenate([[*costs.values()], np.full(num_pieces, alone_cost), np.zeros(num_pieces + len(pairs))])
    order = np.lexsort(edges.T[::-1])
    starts = np.searchsorted(edges[order, 0], np.arange(2 * num_pieces + 1))
    _, chosen, _ = lap.lapmod(2 * num_pieces, values[order], starts.astype(np.int32), edges[order, 1].astype(np.int32))
    return [int(b) if b < num_pieces else -1 for b in chosen[:num_pieces]]


# --- shards ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Gap:
    """Frames in which a person is not seen, their boxes (4,) before and after, and whom the tracker took them for."""

    start: int
    stop: int
    path: PersonPath
    before: Array
    after: Array
    origins: tuple[int, ...]

    def miss(self, piece: Piece, frames: Sequence[FramePoses]) -> float:
        """How far a piece's boxes are from the way through the gap, in heights."""
        part = (np.array(list(piece.path)) - self.start + 1)[:, None] / (self.stop - self.start + 1)
        expected = self.before + (self.after - self.before) * part
        boxes = np.stack([frames[t].bbox[i] for t, i in piece.path.items()])
        miss = np.abs(boxes - expected).mean() / max((boxes[:, 3] - boxes[:, 1]).mean(), 1e-9)
        return float(miss * (TRACKER_MISS if piece.origins[0] in self.origins else 1))


def _put_in(
    shards: Sequence[Piece],
    paths: list[PersonPath],
    origin: dict[tuple[int, int], int],
    frames: Sequence[FramePoses],
    fps: float,
) -> list[Piece]:
    """Put shards, the longest first, into the gaps of the paths that they fit into best; those that fit into none."""
    gaps: list[_Gap] = []
    reach = max(1, round(OPEN_END_S * fps))

    def add(start: int, stop: int, path: PersonPath, before: int | None, after: int | None) -> None:
        known = [(t, path[t]) for t in (before, after) if t is not None]
        boxes = [frames[t].bbox[i] for t, i in known]
        if start < stop:
            gap = _Gap(start, stop, path, boxes[0], boxes[-1], tuple(origin[end] for end in known))
            bisect.insort(gaps, gap, key=lambda gap: gap.start)

    for path in paths:
        times = sorted(path)
        add(times[0] - reach, times[0], path, None, times[0])
        for before, after in pairwise(times):
            add(before + 1, after, path, before, after)
        add(times[-1] + 1, times[-1] + 1 + reach, path, times[-1], None)
    longest = max((gap.stop - gap.start for gap in gaps), default=0)
    left = []
    for piece in sorted(shards, key=lambda piece: -len(piece.path)):
        first = bisect.bisect_left(gaps, piece.stop - longest, key=lambda gap: gap.start)
        last = bisect.bisect_right(gaps, piece.start, key=lambda gap: gap.start)
        fitting = [gap for gap in gaps[first:last] if gap.stop >= piece.stop]
        misses = [gap.miss(piece, frames) for gap in fitting]
        if not misses or min(misses) > SHARD_MISS:
            left.append(piece)
            continue
        gap = fitting[int(np.argmin(misses))]
        gaps.remove(gap)
        gap.path.update(piece.path)
        is_open_before, is_open_after = gap.start - 1 not in gap.path, gap.stop not in gap.path
        start = piece.start - reach if is_open_before else gap.start
        stop = piece.stop + reach if is_open_after else gap.stop
        add(start, piece.start, gap.path, None if is_open_before else gap.start - 1, piece.start)
        add(piece.stop, stop, gap.path, piece.stop - 1, None if is_open_after else gap.stop)
    return sorted(left, key=lambda piece: piece.start)


def box_iou(box: Array, boxes: Array) -> Array:
    """Intersection over union of a box (4,) with boxes (N, 4), xyxy: (N,)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared
    return shared / np.maximum(area, 1e-9)
