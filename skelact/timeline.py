"""Who does what, when: scores of overlapping windows become segments, for each person and each pair.

A ``ScoreGrid`` averages the scores of windows, a ``Segmenter`` turns the averages into segments, one step of time after
the other, so that a live view can use both as it goes; ``make_timelines`` does so for a whole sequence. A subject is a
tuple of track ids: one of a person, two of a pair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from tqdm import tqdm

from skelact.calibration import UNKNOWN
from skelact.errors import SkelactError
from skelact.ranges import check_numbers
from skelact.structures import Array, PoseSequence, Prediction, Timeline, Track
from skelact.windows import STEP_S, SUBJECTS, WINDOW_S, Scorer, check_windows, extent, lay_windows, score_windows

Subject = tuple[int, ...]

CELLS_A_STEP = 5  # windows overlap, so what they say together changes between their steps
WINDOWS_AT_ONCE = 64  # prepared together: enough for a GPU, little in memory
MIN_DURATION_S = 1.0
UNKNOWN_CLASS = -1
NO_SUBJECT_S = 1.0  # somebody who is not seen for longer starts a new segment


@dataclass(frozen=True)
class TimelineSettings:
    """How a timeline is made.

    Attributes:
        window_s: lengths of the windows.
        step_s: from one window to the next. Segments begin and end at fifths of it.
        min_duration_s: what somebody does for less is taken as part of what they did before; but somebody who is there
            for less has a segment of what they did last.
        margin: hysteresis; another class takes over where its score is higher by so much, and a class that began goes
            on until its score is lower than the threshold by so much.
        unknown_below: the threshold; below it the answer is ``unknown``. None for never.
        subjects: ``both``, ``persons`` or ``pairs``.
    """

    window_s: tuple[float, ...] = (WINDOW_S,)
    step_s: float = STEP_S
    min_duration_s: float = MIN_DURATION_S
    margin: float = 0.1
    unknown_below: float | None = None
    subjects: str = "both"

    def __post_init__(self) -> None:
        check_windows(self.window_s, self.step_s)
        check_numbers(min_duration_s=self.min_duration_s, margin=self.margin)
        if self.subjects not in SUBJECTS:
            raise SkelactError(f"subjects: expected one of {', '.join(SUBJECTS)}, found {self.subjects!r}")


# --- averaging ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """The mean scores (classes,) of a subject in one step of time."""

    start_s: float
    stop_s: float
    scores: Array


@dataclass
class ScoreGrid:
    """Averages the scores of overlapping windows in every step of time, ``step_s`` long.

    A window counts most in its middle and least at its ends (a triangle), for there the action fills it.
    """

    step_s: float = STEP_S
    _cells: dict[Subject, dict[int, tuple[Array, float]]] = field(default_factory=dict)
    _taken: dict[Subject, int] = field(default_factory=dict)  # the last step that was taken out

    def add(self, subject: Subject, start_s: float, stop_s: float, scores: Array) -> None:
        """Take the scores (classes,) of a window; steps that were taken out already stay as they were."""
        cells = self._cells.setdefault(subject, {})
        taken = self._taken.get(subject, -1)
        middle, half = (start_s + stop_s) / 2, (stop_s - start_s) / 2
        inside = range(math.ceil(start_s / self.step_s - 0.5), math.floor(stop_s / self.step_s - 0.5) + 1)
        for k in inside or (math.floor(middle / self.step_s),):
            if k <= taken:
                continue
            distance = abs((k + 0.5) * self.step_s - middle)
            weight = max(1 - distance / half, 0.01)
            total, weights = cells.get(k, (0.0, 0.0))
            cells[k] = total + weight * scores, weights + weight

    def pop(self, subject: Subject, until_s: float = math.inf) -> list[Cell]:
        """Take out a subject's steps that stop by ``until_s``, in order.

        Nothing is changed any more before the start of the next window. Who can't wait for that takes those until the
        middle of the last window: they lack what windows to come would add.
        """
        cells = self._cells.get(subject, {})
        ready = sorted(k for k in cells if (k + 1) * self.step_s <= until_s + 1e-6)
        popped = [(k, *cells.pop(k)) for k in ready]
        if ready:
            self._taken[subject] = ready[-1]
        return [Cell(k * self.step_s, (k + 1) * self.step_s, total / weights) for k, total, weights in popped]

    def keep(self, subjects: Collection[Subject], track_ids: Collection[int]) -> None:
        """Forget all but these, and those whose tracks are there yet: two who parted may meet again."""
        gone = [who for who in self._taken if who not in subjects and not all(k in track_ids for k in who)]
        for who in gone:
            self._cells.pop(who, None)
            del self._taken[who]

    @property
    def subjects(self) -> list[Subject]:
        """Those with steps to take out."""
        return [subject for subject, cells in self._cells.items() if cells]


# --- segmenting --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """A segment began or ended.

    Attributes:
        kind: ``start`` or ``end``.
        subject: track ids of the person or the pair.
        class_name: what they do; maybe ``unknown``.
        start_s, stop_s: of the segment; at the start, ``stop_s`` is what is known of it so far.
        score: of the class, a mean over the segment so far; of ``unknown``, that of the best class.
        scores: (classes,) means over the segment so far.
    """

    kind: str
    subject: Subject
    class_name: str
    start_s: float
    stop_s: float
    score: float
    scores: Array


@dataclass
class _Run:
    """Steps of time in a row with one answer: a class index or ``UNKNOWN_CLASS``."""

    answer: int
    start_s: float
    stop_s: float
    total: Array
    count: int

    def absorb(self, later: _Run) -> None:
        self.stop_s = later.stop_s
        self.total = self.total + later.total
        self.count += later.count

    def give_back(self, last: _Run) -> None:
        """Be without the last steps."""
        self.stop_s = last.start_s
        self.total = self.total - last.total
        self.count -= last.count


@dataclass
class Segmenter:
    """Turns scores into segments, as time goes by.

    For each subject one answer holds at a time. Another begins where its class is best by ``margin``, or reaches the
    threshold after ``unknown``: then from where it was best and less than ``margin`` below. It is told once it lasted
    for ``min_duration_s``; if it does not, it counts as part of what was before, or as nothing where nothing was.
    Several in a row that do not last are ``unknown`` where together they do. Equal answers in a row are one segment.

        segmenter = Segmenter(classifier.scored_names, settings)
        for event in segmenter.feed((3,), start_s, stop_s, scores):
            print(event.kind, event.class_name)

    Attributes:
        class_names: of the scores.
        settings: threshold, margin, minimum duration.
    """

    class_names: Sequence[str]
    settings: TimelineSettings = field(default_factory=TimelineSettings)
    _current: dict[Subject, _Run] = field(default_factory=dict)  # told
    _pending: dict[Subject, _Run] = field(default_factory=dict)  # too short so far
    _passed: dict[Subject, _Run] = field(default_factory=dict)  # what did not last, since the current one
    _rising: dict[Subject, _Run] = field(default_factory=dict)  # the last unknown steps, of a class about to be told

    def feed(self, subject: Subject, start_s: float, stop_s: float, scores: Array) -> list[Event]:
        """Take the scores of the next step of time of a subject; those of one subject have to come in order.

        Args:
            subject: track ids.
            start_s, stop_s: of the step.
            scores: (classes,) mean scores in it (``ScoreGrid``).

        Returns:
            What began and ended by this.
        """
        current, pending = self._current.get(subject), self._pending.get(subject)
        latest = pending or current
        events = []
        if latest and start_s - latest.stop_s > NO_SUBJECT_S:
            events = self.close(subject)
            current = pending = latest = None
        step = _Run(self._answer(latest, scores), start_s, stop_s, np.asarray(scores, np.float64), 1)
        step = self._from_its_rise(subject, step, latest)
        if pending and step.answer != pending.answer:
            events += self._pass(subject)
            current, pending = self._current.get(subject), None
        if pending:
            pending.absorb(step)
        elif current and step.answer == current.answer:
            self._go_on(subject)
            current.absorb(step)
        else:
            pending = self._pending[subject] = step
        if pending and self._lasts(pending):
            events += self._begin(subject)
        return events

    def close(self, subject: Subject) -> list[Event]:
        """End a subject's segment, as they are gone. Who was there too shortly for a segment gets theirs."""
        current, pending = self._current.get(subject), self._pending.get(subject)
        self._rising.pop(subject, None)
        events = []
        if pending:
            events = self._pass(subject) if current else self._begin(subject)
        if subject in self._current:
            self._go_on(subject)
            events.append(self._event("end", subject, self._current.pop(subject)))
        return events

    def close_all(self) -> list[Event]:
        """End everybody's segments."""
        return [event for subject in {**self._current, **self._pending} for event in self.close(subject)]

    def open_segments(self) -> dict[Subject, Event]:
        """What everybody does now, as the event that told its start, with the scores so far."""
        return {subject: self._event("start", subject, run) for subject, run in self._current.items()}

    def _answer(self, latest: _Run | None, scores: Array) -> int:
        best = int(np.argmax(scores))
        threshold, margin = self.settings.unknown_below or 0.0, self.settings.margin
        if latest and latest.answer != UNKNOWN_CLASS:
            score = scores[latest.answer]
            if score >= scores[best] - margin and score >= threshold - margin:
                return latest.answer
        return best if scores[best] >= threshold and self.class_names[best] != UNKNOWN else UNKNOWN_CLASS

    def _from_its_rise(self, subject: Subject, step: _Run, latest: _Run | None) -> _Run:
        """A step, with the unknown ones just before it in which its class was already best and near the threshold."""
        rising = self._rising.pop(subject, None)
        if step.answer == UNKNOWN_CLASS:
            best = int(np.argmax(step.total))
            nearly_sure = step.total[best] >= (self.settings.unknown_below or 0.0) - self.settings.margin
            if nearly_sure and self.class_names[best] != UNKNOWN:
                nearly = replace(step, answer=best)
                if rising and rising.answer == best:
                    rising.absorb(nearly)
                    nearly = rising
                self._rising[subject] = nearly
        elif rising and latest and rising.answer == step.answer:
            if rising.count == latest.count and latest is self._current.get(subject):
                return step  # it was told as unknown, from the beginning
            latest.give_back(rising)
            rising.absorb(step)
            return rising
        return step

    def _pass(self, subject: Subject) -> list[Event]:
        """What was pending did not last."""
        pending, current = self._pending.pop(subject), self._current.get(subject)
        if not current or not pending.count:
            return []
        passed = self._passed.get(subject)
        if passed:
            passed.absorb(pending)
        else:
            passed = self._passed[subject] = replace(pending, answer=UNKNOWN_CLASS)
        if current.answer == UNKNOWN_CLASS or not self._lasts(passed):
            return []
        self._pending[subject] = self._passed.pop(subject)
        return self._begin(subject)

    def _go_on(self, subject: Subject) -> None:
        """What did not last is part of the current one."""
        if passed := self._passed.pop(subject, None):
            self._current[subject].absorb(passed)

    def _lasts(self, run: _Run) -> bool:
        return run.stop_s - run.start_s >= self.settings.min_duration_s - 1e-6

    def _begin(self, subject: Subject) -> list[Event]:
        pending = self._pending.pop(subject)
        events = []
        if subject in self._current:
            self._go_on(subject)
            events.append(self._event("end", subject, self._current[subject]))
        self._current[subject] = pending
        return [*events, self._event("start", subject, pending)]

    def _event(self, kind: str, subject: Subject, run: _Run) -> Event:
        scores = run.total / run.count
        known = run.answer != UNKNOWN_CLASS
        name = self.class_names[run.answer] if known else UNKNOWN
        score = float(scores[run.answer] if known else scores.max())
        return Event(kind, subject, name, run.start_s, run.stop_s, score, scores)


