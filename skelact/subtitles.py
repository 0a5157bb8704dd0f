"""Predictions as subtitles, SubRip (.srt) and WebVTT (.vtt), and what people read of them elsewhere."""

from __future__ import annotations

import html
from dataclasses import replace
from itertools import pairwise

from skelact.calibration import UNKNOWN
from skelact.structures import Prediction, SourceResult

NO_MARKUP = str.maketrans("<>{}", "‹›()")  # which players of SubRip take for formatting


def who(track_ids: tuple[int, ...]) -> str:
    """``Person 1`` or ``Persons 1, 2``."""
    return f"Person{'s' * (len(track_ids) > 1)} {', '.join(map(str, track_ids))}"


def known(result: SourceResult) -> list[Prediction]:
    """The predictions that tell something, by the time at which they start: all but ``unknown``."""
    told = [prediction for prediction in result.predictions if prediction.class_name != UNKNOWN]
    return sorted(told, key=lambda prediction: prediction.start_s)


def of_the_file(result: SourceResult) -> float:
    """What to add to times so that they count from the start of the source's file, as players do."""
    return result.sequence.info.start_s if result.sequence else 0.0


def to_srt(result: SourceResult) -> str:
    """SubRip. Players show one cue at a time, so each tells all that goes on, with a line for each person and pair."""
    shift_s = of_the_file(result)
    segments = [  # in whole milliseconds, so that nearly the same time is the same
        replace(segment, start_s=round(segment.start_s + shift_s, 3), stop_s=round(segment.stop_s + shift_s, 3))
        for segment in known(result)
    ]
    cues: list[str] = []
    for start_s, stop_s in pairwise(sorted({time for s in segments for time in (s.start_s, s.stop_s)})):
        lines = [
            f"{who(segment.track_ids)}: {_line(segment.class_name).translate(NO_MARKUP)}"
            for segment in segments
            if segment.start_s <= start_s and segment.stop_s >= stop_s
        ]
        if lines:
            span = f"{clock(start_s)} --> {clock(stop_s)}".replace(".", ",")
            cues.append("\n".join([str(len(cues) + 1), span, *lines]))
    return "".join(f"{cue}\n\n" for cue in cues)


def to_vtt(result: SourceResult) -> str:
    """WebVTT, with a cue for each segment; players stack those that overlap. Persons are voices, for CSS to style."""
    shift_s = of_the_file(result)
    cues = [
        f"{clock(segment.start_s + shift_s)} --> {clock(segment.stop_s + shift_s)}\n"
        f"<v {who(segment.track_ids)}>{html.escape(_line(segment.class_name), quote=False)}"
        for segment in known(result)
    ]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


def clock(time_s: float) -> str:
    """``01:02:03.456``."""
    milliseconds = round(time_s * 1000)
    minutes, seconds = divmod(milliseconds // 1000, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}.{milliseconds % 1000:03d}"


def _line(text: str) -> str:
    """On one line, and without the arrow that means times."""
    return " ".join(text.split()).replace("-->", "→")
