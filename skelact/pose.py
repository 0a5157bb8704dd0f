"""The pose estimator: any model that ultralytics' ``YOLO()`` takes, as long as it finds 17 COCO keypoints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skelact.backends import BACKENDS, PRECISIONS, Detections, OpenVinoNetwork, exported, has_openvino, quantised
from skelact.devices import choose_device, has_half
from skelact.errors import SkelactError
from skelact.files import cache_folder, sha256_of
from skelact.kinds import MODEL_SUFFIXES, kind_of
from skelact.shipped import shipped, shipped_path
from skelact.skeleton import COCO
from skelact.structures import Array, Frame, FramePoses
from skelact.video import read_ahead
from skelact.weights import YOLO26N_POSE, fetch_patiently, is_whole, offline, weights_folder, yolo_pose
from skelact.yolo import load_ultralytics

logger = logging.getLogger("skelact")

AUTO = "auto"
SHIPPED_POSE = "skelact-pose"
# Low, because ByteTrack's second stage lives on doubtful detections; the tracker decides who is a person.
MIN_BBOX_SCORE = 0.1
MAX_PERSONS = 100
CUDA_BATCH = 16  # frames at a time on a GPU
# Two detections are one body if their joints are so near, in heights: in the mean or, where a limb differs, the median.
SAME_BODY, SAME_JOINTS = 0.05, 0.02
REMOTE = ("http://", "https://", "rtsp://", "grpc://", "ul://")


def choose_pose_model(name: str | Path) -> tuple[str, str | None]:
    """What ``auto`` stands for, and why: the published weights where they can be had, else those that ship.

    Any other name stands for itself, for no reason.
    """
    if str(name) != AUTO:
        return str(name), None
    chosen, why = _automatic()
    logger.info("pose model %s: %s", chosen, why)
    return chosen, why


def _automatic() -> tuple[str, str]:
    if is_whole(YOLO26N_POSE, Path(YOLO26N_POSE.name)):  # as ultralytics would take it
        return YOLO26N_POSE.name, "the weights lie in the working folder"
    if is_whole(YOLO26N_POSE, weights_folder() / YOLO26N_POSE.file_name):
        return YOLO26N_POSE.name, "the published weights are in the cache"
    try:
        fetch_patiently(YOLO26N_POSE)
        return YOLO26N_POSE.name, "the published weights were downloaded"
    except SkelactError as error:
        if SHIPPED_POSE not in shipped():
            raise SkelactError(f"{error}; or give --pose-model the path of another") from error
        why = "offline" if offline() else str(error).partition("; ")[0]
        return SHIPPED_POSE, f"it ships with skelact, and {YOLO26N_POSE.name} is not here ({why})"


class PoseModel:
    """Finds people and their joints in frames.

    Args:
        name: a file or folder, the name of a published model, which ultralytics downloads, ``skelact-pose``, or
            ``auto`` (``choose_pose_model``).
        device: ``cuda``, ``cuda:1``, ``mps``, ``cpu``; None chooses. An OpenVINO folder runs on the CPU.
        backend: ``torch``, ``openvino``, or ``auto``: OpenVINO for a ``.pt`` on the CPU, where it is installed.
        precision: ``fp32``, ``fp16``, or in OpenVINO ``bf16`` or ``int8``; None is fp16 on a GPU, if it has it, else
            fp32.
        live: answer for each frame soonest, rather than for most frames in a second.
        calibrate_on: a video for ``int8``, whose ranges are measured once (``backends.quantised``).
        chosen: why it is this one, where it was chosen before.

    Attributes:
        provenance: the model's name, the sha256 of its file or folder, the version of ultralytics, the backend, its
            version, precision and input size (H, W) and, where it was chosen, why.

    Raises:
        SkelactError: it can't be found, loaded safely, or is no 17-keypoint pose model.
    """

    def __init__(
        self,
        name: str | Path,
        device: str | None = None,
        backend: str = "auto",
        precision: str | None = None,
        live: bool = False,
        calibrate_on: str | Path | None = None,
        chosen: str | None = None,
    ) -> None:
        import torch

        check_backend(backend, precision)
        ultralytics = load_ultralytics()
        self.name, why = (str(name), chosen) if chosen else choose_pose_model(name)
        path = _find(self.name)
        self.device = "cpu" if _is_openvino(path) else choose_device(device)
        asked, precision = precision, precision or ("fp16" if has_half(self.device) else "fp32")
        threads = torch.get_num_threads()
        try:
            with _told_clearly(self.name if self.name == path else f"{self.name} ({path})"):
                self._network = _load(path, self.name, self.device, backend, precision, live, calibrate_on)
        finally:
            # Selecting the CPU, ultralytics takes a thread away from torch, for the classifier and training too.
            torch.set_num_threads(threads)
        joints = self._network.joints
        if joints != COCO.num_joints:
            raise SkelactError(
                f"pose model {self.name}: expected {COCO.num_joints} COCO keypoints a person, found {joints}; "
                "take a model trained on COCO's people, such as yolo26n-pose.pt"
            )
        if asked not in (None, self._network.precision):
            told = "pose model %s: %s is not to be had here, %s on %s runs in %s"
            ran = self._network.precision
            logger.warning(told, self.name, asked, self._network.backend, self.device, ran)
        self.provenance = {
            "pose_model": Path(self.name).name,
            "pose_model_sha256": sha256_of(path) if Path(path).exists() else None,
            "ultralytics": ultralytics.__version__,
            "pose_backend": self._network.backend,
            "pose_backend_version": _version_of(self._network.backend),
            "pose_precision": self._network.precision,
            "pose_imgsz": list(self._network.imgsz),
            **({"pose_model_chosen": why} if why else {}),
            **({"pose_calibration": calibration} if (calibration := self._network.calibration) else {}),
        }

    def detect(self, frame: Frame) -> FramePoses:
        """Everybody in one frame."""
        return _poses(frame, self._network.detect(frame.image))

    def detect_each(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, FramePoses]]:
        """Everybody in frame after frame, in order; frames are read ahead, and several are in the works at a time."""
        for frame, found in self._network.detect_each((frame, frame.image) for frame in frames):
            yield frame, _poses(frame, found)

    def stages(self, images: Sequence[Array]) -> dict[str, Callable[[], int]]:
        """Letterbox, network and post-processing of pictures, to be timed; each tells for how many it was done."""
        return self._network.stages(images)


def _version_of(backend: str) -> str | None:
    """Of the package that runs it, as far as that is known."""
    package = {"onnx": "onnxruntime", "engine": "tensorrt"}.get(backend, backend)
    return getattr(sys.modules.get(package), "__version__", None)


def _poses(frame: Frame, found: Detections) -> FramePoses:
    keypoint, bbox, score = (array.astype(np.float32) for array in (found.keypoint, found.bbox, found.bbox_score))
    kept = single_bodies(keypoint[..., :2], bbox, score)
    keypoint = keypoint[kept]
    return FramePoses(
        frame_index=frame.index,
        time_s=frame.time_s,
        keypoint=keypoint[..., :2],
        keypoint_score=keypoint[..., 2] if keypoint.shape[-1] == 3 else np.ones(keypoint.shape[:2], np.float32),
        bbox=bbox[kept],
        bbox_score=score[kept],
    )


class _Yolo:
    """Any model that ultralytics runs, by ultralytics; on CUDA in batches, smaller ones where memory does not suffice.

    Attributes:
        precision: of what runs; an export has its own.
    """

    backend = "torch"
    calibration = None

    def __init__(self, path: str, name: str, device: str, precision: str) -> None:
        self._yolo = load_ultralytics().YOLO(path, task="pose")
        if self._yolo.task != "pose":
            raise SkelactError(f"pose model {name}: expected a pose model, found one for {self._yolo.task!r}")
        self._device, self._quantize = device, 16 if precision == "fp16" and device.startswith("cuda") else None
        found = self._results([np.zeros((64, 64, 3), np.uint8)])[0]
        self.joints = 0 if found.keypoints is None else int(found.keypoints.data.shape[1])
        self.imgsz: tuple[int, int] = tuple(self._yolo.predictor.imgsz)
        model = self._yolo.predictor.model
        self.precision = "fp16" if model.fp16 else "fp32"
        self._batch = CUDA_BATCH if device.startswith("cuda") else 1
        if not path.lower().endswith(".pt"):
            self.backend = model.format  # of ultralytics' names
            self._batch = min(CUDA_BATCH, model.batch)  # ultralytics would fill it up
        if device.startswith("cuda") and model.device.type == "cpu":
            told = (
                "pose model %s: runs on the CPU, as its runtime (%s) has no CUDA here; for ONNX that is onnxruntime-gpu"
            )
            logger.warning(told, name, self.backend)

    def _predicted(self, images: list[Array]) -> list[Any]:
        with _current(self._device):  # also in a thread, which has the first one; TensorRT's engines want their own
            found: list[Any] = self._yolo.predict(
                images,
                conf=MIN_BBOX_SCORE,
                max_det=MAX_PERSONS,
                device=self._device,
                quantize=self._quantize,
                batch=len(images),
                verbose=False,
                save=False,
            )
        return found

    def _results(self, images: list[Array]) -> list[Any]:
        """Of a batch; one for which the GPU has no memory is halved, and so are those that follow."""
        import torch

        try:
            return self._predicted(images)
        except torch.OutOfMemoryError as error:
            if len(images) == 1:
                raise SkelactError(
                    f"the GPU's memory does not suffice for the pose model ({str(error).partition('. ')[0]}); close "
                    "what else runs on it, take fewer --workers, or --device cpu"
                ) from None
        self._batch = half = (len(images) + 1) // 2
        logger.warning("the GPU's memory does not suffice for %d frames at a time; taking %d", len(images), half)
        torch.cuda.empty_cache()
        return self._results(images[:half]) + self._results(images[half:])

    def detect(self, image: Array) -> Detections:
        return _detections(self._results([image])[0])

    def detect_each(self, pictures: Iterable[tuple[Frame, Array]]) -> Iterator[tuple[Frame, Detections]]:
        ahead = 2 * self._batch

        def found() -> Iterator[tuple[Frame, Detections]]:
            with contextlib.closing(read_ahead(pictures, max(ahead, 8))) as ready:
                while batch := list(itertools.islice(ready, self._batch)):
                    results = self._results([image for _, image in batch])
                    for (frame, _), result in zip(batch, results, strict=True):
                        yield frame, _detections(result)

        with contextlib.closing(read_ahead(found(), ahead)) as answers:  # who takes them follows people meanwhile
            yield from answers

    def stages(self, images: Sequence[Array]) -> dict[str, Callable[[], int]]:
        """The steps of ``detect_each`` alone, to be timed; each tells for how many pictures it was done."""
        import torch

        self._results(list(images[: self._batch]))  # tells for how many there is memory
        size = self._batch
        batches = [list(images[k : k + size]) for k in range(0, len(images), size)]
        predictor = self._yolo.predictor
        predictor.batch = [""] * size, None, None

        def done() -> int:
            """What was asked of a GPU is done."""
            if self._device.startswith("cuda"):
                torch.cuda.synchronize(self._device)
            return len(images)

        def letterbox() -> int:
            for batch in batches:
                predictor.preprocess(batch)
            return done()

        prepared = [predictor.preprocess(batch) for batch in batches]

        def infer() -> int:
            with torch.inference_mode():
                for tensor in prepared:
                    predictor.inference(tensor)
            return done()

        def read() -> int:
            for batch, tensor, answer in zip(batches, prepared, answers, strict=True):
                predictor.postprocess(answer, tensor, batch)
            return done()

        with torch.inference_mode():
            answers = [predictor.inference(tensor) for tensor in prepared]
        return {"letterbox": letterbox, "pose": infer, "post-process": read}


def _current(device: str) -> contextlib.AbstractContextManager[Any]:
    """Within, it is the current CUDA device of this thread, if it is one."""
    import torch

    return torch.cuda.device(device) if device.startswith("cuda") else contextlib.nullcontext()


def _detections(result: Any) -> Detections:
    result = result.cpu().numpy()
    return Detections(result.keypoints.data, result.boxes.xyxy, result.boxes.conf)


def check_backend(backend: str, precision: str | None) -> None:
    """Refuse names that are none."""
    if backend not in BACKENDS or precision not in (None, *PRECISIONS):
        raise SkelactError(
            f"backend {backend!r}, precision {precision!r}: expected one of {', '.join(BACKENDS)} "
            f"and one of {', '.join(PRECISIONS)}"
        )


def _load(
    path: str,
    name: str,
    device: str,
    backend: str,
    precision: str,
    live: bool,
    calibrate_on: str | Path | None,
) -> OpenVinoNetwork | _Yolo:
    """The network in the best backend, or in the one that is asked for."""
    settings = precision, MIN_BBOX_SCORE, MAX_PERSONS, live
    if _is_openvino(path):
        if backend == "torch":
            raise SkelactError(f"pose model {name}: is a folder for OpenVINO; leave --backend torch out")
        network = OpenVinoNetwork(Path(path), *settings)
        if precision == "int8" != network.precision:
            raise SkelactError(f"pose model {name}: is not in int8; give the .pt, which is quantised once")
        return network
    is_pt = path.lower().endswith(".pt")
    if precision == "int8" and not (is_pt and device == "cpu" and backend != "torch" and has_openvino()):
        raise SkelactError(
            f'pose model {name}: int8 takes a .pt on the CPU and OpenVINO (pip install "skelact[int8]"); an export '
            "that is in int8 itself needs no --precision"
        )
    if backend == "openvino" and not (is_pt and device == "cpu"):
        raise SkelactError(f"pose model {name}: backend openvino takes a .pt or an OpenVINO folder, on --device cpu")
    reason = None
    if is_pt and device == "cpu" and (backend == "openvino" or (backend == "auto" and has_openvino())):
        if not Path(path).exists():
            load_ultralytics().YOLO(path, task="pose")  # downloads it
        try:
            video = Path(calibrate_on) if calibrate_on else None
            folder = quantised(Path(path), video) if precision == "int8" else exported(Path(path))
            return OpenVinoNetwork(folder, *settings)
        except SkelactError:
            raise
        except Exception as error:  # ultralytics' and OpenVINO's may raise anything
            if backend == "openvino" or precision == "int8":
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    yolo = _Yolo(path, name, device, precision)  # a bad file is told of here, whoever stumbled over it first
    if reason:
        logger.warning(
            "pose model %s: OpenVINO does not take it (%s); PyTorch does. Without %s it is exported anew",
            name,
            reason,
            cache_folder() / "openvino",
        )
    return yolo


def _is_openvino(path: str) -> bool:
    """Whether it is a folder for OpenVINO, which knows no CUDA."""
    return Path(path).is_dir() and any(Path(path).glob("*.xml"))


def single_bodies(keypoint: Array, bbox: Array, bbox_score: Array) -> Array:
    """Which detections to keep so that each body has one, the surest: pose non-maximum suppression.

    YOLO's own suppression compares boxes. It keeps two for one body where a limb is in one of them and not in the
    other, and would drop one of two people who embrace. Joints tell.

    Args:
        keypoint: (N, V, 2) pixels.
        bbox: (N, 4) xyxy pixels.
        bbox_score: (N,).

    Returns:
        Indices of those to keep, in order.
    """
    height = bbox[:, 3] - bbox[:, 1]
    distance = np.linalg.norm(keypoint[:, None] - keypoint, axis=-1) / np.maximum(height[:, None], height)[..., None]
    alike = (distance.mean(axis=-1) < SAME_BODY) | (np.median(distance, axis=-1) < SAME_JOINTS)
    kept: list[int] = []
    for i in np.argsort(-bbox_score, kind="stable").tolist():
        if not alike[i, kept].any():
            kept.append(i)
    return np.array(sorted(kept), np.int64)


def _find(name: str) -> str:
    """What to give to ``YOLO()``. Published weights are kept in the cache, not in the working folder."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    path = Path(name).expanduser()
    if path.suffix.lower() in (".yaml", ".yml"):
        raise SkelactError(f"pose model {name}: expected weights, found an architecture; train it first")
    if path.suffix.lower() == ".torchscript":
        raise SkelactError(f"pose model {name}: TorchScript may run code of its own; give its .pt, or an ONNX export")
    if path.exists():
        return str(path)
    if name.lower().startswith(REMOTE):
        if offline():
            raise SkelactError(f"pose model {name}: at an address, and offline; give the path of a file")
        return name
    file_name = name if path.suffix else f"{name}.pt"
    if name in shipped():
        if shipped()[name].kind != "pose":
            raise SkelactError(f"pose model {name}: names actions and finds no poses; give it as --model")
        return str(shipped_path(name))
    if file_name in GITHUB_ASSETS_NAMES:
        cached = weights_folder() / file_name
        if os.path.exists(cached):  # Path.exists() raises where the folder can't be read
            return str(cached)
        if "pose" not in file_name:
            raise SkelactError(f"pose model {name}: expected a pose model, such as yolo26n-pose.pt")
        if offline():
            raise SkelactError(f"pose model {name}: not in {cached.parent}, and offline; put the file there")
        return str(fetch_patiently(yolo_pose(file_name)))
    raise SkelactError(
        f"pose model {name}: no such file or folder, and ultralytics publishes none of that name; try yolo26n-pose.pt"
    )


