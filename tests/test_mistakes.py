"""Slips of the hand at the command line, and odd files: none costs a file, a traceback or hours of work."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_people
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from stand_ins import DrawnPoses, classifier_file, film

from skelact import extract, pipeline
from skelact.annotations import load_annotations
from skelact.cli import main

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
    broken = skelact_with(*run, "--lr", "1e38")
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
    layout.write_text(json.dumps({"name": "five", "joints": list("abcde"), "edges": [[1, 0], [2, 0], [3, 0], [4, 0]]}))
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
    content["annotations"][0] |= {"frame_dir": "red\x1b[31m", "label": "no number"}
    data.write_bytes(pickle.dumps(content))
    result = skelact_with("test", data, "--model", model)
    one_line(result, r"red\u001b[31m")
    assert "\x1b" not in result.output


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
