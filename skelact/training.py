"""One visible training loop: from a pose dataset to a classifier."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Sampler, Subset
from tqdm import tqdm

import skelact
from skelact.annotations import PICKLE_FPS, AnnotationSet, dataset_sha256, open_annotations
from skelact.calibration import calibrate, scores_of
from skelact.checkpoint import Checkpoint, is_safetensors, load_checkpoint, numbered_classes, save_checkpoint
from skelact.clips import STREAMS, ClipSettings
from skelact.dataset import ClipDataset, batches, samples_of
from skelact.devices import training_half
from skelact.errors import SkelactError
from skelact.evaluate import score_samples
from skelact.exported import is_exported
from skelact.files import sha256_of
from skelact.metrics import accuracy, report
from skelact.model import PUBLISHED_CHANNELS, STGCNPP, ModelSettings
from skelact.parallel import Processes, processes
from skelact.plots import plot_confusion
from skelact.ranges import check_numbers
from skelact.recipes import EPOCH_CLIPS, PUBLISHED_BATCH_SIZE, TrainSettings
from skelact.run_folder import LOG_FIELDS, STATE, RunFolder, load_state
from skelact.runner import available_cores
from skelact.skeleton import NTU, Layout, as_layout, load_layout
from skelact.structures import Array
from skelact.weights import FOUR_STREAM, TWO_STREAM, ResolvedModel, resolve
from skelact.writers import record, write_json

logger = logging.getLogger("skelact")

# Processes that prepare clips for one GPU: 6,800 clips a second or more, in batches that fit into the 64 MB that Docker
# lets processes share.
MAX_WORKERS = 4


@dataclass(frozen=True)
class TrainReport:
    """Where a run's best and last checkpoints lie, and what the best reaches on the validation split, if there is one.

    Attributes:
        best, last: safetensors.
        val_top1: None without a validation split.
        val_scores: (N, num_classes) with one clip a sample; None without.
        val_labels: (N,).
    """

    best: Path
    last: Path
    val_top1: float | None = None
    val_scores: Array | None = None
    val_labels: Array | None = None


@dataclass(frozen=True)
class Job:
    """A dataset, read as a run needs it.

    Attributes:
        clips, model: shapes of the input and the network.
        class_names: one for each label.
        training, validation: clips of the splits; no validation split: None.
        split, val_split: their names.
        init: the checkpoint to start from.
        all_labels: of every sample of the dataset.
        clip_s: the median length of the samples that are trained on, in seconds.
    """

    clips: ClipSettings
    model: ModelSettings
    class_names: tuple[str, ...]
    training: ClipDataset
    validation: ClipDataset | None
    split: str | None
    val_split: str | None
    init: Checkpoint | None
    all_labels: tuple[int | None, ...]
    clip_s: float

    def labels(self, data: ClipDataset) -> Array:
        """(N,) labels of a split's samples."""
        return np.array([self.all_labels[k] for k in data.indices])


