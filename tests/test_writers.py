"""Predictions as JSON and CSV, read back."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelact.errors import SkelactError
from skelact.structures import (
    Array,
    PoseSequence,
    Prediction,
    PredictionSet,
    SourceResult,
    Timeline,
    Track,
    VideoInfo,
)
from skelact.writers import CSV_FIELDS, answers_before, to_csv, to_json, write_json, write_text

CLASSES = ("wave", 'say "hi", loudly', "größer werden")
SCORES = np.array([0.25, 0.7, 0.05])


def track(track_id: int, start_frame: int, num_frames: int, dims: int = 2) -> Track:
    """Somebody who is out of sight in their third frame."""
    keypoint = np.full((num_frames, 17, dims), 100, np.float32)
    keypoint[2] = 0
    score = np.full((num_frames, 17), 0.8, np.float32)
    score[2] = 0
    time_s = np.arange(start_frame, start_frame + num_frames) / 30
    return Track(track_id, start_frame, time_s, keypoint, score if dims == 2 else None)


def sequence(*tracks: Track) -> PoseSequence:
    info = VideoInfo("a.mp4", (360, 640), 30.0, 0, 1.25)
    provenance = {"pose_model": "yolo.pt", "pose_model_sha256": "0" * 64, "tracker": "bytetrack"}
    return PoseSequence(info, tracks, 90, "coco", np.arange(90) / 30, provenance)


def prediction(*track_ids: int, scores: Array = SCORES) -> Prediction:
    best = np.argsort(-scores)[:2]
    top = tuple((CLASSES[i], float(scores[i])) for i in best)
    return Prediction(0.0, 3.0, track_ids, top[0][0], top[0][1], top, scores, CLASSES)


@pytest.fixture
def predictions() -> PredictionSet:
    """Of a video with two people, one that is missing, and one that nobody is in."""
    both = sequence(track(2, 10, 80), track(1, 0, 60))
    results = (
        SourceResult("a.mp4", both, (prediction(2, 1),), ("mind the aspect ratio",)),
        SourceResult("b, c.mp4", error="b, c.mp4: no such file; give the path of a video"),
        SourceResult("empty.mp4", sequence(), error="empty.mp4: expected people, found nobody in 90 frames"),
    )
    models = [{"name": "m", "file": "m.pth", "sha256": "f" * 64, "stream": "joint", "provenance": {}}]
    versions = {"skelact": "0.1.0", "python": "3.11", "torch": "2.6", "numpy": "2.0"}
    return PredictionSet(results, CLASSES, models, {"pose_model": "yolo.pt", "clips": 10}, versions)


def strictly(text: str) -> Any:
    """JSON as its standard has it, without the NaN and Infinity that Python adds."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# --- JSON --------------------------------------------------------------------------------------------------------


def test_json_tells_what_made_it(predictions: PredictionSet) -> None:
    content = to_json(predictions, ["skelact", "predict", "a.mp4"])
    assert content["schema_version"] == 1
    assert content["command"] == ["skelact", "predict", "a.mp4"]
    assert set(content["versions"]) == {"skelact", "python", "torch", "numpy"}
    assert content["settings"] == {"pose_model": "yolo.pt", "clips": 10}
    assert [model["sha256"] for model in content["models"]] == ["f" * 64]
    assert content["class_names"] == list(CLASSES)
    assert to_json(predictions)["command"] == []


def test_json_of_a_video(predictions: PredictionSet) -> None:
    result = to_json(predictions)["results"][0]
    assert (result["source"], result["error"], result["warnings"]) == ("a.mp4", None, ["mind the aspect ratio"])
    assert result["video"] == {"height": 360, "width": 640, "fps": 30.0, "num_frames": 90, "start_s": 1.25}
    assert "overlay" not in result
    assert result["poses"]["layout"] == "coco"
    assert result["poses"]["pose_model_sha256"] == "0" * 64


def test_json_of_tracks_the_most_important_first(predictions: PredictionSet) -> None:
    first, second = to_json(predictions)["results"][0]["tracks"]
    assert (first["track_id"], second["track_id"]) == (2, 1)
    assert (first["start_frame"], first["stop_frame"], first["num_frames_seen"]) == (10, 90, 79)
    assert (first["start_s"], first["stop_s"]) == (pytest.approx(10 / 30), pytest.approx(89 / 30))
    assert first["score"] == pytest.approx(0.8), "a mean over the frames in which they are seen"


def test_json_of_tracks_in_3d_has_no_score_and_metres() -> None:
    spatial = track(1, 0, 9, dims=3)
    spatial.keypoint[spatial.present] = 1.23456
    results = (SourceResult("a.pkl#1", sequence(spatial), (prediction(1),), overlay="out/a.mp4"),)
    (result,) = to_json(PredictionSet(results, CLASSES, []))["results"]
    assert result["tracks"][0]["score"] is None
    (person,) = result["predictions"][0]["people"]
    assert (person["keypoint"][0], person["keypoint_score"]) == ([1.2346] * 3, None)
    assert result["overlay"] == "out/a.mp4"


