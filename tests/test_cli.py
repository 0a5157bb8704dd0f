"""The command line as people and scripts meet it: help, answers, exit codes, and what an error says."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import click
import drawn_people
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from stand_ins import CLASSES, FPS, DrawnPoses, Film, Hostile, classifier_file, film, published_file
from test_video import as_nobody

import skelact
from skelact import cli, files, pipeline
from skelact.checkpoint import load_checkpoint, save_checkpoint
from skelact.cli import main
from skelact.dumps import ScoreDump, save_dump
from skelact.errors import SkelactError
from skelact.recipes import RECIPES
from skelact.skeleton import NTU, OPENPOSE
from skelact.video import probe_video

HEAVY = ("torch", "ultralytics", "cv2", "numpy", "av", "openvino")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Film]:
    folder = tmp_path_factory.mktemp("films")
    wave, nobody = drawn_people.scene_of("wave", seed=1), drawn_people.nobody(seed=3)
    return {
        "wave": film(folder / "wave.mp4", wave),
        "still": film(folder / "still.mp4", replace(wave, background="plain"), seconds=1 / FPS),
        "nobody": film(folder / "nobody.mp4", nobody, seconds=0.4),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(autouse=True)
def drawn(films: dict[str, Film], monkeypatch: pytest.MonkeyPatch) -> DrawnPoses:
    stand_in = DrawnPoses(list(films.values()))
    monkeypatch.setattr(pipeline, "PoseModel", stand_in.load)
    return stand_in


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """``--quiet`` is for the rest of a process."""
    yield
    logging.getLogger("skelact").setLevel(logging.NOTSET)


def skelact_with(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="skelact")


def as_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "skelact", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def pose_pickle(path: Path, *names: str, **fields: Any) -> Path:
    keypoint = np.random.default_rng(0).normal(0, 20, (1, 40, 17, 2)).cumsum(axis=1) + 500
    samples = [{"frame_dir": name, "keypoint": keypoint, "img_shape": (1080, 1920), **fields} for name in names]
    path.write_bytes(pickle.dumps({"split": {}, "annotations": samples}))
    return path


def strictly(text: str) -> Any:
    """JSON as its standard has it, without the NaN and Infinity that Python adds."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# --- help --------------------------------------------------------------------------------------------------------


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from commands(sub, *path, name)


COMMANDS = dict(commands(main))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("skelact", *path)))
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = skelact_with(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(" ".join(("Usage: skelact", *path)))
    example = re.search(r"^  Examples?:\n +(.*)$", result.stdout, re.MULTILINE)
    assert example, "the help has an example"
    assert " ".join(("skelact", *path)) in example[1], "of this command"
    assert skelact_with(*path, "-h").stdout == result.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("skelact", *path)))
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("skelact", *path)))
def test_a_command_that_loads_models_by_name_may_be_told_to_stay_offline(path: tuple[str, ...]) -> None:
    taken = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    by_name = taken & {"--model", "--pose-model", "--init"} or path in (("export",), ("info",))
    assert ("--offline" in taken) == bool(by_name)


