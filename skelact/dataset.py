"""Annotations to batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skelact.annotations import Annotation, AnnotationSet
from skelact.augment import MIN_SPAN, augment
from skelact.clips import (
    ClipSettings,
    check_layout,
    check_shape,
    gather,
    normalise,
    prepare_clips,
    resample,
    stream_features,
    train_frame_inds,
    train_times,
    upwards,
)
from skelact.errors import SkelactError
from skelact.runner import without_main
from skelact.structures import Array


class ClipDataset(Dataset[tuple[Tensor, int]]):
    """Samples as clips with labels; for training a random clip, the same for a seed and an index.

    Args:
        annotations: the dataset's, read as they are needed.
        indices: of those to take; all have labels.
        settings: of the network.
        train: random clips for training, or the fixed ones of testing.
        num_clips: of each sample when testing.
        repeat: how often an epoch goes through the samples.
        seed: of the random clips.
        augmentations: of ``augment.AUGMENTATIONS``, for training.
        augment_strength: multiplies their ranges.
    """

    def __init__(
        self,
        annotations: Sequence[Annotation],
        indices: Sequence[int],
        settings: ClipSettings,
        train: bool,
        num_clips: int = 1,
        repeat: int = 1,
        seed: int = 0,
        augmentations: Collection[str] = (),
        augment_strength: float = 1.0,
    ) -> None:
        self.annotations = annotations
        self.indices = indices
        self.settings = settings
        self.train = train
        self.num_clips = num_clips
        self.repeat = repeat
        self.seed = seed
        self.augmentations = frozenset(augmentations)
        self.augment_strength = augment_strength

    def __len__(self) -> int:
        return len(self.indices) * self.repeat

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Clips (M, T, V, C) for training, (num_clips, M, T, V, C) for testing, and the label.

        An index past the end means a later epoch, whose clips are others.
        """
        sample = self.annotations[self.indices[index % len(self) % len(self.indices)]]
        assert sample.label is not None
        if self.train:
            clip = self._random_clip(sample, np.random.default_rng((self.seed, index)))
        else:
            clip = prepare_clips(
                sample.keypoint, sample.keypoint_score, sample.img_shape, self.settings, self.num_clips
            )
        return torch.from_numpy(clip), sample.label

    def _random_clip(self, sample: Annotation, rng: np.random.Generator) -> Array:
        settings = self.settings
        keypoint, score = normalise(sample.keypoint, sample.keypoint_score, sample.img_shape, settings)
        num_frames, clip_len = keypoint.shape[1], settings.clip_len
        if settings.sampling == "interpolate":
            min_span = MIN_SPAN if "crop" in self.augmentations else 1.0
            keypoint, score = resample(keypoint, score, train_times(num_frames, clip_len, rng, min_span))
            frame_inds = np.arange(clip_len)
        else:
            frame_inds = train_frame_inds(num_frames, clip_len, rng)
        if self.augmentations:
            keypoint, score = augment(
                keypoint, score, settings.layout, self.augmentations, rng, self.augment_strength, upwards(settings)
            )
        return gather(stream_features(keypoint, score, settings), frame_inds[None], settings)[0]


def batches(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """A loader's batches; what goes wrong in its processes is told in one line."""
    try:
        with without_main():
            loading = iter(loader)  # starts them; by spawn on Windows and macOS
        yield from loading
    except SkelactError as error:  # from a worker, its message is a traceback with the line that matters last
        raise SkelactError(str(error).strip().splitlines()[-1].removeprefix("skelact.errors.SkelactError: ")) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise SkelactError(f"a process that prepares clips died ({error}); take fewer --workers") from None


def samples_of(dataset: AnnotationSet, split: str | None, settings: ClipSettings) -> list[int]:
    """Indices of the labelled samples of a split, of all where it is None.

    Raises:
        SkelactError: there is no such split, it is empty, or a sample does not fit the network.
    """
    check_layout(None if dataset.layout_guessed else dataset.layout, settings)
    headers = dataset.headers()
    found = dataset.indices(split) if split is not None else range(len(headers))
    labelled = [k for k in found if headers[k].label is not None]
    where = "the dataset" if split is None else f"split {split!r}"
    if not labelled:
        raise SkelactError(f"{where}: expected samples with labels, found none; --labels of convert gives them")
    for k in sorted({headers[k].shape: k for k in reversed(labelled)}.values()):  # the first of each shape
        try:
            check_shape(headers[k].shape, settings)
        except SkelactError as error:
            raise SkelactError(f"{where}: sample {headers[k].frame_dir}: {error}") from None
    return labelled