# --- a whole sequence --------------------------------------------------------------------------------------------


def make_timelines(
    sequence: PoseSequence,
    classifier: Scorer,
    class_names: Sequence[str],
    settings: TimelineSettings | None = None,
    topk: int = 5,
    progress: bool = False,
) -> tuple[tuple[Prediction, ...], tuple[Timeline, ...]]:
    """Segments and scores over time of everybody in a sequence, and of every two who are near each other.

    Args:
        sequence: the people.
        classifier: the networks.
        class_names: of the classes that they score.
        settings: of windows and segments.
        topk: how many classes each segment lists.
        progress: draw a bar on stderr, if that is a terminal.

    Returns:
        The segments by the time at which they start, and a timeline of each subject that has any.
    """
    settings = settings or TimelineSettings()
    grid = ScoreGrid(settings.step_s / CELLS_A_STEP)
    pieces = [piece for track in sequence.tracks for piece in _by_shot(track, sequence.cuts_s)]
    windows = list(lay_windows(pieces, classifier.num_person, settings.window_s, settings.step_s, settings.subjects))
    disable = None if progress else True
    with tqdm(desc="windows", total=len(windows), unit=" windows", disable=disable, leave=False) as bar:
        waiting = iter(windows)
        while batch := list(itertools.islice(waiting, WINDOWS_AT_ONCE)):
            scores = score_windows(batch, classifier, sequence.info.img_shape)
            for window, row in zip(batch, scores, strict=True):
                grid.add(window.track_ids, window.start_s, window.stop_s, row)
            bar.update(len(batch))
    extents: dict[Subject, tuple[float, float]] = {}
    for window in windows:
        first, last = extents.get(window.track_ids, (math.inf, -math.inf))
        start_s, stop_s = extent(window.tracks)
        extents[window.track_ids] = min(first, start_s), max(last, stop_s)
    segments, timelines = [], []
    for subject in grid.subjects:
        segmenter = Segmenter(class_names, settings)
        cells = grid.pop(subject)
        events = [event for cell in cells for event in segmenter.feed(subject, cell.start_s, cell.stop_s, cell.scores)]
        events += segmenter.close_all()
        ended = [event for event in events if event.kind == "end"]
        start_s, stop_s = extents[subject]
        if ended and ended[0].start_s < start_s + grid.step_s:
            ended[0] = replace(ended[0], start_s=start_s)
        if ended and ended[-1].stop_s > stop_s - grid.step_s:
            ended[-1] = replace(ended[-1], stop_s=stop_s)
        segments += [_segment(event, class_names, topk) for event in ended]
        timelines.append(_timeline(subject, cells, settings.step_s))
    rank = {track.track_id: k for k, track in enumerate(sequence.tracks)}
    segments.sort(key=lambda segment: (segment.start_s, [rank[track_id] for track_id in segment.track_ids]))
    timelines.sort(key=lambda timeline: [rank[track_id] for track_id in timeline.track_ids])
    return tuple(segments), tuple(timelines)


