"""One file with everything that predicting needs: weights, layout, stream, clip settings, class names, provenance.

Ours are safetensors, which can hold no code. Published ones (mmaction2's, PYSKL's, bare state dicts) are read
by a restricted unpickler; the network's shape is read off their tensors.
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from skelact.clips import STREAMS, ClipSettings
from skelact.errors import SkelactError
from skelact.files import atomic_path
from skelact.model import STGCNPP, ModelSettings
from skelact.skeleton import HAND, NTU, Layout, as_layout, layout_of_joints
from skelact.unpickling import load_torch

logger = logging.getLogger("skelact")

FORMAT = "skelact-checkpoint"
MAX_DIGITS = 18  # of a whole number in settings
FORMAT_VERSION = 1
# The field's short names of the streams, in mmengine's config text and in file names.
STREAM_CODES = {"j": "joint", "b": "bone", "jm": "joint-motion", "bm": "bone-motion"}


@dataclass(frozen=True)
class Checkpoint:
    """A classifier at rest.

    Attributes:
        model: the network's shape.
        clips: how it wants its input.
        class_names: one for each output.
        state_dict: its weights, under the published names.
        provenance: what made it (data, pose model, command line, versions).
        metrics: what it reached, on what.
    """

    model: ModelSettings
    clips: ClipSettings
    class_names: tuple[str, ...]
    state_dict: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.clips.in_channels, self.clips.layout.num_joints) != (self.model.in_channels, self.model.num_joints):
            raise SkelactError(
                f"clips of {self.clips.layout.num_joints} joints with {self.clips.in_channels} channels don't fit a "
                f"network for {self.model.num_joints} joints with {self.model.in_channels} channels"
            )

    def build(self) -> STGCNPP:
        """The network with its weights, in evaluation mode.

        Raises:
            SkelactError: its settings ask for more weights than it holds.
        """
        held = sum(tensor.numel() for tensor in self.state_dict.values())
        if self.model.fewest_weights > held:  # before a network is made that does not fit into memory
            raise SkelactError(f"expected {self.model.fewest_weights} weights at least by its settings, found {held}")
        with torch.random.fork_rng(devices=[]):  # the first weights, which go, would use up the caller's random numbers
            network = STGCNPP(self.model, self.clips.layout.adjacency())
        network.load_state_dict(self.state_dict)
        return network.eval()


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint as safetensors, all or nothing.

        skelact.save_checkpoint(skelact.load_checkpoint("mmaction2.pth"), "mine.safetensors")

    Args:
        checkpoint: the network and its settings.
        path: the file.

    Raises:
        SkelactError: it can't be written.
    """
    # Copies: safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in checkpoint.state_dict.items()}
    # Not save_file, which makes a temporary file of its own and moves it, even over a device.
    content = save(tensors, metadata_of(checkpoint))
    with atomic_path(Path(path)) as part:
        part.write_bytes(content)


def metadata_of(checkpoint: Checkpoint) -> dict[str, str]:
    """All of a checkpoint but its weights, as in the header of its file; ``checkpoint_of`` reads it back."""
    settings = {
        "model": asdict(checkpoint.model),
        "clips": asdict(checkpoint.clips),
        "class_names": checkpoint.class_names,
        "provenance": checkpoint.provenance,
        "metrics": checkpoint.metrics,
    }
    text = json.dumps(settings, default=_plain)
    return {"format": FORMAT, "format_version": str(FORMAT_VERSION), "settings": text}


