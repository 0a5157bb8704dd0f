"""Pose networks in OpenVINO: as exact as PyTorch, exported once, and given up where they fail."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import skelact.backends
import skelact.pose
from skelact.backends import exported, quantised
from skelact.errors import SkelactError
from skelact.exported import openvino_core
from skelact.files import cache_folder, sha256_of
from skelact.pose import PoseModel
from skelact.structures import Frame, FramePoses
from skelact.video import VideoWriter, read_frames
from skelact.yolo import load_ultralytics

pytest.importorskip("openvino", reason="needs the extra openvino")
pytestmark = pytest.mark.shared

FILMS = ("jesse_dance.mp4", "S001C001P001R001A001_rgb.avi", "bigtuo_pose_test1.mp4", "one-by-one-person-detection.mp4")


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "weights" / "skelact-pose-start.pt"


@pytest.fixture(scope="module")
def openvino(weights: Path) -> PoseModel:
    return PoseModel(weights, "cpu")


def frames_of(shared: Path, name: str, count: int, step: int = 1) -> list[Frame]:
    return list(islice(read_frames(shared / "media" / name), 0, count * step, step))


@pytest.mark.parametrize("name", FILMS)
def test_detections_are_those_of_ultralytics(shared: Path, weights: Path, openvino: PoseModel, name: str) -> None:
    """Film of 16:9, upright and small: the same people, and joints within half a pixel."""
    frames = frames_of(shared, name, 8, 10)
    assert openvino.provenance["pose_backend"] == "openvino"
    pytorch = PoseModel(weights, "cpu", "torch")
    for frame, (same, found) in zip(frames, openvino.detect_each(frames), strict=True):
        assert same is frame
        assert_equal(found, pytorch.detect(frame))


def assert_equal(found: FramePoses, expected: FramePoses) -> None:
    # A detection right at the lowest score may be on either side of it.
    found_sure, expected_sure = found.bbox_score > 0.11, expected.bbox_score > 0.11
    assert found_sure.sum() == expected_sure.sum()
    np.testing.assert_allclose(found.bbox[found_sure], expected.bbox[expected_sure], atol=0.5)
    np.testing.assert_allclose(found.keypoint[found_sure], expected.keypoint[expected_sure], atol=0.5)
    np.testing.assert_allclose(found.bbox_score[found_sure], expected.bbox_score[expected_sure], atol=1e-3)


def test_an_openvino_folder_gives_what_ultralytics_makes_of_it(shared: Path) -> None:
    path = shared / "weights" / "yolov8n-pose_int8_openvino_model"
    yolo = load_ultralytics().YOLO(path, task="pose")
    default = openvino_core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()  # ultralytics takes it
    model = PoseModel(path, "cpu", precision={"f32": "fp32", "f16": "fp16", "bf16": "bf16"}[default])
    for frame in frames_of(shared, "jesse_dance.mp4", 3, 20):
        result = yolo.predict(frame.image, conf=0.1, max_det=100, verbose=False)[0]
        found = model.detect(frame)
        assert len(found.bbox) > 0
        distance = np.abs(found.keypoint[:, None] - result.keypoints.xy.numpy()).max(axis=(-1, -2)).min(axis=1)
        assert distance.max() < 0.5


def test_frame_by_frame_or_many_at_a_time_is_the_same(shared: Path, openvino: PoseModel) -> None:
    frames = frames_of(shared, "jesse_dance.mp4", 12)
    together = list(openvino.detect_each(frames))
    assert [frame.index for frame, _ in together] == list(range(12))
    for frame, found in together:
        np.testing.assert_array_equal(found.keypoint, openvino.detect(frame).keypoint)


def test_films_of_another_shape_in_between(shared: Path, openvino: PoseModel) -> None:
    wide, upright = frames_of(shared, "jesse_dance.mp4", 3), frames_of(shared, "bigtuo_pose_test1.mp4", 3)
    mixed = [frame for pair in zip(wide, upright, strict=True) for frame in pair]
    for frame, found in openvino.detect_each(mixed):
        np.testing.assert_array_equal(found.bbox, openvino.detect(frame).bbox)


def test_an_error_of_the_source_surfaces_and_the_model_goes_on(shared: Path, openvino: PoseModel) -> None:
    frames = frames_of(shared, "jesse_dance.mp4", 5)

    def breaking() -> Iterator[Frame]:
        yield from frames[:4]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(openvino.detect_each(breaking()))
    assert len(list(openvino.detect_each(frames))) == 5
    assert not [thread for thread in threading.enumerate() if thread.name == "decoder"]


def test_who_stops_early_leaves_no_thread(shared: Path, openvino: PoseModel) -> None:
    frames = frames_of(shared, "jesse_dance.mp4", 10)
    poses = openvino.detect_each(iter(frames))
    next(poses)
    poses.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "decoder"]


def test_signals_are_survived_after_models_are_gone(weights: Path, openvino: PoseModel) -> None:
    """On CPUs with AMX, OpenVINO's cores take the stack of signal handlers with them."""
    program = (
        "import gc, signal, subprocess, sys\n"
        "from skelact.pose import PoseModel\n"
        "first, second = PoseModel(sys.argv[1], 'cpu'), PoseModel(sys.argv[1], 'cpu')\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "signal.signal(signal.SIGCHLD, lambda *_: None)\n"
        "subprocess.run(['true'], check=True)\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(weights)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told_what_it_cannot_do(weights: Path, openvino: PoseModel) -> None:
    """OpenVINO's threads are not in it, and it would wait for them for ever."""
    program = (
        "import os, sys\n"
        "from skelact.exported import openvino_core\n"
        "openvino_core()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "from skelact.pose import PoseModel\n"
        "print(PoseModel(sys.argv[1], 'cpu', 'torch').provenance['pose_backend'])\n"
        "PoseModel(sys.argv[1], 'cpu')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(weights)], capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["torch"]
    assert "start processes by spawn" in done.stderr


def test_int8_is_calibrated_once_on_a_video(
    shared: Path, weights: Path, openvino: PoseModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf", reason="needs the extra int8")
    monkeypatch.setattr(skelact.backends, "CALIBRATION_FRAMES", 10)
    monkeypatch.setattr(skelact.backends, "MIN_CALIBRATION_FRAMES", 5)
    caplog.set_level(logging.INFO, "skelact")
    film = shared / "media" / "jesse_dance.mp4"
    with pytest.raises(SkelactError, match="int8 is calibrated on a video file, this once"):
        PoseModel(weights, "cpu", precision="int8")
    small = PoseModel(weights, "cpu", precision="int8", calibrate_on=film)
    again = PoseModel(weights, "cpu", precision="int8")
    assert (again.provenance["pose_backend"], again.provenance["pose_precision"]) == ("openvino", "int8")
    assert again.provenance["pose_backend_version"] == importlib.import_module("openvino").__version__
    apart = []
    for frame in frames_of(shared, "jesse_dance.mp4", 4, 20):
        found, exact = small.detect(frame), openvino.detect(frame)
        np.testing.assert_array_equal(found.keypoint, again.detect(frame).keypoint)
        distance = np.linalg.norm(found.keypoint[:, None] - exact.keypoint, axis=-1).mean(-1)
        apart.append(distance[exact.bbox_score.argmax() % len(found.keypoint)].min() / frame.image.shape[0])
    assert 0 < np.mean(apart) < 0.02, "of the picture's height"
    told = again.provenance["pose_calibration"]
    assert told["video_sha256"] == sha256_of(film)
    assert 0.8 * told["people"] <= told["found"] <= told["people"]
    assert 0 < told["px"] < 10
    assert f"int8 finds {told['found']} of the {told['people']} people of fp32" in caplog.text


def test_int8_is_not_calibrated_on_pictures_without_people(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf", reason="needs the extra int8")
    monkeypatch.setenv("SKELACT_CACHE", str(tmp_path))
    with VideoWriter(tmp_path / "black.mp4", (120, 160), 30) as writer:
        for k in range(40):
            writer.write(np.zeros((120, 160, 3), np.uint8), k / 30)
    with pytest.raises(SkelactError, match=r"int8 is calibrated on frames with people.* found 0"):
        quantised(weights, tmp_path / "black.mp4")


def test_the_precision_that_ran_is_told(shared: Path, weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = PoseModel(weights, "cpu", "torch", "bf16")
    assert model.provenance["pose_precision"] == "fp32"
    assert "bf16 is not to be had here, torch on cpu runs in fp32" in caplog.text
    folder = shared / "weights" / "yolov8n-pose_int8_openvino_model"
    assert PoseModel(folder, "cpu").provenance["pose_precision"] == "int8"
    with pytest.raises(SkelactError, match="leave --backend torch out"):
        PoseModel(folder, "cpu", "torch")
    with pytest.raises(SkelactError, match=r"is not in int8; give the \.pt"):
        PoseModel(exported(weights), "cpu", precision="int8")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_is_told_of_a_precision_is_what_openvino_does(weights: Path, precision: str) -> None:
    """Few machines have them all; one without fp16 took bf16 for it, and fp32 was told."""
    model = PoseModel(weights, "cpu", "openvino", precision)
    model.detect(Frame(0, 0.0, np.zeros((64, 64, 3), np.uint8)))
    (requests,) = model._network._requests.values()  # type: ignore[union-attr]
    ran = str(requests[0].get_compiled_model().get_property("INFERENCE_PRECISION_HINT"))
    names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    assert f"'{names[model.provenance['pose_precision']]}'" in ran


def test_a_folder_for_openvino_runs_on_the_cpu_beside_a_gpu(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics ran it there too, frame by frame, and was told that it were in fp16."""
    monkeypatch.setattr(skelact.pose, "choose_device", lambda device: "cuda:0")
    model = PoseModel(shared / "weights" / "yolov8n-pose_int8_openvino_model")
    assert (model.device, model.provenance["pose_precision"]) == ("cpu", "int8")
    assert isinstance(model._network, skelact.backends.OpenVinoNetwork)


def test_an_export_that_lacks_a_file_is_made_anew(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKELACT_CACHE", str(tmp_path))
    (exported(weights) / "pose.xml").unlink()
    assert PoseModel(weights, "cpu", "openvino").provenance["pose_backend"] == "openvino"


def test_int8_is_for_the_cpu(weights: Path) -> None:
    with pytest.raises(SkelactError, match=r"int8 takes a \.pt on the CPU and OpenVINO"):
        PoseModel(weights, "cpu", "torch", "int8")


def test_it_is_exported_once(weights: Path, openvino: PoseModel, caplog: pytest.LogCaptureFixture) -> None:
    folder = exported(weights)
    made = folder.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "skelact"):
        PoseModel(weights, "cpu")
    assert folder.stat().st_mtime_ns == made
    assert not caplog.records


def test_two_who_export_at_once(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is done while this one works: both take what is there, and no rest stays."""
    monkeypatch.setenv("SKELACT_CACHE", str(tmp_path))
    rename, made = os.rename, []

    def late(source: str, target: Path) -> None:
        if not made:
            made.append(target)
            exported(weights)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    folder = exported(weights)
    assert sorted(path.name for path in folder.glob("*")) == ["metadata.yaml", "pose.bin", "pose.xml"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_where_openvino_fails_pytorch_goes_on(
    shared: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> Path:
        raise RuntimeError("no operator\nof that name")

    monkeypatch.setattr(skelact.pose, "exported", fail)
    with caplog.at_level(logging.WARNING, "skelact"):
        model = PoseModel(weights, "cpu")
    assert model.provenance["pose_backend"] == "torch"
    assert [record.getMessage() for record in caplog.records] == [
        f"pose model {weights}: OpenVINO does not take it (RuntimeError: no operator of that name); PyTorch does. "
        f"Without {cache_folder() / 'openvino'} it is exported anew"
    ]
    with pytest.raises(SkelactError, match="no operator of that name"):
        PoseModel(weights, "cpu", "openvino")


def test_a_cache_that_cannot_be_written(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SKELACT_CACHE", str(tmp_path / "file"))
    assert cache_folder() == tmp_path / "file"
    assert PoseModel(weights, "cpu").provenance["pose_backend"] == "torch"


def test_backends_and_precisions_that_are_not_there(weights: Path) -> None:
    for wrong in ({"backend": "abacus"}, {"precision": "fp3"}):
        with pytest.raises(SkelactError, match="expected one of auto, torch, openvino and one of fp32, "):
            PoseModel(weights, "cpu", **wrong)
