"""Pose models: which ones are taken, what strangers' files can't do, and one body is one detection."""

from __future__ import annotations

import copy
import pickle
import shutil
import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import drawn_people
import numpy as np
import pytest
import torch
from stand_ins import Hostile, untrained_yolo

from skelact import pose
from skelact.backends import IOU, surest
from skelact.errors import SkelactError
from skelact.files import sha256_of
from skelact.pose import PoseModel, single_bodies
from skelact.structures import Array, Frame, FramePoses
from skelact.weights import weights_folder
from skelact.yolo import load_ultralytics

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Saves the smallest of YOLOs (``stand_ins.untrained_yolo``)."""
    return partial(untrained_yolo, tmp_path_factory.mktemp("yolo"))


def picture() -> Frame:
    image, _, _ = next(drawn_people.render(drawn_people.scene_of("wave"), 1))
    return Frame(7, 0.25, image)


# --- models that are taken ---------------------------------------------------------------------------------------


def test_a_pose_model_finds_poses(untrained: MakeModel) -> None:
    path = untrained()
    poses = PoseModel(path, "cpu").detect(picture())
    N = len(poses.bbox)
    assert (poses.frame_index, poses.time_s) == (7, 0.25)
    assert poses.keypoint.shape == (N, 17, 2)
    assert poses.keypoint_score.shape == (N, 17)
    assert (poses.bbox.shape, poses.bbox_score.shape) == ((N, 4), (N,))


def test_a_pose_model_without_keypoint_scores(untrained: MakeModel) -> None:
    poses = PoseModel(untrained(kpt_shape=(17, 2)), "cpu").detect(picture())
    assert poses.keypoint.shape[1:] == (17, 2)
    assert (poses.keypoint_score == 1).all()


def test_its_provenance_tells_it_from_all_others(untrained: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    shutil.copy(untrained(), path)
    provenance = PoseModel(path, "cpu", "torch").provenance
    assert provenance == {
        "pose_model": "mine.pt",
        "pose_model_sha256": sha256_of(path),
        "ultralytics": load_ultralytics().__version__,
        "pose_backend": "torch",
        "pose_backend_version": torch.__version__,
        "pose_precision": "fp32",
        "pose_imgsz": [640, 640],
    }


def test_nothing_is_said_on_stdout(untrained: MakeModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = PoseModel(untrained(), "cpu")
    model.detect(picture())
    (tmp_path / "empty.pt").touch()
    with pytest.raises(SkelactError):
        PoseModel(tmp_path / "empty.pt", "cpu")
    assert capfd.readouterr().out == ""


def test_torch_keeps_its_threads(untrained: MakeModel, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    (tmp_path / "no_model").mkdir()
    try:
        torch.set_num_threads(3)
        PoseModel(untrained(), "cpu").detect(picture())
        assert torch.get_num_threads() == 3
        with pytest.raises(SkelactError):
            PoseModel(tmp_path / "no_model", "cpu")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# --- several frames at a time ------------------------------------------------------------------------------------


def assert_same(found: list[FramePoses], expected: list[FramePoses]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.frame_index == other.frame_index
        np.testing.assert_allclose(one.keypoint, other.keypoint, atol=0.05)
        np.testing.assert_allclose(one.bbox_score, other.bbox_score, atol=1e-3)


def test_a_batch_that_a_gpu_has_no_memory_for_is_halved(
    untrained: MakeModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = PoseModel(untrained(), "cpu", "torch")
    network: Any = model._network
    frames = [replace(picture(), index=k) for k in range(11)]
    expected = [poses for _, poses in model.detect_each(frames)]
    predict, sizes = network._yolo.predict, []

    def small(images: list[Array], **options: Any) -> Any:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return predict(images, **options)

    monkeypatch.setattr(network._yolo, "predict", small)
    network._batch, most = 8, 3
    assert_same([poses for _, poses in model.detect_each(frames)], expected)
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 2, 1]
    assert "the GPU's memory does not suffice for 8 frames at a time; taking 4" in caplog.text
    most = 0
    with pytest.raises(SkelactError, match=r"does not suffice for the pose model \(CUDA out of memory\); close what"):
        list(model.detect_each(frames))


def test_an_export_takes_as_many_frames_as_it_was_made_for(
    untrained: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ultralytics would fill up a single one with empty ones, and compute them all."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    path = shutil.copy(untrained(), tmp_path / "mine.pt")
    export = load_ultralytics().YOLO(path, task="pose").export(format="onnx", imgsz=160, batch=4, simplify=False)
    model = PoseModel(export, "cpu")
    assert (model.provenance["pose_backend"], model.provenance["pose_precision"]) == ("onnx", "fp32")
    network: Any = model._network
    predicted, sizes = network._predicted, []
    network._predicted = lambda images: sizes.append(len(images)) or predicted(images)
    frames = [replace(picture(), index=k) for k in range(6)]
    found = [poses for _, poses in model.detect_each(frames)]
    assert sizes == [4, 2]
    assert_same(found, [model.detect(frame) for frame in frames])
    # With a GPU, but without ONNX Runtime's build for it. ultralytics says so, to nobody.
    monkeypatch.setattr(pose, "choose_device", lambda device: "cuda:0")
    monkeypatch.setattr(pose, "has_half", lambda device: True)
    monkeypatch.setattr(pose, "_current", lambda device: nullcontext())
    monkeypatch.setattr("ultralytics.engine.predictor.select_device", lambda *_, **__: torch.device("cpu"))
    assert PoseModel(export).provenance["pose_precision"] == "fp32"
    assert "runs on the CPU, as its runtime (onnx) has no CUDA here" in caplog.text


# --- models that are not -----------------------------------------------------------------------------------------


def test_a_model_of_other_keypoints(untrained: MakeModel) -> None:
    with pytest.raises(SkelactError, match=r"pose-5-3.pt: expected 17 COCO keypoints a person, found 5; take"):
        PoseModel(untrained(kpt_shape=(5, 3)), "cpu")


def test_a_model_that_finds_boxes(untrained: MakeModel) -> None:
    with pytest.raises(SkelactError, match="expected a pose model, found one for 'detect'"):
        PoseModel(untrained(task="detect"), "cpu")


def test_an_architecture_without_weights(untrained: MakeModel) -> None:
    with pytest.raises(SkelactError, match=r"yolo11n-pose-17-3.yaml: expected weights, found an architecture"):
        PoseModel(untrained().with_name("yolo11n-pose-17-3.yaml"), "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pt", "no such file or folder, and ultralytics publishes none of that name; try yolo26n-pose.pt"),
        ("no-such-folder/yolo26n-pose.pt", "no such file or folder"),
        ("yolo99n-pose", "ultralytics publishes none of that name"),
        ("yolo26n.pt", "expected a pose model, such as yolo26n-pose.pt"),
        ("yolo26n-seg", "expected a pose model, such as yolo26n-pose.pt"),
    ],
)
def test_a_name_that_is_none(name: str, message: str) -> None:
    with pytest.raises(SkelactError, match=f"pose model {name}: .*{message}"):
        PoseModel(name, "cpu")


def test_a_damaged_file(untrained: MakeModel, tmp_path: Path) -> None:
    whole = untrained().read_bytes()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    for name, found in (("empty.pt", "an empty file"), ("cut.pt", "what cannot be loaded")):
        with pytest.raises(SkelactError, match=rf"{name}: expected a YOLO pose model \(.pt, .onnx, .*found {found}"):
            PoseModel(tmp_path / name, "cpu")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("I am no model")
    (tmp_path / "folder").mkdir()
    for name, found in (("notes.txt", "text"), ("folder", "what cannot be loaded")):
        with pytest.raises(SkelactError, match=rf"{name}: expected a YOLO pose model \(.pt, .onnx, .*found {found}"):
            PoseModel(tmp_path / name, "cpu")


def test_a_pt_without_a_model(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("I am no model")
    for name in ("weights.pt", "text.pt"):
        with pytest.raises(SkelactError, match=rf"{name}: refused, nothing was run: expected the layers of a YOLO"):
            PoseModel(tmp_path / name, "cpu")


# --- strangers' files --------------------------------------------------------------------------------------------


def hostile_zip(hostile: Hostile, path: Path) -> None:
    torch.save(hostile, path)


def hostile_legacy(hostile: Hostile, path: Path) -> None:
    torch.save({"model": hostile}, path, _use_new_zipfile_serialization=False)


def hostile_pickle(hostile: Hostile, path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": hostile}))


def hostile_nested(hostile: Hostile, path: Path) -> None:
    torch.save({"epoch": 1, "model": {"deep": [("inside", hostile)]}, "train_args": {}}, path)


@pytest.mark.parametrize("save", [hostile_zip, hostile_legacy, hostile_pickle, hostile_nested])
def test_a_hostile_file_is_refused_and_not_run(
    tmp_path: Path, save: Callable[[Hostile, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "0")  # not for the user's environment to switch off
    trace, path = tmp_path / "trace", tmp_path / "yolo26n-pose.pt"
    save(Hostile(trace), path)
    with pytest.raises(SkelactError, match=r"yolo26n-pose.pt: refused, nothing was run"):
        PoseModel(path, "cpu")
    assert not trace.exists()


def test_a_hostile_passenger_of_a_real_model_is_refused(untrained: MakeModel, tmp_path: Path) -> None:
    content: dict[str, Any] = torch.load(untrained(), weights_only=False)
    trace, path = tmp_path / "trace", tmp_path / "pose.pt"
    torch.save({**content, "date": Hostile(trace)}, path)
    with pytest.raises(SkelactError, match="refused, nothing was run"):
        PoseModel(path, "cpu")
    assert not trace.exists()


def test_the_hostile_file_does_run_elsewhere(tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    hostile_zip(Hostile(tmp_path / "trace"), tmp_path / "hostile.pt")
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert (tmp_path / "trace").exists()


# --- published models --------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """Nothing leaves this machine; what was tried is listed. The cache is empty."""
    tried: list[object] = []

    def refuse(*address: object, **options: object) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("SKELACT_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tried


@pytest.mark.parametrize("name", ["yolo26n-pose.pt", "yolo26n-pose", "yolo11m-pose.pt"])
def test_a_published_model_without_a_network(no_network: list[object], tmp_path: Path, name: str) -> None:
    with pytest.raises(SkelactError) as caught:
        PoseModel(name, "cpu")
    message = str(caught.value)
    assert (
        f"cannot download {name.removesuffix('.pt')}.pt from https://github.com/ultralytics/assets/releases" in message
    )
    assert str(tmp_path / "cache") in message, "and where to put it"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"], "leaves nothing"


def test_a_published_model_put_into_the_cache_by_hand(
    no_network: list[object], tmp_path: Path, untrained: MakeModel
) -> None:
    weights_folder().mkdir()
    shutil.copy(untrained(), weights_folder() / "yolo26n-pose.pt")
    model = PoseModel("yolo26n-pose", "cpu")
    assert model.provenance["pose_model_sha256"] == sha256_of(weights_folder() / "yolo26n-pose.pt")
    assert no_network == [], "a model that is here is not asked for"


# --- what a network suggests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [1, 3])
def test_of_what_a_network_suggests_the_same_is_kept_as_by_ultralytics(num_classes: int) -> None:
    from ultralytics.utils import DEFAULT_CFG, nms

    assert DEFAULT_CFG.iou == IOU
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bodies = rng.uniform(50, 500, (6, 4))
        suggested = bodies[rng.integers(0, 6, 300)] + rng.normal(0, 15, (300, 4))
        scores = rng.uniform(0, 1, (300, num_classes)) ** 4
        found = np.hstack([suggested, scores, rng.uniform(0, 500, (300, 51))]).T.astype(np.float32)
        for max_det in (300, 5):
            bbox, score, keypoint = surest(found, num_classes, False, 0.1, max_det)
            (rows,) = nms.non_max_suppression(torch.from_numpy(found)[None], 0.1, IOU, max_det=max_det, nc=num_classes)
            assert 0 < len(rows) < 150
            np.testing.assert_array_equal(np.hstack([bbox, score[:, None]]), rows[:, :5].numpy())
            np.testing.assert_array_equal(keypoint, rows[:, 6:].numpy())


def test_a_network_that_suppresses_by_itself_is_believed() -> None:
    rows = np.random.default_rng(0).uniform(0, 1, (300, 57)).astype(np.float32)
    rows = rows[np.argsort(-rows[:, 4])]
    bbox, score, keypoint = surest(rows, 1, True, 0.5, 100)
    assert len(score) == 100
    np.testing.assert_array_equal(
        np.hstack([bbox, score[:, None], keypoint]), rows[:100, [0, 1, 2, 3, 4, *range(6, 57)]]
    )
    assert len(surest(rows, 1, True, 2.0, 100)[1]) == 0


def test_nobody_suggested() -> None:
    bbox, score, keypoint = surest(np.zeros((56, 10), np.float32), 1, False, 0.1, 300)
    assert (bbox.shape, score.shape, keypoint.shape) == ((0, 4), (0,), (0, 51))


# --- one body, one detection -------------------------------------------------------------------------------------


def bodies(*people: tuple[float, float]) -> tuple[Array, Array]:
    """Keypoints and boxes of standing people at x, so tall."""
    scene = drawn_people.scene_of("stand", seed=4)
    _, keypoint, bbox = next(drawn_people.render(scene, 1, 30, (400, 400)))
    joints, box = keypoint[0] - bbox[0, :2], bbox[0, 2:] - bbox[0, :2]
    x, size = np.array(people).T[:, :, None]
    shift = np.concatenate([x, np.full_like(x, 20)], axis=1)
    scale = size / box[1]
    corner = shift + box * scale
    return shift[:, None] + joints * scale[..., None], np.concatenate([shift, corner], axis=1)


def test_two_detections_of_one_body_are_one_the_surest() -> None:
    keypoint, bbox = bodies((100, 200), (102, 203), (101, 199), (300, 200))
    kept = single_bodies(keypoint, bbox, np.array([0.5, 0.8, 0.6, 0.3]))
    assert kept.tolist() == [1, 3]


def test_one_body_with_and_without_its_arm() -> None:
    """The boxes differ by half; all joints but the arm's are the same."""
    keypoint, bbox = bodies((100, 200), (100, 200))
    bbox[1, 0] -= 120
    keypoint[1, 9] -= (100, 40)
    assert single_bodies(keypoint, bbox, np.array([0.9, 0.4])).tolist() == [0]


