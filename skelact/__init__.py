"""skelact: video to actions. Poses by YOLO, tracks, ST-GCN++; see the README for the commands."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from skelact.errors import SkelactError

if TYPE_CHECKING:
    from skelact.benchmarking import benchmark
    from skelact.checkpoint import load_checkpoint, save_checkpoint
    from skelact.classifier import inspect_checkpoint
    from skelact.converters import convert
    from skelact.dataset_report import inspect_dataset
    from skelact.exporting import export
    from skelact.extract import extract_poses
    from skelact.fusing import fuse
    from skelact.live_session import live
    from skelact.merging import merge
    from skelact.pipeline import predict
    from skelact.recipes import RECIPES, TrainSettings
    from skelact.report import write_report
    from skelact.testing import test
    from skelact.training import train, train_streams

# Torch's threads spin while they wait for each other. On a machine that other programs use too, nearly all the time can
# go with that (scripts/beside_others.py), so they give up soon. It is read when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

__version__ = "0.1.0"
__all__ = [
    "RECIPES",
    "SkelactError",
    "TrainSettings",
    "__version__",
    "benchmark",
    "convert",
    "export",
    "extract_poses",
    "fuse",
    "inspect_checkpoint",
    "inspect_dataset",
    "live",
    "load_checkpoint",
    "merge",
    "predict",
    "save_checkpoint",
    "test",
    "train",
    "train_streams",
    "write_report",
]

# Imported on first use: torch takes seconds, and ``skelact --help`` should not wait for it.
_LAZY = {
    "benchmark": "skelact.benchmarking",
    "convert": "skelact.converters",
    "predict": "skelact.pipeline",
    "inspect_checkpoint": "skelact.classifier",
    "inspect_dataset": "skelact.dataset_report",
    "live": "skelact.live_session",
    "merge": "skelact.merging",
    "export": "skelact.exporting",
    "extract_poses": "skelact.extract",
    "fuse": "skelact.fusing",
    "load_checkpoint": "skelact.checkpoint",
    "save_checkpoint": "skelact.checkpoint",
    "test": "skelact.testing",
    "train": "skelact.training",
    "train_streams": "skelact.training",
    "RECIPES": "skelact.recipes",
    "TrainSettings": "skelact.recipes",
    "write_report": "skelact.report",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'skelact' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
