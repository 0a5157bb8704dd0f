"""The processes that train together, started by torchrun; or the one that trains alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from skelact.devices import choose_device
from skelact.errors import SkelactError


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, and its device.

    Attributes:
        rank: from 0; only 0 writes.
        count: how many there are.
        device: of this one.
    """

    rank: int
    count: int
    device: str

    @property
    def main(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def share(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the processes; batch norms stay local, as published."""
        if self.count == 1:
            return network
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # a new name for the option, which older torch lacks
            return DistributedDataParallel(network, broadcast_buffers=False)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in all of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def same_buffers(self, network: nn.Module) -> None:
        """Give every process the batch norm statistics of the first."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes(device: str | None = None) -> Iterator[Processes]:
    """Join the other processes where torchrun says that there are some, unless that was done around this.

    Of several GPUs each process takes its own, which is the current one within.

    Raises:
        SkelactError: the device can't be used.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(device if count == 1 else _own_device(device))
    with torch.cuda.device(device) if device.startswith("cuda") else nullcontext():
        if count == 1:
            yield Processes(0, 1, device)
        elif dist.is_initialized():
            yield Processes(dist.get_rank(), count, device)
        else:
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            yield Processes(dist.get_rank(), count, device)
            # Not after an error: NCCL would wait for the others, who wait for this one. torchrun ends them.
            dist.barrier()  # nobody goes while another may still talk to them
            dist.destroy_process_group()


def _own_device(device: str | None) -> str:
    """The device of one of several processes; nothing is put on another one's.

    Raises:
        SkelactError: there are fewer GPUs than processes, or one of them is named for all.
    """
    if device in (None, "auto", "cuda"):
        if device != "cuda" and not torch.cuda.is_available():
            return "cpu"  # also on a Mac, for gloo does not know its GPU
        rank, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if rank >= found:
            raise SkelactError(
                f"expected a GPU for each process, found {found} for process {rank + 1}; start fewer "
                "(--nproc-per-node), or take --device cpu"
            )
        return f"cuda:{rank}"
    if device != "cpu":
        raise SkelactError(f"device {device!r}: several processes take a GPU each; leave --device out, or take cpu")
    return device