def test_one_body_with_its_arms_here_or_there() -> None:
    keypoint, bbox = bodies((100, 200), (102, 200))
    keypoint[1, 7:11] += (70, -90)
    assert np.linalg.norm(keypoint[1] - keypoint[0], axis=1).mean() > 0.05 * (bbox[0, 3] - bbox[0, 1])
    assert single_bodies(keypoint, bbox, np.array([0.9, 0.4])).tolist() == [0]


@pytest.mark.parametrize("score", [(0.9, 0.4), (0.4, 0.9)])
def test_one_body_whole_and_cut_off_at_the_hips(score: tuple[float, float]) -> None:
    """The lower box is half as high; how near the joints are is told by the higher one, whichever is surer."""
    keypoint, bbox = bodies((100, 200), (108, 200))
    bbox[1, 3] -= 100
    assert single_bodies(keypoint, bbox, np.array(score)).tolist() == [int(np.argmax(score))]


def test_two_who_embrace_are_two() -> None:
    """Their boxes are the same, but not their joints."""
    keypoint, bbox = bodies((100, 200), (125, 200))
    bbox[:] = (90, 20, 220, 220)
    assert single_bodies(keypoint, bbox, np.array([0.9, 0.4])).tolist() == [0, 1]


def test_a_child_before_an_adult_is_somebody() -> None:
    keypoint, bbox = bodies((100, 300), (120, 120))
    assert single_bodies(keypoint, bbox, np.array([0.9, 0.9])).tolist() == [0, 1]