def train(
    data: str | Path,
    out: str | Path | None = None,
    settings: TrainSettings | None = None,
    *,
    layout: Layout | str | Path | None = None,
    init: str | Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    resume: bool = False,
    progress: bool = True,
    command: Sequence[str] = (),
) -> TrainReport:
    """Train a classifier. Under torchrun, all its processes train it together.

        report = skelact.train("mine.pkl", "runs/mine", skelact.TrainSettings(stream="bone"))
        print(report.best, report.val_top1)

    Args:
        data: annotation pickle with labels.
        out: work folder; gets ``config.json``, ``log.csv``, ``curves.png``, ``confusion.png``, ``best.safetensors``,
            ``last.safetensors`` and, to go on from, ``state.safetensors``. None takes ``runs/`` and the dataset's name.
        settings: ``skelact.TrainSettings(...)``, or one of ``skelact.RECIPES``, of which ``dataclasses.replace`` makes
            others.
        layout: of the joints, also its name or file; None takes what the dataset tells.
        init: name of ``skelact weights list`` or checkpoint to start from; its head is replaced where the classes
            differ. Of a fusion, or of a folder that ``train_streams`` made, the one of the same stream.
        device: None chooses.
        workers: processes that prepare clips, for each that trains; None chooses: none on a CPU, some for a GPU.
        resume: go on from the folder's state; the result is that of an unbroken run.
        progress: a bar on stderr.
        command: the command line, for the provenance.

    Returns:
        Where the checkpoints lie, and the top-1 on the validation split, in [0, 1].

    Raises:
        SkelactError: the data don't train, the folder holds another run, or the loss is no number.
    """
    settings, out = _checked(settings), _work_folder(data, out)
    check_numbers(optional=("workers",), workers=workers)
    dataset, sha256 = _opened(data)
    with processes(device) as here, _determinism(settings.deterministic), torch.random.fork_rng(devices=[]):
        job = prepare(dataset, settings, as_layout(layout), init)
        config = {
            **asdict(settings),
            "width": job.init.model.channels[0] if job.init else settings.width,
            "hidden_joints": job.clips.hidden_joints,
            "binary_scores": job.clips.binary_scores,
            "split": job.split,
            "val_split": job.val_split,
            "repeat": job.training.repeat,
            "data": Path(data).name,
            "data_sha256": sha256,
            "clips": {**asdict(job.clips), "layout": job.clips.layout.name},
            "class_names": job.class_names,
            "init": None if init is None else os.path.normpath(init),
            "init_sha256": job.init.provenance["sha256"] if job.init else None,
            "processes": here.count,
        }
        folder = RunFolder(out, config, resume) if here.main else None
        here.wait()  # for the folder
        provenance = {
            "skelact": skelact.__version__,
            "torch": torch.__version__,
            "command": list(command),
            "train": config,
            "clip_s": round(job.clip_s, 3),
            **{key: value for key, value in dataset.provenance.items() if key.startswith("pose_model")},
        }
        shapes = {header.img_shape for header in dataset.headers()}
        if job.clips.normaliser == "published" and len(shapes) == 1 and (shape := shapes.pop()):
            provenance["img_shape"] = list(shape)  # pictures of another aspect ratio look otherwise to it
        return _Run(job, settings, out, folder, here, provenance, workers, progress).go(resume)


def train_streams(
    data: str | Path, out: str | Path | None = None, settings: TrainSettings | None = None, **options: Any
) -> tuple[dict[str, TrainReport], dict[str, float]]:
    """Train the four streams one after another, each in a folder of its name.

        reports, top1 = skelact.train_streams("mine.pkl", "runs/four")
        print(top1["four-stream"])

    Args:
        data, out, settings, options: as for ``train``; with ``resume``, streams that are done stay as they are. What
            is returned as the second value stands in ``OUT/streams.json``, too.

    Returns:
        A report for each stream, and the top-1, in [0, 1], on the validation split of the streams and of their
        ``two-stream`` and ``four-stream`` fusion, one clip a sample; empty without such a split.

    Raises:
        SkelactError: as for ``train``.
    """
    settings, out = _checked(settings), _work_folder(data, out)
    for stream in STREAMS:  # rather than after hours with the streams before it
        if options.get("init") is not None:
            _start(options["init"], replace(settings, stream=stream), as_layout(options.get("layout")))
        if not options.get("resume") and any((out / stream).glob("*.safetensors")):
            raise SkelactError(f"{out / stream} holds a run already; go on with --resume, or choose another --out")
    with processes(options.get("device")) as here:  # which all streams share: torchrun lets processes join once
        reports = {stream: train(data, out / stream, replace(settings, stream=stream), **options) for stream in STREAMS}
    top1: dict[str, float] = {}
    labels = reports["joint"].val_labels
    scores = {stream: report.val_scores for stream, report in reports.items() if report.val_scores is not None}
    if labels is not None:
        top1 = {stream: accuracy(each, labels) for stream, each in scores.items()}
        for name, weights in (("two-stream", TWO_STREAM), ("four-stream", FOUR_STREAM)):
            fused = np.sum([weight * scores[stream] for stream, weight in weights.items()], axis=0)
            top1[name] = accuracy(fused, labels)
        if here.main:
            content = {"seed": settings.seed, "top1": top1}
            write_json(record(options.get("command", ()), content), str(out / "streams.json"))
    return reports, top1


