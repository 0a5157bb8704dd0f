"""Predictions as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import skelact
from skelact.calibration import UNKNOWN
from skelact.errors import harmless
from skelact.files import atomic_path, in_utf8
from skelact.structures import PoseSequence, Prediction, PredictionSet, SourceResult, Timeline

SCHEMA_VERSION = 1  # goes up where a reader of older files would misread newer ones; fields may be added without
NUMBERS = re.compile(r"\[\n([-+.,\deE\s]+)\]")  # a list of them over several lines
TOLD_SCORE = 0.05  # a timeline lists the classes that ever have so much
CSV_FIELDS = ("source", "start_s", "stop_s", "track_ids", "rank", "class_name", "score", "error", "answer")


def to_json(predictions: PredictionSet, command: list[str] | None = None) -> dict[str, Any]:
    """Everything that a run found out, in JSON types.

    Args:
        predictions: of ``predict``.
        command: the command line, for the record.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command or [],
        "versions": predictions.versions,
        "settings": predictions.settings,
        "models": predictions.models,
        "class_names": list(predictions.class_names),
        "results": [_result(result) for result in predictions.results],
    }


def _result(result: SourceResult) -> dict[str, Any]:
    content: dict[str, Any] = {
        "source": result.source,
        "error": result.error,
        "warnings": list(result.warnings),
    }
    if result.granularity:
        content["granularity"] = result.granularity
    if result.overlay:
        content["overlay"] = result.overlay
    sequence = result.sequence
    if sequence is None:
        return content
    content["video"] = {
        "height": sequence.info.img_shape[0],
        "width": sequence.info.img_shape[1],
        "fps": sequence.info.fps,
        "num_frames": sequence.num_frames,
        "start_s": round(sequence.info.start_s, 6),
    }
    content["poses"] = {"layout": sequence.layout, **sequence.provenance}
    content["tracks"] = [
        {
            "track_id": track.track_id,
            "start_frame": track.start_frame,
            "stop_frame": track.stop_frame,
            "start_s": float(track.time_s[0]),
            "stop_s": float(track.time_s[-1]),
            "num_frames_seen": int(track.present.sum()),
            "score": _mean_score(track.keypoint_score, track.present),
        }
        for track in sequence.tracks
    ]
    content["predictions"] = [
        {
            "start_s": prediction.start_s,
            "stop_s": prediction.stop_s,
            "track_ids": list(prediction.track_ids),
            "class_name": prediction.class_name,
            "score": prediction.score,
            "top_k": [{"class_name": name, "score": score} for name, score in prediction.top_k],
            "scores": [float(score) for score in prediction.scores],
            "people": _people(sequence, prediction),
        }
        for prediction in result.predictions
    ]
    if result.granularity == "timeline":
        class_names = next((prediction.class_names for prediction in result.predictions), ())
        content["timelines"] = [_timeline(timeline, class_names) for timeline in result.timelines]
    return content


def _people(sequence: PoseSequence, prediction: Prediction) -> list[dict[str, Any]]:
    """How the people of a prediction look in its middle: each one's pose that is nearest to it."""
    middle = (prediction.start_s + prediction.stop_s) / 2
    people = []
    for track in sequence.tracks:
        if track.track_id not in prediction.track_ids:
            continue
        first, last = np.searchsorted(track.time_s, (prediction.start_s, prediction.stop_s))
        seen = first + np.flatnonzero(track.cut(int(first), int(last)).present)
        if not len(seen):
            seen = np.flatnonzero(track.present)
        t = int(seen[np.argmin(np.abs(track.time_s[seen] - middle))])
        score = None if track.keypoint_score is None else track.keypoint_score[t].round(3).tolist()
        people.append(
            {
                "track_id": track.track_id,
                "time_s": float(track.time_s[t]),
                "keypoint": _rounded(track.keypoint[t], 1 if track.keypoint.shape[-1] == 2 else 4),
                "keypoint_score": None if score is None else _rounded(score, 3),
            }
        )
    return people


def _timeline(timeline: Timeline, class_names: Sequence[str]) -> dict[str, Any]:
    told = np.flatnonzero(timeline.scores.max(axis=0) >= TOLD_SCORE)
    return {
        "track_ids": list(timeline.track_ids),
        "step_s": timeline.step_s,
        "start_s": _rounded(timeline.start_s, 3),
        "scores": {class_names[int(k)]: _rounded(timeline.scores[:, k], 3) for k in told},
    }


def _rounded(values: Any, digits: int) -> Any:
    """A list of numbers that are no longer than they need to be (float32's 0.1 is 0.10000000149)."""
    return np.asarray(values, np.float64).round(digits).tolist()