def _plain(value: Any) -> Any:
    """NumPy's and torch's numbers and arrays as JSON's."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def numbered_classes(count: int) -> tuple[str, ...]:
    """What classes are called that have no name."""
    return tuple(f"class_{k}" for k in range(count))


def load_checkpoint(
    path: str | Path,
    stream: str | None = None,
    layout: Layout | str | Path | None = None,
    class_names: tuple[str, ...] | None = None,
    strides: tuple[int, ...] | None = None,
    untold_stream: str | None = None,
) -> Checkpoint:
    """Read a checkpoint of ours, of mmaction2 or of PYSKL; nothing in it is run.

        network = skelact.load_checkpoint("runs/mine/best.safetensors").build()  # takes (N, M, T, V, C), gives logits

    Args:
        path: the file.
        stream, layout, class_names, strides: override what the file says or, for foreign ones, what is derived: the
            stream from metadata or file name, the layout from the number of joints, the strides from where the
            channels double. A layout by its name or file, too.
        untold_stream: of a foreign one that does not tell; None takes joint, with a warning.

    Returns:
        The weights, the shape of the network and what its input looks like.

    Raises:
        SkelactError: the file is missing, damaged, refused, or holds no ST-GCN++.
    """
    path, layout = Path(path), as_layout(layout)
    if not path.is_file():
        raise SkelactError(f"{path}: no such checkpoint file")
    own = is_safetensors(path)
    checkpoint = _load_own(path) if own else _from_foreign(path, stream, layout, strides, untold_stream)
    checkpoint = as_told(path, checkpoint, stream, layout, class_names)
    if strides:
        model = replace(checkpoint.model, strides=_checked_strides(path, strides, len(checkpoint.model.channels)))
        checkpoint = replace(checkpoint, model=model)
    try:
        checkpoint.build()
    except (RuntimeError, TypeError, IndexError) as error:  # the last two from damaged settings
        raise SkelactError(f"{path}: expected ST-GCN++ weights, found others: {_first_line(error)}") from None
    except SkelactError as error:
        raise SkelactError(f"{path}: {error}") from None
    return checkpoint


def as_told(
    path: Path, checkpoint: Checkpoint, stream: str | None, layout: Layout | None, class_names: tuple[str, ...] | None
) -> Checkpoint:
    """A checkpoint with what the user tells of it, as far as they do.

    Raises:
        SkelactError: it is for another stream, or the layout or the class names don't fit it.
    """
    clips = checkpoint.clips
    if stream and stream != clips.stream:
        raise SkelactError(f"{path}: was trained on stream {clips.stream!r}, cannot be used on {stream!r}")
    if layout:
        clips = replace(clips, layout=_checked_layout(path, layout, checkpoint.model.num_joints))
    names, expected = class_names or checkpoint.class_names, checkpoint.model.num_classes
    if len(names) != expected:
        raise SkelactError(f"{path}: expected {expected} class names, one an output, found {len(names)}")
    return replace(checkpoint, clips=clips, class_names=names)


# --- ours --------------------------------------------------------------------------------------------------------


def is_safetensors(path: Path) -> bool:
    """Whether a file is one, as ours are: by the length of its JSON header (8 bytes, little endian) and its brace."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise SkelactError(f"{path}: cannot be read ({error.strerror or error})") from None
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _load_own(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: a file that stays mapped can't be replaced on Windows, as training does in its end.
            state_dict = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise SkelactError(f"{path}: damaged safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise SkelactError(f"{path}: expected a skelact checkpoint, found safetensors without its metadata")
    return checkpoint_of(path, metadata, state_dict)


def checkpoint_of(path: Path, metadata: Mapping[str, str], state_dict: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint from what ``metadata_of`` made of it, and its weights.

    Raises:
        SkelactError: the metadata, which are told to be of ``path``, are damaged or newer.
    """
    try:
        settings = json.loads(metadata["settings"], parse_int=_number)
        model, clips = settings["model"], settings["clips"]
        if not isinstance(settings["provenance"], dict) or not isinstance(settings["metrics"], dict):
            raise TypeError("provenance and metrics that are no dicts")
        return Checkpoint(
            model=_settings_of(model),
            clips=ClipSettings(
                **{
                    **clips,
                    "layout": Layout.from_dict(clips["layout"]),
                    "hidden_joints": tuple(clips.get("hidden_joints", ())),
                }
            ),
            class_names=tuple(settings["class_names"]),
            state_dict=state_dict,
            provenance=settings["provenance"],
            metrics=settings["metrics"],
        )
    except SkelactError as error:
        raise SkelactError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise SkelactError(
            f"{path}: expected a skelact checkpoint of version {FORMAT_VERSION}, found version "
            f"{metadata.get('format_version')} with unreadable settings ({error}); update skelact"
        ) from None


def _number(text: str) -> int:
    """An integer of JSON that is one of a machine, too."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _settings_of(values: dict[str, Any]) -> ModelSettings:
    """JSON has no tuples."""
    plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return ModelSettings(**plain)


# --- others' -----------------------------------------------------------------------------------------------------


def _from_foreign(
    path: Path,
    stream: str | None,
    layout: Layout | None,
    strides: tuple[int, ...] | None,
    untold_stream: str | None,
) -> Checkpoint:
    content = load_torch(path)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    state_dict = _state_dict_of(path, content)
    model = _model_settings(path, state_dict, strides)
    if layout is None:
        layout = layout_of_joints(model.num_joints)
        if layout is None:
            raise SkelactError(
                f"{path}: has {model.num_joints} joints, a layout that skelact does not know; "
                "describe it with --layout FILE.json (joints, edges, center)"
            )
    layout = _checked_layout(path, layout, model.num_joints)
    dims = 3 if layout == NTU and model.in_channels == 3 else 2
    config = str(meta.get("cfg", meta.get("config", "")))
    clips = ClipSettings(
        layout=layout,
        stream=stream or _stream_of(path, config) or untold_stream or _joint(path),
        dims=dims,
        with_score=model.in_channels > dims,
        clip_len=_number_in(config, "clip_len") or ClipSettings.clip_len,
        num_person=_number_in(config, "num_person") or (1 if layout == HAND else ClipSettings.num_person),
    )
    class_names = _class_names_of(meta) or numbered_classes(model.num_classes)
    return Checkpoint(model, clips, class_names, state_dict, provenance={"source": path.name})


def _checked_layout(path: Path, layout: Layout, num_joints: int) -> Layout:
    if layout.num_joints != num_joints:
        raise SkelactError(
            f"{path}: has {num_joints} joints, but layout {layout.name!r} has {layout.num_joints}; "
            "give the layout that it was trained with"
        )
    return layout


def _state_dict_of(path: Path, content: Any) -> dict[str, Tensor]:
    """The weights under our names, whatever wraps and prefixes them."""
    if isinstance(content, Mapping):
        content = next((content[key] for key in ("state_dict", "model") if key in content), content)
    anchor = "backbone.gcn.0.gcn.A"
    keys = [str(key) for key in content] if isinstance(content, Mapping) else []
    prefix = next((key[: -len(anchor)] for key in keys if key.endswith(anchor)), None)
    if prefix is None:
        found = f"keys {', '.join(keys[:3])}..." if keys else f"a {type(content).__name__}"
        raise SkelactError(f"{path}: expected ST-GCN++ weights ({anchor}, ...), found {found}")
    weights = {
        key[len(prefix) :].replace("cls_head.fc_cls.", "cls_head.fc."): value
        for key, value in content.items()
        if isinstance(key, str) and key.startswith(prefix) and isinstance(value, Tensor)
    }
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def _model_settings(path: Path, state_dict: Mapping[str, Tensor], strides: tuple[int, ...] | None) -> ModelSettings:
    """Read the network's shape off its tensors.

    Shapes don't tell strides: every published model halves time where its channels double.
    """
    try:
        depth = 1 + max(int(key.split(".")[2]) for key in state_dict if key.startswith("backbone.gcn."))
        channels = tuple(len(state_dict[f"backbone.gcn.{i}.gcn.bn.weight"]) for i in range(depth))
        num_classes = len(state_dict["cls_head.fc.weight"])
        in_channels = state_dict["backbone.gcn.0.gcn.conv.weight"].shape[1]
        num_joints = state_dict["backbone.gcn.0.gcn.A"].shape[-1]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise SkelactError(f"{path}: expected ST-GCN++ weights, found none for {error}") from None
    if strides is None:
        doubled = (i > 0 and channels[i] == 2 * channels[i - 1] for i in range(depth))
        strides = tuple(2 if double else 1 for double in doubled)
    return ModelSettings(in_channels, num_joints, num_classes, channels, _checked_strides(path, strides, depth))


def _checked_strides(path: Path, strides: tuple[int, ...], depth: int) -> tuple[int, ...]:
    if len(strides) != depth:
        raise SkelactError(f"{path}: expected {depth} strides, one a block, found {len(strides)}")
    return strides


def _number_in(config: str, name: str) -> int | None:
    """What a config's text sets a number to, where its pipelines agree."""
    found = {int(number) for number in re.findall(rf"\b{name}['\"]?\s*[=:]\s*([1-9]\d{{0,4}})\b", config)}
    return found.pop() if len(found) == 1 else None


def _stream_of(path: Path, config: str) -> str | None:
    """The stream of a foreign checkpoint: by mmengine's config text, else by the file's name or its folder's."""
    code = re.search(r"""\bfeats['"]?\s*[=:]\s*[\[(]\s*['"](\w+)['"]\s*,?\s*[\])]""", config)
    if code and code[1] in STREAM_CODES:
        return STREAM_CODES[code[1]]
    for name in (path.stem.lower(), path.parent.name.lower()):
        # Longest first: "joint-motion" before "joint". Then PYSKL's way, a folder or a file called j, b, jm or bm.
        for stream in sorted(STREAMS, key=len, reverse=True):
            if stream in name.replace("_", "-"):
                return stream
        code = re.search(r"(?:^|[_.-])(jm|bm|j|b)(?:$|[_.-])", name)
        if code:
            return STREAM_CODES[code[1]]
    return None


def _joint(path: Path) -> str:
    logger.warning("%s: neither its metadata nor its name tells the stream; taking joint (set it with --stream)", path)
    return "joint"


def _class_names_of(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """mmengine keeps class names under ``dataset_meta``, as a dict or as its text."""
    for source in (meta.get("dataset_meta"), meta):
        if isinstance(source, str):
            with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                source = ast.literal_eval(source)
        if isinstance(source, Mapping):
            names = next((source[key] for key in ("CLASSES", "classes") if key in source), None)
            if isinstance(names, list | tuple) and names:
                return tuple(str(name) for name in names)
    return None


def _first_line(error: Exception) -> str:
    """Of what PyTorch says, without the hundreds of names that may follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    names = lines[min(1, len(lines) - 1)].split('", "')
    return '", "'.join(names[:3]) + (f'" and {len(names) - 3} more' if len(names) > 3 else "")
