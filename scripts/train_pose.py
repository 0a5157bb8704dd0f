"""Train skelact-pose, the pose network that skelact ships, and measure any pose model.

The network learns from scratch to imitate the boxes and joints that a real YOLOv8n-pose gave for a few
thousand photographs, corrected in the training part by the human joints of Leeds Sports Poses:

    python scripts/drawn_pictures.py --out runs/pose/drawn             # more pictures, of drawn people
    python scripts/train_pose.py prepare --drawn runs/pose/drawn       # labels -> an ultralytics pose dataset in runs/
    python scripts/train_pose.py train --until 21:50  # start, or go on from the last checkpoint
    python scripts/train_pose.py evaluate runs/pose/train/weights/best.pt
    python scripts/train_pose.py export runs/pose/train/weights/best.pt weights/skelact-pose.pt

`train` may be killed at any moment: the same command goes on from the last round. The learning rate is
constant and falls to nothing over the last hours before `--until`, so that the weights are at their best when
the time is over; a later session simply starts the next such run from there.
"""

from __future__ import annotations

import csv
import ctypes
import gzip
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_OFFLINE"] = "true"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"  # never unpickle code from a checkpoint
os.environ["OMP_WAIT_POLICY"] = "passive"  # a spinning thread would starve the one it waits for

import click
import cv2
import numpy as np
import openvino
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils._pytree import tree_map_only
from torch.utils.data import RandomSampler
from ultralytics import YOLO
from ultralytics.data.augment import RandomPerspective
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import SETTINGS
from ultralytics.utils.loss import v8PoseLoss
from ultralytics.utils.metrics import OKS_SIGMA, bbox_iou
from ultralytics.utils.ops import xyxy2xywh
from ultralytics.utils.patches import override_configs
from ultralytics.utils.tal import dist2bbox, make_anchors

from skelact.pose import PoseModel
from skelact.video import read_frames

Array = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RUN = ROOT / "runs" / "pose"
START = SHARED / "weights" / "skelact-pose-start.pt"
TEACHER = SHARED / "weights" / "yolov8n-pose_int8_openvino_model"

FLIP = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]  # left <-> right in COCO's 17 joints
LSP_IN_COCO = [16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9]  # the COCO joint of each of LSP's first 12
LSP_TORSO = (9, 2)  # left shoulder to right hip: the length that PCK is measured in

LEARN_SCORE = 0.25  # teacher's joints below this are not learnt; above it the score is the joint's weight
VISIBLE_SCORE = 0.5  # teacher's joints from this on count in validation
CLEAR_SCORE = 0.05  # places where a teacher's score is lower only teach that there is nobody
CLEAR_JOINT = 0.2  # joints of which a teacher is less sure are not learnt from it
LARGE_LR_FACTOR = 4
HIDDEN_WEIGHT = 0.5  # weight of a joint that a human placed without seeing it
FOUND_SCORE = 0.25  # a detection from this score on is a person found
VAL_IMGSZ = 480  # as it ships, whatever the size in training, so that the best round of all is the best
EVERY_FRAMES = 15  # of a video, one
BODY_SHARE = 0.53  # of its box, as COCO's evaluation has it
AP_THRESHOLDS = np.linspace(0.5, 0.95, 10)


# --- labels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photo:
    """One labelled photograph; coordinates in pixels.

    Attributes:
        path: Image file.
        name: Path within the data set, which is also the key of the human annotations.
        split: "train" or "val".
        img_shape: (H, W).
        bbox: (N, 4) xyxy of the teacher's people.
        bbox_score: (N,).
        keypoint: (N, 17, 3), x, y and the teacher's score.
        human: (14, 3) x, y, visible of the one person annotated in LSP, or None.
    """

    path: Path
    name: str
    split: str
    img_shape: tuple[int, int]
    bbox: Array
    bbox_score: Array
    keypoint: Array
    human: Array | None


