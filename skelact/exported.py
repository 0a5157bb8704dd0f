"""Networks that were exported for another runtime, loaded so that they serve as checkpoints do.

An export keeps its checkpoint's settings as metadata and its weights in a graph, which ONNX Runtime, OpenVINO or
TorchScript runs on the CPU. Files come from strangers: what would run code or read other files is refused.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skelact.checkpoint import Checkpoint, as_told, checkpoint_of
from skelact.errors import SkelactError
from skelact.model import STGCNPP
from skelact.skeleton import Layout
from skelact.structures import Array
from skelact.torchscript import check_program
from skelact.unpickling import Refused

Metadata = dict[str, str]
Run = Callable[[Array], Array]  # clips (N, M, T, V, C) to logits (N, num_classes)

INPUT, OUTPUT = "clips", "logits"
CLIPS_AT_ONCE = 10  # in OpenVINO: more are no faster, and each number of clips that comes again takes memory for good
METADATA_KEYS = ("format", "format_version", "settings")  # as in the header of a checkpoint's file


class ExportedNetwork(nn.Module):
    """Stands for the network that was exported: clips (N, M, T, V, C) to logits (N, num_classes), on the CPU."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def forward(self, clips: Tensor) -> Tensor:
        """Clips on any device; the logits go back there."""
        logits = self._run(np.ascontiguousarray(clips.cpu().numpy(), np.float32))
        return torch.from_numpy(logits).to(clips.device)


@dataclass(frozen=True, kw_only=True)
class ExportedCheckpoint(Checkpoint):
    """A checkpoint whose weights nobody sees: it has the network only as a whole."""

    network: ExportedNetwork

    def build(self) -> ExportedNetwork:  # type: ignore[override]  # it gives logits too, but no features
        """The network."""
        return self.network


def is_exported(path: Path) -> bool:
    """Whether a model is an export, by its name; a folder is one of OpenVINO."""
    return path.suffix in _LOADERS or path.is_dir()


