"""Where the time of ``predict`` goes on this machine, against the least that it could take.

Each stage is timed alone, on frames of the video that are ready in memory, in turns with the whole; the best of several
rounds counts, for what else a machine does only makes things slower. The floor of a run is the largest of the
pose network alone, decoding alone, and the CPU seconds of both over the cores; an overlay adds a second decoding and
the encoding.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from skelact.answers import predict_sequence
from skelact.classifier import Classifier
from skelact.clips import prepare_clips, tracks_keypoint
from skelact.pipeline import DEFAULT_POSE_MODEL, FollowedFrames, estimate_poses
from skelact.pose import PoseModel
from skelact.ranges import check_numbers
from skelact.render import Overlay, draw_result
from skelact.runner import available_cores
from skelact.shipped import DEFAULT_MODEL
from skelact.skeleton import Layout
from skelact.strip import Current, Strip
from skelact.structures import Frame, PoseSequence, SourceResult
from skelact.timeline import TimelineSettings
from skelact.tracking import DEFAULT_TRACKER
from skelact.video import VideoWriter, probe_video, read_frames
from skelact.writers import versions

READY_FRAMES = 48  # kept in memory for the stages that are timed alone: 300 MB at 1080p
MIN_STAGE_S = 1.0  # how long each is timed in a round, at least
MAX_DECODED = 600  # frames
PREDICT, OVERLAY = "predict", "overlay"  # the whole, timed as stages are


@dataclass(frozen=True)
class Stage:
    """What one frame costs in one stage, alone: seconds of wall time, and of all cores together."""

    name: str
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Run:
    """A whole run of ``predict`` with its models loaded.

    Attributes:
        wall_s: of the run.
        frames_per_s: of it.
        floor_s: what it could take at least.
        ratio: of ``wall_s`` to it.
        peak_memory_mb: of the process until then; None where the system does not tell.
        peak_gpu_memory_mb: that torch had for it on a GPU until then; None without one.
    """

    wall_s: float
    frames_per_s: float
    floor_s: float
    ratio: float
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None = None


@dataclass(frozen=True)
class BenchmarkReport:
    """What ``benchmark`` found.

    Attributes:
        video: height, width, fps and number of frames.
        machine: processor, cores, device and, if that is one, the name of the GPU.
        pose: provenance of the pose model: name, hash, backend, precision, input size.
        load_s: until the models were loaded.
        stages: of a frame.
        ceiling_fps: frames/s of the pose network alone.
        predict: without an overlay.
        overlay: with one.
        versions: of what takes part.
    """

    video: dict[str, Any]
    machine: dict[str, Any]
    pose: dict[str, Any]
    load_s: float
    stages: tuple[Stage, ...]
    ceiling_fps: float
    predict: Run
    overlay: Run
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


def benchmark(
    source: str | Path,
    model: str | Path | Sequence[str | Path] = DEFAULT_MODEL,
    *,
    pose_model: str | Path = DEFAULT_POSE_MODEL,
    backend: str = "auto",
    precision: str | None = None,
    device: str | None = None,
    tracker: str = DEFAULT_TRACKER,
    clips: int = 10,
    stream: str | None = None,
    layout: Layout | str | Path | None = None,
    rounds: int = 3,
    progress: bool = True,
) -> BenchmarkReport:
    """Time ``predict`` on a video, whole and stage by stage.

        print(skelact.benchmark("video.mp4").ceiling_fps)

    Args:
        source: a video.
        model, pose_model, backend, precision, device, tracker, clips, stream, layout: as for ``predict``.
        rounds: how often all is timed; the best counts.
        progress: a bar on stderr.

    Returns:
        Seconds of each stage and of the whole, with and without an overlay.

    Raises:
        SkelactError: a model can't be loaded, or the video can't be read.
    """
    check_numbers(clips=clips, rounds=rounds)
    info = probe_video(source)
    start = time.perf_counter()
    estimator = PoseModel(pose_model, device, backend, precision, calibrate_on=source)
    models = [model] if isinstance(model, str | Path) else list(model)
    classifier = Classifier(models, stream=stream, layout=layout, device=device, progress=progress)
    load_s = time.perf_counter() - start
    timeline = TimelineSettings((classifier.window_s,))
    steps = tqdm(desc="benchmark", total=11 * rounds, unit=" steps", disable=None if progress else True)
    best: dict[str, Stage] = {}
    memory: tuple[float | None, float | None] = None, None
    overlay_memory = memory

    def keep(stage: Stage) -> None:
        best[stage.name] = min(best.get(stage.name, stage), stage, key=lambda each: each.wall_s)
        steps.update()

    def answer(sequence: PoseSequence) -> SourceResult:
        if not sequence.tracks:
            return SourceResult(str(source), sequence, granularity="timeline")
        return predict_sequence(sequence, classifier, clips=clips, granularity="auto", timeline=timeline)

    with steps, tempfile.TemporaryDirectory(prefix="skelact-benchmark-") as folder:
        estimate_poses(source, estimator, tracker, progress=False, max_frames=2)  # compiles and imports what it needs
        for _ in range(rounds):
            start, cpu = time.perf_counter(), time.process_time()
            sequence = estimate_poses(source, estimator, tracker, progress=False)
            result = answer(sequence)
            keep(Stage(PREDICT, time.perf_counter() - start, time.process_time() - cpu))
            memory = memory if any(memory) else _peak_memory_mb(estimator.device)
            start, cpu = time.perf_counter(), time.process_time()
            draw_result(Path(source), result, Path(folder, "overlay.mp4"))
            keep(Stage(OVERLAY, time.perf_counter() - start, time.process_time() - cpu))
            overlay_memory = overlay_memory if any(overlay_memory) else _peak_memory_mb(estimator.device)
            for stage in _stages(Path(source), estimator, classifier, result, answer, tracker, clips, Path(folder)):
                keep(stage)

    frames, cores = sequence.num_frames, available_cores()
    predict_s, overlay_s = best.pop(PREDICT).wall_s, best.pop(OVERLAY).wall_s
    floor_s = frames * _floor(best["pose"], best["decode"], cores)
    with_overlay_s = floor_s + frames * _floor(best["decode"], best["encode"], cores)
    height, width = info.img_shape
    return BenchmarkReport(
        video={"height": height, "width": width, "fps": info.fps, "num_frames": frames},
        machine={"processor": _processor(), "cores": cores, **_device(estimator.device)},
        pose=estimator.provenance,
        load_s=load_s,
        stages=tuple(best.values()),
        ceiling_fps=1 / best["pose"].wall_s,
        predict=_run(predict_s, frames, floor_s, memory),
        overlay=_run(predict_s + overlay_s, frames, with_overlay_s, overlay_memory),
        versions=versions(),
    )


def _floor(first: Stage, second: Stage, cores: int) -> float:
    """Seconds a frame that two stages side by side take at least."""
    return max(first.wall_s, second.wall_s, (first.cpu_s + second.cpu_s) / cores)


def _run(wall_s: float, frames: int, floor_s: float, memory: tuple[float | None, float | None]) -> Run:
    return Run(wall_s, frames / wall_s, floor_s, wall_s / floor_s, *memory)


def _stages(
    source: Path,
    estimator: PoseModel,
    classifier: Classifier,
    result: SourceResult,
    answer: Callable[[PoseSequence], SourceResult],
    tracker: str,
    clips: int,
    folder: Path,
) -> Iterator[Stage]:
    """Time stage after stage."""
    sequence = result.sequence
    assert sequence is not None
    spread = max(1, min(sequence.num_frames, MAX_DECODED) // READY_FRAMES)
    ready: list[Frame] = []

    def decode() -> int:
        frame = None
        for frame in itertools.islice(read_frames(source), MAX_DECODED):
            if frame.index % spread == 0 and len(ready) < READY_FRAMES:
                ready.append(frame)
        return 0 if frame is None else frame.index + 1

    yield _timed("decode", decode, at_least_s=0)
    images = [frame.image for frame in ready]
    for name, work in estimator.stages(images).items():
        # The network for as long as a run has it: a machine whose speed varies is faster in some short while.
        yield _timed(name, work, at_least_frames=min(sequence.num_frames, MAX_DECODED) if name == "pose" else 1)

    found = [estimator.detect(frame) for frame in ready]

    def follow() -> int:
        followed = FollowedFrames(tracker, sequence.info)
        for frame, poses in zip(followed.look_through(ready), found, strict=True):
            followed.follow(frame, poses)
        followed.sequence({}, clean=True)
        return len(ready)

    yield _timed("track", follow)
    persons = sequence.tracks[: classifier.num_person]
    if persons:
        sample = tracks_keypoint(persons, sequence.num_frames)

        def prepare() -> int:
            for member in classifier.members:
                for _ in prepare_clips(*sample, sequence.info.img_shape, member.checkpoint.clips, clips):
                    pass
            return sequence.num_frames

        def classify() -> int:  # all windows of everybody, or the clips of one answer
            answer(sequence)
            return sequence.num_frames

        yield _timed("clips", prepare)
        yield _timed("classify", classify)
    overlay = Overlay(sequence)
    segments = result.predictions if result.granularity != "clip" else ()
    current = Current(segments)
    strip = Strip(segments, float(sequence.time_s[-1]), sequence.info.img_shape) if segments else None

    def draw() -> int:
        for frame in ready:
            image = overlay.draw(frame.image, frame.index, "benchmark", current.captions(frame.time_s))
            if strip:
                np.concatenate([image, strip.draw(frame.time_s)])
        return len(ready)

    def encode() -> int:
        with VideoWriter(folder / "encode.mp4", sequence.info.img_shape, sequence.info.fps) as writer:
            for k, image in enumerate(images):
                writer.write(image, k / sequence.info.fps)
        return len(images)

    yield _timed("draw", draw)
    yield _timed("encode", encode)


def _timed(name: str, work: Callable[[], int], at_least_s: float = MIN_STAGE_S, at_least_frames: int = 1) -> Stage:
    """Time some work again and again.

    Args:
        name: of the stage.
        work: tells for how many frames it was done.
        at_least_s: how long; the first time, which warms up, is not counted unless it is 0.
        at_least_frames: for how many.
    """
    if at_least_s:
        work()
    frames, wall, cpu = 0, time.perf_counter(), time.process_time()
    while frames < at_least_frames or time.perf_counter() - wall < at_least_s:
        frames += work()
    return Stage(name, (time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames)


def _peak_memory_mb(device: str) -> tuple[float | None, float | None]:
    """The most memory that this process has had, and what torch has had on a GPU."""
    import torch

    on_gpu = torch.cuda.max_memory_reserved(device) / (1 << 20) if device.startswith("cuda") else None
    with contextlib.suppress(ImportError):  # Windows has none
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), on_gpu
    return None, on_gpu


def _device(device: str) -> dict[str, str]:
    import torch

    return {"device": device, **({"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {})}


def _processor() -> str:
    """Its name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
