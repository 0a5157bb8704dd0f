"""Run one task for each of many videos: in this process, in worker processes, or on a Ray cluster.

Whatever happens to one task (an error, a crash, the memory of its machine) is that task's result; the others go on.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from skelact.errors import SkelactError

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger("skelact")

ENGINES = ("local", "ray")
RAY_RETRIES = 3  # of a task whose node or process died; Ray does them, elsewhere
MAX_POOLS = 5  # of worker processes, one after the other
GPU_WORKERS = 4  # enough to decode for one GPU


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a task that came to no end."""

    reason: str


def default_workers(device: str, num_items: int) -> int:
    """How many processes suit this machine: one for two cores, or a few that share a GPU."""
    cores = available_cores()
    return max(1, min(num_items, min(GPU_WORKERS, cores) if device != "cpu" else cores // 2))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 1,
    engine: str = "local",
    ray_address: str | None = None,
) -> Iterator[tuple[int, Result | Lost]]:
    """Do a task for each item and yield (index of the item, result), as they are done.

    Args:
        task: a function at the top level of a module, so that other processes can import it.
        items: arguments, one for each task.
        workers: processes; 1 with the local engine works in this one.
        engine: ``local`` or ``ray``.
        ray_address: of a cluster; None for the one that the environment names, else a local one is started.

    Raises:
        SkelactError: Ray is not installed or can't be reached.
    """
    if engine == "ray":
        yield from _run_on_ray(task, items, workers, ray_address)
    elif workers <= 1 or len(items) <= 1:
        yield from ((k, task(item)) for k, item in enumerate(items))
    else:
        yield from _run_in_processes(task, items, min(workers, len(items)))


def _run_in_processes(
    task: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[int, Result | Lost]]:
    """Do tasks in a pool, and what is left in a new one where pebble gives it up.

    It does so where a process dies just before it could tell which task it had taken.
    """
    left = dict(enumerate(items))
    for _ in range(MAX_POOLS):
        try:
            for k, result in _run_in_pool(task, dict(left), workers):
                del left[k]
                yield k, result
            return
        except BrokenProcessPool:
            logger.warning("the worker processes are started anew, %d tasks are left", len(left))
    yield from ((k, Lost("the worker processes died again and again")) for k in left)


def _run_in_pool(
    task: Callable[[Item], Result], items: Mapping[int, Item], workers: int
) -> Iterator[tuple[int, Result | Lost]]:
    import multiprocessing

    # Python's own pool is lost as a whole when one of its processes dies; pebble's loses the task.
    from pebble import ProcessExpired, ProcessPool

    context = multiprocessing.get_context("spawn")  # torch and OpenVINO don't survive a fork
    pool = ProcessPool(workers, initializer=_start_worker, initargs=(context.Value("i", 0), workers), context=context)
    try:
        waiting: dict[Any, int] = {}
        left = iter(items.items())
        while True:
            for k, item in left:
                waiting[pool.schedule(task, args=(item,))] = k
                if len(waiting) >= 2 * workers:
                    break
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                k = waiting.pop(future)
                try:
                    yield k, future.result()
                except ProcessExpired as error:
                    yield k, Lost(_death(error.exitcode))
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _start_worker(counter: Any, workers: int) -> None:
    """Give a worker its share of the cores, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's own lock holds a semaphore, which Python reports as leaked when the pool stops its processes.
    tqdm.set_lock(threading.RLock())
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    if hasattr(os, "sched_setaffinity"):  # read by torch, OpenVINO and FFmpeg alike; Linux only
        cores = sorted(os.sched_getaffinity(0))
        mine = cores[number % workers :: workers]
        if mine:
            os.sched_setaffinity(0, mine)


def _death(exitcode: int | None) -> str:
    """Why a process is gone, as far as its exit code tells."""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ": out of memory?" if name == "SIGKILL" else ""
        return f"its worker process died of {name}{hint}"
    return f"its worker process ended with exit code {exitcode}"


def _run_on_ray(
    task: Callable[[Item], Result], items: Sequence[Item], workers: int, address: str | None
) -> Iterator[tuple[int, Result | Lost]]:
    try:
        import ray
    except ModuleNotFoundError:
        raise SkelactError("engine ray: needs Ray (pip install 'skelact[ray]')") from None
    started = not ray.is_initialized()
    if started:
        try:
            cluster = address or os.environ.get("RAY_ADDRESS")
            _check_listens(cluster)
            own: dict[str, Any] = (
                {} if cluster else {"include_dashboard": False, "num_cpus": workers if workers > 1 else None}
            )
            ray.init(cluster, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (OSError, ValueError, RuntimeError) as error:
            raise SkelactError(
                f"engine ray: no cluster at {cluster}: {error}; start one with `ray start --head`"
            ) from error
    try:
        remote = ray.remote(task).options(max_retries=RAY_RETRIES, num_cpus=1)
        waiting: dict[Any, int] = {}
        left = iter(enumerate(items))
        limit = max(2 * workers, int(2 * ray.cluster_resources().get("CPU", 1)))
        while True:
            for k, item in left:
                waiting[remote.remote(item)] = k
                if len(waiting) >= limit:
                    break
            if not waiting:
                break
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                k = waiting.pop(reference)
                try:
                    yield k, ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield k, Lost(f"Ray gave up after {RAY_RETRIES} retries ({type(error).__name__})")
    finally:
        if started:
            ray.shutdown()


def _check_listens(address: str | None) -> None:
    """Find out at once that nothing answers there; Ray itself goes on trying for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
