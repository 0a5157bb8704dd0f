"""The processes that train together, started by torchrun; or the one that trains alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from skelact.devices import choose_device


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

    Raises:
        SkelactError: the device can't be used.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, choose_device(device))
        return
    device = choose_device(device)
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield Processes(dist.get_rank(), count, device)
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