@pytest.mark.parametrize("command", [("export", "--format", "onnx"), ("info",)])
def test_offline_is_heeded(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SKELACT_OFFLINE", raising=False)
    monkeypatch.setenv("SKELACT_WEIGHTS", str(tmp_path))
    result = skelact_with(*command, "ntu60-2d-joint", "--offline")
    assert result.exit_code == 1
    assert "cannot download ntu60-2d-joint" in result.stderr
    assert "(offline)" in result.stderr


def test_a_dump_is_told_from_a_dataset(tmp_path: Path) -> None:
    save_dump(ScoreDump(np.eye(2), np.arange(2)), tmp_path / "dump.pkl")
    result = skelact_with("train", tmp_path / "dump.pkl")
    assert result.exit_code == 1
    assert "found scores, as in a dump; skelact fuse takes it" in result.stderr


def test_help_and_version_of_the_installed_program() -> None:
    assert as_process("--help").stdout.startswith("Usage: ")
    program = shutil.which("skelact", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("skelact is not installed beside this Python")
    result = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == f"skelact, version {skelact.__version__}\n"


def test_help_is_light() -> None:
    """It answers at once, for nothing heavy is imported."""
    code = (
        "import sys, skelact, skelact.cli; from click.testing import CliRunner\n"
        f"for path in {sorted(COMMANDS, key=lambda path: path == ('train',))!r}:\n"
        "    assert CliRunner().invoke(skelact.cli.main, [*path, '--help']).exit_code == 0\n"
        f"    print(*(name for name in {HEAVY!r} if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    *others, train = result.stdout.splitlines()
    assert not any(others)
    assert train in ("", "numpy"), "its help shows the recipes' values"


def test_the_help_of_train_tells_the_defaults_of_both_recipes() -> None:
    told = " ".join(skelact_with("train", "--help").stdout.split())
    recipes = [RECIPES[name] for name in ("default", "published")]
    assert f"[default: {recipes[0].epochs}; published: {recipes[1].epochs}; x>=1]" in told
    assert f"[default: {','.join(recipes[0].augmentations)}; published: none]" in told.replace("- ", "-")
    assert "[default: on; published: off]" in told, "--auto-scale-lr"
    assert f"[default: {recipes[0].weight_decay}; x>=0]" in told, "which they share"


def test_a_number_that_is_none_is_told_in_plain_words() -> None:
    assert (
        "Invalid value for '--topk': 'five' is not a valid whole number."
        in skelact_with("predict", "a.mp4", "--topk", "five").stderr
    )
    assert "'soon' is not a valid number." in skelact_with("live", "0", "--duration", "soon").stderr


@pytest.mark.parametrize(
    ("told", "spins"), [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "None")]
)
def test_threads_that_wait_let_others_have_the_core_unless_told_otherwise(told: dict[str, str], spins: str) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, skelact; print(os.environ.get('GOMP_SPINCOUNT'))"
    result = subprocess.run(
        [sys.executable, "-c", code], env={**env, **told}, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == spins


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a device that is always full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "skelact", "weights", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot write: the disk is full")
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "predict", interrupted)
    result = CliRunner().invoke(main, ["predict", "a.mp4"])
    assert (result.exit_code, result.stderr) == (130, "Aborted!\n")


@pytest.mark.parametrize("granularity", ["clip", "person"])
def test_settings_of_timelines_say_nothing_of_one_answer(granularity: str) -> None:
    result = CliRunner().invoke(main, ["predict", "a.mp4", "--granularity", granularity, "--min-duration", "2"])
    assert result.exit_code == 2
    assert f"--min-duration is of --granularity timeline, not of {granularity}" in result.stderr


def test_options_of_timelines_ask_for_one(films: dict[str, Film], model: Path) -> None:
    result = skelact_with("predict", films["wave"].path, "--model", model, "--window", "0.5", "--json", "-")
    assert json.loads(result.stdout)["results"][0]["granularity"] == "timeline"


@pytest.mark.parametrize(
    ("command", "name", "expected"),
    [
        ("info", "a.MP4", "expected a checkpoint of skelact, mmaction2 or PYSKL, found a video; skelact predict tells"),
        ("train", "a.mp4", "expected a pickle, found a video; skelact predict tells what is in it"),
        ("test", "a.safetensors", "expected a pickle, found a network; give it as --model"),
        ("fuse", "a.csv", "expected a pickle, found text"),
        ("fuse", "videos", "expected a pickle, found a folder; skelact extract-poses makes a dataset of its videos"),
        ("train", "a.json", "expected a pickle, found JSON; skelact convert makes a dataset of poses in it"),
        ("predict", "a.json", "expected a video, found JSON"),
        ("train", "empty.pkl", "expected a pickle, found an empty file; copy or download it again"),
        ("train", "a.pkl", "expected a pickle, found another or a damaged file"),
        ("predict --model", "a.pkl", "expected a checkpoint of skelact, mmaction2 or PYSKL, found a pickle;"),
        ("report --out a.html", "a.mp4", "expected the JSON of skelact predict, found a video"),
    ],
)
def test_a_file_given_for_another_is_told_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    if name != "videos":
        Path(name).write_bytes(b"" if name == "empty.pkl" else b"\x00\x00\x00 neither one nor the other")
    arguments = [*command.split(), name] + (["b.mp4"] if command.endswith("--model") else [])
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"{name}: {expected}" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_library_is_there_on_first_use() -> None:
    assert skelact.predict is pipeline.predict
    assert skelact.load_checkpoint is load_checkpoint
    assert skelact.SkelactError is SkelactError
    for name in skelact.__all__:
        assert getattr(skelact, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'predicts'"):
        _ = skelact.predicts


def test_a_closed_stderr_is_no_error(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    pickle_of_one = pose_pickle(tmp_path / "a.pkl", "a")
    command = f'"{sys.executable}" -m skelact predict "{pickle_of_one}" --model "{model}" --json "{tmp_path}/a.json"'
    assert subprocess.run(f"{command} 2>&-", shell=True, stdout=subprocess.PIPE, timeout=300).returncode == 0
    assert json.loads((tmp_path / "a.json").read_text())["results"][0]["predictions"]


def test_a_user_without_a_home_has_a_cache_for_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    files.user_cache.cache_clear()
    try:
        assert files.user_cache().is_dir()
        assert files.user_cache() == files.user_cache()
    finally:
        files.user_cache.cache_clear()


def test_an_end_that_python_drops_comes_again() -> None:
    """What a signal raises within ``__del__`` goes nowhere, and a training would go on for hours."""
    program = (
        "import os, signal, sys, time\n"
        "from skelact.cli import _ended_by_sigterm\n"
        "class Bar:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        for _ in range(1000): pass\n"
        "with _ended_by_sigterm():\n"
        "    Bar()\n"
        "    time.sleep(20)\n"
        "    print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, ""), done.stderr


def test_a_mistake_of_ours_is_one_line_without_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("skelact.fusing.fuse", broken)
    said = skelact_with("fuse", "a.pkl", "b.pkl")
    assert (said.exit_code, said.stderr) == (1, "Error: ZeroDivisionError: division by zero (--debug shows where)\n")
    assert isinstance(skelact_with("--debug", "fuse", "a.pkl", "b.pkl").exception, ZeroDivisionError)


# --- answers -----------------------------------------------------------------------------------------------------


def test_people_read_the_answer_on_stdout(films: dict[str, Film], model: Path) -> None:
    result = skelact_with("predict", films["wave"].path, "--model", model, "--topk", 2)
    told = f"{films['wave'].path}: 1.6 s, up to 10 s: one clip (--granularity chooses)\n"
    assert (result.exit_code, result.stderr) == (0, told)
    source, who, first, second = result.stdout.splitlines()
    assert source == str(films["wave"].path)
    assert who == "  0.00-1.60 s, person 1"
    for line in (first, second):
        share, name = line.split("%")
        assert 0 <= float(share) <= 100
        assert name.strip() in CLASSES


def test_json_goes_to_stdout_and_all_else_to_stderr(films: dict[str, Film], model: Path) -> None:
    result = skelact_with("predict", films["wave"].path, "--model", model, "--json", "-")
    assert result.exit_code == 0
    content = strictly(result.stdout)
    assert content["schema_version"] == 1
    assert sum(content["results"][0]["predictions"][0]["scores"]) == pytest.approx(1)
    assert content["results"][0]["poses"]["pose_model_sha256"] == "0" * 64
    assert "person 1" in result.stderr


def test_csv_to_stdout(films: dict[str, Film], model: Path) -> None:
    missing = films["wave"].path.with_name("missing.mp4")
    result = skelact_with("predict", films["wave"].path, missing, "--model", model, "--csv", "-")
    assert result.exit_code == 1
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", ""]
    assert "no such file" in rows[-1]["error"]


def test_files_for_json_csv_and_overlay(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    result = skelact_with(
        *("predict", films["wave"].path, "--model", model, "--clips", 1),
        *("--json", out / "a.json", "--csv", out / "a.csv", "--out-video", out / "a.mp4"),
    )
    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.csv", "a.json", "a.mp4"]
    content = strictly((out / "a.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((out / "a.csv").open(encoding="utf-8")))
    (prediction,) = content["results"][0]["predictions"]
    assert rows[0]["class_name"] == prediction["class_name"]
    assert float(rows[0]["score"]) == pytest.approx(prediction["score"], abs=1e-6)
    assert "person 1" in result.stdout, "which is free for people"
    assert probe_video(out / "a.mp4").num_frames == 24


def test_several_models_and_some_classes(films: dict[str, Film], tmp_path: Path) -> None:
    models = [classifier_file(tmp_path / f"{stream}.safetensors", stream=stream) for stream in ("joint", "bone")]
    result = skelact_with(
        *("predict", films["wave"].path, "--model", models[0], "--model", models[1], "--fusion-weights", "2,1"),
        *("--classes", "wave, stand", "--json", "-"),
    )
    content = strictly(result.stdout)
    assert [model["fusion_weight"] for model in content["models"]] == [2, 1]
    assert content["class_names"] == ["wave", "stand"]
    assert skelact_with(
        *("predict", films["wave"].path, "--model", models[0], "--classes", "wave; shake hands", "--json", "-")
    ).stdout.count("shake hands"), "names with commas are separated with ;"


def test_one_frame_is_a_video(films: dict[str, Film], model: Path) -> None:
    result = skelact_with("predict", films["still"].path, "--model", model)
    assert result.exit_code == 0
    assert "Error" not in result.stderr
    assert "0.00-0.07 s, person 1" in result.stdout


def test_a_batch_goes_on_past_a_bad_file(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    wave = films["wave"].path
    result = skelact_with("predict", tmp_path / "empty.mp4", wave, films["nobody"].path, "--model", model)
    assert result.exit_code == 1
    assert str(wave) in result.stdout
    first, chosen, second, summary = result.stderr.splitlines()
    assert "one clip" in chosen
    assert "empty.mp4: expected a video, found an empty file" in first
    assert "nobody.mp4: expected people, found nobody in 6 frames" in second
    assert summary == "Error: 2 of 3 sources failed"


def test_a_process_keeps_stdout_pure(tmp_path: Path) -> None:
    """With warnings on stderr: here of a checkpoint that does not tell its stream."""
    path = published_file(tmp_path / "best.pth")
    content = torch.load(path, weights_only=False)
    torch.save(content["state_dict"], path)
    result = as_process("predict", pose_pickle(tmp_path / "poses.pkl", "a"), "--model", path, "--json", "-")
    assert result.returncode == 0
    assert strictly(result.stdout)["results"][0]["source"].endswith("poses.pkl#a")
    assert "WARNING: " in result.stderr
    assert "taking joint (set it with --stream)" in result.stderr


def test_quiet_says_nothing_but_the_answer(
    films: dict[str, Film], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = classifier_file(tmp_path / "m.safetensors", provenance={"pose_model": "HRNet"})
    loud = skelact_with("predict", films["wave"].path, "--model", model)
    assert "was trained on poses of HRNet" in caplog.text
    caplog.clear()
    quiet = skelact_with("predict", films["wave"].path, "--model", model, "--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr, caplog.text) == (0, loud.stdout, "", "")


def test_the_command_is_in_its_record(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pose_pickle(tmp_path / "poses.pkl", "a")
    arguments = ["predict", str(source), "--model", str(model), "--json", "-"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/skelact", *arguments])
    assert strictly(skelact_with(*arguments).stdout)["command"] == ["skelact", *arguments]


def test_info_of_a_checkpoint(model: Path) -> None:
    result = skelact_with("info", model)
    assert result.exit_code == 0
    assert "coco (17 joints, 2D)" in result.stdout
    assert "4: wave, walk, shake hands, stand" in result.stdout
    (report,) = strictly(skelact_with("info", model, "--json", "-").stdout)["checkpoints"]
    assert report["class_names"] == list(CLASSES)
    assert report["parameters"] > 1000


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
def test_a_reader_that_has_had_enough() -> None:
    command = [sys.executable, "-m", "skelact", "weights", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""


# --- wrong usage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "Missing argument 'SOURCE...'"),
        (["predict", "a.mp4", "--clips", "7"], "'7' is not one of '1', '10'"),
        (["predict", "a.mp4", "--topk", "0"], "0 is not in the range x>=1"),
        (["predict", "a.mp4", "--fusion-weights", "a,b"], "'a' is not a valid number"),
        (["predict", "a.mp4", "--stream", "flesh"], "'flesh' is not one of 'joint', 'bone'"),
        (["predict", "a.mp4", "--class-names", "no-such-file.txt"], "'no-such-file.txt' does not exist"),
        (["predict", "a.mp4", "--json", "-", "--csv", "-"], "--json and --csv cannot both go to stdout"),
        (["predict", "a.mp4", "--modle", "x"], "--modle"),
        (["info"], "Missing argument 'CHECKPOINT'"),
        (["dance"], "No such command 'dance'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    result = skelact_with(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: skelact")
    assert message.replace("'", "") in result.stderr.replace("'", "")


# --- errors ------------------------------------------------------------------------------------------------------

Build = Callable[[Path, Film, Path], list[object]]


def missing_source(folder: Path, wave: Film, model: Path) -> list[object]:
    return [folder / "missing.mp4", "--model", model]


def empty_source(folder: Path, wave: Film, model: Path) -> list[object]:
    (folder / "empty.mp4").touch()
    return [folder / "empty.mp4", "--model", model]


def text_source(folder: Path, wave: Film, model: Path) -> list[object]:
    (folder / "text.mp4").write_text("I am no video. " * 100)
    return [folder / "text.mp4", "--model", model]


def truncated_source(folder: Path, wave: Film, model: Path) -> list[object]:
    content = wave.path.read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    return [folder / "cut.mp4", "--model", model]


def sound_source(folder: Path, wave: Film, model: Path) -> list[object]:
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=drawn_people.AUDIO_RATE, layout="mono")
        for samples in drawn_people.audio_frames(0.5, tone=True):
            container.mux(stream.encode(samples))
        container.mux(stream.encode())
    return [folder / "sound.mp4", "--model", model]


def empty_folder(folder: Path, wave: Film, model: Path) -> list[object]:
    return [folder, "--model", model]


def hostile_source(folder: Path, wave: Film, model: Path) -> list[object]:
    (folder / "hostile.pkl").write_bytes(pickle.dumps({"annotations": [Hostile(folder / "trace")]}))
    return [folder / "hostile.pkl", "--model", model]


def other_pickle(folder: Path, wave: Film, model: Path) -> list[object]:
    (folder / "other.pkl").write_bytes(pickle.dumps({"poses": [1, 2, 3]}))
    return [folder / "other.pkl", "--model", model]


def misspelt_model(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", "ntu60-2d-jiont"]


def hostile_model(folder: Path, wave: Film, model: Path) -> list[object]:
    torch.save({"state_dict": {"backbone.gcn.0.gcn.A": Hostile(folder / "trace")}}, folder / "hostile.pth")
    return [wave.path, "--model", folder / "hostile.pth"]


def other_checkpoint(folder: Path, wave: Film, model: Path) -> list[object]:
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "other.pth")
    return [wave.path, "--model", folder / "other.pth"]


def video_as_model(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", wave.path]


def wrong_layout(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", model, "--layout", "nturgb+d"]


def unknown_layout(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", model, "--layout", "coca"]


def openpose_model(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", classifier_file(folder / "openpose.safetensors", layout=OPENPOSE)]


def model_for_3d(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", classifier_file(folder / "ntu.safetensors", layout=NTU, dims=3)]


def too_few_class_names(folder: Path, wave: Film, model: Path) -> list[object]:
    (folder / "names.txt").write_text("one\ntwo\n")
    return [wave.path, "--model", model, "--class-names", folder / "names.txt"]


def unknown_class(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", model, "--classes", "wave,fly"]


def too_many_weights(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", model, "--model", model, "--fusion-weights", "1,2,3"]


def unknown_tracker(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", model, "--tracker", "bitetrack"]


def unknown_device(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", model, "--device", "abacus"]


def csv_into_a_folder(folder: Path, wave: Film, model: Path) -> list[object]:
    return [wave.path, "--model", model, "--csv", folder]


def overlay_below_a_file(folder: Path, wave: Film, model: Path) -> list[object]:
    (folder / "file").touch()
    return [wave.path, "--model", model, "--out-video", folder / "file" / "a.mp4"]


ERRORS: list[tuple[Build, tuple[str, ...]]] = [
    (missing_source, ("missing.mp4: no such file", "give the path of a video")),
    (empty_source, ("empty.mp4: expected a video, found an empty file", "copy or download it again")),
    (text_source, ("text.mp4: expected a video, found another kind of file", "give another file")),
    (truncated_source, ("cut.mp4: expected a whole mp4, found one cut short", "copy or record it again")),
    (sound_source, ("sound.mp4: expected a video, found sound only", "give a file with pictures")),
    (empty_folder, ("expected videos in this folder, found none",)),
    (hostile_source, ("hostile.pkl: refused, nothing was run: expected arrays", "it wants to call")),
    (other_pickle, ('other.pkl: expected {"split": ..., "annotations": ', "found a dict with poses")),
    (misspelt_model, ("'ntu60-2d-jiont' is neither a file nor a zoo name", "did you mean ntu60-2d-joint")),
    (hostile_model, ("hostile.pth: refused, nothing was run: expected weights", "save the state dict alone")),
    (other_checkpoint, ("other.pth: expected ST-GCN++ weights", "found keys weight, bias")),
    (video_as_model, ("wave.mp4: expected a checkpoint of skelact, mmaction2 or PYSKL, found a video",)),
    (wrong_layout, ("has 17 joints, but layout 'nturgb+d' has 25", "give the layout that it was trained with")),
    (unknown_layout, ("layout 'coca': neither a file nor one of coco, nturgb+d, openpose",)),
    (openpose_model, ("takes layout 'openpose' (18 joints)", "take a model for layout 'coco'")),
    (model_for_3d, ("takes 3D skeletons", "but a video gives 2D poses", "take a 2D model")),
    (too_few_class_names, ("expected 4 class names, one an output, found 2",)),
    (unknown_class, ("class 'fly' is none of the model's 4: wave, walk, shake hands, stand",)),
    (too_many_weights, ("fusion weights: expected 2, one a model, found 3",)),
    (unknown_tracker, ("tracker 'bitetrack': neither a YAML file nor one of bytetrack",)),
    (unknown_device, ("device 'abacus' cannot be used here", "leave --device out")),
    (csv_into_a_folder, ("expected a file, found a folder; add a file name",)),
    (overlay_below_a_file, ("a file stands where its folder should be", "choose another folder")),
]


@pytest.mark.parametrize(("build", "parts"), ERRORS, ids=[build.__name__ for build, _ in ERRORS])
def test_an_error_is_one_line_that_helps(
    films: dict[str, Film], model: Path, tmp_path: Path, build: Build, parts: tuple[str, ...]
) -> None:
    result = skelact_with("predict", *build(tmp_path, films["wave"], model))
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, SystemExit), "no traceback"
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    for part in parts:
        assert part in line
    assert not (tmp_path / "trace").exists(), "nothing of a stranger's file was run"


def test_nobody_to_be_seen(films: dict[str, Film], model: Path) -> None:
    result = skelact_with("predict", films["nobody"].path, "--model", model, "--json", "-")
    assert result.exit_code == 1
    (found,) = strictly(result.stdout)["results"]
    assert "expected people, found nobody in 6 frames" in found["error"]
    assert found["tracks"] == found["predictions"] == []
    assert "Error: " in result.stderr


@pytest.mark.parametrize("option", ["--out-video", "--json", "--csv"])
def test_a_folder_without_permission(films: dict[str, Film], tmp_path: Path, option: str) -> None:
    source, model = tmp_path / "wave.mp4", classifier_file(tmp_path / "m.safetensors")
    shutil.copy(films["wave"].path, source)
    skelact_with("predict", source, "--model", model)  # so that all is imported
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with as_nobody(locked / "a"):
        result = skelact_with("predict", source, "--model", model, option, locked / "out.mp4")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "cannot write" in line
    assert "no permission to write there; choose another folder" in line
    assert list(locked.iterdir()) == []


def test_outputs_are_checked_before_the_work(
    films: dict[str, Film], model: Path, tmp_path: Path, drawn: DrawnPoses
) -> None:
    (tmp_path / "file").touch()
    for option in ("--json", "--csv"):
        result = skelact_with("predict", films["wave"].path, "--model", model, option, tmp_path / "file" / "a")
        assert result.exit_code == 1
    assert drawn.loaded == []


def test_debug_shows_the_traceback(films: dict[str, Film]) -> None:
    arguments = ("predict", films["wave"].path, "--model", "nope")
    assert isinstance(skelact_with("--debug", *arguments).exception, SkelactError)
    plain = as_process("weights", "path", "nope")
    debug = as_process("--debug", "weights", "path", "nope")
    assert plain.returncode == debug.returncode == 1
    assert plain.stderr.startswith("Error: 'nope' is not in the zoo")
    assert "Traceback" not in plain.stderr
    assert debug.stderr.startswith("Traceback")
    assert debug.stderr.rstrip().splitlines()[-1].startswith("skelact.errors.SkelactError: 'nope' is not in the zoo")
    for behind in (("fuse", "nope.pkl", "--debug"), ("weights", "path", "--debug", "nope")):
        assert isinstance(skelact_with(*behind).exception, SkelactError)
    assert isinstance(skelact_with("fuse", "nope.pkl").exception, SystemExit)


# --- odd things that users have --------------------------------------------------------------------------------------


def test_weights_that_are_no_numbers(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(model)
    weights = {**checkpoint.state_dict, "cls_head.fc.bias": torch.full((4,), float("nan"))}
    save_checkpoint(replace(checkpoint, state_dict=weights), tmp_path / "nan.safetensors")
    result = skelact_with("predict", films["wave"].path, "--model", tmp_path / "nan.safetensors", "--json", "-")
    assert result.exit_code == 1
    strictly(result.stdout or "null")


@pytest.mark.skipif(sys.platform != "linux", reason="file names as Linux has them, any bytes")
def test_a_file_name_of_another_encoding(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    shutil.copy(films["wave"].path, path)
    result = skelact_with("predict", path, "--model", model, "--json", tmp_path / "a.json")
    assert result.exit_code == 0
    assert "caf" in strictly((tmp_path / "a.json").read_text(encoding="utf-8"))["results"][0]["source"]


def test_a_quiet_convert_tells_no_warnings(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    data, table = pose_pickle(tmp_path / "two.pkl", "a", "b"), tmp_path / "labels.csv"
    table.write_text("a,walk\n")
    done = skelact_with("convert", data, "--labels", table, "--out", tmp_path / "out.pkl", "--quiet")
    assert (done.exit_code, done.output, caplog.records) == (0, "", [])


def test_class_names_of_another_encoding(films: dict[str, Film], model: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("grüßen\nb\nc\nd\n".encode("latin1"))
    result = skelact_with("predict", films["wave"].path, "--model", model, "--class-names", tmp_path / "names.txt")
    assert isinstance(result.exception, SystemExit)
    assert "names.txt" in result.stderr


@pytest.mark.parametrize("text", ["tracker_type: bytetrack\n", "tracker_type: [1\n"], ids=["incomplete", "no YAML"])
def test_a_tracker_file_that_is_none(
    films: dict[str, Film], model: Path, tmp_path: Path, drawn: DrawnPoses, text: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    wave = films["wave"].path
    result = skelact_with("predict", wave, wave, "--model", model, "--tracker", tmp_path / "mine.yaml")
    (line,) = result.stderr.splitlines()
    assert "mine.yaml" in line
    assert drawn.loaded == []


@pytest.mark.parametrize("fps", [-5, float("nan"), "fast"])
def test_a_pickle_with_an_impossible_frame_rate(tmp_path: Path, model: Path, fps: object) -> None:
    """Either an error that names the field, or the default."""
    source = pose_pickle(tmp_path / "poses.pkl", "a", fps=fps)
    result = skelact_with("predict", source, "--model", model, "--json", "-")
    if result.exit_code == 0:
        (found,) = strictly(result.stdout)["results"]
        assert found["predictions"][0]["stop_s"] == pytest.approx(40 / 30)
    else:
        assert "'fps'" in result.stderr


def test_overlays_of_samples_of_the_same_name(tmp_path: Path, model: Path) -> None:
    source = pose_pickle(tmp_path / "poses.pkl", "a", "a", "x#a", img_shape=(36, 64))
    result = skelact_with("predict", source, "--model", model, "--out-video", tmp_path / "out")
    assert result.exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_an_overlay_that_fails_takes_nothing_from_the_answer(
    films: dict[str, Film], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise SkelactError("a.mp4: no space left on device")

    monkeypatch.setattr("skelact.render.draw_result", full)
    outputs = ("--json", tmp_path / "a.json", "--out-video", tmp_path / "a.mp4")
    result = skelact_with("predict", films["wave"].path, "--model", model, "--clips", 1, *outputs)
    assert result.exit_code == 1
    assert "Error: a.mp4: no space left on device" in result.stderr
    assert "person 1" in result.stdout
    assert strictly((tmp_path / "a.json").read_text(encoding="utf-8"))["results"][0]["predictions"]


def test_files_are_written_though_the_reader_has_gone(model: Path, tmp_path: Path) -> None:
    source = pose_pickle(tmp_path / "poses.pkl", "a", "b")
    command = [sys.executable, "-m", "skelact", "predict", source, "--model", model, "--json", tmp_path / "a.json"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [str(part) for part in command], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False
        )
    finally:
        os.close(writing)
    assert result.returncode == 0, result.stderr
    assert "BrokenPipe" not in result.stderr
    assert len(strictly((tmp_path / "a.json").read_text(encoding="utf-8"))["results"]) == 2


# --- the real thing ----------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_a_real_video_from_pixels_to_answer(shared: Path, tmp_path: Path) -> None:
    """Two people in 72 frames of 1080p, real YOLO, a classifier with the published shape and random weights."""
    pytest.importorskip("openvino", reason="the shared pose model is an OpenVINO export")
    result = as_process(
        *("predict", shared / "media" / "demo_skeleton.mp4", "--json", "-", "--out-video", tmp_path / "out.mp4"),
        *("--pose-model", shared / "weights" / "yolov8n-pose_int8_openvino_model"),
        *("--model", shared / "reference" / "stgcnpp_coco_random.pth", "--stream", "joint", "--clips", "1"),
    )
    assert result.returncode == 0, result.stderr
    content = strictly(result.stdout)
    (found,) = content["results"]
    told = {"height": 1080, "width": 1920, "fps": pytest.approx(28.05, abs=0.01), "num_frames": 72, "start_s": 0.0}
    assert found["video"] == told
    assert [(track["start_frame"], track["stop_frame"]) for track in found["tracks"]] == [(0, 72), (0, 72)]
    assert all(track["num_frames_seen"] == 72 and track["score"] > 0.5 for track in found["tracks"])
    (prediction,) = found["predictions"]
    assert sorted(prediction["track_ids"]) == [1, 2]
    assert len(prediction["scores"]) == len(content["class_names"]) == 60
    assert sum(prediction["scores"]) == pytest.approx(1)
    assert len(found["poses"]["pose_model_sha256"]) == 64
    assert "person " in result.stderr
    with av.open(str(tmp_path / "out.mp4")) as overlay:
        (stream,) = overlay.streams.video
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (1080, 1920)
        assert sum(len(packet.decode()) for packet in overlay.demux(stream)) == 72


def test_ctrl_c_that_python_drops_is_sent_again_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: int) -> None:
        raise AssertionError("it ends the process at once, on Windows")

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(sys, "platform", "win32")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores Ctrl-C
    try:
        cli._sent_again(SimpleNamespace(exc_type=KeyboardInterrupt))  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            time.sleep(0.5)
    finally:
        signal.signal(signal.SIGINT, before)
