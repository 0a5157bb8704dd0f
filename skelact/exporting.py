"""Checkpoints for other runtimes: ONNX, OpenVINO and TorchScript, checked against the network they were made from.

What is written is the network with its batch norms folded (``skelact.folded``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from skelact.checkpoint import metadata_of
from skelact.classifier import Classifier
from skelact.errors import SkelactError
from skelact.exported import (
    INPUT,
    OUTPUT,
    ExportedCheckpoint,
    Metadata,
    import_extra,
    load_exported,
    no_deprecations,
)
from skelact.files import atomic_path, check_writable, sha256_of
from skelact.shipped import shipped
from skelact.skeleton import Layout
from skelact.weights import ZOO, streams
from skelact.writers import versions

BATCHES = (1, 2, 3, 4, 10)  # random inputs that an export is checked with: 20 in all
TOLERANCE = 1e-3  # of logits
ONNX_OPSET = 17


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how well it agrees with the checkpoint.

    Attributes:
        path: of the file; OpenVINO's weights lie beside it.
        format: onnx, openvino or torchscript.
        num_inputs: random clips that both networks saw.
        batch_sizes: in which they saw them.
        max_difference: the largest of two logits.
        max_logit: the largest, regardless of its sign.
        versions: of what wrote it.
    """

    path: str
    format: str
    num_inputs: int
    batch_sizes: tuple[int, ...]
    max_difference: float
    max_logit: float
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self)


def export(
    model: str | Path,
    out: str | Path | None = None,
    format: str | None = None,
    *,
    stream: str | None = None,
    layout: Layout | str | Path | None = None,
    class_names: Sequence[str] | None = None,
    command: Sequence[str] = (),
) -> ExportReport:
    """Write a checkpoint for another runtime and check that it gives the same logits there.

        report = skelact.export("runs/mine/best.safetensors", format="onnx")
        skelact.predict("video.mp4", model=report.path)

    The graph takes clips (N, M, T, V, C) of any N and gives logits (N, num_classes). The file keeps the checkpoint's
    settings; ``predict``, ``test`` and ``info`` take it as they take the checkpoint.

    Args:
        model: name of a single stream in ``skelact weights list``, or checkpoint path.
        out: the file. None puts it beside the checkpoint, or a zoo model into the current folder.
        format: ``onnx``, ``openvino`` or ``torchscript``; None goes by the suffix of ``out``.
        stream, layout, class_names: as for ``load_checkpoint``.
        command: the command line, for the provenance.

    Returns:
        Where the file lies, and how far its logits are from the checkpoint's.

    Raises:
        SkelactError: the model is missing, refused or fused, a package is missing, the file can't be written, or it
            gives other logits.
    """
    files = files_of(model, out, format)
    out, format = files[0], _format_of(out, format)[0]
    _check_single(model)
    names = tuple(class_names) if class_names else None
    classifier = Classifier([model], stream=stream, layout=layout, class_names=names, device="cpu")
    (member,), (network,) = classifier.members, classifier.networks
    if isinstance(member.checkpoint, ExportedCheckpoint):
        raise SkelactError(f"{model}: is an export already; export the checkpoint that it was made from")
    for path in files:
        check_writable(path, [member.path])
    write, packages = _WRITERS[format]
    made_by = {**versions(), **{name: import_extra(name, format).__version__ for name in packages}}
    record = {
        **{"format": format, "checkpoint": member.path.name, "checkpoint_sha256": sha256_of(member.path)},
        **{"command": list(command), "versions": made_by},
    }
    checkpoint = replace(member.checkpoint, provenance={**member.checkpoint.provenance, "export": record})

    clips = checkpoint.clips
    shape = (clips.num_person, clips.clip_len, clips.layout.num_joints, clips.in_channels)
    with TemporaryDirectory(prefix="skelact-") as folder:
        draft = Path(folder) / out.name
        with torch.no_grad(), no_deprecations():
            write(network, torch.zeros(2, *shape), metadata_of(checkpoint), draft)
        difference, largest = compare(member.checkpoint.build(), load_exported(draft).build(), shape)
        if not difference <= TOLERANCE:
            raise SkelactError(
                f"{out}: not written: its logits differ by {difference:.2g} from those of {model}, at most "
                f"{TOLERANCE:g} was expected; try another version of {packages[0] if packages else 'torch'} or format"
            )
        for file in sorted(Path(folder).iterdir()):  # OpenVINO's weights (.bin) before the graph (.xml)
            with atomic_path(out.with_name(file.name)) as part:
                shutil.copyfile(file, part)
    return ExportReport(str(out), format, sum(BATCHES), BATCHES, difference, largest, made_by)


