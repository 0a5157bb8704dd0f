"""What a sequence of poses is answered with: one answer, one for each person, or segments in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skelact.calibration import UNKNOWN
from skelact.classifier import Classifier
from skelact.clips import regular, tracks_keypoint
from skelact.errors import SkelactError
from skelact.persons import main_persons
from skelact.structures import Array, PoseSequence, Prediction, SourceResult, Track
from skelact.timeline import TimelineSettings, make_timelines
from skelact.windows import extent

GRANULARITIES = ("auto", "clip", "person", "timeline")
LONGEST_CLIP_S = 10.0  # the clips that action models are trained on are no longer


def checked_granularity(granularity: str) -> str:
    """The same, if it is one of ``GRANULARITIES``.

    Raises:
        SkelactError: it is none.
    """
    if granularity not in GRANULARITIES:
        raise SkelactError(f"granularity: expected one of {', '.join(GRANULARITIES)}, found {granularity!r}")
    return granularity


def predict_sequence(
    sequence: PoseSequence,
    classifier: Classifier,
    topk: int = 5,
    clips: int = 10,
    unknown_below: float | None = None,
    granularity: str = "clip",
    timeline: TimelineSettings | None = None,
    progress: bool = False,
) -> SourceResult:
    """Classify a sequence; with a best score below ``unknown_below`` as ``unknown``.

    Args:
        sequence: the people.
        classifier: the networks.
        topk: how many classes each prediction lists.
        clips: 1 or 10, of clips and persons; each window of a timeline is one clip. What lasts longer than the clips
            that the networks were trained on is looked at in windows too, over which as many clips are spread.
        unknown_below: None for never.
        granularity: ``auto`` takes ``clip`` up to ``LONGEST_CLIP_S``, else ``timeline``.
        timeline: its windows and segments; ``unknown_below`` is set by the argument of that name.
        progress: bars on stderr.

    Raises:
        SkelactError: the poses don't fit the model, or there is nobody. In a timeline that is no error, but a warning.
    """
    warnings = [*sequence.warnings, *classifier.check(sequence)]
    if granularity == "auto":
        granularity = "clip" if sequence.duration_s <= LONGEST_CLIP_S + 1e-6 else "timeline"
    nobody = (
        f"expected people, found nobody in {sequence.num_frames} frames; are they large enough to see, or does another "
        "--pose-model find them?"
    )
    result = SourceResult(sequence.info.path, sequence, warnings=tuple(warnings), granularity=granularity)
    if granularity == "timeline":
        settings = replace(timeline or TimelineSettings(), unknown_below=unknown_below)
        names = classifier.scored_names
        segments, timelines = make_timelines(sequence, classifier, names, settings, topk, progress)
        if not sequence.tracks:
            warnings.append(nobody)
        return replace(result, predictions=segments, timelines=timelines, warnings=tuple(warnings))

    if not sequence.tracks:
        raise SkelactError(f"{sequence.info.path}: {nobody}")
    img_shape = sequence.info.img_shape
    if granularity == "person":
        groups: list[tuple[Track, ...]] = [(track,) for track in sequence.tracks]
        poses = [tracks_keypoint((replace(track, start_frame=0),), track.num_frames) for track in sequence.tracks]
        of_frames = [track.time_s for track in sequence.tracks]
        times = [extent(group) for group in groups]
    else:
        persons = sequence.tracks[: classifier.num_person]
        if "pose_model" in sequence.provenance:
            persons = main_persons(sequence.tracks, img_shape, sequence.num_frames, classifier.num_person)
        groups, poses = [persons], [tracks_keypoint(persons, sequence.num_frames)]
        of_frames, times = [sequence.time_s], [(0.0, sequence.duration_s)]
    longest_s = min(classifier.longest_clip_s, sequence.duration_s)
    scores = []
    for each, time_s in zip(poses, of_frames, strict=True):
        keypoint, score, fps = regular(*each, time_s, sequence.info.fps)
        scores.append(_mean_scores(classifier, (keypoint, score), round(longest_s * fps), img_shape, clips))
    predictions = tuple(
        _prediction(tuple(track.track_id for track in group), *span, row, classifier.scored_names, topk, unknown_below)
        for group, span, row in zip(groups, times, scores, strict=True)
    )
    return replace(result, predictions=predictions)


def _mean_scores(
    classifier: Classifier,
    sample: tuple[Array, Array | None],
    longest: int,
    img_shape: tuple[int, int] | None,
    clips: int,
) -> Array:
    """Scores (classes,) of a sample; half of those of one with more than ``longest`` frames are of windows of it.

    The windows overlap by half. The whole shows an action from its beginning to its end, windows show it at the speed
    at which it was learnt.
    """
    keypoint, score = sample
    whole = classifier.scores(keypoint, score, img_shape, clips)
    T = keypoint.shape[1]
    count = round(2 * T / max(longest, 1)) - 1
    if count <= 1:
        return whole
    starts = np.linspace(0, T - longest, count).round().astype(int)
    parts = [slice(start, start + longest) for start in starts]
    windows = [(keypoint[:, part], None if score is None else score[:, part]) for part in parts]
    seen = [window for window in windows if window[0].any()] or [sample]
    of_windows = classifier.scores_of(seen, img_shape, -(-clips // len(seen))).mean(axis=0)
    mean: Array = (whole + of_windows) / 2
    return mean


def _prediction(
    track_ids: tuple[int, ...],
    start_s: float,
    stop_s: float,
    scores: Array,
    class_names: tuple[str, ...],
    topk: int,
    unknown_below: float | None,
) -> Prediction:
    best = np.argsort(-scores, kind="stable")[:topk]
    top = tuple((class_names[i], float(scores[i])) for i in best)
    return Prediction(
        start_s=start_s,
        stop_s=stop_s,
        track_ids=track_ids,
        class_name=UNKNOWN if unknown_below is not None and top[0][1] < unknown_below else top[0][0],
        score=top[0][1],
        top_k=top,
        scores=scores,
        class_names=class_names,
    )