def _mean_score(keypoint_score: Any, present: Any) -> float | None:
    """Mean keypoint score over the frames in which a person is seen; None for 3D."""
    if keypoint_score is None or not np.any(present):
        return None
    return float(keypoint_score[present].mean())


def to_csv(predictions: PredictionSet) -> str:
    """One row for each of the top classes of each prediction; one with the error for each source that failed, and one
    with nothing but its name for one in which nobody did anything.

    A segment of a timeline has one row only: what it says, or the best class where that is ``unknown``.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CSV_FIELDS)
    for result in predictions.results:
        if result.error is not None:
            rows.writerow((result.source, "", "", "", "", "", "", result.error, ""))
        elif not result.predictions:  # it is done all the same
            rows.writerow((result.source, *[""] * 8))
        for prediction in result.predictions:
            times = f"{prediction.start_s:.3f}", f"{prediction.stop_s:.3f}"
            ids = " ".join(map(str, prediction.track_ids))
            listed = prediction.top_k
            if result.granularity == "timeline":  # an answer goes on for a while when it is no longer the best
                known = prediction.class_name != UNKNOWN
                listed = ((prediction.class_name, prediction.score),) if known else listed[:1]
            for rank, (name, score) in enumerate(listed, start=1):
                rows.writerow((result.source, *times, ids, rank, name, f"{score:.6f}", "", prediction.class_name))
    return text.getvalue()


def versions() -> dict[str, str]:
    """Of what takes part in an answer."""
    import torch

    return {
        "skelact": skelact.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def record(command: Sequence[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """What a command found, after what the JSON of every command begins with.

    Args:
        command: the command line.
        content: in JSON types.
    """
    return {"schema_version": SCHEMA_VERSION, "command": list(command), "versions": versions(), **content}


def write_text(text: str, path: str) -> None:
    """To a file, all or nothing, or to stdout for ``-``."""
    lines = "\n".join(map(printable, text.split("\n")))
    if path == "-":
        sys.stdout.write(lines)
        return
    with atomic_path(Path(path)) as part:
        part.write_text(lines, encoding="utf-8")


def printable(text: str) -> str:
    r"""The same line for a file or a terminal.

    Bytes of file names that are no UTF-8 become escapes such as \udce9, which JSON knows too, and so do characters that
    would command a terminal or end the line.
    """
    return in_utf8(harmless(text))


def _plain(value: Any) -> Any:
    """A NumPy number or array, or a path, which Python callers may have given, for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON type")


def write_json(content: dict[str, Any], path: str) -> None:
    """Indented, to a file or stdout; lists of numbers stand on one line."""
    to_other = path == "-" and (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"  # a pipe on Windows
    text = json.dumps(content, indent=2, ensure_ascii=to_other, default=_plain)
    # No string is changed by this: JSON writes a line break in one as an escape.
    text = NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text)
    write_text(text + "\n", path)


def answers_before(path: Path, key: str, outputs: Mapping[str, Path]) -> list[SourceResult] | None:
    """What a source was answered with before, by its JSON; None where it has to be done again.

    Args:
        path: a JSON that ``predict`` wrote into ``json_dir``.
        key: of the source, its file and the settings.
        outputs: that are wanted besides, by kind. They must have been written with that JSON, and not since.

    Returns:
        The results without people and timelines, which the JSON does not tell whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        results, written = content["results"], path.stat().st_mtime_ns
        for kind, out in outputs.items():
            files = [out] if len(results) == 1 else [*out.with_suffix("").iterdir()]  # of several samples, one each
            is_whole = len(files) >= len(results) and max(file.stat().st_mtime_ns for file in files) <= written
            if content["outputs"].get(kind) != str(out.absolute()) or not is_whole:
                return None
        class_names = tuple(content["class_names"])
        return [_result_before(result, class_names) for result in results]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _result_before(content: Mapping[str, Any], class_names: tuple[str, ...]) -> SourceResult:
    """A result that ``_result`` wrote."""
    predictions = (
        Prediction(
            start_s=told["start_s"],
            stop_s=told["stop_s"],
            track_ids=tuple(told["track_ids"]),
            class_name=told["class_name"],
            score=told["score"],
            top_k=tuple((each["class_name"], each["score"]) for each in told["top_k"]),
            scores=np.array(told["scores"]),
            class_names=class_names,
        )
        for told in content["predictions"]
    )
    return SourceResult(
        content["source"],
        predictions=tuple(predictions),
        warnings=tuple(content["warnings"]),
        granularity=content["granularity"],
        overlay=content.get("overlay"),
    )
