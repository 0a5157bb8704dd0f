"""Where networks run: the device, and which 16-bit floats it computes in."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from skelact.errors import SkelactError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("skelact")

# GPUs whose fp16 gives no numbers, so that nobody is found: those of ultralytics' ``checks.check_amp``.
BROKEN_HALF = re.compile(r"\b(1650|1660|1630|t400|t550|t600|t1000|t1200|t2000|k40m)\b", re.IGNORECASE)


def choose_device(device: str | None = None) -> str:
    """``cuda:0``, ``mps`` or ``cpu``, whichever is there and fastest; a device that is named must be there.

    ``cuda`` is the current CUDA device, told by its number: ultralytics would take it for the first one. A number alone
    is that GPU, as ultralytics has it. A GPU that was not named and does not work, such as one that is too old for this
    build of torch, is left alone.

    Raises:
        SkelactError: the device is unknown or not available.
    """
    import torch

    if device is not None and device != "auto":
        name = f"cuda:{device}" if str(device).isdecimal() else device
        try:
            return _tried(name)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise SkelactError(
                f"device {device!r} cannot be used here ({_reason(error)}); leave --device out to have one chosen"
            ) from None
    if torch.cuda.is_available():
        try:
            return _tried("cuda")
        except (RuntimeError, AssertionError) as error:
            logger.warning("the GPU cannot be used (%s); working on the CPU", _reason(error))
            return "cpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _tried(device: str) -> str:
    """The device, after it has added two numbers: that there is memory on it does not mean that its kernels run."""
    import torch

    torch.zeros(1, device=device).add(1).item()
    return f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0]


def num_gpus(device: str | None) -> int:
    """How many GPUs the processes that work on a device may share out: one that is named is for all of them."""
    if device not in (None, "auto", "cuda"):
        return int(str(device).startswith("cuda"))
    import torch

    return torch.cuda.device_count()


def take_gpu(number: int) -> None:
    """Make the GPU whose turn it is the current one of a process with this number, for ``choose_device`` to find."""
    import torch

    if (count := torch.cuda.device_count()) > 1:
        with suppress(RuntimeError):  # choose_device tells what is wrong with it
            torch.cuda.set_device(number % count)


def has_half(device: str) -> bool:
    """Whether it is a GPU that computes in fp16, and right."""
    import torch

    return device.startswith("cuda") and not BROKEN_HALF.search(torch.cuda.get_device_name(device))


def training_half(device: str) -> torch.dtype | None:
    """The 16-bit floats to train in: bfloat16, but on GPUs that only emulate it, slowly.

    None on a Mac's GPU, where batch norms of 16-bit floats may end the process (pytorch's issue 154887).
    """
    import torch

    if device.startswith("mps"):
        return None
    if device.startswith("cuda") and has_half(device) and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16
