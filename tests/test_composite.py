"""The script that measures timelines: what it shows, and what it counts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import composite
import drawn_people
import numpy as np
import pytest
from click.testing import CliRunner, Result
from composite import Segment

from skelact.video import probe_video, read_frames


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(composite.main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def prediction(start_s: float, stop_s: float, class_name: str, *track_ids: int, score: float = 0.8) -> dict[str, Any]:
    return {
        "start_s": start_s,
        "stop_s": stop_s,
        "class_name": class_name,
        "track_ids": list(track_ids),
        "score": score,
    }


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """One clip of each of three people, and of two sequences, one of which shows nothing that has a name."""
    for n, name in enumerate(
        ("wave/anna_wave.mp4", "walk/anna_walk.mp4", "walk/ben_walk.mp4", "hug/set1_1_7_1.mp4", "none/set1_9_7_6.mp4")
    ):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn_people.save_video(path, drawn_people.scene_of("wave", seed=n), 1.0, (10.0, 20.0)[n % 2], (64, 48))
    return tmp_path / "clips"


def test_a_composite_shows_its_clips_when_its_table_says(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "composite.mp4"
    run("make", clips, "--people", "anna", "--sequences", "7", "--minutes", 0.12, "--out", out)
    with out.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = {row["clip"].split(" ")[0] for row in rows}
    assert shown == {"anna_wave.mp4", "anna_walk.mp4", "set1_1_7_1.mp4", "set1_9_7_6.mp4"}, "nobody else"
    assert any(row["clip"].endswith("mirrored") for row in rows), "more than once"
    starts, stops = ([float(row[key]) for row in rows] for key in ("start_s", "stop_s"))
    assert all(stop <= start for stop, start in zip(stops, starts[1:], strict=False))
    assert stops[0] - starts[0] == pytest.approx(1.0, abs=0.11)
    frames = list(read_frames(out))
    assert probe_video(out).img_shape == (480, 640)
    assert frames[-1].time_s >= 7.0
    pauses = [frame for frame in frames if frame.image.std() < 3]
    assert pauses, "an empty picture between some clips"
    for frame in pauses:
        assert not any(start <= frame.time_s < stop - 0.02 for start, stop in zip(starts, stops, strict=True))


def test_what_a_composite_shows_is_not_trained_on(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    run("labels", clips, "--people", "anna", "--sequences", "7", "--val", "ben", "--out", out)
    with out.open(newline="") as file:
        rows = {Path(row["path"]).name: (row["label"], row["split"]) for row in csv.DictReader(file)}
    assert rows["anna_walk.mp4"] == ("walk", "test")
    assert rows["set1_1_7_1.mp4"] == ("hug", "test")
    assert rows["ben_walk.mp4"] == ("walk", "val")


def test_a_pair_answers_for_its_people() -> None:
    times = np.arange(0, 4, 1.0)
    shown = composite.told(
        [
            prediction(0, 4, "wave", 1, score=0.9),
            prediction(1, 2, "hug", 1, 2, score=0.6),
            prediction(2, 3, "none", 1, 2),
            prediction(3, 4, "unknown", 2),
        ],
        times,
    )
    assert shown == ["wave", "hug", "none", "wave"]


def test_a_perfect_answer_scores_one_and_a_shifted_one_less() -> None:
    truth = [Segment(0, 3, "walk"), Segment(4, 7, "hug"), Segment(7, 10, "none")]
    perfect = composite.scores_of([prediction(0, 3, "walk", 1), prediction(4, 7, "hug", 1, 2)], truth)
    assert (perfect["frame_accuracy"], perfect["f1@0.5"], perfect["mean_class_f1@0.25"]) == (1.0, 1.0, 1.0)
    late = composite.scores_of([prediction(1.6, 3, "walk", 1), prediction(4, 7, "kick", 1, 2)], truth)
    assert late["frame_accuracy"] == pytest.approx((1.4 + 1 + 3) / 10, abs=0.02)
    assert late["f1@0.25_by_class"] == {"hug": 0.0, "walk": 1.0}, "an overlap of 47 %"
    assert late["f1@0.5_by_class"] == {"hug": 0.0, "walk": 0.0}
    assert late["f1@0.25"] == 0.5


def test_a_true_segment_is_found_once_only() -> None:
    truth = [Segment(0, 4, "walk")]
    found = [Segment(0, 2.2, "walk"), Segment(2.2, 4, "walk")]
    assert composite.matches(found, truth, 0.25) == 1
    assert composite.f1(1, 2, 1) == pytest.approx(2 / 3)


def test_falls_are_counted_by_when_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text(
        "path,subject,class,start_s,stop_s\n"
        "a.mp4,1,Standing,0,2\na.mp4,1,Falling (BW),2,5\n"
        "b.mp4,1,Fall (FW),1,4\nc.mp4,1,Walking,0,9\nd.mp4,2,Sitting,0,3\n"
    )
    results = [
        {"source": "a.mp4", "error": None, "predictions": [prediction(2.9, 6, "fall", 1)]},
        {"source": "b.mp4", "error": None, "predictions": [prediction(2.5, 4, "fall", 1)]},
        {"source": "c.mp4", "error": None, "predictions": [prediction(3, 4, "falling down", 1)]},
    ]
    (tmp_path / "told.json").write_text(json.dumps({"results": results}))
    said = run("falls", tmp_path, "--subject", "1", "--json", tmp_path / "told.json")
    assert said.output.splitlines()[-1] == (
        "1 of 2 falls told within 1 s; 1 false ones; 0 of 1 videos without a fall have none"
    )
