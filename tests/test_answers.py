"""One answer, one for each person, or segments in time: from videos to files, with networks of random weights."""

from __future__ import annotations

import csv
import itertools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import drawn_people
import numpy as np
import pytest
from click.testing import CliRunner, Result
from drawn_people import MOTIONS, Person, Scene
from stand_ins import CLASSES, DrawnPoses, Film, classifier_file, film
from test_pipeline import annotation, pickled

from skelact import pipeline
from skelact.answers import predict_sequence
from skelact.classifier import Classifier
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.pipeline import predict
from skelact.structures import PoseSequence, SourceResult, Track, VideoInfo
from skelact.video import probe_video, read_frames

FPS = 10.0
jsonschema = pytest.importorskip("jsonschema", reason="one of skelact's dev dependencies")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Film]:
    folder = tmp_path_factory.mktemp("films")
    stand, wave = MOTIONS["stand"].motion, MOTIONS["wave"].motion
    row = Scene((Person(wave, x=0.2, height=0.6), Person(stand, x=0.36, height=0.6), Person(stand, x=0.9, height=0.6)))
    scenes = {
        "long": (row, 12.0),
        "short": (drawn_people.scene_of("shake_hands", seed=2), 3.0),
        "nobody": (drawn_people.nobody(seed=3), 11.0),
    }
    return {name: film(folder / f"{name}.mp4", scene, seconds, FPS) for name, (scene, seconds) in scenes.items()}


@pytest.fixture(autouse=True)
def drawn(films: dict[str, Film], monkeypatch: pytest.MonkeyPatch) -> DrawnPoses:
    stand_in = DrawnPoses(list(films.values()))
    monkeypatch.setattr(pipeline, "PoseModel", stand_in.load)
    return stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("model") / "small.safetensors")


def skelact_with(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="skelact")


def result_of(source: Path, model: Path, **options: Any) -> SourceResult:
    (result,) = predict(source, model, **{"clips": 1, "progress": False, "device": "cpu", **options}).results
    assert result.error is None
    return result


