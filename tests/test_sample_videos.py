"""What ships names the sample videos right, and a wheel brings it along."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import skelact
from skelact.shipped import folder, shipped

ASSETS = Path(__file__).parent / "assets"


SAMPLES = [("wave.mp4", "wave"), ("walk.mp4", "walk"), ("handshake.mp4", "shake hands")]


def answers(video: str, pose_model: str | Path) -> list[str]:
    (result,) = skelact.predict(ASSETS / video, pose_model=pose_model, progress=False).results
    assert result.error is None
    return [prediction.class_name for prediction in result.predictions]


@pytest.mark.parametrize(("video", "class_name"), SAMPLES)
def test_what_ships_names_a_sample_video_right(video: str, class_name: str) -> None:
    assert answers(video, "skelact-pose") == [class_name]


@pytest.mark.shared
@pytest.mark.parametrize(("video", "class_name"), SAMPLES)
def test_with_the_poses_of_another_network_too(shared: Path, video: str, class_name: str) -> None:
    assert answers(video, shared / "weights" / "yolov8n-pose_int8_openvino_model") == [class_name]


def test_a_wheel_that_is_built_without_git_holds_what_ships(tmp_path: Path) -> None:
    root = ASSETS.parent.parent
    for name in ("skelact", "weights"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        for path in (tmp_path / "weights").iterdir():
            assert archive.read(f"skelact/shipped/{path.name}") == path.read_bytes()


def test_everything_that_ships_has_a_card_and_fits_in_six_megabytes() -> None:
    assert "skelact-daily" in shipped()
    actions = [model for model in shipped().values() if model.kind == "action"]
    assert sum((folder() / model.file).stat().st_size for model in actions if model.file) < 6e6
    for model in shipped().values():
        assert "## Data" in (folder() / model.card).read_text(encoding="utf-8")