_redirecting = threading.Lock()


@contextlib.contextmanager
def _told_clearly(name: str) -> Any:
    """Turn whatever ultralytics raises while loading into one line; its own output goes nowhere.

    Where output goes is the same for all threads, so one after the other.
    """
    try:
        with _redirecting, contextlib.redirect_stdout(io.StringIO()):
            yield
    except SkelactError:
        raise
    except (ModuleNotFoundError, ImportError) as error:
        if not error.name or importlib.util.find_spec(error.name):  # it is there, but something that it needs is not
            raise SkelactError(f"pose model {name}: a library that it needs can't be loaded: {error}") from error
        hint = ", skelact's extra of that name" if error.name == "openvino" else ""
        raise SkelactError(f"pose model {name}: needs {error.name}{hint} (pip install {error.name})") from error
    except PermissionError as error:
        raise SkelactError(
            f"pose model {name}: no permission to read or write {error.filename}; a published model is kept in "
            f"{weights_folder()}, or in the folder that the environment variable SKELACT_WEIGHTS names"
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise SkelactError(
            f"pose model {name}: not found here and cannot be downloaded; put the file from "
            f"https://github.com/ultralytics/assets/releases into {weights_folder()} or give --pose-model a path"
        ) from error
    except Exception as error:  # ultralytics and its backends raise nearly anything on a file that is not theirs
        reason = " ".join(str(error).split())
        if "outside the supported" in reason:
            raise SkelactError(
                f"pose model {name}: refused, nothing was run: expected the layers of a YOLO model and nothing else"
            ) from error
        found = None if os.path.isdir(name) else kind_of(name, MODEL_SUFFIXES)
        found = found or f"what cannot be loaded ({type(error).__name__}: {reason[:160]})"
        raise SkelactError(
            f"pose model {name}: expected a YOLO pose model (.pt, .onnx, .engine, an OpenVINO folder), found {found}"
        ) from error