def _checked(settings: TrainSettings | None) -> TrainSettings:
    if isinstance(settings, TrainSettings | None):
        return settings or TrainSettings()
    raise SkelactError(f"settings: expected skelact.TrainSettings(...), found {str(settings)[:100]}")


def _work_folder(data: str | Path, out: str | Path | None) -> Path:
    return Path("runs") / Path(data).stem if out is None else Path(out)


def _opened(data: str | Path) -> tuple[AnnotationSet, str]:
    """A dataset and its file's sha256, which is computed in a thread meanwhile."""
    with ThreadPoolExecutor(1) as beside:
        sha256 = beside.submit(dataset_sha256, data)
        return open_annotations(data), sha256.result()


# --- what is trained on what -------------------------------------------------------------------------------------


def prepare(
    dataset: AnnotationSet, settings: TrainSettings, layout: Layout | None = None, init: str | Path | None = None
) -> Job:
    """Read off the dataset what a run needs.

    Args:
        dataset, settings, layout, init: as for ``train``.

    Raises:
        SkelactError: the data don't train, or the checkpoint to start from does not fit them.
    """
    start = None if init is None else _start(init, settings, layout)
    if layout is not None:  # whatever the file tells
        dataset = replace(dataset, layout=layout.name)
    clips = _clip_settings(dataset, settings, layout, start)
    split = settings.split or _training_split(dataset, settings.val_split)
    val_split = settings.val_split or validation_split(dataset, split)
    val_split = None if val_split == "none" and "none" not in dataset.split else val_split
    indices = samples_of(dataset, split, clips)
    training = ClipDataset(
        dataset.annotations,
        indices,
        clips,
        train=True,
        repeat=settings.repeat or math.ceil(EPOCH_CLIPS / len(indices)),
        seed=settings.seed,
        augmentations=settings.augmentations,
        augment_strength=settings.augment_strength,
    )
    validation, held_out = None, []
    if val_split:
        held_out = samples_of(dataset, val_split, clips)
        validation = ClipDataset(dataset.annotations, held_out, clips, train=False)
        if leaked := len(set(held_out) & set(indices)):
            told = "%d of the %d samples of split %s are trained on, so that what is measured on it says too much"
            logger.warning(told, leaked, len(held_out), val_split)
    headers = dataset.headers()
    all_labels = tuple(header.label for header in headers)
    clip_s = float(np.median([headers[k].shape[1] / (headers[k].fps or PICKLE_FPS) for k in indices]))
    trained_labels, held_labels = ({headers[k].label or 0 for k in part} for part in (indices, held_out))
    class_names = dataset.class_names or _class_names(trained_labels, held_labels, start)
    for name, part in ((split, training), (val_split, validation)):
        for header in (headers[k] for k in (part.indices if part else ())):
            if header.label is None or not 0 <= header.label < len(class_names):
                raise SkelactError(
                    f"sample {header.frame_dir}{f' of split {name}' if name else ''}: expected a label in "
                    f"0..{len(class_names) - 1}, one of {len(class_names)} classes, found {header.label}"
                )
    if unseen := held_labels - trained_labels:
        some = ", ".join(class_names[k] for k in sorted(unseen)[:3])
        logger.warning("%d classes of split %s have no sample to train on: %s", len(unseen), val_split, some)
    if val_split and (untested := trained_labels - held_labels):
        some = ", ".join(class_names[k] for k in sorted(untested)[:3])
        logger.warning(
            "%d classes have no sample in split %s, which knows nothing of them: %s", len(untested), val_split, some
        )
    model = ModelSettings(
        clips.in_channels,
        clips.layout.num_joints,
        len(class_names),
        tuple(width * settings.width // PUBLISHED_CHANNELS[0] for width in PUBLISHED_CHANNELS),
    )
    if start:
        if settings.width not in (TrainSettings.width, start.model.channels[0]):
            raise SkelactError(
                f"width: the checkpoint to start from has {start.model.channels[0]} channels in its first block, found "
                f"{settings.width}; leave it out"
            )
        model = replace(start.model, num_classes=len(class_names))
    return Job(clips, model, class_names, training, validation, split, val_split, start, all_labels, clip_s)


def _class_names(trained: set[int], held_out: set[int], start: Checkpoint | None) -> tuple[str, ...]:
    """Of a dataset that names none: those of the checkpoint to start from, if they are as many.

    Labels that are only validated on count if they go on from those that are trained; else one is a mistake.
    """
    count = max(trained) + 1
    while count in held_out:
        count += 1
    return start.class_names if start and len(start.class_names) == count else numbered_classes(count)


def _start(init: str | Path, settings: TrainSettings, layout: Layout | None) -> Checkpoint:
    """The checkpoint to start from; of a fusion, or of a folder that ``train_streams`` made, the one of the stream."""
    own = Path(init) / settings.stream / "best.safetensors"
    checkpoints = [_loaded(each, settings, layout) for each in resolve(own if own.is_file() else init)]
    fitting = [checkpoint for checkpoint in checkpoints if checkpoint.clips.stream == settings.stream]
    if len(fitting) != 1:
        streams = " and ".join(repr(checkpoint.clips.stream) for checkpoint in checkpoints)
        raise SkelactError(
            f"{init}: expected a checkpoint for stream {settings.stream!r}, found {streams}; see --stream"
        )
    return fitting[0]


def _loaded(model: ResolvedModel, settings: TrainSettings, layout: Layout | None) -> Checkpoint:
    """A checkpoint that a training may start from; stream and layout are those of one that tells none."""
    path, published = model.path, model.published
    if is_exported(path):
        raise SkelactError(f"{path}: an export can't be trained; start from the checkpoint that it was made of")
    if published:
        checkpoint = load_checkpoint(path, published.stream, class_names=published.class_names)
    else:
        own_layout = None if is_safetensors(path) else layout
        checkpoint = load_checkpoint(path, layout=own_layout, untold_stream=settings.stream)
    return replace(checkpoint, provenance={**checkpoint.provenance, "sha256": sha256_of(path)})


def _clip_settings(
    dataset: AnnotationSet, settings: TrainSettings, layout: Layout | None, start: Checkpoint | None
) -> ClipSettings:
    told = start.clips.layout if start and dataset.layout is None else None
    if layout is None and dataset.layout is None and told is None:
        raise SkelactError("the dataset does not tell its joint layout; give it with --layout")
    layout = layout or told or load_layout(str(dataset.layout))
    shapes = [header.shape for header in dataset.headers()]
    dims = shapes[0][-1] if shapes else 2
    if start and (start.clips.layout.joints, start.clips.dims) != (layout.joints, dims):
        raise SkelactError(
            f"the checkpoint to start from takes layout {start.clips.layout.name!r} in {start.clips.dims}D, the "
            f"dataset has {layout.name!r} in {dims}D; convert one of them, or train without --init"
        )
    length = int(np.median([shape[1] for shape in shapes])) if shapes else 100
    other_3d = dims == 3 and layout.joints != NTU.joints  # which the published normaliser can't turn
    data = {
        "clip_len": min(max(length, 32), 100),
        "num_person": min(max((shape[0] for shape in shapes), default=1), 2),
        "normaliser": "body" if dims == 2 or other_3d else "published",
        "sampling": "interpolate",
    }
    if start:
        data = {name: getattr(start.clips, name) for name in data}
    asked = {name: getattr(settings, name) for name in data if getattr(settings, name) is not None}
    if other_3d and {**data, **asked}["normaliser"] == "published":
        raise SkelactError(
            f"normaliser published: in 3D it turns people by joints of {NTU.name!r}, the dataset has {layout.name!r}; "
            "take body"
        )
    with_score = start.clips.with_score if start else dims == 2
    hidden = settings.hidden_joints or (start.clips.hidden_joints if start else ())
    return ClipSettings(
        layout,
        settings.stream,
        dims,
        with_score,
        hidden_joints=hidden,
        binary_scores=settings.binary_scores or bool(start and start.clips.binary_scores),
        **{**data, **asked},
    )


def _training_split(dataset: AnnotationSet, val_split: str | None) -> str | None:
    """The split to train on, where none is named: what goes with the validation split, ``train``, ``xsub_train``, or
    the only one that is called something like that. None for all samples.

    Raises:
        SkelactError: there are several.
    """
    partners = [(val_split or "").replace(part, "train") for part in ("val", "test")]
    for name in (*(name for name in partners if name != val_split), "train", "xsub_train"):
        if name in dataset.split:
            return name
    found = [name for name in dataset.split if "train" in name]
    if len(found) > 1:
        raise SkelactError(f"split: the dataset has several to train on, choose one of {', '.join(found)}")
    if dataset.split and not found:
        told = "none of the splits (%s) is known to be for training; training on all samples (--split takes one)"
        logger.warning(told, ", ".join(dataset.split))
    return found[0] if found else None


def validation_split(dataset: AnnotationSet, split: str | None) -> str | None:
    """The split that belongs to a training split: ``xsub_val`` to ``xsub_train``, ``val`` or ``test`` to ``train``."""
    if split is None:
        return None
    names = [split.replace("train", part) for part in ("val", "test")]
    return next((name for name in names if name != split and dataset.split.get(name)), None)


# --- the loop ----------------------------------------------------------------------------------------------------


class _Run:
    """One network's training, in one of the processes that share it."""

    def __init__(
        self,
        job: Job,
        settings: TrainSettings,
        out: Path,
        folder: RunFolder | None,
        here: Processes,
        provenance: dict[str, Any],
        workers: int | None,
        progress: bool,
    ) -> None:
        if settings.batch_size < here.count:
            raise SkelactError(
                f"batch size: expected a clip for each of the {here.count} processes at least, "
                f"found {settings.batch_size}"
            )
        self.job, self.settings, self.out, self.folder = job, settings, out, folder
        self.here, self.provenance = here, provenance
        self.workers = default_workers(here.device) if workers is None else workers
        self.progress = progress and here.main
        torch.manual_seed(settings.seed)
        self.network = _network(job).to(here.device)
        self.network.cls_head.dropout = settings.dropout
        self.network.skip_empty = settings.skip_empty
        if settings.freeze:
            self.network.backbone.requires_grad_(False)
        self.average = Average(self.network, settings.ema) if settings.ema else None
        self.scale = settings.batch_size / PUBLISHED_BATCH_SIZE if settings.auto_scale_lr else 1.0
        self.optimizer = torch.optim.SGD(
            [parameter for parameter in self.network.parameters() if parameter.requires_grad],
            lr=settings.lr * self.scale,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
        self.device_type, self.half = here.device.partition(":")[0], training_half(here.device)
        self.amp = settings.amp and self.half is not None
        if settings.amp and not self.amp:
            logger.warning("amp: not on %s, training in fp32", here.device)
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=self.amp and self.half == torch.float16)
        self.weight: Tensor | None = None  # of each class
        if settings.balance:
            counts = np.bincount(job.labels(job.training), minlength=len(job.class_names))
            self.weight = torch.tensor(1 / np.maximum(counts, 1), dtype=torch.float32, device=here.device)
        self.log: list[dict[str, Any]] = []
        self.best = -1.0

    def go(self, resume: bool) -> TrainReport:
        """Train to the end."""
        settings, here, job = self.settings, self.here, self.job
        start = self._resume() if resume else 0
        order = EpochSampler(len(job.training), settings.seed, here.rank, here.count)
        local_size = math.ceil(settings.batch_size / here.count)
        loader = DataLoader(
            job.training,
            batch_sampler=EvenBatches(order, local_size),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),  # else workers' seeds are drawn from what dropout and mixup draw from
            pin_memory=here.device.startswith("cuda"),
        )
        network: nn.Module = torch.compile(self.network) if settings.compile else self.network  # type: ignore[assignment]
        network = here.share(network)
        clips = len(order) * here.count
        with tqdm(
            total=settings.epochs * clips,
            initial=start * clips,
            unit=" clips",
            disable=None if self.progress else True,
        ) as bar:
            for epoch in range(start, settings.epochs):
                order.epoch = epoch
                # Dropout and mixup draw others in each process; the weights were drawn before, alike in all.
                torch.manual_seed((settings.seed + 1) * 100_003 + epoch + here.rank * 1_000_003)
                self.network.train()
                if settings.freeze:
                    self.network.backbone.eval()
                sums = torch.zeros(3, device=here.device)  # of the loss, of right answers, of clips
                with _tensor_float(here.device):
                    for step, (batch, target) in enumerate(batches(loader)):
                        self._set_rate(epoch + step / len(loader))
                        target = target.to(here.device, non_blocking=True)
                        with torch.autocast(self.device_type, self.half, enabled=self.amp):
                            batch, other, share = self._mix(batch.to(here.device, non_blocking=True), target)
                            logits = network(batch).float()
                            loss = share * self._loss(logits, target) + (1 - share) * self._loss(logits, other)
                        self.optimizer.zero_grad()
                        self.scaler.scale(loss).backward()
                        self.scaler.step(self.optimizer)
                        self.scaler.update()
                        if self.average:
                            self.average.update()
                        right = (logits.detach().argmax(1) == target).sum()
                        sums += torch.stack([loss.detach() * len(target), right, torch.full_like(right, len(target))])
                        bar.update(len(target) * here.count)
                        if step % 10 == 9 or step == len(loader) - 1:
                            mean_loss, top1 = self._means(sums, epoch)
                            bar.set_postfix(epoch=epoch, loss=f"{mean_loss:.3f}", top1=f"{top1:.3f}", best=self._told())
                self._end_of_epoch(epoch, *self._means(here.total(sums), epoch))
        return self._finish()

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy, in which clips may weigh as their classes are rare.

        torch's own weights weigh each class's part of the smoothing too, and so teach the classes that have no samples.
        """
        each = cross_entropy(logits, target, reduction="none", label_smoothing=self.settings.label_smoothing)
        if self.weight is None:
            return each.mean()
        weight = self.weight[target]
        return (each * weight).sum() / weight.sum()

    def _mix(self, batch: Tensor, target: Tensor) -> tuple[Tensor, Tensor, float]:
        """Each clip mixed with another: the batch, the others' labels, and the share of the first."""
        if not self.settings.mixup:
            return batch, target, 1.0
        beta = torch.distributions.Beta(self.settings.mixup, self.settings.mixup)
        share = float(beta.sample())
        order = torch.randperm(len(batch)).to(batch.device)
        return share * batch + (1 - share) * batch[order], target[order], share

    def _set_rate(self, done: float) -> None:
        """Half a cosine over the epochs, after a linear rise over the first."""
        settings = self.settings
        rise = min(1.0, (done + 1e-3) / settings.warmup_epochs) if settings.warmup_epochs else 1.0
        lr = settings.lr * self.scale * rise * (1 + math.cos(math.pi * done / settings.epochs)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _means(self, sums: Tensor, epoch: int) -> tuple[float, float]:
        """Loss and accuracy so far.

        Raises:
            SkelactError: the loss is no number; nothing of this epoch has been written.
        """
        total, right, clips = sums.tolist()
        if not math.isfinite(total):
            raise self._diverged(epoch, f"the loss is {total}")
        return total / clips, right / clips

    def _diverged(self, epoch: int, found: str) -> SkelactError:
        kept = f". The weights of the last whole epoch are in {self.out}" if epoch else ""
        return SkelactError(f"epoch {epoch}: {found}; take a smaller --lr{kept}")

    def _told(self) -> str:
        return "-" if self.best < 0 else f"{self.best:.3f}"

    def _end_of_epoch(self, epoch: int, loss: float, top1: float) -> None:
        """Validate, and write all that a break must not lose."""
        settings, job = self.settings, self.job
        kept = self.average.network if self.average else self.network
        self.here.same_buffers(self.network)
        self.here.same_buffers(kept)
        last = epoch == settings.epochs - 1
        scores = None
        if job.validation and ((epoch + 1) % settings.val_every == 0 or last):
            scores = self._scores(kept, job.validation)
            if not np.isfinite(scores).all():
                raise self._diverged(epoch, "scores of the validation split are no numbers")
        lr = self.optimizer.param_groups[0]["lr"]
        row = dict(zip(LOG_FIELDS, (epoch, lr, loss, top1, None, None), strict=True))
        metrics: dict[str, Any] = {"epoch": epoch}
        if scores is not None and job.validation:
            labels = job.labels(job.validation)
            row["val_top1"] = metrics["val_top1"] = accuracy(scores, labels)
            mean_class = report(scores, labels, job.class_names).mean_class_accuracy
            metrics |= {"val_split": job.val_split, "val_mean_class": mean_class}
            row["val_loss"] = float(-np.log(np.maximum(scores[np.arange(len(labels)), labels], 1e-12)).mean())
        before = [(r["val_top1"], -r["val_loss"]) for r in self.log if r["val_top1"] is not None]
        self.log.append(row)
        better = job.validation is None or (
            scores is not None and all((row["val_top1"], -row["val_loss"]) > each for each in before)
        )
        if better:
            self.best = row["val_top1"] if scores is not None else -1.0
        if self.folder:
            checkpoint = self._checkpoint(kept, metrics)
            save_checkpoint(checkpoint, self.folder.last)
            if better:
                save_checkpoint(checkpoint, self.folder.best)
            progress = {"epoch": epoch + 1, "best": self.best, "log": self.log, "scaler": self.scaler.state_dict()}
            self.folder.save_state(self._tensors(), progress)
            self.folder.write_log(self.log)
        self.here.wait()

    def _finish(self) -> TrainReport:
        """Calibrate the best checkpoint on the validation split, and draw its confusions."""
        job, best, last = self.job, self.out / "best.safetensors", self.out / "last.safetensors"
        if job.validation is None:
            return TrainReport(best, last)
        checkpoint = load_checkpoint(best)
        scores = self._scores(checkpoint.build().to(self.here.device), job.validation)
        labels = job.labels(job.validation)
        logits = np.log(np.maximum(scores, 1e-12))
        calibration = calibrate(logits, labels, str(job.val_split))
        if self.folder:
            metrics = {**checkpoint.metrics, "calibration": asdict(calibration)}
            save_checkpoint(replace(checkpoint, metrics=metrics), best)
            plot_confusion(
                report(scores, labels, job.class_names).confusion, job.class_names, self.out / "confusion.png"
            )
        self.here.wait()
        calibrated = scores_of(logits, calibration.temperature)  # as predictions are fused
        return TrainReport(best, last, accuracy(scores, labels), calibrated, labels)

    def _scores(self, network: nn.Module, data: ClipDataset) -> Array:
        """Scores (N, num_classes) of all samples, each scored once, by one of the processes."""
        mine = range(self.here.rank, len(data), self.here.count)
        whole = np.zeros((len(data), len(self.job.class_names)))
        scores = whole[:0]
        if mine:
            scores = score_samples(network, Subset(data, mine), self.here.device, workers=self.workers)
        for rank, part in enumerate(self.here.gather(scores)):
            whole[rank :: self.here.count] = part
        return whole

    def _checkpoint(self, network: nn.Module, metrics: dict[str, Any]) -> Checkpoint:
        job = self.job
        return Checkpoint(job.model, job.clips, job.class_names, network.state_dict(), self.provenance, metrics)

    def _tensors(self) -> dict[str, Tensor]:
        """All that changes from step to step."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.network.state_dict().items()}
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            if parameter in self.optimizer.state:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        return tensors

    def _resume(self) -> int:
        """Bring back the state of the last whole epoch; the epoch to go on with."""
        found = load_state(self.out)
        if found is None:
            if (self.out / "log.csv").exists():  # else it broke in its first epoch
                raise SkelactError(
                    f"{self.out}: expected {STATE} to go on from, found none; start anew in another --out, from "
                    f"--init {self.out / 'last.safetensors'} if you like"
                )
            return 0
        tensors, progress = found
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "momentum": {}}
        try:
            for name, tensor in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = tensor
            self.network.load_state_dict(parts["weights"])
            if self.average:
                self.average.network.load_state_dict(parts["average"])
                self.average.steps = int(progress["epoch"]) * self._steps()
            for name, parameter in self.network.named_parameters():
                if name in parts["momentum"]:
                    self.optimizer.state[parameter]["momentum_buffer"] = parts["momentum"][name].to(self.here.device)
            if progress.get("scaler") and self.scaler.is_enabled():
                self.scaler.load_state_dict(progress["scaler"])
            self.log, self.best = list(progress["log"]), float(progress["best"])
            return int(progress["epoch"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise SkelactError(f"{self.out}: its state is damaged ({error}); start anew in another --out") from None

    def _steps(self) -> int:
        """Of an epoch."""
        clips = math.ceil(len(self.job.training) / self.here.count)
        return math.ceil(clips / math.ceil(self.settings.batch_size / self.here.count))


def default_workers(device: str) -> int:
    """How many processes prepare clips. The network leaves a CPU no time for more; a GPU would wait for one."""
    if not device.startswith("cuda"):
        return 0
    cores = available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min(MAX_WORKERS, cores - 1))


class EpochSampler(Sampler[int]):
    """A new order of the clips for each epoch; every process gets as many of them.

    Yields:
        ``epoch * size + index``, which tells the dataset both, wherever it runs.
    """

    def __init__(self, size: int, seed: int, rank: int, count: int) -> None:
        self.size, self.seed, self.rank, self.count = size, seed, rank, count
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self.size / self.count)

    def __iter__(self) -> Iterator[int]:
        chance = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.size, generator=chance).tolist()
        order += order[: len(self) * self.count - self.size]
        return (self.epoch * self.size + k for k in order[self.rank :: self.count])


class EvenBatches(Sampler[list[int]]):
    """Batches of at most ``size`` clips that differ by one at most.

    A last batch of the few clips that are left would spoil the statistics of the batch norms, in small datasets at
    each epoch's end.
    """

    def __init__(self, order: EpochSampler, size: int) -> None:
        self.order, self.size = order, size

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.size)

    def __iter__(self) -> Iterator[list[int]]:
        yield from (part.tolist() for part in np.array_split(list(self.order), len(self)))


class Average:
    """Exponential moving average of a network's weights and statistics; its memory grows with the first steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.steps = 0
        # The tensors themselves, once: to collect them takes longer than a step on a GPU may.
        states = self.network.state_dict().values(), network.state_dict().values()
        self._mine, self._now = ([each for each in state if each.is_floating_point()] for state in states)
        self._counts, self._counts_now = ([each for each in state if not each.is_floating_point()] for state in states)

    def update(self) -> None:
        """Take a step towards the network."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._mine, self._now, 1 - decay)
        torch._foreach_copy_(self._counts, self._counts_now)


def _network(job: Job) -> STGCNPP:
    """New, or with the weights to start from; a head for other classes is new, and one in another order is sorted."""
    network = STGCNPP(job.model, job.clips.layout.adjacency())
    if job.init:
        weights, before = dict(job.init.state_dict), job.init.class_names
        if sorted(before) == sorted(job.class_names) and len(set(before)) == len(before):
            order = [before.index(name) for name in job.class_names]
            weights |= {name: tensor[order] for name, tensor in weights.items() if name.startswith("cls_head.fc.")}
        elif len(before) != len(job.class_names) or before != numbered_classes(len(before)):
            logger.warning("the head is replaced: %d classes before, %d now", len(before), len(job.class_names))
            weights |= {f"cls_head.{name}": tensor for name, tensor in network.cls_head.state_dict().items()}
        else:
            logger.info("the head is kept: it has as many classes, which have no names")
        network.load_state_dict(weights)
    return network


@contextmanager
def _tensor_float(device: str) -> Iterator[None]:
    """Products in TF32 on a GPU, within: they stand for 1x1 convolutions, which torch computes so there."""
    before = torch.get_float32_matmul_precision()
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Only deterministic operations, within."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS refuses
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