def test_json_of_predictions(predictions: PredictionSet) -> None:
    (found,) = to_json(predictions)["results"][0]["predictions"]
    assert (found["start_s"], found["stop_s"], found["track_ids"]) == (0.0, 3.0, [2, 1])
    assert (found["class_name"], found["score"]) == (CLASSES[1], 0.7)
    assert found["top_k"] == [{"class_name": CLASSES[1], "score": 0.7}, {"class_name": "wave", "score": 0.25}]
    assert found["scores"] == [0.25, 0.7, 0.05], "in the order of class_names"


def test_json_shows_people_as_they_are_in_the_middle() -> None:
    """Or, where they are not seen then, as near to it as may be."""
    walks = track(1, 30, 60)  # from 1 s to 3 s, and not seen in the third of these frames
    walks.keypoint[..., 0] += np.where(walks.present, np.arange(60), 0)[:, None]
    found = {}
    for start_s, stop_s in ((1.0, 3.0), (1.0, 1 + 4.4 / 30), (0.0, 0.5), (2.9, 9.0)):
        told = replace(prediction(1), start_s=start_s, stop_s=stop_s)
        results = (SourceResult("a.mp4", sequence(track(2, 0, 90), walks), (told,)),)
        ((person,),) = (
            each["people"] for each in to_json(PredictionSet(results, CLASSES, []))["results"][0]["predictions"]
        )
        assert person["track_id"] == 1
        assert person["keypoint_score"] == [0.8] * 17
        assert person["time_s"] == pytest.approx(1 + (person["keypoint"][0][0] - 100) / 30)
        found[start_s, stop_s] = round(30 * (person["time_s"] - 1))
    assert list(found.values()) == [30, 3, 0, 59]


def test_json_of_a_timeline_tells_the_classes_that_ever_have_a_score_to_speak_of(predictions: PredictionSet) -> None:
    scores = np.array([[0.9, 0.06, 0.04], [0.98, 0.0, 0.02], [0.98, 0.0, 0.02]], np.float32)
    timeline = Timeline((2,), np.array([0.0, 0.5, 2.0]), 0.5, scores)
    result = replace(predictions.results[0], granularity="timeline", timelines=(timeline,))
    (told,) = to_json(replace(predictions, results=(result,)))["results"][0]["timelines"]
    assert (told["track_ids"], told["step_s"], told["start_s"]) == ([2], 0.5, [0.0, 0.5, 2.0])
    assert told["scores"] == {CLASSES[0]: [0.9, 0.98, 0.98], CLASSES[1]: [0.06, 0.0, 0.0]}


def test_json_of_failures(predictions: PredictionSet) -> None:
    _, missing, empty = to_json(predictions)["results"]
    assert missing == {
        "source": "b, c.mp4",
        "error": "b, c.mp4: no such file; give the path of a video",
        "warnings": [],
    }
    assert "found nobody" in empty["error"]
    assert (empty["tracks"], empty["predictions"], empty["video"]["num_frames"]) == ([], [], 90)


def test_json_is_json(predictions: PredictionSet, tmp_path: Path) -> None:
    content = to_json(predictions)
    write_json(content, str(tmp_path / "a.json"))
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert strictly(text) == content
    assert "größer werden" in text, "people read it too"


def test_what_callers_in_python_give_becomes_json(tmp_path: Path) -> None:
    write_json({"a": np.float32(0.5), "b": np.arange(2), "c": Path("x")}, str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 0.5, "b": [0, 1], "c": "x"}
    with pytest.raises(TypeError, match="set is no JSON type"):
        write_json({"a": set()}, str(tmp_path / "b.json"))


def test_lists_of_numbers_stand_on_one_line(tmp_path: Path) -> None:
    content = {"numbers": [1, -2.5, 1e-9], "text": "a [\n1,\n2\n]", "names": ["1", "2"], "nested": [[1, 2], [3, 4]]}
    write_json(content, str(tmp_path / "a.json"))
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert '"numbers": [1, -2.5, 1e-09]' in text
    assert "[3, 4]" in text


# --- CSV ---------------------------------------------------------------------------------------------------------


def test_csv_has_a_row_for_each_of_the_best_and_each_failure(predictions: PredictionSet) -> None:
    header, *rows = csv.reader(io.StringIO(to_csv(predictions)))
    assert header == list(CSV_FIELDS)
    assert rows == [
        ["a.mp4", "0.000", "3.000", "2 1", "1", 'say "hi", loudly', "0.700000", "", 'say "hi", loudly'],
        ["a.mp4", "0.000", "3.000", "2 1", "2", "wave", "0.250000", "", 'say "hi", loudly'],
        ["b, c.mp4", "", "", "", "", "", "", "b, c.mp4: no such file; give the path of a video", ""],
        ["empty.mp4", "", "", "", "", "", "", "empty.mp4: expected people, found nobody in 90 frames", ""],
    ]


def test_csv_of_a_video_in_which_nobody_acts_names_it(predictions: PredictionSet) -> None:
    result = replace(predictions.results[0], predictions=(), granularity="timeline")
    _, *rows = csv.reader(io.StringIO(to_csv(replace(predictions, results=(result,)))))
    assert rows == [[result.source, *[""] * 8]]


