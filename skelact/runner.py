"""Run one task for each of many videos: in this process, in worker processes, or on a Ray cluster.

Whatever happens to one task (an error, a crash, the memory of its machine) is that task's result; the others go on.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, TypeVar, cast

from tqdm import tqdm

from skelact.devices import num_gpus, take_gpu
from skelact.errors import SkelactError

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = ("local", "ray")
STOP_S = 5.0  # that a process may take to clean up when it is told to end
RAY_RETRIES = 3  # of a task whose node or process died; Ray does them, elsewhere
WINDOWS_WAITS = 60  # processes that one can wait for there
GPU_WORKERS = 4  # enough to decode for one GPU


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a task that came to no end."""

    reason: str


def default_workers(device: str, num_items: int, gpus: int = 1) -> int:
    """How many processes suit this machine: one for two cores, or a few that share a GPU, for each of the GPUs."""
    cores = available_cores()
    return max(1, min(num_items, min(GPU_WORKERS * max(1, gpus), cores) if device != "cpu" else cores // 2))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 1,
    engine: str = "local",
    ray_address: str | None = None,
    device: str | None = "cpu",
) -> Iterator[tuple[int, Result | Lost]]:
    """Do a task for each item and yield (index of the item, result), as they are done.

    Args:
        task: a function at the top level of a module, so that other processes can import it.
        items: arguments, one for each task.
        workers: processes; 1 with the local engine works in this one.
        engine: ``local`` or ``ray``.
        ray_address: of a cluster; None for the one that the environment names, else a local one is started.
        device: where tasks work, as for ``devices.choose_device``; where a cluster has GPUs, tasks that may have
            one get a share of it, for Ray hides them from all others, or puts all on the first. Processes here take
            turns with the GPUs.

    Raises:
        SkelactError: Ray is not installed or can't be reached.
    """
    check_engine(engine, device)
    if engine == "ray":
        yield from _run_on_ray(task, items, workers, ray_address, device not in ("cpu", "mps"))
    elif workers <= 1 or len(items) <= 1:
        yield from ((k, task(item)) for k, item in enumerate(items))
    else:
        most = WINDOWS_WAITS if sys.platform == "win32" else len(items)
        yield from _run_in_processes(task, items, min(workers, len(items), most), num_gpus(device) > 1)


def check_engine(engine: str, device: str | None = None) -> None:
    """Refuse what is none of ``ENGINES``, and a GPU by number for Ray, which shows each task only its own."""
    if engine not in ENGINES:
        raise SkelactError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
    if engine == "ray" and re.fullmatch(r"(cuda:)?\d+", str(device)):
        raise SkelactError(
            f"device {device!r}: Ray chooses the GPU of each task; leave --device out, or take cuda or cpu"
        )


def _run_in_processes(
    task: Callable[[Item], Result], items: Sequence[Item], workers: int, on_gpus: bool
) -> Iterator[tuple[int, Result | Lost]]:
    """Do tasks in worker processes. Each has its own pipe, so that it is known what the one that died was doing.

    Python's own pool is lost as a whole when one of its processes dies, and pebble's waits forever for a task whose
    process died just after it had taken it.
    """
    left = iter(range(len(items)))
    idle = list(range(workers))
    busy: dict[Connection, tuple[_Worker, int]] = {}
    running: dict[int, _Worker] = {}
    try:
        while True:
            while idle and (k := next(left, None)) is not None:
                number = idle.pop()
                worker = running.get(number) or _Worker.start(task, number, workers, on_gpus)
                running[number] = worker
                worker.pipe.send(items[k])
                busy[worker.pipe] = worker, k
            if not busy:
                return
            for pipe in wait(list(busy)):
                worker, k = busy.pop(cast(Connection, pipe))
                idle.append(worker.number)
                try:
                    error, result = worker.pipe.recv()
                except (EOFError, OSError):
                    del running[worker.number]
                    yield k, Lost(_death(worker.stop()))
                    continue
                if error is not None:
                    raise error
                yield k, result
    finally:
        for worker in running.values():
            worker.process.terminate()
        for worker in running.values():
            worker.stop()


@contextmanager
def without_main() -> Iterator[None]:
    """Let a process that starts not run the user's script, as it would to find what is in it: tasks are in modules.

    A script without ``if __name__ == "__main__"`` would do everything again there, and one from stdin can't be found.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass(frozen=True)
class _Worker:
    """A process that does one task after the other.

    Attributes:
        number: among its like.
        process: it.
        pipe: takes items, and gives (error, result) of each.
    """

    number: int
    process: BaseProcess
    pipe: Connection

    @classmethod
    def start(cls, task: Callable[[Any], Any], number: int, workers: int, on_gpus: bool) -> _Worker:
        """Start a process, which is spawned: torch and OpenVINO don't survive a fork."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(task, there, number, workers, on_gpus), daemon=True)
        with without_main():
            process.start()
        there.close()  # else its end would not be seen
        return cls(number, process, here)

    def stop(self) -> int | None:
        """Wait for its end, and tell its exit code."""
        self.pipe.close()
        self.process.join(STOP_S)
        self.process.kill()
        self.process.join()
        return self.process.exitcode


def _work(task: Callable[[Any], Any], pipe: Connection, number: int, workers: int, on_gpus: bool) -> None:
    """A worker's whole life."""
    _prepare_worker(number, workers)
    if on_gpus:
        take_gpu(number)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        answer: tuple[Exception | None, Any]
        try:
            answer = None, task(item)
        except Exception as error:
            answer = error, None
        pipe.send(answer)


def _prepare_worker(number: int, workers: int) -> None:
    """Give a worker its share of the cores, and leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it was writing is removed
    # tqdm's own lock holds a semaphore, which Python reports as leaked when the pool stops its processes.
    tqdm.set_lock(threading.RLock())
    if hasattr(os, "sched_setaffinity"):  # read by torch, OpenVINO and FFmpeg alike; Linux only
        mine = sorted(os.sched_getaffinity(0))[number % workers :: workers]
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
    task: Callable[[Item], Result], items: Sequence[Item], workers: int, address: str | None, on_gpus: bool
) -> Iterator[tuple[int, Result | Lost]]:
    try:
        import ray
    except ModuleNotFoundError:
        raise SkelactError('engine ray: needs Ray (pip install "skelact[ray]")') from None
    started = not ray.is_initialized()
    if started:
        cluster = address or os.environ.get("RAY_ADDRESS")
        on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray takes it over
        try:
            _check_listens(cluster)
            own: dict[str, Any] = (
                {} if cluster else {"include_dashboard": False, "num_cpus": workers if workers > 1 else None}
            )
            ray.init(cluster or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:  # Ray raises plain ones too
            reason = " ".join(str(error).split())
            raise SkelactError(
                f"engine ray: no cluster at {cluster or 'this machine'}: {reason}; start one with `ray start --head`, "
                "and where Ray asks for tokens set RAY_AUTH_TOKEN alike everywhere"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)
    try:
        share = 1 / GPU_WORKERS if on_gpus and ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(_in_folder).options(max_retries=RAY_RETRIES, num_cpus=1, num_gpus=share)
        waiting: dict[Any, int] = {}
        left = iter(enumerate(items))
        limit = max(2 * workers, int(2 * ray.cluster_resources().get("CPU", 1)))
        while True:
            for k, item in left:
                waiting[remote.remote(os.getcwd(), task, item)] = k
                if len(waiting) >= limit:
                    break
            if not waiting:
                break
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                k = waiting.pop(reference)
                try:
                    yield k, ray.get(reference)
                except ray.exceptions.RayTaskError as error:  # the task's own
                    yield k, Lost(" ".join(str(error.cause).split()))
                except ray.exceptions.RayError as error:
                    yield k, Lost(f"Ray gave up after {RAY_RETRIES} retries ({type(error).__name__})")
    finally:
        if started:
            ray.shutdown()


def _in_folder(folder: str, task: Callable[[Item], Result], item: Item) -> Result:
    """Do a task where its caller stands, whose relative paths mean what they say there; Ray's own folder is another."""
    with suppress(OSError):  # there is none on this machine
        os.chdir(folder)
    return task(item)


def _check_listens(address: str | None) -> None:
    """Find out at once that nothing answers there; Ray itself goes on trying for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