def check_schema(content: Any) -> None:
    schema = json.loads((resources.files("skelact") / "schema" / "predict-1.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(content)


def subjects(result: SourceResult) -> set[tuple[int, ...]]:
    return {prediction.track_ids for prediction in result.predictions}


# --- granularity -------------------------------------------------------------------------------------------------


def test_auto_goes_by_duration_and_says_what_it_chose(films: dict[str, Film], model: Path) -> None:
    short, long = (result_of(films[name].path, model) for name in ("short", "long"))
    assert (short.granularity, len(short.predictions), short.timelines) == ("clip", 1, ())
    assert long.granularity == "timeline"
    assert subjects(long) == {(1,), (2,), (3,), (1, 2)}
    said = skelact_with("predict", films["long"].path, "--model", model, "--classes", "wave;walk")
    assert f"{films['long'].path}: 12.0 s, longer than 10 s: a timeline (--granularity chooses)\n" in said.stderr
    assert "0.00-12.00 s" in said.stdout
    assert "persons 1, 2: wa" in said.stdout
    assert result_of(films["short"].path, model, window_s=1.0).granularity == "timeline", "as with --window"
    asked = skelact_with("predict", films["short"].path, "--model", model, "--granularity", "timeline")
    assert (asked.exit_code, asked.stderr) == (0, "")
    assert "person 1: " in asked.stdout


def test_one_answer_for_each_person(films: dict[str, Film], model: Path) -> None:
    result = result_of(films["long"].path, model, granularity="person", clips=10)
    assert [prediction.track_ids for prediction in result.predictions] == [
        (track.track_id,) for track in result.sequence.tracks
    ]
    for prediction in result.predictions:
        assert (prediction.start_s, prediction.stop_s) == (pytest.approx(0.0), pytest.approx(12.0, abs=0.01))
    waver, *_ = sorted(result.predictions, key=lambda prediction: prediction.track_ids)
    assert np.ptp([prediction.scores[0] for prediction in result.predictions]) > 0.01
    assert waver.scores.sum() == pytest.approx(1)


def test_who_comes_late_is_judged_by_what_they_did_then(model: Path) -> None:
    """And not by the time before, in which nobody was there."""
    keypoint = np.random.default_rng(0).normal(0, 20, (30, 17, 2)).cumsum(axis=0).astype(np.float32) + 300
    classifier = Classifier([model], device="cpu")
    answers = []
    for start in (0, 50):
        times = np.arange(start + 30) / FPS
        track = Track(1, start, times[start:], keypoint, np.ones((30, 17), np.float32))
        sequence = PoseSequence(VideoInfo("a.mp4", (600, 600), FPS, 0), (track,), len(times), "coco", times)
        (prediction,) = predict_sequence(sequence, classifier, clips=1, granularity="person").predictions
        assert (prediction.start_s, prediction.stop_s) == pytest.approx((start / FPS, start / FPS + 3))
        answers.append(prediction.scores)
    np.testing.assert_allclose(*answers, atol=1e-6)


def test_a_timeline_covers_everybodys_time_without_holes(films: dict[str, Film], model: Path) -> None:
    result = result_of(films["long"].path, model, step_s=1.0, window_s=(1.0, 2.0))
    for who in subjects(result):
        own = [prediction for prediction in result.predictions if prediction.track_ids == who]
        assert (own[0].start_s, own[-1].stop_s) == (0.0, pytest.approx(12.0, abs=0.01))
        assert all(a.stop_s == b.start_s for a, b in itertools.pairwise(own))
        assert all(a.class_name != b.class_name for a, b in itertools.pairwise(own))
    assert {timeline.track_ids: timeline.scores.shape for timeline in result.timelines} == {
        who: (12, len(CLASSES)) for who in subjects(result)
    }


def test_windows_are_as_long_as_the_clips_that_were_trained_on(
    films: dict[str, Film], tmp_path: Path, model: Path
) -> None:
    def window_of(path: Path, **options: Any) -> list[float]:
        settings = predict(films["short"].path, path, progress=False, **options).settings
        return list(settings["timeline"]["window_s"])

    assert window_of(model) == [2.0], "where the checkpoint does not tell"
    for clip_s, expected in ((2.6, 2.6), (0.3, 1.0), (60, 4.0), ("long", 2.0)):
        told = classifier_file(tmp_path / "told.safetensors", provenance={"clip_s": clip_s})
        assert window_of(told) == [expected]
    assert window_of(told, window_s=[3.0, 1.5]) == [3.0, 1.5]


def test_nobody_for_long_is_an_empty_timeline_and_no_error(films: dict[str, Film], model: Path) -> None:
    result = result_of(films["nobody"].path, model)
    assert (result.granularity, result.predictions, result.timelines) == ("timeline", (), ())
    assert "expected people, found nobody in 110 frames" in result.warnings[-1]
    said = skelact_with("predict", films["nobody"].path, "--model", model, "--granularity", "person")
    assert said.exit_code == 1
    assert "found nobody" in said.stderr


def test_a_pickle_has_a_timeline_too(tmp_path: Path, model: Path) -> None:
    path = pickled(tmp_path / "poses.pkl", annotation("a", (2, 400, 17, 2), fps=30))
    result = result_of(path, model)
    assert result.granularity == "timeline"
    assert {(1,), (2,)} <= subjects(result)


def test_below_the_threshold_everything_is_unknown(films: dict[str, Film], model: Path) -> None:
    result = result_of(films["long"].path, model, unknown_below=1.0)
    assert {prediction.class_name for prediction in result.predictions} == {"unknown"}
    assert len(result.predictions) == len(subjects(result)), "one segment each"


def test_what_is_no_granularity_is_told(films: dict[str, Film], model: Path) -> None:
    with pytest.raises(SkelactError, match="granularity: expected one of auto, clip, person, timeline, found 'day'"):
        predict(films["short"].path, model, granularity="day", progress=False)
    said = skelact_with("predict", films["short"].path, "--model", model, "--window", "2,0")
    assert said.exit_code == 2
    assert "Invalid value for '--window': 0.0 is not in the range x>0." in said.stderr


# --- regions, faces ----------------------------------------------------------------------------------------------


def test_only_people_in_a_region_count(films: dict[str, Film], model: Path) -> None:
    right = "0.7,0 1,0 1,1 0.7,1"
    assert subjects(result_of(films["long"].path, model, regions=[right])) == {(3,)}
    said = skelact_with(
        *("predict", films["long"].path, "--model", model, "--json", "-", "--roi", right),
        *("--roi", "0,0 32,0 32,180 0,180"),
    )
    content = json.loads(said.stdout)
    check_schema(content)
    assert {track["track_id"] for track in content["results"][0]["tracks"]} == {3}
    assert content["settings"]["regions"][1][2] == [32, 180]
    wrong = skelact_with("predict", films["long"].path, "--roi", "1,2 3,4")
    assert wrong.exit_code == 2
    assert "three corners or more" in wrong.stderr


def test_faces_outside_a_region_are_hidden_too(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    """Nobody in the region: nothing is drawn, and yet no face is left."""
    out = tmp_path / "out.mp4"
    result_of(
        films["long"].path,
        model,
        regions=["0.45,0 0.55,0 0.55,0.1 0.45,0.1"],
        out_video=out,
        blur_faces=True,
        granularity="timeline",
    )
    before, after = (next(read_frames(path)).image.astype(int) for path in (films["long"].path, out))
    eyes = films["long"].joints[0][0][:, 1:3].mean(axis=1).round().astype(int)
    for x, y in eyes:
        assert np.abs(before - after)[y - 2 : y + 3, x - 3 : x + 4].max() > 40, "eyes are gone"
    needs = skelact_with("predict", films["long"].path, "--model", model, "--blur-faces")
    assert needs.exit_code == 2
    assert "add --out-video" in needs.stderr


# --- files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outputs(films: dict[str, Film], model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """All files of two videos and one that is missing."""
    folder = tmp_path_factory.mktemp("outputs")
    patch = pytest.MonkeyPatch()
    patch.setattr(pipeline, "PoseModel", DrawnPoses(list(films.values())).load)
    said = skelact_with(
        *("predict", films["long"].path, films["short"].path, folder / "missing.mp4", "--model", model),
        *("--json", folder / "all.json", "--csv", folder / "all.csv", "--out-video", folder / "videos"),
        *("--srt", folder / "srt", "--vtt", folder / "vtt", "--eaf", folder / "eaf", "--clips", "1"),
    )
    patch.undo()
    return folder, said


def test_json_is_as_its_schema_says(outputs: tuple[Path, Result]) -> None:
    content = json.loads((outputs[0] / "all.json").read_text(encoding="utf-8"))
    check_schema(content)
    long, short, missing = content["results"]
    assert (long["granularity"], short["granularity"]) == ("timeline", "clip")
    assert missing["error"].endswith("missing.mp4: no such file; give the path of a video")
    pair = next(prediction for prediction in long["predictions"] if prediction["track_ids"] == [1, 2])
    assert [person["track_id"] for person in pair["people"]] == [1, 2]
    assert len(pair["people"][0]["keypoint"]) == 17
    assert {len(timeline["start_s"]) for timeline in long["timelines"]} == {24}
    for timeline in long["timelines"]:
        assert all(len(scores) == 24 for scores in timeline["scores"].values())
        assert set(timeline["scores"]) <= set(content["class_names"])


def test_a_schema_that_accepted_anything_would_prove_nothing(outputs: tuple[Path, Result]) -> None:
    content = json.loads((outputs[0] / "all.json").read_text(encoding="utf-8"))
    content["results"][0]["predictions"][0]["score"] = 1.5
    with pytest.raises(jsonschema.ValidationError, match=r"1\.5 is greater than the maximum of 1"):
        check_schema(content)
    del content["results"][0]["predictions"]
    with pytest.raises(jsonschema.ValidationError, match="'predictions' is a required property"):
        check_schema(content)


def test_csv_has_a_row_for_each_segment(outputs: tuple[Path, Result], films: dict[str, Film]) -> None:
    with (outputs[0] / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    segments = [row for row in rows if row["source"] == str(films["long"].path)]
    content = json.loads((outputs[0] / "all.json").read_text(encoding="utf-8"))
    assert [(row["track_ids"], row["answer"]) for row in segments] == [
        (" ".join(map(str, found["track_ids"])), found["class_name"]) for found in content["results"][0]["predictions"]
    ]
    assert {row["rank"] for row in segments} == {"1"}
    assert sum(row["source"] == str(films["short"].path) for row in rows) == 4, "the best classes of a clip"


def test_each_source_has_its_subtitles_annotations_and_video(outputs: tuple[Path, Result]) -> None:
    folder, said = outputs
    assert said.exit_code == 1, "one is missing"
    for kind, name in (("srt", "srt"), ("vtt", "vtt"), ("eaf", "eaf"), ("videos", "mp4")):
        assert sorted(path.name for path in (folder / kind).iterdir()) == [f"long.{name}", f"short.{name}"]
    assert "Persons 1, 2: " in (folder / "srt" / "long.srt").read_text(encoding="utf-8")
    assert (folder / "vtt" / "long.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n")
    assert 'TIER_ID="Persons 1, 2"' in (folder / "eaf" / "long.eaf").read_text(encoding="utf-8")
    long, short = (probe_video(folder / "videos" / f"{name}.mp4").img_shape for name in ("long", "short"))
    assert short == (180, 320)
    assert long[0] > 180, "a timeline under the picture"


def test_a_source_whose_subtitles_are_gone_is_done_again(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    def run(source: Path, num_samples: int) -> int:
        done: list[SourceResult] = []
        options: dict[str, Any] = {"json_dir": tmp_path, "srt": tmp_path / "a.srt", "clips": 1, "progress": False}
        answers = predict(source, model, **options, on_result=done.append)
        assert len(answers.results) == num_samples, "with what was answered before"
        return len(done)

    two = pickled(tmp_path / "two.pkl", annotation("a"), annotation("b"))
    for source, num_samples, gone in ((films["short"].path, 1, "a.srt"), (two, 2, "a/0001_b.srt")):
        assert (run(source, num_samples), run(source, num_samples)) == (num_samples, 0)
        (tmp_path / gone).unlink()
        assert (run(source, num_samples), run(source, num_samples)) == (num_samples, 0)


def test_two_outputs_cannot_be_one_file(films: dict[str, Film], tmp_path: Path) -> None:
    said = skelact_with("predict", films["short"].path, "--srt", tmp_path / "a", "--vtt", tmp_path / "a")
    assert said.exit_code == 2
    assert "expected a path of its own for each" in said.stderr


def test_what_is_longer_than_the_clips_of_training_is_looked_at_in_windows_too(tmp_path: Path) -> None:
    keypoint = np.random.default_rng(0).normal(0, 20, (1, 60, 17, 2)).cumsum(axis=1) + 500
    sample = annotation("a", keypoint=keypoint, keypoint_score=np.ones((1, 60, 17)), fps=20.0)
    data = pickled(tmp_path / "one.pkl", sample)
    short = classifier_file(tmp_path / "short.safetensors", provenance={"clip_s": 0.8})
    untold = classifier_file(tmp_path / "untold.safetensors")

    def scores(model: Path) -> Any:
        return predict(data, model, clips=1, progress=False, granularity="clip").results[0].predictions[0].scores

    classifier = Classifier([untold], device="cpu")
    parts = [keypoint[:, start : start + 20] for start in (0, 10, 20, 30, 40)]  # a second each, 1.25 times 0.8 s
    of_windows = [classifier.scores(part, np.ones(part.shape[:3]), (1080, 1920), 1) for part in parts]
    whole = classifier.scores(keypoint, np.ones((1, 60, 17)), (1080, 1920), 1)
    assert np.allclose(scores(untold), whole, atol=1e-6)
    assert np.allclose(scores(short), (whole + np.mean(of_windows, axis=0)) / 2, atol=1e-6)
    assert not np.allclose(scores(short), whole, atol=1e-5)
