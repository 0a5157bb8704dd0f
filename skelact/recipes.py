"""How to train: every setting of a run, and the two recipes."""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from skelact.augment import AUGMENTATIONS, DEFAULT_AUGMENTATIONS
from skelact.clips import NORMALISERS, SAMPLINGS, STREAMS
from skelact.errors import SkelactError
from skelact.ranges import RANGES, check_numbers

PUBLISHED_BATCH_SIZE = 128  # the one that a learning rate of 0.1 stands for


@dataclass(frozen=True)
class TrainSettings:
    """All that a run depends on besides its data; the defaults are skelact's recipe.

        settings = dataclasses.replace(skelact.RECIPES["published"], stream="bone", epochs=24)

    Attributes:
        stream: one of ``clips.STREAMS``.
        epochs: the learning rate falls to 0 over them, as half a cosine, step by step.
        repeat: passes over the training split in an epoch; None: as many as make ``EPOCH_CLIPS`` clips.
        batch_size: clips in a step, of all processes together.
        lr: with ``auto_scale_lr`` it stands for a batch of 128 and is scaled to this one.
        warmup_epochs: the learning rate rises over them.
        momentum, weight_decay: of SGD with Nesterov's momentum.
        label_smoothing: share of the target that is spread over all classes.
        ema: decay per step of the moving average of the weights, which is what is kept; 0: no average.
        augmentations: of ``augment.AUGMENTATIONS``.
        augment_strength: multiplies their ranges.
        mixup: of the Beta distribution that says how two clips and their labels are mixed (Zhang et al., arXiv
            1710.09412); 0: not at all.
        dropout: share of the features that the head does not see.
        balance: whether the loss weighs rare classes up.
        clip_len: frames in a clip; None: as in the checkpoint to start from, else the median length of the data, from
            32 to 100.
        num_person: slots in a clip; None: as there, else as the data have, at most 2.
        normaliser, sampling: of ``clips.ClipSettings``; None: as there, else ``body`` (in 3D
            ``published``) and ``interpolate``.
        hidden_joints, binary_scores: of ``clips.ClipSettings``.
        width: channels of the first block; 64 as published.
        split, val_split: names in the dataset; with no ``val_split``, or ``none``, the last epoch is the best.
        val_every: epochs from one validation to the next.
        freeze: train the head only.
        skip_empty: compute the slots of clips in which nobody is once a step (``model.STGCNPP``).
        amp: 16-bit floats where they are safe.
        compile: have torch compile the network.
        deterministic: only deterministic operations, on a GPU too.
        seed: of weights and clips.
    """

    stream: str = "joint"
    epochs: int = 30
    repeat: int | None = None
    batch_size: int = 32
    lr: float = 0.4
    auto_scale_lr: bool = True
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema: float = 0.99
    augmentations: tuple[str, ...] = DEFAULT_AUGMENTATIONS
    augment_strength: float = 1.0
    mixup: float = 0.0
    dropout: float = 0.0
    balance: bool = False
    clip_len: int | None = None
    num_person: int | None = None
    normaliser: str | None = None
    sampling: str | None = None
    hidden_joints: tuple[str, ...] = ()
    binary_scores: bool = False
    width: int = 64
    split: str | None = None
    val_split: str | None = None
    val_every: int = 1
    freeze: bool = False
    skip_empty: bool = False
    amp: bool = False
    compile: bool = False
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, np.generic | list):
                value = value.item() if isinstance(value, np.generic) else tuple(value)
                object.__setattr__(self, name, value)
            if not _is_a(value, kind):
                told = str(getattr(kind, "__name__", kind)).replace(" | None", ", or None")
                raise SkelactError(f"{name}: expected {told}, found {value!r}")
            if value is not None and name in RANGES:
                check_numbers(**{name: value})
        choices = {"stream": STREAMS, "normaliser": (None, *NORMALISERS), "sampling": (None, *SAMPLINGS)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                told = ", ".join(value for value in known if value)
                raise SkelactError(f"{name}: expected one of {told}, found {getattr(self, name)!r}")
        unknown = set(self.augmentations) - set(AUGMENTATIONS)
        if unknown:
            raise SkelactError(f"augmentations: expected some of {', '.join(AUGMENTATIONS)}, found {min(unknown)!r}")


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type; a bool is no number, a whole number is a float, too."""
    if isinstance(kind, UnionType):
        return any(_is_a(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(each, get_args(kind)[0]) for each in value)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return isinstance(value, kind)


EPOCH_CLIPS = 2000
RECIPES = {
    "default": TrainSettings(),
    "published": TrainSettings(
        epochs=16,
        repeat=5,
        batch_size=PUBLISHED_BATCH_SIZE,
        lr=0.1,
        auto_scale_lr=False,
        warmup_epochs=0,
        label_smoothing=0,
        ema=0,
        augmentations=(),
        clip_len=100,
        num_person=2,
        normaliser="published",
        sampling="uniform",
    ),
}
