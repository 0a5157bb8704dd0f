"""The one way by which skelact imports ultralytics: no code from weight files, no analytics, nothing on stdout."""

from __future__ import annotations

import functools
import logging
import os
import sys
from types import ModuleType


@functools.cache
def load_ultralytics() -> ModuleType:
    """Import ultralytics with its safe loader on, and with run-time installs and analytics off.

    ``ULTRALYTICS_SAFE_LOAD`` has it build models from a ``.pt`` without unpickling code; it needs torch >= 2.6.
    """
    import torch  # first: ultralytics sets OMP_NUM_THREADS=1, which torch would read when it is imported

    os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not importable: no usage data
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    saved = {name: os.environ.get(name) for name in ("YOLO_OFFLINE", "OMP_NUM_THREADS")}
    os.environ["YOLO_OFFLINE"] = "true"  # while importing: asks no name server and sends no usage data
    try:
        import ultralytics
        from ultralytics import utils
        from ultralytics.nn import tasks
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    utils.SAFE_LOAD = tasks.SAFE_LOAD = True  # for a program that imported ultralytics before skelact did
    if not tasks._SafeLoad.restricted():
        raise ImportError(f"ultralytics {ultralytics.__version__} with torch {torch.__version__} cannot load safely")
    utils.LOGGER.setLevel(logging.ERROR)
    for handler in utils.LOGGER.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    return ultralytics
