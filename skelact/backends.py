"""Pose networks in OpenVINO: a ``.pt`` is exported once, and several frames are in the works at a time.

The picture is prepared and the answer read so that detections equal those of ultralytics' ``YOLO``, mostly by its code.
Inference requests are our own, as ultralytics runs one frame after the other.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from skelact.errors import SkelactError
from skelact.exported import import_extra, no_deprecations, openvino_core
from skelact.files import cache_folder, sha256_of
from skelact.linking import box_iou
from skelact.structures import Array
from skelact.video import read_ahead, read_frames
from skelact.yolo import load_ultralytics

logger = logging.getLogger("skelact")

BACKENDS = ("auto", "torch", "openvino")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
EXPORT_FORMAT = 1  # part of the key under which exports are kept: raise it when they would come out differently
IOU = 0.7  # ultralytics' default in prediction
CALIBRATION_FRAMES = 100  # on which the ranges of int8 are measured
MIN_CALIBRATION_FRAMES = 20
CALIBRATION = 2  # part of the key of networks in int8, as EXPORT_FORMAT
SURE = 0.5  # score of a person from which a frame is one with people
SPARE_REQUESTS = 1  # frames that wait for a core, beyond those in the works

Named = TypeVar("Named")


@dataclass(frozen=True)
class Detections:
    """What a network finds in a picture: keypoint (N, V, 2 or 3), bbox (N, 4) xyxy, in pixels, bbox_score (N,)."""

    keypoint: Array
    bbox: Array
    bbox_score: Array


def has_openvino() -> bool:
    """Whether the extra ``openvino`` is installed."""
    return importlib.util.find_spec("openvino") is not None


def exported(path: Path) -> Path:
    """The folder with a ``.pt`` as an OpenVINO network, which is made when it is asked for the first time.

    One export serves all shapes of video: OpenVINO fixes the shape when it compiles.

    Args:
        path: of the ``.pt``.
    """
    ultralytics = load_ultralytics()
    versions = f"{EXPORT_FORMAT}-{ultralytics.__version__}-{version('torch')}-{version('openvino')}"
    folder = cache_folder() / "openvino" / f"{sha256_of(path)}-{versions}"
    if _is_whole(folder):
        return folder
    logger.info("pose model %s: exporting it for OpenVINO, this once, into %s", path.name, folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as work:
        copy = shutil.copyfile(path, Path(work, "pose.pt"))  # ultralytics writes beside it
        model = ultralytics.YOLO(copy, task="pose")
        if model.task != "pose":
            raise SkelactError(f"pose model {path}: expected a pose model, found one for {model.task!r}")
        with no_deprecations():
            made = model.export(format="openvino", dynamic=True, device="cpu")
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(made, folder)
    return folder


def quantised(path: Path, video: Path | None) -> Path:
    """The folder with a ``.pt`` in int8, made of ``exported`` when it is asked for the first time.

    The convolutions are quantised with NNCF, as ultralytics' own export does it; its head stays in floating point.

    Args:
        path: of the ``.pt``.
        video: frames of it tell the ranges of the activations; needed only if the network has to be made.

    Raises:
        SkelactError: it has to be made, and there is no video, or NNCF is not installed.
    """
    plain = exported(path)
    folder = plain.with_name(f"{plain.name}-int8-{CALIBRATION}")
    if _is_whole(folder):
        return folder
    nncf = import_extra("nncf", "int8")
    if video is None:
        raise SkelactError(
            f"pose model {path.name}: int8 is calibrated on a video file, this once; "
            "run skelact predict VIDEO --precision int8 first"
        )
    logger.info("pose model %s: quantising it on frames of %s, this once, into %s", path.name, video, folder.parent)
    pictures = _with_people(OpenVinoNetwork(plain, "fp32", SURE, 100, live=False), video)
    clips = [picture[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255 for picture in pictures]
    network = openvino_core().read_model(next(plain.glob("*.xml")))
    names = {op.get_friendly_name(): op.get_type_name() for op in network.get_ordered_ops()}
    head = [name for name, kind in names.items() if kind == "Sigmoid"][-1].partition("/")[0]
    kept = [name for name, kind in names.items() if kind == "Sigmoid" or name.startswith((f"{head}/", f"{head}.dfl"))]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as work, no_deprecations():
        made = nncf.quantize(
            network,
            nncf.Dataset(clips),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(clips),
            ignored_scope=nncf.IgnoredScope(names=kept),
        )
        import openvino

        openvino.save_model(made, Path(work, "int8", "pose.xml"))
        shutil.copy(plain / "metadata.yaml", Path(work, "int8"))
        told = {"video_sha256": sha256_of(video), **_loss(plain, Path(work, "int8"), pictures)}
        Path(work, "int8", "calibration.json").write_text(json.dumps(told), encoding="utf-8")
        found = "pose model %s: in %d frames int8 finds %d of the %d people of fp32, joints %s px apart"
        logger.info(found, path.name, *(told[key] for key in ("frames", "found", "people", "px")))
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(Path(work, "int8"), folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a folder has all files of an export; one that lacks some, as cleaners of caches leave it, is removed."""
    if all(any(folder.glob(pattern)) for pattern in ("*.xml", "*.bin", "metadata.yaml")):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _with_people(network: OpenVinoNetwork, video: Path) -> list[Array]:
    """Frames of a video in which a network finds somebody, evenly spread over it, as the network takes them.

    Raises:
        SkelactError: there are too few.
    """
    kept: list[Array] = []
    step = 1
    for k, frame in enumerate(read_frames(video)):  # not all containers tell how many there are
        if k % step == 0:
            kept.append(network.prepare(frame.image))
            if len(kept) == 4 * CALIBRATION_FRAMES:
                kept, step = kept[::2], 2 * step
    named = (((k, picture.shape[1:3]), picture) for k, picture in enumerate(kept))
    answers = network.infer_each(named)
    seen = [k for (k, img_shape), shape, answer in answers if len(network.read(answer, shape, img_shape).bbox)]
    if len(seen) < MIN_CALIBRATION_FRAMES:
        raise SkelactError(
            f"{video}: int8 is calibrated on frames with people, this once: expected {MIN_CALIBRATION_FRAMES} "
            f"at least, found {len(seen)}; run skelact predict VIDEO --precision int8 on another video first"
        )
    chosen = np.linspace(0, len(seen) - 1, min(len(seen), CALIBRATION_FRAMES)).round().astype(int)
    return [kept[seen[k]] for k in chosen]


