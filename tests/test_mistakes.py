"""Slips of the hand at the command line, and odd files: none costs a file, a traceback or hours of work."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_people
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from stand_ins import CLASSES, DrawnPoses, Film, classifier_file, film

import skelact
from skelact import extract, pipeline
from skelact.annotations import AnnotationSet, load_annotations, save_annotations
from skelact.checkpoint import load_checkpoint
from skelact.classifier import Classifier, find_class
from skelact.cli import _print_result, main
from skelact.errors import SkelactError
from skelact.pose import _told_clearly
from skelact.recipes import TrainSettings
from skelact.skeleton import load_layout
from skelact.structures import Prediction, SourceResult
from skelact.training import prepare

Pickle = Callable[..., Path]


def skelact_with(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="skelact")


def one_line(result: Result, *told: str) -> None:
    """It failed with one line that tells so much."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 1, result.output
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for text in told:
        assert text in lines[0]


def test_names_of_classes_command_no_terminal_and_need_no_letters(dataset: Pickle, tmp_path: Path) -> None:
    names = ("\x1b[31mred", "走", *(f"class {k}" for k in range(len(CLASSES) - 2)))
    model = classifier_file(tmp_path / "m.safetensors", class_names=names)
    run = [sys.executable, "-m", "skelact", "predict", str(dataset()), "--model", str(model), "--granularity", "clip"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(run, env=environment, capture_output=True, check=True)
    assert b"\\u001b[31mred" in done.stdout
    assert b"\\u8d70" in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.fixture
def dataset(tmp_path: Path) -> Pickle:
    """Writes small datasets; options change the whole, or the samples."""

    def write(
        name: str = "data.pkl", labels: tuple[Any, ...] = (0, 1, 0, 1), extra: dict[str, Any] | None = None, **more: Any
    ) -> Path:
        keypoint = np.random.default_rng(0).normal(0, 20, (len(labels), 1, 40, 17, 2)).cumsum(axis=2) + 500
        samples = [
            {"frame_dir": f"s{k}", "keypoint": keypoint[k], "keypoint_score": np.ones((1, 40, 17)), "label": label}
            | {"img_shape": (1080, 1920), **(extra or {})}
            for k, label in enumerate(labels)
        ]
        names = [sample["frame_dir"] for sample in samples]
        content = {"annotations": samples, "split": {"train": names[:2], "val": names[2:]}, **more}
        path = tmp_path / name
        path.write_bytes(pickle.dumps(content))
        return path

    return write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("model") / "small.safetensors", ("wave", "walk"))


# --- an output that names its source -----------------------------------------------------------------------------