def test_csv_of_a_segment_says_what_the_segment_says(predictions: PredictionSet) -> None:
    """An answer goes on for a while when another class is a little better."""
    segments = [
        replace(prediction(2), class_name="wave", score=0.25),
        replace(prediction(1), class_name="unknown", score=0.7),
    ]
    result = replace(predictions.results[0], predictions=tuple(segments), granularity="timeline")
    _, *rows = csv.reader(io.StringIO(to_csv(replace(predictions, results=(result,)))))
    assert [(row[5], row[6], row[8]) for row in rows] == [
        ("wave", "0.250000", "wave"),
        ('say "hi", loudly', "0.700000", "unknown"),
    ]


# --- where to ----------------------------------------------------------------------------------------------------


def test_a_dash_is_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_json({"a": 1}, "-")
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    write_text("a,b\n", "-")
    assert capsys.readouterr().out == "a,b\n"
    assert list(tmp_path.iterdir()) == []


def test_json_on_stdout_is_json_whatever_its_encoding_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("cp1252", "utf-8"):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")  # as the command has it
        monkeypatch.setattr(sys, "stdout", out)
        write_json({"source": "größer → ł"}, "-")
        out.flush()
        written = out.buffer.getvalue()  # type: ignore[attr-defined]
        assert json.loads(written.decode("utf-8")) == {"source": "größer → ł"}
        assert (b"\\u" in written) == (encoding == "cp1252")


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text("a\n", str(tmp_path / "new" / "deep" / "a.csv"))
    assert (tmp_path / "new" / "deep" / "a.csv").read_text() == "a\n"


def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def half(self: Path, text: str, **options: Any) -> None:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(SkelactError, match=r"cannot write .*a.csv: the disk is full"):
        write_text("new and longer", str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "old"


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="expected a file, found a folder; add a file name"):
        write_text("a", str(tmp_path))


def test_names_that_are_no_unicode_or_command_a_terminal_are_written_as_escapes(tmp_path: Path) -> None:
    write_json({"source": "caf\udce9 \x1b[31m größer.mp4"}, str(tmp_path / "a.json"))
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert json.loads(text) == {"source": "caf\udce9 \x1b[31m größer.mp4"}
    write_text("caf\udce9 \x1b[31m größer\n", str(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "caf\\udce9 \\u001b[31m größer\n"


# --- what was answered before ------------------------------------------------------------------------------------


def test_a_source_is_done_if_its_answer_and_all_that_was_written_with_it_are_there(
    predictions: PredictionSet, tmp_path: Path
) -> None:
    done = replace(predictions, results=(replace(predictions.results[0], granularity="clip"),))
    path, subtitles, elsewhere = tmp_path / "a.json", tmp_path / "a.srt", tmp_path / "b.srt"
    for out in (subtitles, elsewhere):
        out.write_text("1")
        os.utime(out, (1000, 1000))
    write_json({"key": "k", "outputs": {"srt": str(subtitles)}, **to_json(done)}, str(path))
    before = answers_before(path, "k", {"srt": subtitles})
    assert before is not None
    (told,), (result,) = before, done.results
    assert (told.source, told.warnings, told.error) == (result.source, result.warnings, None)
    assert [each.class_name for each in told.predictions] == [each.class_name for each in result.predictions]
    assert to_csv(replace(done, results=tuple(before))) == to_csv(done)

    assert answers_before(path, "k", {}) is not None, "fewer outputs are wanted"
    assert answers_before(path, "other settings", {"srt": subtitles}) is None
    assert answers_before(path, "k", {"srt": elsewhere}) is None, "they are wanted in another place"
    assert answers_before(path, "k", {"vtt": elsewhere}) is None, "nor is it there, though a file is"
    os.utime(subtitles, (2e9, 2e9))
    assert answers_before(path, "k", {"srt": subtitles}) is None, "another run has written them since"
    subtitles.unlink()
    assert answers_before(path, "k", {"srt": subtitles}) is None
    path.write_text(path.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    assert answers_before(path, "k", {}) is None, "half of a file"
    path.write_text("[]")
    assert answers_before(path, "k", {}) is None, "another file"
    assert answers_before(tmp_path / "missing.json", "k", {}) is None


def test_several_samples_are_done_if_each_has_its_file(predictions: PredictionSet, tmp_path: Path) -> None:
    done = replace(predictions.results[0], granularity="clip", overlay="own")
    path, out = tmp_path / "a.json", tmp_path / "own.mp4"
    (tmp_path / "own").mkdir()
    for name in ("0000_a.mp4", "0001_b.mp4"):
        (tmp_path / "own" / name).touch()
        os.utime(tmp_path / "own" / name, (1000, 1000))
    content = to_json(replace(predictions, results=(done, done)))
    write_json({"key": "k", "outputs": {"overlay": str(out)}, **content}, str(path))
    before = answers_before(path, "k", {"overlay": out})
    assert before is not None
    assert [(each.granularity, each.overlay) for each in before] == [("clip", "own")] * 2
    (tmp_path / "own" / "0001_b.mp4").unlink()
    assert answers_before(path, "k", {"overlay": out}) is None