def load_exported(
    path: str | Path,
    stream: str | None = None,
    layout: Layout | None = None,
    class_names: tuple[str, ...] | None = None,
) -> ExportedCheckpoint:
    """Load a network that ``export`` wrote; nothing but its graph is run.

    Args:
        path: an .onnx, .xml (with its .bin beside it) or .torchscript file, or a folder with one .xml.
        stream, layout, class_names: as for ``load_checkpoint``.

    Raises:
        SkelactError: the file is missing, damaged or refused, is no export of skelact's, or its runtime is missing.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.xml"))
        if len(found) != 1:
            raise SkelactError(f"{path}: expected a folder with one OpenVINO network (.xml), found {len(found)}")
        path = found[0]
    try:
        metadata, run = _LOADERS[path.suffix](path)
    except SkelactError:
        raise
    except OSError as error:
        raise SkelactError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from None
    except Refused as error:
        raise SkelactError(
            f"{path}: refused, nothing was run: expected a network that skelact exported, but {error}"
        ) from None
    except Exception as error:  # the runtimes have errors of their own
        raise _damaged(path, error) from None
    settings = as_told(path, _read_settings(path, metadata), stream, layout, class_names)
    network = ExportedNetwork(run)
    _check_answer(path, settings, network)
    return ExportedCheckpoint(**{**vars(settings), "network": network})


def _check_answer(path: Path, settings: Checkpoint, network: ExportedNetwork) -> None:
    """Refuse settings of no network, and a graph of other shapes than they tell, before there is work for it."""
    clips = settings.clips
    shape = (2, clips.num_person, clips.clip_len, clips.layout.num_joints, clips.in_channels)
    try:
        STGCNPP(settings.model, clips.layout.adjacency())
        logits = network(torch.zeros(shape))
    except Exception as error:
        raise _damaged(path, error) from None
    if logits.shape != (2, settings.model.num_classes):
        raise SkelactError(
            f"{path}: expected logits of {settings.model.num_classes} classes for each clip, "
            f"found shape {tuple(logits.shape)} for 2 clips"
        )


def _damaged(path: Path, error: Exception) -> SkelactError:
    told = " ".join(str(error).split())[:200]
    return SkelactError(
        f"{path}: expected a network that skelact exported, found another or a damaged file "
        f"({type(error).__name__}: {told}); export it again"
    )


# --- settings ----------------------------------------------------------------------------------------------------


def _read_settings(path: Path, metadata: Mapping[str, str]) -> Checkpoint:
    """A checkpoint without weights, from what ``checkpoint.metadata_of`` made of it."""
    missing = [key for key in METADATA_KEYS if key not in metadata]
    if missing:
        raise SkelactError(
            f"{path}: expected a network that skelact exported, found one without its metadata ({', '.join(missing)}); "
            "export the checkpoint with: skelact export"
        )
    return checkpoint_of(path, metadata, {})


# --- runtimes ----------------------------------------------------------------------------------------------------


def import_extra(package: str, extra: str) -> Any:
    """A package that an extra of skelact brings.

    Raises:
        SkelactError: it is not installed.
    """
    if package == "openvino":
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not importable: no usage data
    try:
        return import_module(package)
    except ImportError as error:
        raise SkelactError(
            f'{extra} networks need the package {package} ({error}); install it with: pip install "skelact[{extra}]"'
        ) from None


def _load_onnx(path: Path) -> tuple[Metadata, Run]:
    onnx, onnxruntime = import_extra("onnx", "onnx"), import_extra("onnxruntime", "onnx")
    content = path.read_bytes()
    model = onnx.load_model_from_string(content)
    for message in _messages(model):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.external_data or message.data_location):
            raise Refused("it wants to read another file")
        if kind in ("NodeProto", "FunctionProto", "OperatorSetIdProto") and message.domain not in ("", "ai.onnx"):
            raise Refused(f"it uses operators of {message.domain!r}, which are not ONNX's own")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised too
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # as it was read here
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return metadata, lambda clips: session.run([OUTPUT], {INPUT: clips})[0]


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for child in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _messages(child)


def openvino_core() -> Any:
    """The one OpenVINO core of this process, which is never given up.

    On a CPU with AMX each core gives the thread that makes it a stack for signal handlers and frees it in the end.
    After two of them that thread is left with one that is freed, and dies of the next signal, such as Ctrl-C's.
    """
    core, owner = _only_core(import_extra("openvino", "openvino"))
    if owner != os.getpid():
        raise SkelactError(
            "OpenVINO, which ran before this process was forked, would hang in it; start processes by spawn "
            '(multiprocessing.get_context("spawn")), or take --backend torch'
        )
    return core


@functools.cache
def _only_core(openvino: Any) -> tuple[Any, int]:
    """And the process that made it."""
    return openvino.Core(), os.getpid()


def _load_openvino(path: Path) -> tuple[Metadata, Run]:
    """OpenVINO's own reader resolves no entities, knows no operators but its own and checks the size of weights."""
    text = path.read_bytes()
    if not text.startswith(b"<"):  # it would find out the format by itself
        raise Refused("it is no XML")
    core = openvino_core()
    model = core.read_model(text, path.with_suffix(".bin").read_bytes())
    metadata = {
        key: model.get_rt_info(["skelact", key]).astype(str)
        for key in METADATA_KEYS
        if model.has_rt_info(["skelact", key])
    }
    # Where the CPU has bfloat16, it would be taken.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    for_any = core.compile_model(model, "CPU", options)
    for_shape: dict[tuple[int, ...], Any] = {}

    def run_part(clips: Array) -> Array:
        """A shape that comes again, such as full batches have, gets a program of its own, a quarter faster."""
        shape = clips.shape
        if shape not in for_shape:
            for_shape[shape] = None
            return for_any(clips)[0]
        if for_shape[shape] is None:
            fixed = model.clone()
            fixed.reshape(shape)
            for_shape[shape] = core.compile_model(fixed, "CPU", options)
        return for_shape[shape](clips)[0]

    def run(clips: Array) -> Array:
        return np.concatenate([run_part(clips[k : k + CLIPS_AT_ONCE]) for k in range(0, len(clips), CLIPS_AT_ONCE)])

    return metadata, run


def _load_torchscript(path: Path) -> tuple[Metadata, Run]:
    content = path.read_bytes()
    check_program(content)
    metadata: dict[str, Any] = dict.fromkeys(METADATA_KEYS, "")  # becomes bytes
    with no_deprecations():
        program = torch.jit.load(io.BytesIO(content), map_location="cpu", _extra_files=metadata)

    def run(clips: Array) -> Array:
        with torch.inference_mode():
            return program(torch.from_numpy(clips)).numpy()

    return {key: value.decode() for key, value in metadata.items() if value}, run


@contextmanager
def no_deprecations() -> Iterator[None]:
    """Torch would have everybody leave TorchScript, which is what was asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_LOADERS = {".onnx": _load_onnx, ".xml": _load_openvino, ".torchscript": _load_torchscript}