def _loss(plain: Path, folder: Path, pictures: Sequence[Array]) -> dict[str, Any]:
    """What a quantised network loses on pictures against the one that it was made of.

    Returns:
        frames: how many; people: that the first finds; found: those of them whom the second finds, by boxes; px: the
        mean distance of their joints, in pixels of the network's input.
    """
    found = []
    for each in (plain, folder):
        network = OpenVinoNetwork(each, "fp32", SURE, 100, live=False)
        answers = network.infer_each((None, picture) for picture in pictures)
        found.append([network.read(answer, shape, shape[1:3]) for _, shape, answer in answers])
    people, apart = 0, []
    for first, second in zip(*found, strict=True):
        people += len(first.bbox)
        if len(first.bbox) and len(second.bbox):
            overlap = np.stack([box_iou(box, second.bbox) for box in first.bbox])
            joints = np.linalg.norm(first.keypoint[:, None, :, :2] - second.keypoint[None, ..., :2], axis=-1).mean(-1)
            apart += joints[np.arange(len(joints)), overlap.argmax(1)][overlap.max(1) >= 0.5].tolist()
    px = round(float(np.mean(apart)), 3) if apart else None
    return {"frames": len(pictures), "people": people, "found": len(apart), "px": px}


class OpenVinoNetwork:
    """A pose network in a folder that ultralytics' export wrote.

    Args:
        folder: with one ``.xml`` and ``metadata.yaml``.
        precision: one of ``PRECISIONS``; the hardware takes the nearest that it has.
        conf: score of a detection from which it counts.
        max_det: how many to keep.
        live: answer for each frame soonest, rather than for most frames in a second.

    Attributes:
        joints: how many it finds.
        precision: what it runs in: the one that was asked for, if the machine has it, or that of the network itself.
        calibration: of a network that skelact quantised: on what, and what was lost (``_loss``).
        imgsz: (H, W) in pixels, in which a picture is fitted.
    """

    backend = "openvino"

    def __init__(self, folder: Path, precision: str, conf: float, max_det: int, live: bool) -> None:
        import openvino
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils import YAML

        found = YAML.load(folder / "metadata.yaml")
        self.joints: int = found["kpt_shape"][0]
        self.imgsz: tuple[int, int] = tuple(found["imgsz"])
        self._kpt_shape, self._classes = found["kpt_shape"], len(found["names"])
        self._end2end = bool(found.get("end2end"))
        self._conf, self._max_det = conf, max_det
        self._core = openvino_core()
        self._network = _taking_pictures(self._core.read_model(next(folder.glob("*.xml"))))
        dynamic = self._network.input().partial_shape.is_dynamic
        self._letterbox = LetterBox(self.imgsz, auto=dynamic, stride=int(found["stride"]))
        if precision == "int8" or precision.upper() not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            precision = "fp32"  # asked for fp16, a CPU without it would take bf16
        is_quantised = any(op.get_type_name() == "FakeQuantize" for op in self._network.get_ops())
        self.precision = "int8" if is_quantised else precision
        notes = folder / "calibration.json"
        self.calibration = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else None
        types = {"fp16": openvino.Type.f16, "bf16": openvino.Type.bf16}  # int8 stands in the network itself
        self._hints = {
            "PERFORMANCE_HINT": "LATENCY" if live else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": types.get(precision, openvino.Type.f32),
        }
        self._requests: dict[tuple[int, ...], list[Any]] = {}

    def detect(self, image: Array) -> Detections:
        """Everybody in one picture (H, W, 3) BGR uint8."""
        prepared = self.prepare(image)
        request = self._requests_for(prepared.shape)[0]
        request.start_async([prepared], share_inputs=False)
        return self.read(_answer(request), prepared.shape, image.shape)

    def detect_each(self, pictures: Iterable[tuple[Named, Array]]) -> Iterator[tuple[Named, Detections]]:
        """Everybody in picture after picture, each with the name that it came with, in order.

        Pictures are read and prepared in a thread of their own while others are in the network.
        """
        prepared = (((name, image.shape), self.prepare(image)) for name, image in pictures)
        with contextlib.closing(read_ahead(prepared)) as ready:
            for (name, img_shape), shape, answer in self.infer_each(ready):
                yield name, self.read(answer, shape, img_shape)

    def prepare(self, image: Array) -> Array:
        """A picture as the network takes it: scaled, and padded with grey; (1, H, W, 3) BGR uint8."""
        prepared: Array = np.ascontiguousarray(self._letterbox(image=image))[None]
        return prepared

    def infer_each(self, prepared: Iterable[tuple[Named, Array]]) -> Iterator[tuple[Named, tuple[int, ...], Array]]:
        """Through the network, several pictures at a time: the name, shape and raw answer of each, in order.

        An answer lies in the network's memory until the next one is asked for.
        """
        busy: deque[tuple[Named, tuple[int, ...], Any]] = deque()

        def oldest() -> tuple[Named, tuple[int, ...], Array]:
            name, shape, request = busy.popleft()
            return name, shape, _answer(request)

        try:
            for name, image in prepared:
                _, *requests = self._requests_for(image.shape)
                if len(busy) >= len(requests):
                    yield oldest()
                free = next(request for request in requests if all(request is not other for *_, other in busy))
                free.start_async([image], share_inputs=False)
                busy.append((name, image.shape, free))
            while busy:
                yield oldest()
        finally:
            for *_, request in busy:
                request.wait()

    def read(self, answer: Array, shape: tuple[int, ...], img_shape: tuple[int, ...]) -> Detections:
        """What an answer says.

        Args:
            answer: raw, of ``infer_each``.
            shape: of the prepared picture, (1, H, W, 3).
            img_shape: (H, W, ...) of the picture itself.
        """
        from ultralytics.utils import ops

        bbox, score, keypoint = surest(answer[0], self._classes, self._end2end, self._conf, self._max_det)
        bbox = ops.scale_boxes(shape[1:3], bbox, img_shape[:2])
        keypoint = ops.scale_coords(shape[1:3], keypoint.reshape(len(bbox), *self._kpt_shape), img_shape[:2])
        return Detections(keypoint, bbox, score)

    def stages(self, images: Sequence[Array]) -> dict[str, Callable[[], int]]:
        """The steps of ``detect_each`` alone, to be timed; each tells for how many pictures it was done."""
        prepared = [((k, image.shape), self.prepare(image)) for k, image in enumerate(images)]
        answers = [(name, shape, answer.copy()) for name, shape, answer in self.infer_each(prepared)]

        def read() -> int:
            for (_, img_shape), shape, answer in answers:
                self.read(answer, shape, img_shape)
            return len(answers)

        return {
            "letterbox": lambda: len([self.prepare(image) for image in images]),
            "pose": lambda: sum(1 for _ in self.infer_each(prepared)),
            "post-process": read,
        }

    def _requests_for(self, shape: tuple[int, ...]) -> list[Any]:
        """Requests of the network compiled for this shape of input: the first for ``detect``, the others in a row."""
        if shape not in self._requests:
            network = self._network.clone()
            network.reshape(list(shape))
            compiled = self._core.compile_model(network, "CPU", self._hints)
            count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + SPARE_REQUESTS
            self._requests[shape] = [compiled.create_infer_request() for _ in range(1 + count)]
        return self._requests[shape]


