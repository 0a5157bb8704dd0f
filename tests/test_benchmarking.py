"""Where the time goes: stage by stage, and against the least that it could take."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_people
import loop_video
import pytest
import stand_ins
import torch
from click.testing import CliRunner

import skelact
import skelact.benchmarking
from skelact.benchmarking import Stage, _floor
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.video import read_frames

STAGES = ["decode", "letterbox", "pose", "post-process", "track", "clips", "classify", "draw", "encode"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "walk.mp4"
    drawn_people.save_video(path, drawn_people.scene_of("walk"), 1.0, 12.0, (320, 180))
    return path


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skelact.benchmarking, "MIN_STAGE_S", 0.01)


def told(video: Path, *arguments: object) -> tuple[dict[str, Any], str]:
    model = stand_ins.classifier_file(video.with_name("model.safetensors"))
    options = ["--model", str(model), "--device", "cpu", "--clips", "1", "--json", str(video.with_name("out.json"))]
    result = CliRunner().invoke(main, ["benchmark", str(video), *options, *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    content = json.loads(video.with_name("out.json").read_text())
    assert (content["schema_version"], content["command"][0]) == (1, "skelact")
    return content, result.stdout


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_video_in_which_nobody_is_found(video: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained network takes as long as a trained one. The machine gets slower by the round."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs the extra openvino")
    timed, rounds = skelact.benchmarking._timed, Counter[str]()

    def slower(name: str, *work: Any, **more: Any) -> Stage:
        rounds[name] += 1
        stage = timed(name, *work, **more)
        return replace(stage, wall_s=stage.wall_s + 1000 * (rounds[name] - 1))

    monkeypatch.setattr(skelact.benchmarking, "_timed", slower)
    report, text = told(video, "--pose-model", stand_ins.untrained_yolo(video.parent), "--backend", backend)
    names = [stage["name"] for stage in report["stages"]]
    assert names == [name for name in STAGES if name not in ("clips", "classify")]
    assert report["video"] == {"height": 180, "width": 320, "fps": 12.0, "num_frames": 12}
    assert report["pose"]["pose_backend"] == backend
    assert set(rounds.values()) == {3}
    assert all(0 < stage["wall_s"] < 1000 for stage in report["stages"]), "the best of three"
    for run in (report["predict"], report["overlay"]):
        assert run["frames_per_s"] == pytest.approx(12 / run["wall_s"])
        assert run["ratio"] == pytest.approx(run["wall_s"] / run["floor_s"])
    for key in ("floor_s", "wall_s"):
        assert report["overlay"][key] > report["predict"][key]
    (pose,) = (stage["wall_s"] for stage in report["stages"] if stage["name"] == "pose")
    assert report["ceiling_fps"] == pytest.approx(1 / pose)
    assert "ceiling, the pose network alone" in text
    assert f"in {backend}, fp32" in text


@pytest.mark.shared
def test_people_are_classified_too(video: Path, shared: Path) -> None:
    report, _ = told(video, "--pose-model", shared / "weights" / "yolov8n-pose_int8_openvino_model")
    assert [stage["name"] for stage in report["stages"]] == STAGES


def test_the_video_is_not_overwritten(video: Path) -> None:
    before = video.read_bytes()
    result = CliRunner().invoke(main, ["benchmark", str(video), "--json", str(video)])
    assert result.exit_code == 1
    assert "the output would replace its source" in result.stderr
    assert video.read_bytes() == before
    with pytest.raises(SkelactError, match="rounds: expected a whole number from 1 on, found 0"):
        skelact.benchmark(video, rounds=0)


def test_the_floor_is_what_two_stages_side_by_side_take() -> None:
    pose, decode = Stage("pose", wall_s=10, cpu_s=18), Stage("decode", wall_s=4, cpu_s=6)
    assert _floor(pose, decode, cores=2) == 12, "both cores are busy all the time"
    assert _floor(pose, decode, cores=8) == 10, "the network is what takes longest"
    assert _floor(Stage("pose", 1, 1), decode, cores=8) == 4


def test_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Tesla T4 ({device})")
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 300 << 20)
    assert skelact.benchmarking._device("cuda:1") == {"device": "cuda:1", "gpu": "Tesla T4 (cuda:1)"}
    assert skelact.benchmarking._device("cpu") == {"device": "cpu"}
    assert skelact.benchmarking._peak_memory_mb("cuda:1")[1] == 300
    assert skelact.benchmarking._peak_memory_mb("cpu")[1] is None


def test_a_video_is_looped_frame_by_frame(video: Path) -> None:
    out = video.with_name("looped.mp4")
    stand_ins.script_output(loop_video.main, video, out, "--times", 3)
    once, thrice = list(read_frames(video)), list(read_frames(out))
    assert len(thrice) == 3 * len(once)
    for k, frame in enumerate(thrice):
        assert frame.time_s == pytest.approx(k / 12, abs=1e-3)
        assert (frame.image == once[k % len(once)].image).all()
