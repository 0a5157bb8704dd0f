"""What ships names the sample videos right; real YOLO finds the poses."""

from __future__ import annotations

from pathlib import Path

import pytest

import skelact
from skelact.shipped import folder, shipped

ASSETS = Path(__file__).parent / "assets"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("video", "class_name"), [("wave.mp4", "wave"), ("walk.mp4", "walk"), ("handshake.mp4", "shake hands")]
)
def test_a_sample_video_is_named_right(shared: Path, video: str, class_name: str) -> None:
    pose_model = shared / "weights" / "yolov8n-pose_int8_openvino_model"
    (result,) = skelact.predict(ASSETS / video, pose_model=pose_model, progress=False).results
    assert result.error is None
    assert [prediction.class_name for prediction in result.predictions] == [class_name]


def test_everything_that_ships_has_a_card_and_fits_in_six_megabytes() -> None:
    assert "skelact-daily" in shipped()
    actions = [model for model in shipped().values() if model.kind == "action"]
    assert sum((folder() / model.file).stat().st_size for model in actions if model.file) < 6e6
    for model in shipped().values():
        assert "## Data" in (folder() / model.card).read_text(encoding="utf-8")