def read_photos(people: Path, split: str | None = None) -> Iterator[Photo]:
    """Yield the photographs of `people` (the folder with manifest.csv) in the order of the teacher's file."""
    with open(people / "manifest.csv", newline="") as file:
        splits = {row["path"]: row["split"] for row in csv.DictReader(file)}
    human = json.loads((people / "lsp_joints.json").read_text())
    with gzip.open(people / "teacher.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            name = row["path"]
            if split in (None, splits[name]):
                yield Photo(
                    path=people / name,
                    name=name,
                    split=splits[name],
                    img_shape=(row["h"], row["w"]),
                    bbox=np.array(row["bbox"], np.float32).reshape(-1, 4),
                    bbox_score=np.array(row["bbox_score"], np.float32),
                    keypoint=np.array(row["keypoint"], np.float32).reshape(-1, 17, 3),
                    human=np.array(human[name], np.float32) if name in human else None,
                )


def box_iou(a: Array, b: Array) -> Array:
    """Intersection over union of boxes (N, 4) and (M, 4), xyxy: (N, M)."""
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    inter = size.clip(0).prod(-1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return inter / (area_a[:, None] + area_b[None] - inter + 1e-9)


def human_person(human: Array, bbox: Array) -> int | None:
    """Index of the box (N, 4) around LSP joints (14, 3), or None where no box covers them."""
    placed = human[(human[:, :2] > 0).any(-1), :2]
    if not len(bbox) or not len(placed):
        return None
    bounds = np.concatenate([placed.min(0), placed.max(0)])[None]
    iou = box_iou(bounds, bbox)[0]
    return int(iou.argmax()) if iou.max() >= 0.3 else None


def training_joints(photo: Photo) -> Array:
    """The joints to learn, (N, 17, 3): x, y and weight, the human's joints in place of the teacher's."""
    keypoint = photo.keypoint.copy()
    keypoint[keypoint[..., 2] < LEARN_SCORE, 2] = 0
    person = None if photo.human is None else human_person(photo.human, photo.bbox)
    if person is not None and photo.human is not None:
        for (x, y, seen), joint in zip(photo.human, LSP_IN_COCO, strict=False):
            if x > 0 and y > 0:
                keypoint[person, joint] = x, y, 1.0 if seen else HIDDEN_WEIGHT
    return keypoint


def label_text(photo: Photo) -> str:
    """The photograph's people as lines of ultralytics' pose format: class, cx, cy, w, h, 17 * (x, y, v).

    In the training part v is the joint's weight in [0, 1] (`TeacherPoseLoss` reads it so; the stock loss
    takes anything but 0 as visible); in validation it is 2 for a joint that the teacher is sure of, else 0.
    """
    height, width = photo.img_shape
    size = np.array([width, height], np.float32)
    if photo.split == "train":
        keypoint = training_joints(photo)
    else:
        keypoint = photo.keypoint.copy()
        keypoint[..., 2] = np.where(keypoint[..., 2] >= VISIBLE_SCORE, 2, 0)
    keypoint[..., :2] /= size
    keypoint[((keypoint[..., :2] < 0) | (keypoint[..., :2] > 1)).any(-1)] = 0
    keypoint[keypoint[..., 2] == 0] = 0
    top_left, bottom_right = (photo.bbox[:, :2] / size).clip(0, 1), (photo.bbox[:, 2:] / size).clip(0, 1)
    boxes = np.concatenate([(top_left + bottom_right) / 2, bottom_right - top_left], 1)
    rows = np.concatenate([boxes, keypoint.reshape(-1, 51)], 1)
    return "".join("0 " + " ".join(f"{value:.5g}" for value in row) + "\n" for row in rows)


# --- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """When a run ends and how its learning rate gets there.

    Attributes:
        end: Time of the end, seconds since the epoch.
        decay_s: Length of the linear fall of the learning rate before the end.
        warmup_steps: Steps of linear rise after every start.
    """

    end: float
    decay_s: float
    warmup_steps: int = 50

    def lr_factor(self, now: float, step: int) -> float:
        """Share of the full learning rate at a time and at a step of this run."""
        return min(1.0, step / self.warmup_steps) * min(1.0, max((self.end - now) / self.decay_s, 0.01))


class TeacherPoseLoss(v8PoseLoss):
    """YOLO's pose loss with the labels' v as each joint's weight and a pull that reaches further.

    The stock term, 1 - exp(-e) with e = d² / 8σ²A as in OKS, has no slope left where a joint is more than a
    few σ away: a third of the wrists of a half-trained network. Half of the loss is log(1 + e) instead, which
    always pulls. The joint's score learns the weight itself and so comes to mean what the teacher's means.
    """

    def calculate_keypoints_loss(
        self,
        masks: torch.Tensor,
        target_gt_idx: torch.Tensor,
        keypoints: torch.Tensor,
        stride_tensor: torch.Tensor,
        target_bboxes: torch.Tensor,
        pred_kpts: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of the places and of the scores; shapes as in the parent."""
        target_bboxes /= stride_tensor
        image, anchor = masks.nonzero(as_tuple=True)
        target = keypoints[image, target_gt_idx[masks]]  # (P, 17, 3), pixels
        target[..., :2] /= stride_tensor[anchor][:, None]
        pred = pred_kpts[masks]  # (P, 17, 3), cells
        weight = target[..., 2].clamp(max=1)
        area = xyxy2xywh(target_bboxes[masks])[:, 2:].prod(1, keepdim=True)
        d2 = (pred[..., :2] - target[..., :2]).square().sum(-1)
        return self.pull(d2, area, weight).mean(), self.bce_pose(pred[..., 2], weight)

    def pull(self, d2: torch.Tensor, area: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Loss (P,) of joints at squared distances (P, 17) from their places in boxes of areas (P, 1), all in cells."""
        e = d2 / ((2 * self.keypoint_loss.sigmas).square() * (area + 1e-9) * 2)
        place = (1 - torch.exp(-e) + torch.log1p(e)) / 2
        return (place * weight).sum(1) / (weight.sum(1) + 1e-9)


class Teacher:
    """A YOLOv8-pose network, exported to OpenVINO, that tells what its heads answer at every place of a picture."""

    def __init__(self, folder: Path, imgsz: int) -> None:
        core = openvino.Core()
        model = core.read_model(next(folder.glob("*.xml")))
        nodes = {node.get_friendly_name(): node for node in model.get_ops()}
        name = "__module.model.22.cv{}.{}.2/aten::_convolution/Add"  # 2: boxes, 3: scores, 4: joints; 3 strides
        maps = [nodes[name.format(head, stride)].output(0) for head in (2, 3, 4) for stride in range(3)]
        model = openvino.Model(maps, model.get_parameters(), "heads")
        model.reshape([1, 3, imgsz, imgsz])
        threads = torch.get_num_threads()
        config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self.compiled = core.compile_model(model, "CPU", config)

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Of RGB images (B, 3, S, S) in [0, 1], what is not decoded yet: boxes (B, A, 64), scores (B, A, 1) and
        joints (B, A, 51) at the A places of all strides, in the student's order."""
        rows = [list(self.compiled(image[None]).values()) for image in images.contiguous().numpy()]
        maps = [torch.from_numpy(np.concatenate(of_images)).flatten(2) for of_images in zip(*rows, strict=True)]
        return [torch.cat(maps[start : start + 3], 2).transpose(1, 2) for start in (0, 3, 6)]


class DensePoseLoss(TeacherPoseLoss):
    """YOLO's pose loss with a teacher's answers, at every place of the very picture, in place of the labels.

    The same terms with the same gains. The teacher's score is the weight of a place: it chooses the stride, too. By
    labels alone a network keeps to the strides that it began with: one that learnt on small pictures goes on to see
    people who fill a large one at stride 16, where the teacher has them at 32, in sight of the whole of them.
    Validation goes by the labels.
    """

    def __init__(self, model: Any, teacher: Teacher) -> None:
        super().__init__(model)
        self.teacher = teacher

    def loss(
        self, preds: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the five losses of a batch, times its size, and what they are called."""
        if not torch.is_grad_enabled():
            return super().loss(preds, batch)
        box, score, joints = (preds[name].transpose(1, 2) for name in ("boxes", "scores", "kpts"))
        with torch.no_grad():
            true_box, true_score, true_joints = self.teacher(batch["img"])
        weight = true_score.sigmoid()
        total = weight.sum().clamp(min=1)
        cls = self.bce(score, weight).sum() / total
        clear = weight[..., 0] > CLEAR_SCORE
        weight = weight[clear][:, 0] / total  # (P,)
        places = make_anchors(preds["feats"], self.stride, 0.5)[0].expand(len(clear), -1, -1)[clear]

        box, true_box = (values[clear].view(-1, 4, self.reg_max) for values in (box, true_box))
        true_share = true_box.softmax(-1)
        dfl = (true_share * (true_box.log_softmax(-1) - box.log_softmax(-1))).sum(-1).mean(-1)
        sides, true_sides = box.softmax(-1) @ self.proj, true_share @ self.proj
        iou = bbox_iou(*(dist2bbox(d, places, xywh=False) for d in (sides, true_sides)), xywh=False, CIoU=True)[:, 0]

        joints, true_joints = (values[clear].view(-1, 17, 3) for values in (joints, true_joints))
        sure = true_joints[..., 2].sigmoid()
        area = (true_sides[:, :2] + true_sides[:, 2:]).prod(-1, keepdim=True)
        d2 = (2 * (joints[..., :2] - true_joints[..., :2])).square().sum(-1)
        far = self.pull(d2, area, torch.where(sure > CLEAR_JOINT, sure, 0))
        kobj = F.binary_cross_entropy_with_logits(joints[..., 2], sure, reduction="none").mean(1)

        of_place = ((1 - iou) * self.hyp.box, far * self.hyp.pose, kobj * self.hyp.kobj, dfl * self.hyp.dfl)
        at_box, at_pose, at_kobj, at_dfl = ((values * weight).sum() for values in of_place)
        losses = torch.stack([at_box, at_pose, at_kobj, cls * self.hyp.cls, at_dfl])
        return losses * len(clear), dict(zip(self.loss_names, losses.detach(), strict=True))


class TimedPoseTrainer(PoseTrainer):
    """ultralytics' pose trainer for a fixed time on shared CPU cores.

    A round ("epoch" to ultralytics) is `round_images` random images: a checkpoint every few minutes.
    """

    plan: Plan
    round_images: int
    bf16: bool
    teacher: Path | None
    turned: float
    large_anew: bool
    last: Path
    best: Path
    steps = 0
    mosaic_closed = False

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Go on from a checkpoint, yet let the command line change what ultralytics would freeze."""
        super().check_resume(overrides)
        if self.resume:
            for key, value in overrides.items():
                if key not in {"model", "resume", "task"}:
                    setattr(self.args, key, value)
            self.args.save_dir = None  # that of --out, wherever the checkpoint was made

    def get_model(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Build the network; NHWC memory is a third faster on the CPU too."""
        model = super().get_model(*args, **kwargs)
        if self.large_anew and not self.resume:
            begin_large_anew(model)
        return model.to(memory_format=torch.channels_last)

    def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build ultralytics' optimizer, which moves what is begun anew faster than the rest."""
        optimizer = super().build_optimizer(model, *args, **kwargs)
        if self.large_anew:
            large = {id(parameter) for part in large_parts(model) for parameter in part.parameters()}
            for group in list(optimizer.param_groups):
                anew = [parameter for parameter in group["params"] if id(parameter) in large]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in large]
                optimizer.add_param_group({**group, "params": anew, "lr_factor": LARGE_LR_FACTOR})
        return optimizer

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return ultralytics' loader: a random part of the images each round, one size in all validations."""
        if mode == "val":
            with override_configs(self.args, {"imgsz": VAL_IMGSZ}):
                return super().get_dataloader(dataset_path, batch_size, rank, mode)
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        dataset = loader.dataset
        sampler = RandomSampler(dataset, num_samples=min(self.round_images, len(dataset)))
        return InfiniteDataLoader(
            dataset=dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            pin_memory=loader.pin_memory,
            drop_last=True,
        )

    def _setup_train(self) -> None:
        """Set up as ultralytics does, then put in our loss and take both cores back."""
        super()._setup_train()
        if self.device.type == "cpu":
            torch.set_num_threads(len(os.sched_getaffinity(0)))  # those of `taskset`, too
            torch.set_flush_denormal(True)
        if type(self.model.init_criterion()) is v8PoseLoss:  # yolo26's loss needs no longer reach
            teacher = self.teacher and Teacher(self.teacher, self.args.imgsz)
            self.model.criterion = DensePoseLoss(self.model, teacher) if teacher else TeacherPoseLoss(self.model)
        if self.bf16:  # in this network alone, not in the averaged one, which is validated and saved
            self.model.predict = in_bf16(self.model.predict)
        self.ema.decay = lambda updates: min(0.996, updates / (updates + 20))  # a memory of about 250 steps

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Move, scale and partly turn the batch, images in NHWC memory."""
        batch = super().preprocess_batch(batch)
        images = batch["img"]
        for index in (torch.rand(len(images)) < self.turned).nonzero()[:, 0]:
            images[index] = torch.rot90(images[index], random.choice((-1, 1)), (1, 2))
        batch["img"] = images.contiguous(memory_format=torch.channels_last)
        return batch

    def _model_train(self) -> None:
        """At the start of a round, end the mosaics once half of the decay is over."""
        super()._model_train()
        if not self.mosaic_closed and time.time() > self.plan.end - self.plan.decay_s / 2:
            self.mosaic_closed = True
            self._close_dataloader_mosaic()
            self.train_loader.reset()

    def optimizer_step(self) -> None:
        """Set the learning rate for this moment, step, and stop when the time is over."""
        now = time.time()
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.lr0 * self.plan.lr_factor(now, self.steps) * group.get("lr_factor", 1)
        super().optimizer_step()
        self.stop |= now > self.plan.end

    def save_model(self) -> bool:
        """Save the checkpoints so that a kill in the middle leaves the old ones whole."""
        files = self.last, self.best
        self.last, self.best = (path.with_suffix(".tmp") for path in files)
        saved: bool = super().save_model()
        for temporary, path in zip((self.last, self.best), files, strict=True):
            if temporary.exists():
                temporary.replace(path)
        self.last, self.best = files
        return saved

    def final_eval(self) -> None:
        """Leave the checkpoints as they are: stripped of the optimizer they could not be gone on from."""


def large_parts(model: Any) -> list[Any]:
    """The parts of a YOLO11 pose network that only people at stride 32 are seen with."""
    head = model.model[-1]
    return [model.model[20], model.model[22], head.cv2[2], head.cv3[2], head.cv4[2]]


def begin_large_anew(model: Any) -> None:
    """Forget how people at stride 32 were seen; a network that did not use it has let it wither."""
    for part in large_parts(model):
        for module in part.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
                module.reset_parameters()
    boxes, scores, joints = (part[-1].bias for part in large_parts(model)[2:])
    for bias, value in ((boxes, 1.0), (scores, -4.0), (joints, 0.0)):  # as ultralytics begins; few places have somebody
        torch.nn.init.constant_(bias, value)


def in_bf16(predict: Callable[..., Any]) -> Callable[..., Any]:
    """A network's forward pass with bf16 in its convolutions, answering in fp32: losses need its precision."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            answer = predict(*args, **kwargs)
        return tree_map_only(torch.Tensor, torch.Tensor.float, answer)

    return forward


def move_boxes(self: RandomPerspective, bboxes: Array, affine: Array) -> Array:
    """Boxes (N, 4) xyxy after an affine move of the picture, taken as those of the ellipses in them.

    ultralytics takes the corners instead, which makes a standing person's box 40 % wider at 10 degrees.
    """
    center, half = (bboxes[:, 2:] + bboxes[:, :2]) / 2, (bboxes[:, 2:] - bboxes[:, :2]) / 2
    turn, shift = affine[:2, :2], affine[:2, 2]
    center = center @ turn.T + shift
    half = np.sqrt(half**2 @ (turn**2).T)
    return np.concatenate([center - half, center + half], 1).astype(bboxes.dtype)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: to fault it in anew at each step costs up to a third of the time."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**28)


def next_time(clock: str) -> float:
    """Seconds since the epoch of the next moment at which the local clock shows HH:MM."""
    now = datetime.now()
    moment = now.replace(hour=int(clock[:2]), minute=int(clock[3:]), second=0, microsecond=0)
    return (moment + timedelta(days=moment <= now)).timestamp()


# --- evaluation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A model's people in a photograph: bbox (N, 4) px, bbox_score (N,), keypoint (N, 17, 3) px and score."""

    bbox: Array
    bbox_score: Array
    keypoint: Array


@dataclass(frozen=True)
class PoseScores:
    """Figures of a model on the validation photographs, all in [0, 1].

    Attributes:
        box_ap50: Average precision of the boxes against the teacher's, IoU 0.5.
        oks_ap50: The same for the poses, OKS 0.5 over the joints that the teacher is sure of.
        oks_ap: Mean over OKS 0.5 to 0.95.
        pck: Share of LSP's visible limb joints within 0.2 torso lengths of the human's mark; NaN without such marks.
        found: Share of the people taller than a quarter of the picture that are found.
    """

    box_ap50: float
    oks_ap50: float
    oks_ap: float
    pck: float
    found: float


def oks(pred: Array, target: Array, area: Array) -> Array:
    """Object keypoint similarity (N, M) of poses (N, 17, 3) to (M, 17, 3), over the sure joints of these."""
    sure = target[..., 2] >= VISIBLE_SCORE
    d2 = np.square(pred[:, None, :, :2] - target[None, :, :, :2]).sum(-1)  # (N, M, 17)
    e = d2 / (8 * OKS_SIGMA**2 * area[None, :, None])
    return (np.exp(-e) * sure).sum(-1) / np.maximum(sure.sum(-1), 1)


def match(similarity: Array) -> NDArray[np.bool_]:
    """Whether each detection, best score first, hits a target not yet taken: (N, 10) over the thresholds."""
    hit = np.zeros((len(similarity), len(AP_THRESHOLDS)), bool)
    for column, threshold in enumerate(AP_THRESHOLDS):
        left = similarity.copy()
        for row in range(len(left)):
            best = left[row].argmax() if left.shape[1] else 0
            if left.shape[1] and left[row, best] >= threshold:
                hit[row, column] = True
                left[:, best] = -1
    return hit


def average_precision(hit: NDArray[np.bool_], score: Array, targets: int) -> Array:
    """COCO's 101-point average precision of hits (N, 10) at each threshold: (10,)."""
    hit = hit[np.argsort(-score, kind="stable")]
    true = hit.cumsum(0)
    precision = true / np.arange(1, len(hit) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = true / max(targets, 1)
    points = np.linspace(0, 1, 101)
    ap = np.zeros(hit.shape[1], np.float32)
    for column in range(hit.shape[1]):
        index = np.searchsorted(recall[:, column], points)
        ap[column] = np.where(index < len(hit), precision[np.minimum(index, len(hit) - 1), column], 0).mean()
    return ap


def score_poses(photos: list[Photo], found: list[Found]) -> PoseScores:
    """Compare what a model found with the teacher's labels and the human joints."""
    box_hit, oks_hit, score_of_all, tall_found, near = [], [], [], [], []
    people = posed = 0
    for photo, seen in zip(photos, found, strict=True):
        order = np.argsort(-seen.bbox_score, kind="stable")
        bbox, score, keypoint = seen.bbox[order], seen.bbox_score[order], seen.keypoint[order]
        iou = box_iou(bbox, photo.bbox)
        size = photo.bbox[:, 2:] - photo.bbox[:, :2]
        sure = (photo.keypoint[..., 2] >= VISIBLE_SCORE).any(-1)
        people += len(photo.bbox)
        posed += int(sure.sum())
        box_hit.append(match(iou))
        score_of_all.append(score)
        oks_hit.append(match(oks(keypoint, photo.keypoint[sure], BODY_SHARE * size[sure].prod(-1))))
        tall = size[:, 1] > photo.img_shape[0] / 4
        clear = score >= FOUND_SCORE
        tall_found.append((iou[clear][:, tall] >= 0.5).any(0))
        if photo.human is not None:
            visible = (photo.human[: len(LSP_IN_COCO), 2] == 1) & (photo.human[list(LSP_TORSO), :2] > 0).all()
            torso = np.linalg.norm(np.subtract(*photo.human[list(LSP_TORSO), :2]))
            person = human_person(photo.human, bbox[clear])
            if person is None:
                near.append(np.zeros(visible.sum(), bool))
            else:
                joints = keypoint[clear][person, LSP_IN_COCO, :2]
                distance = np.linalg.norm(joints - photo.human[: len(LSP_IN_COCO), :2], axis=-1)
                near.append(distance[visible] <= 0.2 * torso)
    box_ap = average_precision(np.concatenate(box_hit), np.concatenate(score_of_all), people)
    oks_ap = average_precision(np.concatenate(oks_hit), np.concatenate(score_of_all), posed)
    return PoseScores(
        box_ap50=float(box_ap[0]),
        oks_ap50=float(oks_ap[0]),
        oks_ap=float(oks_ap.mean()),
        pck=float(np.concatenate(near).mean()) if near else float("nan"),
        found=float(np.concatenate(tall_found).mean()),
    )


def find_people(model: Path, photos: list[Photo], imgsz: int, threads: int) -> list[Found]:
    """Run a model (.pt or an OpenVINO export) over photographs."""
    yolo = YOLO(model, task="pose")
    yolo.add_callback("on_predict_start", lambda _: torch.set_num_threads(threads))
    found = []
    for photo in photos:
        result = yolo.predict(photo.path, imgsz=imgsz, conf=0.01, max_det=100, device="cpu", verbose=False)[0]
        found.append(
            Found(
                bbox=result.boxes.xyxy.numpy(),
                bbox_score=result.boxes.conf.numpy(),
                keypoint=result.keypoints.data.numpy().reshape(-1, 17, 3),
            )
        )
    return found


def frames_of(videos: Sequence[Path], teacher: Path, folder: Path) -> list[Photo]:
    """Some frames of videos, written to a folder, with the people whom a teacher finds in them."""
    estimator = PoseModel(teacher)
    photos = []
    for video in videos:
        for frame in itertools.islice(read_frames(video), 0, None, EVERY_FRAMES):
            path = folder / f"{video.stem}_{frame.index}.png"
            cv2.imwrite(str(path), frame.image)
            people = estimator.detect(frame)
            sure = people.bbox_score >= FOUND_SCORE
            keypoint = np.concatenate([people.keypoint, people.keypoint_score[..., None]], -1)
            found = people.bbox[sure], people.bbox_score[sure], keypoint[sure]
            photos.append(Photo(path, path.name, "val", frame.image.shape[:2], *found, human=None))
    return photos


# --- commands -------------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Train skelact-pose and measure pose models."""


@main.command()
@click.option("--people", type=click.Path(exists=True, path_type=Path), default=SHARED / "data" / "people")
@click.option("--drawn", type=click.Path(exists=True, path_type=Path), multiple=True)
@click.option("--out", type=click.Path(path_type=Path), default=RUN / "data")
def prepare(people: Path, drawn: tuple[Path, ...], out: Path) -> None:
    """Write the photographs' labels as an ultralytics pose dataset, with links to the pictures.

    --drawn adds a folder of more training pictures, such as drawn_pictures.py makes: images/*.jpg or .png with
    labels/*.txt in the same format (v = 1 for a joint in sight, 0 for one that is not). It may be given several times.
    """
    count = {"train": 0, "val": 0}
    for photo in read_photos(people):
        name = photo.name.replace("/", "_")
        image = out / "images" / photo.split / name
        label = (out / "labels" / photo.split / name).with_suffix(".txt")
        for folder in (image.parent, label.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if not image.is_symlink():
            image.symlink_to(photo.path.resolve())
        label.write_text(label_text(photo))
        count[photo.split] += 1
    config = {
        "path": str(out.resolve()),
        "train": ["images/train", *(str(folder.resolve() / "images") for folder in drawn)],
        "val": "images/val",
        "kpt_shape": [17, 3],
        "flip_idx": FLIP,
        "names": {0: "person"},
    }
    (out / "people.yaml").write_text(json.dumps(config, indent=2))  # JSON is YAML
    click.echo(f"{count['train']} train and {count['val']} val pictures in {out}")


@main.command()
@click.option("--until", default="21:50", help="Local time HH:MM at which the run ends.")
@click.option("--decay-hours", default=1.0, help="The learning rate falls over so many hours before the end.")
@click.option("--model", default=str(START), help="Weights or a network .yaml to start from.")
@click.option("--out", type=click.Path(path_type=Path), default=RUN, help="Folder of data and run.")
@click.option("--imgsz", default=256)
@click.option("--batch", default=16)
@click.option("--lr", default=1e-3)
@click.option("--mosaic", default=0.5, help="Share of mosaics, until half of the decay is over.")
@click.option("--degrees", default=15.0, help="Pictures are turned by up to so much.")
@click.option("--scale", nargs=2, default=(0.75, 1.5), help="Pictures are scaled by so much to so much.")
@click.option("--round-images", default=3200, help="Images between two validations and checkpoints.")
@click.option("--device", default="cpu", help="cpu, or a GPU's number.")
@click.option("--nice", default=19, help="Lowering of the process's priority.")
@click.option("--workers", default=2, help="Processes that read and change pictures.")
@click.option("--bf16", is_flag=True, help="bf16 in the forward pass: twice as fast on CPUs with AMX.")
@click.option("--mixup", default=0.0, help="Share of pictures that another one shines through.")
@click.option("--teacher", type=click.Path(exists=True, path_type=Path), help="Learn its answers, not the labels.")
@click.option("--turned", default=0.0, help="Share of pictures turned by a quarter, whose people lie; by --teacher.")
@click.option("--large-anew", is_flag=True, help="Begin what sees people at stride 32 anew, and teach it faster.")
def train(
    until: str,
    decay_hours: float,
    model: str,
    out: Path,
    imgsz: int,
    batch: int,
    lr: float,
    mosaic: float,
    degrees: float,
    scale: tuple[float, float],
    round_images: int,
    device: str,
    nice: int,
    workers: int,
    bf16: bool,
    mixup: float,
    teacher: Path | None,
    turned: float,
    large_anew: bool,
) -> None:
    """Train until a time of day, from the last checkpoint if there is one.

    The last checkpoint is OUT/train/weights/last.pt, the best (by box and OKS AP) best.pt beside it; the
    figures of each round are in OUT/train/results.csv. Stop it with `kill -- -$(cat OUT/pgid)` where it was
    started with setsid; the same command goes on.
    """
    if turned and not teacher:
        raise click.UsageError("--turned needs --teacher: labels don't turn with the picture")
    os.nice(nice)
    keep_freed_memory()
    RandomPerspective.apply_bboxes = move_boxes
    SETTINGS.update({"sync": False})  # no analytics
    out.mkdir(parents=True, exist_ok=True)
    (out / "pgid").write_text(str(os.getpgid(0)))
    last = out / "train" / "weights" / "last.pt"
    overrides = {
        "model": str(last) if last.exists() else model,
        "resume": str(last) if last.exists() else False,
        "data": str(out / "data" / "people.yaml"),
        "project": str(out.resolve()),
        "name": "train",
        "exist_ok": True,
        "device": device,
        "imgsz": imgsz,
        "batch": batch,
        "nbs": batch,
        "epochs": 100_000,  # the clock ends the run
        "patience": 0,
        "optimizer": "AdamW",
        "lr0": lr,
        "lrf": 1.0,
        "momentum": 0.9,
        "weight_decay": 0.02,
        "warmup_epochs": 0,
        "mosaic": mosaic,
        "mixup": mixup,
        "close_mosaic": 0,
        "degrees": degrees,
        "translate": 0.1,
        "scale": scale,  # small people come from the mosaics
        "cache": False,  # at 480 pixels reading a picture takes a twentieth of the time that it is learnt in
        "workers": workers,
        "amp": device != "cpu",
        "deterministic": False,
        "seed": int(time.time()) % 100_000,  # a resumed run shall not see the same pictures again
        "plots": False,
    }
    trainer_class = TimedPoseTrainer
    trainer_class.plan = Plan(end=next_time(until), decay_s=decay_hours * 3600)
    trainer_class.round_images = round_images
    trainer_class.bf16 = bf16
    trainer_class.teacher = teacher
    trainer_class.turned = turned
    trainer_class.large_anew = large_anew
    trainer_class(overrides=overrides).train()


@main.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--people", type=click.Path(exists=True, path_type=Path), default=SHARED / "data" / "people")
@click.option("--imgsz", "sizes", type=int, multiple=True, default=(256,), help="For .pt models; exports: 640.")
@click.option("--video", "videos", multiple=True, type=click.Path(exists=True, path_type=Path), help="Its frames too.")
@click.option(
    "--teacher", type=click.Path(exists=True, path_type=Path), help="Labels frames of videos.", default=TEACHER
)
@click.option("--limit", type=int, help="Only so many photographs.")
@click.option("--threads", default=os.cpu_count() or 1)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here too.")
def evaluate(
    models: tuple[Path, ...],
    people: Path,
    sizes: tuple[int, ...],
    videos: tuple[Path, ...],
    teacher: Path,
    limit: int | None,
    threads: int,
    json_path: Path | None,
) -> None:
    """Compare models on the validation photographs with the teacher's labels and the human joints."""
    photos = list(read_photos(people, "val"))[:limit]
    labels = [Found(photo.bbox, photo.bbox_score, photo.keypoint) for photo in photos]
    scores = {"the labels themselves": score_poses(photos, labels)}
    with TemporaryDirectory() as folder:
        pictures = {"": photos}
        if videos:
            pictures[", videos"] = frames_of(videos, teacher, Path(folder))
        for model, (of, chosen) in itertools.product(models, pictures.items()):
            for size in (640,) if model.is_dir() else sizes:
                found = find_people(model, chosen, size, threads)
                scores[f"{model.name} at {size}{of}"] = score_poses(chosen, found)
    columns = list(asdict(next(iter(scores.values()))))
    width = max(map(len, scores))
    click.echo(" " * width + "".join(f"{column:>10}" for column in columns))
    for name, row in scores.items():
        click.echo(f"{name:{width}}" + "".join(f"{value:10.3f}" for value in asdict(row).values()))
    if json_path:
        json_path.write_text(json.dumps({name: asdict(row) for name, row in scores.items()}, indent=2) + "\n")


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--imgsz", default=480, help="Longer side of the pictures that the network will be shown.")
@click.option("--mean-with", type=click.Path(exists=True, path_type=Path), help="Another, to average the weights with.")
@click.option("--score-shift", default=0.0, help="Add it to the logits of people's scores, to have them surer.")
def export(checkpoint: Path, out: Path, imgsz: int, mean_with: Path | None, score_shift: float) -> None:
    """Write a checkpoint's averaged weights alone, in half precision, without paths of this machine."""
    model, state = load_checkpoint(checkpoint)
    if mean_with:
        other = load_checkpoint(mean_with)[0].half().float().state_dict()
        for name, value in model.half().float().state_dict().items():
            if value.is_floating_point():
                value.copy_((value.double() + other[name].double()) / 2)
    for branch in model.model[-1].cv3:
        branch[-1].bias.data += score_shift
    args = {"task": "pose", "imgsz": imgsz, "data": "people"}
    model = model.half()
    model.args = args
    model.criterion = None
    model.__dict__.pop("pt_path", None)
    for parameter in model.parameters():
        parameter.requires_grad = False
    keys = ("date", "version", "license")
    content = {
        "epoch": -1,
        "model": model,
        "ema": None,
        "updates": 0,
        "best_fitness": None,
        "train_args": args,
    }
    torch.save(content | {key: state[key] for key in keys}, out)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