def surest(found: Array, num_classes: int, end2end: bool, conf: float, max_det: int) -> tuple[Array, Array, Array]:
    """Of all that a network suggests in a picture, what ultralytics would keep: boxes, scores and keypoints.

    OpenCV's non-maximum suppression takes a tenth of the time of ultralytics' own, which is made for batches.

    Args:
        found: (4 + classes + keypoints, candidates): x and y of the middle, width, height, scores, keypoints. Of a
            network that suppresses by itself, ``end2end``, rows of x1, y1, x2, y2, score, class, keypoints.
        num_classes, end2end: of the network.
        conf: score from which a candidate counts.
        max_det: how many to keep.

    Returns:
        (N, 4) xyxy, (N,), best first, and (N, ...).
    """
    if end2end:
        rows = found[found[:, 4] > conf][:max_det]
        return rows[:, :4], rows[:, 4], rows[:, 6:]
    first = 4 + num_classes  # of the keypoints
    rows = found[:, found[4:first].max(axis=0) > conf].T
    middle, half = rows[:, :2], rows[:, 2:4] / 2
    bbox = np.hstack([middle - half, middle + half])
    corner_and_size: Any = np.hstack([bbox[:, :2], rows[:, 2:4]])
    score: Any = rows[:, 4:first].max(axis=1)
    kind: Any = rows[:, 4:first].argmax(axis=1)
    kept = np.array(cv2.dnn.NMSBoxesBatched(corner_and_size, score, kind, conf, IOU), int)[:max_det]
    return bbox[kept], score[kept], rows[kept, first:]


def _answer(request: Any) -> Array:
    """A request's answer, once it is there; the request's next one takes its place."""
    request.wait()
    answer: Array = request.get_output_tensor().data
    return answer


def _taking_pictures(network: Any) -> Any:
    """The network with what comes before it: BGR uint8 to RGB in [0, 1], channels first."""
    import openvino
    from openvino.preprocess import ColorFormat, PrePostProcessor

    steps = PrePostProcessor(network)
    tensor = steps.input().tensor().set_element_type(openvino.Type.u8)
    tensor.set_layout(openvino.Layout("NHWC")).set_color_format(ColorFormat.BGR)
    converted = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    converted.convert_color(ColorFormat.RGB).scale(255.0)
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    return steps.build()