def test_nobody_and_one_alone_stay_as_they_are() -> None:
    empty = np.zeros((0, 17, 2)), np.zeros((0, 4)), np.zeros(0)
    assert single_bodies(*empty).tolist() == []
    keypoint, bbox = bodies((100, 200))
    assert single_bodies(keypoint, bbox, np.array([0.2])).tolist() == [0]


def test_the_order_of_detections_does_not_matter() -> None:
    keypoint, bbox = bodies((100, 200), (102, 203), (300, 200), (301, 200))
    score = np.array([0.5, 0.8, 0.7, 0.6])
    order = np.array([3, 1, 0, 2])
    assert single_bodies(keypoint, bbox, score).tolist() == [1, 2]
    assert order[single_bodies(keypoint[order], bbox[order], score[order])].tolist() == [1, 2]


def test_detections_are_left_as_they_were() -> None:
    values = (*bodies((100, 200), (102, 203)), np.array([0.5, 0.8]))
    before = copy.deepcopy(values)
    single_bodies(*values)
    for value, old in zip(values, before, strict=True):
        np.testing.assert_array_equal(value, old)


# --- the real thing ----------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_real_yolo_finds_drawn_people(shared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In each motion of the sample videos, with every joint within a twentieth of the figure's height on average."""
    pytest.importorskip("openvino", reason="the shared pose model is an OpenVINO export")
    model = PoseModel(shared / "weights" / "yolov8n-pose_int8_openvino_model", "cpu")
    assert len(model.provenance["pose_model_sha256"]) == 64
    for scene in drawn_people.SAMPLES.values():
        for t, (image, keypoint, _) in enumerate(drawn_people.render(scene, 4, fps=2)):
            poses = model.detect(Frame(t, t / 2, image))
            assert len(poses.bbox) == len(scene.people)
            assert poses.keypoint.dtype == poses.keypoint_score.dtype == poses.bbox.dtype == np.float32
            assert poses.keypoint_score.min() >= 0
            assert poses.keypoint_score.max() <= 1
            assert (poses.bbox[:, :2] < poses.bbox[:, 2:]).all()
            distance = np.linalg.norm(poses.keypoint[:, None] - keypoint, axis=-1).mean(axis=-1).min(axis=0)
            assert (distance < 0.05 * scene.people[0].height * image.shape[0]).all()
    assert capfd.readouterr().out == ""