COMMANDS = {
    "info, JSON": "info {data} --json {data}",
    "info, picture": "info {data} --show 0 --out {data}",
    "info of a model": "info {model} --json {model}",
    "test": "test {data} --model {model} --json {data}",
    "test, the model": "test {data} --model {model} --dump {model}",
    "fuse": "fuse {dump} --json {dump}",
    "fuse, the labels": "fuse {dump} --labels {data} --json {data}",
    "export": "export {model} --format torchscript --out {folder}/m.torchscript --json {model}",
    "predict": "predict {data} --model {model} --json {data}",
    "predict, the model": "predict {data} --model {model} --json {model}",
    "predict, the overlay": "predict {data} --model {model} --out-video {model}",
    "convert": "convert {data} --window 1 --out {data}",
    "convert, the labels": "convert {data} --labels {labels} --out {labels}",
    "convert, the list": "convert {data} --exclude {labels} --out {labels}",
    "merge": "merge {data} {other} --out {other}",
    "extract-poses": "extract-poses {video} --out {video}",
    "extract-poses, the labels": "extract-poses {video} --labels {labels} --out {labels}",
    "report": "report {result} --out {video}",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_output_replaces_what_it_is_made_from(command: str, dataset: Pickle, model: Path, tmp_path: Path) -> None:
    scores = [{"pred_score": torch.tensor([0.6, 0.4]), "gt_label": torch.tensor([k % 2])} for k in range(4)]
    files = {
        "data": dataset(),
        "other": dataset("other.pkl"),
        "model": Path(shutil.copy(model, tmp_path)),
        "dump": tmp_path / "dump.pkl",
        "labels": tmp_path / "labels.csv",
        "video": tmp_path / "video.mp4",
        "result": tmp_path / "result.json",
    }
    files["dump"].write_bytes(pickle.dumps(scores))
    files["labels"].write_text("s0,wave\ns1,walk\nvideo.mp4,wave\n")
    drawn_people.save_video(files["video"], drawn_people.scene_of("wave"), 0.4, 10, (160, 90))
    content = {"source": str(files["video"]), "error": "none", "warnings": []}
    rest = {"class_names": [], "models": [], "versions": {"skelact": "0"}, "results": [content]}
    files["result"].write_text(json.dumps({"schema_version": 1, **rest}))
    before = {name: path.read_bytes() for name, path in files.items()}
    one_line(skelact_with(*command.format(**files, folder=tmp_path).split()), "would replace its source")
    assert {name: path.read_bytes() for name, path in files.items()} == before


# --- work that would be lost -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["test {data} --model {model} --plot p.foo", "info {data} --plot {folder}/p.pkl"])
def test_a_picture_of_no_known_kind_is_refused_before_the_work(
    command: str, dataset: Pickle, model: Path, tmp_path: Path
) -> None:
    arguments = command.format(data=dataset(), model=model, folder=tmp_path).split()
    one_line(skelact_with(*arguments), "expected a picture's name", ".png")


def test_a_mistyped_video_leaves_no_folder_where_the_overlay_was_to_be(model: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "o.mp4"
    result = skelact_with("predict", tmp_path / "typo.mp4", "--model", model, "--out-video", overlay)
    one_line(result, "typo.mp4")
    assert not overlay.exists()


def test_labels_of_the_validation_split_are_checked_before_training(dataset: Pickle, tmp_path: Path) -> None:
    data = dataset(labels=(0, 1, 0, 5))
    out = tmp_path / "run"
    one_line(skelact_with("train", data, "--out", out), "s3", "split val", "0..1", "5")
    assert not out.exists()


def test_a_run_that_broke_in_its_first_epoch_does_not_block_its_folder(dataset: Pickle, tmp_path: Path) -> None:
    run = ("train", dataset(), "--out", tmp_path / "run", "--epochs", 1, "--repeat", 1, "--batch-size", 2)
    run = (*run, "--width", 8, "--clip-len", 16, "--device", "cpu", "--warmup-epochs", 0, "--amp")
    broken = skelact_with(*run, "--lr", "1e9")
    one_line(broken, "take a smaller --lr")
    assert "whole epoch" not in broken.stderr
    again = skelact_with(*run, "--lr", "0.01")
    assert again.exit_code == 0, again.output
    one_line(skelact_with(*run, "--lr", "0.01"), "holds a run already")


@pytest.mark.parametrize("label", [10**9, 1 << 40])
def test_a_label_that_can_be_no_class_is_refused(label: int, dataset: Pickle, tmp_path: Path) -> None:
    data = dataset(labels=(0, 1, 0, label))
    one_line(skelact_with("train", data, "--out", tmp_path / "run"), "s3", "label", str(label))
    table = tmp_path / "labels.csv"
    table.write_text(f"s0,0\ns1,{label}\n")
    one_line(skelact_with("convert", dataset(), "--labels", table, "--out", tmp_path / "o.pkl"), str(label))


@pytest.mark.parametrize(
    "arguments",
    [
        "convert {data} --window nan",
        "convert {data} --window inf",
        "convert {data} --fps nan",
        "train {data} --lr nan",
        "train {data} --seed -1",
        "train {data} --seed 99999999999999999999",
        "extract-poses {data} --seed -1",
        "info {data} --stream bone",
        "predict {data} --ray-address x",
        "live {data} --classes ,",
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(arguments: str, dataset: Pickle, tmp_path: Path) -> None:
    extra = [] if arguments.split()[0] in ("info", "predict", "live") else ["--out", tmp_path / "out"]
    result = skelact_with(*arguments.format(data=dataset()).split(), *extra)
    assert result.exit_code == 2
    assert arguments.split()[2] in result.stderr


# --- odd datasets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", ["abc", float("nan"), -3])
def test_a_frame_rate_that_is_none_counts_as_not_told(fps: Any, dataset: Pickle, tmp_path: Path) -> None:
    data, out = dataset(extra={"fps": fps}), tmp_path / "windows.pkl"
    assert skelact_with("convert", data, "--window", 1, "--out", out).exit_code == 0
    assert {sample.keypoint.shape[1] for sample in load_annotations(out).annotations} == {30}
    told = skelact_with("info", data, "--json", "-")
    assert json.loads(told.stdout)["dataset"]["fps"] == []


@pytest.mark.parametrize(("field", "value"), [("provenance", "text"), ("class_names", "walk")])
def test_a_dataset_whose_fields_are_of_another_kind_is_refused(field: str, value: Any, dataset: Pickle) -> None:
    one_line(skelact_with("info", dataset(**{field: value})), "data.pkl", field)


def test_info_takes_the_layout_that_it_asks_for(dataset: Pickle, tmp_path: Path) -> None:
    layout = tmp_path / "five.json"
    five = {"name": "five", "joints": list("abcde"), "edges": [[1, 0], [2, 0], [3, 0], [4, 0]]}
    layout.write_text(json.dumps(five), encoding="utf-8-sig")
    data = dataset()
    content = pickle.loads(data.read_bytes())
    for sample in content["annotations"]:
        sample["keypoint"], sample["keypoint_score"] = sample["keypoint"][:, :, :5], sample["keypoint_score"][..., :5]
    data.write_bytes(pickle.dumps(content))
    assert "layout of 5 joints is not known" in " ".join(skelact_with("info", data).stdout.split())
    told = skelact_with("info", data, "--layout", layout)
    assert told.exit_code == 0, told.output
    assert "five (5 joints" in told.stdout
    assert "not known" not in told.stdout


def test_samples_are_left_out_by_their_whole_names(dataset: Pickle, tmp_path: Path) -> None:
    data = dataset()
    content = pickle.loads(data.read_bytes())
    for sample, name in zip(content["annotations"], ("a/b.c", "v1.5_walk", "S001", "k"), strict=True):
        sample["frame_dir"] = name
    data.write_bytes(pickle.dumps({**content, "split": {}}))
    names, out = tmp_path / "names.txt", tmp_path / "o.pkl"
    names.write_text("a/b.c\nv1.5_walk\nskeletons/S001.skeleton\n")
    assert skelact_with("convert", data, "--exclude", names, "--out", out).exit_code == 0
    assert [sample.frame_dir for sample in load_annotations(out).annotations] == ["k"]


def test_a_name_in_a_file_sends_no_commands_to_the_terminal(model: Path, dataset: Pickle) -> None:
    data = dataset()
    content = pickle.loads(data.read_bytes())
    data.write_bytes(pickle.dumps({**content, "split": {"title\x1b]0;": ["s0", "bell\x07"]}}))
    told = skelact_with("info", data).output
    assert r"title\u001b]0;" in told
    assert not {"\x1b", "\x07"} & set(told)
    content["annotations"][0] |= {"frame_dir": "red\x1b[31m", "label": "no number"}
    data.write_bytes(pickle.dumps(content))
    result = skelact_with("test", data, "--model", model)
    one_line(result, r"red\u001b[31m")
    assert "\x1b" not in result.output


def test_a_name_with_a_line_break_stays_on_its_line(model: Path, dataset: Pickle) -> None:
    data = dataset(class_names=["wa\nve", "walk"])
    content = pickle.loads(data.read_bytes())
    content["annotations"][0]["frame_dir"] = "0\r\nError: all is lost"
    data.write_bytes(pickle.dumps({**content, "split": {}}))
    assert r"wa\u000ave" in skelact_with("info", data).output
    told = skelact_with("predict", data, "--model", model, "--granularity", "clip").output
    assert rf"{data}#0\u000d\u000aError: all is lost" in told.splitlines()


# --- models ------------------------------------------------------------------------------------------------------


def test_the_default_model_is_exported_stream_by_stream() -> None:
    one_line(skelact_with("export", "skelact-daily", "--format", "torchscript"), "skelact-daily-joint", "each stream")


def test_the_list_of_models_goes_into_a_new_folder_too(tmp_path: Path) -> None:
    out = tmp_path / "new" / "list.json"
    assert skelact_with("weights", "list", "--json", out).exit_code == 0
    assert "skelact-daily" in {row["name"] for row in json.loads(out.read_text())["models"]}


def test_a_name_that_is_none_is_told_beside_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELACT_OFFLINE", "1")
    one_line(skelact_with("weights", "fetch", "all", "nosuch"), "nosuch")


# --- videos ------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DrawnPoses:
    """Two videos of the same name, ``walk/x.mp4`` and ``wave/x.mp4``, of the same size and time."""
    films = [film(tmp_path / "videos" / name / "x.mp4", drawn_people.scene_of(name), 0.6) for name in ("walk", "wave")]
    size = max(one.path.stat().st_size for one in films)
    for one in films:
        with one.path.open("ab") as file:
            file.write(b"\0" * (size - one.path.stat().st_size))
        shutil.copystat(films[0].path, one.path)
    stand_in = DrawnPoses(films)
    monkeypatch.setattr(pipeline, "PoseModel", stand_in.load)
    monkeypatch.setattr(extract, "choose_pose_model", lambda name: (str(name), None))
    monkeypatch.setattr(extract, "_estimator", lambda *settings: stand_in)
    stand_in.device = "cpu"  # type: ignore[attr-defined]
    return stand_in


def test_videos_of_one_name_size_and_time_keep_their_own_poses(drawn: DrawnPoses, tmp_path: Path) -> None:
    skelact_with("extract-poses", tmp_path / "videos", "--out", tmp_path / "o.pkl", "--workers", 1)
    walk, wave = load_annotations(tmp_path / "o.pkl").annotations
    assert not np.array_equal(walk.keypoint, wave.keypoint)


def test_damaged_kept_poses_are_told_and_made_anew(drawn: DrawnPoses, tmp_path: Path) -> None:
    command = ("extract-poses", tmp_path / "videos", "--out", tmp_path / "o.pkl", "--workers", 1)
    assert skelact_with(*command).exit_code == 0
    kept = next((tmp_path / "o.pkl.work").glob("*.npz"))
    kept.write_bytes(kept.read_bytes()[:500])
    one_line(skelact_with(*command), kept.name, "run the same command again")
    assert skelact_with(*command).exit_code == 0


def test_the_page_shows_each_source_its_own_overlay(drawn: DrawnPoses, model: Path, tmp_path: Path) -> None:
    result, page = tmp_path / "r.json", tmp_path / "r.html"
    skelact_with("predict", tmp_path / "videos", "--model", model, "--json", result, "--out-video", tmp_path / "ov")
    (tmp_path / "ov").rename(tmp_path / "moved")
    made = skelact_with("report", result, "--out", page, "--video", tmp_path / "moved")
    assert made.exit_code == 0, made.output
    for name in ("walk", "wave"):
        assert f'src="moved/{name}/x.mp4"' in page.read_text()


def test_a_hash_in_a_video_s_name_makes_it_no_pickle(drawn: DrawnPoses, model: Path, tmp_path: Path) -> None:
    video = tmp_path / "c#1.mp4"
    shutil.copy(drawn.films[0].path, video)
    skelact_with("predict", video, "--model", model, "--json", tmp_path / "c.json")
    skelact_with("report", tmp_path / "c.json", "--out", tmp_path / "c.html")
    assert 'src="c%231.mp4"' in (tmp_path / "c.html").read_text()


def test_results_are_made_anew_where_the_tracker_s_file_changed_and_only_there(
    drawn: DrawnPoses, model: Path, tmp_path: Path
) -> None:
    from ultralytics.utils.checks import check_yaml

    tracker = Path(shutil.copy(check_yaml("bytetrack.yaml"), tmp_path / "own.yaml"))
    command = ("predict", tmp_path / "videos", "--model", model, "--json", f"{tmp_path}/jsons/", "--tracker", tracker)
    assert len(skelact_with(*command, "--pose-model", "drawn").stdout.split("x.mp4")) == 3
    assert skelact_with(*command, "--pose-model", "drawn").stdout == ""
    tracker.write_text(tracker.read_text().replace("track_buffer: 30", "track_buffer: 29"))
    assert len(skelact_with(*command, "--pose-model", "drawn").stdout.split("x.mp4")) == 3


def test_what_auto_chose_is_in_the_json_of_a_folder_too(
    drawn: DrawnPoses, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def load(name: str, *settings: Any, **more: Any) -> DrawnPoses:
        asked.append({"name": name, **more})
        return replace(drawn)

    monkeypatch.setattr(pipeline, "PoseModel", load)
    monkeypatch.setenv("SKELACT_OFFLINE", "1")
    skelact_with("predict", tmp_path / "videos", "--model", model, "--json", f"{tmp_path}/jsons/")
    assert asked[0]["name"] == "skelact-pose"
    assert "offline" in asked[0]["chosen"]


# --- what one file says and another does not ---------------------------------------------------------------------


def predict_into(folder: Path, model: Path, videos: Path, *more: object) -> Result:
    done = skelact_with("predict", videos, "--model", model, "--pose-model", "drawn", "--json", f"{folder}/", *more)
    assert done.exit_code == 0, done.output
    return done


def test_an_answer_unknown_is_told_even_if_a_class_of_that_name_is_among_the_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    top_k = (("fall", 0.4), ("unknown", 0.2))
    prediction = Prediction(0, 1, (1,), "unknown", 0.4, top_k, np.array([0.4, 0.2]), ("fall", "unknown"))
    result = SourceResult("a.mp4", predictions=(prediction,), granularity="clip")
    _print_result(result, sys.stdout, auto=False)
    assert "unknown: no class is likely enough" in capsys.readouterr().out


def test_a_run_that_goes_on_writes_the_whole_csv(
    drawn: DrawnPoses, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, videos = tmp_path / "a.csv", tmp_path / "videos"
    first = predict_into(tmp_path / "jsons", model, videos, "--csv", table)
    whole = table.read_text()
    assert len(whole.splitlines()) == 1 + 2 * 2
    again = predict_into(tmp_path / "jsons", model, videos, "--csv", table)
    assert table.read_text() == whole
    assert first.stdout
    assert not again.stdout
    assert "2 of 2 sources were done before" in caplog.text
    (tmp_path / "jsons" / "walk" / "x.json").unlink()
    predict_into(tmp_path / "jsons", model, videos, "--csv", table)
    assert table.read_text() == whole


def test_a_subtitle_of_another_run_is_not_taken_for_this_one_s(drawn: DrawnPoses, model: Path, tmp_path: Path) -> None:
    videos, subtitles = tmp_path / "videos", tmp_path / "srt"
    predict_into(tmp_path / "one", model, videos, "--classes", "wave", "--srt", subtitles)
    predict_into(tmp_path / "two", model, videos, "--classes", "walk")
    predict_into(tmp_path / "two", model, videos, "--classes", "walk", "--srt", subtitles)
    assert {"walk"} == {line.split(": ")[1] for line in read_all(subtitles).splitlines() if line.startswith("Person")}
    assert predict_into(tmp_path / "two", model, videos, "--classes", "walk", "--srt", subtitles).stdout == ""
    predict_into(tmp_path / "one", model, videos, "--classes", "wave", "--srt", subtitles)
    assert "wave" in read_all(subtitles), "nor one that was written over since"


def read_all(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*.srt")))


def test_the_json_in_a_folder_has_the_command_line_too(drawn: DrawnPoses, model: Path, tmp_path: Path) -> None:
    predict_into(tmp_path / "jsons", model, tmp_path / "videos")
    assert json.loads((tmp_path / "jsons" / "walk" / "x.json").read_text())["command"][0] == "skelact"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_becomes_a_regular_one_in_a_dataset(
    suffix: str, tmp_path: Path, drawn: DrawnPoses, model: Path
) -> None:
    """Half a second at 30 frames/s, a second at 10: somebody walks at an even pace."""
    scene, size = drawn_people.scene_of("walk"), (320, 180)
    times = [k / 30 for k in range(15)] + [0.5 + k / 10 for k in range(10)]
    pictures = list(drawn_people.render(scene, 46, 30, size))
    shown = [pictures[round(time_s * 30)] for time_s in times]
    path = tmp_path / "irregular" / f"a{suffix}"
    path.parent.mkdir()
    drawn_people.write_video(path, (image for image, _, _ in shown), 30, times_s=times)
    drawn.films = [Film(path, [(keypoint, bbox) for _, keypoint, bbox in shown], shown[0][0])]
    made = skelact_with("extract-poses", path.parent, "--out", tmp_path / "o.pkl", "--workers", 1, "--no-clean")
    assert made.exit_code == 0, made.output
    (sample,) = load_annotations(tmp_path / "o.pkl").annotations
    fps, T = sample.extra["fps"], sample.keypoint.shape[1]
    assert (T - 1) / fps == pytest.approx(1.4, abs=1.1 / fps)
    assert sample.keypoint_score is not None
    assert (sample.keypoint_score > 0).all()
    truth = np.array([keypoint[0] for _, keypoint, _ in pictures])[np.round(np.arange(T) / fps * 30).astype(int)]
    assert np.abs(sample.keypoint[0] - truth).mean() < 3, "everybody is where they are at that time"
    answers = skelact.predict([path, tmp_path / "o.pkl"], model, pose_model="drawn", clean=False, progress=False)
    of_video, of_sample = (result.predictions[0].scores for result in answers.results)
    np.testing.assert_allclose(of_video, of_sample, atol=1e-4)


def test_subtitles_of_a_video_that_starts_after_its_sound_are_on_the_file_s_clock(
    drawn: DrawnPoses, model: Path, tmp_path: Path
) -> None:
    scene = drawn_people.scene_of("walk")
    path = tmp_path / "late.mkv"
    pictures = list(drawn_people.render(scene, 9, 15, (320, 180)))
    times = [2 + k / 15 for k in range(9)]
    drawn_people.write_video(path, (image for image, _, _ in pictures), 15, audio="silent", times_s=times)
    drawn.films = [Film(path, [(keypoint, bbox) for _, keypoint, bbox in pictures], pictures[0][0])]
    result, subtitles, page = tmp_path / "r.json", tmp_path / "r.srt", tmp_path / "r.html"
    skelact_with("predict", path, "--model", model, "--json", result, "--srt", subtitles, "--eaf", tmp_path / "r.eaf")
    video = json.loads(result.read_text())["results"][0]["video"]
    assert video["start_s"] == pytest.approx(2, abs=0.03)  # the sound's first packet is some ms early
    assert subtitles.read_text().splitlines()[1].startswith("00:00:02,0")
    assert 'TIME_VALUE="20' in (tmp_path / "r.eaf").read_text()
    assert skelact_with("report", result, "--out", page).exit_code == 0
    assert f'data-offset="{video["start_s"]:.6f}"' in page.read_text()


# --- labels that do not fit --------------------------------------------------------------------------------------


def extracted(tmp_path: Path, table: str) -> Result:
    (tmp_path / "labels.csv").write_text(table)
    return skelact_with(
        *("extract-poses", tmp_path / "videos", "--out", tmp_path / "o.pkl", "--workers", 1),
        *("--labels", tmp_path / "labels.csv"),
    )


@pytest.mark.parametrize(
    ("second_row", "told"),
    [
        ("wave/y.mp4,wave,val", ["no video belongs to 1 of its 2 rows: wave/y.mp4", "1 of 2 samples have no label"]),
        ("wave/x.mp4,wave,", ["but are in none of the splits (train): 1"]),
    ],
    ids=["mistyped path", "no split"],
)
def test_what_a_table_of_labels_leaves_out_is_told(
    second_row: str, told: list[str], drawn: DrawnPoses, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = extracted(tmp_path, f"walk/x.mp4,walk,train\n{second_row}\n")
    assert made.exit_code == 0
    for text in told:
        assert text in caplog.text


def test_two_labels_for_one_video_are_refused(drawn: DrawnPoses, tmp_path: Path) -> None:
    one_line(extracted(tmp_path, "walk/x.mp4,walk,train\nwalk/x.mp4,wave,train\n"), "one row a path", "walk/x.mp4")


def test_samples_that_lose_their_label_are_counted(
    dataset: Pickle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "labels.csv").write_text("s0,wave\n")
    made = skelact_with("convert", dataset(), "--labels", tmp_path / "labels.csv", "--out", tmp_path / "o.pkl")
    assert made.exit_code == 0
    assert "3 of 4 samples have no label" in caplog.text


# --- what fits in shape only -------------------------------------------------------------------------------------


@pytest.fixture
def others_layout(tmp_path: Path) -> Path:
    """A layout with as many joints as COCO's, which are others."""
    joints = [f"h{v}" for v in range(17)]
    content = {"name": "h36m", "joints": joints, "edges": [[v, v - 1] for v in range(1, 17)], "center": 0}
    path = tmp_path / "h36m.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def others_model(others_layout: Path, tmp_path: Path) -> Path:
    return classifier_file(tmp_path / "h36m.safetensors", ("a", "b"), layout=load_layout(others_layout))


def test_a_layout_with_as_many_joints_does_not_pass_for_the_right_one(
    dataset: Pickle, model: Path, others_layout: Path, others_model: Path, drawn: DrawnPoses, tmp_path: Path
) -> None:
    data, coco = dataset("h.pkl", layout="h36m"), dataset("c.pkl", layout="coco")
    one_line(skelact_with("predict", drawn.films[0].path, "--model", others_model), "h36m", "COCO")
    one_line(skelact_with("predict", data, "--model", model), "'coco'", "'h36m'")
    one_line(skelact_with("test", coco, "--model", others_model), "'h36m'", "'coco'")
    train = ("train", data, "--layout", others_layout, "--epochs", 1, "--width", 12, "--batch-size", 2)
    one_line(skelact_with(*train, "--out", tmp_path / "run", "--init", model), "'coco'", "'h36m'")


def test_poses_of_a_layout_of_one_s_own_keep_its_name(dataset: Pickle, others_model: Path, tmp_path: Path) -> None:
    for data in (dataset("told.pkl", layout="h36m"), dataset("untold.pkl")):
        done = skelact_with("predict", data, "--model", others_model, "--json", tmp_path / "r.json")
        assert done.exit_code == 0, done.output
        content = json.loads((tmp_path / "r.json").read_text())
        assert {result["poses"]["layout"] for result in content["results"]} == {"h36m"}


def test_what_is_asked_for_besides_a_start_is_done_or_refused(dataset: Pickle, tmp_path: Path) -> None:
    def run(name: str, *more: object) -> Result:
        options = ("--epochs", 1, "--repeat", 1, "--batch-size", 2, "--clip-len", 8)
        return skelact_with("train", dataset(), "--out", tmp_path / name, *options, *more)

    assert run("start", "--width", 12).exit_code == 0
    start = tmp_path / "start" / "best.safetensors"
    assert run("hidden", "--init", start, "--hide-joints", "nose", "--binary-scores").exit_code == 0
    clips = load_checkpoint(tmp_path / "hidden" / "best.safetensors").clips
    config = json.loads((tmp_path / "hidden" / "config.json").read_text())
    assert (clips.hidden_joints, clips.binary_scores) == (("nose",), True)
    assert (config["width"], config["hidden_joints"], config["binary_scores"]) == (12, ["nose"], True)
    one_line(run("wide", "--init", start, "--width", 16), "12 channels", "found 16")
    one_line(run("four", "--init", start, "--stream", "all"), "stream 'bone'", "found 'joint'")
    assert not (tmp_path / "four").exists(), "before the first stream is trained"
    resumed = run("hidden", "--init", f"{tmp_path}/./start/best.safetensors", *("--hide-joints", "nose"),
                  "--binary-scores", "--resume")  # fmt: skip
    assert resumed.exit_code == 0, resumed.output


def test_what_cannot_be_trained_on_tells_what_can(dataset: Pickle, tmp_path: Path) -> None:
    run = ("train", dataset(), "--out", tmp_path / "run")
    said = skelact_with(*run, "--init", "skelact-daily", "--stream", "joint-motion")
    one_line(said, "expected a checkpoint for stream 'joint-motion', found 'joint' and 'bone'")


def test_merging_two_ways_of_splitting_the_same_is_told(
    dataset: Pickle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"s{k}" for k in range(4)]
    one = dataset("one.pkl", split={"train": names[:2], "val": names[2:]})
    other = dataset("other.pkl", split={"train": names[1:], "val": names[:1]})
    assert skelact_with("merge", one, other, "--out", tmp_path / "o.pkl").exit_code == 0
    assert "split 3 samples differently: they are in both train and val now" in caplog.text


# --- from Python -------------------------------------------------------------------------------------------------


def test_numbers_of_numpy_are_numbers(dataset: Pickle, model: Path, tmp_path: Path) -> None:
    done = skelact.predict(
        *(dataset(), model),
        **{"clips": np.int64(1), "step_s": np.float32(0.25), "stride": np.int64(2), "unknown_below": np.float32(0.1)},
        **{"window_s": np.array([1.0]), "classes": np.array(["wave"]), "json_dir": tmp_path / "jsons"},  # type: ignore[arg-type]
        progress=False,
    )
    assert len(done.results) == 4
    settings = TrainSettings(epochs=np.int64(1), repeat=1, batch_size=np.int64(2), lr=np.float32(0.1), width=12)  # type: ignore[arg-type]
    skelact.train(dataset(), tmp_path / "run", settings, progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -1), ("batch_size", 0), ("val_every", 0), ("epochs", 0), ("label_smoothing", 2), ("ema", 1.5),
     ("mixup", -1), ("seed", -1), ("repeat", 0), ("width", 4), ("lr", float("nan"))],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_from_python_too(name: str, value: float) -> None:
    with pytest.raises(SkelactError, match=f"^{name}: expected a (whole )?number (from|above)"):
        TrainSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("balance", "no", "bool"), ("freeze", "False", "bool"), ("batch_size", 8.5, "int"), ("epochs", "3", "int"),
     ("seed", True, "int"), ("lr", "0.1", "float"), ("split", 3, "str, or None"), ("clip_len", 1.5, "int, or None"),
     ("augmentations", "flip", "tuple")],
)  # fmt: skip
def test_settings_of_another_type_are_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(SkelactError, match=f"^{name}: expected {expected}.*, found {value!r}"):
        skelact.TrainSettings(**{name: value})


def test_settings_in_other_clothes(dataset: Pickle, tmp_path: Path) -> None:
    assert skelact.TrainSettings(augmentations=["flip"], lr=1).augmentations == ("flip",)  # type: ignore[arg-type]
    for wrong in ({"epochs": 1}, "published"):
        with pytest.raises(SkelactError, match=r"settings: expected skelact.TrainSettings\(...\), found"):
            skelact.train(dataset(), tmp_path / "run", wrong)  # type: ignore[arg-type]


def test_poses_of_kinetics_are_told_by_name(tmp_path: Path) -> None:
    frames = {"frame_dir": "a", "label": 0, "frame_inds": np.zeros(87, int), "keypoint": np.ones((87, 17, 3), "f2")}
    for sample in (frames, {"frame_dir": "a", "label": 0, "raw_file": "a.pkl"}):
        (tmp_path / "k400.pkl").write_bytes(pickle.dumps([sample]))
        with pytest.raises(SkelactError, match="as of PYSKL's Kinetics: poses frame by frame or in files of their own"):
            skelact.inspect_dataset(tmp_path / "k400.pkl")


def test_one_name_will_do_where_several_may_stand(dataset: Pickle, model: Path, tmp_path: Path) -> None:
    done = skelact.predict(str(dataset()), str(model), classes="wave", progress=False)
    assert done.class_names == ("wave",)
    kept = skelact.convert(str(dataset()), exclude=["s1"], progress=False)
    assert [sample.frame_dir for sample in kept.dataset.annotations] == ["s0", "s2", "s3"]


def test_training_leaves_the_caller_s_chance_alone(dataset: Pickle, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    settings = TrainSettings(epochs=1, repeat=1, batch_size=2, width=12, clip_len=8)
    skelact.train(dataset(), tmp_path / "run", settings, progress=False)
    torch.testing.assert_close(torch.rand(3), expected)


# --- a dataset's splits and classes ------------------------------------------------------------------------------


TWO_FOLDS = {"train1": ["s0", "s1"], "test1": ["s2", "s3"], "train2": ["s2", "s3"], "test2": ["s0", "s1"]}


def splits_of(path: Path, **settings: Any) -> tuple[str | None, str | None]:
    job = prepare(load_annotations(path), TrainSettings(**settings))
    return job.split, job.val_split


def test_training_takes_the_split_that_belongs_to_the_validation_s(
    dataset: Pickle, caplog: pytest.LogCaptureFixture
) -> None:
    folds = dataset(split=TWO_FOLDS)
    assert splits_of(folds, val_split="test2") == ("train2", "test2")
    assert splits_of(folds, split="train1") == ("train1", "test1")
    assert splits_of(dataset("one.pkl", split={"train1": ["s0", "s1"], "test1": ["s2", "s3"]})) == ("train1", "test1")
    assert not caplog.messages
    with pytest.raises(SkelactError, match="several to train on, choose one of train1, train2"):
        splits_of(folds)


def test_samples_that_are_trained_on_and_measured_are_told(dataset: Pickle, caplog: pytest.LogCaptureFixture) -> None:
    assert splits_of(dataset(split=TWO_FOLDS), split="train1", val_split="test2") == ("train1", "test2")
    (told,) = caplog.messages
    assert told.startswith("2 of the 2 samples of split test2 are trained on")
    caplog.clear()
    assert splits_of(dataset(split={"a": ["s0"], "b": ["s1"]})) == (None, None)
    (told,) = caplog.messages
    assert "none of the splits (a, b) is known to be for training" in told


def test_classes_that_differ_in_case_are_two(tmp_path: Path) -> None:
    names = ("bend", "walk", "Bend")
    assert [find_class(name, names) for name in ("bend", "Bend", " WALK ", "BEND", "fly")] == [0, 2, 1, None, None]
    path = classifier_file(tmp_path / "a.safetensors", names)
    assert Classifier([path], classes=["bend"]).scored_names == ("bend",)
    assert Classifier([path], classes=["Bend", "walk"]).scored_names == ("walk", "Bend")
    with pytest.raises(SkelactError, match="class 'BEND' is none of the model's 3"):
        Classifier([path], classes=["BEND"])


def test_merged_classes_that_differ_in_case_are_told(
    dataset: Pickle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = dataset("a.pkl", class_names=["bend", "walk"]), tmp_path / "b.pkl"
    renamed = [replace(sample, frame_dir=f"b{sample.frame_dir}") for sample in load_annotations(one).annotations]
    save_annotations(AnnotationSet(renamed, {}, ("Bend", "walk")), other)
    assert skelact.merge([one, other]).class_names == ("bend", "walk", "Bend")
    assert any("'bend' and 'Bend' are two classes" in message for message in caplog.messages)


# --- from Python -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data, model: skelact.convert(data, window_s=0), "window_s: expected a number above 0, found 0"),
        (lambda data, model: skelact.convert(data, window_s=1, step_s=0), "step_s: expected a number above 0"),
        (lambda data, model: skelact.convert(data, step_s=1), "step_s: is from one window to the next; give window_s"),
        (lambda data, model: skelact.convert(data, fps=1001), "fps: expected a number from 0.1 to 1000, found 1001"),
        (lambda data, model: skelact.convert(data, img_shape=(1080, 0)), "img_shape: expected height and width"),
        (lambda data, model: skelact.convert(data, img_shape=1080), "img_shape: expected height and width"),
        (lambda data, model: skelact.predict(data, model, classes=[1]), "class 1 is none of the model's 2"),
        (lambda data, model: skelact.predict(data, model, clips=1.5), "clips: expected a whole number.*, found 1.5"),
        (lambda data, model: skelact.predict(data, model, clips="10"), "clips: expected a whole number.*, found '10'"),
        (lambda data, model: skelact.predict(data, model, topk=True), "topk: expected a whole number.*, found True"),
        (lambda data, model: skelact.predict(data, model, workers=-1), "workers: expected a whole number from 0 on"),
        (lambda data, model: skelact.predict(data, model, window_s="1"), "window_s: expected a number.*, found '1'"),
        (lambda data, model: skelact.predict(data, model, window_s=[]), "window_s: expected one length or several"),
        (lambda data, model: skelact.predict(data, model, min_duration_s="1"), "min_duration_s: expected a number"),
        (
            lambda data, model: skelact.predict(data, model, granularity="clip", step_s=1),
            "step_s is of timelines: expected granularity timeline, found clip",
        ),
        (lambda data, model: skelact.predict(data, model, fusion_weights=["a"]), "fusion_weights: expected a number"),
        (lambda data, model: skelact.live(0, model, duration_s=math.nan), "duration_s: expected .* above 0, found nan"),
        (
            lambda data, model: skelact.live(0, model, timeout_s=None),
            "timeout_s: expected a number above 0, found None",
        ),
        (lambda data, model: skelact.extract_poses(data, "o.pkl", seed=-1), "seed: expected a whole .* to 4294967295"),
        (lambda data, model: skelact.extract_poses(data, "o.pkl", max_frames=1.5), "max_frames: expected a whole"),
        (lambda data, model: skelact.benchmark(data, clips=0), "clips: expected a whole number from 1 on, found 0"),
        (lambda data, model: skelact.train(data, "run", workers=-1), "workers: expected a whole number from 0 on"),
        (lambda data, model: skelact.predict(data, []), "model: expected a name or a path"),
        (lambda data, model: skelact.predict(data, model, clips=0), "clips: expected a whole number from 1 on"),
        (lambda data, model: skelact.predict(data, model, engine="x"), "engine 'x': expected one of local, ray"),
        (lambda data, model: skelact.predict(data, model, backend="x"), "backend 'x'"),
        (lambda data, model: skelact.predict(data, model, precision="x"), "precision 'x'"),
        (lambda data, model: skelact.predict(data, model, layout="x"), "layout 'x': neither a file nor one of"),
        (lambda data, model: skelact.test(data, model, clips=0), "clips: expected a whole number from 1 on"),
        (lambda data, model: skelact.test(data, model, batch_size=0), "batch_size: expected a whole number from 1 on"),
        (lambda data, model: skelact.test(data, model, workers=-1), "workers: expected a whole number from 0 on"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_in_one_line(
    call: Callable[[Path, Path], Any], message: str, dataset: Pickle, model: Path
) -> None:
    with pytest.raises(SkelactError, match=message) as caught:
        call(dataset(), model)
    assert "\n" not in str(caught.value)


def test_a_layout_goes_by_its_name_too(dataset: Pickle, model: Path) -> None:
    assert load_checkpoint(model, layout="coco").clips.layout.name == "coco"
    one, other = (skelact.predict(dataset(), model, layout=layout, progress=False) for layout in ("coco", None))
    assert [result.predictions[0].score for result in one.results] == [
        result.predictions[0].score for result in other.results
    ]
    with pytest.raises(SkelactError, match="region"):
        skelact.predict(dataset(), model, regions="0,0 1,0")


def test_threads_that_load_pose_models_leave_the_output_alone() -> None:
    before = sys.stdout

    def load(seconds: float) -> None:
        with _told_clearly("a.pt"):
            time.sleep(seconds)

    threads = [threading.Thread(target=load, args=(seconds,)) for seconds in (0.1, 0.2)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert sys.stdout is before


def test_worker_processes_do_not_run_the_script_that_starts_them() -> None:
    """It has no ``if __name__ == "__main__"``, and no file either."""
    script = "from math import sqrt; from skelact.runner import run_tasks; print(sorted(run_tasks(sqrt, [1, 4], 2)))"
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=False)
    assert done.stdout == "[(0, 1.0), (1, 2.0)]\n", done.stderr