def files_of(model: str | Path, out: str | Path | None = None, format: str | None = None) -> tuple[Path, ...]:
    """The files that ``export`` writes: the one that is given as a model, and OpenVINO's weights beside it.

    Args:
        model, out, format: as for ``export``.
    """
    format, suffix = _format_of(out, format)
    path = _beside(model, suffix) if out is None else Path(out)
    return (path, path.with_suffix(".bin")) if format == "openvino" else (path,)


def compare(one: nn.Module, other: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
    """The largest difference between two networks' logits for random clips, and the first one's largest logit.

    Args:
        one, other: networks on the CPU.
        shape: (M, T, V, C) of one clip.
    """
    random = torch.Generator().manual_seed(0)
    batches = [torch.randn(N, *shape, generator=random) for N in BATCHES]
    with torch.inference_mode():
        expected = torch.cat([one(clips) for clips in batches])
        found = torch.cat([other(clips) for clips in batches])
    return float((found - expected).abs().max()), float(expected.abs().max())


def _format_of(out: str | Path | None, format: str | None) -> tuple[str, str]:
    """The format and its suffix."""
    suffix = None if out is None else Path(out).suffix
    if format is None:
        format = next((name for name, known in SUFFIXES.items() if known == suffix), None)
        if format is None:
            raise SkelactError(f"export: expected a format ({', '.join(SUFFIXES)}) or a file name with its suffix")
    if format not in SUFFIXES:
        raise SkelactError(f"export: expected a format of {', '.join(SUFFIXES)}, found {format!r}")
    if suffix not in (None, SUFFIXES[format]):
        raise SkelactError(f"{out}: expected a name that ends with {SUFFIXES[format]}, as {format} files do")
    return format, SUFFIXES[format]


def _check_single(model: str | Path) -> None:
    name = str(model)
    if Path(name).is_file():
        return
    members = [member.name for member, _ in streams(name)] if name in ZOO else []
    members += [member for member, _ in shipped()[name].streams] if name in shipped() else []
    if len(members) > 1:
        each = ", ".join(members)
        raise SkelactError(f"{name} fuses several networks; export each stream ({each}) and fuse the exports")


def _beside(model: str | Path, suffix: str) -> Path:
    return Path(model).with_suffix(suffix) if Path(model).is_file() else Path(f"{model}{suffix}")


# --- formats -----------------------------------------------------------------------------------------------------


def _write_onnx(network: nn.Module, example: Tensor, metadata: Metadata, path: Path) -> None:
    onnx = import_extra("onnx", "onnx")
    torch.onnx.export(
        network,
        (example,),
        path,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
        opset_version=ONNX_OPSET,
        dynamo=False,  # the other exporter needs onnxscript and, in torch 2.6, fails for a dynamic N
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def _write_openvino(network: nn.Module, example: Tensor, metadata: Metadata, path: Path) -> None:
    openvino = import_extra("openvino", "openvino")
    shape = openvino.PartialShape([-1, *example.shape[1:]])
    model = openvino.convert_model(network, example_input=example, input=[shape])
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    for key, value in metadata.items():
        model.set_rt_info(value, ["skelact", key])
    openvino.save_model(model, path, compress_to_fp16=False)


def _write_torchscript(network: nn.Module, example: Tensor, metadata: Metadata, path: Path) -> None:
    program = torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))
    torch.jit.save(program, path, _extra_files=dict(metadata))


Writer = Callable[[nn.Module, Tensor, Metadata, Path], None]
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".torchscript"}
_WRITERS: dict[str, tuple[Writer, tuple[str, ...]]] = {
    "onnx": (_write_onnx, ("onnx", "onnxruntime")),
    "openvino": (_write_openvino, ("openvino",)),
    "torchscript": (_write_torchscript, ()),
}