def _timeline(subject: Subject, cells: Sequence[Cell], step_s: float) -> Timeline:
    """The mean scores in each step from one window to the next."""
    by_step: dict[int, list[Array]] = {}
    for cell in cells:
        by_step.setdefault(int((cell.start_s + cell.stop_s) / 2 / step_s), []).append(cell.scores)
    scores = np.stack([np.mean(parts, axis=0) for parts in by_step.values()])
    return Timeline(subject, np.array(list(by_step)) * step_s, step_s, scores)


def _by_shot(track: Track, cuts_s: Sequence[float]) -> list[Track]:
    """A track in pieces, from the first pose of each to its last: no window looks across a cut or a long absence."""
    seen = np.flatnonzero(track.present)
    cuts = np.searchsorted(track.time_s, np.array(cuts_s) - 1e-6)
    returns = seen[1:][np.diff(track.time_s[seen]) > NO_SUBJECT_S]
    borders = [0, *np.union1d(cuts, returns).tolist(), track.num_frames]
    parts = (seen[(seen >= first) & (seen < last)] for first, last in pairwise(borders))
    return [track.cut(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]


def _segment(event: Event, class_names: Sequence[str], topk: int) -> Prediction:
    """A segment that has ended."""
    best = np.argsort(-event.scores, kind="stable")[:topk]
    return Prediction(
        start_s=event.start_s,
        stop_s=event.stop_s,
        track_ids=event.subject,
        class_name=event.class_name,
        score=event.score,
        top_k=tuple((class_names[i], float(event.scores[i])) for i in best),
        scores=event.scores,
        class_names=tuple(class_names),
    )
