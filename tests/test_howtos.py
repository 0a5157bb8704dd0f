"""The README's how-tos for long videos, on drawn people: falls, exercises, sport."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_people
import numpy as np
import pytest
from click.testing import CliRunner, Result
from drawn_people import JOINT, MOTIONS, STAND, Person, Pose, Scene
from stand_ins import DrawnPoses, Film, classifier_file, film

from skelact import pipeline
from skelact.classifier import Classifier
from skelact.cli import main
from skelact.structures import Array
from skelact.subtitles import clock

FPS = 15.0
SIZE = (320, 180)
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


CLASSES = ("fall", "serve", "squat", "stand")


def looks_like(self: Classifier, samples: Sequence[Any], img_shape: Any, num_clips: int) -> Array:
    """Stands for a trained network: for how much of a clip people lie, have a hand above the shoulders, or crouch."""

    def height(keypoint: Array, joint: str) -> Array:
        return -(keypoint[..., JOINT[f"left_{joint}"], 1] + keypoint[..., JOINT[f"right_{joint}"], 1]) / 2

    rows = []
    for keypoint, _ in samples:
        first = keypoint[0]  # (T, V, 2)
        trunk = first[:, [JOINT["left_shoulder"]]] - first[:, [JOINT["left_hip"]]]
        lies = np.abs(trunk[..., 0]) > np.abs(trunk[..., 1])
        highest = -first[:, [JOINT["left_wrist"], JOINT["right_wrist"]], 1].min(axis=1)
        serves = highest > height(first, "shoulder")
        thigh, shin = height(first, "hip") - height(first, "knee"), height(first, "knee") - height(first, "ankle")
        lies = lies[:, 0]
        shares = np.array([lies.mean(), (serves & ~lies).mean(), ((thigh < 0.6 * shin) & ~lies).mean()])
        shares = np.minimum(2 * shares, 1)
        rows.append(np.append(shares, max(1 - shares.sum(), 0.05)))
    scores = np.array(rows)[:, self.scored]
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Classifier, "scores_of", looks_like)
    return classifier_file(tmp_path / "small.safetensors", CLASSES)


def readme_commands(start: str) -> list[list[str]]:
    """The commands of the how-to with that beginning, as they stand in the README."""
    block = re.search(re.escape(start) + r".*?```sh\n(.*?)```", README, re.DOTALL)
    assert block, start
    return [shlex.split(line) for line in block[1].splitlines()]


def run(command: list[str], model: Path) -> Result:
    """One of the README's commands with another model."""
    program, *words = command
    assert program == "skelact"
    words = [str(model) if word.startswith("runs/") else word for word in words]
    result = CliRunner().invoke(main, words, prog_name="skelact")
    assert result.exit_code == 0, result.output
    return result


def play(monkeypatch: pytest.MonkeyPatch, path: Path, scene: Scene, seconds: float) -> Film:
    """Make a video that the stand-in for the pose model knows."""
    made = film(path, scene, seconds, FPS, SIZE)
    monkeypatch.setattr(pipeline, "PoseModel", DrawnPoses([made]).load)
    monkeypatch.chdir(path.parent)
    return made


def test_a_fall_alarm(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two fall after six seconds, one of them outside the ward."""
    figure = drawn_people.Figure.random(np.random.default_rng(50))
    falls = MOTIONS["fall"].motion
    inside = Person(falls, x=0.3, height=0.6, yaw=80, offset_s=-5.5, figure=figure)
    outside = replace(inside, x=0.75, y=0.5, height=0.4)
    play(monkeypatch, tmp_path / "ward.mp4", Scene((outside, inside), "room", 3), 12.0)
    predict, grep = readme_commands("**A fall alarm.**")
    run(predict, model)
    lines = [line for line in Path("ward.csv").read_text().splitlines() if re.search(grep[1], line)]
    (alarm,) = csv.reader(lines)
    assert alarm[0] == "ward.mp4"
    assert float(alarm[1]) == pytest.approx(6.0, abs=1.0)
    assert alarm[-1] == "fall"
    assert Path("ward_overlay.mp4").exists()


def test_counting_exercises(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four squats of somebody who rests for a second after each."""

    def works_out(time_s: float) -> Pose:
        turn, since = divmod(time_s - 1.0, 3.0)
        return MOTIONS["squat"].motion(since) if 0 <= turn < 4 and since < 2 else STAND

    athlete = Person(works_out, yaw=55, figure=drawn_people.Figure.random(np.random.default_rng(51)))
    play(monkeypatch, tmp_path / "workout.mp4", Scene((athlete,), "room", 4), 14.0)
    predict, grep = readme_commands("**Counting exercises.**")
    run(predict, model)
    assert grep[:2] == ["grep", "-c"]
    squats = [line for line in Path("workout.csv").read_text().splitlines() if re.search(grep[2], line)]
    assert len(squats) == 4
    starts = [float(row[1]) for row in csv.reader(squats)]
    assert starts == pytest.approx([1.2, 4.2, 7.2, 10.2], abs=0.5)


def test_sports_video(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody on the court serves twice, while somebody beside it throws all the time."""

    def plays(time_s: float) -> Pose:
        since = next((time_s - start_s for start_s in (4.0, 10.0) if 0 <= time_s - start_s < 1.6), None)
        return STAND if since is None else MOTIONS["throw"].motion(since)

    player = Person(plays, x=0.5, yaw=65, figure=drawn_people.Figure.random(np.random.default_rng(52)))
    spectator = Person(MOTIONS["throw"].motion, x=0.12, y=0.6, height=0.4, yaw=65)
    play(monkeypatch, tmp_path / "match.mp4", Scene((spectator, player), "room", 5), 14.0)
    predict, report = readme_commands("**Sports video.**")
    at = predict.index("--roi") + 1
    corners = np.array([[float(part) for part in corner.split(",")] for corner in predict[at].split()])
    predict[at] = " ".join(f"{x:.0f},{y:.0f}" for x, y in corners / 4)  # the README's picture is four times as large
    predict[predict.index("--classes") + 1] = "serve,stand"
    run(predict, model)
    run(report, model)
    (result,) = json.loads(Path("match.json").read_text())["results"]
    serves = [found for found in result["predictions"] if found["class_name"] == "serve"]
    assert {tuple(found["track_ids"]) for found in result["predictions"]} == {tuple(serves[0]["track_ids"])}, "one"
    assert [found["start_s"] for found in serves] == pytest.approx([4.0, 10.0], abs=1.0)
    cues = Path("match.vtt").read_text()
    assert cues.count("serve") == 2
    assert f"{clock(serves[1]['start_s'])} --> " in cues
    page = Path("match.html").read_text()
    assert 'src="match.mp4"' in page
    assert page.count('data-said="Person') == len(result["predictions"])
